//! One connection as the runtime sees it, and the table of all of a shard.
//!
//! Invariant: an idle connection owns no buffer; what it has is this record, its TLS state and the
//! protocol's stream. Its index is its slot in the ring; those of sessions of BOSH, which have no
//! socket of their own, are behind all slots.

use crate::handoff::Leaving;
use crate::transport::tls::Tls;
use crate::transport::transfer::Transfer;
use crate::transport::web::Web;
use ring::Token;
use std::net::IpAddr;
use xmpp::limit::PROMPT_SIZE_MAX;
use xmpp::{ConnId, StreamKind};

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Life {
    /// No user of this slot.
    #[default]
    Free,
    /// The protocol knows it.
    Open,
    /// Told to go to another shard; waits until nothing is in flight.
    Leaving,
    /// Its socket is on the way to another ring.
    Departed,
    /// What is in the output is still written; the protocol has forgotten it.
    Closing,
    /// Our end is sent; what the peer still says is thrown away until its end or the deadline.
    Lingering,
    /// Nothing more is written; it goes once the send in flight has ended.
    Cut,
    /// The slot's close is on the way.
    Released,
}

/// What the ring does for a connection's reading side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Reading {
    /// Nothing.
    #[default]
    Idle,
    /// One receive.
    Once,
    /// Receives until stopped.
    Multi,
    /// Stopped, but the last completion has not come.
    Cancelling,
}

/// One connection.
#[derive(Default)]
pub(crate) struct Conn {
    pub(crate) generation: u32,
    pub(crate) life: Life,
    pub(crate) reading: Reading,
    /// The protocol asked for silence.
    pub(crate) paused: bool,
    /// Waits in the ready queue: it has undigested input and its share of this turn is used.
    pub(crate) queued: bool,
    /// Waits until its end is seen to.
    pub(crate) ending: bool,
    /// Waits for the flush.
    pub(crate) dirty: bool,
    /// The peer sent its end, or nothing can come from it any more.
    pub(crate) eof: bool,
    /// That is so because it was reset.
    pub(crate) lost: bool,
    /// So much waits to be written to it that no more is read from it: what it sends may be what
    /// fills its output.
    pub(crate) choked: bool,
    /// More output than allowed: it will be cut at the flush.
    pub(crate) overflowed: bool,
    /// STARTTLS was granted while its bytes were fed: what stands behind it is dropped.
    pub(crate) upgraded: bool,
    /// Somebody wants to know, the protocol or the keeper of files, when nothing waits to be
    /// written any more.
    pub(crate) tells_written: bool,
    /// `close_notify` is in the wire buffer.
    pub(crate) notified: bool,
    /// The kernel is ending our side on a worker of its own, which looks the slot up when it comes
    /// to it: the slot must not have another user by then.
    pub(crate) shutting: bool,
    pub(crate) direct_tls: bool,
    /// Single receives so far, until receiving goes on by itself.
    pub(crate) receives: u8,
    /// Bytes of the send in flight that are not taken yet.
    pub(crate) sending: u32,
    /// When that send began, in milliseconds that wrap.
    pub(crate) sending_since_ms: u32,
    /// What is not sent, as it was counted last, where that is more than one connection may have.
    pub(crate) burst: u32,
    /// Bytes that a session without a socket keeps of bodies whose turn has not come.
    pub(crate) kept: u32,
    pub(crate) peer: Option<IpAddr>,
    pub(crate) tls: Option<Box<Tls>>,
    /// Where it came over the web: what stands between bytes and stream behind TLS.
    pub(crate) web: Option<Box<Web>>,
    /// Plain bytes to be written.
    pub(crate) output: Vec<u8>,
    /// Bytes to be written as they are, before `output`.
    pub(crate) wire: Vec<u8>,
    /// Plain bytes that the protocol has not consumed.
    pub(crate) undigested: Vec<u8>,
    /// TLS records that are not whole, or not looked at yet.
    pub(crate) records: Vec<u8>,
    pub(crate) leaving: Option<Box<Leaving>>,
}

/// Waiting output from which a connection is not read any more, where not less may wait. The
/// largest receive comes on top.
pub(crate) const CHOKE_SIZE_MAX: usize = 128 << 10;

/// With TLS state and stream boxed elsewhere, 100,000 of these are 20 MB.
const _: () = assert!(size_of::<Conn>() <= 200);

impl Conn {
    /// Whether what it has sent is part of something large.
    pub(crate) fn holds_much(&self) -> bool {
        self.held() > PROMPT_SIZE_MAX
    }

    /// Whether its bytes are not to be fed now.
    pub(crate) fn is_blocked(&self) -> bool {
        let waits = self.queued || self.ending;
        self.paused || waits || self.choked || self.life != Life::Open
    }

    /// Has it be read no more while so much waits to be written to it; whether that is so.
    pub(crate) fn choke(&mut self, size: usize) -> bool {
        self.choked |= self.waiting() > size;
        self.choked
    }

    /// Counts what its peer has not taken into those bursts, if that is more than one connection
    /// may have.
    pub(crate) fn count_burst(&mut self, output_max: usize, bursts: &mut usize) {
        let unsent = self.unsent();
        let burst = if unsent > output_max { unsent } else { 0 };
        *bursts -= std::mem::replace(&mut self.burst, burst as u32) as usize;
        *bursts += burst;
    }

    /// Bytes that wait behind the send in flight.
    pub(crate) fn waiting(&self) -> usize {
        let first = self.web.as_ref().map_or(0, |web| web.waiting());
        first + self.output.len() + self.wire.len()
    }

    /// Bytes that wait to be written or are being written.
    pub(crate) fn unsent(&self) -> usize {
        self.sending as usize + self.waiting()
    }

    /// Bytes that wait to be digested.
    pub(crate) fn held(&self) -> usize {
        let cut = self.web.as_ref().map_or(0, |web| web.held());
        cut + self.undigested.len() + self.records.len() + self.kept as usize
    }

    /// The file that comes or goes over it.
    pub(crate) fn transfer(&mut self) -> Option<&mut Transfer> {
        self.web.as_mut()?.transfer()
    }

    /// Whether it is no stream's, though it may be open.
    pub(crate) fn has_no_stream(&mut self) -> bool {
        self.transfer().is_some() || self.web.as_ref().is_some_and(|web| web.has_bodies())
    }

    pub(crate) fn kind(&self) -> StreamKind {
        match (&self.web, self.direct_tls) {
            (Some(_), _) => StreamKind::C2sWeb,
            (None, true) => StreamKind::C2sDirectTls,
            (None, false) => StreamKind::C2s,
        }
    }
}

/// All connections of a shard.
pub(crate) struct Conns {
    slots: Vec<Conn>,
    used: u32,
    /// Connections without a socket, by what their indices are beyond that.
    floating: Vec<Conn>,
    floating_from: u32,
    /// Those of them that are free.
    floating_free: Vec<u32>,
}

impl Conns {
    /// Room for so many, of which none is touched before it is used: what grows by doubling leaves
    /// as much behind, and is half empty.
    pub(crate) fn with_capacity(slots: u32) -> Conns {
        Conns {
            slots: Vec::with_capacity(slots as usize),
            used: 0,
            floating: Vec::new(),
            floating_from: slots,
            floating_free: Vec::new(),
        }
    }

    /// Whether it has no socket.
    pub(crate) fn is_floating(&self, id: ConnId) -> bool {
        id.index >= self.floating_from
    }

    /// Connections without a socket.
    pub(crate) fn floating(&self) -> usize {
        self.floating.len() - self.floating_free.len()
    }

    /// Makes one.
    pub(crate) fn float(&mut self) -> ConnId {
        let place = self.floating_free.pop().unwrap_or_else(|| {
            self.floating.push(Conn::default());
            self.floating.len() as u32 - 1
        });
        let conn = &mut self.floating[place as usize];
        let generation = conn.generation.wrapping_add(1) & Token::GENERATION_MASK;
        *conn = Conn {
            generation,
            life: Life::Open,
            ..Conn::default()
        };
        ConnId {
            index: self.floating_from + place,
            generation,
        }
    }

    /// One of them is gone.
    pub(crate) fn sink(&mut self, id: ConnId) {
        let place = id.index.wrapping_sub(self.floating_from);
        if let Some(conn) = self.floating.get_mut(place as usize)
            && conn.generation == id.generation
            && conn.life != Life::Free
        {
            *conn = Conn {
                generation: conn.generation,
                ..Conn::default()
            };
            self.floating_free.push(place);
        }
    }

    /// Slots that are not free.
    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    /// Gives `slot` a new user.
    pub(crate) fn open(&mut self, slot: u32) -> ConnId {
        let index = slot as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, Conn::default);
        }
        let conn = &mut self.slots[index];
        // A completion of the close may come after the kernel gave the slot away again.
        if conn.life == Life::Free {
            self.used += 1;
        }
        let generation = conn.generation.wrapping_add(1) & Token::GENERATION_MASK;
        *conn = Conn {
            generation,
            life: Life::Open,
            ..Conn::default()
        };
        ConnId {
            index: slot,
            generation,
        }
    }

    /// The slot's close completed; a late one of an earlier user changes nothing.
    pub(crate) fn free(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.get_mut(id) else {
            return false;
        };
        *conn = Conn {
            generation: conn.generation,
            ..Conn::default()
        };
        self.used -= 1;
        true
    }

    /// The connection, unless its slot has another user or none.
    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        let conn = match self.slots.get_mut(id.index as usize) {
            Some(conn) => conn,
            None => {
                let place = id.index.wrapping_sub(self.floating_from);
                self.floating.get_mut(place as usize)?
            }
        };
        (conn.generation == id.generation && conn.life != Life::Free).then_some(conn)
    }

    /// Has the connection's record come from memory.
    pub(crate) fn prefetch(&self, slot: u32) {
        if let Some(conn) = self.slots.get(slot as usize) {
            ring::prefetch(conn);
        }
    }

    /// The TLS state in a slot, whoever uses it.
    pub(crate) fn tls(&self, slot: u32) -> Option<&Tls> {
        self.slots.get(slot as usize)?.tls.as_deref()
    }

    /// The connections that hold more than `size` bytes undigested, with how many.
    pub(crate) fn holders(&self, size: usize) -> Vec<(usize, ConnId)> {
        let floating = self.floating.iter().zip(self.floating_from..);
        let all = self.slots.iter().zip(0..).chain(floating);
        let holding = all.filter(|(conn, _)| {
            // What is on its way out digests nothing, and holds no more than it had.
            conn.held() > size && conn.life == Life::Open
        });
        let named = holding.map(|(conn, index)| {
            let generation = conn.generation;
            (conn.held(), ConnId { index, generation })
        });
        named.collect()
    }

    /// Those over which files come or go.
    pub(crate) fn transfers(&mut self) -> Vec<ConnId> {
        self.those(|conn| conn.transfer().is_some())
    }

    /// Those that await a request behind one with a body.
    pub(crate) fn spare(&mut self) -> Vec<ConnId> {
        self.those(|conn| conn.web.as_ref().is_some_and(|web| web.is_spare()))
    }

    fn those(&mut self, is_one: impl Fn(&mut Conn) -> bool) -> Vec<ConnId> {
        let all = self.slots.iter_mut().zip(0..);
        let found = all.filter_map(|(conn, index)| {
            let generation = conn.generation;
            is_one(conn).then_some(ConnId { index, generation })
        });
        found.collect()
    }

    /// The connection where the protocol still knows it.
    pub(crate) fn open_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.get_mut(id).filter(|conn| conn.life == Life::Open)
    }
}

/// The connection that a completion speaks of.
pub(crate) fn id_of(token: Token) -> ConnId {
    ConnId {
        index: token.slot,
        generation: token.generation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_without_a_socket_are_behind_all_slots() {
        let mut conns = Conns::with_capacity(2);
        let socket = conns.open(1);
        let (first, second) = (conns.float(), conns.float());
        assert!(!conns.is_floating(socket) && conns.is_floating(first));
        assert_eq!((first.index, second.index), (2, 3));
        assert_eq!((conns.used(), conns.floating()), (1, 2));
        conns.sink(first);
        assert!(conns.get_mut(first).is_none() && conns.get_mut(second).is_some());
        let third = conns.float();
        assert_eq!(third.index, first.index);
        assert!(conns.get_mut(first).is_none(), "its place has another user");
        conns.sink(first);
        assert_eq!((conns.used(), conns.floating()), (1, 2));
    }
}
