//! Streams over real sockets: headers, restrictions, errors and ends (RFC 6120 4, 6, 7 and 11).

mod support;

use support::client::{auth, header, plain};
use support::{Client, DOMAIN, Element, Event, Options, PASSWORD, STREAM_ERRORS, Server};

const STREAMS: &str = "xmlns:stream='http://etherx.jabber.org/streams'";
const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";

fn server() -> Server {
    Server::start(&Options::default())
}

/// Sends a header instead of the usual one and gives the condition of the error it meets.
fn refused_header(server: &Server, sent: &str) -> String {
    let mut client = Client::connect(server);
    client.send(sent);
    let first = client.next();
    // RFC 6120 4.9.1.2: an error before the header is answered stands behind a header.
    assert!(matches!(first, Event::Header(_)), "{sent}: {first:?}");
    client.stream_error()
}

#[test]
fn the_answering_header_names_the_domain_a_fresh_id_and_version_1_0() {
    let server = server();
    let (mut client, first, features) = Client::open(&server);
    assert_eq!(first.attr("from"), Some(DOMAIN));
    assert_eq!(first.attr("version"), Some("1.0"));
    assert!(first.attr("xml:lang").is_some(), "{first:?}");
    let mechanisms = features
        .child("mechanisms")
        .expect("mechanisms are offered");
    assert_eq!(mechanisms.ns, SASL);
    client.send(&plain("u0", PASSWORD));
    assert_eq!(client.element().name, "success");
    let (second, features) = client.open_stream();
    assert!(features.child("bind").is_some(), "{features:?}");
    assert!(features.child("mechanisms").is_none(), "{features:?}");
    let ids = [first.attr("id"), second.attr("id")].map(|id| id.expect("a stream has an id"));
    assert_ne!(ids[0], ids[1]);
    let (_, other, _) = Client::open(&server);
    assert_ne!(Some(ids[0]), other.attr("id"));
    assert!(
        ids[0].len() >= 16,
        "a stream id must not be guessed: {}",
        ids[0]
    );
}

#[test]
fn the_answering_header_is_for_the_bare_address_that_the_client_gives() {
    let server = server();
    for to in [DOMAIN, "other.example"] {
        let mut client = Client::connect(&server);
        client.send(&format!(
            "<stream:stream from='u0@{DOMAIN}/here' to='{to}' version='1.0' \
             xmlns='jabber:client' {STREAMS}>"
        ));
        let Event::Header(header) = client.next() else {
            panic!("a header comes first")
        };
        assert_eq!(header.attr("to"), Some(&*format!("u0@{DOMAIN}")));
    }
}

#[test]
fn a_header_may_leave_the_content_namespace_to_the_stanzas() {
    let server = server();
    let to = format!("to='{DOMAIN}' version='1.0'");
    for header in [
        format!("<stream xmlns='http://etherx.jabber.org/streams' {to}>"),
        format!("<stream:stream {STREAMS} {to}>"),
    ] {
        let mut client = Client::connect(&server);
        client.send(&header);
        assert!(matches!(client.next(), Event::Header(_)), "{header}");
        assert_eq!(client.element().name, "features");
        client.send(&plain("u0", PASSWORD));
        assert_eq!(client.element().name, "success");
        client.send(&header);
        assert!(matches!(client.next(), Event::Header(_)), "{header}");
        assert!(client.element().child("bind").is_some());
        let bind = "urn:ietf:params:xml:ns:xmpp-bind";
        client.send(&format!(
            "<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='{bind}'/></iq>"
        ));
        assert_eq!(client.element().attr("type"), Some("result"));
        let ping = format!("type='get' id='p' to='{DOMAIN}'><ping xmlns='urn:xmpp:ping'/></iq>");
        client.send(&format!("<iq xmlns='jabber:client' {ping}"));
        assert_eq!(client.element().attr("id"), Some("p"));
        client.send(&format!("<iq {ping}"));
        assert_eq!(client.stream_error(), "unsupported-stanza-type", "{header}");
    }
}

#[test]
fn a_header_that_breaks_a_rule_meets_that_rules_error() {
    let server = server();
    let to = format!("to='{DOMAIN}'");
    let client = "xmlns='jabber:client'";
    let cases = [
        (
            format!("<stream:stream to='other.example' version='1.0' {client} {STREAMS}>"),
            "host-unknown",
        ),
        (
            format!("<stream:stream to='u0@{DOMAIN}' version='1.0' {client} {STREAMS}>"),
            "host-unknown",
        ),
        (
            format!("<stream:stream {to} version='1.0' {client} xmlns:stream='urn:wrong'>"),
            "invalid-namespace",
        ),
        (
            format!("<stream:stream {to} version='1.0' xmlns='jabber:server' {STREAMS}>"),
            "invalid-namespace",
        ),
        (
            format!("<stream:stream {to} version='1.0' xmlns='urn:wrong' {STREAMS}>"),
            "invalid-namespace",
        ),
        (
            format!("<stream:stream {to} {client} {STREAMS}>"),
            "unsupported-version",
        ),
        (
            format!("<stream:stream {to} version='0.9' {client} {STREAMS}>"),
            "unsupported-version",
        ),
        (
            format!("<stream:stream {to} version='one' {client} {STREAMS}>"),
            "unsupported-version",
        ),
        // RFC 6120 names no condition for another root: it is XML that cannot be processed.
        (
            format!("<stream:flow {to} version='1.0' {client} {STREAMS}>"),
            "bad-format",
        ),
    ];
    for (sent, condition) in cases {
        assert_eq!(refused_header(&server, &sent), condition, "{sent}");
    }
    let undeclared = format!("<stream:stream {to} version='1.0' {client}>");
    let condition = refused_header(&server, &undeclared);
    assert!(
        ["bad-namespace-prefix", "not-well-formed"].contains(&&*condition),
        "{condition}"
    );
}

#[test]
fn any_prefix_and_any_later_version_open_a_stream() {
    let server = server();
    let client = "xmlns='jabber:client' xmlns:s='http://etherx.jabber.org/streams'";
    for (tag, version) in [("s", "1.0"), ("s", "1.1"), ("s", "2.0"), ("s", "11.0")] {
        let mut stream = Client::connect(&server);
        stream.send(&format!(
            "<{tag}:stream to='{DOMAIN}' version='{version}' {client}>"
        ));
        let Event::Header(header) = stream.next() else {
            panic!("no header came")
        };
        assert_eq!(header.attr("version"), Some("1.0"), "for {version}");
        assert_eq!(stream.element().name, "features");
    }
    // RFC 6120 4.7.2: the domain is compared as a domain.
    let mut stream = Client::connect(&server);
    stream.send(&header().replace(DOMAIN, "LocalHost"));
    let Event::Header(header) = stream.next() else {
        panic!("no header came")
    };
    assert_eq!(header.attr("from"), Some(DOMAIN));
}

/// Sends bytes on a bound stream and gives the condition of the error they meet.
fn refused_on_stream(server: &Server, sent: &[u8]) -> String {
    let mut client = Client::log_in(server, "u0", "here");
    client.send_bytes(sent);
    client.stream_error()
}

#[test]
fn xml_that_xmpp_forbids_meets_restricted_xml() {
    let server = server();
    let cases = [
        "<!-- comment -->",
        "<message to='u1@localhost'><!-- comment --><body>a</body></message>",
        "<?target data?>",
        "<message to='u1@localhost'><?target data?></message>",
        "<!DOCTYPE message>",
        "<!DOCTYPE a [<!ENTITY b 'c'>]>",
        "<message to='u1@localhost'><body>&nbsp;</body></message>",
        "<message to='u1@localhost' id='&other;'><body/></message>",
    ];
    for sent in cases {
        assert_eq!(
            refused_on_stream(&server, sent.as_bytes()),
            "restricted-xml",
            "{sent}"
        );
    }
    let mut client = Client::connect(&server);
    client.send("<!DOCTYPE stream>");
    assert!(matches!(client.next(), Event::Header(_)));
    assert_eq!(client.stream_error(), "restricted-xml");
}

#[test]
fn what_is_no_xml_meets_not_well_formed() {
    let server = server();
    let texts = [
        "<message><body></message></body>",
        "<message to=u1@localhost/>",
        "<message id='a' id='b'/>",
        "<message x:a='1' y:a='2' xmlns:x='urn:z' xmlns:y='urn:z'/>",
        "<message id='<'/>",
        "<message><body>a & b</body></message>",
        "<message><body>&#0;</body></message>",
        "<message><body>&#xD800;</body></message>",
        "<message><body>&#xFFFE;</body></message>",
        "<message><body>]]></body></message>",
        "<message id='a'to='b'/>",
        "<1message/>",
    ];
    for sent in texts {
        assert_eq!(
            refused_on_stream(&server, sent.as_bytes()),
            "not-well-formed",
            "{sent}"
        );
    }
    let found = refused_on_stream(&server, b"text between stanzas");
    assert_eq!(found, "bad-format");
    let bodies: [&[u8]; 7] = [
        b"\xff",
        b"\xc0\x80",
        b"\xe0\x80\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\x01",
        b"\xef\xbf\xbf",
    ];
    for body in bodies {
        let sent = [b"<message><body>", body, b"</body></message>"].concat();
        assert_eq!(
            refused_on_stream(&server, &sent),
            "not-well-formed",
            "{body:x?}"
        );
    }
}

#[test]
fn encodings_other_than_utf_8_are_refused() {
    let server = server();
    let mut client = Client::connect(&server);
    client.send(&header().replace("version='1.0'?>", "version='1.0' encoding='ISO-8859-1'?>"));
    assert!(matches!(client.next(), Event::Header(_)));
    assert_eq!(client.stream_error(), "unsupported-encoding");
    let mut client = Client::connect(&server);
    client.send_bytes(b"\xff\xfe<\0s\0t\0r\0e\0a\0m\0");
    assert!(matches!(client.next(), Event::Header(_)));
    let condition = client.stream_error();
    assert!(
        ["unsupported-encoding", "not-well-formed"].contains(&&*condition),
        "{condition}"
    );
    let mut client = Client::connect(&server);
    client.send(&header().replace("version='1.0'?>", "version='1.0' encoding='utf-8'?>"));
    assert!(matches!(client.next(), Event::Header(_)));
    assert_eq!(client.element().name, "features");
}

#[test]
fn a_stanza_before_authentication_or_bind_is_not_authorized() {
    let server = server();
    let stanza = "<message to='u1@localhost'><body>too early</body></message>";
    let (mut client, _, _) = Client::open(&server);
    client.send(stanza);
    assert_eq!(client.stream_error(), "not-authorized");
    let mut client = Client::authenticated(&server, "u0");
    client.send(stanza);
    assert_eq!(client.stream_error(), "not-authorized");
    let mut client = Client::log_in(&server, "u0", "here");
    client.send("<unknown xmlns='urn:example:unknown'/>");
    assert_eq!(client.stream_error(), "unsupported-stanza-type");
}

#[test]
fn a_foreign_from_ends_the_stream_and_an_own_one_is_stamped_in_full() {
    let server = server();
    let mut receiver = Client::log_in(&server, "u1", "there");
    let mut client = Client::log_in(&server, "u0", "here");
    for from in ["u0@localhost", "u0@localhost/here", "U0@LOCALHOST/here"] {
        client.send(&format!(
            "<message from='{from}' to='{}' id='a'/>",
            receiver.jid
        ));
        let message = receiver.element();
        assert_eq!(message.attr("from"), Some(&*client.jid), "for {from}");
    }
    client.send(&format!(
        "<message from='u2@localhost' to='{}'/>",
        receiver.jid
    ));
    assert_eq!(client.stream_error(), "invalid-from");
    assert_eq!(receiver.settle(), []);
}

#[test]
fn sasl_failures_leave_the_stream_open_for_another_try() {
    let server = server();
    let (mut client, _, _) = Client::open(&server);
    let cases = [
        (plain("u0", "wrong"), "not-authorized"),
        (plain("nobody", PASSWORD), "not-authorized"),
        (
            auth("PLAIN", format!("u1\0u0\0{PASSWORD}").as_bytes()),
            "invalid-authzid",
        ),
        (auth("X-UNKNOWN", b"a"), "invalid-mechanism"),
    ];
    for (sent, condition) in cases {
        client.send(&sent);
        let failure = client.element();
        assert!(failure.is("failure", SASL), "{sent}: {failure:?}");
        assert!(failure.child(condition).is_some(), "{sent}: {failure:?}");
    }
    client.send(&plain("u0", PASSWORD));
    assert_eq!(client.element().name, "success");
}

#[test]
fn malformed_sasl_is_told_from_wrong_passwords() {
    let server = server();
    let (mut client, _, _) = Client::open(&server);
    let raw = |text: &str| format!("<auth xmlns='{SASL}' mechanism='PLAIN'>{text}</auth>");
    for (sent, condition) in [
        (raw("!!!"), "incorrect-encoding"),
        (auth("PLAIN", b"no separators"), "malformed-request"),
    ] {
        client.send(&sent);
        let failure = client.element();
        assert!(failure.child(condition).is_some(), "{sent}: {failure:?}");
    }
    // RFC 6120 6.4.4: a client may abort what it began.
    client.send(&format!("<auth xmlns='{SASL}' mechanism='PLAIN'/>"));
    assert!(client.element().is("challenge", SASL));
    client.send(&format!("<abort xmlns='{SASL}'/>"));
    assert!(client.element().child("aborted").is_some());
    client.send(&plain("u0", PASSWORD));
    assert_eq!(client.element().name, "success");
}

#[test]
fn guessing_passwords_on_one_stream_ends_it() {
    let server = server();
    let (mut client, _, _) = Client::open(&server);
    let mut failures = 0;
    loop {
        if !client.try_send(plain("u0", "guess").as_bytes()) {
            break;
        }
        match client.next() {
            Event::Element(element) if element.is("failure", SASL) => failures += 1,
            Event::Element(element) => {
                assert_eq!(element.condition(STREAM_ERRORS), Some("policy-violation"));
                break;
            }
            Event::Close | Event::End => break,
            Event::Header(header) => panic!("{header:?} within a stream"),
        }
        assert!(failures <= 5, "a sixth guess was examined");
    }
    assert!(
        failures >= 2,
        "RFC 6120 6.4.5 wants at least two tries, {failures} were given"
    );
}

#[test]
fn binding_takes_the_wish_or_chooses_and_refuses_what_is_no_resource() {
    let server = server();
    let jid = |answer: &Element| {
        answer
            .child("bind")
            .expect("bound")
            .child_text("jid")
            .to_owned()
    };
    let mut client = Client::authenticated(&server, "u0");
    assert_eq!(jid(&client.bind("balcony")), "u0@localhost/balcony");
    let chosen = ["", ""].map(|_| jid(&Client::authenticated(&server, "u0").bind("")));
    assert_ne!(chosen[0], chosen[1]);
    assert!(
        chosen[0].len() >= "u0@localhost/".len() + 8,
        "{} can be guessed",
        chosen[0]
    );
    let mut client = Client::authenticated(&server, "u0");
    let refusal = client.bind(&"r".repeat(1024));
    assert_eq!(
        refusal.condition(support::STANZA_ERRORS),
        Some("bad-request")
    );
    assert_eq!(
        jid(&client.bind(&"r".repeat(1023))).len(),
        1023 + "u0@localhost/".len()
    );
    let mut client = Client::authenticated(&server, "u0");
    assert_eq!(jid(&client.bind("🤖")), "u0@localhost/🤖");
}

#[test]
fn the_same_resource_bound_again_ends_the_older_stream_with_conflict() {
    for shards in [1, 2] {
        let server = Server::start(&Options {
            shards,
            ..Options::default()
        });
        let mut contact = Client::available(&server, "u1", "there");
        let mut older = Client::available(&server, "u0", "here");
        contact.until(|e| e.name == "presence" && e.attr("from") == Some("u0@localhost/here"));
        let mut newer = Client::log_in(&server, "u0", "here");
        assert_eq!(older.stream_error(), "conflict");
        newer.send("<presence/>");
        // The old one's end is told before the new one's beginning.
        let first = contact.element();
        assert_eq!(first.attr("type"), Some("unavailable"), "{first:?}");
        let second = contact.element();
        assert_eq!(
            (second.name.as_str(), second.attr("type")),
            ("presence", None)
        );
    }
}

#[test]
fn too_many_resources_of_one_account_are_refused() {
    let server = Server::start(&Options {
        limits: "resources_max = 2",
        ..Options::default()
    });
    let _sessions = ["a", "b"].map(|resource| Client::log_in(&server, "u0", resource));
    let mut third = Client::authenticated(&server, "u0");
    let refusal = third.bind("c");
    assert_eq!(
        refusal.condition(support::STANZA_ERRORS),
        Some("resource-constraint")
    );
}

#[test]
fn clients_that_were_lost_leave_their_places_to_new_ones() {
    let server = Server::start(&Options {
        limits: "resources_max = 2",
        ..Options::default()
    });
    for number in 0..5 {
        let mut lost = Client::log_in(&server, "u0", &format!("lost{number}"));
        lost.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        lost.until(|element| element.name == "enabled");
        lost.finish_sending();
        lost.rest();
    }
    let mut here = ["a", "b"].map(|resource| Client::log_in(&server, "u0", resource));
    let refusal = Client::authenticated(&server, "u0").bind("c");
    let condition = refusal.condition(support::STANZA_ERRORS);
    assert_eq!(condition, Some("resource-constraint"));
    for client in &mut here {
        assert_eq!(client.settle(), []);
    }
}

/// A whole session as bytes: log-in, a message and the end of the stream.
fn whole_session(to: &str) -> String {
    format!(
        "{header}{auth}{header}\
         <iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
         <resource>all</resource></bind></iq>\r\n \t<presence/>\
         <message to='{to}' id='m' type='chat'><body>&lt;é🦊&#x1F98A;&gt;</body></message>\
         <iq type='get' id='p' to='{DOMAIN}'><ping xmlns='urn:xmpp:ping'/></iq></stream:stream>",
        header = header(),
        auth = plain("u0", PASSWORD),
    )
}

/// Checks that a whole session was answered in order and its message delivered.
fn expect_whole_session(events: &[Event], receiver: &mut Client) {
    let headers = events
        .iter()
        .filter(|event| matches!(event, Event::Header(_)))
        .count();
    assert_eq!(headers, 2, "{events:?}");
    let names = events.iter().filter_map(|event| match event {
        Event::Element(element) => Some((element.name.as_str(), element.attr("id"))),
        _ => None,
    });
    let names: Vec<_> = names.collect();
    let order = [("success", None), ("iq", Some("b")), ("iq", Some("p"))];
    let places = order.map(|wanted| names.iter().position(|found| *found == wanted));
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{names:?}"
    );
    assert_eq!(events.last(), Some(&Event::Close), "{events:?}");
    let message = receiver.until(|element| element.name == "message");
    assert_eq!(message.child_text("body"), "<é🦊🦊>");
}

#[test]
fn a_session_in_one_packet_and_byte_by_byte_are_the_same_session() {
    for shards in [1, 2] {
        let server = Server::start(&Options {
            shards,
            ..Options::default()
        });
        let mut receiver = Client::log_in(&server, "u1", "there");
        let session = whole_session(&receiver.jid);
        let mut client = Client::connect(&server);
        client.send(&session);
        expect_whole_session(&client.rest(), &mut receiver);
        let mut client = Client::connect(&server);
        for byte in session.as_bytes() {
            client.send_bytes(&[*byte]);
        }
        expect_whole_session(&client.rest(), &mut receiver);
        for size in [2, 3, 7, 64, 300] {
            let mut client = Client::connect(&server);
            for chunk in session.as_bytes().chunks(size) {
                client.send_bytes(chunk);
            }
            expect_whole_session(&client.rest(), &mut receiver);
        }
    }
}

#[test]
fn white_space_between_stanzas_is_a_keepalive() {
    let server = server();
    let mut client = Client::log_in(&server, "u0", "here");
    for space in [" ", "\n", "\r\n\r\n", "\t \n", &" ".repeat(5000)] {
        client.send(space);
        assert_eq!(client.settle(), []);
    }
}

#[test]
fn a_closed_stream_was_answered_first_and_what_follows_is_ignored() {
    let server = server();
    let mut receiver = Client::log_in(&server, "u1", "there");
    let mut client = Client::log_in(&server, "u0", "here");
    client.send(&format!(
        "<iq type='get' id='last' to='{DOMAIN}'><ping xmlns='urn:xmpp:ping'/></iq>\
         <message to='{to}' id='before'/></stream:stream><message to='{to}' id='after'/>",
        to = receiver.jid
    ));
    let events = client.rest();
    let Some(Event::Element(answer)) = events.first() else {
        panic!("{events:?}")
    };
    assert_eq!(
        (answer.attr("id"), answer.attr("type")),
        (Some("last"), Some("result"))
    );
    assert_eq!(events[1..], [Event::Close]);
    assert_eq!(receiver.element().attr("id"), Some("before"));
    let mut other = Client::log_in(&server, "u0", "other");
    assert_eq!(receiver.settle_with(&mut other), []);
}

/// A late newline, or the `close_notify` of TLS, would reset a connection that is closed.
#[test]
fn what_a_client_sends_behind_its_stream_takes_nothing_of_what_it_has_not_read() {
    const MESSAGES: usize = 900;
    let server = server();
    let mut sender = Client::log_in(&server, "u0", "here");
    let body = "b".repeat(1_000);
    for number in 0..MESSAGES {
        sender.send(&format!(
            "<message to='u1@{DOMAIN}' type='chat' id='{number}'><body>{body}</body></message>"
        ));
    }
    sender.ask("", "get", "<ping xmlns='urn:xmpp:ping'/>");
    let mut receiver = Client::log_in(&server, "u1", "there");
    receiver.send("<presence/></stream:stream>");
    // It has not closed its side, and reads nothing yet.
    let ping = |to: &str, id: &str| {
        format!("<iq type='get' id='{id}' to='{to}'><ping xmlns='urn:xmpp:ping'/></iq>")
    };
    let is_gone = |sender: &mut Client| {
        sender.send(&(ping(&format!("u1@{DOMAIN}/there"), "there") + &ping(DOMAIN, "here")));
        let answer = sender.until(|it| it.name == "iq");
        answer.attr("id") == Some("there")
    };
    while !is_gone(&mut sender) {}
    for _ in 0..2 {
        receiver.send("\n");
        sender.ask("", "get", "<ping xmlns='urn:xmpp:ping'/>");
    }
    let events = receiver.rest();
    let is_message = |event: &&Event| matches!(event, Event::Element(it) if it.name == "message");
    assert_eq!(events.iter().filter(is_message).count(), MESSAGES);
    assert_eq!(events.last(), Some(&Event::Close));
}

#[test]
fn everything_received_before_fin_is_answered() {
    let server = server();
    for count in [1, 100, 3000] {
        let mut client = Client::log_in(&server, "u0", "here");
        let ping =
            |n| format!("<iq type='get' id='{n}' to='{DOMAIN}'><ping xmlns='urn:xmpp:ping'/></iq>");
        let all: String = (0..count).map(ping).collect();
        client.send(&all);
        client.finish_sending();
        for number in 0..count {
            let answer = client.element();
            assert_eq!(answer.attr("id"), Some(&*number.to_string()));
        }
        assert_eq!(client.rest(), [Event::Close]);
    }
}

#[test]
fn sigterm_tells_every_stream_and_ends_the_process_in_order() {
    for shards in [1, 2] {
        let mut server = Server::start(&Options {
            shards,
            ..Options::default()
        });
        let mut clients: Vec<_> = (0..4)
            .map(|n| Client::log_in(&server, &format!("u{n}"), "here"))
            .collect();
        let (mut early, _, _) = Client::open(&server);
        server.terminate();
        for client in &mut clients {
            assert_eq!(client.stream_error(), "system-shutdown");
        }
        assert_eq!(early.stream_error(), "system-shutdown");
        assert!(server.wait().success(), "{}", server.log());
    }
}

#[test]
fn who_asked_somebody_who_is_away_is_answered_before_sigterm_ends_the_streams() {
    for shards in [1, 2] {
        let mut server = Server::start(&Options {
            shards,
            ..Options::default()
        });
        let mut away = Client::log_in(&server, "u0", "here");
        away.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        away.until(|element| element.name == "enabled");
        away.finish_sending();
        away.rest();
        let mut clients: Vec<_> = (1..4)
            .map(|n| Client::log_in(&server, &format!("u{n}"), "here"))
            .collect();
        for client in &mut clients {
            let to = &away.jid;
            client.send(&format!(
                "<iq type='get' id='asked' to='{to}'><ping xmlns='urn:xmpp:ping'/></iq>"
            ));
            let heard = client.settle_at("u0");
            assert!(heard.iter().all(|it| it.name != "iq"), "{heard:?}");
        }
        server.terminate();
        for client in &mut clients {
            let answer = client.until(|element| element.name != "presence");
            let said = (answer.attr("id"), answer.attr("type"));
            assert_eq!(said, (Some("asked"), Some("error")), "{answer:?}");
            assert_eq!(client.stream_error(), "system-shutdown");
        }
        assert!(server.wait().success(), "{}", server.log());
    }
}

#[test]
fn prefixes_and_language_of_the_header_go_with_a_forwarded_stanza() {
    let server = server();
    let mut receiver = Client::log_in(&server, "u1", "there");
    let mut client = Client::connect(&server);
    let open = header().replace(" to=", " xml:lang='fi' xmlns:x='urn:example:x' to=");
    client.send(&open);
    client.next();
    client.element();
    client.send(&plain("u0", PASSWORD));
    client.element();
    client.send(&open);
    client.next();
    client.element();
    client.bind("here");
    client.send(&format!(
        "<message to='{to}'><x:thing x:kind='a'/></message>\
         <message to='{to}' xml:lang='en'><body>hi</body></message>",
        to = receiver.jid
    ));
    let first = receiver.element();
    let thing = first.child("thing").expect("the payload arrived");
    assert_eq!(thing.ns, "urn:example:x");
    assert_eq!(thing.attributes.len(), 1);
    assert_eq!(first.attr("xml:lang"), Some("fi"));
    assert_eq!(receiver.element().attr("xml:lang"), Some("en"));
}

#[test]
fn a_client_that_never_authenticates_is_told_so_and_closed() {
    let limits = "auth_ms_max = 1500";
    let server = Server::start(&Options {
        limits,
        ..Options::default()
    });
    let mut silent = Client::connect(&server);
    let (mut idle, _, _) = Client::open(&server);
    let mut bound = Client::log_in(&server, "u0", "here");
    assert_eq!(idle.stream_error(), "connection-timeout");
    let events = silent.rest();
    assert!(
        matches!(events.first(), Some(Event::Header(_))),
        "{events:?}"
    );
    assert_eq!(bound.settle(), []);
}

#[test]
fn limits_are_advertised_in_the_features() {
    let server = server();
    let (_, _, features) = Client::open(&server);
    // XEP-0478 2.
    let limits = features.child("limits").expect("limits");
    assert_eq!(limits.ns, "urn:xmpp:stream-limits:0");
    assert_eq!(limits.child_text("max-bytes"), "65536");
    let mut client = Client::connect(&server);
    client.open_stream();
    client.send(&plain("u0", PASSWORD));
    client.element();
    let (_, features) = client.open_stream();
    let limits = features.child("limits").expect("XEP-0478 limits");
    assert_eq!(limits.child_text("max-bytes"), "262144");
}

/// A broken stream's slot has its next user at once, and what ends the one leaves the other alone.
#[test]
fn a_stream_that_is_broken_takes_no_later_one_with_it() {
    let server = server();
    for _ in 0..2_000 {
        let (mut broken, ..) = Client::open(&server);
        broken.send("</wrong>");
        assert_eq!(broken.element().name, "error");
        drop(broken);
        let (mut next, ..) = Client::open(&server);
        next.send("</stream:stream>");
        assert!(matches!(next.next(), Event::Close), "it ends in order");
    }
}

/// Beyond eight times what may wait, a connection is cut.
#[test]
fn a_session_that_was_sent_more_than_may_wait_for_a_connection_is_resumed() {
    const MESSAGES: u32 = 14;
    let server = Server::start(&Options {
        limits: "output_max = 262144",
        ..Options::default()
    });
    let mut sender = Client::log_in(&server, "u0", "x");
    let mut receiver = Client::log_in(&server, "u1", "x");
    receiver.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    let enabled = receiver.until(|it| it.name == "enabled");
    let id = enabled.attr("id").expect("it can be resumed").to_owned();
    receiver.reset();
    let body = "b".repeat(250_000);
    for number in 0..MESSAGES {
        sender.send(&format!(
            "<message to='u1@{DOMAIN}/x' type='chat' id='{number}'><body>{body}</body></message>"
        ));
    }
    sender.ask("", "get", "<ping xmlns='urn:xmpp:ping'/>");
    let mut receiver = Client::authenticated(&server, "u1");
    receiver.send(&format!(
        "<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>"
    ));
    receiver.until(|it| it.name == "resumed");
    for number in 0..MESSAGES {
        let message = receiver.until(|it| it.name == "message");
        assert_eq!(message.attr("id"), Some(&*number.to_string()));
        receiver.send(&format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", number + 1));
    }
    receiver.ask("", "get", "<ping xmlns='urn:xmpp:ping'/>");
}
