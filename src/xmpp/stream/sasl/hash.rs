//! The three hash functions of SCRAM, chosen at run time.

use crate::port::{Credentials, ScramKey};
use crate::stream::sasl::Mechanism;
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use sha1::{Digest, Sha1};
use sha2::{Sha256, Sha512};
use std::ops::Deref;
use zeroize::Zeroizing;

/// Bytes of the longest hash.
const HASH_SIZE_MAX: usize = 64;

/// One of SCRAM's hash functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha1,
    Sha256,
    Sha512,
}

/// A hash, a key or a signature; wiped when dropped.
#[derive(Clone)]
pub(super) struct Octets {
    bytes: Zeroizing<[u8; HASH_SIZE_MAX]>,
    size: usize,
}

impl Deref for Octets {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.size]
    }
}

impl Octets {
    fn of(source: &[u8]) -> Octets {
        let mut bytes = Zeroizing::new([0; HASH_SIZE_MAX]);
        bytes[..source.len()].copy_from_slice(source);
        Octets {
            bytes,
            size: source.len(),
        }
    }

    /// Combines with as many bytes of `other`.
    pub(super) fn xor(mut self, other: &[u8]) -> Octets {
        debug_assert_eq!(self.size, other.len());
        self.bytes
            .iter_mut()
            .zip(other)
            .for_each(|(mine, theirs)| *mine ^= theirs);
        self
    }
}

impl Hash {
    /// The hash of a SCRAM mechanism.
    pub(super) fn of(mechanism: Mechanism) -> Option<Hash> {
        match mechanism {
            Mechanism::Anonymous | Mechanism::Plain => None,
            Mechanism::ScramSha1 | Mechanism::ScramSha1Plus => Some(Hash::Sha1),
            Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => Some(Hash::Sha256),
            Mechanism::ScramSha512 | Mechanism::ScramSha512Plus => Some(Hash::Sha512),
        }
    }

    /// Bytes of its output.
    pub(super) fn size(self) -> usize {
        match self {
            Hash::Sha1 => 20,
            Hash::Sha256 => 32,
            Hash::Sha512 => 64,
        }
    }

    /// Where an account's key for this hash is.
    pub(super) fn slot(self, credentials: &Credentials) -> &Option<ScramKey> {
        match self {
            Hash::Sha1 => &credentials.sha1,
            Hash::Sha256 => &credentials.sha256,
            Hash::Sha512 => &credentials.sha512,
        }
    }

    pub(super) fn slot_mut(self, credentials: &mut Credentials) -> &mut Option<ScramKey> {
        match self {
            Hash::Sha1 => &mut credentials.sha1,
            Hash::Sha256 => &mut credentials.sha256,
            Hash::Sha512 => &mut credentials.sha512,
        }
    }

    /// The account's key for this hash, if it is one that can be compared with.
    pub(super) fn key_of(self, credentials: &Credentials) -> Option<&ScramKey> {
        self.slot(credentials).as_ref().filter(|key| {
            key.stored_key.len() == self.size()
                && key.server_key.len() == self.size()
                && key.iterations > 0
        })
    }

    /// H(data).
    pub(super) fn digest(self, data: &[u8]) -> Octets {
        match self {
            Hash::Sha1 => Octets::of(&Sha1::digest(data)),
            Hash::Sha256 => Octets::of(&Sha256::digest(data)),
            Hash::Sha512 => Octets::of(&Sha512::digest(data)),
        }
    }

    /// HMAC(key, the parts joined).
    pub(super) fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Octets {
        match self {
            Hash::Sha1 => sign::<Hmac<Sha1>>(key, parts),
            Hash::Sha256 => sign::<Hmac<Sha256>>(key, parts),
            Hash::Sha512 => sign::<Hmac<Sha512>>(key, parts),
        }
    }

    /// Hi(password, salt, iterations) of RFC 5802 2.2.
    fn stretch(self, password: &[u8], salt: &[u8], iterations: u32) -> Octets {
        let mut out = Octets {
            bytes: Zeroizing::new([0; HASH_SIZE_MAX]),
            size: self.size(),
        };
        let bytes = &mut out.bytes[..self.size()];
        match self {
            Hash::Sha1 => pbkdf2::pbkdf2_hmac::<Sha1>(password, salt, iterations, bytes),
            Hash::Sha256 => pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, bytes),
            Hash::Sha512 => pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, bytes),
        }
        out
    }

    /// The keys of a prepared password (RFC 5802 3). Slow: `iterations` rounds of HMAC.
    pub(super) fn derive(self, password: &str, salt: &[u8], iterations: u32) -> ScramKey {
        let salted = self.stretch(password.as_bytes(), salt, iterations);
        self.keys(&salted, salt, iterations)
    }

    /// The keys of a salted password.
    pub(super) fn keys(self, salted: &[u8], salt: &[u8], iterations: u32) -> ScramKey {
        let client_key = self.hmac(salted, &[b"Client Key"]);
        ScramKey {
            salt: salt.into(),
            iterations,
            stored_key: (*self.digest(&client_key)).into(),
            server_key: (*self.hmac(salted, &[b"Server Key"])).into(),
        }
    }
}

fn sign<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Octets {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    Octets::of(&mac.finalize().into_bytes())
}

#[cfg(test)]
impl Hash {
    /// What a client derives first: SaltedPassword.
    pub(super) fn salted(self, password: &str, salt: &[u8], rounds: u32) -> Octets {
        self.stretch(password.as_bytes(), salt, rounds)
    }

    /// What a client derives: ClientKey and StoredKey.
    pub(super) fn client_keys(self, password: &str, salt: &[u8], rounds: u32) -> (Octets, Octets) {
        let salted = self.stretch(password.as_bytes(), salt, rounds);
        let client_key = self.hmac(&salted, &[b"Client Key"]);
        let stored_key = self.digest(&client_key);
        (client_key, stored_key)
    }
}
