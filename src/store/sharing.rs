//! Who shares what in the queues of an account's sessions: read once, and kept up by the writes.
//!
//! That says how many queues have a stanza now, and how many sessions ended with it, for a read of
//! each session and for what need not be noted any more. Asked of the records, each of that would
//! read all queues of the account, for each of its sessions. Invariant: what is known of an account
//! is what a read of all its queues within this call would find; a commit that fails has all of it
//! forgotten.

use std::collections::{BTreeMap, HashMap, HashSet};

use stanza::jid::BareJid;
use xmpp::port::QueuedStanza;

use crate::backup::Table;
use crate::embedded::{Engine, Key, Staged, Trouble};
use crate::schema::session_prefix;
use crate::sessions::{Name, group_of, left_key, name_of, read_number};

/// Stanzas in queues that are known at once; an account more has the others forgotten. A full
/// account of sixteen sessions has 64,000.
const KNOWN_MAX: usize = 1 << 18;

/// Groups of an account that sessions have left and no queue may have any more, before all queues
/// are read for that.
const LEFT_MAX: usize = 4_096;

/// What is known of some accounts, by what their keys begin with.
#[derive(Debug, Default)]
pub(crate) struct Sharing {
    accounts: HashMap<Key, Shares>,
    /// Stanzas of all of them.
    known: usize,
}

/// What the sessions of an account share.
#[derive(Debug, Default)]
struct Shares {
    /// The groups of what waits in queues, by the secrets and the places.
    queued: BTreeMap<(u128, u64), u64>,
    groups: HashMap<u64, Group>,
    /// Those that no queue has, of which it is noted still that sessions left them.
    stale: HashSet<u64>,
}

/// A stanza that several sessions were given.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    /// Queues that have it.
    holders: u32,
    /// Sessions that ended with it.
    left: u64,
}

impl Shares {
    fn is_empty(&self) -> bool {
        self.queued.is_empty() && self.groups.is_empty()
    }

    /// Takes up a write; `name` is the key behind the account's prefix.
    fn put(&mut self, name: &[u8], record: Option<&[u8]>) -> Result<(), Trouble> {
        match name_of(name)? {
            Name::Queued { secret, place } => {
                let group = record.map_or(Ok(None), group_of)?;
                let before = match group {
                    Some(group) => self.queued.insert((secret, place), group),
                    None => self.queued.remove(&(secret, place)),
                };
                for (group, change) in [(before, -1), (group, 1)] {
                    if let Some(group) = group {
                        self.change(group, |group| group.hold(change));
                    }
                }
            }
            Name::Left { group } => {
                let left = record.map_or(Ok(0), read_number)?;
                self.change(group, |group| group.left = left);
            }
        }
        Ok(())
    }

    fn change(&mut self, group: u64, change: impl FnOnce(&mut Group)) {
        let changed = self.groups.entry(group).or_default();
        change(changed);
        let Group { holders, left } = *changed;
        if (holders, left) == (0, 0) {
            self.groups.remove(&group);
        }
        match holders == 0 && left > 0 {
            true => self.stale.insert(group),
            false => self.stale.remove(&group),
        };
    }
}

impl Group {
    fn hold(&mut self, change: i32) {
        self.holders = self.holders.saturating_add_signed(change);
    }
}

/// What an account's keys begin with, and the rest of one of the queues' table. No name of an
/// account has a zero byte; that of a mark, which has none, is empty.
pub(crate) fn split(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut name = key.iter().skip(size_of::<u16>());
    let size = name.position(|byte| *byte == 0)?;
    key.split_at_checked(size_of::<u16>() + size + 1)
}

/// Learns what accounts share from all their records, ordered by their keys, as an opening reads
/// them: nobody waits for that yet.
#[derive(Default)]
pub(crate) struct Lesson {
    sharing: Sharing,
    prefix: Key,
    /// Absent where a record could not be read.
    shares: Option<Shares>,
}

impl Lesson {
    pub(crate) fn take(&mut self, key: &[u8], record: &[u8]) {
        let Some((prefix, name)) = split(key) else {
            return;
        };
        if self.prefix[..] != *prefix {
            self.end_account();
            self.prefix = Key::from_slice(prefix);
            self.shares = Some(Shares::default());
        }
        if let Some(shares) = &mut self.shares
            && shares.put(name, Some(record)).is_err()
        {
            self.shares = None;
        }
    }

    /// The first accounts are kept, as many as there is room for.
    fn end_account(&mut self) {
        let prefix = std::mem::take(&mut self.prefix);
        let shares = self.shares.take().filter(|it| !it.queued.is_empty());
        if let Some(shares) = shares
            && self.sharing.known + shares.queued.len() <= KNOWN_MAX
        {
            self.sharing.learn(prefix, shares);
        }
    }

    pub(crate) fn finish(mut self) -> Sharing {
        self.end_account();
        self.sharing
    }
}

impl Sharing {
    /// A write to the queues' table.
    pub(crate) fn note(&mut self, key: &[u8], record: Option<&[u8]>) {
        if self.accounts.is_empty() {
            return;
        }
        let Some((prefix, name)) = split(key) else {
            return;
        };
        let Some(shares) = self.accounts.get_mut(prefix) else {
            return;
        };
        self.known -= shares.queued.len();
        let is_known = shares.put(name, record).is_ok();
        self.known += shares.queued.len();
        let is_over = shares.is_empty();
        if self.known > KNOWN_MAX {
            *self = Sharing::default();
        } else if !is_known || is_over {
            self.forget(prefix);
        }
    }

    fn learn(&mut self, prefix: Key, shares: Shares) {
        if self.known + shares.queued.len() > KNOWN_MAX {
            *self = Sharing::default();
        }
        self.known += shares.queued.len();
        self.accounts.insert(prefix, shares);
    }

    /// An account's queues are written past this.
    pub(crate) fn forget(&mut self, prefix: &[u8]) {
        if let Some(shares) = self.accounts.remove(prefix) {
            self.known -= shares.queued.len();
        }
    }

    fn group(&self, prefix: &[u8], group: u64) -> Option<Group> {
        let shares = self.accounts.get(prefix)?;
        Some(shares.groups.get(&group).copied().unwrap_or_default())
    }
}

impl Engine {
    /// Reads all queues of an account, unless it is known what they share.
    fn learn_shares(&self, staged: &mut Staged, prefix: &Key) -> Result<(), Trouble> {
        if staged.sharing.accounts.contains_key(prefix) {
            return Ok(());
        }
        let mut shares = Shares::default();
        self.each_hot(Table::Queue, staged, prefix, |key, record| {
            shares.put(&key[prefix.len()..], Some(record))
        })?;
        staged.sharing.learn(prefix.clone(), shares);
        Ok(())
    }

    /// Fills in who has, and may still take, what a queue shares with others of the account.
    pub(crate) fn count_holders(
        &self,
        staged: &mut Staged,
        account: &BareJid,
        queue: &mut [QueuedStanza],
    ) -> Result<(), Trouble> {
        let prefix = session_prefix(account);
        for shared in queue.iter_mut().filter_map(|queued| queued.shared.as_mut()) {
            self.learn_shares(staged, &prefix)?;
            let group = staged.sharing.group(&prefix, shared.group);
            let group = group.unwrap_or_default();
            shared.holders = group.holders;
            shared.leave(group.left);
        }
        Ok(())
    }

    /// How many sessions have ended with a shared stanza in their queues.
    pub(crate) fn left(
        &self,
        staged: &Staged,
        account: &BareJid,
        group: u64,
    ) -> Result<u64, Trouble> {
        if let Some(known) = staged.sharing.group(&session_prefix(account), group) {
            return Ok(known.left);
        }
        let record = self.read_hot(Table::Queue, staged, &left_key(account, group))?;
        record.as_deref().map_or(Ok(0), read_number)
    }

    /// Forgets who left the groups that no queue has any more, where there may be many of these.
    pub(crate) fn forget_groups(
        &self,
        staged: &mut Staged,
        account: &BareJid,
    ) -> Result<(), Trouble> {
        let prefix = session_prefix(account);
        if !staged.sharing.accounts.contains_key(&prefix) {
            let left = self.count_left(staged, account)?;
            if left == 0 || (left <= LEFT_MAX && self.has_sessions(staged, account)?) {
                return Ok(());
            }
            self.learn_shares(staged, &prefix)?;
        }
        let shares = staged.sharing.accounts.get_mut(&prefix);
        let stale = shares.map(|shares| std::mem::take(&mut shares.stale));
        for group in stale.into_iter().flatten() {
            staged.put_queue(left_key(account, group), None);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use xmpp::port::{OfflineQuota, SessionId, Store, StoreOp, StoreReply};

    use super::*;
    use crate::conformance::sessions::{
        dequeue, end, enqueue, renumber, save, session, share, stored,
    };
    use crate::conformance::{create, delete, jid, one};
    use crate::crash::Scratch;
    use crate::sessions::queue_key;
    use crate::{Embedded, Memory};

    const ROMEO: &str = "romeo@a.example";

    /// An account whose sessions share all that is in their queues.
    fn filled(scratch: &Scratch, sessions: u128, stanzas: u64) -> Embedded {
        let mut store = Embedded::open(&scratch.0).unwrap();
        let secrets: Vec<u128> = (1..=sessions).collect();
        let saved = secrets.iter().map(|secret| save(ROMEO, *secret, "a"));
        let shared = (1..=stanzas).map(|place| share(ROMEO, &secrets, place, "<message/>"));
        let mut ops = std::iter::once(create(ROMEO, 1)).chain(saved).chain(shared);
        store.perform(&mut ops, &mut Vec::new());
        store
    }

    /// What is done with each session.
    type Ops<'a> = &'a dyn Fn(u128) -> Vec<StoreOp>;

    fn looked_at(store: &Embedded) -> u64 {
        store.engine().unwrap().looked_at.replace(0)
    }

    /// Records that are looked at for each stanza of each session, in hundredths.
    fn looks(sessions: u128, stanzas: u64, ops: Ops<'_>, size: usize) -> u64 {
        let scratch = Scratch::new();
        let mut store = filled(&scratch, sessions, stanzas);
        if size == 0 {
            drop(store);
            store = Embedded::open(&scratch.0).unwrap();
        }
        looked_at(&store);
        let ops: Vec<StoreOp> = (1..=sessions).flat_map(ops).collect();
        for call in ops.chunks(size.max(1)) {
            let mut replies = Vec::new();
            store.perform(&mut call.iter().cloned(), &mut replies);
            let is_good = |reply: &StoreReply| {
                matches!(reply, StoreReply::Done | StoreReply::Session(Some(_)))
            };
            assert!(replies.iter().all(is_good));
        }
        looked_at(&store) * 100 / (sessions as u64 * stanzas)
    }

    fn read(secret: u128) -> StoreOp {
        StoreOp::Session {
            account: jid(ROMEO),
            session: session(ROMEO, secret),
        }
    }

    /// Sixteen cost what four do, each: no session costs what the others have.
    #[test]
    fn what_a_session_costs_does_not_depend_on_how_many_there_are() {
        let end = |secret| vec![end(ROMEO, secret)];
        let read_each = |secret| vec![read(secret)];
        let sweep = |secret| vec![read(secret), self::end(ROMEO, secret)];
        let all: [(&str, Ops<'_>); 3] = [("end", &end), ("read", &read_each), ("sweep", &sweep)];
        for (what, ops) in all {
            // In as many calls, in one, and behind a restart.
            for size in [1, 100, 0] {
                let [few, many] = [4, 16].map(|sessions| looks(sessions, 300, ops, size));
                assert!(many <= few + 100, "{what} in {size}: {few}, then {many}");
            }
        }
    }

    #[test]
    fn an_opening_has_learned_what_reads_ask_for() {
        let read_each = |secret| vec![read(secret)];
        let hundredths = looks(16, 300, &read_each, 0);
        assert!((100..110).contains(&hundredths), "{hundredths}");
    }

    #[test]
    fn an_opening_learns_what_there_is_room_for_and_can_be_read() {
        let scratch = Scratch::new();
        let store = filled(&scratch, 1, 1);
        let mut records = Vec::new();
        let all = Staged::default();
        let engine = store.engine().unwrap();
        let each = |_: &[u8], record: &[u8]| {
            records.push(record.to_vec());
            Ok(())
        };
        engine.each_hot(Table::Queue, &all, &[], each).unwrap();
        let mut lesson = Lesson::default();
        let counts = [
            ("a@a", 3),
            ("b@a", KNOWN_MAX as u64),
            ("c@a", 2),
            ("d@a", 1),
        ];
        for (name, count) in counts {
            for place in 1..=count {
                lesson.take(&queue_key(&jid(name), 1, place), &records[0]);
            }
        }
        lesson.take(&queue_key(&jid("d@a"), 1, 2), b"?");
        let sharing = lesson.finish();
        assert_eq!(sharing.known, 5);
        let knows = |name| sharing.accounts.contains_key(&session_prefix(&jid(name)));
        assert_eq!(
            counts.map(|(name, _)| knows(name)),
            [true, false, true, false]
        );
    }

    #[test]
    fn a_deletion_looks_at_no_queue() {
        let scratch = Scratch::new();
        let mut store = filled(&scratch, 16, 100);
        looked_at(&store);
        assert_eq!(one(&mut store, delete(ROMEO)), StoreReply::Done);
        assert!(looked_at(&store) < 100);
    }

    /// Each has its notes, as those do that share with others; many more than are kept unasked.
    #[test]
    fn an_end_among_many_notes_looks_at_its_own_queue_only() {
        let scratch = Scratch::new();
        let mut store = filled(&scratch, 1, 1);
        let pairs: Vec<StoreOp> = (0..8)
            .flat_map(|pair| {
                let secrets = [10 + 2 * pair, 11 + 2 * pair];
                let saved = secrets.map(|secret| save(ROMEO, secret, "b")).into_iter();
                let from = 1_000 * pair as u64;
                saved.chain(
                    (from + 2..from + 1_000)
                        .map(move |place| share(ROMEO, &secrets, place, "<message/>")),
                )
            })
            .collect();
        store.perform(&mut pairs.into_iter(), &mut Vec::new());
        looked_at(&store);
        for pair in 0..8 {
            one(&mut store, end(ROMEO, 10 + 2 * pair));
        }
        // All of it once, each own queue, its notes, and those before it while they are few.
        let looks = looked_at(&store);
        assert!(looks < 4 * 16 * 998, "{looks}");
    }

    /// What both adapters answer is the same, whatever comes in whatever calls.
    #[test]
    fn what_is_known_is_what_a_read_would_find() {
        for seed in 1..=40 {
            let scratch = Scratch::new();
            let mut embedded = Embedded::open(&scratch.0).unwrap();
            let mut memory = Memory::new();
            let mut random = Random(seed);
            let mut places = [1; 6];
            let both = |embedded: &mut Embedded, memory: &mut Memory, ops: Vec<StoreOp>| {
                let (mut found, mut expected) = (Vec::new(), Vec::new());
                embedded.perform(&mut ops.iter().cloned(), &mut found);
                memory.perform(&mut ops.iter().cloned(), &mut expected);
                assert_eq!(found, expected, "seed {seed}: {ops:?}");
            };
            both(&mut embedded, &mut memory, vec![create(ROMEO, 1)]);
            for _ in 0..60 {
                let count = 1 + random.below(8);
                let ops = (0..count).map(|_| any(&mut random, &mut places));
                both(&mut embedded, &mut memory, ops.collect());
                if random.below(12) == 0 {
                    drop(embedded);
                    embedded = Embedded::open(&scratch.0).unwrap();
                    memory.reopen();
                }
            }
            both(&mut embedded, &mut memory, (0..6).map(read).collect());
        }
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, end: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (self.0 >> 33) % end
        }
    }

    /// The next operation; `places` are where each of the sessions has its next stanza.
    fn any(random: &mut Random, places: &mut [u64; 6]) -> StoreOp {
        let secret = u128::from(random.below(6));
        let last = places[secret as usize];
        match random.below(10) {
            0 => save(ROMEO, secret, "a"),
            1..=3 => {
                let mut secrets: Vec<u128> = (0..6).filter(|_| random.below(2) == 0).collect();
                secrets.push(secret);
                secrets.sort_unstable();
                secrets.dedup();
                let next = *places.iter().max().expect("there are six");
                *places = [next + 1; 6];
                share(ROMEO, &secrets, next, "<message/>")
            }
            4 => {
                places[secret as usize] += 1;
                enqueue(ROMEO, secret, last, "<message/>")
            }
            5 => dequeue(ROMEO, secret, 1, random.below(last)),
            6 => {
                let from = random.below(last);
                let numbers = (from.max(1)..last).map(|place| (place, place as u32));
                renumber(ROMEO, secret, numbers.collect(), last)
            }
            7 => StoreOp::EndSession {
                account: jid(ROMEO),
                session: session(ROMEO, secret),
                waiting: Vec::new(),
                quota: OfflineQuota::UNLIMITED,
            },
            _ => read(secret),
        }
    }

    #[test]
    fn what_a_commit_did_not_keep_is_not_known() {
        let scratch = Scratch::new();
        let mut store = filled(&scratch, 2, 3);
        let before = stored(&mut store, ROMEO, 1);
        // No key can be as long as this one's.
        let long = "x".repeat(65_500) + "@a.example";
        let StoreOp::Enqueue(mut too_long) = enqueue(ROMEO, 1, 4, "<message/>") else {
            unreachable!("it is one");
        };
        too_long.account = BareJid::from_prepared(&long);
        let ops = [dequeue(ROMEO, 2, 1, 3), StoreOp::Enqueue(too_long)];
        let mut replies = Vec::new();
        store.perform(&mut ops.into_iter(), &mut replies);
        assert!(matches!(
            replies[..],
            [StoreReply::Failed(_), StoreReply::Failed(_)]
        ));
        assert_eq!(stored(&mut store, ROMEO, 1), before);
    }

    #[test]
    fn what_is_known_is_bounded_and_nothing_stays_of_empty_queues() {
        let mut sharing = Sharing::default();
        for number in 0..=4_u8 {
            let mut shares = Shares::default();
            for place in 0..KNOWN_MAX as u64 / 4 {
                shares.queued.insert((1, place), place);
            }
            sharing.learn(Key::from_slice(&[number]), shares);
            assert!(sharing.known <= KNOWN_MAX);
        }
        assert_eq!(sharing.accounts.len(), 1);
        let scratch = Scratch::new();
        let mut store = filled(&scratch, 2, 3);
        for secret in [1, 2] {
            assert!(stored(&mut store, ROMEO, secret).is_some());
        }
        one(&mut store, dequeue(ROMEO, 1, 1, 3));
        one(&mut store, dequeue(ROMEO, 2, 1, 3));
        let sharing = store.engine().unwrap().sharing.borrow();
        assert_eq!((sharing.accounts.len(), sharing.known), (0, 0));
    }

    #[test]
    fn a_session_of_another_account_is_not_taken_for_one_of_this() {
        let SessionId { home, .. } = session(ROMEO, 1);
        let scratch = Scratch::new();
        let mut store = filled(&scratch, 2, 3);
        stored(&mut store, ROMEO, 1);
        let mut sharing = store.engine().unwrap().sharing.take();
        // A mark, and another's note.
        let mark = [&home.to_be_bytes()[..], &[0], &[3; 40]].concat();
        sharing.note(&mark, Some(b"?"));
        sharing.note(&left_key(&jid("romeo@b.example"), 1), Some(b"?"));
        assert_eq!(sharing.known, 6);
    }
}
