//! ANONYMOUS (RFC 4505): the client sends at most a trace, which nobody keeps.

use super::{First, SaslError};

/// Characters of the trace (RFC 4505 2).
const TRACE_CHARACTERS_MAX: usize = 255;

/// Accepts an empty trace or a short one in UTF-8; its content is personal data, so it is dropped.
pub(super) fn check(trace: &[u8]) -> Result<First, SaslError> {
    let text = std::str::from_utf8(trace).map_err(|_| SaslError::MalformedRequest)?;
    if text.chars().count() > TRACE_CHARACTERS_MAX {
        return Err(SaslError::MalformedRequest);
    }
    Ok(First::Anonymous)
}
