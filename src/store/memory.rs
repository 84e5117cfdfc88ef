//! The store that forgets: for tests and `--ephemeral`. It obeys the same suite as the others,
//! durability apart.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::gaps::Gaps;
use crate::records::check_name;
use stanza::jid::BareJid;
use xmpp::Timestamp;
use xmpp::port::{
    AVATAR_DATA, AVATAR_METADATA, AccountData, AgentId, ArchiveEntry, ArchiveId, Arrived,
    Credentials, DOCUMENTS_MAX, Document, Enqueue, Mark, Node, NodeChange, OfflineQuota, Origin,
    PhotoHash, QueuedStanza, RosterItem, SavedSession, SessionId, Space, Store, StoreOp,
    StoreReply, StoredSession, USER_AGENTS_MAX, UserAgent, WholeAccount, shown_photo,
};

mod archive;

/// Accounts in a map. It is as large as what is put into it.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    accounts: BTreeMap<BareJid, Account>,
    /// Per session and receiver which stanzas took effect.
    marks: BTreeMap<(SessionId, BareJid), Mark>,
    gaps: Gaps,
}

/// A node with what its items say, by their numbers.
type KeptNode = (Node, BTreeMap<u64, Box<[u8]>>);

#[derive(Clone, Debug, Default)]
struct Account {
    credentials: Credentials,
    roster: BTreeMap<BareJid, RosterItem>,
    blocked: Vec<Box<str>>,
    documents: BTreeMap<(Space, Box<str>), Box<[u8]>>,
    nodes: BTreeMap<Box<str>, KeptNode>,
    offline: BTreeMap<u64, Arrived>,
    offline_last: u64,
    sessions: BTreeMap<SessionId, Session>,
    agents: BTreeMap<AgentId, UserAgent>,
    archive: BTreeMap<ArchiveId, ArchiveEntry>,
    /// The newest that it ever had.
    newest_archived: Option<ArchiveId>,
}

impl Account {
    /// The document of a kind of which an account has one only.
    fn only(&self, space: Space) -> Option<Box<[u8]>> {
        self.documents.get(&(space, "".into())).cloned()
    }

    /// Where none stays no device is woken, either (XEP-0357).
    fn forget_agents_but(&mut self, stays: Option<AgentId>) {
        self.agents.retain(|id, _| Some(*id) == stays);
        if stays.is_none() {
            self.documents.remove(&(Space::Push, "".into()));
        }
    }

    /// The picture that it shows to everybody.
    fn photo(&self) -> Option<PhotoHash> {
        let node = |name| self.nodes.get(name).map(|(node, _)| node);
        shown_photo(node(AVATAR_METADATA), node(AVATAR_DATA))
    }

    fn put_agent(&mut self, agent: UserAgent, prior: Option<u64>, before: Timestamp) -> StoreReply {
        let known = self.agents.get(&agent.id).map(|known| known.stamp);
        if known != prior {
            return StoreReply::Outdated;
        }
        if prior.is_none() {
            self.agents.retain(|_, other| other.last_seen >= before);
            let oldest = self.agents.values().min_by_key(|other| other.last_seen);
            let oldest = oldest.map(|other| other.id);
            if let Some(id) = oldest.filter(|_| self.agents.len() >= USER_AGENTS_MAX) {
                self.agents.remove(&id);
            }
        }
        self.agents.insert(agent.id, agent);
        StoreReply::Done
    }

    /// How many of these messages may wait beside those that do.
    fn room_for(&self, messages: &[Arrived], quota: OfflineQuota) -> usize {
        let mut count = self.offline.len() as u32;
        let mut size: usize = self
            .offline
            .values()
            .map(|(_, waiting)| waiting.len())
            .sum();
        let fitting = messages.iter().take_while(|(_, message)| {
            count += 1;
            size += message.len();
            quota.admits(count, size as u64)
        });
        fitting.count()
    }

    /// What waits, oldest first.
    fn waiting(&self) -> Vec<(u64, Arrived)> {
        let waiting = self.offline.iter();
        let mut waiting: Vec<(u64, Arrived)> = waiting
            .map(|(id, message)| (*id, message.clone()))
            .collect();
        waiting.sort_by_key(|(id, (arrived, _))| (*arrived, *id));
        waiting
    }
}

/// A managed session.
#[derive(Clone, Debug, Default)]
struct Session {
    saved: Option<SavedSession>,
    handled: u64,
    queue: BTreeMap<u64, QueuedStanza>,
}

impl Session {
    fn renumber(&mut self, numbers: Vec<(u64, u32)>, up_to: u64) {
        let behind = self.queue.split_off(&up_to.saturating_add(1));
        let mut before = std::mem::replace(&mut self.queue, behind);
        for (place, number) in numbers {
            if let Some(queued) = before.remove(&place) {
                let number = Some(number);
                self.queue.insert(place, QueuedStanza { number, ..queued });
            }
        }
    }
}

impl Memory {
    /// An empty store.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// Refuses an operation, as a disk that takes no writes does.
    pub fn refuse(&mut self, op: &StoreOp, why: &str) -> StoreReply {
        self.gaps.note_op(op);
        StoreReply::Failed(why.into())
    }

    /// The process that had it open dies.
    pub fn reopen(&mut self) {
        self.gaps = Gaps::default();
        let sessions = self.accounts.values_mut();
        let sessions = sessions.flat_map(|found| found.sessions.values_mut());
        for unsaved in sessions.filter(|session| session.saved.is_none()) {
            unsaved.queue.clear();
        }
        let sessions = self.accounts.values().flat_map(|found| &found.sessions);
        let saved = sessions.filter(|(_, session)| session.saved.is_some());
        let there: HashSet<SessionId> = saved.map(|(session, _)| *session).collect();
        self.marks.retain(|(session, _), _| there.contains(session));
    }

    fn upgrade(
        &mut self,
        account: &BareJid,
        prior: &Credentials,
        credentials: Credentials,
    ) -> StoreReply {
        match self.accounts.get_mut(account) {
            None => StoreReply::Missing,
            Some(found) if found.credentials != *prior => StoreReply::Outdated,
            Some(found) => {
                found.credentials = credentials;
                StoreReply::Done
            }
        }
    }

    fn apply(&mut self, op: StoreOp) -> StoreReply {
        match op {
            StoreOp::Accounts { names_max } => {
                let names: Vec<_> = self.accounts.keys().take(names_max).cloned().collect();
                let count = match names_max {
                    0 => self.accounts.len() as u64,
                    _ => names.len() as u64,
                };
                StoreReply::Accounts { count, names }
            }
            StoreOp::Credentials { account } => {
                let found = self.accounts.get(&account);
                StoreReply::Credentials(found.map(|found| Box::new(found.credentials.clone())))
            }
            StoreOp::CreateAccount {
                account,
                credentials,
            } => self.create_whole(WholeAccount::new(account, *credentials)),
            StoreOp::CreateWhole { whole } => self.create_whole(*whole),
            StoreOp::SetCredentials {
                account,
                credentials,
                keeps,
            } => self.change(&account, |found| {
                found.credentials = *credentials;
                found.forget_agents_but(keeps);
            }),
            StoreOp::UpgradeCredentials {
                account,
                prior,
                credentials,
            } => self.upgrade(&account, &prior, *credentials),
            StoreOp::DeleteAccount { account } => match self.accounts.remove(&account) {
                Some(gone) => {
                    for session in gone.sessions.keys() {
                        self.forget_marks(*session);
                    }
                    StoreReply::Done
                }
                None => StoreReply::Missing,
            },
            StoreOp::Account { account } => {
                let found = self.accounts.get(&account);
                StoreReply::Account(found.map(|found| {
                    Box::new(AccountData {
                        roster: found.roster.values().cloned().collect(),
                        blocked: found.blocked.clone(),
                        newest_waiting: found.offline.values().map(|(arrived, _)| *arrived).max(),
                        newest_archived: found.newest_archived,
                        photo: found.photo(),
                        archiving: found.only(Space::Archiving),
                        push: found.only(Space::Push),
                    })
                }))
            }
            StoreOp::PutRosterItem { account, item } => self.change(&account, |found| {
                found.roster.insert(item.contact.clone(), *item);
            }),
            StoreOp::RemoveRosterItem { account, contact } => {
                if let Some(found) = self.accounts.get_mut(&account) {
                    found.roster.remove(&contact);
                }
                StoreReply::Done
            }
            StoreOp::SetBlocked { account, blocked } => {
                self.change(&account, |found| found.blocked = blocked)
            }
            other => self.apply_to_archive(other),
        }
    }

    fn create_whole(&mut self, whole: WholeAccount) -> StoreReply {
        if self.accounts.contains_key(&whole.account) {
            return StoreReply::Exists;
        }
        if whole.is_overfull() {
            return StoreReply::Full;
        }
        let nodes = whole.nodes.iter().map(|(node, _)| &node.name);
        let mut names = whole.documents.iter().map(|(_, name, _)| name).chain(nodes);
        if let Some(why) = names.find_map(|name| check_name(name).err()) {
            return StoreReply::Failed(why);
        }
        let roster = whole.data.roster.into_iter();
        let documents = whole.documents.into_iter();
        let said = documents.filter(|(.., bytes)| !bytes.is_empty());
        let nodes = whole.nodes.into_iter().map(|(node, items)| {
            let name = node.name.clone();
            (name, (node, items.into_iter().collect()))
        });
        let fresh = Account {
            credentials: whole.credentials,
            roster: roster.map(|item| (item.contact.clone(), item)).collect(),
            blocked: whole.data.blocked,
            documents: said
                .map(|(space, key, bytes)| ((space, key), bytes))
                .collect(),
            nodes: nodes.collect(),
            offline_last: whole.offline.len() as u64,
            offline: (1..)
                .zip(
                    whole
                        .offline
                        .into_iter()
                        .map(|stanza| (Timestamp::default(), stanza)),
                )
                .collect(),
            ..Account::default()
        };
        self.accounts.insert(whole.account, fresh);
        StoreReply::Done
    }

    /// The operations on what an account keeps besides keys, roster and block list.
    fn apply_to_kept(&mut self, op: StoreOp) -> StoreReply {
        match op {
            StoreOp::Document {
                account,
                space,
                key,
            } => {
                if let Err(why) = check_name(&key) {
                    return StoreReply::Failed(why);
                }
                let found = self.accounts.get(&account);
                let document = found.and_then(|found| found.documents.get(&(space, key)));
                StoreReply::Document(document.cloned())
            }
            StoreOp::PutDocument {
                account,
                space,
                key,
                bytes,
            } => self.put_document(&account, space, key, bytes),
            StoreOp::Nodes { account, only } => self.nodes(&account, only.as_deref()),
            StoreOp::Items {
                account,
                node,
                numbers,
            } => self.items(&account, &node, &numbers),
            StoreOp::ChangeNodes {
                account,
                changes,
                document,
            } => self.change_nodes(&account, changes, document),
            StoreOp::PutOffline {
                account,
                arrived,
                stanza,
                quota,
                origin,
            } => {
                let reply = self.put_offline(&account, (arrived, stanza), quota);
                match origin {
                    Some(origin) if reply != StoreReply::Done => self.gaps.note(origin, account),
                    origin => self.mark(account, origin),
                }
                reply
            }
            StoreOp::Offline { account } => {
                let found = self.accounts.get(&account);
                StoreReply::Offline(found.map_or_else(Vec::new, Account::waiting))
            }
            StoreOp::RemoveOffline { account, up_to } => {
                if let Some(found) = self.accounts.get_mut(&account) {
                    found.offline = found.offline.split_off(&up_to.saturating_add(1));
                }
                StoreReply::Done
            }
            StoreOp::NoteFailed { .. } => {
                self.gaps.note_op(&op);
                StoreReply::Done
            }
            other => self.apply_to_agents(other),
        }
    }

    /// The operations on user agents.
    fn apply_to_agents(&mut self, op: StoreOp) -> StoreReply {
        match op {
            StoreOp::UserAgent { account, id } => {
                let found = self.accounts.get(&account);
                let found = found.and_then(|found| found.agents.get(&id));
                StoreReply::UserAgent(found.cloned().map(Box::new))
            }
            StoreOp::UserAgents { account } => {
                let found = self.accounts.get(&account);
                let agents = found.map(|found| found.agents.values().cloned().collect());
                StoreReply::UserAgents(agents.unwrap_or_default())
            }
            StoreOp::PutUserAgent {
                account,
                agent,
                prior,
                forget_before,
            } => match self.accounts.get_mut(&account) {
                Some(found) => found.put_agent(*agent, prior, forget_before),
                None => StoreReply::Missing,
            },
            StoreOp::RemoveUserAgents { account, which } => {
                self.change(&account, |found| match which {
                    Some(which) => drop(found.agents.remove(&which)),
                    None => found.forget_agents_but(None),
                })
            }
            other => self.apply_to_sessions(other),
        }
    }

    /// The operations on managed sessions.
    fn apply_to_sessions(&mut self, op: StoreOp) -> StoreReply {
        match op {
            StoreOp::PutSession {
                account,
                session,
                saved,
            } => {
                let reply = self.change(&account, |found| {
                    found.sessions.entry(session).or_default().saved = Some(*saved);
                });
                if reply == StoreReply::Done {
                    self.gaps.take_back_end(session);
                }
                reply
            }
            StoreOp::PutHandled {
                account,
                session,
                handled,
            } => {
                self.gaps.settle(session, handled);
                self.blindly(&account, session, |found| found.handled = handled)
            }
            StoreOp::Enqueue(enqueue) => self.enqueue(enqueue),
            StoreOp::Dequeue {
                account,
                session,
                from,
                to,
            } => self.blindly(&account, session, |found| {
                found.queue.retain(|place, _| !(from..=to).contains(place));
            }),
            StoreOp::Renumber {
                account,
                session,
                numbers,
                up_to,
            } => self.blindly(&account, session, |found| found.renumber(numbers, up_to)),
            StoreOp::ClaimOffline {
                account,
                session,
                place,
                number,
            } => self.claim_offline(&account, session, place, number),
            StoreOp::Session { account, session } => {
                let found = self.session(&account, session);
                if let Some(found) = &found {
                    self.gaps.recall(session, &found.marks);
                }
                StoreReply::Session(found.map(Box::new))
            }
            StoreOp::EndSession {
                account,
                session,
                waiting,
                quota,
            } => self.leave_session(&account, session, waiting, quota),
            StoreOp::Sessions => {
                let each = self.accounts.iter().flat_map(|(account, found)| {
                    let saved = found.sessions.iter().filter(|(_, it)| it.saved.is_some());
                    saved.map(|(session, _)| (account.clone(), *session))
                });
                StoreReply::Sessions(each.collect())
            }
            other => StoreReply::Failed(format!("not of this kind: {other:?}").into()),
        }
    }

    fn enqueue(&mut self, enqueue: Enqueue) -> StoreReply {
        let stanza = enqueue.stanza;
        let copies = enqueue.copies.into_iter();
        let copies = copies.map(|copy| (copy, stanza.clone()));
        for (copy, stanza) in copies.chain(enqueue.carbons) {
            let queued = QueuedStanza {
                place: copy.place,
                number: copy.number,
                arrived: enqueue.arrived,
                has_waited: false,
                stanza,
                shared: enqueue.shared,
            };
            self.blindly(&enqueue.account, copy.session, |found| {
                found.queue.insert(copy.place, queued);
            });
        }
        self.mark(enqueue.account, enqueue.origin);
        StoreReply::Done
    }

    /// A write to a session that nobody asks whether it exists.
    fn blindly(
        &mut self,
        account: &BareJid,
        session: SessionId,
        change: impl FnOnce(&mut Session),
    ) -> StoreReply {
        if let Some(found) = self.accounts.get_mut(account) {
            change(found.sessions.entry(session).or_default());
        }
        StoreReply::Done
    }

    fn mark(&mut self, account: BareJid, origin: Option<Origin>) {
        if let Some(origin) = origin
            && let Some(mark) = self.gaps.mark(origin, &account)
        {
            self.marks.insert((origin.session, account), mark);
        }
    }

    fn forget_marks(&mut self, session: SessionId) {
        self.gaps.settle(session, u64::MAX);
        self.gaps.end(session);
        self.marks.retain(|(marked, _), _| *marked != session);
    }

    /// Ends a session that leaves something, if there is one and there is room.
    fn leave_session(
        &mut self,
        account: &BareJid,
        session: SessionId,
        waiting: Vec<Arrived>,
        quota: OfflineQuota,
    ) -> StoreReply {
        let found = self.accounts.get(account);
        let stored = found.and_then(|found| found.sessions.get(&session));
        if stored.is_none_or(|stored| stored.saved.is_none() && stored.queue.is_empty()) {
            self.end_session(account, session, Vec::new());
            return StoreReply::Done;
        }
        let room = found.map_or(0, |found| found.room_for(&waiting, quota));
        if waiting.len() > room {
            return StoreReply::Room(room as u32);
        }
        self.leave_groups(account, session);
        self.end_session(account, session, waiting);
        StoreReply::Done
    }

    /// A session ends with what is in its queue: of what it shares with others it is no member any
    /// more.
    fn leave_groups(&mut self, account: &BareJid, session: SessionId) {
        let Some(found) = self.accounts.get_mut(account) else {
            return;
        };
        let own = found.sessions.get(&session).into_iter();
        let own = own.flat_map(|own| own.queue.values());
        let groups = own.filter_map(|queued| queued.shared.map(|shared| shared.group));
        let groups: HashSet<u64> = groups.collect();
        let queues = found.sessions.values_mut();
        let queued = queues.flat_map(|session| session.queue.values_mut());
        for shared in queued.filter_map(|queued| queued.shared.as_mut()) {
            shared.members -= u32::from(groups.contains(&shared.group));
        }
    }

    fn end_session(&mut self, account: &BareJid, session: SessionId, waiting: Vec<Arrived>) {
        for message in waiting {
            self.put_offline(account, message, OfflineQuota::UNLIMITED);
        }
        if let Some(found) = self.accounts.get_mut(account) {
            found.sessions.remove(&session);
        }
        self.forget_marks(session);
    }

    fn claim_offline(
        &mut self,
        account: &BareJid,
        session: SessionId,
        place: u64,
        number: Option<u32>,
    ) -> StoreReply {
        let Some(found) = self.accounts.get_mut(account) else {
            return StoreReply::Offline(Vec::new());
        };
        let waiting = found.waiting();
        found.offline.clear();
        let queue = &mut found.sessions.entry(session).or_default().queue;
        let mut claimed = Vec::new();
        for (index, (_, (arrived, stanza))) in waiting.into_iter().enumerate() {
            let place = place + index as u64;
            let number = number.map(|number| number.wrapping_add(index as u32));
            let queued = QueuedStanza {
                place,
                number,
                arrived,
                has_waited: true,
                stanza: stanza.clone(),
                shared: None,
            };
            queue.insert(place, queued);
            claimed.push((place, (arrived, stanza)));
        }
        StoreReply::Offline(claimed)
    }

    fn session(&self, account: &BareJid, session: SessionId) -> Option<StoredSession> {
        let sessions = &self.accounts.get(account)?.sessions;
        let found = sessions.get(&session)?;
        let all = sessions.values().flat_map(|session| session.queue.values());
        let mut holders: HashMap<u64, u32> = HashMap::new();
        for shared in all.filter_map(|queued| queued.shared) {
            *holders.entry(shared.group).or_default() += 1;
        }
        let mut queue: Vec<QueuedStanza> = found.queue.values().cloned().collect();
        for shared in queue.iter_mut().filter_map(|queued| queued.shared.as_mut()) {
            shared.holders = holders.get(&shared.group).copied().unwrap_or(0);
        }
        let marks = self.marks.iter().filter(|((of, _), _)| *of == session);
        Some(StoredSession {
            saved: found.saved.clone()?,
            handled: found.handled,
            queue,
            marks: marks.map(|(_, mark)| mark.clone()).collect(),
        })
    }

    fn put_document(
        &mut self,
        account: &BareJid,
        space: Space,
        key: Box<str>,
        bytes: Box<[u8]>,
    ) -> StoreReply {
        let Some(found) = self.accounts.get_mut(account) else {
            return StoreReply::Missing;
        };
        if let Err(why) = check_name(&key) {
            return StoreReply::Failed(why);
        }
        let key = (space, key);
        if bytes.is_empty() {
            found.documents.remove(&key);
            return StoreReply::Done;
        }
        let count = found.documents.keys().filter(|key| key.0 == space).count();
        if count >= DOCUMENTS_MAX && !found.documents.contains_key(&key) {
            return StoreReply::Full;
        }
        found.documents.insert(key, bytes);
        StoreReply::Done
    }

    fn items(&self, account: &BareJid, node: &str, numbers: &[u64]) -> StoreReply {
        if let Err(why) = check_name(node) {
            return StoreReply::Failed(why);
        }
        let found = self.accounts.get(account);
        let items = found.and_then(|found| found.nodes.get(node));
        let say = |number: &u64| Some((*number, items?.1.get(number)?.clone()));
        StoreReply::Items(numbers.iter().filter_map(say).collect())
    }

    fn nodes(&self, account: &BareJid, only: Option<&str>) -> StoreReply {
        if let Some(Err(why)) = only.map(check_name) {
            return StoreReply::Failed(why);
        }
        let found = self.accounts.get(account);
        let nodes = found.map(|found| found.nodes.values());
        let nodes = nodes.into_iter().flatten().map(|(node, _)| node);
        let asked = nodes.filter(|node| only.is_none_or(|only| *only == *node.name));
        StoreReply::Nodes(asked.cloned().collect())
    }

    fn change_nodes(
        &mut self,
        account: &BareJid,
        changes: Vec<NodeChange>,
        document: Option<Document>,
    ) -> StoreReply {
        let mut names = changes.iter().map(|change| check_name(&change.name));
        if let Some(why) = names.find_map(Result::err) {
            return StoreReply::Failed(why);
        }
        if let Some((space, key, bytes)) = document {
            let reply = self.put_document(account, space, key, bytes);
            if reply != StoreReply::Done {
                return reply;
            }
        }
        self.change(account, |found| {
            for change in changes {
                let Some(node) = change.node else {
                    found.nodes.remove(&change.name);
                    continue;
                };
                let known = found.nodes.remove(&change.name);
                let mut items = known.map_or_else(BTreeMap::new, |(_, items)| items);
                items.retain(|number, _| !change.remove.contains(number));
                items.extend(change.put);
                found.nodes.insert(change.name, (*node, items));
            }
        })
    }

    fn put_offline(
        &mut self,
        account: &BareJid,
        message: Arrived,
        quota: OfflineQuota,
    ) -> StoreReply {
        let Some(found) = self.accounts.get_mut(account) else {
            return StoreReply::Missing;
        };
        if found.room_for(std::slice::from_ref(&message), quota) == 0 {
            return StoreReply::Full;
        }
        found.offline_last += 1;
        found.offline.insert(found.offline_last, message);
        StoreReply::Done
    }

    fn change(&mut self, account: &BareJid, change: impl FnOnce(&mut Account)) -> StoreReply {
        match self.accounts.get_mut(account) {
            Some(found) => {
                change(found);
                StoreReply::Done
            }
            None => StoreReply::Missing,
        }
    }
}

impl Store for Memory {
    fn perform(&mut self, ops: &mut dyn Iterator<Item = StoreOp>, replies: &mut Vec<StoreReply>) {
        replies.extend(ops.map(|op| self.apply(op)));
    }

    fn accounts(&mut self, each: &mut dyn FnMut(BareJid) -> bool) -> Result<(), Box<str>> {
        let _stopped_early = self.accounts.keys().all(|account| each(account.clone()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_store_conforms() {
        crate::conformance::conformance(|| Box::new(Memory::new()));
    }
}
