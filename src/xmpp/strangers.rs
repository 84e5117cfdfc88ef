//! Strangers: those who send a client directed presence (RFC 6121 4.6) and whose broadcasts its
//! account does not get. Where the client's session survives a crash that theirs do not, nobody
//! else knows that they are to be found gone.
//!
//! Invariant: a session names in storage, a moment later and within the limits, whom its client was
//! told to be available, until that has acknowledged that he is gone.

use crate::account::AccountKey;
use crate::host::{Host, Timestamp};
use crate::parcel::FanoutPurpose;
use crate::presence::{Chosen, write_target};
use crate::router::Route;
use crate::session::{Presence, SessionKey};
use crate::shard::{Shard, Timer};
use crate::stanza::{Stanza, Type};
use stanza::jid::Jid;

/// Strangers that a session names. Of more those are passed over that are gone, then the oldest.
pub const STRANGERS_MAX: usize = 64;

/// Bytes of their addresses.
pub const STRANGERS_SIZE_MAX: usize = 8 << 10;

/// Milliseconds between two writes of a session that strangers cause, at least.
pub const STRANGERS_REST_MS: u64 = 100;

/// Those whom a session names, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    known: Vec<Stranger>,
    /// Whether storage is to be told.
    has_changed: bool,
    /// Whether [`Timer::Strangers`] is to come.
    is_armed: bool,
    /// Nothing is written because of them before.
    rests_until: Timestamp,
}

#[derive(Debug)]
struct Stranger {
    full: Box<str>,
    /// Said so, but the client may not have that.
    is_gone: bool,
}

impl Strangers {
    /// Those that storage had.
    pub(crate) fn stored(names: Vec<Box<str>>) -> Option<Box<Strangers>> {
        let known = names.into_iter().map(|full| Stranger {
            full,
            is_gone: false,
        });
        let known: Vec<Stranger> = known.collect();
        (!known.is_empty()).then(|| {
            Box::new(Strangers {
                known,
                ..Strangers::default()
            })
        })
    }

    /// Their names, which storage is told now.
    pub(crate) fn name_all(&mut self) -> Vec<Box<str>> {
        self.has_changed = false;
        self.names()
    }

    fn names(&self) -> Vec<Box<str>> {
        self.known.iter().map(|known| known.full.clone()).collect()
    }

    fn size(&self) -> usize {
        self.known.iter().map(|known| known.full.len()).sum()
    }

    /// One has said that it is available, or that it is not.
    fn note(&mut self, full: &str, is_gone: bool) {
        if let Some(known) = self.known.iter_mut().find(|known| *known.full == *full) {
            known.is_gone = is_gone;
            return;
        }
        if is_gone || full.len() > STRANGERS_SIZE_MAX {
            return;
        }
        while self.known.len() >= STRANGERS_MAX || self.size() + full.len() > STRANGERS_SIZE_MAX {
            let gone = self.known.iter().position(|known| known.is_gone);
            self.known.remove(gone.unwrap_or(0));
        }
        self.known.push(Stranger {
            full: full.into(),
            is_gone,
        });
        self.has_changed = true;
    }

    /// The client knows who is gone.
    fn forget_gone(&mut self) {
        let before = self.known.len();
        self.known.retain(|known| !known.is_gone);
        self.has_changed |= self.known.len() < before;
    }
}

impl Shard {
    /// A session that may survive a crash was given directed presence.
    pub(crate) fn note_stranger(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        stanza: &Stanza<'_>,
    ) {
        let is_gone = match stanza.type_ {
            Type::Available => false,
            Type::Unavailable => true,
            _ => return,
        };
        let account = self.sessions.at(key).account;
        let from = Jid::from_prepared(stanza.from);
        if from.is_bare() || !is_gone && self.hears_broadcasts(account, &from) {
            return;
        }
        let Some(acks) = &mut self.sessions.at_mut(key).outlet.acks else {
            return;
        };
        if is_gone && acks.strangers.is_none() {
            return;
        }
        let strangers = acks.strangers.get_or_insert_default();
        strangers.note(stanza.from, is_gone);
        self.save_strangers(host, key);
    }

    /// Whether an account gets what somebody broadcasts: he is a contact of its, or its own.
    fn hears_broadcasts(&self, account: AccountKey, from: &Jid<'_>) -> bool {
        let account = self.accounts.at(account);
        let item = account.contact(from.bare());
        account.jid.as_str() == from.bare() || item.is_some_and(|it| it.subscription.is_to())
    }

    /// A client has acknowledged something: where that was all presence, it knows who is gone.
    pub(crate) fn forget_strangers(&mut self, host: &mut impl Host, key: SessionKey) {
        let Some(acks) = &mut self.sessions.at_mut(key).outlet.acks else {
            return;
        };
        let is_known = acks.has_no_presence();
        if let Some(strangers) = acks.strangers.as_mut().filter(|_| is_known) {
            strangers.forget_gone();
            self.save_strangers(host, key);
        }
    }

    /// Writes a session whose strangers have changed. What they say is no reason to have its client
    /// wait: a write that is under way is answered first, and the number that waits for it is
    /// committed before the next one begins.
    fn save_strangers(&mut self, host: &mut impl Host, key: SessionKey) {
        let now = host.now();
        let session = self.sessions.at_mut(key);
        let serial = session.serial;
        let Some(acks) = &mut session.outlet.acks else {
            return;
        };
        let (saving, rests_until) = (acks.saving, acks.rests_until);
        let Some(strangers) = &mut acks.strangers else {
            return;
        };
        if !strangers.has_changed || strangers.is_armed {
            return;
        }
        let at = strangers.rests_until.max(rests_until);
        if saving || now < at {
            strangers.is_armed = true;
            let at = match saving {
                true => at.max(now.plus_ms(STRANGERS_REST_MS)),
                false => at,
            };
            return self.arm(host, at, Timer::Strangers(key, serial));
        }
        strangers.rests_until = now.plus_ms(STRANGERS_REST_MS);
        self.save_session(host, key);
    }

    /// A session may be written because of them again, unless it has ended.
    pub(crate) fn on_strangers(&mut self, host: &mut impl Host, key: SessionKey, serial: u32) {
        let acks = self.session_of(key, serial);
        let acks = acks.and_then(|session| session.outlet.acks.as_mut());
        if let Some(strangers) = acks.and_then(|acks| acks.strangers.as_mut()) {
            strangers.is_armed = false;
            self.save_strangers(host, key);
        }
    }

    /// A client is back whose session survived a crash: of each stranger that it knows the home
    /// shard says so where he is gone.
    pub(crate) fn refresh_strangers(&mut self, host: &mut impl Host, key: SessionKey) {
        let session = self.sessions.at(key);
        let acks = session.outlet.acks.as_ref();
        let Some(strangers) = acks.and_then(|acks| acks.strangers.as_ref()) else {
            return;
        };
        let account = session.account;
        let prober = session.full().to_owned();
        for stranger in strangers.names() {
            let jid = Jid::from_prepared(&stranger);
            // A contact by now: he is asked for as such. Of whom it blocks it hears nothing.
            if self.hears_broadcasts(account, &jid) || self.is_blocking(account, &jid) {
                continue;
            }
            match self.router.route(&jid) {
                Route::Here(_) => self.answer_refresh(host, &stranger, &prober),
                Route::Component(id) => self.address_abroad(host, id, &stranger),
                Route::Shard(shard) => {
                    let slot = &mut self.fanout[usize::from(shard.0)];
                    write_target(&stranger, slot.get_or_insert_with(|| host.buffer()));
                }
                Route::Server | Route::Remote => {}
            }
        }
        let presence = Presence::of("probe", &prober);
        self.flush_fanout(host, &presence, FanoutPurpose::Refresh, &Chosen::default());
    }

    /// Whether a resource of an account, if it is there, has told somebody that it is available,
    /// and not taken that back.
    pub(crate) fn is_told_by(&self, account: AccountKey, resource: &str, to: &Jid<'_>) -> bool {
        let Some(key) = self.holder(account, resource) else {
            return false;
        };
        let session = self.sessions.at(key);
        session.has_directed(to.as_str())
            || session.has_directed(to.bare())
            || session.available && self.gets_broadcasts(account, to.bare())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_strangers_are_named_and_so_many_bytes_of_them() {
        let mut strangers = Strangers::default();
        let full = |number: usize| format!("s{number}@b.example/x");
        for number in 0..STRANGERS_MAX {
            strangers.note(&full(number), false);
        }
        strangers.note(&full(2), true);
        // First who is gone makes room, then who is known longest.
        strangers.note(&full(100), false);
        strangers.note(&full(101), false);
        let names = strangers.name_all();
        assert_eq!(names.len(), STRANGERS_MAX);
        let is_named = |number| names.iter().any(|name| **name == *full(number));
        let named = [0, 1, 2, 3, 100, 101].map(is_named);
        assert_eq!(named, [false, true, false, true, true, true]);
        let long = |number: usize| format!("{number}@b.example/{}", "x".repeat(1_000));
        for number in 10..30 {
            strangers.note(&long(number), false);
        }
        assert!(strangers.size() <= STRANGERS_SIZE_MAX);
        assert_eq!(strangers.known.len(), STRANGERS_SIZE_MAX / long(10).len());
        assert_eq!(*strangers.known[0].full, *long(22));
    }

    #[test]
    fn who_is_gone_is_named_until_the_client_knows() {
        let mut strangers = Strangers::default();
        strangers.note("s@b.example/x", true);
        assert!(!strangers.has_changed);
        strangers.note("s@b.example/x", false);
        assert_eq!(strangers.name_all().len(), 1);
        strangers.note("s@b.example/x", true);
        assert!(!strangers.has_changed, "it is named as before");
        assert_eq!(strangers.names().len(), 1);
        strangers.forget_gone();
        assert!(strangers.has_changed);
        assert_eq!(strangers.name_all().len(), 0);
    }
}
