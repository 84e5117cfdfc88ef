//! Upgrades of SASL mechanisms (XEP-0480): accounts that lack the key of a hash are given it by
//! their client, and by nobody else.

use sim::scram::{Hash, Scram, plain, salted};
use sim::{ClientId, Element, Faults, World};
use stanza::jid::BareJid;
use xmpp::Settings;
use xmpp::port::{Credentials, StoreOp, StoreReply};
use xmpp::stream::sasl::{Mechanism, SALT_SIZE, derive_credentials};

const SASL2: &str = "xmlns='urn:xmpp:sasl:2'";
const USER_AGENT: &str = "<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'/>";
const SHA256: &str = "<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-256</upgrade>";
const SHA512: &str = "<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-512</upgrade>";
const SHA1: &str = "<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-1</upgrade>";
const NEXT: &str = "<next xmlns='urn:xmpp:sasl:2' task='UPGR-SCRAM-SHA-256'/>";

/// A world in which both better hashes are lacked by somebody: by alice, and bob has all.
fn world(shards: u16) -> World {
    let settings = Settings {
        shards,
        upgrades: vec![Mechanism::ScramSha256, Mechanism::ScramSha512],
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(u64::from(shards), settings, Faults::calm());
    world.add_account("bob@example.org", "secret");
    let salts = [[7; SALT_SIZE]; 3];
    let all = derive_credentials("secret", &salts, 1).expect("a good password");
    let made = world.perform(StoreOp::CreateAccount {
        account: alice(),
        credentials: Box::new(Credentials {
            sha1: all.sha1,
            ..Credentials::default()
        }),
    });
    assert_eq!(made, StoreReply::Done);
    world
}

fn alice() -> BareJid {
    BareJid::parse("alice@example.org").expect("a good address")
}

fn keys(world: &mut World) -> Credentials {
    let account = alice();
    match world.perform(StoreOp::Credentials { account }) {
        StoreReply::Credentials(Some(keys)) => *keys,
        other => panic!("{other:?}"),
    }
}

/// Which of alice's three keys there are.
fn has(world: &mut World) -> [bool; 3] {
    let keys = keys(world);
    [&keys.sha1, &keys.sha256, &keys.sha512].map(Option::is_some)
}

fn open(world: &mut World) -> ClientId {
    let client = world.connect_raw_by_tls();
    let header = sim::client::header("example.org");
    world.tell(client, &String::from_utf8_lossy(&header));
    let features = world.received(client);
    let offer = features[1].child("authentication").expect("it is offered");
    let upgrades = offer.children.iter().filter(|it| it.name == "upgrade");
    let names: Vec<&str> = upgrades.map(|it| &*it.text).collect();
    assert_eq!(names, ["UPGR-SCRAM-SHA-256", "UPGR-SCRAM-SHA-512"]);
    client
}

fn ask(world: &mut World, client: ClientId, text: &str) -> Vec<Element> {
    world.tell(client, text);
    world.received(client)
}

fn names(got: &[Element]) -> Vec<&str> {
    got.iter().map(|it| &*it.name).collect()
}

/// Somebody proves a password by PLAIN; gives what he hears.
fn by_plain(world: &mut World, client: ClientId, user: &str, inner: &str) -> Vec<Element> {
    let proof = plain(user, "secret");
    let asked = format!(
        "<authenticate {SASL2} mechanism='PLAIN'><initial-response>{proof}</initial-response>\
         {inner}</authenticate>"
    );
    ask(world, client, &asked)
}

/// Somebody proves alice's password by SCRAM; gives what she hears, and the exchange.
fn by_scram(
    world: &mut World,
    client: ClientId,
    (hash, mechanism): (Hash, &str),
    inner: &str,
) -> (Vec<Element>, Scram) {
    let (mut scram, first) = Scram::start_with(hash, "alice", "secret", "nonce", None);
    let got = ask(
        world,
        client,
        &format!(
            "<authenticate {SASL2} mechanism='{mechanism}'>\
             <initial-response>{first}</initial-response>{inner}</authenticate>"
        ),
    );
    let response = scram.respond(&got[0].text).expect("a good challenge");
    let got = ask(
        world,
        client,
        &format!("<response {SASL2}>{response}</response>"),
    );
    (got, scram)
}

/// The task that is to be done next.
fn task(got: &[Element]) -> &str {
    assert_eq!(names(got), ["continue"], "{got:?}");
    let tasks = got[0].child("tasks").expect("what is to be done");
    assert_eq!(tasks.children.len(), 1, "XEP-0480 2: a single task");
    &tasks.children[0].text
}

/// What answers the salt of a task.
fn hash_for(got: &[Element], hash: Hash, password: &str) -> String {
    assert_eq!(names(got), ["task-data"], "{got:?}");
    let salt = got[0].child("salt").expect("there is a salt");
    assert_eq!(salt.ns, "urn:xmpp:scram-upgrade:0");
    let rounds = salt.attr("iterations").parse().expect("a number");
    let hash = salted(hash, password, &salt.text, rounds).expect("a good salt");
    task_data(&hash)
}

fn task_data(hash: &str) -> String {
    format!("<task-data {SASL2}><hash xmlns='urn:xmpp:scram-upgrade:0'>{hash}</hash></task-data>")
}

/// XEP-0480 3: the example, and what it is for.
#[test]
fn who_logs_in_with_an_old_hash_has_the_new_one_afterwards_and_the_old_one_too() {
    for shards in [1, 3] {
        let mut world = world(shards);
        let client = open(&mut world);
        let old = (Hash::Sha1, "SCRAM-SHA-1");
        let inner = format!("{USER_AGENT}{SHA256}{SHA512}");
        let (got, scram) = by_scram(&mut world, client, old, &inner);
        assert_eq!(task(&got), "UPGR-SCRAM-SHA-512");
        // XEP-0388 2.6.3: the proof of the server comes with the first of them.
        let data = got[0].child("additional-data").expect("the server proves");
        scram.verify(&data.text).expect("it knows the password");
        let next = format!("<next {SASL2} task='UPGR-SCRAM-SHA-512'/>");
        let salt = ask(&mut world, client, &next);
        let got = ask(&mut world, client, &hash_for(&salt, Hash::Sha512, "secret"));
        assert_eq!(task(&got), "UPGR-SCRAM-SHA-256");
        assert!(got[0].child("additional-data").is_none(), "{got:?}");
        let salt = ask(&mut world, client, NEXT);
        let got = ask(&mut world, client, &hash_for(&salt, Hash::Sha256, "secret"));
        assert_eq!(names(&got), ["success", "features"]);
        let identity = got[0].child("authorization-identifier");
        assert_eq!(identity.expect("who it is").text, "alice@example.org");
        assert_eq!(has(&mut world), [true; 3]);
        for way in [
            (Hash::Sha1, "SCRAM-SHA-1"),
            (Hash::Sha256, "SCRAM-SHA-256"),
            (Hash::Sha512, "SCRAM-SHA-512"),
        ] {
            let client = open(&mut world);
            let (got, scram) = by_scram(&mut world, client, way, &inner);
            // There is nothing left to do.
            assert_eq!(names(&got), ["success", "features"], "{way:?}");
            let data = got[0].child("additional-data").expect("the server proves");
            scram.verify(&data.text).expect("it knows the password");
        }
        world.check_rest();
    }
}

#[test]
fn nothing_is_asked_of_who_lacks_nothing_wants_nothing_or_wants_what_is_not_offered() {
    let mut world = world(1);
    for (user, inner) in [
        ("bob", SHA256),
        ("alice", ""),
        ("alice", SHA1),
        (
            "alice",
            "<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>SCRAM-SHA-256</upgrade>",
        ),
        (
            "alice",
            "<upgrade xmlns='urn:example'>UPGR-SCRAM-SHA-256</upgrade>",
        ),
    ] {
        let client = open(&mut world);
        let got = by_plain(&mut world, client, user, inner);
        assert_eq!(names(&got), ["success", "features"], "{user} {inner}");
        // What nobody asked for is no part of a session.
        let got = ask(&mut world, client, &task_data("AAAA"));
        assert_eq!(names(&got), Vec::<&str>::new(), "{user} {inner}");
        let error = world.client(client).stream_error.as_deref();
        assert_eq!(error, Some("unsupported-stanza-type"), "{user} {inner}");
    }
    assert_eq!(has(&mut world), [true, false, false]);
}

#[test]
fn who_has_not_proved_the_password_gives_no_key() {
    let mut world = world(1);
    let client = open(&mut world);
    let proof = plain("alice", "guess");
    let got = ask(
        &mut world,
        client,
        &format!(
            "<authenticate {SASL2} mechanism='PLAIN'>\
             <initial-response>{proof}</initial-response>{SHA256}</authenticate>"
        ),
    );
    assert_eq!(names(&got), ["failure"]);
    // As long as one is.
    let hash = salted(Hash::Sha256, "secret", "c2FsdA==", 1).expect("a good salt");
    let got = ask(&mut world, client, &format!("{NEXT}{}", task_data(&hash)));
    assert!(!names(&got).contains(&"task-data"), "{got:?}");
    assert_eq!(has(&mut world), [true, false, false]);
}

#[test]
fn who_has_a_token_and_no_password_gives_no_key() {
    let mut world = world(1);
    let client = open(&mut world);
    let token = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>";
    let inner = format!("{USER_AGENT}{token}");
    let got = by_plain(&mut world, client, "alice", &inner);
    let token = got[0]
        .child("token")
        .expect("a token")
        .attr("token")
        .to_owned();
    let client = open(&mut world);
    let proof = sim::token::proof("alice", &token, b"");
    let got = ask(
        &mut world,
        client,
        &format!(
            "<authenticate {SASL2} mechanism='HT-SHA-256-NONE'>\
             <initial-response>{proof}</initial-response>{USER_AGENT}\
             <fast xmlns='urn:xmpp:fast:0'/>{SHA256}</authenticate>"
        ),
    );
    assert_eq!(names(&got), ["success", "features"]);
    assert_eq!(has(&mut world), [true, false, false]);
}

#[test]
fn a_task_that_goes_wrong_ends_the_stream_and_leaves_the_keys() {
    const MALFORMED: &str = "malformed-request";
    let short = task_data("AAAA");
    let odd = task_data("not base64");
    let empty = format!("<task-data {SASL2}/>");
    let abort = format!("<abort {SASL2}/>");
    let other = format!("<next {SASL2} task='UPGR-SCRAM-SHA-512'/>");
    for (said, condition) in [
        (other.as_str(), MALFORMED),
        // A step too early, one too late, and one twice.
        (&short, MALFORMED),
        (&format!("{NEXT}{NEXT}"), MALFORMED),
        (&format!("{NEXT}{short}"), MALFORMED),
        (&format!("{NEXT}{odd}"), MALFORMED),
        (&format!("{NEXT}{empty}"), MALFORMED),
        (&format!("{NEXT}{abort}"), "aborted"),
        (&abort, "aborted"),
        (&format!("<response {SASL2}/>"), MALFORMED),
    ] {
        let mut world = world(1);
        let client = open(&mut world);
        let got = by_plain(&mut world, client, "alice", SHA256);
        assert_eq!(task(&got), "UPGR-SCRAM-SHA-256");
        let got = ask(&mut world, client, said);
        let failure = got.iter().find(|it| it.name == "failure");
        assert_eq!(failure.expect("it fails").condition(), condition, "{said}");
        let error = world.client(client).stream_error.as_deref();
        assert_eq!(error, Some("policy-violation"), "{said}");
        assert_eq!(has(&mut world), [true, false, false], "{said}");
        world.check_rest();
    }
}

#[test]
fn nothing_but_the_task_is_said_until_it_is_done() {
    let again = format!("<authenticate {SASL2} mechanism='PLAIN'/>");
    let ping = "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>";
    let bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
    for said in [&*again, ping, bind, "\n", &format!("{NEXT}\n")] {
        let mut world = world(1);
        let client = open(&mut world);
        by_plain(&mut world, client, "alice", SHA256);
        ask(&mut world, client, said);
        let error = world.client(client).stream_error.as_deref();
        assert_eq!(error, Some("policy-violation"), "{said}");
        world.check_rest();
    }
}

/// A salt is good once: what answered one answers no other.
#[test]
fn what_was_salted_for_one_task_is_another_password_for_the_next() {
    let mut world = world(1);
    let client = open(&mut world);
    by_plain(&mut world, client, "alice", SHA256);
    let salt = ask(&mut world, client, NEXT);
    let spied = hash_for(&salt, Hash::Sha256, "secret");
    world.vanish(client);
    world.run();
    assert_eq!(has(&mut world), [true, false, false]);
    let client = open(&mut world);
    by_plain(&mut world, client, "alice", SHA256);
    let again = ask(&mut world, client, NEXT);
    assert_ne!(salt[0], again[0]);
    // The key that it makes is one of another salt: it is none of the password's.
    ask(&mut world, client, &spied);
    assert_eq!(has(&mut world), [true, true, false]);
    let client = open(&mut world);
    let way = (Hash::Sha256, "SCRAM-SHA-256");
    assert_eq!(names(&by_scram(&mut world, client, way, "").0), ["failure"]);
}

/// A client proves alice's old password, of which she has a new one in storage before her shard
/// hears of it; what it is told behind that.
fn by_the_old_password(world: &mut World, inner: &str) -> Vec<Element> {
    let client = open(world);
    let (mut scram, first) = Scram::start_with(Hash::Sha1, "alice", "secret", "nonce", None);
    let asked = format!(
        "<authenticate {SASL2} mechanism='SCRAM-SHA-1'>\
         <initial-response>{first}</initial-response>{inner}</authenticate>"
    );
    let got = ask(world, client, &asked);
    let response = scram.respond(&got[0].text).expect("a good challenge");
    store_new_keys(world);
    let response = format!("<response {SASL2}>{response}</response>");
    ask(world, client, &response)
}

fn store_new_keys(world: &mut World) {
    let salts = [[8; SALT_SIZE]; 3];
    let set = StoreOp::SetCredentials {
        account: alice(),
        credentials: Box::new(derive_credentials("other", &salts, 1).expect("a good password")),
        keeps: None,
    };
    assert_eq!(world.perform(set), StoreReply::Done);
}

#[test]
fn a_token_that_an_old_password_brought_ends_with_it() {
    for shards in [1, 3] {
        let mut world = world(shards);
        let token = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>";
        let got = by_the_old_password(&mut world, &format!("{USER_AGENT}{token}"));
        // Her shard could not know.
        let token = got[0].child("token").expect("a token");
        let proof = sim::token::proof("alice", token.attr("token"), b"");
        let heard = world.tell_new_keys(alice());
        world.run();
        assert_eq!(
            heard.try_recv(),
            Ok(StoreReply::Done),
            "her shard has heard of it"
        );
        let client = open(&mut world);
        let got = ask(
            &mut world,
            client,
            &format!(
                "<authenticate {SASL2} mechanism='HT-SHA-256-NONE'>\
                 <initial-response>{proof}</initial-response>{USER_AGENT}\
                 <fast xmlns='urn:xmpp:fast:0'/></authenticate>"
            ),
        );
        assert_eq!(names(&got), ["failure"], "{got:?}");
        let agents = world.perform(StoreOp::UserAgents { account: alice() });
        assert_eq!(agents, StoreReply::UserAgents(Vec::new()));
        world.check_rest();
    }
}

#[test]
fn a_task_of_an_old_password_lets_nobody_in_where_storage_has_a_new_one() {
    for is_gone in [false, true] {
        let mut world = world(1);
        let client = open(&mut world);
        by_plain(&mut world, client, "alice", SHA256);
        let salt = ask(&mut world, client, NEXT);
        match is_gone {
            false => store_new_keys(&mut world),
            true => {
                let gone = world.perform(StoreOp::DeleteAccount { account: alice() });
                assert_eq!(gone, StoreReply::Done);
            }
        }
        let answer = hash_for(&salt, Hash::Sha256, "secret");
        let got = ask(&mut world, client, &answer);
        assert_eq!(names(&got), ["failure"]);
        assert_eq!(got[0].condition(), "temporary-auth-failure");
        let error = world.client(client).stream_error.as_deref();
        assert_eq!(error, Some("policy-violation"));
        world.check_rest();
    }
}

#[test]
fn two_clients_that_give_the_same_key_are_both_let_in_and_the_first_key_stays() {
    let mut world = world(1);
    let clients = [open(&mut world), open(&mut world)];
    let answers = clients.map(|client| {
        by_plain(&mut world, client, "alice", SHA256);
        let salt = ask(&mut world, client, NEXT);
        hash_for(&salt, Hash::Sha256, "secret")
    });
    let got = ask(&mut world, clients[0], &answers[0]);
    assert_eq!(names(&got), ["success", "features"]);
    let first = keys(&mut world);
    let got = ask(&mut world, clients[1], &answers[1]);
    assert_eq!(names(&got), ["success", "features"]);
    assert_eq!(keys(&mut world), first);
    assert!(first.sha256.is_some());
}

#[test]
fn whoever_gives_an_account_new_keys_hears_that_tokens_of_the_old_ones_may_be_left() {
    let mut world = world(1);
    let heard = world.set_password("alice@example.org", "other");
    world.faults.disk_full = true;
    world.run();
    let told = heard.try_recv();
    assert!(matches!(told, Ok(StoreReply::Failed(_))), "{told:?}");
}

#[test]
fn a_new_password_ends_a_task() {
    let mut world = world(1);
    let client = open(&mut world);
    by_plain(&mut world, client, "alice", SHA256);
    ask(&mut world, client, NEXT);
    let heard = world.set_password("alice@example.org", "other");
    world.run();
    assert_eq!(
        heard.try_recv(),
        Ok(StoreReply::Done),
        "its shard has heard of it"
    );
    let new = keys(&mut world);
    let error = world.client(client).stream_error.as_deref();
    assert_eq!(error, Some("reset"));
    assert_eq!(keys(&mut world), new);
}

#[test]
fn a_key_on_its_way_to_storage_comes_to_nothing_with_a_new_password() {
    let mut world = world(1);
    world.faults.disk_us = (50_000, 50_000);
    let client = open(&mut world);
    by_plain(&mut world, client, "alice", SHA256);
    let salt = ask(&mut world, client, NEXT);
    let answer = hash_for(&salt, Hash::Sha256, "secret");
    world.send(client, &answer);
    world.run_for(20);
    let heard = world.set_password("alice@example.org", "other");
    let new = keys(&mut world);
    world.run();
    assert_eq!(
        heard.try_recv(),
        Ok(StoreReply::Done),
        "its shard has heard of it"
    );
    assert!(!names(&world.received(client)).contains(&"success"));
    assert_eq!(keys(&mut world), new);
    world.check_rest();
}

#[test]
fn a_client_whose_key_storage_does_not_take_is_let_in_and_gives_it_the_next_time() {
    let mut world = world(1);
    for (is_full, expected) in [(true, [true, false, false]), (false, [true, true, false])] {
        world.faults.disk_full = is_full;
        let client = open(&mut world);
        by_plain(&mut world, client, "alice", SHA256);
        let salt = ask(&mut world, client, NEXT);
        let answer = hash_for(&salt, Hash::Sha256, "secret");
        let got = ask(&mut world, client, &answer);
        assert_eq!(names(&got), ["success", "features"]);
        assert_eq!(has(&mut world), expected);
    }
}

#[test]
fn where_nobody_lacks_a_key_no_upgrade_is_offered() {
    let mut world = World::of_three(1, 1);
    let client = world.connect_raw_by_tls();
    let header = sim::client::header("example.org");
    world.tell(client, &String::from_utf8_lossy(&header));
    let features = world.received(client);
    let offer = features[1].child("authentication").expect("it is offered");
    assert!(offer.child("upgrade").is_none(), "{offer:?}");
    let got = by_plain(&mut world, client, "alice", SHA256);
    assert_eq!(names(&got), ["success", "features"]);
}
