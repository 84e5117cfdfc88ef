//! Text of others as a terminal may show it: what steers one is taken out where it is received.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// The text with a mark in the place of each control character but the end of a line.
pub(crate) fn plain(text: &str) -> String {
    let steers = |c: char| c.is_control() && c != '\n';
    text.replace(steers, "\u{fffd}")
}

/// Reads a text so.
pub(crate) fn text<'a, D: Deserializer<'a>>(from: D) -> Result<String, D::Error> {
    String::deserialize(from).map(|text| plain(&text))
}

/// Reads a text so, where there is one.
pub(crate) fn maybe<'a, D: Deserializer<'a>>(from: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    Ok(text.as_deref().map(plain))
}

/// Reads names so; those that are one then have one number, which is their sum.
pub(crate) fn names<'a, D: Deserializer<'a>>(from: D) -> Result<BTreeMap<String, u64>, D::Error> {
    let mut names = BTreeMap::<String, u64>::new();
    for (name, count) in BTreeMap::<String, u64>::deserialize(from)? {
        let sum = names.entry(plain(&name)).or_default();
        *sum = sum.saturating_add(count);
    }
    Ok(names)
}
