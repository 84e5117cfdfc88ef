//! Which messages are worth waking a device for, and what its push service is told of them.

use super::targets::{CALL_INTERVAL_MS, INTERVAL_MS, Target};
use super::{PushPolicy, ShownBody};
use crate::stanza::{Stanza, Type};
use crate::xep::offline::is_of_the_moment;
use stanza::jid::bare_of;
use stanza::ns::Ns;
use stanza::writer;

/// Bytes of a message's body that a notification has.
const BODY_SIZE_MAX: usize = 512;

/// What stands for every body where none is shown.
const NOTICE: &str = "New message";

/// How much a message matters to whoever is away; nobody is woken for what matters less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// Somebody says something.
    Message,
    /// Somebody calls and will not wait for long.
    Call,
}

impl Urgency {
    pub(super) fn interval_ms(self) -> u64 {
        match self {
            Urgency::Message => INTERVAL_MS,
            Urgency::Call => CALL_INTERVAL_MS,
        }
    }

    /// That of a message, if it is worth waking somebody: it says something, or is encrypted, or
    /// proposes a call (XEP-0353). Not what passes, what only reports (receipts, markers, states,
    /// errors, events), nor what the account says to itself, copies (XEP-0280) among that.
    pub(super) fn of(message: &Stanza<'_>) -> Option<Urgency> {
        let may_wake = matches!(message.type_, Type::Normal | Type::Chat | Type::Groupchat);
        if !may_wake || bare_of(message.from) == message.to.bare() || is_of_the_moment(message) {
            return None;
        }
        let view = message.view();
        let child = |name, ns| {
            let tree = message.tree().filter(|_| view.has_child_ns(ns))?;
            let child = tree.root().child(name, ns)?;
            Some(child.children().any(|it| it.is("payload", ns)))
        };
        if child("propose", Ns::JingleMessage).is_some() {
            return Some(Urgency::Call);
        }
        // XEP-0384: without a payload it only exchanges keys.
        let is_encrypted = match child("encrypted", Ns::OmemoLegacy) {
            Some(has_payload) => has_payload,
            None => view.has_child_ns(Ns::Encryption),
        };
        let says = view.has_body() || is_encrypted;
        says.then_some(Urgency::Message)
    }
}

/// What is told of the last message.
#[derive(Debug)]
pub(super) struct Last {
    sender: Box<str>,
    body: Box<str>,
}

impl Last {
    /// What may be told of a message, if anything.
    pub(super) fn of(message: &Stanza<'_>, policy: PushPolicy) -> Option<Last> {
        if !policy.shows_sender && policy.body == ShownBody::None {
            return None;
        }
        let sender = match policy.shows_sender {
            true => message.from.into(),
            false => Box::default(),
        };
        let body = match policy.body {
            ShownBody::None => Box::default(),
            ShownBody::Notice => NOTICE.into(),
            ShownBody::Text => body_of(message),
        };
        Some(Last { sender, body })
    }
}

fn body_of(message: &Stanza<'_>) -> Box<str> {
    let Some(tree) = message.tree() else {
        return Box::default();
    };
    let root = tree.root();
    let body = root.child("body", root.ns()).map_or("", |body| body.text());
    let mut end = body.len().min(BODY_SIZE_MAX);
    while !body.is_char_boundary(end) {
        end -= 1;
    }
    body[..end].into()
}

/// By what a publication is known.
pub(super) fn id_text(id: u64) -> String {
    format!("push-{id:016x}")
}

/// XEP-0357 7: the publication that tells a target how many messages it has not seen. It comes from
/// the account, which a push service may expect (XEP-0357 3.2); its answer finds the way back by
/// that.
pub(super) fn write_publication(id: u64, target: &Target, out: &mut Vec<u8>) {
    let registration = &target.registration;
    writer::open(out, "iq")
        .attr("type", "set")
        .attr("id", &id_text(id))
        .attr("from", target.account.as_str())
        .attr("to", &registration.service)
        .start();
    writer::open(out, "pubsub").ns(Ns::PubSub).start();
    let node = Some(&*registration.node).filter(|node| !node.is_empty());
    writer::open(out, "publish").attr_if("node", node).start();
    out.extend_from_slice(b"<item>");
    writer::open(out, "notification").ns(Ns::Push).start();
    writer::open(out, "x")
        .ns(Ns::DataForms)
        .attr("type", "submit")
        .start();
    write_field("FORM_TYPE", "urn:xmpp:push:summary", out);
    write_field("message-count", &target.count.to_string(), out);
    if let Some(Last { sender, body }) = &target.last {
        let fields = [("last-message-sender", sender), ("last-message-body", body)];
        let said = fields.iter().filter(|(_, value)| !value.is_empty());
        said.for_each(|(var, value)| write_field(var, value, out));
    }
    out.extend_from_slice(b"</x></notification></item></publish>");
    if !registration.options.is_empty() {
        out.extend_from_slice(b"<publish-options>");
        out.extend_from_slice(&registration.options);
        out.extend_from_slice(b"</publish-options>");
    }
    out.extend_from_slice(b"</pubsub></iq>");
}

fn write_field(var: &str, value: &str, out: &mut Vec<u8>) {
    let kind = (var == "FORM_TYPE").then_some("hidden");
    writer::open(out, "field")
        .attr("var", var)
        .attr_if("type", kind)
        .start();
    writer::text(out, "value", value);
    writer::close(out, "field");
}

#[cfg(test)]
mod tests {
    use super::*;
    use stanza::jid::Jid;
    use stanza::scope::StreamScope;
    use stanza::view::StanzaView;

    fn urgency(type_: &str, from: &str, payload: &str) -> Option<Urgency> {
        let scope = StreamScope::client();
        let text = format!("<message from='{from}' to='a@b'{type_}>{payload}</message>");
        let view = StanzaView::parse(text.as_bytes(), &scope).expect("a stanza");
        let to = Jid::from_prepared("a@b");
        Urgency::of(&Stanza::complete(&view, from, &to))
    }

    #[test]
    fn who_is_away_is_woken_for_what_somebody_says_and_for_calls() {
        let (body, chat, peer) = ("<body>x</body>", " type='chat'", "c@d/e");
        let hint = |hint: &str| format!("{body}<{hint} xmlns='urn:xmpp:hints'/>");
        let call = |name: &str| format!("<{name} xmlns='urn:xmpp:jingle-message:0' id='1'/>");
        let omemo = |inner: &str| {
            format!("<encrypted xmlns='eu.siacs.conversations.axolotl'>{inner}</encrypted>")
        };
        let some = Some(Urgency::Message);
        for (type_, from, payload, expected) in [
            ("", peer, body, some),
            (chat, peer, body, some),
            (" type='groupchat'", peer, body, some),
            (" type='headline'", peer, body, None),
            (" type='error'", peer, body, None),
            (chat, "a@b/desk", body, None),
            (chat, peer, &hint("no-store"), None),
            (chat, peer, &hint("no-permanent-store"), None),
            (chat, peer, &hint("store"), some),
            (chat, peer, "<subject>x</subject>", None),
            (
                chat,
                peer,
                "<active xmlns='http://jabber.org/protocol/chatstates'/>",
                None,
            ),
            (
                chat,
                peer,
                "<received xmlns='urn:xmpp:receipts' id='1'/>",
                None,
            ),
            (
                chat,
                peer,
                "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>",
                None,
            ),
            (chat, peer, &omemo("<payload/>"), some),
            (chat, peer, &omemo(""), None),
            (
                chat,
                peer,
                "<encryption xmlns='urn:xmpp:eme:0' namespace='urn:xmpp:omemo:2'/>",
                some,
            ),
            (chat, peer, &call("propose"), Some(Urgency::Call)),
            (chat, peer, &call("retract"), None),
        ] {
            assert_eq!(
                urgency(type_, from, payload),
                expected,
                "{type_}: {payload}"
            );
        }
    }

    #[test]
    fn of_the_last_message_is_told_what_the_operator_allows() {
        let scope = StreamScope::client();
        let body = "ä".repeat(BODY_SIZE_MAX);
        let text = format!("<message from='c@d/e' to='a@b'><body>{body}</body></message>");
        let view = StanzaView::parse(text.as_bytes(), &scope).expect("a stanza");
        let to = Jid::from_prepared("a@b");
        let message = Stanza::complete(&view, "c@d/e", &to);
        let told = |shows_sender, body| {
            let policy = PushPolicy {
                shows_sender,
                body,
                ..PushPolicy::default()
            };
            let last = Last::of(&message, policy);
            last.map(|last| (last.sender.to_string(), last.body.len()))
        };
        assert_eq!(told(false, ShownBody::None), None);
        assert_eq!(told(true, ShownBody::None), Some(("c@d/e".into(), 0)));
        assert_eq!(
            told(false, ShownBody::Notice),
            Some((String::new(), NOTICE.len()))
        );
        assert_eq!(
            told(true, ShownBody::Text),
            Some(("c@d/e".into(), BODY_SIZE_MAX))
        );
    }
}
