//! How many shards, with how many slots each, and which limit decides it.
//!
//! A ring's table of direct descriptors is capped by RLIMIT_NOFILE, but each ring has its own. So
//! there are as many shards as cores, and more only where that limit forces it.

use crate::accept::{LANES, head_room};
use crate::config::{RuntimeConfig, SHARDS_MAX};
use crate::uploads::DESCRIPTORS;
use std::fmt;

/// Plain descriptors that stay for everything else.
const DESCRIPTOR_MARGIN: u64 = 64;
/// Direct descriptors of one ring at most.
const SLOTS_MAX: u64 = 1 << 18;
/// Connections spread over shards by hash: by how many standard deviations more than the average
/// one may have, of hundreds.
const SPREAD: u64 = 5;
/// Slots that armed accepts of two listeners take.
const ACCEPTS: u64 = 2 * LANES as u64;
/// Slots of a ring that are for other things than its share of the connections.
const SLOTS_MIN: u64 = 1024;

/// What the process will use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many shards.
    pub shards: u16,
    /// How many processors they share.
    pub processors: u16,
    /// Slots of each ring.
    pub slots: u32,
    /// Connections that will be let in.
    pub connections_max: u32,
    /// The limit of open files that was found.
    pub descriptors: u64,
    /// Connections that were wished for.
    pub wished: Option<u32>,
}

impl Plan {
    /// Plans for `config` on a machine with `cores` and a limit of `descriptors` open files.
    pub fn new(config: &RuntimeConfig, cores: usize, descriptors: u64) -> Plan {
        let fixed = config.shards_fixed.then_some(config.settings.shards);
        let wished = (config.connections_max != crate::config::CONNECTIONS_MAX_DEFAULT)
            .then_some(config.connections_max);
        let files = config.uploads.as_ref().map_or(0, |_| DESCRIPTORS);
        let left = descriptors.saturating_sub(files);
        Plan {
            descriptors,
            ..Plan::of(fixed, wished, cores as u64, left)
        }
    }

    /// How many shards a processor runs, rounded up.
    pub fn shards_per_processor(&self) -> u32 {
        self.shards.div_ceil(self.processors).into()
    }

    fn of(fixed: Option<u16>, wished: Option<u32>, cores: u64, descriptors: u64) -> Plan {
        let slots_max = descriptors
            .saturating_sub(DESCRIPTOR_MARGIN)
            .clamp(1, SLOTS_MAX);
        let suffices =
            |shards: &u64| shards * room(*shards, slots_max) >= wished.unwrap_or(0).into();
        let shards = match fixed {
            Some(fixed) => fixed.into(),
            None => (cores..SHARDS_MAX.into())
                .find(suffices)
                .unwrap_or(SHARDS_MAX.into()),
        };
        let shards = shards.max(1);
        let slots = match wished {
            Some(wished) => SLOTS_MIN + u64::from(wished) * 3 / 2 / shards,
            None => slots_max,
        };
        let slots = slots.min(slots_max);
        let room = shards * room(shards, slots);
        let connections_max = wished.map_or(room, |wished| room.min(wished.into()));
        Plan {
            shards: shards as u16,
            processors: cores.clamp(1, u16::MAX.into()) as u16,
            slots: slots as u32,
            connections_max: connections_max.min(u64::from(u32::MAX)) as u32,
            descriptors,
            wished,
        }
    }
}

/// How many connections each of so many shards can have before one of them stops accepting, which
/// those who come to it would wait for.
fn room(shards: u64, slots: u64) -> u64 {
    let head_room = u64::from(head_room(shards as u32, slots as u32));
    let spread = SPREAD * slots.isqrt();
    slots.saturating_sub(head_room + ACCEPTS + spread).max(1)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan {
            shards,
            slots,
            connections_max,
            descriptors,
            wished,
            ..
        } = self;
        write!(
            f,
            "{shards} shards of {slots} slots hold {connections_max} connections \
             (the limit of open files is {descriptors})"
        )?;
        match wished {
            Some(wished) if wished > connections_max => write!(
                f,
                "; {wished} were asked for: leave `shards` unset, or raise the limit (`ulimit -n`)"
            ),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_shards_as_cores_unless_the_descriptor_limit_forces_more() {
        assert_eq!(Plan::of(None, None, 2, 20_000).shards, 2);
        assert_eq!(Plan::of(None, Some(10_000), 2, 20_000).shards, 2);
        let many = Plan::of(None, Some(100_000), 2, 20_000);
        assert_eq!((many.shards, many.connections_max), (6, 100_000));
        assert_eq!(Plan::of(None, Some(1_000_000), 2, 20_000).shards, 60);
        assert_eq!(Plan::of(None, Some(1_000_000), 2, 4 << 20).shards, 4);
    }

    /// Whoever came to a shard that has stopped accepting would wait for ever.
    #[test]
    fn what_a_plan_lets_in_is_accepted_by_every_shard() {
        for wished in [1, 1_000, 9_000, 100_000, 1_000_000] {
            for (fixed, cores) in [(None, 2), (None, 16), (Some(3), 2)] {
                let plan = Plan::of(fixed, Some(wished), cores, 20_000);
                let share = u64::from(plan.connections_max.div_ceil(plan.shards.into()));
                let most = share + SPREAD * share.isqrt() + ACCEPTS;
                let kept = head_room(plan.shards.into(), plan.slots);
                assert!(most + u64::from(kept) <= plan.slots.into(), "{plan}");
                assert!(plan.connections_max == wished || fixed.is_some(), "{plan}");
            }
        }
    }

    #[test]
    fn a_wish_that_fixed_shards_cannot_hold_is_said_with_the_remedy() {
        let plan = Plan::of(Some(1), Some(100_000), 2, 20_000);
        assert_eq!(plan.shards, 1);
        assert!(plan.connections_max < 20_000);
        assert!(plan.to_string().contains("100000 were asked for"), "{plan}");
        assert!(
            !Plan::of(None, None, 2, 20_000)
                .to_string()
                .contains("asked for")
        );
    }
}
