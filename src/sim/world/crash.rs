//! Ends of the process: by itself, or with one of its shards; and connections that all break at
//! once.
//!
//! The server is built with `panic = "abort"`, so a shard that panics takes the process with it.
//! What tells that from a process that is killed between turns is where it happens: in the midst of
//! a turn some of what the shard asked for is on its way and the rest is not, nothing that it wrote
//! in this turn has left, and parcels of its siblings lie in their rings.

use super::{ClientId, Entry, Event, Reverse, World, nodes};
use crate::client::Phase;
use std::collections::BTreeSet;
use std::sync::Arc;
use xmpp::Settings;
use xmpp::port::{SessionId, StoreOp, StoreReply};
use xmpp::settings::Durability;

/// In a thousand: how often a piece that is on the wire when its machine resets it is lost, with
/// all behind it.
const RESETS: u64 = 200;

/// How shards have died.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deaths {
    /// How many did.
    pub count: u64,
    /// Parcels that were in the rings then.
    pub parcels: u64,
    /// Turns that had asked for something before.
    pub torn: u64,
}

impl World {
    /// The process dies: what it has not written is gone. Of what is on its way to the disk some
    /// may have arrived, a beginning of it, for there is one lane; nobody was told.
    pub fn crash(&mut self) {
        self.trace.note("crash", self.now, 0, &[]);
        self.end_process(false);
    }

    /// The administrator chooses another mode: the next process has it.
    pub fn set_durability(&mut self, durability: Durability) {
        Arc::make_mut(&mut self.settings).durability = durability;
    }

    /// The same of anything else.
    pub fn set(&mut self, change: impl FnOnce(&mut Settings)) {
        change(Arc::make_mut(&mut self.settings));
    }

    /// A shard will panic when it has asked for `steps` more things, wherever in a turn that is.
    pub fn doom(&mut self, shard: usize, steps: u64) {
        let count = self.nodes.len();
        self.nodes[shard % count].dies_in = Some(steps);
    }

    /// No shard will panic.
    pub fn spare(&mut self) {
        for node in &mut self.nodes {
            node.dies_in = None;
        }
    }

    /// How shards have died so far.
    pub fn deaths(&self) -> Deaths {
        self.deaths
    }

    /// Whether a shard is alive to ask for one more thing.
    pub(super) fn outlives_step(&mut self, shard: usize) -> bool {
        match &mut self.nodes[shard].dies_in {
            None => true,
            Some(0) => false,
            Some(steps) => {
                *steps -= 1;
                true
            }
        }
    }

    /// Whether the process ends in this turn. What the shard did after its last step has had no
    /// effect on anything that outlives it.
    pub(super) fn dies(&mut self, shard: usize, steps_before: Option<u64>) -> bool {
        if self.nodes[shard].dies_in != Some(0) {
            return false;
        }
        self.trace.note("panic", self.now, shard as u64, &[]);
        let rings = self.nodes.iter().flat_map(|node| &node.side.rings);
        let parcels = rings.map(|ring| (ring.queue.len() + ring.spill.len()) as u64);
        self.deaths.parcels += parcels.sum::<u64>();
        self.deaths.torn += u64::from(steps_before > Some(0));
        self.deaths.count += 1;
        self.end_process(true);
        true
    }

    /// A machine that resets its connections loses what is on the wire from some point on.
    fn end_process(&mut self, resets: bool) {
        let mut agenda: Vec<Entry> = std::mem::take(&mut self.agenda)
            .into_iter()
            .map(|Reverse(entry)| entry)
            .collect();
        agenda.sort();
        let is_write = |entry: &&Entry| matches!(entry.event, Event::Disk { .. });
        let writes = agenda.iter().filter(is_write).count();
        let mut arrives = self.random.below(writes as u64 + 1);
        let mut reset = BTreeSet::new();
        for entry in agenda {
            match entry.event {
                Event::Disk { op, .. } if arrives > 0 => {
                    arrives -= 1;
                    self.perform_or_refuse(op);
                }
                Event::ToClient { wire, .. } if resets => {
                    if !reset.contains(&wire) && !self.random.happens(RESETS) {
                        self.agenda.push(Reverse(entry));
                    } else {
                        reset.insert(wire);
                    }
                }
                // What has left the machine arrives; clients go on.
                Event::ToClient { .. }
                | Event::ClientEof { .. }
                | Event::Wake { .. }
                | Event::Connect { .. } => self.agenda.push(Reverse(entry)),
                _ => {}
            }
        }
        let found = self.random.below(self.doubted.len() as u64 + 1) as usize;
        for op in std::mem::take(&mut self.doubted).into_iter().take(found) {
            self.perform(op);
        }
        self.disk.reopen();
        self.asked.forget();
        self.nodes = nodes(&self.settings, &mut self.random, &self.faults, self.now);
        for wire in reset {
            // Of connections that the server had closed before, the machine held more.
            self.wires[wire].unsent.clear();
            self.pump(wire);
        }
        for wire in 0..self.wires.len() {
            self.hang_up(wire);
        }
    }

    /// Storage does something for the server, unless the disk is as bad as it may be.
    pub(super) fn perform_or_refuse(&mut self, op: StoreOp) -> StoreReply {
        if self.random.happens(self.faults.disk_failures) {
            self.disk.refuse(&op, "the seed says so")
        } else if self.faults.disk_full && !op.is_read() {
            self.disk.refuse(&op, "no space left on the device")
        } else if let Some(reply) = self.read_with_faults(&op) {
            reply
        } else if self.faults.disk_doubts > 0
            && !op.is_read()
            // Decision 0007 leaves open what becomes of these: they have numbers of the wire.
            && !matches!(op.main(), StoreOp::ClaimOffline { .. } | StoreOp::Enqueue(_))
            && self.random.happens(self.faults.disk_doubts)
        {
            let reply = self.disk.refuse(&op, "input/output error");
            self.doubted.push(op);
            reply
        } else {
            if !op.is_read() {
                self.doubted.clear();
            }
            self.perform(op)
        }
    }

    /// What storage answers instead of what it would have read.
    fn read_with_faults(&self, op: &StoreOp) -> Option<StoreReply> {
        let names =
            |faults: &[String], id: &SessionId| faults.iter().any(|it| *it == id.to_string());
        let fault = match op {
            StoreOp::Session { session, .. } if names(&self.faults.damaged, session) => {
                return Some(StoreReply::Damaged("what a session was is damaged".into()));
            }
            StoreOp::Session { session, .. } => names(&self.faults.unreadable, session),
            StoreOp::Account { account } => self.faults.unloadable.contains(account),
            _ => false,
        };
        fault.then(|| StoreReply::Failed("input/output error".into()))
    }

    /// Every client loses its connection at once, and acts on it. Some are reset; of the others the
    /// server hears nothing, as where a network just stops.
    pub fn storm(&mut self) {
        self.trace.note("storm", self.now, 0, &[]);
        for client in 0..self.clients.len() {
            if self.clients[client].ended {
                continue;
            }
            if self.random.happens(500) {
                self.vanish(ClientId(client));
            } else {
                self.wires[client].client_gone = true;
                self.clients[client].ended = true;
            }
            let phase = &mut self.clients[client].phase;
            if !matches!(phase, Phase::Online | Phase::Raw | Phase::Refused(_)) {
                *phase = Phase::Refused("the connection ended".into());
            }
            self.act(client, |actor, scene| actor.on_end(scene));
        }
    }
}
