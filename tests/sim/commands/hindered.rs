//! Commands that take long, that there is no room for, and that a crash comes amid.

use super::*;
use sim::client::Proof;
use sim::steps::homes;
use xmpp::xep::commands::administration::{AWAITED_RUNS_MAX, RUNS_MAX};

/// More than a command may take, in microseconds.
const TOO_LONG_US: u64 = 150_000_000;

/// The answer to a command that comes soon: what waits for a disk goes on waiting.
fn soon(world: &mut World, client: ClientId, node: &str) -> Element {
    world.send(client, &request(node, "", ""));
    world.run_for(100);
    let answer = world.received(client).pop();
    answer.expect("a request has an answer")
}

/// The attribute that names a new execution.
fn open(world: &mut World, client: ClientId, node: &str) -> String {
    let shown = soon(world, client, node);
    let id = shown.child("command").expect("a form").attr("sessionid");
    format!("sessionid='{id}'")
}

fn is_late(answer: &Element) -> bool {
    let note = answer.child("command").and_then(|it| it.child("note"));
    note.is_some_and(|note| note.attr("type") == "warn")
}

#[test]
fn what_a_late_command_has_begun_is_done_to_its_last_part() {
    for shards in [1, 3] {
        let mut world = world(shards);
        let alice = world.log_in("alice@example.org/a");
        let bob = world.log_in("bob@example.org/b");
        let carol = world.log_in("carol@example.org/c");
        let forms = [
            (
                "change-user-password",
                form(&[
                    ("accountjid", &["bob@example.org"]),
                    ("password", &["three"]),
                ]),
            ),
            (
                "end-user-session",
                form(&[("accountjids", &["carol@example.org"])]),
            ),
            (
                "add-user",
                form(&[
                    ("accountjid", &["dave@example.org"]),
                    ("password", &["one"]),
                    ("password-verify", &["one"]),
                ]),
            ),
        ];
        let begun = forms.map(|(node, filled)| {
            let id = open(&mut world, alice, node);
            request(node, &id, &filled)
        });
        world.faults.disk_us = (TOO_LONG_US, TOO_LONG_US);
        for request in &begun[..2] {
            world.send(alice, request);
        }
        // What is late here is what comes before storage.
        world.run_for(1_000);
        world.faults.derive_us = (TOO_LONG_US, TOO_LONG_US);
        world.send(alice, &begun[2]);
        world.run_for(110_000);
        let got = world.received(alice);
        assert_eq!(got.len(), 3, "{got:?}");
        assert!(got.iter().all(is_late), "{got:?}");
        let are_over = |world: &World| {
            [bob, carol].map(|client| world.client(client).stream_error.as_deref() == Some("reset"))
        };
        assert_eq!(are_over(&world), [false; 2]);
        world.faults.disk_us = Faults::calm().disk_us;
        world.faults.derive_us = Faults::calm().derive_us;
        world.run_for(100_000);
        assert_eq!(are_over(&world), [true; 2], "{shards}");
        assert!(world.received(alice).is_empty(), "it was answered");
        for (jid, password) in [("bob", "three"), ("dave", "one")] {
            let login = sim::Login::new(&format!("{jid}@example.org/x"), password);
            let client = world.connect(login);
            world.run();
            assert!(world.client(client).is_online(), "{jid}");
        }
        world.check_rest();
    }
}

#[test]
fn where_too_many_late_commands_go_on_none_is_begun() {
    let mut world = world(1);
    // An asker has so many executions, and no more.
    let numbers = 0..RUNS_MAX / AWAITED_RUNS_MAX;
    let sessions: Vec<ClientId> = numbers
        .map(|number| world.log_in(&format!("alice@example.org/{number}")))
        .collect();
    let last = world.log_in("alice@example.org/last");
    world.faults.disk_us = (10 * TOO_LONG_US, 10 * TOO_LONG_US);
    let filled = form(&[("accountjids", &["bob@example.org"])]);
    let node = "delete-user";
    let mut late_count = 0;
    for alice in sessions {
        let ids: Vec<_> = (0..AWAITED_RUNS_MAX)
            .map(|_| open(&mut world, alice, node))
            .collect();
        for id in &ids {
            world.send(alice, &request(node, id, &filled));
        }
        world.run_for(101_000);
        let got = world.received(alice);
        late_count += got.iter().filter(|it| is_late(it)).count();
    }
    assert_eq!(late_count, RUNS_MAX);
    let count = "get-registered-users-num";
    let refused = soon(&mut world, last, count);
    assert_eq!(conditions(&refused), ["resource-constraint"]);
    world.faults.disk_us = Faults::calm().disk_us;
    world.run_for(20 * TOO_LONG_US / 1_000);
    let counted = command(&mut world, last, count, "", "");
    assert_eq!(values(&counted, "registeredusersnum"), ["2"]);
    world.check_rest();
}

#[test]
fn where_too_much_is_derived_a_command_is_refused_and_its_form_stays() {
    const DERIVATIONS: usize = 70;
    let mut world = world(1);
    let alice = world.log_in("alice@example.org/a");
    let id = open(&mut world, alice, "add-user");
    world.faults.derive_us = (5_000_000, 5_000_000);
    for name in homes(1, 0).take(DERIVATIONS) {
        let mut login = sim::Login::new(&format!("{name}/x"), "guess");
        login.proof = Proof::Plain;
        world.connect(login);
    }
    world.run_for(1_000);
    let filled = form(&[
        ("accountjid", &["dave@example.org"]),
        ("password", &["one"]),
        ("password-verify", &["one"]),
    ]);
    let answer = command(&mut world, alice, "add-user", &id, &filled);
    assert_eq!(conditions(&answer), ["resource-constraint"]);
    world.run_for(10_000);
    world.faults.derive_us = Faults::calm().derive_us;
    let answer = command(&mut world, alice, "add-user", &id, &filled);
    assert!(is_completed(&answer), "{answer:?}");
    world.run();
    world.check_rest();
}

/// A world in which an account of each shard administers, and their sessions.
fn world_of_administrators(shards: u16) -> (World, Vec<ClientId>) {
    let names = (0..shards).map(|shard| homes(shards, shard).next().expect("a name"));
    let names: Vec<String> = names.collect();
    let parsed = names.iter().map(|name| BareJid::parse(name));
    let mut admins: Vec<BareJid> = parsed.map(|it| it.expect("a good address")).collect();
    admins.sort_unstable();
    let settings = Settings {
        shards,
        admins,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(u64::from(shards), settings, Faults::calm());
    let clients = names.iter().map(|name| {
        world.add_account(name, "secret");
        world.log_in(&format!("{name}/x"))
    });
    let clients = clients.collect();
    (world, clients)
}

#[test]
fn a_shard_walks_for_so_many_and_refuses_the_others() {
    const SHARDS: usize = 12;
    let (mut world, clients) = world_of_administrators(SHARDS as u16);
    for client in &clients {
        for _ in 0..AWAITED_RUNS_MAX {
            world.send(*client, &request("get-online-users-num", "", ""));
        }
    }
    world.run_for(2_000);
    let got = clients.iter().flat_map(|client| world.received(*client));
    let got: Vec<Element> = got.collect();
    assert_eq!(got.len(), SHARDS * AWAITED_RUNS_MAX);
    let (refused, counted): (Vec<_>, Vec<_>) =
        got.iter().partition(|it| it.attr("type") == "error");
    assert!(!refused.is_empty());
    assert!(
        refused
            .iter()
            .all(|it| conditions(it) == ["resource-constraint"])
    );
    assert!(!counted.is_empty());
    for client in clients {
        let answer = command(&mut world, client, "get-online-users-num", "", "");
        assert_eq!(values(&answer, "onlineusersnum"), ["0"]);
    }
    world.check_rest();
}

#[test]
fn the_first_of_two_administrators_says_when_the_server_goes_down() {
    let (mut world, clients) = world_of_administrators(2);
    let [first, second] = clients[..] else {
        panic!("two")
    };
    let answer = submit(&mut world, first, "shutdown", &[("delay", &["300"])]);
    assert!(is_completed(&answer), "{answer:?}");
    let end = world.ends_at();
    assert!(end.is_some());
    let answer = submit(&mut world, second, "shutdown", &[("delay", &["0"])]);
    assert_eq!(conditions(&answer), ["conflict"]);
    assert_eq!(world.ends_at(), end);
}

/// Storage has one password or the other, and whoever is told that it is changed may rely on it.
#[test]
fn a_crash_amid_a_change_of_password_leaves_one_of_the_two() {
    let (mut old, mut new, mut told) = (0, 0, 0);
    for moment in 0..120 {
        let mut world = world(1 + moment as u16 % 2);
        let alice = world.log_in("alice@example.org/a");
        let bob = world.log_in("bob@example.org/b");
        let node = "change-user-password";
        let id = open(&mut world, alice, node);
        let bob_s: (&str, &[&str]) = ("accountjid", &["bob@example.org"]);
        let filled = form(&[bob_s, ("password", &["three"])]);
        world.send(alice, &request(node, &id, &filled));
        world.run_until(world.now() + moment * 25);
        let is_over = world.client(bob).stream_error.is_some();
        world.crash();
        world.run();
        let is_told = world.received(alice).iter().any(is_completed);
        let [by_old, by_new] = ["secret", "three"].map(|password| {
            let client = world.connect(sim::Login::new("bob@example.org/b", password));
            world.run();
            world.client(client).is_online()
        });
        assert_ne!(by_old, by_new, "{moment}");
        assert!(by_new || !(is_told || is_over), "{moment}");
        (old, new) = (old + u64::from(by_old), new + u64::from(by_new));
        told += u64::from(is_told);
        let alice = world.log_in("alice@example.org/a");
        let change = [bob_s, ("password", &["three"])];
        let answer = submit(&mut world, alice, node, &change);
        assert!(is_completed(&answer), "{moment}: {answer:?}");
        world.check_rest();
    }
    assert!(old > 0 && new > told && told > 0, "{old} {new} {told}");
}
