//! XEP-0386: Bind 2. A resource that the server makes, bound inside of SASL2 together with what the
//! session is to have from its first stanza on.
//!
//! Invariant: what is offered inline is in [`INLINE`], and [`Bind::read`] understands all of it.
//! What waits offline stays there, also where an archive has it (3.2): it comes by the same id.

use super::archive::{Pending, write_metadata};
use super::sasl2::SUCCESS_END;
use super::stream_management::{Enable, write_enabled, write_failed};
use super::{Extension, Xep};
use crate::account::AccountKey;
use crate::host::{ConnId, Host, Ticket, Timestamp};
use crate::port::{AgentId, ArchiveEnds, StoreOp, StoreReply};
use crate::session::{Modes, SessionKey};
use crate::shard::{Shard, Waiting};
use crate::stream::bind::may_be_guests;
use crate::stream::{Flow, Phase, StreamState};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use stanza::jid::{BareJid, prepare_resource};
use stanza::ns::Ns;
use stanza::tree::Node;

/// Bind 2.
#[derive(Debug)]
pub struct Bind2;

impl Extension for Bind2 {
    const XEP: Xep = Xep {
        number: 386,
        version: "1.1.0",
    };
}

/// What a client may have enabled with the bind, by the names of the features.
pub(crate) const INLINE: &[Ns] = &[Ns::StreamManagement, Ns::Carbons];

/// Bytes of a tag; a longer one is left out of the resource.
const TAG_SIZE_MAX: usize = 128;

/// What is known of an archive when a client of its owner is bound.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum KnownEnds {
    #[default]
    Unasked,
    /// Storage is asked, and the client waits.
    Asked(Ticket),
    /// It is not told: storage failed, or something has come since.
    Unknown,
    Known(ArchiveEnds),
}

impl KnownEnds {
    /// Whether storage is still to answer.
    pub(crate) fn is_asked(&self) -> bool {
        matches!(self, KnownEnds::Asked(_))
    }

    /// Is void where something is newer that the account has archived: who is told that he has all
    /// would not ask for it.
    fn check(&mut self, newest: Timestamp) {
        let KnownEnds::Known(ends) = self else {
            return;
        };
        if ends.map_or(Timestamp::default(), |(_, last)| last.time()) < newest {
            *self = KnownEnds::Unknown;
        }
    }
}

/// A client's request.
#[derive(Debug, Default)]
pub(crate) struct Bind {
    /// What the client calls itself, prepared.
    tag: Option<Box<str>>,
    /// Stream management, where it is to be enabled.
    enable: Option<Enable>,
    /// Whether it gets copies of the account's messages from the first stanza on (XEP-0280).
    copies: bool,
}

impl Bind {
    /// Takes what `<bind/>` asks for, and passes over what is not offered.
    pub(crate) fn read(bind: Node<'_>) -> Bind {
        let mut request = Bind::default();
        for child in bind.children() {
            match (child.ns(), child.name()) {
                (Ns::Bind2, "tag") => request.tag = prepare_tag(child.text()),
                (Ns::StreamManagement, "enable") => request.enable = Some(Enable::read(child)),
                (Ns::Carbons, "enable") => request.copies = true,
                _ => {}
            }
        }
        request
    }

    /// XEP-0386 3.2.1: the tag, and behind it what tells this client from all others.
    fn resource(&self, identifier: &str) -> Box<str> {
        match &self.tag {
            Some(tag) => format!("{tag}/{identifier}").into(),
            None => identifier.into(),
        }
    }
}

/// A tag as it stands in a resource; what cannot stand there is left out.
fn prepare_tag(text: &str) -> Option<Box<str>> {
    let prepared = prepare_resource(text).ok()?;
    let is_tag = !prepared.is_empty() && prepared.len() <= TAG_SIZE_MAX;
    is_tag.then(|| prepared.as_ref().into())
}

/// What an account's client is known by: the same at every login, and its id cannot be found out
/// from it (XEP-0386 3.2.1).
pub(crate) fn stable_identifier(secret: &[u8; 32], account: &BareJid, user_agent: u128) -> AgentId {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any size");
    mac.update(b"resource of a user agent\0");
    mac.update(&user_agent.to_be_bytes());
    mac.update(account.as_str().as_bytes());
    let digest = mac.finalize().into_bytes();
    let (first, _) = digest.split_first_chunk().expect("it has 32 bytes");
    AgentId(u64::from_be_bytes(*first))
}

impl Shard {
    /// An authenticated client has no session to go on with: binds, where it asked for that.
    pub(crate) fn bind_inline(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
    ) -> Flow {
        if self.asks_for_ends(host, conn, stream) {
            return Flow::Stop;
        }
        let (Some(inline), Phase::ExpectBind(account)) = (&stream.inline, &stream.phase) else {
            return Flow::Next;
        };
        let Some(request) = &inline.bind else {
            self.succeed_unbound(host, conn, stream);
            return Flow::Next;
        };
        let secret = &self.settings.fake_salt_secret;
        let identifier = match inline.user_agent {
            Some(user_agent) => stable_identifier(secret, account, user_agent),
            None => AgentId(host.random()),
        };
        let resource = request.resource(&identifier.to_string());
        self.bind_when_loaded(host, conn, stream, Some(resource), None)
    }

    /// XEP-0386 3.2: has storage say where the account's archive begins and ends, before the client
    /// is bound; whether it was asked.
    fn asks_for_ends(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
    ) -> bool {
        let (Some(inline), Phase::ExpectBind(account)) = (&mut stream.inline, &stream.phase) else {
            return false;
        };
        let is_due = inline.bind.is_some() && inline.archive == KnownEnds::Unasked;
        // A guest has no archive.
        let has_none = !self.settings.archives() || may_be_guests(&self.settings, account);
        if !is_due || has_none {
            return false;
        }
        let account = account.clone();
        let ticket = self.ticket(Waiting::Archive);
        inline.archive = KnownEnds::Asked(ticket);
        let pending = &mut self.archive_requests.pending;
        pending.insert(ticket.0, Pending::Bind(conn));
        host.store(ticket, StoreOp::ArchiveEnds { account });
        host.pause(conn);
        true
    }

    /// Storage has answered that.
    pub(crate) fn on_ends_stored(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        ticket: Ticket,
        reply: StoreReply,
    ) {
        let Some(mut stream) = self.conns.take(conn) else {
            return;
        };
        let inline = stream.inline.as_mut();
        let asked = inline.filter(|inline| inline.archive == KnownEnds::Asked(ticket));
        let Some(inline) = asked else {
            return self.conns.put(conn, stream);
        };
        inline.archive = match reply {
            StoreReply::ArchiveEnds(ends) => KnownEnds::Known(ends),
            reply => {
                tracing::error!(?reply, "where an archive ends is not known");
                KnownEnds::Unknown
            }
        };
        let flow = self.bind_inline(host, conn, &mut stream);
        self.settle_stream(host, conn, stream, flow);
    }

    /// Ends the earlier sessions of the client that binds this resource, whatever it called itself
    /// then (XEP-0386 3.2).
    pub(crate) fn end_earlier(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        stream: &StreamState,
        resource: &str,
    ) {
        let user_agent = stream.inline.as_ref().and_then(|inline| inline.user_agent);
        if user_agent.is_none() {
            return;
        }
        let identifier = |resource: &str| resource.rsplit('/').next().map(Box::<str>::from);
        let own = identifier(resource);
        let mut earlier = self.accounts.at(account).sessions.to_vec();
        earlier.retain(|key| identifier(self.sessions.at(*key).resource()) == own);
        for key in earlier {
            self.replace_session(host, key);
        }
    }

    /// A session was made for a client: enables what that asked for.
    pub(crate) fn enable_inline(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        key: SessionKey,
    ) -> Flow {
        let newest = self
            .accounts
            .at(self.sessions.at(key).account)
            .newest_archived;
        let inline = stream.inline.as_mut();
        let enable = inline.and_then(|inline| {
            inline.archive.check(newest);
            inline.bind.as_ref()?.enable
        });
        match enable.map(|enable| self.manage(host, key, enable)) {
            None => self.succeed_bound(host, conn, stream, key, None),
            Some(Ok(true)) => self.open_managed(host, key, Some(stream)),
            Some(Ok(false)) => {
                // `<success/>` waits for storage, and so does the client.
                host.pause(conn);
                return Flow::Stop;
            }
            Some(Err(why)) => self.succeed_bound(host, conn, stream, key, Some(why)),
        }
        Flow::Next
    }

    /// How a session begins whose client asked for this with the bind.
    pub(crate) fn modes_of(stream: &StreamState) -> Modes {
        let inline = stream.inline.as_ref();
        let bind = inline.and_then(|inline| inline.bind.as_ref());
        let mut modes = Modes::default();
        modes.set(Modes::GETS_COPIES, bind.is_some_and(|bind| bind.copies));
        modes
    }

    /// A stream whose `<success/>` waits for storage to have its session.
    pub(crate) fn owed_success(&mut self, key: SessionKey) -> Option<(ConnId, Box<StreamState>)> {
        let conn = self.sessions.at(key).outlet.conn?;
        self.conns.peek(conn)?.inline.as_ref()?;
        Some((conn, self.conns.take(conn)?))
    }

    /// Tells a client that it is authenticated and bound, and whether its session is managed.
    pub(crate) fn succeed_bound(
        &self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        key: SessionKey,
        refused: Option<&str>,
    ) {
        let Some(inline) = stream.inline.take() else {
            return;
        };
        let session = self.sessions.at(key);
        let out = host.output(conn);
        inline.open_success(session.full(), out);
        out.extend_from_slice(b"<bound xmlns='urn:xmpp:bind:0'>");
        match (refused, &session.outlet.acks) {
            // XEP-0198 9.1.1
            (Some(condition), _) => write_failed(out, condition),
            (None, Some(acks)) => write_enabled(acks, out),
            (None, None) => {}
        }
        if let KnownEnds::Known(ends) = inline.archive {
            write_metadata(ends, out);
        }
        out.extend_from_slice(b"</bound>");
        out.extend_from_slice(SUCCESS_END);
        self.write_features(host, conn, stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_a_client_s_of_an_account_on_a_server() {
        let account = |text| BareJid::parse(text).unwrap();
        let alice = account("alice@example.org");
        let id = 0xd456_5fa7_4d72_4749_b3d3_740e_dbf8_7770;
        let own = stable_identifier(&[1; 32], &alice, id);
        assert_eq!(own, stable_identifier(&[1; 32], &alice, id));
        for other in [
            stable_identifier(&[2; 32], &alice, id),
            stable_identifier(&[1; 32], &account("bob@example.org"), id),
            stable_identifier(&[1; 32], &alice, id + 1),
        ] {
            assert_ne!(own, other);
        }
    }

    #[test]
    fn a_tag_that_is_too_long_or_cannot_be_in_a_resource_is_left_out() {
        let tag = |text: &str| prepare_tag(text).map(String::from);
        assert_eq!(tag("AwesomeXMPP").as_deref(), Some("AwesomeXMPP"));
        let longest = "x".repeat(TAG_SIZE_MAX);
        assert_eq!(tag(&longest), Some(longest.clone()));
        for bad in [format!("{longest}x"), String::new(), "a\u{7}b".into()] {
            assert_eq!(tag(&bad), None, "{bad:?}");
        }
    }
}
