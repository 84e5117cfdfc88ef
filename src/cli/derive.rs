//! From passwords to keys, on all cores: an import derives three keys for every line.

use xmpp::port::Credentials;
use xmpp::settings::SCRAM_ITERATIONS_DEFAULT;
use xmpp::stream::sasl::derive_credentials;

use super::{Failure, password};

/// The keys of a new password, with fresh salts.
pub(crate) fn keys(password: &str) -> Result<Credentials, Failure> {
    let salts = password::salts()?;
    derive_credentials(password, &salts, SCRAM_ITERATIONS_DEFAULT)
        .map_err(|error| Failure(format!("The password cannot be used: {error}.")))
}

/// Calls `work` with every element, on as many threads as there are cores; results keep the order.
pub(crate) fn on_all_cores<T: Sync, R: Send>(
    elements: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let part = elements.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = elements
            .chunks(part)
            .map(|part| scope.spawn(|| part.iter().map(&work).collect::<Vec<R>>()))
            .collect();
        let results = parts.into_iter().map(|part| match part.join() {
            Ok(results) => results,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        results.flatten().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_of_the_elements() {
        let elements: Vec<u32> = (0..1001).collect();
        let doubled: Vec<u32> = elements.iter().map(|element| element * 2).collect();
        assert_eq!(on_all_cores(&elements, |element| element * 2), doubled);
        assert!(on_all_cores(&[], |element: &u32| *element).is_empty());
    }

    #[test]
    fn the_same_password_gives_other_keys_each_time() {
        let (first, second) = (keys("secret").unwrap(), keys("secret").unwrap());
        assert_ne!(first.sha256, second.sha256);
        assert!(keys("").is_err());
    }
}
