//! The client against scripted server bytes.

use super::*;

const HEADER: &str = "<?xml version='1.0'?><stream:stream from='bench' id='1' version='1.0' \
    xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";

struct World {
    script: Script,
    client: Client,
    random: Random,
    meter: Meter,
    out: Vec<u8>,
}

impl World {
    fn new(tls: TlsMode, accounts: Accounts) -> World {
        let script = Script {
            domain: "bench".into(),
            tls,
            websocket: None,
            mechanism: None,
            accounts,
            first_account: 0,
            register: false,
            roster: true,
            presence: true,
            rooms: None,
            ack_every: None,
            resumes: false,
            keys: KeyCache::default(),
        };
        let mut world = World {
            script,
            client: Client::default(),
            random: Random::new(1),
            meter: Meter::default(),
            out: Vec::new(),
        };
        world.client.on_connect(100);
        world
    }

    fn step(&mut self, step: impl FnOnce(&mut Client, &mut Cx<'_>) -> Turn) -> (Turn, String) {
        let mut cx = Cx {
            script: &self.script,
            index: 7,
            now: 1000,
            random: &mut self.random,
            meter: &mut self.meter,
            out: &mut self.out,
        };
        let turn = step(&mut self.client, &mut cx);
        (
            turn,
            String::from_utf8(std::mem::take(&mut self.out)).unwrap(),
        )
    }

    /// Feeds all of `text`; gives the last turn and everything written.
    fn hear(&mut self, text: &str) -> (Turn, String) {
        let mut rest = text.as_bytes();
        let (mut last, mut written) = (Turn::Nothing, String::new());
        while !rest.is_empty() {
            let piece = scan::next_piece(rest);
            let size = match piece {
                Piece::Space(n) | Piece::Header(n) | Piece::Element(n) | Piece::End(n) => n,
                Piece::Incomplete | Piece::Broken => rest.len(),
            };
            let (turn, out) = self.step(|client, cx| client.on_piece(cx, piece, &rest[..size]));
            last = turn;
            written += &out;
            rest = &rest[size..];
        }
        (last, written)
    }
}

fn numbered() -> Accounts {
    Accounts::Pattern {
        user: "u%d".into(),
        password: "pencil".into(),
    }
}

fn features(inner: &str) -> String {
    format!("{HEADER}<stream:features>{inner}</stream:features>")
}

fn mechanisms(names: &[&str]) -> String {
    let names: String = names
        .iter()
        .map(|name| format!("<mechanism>{name}</mechanism>"))
        .collect();
    features(&format!(
        "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{names}</mechanisms>"
    ))
}

/// What the client wrote into the element `name`, decoded.
fn said(written: &str, name: &str) -> String {
    let start = written.find(&format!("<{name} ")).expect("it was written");
    decoded(&written.as_bytes()[start..]).expect("it is base64 of text")
}

fn field<'a>(message: &'a str, name: &str) -> &'a str {
    message
        .split(',')
        .find_map(|part| part.strip_prefix(name))
        .expect("the field is there")
}

/// Plays the server's part of SCRAM-SHA-1 with the client's own keys.
fn scram(world: &mut World, auth: &str) -> Turn {
    let first = said(auth, "auth");
    assert_eq!(field(&first, "n="), "u7");
    let nonce = format!("{}server", field(&first, "r="));
    let challenge = format!("r={nonce},s={},i=4096", BASE64.encode("salt"));
    let (turn, _) = world.hear(&format!(
        "<challenge xmlns='s'>{}</challenge>",
        BASE64.encode(challenge)
    ));
    let Turn::Derive(recipe) = turn else {
        panic!("{turn:?}")
    };
    assert_eq!((recipe.iterations, &recipe.salt[..]), (4096, &b"salt"[..]));
    let keys = recipe.derive();
    let (_, answer) = world.step(|client, cx| client.on_keys(cx, &keys));
    assert!(said(&answer, "response").starts_with("c=biws,r="));
    let signature = world
        .client
        .login()
        .exchange
        .as_ref()
        .map(|exchange| BASE64.encode(exchange.server_signature()))
        .unwrap();
    let verdict = BASE64.encode(format!("v={signature}"));
    let (turn, again) = world.hear(&format!("<success xmlns='s'>{verdict}</success>"));
    assert!(
        again.contains("<stream:stream"),
        "the stream restarts after success"
    );
    turn
}

fn finish(world: &mut World) -> Turn {
    let (_, bind) = world.hear(&features(
        "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>",
    ));
    assert!(bind.contains("<resource>lg</resource>"));
    let (_, roster) =
        world.hear("<iq type='result' id='b'><bind><jid>u7@bench/lg</jid></bind></iq>");
    assert!(roster.contains("jabber:iq:roster"));
    let (_, presence) =
        world.hear("<iq type='result' id='o'><query xmlns='jabber:iq:roster'/></iq>");
    assert!(presence.starts_with("<presence/><iq type='get' id='p' to='bench'>"));
    // Presence of others in between changes nothing.
    world
        .hear("<presence from='u7@bench/lg'/><iq type='error' id='p'><error/></iq>")
        .0
}

#[test]
fn a_client_logs_in_in_clear_by_scram() {
    let mut world = World::new(TlsMode::None, numbered());
    let (_, open) = world.step(|client, cx| client.on_connected(cx));
    assert!(open.contains("to='bench'"));
    let (_, auth) = world.hear(&mechanisms(&["PLAIN", "SCRAM-SHA-1"]));
    scram(&mut world, &auth);
    let turn = finish(&mut world);
    assert!(matches!(turn, Turn::Ready(jid) if &*jid == "u7@bench/lg"));
    assert_eq!(world.client.step, Step::Ready);
    for phase in [
        Phase::Connect,
        Phase::Auth,
        Phase::Bind,
        Phase::Roster,
        Phase::Login,
    ] {
        assert_eq!(world.meter.of(phase).len(), 1, "{}", phase.name());
    }
    assert_eq!(world.meter.of(Phase::Login).max(), 900);
    assert_eq!(world.meter.mechanism(), "SCRAM-SHA-1");
}

#[test]
fn starttls_comes_before_anything_else_or_the_login_fails() {
    let mut world = World::new(TlsMode::Starttls, numbered());
    world.step(|client, cx| client.on_connected(cx));
    let offer = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
    let (_, asked) = world.hear(&features(offer));
    assert_eq!(asked, offer);
    let (turn, _) = world.hear("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    assert!(matches!(turn, Turn::StartTls));
    let (_, open) = world.step(|client, cx| client.on_secured(cx));
    assert!(open.contains("<stream:stream"));
    let (_, auth) = world.hear(&mechanisms(&["PLAIN"]));
    assert_eq!(said(&auth, "auth"), "\0u7\0pencil");

    let mut world = World::new(TlsMode::Starttls, numbered());
    world.step(|client, cx| client.on_connected(cx));
    let (turn, written) = world.hear(&mechanisms(&["PLAIN"]));
    assert!(matches!(turn, Turn::Fail(reason) if reason.contains("STARTTLS")));
    assert_eq!(written, "", "no password goes out in clear");
}

#[test]
fn a_roster_that_is_refused_is_none() {
    let mut world = World::new(TlsMode::None, numbered());
    world.client.step = Step::Roster;
    let (turn, _) = world.hear("<iq type='error' id='o'><error><not-allowed/></error></iq>");
    assert!(matches!(turn, Turn::Fail(reason) if reason == "roster refused: not-allowed"));
    assert!(world.meter.of(Phase::Roster).is_empty());
}

#[test]
fn a_server_that_cannot_prove_itself_is_refused() {
    let mut world = World::new(TlsMode::None, numbered());
    world.step(|client, cx| client.on_connected(cx));
    world.hear(&mechanisms(&["SCRAM-SHA-256"]));
    let (turn, _) = world.hear("<success xmlns='s'/>");
    assert!(matches!(turn, Turn::Fail(reason) if reason.contains("prove")));
}

#[test]
fn refusals_name_their_condition() {
    let mut world = World::new(TlsMode::None, numbered());
    world.step(|client, cx| client.on_connected(cx));
    world.hear(&mechanisms(&["PLAIN"]));
    let (turn, _) = world.hear("<failure xmlns='s'><not-authorized/><text>no</text></failure>");
    assert!(matches!(turn, Turn::Fail(reason) if reason.ends_with("not-authorized")));
    let error = "<stream:error><host-unknown xmlns='x'/></stream:error>";
    let (turn, _) = world.hear(error);
    assert!(matches!(turn, Turn::Fail(reason) if reason.ends_with("host-unknown")));
    let (turn, _) = world.hear("</stream:stream>");
    assert!(matches!(turn, Turn::End));
}

#[test]
fn registration_precedes_the_login_and_tolerates_a_conflict() {
    for answer in [
        "<iq type='result' id='r'/>",
        "<iq type='error' id='r'><query/><error type='cancel'><conflict xmlns='x'/></error></iq>",
    ] {
        let mut world = World::new(TlsMode::None, numbered());
        world.script.register = true;
        world.step(|client, cx| client.on_connected(cx));
        let (_, asked) = world.hear(&mechanisms(&["PLAIN"]));
        assert!(asked.contains("<username>u7</username><password>pencil</password>"));
        let (_, auth) = world.hear(answer);
        assert_eq!(said(&auth, "auth"), "\0u7\0pencil");
    }
    let mut world = World::new(TlsMode::None, numbered());
    world.script.register = true;
    world.step(|client, cx| client.on_connected(cx));
    world.hear(&mechanisms(&["PLAIN"]));
    let (turn, _) =
        world.hear("<iq type='error' id='r'><error><not-allowed xmlns='x'/></error></iq>");
    assert!(matches!(turn, Turn::Fail(reason) if reason.ends_with("not-allowed")));
}

#[test]
fn an_anonymous_client_takes_the_name_it_is_given() {
    let mut world = World::new(TlsMode::None, Accounts::Anonymous);
    (world.script.roster, world.script.presence) = (false, false);
    world.step(|client, cx| client.on_connected(cx));
    let (_, auth) = world.hear(&mechanisms(&["SCRAM-SHA-1", "ANONYMOUS"]));
    assert!(auth.contains("mechanism='ANONYMOUS'"));
    world.hear("<success xmlns='s'/>");
    let (_, bind) = world.hear(&features("<bind xmlns='b'/>"));
    assert!(!bind.contains("<resource>"));
    let (turn, _) =
        world.hear("<iq type='result' id='b'><bind><jid>x&amp;y@bench/z</jid></bind></iq>");
    assert!(matches!(turn, Turn::Ready(jid) if &*jid == "x&y@bench/z"));
}

#[test]
fn requests_are_answered_even_while_logging_in() {
    let mut world = World::new(TlsMode::None, numbered());
    world.client.step = Step::Roster;
    let (_, pong) =
        world.hear("<iq type='get' id='7' from='bench'><ping xmlns='urn:xmpp:ping'/></iq>");
    assert_eq!(pong, "<iq type='result' id=\"7\" to=\"bench\"/>");
    let (_, refusal) = world.hear("<iq type='get' id='8'><query xmlns='jabber:iq:version'/></iq>");
    assert!(refusal.contains("type='error' id=\"8\"") && refusal.contains("service-unavailable"));
}

#[test]
fn a_managed_stream_is_counted_both_ways() {
    let mut world = World::new(TlsMode::None, numbered());
    world.script.ack_every = Some(2);
    world.client.step = Step::Bind;
    world.client.login().offers_management = true;
    let bound = "<iq type='result' id='b'><bind><jid>u7@bench/lg</jid></bind></iq>";
    let (_, enable) = world.hear(bound);
    assert_eq!(enable, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    // What is for the full address comes to who is bound, and is not counted yet.
    let early = "<presence type='unavailable' from='u8@bench/lg' to='u7@bench/lg'/>";
    assert!(matches!(world.hear(early).0, Turn::Nothing));
    world.hear("<enabled xmlns='urn:xmpp:sm:3' id='1' resume='true'/>");
    world.hear("<iq type='result' id='o'><query xmlns='jabber:iq:roster'/></iq>");
    // The roster's answer is the first stanza that came in; requests do not count.
    let (_, answer) = world.hear("<r xmlns='urn:xmpp:sm:3'/>");
    assert_eq!(answer, "<a xmlns='urn:xmpp:sm:3' h='1'/>");
    // The roster's request, presence and the ping went out.
    assert_eq!(world.client.acks().unwrap().unacked(), 3);
    world.hear("<a xmlns='urn:xmpp:sm:3' h='3'/>");
    assert_eq!(world.client.acks().unwrap().unacked(), 0);
    world.hear("<a xmlns='urn:xmpp:sm:3' h='4'/>");
    assert_eq!(world.meter.false_acks, 1);
    let mut out = Vec::new();
    world.client.close(&mut out);
    let last = "<a xmlns='urn:xmpp:sm:3' h='1'/></stream:stream>";
    assert_eq!(String::from_utf8(out).unwrap(), last);

    let mut world = World::new(TlsMode::None, numbered());
    (world.script.ack_every, world.client.step) = (Some(2), Step::Bind);
    let (turn, _) = world.hear(bound);
    assert!(matches!(turn, Turn::Fail(reason) if reason.contains("stream management")));
}

#[test]
fn a_session_goes_on_over_another_connection_or_the_client_binds() {
    let resume = "<resume xmlns='urn:xmpp:sm:3' previd='s&apos;7' h='1'/>";
    for (answer, is_resumed) in [
        (
            "<resumed xmlns='urn:xmpp:sm:3' previd=\"s'7\" h='3'/>",
            true,
        ),
        (
            "<failed xmlns='urn:xmpp:sm:3'><item-not-found/></failed>",
            false,
        ),
    ] {
        let mut world = lost();
        world.step(|client, cx| client.on_connected(cx));
        world.hear(&mechanisms(&["PLAIN"]));
        world.hear("<success xmlns='s'/>");
        let (_, asked) = world.hear(&features("<bind xmlns='b'/><sm xmlns='urn:xmpp:sm:3'/>"));
        assert_eq!(asked, resume);
        assert_eq!(world.client.step, Step::Resume);
        let (turn, said) = world.hear(answer);
        if is_resumed {
            assert!(matches!(turn, Turn::Resumed(3)) && said.is_empty());
            assert_eq!(world.client.step, Step::Ready);
            assert_eq!(world.meter.of(Phase::Resume).len(), 1);
            // Counting goes on.
            let acks = world.client.acks().unwrap();
            assert_eq!((acks.unacked(), acks.kept().count()), (3, 3));
        } else {
            assert!(matches!(turn, Turn::NotResumed), "{turn:?}");
            assert!(said.contains("<bind ") && world.client.step == Step::Bind);
        }
    }
}

#[test]
fn what_comes_instead_of_a_session_is_a_failure() {
    for (answer, reason) in [
        (
            "<resumed xmlns='urn:xmpp:sm:3' previd='s8' h='3'/>",
            "another session",
        ),
        ("<resumed xmlns='urn:xmpp:sm:3' h='3'/>", "another session"),
        (
            "<resumed xmlns='urn:xmpp:sm:3' previd='s&apos;7'/>",
            "what it has",
        ),
        (
            "<message from='x'><body/></message>",
            "unexpected <message>",
        ),
    ] {
        let mut world = lost();
        world.client.step = Step::Resume;
        let (turn, _) = world.hear(answer);
        assert!(
            matches!(&turn, Turn::Fail(why) if why.contains(reason)),
            "{turn:?}"
        );
    }
    // Where it is needed, a session that cannot be resumed is refused at once.
    let mut world = World::new(TlsMode::None, numbered());
    (world.script.resumes, world.client.step) = (true, Step::Manage);
    let (turn, _) = world.hear("<enabled xmlns='urn:xmpp:sm:3' id='1'/>");
    assert!(matches!(turn, Turn::Fail(why) if why.contains("`resume` out of the mix")));
}

/// A client that was ready and got one stanza when it lost its network, on its next connection.
fn lost() -> World {
    let mut world = World::new(TlsMode::None, numbered());
    (world.script.ack_every, world.script.resumes) = (Some(2), true);
    world.client.step = Step::Manage;
    world.hear("<enabled xmlns='urn:xmpp:sm:3' id=\"s'7\" resume='1'/>");
    world.hear("<iq type='result' id='o'><query xmlns='jabber:iq:roster'/></iq>");
    assert_eq!(world.client.acks().unwrap().kept().count(), 3);
    world.client.lose();
    world.client.on_connect(200);
    world
}

/// A client that has logged in where clients enter rooms of four, and may enter its own.
fn at_the_door() -> World {
    let mut world = World::new(TlsMode::None, numbered());
    world.script.rooms = Some(Rooms::new("conference.bench", 4));
    world.step(|client, cx| client.on_connected(cx));
    world.hear(&mechanisms(&["PLAIN"]));
    world.hear("<success xmlns='s'/>");
    assert!(matches!(finish(&mut world), Turn::Join));
    world
}

const ROOM: &str = "room1@conference.bench";
const MUC_FEATURE: &str = "<feature var='http://jabber.org/protocol/muc'/>";

fn occupant(nick: &str, codes: &[u16]) -> String {
    let codes: String = codes
        .iter()
        .map(|code| format!("<status code='{code}'/>"))
        .collect();
    let xmlns = "http://jabber.org/protocol/muc#user";
    format!("<presence from='{ROOM}/{nick}'><x xmlns='{xmlns}'>{codes}</x></presence>")
}

fn subject() -> String {
    format!("<message from='{ROOM}' type='groupchat'><subject/></message>")
}

#[test]
fn who_is_first_finds_out_whether_there_are_rooms_and_opens_one() {
    let mut world = at_the_door();
    let (_, asked) = world.step(|client, cx| client.join(cx, true));
    assert!(asked.contains(" to='conference.bench'") && asked.contains("disco#info"));
    let answer = format!("<iq type='result' id='q'><query>{MUC_FEATURE}</query></iq>");
    let (_, join) = world.hear(&answer);
    assert_eq!(
        join,
        format!(
            "<presence to='{ROOM}/u7'><x xmlns='http://jabber.org/protocol/muc'>\
             <history maxchars='0'/></x></presence>"
        )
    );
    let (turn, opens) = world.hear(&(occupant("u7", &[110, 201]) + &subject()));
    assert!(matches!(turn, Turn::Nothing), "it is locked yet: {turn:?}");
    assert!(opens.contains(&format!("id='j' to='{ROOM}'")) && opens.contains("type='submit'"));
    let (turn, _) = world.hear(&format!("<iq type='result' id='j' from='{ROOM}'/>"));
    assert!(matches!(turn, Turn::Ready(_)), "{turn:?}");
    assert_eq!(world.client.step, Step::Ready);
    assert_eq!(world.meter.of(Phase::Join).len(), 1);
}

#[test]
fn who_follows_is_in_with_its_own_presence_and_the_subject() {
    let mut world = at_the_door();
    let (_, join) = world.step(|client, cx| client.join(cx, false));
    assert!(join.starts_with("<presence to="), "{join}");
    // The others, something said, and presence of contacts.
    let said = format!("<message from='{ROOM}/u5' type='groupchat'><body>x</body></message>");
    let others = occupant("u5", &[]) + &said + "<presence from='u5@bench/lg'/>";
    for (heard, is_in) in [
        (others, false),
        (occupant("u7", &[110]), false),
        (subject(), true),
    ] {
        let (turn, written) = world.hear(&heard);
        assert_eq!(matches!(turn, Turn::Ready(_)), is_in, "{heard}: {turn:?}");
        assert!(written.is_empty(), "{written}");
    }
}

#[test]
fn who_is_not_let_in_says_why() {
    let error = |condition: &str| format!("<error type='cancel'><{condition} xmlns='x'/></error>");
    let no_rooms = format!("<iq type='error' id='q'>{}</iq>", error("not-allowed"));
    let no_feature = "<iq type='result' id='q'><query/></iq>".to_owned();
    let full = format!(
        "<presence from='{ROOM}/u7' type='error'><x xmlns='http://jabber.org/protocol/muc'>\
         <history maxchars='0'/></x>{}</presence>",
        error("resource-constraint")
    );
    let locked = occupant("u7", &[110, 201])
        + &format!(
            "<iq type='error' id='j' from='{ROOM}'>{}</iq>",
            error("forbidden")
        );
    for (heard, is_first, why) in [
        (no_rooms, true, "no rooms at conference.bench (not-allowed)"),
        (no_feature, true, "no rooms at conference.bench (it is"),
        (full, false, "refuse who enters (resource-constraint)"),
        (locked, false, "refuse who enters (forbidden)"),
        (occupant("u8", &[110]), false, "give other nicks"),
    ] {
        let mut world = at_the_door();
        world.step(|client, cx| client.join(cx, is_first));
        let (turn, _) = world.hear(&heard);
        let Turn::Fail(reason) = turn else {
            panic!("{heard}: {turn:?}")
        };
        assert!(reason.contains(why), "{reason}");
    }
}
