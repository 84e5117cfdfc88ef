//! XEP-0334: Message Processing Hints. What a sender wants to become of a message: `no-store` and
//! `no-permanent-store` keep it out of archives, queues and what waits (`is_of_the_moment`),
//! `store` brings it into archives (`crate::archive`), `no-copy` has no copies made of it
//! (`crate::xep::carbons`).

use super::{Extension, Xep};

/// Hints; whoever decides about a message reads them.
#[derive(Debug)]
pub struct Hints;

impl Extension for Hints {
    const XEP: Xep = Xep {
        number: 334,
        version: "1.0.0",
    };
}
