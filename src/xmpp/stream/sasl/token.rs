//! HT: a token proves itself by its hash, in one message (draft-schmaus-kitten-sasl-ht), and the
//! server does so in its answer. The mechanisms of XEP-0484.
//!
//! Invariant: a token is made from its seed in storage and a secret that is not there, for one
//! account, one user agent and one mechanism: moved to another of them it is another token.

use super::offer::{EXPORTER, SERVER_END_POINT};
use super::{Offer, SaslError, account_of, encode};
use crate::port::{AgentId, Token, TokenBinding};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use stanza::jid::BareJid;
use std::fmt;
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

/// Bytes of a hash.
const HASH_SIZE: usize = 32;

/// A token as its client has it.
pub struct TokenText(Zeroizing<String>);

impl TokenText {
    /// That of a seed.
    pub fn new(secret: &[u8; 32], account: &BareJid, id: AgentId, token: &Token) -> TokenText {
        let parts: [&[u8]; 5] = [
            b"token of a user agent\0",
            &token.seed.to_be_bytes(),
            &id.0.to_be_bytes(),
            &[token.binding as u8],
            account.as_str().as_bytes(),
        ];
        TokenText(Zeroizing::new(encode(&sign(secret, &parts))))
    }

    /// What is in `<token/>`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(..)")
    }
}

/// What a client says to prove that it has a token.
#[derive(Debug)]
pub struct TokenProof {
    /// Whose token.
    pub account: BareJid,
    /// What the login is bound to.
    pub binding: TokenBinding,
    /// The bytes of that.
    channel: Box<[u8]>,
    hash: Box<[u8]>,
}

impl TokenProof {
    /// Reads the only message of a client: the account's name, a zero byte, the hash.
    ///
    /// # Errors
    /// What to answer in `<failure/>`: the mechanism was not offered, or the message has no sense.
    pub fn read(
        binding: TokenBinding,
        message: &[u8],
        offer: &Offer<'_>,
    ) -> Result<TokenProof, SaslError> {
        if !offer.offers_token(binding) {
            return Err(SaslError::InvalidMechanism);
        }
        if message.len() > super::MESSAGE_SIZE_MAX {
            return Err(SaslError::MalformedRequest);
        }
        let end = message.iter().position(|byte| *byte == 0);
        let (name, hash) = message.split_at(end.ok_or(SaslError::MalformedRequest)?);
        let name = std::str::from_utf8(name).map_err(|_| SaslError::MalformedRequest)?;
        let hash = &hash[1..];
        if hash.len() != HASH_SIZE {
            return Err(SaslError::MalformedRequest);
        }
        Ok(TokenProof {
            account: account_of(name, offer.domain())?,
            binding,
            channel: offer.channel_of(binding).unwrap_or_default().into(),
            hash: hash.into(),
        })
    }

    /// Whether it was made with this token, in the same time for any.
    pub fn is_of(&self, token: &TokenText) -> Choice {
        let own = sign(token.as_str().as_bytes(), &[b"Initiator", &self.channel]);
        own.ct_eq(&self.hash)
    }

    /// What proves to the client that the server has its token, too.
    pub fn answer(&self, token: &TokenText) -> [u8; HASH_SIZE] {
        sign(token.as_str().as_bytes(), &[b"Responder", &self.channel])
    }
}

fn sign(key: &[u8], parts: &[&[u8]]) -> [u8; HASH_SIZE] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any size");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

impl<'a> Offer<'a> {
    /// The mechanisms for tokens to advertise, the one to prefer first.
    pub fn tokens(self) -> impl Iterator<Item = TokenBinding> + 'a {
        let all = TokenBinding::ALL.into_iter();
        all.filter(move |binding| self.offers_token(*binding))
    }

    /// Whether a token may be bound to this: never before TLS (XEP-0484 6), and to nothing only
    /// where a password may be, too.
    pub fn offers_token(&self, binding: TokenBinding) -> bool {
        let mut passwords = self.mechanisms().filter(|it| it.takes_password());
        self.gives_tokens()
            && match binding {
                TokenBinding::None => passwords.any(|it| !it.is_plus()),
                _ => self.channel_of(binding).is_some() && passwords.next().is_some(),
            }
    }

    fn channel_of(&self, binding: TokenBinding) -> Option<&'a [u8]> {
        match binding {
            TokenBinding::Exporter => self.binding(EXPORTER),
            TokenBinding::EndPoint => self.binding(SERVER_END_POINT),
            TokenBinding::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;
    use crate::host::TlsFacts;
    use crate::settings::Settings;
    use crate::stream::sasl::Mechanism;

    const SECRET: [u8; 32] = [5; 32];

    fn facts() -> TlsFacts {
        TlsFacts {
            exporter: Some([1; 32]),
            server_end_point: Some([2; 32].into()),
        }
    }

    fn text(account: &str, id: u64, binding: TokenBinding, seed: u128) -> TokenText {
        let token = Token {
            seed,
            binding,
            issued: Timestamp(0),
            expires: Timestamp(1),
            count: 0,
        };
        let account = BareJid::parse(account).unwrap();
        TokenText::new(&SECRET, &account, AgentId(id), &token)
    }

    fn message(token: &TokenText, channel: &[u8]) -> Vec<u8> {
        let hash = sign(token.as_str().as_bytes(), &[b"Initiator", channel]);
        [b"alice\0", &hash[..]].concat()
    }

    fn read(binding: TokenBinding, message: &[u8]) -> Result<TokenProof, SaslError> {
        let (settings, facts) = (Settings::new("example.org"), facts());
        TokenProof::read(binding, message, &Offer::new(&settings, Some(&facts)))
    }

    #[test]
    fn a_token_is_of_one_account_one_user_agent_one_mechanism_and_one_seed() {
        let of = |account, id, binding, seed| text(account, id, binding, seed).0.to_string();
        let own = of("alice@example.org", 1, TokenBinding::None, 3);
        assert_eq!(own, of("alice@example.org", 1, TokenBinding::None, 3));
        for other in [
            of("bob@example.org", 1, TokenBinding::None, 3),
            of("alice@example.org", 2, TokenBinding::None, 3),
            of("alice@example.org", 1, TokenBinding::Exporter, 3),
            of("alice@example.org", 1, TokenBinding::None, 4),
        ] {
            assert_ne!(own, other);
        }
    }

    #[test]
    fn a_proof_is_of_its_token_and_its_channel_alone() {
        for (binding, channel) in [
            (TokenBinding::Exporter, &[1; 32][..]),
            (TokenBinding::EndPoint, &[2; 32]),
            (TokenBinding::None, b""),
        ] {
            let token = text("alice@example.org", 1, binding, 3);
            let proof = read(binding, &message(&token, channel)).unwrap();
            assert_eq!(proof.account.as_str(), "alice@example.org");
            assert!(bool::from(proof.is_of(&token)));
            let hash = sign(token.as_str().as_bytes(), &[b"Responder", channel]);
            assert_eq!(proof.answer(&token), hash);
            let other = text("alice@example.org", 1, binding, 4);
            assert!(!bool::from(proof.is_of(&other)));
            let elsewhere = read(binding, &message(&token, &[3; 32])).unwrap();
            assert!(!bool::from(elsewhere.is_of(&token)));
        }
    }

    #[test]
    fn a_message_without_sense_is_malformed() {
        let token = text("alice@example.org", 1, TokenBinding::None, 3);
        let good = message(&token, b"");
        for bad in [
            &b""[..],
            b"alice",
            b"alice\0",
            &good[..good.len() - 1],
            &[&good[..], b"x"].concat(),
            &[b"\xff", &good[..]].concat(),
            &vec![b'a'; crate::stream::sasl::MESSAGE_SIZE_MAX + 1],
        ] {
            let error = read(TokenBinding::None, bad).unwrap_err();
            assert_eq!(error, SaslError::MalformedRequest, "{bad:?}");
        }
        let nobody = read(TokenBinding::None, &[b"\0", &good[6..]].concat()).unwrap_err();
        assert_eq!(nobody, SaslError::NotAuthorized);
    }

    #[test]
    fn what_is_offered_is_what_the_channel_and_the_operator_allow() {
        let offered = |settings: &Settings, facts: Option<&TlsFacts>| {
            let offer = Offer::new(settings, facts);
            let names: Vec<&str> = offer.tokens().map(TokenBinding::as_str).collect();
            names
        };
        let settings = Settings::new("example.org");
        let all = ["HT-SHA-256-EXPR", "HT-SHA-256-ENDP", "HT-SHA-256-NONE"];
        assert_eq!(offered(&settings, Some(&facts())), all);
        assert!(offered(&settings, None).is_empty());
        let clear = Settings {
            tls_required: false,
            ..settings.clone()
        };
        assert!(offered(&clear, None).is_empty());
        // Where TLS gives no binding.
        assert_eq!(offered(&settings, Some(&TlsFacts::default())), &all[2..]);
        let bound = Settings {
            mechanisms: vec![Mechanism::ScramSha256Plus],
            ..settings.clone()
        };
        assert_eq!(offered(&bound, Some(&facts())), &all[..2]);
        let mut none = settings.clone();
        none.agents.token_s = 0;
        assert!(offered(&none, Some(&facts())).is_empty());
        let guests = Settings {
            mechanisms: Vec::new(),
            anonymous: true,
            ..settings
        };
        assert!(offered(&guests, Some(&facts())).is_empty());
    }
}
