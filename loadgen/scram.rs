//! The client's side of SCRAM (RFC 5802, RFC 7677), with derived keys remembered: PBKDF2 is paid
//! once for each (password, salt, iterations), before anything is measured.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// The most rounds a server may ask of us; beyond it the server is broken or hostile.
pub const ITERATIONS_MAX: u32 = 1_000_000;

/// Which hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hash {
    /// SCRAM-SHA-1.
    Sha1,
    /// SCRAM-SHA-256.
    Sha256,
}

impl Hash {
    fn hmac(self) -> hmac::Algorithm {
        match self {
            Hash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => hmac::HMAC_SHA256,
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Hash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => &digest::SHA256,
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Hash::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Hash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
        }
    }
}

/// What a derivation depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recipe {
    /// The hash.
    pub hash: Hash,
    /// The password, prepared (ours are ASCII).
    pub password: Arc<str>,
    /// The salt.
    pub salt: Vec<u8>,
    /// PBKDF2 rounds.
    pub iterations: u32,
}

impl Recipe {
    /// Derives the keys: slow.
    pub fn derive(&self) -> Keys {
        let size = self.hash.digest().output_len();
        let mut salted = vec![0u8; size];
        let rounds = NonZeroU32::new(self.iterations).expect("checked when the challenge was read");
        let password = self.password.as_bytes();
        pbkdf2::derive(
            self.hash.pbkdf2(),
            rounds,
            &self.salt,
            password,
            &mut salted,
        );
        let salted = hmac::Key::new(self.hash.hmac(), &salted);
        let client = hmac::sign(&salted, b"Client Key").as_ref().to_vec();
        let stored = digest::digest(self.hash.digest(), &client);
        let stored = hmac::Key::new(self.hash.hmac(), stored.as_ref());
        let server = hmac::sign(&salted, b"Server Key");
        let server = hmac::Key::new(self.hash.hmac(), server.as_ref());
        Keys {
            client,
            stored,
            server,
        }
    }
}

/// The keys that a proof needs.
pub struct Keys {
    client: Vec<u8>,
    stored: hmac::Key,
    server: hmac::Key,
}

/// The keys derived so far, shared by all threads.
#[derive(Default)]
pub struct KeyCache {
    known: Mutex<HashMap<Recipe, Arc<Keys>>>,
}

impl KeyCache {
    /// The keys, where they are known.
    pub fn find(&self, recipe: &Recipe) -> Option<Arc<Keys>> {
        self.known
            .lock()
            .expect("nobody panics while holding it")
            .get(recipe)
            .cloned()
    }

    /// Remembers keys.
    pub fn insert(&self, recipe: Recipe, keys: Arc<Keys>) {
        self.known
            .lock()
            .expect("nobody panics while holding it")
            .insert(recipe, keys);
    }
}

/// One exchange between the first message and the end.
#[derive(Debug)]
pub struct Exchange {
    hash: Hash,
    first_bare: String,
    nonce: String,
    server_first: String,
    server_signature: Vec<u8>,
}

impl Exchange {
    /// Starts with a nonce that must be new each time.
    pub fn new(hash: Hash, user: &str, nonce: String) -> Exchange {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        Exchange {
            hash,
            first_bare: format!("n={user},r={nonce}"),
            nonce,
            server_first: String::new(),
            server_signature: Vec::new(),
        }
    }

    /// The client-first-message; no channel binding.
    pub fn first(&self) -> String {
        format!("n,,{}", self.first_bare)
    }

    /// Reads the server-first-message; gives what to derive.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn challenge(&mut self, text: &str, password: &Arc<str>) -> Result<Recipe, &'static str> {
        let mut parts = text.split(',');
        let nonce = parts
            .next()
            .and_then(|part| part.strip_prefix("r="))
            .ok_or("no nonce")?;
        let salt = parts
            .next()
            .and_then(|part| part.strip_prefix("s="))
            .ok_or("no salt")?;
        let rounds = parts
            .next()
            .and_then(|part| part.strip_prefix("i="))
            .ok_or("no rounds")?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the server's nonce does not continue ours");
        }
        let iterations = rounds
            .parse::<u32>()
            .map_err(|_| "unreadable iteration count")?;
        if !(1..=ITERATIONS_MAX).contains(&iterations) {
            return Err("absurd iteration count");
        }
        let salt = BASE64.decode(salt).map_err(|_| "unreadable salt")?;
        self.nonce = nonce.to_owned();
        self.server_first = text.to_owned();
        Ok(Recipe {
            hash: self.hash,
            password: password.clone(),
            salt,
            iterations,
        })
    }

    /// The client-final-message.
    pub fn finish(&mut self, keys: &Keys) -> String {
        let without_proof = format!("c=biws,r={}", self.nonce);
        let message = format!("{},{},{without_proof}", self.first_bare, self.server_first);
        let signature = hmac::sign(&keys.stored, message.as_bytes());
        let proof: Vec<u8> = keys
            .client
            .iter()
            .zip(signature.as_ref())
            .map(|(key, sign)| key ^ sign)
            .collect();
        self.server_signature = hmac::sign(&keys.server, message.as_bytes())
            .as_ref()
            .to_vec();
        format!("{without_proof},p={}", BASE64.encode(proof))
    }

    /// What the server must sign with, for a test that plays the server.
    #[cfg(test)]
    pub(crate) fn server_signature(&self) -> &[u8] {
        &self.server_signature
    }

    /// Whether the server-final-message proves that the server knows the keys.
    pub fn verify(&self, text: &str) -> bool {
        !self.server_signature.is_empty()
            && text
                .split(',')
                .next()
                .and_then(|part| part.strip_prefix("v="))
                .and_then(|signature| BASE64.decode(signature).ok())
                .is_some_and(|signature| signature == self.server_signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(hash: Hash, nonce: &str, server_first: &str) -> (String, Exchange) {
        let password: Arc<str> = "pencil".into();
        let mut exchange = Exchange::new(hash, "user", nonce.into());
        let recipe = exchange.challenge(server_first, &password).unwrap();
        let keys = recipe.derive();
        (exchange.finish(&keys), exchange)
    }

    #[test]
    fn the_example_of_rfc_5802_comes_out() {
        let (finish, exchange) = run(
            Hash::Sha1,
            "fyko+d2lbbFgONRv9qkxdawL",
            "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
        );
        assert_eq!(
            finish,
            "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="
        );
        assert!(exchange.verify("v=rmF9pqV8S7suAoZWja4dJRkFsKQ="));
        assert!(!exchange.verify("v=rmF9pqV8S7suAoZWja4dJRkFsKA="));
    }

    #[test]
    fn the_example_of_rfc_7677_comes_out() {
        let (finish, exchange) = run(
            Hash::Sha256,
            "rOprNGfwEbeRWgbNEkqO",
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        );
        assert_eq!(
            finish,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(exchange.verify("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
    }

    #[test]
    fn a_challenge_that_is_not_ours_is_refused() {
        let password: Arc<str> = "p".into();
        let mut exchange = Exchange::new(Hash::Sha1, "u", "abc".into());
        for bad in [
            "r=xyz,s=QSXC,i=1",
            "r=abc,s=QSXC,i=1",
            "r=abcd,s=QSXC,i=0",
            "r=abcd,s=!,i=1",
            "",
        ] {
            assert!(exchange.challenge(bad, &password).is_err(), "{bad}");
        }
        assert!(
            exchange
                .challenge("r=abcd,s=QSXC,i=99999999", &password)
                .is_err()
        );
    }
}
