//! What comes in from files of XEP-0227, and what of them is refused.

use super::*;
use crate::cli::export;
use xmpp::port::{AccessModel, Affiliation, Node, NodeConfig, NodeItem, SendLast, WholeNode};
use xmpp::xep::pubsub::SUBSCRIPTIONS_SIZE_MAX;

const DOMAIN: &str = "a.example";

/// What may wait for one account.
const OFFLINE: OfflineQuota = OfflineQuota {
    count: 10,
    size: 1_000,
};

/// A directory of this test alone, removed with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let name = format!("vorpal-import-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_dir_all(&self.0);
    }
}

/// What comes in from a file, and whether all of it did.
fn imported(path: &Path) -> (Vec<Arrival>, Result<(), String>, Import) {
    let limits = Limits {
        offline_max: OFFLINE.count,
        offline_size_max: OFFLINE.size,
        roster_items_max: 3,
        ..Limits::default()
    };
    imported_within(path, limits)
}

fn imported_within(path: &Path, limits: Limits) -> (Vec<Arrival>, Result<(), String>, Import) {
    let mut arrivals = Vec::new();
    let mut import = Import::new(DOMAIN.into(), limits);
    let mut create = |batch: Vec<Arrival>, _: &mut Notes| {
        arrivals.extend(batch);
        Ok(())
    };
    let read = import.file(path, Level::Root, 0, &mut create);
    let batch = std::mem::take(&mut import.batch);
    arrivals.extend(batch);
    (
        arrivals,
        read.map_err(|failure| failure.to_string()),
        import,
    )
}

fn document(users: &str) -> String {
    format!("<server-data xmlns='{PIE}'><host jid='{DOMAIN}'>{users}</host></server-data>")
}

fn some_keys() -> Credentials {
    let key = |size: usize| {
        let octets: Box<[u8]> = vec![7; size].into();
        let (salt, stored_key, server_key) = ([1; 16].into(), octets.clone(), octets);
        Some(ScramKey {
            salt,
            iterations: 4096,
            stored_key,
            server_key,
        })
    };
    Credentials {
        sha1: key(20),
        sha256: key(32),
        sha512: key(64),
    }
}

fn some_account() -> WholeAccount {
    let juliet = BareJid::parse("juliet@a.example").unwrap();
    let mut whole = WholeAccount::new(juliet, some_keys());
    let item = |contact: &str| RosterItem::new(BareJid::parse(contact).unwrap());
    let request = |from: &str| -> Option<Box<[u8]>> {
        let text = format!(
            "<presence from='{from}' to='juliet@a.example' type='subscribe'>\
             <nick xmlns='http://jabber.org/protocol/nick'>A &amp; B</nick></presence>"
        );
        Some(text.into_bytes().into())
    };
    whole.data.roster = vec![
        RosterItem {
            name: "R'omeo & \"co\" <\u{1f916}>".into(),
            groups: vec!["Friends".into(), " a  b ".into()],
            subscription: Subscription::To,
            approved: true,
            pending_in: request("romeo@a.example"),
            listed: true,
            ..item("romeo@a.example")
        },
        RosterItem {
            ask: true,
            listed: true,
            ..item("friar@b.example")
        },
        RosterItem {
            pending_in: request("nurse@a.example"),
            ..item("nurse@a.example")
        },
    ];
    whole.data.blocked = vec!["tybalt@a.example".into(), "c.example".into()];
    let text = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
    whole.documents = vec![
        (
            Space::Private,
            "a urn:a".into(),
            text("<a xmlns='urn:a'><b xmlns=''/> </a>"),
        ),
        (
            Space::Vcard,
            "".into(),
            text("<vCard xmlns='vcard-temp'><FN>J</FN></vCard>"),
        ),
        (
            Space::Activity,
            "".into(),
            text("1700000000000000 gone & away"),
        ),
    ];
    let message = |rest: &str| {
        text(&format!(
            "<message from='r@b/x' to='juliet@a.example'{rest}"
        ))
    };
    whole.offline = vec![
        message(" xml:lang='de' id='1'><body>1 &lt; 2\n</body></message>"),
        message("><body/><delay xmlns='urn:xmpp:delay' stamp='s'/></message>"),
        message("><body/><x xmlns='urn:x'><c xmlns='urn:xmpp:pie:0'/></x></message>"),
    ];
    whole
}

#[test]
fn what_is_exported_comes_in_as_it_was() {
    let scratch = Scratch::new("again");
    let mut users = Vec::new();
    let bare = BareJid::parse("bare@a.example").unwrap();
    let accounts = [some_account(), WholeAccount::new(bare, some_keys())];
    for whole in &accounts {
        export::user(whole, &mut users, &mut |what| panic!("{what} was left out"));
    }
    let text = document(&String::from_utf8(users).unwrap());
    let (arrivals, read, import) = imported(&scratch.file("file", &text));
    assert_eq!(read, Ok(()));
    assert_eq!((import.notes.count, import.unknown.len()), (0, 0));
    let arrived: Vec<_> = arrivals.into_iter().map(|arrival| arrival.whole).collect();
    assert_eq!(arrived, accounts);
}

#[test]
fn a_stanza_that_cannot_be_read_is_told_and_the_rest_exported() {
    let mut whole = some_account();
    whole
        .offline
        .insert(0, b"<message><body>".as_slice().into());
    let (mut out, mut left_out) = (Vec::new(), Vec::new());
    export::user(&whole, &mut out, &mut |what| left_out.push(what));
    assert_eq!(left_out.len(), 1, "{left_out:?}");
    let scratch = Scratch::new("left-out");
    let text = document(&String::from_utf8(out).unwrap());
    let (arrivals, ..) = imported(&scratch.file("file", &text));
    assert_eq!(arrivals[0].whole, some_account());
}

#[test]
fn files_are_included_from_beside_and_nowhere_else() {
    let scratch = Scratch::new("include");
    let include = |href: &str| format!("<i:include xmlns:i='{XINCLUDE}' href='{href}'/>");
    scratch.file(
        "user.xml",
        &format!("<user xmlns='{PIE}' name='juliet' password='p'/>"),
    );
    // An include is a root element too, so a file can name itself.
    scratch.file("self.xml", &include("self.xml"));
    let host = format!(
        "<host xmlns='{PIE}' jid='{DOMAIN}'>{}</host>",
        include("user.xml")
    );
    scratch.file("host.xml", &host);
    let main = |href: &str| format!("<server-data xmlns='{PIE}'>{}</server-data>", include(href));
    let (arrivals, read, _) = imported(&scratch.file("main.xml", &main("host.xml")));
    assert_eq!((arrivals.len(), read), (1, Ok(())));
    assert_eq!(arrivals[0].password.as_deref(), Some("p"));
    for href in [
        "../host.xml",
        "/etc/passwd",
        "file:host.xml",
        "",
        "missing.xml",
    ] {
        let (arrivals, read, _) = imported(&scratch.file("main.xml", &main(href)));
        assert!(
            arrivals.is_empty() && read.is_err(),
            "{href:?} was included"
        );
    }
    let (_, read, _) = imported(&scratch.file("main.xml", &main("self.xml")));
    assert!(read.unwrap_err().contains("too deeply"));
}

#[test]
fn entities_of_a_file_are_refused() {
    let scratch = Scratch::new("entities");
    let bomb = format!(
        "<!DOCTYPE a [<!ENTITY b 'c'>]>{}",
        document("<user name='&b;'/>")
    );
    let (arrivals, read, _) = imported(&scratch.file("file", &bomb));
    assert!(arrivals.is_empty());
    assert!(read.unwrap_err().contains("document type"));
}

#[test]
fn a_file_of_xml_1_1_is_refused_with_its_line() {
    let scratch = Scratch::new("version");
    let users = "<user name='romeo' password='p'>\
                 <query xmlns='jabber:iq:roster'><item jid='a@b' name='&#x2;'/></query></user>";
    let text = format!("<?xml version='1.1'?>\n{}", document(users));
    let (arrivals, read, _) = imported(&scratch.file("file", &text));
    assert!(arrivals.is_empty());
    let refusal = read.unwrap_err();
    assert!(refusal.contains("file:1: "), "{refusal}");
    assert!(refusal.contains("only 1.0 is read"), "{refusal}");
    // The same in what a file includes.
    let part = "<?xml version='1.1'?><vCard xmlns='vcard-temp'><FN>&#x1;</FN></vCard>";
    scratch.file("part.xml", part);
    let include = format!("<xi:include xmlns:xi='{XINCLUDE}' href='part.xml'/>");
    let users = format!("<user name='romeo' password='p'>{include}</user>");
    let (_, read, _) = imported(&scratch.file("file", &document(&users)));
    let refusal = read.unwrap_err();
    assert!(refusal.contains("part.xml:1: "), "{refusal}");
}

/// An older import let such in, and clients send elements with the prefix `xml`.
#[test]
fn what_cannot_be_read_again_is_left_out_of_an_export_and_nothing_else() {
    let mut whole = some_account();
    let expected = whole.clone();
    whole.data.roster[0].name = whole.data.roster[0]
        .name
        .replace("omeo", "o\u{2}meo")
        .into();
    whole.data.roster[0].groups[0] = "Fri\u{1}ends".into();
    whole.documents[2].2 = b"1700000000000000 gone & \x01away".as_slice().into();
    let more = |bytes: &[u8], before: &str, more: &str| -> Box<[u8]> {
        let text = String::from_utf8_lossy(bytes);
        text.replace(before, &format!("{more}{before}"))
            .into_bytes()
            .into()
    };
    whole.offline[0] = more(&whole.offline[0], "</body>", "\u{1}");
    whole.offline[1] = more(&whole.offline[1], "<delay", "<xml:y/>");
    let request = whole.data.roster[2].pending_in.as_mut().unwrap();
    *request = more(request, "</presence>", "<xml:z>z</xml:z>");
    let (mut out, mut left_out) = (Vec::new(), Vec::new());
    export::user(&whole, &mut out, &mut |what| left_out.push(what));
    assert_eq!(left_out.len(), 6, "{left_out:?}");
    let scratch = Scratch::new("mended");
    let text = document(&String::from_utf8(out).unwrap());
    let (arrivals, read, _) = imported(&scratch.file("file", &text));
    assert_eq!(read, Ok(()));
    assert_eq!(arrivals[0].whole, expected);
}

#[test]
fn what_is_before_the_trouble_comes_in_whole() {
    let scratch = Scratch::new("torn");
    let users = "<user name='romeo' password='p'/><user name='torn' password='p'><query";
    let (arrivals, read, _) = imported(&scratch.file("file", &document(users)));
    assert!(read.unwrap_err().contains("file:1:"));
    let names: Vec<_> = arrivals
        .iter()
        .map(|one| one.whole.account.as_str())
        .collect();
    assert_eq!(names, ["romeo@a.example"]);
}

#[test]
fn others_hosts_and_what_is_unknown_are_passed_over_and_told() {
    let scratch = Scratch::new("others");
    let text = format!(
        "<server-data xmlns='{PIE}'><host jid='b.example'><user name='x'/></host>\
         <host jid='A.example'><user name='y' password='p'><archive xmlns='{PIE}#mam'/></user>\
         </host></server-data>"
    );
    let (arrivals, read, import) = imported(&scratch.file("file", &text));
    assert_eq!((arrivals.len(), read), (1, Ok(())));
    assert_eq!((import.notes.count, import.unknown.len()), (1, 1));
}

#[test]
fn what_follows_a_bad_entry_of_a_list_comes_in() {
    let scratch = Scratch::new("tail");
    let long = "x".repeat(70_000);
    let users = format!(
        "<user name='romeo' password='p'>\
         <query xmlns='jabber:iq:private'><a xmlns='urn:a'/><b/><c xmlns='urn:c'/></query>\
         <query xmlns='jabber:iq:private'><{long} xmlns='urn:x'/><d xmlns='urn:d'/></query>\
         <blocklist xmlns='{BLOCKING}'>\
         <item jid='a.b'/><item jid='@'/><item jid='c.d'/></blocklist>\
         <query xmlns='jabber:iq:roster'><item jid='@'/><item jid='e@f.g'/></query></user>"
    );
    let (arrivals, read, import) = imported(&scratch.file("file", &document(&users)));
    assert_eq!((arrivals.len(), read, import.notes.count), (1, Ok(()), 4));
    let whole = &arrivals[0].whole;
    let documents = whole.documents.iter().map(|(_, name, _)| &**name);
    assert_eq!(
        documents.collect::<Vec<_>>(),
        ["a urn:a", "c urn:c", "d urn:d"]
    );
    assert_eq!(whole.data.blocked, ["a.b".into(), "c.d".into()]);
    assert_eq!(whole.data.roster.len(), 1);
}

#[test]
fn no_more_messages_come_in_than_may_wait_and_the_rest_is_counted() {
    let scratch = Scratch::new("waiting");
    let message =
        |body: &str| format!("<message from='r@b.example/x'><body>{body}</body></message>");
    let user = |name: &str, lists: &[Vec<String>]| {
        let lists: Vec<String> = lists
            .iter()
            .map(|list| format!("<offline-messages>{}</offline-messages>", list.concat()))
            .collect();
        format!("<user name='{name}' password='p'>{}</user>", lists.concat())
    };
    // In two lists: what counts is the account.
    let many: Vec<Vec<String>> = (0..2)
        .map(|list| {
            (0..7)
                .map(|number| message(&format!("{list}{number}")))
                .collect()
        })
        .collect();
    // What is too large for the rest leaves room for what comes after it.
    let large = "x".repeat(OFFLINE.size as usize / 2);
    let sizes = vec![vec![message(&large), message(&large), message("small")]];
    let users = user("many", &many) + &user("large", &sizes) + &user("few", &many[..1]);
    let (arrivals, read, _) = imported(&scratch.file("file", &document(&users)));
    assert_eq!(read, Ok(()));
    let count = |arrival: &Arrival| (arrival.whole.offline.len(), arrival.left_out);
    let counts: Vec<_> = arrivals.iter().map(count).collect();
    assert_eq!(counts, [(OFFLINE.count as usize, 4), (2, 1), (7, 0)]);
    let size = |arrival: &Arrival| {
        arrival
            .whole
            .offline
            .iter()
            .map(|one| one.len() as u64)
            .sum()
    };
    let sizes: Vec<u64> = arrivals.iter().map(size).collect();
    assert!(sizes.iter().all(|size| *size <= OFFLINE.size), "{sizes:?}");
    // The oldest stay.
    let last = arrivals[0]
        .whole
        .offline
        .last()
        .map(|one| String::from_utf8_lossy(one));
    assert!(last.is_some_and(|last| last.contains("<body>12</body>")));
}

#[test]
fn what_the_server_would_not_have_is_left_out_with_its_line() {
    let scratch = Scratch::new("kinds");
    let message = |type_: &str, rest: &str| {
        format!("<message from='e@f.g' type='{type_}'><body>{type_}</body>{rest}</message>\n")
    };
    let mut messages: String = ["chat", "normal", "headline", "error", "groupchat"]
        .map(|type_| message(type_, ""))
        .concat();
    messages += &message("chat", "<no-store xmlns='urn:xmpp:hints'/>");
    let item = |name: &str, rest: &str| format!("<item jid='{name}@f.g' {rest}/>");
    let items = [
        item("a", "subscription='to' ask='subscribe'"),
        item("b", "subscription='from' ask='subscribe'"),
        item("c", ""),
        item("d", ""),
    ];
    let request = |name: &str, size: usize| {
        format!(
            "<presence xmlns='jabber:client' from='{name}@f.g' type='subscribe'><status>{}\
             </status></presence>",
            "x".repeat(size)
        )
    };
    let half = REQUESTS_SIZE_MAX / 2;
    let requests = [
        ("q", half),
        ("r", half),
        ("s", 1),
        ("t", 1),
        ("u", 1),
        ("c", 1),
    ];
    let requests = requests.map(|(name, size)| request(name, size));
    let users = format!(
        "<user name='romeo' password='p'>\n<offline-messages>{messages}</offline-messages>\
         <query xmlns='jabber:iq:roster'>{}</query>\n{}</user>",
        items.concat(),
        requests.concat()
    );
    let (arrivals, read, import) = imported(&scratch.file("file", &document(&users)));
    // Of messages, contacts, and two of the requests.
    assert_eq!((read, import.notes.count), (Ok(()), 4));
    let whole = &arrivals[0].whole;
    assert_eq!(whole.offline.len(), 2);
    let roster: Vec<_> = (whole.data.roster.iter())
        .map(|item| {
            (
                item.contact.local().unwrap(),
                item.ask,
                item.pending_in.is_some(),
            )
        })
        .collect();
    let expected = [
        ("a", false, false),
        ("b", true, false),
        ("c", false, true),
        ("q", false, true),
        ("s", false, true),
        ("t", false, true),
    ];
    assert_eq!(roster, expected);
    let said = &import.notes.said;
    assert!(
        said[0].contains("file:8: romeo@a.example: a waiting"),
        "{said:?}"
    );
}

#[test]
fn nobody_comes_into_his_own_roster_and_nothing_waits_for_somebody_else() {
    let scratch = Scratch::new("own");
    let users = "<user name='romeo' password='p'>\
         <query xmlns='jabber:iq:roster'><item jid='Romeo@a.example' subscription='both'/>\
         <item jid='e@f.g'/></query>\
         <presence xmlns='jabber:client' from='romeo@a.example' type='subscribe'/>\
         <offline-messages><message to='Romeo@a.example/X'><body>1</body></message>\
         <message from='E@f.g/X'><body>2</body></message>\
         <message from='e@f.g' to='juliet@a.example'><body>3</body></message>\
         <message from='@'><body>4</body></message></offline-messages></user>";
    let (arrivals, read, import) = imported(&scratch.file("file", &document(users)));
    assert_eq!((arrivals.len(), read, import.notes.count), (1, Ok(()), 3));
    let whole = &arrivals[0].whole;
    let contacts = whole.data.roster.iter().map(|item| item.contact.as_str());
    assert_eq!(contacts.collect::<Vec<_>>(), ["e@f.g"]);
    let waiting = whole.offline.iter();
    let waiting: Vec<_> = waiting.map(|one| String::from_utf8_lossy(one)).collect();
    assert_eq!(
        waiting,
        [
            "<message to='romeo@a.example/X' from='romeo@a.example'><body>1</body></message>",
            "<message from='e@f.g/X' to='romeo@a.example'><body>2</body></message>",
        ]
    );
}

#[test]
fn contacts_and_who_asks_come_in_by_their_prepared_bare_addresses() {
    let scratch = Scratch::new("bare");
    let users = "<user name='romeo' password='p'>\
         <query xmlns='jabber:iq:roster'><item jid='Juliet@A.example/Balcony' name='J'/>\
         <item jid='a@b@c'/></query>\
         <presence xmlns='jabber:client' from='Nurse@A.example/Home' type='subscribe'/></user>";
    let (arrivals, read, import) = imported(&scratch.file("file", &document(users)));
    assert_eq!((arrivals.len(), read, import.notes.count), (1, Ok(()), 1));
    let [juliet, nurse] = &arrivals[0].whole.data.roster[..] else {
        panic!("two contacts");
    };
    assert_eq!(juliet.contact.as_str(), "juliet@a.example");
    assert!(juliet.listed && &*juliet.name == "J");
    let request = nurse.pending_in.as_deref().map(String::from_utf8_lossy);
    let expected = "<presence from='nurse@a.example' type='subscribe' to='romeo@a.example'/>";
    assert_eq!(request.as_deref(), Some(expected));
}

fn some_nodes() -> Vec<WholeNode> {
    let config = NodeConfig {
        title: "Verses & <more>".into(),
        access: AccessModel::Roster,
        groups: vec!["Friends & foes".into()],
        items_max: u32::MAX,
        send_last: SendLast::Never,
        notifies_config: true,
        ..NodeConfig::default()
    };
    let payloads = ["<a xmlns='urn:x'>1 &lt; 2</a>", "<b xmlns='urn:y' c='d'/>"];
    let said = |(number, payload): (u64, &str)| -> (u64, Box<[u8]>) {
        let text = format!("<item id='{number}&amp;'>{payload}</item>");
        (number, text.into_bytes().into())
    };
    let items: Vec<_> = (1..).zip(payloads).map(said).collect();
    let known = items.iter().map(|(number, bytes)| NodeItem {
        number: *number,
        id: format!("{number}&").into(),
        size: bytes.len() as u32,
        at: Timestamp(0),
    });
    let full = Node {
        affiliations: vec![("r@b.example".into(), Affiliation::Publisher)],
        subscriptions: vec!["r@b.example/x".into()],
        items: known.collect(),
        last: 2,
        ..Node::new("urn:x:verses", config)
    };
    let empty = Node::new("urn:x:empty", NodeConfig::default());
    vec![(empty, Vec::new()), (full, items)]
}

/// XEP-0227 4.9.1, 4.9.2
#[test]
fn nodes_are_exported_and_come_in_as_they_were_but_for_their_times() {
    let scratch = Scratch::new("nodes");
    let mut whole = some_account();
    whole.nodes = some_nodes();
    let mut users = Vec::new();
    export::user(&whole, &mut users, &mut |what| {
        panic!("{what} was left out")
    });
    let text = document(&String::from_utf8(users).unwrap());
    let (mut arrivals, read, import) = imported(&scratch.file("file", &text));
    assert_eq!(read, Ok(()));
    assert_eq!((import.notes.count, import.unknown.len()), (0, 0));
    let arrived = &mut arrivals[0].whole;
    for item in arrived.nodes.iter_mut().flat_map(|it| &mut it.0.items) {
        assert!(item.at > Timestamp(0));
        item.at = Timestamp(0);
    }
    assert_eq!(*arrived, whole);
}

/// An account with a node `good` that keeps two items, with this among its configurations, and
/// these items.
fn with_node(owner: &str, items: &str) -> String {
    let good = configure("good", "whitelist");
    document(&format!(
        "<user name='juliet' password='p'>\
         <pubsub xmlns='http://jabber.org/protocol/pubsub#owner'>{good}{owner}</pubsub>\
         <pubsub xmlns='http://jabber.org/protocol/pubsub'>{items}</pubsub></user>"
    ))
}

fn configure(name: &str, access: &str) -> String {
    format!(
        "<configure node='{name}'><x xmlns='jabber:x:data' type='form'>\
         <field var='pubsub#access_model'><value>{access}</value></field>\
         <field var='pubsub#max_items'><value>2</value></field>\
         <field var='other#unknown'><value>x</value></field></x></configure>"
    )
}

#[test]
fn what_no_node_here_can_be_is_left_out_and_the_rest_comes_in() {
    let scratch = Scratch::new("nodes-left-out");
    let item = |id: &str, said: &str| format!("<item id='{id}'>{said}</item>");
    let of = |node: &str, items: &str| format!("<items node='{node}'>{items}</items>");
    let one = item("1", "<a xmlns='urn:x'/>");
    let with = |more: &str| of("good", &format!("{one}{more}"));
    let no_jid = "<subscriptions node='good'><subscription jid='@'/></subscriptions>";
    let long = "x".repeat(Limits::default().item_size_max + 1);
    let left_out = [
        (configure("", "open"), with("")),
        (configure("bad", "authorize"), with("")),
        (configure("good", "open"), with("")),
        ("<affiliations node='none'/>".into(), with("")),
        (no_jid.into(), with("")),
        (String::new(), of("bad", &one) + &with("")),
        (String::new(), with(&item("", "<a/>"))),
        (String::new(), with(&one)),
        (String::new(), with(&item("x", "<a/><b/>"))),
        (String::new(), with(&item("x", &long))),
    ];
    for (number, (owner, items)) in left_out.into_iter().enumerate() {
        let file = scratch.file(&number.to_string(), &with_node(&owner, &items));
        let (arrivals, read, import) = imported(&file);
        assert_eq!((read, import.notes.count), (Ok(()), 1), "{owner} {items}");
        let [(node, said)] = &arrivals[0].whole.nodes[..] else {
            panic!("one node comes in: {owner} {items}");
        };
        let config = &node.config;
        assert_eq!(
            (&*node.name, config.access),
            ("good", AccessModel::Whitelist)
        );
        assert_eq!((node.items.len(), said.len()), (1, 1));
        assert_eq!(&*node.items[0].id, "1");
    }
    let more = item("2", "<a/>") + &item("3", "<a/>");
    let (arrivals, _, import) = imported(&scratch.file("many", &with_node("", &with(&more))));
    assert_eq!(import.notes.count, 1);
    // The newest stay.
    assert_eq!(kept(&arrivals), ["2", "3"]);
    let most = item("x", &long[1..]);
    let (arrivals, _, import) = imported(&scratch.file("most", &with_node("", &with(&most))));
    assert_eq!((import.notes.count, kept(&arrivals)), (0, vec!["1", "x"]));
}

/// The ids of what the first node of the first account has, which says something each.
fn kept(arrivals: &[Arrival]) -> Vec<&str> {
    let (node, said) = &arrivals[0].whole.nodes[0];
    let numbers = node.items.iter().map(|item| item.number);
    assert!(numbers.eq(said.iter().map(|(number, _)| *number)));
    node.items.iter().map(|item| &*item.id).collect()
}

/// Of all that a file has for it, wherever, and each once, as it was published last.
#[test]
fn a_node_has_the_newest_of_its_items_wherever_they_stand() {
    let scratch = Scratch::new("nodes-twice");
    let item = |id: &str, said: &str| format!("<item id='{id}'><{said} xmlns='urn:x'/></item>");
    let of = |items: &str| format!("<items node='good'>{items}</items>");
    let (first, second) = (
        of(&(item("2", "a") + &item("3", "a"))),
        of(&(item("2", "b") + &item("4", "a"))),
    );
    let between = "</pubsub><pubsub xmlns='http://jabber.org/protocol/pubsub'>";
    for between in ["", between] {
        let parts = format!("{first}{between}{second}");
        let (arrivals, _, _) = imported(&scratch.file("twice", &with_node("", &parts)));
        assert_eq!(kept(&arrivals), ["2", "4"]);
        let said = String::from_utf8_lossy(&arrivals[0].whole.nodes[0].1[0].1);
        assert!(said.contains("<b"), "{said}");
    }
}

#[test]
fn items_come_in_before_their_node_and_where_it_keeps_them() {
    let scratch = Scratch::new("nodes-items");
    let one = "<items node='good'><item id='1'><a xmlns='urn:x'/></item></items>";
    // What is configured behind its items is configured all the same.
    let parts = with_node("", one);
    let (owners, items) = parts.split_once("</pubsub>").unwrap();
    let (before, owners) = owners.split_once("<pubsub").unwrap();
    let (items, after) = items.split_once("</pubsub>").unwrap();
    let turned = format!("{before}{items}</pubsub><pubsub{owners}</pubsub>{after}");
    let (arrivals, read, import) = imported(&scratch.file("turned", &turned));
    assert_eq!((read, import.notes.count), (Ok(()), 0));
    assert_eq!(kept(&arrivals), ["1"]);
    // What keeps nothing keeps nothing.
    let fleeting = "<field var='pubsub#persist_items'><value>0</value></field></x>";
    let text = with_node("", one).replace("</x>", fleeting);
    let (arrivals, _, import) = imported(&scratch.file("fleeting", &text));
    assert_eq!((import.notes.count, kept(&arrivals).len()), (1, 0));
}

#[test]
fn nodes_take_no_more_room_than_the_server_would_let_them_have() {
    let scratch = Scratch::new("nodes-room");
    // Subscriptions to all of them have so many bytes.
    let long = "r".repeat(1_000);
    let all = |node: &str| {
        let each = (0..150).map(|number| {
            format!("<subscription jid='n{number}@b/{long}' subscription='subscribed'/>")
        });
        let all: String = each.collect();
        format!("<subscriptions node='{node}'>{all}</subscriptions>")
    };
    let owner = configure("more", "open") + &all("good") + &all("more");
    let (arrivals, _, import) = imported(&scratch.file("subscribed", &with_node(&owner, "")));
    assert_eq!(import.notes.count, 1);
    let nodes = &arrivals[0].whole.nodes;
    let sizes = nodes.iter().map(|(node, _)| node.subscriptions_size());
    let sizes: Vec<u64> = sizes.collect();
    assert!(sizes.iter().sum::<u64>() <= SUBSCRIPTIONS_SIZE_MAX);
    assert!(sizes[0] > sizes[1] && sizes[1] > 0, "{sizes:?}");
    // Nor do titles and whoever is affiliated have more bytes than items would.
    let title = "x".repeat(1_000);
    let titled = |number: usize| {
        let title = format!("<field var='pubsub#title'><value>{title}</value></field></x>");
        configure(&format!("n{number}"), "open").replace("</x>", &title)
    };
    let many: String = (0..5).map(titled).collect();
    let limits = Limits {
        items_size_max: 4_000,
        ..Limits::default()
    };
    let path = scratch.file("titled", &with_node(&many, ""));
    let (arrivals, _, _) = imported_within(&path, limits);
    let nodes = &arrivals[0].whole.nodes;
    assert_eq!(nodes.len(), 3);
    assert!(nodes.iter().map(|(node, _)| node.size()).sum::<u64>() <= 4_000);
    let members = (0..9).map(|it| format!("<affiliation jid='n{it}@b' affiliation='member'/>"));
    let members: String = members.collect();
    let owner = format!("<affiliations node='good'>{members}</affiliations>");
    let limits = Limits {
        items_size_max: 1_000,
        ..Limits::default()
    };
    let path = scratch.file("affiliated", &with_node(&owner, ""));
    let (arrivals, _, _) = imported_within(&path, limits);
    let (node, _) = &arrivals[0].whole.nodes[0];
    assert!(node.size() <= 1_000);
    assert!((1..9).contains(&node.affiliations.len()));
}
