//! A presence that is for many: encoded once around the place of its `to`.

use crate::error::put;
use crate::session::Presence;
use crate::xml::Attr;
use stanza::scope::StreamScope;
use stanza::view::StanzaView;
use stanza::writer::{self, escape_attr};
use std::fmt;

impl Presence {
    /// One that says no more than that a session is available.
    pub(crate) fn available(from: &str) -> Presence {
        Presence::bare(from, format_args!(""))
    }

    /// One that says no more than its type.
    pub(crate) fn of(type_: &str, from: &str) -> Presence {
        Presence::bare(from, format_args!(" type='{type_}'"))
    }

    fn bare(from: &str, type_: fmt::Arguments<'_>) -> Presence {
        let mut bytes = Vec::new();
        put(
            &mut bytes,
            format_args!("<presence from='{}' to='", Attr(from)),
        );
        let split = bytes.len() as u32;
        put(&mut bytes, format_args!("'{type_}/>"));
        Presence {
            bytes: bytes.into(),
            split,
        }
    }

    /// That of a complete stanza which says `to='?'` behind its `from`.
    pub(crate) fn placed(mut bytes: Vec<u8>) -> Presence {
        const PLACE: &[u8] = b" to='?";
        // An escaped `from` holds no apostrophe.
        let place = bytes
            .windows(PLACE.len())
            .position(|window| window == PLACE);
        let split = place.expect("a stamped stanza has `to`") + PLACE.len() - 1;
        bytes.remove(split);
        Presence {
            bytes: bytes.into(),
            split: split as u32,
        }
    }

    /// Appends the stanza for one receiver.
    pub(crate) fn write(&self, to: &str, out: &mut Vec<u8>) {
        write_addressed(self.halves(), to, out);
    }

    /// What stands before and behind the value of `to`.
    pub(crate) fn halves(&self) -> (&[u8], &[u8]) {
        self.bytes.split_at(self.split as usize)
    }
}

/// Appends the stanza for one receiver, around whose address these stand.
pub(crate) fn write_addressed((head, tail): (&[u8], &[u8]), to: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(head);
    escape_attr(to, out);
    out.extend_from_slice(tail);
}

/// Encodes a presence once around the place of its `to`.
pub(super) fn encode(view: &StanzaView<'_>, scope: &StreamScope, from: &str) -> Presence {
    let mut bytes = Vec::new();
    // The writer puts `from` and `to` first.
    writer::restamp(view, scope, from, "?", &mut bytes).expect("a plain stanza is copied");
    Presence::placed(bytes)
}
