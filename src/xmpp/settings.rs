//! What an administrator decided, as the protocol sees it; the same for every shard, for life.

use crate::limit::Limits;
use crate::stream::sasl::Mechanism;
use crate::xep::components::Component;
use crate::xep::external_services::ExternalService;
use crate::xep::push::PushPolicy;
use crate::xep::upload::UploadPolicy;
use stanza::jid::BareJid;
use std::fmt;

/// PBKDF2 rounds of new accounts (RFC 5802 5.1, RFC 7677 4).
pub const SCRAM_ITERATIONS_DEFAULT: u32 = 4096;

/// What PBKDF2 rounds imported keys and settings may have: less is refused, more is a way to stall.
pub const SCRAM_ITERATIONS_MAX: u32 = 10_000_000;

/// The server's name in XEP-0092 replies.
pub const SOFTWARE_NAME: &str = "Vorpal";

/// What an acknowledgement of XEP-0198 promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// What was acknowledged survives a crash, and so do sessions.
    #[default]
    Full,
    /// What waits for its receiver in storage survives a crash; sessions live in memory.
    Archive,
    /// Acknowledged means handled; nothing waits for storage.
    Memory,
}

impl Durability {
    /// Whether acknowledgements wait for storage.
    pub(crate) fn settles_late(self) -> bool {
        self != Durability::Memory
    }

    /// Whether managed sessions and what they are sent are stored.
    pub(crate) fn saves_sessions(self) -> bool {
        self == Durability::Full
    }
}

/// What is kept of user agents (XEP-0388 2.2), and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentPolicy {
    /// Seconds for which a token (XEP-0484) is good; with 0 none is given.
    pub token_s: u32,
    /// Seconds after which one that is used is replaced.
    pub rotation_s: u32,
    /// Seconds after which a user agent that did not come back is forgotten.
    pub forget_s: u32,
    /// Whether what they call themselves is kept.
    pub keeps_names: bool,
}

impl Default for AgentPolicy {
    fn default() -> AgentPolicy {
        const DAY_S: u32 = 86_400;
        AgentPolicy {
            token_s: 21 * DAY_S,
            rotation_s: DAY_S,
            forget_s: 90 * DAY_S,
            keeps_names: true,
        }
    }
}

/// How long archives keep messages, and how many: all of them, and for ever, unless configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchivePolicy {
    /// Seconds; 0 is for ever.
    pub keep_s: u64,
    /// Messages of one archive, the newest ones; 0 is any number.
    pub messages_max: u32,
}

impl ArchivePolicy {
    /// Whether something is to go at all.
    pub(crate) fn is_bounded(self) -> bool {
        self.keep_s > 0 || self.messages_max > 0
    }
}

/// The settings of all shards.
#[derive(Clone)]
pub struct Settings {
    /// The domain served, prepared.
    pub domain: Box<str>,
    /// How many shards the process has.
    pub shards: u16,
    /// The limits.
    pub limits: Limits,
    /// What a client may rely on once it was told.
    pub durability: Durability,
    /// Whether there is a certificate, so that STARTTLS can be offered.
    pub tls_available: bool,
    /// Whether nothing but STARTTLS is offered in clear.
    pub tls_required: bool,
    /// The mechanisms allowed; -PLUS ones are offered where TLS gives a binding.
    pub mechanisms: Vec<Mechanism>,
    /// Those for whose hash some account has no key, and that are offered to nobody therefore: who
    /// lacks one may give it when he logs in (XEP-0480). By their names without -PLUS.
    pub upgrades: Vec<Mechanism>,
    /// Whether PLAIN is allowed in clear.
    pub plain_without_tls: bool,
    /// Whether ANONYMOUS is offered.
    pub anonymous: bool,
    /// Whether anybody may create an account in-band (XEP-0077).
    pub registration_open: bool,
    /// PBKDF2 rounds of new accounts.
    pub scram_iterations: u32,
    /// What is kept of user agents.
    pub agents: AgentPolicy,
    /// Makes the salts shown for unknown users, and tokens of their seeds; the same across
    /// restarts, known to nobody.
    pub fake_salt_secret: [u8; 32],
    /// Who administers the server by commands (XEP-0133), sorted.
    pub admins: Vec<BareJid>,
    /// Where it is said whether the server is out of service, as URIs (XEP-0455).
    pub status_addresses: Vec<Box<str>>,
    /// Kinds of contact (`abuse`, `admin`, ..) with their addresses as URIs (XEP-0157).
    pub contacts: Vec<(Box<str>, Vec<Box<str>>)>,
    /// What clients are told of that runs beside the server (XEP-0215).
    pub external_services: Vec<ExternalService>,
    /// What files users may upload (XEP-0363), if any.
    pub uploads: Option<UploadPolicy>,
    /// Whether devices that are away are notified (XEP-0357), and of what.
    pub push: Option<PushPolicy>,
    /// Who may connect as which domain beside the one served (XEP-0114).
    pub components: Vec<Component>,
    /// The version in XEP-0092 replies.
    pub software_version: &'static str,
    /// Whether accounts have archives (XEP-0313), where something is stored at all.
    pub archive: bool,
    /// What they keep.
    pub retention: ArchivePolicy,
    /// Whether bookmarks are the same wherever clients keep them (XEP-0402 6, XEP-0411); no
    /// configuration says so yet.
    pub converts_bookmarks: bool,
}

impl Settings {
    /// The settings of a server for `domain` with everything at its default.
    pub fn new(domain: &str) -> Settings {
        Settings {
            domain: domain.into(),
            shards: 1,
            limits: Limits::default(),
            durability: Durability::Full,
            tls_available: true,
            tls_required: true,
            mechanisms: Settings::mechanisms_default(),
            upgrades: Vec::new(),
            plain_without_tls: false,
            anonymous: false,
            registration_open: false,
            scram_iterations: SCRAM_ITERATIONS_DEFAULT,
            agents: AgentPolicy::default(),
            fake_salt_secret: [0; 32],
            admins: Vec::new(),
            status_addresses: Vec::new(),
            contacts: Vec::new(),
            external_services: Vec::new(),
            uploads: None,
            push: None,
            components: Vec::new(),
            software_version: env!("CARGO_PKG_VERSION"),
            archive: true,
            retention: ArchivePolicy::default(),
            converts_bookmarks: false,
        }
    }

    /// Whether an account administers the server.
    pub fn is_admin(&self, account: &BareJid) -> bool {
        self.admins.binary_search(account).is_ok()
    }

    /// Whether messages are archived.
    pub fn archives(&self) -> bool {
        self.archive && self.durability != Durability::Memory
    }

    /// Whether accounts make nodes (XEP-0060), and so have converted to nodes what they keep.
    pub fn has_nodes(&self) -> bool {
        self.limits.nodes_max > 0
    }

    /// Whether what is changed of bookmarks in one place is changed in the others.
    pub(crate) fn has_bookmarks_converted(&self) -> bool {
        self.converts_bookmarks && self.has_nodes()
    }

    /// All mechanisms that prove a password, the one to prefer first.
    pub fn mechanisms_default() -> Vec<Mechanism> {
        let all = Mechanism::ALL.into_iter();
        all.filter(|it| it.takes_password()).collect()
    }

    /// For tests: no TLS, every mechanism in clear, registration open, cheap keys, no archives.
    pub fn for_tests(domain: &str) -> Settings {
        Settings {
            tls_available: false,
            tls_required: false,
            plain_without_tls: true,
            anonymous: true,
            registration_open: true,
            scram_iterations: 1,
            fake_salt_secret: [7; 32],
            archive: false,
            ..Settings::new(domain)
        }
    }
}

/// Everything but the secret.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("domain", &self.domain)
            .field("shards", &self.shards)
            .field("limits", &self.limits)
            .field("durability", &self.durability)
            .field("tls_available", &self.tls_available)
            .field("tls_required", &self.tls_required)
            .field("mechanisms", &self.mechanisms)
            .field("upgrades", &self.upgrades)
            .field("plain_without_tls", &self.plain_without_tls)
            .field("anonymous", &self.anonymous)
            .field("registration_open", &self.registration_open)
            .field("scram_iterations", &self.scram_iterations)
            .field("agents", &self.agents)
            .field("components", &self.components)
            .field("software_version", &self.software_version)
            .finish_non_exhaustive()
    }
}
