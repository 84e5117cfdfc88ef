//! XEP-0280: Message Carbons. What one device of a user sends and receives, the others get copies
//! of.
//!
//! Invariant: a copy goes to whoever asked for copies and does not get the message itself, and of
//! what nobody has but in a copy the message is left, as if that session had got it.

use super::{Answer, Context, Extension, Request, Target, Xep};
use crate::account::AccountKey;
use crate::archive::{Archiving, Stamp};
use crate::error::StanzaError;
use crate::host::Host;
use crate::port::ArchiveId;
use crate::session::{Modes, SessionKey};
use crate::shard::Shard;
use crate::stanza::{Stanza, Type};
use crate::xep::offline::{is_of_the_moment, may_wait};
use crate::xml::Attr;
use smallvec::SmallVec;
use stanza::jid::{Jid, home_hash};
use stanza::ns::Ns;
use stanza::scope::StreamScope;
use stanza::view::{Kind, StanzaView};
use std::collections::VecDeque;

/// Messages of one account that are remembered, so that errors that answer them are copied, too: an
/// error does not say what it answers but for the id. One that answers an older one is not.
pub const ANSWERABLE_MAX: usize = 64;

/// How a stanza begins, and how it does inside of another.
const MESSAGE: &[u8] = b"<message";
const INNER_MESSAGE: &[u8] = b"<message xmlns='jabber:client'";

const FORWARDED: &[u8] = b"<forwarded xmlns='urn:xmpp:forward:0'>";
const FORWARDED_END: &[u8] = b"</forwarded>";

/// Copies of messages. Who gets them is live state of the account: the shard answers its clients.
#[derive(Debug)]
pub struct Carbons;

impl Extension for Carbons {
    const XEP: Xep = Xep {
        number: 280,
        version: "1.0.1",
    };
    const NAMESPACES: &'static [Ns] = &[Ns::Carbons];
    const FEATURES: &'static [Ns] = &[Ns::Carbons, Ns::CarbonsRules];

    fn iq(_: &Context<'_>, request: &Request<'_>, _: &mut Vec<u8>) -> Result<Answer, StanzaError> {
        Err(match request.target {
            // XEP-0280 4.1, 5.1: another account's are not the asker's to have.
            Target::Other => StanzaError::NotAllowed,
            Target::Account | Target::Server => StanzaError::ServiceUnavailable,
        })
    }
}

/// Whether an account's own message is copied, or one for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Direction {
    Sent,
    #[default]
    Received,
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Direction::Sent => "sent",
            Direction::Received => "received",
        }
    }
}

/// Who gets copies of a message.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    pub direction: Direction,
    /// Whether the account said it to itself.
    pub is_own: bool,
    pub to: SmallVec<[SessionKey; 4]>,
}

/// The messages of an account that were copied last, by hashes.
#[derive(Debug, Default)]
pub(crate) struct Answerable(VecDeque<u64>);

impl Answerable {
    fn note(&mut self, hash: u64) {
        if self.0.len() == ANSWERABLE_MAX {
            self.0.pop_front();
        }
        self.0.push_back(hash);
    }

    fn has(&self, hash: u64) -> bool {
        self.0.contains(&hash)
    }
}

/// By what a message is known that an account sent to somebody, or has from somebody; `peer` is the
/// other one. Without an id it is not.
fn hash_of(direction: Direction, peer: &str, stanza: &Stanza<'_>) -> Option<u64> {
    let of_both = home_hash(Jid::from_prepared(peer).bare()) ^ direction as u64;
    let id = home_hash(&stanza.id()?);
    Some(of_both.rotate_left(1) ^ id)
}

/// XEP-0280 6.1, but for errors: whether other devices are to see a message.
fn is_eligible(stanza: &Stanza<'_>, direction: Direction) -> bool {
    let view = stanza.view();
    if matches!(stanza.type_, Type::Groupchat | Type::Error) {
        return false;
    }
    let mut is_invitation = view.has_child_ns(Ns::Conference);
    let says_more = [Ns::Carbons, Ns::Hints, Ns::MucUser].map(|ns| view.has_child_ns(ns));
    if says_more.contains(&true) {
        let Some(tree) = stanza.tree() else {
            return false;
        };
        let root = tree.root();
        let says = |name, ns| root.child(name, ns).is_some();
        // XEP-0280 9, XEP-0334 4.3.
        if says("private", Ns::Carbons) || says("no-copy", Ns::Hints) {
            return false;
        }
        let of_room = root.child("x", Ns::MucUser);
        is_invitation |= of_room.is_some_and(|x| x.child("invite", Ns::MucUser).is_some());
        // What an occupant says in private, the room itself gives to every resource that is in it.
        let is_occupant = stanza.from.contains('/') && direction == Direction::Received;
        if of_room.is_some() && is_occupant && !is_invitation {
            return false;
        }
    }
    let payloads = [Ns::Receipts, Ns::ChatStates, Ns::ChatMarkers];
    stanza.type_ == Type::Chat
        || stanza.type_ == Type::Normal && view.has_body()
        || is_invitation
        || payloads.iter().any(|ns| view.has_child_ns(*ns))
}

/// Whether a message is a copy that was made here: nobody else speaks for an account to itself.
pub(crate) fn is_copy(stanza: &Stanza<'_>) -> bool {
    stanza.kind == Kind::Message
        && stanza.view().has_child_ns(Ns::Carbons)
        && stanza.type_ != Type::Error
        && stanza.from == stanza.to.bare()
}

/// The message that a copy holds, where it was for the account itself: it is left when the copy is.
pub(crate) fn original_of(copy: &Stanza<'_>) -> Option<Vec<u8>> {
    debug_assert!(is_copy(copy));
    let inner = forwarded(copy.view().bytes())?.strip_prefix(INNER_MESSAGE)?;
    let original = [MESSAGE, inner].concat();
    let view = StanzaView::parse(&original, &StreamScope::client()).ok()?;
    let is_own = |to: &str| Jid::from_prepared(to).bare() == copy.from;
    view.to().is_some_and(|to| is_own(&to)).then_some(original)
}

/// What a copy forwards, as it stands there. No attribute has a `<`, so the first is the copy's
/// own, as the last end is.
fn forwarded(copy: &[u8]) -> Option<&[u8]> {
    let mut starts = copy.windows(FORWARDED.len());
    let start = starts.position(|window| window == FORWARDED)? + FORWARDED.len();
    let mut ends = copy.windows(FORWARDED_END.len());
    let end = ends.rposition(|window| window == FORWARDED_END)?;
    copy.get(start..end)
}

/// The message that a copy holds as it stands there, whoever it was for; `None` where a stanza is
/// no copy.
pub(crate) fn held_in(stanza: &[u8]) -> Option<&[u8]> {
    if_copy(stanza, |_| ())?;
    forwarded(stanza)
}

/// As [`original_of`], of a stanza that may be anything; `None` where it is no copy.
pub(crate) fn taken_out(stanza: &[u8]) -> Option<Option<Vec<u8>>> {
    if_copy(stanza, original_of)
}

fn if_copy<T>(stanza: &[u8], then: impl FnOnce(&Stanza<'_>) -> T) -> Option<T> {
    if !stanza.starts_with(MESSAGE) {
        return None;
    }
    let scope = StreamScope::client();
    let view = StanzaView::parse(stanza, &scope).ok()?;
    let (from, to) = (view.from()?, view.to()?);
    let to = Jid::from_prepared(&to);
    let message = Stanza::complete(&view, &from, &to);
    is_copy(&message).then(|| then(&message))
}

/// Appends a complete message as it stands inside of another.
pub(crate) fn put_inner(message: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(INNER_MESSAGE);
    debug_assert!(message.starts_with(MESSAGE), "it begins with its name");
    out.extend_from_slice(&message[MESSAGE.len()..]);
}

/// Appends a copy of a complete message for one session (XEP-0280 7, 8).
pub(crate) fn write_copy(
    direction: Direction,
    message: &[u8],
    type_: Type,
    (from, to): (&str, &str),
    out: &mut Vec<u8>,
) {
    let name = direction.name();
    let type_ = match type_ {
        Type::Chat => " type='chat'",
        Type::Headline => " type='headline'",
        Type::Error => " type='error'",
        _ => "",
    };
    let (from, to) = (Attr(from), Attr(to));
    crate::error::put(
        out,
        format_args!("<message from='{from}' to='{to}'{type_}><{name} xmlns='urn:xmpp:carbons:2'>"),
    );
    out.extend_from_slice(FORWARDED);
    put_inner(message, out);
    out.extend_from_slice(FORWARDED_END);
    crate::error::put(out, format_args!("</{name}></message>"));
}

impl Shard {
    /// A client asks for copies, or wants no more of them: as often as it likes (XEP-0280 10.1).
    pub(crate) fn on_carbons(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        name: &str,
    ) -> Result<(), StanzaError> {
        let gets = match name {
            "enable" => true,
            "disable" => false,
            _ => return Err(StanzaError::BadRequest),
        };
        let session = self.sessions.at_mut(key);
        let account = session.account;
        if session.modes.has(Modes::GETS_COPIES) != gets {
            session.modes.set(Modes::GETS_COPIES, gets);
            self.share_copies(account);
            self.save_session(host, key);
        }
        let answered = self.iq_request(key, view, Target::Account);
        self.reply(host, &answered, Ok(&[]));
        Ok(())
    }

    /// An account has other sessions, or others of them get copies: each knows whether what its
    /// client sends is copied.
    pub(crate) fn share_copies(&mut self, account: AccountKey) {
        let owner = self.accounts.at_mut(account);
        let modes = |key: SessionKey| self.sessions.at(key).modes;
        let gets = |key: &&SessionKey| modes(**key).has(Modes::GETS_COPIES);
        let count = owner.sessions.iter().filter(gets).count();
        owner.copied_to = count as u16;
        for &key in &owner.sessions {
            let modes = &mut self.sessions.at_mut(key).modes;
            let own = usize::from(modes.has(Modes::GETS_COPIES));
            modes.set(Modes::IS_COPIED, count > own);
        }
    }

    /// Who gets copies of a message beside those who get itself.
    fn copies_of(
        &mut self,
        account: AccountKey,
        receivers: &[SessionKey],
        stanza: &Stanza<'_>,
    ) -> Copies {
        let owner = self.accounts.at(account);
        let is_from = Jid::from_prepared(stanza.from).bare() == owner.jid.as_str();
        let is_own = is_from && stanza.to.bare() == owner.jid.as_str();
        let direction = match is_from {
            true => Direction::Sent,
            false => Direction::Received,
        };
        let gets = |key: &SessionKey| {
            let session = self.sessions.at(*key);
            let may = session.modes.has(Modes::GETS_COPIES) && !session.is_leaving();
            // XEP-0280 8: never its own sender.
            may && !receivers.contains(key) && session.full() != stanza.from
        };
        let to = owner.sessions.iter().copied().filter(gets).collect();
        let copies = Copies {
            direction,
            is_own,
            to,
        };
        match !copies.to.is_empty() && self.shows(account, stanza, direction) {
            true => copies,
            false => Copies::default(),
        }
    }

    /// Whether other devices are to see a message; an error if they saw what it answers.
    fn shows(&mut self, account: AccountKey, stanza: &Stanza<'_>, direction: Direction) -> bool {
        if is_copy(stanza) {
            return false;
        }
        let (peer, answered) = match direction {
            Direction::Sent => (stanza.to.as_str(), Direction::Received),
            Direction::Received => (stanza.from, Direction::Sent),
        };
        let answerable = &mut self.accounts.at_mut(account).answerable;
        if stanza.type_ == Type::Error {
            let hash = hash_of(answered, peer, stanza);
            let known = answerable.as_ref().zip(hash);
            return known.is_some_and(|(known, hash)| known.has(hash));
        }
        let is_eligible = is_eligible(stanza, direction);
        if is_eligible && let Some(hash) = hash_of(direction, peer, stanza) {
            answerable.get_or_insert_default().note(hash);
        }
        is_eligible
    }

    /// Gives a message to sessions, and copies of it to those that asked for such.
    pub(crate) fn give_and_copy(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        receivers: &[SessionKey],
        stanza: &Stanza<'_>,
    ) {
        let copies = match self.accounts.at(account).copied_to {
            0 => Copies::default(),
            _ => self.copies_of(account, receivers, stanza),
        };
        if self.accounts.at(account).push.is_some() {
            self.push_given(host, account, (receivers, &copies.to), stanza);
        }
        self.give_with(host, account, receivers, &copies, stanza);
    }

    /// Copies a client's message to the account's other devices. What is for the account itself is
    /// copied where it is delivered.
    ///
    /// The account's archive has it by the id that the copies show.
    pub(crate) fn note_sent(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        scope: &StreamScope,
        (type_, id): (Type, Option<ArchiveId>),
        to: &Jid<'_>,
    ) {
        let session = self.sessions.at(key);
        if session.bare() == to.bare() {
            return;
        }
        let is_copied = session.modes.has(Modes::IS_COPIED);
        let (account, full) = (session.account, session.full().to_owned());
        let stanza = Stanza::received(view, scope, type_, &full, to);
        let copies = match is_copied {
            true => self.copies_of(account, &[], &stanza),
            false => Copies::default(),
        };
        let entry = id.and_then(|id| self.sent_entry(account, &stanza, id));
        let own = Jid::from_prepared(&full);
        let stamp = entry.as_ref().map(|entry| Stamp {
            by: own.bare(),
            id: entry.id,
        });
        if let Some(entry) = entry {
            self.archive_sent(host, key, entry);
        }
        if copies.to.is_empty() {
            return;
        }
        let origin = self.origin;
        let stanza = stanza.stamped(stamp.as_ref());
        if !self.took_effect(key, Kind::Message, own.bare()) {
            self.archiving = stamp.map(|Stamp { id, .. }| Archiving { id, entry: None });
            let owner = self.accounts.at(account);
            match owner.must_hold() || !owner.held.is_empty() {
                true => self.queue_copies(host, account, &copies, &stanza),
                false => self.give_with(host, account, &[], &copies, &stanza),
            }
            self.archiving = None;
        }
        self.origin = origin;
    }

    /// Messages for the account are between here and storage: copies do not overtake them.
    fn queue_copies(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        copies: &Copies,
        stanza: &Stanza<'_>,
    ) {
        let mut message = Vec::new();
        stanza.write(&mut message);
        for key in &copies.to {
            let session = self.sessions.at(*key);
            let (from, to) = (session.bare().to_owned(), session.full().to_owned());
            let mut copy = Vec::new();
            let addresses = (&*from, &*to);
            write_copy(
                copies.direction,
                &message,
                stanza.type_,
                addresses,
                &mut copy,
            );
            let scope = self.client_scope.clone();
            if let Ok(view) = StanzaView::parse(&copy, &scope) {
                let to = Jid::from_prepared(&to);
                self.queue(host, account, &Stanza::complete(&view, &from, &to));
            }
        }
    }

    /// Copies a message that no session takes, unless its sender hears that it did not arrive.
    pub(crate) fn copy_untaken(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        stanza: &Stanza<'_>,
    ) {
        let owner = self.accounts.at(account);
        let bounces = owner.is_ending || stanza.view().has_body() && is_of_the_moment(stanza);
        if owner.copied_to == 0 || may_wait(stanza.type_) && bounces {
            return;
        }
        let copies = self.copies_of(account, &[], stanza);
        if copies.to.is_empty() {
            return;
        }
        let (origin, archiving) = (self.origin, self.archiving.take());
        self.archiving = archiving.as_ref().map(|Archiving { id, .. }| Archiving {
            id: *id,
            entry: None,
        });
        if may_wait(stanza.type_) {
            // That it waits is what marks it, and archives it.
            self.origin = None;
        }
        self.give_with(host, account, &[], &copies, stanza);
        (self.origin, self.archiving) = (origin, archiving);
    }
}
