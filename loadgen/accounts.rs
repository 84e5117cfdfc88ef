//! Whose names the clients log in under.

use std::path::Path;
use std::sync::Arc;

/// Where names and passwords come from.
#[derive(Clone, Debug)]
pub enum Accounts {
    /// A pattern in which `%d` is the client's number, and one password for all.
    Pattern {
        /// Such as `u%d`.
        user: String,
        /// Of every account; may contain `%d` too.
        password: Arc<str>,
    },
    /// Lines of `user:password`.
    File {
        /// The client whose line is the first.
        first: u32,
        /// One for each client from that on.
        lines: Vec<(String, Arc<str>)>,
    },
    /// SASL ANONYMOUS: the server names them.
    Anonymous,
}

impl Accounts {
    /// Reads lines of `user:password`; equal passwords are stored once.
    ///
    /// # Errors
    /// What is wrong, with the line.
    pub fn read(path: &Path) -> Result<Accounts, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Accounts::parse(&path.display().to_string(), 0, &text)
    }

    /// The same of a text that came from `name`, whose first line is that of client `first`.
    ///
    /// # Errors
    /// What is wrong, with the line.
    pub fn parse(name: &str, first: u32, text: &str) -> Result<Accounts, String> {
        let mut accounts: Vec<(String, Arc<str>)> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (user, password) = line
                .split_once(':')
                .ok_or_else(|| format!("{name}:{}: expected `user:password`", index + 1))?;
            let password = match accounts.last() {
                Some((_, last)) if &**last == password => last.clone(),
                _ => password.into(),
            };
            accounts.push((user.to_owned(), password));
        }
        let lines = accounts;
        Ok(Accounts::File { first, lines })
    }

    /// The name and password of client `index`; none for anonymous ones.
    pub fn of(&self, index: u32) -> Option<(String, Arc<str>)> {
        match self {
            Accounts::Pattern { user, password } => {
                let number = index.to_string();
                let password = match password.contains("%d") {
                    true => password.replace("%d", &number).into(),
                    false => password.clone(),
                };
                Some((user.replace("%d", &number), password))
            }
            Accounts::File { first, lines } => {
                let at = index.checked_sub(*first)? as usize;
                lines.get(at).cloned()
            }
            Accounts::Anonymous => None,
        }
    }

    /// How many there are, where that is bounded.
    pub fn count(&self) -> Option<u32> {
        match self {
            Accounts::Pattern { user, .. } if !user.contains("%d") => Some(1),
            Accounts::Pattern { .. } | Accounts::Anonymous => None,
            Accounts::File { first, lines } => Some(first + lines.len() as u32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_numbers_its_users() {
        let accounts = Accounts::Pattern {
            user: "u%d".into(),
            password: "p%d".into(),
        };
        assert_eq!(accounts.of(12), Some(("u12".into(), "p12".into())));
        assert_eq!(accounts.count(), None);
    }

    #[test]
    fn a_file_gives_its_lines_and_names_the_bad_one() {
        let path = std::env::temp_dir().join(format!("loadgen-lines-{}", std::process::id()));
        std::fs::write(&path, "# ours\na:x\nb:y:z\n").unwrap();
        let accounts = Accounts::read(&path).unwrap();
        assert_eq!(accounts.count(), Some(2));
        assert_eq!(accounts.of(1), Some(("b".into(), "y:z".into())));
        std::fs::write(&path, "a:x\nbad\n").unwrap();
        let error = Accounts::read(&path).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert!(error.ends_with(":2: expected `user:password`"), "{error}");
    }
}
