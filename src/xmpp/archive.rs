//! Messages on their way into archives (XEP-0313), and the ids that they have there (XEP-0359).
//!
//! The sender's shard gives a message its id and stamps it for its receiver, whose shard archives
//! it by the same one, unless something newer is there already. Invariant: an archive only grows at
//! its end, and a client is shown the id of a message when the archive has it.

use crate::account::{Account, AccountKey};
use crate::host::{Host, Timestamp};
use crate::port::{ARCHIVE_ID_SIZE, ArchiveEntry, ArchiveId, Enqueue, StoreOp, known_as};
use crate::router::Route;
use crate::session::{Modes, SessionKey};
use crate::shard::{Shard, Waiting};
use crate::stanza::{MESSAGE_END, Stanza, Type, append_child};
use crate::xep::offline::is_of_the_moment;
use crate::xep::retraction::retraction_in;
use stanza::jid::{BareJid, Jid, bare_of};
use stanza::ns::Ns;
use stanza::scope::StreamScope;
use stanza::view::{Kind, StanzaView};
use std::io::Write;
use std::ops::Range;

const STAMP: &[u8] = b"<stanza-id xmlns='urn:xmpp:sid:0' by='";
const STAMP_ID: &[u8] = b"' id='";
const STAMP_END: &[u8] = b"'/>";

/// What the message in hand is known by in the archive of whose clients it is for: they get it when
/// storage has that.
#[derive(Debug)]
pub(crate) struct Archiving {
    pub id: ArchiveId,
    /// What goes there along with what becomes of the message; it may have gone before.
    pub entry: Option<Box<ArchiveEntry>>,
}

/// The id of a message in one archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp<'a> {
    /// Whose archive: a bare JID has nothing that would have to be escaped.
    pub by: &'a str,
    pub id: ArchiveId,
}

impl Stamp<'_> {
    /// As it stands in a message.
    fn text(self) -> Vec<u8> {
        let mut text = Vec::with_capacity(size_of_stamp(self.by));
        text.extend_from_slice(STAMP);
        text.extend_from_slice(self.by.as_bytes());
        text.extend_from_slice(STAMP_ID);
        write!(text, "{}", self.id).expect("memory takes what is written");
        text.extend_from_slice(STAMP_END);
        text
    }

    /// Puts the id at the end of what a message says that was just written.
    pub(crate) fn put(self, message: &mut Vec<u8>) {
        append_child(message, &self.text());
    }

    /// Takes it out of a stanza, which may hold the message.
    pub(crate) fn take_out(self, stanza: &[u8]) -> Vec<u8> {
        let text = self.text();
        let found = stanza.windows(text.len()).rposition(|it| it == text);
        let mut bytes = stanza.to_vec();
        if let Some(start) = found {
            bytes.drain(start..start + text.len());
        }
        bytes
    }
}

fn size_of_stamp(by: &str) -> usize {
    STAMP.len() + by.len() + STAMP_ID.len() + ARCHIVE_ID_SIZE + STAMP_END.len()
}

/// Where a complete message has its id in an archive, and which, if a server stamped it last. What
/// clients claim of that kind was taken out, see [`Shard::without_claims`].
pub(crate) fn stamp_in(message: &[u8], by: &str) -> Option<(Range<usize>, ArchiveId)> {
    let end = message.strip_suffix(MESSAGE_END)?.len();
    stamp_before(message, end, by)
}

/// The same where it ends before this place.
fn stamp_before(message: &[u8], end: usize, by: &str) -> Option<(Range<usize>, ArchiveId)> {
    let start = end.checked_sub(size_of_stamp(by))?;
    let rest = message[start..end].strip_prefix(STAMP)?;
    let rest = rest.strip_prefix(by.as_bytes())?.strip_prefix(STAMP_ID)?;
    let id = std::str::from_utf8(rest.strip_suffix(STAMP_END)?).ok()?;
    Some((start..end, ArchiveId::parse(id)?))
}

/// Takes the id of a message that bounces out of it: whoever sent it does not know that archive. Of
/// one that waited, the server stamped the time behind it.
pub(crate) fn take_out_stamp(message: &mut Vec<u8>, by: &str) {
    const DELAY: &[u8] = b"<delay xmlns='urn:xmpp:delay' from='";
    let Some(content) = message.strip_suffix(MESSAGE_END) else {
        return;
    };
    let before_delay = || {
        let start = content.windows(DELAY.len()).rposition(|it| it == DELAY)?;
        let is_last = !content[start + 1..].contains(&b'<');
        is_last.then(|| stamp_before(content, start, by))?
    };
    let found = stamp_before(content, content.len(), by).or_else(before_delay);
    if let Some((place, _)) = found {
        message.drain(place);
    }
}

/// XEP-0313 5.1.1: whether archives are to have a message; XEP-0334 has the hints. What a person
/// would not read is there where other devices need it: receipts, markers, and what changes others.
fn is_worth_keeping(stanza: &Stanza<'_>) -> bool {
    if !matches!(stanza.type_, Type::Normal | Type::Chat) || is_of_the_moment(stanza) {
        return false;
    }
    let view = stanza.view();
    let others = [Ns::Receipts, Ns::ChatMarkers, Ns::Retract, Ns::Reactions];
    view.has_body()
        || others.iter().any(|ns| view.has_child_ns(*ns))
        || view.has_child_ns(Ns::Hints) && says_store(stanza)
}

/// What storage is to find a message by (XEP-0424).
fn known_as_of(stanza: &Stanza<'_>) -> Option<u64> {
    let id = stanza.id()?;
    Some(known_as(bare_of(stanza.from), stanza.to.bare(), &id))
}

fn says_store(stanza: &Stanza<'_>) -> bool {
    let tree = stanza.tree();
    tree.is_some_and(|tree| tree.root().child("store", Ns::Hints).is_some())
}

impl Account {
    /// Whether it has an archive that takes messages, and wants those with a peer.
    fn archives(&self, peer: &Jid<'_>) -> bool {
        let has_archive = !self.is_anonymous && !self.is_ending && !self.is_gone;
        has_archive
            && self.archiving.as_ref().is_none_or(|wishes| {
                wishes.want(peer, || {
                    let item = self.contact(peer.bare());
                    item.is_some_and(|item| item.listed)
                })
            })
    }
}

impl Shard {
    /// A client's message to an account of ours, of which other devices or archives get something.
    #[allow(clippy::too_many_arguments)] // a stanza, its stream, its sender and its way
    pub(crate) fn carry_noted(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        scope: &StreamScope,
        type_: Type,
        to: &Jid<'_>,
        route: Route,
    ) {
        let modes = self.sessions.at(key).modes;
        let message = Stanza::received(view, scope, type_, "", to);
        let id = match modes.has(Modes::IS_ARCHIVED) {
            true => self.archive_id(host, &message),
            false => None,
        };
        if modes.has(Modes::IS_COPIED) || id.is_some() {
            self.note_sent(host, key, view, scope, (type_, id), to);
        }
        // Who is at a component has no archive here.
        let has_archive = !matches!(route, Route::Component(_));
        let stamp = id.filter(|_| has_archive);
        let stamp = stamp.map(|id| Stamp { by: to.bare(), id });
        self.carry(host, key, view, scope, type_, to, route, stamp.as_ref());
    }

    /// What archives are to know a message by, where they are to have it.
    pub(crate) fn archive_id(
        &mut self,
        host: &mut impl Host,
        message: &Stanza<'_>,
    ) -> Option<ArchiveId> {
        is_worth_keeping(message).then(|| {
            let at = self.archive_time(host);
            ArchiveId::new(at, host.random())
        })
    }

    /// When what is archived next comes: later than all that was before.
    fn archive_time(&mut self, host: &impl Host) -> Timestamp {
        let late_since = self.late_since.take();
        let at = self.arrival(host);
        self.late_since = late_since;
        at
    }

    /// What is to be archived of a message that an account sends.
    pub(crate) fn sent_entry(
        &mut self,
        account: AccountKey,
        stanza: &Stanza<'_>,
        id: ArchiveId,
    ) -> Option<Box<ArchiveEntry>> {
        let owner = self.accounts.at_mut(account);
        if !owner.archives(stanza.to) {
            return None;
        }
        owner.newest_archived = owner.newest_archived.max(id.time());
        let mut message = Vec::new();
        stanza.write(&mut message);
        Some(Box::new(ArchiveEntry {
            account: owner.jid.clone(),
            id,
            is_sent: true,
            peer: stanza.to.as_str().into(),
            message: message.into(),
            known_as: known_as_of(stanza),
            retracts: retraction_in(stanza),
        }))
    }

    /// Archives a message that an account sends, unless a crash only took the answer. What marks it
    /// has the server's name: what the account sends to itself has marks of its own, and may wait
    /// while this does not.
    pub(crate) fn archive_sent(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        entry: Box<ArchiveEntry>,
    ) {
        let origin = self.origin;
        let server = BareJid::from_prepared(&self.settings.domain);
        if !self.took_effect(key, Kind::Message, server.as_str()) {
            self.put_sent(host, server, entry);
        }
        self.origin = origin;
    }

    fn put_sent(&mut self, host: &mut impl Host, server: BareJid, entry: Box<ArchiveEntry>) {
        let ticket = self.ticket(Waiting::Nothing);
        let and = StoreOp::Enqueue(Enqueue {
            account: server,
            copies: Vec::new(),
            stanza: Box::default(),
            carbons: Vec::new(),
            shared: None,
            arrived: entry.id.time(),
            origin: self.origin,
        });
        let and = Box::new(and);
        host.store(ticket, StoreOp::Archive { entry, and });
    }

    /// Delivers a message that came with an id for its receiver's archive: by that or another one,
    /// or without, where the archive does not get it.
    pub(crate) fn deliver_stamped(
        &mut self,
        host: &mut impl Host,
        key: AccountKey,
        stanza: &Stanza<'_>,
    ) {
        let mut bytes = Vec::new();
        stanza.write(&mut bytes);
        let Some((place, id)) = stamp_in(&bytes, stanza.to.bare()) else {
            return self.deliver_known(host, key, stanza);
        };
        let entry = self.received_entry(host, key, stanza, (&bytes, place.clone()), id);
        match &entry {
            None => drop(bytes.drain(place)),
            Some(entry) if entry.id != id => {
                let by = stanza.to.bare();
                let stamp = Stamp { by, id: entry.id };
                bytes.splice(place, stamp.text());
            }
            Some(_) => {}
        }
        let scope = self.client_scope.clone();
        let Ok(view) = StanzaView::parse(&bytes, &scope) else {
            debug_assert!(false, "a stamp makes no other stanza");
            return;
        };
        self.archiving = entry.map(|entry| Archiving {
            id: entry.id,
            entry: Some(entry),
        });
        let stamped = Stanza::complete(&view, stanza.from, stanza.to);
        self.deliver_known(host, key, &stamped);
        self.archiving = None;
    }

    /// What is to be archived of a message that an account gets. What is older than what it has
    /// there gets an id of its own, and so a body of its own: what a client asks for behind the
    /// last that it knows is all that came since.
    fn received_entry(
        &mut self,
        host: &mut impl Host,
        key: AccountKey,
        stanza: &Stanza<'_>,
        (bytes, place): (&[u8], Range<usize>),
        id: ArchiveId,
    ) -> Option<Box<ArchiveEntry>> {
        let from = Jid::from_prepared(stanza.from);
        let is_own = from.bare() == stanza.to.bare();
        let peer = if is_own { stanza.to } else { &from };
        if !self.accounts.at(key).archives(peer) {
            return None;
        }
        let newest = self.accounts.at(key).newest_archived;
        let id = match id.time() > newest {
            true => id,
            false => {
                self.raise_arrival(Some(newest));
                let at = self.archive_time(host);
                ArchiveId::new(at, host.random())
            }
        };
        self.raise_arrival(Some(id.time()));
        let owner = self.accounts.at_mut(key);
        owner.newest_archived = id.time();
        let message = [&bytes[..place.start], &bytes[place.end..]].concat();
        Some(Box::new(ArchiveEntry {
            account: owner.jid.clone(),
            id,
            is_sent: is_own,
            peer: peer.as_str().into(),
            message: message.into(),
            known_as: known_as_of(stanza),
            retracts: retraction_in(stanza),
        }))
    }
}

/// An operation, with what goes into an archive along with it.
pub(crate) fn with_entry(entry: Option<Box<ArchiveEntry>>, op: StoreOp) -> StoreOp {
    match entry {
        Some(entry) => StoreOp::Archive {
            entry,
            and: Box::new(op),
        },
        None => op,
    }
}

/// Whether a complete stanza is a result of a query of an account's archive: whoever asked is gone
/// and does not miss it. Only the server speaks for an account.
pub(crate) fn is_archived_result(view: &StanzaView<'_>, account: &BareJid) -> bool {
    view.kind() == Kind::Message
        && view.has_child_ns(Ns::Mam)
        && view.from().is_some_and(|from| from == account.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ArchiveId = ArchiveId(0x0012_3456_789a_bcde_f012_3456_789a_bcde);

    fn stamped(message: &str) -> Vec<u8> {
        let mut bytes = message.as_bytes().to_vec();
        let by = "a@b.example";
        Stamp { by, id: ID }.put(&mut bytes);
        bytes
    }

    #[test]
    fn a_stamp_is_found_where_it_was_put_and_leaves_the_message_as_it_was() {
        for (message, full) in [
            (
                "<message to='a@b.example'/>",
                "<message to='a@b.example'></message>",
            ),
            (
                "<message><body>x</body></message>",
                "<message><body>x</body></message>",
            ),
            (
                "<message><body>x</body></message >",
                "<message><body>x</body></message>",
            ),
        ] {
            let bytes = stamped(message);
            let (place, id) = stamp_in(&bytes, "a@b.example").unwrap();
            assert_eq!(id, ID);
            let rest = [&bytes[..place.start], &bytes[place.end..]].concat();
            assert_eq!(rest, full.as_bytes());
            let stamp = Stamp {
                by: "a@b.example",
                id,
            };
            assert_eq!(stamp.take_out(&bytes), full.as_bytes());
            assert_eq!(stamp.take_out(full.as_bytes()), full.as_bytes());
        }
    }

    #[test]
    fn what_bounces_shows_no_id_whether_or_not_it_waited() {
        let foreign = "<delay xmlns='urn:xmpp:delay' from='x' stamp='y'/>";
        let own = "<delay xmlns='urn:xmpp:delay' from='b.example' stamp='z'/></message>";
        for content in ["<body>x</body>", foreign, "", "]]&gt;"] {
            let plain = format!("<message>{content}</message>");
            let mut bytes = stamped(&plain);
            let waited = String::from_utf8_lossy(&bytes).replace("</message>", own);
            take_out_stamp(&mut bytes, "a@b.example");
            assert_eq!(bytes, plain.as_bytes());
            let mut waited = waited.into_bytes();
            take_out_stamp(&mut waited, "a@b.example");
            assert_eq!(waited, plain.replace("</message>", own).as_bytes());
            take_out_stamp(&mut waited, "a@b.example");
            assert_eq!(waited, plain.replace("</message>", own).as_bytes());
        }
    }

    #[test]
    fn what_resembles_a_stamp_is_none() {
        let bytes = stamped("<message/>");
        assert_eq!(stamp_in(&bytes, "b@b.example"), None);
        assert_eq!(
            stamp_in(&bytes[1..], "a@b.example").map(|it| it.1),
            Some(ID)
        );
        assert_eq!(stamp_in(&bytes[..bytes.len() - 1], "a@b.example"), None);
        let text = String::from_utf8(bytes).unwrap();
        for other in [
            text.replace("sid:0", "sid:1"),
            text.replace("bcde'", "BCDE'"),
            text.replace("'/></m", "' /></m"),
            text.replace("</message>", "<x/></message>"),
        ] {
            assert_eq!(stamp_in(other.as_bytes(), "a@b.example"), None, "{other}");
        }
    }
}
