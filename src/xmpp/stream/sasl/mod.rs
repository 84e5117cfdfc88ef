//! SASL of client streams (RFC 4422, RFC 6120 6): PLAIN, ANONYMOUS, SCRAM with and without -PLUS,
//! and tokens.
//!
//! Invariant: pure functions of what they are given. Nonces and salts are parameters, stored keys
//! come from the caller, and what is slow (PBKDF2) is a [`DeriveJob`] that never runs on a shard.
//!
//! The walk: [`decode_initial`], [`begin`]; then the connection moves to the account's home shard;
//! there [`Exchange::challenge`] and [`Exchange::finish`], or [`DeriveJob::verify_plain`].

mod anonymous;
mod derive;
mod hash;
mod offer;
mod plain;
mod scram;
mod token;
mod upgrade;

pub use derive::{
    BadPassword, DeriveJob, Derived, SALT_SIZE, Salts, check_password, derive_credentials,
};
pub use offer::Offer;
pub use scram::{Exchange, NONCE_SIZE};
pub use token::{TokenProof, TokenText};
pub use upgrade::{has_kept, lacks_key, upgraded};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stanza::jid::{BareJid, Jid};
use std::fmt;
use zeroize::Zeroizing;

/// Bytes of one decoded SASL message. JIDs and passwords have 1023 bytes a part; a nonce is short.
pub const MESSAGE_SIZE_MAX: usize = 8 << 10;

/// A mechanism that this server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// RFC 4505: an account for as long as the stream lives.
    Anonymous,
    /// RFC 4616.
    Plain,
    /// RFC 5802.
    ScramSha1,
    /// RFC 5802, bound to the TLS connection.
    ScramSha1Plus,
    /// RFC 7677.
    ScramSha256,
    /// RFC 7677, bound to the TLS connection.
    ScramSha256Plus,
    /// SCRAM with SHA-512.
    ScramSha512,
    /// SCRAM with SHA-512, bound to the TLS connection.
    ScramSha512Plus,
}

impl Mechanism {
    /// Every mechanism, the one to prefer first.
    pub const ALL: [Mechanism; 8] = [
        Mechanism::ScramSha512Plus,
        Mechanism::ScramSha256Plus,
        Mechanism::ScramSha1Plus,
        Mechanism::ScramSha512,
        Mechanism::ScramSha256,
        Mechanism::ScramSha1,
        Mechanism::Plain,
        Mechanism::Anonymous,
    ];

    /// Its registered name.
    pub fn as_str(self) -> &'static str {
        match self {
            Mechanism::Anonymous => "ANONYMOUS",
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha1 => "SCRAM-SHA-1",
            Mechanism::ScramSha1Plus => "SCRAM-SHA-1-PLUS",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
            Mechanism::ScramSha512Plus => "SCRAM-SHA-512-PLUS",
        }
    }

    /// The mechanism of this name, in whatever case.
    pub fn parse(name: &str) -> Option<Mechanism> {
        Mechanism::ALL
            .into_iter()
            .find(|known| known.as_str().eq_ignore_ascii_case(name))
    }

    /// Whether it proves a password.
    pub fn takes_password(self) -> bool {
        self != Mechanism::Anonymous
    }

    /// Whether it binds the exchange to the TLS connection.
    pub fn is_plus(self) -> bool {
        self.as_str().ends_with("-PLUS")
    }
}

/// Why an authentication failed (RFC 6120 6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslError {
    /// The client said `<abort/>`.
    Aborted,
    /// The account is locked.
    AccountDisabled,
    /// The password has run out.
    CredentialsExpired,
    /// The mechanism wants TLS first.
    EncryptionRequired,
    /// Not strict base64.
    IncorrectEncoding,
    /// The client wants to be somebody else than it authenticates as.
    InvalidAuthzid,
    /// Unknown, or not offered on this stream.
    InvalidMechanism,
    /// The message is not what the mechanism says it looks like.
    MalformedRequest,
    /// The account may not use so weak a mechanism.
    MechanismTooWeak,
    /// Unknown user, wrong password, wrong channel: never said which.
    NotAuthorized,
    /// Storage or the derivation pool could not answer; try later.
    TemporaryAuthFailure,
}

impl SaslError {
    /// The element inside `<failure/>`.
    pub fn condition(self) -> &'static str {
        match self {
            SaslError::Aborted => "aborted",
            SaslError::AccountDisabled => "account-disabled",
            SaslError::CredentialsExpired => "credentials-expired",
            SaslError::EncryptionRequired => "encryption-required",
            SaslError::IncorrectEncoding => "incorrect-encoding",
            SaslError::InvalidAuthzid => "invalid-authzid",
            SaslError::InvalidMechanism => "invalid-mechanism",
            SaslError::MalformedRequest => "malformed-request",
            SaslError::MechanismTooWeak => "mechanism-too-weak",
            SaslError::NotAuthorized => "not-authorized",
            SaslError::TemporaryAuthFailure => "temporary-auth-failure",
        }
    }
}

impl fmt::Display for SaslError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.condition())
    }
}

impl std::error::Error for SaslError {}

/// A password in clear: never printed, and wiped when dropped.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes a password as the user typed it.
    pub fn new(text: String) -> Password {
        Password(Zeroizing::new(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// What a client's first message says, found without any stored data, so that the connection can be
/// moved to the account's home shard before anything is looked up.
#[derive(Debug)]
pub enum First {
    /// Nothing yet: answer with an empty `<challenge/>` and call [`begin`] again with the response.
    Challenge,
    /// The caller chooses an account.
    Anonymous,
    /// To be verified by [`DeriveJob::verify_plain`].
    Plain {
        /// Who the client says it is.
        account: BareJid,
        /// What it says to prove it.
        password: Password,
    },
    /// To be continued by [`Exchange::challenge`] with the account's keys.
    NeedsCredentials {
        /// Who the client says it is.
        account: BareJid,
        /// The rest of the exchange.
        exchange: Exchange,
    },
}

/// Starts `mechanism` with the initial response: `None` where `<auth/>` was empty.
///
/// # Errors
/// What to answer in `<failure/>`: a mechanism that was not offered, or a message without sense.
pub fn begin(
    mechanism: Mechanism,
    initial: Option<&[u8]>,
    offer: &Offer<'_>,
) -> Result<First, SaslError> {
    offer.permit(mechanism)?;
    if initial.is_some_and(|message| message.len() > MESSAGE_SIZE_MAX) {
        return Err(SaslError::MalformedRequest);
    }
    match (mechanism, initial) {
        // RFC 4505 2: the message is a mere trace, so there is nothing to wait for.
        (Mechanism::Anonymous, trace) => anonymous::check(trace.unwrap_or_default()),
        (_, None) => Ok(First::Challenge),
        (Mechanism::Plain, Some(message)) => plain::parse(message, offer.domain()),
        (_, Some(message)) => scram::begin(mechanism, message, offer),
    }
}

/// Decodes the text of `<auth/>`: `None` where it is empty; `=` is the empty response.
///
/// # Errors
/// [`SaslError::IncorrectEncoding`] for anything but strict base64 (RFC 6120 6.4.2).
pub fn decode_initial(text: &[u8]) -> Result<Option<Vec<u8>>, SaslError> {
    if text.is_empty() {
        Ok(None)
    } else {
        decode(text).map(Some)
    }
}

/// Decodes the text of `<response/>`: nothing and `=` are both the empty response.
///
/// # Errors
/// [`SaslError::IncorrectEncoding`] for anything but strict base64 (RFC 6120 6.4.3).
pub fn decode(text: &[u8]) -> Result<Vec<u8>, SaslError> {
    if text == b"=" {
        return Ok(Vec::new());
    }
    decode_base64(text)
}

/// Decodes strict base64.
///
/// # Errors
/// [`SaslError::IncorrectEncoding`] for anything else.
pub fn decode_base64(text: &[u8]) -> Result<Vec<u8>, SaslError> {
    STANDARD
        .decode(text)
        .map_err(|_| SaslError::IncorrectEncoding)
}

/// Encodes what goes into `<challenge/>` and `<success/>`.
pub fn encode(message: &[u8]) -> String {
    STANDARD.encode(message)
}

/// The account that a name of the client's means: a local part of ours.
fn account_of(local: &str, domain: &str) -> Result<BareJid, SaslError> {
    // The separators would make the name mean another address once it is put before our domain.
    if local.is_empty() || local.contains(['@', '/']) {
        return Err(SaslError::NotAuthorized);
    }
    let whole = format!("{local}@{domain}");
    let jid = Jid::parse(&whole).map_err(|_| SaslError::NotAuthorized)?;
    Ok(jid.to_bare())
}

/// Refuses an authorization identity that is not the account itself: its local part or bare JID.
fn check_authzid(authzid: &str, account: &BareJid, domain: &str) -> Result<(), SaslError> {
    // RFC 6120 6.3.8: an absent one means the account.
    if authzid.is_empty() {
        return Ok(());
    }
    let named = if authzid.contains('@') {
        let jid = Jid::parse(authzid).map_err(|_| SaslError::InvalidAuthzid)?;
        if !jid.is_bare() {
            return Err(SaslError::InvalidAuthzid);
        }
        jid.to_bare()
    } else {
        account_of(authzid, domain).map_err(|_| SaslError::InvalidAuthzid)?
    };
    if named == *account {
        Ok(())
    } else {
        Err(SaslError::InvalidAuthzid)
    }
}

#[cfg(test)]
mod tests;
