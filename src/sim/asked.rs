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
    /// Whose sessions' queues get their numbers.
    renumbers: HashMap<(usize, u64), BareJid>,
    /// Messages on their way into queues.
    enqueues: HashSet<(usize, u64)>,
    /// Ends of one shard at once.
    pub ends_peak: usize,
    /// Reads of one account's sessions at once.
    pub reads_peak: usize,
    /// Sessions that were read.
    pub read: usize,
    /// Queues of one account that get their numbers at once.
    pub renumbers_peak: usize,
    /// Ends altogether.
    pub ended: usize,
    /// Messages on their way into queues at once.
    pub enqueues_peak: usize,
    /// Places in queues that messages were put into.
    pub copies: usize,
}

impl Asked {
    /// A shard asks.
    pub(crate) fn note(&mut self, shard: usize, ticket: Ticket, op: &StoreOp) {
        let key = (shard, ticket.0);
        match op.main() {
            StoreOp::EndSession { .. } => {
                self.ends.insert(key);
                self.ended += 1;
                let count = self.ends.iter().filter(|(of, _)| *of == shard).count();
                self.ends_peak = self.ends_peak.max(count);
            }
            StoreOp::Session { account, .. } => {
                self.read += 1;
                self.reads_peak = self.reads_peak.max(enter(&mut self.reads, key, account));
            }
            StoreOp::Renumber { account, .. } => {
                let count = enter(&mut self.renumbers, key, account);
                self.renumbers_peak = self.renumbers_peak.max(count);
            }
            StoreOp::Enqueue(enqueue) => {
                self.copies += enqueue.copies.len();
                self.enqueues.insert(key);
                self.enqueues_peak = self.enqueues_peak.max(self.enqueues.len());
            }
            _ => {}
        }
    }

    /// A shard has the answer.
    pub(crate) fn answered(&mut self, shard: usize, ticket: Ticket) {
        self.ends.remove(&(shard, ticket.0));
        self.reads.remove(&(shard, ticket.0));
        self.renumbers.remove(&(shard, ticket.0));
        self.enqueues.remove(&(shard, ticket.0));
    }

    /// The process ends, and nobody hears of what it asked for.
    pub(crate) fn forget(&mut self) {
        self.ends.clear();
        self.reads.clear();
        self.renumbers.clear();
        self.enqueues.clear();
    }
}

/// Notes a request of an account, and gives how many of that kind it has.
fn enter(of: &mut HashMap<(usize, u64), BareJid>, key: (usize, u64), account: &BareJid) -> usize {
    of.insert(key, account.clone());
    of.values().filter(|of| *of == account).count()
}
