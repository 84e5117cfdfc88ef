//! The client's half of SCRAM with any of its hashes (RFC 5802, RFC 7677), plain and bound to a
//! channel.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

/// The hash of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// Of SCRAM-SHA-1.
    Sha1,
    /// Of SCRAM-SHA-256.
    Sha256,
    /// Of SCRAM-SHA-512.
    Sha512,
}

impl Hash {
    /// What a password becomes with a salt (RFC 5802 3, SaltedPassword).
    pub fn salted(self, password: &str, salt: &[u8], rounds: u32) -> Vec<u8> {
        let mut salted = vec![0; self.digest(b"").len()];
        match self {
            Hash::Sha1 => {
                pbkdf2::pbkdf2_hmac::<Sha1>(password.as_bytes(), salt, rounds, &mut salted);
            }
            Hash::Sha256 => {
                pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), salt, rounds, &mut salted);
            }
            Hash::Sha512 => {
                pbkdf2::pbkdf2_hmac::<Sha512>(password.as_bytes(), salt, rounds, &mut salted);
            }
        }
        salted
    }

    fn digest(self, message: &[u8]) -> Vec<u8> {
        match self {
            Hash::Sha1 => Sha1::digest(message).to_vec(),
            Hash::Sha256 => Sha256::digest(message).to_vec(),
            Hash::Sha512 => Sha512::digest(message).to_vec(),
        }
    }

    fn hmac(self, key: &[u8], message: &[u8]) -> Vec<u8> {
        match self {
            Hash::Sha1 => sign::<Hmac<Sha1>>(key, message),
            Hash::Sha256 => sign::<Hmac<Sha256>>(key, message),
            Hash::Sha512 => sign::<Hmac<Sha512>>(key, message),
        }
    }
}

fn sign<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any size");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

/// An exchange between its first and its last message.
#[derive(Debug)]
pub struct Scram {
    hash: Hash,
    password: String,
    gs2: String,
    binding: Vec<u8>,
    first_bare: String,
    nonce: String,
    signature: Vec<u8>,
    /// The server's hash of what it advertised (XEP-0474), once it is there.
    pub advertised: Option<String>,
}

impl Scram {
    /// Starts with SHA-256: answers the exchange and the client's first message.
    pub fn start(
        user: &str,
        password: &str,
        nonce: &str,
        exporter: Option<&[u8]>,
    ) -> (Scram, String) {
        Scram::start_with(Hash::Sha256, user, password, nonce, exporter)
    }

    /// The same with any hash.
    pub fn start_with(
        hash: Hash,
        user: &str,
        password: &str,
        nonce: &str,
        exporter: Option<&[u8]>,
    ) -> (Scram, String) {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        let gs2 = if exporter.is_some() {
            "p=tls-exporter,,"
        } else {
            "n,,"
        };
        let first_bare = format!("n={user},r={nonce}");
        let first = format!("{gs2}{first_bare}");
        let scram = Scram {
            hash,
            password: password.into(),
            gs2: gs2.into(),
            binding: exporter.unwrap_or_default().into(),
            first_bare,
            nonce: nonce.into(),
            signature: Vec::new(),
            advertised: None,
        };
        (scram, STANDARD.encode(first))
    }

    /// Answers the server's challenge.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn respond(&mut self, challenge: &str) -> Result<String, String> {
        let challenge = decode(challenge)?;
        let field = |name: &str| {
            let found = challenge
                .split(',')
                .find_map(|field| field.strip_prefix(name));
            found.ok_or_else(|| format!("no {name} in {challenge}"))
        };
        let (nonce, salt, rounds) = (field("r=")?, field("s=")?, field("i=")?);
        self.advertised = field("h=").ok().map(str::to_owned);
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(format!("the server's nonce does not extend ours: {nonce}"));
        }
        let salt = STANDARD.decode(salt).map_err(|error| error.to_string())?;
        let rounds = rounds.parse().map_err(|_| format!("odd rounds {rounds}"))?;
        let hash = self.hash;
        let salted = hash.salted(&self.password, &salt, rounds);
        let mut bound = self.gs2.clone().into_bytes();
        bound.extend_from_slice(&self.binding);
        let without_proof = format!("c={},r={nonce}", STANDARD.encode(bound));
        let message = format!("{},{challenge},{without_proof}", self.first_bare);
        let client_key = hash.hmac(&salted, b"Client Key");
        let proof = hash.hmac(&hash.digest(&client_key), message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&proof).map(|(a, b)| a ^ b).collect();
        let server_key = hash.hmac(&salted, b"Server Key");
        self.signature = hash.hmac(&server_key, message.as_bytes());
        Ok(STANDARD.encode(format!("{without_proof},p={}", STANDARD.encode(proof))))
    }

    /// Whether the server proved that it knows the account.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(&self, last: &str) -> Result<(), String> {
        let last = decode(last)?;
        let expected = format!("v={}", STANDARD.encode(&self.signature));
        if last == expected {
            Ok(())
        } else {
            Err(format!("{last} is not {expected}"))
        }
    }
}

/// The hash of what a server advertised, as it tells it (XEP-0474).
pub fn advertised(mechanisms: &[&str], bindings: &[&str]) -> String {
    let (mut mechanisms, mut bindings) = (mechanisms.to_vec(), bindings.to_vec());
    mechanisms.sort_unstable();
    bindings.sort_unstable();
    let lists = match bindings.is_empty() {
        true => mechanisms.join("\x1e"),
        false => format!("{}\x1f{}", mechanisms.join("\x1e"), bindings.join("\x1e")),
    };
    STANDARD.encode(Sha256::digest(lists))
}

/// What a password becomes with a salt as it stands on the wire, as it stands there (XEP-0480 3).
///
/// # Errors
/// What is wrong with the salt.
pub fn salted(hash: Hash, password: &str, salt: &str, rounds: u32) -> Result<String, String> {
    let salt = STANDARD.decode(salt).map_err(|error| error.to_string())?;
    Ok(STANDARD.encode(hash.salted(password, &salt, rounds)))
}

/// PLAIN's only message (RFC 4616).
pub fn plain(user: &str, password: &str) -> String {
    STANDARD.encode(format!("\0{user}\0{password}"))
}

fn decode(text: &str) -> Result<String, String> {
    let bytes = STANDARD.decode(text).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| error.to_string())
}
