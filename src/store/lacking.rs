//! Which SCRAM hashes some account has no key for, so that they are not offered to anybody.

use xmpp::port::Credentials;

/// Hashes for which at least one account has no key: their SCRAM mechanisms cannot be offered to
/// all. Once said it stays, also when those accounts go or get passwords.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lacking {
    /// SHA-1.
    pub sha1: bool,
    /// SHA-256.
    pub sha256: bool,
    /// SHA-512.
    pub sha512: bool,
}

impl Lacking {
    pub(crate) fn of(credentials: &Credentials) -> Lacking {
        Lacking {
            sha1: credentials.sha1.is_none(),
            sha256: credentials.sha256.is_none(),
            sha512: credentials.sha512.is_none(),
        }
    }

    pub(crate) fn or(self, other: Lacking) -> Lacking {
        Lacking {
            sha1: self.sha1 || other.sha1,
            sha256: self.sha256 || other.sha256,
            sha512: self.sha512 || other.sha512,
        }
    }

    pub(crate) fn to_record(self) -> [u8; 1] {
        [u8::from(self.sha1) | u8::from(self.sha256) << 1 | u8::from(self.sha512) << 2]
    }

    pub(crate) fn from_record(record: &[u8]) -> Lacking {
        let bits = record.first().copied().unwrap_or_default();
        Lacking {
            sha1: bits & 1 != 0,
            sha256: bits & 2 != 0,
            sha512: bits & 4 != 0,
        }
    }
}
