//! Refusing a scenario file: one sentence with file, line and remedy.

use std::ops::Range;
use std::path::Path;
use strsim::levenshtein;

/// Letters that a wrong key may be away from the one that is suggested.
const DISTANCE_MAX: usize = 3;

/// The text that is complained about.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// `file:line: what; remedy`
    pub(super) fn refuse(&self, at: &Range<usize>, what: &str, remedy: &str) -> String {
        let line = self.line_at(at.start);
        format!("{}:{line}: {what}; {remedy}", self.path.display())
    }

    /// Refuses the whole file.
    pub(super) fn refuse_all(&self, what: &str, remedy: &str) -> String {
        format!("{}: {what}; {remedy}", self.path.display())
    }

    /// Says in our words what the parser found.
    pub(super) fn complain(&self, error: &toml::de::Error) -> String {
        let at = error.span().unwrap_or(Range { start: 0, end: 0 });
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        let (what, remedy) = reword(&message, self.key_at(at.start));
        self.refuse(&at, &what, &remedy)
    }

    pub(super) fn line_at(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        before.filter(|byte| **byte == b'\n').count() + 1
    }

    /// The key that is set on the line of `offset`, if it looks like one.
    fn key_at(&self, offset: usize) -> Option<&str> {
        let line = self.text.lines().nth(self.line_at(offset) - 1)?;
        let key = line.split_once('=')?.0.trim();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        (!key.is_empty() && key.bytes().all(plain)).then_some(key)
    }
}

/// What the parser says, as what is wrong and what to do.
fn reword(message: &str, key: Option<&str>) -> (String, String) {
    if let Some(rest) = message.strip_prefix("unknown field ") {
        return unknown_key(rest);
    }
    if message.starts_with("missing field ") {
        let field = message.split('`').nth(1).unwrap_or_default();
        let remedy = match field {
            "mix" => "say what its clients do, as in `mix = { chat = 1 }`",
            "phase" => "begin one with a line `[[phase]]`",
            _ => "add it",
        };
        return (format!("`{field}` is missing here"), remedy.to_owned());
    }
    let wrong = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "));
    if let Some((found, expected)) = wrong {
        let subject = key.map_or("the value".to_owned(), |key| format!("`{key}`"));
        let expected = match expected {
            "a boolean" => "true or false",
            "a string" => "text in quotes",
            "f64" => "a number",
            "u16" => "a whole number, 0 to 65535",
            "u32" => "a whole number, 0 to 4294967295",
            "u64" => "a whole number, 0 or more",
            other => other,
        };
        let what = format!("{subject} must be {expected}, not {found}");
        let remedy = "correct it, or remove the line to have the default";
        return (what, remedy.to_owned());
    }
    let remedy = "write `key = value` or `[[phase]]`, each key once, and text in quotes";
    (format!("this is not TOML ({message})"), remedy.to_owned())
}

/// `rest` is the key in backticks and then the known ones.
fn unknown_key(rest: &str) -> (String, String) {
    let mut names = rest.split('`').skip(1).step_by(2);
    let unknown = names.next().unwrap_or_default();
    let known: Vec<&str> = names.collect();
    (format!("unknown key `{unknown}`"), nearest(unknown, &known))
}

/// What was meant by `unknown`, or all that is known.
pub(super) fn nearest(unknown: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|name| (levenshtein(unknown, name), *name))
        .filter(|(away, name)| *away <= DISTANCE_MAX && *away * 2 <= name.len())
        .min();
    match nearest {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => format!("known here are {}", known.join(", ")),
    }
}
