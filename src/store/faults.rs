//! A store that fails as it is told to: for tests of what stands above a store.
//!
//! Invariant: a fault is chosen by the number of a `perform` call, so the same plan gives the same
//! faults; and what was answered `Done` survives [`Faulty::after_power_loss`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use stanza::jid::BareJid;
use xmpp::port::{Store, StoreOp, StoreReply};

/// What happens to one `perform` call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// As on a full disk: nothing is written, every write is answered `Failed`, reads are answered.
    Refuse,
    /// As where a sync fails behind a write: all of it is there, and answered `Failed`.
    Uncertain,
    /// The process dies at this sync: what it would have made durable is gone. All is answered
    /// `Failed` from here on, until [`Faulty::after_power_loss`].
    Cut,
    /// It takes this long.
    Slow(Duration),
}

/// Two copies of a store: what the process sees, and what is on the disk.
#[derive(Debug)]
pub struct Faulty<S> {
    live: S,
    durable: S,
    plan: BTreeMap<u64, Fault>,
    performed: u64,
    is_cut: bool,
}

impl<S: Store> Faulty<S> {
    /// A faultless store, of two copies with the same content.
    pub fn new(live: S, durable: S) -> Faulty<S> {
        Faulty {
            live,
            durable,
            plan: BTreeMap::new(),
            performed: 0,
            is_cut: false,
        }
    }

    /// Gives the calls with these numbers, the first being 0, a fault.
    pub fn plan(&mut self, calls: Range<u64>, fault: Fault) {
        self.plan.extend(calls.map(|call| (call, fault)));
    }

    /// How many calls there were.
    pub fn performed(&self) -> u64 {
        self.performed
    }

    /// Whether a [`Fault::Cut`] was reached.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// What is on the disk.
    pub fn after_power_loss(self) -> S {
        self.durable
    }
}

fn failed(text: &str) -> StoreReply {
    StoreReply::Failed(text.into())
}

impl<S: Store> Store for Faulty<S> {
    fn perform(&mut self, ops: &mut dyn Iterator<Item = StoreOp>, replies: &mut Vec<StoreReply>) {
        let fault = self.plan.remove(&self.performed);
        self.performed += 1;
        let ops: Vec<StoreOp> = ops.collect();
        if self.is_cut || fault == Some(Fault::Cut) {
            self.is_cut = true;
            replies.extend(ops.iter().map(|_| failed("the process is gone")));
            return;
        }
        if fault == Some(Fault::Refuse) {
            for op in ops {
                match op.is_read() {
                    true => self.live.perform(&mut std::iter::once(op), replies),
                    false => replies.push(failed("no space left on the device")),
                }
            }
            return;
        }
        if let Some(Fault::Slow(time)) = fault {
            std::thread::sleep(time);
        }
        let (from, mut again) = (replies.len(), Vec::new());
        self.live.perform(&mut ops.iter().cloned(), replies);
        self.durable.perform(&mut ops.iter().cloned(), &mut again);
        if fault == Some(Fault::Uncertain) {
            for (op, reply) in ops.iter().zip(&mut replies[from..]) {
                if !op.is_read() {
                    *reply = failed("input/output error");
                }
            }
        }
    }

    fn accounts(&mut self, each: &mut dyn FnMut(BareJid) -> bool) -> Result<(), Box<str>> {
        self.live.accounts(each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Memory;
    use crate::conformance::{account, conformance, create, one, wait, waiting};

    fn faulty() -> Faulty<Memory> {
        Faulty::new(Memory::new(), Memory::new())
    }

    #[test]
    fn without_faults_it_conforms() {
        conformance(|| Box::new(faulty()));
    }

    #[test]
    fn a_refused_write_is_not_there_and_an_uncertain_one_is() {
        let mut store = faulty();
        store.plan(1..3, Fault::Refuse);
        store.plan(3..4, Fault::Uncertain);
        assert_eq!(one(&mut store, create("a@b.example", 1)), StoreReply::Done);
        let refused = one(&mut store, wait("a@b.example", "one", 9));
        assert!(matches!(refused, StoreReply::Failed(_)), "{refused:?}");
        assert_eq!(waiting(&mut store, "a@b.example"), [], "reads go on");
        let uncertain = one(&mut store, wait("a@b.example", "two", 9));
        assert!(matches!(uncertain, StoreReply::Failed(_)), "{uncertain:?}");
        assert_eq!(waiting(&mut store, "a@b.example").len(), 1);
    }

    #[test]
    fn a_cut_loses_what_was_not_answered_and_nothing_else() {
        let mut store = faulty();
        store.plan(2..3, Fault::Cut);
        one(&mut store, create("a@b.example", 1));
        assert_eq!(
            one(&mut store, wait("a@b.example", "one", 9)),
            StoreReply::Done
        );
        for text in ["two", "three"] {
            let lost = one(&mut store, wait("a@b.example", text, 9));
            assert!(matches!(lost, StoreReply::Failed(_)), "{lost:?}");
        }
        assert!(store.is_cut() && store.performed() == 4);
        let gone = one(&mut store, account("a@b.example"));
        assert!(matches!(gone, StoreReply::Failed(_)), "{gone:?}");
        let mut after = store.after_power_loss();
        let texts: Vec<_> = waiting(&mut after, "a@b.example")
            .into_iter()
            .map(|(_, t)| t)
            .collect();
        assert_eq!(texts, ["one"]);
    }
}
