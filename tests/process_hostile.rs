//! Hostile input over real sockets: each kind gets its answer while a hundred others chat on.
//!
//! The answers are those of `docs/decisions/0003-hostile-input-is-answered.md`.

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use support::client::header;
use support::{Client, DOMAIN, Event, Options, Server};

const CHATTERS: u32 = 100;

/// Exchanges of every pair while the attack is under way, at the least.
const EXCHANGES_MIN: usize = 20;

/// Between exchanges of a pair, so that a hundred clients leave the machine to the attack.
const PAUSE: Duration = Duration::from_millis(5);
/// How long the connection of an ended stream may keep its place, on a busy machine.
const CUT_MAX: Duration = Duration::from_secs(60);

/// The server may grow by this much under any attack: limits x connections, with room to breathe.
const GROWTH_KIB_MAX: u64 = 128 << 10;

/// One attack at a time: a hundred clients and two thousand sockets are enough for one machine.
static ALONE: Mutex<()> = Mutex::new(());

/// A server with a hundred clients that chat in pairs until told to stop.
struct Chat {
    server: Server,
    stop: Arc<AtomicBool>,
    exchanges: Arc<AtomicUsize>,
    pairs: Vec<JoinHandle<usize>>,
    resident_kib: u64,
    _alone: MutexGuard<'static, ()>,
}

impl Chat {
    fn start(limits: &str) -> Chat {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let users = CHATTERS + 4;
        let options = Options {
            shards: 2,
            users,
            clique: 1,
            limits,
            ..Options::default()
        };
        let server = Server::start(&options);
        let stop = Arc::new(AtomicBool::new(false));
        let exchanges = Arc::new(AtomicUsize::new(0));
        let mut pairs = Vec::new();
        for pair in 0..CHATTERS / 2 {
            let one = Client::log_in(&server, &format!("u{}", 2 * pair), "chat");
            let two = Client::log_in(&server, &format!("u{}", 2 * pair + 1), "chat");
            let (stop, exchanges) = (stop.clone(), exchanges.clone());
            pairs.push(thread::spawn(move || chat(one, two, &stop, &exchanges)));
        }
        let resident_kib = server.resident_kib();
        Chat {
            server,
            stop,
            exchanges,
            pairs,
            resident_kib,
            _alone: alone,
        }
    }

    /// A name that takes no part in the chat.
    fn outsider(number: u32) -> String {
        format!("u{}", CHATTERS + number)
    }

    /// Ends the chat and demands that it went on, lost nothing, and cost a bounded amount.
    fn finish(mut self) {
        assert!(
            self.server.is_running(),
            "the server died:\n{}",
            self.server.log()
        );
        // Linux notes the peak only now and then, so it may be below what was there at first.
        let peak = self.server.resident_peak_kib();
        let grown = peak.saturating_sub(self.resident_kib);
        assert!(grown < GROWTH_KIB_MAX, "the server grew by {grown} KiB");
        let now = self.exchanges.load(Ordering::Relaxed);
        let more = EXCHANGES_MIN * self.pairs.len();
        while self.exchanges.load(Ordering::Relaxed) < now + more {
            assert!(
                self.pairs.iter().all(|pair| !pair.is_finished()),
                "a pair stopped chatting"
            );
            thread::sleep(PAUSE);
        }
        self.stop.store(true, Ordering::Relaxed);
        for pair in self.pairs.drain(..) {
            let exchanged = pair.join().expect("a pair lost a message");
            assert!(exchanged > 0, "a pair never chatted");
        }
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        // The pairs end before their server does, so that only what failed is reported.
        self.stop.store(true, Ordering::Relaxed);
        for pair in self.pairs.drain(..) {
            let _ = pair.join();
        }
    }
}

/// Two clients send each other numbered messages in turn; each must arrive, next and unchanged.
fn chat(mut one: Client, mut two: Client, stop: &AtomicBool, exchanges: &AtomicUsize) -> usize {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..2 {
            let body = format!("number {number}");
            one.send(&format!(
                "<message to='{}' type='chat' id='{number}'><body>{body}</body></message>",
                two.jid
            ));
            let message = two.element();
            assert_eq!(message.attr("from"), Some(&*one.jid));
            assert_eq!(message.child_text("body"), body);
            std::mem::swap(&mut one, &mut two);
        }
        number += 1;
        thread::sleep(PAUSE);
        exchanges.fetch_add(1, Ordering::Relaxed);
    }
    number
}

/// Sends on one thread what the server may refuse to read, while this one reads its answer.
fn answer_to(mut client: Client, attack: Vec<u8>) -> String {
    let mut writer = client.writer();
    let sending = thread::spawn(move || {
        // The server closes in the middle of it, and that is well.
        let _ = writer.write_all(&attack);
    });
    let condition = client.stream_error();
    drop(client);
    sending.join().expect("the sender does not panic");
    condition
}

/// The same attack from a stranger and from an account.
fn attack_from_both(chat: &Chat, attack: &[u8]) -> [String; 2] {
    let (stranger, _, _) = Client::open(&chat.server);
    let account = Client::log_in(&chat.server, &Chat::outsider(0), "attacker");
    [
        answer_to(stranger, attack.to_vec()),
        answer_to(account, attack.to_vec()),
    ]
}

#[test]
fn eighteen_thousand_nested_elements_violate_the_policy() {
    let chat = Chat::start("");
    let depth = 18_000;
    let mut attack = format!("<message to='u1@{DOMAIN}'>").into_bytes();
    attack.extend(b"<a>".repeat(depth));
    attack.extend(b"</a>".repeat(depth));
    attack.extend(b"</message>");
    assert_eq!(
        attack_from_both(&chat, &attack),
        ["policy-violation", "policy-violation"]
    );
    chat.finish();
}

#[test]
fn an_attribute_of_four_megabytes_violates_the_policy() {
    let chat = Chat::start("");
    let mut attack = format!("<message to='u1@{DOMAIN}' id='").into_bytes();
    attack.resize(attack.len() + (4 << 20), b'a');
    attack.extend(b"'/>");
    assert_eq!(
        attack_from_both(&chat, &attack),
        ["policy-violation", "policy-violation"]
    );
    let many: String = (0..300).map(|n| format!(" a{n}='1'")).collect();
    let attack = format!("<message{many}/>").into_bytes();
    assert_eq!(
        attack_from_both(&chat, &attack),
        ["policy-violation", "policy-violation"]
    );
    let many: String = (0..200)
        .map(|n| format!(" xmlns:a{n}='urn:a:{n}'"))
        .collect();
    let attack = format!("<message{many}/>").into_bytes();
    assert_eq!(
        attack_from_both(&chat, &attack),
        ["policy-violation", "policy-violation"]
    );
    chat.finish();
}

#[test]
fn an_unterminated_tag_of_twenty_megabytes_violates_the_policy() {
    let chat = Chat::start("");
    let mut attack = b"<message ".to_vec();
    attack.resize(20 << 20, b'a');
    assert_eq!(
        attack_from_both(&chat, &attack),
        ["policy-violation", "policy-violation"]
    );
    // The same where not even a stream is open yet.
    let client = Client::connect(&chat.server);
    assert_eq!(answer_to(client, attack), "policy-violation");
    chat.finish();
}

#[test]
fn a_dtd_is_restricted_and_never_expanded() {
    let chat = Chat::start("");
    let mut dtd = String::from("<!DOCTYPE lol [<!ENTITY l0 'lol'>");
    for level in 1..10 {
        let inner = format!("&l{};", level - 1).repeat(10);
        dtd += &format!("<!ENTITY l{level} '{inner}'>");
    }
    dtd += "]>";
    let attack = format!("{dtd}<message><body>&l9;</body></message>").into_bytes();
    assert_eq!(
        attack_from_both(&chat, &attack),
        ["restricted-xml", "restricted-xml"]
    );
    let client = Client::connect(&chat.server);
    let before_header = format!("{dtd}{}", header());
    assert_eq!(
        answer_to(client, before_header.into_bytes()),
        "restricted-xml"
    );
    chat.finish();
}

#[test]
fn invalid_utf_8_is_not_well_formed() {
    let chat = Chat::start("");
    for bytes in [
        &b"\xff\xfe"[..],
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf8\x88\x80\x80\x80",
    ] {
        let head = format!("<message to='u1@{DOMAIN}'><body>").into_bytes();
        let attack = [&head, bytes, b"</body></message>"].concat();
        assert_eq!(
            attack_from_both(&chat, &attack),
            ["not-well-formed", "not-well-formed"]
        );
    }
    chat.finish();
}

#[test]
fn two_thousand_silent_connections_keep_nobody_out_and_are_closed() {
    const SILENT: usize = 2000;
    raise_descriptor_limit();
    let chat = Chat::start("auth_ms_max = 8000");
    let connect = |_| Client::connect(&chat.server);
    let silent: Vec<Client> = (0..SILENT).map(connect).collect();
    let mut client = Client::log_in(&chat.server, &Chat::outsider(0), "late");
    assert_eq!(client.settle(), []);
    for mut client in silent {
        assert_eq!(client.stream_error(), "connection-timeout");
    }
    assert_eq!(client.settle(), []);
    chat.finish();
}

/// What a client may not say in the server's name is cut out, and what then meets is still text.
#[test]
fn brackets_that_meet_where_a_claim_was_cut_out_stay_text() {
    let chat = Chat::start("");
    let mut receiver = Client::log_in(&chat.server, &Chat::outsider(0), "desk");
    let mut sender = Client::log_in(&chat.server, &Chat::outsider(1), "desk");
    let delay =
        format!("<delay xmlns='urn:xmpp:delay' from='{DOMAIN}' stamp='2001-01-01T00:00:00Z'/>");
    let id = format!("<stanza-id xmlns='urn:xmpp:sid:0' id='1' by='{DOMAIN}'/>");
    for (text, content) in [
        ("]]>", format!("]]{delay}>")),
        ("]]>", format!("]{id}]>")),
        ("]]>", format!("]{delay}]{id}>")),
        ("]]]>>", format!("]]]{delay}{id}>>")),
        ("]]]>", format!("]]{delay}]{id}>")),
        ("]>", format!("{delay}]{id}>")),
        ("]]x>", format!("]]{delay}x>")),
    ] {
        sender.send(&format!(
            "<message to='{}' type='chat'>{content}</message>",
            receiver.jid
        ));
        let message = receiver.element();
        assert_eq!(message.text, text, "{content}");
        assert_eq!(message.children, [], "{content}");
    }
    chat.finish();
}

/// Half of the bytes declare namespaces, the other half are names in them.
fn huge_namespaces(size: usize) -> Vec<String> {
    let half = size / 2;
    let uses = |piece: &str| piece.repeat(half / piece.len());
    let escaped = "&amp;".repeat(half / 5);
    let [one, two] = ["u", "v"].map(|letter| letter.repeat(half / 2));
    vec![
        format!("<x xmlns='x' xmlns:p='{escaped}'>{}</x>", uses("<p:a/>")),
        format!(
            "<x xmlns='x' xmlns:p='{escaped}'>{}</x>",
            uses("<y p:a='' p:b=''/>")
        ),
        format!(
            "<x xmlns='x' xmlns:p='{one}' xmlns:q='{two}'>{}</x>",
            uses("<p:a/><q:a/>")
        ),
        format!(
            "<x xmlns='x' xmlns:p='{one}' xmlns:q='{one}'>{}</x>",
            uses("<y p:a='' q:b=''/>")
        ),
        format!("<x xmlns='{escaped}'>{}</x>", uses("<y/>")),
    ]
}

#[test]
fn names_in_huge_namespaces_cost_others_nothing() {
    // With room for what is around the payload, under 64 KiB and 256 KiB.
    const STRANGER: usize = 64_000;
    const ACCOUNT: usize = 260_000;
    let chat = Chat::start("");
    for payload in huge_namespaces(STRANGER) {
        let (mut stranger, _, _) = Client::open(&chat.server);
        stranger.send(&payload);
        assert_eq!(stranger.stream_error(), "unsupported-stanza-type");
        // What a stranger may send is also read as a tree.
        let (mut stranger, _, _) = Client::open(&chat.server);
        let sasl = "urn:ietf:params:xml:ns:xmpp-sasl";
        stranger.send(&format!(
            "<auth xmlns='{sasl}' mechanism='PLAIN'>{payload}</auth>"
        ));
        let failure = stranger.element();
        assert_eq!(failure.name, "failure");
    }
    let mut sender = Client::log_in(&chat.server, &Chat::outsider(0), "attacker");
    let account = format!("{}@{DOMAIN}", Chat::outsider(0));
    let mut receiver = Client::log_in(&chat.server, &Chat::outsider(1), "desk");
    for payload in huge_namespaces(ACCOUNT) {
        sender.send(&format!(
            "<message to='{}' type='chat'>{payload}</message>",
            receiver.jid
        ));
        // This process's parser gives each name a copy of its namespace, so it does without.
        let message = receiver.raw_element();
        assert!(message.contains(&payload), "{}", &message[..200]);
        // The server reads it itself, and it is no request that it knows.
        for to in [&account, DOMAIN] {
            sender.send(&format!("<iq type='get' id='1' to='{to}'>{payload}</iq>"));
            let answer = sender.raw_element();
            assert!(
                answer.contains("<service-unavailable "),
                "{}",
                &answer[..200]
            );
        }
    }
    chat.finish();
}

#[test]
fn a_header_that_each_stanza_would_have_to_repeat_violates_the_policy() {
    let chat = Chat::start("");
    for declared in ["xmlns:p", "xml:lang"] {
        let mut client = Client::connect(&chat.server);
        let value = "v".repeat(2_000);
        let header = header();
        let tag = header.strip_suffix('>').expect("a tag");
        client.send(&format!("{tag} {declared}='{value}'>"));
        assert_eq!(client.stream_error(), "policy-violation", "{declared}");
    }
    chat.finish();
}

/// Lets this process hold the sockets of the test; the shell's limit is often 1,024.
fn raise_descriptor_limit() {
    let pid = std::process::id().to_string();
    let output = Command::new("prlimit")
        .args([
            "--pid",
            &pid,
            "--nofile",
            "--output",
            "HARD",
            "--noheadings",
            "--raw",
        ])
        .output()
        .expect("prlimit of util-linux is there");
    let hard = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let limit = format!("--nofile={hard}:{hard}");
    let status = Command::new("prlimit")
        .args(["--pid", &pid, &limit])
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "{limit} was refused"
    );
}

#[test]
fn a_client_that_never_reads_is_cut_and_its_sender_never_waits() {
    const BODY: usize = 100_000;
    const MESSAGES: usize = 1000;
    let chat = Chat::start("");
    let deaf = Client::log_in(&chat.server, &Chat::outsider(0), "deaf");
    let mut sender = Client::log_in(&chat.server, &Chat::outsider(1), "loud");
    let body = "a".repeat(BODY);
    let message = format!(
        "<message to='{}' type='headline'><body>{body}</body></message>",
        deaf.jid
    );
    let mut writer = sender.writer();
    let flood = thread::spawn(move || send_all(&mut writer, &message, MESSAGES));
    assert!(
        flood.join().expect("the flood does not panic"),
        "the sender was cut"
    );
    assert_eq!(sender.settle(), []);
    // The deaf client reads at last: it was cut, and did not get all of it.
    let got = count_messages(deaf);
    assert!(
        got < MESSAGES,
        "nothing bounds what waits for a client that does not read"
    );
    chat.finish();
}

fn send_all(writer: &mut TcpStream, message: &str, count: usize) -> bool {
    (0..count).all(|_| writer.write_all(message.as_bytes()).is_ok())
}

fn count_messages(mut client: Client) -> usize {
    let is_message =
        |event: &&Event| matches!(event, Event::Element(element) if element.name == "message");
    client.rest().iter().filter(is_message).count()
}

#[test]
fn a_client_that_asks_more_of_storage_than_it_takes_waits_alone_and_is_answered() {
    const SETS: usize = 20_000;
    const REQUESTS: usize = 2_000;
    let chat = Chat::start("");
    let mut client = Client::log_in(&chat.server, &Chat::outsider(0), "eager");
    let mut burst = String::new();
    for index in 0..SETS {
        let contact = index % 50;
        burst += &format!(
            "<iq type='set' id='{index}'><query xmlns='jabber:iq:roster'>\
             <item jid='c{contact}@{DOMAIN}' name='{index}'/></query></iq>"
        );
    }
    // An account that is not loaded, and may be at home on the other shard.
    let contact = format!("{}@{DOMAIN}", Chat::outsider(1));
    for _ in 0..REQUESTS {
        burst += &format!(
            "<presence to='{contact}' type='subscribe'/>\
             <presence to='{contact}' type='unsubscribe'/>"
        );
    }
    burst += &format!("<presence to='{contact}' type='subscribe'/>");
    let mut writer = client.writer();
    let sending = thread::spawn(move || writer.write_all(burst.as_bytes()).is_ok());
    for index in 0..SETS {
        let answer = client.element();
        assert_eq!(answer.attr("id"), Some(&*index.to_string()), "{answer:?}");
        assert_eq!(answer.attr("type"), Some("result"));
    }
    assert!(
        sending.join().expect("the sender does not panic"),
        "the client was cut"
    );
    let roster = client.ask("", "get", "<query xmlns='jabber:iq:roster'/>");
    let items = roster.child("query").expect("a roster").children.iter();
    let asked = items.filter(|item| item.attr("jid") == Some(&contact));
    let asked: Vec<_> = asked.map(|item| item.attr("ask")).collect();
    assert_eq!(asked, [Some("subscribe")], "the last request stands");
    chat.finish();
}

#[test]
fn a_private_document_with_a_name_of_seventy_thousand_bytes_is_not_acceptable() {
    let chat = Chat::start("");
    let mut client = Client::log_in(&chat.server, &Chat::outsider(0), "attacker");
    for size in [1023, 70_000, 250_000] {
        // No name and namespace together may have more than 1,023 bytes.
        let name = "n".repeat(size);
        let query = format!("<query xmlns='jabber:iq:private'><{name} xmlns='n'/></query>");
        for kind in ["get", "set"] {
            let answer = client.ask("", kind, &query);
            let error = answer.child("error").expect("an error");
            assert!(error.child("not-acceptable").is_some(), "{kind} {size}");
        }
    }
    chat.finish();
}

#[test]
fn who_reports_everybody_does_not_flood_the_log() {
    let server = Server::start(&Options::default());
    let mut client = Client::log_in(&server, "u0", "one");
    for round in 0..3 {
        let report = "<report xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:spam'/>";
        let items: String = (0..100)
            .map(|index| format!("<item jid='{round}-{index}.example'>{report}</item>"))
            .collect();
        let block = format!("<block xmlns='urn:xmpp:blocking'>{items}</block>");
        let answer = client.ask("", "set", &block);
        assert_eq!(answer.attr("type"), Some("result"));
    }
    let log = server.log();
    let count = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(count("WARN abuse reported"), 20, "{log}");
    assert_eq!(count("WARN more abuse was reported"), 1, "{log}");
}

#[test]
fn who_begins_to_log_in_again_and_again_has_so_many_tries_and_the_log_tells() {
    let chat = Chat::start("");
    let names = [0, 1].map(|shard| {
        let mut users = (0..CHATTERS).map(|number| format!("u{number}"));
        users
            .find(|user| support::server::home(user, 2) == shard)
            .expect("every shard is a home")
    });
    let begin = |name: &str| {
        let initial = format!("n,,n={name},r=nonce");
        support::client::auth("SCRAM-SHA-256", initial.as_bytes())
    };
    let [one, two] = names.map(|name| begin(&name));
    for attack in [one.repeat(1_000), format!("{one}{two}").repeat(500)] {
        let (mut client, _, _) = Client::open(&chat.server);
        let mut writer = client.writer();
        let sending = thread::spawn(move || {
            // The server closes in the middle of it, and that is well.
            let _ = writer.write_all(attack.as_bytes());
        });
        for _ in 0..5 {
            assert_eq!(client.element().name, "challenge");
        }
        assert_eq!(client.stream_error(), "policy-violation");
        sending.join().expect("the sender does not panic");
    }
    let log = chat.server.log();
    let failures = log
        .lines()
        .filter(|line| line.contains("authentication failed"));
    assert_eq!(failures.count(), 10, "{log}");
    chat.finish();
}

/// Its place under the limits is free again, though it never closes its side.
#[test]
fn a_client_that_keeps_the_connection_of_an_ended_stream_is_cut() {
    let server = Server::start(&Options {
        limits: "connections_per_address_max = 1",
        ..Options::default()
    });
    let mut ended = Client::log_in(&server, "u0", "here");
    ended.send("</stream:stream>");
    assert_eq!(ended.rest(), [Event::Close]);
    let is_taken = || {
        let mut next = Client::connect(&server);
        next.try_send(header().as_bytes());
        !matches!(next.next(), Event::Header(_))
    };
    let began = Instant::now();
    while is_taken() {
        assert!(began.elapsed() < CUT_MAX, "it has its place still");
        thread::sleep(PAUSE);
    }
    drop(ended);
}
