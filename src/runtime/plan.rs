//! How many shards, with how many slots each, and which limit decides it.
//!
//! A ring's table of direct descriptors is capped by RLIMIT_NOFILE, but each ring has its own. So
//! there are as many shards as cores, and more only where that limit forces it.

use crate::config::RuntimeConfig;
use std::fmt;

/// Plain descriptors that stay for everything else.
const DESCRIPTOR_MARGIN: u64 = 64;
/// Direct descriptors of one ring at most.
const SLOTS_MAX: u64 = 1 << 18;
/// Of a ring's slots this part is counted on: connections spread over shards by hash, and moves and
/// accepts under way need room.
const FILL_PERCENT: u64 = 90;
/// Slots of a ring whose share of the connections is small.
const SLOTS_MIN: u64 = 1024;

/// What the process will use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many shards.
    pub shards: u16,
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
        Plan::of(fixed, wished, cores as u64, descriptors)
    }

    fn of(fixed: Option<u16>, wished: Option<u32>, cores: u64, descriptors: u64) -> Plan {
        let slots_max = descriptors
            .saturating_sub(DESCRIPTOR_MARGIN)
            .clamp(1, SLOTS_MAX);
        let usable = (slots_max * FILL_PERCENT / 100).max(1);
        let forced = u64::from(wished.unwrap_or(0)).div_ceil(usable);
        let shards = fixed.map_or(cores.max(forced), u64::from).max(1);
        let slots = match wished {
            Some(wished) => (u64::from(wished) * 3 / 2 / shards).clamp(SLOTS_MIN, slots_max),
            None => slots_max,
        };
        let slots = slots.min(slots_max);
        let room = shards * slots * FILL_PERCENT / 100;
        let connections_max = wished.map_or(room, |wished| room.min(wished.into()));
        Plan {
            shards: shards.min(u64::from(crate::config::SHARDS_MAX)) as u16,
            slots: slots as u32,
            connections_max: connections_max.min(u64::from(u32::MAX)) as u32,
            descriptors,
            wished,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan {
            shards,
            slots,
            connections_max,
            descriptors,
            wished,
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
        assert_eq!(Plan::of(None, Some(1_000_000), 2, 20_000).shards, 56);
        assert_eq!(Plan::of(None, Some(1_000_000), 2, 4 << 20).shards, 5);
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
