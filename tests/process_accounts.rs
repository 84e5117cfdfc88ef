//! What the account commands mean to clients: who can log in afterwards, and whose stream ends.

mod support;

use std::path::Path;
use std::process::Command;

use support::client::plain;
use support::{Client, DOMAIN, Element, Options, PASSWORD, Server};

/// Runs `vorpal user ..` beside the server; it must succeed.
fn user(server: &Server, arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_vorpal"))
        .current_dir(server.directory())
        .arg("user")
        .args(arguments)
        .args(["--config", "vorpal.toml"])
        .output()
        .expect("the binary was built");
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
fn a_new_password_counts_at_once_and_the_old_one_no_more() {
    let server = Server::start(&Options::default());
    let mut connected = Client::available(&server, "u0", "one");
    user(&server, &["passwd", "u0", "--password", "n3w"]);
    fails(&server, "u0", PASSWORD);
    succeeds(&server, "u0", "n3w");
    connected.settle();
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
