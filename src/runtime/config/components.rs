//! `[component."domain"]`: what connects to the server and speaks for a domain (XEP-0114).

use super::complaint::{ConfigError, Source};
use super::file::COMPONENT_LISTENER;
use super::value::{Domain, FromText, Text};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use toml::Spanned;
use xmpp::xep::components::{COMPONENTS_MAX, Component};

/// Bytes of a secret: whoever has seen a handshake can try as many as he likes.
const SECRET_SIZE_MIN: usize = 12;
const SECRET_SIZE_MAX: usize = 256;

#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table like [component.\"irc.example.org\"]"
)]
pub(super) struct ComponentFile {
    secret: Option<Text<Secret>>,
}

/// The components, in the order of their names.
///
/// # Errors
/// The first that makes no sense, by the line where it begins, or where it should connect.
pub(super) fn check(
    files: BTreeMap<String, Spanned<ComponentFile>>,
    own: &str,
    listeners: &[SocketAddr],
    source: &Source<'_>,
) -> Result<Vec<Component>, ConfigError> {
    if files.is_empty() && !listeners.is_empty() {
        let what = "listen.component has an address, but no component is configured";
        let remedy =
            "add a table like [component.\"irc.example.org\"] with its secret, or remove it";
        let section = Some("listen");
        return Err(source.refuse(section, COMPONENT_LISTENER, what.to_owned(), remedy));
    }
    let mut components: Vec<Component> = Vec::new();
    for (name, file) in files {
        let begin = file.span().start;
        let refuse = |what: &str, remedy: &str| {
            source.refuse_at(begin, format!("component {name:?} {what}"), remedy)
        };
        let Ok(Domain(domain)) = Domain::from_text(&name) else {
            let remedy = "write it like [component.\"irc.example.org\"]";
            return Err(refuse("is not a domain", remedy));
        };
        if *domain == *own {
            let remedy = "give the component a domain of its own, as one below that";
            return Err(refuse("is the domain of the server", remedy));
        }
        if components.iter().any(|known| known.domain == domain) {
            return Err(refuse("stands here twice, written differently", "keep one"));
        }
        let Some(Text(Secret(secret))) = file.into_inner().secret else {
            let remedy =
                "add a line like `secret = \"..\"`, with what the component has as its own";
            return Err(refuse("has no secret", remedy));
        };
        if listeners.is_empty() {
            let remedy = "add a line like `component = \"127.0.0.1:5347\"` to [listen]";
            let what = "could not connect, because listen.component has no address";
            return Err(refuse(what, remedy));
        }
        if components.len() == COMPONENTS_MAX {
            return Err(refuse("is one too many", "keep 64 at most"));
        }
        components.push(Component { domain, secret });
    }
    Ok(components)
}

const _: () = assert!(COMPONENTS_MAX == 64, "the remedy above says so");

/// What a component and the server know, and nobody else.
struct Secret(Box<str>);

impl FromText for Secret {
    const EXPECTED: &'static str = "text in quotes";

    fn from_text(text: &str) -> Result<Secret, String> {
        match (SECRET_SIZE_MIN..=SECRET_SIZE_MAX).contains(&text.len()) {
            true => Ok(Secret(text.into())),
            false => Err(format!(
                "has {} bytes; write {SECRET_SIZE_MIN} to {SECRET_SIZE_MAX} that nobody guesses, \
                 as `openssl rand -hex 16` prints them",
                text.len()
            )),
        }
    }
}
