//! The client's half of HT-SHA-256 (draft-schmaus-kitten-sasl-ht), the mechanisms of XEP-0484.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The only message: who has the token, and its hash over what the login is bound to.
pub fn proof(user: &str, token: &str, channel: &[u8]) -> String {
    let hash = hmac(token, &[b"Initiator", channel].concat());
    STANDARD.encode([user.as_bytes(), b"\0", &hash].concat())
}

/// What a server that has the token answers in `<additional-data/>`.
pub fn answer(token: &str, channel: &[u8]) -> String {
    STANDARD.encode(hmac(token, &[b"Responder", channel].concat()))
}

fn hmac(token: &str, message: &[u8]) -> Vec<u8> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(token.as_bytes()).expect("HMAC takes a key of any size");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}
