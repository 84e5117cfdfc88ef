//! Listening sockets of one shard, with some dozens of direct accepts in flight.
//!
//! Invariant: no accept is armed that could find the slot table full, because the kernel would drop
//! that client; and head-room stays for connections that arrive from siblings.

use crate::connection::Life;
use crate::handoff::IN_FLIGHT_MAX;
use crate::transport::http::Site;
use crate::transport::tls::{ServerConfig, Tls};
use crate::transport::web::Web;
use crate::turn::{Alarm, Turn};
use ring::{Completion, Op, Token};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use xmpp::StreamKind;

/// The error of an accept that was taken back.
const ECANCELED: i32 = 125;
/// Accepts in flight per listener.
pub(crate) const LANES: u32 = 32;
/// Moves of one sibling that may arrive before armed accepts can be taken back.
const ARRIVALS_PER_SIBLING: u32 = 4 * IN_FLIGHT_MAX;
/// How long accepting rests after an error.
const REST: Duration = Duration::from_millis(20);

/// One listening socket; with TLS from the first byte where it has a configuration, and with HTTP
/// where it has a site.
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) direct_tls: Option<Arc<ServerConfig>>,
    pub(crate) site: Option<Arc<Site>>,
    /// Whether it is for components.
    pub(crate) is_for_components: bool,
}

/// All listening sockets of a shard.
pub(crate) struct Accept {
    listeners: Vec<Listener>,
    /// Those that are not armed, of each listener.
    idle: Vec<Vec<u32>>,
    armed: u32,
    open: bool,
    resting: bool,
}

impl Accept {
    pub(crate) fn new(listeners: Vec<Listener>) -> Accept {
        let lanes = |index: u32| (index * LANES..(index + 1) * LANES).collect();
        let idle = (0..listeners.len() as u32).map(lanes).collect();
        Accept {
            listeners,
            idle,
            armed: 0,
            open: false,
            resting: false,
        }
    }

    /// A lane of the listener that has the fewest armed: where there is room for a few only, each
    /// has its part of it.
    fn next(&mut self) -> Option<u32> {
        self.idle.iter_mut().max_by_key(|lanes| lanes.len())?.pop()
    }
}

/// How many slots of each of so many shards are kept for arrivals from siblings.
pub(crate) fn head_room(shards: u32, slots: u32) -> u32 {
    (shards.saturating_sub(1) * ARRIVALS_PER_SIBLING).min(slots / 8)
}

impl Turn {
    /// Begins to accept.
    pub(crate) fn open_listeners(&mut self) {
        self.accept.open = true;
        self.arm_accepts();
    }

    /// Stops accepting.
    pub(crate) fn close_listeners(&mut self) {
        self.accept.open = false;
        self.cancel_accepts();
    }

    /// Arms as many accepts as there is room for.
    pub(crate) fn arm_accepts(&mut self) {
        while self.accept.open && !self.accept.resting && self.has_room(self.accept.armed + 1) {
            let Some(lane) = self.accept.next() else {
                return;
            };
            let listener = &self.accept.listeners[(lane / LANES) as usize];
            self.ring.accept(listener.socket.as_fd(), lane, 0);
            self.accept.armed += 1;
        }
    }

    /// Takes armed accepts back where arrivals from siblings need their slots.
    pub(crate) fn yield_slots(&mut self) {
        if self.accept.armed > 0 && !self.has_room(self.accept.armed) {
            self.cancel_accepts();
        }
    }

    fn has_room(&self, accepts: u32) -> bool {
        let slots = self.ring.slots();
        self.world.conns.used() + accepts + head_room(self.bells.len() as u32, slots) <= slots
    }

    fn cancel_accepts(&mut self) {
        for lane in 0..self.accept.listeners.len() as u32 * LANES {
            if !self.accept.idle[(lane / LANES) as usize].contains(&lane) {
                self.ring.cancel(Token::new(Op::Accept, lane, 0));
            }
        }
    }

    pub(crate) fn on_accept(&mut self, completion: &Completion) {
        let lane = completion.token.slot;
        self.accept.idle[(lane / LANES) as usize].push(lane);
        self.accept.armed -= 1;
        match completion.error() {
            None => self.on_connection(lane, completion.result as u32),
            Some(error) if error.raw_os_error() == Some(ECANCELED) => {}
            Some(_) if !self.accept.open => {}
            Some(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                self.accept.resting = true;
                self.alarm(Alarm::Accept, REST);
            }
        }
        self.arm_accepts();
    }

    /// The rest after an error is over.
    pub(crate) fn on_accept_alarm(&mut self) {
        self.accept.resting = false;
        self.arm_accepts();
    }

    fn on_connection(&mut self, lane: u32, slot: u32) {
        let Some(peer) = self
            .ring
            .peer(lane)
            .map(|address| address.ip().to_canonical())
        else {
            return self.ring.close(slot, 0);
        };
        if !self.accept.open || !self.admission.enter(peer) {
            self.counters.refused += 1;
            return self.ring.close(slot, 0);
        }
        self.counters.accepted += 1;
        let id = self.world.conns.open(slot);
        let listener = &self.accept.listeners[(lane / LANES) as usize];
        let direct = listener.direct_tls.as_ref();
        let Some(conn) = self.world.conns.get_mut(id) else {
            return;
        };
        debug_assert!(conn.life == Life::Open);
        conn.peer = Some(peer);
        conn.direct_tls = direct.is_some();
        conn.tls = direct.map(|config| Box::new(Tls::accept(config)));
        conn.web = listener.site.as_ref().map(|site| Box::new(Web::new(site)));
        let kind = match listener.is_for_components {
            true => StreamKind::Component,
            false => conn.kind(),
        };
        self.shard.on_open(&mut self.world, id, kind, peer);
        self.world.touch(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listener_has_its_part_of_a_few_accepts() {
        let listener = || Listener {
            socket: TcpListener::bind("127.0.0.1:0").expect("a port is free"),
            direct_tls: None,
            site: None,
            is_for_components: false,
        };
        let mut accept = Accept::new(vec![listener(), listener()]);
        let owners = |accept: &mut Accept, count: usize| {
            let lanes = (0..count).map_while(|_| accept.next());
            let mut armed = [0; 2];
            for lane in lanes {
                armed[(lane / LANES) as usize] += 1;
            }
            armed
        };
        assert_eq!(owners(&mut accept, 6), [3, 3]);
        // All of one come to their end.
        accept.idle[0].extend(0..3);
        assert_eq!(owners(&mut accept, 3), [3, 0]);
        assert_eq!(owners(&mut accept, 99), [LANES as usize - 3; 2]);
        assert_eq!(accept.next(), None);
    }
}
