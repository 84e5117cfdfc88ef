//! Probes of contacts whose sessions sleep in storage after a crash.

use sim::{ClientId, Faults, World};
use xmpp::Settings;
use xmpp::probes::PROBE_WAKE_MS;

/// Contacts who sleep.
const FRIENDS: usize = 10;

fn world(seed: u64, shards: u16) -> World {
    let settings = Settings {
        shards,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(seed, settings, Faults::calm());
    for name in ["alice", "bob", "carl"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    world
}

/// What a client is told of the presence of an account: from where, and the type.
fn told(world: &mut World, client: ClientId, of: &str) -> Vec<(String, String)> {
    let received = world.received(client).into_iter();
    let presence = received.filter(|it| it.name == "presence" && it.attr("from").starts_with(of));
    let told = presence.map(|it| (it.attr("from").to_owned(), it.attr("type").to_owned()));
    told.collect()
}

/// Whoever logs in anew knew nothing before: it sees a contact who sleeps in storage as it sees one
/// who waits in memory, whether or not his shard has heard of the sessions that there are.
#[test]
fn who_logs_in_after_a_crash_sees_contacts_who_sleep_in_storage() {
    for seed in 0..12 {
        let mut world = world(seed, 1 + seed as u16 % 3);
        for contact in ["bob@example.org", "carl@example.org"] {
            world.befriend("alice@example.org", contact);
        }
        let (client, _) = world.log_in_managed("bob@example.org/1");
        world.tell(client, "<presence/>");
        let (carl, _) = world.log_in_managed("carl@example.org/1");
        world.tell(carl, "<presence/><presence type='unavailable'/>");
        world.crash();
        if seed % 2 == 0 {
            world.run();
        }
        let alice = world.arrive("alice@example.org/new");
        world.run_for(1_000);
        let seen = told(&mut world, alice, "bob");
        assert_eq!(
            seen,
            [("bob@example.org/1".to_owned(), String::new())],
            "seed {seed}"
        );
        world.run_for(301_000);
        let gone = told(&mut world, alice, "bob");
        assert_eq!(gone.len(), 1, "seed {seed}: {gone:?}");
        assert_eq!(gone[0].1, "unavailable");
    }
}

/// How many contacts who sleep in storage a new client sees after so many milliseconds, where so
/// many probes of those may wait.
fn seen_after(ms: u64, probes_max: usize) -> usize {
    let mut settings = Settings::for_tests("example.org");
    settings.shards = 1;
    settings.limits.early_refreshes_max = probes_max;
    let mut world = World::new(1, settings, Faults::calm());
    world.add_account("alice@example.org", "secret");
    for index in 0..FRIENDS {
        let contact = format!("friend{index}@example.org");
        world.add_account(&contact, "secret");
        world.befriend("alice@example.org", &contact);
        let (client, _) = world.log_in_managed(&format!("{contact}/1"));
        world.tell(client, "<presence/>");
    }
    world.crash();
    world.run();
    let alice = world.arrive("alice@example.org/new");
    world.run_for(ms);
    told(&mut world, alice, "friend").len()
}

/// One account is woken after another, and so many may wait for that.
#[test]
fn who_logs_in_wakes_contacts_one_after_another() {
    let long = FRIENDS as u64 * PROBE_WAKE_MS * 10;
    assert_eq!(seen_after(long, FRIENDS), FRIENDS);
    let early = seen_after(2 * PROBE_WAKE_MS, FRIENDS);
    assert!((1..FRIENDS).contains(&early), "{early}");
    assert_eq!(seen_after(long, 3), 3);
}
