//! SASL2 (XEP-0388) where something comes in between: storage, crashes, limits, other connections.

use sim::client::{Phase, Proof};
use sim::scram::{self, Scram};
use sim::{ClientId, Element, Login, World};
use xmpp::Settings;
use xmpp::limit::Limits;

const USER_AGENT: &str = "<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'/>";
const BIND: &str = "<bind xmlns='urn:xmpp:bind:0'>\
                    <enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>";
const PING: &str = "<iq type='get' id='p' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>";

/// How long a slow disk takes, in microseconds.
const SLOW_US: (u64, u64) = (100_000, 100_000);

/// A stream with TLS that has its features.
fn open(world: &mut World) -> ClientId {
    let client = world.connect_raw_by_tls();
    let header = sim::client::header("example.org");
    world.tell(client, &String::from_utf8_lossy(&header));
    world.received(client);
    client
}

fn authenticate(name: &str, password: &str, inner: &str) -> String {
    let plain = scram::plain(name, password);
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>\
         <initial-response>{plain}</initial-response>{inner}</authenticate>"
    )
}

fn resume(session: &str, h: u32) -> String {
    format!("{USER_AGENT}<resume xmlns='urn:xmpp:sm:3' previd='{session}' h='{h}'/>{BIND}")
}

fn ask(world: &mut World, client: ClientId, text: &str) -> Vec<Element> {
    world.tell(client, text);
    world.received(client)
}

fn text<'a>(success: &'a Element, name: &str) -> &'a str {
    let child = success.child(name);
    child.map_or("", |child| &child.text)
}

/// Alice with a managed session: its full JID and its id.
fn alice(world: &mut World) -> (ClientId, String, String) {
    let client = open(world);
    let asked = authenticate("alice", "secret", &format!("{USER_AGENT}{BIND}"));
    let got = ask(world, client, &asked);
    let enabled = got[0].child("bound").and_then(|it| it.child("enabled"));
    let id = enabled.expect("it is managed").attr("id").to_owned();
    let full = text(&got[0], "authorization-identifier").to_owned();
    (client, full, id)
}

/// The names of what came, and of what the first of it holds.
fn names(got: &[Element]) -> (Vec<&str>, Vec<&str>) {
    let inner = got.first().map_or(&[][..], |first| &first.children);
    (
        got.iter().map(|it| &*it.name).collect(),
        inner.iter().map(|it| &*it.name).collect(),
    )
}

#[test]
fn scram_bound_to_the_channel_succeeds_with_the_server_s_proof_inside() {
    for shards in [1, 2, 3] {
        let mut world = World::of_three(shards.into(), shards);
        let client = open(&mut world);
        let exporter = world.client(client).exporter;
        let (mut scram, first) = Scram::start("alice", "secret", "nonce", Some(&exporter));
        let got = ask(
            &mut world,
            client,
            &format!(
                "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-256-PLUS'>\
                 <initial-response>{first}</initial-response>{BIND}</authenticate>"
            ),
        );
        assert_eq!(names(&got).0, ["challenge"]);
        let response = scram.respond(&got[0].text).unwrap();
        let response = format!("<response xmlns='urn:xmpp:sasl:2'>{response}</response>");
        let got = ask(&mut world, client, &response);
        assert_eq!(names(&got).0, ["success", "features"]);
        scram.verify(text(&got[0], "additional-data")).unwrap();
        assert!(got[0].child("bound").is_some(), "{got:?}");
        world.check_rest();
    }
}

#[test]
fn white_space_amid_an_exchange_ends_the_stream_and_around_it_does_not() {
    let begin = "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'/>";
    let mut world = World::of_three(1, 1);
    let client = open(&mut world);
    world.tell(client, &format!("\n{begin}\n"));
    let error = world.client(client).stream_error.as_deref();
    assert_eq!(error, Some("policy-violation"));
    let client = open(&mut world);
    let asked = format!("\n{}\n{PING}", authenticate("alice", "secret", BIND));
    let got = ask(&mut world, client, &asked);
    assert_eq!(names(&got).0, ["success", "features", "iq"]);
}

#[test]
fn failures_count_for_an_account_in_both_profiles_together() {
    const FAILURES_MAX: u32 = 3;
    let limits = Limits {
        auth_failures_per_minute_max: FAILURES_MAX,
        ..Limits::default()
    };
    let settings = Settings {
        limits,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(2, settings, sim::Faults::calm());
    world.add_account("alice@example.org", "secret");
    let condition = |got: &[Element]| got[0].condition().to_owned();
    for _ in 0..FAILURES_MAX {
        let client = open(&mut world);
        let got = ask(&mut world, client, &authenticate("alice", "guess", BIND));
        assert_eq!(condition(&got), "not-authorized");
    }
    let client = open(&mut world);
    let got = ask(&mut world, client, &authenticate("alice", "secret", BIND));
    assert_eq!(condition(&got), "temporary-auth-failure");
    let mut login = Login::new("alice@example.org/x", "secret");
    login.proof = Proof::Plain;
    let client = world.connect(login);
    world.run();
    let phase = &world.client(client).phase;
    assert!(
        matches!(phase, Phase::Refused(why) if why == "temporary-auth-failure"),
        "{phase:?}"
    );
}

#[test]
fn a_client_for_whose_session_there_is_no_room_is_authenticated_and_may_bind_later() {
    let limits = Limits {
        resources_max: 1,
        ..Limits::default()
    };
    let settings = Settings {
        limits,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(2, settings, sim::Faults::calm());
    world.add_account("alice@example.org", "secret");
    let desk = world.log_in("alice@example.org/desk");
    let client = open(&mut world);
    let got = ask(&mut world, client, &authenticate("alice", "secret", BIND));
    assert_eq!(names(&got).1, ["authorization-identifier"]);
    let identity = text(&got[0], "authorization-identifier");
    assert_eq!(identity, "alice@example.org");
    assert!(got[1].child("bind").is_some(), "{got:?}");
    world.leave(desk);
    world.run();
    let bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
    let got = ask(&mut world, client, bind);
    assert_eq!(got[0].attr("type"), "result");
}

#[test]
fn a_session_that_storage_does_not_take_is_bound_and_not_managed() {
    let mut world = World::of_three(1, 1);
    let bob = world.log_in("bob@example.org/x");
    let client = open(&mut world);
    world.faults.disk_full = true;
    let asked = authenticate("alice", "secret", &format!("{USER_AGENT}{BIND}"));
    let got = ask(&mut world, client, &asked);
    assert_eq!(names(&got).0, ["success", "features"]);
    let failed = got[0].child("bound").and_then(|it| it.child("failed"));
    let failed = failed.expect("it says so").condition();
    assert_eq!(failed, "internal-server-error");
    let full = text(&got[0], "authorization-identifier").to_owned();
    world.tell(
        bob,
        &format!("<message to='{full}' id='m' type='chat'><body/></message>"),
    );
    let got = ask(&mut world, client, PING);
    assert_eq!(names(&got).0, ["message", "iq"]);
}

#[test]
fn success_is_the_first_thing_that_a_client_gets_whatever_reaches_its_session_before() {
    let mut world = World::of_three(1, 1);
    let (first, full, _) = alice(&mut world);
    world.vanish(first);
    let bob = world.log_in("bob@example.org/x");
    world.faults.disk_us = SLOW_US;
    let client = open(&mut world);
    let asked = authenticate("alice", "secret", &format!("{USER_AGENT}{BIND}"));
    world.send(client, &asked);
    for id in 0..40 {
        world.send(
            bob,
            &format!("<iq type='get' id='i{id}' to='{full}'><ping xmlns='urn:xmpp:ping'/></iq>"),
        );
        world.run_until(world.now() + 20_000);
    }
    world.run();
    let got = world.received(client);
    assert_eq!(names(&got).0[..2], ["success", "features"]);
    let enabled = got[0].child("bound").and_then(|it| it.child("enabled"));
    assert!(enabled.is_some(), "{got:?}");
    assert!(names(&got).0.contains(&"iq"), "some came meanwhile");
}

#[test]
fn a_connection_that_is_lost_before_success_leaves_nothing() {
    for moment in (0..60).map(|step| step * 10_000) {
        let mut world = World::of_three(3, 1);
        world.faults.disk_us = SLOW_US;
        let lost = open(&mut world);
        let asked = authenticate("alice", "secret", &format!("{USER_AGENT}{BIND}"));
        world.send(lost, &asked);
        world.run_until(world.now() + moment);
        world.vanish(lost);
        let (client, ..) = alice(&mut world);
        assert_eq!(names(&ask(&mut world, client, PING)).0, ["iq"], "{moment}");
        world.leave(client);
        world.run();
        world.check_rest();
    }
}

/// Alice's session with a message in it, after a crash of the process.
fn alice_after_a_crash(seed: u64, shards: u16) -> (World, String) {
    let mut world = World::of_three(seed, shards);
    let (client, full, id) = alice(&mut world);
    world.vanish(client);
    let bob = world.log_in("bob@example.org/x");
    world.tell(
        bob,
        &format!("<message to='{full}' id='m' type='chat'><body/></message>"),
    );
    world.crash();
    world.run();
    (world, id)
}

#[test]
fn a_session_is_resumed_with_the_login_after_a_crash() {
    for shards in [1, 2, 3] {
        let (mut world, id) = alice_after_a_crash(shards.into(), shards);
        let client = open(&mut world);
        let got = ask(
            &mut world,
            client,
            &authenticate("alice", "secret", &resume(&id, 0)),
        );
        let (all, inner) = names(&got);
        assert_eq!(all, ["success", "message", "r"]);
        assert_eq!(inner, ["authorization-identifier", "resumed"]);
        world.check_rest();
    }
}

#[test]
fn a_session_that_cannot_be_read_now_is_neither_resumed_nor_given_up() {
    let (mut world, id) = alice_after_a_crash(3, 1);
    world.faults.disk_full = true;
    let client = open(&mut world);
    let asked = authenticate("alice", "secret", &resume(&id, 0));
    assert!(ask(&mut world, client, &asked).is_empty());
    let error = world.client(client).stream_error.as_deref();
    assert_eq!(error, Some("internal-server-error"));
    world.faults.disk_full = false;
    let client = open(&mut world);
    let got = ask(&mut world, client, &asked);
    assert!(got[0].child("resumed").is_some(), "{got:?}");
}

#[test]
fn the_newer_of_two_connections_gets_the_session_and_the_older_takes_nothing_from_it() {
    for moment in (1..80).map(|step| step * 10_000) {
        let (mut world, id) = alice_after_a_crash(5, 1);
        world.faults.disk_us = SLOW_US;
        let asked = authenticate("alice", "secret", &resume(&id, 0));
        let (older, newer) = (open(&mut world), open(&mut world));
        world.send(older, &asked);
        world.run_until(world.now() + moment);
        let got = ask(&mut world, newer, &asked);
        assert!(got[0].child("resumed").is_some(), "after {moment}: {got:?}");
        let error = world.client(older).stream_error.as_deref();
        assert_eq!(error, Some("conflict"), "after {moment} us");
        assert_eq!(
            names(&ask(&mut world, newer, PING)).0,
            ["iq"],
            "after {moment}"
        );
    }
}

#[test]
fn who_binds_anew_while_an_older_connection_asks_for_the_session_keeps_what_it_binds() {
    for moment in (0..80).map(|step| step * 10_000) {
        let (mut world, id) = alice_after_a_crash(5, 1);
        world.faults.disk_us = SLOW_US;
        let (older, newer) = (open(&mut world), open(&mut world));
        world.send(older, &authenticate("alice", "secret", &resume(&id, 0)));
        world.run_until(world.now() + moment);
        let anew = authenticate("alice", "secret", &format!("{USER_AGENT}{BIND}"));
        world.tell(newer, &anew);
        let ends = [older, newer].map(|it| world.client(it).ended);
        assert!(ends.contains(&true), "one of them only, after {moment} us");
        let sessions: usize = world.shards().map(|shard| shard.session_count()).sum();
        assert_eq!(sessions, 1, "after {moment} us");
        world.check_rest();
    }
}
