//! Client streams: what each frame means in each phase (RFC 6120 4, 5, 6, 7).

use super::sasl::{self, SaslError};
use super::{Flow, Phase, Profile, StreamState};
use crate::error::StreamError;
use crate::host::{ConnId, Host, StreamKind};
use crate::port::Origin;
use crate::request::Asker;
use crate::session::{SessionHandle, SessionKey};
use crate::settle::Cause;
use crate::shard::Shard;
use crate::xep::sasl2::Inline;
use crate::xep::stream_management::is_management;
use stanza::frame::Frame;
use stanza::jid::Jid;
use stanza::ns::Ns;
use stanza::scope::StreamScope;
use stanza::tree::Tree;
use stanza::view::{Kind, StanzaView, StreamHeader};
use std::sync::Arc;

impl Shard {
    /// Handles one frame; `bytes` begins with it.
    pub(crate) fn on_frame(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut Box<StreamState>,
        frame: &Frame,
        bytes: &[u8],
    ) -> Flow {
        match *frame {
            Frame::Incomplete => Flow::Stop,
            Frame::Whitespace(size) => self.on_whitespace(host, conn, stream, size),
            Frame::StreamOpen(size) => self.on_header(host, conn, stream, &bytes[..size]),
            Frame::Element(size) => self.on_element(host, conn, stream, &bytes[..size]),
            Frame::StreamClose(size) => {
                let open = stream.scope.as_ref();
                if open.is_some_and(|scope| !scope.closes(&bytes[..size])) {
                    let error = StreamError::NotWellFormed;
                    return self.stream_error(host, conn, stream, error, None);
                }
                self.close_stream(host, conn, stream)
            }
        }
    }

    /// The client's stream ends, as soon as all that it asked for is answered.
    fn close_stream(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
    ) -> Flow {
        if self.owes_answers(host, conn, stream) {
            return Flow::Later;
        }
        self.finish(host, conn, stream);
        Flow::Over
    }

    /// White space between elements keeps a connection alive (RFC 6120 4.6.1).
    fn on_whitespace(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        size: usize,
    ) -> Flow {
        if stream.is_authenticated() {
            return Flow::Next;
        }
        if stream.is_proving_alone() {
            return self.interrupted(host, conn, stream);
        }
        let size = u16::try_from(size).unwrap_or(u16::MAX);
        stream.whitespace = stream.whitespace.saturating_add(size);
        if usize::from(stream.whitespace) > self.settings.limits.whitespace_before_auth_max {
            let text = Some("too much white space before authentication");
            return self.stream_error(host, conn, stream, StreamError::PolicyViolation, text);
        }
        Flow::Next
    }

    /// `</stream:stream>` or the end of the bytes: everything before it was answered (RFC 6120
    /// 4.4).
    pub(crate) fn finish(&mut self, host: &mut impl Host, conn: ConnId, stream: &StreamState) {
        self.count_unfinished(host, stream);
        if let Phase::Bound(key) = stream.phase {
            self.sessions.activate(host, key);
            self.end_session(host, key);
        }
        if let Phase::Component(id) = stream.phase {
            self.end_component(host, conn, id);
        }
        if !matches!(stream.phase, Phase::ExpectTls | Phase::ExpectHeader(_)) {
            host.output(conn).extend_from_slice(b"</stream:stream>");
        }
        host.close(conn);
    }

    fn on_header(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        bytes: &[u8],
    ) -> Flow {
        let Phase::ExpectHeader(expect) = &stream.phase else {
            let text = Some("a stream is open already");
            return self.stream_error(host, conn, stream, StreamError::BadFormat, text);
        };
        let header = match StreamHeader::parse(bytes) {
            Ok(header) => header,
            Err(error) => return self.stream_error(host, conn, stream, error.into(), None),
        };
        if stream.kind == StreamKind::Component {
            return self.on_component_header(host, conn, stream, header);
        }
        // RFC 6120 4.7.2: the answer is for the bare address, where one is named.
        let from = header.from.as_deref();
        let from = from.and_then(|from| Jid::parse(from).ok());
        self.write_header(host, conn, from.as_ref().map(|from| from.bare()));
        let checked = self.check_header(&header, expect.account.as_ref());
        let account = match std::mem::replace(&mut stream.phase, Phase::ExpectAuth) {
            Phase::ExpectHeader(expect) => expect.account,
            _ => None,
        };
        if let Err((error, text)) = checked {
            return self.stream_error(host, conn, stream, error, text);
        }
        if let Some(account) = account {
            stream.phase = Phase::ExpectBind(account);
        }
        if stream.secure && !stream.is_authenticated() {
            let account = from.filter(|from| from.local().is_some());
            stream.inline = account.map(|from| {
                let from = Some(from.to_bare());
                Box::new(Inline {
                    from,
                    ..Inline::default()
                })
            });
        }
        stream.scope = Some(self.scopes.share(header.scope));
        self.write_features(host, conn, stream);
        Flow::Next
    }

    fn check_header(
        &self,
        header: &StreamHeader,
        account: Option<&stanza::jid::BareJid>,
    ) -> Result<(), (StreamError, Option<&'static str>)> {
        let refused = |error, text| Err((error, Some(text)));
        let is_content_ok = header.content == Ns::Client || header.leaves_content_open();
        if !header.stream_ns_ok || !is_content_ok {
            return Err((StreamError::InvalidNamespace, None));
        }
        if !header.name_ok {
            return refused(StreamError::BadFormat, "a stream begins with <stream>");
        }
        // RFC 6120 4.7.5: a missing version is 0.9, which has no features; a higher one gets 1.0.
        match header.version {
            Some((major, _)) if major >= 1 => {}
            _ => return refused(StreamError::UnsupportedVersion, "XMPP 1.0 is required"),
        }
        // RFC 6120 4.9.3.6; a client that leaves `to` out means the only domain there is.
        if header
            .to
            .as_deref()
            .is_some_and(|to| !self.router.is_server(to))
        {
            let text = "this server does not serve that domain";
            return refused(StreamError::HostUnknown, text);
        }
        // XEP-0388 2.1, RFC 6120 4.9.3.9: who names an account names one of this server.
        let from = header.from.as_deref().map(Jid::parse);
        if let Some(Ok(from)) = from
            && !self.router.is_server(from.domain())
        {
            let text = "the stream is from another domain";
            return refused(StreamError::InvalidFrom, text);
        }
        // RFC 6120 4.7.1: after authentication `from` may be absent, but never another account.
        if let (Some(from), Some(account)) = (&header.from, account) {
            let same = Jid::parse(from).is_ok_and(|from| from.bare() == account.as_str());
            if !same {
                let text = "the stream belongs to another account";
                return refused(StreamError::InvalidFrom, text);
            }
        }
        Ok(())
    }

    fn on_element(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut Box<StreamState>,
        bytes: &[u8],
    ) -> Flow {
        if let Phase::ExpectHeader(_) | Phase::ExpectTls = stream.phase {
            let text = Some("a stream header comes first");
            return self.stream_error(host, conn, stream, StreamError::BadFormat, text);
        }
        // The scope leaves the stream while its stanza is handled, so that both can be used.
        let scope = stream
            .scope
            .take()
            .expect("a stream past its header has a scope");
        let flow = match StanzaView::parse(bytes, &scope) {
            // RFC 6120 4.8.3: a client's stanzas are of the content namespace of its stream.
            Ok(view) if view.kind() != Kind::Other && !stream.takes(view.ns()) => {
                self.stream_error(host, conn, stream, StreamError::InvalidNamespace, None)
            }
            Ok(view) => self.on_view(host, conn, stream, &view, &scope),
            Err(error) => self.stream_error(host, conn, stream, error.into(), None),
        };
        if stream.scope.is_none() {
            stream.scope = Some(scope);
        }
        flow
    }

    fn on_view(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut Box<StreamState>,
        view: &StanzaView<'_>,
        scope: &Arc<StreamScope>,
    ) -> Flow {
        if view.ns() == Ns::Streams && view.name() == "error" {
            // RFC 6120 4.9.1.1: the client ends its stream; there is nothing to say against that.
            return self.close_stream(host, conn, stream);
        }
        match &stream.phase {
            Phase::Bound(_) | Phase::ExpectBind(_) if is_management(view) => {
                self.on_management(host, conn, stream, view, scope)
            }
            Phase::Bound(key) if view.ns() == Ns::ClientState => {
                let key = *key;
                self.on_client_state(host, conn, stream, key, view.name())
            }
            Phase::Bound(key) => {
                let key = *key;
                let session = self.sessions.at(key);
                let serial = session.serial;
                if session.outlet.acks.is_some() {
                    return self.on_managed(host, conn, stream, key, view, scope);
                }
                let handle = SessionHandle { key, serial };
                self.cause = Some(Cause::Unnumbered(handle));
                self.asker = Some(Asker::Session(handle));
                let flow = self.on_any_stanza(host, conn, stream, key, view, scope);
                self.cause = None;
                self.hold_back(host, conn, flow)
            }
            Phase::ExpectBind(_) => {
                if view.kind() == Kind::Other {
                    let error = StreamError::UnsupportedStanzaType;
                    return self.stream_error(host, conn, stream, error, None);
                }
                stream.scope = Some(scope.clone());
                self.on_bind(host, conn, stream, view)
            }
            Phase::Component(id) => {
                let id = *id;
                self.on_component_stanza(host, conn, stream, id, view, scope)
            }
            Phase::ExpectHandshake(_) => self.on_handshake(host, conn, stream, view, scope),
            _ => self.on_negotiation(host, conn, stream, view, scope),
        }
    }

    /// A stanza of a managed session: it counts, and what it does has it for a cause.
    fn on_managed(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        key: SessionKey,
        view: &StanzaView<'_>,
        scope: &StreamScope,
    ) -> Flow {
        if view.kind() == Kind::Other {
            return self.on_any_stanza(host, conn, stream, key, view, scope);
        }
        if self.holds_back(host, conn, key) {
            return Flow::Later;
        }
        let session = self.sessions.at_mut(key);
        let serial = session.serial;
        let acks = session.outlet.acks.as_mut();
        let acks = acks.expect("only managed sessions come here");
        let Some(number) = acks.receive() else {
            return Flow::Next; // It was handled before the connection was lost.
        };
        self.origin = acks.saved.then(|| Origin {
            session: acks.id,
            number,
            // Without an id it may be what was said before, said once more.
            hash: match view.kind() == Kind::Message && view.id().is_some() {
                true => acks.hash_alone(number, view.content_hash()),
                false => 0,
            },
            is_late: false,
        });
        let cause = Cause::Stanza {
            session: key,
            serial,
            number,
        };
        self.cause = Some(cause);
        self.asker = Some(Asker::Session(SessionHandle { key, serial }));
        let flow = self.on_any_stanza(host, conn, stream, key, view, scope);
        (self.cause, self.origin) = (None, None);
        self.close_effect(host, Some(cause));
        self.hold_back(host, conn, flow)
    }

    fn on_any_stanza(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        key: SessionKey,
        view: &StanzaView<'_>,
        scope: &StreamScope,
    ) -> Flow {
        match view.is_plain() {
            true => self.on_stanza(host, conn, stream, key, view, scope),
            false => self.on_prefixed(host, conn, stream, key, view, scope),
        }
    }

    /// A stanza whose own tag has a prefix or an odd namespace: written anew once, so that
    /// everything after this copies. Only the writing can fail, by more namespaces than a stanza
    /// may declare.
    fn on_prefixed(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        key: SessionKey,
        view: &StanzaView<'_>,
        scope: &StreamScope,
    ) -> Flow {
        if view.kind() == Kind::Other {
            let error = StreamError::UnsupportedStanzaType;
            return self.stream_error(host, conn, stream, error, None);
        }
        let (from, to) = (
            view.from().unwrap_or_default(),
            view.to().unwrap_or_default(),
        );
        let mut bytes = Vec::new();
        let client = self.client_scope.clone();
        let plain = stanza::writer::restamp(view, scope, &from, &to, &mut bytes)
            .and_then(|()| StanzaView::parse(&bytes, &client));
        match plain {
            Ok(plain) => self.on_stanza(host, conn, stream, key, &plain, &client),
            Err(error) => self.stream_error(host, conn, stream, error.into(), None),
        }
    }

    /// An element of a stream that is not authenticated.
    fn on_negotiation(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut Box<StreamState>,
        view: &StanzaView<'_>,
        scope: &Arc<StreamScope>,
    ) -> Flow {
        if let Some(profile) = Profile::of(view.ns()) {
            return self.on_sasl(host, conn, stream, profile, view, scope);
        }
        if stream.is_proving_alone() {
            return self.interrupted(host, conn, stream);
        }
        match (view.ns(), view.name()) {
            (Ns::Tls, "starttls") => self.on_starttls(host, conn, stream),
            _ if self.is_registration(stream, view) => {
                stream.scope = Some(scope.clone());
                self.on_register(host, conn, stream, view)
            }
            _ if view.kind() == Kind::Other => {
                let error = StreamError::UnsupportedStanzaType;
                self.stream_error(host, conn, stream, error, None)
            }
            _ => {
                let text = Some("authenticate first");
                self.stream_error(host, conn, stream, StreamError::NotAuthorized, text)
            }
        }
    }

    /// An element of SASL, in one of its profiles: what was begun in one is not ended in the other.
    fn on_sasl(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut Box<StreamState>,
        profile: Profile,
        view: &StanzaView<'_>,
        scope: &Arc<StreamScope>,
    ) -> Flow {
        if *stream.profile.get_or_insert(profile) != profile {
            let text = Some("this stream has the other profile of SASL");
            return self.stream_error(host, conn, stream, StreamError::PolicyViolation, text);
        }
        let Ok(tree) = Tree::parse(view.bytes(), scope) else {
            let error = StreamError::NotWellFormed;
            return self.stream_error(host, conn, stream, error, None);
        };
        let root = tree.root();
        match root.name() {
            _ if profile == Profile::Sasl2 => self.on_sasl2(host, conn, stream, root),
            // RFC 6120 6.4.2, 6.4.3: text is all that they hold.
            "auth" | "response" | "abort" if root.children().next().is_some() => {
                self.auth_failed(host, conn, stream, SaslError::MalformedRequest, None)
            }
            "auth" => {
                let mechanism = root.attr("mechanism").unwrap_or_default();
                let initial = sasl::decode_initial(root.text().as_bytes());
                self.on_auth(host, conn, stream, mechanism, initial)
            }
            "response" => {
                let message = sasl::decode(root.text().as_bytes());
                self.on_response(host, conn, stream, message)
            }
            "abort" => self.on_abort(host, conn, stream),
            _ => {
                let error = StreamError::UnsupportedStanzaType;
                self.stream_error(host, conn, stream, error, None)
            }
        }
    }

    /// `<starttls/>` (RFC 6120 5.4.2). Plain bytes behind it are dropped by the host, never parsed.
    fn on_starttls(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
    ) -> Flow {
        let idle = matches!(stream.phase, Phase::ExpectAuth);
        if !stream.may_start_tls(&self.settings) || !idle {
            // RFC 6120 5.4.2.2: failure, then the stream is closed.
            self.count_unfinished(host, stream);
            let out = host.output(conn);
            out.extend_from_slice(
                b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>",
            );
            host.close(conn);
            return Flow::Over;
        }
        host.output(conn)
            .extend_from_slice(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        host.start_tls(conn);
        stream.phase = Phase::ExpectTls;
        stream.profile = None;
        stream.scanner.restart();
        Flow::Stop
    }
}
