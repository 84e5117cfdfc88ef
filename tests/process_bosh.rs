//! Clients of BOSH (XEP-0124, XEP-0206) over real sockets, in clear and over TLS.

mod support;

use std::io::{Read, Write};

use support::client::plain;
use support::server::{free_port, home};
use support::web::{connect, connect_tls};
use support::{Client, DOMAIN, Element, Options, PASSWORD, STREAM_ERRORS, Server};

const HTTP_BIND: &str = "http://jabber.org/protocol/httpbind";
const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
const STREAMS: &str = "http://etherx.jabber.org/streams";

/// A server with both ports for the web.
struct Web {
    server: Server,
    http: u16,
    https: u16,
}

fn start(options: &Options<'_>) -> Web {
    let (http, https) = (free_port(), free_port());
    let listen = format!("http = \"127.0.0.1:{http}\"\nhttps = \"127.0.0.1:{https}\"");
    let server = Server::start(&Options {
        listen: &listen,
        ..*options
    });
    Web {
        server,
        http,
        https,
    }
}

impl Web {
    fn clear(&self) -> Wire {
        Wire::new(connect(self.http))
    }

    fn tls(&self) -> Wire {
        Wire::new(connect_tls(&self.server, self.https))
    }
}

trait Socket: Read + Write {}

impl<S: Read + Write> Socket for S {}

/// One connection of HTTP.
struct Wire {
    socket: Box<dyn Socket>,
    received: Vec<u8>,
    /// Header lines of each request.
    more: String,
}

impl Wire {
    fn new(socket: impl Socket + 'static) -> Wire {
        Wire {
            socket: Box::new(socket),
            received: Vec::new(),
            more: String::new(),
        }
    }

    fn post(&mut self, body: &str) {
        self.write(&self.request(body));
    }

    fn request(&self, body: &str) -> String {
        let (size, more) = (body.len(), &self.more);
        format!(
            "POST /http-bind HTTP/1.1\r\nHost: {DOMAIN}\r\nContent-Length: {size}\r\n\
             Content-Type: text/xml; charset=utf-8\r\n{more}\r\n{body}"
        )
    }

    fn write(&mut self, text: &str) {
        self.socket
            .write_all(text.as_bytes())
            .expect("the server reads");
        self.socket.flush().expect("the server reads");
    }

    /// The next answer: its head and its body.
    fn response(&mut self) -> (String, String) {
        let head = loop {
            let end = self
                .received
                .windows(4)
                .position(|four| four == b"\r\n\r\n");
            match end {
                Some(end) => break self.received.drain(..end + 4).collect(),
                None => self.read(),
            }
        };
        let head = String::from_utf8(head).expect("a head is text");
        let size = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let size: usize = size.expect("a size").parse().expect("a number");
        while self.received.len() < size {
            self.read();
        }
        let body = self.received.drain(..size).collect();
        (head, String::from_utf8(body).expect("UTF-8"))
    }

    fn read(&mut self) {
        let mut chunk = [0; 16 << 10];
        let size = self.socket.read(&mut chunk).expect("something comes");
        assert!(size > 0, "the connection ended: {:?}", self.received);
        self.received.extend_from_slice(&chunk[..size]);
    }

    fn body(&mut self) -> Element {
        let (head, body) = self.response();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let body = Element::document(&body);
        assert!(body.is("body", HTTP_BIND), "{body:?}");
        body
    }

    fn ask(&mut self, body: &str) -> Element {
        self.post(body);
        self.body()
    }
}

/// What a client knows of its session.
struct Session {
    sid: String,
    rid: u64,
}

fn opening(rid: u64, to: &str) -> String {
    format!(
        "<body xmlns='{HTTP_BIND}' rid='{rid}' {to} ver='1.11' wait='60' hold='1' \
         xml:lang='en' xmlns:xmpp='urn:xmpp:xbosh' xmpp:version='1.0'/>"
    )
}

impl Session {
    fn begin(wire: &mut Wire) -> (Session, Element) {
        let rid = 1_573_741_820;
        let answer = wire.ask(&opening(rid, &format!("to='{DOMAIN}'")));
        let sid = answer.attr("sid").expect("a session").to_owned();
        for (name, value) in [
            ("from", DOMAIN),
            ("wait", "60"),
            ("hold", "1"),
            ("requests", "2"),
            ("ver", "1.11"),
        ] {
            assert_eq!(answer.attr(name), Some(value), "{answer:?}");
        }
        (Session { sid, rid }, answer)
    }

    fn log_in(wire: &mut Wire, user: &str) -> Session {
        let (mut session, answer) = Session::begin(wire);
        let features = answer.child("features").expect("features");
        assert!(features.is("features", STREAMS), "{features:?}");
        assert!(features.child("starttls").is_none(), "{features:?}");
        let success = wire.ask(&session.next(&plain(user, PASSWORD)));
        assert!(success.children[0].is("success", SASL), "{success:?}");
        let restart =
            format!("to='{DOMAIN}' xml:lang='en' xmlns:xmpp='urn:xmpp:xbosh' xmpp:restart='true'");
        let features = wire.ask(&session.body(&restart, ""));
        assert!(features.children[0].child("bind").is_some(), "{features:?}");
        let bound = wire.ask(&session.next(
            "<iq xmlns='jabber:client' type='set' id='bind'>\
             <bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>page</resource></bind></iq>",
        ));
        let iq = &bound.children[0];
        assert!(iq.is("iq", "jabber:client"), "{iq:?}");
        assert_eq!(iq.attr("type"), Some("result"), "{iq:?}");
        session
    }

    fn next(&mut self, content: &str) -> String {
        self.body("", content)
    }

    fn body(&mut self, attributes: &str, content: &str) -> String {
        self.rid += 1;
        let (sid, rid) = (&self.sid, self.rid);
        format!("<body xmlns='{HTTP_BIND}' rid='{rid}' sid='{sid}' {attributes}>{content}</body>")
    }
}

fn message(to: &str, body: &str) -> String {
    format!("<message xmlns='jabber:client' to='{to}' type='chat'><body>{body}</body></message>")
}

fn condition(answer: &Element) -> Option<&str> {
    assert_eq!(answer.attr("type"), Some("terminate"), "{answer:?}");
    answer.attr("condition")
}

#[test]
fn a_client_of_bosh_talks_with_one_of_tcp_wherever_their_shards_are() {
    for shards in [1, 2, 3] {
        let web = start(&Options {
            shards,
            ..Options::default()
        });
        let mut desk = Client::available(&web.server, "u3", "desk");
        for user in ["u0", "u1", "u2"] {
            let own = home(user, shards);
            for wires in [[web.clear(), web.clear()], [web.tls(), web.tls()]] {
                let [mut first, mut second] = wires;
                let mut page = Session::log_in(&mut first, user);
                for round in 0..3 {
                    first.post(&page.next(""));
                    second.post(&page.next(&message(&format!("u3@{DOMAIN}/desk"), "there")));
                    let answer = first.body();
                    let is_plain = answer.attr("type").is_none() && answer.children.is_empty();
                    assert!(is_plain, "it is held no longer: {answer:?}");
                    let came = desk.until(|element| element.name == "message");
                    assert_eq!(came.attr("from"), Some(&*format!("{user}@{DOMAIN}/page")));
                    assert_eq!(came.child_text("body"), "there");
                    desk.send(&message(&format!("{user}@{DOMAIN}/page"), "a &lt; ä"));
                    let answer = second.body();
                    let came = &answer.children[0];
                    let place = format!("{round}, on {own} of {shards}: {answer:?}");
                    assert!(came.is("message", "jabber:client"), "{place}");
                    assert_eq!(came.child_text("body"), "a < ä", "{place}");
                    let inner = came.child("body").map(|body| &*body.ns);
                    assert_eq!(inner, Some("jabber:client"), "{place}");
                }
            }
        }
    }
}

#[test]
fn what_is_large_goes_through_both_ways_over_any_connection() {
    let web = start(&Options::default());
    let (mut first, mut second) = (web.clear(), web.tls());
    let mut page = Session::log_in(&mut first, "u0");
    let mut tab = Session::log_in(&mut second, "u1");
    second.post(&tab.next(""));
    for size in [5_000, 70_000, 200_000] {
        let body = "ä".repeat(size / 2);
        let said = page.next(&message(&format!("u1@{DOMAIN}/page"), &body));
        // Nobody knows who speaks over a new one, until all is there.
        let mut fresh = web.clear();
        fresh.post(&said);
        let answer = second.body();
        assert_eq!(answer.children[0].child_text("body"), body);
        second.post(&tab.next(&message(&format!("u0@{DOMAIN}/page"), &body)));
        let answer = fresh.body();
        assert_eq!(answer.children[0].child_text("body"), body);
    }
}

#[test]
fn what_piled_up_while_a_client_was_away_comes_piece_by_piece() {
    let web = start(&Options::default());
    let mut desk = Client::available(&web.server, "u1", "desk");
    let mut wire = web.clear();
    let mut page = Session::log_in(&mut wire, "u0");
    let body = "x".repeat(40_000);
    for _ in 0..6 {
        desk.send(&message(&format!("u0@{DOMAIN}/page"), &body));
    }
    desk.settle_at("u0");
    // More waits than a client may have that is read from: what it says now waits, too.
    let ping = "<iq xmlns='jabber:client' type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>";
    let (mut messages, mut pongs, mut asked) = (0, 0, 0);
    while messages < 6 || pongs < asked {
        let content = if asked < 2 { ping } else { "" };
        asked += usize::from(asked < 2);
        let answer = wire.ask(&page.next(content));
        assert_eq!(answer.attr("type"), None, "{answer:?}");
        let count = |name: &str| answer.children.iter().filter(|it| it.name == name).count();
        (messages, pongs) = (messages + count("message"), pongs + count("iq"));
    }
    assert_eq!((messages, pongs), (6, 2));
}

#[test]
fn what_a_lost_connection_was_to_bring_comes_over_the_next_and_again() {
    for shards in [1, 2] {
        let web = start(&Options {
            shards,
            ..Options::default()
        });
        let mut desk = Client::available(&web.server, "u1", "desk");
        let mut first = web.tls();
        let mut page = Session::log_in(&mut first, "u0");
        let poll = page.next("");
        first.post(&poll);
        drop(first);
        desk.send(&message(&format!("u0@{DOMAIN}/page"), "one"));
        let mut second = web.tls();
        second.post(&poll);
        let (_, answer) = second.response();
        assert_eq!(
            Element::document(&answer).children[0].child_text("body"),
            "one"
        );
        // The same again, to who asks again, and to the server what is said is said once.
        let mut third = web.tls();
        third.post(&poll);
        assert_eq!(third.response().1, answer);
        let said = page.next(&message(&format!("u1@{DOMAIN}/desk"), "two"));
        second.post(&said);
        let came = desk.until(|element| element.name == "message");
        assert_eq!(came.child_text("body"), "two");
        third.post(&said);
        assert_eq!(
            second.body().attr("type"),
            Some("error"),
            "it has a successor"
        );
        desk.send(&message(&format!("u0@{DOMAIN}/page"), "three"));
        assert_eq!(third.body().children[0].child_text("body"), "three");
        third.post(&page.next(&message(&format!("u1@{DOMAIN}/desk"), "four")));
        let came = desk.until(|element| element.name == "message");
        assert_eq!(came.child_text("body"), "four");
    }
}

#[test]
fn what_makes_no_sense_is_answered_with_why() {
    let web = start(&Options::default());
    for (body, expected) in [
        (opening(1, ""), "improper-addressing"),
        (opening(1, "to='elsewhere.example'"), "host-unknown"),
        ("<body/>".to_owned(), "bad-request"),
        ("<a".to_owned(), "bad-request"),
        (
            format!("<body xmlns='{HTTP_BIND}' rid='1' sid='0-0123456789abcdef'/>"),
            "item-not-found",
        ),
        (
            format!("<body xmlns='{HTTP_BIND}' rid='1' sid='9-0'/>"),
            "item-not-found",
        ),
    ] {
        let mut wire = web.clear();
        wire.post(&body);
        let (head, answer) = wire.response();
        let answer = Element::document(&answer);
        assert_eq!(condition(&answer), Some(expected), "{body}");
        // Who has no session has no connection for long.
        let is_last = head.contains("\r\nConnection: close\r\n");
        assert_eq!(is_last, expected != "host-unknown", "{head}");
    }
    let mut wire = web.clear();
    // Beyond the window: that is the end of the session, and its contacts see it.
    let mut desk = Client::available(&web.server, "u1", "desk");
    let mut page = Session::log_in(&mut wire, "u0");
    wire.post(&page.next("<presence xmlns='jabber:client'/>"));
    desk.until(|it| it.name == "presence" && it.attr("type").is_none());
    page.rid += 10;
    let mut other = web.clear();
    let answer = other.ask(&page.next(""));
    assert_eq!(condition(&answer), Some("item-not-found"));
    desk.until(|it| it.name == "presence" && it.attr("type") == Some("unavailable"));
    let answer = other.ask(&page.next(""));
    assert_eq!(condition(&answer), Some("item-not-found"));
    // A body that is too large is not waited for.
    let large = format!(
        "POST /http-bind HTTP/1.1\r\nHost: {DOMAIN}\r\nContent-Length: {}\r\n\r\n",
        1 << 30
    );
    let answer = support::web::fetch(connect(web.http), &large);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[test]
fn an_error_of_the_stream_is_told_with_what_was_before_it() {
    let web = start(&Options::default());
    let mut wire = web.tls();
    let mut page = Session::log_in(&mut wire, "u0");
    let stanzas = "<iq xmlns='jabber:client' type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>\
                   <unknown xmlns='urn:x'/>";
    let answer = wire.ask(&page.next(stanzas));
    assert_eq!(condition(&answer), Some("remote-stream-error"));
    let [pong, error] = &answer.children[..] else {
        panic!("{answer:?}");
    };
    assert_eq!(pong.attr("id"), Some("1"));
    assert!(error.is("error", STREAMS), "{error:?}");
    assert_eq!(
        error.condition(STREAM_ERRORS),
        Some("unsupported-stanza-type")
    );
    let answer = wire.ask(&page.next(""));
    assert_eq!(condition(&answer), Some("item-not-found"));
}

#[test]
fn an_end_between_two_requests_is_told_to_the_next() {
    for shards in [1, 2] {
        let web = start(&Options {
            shards,
            ..Options::default()
        });
        let mut wire = web.clear();
        let mut page = Session::log_in(&mut wire, "u0");
        Client::available(&web.server, "u0", "page");
        let answer = wire.ask(&page.next(""));
        assert_eq!(condition(&answer), Some("remote-stream-error"));
        let error = answer.children[0].condition(STREAM_ERRORS);
        assert_eq!(error, Some("conflict"), "{answer:?}");
    }
}

#[test]
fn a_request_may_come_in_part_before_the_last_one_is_answered() {
    let web = start(&Options::default());
    let mut desk = Client::available(&web.server, "u1", "desk");
    for mut wire in [web.clear(), web.tls()] {
        let mut page = Session::log_in(&mut wire, "u0");
        for _ in 0..20 {
            let next = message(&format!("u1@{DOMAIN}/desk"), "there");
            let [first, second] = [page.next(""), page.next(&next)].map(|it| wire.request(&it));
            let (ahead, rest) = second.split_at(second.len() / 2);
            wire.write(&(first + ahead));
            desk.send(&message(&format!("u0@{DOMAIN}/page"), "here"));
            let came = wire.body();
            assert_eq!(came.children[0].child_text("body"), "here");
            wire.write(rest);
            let came = desk.until(|element| element.name == "message");
            assert_eq!(came.child_text("body"), "there");
            desk.send(&message(&format!("u0@{DOMAIN}/page"), "again"));
            let came = wire.body();
            assert_eq!(came.children[0].child_text("body"), "again");
        }
    }
}

#[test]
fn who_ends_his_session_is_told_so_and_his_last_words_are_heard() {
    for shards in [1, 2] {
        let web = start(&Options {
            shards,
            ..Options::default()
        });
        let mut desk = Client::available(&web.server, "u1", "desk");
        let (mut wire, mut other) = (web.clear(), web.clear());
        let mut page = Session::log_in(&mut wire, "u0");
        wire.post(&page.next("<presence xmlns='jabber:client'/>"));
        desk.until(|it| it.name == "presence" && it.attr("type").is_none());
        // Its own presence and its contact's answer what waits.
        while wire.body().children.is_empty() {
            wire.post(&page.next(""));
        }
        let last = message(&format!("u1@{DOMAIN}/desk"), "bye");
        let answer = other.ask(&page.body("type='terminate'", &last));
        let is_ended = answer.attr("type") == Some("terminate");
        assert!(is_ended && condition(&answer).is_none(), "{answer:?}");
        let came = desk.until(|element| element.name == "message");
        assert_eq!(came.child_text("body"), "bye");
        desk.until(|it| it.name == "presence" && it.attr("type") == Some("unavailable"));
        let answer = other.ask(&page.next(""));
        assert_eq!(condition(&answer), Some("item-not-found"));
    }
}

#[test]
fn a_managed_session_goes_on_over_another_transport() {
    for shards in [1, 2] {
        let web = start(&Options {
            shards,
            ..Options::default()
        });
        let mut desk = Client::available(&web.server, "u1", "desk");
        let mut wire = web.tls();
        let mut page = Session::log_in(&mut wire, "u0");
        let answer = wire.ask(&page.next("<enable xmlns='urn:xmpp:sm:3' resume='true'/>"));
        let id = answer.children[0].attr("id").expect("it can be resumed");
        desk.send(&message(&format!("u0@{DOMAIN}/page"), "meanwhile"));
        let mut plain = Client::authenticated(&web.server, "u0");
        plain.send(&format!(
            "<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>"
        ));
        assert_eq!(plain.element().name, "resumed");
        let came = plain.until(|element| element.name == "message");
        assert_eq!(came.child_text("body"), "meanwhile");
    }
}

#[test]
fn sessions_count_as_connections_of_their_address() {
    let web = start(&Options {
        limits: "connections_per_address_max = 4",
        ..Options::default()
    });
    let (mut wire, mut other) = (web.clear(), web.clear());
    let (mut first, _) = Session::begin(&mut wire);
    Session::begin(&mut other);
    let refused = other.ask(&opening(5, &format!("to='{DOMAIN}'")));
    assert_eq!(condition(&refused), Some("policy-violation"));
    let answer = wire.ask(&first.body("type='terminate'", ""));
    assert_eq!(condition(&answer), None);
    Session::begin(&mut wire);
}

#[test]
fn over_the_connections_of_a_trusted_proxy_each_client_counts_for_himself() {
    let web = start(&Options {
        limits: "connections_per_address_max = 2",
        tls_required: true,
        more: "[web]\ntrusted_proxies = [\"127.0.0.1\"]\n",
        ..Options::default()
    });
    let mut wire = web.clear();
    let from = |number: u32| format!("X-Forwarded-For: 198.51.100.{number}\r\n");
    wire.more = from(1);
    Session::log_in(&mut wire, "u0");
    Session::begin(&mut wire);
    let refused = wire.ask(&opening(5, &format!("to='{DOMAIN}'")));
    assert_eq!(condition(&refused), Some("policy-violation"));
    let mut wire = web.clear();
    wire.more = from(2);
    let mut page = Session::log_in(&mut wire, "u1");
    // What the proxy says to come in clear is not taken, whoever knows the session.
    wire.more = from(2) + "X-Forwarded-Proto: http\r\n";
    wire.post(&page.next(""));
    let (head, _) = wire.response();
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
}

#[test]
fn the_end_of_the_server_is_told() {
    for shards in [1, 2] {
        let mut web = start(&Options {
            shards,
            ..Options::default()
        });
        let mut wire = web.tls();
        let mut page = Session::log_in(&mut wire, "u0");
        let mut away = web.clear();
        Session::log_in(&mut away, "u1");
        wire.post(&page.next(""));
        let ping = "<iq xmlns='jabber:client' type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>";
        let mut last = web.tls();
        last.post(&page.next(ping));
        // The answer comes to the first request, so that the second has come, and waits.
        assert_eq!(wire.body().children[0].attr("id"), Some("1"));
        web.server.terminate();
        let answer = last.body();
        let told = condition(&answer).expect("why");
        assert!(
            ["remote-stream-error", "system-shutdown"].contains(&told),
            "{answer:?}"
        );
        assert!(web.server.wait().success());
    }
}
