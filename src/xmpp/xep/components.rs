//! XEP-0114: external components: what waits for them, and what becomes of it. Their streams are in
//! [`crate::stream`].
//!
//! Invariant: a stanza for a component is written to it, or its sender hears that it was not, where
//! it is one that is answered at all. So much of them waits, and no more.

use super::{Extension, Xep};
use crate::error::{StanzaError, StreamError};
use crate::host::{ConnId, Host};
use crate::limit::{COMPONENT_QUEUE_MAX, COMPONENT_QUEUE_SIZE_MAX, COMPONENT_WINDOW_MAX};
use crate::parcel::FanoutPurpose;
use crate::presence::{Audience, Chosen, concerns};
use crate::session::{Presence, SessionKey};
use crate::shard::Shard;
use crate::stanza::Stanza;
use sha1::{Digest as _, Sha1};
use stanza::jid::Jid;
use stanza::view::{Kind, StanzaView};
use std::collections::VecDeque;
use std::fmt;

/// Components that may be configured.
pub const COMPONENTS_MAX: usize = 64;

/// The protocol of components that connect to the server.
#[derive(Debug)]
pub struct ComponentProtocol;

impl Extension for ComponentProtocol {
    const XEP: Xep = Xep {
        number: 114,
        version: "1.6",
    };
}

/// Who may connect as a domain.
#[derive(Clone, PartialEq, Eq)]
pub struct Component {
    /// The domain, prepared: another one than the server's.
    pub domain: Box<str>,
    /// What it proves that it knows.
    pub secret: Box<str>,
}

/// Everything but the secret.
impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Component").field(&self.domain).finish()
    }
}

/// What a component says in `<handshake/>`: the hash of the stream's id and its secret in
/// lower-case hexadecimal digits (XEP-0114 3).
pub fn handshake(stream_id: &str, secret: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(stream_id);
    hash.update(secret);
    format!("{:x}", hash.finalize())
}

/// A component, by its place in the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ComponentId(pub u16);

/// The components, of which a shard has those that are at home on it.
#[derive(Debug)]
pub(crate) struct Components {
    links: Box<[Link]>,
}

/// The way to a component.
#[derive(Debug, Default)]
struct Link {
    conn: Option<ConnId>,
    /// What was output and may not be with the component yet: its socket has not taken all of it.
    given: Vec<Vec<u8>>,
    given_size: usize,
    /// What waits behind that.
    queue: VecDeque<Vec<u8>>,
    queue_size: usize,
}

impl Components {
    /// None of them is connected.
    pub(crate) fn new(components: &[Component]) -> Components {
        let links = components.iter().map(|_| Link::default());
        Components {
            links: links.collect(),
        }
    }

    fn at_mut(&mut self, id: ComponentId) -> &mut Link {
        &mut self.links[usize::from(id.0)]
    }
}

impl Link {
    fn has_room(&self, size: usize) -> bool {
        self.queue.len() < COMPONENT_QUEUE_MAX && self.queue_size + size <= COMPONENT_QUEUE_SIZE_MAX
    }

    fn push(&mut self, stanza: Vec<u8>) {
        self.queue_size += stanza.len();
        self.queue.push_back(stanza);
    }

    /// The next one to be written, where so much may be under way.
    fn next(&mut self, window: usize) -> Option<&[u8]> {
        let size = self.queue.front()?.len();
        if !self.given.is_empty() && self.given_size + size > window {
            return None;
        }
        self.queue_size -= size;
        self.given_size += size;
        self.given.extend(self.queue.pop_front());
        self.given.last().map(Vec::as_slice)
    }

    /// What may not be with the component.
    fn take_given(&mut self) -> Vec<Vec<u8>> {
        self.given_size = 0;
        std::mem::take(&mut self.given)
    }
}

impl Shard {
    /// Brings a stanza to a component, wherever its stream is.
    pub(crate) fn carry_to_component(
        &mut self,
        host: &mut impl Host,
        id: ComponentId,
        stanza: &Stanza<'_>,
    ) {
        let home = self.router.component_home(id);
        if home == self.id {
            return self.give_component(host, id, stanza);
        }
        let mut bytes = host.buffer();
        stanza.write(&mut bytes);
        self.forward_stanza(host, home, bytes, None);
    }

    /// The same for a complete stanza.
    pub(crate) fn route_to_component(
        &mut self,
        host: &mut impl Host,
        id: ComponentId,
        stanza: &[u8],
    ) {
        let home = self.router.component_home(id);
        if home == self.id {
            return self.receive(host, stanza);
        }
        let mut bytes = host.buffer();
        bytes.extend_from_slice(stanza);
        self.forward_stanza(host, home, bytes, None);
    }

    /// Tells somebody at a component of a presence, or asks there for presence.
    pub(crate) fn tell_component(
        &mut self,
        host: &mut impl Host,
        id: ComponentId,
        presence: &Presence,
        to: &str,
    ) {
        let mut bytes = Vec::new();
        presence.write(to, &mut bytes);
        self.route_to_component(host, id, &bytes);
    }

    /// Sends a presence, or a probe, to every contact at a component that it concerns.
    pub(crate) fn broadcast_abroad(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        presence: &Presence,
        purpose: FanoutPurpose,
        audience: Audience<'_>,
        chosen: &Chosen,
    ) {
        let account = self.accounts.at(self.sessions.at(key).account);
        let mut told = Vec::new();
        for item in audience.items(account) {
            let component = self.router.component(item.contact.domain());
            if let Some(id) = component
                && purpose != FanoutPurpose::Event
                && concerns(account, item, purpose)
            {
                let addresses = chosen.addresses(item.contact.as_str()).into_iter();
                told.extend(addresses.map(|to| (id, to)));
            }
        }
        for (id, to) in told {
            self.tell_component(host, id, presence, &to);
        }
    }

    /// Gives a stanza to a component that is at home here.
    pub(crate) fn give_component(
        &mut self,
        host: &mut impl Host,
        id: ComponentId,
        stanza: &Stanza<'_>,
    ) {
        let mut bytes = Vec::new();
        stanza.write(&mut bytes);
        let link = self.components.at_mut(id);
        if link.conn.is_none() {
            return self.turn_back(host, stanza, StanzaError::RemoteServerTimeout);
        }
        if !link.has_room(bytes.len()) {
            return self.turn_back(host, stanza, StanzaError::ResourceConstraint);
        }
        link.push(bytes);
        self.flush_component(host, id);
    }

    /// Says something to a component that is of no use to anybody else.
    pub(crate) fn say_to_component(
        &mut self,
        host: &mut impl Host,
        id: ComponentId,
        stanza: Vec<u8>,
    ) {
        let link = self.components.at_mut(id);
        if link.conn.is_some() && link.has_room(stanza.len()) {
            link.push(stanza);
            self.flush_component(host, id);
        }
    }

    /// Answers a stanza that a component does not get. Of presence only what is between an account
    /// and a contact is worth it: an answer to anything else would tell of nothing that its sender
    /// could do.
    fn turn_back(&mut self, host: &mut impl Host, stanza: &Stanza<'_>, error: StanzaError) {
        if stanza.kind != Kind::Presence || stanza.type_.is_subscription() {
            // Storage knows nothing of it that had to be forgotten.
            let origin = self.origin.take();
            self.bounce(host, stanza, error);
            self.origin = origin;
        }
    }

    /// Writes what waits, as far as a connection may have it: what its socket has taken all of is
    /// with the component.
    fn flush_component(&mut self, host: &mut impl Host, id: ComponentId) {
        let window = COMPONENT_WINDOW_MAX.min(self.settings.limits.stanza_size_max);
        let link = self.components.at_mut(id);
        let Some(conn) = link.conn else { return };
        let mut is_written = false;
        while let Some(stanza) = link.next(window) {
            host.output(conn).extend_from_slice(stanza);
            is_written = true;
        }
        if is_written {
            host.tell_written(conn);
        }
    }

    /// A component's socket has taken all that was output.
    pub(crate) fn on_component_written(&mut self, host: &mut impl Host, id: ComponentId) {
        self.components.at_mut(id).take_given();
        self.flush_component(host, id);
    }

    /// A component has proved who it is. One that is connected as the same already gives way: the
    /// new one knows the secret, too, and the old may be a connection that nobody is at the end of.
    pub(crate) fn begin_component(&mut self, host: &mut impl Host, conn: ConnId, id: ComponentId) {
        let link = self.components.at_mut(id);
        let old = link.conn.replace(conn);
        let given = link.take_given();
        let domain = &self.settings.components[usize::from(id.0)].domain;
        match old {
            None => tracing::info!(component = domain, "component connected"),
            Some(_) => tracing::warn!(
                component = domain,
                "component connected in place of another"
            ),
        }
        if let Some(old) = old
            && let Some(stream) = self.conns.take(old)
        {
            let text = Some("another connection is this component's now");
            self.stream_error(host, old, &stream, StreamError::Conflict, text);
        }
        // What the old one has not had goes to the new one, in its order.
        self.bounce_ungiven(host, given);
        self.flush_component(host, id);
    }

    /// The stream of a component ends.
    pub(crate) fn end_component(&mut self, host: &mut impl Host, conn: ConnId, id: ComponentId) {
        let link = self.components.at_mut(id);
        if link.conn != Some(conn) {
            return;
        }
        link.conn = None;
        let mut lost = link.take_given();
        lost.extend(link.queue.drain(..));
        link.queue_size = 0;
        let domain = &self.settings.components[usize::from(id.0)].domain;
        tracing::info!(
            component = domain,
            lost = lost.len(),
            "component disconnected"
        );
        self.bounce_ungiven(host, lost);
    }

    /// What a component may not have got goes back.
    fn bounce_ungiven(&mut self, host: &mut impl Host, stanzas: Vec<Vec<u8>>) {
        let scope = self.client_scope.clone();
        for bytes in stanzas {
            let Ok(view) = StanzaView::parse(&bytes, &scope) else {
                debug_assert!(false, "what was written was checked");
                continue;
            };
            if let (Some(from), Some(to)) = (view.from(), view.to()) {
                let to = Jid::from_prepared(&to);
                let stanza = Stanza::complete(&view, &from, &to);
                self.turn_back(host, &stanza, StanzaError::RemoteServerTimeout);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_much_is_under_way_and_so_much_waits() {
        let mut link = Link::default();
        let mut written = 0;
        for _ in 0..5 {
            link.push(vec![b'x'; 40]);
        }
        while link.next(100).is_some() {
            written += 1;
        }
        assert_eq!((written, link.queue.len(), link.queue_size), (2, 3, 120));
        link.take_given();
        link.queue.push_front(vec![b'x'; 500]);
        link.queue_size += 500;
        assert!(link.next(100).is_some(), "one goes out, however large");
        assert!(link.next(100).is_none());
        let mut full = Link::default();
        while full.has_room(1) {
            full.push(vec![b'x']);
        }
        assert_eq!(full.queue.len(), COMPONENT_QUEUE_MAX);
        let mut large = Link::default();
        assert!(!large.has_room(COMPONENT_QUEUE_SIZE_MAX + 1));
        large.push(vec![b'x'; COMPONENT_QUEUE_SIZE_MAX]);
        assert!(!large.has_room(1));
    }

    #[test]
    fn secrets_are_not_shown() {
        let (domain, secret) = ("a.example".into(), "north".into());
        assert!(!format!("{:?}", Component { domain, secret }).contains("north"));
    }
}
