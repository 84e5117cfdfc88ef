//! Push notifications (XEP-0357): which devices are told of what, when, and what becomes of their
//! registrations.

mod push_chance;
mod push_registrations;

use sim::steps::{counted, homes, message};
use sim::{ClientId, Element, Faults, Random, World};
use stanza::jid::BareJid;
use xmpp::Settings;
use xmpp::port::{Space, StoreOp, StoreReply};
use xmpp::settings::Durability;
use xmpp::xep::components::Component;
use xmpp::xep::push::{
    ACK_MS_MAX, ANSWER_MS_MAX, INTERVAL_MS, PushPolicy, REQUESTS_MAX, RETRY_MS, ShownBody,
};

const SERVICE: &str = "push.example.org";
/// Another one.
const OTHER: &str = "other.example.org";
const SECRET: &str = "north by northwest";
const ALICE: &str = "alice@example.org";
const PHONE: &str = "alice@example.org/phone";
const OPTIONS: &str = "http://jabber.org/protocol/pubsub#publish-options";

/// What has to happen at once has happened by then.
const SOON_MS: u64 = 1_000;

/// Seeds and shards; a seed above 2 is that of a rough world.
const WORLDS: [(u64, u16); 4] = [(1, 1), (2, 2), (3, 3), (4, 2)];

fn component(domain: &str) -> Component {
    Component {
        domain: domain.into(),
        secret: SECRET.into(),
    }
}

fn settings(shards: u16, push: PushPolicy) -> Settings {
    Settings {
        shards,
        push: Some(push),
        components: [SERVICE, OTHER].map(component).into(),
        ..Settings::for_tests("example.org")
    }
}

fn world_of(seed: u64, settings: Settings) -> World {
    let faults = match seed {
        0..=2 => Faults::calm(),
        seed => Faults::rough(&mut Random::new(seed)),
    };
    let mut world = World::new(seed, settings, faults);
    for name in ["alice", "bob"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    world
}

fn world(seed: u64, shards: u16) -> World {
    world_of(seed, settings(shards, PushPolicy::default()))
}

fn enable(node: &str, secret: &str) -> String {
    format!(
        "<iq type='set' id='e'><enable xmlns='urn:xmpp:push:0' jid='{SERVICE}' node='{node}'>\
         <x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>{OPTIONS}</value>\
         </field><field var='secret'><value>{secret}</value></field></x></enable></iq>"
    )
}

/// What a request is answered by: a condition, or the type.
fn asked(world: &mut World, client: ClientId, request: &str) -> String {
    world.received(client);
    world.send(client, request);
    world.run_for(SOON_MS);
    let received = world.received(client);
    let answer = received.iter().find(|it| it.name == "iq");
    let answer = answer.unwrap_or_else(|| panic!("no answer: {received:?}"));
    match answer.attr("type") {
        "error" => answer.condition().to_owned(),
        type_ => type_.to_owned(),
    }
}

/// Alice's phone was there, has a registration, and is gone.
fn registered(world: &mut World, node: &str) {
    let phone = world.arrive(PHONE);
    assert_eq!(asked(world, phone, &enable(node, "s")), "result");
    world.leave(phone);
    world.run_for(SOON_MS);
}

/// Storage has a registration of an account.
fn register(world: &mut World, account: &str, service: &str) {
    let record = format!(
        "<push xmlns='urn:xmpp:push:0'><enable jid='{service}' node='n' resource='r'/></push>"
    );
    let op = StoreOp::PutDocument {
        account: BareJid::from_prepared(account),
        space: Space::Push,
        key: "".into(),
        bytes: record.into_bytes().into(),
    };
    assert_eq!(world.perform(op), StoreReply::Done);
}

/// Somebody says something to alice.
fn say(world: &mut World, client: ClientId, id: &str) {
    world.send(client, &message("chat", ALICE, id));
    world.run_for(SOON_MS);
}

/// What is published to a service: the requests.
fn published(world: &mut World, service: ClientId) -> Vec<Element> {
    let received = world.received(service).into_iter();
    received.filter(|it| it.is("iq", "set")).collect()
}

fn publish(request: &Element) -> &Element {
    let publish = request.child("pubsub").and_then(|it| it.child("publish"));
    publish.expect("it publishes")
}

/// The values of a field of a form.
fn field<'a>(form: &'a Element, var: &str) -> Option<&'a str> {
    let mut fields = form.children.iter().filter(|it| it.attr("var") == var);
    let value = fields.next()?.child("value")?;
    Some(&value.text)
}

/// A field of what a notification says.
fn said<'a>(request: &'a Element, var: &str) -> Option<&'a str> {
    let notification = publish(request).child("item")?.child("notification")?;
    assert_eq!(notification.ns, "urn:xmpp:push:0");
    let form = notification.child("x")?;
    assert_eq!(field(form, "FORM_TYPE"), Some("urn:xmpp:push:summary"));
    field(form, var)
}

/// Nodes with their counts.
fn counts(requests: &[Element]) -> Vec<(&str, &str)> {
    let each = requests.iter().map(|it| {
        let count = said(it, "message-count");
        (publish(it).attr("node"), count.expect("a count"))
    });
    each.collect()
}

/// The service answers.
fn answer(world: &mut World, service: ClientId, request: &Element, type_: &str, payload: &str) {
    let (id, account) = (request.attr("id"), request.attr("from"));
    let answer =
        format!("<iq type='{type_}' id='{id}' from='{SERVICE}' to='{account}'>{payload}</iq>");
    world.send(service, &answer);
    world.run_for(SOON_MS);
}

fn error(type_: &str, condition: &str) -> String {
    format!(
        "<error type='{type_}'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
    )
}

/// What storage has of alice's registrations.
fn stored(world: &mut World) -> String {
    let op = StoreOp::Document {
        account: BareJid::from_prepared(ALICE),
        space: Space::Push,
        key: "".into(),
    };
    match world.perform(op) {
        StoreReply::Document(Some(found)) => String::from_utf8_lossy(&found).into_owned(),
        StoreReply::Document(None) => String::new(),
        other => panic!("{other:?}"),
    }
}

/// Devices that have not seen everything, and publications that are not answered.
fn under_way(world: &World) -> (usize, usize) {
    let counts = world.shards().map(|shard| shard.push_counts());
    counts.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
}

#[test]
fn a_device_that_is_gone_is_told_of_a_message_that_waits() {
    for (seed, shards) in WORLDS {
        let mut world = world(seed, shards);
        let service = world.attach(SERVICE, SECRET);
        registered(&mut world, "n1");
        let bob = world.arrive("bob@example.org/b");
        say(&mut world, bob, "m1");
        let requests = published(&mut world, service);
        assert_eq!(counts(&requests), [("n1", "1")], "seed {seed}");
        let request = &requests[0];
        // XEP-0357 3.2, 7: from the account, with the options that were enabled.
        assert_eq!((request.attr("from"), request.attr("to")), (ALICE, SERVICE));
        let options = request
            .child("pubsub")
            .and_then(|it| it.child("publish-options"));
        let form = options.and_then(|it| it.child("x")).expect("options");
        assert_eq!(field(form, "FORM_TYPE"), Some(OPTIONS));
        assert_eq!(field(form, "secret"), Some("s"));
        // Nothing of what it says, nor who says it.
        assert_eq!(said(request, "last-message-sender"), None);
        assert_eq!(said(request, "last-message-body"), None);
        answer(&mut world, service, request, "result", "");
        assert_eq!(under_way(&world), (1, 0));
        world.run();
        world.check_rest();
    }
}

#[test]
fn what_comes_while_one_is_under_way_is_told_at_once_behind_it() {
    for (seed, shards) in WORLDS {
        let mut world = world(seed, shards);
        let service = world.attach(SERVICE, SECRET);
        registered(&mut world, "n1");
        let bob = world.arrive("bob@example.org/b");
        for id in ["m1", "m2", "m3"] {
            say(&mut world, bob, id);
        }
        let requests = published(&mut world, service);
        assert_eq!(counts(&requests), [("n1", "1")], "seed {seed}");
        world.run_for(INTERVAL_MS);
        assert_eq!(published(&mut world, service), [], "seed {seed}");
        answer(&mut world, service, &requests[0], "result", "");
        let requests = published(&mut world, service);
        assert_eq!(counts(&requests), [("n1", "3")], "seed {seed}");
        answer(&mut world, service, &requests[0], "result", "");
        // Another one too early waits.
        say(&mut world, bob, "m4");
        assert_eq!(published(&mut world, service), [], "seed {seed}");
        world.run_for(INTERVAL_MS);
        let requests = published(&mut world, service);
        assert_eq!(counts(&requests), [("n1", "4")], "seed {seed}");
        // Told twice is told once.
        answer(&mut world, service, &requests[0], "result", "");
        answer(&mut world, service, &requests[0], "result", "");
        // Who is back has seen all of it.
        let phone = world.arrive(PHONE);
        world.leave(phone);
        world.run_for(INTERVAL_MS);
        assert_eq!(published(&mut world, service), [], "seed {seed}");
        say(&mut world, bob, "m5");
        let requests = published(&mut world, service);
        assert_eq!(counts(&requests), [("n1", "1")], "seed {seed}");
    }
}

#[test]
fn a_call_does_not_wait_as_long_as_a_message() {
    // XEP-0353: somebody proposes it.
    let mut world = world(1, 2);
    let service = world.attach(SERVICE, SECRET);
    registered(&mut world, "n1");
    let bob = world.arrive("bob@example.org/b");
    say(&mut world, bob, "m1");
    let requests = published(&mut world, service);
    answer(&mut world, service, &requests[0], "result", "");
    let call = format!(
        "<message type='chat' to='{ALICE}' id='c'><store xmlns='urn:xmpp:hints'/>\
         <propose xmlns='urn:xmpp:jingle-message:0' id='1'/></message>"
    );
    world.send(bob, &call);
    world.run_for(SOON_MS / 4);
    let requests = published(&mut world, service);
    assert_eq!(counts(&requests), [("n1", "2")]);
    // Nor at once.
    let id = requests[0].attr("id");
    let result = format!("<iq type='result' id='{id}' from='{SERVICE}' to='{ALICE}'/>");
    world.send(service, &result);
    world.send(bob, &call);
    world.run_for(SOON_MS / 4);
    assert_eq!(published(&mut world, service), []);
    world.run_for(SOON_MS);
    assert_eq!(counts(&published(&mut world, service)), [("n1", "3")]);
}

#[test]
fn a_device_that_is_there_is_told_nothing_and_nobody_of_what_passes() {
    let mut world = world(2, 2);
    let service = world.attach(SERVICE, SECRET);
    let phone = world.arrive(PHONE);
    assert_eq!(asked(&mut world, phone, &enable("n1", "s")), "result");
    let bob = world.arrive("bob@example.org/b");
    say(&mut world, bob, "m1");
    assert_eq!(published(&mut world, service), []);
    world.tell(phone, "<inactive xmlns='urn:xmpp:csi:0'/>");
    // What is important goes to it however inactive it is.
    say(&mut world, bob, "m2");
    assert_eq!(published(&mut world, service), []);
    world.leave(phone);
    world.run_for(SOON_MS);
    for payload in [
        "<active xmlns='http://jabber.org/protocol/chatstates'/>",
        "<received xmlns='urn:xmpp:receipts' id='x'/>",
        "<displayed xmlns='urn:xmpp:chat-markers:0' id='x'/>",
        "<body>x</body><no-store xmlns='urn:xmpp:hints'/>",
    ] {
        let text = format!("<message type='chat' to='{ALICE}'>{payload}</message>");
        world.send(bob, &text);
        world.run_for(SOON_MS);
        assert_eq!(published(&mut world, service), [], "{payload}");
    }
}

#[test]
fn a_session_that_waits_for_its_client_is_told_of_what_it_gets_and_of_what_was_not_acknowledged() {
    for durability in [Durability::Full, Durability::Archive, Durability::Memory] {
        for shards in [1, 2] {
            let mut world = world_of(
                1,
                Settings {
                    durability,
                    ..settings(shards, PushPolicy::default())
                },
            );
            let service = world.attach(SERVICE, SECRET);
            let (phone, id) = world.log_in_managed(PHONE);
            world.tell(phone, "<presence/>");
            assert_eq!(asked(&mut world, phone, &enable("n1", "s")), "result");
            let bob = world.arrive("bob@example.org/b");
            say(&mut world, bob, "m1");
            assert_eq!(published(&mut world, service), []);
            // One that comes back soon need not be told.
            world.vanish(phone);
            world.run_for(SOON_MS);
            let phone = world.resume(PHONE, &id, 0);
            world.vanish(phone);
            world.run_for(SOON_MS);
            assert_eq!(published(&mut world, service), [], "{durability:?}");
            world.run_for(INTERVAL_MS);
            let requests = published(&mut world, service);
            assert_eq!(counts(&requests), [("n1", "1")], "{durability:?}");
            answer(&mut world, service, &requests[0], "result", "");
            world.run_for(INTERVAL_MS);
            say(&mut world, bob, "m2");
            let requests = published(&mut world, service);
            assert_eq!(counts(&requests), [("n1", "2")], "{durability:?}");
            answer(&mut world, service, &requests[0], "result", "");
            // It is back, and has all of it.
            let phone = world.resume(PHONE, &id, 0);
            world.tell(phone, "<r xmlns='urn:xmpp:sm:3'/>");
            let had = counted(&world.received(phone));
            world.tell(phone, &format!("<a xmlns='urn:xmpp:sm:3' h='{had}'/>"));
            world.vanish(phone);
            world.run_for(INTERVAL_MS);
            assert_eq!(published(&mut world, service), [], "{durability:?}");
            say(&mut world, bob, "m3");
            let requests = published(&mut world, service);
            assert_eq!(counts(&requests), [("n1", "1")], "{durability:?}");
            // Its end tells nothing that was not told.
            answer(&mut world, service, &requests[0], "result", "");
            world.run_for(24 * 3_600_000);
            assert_eq!(published(&mut world, service), [], "{durability:?}");
        }
    }
}

#[test]
fn a_client_that_acknowledges_nothing_may_be_gone() {
    let mut world = world(2, 2);
    let service = world.attach(SERVICE, SECRET);
    let (phone, _) = world.log_in_managed(PHONE);
    world.tell(phone, "<presence/>");
    let mut had = counted(&world.received(phone));
    assert_eq!(asked(&mut world, phone, &enable("n1", "s")), "result");
    had += 1;
    let mut acknowledge = |world: &mut World| {
        had += counted(&world.received(phone));
        world.tell(phone, &format!("<a xmlns='urn:xmpp:sm:3' h='{had}'/>"));
    };
    let bob = world.arrive("bob@example.org/b");
    say(&mut world, bob, "m1");
    acknowledge(&mut world);
    world.run_for(2 * ACK_MS_MAX);
    assert_eq!(published(&mut world, service), []);
    say(&mut world, bob, "m2");
    say(&mut world, bob, "m3");
    world.run_for(ACK_MS_MAX - 5 * SOON_MS);
    assert_eq!(published(&mut world, service), []);
    world.run_for(5 * SOON_MS);
    let requests = published(&mut world, service);
    assert_eq!(counts(&requests), [("n1", "2")]);
    answer(&mut world, service, &requests[0], "result", "");
    world.run_for(INTERVAL_MS);
    // What comes to it in the meantime is told at once; its end tells nothing more.
    say(&mut world, bob, "m4");
    let requests = published(&mut world, service);
    assert_eq!(counts(&requests), [("n1", "3")]);
    answer(&mut world, service, &requests[0], "result", "");
    acknowledge(&mut world);
    world.run_for(INTERVAL_MS);
    // It is there after all.
    say(&mut world, bob, "m5");
    world.run_for(INTERVAL_MS);
    assert_eq!(published(&mut world, service), []);
    world.run_for(ACK_MS_MAX);
    let requests = published(&mut world, service);
    assert_eq!(counts(&requests), [("n1", "1")]);
    answer(&mut world, service, &requests[0], "result", "");
    world.vanish(phone);
    world.run_for(ACK_MS_MAX);
    assert_eq!(published(&mut world, service), []);
}

#[test]
fn who_has_just_taken_its_session_up_again_is_there() {
    let mut world = world(2, 2);
    let service = world.attach(SERVICE, SECRET);
    let (phone, id) = world.log_in_managed(PHONE);
    world.tell(phone, "<presence/>");
    assert_eq!(asked(&mut world, phone, &enable("n1", "s")), "result");
    let bob = world.arrive("bob@example.org/b");
    say(&mut world, bob, "m1");
    world.run_for(ACK_MS_MAX - 5 * SOON_MS);
    // By another connection, while the old one seems to be there.
    world.resume(PHONE, &id, 0);
    world.run_for(10 * SOON_MS);
    assert_eq!(published(&mut world, service), []);
    // What was sent again has as much time.
    world.run_for(ACK_MS_MAX);
    assert_eq!(counts(&published(&mut world, service)), [("n1", "1")]);
}

#[test]
fn what_is_acknowledged_late_is_not_counted_again() {
    let mut world = world(2, 2);
    let service = world.attach(SERVICE, SECRET);
    let (phone, _) = world.log_in_managed(PHONE);
    world.tell(phone, "<presence/>");
    let mut had = counted(&world.received(phone)) + 1;
    assert_eq!(asked(&mut world, phone, &enable("n1", "s")), "result");
    let bob = world.arrive("bob@example.org/b");
    for id in ["m1", "m2", "m3"] {
        say(&mut world, bob, id);
    }
    world.run_for(ACK_MS_MAX);
    let requests = published(&mut world, service);
    assert_eq!(counts(&requests), [("n1", "3")]);
    answer(&mut world, service, &requests[0], "result", "");
    had += counted(&world.received(phone));
    world.tell(phone, &format!("<a xmlns='urn:xmpp:sm:3' h='{had}'/>"));
    world.leave(phone);
    world.run_for(INTERVAL_MS);
    assert_eq!(published(&mut world, service), []);
    say(&mut world, bob, "m4");
    assert_eq!(counts(&published(&mut world, service)), [("n1", "1")]);
}

#[test]
fn beside_another_device_one_is_told_of_what_an_archive_has_for_it() {
    for archive in [false, true] {
        let settings = Settings {
            archive,
            ..settings(2, PushPolicy::default())
        };
        let mut world = world_of(2, settings);
        let service = world.attach(SERVICE, SECRET);
        registered(&mut world, "n1");
        let desk = world.arrive("alice@example.org/desk");
        let bob = world.arrive("bob@example.org/b");
        say(&mut world, bob, "m1");
        let requests = published(&mut world, service);
        let expected: &[(&str, &str)] = match archive {
            true => &[("n1", "1")],
            false => &[],
        };
        assert_eq!(counts(&requests), expected);
        if let Some(request) = requests.first() {
            answer(&mut world, service, request, "result", "");
        }
        world.run_for(INTERVAL_MS);
        // What the account says itself wakes nobody.
        world.send(desk, &message("chat", "bob@example.org", "m2"));
        world.send(desk, &message("chat", ALICE, "m3"));
        world.run_for(SOON_MS);
        assert_eq!(published(&mut world, service), []);
    }
}

#[test]
fn the_sender_and_the_body_are_told_where_the_operator_wants_it() {
    for (shows_sender, body, expected) in [
        (true, ShownBody::None, (Some("bob@example.org/b"), None)),
        (false, ShownBody::Notice, (None, Some("New message"))),
        (
            true,
            ShownBody::Text,
            (Some("bob@example.org/b"), Some("m1")),
        ),
    ] {
        let policy = PushPolicy {
            shows_sender,
            body,
            ..PushPolicy::default()
        };
        let mut world = world_of(1, settings(1, policy));
        let service = world.attach(SERVICE, SECRET);
        registered(&mut world, "n1");
        let bob = world.arrive("bob@example.org/b");
        say(&mut world, bob, "m1");
        let requests = published(&mut world, service);
        let fields = ["last-message-sender", "last-message-body"];
        let [sender, body] = fields.map(|var| said(&requests[0], var));
        assert_eq!((sender, body), expected);
    }
}

#[test]
fn an_error_of_the_service_ends_a_registration_for_good() {
    // XEP-0357 7.1: of that node.
    for (seed, shards) in WORLDS {
        for (type_, condition) in [
            ("cancel", "item-not-found"),
            ("auth", "forbidden"),
            ("modify", "not-acceptable"),
        ] {
            let mut world = world(seed, shards);
            let service = world.attach(SERVICE, SECRET);
            registered(&mut world, "n1");
            registered(&mut world, "n2");
            let bob = world.arrive("bob@example.org/b");
            say(&mut world, bob, "m1");
            let requests = published(&mut world, service);
            assert_eq!(counts(&requests), [("n1", "1"), ("n2", "1")], "seed {seed}");
            // Nobody else ends it, nor does another id.
            world.send(
                bob,
                &format!(
                    "<iq type='error' id='{}' to='{ALICE}'>{}</iq>",
                    requests[0].attr("id"),
                    error(type_, condition)
                ),
            );
            world.send(
                service,
                &format!(
                    "<iq type='error' id='push-0' from='{SERVICE}' to='{ALICE}'>{}</iq>",
                    error(type_, condition)
                ),
            );
            world.run_for(SOON_MS);
            assert_eq!(under_way(&world), (2, 2), "seed {seed}");
            let payload = error(type_, condition);
            answer(&mut world, service, &requests[0], "error", &payload);
            answer(&mut world, service, &requests[1], "result", "");
            let left = stored(&mut world);
            assert!(left.contains("n2") && !left.contains("n1"), "{left}");
            world.run_for(INTERVAL_MS);
            say(&mut world, bob, "m2");
            let requests = published(&mut world, service);
            assert_eq!(counts(&requests), [("n2", "2")], "seed {seed}");
            answer(&mut world, service, &requests[0], "error", &payload);
            assert_eq!(stored(&mut world), "", "seed {seed}");
            assert_eq!(under_way(&world), (0, 0), "seed {seed}");
            world.run();
            world.check_rest();
        }
    }
}

#[test]
fn what_fails_for_the_moment_is_tried_again_and_then_given_up() {
    let wait = error("wait", "resource-constraint");
    let failures: [(&str, &str, u64); 3] = [
        ("error", &wait, 0),
        ("error", &error("cancel", "internal-server-error"), 0),
        // No answer at all.
        ("", "", ANSWER_MS_MAX),
    ];
    for (type_, payload, later) in failures {
        let mut world = world(1, 2);
        let service = world.attach(SERVICE, SECRET);
        registered(&mut world, "n1");
        let bob = world.arrive("bob@example.org/b");
        say(&mut world, bob, "m1");
        let fail = |world: &mut World| {
            let requests = published(world, service);
            assert_eq!(counts(&requests), [("n1", "1")]);
            match type_ {
                "" => world.run_for(later),
                type_ => answer(world, service, &requests[0], type_, payload),
            }
        };
        fail(&mut world);
        for retry_ms in RETRY_MS {
            world.run_for(retry_ms - 5 * SOON_MS);
            assert_eq!(published(&mut world, service), []);
            world.run_for(5 * SOON_MS);
            fail(&mut world);
        }
        world.run_for(RETRY_MS[2] * 2);
        assert_eq!(published(&mut world, service), []);
        assert_eq!(under_way(&world).1, 0);
        // The registration stays, and the next message is another try.
        assert!(stored(&mut world).contains("n1"));
        say(&mut world, bob, "m2");
        let requests = published(&mut world, service);
        assert_eq!(counts(&requests), [("n1", "2")]);
        answer(&mut world, service, &requests[0], "result", "");
        world.run_for(RETRY_MS[2] * 2);
        assert_eq!(published(&mut world, service), []);
    }
}

#[test]
fn a_service_that_is_away_is_told_when_it_is_back() {
    for (seed, shards) in WORLDS {
        let mut world = world(seed, shards);
        registered(&mut world, "n1");
        let bob = world.arrive("bob@example.org/b");
        say(&mut world, bob, "m1");
        let service = world.attach(SERVICE, SECRET);
        assert_eq!(published(&mut world, service), [], "seed {seed}");
        world.run_for(RETRY_MS[0]);
        let requests = published(&mut world, service);
        assert_eq!(counts(&requests), [("n1", "1")], "seed {seed}");
    }
}

#[test]
fn who_comes_back_before_a_retry_is_not_woken() {
    let mut world = world(1, 2);
    registered(&mut world, "n1");
    let bob = world.arrive("bob@example.org/b");
    say(&mut world, bob, "m1");
    let phone = world.arrive(PHONE);
    world.leave(phone);
    let service = world.attach(SERVICE, SECRET);
    world.run_for(RETRY_MS[0] + RETRY_MS[1]);
    assert_eq!(published(&mut world, service), []);
}

#[test]
fn so_many_publications_are_under_way_on_a_shard_and_the_rest_waits() {
    let mut world = world(1, 1);
    let service = world.attach(SERVICE, SECRET);
    let bob = world.arrive("bob@example.org/b");
    let other = world.attach(OTHER, SECRET);
    let mut all: Vec<String> = homes(1, 0).take(REQUESTS_MAX + 11).collect();
    let last = all.pop().expect("one more");
    for account in &all {
        world.add_account(account, "secret");
        register(&mut world, account, SERVICE);
    }
    world.add_account(&last, "secret");
    register(&mut world, &last, OTHER);
    for account in &all {
        world.send(bob, &message("chat", account, "m"));
    }
    world.run_for(20 * SOON_MS);
    let requests = published(&mut world, service);
    assert_eq!(requests.len(), REQUESTS_MAX);
    assert_eq!(under_way(&world), (all.len(), REQUESTS_MAX));
    // Another service does not wait for this one.
    world.send(bob, &message("chat", &last, "m"));
    world.run_for(SOON_MS);
    let requests_of_other = published(&mut world, other);
    assert_eq!(requests_of_other.len(), 1);
    answer(&mut world, other, &requests_of_other[0], "result", "");
    for request in &requests[..10] {
        answer(&mut world, service, request, "result", "");
    }
    world.run_for(2 * SOON_MS);
    assert_eq!(published(&mut world, service).len(), 10);
}
