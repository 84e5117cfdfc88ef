//! The seeds that a property is tried with, and the name of the one that it fails with.

use std::ops::RangeInclusive;

/// Plays `test` for all [`seeds`], and says which one it was if it fails.
pub fn for_every_seed(count: u64, test: impl Fn(u64)) {
    for seed in seeds(count) {
        let guard = Guard(seed);
        test(seed);
        std::mem::forget(guard);
    }
}

/// The seeds 1 to `count`, unless the environment says otherwise: `SIM_SEED` names one seed only,
/// and `SIM_SEEDS` how many.
pub fn seeds(count: u64) -> RangeInclusive<u64> {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse::<u64>().ok())
    };
    chosen(number("SIM_SEED"), number("SIM_SEEDS"), count)
}

fn chosen(only: Option<u64>, asked: Option<u64>, count: u64) -> RangeInclusive<u64> {
    match only {
        Some(seed) => seed..=seed,
        None => 1..=asked.unwrap_or(count),
    }
}

/// Prints the seed when the stack unwinds through it.
struct Guard(u64);

impl Drop for Guard {
    fn drop(&mut self) {
        eprintln!("failed with SIM_SEED={}", self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_goes_before_a_number_of_them() {
        assert_eq!(chosen(None, None, 3), 1..=3);
        assert_eq!(chosen(None, Some(5), 3), 1..=5);
        assert_eq!(chosen(Some(9), Some(5), 3), 9..=9);
    }
}
