//! What a command of an administrator has shards do, and what they answer.
//!
//! Invariant: each errand has one answer. What concerns all sessions of a shard is done for some of
//! them at a time, so that it holds nobody up.

use crate::host::{Host, ShardId};
use crate::outbox::Keep;
use crate::parcel::{Control, Parcel};
use crate::port::StoreReply;
use crate::revoke::Revoked;
use crate::session::SessionKey;
use crate::shard::{Shard, Timer};
use crate::stanza::write_reply_head;
use crate::xml::Attr;
use stanza::jid::{BareJid, home_hash};
use stanza::view::Kind;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// Sessions that are looked at, or told something, in one step of a walk.
const WALKED_PER_STEP_MAX: usize = 256;

/// Milliseconds between two steps: at most 51,200 places are passed in a second.
const STEP_MS: u64 = 5;

/// Walks of a shard that wait or are under way; the next one is refused.
const WALKS_MAX: usize = 64;

/// Something to be done on one shard.
#[derive(Debug)]
pub enum Errand {
    /// Say how many accounts have an available resource here, and who so many of them are.
    Online {
        /// How many to name.
        names_max: usize,
    },
    /// Say which sessions an account has.
    Sessions {
        /// The account.
        account: BareJid,
    },
    /// End the sessions of an account, or one of them.
    End {
        /// The account.
        account: BareJid,
        /// Which, if not all.
        resource: Option<Box<str>>,
    },
    /// Tell all available resources something.
    Announce {
        /// What.
        text: Arc<str>,
    },
    /// Delete an account, as for an operator.
    Delete {
        /// The account.
        account: BareJid,
    },
    /// Take note that an account has new keys in storage, as for an operator.
    NewKeys {
        /// The account.
        account: BareJid,
    },
}

/// What a shard answers.
#[derive(Debug)]
pub enum Told {
    /// So many accounts, and the first of them.
    Online {
        /// How many are there.
        count: u64,
        /// Bare JIDs.
        names: Vec<Box<str>>,
    },
    /// Resources, and where their clients are that are connected.
    Sessions(Vec<(Box<str>, Option<IpAddr>)>),
    /// So many sessions have ended.
    Ended(usize),
    /// What storage says.
    Stored(StoreReply),
    /// It is done.
    Done,
    /// It is not even begun: too much else is.
    Busy,
}

/// Who gave an errand: the shard, its command under way, and the errand's place in that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Giver {
    pub(crate) shard: ShardId,
    pub(crate) run: u64,
    pub(crate) place: u16,
}

/// Who changes an account that is not his own, and hears what storage says of it.
#[derive(Debug)]
pub(crate) enum Administrator {
    /// An operator, who may not wait any more.
    Operator(Sender<StoreReply>),
    /// A command.
    Command(Giver),
}

impl From<Sender<StoreReply>> for Administrator {
    fn from(answer: Sender<StoreReply>) -> Administrator {
        Administrator::Operator(answer)
    }
}

/// A way along all sessions of a shard.
#[derive(Debug)]
struct Walk {
    giver: Giver,
    errand: Walked,
    /// The next place to look at.
    next: usize,
}

#[derive(Debug)]
enum Walked {
    Online {
        names_max: usize,
        count: u64,
        names: Vec<Box<str>>,
    },
    Announce(Arc<str>),
}

/// Those under way: one after the other, and at most [`WALKS_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Walks {
    queue: VecDeque<Walk>,
}

impl Shard {
    /// Gives an errand to a shard.
    pub(crate) fn give_errand(
        &mut self,
        host: &mut impl Host,
        to: ShardId,
        (run, place): (u64, u16),
        errand: Errand,
    ) {
        let giver = Giver {
            shard: self.id,
            run,
            place,
        };
        if to != self.id {
            let control = Box::new(Control::Errand { giver, errand });
            return host.forward(to, Parcel::Control(control));
        }
        // As on any other shard it is no effect of a stanza.
        let before = (self.cause.take(), self.asker.take());
        self.on_errand(host, giver, errand);
        (self.cause, self.asker) = before;
    }

    /// An errand for this shard.
    pub(crate) fn on_errand(&mut self, host: &mut impl Host, giver: Giver, errand: Errand) {
        let told = match errand {
            Errand::Online { names_max } => {
                let (count, names) = (0, Vec::new());
                let errand = Walked::Online {
                    names_max,
                    count,
                    names,
                };
                return self.walk(host, giver, errand);
            }
            Errand::Announce { text } => return self.walk(host, giver, Walked::Announce(text)),
            Errand::Delete { account } => {
                return self.on_deletion(host, &account, Administrator::Command(giver));
            }
            Errand::NewKeys { account } => {
                return self.on_new_keys(host, account, Administrator::Command(giver));
            }
            Errand::Sessions { account } => Told::Sessions(self.sessions_of(&account)),
            Errand::End { account, resource } => {
                Told::Ended(self.end_sessions(host, &account, resource.as_deref()))
            }
        };
        self.tell_giver(host, giver, told);
    }

    /// Answers an errand.
    pub(crate) fn tell_giver(&mut self, host: &mut impl Host, giver: Giver, told: Told) {
        match giver.shard == self.id {
            true => self.on_told(host, giver.run, giver.place, told),
            false => {
                let control = Box::new(Control::Told { giver, told });
                host.forward(giver.shard, Parcel::Control(control));
            }
        }
    }

    /// Tells who had an account changed what became of that.
    pub(crate) fn tell_administrator(
        &mut self,
        host: &mut impl Host,
        administrator: Administrator,
        reply: StoreReply,
    ) {
        match administrator {
            Administrator::Operator(answer) => {
                if answer.send(reply).is_err() {
                    tracing::warn!("an operator did not wait for the end of a change");
                }
            }
            Administrator::Command(giver) => self.tell_giver(host, giver, Told::Stored(reply)),
        }
    }

    fn sessions_of(&self, account: &BareJid) -> Vec<(Box<str>, Option<IpAddr>)> {
        let bare = account.as_str();
        let Some(account) = self.accounts.find(home_hash(bare), bare) else {
            return Vec::new();
        };
        let sessions = self.accounts.at(account).sessions.iter();
        let sessions = sessions.map(|key| {
            let session = self.sessions.at(*key);
            let conn = session.outlet.conn;
            let stream = conn.and_then(|conn| self.conns.peek(conn));
            (session.resource().into(), stream.map(|stream| stream.peer))
        });
        sessions.collect()
    }

    /// Ends the sessions of an account, or that of a resource: how many had there been.
    fn end_sessions(
        &mut self,
        host: &mut impl Host,
        account: &BareJid,
        resource: Option<&str>,
    ) -> usize {
        const TEXT: &str = "an administrator ended the session";
        let bare = account.as_str();
        let found = self.accounts.find(home_hash(bare), bare);
        let Some(resource) = resource else {
            let count = found.map_or(0, |account| self.accounts.at(account).sessions.len());
            self.revoke(host, bare, Revoked::All { but: None }, TEXT);
            return count;
        };
        let Some(key) = found.and_then(|account| self.holder(account, resource)) else {
            return 0;
        };
        self.revoke(host, bare, Revoked::Session(key), TEXT);
        1
    }

    fn walk(&mut self, host: &mut impl Host, giver: Giver, errand: Walked) {
        let next = 0;
        if self.commands.walks.queue.len() >= WALKS_MAX {
            return self.tell_giver(host, giver, Told::Busy);
        }
        if self.commands.walks.queue.is_empty() {
            let now = host.now();
            self.arm(host, now, Timer::Walk);
        }
        self.commands.walks.queue.push_back(Walk {
            giver,
            errand,
            next,
        });
    }

    /// The next step of the walk that is first.
    pub(crate) fn on_walk(&mut self, host: &mut impl Host) {
        let Some(mut walk) = self.commands.walks.queue.pop_front() else {
            return;
        };
        let end = self.sessions.places();
        let until = (walk.next + WALKED_PER_STEP_MAX).min(end);
        for place in walk.next..until {
            self.pass(host, SessionKey(place as u32), &mut walk.errand);
        }
        walk.next = until;
        match until == end {
            false => self.commands.walks.queue.push_front(walk),
            true => {
                let told = match walk.errand {
                    Walked::Online { count, names, .. } => Told::Online { count, names },
                    Walked::Announce(_) => Told::Done,
                };
                self.tell_giver(host, walk.giver, told);
            }
        }
        if !self.commands.walks.queue.is_empty() {
            let at = host.now().plus_ms(STEP_MS);
            self.arm(host, at, Timer::Walk);
        }
    }

    /// A walk passes a session.
    fn pass(&mut self, host: &mut impl Host, key: SessionKey, errand: &mut Walked) {
        let Some(session) = self.sessions.get(key).filter(|session| session.available) else {
            return;
        };
        match errand {
            Walked::Online {
                names_max,
                count,
                names,
            } => {
                let mut of_account = self.accounts.at(session.account).sessions.iter();
                let first = of_account.find(|key| self.sessions.at(**key).available);
                if first == Some(&key) {
                    *count += 1;
                    if names.len() < *names_max {
                        names.push(session.bare().into());
                    }
                }
            }
            Walked::Announce(text) => {
                let domain = &self.settings.domain;
                self.sessions
                    .write_to(host, key, Keep::Memory, |address, out| {
                        write_announcement(domain, address.full(), text, out);
                    });
            }
        }
    }
}

/// XEP-0133 4.23. It is a headline: who is not there any more need not know of it.
fn write_announcement(domain: &str, to: &str, text: &str, out: &mut Vec<u8>) {
    write_reply_head(Kind::Message, "headline", domain, to, None, out);
    crate::error::put(out, format_args!("<body>{}</body></message>", Attr(text)));
}
