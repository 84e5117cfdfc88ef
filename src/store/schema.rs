//! What lies in the embedded store's keys and values.
//!
//! Keys begin with the virtual shard (2 bytes, big-endian) and the account's bare JID, so that an
//! account is one range and the number of shards can change without a migration. A roster item adds
//! a zero byte, which no JID contains, and the contact. Values are a version byte followed by an
//! rkyv archive that is validated before it is read.

use crate::embedded::Key;
use rkyv::rancor::Error as RkyvError;
use rkyv::{Archive, Deserialize, Serialize};
use stanza::jid::{BareJid, virtual_shard};
use xmpp::port::{Credentials, RosterItem, ScramKey, Subscription};

/// The layout that this build writes, and the newest that it reads.
pub const SCHEMA: u32 = 12;

/// The version byte of every record here, from schema 1 on.
const RECORD_V1: u8 = 1;

/// That of roster items, from schema 6 on.
const ROSTER_ITEM_V2: u8 = 2;

/// A key and its record.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);

/// Bytes of the virtual shard before the JID.
const SHARD_SIZE: usize = 2;

const LISTED: u8 = 1;
const ASK: u8 = 2;
const APPROVED: u8 = 4;

/// Why a record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable(pub(crate) Box<str>);

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) fn unreadable(what: impl Into<Box<str>>) -> Unreadable {
    Unreadable(what.into())
}

#[derive(Archive, Serialize, Deserialize)]
struct ScramKeyV1 {
    salt: Box<[u8]>,
    iterations: u32,
    stored_key: Box<[u8]>,
    server_key: Box<[u8]>,
}

#[derive(Archive, Serialize, Deserialize)]
struct CredentialsV1 {
    sha1: Option<ScramKeyV1>,
    sha256: Option<ScramKeyV1>,
    sha512: Option<ScramKeyV1>,
}

#[derive(Archive, Serialize, Deserialize)]
struct RosterItemV1 {
    name: Box<str>,
    groups: Vec<Box<str>>,
    subscription: u8,
    flags: u8,
    pending_in: Option<Box<[u8]>>,
}

#[derive(Archive, Serialize, Deserialize)]
struct RosterItemV2 {
    shown: RosterItemV1,
    changed: u64,
    prior: u64,
}

impl From<ScramKey> for ScramKeyV1 {
    fn from(key: ScramKey) -> ScramKeyV1 {
        let ScramKey {
            salt,
            iterations,
            stored_key,
            server_key,
        } = key;
        ScramKeyV1 {
            salt,
            iterations,
            stored_key,
            server_key,
        }
    }
}

impl From<ScramKeyV1> for ScramKey {
    fn from(key: ScramKeyV1) -> ScramKey {
        let ScramKeyV1 {
            salt,
            iterations,
            stored_key,
            server_key,
        } = key;
        ScramKey {
            salt,
            iterations,
            stored_key,
            server_key,
        }
    }
}

/// The key of an account's record, and the beginning of every other key that it owns.
pub fn account_key(account: &BareJid) -> Vec<u8> {
    let jid = account.as_str();
    // Room for the zero byte and a contact of ordinary length: most keys are extended once.
    let mut key = Vec::with_capacity(SHARD_SIZE + jid.len() + 48);
    key.extend_from_slice(&virtual_shard(jid).to_be_bytes());
    key.extend_from_slice(jid.as_bytes());
    key
}

/// The account that a key of [`account_key`] names.
///
/// # Errors
/// The key was not written by this module.
pub fn account_of_key(key: &[u8]) -> Result<BareJid, Unreadable> {
    jid_of(key.get(SHARD_SIZE..).unwrap_or_default())
}

/// What all keys of an account's roster items begin with.
pub fn roster_prefix(account: &BareJid) -> Vec<u8> {
    let mut key = account_key(account);
    key.push(0);
    key
}

/// The same, for the keys of what its sessions write.
pub(crate) fn session_prefix(account: &BareJid) -> Key {
    let jid = account.as_str();
    let mut key = Key::from_slice(&virtual_shard(jid).to_be_bytes());
    key.extend_from_slice(jid.as_bytes());
    key.push(0);
    key
}

/// The key of one roster item.
pub fn roster_key(account: &BareJid, contact: &BareJid) -> Vec<u8> {
    let mut key = roster_prefix(account);
    key.extend_from_slice(contact.as_str().as_bytes());
    key
}

pub(crate) fn jid_of(bytes: &[u8]) -> Result<BareJid, Unreadable> {
    let text = std::str::from_utf8(bytes).map_err(|_| unreadable("a key is not UTF-8"))?;
    BareJid::parse(text).map_err(|_| unreadable(format!("a key names no JID: {text:?}")))
}

/// The record of an account's keys.
///
/// # Errors
/// The archive could not be written, which means that memory ran out.
pub fn encode_credentials(credentials: Credentials) -> Result<Vec<u8>, Unreadable> {
    let Credentials {
        sha1,
        sha256,
        sha512,
    } = credentials;
    let record = CredentialsV1 {
        sha1: sha1.map(ScramKeyV1::from),
        sha256: sha256.map(ScramKeyV1::from),
        sha512: sha512.map(ScramKeyV1::from),
    };
    rkyv::api::high::to_bytes_in::<_, RkyvError>(&record, vec![RECORD_V1])
        .map_err(|error| unreadable(format!("cannot archive credentials: {error}")))
}

/// Reads what [`encode_credentials`] wrote.
///
/// # Errors
/// The record is torn, garbage or of a version that this build does not know.
pub fn decode_credentials(record: &[u8]) -> Result<Credentials, Unreadable> {
    let archive = archive_of(record, "credentials")?;
    let read: CredentialsV1 = rkyv::from_bytes::<CredentialsV1, RkyvError>(archive)
        .map_err(|error| unreadable(format!("credentials are damaged: {error}")))?;
    Ok(Credentials {
        sha1: read.sha1.map(ScramKey::from),
        sha256: read.sha256.map(ScramKey::from),
        sha512: read.sha512.map(ScramKey::from),
    })
}

/// The record of a roster item; its contact is in the key.
///
/// # Errors
/// The archive could not be written, which means that memory ran out.
pub fn encode_roster_item(item: RosterItem) -> Result<Vec<u8>, Unreadable> {
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    let shown = RosterItemV1 {
        flags: flag(item.listed, LISTED) | flag(item.ask, ASK) | flag(item.approved, APPROVED),
        name: item.name,
        groups: item.groups,
        subscription: item.subscription as u8,
        pending_in: item.pending_in,
    };
    let record = RosterItemV2 {
        shown,
        changed: item.changed,
        prior: item.prior,
    };
    rkyv::api::high::to_bytes_in::<_, RkyvError>(&record, vec![ROSTER_ITEM_V2])
        .map_err(|error| unreadable(format!("cannot archive a roster item: {error}")))
}

/// Reads one roster item from its key, `prefix_size` bytes of which are [`roster_prefix`], and its
/// record.
///
/// # Errors
/// The record is torn, garbage or of a version that this build does not know.
pub fn decode_roster_item(
    key: &[u8],
    prefix_size: usize,
    record: &[u8],
) -> Result<RosterItem, Unreadable> {
    let contact = jid_of(key.get(prefix_size..).unwrap_or_default())?;
    let damaged = |error| unreadable(format!("a roster item is damaged: {error}"));
    let (read, changed, prior) = match record.split_first() {
        Some((&ROSTER_ITEM_V2, archive)) => {
            let read = rkyv::from_bytes::<RosterItemV2, RkyvError>(archive).map_err(damaged)?;
            (read.shown, read.changed, read.prior)
        }
        // Before schema 6 versions had no numbers.
        _ => {
            let archive = archive_of(record, "a roster item")?;
            let read = rkyv::from_bytes::<RosterItemV1, RkyvError>(archive).map_err(damaged)?;
            (read, 0, 0)
        }
    };
    let subscription = match read.subscription {
        0 => Subscription::None,
        1 => Subscription::To,
        2 => Subscription::From,
        3 => Subscription::Both,
        other => {
            return Err(unreadable(format!(
                "a roster item has the subscription {other}"
            )));
        }
    };
    if read.flags & !(LISTED | ASK | APPROVED) != 0 {
        return Err(unreadable(format!(
            "a roster item has the flags {:#x}",
            read.flags
        )));
    }
    Ok(RosterItem {
        contact,
        name: read.name,
        groups: read.groups,
        subscription,
        ask: read.flags & ASK != 0,
        approved: read.flags & APPROVED != 0,
        pending_in: read.pending_in,
        listed: read.flags & LISTED != 0,
        changed,
        prior,
    })
}

fn archive_of<'a>(record: &'a [u8], what: &str) -> Result<&'a [u8], Unreadable> {
    match record.split_first() {
        Some((&RECORD_V1, archive)) => Ok(archive),
        Some((version, _)) => Err(unreadable(format!(
            "{what} have the unknown record version {version}"
        ))),
        None => Err(unreadable(format!("{what} are an empty record"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> BareJid {
        BareJid::parse(text).unwrap()
    }

    fn key(fill: u8, size: usize) -> ScramKey {
        ScramKey {
            salt: vec![fill; 16].into(),
            iterations: 4096,
            stored_key: vec![fill; size].into(),
            server_key: vec![!fill; size].into(),
        }
    }

    fn some_credentials() -> Credentials {
        Credentials {
            sha1: Some(key(1, 20)),
            sha256: None,
            sha512: Some(key(3, 64)),
        }
    }

    fn some_item() -> RosterItem {
        RosterItem {
            name: "Jül".into(),
            groups: vec!["Friends".into(), "".into()],
            subscription: Subscription::To,
            ask: true,
            approved: true,
            pending_in: Some(b"<presence/>"[..].into()),
            changed: 7,
            prior: 6,
            ..RosterItem::new(jid("juliet@capulet.example"))
        }
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let record = encode_credentials(some_credentials()).unwrap();
        assert_eq!(decode_credentials(&record), Ok(some_credentials()));

        let romeo = jid("romeo@montague.example");
        let (key, prefix) = (
            roster_key(&romeo, &some_item().contact),
            roster_prefix(&romeo),
        );
        let record = encode_roster_item(some_item()).unwrap();
        assert!(key.starts_with(&prefix));
        assert_eq!(
            decode_roster_item(&key, prefix.len(), &record),
            Ok(some_item())
        );
    }

    #[test]
    fn a_key_starts_with_the_virtual_shard_and_names_its_account() {
        let romeo = jid("romeo@montague.example");
        let key = account_key(&romeo);
        assert_eq!(key[..2], virtual_shard(romeo.as_str()).to_be_bytes());
        assert_eq!(account_of_key(&key), Ok(romeo));
        assert!(account_of_key(&[0]).is_err());
        assert!(account_of_key(&[0, 1, 0xff]).is_err());
    }

    #[test]
    fn no_account_owns_a_key_of_one_whose_name_it_begins() {
        // `a@b` and `a@b.example` may share a shard; the zero byte keeps their rosters apart.
        let (short, long) = (jid("a@b"), jid("a@b.example"));
        let prefix = roster_prefix(&short);
        let mut foreign = prefix[..SHARD_SIZE].to_vec();
        foreign.extend_from_slice(&roster_key(&long, &short)[SHARD_SIZE..]);
        assert!(!foreign.starts_with(&prefix));
    }

    #[test]
    fn every_torn_or_flipped_record_is_an_answer_and_no_panic() {
        let romeo = jid("romeo@montague.example");
        let (key, prefix) = (
            roster_key(&romeo, &some_item().contact),
            roster_prefix(&romeo),
        );
        let credentials = encode_credentials(some_credentials()).unwrap();
        let item = encode_roster_item(some_item()).unwrap();
        for size in 0..credentials.len() {
            assert!(
                decode_credentials(&credentials[..size]).is_err(),
                "{size} bytes were read"
            );
        }
        for size in 0..item.len() {
            let _any_answer = decode_roster_item(&key, prefix.len(), &item[..size]);
        }
        for (index, bit) in (0..item.len()).flat_map(|index| (0..8).map(move |bit| (index, bit))) {
            let mut flipped = item.clone();
            flipped[index] ^= 1 << bit;
            let _any_answer = decode_roster_item(&key, prefix.len(), &flipped);
        }
        assert!(
            decode_credentials(&[2, 0, 0]).is_err(),
            "an unknown version was read"
        );
        assert!(decode_roster_item(&key, prefix.len(), &[]).is_err());
    }
}
