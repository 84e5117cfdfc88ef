//! Streams of external components (XEP-0114): a header that names one, its handshake, and what it
//! says.
//!
//! Invariant: a component's stream is on the shard of its domain before anything is answered, and
//! what it sends is from that domain.

use super::{Flow, Phase, StreamState};
use crate::archive::Stamp;
use crate::error::{StanzaError, StreamError, put};
use crate::host::{ConnId, Host, StreamKind};
use crate::iq::{self, asks_client_activity, is_push, payload_ns};
use crate::parcel::FanoutPurpose;
use crate::presence::{Chosen, write_target};
use crate::router::Route;
use crate::session::Presence;
use crate::shard::Shard;
use crate::stanza::{Stanza, Type, write_content, write_reply_head};
use crate::xep::components::{ComponentId, handshake};
use crate::xml::Attr;
use stanza::error::XmlError;
use stanza::jid::Jid;
use stanza::ns::Ns;
use stanza::scope::StreamScope;
use stanza::tree::Tree;
use stanza::view::{Kind, StanzaView, StreamHeader};
use stanza::writer;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// How our headers begin: there is no version, and there are no features.
const HEADER: &[u8] = b"<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
                        xmlns:stream='http://etherx.jabber.org/streams'";

/// See [`Phase::ExpectHandshake`].
#[derive(Debug)]
pub(crate) struct ExpectHandshake {
    component: ComponentId,
    /// The stream's id, which the secret is hashed with.
    id: Box<str>,
}

impl StreamState {
    /// Whether stanzas of this namespace may come by it.
    pub(super) fn takes(&self, ns: Ns) -> bool {
        // COMPAT: some components name the namespace of clients in each stanza.
        ns == Ns::Client || self.kind == StreamKind::Component && ns == Ns::ComponentAccept
    }
}

impl Shard {
    /// Writes our header for a component, and gives the id in it (RFC 6120 4.7.3: unpredictable).
    pub(crate) fn write_component_header(
        &self,
        host: &mut impl Host,
        conn: ConnId,
        component: Option<&str>,
    ) {
        let id = stream_id(host);
        self.write_component_header_by(host, conn, component, &id);
    }

    fn write_component_header_by(
        &self,
        host: &mut impl Host,
        conn: ConnId,
        component: Option<&str>,
        id: &str,
    ) {
        let from = Attr(component.unwrap_or(&self.settings.domain));
        let out = host.output(conn);
        out.extend_from_slice(HEADER);
        put(out, format_args!(" id='{id}' from='{from}'>"));
    }

    /// A component's header: it names itself (XEP-0114 3).
    pub(super) fn on_component_header(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        header: StreamHeader,
    ) -> Flow {
        let component = match self.check_component_header(&header) {
            Ok(component) => component,
            Err((error, text)) => return self.stream_error(host, conn, stream, error, text),
        };
        let home = self.router.component_home(component);
        if home != self.id {
            stream.scanner.restart();
            self.moving_to = Some(home);
            return Flow::Moved;
        }
        let domain = self.settings.components[usize::from(component.0)]
            .domain
            .clone();
        let id = stream_id(host);
        self.write_component_header_by(host, conn, Some(&domain), &id);
        stream.scope = Some(self.scopes.share(header.scope));
        stream.phase = Phase::ExpectHandshake(Box::new(ExpectHandshake { component, id }));
        Flow::Next
    }

    fn check_component_header(
        &self,
        header: &StreamHeader,
    ) -> Result<ComponentId, (StreamError, Option<&'static str>)> {
        if !header.stream_ns_ok || header.content != Ns::ComponentAccept {
            return Err((StreamError::InvalidNamespace, None));
        }
        if !header.name_ok {
            let text = Some("a stream begins with <stream>");
            return Err((StreamError::BadFormat, text));
        }
        let Some(to) = header.to.as_deref() else {
            let text = Some("a component names itself in `to`");
            return Err((StreamError::ImproperAddressing, text));
        };
        let to = Jid::parse(to).ok();
        let domain = to.filter(|to| to.is_bare() && to.local().is_none());
        let component = domain.and_then(|to| self.router.component(to.domain()));
        let text = Some("no component of that name is configured");
        component.ok_or((StreamError::HostUnknown, text))
    }

    /// What a component says before it has proved who it is.
    pub(super) fn on_handshake(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        view: &StanzaView<'_>,
        scope: &Arc<StreamScope>,
    ) -> Flow {
        if view.kind() != Kind::Other {
            let text = Some("the handshake comes first");
            return self.stream_error(host, conn, stream, StreamError::NotAuthorized, text);
        }
        let Phase::ExpectHandshake(expect) = &stream.phase else {
            unreachable!("only who expects a handshake comes here")
        };
        let tree = Tree::parse(view.bytes(), scope).ok();
        let is_handshake = view.name() == "handshake" && stream.takes(view.ns());
        let Some(tree) = tree.filter(|_| is_handshake) else {
            let error = StreamError::UnsupportedStanzaType;
            return self.stream_error(host, conn, stream, error, None);
        };
        let component = expect.component;
        let configured = &self.settings.components[usize::from(component.0)];
        // The right one is always taken: secrets are too long to be guessed, and whoever tries at
        // the component's own address would keep it out.
        if !is_proof(tree.root().text(), &expect.id, &configured.secret) {
            // One that has a wrong secret tries again and again: the log says so often enough.
            let counted = format!("{} {}", configured.domain, stream.counted_peer());
            let max = self.settings.limits.auth_failures_per_minute_max;
            let now = host.now();
            if !self.throttle.is_over(&counted, now, max) {
                let (component, peer) = (&configured.domain, stream.peer);
                tracing::warn!(component, %peer, "a component's handshake failed");
            }
            self.throttle.count(&counted, now);
            let text = Some("the secret is another one");
            return self.stream_error(host, conn, stream, StreamError::NotAuthorized, text);
        }
        stream.phase = Phase::Component(component);
        let limits = &self.settings.limits;
        stream
            .scanner
            .set_limits(limits.scanner(limits.stanza_size_max));
        host.output(conn).extend_from_slice(b"<handshake/>");
        self.begin_component(host, conn, component);
        Flow::Next
    }

    /// A stanza of a component (XEP-0114 3): both addresses are there, and it is from its domain.
    pub(super) fn on_component_stanza(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        component: ComponentId,
        view: &StanzaView<'_>,
        scope: &StreamScope,
    ) -> Flow {
        if view.kind() == Kind::Other {
            let error = StreamError::UnsupportedStanzaType;
            return self.stream_error(host, conn, stream, error, None);
        }
        let (Some(from), Some(to)) = (view.from(), view.to()) else {
            let text = Some("every stanza of a component has `from` and `to`");
            let error = StreamError::ImproperAddressing;
            return self.stream_error(host, conn, stream, error, text);
        };
        let domain = &self.settings.components[usize::from(component.0)].domain;
        let own = Jid::parse(&from)
            .ok()
            .filter(|from| *from.domain() == **domain);
        let Some(from) = own else {
            let text = Some("`from` is not of the component's domain");
            return self.stream_error(host, conn, stream, StreamError::InvalidFrom, text);
        };
        let Ok(to) = Jid::parse(&to) else {
            return match self.refuse_component(host, component, &from, view, scope) {
                Ok(()) => Flow::Next,
                Err(error) => self.stream_error(host, conn, stream, error.into(), None),
            };
        };
        let type_ = Type::parse(view.kind(), view.type_().as_deref());
        // RFC 6121 3.1.2: subscription stanzas carry bare addresses on both sides.
        let (from, to) = match type_.is_subscription() {
            true => (from.bare(), to.bare()),
            false => (from.as_str(), to.as_str()),
        };
        let mut bytes = host.buffer();
        let sent = match writer::restamp(view, scope, from, to, &mut bytes) {
            Ok(()) => self.on_component_sent(host, &bytes),
            Err(error) => Err(error.into()),
        };
        host.recycle(self.id, bytes);
        match sent {
            Ok(()) => Flow::Next,
            Err(error) => self.stream_error(host, conn, stream, error, None),
        }
    }

    /// Sends a component's complete stanza on its way.
    fn on_component_sent(&mut self, host: &mut impl Host, bytes: &[u8]) -> Result<(), StreamError> {
        let scope = self.client_scope.clone();
        let unified = writer::unify(bytes, &scope);
        let view = StanzaView::parse(unified.as_deref().unwrap_or(bytes), &scope)?;
        let without = self.without_claims(&view, &scope);
        let view = match &without {
            Some(without) => StanzaView::parse(without, &scope)?,
            None => view,
        };
        let (from, to) = (
            view.from().unwrap_or_default(),
            view.to().unwrap_or_default(),
        );
        let to = Jid::from_prepared(&to);
        let stanza = Stanza::complete(&view, &from, &to);
        let is_shapely = stanza.kind != Kind::Iq || iq::is_shapely(&view, stanza.type_);
        if stanza.type_ == Type::Invalid || !is_shapely {
            self.bounce(host, &stanza, StanzaError::BadRequest);
            return Ok(());
        }
        match self.router.route(&to) {
            Route::Here(_) | Route::Shard(_) if is_kept_back(&stanza) => {
                self.bounce(host, &stanza, StanzaError::Forbidden);
            }
            route @ (Route::Here(_) | Route::Shard(_)) => {
                self.carry_to_account(host, stanza, route);
            }
            Route::Component(id) => self.carry_to_component(host, id, &stanza),
            Route::Server => self.on_asked_by_component(host, &stanza),
            Route::Remote => self.bounce(host, &stanza, StanzaError::RemoteServerNotFound),
        }
        Ok(())
    }

    /// Brings a component's stanza to an account, with the id that its archive is to know it by.
    fn carry_to_account(&mut self, host: &mut impl Host, stanza: Stanza<'_>, route: Route) {
        let asks_account = stanza.type_ == Type::Probe && stanza.to.is_bare();
        let id = match stanza.kind {
            Kind::Message if self.settings.archives() => self.archive_id(host, &stanza),
            _ => None,
        };
        let by = stanza.to.bare();
        let stamp = id.map(|id| Stamp { by, id });
        let stanza = stanza.stamped(stamp.as_ref());
        match route {
            // As that of a login: it finds an account whose sessions sleep.
            Route::Here(hash) if asks_account => self.on_probe(host, hash, by, stanza.from),
            Route::Shard(shard) if asks_account => {
                let mut targets = host.buffer();
                write_target(by, &mut targets);
                self.fanout[usize::from(shard.0)] = Some(targets);
                let probe = Presence::of("probe", stanza.from);
                self.flush_fanout(host, &probe, FanoutPurpose::Probe, &Chosen::default());
            }
            Route::Here(hash) => self.deliver(host, hash, &stanza),
            Route::Shard(shard) => {
                let mut buffer = host.buffer();
                stanza.write(&mut buffer);
                self.forward_stanza(host, shard, buffer, None);
            }
            _ => debug_assert!(false, "only accounts are carried to"),
        }
    }

    /// A component's stanza to the server itself.
    fn on_asked_by_component(&mut self, host: &mut impl Host, stanza: &Stanza<'_>) {
        let outcome = match (stanza.kind, stanza.type_) {
            // The server is nobody's contact.
            (Kind::Presence, _) | (_, Type::Result | Type::Error) => Ok(()),
            (Kind::Iq, _) => self.answer_stranger(host, stanza),
            _ => Err(StanzaError::ServiceUnavailable),
        };
        if let Err(error) = outcome {
            self.bounce(host, stanza, error);
        }
    }

    /// Answers a stanza whose `to` is no address.
    fn refuse_component(
        &mut self,
        host: &mut impl Host,
        component: ComponentId,
        from: &Jid<'_>,
        view: &StanzaView<'_>,
        scope: &StreamScope,
    ) -> Result<(), XmlError> {
        let type_ = Type::parse(view.kind(), view.type_().as_deref());
        if matches!(type_, Type::Error | Type::Result) {
            return Ok(());
        }
        let (claimed, id) = (view.to().unwrap_or_default(), view.id());
        // Written anew where its tag is not plain: only that can fail.
        let (mut plain, own) = (Vec::new(), self.client_scope.clone());
        writer::restamp(view, scope, from.as_str(), &claimed, &mut plain)?;
        let plain = StanzaView::parse(&plain, &own)?;
        let mut bytes = Vec::new();
        write_reply_head(
            view.kind(),
            "error",
            &claimed,
            from.as_str(),
            id,
            &mut bytes,
        );
        write_content(&plain, &own, &mut bytes);
        StanzaError::JidMalformed.write(&mut bytes);
        writer::close(&mut bytes, plain.name());
        self.say_to_component(host, component, bytes);
        Ok(())
    }
}

fn stream_id(host: &mut impl Host) -> Box<str> {
    format!("{:016x}{:016x}", host.random(), host.random()).into()
}

/// Whether a handshake is the one that the secret makes.
fn is_proof(text: &str, id: &str, secret: &str) -> bool {
    let digits = handshake(id, secret);
    digits.as_bytes().ct_eq(text.trim().as_bytes()).into()
}

/// What no stranger may ask of a client, or tell it.
fn is_kept_back(stanza: &Stanza<'_>) -> bool {
    let (type_, ns) = (stanza.type_, payload_ns(stanza.view()));
    is_push(type_, ns) || asks_client_activity(type_, ns, stanza.to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hash_of_id_and_secret_is_a_proof() {
        // By another implementation: printf 3BF96D32north | sha1sum
        let proof = "2866d7159a5b6631c029264f35ad2889cca840c8";
        let (id, secret) = ("3BF96D32", "north");
        assert!(is_proof(proof, id, secret) && is_proof(&format!(" {proof}\n"), id, secret));
        let other = handshake("3BF96D33", secret);
        for wrong in ["", &other, &proof[1..], &proof.to_uppercase()] {
            assert!(!is_proof(wrong, id, secret), "{wrong}");
        }
    }
}
