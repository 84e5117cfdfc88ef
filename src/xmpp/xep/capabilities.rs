//! XEP-0115: Entity Capabilities. What the server is and can do, told at each login by one hash, so
//! that a client that knows it need not ask.
//!
//! Invariant: the hash is of what disco#info answers: both are made of one [`Info`], once, when the
//! shard comes up.

use super::disco::{Form, Info};
use super::{Extension, Xep};
use crate::error::put;
use crate::settings::Settings;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};
use stanza::ns::Ns;

/// What tells this software from others: a name of its own, since it has no address yet.
const NODE: &str = "urn:uuid:b346fd4b-7396-47f2-9395-29aae3d914ab";

/// The server's side; what clients say of themselves is for [`super::interest`].
#[derive(Debug)]
pub struct EntityCapabilities;

impl Extension for EntityCapabilities {
    const XEP: Xep = Xep {
        number: 115,
        version: "1.6.0",
    };
    const FEATURES: &'static [Ns] = &[Ns::Caps];
}

/// What the server says of itself, as it is written.
#[derive(Debug)]
pub struct Capabilities {
    /// What stands in the answer to disco#info.
    info: Vec<u8>,
    /// The node that stands for just that.
    node: String,
    /// `<c/>`
    element: Vec<u8>,
}

impl Capabilities {
    /// Those of a server with these settings.
    pub fn new(settings: &Settings) -> Capabilities {
        let server = Info::of_server(settings);
        let (mut info, mut element) = (Vec::new(), Vec::new());
        server.write(&mut info);
        let ver = STANDARD.encode(Sha1::digest(verification(server)));
        put(
            &mut element,
            format_args!(
                "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='{NODE}' \
                 ver='{ver}'/>"
            ),
        );
        Capabilities {
            info,
            node: format!("{NODE}#{ver}"),
            element,
        }
    }

    /// What stands in the answer to disco#info.
    pub(super) fn info(&self) -> &[u8] {
        &self.info
    }

    /// Whether a request for this node is one for the whole server (XEP-0115 6.2).
    pub(super) fn is_node(&self, node: &str) -> bool {
        node == self.node
    }

    /// What stands among the stream features (XEP-0115 6.3).
    pub(crate) fn element(&self) -> &[u8] {
        &self.element
    }
}

/// XEP-0115 5.1: what the verification string is the hash of. Texts are compared by their bytes.
pub(super) fn verification(mut info: Info<'_>) -> String {
    let mut text = String::new();
    let mut say = |part: &str| {
        text.push_str(part);
        text.push('<');
    };
    info.identities
        .sort_by_key(|one| (one.category, one.kind, one.lang));
    for one in &info.identities {
        let (category, kind, lang, name) = (one.category, one.kind, one.lang, one.name);
        say(&format!("{category}/{kind}/{lang}/{name}"));
    }
    info.features.sort_unstable();
    info.features.iter().for_each(|feature| say(feature));
    info.forms.sort_by_key(|form| form.kind);
    for Form { kind, fields } in &mut info.forms {
        say(kind);
        fields.sort_by(|one, other| one.var.cmp(&other.var));
        for field in fields {
            say(&field.var);
            field.values.sort_unstable();
            field.values.iter().for_each(|value| say(value));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::disco::{Field, Identity};
    use super::*;

    fn hash(info: Info<'_>) -> String {
        STANDARD.encode(Sha1::digest(verification(info)))
    }

    const FEATURES: [&str; 4] = [
        "http://jabber.org/protocol/muc",
        "http://jabber.org/protocol/disco#items",
        "http://jabber.org/protocol/disco#info",
        "http://jabber.org/protocol/caps",
    ];

    fn client(lang: &'static str, name: &'static str) -> Identity<'static> {
        Identity {
            category: "client",
            kind: "pc",
            lang,
            name,
        }
    }

    #[test]
    fn the_examples_of_the_specification_have_their_strings() {
        // XEP-0115 5.2
        let simple = Info {
            identities: vec![client("", "Exodus 0.9.1")],
            features: FEATURES.to_vec(),
            forms: Vec::new(),
        };
        assert_eq!(hash(simple), "QgayPKawpkPSDYmwT/WM94uAlu0=");
        // XEP-0115 5.3
        let field = |var: &'static str, values: &[&'static str]| Field {
            var: var.into(),
            kind: "",
            values: values.to_vec(),
        };
        let complex = Info {
            identities: vec![client("en", "Psi 0.11"), client("el", "\u{3a8} 0.11")],
            features: FEATURES.to_vec(),
            forms: vec![Form {
                kind: "urn:xmpp:dataforms:softwareinfo",
                fields: vec![
                    field("software_version", &["0.11"]),
                    field("os_version", &["10.5.1"]),
                    field("os", &["Mac"]),
                    field("ip_version", &["ipv6", "ipv4"]),
                    field("software", &["Psi"]),
                ],
            }],
        };
        assert_eq!(hash(complex), "q07IKJEyjvHSyhy//CH0CxmKi8w=");
    }

    #[test]
    fn what_a_server_offers_is_in_its_string() {
        let plain = Settings::new("example.org");
        let mut contacts = plain.clone();
        contacts.contacts = vec![("abuse".into(), vec!["mailto:a@example.org".into()])];
        let nodes = [&plain, &contacts].map(|settings| Capabilities::new(settings).node);
        assert_ne!(nodes[0], nodes[1]);
        assert_eq!(nodes[0], Capabilities::new(&plain).node);
    }
}
