//! XEP-0424: Message Retraction. What a sender retracts is replaced in the archives of both sides
//! by a tombstone, in the commit that archives the retraction.
//!
//! Invariant: nobody retracts what another one sent, and a retraction itself stays as it is.

use super::time::utc;
use super::{Extension, Xep};
use crate::error::put;
use crate::host::Timestamp;
use crate::port::{Retraction, known_as};
use crate::settings::Settings;
use crate::stanza::Stanza;
use crate::xml::Attr;
use stanza::jid::bare_of;
use stanza::ns::Ns;
use stanza::scope::StreamScope;
use stanza::view::StanzaView;

/// Retraction; archives do it, see [`crate::archive`].
#[derive(Debug)]
pub struct MessageRetraction;

impl Extension for MessageRetraction {
    const XEP: Xep = Xep {
        number: 424,
        version: "0.4.2",
    };
    const FEATURES: &'static [Ns] = &[Ns::Retract];
    const ACCOUNT_FEATURES: &'static [Ns] = &[Ns::Retract, Ns::RetractTombstone];

    fn is_offered(settings: &Settings) -> bool {
        settings.archives()
    }
}

/// What a message retracts. XEP-0424 5.1: the id is that of the `<message/>`, for none that is
/// archived comes from a room; and the tombstone has the retraction's own.
pub(crate) fn retraction_in(stanza: &Stanza<'_>) -> Option<Box<Retraction>> {
    if !stanza.view().has_child_ns(Ns::Retract) {
        return None;
    }
    let tree = stanza.tree()?;
    let id = tree.root().child("retract", Ns::Retract)?.attr("id")?;
    Some(Box::new(Retraction {
        known_as: known_as(bare_of(stanza.from), stanza.to.bare(), id),
        id: id.into(),
        by: stanza.id()?.as_ref().into(),
    }))
}

/// What a retraction makes of a message that may be the one that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is about another one.
    None,
    /// It is this, and stays as it is: it was retracted before, or retracts something itself.
    Settled,
    /// It is this, and what is left of it.
    Tombstone(Vec<u8>),
}

/// What a retraction of a moment makes of a complete message of its sender in an archive.
pub fn effect_on(retraction: &Retraction, message: &[u8], at: Timestamp) -> Effect {
    let scope = StreamScope::client();
    let Ok(view) = StanzaView::parse(message, &scope) else {
        return Effect::None;
    };
    if view.id().as_deref() != Some(&*retraction.id) {
        return Effect::None;
    }
    if view.has_child_ns(Ns::Retract) {
        return Effect::Settled;
    }
    // XEP-0424 4
    let mut tombstone = b"<message".to_vec();
    let attributes = [
        ("from", view.from()),
        ("to", view.to()),
        ("type", view.type_()),
        ("id", view.id()),
    ];
    for (name, value) in attributes {
        if let Some(value) = value {
            put(&mut tombstone, format_args!(" {name}='{}'", Attr(&value)));
        }
    }
    let (by, stamp) = (Attr(&retraction.by), utc(at));
    put(
        &mut tombstone,
        format_args!(
            "><retracted xmlns='urn:xmpp:message-retract:1' id='{by}' stamp='{stamp}'/></message>"
        ),
    );
    Effect::Tombstone(tombstone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effect(message: &str) -> Effect {
        let retraction = Retraction {
            known_as: 0,
            id: "m'1".into(),
            by: "r<1".into(),
        };
        effect_on(&retraction, message.as_bytes(), Timestamp(1_000_000))
    }

    #[test]
    fn what_is_left_says_who_sent_it_to_whom_and_when_it_was_retracted() {
        let message = "<message from='a@b/c' type='chat' to='d@b' id=\"m'1\" xml:lang='de'>\
            <body>x</body><thread>y</thread></message>";
        let left = "<message from='a@b/c' to='d@b' type='chat' id='m&apos;1'><retracted \
            xmlns='urn:xmpp:message-retract:1' id='r&lt;1' stamp='1970-01-01T00:00:01Z'/>\
            </message>";
        assert_eq!(effect(message), Effect::Tombstone(left.into()));
        assert_eq!(effect(left), Effect::Settled);
    }

    #[test]
    fn other_messages_and_retractions_stay_as_they_are() {
        assert_eq!(
            effect("<message id='m1'><body>x</body></message>"),
            Effect::None
        );
        assert_eq!(effect("<message><body>x</body></message>"), Effect::None);
        let retraction = "<retract xmlns='urn:xmpp:message-retract:1' id='m0'/>";
        let retraction = format!("<message id=\"m'1\">{retraction}</message>");
        assert_eq!(effect(&retraction), Effect::Settled);
    }
}
