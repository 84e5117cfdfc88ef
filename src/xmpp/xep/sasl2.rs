//! XEP-0388: Extensible SASL Profile. What `<authenticate/>` asks for beside the proof, and
//! `<success/>`, which tells what became of it.
//!
//! Invariant: nothing of that is done before the proof is accepted. A session is resumed first, and
//! a resource bound only where there is none then; while storage is asked for either, the stream's
//! input waits. `<success/>` is written once, when all is known.

use super::bind2::{Bind, KnownEnds};
use super::fast::{Asked, Issued, Names};
use super::stream_management::{Wanted, write_failed};
use super::upgrade::Upgrades;
use super::{Extension, Xep};
use crate::error::{StreamError, put};
use crate::host::{ConnId, Host};
use crate::port::TokenBinding;
use crate::settings::Settings;
use crate::shard::Shard;
use crate::stream::sasl::{self, Offer, SaslError};
use crate::stream::{Flow, Phase, StreamState};
use crate::xml::Attr;
use stanza::jid::BareJid;
use stanza::ns::Ns;
use stanza::tree::Node;

/// The profile. Its elements are no stanzas, so the stream hands them over itself; the exchange is
/// in `stream::auth`, and the offer in `stream::features`.
#[derive(Debug)]
pub struct Sasl2;

impl Extension for Sasl2 {
    const XEP: Xep = Xep {
        number: 388,
        version: "1.0.4",
    };
}

/// Ends what [`Inline::open_success`] begins.
pub(crate) const SUCCESS_END: &[u8] = b"</success>";

/// What is known of a stream's authentication beside the proof, until `<success/>` is written.
#[derive(Debug, Default)]
pub(crate) struct Inline {
    /// Whose stream it is by its header.
    pub from: Option<BareJid>,
    /// Which installation of a client this is, by the id that it gives itself.
    pub user_agent: Option<u128>,
    /// What it calls itself.
    pub names: Names,
    /// Whether storage has it, as far as that is needed.
    pub is_noted: bool,
    /// What it asks for with tokens.
    pub tokens: Asked,
    /// The token that it is given.
    pub issued: Option<Issued>,
    /// The keys that its account lacks and it may give.
    pub upgrades: Upgrades,
    pub resume: Resume,
    pub bind: Option<Bind>,
    /// Where its account's archive begins and ends, if it binds.
    pub archive: KnownEnds,
    /// The mechanism's last message.
    pub additional_data: Option<Box<[u8]>>,
}

/// Whether a session is to be resumed.
#[derive(Debug, Default)]
pub(crate) enum Resume {
    #[default]
    Unasked,
    Wanted(Wanted),
    Refused,
}

impl Inline {
    /// Takes what `<authenticate/>` asks for; that of an earlier one is void.
    fn read(&mut self, authenticate: Node<'_>, settings: &Settings) {
        let user_agent = authenticate.child("user-agent", Ns::Sasl2);
        let resume = authenticate.child("resume", Ns::StreamManagement);
        let bind = authenticate.child("bind", Ns::Bind2);
        *self = Inline {
            from: self.from.take(),
            user_agent: user_agent.and_then(|agent| parse_uuid(agent.attr("id")?)),
            names: user_agent.map(Names::read).unwrap_or_default(),
            is_noted: false,
            tokens: Asked::read(authenticate),
            issued: None,
            upgrades: Upgrades::read(authenticate, settings),
            resume: match resume.map(Wanted::read) {
                None => Resume::Unasked,
                Some(Some(wanted)) => Resume::Wanted(wanted),
                Some(None) => Resume::Refused,
            },
            bind: bind.map(Bind::read),
            archive: KnownEnds::Unasked,
            additional_data: None,
        };
    }

    /// Writes `<success/>` up to where the results of inline features stand that went well.
    pub(crate) fn open_success(&self, identity: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<success xmlns='urn:xmpp:sasl:2'>");
        write_additional_data(self.additional_data.as_deref(), out);
        put(
            out,
            format_args!(
                "<authorization-identifier>{}</authorization-identifier>",
                Attr(identity)
            ),
        );
        if let Some(issued) = &self.issued {
            issued.write(out);
        }
        // XEP-0198 9.2.1: the failure is told, and the rest done.
        if let Resume::Refused = self.resume {
            write_failed(out, "item-not-found");
        }
    }
}

/// Writes a mechanism's last message, where it has one.
pub(super) fn write_additional_data(data: Option<&[u8]>, out: &mut Vec<u8>) {
    if let Some(data) = data {
        let data = sasl::encode(data);
        put(
            out,
            format_args!("<additional-data>{data}</additional-data>"),
        );
    }
}

/// The number of a UUID as it is written: what is none names nobody.
fn parse_uuid(text: &str) -> Option<u128> {
    let mut groups = text.split('-');
    let mut bits = 0;
    for digits in [8, 4, 4, 4, 12] {
        let group = groups.next().filter(|group| group.len() == digits)?;
        let is_hex = group.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = is_hex.then(|| u128::from_str_radix(group, 16).ok())??;
        bits = bits << (4 * digits) | number;
    }
    groups.next().is_none().then_some(bits)
}

impl Shard {
    /// An element of the profile on a stream that is not authenticated.
    pub(crate) fn on_sasl2(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut Box<StreamState>,
        root: Node<'_>,
    ) -> Flow {
        if !stream.secure {
            // XEP-0388 3: never before TLS.
            return self.auth_failed(host, conn, stream, SaslError::EncryptionRequired, None);
        }
        if let Phase::ExpectUpgrade(_) = stream.phase {
            return self.on_upgrade(host, conn, stream, root);
        }
        match root.name() {
            "authenticate" if stream.is_proving() => self.interrupted(host, conn, stream),
            "authenticate" => {
                let inline = stream.inline.get_or_insert_default();
                inline.read(root, &self.settings);
                // XEP-0484 3.2: one of those that are offered.
                let offer = Offer::new(&self.settings, stream.tls.as_deref());
                let wanted = inline.tokens.wanted;
                inline.tokens.wanted = wanted.filter(|binding| offer.offers_token(*binding));
                let initial = root.child("initial-response", Ns::Sasl2).map(decode);
                let initial = initial.transpose();
                let mechanism = root.attr("mechanism").unwrap_or_default();
                match TokenBinding::parse(mechanism) {
                    Some(binding) => self.on_token_auth(host, conn, stream, binding, initial),
                    None => self.on_auth(host, conn, stream, mechanism, initial),
                }
            }
            // XEP-0388 2.5: it is not extensible.
            "response" if root.children().next().is_some() => {
                self.auth_failed(host, conn, stream, SaslError::MalformedRequest, None)
            }
            "response" => self.on_response(host, conn, stream, decode(root)),
            "abort" => self.on_abort(host, conn, stream),
            _ => {
                let error = StreamError::UnsupportedStanzaType;
                self.stream_error(host, conn, stream, error, None)
            }
        }
    }

    /// XEP-0388 2.4: who says anything else amid an exchange is disconnected.
    pub(crate) fn interrupted(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &StreamState,
    ) -> Flow {
        let text = Some("an authentication is under way");
        self.stream_error(host, conn, stream, StreamError::PolicyViolation, text)
    }

    /// The proof is accepted.
    pub(crate) fn on_sasl2_proved(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        account: BareJid,
        last: Option<&[u8]>,
    ) -> Flow {
        let inline = stream.inline.get_or_insert_default();
        inline.additional_data = last.map(Box::from);
        if self.begin_upgrade(host, conn, stream, &account) {
            return Flow::Next;
        }
        self.on_sasl2_complete(host, conn, stream, account)
    }

    /// The same, when its account has all keys that its client gives.
    pub(crate) fn on_sasl2_complete(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        account: BareJid,
    ) -> Flow {
        if self.note_agent(host, conn, stream, &account) {
            return Flow::Stop;
        }
        stream.phase = Phase::ExpectBind(account);
        self.go_on_proved(host, conn, stream)
    }

    /// The same, when storage knows of its user agent.
    pub(crate) fn go_on_proved(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
    ) -> Flow {
        let inline = stream.inline.get_or_insert_default();
        match inline.resume {
            Resume::Wanted(wanted) => self.resume(host, conn, stream, wanted),
            _ => self.bind_inline(host, conn, stream),
        }
    }

    /// Tells a client that it is authenticated, and has no resource yet.
    pub(crate) fn succeed_unbound(
        &self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
    ) {
        if let (Some(inline), Phase::ExpectBind(account)) = (stream.inline.take(), &stream.phase) {
            let out = host.output(conn);
            inline.open_success(account.as_str(), out);
            out.extend_from_slice(SUCCESS_END);
        }
        // XEP-0388 2.6.1: at once, for no stream is restarted.
        self.write_features(host, conn, stream);
    }
}

/// XEP-0388 2.2: an empty element is an empty message, and nothing else stands for that. There
/// should be no white space, but there is in the examples of the XEP.
fn decode(element: Node<'_>) -> Result<Vec<u8>, SaslError> {
    sasl::decode_base64(element.text().trim_ascii().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_uuid_in_either_case_and_nothing_else() {
        let id = Some(0xd456_5fa7_4d72_4749_b3d3_740e_dbf8_7770);
        for (text, expected) in [
            ("d4565fa7-4d72-4749-b3d3-740edbf87770", id),
            ("D4565FA7-4D72-4749-B3D3-740EDBF87770", id),
            ("d4565fa74d724749b3d3740edbf87770", None),
            ("d4565fa7-4d72-4749-b3d3-740edbf8777", None),
            ("d4565fa7-4d72-4749-b3d3-740edbf87770-", None),
            ("+4565fa7-4d72-4749-b3d3-740edbf87770", None),
            ("d4565fa-74d72-4749-b3d3-740edbf87770", None),
            ("", None),
        ] {
            assert_eq!(parse_uuid(text), expected, "{text}");
        }
    }
}
