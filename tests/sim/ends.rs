//! Many sessions that end, or are read, at once: what each has is seen to, and a little at a time.

use sim::client::Phase;
use sim::steps::{counted, errors, message, messages};
use sim::{ClientId, Faults, World};
use stanza::jid::BareJid;
use xmpp::Settings;
use xmpp::limit::LOAD_STREAMS_MAX;

const BOB: &str = "bob@example.org";
const RESOURCES: usize = 6;
const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true' max='1'/>";

/// What storage is to forget at once is bounded by the stanzas of these, or by one session.
const ENDS_SIZE_MAX: usize = 2_048;

fn world(seed: u64) -> World {
    let mut world = World::new(seed, Settings::for_tests("example.org"), Faults::calm());
    world.faults.unsent_max = 64 << 20;
    for name in ["alice", "bob"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    world
}

/// Clients of one account that acknowledge nothing.
fn clients(world: &mut World) -> Vec<ClientId> {
    let each = |number| world.log_in(&format!("{BOB}/{number}"));
    let clients: Vec<ClientId> = (0..RESOURCES).map(each).collect();
    for client in &clients {
        world.tell(*client, ENABLE);
    }
    for client in &clients {
        world.tell(*client, "<presence/>");
    }
    clients
}

/// Says so much to each of these addresses, and gives the ids.
fn say(world: &mut World, alice: ClientId, to: &[String], count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for to in to {
        for number in 0..count {
            let id = format!("{to}-{number}");
            world.send(alice, &message("chat", to, &id));
            ids.push(id);
        }
    }
    world.run();
    ids
}

fn each_resource() -> Vec<String> {
    (0..RESOURCES)
        .map(|number| format!("{BOB}/{number}"))
        .collect()
}

/// All that was said comes to the next client, or back.
fn check(world: &mut World, alice: ClientId, mut ids: Vec<String>) {
    let mut seen: Vec<String> = errors(&world.received(alice))
        .into_iter()
        .map(|(id, _)| id.to_string())
        .collect();
    let bob = world.arrive("bob@example.org/new");
    world.run_for(2_000);
    seen.extend(
        messages(&world.received(bob))
            .iter()
            .map(ToString::to_string),
    );
    seen.sort();
    ids.sort();
    assert_eq!(seen.len(), ids.len());
    assert!(seen == ids, "each of them once");
}

#[test]
fn sessions_whose_time_is_over_are_forgotten_a_few_at_a_time() {
    for (seed, is_shared) in [(1, true), (2, false)] {
        let mut world = world(seed);
        let alice = world.log_in("alice@example.org/x");
        let clients = clients(&mut world);
        let to = match is_shared {
            true => vec![BOB.to_owned()],
            false => each_resource(),
        };
        let ids = say(&mut world, alice, &to, 900);
        let copies = world.asked.copies;
        for client in clients {
            world.vanish(client);
        }
        world.run_for(5_000);
        assert_eq!(
            world.asked.copies, copies,
            "none of them got what another left"
        );
        assert!(world.asked.ended >= RESOURCES);
        assert!(world.asked.ends_peak <= ENDS_SIZE_MAX / 900);
        check(&mut world, alice, ids);
    }
}

/// Its session was passed over by then: it would have ended next.
#[test]
fn a_client_that_is_back_in_its_last_second_gets_what_another_session_left_meanwhile() {
    let mut world = world(6);
    let alice = world.log_in("alice@example.org/x");
    let lost = world.log_in("bob@example.org/lost");
    world.tell(lost, &format!("{ENABLE}<presence/>"));
    let (late, id) = world.log_in_managed("bob@example.org/late");
    world.tell(late, "<presence/>");
    let had = counted(&world.received(late));
    let ids = say(&mut world, alice, &["bob@example.org/lost".to_owned()], 2);
    world.vanish(late);
    world.run_for(300_000 - 1_500);
    world.vanish(lost);
    world.run_for(1_200);
    assert_eq!(world.asked.ended, 1, "the other one waits");
    let late = world.resume("bob@example.org/late", &id, had);
    world.run_for(1_000);
    assert_eq!(messages(&world.received(late)), ids);
}

/// Small ones are not held up: many clients may be lost at once.
#[test]
fn many_sessions_with_little_are_forgotten_at_once() {
    let mut world = world(3);
    let alice = world.log_in("alice@example.org/x");
    let clients = clients(&mut world);
    let ids = say(&mut world, alice, &[BOB.to_owned()], 3);
    world.faults.disk_us = (50_000, 50_000);
    for client in clients {
        world.vanish(client);
    }
    world.run_for(5_000);
    assert_eq!(world.asked.ends_peak, RESOURCES);
    check(&mut world, alice, ids);
}

/// What one leaves makes the others overflow, and what these leave does not go round again.
#[test]
fn what_sessions_leave_that_have_too_much_goes_to_nobody_who_has_too_much() {
    let mut world = world(4);
    let alice = world.log_in("alice@example.org/x");
    let clients = clients(&mut world);
    let ids = say(&mut world, alice, &each_resource(), 2_500);
    let copies = world.asked.copies;
    world.send(clients[0], "</stream:stream>");
    world.run();
    world.run_for(5_000);
    // Each of the others has room for so many more.
    let more = (world.asked.copies - copies) / (RESOURCES - 1);
    assert!((1_500..1_600).contains(&more), "{more}");
    // Each may have to be told what finds room.
    assert!((RESOURCES..=2 * RESOURCES).contains(&world.asked.ended));
    assert_eq!(world.asked.ends_peak, 1);
    check(&mut world, alice, ids);
}

#[test]
fn sessions_of_the_last_process_are_read_one_after_another() {
    let mut world = world(5);
    let alice = world.log_in("alice@example.org/x");
    clients(&mut world);
    let mut ids = say(&mut world, alice, &[BOB.to_owned()], 100);
    world.crash();
    let alice = world.log_in("alice@example.org/x");
    ids.extend(say(&mut world, alice, &[BOB.to_owned()], 1));
    assert_eq!(world.asked.reads_peak, 1);
    world.run_for(601_000);
    check(&mut world, alice, ids);
}

/// What the sessions of an account leave that ends bounces, all of it, and not all in one turn.
#[test]
fn what_the_sessions_of_a_cancelled_account_leave_bounces_bit_by_bit() {
    for (seed, is_shared, is_stopped) in [(8, true, false), (9, false, false), (10, false, true)] {
        let mut world = world(seed);
        let alice = world.log_in("alice@example.org/x");
        for client in clients(&mut world) {
            world.vanish(client);
        }
        let to = match is_shared {
            true => vec![BOB.to_owned()],
            false => each_resource(),
        };
        let mut ids = say(&mut world, alice, &to, 200);
        let last = world.log_in("bob@example.org/last");
        world.tell(
            last,
            "<iq type='set' id='c'><query xmlns='jabber:iq:register'><remove/></query></iq>",
        );
        let mut seen: Vec<String> = errors(&world.received(alice))
            .into_iter()
            .map(|(id, _)| id.to_string())
            .collect();
        assert!(seen.len() < ids.len(), "the others come between");
        if is_stopped {
            world.shut_down();
            world.run();
        } else {
            world.run_for(900);
        }
        let late = world.received(alice);
        seen.extend(errors(&late).into_iter().map(|(id, _)| id.to_string()));
        seen.sort();
        ids.sort();
        assert!(seen == ids, "seed {seed}: {} of {}", seen.len(), ids.len());
    }
}

/// A client whose session a crash left in storage.
struct Crashed {
    full: String,
    session: String,
    had: u32,
    /// What it is to get.
    own: Vec<String>,
}

impl Crashed {
    fn ask(&self, world: &mut World) -> ClientId {
        world.ask_for(&self.full, &self.session, self.had)
    }
}

/// Clients of one account, with so much for each.
fn crashed(world: &mut World, count: usize) -> Vec<Crashed> {
    let alice = world.log_in("alice@example.org/x");
    let own = Vec::new();
    let mut crashed: Vec<Crashed> = (0..RESOURCES)
        .map(|number| {
            let full = format!("{BOB}/{number}");
            let (client, session) = world.log_in_managed(&full);
            world.tell(client, "<presence/>");
            let had = counted(&world.received(client));
            let own = own.clone();
            Crashed {
                full,
                session,
                had,
                own,
            }
        })
        .collect();
    let ids = say(world, alice, &each_resource(), count);
    for (client, ids) in crashed.iter_mut().zip(ids.chunks(count)) {
        client.own = ids.to_vec();
    }
    world.crash();
    crashed
}

#[test]
fn clients_that_all_resume_at_once_after_a_crash_have_all_of_theirs() {
    let mut world = world(11);
    let crashed = crashed(&mut world, 50);
    let back: Vec<ClientId> = crashed.iter().map(|it| it.ask(&mut world)).collect();
    world.run_for(1_000);
    for (client, crashed) in back.into_iter().zip(crashed) {
        assert_eq!(messages(&world.received(client)), crashed.own);
    }
    assert_eq!(world.asked.read, RESOURCES, "each of them is read once");
    assert_eq!(
        world.asked.renumbers_peak, 1,
        "others' requests come between"
    );
}

/// It does not hold up those behind it, at whatever moment it goes.
#[test]
fn a_client_that_goes_while_it_resumes_leaves_the_others_their_turns() {
    for us in 0..40 {
        let mut world = world(12 + us);
        let crashed = crashed(&mut world, 5);
        let back: Vec<ClientId> = crashed.iter().map(|it| it.ask(&mut world)).collect();
        world.run_until(world.now() + 100 * us);
        world.vanish(back[0]);
        world.vanish(back[2]);
        world.run_for(1_000);
        for (client, crashed) in back.iter().zip(&crashed) {
            if ![back[0], back[2]].contains(client) {
                assert_eq!(messages(&world.received(*client)), crashed.own, "{us}");
            }
        }
        let again = crashed[0].ask(&mut world);
        world.run_for(1_000);
        assert_eq!(messages(&world.received(again)), crashed[0].own, "{us}");
    }
}

/// It may come after all; the others must not wait for that.
#[test]
fn a_session_that_cannot_be_read_does_not_keep_the_others_from_their_end() {
    let mut world = world(13);
    let names = ["anna", "carl", "dora"].map(|name| format!("{name}@example.org"));
    let sessions = names.each_ref().map(|name| {
        world.add_account(name, "secret");
        let (client, session) = world.log_in_managed(&format!("{name}/x"));
        world.tell(client, "<presence/>");
        session
    });
    let alice = world.log_in("alice@example.org/x");
    let mut ids = Vec::new();
    for name in &names {
        ids.push(say(&mut world, alice, &[format!("{name}/x")], 3));
    }
    world.faults.unreadable = vec![sessions[0].clone()];
    world.crash();
    world.log_in("alice@example.org/x");
    world.run_for(310_000);
    assert_eq!(world.asked.ended, names.len() - 1);
    world.faults.unreadable.clear();
    world.run_for(10_000);
    assert_eq!(world.asked.ended, names.len());
    for (name, ids) in names.iter().zip(ids) {
        let client = world.arrive(&format!("{name}/new"));
        assert_eq!(messages(&world.received(client)), ids);
    }
}

/// Storage is asked for each of them about once a second, however many they are.
#[test]
fn sessions_whose_accounts_cannot_be_loaded_are_read_again_one_round_after_another() {
    const COUNT: usize = 20;
    let mut world = world(14);
    let names: Vec<String> = (0..COUNT).map(|it| format!("n{it}@example.org")).collect();
    for name in &names {
        world.add_account(name, "secret");
        world.log_in_managed(&format!("{name}/x"));
    }
    let jids = names.iter().map(|name| BareJid::from_prepared(name));
    world.faults.unloadable = jids.collect();
    world.crash();
    world.log_in("alice@example.org/x");
    world.run_for(310_000);
    world.asked.read = 0;
    world.run_for(10_000);
    let read = world.asked.read;
    assert!((COUNT..=11 * COUNT).contains(&read), "{read} of {COUNT}");
    assert_eq!(world.asked.ended, 0);
    world.faults.unloadable.clear();
    world.run_for(5_000);
    assert_eq!(world.asked.ended, COUNT);
}

/// No later try would read it: it counts as none.
#[test]
fn a_client_whose_session_is_damaged_begins_anew() {
    for (seed, is_late) in [(15, false), (16, true)] {
        let mut world = world(seed);
        let (_, session) = world.log_in_managed(&format!("{BOB}/x"));
        world.crash();
        world.faults.damaged = vec![session.clone()];
        let alice = world.log_in("alice@example.org/x");
        if is_late {
            world.run_for(310_000);
            world.asked.read = 0;
            world.run_for(10_000);
            assert_eq!(world.asked.read, 0, "its time is over");
        }
        let bob = world.resume(&format!("{BOB}/x"), &session, 0);
        let client = world.client(bob);
        assert_eq!((client.resumed, &client.stream_error), (None, &None));
        assert!(client.is_online(), "{:?}", client.phase);
        world.tell(bob, "<presence/>");
        world.tell(alice, &message("chat", BOB, "m"));
        assert_eq!(messages(&world.received(bob)), ["m"]);
        // It stays in storage as it is.
        world.run_for(310_000);
        assert_eq!(world.asked.ended, 0);
    }
}

#[test]
fn a_client_whose_session_cannot_be_read_now_comes_back_to_it_later() {
    let mut world = world(17);
    let (_, session) = world.log_in_managed(&format!("{BOB}/x"));
    world.crash();
    world.faults.unreadable = vec![session.clone()];
    let bob = world.resume(&format!("{BOB}/x"), &session, 0);
    let error = world.client(bob).stream_error.as_deref();
    assert_eq!(error, Some("internal-server-error"));
    world.faults.unreadable.clear();
    let bob = world.resume(&format!("{BOB}/x"), &session, 0);
    assert!(world.client(bob).resumed.is_some());
}

/// Two clients of one account that have the same message in their queues, and whose sessions a
/// crash left in storage.
fn sharing(world: &mut World) -> [Crashed; 2] {
    let alice = world.log_in("alice@example.org/x");
    let crashed = ["a", "b"].map(|resource| {
        let full = format!("{BOB}/{resource}");
        let (client, session) = world.log_in_managed(&full);
        world.tell(client, "<presence/>");
        let had = counted(&world.received(client));
        let own = vec!["shared".to_owned()];
        Crashed {
            full,
            session,
            had,
            own,
        }
    });
    world.send(alice, &message("chat", BOB, "shared"));
    world.run();
    world.crash();
    crashed
}

/// How a session ends that shares a message with one that is damaged.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Its client binds its resource anew.
    Superseded,
    /// Nobody comes back to it, and something woke it before.
    Late,
    /// Nobody comes back to it, and nothing did.
    Swept,
    /// Its client was given it and is gone for good.
    Lost,
}

/// Whichever of the two is read first.
#[test]
fn what_a_session_shares_with_a_damaged_one_outlives_it() {
    let ends = [End::Superseded, End::Late, End::Swept, End::Lost];
    for (seed, damaged) in [(18, 0), (19, 1), (20, 0), (21, 1)] {
        for end in ends {
            let mut world = world(seed);
            let crashed = sharing(&mut world);
            let other = &crashed[1 - damaged];
            world.faults.damaged = vec![crashed[damaged].session.clone()];
            let alice = world.log_in("alice@example.org/x");
            if !matches!(end, End::Swept) {
                world.tell(alice, &message("headline", BOB, "wakes"));
            }
            let heir = match end {
                End::Superseded => world.arrive(&other.full),
                End::Late | End::Swept => {
                    world.run_for(310_000);
                    world.arrive(&format!("{BOB}/new"))
                }
                End::Lost => {
                    let back = other.ask(&mut world);
                    world.run_until(world.now() + 1_000);
                    world.vanish(back);
                    world.run_for(310_000);
                    world.arrive(&format!("{BOB}/new"))
                }
            };
            world.run_for(2_000);
            assert_eq!(messages(&world.received(heir)), other.own, "{seed} {end:?}");
            assert_eq!(errors(&world.received(alice)), []);
        }
    }
}

/// It is there, whatever storage would say of it.
#[test]
fn a_session_that_is_here_is_not_refused_for_its_record() {
    let mut world = world(22);
    let (_, session) = world.log_in_managed(&format!("{BOB}/x"));
    world.crash();
    world.faults.disk_us = (1_000, 1_000);
    let clients = [(); 2].map(|()| world.ask_for(&format!("{BOB}/x"), &session, 0));
    let count = |world: &World| {
        let has_it = |client: &&ClientId| world.client(**client).resumed.is_some();
        clients.iter().filter(has_it).count()
    };
    while count(&world) == 0 {
        world.run_until(world.now() + 1);
    }
    world.faults.damaged = vec![session.clone()];
    world.run_for(1_000);
    assert_eq!(count(&world), clients.len());
}

/// More would each have it read at once, and what others ask for would come behind all that.
#[test]
fn so_many_streams_wait_for_one_account_to_resume_and_no_more() {
    let mut world = world(23);
    let (_, session) = world.log_in_managed(&format!("{BOB}/x"));
    world.crash();
    // One has its turn.
    let count = LOAD_STREAMS_MAX + 3;
    let clients: Vec<ClientId> = (0..count)
        .map(|_| {
            let client = world.ask_for(&format!("{BOB}/x"), &session, 0);
            while !matches!(world.client(client).phase, Phase::Proving) {
                world.run_until(world.now() + 1);
            }
            world.set_reading(client, false);
            client
        })
        .collect();
    world.run();
    world.faults.disk_us = (5_000_000, 5_000_000);
    for client in &clients {
        world.set_reading(*client, true);
    }
    world.run_for(1_000);
    let is_refused = |client: &&ClientId| {
        let error = world.client(**client).stream_error.as_deref();
        error == Some("internal-server-error")
    };
    assert_eq!(clients.iter().filter(is_refused).count(), 2);
    world.faults.disk_us = (10, 10);
    world.run_for(10_000);
    let has_it = |client: &&ClientId| world.client(**client).resumed.is_some();
    assert_eq!(clients.iter().filter(has_it).count(), LOAD_STREAMS_MAX + 1);
}
