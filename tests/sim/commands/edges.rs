//! Names that are not to be had, sessions without an account, and commands that do not end.

use super::*;
use xmpp::limit::CONFLICTS_PER_REGISTRATION;

#[test]
fn nobody_registers_the_name_of_an_administrator() {
    let settings = Settings {
        admins: vec![jid("root")],
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(1, settings, Faults::calm());
    let client = world.connect_raw();
    let header = String::from_utf8(sim::client::header("example.org")).expect("it is text");
    world.tell(client, &header);
    world.received(client);
    let register = |name: &str| {
        format!(
            "<iq type='set' id='{name}'><query xmlns='jabber:iq:register'>\
             <username>{name}</username><password>pw</password></query></iq>"
        )
    };
    let got = ask(&mut world, client, &register("toor"));
    assert_eq!(got[0].attr("type"), "result");
    // It is as a name that is taken, and counts as one: nobody learns whose it is.
    for (name, expected) in [("root", "conflict"), ("toor", "conflict")] {
        let client = world.connect_raw();
        world.tell(client, &header);
        world.received(client);
        let before = world.now();
        world.tell(client, &register(name));
        let got = world.received(client);
        assert_eq!(got[0].condition(), expected, "{name}");
        assert!(world.now() - before > 0, "{name}: its keys are derived");
    }
    let account = jid("root");
    let there = world.perform(StoreOp::Credentials { account });
    assert_eq!(there, StoreReply::Credentials(None));
}

#[test]
fn administrators_names_are_no_way_to_ask_for_names_without_end() {
    let mut settings = Settings {
        admins: vec![jid("root")],
        ..Settings::for_tests("example.org")
    };
    settings.limits.registrations_per_hour_max = 1;
    let mut world = World::new(1, settings, Faults::calm());
    let header = String::from_utf8(sim::client::header("example.org")).expect("it is text");
    let mut conditions = Vec::new();
    for _ in 0..=CONFLICTS_PER_REGISTRATION {
        let client = world.connect_raw();
        let text = "<iq type='set' id='r'><query xmlns='jabber:iq:register'>\
                    <username>root</username><password>pw</password></query></iq>";
        world.tell(client, &format!("{header}{text}"));
        let got = world.received(client);
        conditions.push(got.last().expect("an answer").condition().to_owned());
    }
    let last = conditions.pop();
    assert_eq!(last.as_deref(), Some("resource-constraint"));
    assert!(
        conditions.iter().all(|it| it == "conflict"),
        "{conditions:?}"
    );
}

/// XEP-0133 4.1: the rule for names is asked of what was typed.
#[test]
fn nobody_is_given_a_name_that_is_another_one_elsewhere() {
    let mut world = world(1);
    let alice = world.log_in("alice@example.org/a");
    for (name, is_fit) in [("stra\u{df}e", false), ("STRASSE", true)] {
        let name = format!("{name}@example.org");
        let fields = [
            ("accountjid", &[&*name][..]),
            ("password", &["secret"]),
            ("password-verify", &["secret"]),
        ];
        let answer = submit(&mut world, alice, "add-user", &fields);
        match is_fit {
            true => assert!(is_completed(&answer), "{answer:?}"),
            false => assert_eq!(conditions(&answer), ["bad-request", "bad-payload"]),
        }
    }
}

/// A guest has no account, and his session ends all the same.
#[test]
fn sessions_of_guests_end() {
    let settings = Settings {
        shards: 2,
        anonymous: true,
        admins: vec![jid("alice")],
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(1, settings, Faults::calm());
    world.add_account("alice@example.org", "secret");
    let alice = world.log_in("alice@example.org/a");
    let mut login = sim::Login::new("nobody@example.org/x", "");
    login.proof = sim::client::Proof::Anonymous;
    let guest = world.connect(login);
    world.run();
    let jid = world.client(guest).full.clone();
    let bare = jid.split('/').next().expect("it has a local part");
    let end = |world: &mut World| {
        let subject: (&str, &[&str]) = ("accountjids", &[bare]);
        submit(world, alice, "end-user-session", &[subject])
    };
    let answer = end(&mut world);
    assert!(is_completed(&answer), "{answer:?}");
    let error = world.client(guest).stream_error.as_deref();
    assert_eq!(error, Some("reset"));
    assert_eq!(conditions(&end(&mut world)), ["item-not-found"]);
    world.check_rest();
}

/// What takes too long makes room for other commands.
#[test]
fn a_command_that_takes_too_long_ends_and_others_can_be_run() {
    let mut world = world(1);
    let alice = world.log_in("alice@example.org/a");
    let other = world.log_in("alice@example.org/b");
    let open = |world: &mut World, client: ClientId, node: &str| {
        let shown = command(world, client, node, "", "");
        let id = shown.child("command").expect("a form").attr("sessionid");
        format!("sessionid='{id}'")
    };
    let nodes = ["get-user-lastlogin", "delete-user"];
    let begun: Vec<_> = nodes.into_iter().cycle().take(8).collect();
    let ids: Vec<_> = begun.iter().map(|it| open(&mut world, alice, it)).collect();
    let end = open(&mut world, other, "shutdown");
    world.faults.disk_us = (150_000_000, 150_000_000);
    for (node, id) in begun.iter().zip(&ids) {
        let bob = form(&[("accountjids", &["bob@example.org"])]);
        world.send(alice, &request(node, id, &bob));
    }
    world.run_for(100);
    assert!(world.received(alice).is_empty(), "nothing is done yet");
    let end = request("shutdown", &end, &form(&[("announcement", &["Bye"])]));
    // Nothing is begun, so that its form can be filled in once more.
    for _ in 0..2 {
        world.send(other, &end);
        world.run_for(100);
        let got = world.received(other);
        assert_eq!(conditions(&got[0]), ["resource-constraint"]);
    }
    world.run_for(100_000);
    let got = world.received(alice);
    assert_eq!(got.len(), 8, "{got:?}");
    let are_read = |it: &&Element| it.attr("type") == "error";
    let (read, changed): (Vec<_>, Vec<_>) = got.iter().partition(are_read);
    assert_eq!((read.len(), changed.len()), (4, 4));
    for answer in read {
        assert_eq!(conditions(answer), ["resource-constraint"]);
    }
    for answer in changed {
        let completed = answer.child("command").expect("it goes on");
        let note = completed.child("note").expect("it says so");
        assert_eq!(note.attr("type"), "warn");
    }
    world.send(other, &end);
    world.run_for(100);
    assert!(is_completed(&world.received(other)[0]));
    assert!(world.ends_at().is_some());
}

/// An execution whose command could not be begun goes on.
#[test]
fn a_form_that_is_refused_can_be_filled_in_again() {
    let mut world = world(1);
    let alice = world.log_in("alice@example.org/a");
    let shown = command(&mut world, alice, "add-user", "", "");
    let id = shown.child("command").expect("a form").attr("sessionid");
    let id = format!("sessionid='{id}'");
    let filled = |verify: &'static [&'static str]| {
        form(&[
            ("accountjid", &["dave@example.org"]),
            ("password", &["one"]),
            ("password-verify", verify),
        ])
    };
    let answer = command(&mut world, alice, "add-user", &id, &filled(&["two"]));
    assert_eq!(conditions(&answer), ["bad-request", "bad-payload"]);
    let answer = command(&mut world, alice, "add-user", &id, &filled(&["one"]));
    assert!(is_completed(&answer), "{answer:?}");
    let answer = command(&mut world, alice, "add-user", &id, &filled(&["one"]));
    assert_eq!(conditions(&answer), ["not-allowed", "session-expired"]);
}
