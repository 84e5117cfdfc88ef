//! The keeper of files that the simulated world has: it keeps none, and a file's name says what it
//! answers.

use xmpp::Timestamp;
use xmpp::xep::upload::{Slot, SlotAnswer, SlotRequest};

/// There is no room for a file of this name until [`ROOM_AT`].
pub const LATER: &str = "later";
/// There is no room for a file of this name.
pub const FULL: &str = "full";
/// A file of this name cannot be kept.
pub const BROKEN: &str = "broken";
/// 2001-09-09T01:46:40Z
pub const ROOM_AT: Timestamp = Timestamp(1_000_000_000_000_000);

/// What it says to a request.
pub(crate) fn slot(request: &SlotRequest) -> SlotAnswer {
    let SlotRequest {
        account,
        name,
        content_type,
        size,
    } = request;
    match &**name {
        LATER => SlotAnswer::Full(Some(ROOM_AT)),
        FULL => SlotAnswer::Full(None),
        BROKEN => SlotAnswer::Failed,
        name => SlotAnswer::Granted(Box::new(Slot {
            put: format!("https://files.example/{name}?{size}&{content_type}").into(),
            authorization: format!("Bearer {}", account.as_str()).into(),
            get: format!("https://files.example/{name}").into(),
        })),
    }
}
