//! Tokens (XEP-0484) where something comes in between: time, storage, crashes, other connections;
//! and what ends them: a new password, their owner (XEP-0494), an operator.

use sim::scram::plain;
use sim::token::{answer, proof};
use sim::{ClientId, Element, Faults, World};
use stanza::jid::BareJid;
use xmpp::Settings;
use xmpp::port::{StoreOp, StoreReply, USER_AGENT_TEXT_SIZE_MAX, USER_AGENTS_MAX};

const PHONE: &str = "d4565fa7-4d72-4749-b3d3-740edbf87770";
const DESK: &str = "00000000-0000-0000-0000-000000000001";

const BIND: &str = "<bind xmlns='urn:xmpp:bind:0'>\
                    <enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>";
const PING: &str = "<iq type='get' id='p' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>";

const EXPORTER: &str = "HT-SHA-256-EXPR";
const END_POINT: &str = "HT-SHA-256-ENDP";
const NONE: &str = "HT-SHA-256-NONE";

const DAY_MS: u64 = 86_400_000;

/// How long a slow disk takes, in microseconds.
const SLOW_US: (u64, u64) = (100_000, 100_000);

fn user_agent(id: &str) -> String {
    format!("<user-agent id='{id}'><software>S</software><device>D</device></user-agent>")
}

fn request(mechanism: &str) -> String {
    format!("<request-token xmlns='urn:xmpp:fast:0' mechanism='{mechanism}'/>")
}

fn header() -> String {
    String::from_utf8(sim::client::header("example.org")).expect("it is text")
}

fn connect(world: &mut World) -> ClientId {
    let client = world.connect_raw_by_tls();
    world.run();
    client
}

fn by_password(id: &str, inner: &str) -> String {
    let (proof, agent) = (plain("alice", "secret"), user_agent(id));
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>\
         <initial-response>{proof}</initial-response>{agent}{inner}</authenticate>"
    )
}

/// What the elements are that a client gets for these, said in one flight with its header.
fn said(world: &mut World, client: ClientId, text: &str) -> Vec<Element> {
    world.tell(client, &format!("{}{text}", header()));
    let got = world.received(client);
    let mut got = got.into_iter();
    let first: Vec<String> = got.by_ref().take(2).map(|it| it.name).collect();
    assert_eq!(first, ["stream", "features"]);
    got.collect()
}

/// A token and when it ends, from `<success/>`.
fn token(got: &[Element]) -> Option<(String, String)> {
    let token = got.first()?.child("token")?;
    assert_eq!(token.ns, "urn:xmpp:fast:0");
    Some((token.attr("token").into(), token.attr("expiry").into()))
}

/// Alice logs in by her password and asks for a token.
fn first(world: &mut World, id: &str, mechanism: &str) -> String {
    let client = connect(world);
    let asked = by_password(id, &format!("{BIND}{}", request(mechanism)));
    let got = said(world, client, &asked);
    let (token, _) = token(&got).unwrap_or_else(|| panic!("no token in {got:?}"));
    world.leave(client);
    world.run();
    token
}

/// What a mechanism binds to on a client's connection.
fn channel(world: &World, client: ClientId, mechanism: &str) -> Vec<u8> {
    match mechanism {
        EXPORTER => world.client(client).exporter.to_vec(),
        END_POINT => vec![9; 32],
        _ => Vec::new(),
    }
}

fn by_token(user: &str, token: &str, channel: &[u8], mechanism: &str, inner: &str) -> String {
    let proof = proof(user, token, channel);
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'>\
         <initial-response>{proof}</initial-response>{inner}{BIND}</authenticate>"
    )
}

/// A login of alice's phone with a token by a mechanism: all that she gets behind the features.
fn again(world: &mut World, token: &str, mechanism: &str, fast: &str) -> Vec<Element> {
    let client = connect(world);
    let channel = channel(world, client, mechanism);
    let inner = format!("{}{fast}", user_agent(PHONE));
    let asked = by_token("alice", token, &channel, mechanism, &inner);
    let got = said(world, client, &asked);
    world.vanish(client);
    got
}

const FAST: &str = "<fast xmlns='urn:xmpp:fast:0'/>";

/// What a login came to: `success`, or why not.
fn outcome(got: &[Element]) -> &str {
    match &*got[0].name {
        "failure" => got[0].condition(),
        name => name,
    }
}

fn alice() -> BareJid {
    BareJid::parse("alice@example.org").expect("a good address")
}

#[test]
fn a_token_logs_in_by_one_flight_behind_tls_and_without_a_derivation() {
    for shards in [1, 2, 3] {
        for mechanism in [EXPORTER, END_POINT, NONE] {
            let mut world = World::of_three(shards.into(), shards);
            let token = first(&mut world, PHONE, mechanism);
            let derivations = world.derivations();
            assert!(derivations > 0, "by the password there was one");
            let client = connect(&mut world);
            let channel = channel(&world, client, mechanism);
            let inner = format!("{}{FAST}", user_agent(PHONE));
            let asked = by_token("alice", &token, &channel, mechanism, &inner);
            // One flight, and what comes of it: with that of TLS 1.3 these are two round trips.
            let got = said(&mut world, client, &asked);
            let names: Vec<&str> = got.iter().map(|it| &*it.name).collect();
            assert_eq!(names, ["success", "features"]);
            let bound = got[0].child("bound").expect("it is bound");
            assert!(bound.child("enabled").is_some(), "{got:?}");
            let said = got[0].child("additional-data").map(|it| &*it.text);
            assert_eq!(said, Some(&*answer(&token, &channel)));
            assert!(got[0].child("token").is_none(), "it is not due");
            assert_eq!(world.derivations(), derivations);
            world.tell(client, PING);
            assert_eq!(world.received(client)[0].attr("type"), "result");
            world.check_rest();
        }
    }
}

#[test]
fn a_token_is_good_for_its_account_its_user_agent_its_mechanism_and_its_channel() {
    let mut world = World::of_three(1, 1);
    let token = first(&mut world, PHONE, EXPORTER);
    first(&mut world, DESK, EXPORTER);
    let client = connect(&mut world);
    let own = channel(&world, client, EXPORTER);
    let try_with = |world: &mut World, user, token: &str, channel: &[u8], mechanism, id| {
        let inner = format!("{}{FAST}", user_agent(id));
        let client = connect(world);
        let exporter = self::channel(world, client, EXPORTER);
        let channel = if channel == own { &exporter } else { channel };
        let asked = by_token(user, token, channel, mechanism, &inner);
        outcome(&said(world, client, &asked)).to_owned()
    };
    for (user, token, channel, mechanism, id) in [
        ("bob", &*token, &own[..], EXPORTER, PHONE),
        ("nobody", &token, &own, EXPORTER, PHONE),
        ("alice", &token, &own, EXPORTER, DESK),
        ("alice", &token, b"", NONE, PHONE),
        ("alice", &token, &[9; 32], END_POINT, PHONE),
        ("alice", &token, &[8; 32], EXPORTER, PHONE),
        ("alice", "guess", &own, EXPORTER, PHONE),
    ] {
        let why = try_with(&mut world, user, token, channel, mechanism, id);
        assert_eq!(why, "not-authorized", "{user} {mechanism} {id}");
    }
    let why = try_with(&mut world, "alice", &token, &own, EXPORTER, PHONE);
    assert_eq!(why, "success");
}

#[test]
fn who_does_not_say_that_it_is_a_token_or_whose_or_says_nonsense_is_told_so() {
    let mut world = World::of_three(1, 1);
    let token = first(&mut world, PHONE, NONE);
    let phone = user_agent(PHONE);
    let fast = |attributes: &str| format!("{phone}<fast xmlns='urn:xmpp:fast:0' {attributes}/>");
    for inner in [
        phone.clone(),
        FAST.to_owned(),
        format!("<user-agent id='phone'/>{FAST}"),
        fast("count='0'"),
        fast("count='-1'"),
        fast("count='x'"),
        fast("count='4294967296'"),
        fast("invalidate='maybe'"),
    ] {
        let client = connect(&mut world);
        let asked = by_token("alice", &token, b"", NONE, &inner);
        assert_eq!(
            outcome(&said(&mut world, client, &asked)),
            "malformed-request",
            "{inner}"
        );
    }
    let client = connect(&mut world);
    let empty = format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{NONE}'>{}</authenticate>",
        fast("")
    );
    assert_eq!(
        outcome(&said(&mut world, client, &empty)),
        "malformed-request"
    );
    // The older profile has no tokens.
    let client = connect(&mut world);
    let proof = proof("alice", &token, b"");
    let asked =
        format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{NONE}'>{proof}</auth>");
    assert_eq!(
        outcome(&said(&mut world, client, &asked)),
        "invalid-mechanism"
    );
}

#[test]
fn a_token_is_given_to_user_agents_with_an_id_for_mechanisms_that_are_offered() {
    let mut world = World::of_three(1, 1);
    let plain = plain("alice", "secret");
    for (agent, mechanism, gets) in [
        (user_agent(PHONE), NONE, true),
        (user_agent("phone"), NONE, false),
        (String::new(), NONE, false),
        (user_agent(PHONE), "HT-SHA-256-UNIQ", false),
        (user_agent(PHONE), "SCRAM-SHA-1", false),
    ] {
        let client = connect(&mut world);
        let got = said(
            &mut world,
            client,
            &format!(
                "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>\
                 <initial-response>{plain}</initial-response>{agent}{}</authenticate>",
                request(mechanism)
            ),
        );
        assert_eq!(outcome(&got), "success");
        assert_eq!(token(&got).is_some(), gets, "{agent} {mechanism}");
    }
}

#[test]
fn a_count_that_was_used_is_not_used_again() {
    let mut world = World::of_three(1, 1);
    let token = first(&mut world, PHONE, NONE);
    let count = |count: u32| format!("<fast xmlns='urn:xmpp:fast:0' count='{count}'/>");
    for (number, expected) in [
        (3, "success"),
        (3, "not-authorized"),
        (2, "not-authorized"),
        (4, "success"),
    ] {
        let got = again(&mut world, &token, NONE, &count(number));
        assert_eq!(outcome(&got), expected, "{number}");
    }
    world.crash();
    let got = again(&mut world, &token, NONE, &count(4));
    assert_eq!(outcome(&got), "not-authorized");
}

#[test]
fn of_two_logins_at_a_time_with_one_count_one_succeeds() {
    for moment in (0..40).map(|step| step * 10_000) {
        let mut world = World::of_three(7, 1);
        let token = first(&mut world, PHONE, NONE);
        world.faults.disk_us = SLOW_US;
        let inner = format!(
            "{}<fast xmlns='urn:xmpp:fast:0' count='1'/>",
            user_agent(PHONE)
        );
        let asked = by_token("alice", &token, b"", NONE, &inner);
        let pair = [connect(&mut world), connect(&mut world)];
        world.send(pair[0], &format!("{}{asked}", header()));
        world.run_until(world.now() + moment);
        world.send(pair[1], &format!("{}{asked}", header()));
        world.run();
        let outcomes = pair.map(|client| outcome(&world.received(client)[2..]).to_owned());
        let successes = outcomes.iter().filter(|it| *it == "success").count();
        assert_eq!(successes, 1, "after {moment} us: {outcomes:?}");
    }
}

/// Decision 0003: a record that others write is read four times.
#[test]
fn of_many_logins_at_a_time_so_many_have_a_token_and_all_are_in() {
    const LOGINS: usize = 9;
    const READS_MAX: usize = 4;
    let mut world = World::of_three(7, 1);
    world.faults.disk_us = SLOW_US;
    let asked = format!("{}{}", header(), by_password(PHONE, &request(NONE)));
    let clients: Vec<ClientId> = (0..LOGINS).map(|_| connect(&mut world)).collect();
    for client in &clients {
        world.send(*client, &asked);
    }
    world.run();
    let all: Vec<Vec<Element>> = clients.iter().map(|it| world.received(*it)).collect();
    assert!(all.iter().all(|got| outcome(&got[2..]) == "success"));
    let given = all.iter().filter(|got| token(&got[2..]).is_some()).count();
    assert_eq!(given, READS_MAX);
}

#[test]
fn a_token_is_replaced_after_a_day_and_is_good_until_the_new_one_was_used() {
    let mut world = World::of_three(1, 1);
    let old = first(&mut world, PHONE, EXPORTER);
    world.run_for(DAY_MS - 60_000);
    assert_eq!(token(&again(&mut world, &old, EXPORTER, FAST)), None);
    world.run_for(2 * 60_000);
    let got = again(&mut world, &old, EXPORTER, FAST);
    let (lost, _) = token(&got).expect("another one is due");
    // It did not reach its client, who comes with the old one again.
    let got = again(&mut world, &old, EXPORTER, FAST);
    let (new, expiry) = token(&got).expect("and still is");
    assert_eq!(expiry.len(), "2026-10-12T00:00:00Z".len());
    let got = again(&mut world, &lost, EXPORTER, FAST);
    assert_eq!(outcome(&got), "not-authorized", "what was not used is void");
    world.crash();
    let got = again(&mut world, &new, EXPORTER, FAST);
    assert_eq!((outcome(&got), token(&got)), ("success", None));
    let got = again(&mut world, &old, EXPORTER, FAST);
    assert_eq!(outcome(&got), "not-authorized", "the new one was used");
    assert_eq!(outcome(&again(&mut world, &new, EXPORTER, FAST)), "success");
}

#[test]
fn a_token_ends_and_its_client_hears_which_of_its_secrets_did() {
    let mut world = World::of_three(1, 1);
    let token = first(&mut world, PHONE, NONE);
    world.run_for(21 * DAY_MS - 60_000);
    assert_eq!(outcome(&again(&mut world, &token, NONE, FAST)), "success");
    world.run_for(2 * 60_000);
    let got = again(&mut world, &token, NONE, FAST);
    assert_eq!(outcome(&got), "credentials-expired");
    let got = again(&mut world, "guess", NONE, FAST);
    assert_eq!(outcome(&got), "not-authorized");
    // Its client goes on with the password, on the same stream.
    let client = connect(&mut world);
    let inner = format!("{}{FAST}", user_agent(PHONE));
    let asked = by_token("alice", &token, b"", NONE, &inner);
    let both = format!("{asked}{}", by_password(PHONE, &request(NONE)));
    let got = said(&mut world, client, &both);
    assert_eq!(outcome(&got), "credentials-expired");
    let (new, _) = self::token(&got[1..]).expect("a new one");
    assert_eq!(outcome(&again(&mut world, &new, NONE, FAST)), "success");
}

#[test]
fn a_token_is_given_up_and_another_one_given_only_to_who_asks() {
    let mut world = World::of_three(1, 1);
    let token = first(&mut world, PHONE, NONE);
    // It would be due for another one.
    world.run_for(2 * DAY_MS);
    let give_up = "<fast xmlns='urn:xmpp:fast:0' invalidate='true'/>";
    let got = again(&mut world, &token, NONE, give_up);
    assert_eq!((outcome(&got), self::token(&got)), ("success", None));
    let got = again(&mut world, &token, NONE, FAST);
    assert_eq!(outcome(&got), "not-authorized");
    let token = first(&mut world, PHONE, NONE);
    let both = format!("{give_up}{}", request(EXPORTER));
    let got = again(&mut world, &token, NONE, &both);
    let (new, _) = self::token(&got).expect("it was asked for");
    assert_eq!(
        outcome(&again(&mut world, &token, NONE, FAST)),
        "not-authorized"
    );
    assert_eq!(outcome(&again(&mut world, &new, EXPORTER, FAST)), "success");
}

#[test]
fn what_a_client_has_learned_is_durable_whenever_the_process_dies() {
    for moment in (0..60).map(|step| step * 10_000) {
        let mut world = World::of_three(3, 1);
        let old = first(&mut world, PHONE, NONE);
        world.run_for(2 * DAY_MS);
        world.faults.disk_us = SLOW_US;
        let client = connect(&mut world);
        let inner = format!("{}{FAST}", user_agent(PHONE));
        let asked = by_token("alice", &old, b"", NONE, &inner);
        world.send(client, &format!("{}{asked}", header()));
        world.run_until(world.now() + moment);
        let got = world.received(client);
        world.crash();
        world.run();
        let told = got.get(2..).and_then(token);
        let known = told.as_ref().map_or(&*old, |(new, _)| new);
        assert_eq!(
            outcome(&again(&mut world, known, NONE, FAST)),
            "success",
            "{moment}"
        );
        world.run();
        world.check_rest();
    }
}

#[test]
fn a_storage_that_takes_no_writes_gives_no_tokens_and_lets_in_whom_it_may() {
    let mut world = World::of_three(1, 1);
    let token = first(&mut world, PHONE, NONE);
    world.faults.disk_full = true;
    let client = connect(&mut world);
    let got = said(&mut world, client, &by_password(DESK, &request(NONE)));
    assert_eq!((outcome(&got), self::token(&got)), ("success", None));
    // Its first use is to be known before it counts.
    let got = again(&mut world, &token, NONE, FAST);
    assert_eq!(outcome(&got), "temporary-auth-failure");
    world.faults.disk_full = false;
    assert_eq!(outcome(&again(&mut world, &token, NONE, FAST)), "success");
    world.run_for(2 * DAY_MS);
    world.faults.disk_full = true;
    let got = again(&mut world, &token, NONE, FAST);
    assert_eq!((outcome(&got), self::token(&got)), ("success", None));
    let counted = "<fast xmlns='urn:xmpp:fast:0' count='1'/>";
    let got = again(&mut world, &token, NONE, counted);
    assert_eq!(outcome(&got), "temporary-auth-failure");
}

#[test]
fn tokens_go_with_their_account() {
    let mut world = World::of_three(1, 1);
    let token = first(&mut world, PHONE, NONE);
    let account = alice();
    world.perform(StoreOp::DeleteAccount { account });
    world.add_account("alice@example.org", "secret");
    assert_eq!(
        outcome(&again(&mut world, &token, NONE, FAST)),
        "not-authorized"
    );
}

#[test]
fn an_account_has_so_many_user_agents() {
    let mut world = World::of_three(1, 1);
    let token = first(&mut world, PHONE, NONE);
    for number in 1..USER_AGENTS_MAX {
        first(
            &mut world,
            &format!("00000000-0000-0000-0000-{number:012x}"),
            NONE,
        );
    }
    assert_eq!(outcome(&again(&mut world, &token, NONE, FAST)), "success");
    first(&mut world, "00000000-0000-0000-0001-000000000000", NONE);
    let account = alice();
    let StoreReply::UserAgents(agents) = world.perform(StoreOp::UserAgents { account }) else {
        panic!("they can be read");
    };
    assert_eq!(agents.len(), USER_AGENTS_MAX);
    // The phone was here before all others.
    assert_eq!(
        outcome(&again(&mut world, &token, NONE, FAST)),
        "not-authorized"
    );
}

#[test]
fn failures_with_tokens_count_for_the_account_as_others_do() {
    const FAILURES_MAX: u32 = 3;
    let mut settings = Settings::for_tests("example.org");
    settings.limits.auth_failures_per_minute_max = FAILURES_MAX;
    let mut world = World::new(2, settings, Faults::calm());
    world.add_account("alice@example.org", "secret");
    let token = first(&mut world, PHONE, NONE);
    for _ in 0..FAILURES_MAX {
        let got = again(&mut world, "guess", NONE, FAST);
        assert_eq!(outcome(&got), "not-authorized");
    }
    let got = again(&mut world, &token, NONE, FAST);
    assert_eq!(outcome(&got), "temporary-auth-failure");
}

/// A client of alice's that stays, logged in by her password.
fn stay(world: &mut World, id: &str, more: &str) -> (ClientId, Vec<Element>) {
    let client = connect(world);
    let asked = by_password(id, &format!("{BIND}{more}"));
    let got = said(world, client, &asked);
    assert_eq!(outcome(&got), "success");
    (client, got)
}

fn error_of(world: &World, client: ClientId) -> Option<String> {
    world.client(client).stream_error.clone()
}

const NEW_PASSWORD: &str = "<iq type='set' id='n'><query xmlns='jabber:iq:register'>\
                            <username>alice</username><password>n3w</password></query></iq>";

#[test]
fn a_new_password_makes_the_tokens_of_others_void_and_ends_their_sessions() {
    for by_herself in [true, false] {
        let mut world = World::of_three(4, 2);
        let own = first(&mut world, PHONE, NONE);
        let (desk, got) = stay(&mut world, DESK, &request(NONE));
        let (other, _) = token(&got).unwrap();
        let (phone, _) = stay(&mut world, PHONE, "");
        let third = world.log_in("alice@example.org/third");
        let asleep = world.log_in("bob@example.org/b");
        if by_herself {
            world.tell(phone, NEW_PASSWORD);
            assert_eq!(world.received(phone)[0].attr("type"), "result");
        } else {
            world.set_password("alice@example.org", "n3w");
            world.run();
        }
        assert_eq!(error_of(&world, desk).as_deref(), Some("reset"));
        assert_eq!(error_of(&world, third).as_deref(), Some("reset"));
        assert_eq!(error_of(&world, asleep), None, "bob's is none of these");
        let kept = error_of(&world, phone);
        assert_eq!(kept.as_deref(), (!by_herself).then_some("reset"));
        let got = again(&mut world, &own, NONE, FAST);
        let expected = if by_herself {
            "success"
        } else {
            "not-authorized"
        };
        assert_eq!(outcome(&got), expected);
        let client = connect(&mut world);
        let inner = format!("{}{FAST}", user_agent(DESK));
        let asked = by_token("alice", &other, b"", NONE, &inner);
        assert_eq!(outcome(&said(&mut world, client, &asked)), "not-authorized");
    }
}

#[test]
fn a_login_with_a_token_while_the_password_changes_is_in_no_more_when_that_is_done() {
    let mut refused = 0;
    for moment in (0..80).map(|step| step * 10_000) {
        let mut world = World::of_three(5, 1);
        let token = first(&mut world, DESK, NONE);
        let (phone, _) = stay(&mut world, PHONE, "");
        world.faults.disk_us = SLOW_US;
        let client = connect(&mut world);
        let inner = format!("{}{FAST}", user_agent(DESK));
        let asked = by_token("alice", &token, b"", NONE, &inner);
        world.send(phone, NEW_PASSWORD);
        world.run_until(world.now() + moment);
        world.send(client, &format!("{}{asked}", header()));
        world.run();
        let is_in = error_of(&world, client).is_none()
            && world.received(client).iter().any(|it| it.name == "success");
        assert!(!is_in, "after {moment} us");
        refused += usize::from(error_of(&world, client).is_none());
        world.tell(phone, PING);
        let got = world.received(phone);
        assert!(got.iter().any(|it| it.attr("id") == "p"), "{got:?}");
    }
    assert!(refused > 10, "{refused}");
}

/// What the list has of clients: id, whether it is connected, names, and how it logged in.
fn listed(world: &mut World, client: ClientId) -> Vec<(String, bool, String, Vec<String>)> {
    world.tell(
        client,
        "<iq type='get' id='l'><list xmlns='urn:xmpp:cam:0'/></iq>",
    );
    let got = world.received(client);
    let clients = got[0].child("clients").unwrap_or_else(|| panic!("{got:?}"));
    let each = clients.children.iter().map(|client| {
        assert_eq!(client.attr("type"), "session");
        let auth = client.child("auth").expect("it is said how");
        let agent = client.child("user-agent").expect("it has a name");
        let text = |name| agent.child(name).map_or("", |it| &*it.text);
        (
            client.attr("id").to_owned(),
            client.attr("connected") == "true",
            format!("{}/{}", text("software"), text("device")),
            auth.children.iter().map(|it| it.name.clone()).collect(),
        )
    });
    each.collect()
}

fn revoke(world: &mut World, client: ClientId, id: &str) -> String {
    let id = format!("<iq type='set' id='r'><revoke xmlns='urn:xmpp:cam:0' id='{id}'/></iq>");
    world.tell(client, &id);
    let got = world.received(client);
    match got[0].attr("type") {
        "error" => got[0].condition().to_owned(),
        type_ => type_.to_owned(),
    }
}

#[test]
fn a_user_agent_whose_access_is_taken_back_has_neither_session_nor_token() {
    let mut world = World::of_three(6, 2);
    let (desk, _) = stay(&mut world, DESK, "");
    let (phone, got) = stay(&mut world, PHONE, &request(NONE));
    let (token, _) = token(&got).unwrap();
    let full = got[0]
        .child("authorization-identifier")
        .unwrap()
        .text
        .clone();
    let list = listed(&mut world, desk);
    assert_eq!(list.len(), 2);
    let (id, is_connected, names, auth) = list
        .into_iter()
        .find(|(_, _, _, auth)| auth.contains(&"fast".to_owned()))
        .expect("the phone has a token");
    assert_eq!((is_connected, &*names), (true, "S/D"));
    assert_eq!(auth, ["password", "fast"]);
    assert!(full.ends_with(&id), "{full} {id}");
    // It may come back with the password.
    assert_eq!(revoke(&mut world, desk, &id), "service-unavailable");
    assert_eq!(error_of(&world, phone).as_deref(), Some("reset"));
    assert_eq!(
        outcome(&again(&mut world, &token, NONE, FAST)),
        "not-authorized"
    );
    assert_eq!(error_of(&world, desk), None);
    assert_eq!(listed(&mut world, desk).len(), 1);
    assert_eq!(revoke(&mut world, desk, &id), "item-not-found");
}

#[test]
fn who_never_had_the_password_is_kept_out_at_once() {
    let mut world = World::of_three(6, 1);
    let token = first(&mut world, PHONE, NONE);
    let account = alice();
    let StoreReply::UserAgents(agents) = world.perform(StoreOp::UserAgents { account }) else {
        panic!("they can be read");
    };
    let mut agent = agents[0].clone();
    let prior = Some(agent.stamp);
    (agent.stamp, agent.knows_password) = (agent.stamp + 1, false);
    let id = agent.id.to_string();
    world.perform(StoreOp::PutUserAgent {
        account: alice(),
        agent: Box::new(agent),
        prior,
        forget_before: xmpp::Timestamp(0),
    });
    let desk = world.log_in("alice@example.org/desk");
    assert_eq!(revoke(&mut world, desk, &id), "result");
    assert_eq!(
        outcome(&again(&mut world, &token, NONE, FAST)),
        "not-authorized"
    );
}

#[test]
fn what_storage_does_not_forget_is_not_taken_back() {
    let mut world = World::of_three(6, 1);
    let token = first(&mut world, PHONE, NONE);
    let (desk, _) = stay(&mut world, DESK, "");
    let list = listed(&mut world, desk);
    let (id, ..) = list.iter().find(|(_, is_here, ..)| !is_here).unwrap();
    world.faults.disk_full = true;
    assert_eq!(revoke(&mut world, desk, id), "internal-server-error");
    world.faults.disk_full = false;
    assert_eq!(outcome(&again(&mut world, &token, NONE, FAST)), "success");
}

#[test]
fn a_client_is_listed_over_a_crash_until_it_was_away_for_long() {
    let mut world = World::of_three(6, 1);
    first(&mut world, PHONE, NONE);
    let (desk, _) = stay(&mut world, DESK, "");
    assert_eq!(listed(&mut world, desk).len(), 2);
    world.crash();
    world.run_for(400_000);
    let (desk, _) = stay(&mut world, DESK, "");
    let here: Vec<bool> = listed(&mut world, desk).iter().map(|it| it.1).collect();
    assert_eq!(here.iter().filter(|is_here| **is_here).count(), 1);
    assert_eq!(here.len(), 2);
    world.run_for(91 * DAY_MS);
    let list = listed(&mut world, desk);
    assert_eq!(list.len(), 1, "who is here is in it: {list:?}");
    // And one more that comes has storage forget it.
    stay(&mut world, "00000000-0000-0000-0000-000000000002", "");
    let account = alice();
    let StoreReply::UserAgents(agents) = world.perform(StoreOp::UserAgents { account }) else {
        panic!("they can be read");
    };
    assert!(
        agents.iter().all(|agent| agent.next.is_none()),
        "{agents:?}"
    );
}

#[test]
fn of_a_long_name_as_much_is_kept_as_may_be() {
    let mut world = World::of_three(2, 1);
    let client = connect(&mut world);
    let (plain, name) = (
        plain("alice", "secret"),
        "x\u{e4}".repeat(USER_AGENT_TEXT_SIZE_MAX),
    );
    let asked = format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>\
         <initial-response>{plain}</initial-response>\
         <user-agent id='{PHONE}'><software>{name}</software></user-agent></authenticate>"
    );
    assert_eq!(outcome(&said(&mut world, client, &asked)), "success");
    let account = alice();
    let StoreReply::UserAgents(agents) = world.perform(StoreOp::UserAgents { account }) else {
        panic!("they can be read");
    };
    let kept = &*agents[0].software;
    assert!(name.starts_with(kept));
    assert_eq!(
        kept.len(),
        USER_AGENT_TEXT_SIZE_MAX - 1,
        "no character is cut"
    );
}

#[test]
fn names_are_kept_only_where_the_operator_wants_them() {
    let mut settings = Settings::for_tests("example.org");
    settings.agents.keeps_names = false;
    let mut world = World::new(2, settings, Faults::calm());
    world.add_account("alice@example.org", "secret");
    stay(&mut world, PHONE, "");
    let account = alice();
    let StoreReply::UserAgents(agents) = world.perform(StoreOp::UserAgents { account }) else {
        panic!("they can be read");
    };
    assert_eq!((&*agents[0].software, &*agents[0].device), ("", ""));
}

#[test]
fn who_waits_for_the_account_to_load_while_the_password_changes_gets_no_session() {
    let mut world = World::of_three(5, 1);
    let client = connect(&mut world);
    said(&mut world, client, &by_password(PHONE, ""));
    world.faults.disk_us = SLOW_US;
    let bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
    world.send(client, bind);
    world.run_until(world.now() + SLOW_US.0 / 2);
    world.set_password("alice@example.org", "n3w");
    world.run();
    assert_eq!(error_of(&world, client).as_deref(), Some("reset"));
    assert!(world.received(client).iter().all(|it| it.name != "iq"));
}

/// Each writes the token that it is to get, over what it has read.
#[test]
fn of_many_logins_at_a_time_by_a_token_that_ask_for_another_so_many_are_in() {
    const LOGINS: usize = 9;
    const READS_MAX: usize = 4;
    let mut world = World::of_three(7, 1);
    let token = first(&mut world, PHONE, NONE);
    assert_eq!(outcome(&again(&mut world, &token, NONE, FAST)), "success");
    world.faults.disk_us = SLOW_US;
    let inner = format!("{}{FAST}{}", user_agent(PHONE), request(NONE));
    let asked = format!(
        "{}{}",
        header(),
        by_token("alice", &token, b"", NONE, &inner)
    );
    let clients: Vec<ClientId> = (0..LOGINS).map(|_| connect(&mut world)).collect();
    for client in &clients {
        world.send(*client, &asked);
    }
    world.run();
    let outcomes = clients.iter().map(|client| {
        let received = world.received(*client);
        outcome(&received[2..]).to_owned()
    });
    let outcomes: Vec<String> = outcomes.collect();
    let count = |wanted: &str| outcomes.iter().filter(|it| *it == wanted).count();
    let counts = (count("success"), count("temporary-auth-failure"));
    assert_eq!(counts, (READS_MAX, LOGINS - READS_MAX), "{outcomes:?}");
}
