//! External components (XEP-0114) over real sockets: how they connect, what they and users say to
//! each other wherever both are at home, and what becomes of what they do not take.

mod support;

use std::net::{Ipv4Addr, SocketAddr};

use support::client::Event;
use support::server::{free_port, home};
use support::{Client, DOMAIN, Element, Options, STANZA_ERRORS, Server};
use xmpp::xep::components::handshake;

const GATEWAY: &str = "irc.localhost";
const SECRET: &str = "north by northwest";
const SHARDS: u16 = 2;

/// A server and where its components connect.
fn start() -> (Server, SocketAddr) {
    let port = free_port();
    let server = Server::start(&Options {
        shards: SHARDS,
        clique: 1,
        listen: &format!("component = \"127.0.0.1:{port}\""),
        more: &format!("[component.{GATEWAY:?}]\nsecret = {SECRET:?}"),
        ..Options::default()
    });
    (server, (Ipv4Addr::LOCALHOST, port).into())
}

/// A component whose header is answered, and the id of its stream.
fn open(address: SocketAddr) -> (Client, String) {
    let mut component = Client::connect_to(address);
    component.send(&format!(
        "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' to='{GATEWAY}' \
         xmlns:stream='http://etherx.jabber.org/streams'>"
    ));
    match component.next() {
        Event::Header(header) => {
            assert_eq!(header.attr("from"), Some(GATEWAY));
            let id = header.attr("id").expect("an id").to_owned();
            (component, id)
        }
        other => panic!("a header was awaited, {other:?} came"),
    }
}

/// A component that is connected.
fn attach(address: SocketAddr) -> Client {
    let (mut component, id) = open(address);
    component.send(&format!(
        "<handshake>{}</handshake>",
        handshake(&id, SECRET)
    ));
    let answer = component.element();
    assert_eq!(answer.name, "handshake", "{answer:?}");
    component
}

/// Users of both shards.
fn users() -> [String; 2] {
    let names: Vec<String> = (0..4).map(|number| format!("u{number}")).collect();
    [0, 1].map(|shard| {
        let found = names.iter().find(|name| home(name, SHARDS) == shard);
        found.expect("four names are on two shards").clone()
    })
}

fn from(element: &Element) -> &str {
    element.attr("from").unwrap_or_default()
}

#[test]
fn users_of_all_shards_and_a_component_talk_with_each_other() {
    let (server, address) = start();
    let mut component = attach(address);
    for user in users() {
        let mut client = Client::available(&server, &user, "r");
        let jid = client.jid.clone();
        for number in 0..50 {
            let text = format!("<message to='n@{GATEWAY}' id='{number}'><body>x</body></message>");
            client.send(&text);
        }
        for number in 0..50 {
            let message = component.element();
            assert_eq!(message.attr("id"), Some(&*number.to_string()));
            assert_eq!(from(&message), jid);
        }
        component.send(&format!(
            "<message from='n@{GATEWAY}/x' to='{user}@{DOMAIN}' type='chat'>\
             <body>y</body></message>"
        ));
        let message = client.element();
        assert_eq!(message.child_text("body"), "y");
        assert_eq!(from(&message), format!("n@{GATEWAY}/x"));
        // The server is asked like by anybody.
        component.send(&format!(
            "<iq type='get' id='i' from='{GATEWAY}' to='{DOMAIN}'>\
             <query xmlns='http://jabber.org/protocol/disco#info'/></iq>"
        ));
        let info = component.element();
        assert_eq!(info.attr("type"), Some("result"), "{info:?}");
        assert!(!info.child("query").expect("a query").children.is_empty());
        let items = "<query xmlns='http://jabber.org/protocol/disco#items'/>";
        let items = client.ask(DOMAIN, "get", items);
        let item = items.child("query").expect("a query").child("item");
        assert_eq!(item.and_then(|item| item.attr("jid")), Some(GATEWAY));
        // Presence that was sent directly is withdrawn.
        client.send(&format!("<presence to='#c@{GATEWAY}/n'/>"));
        assert_eq!(from(&component.element()), jid);
        client.reset();
        let presence = component.element();
        assert_eq!(presence.attr("type"), Some("unavailable"), "{presence:?}");
    }
    assert!(
        server.log().contains("component connected"),
        "{}",
        server.log()
    );
}

#[test]
fn a_component_without_the_secret_or_with_another_name_is_refused() {
    let (server, address) = start();
    let (mut component, id) = open(address);
    component.send(&format!(
        "<handshake>{}</handshake>",
        handshake(&id, "south")
    ));
    assert_eq!(component.stream_error(), "not-authorized");
    let mut component = Client::connect_to(address);
    component.send(
        "<stream:stream xmlns='jabber:component:accept' to='other.localhost' \
         xmlns:stream='http://etherx.jabber.org/streams'>",
    );
    assert_eq!(component.stream_error(), "host-unknown");
    let mut component = attach(address);
    component.send(&format!("<message from='u0@{DOMAIN}' to='u1@{DOMAIN}'/>"));
    assert_eq!(component.stream_error(), "invalid-from");
    assert!(
        server.log().contains("handshake failed"),
        "{}",
        server.log()
    );
}

#[test]
fn what_a_component_does_not_take_is_bounded_and_comes_back() {
    let (server, address) = start();
    let component = attach(address);
    let mut client = Client::available(&server, &users()[1], "r");
    // More than the kernel and the queue hold, as the errors say from there on.
    let body = "x".repeat(50_000);
    let mut sent = 0;
    let refused = loop {
        for _ in 0..20 {
            client.send(&format!(
                "<message to='n@{GATEWAY}' id='{sent}'><body>{body}</body></message>"
            ));
            sent += 1;
        }
        let mut got = client.settle();
        if !got.is_empty() {
            // One at a time now, of which each comes back.
            let answer = got.remove(0);
            assert_eq!(answer.condition(STANZA_ERRORS), Some("resource-constraint"));
            break answer
                .attr("id")
                .expect("an id")
                .parse::<u32>()
                .expect("ours");
        }
        assert!(sent < 5_000, "nothing was refused");
    };
    // What waits comes back when the component goes, and all that is sent to it then.
    drop(component);
    let lost = client.until(|it| it.condition(STANZA_ERRORS) == Some("remote-server-timeout"));
    let lost: u32 = lost.attr("id").expect("an id").parse().expect("ours");
    assert!(
        lost < refused,
        "{lost} was accepted before {refused} was refused"
    );
    let mut last = lost;
    while last + 1 < refused {
        let next = client.until(|it| it.condition(STANZA_ERRORS) == Some("remote-server-timeout"));
        let next: u32 = next.attr("id").expect("an id").parse().expect("ours");
        assert_eq!(next, last + 1, "in order, and none is missing");
        last = next;
    }
    let mut component = attach(address);
    client.send(&format!("<message to='n@{GATEWAY}' id='again'/>"));
    assert_eq!(component.element().attr("id"), Some("again"));
    assert!(
        server.log().contains("component disconnected"),
        "{}",
        server.log()
    );
}

#[test]
fn a_component_that_comes_again_is_served_and_the_old_connection_ends() {
    let (server, address) = start();
    let mut old = attach(address);
    let mut new = attach(address);
    assert_eq!(old.stream_error(), "conflict");
    let mut client = Client::log_in(&server, "u0", "r");
    client.send(&format!("<message to='{GATEWAY}' id='m'/>"));
    assert_eq!(new.element().attr("id"), Some("m"));
    server.terminate();
    assert_eq!(new.stream_error(), "system-shutdown");
}
