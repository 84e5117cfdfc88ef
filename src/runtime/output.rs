//! From the outputs to the wire: sealed and sent once per dirty connection per turn; and how a
//! connection ends.
//!
//! Invariant: one send in flight per connection; the slot is closed only when there is none, and no
//! shutdown either.

use crate::connection::{Life, Reading, id_of};
use crate::turn::{CONNS_AHEAD, KEYS_AHEAD, TLS_AHEAD, Turn};
use ring::{Completion, Op, Token};
use std::cmp::Reverse;
use xmpp::ConnId;

/// How long what is in the output may take to be written after a close.
const CLOSING_MS_MAX: u64 = 5_000;
/// How long the peer of a stream that has ended may go on talking, so that our last words arrive.
const LINGER_MS_MAX: u64 = 2_000;

impl Turn {
    /// Looks at every touched connection: writes, moves, ends, and arms reading.
    pub(crate) fn flush(&mut self) {
        // Cutting one may write to others; each is cut once, so this ends.
        while !self.world.dirty.is_empty() {
            let mut dirty = std::mem::take(&mut self.world.dirty);
            let mut coming = dirty.drain(..);
            while let Some(id) = coming.next() {
                self.look_ahead_of_flush(coming.as_slice());
                self.flush_one(id);
            }
            drop(coming);
            if self.world.dirty.is_empty() {
                self.world.dirty = dirty;
            }
        }
        self.world.storage.publish();
        self.world.mesh.publish(&mut self.ring);
        self.send_departing();
    }

    /// As for completions: the keys that the next connections seal with come meanwhile.
    fn look_ahead_of_flush(&self, coming: &[ConnId]) {
        if let Some(id) = coming.get(CONNS_AHEAD) {
            self.world.conns.prefetch(id.index);
        }
        let tls_at = |ahead: usize| self.world.conns.tls(coming.get(ahead)?.index);
        if let Some(tls) = tls_at(TLS_AHEAD) {
            tls.prefetch();
        }
        if let Some(tls) = tls_at(KEYS_AHEAD) {
            tls.prefetch_sealing();
        }
    }

    fn flush_one(&mut self, id: ConnId) {
        let is_floating = self.world.conns.is_floating(id);
        let Some(conn) = self.world.conns.get_mut(id) else {
            return;
        };
        conn.dirty = false;
        match conn.life {
            _ if is_floating => return self.flush_session(id),
            Life::Free | Life::Departed | Life::Released => return,
            Life::Cut if conn.sending > 0 || conn.shutting => return,
            Life::Cut => return self.release(id),
            Life::Lingering if conn.shutting => {}
            Life::Lingering if conn.eof => return self.release(id),
            _ if conn.overflowed => {
                self.counters.cut_slow += 1;
                return self.lose(id);
            }
            _ => {}
        }
        if conn.sending == 0 {
            self.send_next(id);
        }
        let Some(conn) = self.world.conns.get_mut(id) else {
            return;
        };
        conn.count_burst(self.world.output_max, &mut self.world.bursts);
        let relieved = conn.choked && conn.waiting() <= self.world.choke_size;
        conn.choked &= !relieved;
        let is_written = conn.tells_written && conn.life == Life::Open && conn.unsent() == 0;
        conn.tells_written &= !is_written;
        match conn.life {
            Life::Closing if conn.sending > 0 => {
                let at = self.world.now.plus_ms(CLOSING_MS_MAX);
                self.endings.push(Reverse((at, id)));
            }
            Life::Closing => self.finish(id),
            Life::Leaving => self.try_depart(id),
            Life::Open if relieved => self.world.enqueue(id),
            _ => {}
        }
        if is_written {
            self.on_all_written(id);
        }
        self.settle_reading(id);
    }

    /// Sends what is in the output, sealed where there is TLS.
    fn send_next(&mut self, id: ConnId) {
        let now_ms = self.world.now_ms();
        let Some(conn) = self.world.conns.get_mut(id) else {
            return;
        };
        let ends = conn.life == Life::Closing;
        if let Some(web) = &mut conn.web
            && (web.waiting() > 0 || !conn.output.is_empty() || ends && web.owes_close())
        {
            let size = web.waiting() + conn.output.len() + conn.output.len() / 4;
            let mut framed = self.world.pool.take(size);
            web.write(&conn.output, ends, &mut framed);
            let stream = std::mem::replace(&mut conn.output, framed);
            self.world.pool.give(stream);
        }
        if !conn.output.is_empty() {
            match &mut conn.tls {
                Some(tls) if !tls.is_handshaking() => {
                    if conn.wire.capacity() == 0 {
                        conn.wire = self.world.pool.take(conn.output.len() + 64);
                    }
                    tls.seal(&conn.output, &mut conn.wire);
                    self.world.pool.give(std::mem::take(&mut conn.output));
                }
                // Nothing is written between `<proceed/>` and the end of the handshake.
                Some(_) => {}
                None if conn.wire.is_empty() => std::mem::swap(&mut conn.wire, &mut conn.output),
                None => {
                    conn.wire.extend_from_slice(&conn.output);
                    self.world.pool.give(std::mem::take(&mut conn.output));
                }
            }
        }
        if !conn.wire.is_empty() {
            let wire = std::mem::take(&mut conn.wire);
            conn.sending = wire.len() as u32;
            conn.sending_since_ms = now_ms;
            self.counters.sends += 1;
            self.ring.send(id.index, id.generation, wire, 0);
        }
    }

    /// A send ended.
    pub(crate) fn on_send(&mut self, mut completion: Completion) {
        let id = id_of(completion.token);
        let buffer = completion.buffer.take().unwrap_or_default();
        let Some(conn) = self.world.conns.get_mut(id) else {
            return self.world.pool.give(buffer);
        };
        let taken = completion.result.max(0) as u32;
        let rest = conn.sending.saturating_sub(taken);
        conn.sending = 0;
        self.counters.sent += u64::from(taken);
        if taken > 0
            && let Some(transfer) = conn.transfer()
        {
            transfer.note_sent(taken.into(), self.world.now);
        }
        if rest > 0 && taken > 0 && conn.life != Life::Cut {
            conn.sending = rest;
            let from = buffer.len() - rest as usize;
            return self.ring.send(id.index, id.generation, buffer, from);
        }
        self.world.pool.give(buffer);
        if rest > 0 && conn.life != Life::Cut {
            return self.lose(id);
        }
        if conn.life != Life::Open || conn.unsent() > 0 || conn.tells_written || conn.burst > 0 {
            self.world.touch(id);
        }
    }

    /// Everything is written: says goodbye, and lingers where the peer may still be talking.
    fn finish(&mut self, id: ConnId) {
        let Some(conn) = self.world.conns.get_mut(id) else {
            return;
        };
        if let Some(tls) = &mut conn.tls
            && !conn.notified
        {
            conn.notified = true;
            tls.close_notify(&mut conn.wire);
            if !conn.wire.is_empty() {
                self.send_next(id);
                return self
                    .endings
                    .push(Reverse((self.world.now.plus_ms(CLOSING_MS_MAX), id)));
            }
        }
        if !conn.eof {
            self.world.drop_held(id);
            let Some(conn) = self.world.conns.get_mut(id) else {
                return;
            };
            // What comes unread or late resets a closed connection, and what the peer has not taken
            // from the kernel by then is lost: a late newline, or the `close_notify` of TLS.
            conn.life = Life::Lingering;
            conn.shutting = true;
            self.ring.shutdown_write(id.index, id.generation);
            let at = self.world.now.plus_ms(LINGER_MS_MAX);
            return self.endings.push(Reverse((at, id)));
        }
        self.release(id);
    }

    /// A connection that is broken, too slow or over a budget: the protocol is told, nothing more
    /// is written, and its slot is freed as soon as no send is in flight.
    pub(crate) fn lose(&mut self, id: ConnId) {
        if self.world.conns.open_mut(id).is_some() {
            self.shard.on_close(&mut self.world, id);
        }
        let Some(conn) = self.world.conns.get_mut(id) else {
            return;
        };
        match conn.life {
            Life::Free | Life::Departed | Life::Released | Life::Cut => return,
            _ => {}
        }
        let was_leaving = conn.life == Life::Leaving;
        conn.life = Life::Cut;
        if conn.sending > 0 {
            self.ring
                .cancel(Token::new(Op::Send, id.index, id.generation));
        } else if !conn.shutting {
            self.release(id);
        }
        if was_leaving {
            self.depart_instead();
        }
    }

    /// Our side is ended.
    pub(crate) fn on_shut(&mut self, id: ConnId) {
        if let Some(conn) = self.world.conns.get_mut(id) {
            conn.shutting = false;
            self.world.touch(id);
        }
    }

    /// Frees the slot. No send is in flight; a receive is cancelled, its completion will be stale.
    pub(crate) fn release(&mut self, id: ConnId) {
        if self.world.conns.is_floating(id) {
            return self.release_session(id);
        }
        let Some(conn) = self.world.conns.get_mut(id) else {
            return;
        };
        debug_assert!(conn.sending == 0, "the kernel still reads the buffer");
        debug_assert!(!conn.shutting, "the kernel still looks the slot up");
        let reading = std::mem::take(&mut conn.reading);
        conn.life = Life::Released;
        if let Some(peer) = conn.peer.take() {
            self.admission.leave(peer);
        }
        self.world.strip(id);
        if matches!(reading, Reading::Once | Reading::Multi) {
            self.ring
                .cancel(Token::new(Op::Recv, id.index, id.generation));
        }
        self.ring.close(id.index, id.generation);
    }

    /// Ends what took too long to end, or to leave.
    pub(crate) fn run_endings(&mut self) {
        while let Some(&Reverse((at, id))) = self.endings.peek() {
            if at > self.world.now {
                return;
            }
            self.endings.pop();
            if self.world.conns.is_floating(id) {
                self.see_to_session(id);
                continue;
            }
            let life = self.world.conns.get_mut(id).map(|conn| conn.life);
            match life {
                Some(Life::Closing | Life::Lingering) => self.lose(id),
                Some(Life::Leaving) => self.stay(id),
                Some(Life::Open) => self.see_to_transfer(id),
                _ => {}
            }
        }
    }
}
