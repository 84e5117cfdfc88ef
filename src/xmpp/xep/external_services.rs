//! XEP-0215: External Service Discovery. Where a client finds STUN, TURN and what else the operator
//! names, and with what credentials.
//!
//! Invariant: credentials that are made here end, and are another user's for each account: a relay
//! that counts by user (coturn's `user-quota`) counts by account, and learns no address.

use super::time::utc;
use super::{Answer, Context, Extension, Request, Target, Xep, only_get};
use crate::error::{StanzaError, put};
use crate::host::Timestamp;
use crate::settings::Settings;
use crate::xml::Attr;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha1::Sha1;
use stanza::jid::BareJid;
use stanza::ns::Ns;
use stanza::tree::Node;
use std::fmt;

/// Services that may be named: a client gets all of them in one answer.
pub const EXTERNAL_SERVICES_MAX: usize = 32;

/// Names the services of the operator to the server's own clients: their requests are the only ones
/// that come with the server as target.
#[derive(Debug)]
pub struct ExternalServices;

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalService {
    /// What it is: `stun`, `turn`, ..
    pub kind: Box<str>,
    /// A domain, or an IP address.
    pub host: Box<str>,
    /// Where it listens.
    pub port: Option<u16>,
    /// `udp` or `tcp`.
    pub transport: Option<Box<str>>,
    /// Who may use it.
    pub access: Access,
}

/// Who may use a service.
#[derive(Clone, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Open,
    /// Who knows this.
    Fixed {
        /// The user.
        username: Box<str>,
        /// Its password.
        password: Box<str>,
    },
    /// Who was given a name that says until when, and the password that belongs to it by a secret
    /// of ours and the service's: what coturn calls `use-auth-secret`.
    TimeLimited {
        /// The secret.
        secret: Box<str>,
        /// Seconds for which credentials are good.
        lifetime_s: u32,
    },
}

/// Everything but what is secret.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Open => "Open",
            Access::Fixed { .. } => "Fixed(..)",
            Access::TimeLimited { .. } => "TimeLimited(..)",
        })
    }
}

/// Services that the asker may know of. A guest is another user with each login, so no relay could
/// count what all the logins of one person take: none that asks for credentials is a guest's.
fn services_for<'a>(context: &Context<'a>) -> impl Iterator<Item = &'a ExternalService> {
    let is_guest = context.is_anonymous;
    let services = context.settings.external_services.iter();
    services.filter(move |service| !is_guest || service.access == Access::Open)
}

/// What an account may use a service with.
struct Credentials {
    username: String,
    password: String,
    expires: Option<Timestamp>,
}

impl Access {
    fn credentials(&self, account: &BareJid, wall: Timestamp) -> Option<Credentials> {
        match self {
            Access::Open => None,
            Access::Fixed { username, password } => Some(Credentials {
                username: username.to_string(),
                password: password.to_string(),
                expires: None,
            }),
            Access::TimeLimited { secret, lifetime_s } => {
                let expires_s = wall.0 / 1_000_000 + u64::from(*lifetime_s);
                let username = format!("{expires_s}:{:016x}", user(secret, account));
                Some(Credentials {
                    password: STANDARD.encode(mac(secret, &username)),
                    username,
                    expires: Some(Timestamp(expires_s * 1_000_000)),
                })
            }
        }
    }
}

/// What an account is called at a service. Names cross the network in clear, so it is none that
/// others know it by. An address has an `@` and a name that is signed has none: neither says
/// anything of the other.
fn user(secret: &str, account: &BareJid) -> u64 {
    let mac = mac(secret, account.as_str());
    let first = mac.first_chunk().expect("SHA-1 has 20 bytes");
    u64::from_be_bytes(*first)
}

fn mac(secret: &str, text: &str) -> [u8; 20] {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("HMAC takes any key");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

impl Extension for ExternalServices {
    const XEP: Xep = Xep {
        number: 215,
        version: "1.0.0",
    };
    const NAMESPACES: &'static [Ns] = &[Ns::ExternalServices];
    const FEATURES: &'static [Ns] = &[Ns::ExternalServices];

    fn is_offered(settings: &Settings) -> bool {
        !settings.external_services.is_empty()
    }

    fn iq(
        context: &Context<'_>,
        request: &Request<'_>,
        payload: &mut Vec<u8>,
    ) -> Result<Answer, StanzaError> {
        if request.target != Target::Server || !Self::is_offered(context.settings) {
            return Err(StanzaError::ServiceUnavailable);
        }
        only_get(request)?;
        match request.payload.name() {
            "services" => write_services(context, request.payload.attr("type"), payload),
            "credentials" => write_credentials(context, request.payload, payload)?,
            _ => return Err(StanzaError::BadRequest),
        }
        Ok(Answer::Now)
    }
}

/// XEP-0215 3.1 and 3.2: all services, or those of a type.
fn write_services(context: &Context<'_>, kind: Option<&str>, payload: &mut Vec<u8>) {
    payload.extend_from_slice(b"<services xmlns='urn:xmpp:extdisco:2'");
    if let Some(kind) = kind {
        put(payload, format_args!(" type='{}'", Attr(kind)));
    }
    payload.push(b'>');
    for service in services_for(context) {
        if kind.is_none_or(|kind| kind == &*service.kind) {
            let credentials = service.access.credentials(context.account, context.wall);
            write_service(service, credentials, payload);
        }
    }
    payload.extend_from_slice(b"</services>");
}

/// XEP-0215 3.3: credentials for a service that the client knows already.
fn write_credentials(
    context: &Context<'_>,
    asked: Node<'_>,
    payload: &mut Vec<u8>,
) -> Result<(), StanzaError> {
    let mut children = asked.children();
    let (Some(asked), None) = (children.next(), children.next()) else {
        return Err(StanzaError::BadRequest);
    };
    // XEP-0215 3.3: a host and a type say which one is meant; the port may be left out.
    let (Some(host), Some(kind)) = (asked.attr("host"), asked.attr("type")) else {
        return Err(StanzaError::BadRequest);
    };
    let port = asked.attr("port").map(str::parse::<u16>).transpose();
    let port = port.map_err(|_| StanzaError::BadRequest)?;
    let is_meant = |service: &&ExternalService| {
        service.host.eq_ignore_ascii_case(host)
            && &*service.kind == kind
            && (port.is_none() || port == service.port)
    };
    payload.extend_from_slice(b"<credentials xmlns='urn:xmpp:extdisco:2'>");
    let mut is_found = false;
    for service in services_for(context).filter(is_meant) {
        let credentials = service.access.credentials(context.account, context.wall);
        if credentials.is_some() {
            is_found = true;
            write_service(service, credentials, payload);
        }
    }
    payload.extend_from_slice(b"</credentials>");
    // XEP-0215 3.3: of a service that is not there, or that asks for none, there are none.
    match is_found {
        true => Ok(()),
        false => Err(StanzaError::ItemNotFound),
    }
}

fn write_service(
    service: &ExternalService,
    credentials: Option<Credentials>,
    payload: &mut Vec<u8>,
) {
    let (kind, host) = (Attr(&service.kind), Attr(&service.host));
    put(
        payload,
        format_args!("<service type='{kind}' host='{host}'"),
    );
    if let Some(port) = service.port {
        put(payload, format_args!(" port='{port}'"));
    }
    if let Some(transport) = &service.transport {
        put(payload, format_args!(" transport='{}'", Attr(transport)));
    }
    if let Some(credentials) = credentials {
        let (username, password) = (Attr(&credentials.username), Attr(&credentials.password));
        put(
            payload,
            format_args!(" restricted='true' username='{username}' password='{password}'"),
        );
        if let Some(expires) = credentials.expires {
            put(payload, format_args!(" expires='{}'", utc(expires)));
        }
    }
    payload.extend_from_slice(b"/>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use stanza::jid::Jid;

    fn given(account: &str, wall: Timestamp) -> Credentials {
        let account = Jid::parse(account).expect("an address").to_bare();
        let access = Access::TimeLimited {
            secret: "north".into(),
            lifetime_s: 3_600,
        };
        access.credentials(&account, wall).expect("some")
    }

    /// What Python's `hmac` and `base64` make of the same.
    #[test]
    fn a_password_is_the_one_that_the_service_computes_from_the_name() {
        let given = given("romeo@example.org", Timestamp(1_700_000_000_999_999));
        assert_eq!(given.username, "1700003600:ec53ad9cc41d44b8");
        assert_eq!(given.password, "qo/S8G1RFvts7JQ/jMyr+oUZ7ys=");
        assert_eq!(given.expires, Some(Timestamp(1_700_003_600_000_000)));
    }

    #[test]
    fn every_account_is_another_user_and_the_same_one_each_time() {
        let user = |account: &str, seconds: u64| {
            let username = given(account, Timestamp(seconds * 1_000_000)).username;
            username.split_once(':').expect("two parts").1.to_owned()
        };
        assert_eq!(user("a@example.org", 1), user("a@example.org", 2));
        assert_ne!(user("a@example.org", 1), user("b@example.org", 1));
    }

    #[test]
    fn nothing_secret_is_printed() {
        let service = ExternalService {
            kind: "turn".into(),
            host: "example.org".into(),
            port: None,
            transport: None,
            access: Access::Fixed {
                username: "guest".into(),
                password: "north".into(),
            },
        };
        assert!(!format!("{service:?}").contains("north"));
    }
}
