//! Streams of the web (RFC 7395): like any other, behind an opening in place of a header and
//! without STARTTLS.

use sim::scram;
use sim::{ClientId, Element, Faults, World};
use stanza::framing;
use xmpp::Settings;

const OPEN: &str =
    "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='example.org' version='1.0'/>";
const CLOSE: &str = "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>";
const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const BIND: &str = "<bind xmlns='urn:xmpp:bind:0'>\
                    <enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>";

fn world(seed: u64, settings: Settings) -> World {
    let mut world = World::new(seed, settings, Faults::calm());
    for name in ["alice", "bob"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    world
}

fn ask(world: &mut World, client: ClientId, message: &str) -> Vec<Element> {
    world.say(client, message);
    world.received(client)
}

/// A stream over the web, and its features.
fn open(world: &mut World, secure: bool) -> (ClientId, Element) {
    let client = world.connect_raw_by_web(secure);
    let got = ask(world, client, OPEN);
    assert_eq!(got.len(), 2, "a header and features: {got:?}");
    (client, got[1].clone())
}

fn authenticate(name: &str, inner: &str) -> String {
    let plain = scram::plain(name, "secret");
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>\
         <initial-response>{plain}</initial-response>\
         <user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'/>{inner}</authenticate>"
    )
}

#[test]
fn there_is_no_starttls_whether_the_stream_is_protected_or_not() {
    for (secure, required) in [(true, true), (true, false), (false, true), (false, false)] {
        let settings = Settings {
            tls_available: true,
            tls_required: required,
            ..Settings::for_tests("example.org")
        };
        let mut world = world(1, settings);
        let (client, features) = open(&mut world, secure);
        let has = |name: &str| features.child(name).is_some();
        assert!(!has("starttls"), "{features:?}");
        assert_eq!(has("mechanisms"), secure || !required, "{features:?}");
        assert_eq!(has("authentication"), secure, "{features:?}");
        let got = ask(&mut world, client, STARTTLS);
        assert_eq!(got[0].name, "failure", "{got:?}");
        assert!(world.client(client).ended);
    }
}

#[test]
fn a_managed_session_outlives_a_crash_and_goes_on_over_the_web() {
    for (seed, shards) in [(1, 1), (2, 2), (3, 3)] {
        let settings = Settings {
            shards,
            ..Settings::for_tests("example.org")
        };
        let mut world = world(seed, settings);
        let bob = world.log_in("bob@example.org/x");
        let (client, _) = open(&mut world, true);
        let got = ask(&mut world, client, &authenticate("alice", BIND));
        let success = &got[0];
        let full = success
            .child("authorization-identifier")
            .expect("bound")
            .text
            .clone();
        let enabled = success.child("bound").and_then(|it| it.child("enabled"));
        let id = enabled.expect("it is managed").attr("id").to_owned();
        let message =
            |id: &str| format!("<message to='{full}' type='chat' id='{id}'><body/></message>");
        world.send(bob, &message("before"));
        world.run();
        let got = world.received(client);
        assert!(got.iter().any(|it| it.attr("id") == "before"), "{got:?}");
        world.crash();
        world.run();
        let (client, _) = open(&mut world, true);
        let resume = format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>");
        let got = ask(&mut world, client, &authenticate("alice", &resume));
        assert!(got[0].child("resumed").is_some(), "{got:?}");
        assert!(got.iter().any(|it| it.attr("id") == "before"), "{got:?}");
        world.say(client, CLOSE);
        assert!(world.client(client).ended);
        world.check_rest();
    }
}

/// RFC 7395 3.3: the world looks at each, whoever wrote it.
#[test]
fn what_a_session_is_told_comes_apart_into_documents() {
    let mut world = world(1, Settings::for_tests("example.org"));
    let bob = world.log_in("bob@example.org/x");
    let (client, _) = open(&mut world, true);
    let mut got = ask(&mut world, client, &authenticate("alice", BIND));
    for message in [
        "<presence xmlns='jabber:client'/>",
        "<r xmlns='urn:xmpp:sm:3'/>",
        "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>",
        "<iq type='get' id='d' to='example.org'>\
         <query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
    ] {
        got.extend(ask(&mut world, client, message));
    }
    let prefixed = "<c:message xmlns:c='jabber:client' xmlns='urn:other' type='chat' id='m' \
                    to='alice@example.org'><c:body>x</c:body><y/></c:message>";
    world.send(bob, prefixed);
    world.run();
    got.extend(world.received(client));
    let names: Vec<&str> = got.iter().map(|it| &*it.name).collect();
    for name in ["success", "features", "presence", "iq", "message"] {
        assert!(names.contains(&name), "no {name} among {names:?}");
    }
}

#[test]
fn a_second_opening_ends_the_stream_and_one_behind_an_authentication_does_not() {
    let mut world = world(1, Settings::for_tests("example.org"));
    let (client, _) = open(&mut world, true);
    world.say(client, OPEN);
    let error = world.client(client).stream_error.as_deref();
    assert_eq!(error, Some("restricted-xml"));
    // Sent at once, before there is an answer: it is taken up in its turn.
    let (client, _) = open(&mut world, true);
    let mut stream = Vec::new();
    let plain = scram::plain("alice", "secret");
    let auth =
        format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>");
    framing::unframe(auth.as_bytes(), &mut stream);
    framing::unframe(OPEN.as_bytes(), &mut stream);
    world.send_bytes(client, &stream);
    world.run();
    let names: Vec<String> = world
        .received(client)
        .into_iter()
        .map(|it| it.name)
        .collect();
    assert_eq!(names, ["success", "stream", "features"]);
}
