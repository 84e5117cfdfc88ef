//! A session: which requests it knows, which of them wait, and what they are answered with.
//!
//! Invariant: requests are taken and answered in the order of their ids, each once; whoever asks
//! again for what was answered gets the same answer, as long as it is remembered.

use super::body::{Body, Opening};
use super::{Condition, HTTP_BIND, recoverable, terminated};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use stanza::framing::{Piece, Pieces};
use stanza::writer;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use xmpp::{ConnId, ShardId, Timestamp};

/// The highest version that is spoken.
const VERSION: (u32, u32) = (1, 11);
/// How long a request may wait, in seconds; proxies end what waits for longer.
const WAIT_S_MAX: u64 = 60;
/// Requests that may wait.
const HOLD_MAX: u64 = 1;
/// Requests that may be open; and so many answers are remembered (XEP-0124 14.3).
const REQUESTS_MAX: usize = 2;
/// How long a client may have no request open, in seconds.
const INACTIVITY_S: u64 = 60;
/// How long it may announce that it will have none, in seconds.
const PAUSE_S_MAX: u64 = 120;
/// How often it may ask without having to say anything, in seconds.
const POLLING_S: u64 = 2;
/// How long what a stream said last waits for who asks, in seconds.
const ENDED_S_MAX: u64 = 10;
/// Bytes of a stranger's body that comes before its turn, as connections may change the order.
const EARLY_SIZE_MAX: usize = 4 << 10;
/// Bytes of one answer; the element that reaches it is its last.
const ANSWER_SIZE_MAX: usize = 64 << 10;
/// What answers are, where the client does not say (XEP-0124 7.1).
const CONTENT: &str = "text/xml; charset=utf-8";

/// A connection that waits for an answer, wherever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Its shard.
    pub shard: ShardId,
    /// Which there.
    pub conn: ConnId,
}

/// An answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whose.
    pub to: Asker,
    /// The type of its content.
    pub content: Arc<str>,
    /// The content.
    pub body: Vec<u8>,
    /// Whether its connection is kept no longer, as it has no session.
    pub is_last: bool,
}

/// How a request came, and what may come.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Whether it came in secrecy.
    pub is_secured: bool,
    /// Bytes that it may say to the stream.
    pub size_max: usize,
    /// Whether the client has said who it is.
    pub is_known: bool,
}

/// A request that has come and is not taken, or not answered.
#[derive(Debug)]
struct Request {
    rid: u64,
    /// Who waits; nobody where the connection was lost.
    asker: Option<Asker>,
    since: Timestamp,
    key: Option<Box<str>>,
}

/// An answer that may be wanted again.
#[derive(Debug)]
struct Answered {
    rid: u64,
    key: Option<Box<str>>,
    body: Vec<u8>,
}

/// The last new request.
#[derive(Clone, Copy, Debug)]
struct Last {
    at: Timestamp,
    is_empty: bool,
}

/// What the first answer tells.
#[derive(Debug)]
struct Greeting {
    version: (u32, u32),
}

/// One session.
#[derive(Debug)]
pub struct Session {
    sid: Box<str>,
    /// Whether it began in secrecy; then nothing of it goes on in clear.
    is_secured: bool,
    content: Arc<str>,
    /// Until it is told.
    greeting: Option<Greeting>,
    wait_s: u64,
    hold: usize,
    acknowledges: bool,
    /// The id of the request that is taken next.
    next: u64,
    /// Those that have come and are not taken.
    coming: BTreeMap<u64, (Request, Body)>,
    /// Those that are taken and not answered.
    held: VecDeque<Request>,
    answered: VecDeque<Answered>,
    /// What the next key has to be the source of.
    key: Option<Box<str>>,
    last: Option<Last>,
    /// Whether the last answer said nothing.
    was_empty: bool,
    /// Whether all that waits is to be answered with nothing.
    is_pausing: bool,
    /// Whether its client has ended it.
    is_terminated: bool,
    inactivity_s: u64,
    /// Since when no request waits.
    idle_since: Option<Timestamp>,
    /// When it is over, once its stream has ended, whoever asks.
    ended_at: Option<Timestamp>,
    failure: Option<Condition>,
    /// When it is looked at next.
    armed: Option<Timestamp>,
    /// The shards that it has left.
    left: Vec<ShardId>,
}

impl Session {
    /// One that a client asks for.
    pub fn new(
        sid: Box<str>,
        rid: u64,
        opening: &Opening,
        is_secured: bool,
        now: Timestamp,
    ) -> Session {
        let content = opening.content.as_deref().unwrap_or(CONTENT);
        Session {
            sid,
            is_secured,
            content: content.into(),
            greeting: Some(Greeting {
                version: opening.version.map_or(VERSION, |known| known.min(VERSION)),
            }),
            wait_s: opening.wait.unwrap_or(WAIT_S_MAX).min(WAIT_S_MAX),
            hold: opening.hold.unwrap_or(HOLD_MAX).min(HOLD_MAX) as usize,
            acknowledges: opening.acknowledges,
            next: rid,
            coming: BTreeMap::new(),
            held: VecDeque::new(),
            answered: VecDeque::new(),
            key: None,
            last: None,
            was_empty: false,
            is_pausing: false,
            is_terminated: false,
            inactivity_s: INACTIVITY_S,
            idle_since: Some(now),
            ended_at: None,
            failure: None,
            armed: None,
            left: Vec::new(),
        }
    }

    /// What it is found by.
    pub fn sid(&self) -> &str {
        &self.sid
    }

    /// It goes to another shard, from this one.
    pub fn leave(&mut self, shard: ShardId) {
        self.armed = None;
        if !self.left.contains(&shard) {
            self.left.push(shard);
        }
    }

    /// The shards that know that it has left.
    pub fn left(&self) -> &[ShardId] {
        &self.left
    }

    fn is_polling(&self) -> bool {
        self.hold == 0 || self.wait_s == 0
    }

    /// A request has come.
    pub fn receive(
        &mut self,
        body: Body,
        asker: Asker,
        terms: Terms,
        now: Timestamp,
        answers: &mut Vec<Answer>,
    ) {
        if self.is_secured && !terms.is_secured {
            // Nobody ends it who only read of it; he is told what strangers are.
            let answer = self.answer_to(asker, terminated(Some(Condition::ItemNotFound)));
            return answers.push(Answer {
                is_last: true,
                ..answer
            });
        }
        if body.rid < self.next || self.coming.contains_key(&body.rid) {
            return self.repeat(&body, asker, now, answers);
        }
        let open = self.open();
        let is_extra = body.terminates || body.pause.is_some();
        let is_too_long = body.pause.is_some_and(|pause| pause > PAUSE_S_MAX);
        // Who has not said who he is makes nobody keep what is larger than he may say.
        let size_max = match terms.is_known || body.rid == self.next {
            true => terms.size_max,
            false => EARLY_SIZE_MAX,
        };
        // XEP-0124 14.2, 11: one more may come that is the last for a while.
        if body.rid >= self.next + (REQUESTS_MAX + usize::from(is_extra)) as u64 {
            self.failure = Some(Condition::ItemNotFound);
        } else if open >= REQUESTS_MAX + usize::from(is_extra)
            || is_too_long
            || body.stream.len() > size_max
            || self.is_too_soon(&body, now)
        {
            self.failure = Some(Condition::PolicyViolation);
        }
        if self.is_newest(&body) {
            self.last = Some(Last {
                at: now,
                is_empty: body.is_empty,
            });
        }
        self.inactivity_s = INACTIVITY_S;
        let request = Request {
            rid: body.rid,
            asker: Some(asker),
            since: now,
            key: body.key.clone(),
        };
        self.coming.insert(body.rid, (request, body));
    }

    /// Requests that are open as far as their client knows: not those whose connections are lost,
    /// which a page may have left behind that is gone.
    fn open(&self) -> usize {
        let coming = self.coming.values().map(|(request, _)| request);
        let all = self.held.iter().chain(coming);
        all.filter(|request| request.asker.is_some()).count()
    }

    /// Whether none has come that was sent behind it: two connections may change their order.
    fn is_newest(&self, body: &Body) -> bool {
        let newest = self.coming.last_key_value();
        newest.is_none_or(|(rid, _)| *rid < body.rid)
    }

    /// Whether a request asks for nothing, and that too soon behind the last (XEP-0124 11, 12).
    fn is_too_soon(&self, body: &Body, now: Timestamp) -> bool {
        let is_asking = body.is_empty && self.is_newest(body);
        let Some(last) = self.last.filter(|_| is_asking) else {
            return false;
        };
        let is_soon = now < last.at.plus_ms(POLLING_S * 1000);
        let open = self.open();
        let is_filling = open + 1 == REQUESTS_MAX;
        let is_idle = open == 0 && self.is_polling() && last.is_empty && self.was_empty;
        is_soon && (is_filling || is_idle)
    }

    /// A request has come that had come before (XEP-0124 14.3).
    fn repeat(&mut self, body: &Body, asker: Asker, now: Timestamp, answers: &mut Vec<Answer>) {
        let mut held = self.held.iter_mut();
        let open = held.find(|request| request.rid == body.rid).or_else(|| {
            let found = self.coming.get_mut(&body.rid);
            found.map(|(request, _)| request)
        });
        if let Some(request) = open {
            if request.key != body.key {
                self.failure = Some(Condition::ItemNotFound);
            }
            let earlier = request.asker.replace(asker).filter(|it| *it != asker);
            answers.extend(earlier.map(|earlier| self.answer_to(earlier, recoverable())));
            return self.note_idle(now);
        }
        let mut answered = self.answered.iter();
        let found = answered.find(|it| it.rid == body.rid && it.key == body.key);
        match found.map(|found| found.body.clone()) {
            Some(again) => {
                answers.push(self.answer_to(asker, again));
                self.idle_since = self.idle_since.map(|_| now);
            }
            None => {
                answers.push(self.answer_to(asker, terminated(Some(Condition::ItemNotFound))));
                self.failure = Some(Condition::ItemNotFound);
            }
        }
    }

    fn answer_to(&self, to: Asker, body: Vec<u8>) -> Answer {
        Answer {
            to,
            content: self.content.clone(),
            body,
            is_last: false,
        }
    }

    /// Bytes of the bodies that are not taken.
    pub fn kept(&self) -> usize {
        let coming = self.coming.values();
        coming.map(|(_, body)| body.stream.len()).sum()
    }

    /// What the next request says to the stream.
    pub fn take(&mut self, now: Timestamp) -> Option<Vec<u8>> {
        if self.failure.is_some() {
            return None;
        }
        let (request, body) = self.coming.remove(&self.next)?;
        if let Some(expected) = &self.key
            && !body
                .key
                .as_deref()
                .is_some_and(|key| is_source(key, expected))
        {
            self.failure = Some(Condition::ItemNotFound);
            self.held.push_back(request);
            return None;
        }
        self.key = body.new_key.or(body.key);
        self.next += 1;
        if let Some(pause) = body.pause {
            self.is_pausing = true;
            self.inactivity_s = pause;
        }
        self.is_terminated |= body.terminates;
        self.held.push_back(request);
        self.note_idle(now);
        Some(body.stream)
    }

    /// Whether a request was taken that is not answered.
    pub fn is_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// A connection is lost that waited.
    pub fn lose(&mut self, asker: Asker, now: Timestamp) {
        let coming = self.coming.values_mut().map(|(request, _)| request);
        for request in self.held.iter_mut().chain(coming) {
            if request.asker == Some(asker) {
                request.asker = None;
            }
        }
        self.note_idle(now);
    }

    fn has_asker(&self) -> bool {
        self.held.iter().any(|request| request.asker.is_some())
    }

    fn note_idle(&mut self, now: Timestamp) {
        self.idle_since = match self.has_asker() {
            true => None,
            false => self.idle_since.or(Some(now)),
        };
    }

    /// Ends it by an error.
    pub fn fail(&mut self, condition: Condition) {
        self.failure.get_or_insert(condition);
    }

    /// Answers what is to be answered with what the stream says, which is taken off `output`.
    /// `ends` where the stream says no more; whether the session is over.
    pub fn answer(
        &mut self,
        output: &mut Vec<u8>,
        ends: bool,
        now: Timestamp,
        answers: &mut Vec<Answer>,
    ) -> bool {
        if let Some(condition) = self.failure {
            self.end(Some(condition), answers);
            return true;
        }
        if ends {
            self.ended_at.get_or_insert(now.plus_ms(ENDED_S_MAX * 1000));
            // Nobody hears what comes behind the end.
            for (_, body) in self.coming.values_mut() {
                body.stream = Vec::new();
            }
        }
        while let Some(front) = self.held.front() {
            let rid = front.rid;
            let is_full = self.held.len() > self.hold;
            let is_due = is_full || now >= front.since.plus_ms(self.wait_s * 1000);
            let is_due = match front.asker {
                Some(_) => is_due || self.is_pausing || ends || !output.is_empty(),
                // It may still be asked for again, but not more of them than may wait.
                None => is_full || is_due && self.has_asker(),
            };
            if !is_due {
                break;
            }
            // What nobody may ever ask for again is not said to it.
            let is_lost = front.asker.is_none();
            let said = match self.is_pausing || is_lost {
                true => Said::default(),
                false => Said::take(output),
            };
            let is_over = !is_lost && (said.ends || ends && output.is_empty());
            self.was_empty = said.elements.is_empty() && self.greeting.is_none();
            // A stream that ends without a word is a connection lost, as it is elsewhere.
            let silent = (!said.ends).then_some(Condition::RemoteConnectionFailed);
            let condition = said.condition(self.greeting.is_some()).or(silent);
            let body = self.write(rid, &said, is_over.then_some(condition));
            self.greeting = self.greeting.take().filter(|_| is_lost);
            let front = self.held.pop_front().expect("it was looked at");
            if let Some(asker) = front.asker {
                answers.push(self.answer_to(asker, body.clone()));
            }
            if is_over {
                self.end(None, answers);
                return true;
            }
            self.remember(front, body);
        }
        self.is_pausing = false;
        self.note_idle(now);
        false
    }

    fn remember(&mut self, request: Request, body: Vec<u8>) {
        if self.answered.len() == REQUESTS_MAX {
            self.answered.pop_front();
        }
        self.answered.push_back(Answered {
            rid: request.rid,
            key: request.key,
            body,
        });
    }

    /// Answers all that wait, for it is over (XEP-0124 13): by its error, or with nothing more.
    fn end(&mut self, condition: Option<Condition>, answers: &mut Vec<Answer>) {
        let coming = std::mem::take(&mut self.coming).into_values();
        let held = std::mem::take(&mut self.held).into_iter();
        let all = held.chain(coming.map(|(request, _)| request));
        for asker in all.filter_map(|request| request.asker) {
            let body = match condition {
                Some(_) => terminated(condition),
                None => format!("<body xmlns='{HTTP_BIND}'/>").into_bytes(),
            };
            answers.push(self.answer_to(asker, body));
        }
    }

    /// An answer, which is the last where there is an outcome.
    fn write(&self, rid: u64, said: &Said, outcome: Option<Option<Condition>>) -> Vec<u8> {
        let mut out = Vec::with_capacity(said.elements.len() + 512);
        let mut tag = writer::open(&mut out, "body").attr("xmlns", HTTP_BIND);
        if let Some(outcome) = outcome {
            let condition = outcome.filter(|_| !self.is_terminated);
            tag = tag.attr("type", "terminate");
            tag = tag.attr_if("condition", condition.map(Condition::as_str));
        }
        let known = self.received();
        // XEP-0124 9.1: not where it would say what the answer itself does.
        if self.acknowledges && (known != rid || self.greeting.is_some()) {
            tag = tag.attr("ack", &known.to_string());
        }
        if let Some(greeting) = &self.greeting
            && outcome.is_none()
        {
            let (major, minor) = greeting.version;
            tag = tag
                .attr("sid", &self.sid)
                .attr("wait", &self.wait_s.to_string())
                .attr("hold", &self.hold.to_string())
                .attr("requests", &REQUESTS_MAX.to_string())
                .attr("inactivity", &INACTIVITY_S.to_string())
                .attr("polling", &POLLING_S.to_string())
                .attr("maxpause", &PAUSE_S_MAX.to_string())
                .attr("ver", &format!("{major}.{minor}"))
                .attr("xmlns:xmpp", "urn:xmpp:xbosh")
                .attr("xmpp:restartlogic", "true");
            if let Some(header) = &said.header {
                tag = tag.attr("xmpp:version", "1.0");
                tag = tag.attr_if("authid", header.id.as_deref());
                tag = tag.attr_if("from", header.from.as_deref());
            }
        }
        if said.is_of_stream {
            tag = tag.attr("xmlns:stream", "http://etherx.jabber.org/streams");
        }
        tag.start();
        out.extend_from_slice(&said.elements);
        writer::close(&mut out, "body");
        out
    }

    /// The highest id of those that have come with all before them.
    fn received(&self) -> u64 {
        let mut known = self.next - 1;
        while self.coming.contains_key(&(known + 1)) {
            known += 1;
        }
        known
    }

    /// When something is to be done though nothing comes, where its client may be away for so long.
    fn deadline(&self, away_ms: u64) -> Timestamp {
        let deadline = match (self.idle_since, self.held.front()) {
            (None, Some(front)) => front.since.plus_ms(self.wait_s * 1000),
            (idle, _) => idle.unwrap_or_default().plus_ms(away_ms),
        };
        self.ended_at.map_or(deadline, |at| at.min(deadline))
    }

    /// Whether its client has been away for too long (XEP-0124 10), or its stream has ended so long
    /// ago that nobody will ask.
    pub fn is_abandoned(&self, now: Timestamp) -> bool {
        let is_ended = self.ended_at.is_some_and(|at| now >= at);
        is_ended || self.is_away(self.inactivity_s * 1000, now)
    }

    /// Whether its client has had no request open for so long.
    pub fn is_away(&self, ms: u64, now: Timestamp) -> bool {
        self.idle_since.is_some_and(|idle| now >= idle.plus_ms(ms))
    }

    /// When it is to be looked at, if that is to be arranged. `away_ms` is how long its client may
    /// be away, where that is less than it was told.
    pub fn arm(&mut self, away_ms: Option<u64>) -> Option<Timestamp> {
        let deadline = self.deadline(away_ms.unwrap_or(self.inactivity_s * 1000));
        if self.armed.is_some_and(|armed| armed <= deadline) {
            return None;
        }
        self.armed = Some(deadline);
        self.armed
    }

    /// It is looked at.
    pub fn disarm(&mut self, now: Timestamp) {
        self.armed = self.armed.filter(|armed| *armed > now);
    }
}

/// What of a stream goes into one answer.
#[derive(Debug, Default)]
struct Said {
    header: Option<Header>,
    elements: Vec<u8>,
    /// Whether some of them are the stream's own.
    is_of_stream: bool,
    has_error: bool,
    is_host_unknown: bool,
    ends: bool,
}

/// What a stream's header says.
#[derive(Debug)]
struct Header {
    id: Option<String>,
    from: Option<String>,
}

impl Said {
    /// Takes whole elements off the front of a stream.
    fn take(output: &mut Vec<u8>) -> Said {
        let mut said = Said::default();
        let mut pieces = Pieces::of(output);
        while !said.ends && said.elements.len() < ANSWER_SIZE_MAX {
            let Some(piece) = pieces.next() else {
                break;
            };
            match piece {
                Piece::Header(attributes) => {
                    said.header = Some(Header {
                        id: attribute(attributes, " id='"),
                        from: attribute(attributes, " from='"),
                    });
                }
                Piece::Element(name, after) => said.add(piece, name, after),
                Piece::End => said.ends = true,
            }
        }
        let left = pieces.left();
        output.drain(..output.len() - left);
        said
    }

    fn add(&mut self, piece: Piece<'_>, name: &[u8], after: &[u8]) {
        self.elements.extend_from_slice(name);
        match piece.is_of_stream() {
            // XEP-0206 2: the body declares that prefix.
            true => self.is_of_stream = true,
            false => self.elements.extend_from_slice(piece.declaration()),
        }
        self.elements.extend_from_slice(after);
        if name == b"<stream:error" {
            self.has_error = true;
            let start = b"><host-unknown ";
            self.is_host_unknown = after.starts_with(start);
        }
    }

    /// Why it is the last, if that is an error.
    fn condition(&self, is_first: bool) -> Option<Condition> {
        match self.has_error {
            true if self.is_host_unknown && is_first => Some(Condition::HostUnknown),
            true => Some(Condition::RemoteStreamError),
            false => None,
        }
    }
}

/// The value of an attribute as our writer writes it.
fn attribute(attributes: &[u8], begins: &str) -> Option<String> {
    let text = std::str::from_utf8(attributes).ok()?;
    let (_, behind) = text.split_once(begins)?;
    let (value, _) = behind.split_once('\'')?;
    // Ids and domains have nothing that is escaped.
    Some(value.to_owned())
}

/// Whether the hash of one key is the other (XEP-0124 15.4).
fn is_source(key: &str, of: &str) -> bool {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
    let mut hex = String::new();
    for byte in hash.as_ref() {
        hex.push_str(&format!("{byte:02x}"));
    }
    hex.eq_ignore_ascii_case(of)
}

#[cfg(test)]
mod tests;
