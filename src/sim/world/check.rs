//! What holds in a world, between any two events and at rest.

use super::World;
use super::wire::Place;
use xmpp::ShardId;

impl World {
    /// Checks what holds between any two events, and at rest.
    ///
    /// # Panics
    /// With the seed, if it does not hold.
    pub fn check_homes(&self) {
        let router =
            xmpp::router::Router::new(&self.settings.domain, self.settings.shards, ShardId(0));
        for node in &self.nodes {
            for jid in node.shard.account_jids() {
                let home = router.home(jid.as_str());
                let here = node.side.id;
                assert_eq!(
                    home, here,
                    "seed {}: {jid} has state on {here:?}",
                    self.seed
                );
            }
        }
    }

    /// Checks what holds when nothing is under way.
    ///
    /// # Panics
    /// With the seed, if it does not hold.
    pub fn check_rest(&self) {
        let seed = self.seed;
        assert!(
            self.agenda.is_empty(),
            "seed {seed}: something is under way"
        );
        self.check_homes();
        for node in &self.nodes {
            let side = &node.side;
            let id = side.id;
            assert_eq!(
                side.balance, 0,
                "seed {seed}: buffers of {id:?} did not come home"
            );
            assert_eq!(
                node.shard.in_flight_count(),
                0,
                "seed {seed}: parcels of {id:?} were not settled"
            );
            for ring in &side.rings {
                let waiting = ring.queue.len() + ring.spill.len();
                assert_eq!(waiting, 0, "seed {seed}: parcels of {id:?} were not taken");
            }
            assert!(
                node.inbox.is_empty() && node.answers.is_empty(),
                "seed {seed}: {id:?} did not handle its input"
            );
            let unanswered = (side.requests, node.shard.unanswered_count());
            assert_eq!(unanswered, (0, 0), "seed {seed}: {id:?} was not answered");
            let asked = node.shard.request_count();
            assert_eq!(asked, 0, "seed {seed}: clients of {id:?} were not answered");
            let open = self.wires.iter().filter(
                |wire| matches!(wire.place, Place::At(shard, _) if shard == usize::from(id.0)),
            );
            let open = open.count();
            assert_eq!(
                node.shard.stream_count(),
                open,
                "seed {seed}: streams of {id:?}"
            );
        }
    }
}
