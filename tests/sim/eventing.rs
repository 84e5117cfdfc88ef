//! Personal eventing (XEP-0163) at its limits, on a disk that fails, and over crashes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use sim::{ClientId, Element, Faults, World};
use xmpp::Settings;
use xmpp::limit::Limits;
use xmpp::xep::pubsub::{
    AFFILIATIONS_MAX, JOBS_PER_ACCOUNT_MAX, LAST_ITEMS_UNDER_WAY_MAX, STRANGERS_JOBS_MAX,
    SUBSCRIPTIONS_MAX, SUBSCRIPTIONS_PER_JID_MAX,
};

const ALICE: &str = "alice@example.org";
const BOB: &str = "bob@example.org";
const NODE: &str = "urn:x:a";
const INFO: &str = "http://jabber.org/protocol/disco#info";

fn publish(node: &str, id: &str, text: &str) -> String {
    format!(
        "<iq type='set' id='{id}'><pubsub xmlns='http://jabber.org/protocol/pubsub'>\
         <publish node='{node}'><item id='{id}'><a xmlns='urn:x'>{text}</a></item></publish>\
         </pubsub></iq>"
    )
}

fn read(owner: &str, node: &str) -> String {
    format!(
        "<iq type='get' id='read' to='{owner}'><pubsub \
         xmlns='http://jabber.org/protocol/pubsub'><items node='{node}'/></pubsub></iq>"
    )
}

fn owners(inner: &str) -> String {
    format!(
        "<iq type='set' id='o'><pubsub xmlns='http://jabber.org/protocol/pubsub#owner'>\
         {inner}</pubsub></iq>"
    )
}

/// What a client receives in answer to what it sends.
fn ask(world: &mut World, client: ClientId, text: &str) -> Vec<Element> {
    world.received(client);
    world.tell(client, text);
    world.received(client)
}

/// `result`, or the condition of the error.
fn outcome(world: &mut World, client: ClientId, text: &str) -> String {
    let answers = ask(world, client, text);
    let answer = answers.iter().find(|it| it.name == "iq");
    let answer = answer.expect("a request is answered");
    match answer.attr("type") {
        "error" => answer.condition().to_owned(),
        type_ => type_.to_owned(),
    }
}

/// The ids of the items in an answer, or in a notification.
fn items(element: &Element) -> Vec<String> {
    let inner = ["pubsub", "event"].map(|name| element.child(name));
    let items = inner
        .into_iter()
        .flatten()
        .filter_map(|it| it.child("items"));
    let items = items.flat_map(|items| &items.children);
    items.map(|item| item.attr("id").to_owned()).collect()
}

fn items_of(world: &mut World, client: ClientId, owner: &str, node: &str) -> Vec<String> {
    ask(world, client, &read(owner, node))
        .iter()
        .flat_map(items)
        .collect()
}

/// From whom notifications came, with what they are of.
fn events(received: &[Element]) -> Vec<(String, String)> {
    let events = received.iter().filter(|it| it.child("event").is_some());
    let each = events.flat_map(|it| {
        let from = it.attr("from").to_owned();
        items(it).into_iter().map(move |id| (from.clone(), id))
    });
    each.collect()
}

/// The hash of a client that is interested in [`NODE`].
fn ver() -> String {
    let text = format!("client/pc//x<{INFO}<{NODE}+notify<");
    STANDARD.encode(Sha256::digest(text))
}

fn presence() -> String {
    format!(
        "<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-256' node='urn:c' \
         ver='{}'/></presence>",
        ver()
    )
}

/// Says what a client is interested in, if it was asked.
fn tell_caps(world: &mut World, client: ClientId) -> Vec<Element> {
    let received = world.received(client);
    let is_question = |it: &&Element| it.name == "iq" && it.child("query").is_some();
    if let Some(asked) = received.iter().find(is_question) {
        let (id, to) = (asked.attr("id"), asked.attr("from"));
        let answer = format!(
            "<iq type='result' id='{id}' to='{to}'><query xmlns='{INFO}' node='urn:c#{}'>\
             <identity category='client' type='pc' name='x'/><feature var='{INFO}'/>\
             <feature var='{NODE}+notify'/></query></iq>",
            ver()
        );
        world.tell(client, &answer);
    }
    received
}

/// A client that is interested and available.
fn follower(world: &mut World, full: &str) -> (ClientId, Vec<Element>) {
    let client = world.log_in(full);
    world.tell(client, &presence());
    let mut received = tell_caps(world, client);
    received.extend(world.received(client));
    (client, received)
}

fn world_with(limits: Limits, names: &[&str]) -> World {
    let settings = Settings {
        shards: 2,
        limits,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(5, settings, Faults::calm());
    for name in names {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    world
}

#[test]
fn an_account_has_so_many_nodes_items_and_bytes_and_no_more() {
    let limits = Limits {
        nodes_max: 3,
        node_items_max: 2,
        item_size_max: 2_000,
        items_size_max: 4_000,
        ..Limits::default()
    };
    let mut world = world_with(limits, &["alice"]);
    let alice = world.log_in("alice@example.org/x");
    let many = "<iq type='set' id='c'><pubsub xmlns='http://jabber.org/protocol/pubsub'>\
                <create node='n'/><configure><x xmlns='jabber:x:data' type='submit'>\
                <field var='FORM_TYPE'>\
                <value>http://jabber.org/protocol/pubsub#node_config</value></field>\
                <field var='pubsub#max_items'><value>max</value></field></x></configure>\
                </pubsub></iq>";
    assert_eq!(outcome(&mut world, alice, many), "result");
    for id in ["1", "2", "3"] {
        assert_eq!(outcome(&mut world, alice, &publish("n", id, "x")), "result");
    }
    // The newest two, newest first.
    assert_eq!(items_of(&mut world, alice, ALICE, "n"), ["3", "2"]);
    let long = "x".repeat(2_000);
    let refused = outcome(&mut world, alice, &publish("n", "4", &long));
    assert_eq!(refused, "not-acceptable");
    let half = "x".repeat(1_500);
    assert_eq!(
        outcome(&mut world, alice, &publish("m", "5", &half)),
        "result"
    );
    let refused = outcome(&mut world, alice, &publish("o", "6", &half));
    assert_eq!(refused, "resource-constraint");
    assert_eq!(
        outcome(&mut world, alice, &publish("o", "7", "x")),
        "result"
    );
    let refused = outcome(&mut world, alice, &publish("p", "8", "x"));
    assert_eq!(refused, "resource-constraint");
    // What is there may become less.
    assert_eq!(
        outcome(&mut world, alice, &publish("m", "5", "x")),
        "result"
    );
    assert_eq!(
        outcome(&mut world, alice, &owners("<delete node='o'/>")),
        "result"
    );
    assert_eq!(
        outcome(&mut world, alice, &publish("p", "8", "x")),
        "result"
    );
    assert_eq!(items_of(&mut world, alice, ALICE, "n"), ["3", "2"]);
}

#[test]
fn a_node_has_so_many_subscribers_and_affiliations_and_no_more() {
    let mut world = world_with(Limits::default(), &["alice", "bob"]);
    world.befriend(ALICE, BOB);
    let alice = world.log_in("alice@example.org/x");
    let bob = world.log_in("bob@example.org/x");
    assert_eq!(
        outcome(&mut world, alice, &publish("n", "1", "x")),
        "result"
    );
    let subscribe = |resource: usize| {
        format!(
            "<iq type='set' id='s' to='{ALICE}'><pubsub \
             xmlns='http://jabber.org/protocol/pubsub'><subscribe node='n' \
             jid='{BOB}/{resource}'/></pubsub></iq>"
        )
    };
    for resource in 0..SUBSCRIPTIONS_PER_JID_MAX {
        assert_eq!(outcome(&mut world, bob, &subscribe(resource)), "result");
    }
    let more = subscribe(SUBSCRIPTIONS_PER_JID_MAX);
    assert_eq!(outcome(&mut world, bob, &more), "policy-violation");
    let list = |name: &str, value: &str, count: usize| {
        let one = |number| format!("<{name} jid='n{number}@example.org' {name}='{value}'/>");
        let all = (0..count).map(one);
        owners(&format!(
            "<{name}s node='n'>{}</{name}s>",
            all.collect::<String>()
        ))
    };
    let fits = list("affiliation", "member", AFFILIATIONS_MAX);
    assert_eq!(outcome(&mut world, alice, &fits), "result");
    let more = list("affiliation", "member", AFFILIATIONS_MAX + 1);
    assert_eq!(outcome(&mut world, alice, &more), "resource-constraint");
    let count = SUBSCRIPTIONS_MAX - SUBSCRIPTIONS_PER_JID_MAX;
    let fits = list("subscription", "subscribed", count);
    assert_eq!(outcome(&mut world, alice, &fits), "result");
    let more = list("subscription", "subscribed", count + 1);
    assert_eq!(outcome(&mut world, alice, &more), "policy-violation");
    // All of them together have so many bytes.
    let long = "r".repeat(1_000);
    let long = |count: usize| {
        let one = |number| {
            let jid = format!("n{number}@example.org/{long}");
            format!("<subscription jid='{jid}' subscription='subscribed'/>")
        };
        let all = (0..count).map(one).collect::<String>();
        owners(&format!("<subscriptions node='m'>{all}</subscriptions>"))
    };
    assert_eq!(
        outcome(&mut world, alice, &publish("m", "1", "x")),
        "result"
    );
    assert_eq!(outcome(&mut world, alice, &long(150)), "result");
    assert_eq!(
        outcome(&mut world, alice, &publish("q", "1", "x")),
        "result"
    );
    let more = long(150).replace("node='m'", "node='q'");
    assert_eq!(outcome(&mut world, alice, &more), "resource-constraint");
}

#[test]
fn what_storage_does_not_take_is_answered_and_nobody_is_told() {
    let mut world = World::of_three(7, 2);
    world.befriend(ALICE, BOB);
    let alice = world.log_in("alice@example.org/x");
    let (bob, _) = follower(&mut world, "bob@example.org/x");
    assert_eq!(
        outcome(&mut world, alice, &publish(NODE, "1", "x")),
        "result"
    );
    assert_eq!(events(&world.received(bob)), [(ALICE.into(), "1".into())]);
    world.faults.disk_full = true;
    let refused = outcome(&mut world, alice, &publish(NODE, "2", "x"));
    assert_eq!(refused, "internal-server-error");
    assert_eq!(events(&world.received(bob)), []);
    assert_eq!(items_of(&mut world, bob, ALICE, NODE), ["1"]);
    world.faults.disk_full = false;
    assert_eq!(
        outcome(&mut world, alice, &publish(NODE, "3", "x")),
        "result"
    );
    assert_eq!(events(&world.received(bob)), [(ALICE.into(), "3".into())]);
}

#[test]
fn what_was_answered_survives_a_crash_and_goes_with_its_account() {
    for shards in 1..=3 {
        let mut world = World::of_three(8, shards);
        world.befriend(ALICE, BOB);
        let alice = world.log_in("alice@example.org/x");
        assert_eq!(
            outcome(&mut world, alice, &publish(NODE, "1", "x")),
            "result"
        );
        world.crash();
        world.run();
        // Nobody of the account is there; its last item comes all the same.
        let (bob, received) = follower(&mut world, "bob@example.org/x");
        assert_eq!(events(&received), [(ALICE.into(), "1".into())]);
        assert_eq!(items_of(&mut world, bob, ALICE, NODE), ["1"]);
        let _told = world.delete(ALICE);
        world.run();
        world.add_account(ALICE, "secret");
        let alice = world.log_in("alice@example.org/x");
        let answer = outcome(&mut world, alice, &read(ALICE, NODE));
        assert_eq!(answer, "item-not-found");
        world.check_rest();
    }
}

#[test]
fn a_session_that_comes_back_after_a_crash_is_asked_and_told_again() {
    let mut world = World::of_three(9, 2);
    world.befriend(ALICE, BOB);
    let (bob, id) = world.log_in_managed("bob@example.org/x");
    world.tell(bob, &presence());
    let mut received = tell_caps(&mut world, bob);
    received.extend(world.received(bob));
    let had = sim::steps::counted(&received);
    world.crash();
    world.run();
    let alice = world.log_in("alice@example.org/x");
    assert_eq!(
        outcome(&mut world, alice, &publish(NODE, "1", "x")),
        "result"
    );
    let bob = world.resume("bob@example.org/x", &id, had);
    let mut received = tell_caps(&mut world, bob);
    received.extend(world.received(bob));
    assert_eq!(events(&received), [(ALICE.into(), "1".into())]);
    assert_eq!(
        outcome(&mut world, alice, &publish(NODE, "2", "x")),
        "result"
    );
    assert_eq!(events(&world.received(bob)), [(ALICE.into(), "2".into())]);
}

#[test]
fn whoever_is_let_in_has_the_last_items() {
    let mut world = World::of_three(10, 2);
    let alice = world.arrive("alice@example.org/x");
    assert_eq!(
        outcome(&mut world, alice, &publish(NODE, "1", "x")),
        "result"
    );
    let (bob, received) = follower(&mut world, "bob@example.org/x");
    assert_eq!(events(&received), []);
    world.tell(bob, "<presence type='subscribe' to='alice@example.org'/>");
    assert_eq!(events(&world.received(bob)), []);
    world.tell(alice, "<presence type='subscribed' to='bob@example.org'/>");
    assert_eq!(events(&world.received(bob)), [(ALICE.into(), "1".into())]);
    // And no more of them when that is over.
    world.tell(
        alice,
        "<presence type='unsubscribed' to='bob@example.org'/>",
    );
    assert_eq!(
        outcome(&mut world, alice, &publish(NODE, "2", "x")),
        "result"
    );
    assert_eq!(events(&world.received(bob)), []);
}

#[test]
fn so_many_accounts_are_asked_for_their_last_items_at_once() {
    const CONTACTS: usize = 3 * LAST_ITEMS_UNDER_WAY_MAX;
    let mut world = World::of_three(11, 2);
    for number in 0..CONTACTS {
        let contact = format!("n{number}@example.org");
        world.add_account(&contact, "secret");
        world.befriend(BOB, &contact);
        let client = world.log_in(&format!("{contact}/x"));
        assert_eq!(
            outcome(&mut world, client, &publish(NODE, "1", "x")),
            "result"
        );
        world.leave(client);
    }
    world.run();
    let (first, received) = follower(&mut world, "bob@example.org/first");
    assert_eq!(events(&received).len(), CONTACTS);
    world.received(first);
    world.faults.disk_us = (5_000, 5_000);
    let second = world.log_in("bob@example.org/second");
    world.send(second, &presence());
    let mut peak = 0;
    for _ in 0..CONTACTS {
        world.run_for(1);
        let under_way = world.shards().map(|shard| shard.last_items_under_way());
        peak = peak.max(under_way.max().unwrap_or(0));
    }
    assert_eq!(peak, LAST_ITEMS_UNDER_WAY_MAX);
    world.run();
    assert_eq!(events(&world.received(second)).len(), CONTACTS);
    let under_way: usize = world.shards().map(|it| it.last_items_under_way()).sum();
    assert_eq!(under_way, 0);
}

#[test]
fn so_many_requests_wait_for_one_account_and_further_ones_are_refused() {
    flood(JOBS_PER_ACCOUNT_MAX, true);
    // Fewer where strangers ask.
    flood(STRANGERS_JOBS_MAX, false);
}

fn flood(jobs_max: usize, are_contacts: bool) {
    const EACH: usize = 30;
    let count = jobs_max / EACH + 4;
    let mut world = World::of_three(12, 2);
    let clients: Vec<ClientId> = (0..count)
        .map(|number| {
            let jid = format!("n{number}@example.org");
            world.add_account(&jid, "secret");
            if are_contacts {
                world.befriend(ALICE, &jid);
            }
            world.log_in(&format!("{jid}/x"))
        })
        .collect();
    let alice = world.log_in("alice@example.org/x");
    assert_eq!(
        outcome(&mut world, alice, &publish("n", "1", "x")),
        "result"
    );
    world.faults.disk_us = (500_000, 500_000);
    for &client in &clients {
        world.send(client, &read(ALICE, "n").repeat(EACH));
    }
    world.run_for(100);
    let waiting: usize = world.shards().map(|it| it.node_request_count()).sum();
    assert_eq!(waiting, jobs_max);
    world.faults.disk_us = (10, 20);
    world.run();
    let mut refused = 0;
    for client in clients {
        let answers = world.received(client);
        assert_eq!(
            answers.iter().filter(|it| it.attr("id") == "read").count(),
            EACH
        );
        let is_refused = |it: &&Element| it.condition() == "resource-constraint";
        let errors = answers.iter().filter(|it| it.attr("type") == "error");
        refused += errors.filter(is_refused).count();
    }
    assert_eq!(refused, count * EACH - jobs_max);
    assert_eq!(
        outcome(&mut world, alice, &publish("n", "2", "x")),
        "result"
    );
    world.check_rest();
}

/// What contacts publish does not end the session of a client that acknowledges late.
#[test]
fn a_client_that_acknowledges_nothing_goes_without_events_and_stays() {
    let mut world = World::of_three(7, 2);
    world.befriend(ALICE, BOB);
    let alice = world.log_in("alice@example.org/x");
    let (bob, _) = world.log_in_managed("bob@example.org/x");
    world.tell(bob, &presence());
    tell_caps(&mut world, bob);
    let long = "x".repeat(60_000);
    let mut came = 0;
    for number in 0..100 {
        let published = publish(NODE, &number.to_string(), &long);
        assert_eq!(outcome(&mut world, alice, &published), "result");
        came += events(&world.received(bob)).len();
    }
    assert!((20..60).contains(&came), "{came}");
    assert!(world.client(bob).is_online());
    assert!(world.client(bob).stream_error.is_none());
}
