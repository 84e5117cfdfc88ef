//! What a managed session is, as a record: see [`crate::sessions`].

use rkyv::rancor::Error as RkyvError;
use rkyv::{Archive, Deserialize, Serialize};
use xmpp::port::SavedSession;

use crate::embedded::Trouble;

/// The version byte of a record, from schema 10 on.
const SAVED_VERSION: u8 = 2;

/// That of one that names no strangers.
const BEFORE_STRANGERS: u8 = 1;

const AVAILABLE: u8 = 1;
const INTERESTED: u8 = 2;
const BLOCKING: u8 = 4;
/// Was available at some time; from schema 8 on.
const SEEN: u8 = 8;
/// Asked for copies of messages. A build that does not know of them passes it over.
const GETS_COPIES: u8 = 16;

#[derive(Archive, Serialize, Deserialize)]
struct SavedSessionV1 {
    resource: Box<str>,
    priority: i8,
    flags: u8,
    presence: Option<(Box<[u8]>, u32)>,
    directed: Vec<Box<str>>,
}

#[derive(Archive, Serialize, Deserialize)]
struct SavedSessionV2 {
    own: SavedSessionV1,
    strangers: Vec<Box<str>>,
}

pub(crate) fn saved_record(saved: SavedSession) -> Result<Vec<u8>, Trouble> {
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    let own = SavedSessionV1 {
        resource: saved.resource,
        priority: saved.priority,
        flags: flag(saved.available, AVAILABLE)
            | flag(saved.was_seen, SEEN)
            | flag(saved.interested, INTERESTED)
            | flag(saved.blocking, BLOCKING)
            | flag(saved.gets_copies, GETS_COPIES),
        presence: saved.presence,
        directed: saved.directed,
    };
    let strangers = saved.strangers;
    let record = SavedSessionV2 { own, strangers };
    rkyv::api::high::to_bytes_in::<_, RkyvError>(&record, vec![SAVED_VERSION])
        .map_err(|error| format!("cannot archive a session: {error}").into())
}

pub(crate) fn read_saved(record: &[u8]) -> Result<SavedSession, Trouble> {
    let damaged = |error| Trouble::from(format!("a session is damaged: {error}"));
    let (read, strangers) = match record.split_first() {
        Some((&SAVED_VERSION, archive)) => {
            let read = rkyv::from_bytes::<SavedSessionV2, RkyvError>(archive).map_err(damaged)?;
            (read.own, read.strangers)
        }
        Some((&BEFORE_STRANGERS, archive)) => {
            let read = rkyv::from_bytes::<SavedSessionV1, RkyvError>(archive).map_err(damaged)?;
            (read, Vec::new())
        }
        _ => return Err("a session has an unknown record version".into()),
    };
    Ok(SavedSession {
        resource: read.resource,
        priority: read.priority,
        available: read.flags & AVAILABLE != 0,
        was_seen: read.flags & (SEEN | AVAILABLE) != 0,
        interested: read.flags & INTERESTED != 0,
        blocking: read.flags & BLOCKING != 0,
        gets_copies: read.flags & GETS_COPIES != 0,
        presence: read.presence,
        directed: read.directed,
        strangers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::sessions::saved;
    use crate::crash::octets;

    /// What schemas up to 9 wrote of a session.
    const SAVED_1: &str = "
        01 6f726368617264 3c70726573656e63652f3e 726f6f6d406d75632e6578616d706c652f6e69636b
        6a756c69657440636170756c65742e6578616d706c65 d5ffffff15000000e2ffffff16000000b3ffffff
        07000000f90f01afffffff0b0000000a000000d9ffffff02000000";

    #[test]
    fn a_record_from_before_strangers_were_named_is_read_without_any() {
        let record = octets(SAVED_1);
        let expected = SavedSession {
            strangers: Vec::new(),
            gets_copies: false,
            ..saved("orchard")
        };
        assert_eq!(read_saved(&record).ok(), Some(expected));
        assert!(read_saved(&[3]).is_err());
    }
}
