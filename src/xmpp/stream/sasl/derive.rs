//! From passwords to SCRAM keys (RFC 5802 3): slow by design, so always a job of the pool.

use super::Password;
use super::hash::Hash;
use crate::port::{Credentials, ScramKey};
use stanza::jid::prepare_password;
use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Bytes of the salt of a new key.
pub const SALT_SIZE: usize = 16;

/// The salts of an account's three keys: for SHA-1, SHA-256 and SHA-512.
pub type Salts = [[u8; SALT_SIZE]; 3];

/// Bytes of a password: one part of an address, as in RFC 7622 3.
const PASSWORD_SIZE_MAX: usize = 1023;

/// The password cannot be used: empty, too long, or with characters that are never let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPassword;

impl fmt::Display for BadPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the password is empty, longer than {PASSWORD_SIZE_MAX} bytes, or has characters that \
             are not allowed in one; choose another"
        )
    }
}

impl std::error::Error for BadPassword {}

/// One derivation, ready to run anywhere.
pub struct DeriveJob {
    password: Zeroizing<String>,
    purpose: Purpose,
}

enum Purpose {
    /// Compare with this key; `known` is false where the key is made up.
    Verify {
        key: ScramKey,
        hash: Hash,
        known: bool,
    },
    Create {
        salts: Salts,
        iterations: u32,
    },
}

/// What a [`DeriveJob`] found.
#[derive(Debug)]
pub enum Derived {
    /// Whether the password is the account's.
    Verified(bool),
    /// The new keys.
    Credentials(Box<Credentials>),
}

impl DeriveJob {
    /// Compares a password with an account's keys. `None` (no such account) costs the same time:
    /// `iterations` is what an account of this server would take.
    pub fn verify_plain(
        password: Password,
        credentials: Option<&Credentials>,
        iterations: u32,
    ) -> DeriveJob {
        let stored = credentials.and_then(|keys| {
            let of = |hash: Hash| hash.key_of(keys).map(|key| (key.clone(), hash));
            of(Hash::Sha256)
                .or_else(|| of(Hash::Sha512))
                .or_else(|| of(Hash::Sha1))
        });
        let known = stored.is_some();
        let (key, hash) = stored.unwrap_or_else(|| (decoy(iterations), Hash::Sha256));
        DeriveJob {
            password: password.0,
            purpose: Purpose::Verify { key, hash, known },
        }
    }

    /// Makes the keys of a new password.
    ///
    /// # Errors
    /// A password that can be refused at once.
    pub fn new_credentials(
        password: &Password,
        salts: Salts,
        iterations: u32,
    ) -> Result<DeriveJob, BadPassword> {
        let password = prepare(password.as_str())?;
        Ok(DeriveJob {
            password,
            purpose: Purpose::Create { salts, iterations },
        })
    }

    /// What it costs: iterations of PBKDF2, of all its hashes.
    pub fn iterations(&self) -> u64 {
        match &self.purpose {
            Purpose::Verify { key, .. } => key.iterations.into(),
            Purpose::Create { salts, iterations } => u64::from(*iterations) * salts.len() as u64,
        }
    }

    /// Does the work: about a millisecond per hash at 4,096 rounds.
    pub fn run(self) -> Derived {
        match self.purpose {
            Purpose::Create { salts, iterations } => Derived::Credentials(Box::new(
                derive_prepared(&self.password, &salts, iterations),
            )),
            Purpose::Verify { key, hash, known } => {
                // A password that cannot be prepared is nobody's; it takes as long all the same.
                let prepared = prepare(&self.password);
                let possible = prepared.is_ok();
                let password = prepared.unwrap_or(self.password);
                let found = hash.derive(&password, &key.salt, key.iterations);
                let equal = bool::from(found.stored_key.ct_eq(&key.stored_key));
                Derived::Verified(equal & known & possible)
            }
        }
    }
}

impl fmt::Debug for DeriveJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeriveJob(..)")
    }
}

/// The keys of a password, for SHA-1, SHA-256 and SHA-512.
///
/// # Errors
/// A password that nobody could log in with.
pub fn derive_credentials(
    password: &str,
    salts: &Salts,
    iterations: u32,
) -> Result<Credentials, BadPassword> {
    Ok(derive_prepared(&prepare(password)?, salts, iterations))
}

/// Whether somebody could log in with a password.
///
/// # Errors
/// Nobody could.
pub fn check_password(password: &str) -> Result<(), BadPassword> {
    prepare(password).map(drop)
}

fn prepare(password: &str) -> Result<Zeroizing<String>, BadPassword> {
    if password.len() > PASSWORD_SIZE_MAX {
        return Err(BadPassword);
    }
    let prepared = Zeroizing::new(prepare_password(password).map_err(|_| BadPassword)?);
    if prepared.is_empty() {
        Err(BadPassword)
    } else {
        Ok(prepared)
    }
}

fn derive_prepared(password: &str, salts: &Salts, iterations: u32) -> Credentials {
    Credentials {
        sha1: Some(Hash::Sha1.derive(password, &salts[0], iterations)),
        sha256: Some(Hash::Sha256.derive(password, &salts[1], iterations)),
        sha512: Some(Hash::Sha512.derive(password, &salts[2], iterations)),
    }
}

/// A key that no password has; its salt need not be secret, for it is never shown.
fn decoy(iterations: u32) -> ScramKey {
    ScramKey {
        salt: Box::new([0; SALT_SIZE]),
        iterations: iterations.max(1),
        stored_key: Box::new([0; 32]),
        server_key: Box::new([0; 32]),
    }
}
