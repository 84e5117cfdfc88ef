//! Structured logs on standard error, as text or as one JSON object a line.

use std::io::IsTerminal as _;
use tracing_subscriber::filter::LevelFilter;

/// What is logged and how: the value of `log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least important level that is logged.
    pub level: LevelFilter,
    /// Whether each line is a JSON object.
    pub json: bool,
}

impl Default for Log {
    fn default() -> Log {
        Log {
            level: LevelFilter::INFO,
            json: false,
        }
    }
}

impl Log {
    /// Reads `info`, `json:debug` and the like.
    pub fn parse(text: &str) -> Option<Log> {
        let (json, level) = match text.strip_prefix("json:") {
            Some(level) => (true, level),
            None => (false, text),
        };
        let level = match level {
            "off" => LevelFilter::OFF,
            "error" => LevelFilter::ERROR,
            "warn" => LevelFilter::WARN,
            "info" => LevelFilter::INFO,
            "debug" => LevelFilter::DEBUG,
            "trace" => LevelFilter::TRACE,
            _ => return None,
        };
        Some(Log { level, json })
    }

    /// Starts logging; the first call of a process counts, `false` says that another was first.
    pub fn start(self) -> bool {
        let builder = tracing_subscriber::fmt()
            .with_max_level(self.level)
            .with_writer(std::io::stderr)
            .with_ansi(!self.json && std::io::stderr().is_terminal());
        if self.json {
            builder.json().flatten_event(true).try_init().is_ok()
        } else {
            builder.with_target(false).try_init().is_ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_the_form_are_read_and_nothing_else() {
        assert_eq!(Log::parse("info"), Some(Log::default()));
        let debug = Log {
            level: LevelFilter::DEBUG,
            json: true,
        };
        assert_eq!(Log::parse("json:debug"), Some(debug));
        for text in ["", "json", "json:", "loud", "INFO", "text:info"] {
            assert_eq!(Log::parse(text), None, "{text:?}");
        }
    }
}
