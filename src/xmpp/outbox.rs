//! What a managed session (XEP-0198) has sent and its client not acknowledged, and what waits to be
//! sent until storage has it.
//!
//! Invariant: the queue holds, oldest first, the `written` stanzas that the client was sent and did
//! not acknowledge, then those that wait. Nothing is written before what stands before it. Wire
//! counters wrap at 2^32; places in storage only grow.

use crate::error::StanzaError;
use crate::host::{ConnId, Host, Ticket, Timestamp};
use crate::port::{Arrived, Mark, Origin, QueuePlace, SessionId, SharedStanza, StoredSession};
use crate::settle::Settling;
use crate::stanza::write_reply_head;
use crate::strangers::Strangers;
use crate::xep::stream_management::RESUME_MS_MAX;
use stanza::scope::StreamScope;
use stanza::view::{Kind, StanzaView};
use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

mod after;
mod flush;
mod later;
mod room;

pub(crate) use later::Later;

/// Unacknowledged stanzas of one session, presence apart; one more ends it.
pub(crate) const UNACKED_MAX: usize = 4_000;

/// Their bytes; more end it.
pub(crate) const UNACKED_SIZE_MAX: usize = 4 << 20;

/// Bytes of a roster that do not count: several times what the largest one has.
const EXCUSED_SIZE_MAX: usize = 8 << 20;

/// Unacknowledged presence of one session: what answers a login, all at once, where the longest
/// roster that is usual has every contact there with every resource.
pub(crate) const UNACKED_PRESENCE_MAX: usize = 64_000;

/// Its bytes: twice what one contact can say with all its resources, and what a connection without
/// stream management may be given in one turn.
pub(crate) const UNACKED_PRESENCE_SIZE_MAX: usize = 8 << 20;

/// Bytes from which on a result counts as a long answer: as many as may be unacknowledged of those
/// that are shorter have their place.
pub(crate) const LONG_ANSWER_SIZE: usize = UNACKED_SIZE_MAX / UNACKED_MAX;

/// Bytes of long answers that are kept behind their writing, and for a client that is away.
pub(crate) const ANSWERS_SIZE_MAX: usize = 2 << 20;

/// Bytes of long answers while one waits to be written to a connection: all that a session may ask
/// storage for at once, twice.
pub(crate) const WAITING_ANSWERS_SIZE_MAX: usize = 8 << 20;

/// Messages of a client's that are remembered until their number is committed. Where one says the
/// same as an older one than these, the old one is taken for it after a crash, and what was sent
/// between them comes twice.
const RECENT_MAX: usize = 64;

/// Stanzas after which an acknowledgement is asked for at once.
pub(crate) const REQUEST_EVERY: u32 = 8;

/// The stanzas of a session that took effect before a crash, by account.
pub(crate) type Marks = HashMap<Box<str>, Mark>;

/// What a managed session keeps.
#[derive(Debug)]
pub(crate) struct Acks {
    /// Names the session for good.
    pub id: SessionId,
    /// Whether its client may come back to it.
    pub resumable: bool,
    /// How long it waits for that.
    pub resume_ms: u32,
    /// Whether storage has the session and what it sends.
    pub saved: bool,
    /// Whether `<enabled/>` or `<resumed/>` is written: nothing is counted before.
    pub opened: bool,
    /// The client's stanzas and what they wait for.
    pub settling: Settling,
    /// How many stanzas the client has sent, as both sides count them.
    pub received: u64,
    /// How many of them were handled; a resumption may bring the last ones once more.
    pub seen: u64,
    /// How many of them storage has as settled.
    pub committed: u64,
    /// The numbers and hashes of the client's last messages whose number is not committed.
    recent: VecDeque<(u64, u64)>,
    /// Whether storage is being told a newer number.
    pub committing: bool,
    /// Whether storage is being told what the session is, or will be when the session may be
    /// written again.
    pub saving: bool,
    /// It is not written before, since it was written just now.
    pub rests_until: Timestamp,
    /// Whether the session has changed since, or storage refused it: no number is committed before
    /// storage has the session as it is.
    pub unsaved: bool,
    /// Whether the client waits for a higher number than it was told.
    pub owed: bool,
    /// The connection that gets the session as soon as storage has the number it is told.
    pub resuming: Option<ConnId>,
    /// Until when it waits for its client, while it does.
    pub waits_until: Option<Timestamp>,
    /// Whether the server goes down: its connection is closed as soon as all is settled.
    pub leaving: bool,
    /// Who is no contact and sent its client directed presence.
    pub strangers: Option<Box<Strangers>>,
    /// What took effect before a crash, and whose stanzas may come again.
    pub marks: Option<Box<Marks>>,
    /// What waited for the account is on its way from storage into the queue, to begin with this
    /// number.
    pub claiming: Option<u32>,
    /// The numbers of the first in the queue, as the client may have counted them, where it has not
    /// said yet how far it got before a crash.
    uncounted: Option<Box<[Option<u32>]>>,
    /// Whether numbers in storage are higher than those on the wire, because a write failed.
    pub misnumbered: bool,
    /// Errors in the queue that neither storage nor the client has.
    pub vital: u32,
    /// Whether the session is among those of [`crate::again::Again`].
    pub has_deferred_errors: bool,
    /// The number of the last acknowledged stanza.
    acked: u32,
    written: usize,
    queue: VecDeque<Sent>,
    size: usize,
    /// How many of the queue, and how many bytes, do not count towards its limits.
    excused: (usize, usize),
    /// The same of what waited for the account: a quota limits it, or it was restored.
    waited: (usize, usize),
    /// The same of presence, which has limits of its own: who sends it is no choice of the client's
    /// of that moment.
    presence: (usize, usize),
    /// Bytes of long answers, which do not count towards the limits, either.
    answers: usize,
    since_request: u32,
    /// Whether what may be written waits for the connection to take what was.
    is_stopped: bool,
    /// The server's domain, once the client came back: what came before then says when.
    domain: Option<Rc<str>>,
    /// Whether it is among [`crate::ask::Asking`].
    is_asking: bool,
    last_place: u64,
}

/// A stanza that was sent and not acknowledged, or waits to be sent.
#[derive(Debug)]
pub(crate) struct Sent {
    pub bytes: Box<[u8]>,
    pub keep: Keep,
    /// See [`crate::port::QueuedStanza::arrived`].
    pub arrived: Timestamp,
    /// The request that it waits for: it may be written when storage has it, or never will.
    pub write: Option<Ticket>,
    /// Whether storage has its number, or never will: it is not written before, either.
    is_numbered: bool,
    /// Whether no number is committed before storage or the client has it: an error is all that
    /// is left of a stanza.
    is_vital: bool,
    /// See [`Acks::excuse_behind`].
    is_excused: bool,
    /// See [`Acks::note_answer`].
    is_answer: bool,
    /// See [`crate::port::QueuedStanza::has_waited`].
    has_waited: bool,
    /// Whether it came before its client was back.
    is_late: bool,
    /// Where other sessions were given it, too.
    shared: Option<Shared>,
}

impl Sent {
    /// A stanza that waits for nothing but those before it.
    #[inline]
    fn new(bytes: Box<[u8]>, keep: Keep, arrived: Timestamp) -> Sent {
        Sent {
            bytes,
            keep,
            arrived,
            write: None,
            is_numbered: true,
            is_vital: false,
            is_excused: false,
            is_answer: false,
            has_waited: false,
            is_late: false,
            shared: None,
        }
    }

    /// It waited for the account before, and says itself since when.
    pub(crate) fn has_waited(&self) -> bool {
        match self.keep {
            Keep::Queue(_) => self.has_waited,
            Keep::Offline(_) => true,
            Keep::Memory | Keep::Later(_) => false,
        }
    }

    /// Complete stanzas begin with their names.
    fn is_presence(&self) -> bool {
        self.bytes.starts_with(b"<presence")
    }

    /// The client has it.
    pub(crate) fn note_taken(&self) {
        if let Some(shared) = &self.shared {
            shared.note_taken();
        }
    }

    /// Another session's client has it or will, or what is left of that session sees to it.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.shared.as_ref().is_some_and(Shared::is_elsewhere)
    }

    /// It is not this queue's to see to any more.
    pub(crate) fn let_go(&mut self) {
        let taken = Shared::default();
        taken.note_taken();
        self.shared = Some(taken);
    }
}

/// A message that several of an account's sessions were given: none of them passes it on while
/// another has it, or a client had it (XEP-0198's "if none got it" in the table of the design).
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared(Rc<Cell<bool>>);

impl Shared {
    /// A client has it.
    pub(crate) fn note_taken(&self) {
        self.0.set(true);
    }

    fn is_elsewhere(&self) -> bool {
        self.0.get() || Rc::strong_count(&self.0) > 1
    }
}

/// Where a stanza is besides the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Nowhere.
    Memory,
    /// At a place of the session's queue in storage.
    Queue(u64),
    /// Among what waits for the account, by its number there.
    Offline(u64),
    /// Nowhere yet: storage is to have it at this place of the queue, see [`crate::again`].
    Later(u64),
}

/// What an acknowledgement makes superfluous in storage.
#[derive(Debug, Default)]
pub(crate) struct Cleared {
    /// The first and the last place.
    pub places: Option<(u64, u64)>,
    /// The numbers of what waited for the account.
    pub offline: Vec<u64>,
}

impl Acks {
    /// A session that begins.
    pub(crate) fn new(id: SessionId, resumable: bool, saved: bool) -> Acks {
        Acks {
            id,
            resumable,
            resume_ms: RESUME_MS_MAX,
            saved,
            opened: false,
            settling: Settling::default(),
            received: 0,
            seen: 0,
            committed: 0,
            recent: VecDeque::new(),
            committing: false,
            saving: false,
            rests_until: Timestamp(0),
            unsaved: false,
            owed: false,
            resuming: None,
            waits_until: None,
            leaving: false,
            strangers: None,
            marks: None,
            claiming: None,
            uncounted: None,
            misnumbered: false,
            vital: 0,
            has_deferred_errors: false,
            acked: 0,
            written: 0,
            queue: VecDeque::new(),
            size: 0,
            excused: (0, 0),
            waited: (0, 0),
            presence: (0, 0),
            answers: 0,
            since_request: 0,
            is_stopped: false,
            domain: None,
            is_asking: false,
            last_place: 0,
        }
    }

    /// A session from storage, whose client has not said yet how far it has counted; `share` says
    /// what it shares with others.
    pub(crate) fn stored(
        id: SessionId,
        stored: StoredSession,
        mut share: impl FnMut(SharedStanza) -> Shared,
    ) -> Acks {
        let mut acks = Acks::new(id, true, true);
        let handled = stored.handled;
        acks.settling = Settling::after(handled);
        (acks.received, acks.seen, acks.committed) = (handled, handled, handled);
        acks.last_place = stored.queue.last().map_or(0, |last| last.place);
        acks.uncounted = Some(stored.queue.iter().map(|queued| queued.number).collect());
        for queued in stored.queue {
            let keep = Keep::Queue(queued.place);
            acks.push(Sent {
                shared: queued.shared.map(&mut share),
                has_waited: queued.has_waited,
                ..Sent::new(queued.stanza, keep, queued.arrived)
            });
        }
        acks.strangers = Strangers::stored(stored.saved.strangers);
        let marks = stored.marks.into_iter();
        let marks: Marks = marks
            .map(|mark| (mark.receiver.as_str().into(), mark))
            .collect();
        acks.marks = (!marks.is_empty()).then(|| Box::new(marks));
        acks
    }

    /// Whether its client has not said how far it got before a crash.
    pub(crate) fn is_uncounted(&self) -> bool {
        self.uncounted.is_some()
    }

    /// The client of a session from storage has counted to `h`: that is authoritative, what is at
    /// or below it is dropped, and counting goes on from there.
    pub(crate) fn recount(&mut self, h: u32) {
        let Some(numbers) = self.uncounted.take() else {
            return;
        };
        let before = self.queue.len();
        let mut numbers = numbers.into_iter();
        let (size, waited) = (&mut self.size, &mut self.waited);
        self.queue.retain(|sent| {
            let number = numbers.next().flatten();
            // Modulo 2^32.
            let lacks = number.is_none_or(|number| h.wrapping_sub(number) >= 1 << 31);
            if !lacks {
                sent.note_taken();
            }
            if !lacks {
                let has_waited = sent.has_waited();
                waited.0 -= usize::from(has_waited);
                waited.1 -= if has_waited { sent.bytes.len() } else { 0 };
                *size -= sent.bytes.len();
            }
            lacks
        });
        let dropped = (before - self.queue.len()) as u32;
        let shift = h.wrapping_sub(self.acked).wrapping_sub(dropped);
        self.acked = h;
        if let Some(claiming) = &mut self.claiming {
            *claiming = claiming.wrapping_add(shift);
            self.misnumbered = true;
        }
    }

    /// The `h` that the client may be told.
    pub(crate) fn h(&self) -> u32 {
        self.committed.min(self.received) as u32
    }

    /// Whether its client has acknowledged all presence that it was sent.
    pub(crate) fn has_no_presence(&self) -> bool {
        self.presence.0 == 0
    }

    /// How many stanzas the queue holds.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// What was queued behind the first `count`, a roster, does not count towards the limits: it
    /// was no choice of the client's to get it at once. One roster at a time, for it may ask again,
    /// and no more than [`EXCUSED_SIZE_MAX`] of it: each push has the client's address, too.
    pub(crate) fn excuse_behind(&mut self, count: usize) {
        if self.excused.0 > 0 {
            return;
        }
        for sent in self.queue.range_mut(count..) {
            if self.excused.1 + sent.bytes.len() > EXCUSED_SIZE_MAX {
                return;
            }
            sent.is_excused = true;
            self.excused.0 += 1;
            self.excused.1 += sent.bytes.len();
        }
    }

    /// The stanza that was sent last answers a request of the client's own with a result. However
    /// many long ones it asks for at once, before it can acknowledge any, it gets them, and what is
    /// kept of them has a limit: see [`Acks::shorten`].
    pub(crate) fn note_answer(&mut self, is_connected: bool) {
        let index = self.queue.len() - 1;
        let last = &mut self.queue[index];
        if last.bytes.len() > LONG_ANSWER_SIZE {
            last.is_answer = true;
            self.answers += last.bytes.len();
            self.shorten(index, is_connected && index >= self.written);
        }
    }

    /// Whether so much of long answers waits that the client's input is to wait, too: as much again
    /// may be on its way.
    #[inline]
    pub(crate) fn is_behind(&self) -> bool {
        self.answers > WAITING_ANSWERS_SIZE_MAX / 2
    }

    /// Where enough of long answers is kept, all that is kept of this one is an error that has its
    /// place: who comes back without having had the answer may ask again.
    fn shorten(&mut self, index: usize, is_coming: bool) {
        let size_max = match is_coming {
            true => WAITING_ANSWERS_SIZE_MAX,
            false => ANSWERS_SIZE_MAX,
        };
        let sent = &mut self.queue[index];
        if !sent.is_answer || self.answers <= size_max {
            return;
        }
        sent.is_answer = false;
        self.answers -= sent.bytes.len();
        self.size -= sent.bytes.len();
        sent.bytes = error_instead(&sent.bytes);
        self.size += sent.bytes.len();
    }

    fn count(&mut self, sent: &Sent) {
        self.size += sent.bytes.len();
        if sent.has_waited() {
            self.waited.0 += 1;
            self.waited.1 += sent.bytes.len();
        }
    }

    /// How much of what waited for its account storage has in the queue, and how many bytes.
    pub(crate) fn claimed(&self) -> (usize, usize) {
        if self.saved { self.waited } else { (0, 0) }
    }

    fn push(&mut self, sent: Sent) {
        self.count(&sent);
        if sent.is_presence() {
            self.presence.0 += 1;
            self.presence.1 += sent.bytes.len();
        }
        self.vital += u32::from(sent.is_vital);
        self.queue.push_back(sent);
    }

    /// Sends a stanza that storage does not keep in the queue, behind all that waits.
    pub(crate) fn send(
        &mut self,
        host: &mut impl Host,
        conn: Option<ConnId>,
        keep: Keep,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        debug_assert!(!matches!(keep, Keep::Queue(_)), "those wait for storage");
        // Behind all before it, whatever the clock says.
        let last = self.queue.back().map(|sent| sent.arrived);
        let arrived = host.wall().max(last.unwrap_or_default());
        if let Some(conn) = conn
            && self.opened
            && self.claiming.is_none()
            && self.written == self.queue.len()
        {
            let out = host.output(conn);
            let start = out.len();
            write(out);
            self.push(Sent::new(out[start..].into(), keep, arrived));
            self.count_written(out);
            return;
        }
        let mut bytes = Vec::new();
        write(&mut bytes);
        self.push(Sent::new(bytes.into(), keep, arrived));
        self.flush(host, conn);
    }

    /// Queues a stanza until storage has it, which `write` asks for: where that will be.
    pub(crate) fn send_kept(
        &mut self,
        bytes: &[u8],
        arrived: Timestamp,
        is_vital: bool,
        write: Ticket,
    ) -> QueuePlace {
        debug_assert!(self.claiming.is_none(), "messages are held meanwhile");
        self.last_place += 1;
        let keep = Keep::Queue(self.last_place);
        self.push(Sent {
            write: Some(write),
            is_vital,
            ..Sent::new(bytes.into(), keep, arrived)
        });
        QueuePlace {
            session: self.id,
            place: self.last_place,
            number: self.told_number(self.number_behind()),
        }
    }

    /// The stanza that was sent last is one that other sessions were given, too.
    pub(crate) fn share_last(&mut self, shared: &Shared) {
        if let Some(last) = self.queue.back_mut() {
            last.shared = Some(shared.clone());
        }
    }

    /// The stanza that was sent last is an error that storage does not keep: no number is committed
    /// before the client has it.
    pub(crate) fn hold_for_last(&mut self) {
        if let Some(last) = self.queue.back_mut().filter(|last| !last.is_vital) {
            last.is_vital = true;
            self.vital += 1;
        }
    }

    /// The number of the queue's last stanza once it is written.
    fn number_behind(&self) -> u32 {
        self.acked.wrapping_add(self.queue.len() as u32)
    }

    /// A number as storage is told it.
    fn told_number(&self, number: u32) -> Option<u32> {
        (!self.is_uncounted()).then_some(number)
    }

    /// Storage is going to put what waits for the account into the queue: the place and the number
    /// of the first.
    pub(crate) fn begin_claim(&mut self) -> (u64, Option<u32>) {
        let number = self.number_behind().wrapping_add(1);
        self.claiming = Some(number);
        (self.last_place + 1, self.told_number(number))
    }

    /// Takes what storage has put into the queue, before what came meanwhile; it may be written
    /// when storage has its numbers: [`Acks::numbered_to`] says that.
    ///
    /// Where nothing is left of one, its place is only passed over.
    pub(crate) fn claim(&mut self, claimed: Vec<(u64, Option<Arrived>)>) {
        let Some(number) = self.claiming.take() else {
            return;
        };
        let mut index = number.wrapping_sub(self.acked) as usize - 1;
        for (place, message) in claimed {
            self.last_place = place;
            let Some((arrived, bytes)) = message else {
                self.misnumbered = true;
                continue;
            };
            let keep = Keep::Queue(place);
            let sent = Sent {
                is_numbered: false,
                has_waited: true,
                ..Sent::new(bytes, keep, arrived)
            };
            self.count(&sent);
            self.queue.insert(index, sent);
            index += 1;
        }
        self.place_behind(index);
    }

    /// Storage has the number of all that it has up to a place.
    pub(crate) fn numbered_to(&mut self, host: &mut impl Host, conn: Option<ConnId>, up_to: u64) {
        for sent in self.queue.range_mut(self.written..) {
            sent.is_numbered |= matches!(sent.keep, Keep::Queue(place) if place <= up_to);
        }
        self.flush(host, conn);
    }

    fn place_of(&self, place: u64) -> Option<usize> {
        // What waits stands at the end.
        let from = self.written;
        let found = self.queue.iter().skip(from);
        let found = found
            .enumerate()
            .find(|(_, sent)| sent.keep == Keep::Queue(place));
        found.map(|(index, _)| from + index)
    }

    /// Storage has what is at a place.
    pub(crate) fn stored_at(&mut self, host: &mut impl Host, conn: Option<ConnId>, place: u64) {
        if let Some(index) = self.place_of(place) {
            let sent = &mut self.queue[index];
            sent.write = None;
            self.vital -= u32::from(std::mem::take(&mut sent.is_vital));
            self.flush(host, conn);
        }
    }

    /// Storage will not have what is at a place: it leaves the queue.
    pub(crate) fn refused_at(&mut self, place: u64) -> Option<Arrived> {
        let index = self.place_of(place)?;
        let sent = self.queue.remove(index)?;
        self.size -= sent.bytes.len();
        self.misnumbered |= index < self.queue.len();
        if let Some(number) = &mut self.claiming {
            // The claim begins behind it.
            *number = number.wrapping_sub(1);
            self.misnumbered = true;
        }
        Some((sent.arrived, sent.bytes))
    }

    /// The last place of the queue that it knows of; storage may be putting more behind it.
    pub(crate) fn last_place(&self) -> u64 {
        self.last_place
    }

    /// The places of the queue with the numbers that they have on the wire.
    pub(crate) fn numbers(&self) -> Vec<(u64, u32)> {
        let numbered = self.queue.iter().zip(1_u32..);
        let kept = numbered.filter_map(|(sent, index)| match sent.keep {
            Keep::Queue(place) => Some((place, self.acked.wrapping_add(index))),
            Keep::Memory | Keep::Offline(_) | Keep::Later(_) => None,
        });
        kept.collect()
    }

    /// How many stanzas were sent, as both sides count them.
    pub(crate) fn sent(&self) -> u32 {
        self.acked.wrapping_add(self.written as u32)
    }

    /// Whether a client can have counted to `h`: not beyond what was sent, modulo 2^32.
    pub(crate) fn can_be(&self, h: u32) -> bool {
        h.wrapping_sub(self.acked) as usize <= self.written
    }

    /// Takes an acknowledgement that can be.
    pub(crate) fn acknowledge(&mut self, h: u32) -> Cleared {
        debug_assert!(self.can_be(h));
        let mut cleared = Cleared::default();
        for _ in 0..h.wrapping_sub(self.acked) {
            let Some(sent) = self.queue.pop_front() else {
                break;
            };
            self.written -= 1;
            self.size -= sent.bytes.len();
            self.vital -= u32::from(sent.is_vital);
            if sent.has_waited() {
                self.waited.0 -= 1;
                self.waited.1 -= sent.bytes.len();
            }
            if sent.is_excused {
                self.excused.0 -= 1;
                self.excused.1 -= sent.bytes.len();
            }
            if sent.is_answer {
                self.answers -= sent.bytes.len();
            }
            if sent.is_presence() {
                self.presence.0 -= 1;
                self.presence.1 -= sent.bytes.len();
            }
            sent.note_taken();
            match sent.keep {
                Keep::Memory | Keep::Later(_) => {}
                Keep::Queue(place) => {
                    let from = cleared.places.map_or(place, |(from, _)| from);
                    cleared.places = Some((from, place));
                }
                Keep::Offline(number) => cleared.offline.push(number),
            }
        }
        self.acked = h;
        cleared
    }

    /// The numbers of what waits for the account that the queue has, too.
    pub(crate) fn offline(&self) -> impl Iterator<Item = u64> {
        self.queue.iter().filter_map(|sent| match sent.keep {
            Keep::Offline(number) => Some(number),
            Keep::Memory | Keep::Queue(_) | Keep::Later(_) => None,
        })
    }

    /// The number of the last stanza that its client has acknowledged.
    pub(crate) fn acked(&self) -> u32 {
        self.acked
    }

    /// The messages that its client has not acknowledged.
    pub(crate) fn messages(&self) -> Vec<Box<[u8]>> {
        let messages = self.queue.iter().map(|sent| &sent.bytes);
        let messages = messages.filter(|bytes| bytes.starts_with(b"<message"));
        messages.cloned().collect()
    }

    /// What its client has not acknowledged and storage does not have.
    pub(crate) fn unstored(&mut self) -> impl Iterator<Item = &mut Sent> {
        let sent = self.queue.iter_mut();
        sent.filter(|sent| matches!(sent.keep, Keep::Memory | Keep::Later(_)))
    }

    /// What the session leaves behind, oldest first.
    pub(crate) fn into_unacked(self) -> VecDeque<Sent> {
        self.queue
    }

    /// A resumption: the client sends again what it was not told to be settled.
    pub(crate) fn rewind(&mut self) {
        self.received = self.committed;
    }

    /// One more stanza of the client; its number if it is new, `None` if it was handled already.
    pub(crate) fn receive(&mut self) -> Option<u64> {
        self.received += 1;
        if self.received <= self.seen {
            return None;
        }
        self.seen = self.received;
        let number = self.settling.begin();
        debug_assert_eq!(number, self.seen);
        Some(number)
    }

    /// The hash of a message as an [`Origin`] has it: 0 where one that would be sent again with it
    /// after a crash says the same, for then only their numbers tell them apart.
    pub(crate) fn hash_alone(&mut self, number: u64, hash: u64) -> u64 {
        let is_committed = |it: &(u64, u64)| it.0 <= self.committed;
        while self.recent.front().is_some_and(is_committed) {
            self.recent.pop_front();
        }
        let is_repeated = self.recent.iter().any(|(_, known)| *known == hash);
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((number, hash));
        if is_repeated { 0 } else { hash }
    }

    /// Whether a message for an account took effect before a crash: they come again in their order,
    /// up to the last that did. A client that leaves others out gives them lower numbers than they
    /// had, so what comes behind the last is new whatever its number. Notes where it is late.
    pub(crate) fn took_effect(&mut self, origin: &mut Origin, bare: &str) -> bool {
        let Some(marks) = &mut self.marks else {
            return false;
        };
        let Some(mark) = marks.get(bare) else {
            return false;
        };
        if origin.hash != 0 && origin.hash == mark.hash && origin.number <= mark.last {
            marks.remove(bare);
            return true;
        }
        let known = mark.doubted + 1..=mark.last;
        let is_known = known.contains(&origin.number) && !mark.failed.contains(&origin.number);
        origin.is_late = !is_known && origin.number < mark.last;
        is_known
    }
}

/// The error that takes the place of a result.
fn error_instead(result: &[u8]) -> Box<[u8]> {
    let mut error = Vec::new();
    let scope = StreamScope::client();
    let view = StanzaView::parse(result, &scope).expect("what was made here is well-formed");
    let (from, to) = (
        view.from().unwrap_or_default(),
        view.to().unwrap_or_default(),
    );
    write_reply_head(Kind::Iq, "error", &from, &to, view.id(), &mut error);
    StanzaError::ResourceConstraint.write(&mut error);
    error.extend_from_slice(b"</iq>");
    error.into()
}

#[cfg(test)]
mod tests;
