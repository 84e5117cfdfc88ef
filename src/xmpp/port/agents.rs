//! The user agents (XEP-0388 2.2) that an account is used with, and their tokens (XEP-0484).
//!
//! Invariant: no token is in storage, but the seed of one: with the server's secret, which is not
//! there, it makes the token. Who reads a store or a backup of it can log in with nothing there.

use crate::host::Timestamp;
use std::fmt;

/// User agents that are remembered of one account; for one more the one that was seen longest ago
/// is forgotten, with its tokens.
pub const USER_AGENTS_MAX: usize = 32;

/// Bytes of each text by which a user agent calls itself.
pub const USER_AGENT_TEXT_SIZE_MAX: usize = 128;

/// What an installation of a client is known by on its account. The id that it gives itself cannot
/// be found out from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentId(pub u64);

/// As it stands in resources, and where clients are listed.
impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// An installation of a client that has logged in to an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserAgent {
    /// Which.
    pub id: AgentId,
    /// Another one with every write: a record that somebody else has written meanwhile is not
    /// written over.
    pub stamp: u64,
    /// The name of the software, or empty.
    pub software: Box<str>,
    /// The name of the device, or empty.
    pub device: Box<str>,
    /// When it logged in first.
    pub first_seen: Timestamp,
    /// When it logged in last, or a little before that.
    pub last_seen: Timestamp,
    /// Whether it has proved that it knows the password.
    pub knows_password: bool,
    /// The token that it was given last and has not used.
    pub next: Option<Token>,
    /// The token that it has used.
    pub current: Option<Token>,
}

impl UserAgent {
    /// Whether it can log in with a token.
    pub fn has_token(&self, now: Timestamp) -> bool {
        let mut tokens = [&self.next, &self.current].into_iter().flatten();
        tokens.any(|token| token.expires > now)
    }
}

/// A token that a user agent was given, without its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What makes the token together with the server's secret.
    pub seed: u128,
    /// The only mechanism that it is good for.
    pub binding: TokenBinding,
    /// When it was given.
    pub issued: Timestamp,
    /// From when on it is void.
    pub expires: Timestamp,
    /// The highest number that a login with it had; 0 where none had one.
    pub count: u32,
}

/// What a login with a token is bound to; the numbers are in the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TokenBinding {
    /// The TLS connection, by `tls-exporter`.
    Exporter = 1,
    /// The server's certificate, by `tls-server-end-point`.
    EndPoint = 2,
    /// Nothing.
    None = 3,
}

impl TokenBinding {
    /// All of them, the one to prefer first.
    pub const ALL: [TokenBinding; 3] = [
        TokenBinding::Exporter,
        TokenBinding::EndPoint,
        TokenBinding::None,
    ];

    /// The name of its mechanism.
    pub fn as_str(self) -> &'static str {
        match self {
            TokenBinding::Exporter => "HT-SHA-256-EXPR",
            TokenBinding::EndPoint => "HT-SHA-256-ENDP",
            TokenBinding::None => "HT-SHA-256-NONE",
        }
    }

    /// The mechanism of this name, in whatever case.
    pub fn parse(name: &str) -> Option<TokenBinding> {
        let mut all = TokenBinding::ALL.into_iter();
        all.find(|known| known.as_str().eq_ignore_ascii_case(name))
    }
}
