//! The accounts of a server, through its admin socket where it runs and in its store where not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::admin::Client;
use runtime::config::Config;
use stanza::jid::{BareJid, check_new_local};
use store::{Embedded, OpenError, WholeAccount};
use xmpp::port::{Credentials, OfflineQuota, RosterItem, Store, StoreOp, StoreReply};

use super::Failure;

/// A server that is starting holds the store before its socket answers.
const STARTING_WAITS: u32 = 10;
const STARTING_WAIT: Duration = Duration::from_millis(100);

/// Accounts that are sent to a running server as one commit.
const SERVER_BATCH: usize = 2048;

/// The accounts of the server that a configuration describes.
pub(crate) struct Accounts {
    domain: String,
    data: PathBuf,
    offline: OfflineQuota,
    reach: Reach,
}

enum Reach {
    Server(Client),
    Store(Box<Embedded>),
}

/// Why an account did not come in as it was given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It was there before.
    Exists,
    /// It is new, but a running server refused some of what it owns: a sentence without its end.
    NotTaken(String),
}

/// One account to be made, with its contacts.
pub(crate) type NewAccount = (BareJid, Credentials, Vec<RosterItem>);

impl Accounts {
    /// Reaches the accounts of the server with the configuration in `config`.
    pub(crate) fn open(config: &Path) -> Result<Accounts, Failure> {
        let config = Config::load(config).map_err(|error| Failure::new(error.to_string()))?;
        let reach = reach(&config.data)?;
        Ok(Accounts {
            domain: config.domain.to_string(),
            data: config.data,
            offline: config.limits.offline(),
            reach,
        })
    }

    /// The domain served.
    pub(crate) fn domain(&self) -> &str {
        &self.domain
    }

    /// What may wait for one account.
    pub(crate) fn offline(&self) -> OfflineQuota {
        self.offline
    }

    /// The account that an operator names: a bare JID of this domain, or its local part.
    pub(crate) fn name(&self, text: &str) -> Result<BareJid, Failure> {
        name(text, &self.domain).map_err(Failure)
    }

    /// The data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Writes a backup of this moment to an absolute path; gives the number of its records.
    pub(crate) fn back_up(&mut self, file: &Path) -> Result<u64, Failure> {
        match &mut self.reach {
            Reach::Server(client) => {
                let text = file.to_str().ok_or_else(|| {
                    let file = file.display();
                    Failure(format!(
                        "A running server takes UTF-8 paths only, not {file}."
                    ))
                })?;
                let saved = client.back_up(text, &mut |count| tracing::info!(count, "records"));
                saved.map_err(|error| Failure::new(error.to_string()))
            }
            Reach::Store(store) => {
                let snapshot = store.snapshot().map_err(|text| failed(&text))?;
                snapshot.save(file, &mut |_| {}).map_err(Failure::new)
            }
        }
    }

    /// Creates accounts with all they own and calls `told` with each that was there before, of
    /// which nothing is changed, and with each that not everything was taken of. Gives the number
    /// of those that are new.
    pub(crate) fn create_whole(
        &mut self,
        accounts: Vec<WholeAccount>,
        told: &mut dyn FnMut(&BareJid, Trouble),
    ) -> Result<u64, Failure> {
        match &mut self.reach {
            Reach::Store(store) => {
                let mut existed = |account: &BareJid| told(account, Trouble::Exists);
                let loaded = store.bulk_load_whole(accounts.into_iter(), &mut existed);
                Ok(loaded.map_err(|text| failed(&text))?.created)
            }
            Reach::Server(client) => create_whole_through(client, accounts, told),
        }
    }

    /// Performs one operation.
    pub(crate) fn one(&mut self, op: StoreOp) -> Result<StoreReply, Failure> {
        let mut replies = match &mut self.reach {
            Reach::Server(client) => client
                .perform(&[op])
                .map_err(|error| Failure::new(error.to_string()))?,
            Reach::Store(store) => {
                let mut replies = Vec::new();
                store.perform(&mut std::iter::once(op), &mut replies);
                replies
            }
        };
        match replies.pop() {
            Some(StoreReply::Failed(text)) => Err(failed(&text)),
            Some(reply) => Ok(reply),
            None => Err(failed("it gave no answer")),
        }
    }

    /// Calls `each` with every account, in order, until it answers `false`.
    pub(crate) fn list(self, each: &mut dyn FnMut(&str) -> bool) -> Result<(), Failure> {
        match self.reach {
            Reach::Server(client) => client
                .list(each)
                .map_err(|error| Failure::new(error.to_string())),
            Reach::Store(mut store) => store
                .accounts(&mut |account| each(account.as_str()))
                .map_err(|text| failed(&text)),
        }
    }

    /// Creates accounts in large commits and calls `existed` with each that was there before; of
    /// that nothing is changed. Gives the number of those that are new.
    pub(crate) fn create(
        &mut self,
        accounts: &mut dyn Iterator<Item = NewAccount>,
        existed: &mut dyn FnMut(&BareJid),
    ) -> Result<u64, Failure> {
        match &mut self.reach {
            Reach::Store(store) => {
                let loaded = store
                    .bulk_load(accounts, existed)
                    .map_err(|text| failed(&text))?;
                Ok(loaded.created)
            }
            Reach::Server(client) => create_through(client, accounts, existed),
        }
    }
}

/// The account that an operator names; the error is a sentence without a place.
pub(crate) fn name(text: &str, domain: &str) -> Result<BareJid, String> {
    let whole = match text.contains('@') {
        true => text.to_owned(),
        false => format!("{text}@{domain}"),
    };
    let jid = BareJid::parse(&whole)
        .map_err(|error| format!("{text:?} is no account name: {error}; write name@{domain}."))?;
    if jid.domain() != domain || jid.local().is_none() {
        return Err(format!(
            "{text:?} is not of {domain}, the domain of the configuration."
        ));
    }
    Ok(jid)
}

/// The same for an account to be created, whose name must be safe.
pub(crate) fn new_name(text: &str, domain: &str) -> Result<BareJid, String> {
    let jid = name(text, domain)?;
    // What the operator wrote, not what preparation made of it: that is where look-alikes show.
    let local = text.split('@').next().unwrap_or_default();
    check_new_local(local).map_err(|error| {
        format!("{text:?} is no safe name for a new account: {error}; choose another.")
    })?;
    Ok(jid)
}

fn reach(data: &Path) -> Result<Reach, Failure> {
    let mut waits = 0;
    loop {
        match Client::connect(data) {
            Ok(Some(client)) => return Ok(Reach::Server(client)),
            Ok(None) => {}
            Err(error) => return Err(Failure::new(error.to_string())),
        }
        match Embedded::open(data) {
            Ok(store) => return Ok(Reach::Store(Box::new(store))),
            Err(OpenError::Locked(_)) if waits < STARTING_WAITS => {
                waits += 1;
                std::thread::sleep(STARTING_WAIT);
            }
            Err(OpenError::Locked(_)) => {
                return Err(Failure::new(format!(
                    "Another process uses the store in {} and answers on no admin socket there; \
                     wait until it is up or has stopped.",
                    data.display()
                )));
            }
            Err(error) => return Err(Failure::new(error.to_string())),
        }
    }
}

fn failed(text: &str) -> Failure {
    Failure(format!("The store failed: {text}."))
}

fn create_through(
    client: &mut Client,
    mut accounts: &mut dyn Iterator<Item = NewAccount>,
    existed: &mut dyn FnMut(&BareJid),
) -> Result<u64, Failure> {
    let mut created = 0;
    loop {
        let mut ops = Vec::with_capacity(SERVER_BATCH);
        let mut rosters = Vec::with_capacity(SERVER_BATCH);
        for (account, credentials, roster) in (&mut accounts).take(SERVER_BATCH) {
            rosters.push((account.clone(), roster));
            ops.push(StoreOp::CreateAccount {
                account,
                credentials: Box::new(credentials),
            });
        }
        if ops.is_empty() {
            return Ok(created);
        }
        let mut items = Vec::new();
        for (reply, (account, roster)) in ask(client, &ops)?.into_iter().zip(rosters) {
            if is_new(&reply, &account)? {
                created += 1;
                items.extend(roster.into_iter().map(|item| StoreOp::PutRosterItem {
                    account: account.clone(),
                    item: Box::new(item),
                }));
            } else {
                existed(&account);
            }
        }
        let replies = ask(client, &items)?;
        if let Some((account, what)) = untaken(&items, &replies).into_iter().next() {
            return Err(Failure(format!("{}: {what}.", account.as_str())));
        }
    }
}

/// What the answer to the creation of an account says.
fn is_new(reply: &StoreReply, account: &BareJid) -> Result<bool, Failure> {
    match reply {
        StoreReply::Done => Ok(true),
        StoreReply::Exists => Ok(false),
        other => Err(Failure(format!(
            "{} was not created: {}.",
            account.as_str(),
            reason(other)
        ))),
    }
}

fn reason(reply: &StoreReply) -> &'static str {
    match reply {
        StoreReply::Full => "there is no room for more",
        StoreReply::Missing => "the account is gone",
        _ => "the server gave no sensible answer",
    }
}

/// The writes that were not done, told by account and kind in their order.
fn untaken(ops: &[StoreOp], replies: &[StoreReply]) -> Vec<(BareJid, String)> {
    let mut counted: Vec<(&BareJid, &str, u64, &StoreReply)> = Vec::new();
    for (op, reply) in ops.iter().zip(replies) {
        if *reply == StoreReply::Done {
            continue;
        }
        let (account, kind) = match op {
            StoreOp::PutRosterItem { account, .. } => (account, "contacts"),
            StoreOp::SetBlocked { account, .. } => (account, "block lists"),
            StoreOp::PutDocument { account, .. } => (account, "documents"),
            StoreOp::PutOffline { account, .. } => (account, "waiting messages"),
            other => unreachable!("nothing else belongs to a new account: {other:?}"),
        };
        match counted.last_mut() {
            Some((of, same, count, _)) if *of == account && *same == kind => *count += 1,
            _ => counted.push((account, kind, 1, reply)),
        }
    }
    let told = |(account, kind, count, reply): (&BareJid, &str, u64, &StoreReply)| {
        let reason = reason(reply);
        let what = format!("the server did not take {count} of its {kind}: {reason}");
        (account.clone(), what)
    };
    counted.into_iter().map(told).collect()
}

fn create_whole_through(
    client: &mut Client,
    accounts: Vec<WholeAccount>,
    told: &mut dyn FnMut(&BareJid, Trouble),
) -> Result<u64, Failure> {
    let creations: Vec<StoreOp> = accounts
        .iter()
        .map(|whole| StoreOp::CreateAccount {
            account: whole.account.clone(),
            credentials: Box::new(whole.credentials.clone()),
        })
        .collect();
    let mut created = 0;
    let mut rest = Vec::new();
    for (reply, whole) in ask(client, &creations)?.into_iter().zip(accounts) {
        if is_new(&reply, &whole.account)? {
            created += 1;
            belongings(whole, &mut rest);
        } else {
            told(&whole.account, Trouble::Exists);
        }
    }
    let replies = ask(client, &rest)?;
    for (account, what) in untaken(&rest, &replies) {
        told(&account, Trouble::NotTaken(what));
    }
    Ok(created)
}

/// The writes of all that a new account owns.
fn belongings(whole: WholeAccount, ops: &mut Vec<StoreOp>) {
    let account = whole.account;
    for item in whole.data.roster {
        ops.push(StoreOp::PutRosterItem {
            account: account.clone(),
            item: Box::new(item),
        });
    }
    if !whole.data.blocked.is_empty() {
        let blocked = whole.data.blocked;
        ops.push(StoreOp::SetBlocked {
            account: account.clone(),
            blocked,
        });
    }
    for (space, key, bytes) in whole.documents {
        ops.push(StoreOp::PutDocument {
            account: account.clone(),
            space,
            key,
            bytes,
        });
    }
    for stanza in whole.offline {
        ops.push(StoreOp::PutOffline {
            account: account.clone(),
            stanza,
            // The line has no word for it: who reads the accounts keeps to the limit.
            quota: OfflineQuota::UNLIMITED,
            origin: None,
        });
    }
}

/// Has a running server perform writes; that storage failed ends the whole command.
fn ask(client: &mut Client, ops: &[StoreOp]) -> Result<Vec<StoreReply>, Failure> {
    let replies = client
        .perform(ops)
        .map_err(|error| Failure::new(error.to_string()))?;
    match replies.iter().find_map(|reply| match reply {
        StoreReply::Failed(text) => Some(text),
        _ => None,
    }) {
        Some(text) => Err(failed(text)),
        None => Ok(replies),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::admin::{AdminBackend, AdminSocket};
    use std::sync::Mutex;
    use store::Memory;
    use xmpp::port::{ScramKey, Space};

    #[test]
    fn an_account_is_named_by_its_local_part_or_its_whole_jid() {
        let romeo = BareJid::parse("romeo@a.example").unwrap();
        assert_eq!(name("romeo", "a.example"), Ok(romeo.clone()));
        assert_eq!(name("Romeo@A.example", "a.example"), Ok(romeo));
        for wrong in [
            "",
            "romeo@b.example",
            "@a.example",
            "romeo@a.example/orchard",
            "a b",
        ] {
            assert!(name(wrong, "a.example").is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn a_new_name_must_be_the_same_to_old_and_new_servers() {
        assert!(new_name("romeo", "a.example").is_ok());
        assert!(name("straße", "a.example").is_ok());
        let refusal = new_name("straße", "a.example").unwrap_err();
        assert!(refusal.contains("choose another"), "{refusal}");
    }

    /// A server whose accounts have room for nothing but contacts.
    struct Full(Mutex<Memory>);

    impl AdminBackend for Full {
        fn domain(&self) -> &str {
            "a.example"
        }

        fn perform(&self, ops: Vec<StoreOp>) -> Vec<StoreReply> {
            let one = |op| match op {
                StoreOp::PutOffline { .. } | StoreOp::PutDocument { .. } => StoreReply::Full,
                StoreOp::SetBlocked { .. } => StoreReply::Missing,
                op => {
                    let mut replies = Vec::new();
                    let mut store = self.0.lock().unwrap();
                    store.perform(&mut std::iter::once(op), &mut replies);
                    replies.remove(0)
                }
            };
            ops.into_iter().map(one).collect()
        }

        fn accounts(&self) -> Result<Vec<BareJid>, Box<str>> {
            Ok(Vec::new())
        }

        fn account_gone(&self, _account: BareJid) {}
    }

    #[test]
    fn every_write_that_a_running_server_refuses_is_told() {
        let name = format!("vorpal-accounts-{}", std::process::id());
        let data = std::env::temp_dir().join(name);
        std::fs::create_dir(&data).unwrap();
        let socket = AdminSocket::serve(&data, Full(Mutex::new(Memory::new()))).unwrap();
        let mut client = Client::connect(&data).unwrap().expect("it answers");

        let romeo = BareJid::parse("romeo@a.example").unwrap();
        let key = ScramKey {
            salt: [1; 16].into(),
            iterations: 4096,
            stored_key: [2; 32].into(),
            server_key: [3; 32].into(),
        };
        let keys = Credentials {
            sha256: Some(key),
            ..Credentials::default()
        };
        let mut whole = WholeAccount::new(romeo.clone(), keys);
        let contact = BareJid::parse("juliet@a.example").unwrap();
        whole.data.roster = vec![RosterItem::new(contact)];
        whole.data.blocked = vec!["tybalt@a.example".into()];
        let text: Box<[u8]> = b"<message/>".as_slice().into();
        whole.documents = vec![(Space::Vcard, "".into(), text.clone())];
        whole.offline = vec![text.clone(), text];

        let mut told = Vec::new();
        let mut tell = |account: &BareJid, trouble| told.push((account.clone(), trouble));
        let both = vec![whole.clone(), whole];
        let created = create_whole_through(&mut client, both, &mut tell).unwrap();
        drop(socket);
        std::fs::remove_dir_all(&data).unwrap();
        assert_eq!(created, 1);
        let not_taken = |what: &str| Trouble::NotTaken(format!("the server did not take {what}"));
        let expected = [
            Trouble::Exists,
            not_taken("1 of its block lists: the account is gone"),
            not_taken("1 of its documents: there is no room for more"),
            not_taken("2 of its waiting messages: there is no room for more"),
        ];
        assert_eq!(told, expected.map(|trouble| (romeo.clone(), trouble)));
    }
}
