//! Who may connect: the caps on connections in total and per address, shared by all shards.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use xmpp::limit::counted_address;

/// Counts connections. The lock is taken once when a connection comes and once when it goes, and
/// only where there is a cap per address.
#[derive(Debug)]
pub(crate) struct Admission {
    total: AtomicU32,
    total_max: u32,
    per_address_max: u32,
    by_address: Mutex<HashMap<IpAddr, u32>>,
}

impl Admission {
    /// `per_address_max` 0 is no cap.
    pub(crate) fn new(total_max: u32, per_address_max: u32) -> Admission {
        let by_address = Mutex::new(HashMap::new());
        Admission {
            total: AtomicU32::new(0),
            total_max,
            per_address_max,
            by_address,
        }
    }

    /// Lets a connection in, or not.
    pub(crate) fn enter(&self, peer: IpAddr) -> bool {
        if self.total.fetch_add(1, Ordering::Relaxed) >= self.total_max {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        if self.per_address_max == 0 {
            return true;
        }
        let mut counts = self
            .by_address
            .lock()
            .expect("nobody panics while counting");
        let count = counts.entry(counted_address(peer)).or_default();
        if *count >= self.per_address_max {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        *count += 1;
        true
    }

    /// A connection that was let in is gone.
    pub(crate) fn leave(&self, peer: IpAddr) {
        self.total.fetch_sub(1, Ordering::Relaxed);
        if self.per_address_max == 0 {
            return;
        }
        let mut counts = self
            .by_address
            .lock()
            .expect("nobody panics while counting");
        let address = counted_address(peer);
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_caps_refuse_the_next_and_let_in_again_after_one_left() {
        let (a, b): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let admission = Admission::new(3, 2);
        assert!(admission.enter(a) && admission.enter(a) && !admission.enter(a));
        assert!(admission.enter(b) && !admission.enter(b), "three are there");
        admission.leave(a);
        assert!(admission.enter(a));
        assert_eq!(admission.total.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_network_of_ipv6_has_one_cap() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let admission = Admission::new(9, 1);
        assert!(admission.enter(address("2001:db8::1")));
        assert!(!admission.enter(address("2001:db8::2")));
        assert!(admission.enter(address("2001:db8:0:1::2")));
        admission.leave(address("2001:db8::1"));
        assert!(admission.enter(address("2001:db8::2")));
    }
}
