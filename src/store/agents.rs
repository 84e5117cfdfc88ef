//! The user agents of accounts in the embedded store: one record each, among what an account keeps.

use fjall::Keyspace;
use rkyv::rancor::Error as RkyvError;
use rkyv::{Archive, Deserialize, Serialize};
use stanza::jid::BareJid;
use xmpp::Timestamp;
use xmpp::port::{AgentId, Space, StoreReply, Token, TokenBinding, USER_AGENTS_MAX, UserAgent};

use crate::embedded::{Staged, Trouble};
use crate::kept::{self, AGENT, content};
use crate::records::{each_record, read};

#[derive(Archive, Serialize, Deserialize)]
struct UserAgentV1 {
    stamp: u64,
    software: Box<str>,
    device: Box<str>,
    first_seen: u64,
    last_seen: u64,
    knows_password: bool,
    next: Option<TokenV1>,
    current: Option<TokenV1>,
}

#[derive(Archive, Serialize, Deserialize)]
struct TokenV1 {
    seed: u128,
    binding: u8,
    issued: u64,
    expires: u64,
    count: u32,
}

impl From<&Token> for TokenV1 {
    fn from(token: &Token) -> TokenV1 {
        TokenV1 {
            seed: token.seed,
            binding: token.binding as u8,
            issued: token.issued.0,
            expires: token.expires.0,
            count: token.count,
        }
    }
}

impl TokenV1 {
    fn read(self) -> Result<Token, Trouble> {
        let mut all = TokenBinding::ALL.into_iter();
        let binding = all.find(|known| *known as u8 == self.binding);
        Ok(Token {
            seed: self.seed,
            binding: binding.ok_or("a token is of an unknown mechanism")?,
            issued: Timestamp(self.issued),
            expires: Timestamp(self.expires),
            count: self.count,
        })
    }
}

fn agent_key(account: &BareJid, id: AgentId) -> Vec<u8> {
    let mut key = kept::key(account, AGENT);
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

fn encode(agent: &UserAgent) -> Result<Vec<u8>, Trouble> {
    let record = UserAgentV1 {
        stamp: agent.stamp,
        software: agent.software.clone(),
        device: agent.device.clone(),
        first_seen: agent.first_seen.0,
        last_seen: agent.last_seen.0,
        knows_password: agent.knows_password,
        next: agent.next.as_ref().map(TokenV1::from),
        current: agent.current.as_ref().map(TokenV1::from),
    };
    rkyv::api::high::to_bytes_in::<_, RkyvError>(&record, vec![kept::VERSION])
        .map_err(|error| format!("cannot archive a user agent: {error}").into())
}

fn decode(id: AgentId, record: &[u8]) -> Result<UserAgent, Trouble> {
    let archive = content(record, "a user agent")?;
    let read = rkyv::from_bytes::<UserAgentV1, RkyvError>(archive)
        .map_err(|error| Trouble::from(format!("a user agent is damaged: {error}")))?;
    Ok(UserAgent {
        id,
        stamp: read.stamp,
        software: read.software,
        device: read.device,
        first_seen: Timestamp(read.first_seen),
        last_seen: Timestamp(read.last_seen),
        knows_password: read.knows_password,
        next: read.next.map(TokenV1::read).transpose()?,
        current: read.current.map(TokenV1::read).transpose()?,
    })
}

/// Reads one.
pub(crate) fn one(
    kept: &Keyspace,
    staged: &Staged,
    account: &BareJid,
    id: AgentId,
) -> Result<Option<UserAgent>, Trouble> {
    let found = read(kept, &staged.kept, &agent_key(account, id))?;
    found.map(|record| decode(id, &record)).transpose()
}

/// The keys of all.
fn keys(kept: &Keyspace, staged: &Staged, account: &BareJid) -> Result<Vec<Vec<u8>>, Trouble> {
    let mut keys = Vec::new();
    let prefix = kept::key(account, AGENT);
    each_record(kept, &staged.kept, &prefix, |key, _| {
        keys.push(key.to_vec());
        Ok(())
    })?;
    Ok(keys)
}

/// Reads all.
pub(crate) fn all(
    kept: &Keyspace,
    staged: &Staged,
    account: &BareJid,
) -> Result<Vec<UserAgent>, Trouble> {
    let mut agents = Vec::new();
    let prefix = kept::key(account, AGENT);
    each_record(kept, &staged.kept, &prefix, |key, record| {
        let id = <[u8; 8]>::try_from(&key[prefix.len()..]);
        let id = id.map_err(|_| "a user agent has no number")?;
        agents.push(decode(AgentId(u64::from_be_bytes(id)), record)?);
        Ok(())
    })?;
    Ok(agents)
}

/// Writes one of an account that is there, if the record is the one with that stamp.
pub(crate) fn put(
    kept: &Keyspace,
    staged: &mut Staged,
    account: &BareJid,
    agent: &UserAgent,
    prior: Option<u64>,
    forget_before: Timestamp,
) -> Result<StoreReply, Trouble> {
    let known = one(kept, staged, account, agent.id)?;
    if known.map(|known| known.stamp) != prior {
        return Ok(StoreReply::Outdated);
    }
    if prior.is_none() {
        let mut others = all(kept, staged, account)?;
        others.sort_by_key(|other| other.last_seen);
        let excess = (others.len() + 1).saturating_sub(USER_AGENTS_MAX);
        let old = others.partition_point(|other| other.last_seen < forget_before);
        for other in &others[..excess.max(old)] {
            let key = agent_key(account, other.id);
            staged.kept.insert(key.into(), None);
        }
    }
    let key = agent_key(account, agent.id);
    staged.kept.insert(key.into(), Some(encode(agent)?));
    Ok(StoreReply::Done)
}

/// Removes all but one. Where none stays nothing is trusted any more: no device is woken, either
/// (XEP-0357).
pub(crate) fn remove_but(
    kept: &Keyspace,
    staged: &mut Staged,
    account: &BareJid,
    stays: Option<AgentId>,
) -> Result<(), Trouble> {
    let stays = stays.map(|id| agent_key(account, id));
    for key in keys(kept, staged, account)? {
        if Some(&key) != stays.as_ref() {
            staged.kept.insert(key.into(), None);
        }
    }
    if stays.is_none() {
        kept::put_document(kept, staged, account, Space::Push, "", &[])?;
    }
    Ok(())
}

/// Removes one.
pub(crate) fn remove(
    kept: &Keyspace,
    staged: &mut Staged,
    account: &BareJid,
    id: AgentId,
) -> Result<(), Trouble> {
    let key = agent_key(account, id);
    if read(kept, &staged.kept, &key)?.is_some() {
        staged.kept.insert(key.into(), None);
    }
    Ok(())
}
