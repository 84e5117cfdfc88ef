//! Where a JID lives: a pure function from address to [`Route`].

use crate::host::ShardId;
use stanza::jid::{Jid, home_hash};

/// Where a stanza goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To an account at home on this shard; with the hash that found it.
    Here(u64),
    /// To an account at home on a sibling.
    Shard(ShardId),
    /// To the server itself.
    Server,
    /// To another domain.
    Remote,
}

/// The table from hash to shard, the same on every shard.
#[derive(Clone, Debug)]
pub struct Router {
    domain: Box<str>,
    shards: u16,
    here: ShardId,
}

/// Virtual shards: stable across restarts and changes of the shard count.
const VIRTUAL_SHARDS: u64 = 4096;

impl Router {
    /// The router of shard `here` of `shards` for the accounts of `domain`.
    pub fn new(domain: &str, shards: u16, here: ShardId) -> Router {
        assert!(shards > 0 && here.0 < shards);
        Router {
            domain: domain.into(),
            shards,
            here,
        }
    }

    /// Whether the domain is ours.
    pub fn is_local(&self, domain: &str) -> bool {
        domain == &*self.domain
    }

    /// Whether an address is that of the server itself, however its domain is written.
    pub fn is_server(&self, address: &str) -> bool {
        Jid::parse(address)
            .is_ok_and(|to| to.local().is_none() && to.is_bare() && self.is_local(to.domain()))
    }

    /// The home shard of the account whose bare JID hashes to `hash`.
    pub fn shard_of(&self, hash: u64) -> ShardId {
        ShardId(((hash % VIRTUAL_SHARDS) % u64::from(self.shards)) as u16)
    }

    /// The home shard of a bare JID of our domain.
    pub fn home(&self, bare: &str) -> ShardId {
        self.shard_of(home_hash(bare))
    }

    /// Where stanzas for `to` go.
    pub fn route(&self, to: &Jid<'_>) -> Route {
        if !self.is_local(to.domain()) {
            return Route::Remote;
        }
        if to.local().is_none() {
            return Route::Server;
        }
        self.route_account(to.bare())
    }

    /// As [`Router::route`], for a bare JID of our domain.
    pub fn route_account(&self, bare: &str) -> Route {
        let hash = home_hash(bare);
        match self.shard_of(hash) {
            shard if shard == self.here => Route::Here(hash),
            shard => Route::Shard(shard),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_has_one_address_however_it_is_written() {
        let router = Router::new("xn--bcher-kva.example", 1, ShardId(0));
        for (address, expected) in [
            ("xn--bcher-kva.example", true),
            ("XN--BCHER-KVA.example.", true),
            ("b\u{fc}cher.example", true),
            ("B\u{dc}CHER.example.", true),
            ("bucher.example", false),
            ("a@xn--bcher-kva.example", false),
            ("xn--bcher-kva.example/r", false),
            ("", false),
        ] {
            assert_eq!(router.is_server(address), expected, "{address}");
        }
    }
}
