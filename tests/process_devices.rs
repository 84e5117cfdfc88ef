//! Several devices of one account over real sockets.

mod support;

use support::{Client, DOMAIN, Element, Options, Server};

fn ask_for_copies(client: &mut Client) {
    let enable = "<enable xmlns='urn:xmpp:carbons:2'/>";
    let jid = client.jid.clone();
    let own = jid.split('/').next().expect("a full JID has a bare one");
    assert_eq!(client.ask(own, "set", enable).attr("type"), Some("result"));
}

/// The next message; of a copy what it holds, with what kind of copy it is.
fn next(client: &mut Client) -> (String, Element) {
    let message = client.until(|element| element.name == "message");
    for kind in ["sent", "received"] {
        if let Some(copy) = message.child(kind) {
            let own = client.jid.split('/').next();
            assert_eq!(message.attr("from"), own, "{message:?}");
            let held = copy.child("forwarded").and_then(|it| it.child("message"));
            return (
                kind.to_owned(),
                held.expect("a copy holds a message").clone(),
            );
        }
    }
    (String::new(), message)
}

/// XEP-0280: one shard and two, so that some of whom they talk to live beside them and some do not.
#[test]
fn what_one_device_sends_and_receives_the_other_sees_in_order() {
    for shards in [1, 2] {
        let server = Server::start(&Options {
            shards,
            clique: 1,
            ..Options::default()
        });
        let mut desk = Client::available(&server, "u0", "desk");
        let mut phone = Client::available(&server, "u0", "phone");
        ask_for_copies(&mut phone);
        for user in ["u1", "u2", "u3"] {
            let mut friend = Client::available(&server, user, "a");
            desk.send(&format!(
                "<message to='{user}@{DOMAIN}' type='chat' id='1'><body>a &amp; b</body></message>"
            ));
            assert_eq!(next(&mut friend).1.attr("id"), Some("1"));
            friend.send(&format!(
                "<message to='{}' type='chat' id='2'><body>c</body></message>",
                desk.jid
            ));
            let (kind, message) = next(&mut desk);
            assert_eq!((&*kind, message.attr("id")), ("", Some("2")));
            for (kind, id, body) in [("sent", "1", "a & b"), ("received", "2", "c")] {
                let (came, message) = next(&mut phone);
                assert_eq!((&*came, message.attr("id")), (kind, Some(id)), "{shards}");
                assert_eq!(message.child_text("body"), body);
            }
        }
    }
}

/// XEP-0352.
#[test]
fn what_can_wait_comes_with_what_is_important_and_when_the_client_is_active() {
    for shards in [1, 2] {
        let server = Server::start(&Options {
            shards,
            clique: 1,
            ..Options::default()
        });
        let mut phone = Client::available(&server, "u0", "phone");
        let mut friend = Client::available(&server, "u1", "a");
        phone.send("<inactive xmlns='urn:xmpp:csi:0'/>");
        phone.settle();
        let to = phone.jid.clone();
        let state = |id: u8, name: &str| {
            let state = format!("<{name} xmlns='http://jabber.org/protocol/chatstates'/>");
            format!("<message to='{to}' type='chat' id='{id}'>{state}</message>")
        };
        friend.send(&(state(1, "composing") + &state(2, "paused")));
        friend.send(&format!(
            "<message to='{to}' type='chat' id='3'><body>a</body></message>"
        ));
        // Of chat states only the newest is worth something.
        for id in ["2", "3"] {
            assert_eq!(next(&mut phone).1.attr("id"), Some(id), "{shards}");
        }
        friend.send(&state(4, "composing"));
        friend.settle();
        phone.send("<active xmlns='urn:xmpp:csi:0'/>");
        assert_eq!(next(&mut phone).1.attr("id"), Some("4"), "{shards}");
    }
}
