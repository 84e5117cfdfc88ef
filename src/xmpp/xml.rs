//! The few forms of XML that the server itself says: an escaped value inside a formatted text.

use std::fmt;

/// A value as it stands between the quotes of an attribute, or in text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attr<'a>(pub &'a str);

impl fmt::Display for Attr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut escaped = Vec::new();
        stanza::writer::escape_attr(self.0, &mut escaped);
        f.write_str(std::str::from_utf8(&escaped).expect("escaping keeps UTF-8"))
    }
}
