//! Logins that are begun and not ended: what they cost is bounded as guesses are.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sim::client::{Phase, Proof};
use sim::scram::Scram;
use sim::steps::homes;
use sim::{ClientId, Element, Faults, Login, Random, World};
use stanza::jid::BareJid;
use xmpp::Settings;
use xmpp::limit::{Limits, REGISTRATION_REQUESTS_MAX};
use xmpp::port::{StoreOp, StoreReply};
use xmpp::stream::sasl::{SALT_SIZE, derive_credentials};

fn world(limits: Limits) -> World {
    let settings = Settings {
        shards: 2,
        limits,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(7, settings, Faults::rough(&mut Random::new(7)));
    for shard in 0..2 {
        for account in homes(2, shard).take(20) {
            world.add_account(&account, "secret");
        }
    }
    world
}

/// An account of each shard.
fn names() -> [String; 2] {
    [0, 1].map(|shard| {
        let account = homes(2, shard).next().expect("every shard is a home");
        let (name, _) = account.split_once('@').expect("an account has a name");
        name.to_owned()
    })
}

fn begin(name: &str) -> String {
    let initial = STANDARD.encode(format!("n,,n={name},r=nonce"));
    format!(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256'>{initial}</auth>"
    )
}

/// A stream that has its features.
fn open(world: &mut World) -> ClientId {
    let client = world.connect_raw();
    let header = sim::client::header("example.org");
    world.send(client, &String::from_utf8_lossy(&header));
    world.run();
    world.received(client);
    client
}

fn ask(world: &mut World, client: ClientId, text: &str) -> Vec<Element> {
    world.send(client, text);
    world.run();
    world.received(client)
}

/// Logs in and out again; the reason if that was refused.
fn refusal(world: &mut World, name: &str, proof: Proof) -> Option<String> {
    let mut login = Login::new(&format!("{name}@example.org/x"), "secret");
    login.proof = proof;
    let client = world.connect(login);
    world.run();
    let why = match &world.client(client).phase {
        Phase::Refused(why) => Some(why.clone()),
        Phase::Online => None,
        phase => panic!("{name} is {phase:?}"),
    };
    world.leave(client);
    world.run();
    why
}

#[test]
fn an_exchange_that_another_supersedes_is_a_try_that_failed() {
    let [one, two] = names().map(|name| begin(&name));
    let empty = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256'/>";
    for (label, first, second) in [
        ("one account", &*one, &*one),
        ("accounts of two shards", &*one, &*two),
        ("no account", empty, empty),
        ("some account", &*one, empty),
    ] {
        let tries = Limits::default().auth_tries_max;
        let mut world = world(Limits::default());
        let client = open(&mut world);
        let answers = ask(&mut world, client, &format!("{first}{second}").repeat(20));
        let begun = answers.iter().filter(|answer| answer.name == "challenge");
        assert_eq!(begun.count(), usize::from(tries), "{label}");
        assert!(world.client(client).ended, "{label}");
        let error = world.client(client).stream_error.as_deref();
        assert_eq!(error, Some("policy-violation"), "{label}");
        world.check_rest();
    }
}

#[test]
fn who_begins_another_exchange_once_may_end_that() {
    let [one, two] = names();
    for next in [&one, &two] {
        let mut world = world(Limits::default());
        let client = open(&mut world);
        assert_eq!(ask(&mut world, client, &begin(&one))[0].name, "challenge");
        let plain = STANDARD.encode(format!("\0{next}\0secret"));
        let auth = format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>"
        );
        assert_eq!(ask(&mut world, client, &auth)[0].name, "success");
    }
}

#[test]
fn exchanges_given_up_count_for_their_account_as_guesses_do() {
    const FAILURES_MAX: u32 = 3;
    let limits = Limits {
        auth_failures_per_minute_max: FAILURES_MAX,
        ..Limits::default()
    };
    let sasl = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'";
    let [name, other] = names();
    for end in [
        begin(&name),
        begin(&other),
        format!("<abort {sasl}/>"),
        format!("<response {sasl}>?</response>"),
        format!("<response {sasl}>bm9uc2Vuc2U=</response>"),
    ] {
        let mut world = world(limits.clone());
        for _ in 0..FAILURES_MAX {
            assert_eq!(refusal(&mut world, &name, Proof::Scram), None, "{end}");
            let client = open(&mut world);
            ask(&mut world, client, &format!("{}{end}", begin(&name)));
        }
        for proof in [Proof::Scram, Proof::Plain] {
            let why = refusal(&mut world, &name, proof);
            assert_eq!(why.as_deref(), Some("temporary-auth-failure"), "{end}");
        }
        world.run_for(61_000);
        assert_eq!(refusal(&mut world, &name, Proof::Scram), None, "{end}");
    }
}

/// How a stream ends in the middle of an exchange.
type Ending = fn(&mut World, ClientId);

#[test]
fn exchanges_left_with_their_streams_count_for_the_address_alone() {
    // Of one address, on each of two shards: 64 times what an account may have.
    const MAX: u32 = 32;
    let limits = Limits {
        auth_failures_per_minute_max: 1,
        ..Limits::default()
    };
    let endings: [(&str, Ending); 6] = [
        ("lost", |world, client| world.vanish(client)),
        ("ended", |world, client| world.leave(client)),
        ("closed", |world, client| {
            world.send(client, "</stream:stream>");
        }),
        ("broken", |world, client| world.send(client, "<message/>")),
        ("late", |world, client| {
            // All are late at once.
            if !world.client(client).ended {
                world.run_for(31_000);
            }
        }),
        ("secured", |world, client| {
            world.send(
                client,
                "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
            );
        }),
    ];
    let [name, other] = names();
    for (label, end) in endings {
        let mut world = world(limits.clone());
        world.peer = "192.0.2.1".parse().unwrap();
        let streams: Vec<_> = (0..MAX)
            .map(|_| {
                let client = open(&mut world);
                let begun = ask(&mut world, client, &begin(&name));
                assert_eq!(begun[0].name, "challenge", "{label}");
                client
            })
            .collect();
        for client in streams {
            end(&mut world, client);
            world.run();
        }
        let why = refusal(&mut world, &name, Proof::Scram);
        assert_eq!(why.as_deref(), Some("temporary-auth-failure"), "{label}");
        // Each shard counts what its own accounts cost.
        assert_eq!(refusal(&mut world, &other, Proof::Scram), None, "{label}");
        world.peer = "192.0.2.2".parse().unwrap();
        assert_eq!(refusal(&mut world, &name, Proof::Scram), None, "{label}");
        world.peer = "192.0.2.1".parse().unwrap();
        world.run_for(61_000);
        assert_eq!(refusal(&mut world, &name, Proof::Scram), None, "{label}");
    }
}

#[test]
fn who_logs_in_makes_up_for_those_behind_the_same_address_that_lose_their_connections() {
    let limits = Limits {
        auth_failures_per_minute_max: 1,
        ..Limits::default()
    };
    let mut world = world(limits);
    let [name, _] = names();
    for round in 0..80 {
        assert_eq!(refusal(&mut world, &name, Proof::Scram), None, "{round}");
        let client = open(&mut world);
        let begun = ask(&mut world, client, &begin(&name));
        assert_eq!(begun[0].name, "challenge", "{round}");
        world.vanish(client);
        world.run();
    }
    // All at once, they are no failures before they have ended.
    let all = homes(2, 0).take(20).chain(homes(2, 1).take(20));
    let storm: Vec<_> = all
        .map(|account| world.connect(Login::new(&format!("{account}/x"), "secret")))
        .collect();
    world.run();
    assert!(storm.iter().all(|id| world.client(*id).is_online()));
}

#[test]
fn who_is_about_to_log_in_does_so_whatever_others_of_the_address_leave() {
    let limits = Limits {
        auth_failures_per_minute_max: 1,
        ..Limits::default()
    };
    let mut world = world(limits);
    let [name, _] = names();
    let response = |challenge: &Element, scram: &mut Scram| {
        let said = scram.respond(&challenge.text).expect("it is a challenge");
        format!("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{said}</response>")
    };
    let (mut scram, first) = Scram::start(&name, "secret", "nonce", None);
    let auth = format!(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256'>{first}</auth>"
    );
    let client = open(&mut world);
    let challenge = ask(&mut world, client, &auth).remove(0);
    for _ in 0..40 {
        let lost = open(&mut world);
        ask(&mut world, lost, &begin(&name));
        world.vanish(lost);
        world.run();
    }
    let why = refusal(&mut world, &name, Proof::Scram);
    assert_eq!(why.as_deref(), Some("temporary-auth-failure"));
    let said = response(&challenge, &mut scram);
    assert_eq!(ask(&mut world, client, &said)[0].name, "success");
}

/// Streams that send a password for each of `names` at once, whose derivations take 5 seconds.
fn try_at_once<'a>(world: &mut World, names: impl Iterator<Item = &'a str>) -> Vec<ClientId> {
    world.faults = Faults::calm();
    world.faults.derive_us = (5_000_000, 5_000_000);
    let streams = names.map(|name| {
        let mut login = Login::new(&format!("{name}@example.org/x"), "guess");
        login.proof = Proof::Plain;
        world.connect(login)
    });
    let streams = streams.collect();
    world.run_for(1_000);
    streams
}

/// How many of them were refused so.
fn refused(world: &World, streams: &[ClientId], condition: &str) -> usize {
    let phases = streams.iter().map(|id| &world.client(*id).phase);
    let is_it = |phase: &&Phase| matches!(phase, Phase::Refused(why) if why == condition);
    phases.filter(is_it).count()
}

#[test]
fn passwords_tried_at_once_are_no_more_than_may_fail_in_a_minute_and_keep_nobody_else_out() {
    let mut world = world(Limits::default());
    let [name, other] = names();
    let guesses = try_at_once(&mut world, [&*name; 100].into_iter());
    let refused = |world: &World, why: &str| refused(world, &guesses, why);
    assert_eq!(refused(&world, "temporary-auth-failure"), 70);
    let neighbour = homes(2, 0).nth(1).unwrap();
    let (neighbour, _) = neighbour.split_once('@').unwrap();
    let both = [neighbour, &other].map(|name| {
        let mut login = Login::new(&format!("{name}@example.org/x"), "secret");
        login.proof = Proof::Plain;
        world.connect(login)
    });
    world.run_for(10_000);
    assert_eq!(refused(&world, "not-authorized"), 30);
    assert!(both.iter().all(|id| world.client(*id).is_online()));
    let why = refusal(&mut world, &name, Proof::Scram);
    assert_eq!(why.as_deref(), Some("temporary-auth-failure"));
    world.run_for(61_000);
    assert_eq!(refusal(&mut world, &name, Proof::Plain), None);
}

#[test]
fn a_derivation_counts_until_it_ends_whatever_becomes_of_its_stream() {
    let limits = Limits {
        auth_failures_per_minute_max: 3,
        ..Limits::default()
    };
    let mut world = world(limits);
    let [name, _] = names();
    for round in 0..3 {
        let left = try_at_once(&mut world, [&*name; 3].into_iter());
        left.iter().for_each(|id| world.vanish(*id));
        let late = try_at_once(&mut world, [&*name].into_iter());
        let why = "temporary-auth-failure";
        assert_eq!(refused(&world, &late, why), 1, "{round}");
        world.run_for(10_000);
        assert_eq!(refusal(&mut world, &name, Proof::Plain), None, "{round}");
    }
}

#[test]
fn an_account_and_an_address_have_a_share_of_the_work_that_waits() {
    let mut world = world(Limits::default());
    let salts = [[7; SALT_SIZE]; 3];
    let mut names = Vec::new();
    for account in homes(2, 0).skip(20).take(10) {
        // As another server's keys may be; nobody needs their password.
        let mut credentials = derive_credentials("secret", &salts, 1).unwrap();
        credentials.sha256.as_mut().unwrap().iterations = 600_000;
        let made = world.perform(StoreOp::CreateAccount {
            account: BareJid::parse(&account).unwrap(),
            credentials: Box::new(credentials),
        });
        assert_eq!(made, StoreReply::Done);
        names.push(account.split_once('@').unwrap().0.to_owned());
    }
    let why = "temporary-auth-failure";
    world.peer = "192.0.2.1".parse().unwrap();
    let one = try_at_once(&mut world, [&*names[0]; 10].into_iter());
    assert_eq!(refused(&world, &one, why), 7);
    let others = try_at_once(&mut world, names[1..].iter().map(|name| &**name));
    assert_eq!(refused(&world, &others, why), 6);
    world.peer = "192.0.2.2".parse().unwrap();
    let elsewhere = try_at_once(&mut world, [&*names[9]].into_iter());
    assert_eq!(refused(&world, &elsewhere, why), 0);
}

fn registration(name: &str) -> String {
    format!(
        "<iq type='set' id='r'><query xmlns='jabber:iq:register'><username>{name}</username>\
         <password>secret</password></query></iq>"
    )
}

#[test]
fn a_stream_asks_so_often_how_to_register_or_in_vain_and_registers_as_often_as_it_may() {
    let max = usize::from(REGISTRATION_REQUESTS_MAX);
    let get = "<iq type='get' id='g'><query xmlns='jabber:iq:register'/></iq>".to_owned();
    let result = "<iq type='result' id='x'><query xmlns='jabber:iq:register'/></iq>".to_owned();
    for request in [get.clone(), result, registration("a@b")] {
        let mut world = world(Limits::default());
        let client = open(&mut world);
        let answers = ask(&mut world, client, &request.repeat(max));
        assert_eq!(answers.len(), max, "{request}");
        assert!(!world.client(client).ended, "{request}");
        assert_eq!(ask(&mut world, client, &request).len(), 0, "{request}");
        let error = world.client(client).stream_error.as_deref();
        assert_eq!(error, Some("policy-violation"), "{request}");
    }
    let limits = Limits {
        registrations_per_hour_max: 100,
        ..Limits::default()
    };
    let mut world = world(limits);
    let client = open(&mut world);
    for number in 0..2 * max {
        let text = format!("{get}{}", registration(&format!("new{number}")));
        let answers = ask(&mut world, client, &text);
        assert_eq!(answers[1].attr("type"), "result", "{number}");
    }
}

#[test]
fn who_is_in_the_middle_of_an_exchange_registers_nothing() {
    let [name, other] = names();
    for name in [name, other] {
        let mut world = world(Limits::default());
        let client = open(&mut world);
        assert_eq!(ask(&mut world, client, &begin(&name))[0].name, "challenge");
        ask(&mut world, client, &registration("neo"));
        let error = world.client(client).stream_error.as_deref();
        assert_eq!(error, Some("not-authorized"));
    }
}
