//! Whether what came is what was expected.

use crate::element::Element;
use stanza::frame::{Frame, Limits, Scanner};
use stanza::scope::StreamScope;
use stanza::view::StreamHeader;
use std::collections::BTreeMap;

/// What the names in braces stand for.
pub(super) type Names = BTreeMap<String, String>;

/// Puts in what is known for every name in braces.
pub(super) fn fill(text: &str, names: &Names) -> String {
    let mut filled = text.to_owned();
    for (name, value) in names {
        filled = filled.replace(&format!("{{{name}}}"), value);
    }
    filled
}

/// Reads the elements of a block, in the scope of an ordinary client stream.
pub(super) fn elements(block: &str) -> Result<Vec<Element>, String> {
    let scope = scope();
    let mut scanner = Scanner::headless(Limits::default());
    let mut rest = block.as_bytes();
    let mut found = Vec::new();
    while !rest.is_empty() {
        match scanner.next(rest) {
            Ok(Frame::Element(size)) => {
                found.push(Element::parse(&rest[..size], &scope)?);
                rest = &rest[size..];
            }
            Ok(Frame::Whitespace(size)) => rest = &rest[size..],
            other => return Err(format!("{other:?} at {}", String::from_utf8_lossy(rest))),
        }
    }
    Ok(found)
}

fn scope() -> StreamScope {
    let header = crate::client::header("example.org");
    StreamHeader::parse(&header)
        .expect("our own header is well-formed")
        .scope
}

/// Compares; names that are met for the first time are remembered if all of it fits.
///
/// # Errors
/// The first difference.
pub(super) fn compare(want: &Element, got: &Element, names: &mut Names) -> Result<(), String> {
    let mut learned = names.clone();
    compare_with(want, got, &mut learned)?;
    *names = learned;
    Ok(())
}

fn compare_with(want: &Element, got: &Element, names: &mut Names) -> Result<(), String> {
    if (&want.name, &want.ns) != (&got.name, &got.ns) {
        let what = format!("{} in {}", want.name, want.ns);
        return Err(format!(
            "{what} was expected, not {} in {}",
            got.name, got.ns
        ));
    }
    for (name, value) in want.attributes.iter().filter(|(name, _)| *name != "etc") {
        let Some(found) = got.attributes.get(name) else {
            return Err(format!("{} lacks {name}='{value}'", want.name));
        };
        compare_value(value, found, names)
            .map_err(|error| format!("{name} of {}: {error}", want.name))?;
    }
    if !want.attributes.contains_key("etc") {
        let extra = got
            .attributes
            .keys()
            .find(|name| !want.attributes.contains_key(*name));
        if let Some(name) = extra {
            return Err(format!("{} has {name}='{}' too", want.name, got.attr(name)));
        }
    }
    let open = want
        .children
        .last()
        .is_some_and(|child| child.name == "etc");
    let count = want.children.len() - usize::from(open);
    if got.children.len() < count || (got.children.len() > count && !open) {
        return Err(format!("{} has {} children", want.name, got.children.len()));
    }
    for (want, got) in want.children.iter().take(count).zip(&got.children) {
        compare_with(want, got, names)?;
    }
    if open && want.text.is_empty() {
        return Ok(());
    }
    compare_value(&want.text, &got.text, names)
        .map_err(|error| format!("text of {}: {error}", want.name))
}

fn compare_value(want: &str, got: &str, names: &mut Names) -> Result<(), String> {
    let name = want
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'));
    match name {
        _ if want == "*" && !got.is_empty() => Ok(()),
        Some(name) if !names.contains_key(name) && !got.is_empty() => {
            names.insert(name.to_owned(), got.to_owned());
            Ok(())
        }
        Some(name) if names.get(name).is_some_and(|value| value == got) => Ok(()),
        None if want == got => Ok(()),
        _ => Err(format!("'{want}' was expected, not '{got}'")),
    }
}
