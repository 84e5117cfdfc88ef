//! Where a JID lives: a pure function from address to [`Route`].

use crate::host::ShardId;
use crate::settings::Settings;
use crate::xep::components::ComponentId;
use stanza::jid::{BareJid, Jid, home_hash};
use std::sync::Arc;

/// Where a stanza goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To an account at home on this shard; with the hash that found it.
    Here(u64),
    /// To an account at home on a sibling.
    Shard(ShardId),
    /// To the server itself.
    Server,
    /// To an external component, or to somebody whom it speaks for.
    Component(ComponentId),
    /// To another domain.
    Remote,
}

/// The table from hash to shard, the same on every shard.
#[derive(Clone, Debug)]
pub struct Router {
    domain: Box<str>,
    shards: u16,
    here: ShardId,
    /// The domains of components, in the order of the settings.
    components: Arc<[Box<str>]>,
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
            components: Arc::default(),
        }
    }

    /// The router of shard `here` of a server with these settings.
    pub fn of(settings: &Settings, here: ShardId) -> Router {
        let domains = settings.components.iter().map(|one| one.domain.clone());
        Router {
            components: domains.collect(),
            ..Router::new(&settings.domain, settings.shards, here)
        }
    }

    /// The component of a domain, prepared.
    pub fn component(&self, domain: &str) -> Option<ComponentId> {
        let mut domains = self.components.iter();
        let index = domains.position(|known| **known == *domain)?;
        Some(ComponentId(index as u16))
    }

    /// The shard that has a component's stream: that of its domain.
    pub fn component_home(&self, id: ComponentId) -> ShardId {
        self.home(&self.components[usize::from(id.0)])
    }

    /// Whether there are components at all.
    #[inline]
    pub(crate) fn has_components(&self) -> bool {
        !self.components.is_empty()
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
            return match self.component(to.domain()) {
                Some(id) => Route::Component(id),
                None => Route::Remote,
            };
        }
        if to.local().is_none() {
            return Route::Server;
        }
        self.route_account(to.bare())
    }

    /// As [`Router::route`], for a contact: one of our domain is looked at once.
    #[inline]
    pub(crate) fn route_contact(&self, contact: &BareJid) -> Route {
        match self.is_local(contact.domain()) {
            true => self.route_account(contact.as_str()),
            false => self.route(&contact.as_jid()),
        }
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
