//! XEP-0474: SASL SCRAM Downgrade Protection. A client that authenticates by SCRAM learns, in what
//! the password protects, which mechanisms and channel bindings the server advertised to it: the
//! hash is made in `stream::sasl::offer` and told in `stream::sasl::scram`.

use super::{Extension, Xep};

/// Downgrade protection. It has no namespace: who knows it finds it in the exchange.
#[derive(Debug)]
pub struct Downgrade;

impl Extension for Downgrade {
    const XEP: Xep = Xep {
        number: 474,
        version: "0.5.0",
    };
}
