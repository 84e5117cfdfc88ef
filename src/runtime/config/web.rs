//! `[web]`: what is served on the ports for the web, and to whom.

use super::value::{FromText, InList, List, Text};
use crate::transport::http::Site;
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};

/// The port that a URL with TLS need not name.
const HTTPS_PORT: u16 = 443;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the section [web]")]
pub(super) struct WebFile {
    url: Option<Text<Url>>,
    origins: Option<List<Origin>>,
    trusted_proxies: Option<List<Proxy>>,
}

impl WebFile {
    /// What is served; `https` is where the first listener with TLS is.
    pub(super) fn site(self, domain: &str, https: Option<&SocketAddr>, must_secure: bool) -> Site {
        let own = https.map(|address| match address.port() {
            HTTPS_PORT => domain.to_owned(),
            port => format!("{domain}:{port}"),
        });
        let authority = self.url.map(|Text(Url(authority))| authority).or(own);
        let origins = self.origins.map_or_else(Vec::new, |List(list)| list);
        let named: Vec<Box<str>> = origins.into_iter().map(|Origin(origin)| origin).collect();
        let is_open = named.is_empty() || named.iter().any(|origin| &**origin == "*");
        let proxies = self
            .trusted_proxies
            .map_or_else(Vec::new, |List(list)| list);
        Site {
            origins: (!is_open).then_some(named),
            trusted_proxies: proxies.into_iter().map(|Proxy(address)| address).collect(),
            must_secure,
            authority: authority.map(String::into_boxed_str),
            uploads: None,
        }
    }
}

/// Where the site is for all the world: the host, perhaps with a port.
struct Url(String);

impl FromText for Url {
    const EXPECTED: &'static str = "a URL in quotes";

    fn from_text(text: &str) -> Result<Url, String> {
        let base = text.strip_suffix('/').unwrap_or(text);
        // XEP-0156 2.2: nothing else is told to clients.
        let authority = base
            .strip_prefix("https://")
            .filter(|rest| is_authority(rest));
        let found = authority.map(|authority| Url(authority.to_owned()));
        found.ok_or_else(|| {
            format!(
                "is no URL of HTTPS without a path ({text:?}); write it like \
                 \"https://chat.example.org\""
            )
        })
    }
}

/// A page's origin (RFC 6454 6.2), or `*` for all.
struct Origin(Box<str>);

impl FromText for Origin {
    const EXPECTED: &'static str = "an origin in quotes";

    fn from_text(text: &str) -> Result<Origin, String> {
        let is_origin = |(scheme, authority): (&str, &str)| {
            !scheme.is_empty()
                && scheme
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && is_authority(authority)
        };
        match text == "*" || text == "null" || text.split_once("://").is_some_and(is_origin) {
            true => Ok(Origin(text.into())),
            false => Err(format!(
                "has what is no origin ({text:?}); write it like \"https://chat.example.org\", \
                 without a path"
            )),
        }
    }
}

impl InList for Origin {
    const LIST: &'static str = "[\"https://chat.example.org\"]";
}

/// The address of a proxy.
struct Proxy(IpAddr);

impl FromText for Proxy {
    const EXPECTED: &'static str = "an address in quotes";

    fn from_text(text: &str) -> Result<Proxy, String> {
        let address = text.parse::<IpAddr>();
        address
            .map(|address| Proxy(address.to_canonical()))
            .map_err(|_| format!("has what is no address ({text:?}); write it like \"127.0.0.1\""))
    }
}

impl InList for Proxy {
    const LIST: &'static str = "[\"127.0.0.1\"]";
}

/// A host, perhaps with a port.
fn is_authority(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    !text.is_empty() && text.bytes().all(is_plain)
}
