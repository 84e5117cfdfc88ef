//! XEP-0114: external components: what waits for them, and what becomes of it. Their streams are in
//! [`crate::stream`].
//!
//! Invariant: a message or request for a component is output to it, or its sender hears that it was
//! not; what its socket has taken counts as read, which the protocol cannot tell. So much of
//! everything waits, and no more. Presence beyond that is dropped, but for what its sender waits
//! for: a request for a subscription, and presence to a resource, as of a channel, come back.

mod link;

use super::{Extension, Xep};
use crate::error::{StanzaError, StreamError};
use crate::host::{ConnId, Host};
use crate::limit::COMPONENT_WINDOW_MAX;
use crate::presence::{COMPONENT_SIGN, write_addressed, write_target};
use crate::session::Presence;
use crate::shard::{Shard, Timer};
use crate::stanza::{Stanza, Type, simple_presence};
use crate::stream::StreamState;
use link::{Class, Full, Link};
use sha1::{Digest as _, Sha1};
use stanza::jid::{Jid, bare_of};
use stanza::view::{Kind, StanzaView};
use stanza::writer;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComponentId(pub u16);

/// The components, of which a shard has those that are at home on it.
#[derive(Debug)]
pub(crate) struct Components {
    links: Box<[Link]>,
    /// The server will go down: nothing waits any more.
    are_ending: bool,
}

impl Components {
    /// None of them is connected.
    pub(crate) fn new(components: &[Component]) -> Components {
        let links = components.iter().map(|_| Link::default());
        Components {
            links: links.collect(),
            are_ending: false,
        }
    }

    fn at_mut(&mut self, id: ComponentId) -> &mut Link {
        &mut self.links[usize::from(id.0)]
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

    /// Sends what is made for many, a presence or event, to one address at a component.
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

    /// Adds somebody at a component to the targets of a fan-out.
    pub(crate) fn address_abroad(&mut self, host: &mut impl Host, id: ComponentId, to: &str) {
        let home = self.router.component_home(id);
        let slot = &mut self.fanout[usize::from(home.0)];
        let targets = slot.get_or_insert_with(|| host.buffer());
        targets.push(COMPONENT_SIGN as u8);
        write_target(to, targets);
    }

    /// Gives a presence, or a probe, to those targets of a fan-out that are at components, which
    /// are at home here.
    pub(crate) fn tell_abroad(
        &mut self,
        host: &mut impl Host,
        targets: &str,
        (bytes, split): (&[u8], usize),
    ) {
        let targets = targets.lines();
        let mut abroad = targets
            .filter_map(|to| to.strip_prefix(COMPONENT_SIGN))
            .peekable();
        if abroad.peek().is_none() {
            return;
        }
        // Once for all of them.
        let (scope, mut whole) = (self.client_scope.clone(), Vec::new());
        write_addressed(bytes.split_at(split), "?", &mut whole);
        let unified = writer::unify(&whole, &scope).map(Presence::placed);
        let halves = match &unified {
            Some(unified) => unified.halves(),
            None => bytes.split_at(split),
        };
        let Ok(view) = StanzaView::parse(&whole, &scope) else {
            debug_assert!(false, "a fan-out holds a checked stanza");
            return;
        };
        let from = view.from().unwrap_or_default();
        for to in abroad {
            let to = Jid::from_prepared(to);
            if let Some(id) = self.router.component(to.domain()) {
                let mut bytes = Vec::new();
                write_addressed(halves, to.as_str(), &mut bytes);
                self.queue_for_component(host, id, &Stanza::complete(&view, &from, &to), bytes);
            }
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
        if let Some(unified) = writer::unify(&bytes, &self.client_scope) {
            bytes = unified;
        }
        self.queue_for_component(host, id, stanza, bytes);
    }

    /// The same, as the component is to have it.
    fn queue_for_component(
        &mut self,
        host: &mut impl Host,
        id: ComponentId,
        stanza: &Stanza<'_>,
        bytes: Vec<u8>,
    ) {
        let (size, window) = (bytes.len(), self.component_window());
        let sender = self.sender_to_component(stanza.from);
        let of = (Class::of(stanza), sender);
        let roster_items_max = self.settings.limits.roster_items_max;
        let are_ending = self.components.are_ending;
        let link = self.components.at_mut(id);
        if link.conn.is_none() || are_ending && !link.is_free(size, window) {
            return self.turn_back(host, stanza, StanzaError::RemoteServerTimeout);
        }
        match link.check(of, size, roster_items_max) {
            Ok(()) => {
                link.push(bytes, of);
                self.flush_component(host, id);
            }
            Err(full) => {
                if full == Full::OfAll && of.0 == Class::Parting {
                    self.overflow_component(host, id);
                }
                self.turn_back(host, stanza, StanzaError::ResourceConstraint);
            }
        }
    }

    /// Whom a stanza counts for: an account, or another component, whoever of its users it is from.
    fn sender_to_component<'a>(&self, from: &'a str) -> &'a str {
        let bare = bare_of(from);
        match bare.split_once('@') {
            Some((_, domain)) if !self.router.is_local(domain) => domain,
            _ => bare,
        }
    }

    /// Says something to a component that is of no use to anybody else.
    pub(crate) fn say_to_component(
        &mut self,
        host: &mut impl Host,
        id: ComponentId,
        stanza: Vec<u8>,
    ) {
        let of = (Class::Answer, &*self.settings.domain);
        let roster_items_max = self.settings.limits.roster_items_max;
        let link = self.components.at_mut(id);
        if link.conn.is_some() && link.check(of, stanza.len(), roster_items_max).is_ok() {
            link.push(stanza, of);
            self.flush_component(host, id);
        }
    }

    /// A component has lost what it is not told again. It begins anew, soon: the stanza in hand may
    /// be its own.
    fn overflow_component(&mut self, host: &mut impl Host, id: ComponentId) {
        let link = self.components.at_mut(id);
        if let Some(conn) = link.conn
            && !std::mem::replace(&mut link.has_overflowed, true)
        {
            let now = host.now();
            self.arm(host, now, Timer::Bound(conn));
        }
    }

    /// Ends the stream of a component that has lost what it is not told again.
    pub(crate) fn end_overflowed_component(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: Box<StreamState>,
        id: ComponentId,
    ) {
        let link = self.components.at_mut(id);
        if link.conn != Some(conn) || !link.has_overflowed {
            return self.conns.put(conn, stream);
        }
        let component = &self.settings.components[usize::from(id.0)].domain;
        tracing::warn!(component, "component ended: too much presence waits for it");
        let text = Some("too much waits to be read");
        self.stream_error(host, conn, &stream, StreamError::ResourceConstraint, text);
    }

    /// Answers a stanza that a component does not get. Of presence only what its sender waits for,
    /// and a request for a subscription: a roster says that somebody was asked.
    fn turn_back(&mut self, host: &mut impl Host, stanza: &Stanza<'_>, error: StanzaError) {
        // Storage knows nothing of it that had to be forgotten.
        let origin = self.origin.take();
        match (stanza.kind, stanza.type_) {
            // Whom somebody's client remembers as there is not there any more.
            (Kind::Presence, Type::Probe) if error == StanzaError::RemoteServerTimeout => {
                let gone = simple_presence("unavailable", stanza.to.as_str(), stanza.from);
                self.route_bytes(host, &Jid::from_prepared(stanza.from), gone);
            }
            // Who enters a channel names an occupant; broadcasts are for bare addresses, but for
            // those that name resources.
            (Kind::Presence, Type::Available) if stanza.to.is_bare() => {}
            (Kind::Presence, Type::Available | Type::Subscribe) => {
                self.bounce(host, stanza, error);
            }
            (Kind::Presence, _) => {}
            _ => self.bounce(host, stanza, error),
        }
        self.origin = origin;
    }

    /// The server will go down: what waits for components does so no longer.
    pub(crate) fn end_components(&mut self, host: &mut impl Host) {
        self.components.are_ending = true;
        for index in 0..self.components.links.len() {
            let waiting = self.components.links[index].take_queue();
            self.bounce_ungiven(host, waiting);
        }
    }

    fn component_window(&self) -> usize {
        COMPONENT_WINDOW_MAX.min(self.settings.limits.stanza_size_max)
    }

    /// Writes what waits, as far as a connection may have it: what its socket has taken all of is
    /// with the component.
    fn flush_component(&mut self, host: &mut impl Host, id: ComponentId) {
        let window = self.component_window();
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
        link.has_overflowed = false;
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
        // What was under way to the old one comes back; what waited behind it goes to the new one.
        self.bounce_ungiven(host, given);
        self.flush_component(host, id);
    }

    /// The stream of a component ends.
    pub(crate) fn end_component(&mut self, host: &mut impl Host, conn: ConnId, id: ComponentId) {
        let link = self.components.at_mut(id);
        if link.conn != Some(conn) {
            return;
        }
        (link.conn, link.has_overflowed) = (None, false);
        let mut lost = link.take_given();
        lost.extend(link.take_queue());
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
    use crate::presence::Chosen;
    use crate::xep::blocking::BlockList;

    #[test]
    fn who_is_still_blocked_is_not_told() {
        let list = |jids: &[&str]| BlockList::new(jids.iter().map(|it| (*it).into()).collect());
        let chosen = Chosen {
            blocked: list(&["n@a.example/x"]),
            only: list(&["n@a.example/x", "n@a.example/y"]),
        };
        assert_eq!(chosen.addresses("n@a.example"), ["n@a.example/y"]);
    }

    #[test]
    fn secrets_are_not_shown() {
        let (domain, secret) = ("a.example".into(), "north".into());
        assert!(!format!("{:?}", Component { domain, secret }).contains("north"));
    }
}
