//! Push notifications (XEP-0357) over real sockets: a component is the push service, and a device
//! that is gone is told of what waits for it, also by the next process.

mod support;

use std::net::{Ipv4Addr, SocketAddr};

use support::client::Event;
use support::server::{free_port, home};
use support::{Client, DOMAIN, Element, Options, Server};
use xmpp::xep::components::handshake;

const SERVICE: &str = "push.localhost";
const SECRET: &str = "north by northwest";
const SHARDS: u16 = 2;

fn more() -> String {
    format!(
        "[component.{SERVICE:?}]\nsecret = {SECRET:?}\n\
         [push]\nenabled = true\nsender = true\nbody = \"text\"\n"
    )
}

/// A push service that is connected.
fn attach(address: SocketAddr) -> Client {
    let mut service = Client::connect_to(address);
    service.send(&format!(
        "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' to='{SERVICE}' \
         xmlns:stream='http://etherx.jabber.org/streams'>"
    ));
    let id = match service.next() {
        Event::Header(header) => header.attr("id").expect("an id").to_owned(),
        other => panic!("a header was awaited, {other:?} came"),
    };
    let proof = handshake(&id, SECRET);
    service.send(&format!("<handshake>{proof}</handshake>"));
    assert_eq!(service.element().name, "handshake");
    service
}

/// Users of both shards.
fn users() -> [String; 2] {
    let names: Vec<String> = (0..4).map(|number| format!("u{number}")).collect();
    [0, 1].map(|shard| {
        let found = names.iter().find(|name| home(name, SHARDS) == shard);
        found.expect("four names are on two shards").clone()
    })
}

/// What is published to a node: field by field.
fn fields(request: &Element, node: &str) -> Vec<(String, String)> {
    assert_eq!(request.attr("type"), Some("set"), "{request:?}");
    let publish = request.child("pubsub").and_then(|it| it.child("publish"));
    let publish = publish.expect("it publishes");
    assert_eq!(publish.attr("node"), Some(node));
    let notification = publish
        .child("item")
        .and_then(|it| it.child("notification"));
    let form = notification.and_then(|it| it.child("x")).expect("a form");
    let fields = form.children.iter().map(|field| {
        let var = field.attr("var").unwrap_or_default().to_owned();
        (var, field.child_text("value").to_owned())
    });
    fields.collect()
}

/// A client says its last, and the server has ended its session.
fn end(client: &mut Client) {
    client.send("</stream:stream>");
    client.rest();
}

fn answer(service: &mut Client, request: &Element, type_: &str, payload: &str) {
    let id = request.attr("id").expect("an id");
    let account = request.attr("from").expect("an address");
    service.send(&format!(
        "<iq type='{type_}' id='{id}' from='{SERVICE}' to='{account}'>{payload}</iq>"
    ));
}

#[test]
fn a_device_that_is_gone_is_told_of_messages_by_this_process_and_the_next() {
    let port = free_port();
    let (listen, more) = (format!("component = \"127.0.0.1:{port}\""), more());
    let options = Options {
        shards: SHARDS,
        users: 6,
        clique: 1,
        listen: &listen,
        more: &more,
        ..Options::default()
    };
    let mut server = Server::start(&options);
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
    let mut service = attach(address);
    for user in users() {
        let mut phone = Client::available(&server, &user, "phone");
        let account = format!("{user}@{DOMAIN}");
        let info = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
        let info = phone.ask(&account, "get", info);
        let query = info.child("query").expect("a query");
        let mut features = query.children.iter().map(|it| it.attr("var"));
        assert!(
            features.any(|it| it == Some("urn:xmpp:push:0")),
            "{query:?}"
        );
        let node = format!("node of {user}");
        let enable = format!("<enable xmlns='urn:xmpp:push:0' jid='{SERVICE}' node='{node}'/>");
        let enabled = phone.ask(&account, "set", &enable);
        assert_eq!(enabled.attr("type"), Some("result"), "{enabled:?}");
        end(&mut phone);
    }
    for round in 0..2 {
        for user in users() {
            let sender = format!("{user}-{round}");
            let mut other = Client::available(&server, "u5", &sender);
            let account = format!("{user}@{DOMAIN}");
            other.send(&format!(
                "<message to='{account}' type='chat'><body>&lt;{round}&gt;</body></message>"
            ));
            let request = service.element();
            assert_eq!(request.attr("from"), Some(&*account));
            let told = fields(&request, &format!("node of {user}"));
            let expected = [
                ("FORM_TYPE", "urn:xmpp:push:summary".to_owned()),
                ("message-count", "1".to_owned()),
                ("last-message-sender", other.jid.clone()),
                ("last-message-body", format!("<{round}>")),
            ];
            let expected = expected.map(|(var, value)| (var.to_owned(), value));
            assert_eq!(told, expected);
            answer(&mut service, &request, "result", "");
            end(&mut other);
        }
        if round == 0 {
            server.restart();
            service = attach(address);
        }
    }
}
