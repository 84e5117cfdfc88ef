//! Wires between clients and the server: cut into pieces, delayed, never reordered.

use super::{ClientId, Event, Input, World};
use crate::client::Phase;
use stanza::framing;
use stanza::ns::Ns;
use stanza::scope::StreamScope;
use stanza::view::StanzaView;
use xmpp::ConnId;

/// Where the server's end of a wire is.
#[derive(Debug)]
pub(super) enum Place {
    /// On its way to its first shard, or between two, with what waits to be read there.
    Away(Away),
    /// On a shard.
    At(usize, ConnId),
    /// Closed by the server, or cut.
    Gone,
}

/// What happens to a wire while no shard has it.
#[derive(Debug, Default)]
pub(super) struct Away {
    pub input: Vec<u8>,
    pub eof: bool,
    pub reset: bool,
    pub secured: bool,
}

/// One connection and the client at its other end.
#[derive(Debug)]
pub(super) struct Wire {
    pub place: Place,
    /// Whether what is said on it are messages of the web.
    pub of_web: bool,
    /// When the last piece arrives, in each direction.
    up_at: u64,
    down_at: u64,
    /// What the server wrote and the wire has not taken.
    pub unsent: Vec<u8>,
    /// Bytes on the wire to the client or in `unread`.
    in_flight: usize,
    /// What arrived at a client that does not read.
    pub unread: Vec<u8>,
    pub reads: bool,
    pub client_gone: bool,
    pub says_no_more: bool,
    /// The server closes when `unsent` is empty.
    pub closing: bool,
}

impl Wire {
    pub(super) fn new(of_web: bool) -> Wire {
        Wire {
            place: Place::Away(Away::default()),
            of_web,
            up_at: 0,
            down_at: 0,
            unsent: Vec::new(),
            in_flight: 0,
            unread: Vec::new(),
            reads: true,
            client_gone: false,
            says_no_more: false,
            closing: false,
        }
    }
}

impl World {
    /// When the next piece that a client sends arrives.
    pub(super) fn upstream(&mut self, wire: usize) -> u64 {
        let delay = self.random.within(self.faults.wire_us);
        let wire = &mut self.wires[wire];
        wire.up_at = wire.up_at.max(self.now + delay);
        wire.up_at
    }

    /// Sends bytes as a client.
    pub fn send_bytes(&mut self, id: ClientId, bytes: &[u8]) {
        let gone = self.wires[id.0].client_gone || self.wires[id.0].says_no_more;
        let secure = self.clients[id.0].secure;
        let mut rest = if gone { &[][..] } else { bytes };
        while !rest.is_empty() {
            let size = self
                .random
                .within(self.faults.piece_bytes)
                .min(rest.len() as u64);
            let (piece, after) = rest.split_at(size as usize);
            rest = after;
            let at = self.upstream(id.0);
            self.schedule(
                at,
                Event::ToServer {
                    wire: id.0,
                    secure,
                    bytes: piece.to_vec(),
                },
            );
        }
    }

    pub(super) fn reach_server(&mut self, wire: usize, secure: bool, bytes: &[u8]) {
        self.trace.note("to server", self.now, wire as u64, bytes);
        match &mut self.wires[wire].place {
            Place::At(shard, conn) => {
                let (shard, conn) = (*shard, *conn);
                let slot = self.nodes[shard]
                    .side
                    .slot(conn)
                    .expect("a wire ends at its slot");
                if slot.handshaking && !secure {
                    // Plain bytes where the handshake belongs: no TLS stack takes them.
                    return self.cut(wire, "handshake failed");
                }
                slot.input.extend_from_slice(bytes);
                slot.ready = true;
                self.wake(shard);
            }
            Place::Away(away) => away.input.extend_from_slice(bytes),
            Place::Gone => {}
        }
    }

    pub(super) fn handshake(&mut self, wire: usize) {
        self.trace.note("handshake", self.now, wire as u64, &[]);
        let exporter = self.clients[wire].exporter;
        match &mut self.wires[wire].place {
            Place::At(shard, conn) => {
                let (shard, conn) = (*shard, *conn);
                let slot = self.nodes[shard]
                    .side
                    .slot(conn)
                    .expect("a wire ends at its slot");
                slot.handshaking = false;
                self.input(shard, Input::Secured { conn, exporter });
            }
            Place::Away(away) => away.secured = true,
            Place::Gone => {}
        }
    }

    pub(super) fn server_eof(&mut self, wire: usize) {
        self.trace.note("eof", self.now, wire as u64, &[]);
        match &mut self.wires[wire].place {
            Place::At(shard, conn) => {
                let (shard, conn) = (*shard, *conn);
                let slot = self.nodes[shard]
                    .side
                    .slot(conn)
                    .expect("a wire ends at its slot");
                slot.eof = true;
                slot.ready = true;
                self.wake(shard);
            }
            Place::Away(away) => away.eof = true,
            Place::Gone => {}
        }
    }

    pub(super) fn reset(&mut self, wire: usize) {
        self.trace.note("reset", self.now, wire as u64, &[]);
        match &mut self.wires[wire].place {
            Place::Away(away) => away.reset = true,
            _ => self.cut(wire, "reset"),
        }
    }

    /// Cuts a wire from the server's side; the shard hears of it.
    pub(super) fn cut(&mut self, wire: usize, why: &str) {
        self.trace.note(why, self.now, wire as u64, &[]);
        let Place::At(shard, conn) = self.wires[wire].place else {
            return;
        };
        self.nodes[shard].side.unplug(conn);
        self.wires[wire].place = Place::Gone;
        self.wires[wire].unsent.clear();
        self.wires[wire].closing = true;
        self.input(shard, Input::Closed { conn });
        self.pump(wire);
    }

    /// The server's process is gone: the client sees its end of the wire close.
    pub(super) fn hang_up(&mut self, wire: usize) {
        if let Place::Gone = self.wires[wire].place {
            return;
        }
        self.wires[wire].place = Place::Gone;
        self.wires[wire].unsent.clear();
        self.wires[wire].closing = true;
        self.pump(wire);
    }

    /// Puts on the wire what the server wrote, as far as the client's window goes.
    pub(super) fn pump(&mut self, wire: usize) {
        if self.wires[wire].client_gone {
            self.wires[wire].unsent.clear();
            return;
        }
        loop {
            let room = self
                .faults
                .window_bytes
                .saturating_sub(self.wires[wire].in_flight);
            let size = self.wires[wire].unsent.len().min(room) as u64;
            if size == 0 {
                break;
            }
            let size = self.random.within(self.faults.piece_bytes).min(size) as usize;
            let bytes: Vec<u8> = self.wires[wire].unsent.drain(..size).collect();
            self.wires[wire].in_flight += size;
            let at = self.downstream(wire);
            self.schedule(at, Event::ToClient { wire, bytes });
        }
        if let Place::At(shard, conn) = self.wires[wire].place
            && self.wires[wire].unsent.is_empty()
            && let Some(slot) = self.nodes[shard].side.slot(conn)
            && slot.output.is_empty()
            && std::mem::take(&mut slot.tells_written)
        {
            self.input(shard, Input::Written { conn });
        }
        if self.wires[wire].closing && self.wires[wire].unsent.is_empty() {
            self.wires[wire].closing = false;
            let at = self.downstream(wire);
            self.schedule(at, Event::ClientEof { wire });
        }
    }

    /// RFC 7395 3.3: what a client of the web is told are documents of their own.
    pub(super) fn check_messages(&self, wire: usize, output: &[u8]) {
        if !self.wires[wire].of_web {
            return;
        }
        let nothing = StreamScope::of(Ns::Unknown);
        framing::frame(output, |pieces| {
            let message = pieces.concat();
            if let Err(error) = StanzaView::parse(&message, &nothing) {
                panic!("{error}: {}", String::from_utf8_lossy(&message));
            }
        });
    }

    fn downstream(&mut self, wire: usize) -> u64 {
        let delay = self.random.within(self.faults.wire_us);
        let wire = &mut self.wires[wire];
        wire.down_at = wire.down_at.max(self.now + delay);
        wire.down_at
    }

    pub(super) fn reach_client(&mut self, wire: usize, bytes: &[u8]) {
        self.trace.note("to client", self.now, wire as u64, bytes);
        if self.wires[wire].reads {
            self.read(wire, bytes);
        } else {
            self.wires[wire].unread.extend_from_slice(bytes);
        }
    }

    /// A client takes bytes, and reacts.
    pub(super) fn read(&mut self, wire: usize, bytes: &[u8]) {
        self.wires[wire].in_flight -= bytes.len();
        self.pump(wire);
        if self.wires[wire].client_gone {
            return;
        }
        let reaction = self.clients[wire].on_bytes(bytes, &mut self.random);
        if reaction.handshake {
            let at = self.upstream(wire);
            self.schedule(at, Event::Handshake { wire });
        }
        self.send_bytes(ClientId(wire), &reaction.bytes);
        if reaction.online {
            self.act(wire, |actor, scene| actor.on_online(scene));
        }
        for stanza in &reaction.stanzas {
            self.act(wire, |actor, scene| actor.on_stanza(scene, stanza));
        }
        if reaction.refused {
            self.act(wire, |actor, scene| actor.on_refused(scene));
        }
    }

    pub(super) fn client_eof(&mut self, wire: usize) {
        self.trace.note("client eof", self.now, wire as u64, &[]);
        let client = &mut self.clients[wire];
        if client.ended {
            return;
        }
        client.ended = true;
        if !matches!(client.phase, Phase::Online | Phase::Raw | Phase::Refused(_)) {
            client.phase = Phase::Refused("the connection ended".into());
        }
        self.act(wire, |actor, scene| actor.on_end(scene));
    }
}
