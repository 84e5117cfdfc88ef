//! Personal eventing (XEP-0163) with the built server, over real sockets and a restart.

mod support;

use support::{Client, DOMAIN, Element, Options, Server};

const NODE: &str = "urn:xmpp:avatar:metadata";
/// XEP-0115 5.1, of what [`answer_caps`] says.
const VER: &str = "44ubwy0V87zMVVOicCpQRxOBRN8=";

fn publish(id: &str) -> String {
    format!(
        "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='{NODE}'>\
         <item id='{id}'><metadata xmlns='{NODE}'/></item></publish></pubsub>"
    )
}

/// A client that is interested, and available.
fn follower(server: &Server, user: &str, resource: &str, is_known: bool) -> Client {
    let mut client = Client::log_in(server, user, resource);
    client.send(&format!(
        "<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:c' \
         ver='{VER}'/></presence>"
    ));
    if !is_known {
        answer_caps(&mut client);
    }
    client
}

fn answer_caps(client: &mut Client) {
    let asked = client.until(|it| it.name == "iq" && it.attr("type") == Some("get"));
    let (id, to) = (
        asked.attr("id").unwrap_or_default(),
        asked.attr("from").unwrap_or_default(),
    );
    client.send(&format!(
        "<iq type='result' id='{id}' to='{to}'>\
         <query xmlns='http://jabber.org/protocol/disco#info' node='urn:c#{VER}'>\
         <identity category='client' type='pc' name='x'/>\
         <feature var='http://jabber.org/protocol/disco#info'/>\
         <feature var='{NODE}+notify'/></query></iq>"
    ));
}

fn event(client: &mut Client) -> (String, String) {
    let message = client.until(|it| it.child("event").is_some());
    let items = message
        .child("event")
        .and_then(|event| event.child("items"));
    let item = items
        .and_then(|items| items.children.first())
        .expect("an item");
    let of = |element: &Element, name: &str| element.attr(name).unwrap_or_default().to_owned();
    (of(&message, "from"), of(item, "id"))
}

#[test]
fn contacts_who_are_interested_are_told_and_have_the_last_item_after_a_restart() {
    let mut server = Server::start(&Options::default());
    let mut alice = Client::available(&server, "u0", "desk");
    let mut bob = follower(&server, "u1", "phone", false);
    // What it is interested in is known when what it asks for next is answered.
    bob.settle();
    let answer = alice.ask("", "set", &publish("1"));
    assert_eq!(answer.attr("type"), Some("result"), "{answer:?}");
    assert_eq!(event(&mut bob), (format!("u0@{DOMAIN}"), "1".into()));
    drop((alice, bob));
    server.restart();
    let mut bob = follower(&server, "u1", "tablet", false);
    assert_eq!(event(&mut bob), (format!("u0@{DOMAIN}"), "1".into()));
    // Who says the same has no question to answer.
    let mut other = follower(&server, "u1", "watch", true);
    assert_eq!(event(&mut other), (format!("u0@{DOMAIN}"), "1".into()));
}

/// XEP-0490 4.5.3
#[test]
fn how_far_a_chat_was_displayed_is_taken_out_of_a_message_and_published() {
    const DISPLAYED: &str = "urn:xmpp:mds:displayed:0";
    let server = Server::start(&Options::default());
    let mut alice = Client::available(&server, "u0", "desk");
    let mut bob = Client::available(&server, "u1", "phone");
    let to = format!("u1@{DOMAIN}");
    alice.send(&format!(
        "<message to='{to}' type='chat' id='m'><displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>\
         <displayed xmlns='{DISPLAYED}'><stanza-id xmlns='urn:xmpp:sid:0' by='u0@{DOMAIN}' id='a'/>\
         </displayed></message>"
    ));
    let message = bob.until(|it| it.name == "message");
    let marks = message.children.iter().filter(|it| it.name == "displayed");
    assert_eq!(marks.count(), 1, "{message:?}");
    let read = format!(
        "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='{DISPLAYED}'/></pubsub>"
    );
    let answer = alice.ask("", "get", &read);
    let items = answer.child("pubsub").and_then(|it| it.child("items"));
    let item = items.and_then(|items| items.children.first());
    let item = item.expect("the item is there");
    assert_eq!(item.attr("id"), Some(&*to));
    let said = item.child("displayed").and_then(|it| it.child("stanza-id"));
    assert_eq!(said.and_then(|it| it.attr("id")), Some("a"), "{answer:?}");
}
