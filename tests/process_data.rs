//! Backup, restore, export and import as real processes, beside a server that runs.

#![allow(clippy::unwrap_used)] // helpers of tests may, as tests may

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::client::plain;
use support::server::home;
use support::{Client, DOMAIN, Element, Options, Server};

/// What a command printed: to standard output, and to standard error.
struct Said {
    success: bool,
    out: String,
    err: String,
}

/// Runs `vorpal` in a directory with a configuration.
fn vorpal(directory: &Path, arguments: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_vorpal"))
        .current_dir(directory)
        .args(arguments)
        .args(["--config", "vorpal.toml"])
        .output()
        .expect("the binary was built");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said {
        success: output.status.success(),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}

/// The same, which must succeed.
fn done(directory: &Path, arguments: &[&str]) -> String {
    let said = vorpal(directory, arguments);
    assert!(said.success, "{arguments:?}: {}{}", said.out, said.err);
    said.out
}

/// The same, which must be refused in one sentence.
fn refused(directory: &Path, arguments: &[&str]) -> String {
    let said = vorpal(directory, arguments);
    assert!(!said.success, "{arguments:?}: {}", said.out);
    assert!(!said.err.contains("panicked"), "{}", said.err);
    assert_eq!(said.err.trim().lines().count(), 1, "{}", said.err);
    said.err
}

/// A second data directory with the configuration of a server.
fn elsewhere(server: &Server, name: &str) -> PathBuf {
    let directory = server.directory().join(name);
    std::fs::create_dir(&directory).unwrap();
    let config = std::fs::read_to_string(server.directory().join("vorpal.toml")).unwrap();
    let (of_server, own) = (server.directory().join("data"), directory.join("data"));
    let config = config.replace(of_server.to_str().unwrap(), own.to_str().unwrap());
    std::fs::write(directory.join("vorpal.toml"), config).unwrap();
    directory
}

/// What another server exported, as if it had served this domain.
fn fixtures(server: &Server, of: &str) -> Vec<String> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(of);
    let to = server.directory().join(of);
    std::fs::create_dir(&to).unwrap();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(from).unwrap() {
        let name = entry.unwrap().file_name();
        let from = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/data")
            .join(of)
            .join(&name);
        let text = std::fs::read_to_string(from)
            .unwrap()
            .replace("'a.example'", "'localhost'");
        let text = text.replace("@a.example", "@localhost");
        std::fs::write(to.join(&name), text).unwrap();
        names.push(format!("{of}/{}", name.to_str().unwrap()));
    }
    names.sort();
    names
}

fn log_in(server: &Server, name: &str) -> Client {
    let (mut client, _, _) = Client::open(server);
    client.send(&plain(name, &format!("pw-{name}")));
    let answer = client.element();
    assert_eq!(answer.name, "success", "{name}: {answer:?}");
    client.open_stream();
    client.bind("one");
    client
}

/// What both fixtures have of Juliet.
fn juliet_has_what_she_had(server: &Server) {
    let mut juliet = log_in(server, "juliet");
    let roster = juliet.ask("", "get", "<query xmlns='jabber:iq:roster'/>");
    let roster = roster.child("query").expect("a roster").children.clone();
    let item = |jid: &str| roster.iter().find(|item| item.attr("jid") == Some(jid));
    assert_eq!(
        roster.len(),
        3,
        "the waiting request is no contact: {roster:?}"
    );
    let romeo = item("romeo@localhost").expect("Romeo");
    assert_eq!(romeo.attr("name"), Some("Romeo & <co> \u{1f916}"));
    assert_eq!(romeo.attr("subscription"), Some("both"));
    let mut groups: Vec<_> = romeo.children.iter().map(|group| &*group.text).collect();
    groups.sort_unstable();
    assert_eq!(groups, ["Friends", "Verona"]);
    let friar = item("friar@localhost").expect("the friar");
    assert_eq!(friar.attr("ask"), Some("subscribe"));
    assert!(item("nobody@b.example").is_some());

    let card = juliet.ask("", "get", "<vCard xmlns='vcard-temp'/>");
    let name = card.child("vCard").and_then(|card| card.child("FN"));
    assert_eq!(&*name.expect("a name").text, "Juliet Capulet");
    let query = "<query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'/></query>";
    let private = juliet.ask("", "get", query);
    let room = private
        .child("query")
        .and_then(|query| query.child("storage"));
    let room = room
        .and_then(|storage| storage.child("conference"))
        .expect("a bookmark");
    assert_eq!(room.attr("jid"), Some("orchard@rooms.example"));

    // The nurse's request waits.
    juliet.send("<presence/>");
    let request = juliet.until(|got| got.attr("type") == Some("subscribe"));
    assert_eq!(request.attr("from"), Some("nurse@localhost"));
}

#[test]
fn what_prosody_exported_comes_into_a_running_server() {
    let server = Server::start(&Options::default());
    let files = fixtures(&server, "prosody");
    let arguments: Vec<&str> = ["import"]
        .into_iter()
        .chain(files.iter().map(|file| &**file))
        .collect();
    let said = vorpal(server.directory(), &arguments);
    assert_eq!(said.out, "Imported 4 accounts.\n");
    assert!(
        said.err.contains("4 new accounts have keys"),
        "{}",
        said.err
    );
    assert!(said.success, "that is no fault of the file");
    juliet_has_what_she_had(&server);
    for name in ["romeo", "tybalt", "nurse"] {
        log_in(&server, name);
    }
    // Once more: nothing changes, and it is told.
    let again = vorpal(server.directory(), &arguments);
    assert!(
        !again.success && again.err.matches("exists already").count() == 4,
        "{}",
        again.err
    );
}

#[test]
fn what_ejabberd_exported_comes_into_a_running_server() {
    let server = Server::start(&Options::default());
    fixtures(&server, "ejabberd");
    let said = done(server.directory(), &["import", "ejabberd/main.xml"]);
    assert_eq!(said, "Imported 4 accounts.\n");
    juliet_has_what_she_had(&server);
    let mut juliet = log_in(&server, "juliet");
    let list = juliet.ask("", "get", "<blocklist xmlns='urn:xmpp:blocking'/>");
    let list = list
        .child("blocklist")
        .expect("a block list")
        .children
        .clone();
    let mut blocked: Vec<_> = list.iter().filter_map(|item| item.attr("jid")).collect();
    blocked.sort_unstable();
    assert_eq!(blocked, ["c.example", "tybalt@localhost"]);
}

#[test]
fn an_export_of_a_running_server_comes_back_byte_for_byte() {
    let server = Server::start(&Options::default());
    fixtures(&server, "ejabberd");
    done(server.directory(), &["import", "ejabberd/main.xml"]);
    let said = done(server.directory(), &["export", "first.xml"]);
    assert!(said.starts_with("Exported 8 accounts"), "{said}");
    let other = elsewhere(&server, "other");
    done(&other, &["import", "../first.xml"]);
    done(&other, &["export", "second.xml"]);
    let first = std::fs::read_to_string(server.directory().join("first.xml")).unwrap();
    let second = std::fs::read_to_string(other.join("second.xml")).unwrap();
    assert_eq!(first, second);
    for part in [
        "Neither, fair saint",
        "Angelica",
        "tybalt@localhost",
        "storage:bookmarks",
    ] {
        // ejabberd drops what a request says beside its sender.
        assert_eq!(first.contains(part), part != "Angelica", "{part}");
    }
    let left = std::fs::read_dir(server.directory().join("data")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    let passing = left
        .iter()
        .any(|name| name.to_string_lossy().ends_with(".passing"));
    assert!(!passing, "{left:?}");
}

#[test]
fn a_backup_of_a_running_server_is_restored_elsewhere() {
    let server = Server::start(&Options::default());
    fixtures(&server, "ejabberd");
    done(server.directory(), &["import", "ejabberd/main.xml"]);
    done(server.directory(), &["backup", "monday"]);
    done(server.directory(), &["export", "before.xml"]);
    done(server.directory(), &["user", "del", "juliet"]);
    let other = elsewhere(&server, "other");
    done(&other, &["restore", "../monday"]);
    done(&other, &["export", "after.xml"]);
    let before = std::fs::read_to_string(server.directory().join("before.xml")).unwrap();
    let after = std::fs::read_to_string(other.join("after.xml")).unwrap();
    assert_eq!(before, after);

    let refusal = refused(&other, &["restore", "../monday"]);
    assert!(refusal.contains("already"), "{refusal}");
    let refusal = refused(server.directory(), &["restore", "monday"]);
    assert!(refusal.contains("runs"), "{refusal}");
    std::fs::write(
        other.join("torn"),
        &std::fs::read(server.directory().join("monday")).unwrap()[..99],
    )
    .unwrap();
    let third = elsewhere(&server, "third");
    let refusal = refused(&third, &["restore", "../other/torn"]);
    assert!(refusal.contains("no usable backup"), "{refusal}");
}

#[test]
fn a_backup_and_an_export_replace_files_and_nothing_else() {
    let server = Server::start(&Options::default());
    let at = |name: &str| server.directory().join(name);
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    std::fs::create_dir(at("elsewhere")).unwrap();
    std::os::unix::fs::symlink("nowhere/file", at("dangling")).unwrap();
    for command in ["backup", "export"] {
        for name in ["socket", "elsewhere", "dangling"] {
            let refusal = refused(server.directory(), &[command, name]);
            assert!(refusal.contains(name), "{command}: {refusal}");
        }
        std::fs::write(at("elsewhere/file"), "old").unwrap();
        let link = format!("{command}-link");
        std::os::unix::fs::symlink("elsewhere/file", at(&link)).unwrap();
        done(server.directory(), &[command, &link]);
        assert!(at(&link).is_symlink());
        assert_ne!(std::fs::read(at("elsewhere/file")).unwrap(), b"old");
    }
    assert!(at("dangling").is_symlink() && !at("socket").is_file());
    let left = std::fs::read_dir(at("elsewhere")).unwrap().count();
    assert_eq!(left, 1, "what has a passing name is gone");
}

#[test]
fn a_session_has_ended_in_a_restored_store_and_what_it_held_waits() {
    let mut server = Server::start(&Options::default());
    let enable = |client: &mut Client| {
        client.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        let enabled = client.until(|element| element.name == "enabled");
        enabled.attr("id").expect("it can be resumed").to_owned()
    };
    let send = |client: &mut Client, name: &str| {
        for number in 0..10 {
            client.send(&format!(
                "<message type='chat' id='{name}{number}' to='u1@{DOMAIN}/there'>\
                 <body>hi</body></message>"
            ));
        }
    };
    let hear = |client: &mut Client, early: Vec<Element>, name: &str, delays: usize| {
        let is_message = |element: &Element| element.name == "message";
        let mut early = early.into_iter().filter(is_message);
        for number in 0..10 {
            let message = early.next().unwrap_or_else(|| client.until(is_message));
            assert_eq!(message.attr("id"), Some(&*format!("{name}{number}")));
            let delay = |child: &&Element| child.name == "delay";
            assert_eq!(message.children.iter().filter(delay).count(), delays);
        }
    };
    let mut receiver = Client::available(&server, "u1", "there");
    enable(&mut receiver);
    let mut sender = Client::log_in(&server, "u0", "here");
    let id = enable(&mut sender);
    send(&mut sender, "old");
    hear(&mut receiver, Vec::new(), "old", 0);
    // The backup has what took effect of the sender's stanzas, but not how many are acknowledged.
    done(server.directory(), &["backup", "monday"]);
    sender.send("<r xmlns='urn:xmpp:sm:3'/>");
    sender.until(|element| element.name == "a" && element.attr("h") == Some("10"));
    server.terminate();
    server.wait();
    std::fs::remove_dir_all(server.directory().join("data")).unwrap();
    let said = done(server.directory(), &["restore", "monday"]);
    let ended = "Ended 2 sessions; 10 messages of theirs wait offline.\n";
    assert!(said.ends_with(ended), "{said}");
    server.start_again();

    let mut sender = Client::authenticated(&server, "u0");
    sender.send(&format!(
        "<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>"
    ));
    let failed = sender.element();
    assert_eq!(failed.name, "failed");
    assert!(failed.child("item-not-found").is_some(), "{failed:?}");
    sender.bind("here");
    enable(&mut sender);
    let mut receiver = Client::log_in(&server, "u1", "there");
    receiver.send("<presence/>");
    // Some of what waited may come before the server has answered.
    let early = receiver.settle();
    send(&mut sender, "new");
    hear(&mut receiver, early, "old", 1);
    hear(&mut receiver, Vec::new(), "new", 0);
}

#[test]
fn an_account_that_no_line_takes_is_left_out_and_comes_in_without_the_server() {
    let mut server = Server::start(&Options::default());
    let user = |name: &str, size: usize| {
        let text = "x".repeat(size);
        format!(
            "<user name='{name}' password='pw-{name}'><query xmlns='jabber:iq:private'>\
             <storage xmlns='storage:bookmarks'>{text}</storage></query></user>"
        )
    };
    let users = [user("juliet", 9), user("large", 8 << 20), user("romeo", 9)].concat();
    let text = format!(
        "<server-data xmlns='urn:xmpp:pie:0'><host jid='localhost'>{users}</host></server-data>"
    );
    std::fs::write(server.directory().join("large.xml"), text).unwrap();
    let said = vorpal(server.directory(), &["import", "large.xml"]);
    assert_eq!(said.out, "Imported 2 accounts.\n", "{}", said.err);
    assert!(!said.success, "not everything came in");
    assert_eq!(said.err.lines().count(), 1, "{}", said.err);
    assert!(
        said.err.contains("large@localhost was left out"),
        "{}",
        said.err
    );
    for name in ["juliet", "romeo"] {
        log_in(&server, name);
    }
    server.terminate();
    server.wait();
    let again = vorpal(server.directory(), &["import", "large.xml"]);
    assert_eq!(again.out, "Imported 1 accounts.\n", "{}", again.err);
}

#[test]
fn a_private_document_whose_name_is_too_long_is_left_out_and_told() {
    let mut server = Server::start(&Options::default());
    let long = "n".repeat(70_000);
    let text = format!(
        "<server-data xmlns='urn:xmpp:pie:0'><host jid='localhost'>\
         <user name='juliet' password='pw-juliet'><query xmlns='jabber:iq:private'>\
         <{long} xmlns='n'/></query></user></host></server-data>"
    );
    std::fs::write(server.directory().join("long.xml"), text).unwrap();
    let other = elsewhere(&server, "other");
    for (directory, file) in [(server.directory(), "long.xml"), (&other, "../long.xml")] {
        let said = vorpal(directory, &["import", file]);
        assert_eq!(said.out, "Imported 1 accounts.\n", "{}", said.err);
        assert!(said.err.contains("juliet@localhost"), "{}", said.err);
        assert!(said.err.contains("too long"), "{}", said.err);
    }
    server.restart();
    log_in(&server, "juliet");
}

#[test]
fn messages_that_may_not_wait_are_left_out_of_an_import_and_told() {
    let server = Server::start(&Options::default());
    let message = "<message from='r@b.example/x'><body>one</body></message>";
    let user = |name: &str, count: usize| {
        let messages = message.repeat(count);
        format!(
            "<user name='{name}' password='pw-{name}'><offline-messages>{messages}\
             </offline-messages></user>"
        )
    };
    let users = user("juliet", 1003) + &user("romeo", 1000);
    let text = format!(
        "<server-data xmlns='urn:xmpp:pie:0'><host jid='localhost'>{users}</host></server-data>"
    );
    std::fs::write(server.directory().join("many.xml"), text).unwrap();
    let other = elsewhere(&server, "other");
    for (directory, file) in [(server.directory(), "many.xml"), (&other, "../many.xml")] {
        let said = vorpal(directory, &["import", file]);
        assert_eq!(said.out, "Imported 2 accounts.\n");
        assert!(!said.success, "not everything came in");
        assert_eq!(
            said.err,
            "vorpal: juliet@localhost: 3 of its waiting messages were left out; 1000 messages of \
             2097152 bytes together may wait for one account.\n"
        );
        let again = vorpal(directory, &["import", file]);
        assert!(
            !again.err.contains("left out"),
            "nothing came in: {}",
            again.err
        );
    }
    let mut juliet = log_in(&server, "juliet");
    juliet.send("<presence/>");
    for _ in 0..1000 {
        juliet.until(|got| got.name == "message");
    }
}

/// Its sender was told that it is kept, and no reader of ours takes that prefix.
#[test]
fn a_message_with_an_element_of_the_prefix_xml_is_exported_without_that() {
    let server = Server::start(&Options::default());
    fixtures(&server, "ejabberd");
    done(server.directory(), &["import", "ejabberd/main.xml"]);
    let mut juliet = log_in(&server, "juliet");
    let message = "<message to='romeo@localhost' type='chat' id='e1'><body>kept</body>\
                   <x xmlns='urn:x'><xml:y>passed over</xml:y></x></message>";
    juliet.send("<enable xmlns='urn:xmpp:sm:3'/>");
    juliet.until(|element| element.name == "enabled");
    juliet.send(&format!("{message}<r xmlns='urn:xmpp:sm:3'/>"));
    juliet.until(|element| element.name == "a" && element.attr("h") == Some("1"));
    let said = vorpal(server.directory(), &["export", "all.xml"]);
    assert!(!said.success, "{}", said.out);
    let told = "romeo@localhost: left out a part of a waiting message";
    assert!(said.err.contains(told), "{}", said.err);
    let text = std::fs::read_to_string(server.directory().join("all.xml")).unwrap();
    assert!(text.contains("<body>kept</body><x xmlns='urn:x'/>"));
    let other = elsewhere(&server, "other");
    done(&other, &["import", "../all.xml"]);
    done(&other, &["export", "again.xml"]);
    let again = std::fs::read_to_string(other.join("again.xml")).unwrap();
    assert_eq!(again, text);

    std::fs::write(
        other.join("newer.xml"),
        text.replace("version='1.0'", "version='1.1'"),
    )
    .unwrap();
    let refusal = refused_import(&other, "newer.xml");
    assert!(refusal.contains("newer.xml:1: "), "{refusal}");
    assert!(refusal.contains("only 1.0 is read"), "{refusal}");
}

/// The refusal of an import, which says besides that nothing came in.
fn refused_import(directory: &Path, file: &str) -> String {
    let said = vorpal(directory, &["import", file]);
    assert!(!said.success, "{}", said.out);
    assert!(said.out.contains("Imported 0 accounts"), "{}", said.out);
    said.err
}

/// Also those that another shard answers.
#[test]
fn a_client_gets_all_the_cards_that_it_asks_for_at_once() {
    const CARDS: usize = 100;
    let server = Server::start(&Options {
        shards: 2,
        ..Options::default()
    });
    let photo = "A".repeat(125 << 10);
    let card = format!("<vCard xmlns='vcard-temp'><NOTE>{photo}</NOTE></vCard>");
    let names = ["u0", "u1", "u2", "u3"];
    let is_elsewhere = |name: &&str| home(name, 2) != home(names[0], 2);
    assert!(names.iter().any(is_elsewhere));
    let mut owner = Client::log_in(&server, names[0], "x");
    assert_eq!(owner.ask("", "set", &card).attr("type"), Some("result"));
    for (name, is_managed) in names[1..].iter().flat_map(|it| [(it, false), (it, true)]) {
        let mut client = Client::log_in(&server, name, "x");
        if is_managed {
            client.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
            client.until(|it| it.name == "enabled");
        }
        let request =
            format!("<iq type='get' id='v' to='u0@{DOMAIN}'><vCard xmlns='vcard-temp'/></iq>");
        client.send(&request.repeat(CARDS));
        let mut answers = 0;
        while answers < CARDS {
            let element = client.element();
            match &*element.name {
                "r" => client.send(&format!("<a xmlns='urn:xmpp:sm:3' h='{answers}'/>")),
                "iq" => {
                    assert_eq!(element.attr("type"), Some("result"));
                    answers += 1;
                }
                // How far its requests are settled, while they wait for storage.
                "a" => {}
                _ => panic!("{element:?}"),
            }
        }
    }
}
