//! Delivery to connected users over real sockets, on one shard and on two (RFC 6121 8.5).

mod support;

use support::roster::{Entry, FROM, NONE, NONE_IN, NONE_OUT, State, TO, account};
use support::server::home;
use support::{Client, DOMAIN, Element, Event, Options, STANZA_ERRORS, Server};

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
    /// A resource that is connected.
    Match(&'static str),
    NoMatch,
}

impl To {
    /// All that there are for an account with these resources.
    fn all(resources: Resources) -> impl Iterator<Item = To> {
        let full = resources.iter().map(|(name, _)| To::Match(name));
        [To::Bare, To::NoMatch].into_iter().chain(full)
    }

    fn address(self, user: &str) -> String {
        match self {
            To::Bare => format!("{user}@{DOMAIN}"),
            To::Match(resource) => format!("{user}@{DOMAIN}/{resource}"),
            To::NoMatch => format!("{user}@{DOMAIN}/elsewhere"),
        }
    }
}

fn type_attribute(type_: &str) -> String {
    match type_ {
        "" => String::new(),
        type_ => format!(" type='{type_}'"),
    }
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
        (To::Match(resource), _) => (vec![resource], Else::Dropped),
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
    let address = to.address(user);
    let attribute = type_attribute(type_);
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
    let attribute = type_attribute(type_);
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
                for to in To::all(resources) {
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

/// A name that is at home on that shard.
fn name_at(start: &str, shard: u16, shards: u16) -> String {
    let mut names = (0..).map(|number| format!("{start}{number}"));
    let name = names.find(|name| home(name, shards) == shard);
    name.expect("every shard is a home")
}

/// Ends a session in order; it is gone when this returns.
fn close(mut client: Client) {
    client.send("</stream:stream>");
    client.rest();
}

/// A presence for an account, and what the sender is to that account before.
type Presence = (&'static str, State);

/// RFC 6121 8.5.2.1.2, 8.5.2.2.2, 8.5.3.1 and 8.5.3.2.2, each in a state in which 3 and 4.3 have
/// something come of it; and of a probe, one in which nothing does.
const PRESENCES: [Presence; 8] = [
    ("", NONE),
    ("unavailable", NONE),
    ("probe", NONE),
    ("probe", FROM),
    ("subscribe", NONE),
    ("unsubscribe", NONE_IN),
    ("subscribed", NONE_OUT),
    ("unsubscribed", TO),
];

/// Which resources ask for the roster, and so hear of subscriptions: every other one.
fn is_interested(index: usize) -> bool {
    index.is_multiple_of(2)
}

fn is_available(priority: Option<i8>) -> bool {
    priority.is_some()
}

/// Who gets a presence.
fn hears(type_: &str, to: To, resources: Resources) -> Vec<&'static str> {
    let those = |fits: &dyn Fn(usize, Option<i8>) -> bool| {
        let all = resources.iter().enumerate();
        let fitting = all.filter(|(index, (_, priority))| fits(*index, *priority));
        fitting.map(|(_, (name, _))| *name).collect::<Vec<_>>()
    };
    match (type_, to) {
        // RFC 6121 4.3: the server answers.
        ("probe", _) => vec![],
        // RFC 6121 3.1.3; what is said of a subscription is said to an account (3.1.2).
        ("subscribe", _) => those(&|_, priority| is_available(priority)),
        // RFC 6121 3.1.6, 3.2.3 and 3.3.3
        ("subscribed" | "unsubscribe" | "unsubscribed", _) => {
            those(&|index, _| is_interested(index))
        }
        // RFC 6121 8.5.2.1.2: whatever the priority.
        (_, To::Bare) => those(&|_, priority| is_available(priority)),
        // RFC 6121 8.5.3.1: available or not.
        (_, To::Match(resource)) => vec![resource],
        // RFC 6121 8.5.3.2.2
        (_, To::NoMatch) => vec![],
    }
}

/// Whose presence answers a presence: what nobody there could answer is left unanswered (4.3.2).
fn answers((type_, state): Presence, to: To, resources: Resources) -> Vec<&'static str> {
    let is_asked = |name| match to {
        To::Bare => true,
        To::Match(resource) => resource == name,
        To::NoMatch => false,
    };
    let is_answered = type_ == "probe" && state.is_from();
    let answers = |(name, priority): &&(&'static str, _)| {
        is_answered && is_available(*priority) && is_asked(*name)
    };
    let those = resources.iter().filter(answers);
    those.map(|(name, _)| *name).collect()
}

/// What an element is, of what type, and whose.
fn facts(element: &Element) -> (&str, Option<&str>, String) {
    let from = element.attr("from").unwrap_or_default();
    (&element.name, element.attr("type"), from.to_owned())
}

/// Sends one presence from somebody who is connected and not available, and checks all that it
/// does at once.
fn check_presence(
    sender: &mut Client,
    user: &str,
    presence: Presence,
    to: To,
    resources: Resources,
    receivers: &mut [Client],
) {
    let (type_, state) = presence;
    let what = format!("{type_:?} to {to:?} of {resources:?}, {state:?}");
    let address = to.address(user);
    let attribute = type_attribute(type_);
    sender.send(&format!("<presence to='{address}' id='it'{attribute}/>"));
    let bare = sender.jid.split('/').next().unwrap_or_default().to_owned();
    let (from, to_attribute) = match type_ {
        "" | "unavailable" => (sender.jid.clone(), address),
        // RFC 6121 3.1.2
        _ => (bare.clone(), format!("{user}@{DOMAIN}")),
    };
    let names = hears(type_, to, resources);
    for (receiver, (name, _)) in receivers.iter_mut().zip(resources) {
        let arrived = receiver.settle_with(sender);
        let is_from =
            |element: &&Element| element.attr("from").is_some_and(|it| it.starts_with(&bare));
        let arrived: Vec<_> = arrived.iter().filter(is_from).collect();
        let count = usize::from(names.contains(name));
        assert_eq!(arrived.len(), count, "{what}, resource {name}: {arrived:?}");
        for element in arrived {
            assert_eq!(element.name, "presence", "{what}");
            assert_eq!(element.attr("type").unwrap_or_default(), type_, "{what}");
            assert_eq!(element.attr("from"), Some(&*from), "{what}");
            assert_eq!(element.attr("to"), Some(&*to_attribute), "{what}");
        }
    }
    let came = sender.settle_at(user);
    let came: Vec<_> = came.iter().map(facts).collect();
    let wanted: Vec<_> = answers(presence, to, resources)
        .iter()
        .map(|name| ("presence", None, format!("{user}@{DOMAIN}/{name}")))
        .collect();
    assert_eq!(came, wanted, "{what}");
}

#[test]
fn presence_reaches_whom_the_table_of_rfc_6121_8_5_names() {
    for shards in SHARDS {
        let server = server(shards);
        for shard in 0..shards {
            for (number, resources) in ALL.into_iter().enumerate() {
                let user = name_at(&format!("target{number}-"), shard, shards);
                check_presences(&server, &user, resources, &|index| {
                    name_at(&format!("{user}-sender{index}-"), 0, shards)
                });
            }
        }
    }
}

/// All kinds of presence to all addresses of an account, each from a sender of its own.
fn check_presences(
    server: &Server,
    user: &str,
    resources: Resources,
    name: &dyn Fn(usize) -> String,
) {
    let cells = To::all(resources).flat_map(|to| PRESENCES.map(|presence| (to, presence)));
    let cells: Vec<_> = cells
        .enumerate()
        .map(|(index, (to, presence))| (name(index), to, presence))
        .collect();
    let contacts: Vec<_> = cells
        .iter()
        .map(|(sender, _, (_, state))| (Entry::listed(*state), &**sender))
        .collect();
    let senders = cells
        .iter()
        .map(|(sender, _, (_, state))| Entry::listed(state.mirrored()).account(sender, user));
    server.import(&(account(user, &contacts) + &senders.collect::<String>()));
    let mut receivers = log_in(server, user, resources);
    for (index, receiver) in receivers.iter_mut().enumerate() {
        if is_interested(index) {
            receiver.ask("", "get", "<query xmlns='jabber:iq:roster'/>");
        }
    }
    for (sender, to, presence) in &cells {
        let mut sender = Client::log_in(server, sender, "sender");
        check_presence(&mut sender, user, *presence, *to, resources, &mut receivers);
        close(sender);
    }
    for receiver in receivers {
        close(receiver);
    }
    // RFC 6121 3.1.3: whoever comes next gets the requests that wait, and nothing else (8.5.2.2.2).
    let mut later = Client::log_in(server, user, "later");
    later.send("<presence/>");
    let own = later.jid.clone();
    let came = later.settle();
    let others = came.iter().filter(|it| it.attr("from") != Some(&own));
    let mut came: Vec<_> = others.map(facts).collect();
    came.sort_unstable();
    let asked = cells
        .iter()
        .filter(|(_, _, presence)| presence.0 == "subscribe");
    let mut asked: Vec<_> = asked
        .map(|(sender, _, _)| ("presence", Some("subscribe"), format!("{sender}@{DOMAIN}")))
        .collect();
    asked.sort_unstable();
    assert_eq!(came, asked, "{resources:?}");
    close(later);
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
        for name in (0..shards).map(|shard| name_at("nobody", shard, shards)) {
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

/// Sends one IQ and checks all that it does (RFC 6121 8.5.2.1.3, 8.5.2.2.3, 8.5.3.1, 8.5.3.2.3).
fn check_iq(
    sender: &mut Client,
    user: &str,
    type_: &str,
    to: To,
    resources: Resources,
    receivers: &mut [Client],
) {
    let what = format!("{type_:?} to {to:?} of {resources:?}");
    let address = to.address(user);
    let payload = match type_ {
        "get" | "set" => PING,
        _ => "",
    };
    sender.send(&format!(
        "<iq to='{address}' id='it' type='{type_}'>{payload}</iq>"
    ));
    for (receiver, (name, _)) in receivers.iter_mut().zip(resources) {
        let arrived = receiver.settle_with(sender);
        let count = usize::from(to == To::Match(name));
        assert_eq!(arrived.len(), count, "{what}, resource {name}: {arrived:?}");
        for iq in arrived {
            assert_eq!((&*iq.name, iq.attr("type")), ("iq", Some(type_)), "{what}");
            assert_eq!(iq.attr("from"), Some(&*sender.jid), "{what}");
            assert_eq!(iq.attr("to"), Some(&*address), "{what}");
            assert_eq!(iq.attr("id"), Some("it"), "{what}");
            let is_ping = iq.child("ping").is_some_and(|it| it.ns == "urn:xmpp:ping");
            assert_eq!(is_ping, !payload.is_empty(), "{what}");
        }
    }
    let came = sender.settle_at(user);
    let is_answered = !matches!(to, To::Match(_)) && !payload.is_empty();
    assert_eq!(came.len(), usize::from(is_answered), "{what}: {came:?}");
    for error in came {
        assert_eq!(error.name, "iq", "{what}");
        check_error(&error, "it", &address, &sender.jid, "service-unavailable");
    }
}

#[test]
fn requests_and_answers_reach_whom_the_table_of_rfc_6121_8_5_names() {
    for shards in SHARDS {
        let server = server(shards);
        let mut sender = Client::log_in(&server, "u0", "sender");
        for user in TARGETS {
            for resources in ALL {
                let mut receivers = log_in(&server, user, resources);
                for to in To::all(resources) {
                    for type_ in ["get", "set", "result", "error"] {
                        check_iq(&mut sender, user, type_, to, resources, &mut receivers);
                    }
                }
                for receiver in receivers {
                    close(receiver);
                }
                // Nothing of that waited.
                check_waiting(&server, &sender.jid, user, &[]);
            }
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

#[test]
fn what_storage_answers_comes_before_the_end_of_the_stream() {
    let server = Server::start(&Options::default());
    for last in ["</stream:stream>", ""] {
        let mut client = Client::log_in(&server, "u0", "here");
        let set = |n| {
            format!(
                "<iq type='set' id='{n}'><query xmlns='jabber:iq:private'>\
                 <x xmlns='urn:x:{n}'/></query></iq>"
            )
        };
        let all: String = (0..120).map(set).collect();
        let lost = format!("<message id='lost' to='nobody@{DOMAIN}' type='chat'><body/></message>");
        client.send(&format!("{all}{lost}{last}"));
        client.finish_sending();
        let events = client.rest();
        let ids = events.iter().filter_map(|event| match event {
            Event::Element(answer) => answer.attr("id"),
            _ => None,
        });
        let ids: std::collections::HashSet<&str> = ids.collect();
        assert_eq!(ids.len(), 121, "{last:?}: {events:?}");
        assert_eq!(events.last(), Some(&Event::Close));
    }
}
