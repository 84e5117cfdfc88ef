//! XEP-0359: Unique and Stable Stanza IDs. What an archive knows a message by, its owner's clients
//! are told with the message; what clients claim of that kind is taken out before anybody sees it.

use super::{Extension, Xep};
use crate::settings::Settings;
use stanza::ns::Ns;

/// Stable ids, see [`crate::archive`] for how messages get them.
#[derive(Debug)]
pub struct StableIds;

impl Extension for StableIds {
    const XEP: Xep = Xep {
        number: 359,
        version: "0.7.0",
    };
    const ACCOUNT_FEATURES: &'static [Ns] = &[Ns::StanzaId];

    fn is_offered(settings: &Settings) -> bool {
        settings.archives()
    }
}
