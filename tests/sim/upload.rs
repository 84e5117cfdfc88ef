//! Slots for files (XEP-0363): what is announced, who gets one, and what is said where he does not.

use sim::client::Proof;
use sim::files::{BROKEN, FULL, LATER};
use sim::{ClientId, Element, Faults, Login, Random, World};
use xmpp::Settings;
use xmpp::limit::REQUESTS_PER_SESSION_MAX;
use xmpp::xep::upload::UploadPolicy;

const UPLOAD: &str = "urn:xmpp:http:upload:0";
const INFO: &str = "<iq type='get' id='i' to='example.org'>\
                    <query xmlns='http://jabber.org/protocol/disco#info'/></iq>";

/// Two shards that take files of at most 1,000 bytes.
fn world(seed: u64, uploads: bool) -> World {
    let settings = Settings {
        shards: 2,
        uploads: uploads.then(|| UploadPolicy::new(1_000)),
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(seed, settings, Faults::rough(&mut Random::new(seed)));
    for name in ["alice", "bob"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    world
}

fn ask(world: &mut World, client: ClientId, text: &str) -> Element {
    world.send(client, text);
    world.run();
    let mut received = world.received(client);
    assert_eq!(received.len(), 1, "{text}: {received:?}");
    received.remove(0)
}

/// A request with these attributes and children.
fn wanted(attributes: &str, inner: &str) -> String {
    format!(
        "<iq type='get' id='s' to='example.org'><request xmlns='{UPLOAD}' {attributes}>{inner}\
         </request></iq>"
    )
}

/// The texts of the features, the identities and the form.
fn announced(world: &mut World, client: ClientId) -> (Vec<String>, Vec<String>, Vec<String>) {
    let info = ask(world, client, INFO);
    let query = info.child("query").expect("a result");
    let named = |name: &str, attribute: &str| {
        let all = query.children.iter().filter(|child| child.name == name);
        all.map(|child| child.attr(attribute).to_owned()).collect()
    };
    let fields = query.child("x").map_or_else(Vec::new, |form| {
        let fields = form.children.iter();
        let value = |field: &Element| field.child("value").map_or("", |it| &it.text).to_owned();
        fields
            .map(|field| format!("{}={}", field.attr("var"), value(field)))
            .collect()
    });
    (
        named("feature", "var"),
        named("identity", "category"),
        fields,
    )
}

/// XEP-0363 3
#[test]
fn the_server_says_that_it_takes_files_and_how_large_they_may_be() {
    let mut world = world(1, true);
    let alice = world.log_in("alice@example.org/a");
    let (features, identities, form) = announced(&mut world, alice);
    assert!(features.iter().any(|feature| feature == UPLOAD));
    assert_eq!(identities, ["server", "store"]);
    assert_eq!(
        form,
        [
            format!("FORM_TYPE={UPLOAD}"),
            "max-file-size=1000".to_owned()
        ]
    );
}

#[test]
fn a_server_that_takes_none_says_nothing_of_files() {
    let mut world = world(1, false);
    let alice = world.log_in("alice@example.org/a");
    let (features, identities, form) = announced(&mut world, alice);
    assert!(!features.iter().any(|feature| feature == UPLOAD));
    assert_eq!((identities.len(), form.len()), (1, 0));
    let answer = ask(&mut world, alice, &wanted("filename='a' size='1'", ""));
    assert_eq!(answer.condition(), "service-unavailable");
}

/// XEP-0363 4
#[test]
fn a_slot_has_where_to_put_a_file_with_which_header_and_where_it_is_then() {
    for seed in 1..4 {
        let mut world = world(seed, true);
        let alice = world.log_in("alice@example.org/a");
        let purpose = "<message xmlns='urn:xmpp:http:upload:purpose:0'/>";
        let attributes = "filename='a&amp;b.jpg' size='1000' content-type='image/jpeg'";
        let answer = ask(&mut world, alice, &wanted(attributes, purpose));
        assert_eq!(
            (answer.attr("type"), answer.attr("from")),
            ("result", "example.org")
        );
        let slot = answer.child("slot").expect("a slot");
        assert_eq!(slot.ns, UPLOAD);
        let put = slot.child("put").expect("where to put it");
        assert_eq!(
            put.attr("url"),
            "https://files.example/a&b.jpg?1000&image/jpeg"
        );
        let header = put.child("header").expect("a header");
        assert_eq!(header.attr("name"), "Authorization");
        assert_eq!(header.text, "Bearer alice@example.org");
        let get = slot.child("get").expect("where it is");
        assert_eq!(get.attr("url"), "https://files.example/a&b.jpg");
    }
}

/// XEP-0363 6
#[test]
fn what_cannot_be_kept_is_refused_with_what_is_known_of_the_reason() {
    let mut world = world(2, true);
    let alice = world.log_in("alice@example.org/a");
    let mut refused = |attributes: &str| {
        let answer = ask(&mut world, alice, &wanted(attributes, ""));
        let error = answer.child("error").expect("an error").clone();
        (
            answer.condition().to_owned(),
            error.attr("type").to_owned(),
            error,
        )
    };
    for size in ["1001", "99999999999999999999999"] {
        let (condition, kind, error) = refused(&format!("filename='a' size='{size}'"));
        assert_eq!((&*condition, &*kind), ("not-acceptable", "modify"));
        let reason = error.child("file-too-large").expect("the reason");
        assert_eq!(reason.ns, UPLOAD);
        assert_eq!(
            reason.child("max-file-size").expect("a number").text,
            "1000"
        );
    }
    let (condition, kind, error) = refused(&format!("filename='{LATER}' size='1'"));
    assert_eq!((&*condition, &*kind), ("resource-constraint", "wait"));
    let retry = error.child("retry").expect("a time");
    assert_eq!(
        (&*retry.ns, retry.attr("stamp")),
        (UPLOAD, "2001-09-09T01:46:40Z")
    );
    let (condition, _, error) = refused(&format!("filename='{FULL}' size='1'"));
    assert_eq!(condition, "resource-constraint");
    assert!(error.child("retry").is_none());
    let (condition, ..) = refused(&format!("filename='{BROKEN}' size='1'"));
    assert_eq!(condition, "internal-server-error");
}

#[test]
fn what_is_no_file_is_a_bad_request() {
    let mut world = world(3, true);
    let alice = world.log_in("alice@example.org/a");
    let long = "a".repeat(256);
    for attributes in [
        "",
        "filename='a'",
        "size='1'",
        "filename='' size='1'",
        "filename='..' size='1'",
        "filename='a/b' size='1'",
        "filename='a&#10;b' size='1'",
        &format!("filename='{long}' size='1'"),
        "filename='a' size='0'",
        "filename='a' size='-1'",
        "filename='a' size='+1'",
        "filename='a' size='1.5'",
        "filename='a' size=''",
        "filename='a' size='1' content-type='image'",
        "filename='a' size='1' content-type='a/b&#13;&#10;X: y'",
    ] {
        let answer = ask(&mut world, alice, &wanted(attributes, ""));
        assert_eq!(answer.condition(), "bad-request", "{attributes}");
    }
    let ephemeral = "<ephemeral xmlns='urn:xmpp:http:upload:purpose:0' \
                     expire-before='2030-01-01T00:00:00Z'/>";
    let answer = ask(
        &mut world,
        alice,
        &wanted("filename='a' size='1'", ephemeral),
    );
    assert_eq!(answer.condition(), "feature-not-implemented");
    let set = wanted("filename='a' size='1'", "").replace("'get'", "'set'");
    assert_eq!(ask(&mut world, alice, &set).condition(), "not-allowed");
}

#[test]
fn only_the_server_gives_slots_and_not_to_guests() {
    let mut world = world(4, true);
    let alice = world.log_in("alice@example.org/a");
    for to in ["alice@example.org", "bob@example.org"] {
        let request = wanted("filename='a' size='1'", "");
        let request = request.replace("to='example.org'", &format!("to='{to}'"));
        let answer = ask(&mut world, alice, &request);
        assert_eq!(answer.condition(), "service-unavailable", "{to}");
    }
    let mut login = Login::new("nobody@example.org/x", "");
    login.proof = Proof::Anonymous;
    let guest = world.connect(login);
    world.run();
    world.received(guest);
    let answer = ask(&mut world, guest, &wanted("filename='a' size='1'", ""));
    assert_eq!(answer.condition(), "forbidden");
}

#[test]
fn who_is_leaving_gets_no_slot() {
    let mut world = world(6, true);
    let alice = world.log_in("alice@example.org/a");
    let cancel = "<iq type='set' id='c'><query xmlns='jabber:iq:register'><remove/></query></iq>";
    let request = wanted("filename='a' size='1'", "");
    world.send(alice, &format!("{cancel}{request}"));
    world.run();
    let received = world.received(alice);
    let answer = received.iter().find(|answer| answer.attr("id") == "s");
    assert!(
        answer.is_some_and(|answer| answer.condition() == "unexpected-request"),
        "{received:?}"
    );
}

#[test]
fn many_requests_at_once_are_all_answered() {
    let mut world = world(5, true);
    let alice = world.log_in("alice@example.org/a");
    let count = 3 * usize::from(REQUESTS_PER_SESSION_MAX);
    let request = wanted("filename='a' size='1'", "");
    world.send(alice, &request.repeat(count));
    world.run();
    let received = world.received(alice);
    assert_eq!(received.len(), count);
    assert!(received.iter().all(|answer| answer.child("slot").is_some()));
}
