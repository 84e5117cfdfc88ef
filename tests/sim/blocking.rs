//! The block list (XEP-0191): how long it may be, and who is told of it.

use sim::steps::{counted, errors, message, messages};
use sim::{ClientId, Element, Faults, World};
use stanza::jid::BareJid;
use xmpp::Settings;
use xmpp::limit::{LOAD_QUEUE_MAX, REQUESTS_PER_SESSION_MAX};
use xmpp::port::{StoreOp, StoreReply};
use xmpp::xep::blocking::{BLOCKED_MAX, BLOCKED_SIZE_MAX};

const LIST: &str = "<iq type='get' id='l'><blocklist xmlns='urn:xmpp:blocking'/></iq>";

/// A request to block or to unblock addresses.
fn command(name: &str, jids: &[String]) -> String {
    let items = jids.iter().map(|jid| format!("<item jid='{jid}'/>"));
    let items: String = items.collect();
    format!("<iq type='set' id='b'><{name} xmlns='urn:xmpp:blocking'>{items}</{name}></iq>")
}

/// A request with an id of its own, about one address.
fn command_with_id(id: &str, name: &str, jid: &str) -> String {
    command(name, &[jid.to_owned()]).replace("id='b'", &format!("id='{id}'"))
}

/// Milliseconds after which the longest list may be written again.
const REST_MS: u64 = (BLOCKED_SIZE_MAX >> 10) as u64;

/// Says what a client asks for; with which condition it is refused, if it is.
fn refusal(world: &mut World, client: ClientId, text: &str) -> Option<String> {
    world.run_for(REST_MS);
    world.tell(client, text);
    let received = world.received(client);
    let (_, condition) = errors(&received).pop()?;
    Some(condition.to_owned())
}

/// The addresses of a client's list.
fn listed(world: &mut World, client: ClientId) -> Vec<String> {
    world.tell(client, LIST);
    let received = world.received(client);
    let lists = received.iter().filter_map(|it| it.child("blocklist"));
    let items = lists.flat_map(|list| &list.children);
    items.map(|item| item.attr("jid").to_owned()).collect()
}

/// How many there are.
fn count(world: &mut World, client: ClientId) -> usize {
    listed(world, client).len()
}

/// The ids of a client's answers, without those to what has the id `l`.
fn answers(world: &mut World, client: ClientId) -> Vec<String> {
    let received = world.received(client);
    let answers = received.iter().filter(|it| it.attr("type") != "set");
    let ids = answers.map(|it| it.attr("id").to_owned());
    ids.filter(|id| id != "l").collect()
}

#[test]
fn who_asked_for_the_block_list_before_a_crash_is_told_of_changes_after_it() {
    let mut world = World::of_three(3, 1);
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

/// Its client knows the list afterwards, whatever was blocked and unblocked while it slept.
#[test]
fn who_asked_for_the_block_list_before_a_crash_is_told_what_it_is_after_it() {
    let blocks = |name: &str, count: usize| command(name, &names(0..count));
    for (before, while_away) in [
        (0, &[blocks("block", 2)][..]),
        (2, &[blocks("unblock", 1)]),
        (2, &[command("unblock", &[])]),
        (
            3,
            &[
                blocks("unblock", 2),
                command("block", &names(7..BLOCKED_MAX)),
            ],
        ),
    ] {
        let mut world = World::of_three(3, 1);
        let (bob, session) = world.log_in_managed("bob@example.org/1");
        if before > 0 {
            world.tell(bob, &blocks("block", before));
        }
        world.tell(bob, LIST);
        let had = counted(&world.received(bob));
        world.vanish(bob);
        world.run();
        let other = world.log_in("bob@example.org/2");
        for change in while_away {
            world.tell(other, change);
        }
        world.crash();
        world.run();
        let bob = world.resume("bob@example.org/1", &session, had);
        let mut known = names(0..before);
        for stanza in world.received(bob) {
            let items = |push: &Element| -> Vec<String> {
                let items = push.children.iter();
                items.map(|item| item.attr("jid").to_owned()).collect()
            };
            if let Some(unblocked) = stanza.child("unblock").map(items) {
                known.retain(|jid| !unblocked.is_empty() && !unblocked.contains(jid));
            }
            known.extend(stanza.child("block").map(items).unwrap_or_default());
        }
        assert_eq!(known, listed(&mut world, bob), "{before}");
        // What it was sent counts as a long roster does.
        assert_eq!(count(&mut world, bob), known.len());
    }
}

fn names(range: std::ops::Range<usize>) -> Vec<String> {
    range
        .map(|index| format!("{index}@remote.example"))
        .collect()
}

/// What an import brought is no reason to refuse what makes it shorter.
#[test]
fn a_list_that_is_too_long_becomes_shorter_and_not_longer() {
    let mut world = World::of_three(3, 1);
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
    let mut world = World::of_three(3, 1);
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
    let mut world = World::of_three(3, 1);
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

/// Adds to a client's list until it is as long as one may be, but for a few addresses.
fn fill(world: &mut World, client: ClientId) {
    let long = |index: usize| format!("{index:04}@remote.example/{}", "r".repeat(980));
    for start in (0..256).step_by(64) {
        let jids: Vec<String> = (start..start + 64).map(long).collect();
        assert_eq!(refusal(world, client, &command("block", &jids)), None);
    }
}

#[test]
fn a_change_that_is_refused_did_not_happen_whatever_comes_behind_it() {
    let mut refused_once = [false; 2];
    for seed in 1..=200 {
        let mut world = World::of_three(seed, 1);
        let bob = world.log_in("bob@example.org/1");
        world.tell(bob, &command_with_id("a", "block", "alice@example.org"));
        world.received(bob);
        world.faults.disk_failures = 500;
        world.faults.disk_us = (1_000, 5_000);
        world.send(bob, &command_with_id("u", "unblock", "alice@example.org"));
        world.send(bob, &command_with_id("c", "block", "carl@example.org"));
        world.run();
        world.faults.disk_failures = 0;
        let received = world.received(bob);
        let refused = errors(&received);
        let has = |id| refused.iter().any(|(refused, _)| *refused == id);
        let mut expected = Vec::new();
        expected.extend(has("u").then_some("alice@example.org"));
        expected.extend((!has("c")).then_some("carl@example.org"));
        assert_eq!(listed(&mut world, bob), expected, "{seed}: {refused:?}");
        refused_once = [refused_once[0] || has("u"), refused_once[1] || has("c")];
    }
    assert_eq!(refused_once, [true; 2], "both were refused some time");
}

/// What comes while a change is on its way to storage goes there together.
#[test]
fn a_list_has_one_write_under_way_however_many_requests_change_it() {
    let mut world = World::of_three(3, 1);
    let bob = world.log_in("bob@example.org/1");
    let other = world.log_in("bob@example.org/2");
    world.tell(other, LIST);
    world.received(other);
    world.faults.disk_us = (20_000, 20_000);
    let ids: Vec<String> = (0..30).map(|index| format!("r{index}")).collect();
    let jids: Vec<String> = ids.iter().map(|id| format!("{id}@example.net")).collect();
    for (id, jid) in ids.iter().zip(&jids) {
        world.send(bob, &command_with_id(id, "block", jid));
    }
    world.send(bob, LIST);
    world.run_for(10);
    let unanswered = world.shards().map(|shard| shard.unanswered_count());
    assert_eq!(unanswered.sum::<usize>(), 1);
    world.run();
    assert_eq!(answers(&mut world, bob), ids);
    let pushes = world.received(other);
    let pushed = pushes.iter().filter_map(|it| it.child("block"));
    let pushed = pushed.flat_map(|block| &block.children);
    let pushed: Vec<&str> = pushed.map(|item| item.attr("jid")).collect();
    assert_eq!(pushed, jids, "each is told by itself");
    assert_eq!(listed(&mut world, bob), jids);
}

#[test]
fn the_input_waits_behind_as_many_changes_as_a_session_may_have_under_way() {
    const PING: &str = "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>";
    let limit = usize::from(REQUESTS_PER_SESSION_MAX);
    for count in [limit - 1, limit] {
        let mut world = World::of_three(3, 1);
        let bob = world.log_in("bob@example.org/1");
        world.faults.disk_us = (20_000, 20_000);
        for index in 0..count {
            let jid = format!("{index}@example.net");
            world.send(bob, &command_with_id("r", "block", &jid));
        }
        world.send(bob, &PING.replace("'get'", "'get' to='example.org'"));
        world.run_for(10);
        let expected = ["p"].iter().filter(|_| count < limit);
        let expected: Vec<String> = expected.map(|id| (*id).to_owned()).collect();
        assert_eq!(answers(&mut world, bob), expected);
        world.run();
        assert_eq!(answers(&mut world, bob).len() + expected.len(), count + 1);
        assert_eq!(self::count(&mut world, bob), count);
    }
}

/// Else whoever changes a long list by one address again and again has it written as often.
#[test]
fn a_long_list_is_written_again_after_a_while_and_read_at_once() {
    let mut world = World::of_three(3, 1);
    let bob = world.log_in("bob@example.org/1");
    fill(&mut world, bob);
    world.run_for(REST_MS);
    world.tell(bob, &command_with_id("1", "block", "alice@example.org"));
    assert_eq!(answers(&mut world, bob), ["1"]);
    assert_eq!(count(&mut world, bob), 257);
    world.tell(bob, &command_with_id("2", "unblock", "alice@example.org"));
    world.tell(bob, &command_with_id("3", "block", "carl@example.org"));
    world.run_for(REST_MS / 2);
    assert_eq!(answers(&mut world, bob), [""; 0]);
    world.run_for(REST_MS / 2);
    assert_eq!(answers(&mut world, bob), ["2", "3"]);
    assert_eq!(listed(&mut world, bob).last().unwrap(), "carl@example.org");
}

#[test]
fn a_change_that_waits_is_not_made_to_the_list_of_who_has_the_name_next() {
    let mut world = World::of_three(3, 1);
    let bob = world.log_in("bob@example.org/1");
    fill(&mut world, bob);
    world.tell(bob, &command_with_id("1", "block", "alice@example.org"));
    world.tell(
        bob,
        "<iq type='set' id='r'><query xmlns='jabber:iq:register'><remove/></query></iq>",
    );
    world.add_account("bob@example.org", "secret");
    world.run_for(2 * REST_MS);
    let next = world.log_in("bob@example.org/1");
    assert_eq!(count(&mut world, next), 0);
}

/// A block looks for what waits of those whom it blocks, here only when the account is gone.
#[test]
fn what_waits_for_who_has_the_name_next_is_not_bounced_by_a_block_of_the_one_before() {
    let mut world = World::of_three(3, 1);
    let alice = world.log_in("alice@example.org/x");
    world.tell(alice, &message("chat", "bob@example.org", "1"));
    let bob = world.log_in("bob@example.org/1");
    world.faults.disk_us = (20_000, 20_000);
    world.send(bob, &command("block", &["alice@example.org".to_owned()]));
    // The list is stored, and what waits is being read.
    let start = world.now();
    let answered = (1..1_000).any(|step| {
        world.run_until(start + step * 1_000);
        !world.received(bob).is_empty()
    });
    assert!(answered);
    world.faults.disk_failures = 1_000;
    world.run_for(45);
    world.faults.disk_failures = 0;
    world.faults.disk_us = (100, 100);
    world.send(
        bob,
        "<iq type='set' id='r'><query xmlns='jabber:iq:register'><remove/></query></iq>",
    );
    world.run_for(5_000);
    // Nobody is to have it any more: it bounces, whichever of the two it was for.
    let heard = world.received(alice);
    assert_eq!(errors(&heard), [("1", "service-unavailable")]);
    world.add_account("bob@example.org", "secret");
    world.tell(alice, &message("chat", "bob@example.org", "2"));
    world.run_for(5_000);
    assert_eq!(errors(&world.received(alice)), []);
    let bob = world.arrive("bob@example.org/1");
    assert_eq!(messages(&world.received(bob)), ["2"]);
}

/// Where no more stanzas may wait, errors go on at once.
#[test]
fn who_is_blocked_does_not_get_through_by_an_error_past_what_waits() {
    const ERROR: &str =
        "<message type='error' to='bob@example.org/x' id='e'><body>e</body></message>";
    let mut world = World::of_three(3, 1);
    let alice = world.log_in("alice@example.org/x");
    let carl = world.log_in("carl@example.org/x");
    let (bob, _) = world.log_in_managed("bob@example.org/x");
    world.tell(bob, &command("block", &["alice@example.org".to_owned()]));
    world.tell(carl, &message("chat", "bob@example.org", "waited"));
    world.received(bob);
    world.faults.disk_us = (500_000, 500_000);
    world.send(bob, "<presence/>");
    world.run_until(world.now() + 10_000);
    for index in 0..LOAD_QUEUE_MAX {
        let id = format!("m{index}");
        world.send(alice, &message("chat", "bob@example.org", &id));
    }
    world.send(alice, ERROR);
    world.send(carl, &ERROR.replace("'e'", "'carl'"));
    world.run();
    assert_eq!(messages(&world.received(bob)), ["waited", "carl"]);
    assert_eq!(errors(&world.received(alice)).len(), LOAD_QUEUE_MAX);
}

/// What was said at the block may have gone with the process, and the sessions that said it sleep.
#[test]
fn who_was_blocked_while_away_hears_after_a_crash_that_the_other_is_gone() {
    for blocked in ["alice@example.org", "alice@example.org/1"] {
        for resources in [1, 2] {
            blocked_while_away(blocked, resources);
        }
    }
}

fn blocked_while_away(blocked: &str, resources: usize) {
    let mut world = World::of_three(3, 1);
    world.befriend("alice@example.org", "bob@example.org");
    let arrive = |world: &mut World, full: &str| {
        let (client, session) = world.log_in_managed(full);
        world.tell(client, "<presence/>");
        (client, session)
    };
    let (alice, alices) = arrive(&mut world, "alice@example.org/1");
    let (carl, carls) = arrive(&mut world, "carl@example.org/1");
    let bobs: Vec<_> = (1..=resources)
        .map(|resource| arrive(&mut world, &format!("bob@example.org/{resource}")))
        .collect();
    let (bob, session) = &bobs[0];
    let had = counted(&world.received(alice));
    let carl_had = counted(&world.received(carl));
    world.vanish(alice);
    world.run();
    let jids = [blocked, "carl@example.org"].map(str::to_owned);
    assert_eq!(refusal(&mut world, *bob, &command("block", &jids)), None);
    world.crash();
    world.run();
    let alice = world.resume("alice@example.org/1", &alices, had);
    let carl = world.resume("carl@example.org/1", &carls, carl_had);
    assert_eq!(presence_of_bob(&mut world, alice), [] as [[String; 2]; 0]);
    let bob = world.resume("bob@example.org/1", session, 0);
    let gone = ["bob@example.org", "unavailable"].map(str::to_owned);
    assert_eq!(presence_of_bob(&mut world, alice), [gone], "{blocked}");
    world.tell(bob, "<presence type='unavailable'/>");
    world.leave(bob);
    world.run_for(400_000);
    for client in [alice, carl] {
        assert_eq!(presence_of_bob(&mut world, client), [] as [[String; 2]; 0]);
    }
}

/// It counts as none from then on, wherever that is found: where its time is over, and where its
/// client asks for it once more.
#[test]
fn who_was_blocked_hears_that_the_other_is_gone_whose_session_is_damaged() {
    for is_asked_for in [false, true] {
        let mut world = World::of_three(4, 1);
        world.befriend("alice@example.org", "bob@example.org");
        let (alice, alices) = world.log_in_managed("alice@example.org/1");
        world.tell(alice, "<presence/>");
        let (bob, session) = world.log_in_managed("bob@example.org/1");
        world.tell(bob, "<presence/>");
        let had = counted(&world.received(alice));
        world.vanish(alice);
        world.run();
        let block = command("block", &["alice@example.org".to_owned()]);
        assert_eq!(refusal(&mut world, bob, &block), None);
        world.crash();
        world.run();
        let alice = world.resume("alice@example.org/1", &alices, had);
        if is_asked_for {
            world.faults.unreadable = vec![session.clone()];
            world.arrive("bob@example.org/2");
        }
        assert_eq!(presence_of_bob(&mut world, alice), [] as [[String; 2]; 0]);
        world.faults.unreadable.clear();
        world.faults.damaged = vec![session.clone()];
        match is_asked_for {
            true => {
                world.resume("bob@example.org/1", &session, 0);
            }
            false => world.run_for(310_000),
        }
        let gone = ["bob@example.org", "unavailable"].map(str::to_owned);
        assert_eq!(presence_of_bob(&mut world, alice), [gone], "{is_asked_for}");
    }
}

/// What presence a client had from whom, where it was one of bob's.
fn presence_of_bob(world: &mut World, client: ClientId) -> Vec<[String; 2]> {
    let received = world.received(client);
    let presence = received.iter().filter(|it| it.name == "presence");
    let of_bob = presence.filter(|it| it.attr("from").starts_with("bob@"));
    of_bob
        .map(|it| [it.attr("from"), it.attr("type")].map(str::to_owned))
        .collect()
}

/// Messages of alice's wait for bob, and bob blocks her: they bounce before he is there, for later
/// that would say so. What another sent keeps them in storage.
#[test]
fn what_waits_of_who_is_blocked_bounces_at_the_block_and_not_when_its_receiver_is_there() {
    for seed in 1..=50 {
        for is_managed in [false, true] {
            let (mut world, alice) = world_where_something_waits(seed);
            let quiet = world.log_in("bob@example.org/quiet");
            world.faults.disk_failures = if seed == 1 { 0 } else { 500 };
            let block = command("block", &["alice@example.org".to_owned()]);
            while refusal(&mut world, quiet, &block).is_some() {}
            world.faults.disk_failures = 0;
            world.run_for(5_000);
            let expected = ["1", "2"].map(|id| (id, "service-unavailable"));
            assert_eq!(errors(&world.received(alice)), expected);
            world.leave(quiet);
            world.run();
            let bob = match is_managed {
                true => world.log_in_managed("bob@example.org/x").0,
                false => world.log_in("bob@example.org/x"),
            };
            world.tell(bob, "<presence/>");
            assert_eq!(messages(&world.received(bob)), ["c"]);
            assert_eq!(world.received(alice), []);
        }
    }
}

fn world_where_something_waits(seed: u64) -> (World, ClientId) {
    let mut world = World::of_three(seed, 1);
    let alice = world.log_in("alice@example.org/x");
    let carl = world.log_in("carl@example.org/x");
    world.tell(carl, &message("chat", "bob@example.org", "c"));
    for id in ["1", "2"] {
        world.tell(alice, &message("chat", "bob@example.org", id));
    }
    (world, alice)
}

#[test]
fn what_is_on_its_way_from_storage_when_its_sender_is_blocked_bounces_once() {
    for is_managed in [false, true] {
        let (mut world, alice) = world_where_something_waits(1);
        let bob = match is_managed {
            true => world.log_in_managed("bob@example.org/x").0,
            false => world.log_in("bob@example.org/x"),
        };
        let block = command("block", &["alice@example.org".to_owned()]);
        world.send(bob, &(block + "<presence/>"));
        world.run();
        assert_eq!(messages(&world.received(bob)), ["c"]);
        let expected = ["1", "2"].map(|id| (id, "service-unavailable"));
        assert_eq!(errors(&world.received(alice)), expected);
    }
}

fn block_alice() -> String {
    command("block", &["alice@example.org".to_owned()])
}

/// One who is managed, and whose session ends with the connection.
fn log_in_until_lost(world: &mut World, full: &str) -> ClientId {
    let client = world.log_in(full);
    world.tell(client, "<enable xmlns='urn:xmpp:sm:3'/>");
    world.received(client);
    client
}

/// Alice was told of two messages; then bob has what else waits, and neither hears more of them.
fn assert_bounced_once(
    world: &mut World,
    [alice, carl]: [ClientId; 2],
    of_carl: usize,
    what: &str,
) {
    world.run_for(10_000);
    let bounced = errors(&world.received(alice)).len();
    assert_eq!(bounced, 2, "{what}");
    let bob = world.log_in("bob@example.org/next");
    world.tell(bob, "<presence/>");
    world.run_for(10_000);
    let received = world.received(bob);
    let received = messages(&received);
    let of_alice = received.iter().filter(|id| ["1", "2"].contains(id));
    assert_eq!(of_alice.count(), 0, "{what}: {received:?}");
    assert_eq!(errors(&world.received(alice)), [], "{what}");
    // The others' messages wait on, or find no room.
    let refused = world.received(carl);
    let fates = received.len() + errors(&refused).len();
    assert_eq!(fates, of_carl, "{what}: {received:?}, {refused:?}");
}

/// Two of alice's messages and four of carl's are in the queue of a session that ends; so many may
/// wait offline.
fn end_with_queue(
    seed: u64,
    offline_max: u32,
    after_us: u64,
    failures: u64,
) -> (World, [ClientId; 2]) {
    let mut settings = Settings::for_tests("example.org");
    settings.limits.offline_max = offline_max;
    let mut world = World::new(seed, settings, Faults::calm());
    for name in ["alice", "bob", "carl"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    let alice = world.log_in("alice@example.org/x");
    let carl = world.log_in("carl@example.org/x");
    let quiet = world.log_in("bob@example.org/quiet");
    let bob = log_in_until_lost(&mut world, "bob@example.org/x");
    world.tell(bob, "<presence/>");
    for id in ["1", "2"] {
        world.tell(alice, &message("chat", "bob@example.org", id));
    }
    for id in ["3", "4", "5", "6"] {
        world.tell(carl, &message("chat", "bob@example.org", id));
    }
    world.send(quiet, &block_alice());
    let at = world.now() + after_us;
    world.run_until(at);
    world.faults.disk_failures = failures;
    world.leave(bob);
    if failures > 0 {
        world.run_for(3_000);
        world.faults.disk_failures = 0;
        // Where the change was refused it is made now.
        world.run_for(REST_MS);
        world.tell(quiet, &block_alice());
    }
    world.run_for(10_000);
    world.leave(quiet);
    world.run();
    (world, [alice, carl])
}

#[test]
fn what_a_session_leaves_of_who_is_blocked_meanwhile_bounces_once_whatever_finds_room() {
    for seed in 1..=100 {
        for after_us in [0, 40, 80, 120, 200, 300, 500] {
            for offline_max in [3, 100] {
                let (mut world, them) = end_with_queue(seed, offline_max, after_us, 0);
                let what = format!("seed {seed}, {after_us} us, {offline_max}");
                assert_bounced_once(&mut world, them, 4, &what);
            }
        }
    }
}

#[test]
fn what_a_session_leaves_of_who_is_blocked_while_storage_fails_bounces_once() {
    for seed in 1..=200 {
        for after_us in [0, 60, 120, 200, 400] {
            let (mut world, them) = end_with_queue(seed, 100, after_us, 700);
            assert_bounced_once(&mut world, them, 4, &format!("seed {seed}, {after_us} us"));
        }
    }
}

/// Its sender hears of it before storage has the end: whenever the process dies, she has the error,
/// or the session ends once more in the next one.
#[test]
fn what_a_session_leaves_of_who_is_blocked_meanwhile_bounces_whenever_the_process_dies() {
    for (seed, moment) in (1..=4).flat_map(|seed| (0..60).map(move |it| (seed, it * 100))) {
        let mut settings = Settings::for_tests("example.org");
        settings.limits.offline_max = 1;
        let mut world = World::new(seed, settings, Faults::calm());
        for name in ["alice", "bob", "carl"] {
            world.add_account(&format!("{name}@example.org"), "secret");
        }
        let (alice, session) = world.log_in_managed("alice@example.org/x");
        let carl = world.log_in("carl@example.org/x");
        let quiet = world.log_in("bob@example.org/quiet");
        let bob = log_in_until_lost(&mut world, "bob@example.org/x");
        world.tell(bob, "<presence/>");
        world.tell(alice, &message("chat", "bob@example.org", "1"));
        world.tell(alice, "<r xmlns='urn:xmpp:sm:3'/>");
        world.tell(carl, &message("chat", "bob@example.org", "2"));
        let received = world.received(alice);
        assert!(
            received.iter().any(|it| it.attr("h") == "1"),
            "it was acknowledged"
        );
        // The end finds no room for both at first, and the list is another one by then.
        world.faults.disk_us = (1_000, 1_000);
        world.send(quiet, &block_alice());
        world.run_until(world.now() + 500);
        world.leave(bob);
        world.run_until(world.now() + moment);
        let mut received = world.received(alice);
        world.crash();
        world.run();
        let alice = world.resume("alice@example.org/x", &session, counted(&received));
        world.run_for(700_000);
        received.extend(world.received(alice));
        let bounced = errors(&received).iter().any(|(id, _)| *id == "1");
        // Where the block went with the process, bob has the message.
        let bob = world.arrive("bob@example.org/next");
        let came = messages(&world.received(bob)).contains(&"1");
        assert!(bounced || came, "seed {seed}, {moment} us");
    }
}

/// What stands before it is on its way to another resource's queue, for which the end waits.
#[test]
fn what_stands_in_an_end_that_waits_for_another_bounces_when_its_sender_is_blocked() {
    for seed in 1..=200 {
        let mut world = World::of_three(seed, 1);
        let [alice, carl] =
            ["alice@example.org/x", "carl@example.org/x"].map(|full| world.log_in(full));
        for id in ["1", "2"] {
            world.tell(alice, &message("chat", "bob@example.org", id));
        }
        let bob = log_in_until_lost(&mut world, "bob@example.org/x");
        world.tell(carl, &message("chat", "bob@example.org/x", "m"));
        let (other, _) = world.log_in_managed("bob@example.org/y");
        world.tell(bob, "<presence/>");
        assert_eq!(messages(&world.received(bob)), ["m", "1", "2"]);
        world.tell(other, "<presence/>");
        world.send(other, &block_alice());
        let at = world.now() + seed * 2;
        world.run_until(at);
        world.send(bob, "</stream:stream>");
        world.run_for(10_000);
        let received = world.received(other);
        let received = messages(&received);
        let bounced = errors(&world.received(alice)).len();
        let had = received.iter().filter(|id| ["1", "2"].contains(id)).count();
        assert_eq!(bounced + had, 2, "seed {seed}: {received:?}");
    }
}

/// A session that is not managed was given what waits, and its socket did not take it.
#[test]
fn what_a_session_gives_back_of_who_is_blocked_meanwhile_bounces() {
    for seed in 1..=20 {
        let (mut world, alice) = world_where_something_waits(seed);
        let carl = world.log_in("carl@example.org/y");
        let quiet = world.log_in("bob@example.org/quiet");
        let bob = world.log_in("bob@example.org/x");
        world.faults.window_bytes = 1;
        world.set_reading(bob, false);
        world.tell(bob, "<presence/>");
        world.tell(quiet, &block_alice());
        assert_eq!(errors(&world.received(alice)), [], "seed {seed}");
        world.faults.window_bytes = 64 << 10;
        world.vanish(bob);
        world.run_for(600_000);
        world.leave(quiet);
        assert_bounced_once(&mut world, [alice, carl], 1, &format!("seed {seed}"));
    }
}
