//! Presence for thousands of contacts, again and again, and stanzas of the largest size: their
//! sender waits for it, and nobody else.

use sim::steps::homes;
use sim::{ClientId, Element, Faults, World};
use xmpp::Settings;
use xmpp::limit::{
    BULK_PER_TURN_MAX, REQUESTS_PER_SESSION_MAX, TARGETS_PER_TURN_MAX, TARGETS_SIZE_PER_REQUEST,
};
use xmpp::port::Subscription;
use xmpp::xep::blocking::BLOCKED_MAX;

const ALICE: &str = "alice@example.org";

/// How many presences a client sends at once.
const PRESENCES: usize = 64;

/// So many accounts at home on this one of the shards.
fn names(home: u16, shards: u16, count: usize) -> Vec<String> {
    homes(shards, home).take(count).collect()
}

/// A world whose clients' bytes come in one piece, with these accounts.
fn world(shards: u16, faults: Faults, accounts: &[&str]) -> World {
    let settings = Settings {
        shards,
        ..Settings::for_tests("example.org")
    };
    let faults = Faults {
        piece_bytes: (1 << 20, 1 << 20),
        ..faults
    };
    let mut world = World::new(5, settings, faults);
    for account in accounts {
        world.add_account(account, "secret");
    }
    world
}

/// Has these see an account, whether they exist or not.
fn give_followers(world: &mut World, account: &str, followers: &[String]) {
    for follower in followers {
        world.give_contact(account, follower, Subscription::From);
    }
}

fn presences(received: &[Element]) -> usize {
    let presences = received.iter().filter(|it| it.name == "presence");
    presences.count()
}

#[test]
fn a_turn_of_a_connection_ends_with_the_broadcast_that_reaches_so_many_contacts() {
    // As long as they are, the bytes alone end a turn with the fourteenth.
    let status = "x".repeat(5_000);
    let size_max = status.len() + 200;
    for (followers, at_once) in [
        (TARGETS_PER_TURN_MAX, 1),
        (TARGETS_PER_TURN_MAX / 4, 4),
        (1, 14),
    ] {
        let mut world = world(1, Faults::calm(), &[ALICE]);
        give_followers(&mut world, ALICE, &names(0, 1, followers));
        let alice = world.log_in("alice@example.org/x");
        // Each presence comes back to its sender, in the turn that handles it.
        let presence = format!("<presence><status>{status}</status></presence>");
        world.tell(alice, &presence.repeat(PRESENCES));
        assert_eq!(presences(&world.received(alice)), PRESENCES);
        let range = (at_once - 1) * size_max..at_once * size_max;
        let peak = world.output_peak();
        assert!(range.contains(&peak), "{peak} for {followers}");
    }
}

/// The sibling waits for storage, and takes nothing.
#[test]
fn who_tells_thousands_waits_until_the_sibling_has_told_those_before() {
    let faults = Faults {
        storage_capacity: 1,
        ..Faults::calm()
    };
    let names = [names(0, 2, 1), names(1, 2, 501)];
    let [alice, bob] = [&names[0][0], &names[1][0]];
    let followers = &names[1][1..];
    let mut world = world(2, faults, &[alice, bob]);
    give_followers(&mut world, alice, followers);
    let alice = world.log_in(&format!("{alice}/x"));
    let bob = world.log_in(&format!("{bob}/x"));
    world.faults.disk_us = (1_000_000, 1_000_000);
    for contact in &followers[..10] {
        let item = format!("<query xmlns='jabber:iq:roster'><item jid='{contact}'/></query>");
        world.send(bob, &format!("<iq type='set' id='s'>{item}</iq>"));
    }
    world.run_for(1);
    world.send(alice, &"<presence/>".repeat(PRESENCES));
    world.run_for(500);
    let size = followers.len() * (followers[0].len() + 1);
    let requests = size / TARGETS_SIZE_PER_REQUEST;
    let waiting = world.parcels_peak();
    let max = usize::from(REQUESTS_PER_SESSION_MAX).div_ceil(requests);
    assert!((1..=max).contains(&waiting), "{waiting}, {max} may");
    world.run();
    assert_eq!(presences(&world.received(alice)), PRESENCES);
    world.check_rest();
}

/// However many it names, and however many contacts there are: a parcel does not name each of each.
#[test]
fn a_block_of_resources_of_a_domain_makes_no_parcel_longer() {
    let names = [names(0, 2, 1), names(1, 2, 51)];
    let [alice, bob] = [&names[0][0], &names[1][0]];
    let mut world = world(2, Faults::calm(), &[alice, bob]);
    world.befriend(alice, bob);
    give_followers(&mut world, alice, &names[1][1..]);
    let clients = ["r7", "other"].map(|resource| world.arrive(&format!("{bob}/{resource}")));
    let alice = world.log_in(&format!("{alice}/x"));
    let items = (0..BLOCKED_MAX).map(|number| format!("<item jid='example.org/r{number}'/>"));
    let items: String = items.collect();
    let block = format!("<block xmlns='urn:xmpp:blocking'>{items}</block>");
    world.tell(alice, &format!("<iq type='set' id='b'>{block}</iq>"));
    for client in clients {
        world.received(client);
    }
    world.tell(alice, "<presence/>");
    let told = clients.map(|client| presences(&world.received(client)));
    assert_eq!(told, [0, 1]);
    let size = world.parcel_size_peak();
    assert!(size < 51 * 50, "{size} bytes in a parcel");
}

/// Each resource that is there hears of it once, by its own name, and nothing is sent for the rest.
#[test]
fn resources_that_are_blocked_in_a_domain_see_it_at_once_however_many_are_named() {
    for shards in [1, 2] {
        let names = [names(0, 2, 1), names(1, 2, 51)];
        let [alice, bob] = [&names[0][0], &names[1][0]];
        let mut world = world(shards, Faults::calm(), &[alice, bob]);
        world.befriend(alice, bob);
        give_followers(&mut world, alice, &names[1][1..]);
        let clients = ["r7", "other"].map(|resource| world.arrive(&format!("{bob}/{resource}")));
        // What is said to a resource alone is withdrawn with the rest.
        let alone = world.log_in(&format!("{bob}/r8"));
        let alice = world.arrive(&format!("{alice}/x"));
        for resource in ["r7", "r8"] {
            world.tell(alice, &format!("<presence to='{bob}/{resource}'/>"));
        }
        let clients = [clients[0], clients[1], alone];
        let items = (0..BLOCKED_MAX - 1).map(|n| format!("<item jid='example.org/r{n}'/>"));
        let items = items.chain([format!("<item jid='{bob}/r7'/>")]);
        let items: String = items.collect();
        for (command, type_, told) in [
            ("block", "unavailable", [1, 0, 1]),
            ("unblock", "", [1, 0, 0]),
        ] {
            for client in clients {
                world.received(client);
            }
            let command = format!("<{command} xmlns='urn:xmpp:blocking'>{items}</{command}>");
            let before = world.parcels();
            world.tell(alice, &format!("<iq type='set' id='b'>{command}</iq>"));
            // A long list rests before it is written again.
            world.run_for(1_000);
            assert!(world.parcels() - before < 10);
            let received = clients.map(|client| world.received(client));
            let is_it = |it: &&Element| it.name == "presence" && it.attr("type") == type_;
            let count = |all: &Vec<Element>| all.iter().filter(is_it).count();
            assert_eq!(received.each_ref().map(count), told, "{received:?}");
        }
    }
}

/// However many send large stanzas, and whoever's bytes come first: one small stanza of somebody
/// else is not behind them, and a turn handles a part of them.
#[test]
fn what_others_send_in_bulk_is_handled_behind_a_small_stanza() {
    const SENDERS: usize = 12;
    // A microsecond each.
    const TURNS_MAX: usize = 1_000;
    for seed in 1..=8 {
        let settings = Settings {
            shards: 1,
            ..Settings::for_tests("example.org")
        };
        let faults = Faults {
            wire_us: (10, 10),
            piece_bytes: (1 << 20, 1 << 20),
            ..Faults::calm()
        };
        let mut world = World::new(seed, settings, faults);
        let names: Vec<String> = (0..SENDERS).map(|n| format!("user{n}")).collect();
        for name in names.iter().map(String::as_str).chain(["bob", "carl"]) {
            world.add_account(&format!("{name}@example.org"), "secret");
        }
        let bob = world.log_in("bob@example.org/x");
        let senders: Vec<ClientId> = names
            .iter()
            .map(|name| world.log_in(&format!("{name}@example.org/x")))
            .collect();
        let carl = world.log_in("carl@example.org/x");
        world.received(bob);
        let large = "x".repeat(BULK_PER_TURN_MAX / 2);
        for (number, sender) in senders.iter().chain([&carl]).enumerate() {
            let body = if number < SENDERS { &large } else { "small" };
            let text = format!(
                "<message to='bob@example.org/x' id='m{number}'><body>{body}</body></message>"
            );
            world.send(*sender, &text);
        }
        let mut turns = Vec::new();
        for _ in 0..TURNS_MAX {
            world.run_until(world.now() + 1);
            let received = world.received(bob);
            let ids = received.iter().map(|it| it.attr("id").to_owned());
            turns.push(ids.collect::<Vec<_>>());
        }
        turns.retain(|ids| !ids.is_empty());
        let all = turns.iter().map(Vec::len).sum::<usize>();
        assert_eq!(all, SENDERS + 1, "seed {seed}: {turns:?}");
        assert_eq!(turns[0][0], format!("m{SENDERS}"), "seed {seed}: {turns:?}");
        let most = turns.iter().map(Vec::len).max();
        assert!(most <= Some(3), "seed {seed}: {turns:?}");
    }
}
