//! `vorpal backup` and `vorpal restore`: the whole store in one file, also of a running server.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use runtime::admin::Client;
use runtime::config::Config;
use store::backup::Backup;

use super::Failure;
use super::accounts::Accounts;

/// Writes a backup.
pub(crate) fn backup(config: &Path, file: &Path) -> Result<ExitCode, Failure> {
    let file = absolute(file)?;
    let count = Accounts::open(config)?.back_up(&file)?;
    println!("Wrote {count} records to {}.", file.display());
    Ok(ExitCode::SUCCESS)
}

/// Makes the store of a server from a backup.
pub(crate) fn restore(config: &Path, file: &Path) -> Result<ExitCode, Failure> {
    let config = Config::load(config).map_err(|error| Failure::new(error.to_string()))?;
    let running = Client::connect(&config.data).map_err(|error| Failure::new(error.to_string()))?;
    if running.is_some() {
        return Err(Failure(format!(
            "A server runs on {}; stop it, and restore into an empty data directory.",
            config.data.display()
        )));
    }
    let backup = Backup::open(file).map_err(Failure::new)?;
    let restored = backup.restore(&config.data).map_err(Failure::new)?;
    let (records, data) = (restored.records, config.data.display());
    println!("Restored {records} records into {data}.");
    if restored.sessions > 0 {
        let (sessions, messages) = (restored.sessions, restored.messages);
        println!("Ended {sessions} sessions; {messages} messages of theirs wait offline.");
    }
    Ok(ExitCode::SUCCESS)
}

/// A path that means the same to the server, which has another working directory.
fn absolute(file: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(file)
        .map_err(|error| Failure(format!("Cannot use {}: {error}.", file.display())))
}
