//! Clients that come back for sessions that storage has.
//!
//! Invariant: one of an account comes back after another, and [`LOAD_STREAMS_MAX`] wait for that.
//! Each costs as much as its session has in its queue, and what others ask for comes between them.

use crate::account::{Residence, Waiter};
use crate::error::{StanzaError, StreamError};
use crate::host::{ConnId, Host};
use crate::limit::LOAD_STREAMS_MAX;
use crate::parcel::FanoutPurpose;
use crate::port::{SessionId, StoreOp, StoreReply};
use crate::session::SessionKey;
use crate::shard::{Shard, Waiting};
use crate::stream::{ExpectResume, Flow, Phase, StreamState};
use crate::xep::sasl2::Resume;
use crate::xep::stream_management::write_failed;
use stanza::jid::{BareJid, home_hash};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

/// The streams that wait for their sessions.
#[derive(Debug, Default)]
pub(crate) struct Resuming {
    /// Those whose turn it is.
    turns: HashMap<ConnId, Turn>,
    /// Those behind the one of an account whose turn it is.
    waiting: HashMap<BareJid, VecDeque<ConnId>>,
}

#[derive(Debug)]
struct Turn {
    account: BareJid,
    /// An answer is to come that the stream waits for.
    is_asked: bool,
}

/// When it is a stream's turn.
#[derive(Debug, PartialEq, Eq)]
enum Admission {
    Now,
    /// It is called.
    Later,
    /// Too many wait.
    Never,
}

impl Resuming {
    fn enter(&mut self, account: &BareJid, conn: ConnId) -> Admission {
        match self.waiting.entry(account.clone()) {
            Entry::Occupied(mut waiting) if waiting.get().len() < LOAD_STREAMS_MAX => {
                waiting.get_mut().push_back(conn);
                Admission::Later
            }
            Entry::Occupied(_) => Admission::Never,
            Entry::Vacant(place) => {
                place.insert(VecDeque::new());
                self.begin(account.clone(), conn);
                Admission::Now
            }
        }
    }

    fn begin(&mut self, account: BareJid, conn: ConnId) {
        let turn = Turn {
            account,
            is_asked: false,
        };
        self.turns.insert(conn, turn);
    }

    /// A stream's turn lasts until an answer comes.
    fn note_asked(&mut self, conn: ConnId, is_asked: bool) {
        if let Some(turn) = self.turns.get_mut(&conn) {
            turn.is_asked = is_asked;
        }
    }

    /// The stream that comes next, if a turn is over.
    fn next(&mut self, conn: ConnId) -> Option<ConnId> {
        let account = match self.turns.entry(conn) {
            Entry::Occupied(turn) if !turn.get().is_asked => turn.remove().account,
            _ => return None,
        };
        let next = self.waiting.get_mut(&account)?.pop_front();
        match next {
            Some(next) => self.begin(account, next),
            None => drop(self.waiting.remove(&account)),
        }
        next
    }
}

impl Shard {
    /// `<resume/>` of a session that its client does not have: it is back from storage, or may be
    /// there.
    pub(crate) fn resume_stored(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        id: SessionId,
        h: u32,
    ) -> Flow {
        let Phase::ExpectBind(account) = &stream.phase else {
            return Flow::Next;
        };
        if !self.settings.durability.saves_sessions() {
            return self.refuse_resume(host, conn, stream);
        }
        let account = account.clone();
        let admission = self.resuming.enter(&account, conn);
        if admission == Admission::Never {
            return self.put_off_resume(host, conn, stream);
        }
        stream.phase = Phase::ExpectResume(Box::new(ExpectResume {
            account,
            id,
            h,
            stored: None,
        }));
        let flow = match admission == Admission::Now {
            true => self.begin_resume(host, conn, stream),
            false => Flow::Stop,
        };
        if flow == Flow::Stop {
            host.pause(conn);
        }
        self.pass_turn(host, conn);
        flow
    }

    /// It is a stream's turn.
    fn begin_resume(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
    ) -> Flow {
        let Phase::ExpectResume(expect) = &stream.phase else {
            return Flow::Stop;
        };
        let (id, h, account) = (expect.id, expect.h, expect.account.clone());
        // One that another stream was given meanwhile is asked for, too, whatever storage answers:
        // what others ask for comes between two that want the same.
        let found = self.managed.get(&id).copied();
        if let Some(key) = found.filter(|key| !self.is_open(*key)) {
            stream.phase = Phase::ExpectBind(account);
            return self.resume_managed(host, conn, stream, key, h);
        }
        if self.waits_in_storage(&account, id) {
            // It comes with its account, and all the others that this has.
            return self.resume_with(host, conn, stream, &account);
        }
        self.read_resumed(host, account, conn, id);
        Flow::Stop
    }

    /// Whether a session's client has it, or had.
    pub(crate) fn is_open(&self, key: SessionKey) -> bool {
        let acks = self.sessions.at(key).outlet.acks.as_ref();
        acks.is_some_and(|acks| acks.opened)
    }

    pub(crate) fn waits_in_storage(&self, account: &BareJid, id: SessionId) -> bool {
        let ids = self.dormant.get(account);
        ids.is_some_and(|ids| ids.contains(&id))
    }

    /// Whether a connection's turn is over: those that come next have theirs.
    fn pass_turn(&mut self, host: &mut impl Host, mut conn: ConnId) {
        // What this leads to is not for whoever was handled before.
        let before = (self.cause.take(), self.asker.take());
        while let Some(next) = self.resuming.next(conn) {
            conn = next;
            if let Some(mut stream) = self.conns.take(conn) {
                let flow = self.begin_resume(host, conn, &mut stream);
                self.settle_stream(host, conn, stream, flow);
            }
        }
        (self.cause, self.asker) = before;
    }

    fn read_resumed(
        &mut self,
        host: &mut impl Host,
        account: BareJid,
        conn: ConnId,
        session: SessionId,
    ) {
        self.resuming.note_asked(conn, true);
        let ticket = self.ticket_for_itself(Waiting::Resume(conn));
        host.store(ticket, StoreOp::Session { account, session });
    }

    /// Storage has the session of a `<resume/>`, or it has not.
    pub(crate) fn on_resume_stored(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        reply: StoreReply,
    ) {
        self.resuming.note_asked(conn, false);
        if let Some(mut stream) = self.conns.take(conn) {
            let flow = self.resume_read(host, conn, &mut stream, reply);
            self.settle_stream(host, conn, stream, flow);
        }
        self.pass_turn(host, conn);
    }

    fn resume_read(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        reply: StoreReply,
    ) -> Flow {
        let Phase::ExpectResume(expect) = &mut stream.phase else {
            return Flow::Stop;
        };
        let (id, account) = (expect.id, expect.account.clone());
        match reply {
            // It is in memory, and storage has nothing to say to that.
            _ if self.managed.contains_key(&id) => self.resume_resident(host, conn, stream),
            StoreReply::Session(Some(stored)) => {
                expect.stored = Some(stored);
                self.resume_with(host, conn, stream, &account)
            }
            StoreReply::Session(None) => self.refuse_resume(host, conn, stream),
            reply => {
                self.note_unread(host, &account, id, &reply);
                match reply {
                    // Another try would meet the same: its client begins anew.
                    StoreReply::Damaged(_) => self.refuse_resume(host, conn, stream),
                    _ => self.put_off_resume(host, conn, stream),
                }
            }
        }
    }

    /// Goes on as soon as the account is there.
    fn resume_with(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        account: &BareJid,
    ) -> Flow {
        let key = self.loaded_or_loading(host, account.as_str());
        let owner = self.accounts.at_mut(key);
        let streams = owner.waiting_streams();
        match &mut owner.residence {
            Residence::Loading(queue) if streams < LOAD_STREAMS_MAX => {
                queue.push(Waiter::Resume(conn));
                self.resuming.note_asked(conn, true);
                Flow::Stop
            }
            Residence::Loading(_) => self.put_off_resume(host, conn, stream),
            Residence::Resident => self.resume_resident(host, conn, stream),
        }
    }

    /// Storage fails, or too many wait: the client tries again on another connection, for a
    /// `<failed/>` would end its session.
    pub(crate) fn put_off_resume(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &StreamState,
    ) -> Flow {
        let text = Some("the session cannot be read now");
        self.stream_error(host, conn, stream, StreamError::InternalServerError, text)
    }

    /// There is no such session, or no longer.
    pub(crate) fn fail_resume(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        mut stream: Box<StreamState>,
    ) {
        let flow = self.refuse_resume(host, conn, &mut stream);
        self.settle_stream(host, conn, stream, flow);
    }

    /// Another connection has the session. A client that asked by SASL2 would bind the same
    /// resource next; it must not take that from its newer self.
    pub(crate) fn lose_resume(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: Box<StreamState>,
    ) {
        match stream.inline {
            Some(_) => drop(self.stream_error(host, conn, &stream, StreamError::Conflict, None)),
            None => self.fail_resume(host, conn, stream),
        }
    }

    /// A client hears that there is no such session; it may bind, or asked for that already.
    pub(crate) fn refuse_resume(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
    ) -> Flow {
        if let Phase::ExpectResume(expect) = &stream.phase {
            stream.phase = Phase::ExpectBind(expect.account.clone());
        }
        if let Some(inline) = &mut stream.inline {
            inline.resume = Resume::Refused;
            return self.bind_inline(host, conn, stream);
        }
        write_failed(host.output(conn), "item-not-found");
        Flow::Next
    }

    /// The account that a stream's session belongs to is there, or it cannot be.
    pub(crate) fn resume_loaded(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        error: Option<StanzaError>,
    ) {
        self.resuming.note_asked(conn, false);
        if let Some(mut stream) = self.conns.take(conn) {
            let flow = match error {
                None => self.resume_resident(host, conn, &mut stream),
                Some(StanzaError::InternalServerError) => self.put_off_resume(host, conn, &stream),
                Some(_) => self.refuse_resume(host, conn, &mut stream),
            };
            self.settle_stream(host, conn, stream, flow);
        }
        self.pass_turn(host, conn);
    }

    /// The session and its account are there: storage learns how it goes on.
    fn resume_resident(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
    ) -> Flow {
        let Phase::ExpectResume(expect) = &mut stream.phase else {
            return Flow::Stop;
        };
        let (id, h, bare) = (expect.id, expect.h, expect.account.clone());
        let stored = expect.stored.take();
        if let Some(&key) = self.managed.get(&id) {
            // It is awake by now, or another stream was faster; the newer one wins.
            stream.phase = Phase::ExpectBind(bare);
            return self.resume_managed(host, conn, stream, key, h);
        }
        let found = self.accounts.find(home_hash(bare.as_str()), bare.as_str());
        let (stored, account) = match (stored, found) {
            (Some(stored), Some(account)) => (stored, account),
            (None, Some(_)) if self.waits_in_storage(&bare, id) => {
                // It did not come with the others: another has its resource, or it failed.
                self.read_resumed(host, bare, conn, id);
                return Flow::Stop;
            }
            _ => return self.refuse_resume(host, conn, stream),
        };
        let holder = self.holder(account, &stored.saved.resource);
        if let Some(older) = holder.filter(|key| self.is_uncounted(*key)) {
            // It must not take the account with it.
            self.accounts.at_mut(account).pins += 1;
            self.end_session(host, older);
            self.accounts.at_mut(account).pins -= 1;
        }
        // The client may have bound the resource anew.
        let taken = self.holder(account, &stored.saved.resource).is_some();
        // Or it was read before it ended, and is being removed now.
        let ends = self.session_ends.values().any(|end| end.is_of(id));
        if taken || ends {
            self.evict_if_idle(account);
            return self.refuse_resume(host, conn, stream);
        }
        self.forget_dormant(&bare, id);
        let key = self.revive(host, account, id, *stored);
        self.hibernate(host, key);
        stream.phase = Phase::ExpectBind(bare);
        let flow = self.resume_managed(host, conn, stream, key, h);
        self.fetch_after_crash(host, key);
        flow
    }

    /// Storage learns how a session's queue is numbered before its client gets it.
    pub(crate) fn renumber_resumed(&mut self, host: &mut impl Host, conn: ConnId, key: SessionKey) {
        self.resuming.note_asked(conn, true);
        self.renumber(host, key, |serial| Waiting::Resumed { conn, key, serial });
    }

    /// A session is back from storage: its client gets it.
    pub(crate) fn on_resumed(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        key: SessionKey,
        serial: u32,
        reply: &StoreReply,
    ) {
        self.resuming.note_asked(conn, false);
        self.give_resumed(host, conn, key, serial, reply);
        self.pass_turn(host, conn);
    }

    fn give_resumed(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        key: SessionKey,
        serial: u32,
        reply: &StoreReply,
    ) {
        let Some(session) = self.session_of(key, serial) else {
            return self.fail_resuming(host, conn);
        };
        if *reply != StoreReply::Done {
            if let Some(acks) = &mut session.outlet.acks {
                acks.misnumbered = true;
            }
            if let Some(stream) = self.conns.take(conn) {
                self.put_off_resume(host, conn, &stream);
            }
            return;
        }
        let acks = self.sessions.at(key).outlet.acks.as_ref();
        let was_opened = acks.is_some_and(|acks| acks.opened);
        if self.resume_committed(host, conn, key) && !was_opened {
            self.refresh(host, key);
        }
    }

    /// What a resumed client knows may be old: the crash took presence and pushes with it.
    fn refresh(&mut self, host: &mut impl Host, key: SessionKey) {
        self.refresh_strangers(host, key);
        let session = self.sessions.at(key);
        let (account, queued) = (session.account, session.outlet.queued());
        if session.interested {
            self.refresh_roster(host, account, key);
        }
        self.refresh_blocking(host, key);
        self.sessions.at_mut(key).outlet.excuse_behind(queued);
        let Some(presence) = self.sessions.at(key).presence.clone() else {
            return;
        };
        self.announce(host, key, &presence, &[]);
        self.greet(host, key, FanoutPurpose::Refresh);
        self.learn_caps_again(host, key, &presence);
        if self.sessions.at(key).takes_bare() {
            self.fetch_offline(host, key);
        }
    }
}
