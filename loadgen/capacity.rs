//! What this machine can hold of a plan: rings, memory, cores.

use crate::machine::Machine;
use crate::plan::{CLIENTS_PER_RING_MAX, Plan, SLOTS_SPARE};

/// Bytes that a client takes here at least, see `docs/LOADGEN.md`.
const CLIENT_SIZE_MIN: u64 = 256;

impl Plan {
    /// Fits the plan's part to this machine: as many rings as it needs, or the `threads` that were
    /// asked for, on cores that there are.
    ///
    /// # Errors
    /// What the machine lacks, with the remedy.
    pub fn fit(mut self, threads: Option<u32>) -> Result<Plan, String> {
        let rings_min = rings_min(self.part.count, threads)?;
        let Machine {
            memory_kb, cores, ..
        } = Machine::read();
        check_machine(self.part.count, self.core, memory_kb << 10, cores)?;
        let near = self.target.ip().is_loopback() && cores > 1;
        self.core = self.core.or(near.then_some(1));
        self.threads = threads.unwrap_or(rings_min);
        let shares = self.shares().len();
        if threads.is_some_and(|threads| threads as usize > shares) {
            return Err(format!(
                "--threads: who talks to each other shares one, so {shares} is the most here"
            ));
        }
        Ok(self)
    }
}

/// The rings that so many clients need.
fn rings_min(clients: u32, threads: Option<u32>) -> Result<u32, String> {
    let files = ring::descriptors_max().unwrap_or(1024);
    let fits = files.saturating_sub(u64::from(SLOTS_SPARE) * 4);
    let per_ring = CLIENTS_PER_RING_MAX.min(u32::try_from(fits).unwrap_or(u32::MAX));
    if per_ring < 64 {
        return Err(format!(
            "the limit of open files is {files}; at least 512 are needed (`ulimit -n`)"
        ));
    }
    let rings_min = clients.div_ceil(per_ring);
    if threads.is_some_and(|threads| threads < rings_min) {
        return Err(format!(
            "--threads: {clients} clients need {rings_min} at least; give as many, or leave it out"
        ));
    }
    Ok(rings_min)
}

/// Whether a machine with so much memory, where that is known, and so many cores can do it.
fn check_machine(
    clients: u32,
    core: Option<usize>,
    bytes: u64,
    cores: usize,
) -> Result<(), String> {
    if let Some(core) = core.filter(|core| *core >= cores) {
        return Err(format!("--core {core}: there are {cores}, counted from 0"));
    }
    let needed = u64::from(clients) * CLIENT_SIZE_MIN;
    if bytes > 0 && needed > bytes {
        let (needed, there) = (needed >> 20, bytes >> 20);
        return Err(format!(
            "--clients {clients}: they take {needed} MB of memory at least, and there are {there}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_machine_has_is_refused_with_what_it_has() {
        let check = |bytes| check_machine(1_000_000, None, bytes, 1);
        assert_eq!(check(0), Ok(()), "nobody knows");
        assert_eq!(check(1 << 30), Ok(()));
        let error = check(100 << 20).unwrap_err();
        assert!(
            error.contains("244 MB") && error.ends_with("there are 100"),
            "{error}"
        );
    }
}
