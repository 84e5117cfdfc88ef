//! Archives of messages (XEP-0313) where things go wrong: what is shown when, in which order, and
//! what storage refuses.

use sim::steps::{errors, message};
use sim::{ClientId, Element, Faults, World};
use stanza::jid::BareJid;
use xmpp::Settings;
use xmpp::gate::GATED_MAX;
use xmpp::port::{ArchivePage, ArchiveQuery, StoreOp, StoreReply};
use xmpp::retention::{COUNTED_EVERY, FIRST_ROUND_MS, ROUND_MS};
use xmpp::settings::{ArchivePolicy, Durability};
use xmpp::xep::archive::{PAGE_MAX, READS_MAX};

const QUERY: &str = "<query xmlns='urn:xmpp:mam:2'/>";

fn world_of(shards: u16, durability: Durability) -> World {
    let settings = Settings {
        shards,
        durability,
        archive: true,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(3, settings, Faults::calm());
    for name in ["alice", "bob", "carl"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    world
}

fn world(shards: u16) -> World {
    world_of(shards, Durability::Full)
}

fn page(world: &mut World, name: &str) -> ArchivePage {
    let query = ArchiveQuery::all(usize::MAX);
    let op = StoreOp::ArchivePage {
        account: BareJid::parse(&format!("{name}@example.org")).expect("the names are good"),
        query: Box::new(query),
    };
    match world.perform(op) {
        StoreReply::ArchivePage(page) => *page,
        reply => panic!("no page: {reply:?}"),
    }
}

/// The ids of the messages in an archive, as their senders gave them.
fn archived(world: &mut World, name: &str) -> Vec<String> {
    let messages = page(world, name).messages.into_iter();
    let ids = messages.map(|(_, message)| {
        let text = String::from_utf8_lossy(&message).into_owned();
        let id = text.split(" id='").nth(1).unwrap_or_default();
        id.split('\'').next().unwrap_or_default().to_owned()
    });
    ids.collect()
}

/// The id that a message shows.
fn shown(message: &Element) -> Option<String> {
    let id = message.children.iter().find(|it| it.ns == "urn:xmpp:sid:0");
    id.map(|id| id.attr("id").to_owned())
}

/// Messages as they came: what their senders called them, and whether they have an archive's id.
fn came(world: &mut World, client: ClientId) -> Vec<(String, bool)> {
    let received = world.received(client).into_iter();
    let stanzas = received.filter(|it| it.ns == "jabber:client");
    let each = stanzas.map(|it| (it.attr("id").to_owned(), shown(&it).is_some()));
    each.collect()
}

fn with_id(id: &str) -> (String, bool) {
    (id.to_owned(), true)
}

fn without_id(id: &str) -> (String, bool) {
    (id.to_owned(), false)
}

/// What is for a client without stream management waits for the archive, with all behind it.
#[test]
fn a_client_is_shown_an_id_when_the_archive_has_it_and_what_follows_keeps_its_order() {
    for shards in [1, 2, 3] {
        for durability in [Durability::Full, Durability::Archive] {
            let mut world = world_of(shards, durability);
            let alice = world.arrive("alice@example.org/a");
            let bob = world.arrive("bob@example.org/b");
            world.received(bob);
            world.faults.disk_us = (500_000, 500_000);
            let to = "bob@example.org/b";
            let state = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
            let state = format!("<message to='{to}' type='chat' id='2'>{state}</message>");
            let ask = format!("<iq to='{to}' type='get' id='3'><x xmlns='urn:x'/></iq>");
            let all = [
                message("chat", to, "1"),
                state,
                ask,
                message("chat", to, "4"),
            ];
            world.send(alice, &all.concat());
            world.run_for(100);
            assert_eq!(came(&mut world, bob), [], "{shards} {durability:?}");
            assert!(!archived(&mut world, "bob").contains(&"1".to_owned()));
            world.run();
            let expected = [with_id("1"), without_id("2"), without_id("3"), with_id("4")];
            assert_eq!(came(&mut world, bob), expected, "{shards} {durability:?}");
            for name in ["alice", "bob"] {
                assert_eq!(archived(&mut world, name), ["1", "4"]);
            }
        }
    }
}

/// The same where its client has stream management.
#[test]
fn managed_clients_wait_in_the_same_way_whatever_the_mode() {
    for durability in [Durability::Full, Durability::Archive] {
        let mut world = world_of(2, durability);
        let alice = world.arrive("alice@example.org/a");
        let (bob, _) = world.log_in_managed("bob@example.org/b");
        world.received(bob);
        world.faults.disk_us = (500_000, 500_000);
        world.send(alice, &message("chat", "bob@example.org/b", "1"));
        world.run_for(100);
        assert_eq!(came(&mut world, bob), []);
        world.run();
        assert_eq!(came(&mut world, bob), [with_id("1")], "{durability:?}");
    }
}

#[test]
fn the_id_that_is_shown_is_the_archive_s_and_both_archives_know_it() {
    let mut world = world(2);
    let alice = world.arrive("alice@example.org/a");
    let bob = world.arrive("bob@example.org/b");
    world.received(bob);
    world.tell(alice, &message("chat", "bob@example.org", "1"));
    let received = world.received(bob);
    let id = received.iter().find_map(shown).unwrap();
    let ids = ["alice", "bob"].map(|name| page(&mut world, name).messages[0].0.to_string());
    assert_eq!(ids, [id.clone(), id]);
}

/// A client that asks for what came behind the last that it has misses nothing.
#[test]
fn an_archive_grows_at_its_end_only() {
    for shards in [1, 2, 3] {
        let mut world = world(shards);
        world.faults.clock_ahead_us = 3_600_000_000;
        let names = ["alice", "carl"].map(|name| format!("{name}@example.org/x"));
        let clients = names.map(|full| world.arrive(&full));
        // Bob's account is read slowly; what came first waits for that here, and the other does in
        // its sender's shard.
        world.faults.disk_us = (300_000, 300_000);
        for (round, client) in clients.iter().cycle().take(6).enumerate() {
            world.send(
                *client,
                &message("chat", "bob@example.org", &round.to_string()),
            );
            world.run_for(100);
        }
        world.run();
        let ids = archived(&mut world, "bob");
        let stored = page(&mut world, "bob").messages;
        assert_eq!(ids.len(), 6, "{shards}");
        assert!(stored.is_sorted_by_key(|(id, _)| *id));
        // Whoever came later has a later id, also after a restart with a clock that was set back.
        world.faults.clock_ahead_us = 0;
        world.crash();
        let late = world.arrive("alice@example.org/x");
        world.tell(late, &message("chat", "bob@example.org", "last"));
        assert_eq!(archived(&mut world, "bob").last().unwrap(), "last");
    }
}

#[test]
fn what_storage_refuses_bounces_and_shows_no_id() {
    for shards in [1, 2] {
        for is_managed in [false, true] {
            let mut world = world(shards);
            let alice = world.arrive("alice@example.org/a");
            let bob = match is_managed {
                true => world.log_in_managed("bob@example.org/b").0,
                false => world.arrive("bob@example.org/b"),
            };
            world.received(bob);
            world.faults.disk_full = true;
            world.tell(alice, &message("chat", "bob@example.org/b", "1"));
            world.faults.disk_full = false;
            assert_eq!(came(&mut world, bob), [], "{is_managed}");
            let received = world.received(alice);
            assert_eq!(errors(&received), [("1", "internal-server-error")]);
            assert!(!received.iter().any(|it| shown(it).is_some()));
            world.tell(alice, &message("chat", "bob@example.org/b", "2"));
            assert_eq!(came(&mut world, bob), [with_id("2")]);
            assert_eq!(archived(&mut world, "bob"), ["2"]);
        }
    }
}

#[test]
fn a_message_is_archived_once_however_many_devices_get_it() {
    let mut world = world(2);
    let enable = "<iq type='set' id='e'><enable xmlns='urn:xmpp:carbons:2'/></iq>";
    let [desk, phone] = ["desk", "phone"].map(|resource| {
        let client = world.arrive(&format!("alice@example.org/{resource}"));
        world.tell(client, enable);
        client
    });
    let bob = world.arrive("bob@example.org/b");
    for client in [desk, phone] {
        world.received(client);
    }
    world.tell(bob, &message("chat", "alice@example.org", "1"));
    world.tell(bob, &message("chat", "alice@example.org/desk", "2"));
    world.tell(desk, &message("chat", "alice@example.org/phone", "3"));
    world.tell(desk, &message("chat", "bob@example.org", "4"));
    assert_eq!(archived(&mut world, "alice"), ["1", "2", "3", "4"]);
    assert_eq!(archived(&mut world, "bob"), ["1", "2", "4"]);
}

/// XEP-0198 4: whoever gets what a session leaves gets no results of its queries.
#[test]
fn results_that_were_not_acknowledged_go_nowhere_else() {
    let mut world = world(2);
    let (alice, id) = world.log_in_managed("alice@example.org/a");
    world.tell(alice, &message("chat", "bob@example.org", "1"));
    world.tell(alice, &format!("<iq type='set' id='q'>{QUERY}</iq>"));
    assert!(
        world
            .received(alice)
            .iter()
            .any(|it| it.child("result").is_some())
    );
    world.vanish(alice);
    world.run();
    let other = world.arrive("alice@example.org/b");
    world.received(other);
    world.run_for(400_000);
    assert!(
        world.received(other).iter().all(|it| it.name != "message"),
        "{id}"
    );
}

#[test]
fn reads_of_one_archive_are_bounded_and_nobody_else_s_are() {
    let mut world = world(1);
    let alice: Vec<ClientId> = (0..4)
        .map(|number| world.arrive(&format!("alice@example.org/{number}")))
        .collect();
    let bob = world.arrive("bob@example.org/b");
    world.faults.disk_us = (400_000, 400_000);
    let many: String = (0..25)
        .map(|number| format!("<iq type='set' id='q{number}'>{QUERY}</iq>"))
        .collect();
    for client in &alice {
        world.received(*client);
        world.send(*client, &many);
    }
    world.send(bob, &format!("<iq type='set' id='q'>{QUERY}</iq>"));
    world.run();
    let (mut answered, mut refused) = (0, 0);
    for client in alice {
        let received = world.received(client);
        answered += received
            .iter()
            .filter(|it| it.child("fin").is_some())
            .count();
        refused += errors(&received).len();
    }
    assert_eq!(
        (answered, refused),
        (usize::from(READS_MAX), 100 - usize::from(READS_MAX))
    );
    assert!(
        world
            .received(bob)
            .iter()
            .any(|it| it.child("fin").is_some())
    );
}

#[test]
fn a_page_has_no_more_than_so_many_messages() {
    let mut world = world(1);
    let alice = world.arrive("alice@example.org/a");
    for number in 0..=PAGE_MAX {
        world.tell(
            alice,
            &message("chat", "bob@example.org", &number.to_string()),
        );
    }
    world.received(alice);
    let set = "<set xmlns='http://jabber.org/protocol/rsm'><max>1000</max></set>";
    world.tell(
        alice,
        &format!(
            "<iq type='set' id='q'>{}</iq>",
            QUERY.replace("/>", &format!(">{set}</query>"))
        ),
    );
    let received = world.received(alice);
    let results = received.iter().filter(|it| it.child("result").is_some());
    assert_eq!(results.count(), PAGE_MAX);
    let fin = received.iter().find_map(|it| it.child("fin")).unwrap();
    assert_eq!(fin.attr("complete"), "");
}

#[test]
fn an_account_that_ends_takes_its_archive_with_it() {
    let mut world = world(2);
    let alice = world.arrive("alice@example.org/a");
    let bob = world.arrive("bob@example.org/b");
    world.tell(alice, &message("chat", "bob@example.org", "1"));
    world.tell(bob, &message("chat", "alice@example.org", "2"));
    let outcome = world.delete("bob@example.org");
    world.run();
    assert_eq!(outcome.try_recv(), Ok(StoreReply::Done));
    world.add_account("bob@example.org", "secret");
    assert_eq!(archived(&mut world, "bob"), Vec::<String>::new());
    assert_eq!(archived(&mut world, "alice"), ["1", "2"]);
    let again = world.arrive("bob@example.org/b");
    world.tell(again, &message("chat", "alice@example.org", "3"));
    assert_eq!(archived(&mut world, "bob"), ["3"]);
}

#[test]
fn without_storage_there_is_no_archive() {
    let mut world = world_of(2, Durability::Memory);
    let alice = world.arrive("alice@example.org/a");
    let bob = world.arrive("bob@example.org/b");
    world.received(bob);
    world.tell(alice, &message("chat", "bob@example.org/b", "1"));
    assert_eq!(came(&mut world, bob), [without_id("1")]);
    assert_eq!(archived(&mut world, "bob"), Vec::<String>::new());
    world.received(alice);
    world.tell(alice, &format!("<iq type='set' id='q'>{QUERY}</iq>"));
    let received = world.received(alice);
    assert_eq!(errors(&received), [("q", "service-unavailable")]);
}

#[test]
fn a_session_ends_where_more_waits_for_its_archive_than_may() {
    for (behind, error) in [
        (GATED_MAX - 1, None),
        (GATED_MAX, Some("resource-constraint")),
    ] {
        let mut world = world(1);
        let alice = world.arrive("alice@example.org/a");
        let bob = world.arrive("bob@example.org/b");
        world.faults.disk_us = (60_000_000, 60_000_000);
        let to = "bob@example.org/b";
        let all = message("chat", to, "1") + &message("headline", to, "h").repeat(behind);
        world.send(alice, &all);
        world.run_for(30_000);
        let told = world.client(bob).stream_error.as_deref();
        assert_eq!(told, error, "{behind}");
    }
}

fn retract(to: &str, id: &str, retracted: &str) -> String {
    let retract = format!("<retract xmlns='urn:xmpp:message-retract:1' id='{retracted}'/>");
    format!("<message to='{to}' type='chat' id='{id}'>{retract}</message>")
}

/// The ids of those messages of an archive of which a tombstone is left.
fn tombstones(world: &mut World, name: &str) -> Vec<String> {
    let ids = archived(world, name).into_iter();
    let messages = page(world, name).messages.into_iter();
    let each = ids.zip(messages).filter(|(_, (_, message))| {
        let text = String::from_utf8_lossy(message);
        assert!(!text.contains("<body>") || !text.contains("<retracted "));
        text.contains("<retracted ")
    });
    each.map(|(id, _)| id).collect()
}

/// XEP-0424 4: on whichever shard they are, and over a crash.
#[test]
fn what_a_sender_retracts_is_a_tombstone_in_both_archives() {
    for shards in [1, 2, 3] {
        let mut world = world(shards);
        let alice = world.arrive("alice@example.org/a");
        let bob = world.arrive("bob@example.org/b");
        world.tell(alice, &message("chat", "bob@example.org/b", "1"));
        world.tell(bob, &message("chat", "alice@example.org", "2"));
        world.tell(alice, &message("chat", "bob@example.org", "3"));
        world.tell(alice, &message("chat", "carl@example.org", "4"));
        world.tell(bob, &retract("alice@example.org", "5", "1"));
        world.tell(alice, &retract("carl@example.org", "6", "1"));
        for name in ["alice", "bob", "carl"] {
            assert_eq!(tombstones(&mut world, name), [""; 0], "{shards}");
        }
        world.tell(alice, &retract("bob@example.org", "7", "1"));
        world.tell(alice, &retract("carl@example.org", "8", "4"));
        world.crash();
        for (name, gone) in [
            ("alice", &["1", "4"][..]),
            ("bob", &["1"]),
            ("carl", &["4"]),
        ] {
            assert_eq!(tombstones(&mut world, name), gone, "{shards}");
        }
        assert_eq!(archived(&mut world, "bob"), ["1", "2", "3", "5", "7"]);
    }
}

/// What storage refuses is nowhere, and nothing is retracted by it.
#[test]
fn a_retraction_that_storage_refuses_retracts_nothing() {
    let mut world = world(2);
    let alice = world.arrive("alice@example.org/a");
    world.arrive("bob@example.org/b");
    world.tell(alice, &message("chat", "bob@example.org/b", "1"));
    world.faults.disk_full = true;
    world.tell(alice, &retract("bob@example.org", "2", "1"));
    world.faults.disk_full = false;
    for name in ["alice", "bob"] {
        assert_eq!(tombstones(&mut world, name), [""; 0]);
    }
    world.tell(alice, &retract("bob@example.org", "3", "1"));
    for name in ["alice", "bob"] {
        assert_eq!(tombstones(&mut world, name), ["1"]);
    }
}

/// All who were to get a message have gone before its archive had it: it waits, by the same id.
#[test]
fn what_waited_for_an_archive_waits_on_when_its_client_has_gone() {
    for shards in [1, 2] {
        for durability in [Durability::Full, Durability::Archive] {
            let mut world = world_of(shards, durability);
            let alice = world.arrive("alice@example.org/a");
            let bob = world.arrive("bob@example.org/b");
            let usual = world.faults.disk_us;
            world.faults.disk_us = (500_000, 500_000);
            let to = "bob@example.org/b";
            world.send(
                alice,
                &(message("chat", to, "1") + &message("chat", to, "2")),
            );
            world.run_for(100);
            world.vanish(bob);
            world.run();
            world.faults.disk_us = usual;
            assert!(errors(&world.received(alice)).is_empty());
            let bob = world.arrive(to);
            let came = world.received(bob);
            let ids: Vec<_> = came.iter().filter_map(shown).collect();
            let stored = page(&mut world, "bob").messages.into_iter();
            let stored: Vec<_> = stored.map(|(id, _)| id.to_string()).collect();
            assert_eq!(ids, stored, "{shards} {durability:?}");
            assert_eq!(archived(&mut world, "bob"), ["1", "2"]);
        }
    }
}

/// Another device has it: then it does not wait.
#[test]
fn what_another_device_has_does_not_wait_for_one_that_has_gone() {
    let mut world = world(2);
    let alice = world.arrive("alice@example.org/a");
    let [one, two] = ["b", "c"].map(|it| world.arrive(&format!("bob@example.org/{it}")));
    for client in [one, two] {
        world.received(client);
    }
    let usual = world.faults.disk_us;
    world.faults.disk_us = (500_000, 500_000);
    world.send(alice, &message("chat", "bob@example.org", "1"));
    world.run_for(100);
    world.vanish(one);
    world.run();
    world.faults.disk_us = usual;
    let message_of = |came: &[Element]| came.iter().filter(|it| it.name == "message").count();
    assert_eq!(message_of(&world.received(two)), 1);
    let again = world.arrive("bob@example.org/b");
    assert_eq!(message_of(&world.received(again)), 0);
}

fn world_that_keeps(keep_s: u64, messages_max: u32) -> World {
    let settings = Settings {
        shards: 2,
        archive: true,
        retention: ArchivePolicy {
            keep_s,
            messages_max,
        },
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(3, settings, Faults::calm());
    for name in ["alice", "bob", "carl"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    world
}

#[test]
fn what_is_too_old_goes_with_the_next_round() {
    let mut world = world_that_keeps(ROUND_MS / 1000, 0);
    let alice = world.arrive("alice@example.org/a");
    world.tell(alice, &message("chat", "bob@example.org", "1"));
    world.tell(alice, &message("chat", "carl@example.org", "2"));
    world.run_for(2 * FIRST_ROUND_MS);
    assert_eq!(archived(&mut world, "alice"), ["1", "2"]);
    world.run_for(ROUND_MS / 2);
    world.tell(alice, &message("chat", "bob@example.org", "3"));
    world.run_for(ROUND_MS / 2 + FIRST_ROUND_MS);
    assert_eq!(archived(&mut world, "alice"), ["3"]);
    assert_eq!(archived(&mut world, "bob"), ["3"]);
    assert_eq!(archived(&mut world, "carl"), [""; 0]);
    // A disk that fails delays it.
    world.faults.disk_failures = 1000;
    world.run_for(ROUND_MS);
    world.faults.disk_failures = 0;
    assert_eq!(archived(&mut world, "alice"), ["3"]);
    world.run_for(ROUND_MS + FIRST_ROUND_MS);
    assert_eq!(archived(&mut world, "alice"), [""; 0]);
}

#[test]
fn a_clock_that_goes_ahead_takes_nothing_before_it_was_seen_once_more() {
    const YEAR_US: i64 = 365 * 86_400 * 1_000_000;
    let mut world = world_that_keeps(8 * ROUND_MS / 1000, 0);
    let alice = world.arrive("alice@example.org/a");
    world.tell(alice, &message("chat", "bob@example.org", "1"));
    // It is so at the first round, and has been set right by the second.
    world.run_for(FIRST_ROUND_MS / 2);
    world.faults.clock_ahead_us = YEAR_US;
    world.run_for(FIRST_ROUND_MS);
    world.faults.clock_ahead_us = 0;
    world.run_for(ROUND_MS);
    assert_eq!(archived(&mut world, "alice"), ["1"]);
    // Once more, and it stays.
    world.faults.clock_ahead_us = YEAR_US;
    world.run_for(ROUND_MS);
    assert_eq!(archived(&mut world, "alice"), ["1"]);
    world.run_for(ROUND_MS);
    assert_eq!(archived(&mut world, "alice"), [""; 0]);
    assert_eq!(archived(&mut world, "bob"), [""; 0]);
}

/// All rows are read to count them.
#[test]
fn messages_are_counted_in_one_round_of_some() {
    let mut world = world_that_keeps(0, 1);
    let alice = world.arrive("alice@example.org/a");
    world.run_for(2 * FIRST_ROUND_MS);
    for number in ["1", "2"] {
        world.tell(alice, &message("chat", "bob@example.org", number));
    }
    world.run_for((COUNTED_EVERY - 1) * ROUND_MS);
    assert_eq!(archived(&mut world, "alice"), ["1", "2"]);
    world.run_for(ROUND_MS);
    assert_eq!(archived(&mut world, "alice"), ["2"]);
}

#[test]
fn of_more_than_an_archive_may_have_the_oldest_go() {
    let mut world = world_that_keeps(0, 3);
    let alice = world.arrive("alice@example.org/a");
    for number in 0..5 {
        world.tell(
            alice,
            &message("chat", "bob@example.org", &number.to_string()),
        );
    }
    world.tell(alice, &message("chat", "carl@example.org", "5"));
    assert_eq!(archived(&mut world, "alice").len(), 6);
    world.run_for(2 * FIRST_ROUND_MS);
    assert_eq!(archived(&mut world, "alice"), ["3", "4", "5"]);
    assert_eq!(archived(&mut world, "bob"), ["2", "3", "4"]);
    assert_eq!(archived(&mut world, "carl"), ["5"]);
}

/// Bob has told alice something, and a second client of hers is about to bind by XEP-0386.
fn about_to_bind() -> (World, ClientId, ClientId) {
    let settings = Settings {
        shards: 2,
        archive: true,
        tls_available: true,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(3, settings, Faults::calm());
    for name in ["alice", "bob"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    world.arrive("alice@example.org/a");
    let bob = world.arrive("bob@example.org/b");
    world.tell(bob, &message("chat", "alice@example.org", "1"));
    let client = world.connect_raw_by_tls();
    let header = sim::client::header("example.org");
    world.tell(client, &String::from_utf8_lossy(&header));
    world.received(client);
    (world, bob, client)
}

fn authenticate() -> String {
    let plain = sim::scram::plain("alice", "secret");
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>\
         <initial-response>{plain}</initial-response><bind xmlns='urn:xmpp:bind:0'/>\
         </authenticate>"
    )
}

/// The newest message that a bound client is told of, if it is told anything.
fn told_end(received: &[Element]) -> Option<String> {
    let success = received.iter().find(|it| it.name == "success");
    let bound = success.and_then(|it| it.child("bound"));
    let metadata = bound.expect("it is bound").child("metadata");
    metadata.map(|it| it.child("end").expect("it ends").attr("id").to_owned())
}

/// XEP-0386 3.2: what is told at a bind is what there is then, or nothing.
#[test]
fn who_is_bound_is_told_of_no_end_behind_which_something_has_come() {
    let mut told = Vec::new();
    for ms in (25..2_000).step_by(50) {
        let (mut world, bob, client) = about_to_bind();
        world.faults.disk_us = (500_000, 500_000);
        world.send(client, &authenticate());
        world.run_for(ms);
        if !world.received(client).is_empty() {
            break;
        }
        world.send(bob, &message("chat", "alice@example.org", "2"));
        world.run();
        let end = told_end(&world.received(client));
        let newest = page(&mut world, "alice").messages[1].0.to_string();
        assert!(end.as_ref().is_none_or(|end| *end == newest), "{ms}");
        told.push(end.is_some());
    }
    assert!(told.contains(&true) && told.contains(&false), "{told:?}");
}
