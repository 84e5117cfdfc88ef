//! What a ring thread keeps where its clients do several things: an account for each of them, and
//! who is there.
//!
//! Invariant: what is sent to a client is expected of the server unless the client was leaving or
//! away when it was sent, and a client leaves only when everything expected at it and everything
//! that it sent itself has come: under its next address it would be another's. Who only lost the
//! network keeps its address, and all that is sent to it meanwhile is expected.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use crate::ledger::{Ledger, Topology, Verdict};
use crate::plan::Plan;
use crate::scan;
use crate::scenario::Action;

/// The actions that have lanes: the first of all, in their order.
const MARKED: [Action; 4] = [
    Action::Chat,
    Action::Presence,
    Action::Directed,
    Action::Muc,
];

/// Whether a client can be sent to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Place {
    /// It can.
    #[default]
    Here,
    /// It will log in again, as soon as nothing is outstanding at it.
    Leaving,
    /// It closed its stream, and is on its way back.
    Away,
    /// It lost the network: its session is to go on, and has not caught up.
    Lost,
}

/// A request whose answer has not come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// What is whole with the answer: a roster, or a way back.
    pub(crate) action: Action,
    /// What is behind the letter in its `id`.
    pub(crate) number: u32,
    pub(crate) intended: u64,
    pub(crate) sent: u64,
}

impl Asked {
    /// What is asked now for `action`, which was due before; it has no number yet.
    pub(crate) fn new(action: Action, intended: u64, sent: u64) -> Asked {
        Asked {
            action,
            number: 0,
            intended,
            sent,
        }
    }
}

/// Who is in a roster, in whatever order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contacts {
    count: usize,
    /// Of the JIDs: the sum of their hashes.
    sum: u64,
}

impl Contacts {
    /// Those of a roster's answer.
    pub(crate) fn of(answer: &[u8]) -> Contacts {
        let hashes = BuildHasherDefault::<DefaultHasher>::default();
        let mut contacts = Contacts::default();
        for at in memchr::memmem::find_iter(answer, b"<item") {
            let jid = scan::attribute(&answer[at..], b"jid");
            contacts.count += 1;
            contacts.sum = contacts.sum.wrapping_add(hashes.hash_one(jid));
        }
        contacts
    }
}

/// The state of a mixed scenario.
pub(crate) struct Mix {
    /// Which phase.
    pub(crate) phase: usize,
    /// Of [`MARKED`], each.
    pub(crate) ledgers: [Ledger; 4],
    /// Copies, answers and returns that are expected and have not come.
    pub(crate) open: u64,
    /// Per client: the copies of those.
    pub(crate) to_come: Vec<u32>,
    pub(crate) places: Vec<Place>,
    /// Those that are leaving.
    pub(crate) leaving: Vec<u32>,
    /// Those without a network, with when they have it again.
    pub(crate) lost: BTreeSet<(u64, u32)>,
    /// Per client, where there are any.
    pub(crate) asked: HashMap<u32, VecDeque<Asked>>,
    /// Requests so far.
    pub(crate) requests: u32,
    /// Per client: who is in its first roster.
    pub(crate) contacts: HashMap<u32, Contacts>,
    /// Per action, sender and sequence of a broadcast: the copies that have not come.
    pub(crate) rounds: HashMap<(Action, u32, u32), u32>,
    /// In a closed loop: who has room in the window, once for each place in it.
    pub(crate) free: VecDeque<u32>,
    /// The first so many clients act.
    pub(crate) active: u32,
    /// In an open loop: what is due, where nobody could do it yet.
    pub(crate) picked: Option<Action>,
    /// When the last such was done: what had become due by then waited behind it.
    pub(crate) held_until: u64,
}

impl Mix {
    pub(crate) fn new(plan: &Plan, count: u32) -> Mix {
        let ledger = |action: Action| {
            // An action that does not occur takes no memory.
            if !plan.has(action) || (action.is_pairwise() && count < 2) {
                return Ledger::new(0, Topology::Cliques(1));
            }
            let topology = match action {
                Action::Muc => Topology::Rooms(plan.clique),
                Action::Presence => Topology::Cliques(plan.clique),
                _ => Topology::partners(count, plan.partners, plan.seed),
            };
            Ledger::new(count, topology)
        };
        Mix {
            phase: usize::MAX,
            ledgers: MARKED.map(ledger),
            open: 0,
            to_come: vec![0; count as usize],
            places: vec![Place::Here; count as usize],
            leaving: Vec::new(),
            lost: BTreeSet::new(),
            asked: HashMap::new(),
            requests: 0,
            contacts: HashMap::new(),
            rounds: HashMap::new(),
            free: VecDeque::new(),
            active: 0,
            picked: None,
            held_until: 0,
        }
    }

    /// The account of an action that carries marks.
    pub(crate) fn ledger(&mut self, action: Action) -> &mut Ledger {
        assert!(action.is_marked(), "{action:?} has no lanes");
        &mut self.ledgers[action as usize]
    }

    /// One copy is expected at `receiver`.
    pub(crate) fn expect(&mut self, receiver: u32) {
        self.to_come[receiver as usize] += 1;
        self.open += 1;
    }

    /// It came.
    pub(crate) fn came(&mut self, receiver: u32) {
        let to_come = &mut self.to_come[receiver as usize];
        *to_come = to_come.saturating_sub(1);
        self.open = self.open.saturating_sub(1);
    }

    /// A client asks something that is answered apart; gives the number of it.
    pub(crate) fn ask(&mut self, client: u32, asked: Asked) -> u32 {
        let number = self.requests;
        self.requests = number.wrapping_add(1);
        let asked = Asked { number, ..asked };
        self.asked.entry(client).or_default().push_back(asked);
        number
    }

    /// Whether nothing that was sent to a client, or asked by it, is outstanding.
    pub(crate) fn is_quiet(&self, index: u32) -> bool {
        self.to_come[index as usize] == 0 && !self.asked.contains_key(&index)
    }

    /// The final account; `own` has the requests and returns, and what belongs to no lane.
    pub(crate) fn settle(&self, own: Verdict) -> Verdict {
        // Who still waits to leave never began to: what it waits for is lost, and not its return.
        let begun = own.sent - self.leaving.len() as u64;
        let mut verdict = own;
        (verdict.sent, verdict.expected) = (begun, begun);
        verdict.lost = begun.saturating_sub(own.delivered);
        for ledger in &self.ledgers {
            verdict.add(&ledger.settle());
        }
        verdict
    }
}
