//! The end of an account (XEP-0077 3.2): whatever becomes of the process and the disk, no contact
//! has a subscription with an account that is gone.

use sim::client::Proof;
use sim::steps::{counted, errors, message, messages};
use sim::{ClientId, Faults, Login, World};
use stanza::jid::BareJid;
use std::collections::{BTreeMap, BTreeSet};
use xmpp::port::{OfflineQuota, RosterItem, StoreOp, StoreReply, Subscription};
use xmpp::xep::register::{CONTACTS_TOLD_MAX, LEFTOVERS_BOUNCED_MAX};
use xmpp::{Settings, Timestamp};

const ALICE: &str = "alice@example.org";

const CANCEL: &str =
    "<iq type='set' id='c'><query xmlns='jabber:iq:register'><remove/></query></iq>";

/// Alice's contacts, some of whom are at home on her shard and some of whom are there, with what
/// her roster says of them.
const CONTACTS: [(&str, &str); 6] = [
    ("bob@example.org", "both"),
    ("carol@example.org", "both"),
    ("dave@example.org", "from"),
    ("eve@example.org", "to"),
    ("frank@example.org", "asked"),
    ("grace@example.org", "asks"),
];

fn jid(text: &str) -> BareJid {
    BareJid::from_prepared(text)
}

fn put(world: &mut World, owner: &str, contact: &str, state: &str) {
    let mut item = RosterItem::new(jid(contact));
    item.listed = state != "asks";
    item.subscription = Subscription::parse(state).unwrap_or_default();
    item.ask = state == "asked";
    let request = format!("<presence from='{contact}' to='{owner}' type='subscribe'/>");
    item.pending_in = (state == "asks").then(|| request.into_bytes().into());
    let op = StoreOp::PutRosterItem {
        account: jid(owner),
        item: Box::new(item),
    };
    assert_eq!(world.perform(op), StoreReply::Done);
}

/// What the other side says, where one says this.
fn other_side(state: &str) -> &str {
    match state {
        "from" => "to",
        "to" => "from",
        "asked" => "asks",
        "asks" => "asked",
        both => both,
    }
}

/// The roster of an account, if that exists.
fn roster(world: &mut World, owner: &str) -> Option<Vec<RosterItem>> {
    let account = jid(owner);
    match world.perform(StoreOp::Account { account }) {
        StoreReply::Account(data) => data.map(|data| data.roster),
        other => panic!("{other:?}"),
    }
}

/// What is between an account and a contact by the account's roster.
fn between(world: &mut World, owner: &str, contact: &str) -> (Subscription, bool, bool) {
    let items = roster(world, owner).unwrap_or_default();
    let item = items.into_iter().find(|item| item.contact == jid(contact));
    let item = item.unwrap_or_else(|| RosterItem::new(jid(contact)));
    (item.subscription, item.ask, item.pending_in.is_some())
}

const NOTHING: (Subscription, bool, bool) = (Subscription::None, false, false);

/// Alice with her contacts, of whom bob, carol and frank are there.
fn world(seed: u64) -> (World, ClientId) {
    let settings = Settings {
        shards: 2,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(seed, settings, Faults::calm());
    world.add_account(ALICE, "secret");
    for (contact, state) in CONTACTS {
        world.add_account(contact, "secret");
        put(&mut world, ALICE, contact, state);
        put(&mut world, contact, ALICE, other_side(state));
    }
    for contact in ["bob", "carol", "frank"] {
        world.arrive(&format!("{contact}@example.org/x"));
    }
    let alice = world.arrive("alice@example.org/x");
    (world, alice)
}

/// No contact has anything with alice.
fn check_gone(world: &mut World, place: &str) {
    for (contact, _) in CONTACTS {
        let left = between(world, contact, ALICE);
        assert_eq!(left, NOTHING, "{place}: {contact}");
    }
}

/// Both sides of everything between alice and her contacts agree.
fn check_sides(world: &mut World, place: &str) {
    for (contact, _) in CONTACTS {
        let (own, asks, asked) = between(world, ALICE, contact);
        let mirrored = (Subscription::of(own.is_from(), own.is_to()), asked, asks);
        let other = between(world, contact, ALICE);
        assert_eq!(other, mirrored, "{place}: {contact}");
    }
}

fn cancel(world: &mut World, place: &str) {
    let alice = world.log_in("alice@example.org/y");
    world.tell(alice, CANCEL);
    let received = world.received(alice);
    let answer = received.iter().find(|it| it.attr("id") == "c");
    let type_ = answer.map(|it| it.attr("type"));
    assert_eq!(type_, Some("result"), "{place}: {received:?}");
    assert_eq!(roster(world, ALICE), None, "{place}");
    check_gone(world, place);
}

/// Alice says something and cancels her account, and the process dies somehow. If the account is
/// still there, she says it again. Whether it was gone.
fn is_cancelled(seed: u64, says: &str, place: &str, dies: impl FnOnce(&mut World)) -> bool {
    let (mut world, alice) = world(seed);
    world.send(alice, &format!("{says}{CANCEL}"));
    dies(&mut world);
    let answered = world.received(alice).iter().any(|it| it.attr("id") == "c");
    world.run();
    let is_gone = roster(&mut world, ALICE).is_none();
    assert!(is_gone || !answered, "{place}");
    match is_gone {
        true => check_gone(&mut world, place),
        false => cancel(&mut world, place),
    }
    is_gone
}

/// The process dies at any moment, or one of its shards at any step.
fn cancelled_at_any_crash(says: &str) {
    let mut gone = BTreeMap::new();
    for seed in 1..=4 {
        for moment in (0..120).map(|it| it * 10) {
            let place = format!("seed {seed}, {moment} us");
            let is_gone = is_cancelled(seed, says, &place, |world| {
                world.run_until(world.now() + moment);
                world.crash();
            });
            *gone.entry(is_gone).or_insert(0) += 1;
        }
        for (shard, steps) in (0..2).flat_map(|shard| (0..30).map(move |it| (shard, it))) {
            let place = format!("seed {seed}, step {steps} of shard {shard}");
            let is_gone = is_cancelled(seed, says, &place, |world| {
                world.doom(shard, steps);
                world.run();
                world.spare();
            });
            *gone.entry(is_gone).or_insert(0) += 1;
        }
    }
    let is_rough = [true, false].map(|it| gone.get(&it) > Some(&50));
    assert_eq!(is_rough, [true; 2], "{gone:?}");
}

#[test]
fn a_cancellation_that_a_crash_tears_leaves_no_contact_with_an_account_that_is_gone() {
    cancelled_at_any_crash("");
}

/// Her roster says nothing of them any more, but they are still being told of that.
#[test]
fn a_cancellation_behind_removals_waits_for_what_contacts_are_told_of_these() {
    let removals = CONTACTS.map(|(contact, state)| match state {
        "asks" => format!("<presence to='{contact}' type='unsubscribed'/>"),
        _ => format!(
            "<iq type='set' id='r'><query xmlns='jabber:iq:roster'>\
             <item jid='{contact}' subscription='remove'/></query></iq>"
        ),
    });
    cancelled_at_any_crash(&removals.concat());
}

/// The disk is full from any moment on, for a while. What contacts are told is tried until it is
/// stored; only the account's own end may fail, and then its roster says what theirs do.
#[test]
fn a_cancellation_that_a_full_disk_refuses_leaves_both_sides_as_they_say() {
    let mut answers = BTreeMap::new();
    for (seed, moment) in (1..=4).flat_map(|seed| (0..120).map(move |it| (seed, it * 10))) {
        let place = format!("seed {seed}, full after {moment} us");
        let (mut world, alice) = world(seed);
        world.send(alice, CANCEL);
        world.run_until(world.now() + moment);
        world.faults.disk_full = true;
        world.run_for(3_000);
        world.faults.disk_full = false;
        world.run_for(5_000);
        let received = world.received(alice);
        let answer = received.iter().find(|it| it.attr("id") == "c");
        let type_ = answer.expect("an answer").attr("type").to_owned();
        match type_.as_str() {
            "result" => assert_eq!(roster(&mut world, ALICE), None, "{place}"),
            _ => {
                let condition = errors(&received);
                assert_eq!(condition, [("c", "internal-server-error")], "{place}");
                check_sides(&mut world, &place);
                world.tell(alice, CANCEL);
                assert_eq!(roster(&mut world, ALICE), None, "{place}");
            }
        }
        check_gone(&mut world, &place);
        *answers.entry(type_).or_insert(0) += 1;
    }
    assert!(answers.values().all(|count| *count > 5), "{answers:?}");
    assert_eq!(answers.len(), 2, "{answers:?}");
}

/// The accounts of contacts who are away cannot be read for so long that their shards give up.
#[test]
fn an_account_stays_where_a_contact_cannot_be_told_and_so_does_what_is_between_them() {
    let (mut world, alice) = world(1);
    world.faults.disk_failures = 1_000;
    world.send(alice, CANCEL);
    world.run_for(100_000);
    world.faults.disk_failures = 0;
    world.run_for(5_000);
    let received = world.received(alice);
    assert_eq!(
        errors(&received).last(),
        Some(&("c", "internal-server-error"))
    );
    let left = CONTACTS.map(|(contact, _)| between(&mut world, ALICE, contact) != NOTHING);
    assert_eq!(left, [false, false, true, true, false, true]);
    check_sides(&mut world, "refused");
    // Her client may go on.
    world.tell(alice, "<presence to='bob@example.org' type='subscribe'/>");
    assert!(between(&mut world, "bob@example.org", ALICE).2);
    world.tell(alice, CANCEL);
    check_gone(&mut world, "repeated");
    assert_eq!(roster(&mut world, ALICE), None);
}

#[test]
fn of_a_large_roster_some_contacts_are_told_at_a_time() {
    const CONTACTS: usize = 1_000;
    let (mut world, alice) = world(1);
    world.leave(alice);
    world.run();
    let names = (0..CONTACTS).map(|index| format!("friend{index}@example.org"));
    let names: Vec<String> = names.collect();
    for name in &names {
        world.add_account(name, "secret");
        put(&mut world, ALICE, name, "both");
        put(&mut world, name, ALICE, "both");
    }
    cancel(&mut world, "large");
    for name in &names {
        assert_eq!(between(&mut world, name, ALICE), NOTHING, "{name}");
    }
    let peak = world.unanswered_peak();
    let bounds = CONTACTS_TOLD_MAX / 2..4 * CONTACTS_TOLD_MAX;
    assert!(bounds.contains(&peak), "{peak} requests at once");
    world.check_rest();
}

/// While contacts are told, nothing new begins, and a second request changes nothing.
#[test]
fn an_account_that_is_being_cancelled_begins_nothing() {
    let (mut world, alice) = world(1);
    world.add_account("new@example.org", "secret");
    let subscribe = "<presence to='new@example.org' type='subscribe' id='s'/>";
    let approve = "<presence to='new@example.org' type='subscribed' id='a'/>";
    let again = CANCEL.replace("id='c'", "id='again'");
    world.tell(alice, &format!("{CANCEL}{again}{subscribe}{approve}"));
    let received = world.received(alice);
    let refused = ["again", "s", "a"].map(|id| (id, "unexpected-request"));
    assert_eq!(errors(&received), refused);
    let answer = received.iter().find(|it| it.attr("id") == "c");
    assert_eq!(answer.map(|it| it.attr("type")), Some("result"));
    assert_eq!(between(&mut world, "new@example.org", ALICE), NOTHING);
    check_gone(&mut world, "twice");
}

/// An administrator's deletion is a cancellation, whether or not somebody is there.
#[test]
fn an_account_that_an_administrator_deletes_ends_its_subscriptions_first() {
    for (seed, is_there) in [(1, true), (2, false)] {
        let (mut world, alice) = world(seed);
        if !is_there {
            world.leave(alice);
            world.run();
        }
        let bob = world.arrive("bob@example.org/y");
        world.tell(
            bob,
            "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>",
        );
        world.received(bob);
        let answer = world.delete(ALICE);
        world.run();
        assert_eq!(answer.try_recv(), Ok(StoreReply::Done));
        assert_eq!(roster(&mut world, ALICE), None);
        check_gone(&mut world, "deleted");
        assert!(world.client(alice).ended);
        let heard = world.received(bob);
        for type_ in ["unsubscribe", "unsubscribed"] {
            let is_it = |it: &&sim::Element| it.attr("type") == type_;
            assert_eq!(heard.iter().filter(is_it).count(), 1, "{type_}: {heard:?}");
        }
        // The name has a new owner, who gets nothing of what bob shows others.
        world.add_account(ALICE, "secret");
        let next = world.arrive("alice@example.org/x");
        world.received(next);
        world.tell(bob, "<presence><status>at home</status></presence>");
        let received = world.received(next);
        assert!(received.is_empty(), "{received:?}");
        world.check_rest();
    }
}

/// The process dies at any moment of it: the administrator has no answer then, and says it again.
#[test]
fn a_deletion_that_a_crash_tears_leaves_no_contact_with_an_account_that_is_gone() {
    let mut gone = BTreeMap::new();
    for (seed, moment) in (1..=4).flat_map(|seed| (0..120).map(move |it| (seed, it * 10))) {
        let place = format!("seed {seed}, {moment} us");
        let (mut world, _) = world(seed);
        let answer = world.delete(ALICE);
        world.run_until(world.now() + moment);
        world.crash();
        let is_answered = answer.try_recv() == Ok(StoreReply::Done);
        world.run();
        let is_gone = roster(&mut world, ALICE).is_none();
        assert!(is_gone || !is_answered, "{place}");
        if !is_gone {
            let answer = world.delete(ALICE);
            world.run();
            assert_eq!(answer.try_recv(), Ok(StoreReply::Done), "{place}");
        }
        check_gone(&mut world, &place);
        *gone.entry(is_gone).or_insert(0) += 1;
    }
    assert!(gone.values().all(|count| *count > 20), "{gone:?}");
    assert_eq!(gone.len(), 2, "{gone:?}");
}

#[test]
fn an_administrator_hears_why_an_account_stays() {
    let (mut world, alice) = world(1);
    let nobody = world.delete("nobody@example.org");
    world.run();
    assert_eq!(nobody.try_recv(), Ok(StoreReply::Missing));
    // Those who are away cannot be read, and so not be told.
    world.faults.disk_failures = 1_000;
    let refused = world.delete(ALICE);
    let unread = world.delete("grace@example.org");
    world.run_for(2_000);
    let why = "storage failed to read it".into();
    assert_eq!(unread.try_recv(), Ok(StoreReply::Failed(why)));
    // Neither she nor another administrator can begin anything meanwhile.
    let again = world.delete(ALICE);
    world.send(alice, CANCEL);
    world.run_for(98_000);
    let why = "its end is under way already".into();
    assert_eq!(again.try_recv(), Ok(StoreReply::Failed(why)));
    let received = world.received(alice);
    assert_eq!(
        errors(&received).first(),
        Some(&("c", "unexpected-request"))
    );
    world.faults.disk_failures = 0;
    world.run_for(5_000);
    let why = "a contact could not be told".into();
    assert_eq!(refused.try_recv(), Ok(StoreReply::Failed(why)));
    check_sides(&mut world, "refused");
    let done = world.delete(ALICE);
    world.run();
    assert_eq!(done.try_recv(), Ok(StoreReply::Done));
    check_gone(&mut world, "repeated");
}

/// A client whose login stands still after some time: it looks at nothing that comes then.
fn halted(world: &mut World, login: Login, moment: u64) -> ClientId {
    let client = world.connect(login);
    world.run_until(world.now() + moment);
    world.set_reading(client, false);
    world.run();
    client
}

/// Alice's account is deleted and made anew for somebody else, who is written to.
fn change_owner(world: &mut World, bob: ClientId) {
    let answer = world.delete(ALICE);
    world.run();
    assert_eq!(answer.try_recv(), Ok(StoreReply::Done));
    world.add_account(ALICE, "other");
    world.tell(bob, &message("chat", ALICE, "new"));
}

/// Wherever the login stands: before, between and behind its proofs, or at the way back to a
/// session.
#[test]
fn whoever_was_logging_in_when_his_account_was_deleted_gets_nothing_of_its_next_owner() {
    for (proof, resumes) in [
        (Proof::Plain, false),
        (Proof::Scram, false),
        (Proof::Scram, true),
    ] {
        let mut phases = BTreeSet::new();
        for moment in (0..100).map(|it| it * 20) {
            let place = format!("{proof:?}, resumes {resumes}, {moment} us");
            let (mut world, _) = world(1);
            let bob = world.arrive("bob@example.org/y");
            let mut login = Login::new("alice@example.org/z", "secret");
            login.proof = proof;
            if resumes {
                let (old, session) = world.log_in_managed("alice@example.org/z");
                world.vanish(old);
                world.run();
                login.resume = Some((session, 0));
            }
            let old = halted(&mut world, login, moment);
            phases.insert(format!("{:?}", world.client(old).phase));
            change_owner(&mut world, bob);
            world.set_reading(old, true);
            world.run();
            let client = world.client(old);
            assert!(!client.is_online(), "{place}: {client:?}");
            let mut login = Login::new("alice@example.org/z", "other");
            login.proof = proof;
            let next = world.connect(login);
            world.run();
            world.tell(next, "<presence/>");
            assert_eq!(messages(&world.received(next)), ["new"], "{place}");
        }
        let last = if resumes { "Resuming" } else { "Binding" };
        for phase in ["Negotiating", "Proving", last] {
            assert!(phases.contains(phase), "{proof:?}: {phases:?}");
        }
    }
}

/// Its keys may be derived before the end of the account, meanwhile, or when the name has an owner
/// again.
#[test]
fn a_new_password_under_way_is_not_the_one_of_the_names_next_owner() {
    const PASSWORD: &str = "<iq type='set' id='p'><query xmlns='jabber:iq:register'>\
                            <username>alice</username><password>late</password></query></iq>";
    let mut answers = BTreeMap::new();
    for moment in (0..60).map(|it| it * 50) {
        let (mut world, alice) = world(1);
        world.faults.derive_us = (moment, moment);
        world.send(alice, &format!("{PASSWORD}{CANCEL}"));
        while roster(&mut world, ALICE).is_some() {
            world.run_until(world.now() + 1);
        }
        world.add_account(ALICE, "other");
        world.run();
        let received = world.received(alice);
        let answer = received.iter().find(|it| it.attr("id") == "p");
        let type_ = answer.map(|it| it.attr("type").to_owned());
        if type_.as_deref() == Some("error") {
            let refused = [("p", "unexpected-request")];
            assert_eq!(errors(&received), refused, "{moment} us");
        }
        *answers.entry(type_).or_insert(0) += 1;
        for (password, gets_in) in [("late", false), ("secret", false), ("other", true)] {
            let client = world.connect(Login::new("alice@example.org/z", password));
            world.run();
            let is_online = world.client(client).is_online();
            assert_eq!(is_online, gets_in, "{password}, {moment} us");
        }
        world.check_rest();
    }
    // It is refused, or its session is gone before.
    assert!(answers.len() >= 2, "{answers:?}");
}

#[test]
fn an_account_that_ends_takes_no_new_password() {
    let (mut world, alice) = world(1);
    let password = "<iq type='set' id='p'><query xmlns='jabber:iq:register'>\
                    <username>alice</username><password>late</password></query></iq>";
    world.tell(alice, &format!("{CANCEL}{password}"));
    let refused = [("p", "unexpected-request")];
    assert_eq!(errors(&world.received(alice)), refused);
    assert_eq!(roster(&mut world, ALICE), None);
    world.check_rest();
}

/// The ids of messages that a client hears did not arrive, for alice is gone.
fn bounced(received: &[sim::Element]) -> Vec<&str> {
    let errors = errors(received).into_iter();
    let gone = errors.filter(|(_, condition)| *condition == "service-unavailable");
    gone.map(|(id, _)| id).collect()
}

/// Whoever sent what waits for an account hears at its end that it does not arrive, however much it
/// is: nothing that was acknowledged vanishes.
#[test]
fn what_waits_for_an_account_bounces_at_its_end() {
    const MESSAGES: usize = 2 * LEFTOVERS_BOUNCED_MAX + 3;
    for (seed, by_client) in [(1, true), (2, false)] {
        let (mut world, alice) = world(seed);
        world.leave(alice);
        world.run();
        // At home on either shard, with stream management and without.
        let senders = [
            world.log_in_managed("bob@example.org/s").0,
            world.log_in_managed("carol@example.org/s").0,
            world.log_in("dave@example.org/s"),
            world.log_in("eve@example.org/s"),
        ];
        let ids: Vec<String> = (0..MESSAGES).map(|id| id.to_string()).collect();
        for (index, id) in ids.iter().enumerate() {
            world.tell(senders[index % 4], &message("chat", ALICE, id));
        }
        for sender in senders {
            assert!(bounced(&world.received(sender)).is_empty());
        }
        if by_client {
            let alice = world.log_in("alice@example.org/x");
            world.tell(alice, CANCEL);
        } else {
            let answer = world.delete(ALICE);
            world.run();
            assert_eq!(answer.try_recv(), Ok(StoreReply::Done));
        }
        assert_eq!(roster(&mut world, ALICE), None);
        for (index, sender) in senders.into_iter().enumerate() {
            let own: Vec<&str> = ids.iter().skip(index).step_by(4).map(|id| &**id).collect();
            let received = world.received(sender);
            assert_eq!(bounced(&received), own, "by its client {by_client}");
        }
        world.check_rest();
    }
}

/// Storage has numbers for what waits, which need not be in the order in which it came.
#[test]
fn what_waits_bounces_whatever_its_numbers_are() {
    let mut world = World::new(1, Settings::for_tests("example.org"), Faults::calm());
    for name in ["alice", "bob"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    let bob = world.log_in("bob@example.org/x");
    for (id, arrived) in [("first", 20), ("second", 10)] {
        let stanza = format!(
            "<message from='bob@example.org/x' to='{ALICE}' type='chat' id='{id}'><body>b</body>\
             </message>"
        );
        let op = StoreOp::PutOffline {
            account: jid(ALICE),
            arrived: Timestamp(arrived),
            stanza: stanza.into_bytes().into(),
            quota: OfflineQuota::UNLIMITED,
            origin: None,
        };
        assert_eq!(world.perform(op), StoreReply::Done);
    }
    let alice = world.log_in("alice@example.org/x");
    world.tell(alice, CANCEL);
    world.run_for(1_000);
    let received = world.received(bob);
    let mut heard = bounced(&received);
    heard.sort_unstable();
    assert_eq!(heard, ["first", "second"]);
}

/// What a client had is not said to be lost, and what bounced at a block does not bounce again,
/// also where what stands before it keeps it in storage.
#[test]
fn what_was_taken_or_has_bounced_does_not_bounce_at_an_accounts_end() {
    for (seed, is_first) in [(1, true), (2, false)] {
        let (mut world, alice) = world(seed);
        world.leave(alice);
        world.run();
        let [bob, eve] = ["bob@example.org/s", "eve@example.org/s"].map(|full| world.log_in(full));
        world.tell(bob, &message("chat", ALICE, "had"));
        let alice = world.arrive("alice@example.org/x");
        assert_eq!(messages(&world.received(alice)), ["had"]);
        world.leave(alice);
        world.run();
        let mut said = [(bob, "waits"), (eve, "unwanted")];
        said.rotate_left(usize::from(is_first));
        for (sender, id) in said {
            world.tell(sender, &message("chat", ALICE, id));
        }
        let alice = world.log_in("alice@example.org/x");
        let block = "<block xmlns='urn:xmpp:blocking'><item jid='eve@example.org'/></block>";
        world.tell(alice, &format!("<iq type='set' id='b'>{block}</iq>"));
        assert_eq!(bounced(&world.received(eve)), ["unwanted"]);
        // Neither does the next process say it again.
        world.crash();
        world.run();
        let [bob, eve] = ["bob@example.org/s", "eve@example.org/s"].map(|full| world.log_in(full));
        let alice = world.log_in("alice@example.org/x");
        world.tell(alice, CANCEL);
        assert_eq!(bounced(&world.received(bob)), ["waits"]);
        assert!(bounced(&world.received(eve)).is_empty());
        assert_eq!(roster(&mut world, ALICE), None);
        world.check_rest();
    }
}

/// Storage has refused the end of a session, and takes that of its account first.
#[test]
fn what_a_session_leaves_whose_end_comes_behind_its_accounts_bounces() {
    let (mut world, alice) = world(1);
    world.leave(alice);
    world.run();
    let bob = world.log_in("bob@example.org/s");
    let alice = world.log_in("alice@example.org/y");
    // It ends with its connection.
    world.tell(alice, "<enable xmlns='urn:xmpp:sm:3'/><presence/>");
    world.tell(bob, &message("chat", ALICE, "left"));
    assert_eq!(messages(&world.received(alice)), ["left"]);
    world.faults.disk_full = true;
    world.leave(alice);
    world.run();
    world.faults.disk_full = false;
    let answer = world.delete(ALICE);
    world.run();
    assert_eq!(answer.try_recv(), Ok(StoreReply::Done));
    assert!(
        bounced(&world.received(bob)).is_empty(),
        "it is tried again"
    );
    world.run_for(2_000);
    assert_eq!(bounced(&world.received(bob)), ["left"]);
    world.check_rest();
}

/// What comes at any moment of an account's end bounces, too, or nobody took responsibility.
#[test]
fn what_comes_while_an_account_ends_does_not_vanish() {
    let mut late = 0;
    for (seed, moment) in (1..=4).flat_map(|seed| (0..60).map(move |it| (seed, it * 20))) {
        let place = format!("seed {seed}, {moment} us");
        let (mut world, alice) = world(seed);
        world.leave(alice);
        world.run();
        let senders =
            ["bob", "carol"].map(|name| world.log_in_managed(&format!("{name}@example.org/s")).0);
        world.tell(senders[0], &message("chat", ALICE, "before"));
        let answer = world.delete(ALICE);
        for sender in senders {
            world.send(sender, &message("chat", ALICE, "meanwhile"));
            world.run_until(world.now() + moment);
        }
        late += u32::from(answer.try_recv().is_ok());
        world.run();
        let [bobs, carols] = senders.map(|sender| world.received(sender));
        assert_eq!(bounced(&bobs), ["before", "meanwhile"], "{place}");
        assert_eq!(bounced(&carols), ["meanwhile"], "{place}");
        assert_eq!(roster(&mut world, ALICE), None, "{place}");
        world.check_rest();
    }
    assert!((20..200).contains(&late), "{late} came after it");
}

/// The process dies at any moment of it: an account is not gone before storage has the errors.
#[test]
fn no_crash_takes_what_waits_for_an_account_and_the_error_for_it() {
    let mut gone = BTreeMap::new();
    for (seed, moment) in (1..=4).flat_map(|seed| (0..120).map(move |it| (seed, it * 50))) {
        let place = format!("seed {seed}, {moment} us");
        let (mut world, alice) = world(seed);
        world.leave(alice);
        world.run();
        let names = ["bob", "carol"].map(|name| format!("{name}@example.org/s"));
        let senders = names.each_ref().map(|full| {
            let (sender, session) = world.log_in_managed(full);
            world.received(sender);
            for id in ["1", "2"] {
                world.tell(sender, &message("chat", ALICE, id));
            }
            world.tell(sender, "<r xmlns='urn:xmpp:sm:3'/>");
            let told = world.received(sender);
            assert!(told.iter().any(|it| it.attr("h") == "2"), "{told:?}");
            (sender, session)
        });
        world.delete(ALICE);
        world.run_until(world.now() + moment);
        let before = senders
            .each_ref()
            .map(|(sender, _)| world.received(*sender));
        world.crash();
        world.run();
        let is_gone = roster(&mut world, ALICE).is_none();
        let resumed: Vec<ClientId> = (names.iter().zip(&senders).zip(&before))
            .map(|((full, (_, session)), before)| world.resume(full, session, counted(before)))
            .collect();
        if !is_gone {
            world.delete(ALICE);
            world.run();
        }
        assert_eq!(roster(&mut world, ALICE), None, "{place}");
        for (sender, mut all) in resumed.into_iter().zip(before) {
            all.extend(world.received(sender));
            let heard: BTreeSet<&str> = bounced(&all).into_iter().collect();
            assert_eq!(heard, BTreeSet::from(["1", "2"]), "{place}");
        }
        *gone.entry(is_gone).or_insert(0) += 1;
    }
    assert!(gone.values().all(|count| *count > 20), "{gone:?}");
    assert_eq!(gone.len(), 2, "{gone:?}");
}
