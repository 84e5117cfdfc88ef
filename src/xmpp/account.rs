//! A bare JID's live state on its home shard, and the table of the resident ones.

use crate::errand::Administrator;
use crate::handed::Handed;
use crate::host::{Ticket, Timestamp};
use crate::limit::{Limits, ROSTER_ITEM_SIZE_MEAN};
use crate::port::{PhotoHash, RosterItem, SessionId, StoredSession};
use crate::session::SessionKey;
use crate::settle::{Held, Telling};
use crate::xep::blocking::{BlockChanges, BlockList};
use crate::xep::carbons::Answerable;
use crate::xep::preferences::Preferences;
use crate::xep::pubsub::LastItems;
use crate::xep::push::{Notifications, Registrations, Unwanted};
use hashbrown::{HashMap, HashTable};
use smallvec::SmallVec;
use stanza::jid::{BareJid, home_hash};

/// An account's place in [`Accounts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountKey(pub u32);

/// Where an account is between storage and memory.
#[derive(Debug)]
pub(crate) enum Residence {
    /// Asked of storage; what came meanwhile waits.
    Loading(Vec<Waiter>),
    /// In memory.
    Resident,
}

/// What waits for an account to load.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A stream that binds.
    Bind(crate::host::ConnId),
    /// A stream that resumes a session from storage.
    Resume(crate::host::ConnId),
    /// A session from storage that nobody came back to.
    End(SessionId, Box<StoredSession>),
    /// A stanza for the account, complete and stamped.
    Stanza(Held),
    /// A session elsewhere that wants the last items of its nodes.
    LastItems(Box<LastItems>),
    /// An administrator's deletion, and whom to tell how it went.
    Deletion(Administrator),
    /// The end of registrations for push.
    Unpush(Box<Unwanted>),
}

/// Stanzas that wait for one account.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Queued {
    pub count: usize,
    /// Their bytes.
    pub size: usize,
}

/// The live state of one bare JID.
#[derive(Debug)]
pub struct Account {
    /// Its address.
    pub jid: BareJid,
    /// Loading or resident.
    pub(crate) residence: Residence,
    /// How often storage failed to load it.
    pub(crate) load_failures: u32,
    /// It was deleted, and what is under way keeps it here: nothing of it is written any more.
    pub(crate) is_gone: bool,
    /// The request to end it, of which its contacts are being told.
    pub(crate) leaving: Option<Ticket>,
    /// They have been told, and nothing waits for it any more: it bounces.
    pub(crate) is_ending: bool,
    /// A new password of it is on its way to storage.
    pub(crate) changes_password: bool,
    /// Which messages it wants archived; all where it has said nothing.
    pub(crate) archiving: Option<Box<Preferences>>,
    /// Where its devices are woken (XEP-0357), if anywhere.
    pub(crate) push: Option<Box<Registrations>>,
    /// When the newest message of its archive came.
    pub(crate) newest_archived: Timestamp,
    /// How many reads of its archive are under way.
    pub(crate) archive_reads: u16,
    /// It is nowhere in storage and lives as long as its stream.
    pub(crate) is_anonymous: bool,
    /// The picture that it shows to everybody (XEP-0398). Where nodes are not offered there is
    /// none: clients say by themselves which they have.
    pub(crate) photo: Option<Box<PhotoHash>>,
    /// Storage has no node of it (XEP-0060).
    pub(crate) has_no_nodes: bool,
    /// The bound resources, oldest first.
    pub sessions: SmallVec<[SessionKey; 2]>,
    /// How many of them get copies of messages (XEP-0280).
    pub(crate) copied_to: u16,
    /// The messages of which they got copies: errors that answer these are copied, too.
    pub(crate) answerable: Option<Box<Answerable>>,
    /// The roster, sorted by contact.
    pub roster: Vec<RosterItem>,
    /// The block list (XEP-0191).
    pub blocked: BlockList,
    /// Changes of it that are under way, if there are any.
    pub(crate) block_changes: Option<Box<BlockChanges>>,
    /// The number of the roster's version: that of its last change.
    pub(crate) roster_version: u64,
    /// A hash of what the roster shows, once a version was asked for.
    pub(crate) shown: Option<Box<Shown>>,
    /// Steps that contacts are being told of, oldest first.
    pub(crate) tellings: Vec<Telling>,
    /// Changes of the roster by clients that are not stored, and not pushed; and those that storage
    /// has refused and will be asked to take again.
    pub(crate) unsure_changes: u32,
    /// Whether storage may have messages that wait and that nobody was given.
    pub has_waiting: bool,
    /// What became of those that were read.
    pub(crate) handed: Handed,
    /// Offline messages are on their way from storage.
    pub fetching: bool,
    /// Messages on their way to storage.
    pub storing: u32,
    /// Messages that must not overtake those, while there are sessions that could get them.
    pub(crate) held: Vec<Held>,
    /// The stanzas that wait, for the load or in `held`.
    pub(crate) queued: Queued,
    /// Writes that storage has not answered, and work under way; an account with some stays.
    pub pins: u32,
}

impl Account {
    /// Whether messages are between here and storage that what comes now could overtake.
    pub fn must_hold(&self) -> bool {
        (self.fetching || self.storing > 0) && !self.sessions.is_empty()
    }

    /// How many streams wait for the account to load, sessions that are to end and deletions among
    /// them.
    pub(crate) fn waiting_streams(&self) -> usize {
        match &self.residence {
            Residence::Loading(queue) => queue.len() - self.queued.count,
            Residence::Resident => 0,
        }
    }

    /// The roster item of a contact.
    pub fn contact(&self, bare: &str) -> Option<&RosterItem> {
        self.place(bare).ok().map(|index| &self.roster[index])
    }

    /// The roster item of a contact, made if there is none.
    pub fn contact_mut(&mut self, bare: &BareJid) -> &mut RosterItem {
        let index = match self.place(bare.as_str()) {
            Ok(index) => index,
            Err(index) => {
                self.roster.insert(index, RosterItem::new(bare.clone()));
                index
            }
        };
        &mut self.roster[index]
    }

    /// Whether the roster takes a contact whose item has so many bytes, or has it with no fewer.
    /// Requests of strangers are none of the account's own contacts.
    pub(crate) fn has_room(&self, contact: &BareJid, size: usize, limits: &Limits) -> bool {
        let known = self.contact(contact.as_str());
        let before = known.filter(|item| item.listed).map(item_size);
        if before.is_some_and(|before| size <= before) {
            return true;
        }
        let listed = self.roster.iter().filter(|item| item.listed);
        let (count, size_all) = listed.fold((0, 0), |(count, size_all), item| {
            (count + 1, size_all + item_size(item))
        });
        let items_max = limits.roster_items_max;
        let size_all = size_all - before.unwrap_or(0) + size;
        (before.is_some() || count < items_max) && size_all <= items_max * ROSTER_ITEM_SIZE_MEAN
    }

    /// Whether storage will have the roster as it is: what clients are told of it stays.
    pub(crate) fn has_sure_roster(&self) -> bool {
        self.unsure_changes == 0 && self.tellings.is_empty()
    }

    /// The item of a contact was changed, or made to say that it is removed: the roster has another
    /// version.
    pub(crate) fn renew(&mut self, contact: &BareJid, now: Timestamp) {
        // While steps are under way, a version is told of which a crash may leave this change only.
        let prior = match self.tellings.is_empty() {
            true => self.roster_version,
            false => 0,
        };
        self.roster_version = now.0.max(self.roster_version + 1);
        let changed = self.roster_version;
        let item = self.contact_mut(contact);
        (item.changed, item.prior) = (changed, prior);
    }

    /// Forgets a contact.
    pub fn remove_contact(&mut self, bare: &str) -> Option<RosterItem> {
        let index = self.place(bare).ok()?;
        Some(self.roster.remove(index))
    }

    fn place(&self, bare: &str) -> Result<usize, usize> {
        self.roster
            .binary_search_by(|item| item.contact.as_str().cmp(bare))
    }
}

/// Bytes of what counts of an item towards the roster's.
pub(crate) fn item_size(item: &RosterItem) -> usize {
    shown_size(&item.contact, &item.name, &item.groups)
}

/// The same of an item's parts.
pub(crate) fn shown_size(contact: &BareJid, name: &str, groups: &[Box<str>]) -> usize {
    let groups = groups.iter().map(|group| group.len());
    contact.as_str().len() + name.len() + groups.sum::<usize>()
}

/// Hashes of the items of a roster as clients see them: a change costs what its item does.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// All of them, by exclusive or.
    pub sum: u64,
    pub items: HashMap<BareJid, u64>,
}

/// The accounts in memory, found by the hash that also found their shard.
#[derive(Debug, Default)]
pub struct Accounts {
    table: HashTable<AccountKey>,
    slots: Vec<Option<Account>>,
    free: Vec<u32>,
    /// What their devices are to be told, also of those that are not in memory any more.
    pub(crate) notifications: Notifications,
}

impl Accounts {
    /// None yet, and room for so many.
    pub(crate) fn with_capacity(count: usize) -> Accounts {
        Accounts {
            table: HashTable::with_capacity(count),
            slots: Vec::with_capacity(count),
            free: Vec::new(),
            notifications: Notifications::default(),
        }
    }

    /// The account with this bare JID, which hashes to `hash`.
    pub fn find(&self, hash: u64, bare: &str) -> Option<AccountKey> {
        let is_it = |key: &AccountKey| self.at(*key).jid.as_str() == bare;
        self.table.find(hash, is_it).copied()
    }

    /// Adds an account that is not there yet, as loading.
    pub fn insert(&mut self, jid: BareJid) -> AccountKey {
        let hash = home_hash(jid.as_str());
        debug_assert!(self.find(hash, jid.as_str()).is_none());
        let account = Account {
            jid,
            residence: Residence::Loading(Vec::new()),
            load_failures: 0,
            is_gone: false,
            leaving: None,
            is_ending: false,
            changes_password: false,
            archiving: None,
            push: None,
            newest_archived: Timestamp::default(),
            archive_reads: 0,
            is_anonymous: false,
            photo: None,
            has_no_nodes: false,
            sessions: SmallVec::new(),
            copied_to: 0,
            answerable: None,
            roster: Vec::new(),
            blocked: BlockList::default(),
            block_changes: None,
            roster_version: 0,
            shown: None,
            tellings: Vec::new(),
            unsure_changes: 0,
            has_waiting: false,
            handed: Handed::default(),
            fetching: false,
            storing: 0,
            held: Vec::new(),
            queued: Queued::default(),
            pins: 0,
        };
        let key = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = Some(account);
                AccountKey(index)
            }
            None => {
                self.slots.push(Some(account));
                AccountKey(self.slots.len() as u32 - 1)
            }
        };
        let slots = &self.slots;
        self.table.insert_unique(hash, key, |key| {
            let account = slots[key.0 as usize]
                .as_ref()
                .expect("a listed account is in its slot");
            home_hash(account.jid.as_str())
        });
        key
    }

    /// Takes an account out.
    pub fn remove(&mut self, key: AccountKey) -> Option<Account> {
        let account = self.slots.get_mut(key.0 as usize)?.take()?;
        let hash = home_hash(account.jid.as_str());
        if let Ok(entry) = self.table.find_entry(hash, |listed| *listed == key) {
            entry.remove();
        }
        self.free.push(key.0);
        Some(account)
    }

    /// The account, which exists as long as a session or a waiting request names it.
    pub fn at(&self, key: AccountKey) -> &Account {
        self.slots[key.0 as usize]
            .as_ref()
            .expect("a named account is in its slot")
    }

    /// An account was deleted: nobody finds it any more, and one that is made anew under its name
    /// begins with nothing of it. It stays in its place for as long as something names that.
    pub fn unlist(&mut self, key: AccountKey) {
        let account = self.at_mut(key);
        account.is_gone = true;
        let hash = home_hash(account.jid.as_str());
        if let Ok(entry) = self.table.find_entry(hash, |listed| *listed == key) {
            entry.remove();
        }
    }

    /// As [`Accounts::at`], to change.
    pub fn at_mut(&mut self, key: AccountKey) -> &mut Account {
        self.slots[key.0 as usize]
            .as_mut()
            .expect("a named account is in its slot")
    }

    /// How many are in memory.
    pub fn count(&self) -> usize {
        self.table.len()
    }

    /// Every bare JID in memory.
    pub fn jids(&self) -> impl Iterator<Item = &BareJid> {
        self.slots.iter().flatten().map(|account| &account.jid)
    }
}
