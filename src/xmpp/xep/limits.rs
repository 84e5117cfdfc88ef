//! XEP-0478: Stream Limits Advertisement. The limits themselves stand in the stream features.

use super::{Extension, Xep};

/// Stream limits: only a stream feature, see `stream::features`.
#[derive(Debug)]
pub struct Limits;

impl Extension for Limits {
    const XEP: Xep = Xep {
        number: 478,
        version: "0.2.0",
    };
}
