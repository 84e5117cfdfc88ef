//! XEP-0352: Client State Indication. What nobody looks at waits until somebody does.
//!
//! Invariant: what is held is not sent yet, so stream management knows nothing of it; and nothing
//! that is important comes before what was held when it came.

use super::{Extension, Xep};
use crate::error::StreamError;
use crate::host::{ConnId, Host};
use crate::outbox::Keep;
use crate::session::{Address, Modes, SessionKey, Sessions};
use crate::shard::Shard;
use crate::stanza::Type;
use crate::stream::{Flow, StreamState};
use crate::xep::carbons::held_in;
use crate::xep::offline::is_chat_state;
use stanza::ns::Ns;
use stanza::scope::StreamScope;
use stanza::tree::Tree;
use stanza::view::{Kind, StanzaView};
use std::collections::{BTreeMap, HashMap};

/// Stanzas that are held for one session: with the next one all are sent.
pub const HELD_MAX: usize = 256;

/// Their bytes.
pub const HELD_SIZE_MAX: usize = 64 << 10;

/// Client states. Their elements are no stanzas, so the stream hands them over itself.
#[derive(Debug)]
pub struct ClientState;

impl Extension for ClientState {
    const XEP: Xep = Xep {
        number: 352,
        version: "1.0.0",
    };
}

/// What is held for a session whose client is inactive, in the order in which it is to be sent.
#[derive(Debug, Default)]
pub(crate) struct Held {
    stanzas: BTreeMap<u64, Box<[u8]>>,
    /// The newest of those of which only that is worth something.
    newest: HashMap<Box<str>, u64>,
    last: u64,
    size: usize,
}

impl Held {
    fn has_room_for(&self, size: usize) -> bool {
        self.stanzas.len() < HELD_MAX && self.size + size <= HELD_SIZE_MAX
    }

    fn put(&mut self, subject: Option<Box<str>>, stanza: Vec<u8>) {
        self.last += 1;
        self.size += stanza.len();
        self.stanzas.insert(self.last, stanza.into());
        let older = subject.and_then(|subject| self.newest.insert(subject, self.last));
        if let Some(stanza) = older.and_then(|older| self.stanzas.remove(&older)) {
            self.size -= stanza.len();
        }
    }
}

/// Whether a stanza is worth waking somebody for.
#[derive(Debug, PartialEq, Eq)]
enum Weight {
    Important,
    /// It can wait, and goes where a newer one about the same comes.
    Passing(Box<str>),
    /// It can wait.
    Light,
}

/// How much a complete stanza matters to somebody who does not look.
fn weigh(stanza: &[u8]) -> Weight {
    let scope = StreamScope::client();
    let Ok(view) = StanzaView::parse(stanza, &scope) else {
        return Weight::Important;
    };
    let from = view.from().unwrap_or_default();
    let type_ = Type::parse(view.kind(), view.type_().as_deref());
    match (view.kind(), type_) {
        (Kind::Presence, Type::Available | Type::Unavailable) => {
            Weight::Passing(format!("presence {from}").into())
        }
        (Kind::Message, Type::Headline) if view.has_child_ns(Ns::PubSubEvent) => Weight::Light,
        (Kind::Message, Type::Normal | Type::Chat) => match held_in(stanza) {
            Some(inner) if is_state(inner) => Weight::Light,
            None if is_state(stanza) => Weight::Passing(format!("state {from}").into()),
            _ => Weight::Important,
        },
        _ => Weight::Important,
    }
}

fn is_state(message: &[u8]) -> bool {
    let scope = StreamScope::client();
    Tree::parse(message, &scope).is_ok_and(|tree| is_chat_state(tree.root()))
}

impl Sessions {
    /// A stanza for a session whose client is inactive. Whether it was sent.
    #[cold]
    pub(crate) fn write_to_inactive(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        keep: Keep,
        write: impl FnOnce(&Address, &mut Vec<u8>),
    ) -> bool {
        let mut stanza = Vec::new();
        write(&self.at(key).address, &mut stanza);
        let subject = match weigh(&stanza) {
            Weight::Important => {
                self.release_held(host, key);
                self.write_now(host, key, keep, |_, out| out.extend_from_slice(&stanza));
                return true;
            }
            Weight::Passing(subject) => Some(subject),
            Weight::Light => None,
        };
        let has_room = |held: &Held| held.has_room_for(stanza.len());
        if !self.held.get(&key).is_none_or(has_room) {
            self.release_held(host, key);
        }
        self.held.entry(key).or_default().put(subject, stanza);
        false
    }

    /// Sends what is held for a session, where something is: something important follows.
    pub(crate) fn release_held(&mut self, host: &mut impl Host, key: SessionKey) {
        if !self.at(key).modes.has(Modes::IS_INACTIVE) {
            return;
        }
        let Some(held) = self.held.remove(&key) else {
            return;
        };
        for stanza in held.stanzas.into_values() {
            let write = |_: &Address, out: &mut Vec<u8>| out.extend_from_slice(&stanza);
            self.write_now(host, key, Keep::Memory, write);
        }
        self.ask_later(host, key);
    }

    /// A session's client is active, or has no connection that it could spare: nothing is held for
    /// it any more.
    pub(crate) fn activate(&mut self, host: &mut impl Host, key: SessionKey) {
        self.release_held(host, key);
        self.at_mut(key).modes.set(Modes::IS_INACTIVE, false);
    }
}

impl Shard {
    /// A client says whether somebody looks at it.
    pub(crate) fn on_client_state(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &StreamState,
        key: SessionKey,
        name: &str,
    ) -> Flow {
        match name {
            "active" => self.sessions.activate(host, key),
            "inactive" => self
                .sessions
                .at_mut(key)
                .modes
                .set(Modes::IS_INACTIVE, true),
            _ => {
                let error = StreamError::UnsupportedStanzaType;
                return self.stream_error(host, conn, stream, error, None);
            }
        }
        Flow::Next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presence_and_what_is_of_the_moment_can_wait_and_nothing_else_can() {
        let state = "<active xmlns='http://jabber.org/protocol/chatstates'/>";
        let event = "<event xmlns='http://jabber.org/protocol/pubsub#event'/>";
        let weighed = |name: &str, type_: &str, payload: &str| {
            let stanza = format!("<{name} from='a@b/c' to='d@e/f'{type_}>{payload}</{name}>");
            weigh(stanza.as_bytes()) != Weight::Important
        };
        for (name, type_, payload, can_wait) in [
            ("presence", "", "", true),
            ("presence", " type='unavailable'", "", true),
            ("presence", " type='subscribe'", "", false),
            ("presence", " type='error'", "", false),
            ("iq", " type='result' id='1'", "", false),
            ("message", " type='chat'", state, true),
            ("message", "", &format!("{state}<thread>x</thread>"), true),
            ("message", "", &format!("{state}<body>x</body>"), false),
            ("message", "", &format!("{state}<x xmlns='urn:x'/>"), false),
            ("message", " type='chat'", "", false),
            ("message", " type='groupchat'", state, false),
            ("message", " type='error'", state, false),
            ("message", " type='headline'", event, true),
            ("message", " type='headline'", "<body>x</body>", false),
            ("message", "", event, false),
        ] {
            let what = format!("{name}{type_}: {payload}");
            assert_eq!(weighed(name, type_, payload), can_wait, "{what}");
        }
    }
}
