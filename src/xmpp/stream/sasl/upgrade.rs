//! Keys for another hash, made of what a client has salted itself (XEP-0480 3).

use super::Mechanism;
use super::hash::Hash;
use crate::port::Credentials;

/// Whether an account has no key for the hash of a SCRAM mechanism.
pub fn lacks_key(mechanism: Mechanism, credentials: &Credentials) -> bool {
    Hash::of(mechanism).is_some_and(|hash| hash.slot(credentials).is_none())
}

/// Whether each of an account's keys is still there: what has proved them proves them yet.
pub fn has_kept(prior: &Credentials, now: &Credentials) -> bool {
    let all = [Hash::Sha1, Hash::Sha256, Hash::Sha512];
    all.iter().all(|hash| {
        let key = hash.slot(prior);
        key.is_none() || key == hash.slot(now)
    })
}

/// An account's keys with one more, for the hash of a SCRAM mechanism: that of a SaltedPassword
/// (RFC 5802 3). `None` where it is not as long as the hash, or the account has such a key.
pub fn upgraded(
    mechanism: Mechanism,
    credentials: &Credentials,
    salted: &[u8],
    salt: &[u8],
    iterations: u32,
) -> Option<Credentials> {
    let hash = Hash::of(mechanism).filter(|hash| hash.size() == salted.len())?;
    if !lacks_key(mechanism, credentials) {
        return None;
    }
    let mut credentials = credentials.clone();
    *hash.slot_mut(&mut credentials) = Some(hash.keys(salted, salt, iterations));
    Some(credentials)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::sasl::{SALT_SIZE, derive_credentials};

    const ROUNDS: u32 = 3;

    #[test]
    fn the_keys_are_those_of_the_password_and_none_that_is_there_is_replaced() {
        let salts = [[1; SALT_SIZE], [2; SALT_SIZE], [3; SALT_SIZE]];
        let all = derive_credentials("secret", &salts, ROUNDS).unwrap();
        for (mechanism, hash, salt) in [
            (Mechanism::ScramSha1, Hash::Sha1, &salts[0]),
            (Mechanism::ScramSha256, Hash::Sha256, &salts[1]),
            (Mechanism::ScramSha512, Hash::Sha512, &salts[2]),
        ] {
            let mut fewer = all.clone();
            *hash.slot_mut(&mut fewer) = None;
            let salted = hash.salted("secret", salt, ROUNDS);
            assert!(lacks_key(mechanism, &fewer) && !lacks_key(mechanism, &all));
            let more = |of, salted: &[u8]| upgraded(mechanism, of, salted, salt, ROUNDS);
            assert_eq!(more(&fewer, &salted), Some(all.clone()));
            assert_eq!(more(&fewer, &salted[1..]), None);
            assert_eq!(more(&all, &salted), None);
            assert!(has_kept(&fewer, &all) && !has_kept(&all, &fewer));
        }
        let plain = upgraded(Mechanism::Plain, &Credentials::default(), &[], &[], 1);
        assert_eq!(plain, None);
    }
}
