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

#[path = "eventing/bookmarks.rs"]
mod bookmarks;
#[path = "eventing/conversions.rs"]
mod conversions;

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
    world_by(settings, names)
}

/// One of alice alone, where bookmarks are converted or not.
fn of_alice(limits: Limits, converts_bookmarks: bool) -> World {
    let settings = Settings {
        shards: 2,
        limits,
        converts_bookmarks,
        ..Settings::for_tests("example.org")
    };
    world_by(settings, &["alice"])
}

fn world_by(settings: Settings, names: &[&str]) -> World {
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

fn subscribe(node: &str, jid: &str) -> String {
    format!(
        "<iq type='set' id='s' to='{ALICE}'><pubsub \
         xmlns='http://jabber.org/protocol/pubsub'><subscribe node='{node}' jid='{jid}'/>\
         </pubsub></iq>"
    )
}

/// How many are subscribed to a node of the client's own account.
fn subscriber_count(world: &mut World, client: ClientId, node: &str) -> usize {
    let asked = format!(
        "<iq type='get' id='l'><pubsub xmlns='http://jabber.org/protocol/pubsub#owner'>\
         <subscriptions node='{node}'/></pubsub></iq>"
    );
    let answers = ask(world, client, &asked);
    let all = answers
        .iter()
        .find_map(|it| it.child("pubsub")?.child("subscriptions"));
    all.expect("the list is there").children.len()
}

/// XEP-0163 7.1
#[test]
fn who_loses_access_is_not_subscribed_any_more_when_he_gets_it_back() {
    let remove = "<iq type='set' id='r'><query xmlns='jabber:iq:roster'>\
                  <item jid='bob@example.org' subscription='remove'/></query></iq>";
    let ends = [
        (true, "<presence type='unsubscribed' to='bob@example.org'/>"),
        (
            false,
            "<presence type='unsubscribe' to='alice@example.org'/>",
        ),
        (true, remove),
    ];
    for shards in 1..=2 {
        let mut world = World::of_three(13, shards);
        world.befriend(ALICE, BOB);
        let alice = world.log_in("alice@example.org/x");
        let bob = world.log_in("bob@example.org/x");
        assert_eq!(
            outcome(&mut world, alice, &publish("n", "0", "x")),
            "result"
        );
        for (number, (is_by_owner, end)) in ends.into_iter().enumerate() {
            let asked = subscribe("n", "bob@example.org/x");
            assert_eq!(outcome(&mut world, bob, &asked), "result");
            assert_eq!(subscriber_count(&mut world, alice, "n"), 1);
            world.tell(if is_by_owner { alice } else { bob }, end);
            assert_eq!(subscriber_count(&mut world, alice, "n"), 0, "{end}");
            world.tell(bob, "<presence type='subscribe' to='alice@example.org'/>");
            world.tell(alice, "<presence type='subscribed' to='bob@example.org'/>");
            world.received(bob);
            let published = publish("n", &number.to_string(), "x");
            assert_eq!(outcome(&mut world, alice, &published), "result");
            assert_eq!(events(&world.received(bob)), [], "{end}");
            // He may read it, and subscribe again.
            assert_eq!(items_of(&mut world, bob, ALICE, "n"), [number.to_string()]);
        }
        world.check_rest();
    }
}

#[test]
fn a_subscription_ends_when_the_node_or_a_group_is_for_others() {
    let mut world = World::of_three(14, 2);
    world.befriend(ALICE, BOB);
    let alice = world.log_in("alice@example.org/x");
    let bob = world.log_in("bob@example.org/x");
    assert_eq!(
        outcome(&mut world, alice, &publish("n", "0", "x")),
        "result"
    );
    let configure = |access: &str| {
        owners(&format!(
            "<configure node='n'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>\
             <value>http://jabber.org/protocol/pubsub#node_config</value></field>\
             <field var='pubsub#access_model'><value>{access}</value></field>\
             <field var='pubsub#roster_groups_allowed'><value>Friends</value></field></x>\
             </configure>"
        ))
    };
    let group = |name: &str| {
        format!(
            "<iq type='set' id='g'><query xmlns='jabber:iq:roster'><item \
             jid='bob@example.org'><group>{name}</group></item></query></iq>"
        )
    };
    let affiliation = |what: &str| {
        owners(&format!(
            "<affiliations node='n'><affiliation jid='{BOB}' affiliation='{what}'/></affiliations>"
        ))
    };
    let steps = [
        (String::new(), configure("whitelist")),
        (group("Friends"), group("Others")),
        (affiliation("member"), affiliation("none")),
    ];
    for (place, (before, after)) in steps.into_iter().enumerate() {
        match place {
            0 => {}
            1 => assert_eq!(outcome(&mut world, alice, &configure("roster")), "result"),
            _ => assert_eq!(
                outcome(&mut world, alice, &configure("whitelist")),
                "result"
            ),
        }
        if place > 0 {
            assert_eq!(outcome(&mut world, alice, &before), "result");
        }
        let asked = subscribe("n", "bob@example.org/x");
        assert_eq!(outcome(&mut world, bob, &asked), "result");
        assert_eq!(subscriber_count(&mut world, alice, "n"), 1);
        assert_eq!(outcome(&mut world, alice, &after), "result");
        assert_eq!(subscriber_count(&mut world, alice, "n"), 0, "{after}");
    }
    world.check_rest();
}

/// XEP-0398 4, over a crash of the process: the account comes from storage with its picture.
#[test]
fn the_hash_of_a_picture_is_known_after_a_crash() {
    const HASH: &str = "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d";
    let mut world = World::of_three(15, 2);
    world.befriend(ALICE, BOB);
    let alice = world.log_in("alice@example.org/x");
    let card = "<iq type='set' id='v'><vCard xmlns='vcard-temp'><PHOTO>\
                <BINVAL>aGVsbG8=</BINVAL></PHOTO></vCard></iq>";
    assert_eq!(outcome(&mut world, alice, card), "result");
    assert_eq!(
        items_of(&mut world, alice, ALICE, "urn:xmpp:avatar:metadata"),
        [HASH]
    );
    world.crash();
    world.run();
    let bob = world.arrive("bob@example.org/x");
    world.received(bob);
    world.arrive("alice@example.org/x");
    let received = world.received(bob);
    let said = received.iter().find_map(|it| it.child("x")?.child("photo"));
    assert_eq!(said.map(|photo| photo.text.as_str()), Some(HASH));
}

/// XEP-0398 4, where the administrator wants no nodes any more.
#[test]
fn a_picture_of_nodes_that_are_not_offered_any_more_is_not_said() {
    let mut world = World::of_three(16, 2);
    world.befriend(ALICE, BOB);
    let alice = world.log_in("alice@example.org/x");
    let card = "<iq type='set' id='v'><vCard xmlns='vcard-temp'><PHOTO>\
                <BINVAL>aGVsbG8=</BINVAL></PHOTO></vCard></iq>";
    assert_eq!(outcome(&mut world, alice, card), "result");
    world.set(|settings| settings.limits.nodes_max = 0);
    world.crash();
    world.run();
    let bob = world.arrive("bob@example.org/x");
    let alice = world.log_in("alice@example.org/x");
    world.received(bob);
    let said = "<presence><x xmlns='vcard-temp:x:update'><photo>its own</photo></x></presence>";
    world.tell(alice, said);
    let received = world.received(bob);
    let said = received.iter().find_map(|it| it.child("x")?.child("photo"));
    assert_eq!(said.map(|photo| photo.text.as_str()), Some("its own"));
}

/// XEP-0402 5.3: all of it is in one commit, or nothing is.
#[test]
fn bookmarks_that_find_no_room_are_refused_and_nothing_is_changed() {
    let limits = Limits {
        nodes_max: 2,
        item_size_max: 4_000,
        ..Limits::default()
    };
    let store = |name: &str| {
        format!(
            "<iq type='set' id='b'><query xmlns='jabber:iq:private'>\
             <storage xmlns='storage:bookmarks'><conference jid='a@b' name='{name}'/></storage>\
             </query></iq>"
        )
    };
    let kept = "<iq type='get' id='k'><query xmlns='jabber:iq:private'>\
                <storage xmlns='storage:bookmarks'/></query></iq>";
    let names = |world: &mut World, client| -> Vec<String> {
        let answers = ask(world, client, kept);
        let storage = answers
            .iter()
            .find_map(|it| it.child("query")?.child("storage"));
        let rooms = &storage.expect("an element is there").children;
        rooms.iter().map(|it| it.attr("name").to_owned()).collect()
    };
    let mut world = of_alice(limits, true);
    let alice = world.log_in("alice@example.org/x");
    assert_eq!(
        outcome(&mut world, alice, &publish("n", "1", "x")),
        "result"
    );
    // One of the two nodes has no room.
    let refused = outcome(&mut world, alice, &store("one"));
    assert_eq!(refused, "resource-constraint");
    assert_eq!(names(&mut world, alice), [""; 0]);
    let gone = outcome(&mut world, alice, &read(ALICE, "storage:bookmarks"));
    assert_eq!(gone, "item-not-found");
    assert_eq!(
        outcome(&mut world, alice, &owners("<delete node='n'/>")),
        "result"
    );
    assert_eq!(outcome(&mut world, alice, &store("one")), "result");
    let refused = outcome(&mut world, alice, &store(&"x".repeat(4_000)));
    assert_eq!(refused, "not-acceptable");
    assert_eq!(names(&mut world, alice), ["one"]);
    world.faults.disk_full = true;
    let refused = outcome(&mut world, alice, &store("two"));
    assert_eq!(refused, "internal-server-error");
    world.faults.disk_full = false;
    assert_eq!(names(&mut world, alice), ["one"]);
    assert_eq!(
        items_of(&mut world, alice, ALICE, "urn:xmpp:bookmarks:1"),
        ["a@b"]
    );
    // What is asked for behind a change is what that left.
    world.tell(alice, &(store("three") + kept));
    let answers = world.received(alice);
    let last = answers
        .iter()
        .find_map(|it| it.child("query")?.child("storage"));
    let last = last.and_then(|storage| storage.children.first());
    assert_eq!(last.map(|room| room.attr("name")), Some("three"));
    world.check_rest();
}

/// XEP-0402 5.3
#[test]
fn bookmarks_that_are_too_many_for_one_place_can_be_taken_away() {
    const LIST: &str = "urn:xmpp:bookmarks:1";
    let limits = Limits {
        item_size_max: 1_024,
        ..Limits::default()
    };
    let mut world = of_alice(limits, true);
    let alice = world.log_in("alice@example.org/x");
    let name = "x".repeat(400);
    let form = |kind: &str, access: &str| {
        format!(
            "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>\
             http://jabber.org/protocol/pubsub#{kind}</value></field><field \
             var='pubsub#max_items'><value>max</value></field><field \
             var='pubsub#access_model'><value>{access}</value></field></x>"
        )
    };
    let options = form("publish-options", "open");
    for room in ["a@b", "c@d", "e@f"] {
        let published = format!(
            "<iq type='set' id='p'><pubsub xmlns='http://jabber.org/protocol/pubsub'>\
             <publish node='{LIST}'><item id='{room}'><conference xmlns='{LIST}' name='{name}'/>\
             </item></publish><publish-options>{options}</publish-options></pubsub></iq>"
        );
        assert_eq!(outcome(&mut world, alice, &published), "result");
    }
    let form = form("node_config", "whitelist");
    let configured = owners(&format!("<configure node='{LIST}'>{form}</configure>"));
    assert_eq!(outcome(&mut world, alice, &configured), "result");
    let rooms = |world: &mut World| {
        let mut rooms = items_of(world, alice, ALICE, LIST);
        rooms.sort();
        rooms
    };
    assert_eq!(rooms(&mut world), ["a@b", "c@d", "e@f"]);
    let retracted = format!(
        "<iq type='set' id='r'><pubsub xmlns='http://jabber.org/protocol/pubsub'>\
         <retract node='{LIST}'><item id='a@b'/></retract></pubsub></iq>"
    );
    assert_eq!(outcome(&mut world, alice, &retracted), "result");
    assert_eq!(rooms(&mut world), ["c@d", "e@f"]);
    // From now on there is room for the rest everywhere.
    let all = items_of(&mut world, alice, ALICE, "storage:bookmarks");
    assert_eq!(all, ["current"]);
    world.check_rest();
}

#[test]
fn where_nobody_makes_nodes_cards_and_bookmarks_are_kept_and_nothing_is_announced() {
    let limits = Limits {
        nodes_max: 0,
        ..Limits::default()
    };
    let mut world = of_alice(limits, true);
    let alice = world.log_in("alice@example.org/x");
    let card = "<iq type='set' id='v'><vCard xmlns='vcard-temp'><PHOTO>\
                <BINVAL>aGVsbG8=</BINVAL></PHOTO></vCard></iq>";
    assert_eq!(outcome(&mut world, alice, card), "result");
    let rooms = "<iq type='set' id='b'><query xmlns='jabber:iq:private'><storage \
                 xmlns='storage:bookmarks'><conference jid='a@b'/></storage></query></iq>";
    assert_eq!(outcome(&mut world, alice, rooms), "result");
    let asked = format!("<iq type='get' id='d' to='{ALICE}'><query xmlns='{INFO}'/></iq>");
    let answers = ask(&mut world, alice, &asked);
    let query = answers.iter().find_map(|it| it.child("query"));
    let features = query.expect("it is told").children.iter();
    let features: Vec<&str> = features.map(|feature| feature.attr("var")).collect();
    let converted = ["pep-vcard-conversion", "urn:xmpp:bookmarks", "urn:xmpp:mds"];
    let is_said = |name: &&str| features.iter().any(|feature| feature.contains(name));
    assert_eq!(
        converted.iter().find(|name| is_said(name)),
        None,
        "{features:?}"
    );
    assert!(features.contains(&INFO));
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
