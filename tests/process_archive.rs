//! Archives over real sockets, and over the end of the process.

mod support;

use support::{Client, DOMAIN, Element, Options, STANZA_ERRORS, Server};

fn say(client: &mut Client, to: &str, id: &str) {
    client.send(&format!(
        "<message to='{to}' type='chat' id='{id}'><body>{id}</body></message>"
    ));
}

/// The id that a message shows.
fn shown(message: &Element) -> String {
    let id = message.child("stanza-id").and_then(|id| id.attr("id"));
    id.expect("the archive's id is shown").to_owned()
}

/// A page of the client's archive: the archive's ids with the senders', and the end of the page.
fn page(client: &mut Client, set: &str) -> (Vec<(String, String)>, Element) {
    let set = format!("<set xmlns='http://jabber.org/protocol/rsm'>{set}</set>");
    let query = format!("<query xmlns='urn:xmpp:mam:2' queryid='q'>{set}</query>");
    client.send(&format!("<iq type='set' id='page'>{query}</iq>"));
    let mut results = Vec::new();
    loop {
        let element = client.element();
        if element.attr("id") == Some("page") {
            return (results, element);
        }
        let Some(result) = element.child("result") else {
            continue;
        };
        let forwarded = result.child("forwarded").expect("a result holds a message");
        let message = forwarded.child("message").expect("a message");
        let ids = [result, message].map(|it| it.attr("id").unwrap_or_default().to_owned());
        let [archived, own] = ids;
        results.push((archived, own));
    }
}

fn senders(results: &[(String, String)]) -> Vec<&str> {
    results.iter().map(|(_, own)| own.as_str()).collect()
}

/// One shard and two, so that some of whom they talk to live beside them and some do not.
#[test]
fn what_was_shown_is_in_the_archive_after_a_kill_and_pages_lead_through_it() {
    for shards in [1, 2] {
        let mut server = Server::start(&Options {
            shards,
            archive: true,
            ..Options::default()
        });
        let mut last = String::new();
        {
            let mut alice = Client::available(&server, "u0", "a");
            let mut bob = Client::available(&server, "u1", "b");
            for number in 0..120 {
                say(&mut alice, &bob.jid.clone(), &number.to_string());
            }
            for number in 0..120 {
                let message = bob.until(|it| it.name == "message");
                assert_eq!(message.attr("id"), Some(&*number.to_string()), "{shards}");
                last = shown(&message);
            }
        }
        server.kill();
        server.wait();
        server.start_again();
        let mut bob = Client::log_in(&server, "u1", "b");
        let (newest, fin) = page(&mut bob, "<before/>");
        assert_eq!(newest.len(), 50, "{fin:?}");
        assert_eq!(newest[49], (last, "119".to_owned()));
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let (found, fin) = page(&mut bob, &format!("<max>50</max>{after}"));
            after = format!("<after>{}</after>", found[found.len() - 1].0);
            all.extend(found);
            if fin.child("fin").and_then(|it| it.attr("complete")) == Some("true") {
                break;
            }
        }
        let expected: Vec<String> = (0..120).map(|number| number.to_string()).collect();
        assert_eq!(senders(&all), expected, "{shards}");
        let mut alice = Client::log_in(&server, "u0", "a");
        let (own, _) = page(&mut alice, "<max>100</max>");
        assert_eq!(
            own[..],
            all[..100],
            "both archives know them by the same ids"
        );
        // XEP-0313 7.1.
        let query = "<query xmlns='urn:xmpp:mam:2'/>";
        let refused = alice.ask(&format!("u1@{DOMAIN}"), "set", query);
        assert_eq!(refused.condition(STANZA_ERRORS), Some("forbidden"));
    }
}

/// XEP-0424: also behind a kill.
#[test]
fn what_was_retracted_is_a_tombstone_in_both_archives() {
    let mut server = Server::start(&Options {
        shards: 2,
        archive: true,
        ..Options::default()
    });
    {
        let mut alice = Client::available(&server, "u0", "a");
        let mut bob = Client::available(&server, "u1", "b");
        let to = bob.jid.clone();
        say(&mut alice, &to, "m1");
        say(&mut alice, &to, "m2");
        let retract = "<retract xmlns='urn:xmpp:message-retract:1' id='m1'/>";
        alice.send(&format!(
            "<message to='{to}' type='chat' id='r'>{retract}</message>"
        ));
        bob.until(|it| it.attr("id") == Some("r"));
    }
    server.kill();
    server.wait();
    server.start_again();
    for user in ["u0", "u1"] {
        let mut client = Client::log_in(&server, user, "later");
        client.send("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>");
        let mut left = Vec::new();
        loop {
            let element = client.element();
            if element.attr("id") == Some("q") {
                break;
            }
            let result = element.child("result").and_then(|it| it.child("forwarded"));
            if let Some(message) = result.and_then(|it| it.child("message")) {
                let says = ["body", "retracted", "retract"].into_iter();
                let says: Vec<_> = says.filter(|it| message.child(it).is_some()).collect();
                left.push((message.attr("id").unwrap_or_default().to_owned(), says));
            }
        }
        let expected = [("m1", "retracted"), ("m2", "body"), ("r", "retract")];
        let expected = expected.map(|(id, says)| (id.to_owned(), vec![says]));
        assert_eq!(left, expected, "{user}");
    }
}
