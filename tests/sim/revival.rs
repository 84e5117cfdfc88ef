//! What comes, and comes once, after a crash that sessions survive: case by case, where
//! `promise.rs` and `faults.rs` play many at random.

use sim::steps::{counted, errors, message, messages};
use sim::{ClientId, Element, Faults, World};
use stanza::jid::BareJid;
use xmpp::Settings;
use xmpp::limit::LOAD_QUEUE_MAX;
use xmpp::port::{StoreOp, StoreReply};
use xmpp::settings::Durability;

const REQUEST: &str = "<r xmlns='urn:xmpp:sm:3'/>";

/// All are sent again as they were, and some say the same as others, down to the id.
#[test]
fn what_repeats_an_id_and_is_sent_again_comes_no_more_often_than_before() {
    for ids in ["aba", "aab", "aaa", "abab", "abba", "abcabca"] {
        for shards in [1, 2] {
            let mut world = World::of_three(1, shards);
            let (alice, alices) = world.log_in_managed("alice@example.org/x");
            let (bob, bobs) = world.log_in_managed("bob@example.org/x");
            world.tell(bob, "<presence/>");
            let before = counted(&world.received(bob));
            let ids: Vec<String> = ids.chars().map(String::from).collect();
            let said = ids.iter().map(|id| message("chat", "bob@example.org", id));
            let said: Vec<String> = said.collect();
            world.tell(alice, &said.concat());
            let received = world.received(bob);
            assert_eq!(messages(&received), ids);
            world.crash();
            let alice = world.resume("alice@example.org/x", &alices, 0);
            assert_eq!(world.client(alice).resumed, Some(0));
            let bob = world.resume("bob@example.org/x", &bobs, before + counted(&received));
            world.tell(alice, &said.concat());
            world.tell(alice, &message("chat", "bob@example.org", "new"));
            assert_eq!(messages(&world.received(bob)), ["new"], "{ids:?}");
        }
    }
}

/// Storage refuses so many messages to one receiver, and takes the next one: each comes or
/// bounces, although the errors are lost with the process.
#[test]
fn what_storage_refused_is_not_taken_for_done_however_much_it_was() {
    for refused in [1, 100, 300] {
        let mut world = World::of_three(refused, 1);
        let (alice, session) = world.log_in_managed("alice@example.org/x");
        let say = |world: &mut World, alice: ClientId, number: u64| {
            let id = format!("m{number}");
            world.send(alice, &message("chat", "bob@example.org", &id));
        };
        world.set_reading(alice, false);
        world.faults.disk_full = true;
        for number in 1..=refused {
            say(&mut world, alice, number);
        }
        world.run();
        world.faults.disk_full = false;
        say(&mut world, alice, refused + 1);
        world.run();
        world.crash();
        world.run();
        let alice = world.resume("alice@example.org/x", &session, 0);
        let handled = world.client(alice).resumed.expect("it survives");
        for number in u64::from(handled) + 1..=refused + 1 {
            say(&mut world, alice, number);
        }
        world.run();
        let errors = errors(&world.received(alice)).len() as u64;
        let bob = world.arrive("bob@example.org/x");
        let received = world.received(bob);
        let came = received.iter().filter(|it| it.name == "message").count() as u64;
        assert!(
            came + errors > refused,
            "{came} came and {errors} bounced of {refused} that were refused and one that was not"
        );
    }
}

/// A message that bounces, and one behind it that is stored: whenever the process dies, the client
/// has the error, or sends the message again and then has it.
#[test]
fn an_error_is_not_covered_by_what_is_stored_behind_it() {
    let unwanted = [
        message("normal", "TO@example.org/gone", "m1"),
        message("groupchat", "TO@example.org", "m1"),
    ];
    for (seed, unwanted) in (1..=20).flat_map(|seed| unwanted.iter().map(move |it| (seed, it))) {
        for moment_us in (0..1_200).step_by(20) {
            let mut world = World::of_three(seed, 2);
            let (alice, session) = world.log_in_managed("alice@example.org/x");
            let to = if seed % 2 == 0 { "bob" } else { "carl" };
            let stanzas = [
                unwanted.replace("TO", to),
                message("chat", &format!("{to}@example.org"), "m2"),
            ];
            world.send(alice, &stanzas.concat());
            world.run_until(world.now() + moment_us);
            world.crash();
            world.run();
            let mut received = world.received(alice);
            let alice = world.resume("alice@example.org/x", &session, counted(&received));
            let handled = world.client(alice).resumed.expect("it survives");
            for stanza in stanzas.iter().skip(handled as usize) {
                world.send(alice, stanza);
            }
            world.run();
            world.send(alice, REQUEST);
            world.run();
            received.extend(world.received(alice));
            assert!(
                !errors(&received).is_empty(),
                "seed {seed}, after {moment_us} us: the error of {unwanted} is lost"
            );
        }
    }
}

/// Two sessions of an account survive. What is said to them before their clients are back is
/// theirs, as if only their connections were lost: chat at each that takes it, what is for one of
/// them at that one, whatever the type, and none of it twice.
#[test]
fn sessions_of_the_last_process_get_what_is_said_before_their_clients_are_back() {
    for seed in 0..40 {
        let mut world = World::of_three(seed, 1 + seed as u16 % 3);
        let name = if seed % 2 == 0 { "bob" } else { "carl" };
        let bare = format!("{name}@example.org");
        let [first, second] = ["1", "2"].map(|it| format!("{bare}/{it}"));
        let (alice, alices) = world.log_in_managed("alice@example.org/x");
        let [(one, ones), (two, twos)] = [&first, &second].map(|it| world.log_in_managed(it));
        for bob in [one, two] {
            world.send(bob, "<presence/>");
        }
        world.run();
        world.send(alice, &message("chat", &bare, "before"));
        world.run();
        // Both count more than storage knows of.
        let counts = [one, two].map(|bob| {
            let received = world.received(bob);
            assert_eq!(messages(&received), ["before"]);
            counted(&received)
        });
        world.crash();
        world.run();
        let alice = world.resume("alice@example.org/x", &alices, 0);
        let said = [
            ("chat", &bare, "a"),
            ("normal", &first, "b"),
            ("chat", &second, "c"),
            ("normal", &second, "d"),
            ("normal", &bare, "e"),
        ];
        if world.client(alice).resumed == Some(0) {
            world.send(alice, &message("chat", &bare, "before"));
        }
        for (type_, to, id) in said {
            world.send(alice, &message(type_, to, id));
        }
        world.run();
        assert_eq!(errors(&world.received(alice)), []);
        // It does not go for good with another crash.
        if seed % 4 > 1 {
            world.crash();
            world.run();
        }
        let one = world.resume(&first, &ones, counts[0]);
        let two = world.resume(&second, &twos, counts[1]);
        assert_eq!(messages(&world.received(one)), ["a", "b", "e"]);
        assert_eq!(messages(&world.received(two)), ["a", "c", "d", "e"]);
        // Counting goes on from there.
        for (bob, count) in [(one, counts[0] + 3), (two, counts[1] + 4)] {
            world.send(bob, &format!("<a xmlns='urn:xmpp:sm:3' h='{count}'/>"));
            world.run();
            assert!(world.client(bob).stream_error.is_none());
        }
    }
}

/// Nobody comes back to a session that took messages before its client was: they wait for the next.
#[test]
fn what_a_session_of_the_last_process_took_is_passed_on_when_its_time_is_over() {
    let mut world = World::of_three(7, 1);
    let (alice, _) = world.log_in_managed("alice@example.org/x");
    let (bob, _) = world.log_in_managed("bob@example.org/1");
    world.send(bob, "<presence/>");
    world.run();
    world.crash();
    world.run();
    assert!(world.client(alice).resumed.is_none());
    let alice = world.arrive("alice@example.org/y");
    world.send(alice, &message("normal", "bob@example.org/1", "a"));
    world.run();
    world.run_for(601_000);
    assert_eq!(errors(&world.received(alice)), []);
    let bob = world.arrive("bob@example.org/2");
    assert_eq!(messages(&world.received(bob)), ["a"]);
}

/// The sessions of the last process end one after another: whenever during that a message comes for
/// one of them, what the session had comes before it.
#[test]
fn what_comes_while_sessions_end_does_not_overtake_what_they_had() {
    for (seed, delay_ms) in (1..).zip((1_500..4_000).step_by(50)) {
        let mut world = World::of_three(seed, 1);
        for number in 0..5 {
            let name = format!("a{number}@example.org");
            world.add_account(&name, "secret");
            let (client, _) = world.log_in_managed(&format!("{name}/x"));
            world.tell(client, "<presence/>");
        }
        let alice = world.log_in("alice@example.org/x");
        for resource in ["1", "2"] {
            let (bob, _) = world.log_in_managed(&format!("bob@example.org/{resource}"));
            world.tell(bob, "<presence/>");
            world.vanish(bob);
        }
        world.tell(alice, &message("chat", "bob@example.org", "m1"));
        world.crash();
        world.run();
        let alice = world.log_in("alice@example.org/x");
        world.run_for(298_000);
        world.faults.disk_us = (100_000, 100_000);
        world.run_for(delay_ms);
        world.send(alice, &message("chat", "bob@example.org", "m2"));
        world.run_for(400_000);
        let bob = world.arrive("bob@example.org/3");
        let received = world.received(bob);
        assert_eq!(messages(&received), ["m1", "m2"], "after {delay_ms} ms");
    }
}

/// The administrator gives sessions that survive up: what they hold waits for whoever comes, once,
/// and nothing of them is left for a later process that would have taken them up.
#[test]
fn sessions_end_at_once_in_a_mode_that_keeps_none_and_what_they_hold_waits() {
    for (seed, durability) in [Durability::Archive, Durability::Memory]
        .into_iter()
        .enumerate()
    {
        for resource in ["1", "2"] {
            let mut world = World::of_three(seed as u64, 1 + seed as u16);
            let alice = world.arrive("alice@example.org/x");
            let (bob, session) = world.log_in_managed("bob@example.org/1");
            world.tell(bob, "<presence/>");
            world.tell(alice, &message("chat", "bob@example.org", "a"));
            world.tell(alice, &message("normal", "bob@example.org/1", "b"));
            assert_eq!(messages(&world.received(bob)), ["a", "b"]);
            world.set_durability(durability);
            world.crash();
            world.run_for(1_000);
            let bob = world.resume("bob@example.org/1", &session, 0);
            assert_eq!(world.client(bob).resumed, None, "{durability:?}");
            let bob = world.arrive(&format!("bob@example.org/{resource}"));
            assert_eq!(messages(&world.received(bob)), ["a", "b"], "{durability:?}");
            world.set_durability(Durability::Full);
            world.crash();
            world.run_for(700_000);
            let bob = world.arrive("bob@example.org/3");
            assert_eq!(messages(&world.received(bob)), [""; 0], "{durability:?}");
        }
    }
}

/// What becomes of a session that has a message which another has, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Acknowledged before the crash; nobody comes back.
    Acked,
    /// Acknowledged, then ended, before the crash.
    AckedAndEnded,
    /// Ended before the crash with nothing acknowledged.
    Ended,
    /// Nobody comes back.
    Left,
    /// Its client comes back and has counted the message.
    Had,
    /// Its client comes back and has not.
    Lacked,
}

const FATES: [Fate; 6] = [
    Fate::Acked,
    Fate::AckedAndEnded,
    Fate::Ended,
    Fate::Left,
    Fate::Had,
    Fate::Lacked,
];

/// A crash between does not make a message that several sessions were given come to anybody twice,
/// or vanish: it is passed on where no client had it, by the last session that ends.
#[test]
fn what_several_sessions_were_given_is_passed_on_over_a_crash_where_nobody_had_it() {
    for (index, first) in FATES.into_iter().enumerate() {
        for second in FATES {
            for has_unmanaged in [false, true] {
                for shards in [1, 2] {
                    share(index as u64, shards, [first, second], has_unmanaged);
                }
            }
        }
    }
}

fn share(seed: u64, shards: u16, fates: [Fate; 2], has_unmanaged: bool) {
    let mut world = World::of_three(seed, shards);
    let alice = world.arrive("alice@example.org/x");
    let names = ["bob@example.org/1", "bob@example.org/2"];
    let bobs = names.map(|name| world.log_in_managed(name));
    for (bob, _) in &bobs {
        world.tell(*bob, "<presence/>");
    }
    if has_unmanaged {
        world.arrive("bob@example.org/0");
    }
    let before = bobs.clone().map(|(bob, _)| counted(&world.received(bob)));
    world.tell(alice, &message("chat", "bob@example.org", "m"));
    for (index, (bob, _)) in bobs.iter().enumerate() {
        assert_eq!(messages(&world.received(*bob)), ["m"]);
        if matches!(fates[index], Fate::Acked | Fate::AckedAndEnded) {
            let h = before[index] + 1;
            world.tell(*bob, &format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
        }
        if matches!(fates[index], Fate::Ended | Fate::AckedAndEnded) {
            // What is sent behind the message is not acknowledged either.
            world.tell(*bob, "</stream:stream>");
        }
    }
    world.crash();
    world.arrive("alice@example.org/x");
    for (index, (_, session)) in bobs.iter().enumerate() {
        let (h, expected): (u32, &[&str]) = match fates[index] {
            Fate::Had => (before[index] + 1, &[]),
            Fate::Lacked => (before[index], &["m"]),
            _ => continue,
        };
        let bob = world.resume(names[index], session, h);
        assert_eq!(messages(&world.received(bob)), expected, "{fates:?}");
    }
    world.run_for(700_000);
    let had = |fate: &Fate| !matches!(fate, Fate::Ended | Fate::Left);
    let expected = usize::from(!has_unmanaged && !fates.iter().any(had));
    let other = world.arrive("bob@example.org/3");
    let came = messages(&world.received(other)).len();
    assert_eq!(came, expected, "{fates:?}, unmanaged: {has_unmanaged}");
}

/// What storage refused is taken after a crash, behind what came later. Another crash knows both.
#[test]
fn what_is_taken_late_does_not_bring_again_what_was_taken_before_it() {
    for (seed, shards) in [(1, 1), (2, 2), (3, 3)] {
        let mut world = World::of_three(seed, shards);
        let (mut alice, alices) = world.log_in_managed("alice@example.org/x");
        let (mut bob, bobs) = world.log_in_managed("bob@example.org/1");
        world.tell(bob, "<presence/>");
        let said = ["m1", "m2", "m3"].map(|id| message("chat", "bob@example.org", id));
        world.faults.disk_full = true;
        world.tell(alice, &said[0]);
        world.faults.disk_full = false;
        world.tell(alice, &said[1..].concat());
        let (mut heard, mut had) = (Vec::new(), 0);
        let mut alices_h = 0;
        for _ in 0..3 {
            let received = world.received(bob);
            heard.extend(messages(&received).into_iter().map(str::to_owned));
            had += counted(&received);
            alices_h += counted(&world.received(alice));
            world.crash();
            world.run();
            bob = world.resume("bob@example.org/1", &bobs, had);
            alice = world.resume("alice@example.org/x", &alices, alices_h);
            let handled = world.client(alice).resumed.expect("it survives");
            world.tell(alice, &said[handled as usize..].concat());
        }
        assert_eq!(heard, ["m2", "m3", "m1"], "{shards} shards");
    }
}

/// Sessions are read after their account; what comes then counts with what came before.
#[test]
fn what_waits_for_sessions_to_be_read_has_the_limit_of_an_account_that_loads() {
    let mut world = World::of_three(3, 1);
    let (bob, _) = world.log_in_managed("bob@example.org/1");
    world.tell(bob, "<presence/>");
    world.crash();
    world.run();
    let alice = world.log_in("alice@example.org/x");
    world.faults.disk_us = (2_000_000, 2_000_000);
    for part in 0..2 {
        for id in 0..LOAD_QUEUE_MAX / 2 + 1 {
            let text = message("chat", "bob@example.org/1", &format!("{part}-{id}"));
            world.send(alice, &text);
        }
        world.run_for(6_000);
    }
    let bounced = [
        ("1-511", "resource-constraint"),
        ("1-512", "resource-constraint"),
    ];
    assert_eq!(errors(&world.received(alice)), bounced);
}

/// Whose session survived is not said to be gone before it is, and who was not available, whatever
/// his contact last heard, is said to be so when his session is back or ends.
#[test]
fn a_contact_who_sleeps_in_storage_is_not_gone_before_his_session_is() {
    for seed in 0..36 {
        let mut world = World::of_three(seed, 1 + seed as u16 % 3);
        let (is_available, fate) = (seed / 3 % 2 == 0, seed / 6 % 3);
        let bob = if seed / 18 == 0 { "bob" } else { "carl" };
        let bob = format!("{bob}@example.org");
        let full = format!("{bob}/1");
        world.befriend("alice@example.org", &bob);
        let (alice, alices) = world.log_in_managed("alice@example.org/x");
        world.tell(alice, "<presence/>");
        let (client, bobs) = world.log_in_managed(&full);
        world.tell(client, "<presence/>");
        if !is_available {
            world.tell(client, "<presence type='unavailable'/>");
        }
        let counts = [alice, client].map(|client| counted(&world.received(client)));
        world.crash();
        let alice = world.resume("alice@example.org/x", &alices, counts[0]);
        assert_eq!(world.told_presence(alice, &bob), [], "seed {seed}");
        match fate {
            0 => drop(world.resume(&full, &bobs, counts[1])),
            // The resource without the session, and not available.
            1 => drop(world.log_in(&full)),
            _ => world.run_for(301_000),
        }
        let type_ = match is_available && fate == 0 {
            true => "",
            false => "unavailable",
        };
        let expected = (full, type_.to_owned());
        assert_eq!(world.told_presence(alice, &bob), [expected], "seed {seed}");
    }
}

/// A contact without a session that could come back is said to be gone at once, whether or not his
/// shard has heard of the sessions that there are.
#[test]
fn a_contact_whose_session_went_with_the_process_is_gone_when_it_is_asked_for() {
    for seed in 0..12 {
        let mut world = World::of_three(seed, 1 + seed as u16 % 3);
        let contacts = ["bob@example.org", "carl@example.org"];
        for contact in contacts {
            world.befriend("alice@example.org", contact);
            world.arrive(&format!("{contact}/1"));
        }
        let (alice, session) = world.log_in_managed("alice@example.org/x");
        world.tell(alice, "<presence/>");
        let had = counted(&world.received(alice));
        world.crash();
        let alice = world.resume("alice@example.org/x", &session, had);
        let mut told = world.told_presence(alice, "");
        told.retain(|(from, _)| !from.starts_with("alice"));
        told.sort();
        let gone = contacts.map(|contact| (contact.to_owned(), "unavailable".to_owned()));
        assert_eq!(told, gone, "seed {seed}");
    }
}

const FRIENDS: usize = 10;

/// Of how many contacts who sleep in storage a client is told, where so many refreshes may wait.
fn told_too_early(seed: u64, early_refreshes_max: usize) -> usize {
    let mut settings = Settings {
        shards: 2,
        ..Settings::for_tests("example.org")
    };
    settings.limits.early_refreshes_max = early_refreshes_max;
    let mut world = World::new(seed, settings, Faults::calm());
    world.add_account("alice@example.org", "secret");
    for index in 0..FRIENDS {
        let contact = format!("friend{index}@example.org");
        world.add_account(&contact, "secret");
        world.befriend("alice@example.org", &contact);
        let (client, _) = world.log_in_managed(&format!("{contact}/1"));
        world.tell(client, "<presence/>");
    }
    let (alice, session) = world.log_in_managed("alice@example.org/x");
    world.tell(alice, "<presence/>");
    let had = counted(&world.received(alice));
    world.crash();
    let alice = world.resume("alice@example.org/x", &session, had);
    world.told_presence(alice, "friend").len()
}

/// A shard that does not know yet who sleeps has so many wait for that, and no more.
#[test]
fn refreshes_that_come_before_a_shard_knows_its_sessions_are_bounded() {
    let told = |limit| {
        (0..8)
            .map(|seed| told_too_early(seed, limit))
            .collect::<Vec<_>>()
    };
    assert_eq!(told(FRIENDS), [0; 8]);
    let [none, one] = [told(0), told(1)];
    assert!(one.iter().any(|count| *count > 0), "{one:?}");
    for (none, one) in none.iter().zip(&one) {
        assert_eq!(none.saturating_sub(1), *one);
    }
}

/// What waits is put into the queue of a session as it comes back, and another crash comes before
/// its client has counted it.
#[test]
fn what_is_claimed_while_a_session_comes_back_survives_another_crash() {
    for (crashes, shards) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        for presence in ["", "<presence type='unavailable'/>"] {
            let mut world = World::of_three(5, shards);
            let alice = world.arrive("alice@example.org/x");
            let (bob, session) = world.log_in_managed("bob@example.org/1");
            if !presence.is_empty() {
                world.tell(bob, presence);
            }
            world.tell(alice, &message("chat", "bob@example.org", "m"));
            let had = counted(&world.received(bob));
            for _ in 0..crashes {
                world.crash();
                world.run();
                let bob = world.resume("bob@example.org/1", &session, had);
                assert_eq!(messages(&world.received(bob)), ["m"]);
            }
            // Now it counts.
            world.crash();
            world.run();
            let bob = world.resume("bob@example.org/1", &session, had);
            let received = world.received(bob);
            assert_eq!(
                messages(&received),
                ["m"],
                "{crashes} crashes, {shards} shards"
            );
            let had = had + counted(&received);
            world.crash();
            world.run();
            let bob = world.resume("bob@example.org/1", &session, had);
            assert_eq!(messages(&world.received(bob)), [""; 0]);
        }
    }
}

/// A message waits for bob: he asks for what waits, behind a message of whom he blocks by then, or
/// for his session after a crash. The process dies so long after that, and he resumes by what he
/// has counted: how often he has the message.
fn copies_of_what_waited(seed: u64, moment_us: u64, is_behind_blocked: bool) -> usize {
    const BOB: &str = "bob@example.org/1";
    let mut world = World::of_three(seed, 1);
    let alice = world.log_in("alice@example.org/x");
    let carl = world.log_in("carl@example.org/x");
    if is_behind_blocked {
        world.tell(carl, &message("chat", "bob@example.org", "c"));
        // As where the process died right behind the block: else the message is gone by now.
        let op = StoreOp::SetBlocked {
            account: BareJid::from_prepared("bob@example.org"),
            blocked: vec!["carl@example.org".into()],
        };
        assert_eq!(world.perform(op), StoreReply::Done);
    }
    let (mut bob, session) = world.log_in_managed(BOB);
    world.tell(alice, &message("chat", "bob@example.org", "m"));
    let mut received = world.received(bob);
    if !is_behind_blocked {
        world.crash();
        world.run();
    }
    world.faults.disk_us = (100_000, 100_000);
    match is_behind_blocked {
        true => world.send(bob, "<presence/>"),
        false => bob = world.ask_for(BOB, &session, counted(&received)),
    }
    world.run_until(world.now() + moment_us);
    world.crash();
    world.run();
    received.extend(world.received(bob));
    let bob = world.resume(BOB, &session, counted(&received));
    assert!(world.client(bob).resumed.is_some(), "it survives");
    world.tell(bob, "<presence/>");
    received.extend(world.received(bob));
    messages(&received).iter().filter(|id| **id == "m").count()
}

/// Storage is slow with the numbers of what it has put into a session's queue: nothing of that is
/// written before.
#[test]
fn what_waited_comes_once_whenever_the_process_dies_meanwhile() {
    for is_behind_blocked in [false, true] {
        for seed in 1..=5 {
            for moment_us in (0..1_200_000).step_by(20_000) {
                let copies = copies_of_what_waited(seed, moment_us, is_behind_blocked);
                assert_eq!(
                    copies, 1,
                    "seed {seed}, after {moment_us} us, behind one that is blocked: \
                     {is_behind_blocked}"
                );
            }
        }
    }
}

/// A message bounces while another one for its sender is on its way to storage, which holds the
/// error up: whenever the process dies, the sender has it, or sends the message again.
#[test]
fn an_error_that_is_held_up_is_not_lost_behind_the_number_of_its_message() {
    let mut held_up = 0;
    for seed in 1..=4 {
        for moment_us in (0..60_000).step_by(500) {
            let mut world = World::of_three(seed, 2);
            let carl = world.log_in("carl@example.org/x");
            let (alice, session) = world.log_in_managed("alice@example.org/x");
            world.faults.disk_us = (10_000, 10_000);
            world.send(carl, &message("chat", "alice@example.org", "waits"));
            world.run_for(2);
            let unwanted = message("normal", "bob@example.org/gone", "m1");
            world.send(alice, &(unwanted.clone() + REQUEST));
            world.run_until(world.now() + moment_us);
            let mut received = world.received(alice);
            world.crash();
            world.run();
            world.faults.disk_us = (100, 100);
            let alice = world.resume("alice@example.org/x", &session, counted(&received));
            if world.client(alice).resumed.expect("it survives") == 0 {
                held_up += 1;
                world.send(alice, &unwanted);
            }
            world.run();
            received.extend(world.received(alice));
            let errors = errors(&received);
            assert!(!errors.is_empty(), "seed {seed}, after {moment_us} us");
        }
    }
    assert!(held_up > 20, "{held_up}");
}

/// The same of an error for what goes nowhere at all, whether or not what waits for its sender is
/// on its way meanwhile.
#[test]
fn the_error_for_a_message_that_goes_nowhere_is_not_lost_behind_its_number() {
    let block = "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'>\
                 <item jid='bob@example.org'/></block></iq>";
    let mut acknowledged = 0;
    for to in [
        "carol@remote.example",
        "example.org",
        "@@",
        "bob@example.org",
    ] {
        for (claims, presence) in ["", "<presence/>"].into_iter().enumerate() {
            for moment_us in (0..100_000).step_by(5_000) {
                let mut world = World::of_three(1, 1);
                let carl = world.log_in("carl@example.org/x");
                let (alice, session) = world.log_in_managed("alice@example.org/x");
                world.tell(carl, &message("chat", "alice@example.org", "waits"));
                world.tell(alice, block);
                let had = counted(&world.received(alice));
                world.faults.disk_us = (10_000, 10_000);
                let unwanted = message("chat", to, "m");
                world.send(alice, &format!("{presence}{unwanted}{REQUEST}"));
                world.run_until(world.now() + moment_us);
                let mut received = world.received(alice);
                world.crash();
                world.run();
                let alice = world.resume("alice@example.org/x", &session, had);
                if world.client(alice).resumed.expect("it survives") < 2 + claims as u32 {
                    world.send(alice, &unwanted);
                } else {
                    acknowledged += 1;
                }
                world.run();
                received.extend(world.received(alice));
                let has_error = errors(&received).iter().any(|it| it.0 == "m");
                assert!(has_error, "{to} after {moment_us} us, claims: {claims}");
            }
        }
    }
    assert!(acknowledged > 20, "{acknowledged}");
}

/// Where storage has no place for it meanwhile, its message is settled when the client has it.
#[test]
fn an_error_that_only_the_client_has_is_settled_when_it_acknowledges_it() {
    let mut world = World::of_three(1, 1);
    let carl = world.log_in("carl@example.org/x");
    let (alice, _) = world.log_in_managed("alice@example.org/x");
    world.tell(carl, &message("chat", "alice@example.org", "waits"));
    world.send(
        alice,
        &format!("<presence/>{}{REQUEST}", message("chat", "@@", "m")),
    );
    world.run();
    let mut received = world.received(alice);
    assert_eq!(errors(&received), [("m", "jid-malformed")]);
    let told = |received: &[Element]| {
        let answers = received.iter().filter(|it| it.name == "a");
        answers.map(|it| it.attr("h").to_owned()).next_back()
    };
    assert_eq!(told(&received).as_deref(), Some("0"));
    let h = counted(&received);
    world.tell(alice, &format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
    received = world.received(alice);
    assert_eq!(told(&received).as_deref(), Some("2"));
}

/// Who never was available stays unseen over a crash.
#[test]
fn nobody_hears_of_a_session_out_of_storage_that_never_was_available() {
    for shards in 1..=3 {
        let mut world = World::of_three(5, shards);
        world.befriend("alice@example.org", "bob@example.org");
        let alice = world.arrive("alice@example.org/x");
        let (_, session) = world.log_in_managed("bob@example.org/1");
        world.crash();
        world.run();
        assert!(world.client(alice).resumed.is_none());
        let alice = world.arrive("alice@example.org/x");
        world.resume("bob@example.org/1", &session, 0);
        assert_eq!(world.told_presence(alice, "bob@example.org"), []);
    }
}
