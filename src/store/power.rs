//! The embedded store against the memory store through random calls, and what a loss of power
//! leaves of it: the log, and the engine as it was at its last sync.

use std::path::Path;

use stanza::jid::BareJid;
use xmpp::Timestamp;
use xmpp::port::{
    Enqueue, Mark, Origin, QueuePlace, RosterItem, SessionId, Store, StoreOp, StoreReply,
};

use crate::conformance::sessions::{saved, session};
use crate::conformance::{create, jid, messages, one};
use crate::crash::{Scratch, copy_tree};
use crate::embedded::DIRECTORY;
use crate::{Embedded, Memory};

const NAMES: [&str; 3] = ["romeo@a.example", "juliet@a.example", "nurse@a.example"];
const SECRETS: u128 = 4;
const CALLS: u64 = 600;
const SEEDS: u64 = 6;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % end
    }

    fn account(&mut self) -> BareJid {
        jid(NAMES[self.below(NAMES.len() as u64) as usize])
    }
}

/// What a server may ask: sessions are written and ended, their queues grow and shrink.
struct Asking {
    random: Random,
    place: u64,
}

impl Asking {
    fn op(&mut self) -> StoreOp {
        let random = &mut self.random;
        let account = random.account();
        let secret = u128::from(random.below(SECRETS as u64));
        let session = session(account.as_str(), secret);
        self.place += 1;
        let text: Box<[u8]> = Box::from(format!("<message id='{}'/>", self.place).as_bytes());
        let origin = self.origin();
        match self.random.below(20) {
            0..8 => StoreOp::Enqueue(Enqueue {
                account,
                copies: vec![QueuePlace {
                    session,
                    place: self.place,
                    number: Some(self.place as u32),
                }],
                stanza: text,
                carbons: Vec::new(),
                shared: None,
                arrived: Timestamp(self.place),
                origin,
            }),
            8..12 => {
                let from = self.random.below(self.place);
                StoreOp::Dequeue {
                    account,
                    session,
                    from,
                    to: from + self.random.below(40),
                }
            }
            12..15 => StoreOp::PutHandled {
                account,
                session,
                handled: self.place,
            },
            15 => StoreOp::PutSession {
                account,
                session,
                saved: Box::new(saved(&format!("r{}", self.place))),
            },
            16 => StoreOp::PutOffline {
                account,
                arrived: Timestamp(self.place),
                stanza: text,
                quota: messages(20),
                origin,
            },
            17 => StoreOp::ClaimOffline {
                account,
                session,
                place: self.place + 1_000_000,
                number: Some(1),
            },
            18 => StoreOp::PutRosterItem {
                account,
                item: Box::new(RosterItem::new(jid(&format!(
                    "{}@b.example",
                    self.place % 9
                )))),
            },
            _ => StoreOp::EndSession {
                account,
                session,
                waiting: vec![(Timestamp(self.place), text)],
                quota: messages(20),
            },
        }
    }

    fn origin(&mut self) -> Option<Origin> {
        let account = self.random.account();
        let secret = u128::from(self.random.below(SECRETS as u64));
        (self.random.below(2) == 0).then(|| Origin {
            session: session(account.as_str(), secret),
            number: self.place,
            hash: self.random.below(2) * self.place,
            is_late: false,
        })
    }
}

/// Everything that can be asked, in a comparable order.
fn all(store: &mut dyn Store) -> Vec<StoreReply> {
    let mut found = Vec::new();
    for name in NAMES {
        for secret in 0..SECRETS {
            let op = StoreOp::Session {
                account: jid(name),
                session: session(name, secret),
            };
            let mut reply = one(store, op);
            if let StoreReply::Session(Some(stored)) = &mut reply {
                stored
                    .marks
                    .sort_by_key(|Mark { receiver, .. }| receiver.clone());
            }
            found.push(reply);
        }
        let mut reply = one(store, StoreOp::Account { account: jid(name) });
        if let StoreReply::Account(Some(data)) = &mut reply {
            data.roster.sort_by(|a, b| a.contact.cmp(&b.contact));
        }
        found.push(reply);
        found.push(one(store, StoreOp::Offline { account: jid(name) }));
    }
    let mut sessions: Vec<(BareJid, SessionId)> = match one(store, StoreOp::Sessions) {
        StoreReply::Sessions(sessions) => sessions,
        other => panic!("{other:?}"),
    };
    sessions.sort();
    found.push(StoreReply::Sessions(sessions));
    found
}

/// The engine's files without the log.
fn copy_engine(from: &Path) -> Scratch {
    let copy = Scratch::new();
    copy_tree(from, &copy.0);
    std::fs::remove_dir_all(copy.0.join(DIRECTORY).join("log")).unwrap();
    copy
}

#[test]
fn a_loss_of_power_leaves_what_was_answered_and_both_stores_agree() {
    for seed in 0..SEEDS {
        let mut asking = Asking {
            random: Random(seed),
            place: 0,
        };
        let scratch = Scratch::new();
        let (mut store, mut model) = (Embedded::open(&scratch.0).unwrap(), Memory::default());
        let mut engine = copy_engine(&scratch.0);
        let mut syncs = store.engine().unwrap().syncs.get();
        for name in NAMES {
            one(&mut store, create(name, 1));
            one(&mut model, create(name, 1));
        }
        for call in 0..CALLS {
            let ops: Vec<StoreOp> = (0..=asking.random.below(4)).map(|_| asking.op()).collect();
            let (mut got, mut expected) = (Vec::new(), Vec::new());
            store.perform(&mut ops.clone().into_iter(), &mut got);
            model.perform(&mut ops.clone().into_iter(), &mut expected);
            assert_eq!(got, expected, "seed {seed}, call {call}: {ops:?}");
            let now = store.engine().unwrap().syncs.get();
            if now != syncs {
                syncs = now;
                engine = copy_engine(&scratch.0);
            }
            if call % 50 == 49 {
                assert_eq!(all(&mut store), all(&mut model), "seed {seed}, call {call}");
                let left = Scratch::new();
                copy_tree(&engine.0, &left.0);
                let log = |scratch: &Scratch| scratch.0.join(DIRECTORY).join("log");
                std::fs::create_dir(log(&left)).unwrap();
                copy_tree(&log(&scratch), &log(&left));
                let mut found = Embedded::open(&left.0).unwrap();
                assert_eq!(
                    all(&mut found),
                    all(&mut model),
                    "seed {seed}, call {call}: left"
                );
            }
            if call == CALLS / 2 {
                // Of sessions an orderly end and a new beginning change nothing.
                model.reopen();
                drop(store);
                store = Embedded::open(&scratch.0).unwrap();
                engine = copy_engine(&scratch.0);
                syncs = store.engine().unwrap().syncs.get();
            }
        }
        assert!(syncs > 2, "the log was given up now and then: {syncs}");
    }
}
