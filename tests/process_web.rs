//! Clients of the web over real sockets: WebSocket (RFC 7395) in clear and over TLS, and host-meta
//! (XEP-0156).

mod support;

use sim::scram::{Scram, plain};
use support::server::{free_port, home};
use support::web::{
    CLOSE, PING, Sent, TEXT, WebClient, connect, connect_tls, fetch, frame, open, upgrade,
};
use support::{Client, DOMAIN, Options, PASSWORD, STREAM_ERRORS, Server};

const NEW_SESSION: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";
const PING_REQUEST: &str = "<ping xmlns='urn:xmpp:ping'/>";

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

fn message(to: &str, id: &str, body: &str) -> String {
    format!(
        "<message xmlns='jabber:client' to='{to}' type='chat' id='{id}'><body>{body}</body>\
         </message>"
    )
}

#[test]
fn a_client_of_websocket_talks_with_one_of_tcp_wherever_their_shards_are() {
    for shards in [1, 2] {
        let web = start(&Options {
            shards,
            ..Options::default()
        });
        // With two shards, one at home on each at least: who connects is moved there.
        for user in ["u0", "u1", "u2"] {
            let mut desk = Client::available(&web.server, "u3", "desk");
            let mut page = WebClient::log_in(connect(web.http), user, "page");
            let mut tab = WebClient::log_in(connect_tls(&web.server, web.https), user, "tab");
            let home = home(user, shards);
            for round in 0..3 {
                let id = format!("{user}-{round}");
                desk.send(&message(&format!("{user}@{DOMAIN}/page"), &id, "a &lt; ä"));
                desk.send(&message(&format!("{user}@{DOMAIN}/tab"), &id, "x"));
                let came = page.until(|element| element.name == "message");
                assert!(
                    came.is("message", "jabber:client"),
                    "on {home} of {shards}: {came:?}"
                );
                assert_eq!(came.attr("from"), Some(&*format!("u3@{DOMAIN}/desk")));
                assert_eq!(
                    (came.attr("id"), came.child_text("body")),
                    (Some(&*id), "a < ä")
                );
                assert_eq!(
                    came.child("body").map(|body| &*body.ns),
                    Some("jabber:client")
                );
                assert_eq!(tab.until(|it| it.name == "message").child_text("body"), "x");
                page.send(&message(&format!("u3@{DOMAIN}/desk"), &id, "back"));
                let back = desk.until(|element| element.name == "message");
                assert_eq!(back.attr("from"), Some(&*format!("{user}@{DOMAIN}/page")));
                assert_eq!(back.child_text("body"), "back");
            }
        }
    }
}

#[test]
fn what_is_large_goes_through_both_ways() {
    let web = start(&Options::default());
    let mut page = WebClient::log_in(connect(web.http), "u0", "page");
    let mut tab = WebClient::log_in(connect_tls(&web.server, web.https), "u1", "tab");
    for size in [60, 126, 5_000, 70_000, 200_000] {
        let body = "ä".repeat(size / 2);
        page.send(&message(&format!("u1@{DOMAIN}/tab"), "1", &body));
        let came = tab.until(|element| element.name == "message");
        assert_eq!(came.child_text("body"), body);
        tab.send(&message(&format!("u0@{DOMAIN}/page"), "2", &body));
        assert_eq!(
            page.until(|it| it.name == "message").child_text("body"),
            body
        );
    }
}

#[test]
fn over_tls_a_login_is_bound_to_the_channel_and_there_is_no_starttls() {
    let web = start(&Options {
        tls_required: true,
        ..Options::default()
    });
    let (mut client, features) = WebClient::opened(connect_tls(&web.server, web.https));
    assert_eq!(client.wire().conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(features.child("starttls").is_none(), "{features:?}");
    assert!(features.child("authentication").is_some(), "{features:?}");
    let bindings = features
        .child("sasl-channel-binding")
        .expect("there are some");
    let types: Vec<_> = bindings
        .children
        .iter()
        .filter_map(|it| it.attr("type"))
        .collect();
    assert_eq!(types, ["tls-exporter", "tls-server-end-point"]);
    let label = b"EXPORTER-Channel-Binding";
    let exporter = client
        .wire()
        .conn
        .export_keying_material([0; 32], label, Some(b""));
    let exporter = exporter.expect("the handshake is done");
    let (mut scram, first) = Scram::start("u0", PASSWORD, "nonce", Some(&exporter));
    client.send(&format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-256-PLUS'>\
         <initial-response>{first}</initial-response>\
         <bind xmlns='urn:xmpp:bind:0'><tag>page</tag></bind></authenticate>"
    ));
    let response = scram
        .respond(&client.message().text)
        .expect("a good challenge");
    client.send(&format!(
        "<response xmlns='urn:xmpp:sasl:2'>{response}</response>"
    ));
    let success = client.message();
    assert!(success.is("success", "urn:xmpp:sasl:2"), "{success:?}");
    assert!(success.child("bound").is_some(), "{success:?}");
    assert_eq!(client.message().name, "features");
    assert_eq!(client.ask(PING_REQUEST).attr("type"), Some("result"));
}

#[test]
fn in_clear_nobody_logs_in_where_tls_is_required_but_through_a_trusted_proxy() {
    let strict = Options {
        tls_required: true,
        ..Options::default()
    };
    let web = start(&strict);
    for said in ["", "X-Forwarded-Proto: https\r\n"] {
        let answer = fetch(connect(web.http), &upgrade(said));
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    }
    let proxied = start(&Options {
        more: "[web]\ntrusted_proxies = [\"127.0.0.1\"]\n",
        ..strict
    });
    let answer = fetch(
        connect(proxied.http),
        &upgrade("X-Forwarded-Proto: http\r\n"),
    );
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let (mut client, features) = WebClient::opened(connect(proxied.http));
    assert!(features.child("starttls").is_none(), "{features:?}");
    // The proxy has the channel; there is none to bind to.
    assert!(
        features.child("sasl-channel-binding").is_none(),
        "{features:?}"
    );
    let proof = plain("u0", PASSWORD);
    client.send(&format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>\
         <initial-response>{proof}</initial-response></authenticate>"
    ));
    assert!(client.message().is("success", "urn:xmpp:sasl:2"));
}

#[test]
fn in_clear_where_that_is_allowed_starttls_is_neither_offered_nor_granted() {
    let web = start(&Options::default());
    let (mut client, features) = WebClient::opened(connect(web.http));
    assert!(features.child("starttls").is_none(), "{features:?}");
    assert!(features.child("authentication").is_none(), "{features:?}");
    client.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    let [
        Sent::Message(failure),
        Sent::Message(close),
        Sent::Close(1000),
    ] = &client.rest()[..]
    else {
        panic!("a failure, and the end");
    };
    assert!(
        failure.is("failure", "urn:ietf:params:xml:ns:xmpp-tls"),
        "{failure:?}"
    );
    assert_eq!(close.name, "close");
}

#[test]
fn a_session_goes_on_over_another_transport() {
    for shards in [1, 2] {
        let web = start(&Options {
            shards,
            ..Options::default()
        });
        let mut desk = Client::available(&web.server, "u1", "desk");
        let mut page = WebClient::log_in(connect(web.http), "u0", "page");
        page.send(NEW_SESSION);
        let enabled = page.message();
        assert!(enabled.is("enabled", "urn:xmpp:sm:3"), "{enabled:?}");
        let id = enabled.attr("id").expect("it can be resumed").to_owned();
        let address = format!("u0@{DOMAIN}/page");
        // A page that is closed says so by WebSocket, but ends no stream.
        page.send_bytes(&frame(CLOSE, &1001_u16.to_be_bytes()));
        let rest = page.rest();
        assert_eq!(rest.last(), Some(&Sent::Close(1001)), "{rest:?}");
        desk.send(&message(&address, "1", "meanwhile"));
        let mut wire = Client::authenticated(&web.server, "u0");
        let resume = |h| format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{h}'/>");
        wire.send(&resume(0));
        assert_eq!(wire.element().name, "resumed");
        let came = wire.until(|element| element.name == "message");
        assert_eq!(came.child_text("body"), "meanwhile");
        wire.send("<a xmlns='urn:xmpp:sm:3' h='1'/>");
        wire.reset();
        desk.send(&message(&address, "2", "and then"));
        let tls = connect_tls(&web.server, web.https);
        let mut page = WebClient::authenticated(tls, "u0");
        page.send(&resume(1));
        assert_eq!(page.message().name, "resumed");
        let came = page.until(|element| element.name == "message");
        assert_eq!(came.child_text("body"), "and then");
    }
}

#[test]
fn who_closes_the_stream_is_told_so_and_the_connection_ends() {
    let web = start(&Options::default());
    let mut desk = Client::available(&web.server, "u1", "desk");
    let mut page = WebClient::log_in(connect(web.http), "u0", "page");
    page.send("<presence xmlns='jabber:client'/>");
    let is_from = |element: &support::Element, kind: Option<&str>| {
        let from = element.attr("from").unwrap_or_default();
        element.name == "presence" && from.starts_with("u0@") && element.attr("type") == kind
    };
    desk.until(|element| is_from(element, None));
    page.send("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>");
    let rest = page.rest();
    let [.., Sent::Message(close), Sent::Close(1000)] = &rest[..] else {
        panic!("{rest:?}");
    };
    assert!(close.is("close", "urn:ietf:params:xml:ns:xmpp-framing"));
    desk.until(|element| is_from(element, Some("unavailable")));
}

#[test]
fn fragments_with_pings_between_them_are_one_message() {
    let web = start(&Options::default());
    let mut page = WebClient::log_in(connect_tls(&web.server, web.https), "u0", "page");
    let text = message(&format!("u0@{DOMAIN}/page"), "1", "ä");
    let (head, tail) = text
        .as_bytes()
        .split_at(text.find('ä').expect("it is there") + 1);
    page.send_bytes(&frame(0x01, head));
    page.send_bytes(&frame(PING, b"there?"));
    assert_eq!(page.next(), Sent::Pong(b"there?".to_vec()));
    for byte in tail {
        page.send_bytes(&frame(0x00, &[*byte]));
    }
    page.send_bytes(&frame(0x80, b""));
    assert_eq!(page.message().child_text("body"), "ä");
}

#[test]
fn frames_that_break_a_rule_end_their_connection_with_a_code_and_nobody_elses() {
    let web = start(&Options::default());
    let mut friend = WebClient::log_in(connect(web.http), "u1", "page");
    let unmasked = [&[TEXT, 4][..], b"<a/>"].concat();
    let reserved = frame(0x40 | TEXT, b"<a/>");
    let endless = [&[TEXT, 0xff][..], &[0xff; 8], &[0; 4]].concat();
    for (bytes, code) in [
        (unmasked, 1002),
        (reserved, 1002),
        (frame(0x83, b""), 1002),
        (frame(0x80, b"<a/>"), 1002),
        (frame(PING, &[0; 126]), 1002),
        (frame(0x09, b""), 1002),
        (endless, 1002),
        (frame(0x82, b"<a/>"), 1003),
        (frame(TEXT, b"<a>\xff</a>"), 1007),
        (frame(CLOSE, &1002_u16.to_be_bytes()), 1002),
    ] {
        let mut page = WebClient::log_in(connect(web.http), "u0", "page");
        page.send(NEW_SESSION);
        let id = page
            .message()
            .attr("id")
            .expect("it can be resumed")
            .to_owned();
        page.send_bytes(&bytes);
        let rest = page.rest();
        assert_eq!(rest.last(), Some(&Sent::Close(code)), "{bytes:?}: {rest:?}");
        // A connection was lost, no session: only what is said in XMPP ends that.
        let mut page = WebClient::authenticated(connect(web.http), "u0");
        page.send(&format!(
            "<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>"
        ));
        assert_eq!(page.message().name, "resumed");
    }
    assert_eq!(friend.ask(PING_REQUEST).attr("type"), Some("result"));
}

#[test]
fn messages_that_are_no_element_of_a_stream_end_it_with_an_error() {
    let web = start(&Options {
        limits: "stanza_size_before_auth_max = 4096\nstanza_size_max = 10000",
        ..Options::default()
    });
    let long = format!("<iq xmlns='jabber:client'>{}</iq>", "x".repeat(10_000));
    let deep = format!("{}{}", "<a>".repeat(100), "</a>".repeat(100));
    let half = &long[..100];
    for (text, condition, code) in [
        ("", "not-well-formed", 1000),
        (" ", "not-well-formed", 1000),
        ("<iq xmlns='jabber:client'/> ", "not-well-formed", 1000),
        ("<a/><b/>", "not-well-formed", 1000),
        (half, "not-well-formed", 1000),
        ("</stream:stream>", "not-well-formed", 1000),
        ("<a>\u{1}</a>", "not-well-formed", 1000),
        ("<?xml version='1.0'?><a/>", "restricted-xml", 1000),
        ("<!DOCTYPE a><a/>", "restricted-xml", 1000),
        (&open(), "restricted-xml", 1000),
        ("<a xmlns='b'/>", "unsupported-stanza-type", 1000),
        (&deep, "policy-violation", 1000),
        (&long, "policy-violation", 1009),
    ] {
        let mut page = WebClient::log_in(connect(web.http), "u0", "page");
        page.send(text);
        let rest = page.rest();
        let [
            Sent::Message(error),
            Sent::Message(close),
            Sent::Close(told),
        ] = &rest[..]
        else {
            panic!("{text:?}: {rest:?}");
        };
        assert!(
            error.is("error", "http://etherx.jabber.org/streams"),
            "{error:?}"
        );
        assert_eq!(
            (error.condition(STREAM_ERRORS), *told),
            (Some(condition), code),
            "{text:?}"
        );
        assert_eq!(close.name, "close");
    }
}

#[test]
fn before_there_is_a_stream_its_header_comes_first_and_less_is_taken() {
    let web = start(&Options {
        limits: "stanza_size_before_auth_max = 4096\nstanza_size_max = 10000",
        ..Options::default()
    });
    let early = format!("<iq xmlns='jabber:client'>{}</iq>", "x".repeat(5_000));
    for (text, condition) in [
        (
            "<iq xmlns='jabber:client' type='get' id='1'/>",
            "not-well-formed",
        ),
        ("<a xmlns='jabber:client'></a>", "invalid-namespace"),
        (&early, "policy-violation"),
    ] {
        let mut page = WebClient::upgraded(connect(web.http));
        page.send(text);
        let rest = page.rest();
        let [
            Sent::Message(head),
            Sent::Message(error),
            Sent::Message(_),
            Sent::Close(_),
        ] = &rest[..]
        else {
            panic!("{text:?}: {rest:?}");
        };
        assert_eq!(head.name, "open");
        assert_eq!(error.condition(STREAM_ERRORS), Some(condition), "{text:?}");
    }
}

#[test]
fn a_request_that_does_not_end_has_as_long_as_a_login() {
    let web = start(&Options {
        limits: "auth_ms_max = 1000",
        ..Options::default()
    });
    let half = upgrade("");
    for request in ["", &half[..half.len() - 2]] {
        assert_eq!(fetch(connect(web.http), request), "");
    }
    let mut silent = WebClient::upgraded(connect(web.http));
    let rest = silent.rest();
    let told = rest.iter().find_map(|sent| match sent {
        Sent::Message(it) => it.condition(STREAM_ERRORS),
        _ => None,
    });
    assert_eq!(told, Some("connection-timeout"), "{rest:?}");
}

#[test]
fn the_end_of_the_server_is_told() {
    let mut web = start(&Options::default());
    let mut page = WebClient::log_in(connect_tls(&web.server, web.https), "u0", "page");
    web.server.terminate();
    let rest = page.rest();
    let [Sent::Message(error), Sent::Message(_), Sent::Close(1000)] = &rest[..] else {
        panic!("{rest:?}");
    };
    assert_eq!(error.condition(STREAM_ERRORS), Some("system-shutdown"));
    assert!(web.server.wait().success());
}

/// XEP-0156 2.3, 3
#[test]
fn host_meta_says_where_the_websocket_is() {
    let web = start(&Options::default());
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {DOMAIN}\r\n\r\n");
    let url = format!("wss://{DOMAIN}:{}/xmpp-websocket", web.https);
    let xml = fetch(connect(web.http), &get("/.well-known/host-meta"));
    let (head, body) = xml.split_once("\r\n\r\n").expect("a body");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(
        head.contains("\r\nAccess-Control-Allow-Origin: *\r\n"),
        "{head}"
    );
    let root = support::Element::document(body);
    assert!(
        root.is("XRD", "http://docs.oasis-open.org/ns/xri/xrd-1.0"),
        "{root:?}"
    );
    let link = root.child("Link").expect("a link");
    assert_eq!(link.attr("rel"), Some("urn:xmpp:alt-connections:websocket"));
    assert_eq!(link.attr("href"), Some(&*url));
    let tls = connect_tls(&web.server, web.https);
    let json = fetch(tls, &get("/.well-known/host-meta.json"));
    let (_, body) = json.split_once("\r\n\r\n").expect("a body");
    let value: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(value["links"][0]["href"], url);
    let bosh = format!("https://{DOMAIN}:{}/http-bind", web.https);
    assert_eq!(value["links"][1]["href"], bosh);
    let nowhere = fetch(connect(web.http), &get("/"));
    assert!(nowhere.starts_with("HTTP/1.1 404 "), "{nowhere}");
}
