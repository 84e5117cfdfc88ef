//! What waits for somebody who is away, where something comes in between.

use sim::steps::{counted, errors, message, messages};
use sim::{ClientId, Element, Faults, World};
use stanza::jid::BareJid;
use xmpp::limit::Limits;
use xmpp::port::{OfflineQuota, StoreOp, StoreReply};
use xmpp::settings::Durability;
use xmpp::{Settings, Timestamp};

const BLOCK: &str = "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'>\
                     <item jid='alice@example.org'/></block></iq>";

fn world(durability: Durability) -> World {
    let settings = Settings {
        durability,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(3, settings, Faults::calm());
    for name in ["alice", "bob", "carl"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    world
}

#[test]
fn nothing_overtakes_what_storage_would_not_read_at_first() {
    for is_managed in [false, true] {
        let mut world = world(Durability::Full);
        let alice = world.log_in("alice@example.org/x");
        world.tell(alice, &message("chat", "bob@example.org", "1"));
        let bob = match is_managed {
            true => world.log_in_managed("bob@example.org/x").0,
            false => world.log_in("bob@example.org/x"),
        };
        world.faults.disk_failures = 1_000;
        world.tell(bob, "<presence/>");
        world.faults.disk_failures = 0;
        world.tell(alice, &message("chat", "bob@example.org", "2"));
        world.run_for(5_000);
        assert_eq!(messages(&world.received(bob)), ["1", "2"]);
    }
}

/// Bob goes, and another resource of his comes, before storage can be read.
#[test]
fn what_a_failed_read_holds_up_goes_on_without_the_session_that_asked() {
    let mut world = world(Durability::Full);
    let alice = world.log_in("alice@example.org/x");
    world.tell(alice, &message("chat", "bob@example.org", "1"));
    let bob = world.log_in("bob@example.org/x");
    let other = world.log_in("bob@example.org/y");
    world.faults.disk_failures = 1_000;
    world.tell(bob, "<presence/>");
    world.faults.disk_failures = 0;
    world.vanish(bob);
    world.run();
    world.tell(other, "<presence/>");
    world.tell(alice, &message("chat", "bob@example.org", "2"));
    world.run_for(5_000);
    assert_eq!(messages(&world.received(other)), ["1", "2"]);
}

/// Who takes nothing any more by the time storage can be read gets nothing.
#[test]
fn what_a_failed_read_holds_up_waits_on_where_nobody_takes_it() {
    for presence in [
        "<presence><priority>-1</priority></presence>",
        "<presence type='unavailable'/>",
    ] {
        let mut world = world(Durability::Full);
        let alice = world.log_in("alice@example.org/x");
        world.tell(alice, &message("chat", "bob@example.org", "1"));
        let (bob, _) = world.log_in_managed("bob@example.org/x");
        world.faults.disk_failures = 1_000;
        world.tell(bob, "<presence/>");
        world.faults.disk_failures = 0;
        world.tell(bob, presence);
        world.run_for(5_000);
        assert_eq!(messages(&world.received(bob)), [""; 0]);
        world.tell(bob, "<presence/>");
        assert_eq!(messages(&world.received(bob)), ["1"]);
    }
}

/// Without stream management a message leaves storage when the socket has it: who loses the
/// connection before finds the rest at the next login, and another resource that is there gets it
/// at once, whoever else waits for his client.
#[test]
fn what_a_socket_has_not_taken_waits_on() {
    const MESSAGES: usize = 300;
    for (has_other, has_away) in [(false, false), (true, false), (true, true)] {
        let mut world = world(Durability::Full);
        let alice = world.log_in("alice@example.org/x");
        let body = "b".repeat(1_500);
        for number in 0..MESSAGES {
            let text = format!(
                "<message to='bob@example.org' type='chat' id='{number}'><body>{body}</body>\
                 </message>"
            );
            world.tell(alice, &text);
        }
        let bob = world.log_in("bob@example.org/x");
        world.set_reading(bob, false);
        world.tell(bob, "<presence/>");
        if has_away {
            let (away, _) = world.log_in_managed("bob@example.org/w");
            world.tell(away, "<presence/>");
            world.vanish(away);
            world.run();
        }
        let other = has_other.then(|| world.arrive("bob@example.org/y"));
        if let Some(other) = other {
            assert_eq!(
                messages(&world.received(other)),
                [""; 0],
                "they are on their way"
            );
        }
        world.vanish(bob);
        world.run();
        let next = other.unwrap_or_else(|| world.arrive("bob@example.org/y"));
        assert_eq!(messages(&world.received(next)).len(), MESSAGES);
        let last = world.arrive("bob@example.org/z");
        assert_eq!(messages(&world.received(last)), [""; 0]);
    }
}

const UNBLOCK: &str = "<iq type='set' id='u'><unblock xmlns='urn:xmpp:blocking'/></iq>";

const DURABILITIES: [Durability; 3] = [Durability::Full, Durability::Archive, Durability::Memory];

fn log_in(world: &mut World, full: &str, is_managed: bool) -> ClientId {
    match is_managed {
        true => world.log_in_managed(full).0,
        false => world.log_in(full),
    }
}

/// The messages of all that a client was sent until now; where it can it acknowledges that.
fn acknowledge(world: &mut World, client: ClientId, is_managed: bool) -> Vec<String> {
    let received = world.received(client);
    if is_managed {
        let h = counted(&received);
        world.tell(client, &format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
    }
    messages(&received).into_iter().map(str::to_owned).collect()
}

/// XEP-0191 3.2: nothing of a blocked contact is delivered, whenever it came. Its sender hears of
/// that once, wherever it stands among what others sent.
#[test]
fn who_is_blocked_meanwhile_gets_nothing_delivered() {
    for durability in DURABILITIES {
        for is_managed in [false, true] {
            for senders in ["a", "aa", "ac", "ca", "cac", "aca", "caac"] {
                blocked_meanwhile(durability, is_managed, senders);
            }
        }
    }
}

fn blocked_meanwhile(durability: Durability, is_managed: bool, senders: &str) {
    let case = format!("{durability:?}, managed: {is_managed}, {senders}");
    let mut world = world(durability);
    let alice = world.log_in("alice@example.org/x");
    let carl = world.log_in("carl@example.org/x");
    let (mut blocked, mut others) = (Vec::new(), Vec::new());
    for (id, sender) in ["1", "2", "3", "4"].into_iter().zip(senders.chars()) {
        let (sender, ids) = match sender {
            'a' => (alice, &mut blocked),
            _ => (carl, &mut others),
        };
        world.tell(sender, &message("chat", "bob@example.org", id));
        ids.push(id);
    }
    let bob = log_in(&mut world, "bob@example.org/x", is_managed);
    world.tell(bob, BLOCK);
    world.tell(bob, "<presence/>");
    assert_eq!(acknowledge(&mut world, bob, is_managed), others, "{case}");
    let expected = blocked.iter().map(|id| (*id, "service-unavailable"));
    let expected: Vec<_> = expected.collect();
    assert_eq!(errors(&world.received(alice)), expected, "{case}");
    // Nor do they come when the block is lifted, here or after everybody has gone.
    world.tell(bob, UNBLOCK);
    for resource in ["y", "z"] {
        let other = world.arrive(&format!("bob@example.org/{resource}"));
        assert_eq!(messages(&world.received(other)), [""; 0], "{case}");
        world.leave(other);
        if resource == "y" {
            world.leave(bob);
        }
        world.run();
    }
    let other = world.arrive("bob@example.org/y");
    world.tell(alice, &message("chat", "bob@example.org", "9"));
    assert_eq!(messages(&world.received(other)), ["9"], "{case}");
    let received = world.received(alice);
    assert_eq!(errors(&received), [], "{case}");
}

/// Bob's session waits for its client, and has a message of alice's.
fn message_in_a_session() -> (World, ClientId) {
    let mut world = world(Durability::Full);
    let (alice, _) = world.log_in_managed("alice@example.org/x");
    let (bob, _) = world.log_in_managed("bob@example.org/1");
    world.tell(bob, "<presence/>");
    world.vanish(bob);
    world.tell(alice, &message("chat", "bob@example.org", "1"));
    (world, alice)
}

#[test]
fn what_a_session_leaves_of_who_is_blocked_meanwhile_bounces() {
    let (mut world, alice) = message_in_a_session();
    let other = world.log_in("bob@example.org/2");
    world.tell(other, BLOCK);
    world.run_for(400_000);
    world.tell(other, "<presence/>");
    assert_eq!(messages(&world.received(other)), [""; 0]);
    let received = world.received(alice);
    assert_eq!(errors(&received), [("1", "service-unavailable")]);
}

#[test]
fn what_sessions_of_a_cancelled_account_had_not_acknowledged_bounces() {
    let (mut world, alice) = message_in_a_session();
    let other = world.log_in("bob@example.org/2");
    world.tell(
        other,
        "<iq type='set' id='r'><query xmlns='jabber:iq:register'><remove/></query></iq>",
    );
    let received = world.received(alice);
    assert_eq!(errors(&received), [("1", "service-unavailable")]);
}

/// Where sessions live in memory, what waits stays in storage until it is acknowledged.
#[test]
fn a_session_is_given_what_waits_once() {
    let mut world = world(Durability::Archive);
    let alice = world.log_in("alice@example.org/x");
    world.tell(alice, &message("chat", "bob@example.org", "1"));
    let (bob, _) = world.log_in_managed("bob@example.org/1");
    world.tell(bob, "<presence/>");
    for priority in [-1, 1] {
        let presence = format!("<presence><priority>{priority}</priority></presence>");
        world.tell(bob, &presence);
    }
    assert_eq!(messages(&world.received(bob)), ["1"]);
}

/// Where sessions live in memory, nobody else is given what one of them has been and may yet
/// acknowledge, and where it does not, somebody is.
#[test]
fn what_waits_is_given_to_one_resource_and_to_another_where_that_ends_without_it() {
    for durability in DURABILITIES {
        for is_managed in [false, true] {
            for acknowledges in [false, true] {
                let case = format!("{durability:?}, managed: {is_managed}, {acknowledges}");
                let mut world = world(durability);
                let alice = world.log_in("alice@example.org/x");
                world.tell(alice, &message("chat", "bob@example.org", "1"));
                let (one, _) = world.log_in_managed("bob@example.org/1");
                world.tell(one, "<presence/>");
                match acknowledges {
                    true => assert_eq!(acknowledge(&mut world, one, true), ["1"], "{case}"),
                    false => assert_eq!(messages(&world.received(one)), ["1"], "{case}"),
                }
                let two = log_in(&mut world, "bob@example.org/2", is_managed);
                world.tell(two, "<presence/>");
                assert_eq!(messages(&world.received(two)), [""; 0], "{case}");
                world.vanish(one);
                world.run_for(400_000);
                let expected: &[&str] = if acknowledges { &[] } else { &["1"] };
                assert_eq!(messages(&world.received(two)), expected, "{case}");
            }
        }
    }
}

/// Whatever the clock says: it is set back while the session has the first.
#[test]
fn what_a_session_leaves_is_in_the_order_in_which_it_came() {
    for durability in DURABILITIES {
        let mut world = world(durability);
        let alice = world.log_in("alice@example.org/x");
        let (bob, _) = world.log_in_managed("bob@example.org/1");
        world.tell(bob, "<presence/>");
        for (id, ahead_s) in [("1", 3_600), ("2", 0), ("3", 7_200)] {
            world.faults.clock_ahead_us = ahead_s * 1_000_000;
            world.tell(alice, &message("chat", "bob@example.org", id));
        }
        world.vanish(bob);
        world.run_for(400_000);
        let other = world.arrive("bob@example.org/2");
        assert_eq!(
            messages(&world.received(other)),
            ["1", "2", "3"],
            "{durability:?}"
        );
    }
}

/// The same where nobody is there at first.
#[test]
fn what_was_not_acknowledged_waits_for_the_next_resource() {
    for durability in DURABILITIES {
        let mut world = world(durability);
        let alice = world.log_in("alice@example.org/x");
        world.tell(alice, &message("chat", "bob@example.org", "1"));
        for _ in 0..2 {
            let (bob, _) = world.log_in_managed("bob@example.org/1");
            world.tell(bob, "<presence/>");
            assert_eq!(messages(&world.received(bob)), ["1"], "{durability:?}");
            world.leave(bob);
            world.run();
        }
    }
}

/// One resource has the older and does not acknowledge it, another one the younger: storage keeps
/// the older for whom it comes to next.
#[test]
fn who_acknowledges_what_waited_does_so_for_nothing_older() {
    for durability in DURABILITIES {
        let mut world = world(durability);
        let alice = world.log_in("alice@example.org/x");
        world.tell(alice, &message("chat", "bob@example.org", "1"));
        let (one, _) = world.log_in_managed("bob@example.org/1");
        world.tell(one, "<presence/>");
        assert_eq!(messages(&world.received(one)), ["1"]);
        world.tell(one, "<presence type='unavailable'/>");
        world.tell(alice, &message("chat", "bob@example.org", "2"));
        let (two, _) = world.log_in_managed("bob@example.org/2");
        world.tell(two, "<presence/>");
        assert_eq!(acknowledge(&mut world, two, true), ["2"], "{durability:?}");
        world.tell(two, "<presence type='unavailable'/>");
        world.leave(one);
        world.run();
        let three = world.arrive("bob@example.org/3");
        assert_eq!(messages(&world.received(three)), ["1"], "{durability:?}");
        world.leave(two);
        world.leave(three);
        world.run();
        let last = world.arrive("bob@example.org/4");
        assert_eq!(messages(&world.received(last)), [""; 0], "{durability:?}");
    }
}

/// Who asked for what waits goes before storage answers: who is there gets it.
#[test]
fn what_is_read_for_who_has_gone_is_another_resources() {
    for durability in DURABILITIES {
        let mut world = world(durability);
        let alice = world.log_in("alice@example.org/x");
        world.tell(alice, &message("chat", "bob@example.org", "1"));
        let one = world.log_in("bob@example.org/1");
        let two = world.log_in("bob@example.org/2");
        world.send(one, "<presence/></stream:stream>");
        world.send(two, "<presence/>");
        world.run();
        assert_eq!(messages(&world.received(two)), ["1"], "{durability:?}");
    }
}

/// Messages that nobody takes go to storage together, though somebody is there; those for his
/// address come behind them, in their order.
#[test]
fn what_waits_for_somebody_who_is_not_available_does_not_wait_for_itself() {
    const MESSAGES: usize = 20;
    for presence in ["", "<presence><priority>-1</priority></presence>"] {
        let mut world = world(Durability::Full);
        let alice = world.log_in("alice@example.org/x");
        let bob = world.log_in("bob@example.org/x");
        world.tell(bob, presence);
        world.received(bob);
        world.faults.disk_us = (10_000_000, 10_000_000);
        for id in 0..MESSAGES {
            let waits = message("chat", "bob@example.org", &id.to_string());
            world.send(alice, &waits);
        }
        world.run_for(1_000);
        assert_eq!(world.unanswered_peak(), MESSAGES, "{presence}");
        for (to, id) in [("bob@example.org/x", "a"), ("bob@example.org", "b")] {
            world.send(alice, &message("chat", to, id));
        }
        world.run_for(1_000);
        assert_eq!(
            messages(&world.received(bob)),
            [""; 0],
            "they overtake nothing"
        );
        assert_eq!(
            world.unanswered_peak(),
            MESSAGES,
            "the second waits for the first"
        );
        world.run();
        assert_eq!(messages(&world.received(bob)), ["a"]);
        world.tell(bob, "<presence/>");
        let mut expected: Vec<String> = (0..MESSAGES).map(|id| id.to_string()).collect();
        expected.push("b".to_owned());
        assert_eq!(messages(&world.received(bob)), expected);
    }
}

/// XEP-0334 4.3 has nobody keep it, and nobody is there to have it.
#[test]
fn who_forbids_that_it_waits_hears_that_it_did_not_arrive() {
    let mut world = world(Durability::Full);
    let alice = world.log_in("alice@example.org/x");
    for hint in ["no-store", "no-permanent-store"] {
        let text = format!(
            "<message type='chat' to='bob@example.org' id='{hint}'><body>x</body>\
             <{hint} xmlns='urn:xmpp:hints'/></message>"
        );
        world.tell(alice, &text);
    }
    let state = "<message type='chat' to='bob@example.org' id='state'>\
                 <composing xmlns='http://jabber.org/protocol/chatstates'/></message>";
    world.tell(alice, state);
    let expected = ["no-store", "no-permanent-store"].map(|id| (id, "service-unavailable"));
    assert_eq!(errors(&world.received(alice)), expected);
}

/// The same where somebody was there, who does not come back.
#[test]
fn what_must_not_wait_bounces_where_a_session_leaves_it() {
    for durability in DURABILITIES {
        for others in 0..2 {
            let case = format!("{durability:?}, other sessions: {others}");
            let mut world = world(durability);
            let (alice, _) = world.log_in_managed("alice@example.org/x");
            for resource in 0..=others {
                let (bob, _) = world.log_in_managed(&format!("bob@example.org/{resource}"));
                world.tell(bob, "<presence/>");
                world.vanish(bob);
            }
            world.run();
            for (id, content) in [("m", "<body>x</body>"), ("empty", "")] {
                let text = format!(
                    "<message to='bob@example.org' type='chat' id='{id}'>{content}\
                     <no-store xmlns='urn:xmpp:hints'/></message>"
                );
                world.tell(alice, &text);
            }
            assert_eq!(errors(&world.received(alice)), [], "{case}");
            world.run_for(400_000);
            let received = world.received(alice);
            assert_eq!(errors(&received), [("m", "service-unavailable")], "{case}");
        }
    }
}

/// Two messages are fewer than what is asked for at once; their client is asked all the same, and
/// once. What it then acknowledges does not come again.
#[test]
fn a_client_is_asked_for_the_last_messages_that_it_was_sent() {
    for durability in [Durability::Full, Durability::Archive] {
        for waited in [false, true] {
            let mut world = world(durability);
            let alice = world.log_in("alice@example.org/x");
            let (bob, _) = world.log_in_managed("bob@example.org/x");
            if !waited {
                world.tell(bob, "<presence/>");
            }
            for id in ["1", "2"] {
                world.tell(alice, &message("chat", "bob@example.org", id));
            }
            if waited {
                world.tell(bob, "<presence/>");
            }
            let asked = |received: &[Element]| received.iter().filter(|it| it.name == "r").count();
            let received = world.received(bob);
            assert_eq!(messages(&received), ["1", "2"]);
            assert_eq!(asked(&received), 0, "there may be more to come");
            world.run_for(10_000);
            assert_eq!(asked(&world.received(bob)), 1);
            world.run_for(600_000);
            assert_eq!(asked(&world.received(bob)), 0, "there is nothing new");
            let h = counted(&received);
            world.tell(bob, &format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
            world.tell(alice, &message("headline", "bob@example.org", "3"));
            world.run_for(10_000);
            assert_eq!(asked(&world.received(bob)), 1);
            world.vanish(bob);
            world.run_for(400_000);
            let next = world.arrive("bob@example.org/y");
            assert_eq!(messages(&world.received(next)), [""; 0]);
        }
    }
}

/// As a store that was restored may have it: what its sessions had not acknowledged waits.
#[test]
fn more_than_the_quota_that_waits_is_had_by_one_client_or_the_next() {
    const SHORT: usize = 5_000;
    const LARGE: usize = 20;
    let mut world = world(Durability::Full);
    let large = "b".repeat(250_000);
    let mut expected = Vec::new();
    for number in 0..SHORT + LARGE {
        let body = if number < SHORT { "" } else { &*large };
        let stanza = format!(
            "<message from='alice@example.org/x' to='bob@example.org' type='chat' id='{number}'>\
             <body>{number}</body><x>{body}</x><delay xmlns='urn:xmpp:delay' from='example.org' \
             stamp='2026-09-21T15:13:20Z'/></message>"
        );
        let put = StoreOp::PutOffline {
            account: BareJid::from_prepared("bob@example.org"),
            arrived: Timestamp::default(),
            stanza: stanza.into_bytes().into(),
            quota: OfflineQuota::UNLIMITED,
            origin: None,
        };
        assert_eq!(world.perform(put), StoreReply::Done);
        expected.push(number.to_string());
    }
    let alice = world.arrive("alice@example.org/x");
    let (bob, _) = world.log_in_managed("bob@example.org/x");
    world.tell(bob, "<presence/>");
    assert_eq!(messages(&world.received(bob)), expected);
    // It all goes on waiting, with what came behind it.
    world.tell(alice, &message("chat", "bob@example.org", "behind"));
    expected.push("behind".to_owned());
    world.vanish(bob);
    world.run_for(400_000);
    let refused = world.received(alice);
    // For that there was no room.
    assert_eq!(errors(&refused), [("behind", "resource-constraint")]);
    expected.pop();
    let (bob, _) = world.log_in_managed("bob@example.org/y");
    world.tell(bob, "<presence/>");
    world.tell(alice, &message("chat", "bob@example.org", "last"));
    expected.push("last".to_owned());
    let received = world.received(bob);
    assert_eq!(messages(&received), expected);
    let h = counted(&received);
    world.tell(bob, &format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
    world.leave(bob);
    world.run();
    let (bob, _) = world.log_in_managed("bob@example.org/z");
    world.tell(bob, "<presence/>");
    assert_eq!(messages(&world.received(bob)), [""; 0]);
}

/// Whether its own time or another's would be over first: who has just lost its connection waits.
#[test]
fn where_as_many_sessions_wait_as_may_the_first_to_end_makes_room_for_one_more() {
    for asked in ["300", "1"] {
        let limits = Limits {
            hibernating_max: 2,
            ..Limits::default()
        };
        let settings = Settings {
            limits,
            ..Settings::for_tests("example.org")
        };
        let mut world = World::new(3, settings, Faults::calm());
        let lose = |(name, asked): (&str, &str)| {
            let full = format!("{name}@example.org/x");
            world.add_account(&format!("{name}@example.org"), "secret");
            let client = world.log_in(&full);
            let enable = format!("<enable xmlns='urn:xmpp:sm:3' resume='true' max='{asked}'/>");
            world.tell(client, &enable);
            let id = world.received(client).remove(0).attr("id").to_owned();
            world.vanish(client);
            world.run();
            (full, id)
        };
        let lost = [("alice", "200"), ("bob", "250"), ("carl", asked)].map(lose);
        let is_back = lost.map(|(full, id)| {
            let client = world.resume(&full, &id, 0);
            world.client(client).resumed.is_some()
        });
        assert_eq!(is_back, [false, true, true], "{asked}");
    }
}

/// What a store of schema 8 has came at a time that it does not know: before all that came since.
#[test]
fn what_came_at_an_unknown_time_stays_before_what_came_since() {
    let mut world = world(Durability::Full);
    let alice = world.log_in("alice@example.org/x");
    let first = message("chat", "bob@example.org", "1");
    let op = StoreOp::PutOffline {
        account: BareJid::from_prepared("bob@example.org"),
        arrived: Timestamp::default(),
        stanza: first
            .replace("<message", "<message from='alice@example.org/x'")
            .into_bytes()
            .into(),
        quota: OfflineQuota::UNLIMITED,
        origin: None,
    };
    assert_eq!(world.perform(op), StoreReply::Done);
    let (bob, _) = world.log_in_managed("bob@example.org/x");
    world.tell(bob, "<presence/>");
    world.tell(alice, &message("chat", "bob@example.org", "2"));
    assert_eq!(messages(&world.received(bob)), ["1", "2"]);
    world.leave(bob);
    world.run_for(1_000);
    let bob = world.arrive("bob@example.org/y");
    assert_eq!(messages(&world.received(bob)), ["1", "2"]);
}

/// Its session has what came first, and gives it back behind what came later; a crash between the
/// two changes nothing.
#[test]
fn what_a_session_gives_back_comes_before_what_came_while_it_took_nothing() {
    let leaving = [
        "<presence type='unavailable'/>",
        "<presence><priority>-1</priority></presence>",
    ];
    for durability in [Durability::Full, Durability::Archive] {
        for presence in leaving {
            for crashes in [false, true] {
                let mut world = world(durability);
                let alice = world.log_in("alice@example.org/x");
                world.tell(alice, &message("chat", "bob@example.org", "1"));
                let (bob, _) = world.log_in_managed("bob@example.org/x");
                world.tell(bob, "<presence/>");
                world.tell(alice, &message("chat", "bob@example.org", "2"));
                assert_eq!(messages(&world.received(bob)), ["1", "2"]);
                world.tell(bob, presence);
                for id in ["3", "4"] {
                    world.tell(alice, &message("chat", "bob@example.org", id));
                }
                if crashes && durability == Durability::Full {
                    world.crash();
                    // The time of its sessions begins with the next process, and this wakes that.
                    world.log_in("alice@example.org/y");
                } else {
                    world.vanish(bob);
                }
                world.run_for(400_000);
                // One takes them and gives them back; the next has them in their order, too.
                for resource in ["y", "z"] {
                    let (bob, _) = world.log_in_managed(&format!("bob@example.org/{resource}"));
                    world.tell(bob, "<presence/>");
                    world.run_for(10_000);
                    let received = world.received(bob);
                    let what = format!("{durability:?}, {presence}, {crashes}, {resource}");
                    assert_eq!(messages(&received), ["1", "2", "3", "4"], "{what}");
                    world.leave(bob);
                    world.run_for(400_000);
                }
            }
        }
    }
}

/// A farewell gives back what its client had not acknowledged, behind what came meanwhile.
#[test]
fn what_a_farewell_gives_back_comes_before_what_came_during_it() {
    for after_us in (0..1_000).step_by(50) {
        let mut world = world(Durability::Full);
        let alice = world.log_in("alice@example.org/x");
        world.tell(alice, &message("chat", "bob@example.org", "1"));
        let (bob, _) = world.log_in_managed("bob@example.org/x");
        world.send(bob, "<presence/></stream:stream>");
        let at = world.now() + after_us;
        world.run_until(at);
        world.tell(alice, &message("chat", "bob@example.org", "2"));
        world.run_for(10_000);
        let bob = world.arrive("bob@example.org/y");
        let received = world.received(bob);
        let received = messages(&received);
        assert_eq!(received, ["1", "2"], "{after_us}");
    }
}

/// The clock is set back while the server runs, or while it is down. What is kept for a session
/// tells when it came, and so does what waits offline.
#[test]
fn a_clock_that_is_set_back_reorders_nothing_over_a_crash() {
    for sets_back_before in [0, 2, 3] {
        let mut world = world(Durability::Full);
        world.faults.clock_ahead_us = 3_600_000_000;
        for id in 0..6 {
            if id == sets_back_before {
                world.faults.clock_ahead_us = 0;
            }
            if id == 3 {
                world.crash();
            }
            let alice = world.log_in("alice@example.org/x");
            world.tell(alice, &message("chat", "bob@example.org", &id.to_string()));
        }
        let bob = world.arrive("bob@example.org/x");
        let received = world.received(bob);
        assert_eq!(messages(&received), ["0", "1", "2", "3", "4", "5"]);
    }
}
