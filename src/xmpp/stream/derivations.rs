//! The derivations under way for logins by PLAIN: what accounts and addresses have of them.
//!
//! Invariant: one that began counts until its answer is there, whatever becomes of its stream.

use super::StreamState;
use super::sasl::{DeriveJob, Derived};
use crate::host::{ConnId, Host, Ticket};
use crate::limit::{ITERATIONS_PER_ACCOUNT_MAX, ITERATIONS_PER_ADDRESS_MAX};
use crate::shard::{Shard, Waiting};
use stanza::jid::BareJid;
use std::collections::HashMap;

/// Those of one shard. How many there may be is the host's to say, who refuses one more.
#[derive(Debug, Default)]
pub(crate) struct Derivations {
    under_way: HashMap<Ticket, Derivation>,
    /// By account and by address.
    shares: HashMap<Box<str>, Share>,
}

#[derive(Debug)]
struct Derivation {
    /// The account, and the address of whoever says that it is his.
    names: [Box<str>; 2],
    iterations: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    count: u32,
    iterations: u64,
}

impl Derivations {
    /// How many are for `name`.
    fn count(&self, name: &str) -> u32 {
        self.shares.get(name).map_or(0, |share| share.count)
    }

    /// Whether `name` may have so many more iterations: its only derivation may have any number.
    fn has_room(&self, name: &str, iterations: u64, max: u64) -> bool {
        let share = self.shares.get(name);
        share.is_none_or(|share| share.iterations.saturating_add(iterations) <= max)
    }

    fn begin(&mut self, ticket: Ticket, derivation: Derivation) {
        for name in &derivation.names {
            let share = self.shares.entry(name.clone()).or_default();
            share.count += 1;
            share.iterations += derivation.iterations;
        }
        self.under_way.insert(ticket, derivation);
    }

    /// The answer is there; of a registration nothing was counted.
    fn end(&mut self, ticket: Ticket) {
        let Some(Derivation { names, iterations }) = self.under_way.remove(&ticket) else {
            return;
        };
        for name in names {
            let share = self.shares.get_mut(&name).expect("it counts until here");
            share.count -= 1;
            share.iterations -= iterations;
            if share.count == 0 {
                self.shares.remove(&name);
            }
        }
    }
}

impl Shard {
    /// Has the keys of a password derived, or refuses: where those under way might all fail and
    /// with the failures before them be more than the account may have in a minute, and where the
    /// account or the address has its share of the work that waits. An address has it on each
    /// shard, by the work alone: a provider's customers come back all at once.
    pub(super) fn derive_login(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &StreamState,
        account: &BareJid,
        job: DeriveJob,
    ) -> Option<Ticket> {
        let (account, address) = (account.as_str(), stream.counted_peer());
        let iterations = job.iterations();
        let failures = self.throttle.counted(account, host.now());
        let tries = failures.saturating_add(self.derivations.count(account));
        let of_account = ITERATIONS_PER_ACCOUNT_MAX;
        let of_address = ITERATIONS_PER_ADDRESS_MAX / u64::from(self.settings.shards);
        let may_begin = tries < self.settings.limits.auth_failures_per_minute_max
            && self.derivations.has_room(account, iterations, of_account)
            && self.derivations.has_room(&address, iterations, of_address);
        if !may_begin {
            return None;
        }
        let ticket = self.ticket(Waiting::Auth(conn));
        if !host.derive(ticket, Box::new(job)) {
            self.forget(host, ticket);
            return None;
        }
        let names = [account.into(), address.into()];
        let derivation = Derivation { names, iterations };
        self.derivations.begin(ticket, derivation);
        Some(ticket)
    }

    /// A derivation for a stream is done.
    pub(crate) fn on_stream_derived(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        ticket: Ticket,
        derived: Derived,
    ) {
        self.derivations.end(ticket);
        let Some(mut stream) = self.conns.take(conn) else {
            return;
        };
        let flow = self.on_auth_derived(host, conn, &mut stream, ticket, derived);
        self.settle_stream(host, conn, stream, flow);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(derivations: &mut Derivations, ticket: u64, names: [&str; 2], iterations: u64) {
        let names = names.map(Box::from);
        let derivation = Derivation { names, iterations };
        derivations.begin(Ticket(ticket), derivation);
    }

    #[test]
    fn who_has_a_derivation_under_way_has_so_many_iterations_and_who_has_none_any_number() {
        let mut derivations = Derivations::default();
        assert!(derivations.has_room("slow", u64::MAX, 10));
        begin(&mut derivations, 1, ["slow", "here"], 50);
        assert!(!derivations.has_room("slow", 1, 10));
        assert!(!derivations.has_room("here", 1, 10));
        assert!(derivations.has_room("other", 50, 10));
        begin(&mut derivations, 2, ["other", "there"], 6);
        assert!(derivations.has_room("other", 4, 10));
        assert!(!derivations.has_room("other", 5, 10));
    }

    #[test]
    fn what_has_ended_counts_for_nobody() {
        let mut derivations = Derivations::default();
        begin(&mut derivations, 1, ["a", "here"], 4);
        begin(&mut derivations, 2, ["b", "here"], 3);
        derivations.end(Ticket(1));
        derivations.end(Ticket(1));
        derivations.end(Ticket(3));
        assert_eq!(
            ["a", "b", "here"].map(|name| derivations.count(name)),
            [0, 1, 1]
        );
        assert!(derivations.has_room("here", 7, 10) && !derivations.has_room("here", 8, 10));
        derivations.end(Ticket(2));
        assert!(derivations.shares.is_empty() && derivations.under_way.is_empty());
    }
}
