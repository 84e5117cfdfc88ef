//! Several machines: one process coordinates a run, and workers on other machines drive its
//! clients.
//!
//! Invariant: both ends of every stanza are in one worker, so that each delivery is verified, and
//! timed by one clock, where it was sent; what workers found is added up, never averaged.

pub mod coordinator;
pub mod protocol;
pub mod worker;

/// Where a worker listens unless it is told otherwise.
pub const LISTEN: &str = "127.0.0.1:5290";

/// Workers of one run, at most.
pub const WORKERS_MAX: usize = 256;

/// Reads one of `--workers`.
///
/// # Errors
/// It is no `host:port`.
pub fn address(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    let port = port.and_then(|(_, port)| port.parse::<u16>().ok());
    match port {
        Some(1..) => Ok(text.to_owned()),
        _ => Err("takes HOST:PORT, or several with commas between".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_has_a_host_and_a_port() {
        for good in [LISTEN, "load-2.example.org:5290", "[::1]:1"] {
            assert_eq!(address(good).as_deref(), Ok(good));
        }
        for bad in ["", ":5290", "host", "host:", "host:0", "host:65536"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
