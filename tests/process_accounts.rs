//! What the account commands mean to clients: who can log in afterwards, and whose stream ends.

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use sim::scram::Scram;
use support::client::plain;
use support::{Client, DOMAIN, Element, Options, PASSWORD, Server};

/// Runs `vorpal` with the configuration of the server.
fn vorpal(server: &Server, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vorpal"))
        .current_dir(server.directory())
        .args(arguments)
        .args(["--config", "vorpal.toml"])
        .output()
        .expect("the binary was built")
}

/// Runs `vorpal user ..` beside the server; it must succeed.
fn user(server: &Server, arguments: &[&str]) {
    let output = vorpal(server, &[&["user"], arguments].concat());
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complaint}");
}

/// What the server says to a log-in with PLAIN.
fn log_in(server: &Server, name: &str, password: &str) -> Element {
    let (mut client, _, _) = Client::open(server);
    client.send(&plain(name, password));
    client.element()
}

fn succeeds(server: &Server, name: &str, password: &str) {
    let answer = log_in(server, name, password);
    assert_eq!(answer.name, "success", "{name}: {answer:?}");
}

fn fails(server: &Server, name: &str, password: &str) {
    let answer = log_in(server, name, password);
    assert_eq!(answer.name, "failure", "{name}: {answer:?}");
    let condition = answer.condition("urn:ietf:params:xml:ns:xmpp-sasl");
    assert_eq!(condition, Some("not-authorized"), "{name}: {answer:?}");
}

#[test]
fn deleting_an_account_ends_its_streams_and_keeps_it_out() {
    let server = Server::start(&Options::default());
    let mut gone = Client::available(&server, "u0", "one");
    let mut stays = Client::available(&server, "u1", "one");
    user(&server, &["del", "u0"]);
    let condition = gone.stream_error();
    assert_eq!(condition, "not-authorized");
    fails(&server, "u0", PASSWORD);
    stays.settle();
    // The next owner of the name starts with nothing.
    user(&server, &["add", "u0", "--password", "other"]);
    fails(&server, "u0", PASSWORD);
    let (mut next, _, _) = Client::open(&server);
    next.send(&plain("u0", "other"));
    assert_eq!(next.element().name, "success");
    next.open_stream();
    next.bind("one");
    let answer = next.ask("", "get", "<query xmlns='jabber:iq:roster'/>");
    assert_eq!(answer.child("query").expect("a roster").children, []);
}

#[test]
fn who_authenticated_before_his_account_was_deleted_does_not_bind_its_next_owners() {
    for shards in [1, 2] {
        let server = Server::start(&Options {
            shards,
            ..Options::default()
        });
        let mut old = Client::authenticated(&server, "u0");
        user(&server, &["del", "u0"]);
        user(&server, &["add", "u0", "--password", "other"]);
        let mut sender = Client::available(&server, "u1", "one");
        sender.send("<message to='u0@localhost' type='chat' id='m'><body>new</body></message>");
        sender.settle();
        assert_eq!(old.stream_error(), "not-authorized");
        let (mut next, _, _) = Client::open(&server);
        next.send(&plain("u0", "other"));
        assert_eq!(next.element().name, "success");
        next.open_stream();
        next.bind("one");
        next.send("<presence/>");
        // It waited in storage, and comes when that has given it.
        while next.element().attr("id") != Some("m") {}
    }
}

/// What a client's roster says of a contact.
fn subscription(client: &mut Client, contact: &str) -> Option<String> {
    let answer = client.ask("", "get", "<query xmlns='jabber:iq:roster'/>");
    let query = answer.child("query").expect("a roster");
    let contact = format!("{contact}@{DOMAIN}");
    let mut items = query.children.iter();
    let item = items.find(|item| item.attr("jid") == Some(&contact))?;
    item.attr("subscription").map(str::to_owned)
}

/// A name that was free gets an owner, to whom `u1` shows nothing.
fn gets_no_presence(server: &Server, name: &str, other: &mut Client) {
    user(server, &["add", name, "--password", PASSWORD]);
    let mut next = Client::available(server, name, "one");
    assert_eq!(subscription(&mut next, "u1"), None);
    other.send("<presence><status>at home</status></presence>");
    let heard = next.settle_with(other);
    let of_other = |heard: &&Element| {
        heard.name == "presence"
            && heard
                .attr("from")
                .is_some_and(|from| from.starts_with("u1@"))
    };
    assert_eq!(heard.iter().find(of_other), None);
}

#[test]
fn no_contact_has_a_subscription_with_an_account_that_was_deleted() {
    for shards in [1, 2] {
        let server = Server::start(&Options {
            shards,
            users: 4,
            clique: 4,
            ..Options::default()
        });
        let mut gone = Client::available(&server, "u0", "one");
        let mut stays = Client::available(&server, "u1", "one");
        assert_eq!(subscription(&mut stays, "u0").as_deref(), Some("both"));
        user(&server, &["del", "u0"]);
        assert_eq!(gone.stream_error(), "not-authorized");
        let heard = stays.settle();
        for type_ in ["unsubscribe", "unsubscribed"] {
            let is_it = |it: &Element| it.name == "presence" && it.attr("type") == Some(type_);
            assert!(heard.iter().any(is_it), "{type_}: {heard:?}");
        }
        // It stays in the rosters of those who were there and of those who were not.
        assert_eq!(subscription(&mut stays, "u0").as_deref(), Some("none"));
        let mut away = Client::log_in(&server, "u2", "one");
        assert_eq!(subscription(&mut away, "u0").as_deref(), Some("none"));
        gets_no_presence(&server, "u0", &mut stays);
    }
}

#[test]
fn what_is_deleted_while_no_server_runs_has_no_subscriptions_either() {
    let mut server = Server::start(&Options {
        users: 4,
        clique: 4,
        ..Options::default()
    });
    let mut client = Client::log_in(&server, "u1", "one");
    // Rosters have numbers from their first change on.
    let name = "<query xmlns='jabber:iq:roster'><item jid='u2@localhost' name='two'/></query>";
    client.ask("", "set", name);
    let answer = client.ask("", "get", "<query xmlns='jabber:iq:roster' ver=''/>");
    let version = answer.child("query").and_then(|query| query.attr("ver"));
    let version = version.expect("rosters have versions").to_owned();
    server.terminate();
    server.wait();
    user(&server, &["del", "u0"]);
    server.start_again();
    let mut stays = Client::log_in(&server, "u1", "one");
    // Whoever has the roster from before hears what changed.
    let query = format!("<query xmlns='jabber:iq:roster' ver='{version}'/>");
    assert_eq!(stays.ask("", "get", &query).child("query"), None);
    let pushes = stays.settle();
    let item = |push: &Element| push.child("query")?.child("item").cloned();
    let [item] = &pushes.iter().filter_map(item).collect::<Vec<_>>()[..] else {
        panic!("one contact changed: {pushes:?}")
    };
    let said = ["jid", "subscription"].map(|name| item.attr(name));
    assert_eq!(said, [Some("u0@localhost"), Some("none")]);
    gets_no_presence(&server, "u0", &mut stays);
}

#[test]
fn whoever_sent_what_waits_for_an_account_hears_when_it_is_deleted() {
    let server = Server::start(&Options::default());
    let mut sender = Client::available(&server, "u1", "one");
    sender.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    assert_eq!(sender.element().name, "enabled");
    for id in ["first", "second"] {
        let to = format!("to='u0@{DOMAIN}' id='{id}'");
        sender.send(&format!(
            "<message type='chat' {to}><body>x</body></message>"
        ));
    }
    // Until both are stored, and so acknowledged.
    loop {
        sender.send("<r xmlns='urn:xmpp:sm:3'/>");
        let told = sender.element();
        if told.name == "a" && told.attr("h") == Some("2") {
            break;
        }
    }
    user(&server, &["del", "u0"]);
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let error = sender.element();
        if error.name == "message" {
            assert_eq!(error.attr("type"), Some("error"), "{error:?}");
            heard.extend(error.attr("id").map(str::to_owned));
        }
    }
    assert_eq!(heard, ["first", "second"]);
}

#[test]
fn an_added_account_can_log_in_at_once_and_after_a_restart() {
    let mut server = Server::start(&Options::default());
    fails(&server, "juliet", "r0m30");
    user(&server, &["add", "juliet", "--password", "r0m30"]);
    succeeds(&server, "juliet", "r0m30");
    fails(&server, "juliet", "r0m31");
    server.restart();
    succeeds(&server, "juliet", "r0m30");
}

#[test]
fn a_new_password_counts_at_once_and_who_was_in_by_the_old_one_is_in_no_more() {
    let server = Server::start(&Options::default());
    let (mut first, mut second) = (
        Client::available(&server, "u0", "one"),
        Client::available(&server, "u1", "one"),
    );
    user(&server, &["passwd", "u0", "--password", "n3w"]);
    assert_eq!(first.stream_error(), "reset");
    fails(&server, "u0", PASSWORD);
    succeeds(&server, "u0", "n3w");
    second.settle();
    user(&server, &["revoke", "u1"]);
    assert_eq!(second.stream_error(), "reset");
    succeeds(&server, "u1", PASSWORD);
}

#[test]
fn an_exchange_that_began_with_an_old_password_does_not_succeed_with_it() {
    let server = Server::start(&Options::default());
    for (user_name, is_changed) in [("u0", false), ("u1", true)] {
        let (mut client, _, _) = Client::open(&server);
        let (mut scram, first) = Scram::start(user_name, PASSWORD, "n0nce", None);
        let sasl = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'";
        client.send(&format!(
            "<auth {sasl} mechanism='SCRAM-SHA-256'>{first}</auth>"
        ));
        let challenge = client.element();
        assert_eq!(challenge.name, "challenge", "{challenge:?}");
        if is_changed {
            user(&server, &["passwd", user_name, "--password", "n3w"]);
        }
        let response = scram.respond(&challenge.text).expect("a challenge");
        client.send(&format!("<response {sasl}>{response}</response>"));
        let answer = client.element();
        let expected = if is_changed { "failure" } else { "success" };
        assert_eq!(answer.name, expected, "{answer:?}");
    }
    succeeds(&server, "u1", "n3w");
}

#[test]
fn imported_keys_of_every_form_let_their_password_in() {
    // The first two are the examples of RFC 5802 5 and RFC 7677 3; the third was derived with
    // Python's hashlib from a salt as Prosody writes it. The password of all is `pencil`.
    let lines = [
        "sha1:SCRAM-SHA-1$4096:QSXCR+Q6sek8bf92$6dlGYMOdZcOPutkcNY8U2g7vK9Y=:\
         D+CSWLOshSulAsxiupA+qs2/fTE=",
        "sha256:SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
         WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
         wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        "prosody:{SCRAM-SHA-1}10000:2b6c1c3e-9b6a-4f57-8f0d-5f1d0a4b7a11:\
         1a5780baaa24729511b0b301f1d4ab94b77adab2:a3488b0bcee5c4d6fe9b4a8d344610cff41831a9",
        "text:pencil",
    ];
    let server = Server::start(&Options::default());
    let file = Path::new(server.directory()).join("users");
    std::fs::write(&file, lines.join("\n")).expect("the directory is writable");
    user(&server, &["import", "users"]);
    for name in ["sha1", "sha256", "prosody", "text"] {
        succeeds(&server, name, "pencil");
        fails(&server, name, "Pencil");
    }
}

/// The SASL mechanisms that the server offers.
fn offered(server: &Server) -> Vec<String> {
    let (_, _, features) = Client::open(server);
    let mechanisms = features.child("mechanisms").expect("a list");
    let names = mechanisms.children.iter();
    names.map(|mechanism| mechanism.text.to_string()).collect()
}

#[test]
fn mechanisms_go_when_some_account_cannot_use_them_and_come_back_after_that() {
    let mut server = Server::start(&Options::default());
    let all = offered(&server);
    let keyless = "<server-data xmlns='urn:xmpp:pie:0'><host jid='localhost'>\
                   <user name='bare'/><user name='text' password='pw'/></host></server-data>";
    let file = Path::new(server.directory()).join("keyless.xml");
    std::fs::write(&file, keyless).expect("the directory is writable");
    let sha1 = "old:SCRAM-SHA-1$4096:QSXCR+Q6sek8bf92$6dlGYMOdZcOPutkcNY8U2g7vK9Y=:\
                D+CSWLOshSulAsxiupA+qs2/fTE=";
    std::fs::write(file.with_file_name("users"), sha1).expect("the directory is writable");

    // Nobody logs in to an account without keys; it disturbs neither the others of its file.
    let output = vorpal(&server, &["import", "keyless.xml"]);
    let said = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, "Imported 2 accounts.\n", "{told}");
    assert!(told.contains("bare@localhost has no password"), "{told}");
    assert!(!output.status.success(), "not everything came in");
    succeeds(&server, "text", "pw");
    fails(&server, "bare", "pw");
    server.restart();
    assert_eq!(offered(&server), all);

    user(&server, &["import", "users"]);
    server.restart();
    assert_eq!(offered(&server), ["SCRAM-SHA-1", "PLAIN"]);
    user(&server, &["passwd", "old", "--password", "n3w"]);
    server.restart();
    assert_eq!(offered(&server), all);
    succeeds(&server, "old", "n3w");
    user(&server, &["passwd", "bare", "--password", "n3w"]);
    succeeds(&server, "bare", "n3w");
}

#[test]
fn nothing_is_held_while_a_password_is_asked_for() {
    let mut server = Server::start(&Options::default());
    server.terminate();
    server.wait();
    let mut asking = Command::new(env!("CARGO_BIN_EXE_vorpal"))
        .current_dir(server.directory())
        .args(["user", "add", "juliet", "--config", "vorpal.toml"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    // As long as it would need to lock the store.
    std::thread::sleep(Duration::from_millis(500));
    user(&server, &["list"]);
    let mut input = asking.stdin.take().expect("it is piped");
    input.write_all(b"r0m30\n").expect("it still asks");
    let output = asking.wait_with_output().expect("the child is ours");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, "Added juliet@localhost.\n");
}

#[test]
fn accounts_made_beside_a_running_server_know_their_clique() {
    let server = Server::start(&Options::default());
    user(
        &server,
        &[
            "make",
            "v%d",
            "--count",
            "7",
            "--password",
            PASSWORD,
            "--clique",
            "3",
        ],
    );
    for (name, expected) in [("v4", &["v3", "v5"][..]), ("v6", &[])] {
        let mut client = Client::log_in(&server, name, "one");
        let answer = client.ask("", "get", "<query xmlns='jabber:iq:roster'/>");
        let query = answer.child("query").expect("a roster");
        let mut contacts: Vec<&str> = Vec::new();
        for item in &query.children {
            assert_eq!(item.attr("subscription"), Some("both"), "{item:?}");
            contacts.extend(item.attr("jid"));
        }
        contacts.sort_unstable();
        let expected: Vec<String> = expected
            .iter()
            .map(|local| format!("{local}@{DOMAIN}"))
            .collect();
        assert_eq!(contacts, expected, "{name}");
    }
}
