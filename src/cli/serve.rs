//! `vorpal serve` and `vorpal check`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use runtime::config::Config;

use super::Failure;

/// Runs the server until it is told to stop.
pub(crate) fn serve(
    config: &Path,
    ready_file: Option<PathBuf>,
    ephemeral: bool,
) -> Result<ExitCode, Failure> {
    let config = load(config)?;
    let _unused = (config, ready_file, ephemeral);
    Err(Failure::new("The runtime is not there yet."))
}

/// Says whether the configuration can be served.
pub(crate) fn check(path: &Path) -> Result<ExitCode, Failure> {
    let config = load(path)?;
    println!("{}: valid, for {}.", path.display(), config.domain);
    Ok(ExitCode::SUCCESS)
}

fn load(path: &Path) -> Result<Config, Failure> {
    Config::load(path).map_err(|error| Failure::new(error.to_string()))
}
