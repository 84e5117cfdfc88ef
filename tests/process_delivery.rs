//! Delivery to connected users over real sockets, on one shard and on two (RFC 6121 8.5).

mod support;

use support::roster::{Entry, NONE, NONE_IN};
use support::server::home;
use support::{Client, DOMAIN, Element, Options, STANZA_ERRORS, Server};

const SHARDS: [u16; 2] = [1, 2];

/// Accounts that receive in turn: with two shards, some live beside the sender and some do not.
const TARGETS: [&str; 3] = ["u1", "u2", "u3"];

fn server(shards: u16) -> Server {
    // Nobody has contacts: what arrives was sent here and now.
    Server::start(&Options {
        shards,
        clique: 1,
        ..Options::default()
    })
}

/// A resource and its priority; `None` is connected without presence.
type Resources = &'static [(&'static str, Option<i8>)];

const NOBODY: Resources = &[];
const SILENT: Resources = &[("a", None)];
const NEGATIVE: Resources = &[("a", Some(-1))];
const ONE: Resources = &[("a", Some(0))];
const SEVERAL: Resources = &[("a", Some(1)), ("b", Some(5))];
const MIXED: Resources = &[("a", Some(0)), ("b", Some(-1)), ("c", None)];

const ALL: [Resources; 6] = [NOBODY, SILENT, NEGATIVE, ONE, SEVERAL, MIXED];

#[derive(Clone, Copy, Debug, PartialEq)]
enum To {
    Bare,
    Match,
    NoMatch,
}

/// What becomes of a message that nobody gets.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Else {
    /// It is gone.
    Dropped,
    /// Its sender gets an error.
    Bounces,
    /// It is delivered to whoever comes (XEP-0160).
    Waits,
}

/// Who gets a message, and what becomes of it if nobody does.
fn expected(type_: &str, to: To, resources: Resources) -> (Vec<&'static str>, Else) {
    let everyone = || {
        let takes = resources
            .iter()
            .filter(|(_, priority)| priority.is_some_and(|p| p >= 0));
        takes.map(|(name, _)| *name).collect::<Vec<_>>()
    };
    match (to, type_) {
        // RFC 6121 8.5.3.1: a connected resource gets whatever names it.
        (To::Match, _) => (vec![resources[0].0], Else::Dropped),
        // RFC 6121 8.5.2.1.1 and 8.5.2.2.1; a chat without a match goes on as if to the bare JID.
        (To::Bare, "" | "normal" | "chat" | "unheard-of") | (To::NoMatch, "chat") => {
            (everyone(), Else::Waits)
        }
        (To::Bare, "headline") => (everyone(), Else::Dropped),
        (To::Bare | To::NoMatch, "error") | (To::NoMatch, "headline") => (vec![], Else::Dropped),
        (To::Bare, "groupchat") | (To::NoMatch, _) => (vec![], Else::Bounces),
        (To::Bare, other) => panic!("no rule for {other}"),
    }
}

/// Logs in the resources of an account with their priorities.
fn log_in(server: &Server, user: &str, resources: Resources) -> Vec<Client> {
    let mut clients = Vec::new();
    for (name, priority) in resources {
        let mut client = Client::log_in(server, user, name);
        if let Some(priority) = priority {
            client.send(&format!(
                "<presence><priority>{priority}</priority></presence>"
            ));
        }
        client.settle();
        clients.push(client);
    }
    // Their presence to each other is not what these tests look at.
    for client in &mut clients {
        client.settle();
    }
    clients
}

fn messages(elements: &[Element]) -> Vec<&Element> {
    elements
        .iter()
        .filter(|element| element.name == "message")
        .collect()
}

/// Sends one message and checks all that it does; gives its address and type where it waits.
fn check_message(
    sender: &mut Client,
    user: &str,
    type_: &str,
    to: To,
    resources: Resources,
    receivers: &mut [Client],
) -> Option<(String, String)> {
    let address = match to {
        To::Bare => format!("{user}@{DOMAIN}"),
        To::Match => format!("{user}@{DOMAIN}/{}", resources[0].0),
        To::NoMatch => format!("{user}@{DOMAIN}/elsewhere"),
    };
    let attribute = if type_.is_empty() {
        String::new()
    } else {
        format!(" type='{type_}'")
    };
    sender.send(&format!(
        "<message to='{address}' id='it'{attribute}><body>body</body>\
         <x xmlns='urn:example:x'/></message>"
    ));
    let what = format!("{type_:?} to {to:?} of {resources:?}");
    let (names, otherwise) = expected(type_, to, resources);
    for (receiver, (name, _)) in receivers.iter_mut().zip(resources) {
        let arrived = receiver.settle_with(sender);
        let arrived = messages(&arrived);
        let count = usize::from(names.contains(name));
        assert_eq!(arrived.len(), count, "{what}, resource {name}: {arrived:?}");
        for message in arrived {
            assert_eq!(message.attr("from"), Some(&*sender.jid), "{what}");
            assert_eq!(message.attr("to"), Some(&*address), "{what}");
            assert_eq!(message.attr("id"), Some("it"), "{what}");
            assert_eq!(message.child_text("body"), "body", "{what}");
            assert!(
                message.child("x").is_some_and(|x| x.ns == "urn:example:x"),
                "{what}"
            );
        }
    }
    let otherwise = names.is_empty().then_some(otherwise);
    if otherwise == Some(Else::Bounces) {
        let error = sender.until(|element| element.name == "message");
        check_error(&error, "it", &address, &sender.jid, "service-unavailable");
    }
    if let Some(receiver) = receivers.first_mut() {
        let strays = sender.settle_with(receiver);
        assert_eq!(messages(&strays), Vec::<&Element>::new(), "{what}");
    } else {
        let strays = sender.settle();
        assert_eq!(messages(&strays), Vec::<&Element>::new(), "{what}");
    }
    (otherwise == Some(Else::Waits)).then(|| (address, type_.to_owned()))
}

/// Sends one stanza that nobody can get: one error comes back, or nothing at all.
fn check_fate(sender: &mut Client, kind: &str, type_: &str, to: &str, fate: Else) {
    let attribute = match type_ {
        "" => String::new(),
        type_ => format!(" type='{type_}'"),
    };
    let payload = match kind {
        "message" => "<body>body</body>",
        "iq" if type_ != "result" => PING,
        _ => "",
    };
    sender.send(&format!(
        "<{kind} to='{to}' id='it'{attribute}>{payload}</{kind}>"
    ));
    // What goes the same way keeps its order, so this comes back behind all that is answered.
    sender.send(&format!(
        "<message to='{to}' id='mark' type='chat'><body/></message>"
    ));
    let mut came = Vec::new();
    loop {
        match sender.element() {
            mark if mark.attr("id") == Some("mark") => break,
            // What the sender asks for is in its own roster, whoever is there.
            push if push.attr("type") == Some("set") => {}
            other => came.push(other),
        }
    }
    let what = format!("{kind} {type_:?} to {to}: {came:?}");
    if fate == Else::Dropped {
        assert!(came.is_empty(), "{what}");
        return;
    }
    let kinds: Vec<_> = came.iter().map(|got| &*got.name).collect();
    assert_eq!(kinds, [kind], "{what}");
    check_error(&came[0], "it", to, &sender.jid, "service-unavailable");
}

/// Whoever comes next gets what waits, each with the time it came, and nothing else.
fn check_waiting(server: &Server, sender: &str, user: &str, waiting: &[(String, String)]) {
    let mut later = Client::log_in(server, user, "later");
    later.send("<presence/>");
    let mut arrived = Vec::new();
    while arrived.len() < waiting.len() {
        arrived.push(later.until(|element| element.name == "message"));
    }
    arrived.extend(messages(&later.settle()).into_iter().cloned());
    assert_eq!(arrived.len(), waiting.len(), "{arrived:?}");
    for (message, (address, type_)) in arrived.iter().zip(waiting) {
        assert_eq!(message.attr("from"), Some(sender));
        assert_eq!(message.attr("to"), Some(&**address));
        assert_eq!(message.attr("type").unwrap_or_default(), type_);
        let delay = message.child("delay").expect("it says when it came");
        assert_eq!(
            (&*delay.ns, delay.attr("from")),
            ("urn:xmpp:delay", Some(DOMAIN))
        );
    }
    close(later);
}

/// RFC 6120 8.3.1: addresses swapped, the same id, a type that fits the condition.
fn check_error(error: &Element, id: &str, from: &str, to: &str, condition: &str) {
    assert_eq!(error.attr("type"), Some("error"), "{error:?}");
    assert_eq!(error.attr("id"), Some(id), "{error:?}");
    assert_eq!(error.attr("from"), Some(from), "{error:?}");
    assert_eq!(error.attr("to"), Some(to), "{error:?}");
    assert_eq!(error.condition(STANZA_ERRORS), Some(condition), "{error:?}");
    let type_ = match condition {
        "bad-request" | "jid-malformed" | "not-acceptable" => "modify",
        "forbidden" | "not-authorized" => "auth",
        "resource-constraint" => "wait",
        _ => "cancel",
    };
    let inner = error.child("error").expect("an error stanza has an error");
    assert_eq!(
        (inner.attr("type"), &*inner.ns),
        (Some(type_), support::CLIENT),
        "{error:?}"
    );
}

#[test]
fn messages_reach_whom_the_table_of_rfc_6121_8_5_names() {
    let types = [
        "",
        "normal",
        "chat",
        "headline",
        "groupchat",
        "error",
        "unheard-of",
    ];
    for shards in SHARDS {
        let server = server(shards);
        let mut sender = Client::log_in(&server, "u0", "sender");
        for user in TARGETS {
            for resources in ALL {
                let mut receivers = log_in(&server, user, resources);
                let mut waiting = Vec::new();
                for to in [To::Bare, To::Match, To::NoMatch] {
                    if to == To::Match && resources.is_empty() {
                        continue;
                    }
                    for type_ in types {
                        let waits =
                            check_message(&mut sender, user, type_, to, resources, &mut receivers);
                        waiting.extend(waits);
                    }
                }
                for receiver in receivers {
                    close(receiver);
                }
                check_waiting(&server, &sender.jid, user, &waiting);
            }
        }
    }
}

/// Ends a session in order; it is gone when this returns.
fn close(mut client: Client) {
    client.send("</stream:stream>");
    client.rest();
}

#[test]
fn a_message_to_nobody_and_to_an_unknown_domain_comes_back_as_an_error() {
    for shards in SHARDS {
        let server = server(shards);
        let mut sender = Client::log_in(&server, "u0", "sender");
        let cases = [
            ("nobody@localhost", "service-unavailable"),
            ("nobody@localhost/there", "service-unavailable"),
            ("juliet@elsewhere.example", "remote-server-not-found"),
            ("@localhost", "jid-malformed"),
            ("a b@localhost", "jid-malformed"),
        ];
        for (to, condition) in cases {
            sender.send(&format!(
                "<message to='{to}' id='1' type='chat'><body>a</body></message>"
            ));
            let error = sender.element();
            check_error(&error, "1", to, &sender.jid, condition);
        }
        // Errors are never answered, or two servers would do nothing else.
        sender.send("<message to='nobody@localhost' id='2' type='error'><body>a</body></message>");
        sender.send("<iq to='nobody@localhost' id='3' type='result'/>");
        sender.send("<iq to='nobody@localhost' id='4' type='error'/>");
        assert_eq!(sender.settle(), []);
    }
}

/// RFC 6121 8.5.1 and the first rows of 8.5.4: what becomes of a stanza to the bare JID, and to a
/// full JID, of an account that is not there. Where the RFC lets a server choose between silence
/// and an error, what a person wrote to be read is answered.
const NO_ACCOUNT: [(&str, &str, Else, Else); 19] = [
    ("message", "", Else::Bounces, Else::Bounces),
    ("message", "normal", Else::Bounces, Else::Bounces),
    ("message", "chat", Else::Bounces, Else::Bounces),
    ("message", "groupchat", Else::Bounces, Else::Bounces),
    ("message", "headline", Else::Dropped, Else::Dropped),
    // RFC 6120 8.3.1: an error is never answered.
    ("message", "error", Else::Dropped, Else::Dropped),
    // RFC 6121 5.2.2: an unknown type is a normal one.
    ("message", "unheard-of", Else::Bounces, Else::Bounces),
    ("presence", "", Else::Dropped, Else::Dropped),
    ("presence", "unavailable", Else::Dropped, Else::Dropped),
    ("presence", "error", Else::Dropped, Else::Dropped),
    ("presence", "probe", Else::Dropped, Else::Dropped),
    ("presence", "subscribe", Else::Dropped, Else::Dropped),
    ("presence", "subscribed", Else::Dropped, Else::Dropped),
    ("presence", "unsubscribe", Else::Dropped, Else::Dropped),
    ("presence", "unsubscribed", Else::Dropped, Else::Dropped),
    ("iq", "get", Else::Bounces, Else::Bounces),
    ("iq", "set", Else::Bounces, Else::Bounces),
    ("iq", "result", Else::Dropped, Else::Dropped),
    ("iq", "error", Else::Dropped, Else::Dropped),
];

#[test]
fn what_is_sent_to_no_account_is_answered_as_the_table_says_and_is_gone() {
    for shards in SHARDS {
        let server = server(shards);
        // One at home on every shard.
        let names = (0..shards).map(|shard| {
            let mut names = (0..).map(|number| format!("nobody{number}"));
            names.find(|name| home(name, shards) == shard)
        });
        for name in names.flatten() {
            // A request of who is gone waits, or A.2 would keep the answers to it from going out.
            let user = format!("before-{name}");
            server.import(&Entry::listed(NONE_IN).account(&user, &name));
            let mut sender = Client::available(&server, &user, "sender");
            for (kind, type_, bare, full) in NO_ACCOUNT {
                for (resource, fate) in [("", bare), ("/there", full)] {
                    let to = format!("{name}@{DOMAIN}{resource}");
                    check_fate(&mut sender, kind, type_, &to, fate);
                }
            }
            // Whoever takes the name later gets nothing of that.
            server.import(&Entry::listed(NONE).account(&name, &user));
            let mut owner = Client::log_in(&server, &name, "there");
            owner.send("<presence/>");
            let came = owner.settle();
            let own = owner.jid.clone();
            let others: Vec<_> = came
                .iter()
                .filter(|got| got.attr("from") != Some(&own))
                .collect();
            assert_eq!(others, Vec::<&Element>::new(), "{shards} shards");
            close(owner);
        }
    }
}

#[test]
fn a_message_without_an_address_is_for_oneself() {
    let server = server(1);
    let mut desk = Client::available(&server, "u0", "desk");
    let mut phone = Client::available(&server, "u0", "phone");
    desk.settle();
    desk.send("<message id='note' type='chat'><body>to myself</body></message>");
    for client in [&mut desk, &mut phone] {
        let note = client.until(|element| element.name == "message");
        assert_eq!(note.attr("from"), Some("u0@localhost/desk"));
    }
}

#[test]
fn messages_of_a_pair_keep_their_order_and_none_is_lost() {
    const COUNT: usize = 3000;
    for shards in SHARDS {
        let server = server(shards);
        let mut sender = Client::log_in(&server, "u0", "sender");
        let mut receivers = TARGETS.map(|user| Client::available(&server, user, "a"));
        for number in 0..COUNT {
            let all: String = receivers
                .iter()
                .map(|r| format!("<message to='{}' id='{number}' type='chat'/>", r.jid))
                .collect();
            sender.send(&all);
        }
        for receiver in &mut receivers {
            for number in 0..COUNT {
                let message = receiver.element();
                assert_eq!(
                    message.attr("id"),
                    Some(&*number.to_string()),
                    "shards = {shards}"
                );
            }
        }
    }
}

const PING: &str = "<ping xmlns='urn:xmpp:ping'/>";

#[test]
fn requests_to_a_full_jid_are_the_resources_and_all_others_are_the_servers() {
    for shards in SHARDS {
        let server = server(shards);
        let mut asker = Client::log_in(&server, "u0", "asker");
        for user in TARGETS {
            let mut answerer = log_in(&server, user, NEGATIVE).remove(0);
            let full = answerer.jid.clone();
            asker.send(&format!("<iq type='get' id='1' to='{full}'>{PING}</iq>"));
            let request = answerer.until(|element| element.name == "iq");
            assert_eq!(request.attr("from"), Some(&*asker.jid));
            assert!(
                request
                    .child("ping")
                    .is_some_and(|ping| ping.ns == "urn:xmpp:ping")
            );
            answerer.send(&format!("<iq type='result' id='1' to='{}'/>", asker.jid));
            let result = asker.element();
            assert_eq!(
                (result.attr("type"), result.attr("from")),
                (Some("result"), Some(&*full))
            );
            for to in [format!("{user}@{DOMAIN}"), format!("{user}@{DOMAIN}/gone")] {
                let error = asker.ask(&to, "get", PING);
                let id = error.attr("id").expect("an answer has an id").to_owned();
                check_error(&error, &id, &to, &asker.jid, "service-unavailable");
            }
            asker.send(&format!(
                "<iq type='result' id='9' to='{user}@{DOMAIN}/gone'/>"
            ));
            assert_eq!(asker.settle(), []);
            // RFC 6121 8.5.2.1.3: a bare JID's requests are never delivered.
            assert_eq!(answerer.settle_with(&mut asker), []);
        }
    }
}

#[test]
fn unknown_and_absent_users_answer_requests_alike() {
    let server = server(2);
    let mut asker = Client::log_in(&server, "u0", "asker");
    for payload in [
        PING,
        "<query xmlns='jabber:iq:roster'/>",
        "<vCard xmlns='vcard-temp'/>",
    ] {
        for resource in ["", "/there"] {
            let answers = ["u1", "nobody"].map(|user| {
                let mut answer = asker.ask(&format!("{user}@{DOMAIN}{resource}"), "get", payload);
                answer
                    .attributes
                    .retain(|(name, _)| name != "id" && name != "from");
                answer
            });
            assert_eq!(
                answers[0], answers[1],
                "{payload}: accounts can be told from others"
            );
        }
    }
}

#[test]
fn requests_that_break_the_rules_are_bad_requests() {
    let server = server(1);
    let mut asker = Client::log_in(&server, "u0", "asker");
    let cases = [
        format!("<iq type='get' id='1' to='{DOMAIN}'/>"),
        format!("<iq type='set' id='1' to='{DOMAIN}'>{PING}{PING}</iq>"),
        format!("<iq type='put' id='1' to='{DOMAIN}'>{PING}</iq>"),
        format!("<iq id='1' to='{DOMAIN}'>{PING}</iq>"),
    ];
    for sent in cases {
        asker.send(&sent);
        let error = asker.element();
        check_error(&error, "1", DOMAIN, &asker.jid, "bad-request");
    }
    asker.send(&format!("<iq type='get' to='{DOMAIN}'>{PING}</iq>"));
    let error = asker.element();
    assert_eq!(
        error.condition(STANZA_ERRORS),
        Some("bad-request"),
        "{error:?}"
    );
    let unknown = asker.ask(DOMAIN, "get", "<query xmlns='urn:example:unknown'/>");
    assert_eq!(
        unknown.condition(STANZA_ERRORS),
        Some("service-unavailable"),
        "{unknown:?}"
    );
}

#[test]
fn the_server_answers_discovery_ping_time_and_version() {
    let server = server(1);
    let mut asker = Client::log_in(&server, "u0", "asker");
    let pong = asker.ask(DOMAIN, "get", PING);
    assert_eq!(
        (pong.attr("type"), pong.attr("from")),
        (Some("result"), Some(DOMAIN))
    );
    let info = asker.ask(
        DOMAIN,
        "get",
        "<query xmlns='http://jabber.org/protocol/disco#info'/>",
    );
    let query = info.child("query").expect("a disco#info result");
    let identity = query.child("identity").expect("an identity");
    assert_eq!(
        (identity.attr("category"), identity.attr("type")),
        (Some("server"), Some("im"))
    );
    let features: Vec<_> = query
        .children
        .iter()
        .filter_map(|child| child.attr("var"))
        .collect();
    for feature in ["urn:xmpp:ping", "urn:xmpp:time", "jabber:iq:version"] {
        assert!(
            features.contains(&feature),
            "{feature} is not in {features:?}"
        );
    }
    let items = asker.ask(
        DOMAIN,
        "get",
        "<query xmlns='http://jabber.org/protocol/disco#items'/>",
    );
    assert_eq!(items.attr("type"), Some("result"));
    let version = asker.ask(DOMAIN, "get", "<query xmlns='jabber:iq:version'/>");
    let query = version.child("query").expect("a version result");
    assert!(!query.child_text("name").is_empty() && !query.child_text("version").is_empty());
    let time = asker.ask(DOMAIN, "get", "<time xmlns='urn:xmpp:time'/>");
    let time = time.child("time").expect("a time result");
    assert!(time.child_text("utc").ends_with('Z'), "{time:?}");
    assert!(!time.child_text("tzo").is_empty(), "{time:?}");
}
