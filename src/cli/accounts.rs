//! The accounts of a server, through its admin socket where it runs and in its store where not.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use runtime::admin::{Answer, Client};
use runtime::config::Config;
use stanza::jid::{BareJid, check_new_local};
use store::{Embedded, OpenError};
use xmpp::Timestamp;
use xmpp::limit::Limits;
use xmpp::port::{Credentials, OfflineQuota, Store, StoreOp, StoreReply, WholeAccount};

use super::{Failure, delete};

/// A server that is starting holds the store before its socket answers.
const STARTING_WAITS: u32 = 10;
const STARTING_WAIT: Duration = Duration::from_millis(100);

/// Why a store has no room for an account.
const TOO_MANY: &str = "It has more documents of a kind than an account may have.";

/// Where the accounts of a server are, which nothing was asked of yet.
pub(crate) struct Place {
    domain: String,
    config: Box<Config>,
}

/// The accounts of the server that a configuration describes.
pub(crate) struct Accounts {
    place: Place,
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
    /// A running server does not take it; a sentence.
    Refused(String),
}

impl Place {
    /// That of the server with the configuration in `config`.
    pub(crate) fn of(config: &Path) -> Result<Place, Failure> {
        let config = Config::load(config).map_err(|error| Failure::new(error.to_string()))?;
        Ok(Place {
            domain: config.domain.to_string(),
            config: Box::new(config),
        })
    }

    /// The account that an operator names: a bare JID of this domain, or its local part.
    pub(crate) fn name(&self, text: &str) -> Result<BareJid, Failure> {
        name(text, &self.domain).map_err(Failure)
    }

    /// The same for an account to be created.
    pub(crate) fn new_name(&self, text: &str) -> Result<BareJid, Failure> {
        new_name(text, &self.domain).map_err(Failure)
    }

    /// Reaches the accounts. From then on nobody else can where no server runs, and a running one
    /// waits a minute only for what is asked: whatever takes its time comes before.
    pub(crate) fn open(self) -> Result<Accounts, Failure> {
        let reach = reach(&self.config.data)?;
        Ok(Accounts { place: self, reach })
    }
}

impl Accounts {
    /// Reaches the accounts of the server with the configuration in `config`.
    pub(crate) fn open(config: &Path) -> Result<Accounts, Failure> {
        Place::of(config)?.open()
    }

    /// The domain served.
    pub(crate) fn domain(&self) -> &str {
        &self.place.domain
    }

    /// What may wait for one account.
    pub(crate) fn offline(&self) -> OfflineQuota {
        self.limits().offline()
    }

    /// What an account may have.
    pub(crate) fn limits(&self) -> &Limits {
        &self.place.config.limits
    }

    /// The data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.place.config.data
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

    /// Creates accounts with all they own, in large commits, and adds the number of those that are
    /// new to `created`, also where it fails. Calls `told` with each that did not come in; of one
    /// that was there before nothing is changed.
    pub(crate) fn create(
        &mut self,
        accounts: &mut dyn Iterator<Item = WholeAccount>,
        created: &mut u64,
        told: &mut dyn FnMut(&BareJid, Trouble),
    ) -> Result<(), Failure> {
        match &mut self.reach {
            Reach::Store(store) => {
                let mut existed = |account: &BareJid| told(account, Trouble::Exists);
                let loaded = store.bulk_load(accounts, &mut existed);
                *created += loaded.map_err(|text| failed(&text))?.created;
                Ok(())
            }
            Reach::Server(client) => create_through(client, accounts, created, told),
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

    /// Deletes an account; none of its contacts has a subscription with it any more then.
    pub(crate) fn delete(&mut self, account: &BareJid) -> Result<StoreReply, Failure> {
        let op = StoreOp::DeleteAccount {
            account: account.clone(),
        };
        let reply = match &mut self.reach {
            Reach::Server(client) => {
                let replies = client.perform(&[op]);
                replies
                    .map_err(|error| Failure::new(error.to_string()))?
                    .pop()
            }
            Reach::Store(store) => {
                // What is here may not be there after a crash that comes between the two.
                self.place.config.mark_uploads(account).map_err(|text| {
                    let name = account.as_str();
                    Failure(format!("{name} was not deleted: {text}."))
                })?;
                let mut ops = delete::partings(&mut **store, account, &self.place.domain, now());
                ops.push(op);
                let mut replies = Vec::new();
                store.perform(&mut ops.into_iter(), &mut replies);
                if replies.last() == Some(&StoreReply::Done) {
                    self.place.config.remove_uploads(account).map_err(|text| {
                        let name = account.as_str();
                        Failure(format!(
                            "Deleted {name}, but not what it had uploaded: {text}."
                        ))
                    })?;
                }
                replies.pop()
            }
        };
        match reply {
            Some(StoreReply::Failed(text)) => Err(Failure(format!(
                "{} was not deleted: {text}.",
                account.as_str()
            ))),
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

/// Whether a client that chooses one of the hashes may find no key.
pub(crate) fn is_partial(keys: &Credentials) -> bool {
    keys.has_any() && (keys.sha1.is_none() || keys.sha256.is_none() || keys.sha512.is_none())
}

/// Says what follows from so many new accounts of that kind.
pub(crate) fn tell_partial(count: u64) {
    if count > 0 {
        eprintln!(
            "vorpal: {count} new accounts have keys for some SCRAM hashes only. From its next \
             start on the server offers nobody the others, until all their passwords have been \
             changed or given anew by clients that know XEP-0480; restart it if it runs."
        );
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| since.as_micros() as u64))
}

fn failed(text: &str) -> Failure {
    Failure(format!("The store failed: {text}."))
}

fn create_through(
    client: &mut Client,
    accounts: &mut dyn Iterator<Item = WholeAccount>,
    created: &mut u64,
    told: &mut dyn FnMut(&BareJid, Trouble),
) -> Result<(), Failure> {
    // Whom the server serves goes first.
    ring::lower_thread_priority();
    let creations = accounts.map(|whole| {
        let whole = Box::new(whole);
        (whole.account.clone(), StoreOp::CreateWhole { whole })
    });
    let mut failure: Option<Failure> = None;
    let sent = client.perform_each(creations, &mut |account: BareJid, answer| {
        match answer {
            Answer::Reply(StoreReply::Done) => *created += 1,
            Answer::Reply(StoreReply::Exists) => told(&account, Trouble::Exists),
            Answer::Reply(StoreReply::Full) => told(&account, Trouble::Refused(TOO_MANY.into())),
            Answer::Refused(text) => told(&account, Trouble::Refused(text)),
            Answer::Reply(StoreReply::Failed(text)) => {
                failure.get_or_insert(failed(&text));
            }
            Answer::Reply(_) => {
                failure.get_or_insert(failed("it gave no sensible answer"));
            }
        }
        failure.is_none()
    });
    sent.map_err(|error| Failure::new(error.to_string()))?;
    failure.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::admin::protocol::{LINE_SIZE_MAX, Outcome, Reply, Request};
    use runtime::admin::{AdminBackend, AdminSocket, SOCKET_NAME};
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::sync::{Arc, Mutex};
    use std::thread::JoinHandle;
    use store::Memory;
    use xmpp::port::{Credentials, DOCUMENTS_MAX, RosterItem, Space};

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

    /// A running server that is there for so many lines, and takes one more that it never answers.
    fn serve_lines(data: &Path, lines: usize, store: &Arc<Mutex<Memory>>) -> JoinHandle<()> {
        let listener = UnixListener::bind(data.join(SOCKET_NAME)).unwrap();
        let store = Arc::clone(store);
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = BufReader::new(stream.try_clone().unwrap()).lines();
            for answers in (0..=lines).rev() {
                let Some(Ok(line)) = asked.next() else {
                    return;
                };
                let Ok(Request::Perform(ops)) = serde_json::from_str(&line) else {
                    panic!("nothing else is asked: {line}")
                };
                let ops = ops
                    .into_iter()
                    .map(|op| op.into_store_op("a.example").unwrap());
                let mut replies = Vec::new();
                let mut ops = ops.collect::<Vec<_>>().into_iter();
                store.lock().unwrap().perform(&mut ops, &mut replies);
                if answers > 0 {
                    let outcomes = replies.into_iter().map(Outcome::from).collect();
                    let reply = serde_json::to_string(&Reply::Replies(outcomes)).unwrap();
                    writeln!(stream, "{reply}").unwrap();
                }
            }
        })
    }

    /// An account with some of everything; two of these do not fit into one line.
    fn heavy(name: &str) -> WholeAccount {
        let account = BareJid::parse(&format!("{name}@a.example")).unwrap();
        let mut whole = WholeAccount::new(account, Credentials::default());
        let contact = BareJid::parse("juliet@a.example").unwrap();
        whole.data.roster = vec![RosterItem::new(contact)];
        whole.data.blocked = vec!["tybalt@a.example".into()];
        let text = vec![b'x'; LINE_SIZE_MAX / 2].into();
        whole.documents = vec![(Space::Vcard, "".into(), text)];
        whole.offline = vec![b"<message/>".as_slice().into()];
        whole
    }

    /// Whether a store has all of an account; `None` where it does not know it.
    fn has_all_of(store: &mut Memory, whole: &WholeAccount) -> Option<bool> {
        let account = || whole.account.clone();
        let (space, key) = (Space::Vcard, "".into());
        let ops = [
            StoreOp::Account { account: account() },
            StoreOp::Offline { account: account() },
            StoreOp::Document {
                account: account(),
                space,
                key,
            },
        ];
        let mut replies = Vec::new();
        store.perform(&mut ops.into_iter(), &mut replies);
        let [
            StoreReply::Account(data),
            StoreReply::Offline(waiting),
            StoreReply::Document(card),
        ] = &replies[..]
        else {
            panic!("these are no answers: {replies:?}")
        };
        let data = data.as_deref()?;
        let parts = [
            data.roster == whole.data.roster,
            data.blocked == whole.data.blocked,
            waiting
                .iter()
                .map(|(_, (_, stanza))| stanza)
                .eq(&whole.offline),
            card.as_ref() == whole.documents.first().map(|document| &document.2),
        ];
        Some(parts.into_iter().all(|part| part))
    }

    #[test]
    fn a_connection_cut_off_in_between_leaves_whole_accounts_and_the_rest_comes_next_time() {
        let name = format!("vorpal-accounts-{}", std::process::id());
        let data = std::env::temp_dir().join(name);
        std::fs::create_dir(&data).unwrap();
        let store = Arc::new(Mutex::new(Memory::new()));
        let all = ["one", "two", "three", "four"].map(heavy);
        let import = |lines: usize| {
            let server = serve_lines(&data, lines, &store);
            let mut client = Client::connect(&data).unwrap().expect("it answers");
            let (mut created, mut told) = (0, Vec::new());
            let done = create_through(
                &mut client,
                &mut all.clone().into_iter(),
                &mut created,
                &mut |account, trouble| told.push((account.clone(), trouble)),
            );
            drop(client);
            std::fs::remove_file(data.join(SOCKET_NAME)).unwrap();
            (done, created, told, server)
        };
        let (done, created, told, server) = import(1);
        server.join().unwrap();
        let text = done.unwrap_err().to_string();
        assert!(text.contains("went away"), "{text}");
        assert_eq!((created, told), (1, Vec::new()));
        let seen = |store: &Mutex<Memory>| {
            let mut store = store.lock().unwrap();
            all.each_ref().map(|whole| has_all_of(&mut store, whole))
        };
        // Of the second nobody knows whether the server had it.
        assert_eq!(seen(&store), [Some(true), Some(true), None, None]);

        let (done, created, told, _reads_on) = import(4);
        assert!(done.is_ok());
        let existed = |whole: &WholeAccount| (whole.account.clone(), Trouble::Exists);
        assert_eq!((created, told), (2, all[..2].iter().map(existed).collect()));
        assert_eq!(seen(&store), [Some(true); 4]);
        std::fs::remove_dir_all(&data).unwrap();
    }

    /// A server in front of a store that fails for one account.
    struct Failing(Mutex<Memory>);

    impl AdminBackend for Failing {
        fn domain(&self) -> &str {
            "a.example"
        }

        fn perform(&self, ops: Vec<StoreOp>) -> Vec<StoreReply> {
            let fails = |op: &StoreOp| match op {
                StoreOp::CreateWhole { whole } => whole.account.local() == Some("fails"),
                _ => false,
            };
            if ops.iter().any(fails) {
                return vec![StoreReply::Failed("the disk is full".into()); ops.len()];
            }
            let mut replies = Vec::new();
            let mut store = self.0.lock().unwrap();
            store.perform(&mut ops.into_iter(), &mut replies);
            replies
        }

        fn accounts(&self) -> Result<Vec<BareJid>, Box<str>> {
            Ok(Vec::new())
        }

        fn delete(&self, _account: BareJid) -> StoreReply {
            StoreReply::Missing
        }
    }

    #[test]
    fn an_account_that_a_server_does_not_take_is_told_and_the_rest_comes_in() {
        let name = format!("vorpal-refused-{}", std::process::id());
        let data = std::env::temp_dir().join(name);
        std::fs::create_dir(&data).unwrap();
        let socket = AdminSocket::serve(&data, Failing(Mutex::new(Memory::new()))).unwrap();
        let mut client = Client::connect(&data).unwrap().expect("it answers");
        let mut huge = heavy("huge");
        huge.offline = vec![huge.documents[0].2.clone()];
        let mut full = WholeAccount::new(
            BareJid::parse("full@a.example").unwrap(),
            Credentials::default(),
        );
        let documents = (0..=DOCUMENTS_MAX).map(|number| {
            let key = number.to_string().into();
            (Space::Private, key, b"<a/>".as_slice().into())
        });
        full.documents = documents.collect();
        let all = [
            heavy("one"),
            huge,
            full,
            heavy("two"),
            heavy("fails"),
            heavy("three"),
        ];
        let (mut created, mut told) = (0, Vec::new());
        let done = create_through(
            &mut client,
            &mut all.into_iter(),
            &mut created,
            &mut |account, trouble| told.push((account.as_str().to_owned(), trouble)),
        );
        drop(socket);
        std::fs::remove_dir_all(&data).unwrap();
        let text = done.unwrap_err().to_string();
        assert!(text.contains("the disk is full"), "{text}");
        assert_eq!(
            created, 3,
            "what was under way beside the failure did come in"
        );
        let [
            (huge, Trouble::Refused(size)),
            (full, Trouble::Refused(many)),
        ] = &told[..]
        else {
            panic!("two are told: {told:?}")
        };
        assert_eq!([&**huge, &**full], ["huge@a.example", "full@a.example"]);
        assert!(size.contains("stop it and try again"), "{size}");
        assert_eq!(many, TOO_MANY);
    }
}
