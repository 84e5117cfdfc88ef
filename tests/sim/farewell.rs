//! The end of a stream from its client's side: what was asked before it is answered first.

use sim::steps::{message, messages};
use sim::{Faults, Login, Random, World};
use xmpp::Settings;

fn settings(shards: u16) -> Settings {
    Settings {
        shards,
        ..Settings::for_tests("example.org")
    }
}

#[test]
fn what_storage_and_siblings_answer_comes_before_the_end_of_the_stream_too() {
    let asked = [
        "<iq type='set' id='q'><query xmlns='jabber:iq:private'><x xmlns='urn:x'/></query></iq>",
        "<iq type='set' id='q'><query xmlns='jabber:iq:roster'><item jid='c@example.org'/>\
         </query></iq>",
        "<iq type='get' id='q' to='bob@example.org'><vCard xmlns='vcard-temp'/></iq>",
        "<message id='q' to='nobody@example.org' type='chat'><body>x</body></message>",
        "<message id='q' to='bob@example.org' type='chat'><body>x</body></message>",
    ];
    for seed in 1..=20 {
        for (index, stanza) in asked.iter().enumerate() {
            for last in ["</stream:stream>", ""] {
                let faults = Faults::rough(&mut Random::new(seed));
                let mut settings = settings(1 + (seed % 2) as u16);
                settings.limits.offline_max = 0;
                let mut world = World::new(seed, settings, faults);
                for name in ["alice", "bob"] {
                    world.add_account(&format!("{name}@example.org"), "secret");
                }
                let alice = world.connect(Login::new("alice@example.org/desk", "secret"));
                world.run();
                world.received(alice);
                world.send(alice, &format!("{stanza}{last}"));
                if last.is_empty() {
                    world.half_close(alice);
                }
                world.run();
                let answers = world.received(alice);
                let is_there = answers.iter().any(|answer| answer.attr("id") == "q");
                assert!(is_there, "seed {seed}, {index}, {last:?}: {answers:?}");
                let client = world.client(alice);
                assert!(client.stream_closed && client.ended, "seed {seed}, {index}");
                world.check_rest();
            }
        }
    }
}

#[test]
fn a_farewell_with_stream_management_is_acknowledged_as_far_as_all_is_stored() {
    let mut world = World::new(3, settings(2), Faults::calm());
    for name in ["alice", "bob", "carl"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    for name in ["alice", "carl"] {
        let (client, _) = world.log_in_managed(&format!("{name}@example.org/x"));
        let said = message("chat", "bob@example.org", "m");
        let other = message("chat", "bob@example.org", "n");
        let last = "<r xmlns='urn:xmpp:sm:3'/></stream:stream>";
        world.send(client, &format!("{said}{other}{last}"));
        world.run_for(60_000);
        let told = world.received(client);
        let told: Vec<_> = told.iter().filter(|it| it.name == "a").collect();
        let told = told.last().map(|it| it.attr("h").to_owned());
        assert_eq!(told.as_deref(), Some("2"), "{name}");
        assert!(world.client(client).stream_closed);
    }
    let bob = world.arrive("bob@example.org/x");
    assert_eq!(messages(&world.received(bob)), ["m", "n", "m", "n"]);
}

#[test]
fn a_farewell_waits_for_a_disk_that_is_full_only_so_long() {
    let mut world = World::new(3, settings(2), Faults::calm());
    for name in ["alice", "bob", "carl"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    world.befriend("alice@example.org", "bob@example.org");
    let alice = world.log_in("alice@example.org/x");
    world.received(alice);
    world.faults.disk_full = true;
    world.send(alice, "<presence type='unsubscribe' to='bob@example.org'/>");
    world.send(alice, "</stream:stream>");
    world.run_for(3_000);
    assert!(!world.client(alice).stream_closed, "it waits");
    world.run_for(3_000);
    assert!(world.client(alice).stream_closed, "it ends");
    world.faults.disk_full = false;
    world.run_for(60_000);
    world.check_rest();
}

/// So many streams end in a turn, and the others in the next ones.
#[test]
fn everybody_leaves_who_leaves_at_once_with_others() {
    let mut world = World::new(3, settings(2), Faults::calm());
    world.add_account("alice@example.org", "secret");
    world.add_account("bob@example.org", "secret");
    let bob = world.arrive("bob@example.org/b");
    let leavers: Vec<_> = (0..12)
        .map(|number| world.log_in(&format!("alice@example.org/{number}")))
        .collect();
    for (number, leaver) in leavers.iter().enumerate() {
        world.tell(*leaver, "<presence to='bob@example.org'/>");
        let last = message("chat", "bob@example.org", &number.to_string());
        match number % 3 {
            0 => world.vanish(*leaver),
            1 => world.send(*leaver, &format!("{last}</stream:stream>")),
            _ => {
                world.send(*leaver, &last);
                world.half_close(*leaver);
            }
        }
    }
    world.run();
    let received = world.received(bob);
    let mut said: Vec<usize> = messages(&received)
        .iter()
        .map(|id| id.parse().expect("a number"))
        .collect();
    said.sort_unstable();
    assert_eq!(said, [1, 2, 4, 5, 7, 8, 10, 11]);
    let gone = received
        .iter()
        .filter(|it| it.attr("type") == "unavailable");
    assert_eq!(gone.count(), leavers.len());
    world.check_rest();
}
