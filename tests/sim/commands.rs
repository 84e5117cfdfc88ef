//! Ad-hoc commands (XEP-0050) and the administration of the server by them (XEP-0133).

use sim::{ClientId, Element, Faults, World};
use stanza::jid::BareJid;
use xmpp::Settings;
use xmpp::port::{StoreOp, StoreReply};

#[path = "commands/edges.rs"]
mod edges;
#[path = "commands/hindered.rs"]
mod hindered;

const COMMANDS: &str = "http://jabber.org/protocol/commands";
const ADMIN: &str = "http://jabber.org/protocol/admin";
const PING: &str = "<iq type='get' id='p' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>";

/// A world that alice administers; bob and carol use it.
fn world(shards: u16) -> World {
    let settings = Settings {
        shards,
        admins: vec![jid("alice")],
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(u64::from(shards), settings, Faults::calm());
    for name in ["alice", "bob", "carol"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    world
}

fn jid(name: &str) -> BareJid {
    BareJid::parse(&format!("{name}@example.org")).expect("a good address")
}

fn ask(world: &mut World, client: ClientId, text: &str) -> Vec<Element> {
    world.tell(client, text);
    // What is done a step at a time takes some.
    world.run_for(100);
    world.received(client)
}

/// A request of a command.
fn request(node: &str, attributes: &str, inner: &str) -> String {
    format!(
        "<iq type='set' id='c' to='example.org'><command xmlns='{COMMANDS}' \
         node='{ADMIN}#{node}' {attributes}>{inner}</command></iq>"
    )
}

/// The answer to a command; `inner` is what stands in it.
fn command(
    world: &mut World,
    client: ClientId,
    node: &str,
    attributes: &str,
    inner: &str,
) -> Element {
    let got = ask(world, client, &request(node, attributes, inner));
    let answer = got.into_iter().find(|it| it.attr("id") == "c");
    answer.expect("a request has an answer")
}

fn form(fields: &[(&str, &[&str])]) -> String {
    let kind: (&str, &[&str]) = ("FORM_TYPE", &[ADMIN]);
    let all = std::iter::once(&kind).chain(fields);
    let all = all.map(|(var, values)| {
        let values = values.iter().map(|it| format!("<value>{it}</value>"));
        format!("<field var='{var}'>{}</field>", values.collect::<String>())
    });
    let all: String = all.collect();
    format!("<x xmlns='jabber:x:data' type='submit'>{all}</x>")
}

/// The answer of a command after its form.
fn submit(world: &mut World, client: ClientId, node: &str, fields: &[(&str, &[&str])]) -> Element {
    let shown = command(world, client, node, "", "");
    let shown = shown.child("command").expect("a form is shown");
    assert_eq!(shown.attr("status"), "executing", "{shown:?}");
    let x = shown.child("x").expect("a form is shown");
    for (var, _) in fields {
        let mut all = x.children.iter();
        assert!(
            all.any(|it| it.attr("var") == *var),
            "{var} is not asked for"
        );
    }
    let id = format!("sessionid='{}'", shown.attr("sessionid"));
    command(world, client, node, &id, &form(fields))
}

/// What a completed command says: the values of a field of its form.
fn values(answer: &Element, var: &str) -> Vec<String> {
    let completed = answer.child("command").expect("it is completed");
    assert_eq!(completed.attr("status"), "completed", "{answer:?}");
    let x = completed.child("x").expect("it has results");
    assert_eq!(x.attr("type"), "result");
    let field = x.children.iter().find(|it| it.attr("var") == var);
    let field = field.unwrap_or_else(|| panic!("no {var} in {answer:?}"));
    field.children.iter().map(|it| it.text.clone()).collect()
}

fn is_completed(answer: &Element) -> bool {
    let command = answer.child("command");
    command.is_some_and(|it| it.attr("status") == "completed" && it.children.is_empty())
}

/// The two conditions of an error.
fn conditions(answer: &Element) -> Vec<&str> {
    let error = answer
        .child("error")
        .unwrap_or_else(|| panic!("{answer:?}"));
    error.children.iter().map(|it| &*it.name).collect()
}

/// XEP-0050 2.1, 2.2
#[test]
fn administrators_find_the_commands_and_others_find_that_there_are_none_for_them() {
    let mut world = world(2);
    let alice = world.log_in("alice@example.org/a");
    let bob = world.log_in("bob@example.org/b");
    let query = |kind: &str, node: &str| {
        let node = match node {
            "" => String::new(),
            node => format!(" node='{node}'"),
        };
        format!(
            "<iq type='get' id='q' to='example.org'>\
             <query xmlns='http://jabber.org/protocol/disco#{kind}'{node}/></iq>"
        )
    };
    let add_user = format!("{ADMIN}#add-user");
    for client in [alice, bob] {
        let info = &ask(&mut world, client, &query("info", ""))[0];
        let told = info.child("query").expect("a result");
        let mut told = told.children.iter();
        assert!(told.any(|it| it.attr("var") == COMMANDS), "{info:?}");
        let list = &ask(&mut world, client, &query("info", COMMANDS))[0];
        let list = list.child("query").expect("a result");
        let identity = list.child("identity").expect("what it is");
        let what = (identity.attr("category"), identity.attr("type"));
        assert_eq!(what, ("automation", "command-list"));
        assert_eq!(list.attr("node"), COMMANDS);
    }
    let items = &ask(&mut world, alice, &query("items", COMMANDS))[0];
    let items = &items.child("query").expect("a result").children;
    let nodes: Vec<&str> = items.iter().map(|it| it.attr("node")).collect();
    let expected = [
        "add-user",
        "delete-user",
        "end-user-session",
        "change-user-password",
        "get-user-lastlogin",
        "get-user-stats",
        "get-registered-users-num",
        "get-online-users-num",
        "get-registered-users-list",
        "get-online-users-list",
        "announce",
        "shutdown",
    ];
    assert_eq!(nodes, expected.map(|name| format!("{ADMIN}#{name}")));
    assert!(
        items
            .iter()
            .all(|it| it.attr("jid") == "example.org" && !it.attr("name").is_empty())
    );
    let info = &ask(&mut world, alice, &query("info", &add_user))[0];
    let identity = info.child("query").and_then(|it| it.child("identity"));
    let identity = identity.expect("what it is");
    assert_eq!(
        (identity.attr("type"), identity.attr("name")),
        ("command-node", "Add User")
    );

    let items = &ask(&mut world, bob, &query("items", COMMANDS))[0];
    assert!(items.child("query").expect("a result").children.is_empty());
    let info = &ask(&mut world, bob, &query("info", &add_user))[0];
    assert_eq!(info.condition(), "forbidden");
    let unknown = format!("{ADMIN}#no-such");
    for (client, kind) in [(alice, "info"), (alice, "items"), (bob, "info")] {
        let answer = &ask(&mut world, client, &query(kind, &unknown))[0];
        assert_eq!(answer.condition(), "item-not-found");
    }
    world.check_rest();
}

#[test]
fn where_nobody_administers_there_are_no_commands() {
    let mut world = World::of_three(1, 1);
    let alice = world.log_in("alice@example.org/a");
    let answer = command(&mut world, alice, "add-user", "", "");
    assert_eq!(conditions(&answer), ["service-unavailable"]);
    let asked = format!(
        "<iq type='get' id='q' to='example.org'>\
         <query xmlns='http://jabber.org/protocol/disco#items' node='{COMMANDS}'/></iq>"
    );
    assert_eq!(
        ask(&mut world, alice, &asked)[0].condition(),
        "item-not-found"
    );
}

#[test]
fn who_administers_nothing_runs_nothing_at_any_step() {
    let mut world = world(2);
    let alice = world.log_in("alice@example.org/a");
    let bob = world.log_in("bob@example.org/b");
    let shown = command(&mut world, alice, "delete-user", "", "");
    let id = shown
        .child("command")
        .expect("a form")
        .attr("sessionid")
        .to_owned();
    let id = format!("sessionid='{id}'");
    let filled = form(&[("accountjids", &["carol@example.org"])]);
    for (attributes, inner) in [("", ""), (&*id, &*filled), (&id, "")] {
        let answer = command(&mut world, bob, "delete-user", attributes, inner);
        assert_eq!(conditions(&answer), ["forbidden"]);
    }
    let account = jid("carol");
    let there = world.perform(StoreOp::Credentials { account });
    assert!(matches!(there, StoreReply::Credentials(Some(_))));
}

/// XEP-0050 3.4, 4.4
#[test]
fn what_does_not_fit_an_execution_is_refused_by_the_condition_for_it() {
    let mut world = world(1);
    let alice = world.log_in("alice@example.org/a");
    let node = "change-user-password";
    let open = |world: &mut World| {
        let shown = command(world, alice, node, "action='execute'", "");
        let shown = shown.child("command").expect("a form").clone();
        let actions = shown.child("actions").expect("what can be done");
        assert_eq!(actions.attr("execute"), "complete");
        assert!(actions.child("complete").is_some() && actions.child("prev").is_none());
        format!("sessionid='{}'", shown.attr("sessionid"))
    };
    let filled = form(&[
        ("accountjid", &["nobody@example.org"]),
        ("password", &["n3w"]),
    ]);
    let bad = |what| vec!["bad-request", what];
    let id = open(&mut world);
    let mut refused = |attributes: &str, inner: &str, expected: Vec<&str>| {
        let answer = command(&mut world, alice, node, attributes, inner);
        assert_eq!(conditions(&answer), expected, "{attributes} {inner}");
    };
    refused("action='rewind'", "", bad("malformed-action"));
    refused("action='complete'", "", bad("bad-action"));
    refused("action='cancel'", "", bad("bad-action"));
    refused("sessionid='none'", &filled, bad("bad-sessionid"));
    refused("xml:lang='en us'", "", bad("bad-locale"));
    refused(&format!("{id} action='next'"), &filled, bad("bad-action"));
    refused(&format!("{id} action='prev'"), "", bad("bad-action"));
    refused(&id, "", bad("bad-payload"));
    refused(&id, &form(&[("password", &["n3w"])]), bad("bad-payload"));
    for account in ["bob@example.net", "example.org", "bob@example.org/x", "@"] {
        let id = open(&mut world);
        let inner = form(&[("accountjid", &[account]), ("password", &["n3w"])]);
        let answer = command(&mut world, alice, node, &id, &inner);
        assert_eq!(conditions(&answer), bad("bad-payload"), "{account}");
    }
    // What was refused for its form may be submitted again, and with any language.
    let last = command(
        &mut world,
        alice,
        node,
        &format!("{id} xml:lang='de-CH'"),
        &filled,
    );
    assert_eq!(conditions(&last), ["item-not-found"]);
    let again = command(&mut world, alice, node, &id, &filled);
    assert_eq!(conditions(&again), ["not-allowed", "session-expired"]);
    let wrong = command(&mut world, alice, "no-such", "", "");
    assert_eq!(conditions(&wrong), ["item-not-found"]);
    let got = ask(
        &mut world,
        alice,
        &format!("<iq type='get' id='g' to='example.org'><command xmlns='{COMMANDS}'/></iq>"),
    );
    assert_eq!(got[0].attr("type"), "error");
    world.check_rest();
}

#[test]
fn an_execution_is_its_asker_s_alone_and_ends_when_it_is_given_up_or_left() {
    let mut world = world(1);
    let alice = world.log_in("alice@example.org/a");
    let other = world.log_in("alice@example.org/b");
    let node = "announce";
    let open = |world: &mut World| {
        let shown = command(world, alice, node, "", "");
        let id = shown.child("command").expect("a form").attr("sessionid");
        format!("sessionid='{id}'")
    };
    let filled = form(&[("announcement", &["hi"])]);
    let id = open(&mut world);
    assert_ne!(id, open(&mut world), "two are two");
    let answer = command(&mut world, other, node, &id, &filled);
    assert_eq!(conditions(&answer), ["bad-request", "bad-sessionid"]);
    let answer = command(&mut world, alice, "shutdown", &id, &filled);
    assert_eq!(conditions(&answer), ["bad-request", "bad-sessionid"]);
    let answer = command(
        &mut world,
        alice,
        node,
        &format!("{id} action='cancel'"),
        "",
    );
    let canceled = answer.child("command").expect("a result");
    assert_eq!(canceled.attr("status"), "canceled");
    let expired = ["not-allowed", "session-expired"];
    let answer = command(&mut world, alice, node, &id, &filled);
    assert_eq!(conditions(&answer), expired);
    let id = open(&mut world);
    world.jump(599_000);
    let answer = command(&mut world, alice, node, &id, "");
    assert_eq!(conditions(&answer), ["bad-request", "bad-payload"]);
    world.jump(1_000);
    let answer = command(&mut world, alice, node, &id, &filled);
    assert_eq!(conditions(&answer), expired);
}

/// XEP-0133 4.1, 4.2, 4.7
#[test]
fn an_account_is_made_has_its_password_changed_and_is_deleted() {
    for shards in [1, 3] {
        let mut world = world(shards);
        let alice = world.log_in("alice@example.org/a");
        let account: (&str, &[&str]) = ("accountjid", &["dave@example.org"]);
        let fields = |password: &'static [&'static str], verify: &'static [&'static str]| {
            [account, ("password", password), ("password-verify", verify)]
        };
        let answer = submit(&mut world, alice, "add-user", &fields(&["one"], &["two"]));
        assert_eq!(conditions(&answer), ["bad-request", "bad-payload"]);
        let answer = submit(&mut world, alice, "add-user", &fields(&["one"], &["one"]));
        assert!(is_completed(&answer), "{answer:?}");
        let answer = submit(&mut world, alice, "add-user", &fields(&["one"], &["one"]));
        assert_eq!(conditions(&answer), ["conflict"]);
        let log_in = |world: &mut World, password: &str| {
            let login = sim::Login::new("dave@example.org/d", password);
            let dave = world.connect(login);
            world.run();
            (dave, world.client(dave).is_online())
        };
        let (dave, is_online) = log_in(&mut world, "one");
        assert!(is_online);
        world.received(alice);
        let change = [account, ("password", &["three"])];
        let answer = submit(&mut world, alice, "change-user-password", &change);
        assert!(is_completed(&answer), "{answer:?}");
        let error = world.client(dave).stream_error.as_deref();
        assert_eq!(
            error,
            Some("reset"),
            "its sessions are over before that is told"
        );
        assert!(!log_in(&mut world, "one").1);
        let (dave, is_online) = log_in(&mut world, "three");
        assert!(is_online);
        let all: (&str, &[&str]) = ("accountjids", &["dave@example.org", "erin@example.org"]);
        let answer = submit(&mut world, alice, "delete-user", &[all]);
        let completed = answer.child("command").expect("one of them is there");
        let note = completed.child("note").expect("the other is not");
        assert_eq!(note.attr("type"), "error");
        assert_eq!(note.text, "erin@example.org: there is no such account.");
        let error = world.client(dave).stream_error.as_deref();
        assert_eq!(error, Some("not-authorized"));
        assert!(!log_in(&mut world, "three").1);
        let one: (&str, &[&str]) = ("accountjids", &["dave@example.org"]);
        let answer = submit(&mut world, alice, "delete-user", &[one]);
        assert_eq!(conditions(&answer), ["item-not-found"]);
        world.check_rest();
    }
}

/// XEP-0133 4.5
#[test]
fn one_session_or_all_of_an_account_end_and_it_may_come_back() {
    let mut world = world(2);
    let alice = world.log_in("alice@example.org/a");
    let names = ["x", "y", "z"];
    let bobs = names.map(|name| world.log_in(&format!("bob@example.org/{name}")));
    let node = "end-user-session";
    let end =
        |world: &mut World, jids: &[&str]| submit(world, alice, node, &[("accountjids", jids)]);
    let left = |world: &World| bobs.map(|bob| world.client(bob).stream_error.is_none());
    let answer = end(&mut world, &["bob@example.org/y"]);
    assert!(is_completed(&answer), "{answer:?}");
    assert_eq!(left(&world), [true, false, true]);
    for gone in ["bob@example.org/y", "nobody@example.org"] {
        assert_eq!(conditions(&end(&mut world, &[gone])), ["item-not-found"]);
    }
    assert!(is_completed(&end(&mut world, &["bob@example.org"])));
    assert_eq!(left(&world), [false; 3]);
    world.log_in("bob@example.org/y");
    // Also the asker's own, who hears no answer then.
    let shown = command(&mut world, alice, node, "", "");
    let id = shown
        .child("command")
        .expect("a form")
        .attr("sessionid")
        .to_owned();
    let filled = form(&[("accountjids", &["alice@example.org"])]);
    world.tell(alice, &request(node, &format!("sessionid='{id}'"), &filled));
    let error = world.client(alice).stream_error.as_deref();
    assert_eq!(error, Some("reset"));
    world.check_rest();
}

/// XEP-0133 4.9, 4.10
#[test]
fn who_was_there_when_and_from_where_is_told() {
    let mut world = world(3);
    let alice = world.log_in("alice@example.org/a");
    let bob = world.log_in("bob@example.org/b");
    world.tell(bob, "<presence/>");
    world.tell(
        bob,
        "<iq type='set' id='r'><query xmlns='jabber:iq:roster'>\
                     <item jid='carol@example.org'/></query></iq>",
    );
    let account: (&str, &[&str]) = ("accountjid", &["bob@example.org"]);
    let own: (&str, &[&str]) = ("accountjid", &["alice@example.org"]);
    let stats = submit(&mut world, alice, "get-user-stats", &[own]);
    assert_eq!(values(&stats, "onlineresources"), ["a"]);
    assert_eq!(values(&stats, "ipaddresses").len(), 1);
    let stats = submit(&mut world, alice, "get-user-stats", &[account]);
    assert_eq!(values(&stats, "rostersize"), ["1"]);
    assert_eq!(values(&stats, "onlineresources"), ["b"]);
    assert_eq!(values(&stats, "ipaddresses").len(), 1);
    world.tell(bob, "<presence type='unavailable'/>");
    world.leave(bob);
    world.run();
    let stats = submit(&mut world, alice, "get-user-stats", &[account]);
    assert_eq!(values(&stats, "onlineresources"), Vec::<String>::new());
    let nobody: (&str, &[&str]) = ("accountjid", &["nobody@example.org"]);
    let stats = submit(&mut world, alice, "get-user-stats", &[nobody]);
    assert_eq!(conditions(&stats), ["item-not-found"]);

    let all = ["bob@example.org", "carol@example.org", "nobody@example.org"];
    let logins = submit(
        &mut world,
        alice,
        "get-user-lastlogin",
        &[("accountjids", &all)],
    );
    assert_eq!(values(&logins, "accountjids"), ["bob@example.org"]);
    let times = values(&logins, "lastlogin");
    assert!(times.len() == 1 && times[0].ends_with('Z'), "{times:?}");
    let notes = &logins.child("command").expect("a result").children;
    let notes: Vec<&str> = notes
        .iter()
        .filter(|it| it.name == "note")
        .map(|it| &*it.text)
        .collect();
    assert_eq!(
        notes,
        [
            "carol@example.org: nobody has logged in.",
            "nobody@example.org: there is no such account."
        ]
    );
    let nobody: (&str, &[&str]) = ("accountjids", &["nobody@example.org"]);
    let logins = submit(&mut world, alice, "get-user-lastlogin", &[nobody]);
    assert_eq!(conditions(&logins), ["item-not-found"]);
    world.check_rest();
}

/// XEP-0133 4.13, 4.15, 4.18, 4.20
#[test]
fn users_are_counted_and_named_however_many_sessions_they_have() {
    for shards in [1, 3] {
        let mut world = world(shards);
        for number in 0..30 {
            world.add_account(&format!("u{number:02}@example.org"), "secret");
        }
        let alice = world.log_in("alice@example.org/a");
        let number = |world: &mut World, node: &str, var: &str| {
            let answer = command(world, alice, node, "", "");
            values(&answer, var).join(" ")
        };
        let registered = ("get-registered-users-num", "registeredusersnum");
        let online = ("get-online-users-num", "onlineusersnum");
        assert_eq!(number(&mut world, registered.0, registered.1), "33");
        // A session is online when it is available.
        assert_eq!(number(&mut world, online.0, online.1), "0");
        let bobs = ["x", "y"].map(|name| world.log_in(&format!("bob@example.org/{name}")));
        let carol = world.log_in("carol@example.org/c");
        for client in [bobs[0], bobs[1], carol] {
            world.tell(client, "<presence/>");
        }
        assert_eq!(number(&mut world, online.0, online.1), "2");
        let max: (&str, &[&str]) = ("max_items", &["25"]);
        let answer = submit(&mut world, alice, "get-online-users-list", &[max]);
        let expected = ["bob@example.org", "carol@example.org"];
        assert_eq!(values(&answer, "onlineuserjids"), expected);
        let answer = submit(&mut world, alice, "get-registered-users-list", &[max]);
        assert_eq!(values(&answer, "registereduserjids").len(), 25);
        let max: (&str, &[&str]) = ("max_items", &["none"]);
        let answer = submit(&mut world, alice, "get-registered-users-list", &[max]);
        assert_eq!(values(&answer, "registereduserjids").len(), 33);
        let answer = submit(&mut world, alice, "get-registered-users-list", &[]);
        assert_eq!(values(&answer, "registereduserjids").len(), 33);
        let max: (&str, &[&str]) = ("max_items", &["26"]);
        let answer = submit(&mut world, alice, "get-online-users-list", &[max]);
        assert_eq!(conditions(&answer), ["bad-request", "bad-payload"]);
        world.check_rest();
    }
}

/// XEP-0133 4.23
#[test]
fn an_announcement_reaches_each_available_resource_once_a_step_at_a_time() {
    const CLIENTS: usize = 600;
    let mut world = world(1);
    let alice = world.log_in("alice@example.org/a");
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        world.add_account(&format!("u{number}@example.org"), "secret");
        clients.push(world.log_in(&format!("u{number}@example.org/x")));
    }
    for client in &clients {
        world.send(*client, "<presence/>");
    }
    let bob = world.log_in("bob@example.org/unavailable");
    world.run();
    for client in &clients {
        world.received(*client);
    }
    let shown = command(&mut world, alice, "announce", "", "");
    let id = shown.child("command").expect("a form").attr("sessionid");
    let filled = form(&[("announcement", &["Tea &amp; cake", "at five"])]);
    world.tell(
        alice,
        &request("announce", &format!("sessionid='{id}'"), &filled),
    );
    let bodies = |world: &mut World| -> Vec<String> {
        let all = clients.iter().flat_map(|client| world.received(*client));
        all.map(|it| it.child("body").expect("it says something").text.clone())
            .collect()
    };
    // Alice has the first of the places.
    let first = bodies(&mut world);
    assert_eq!(first.len(), 255);
    assert!(world.received(alice).is_empty(), "it is not done yet");
    world.run_for(100);
    let rest = bodies(&mut world);
    assert_eq!(rest.len(), CLIENTS - 255);
    assert!(
        first
            .iter()
            .chain(&rest)
            .all(|body| body == "Tea & cake\nat five")
    );
    assert!(is_completed(&world.received(alice)[0]));
    assert!(world.received(bob).is_empty());
    let long = "x".repeat(4_097);
    for text in [&long, " "] {
        let text: (&str, &[&str]) = ("announcement", &[text]);
        let answer = submit(&mut world, alice, "announce", &[text]);
        assert_eq!(conditions(&answer), ["bad-request", "bad-payload"]);
    }
    world.check_rest();
}

#[test]
fn the_server_goes_down_when_it_was_told_to_and_says_so_before() {
    let mut world = world(2);
    let alice = world.log_in("alice@example.org/a");
    let bob = world.log_in("bob@example.org/b");
    world.tell(bob, "<presence/>");
    world.received(bob);
    let delay: (&str, &[&str]) = ("delay", &["31"]);
    let answer = submit(&mut world, alice, "shutdown", &[delay]);
    assert_eq!(conditions(&answer), ["bad-request", "bad-payload"]);
    assert_eq!(world.ends_at(), None);
    let text: (&str, &[&str]) = ("announcement", &["Bye"]);
    let delay: (&str, &[&str]) = ("delay", &["30"]);
    let answer = submit(&mut world, alice, "shutdown", &[delay, text]);
    assert!(is_completed(&answer), "{answer:?}");
    let got = world.received(bob);
    assert_eq!(got[0].child("body").expect("it is said").text, "Bye");
    let end = world.ends_at().expect("it will go down");
    let left = end - world.now();
    assert!((29_000_000..=30_000_000).contains(&left), "{left}");
    let answer = submit(&mut world, alice, "shutdown", &[delay, text]);
    assert_eq!(conditions(&answer), ["conflict"]);
    assert_eq!(world.ends_at(), Some(end));
    // What does not happen is not announced.
    assert!(world.received(bob).is_empty());
}

#[test]
fn what_storage_does_not_do_is_told_and_the_asker_goes_on() {
    let mut world = world(2);
    let alice = world.log_in("alice@example.org/a");
    world.faults.disk_full = true;
    let account: (&str, &[&str]) = ("accountjid", &["bob@example.org"]);
    let change = [account, ("password", &["three"][..])];
    let answer = submit(&mut world, alice, "change-user-password", &change);
    assert_eq!(conditions(&answer), ["internal-server-error"]);
    assert_eq!(ask(&mut world, alice, PING)[0].attr("type"), "result");
    world.faults.disk_full = false;
    let answer = submit(&mut world, alice, "change-user-password", &change);
    assert!(is_completed(&answer), "{answer:?}");
    // Nobody is said not to be there for that.
    world.faults.disk_failures = 1_000;
    for some in [
        &["bob@example.org"][..],
        &["bob@example.org", "carol@example.org"],
    ] {
        let answer = submit(
            &mut world,
            alice,
            "get-user-lastlogin",
            &[("accountjids", some)],
        );
        match some.len() {
            1 => assert_eq!(conditions(&answer), ["internal-server-error"]),
            _ => {
                let notes = &answer.child("command").expect("a result").children;
                let notes = notes.iter().filter(|it| it.name == "note");
                let notes: Vec<&str> = notes.map(|it| &*it.text).collect();
                assert_eq!(notes.len(), 2);
                assert!(notes.iter().all(|it| it.contains("the seed")), "{notes:?}");
            }
        }
    }
}

/// A run ends whatever becomes of its asker, and its result is for nobody else.
#[test]
fn who_leaves_before_the_answer_leaves_nothing_behind() {
    for shards in [1, 3] {
        let mut world = world(shards);
        world.faults.disk_us = (100_000, 100_000);
        let alice = world.log_in("alice@example.org/a");
        let shown = command(&mut world, alice, "delete-user", "", "");
        let id = shown
            .child("command")
            .expect("a form")
            .attr("sessionid")
            .to_owned();
        let filled = form(&[("accountjids", &["bob@example.org"])]);
        let id = format!("sessionid='{id}'");
        world.send(alice, &request("delete-user", &id, &filled));
        world.run_for(20);
        world.vanish(alice);
        world.run();
        let account = jid("bob");
        let there = world.perform(StoreOp::Credentials { account });
        assert_eq!(there, StoreReply::Credentials(None));
        let alice = world.log_in("alice@example.org/a");
        assert!(world.received(alice).iter().all(|it| it.attr("id") != "c"));
        world.check_rest();
    }
}

/// With rings of little room, slow storage, and turns in any order.
#[test]
fn commands_are_carried_out_whatever_the_order_in_which_things_happen() {
    for seed in 0..30 {
        let settings = Settings {
            shards: 1 + (seed % 4) as u16,
            admins: vec![jid("alice")],
            ..Settings::for_tests("example.org")
        };
        let faults = Faults::rough(&mut sim::Random::new(seed));
        let mut world = World::new(seed, settings, faults);
        world.add_account("alice@example.org", "secret");
        let alice = world.log_in("alice@example.org/a");
        let names: Vec<String> = (0..6).map(|n| format!("n{n}@example.org")).collect();
        for name in &names {
            let fields = [
                ("accountjid", &[&**name][..]),
                ("password", &["secret"]),
                ("password-verify", &["secret"]),
            ];
            let answer = submit(&mut world, alice, "add-user", &fields);
            assert!(is_completed(&answer), "seed {seed}: {answer:?}");
            let owner = world.log_in(&format!("{name}/x"));
            world.tell(owner, "<presence/>");
        }
        let online = command(&mut world, alice, "get-online-users-num", "", "");
        assert_eq!(values(&online, "onlineusersnum"), ["6"], "seed {seed}");
        let all: Vec<&str> = names.iter().map(|name| &**name).collect();
        let ended = submit(
            &mut world,
            alice,
            "end-user-session",
            &[("accountjids", &all)],
        );
        assert!(is_completed(&ended), "seed {seed}: {ended:?}");
        let online = command(&mut world, alice, "get-online-users-num", "", "");
        assert_eq!(values(&online, "onlineusersnum"), ["0"], "seed {seed}");
        let deleted = submit(&mut world, alice, "delete-user", &[("accountjids", &all)]);
        assert!(is_completed(&deleted), "seed {seed}: {deleted:?}");
        let left = command(&mut world, alice, "get-registered-users-num", "", "");
        assert_eq!(values(&left, "registeredusersnum"), ["1"], "seed {seed}");
        world.check_rest();
    }
}
