//! The block list (XEP-0191): how long it may be, and who is told of it.

use sim::steps::{counted, errors};
use sim::{ClientId, Faults, World};
use stanza::jid::BareJid;
use xmpp::Settings;
use xmpp::port::{StoreOp, StoreReply};
use xmpp::xep::blocking::{BLOCKED_MAX, BLOCKED_SIZE_MAX};

const LIST: &str = "<iq type='get' id='l'><blocklist xmlns='urn:xmpp:blocking'/></iq>";

fn world() -> World {
    let mut world = World::new(3, Settings::for_tests("example.org"), Faults::calm());
    for name in ["alice", "bob"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    world
}

/// A request to block or to unblock addresses.
fn command(name: &str, jids: &[String]) -> String {
    let items = jids.iter().map(|jid| format!("<item jid='{jid}'/>"));
    let items: String = items.collect();
    format!("<iq type='set' id='b'><{name} xmlns='urn:xmpp:blocking'>{items}</{name}></iq>")
}

/// Says what a client asks for; with which condition it is refused, if it is.
fn refusal(world: &mut World, client: ClientId, text: &str) -> Option<String> {
    world.tell(client, text);
    let received = world.received(client);
    let (_, condition) = errors(&received).pop()?;
    Some(condition.to_owned())
}

/// How many addresses a client's list has.
fn count(world: &mut World, client: ClientId) -> usize {
    world.tell(client, LIST);
    let received = world.received(client);
    let lists = received.iter().filter_map(|it| it.child("blocklist"));
    lists.map(|list| list.children.len()).sum()
}

#[test]
fn who_asked_for_the_block_list_before_a_crash_is_told_of_changes_after_it() {
    let mut world = world();
    let (bob, session) = world.log_in_managed("bob@example.org/1");
    world.tell(bob, "<presence/>");
    world.tell(bob, LIST);
    let had = counted(&world.received(bob));
    world.crash();
    world.run();
    let bob = world.resume("bob@example.org/1", &session, had);
    world.received(bob);
    let other = world.log_in("bob@example.org/2");
    world.tell(other, &command("block", &["alice@example.org".to_owned()]));
    let received = world.received(bob);
    let pushes = received.iter().filter(|it| it.child("block").is_some());
    assert_eq!(pushes.count(), 1, "{received:?}");
}

fn names(range: std::ops::Range<usize>) -> Vec<String> {
    range
        .map(|index| format!("{index}@remote.example"))
        .collect()
}

/// What an import brought is no reason to refuse what makes it shorter.
#[test]
fn a_list_that_is_too_long_becomes_shorter_and_not_longer() {
    let mut world = world();
    let has = names(0..BLOCKED_MAX + 2);
    let op = StoreOp::SetBlocked {
        account: BareJid::from_prepared("bob@example.org"),
        blocked: has.iter().map(|jid| jid.as_str().into()).collect(),
    };
    assert_eq!(world.perform(op), StoreReply::Done);
    let bob = world.log_in("bob@example.org/1");
    let one_more = command("block", &names(BLOCKED_MAX + 2..BLOCKED_MAX + 3));
    for left in (BLOCKED_MAX - 1..BLOCKED_MAX + 2).rev() {
        let refused = refusal(&mut world, bob, &one_more);
        assert_eq!(refused.as_deref(), Some("resource-constraint"));
        let unblock = command("unblock", &has[left..left + 1]);
        assert_eq!(refusal(&mut world, bob, &unblock), None);
        assert_eq!(count(&mut world, bob), left);
    }
    assert_eq!(refusal(&mut world, bob, &one_more), None);
    assert_eq!(count(&mut world, bob), BLOCKED_MAX);
}

/// It is stored whole at each change.
#[test]
fn the_addresses_of_a_list_have_so_many_bytes_and_no_more() {
    let mut world = world();
    let bob = world.log_in("bob@example.org/1");
    let long = |index: usize| format!("{index:04}@remote.example/{}", "r".repeat(1_004));
    let size = long(0).len();
    let fits = BLOCKED_SIZE_MAX / size;
    for start in (0..fits).step_by(64) {
        let jids: Vec<String> = (start..fits.min(start + 64)).map(long).collect();
        assert_eq!(refusal(&mut world, bob, &command("block", &jids)), None);
    }
    let refused = refusal(&mut world, bob, &command("block", &[long(fits)]));
    assert_eq!(refused.as_deref(), Some("resource-constraint"));
    assert_eq!(count(&mut world, bob), fits);
}

/// It is a long answer as any.
#[test]
fn who_asks_for_a_long_list_many_times_gets_it_each_time() {
    const TIMES: usize = 30;
    let mut world = world();
    world.faults.unsent_max = 64 << 20;
    let (bob, _) = world.log_in_managed("bob@example.org/x");
    let long = "r".repeat(200);
    let items: Vec<_> = (0..900)
        .map(|n| format!("u{n}@example.org/{long}"))
        .collect();
    assert_eq!(refusal(&mut world, bob, &command("block", &items)), None);
    world.tell(bob, &LIST.repeat(TIMES));
    assert!(world.client(bob).is_online());
    let received = world.received(bob);
    let lists = received.iter().filter(|it| it.child("blocklist").is_some());
    assert_eq!(lists.count(), TIMES);
}
