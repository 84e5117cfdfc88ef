//! Whoever logs in without an account: what a guest may do, and what is left of one.

use sim::client::Proof;
use sim::{ClientId, Element, Faults, Login, Random, World};
use xmpp::Settings;
use xmpp::limit::Limits;
use xmpp::xep::external_services::{Access, ExternalService};

/// A world of two shards with these limits, and some accounts.
fn world(limits: Limits, names: &[&str]) -> World {
    let settings = Settings {
        shards: 2,
        limits,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(11, settings, Faults::rough(&mut Random::new(11)));
    for name in names {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    world
}

fn login(world: &mut World, jid: &str) -> ClientId {
    let id = world.connect(Login::new(jid, "secret"));
    world.run();
    assert!(
        world.client(id).is_online(),
        "{jid}: {:?}",
        world.client(id).phase
    );
    id
}

/// What a client receives in answer to what it sends.
fn ask(world: &mut World, id: ClientId, text: &str) -> Vec<Element> {
    world.send(id, text);
    world.run();
    world.received(id)
}

#[test]
fn whoever_is_anonymous_leaves_nothing_behind() {
    let mut world = world(Limits::default(), &["bob"]);
    let bob = login(&mut world, "bob@example.org/x");
    world.send(bob, "<presence/>");
    let mut login = Login::new("nobody@example.org/x", "");
    login.proof = Proof::Anonymous;
    let guest = world.connect(login);
    world.run();
    world.received(bob);
    let enabled = ask(
        &mut world,
        guest,
        "<enable xmlns='urn:xmpp:sm:3' resume='true'/>",
    );
    assert_eq!(
        (enabled[0].name.as_str(), enabled[0].attr("resume")),
        ("enabled", "")
    );
    let set = "<iq type='set' id='s'><query xmlns='jabber:iq:roster'>\
               <item jid='a@example.org'/></query></iq>";
    assert_eq!(ask(&mut world, guest, set)[0].condition(), "not-allowed");
    let request = "<presence to='bob@example.org' type='subscribe'/>";
    assert_eq!(
        ask(&mut world, guest, request)[0].condition(),
        "not-allowed"
    );
    world.send(guest, "<presence to='bob@example.org'/>");
    world.run();
    world.vanish(guest);
    world.run();
    let seen: Vec<_> = world.received(bob);
    let types: Vec<_> = seen.iter().map(|stanza| stanza.attr("type")).collect();
    assert_eq!(types, ["", "unavailable"]);
    world.check_rest();
}

/// A guest is another user with each login: no relay could hold one to a quota.
#[test]
fn whoever_is_anonymous_is_told_of_open_services_only() {
    let services = [("stun", Access::Open), ("turn", time_limited())];
    let service = |(kind, access): &(&str, Access)| ExternalService {
        kind: (*kind).into(),
        host: "relay.example.org".into(),
        port: None,
        transport: None,
        access: access.clone(),
    };
    let settings = Settings {
        external_services: services.iter().map(service).collect(),
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(5, settings, Faults::calm());
    world.add_account("bob@example.org", "secret");
    let bob = login(&mut world, "bob@example.org/x");
    let mut login = Login::new("nobody@example.org/x", "");
    login.proof = Proof::Anonymous;
    let guest = world.connect(login);
    world.run();
    for (client, kinds) in [(bob, vec!["stun", "turn"]), (guest, vec!["stun"])] {
        let get = "<iq type='get' id='s' to='example.org'>\
                   <services xmlns='urn:xmpp:extdisco:2'/></iq>";
        let answer = ask(&mut world, client, get).remove(0);
        let services = &answer.child("services").expect("they are told").children;
        let told: Vec<_> = services.iter().map(|it| it.attr("type")).collect();
        assert_eq!(told, kinds);
        let get = "<iq type='get' id='c' to='example.org'>\
                   <credentials xmlns='urn:xmpp:extdisco:2'>\
                   <service host='relay.example.org' type='turn'/></credentials></iq>";
        let answer = ask(&mut world, client, get).remove(0);
        let type_ = if kinds.len() == 2 { "result" } else { "error" };
        assert_eq!(answer.attr("type"), type_);
    }
}

fn time_limited() -> Access {
    Access::TimeLimited {
        secret: "north".into(),
        lifetime_s: 3_600,
    }
}
