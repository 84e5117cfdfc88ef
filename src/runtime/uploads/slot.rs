//! What stands in the URLs of files, and in the tokens that allow to put one.
//!
//! Invariant: who does not know the server's secret can make no token, nor a URL that leads to a
//! file; and who knows URLs cannot tell from them which are of one account.

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign, verify};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use std::fmt::Write as _;

/// Bytes that name an account, or a file.
const NAME_SIZE: usize = 16;
/// Bytes of a token before the type of its file.
const FIXED_SIZE: usize = 16;
/// Bytes of a MAC.
const MAC_SIZE: usize = 32;

/// An account, under a name that nobody else knows.
pub type User = [u8; NAME_SIZE];

/// A file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Whose it is.
    pub user: User,
    /// Which of his: nobody can guess it.
    pub number: [u8; NAME_SIZE],
}

/// What a token allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    /// Until when, in seconds since 1970.
    pub until_s: u64,
    /// The bytes that the file has.
    pub size: u64,
    /// Its type, or nothing.
    pub content_type: Box<str>,
}

/// What is derived of the server's secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    user: [u8; MAC_SIZE],
    mask: [u8; MAC_SIZE],
    token: [u8; MAC_SIZE],
}

/// Nothing that is secret.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl Keys {
    /// The keys of a server with this secret.
    pub fn new(secret: &[u8; 32]) -> Keys {
        let key = |purpose: &str| mac(secret, &[b"upload: ", purpose.as_bytes()]);
        Keys {
            user: key("user"),
            mask: key("mask"),
            token: key("token"),
        }
    }

    /// The name of an account, prepared.
    pub fn user(&self, account: &str) -> User {
        first(&mac(&self.user, &[account.as_bytes()]))
    }

    /// What stands for a file in its URL.
    pub fn address(&self, file: &FileId) -> String {
        let masked = self.masked(&file.number, &file.user);
        URL_SAFE_NO_PAD.encode([file.number, masked].concat())
    }

    /// The file that a URL means.
    pub fn file(&self, address: &str) -> Option<FileId> {
        let bytes = URL_SAFE_NO_PAD.decode(address).ok()?;
        let (number, masked) = bytes.split_at_checked(NAME_SIZE)?;
        let (number, masked) = (number.try_into().ok()?, masked.try_into().ok()?);
        let user = self.masked(&number, &masked);
        Some(FileId { user, number })
    }

    /// A name as it is in the URL of this file, and back.
    fn masked(&self, number: &[u8; NAME_SIZE], name: &User) -> User {
        let mask = mac(&self.mask, &[number]);
        std::array::from_fn(|index| name[index] ^ mask[index])
    }

    /// What allows to put a file of this name.
    pub fn token(&self, file: &FileId, name: &str, permit: &Permit) -> String {
        let mut bytes = permit.fixed().to_vec();
        bytes.extend_from_slice(permit.content_type.as_bytes());
        let said = said(file, name, permit);
        let mac = sign(&Key::new(HMAC_SHA256, &self.token), &said);
        bytes.extend_from_slice(mac.as_ref());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What a token allows for a file of this name, if it is one of ours.
    pub fn permit(&self, file: &FileId, name: &str, token: &[u8]) -> Option<Permit> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (rest, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC_SIZE)?)?;
        let (fixed, content_type) = rest.split_at_checked(FIXED_SIZE)?;
        let (until_s, size) = fixed.split_at(FIXED_SIZE / 2);
        let permit = Permit {
            until_s: u64::from_be_bytes(until_s.try_into().ok()?),
            size: u64::from_be_bytes(size.try_into().ok()?),
            content_type: std::str::from_utf8(content_type).ok()?.into(),
        };
        let key = Key::new(HMAC_SHA256, &self.token);
        verify(&key, &said(file, name, &permit), mac).ok()?;
        Some(permit)
    }
}

impl Permit {
    fn fixed(&self) -> [u8; FIXED_SIZE] {
        let mut fixed = [0; FIXED_SIZE];
        fixed[..8].copy_from_slice(&self.until_s.to_be_bytes());
        fixed[8..].copy_from_slice(&self.size.to_be_bytes());
        fixed
    }
}

/// What a token's MAC is of: everything before the name has its length, so nothing is two things.
fn said(file: &FileId, name: &str, permit: &Permit) -> Vec<u8> {
    let type_size = (permit.content_type.len() as u64).to_be_bytes();
    [
        &file.user,
        &file.number,
        &permit.fixed()[..],
        &type_size,
        permit.content_type.as_bytes(),
        name.as_bytes(),
    ]
    .concat()
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; MAC_SIZE] {
    let tag = sign(&Key::new(HMAC_SHA256, key), &parts.concat());
    tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn first(mac: &[u8; MAC_SIZE]) -> User {
    std::array::from_fn(|index| mac[index])
}

/// A name as it is on the disk.
pub(super) fn hex(name: &[u8; NAME_SIZE]) -> String {
    name.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// The name that is on the disk so, if it is one.
pub(super) fn unhex(text: &str) -> Option<[u8; NAME_SIZE]> {
    let is_ours = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
    if text.len() != 2 * NAME_SIZE || !text.bytes().all(is_ours) {
        return None;
    }
    let mut name = [0; NAME_SIZE];
    for (index, byte) in name.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> FileId {
        FileId {
            user: [7; NAME_SIZE],
            number: [9; NAME_SIZE],
        }
    }

    fn permit() -> Permit {
        Permit {
            until_s: 1_700_000_000,
            size: 4_711,
            content_type: "image/png".into(),
        }
    }

    #[test]
    fn a_url_leads_to_its_file_and_tells_nobody_whose_it_is() {
        let keys = Keys::new(&[1; 32]);
        let address = keys.address(&file());
        assert_eq!(keys.file(&address), Some(file()));
        let other = FileId {
            number: [8; NAME_SIZE],
            ..file()
        };
        let halves = [address, keys.address(&other)].map(|address| {
            let bytes = URL_SAFE_NO_PAD.decode(address).expect("it is ours");
            bytes[NAME_SIZE..].to_vec()
        });
        assert_ne!(halves[0], halves[1]);
        assert!(!halves.iter().any(|half| half == &file().user));
        for foreign in ["", "AAAA", "..", "%2e%2e", &"A".repeat(44), "ä"] {
            assert_eq!(keys.file(foreign), None, "{foreign:?}");
        }
    }

    #[test]
    fn a_token_is_good_for_what_it_was_made_for_and_for_nothing_else() {
        let keys = Keys::new(&[1; 32]);
        let token = keys.token(&file(), "a.png", &permit());
        let with = |keys: &Keys, file: &FileId, name: &str, token: &str| {
            keys.permit(file, name, token.as_bytes())
        };
        assert_eq!(with(&keys, &file(), "a.png", &token), Some(permit()));
        assert_eq!(with(&keys, &file(), "b.png", &token), None, "a name");
        let mut other = file();
        other.number[3] ^= 1;
        assert_eq!(with(&keys, &other, "a.png", &token), None, "a file");
        let keys_of_another = Keys::new(&[2; 32]);
        assert_eq!(with(&keys_of_another, &file(), "a.png", &token), None);
        // Each byte of it counts, and each that is not there.
        let bytes = URL_SAFE_NO_PAD.decode(&token).expect("it is ours");
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 0x40;
            let changed = URL_SAFE_NO_PAD.encode(changed);
            assert_eq!(with(&keys, &file(), "a.png", &changed), None, "{index}");
            let cut = URL_SAFE_NO_PAD.encode(&bytes[..index]);
            assert_eq!(with(&keys, &file(), "a.png", &cut), None, "{index}");
        }
    }

    #[test]
    fn a_name_and_a_type_cannot_stand_for_each_other() {
        let keys = Keys::new(&[1; 32]);
        let of = |content_type: &str, name: &str| {
            let permit = Permit {
                content_type: content_type.into(),
                ..permit()
            };
            keys.token(&file(), name, &permit)
        };
        let mac = |token: &str| {
            let bytes = URL_SAFE_NO_PAD.decode(token).expect("it is ours");
            bytes[bytes.len() - MAC_SIZE..].to_vec()
        };
        assert_ne!(mac(&of("a/b", "cd")), mac(&of("a/bc", "d")));
    }

    #[test]
    fn names_on_the_disk_are_read_back_and_no_others() {
        let name = [0, 1, 0xab, 255, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        assert_eq!(unhex(&hex(&name)), Some(name));
        for foreign in ["", "owner", &"A".repeat(32), &"+1".repeat(16)] {
            assert_eq!(unhex(foreign), None, "{foreign}");
        }
    }
}
