//! What shards ask of storage that costs as much as a session has in its queue.

use std::collections::{HashMap, HashSet};

use stanza::jid::BareJid;
use xmpp::Ticket;
use xmpp::port::StoreOp;

/// What is under way, and the most that ever was.
#[derive(Debug, Default)]
pub struct Asked {
    /// Ends of sessions that storage has not answered.
    ends: HashSet<(usize, u64)>,
    /// Whose sessions are being read.
    reads: HashMap<(usize, u64), BareJid>,
    /// Ends of one shard at once.
    pub ends_peak: usize,
    /// Reads of one account's sessions at once.
    pub reads_peak: usize,
    /// Ends altogether.
    pub ended: usize,
    /// Places in queues that messages were put into.
    pub copies: usize,
}

impl Asked {
    /// A shard asks.
    pub(crate) fn note(&mut self, shard: usize, ticket: Ticket, op: &StoreOp) {
        let key = (shard, ticket.0);
        match op {
            StoreOp::EndSession { .. } => {
                self.ends.insert(key);
                self.ended += 1;
                let count = self.ends.iter().filter(|(of, _)| *of == shard).count();
                self.ends_peak = self.ends_peak.max(count);
            }
            StoreOp::Session { account, .. } => {
                self.reads.insert(key, account.clone());
                let count = self.reads.values().filter(|of| *of == account).count();
                self.reads_peak = self.reads_peak.max(count);
            }
            StoreOp::Enqueue(enqueue) => self.copies += enqueue.copies.len(),
            _ => {}
        }
    }

    /// A shard has the answer.
    pub(crate) fn answered(&mut self, shard: usize, ticket: Ticket) {
        self.ends.remove(&(shard, ticket.0));
        self.reads.remove(&(shard, ticket.0));
    }

    /// The process ends, and nobody hears of what it asked for.
    pub(crate) fn forget(&mut self) {
        self.ends.clear();
        self.reads.clear();
    }
}
