//! Requests of browsers, of clients that are none, and of neither.

use super::*;

/// RFC 6455 1.3 has this key with its answer.
const UPGRADE: &str = "GET /xmpp-websocket?a=b HTTP/1.1\r\nHost: example.org\r\n\
    Upgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Protocol: chat, xmpp\r\nOrigin: https://chat.example.org\r\n\r\n";

fn site() -> Site {
    Site {
        authority: Some("a.example\"&'".into()),
        ..Site::default()
    }
}

fn peer() -> IpAddr {
    [192, 0, 2, 1].into()
}

fn said(answer: Answer) -> String {
    match answer {
        Answer::Incomplete => "more".to_owned(),
        Answer::File(request) => format!("{:?}", request.ask),
        Answer::Body(request) => format!("HTTP/1.1 body of {}", request.size),
        Answer::Upgrade(upgrade) => String::from_utf8(upgrade.response).expect("text"),
        Answer::Page(page) => String::from_utf8(page).expect("text"),
    }
}

fn body_of(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// The status that a request gets at `site`, by TLS.
fn status(request: &str, site: &Site) -> String {
    let all = said(answer(request.as_bytes(), site, peer(), true));
    let status = all.strip_prefix("HTTP/1.1 ").unwrap_or(&all);
    status.split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn an_upgrade_is_proved_to_be_understood() {
    let Answer::Upgrade(upgrade) = answer(UPGRADE.as_bytes(), &site(), peer(), true) else {
        panic!("it is one");
    };
    assert_eq!((upgrade.head_size, upgrade.peer), (UPGRADE.len(), peer()));
    let text = String::from_utf8(upgrade.response).expect("text");
    assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
    for line in [
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "Sec-WebSocket-Protocol: xmpp",
        "Upgrade: websocket",
        "Connection: Upgrade",
    ] {
        assert!(text.contains(&format!("\r\n{line}\r\n")), "{text}");
    }
    assert!(text.ends_with("\r\n\r\n"));
    for size in 0..UPGRADE.len() {
        let answer = answer(&UPGRADE.as_bytes()[..size], &site(), peer(), true);
        assert_eq!(answer, Answer::Incomplete);
    }
}

#[test]
fn what_is_no_upgrade_to_xmpp_is_refused() {
    let without = |line: &str| {
        assert!(UPGRADE.contains(line));
        UPGRADE.replace(line, "X")
    };
    for (request, expected) in [
        (UPGRADE.to_owned(), "101"),
        (without("Upgrade: WebSocket"), "400"),
        (UPGRADE.replace("Upgrade: WebSocket", "Upgrade: h2c"), "426"),
        (UPGRADE.replace("keep-alive, Upgrade", "keep-alive"), "426"),
        (UPGRADE.replace("Host", "Hosts"), "426"),
        (UPGRADE.replace("HTTP/1.1", "HTTP/1.0"), "426"),
        (UPGRADE.replace("HTTP/1.1", "HTTP/2.0"), "505"),
        (UPGRADE.replace("Version: 13", "Version: 8"), "426"),
        (UPGRADE.replace("dGhl", "dGh"), "400"),
        (UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhl"), "400"),
        (UPGRADE.replace("chat, xmpp", "chat, xmpp2"), "400"),
        (UPGRADE.replace("GET", "POST"), "405"),
        (
            UPGRADE.replace("/xmpp-websocket", "/xmpp-websockets"),
            "404",
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "404"),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}".to_owned(), "400"),
        ("<?xml version='1.0'?><stream:stream>".to_owned(), "400"),
        ("GET / HTTP/1.1\r\nA\u{0}: b\r\n\r\n".to_owned(), "400"),
    ] {
        assert_eq!(status(&request, &site()), expected, "{request}");
    }
}

#[test]
fn a_head_has_its_limits() {
    let lines =
        |count: usize| UPGRADE.replace("\r\n\r\n", &("\r\nA: b".repeat(count) + "\r\n\r\n"));
    let own = 7;
    assert_eq!(status(&lines(HEADERS_MAX - own), &site()), "101");
    assert_eq!(status(&lines(HEADERS_MAX - own + 1), &site()), "431");
    let long = |size: usize| {
        let line = "\r\nA: ".to_owned() + &"b".repeat(size - UPGRADE.len() - 5) + "\r\n\r\n";
        UPGRADE.replace("\r\n\r\n", &line)
    };
    assert_eq!(long(HEAD_SIZE_MAX).len(), HEAD_SIZE_MAX);
    assert_eq!(status(&long(HEAD_SIZE_MAX), &site()), "101");
    assert_eq!(status(&long(HEAD_SIZE_MAX + 1), &site()), "431");
    let endless = &long(HEAD_SIZE_MAX + 100)[..HEAD_SIZE_MAX];
    assert_eq!(status(&endless[..HEAD_SIZE_MAX - 1], &site()), "more");
    assert_eq!(status(endless, &site()), "431");
}

#[test]
fn other_pages_connect_only_where_the_operator_lets_them() {
    let only = |origin: &str| Site {
        origins: Some(vec!["https://other.example".into(), origin.into()]),
        ..site()
    };
    assert_eq!(status(UPGRADE, &only("https://CHAT.example.org")), "101");
    assert_eq!(
        status(UPGRADE, &only("https://chat.example.org:444")),
        "403"
    );
    assert_eq!(status(UPGRADE, &only("http://chat.example.org")), "403");
    assert_eq!(
        status(
            &UPGRADE.replace("https://chat.example.org", "null"),
            &only("x")
        ),
        "403"
    );
    // A client that is no browser has none.
    assert_eq!(
        status(&UPGRADE.replace("Origin", "X"), &only("https://a.example")),
        "101"
    );
}

#[test]
fn nobody_connects_in_clear_where_tls_is_required_but_through_a_proxy() {
    let clear = |site: &Site, request: &str| match answer(request.as_bytes(), site, peer(), false) {
        Answer::Upgrade(upgrade) => Some(upgrade.is_secured),
        _ => None,
    };
    let strict = Site {
        must_secure: true,
        ..site()
    };
    assert_eq!(clear(&site(), UPGRADE), Some(false));
    assert_eq!(clear(&strict, UPGRADE), None);
    let proxied = Site {
        trusted_proxies: vec![peer()],
        ..strict
    };
    assert_eq!(clear(&proxied, UPGRADE), Some(true));
    let in_clear = UPGRADE.replace("\r\n\r\n", "\r\nX-Forwarded-Proto: http\r\n\r\n");
    assert_eq!(clear(&proxied, &in_clear), None);
    // TLS between a proxy and here says nothing of its client, and nobody else's word counts.
    let by_tls = |site: &Site, request: &str| match answer(request.as_bytes(), site, peer(), true) {
        Answer::Upgrade(upgrade) => Some((upgrade.is_proxied, upgrade.is_secured)),
        _ => None,
    };
    assert_eq!(by_tls(&proxied, &in_clear), None);
    assert_eq!(by_tls(&proxied, UPGRADE), Some((true, true)));
    let direct = Site {
        trusted_proxies: Vec::new(),
        ..proxied
    };
    assert_eq!(by_tls(&direct, &in_clear), Some((false, true)));
}

#[test]
fn host_meta_says_where_the_websocket_is_to_pages_of_any_site() {
    let get = |method: &str, path: &str, site: &Site| {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        said(answer(request.as_bytes(), site, peer(), false))
    };
    let xml = get("GET", HOST_META, &site());
    let (head, body) = xml.split_once("\r\n\r\n").expect("a body");
    assert!(
        head.contains("Content-Type: application/xrd+xml\r\n"),
        "{head}"
    );
    assert!(
        head.contains("Access-Control-Allow-Origin: *\r\n"),
        "{head}"
    );
    assert!(
        head.contains(&format!("Content-Length: {}\r\n", body.len())),
        "{head}"
    );
    let href = "href='wss://a.example&quot;&amp;&apos;/xmpp-websocket'";
    assert!(
        body.contains("rel='urn:xmpp:alt-connections:websocket'"),
        "{body}"
    );
    assert!(body.contains(href), "{body}");
    let json = get("GET", HOST_META_JSON, &site());
    let (head, body) = json.split_once("\r\n\r\n").expect("a body");
    assert!(
        head.contains("Access-Control-Allow-Origin: *\r\n"),
        "{head}"
    );
    let value: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(
        value["links"][0]["rel"],
        "urn:xmpp:alt-connections:websocket"
    );
    assert_eq!(
        value["links"][0]["href"],
        "wss://a.example\"&'/xmpp-websocket"
    );
    // XEP-0206 says nothing of where it is; XEP-0156 does.
    let href = "href='https://a.example&quot;&amp;&apos;/http-bind'";
    assert!(
        body_of(&xml).contains(&format!("rel='urn:xmpp:alt-connections:xbosh' {href}")),
        "{xml}"
    );
    assert_eq!(value["links"][1]["rel"], "urn:xmpp:alt-connections:xbosh");
    assert_eq!(value["links"][1]["href"], "https://a.example\"&'/http-bind");
    let (head, body) = xml.split_at(xml.find("\r\n\r\n").expect("a body") + 4);
    assert_eq!(get("HEAD", HOST_META, &site()), head);
    assert!(!body.is_empty());
    assert!(get("POST", HOST_META, &site()).starts_with("HTTP/1.1 405 "));
    assert!(get("GET", HOST_META, &Site::default()).starts_with("HTTP/1.1 404 "));
}

/// A request with a body of three bytes.
const POST: &str = "POST /http-bind HTTP/1.1\r\nHost: example.org\r\nContent-Length: 3\r\n\
    Content-Type: text/xml; charset=utf-8\r\nOrigin: https://chat.example.org\r\n\r\n";

fn body_request(request: &str, site: &Site) -> BodyRequest {
    match answer(request.as_bytes(), site, peer(), true) {
        Answer::Body(request) => *request,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_body_is_announced_with_its_size_and_answered_as_its_page_may_read_it() {
    let asked = body_request(POST, &site());
    assert_eq!((asked.head_size, asked.size), (POST.len(), 3));
    assert!(asked.is_secured && !asked.expects && asked.reply.keeps);
    let text = String::from_utf8(asked.reply.write("text/xml", b"<a/>")).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a body");
    assert_eq!(body, "<a/>");
    for line in [
        "Content-Type: text/xml",
        "Content-Length: 4",
        "Access-Control-Allow-Origin: *",
        "X-Content-Type-Options: nosniff",
    ] {
        assert!(head.split("\r\n").any(|one| one == line), "{head}");
    }
    assert!(!head.contains("Connection: "), "{head}");
    let only = |origin: &str| Site {
        origins: Some(vec![origin.into()]),
        ..site()
    };
    let asked = body_request(POST, &only("https://chat.example.org"));
    let text = String::from_utf8(asked.reply.write("text/xml", b"")).expect("text");
    assert!(
        text.contains("Access-Control-Allow-Origin: https://chat.example.org\r\nVary: Origin\r\n"),
        "{text}"
    );
    assert_eq!(status(POST, &only("https://a.example")), "403");
    for last in [
        POST.replace("Host", "Connection: close\r\nHost"),
        POST.replace("HTTP/1.1", "HTTP/1.0"),
    ] {
        let asked = body_request(&last, &site());
        let text = String::from_utf8(asked.reply.write("text/xml", b"")).expect("text");
        assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
    }
}

#[test]
fn what_is_no_post_of_a_known_size_is_refused_and_others_are_told_what_is_there() {
    let size = "Content-Length: 3";
    for (request, expected) in [
        (POST.replace(size, "A: b"), "411"),
        (POST.replace(size, "Transfer-Encoding: chunked"), "411"),
        (POST.replace(size, "Content-Length: +3"), "400"),
        (POST.replace(size, "Content-Length: "), "400"),
        (POST.replace(size, &format!("{size}\r\n{size}")), "400"),
        (POST.replace(size, &format!("{size}{size}")), "400"),
        (
            POST.replace(size, &format!("Content-Length: {}", "9".repeat(30))),
            "413",
        ),
        (
            POST.replace(size, &format!("{size}\r\nContent-Encoding: gzip")),
            "415",
        ),
        (POST.replace("POST", "PUT"), "405"),
        (POST.replace("POST", "OPTIONS"), "204"),
        (POST.replace("POST", "GET"), "200"),
        (POST.replace("/http-bind", "/http-bind/"), "404"),
        (POST.replace("Host", "X-Host"), "400"),
    ] {
        assert_eq!(status(&request, &site()), expected, "{request}");
    }
    let get = POST.replace("POST", "GET");
    let told = said(answer(get.as_bytes(), &site(), peer(), true));
    assert!(body_of(&told).contains("BOSH"), "{told}");
    let preflight = POST.replace("POST", "OPTIONS");
    let told = said(answer(preflight.as_bytes(), &site(), peer(), true));
    assert!(
        told.contains("Access-Control-Allow-Headers: Content-Type\r\n"),
        "{told}"
    );
}

#[test]
fn a_body_in_clear_is_refused_where_tls_is_required() {
    let strict = Site {
        must_secure: true,
        ..site()
    };
    let clear = |request: &str, site: &Site| match answer(request.as_bytes(), site, peer(), false) {
        Answer::Body(request) => Some(request.is_secured),
        _ => None,
    };
    assert_eq!(clear(POST, &site()), Some(false));
    assert_eq!(clear(POST, &strict), None);
    let proxied = Site {
        trusted_proxies: vec![peer()],
        ..strict
    };
    let forwarded = POST.replace("Host", "X-Forwarded-For: 198.51.100.7\r\nHost");
    assert_eq!(clear(&forwarded, &proxied), Some(true));
    let asked = body_request(&forwarded, &proxied);
    assert_eq!(asked.peer, IpAddr::from([198, 51, 100, 7]));
    let in_clear = POST.replace("Host", "X-Forwarded-Proto: http\r\nHost");
    assert_eq!(clear(&in_clear, &proxied), None);
}
