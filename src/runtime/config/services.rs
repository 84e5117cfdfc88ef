//! `[[external_service]]`: what runs beside the server and clients are told of (XEP-0215).

use super::complaint::{ConfigError, Source};
use super::value::{Domain, FromText, Number, Text};
use serde::Deserialize;
use std::net::IpAddr;
use toml::Spanned;
use xmpp::xep::external_services::{Access, EXTERNAL_SERVICES_MAX, ExternalService};

/// Bytes of a type, a name, a password or a secret.
const TEXT_SIZE_MAX: usize = 256;

/// Seconds for which credentials are good, unless configured: a call may take long, and who was
/// given some in the morning has some in the evening.
const LIFETIME_S_DEFAULT: u32 = 86_400;

/// The ports that are registered for STUN and TURN: over UDP or TCP, and over TLS.
const STUN_PORT: u16 = 3478;
const STUN_TLS_PORT: u16 = 5349;

#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "the keys of a service under [[external_service]]"
)]
pub(super) struct ExternalServiceFile {
    #[serde(rename = "type")]
    kind: Option<Text<Kind>>,
    host: Option<Text<ServiceHost>>,
    port: Option<Number<1, 65_535>>,
    transport: Option<Text<Transport>>,
    username: Option<Text<Shown>>,
    password: Option<Text<Shown>>,
    secret: Option<Text<Shown>>,
    lifetime_s: Option<Number<60, 604_800>>,
}

/// What is wrong, and what to do about it.
type Wrong = (&'static str, &'static str);

impl ExternalServiceFile {
    fn check(self) -> Result<ExternalService, Wrong> {
        let Some(Text(Kind(kind))) = self.kind else {
            return Err(("has no type", "add a line like `type = \"turn\"`"));
        };
        let Some(Text(ServiceHost(host))) = self.host else {
            return Err((
                "has no host",
                "add a line like `host = \"turn.example.org\"`",
            ));
        };
        let usual = match &*kind {
            "stun" | "turn" => Some((STUN_PORT, "udp")),
            "stuns" | "turns" => Some((STUN_TLS_PORT, "tcp")),
            _ => None,
        };
        let transport = self.transport.map(|Text(Transport(name))| name);
        let port = self.port.map(|Number(port)| port as u16);
        Ok(ExternalService {
            kind,
            host,
            port: port.or(usual.map(|(port, _)| port)),
            transport: transport.or(usual.map(|(_, name)| name)).map(Box::from),
            access: access(self.username, self.password, self.secret, self.lifetime_s)?,
        })
    }
}

fn access(
    username: Option<Text<Shown>>,
    password: Option<Text<Shown>>,
    secret: Option<Text<Shown>>,
    lifetime_s: Option<Number<60, 604_800>>,
) -> Result<Access, Wrong> {
    let lifetime_s = lifetime_s.map(|Number(seconds)| seconds as u32);
    match (username, password, secret) {
        (None, None, Some(Text(Shown(secret)))) => Ok(Access::TimeLimited {
            secret,
            lifetime_s: lifetime_s.unwrap_or(LIFETIME_S_DEFAULT),
        }),
        (_, _, Some(_)) => Err((
            "has a secret, from which names and passwords are made, and one of these besides",
            "keep the secret alone, or username and password",
        )),
        _ if lifetime_s.is_some() => Err((
            "has a lifetime_s, but no secret from which credentials that end are made",
            "add the secret, or remove lifetime_s",
        )),
        (Some(Text(Shown(username))), Some(Text(Shown(password))), None) => {
            Ok(Access::Fixed { username, password })
        }
        (None, None, None) => Ok(Access::Open),
        _ => Err(("has one of username and password", "set both, or remove it")),
    }
}

/// The services, in their order.
///
/// # Errors
/// The first that makes no sense, by the line where it begins.
pub(super) fn check(
    files: Vec<Spanned<ExternalServiceFile>>,
    source: &Source<'_>,
) -> Result<Vec<ExternalService>, ConfigError> {
    let mut services: Vec<ExternalService> = Vec::new();
    for file in files {
        let begin = file.span().start;
        let refuse = |(what, remedy): Wrong| {
            source.refuse_at(begin, format!("this external_service {what}"), remedy)
        };
        let service = file.into_inner().check().map_err(refuse)?;
        let place = |one: &ExternalService| {
            let ExternalService {
                kind,
                host,
                port,
                transport,
                ..
            } = one.clone();
            (kind, host, port, transport)
        };
        if services.iter().any(|one| place(one) == place(&service)) {
            return Err(refuse(("stands here twice", "remove one of the two")));
        }
        if services.len() == EXTERNAL_SERVICES_MAX {
            return Err(refuse(("is one too many", "keep 32 at most")));
        }
        services.push(service);
    }
    Ok(services)
}

const _: () = assert!(EXTERNAL_SERVICES_MAX == 32, "the remedy above says so");

/// Text as clients are shown it.
struct Shown(Box<str>);

impl FromText for Shown {
    const EXPECTED: &'static str = "text in quotes";

    fn from_text(text: &str) -> Result<Shown, String> {
        // XML knows neither, escaped or not.
        let is_foreign = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
        if text.is_empty() || text.len() > TEXT_SIZE_MAX || text.contains(is_foreign) {
            return Err(format!(
                "cannot be used as it is; write 1 to {TEXT_SIZE_MAX} bytes that can be printed"
            ));
        }
        Ok(Shown(text.into()))
    }
}

/// The type of a service, a name as XML has them.
struct Kind(Box<str>);

impl FromText for Kind {
    const EXPECTED: &'static str = "the type of a service in quotes";

    fn from_text(text: &str) -> Result<Kind, String> {
        let is_known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_name = text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.len() <= TEXT_SIZE_MAX
            && text.chars().all(is_known);
        if !is_name {
            return Err(format!(
                "is no type of a service ({text:?}); write it like \"stun\" or \"turn\""
            ));
        }
        Ok(Kind(text.into()))
    }
}

/// A domain, prepared, or an IP address.
struct ServiceHost(Box<str>);

impl FromText for ServiceHost {
    const EXPECTED: &'static str = "a domain or an IP address in quotes";

    fn from_text(text: &str) -> Result<ServiceHost, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(ServiceHost(address.to_string().into()));
        }
        match Domain::from_text(text) {
            // An address in brackets is one of JIDs, and of URIs, but not of services.
            Ok(Domain(domain)) if !domain.starts_with('[') => Ok(ServiceHost(domain)),
            _ => Err(format!(
                "is neither a domain nor an IP address ({text:?}); write it like \
                 \"turn.example.org\", \"192.0.2.1\" or \"2001:db8::1\""
            )),
        }
    }
}

/// What a service is reached over.
struct Transport(&'static str);

impl FromText for Transport {
    const EXPECTED: &'static str = "\"udp\" or \"tcp\"";

    fn from_text(text: &str) -> Result<Transport, String> {
        match text {
            "udp" => Ok(Transport("udp")),
            "tcp" => Ok(Transport("tcp")),
            _ => Err(format!("is unknown ({text:?}); write \"udp\" or \"tcp\"")),
        }
    }
}
