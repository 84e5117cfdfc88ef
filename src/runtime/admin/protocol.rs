//! The admin socket's lines, as serde types.
//!
//! ```text
//! > {"perform":[{"create":{"account":"romeo@a.example","keys":{"sha256":{"salt":"8f..",
//!   "iterations":4096,"stored_key":"01..","server_key":"9c.."}},
//!   "roster":[{"contact":"juliet@a.example","subscription":"both"}],
//!   "blocked":["tybalt@a.example"],
//!   "documents":[{"space":"vcard","key":"","text":"<vCard ..."}],
//!   "offline":["<message ..."]}}]}
//! < {"replies":["done"]}
//! > {"perform":[{"set_keys":{..}},{"delete":{"account":"mercutio@a.example"}}]}
//! < {"replies":["missing",{"failed":"the storage engine failed: .."}]}
//! > {"perform":[{"revoke":{"account":"romeo@a.example"}}]}
//! < {"replies":["done"]}
//! > "list"
//! < {"accounts":["juliet@a.example","romeo@a.example"]}
//! < {"accounts":[]}
//! > {"backup":"/srv/backups/monday"}
//! < {"progress":200000}
//! < {"saved":312345}
//! > anything else
//! < {"error":"This is no request: .."}
//! ```
//!
//! Octets are hexadecimal. What a new account has none of is left out. The operations of one
//! `perform` are one commit, up to a `delete` and from there on: that tells the account's contacts
//! first. `list` is answered by as many lines as it takes and then an empty one; `backup` by
//! progress, in records, until it ends.
//! There are no passwords here: whoever asks derives the keys.

use serde::{Deserialize, Serialize};
use stanza::jid::{BareJid, check_new_local};
use xmpp::port::{
    Credentials, Document, RosterItem, ScramKey, Space, StoreOp, StoreReply, Subscription,
    WholeAccount,
};

/// Bytes of one line.
pub const LINE_SIZE_MAX: usize = 8 << 20;

/// Operations of one `perform`.
pub const OPS_MAX: usize = 4096;

/// Accounts of one line of a listing.
pub const ACCOUNTS_PER_LINE: usize = 1000;

/// What a client asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Perform these, as one commit where none deletes an account.
    Perform(Vec<Op>),
    /// Name every account.
    List,
    /// Write a backup to this absolute path.
    Backup(String),
}

/// What the server answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// One outcome for each operation, in order.
    Replies(Vec<Outcome>),
    /// Accounts, ordered by JID; an empty line is the last one.
    Accounts(Vec<String>),
    /// So many records of a backup are written.
    Progress(u64),
    /// A backup of so many records is on the disk.
    Saved(u64),
    /// Nothing was done; a sentence says why.
    Error(String),
}

/// How one operation ended, as in [`StoreReply`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// It is durable.
    Done,
    /// The account exists already.
    Exists,
    /// There is no such account.
    Missing,
    /// A quota is used up.
    Full,
    /// Storage failed.
    Failed(String),
}

/// One operation.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// Create an account with all it owns.
    Create {
        /// Its JID.
        account: String,
        /// Its keys; without any nobody can log in to it.
        keys: Keys,
        /// Its contacts.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        roster: Vec<Contact>,
        /// Whom it blocks.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        blocked: Vec<String>,
        /// Its documents.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        documents: Vec<Text>,
        /// The stanzas that wait for it, oldest first.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        offline: Vec<String>,
    },
    /// Replace an account's keys.
    SetKeys {
        /// Its JID.
        account: String,
        /// Its new keys.
        keys: Keys,
    },
    /// Delete an account.
    Delete {
        /// Its JID.
        account: String,
    },
    /// End an account's sessions and make its tokens void.
    Revoke {
        /// Its JID.
        account: String,
    },
}

/// A contact in the roster of a new account.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// Its JID.
    contact: String,
    /// Its name there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    /// Its groups there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    /// `none`, `to`, `from` or `both`.
    subscription: String,
    /// An outbound request waits.
    #[serde(default, skip_serializing_if = "is_false")]
    ask: bool,
    /// The contact's request is approved beforehand.
    #[serde(default, skip_serializing_if = "is_false")]
    approved: bool,
    /// The contact's waiting request, a presence stanza.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pending: Option<String>,
    /// There is only that request, and nothing that the roster shows.
    #[serde(default, skip_serializing_if = "is_false")]
    hidden: bool,
}

/// A document of a new account.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// `private`, `vcard` or `activity`.
    space: String,
    /// Its name among those.
    key: String,
    /// What it says.
    text: String,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// An account's SCRAM keys.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// For SCRAM-SHA-1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha1: Option<Key>,
    /// For SCRAM-SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<Key>,
    /// For SCRAM-SHA-512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha512: Option<Key>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    salt: String,
    iterations: u32,
    stored_key: String,
    server_key: String,
}

impl From<StoreReply> for Outcome {
    fn from(reply: StoreReply) -> Outcome {
        match reply {
            StoreReply::Done => Outcome::Done,
            StoreReply::Exists => Outcome::Exists,
            StoreReply::Missing => Outcome::Missing,
            StoreReply::Failed(text) | StoreReply::Damaged(text) => Outcome::Failed(text.into()),
            StoreReply::Full => Outcome::Full,
            StoreReply::Credentials(_)
            | StoreReply::Accounts { .. }
            | StoreReply::Account(_)
            | StoreReply::Document(_)
            | StoreReply::Nodes(_)
            | StoreReply::Items(_)
            | StoreReply::Offline(_)
            | StoreReply::Session(_)
            | StoreReply::Room(_)
            | StoreReply::UserAgent(_)
            | StoreReply::UserAgents(_)
            | StoreReply::Outdated
            | StoreReply::ArchivePage(_)
            | StoreReply::ArchiveEnds(_)
            | StoreReply::Swept(_)
            | StoreReply::Sessions(_) => {
                Outcome::Failed("the store answered another question".into())
            }
        }
    }
}

impl From<Outcome> for StoreReply {
    fn from(outcome: Outcome) -> StoreReply {
        match outcome {
            Outcome::Done => StoreReply::Done,
            Outcome::Exists => StoreReply::Exists,
            Outcome::Missing => StoreReply::Missing,
            Outcome::Full => StoreReply::Full,
            Outcome::Failed(text) => StoreReply::Failed(text.into()),
        }
    }
}

impl Op {
    /// The line's form of a write.
    ///
    /// # Errors
    /// Reads, and what the protocol has no words for.
    pub fn from_store_op(op: &StoreOp) -> Result<Op, String> {
        let text = |jid: &BareJid| jid.as_str().to_owned();
        Ok(match op {
            StoreOp::CreateAccount {
                account,
                credentials,
            } => Op::Create {
                account: text(account),
                keys: Keys::of(credentials),
                roster: Vec::new(),
                blocked: Vec::new(),
                documents: Vec::new(),
                offline: Vec::new(),
            },
            StoreOp::CreateWhole { whole } => {
                let (roster, documents) = (whole.data.roster.iter(), whole.documents.iter());
                let offline = whole.offline.iter().map(|stanza| lossless(stanza));
                let blocked = whole.data.blocked.iter();
                Op::Create {
                    account: text(&whole.account),
                    keys: Keys::of(&whole.credentials),
                    roster: roster.map(Contact::of).collect::<Result<_, _>>()?,
                    blocked: blocked.map(|jid| jid.as_ref().into()).collect(),
                    documents: documents.map(Text::of).collect::<Result<_, _>>()?,
                    offline: offline.collect::<Result<_, _>>()?,
                }
            }
            StoreOp::SetCredentials {
                account,
                credentials,
                ..
            } => Op::SetKeys {
                account: text(account),
                keys: Keys::of(credentials),
            },
            StoreOp::DeleteAccount { account } => Op::Delete {
                account: text(account),
            },
            StoreOp::RemoveUserAgents {
                account,
                which: None,
            } => Op::Revoke {
                account: text(account),
            },
            other => return Err(format!("The admin socket does not offer {other:?}.")),
        })
    }

    /// The operation on the store of a server for `domain`.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub fn into_store_op(self, domain: &str) -> Result<StoreOp, String> {
        Ok(match self {
            Op::Create {
                account,
                keys,
                roster,
                blocked,
                documents,
                offline,
            } => {
                let account = account_of(&account, domain)?;
                if let Some(local) = account.local() {
                    check_new_local(local)
                        .map_err(|error| format!("{local:?} is no new name: {error}."))?;
                }
                let mut whole = WholeAccount::new(account, keys.read()?);
                let roster = roster.into_iter().map(Contact::read);
                whole.data.roster = roster.collect::<Result<_, _>>()?;
                whole.data.blocked = blocked.into_iter().map(String::into).collect();
                let documents = documents.into_iter().map(Text::read);
                whole.documents = documents.collect::<Result<_, _>>()?;
                let offline = offline.into_iter();
                whole.offline = offline.map(|stanza| stanza.into_bytes().into()).collect();
                let whole = Box::new(whole);
                StoreOp::CreateWhole { whole }
            }
            Op::SetKeys { account, keys } => {
                let credentials = keys.read()?;
                if !credentials.has_any() {
                    return Err("New keys are those of at least one hash.".into());
                }
                StoreOp::SetCredentials {
                    account: account_of(&account, domain)?,
                    credentials: Box::new(credentials),
                    keeps: None,
                }
            }
            Op::Delete { account } => StoreOp::DeleteAccount {
                account: account_of(&account, domain)?,
            },
            Op::Revoke { account } => StoreOp::RemoveUserAgents {
                account: account_of(&account, domain)?,
                which: None,
            },
        })
    }
}

impl Contact {
    fn of(item: &RosterItem) -> Result<Contact, String> {
        Ok(Contact {
            contact: item.contact.as_str().to_owned(),
            name: item.name.as_ref().into(),
            groups: item
                .groups
                .iter()
                .map(|group| group.as_ref().into())
                .collect(),
            subscription: item.subscription.as_str().into(),
            ask: item.ask,
            approved: item.approved,
            pending: item.pending_in.as_deref().map(lossless).transpose()?,
            hidden: !item.listed,
        })
    }

    fn read(self) -> Result<RosterItem, String> {
        Ok(RosterItem {
            name: self.name.into(),
            groups: self
                .groups
                .into_iter()
                .map(String::into_boxed_str)
                .collect(),
            subscription: subscription_of(&self.subscription)?,
            ask: self.ask,
            approved: self.approved,
            pending_in: self.pending.map(|stanza| stanza.into_bytes().into()),
            listed: !self.hidden,
            ..RosterItem::new(parse(&self.contact)?)
        })
    }
}

impl Text {
    fn of((space, key, bytes): &Document) -> Result<Text, String> {
        Ok(Text {
            space: space_name(*space).into(),
            key: key.as_ref().into(),
            text: lossless(bytes)?,
        })
    }

    fn read(self) -> Result<Document, String> {
        let bytes = self.text.into_bytes().into();
        Ok((space_of(&self.space)?, self.key.into(), bytes))
    }
}

fn parse(text: &str) -> Result<BareJid, String> {
    BareJid::parse(text).map_err(|error| format!("{text:?} is no bare JID: {error}."))
}

fn account_of(text: &str, domain: &str) -> Result<BareJid, String> {
    let account = parse(text)?;
    if account.local().is_none() || account.domain() != domain {
        return Err(format!(
            "{text:?} is no account of {domain}, which this server serves."
        ));
    }
    Ok(account)
}

/// Stanzas and documents are text: nothing else comes through the parser.
fn lossless(bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes);
    text.map(str::to_owned)
        .map_err(|_| "The admin socket takes UTF-8 only.".into())
}

fn space_name(space: Space) -> &'static str {
    match space {
        Space::Private => "private",
        Space::Vcard => "vcard",
        Space::Activity => "activity",
        Space::Archiving => "archiving",
        Space::Push => "push",
    }
}

fn space_of(text: &str) -> Result<Space, String> {
    let found = Space::ALL
        .into_iter()
        .find(|space| space_name(*space) == text);
    found.ok_or_else(|| format!("{text:?} is no kind of document."))
}

fn subscription_of(text: &str) -> Result<Subscription, String> {
    Subscription::parse(text)
        .ok_or_else(|| format!("{text:?} is no subscription; none, to, from and both are."))
}

impl Keys {
    fn of(credentials: &Credentials) -> Keys {
        let Credentials {
            sha1,
            sha256,
            sha512,
        } = credentials;
        let key = |key: &ScramKey| Key {
            salt: hex(&key.salt),
            iterations: key.iterations,
            stored_key: hex(&key.stored_key),
            server_key: hex(&key.server_key),
        };
        Keys {
            sha1: sha1.as_ref().map(key),
            sha256: sha256.as_ref().map(key),
            sha512: sha512.as_ref().map(key),
        }
    }

    fn read(self) -> Result<Credentials, String> {
        let Keys {
            sha1,
            sha256,
            sha512,
        } = self;
        let read = |key: Option<Key>, size: usize| key.map(|key| key.read(size)).transpose();
        Ok(Credentials {
            sha1: read(sha1, 20)?,
            sha256: read(sha256, 32)?,
            sha512: read(sha512, 64)?,
        })
    }
}

impl Key {
    fn read(self, size: usize) -> Result<ScramKey, String> {
        let octets =
            |text: &str| unhex(text).ok_or_else(|| format!("{text:?} is not hexadecimal."));
        let key = ScramKey {
            salt: octets(&self.salt)?,
            iterations: self.iterations,
            stored_key: octets(&self.stored_key)?,
            server_key: octets(&self.server_key)?,
        };
        if key.stored_key.len() != size || key.server_key.len() != size {
            return Err(format!("A key of this hash has {size} bytes."));
        }
        if key.iterations == 0 || key.salt.is_empty() {
            return Err("A key needs a salt and at least one iteration.".into());
        }
        Ok(key)
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// The octets that a text in hexadecimal says.
pub fn unhex(text: &str) -> Option<Box<[u8]>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}
