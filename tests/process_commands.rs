//! Administration by ad-hoc commands (XEP-0050, XEP-0133), over real sockets, and where outages are
//! told of (XEP-0455).

mod support;

use support::client::plain;
use support::{Client, DOMAIN, Element, Options, PASSWORD, STANZA_ERRORS, Server};

const COMMANDS: &str = "http://jabber.org/protocol/commands";
const ADMIN: &str = "http://jabber.org/protocol/admin";

/// `u0` administers the server.
fn start() -> Server {
    Server::start(&Options {
        shards: 2,
        clique: 1,
        more: "[admin]\njids = [\"u0@localhost\"]\n\
               [outage]\nurls = [\"https://status.example/?a&b\"]\n",
        ..Options::default()
    })
}

fn command(client: &mut Client, node: &str, attributes: &str, inner: &str) -> Element {
    let payload =
        format!("<command xmlns='{COMMANDS}' node='{ADMIN}#{node}' {attributes}>{inner}</command>");
    client.ask(DOMAIN, "set", &payload)
}

/// The answer of a command after its form, filled in with these fields.
fn submit(client: &mut Client, node: &str, fields: &[(&str, &str)]) -> Element {
    let shown = command(client, node, "", "");
    let shown = shown.child("command").expect("a form is shown");
    assert_eq!(shown.attr("status"), Some("executing"), "{shown:?}");
    let id = shown.attr("sessionid").expect("it has an id");
    let all = std::iter::once(&("FORM_TYPE", ADMIN)).chain(fields);
    let all: String = all
        .map(|(var, value)| format!("<field var='{var}'><value>{value}</value></field>"))
        .collect();
    let inner = format!("<x xmlns='jabber:x:data' type='submit'>{all}</x>");
    command(client, node, &format!("sessionid='{id}'"), &inner)
}

fn is_completed(answer: &Element) -> bool {
    let command = answer.child("command");
    command.is_some_and(|it| it.attr("status") == Some("completed"))
}

/// What an account's log-in by PLAIN comes to.
fn log_in(server: &Server, user: &str, password: &str) -> String {
    let (mut client, _, _) = Client::open(server);
    client.send(&plain(user, password));
    client.element().name.to_string()
}

/// The only value of a field in an answer.
fn value(answer: &Element, var: &str) -> String {
    let x = answer.child("command").and_then(|it| it.child("x"));
    let mut fields = x.expect("it has results").children.iter();
    let field = fields.find(|it| it.attr("var") == Some(var));
    field.expect("the field").child_text("value").to_owned()
}

#[test]
fn an_administrator_keeps_the_accounts_of_all_shards_from_his_client() {
    let server = start();
    let mut admin = Client::log_in(&server, "u0", "desk");
    let mut user = Client::log_in(&server, "u1", "x");
    let refused = command(&mut user, "add-user", "", "");
    assert_eq!(refused.condition(STANZA_ERRORS), Some("forbidden"));
    let names: Vec<String> = (0..4).map(|number| format!("new{number}")).collect();
    for name in &names {
        let jid = format!("{name}@{DOMAIN}");
        let fields = [
            ("accountjid", &*jid),
            ("password", PASSWORD),
            ("password-verify", PASSWORD),
        ];
        let answer = submit(&mut admin, "add-user", &fields);
        assert!(is_completed(&answer), "{answer:?}");
        let again = submit(&mut admin, "add-user", &fields);
        assert_eq!(again.condition(STANZA_ERRORS), Some("conflict"));
    }
    let count = command(&mut admin, "get-registered-users-num", "", "");
    assert_eq!(value(&count, "registeredusersnum"), "8");
    for name in &names {
        let jid = format!("{name}@{DOMAIN}");
        let mut owner = Client::log_in(&server, name, "x");
        owner.send("<presence/>");
        owner.until(|it| it.name == "presence");
        let count = command(&mut admin, "get-online-users-num", "", "");
        assert_eq!(value(&count, "onlineusersnum"), "1");
        let stats = submit(&mut admin, "get-user-stats", &[("accountjid", &jid)]);
        assert_eq!(value(&stats, "ipaddresses"), "127.0.0.1");
        let announced = submit(&mut admin, "announce", &[("announcement", "Hello")]);
        assert!(is_completed(&announced), "{announced:?}");
        let message = owner.until(|it| it.name == "message");
        assert_eq!(message.child_text("body"), "Hello");
        let change = [("accountjid", &*jid), ("password", "other")];
        let changed = submit(&mut admin, "change-user-password", &change);
        assert!(is_completed(&changed), "{changed:?}");
        assert_eq!(owner.stream_error(), "reset");
        assert_eq!(log_in(&server, name, PASSWORD), "failure");
        assert_eq!(log_in(&server, name, "other"), "success");
        let deleted = submit(&mut admin, "delete-user", &[("accountjids", &jid)]);
        assert!(is_completed(&deleted), "{deleted:?}");
        let again = submit(&mut admin, "delete-user", &[("accountjids", &jid)]);
        assert_eq!(again.condition(STANZA_ERRORS), Some("item-not-found"));
    }
    let count = command(&mut admin, "get-registered-users-num", "", "");
    assert_eq!(value(&count, "registeredusersnum"), "4");
}

#[test]
fn a_command_ends_the_process_in_order_after_it_was_announced() {
    let mut server = start();
    let mut admin = Client::log_in(&server, "u0", "desk");
    let mut user = Client::log_in(&server, "u1", "x");
    user.send("<presence/>");
    user.until(|it| it.name == "presence");
    let fields = [("delay", "0"), ("announcement", "Good night")];
    let answer = submit(&mut admin, "shutdown", &fields);
    assert!(is_completed(&answer), "{answer:?}");
    let message = user.until(|it| it.name == "message");
    assert_eq!(message.child_text("body"), "Good night");
    assert_eq!(user.stream_error(), "system-shutdown");
    assert!(server.wait().success());
}

/// XEP-0455 2.1
#[test]
fn discovery_tells_where_outages_are_told_of() {
    let server = start();
    let mut user = Client::log_in(&server, "u1", "x");
    let info = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
    let answer = user.ask(DOMAIN, "get", info);
    let query = answer.child("query").expect("a result");
    let forms = query.children.iter().filter(|it| it.name == "x");
    let forms: Vec<Vec<(&str, &str)>> = forms
        .map(|form| {
            let fields = form.children.iter();
            fields
                .map(|it| (it.attr("var").unwrap_or_default(), it.child_text("value")))
                .collect()
        })
        .collect();
    let expected = [
        ("FORM_TYPE", "urn:xmpp:sos:0"),
        ("external-status-addresses", "https://status.example/?a&b"),
    ];
    assert_eq!(forms, [expected]);
}
