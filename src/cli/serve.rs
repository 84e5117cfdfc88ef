//! `vorpal serve` and `vorpal check`.

use std::path::Path;
use std::process::ExitCode;

use runtime::admin::AdminSocket;
use runtime::config::Config;
use store::{Embedded, Memory};
use xmpp::port::Store;

use super::Failure;

/// Runs the server until it is told to stop.
pub(crate) fn serve(
    path: &Path,
    ready_file: Option<&Path>,
    ephemeral: bool,
) -> Result<ExitCode, Failure> {
    // Before anything starts a thread: one that does not block the signals would be killed by them.
    let _blocked = runtime::EndSignals::block();
    let config = load(path)?;
    config.log.start();
    if let Some(file) = ready_file {
        forget(file)?;
    }
    let runtime_config = config
        .prepare()
        .map_err(|error| Failure::new(error.to_string()))?;
    let data = runtime_config.data.clone();
    let store: Box<dyn Store> = if ephemeral {
        tracing::warn!("accounts are kept in memory: they are gone when the server stops");
        Box::new(Memory::new())
    } else {
        Box::new(Embedded::open(&data).map_err(|error| Failure::new(error.to_string()))?)
    };
    let mut up = Up::default();
    let served = runtime::serve(runtime_config, store, |server| {
        up.announce(server, &data, ready_file);
    });
    drop(up.socket);
    if let Some(file) = ready_file {
        forget(file)?;
    }
    served.map_err(|error| Failure(format!("{error}.")))?;
    up.failure.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// What exists while connections are accepted.
#[derive(Default)]
struct Up {
    socket: Option<AdminSocket>,
    failure: Option<Failure>,
}

impl Up {
    fn announce(&mut self, server: &runtime::Server, data: &Path, ready_file: Option<&Path>) {
        for address in server.addresses() {
            tracing::info!(%address, "listening");
        }
        match AdminSocket::serve(data, server.control().clone()) {
            Ok(socket) => self.socket = Some(socket),
            // Clients are served all the same; only `vorpal user` has to wait for the end.
            Err(error) => tracing::error!(%error, "there is no admin socket"),
        }
        let Some(file) = ready_file else { return };
        if let Err(error) = std::fs::write(file, "") {
            tracing::error!(file = %file.display(), %error, "the ready file cannot be written");
            let file = file.display();
            self.failure = Some(Failure(format!("Could not write {file}: {error}.")));
        }
    }
}

/// Removes the ready file of an earlier run, which would announce this one too early.
fn forget(file: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure(format!(
            "Cannot remove {}: {error}.",
            file.display()
        ))),
        _ => Ok(()),
    }
}

/// Says whether the configuration can be served.
pub(crate) fn check(path: &Path) -> Result<ExitCode, Failure> {
    let config = load(path)?;
    config
        .check_certificate()
        .map_err(|error| Failure::new(error.to_string()))?;
    println!("{}: valid, for {}.", path.display(), config.domain);
    Ok(ExitCode::SUCCESS)
}

fn load(path: &Path) -> Result<Config, Failure> {
    Config::load(path).map_err(|error| Failure::new(error.to_string()))
}
