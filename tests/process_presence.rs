//! Presence and rosters over real sockets, on one shard and on two (RFC 6121 2 and 4).

mod support;

use support::server::home;
use support::{Client, DOMAIN, Element, Options, STANZA_ERRORS, Server};

const SHARDS: [u16; 2] = [1, 2];
const ROSTER: &str = "jabber:iq:roster";

/// `u0` to `u3` are contacts of each other, and so are `u4` to `u7`; the two groups are strangers.
fn server(shards: u16) -> Server {
    Server::start(&Options {
        shards,
        users: 8,
        clique: 4,
        ..Options::default()
    })
}

fn presences(elements: &[Element]) -> Vec<(&str, &str)> {
    let presence = elements.iter().filter(|element| element.name == "presence");
    let facts = presence.map(|p| (p.attr("from").unwrap_or(""), p.attr("type").unwrap_or("")));
    let mut facts: Vec<_> = facts.collect();
    facts.sort_unstable();
    facts
}

/// The next presence from that full JID.
fn presence_from(client: &mut Client, from: &str) -> Element {
    client.until(|element| element.name == "presence" && element.attr("from") == Some(from))
}

#[test]
fn initial_presence_reaches_contacts_and_brings_theirs() {
    for shards in SHARDS {
        let server = server(shards);
        let mut desk = Client::available(&server, "u1", "desk");
        let mut phone = Client::log_in(&server, "u1", "phone");
        phone.send("<presence><show>away</show><priority>-1</priority></presence>");
        phone.settle();
        let mut stranger = Client::available(&server, "u4", "there");
        let mut client = Client::log_in(&server, "u0", "here");
        client.send("<presence><show>dnd</show><status>busy</status></presence>");
        for receiver in [&mut desk, &mut phone] {
            let presence = presence_from(receiver, &client.jid);
            assert_eq!(presence.child_text("show"), "dnd");
            assert_eq!(presence.child_text("status"), "busy");
            assert_eq!(
                presence.attr("to").map(|to| to.split('/').next()),
                Some(Some("u1@localhost"))
            );
        }
        let first = presence_from(&mut client, "u1@localhost/desk");
        assert_eq!(first.attr("type"), None);
        // A second session of u0 asks again, and sees its own sibling too.
        let mut other = Client::log_in(&server, "u0", "other");
        other.send("<presence/>");
        let away = presence_from(&mut other, "u1@localhost/phone");
        assert_eq!(away.child_text("show"), "away");
        let mut third = Client::log_in(&server, "u0", "third");
        third.send("<presence/>");
        let sibling = presence_from(&mut third, "u0@localhost/here");
        assert_eq!(sibling.child_text("show"), "dnd");
        let strays = stranger.settle_with(&mut client);
        assert!(presences(&strays).is_empty(), "{strays:?}");
    }
}

#[test]
fn unavailable_is_told_once_on_close_reset_and_request() {
    for shards in SHARDS {
        let server = server(shards);
        let mut watcher = Client::available(&server, "u1", "there");
        let mut teller = Client::available(&server, "u2", "teller");
        for end in ["close", "reset", "request", "conflict"] {
            let mut client = Client::available(&server, "u0", "here");
            let jid = client.jid.clone();
            assert_eq!(
                presence_from(&mut watcher, &jid).attr("type"),
                None,
                "{end}"
            );
            match end {
                "close" => {
                    client.send("</stream:stream>");
                    client.rest();
                }
                "reset" => client.reset(),
                "request" => {
                    client.send("<presence type='unavailable'><status>bye</status></presence>");
                    client.settle();
                    client.send("</stream:stream>");
                    client.rest();
                }
                _ => client.send("<message from='u7@localhost' to='u1@localhost'/>"),
            }
            let gone = presence_from(&mut watcher, &jid);
            assert_eq!(gone.attr("type"), Some("unavailable"), "{end}");
            let status = if end == "request" { "bye" } else { "" };
            assert_eq!(gone.child_text("status"), status, "{end}");
            let later = watcher.settle_with(&mut teller);
            assert!(presences(&later).is_empty(), "{end}: told twice: {later:?}");
        }
    }
}

/// More than a turn sees to, in each of the ways in which connections end.
#[test]
fn each_of_many_who_go_at_once_is_told_once() {
    const MANY: u32 = 100;
    let server = Server::start(&Options {
        shards: 2,
        users: 2 + MANY,
        clique: 2 + MANY,
        ..Options::default()
    });
    let mut watcher = Client::available(&server, "u0", "there");
    let mut teller = Client::available(&server, "u1", "teller");
    for end in ["close", "reset", "end", "close and end"] {
        let users = (0..MANY).map(|user| format!("u{}", 2 + user));
        let mut leavers: Vec<_> = users
            .map(|user| Client::available(&server, &user, "here"))
            .collect();
        watcher.settle_with(&mut teller);
        let mut left: Vec<_> = leavers.iter().map(|leaver| leaver.jid.clone()).collect();
        for leaver in &mut leavers {
            if end.starts_with("close") {
                leaver.send("</stream:stream>");
            }
            if end.ends_with("end") {
                leaver.finish_sending();
            }
        }
        match end {
            "reset" => leavers.into_iter().for_each(Client::reset),
            _ => leavers.iter_mut().for_each(|leaver| drop(leaver.rest())),
        }
        while !left.is_empty() {
            let gone = watcher.until(|it| it.attr("type") == Some("unavailable"));
            let from = gone.attr("from").expect("it is from somebody");
            let place = left.iter().position(|jid| jid == from);
            left.swap_remove(place.unwrap_or_else(|| panic!("{end}: {from} is told twice")));
        }
        let later = watcher.settle_with(&mut teller);
        assert!(presences(&later).is_empty(), "{end}: told twice: {later:?}");
    }
}

#[test]
fn directed_presence_reaches_a_stranger_and_is_withdrawn_on_any_end() {
    for shards in SHARDS {
        let server = server(shards);
        let mut stranger = Client::available(&server, "u4", "there");
        let mut teller = Client::available(&server, "u5", "teller");
        for (end, to) in [
            ("reset", "u4@localhost"),
            ("reset", "u4@localhost/there"),
            ("close", "u4@localhost/there"),
            ("broadcast", "u4@localhost"),
            ("directed", "u4@localhost"),
        ] {
            let mut client = Client::log_in(&server, "u0", "here");
            let jid = client.jid.clone();
            client.send(&format!(
                "<presence to='{to}'><status>hello</status></presence>"
            ));
            let seen = presence_from(&mut stranger, &jid);
            assert_eq!(
                (seen.attr("type"), seen.child_text("status")),
                (None, "hello"),
                "{end}"
            );
            let unavailable = "<presence type='unavailable'/>";
            match end {
                "reset" => client.reset(),
                "broadcast" => {
                    client.send(&format!("<presence/>{unavailable}</stream:stream>"));
                    client.rest();
                }
                "directed" => {
                    client.send(&format!("<presence type='unavailable' to='{to}'/>"));
                    client.settle();
                    client.reset();
                }
                _ => {
                    client.send("</stream:stream>");
                    client.rest();
                }
            }
            let gone = presence_from(&mut stranger, &jid);
            assert_eq!(gone.attr("type"), Some("unavailable"), "{end} after {to}");
            let later = stranger.settle_with(&mut teller);
            let from_it = later
                .iter()
                .filter(|e| e.attr("from") == Some(&*jid))
                .count();
            assert_eq!(from_it, 0, "{end} after {to}: told twice");
        }
    }
}

#[test]
fn presence_that_breaks_the_rules_is_a_bad_request() {
    let server = server(1);
    let mut client = Client::log_in(&server, "u0", "here");
    for sent in [
        "<presence id='1' type='asleep'/>",
        "<presence id='1'><priority>128</priority></presence>",
        "<presence id='1'><priority>high</priority></presence>",
    ] {
        client.send(sent);
        let error = client.element();
        assert_eq!(error.attr("type"), Some("error"), "{sent}: {error:?}");
        assert_eq!(error.attr("id"), Some("1"), "{sent}: {error:?}");
        assert_eq!(
            error.condition(STANZA_ERRORS),
            Some("bad-request"),
            "{sent}: {error:?}"
        );
    }
}

fn get_roster(client: &mut Client) -> Vec<Element> {
    let answer = client.ask("", "get", &format!("<query xmlns='{ROSTER}'/>"));
    assert_eq!(answer.attr("type"), Some("result"), "{answer:?}");
    answer.child("query").expect("a roster").children.clone()
}

fn set_roster(client: &mut Client, items: &str) -> Element {
    client.ask(
        "",
        "set",
        &format!("<query xmlns='{ROSTER}'>{items}</query>"),
    )
}

fn condition(answer: &Element) -> &str {
    answer.condition(STANZA_ERRORS).unwrap_or("none")
}

#[test]
fn a_roster_lists_the_contacts_and_keeps_what_is_set_across_a_restart() {
    for shards in SHARDS {
        let mut server = server(shards);
        let mut client = Client::log_in(&server, "u0", "here");
        let roster = get_roster(&mut client);
        let mut jids: Vec<_> = roster.iter().filter_map(|item| item.attr("jid")).collect();
        jids.sort_unstable();
        assert_eq!(jids, ["u1@localhost", "u2@localhost", "u3@localhost"]);
        assert!(
            roster
                .iter()
                .all(|item| item.attr("subscription") == Some("both"))
        );
        let item = "<item jid='Juliet@Elsewhere.example' name='J &amp; co' subscription='both' \
                    ask='subscribe'><group>Friends</group><group>Verona</group></item>";
        assert_eq!(set_roster(&mut client, item).attr("type"), Some("result"));
        drop(client);
        server.restart();
        let mut client = Client::log_in(&server, "u0", "here");
        let roster = get_roster(&mut client);
        let kept = roster
            .iter()
            .find(|item| item.attr("jid") == Some("juliet@elsewhere.example"));
        let kept = kept.expect("the item was kept");
        assert_eq!(kept.attr("name"), Some("J & co"));
        // RFC 6121 2.1.2: a client sets neither subscription nor ask.
        assert_eq!(
            (kept.attr("subscription"), kept.attr("ask")),
            (Some("none"), None)
        );
        let mut groups: Vec<_> = kept.children.iter().map(|group| &*group.text).collect();
        groups.sort_unstable();
        assert_eq!(groups, ["Friends", "Verona"]);
        let removal = "<item jid='juliet@elsewhere.example' subscription='remove'/>";
        assert_eq!(
            set_roster(&mut client, removal).attr("type"),
            Some("result")
        );
        assert_eq!(get_roster(&mut client).len(), 3);
        assert_eq!(
            condition(&set_roster(&mut client, removal)),
            "item-not-found"
        );
    }
}

#[test]
fn roster_pushes_reach_interested_resources_before_the_result() {
    let server = server(2);
    let mut desk = Client::log_in(&server, "u0", "desk");
    let mut phone = Client::log_in(&server, "u0", "phone");
    let mut uninterested = Client::available(&server, "u0", "lamp");
    get_roster(&mut desk);
    get_roster(&mut phone);
    desk.send(&format!(
        "<iq type='set' id='set'><query xmlns='{ROSTER}'><item jid='new@localhost' name='New'/>\
         </query></iq>"
    ));
    let first = desk.until(|element| element.name == "iq");
    assert_eq!(
        first.attr("type"),
        Some("set"),
        "the push comes before the result"
    );
    let result = desk.until(|element| element.name == "iq");
    assert_eq!(
        (result.attr("type"), result.attr("id")),
        (Some("result"), Some("set"))
    );
    for push in [first, phone.until(|element| element.name == "iq")] {
        assert!(
            push.attr("from").is_none_or(|from| from == "u0@localhost"),
            "{push:?}"
        );
        let item = push
            .child("query")
            .and_then(|query| query.child("item"))
            .expect("an item");
        assert_eq!(item.attr("jid"), Some("new@localhost"));
        assert_eq!(item.attr("subscription"), Some("none"));
    }
    let strays = uninterested.settle();
    assert!(
        strays.iter().all(|element| element.name != "iq"),
        "{strays:?}"
    );
}

#[test]
fn roster_sets_that_break_the_rules_change_nothing() {
    let server = server(1);
    let mut client = Client::log_in(&server, "u0", "here");
    let before = get_roster(&mut client);
    let long = "g".repeat(5000);
    let cases = [
        (
            "<item jid='a@localhost'/><item jid='b@localhost'/>".to_owned(),
            "bad-request",
        ),
        (String::new(), "bad-request"),
        ("<item name='nobody'/>".to_owned(), "bad-request"),
        (
            "<item jid='a@localhost'><group>g</group><group>g</group></item>".to_owned(),
            "bad-request",
        ),
        (
            "<item jid='a@localhost'><group/></item>".to_owned(),
            "not-acceptable",
        ),
        (
            format!("<item jid='a@localhost'><group>{long}</group></item>"),
            "not-acceptable",
        ),
        (
            format!("<item jid='a@localhost' name='{long}'/>"),
            "not-acceptable",
        ),
        ("<item jid='u0@localhost'/>".to_owned(), "not-allowed"),
    ];
    for (items, wanted) in cases {
        let answer = set_roster(&mut client, &items);
        assert_eq!(condition(&answer), wanted, "{items}");
    }
    assert_eq!(get_roster(&mut client), before);
    let foreign = client.ask(
        "u1@localhost",
        "set",
        &format!("<query xmlns='{ROSTER}'><item jid='a@localhost'/></query>"),
    );
    assert!(
        ["forbidden", "service-unavailable"].contains(&condition(&foreign)),
        "{foreign:?}"
    );
    let mut other = Client::log_in(&server, "u1", "there");
    let untouched = get_roster(&mut other);
    assert!(
        untouched
            .iter()
            .all(|item| item.attr("jid") != Some("a@localhost"))
    );
    let own = client.ask(
        &format!("u0@{DOMAIN}"),
        "get",
        &format!("<query xmlns='{ROSTER}'/>"),
    );
    assert_eq!(
        own.attr("type"),
        Some("result"),
        "one's own bare JID is oneself"
    );
}

#[test]
fn a_full_roster_refuses_more() {
    let limits = "roster_items_max = 5";
    let server = Server::start(&Options {
        limits,
        ..Options::default()
    });
    let mut client = Client::log_in(&server, "u0", "here");
    for number in 3..5 {
        let answer = set_roster(
            &mut client,
            &format!("<item jid='more{number}@localhost'/>"),
        );
        assert_eq!(answer.attr("type"), Some("result"), "{answer:?}");
    }
    let refusal = set_roster(&mut client, "<item jid='last@localhost'/>");
    assert_eq!(condition(&refusal), "resource-constraint");
    assert_eq!(get_roster(&mut client).len(), 5);
}

/// Whom nobody's roster names, nobody else finds gone.
#[test]
fn a_stranger_whom_a_crash_took_is_found_gone_by_who_resumes() {
    for (shards, shard) in [(1, 0), (2, 0), (2, 1)] {
        let strangers = ["u4", "u5", "u6", "u7"];
        let Some(name) = strangers.into_iter().find(|it| home(it, shards) == shard) else {
            panic!("one is at home on each of two shards");
        };
        let mut server = server(shards);
        let mut client = Client::log_in(&server, "u0", "here");
        client.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        let enabled = client.until(|it| it.name == "enabled");
        let id = enabled.attr("id").expect("it can be resumed").to_owned();
        let settled = |client: &mut Client, h| {
            client.send("<r xmlns='urn:xmpp:sm:3'/>");
            client.until(|it| it.name == "a" && it.attr("h") == Some(h));
        };
        client.send("<presence/>");
        settled(&mut client, "1");
        let mut stranger = Client::log_in(&server, name, "s");
        stranger.send(&format!("<presence to='{}'/>", client.jid));
        let presence = presence_from(&mut client, &stranger.jid);
        assert_eq!(presence.attr("type"), None);
        // What is committed behind it has the session as it is.
        client.send("<presence to='localhost'/>");
        settled(&mut client, "2");
        server.kill();
        server.start_again();
        let mut client = Client::authenticated(&server, "u0");
        client.send(&format!(
            "<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='2'/>"
        ));
        client.until(|it| it.name == "resumed");
        let presence = presence_from(&mut client, &stranger.jid);
        assert_eq!(presence.attr("type"), Some("unavailable"));
        // One who is there says what he is himself.
        let mut again = Client::log_in(&server, name, "s");
        again.send("<presence to='u0@localhost/here'/>");
        assert_eq!(presence_from(&mut client, &again.jid).attr("type"), None);
    }
}
