//! Refusing a configuration: one sentence with file, line and remedy.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use strsim::levenshtein;

/// Letters that a wrong key may be away from the one that is suggested, which has twice as many.
const DISTANCE_MAX: usize = 3;

/// For the one key that has no default.
const DOMAIN_REMEDY: &str = "write it like `domain = \"example.org\"`";

/// Why a configuration is refused.
#[derive(Debug)]
pub struct ConfigError(String);

impl ConfigError {
    /// `file[:line]: what; remedy`
    pub(super) fn new(file: &Path, line: Option<usize>, what: String, remedy: String) -> Self {
        let place = match line {
            Some(line) => format!("{}:{line}", file.display()),
            None => PathBuf::from(file).display().to_string(),
        };
        ConfigError(format!("{place}: {what}; {remedy}"))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Where a key is written, for what is found out about its value after the file was read.
#[derive(Clone, Debug)]
pub(super) struct Place {
    file: PathBuf,
    line: Option<usize>,
}

impl Place {
    /// Refuses what is written there.
    pub(super) fn refuse(&self, what: String, remedy: &str) -> ConfigError {
        ConfigError::new(&self.file, self.line, what, remedy.to_owned())
    }
}

/// The places of those keys whose values are looked at later.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) domain: Place,
    pub(super) data: Place,
    pub(super) cert: Place,
    pub(super) key: Place,
    pub(super) plain_without_tls: Place,
    pub(super) http: Place,
    pub(super) uploads: Place,
}

impl Places {
    pub(super) fn new(source: &Source<'_>) -> Places {
        Places {
            domain: source.place(None, "domain"),
            data: source.place(None, "data"),
            cert: source.place(Some("tls"), "cert"),
            key: source.place(Some("tls"), "key"),
            plain_without_tls: source.place(Some("auth"), "plain_without_tls"),
            http: source.place(Some("listen"), "http"),
            uploads: source.place(Some("upload"), "directory"),
        }
    }
}

/// The text that is complained about.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// Refuses the line that sets `key` in `section` (none: before the first section).
    pub(super) fn refuse(
        &self,
        section: Option<&str>,
        key: &str,
        what: String,
        remedy: &str,
    ) -> ConfigError {
        let line = self.line_of(section, key);
        ConfigError::new(self.path, line, what, remedy.to_owned())
    }

    /// Refuses what begins at this byte of the text.
    pub(super) fn refuse_at(&self, offset: usize, what: String, remedy: &str) -> ConfigError {
        let line = self.line_at(offset);
        ConfigError::new(self.path, Some(line), what, remedy.to_owned())
    }

    /// The line that sets `key` in `section`, for later.
    fn place(&self, section: Option<&str>, key: &str) -> Place {
        Place {
            file: self.path.to_owned(),
            line: self.line_of(section, key),
        }
    }

    /// Whether `key` of `section` is written.
    pub(super) fn has(&self, section: Option<&str>, key: &str) -> bool {
        self.line_of(section, key).is_some()
    }

    /// Refuses the whole file.
    pub(super) fn refuse_all(&self, what: &str, remedy: &str) -> ConfigError {
        ConfigError::new(self.path, None, what.to_owned(), remedy.to_owned())
    }

    /// Says in our words what the parser found.
    pub(super) fn complain(&self, error: &toml::de::Error) -> ConfigError {
        let at = error.span().unwrap_or(Range { start: 0, end: 0 });
        let line = self.line_at(at.start);
        let key = self.key_at(at.start);
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        let (what, remedy) = reword(&message, key);
        ConfigError::new(self.path, Some(line), what, remedy)
    }

    fn line_at(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        before.filter(|byte| **byte == b'\n').count() + 1
    }

    /// The key that is set on the line of `offset`, if it looks like one.
    fn key_at(&self, offset: usize) -> Option<&str> {
        let line = self.text.lines().nth(self.line_at(offset) - 1)?;
        let (key, _) = line.split_once('=')?;
        let key = key.trim();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        (!key.is_empty() && key.bytes().all(plain)).then_some(key)
    }

    fn line_of(&self, section: Option<&str>, key: &str) -> Option<usize> {
        let mut current = None;
        let dotted = section.map(|section| format!("{section}.{key}"));
        for (index, line) in self.text.lines().enumerate() {
            let line = line.trim();
            if let Some(name) = line.strip_prefix('[') {
                current = name.split(']').next().map(str::trim);
                continue;
            }
            let Some((name, _)) = line.split_once('=') else {
                continue;
            };
            let name = name.trim();
            let here = current == section && name == key;
            // `section.key = ..`, or the section as a table in one line.
            let above = dotted.as_deref() == Some(name) || section == Some(name);
            if here || (current.is_none() && above) {
                return Some(index + 1);
            }
        }
        None
    }
}

/// What the parser says, as what is wrong and what to do.
fn reword(message: &str, key: Option<&str>) -> (String, String) {
    if let Some(rest) = message.strip_prefix("unknown field ") {
        return unknown_key(rest);
    }
    let subject = key.map_or("the value".to_owned(), |key| format!("`{key}`"));
    let wrong = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "));
    if let Some((found, expected)) = wrong {
        let expected = match expected {
            "a boolean" => "true or false",
            "a string" | "path string" => "text in quotes",
            "a sequence" => "written with `[[` and `]]` around its name, once for each",
            other => other,
        };
        let remedy = match key {
            Some("domain") => DOMAIN_REMEDY,
            _ => "correct it, or remove the line to have the default",
        };
        return (
            format!("{subject} must be {expected}, not {found}"),
            remedy.to_owned(),
        );
    }
    // What our own values say has its remedy with it.
    if let Some((what, remedy)) = message.split_once("; ") {
        return (format!("{subject} {what}"), remedy.to_owned());
    }
    let remedy = "write `key = value` or `[section]`, each key once, and text in quotes";
    (format!("this is not TOML ({message})"), remedy.to_owned())
}

/// `rest` is the key in backticks and then the known ones.
fn unknown_key(rest: &str) -> (String, String) {
    let mut names = rest.split('`').skip(1).step_by(2);
    let unknown = names.next().unwrap_or_default();
    let known: Vec<&str> = names.collect();
    let nearest = known
        .iter()
        .map(|name| (levenshtein(unknown, name), *name))
        .filter(|(away, name)| *away <= DISTANCE_MAX && *away * 2 <= name.len())
        .min();
    let remedy = match nearest {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None if known.is_empty() => "remove it".to_owned(),
        None => format!("known here are {}", known.join(", ")),
    };
    (format!("unknown key `{unknown}`"), remedy)
}
