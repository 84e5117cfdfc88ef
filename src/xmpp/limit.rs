//! Every maximum of the protocol, named. The runtime may lower or raise those in [`Limits`].

use crate::port::OfflineQuota;
use std::net::{IpAddr, Ipv6Addr};

/// The configurable limits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of one element before authentication.
    pub stanza_size_before_auth_max: usize,
    /// Bytes of one stanza after authentication.
    pub stanza_size_max: usize,
    /// Nested elements.
    pub depth_max: u16,
    /// Attributes of one element.
    pub attributes_max: u16,
    /// Namespace declarations of one stanza.
    pub namespaces_max: u16,
    /// Milliseconds from the connection to the bind result.
    pub auth_ms_max: u64,
    /// Bytes of white space before authentication.
    pub whitespace_before_auth_max: usize,
    /// Resources of one account.
    pub resources_max: usize,
    /// Roster items of one account.
    pub roster_items_max: usize,
    /// Failed authentications on one stream.
    pub auth_tries_max: u8,
    /// Remembered targets of directed presence of one session.
    pub directed_max: usize,
    /// Sessions of one shard that wait for their clients at once.
    pub hibernating_max: usize,
    /// Refreshes of contacts that wait until a shard knows the sessions of the last process. By
    /// further ones its sessions seem unavailable until they are back. And as many probes of
    /// contacts who sleep in storage: by further ones these are not seen before they are back.
    pub early_refreshes_max: usize,
    /// Accounts created in-band from one address per hour.
    pub registrations_per_hour_max: u32,
    /// Messages that wait for one account.
    pub offline_max: u32,
    /// Bytes of them. A client without stream management gets them in one burst, which must fit
    /// what may wait for a connection.
    pub offline_size_max: u64,
    /// Nodes of one account (XEP-0060).
    pub nodes_max: usize,
    /// Items that one node keeps.
    pub node_items_max: usize,
    /// Bytes of one item's payload.
    pub item_size_max: usize,
    /// Bytes of all nodes and items of one account.
    pub items_size_max: u64,
    /// Failed authentications per account within a minute; more are refused unexamined.
    pub auth_failures_per_minute_max: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            stanza_size_before_auth_max: 64 << 10,
            stanza_size_max: 256 << 10,
            depth_max: 64,
            attributes_max: 256,
            namespaces_max: 128,
            auth_ms_max: 30_000,
            whitespace_before_auth_max: 1 << 10,
            resources_max: 16,
            roster_items_max: 4_000,
            auth_tries_max: 5,
            directed_max: 1_000,
            hibernating_max: 100_000,
            early_refreshes_max: 1 << 16,
            registrations_per_hour_max: 20,
            offline_max: 1_000,
            offline_size_max: OFFLINE_SIZE_MAX,
            nodes_max: 256,
            node_items_max: 1_000,
            item_size_max: 128 << 10,
            items_size_max: 4 << 20,
            auth_failures_per_minute_max: 30,
        }
    }
}

impl Limits {
    /// What may wait for one account.
    pub fn offline(&self) -> OfflineQuota {
        OfflineQuota {
            count: self.offline_max,
            size: self.offline_size_max,
        }
    }

    /// The scanner's limits for elements of at most `size_max` bytes.
    pub(crate) fn scanner(&self, size_max: usize) -> stanza::frame::Limits {
        stanza::frame::Limits {
            size_max: u32::try_from(size_max).unwrap_or(u32::MAX),
            depth_max: self.depth_max,
            attributes_max: self.attributes_max,
            namespaces_max: self.namespaces_max,
        }
    }
}

/// Leading bits of an IPv6 address that tell one network from another: whoever has an address has
/// all others of its network.
const IPV6_NETWORK_BITS: u32 = 64;

/// The address that limits per address count a client's as: one for a network of IPv6, and for an
/// IPv4 address, however it is written, itself.
pub fn counted_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = !(u128::MAX >> IPV6_NETWORK_BITS);
            Ipv6Addr::from_bits(address.to_bits() & network).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// Bytes of a roster item's address, name and groups, on average. A client gets all items at once,
/// and a managed session keeps them until its client has them.
pub const ROSTER_ITEM_SIZE_MEAN: usize = 256;

/// Bytes of messages that wait for one account, where nothing else is smaller.
pub const OFFLINE_SIZE_MAX: u64 = 2 << 20;

/// Attempts to register a name that is taken that count as much as one account created: whoever is
/// told that a name is taken may choose another, but may not ask for every name there could be.
pub const CONFLICTS_PER_REGISTRATION: u32 = 4;

/// Registration requests of one stream that make no account, in a row; the next one ends it. What
/// is asked and refused costs nothing else.
pub const REGISTRATION_REQUESTS_MAX: u8 = 20;

/// Stanzas that wait for one account, to load or for storage; the next one bounces
/// `resource-constraint`.
pub const LOAD_QUEUE_MAX: usize = 1_024;

/// Bytes of those stanzas.
pub const LOAD_QUEUE_SIZE_MAX: usize = 4 << 20;

/// Messages and requests that wait for one component (XEP-0114) which reads slowly; the next one
/// bounces `resource-constraint`. Of answers to what it asked there may be twice as many.
pub const COMPONENT_QUEUE_MAX: usize = 4_096;

/// Bytes of those stanzas.
pub const COMPONENT_QUEUE_SIZE_MAX: usize = 4 << 20;

/// Presences that wait for one component, or, where that is more, as many as the logins of some
/// accounts with the largest rosters are; the next one is dropped, unless it is for a resource: who
/// enters a channel is told. Twice as many where one is not said again, as `unavailable`: the next
/// one of these ends the component's stream.
pub const COMPONENT_PRESENCE_MAX: usize = 1 << 16;

/// Bytes of one of those presences, on average: they have room for as many as there may be of this
/// size. Half of a login's are probes, which are short.
pub const COMPONENT_PRESENCE_SIZE_MEAN: usize = 512;

/// Senders who share each room for a component at least: one has no more than its part of it.
pub const COMPONENT_SENDERS_MIN: usize = 4;

/// Bytes under way to a component at once, where a stanza may be as large: they are kept until its
/// socket has taken them all.
pub const COMPONENT_WINDOW_MAX: usize = 64 << 10;

/// Streams that wait for one account to load: a flood of stanzas does not keep its owner out.
pub const LOAD_STREAMS_MAX: usize = 1_024;

/// Bytes of one connection that are handled in one turn; the element that reaches it is the last.
pub(crate) const BYTES_PER_TURN_MAX: usize = 64 << 10;

/// Bytes of one connection that are handled as soon as they come. What is behind them takes its
/// turn after what all others sent: see [`BULK_PER_TURN_MAX`].
pub const PROMPT_SIZE_MAX: usize = 4 << 10;

/// Bytes of all connections that are handled in one turn beside [`PROMPT_SIZE_MAX`] of each; the
/// element that reaches it is the last. An element of the largest size may cost milliseconds, and
/// hundreds of connections may each complete one at once.
pub const BULK_PER_TURN_MAX: usize = 64 << 10;

/// Contacts that the broadcasts of one connection in one turn are for, whether they are here or
/// not; the broadcast that reaches it is the last.
pub const TARGETS_PER_TURN_MAX: usize = 1_000;

/// Bytes of the addresses of a fan-out that are as much work for a sibling as one request is: a
/// session's input waits for what siblings have of them before them. Most fan-outs have fewer.
pub const TARGETS_SIZE_PER_REQUEST: usize = 1 << 10;

/// Bytes of a presence that every contact gets, without their address. It is written once for each
/// of them, and a probe of a few bytes is answered by one of every session of a contact.
pub const PRESENCE_SIZE_MAX: usize = 16 << 10;

/// Requests to storage and to other shards that one session may have unanswered: its input waits
/// from there on. The stanza that reaches it may make a few more (a removal tells the contact of
/// two things, and an initial presence probes as many at once as there are).
pub const REQUESTS_PER_SESSION_MAX: u16 = 32;

/// Milliseconds between the acknowledgements that a managed client has unasked while its stanzas
/// wait: what asks for one may be behind them.
pub const ANSWER_AHEAD_MS: u64 = 1_000;

/// Bytes of one session that storage is given in a millisecond: a session is written as a whole, as
/// often as its client changes it by a few bytes.
pub(crate) const SESSION_SIZE_PER_MS: u64 = 1 << 10;

/// Milliseconds until storage is asked again for what it failed to do.
pub(crate) const STORAGE_RETRY_MS: u64 = 1_000;

/// How often storage is asked for an account that subscription stanzas wait for; then they bounce.
pub(crate) const LOADS_MAX: u32 = 60;

/// Bytes of a resource part (RFC 7622 3.4).
pub const RESOURCE_SIZE_MAX: usize = 1023;

/// Iterations of PBKDF2 that wait in a process or are under way: at 2,000,000 a second, which is
/// little, a quarter of the time that a client has to authenticate. A derivation that alone is more
/// has its turn when no other one waits; that holds for the shares below as well.
pub const ITERATIONS_MAX: u64 = 1 << 24;

/// Those of the logins from one address, each shard with an equal part of them: who tries one
/// password after another leaves room for others, and so many customers of a provider come back at
/// once.
pub(crate) const ITERATIONS_PER_ADDRESS_MAX: u64 = ITERATIONS_MAX / 2;

/// Those of the logins to one account: nobody waits long for what others try at another's account,
/// and three devices come back at once where another server's keys have 600,000 each.
pub(crate) const ITERATIONS_PER_ACCOUNT_MAX: u64 = ITERATIONS_MAX / 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_counts_as_one_address_and_ipv4_does_however_it_is_written() {
        let counted = |text: &str| counted_address(text.parse().unwrap()).to_string();
        for (address, expected) in [
            ("2001:db8:1:2::1", "2001:db8:1:2::"),
            ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::"),
            ("2001:db8:1:3::1", "2001:db8:1:3::"),
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.8", "192.0.2.8"),
        ] {
            assert_eq!(counted(address), expected, "{address}");
        }
    }
}
