//! Probes of contacts whose sessions sleep in storage after a crash.

use sim::{Faults, World};
use xmpp::Settings;
use xmpp::probes::PROBE_WAKE_MS;

/// Contacts who sleep.
const FRIENDS: usize = 10;

/// Whoever logs in anew knew nothing before: it sees a contact who sleeps in storage as it sees one
/// who waits in memory, whether or not his shard has heard of the sessions that there are.
#[test]
fn who_logs_in_after_a_crash_sees_contacts_who_sleep_in_storage() {
    for seed in 0..12 {
        let mut world = World::of_three(seed, 1 + seed as u16 % 3);
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
        let seen = world.told_presence(alice, "bob");
        assert_eq!(
            seen,
            [("bob@example.org/1".to_owned(), String::new())],
            "seed {seed}"
        );
        world.run_for(301_000);
        let gone = world.told_presence(alice, "bob");
        assert_eq!(gone.len(), 1, "seed {seed}: {gone:?}");
        assert_eq!(gone[0].1, "unavailable");
    }
}

/// A world in which all friends of `alice`'s sleep in storage, and so many probes may wait.
fn asleep(probes_max: usize) -> World {
    let mut settings = Settings::for_tests("example.org");
    settings.shards = 1;
    settings.limits.early_refreshes_max = probes_max;
    let mut world = World::new(1, settings, Faults::calm());
    for name in ["alice", "carl"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    for index in 0..FRIENDS {
        let contact = format!("friend{index}@example.org");
        world.add_account(&contact, "secret");
        world.befriend("alice@example.org", &contact);
        let (client, _) = world.log_in_managed(&format!("{contact}/1"));
        world.tell(client, "<presence/>");
    }
    world.befriend("carl@example.org", "friend7@example.org");
    world.crash();
    world.run();
    world
}

/// Milliseconds in which all of them are woken.
const LONG_MS: u64 = FRIENDS as u64 * PROBE_WAKE_MS * 10;

/// How many contacts who sleep in storage a new client sees after so many milliseconds.
fn seen_after(ms: u64, probes_max: usize) -> usize {
    let mut world = asleep(probes_max);
    let alice = world.arrive("alice@example.org/new");
    world.run_for(ms);
    world.told_presence(alice, "friend").len()
}

/// Who comes and goes has each contact probed once, and so leaves the others their place.
#[test]
fn who_comes_and_goes_takes_nobodys_place() {
    let mut world = asleep(FRIENDS + 1);
    let alice = world.arrive("alice@example.org/new");
    for _ in 0..9 {
        world.tell(alice, "<presence type='unavailable'/><presence/>");
    }
    let carl = world.arrive("carl@example.org/new");
    world.run_for(LONG_MS);
    assert_eq!(world.told_presence(carl, "friend").len(), 1);
}

/// One account is woken after another, and so many may wait for that.
#[test]
fn who_logs_in_wakes_contacts_one_after_another() {
    assert_eq!(seen_after(LONG_MS, FRIENDS), FRIENDS);
    let early = seen_after(2 * PROBE_WAKE_MS, FRIENDS);
    assert!((1..FRIENDS).contains(&early), "{early}");
    assert_eq!(seen_after(LONG_MS, 3), 3);
}
