//! Sessions of BOSH (XEP-0124): bodies from whichever connection and shard to the shard that has
//! the session, and answers back.
//!
//! Invariant: a session and its stream are on one shard, and move together. The shard where a
//! session began, which its id names, knows where it is; a body goes there and on to it, in the
//! lanes behind the session itself. An answer goes straight to the connection that waits.

use crate::connection::Life;
use crate::inbound::take_bodies;
use crate::transport::bosh::body::Body;
use crate::transport::bosh::session::{Answer, Asker, Session, Terms};
use crate::transport::bosh::{Condition, terminated};
use crate::transport::web::Posted;
use crate::turn::Turn;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use xmpp::stream::StreamState;
use xmpp::{ConnId, Host as _, ShardId, StreamKind, TlsFacts};

/// How long more than one connection may have may wait for a client that asks for nothing.
const AWAY_MS_MAX: u64 = 1_000;
/// What answers to no session are.
const CONTENT: &str = "text/xml; charset=utf-8";
/// What parts an id's shard from what nobody can guess.
const SID_SEPARATOR: char = '-';

/// What shards tell each other of sessions.
#[derive(Debug)]
pub(crate) enum Word {
    /// A body for a session.
    Body {
        body: Body,
        from: Asker,
        is_secured: bool,
    },
    /// A connection that waits for a session is lost.
    Lost { sid: Box<str>, asker: Asker },
    /// An answer to a connection.
    Answer(Answer),
    /// A session that moves here.
    Moved(Moved),
    /// A session that moved on is over.
    Over(Box<str>),
}

impl Word {
    /// Its bytes.
    pub(crate) fn size(&self) -> usize {
        match self {
            Word::Body { body, .. } => body.stream.len(),
            Word::Answer(answer) => answer.body.len(),
            Word::Moved(moved) => moved.undigested.len() + moved.output.len(),
            Word::Lost { .. } | Word::Over(_) => 0,
        }
    }
}

/// A session with its stream and what waits to be said on both sides.
#[derive(Debug)]
pub(crate) struct Moved {
    session: Box<Session>,
    state: Box<StreamState>,
    undigested: Vec<u8>,
    output: Vec<u8>,
    peer: Option<IpAddr>,
}

/// Where a session is.
#[derive(Clone, Copy, Debug)]
enum Place {
    Here(ConnId),
    At(ShardId),
}

/// What one shard knows of sessions.
#[derive(Debug, Default)]
pub(crate) struct Bosh {
    places: HashMap<Box<str>, Place>,
    sessions: HashMap<ConnId, Box<Session>>,
    /// Bodies that came in this turn.
    posts: Vec<(ConnId, Posted)>,
    /// Connections that are lost while they wait.
    lost: Vec<(ConnId, Box<str>)>,
}

impl Bosh {
    /// A body has come over a connection.
    pub(crate) fn post(&mut self, conn: ConnId, posted: Posted) {
        self.posts.push((conn, posted));
    }

    /// A connection is lost that waited for a session.
    pub(crate) fn lose(&mut self, conn: ConnId, sid: Box<str>) {
        self.lost.push((conn, sid));
    }

    /// Whether something waits to be seen to.
    pub(crate) fn has_posts(&self) -> bool {
        !self.posts.is_empty() || !self.lost.is_empty()
    }

    /// The session with that stream.
    pub(crate) fn session(&mut self, id: ConnId) -> Option<&mut Session> {
        self.sessions.get_mut(&id).map(Box::as_mut)
    }
}

impl Turn {
    /// Sees to the bodies that came.
    pub(crate) fn see_to_bodies(&mut self) {
        if !self.world.bosh.has_posts() || self.world.is_backed_up() {
            return;
        }
        for (conn, posted) in std::mem::take(&mut self.world.bosh.posts) {
            self.on_post(conn, posted);
        }
        for (conn, sid) in std::mem::take(&mut self.world.bosh.lost) {
            let asker = self.asker(conn);
            let to = self.first_shard(&sid);
            self.tell(to, Word::Lost { sid, asker });
        }
    }

    fn asker(&self, conn: ConnId) -> Asker {
        let shard = self.world.mesh.id();
        Asker { shard, conn }
    }

    /// The shard where a session began, if there is such a one.
    fn first_shard(&self, sid: &str) -> ShardId {
        let number = sid.split_once(SID_SEPARATOR);
        let number = number.and_then(|(shard, _)| shard.parse::<u16>().ok());
        let number = number.filter(|shard| usize::from(*shard) < self.bells.len());
        number.map_or(self.world.mesh.id(), ShardId)
    }

    fn tell(&mut self, to: ShardId, word: Word) {
        match to == self.world.mesh.id() {
            true => self.on_word(word),
            false => self
                .world
                .mesh
                .push(to, crate::mesh::Item::Bosh(Box::new(word))),
        }
    }

    fn on_post(&mut self, conn: ConnId, posted: Posted) {
        let is_secured = posted.is_secured;
        let body = match Body::parse(&posted.body) {
            Ok(body) if self.stopping.is_none() => body,
            Ok(_) => return self.refuse(conn, Condition::SystemShutdown),
            Err(condition) => return self.refuse(conn, condition),
        };
        let from = self.asker(conn);
        let Some(sid) = body.sid.clone() else {
            return self.begin_session(body, from, posted.peer, is_secured);
        };
        if let Some(web) = self.web(conn) {
            web.asks(&sid);
        }
        let word = Word::Body {
            body,
            from,
            is_secured,
        };
        self.tell(self.first_shard(&sid), word);
    }

    fn web(&mut self, conn: ConnId) -> Option<&mut crate::transport::web::Web> {
        self.world.conns.open_mut(conn)?.web.as_deref_mut()
    }

    /// Answers that there is no session.
    fn refuse(&mut self, conn: ConnId, condition: Condition) {
        let to = self.asker(conn);
        self.refuse_to(to, condition);
    }

    fn refuse_to(&mut self, to: Asker, condition: Condition) {
        let answer = Answer {
            to,
            content: Arc::from(CONTENT),
            body: terminated(Some(condition)),
            is_last: true,
        };
        self.tell(to.shard, Word::Answer(answer));
    }

    /// A client at `peer` wants a session.
    fn begin_session(&mut self, mut body: Body, from: Asker, peer: IpAddr, is_secured: bool) {
        let Some(opening) = body.opening.take().filter(|opening| opening.is_addressed) else {
            return self.refuse_to(from, Condition::ImproperAddressing);
        };
        // It takes no socket while its client is away, and what it takes is as much.
        if !self.admission.enter(peer) {
            self.counters.refused += 1;
            return self.refuse_to(from, Condition::PolicyViolation);
        }
        let own = self.world.mesh.id();
        let (first, second) = (self.world.random(), self.world.random());
        let sid: Box<str> = format!("{}{SID_SEPARATOR}{first:016x}{second:016x}", own.0).into();
        let id = self.world.conns.float();
        if let Some(conn) = self.world.conns.get_mut(id) {
            conn.peer = Some(peer);
        }
        let now = self.world.now;
        let session = Session::new(sid.clone(), body.rid, &opening, is_secured, now);
        self.world.bosh.sessions.insert(id, Box::new(session));
        self.world.bosh.places.insert(sid.clone(), Place::Here(id));
        let facts = is_secured.then(TlsFacts::default);
        self.shard
            .on_open(&mut self.world, id, StreamKind::C2sWeb, peer);
        self.shard.on_upgraded(id, facts, peer);
        if let Some(web) = self.web(from.conn) {
            web.asks(&sid);
        }
        self.on_body(id, body, from, is_secured);
    }

    /// A sibling, or this shard itself, says something of a session.
    pub(crate) fn on_word(&mut self, word: Word) {
        match word {
            Word::Answer(answer) => self.on_answer(answer),
            Word::Moved(moved) => self.on_moved(moved),
            Word::Over(sid) => drop(self.world.bosh.places.remove(&sid)),
            Word::Lost { sid, asker } => match self.world.bosh.places.get(&sid) {
                Some(Place::At(shard)) => self.tell(*shard, Word::Lost { sid, asker }),
                Some(Place::Here(id)) => {
                    let (id, now) = (*id, self.world.now);
                    if let Some(session) = self.world.bosh.session(id) {
                        session.lose(asker, now);
                        self.world.touch(id);
                    }
                }
                None => {}
            },
            Word::Body {
                body,
                from,
                is_secured,
            } => {
                let sid = body.sid.as_deref().unwrap_or_default();
                match self.world.bosh.places.get(sid).copied() {
                    Some(Place::At(shard)) => {
                        let word = Word::Body {
                            body,
                            from,
                            is_secured,
                        };
                        self.tell(shard, word);
                    }
                    Some(Place::Here(id)) => self.on_body(id, body, from, is_secured),
                    None => self.refuse_to(from, Condition::ItemNotFound),
                }
            }
        }
    }

    /// A body has come for a session that is here. What it says is fed in its turn.
    fn on_body(&mut self, id: ConnId, body: Body, from: Asker, is_secured: bool) {
        let life = self.world.conns.get_mut(id).map(|conn| conn.life);
        let is_leaving = life == Some(Life::Leaving);
        let terms = Terms {
            is_secured,
            size_max: 2 * self.shard.element_size_max(id),
            is_known: is_leaving || self.shard.is_established(id),
        };
        let (now, mut answers) = (self.world.now, Vec::new());
        let Some(session) = self.world.bosh.session(id) else {
            return;
        };
        session.receive(body, from, terms, now, &mut answers);
        self.world.count_kept(id);
        self.hand_out(answers);
        match life {
            // It is told how its stream ended.
            Some(Life::Closing) => take_bodies(&mut self.shard, &mut self.world, id),
            _ => self.world.enqueue(id),
        }
        self.world.touch(id);
    }

    fn hand_out(&mut self, answers: Vec<Answer>) {
        for answer in answers {
            self.tell(answer.to.shard, Word::Answer(answer));
        }
    }

    /// An answer for a connection here, if it is still there. What its client has sent meanwhile
    /// is read behind it, but not while he does not read himself.
    fn on_answer(&mut self, answer: Answer) {
        let (id, now) = (answer.to.conn, self.world.now);
        let ends = answer.is_last || self.stopping.is_some();
        let world = &mut self.world;
        let Some(conn) = world.conns.open_mut(id) else {
            return;
        };
        let is_slow = conn.unsent() > world.output_max;
        let Some(web) = &mut conn.web else { return };
        if is_slow {
            self.counters.cut_slow += 1;
            return self.lose(id);
        }
        let before = web.held();
        let keeps = web.reply(&answer.content, &answer.body, ends, now);
        world.held = world.held + web.held() - before;
        conn.choke(world.choke_size);
        match keeps {
            true => self.world.enqueue(id),
            false => conn.life = Life::Closing,
        }
        self.world.touch(id);
    }

    /// Answers requests of a session, moves it, or ends it, as its stream wants.
    pub(crate) fn flush_session(&mut self, id: ConnId) {
        let Some(conn) = self.world.conns.get_mut(id) else {
            return;
        };
        match conn.life {
            Life::Free | Life::Departed | Life::Released => return,
            Life::Cut => return self.release(id),
            Life::Leaving => return self.move_session(id),
            _ if conn.overflowed => {
                self.counters.cut_slow += 1;
                return self.lose(id);
            }
            _ => {}
        }
        let ends = conn.life == Life::Closing;
        let mut output = std::mem::take(&mut conn.output);
        let (now, mut answers) = (self.world.now, Vec::new());
        let Some(session) = self.world.bosh.session(id) else {
            return;
        };
        let is_over = session.answer(&mut output, ends, now, &mut answers);
        let is_away = session.is_away(AWAY_MS_MAX, now);
        let output_max = self.world.output_max;
        let is_much = output.len() > output_max;
        let armed = session.arm(is_much.then_some(AWAY_MS_MAX));
        self.endings.extend(armed.map(|at| Reverse((at, id))));
        self.world.count_kept(id);
        let Some(conn) = self.world.conns.get_mut(id) else {
            return;
        };
        match output.is_empty() {
            true => self.world.pool.give(output),
            false => conn.output = output,
        }
        let waiting = conn.waiting();
        conn.count_burst(output_max, &mut self.world.bursts);
        let relieved = conn.choked && waiting <= self.world.choke_size;
        conn.choked &= !relieved;
        let is_written = conn.tells_written && !ends && waiting == 0;
        conn.tells_written &= !is_written;
        self.hand_out(answers);
        if is_written && !is_over {
            self.on_all_written(id);
        }
        // As for a peer that takes nothing for so long.
        let is_slow = waiting > output_max && is_away;
        self.counters.cut_slow += u64::from(is_slow);
        if is_over || is_slow || ends && self.stopping.is_some() {
            self.lose(id);
        } else if relieved {
            self.world.enqueue(id);
        }
    }

    /// The time of one of a session's requests may be over, or its own.
    pub(crate) fn see_to_session(&mut self, id: ConnId) {
        let now = self.world.now;
        let Some(session) = self.world.bosh.session(id) else {
            return;
        };
        session.disarm(now);
        match session.is_abandoned(now) {
            true => self.lose(id),
            false => self.world.touch(id),
        }
    }

    /// Sends a session to the shard of its account.
    fn move_session(&mut self, id: ConnId) {
        let own = self.world.mesh.id();
        let Some(conn) = self.world.conns.get_mut(id) else {
            return;
        };
        let leaving = conn.leaving.take();
        let leaving = *leaving.expect("a leaving connection has its state");
        let undigested = std::mem::take(&mut conn.undigested);
        let output = std::mem::take(&mut conn.output);
        let peer = conn.peer.take();
        self.world.held -= undigested.len();
        self.world.strip(id);
        self.world.conns.sink(id);
        let Some(mut session) = self.world.bosh.sessions.remove(&id) else {
            return;
        };
        session.leave(own);
        let place = Place::At(leaving.to);
        self.world.bosh.places.insert(session.sid().into(), place);
        self.counters.moved += 1;
        let moved = Moved {
            session,
            state: leaving.state,
            undigested,
            output,
            peer,
        };
        self.tell(leaving.to, Word::Moved(moved));
    }

    /// A session has come.
    fn on_moved(&mut self, moved: Moved) {
        let id = self.world.conns.float();
        let Some(conn) = self.world.conns.get_mut(id) else {
            return;
        };
        conn.peer = moved.peer;
        conn.output = moved.output;
        conn.undigested = moved.undigested;
        self.world.held += conn.held();
        let place = Place::Here(id);
        let bosh = &mut self.world.bosh;
        bosh.places.insert(moved.session.sid().into(), place);
        bosh.sessions.insert(id, moved.session);
        self.world.count_kept(id);
        self.counters.adopted += 1;
        self.shard.on_adopt(&mut self.world, id, moved.state);
        self.world.enqueue(id);
        self.world.touch(id);
    }

    /// A session is over, and its stream, too.
    pub(crate) fn release_session(&mut self, id: ConnId) {
        let own = self.world.mesh.id();
        if let Some(conn) = self.world.conns.get_mut(id)
            && let Some(peer) = conn.peer.take()
        {
            self.admission.leave(peer);
        }
        self.world.strip(id);
        self.world.conns.sink(id);
        let Some(mut session) = self.world.bosh.sessions.remove(&id) else {
            return;
        };
        let (now, mut answers) = (self.world.now, Vec::new());
        session.fail(match self.stopping {
            Some(_) => Condition::SystemShutdown,
            None => Condition::RemoteConnectionFailed,
        });
        session.answer(&mut Vec::new(), true, now, &mut answers);
        self.hand_out(answers);
        self.world.bosh.places.remove(session.sid());
        let left = session.left().iter().filter(|shard| **shard != own);
        for shard in left.copied().collect::<Vec<_>>() {
            self.tell(shard, Word::Over(session.sid().into()));
        }
    }

    /// A connection that carries bodies may be late with the next one.
    pub(crate) fn see_to_request(&mut self, id: ConnId) {
        let now = self.world.now;
        match self.web(id).and_then(|web| web.late_at(now)) {
            Some(at) if at <= now => self.close_written(id),
            Some(at) => self.endings.push(Reverse((at, id))),
            None => {}
        }
    }

    /// The shard ends: so do the connections that no session is asked over.
    pub(crate) fn end_exchanges(&mut self) {
        for id in self.world.conns.spare() {
            self.close_written(id);
        }
    }
}
