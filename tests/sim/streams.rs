//! Streams in the simulated world: every way in, and who suffers when somebody does not read.

use sim::client::{Phase, Proof, Tls};
use sim::steps::{errors, homes, message, messages};
use sim::{ClientId, Faults, Login, Random, World};
use std::sync::mpsc::TryRecvError;
use xmpp::Settings;
use xmpp::limit::{Limits, PRESENCE_SIZE_MAX, REQUESTS_PER_SESSION_MAX};
use xmpp::settings::Durability;

fn settings(shards: u16) -> Settings {
    Settings {
        shards,
        ..Settings::for_tests("example.org")
    }
}

#[test]
fn every_mechanism_gets_in_with_and_without_tls_however_the_bytes_are_cut() {
    for seed in 1..=40 {
        for proof in [Proof::Plain, Proof::Scram, Proof::Anonymous] {
            for tls in [Tls::Never, Tls::Start, Tls::Direct] {
                let mut settings = settings(1 + (seed % 4) as u16);
                settings.tls_available = tls != Tls::Never;
                settings.tls_required = tls != Tls::Never;
                settings.plain_without_tls = tls == Tls::Never;
                let faults = Faults::rough(&mut Random::new(seed));
                let mut world = World::new(seed, settings, faults);
                world.add_account("alice@example.org", "pässword");
                let mut login = Login::new("alice@example.org/desk", "pässword");
                (login.proof, login.tls) = (proof, tls);
                let alice = world.connect(login);
                world.run();
                let client = world.client(alice);
                assert!(
                    client.is_online(),
                    "seed {seed} {proof:?} {tls:?}: {client:?}"
                );
                if proof != Proof::Anonymous {
                    assert_eq!(client.full, "alice@example.org/desk");
                }
                world.check_rest();
            }
        }
    }
}

#[test]
fn a_wrong_password_and_an_unknown_user_are_refused_alike() {
    for proof in [Proof::Plain, Proof::Scram] {
        let refusal = |user: &str, password: &str| {
            let mut world = World::new(1, settings(2), Faults::calm());
            world.add_account("alice@example.org", "secret");
            let mut login = Login::new(user, password);
            login.proof = proof;
            let client = world.connect(login);
            world.run();
            match &world.client(client).phase {
                Phase::Refused(why) => why.clone(),
                phase => panic!("{user} is {phase:?}"),
            }
        };
        assert_eq!(refusal("alice@example.org", "guess"), "not-authorized");
        assert_eq!(refusal("nobody@example.org", "guess"), "not-authorized");
    }
}

#[test]
fn plain_bytes_behind_starttls_are_never_read_as_if_they_were_protected() {
    for seed in 1..=50 {
        let mut settings = settings(1);
        settings.tls_available = true;
        let faults = Faults::rough(&mut Random::new(seed));
        let mut world = World::new(seed, settings, faults);
        world.add_account("alice@example.org", "secret");
        let attacker = world.connect_raw();
        let header = String::from_utf8(sim::client::header("example.org")).unwrap();
        // AGFsaWNlAHNlY3JldA== is alice's PLAIN; the answer to it would be <success/>.
        let injected = format!(
            "{header}<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>{header}<auth \
             xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGFsaWNlAHNlY3JldA==</auth>"
        );
        world.send(attacker, &injected);
        world.run();
        let received = world.received(attacker);
        let names: Vec<&str> = received
            .iter()
            .map(|element| element.name.as_str())
            .collect();
        // A cut may lose the last of it; nothing else may come.
        let harmless = ["stream", "features", "proceed"].starts_with(&names[..]);
        assert!(harmless, "seed {seed}: {names:?}");
    }
}

#[test]
fn everything_before_the_end_of_the_bytes_is_answered() {
    for seed in 1..=50 {
        let faults = Faults::rough(&mut Random::new(seed));
        let mut world = World::new(seed, settings(2), faults);
        world.add_account("alice@example.org", "secret");
        let alice = world.connect(Login::new("alice@example.org/desk", "secret"));
        world.run();
        // More than one turn's share, then nothing more.
        for index in 0..200 {
            let ping = format!("<iq type='get' id='{index}'><ping xmlns='urn:xmpp:ping'/></iq>");
            world.send(alice, &ping);
        }
        world.half_close(alice);
        world.run();
        let answers = world.received(alice);
        let ids: Vec<String> = answers
            .iter()
            .map(|answer| answer.attr("id").into())
            .collect();
        let wanted: Vec<String> = (0..200).map(|index: u32| index.to_string()).collect();
        assert_eq!(ids, wanted, "seed {seed}");
        assert!(world.client(alice).stream_closed && world.client(alice).ended);
        world.check_rest();
    }
}

/// A world in which bob does not read while alice writes to him and carol writes to dave.
struct Flood {
    world: World,
    alice: ClientId,
    bob: ClientId,
    carol: ClientId,
    dave: ClientId,
}

/// More than one turn writes for one client, which may be a sibling's 64 errors at once.
const UNSENT_MAX: usize = 96 << 10;
const BODY: usize = 1000;

fn flood(seed: u64) -> Flood {
    let mut faults = Faults::rough(&mut Random::new(seed));
    faults.window_bytes = 4 << 10;
    faults.unsent_max = UNSENT_MAX;
    faults.piece_bytes = (100, 1400);
    // Whoever reads is fast enough for what is sent.
    (faults.wire_us, faults.turn_us) = ((1, 50), (1, 20));
    let mut world = World::new(seed, settings(3), faults);
    let mut connect = |name: &str| {
        world.add_account(&format!("{name}@example.org"), "secret");
        let id = world.connect(Login::new(&format!("{name}@example.org/x"), "secret"));
        world.run();
        assert!(world.client(id).is_online());
        id
    };
    let [alice, bob, carol, dave] = ["alice", "bob", "carol", "dave"].map(&mut connect);
    world.set_reading(bob, false);
    for index in 0..100 {
        for (from, to) in [(alice, "bob"), (carol, "dave")] {
            let body = "x".repeat(BODY);
            let text = format!(
                "<message to='{to}@example.org/x' id='{index}'><body>{body}</body></message>"
            );
            world.send(from, &text);
        }
        let pause = 200 + seed % 7 * 300;
        world.run_until(world.now() + pause);
    }
    world.run();
    Flood {
        world,
        alice,
        bob,
        carol,
        dave,
    }
}

#[test]
fn a_client_that_does_not_read_is_cut_and_nobody_else_notices() {
    for seed in 1..=60 {
        let Flood {
            mut world,
            alice,
            bob,
            carol,
            dave,
        } = flood(seed);
        // What one turn may write for one client comes on top of the limit.
        let turn = 2 * 64 * (BODY + 200);
        let peak = world.unsent_peak();
        assert!(
            peak > UNSENT_MAX && peak <= UNSENT_MAX + turn,
            "seed {seed}: {peak} bytes"
        );
        assert!(world.client(bob).ended, "seed {seed}: bob was not cut");
        let got: Vec<String> = world
            .received(dave)
            .iter()
            .map(|m| m.attr("id").into())
            .collect();
        let all: Vec<String> = (0..100).map(|index: u32| index.to_string()).collect();
        assert_eq!(got, all, "seed {seed}: dave");
        assert!(world.client(carol).is_online() && world.client(alice).is_online());
        // The last messages found nobody: alice is told, once for each.
        let errors = world.received(alice);
        assert!(
            errors
                .iter()
                .all(|error| error.condition() == "service-unavailable")
        );
        assert_eq!(
            errors.last().map(|error| error.attr("id")),
            Some("99"),
            "seed {seed}"
        );
        world.check_rest();
    }
}

#[test]
fn who_is_silent_before_authentication_is_told_and_cut_at_the_deadline() {
    let mut world = World::new(3, settings(2), Faults::calm());
    world.add_account("alice@example.org", "secret");
    let alice = world.connect(Login::new("alice@example.org/desk", "secret"));
    let silent = world.connect_raw();
    let slow = world.connect_raw();
    world.send(
        slow,
        &String::from_utf8(sim::client::header("example.org")).unwrap(),
    );
    world.run_for(29_000);
    assert!(!world.client(silent).ended && !world.client(slow).ended);
    world.run_for(2_000);
    for id in [silent, slow] {
        assert!(world.client(id).ended);
        assert_eq!(
            world.client(id).stream_error.as_deref(),
            Some("connection-timeout")
        );
    }
    world.run_for(600_000);
    assert!(
        world.client(alice).is_online(),
        "a bound stream has no deadline"
    );
    world.check_rest();
}

#[test]
fn a_shutdown_tells_every_stream_and_leaves_nothing_behind() {
    for seed in 1..=50 {
        let mut random = Random::new(seed);
        let mut world = World::new(seed, settings(3), Faults::rough(&mut random));
        let mut clients = Vec::new();
        for index in 0..6 {
            let jid = format!("user{index}@example.org");
            world.add_account(&jid, "secret");
            clients.push(world.connect(Login::new(&format!("{jid}/x"), "secret")));
        }
        // In the middle of logins, of some at least.
        let pause = random.below(40_000);
        world.run_until(world.now() + pause);
        world.shut_down();
        world.run();
        for &client in &clients {
            let client = world.client(client);
            assert!(client.ended, "seed {seed}: {client:?}");
        }
        let told = clients
            .iter()
            .filter(|id| world.client(**id).stream_error.as_deref() == Some("system-shutdown"));
        assert_eq!(told.count(), clients.len(), "seed {seed}");
        for shard in world.shards() {
            assert_eq!(
                (shard.session_count(), shard.account_jids().count()),
                (0, 0)
            );
        }
        world.check_rest();
    }
}

#[test]
fn requests_before_a_session_have_the_shape_of_requests() {
    let settings = Settings::for_tests("example.org");
    let mut world = World::new(1, settings, Faults::calm());
    let register = |attributes: &str, more: &str| {
        format!(
            "<iq type='set' {attributes}><query xmlns='jabber:iq:register'><username>a</username>\
             <password>b</password></query>{more}</iq>"
        )
    };
    let client = world.connect_raw();
    world.send_bytes(client, &sim::client::header("example.org"));
    world.run();
    world.received(client);
    for (attributes, more, condition) in [
        ("", "", "bad-request"),
        ("id='1'", "<x xmlns='y'/>", "bad-request"),
        ("id='1' to='other.example'", "", "item-not-found"),
    ] {
        world.send(client, &register(attributes, more));
        world.run();
        let answer = world.received(client);
        assert_eq!(answer[0].condition(), condition, "{attributes} {more}");
    }
    world.send(client, &register("id='2' to='example.org'", ""));
    world.run();
    assert_eq!(world.received(client)[0].attr("type"), "result");
}

#[test]
fn a_server_to_server_stanza_is_none_of_a_clients() {
    let mut world = World::new(1, Settings::for_tests("example.org"), Faults::calm());
    world.add_account("alice@example.org", "secret");
    let alice = world.connect(Login::new("alice@example.org/x", "secret"));
    world.run();
    world.send(
        alice,
        "<s:message xmlns:s='jabber:server' to='alice@example.org'/>",
    );
    world.run();
    let error = world.client(alice).stream_error.as_deref();
    assert_eq!(error, Some("invalid-namespace"));
}

#[test]
fn a_thousand_logins_by_plain_hold_up_nobody() {
    const LOGINS: usize = 1_000;
    for shards in [1, 2] {
        let mut world = World::new(1, settings(shards), Faults::calm());
        for name in ["alice", "bob"] {
            world.add_account(&format!("{name}@example.org"), "secret");
        }
        for number in 0..LOGINS {
            world.add_account(&format!("p{number}@example.org"), "secret");
        }
        let [alice, bob] = ["alice@example.org/x", "bob@example.org/x"].map(|full| {
            let client = world.connect(Login::new(full, "secret"));
            world.run();
            client
        });
        // Each costs longer than all the talk that follows, wherever it is paid.
        world.faults.derive_us = (20_000_000, 20_000_000);
        let storm: Vec<ClientId> = (0..LOGINS)
            .map(|number| {
                let mut login = Login::new(&format!("p{number}@example.org/x"), "secret");
                login.proof = Proof::Plain;
                world.connect(login)
            })
            .collect();
        world.run_for(1_000);
        let online = |world: &World| {
            storm
                .iter()
                .filter(|id| world.client(**id).is_online())
                .count()
        };
        for number in 0..100 {
            let text = format!("<message to='bob@example.org/x' id='{number}'><body/></message>");
            world.send(alice, &text);
            world.run_for(1);
            let got = world.received(bob);
            assert_eq!(got.len(), 1, "message {number} with {shards} shards");
        }
        assert_eq!(online(&world), 0, "the storm outlasts the talk");
        world.run_for(25_000);
        // More than may wait for a derivation are told to come again.
        let is_refused = |id: &&ClientId| match &world.client(**id).phase {
            Phase::Refused(why) => why == "temporary-auth-failure",
            _ => false,
        };
        let refused = storm.iter().filter(is_refused).count();
        assert!(refused < LOGINS);
        assert_eq!(online(&world) + refused, LOGINS);
    }
}

#[test]
fn guessing_on_many_connections_at_once_is_no_faster() {
    let limits = Limits {
        auth_failures_per_minute_max: 3,
        ..Limits::default()
    };
    for proof in [Proof::Plain, Proof::Scram] {
        let settings = Settings {
            limits: limits.clone(),
            ..settings(2)
        };
        let mut world = World::new(11, settings, Faults::rough(&mut Random::new(11)));
        world.add_account("alice@example.org", "secret");
        let login = |number: u32, password: &str| {
            let mut login = Login::new(&format!("alice@example.org/{number}"), password);
            login.proof = proof;
            login
        };
        let guesses: Vec<ClientId> = (0..20)
            .map(|number| world.connect(login(number, "guess")))
            .collect();
        world.run();
        let refused = |why: &str| {
            let phases = guesses.iter().map(|id| &world.client(*id).phase);
            let same = phases.filter(|phase| matches!(phase, Phase::Refused(it) if it == why));
            same.count()
        };
        assert_eq!(refused("not-authorized"), 3, "{proof:?}");
        assert_eq!(refused("temporary-auth-failure"), 17, "{proof:?}");
        // As many devices as there may be failures come back at once all the same.
        world.run_for(61_000);
        let devices = [0, 1, 2].map(|number| world.connect(login(number, "secret")));
        world.run();
        let mut phases = devices.iter().map(|id| &world.client(*id).phase);
        assert!(
            phases.all(|phase| matches!(phase, Phase::Online)),
            "{proof:?}"
        );
    }
}

#[test]
fn guessing_passwords_from_one_network_is_refused_unexamined_after_a_while() {
    let limits = Limits {
        auth_failures_per_minute_max: 1,
        ..Limits::default()
    };
    let settings = Settings {
        limits,
        ..settings(2)
    };
    let mut world = World::new(3, settings, Faults::calm());
    world.add_account("alice@example.org", "secret");
    let mut log_in = |peer: &str, name: &str| {
        world.peer = peer.parse().unwrap();
        let id = world.connect(Login::new(&format!("{name}@example.org/x"), "secret"));
        world.run();
        world.client(id).is_online()
    };
    for number in 0..10 {
        let (peer, name) = (format!("2001:db8::{number}"), format!("nobody{number}"));
        assert!(!log_in(&peer, &name));
    }
    assert!(!log_in("2001:db8::a", "alice"));
    assert!(log_in("2001:db8:0:1::a", "alice"));
}

/// How many seconds the server says that it is up (XEP-0012).
fn uptime(world: &mut World) -> u64 {
    let alice = world.connect(Login::new("alice@example.org/x", "secret"));
    world.run();
    let query = "<query xmlns='jabber:iq:last'/>";
    world.send(
        alice,
        &format!("<iq type='get' to='example.org' id='1'>{query}</iq>"),
    );
    world.run();
    let answers = world.received(alice);
    let seconds = answers[0].children[0].attr("seconds").parse();
    seconds.expect("a number of seconds")
}

#[test]
fn a_server_is_up_since_it_started_not_since_somebody_came() {
    for shards in [1, 2] {
        let mut world = World::new(1, settings(shards), Faults::calm());
        world.add_account("alice@example.org", "secret");
        for hours in [1, 2] {
            world.run_for(3_600_000);
            let seconds = uptime(&mut world);
            assert!((3_600..3_610).contains(&(seconds / hours)), "{seconds} s");
        }
        world.crash();
        world.run_for(100_000);
        let seconds = uptime(&mut world);
        assert!((100..110).contains(&seconds), "{seconds} s after a crash");
    }
}

/// A client that gets what it asks for, however much that is.
fn managed_with_roster(world: &mut World, items: usize, group: &str) -> ClientId {
    world.faults.unsent_max = 1 << 30;
    world.add_account("alice@example.org", "secret");
    let alice = world.connect(Login::new("alice@example.org/x", "secret"));
    world.run();
    for index in 0..items {
        let item = format!("<item jid='c{index}@example.org'><group>{group}</group></item>");
        let query = format!("<query xmlns='jabber:iq:roster'>{item}</query>");
        world.send(alice, &format!("<iq type='set' id='s'>{query}</iq>"));
    }
    world.run();
    world.send(alice, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    world.run();
    world.received(alice);
    alice
}

#[test]
fn a_turn_writes_for_a_client_little_more_than_its_largest_answer() {
    const REQUESTS: usize = 16;
    const ROSTER: &str = "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>";
    let mut world = World::new(3, settings(1), Faults::calm());
    let alice = managed_with_roster(&mut world, 200, &"g".repeat(1_000));
    // All of them come at once.
    world.send(alice, &ROSTER.repeat(REQUESTS));
    world.run();
    let answers = world.received(alice);
    let answers = answers.iter().filter(|it| it.name == "iq").count();
    let (peak, size) = (world.output_peak(), 200 * 1_100);
    assert_eq!(answers, REQUESTS);
    assert!(peak < 2 * size, "{peak} bytes in a turn");
}

/// Behind a message that waits for storage the answers fill the queue and no output.
#[test]
fn a_turn_ends_for_who_has_filled_his_queue() {
    const REQUESTS: usize = 30;
    const ROSTER: &str = "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>";
    let mut world = World::new(3, settings(1), Faults::calm());
    let alice = managed_with_roster(&mut world, 200, &"g".repeat(1_000));
    world.add_account("bob@example.org", "secret");
    let bob = world.log_in("bob@example.org/x");
    world.faults.disk_us = (1_000_000, 1_000_000);
    let told = message("chat", "bob@example.org/x", "m");
    let own = message("chat", "alice@example.org/x", "m");
    world.send(
        alice,
        &(own + &(ROSTER.to_owned() + &told).repeat(REQUESTS)),
    );
    world.run_for(100);
    // 4 MiB and one roster more, of 220 kB each.
    let count = messages(&world.received(bob)).len();
    assert!((18..23).contains(&count), "{count} requests");
}

#[test]
fn a_turn_takes_so_many_bytes_of_a_client_and_one_element_more() {
    const SIZE: usize = 60_000;
    let mut world = World::new(3, settings(1), Faults::calm());
    for name in ["alice", "bob"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    let alice = world.log_in("alice@example.org/x");
    let bob = world.log_in("bob@example.org/x");
    world.faults.unsent_max = 64 << 20;
    let text = "x".repeat(SIZE);
    let message = format!("<message to='bob@example.org/x'><body>{text}</body></message>");
    world.send(alice, &message.repeat(20));
    world.run();
    assert_eq!(messages(&world.received(bob)).len(), 20);
    let peak = world.output_peak();
    assert!(peak < 3 * SIZE, "{peak} bytes in a turn");
}

/// Answers may be much longer than requests: they are waited for, whatever is to be read for them
/// and wherever, and where nothing is settled late, too.
#[test]
fn a_client_asks_an_account_for_so_much_at_once_and_gets_all_the_same() {
    const REQUESTS: usize = 200;
    for (home, durability, is_resident) in [
        (0, Durability::Full, true),
        (0, Durability::Full, false),
        (1, Durability::Full, true),
        (1, Durability::Full, false),
        (1, Durability::Memory, true),
        (1, Durability::Memory, false),
    ] {
        let settings = Settings {
            durability,
            ..settings(2)
        };
        let mut world = World::new(3, settings, Faults::calm());
        let own = homes(2, 0).next().expect("they do not end");
        let owner = homes(2, home).nth(1).expect("they do not end");
        for name in [&owner, &own] {
            world.add_account(name, "secret");
        }
        if is_resident {
            world.log_in(&format!("{owner}/x"));
        }
        let asker = world.log_in(&format!("{own}/x"));
        world.faults.disk_us = (1_000_000, 1_000_000);
        let request = "<vCard xmlns='vcard-temp'/>";
        let request = format!("<iq type='get' id='v' to='{owner}'>{request}</iq>");
        world.send(asker, &request.repeat(REQUESTS));
        world.run_for(100);
        let asked = world.shards().next().map(|shard| shard.request_count());
        let most = usize::from(REQUESTS_PER_SESSION_MAX);
        assert_eq!(asked, Some(most), "{home} {durability:?} {is_resident}");
        world.faults.disk_us = (50, 200);
        world.run();
        assert_eq!(world.received(asker).len(), REQUESTS);
        world.check_rest();
    }
}

/// A presence of a few bytes, or a probe, is answered by what contacts said at length.
#[test]
fn a_client_probes_so_many_of_another_shard_at_once_and_hears_of_all_the_same() {
    const CONTACTS: usize = 4;
    const ROUNDS: usize = 50;
    let status = "s".repeat(15 << 10);
    for by_presence in [false, true] {
        let mut world = World::new(3, settings(2), Faults::calm());
        world.faults.unsent_max = 64 << 20;
        let own = homes(2, 0).next().expect("they do not end");
        let contacts: Vec<String> = homes(2, 1).take(CONTACTS).collect();
        for name in contacts.iter().chain([&own]) {
            world.add_account(name, "secret");
        }
        for contact in &contacts {
            world.befriend(&own, contact);
            let client = world.log_in(&format!("{contact}/x"));
            let presence = format!("<presence><status>{status}</status></presence>");
            world.tell(client, &presence);
        }
        let asker = world.log_in(&format!("{own}/x"));
        let round = match by_presence {
            true => "<presence/><presence type='unavailable'/>".to_owned(),
            false => {
                let probe = |it: &String| format!("<presence to='{it}' type='probe'/>");
                contacts.iter().map(probe).collect()
            }
        };
        world.send(asker, &round.repeat(ROUNDS));
        let mut most = 0;
        let start = world.now();
        for step in 1..5_000 {
            world.run_until(start + step * 20);
            let under_way = world.shards().map(|shard| shard.request_count());
            most = most.max(under_way.sum::<usize>());
        }
        world.run();
        let received = world.received(asker);
        let answers = received.iter().filter(|it| it.child("status").is_some());
        assert_eq!(answers.count(), CONTACTS * ROUNDS, "{by_presence}");
        // Each is counted where it is asked and where it is answered.
        let may_be = 2 * (usize::from(REQUESTS_PER_SESSION_MAX) + CONTACTS);
        assert!((2..=may_be).contains(&most), "{by_presence}: {most}");
        world.check_rest();
    }
}

#[test]
fn a_presence_that_contacts_keep_asking_for_has_so_many_bytes() {
    let mut world = World::new(3, settings(2), Faults::calm());
    for name in ["alice", "bob"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    world.befriend("alice@example.org", "bob@example.org");
    let bob = world.arrive("bob@example.org/x");
    let alice = world.log_in("alice@example.org/x");
    let around = "<presence from='alice@example.org/x' to=''><status></status></presence>";
    let most = PRESENCE_SIZE_MAX - around.len();
    let (gone, refused) = (" type='unavailable'", Some("policy-violation"));
    // Who goes says no more than who comes, and is there until then.
    for (type_, size, condition) in [
        ("", most, None),
        ("", most + 1, refused),
        (gone, most - gone.len() + 1, refused),
        (gone, most - gone.len(), None),
    ] {
        world.received(bob);
        let status = "s".repeat(size);
        let presence = format!("<presence{type_}><status>{status}</status></presence>");
        world.tell(alice, &presence);
        let told = world.received(bob).len();
        assert_eq!(told, usize::from(condition.is_none()));
        let received = world.received(alice);
        let refused = errors(&received);
        assert_eq!(refused.first().map(|it| it.1), condition);
    }
    // Whom it is sent to alone does not keep it.
    let status = "s".repeat(PRESENCE_SIZE_MAX);
    let directed = format!("<presence to='bob@example.org/x'><status>{status}</status></presence>");
    world.tell(alice, &directed);
    assert_eq!(world.received(bob).len(), 1);
}

/// What one session does is pushed to others, who may acknowledge nothing.
#[test]
fn pushes_that_nobody_acknowledges_end_a_session() {
    const SETS: usize = 1_200;
    let mut world = World::new(3, settings(1), Faults::calm());
    let deaf = managed_with_roster(&mut world, 0, "");
    world.send(
        deaf,
        "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>",
    );
    world.run();
    let other = world.log_in("alice@example.org/y");
    let group = "g".repeat(900);
    let groups: String = (0..4)
        .map(|it| format!("<group>{group}{it}</group>"))
        .collect();
    for name in 0..SETS {
        let item = format!("<item jid='bob@example.org' name='{name}'>{groups}</item>");
        let query = format!("<query xmlns='jabber:iq:roster'>{item}</query>");
        world.send(other, &format!("<iq type='set' id='s'>{query}</iq>"));
        world.run();
    }
    let error = world.client(deaf).stream_error.as_deref();
    assert_eq!(error, Some("resource-constraint"));
}

#[test]
fn answers_that_nobody_acknowledges_end_a_session_as_messages_do() {
    const PING: &str = "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>";
    let mut world = World::new(3, settings(1), Faults::calm());
    let alice = managed_with_roster(&mut world, 0, "");
    world.send(alice, &PING.repeat(4_000));
    world.run();
    assert!(world.client(alice).is_online());
    world.send(alice, PING);
    world.run();
    let error = world.client(alice).stream_error.as_deref();
    assert_eq!(error, Some("resource-constraint"));
}

/// A client that has sent its first proof of `password` and has seen nothing of the answer.
fn proving(world: &mut World, proof: Proof, password: &str) -> ClientId {
    let mut login = Login::new("alice@example.org/old", password);
    login.proof = proof;
    let client = world.connect(login);
    while !matches!(world.client(client).phase, Phase::Proving) {
        world.run_until(world.now() + 1);
    }
    world.set_reading(client, false);
    client
}

#[test]
fn an_exchange_that_began_with_an_old_password_does_not_succeed_with_it() {
    for by_herself in [false, true] {
        let mut world = World::new(1, settings(2), Faults::calm());
        world.add_account("alice@example.org", "secret");
        let desk = world.log_in("alice@example.org/desk");
        // It has proved who it is, and binds later.
        let phone = proving(&mut world, Proof::Scram, "secret");
        world.set_reading(phone, true);
        while matches!(world.client(phone).phase, Phase::Proving) {
            world.run_until(world.now() + 1);
        }
        world.set_reading(phone, false);
        let old = proving(&mut world, Proof::Scram, "secret");
        world.run();
        if by_herself {
            let change = "<iq type='set' id='p'><query xmlns='jabber:iq:register'>\
                          <username>alice</username><password>n3w</password></query></iq>";
            world.tell(desk, change);
            assert_eq!(world.received(desk)[0].attr("type"), "result");
        } else {
            world.set_password("alice@example.org", "n3w");
            world.run();
        }
        for client in [old, phone] {
            world.set_reading(client, true);
        }
        world.run();
        let phase = &world.client(old).phase;
        let is_refused = matches!(phase, Phase::Refused(why) if why == "not-authorized");
        assert!(is_refused, "by herself {by_herself}: {phase:?}");
        // Whoever was in by the old one is in no more, but for who changed it.
        assert_eq!(world.client(desk).is_online(), by_herself);
        let error = world.client(phone).stream_error.as_deref();
        assert_eq!(error, Some("reset"), "by herself {by_herself}");
        let next = world.connect(Login::new("alice@example.org/next", "n3w"));
        world.run();
        assert!(world.client(next).is_online());
    }
}

/// Whether the keys are on their way or the password is being derived.
#[test]
fn a_verdict_that_is_awaited_when_the_password_changes_is_that_to_try_again() {
    let mut refused = 0;
    for (proof, moment) in [Proof::Plain, Proof::Scram]
        .into_iter()
        .flat_map(|proof| (0..80).map(move |it| (proof, it * 10)))
    {
        let mut world = World::new(1, settings(1), Faults::calm());
        world.add_account("alice@example.org", "secret");
        // Its shard asks storage for nothing else from then on.
        world.log_in("alice@example.org/desk");
        let old = proving(&mut world, proof, "secret");
        world.run_until(world.now() + moment);
        let heard = world.set_password("alice@example.org", "n3w");
        let mut is_awaited = false;
        while heard.try_recv() == Err(TryRecvError::Empty) {
            world.run_until(world.now() + 1);
            // One is the answer to her shard, which has heard of it and has more forgotten.
            is_awaited |= world.shards().any(|shard| shard.unanswered_count() > 1);
        }
        world.set_reading(old, true);
        world.run();
        let phase = &world.client(old).phase;
        if is_awaited {
            let again = matches!(phase, Phase::Refused(why) if why == "temporary-auth-failure");
            assert!(again, "{proof:?}, {moment} us: {phase:?}");
            refused += 1;
        }
    }
    assert!(refused > 20, "{refused}");
}
