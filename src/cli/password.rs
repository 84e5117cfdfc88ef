//! Reading passwords, and the randomness of their salts.

use std::io::{self, BufRead, IsTerminal, Write};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use xmpp::stream::sasl::{SALT_SIZE, Salts};

use super::Failure;

/// The password given, or one line of stdin; on a terminal it is asked for twice without echo.
pub(crate) fn read(given: Option<String>, of: &str) -> Result<String, Failure> {
    if let Some(password) = given {
        return Ok(password);
    }
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return line(&mut stdin.lock());
    }
    let first = ask(&format!("Password for {of}: "))?;
    let second = ask("The same again: ")?;
    if first != second {
        return Err(Failure::new(
            "The two passwords differ; nothing was changed.",
        ));
    }
    Ok(first)
}

fn line(reader: &mut impl BufRead) -> Result<String, Failure> {
    let mut line = String::new();
    let size = reader
        .read_line(&mut line)
        .map_err(|error| Failure(format!("Cannot read the password from stdin: {error}.")))?;
    if size == 0 {
        return Err(Failure::new(
            "There is no password on stdin; write one line of it, or use --password.",
        ));
    }
    let password = line.strip_suffix('\n').unwrap_or(&line);
    Ok(password.strip_suffix('\r').unwrap_or(password).to_owned())
}

fn ask(prompt: &str) -> Result<String, Failure> {
    let refused = |error: io::Error| Failure(format!("Cannot ask for the password: {error}."));
    let stdin = io::stdin();
    eprint!("{prompt}");
    io::stderr().flush().map_err(refused)?;
    let before = tcgetattr(&stdin).map_err(|error| refused(error.into()))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(|error| refused(error.into()))?;
    let answer = line(&mut stdin.lock());
    let restored = tcsetattr(&stdin, OptionalActions::Now, &before);
    eprintln!();
    restored.map_err(|error| refused(error.into()))?;
    answer
}

/// Fresh salts for one account.
pub(crate) fn salts() -> Result<Salts, Failure> {
    let mut salts = [[0; SALT_SIZE]; 3];
    for salt in &mut salts {
        // Up to 256 bytes the kernel gives all or nothing (getrandom(2)).
        match rustix::rand::getrandom(&mut salt[..], rustix::rand::GetRandomFlags::empty()) {
            Ok(size) if size == SALT_SIZE => {}
            Ok(_) => return Err(Failure::new("The kernel gave too few random bytes.")),
            Err(error) => return Err(Failure(format!("The kernel gave no randomness: {error}."))),
        }
    }
    Ok(salts)
}
