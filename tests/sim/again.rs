//! Errors that storage refused to keep: they are in storage as soon as it takes them, and what is
//! acknowledged behind that is.

use sim::steps::{counted, errors, message, messages};
use sim::{ClientId, Element, World};
use xmpp::again::ERRORS_MAX;

const REQUEST: &str = "<r xmlns='urn:xmpp:sm:3'/>";
const ALICE: &str = "alice@example.org/x";

/// A message to one of those who are away.
fn said(number: usize) -> String {
    let name = if number.is_multiple_of(2) {
        "bob"
    } else {
        "carl"
    };
    message("chat", &format!("{name}@example.org"), &number.to_string())
}

/// What a client was told last to be settled.
fn told(received: &[Element]) -> Option<&str> {
    let mut answers = received.iter().rev();
    answers.find(|it| it.name == "a").map(|it| it.attr("h"))
}

/// Alice, who says so much while the disk is full, asks what is settled and has errors of all.
fn alice_refused(world: &mut World, count: usize) -> (ClientId, String, Vec<Element>) {
    let (alice, session) = world.log_in_managed(ALICE);
    world.faults.disk_full = true;
    for number in 0..count {
        world.tell(alice, &said(number));
    }
    world.tell(alice, REQUEST);
    let received = world.received(alice);
    assert_eq!(errors(&received).len(), count);
    assert_eq!(told(&received), Some("0"));
    (alice, session, received)
}

fn refused(received: &[Element]) -> Vec<&str> {
    errors(received).into_iter().map(|(id, _)| id).collect()
}

/// Her client acknowledges nothing; a crash right behind the number takes no error.
#[test]
fn what_was_refused_on_a_full_disk_is_settled_as_soon_as_it_takes_the_errors() {
    for (seed, shards) in (0..20).map(|seed| (seed, 1 + seed as u16 % 2)) {
        for had in 0..=3 {
            let mut world = World::of_three(seed, shards);
            let (alice, session, _) = alice_refused(&mut world, 3);
            world.run_for(10_000);
            assert_eq!(told(&world.received(alice)), None, "the disk is full");
            world.faults.disk_full = false;
            let mut answer = None;
            for _ in 0..2_000 {
                world.run_for(1);
                answer = answer.or(told(&world.received(alice)).map(str::to_owned));
                if answer.is_some() {
                    break;
                }
            }
            assert_eq!(answer.as_deref(), Some("3"), "seed {seed}");
            world.crash();
            let alice = world.resume(ALICE, &session, had);
            assert_eq!(world.client(alice).resumed, Some(3));
            let rest = ["0", "1", "2"];
            let received = world.received(alice);
            assert_eq!(refused(&received), rest[had as usize..], "seed {seed}");
            // And once: they have their numbers after the crash, too.
            let had = had + counted(&received);
            world.crash();
            let alice = world.resume(ALICE, &session, had);
            assert_eq!(refused(&world.received(alice)), [""; 0], "seed {seed}");
        }
    }
}

/// Whenever the process dies, what is acknowledged is there, or its error is.
#[test]
fn a_crash_while_errors_are_stored_again_takes_none_that_is_acknowledged() {
    const COUNT: usize = 5;
    for (seed, moment_us) in
        (0..4).flat_map(|seed| (0..1_200).step_by(30).map(move |us| (seed, us)))
    {
        let mut world = World::of_three(seed, 1 + seed as u16 % 2);
        let (_, session, _) = alice_refused(&mut world, COUNT);
        let next = world.now() + 900_000;
        world.run_until(next);
        world.faults.disk_full = false;
        world.run_until(next + 99_000 + moment_us);
        world.crash();
        let alice = world.resume(ALICE, &session, 0);
        let handled = world.client(alice).resumed.expect("it survives") as usize;
        for number in handled..COUNT {
            world.send(alice, &said(number));
        }
        world.run();
        let mut seen: Vec<String> = Vec::new();
        seen.extend(
            refused(&world.received(alice))
                .into_iter()
                .map(String::from),
        );
        for name in ["bob", "carl"] {
            let client = world.arrive(&format!("{name}@example.org/x"));
            let received = world.received(client);
            seen.extend(messages(&received).into_iter().map(String::from));
        }
        for number in 0..COUNT {
            assert!(
                seen.contains(&number.to_string()),
                "seed {seed}, {moment_us} us: of {number} nothing is left of {handled} handled"
            );
        }
    }
}

/// What is stored before them stands behind them all the same.
#[test]
fn errors_that_are_stored_again_are_in_their_places() {
    for (seed, had) in (0..10).flat_map(|seed| (0..=4).map(move |had| (seed, had))) {
        let mut world = World::of_three(seed, 1 + seed as u16 % 2);
        let (alice, session, _) = alice_refused(&mut world, 2);
        world.faults.disk_full = false;
        let bob = world.log_in("bob@example.org/x");
        world.tell(bob, &message("chat", ALICE, "m"));
        world.faults.disk_full = true;
        world.tell(alice, &said(2));
        world.run_for(3_000);
        world.faults.disk_full = false;
        world.run_for(3_000);
        assert_eq!(told(&world.received(alice)), Some("3"));
        world.crash();
        let alice = world.resume(ALICE, &session, had);
        let all = ["0", "1", "m", "2"];
        assert_eq!(messages(&world.received(alice)), all[had as usize..]);
    }
}

/// Its client has one of them when storage does not, and acknowledges it.
#[test]
fn an_error_that_is_acknowledged_before_it_is_stored_is_gone() {
    for moment_us in (0..600).step_by(20) {
        let mut world = World::of_three(moment_us, 1);
        let (alice, session, _) = alice_refused(&mut world, 2);
        world.run_for(900);
        world.faults.disk_full = false;
        world.run_until(world.now() + 99_000 + moment_us);
        world.tell(alice, "<a xmlns='urn:xmpp:sm:3' h='1'/>");
        world.run_for(3_000);
        world.crash();
        let alice = world.resume(ALICE, &session, 1);
        assert_eq!(refused(&world.received(alice)), ["1"], "{moment_us} us");
    }
}

#[test]
fn only_so_many_errors_are_on_their_way_to_storage_at_once() {
    const COUNT: usize = 3 * ERRORS_MAX;
    let mut world = World::of_three(1, 1);
    let (alice, ..) = alice_refused(&mut world, COUNT);
    (world.asked.enqueues_peak, world.asked.copies) = (0, 0);
    world.run_for(10_000);
    assert_eq!(world.asked.enqueues_peak, ERRORS_MAX);
    assert!(world.asked.copies <= 11 * ERRORS_MAX, "once a second");
    world.faults.disk_full = false;
    world.run_for(1_500);
    assert_eq!(world.asked.enqueues_peak, ERRORS_MAX);
    let all = COUNT.to_string();
    assert_eq!(told(&world.received(alice)), Some(&*all));
}

/// While what waited is on its way into a queue nothing else gets a place there.
#[test]
fn an_error_that_comes_before_what_waited_is_stored_behind_it() {
    for seed in 0..10 {
        let mut world = World::of_three(seed, 1);
        let bob = world.log_in("bob@example.org/x");
        world.tell(bob, &message("chat", "alice@example.org", "m"));
        let (alice, session) = world.log_in_managed(ALICE);
        let unwanted = message("chat", "@", "e");
        world.tell(alice, &format!("<presence/>{unwanted}{REQUEST}"));
        let received = world.received(alice);
        assert_eq!(messages(&received), ["m", "e"]);
        assert_ne!(told(&received), Some("2"), "it was no place for it");
        let own = counted(&received) - 2;
        world.run_for(3_000);
        assert_eq!(told(&world.received(alice)), Some("2"), "seed {seed}");
        world.crash();
        let alice = world.resume(ALICE, &session, own);
        assert_eq!(messages(&world.received(alice)), ["m", "e"]);
    }
}
