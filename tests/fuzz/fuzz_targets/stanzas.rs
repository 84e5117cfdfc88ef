//! Stanzas: whatever bound clients say to each other and to the server, no shard ends by it, and
//! what comes out is well-formed and in order.
//!
//! Each pair of bytes is a step: a part of a stanza, or what becomes of its sender.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sim::{ClientId, Faults, Login, Random, World};
use xmpp::Settings;

const NAMES: [&str; 3] = [
    "alice@example.org/a",
    "alice@example.org/b",
    "bob@example.org/x",
];

const KINDS: [&str; 3] = ["message", "presence", "iq"];

const TYPES: [&str; 16] = [
    "",
    "chat",
    "headline",
    "groupchat",
    "error",
    "get",
    "set",
    "result",
    "subscribe",
    "subscribed",
    "unsubscribe",
    "unsubscribed",
    "unavailable",
    "probe",
    "normal",
    "nonsense",
];

const ADDRESSES: [&str; 12] = [
    "",
    "example.org",
    "alice@example.org",
    "bob@example.org",
    "alice@example.org/a",
    "alice@example.org/b",
    "bob@example.org/x",
    "bob@example.org/none",
    "nobody@example.org",
    "x@elsewhere.example",
    "example.org/resource",
    "@",
];

/// Elements that may have content.
const ELEMENTS: [(&str, &str); 24] = [
    ("body", ""),
    ("status", ""),
    ("priority", ""),
    ("thread", ""),
    ("query", " xmlns='jabber:iq:roster'"),
    ("item", " jid='bob@example.org'"),
    ("item", " jid='bob@example.org' subscription='remove'"),
    ("item", " jid='alice@example.org/b'"),
    ("group", ""),
    ("block", " xmlns='urn:xmpp:blocking'"),
    ("unblock", " xmlns='urn:xmpp:blocking'"),
    ("blocklist", " xmlns='urn:xmpp:blocking'"),
    (
        "report",
        " xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:spam'",
    ),
    ("query", " xmlns='jabber:iq:private'"),
    ("storage", " xmlns='storage:bookmarks'"),
    ("vCard", " xmlns='vcard-temp'"),
    ("x", " xmlns='vcard-temp:x:update'"),
    ("photo", ""),
    ("query", " xmlns='jabber:iq:register'"),
    ("password", ""),
    ("p:x", " xmlns:p='urn:p' p:a='1'"),
    ("error", " type='cancel'"),
    ("x", " xmlns=''"),
    ("message", " xmlns='jabber:client'"),
];

/// What stands alone.
const PARTS: [&str; 28] = [
    "]",
    "]]",
    ">",
    "]>",
    "x",
    " ",
    "\n",
    "&gt;",
    "&#93;",
    "&#x5d;",
    "<![CDATA[]]>",
    "<![CDATA[]]]>",
    "<![CDATA[<]]>",
    "\u{1f600}",
    "&amp;",
    "<delay xmlns='urn:xmpp:delay' from='example.org' stamp='2001-01-01T00:00:00Z'/>",
    "<delay xmlns='urn:xmpp:delay' from='elsewhere.example' stamp='2001-01-01T00:00:00Z'/>",
    "<stanza-id xmlns='urn:xmpp:sid:0' id='1' by='example.org'/>",
    "<stanza-id xmlns='urn:xmpp:sid:0' id='1' by='alice@example.org'/>",
    "<no-store xmlns='urn:xmpp:hints'/>",
    "<composing xmlns='http://jabber.org/protocol/chatstates'/>",
    "<ping xmlns='urn:xmpp:ping'/>",
    "<query xmlns='jabber:iq:last'/>",
    "<query xmlns='jabber:iq:version'/>",
    "<query xmlns='http://jabber.org/protocol/disco#info'/>",
    "<time xmlns='urn:xmpp:time'/>",
    "<remove/>",
    "<service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>",
];

/// A stanza that is being said.
#[derive(Default)]
struct Draft {
    text: String,
    open: Vec<&'static str>,
}

impl Draft {
    fn begin(&mut self, code: u8, number: u8) {
        let kind = KINDS[usize::from(code) % KINDS.len()];
        let type_ = TYPES[usize::from(number) % TYPES.len()];
        let to = ADDRESSES[usize::from(number >> 4) % ADDRESSES.len()];
        self.text += &format!("<{kind} id='{number}'");
        if !type_.is_empty() {
            self.text += &format!(" type='{type_}'");
        }
        if !to.is_empty() {
            self.text += &format!(" to='{to}'");
        }
        self.text.push('>');
        self.open.push(kind);
    }

    fn close(&mut self) {
        if let Some(name) = self.open.pop() {
            self.text += &format!("</{name}>");
        }
    }

    fn finish(&mut self) -> String {
        while !self.open.is_empty() {
            self.close();
        }
        std::mem::take(&mut self.text)
    }
}

fn connect(world: &mut World, who: usize) -> ClientId {
    let id = world.connect(Login::new(NAMES[who], "secret"));
    world.run();
    id
}

fn step(world: &mut World, id: ClientId, draft: &mut Draft, code: u8, number: u8) {
    let pick = usize::from(number);
    match code % 32 {
        0..6 => {
            let said = draft.finish();
            world.send(id, &said);
            draft.begin(code, number);
        }
        6..14 if !draft.open.is_empty() => {
            let (name, attributes) = ELEMENTS[pick % ELEMENTS.len()];
            draft.text += &format!("<{name}{attributes}>");
            draft.open.push(name);
        }
        14..24 if !draft.open.is_empty() => draft.text += PARTS[pick % PARTS.len()],
        24..27 if draft.open.len() > 1 => draft.close(),
        27 => world.run_for(u64::from(number) * 100),
        28 => world.vanish(id),
        29 => world.send(id, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>"),
        30 => world.send(id, &format!("<a xmlns='urn:xmpp:sm:3' h='{number}'/>")),
        _ => {
            let said = draft.finish();
            world.send(id, &said);
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let settings = Settings {
        shards: 2,
        registration_open: true,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(1, settings, Faults::rough(&mut Random::new(1)));
    for name in ["alice", "bob"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    let mut clients: Vec<ClientId> = (0..NAMES.len())
        .map(|who| connect(&mut world, who))
        .collect();
    let (mut draft, mut who) = (Draft::default(), 0);
    for pair in bytes.chunks(2).take(300) {
        let (code, number) = (pair[0], pair.get(1).copied().unwrap_or(0));
        // The upper bits choose the client, who then says a whole stanza.
        if draft.open.is_empty() {
            who = usize::from(code >> 5) % NAMES.len();
        }
        if world.client(clients[who]).ended {
            draft = Draft::default();
            clients[who] = connect(&mut world, who);
        }
        step(&mut world, clients[who], &mut draft, code, number);
    }
    let said = draft.finish();
    world.send(clients[who], &said);
    world.run_for(1_000_000);
    world.check_rest();
});
