//! Where files lie, and how much of them everybody has.
//!
//! A file is `files/<account>/<number>` below the directory, both as [`slot`] names them: one block
//! that says what it is, and then its bytes. While it comes it is `partial/<number>`. Beside an
//! account's files its address lies in `owner`.
//!
//! Invariant: what is below `files` is whole; what is used is what lies there, so that no crash can
//! make the two differ.
//!
//! [`slot`]: super::slot

use super::UploadConfig;
use super::slot::{FileId, Keys, Permit, User, hex, unhex};
use super::{COMING_PER_USER_MAX, SLOT_LIFETIME, SLOTS_PER_USER_MAX};
use super::{TRANSFERS_MAX, TRANSFERS_PER_ADDRESS_MAX};
use crate::transport::http::files::{FILES_PATH, Put, encoded};
use serde::{Deserialize, Serialize};
use stanza::jid::BareJid;
use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, Metadata, TryLockError};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use xmpp::Timestamp;
use xmpp::limit::counted_address;
use xmpp::port::Store;
use xmpp::xep::upload::{Slot, SlotAnswer, SlotRequest};

/// Bytes in front of a file's own; a name and a type fit, however they are escaped.
pub(crate) const LABEL_SIZE: usize = 4096;
/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// Where the files of accounts are, below the directory.
const FILES: &str = "files";
/// Where those are that come, and what is to be removed.
const PARTIAL: &str = "partial";
/// Says of a directory that it is ours; locked by who uses it.
const CLAIM: &str = "vorpal-uploads";
/// Whose files those beside it are.
const OWNER: &str = "owner";
/// Says of those beside it that their account is being deleted.
const DELETED: &str = "deleted";

/// What a file says of itself.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Label {
    pub(super) name: Box<str>,
    #[serde(rename = "type")]
    pub(super) content_type: Box<str>,
}

impl Label {
    /// The first block of the file.
    pub(super) fn block(&self) -> Vec<u8> {
        let mut block = serde_json::to_vec(self).expect("text is JSON");
        assert!(block.len() < LABEL_SIZE, "names and types are short");
        block.resize(LABEL_SIZE - 1, b' ');
        block.push(b'\n');
        block
    }

    /// What the first block of a file says, if it is one.
    pub(super) fn read(block: &[u8]) -> Option<Label> {
        let block = block.get(..LABEL_SIZE)?;
        serde_json::from_slice(block).ok()
    }
}

/// Why a file may not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its slot is over, or its account.
    Over,
    /// It is there, or coming.
    There,
    /// There is no room.
    Full,
    /// As many of the account come already.
    Busy,
}

/// A file that has a slot and is not there yet.
#[derive(Debug)]
struct Reserved {
    number: [u8; 16],
    size: u64,
    until_s: u64,
    /// Whether it is coming.
    is_coming: bool,
}

/// What an account has.
#[derive(Debug, Default)]
struct Usage {
    /// Bytes on the disk.
    size: u64,
    /// Bytes that came on a day, since 1970.
    day: (u64, u64),
    reserved: Vec<Reserved>,
    has_directory: bool,
    /// Since when that is there, in seconds since 1970: older slots are of an account of this name
    /// that is no more.
    since_s: u64,
}

impl Usage {
    /// Forgets slots that are over.
    fn tidy(&mut self, now_s: u64) {
        self.reserved
            .retain(|it| it.is_coming || it.until_s >= now_s);
        if self.day.0 != now_s / DAY_S {
            self.day = (now_s / DAY_S, 0);
        }
    }

    /// Whether there is room for a file; if not, from when on there may be, in seconds since 1970.
    fn room(&self, size: u64, now_s: u64, config: &UploadConfig) -> Result<(), Option<u64>> {
        let reserved = self.reserved.iter().map(|it| taken(it.size)).sum::<u64>();
        let coming = reserved.saturating_add(taken(size));
        if self.day.1.saturating_add(coming) > config.daily {
            // What is more than all of a day's has no day.
            let fits = taken(size) <= config.daily;
            let is_full = self.day.1.saturating_add(taken(size)) > config.daily;
            let midnight = (now_s / DAY_S + 1) * DAY_S;
            let retry = if is_full {
                Some(midnight)
            } else {
                self.slot_over_at(now_s)
            };
            return Err(retry.filter(|_| fits));
        }
        match self.size.saturating_add(coming) <= config.quota {
            true => Ok(()),
            false => Err(None),
        }
    }

    /// When the next slot is over that is not used; in seconds since 1970.
    fn slot_over_at(&self, now_s: u64) -> Option<u64> {
        let unused = self.reserved.iter().filter(|it| !it.is_coming);
        unused
            .map(|it| it.until_s + 1)
            .filter(|at| *at > now_s)
            .min()
    }

    fn is_nothing(&self) -> bool {
        self.size == 0 && self.day.1 == 0 && self.reserved.is_empty()
    }
}

/// Bytes that a file of this size takes on the disk.
fn taken(size: u64) -> u64 {
    size.saturating_add(LABEL_SIZE as u64)
}

/// All files.
pub(super) struct Depot {
    config: UploadConfig,
    keys: Arc<Keys>,
    /// Locked as long as it is open.
    _claim: File,
    users: HashMap<User, Usage>,
    /// Transfers under way, by address.
    transfers: HashMap<IpAddr, u32>,
    /// Those that go, and those that come.
    transfer_counts: [usize; 2],
    /// When this began, in seconds since 1970; it knows all slots that were given since.
    opened_s: u64,
    /// Numbers what is to be removed.
    removals: u64,
}

impl Depot {
    /// Looks at what is there; whatever had only begun to come is removed.
    ///
    /// # Errors
    /// The directory's.
    pub(super) fn open(mut config: UploadConfig, keys: Arc<Keys>) -> io::Result<Depot> {
        // glommio (0.9) opens what is relative below a descriptor that is none.
        config.directory = std::path::absolute(config.directory)?;
        let claim = claim(&config.directory)?;
        let partial = config.directory.join(PARTIAL);
        match fs::remove_dir_all(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        for directory in [&partial, &config.directory.join(FILES)] {
            make_directory(directory)?;
        }
        let mut depot = Depot {
            config,
            keys,
            _claim: claim,
            users: HashMap::new(),
            transfers: HashMap::new(),
            transfer_counts: [0; 2],
            opened_s: seconds(SystemTime::now()),
            removals: 0,
        };
        depot.count(depot.opened_s / DAY_S)?;
        Ok(depot)
    }

    /// Counts what everybody has, and what of it came today.
    fn count(&mut self, today: u64) -> io::Result<()> {
        for entry in fs::read_dir(self.config.directory.join(FILES))? {
            let entry = entry?;
            let Some(user) = entry.file_name().to_str().and_then(unhex) else {
                continue;
            };
            let owner = fs::metadata(entry.path().join(OWNER));
            let mut usage = Usage {
                has_directory: true,
                day: (today, 0),
                since_s: owner.map_or(0, |metadata| came_at(&metadata)),
                ..Usage::default()
            };
            let counted = each_file(&entry.path(), &mut |_, metadata| {
                usage.size += metadata.len();
                if came_at(metadata) / DAY_S == today {
                    usage.day.1 += metadata.len();
                }
            });
            // One that is damaged is no reason for all others to be without a server.
            if let Err(error) = counted {
                let place = entry.path();
                tracing::error!(%error, ?place, "an account's files cannot be counted");
                continue;
            }
            self.users.insert(user, usage);
        }
        Ok(())
    }

    /// Removes the files of accounts whose deletion a crash has parted from theirs. One that is not
    /// in the store for another reason keeps them: it may be the wrong store.
    ///
    /// # Errors
    /// Why accounts cannot be listed.
    pub(super) fn without_deleted(mut self, store: &mut dyn Store) -> Result<Depot, String> {
        let marked = self.users.keys().filter_map(|user| {
            let directory = self.directory(user);
            let is_marked = directory.join(DELETED).exists();
            let owner = is_marked.then(|| fs::read_to_string(directory.join(OWNER)));
            Some((owner?.ok()?, *user))
        });
        let mut marked: HashMap<String, User> = marked.collect();
        if marked.is_empty() {
            return Ok(self);
        }
        let mut stays = Vec::new();
        store.accounts(&mut |account| {
            stays.extend(marked.remove(account.as_str()));
            !marked.is_empty()
        })?;
        let unmarked = stays
            .iter()
            .map(|user| unmark(&self.config.directory, user));
        let removed = marked
            .values()
            .map(|user| remove(&self.config.directory, user));
        for error in unmarked.chain(removed).filter_map(Result::err) {
            tracing::error!(%error, "what a deletion has left stays until the next start");
        }
        for user in marked.values() {
            self.users.remove(user);
        }
        Ok(self)
    }

    /// The name of an account.
    pub(super) fn user(&self, account: &BareJid) -> User {
        self.keys.user(account.as_str())
    }

    pub(super) fn is_durable(&self) -> bool {
        self.config.durable
    }

    /// Where an account's files are.
    pub(super) fn directory(&self, user: &User) -> PathBuf {
        self.config.directory.join(FILES).join(hex(user))
    }

    /// Where a file is.
    pub(super) fn place(&self, file: &FileId) -> PathBuf {
        self.directory(&file.user).join(hex(&file.number))
    }

    /// Where it is while it comes.
    pub(super) fn partial(&self, file: &FileId) -> PathBuf {
        let partial = self.config.directory.join(PARTIAL);
        partial.join(hex(&file.number))
    }

    /// A slot for a file, under a number that nobody can guess.
    pub(super) fn grant(&mut self, request: &SlotRequest, now: Timestamp) -> SlotAnswer {
        let now_s = now.0 / 1_000_000;
        let account = request.account.as_str();
        let user = self.keys.user(account);
        let usage = self.users.entry(user).or_default();
        usage.tidy(now_s);
        if usage.reserved.len() >= SLOTS_PER_USER_MAX {
            let first = usage.slot_over_at(now_s);
            return SlotAnswer::Full(first.map(|at| Timestamp(at * 1_000_000)));
        }
        if let Err(retry) = usage.room(request.size, now_s, &self.config) {
            return SlotAnswer::Full(retry.map(|at| Timestamp(at * 1_000_000)));
        }
        let mut number = [0; 16];
        if aws_lc_rs::rand::fill(&mut number).is_err() {
            return SlotAnswer::Failed;
        }
        if !usage.has_directory {
            let directory = self.config.directory.join(FILES);
            if let Err(error) = make_owned(&directory, &user, account, self.config.durable) {
                tracing::error!(%error, "an account cannot have files");
                return SlotAnswer::Failed;
            }
            (usage.has_directory, usage.since_s) = (true, now_s);
        }
        let until_s = now_s + SLOT_LIFETIME.as_secs();
        usage.reserved.push(Reserved {
            number,
            size: request.size,
            until_s,
            is_coming: false,
        });
        let permit = Permit {
            until_s,
            size: request.size,
            content_type: request.content_type.clone(),
        };
        SlotAnswer::Granted(Box::new(self.slot(
            &FileId { user, number },
            &request.name,
            &permit,
        )))
    }

    fn slot(&self, file: &FileId, name: &str, permit: &Permit) -> Slot {
        let (address, shown) = (self.keys.address(file), encoded(name));
        let url = format!("{}{FILES_PATH}{address}/{shown}", self.config.url);
        let token = self.keys.token(file, name, permit);
        Slot {
            put: url.as_str().into(),
            authorization: format!("Bearer {token}").into(),
            get: url.into(),
        }
    }

    /// A file comes.
    pub(super) fn begin(&mut self, put: &Put, now_s: u64) -> Result<(), Refusal> {
        if put.until_s < now_s {
            return Err(Refusal::Over);
        }
        if self.place(&put.file).exists() {
            return Err(Refusal::There);
        }
        // Where the account has gone, so has this.
        let usage = self.users.get_mut(&put.file.user);
        let usage = usage.filter(|it| it.has_directory).ok_or(Refusal::Over)?;
        usage.tidy(now_s);
        let coming = usage.reserved.iter().filter(|it| it.is_coming);
        let is_busy = coming.count() >= COMING_PER_USER_MAX;
        let mut reserved = usage.reserved.iter_mut();
        if let Some(reserved) = reserved.find(|it| it.number == put.file.number) {
            if is_busy && !reserved.is_coming {
                return Err(Refusal::Busy);
            }
            let was_coming = std::mem::replace(&mut reserved.is_coming, true);
            return if was_coming {
                Err(Refusal::There)
            } else {
                Ok(())
            };
        }
        // Of before a restart, and of this account; any other was used or is an older account's.
        let given_s = put.until_s.saturating_sub(SLOT_LIFETIME.as_secs());
        if given_s < usage.since_s || given_s > self.opened_s {
            return Err(Refusal::Over);
        }
        if is_busy {
            return Err(Refusal::Busy);
        }
        usage
            .room(put.size, now_s, &self.config)
            .map_err(|_| Refusal::Full)?;
        usage.reserved.push(Reserved {
            number: put.file.number,
            size: put.size,
            until_s: put.until_s,
            is_coming: true,
        });
        Ok(())
    }

    /// Whether a file is still one that comes: its account may have gone, and another one have its
    /// name.
    pub(super) fn is_coming(&self, file: &FileId) -> bool {
        self.users.get(&file.user).is_some_and(|usage| {
            let mut reserved = usage.reserved.iter();
            reserved.any(|it| it.number == file.number && it.is_coming)
        })
    }

    /// A file is there, or does not come any more: its slot is as it was then.
    pub(super) fn end(&mut self, put: &Put, is_there: bool, now_s: u64) {
        let Some(usage) = self.users.get_mut(&put.file.user) else {
            return;
        };
        usage.tidy(now_s);
        let mut reserved = usage.reserved.iter();
        // Where it is not reserved its account has gone, and this is the next of the name.
        let Some(place) = reserved.position(|it| it.number == put.file.number) else {
            return;
        };
        if is_there {
            usage.reserved.swap_remove(place);
            usage.size += taken(put.size);
            usage.day.1 += taken(put.size);
        } else {
            usage.reserved[place].is_coming = false;
        }
    }

    /// Lets a transfer of an address begin, if there are not too many.
    pub(super) fn enter(&mut self, peer: IpAddr, comes: bool) -> bool {
        let peer = counted_address(peer);
        let of_peer = self.transfers.get(&peer).copied().unwrap_or_default();
        let all = &mut self.transfer_counts[usize::from(comes)];
        if of_peer >= TRANSFERS_PER_ADDRESS_MAX || *all >= TRANSFERS_MAX {
            return false;
        }
        *all += 1;
        self.transfers.insert(peer, of_peer + 1);
        true
    }

    /// One has ended.
    pub(super) fn leave(&mut self, peer: IpAddr, comes: bool) {
        let peer = counted_address(peer);
        self.transfer_counts[usize::from(comes)] -= 1;
        if let Some(count) = self.transfers.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.transfers.remove(&peer);
            }
        }
    }

    /// Takes an account's files from where they are found; gives where they are to be removed.
    pub(super) fn take_away(&mut self, account: &BareJid) -> Option<PathBuf> {
        let user = self.keys.user(account.as_str());
        let had = self.users.remove(&user)?;
        self.removals += 1;
        let partial = self.config.directory.join(PARTIAL);
        let away = partial.join(format!("removed-{}", self.removals));
        if !had.has_directory {
            return None;
        }
        match fs::rename(self.directory(&user), &away) {
            Ok(()) => Some(away),
            Err(error) => {
                tracing::error!(%error, "the files of a deleted account stay until the next start");
                None
            }
        }
    }

    /// All who have files.
    pub(super) fn users(&self) -> Vec<User> {
        self.users.keys().copied().collect()
    }

    /// What removes the files of an account that have outlived their time, and says how many bytes
    /// those were; it waits for the disk. `None` where there are none.
    pub(super) fn removal_of_old(
        &self,
        user: &User,
        now_s: u64,
    ) -> Option<impl FnOnce() -> u64 + Send + use<>> {
        let lifetime_s = self.config.lifetime?.as_secs();
        let directory = self.directory(user);
        let usage = self.users.get(user).filter(|it| it.has_directory);
        usage.map(|_| move || remove_old(&directory, lifetime_s, now_s))
    }

    /// So many bytes of an account have gone; forgets it where nothing is left.
    pub(super) fn forget(&mut self, user: &User, freed: u64, now_s: u64) {
        let directory = self.directory(user);
        let Some(usage) = self.users.get_mut(user) else {
            return;
        };
        usage.tidy(now_s);
        usage.size = usage.size.saturating_sub(freed);
        if !usage.is_nothing() {
            return;
        }
        // There may be slots of before a restart.
        let made_at = fs::metadata(&directory).map_or(0, |metadata| came_at(&metadata));
        if now_s > made_at + SLOT_LIFETIME.as_secs() {
            self.users.remove(user);
            let _stays_if_it_has_something =
                fs::remove_file(directory.join(OWNER)).and_then(|()| fs::remove_dir(&directory));
        }
    }
}

/// Removes what is too old; gives how many bytes that was.
fn remove_old(directory: &Path, lifetime_s: u64, now_s: u64) -> u64 {
    let mut freed = 0;
    let walked = each_file(directory, &mut |path, metadata| {
        let is_old = now_s.saturating_sub(came_at(metadata)) >= lifetime_s;
        if is_old && fs::remove_file(path).is_ok() {
            freed += metadata.len();
        }
    });
    match walked {
        // The account has gone meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, "old files cannot be looked for"),
        Ok(()) => {}
    }
    freed
}

/// When a file came, in seconds since 1970.
fn came_at(metadata: &Metadata) -> u64 {
    metadata.modified().map_or(0, seconds)
}

pub(super) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Shows all files of an account.
fn each_file(directory: &Path, each: &mut dyn FnMut(&Path, &Metadata)) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().and_then(unhex).is_none() {
            continue;
        }
        match entry.metadata() {
            Ok(metadata) => each(&entry.path(), &metadata),
            // An operator may remove files.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes all of an account, beginning with the names by which its files are found: what a crash
/// leaves of it is taken away at the next start.
pub(super) fn remove(directory: &Path, user: &User) -> io::Result<()> {
    let own = directory.join(FILES).join(hex(user));
    if !own.exists() {
        return Ok(());
    }
    let partial = directory.join(PARTIAL);
    make_directory(&partial)?;
    let away = partial.join(format!("removed-{}", hex(user)));
    // What a crash has left of the account that had the name before.
    match fs::remove_dir_all(&away) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(own, &away)?;
    fs::remove_dir_all(away)
}

/// Notes that an account is about to be deleted, should a crash come between that and the end of
/// its files.
pub(super) fn mark(directory: &Path, user: &User) -> io::Result<()> {
    let own = directory.join(FILES).join(hex(user));
    if !own.exists() {
        return Ok(());
    }
    File::create(own.join(DELETED))?.sync_all()?;
    File::open(own)?.sync_all()
}

/// It was not.
pub(super) fn unmark(directory: &Path, user: &User) -> io::Result<()> {
    match fs::remove_file(directory.join(FILES).join(hex(user)).join(DELETED)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn make_directory(directory: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(directory)
}

/// Makes a directory ours, and nobody else's meanwhile. What others have put into it stays theirs.
fn claim(directory: &Path) -> io::Result<File> {
    make_directory(directory)?;
    let place = directory.join(CLAIM);
    if !place.exists() && fs::read_dir(directory)?.next().is_some() {
        let what = "it is not empty, and was not made for uploads";
        return Err(io::Error::other(what));
    }
    let mut options = File::options();
    let claim = options
        .create(true)
        .truncate(false)
        .write(true)
        .open(place)?;
    match claim.try_lock() {
        Ok(()) => Ok(claim),
        Err(TryLockError::WouldBlock) => Err(io::Error::other("another server uses it")),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Makes an account's directory, which says whose it is.
fn make_owned(files: &Path, user: &User, account: &str, durable: bool) -> io::Result<()> {
    let directory = files.join(hex(user));
    make_directory(&directory)?;
    fs::write(directory.join(OWNER), account)?;
    if durable {
        for synced in [directory.join(OWNER), directory, files.to_owned()] {
            File::open(synced)?.sync_all()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
