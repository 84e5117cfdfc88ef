//! The command line: what can be asked, and the words for what went wrong.

mod accounts;
mod backup;
mod delete;
mod derive;
mod element;
mod export;
mod import;
mod import227;
mod make;
mod nodes;
mod password;
mod serve;
mod user;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// A complete XMPP server.
#[derive(Debug, Parser)]
#[command(name = "vorpal", version, about, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server in the foreground.
    Serve {
        #[command(flatten)]
        config: ConfigFile,
        /// Create this file when all listeners are up.
        #[arg(long, value_name = "PATH")]
        ready_file: Option<PathBuf>,
        /// Keep accounts in memory only: everything is gone when the server stops.
        #[arg(long)]
        ephemeral: bool,
    },
    /// Read the configuration and say what is wrong with it.
    Check {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Write everything to one file, whether or not the server runs.
    Backup {
        /// The file to be written.
        file: PathBuf,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Make the store from a backup, in a data directory without one.
    Restore {
        /// The backup.
        file: PathBuf,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Write every account, but for its archive and its clients' tokens, in the format of XEP-0227.
    Export {
        /// The file to be written.
        file: PathBuf,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Create accounts with all they own from files in the format of XEP-0227.
    Import {
        /// The files, as Vorpal, Prosody and ejabberd write them.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Manage accounts, whether or not the server runs.
    #[command(subcommand)]
    User(UserCommand),
}

/// Where the configuration is.
#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration, in TOML.
    #[arg(long = "config", value_name = "FILE")]
    path: PathBuf,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Create an account. Without --password its password is read from the terminal or from stdin.
    Add {
        /// `romeo@domain`, or `romeo` for the domain of the configuration.
        jid: String,
        /// Visible to every user of this machine while the command runs.
        #[arg(long)]
        password: Option<String>,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Change an account's password; it is read as for `add`.
    Passwd {
        /// Whose.
        jid: String,
        /// Visible to every user of this machine while the command runs.
        #[arg(long)]
        password: Option<String>,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// End an account's sessions and make its clients' tokens void: they need the password again.
    Revoke {
        /// Whose.
        jid: String,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Delete an account with everything it owns.
    Del {
        /// Whose.
        jid: String,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Print every account, one JID a line, in order.
    List {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Create accounts from a file of passwords or SCRAM keys.
    #[command(long_about = import::HELP)]
    Import {
        /// The file.
        file: PathBuf,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Create many accounts for load tests. They share one salt: unsafe for anything else.
    Make {
        /// The local parts: %d counts from 0, as in `u%d`.
        pattern: String,
        /// How many.
        #[arg(long)]
        count: u64,
        /// The password of all of them.
        #[arg(long)]
        password: String,
        /// Make each K of them, in order, mutual contacts.
        #[arg(long, value_name = "K", default_value_t = 1)]
        clique: u64,
        #[command(flatten)]
        config: ConfigFile,
    },
}

/// Why a command did not succeed: sentences for the terminal.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    fn new(text: impl Into<String>) -> Failure {
        Failure(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Does what the arguments say.
pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    match arguments.command {
        Command::Serve {
            config,
            ready_file,
            ephemeral,
        } => serve::serve(&config.path, ready_file.as_deref(), ephemeral),
        Command::Check { config } => serve::check(&config.path),
        Command::Backup { file, config } => backup::backup(&config.path, &file),
        Command::Restore { file, config } => backup::restore(&config.path, &file),
        Command::Export { file, config } => export::export(&config.path, &file),
        Command::Import { files, config } => import227::import(&config.path, &files),
        Command::User(UserCommand::Add {
            jid,
            password,
            config,
        }) => user::add(&config.path, &jid, password),
        Command::User(UserCommand::Passwd {
            jid,
            password,
            config,
        }) => user::passwd(&config.path, &jid, password),
        Command::User(UserCommand::Revoke { jid, config }) => user::revoke(&config.path, &jid),
        Command::User(UserCommand::Del { jid, config }) => user::del(&config.path, &jid),
        Command::User(UserCommand::List { config }) => user::list(&config.path),
        Command::User(UserCommand::Import { file, config }) => import::import(&config.path, &file),
        Command::User(UserCommand::Make {
            pattern,
            count,
            password,
            clique,
            config,
        }) => make::make(
            &config.path,
            make::Plan {
                pattern,
                count,
                password,
                clique,
            },
        ),
    }
}
