//! The keys of the configuration file, their ranges, and what they mean together.

use super::complaint::{ConfigError, Places, Source};
use super::components::{self, ComponentFile};
use super::push::PushFile;
use super::services::{self, ExternalServiceFile};
use super::upload::{Around, UploadFile};
use super::value::{Addresses, AdminJid, ContactUri, Domain, List, Number, Text, WebAddress};
use super::web::WebFile;
use super::{
    CONNECTIONS_MAX_DEFAULT, CONNECTIONS_PER_ADDRESS_MAX_DEFAULT, Config, IDLE_SPIN_US_MAX,
    OUTPUT_MAX_DEFAULT, SHARDS_MAX,
};
use crate::host::BURST_FACTOR;
use crate::logging::Log;
use serde::Deserialize;
use stanza::jid::BareJid;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;
use xmpp::limit::Limits;
use xmpp::settings::{AgentPolicy, ArchivePolicy, Durability, Settings};
use xmpp::stream::sasl::Mechanism;

/// Where everything is kept unless configured, beside the configuration file.
const DATA_DEFAULT: &str = "data";

/// RFC 6120 14.7.
const C2S_PORT: u16 = 5222;

/// The keys of `[listen]`, those that clients connect to first.
const LISTENERS: [&str; 5] = ["c2s", "c2s_tls", "http", "https", COMPONENT_LISTENER];

/// The key of those that components connect to.
pub(super) const COMPONENT_LISTENER: &str = "component";

/// The port that clients of direct TLS look for by custom.
const C2S_TLS_PORT: u16 = 5223;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "the keys of docs/CONFIGURATION.md")]
pub(super) struct File {
    domain: Option<Text<Domain>>,
    data: Option<PathBuf>,
    shards: Option<Number<1, { SHARDS_MAX as u64 }>>,
    idle_spin_us: Option<Number<0, IDLE_SPIN_US_MAX>>,
    log: Option<Text<Log>>,
    #[serde(default)]
    listen: ListenFile,
    #[serde(default)]
    tls: TlsFile,
    #[serde(default)]
    auth: AuthFile,
    #[serde(default)]
    limits: LimitsFile,
    #[serde(default)]
    registration: RegistrationFile,
    #[serde(default)]
    durability: DurabilityFile,
    #[serde(default)]
    archive: ArchiveFile,
    #[serde(default)]
    contact: ContactFile,
    #[serde(default)]
    external_service: Vec<Spanned<ExternalServiceFile>>,
    #[serde(default)]
    web: WebFile,
    #[serde(default)]
    upload: UploadFile,
    #[serde(default)]
    push: PushFile,
    #[serde(default)]
    component: BTreeMap<String, Spanned<ComponentFile>>,
    #[serde(default)]
    admin: AdminFile,
    #[serde(default)]
    outage: OutageFile,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the section [listen]")]
struct ListenFile {
    c2s: Option<Addresses>,
    c2s_tls: Option<Addresses>,
    http: Option<Addresses>,
    https: Option<Addresses>,
    component: Option<Addresses>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the section [tls]")]
struct TlsFile {
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    required: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the section [auth]")]
struct AuthFile {
    mechanisms: Option<List<Mechanism>>,
    plain_without_tls: Option<bool>,
    anonymous: Option<bool>,
    token_days: Option<Number<0, 365>>,
    token_rotation_hours: Option<Number<1, 8_760>>,
    client_days: Option<Number<1, 3_650>>,
    client_names: Option<bool>,
}

impl AuthFile {
    /// What is kept of user agents.
    fn agents(&self) -> AgentPolicy {
        const HOUR_S: u64 = 3_600;
        // The ranges are within the type: 3,650 days have 315,360,000 seconds.
        let seconds = |number: u64, unit_s: u64| (number * unit_s) as u32;
        let mut policy = AgentPolicy::default();
        if let Some(Number(days)) = self.token_days {
            policy.token_s = seconds(days, 24 * HOUR_S);
        }
        if let Some(Number(hours)) = self.token_rotation_hours {
            policy.rotation_s = seconds(hours, HOUR_S);
        }
        if let Some(Number(days)) = self.client_days {
            policy.forget_s = seconds(days, 24 * HOUR_S);
        }
        // One that were due only when it has ended would never be replaced.
        policy.rotation_s = policy.rotation_s.min(policy.token_s / 2);
        policy.keeps_names = self.client_names.unwrap_or(policy.keeps_names);
        policy
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the section [registration]")]
struct RegistrationFile {
    open: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the section [durability]")]
struct DurabilityFile {
    mode: Option<Text<Durability>>,
}

impl DurabilityFile {
    fn chosen(self) -> Durability {
        self.mode
            .map_or_else(Durability::default, |Text(mode)| mode)
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the section [archive]")]
struct ArchiveFile {
    enabled: Option<bool>,
    keep_days: Option<Number<0, 36_500>>,
    messages_max: Option<Number<0, { u32::MAX as u64 }>>,
}

impl ArchiveFile {
    /// What archives keep.
    fn policy(&self) -> ArchivePolicy {
        const DAY_S: u64 = 86_400;
        let mut policy = ArchivePolicy::default();
        if let Some(Number(days)) = self.keep_days {
            policy.keep_s = days * DAY_S;
        }
        if let Some(Number(count)) = self.messages_max {
            policy.messages_max = count as u32;
        }
        policy
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the section [admin]")]
struct AdminFile {
    jids: Option<List<AdminJid>>,
}

impl AdminFile {
    /// The administrators, sorted.
    fn sorted(self, domain: &str, source: &Source<'_>) -> Result<Vec<BareJid>, ConfigError> {
        let listed = self.jids.map_or_else(Vec::new, |List(listed)| listed);
        let mut admins: Vec<BareJid> = listed.into_iter().map(|AdminJid(jid)| jid).collect();
        if let Some(foreign) = admins.iter().find(|jid| jid.domain() != domain) {
            let what = format!(
                "admin.jids has {}, which is no account here",
                foreign.as_str()
            );
            let remedy = format!("name accounts of {domain}");
            return Err(source.refuse(Some("admin"), "jids", what, &remedy));
        }
        admins.sort_unstable();
        admins.dedup();
        Ok(admins)
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the section [outage]")]
struct OutageFile {
    urls: Option<List<WebAddress>>,
}

/// The kinds of contact (XEP-0157 3) by name.
macro_rules! contacts {
    ($($kind:ident)*) => {
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields, expecting = "the section [contact]")]
        struct ContactFile {
            $($kind: Option<List<ContactUri>>,)*
        }

        impl ContactFile {
            /// Those that have addresses.
            fn listed(self) -> Vec<(Box<str>, Vec<Box<str>>)> {
                let all = [$((stringify!($kind), self.$kind),)*];
                let addresses = |list: Option<List<ContactUri>>| -> Vec<Box<str>> {
                    let list = list.map_or_else(Vec::new, |List(list)| list);
                    list.into_iter().map(|ContactUri(uri)| uri).collect()
                };
                all.into_iter()
                    .map(|(kind, list)| (kind.into(), addresses(list)))
                    .filter(|(_, list)| !list.is_empty())
                    .collect()
            }
        }
    };
}

contacts!(abuse admin feedback sales security status support);

/// The limits by name, each with its range.
macro_rules! limits {
    ($($name:ident: $min:literal ..= $max:expr;)*) => {
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields, expecting = "the section [limits]")]
        struct LimitsFile {
            output_max: Option<Number<16_384, { 1 << 30 }>>,
            connections_per_address_max: Option<Number<1, 10_000_000>>,
            connections_max: Option<Number<1, 10_000_000>>,
            $($name: Option<Number<$min, { $max }>>,)*
        }

        impl LimitsFile {
            /// The protocol's limits, those not written at their defaults.
            fn protocol(&self) -> Limits {
                let mut limits = Limits::default();
                $(if let Some(Number(value)) = self.$name {
                    // The range is within the type: a test takes both ends of each.
                    limits.$name = value as _;
                })*
                limits
            }
        }

        /// Every limit of the protocol with its range.
        #[cfg(test)]
        pub(super) const RANGES: &[(&str, u64, u64)] =
            &[$((stringify!($name), $min, $max),)*];

        /// What `limits` has under this name.
        #[cfg(test)]
        pub(super) fn limit(limits: &Limits, name: &str) -> u64 {
            match name {
                $(stringify!($name) => limits.$name as u64,)*
                _ => panic!("no limit is called {name}"),
            }
        }
    };
}

limits! {
    stanza_size_before_auth_max: 4_096..=1 << 20;
    // RFC 6120 13.12: not below 10,000 bytes.
    stanza_size_max: 10_000..=16 << 20;
    // The scanner goes no further than these three.
    depth_max: 8..=stanza::frame::DEPTH_MAX as u64;
    attributes_max: 16..=stanza::frame::ATTRIBUTES_MAX as u64;
    namespaces_max: 16..=stanza::frame::NAMESPACES_MAX as u64;
    auth_ms_max: 1_000..=600_000;
    whitespace_before_auth_max: 0..=65_536;
    resources_max: 1..=1_000;
    roster_items_max: 0..=100_000;
    auth_tries_max: 1..=100;
    directed_max: 1..=100_000;
    offline_max: 0..=100_000;
    nodes_max: 0..=10_000;
    node_items_max: 1..=100_000;
    item_size_max: 1_024..=1 << 20;
    items_size_max: 65_536..=64 << 20;
    registrations_per_hour_max: 0..=1_000_000;
    auth_failures_per_minute_max: 1..=1_000_000;
}

impl File {
    /// What the file means, or what does not fit together in it.
    pub(super) fn check(self, source: &Source<'_>) -> Result<Config, ConfigError> {
        let Some(Text(Domain(domain))) = self.domain else {
            let remedy = "begin the file with a line like `domain = \"example.org\"`";
            return Err(source.refuse_all("`domain` is missing", remedy));
        };
        let at = |path: PathBuf| source.path.parent().unwrap_or(Path::new("")).join(path);
        let (anonymous, agents) = (self.auth.anonymous.unwrap_or(false), self.auth.agents());
        let mut limits = self.limits.protocol();
        let output_max = output_max(&self.limits, &limits, source)?;
        // What waits for an account goes out in one burst, beside which there is room for more.
        let burst = (output_max * BURST_FACTOR / 2) as u64;
        limits.offline_size_max = limits.offline_size_max.min(burst);
        let ListenFile { c2s, c2s_tls, .. } = self.listen;
        let [c2s, c2s_tls] = [addresses(c2s, C2S_PORT), addresses(c2s_tls, C2S_TLS_PORT)];
        let [http, https, component] =
            [self.listen.http, self.listen.https, self.listen.component].map(Addresses::or_none);
        let kinds = [&c2s, &c2s_tls, &http, &https, &component];
        check_listeners(LISTENERS.into_iter().zip(kinds), source)?;
        let components = components::check(self.component, &domain, &component, source)?;
        let tls_required = self.tls.required.unwrap_or(true);
        let site = self.web.site(&domain, https.first(), tls_required);
        let data = at(self.data.unwrap_or_else(|| DATA_DEFAULT.into()));
        let durability = self.durability.chosen();
        let around = Around {
            data: &data,
            site: &site,
            is_served: !http.is_empty() || !https.is_empty(),
            durability,
        };
        let admins = self.admin.sorted(&domain, source)?;
        let status = self.outage.urls.map_or_else(Vec::new, |List(urls)| urls);
        Ok(Config {
            uploads: self.upload.check(&around, at, source)?,
            site,
            domain,
            data,
            places: Places::new(source),
            shards: self.shards.map(|Number(count)| count as u16),
            idle_spin: Duration::from_micros(self.idle_spin_us.map_or(0, |Number(us)| us)),
            log: self.log.map_or_else(Log::default, |Text(log)| log),
            c2s,
            c2s_tls,
            http,
            https,
            component,
            components,
            certificate: certificate(self.tls.cert.map(at), self.tls.key.map(at), source)?,
            tls_required,
            mechanisms: mechanisms(self.auth.mechanisms, anonymous, source)?,
            plain_without_tls: self.auth.plain_without_tls.unwrap_or(false),
            anonymous,
            agents,
            registration_open: self.registration.open.unwrap_or(false),
            durability,
            archive: self.archive.enabled.unwrap_or(false),
            retention: self.archive.policy(),
            admins,
            status_addresses: status.into_iter().map(|WebAddress(url)| url).collect(),
            contacts: self.contact.listed(),
            external_services: services::check(self.external_service, source)?,
            push: self.push.policy(),
            output_max,
            limits,
            connections_per_address_max: count(
                self.limits.connections_per_address_max,
                CONNECTIONS_PER_ADDRESS_MAX_DEFAULT,
            ),
            connections_max: count(self.limits.connections_max, CONNECTIONS_MAX_DEFAULT),
        })
    }
}

fn count<const MIN: u64, const MAX: u64>(value: Option<Number<MIN, MAX>>, default: u32) -> u32 {
    const { assert!(MAX <= u32::MAX as u64) };
    value.map_or(default, |Number(count)| count as u32)
}

fn addresses(configured: Option<Addresses>, port: u16) -> Vec<SocketAddr> {
    match configured {
        Some(Addresses(list)) => list,
        None => vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))],
    }
}

fn certificate(
    chain: Option<PathBuf>,
    key: Option<PathBuf>,
    source: &Source<'_>,
) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
    let alone = |here: &str, missing: &str| {
        let what = format!("tls.{here} stands without tls.{missing}");
        let remedy = "set both, or remove it to have a self-signed certificate";
        source.refuse(Some("tls"), here, what, remedy)
    };
    match (chain, key) {
        (Some(chain), Some(key)) => Ok(Some((chain, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(alone("cert", "key")),
        (None, Some(_)) => Err(alone("key", "cert")),
    }
}

/// The mechanisms allowed, in our order of preference; each brings its -PLUS form with it.
fn mechanisms(
    configured: Option<List<Mechanism>>,
    anonymous: bool,
    source: &Source<'_>,
) -> Result<Vec<Mechanism>, ConfigError> {
    let Some(List(listed)) = configured else {
        return Ok(Settings::mechanisms_default());
    };
    if listed.is_empty() && !anonymous {
        let what = "auth.mechanisms is empty, so nobody could log in".to_owned();
        let remedy = "name a mechanism, or remove the line to have the default";
        return Err(source.refuse(Some("auth"), "mechanisms", what, remedy));
    }
    let names = |mechanism: &Mechanism| {
        let name = mechanism.as_str();
        let stem = name.strip_suffix("-PLUS").unwrap_or(name);
        listed
            .iter()
            .any(|one| one.as_str() == name || one.as_str() == stem)
    };
    Ok(Mechanism::ALL.into_iter().filter(names).collect())
}

/// Listeners that no client could reach, or that are each other's.
fn check_listeners<'a>(
    kinds: impl Iterator<Item = (&'static str, &'a Vec<SocketAddr>)>,
    source: &Source<'_>,
) -> Result<(), ConfigError> {
    let named = kinds.flat_map(|(key, list)| list.iter().map(move |address| (key, address)));
    let all: Vec<(&str, &SocketAddr)> = named.collect();
    if all.iter().all(|(key, _)| *key == COMPONENT_LISTENER) {
        let what = "no key of [listen] has an address, so that nobody could connect".into();
        return Err(source.refuse(Some("listen"), "c2s", what, "give one of them an address"));
    }
    for (index, (key, address)) in all.iter().enumerate() {
        let earlier = all[..index].iter();
        let Some((other_key, other)) = earlier.clone().find(|(_, one)| overlap(one, address))
        else {
            continue;
        };
        let (what, remedy) = match (address == other, key == other_key) {
            (true, true) => (format!("{key} has {address} twice"), "remove one of them"),
            (true, false) => (
                format!("{other_key} and {key} both have {address}"),
                "give one another port",
            ),
            (false, _) => (
                format!("{other} in {other_key} and {address} in {key} cover each other"),
                "keep the one for all addresses, or give one another port",
            ),
        };
        // Either may be the default, which stands nowhere.
        let written = source.has(Some("listen"), key);
        let culprit = if written { key } else { other_key };
        return Err(source.refuse(Some("listen"), culprit, what, remedy));
    }
    Ok(())
}

/// Whether the kernel would refuse the second of these listeners. Port 0 is another one each time,
/// and a listener of IPv6 takes IPv6 only.
fn overlap(one: &SocketAddr, other: &SocketAddr) -> bool {
    let same_family = one.is_ipv4() == other.is_ipv4();
    let for_all = one.ip().is_unspecified() || other.ip().is_unspecified();
    let same_port = one.port() == other.port() && one.port() != 0;
    same_port && (one == other || same_family && for_all)
}

fn output_max(
    file: &LimitsFile,
    limits: &Limits,
    source: &Source<'_>,
) -> Result<usize, ConfigError> {
    let written = file.output_max.map(|Number(size)| size as usize);
    let output_max = written.unwrap_or(OUTPUT_MAX_DEFAULT);
    if output_max < limits.stanza_size_max {
        let size = limits.stanza_size_max;
        let what = format!(
            "limits.output_max ({output_max}) is below limits.stanza_size_max ({size}), so that \
             nobody could receive such a stanza"
        );
        let culprit = if written.is_some() {
            "output_max"
        } else {
            "stanza_size_max"
        };
        let remedy = "raise the one or lower the other";
        return Err(source.refuse(Some("limits"), culprit, what, remedy));
    }
    Ok(output_max)
}
