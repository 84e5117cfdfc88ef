//! What the built server says of itself and of the services beside it, over real sockets.

mod support;

use support::client::plain;
use support::{Client, DOMAIN, Element, Options, PASSWORD, STANZA_ERRORS, Server};

const INFO: &str = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
const SERVICES: &str = "<services xmlns='urn:xmpp:extdisco:2'/>";

/// The features that disco#info has.
fn features(info: &Element) -> Vec<&str> {
    let query = info.child("query").expect("a disco#info result");
    let all = query.children.iter();
    all.filter_map(|child| child.attr("var")).collect()
}

#[test]
fn the_services_of_the_operator_are_told_to_every_user_with_credentials_of_his_own() {
    let more = "[[external_service]]\ntype = \"turn\"\nhost = \"127.0.0.1\"\nsecret = \"north\"\n";
    let server = Server::start(&Options {
        more,
        ..Options::default()
    });
    let told = ["u0", "u1"].map(|user| {
        let mut client = Client::log_in(&server, user, "caller");
        assert!(features(&client.ask(DOMAIN, "get", INFO)).contains(&"urn:xmpp:extdisco:2"));
        let answer = client.ask(DOMAIN, "get", SERVICES);
        let services = answer.child("services").expect("a result");
        assert_eq!(services.children.len(), 1, "{answer:?}");
        let service = &services.children[0];
        let of = |name: &str| service.attr(name).unwrap_or_default().to_owned();
        assert_eq!((of("type"), of("port")), ("turn".into(), "3478".into()));
        assert_eq!(
            (of("transport"), of("restricted")),
            ("udp".into(), "true".into())
        );
        assert!(of("expires").ends_with('Z') && !of("password").is_empty());
        of("username")
    });
    let parts = told
        .each_ref()
        .map(|name| name.split_once(':').expect("two parts").1);
    assert_ne!(parts[0], parts[1]);
}

#[test]
fn without_services_none_are_announced_or_told() {
    let server = Server::start(&Options::default());
    let mut client = Client::log_in(&server, "u0", "caller");
    assert!(!features(&client.ask(DOMAIN, "get", INFO)).contains(&"urn:xmpp:extdisco:2"));
    let answer = client.ask(DOMAIN, "get", SERVICES);
    assert_eq!(answer.condition(STANZA_ERRORS), Some("service-unavailable"));
}

#[test]
fn the_stream_features_name_a_node_that_has_what_discovery_answers() {
    let contact = "[contact]\nabuse = [\"https://localhost/?a&b\"]\n";
    let nodes = ["", contact].map(|more| {
        let server = Server::start(&Options {
            more,
            ..Options::default()
        });
        let (mut client, _, before) = Client::open(&server);
        assert!(before.child("c").is_none(), "{before:?}");
        client.send(&plain("u0", PASSWORD));
        assert_eq!(client.element().name, "success");
        let (header, offered) = client.open_stream();
        // XEP-0115 6.3: whom to ask is in the header.
        assert_eq!(header.attr("from"), Some(DOMAIN));
        let told = offered.child("c").expect("capabilities").clone();
        assert!(told.is("c", "http://jabber.org/protocol/caps"));
        assert_eq!(told.attr("hash"), Some("sha-1"));
        client.bind("asker");
        let part = |name| told.attr(name).expect("an attribute");
        let node = format!("{}#{}", part("node"), part("ver"));
        let by_node = INFO.replace("/>", &format!(" node='{node}'/>"));
        let (all, answer) = (
            client.ask(DOMAIN, "get", INFO),
            client.ask(DOMAIN, "get", &by_node),
        );
        let query = answer.child("query").expect("a disco#info result");
        assert_eq!(query.attr("node"), Some(&*node));
        assert_eq!(
            query.children,
            all.child("query").expect("a result").children
        );
        assert!(features(&answer).contains(&"http://jabber.org/protocol/caps"));
        // XEP-0157 2.
        let form = query.child("x").map(|x| {
            let fields = x.children.iter();
            let facts = fields.map(|it| (it.attr("var").unwrap_or(""), it.child_text("value")));
            facts.collect::<Vec<_>>()
        });
        let expected = [
            ("FORM_TYPE", "http://jabber.org/network/serverinfo"),
            ("abuse-addresses", "https://localhost/?a&b"),
        ];
        match more {
            "" => assert_eq!(form, None),
            _ => assert_eq!(form.as_deref(), Some(&expected[..])),
        }
        node
    });
    assert_ne!(nodes[0], nodes[1], "contacts are part of it");
}
