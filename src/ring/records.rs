//! The record layer of TLS 1.3 (RFC 8446 5) after a handshake that rustls made, on either side.
//!
//! Why: rustls' connection walks a state machine and some three kilobytes for each record; this is
//! two keys and two numbers. rustls still derives all keys, those of key updates too. Invariant: a
//! number is used once with a key, and the sequence numbers go on where rustls' handshake stopped.

use crate::aead::{Algorithm, Key, NONCE_SIZE, TAG_SIZE};
use crate::prefetch_at;
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, Error, ExtractedSecrets,
    HandshakeType, InvalidMessage, PeerMisbehaved, SupportedCipherSuite,
};
use std::fmt;
use std::mem::offset_of;

/// Bytes before each record.
pub const RECORD_HEADER_SIZE: usize = 5;

/// Plain bytes that fit into one record.
pub const FRAGMENT_SIZE_MAX: usize = 1 << 14;

/// Bytes that encryption adds to a fragment: content type and tag (RFC 8446 5.2).
const EXPANSION: usize = 1 + TAG_SIZE;

/// Encrypted bytes of a record at most, padding included (RFC 8446 5.2).
const ENCRYPTED_SIZE_MAX: usize = FRAGMENT_SIZE_MAX + 256;

/// Records in a row that may bring no bytes: key updates, padding, warnings.
const BARREN_RECORDS_MAX: u8 = 32;

/// A whole KeyUpdate that asks for none in return (RFC 8446 4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// The type of a message that offers a session to resume (RFC 8446 4.6.1).
const NEW_SESSION_TICKET: u8 = 4;

/// Whose end of the connection this is, by rustls' name for it.
pub trait Side {
    /// Whether it is a client, which is offered sessions to resume; it takes none.
    const IS_CLIENT: bool;
}

impl Side for ServerConnectionData {
    const IS_CLIENT: bool = false;
}

impl Side for ClientConnectionData {
    const IS_CLIENT: bool = true;
}

/// Why a connection cannot go on.
#[derive(Clone, Debug, PartialEq)]
pub enum RecordError {
    /// What rustls calls it.
    Protocol(Error),
    /// A handshake message in pieces after the handshake; nobody sends such.
    Fragmented,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordError::Protocol(error) => error.fmt(f),
            RecordError::Fragmented => f.write_str("a handshake message in pieces"),
        }
    }
}

impl std::error::Error for RecordError {}

/// One direction of a connection: how its records are protected.
struct Protection {
    key: Key,
    iv: [u8; NONCE_SIZE],
    /// Of the next record.
    sequence: u64,
}

impl Protection {
    fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<Protection, Error> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Algorithm::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Algorithm::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (Algorithm::ChaCha20Poly1305, key, iv)
            }
            _ => return Err(Error::General("a suite of an unknown kind".into())),
        };
        let unusable = || Error::General("keys of a wrong size".into());
        Ok(Protection {
            key: Key::new(algorithm, key.as_ref()).map_err(|_| unusable())?,
            iv: iv.as_ref().try_into().map_err(|_| unusable())?,
            sequence,
        })
    }

    /// The nonce of the next record (RFC 8446 5.3).
    fn nonce(&mut self) -> [u8; NONCE_SIZE] {
        let mut nonce = self.iv;
        for (byte, count) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= count;
        }
        self.sequence += 1;
        nonce
    }

    /// Appends `fragment`, of at most [`FRAGMENT_SIZE_MAX`] bytes, as one record.
    fn seal(&mut self, kind: ContentType, fragment: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let header = header(fragment.len() + EXPANSION);
        let nonce = self.nonce();
        let start = out.len();
        out.extend_from_slice(&header);
        let sealed = self.key.seal(&nonce, &header, fragment, kind.into(), out);
        sealed.map_err(|_| {
            out.truncate(start);
            Error::EncryptError
        })
    }

    /// Decrypts a whole record in place: its content type and its bytes.
    fn open<'r>(&mut self, record: &'r mut [u8]) -> Result<(ContentType, &'r [u8]), Error> {
        let (header, sealed) = record
            .split_first_chunk_mut::<RECORD_HEADER_SIZE>()
            .ok_or(Error::DecryptError)?;
        let nonce = self.nonce();
        let plain = self
            .key
            .open(&nonce, header, sealed)
            .map_err(|_| Error::DecryptError)?;
        // RFC 8446 5.4: zeros behind the content type are padding, and nothing but zeros is wrong.
        let end = plain.iter().rposition(|byte| *byte != 0);
        let Some(end) = end else {
            return Err(unexpected(ContentType::ApplicationData));
        };
        if end > FRAGMENT_SIZE_MAX {
            return Err(Error::PeerSentOversizedRecord);
        }
        Ok((plain[end].into(), &plain[..end]))
    }
}

/// What stands before `size` encrypted bytes.
fn header(size: usize) -> [u8; RECORD_HEADER_SIZE] {
    let [high, low] = (size as u16).to_be_bytes();
    [ContentType::ApplicationData.into(), 3, 3, high, low]
}

/// Both directions of a connection: with all keys 1.2 KB. What is asked for beside a key stands
/// first.
#[repr(C)]
pub struct Records<S> {
    /// The peer asked for new keys of ours; they come before our next bytes.
    renew: bool,
    /// Records in a row without bytes.
    barren: u8,
    /// Records that may be sealed with one key.
    sealed_max: u64,
    /// What makes the next keys.
    keys: Box<KernelConnection<S>>,
    opener: Protection,
    sealer: Protection,
}

/// What [`Records::open`] came to.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of whole records.
    pub consumed: usize,
    /// The peer said `close_notify`.
    pub closed: bool,
}

impl<S: Side> Records<S> {
    /// Has what opens the next record come. Nothing is read, so that nothing waits for the way to
    /// it, and there may be something else.
    pub fn prefetch_opening(this: *const Self) {
        let opener = this.cast::<u8>().wrapping_add(offset_of!(Self, opener));
        prefetch_at(opener.cast::<Protection>());
    }

    /// As [`Records::prefetch_opening`], of what seals the next record.
    pub fn prefetch_sealing(this: *const Self) {
        let sealer = this.cast::<u8>().wrapping_add(offset_of!(Self, sealer));
        prefetch_at(sealer.cast::<Protection>());
    }

    /// Goes on where the handshake ended.
    ///
    /// # Errors
    /// A suite that this layer does not know.
    pub fn new(secrets: &ExtractedSecrets, keys: KernelConnection<S>) -> Result<Records<S>, Error> {
        let SupportedCipherSuite::Tls13(suite) = keys.negotiated_cipher_suite() else {
            return Err(Error::General("not TLS 1.3".into()));
        };
        Ok(Records {
            opener: Protection::new(secrets.rx.0, &secrets.rx.1)?,
            sealer: Protection::new(secrets.tx.0, &secrets.tx.1)?,
            keys: Box::new(keys),
            // One remains for the KeyUpdate.
            sealed_max: suite.common.confidentiality_limit.saturating_sub(1),
            renew: false,
            barren: 0,
        })
    }

    /// Decrypts all whole records of `incoming` in place and hands their bytes to `plain`. After
    /// an error the alert for the peer, if one is due, is in `out`.
    ///
    /// # Errors
    /// Records that break the protocol, and fatal alerts.
    pub fn open(
        &mut self,
        incoming: &mut [u8],
        plain: &mut impl FnMut(&[u8]),
        out: &mut Vec<u8>,
    ) -> Result<Progress, RecordError> {
        let mut consumed = 0;
        let opened = loop {
            match self.open_one(&mut incoming[consumed..], plain) {
                Ok(Some(0)) => {
                    break Ok(Progress {
                        consumed,
                        closed: true,
                    });
                }
                Ok(Some(size)) => consumed += size,
                Ok(None) => {
                    break Ok(Progress {
                        consumed,
                        closed: false,
                    });
                }
                Err(error) => break Err(error),
            }
        };
        if let Err(RecordError::Protocol(error)) = &opened
            && let Some(alert) = alert_for(error)
        {
            // What cannot even be sealed leaves the peer with the end of the connection.
            let _ = self.alert(FATAL, alert, out);
        }
        opened
    }

    /// One record: its size, 0 for the peer's goodbye, nothing where it is not whole.
    fn open_one(
        &mut self,
        incoming: &mut [u8],
        plain: &mut impl FnMut(&[u8]),
    ) -> Result<Option<usize>, RecordError> {
        let &mut [kind, _, _, high, low, ..] = incoming else {
            return Ok(None);
        };
        if ContentType::from(kind) != ContentType::ApplicationData {
            return Err(unexpected(kind.into()).into());
        }
        let size = usize::from(u16::from_be_bytes([high, low]));
        if size > ENCRYPTED_SIZE_MAX {
            return Err(Error::PeerSentOversizedRecord.into());
        }
        let size = RECORD_HEADER_SIZE + size;
        let Some(record) = incoming.get_mut(..size) else {
            return Ok(None);
        };
        let (kind, content) = self.opener.open(record)?;
        if kind == ContentType::ApplicationData && !content.is_empty() {
            self.barren = 0;
            plain(content);
            return Ok(Some(size));
        }
        self.barren += 1;
        if self.barren > BARREN_RECORDS_MAX {
            return Err(Error::PeerMisbehaved(PeerMisbehaved::TooManyEmptyFragments).into());
        }
        match kind {
            ContentType::ApplicationData => Ok(Some(size)),
            ContentType::Alert => match *content {
                [_, code] => match code.into() {
                    AlertDescription::CloseNotify => Ok(Some(0)),
                    AlertDescription::UserCanceled => Ok(Some(size)),
                    alert => Err(Error::AlertReceived(alert).into()),
                },
                _ => Err(malformed(InvalidMessage::TrailingData("Alert")).into()),
            },
            ContentType::Handshake => self.on_handshake(content).map(|()| Some(size)),
            kind => Err(unexpected(kind).into()),
        }
    }

    /// After the handshake a client may only update its keys (RFC 8446 4.6); a server may offer
    /// sessions, too.
    fn on_handshake(&mut self, content: &[u8]) -> Result<(), RecordError> {
        let message = match S::IS_CLIENT {
            true => past_tickets(content),
            false => content,
        };
        if message.is_empty() && !content.is_empty() {
            return Ok(());
        }
        let (kind, request) = match *message {
            [kind, 0, 0, 1, request] => (HandshakeType::from(kind), request),
            [kind, ..] if HandshakeType::from(kind) != HandshakeType::KeyUpdate => {
                return Err(unexpected(ContentType::Handshake).into());
            }
            [_, 0, 0, 1] | [_, 0, 0] | [_, 0] | [_] => return Err(RecordError::Fragmented),
            // Several messages where keys change, an odd size, or nothing.
            _ => return Err(unexpected(ContentType::Handshake).into()),
        };
        if kind != HandshakeType::KeyUpdate {
            return Err(unexpected(ContentType::Handshake).into());
        }
        match request {
            0 => {}
            1 => self.renew = true,
            _ => return Err(malformed(InvalidMessage::InvalidKeyUpdate).into()),
        }
        let (sequence, secrets) = self.keys.update_rx_secret()?;
        self.opener = Protection::new(sequence, &secrets)?;
        Ok(())
    }

    /// Has the keys renewed after `records` more, for tests of what takes years otherwise.
    #[doc(hidden)]
    pub fn renew_after(&mut self, records: u64) {
        self.sealed_max = self.sealer.sequence + records;
    }

    /// Encrypts `plain` and appends its records to `out`.
    ///
    /// # Errors
    /// New keys could not be made, which ends the connection.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        for fragment in plain.chunks(FRAGMENT_SIZE_MAX) {
            if self.renew || self.sealer.sequence >= self.sealed_max {
                self.renew_sealer(out)?;
            }
            self.sealer
                .seal(ContentType::ApplicationData, fragment, out)?;
        }
        Ok(())
    }

    fn renew_sealer(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.renew = false;
        self.sealer.seal(ContentType::Handshake, &KEY_UPDATE, out)?;
        let (sequence, secrets) = self.keys.update_tx_secret()?;
        self.sealer = Protection::new(sequence, &secrets)?;
        Ok(())
    }

    /// Appends our `close_notify`.
    ///
    /// # Errors
    /// It could not be encrypted.
    pub fn close_notify(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.alert(WARNING, AlertDescription::CloseNotify, out)
    }

    fn alert(
        &mut self,
        level: u8,
        alert: AlertDescription,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.sealer
            .seal(ContentType::Alert, &[level, alert.into()], out)
    }
}

/// Whether `bytes` begin with a whole record.
pub fn holds_record(bytes: &[u8]) -> bool {
    match bytes {
        [_, _, _, high, low, body @ ..] => {
            body.len() >= usize::from(u16::from_be_bytes([*high, *low]))
        }
        _ => false,
    }
}

/// What stands behind the whole offers of sessions that `messages` begin with.
fn past_tickets(mut messages: &[u8]) -> &[u8] {
    while let [NEW_SESSION_TICKET, sizes @ ..] = messages
        && let Some(([high, middle, low], rest)) = sizes.split_first_chunk()
        && let Some(next) = rest.get(u32::from_be_bytes([0, *high, *middle, *low]) as usize..)
    {
        messages = next;
    }
    messages
}

/// Levels of alerts (RFC 8446 6).
const WARNING: u8 = 1;
const FATAL: u8 = 2;

fn unexpected(got_type: ContentType) -> Error {
    Error::InappropriateMessage {
        expect_types: vec![ContentType::ApplicationData],
        got_type,
    }
}

fn malformed(message: InvalidMessage) -> Error {
    Error::InvalidMessage(message)
}

impl From<Error> for RecordError {
    fn from(error: Error) -> RecordError {
        RecordError::Protocol(error)
    }
}

/// What the peer is told (RFC 8446 6.2); nothing where it is the peer that ended the connection.
fn alert_for(error: &Error) -> Option<AlertDescription> {
    Some(match error {
        Error::AlertReceived(_) => return None,
        Error::DecryptError => AlertDescription::BadRecordMac,
        Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
        Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate) => {
            AlertDescription::IllegalParameter
        }
        Error::InvalidMessage(_) => AlertDescription::DecodeError,
        Error::InappropriateMessage { .. } | Error::PeerMisbehaved(_) => {
            AlertDescription::UnexpectedMessage
        }
        _ => AlertDescription::InternalError,
    })
}
