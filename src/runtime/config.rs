//! The configuration file: TOML in which every key is optional but `domain`.
//!
//! Invariant: what [`Config::load`] and [`Config::check`] let through can be served where its
//! addresses are free and memory suffices; everything else is refused by one sentence with the
//! file, the line and what to do about it. `docs/CONFIGURATION.md` has every key.

mod complaint;
mod components;
mod directory;
mod file;
mod push;
mod services;
mod upload;
mod value;
mod web;

pub use complaint::ConfigError;

use crate::certificate::{self, About, CertificateError, write_private};
use crate::logging::Log;
use crate::transport::http::Site;
use crate::transport::tls::ServerConfigs;
use crate::uploads::slot::Keys;
use crate::uploads::{self, UploadConfig};
use complaint::{Places, Source};
use file::File;
use stanza::jid::BareJid;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use xmpp::Settings;
use xmpp::limit::Limits;
use xmpp::settings::{AgentPolicy, ArchivePolicy, Durability};
use xmpp::stream::sasl::Mechanism;
use xmpp::xep::components::Component;
use xmpp::xep::external_services::ExternalService;
use xmpp::xep::push::PushPolicy;
use xmpp::xep::upload::UploadPolicy;

/// Bytes of a configuration file; a larger one is something else.
const FILE_SIZE_MAX: u64 = 1 << 20;

/// Shards at most: each has a thread and a ring, and there are as many virtual ones.
pub const SHARDS_MAX: u16 = 4096;

/// How long a shard may look for something to do before it sleeps, in microseconds: longer is
/// never the end of a wait, and a core that is burnt.
pub const IDLE_SPIN_US_MAX: u64 = 1_000;

/// Bytes that may wait for one connection before it is cut as a slow consumer, unless configured.
pub const OUTPUT_MAX_DEFAULT: usize = 1 << 20;

/// Connections from one address, unless configured: a large site behind one address passes.
pub const CONNECTIONS_PER_ADDRESS_MAX_DEFAULT: u32 = 10_000;

/// Connections of the whole process, unless configured: no wish, so as many as one shard for each
/// core can hold. A configured number may ask for more shards than that.
pub const CONNECTIONS_MAX_DEFAULT: u32 = u32::MAX;

/// What makes the salts of unknown users, in the data directory.
const SALT_SECRET_FILE: &str = "salt.secret";

/// Where the self-signed certificate is, in the data directory.
const OWN_CERTIFICATE_DIRECTORY: &str = "tls";

/// A configuration that makes sense; nothing but the file has been looked at yet.
#[derive(Clone, Debug)]
pub struct Config {
    /// The domain served, prepared.
    pub domain: Box<str>,
    /// Where everything is kept.
    pub data: PathBuf,
    /// Where that is written, and other keys that are looked at later.
    places: Places,
    /// How many shards; `None` is one for each core.
    pub shards: Option<u16>,
    /// How long a shard stays awake for what may come.
    pub idle_spin: Duration,
    /// What is logged.
    pub log: Log,
    /// Where clients connect in clear, to go on with STARTTLS.
    pub c2s: Vec<SocketAddr>,
    /// Where clients connect with TLS.
    pub c2s_tls: Vec<SocketAddr>,
    /// Where clients of the web connect in clear.
    pub http: Vec<SocketAddr>,
    /// Where clients of the web connect with TLS.
    pub https: Vec<SocketAddr>,
    /// What these are served.
    pub site: Site,
    /// Where components connect.
    pub component: Vec<SocketAddr>,
    /// Who may connect as which domain there (XEP-0114).
    pub components: Vec<Component>,
    /// The files of the certificate chain and of its key; `None` is a self-signed one.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Whether nothing but STARTTLS is offered in clear.
    pub tls_required: bool,
    /// The mechanisms allowed.
    pub mechanisms: Vec<Mechanism>,
    /// Whether PLAIN is allowed in clear.
    pub plain_without_tls: bool,
    /// Whether ANONYMOUS is offered.
    pub anonymous: bool,
    /// What is kept of user agents, and their tokens (XEP-0484).
    pub agents: AgentPolicy,
    /// Whether anybody may create an account.
    pub registration_open: bool,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// Whether messages are archived (XEP-0313).
    pub archive: bool,
    /// What archives keep.
    pub retention: ArchivePolicy,
    /// Who administers the server by commands (XEP-0133), sorted.
    pub admins: Vec<BareJid>,
    /// Where it is said whether the server is out of service (XEP-0455).
    pub status_addresses: Vec<Box<str>>,
    /// Kinds of contact with their addresses (XEP-0157).
    pub contacts: Vec<(Box<str>, Vec<Box<str>>)>,
    /// What clients are told of that runs beside the server (XEP-0215).
    pub external_services: Vec<ExternalService>,
    /// The files that users may put on the server, if they may.
    pub uploads: Option<UploadConfig>,
    /// Whether devices that are away are notified, and of what (XEP-0357).
    pub push: Option<PushPolicy>,
    /// The limits of the protocol.
    pub limits: Limits,
    /// Bytes that may wait for one connection before it is cut.
    pub output_max: usize,
    /// Connections from one address.
    pub connections_per_address_max: u32,
    /// Connections of the whole process.
    pub connections_max: u32,
}

/// What the runtime serves with: the configuration and what belongs to it on the disk.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// What the shards know; `shards` is the number to start with.
    pub settings: Settings,
    /// Whether that number was configured, so that no other may be chosen.
    pub shards_fixed: bool,
    /// How long a shard stays awake for what may come.
    pub idle_spin: Duration,
    /// Where clients connect in clear.
    pub c2s: Vec<SocketAddr>,
    /// Where clients connect with TLS.
    pub c2s_tls: Vec<SocketAddr>,
    /// Where clients of the web connect in clear.
    pub http: Vec<SocketAddr>,
    /// Where clients of the web connect with TLS.
    pub https: Vec<SocketAddr>,
    /// What these are served.
    pub site: Site,
    /// Where components connect.
    pub component: Vec<SocketAddr>,
    /// Our side of handshakes.
    pub tls: ServerConfigs,
    /// The files that users may put on the server, if they may.
    pub uploads: Option<UploadConfig>,
    /// The data directory; it exists.
    pub data: PathBuf,
    /// Bytes that may wait for one connection before it is cut.
    pub output_max: usize,
    /// Connections from one address.
    pub connections_per_address_max: u32,
    /// Connections of the whole process.
    pub connections_max: u32,
}

/// What an operator's file says.
///
/// # Errors
/// The number of the line that is not UTF-8.
pub fn text_of(bytes: &[u8]) -> Result<&str, usize> {
    std::str::from_utf8(bytes).map_err(|error| {
        let good = &bytes[..error.valid_up_to()];
        1 + good.iter().filter(|byte| **byte == b'\n').count()
    })
}

impl Config {
    /// Reads a file; paths in it are relative to its directory.
    ///
    /// # Errors
    /// The first thing in it that makes no sense.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let unreadable = |what: String| {
            let remedy = "name an existing file of TOML with --config".to_owned();
            ConfigError::new(path, None, what, remedy)
        };
        let metadata = fs::metadata(path)
            .map_err(|error| unreadable(format!("it cannot be read ({error})")))?;
        if !metadata.is_file() || metadata.len() > FILE_SIZE_MAX {
            return Err(unreadable("it is no configuration file".to_owned()));
        }
        let bytes =
            fs::read(path).map_err(|error| unreadable(format!("it cannot be read ({error})")))?;
        let text = text_of(&bytes).map_err(|line| {
            let what = "this line is not UTF-8".to_owned();
            ConfigError::new(path, Some(line), what, "convert the file".to_owned())
        })?;
        Config::parse(path, text)
    }

    /// Reads the text of the file at `path`, which need not exist.
    ///
    /// # Errors
    /// The first thing in it that makes no sense.
    pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
        let source = Source { path, text };
        let file: File = toml::from_str(text).map_err(|error| source.complain(&error))?;
        file.check(&source)
    }

    /// What the shards need to know. The secret behind the salts of unknown users is not in it: see
    /// [`Config::prepare`].
    pub fn settings(&self) -> Settings {
        Settings {
            shards: self.shards.unwrap_or_else(cores),
            limits: self.limits.clone(),
            tls_available: true,
            tls_required: self.tls_required,
            mechanisms: self.mechanisms.clone(),
            plain_without_tls: self.plain_without_tls,
            anonymous: self.anonymous,
            agents: self.agents,
            registration_open: self.registration_open,
            durability: self.durability,
            archive: self.archive,
            retention: self.retention,
            admins: self.admins.clone(),
            status_addresses: self.status_addresses.clone(),
            contacts: self.contacts.clone(),
            external_services: self.external_services.clone(),
            uploads: self
                .uploads
                .as_ref()
                .map(|it| UploadPolicy::new(it.size_max)),
            push: self.push,
            components: self.components.clone(),
            ..Settings::new(&self.domain)
        }
    }

    /// What is written and has no effect, one sentence for each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.plain_without_tls && self.tls_required {
            let what = "auth.plain_without_tls has no effect, because clients must use TLS";
            let remedy = "set tls.required to false, or remove it";
            let place = &self.places.plain_without_tls;
            warnings.push(place.refuse(what.to_owned(), remedy).to_string());
        }
        if !self.http.is_empty() && self.site.must_secure && self.site.trusted_proxies.is_empty() {
            let what = "nobody can log in over listen.http, because clients must use TLS and no \
                        proxy is trusted to see to it";
            let remedy = "name the proxy in web.trusted_proxies, or use listen.https";
            warnings.push(self.places.http.refuse(what.to_owned(), remedy).to_string());
        }
        warnings
    }

    /// Looks at what belongs to the configuration on the disk, and changes nothing there.
    ///
    /// # Errors
    /// Why the server cannot start.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_data()?;
        let looked_at = match &self.certificate {
            Some((chain, key)) => certificate::load(chain, key).map(drop),
            None => certificate::check_self_signed(&self.own_certificate(), &self.domain),
        };
        looked_at.map_err(|error| self.refuse_certificate(&error))?;
        if let Some(uploads) = &self.uploads {
            directory::check(&uploads.directory).map_err(|what| {
                let shown = uploads.directory.display();
                let what = format!("upload.directory is {shown}, but {what}");
                let remedy = "let it name a directory that the server's user may write";
                self.places.uploads.refuse(what, remedy)
            })?;
        }
        self.salt_secret().map(drop)
    }

    /// Whether everything can be kept below the data directory.
    fn check_data(&self) -> Result<(), ConfigError> {
        let own = self.certificate.is_none().then(|| self.own_certificate());
        let within = [Some(self.data.join(store::DIRECTORY)), own];
        for directory in std::iter::once(self.data.clone()).chain(within.into_iter().flatten()) {
            directory::check(&directory).map_err(|what| self.refuse_data(&what))?;
        }
        Ok(())
    }

    /// Refuses the domain, because all accounts of the store are of another one.
    pub fn refuse_domain(&self, other: &str) -> ConfigError {
        let what = format!(
            "`domain` is {}, but every account in {} is of {other}",
            self.domain,
            self.data.display()
        );
        let remedy = "let it be that one, or let `data` name another directory";
        self.places.domain.refuse(what, remedy)
    }

    fn refuse_data(&self, what: &str) -> ConfigError {
        let what = format!("`data` is {}, but {what}", self.data.display());
        let remedy = "let it name a directory that the server's user may write";
        self.places.data.refuse(what, remedy)
    }

    fn refuse_certificate(&self, error: &CertificateError) -> ConfigError {
        let (file, what) = (error.file.display(), &error.what);
        let places = &self.places;
        let (place, what) = match error.about {
            About::Chain => (&places.cert, format!("tls.cert is {file}, but {what}")),
            About::Key => (&places.key, format!("tls.key is {file}, but {what}")),
            About::Own => (&places.data, format!("`data` has {file}, but {what}")),
            About::Domain => (&places.domain, what.clone()),
        };
        place.refuse(what, error.remedy)
    }

    /// The secret of the data directory, where it has one.
    fn salt_secret(&self) -> Result<Option<[u8; 32]>, ConfigError> {
        match fs::read(self.data.join(SALT_SECRET_FILE)) {
            Ok(bytes) => bytes.try_into().map(Some).map_err(|_| {
                let remedy = "restore it, or remove it to have another one made";
                self.refuse_secret("it is not the 32 bytes it was", remedy)
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let what = format!("it cannot be read ({error})");
                Err(self.refuse_secret(&what, "let the server's user read it"))
            }
        }
    }

    /// Makes the secret at the first start: the salts must stay the same.
    fn make_salt_secret(&self) -> Result<[u8; 32], ConfigError> {
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret)
            .map_err(|_| self.refuse_secret("there is no randomness", "check the kernel"))?;
        write_private(&self.data.join(SALT_SECRET_FILE), &secret).map_err(|error| {
            let remedy = "let `data` name a directory that the server's user may write";
            self.refuse_secret(&format!("it cannot be written ({error})"), remedy)
        })?;
        Ok(secret)
    }

    fn refuse_secret(&self, what: &str, remedy: &str) -> ConfigError {
        let file = self.data.join(SALT_SECRET_FILE);
        let what = format!("`data` has {}, but {what}", file.display());
        self.places.data.refuse(what, remedy)
    }

    /// Removes the files of an account that is no more, where no server runs that would.
    ///
    /// # Errors
    /// The secret's, or the directory's.
    pub fn remove_uploads(&self, account: &BareJid) -> Result<(), String> {
        self.with_uploads(|directory, keys| uploads::remove(directory, keys, account))
    }

    /// Notes that an account is about to be deleted where no server runs. The next start removes
    /// its files if it is no more then, or else the note.
    ///
    /// # Errors
    /// The secret's, or the directory's.
    pub fn mark_uploads(&self, account: &BareJid) -> Result<(), String> {
        self.with_uploads(|directory, keys| uploads::mark(directory, keys, account))
    }

    fn with_uploads(&self, act: impl FnOnce(&Path, &Keys) -> io::Result<()>) -> Result<(), String> {
        let Some(kept) = &self.uploads else {
            return Ok(());
        };
        let secret = self.salt_secret().map_err(|error| error.to_string())?;
        let Some(secret) = secret else { return Ok(()) };
        let acted = act(&kept.directory, &Keys::new(&secret));
        acted.map_err(|error| format!("{}: {error}", kept.directory.display()))
    }

    /// Where the certificate is that we make ourselves.
    fn own_certificate(&self) -> PathBuf {
        self.data.join(OWN_CERTIFICATE_DIRECTORY)
    }

    /// Reads, and makes where missing, what belongs to the configuration on the disk: the data
    /// directory, the certificate and the secrets.
    ///
    /// # Errors
    /// Why the server cannot start.
    pub fn prepare(self) -> Result<RuntimeConfig, ConfigError> {
        self.check()?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.data)
            .map_err(|error| self.refuse_data(&format!("it cannot be made ({error})")))?;
        let tls = match &self.certificate {
            Some((chain, key)) => certificate::load(chain, key),
            None => certificate::self_signed(&self.own_certificate(), &self.domain),
        };
        let tls = tls.map_err(|error| self.refuse_certificate(&error))?;
        let mut settings = self.settings();
        settings.fake_salt_secret = match self.salt_secret()? {
            Some(secret) => secret,
            None => self.make_salt_secret()?,
        };
        let mut site = self.site;
        if self.uploads.is_some() {
            site.uploads = Some(Arc::new(Keys::new(&settings.fake_salt_secret)));
        }
        Ok(RuntimeConfig {
            settings,
            shards_fixed: self.shards.is_some(),
            idle_spin: self.idle_spin,
            c2s: self.c2s,
            c2s_tls: self.c2s_tls,
            http: self.http,
            https: self.https,
            site,
            component: self.component,
            tls,
            uploads: self.uploads,
            data: self.data,
            output_max: self.output_max,
            connections_per_address_max: self.connections_per_address_max,
            connections_max: self.connections_max,
        })
    }
}

impl RuntimeConfig {
    /// Has no files be kept: whose they are would be gone before them. Says whether some were.
    pub fn refuse_uploads(&mut self) -> bool {
        self.settings.uploads = None;
        self.site.uploads = None;
        self.uploads.take().is_some()
    }
}

/// How many cores we may use.
fn cores() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(cores).unwrap_or(SHARDS_MAX).min(SHARDS_MAX)
}

#[cfg(test)]
mod tests;
