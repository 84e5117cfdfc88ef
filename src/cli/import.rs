//! `vorpal user import`: accounts from a file of passwords, or of the SCRAM keys of another server.
//!
//! Invariant: a file with a line that cannot be used imports nothing; an account that exists
//! already is named and left as it is.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use runtime::admin::protocol::unhex;
use runtime::config::text_of;
use stanza::jid::BareJid;
use xmpp::port::{Credentials, ScramKey, WholeAccount};
use xmpp::settings::SCRAM_ITERATIONS_MAX;
use xmpp::stream::sasl::check_password;

use super::accounts::{self, Accounts, Trouble};
use super::{Failure, derive};

/// What `vorpal user import --help` says.
pub(crate) const HELP: &str = "\
Create accounts from a file of passwords or SCRAM keys, one account a line:

  romeo:password
  romeo:SCRAM-SHA-256$4096:SALT$STORED:SERVER
  romeo:{SCRAM-SHA-1}4096:SALT:STORED:SERVER

The name is a local part, or a JID of the domain of the configuration. The second form is that of \
RFC 5803 and of PostgreSQL, with salt and keys in base64. The third has Prosody's fields as its \
account files have them: the salt as it stands there, the keys in hexadecimal. SCRAM-SHA-1, \
SCRAM-SHA-256 and SCRAM-SHA-512 are known; the keys of several, separated by a space, may stand \
on one line. Empty lines and lines that begin with '# ' are skipped.

A line that cannot be used is named with its number, and then nothing is imported. Accounts that \
exist already are named and left as they are.";

/// Bad lines named before giving up on a file.
const REFUSALS_MAX: usize = 20;

/// Existing accounts named one by one; more are only counted.
const EXISTING_NAMED_MAX: u64 = 100;

/// Passwords derived before their accounts are written.
const BATCH: usize = 512;

/// One line of the file.
struct Entry<'a> {
    line: usize,
    account: BareJid,
    secret: Secret<'a>,
}

enum Secret<'a> {
    Password(&'a str),
    Keys(Box<Credentials>),
}

/// Imports a file.
pub(crate) fn import(config: &Path, file: &Path) -> Result<ExitCode, Failure> {
    let mut accounts = Accounts::open(config)?;
    let name = file.display();
    let bytes =
        std::fs::read(file).map_err(|error| Failure(format!("Cannot read {name}: {error}.")))?;
    let text = text_of(&bytes).map_err(|line| {
        Failure(format!(
            "{name}:{line}: This line is not UTF-8; convert the file first."
        ))
    })?;
    let entries = parse(text, accounts.domain())
        .map_err(|refusals| Failure(describe(&name.to_string(), &refusals)))?;
    let mut count = Count::default();
    let done = entries
        .chunks(BATCH)
        .try_for_each(|batch| create(&mut accounts, batch, &name.to_string(), &mut count));
    let Count {
        new,
        old,
        refused,
        partial,
    } = count;
    println!("Imported {new} accounts; {old} existed already and are as they were.");
    accounts::tell_partial(partial);
    done?;
    Ok(if old + refused == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// How many accounts there were of each kind.
#[derive(Default)]
struct Count {
    new: u64,
    old: u64,
    /// Those that a running server did not take.
    refused: u64,
    /// Those of the new ones that have keys for some hashes only.
    partial: u64,
}

/// Creates the accounts of some lines of a file.
fn create(
    accounts: &mut Accounts,
    batch: &[Entry<'_>],
    file: &str,
    count: &mut Count,
) -> Result<(), Failure> {
    let keys = derive::on_all_cores(batch, |entry| keys_of(entry, file));
    let made = keys.into_iter().collect::<Result<Vec<_>, Failure>>()?;
    let of_some = made
        .iter()
        .filter(|whole| accounts::is_partial(&whole.credentials));
    let mut partial: HashSet<BareJid> = of_some.map(|whole| whole.account.clone()).collect();
    let mut created = 0;
    let done = accounts.create(
        &mut made.into_iter(),
        &mut created,
        &mut |account, trouble| {
            partial.remove(account);
            let line = batch.iter().find(|entry| entry.account == *account);
            let line = line.map_or(0, |entry| entry.line);
            let name = account.as_str();
            match trouble {
                Trouble::Exists => {
                    count.old += 1;
                    if count.old <= EXISTING_NAMED_MAX {
                        eprintln!("vorpal: {file}:{line}: {name} exists already; left as it is.");
                    }
                }
                Trouble::Refused(why) => {
                    count.refused += 1;
                    eprintln!("vorpal: {file}:{line}: {name}: {why}");
                }
            }
        },
    );
    count.new += created;
    count.partial += created.min(partial.len() as u64);
    done
}

fn describe(file: &str, refusals: &[(usize, String)]) -> String {
    let mut text = String::from("Nothing was imported.");
    for (line, refusal) in refusals {
        let _infallible = write!(text, "\n{file}:{line}: {refusal}");
    }
    if refusals.len() == REFUSALS_MAX {
        text.push_str("\nThere may be more.");
    }
    text
}

fn keys_of(entry: &Entry<'_>, file: &str) -> Result<WholeAccount, Failure> {
    let keys = match &entry.secret {
        Secret::Keys(keys) => (**keys).clone(),
        Secret::Password(password) => derive::keys(password)
            .map_err(|failure| Failure(format!("{file}:{}: {failure}", entry.line)))?,
    };
    Ok(WholeAccount::new(entry.account.clone(), keys))
}

/// Every account of the file, or the lines that cannot be used and why.
fn parse<'a>(text: &'a str, domain: &str) -> Result<Vec<Entry<'a>>, Vec<(usize, String)>> {
    let mut entries: Vec<Entry<'a>> = Vec::new();
    let mut refusals = Vec::new();
    let mut seen = std::collections::HashMap::new();
    for (line, content) in (1..).zip(text.lines()) {
        if content.trim().is_empty() || content.starts_with("# ") || content == "#" {
            continue;
        }
        let entry = entry(content, domain).and_then(|(account, secret)| {
            match seen.insert(account.clone(), line) {
                Some(before) => Err(format!(
                    "{} stands on line {before} too; remove one.",
                    account.as_str()
                )),
                None => Ok(Entry {
                    line,
                    account,
                    secret,
                }),
            }
        });
        match entry {
            Ok(entry) => entries.push(entry),
            Err(refusal) => refusals.push((line, refusal)),
        }
        if refusals.len() == REFUSALS_MAX {
            break;
        }
    }
    if refusals.is_empty() {
        Ok(entries)
    } else {
        Err(refusals)
    }
}

fn entry<'a>(content: &'a str, domain: &str) -> Result<(BareJid, Secret<'a>), String> {
    let Some((name, secret)) = content.split_once(':') else {
        return Err("There is no colon; write `name:password` or `name:keys`.".into());
    };
    let account = accounts::new_name(name, domain)?;
    if secret.starts_with("SCRAM-SHA-") || secret.starts_with("{SCRAM-SHA-") {
        let mut keys = Credentials::default();
        secret
            .split_ascii_whitespace()
            .try_for_each(|text| add_key(&mut keys, text))?;
        return Ok((account, Secret::Keys(Box::new(keys))));
    }
    match check_password(secret) {
        Ok(()) => Ok((account, Secret::Password(secret))),
        Err(why) => Err(format!(
            "The line of {} cannot be used: {why}.",
            account.as_str()
        )),
    }
}

fn add_key(keys: &mut Credentials, text: &str) -> Result<(), String> {
    let form = "write SCRAM-SHA-256$iterations:salt$stored:server in base64, or \
                {SCRAM-SHA-1}iterations:salt:stored:server with keys in hexadecimal.";
    let unreadable = || format!("These SCRAM keys cannot be read; {form}");
    let (name, key) = match text.strip_prefix('{') {
        Some(rest) => {
            let (name, fields) = rest.split_once('}').ok_or_else(unreadable)?;
            (name, key_of_prosody(fields).ok_or_else(unreadable)?)
        }
        None => {
            let (name, fields) = text.split_once('$').ok_or_else(unreadable)?;
            (name, key_of_rfc5803(fields).ok_or_else(unreadable)?)
        }
    };
    let (slot, size) = match name {
        "SCRAM-SHA-1" => (&mut keys.sha1, 20),
        "SCRAM-SHA-256" => (&mut keys.sha256, 32),
        "SCRAM-SHA-512" => (&mut keys.sha512, 64),
        other => {
            return Err(format!(
                "{other} is not known; SCRAM-SHA-1, SCRAM-SHA-256 and SCRAM-SHA-512 are."
            ));
        }
    };
    if key.stored_key.len() != size || key.server_key.len() != size {
        return Err(format!(
            "Keys of {name} have {size} bytes each, these have not; {form}"
        ));
    }
    const ITERATIONS: Range<u32> = 1..SCRAM_ITERATIONS_MAX + 1;
    if !ITERATIONS.contains(&key.iterations) || key.salt.is_empty() {
        return Err(format!(
            "Keys need a salt and from 1 to {SCRAM_ITERATIONS_MAX} iterations; set a new password."
        ));
    }
    match slot.replace(key) {
        Some(_) => Err(format!("There are two keys for {name}; remove one.")),
        None => Ok(()),
    }
}

/// `iterations:salt$stored:server`, all but the first in base64.
fn key_of_rfc5803(fields: &str) -> Option<ScramKey> {
    let decode = |text: &str| STANDARD.decode(text).ok().map(Vec::into_boxed_slice);
    let (info, value) = fields.split_once('$')?;
    let (iterations, salt) = info.split_once(':')?;
    let (stored_key, server_key) = value.split_once(':')?;
    Some(ScramKey {
        salt: decode(salt)?,
        iterations: iterations.parse().ok()?,
        stored_key: decode(stored_key)?,
        server_key: decode(server_key)?,
    })
}

/// `iterations:salt:stored:server`, the salt as it is and the keys in hexadecimal.
fn key_of_prosody(fields: &str) -> Option<ScramKey> {
    let (iterations, rest) = fields.split_once(':')?;
    let (rest, server_key) = rest.rsplit_once(':')?;
    let (salt, stored_key) = rest.rsplit_once(':')?;
    Some(ScramKey {
        salt: salt.as_bytes().into(),
        iterations: iterations.parse().ok()?,
        stored_key: unhex(stored_key)?,
        server_key: unhex(server_key)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use xmpp::stream::sasl::derive_credentials;

    const DOMAIN: &str = "a.example";

    fn refusal(text: &str) -> (usize, String) {
        match parse(text, DOMAIN) {
            Ok(_) => panic!("{text:?} should have been refused"),
            Err(mut refusals) => refusals.remove(0),
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn passwords_keep_their_colons_and_spaces() {
        let text = "# people\n\nromeo:with: colon and space \njuliet@a.example:x\r\n";
        let entries = parse(text, DOMAIN).unwrap_or_default();
        let [romeo, juliet] = &entries[..] else {
            panic!("{} entries", entries.len())
        };
        assert_eq!((romeo.line, romeo.account.as_str()), (3, "romeo@a.example"));
        assert!(matches!(
            romeo.secret,
            Secret::Password("with: colon and space ")
        ));
        assert_eq!(
            (juliet.line, juliet.account.as_str()),
            (4, "juliet@a.example")
        );
        assert!(matches!(juliet.secret, Secret::Password("x")));
    }

    #[test]
    fn both_forms_of_keys_are_those_of_the_password() {
        let salts = [*b"0123456789abcdef"; 3];
        let made = derive_credentials("pencil", &salts, 4096).unwrap();
        let (sha1, sha256) = (made.sha1.as_ref().unwrap(), made.sha256.as_ref().unwrap());
        let base64 = |bytes: &[u8]| STANDARD.encode(bytes);
        let postgresql = format!(
            "SCRAM-SHA-256$4096:{}${}:{}",
            base64(&sha256.salt),
            base64(&sha256.stored_key),
            base64(&sha256.server_key)
        );
        let prosody = format!(
            "{{SCRAM-SHA-1}}4096:0123456789abcdef:{}:{}",
            hex(&sha1.stored_key),
            hex(&sha1.server_key)
        );
        let text = format!("one:{postgresql}\ntwo:{prosody}\nboth:{prosody} {postgresql}\n");
        let entries = parse(&text, DOMAIN).unwrap_or_default();
        let keys = |index: usize| match &entries[index].secret {
            Secret::Keys(keys) => (**keys).clone(),
            Secret::Password(password) => panic!("{password:?} was taken for a password"),
        };
        let none = Credentials::default();
        assert_eq!(
            keys(0),
            Credentials {
                sha256: made.sha256.clone(),
                ..none.clone()
            }
        );
        assert_eq!(
            keys(1),
            Credentials {
                sha1: made.sha1.clone(),
                ..none
            }
        );
        assert_eq!(
            keys(2),
            Credentials {
                sha512: None,
                ..made.clone()
            }
        );
    }

    #[test]
    fn a_bad_line_is_named_with_its_number_and_a_remedy() {
        let cases = [
            ("a:x\nromeo\n", 2, "name:password"),
            ("romeo:\n", 1, "choose another"),
            ("romeo@b.example:x", 1, "the domain of the configuration"),
            ("a:x\nb:y\nA:z", 3, "line 1 too"),
            ("straße:x", 1, "choose another"),
            ("a:SCRAM-SHA-1$", 1, "iterations:salt"),
            ("a:SCRAM-SHA-1$4096:c2FsdA==$AAAA:AAAA", 1, "20 bytes"),
            (
                "a:{SCRAM-MD5}4096:s:00:00\nb:{SCRAM-SHA-2}1:s:00:00",
                2,
                "is not known",
            ),
        ];
        for (text, line, remedy) in cases {
            let (found, refusal) = refusal(text);
            assert_eq!(found, line, "{text:?}: {refusal}");
            assert!(refusal.contains(remedy), "{text:?}: {refusal}");
        }
        let (line, refused) = refusal(&format!("a:x\nb:{}", "y".repeat(1_024)));
        assert!(
            line == 2 && refused.contains("longer than 1023 bytes"),
            "{refused}"
        );
        let key = "00".repeat(20);
        for iterations in ["0", "99999999", "-1", "x"] {
            refusal(&format!("a:{{SCRAM-SHA-1}}{iterations}:salt:{key}:{key}"));
        }
        let twice = format!("{{SCRAM-SHA-1}}4096:salt:{key}:{key}");
        let (_, refused) = refusal(&format!("a:{twice} {twice}"));
        assert!(refused.contains("two keys"), "{refused}");
    }

    #[test]
    fn a_hopeless_file_is_given_up_on() {
        let text = "no colon\n".repeat(10 * REFUSALS_MAX);
        let refusals = parse(&text, DOMAIN).err().unwrap();
        assert_eq!(refusals.len(), REFUSALS_MAX);
        assert!(describe("f", &refusals).ends_with("There may be more."));
    }
}
