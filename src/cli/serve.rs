//! `vorpal serve` and `vorpal check`.

use std::path::Path;
use std::process::ExitCode;

use runtime::admin::AdminSocket;
use runtime::config::Config;
use store::{Embedded, Lacking, Memory};
use xmpp::port::Store;
use xmpp::stream::sasl::Mechanism;

use super::Failure;

/// Runs the server until it is told to stop.
pub(crate) fn serve(
    path: &Path,
    ready_file: Option<&Path>,
    ephemeral: bool,
) -> Result<ExitCode, Failure> {
    // Before anything starts a thread: one that does not block the signals would be killed by them.
    let _blocked = runtime::EndSignals::block();
    if let Some(file) = ready_file {
        forget_dead(file)?;
    }
    let config = load(path)?;
    config.log.start();
    if let Err(error) = runtime::small_pages() {
        tracing::warn!("transparent huge pages stay on, sessions take more memory: {error}");
    }
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    if let Some(file) = ready_file {
        let parent = file.parent().filter(|parent| *parent != Path::new(""));
        if parent.is_some_and(|parent| !parent.is_dir()) {
            let file = file.display();
            return Err(Failure(format!(
                "Cannot write {file}: there is no such directory; make it, or name another file."
            )));
        }
    }
    let mut runtime_config = config
        .clone()
        .prepare()
        .map_err(|error| Failure::new(error.to_string()))?;
    let data = runtime_config.data.clone();
    let store: Box<dyn Store> = if ephemeral {
        tracing::warn!("accounts are kept in memory: they are gone when the server stops");
        if runtime_config.refuse_uploads() {
            tracing::warn!("so nothing can be uploaded");
        }
        Box::new(Memory::new())
    } else {
        let store = Embedded::open(&data).map_err(|error| Failure::new(error.to_string()))?;
        refuse_foreign(&config, &store)?;
        let settings = &mut runtime_config.settings;
        settings.upgrades = upgrades(&settings.mechanisms, store.lacking());
        offer_what_all_can(&mut settings.mechanisms, store.lacking());
        Box::new(store)
    };
    // Not before: it may be that of a server which has the store.
    if let Some(file) = ready_file {
        forget(file)?;
    }
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

/// Refuses a store of another domain: nobody in it could log in, and all would seem to be lost. One
/// that has accounts of this domain, too, is served; `vorpal user` works with any.
fn refuse_foreign(config: &Config, store: &Embedded) -> Result<(), Failure> {
    match store.foreign_account(&config.domain) {
        Ok(None) => Ok(()),
        Ok(Some(account)) => {
            let refusal = config.refuse_domain(account.domain());
            Err(Failure::new(refusal.to_string()))
        }
        Err(error) => Err(Failure(format!("The accounts cannot be listed: {error}."))),
    }
}

/// The mechanisms that would be offered if no account lacked a key, and that are worth to ask for
/// one: a hash that is weaker than the others is not.
fn upgrades(mechanisms: &[Mechanism], lacking: Lacking) -> Vec<Mechanism> {
    let of_hashes = [
        (Mechanism::ScramSha256, lacking.sha256),
        (Mechanism::ScramSha512, lacking.sha512),
    ];
    let lacked = of_hashes.into_iter().filter(|(_, count)| *count > 0);
    let wanted = lacked.map(|(mechanism, _)| mechanism).filter(|of_hash| {
        let mut all = mechanisms.iter();
        all.any(|one| one.as_str().starts_with(of_hash.as_str()))
    });
    wanted.collect()
}

/// Takes the mechanisms away for which some account has no key: its client would choose one of them
/// and fail. They come back when nobody lacks the key any more. What changes while the server runs
/// counts from its next start.
fn offer_what_all_can(mechanisms: &mut Vec<Mechanism>, lacking: Lacking) {
    mechanisms.retain(|mechanism| {
        let name = mechanism.as_str();
        let lacks = lacking.sha1 > 0 && name.starts_with("SCRAM-SHA-1")
            || lacking.sha256 > 0 && name.starts_with("SCRAM-SHA-256")
            || lacking.sha512 > 0 && name.starts_with("SCRAM-SHA-512");
        if lacks {
            tracing::warn!(
                mechanism = name,
                "not offered: imported accounts have no key for it"
            );
        }
        !lacks
    });
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
        if let Err(error) = std::fs::write(file, format!("{}\n", std::process::id())) {
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

/// Removes the ready file of a process that is gone: nothing is ready then.
fn forget_dead(file: &Path) -> Result<(), Failure> {
    let Ok(text) = std::fs::read_to_string(file) else {
        return Ok(());
    };
    // In a container the next process often has the number of the last one.
    let is_alive =
        |pid: u32| pid != std::process::id() && Path::new("/proc").join(pid.to_string()).exists();
    match text.trim().parse().is_ok_and(is_alive) {
        true => Ok(()),
        false => forget(file),
    }
}

/// Says whether the configuration can be served.
pub(crate) fn check(path: &Path) -> Result<ExitCode, Failure> {
    let config = load(path)?;
    config
        .check()
        .map_err(|error| Failure::new(error.to_string()))?;
    for warning in config.warnings() {
        eprintln!("{warning}.");
    }
    println!("{}: valid, for {}.", path.display(), config.domain);
    Ok(ExitCode::SUCCESS)
}

fn load(path: &Path) -> Result<Config, Failure> {
    Config::load(path).map_err(|error| Failure::new(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mechanism_is_offered_only_where_every_account_has_its_key() {
        let mut mechanisms = Mechanism::ALL.to_vec();
        let lacking = Lacking {
            sha256: 1,
            sha512: 2,
            ..Lacking::default()
        };
        assert_eq!(
            upgrades(&mechanisms, lacking),
            [Mechanism::ScramSha256, Mechanism::ScramSha512]
        );
        let only = [Mechanism::ScramSha512Plus, Mechanism::ScramSha1];
        assert_eq!(upgrades(&only, lacking), [Mechanism::ScramSha512]);
        let weak = Lacking {
            sha1: 1,
            ..Lacking::default()
        };
        assert_eq!(upgrades(&mechanisms, weak), []);
        offer_what_all_can(&mut mechanisms, lacking);
        let names: Vec<_> = mechanisms.iter().map(|known| known.as_str()).collect();
        assert_eq!(
            names,
            ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "PLAIN", "ANONYMOUS"]
        );
    }
}
