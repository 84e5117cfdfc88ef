//! What may be registered for push, by whom, and what ends that.

use super::*;

#[test]
fn registrations_survive_a_crash() {
    for (seed, shards) in WORLDS {
        let mut world = world(seed, shards);
        registered(&mut world, "n1");
        let (phone, _) = world.log_in_managed("alice@example.org/other");
        world.tell(phone, "<presence/>");
        assert_eq!(asked(&mut world, phone, &enable("n2", "s")), "result");
        world.crash();
        world.run_for(SOON_MS);
        let left = stored(&mut world);
        assert!(left.contains("n1") && left.contains("n2"), "{left}");
        let service = world.attach(SERVICE, SECRET);
        let bob = world.arrive("bob@example.org/b");
        // The one device sleeps in storage, the other has nothing there.
        say(&mut world, bob, "m1");
        let requests = published(&mut world, service);
        assert_eq!(counts(&requests), [("n2", "1")], "seed {seed}");
    }
}

#[test]
fn nothing_is_told_after_disable() {
    // XEP-0357 6: one node of a service, or all.
    for (disable, left) in [
        (format!("jid='{SERVICE}' node='n1'"), vec![("n2", "1")]),
        (format!("jid='{SERVICE}'"), vec![]),
        (
            "jid='other.example.org'".into(),
            vec![("n1", "1"), ("n2", "1")],
        ),
        (
            format!("jid='{SERVICE}' node='other'"),
            vec![("n1", "1"), ("n2", "1")],
        ),
    ] {
        let mut world = world(2, 2);
        let service = world.attach(SERVICE, SECRET);
        registered(&mut world, "n1");
        registered(&mut world, "n2");
        let desk = world.log_in("alice@example.org/desk");
        let disable =
            format!("<iq type='set' id='d'><disable xmlns='urn:xmpp:push:0' {disable}/></iq>");
        assert_eq!(asked(&mut world, desk, &disable), "result");
        world.leave(desk);
        let bob = world.arrive("bob@example.org/b");
        say(&mut world, bob, "m1");
        assert_eq!(counts(&published(&mut world, service)), left, "{disable}");
    }
}

#[test]
fn disabling_takes_back_what_is_not_sent_yet() {
    let mut world = world(1, 2);
    let service = world.attach(SERVICE, SECRET);
    registered(&mut world, "n1");
    let bob = world.arrive("bob@example.org/b");
    say(&mut world, bob, "m1");
    let requests = published(&mut world, service);
    say(&mut world, bob, "m2");
    let desk = world.log_in("alice@example.org/desk");
    let disable =
        format!("<iq type='set' id='d'><disable xmlns='urn:xmpp:push:0' jid='{SERVICE}'/></iq>");
    assert_eq!(asked(&mut world, desk, &disable), "result");
    answer(&mut world, service, &requests[0], "result", "");
    world.run_for(INTERVAL_MS * 2);
    assert_eq!(published(&mut world, service), []);
    assert_eq!((under_way(&world), stored(&mut world)), ((0, 0), "".into()));
}

#[test]
fn the_last_options_count_and_the_oldest_of_too_many_registrations_goes() {
    // XEP-0357 5: the last request for a node counts.
    let policy = PushPolicy {
        registrations_max: 3,
        ..PushPolicy::default()
    };
    let mut world = world_of(1, settings(2, policy));
    let service = world.attach(SERVICE, SECRET);
    let phone = world.arrive(PHONE);
    for (node, secret) in [
        ("n1", "a"),
        ("n2", "b"),
        ("n3", "c"),
        ("n1", "d"),
        ("n4", "e"),
    ] {
        assert_eq!(asked(&mut world, phone, &enable(node, secret)), "result");
    }
    world.leave(phone);
    let bob = world.arrive("bob@example.org/b");
    say(&mut world, bob, "m1");
    let requests = published(&mut world, service);
    let told = requests.iter().map(|it| {
        let options = it
            .child("pubsub")
            .and_then(|it| it.child("publish-options"));
        let form = options.and_then(|it| it.child("x")).expect("options");
        (publish(it).attr("node"), field(form, "secret"))
    });
    let told: Vec<(&str, Option<&str>)> = told.collect();
    assert_eq!(
        told,
        [("n3", Some("c")), ("n1", Some("d")), ("n4", Some("e"))]
    );
}

#[test]
fn what_cannot_be_enabled_is_refused() {
    let mut world = world(2, 2);
    let phone = world.arrive(PHONE);
    world.arrive("bob@example.org/b");
    let long = "n".repeat(2_000);
    for (enable, condition) in [
        (
            "<enable xmlns='urn:xmpp:push:0'/>".to_owned(),
            "bad-request",
        ),
        ("<x xmlns='urn:xmpp:push:0'/>".to_owned(), "bad-request"),
        (
            "<enable xmlns='urn:xmpp:push:0' jid='@x'/>".to_owned(),
            "jid-malformed",
        ),
        (
            format!("<enable xmlns='urn:xmpp:push:0' jid='{SERVICE}' node='{long}'/>"),
            "not-acceptable",
        ),
        (
            "<enable xmlns='urn:xmpp:push:0' jid='push.elsewhere.example' node='n'/>".to_owned(),
            "remote-server-not-found",
        ),
        (
            "<enable xmlns='urn:xmpp:push:0' jid='example.org' node='n'/>".to_owned(),
            "not-allowed",
        ),
        (
            "<enable xmlns='urn:xmpp:push:0' jid='bob@example.org' node='n'/>".to_owned(),
            "not-allowed",
        ),
        (
            format!("<enable xmlns='urn:xmpp:push:0' jid='{PHONE}' node='n'/>"),
            "not-allowed",
        ),
        (
            "<enable xmlns='urn:xmpp:push:0' jid='bob@example.org/b' node='n'/>".to_owned(),
            "not-allowed",
        ),
        (
            "<disable xmlns='urn:xmpp:push:0'/>".to_owned(),
            "bad-request",
        ),
    ] {
        let request = format!("<iq type='set' id='e'>{enable}</iq>");
        assert_eq!(asked(&mut world, phone, &request), condition, "{enable}");
    }
    assert_eq!(stored(&mut world), "");
    // Nor for somebody else, nor is there anything to get.
    let other = enable("n", "s").replace("<iq", "<iq to='bob@example.org'");
    assert_eq!(asked(&mut world, phone, &other), "service-unavailable");
    let get = enable("n", "s").replace("'set'", "'get'");
    assert_eq!(asked(&mut world, phone, &get), "service-unavailable");
}

#[test]
fn a_service_of_which_the_configuration_has_nothing_any_more_holds_nothing_up() {
    let mut world = world(1, 2);
    register(&mut world, ALICE, "push.elsewhere.example");
    let bob = world.arrive("bob@example.org/b");
    for _ in 0..2 {
        say(&mut world, bob, "m");
        assert_eq!(under_way(&world), (1, 0));
        world.run_for(RETRY_MS.iter().sum());
        assert_eq!(under_way(&world), (1, 0));
    }
    assert!(stored(&mut world).contains("elsewhere"));
}

#[test]
fn what_is_enabled_already_is_not_written_again() {
    let mut world = world(1, 2);
    let phone = world.arrive(PHONE);
    assert_eq!(asked(&mut world, phone, &enable("n1", "s")), "result");
    // Storage has something else by now: that would be written over.
    register(&mut world, ALICE, "other");
    assert_eq!(asked(&mut world, phone, &enable("n1", "s")), "result");
    assert!(stored(&mut world).contains("other"));
    assert_eq!(asked(&mut world, phone, &enable("n1", "t")), "result");
    assert!(!stored(&mut world).contains("other"));
}

#[test]
fn what_is_enabled_anew_is_not_ended_by_an_answer_to_what_it_was() {
    // XEP-0357 5: the last request counts.
    let mut world = world(1, 2);
    let service = world.attach(SERVICE, SECRET);
    registered(&mut world, "n1");
    let bob = world.arrive("bob@example.org/b");
    say(&mut world, bob, "m1");
    let requests = published(&mut world, service);
    assert_eq!(counts(&requests), [("n1", "1")]);
    let phone = world.log_in(PHONE);
    assert_eq!(asked(&mut world, phone, &enable("n1", "new")), "result");
    world.leave(phone);
    let payload = error("auth", "forbidden");
    answer(&mut world, service, &requests[0], "error", &payload);
    assert!(stored(&mut world).contains("new"));
    say(&mut world, bob, "m2");
    let requests = published(&mut world, service);
    assert_eq!(counts(&requests), [("n1", "1")]);
}

#[test]
fn nothing_is_under_way_for_what_was_replaced() {
    let policy = PushPolicy {
        registrations_max: 2,
        ..PushPolicy::default()
    };
    let mut world = world_of(1, settings(2, policy));
    world.attach(SERVICE, SECRET);
    let bob = world.arrive("bob@example.org/b");
    for round in 0..3 {
        let phone = world.log_in(PHONE);
        for index in 0..2 {
            let node = format!("n{round}-{index}");
            assert_eq!(asked(&mut world, phone, &enable(&node, "s")), "result");
        }
        world.leave(phone);
        assert_eq!(under_way(&world), (0, 0));
        say(&mut world, bob, "m");
        assert_eq!(under_way(&world), (2, 2));
    }
}

#[test]
fn a_device_that_comes_back_by_another_resource_is_not_woken_by_a_retry() {
    let mut world = world(1, 2);
    registered(&mut world, "n1");
    let bob = world.arrive("bob@example.org/b");
    say(&mut world, bob, "m1");
    assert_eq!(under_way(&world).0, 1);
    let phone = world.arrive("alice@example.org/phone-2");
    assert_eq!(asked(&mut world, phone, &enable("n1", "s")), "result");
    let service = world.attach(SERVICE, SECRET);
    world.run_for(RETRY_MS[0] + RETRY_MS[1]);
    assert_eq!(published(&mut world, service), []);
    world.leave(phone);
    world.run_for(SOON_MS);
    say(&mut world, bob, "m2");
    assert_eq!(counts(&published(&mut world, service)), [("n1", "1")]);
}

#[test]
fn where_nobody_is_notified_registrations_end_with_the_trust_all_the_same() {
    for is_there in [false, true] {
        let mut settings = settings(2, PushPolicy::default());
        settings.push = None;
        let mut world = world_of(1, settings);
        let service = world.attach(SERVICE, SECRET);
        register(&mut world, ALICE, SERVICE);
        let bob = world.arrive("bob@example.org/b");
        say(&mut world, bob, "m1");
        assert_eq!(published(&mut world, service), []);
        assert!(stored(&mut world).contains(SERVICE));
        if is_there {
            let desk = world.arrive("alice@example.org/desk");
            change_password(&mut world, desk);
        } else {
            drop(world.set_password(ALICE, "other"));
        }
        world.run_for(SOON_MS);
        assert_eq!(stored(&mut world), "");
    }
}

#[test]
fn it_is_announced_where_it_is_offered() {
    // XEP-0357 4.1: by the account.
    let info = "<iq type='get' id='i'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>";
    for is_offered in [false, true] {
        let mut settings = settings(1, PushPolicy::default());
        if !is_offered {
            settings.push = None;
        }
        let mut world = world_of(1, settings);
        let phone = world.arrive(PHONE);
        world.received(phone);
        world.tell(phone, info);
        let received = world.received(phone);
        let query = received[0].child("query").expect("a query");
        let mut features = query.children.iter().map(|it| it.attr("var"));
        assert_eq!(features.any(|it| it == "urn:xmpp:push:0"), is_offered);
        let expected = if is_offered {
            "result"
        } else {
            "service-unavailable"
        };
        assert_eq!(asked(&mut world, phone, &enable("n", "s")), expected);
    }
}

fn change_password(world: &mut World, client: ClientId) {
    world.send(
        client,
        "<iq type='set' id='p' to='example.org'><query xmlns='jabber:iq:register'>\
         <username>alice</username><password>other</password></query></iq>",
    );
}

#[test]
fn a_new_password_ends_what_was_registered() {
    for is_there in [false, true] {
        let mut world = world(1, 2);
        registered(&mut world, "n1");
        let desk = world.arrive("alice@example.org/desk");
        assert_eq!(asked(&mut world, desk, &enable("n2", "s")), "result");
        if is_there {
            // It does not say which client it is: anybody may have had its resource.
            change_password(&mut world, desk);
        } else {
            world.leave(desk);
            world.run_for(SOON_MS);
            drop(world.set_password(ALICE, "other"));
        }
        world.run_for(SOON_MS);
        assert_eq!(stored(&mut world), "");
        if is_there {
            assert_eq!(asked(&mut world, desk, &enable("n2", "s")), "result");
            assert!(stored(&mut world).contains("n2"));
        }
    }
}

#[test]
fn a_client_whose_access_is_taken_back_is_told_nothing_more() {
    let mut world = world(1, 2);
    let phone = world.arrive(PHONE);
    assert_eq!(asked(&mut world, phone, &enable("n1", "s")), "result");
    let desk = world.arrive("alice@example.org/desk");
    assert_eq!(asked(&mut world, desk, &enable("n2", "s")), "result");
    let list = "<iq type='get' id='l'><list xmlns='urn:xmpp:cam:0'/></iq>";
    world.tell(desk, list);
    let received = world.received(desk);
    let clients = received.iter().find_map(|it| it.child("clients"));
    let is_phone = |client: &&Element| {
        let agent = client.child("user-agent").and_then(|it| it.child("device"));
        agent.is_some_and(|device| device.text == "phone")
    };
    let mut clients = clients.expect("clients").children.iter();
    let id = clients.find(is_phone).expect("the phone").attr("id");
    let revoke = format!("<iq type='set' id='r'><revoke xmlns='urn:xmpp:cam:0' id='{id}'/></iq>");
    world.send(desk, &revoke);
    world.run_for(SOON_MS);
    assert!(world.client(phone).ended);
    let left = stored(&mut world);
    assert!(!left.contains("n1") && left.contains("n2"), "{left}");
}

#[test]
fn a_deleted_account_tells_nobody_anything() {
    let mut world = world(1, 2);
    let service = world.attach(SERVICE, SECRET);
    registered(&mut world, "n1");
    let bob = world.arrive("bob@example.org/b");
    say(&mut world, bob, "m1");
    let requests = published(&mut world, service);
    say(&mut world, bob, "m2");
    let outcome = world.delete(ALICE);
    world.run_for(SOON_MS);
    assert_eq!(outcome.recv(), Ok(StoreReply::Done));
    assert_eq!(under_way(&world), (0, 0));
    answer(&mut world, service, &requests[0], "result", "");
    world.add_account(ALICE, "secret");
    say(&mut world, bob, "m3");
    world.run_for(INTERVAL_MS * 2);
    assert_eq!(published(&mut world, service), []);
    assert_eq!(stored(&mut world), "");
}
