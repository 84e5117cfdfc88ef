//! What a session would leave offline, for whoever has its queue without it: an export.
//!
//! Invariant: it is what the server itself has wait when the session ends.

use crate::host::Timestamp;
use crate::stanza::Stanza;
use crate::xep::carbons::{is_copy, original_of};
use crate::xep::offline::{delayed, is_of_the_moment, may_wait};
use stanza::jid::Jid;
use stanza::scope::StreamScope;
use stanza::view::{Kind, StanzaView};

/// A stanza out of a session's queue as it waits from the session's end on: with the time when it
/// came (XEP-0203), where that is known. `None` for what is dropped or bounces then. The domain is
/// the server's.
pub fn as_left(stanza: &[u8], arrived: Timestamp, domain: &str) -> Option<Box<[u8]>> {
    let scope = StreamScope::client();
    let view = StanzaView::parse(stanza, &scope).ok()?;
    let (from, to) = (view.from()?, view.to()?);
    let to = Jid::from_prepared(&to);
    let message = Stanza::complete(&view, &from, &to);
    if is_copy(&message) {
        return as_left(&original_of(&message)?, arrived, domain);
    }
    if message.kind != Kind::Message || !may_wait(message.type_) || is_of_the_moment(&message) {
        return None;
    }
    Some(match arrived {
        Timestamp(0) => stanza.into(),
        _ => delayed(&message, domain, arrived).into(),
    })
}

/// A stanza out of a session's queue as its client gets it that was away when it came; `None` where
/// it does not say when that was.
pub(crate) fn as_late(stanza: &[u8], arrived: Timestamp, domain: &str) -> Option<Box<[u8]>> {
    let scope = StreamScope::client();
    let view = StanzaView::parse(stanza, &scope).ok()?;
    let (from, to) = (view.from()?, view.to()?);
    let to = Jid::from_prepared(&to);
    let message = Stanza::complete(&view, &from, &to);
    match is_copy(&message) && arrived != Timestamp(0) {
        true => Some(delayed(&message, domain, arrived).into()),
        false => as_left(stanza, arrived, domain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stanza::Type;
    use crate::xep::carbons::{Direction, write_copy};

    fn left(stanza: &str) -> Option<String> {
        let bytes = as_left(stanza.as_bytes(), Timestamp(1_000_000), "b.example")?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    #[test]
    fn what_would_wait_is_left_with_the_time_and_nothing_else_is() {
        const DELAY: &str =
            "<delay xmlns='urn:xmpp:delay' from='b.example' stamp='1970-01-01T00:00:01Z'/>";
        let message = |attribute: &str, child: &str| {
            format!("<message from='a@b.example/x' to='c@b.example'{attribute}>{child}</message>")
        };
        for type_ in ["", " type='chat'", " type='normal'"] {
            let body = message(type_, "<body>x</body>");
            let stamped = message(type_, &format!("<body>x</body>{DELAY}"));
            assert_eq!(left(&body), Some(stamped.clone()));
            // What waited before has its time.
            assert_eq!(left(&stamped), Some(stamped));
        }
        for type_ in ["error", "groupchat", "headline"] {
            let other = message(&format!(" type='{type_}'"), "<body>x</body>");
            assert_eq!(left(&other), None, "{type_}");
        }
        let state = "<active xmlns='http://jabber.org/protocol/chatstates'/>";
        assert_eq!(left(&message(" type='chat'", state)), None);
        let addresses = "from='a@b.example/x' to='c@b.example'";
        assert_eq!(left(&format!("<iq {addresses} id='1' type='get'/>")), None);
        assert_eq!(left(&format!("<presence {addresses}/>")), None);
        // A copy (XEP-0280) is left as the message for the account that it holds, if it holds one.
        let original = |to: &str| {
            format!("<message from='a@b.example/x' to='{to}' type='chat'><body>x</body></message>")
        };
        let copy = |from: &str, to: &str| {
            let mut copy = Vec::new();
            let addresses = (from, "c@b.example/y");
            let message = original(to);
            let direction = Direction::default();
            write_copy(
                direction,
                message.as_bytes(),
                Type::Chat,
                addresses,
                &mut copy,
            );
            left(std::str::from_utf8(&copy).expect("it is text"))
        };
        let own = "c@b.example/z";
        assert_eq!(copy("c@b.example", own), left(&original(own)));
        assert_eq!(copy("c@b.example", "d@b.example"), None);
        // What only looks like one is a message as any.
        let forged = copy("e@b.example/x", own).expect("it is left");
        assert!(
            forged.starts_with("<message from='e@b.example/x'"),
            "{forged}"
        );
        // The time of what was stored before times were is not known.
        let body = message("", "<body/>");
        let bytes = as_left(body.as_bytes(), Timestamp(0), "b.example");
        assert_eq!(bytes.as_deref(), Some(body.as_bytes()));
    }
}
