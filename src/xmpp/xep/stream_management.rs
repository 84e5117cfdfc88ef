//! XEP-0198: Stream Management. Its elements on the wire, and the way back to a session.
//!
//! Invariant: every `h` that a client is told is settled, and in storage where the session is.

use super::sasl2::SUCCESS_END;
use super::{Extension, Xep};
use crate::error::{StreamError, put};
use crate::host::{ConnId, Host};
use crate::limit::STORAGE_RETRY_MS;
use crate::outbox::{Acks, Cleared};
use crate::port::{SessionId, StoreOp, StoreReply};
use crate::session::{Outlet, Session, SessionKey};
use crate::settle::Held;
use crate::shard::{Shard, Timer, Waiting};
use crate::stream::{ExpectResume, Flow, Phase, StreamState};
use crate::xml::Attr;
use stanza::jid::virtual_shard;
use stanza::ns::Ns;
use stanza::scope::StreamScope;
use stanza::tree::{Node, Tree};
use stanza::view::StanzaView;

/// Milliseconds that a session waits for its client to come back.
pub const RESUME_MS_MAX: u32 = 300_000;

/// Digits of an id's virtual shard; those of its secret follow.
const ID_HOME_DIGITS: usize = 3;

/// Digits of a whole id.
const ID_DIGITS: usize = ID_HOME_DIGITS + 32;

/// Stream management. Its elements are no stanzas, so the stream hands them over itself.
#[derive(Debug)]
pub struct StreamManagement;

impl Extension for StreamManagement {
    const XEP: Xep = Xep {
        number: 198,
        version: "1.6.3",
    };
}

/// The session that a client wants to go on with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    id: SessionId,
    /// How far the client has counted.
    h: u32,
}

impl Wanted {
    /// What `<resume/>` asks for, if that makes sense.
    pub(crate) fn read(resume: Node<'_>) -> Option<Wanted> {
        let id = parse_id(resume.attr("previd")?)?;
        let h = resume.attr("h")?.parse().ok()?;
        Some(Wanted { id, h })
    }
}

/// How a client wants its session managed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Enable {
    is_resumable: bool,
    resume_ms: u32,
}

impl Enable {
    /// What `<enable/>` asks for.
    pub(crate) fn read(enable: Node<'_>) -> Enable {
        Enable {
            is_resumable: matches!(enable.attr("resume"), Some("true" | "1")),
            resume_ms: resume_ms(enable.attr("max")),
        }
    }
}

/// The session that a client means by the text of its id.
fn parse_id(text: &str) -> Option<SessionId> {
    let is_id = text.len() == ID_DIGITS && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let (home, secret) = is_id.then(|| text.split_at(ID_HOME_DIGITS))?;
    Some(SessionId {
        home: u16::from_str_radix(home, 16).ok()?,
        secret: u128::from_str_radix(secret, 16).ok()?,
    })
}

/// How long a session waits for a client that asks for so many seconds (XEP-0198 3). Storage does
/// not have it: over a restart a session waits as long as any.
fn resume_ms(max: Option<&str>) -> u32 {
    let asked_s: Option<u32> = max.and_then(|max| max.parse().ok());
    let asked_ms = asked_s.filter(|s| *s > 0).map(|s| s.saturating_mul(1_000));
    asked_ms.map_or(RESUME_MS_MAX, |asked_ms| asked_ms.min(RESUME_MS_MAX))
}

impl Shard {
    /// An element of stream management on an authenticated stream.
    pub(crate) fn on_management(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        view: &StanzaView<'_>,
        scope: &StreamScope,
    ) -> Flow {
        let Ok(tree) = Tree::parse(view.bytes(), scope) else {
            return self.stream_error(host, conn, stream, StreamError::NotWellFormed, None);
        };
        let root = tree.root();
        match (&stream.phase, view.name()) {
            (Phase::Bound(key), "enable") => {
                let key = *key;
                return self.enable(host, conn, stream, key, root);
            }
            (Phase::Bound(key), "r") => {
                let key = *key;
                self.on_request(host, conn, key);
            }
            (Phase::Bound(key), "a") => {
                let key = *key;
                return self.on_acknowledgement(host, conn, stream, key, root);
            }
            (Phase::ExpectBind(_), "resume") => {
                return match Wanted::read(root) {
                    Some(wanted) => self.resume(host, conn, stream, wanted),
                    None => self.refuse_resume(host, conn, stream),
                };
            }
            (_, "enable" | "resume") => {
                write_failed(host.output(conn), "unexpected-request");
            }
            (_, "r" | "a") => {}
            _ => {
                let error = StreamError::UnsupportedStanzaType;
                return self.stream_error(host, conn, stream, error, None);
            }
        }
        Flow::Next
    }

    fn enable(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &StreamState,
        key: SessionKey,
        root: Node<'_>,
    ) -> Flow {
        if self.sessions.at(key).outlet.acks.is_some() {
            // XEP-0198 3: a second one ends the stream.
            write_failed(host.output(conn), "unexpected-request");
            let text = Some("stream management is enabled already");
            return self.stream_error(host, conn, stream, StreamError::PolicyViolation, text);
        }
        match self.manage(host, key, Enable::read(root)) {
            Ok(true) => self.open_managed(host, key, None),
            Ok(false) => {}
            Err(condition) => write_failed(host.output(conn), condition),
        }
        Flow::Next
    }

    /// Has a session managed. Whether it is so at once, or has to be stored first; where it cannot
    /// be, the condition that says why.
    pub(crate) fn manage(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        enable: Enable,
    ) -> Result<bool, &'static str> {
        if self.is_stopping() {
            return Err("unexpected-request");
        }
        if self.sessions.at(key).is_unmanageable {
            return Err("internal-server-error");
        }
        // Nobody can come back to an account that goes with its stream.
        let is_anonymous = self.is_anonymous(key);
        let resumable = enable.is_resumable && !is_anonymous;
        let secret = u128::from(host.random()) << 64 | u128::from(host.random());
        let home = virtual_shard(self.sessions.at(key).bare());
        let id = SessionId { home, secret };
        let saved = self.settings.durability.saves_sessions() && !is_anonymous;
        let mut acks = Acks::new(id, resumable, saved);
        acks.resume_ms = enable.resume_ms;
        self.sessions.at_mut(key).outlet.acks = Some(Box::new(acks));
        self.managed.insert(id, key);
        if saved {
            self.put_session(host, key, |serial| Waiting::Enabled { key, serial });
        }
        Ok(!saved)
    }

    /// Storage has a session that was enabled, or it has not.
    pub(crate) fn on_enabled(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        serial: u32,
        reply: StoreReply,
    ) {
        if self.session_of(key, serial).is_none() {
            return;
        }
        let mut owed = self.owed_success(key);
        let stream = owed.as_mut().map(|(_, stream)| &mut **stream);
        match reply {
            StoreReply::Done => {
                self.note_saved(host, key);
                self.open_managed(host, key, stream);
            }
            reply => self.on_enable_refused(host, key, stream, &reply),
        }
        if let Some((conn, stream)) = owed {
            self.settle_stream(host, conn, stream, Flow::Next);
        }
    }

    fn on_enable_refused(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        stream: Option<&mut StreamState>,
        reply: &StoreReply,
    ) {
        tracing::error!(?reply, "a session was not stored");
        let session = self.sessions.at_mut(key);
        session.is_unmanageable = true;
        let outlet = &mut session.outlet;
        let conn = outlet.conn;
        let Some(acks) = outlet.acks.take() else {
            return;
        };
        self.managed.remove(&acks.id);
        let Some(conn) = conn else {
            // Nobody can come back to it.
            self.sessions.at_mut(key).outlet.acks = Some(acks);
            return self.end_session(host, key);
        };
        let condition = "internal-server-error";
        match stream {
            Some(stream) => self.succeed_bound(host, conn, stream, key, Some(condition)),
            None => write_failed(host.output(conn), condition),
        }
        let account = self.sessions.at(key).account;
        let ticket = self.begin_end(account, &acks);
        let out = host.output(conn);
        for sent in acks.into_unacked() {
            out.extend_from_slice(&sent.bytes);
            sent.note_taken();
        }
        self.finish_end(host, ticket);
    }

    /// Writes `<enabled/>`, into the `<success/>` that a stream is owed if it is; from here on both
    /// sides count.
    pub(crate) fn open_managed(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        owed: Option<&mut StreamState>,
    ) {
        let Session { outlet, .. } = self.sessions.at_mut(key);
        let Some(acks) = &mut outlet.acks else { return };
        acks.opened = true;
        let Some(conn) = outlet.conn else { return };
        match owed {
            Some(stream) => self.succeed_bound(host, conn, stream, key, None),
            None => write_enabled(acks, host.output(conn)),
        }
        let acks = self.sessions.at_mut(key).outlet.acks.as_mut();
        let acks = acks.expect("it is managed");
        acks.flush(host, Some(conn));
        if acks.owed {
            // Its `<r/>` came before storage had the session.
            self.on_request(host, conn, key);
        }
        self.sessions.ask_later(host, key);
    }

    /// `<r/>`: answered at once by what is certain; the rest follows when it is.
    fn on_request(&mut self, host: &mut impl Host, conn: ConnId, key: SessionKey) {
        self.acknowledge_settled(host, key);
        let Some(acks) = &mut self.sessions.at_mut(key).outlet.acks else {
            return;
        };
        if !acks.opened {
            acks.owed = true;
            return;
        }
        write_answer(acks.h(), host.output(conn));
        acks.owed = acks.committed < acks.received;
        self.acknowledge_settled(host, key);
    }

    /// A client's input waits for storage, and `<r/>` may be in it: XEP-0198 4 has it answered all
    /// the same. Whether the session is managed.
    pub(crate) fn answer_ahead(&self, host: &mut impl Host, conn: ConnId, key: SessionKey) -> bool {
        let acks = self.sessions.at(key).outlet.acks.as_ref();
        if let Some(acks) = acks.filter(|acks| acks.opened) {
            write_answer(acks.h(), host.output(conn));
        }
        acks.is_some()
    }

    /// Something of a client's was settled: it goes to storage and to the client, if that waits.
    pub(crate) fn acknowledge_settled(&mut self, host: &mut impl Host, key: SessionKey) {
        let session = self.sessions.at_mut(key);
        let Some(acks) = &mut session.outlet.acks else {
            return;
        };
        let settled = acks.settling.settled();
        if settled <= acks.committed || acks.committing {
            return;
        }
        if !acks.saved {
            acks.committed = settled;
            return self.tell_settled(host, key);
        }
        let held = &self.accounts.at(session.account).held;
        let is_vital = acks.vital > 0 || held.iter().any(Held::is_vital);
        if !acks.owed || acks.saving || is_vital {
            return;
        }
        if acks.unsaved {
            return self.save_session(host, key);
        }
        acks.committing = true;
        let (id, serial) = (acks.id, session.serial);
        let account = self.accounts.at(session.account).jid.clone();
        let waiting = Waiting::Handled {
            key,
            serial,
            handled: settled,
        };
        let ticket = self.ticket_for_itself(waiting);
        let op = StoreOp::PutHandled {
            account,
            session: id,
            handled: settled,
        };
        host.store(ticket, op);
    }

    /// Storage knows how far a session is settled. Where it does not, the number stays as it is,
    /// and a later try has to tell it.
    pub(crate) fn on_handled(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        serial: u32,
        handled: u64,
        reply: StoreReply,
    ) {
        let Some(session) = self.session_of(key, serial) else {
            return;
        };
        let Some(acks) = &mut session.outlet.acks else {
            return;
        };
        acks.committing = false;
        let resuming = acks.resuming.take();
        let was_refused = reply != StoreReply::Done;
        if was_refused {
            tracing::error!(?reply, "a session's count was not stored");
        } else {
            acks.committed = handled;
            self.tell_settled(host, key);
            self.acknowledge_settled(host, key);
            self.farewell_if_settled(host, key);
        }
        if let Some(conn) = resuming {
            self.resume_committed(host, conn, key);
        }
        if was_refused {
            self.acknowledge_later(host, key);
        }
    }

    /// Storage refused what a number needs: it is asked again while a client waits for that.
    pub(crate) fn acknowledge_later(&mut self, host: &mut impl Host, key: SessionKey) {
        let Outlet { conn, acks } = &self.sessions.at(key).outlet;
        if conn.is_none() || !acks.as_ref().is_some_and(|acks| acks.owed) {
            return;
        }
        if self.sessions.owing.is_empty() {
            let at = host.now().plus_ms(STORAGE_RETRY_MS);
            self.arm(host, at, Timer::Owing);
        }
        self.sessions.owing.insert(key);
    }

    /// The time to ask again has come; some of the sessions may have ended.
    pub(crate) fn acknowledge_again(&mut self, host: &mut impl Host) {
        for key in std::mem::take(&mut self.sessions.owing) {
            if self.sessions.get(key).is_some() {
                self.acknowledge_settled(host, key);
            }
        }
    }

    /// The unsolicited `<a/>` behind an answer that was short.
    fn tell_settled(&mut self, host: &mut impl Host, key: SessionKey) {
        let Session { outlet, .. } = self.sessions.at_mut(key);
        let (Some(acks), Some(conn)) = (&mut outlet.acks, outlet.conn) else {
            return;
        };
        if acks.owed && acks.opened {
            acks.owed = acks.committed < acks.received;
            write_answer(acks.h(), host.output(conn));
            self.end_farewell(host, key);
        }
    }

    fn on_acknowledgement(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &StreamState,
        key: SessionKey,
        root: Node<'_>,
    ) -> Flow {
        let Some(acks) = &mut self.sessions.at_mut(key).outlet.acks else {
            return Flow::Next;
        };
        let Some(h) = root.attr("h").and_then(|h| h.parse().ok()) else {
            return self.stream_error(host, conn, stream, StreamError::InvalidXml, None);
        };
        if !acks.can_be(h) {
            let sent = acks.sent();
            return self.claimed_too_much(host, conn, stream, h, sent);
        }
        let was_held = acks.vital > 0;
        let cleared = acks.acknowledge(h);
        self.clear(host, key, cleared);
        self.forget_strangers(host, key);
        if was_held {
            self.acknowledge_settled(host, key);
        }
        Flow::Next
    }

    /// What a client has acknowledged leaves storage.
    pub(crate) fn clear(&mut self, host: &mut impl Host, key: SessionKey, cleared: Cleared) {
        if let Some((from, to)) = cleared.places {
            let session = self.sessions.at(key);
            let Some(acks) = &session.outlet.acks else {
                return;
            };
            let op = StoreOp::Dequeue {
                account: self.accounts.at(session.account).jid.clone(),
                session: acks.id,
                from,
                to,
            };
            let ticket = self.ticket_for_itself(Waiting::Nothing);
            host.store(ticket, op);
        }
        if !cleared.offline.is_empty() {
            self.clear_offline(host, key, &cleared.offline);
        }
    }

    /// XEP-0198 4: a client that acknowledges what was never sent has lost count.
    fn claimed_too_much(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &StreamState,
        h: u32,
        sent: u32,
    ) -> Flow {
        if let Phase::Bound(key) = stream.phase {
            self.end_session(host, key);
        }
        put(
            host.output(conn),
            format_args!(
                "<stream:error><undefined-condition xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
                 <handled-count-too-high xmlns='urn:xmpp:sm:3' h='{h}' send-count='{sent}'/>\
                 </stream:error></stream:stream>"
            ),
        );
        host.close(conn);
        Flow::Over
    }

    /// `<resume/>` instead of a bind request, or before one (XEP-0198 5, 9.2).
    pub(crate) fn resume(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        Wanted { id, h }: Wanted,
    ) -> Flow {
        let found = self.managed.get(&id).copied();
        match found.filter(|key| self.is_open(*key)) {
            Some(key) => self.resume_managed(host, conn, stream, key, h),
            None => self.resume_stored(host, conn, stream, id, h),
        }
    }

    /// `<resume/>` of a session that is in memory.
    pub(crate) fn resume_managed(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        key: SessionKey,
        h: u32,
    ) -> Flow {
        let Phase::ExpectBind(account) = &stream.phase else {
            return Flow::Next;
        };
        // Only the account that the session belongs to, and only with its secret. One that is not
        // open but waits is back from storage, and its client has not got it yet.
        let session = self.sessions.at_mut(key);
        let is_own = session.bare() == account.as_str();
        let acks = session.outlet.acks.as_deref_mut();
        let waits = |acks: &&mut Acks| acks.opened || acks.waits_until.is_some();
        let acks = acks.filter(|acks| is_own && acks.resumable).filter(waits);
        let Some(acks) = acks else {
            return self.refuse_resume(host, conn, stream);
        };
        acks.recount(h);
        if !acks.can_be(h) {
            let sent = acks.sent();
            return self.claimed_too_much(host, conn, stream, h, sent);
        }
        let (id, opened) = (acks.id, acks.opened);
        if !opened {
            // Whoever asked before did not get it: storage learns its numbers for this one.
            self.renumber_resumed(host, conn, key);
        }
        if !opened || self.resume_later(host, conn, key) {
            stream.phase = Phase::ExpectResume(Box::new(ExpectResume {
                account: account.clone(),
                id,
                h,
                stored: None,
            }));
            host.pause(conn);
            return Flow::Stop;
        }
        self.take_over(host, key);
        self.reattach(host, conn, stream, key, h);
        Flow::Next
    }

    /// Whether storage first has to learn how far a session is settled: a client that is told less
    /// sends again what is settled.
    fn resume_later(&mut self, host: &mut impl Host, conn: ConnId, key: SessionKey) -> bool {
        let Some(acks) = &mut self.sessions.at_mut(key).outlet.acks else {
            return false;
        };
        acks.owed = true;
        self.acknowledge_settled(host, key);
        let Some(acks) = &mut self.sessions.at_mut(key).outlet.acks else {
            return false;
        };
        if !acks.committing {
            return false;
        }
        let earlier = acks.resuming.replace(conn);
        if let Some((earlier, stream)) = earlier.and_then(|it| Some((it, self.conns.take(it)?))) {
            self.lose_resume(host, earlier, stream);
        }
        true
    }

    /// A stream that waits for its session gets none: it ended, and something may be taking its
    /// place just now. A client that asked by SASL2 would bind the same resource: it comes again.
    pub(crate) fn fail_resuming(&mut self, host: &mut impl Host, conn: ConnId) {
        if let Some(stream) = self.conns.take(conn) {
            match stream.inline {
                Some(_) => drop(self.put_off_resume(host, conn, &stream)),
                None => self.fail_resume(host, conn, stream),
            }
        }
    }

    /// Storage knows what it has to of a session: its client gets it. Whether it did.
    pub(crate) fn resume_committed(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        key: SessionKey,
    ) -> bool {
        let Some(mut stream) = self.conns.take(conn) else {
            return false;
        };
        let Phase::ExpectResume(expect) = &stream.phase else {
            self.conns.put(conn, stream);
            return false;
        };
        let h = expect.h;
        let acks = self.sessions.at(key).outlet.acks.as_ref();
        if !acks.is_some_and(|acks| acks.can_be(h)) {
            // Another connection has acknowledged more meanwhile.
            self.lose_resume(host, conn, stream);
            return false;
        }
        self.take_over(host, key);
        self.reattach(host, conn, &mut stream, key, h);
        self.settle_stream(host, conn, stream, Flow::Next);
        true
    }

    /// XEP-0198 5: the old connection of a session may seem alive; the newer one wins.
    fn take_over(&mut self, host: &mut impl Host, key: SessionKey) {
        let old = self.sessions.at_mut(key).outlet.conn.take();
        self.sessions.activate(host, key);
        if let Some(old) = old
            && let Some(old_stream) = self.conns.take(old)
        {
            debug_assert!(matches!(old_stream.phase, Phase::Bound(bound) if bound == key));
            StreamError::Conflict.write(None, host.output(old));
            host.close(old);
        }
    }

    /// Gives a session its new connection, and the connection what it missed.
    fn reattach(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        key: SessionKey,
        h: u32,
    ) {
        stream.phase = Phase::Bound(key);
        self.end_hibernation(key);
        self.sessions.note_agent(key, stream.agent());
        let Session {
            outlet,
            address,
            closing,
            expiring,
            ..
        } = self.sessions.at_mut(key);
        outlet.conn = Some(conn);
        *closing = false;
        let was_late = std::mem::take(expiring);
        let acks = outlet.acks.as_mut().expect("a resumed session is managed");
        acks.opened = true;
        let cleared = acks.acknowledge(h);
        acks.rewind();
        acks.owed = false;
        let inline = stream.inline.take();
        let out = host.output(conn);
        if let Some(inline) = &inline {
            // XEP-0388 2.6.1: no resource was bound.
            inline.open_success(address.bare(), out);
        }
        put(
            out,
            format_args!(
                "<resumed xmlns='urn:xmpp:sm:3' previd='{}' h='{}'/>",
                acks.id,
                acks.h()
            ),
        );
        if inline.is_some() {
            // XEP-0198 9.2: no features follow.
            out.extend_from_slice(SUCCESS_END);
        }
        acks.rewrite(host, conn, &self.settings.domain);
        tracing::debug!(jid = address.full(), "session resumed");
        self.clear(host, key, cleared);
        self.push_seen(host, key);
        if was_late {
            let account = self.sessions.at(key).account;
            self.deliver_late(host, account);
        }
    }

    /// The connection of a session is gone without a farewell: it waits for its client if it can.
    pub(crate) fn lose_connection(&mut self, host: &mut impl Host, key: SessionKey) {
        let stopping = self.is_stopping();
        let session = self.sessions.at_mut(key);
        let acks = session.outlet.acks.as_ref();
        let Some(acks) = acks.filter(|acks| acks.resumable && acks.opened) else {
            return self.end_session(host, key);
        };
        if stopping && !acks.saved {
            return self.end_session(host, key);
        }
        self.push_unacked(host, key);
        self.sessions.at_mut(key).outlet.conn = None;
        // XEP-0352 5.2: a session that is resumed is active.
        self.sessions.activate(host, key);
        let session = self.sessions.at(key);
        if session.outlet.has_overflowed() {
            return self.end_session(host, key);
        }
        tracing::debug!(jid = session.full(), "session waits for its client");
        let account = session.account;
        self.hibernate(host, key);
        self.take_back_untaken(host, account, key, None);
    }

    /// Has a session wait for its client. Where as many wait as may, the one whose time is over
    /// first ends before: never this one, which its caller still has in hand.
    pub(crate) fn hibernate(&mut self, host: &mut impl Host, key: SessionKey) {
        if self.hibernating.len() >= self.settings.limits.hibernating_max
            && let Some(&(_, first)) = self.hibernating.first()
        {
            self.end_session(host, first);
        }
        let Some(acks) = &mut self.sessions.at_mut(key).outlet.acks else {
            return;
        };
        let until = host.now().plus_ms(acks.resume_ms.into());
        acks.waits_until = Some(until);
        self.hibernating.insert((until, key));
        self.arm_hibernation(host);
    }

    /// A session does not wait for its client any more.
    pub(crate) fn end_hibernation(&mut self, key: SessionKey) {
        let acks = self.sessions.at_mut(key).outlet.acks.as_mut();
        if let Some(until) = acks.and_then(|acks| acks.waits_until.take()) {
            self.hibernating.remove(&(until, key));
        }
    }
}

/// Writes `<a/>`.
pub(crate) fn write_answer(h: u32, out: &mut Vec<u8>) {
    put(out, format_args!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
}

/// Writes `<enabled/>`.
pub(crate) fn write_enabled(acks: &Acks, out: &mut Vec<u8>) {
    match acks.resumable {
        true => put(
            out,
            format_args!(
                "<enabled xmlns='urn:xmpp:sm:3' id='{}' resume='true' max='{}'/>",
                acks.id,
                acks.resume_ms / 1000
            ),
        ),
        false => out.extend_from_slice(b"<enabled xmlns='urn:xmpp:sm:3'/>"),
    }
}

pub(crate) fn write_failed(out: &mut Vec<u8>, condition: &str) {
    let condition = Attr(condition);
    put(
        out,
        format_args!(
            "<failed xmlns='urn:xmpp:sm:3'>\
             <{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
        ),
    );
}

/// Whether the element is stream management's.
pub(crate) fn is_management(view: &StanzaView<'_>) -> bool {
    view.ns() == Ns::StreamManagement
}
