//! What the kernel offers, asked by trying it: each feature is used once on a throw-away ring.

use crate::engine::{Ring, RingConfig};
use crate::fd::EventFd;
use crate::slots::{Op, Token};
use std::fmt;
use std::io;

/// What the kernel offers beyond the floor (6.1: SINGLE_ISSUER and DEFER_TASKRUN).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// IORING_SETUP_NO_SQARRAY (6.6): else the ring keeps the index array.
    pub no_sqarray: bool,
    /// IOU_PBUF_RING_INC (6.12): else each receive takes a whole, smaller buffer.
    pub incremental_buffers: bool,
    /// MSG_RING with a descriptor (6.0): else connections cannot change rings.
    pub send_fd: bool,
    /// BIND and SETSOCKOPT in the ring (6.11): else sockets are prepared by plain calls.
    pub bind: bool,
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |has| if has { "yes" } else { "no" };
        write!(
            f,
            "defer_taskrun=yes no_sqarray={} incremental_buffers={} send_fd={} bind={}",
            word(self.no_sqarray),
            word(self.incremental_buffers),
            word(self.send_fd),
            word(self.bind)
        )
    }
}

/// io_uring cannot be used here. Its text is one sentence with the remedy.
#[derive(Debug)]
pub enum Refused {
    /// Switched off by a sysctl.
    Disabled,
    /// Forbidden for this process, as by a container's seccomp profile.
    Forbidden,
    /// The kernel is too old.
    TooOld,
    /// Something else, such as a limit.
    Other(io::Error),
}

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Disabled => f.write_str(
                "io_uring is switched off on this machine: set it free with \
                 `sysctl kernel.io_uring_disabled=0`",
            ),
            Refused::Forbidden => f.write_str(
                "io_uring is forbidden for this process: allow io_uring_setup, io_uring_enter and \
                 io_uring_register in the container's seccomp profile, or run outside of it",
            ),
            Refused::TooOld => f.write_str(
                "this kernel's io_uring is too old: run Linux 6.1 or later \
                 (IORING_SETUP_DEFER_TASKRUN is needed)",
            ),
            Refused::Other(error) => write!(
                f,
                "io_uring cannot be set up ({error}): raise the limits of locked memory \
                 (`ulimit -l`) and of open files (`ulimit -n`)"
            ),
        }
    }
}

/// Asks the kernel what it offers.
pub fn probe() -> Result<Features, Refused> {
    let base = Features::default();
    let small = RingConfig {
        entries: 8,
        completions: 16,
        slots: 4,
    };
    // A profile may allow to set a ring up and forbid to enter it.
    let mut ring = Ring::new(&small, &base).map_err(refusal)?;
    ring.run_deferred().map_err(refusal)?;
    let no_sqarray = Features {
        no_sqarray: true,
        ..base
    };
    let mut features = base;
    features.no_sqarray = Ring::new(&small, &no_sqarray).is_ok();
    let ring = Ring::new(&small, &features).map_err(Refused::Other)?;
    features.incremental_buffers = ring.accepts_incremental_buffers();
    features.bind = ring.supports_bind();
    features.send_fd = can_send_descriptors(&small, &features).unwrap_or(false);
    Ok(features)
}

fn can_send_descriptors(config: &RingConfig, features: &Features) -> io::Result<bool> {
    let mut from = Ring::new(config, features)?;
    let mut to = Ring::new(config, features)?;
    let mut completions = Vec::new();
    from.install(0, EventFd::new()?.into())?;
    let arrival = Token::new(Op::Arrived, 7, 1);
    from.send_slot(0, 1, to.descriptor(), arrival);
    from.submit_and_wait(1)?;
    from.reap(None, &mut completions);
    let left = completions
        .drain(..)
        .any(|c| c.token.op == Op::Sent && c.result >= 0);
    to.run_deferred()?;
    to.reap(None, &mut completions);
    let arrived = completions
        .iter()
        .any(|c| c.token == arrival && c.result >= 0);
    Ok(left && arrived)
}

fn refusal(error: io::Error) -> Refused {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => match disabled_by_sysctl() {
            true => Refused::Disabled,
            false => Refused::Forbidden,
        },
        Some(libc::ENOSYS) => match kernel_has_io_uring() {
            true => Refused::Forbidden,
            false => Refused::TooOld,
        },
        Some(libc::EINVAL) => Refused::TooOld,
        _ => Refused::Other(error),
    }
}

fn disabled_by_sysctl() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .is_ok_and(|value| value.trim() != "0")
}

/// Some seccomp profiles answer ENOSYS in the kernel's name; 6.6 and later have the sysctl.
fn kernel_has_io_uring() -> bool {
    std::path::Path::new("/proc/sys/kernel/io_uring_disabled").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_is_good_enough_and_says_what_it_has() {
        let features = probe().unwrap();
        assert!(
            features.to_string().starts_with("defer_taskrun=yes"),
            "{features}"
        );
    }

    #[test]
    fn each_refusal_is_one_sentence_with_a_remedy() {
        let other = Refused::Other(io::Error::from_raw_os_error(libc::ENOMEM));
        for refused in [
            Refused::Disabled,
            Refused::Forbidden,
            Refused::TooOld,
            other,
        ] {
            let text = refused.to_string();
            assert!(text.contains(": ") && !text.contains('\n'), "{text}");
        }
        assert!(matches!(
            refusal(io::Error::from_raw_os_error(libc::EINVAL)),
            Refused::TooOld
        ));
    }
}
