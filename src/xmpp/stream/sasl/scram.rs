//! SCRAM, the server's side (RFC 5802, RFC 7677), with channel binding (RFC 9266, RFC 5929).
//!
//! Invariant: an unknown user, a user without a key for this hash and a wrong password take the
//! same steps, in the same time, to the same `not-authorized` after the client's proof.

use super::hash::Hash;
use super::{First, Mechanism, Offer, SaslError, account_of, check_authzid, decode, encode};
use crate::port::{Credentials, ScramKey};
use stanza::jid::BareJid;
use std::borrow::Cow;
use std::fmt;
use subtle::{Choice, ConstantTimeEq};

/// Random bytes of the server's part of the nonce.
pub const NONCE_SIZE: usize = 18;

/// Bytes of the salt shown for unknown users: as long as those of accounts made here.
const FAKE_SALT_SIZE: usize = super::SALT_SIZE;

/// Bytes of a client's nonce.
const CLIENT_NONCE_SIZE_MAX: usize = 512;

/// A SCRAM exchange after the client's first message. Small, so that it can travel with its stream.
pub struct Exchange(Box<State>);

struct State {
    hash: Hash,
    account: BareJid,
    /// The channel binding input (RFC 5802 7, `c=`): the GS2 header, then the channel's bytes.
    binding: Box<[u8]>,
    /// What the server advertised on the stream, see [`Offer::advertised`].
    advertised: String,
    /// `client-first-message-bare`, and after the challenge `,` and `server-first-message`.
    transcript: String,
    /// The client's nonce, after the challenge the whole one.
    nonce: String,
    /// What to compare the proof with, after the challenge.
    key: Option<ScramKey>,
    /// Whether `key` is an account's, not made up.
    known: Choice,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Exchange({:?} of {})",
            self.0.hash,
            self.0.account.as_str()
        )
    }
}

/// Reads `client-first-message` (RFC 5802 7).
pub(super) fn begin(
    mechanism: Mechanism,
    message: &[u8],
    offer: &Offer<'_>,
) -> Result<First, SaslError> {
    let hash = Hash::of(mechanism).ok_or(SaslError::InvalidMechanism)?;
    let text = text_of(message)?;
    let (flag, rest) = text.split_once(',').ok_or(SaslError::MalformedRequest)?;
    let (authzid, bare) = rest.split_once(',').ok_or(SaslError::MalformedRequest)?;
    let channel = channel(mechanism, flag, offer)?;
    let (username, nonce) = names(bare)?;

    let account = account_of(&unescape(username)?, offer.domain())?;
    if !authzid.is_empty() {
        let authzid = authzid
            .strip_prefix("a=")
            .ok_or(SaslError::MalformedRequest)?;
        check_authzid(&unescape(authzid)?, &account, offer.domain())?;
    }
    let gs2_header = &text[..text.len() - bare.len()];
    let exchange = Exchange(Box::new(State {
        hash,
        account: account.clone(),
        binding: [gs2_header.as_bytes(), channel].concat().into(),
        advertised: offer.advertised(),
        transcript: bare.to_owned(),
        nonce: nonce.to_owned(),
        key: None,
        known: Choice::from(0),
    }));
    Ok(First::NeedsCredentials { account, exchange })
}

/// The bytes that the GS2 flag binds to; empty without binding.
fn channel<'a>(mechanism: Mechanism, flag: &str, offer: &Offer<'a>) -> Result<&'a [u8], SaslError> {
    match (flag, flag.strip_prefix("p=")) {
        ("n", _) if !mechanism.is_plus() => Ok(&[]),
        // RFC 5802 6: the client could bind but believes that we cannot; where we said that we can,
        // somebody between us removed it.
        ("y", _) if !mechanism.is_plus() && offer.offers_plus() => Err(SaslError::NotAuthorized),
        ("y", _) if !mechanism.is_plus() => Ok(&[]),
        (_, Some(name)) if mechanism.is_plus() => {
            offer.binding(name).ok_or(SaslError::MalformedRequest)
        }
        _ => Err(SaslError::MalformedRequest),
    }
}

/// The user name, still escaped, and the nonce of `client-first-message-bare`.
fn names(bare: &str) -> Result<(&str, &str), SaslError> {
    let mut fields = bare.split(',');
    // A mandatory extension (`m=`) stands first, and nobody has defined one: refused by this too.
    let username = fields.next().and_then(|field| field.strip_prefix("n="));
    let nonce = fields.next().and_then(|field| field.strip_prefix("r="));
    let (Some(username), Some(nonce)) = (username, nonce) else {
        return Err(SaslError::MalformedRequest);
    };
    let printable = nonce.bytes().all(|byte| byte.is_ascii_graphic());
    if username.is_empty() || nonce.is_empty() || !printable {
        return Err(SaslError::MalformedRequest);
    }
    if nonce.len() > CLIENT_NONCE_SIZE_MAX || !fields.all(is_extension) {
        return Err(SaslError::MalformedRequest);
    }
    Ok((username, nonce))
}

/// An optional extension that we may overlook: a letter other than `m`, `=`, a value.
fn is_extension(field: &str) -> bool {
    let bytes = field.as_bytes();
    bytes.len() > 2 && bytes[0].is_ascii_alphabetic() && bytes[0] != b'm' && bytes[1] == b'='
}

/// RFC 5802 5.1: `=2C` is a comma, `=3D` an equals sign, any other `=` an error.
fn unescape(name: &str) -> Result<Cow<'_, str>, SaslError> {
    if !name.contains('=') {
        return Ok(Cow::Borrowed(name));
    }
    let mut parts = name.split('=');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (sign, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(SaslError::MalformedRequest),
        };
        plain.push(sign);
        plain.push_str(rest);
    }
    Ok(Cow::Owned(plain))
}

fn text_of(message: &[u8]) -> Result<&str, SaslError> {
    let text = std::str::from_utf8(message).map_err(|_| SaslError::MalformedRequest)?;
    if text.contains('\0') {
        Err(SaslError::MalformedRequest)
    } else {
        Ok(text)
    }
}

impl Exchange {
    /// Whose exchange it is.
    pub fn account(&self) -> &BareJid {
        &self.0.account
    }

    /// The `server-first-message`. `credentials` is what storage has; for an unknown user the
    /// secret makes a salt that stays the same, and `iterations` is what an account would have.
    pub fn challenge(
        &mut self,
        credentials: Option<&Credentials>,
        nonce: [u8; NONCE_SIZE],
        fake_salt_secret: &[u8; 32],
        iterations: u32,
    ) -> Vec<u8> {
        let state = &mut *self.0;
        assert!(state.key.is_none(), "one exchange has one challenge");
        // Made in every case, so that both cases take the same time.
        let fake = state.fake_key(fake_salt_secret, iterations);
        let stored = credentials.and_then(|all| state.hash.key_of(all));
        state.known = Choice::from(u8::from(stored.is_some()));
        let key = stored.cloned().unwrap_or(fake);

        state.nonce.push_str(&encode(&nonce));
        // XEP-0474 6.1: who took something from what was advertised cannot make this anew.
        let advertised = state.hash.digest(state.advertised.as_bytes());
        let first = format!(
            "r={},s={},i={},h={}",
            state.nonce,
            encode(&key.salt),
            key.iterations,
            encode(&advertised)
        );
        state.transcript.push(',');
        state.transcript.push_str(&first);
        state.key = Some(key);
        first.into_bytes()
    }

    /// Verifies `client-final-message`; the answer is `server-final-message`, for `<success/>`.
    ///
    /// # Errors
    /// [`SaslError::NotAuthorized`] for a wrong proof, nonce or channel and for unknown users.
    pub fn finish(self, client_final: &[u8]) -> Result<Vec<u8>, SaslError> {
        if client_final.len() > super::MESSAGE_SIZE_MAX {
            return Err(SaslError::MalformedRequest);
        }
        let state = *self.0;
        let key = state.key.as_ref().ok_or(SaslError::MalformedRequest)?;
        let text = text_of(client_final)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(SaslError::MalformedRequest)?;
        let mut fields = without_proof.split(',');
        let binding = fields.next().and_then(|field| field.strip_prefix("c="));
        let nonce = fields.next().and_then(|field| field.strip_prefix("r="));
        let (Some(binding), Some(nonce)) = (binding, nonce) else {
            return Err(SaslError::MalformedRequest);
        };
        if !fields.all(is_extension) {
            return Err(SaslError::MalformedRequest);
        }
        // Inside the message wrong base64 is a matter of SCRAM's syntax, not of XMPP's encoding.
        let malformed = |_| SaslError::MalformedRequest;
        let binding = decode(binding.as_bytes()).map_err(malformed)?;
        let proof = decode(proof.as_bytes()).map_err(malformed)?;
        if proof.len() != state.hash.size() {
            return Err(SaslError::MalformedRequest);
        }

        let parts: [&[u8]; 3] = [state.transcript.as_bytes(), b",", without_proof.as_bytes()];
        let signature = state.hash.hmac(&key.stored_key, &parts);
        let client_key = signature.xor(&proof);
        let right = state.known
            & state.hash.digest(&client_key).ct_eq(&key.stored_key)
            & binding.ct_eq(&state.binding)
            & nonce.as_bytes().ct_eq(state.nonce.as_bytes());
        if !bool::from(right) {
            return Err(SaslError::NotAuthorized);
        }
        let signature = state.hash.hmac(&key.server_key, &parts);
        Ok(format!("v={}", encode(&signature)).into_bytes())
    }
}

impl State {
    /// The key of an account that does not exist: its salt depends on the name and on nothing else.
    fn fake_key(&self, secret: &[u8; 32], iterations: u32) -> ScramKey {
        let name = self.account.as_str().as_bytes();
        let of = |what: &[u8]| self.hash.hmac(secret, &[what, b"\0", name]);
        ScramKey {
            salt: of(b"salt")[..FAKE_SALT_SIZE].into(),
            iterations: iterations.max(1),
            stored_key: (*of(b"stored key")).into(),
            server_key: (*of(b"server key")).into(),
        }
    }
}

#[cfg(test)]
impl Exchange {
    /// Replaces the server's first message by the one of an RFC's example.
    pub(super) fn pretend(&mut self, bare: &str, server_first: &str) {
        let nonce = server_first
            .split(',')
            .next()
            .and_then(|field| field.strip_prefix("r="));
        self.0.nonce = nonce.expect("the message starts with the nonce").to_owned();
        self.0.transcript = format!("{bare},{server_first}");
    }
}
