//! `vorpal user add|passwd|revoke|del|list`: one account at a time.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use xmpp::port::{StoreOp, StoreReply};

use super::accounts::{Accounts, Place};
use super::{Failure, derive, password};

/// Creates an account.
pub(crate) fn add(config: &Path, name: &str, given: Option<String>) -> Result<ExitCode, Failure> {
    let place = Place::of(config)?;
    let account = place.new_name(name)?;
    let keys = derive::keys(&password::read(given, account.as_str())?)?;
    let op = StoreOp::CreateAccount {
        account: account.clone(),
        credentials: Box::new(keys),
    };
    match place.open()?.one(op)? {
        StoreReply::Done => {
            println!("Added {}.", account.as_str());
            Ok(ExitCode::SUCCESS)
        }
        _ => Err(Failure(format!(
            "{} exists already and was left as it is; `vorpal user passwd` changes its password.",
            account.as_str()
        ))),
    }
}

/// Changes an account's password.
pub(crate) fn passwd(
    config: &Path,
    name: &str,
    given: Option<String>,
) -> Result<ExitCode, Failure> {
    let place = Place::of(config)?;
    let account = place.name(name)?;
    let keys = derive::keys(&password::read(given, account.as_str())?)?;
    let op = StoreOp::SetCredentials {
        account: account.clone(),
        credentials: Box::new(keys),
        keeps: None,
    };
    match place.open()?.one(op)? {
        StoreReply::Done => {
            println!("Changed the password of {}.", account.as_str());
            Ok(ExitCode::SUCCESS)
        }
        _ => Err(missing(account.as_str())),
    }
}

/// Ends an account's sessions, and makes the tokens of its clients void.
pub(crate) fn revoke(config: &Path, name: &str) -> Result<ExitCode, Failure> {
    let place = Place::of(config)?;
    let account = place.name(name)?;
    let op = StoreOp::RemoveUserAgents {
        account: account.clone(),
        which: None,
    };
    match place.open()?.one(op)? {
        StoreReply::Done => {
            println!("Revoked what clients of {} had.", account.as_str());
            Ok(ExitCode::SUCCESS)
        }
        _ => Err(missing(account.as_str())),
    }
}

/// Deletes an account.
pub(crate) fn del(config: &Path, name: &str) -> Result<ExitCode, Failure> {
    let place = Place::of(config)?;
    let account = place.name(name)?;
    match place.open()?.delete(&account)? {
        StoreReply::Done => {
            println!("Deleted {}.", account.as_str());
            Ok(ExitCode::SUCCESS)
        }
        _ => Err(missing(account.as_str())),
    }
}

/// Prints every account.
pub(crate) fn list(config: &Path) -> Result<ExitCode, Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    Accounts::open(config)?.list(&mut |account| {
        written = writeln!(out, "{account}");
        written.is_ok()
    })?;
    match written.and_then(|()| out.flush()) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // `vorpal user list | head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(Failure(format!("Cannot write the list: {error}."))),
    }
}

fn missing(account: &str) -> Failure {
    Failure(format!(
        "There is no account {account}; `vorpal user list` names those there are."
    ))
}
