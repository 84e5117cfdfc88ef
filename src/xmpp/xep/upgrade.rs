//! XEP-0480: SASL Upgrade Tasks. A client that has proved a password gives the account the key for
//! a SCRAM hash that it lacks, as accounts from elsewhere may: till then the hash's mechanisms are
//! offered to nobody.
//!
//! Invariant: who has proved the password in this exchange gives keys, never who has used a token;
//! and only where storage still has the keys that it was proved with. No key is replaced.

use super::sasl2::{Inline, write_additional_data};
use super::{Extension, Xep};
use crate::error::{StreamError, put};
use crate::host::{ConnId, Host, Ticket, random_bytes};
use crate::port::{Credentials, StoreOp, StoreReply};
use crate::settings::Settings;
use crate::shard::{Shard, Waiting};
use crate::stream::sasl::{self, Mechanism, SALT_SIZE, SaslError};
use crate::stream::{Flow, Phase, Profile, StreamState};
use stanza::jid::BareJid;
use stanza::ns::Ns;
use stanza::tree::Node;
use zeroize::Zeroizing;

/// Upgrades. They are offered among what SASL2 does inline, see `stream::features`.
#[derive(Debug)]
pub struct Upgrade;

impl Extension for Upgrade {
    const XEP: Xep = Xep {
        number: 480,
        version: "0.2.0",
    };
}

/// How the names of tasks begin.
const PREFIX: &str = "UPGR-";

/// What of an account's keys is to be upgraded, until that is done.
#[derive(Debug, Default)]
pub(crate) struct Upgrades {
    /// Those that the client wants; later those of them that its account lacks.
    tasks: Vec<Mechanism>,
    /// The keys that the password is proved with, where one of them is lacking.
    known: Option<Box<Credentials>>,
}

impl Upgrades {
    /// What `<authenticate/>` asks for of what is offered.
    pub(crate) fn read(authenticate: Node<'_>, settings: &Settings) -> Upgrades {
        let asked = |task: &Mechanism| {
            let mut children = authenticate.children();
            children.any(|child| {
                child.is("upgrade", Ns::SaslUpgrade)
                    && child.text().trim_ascii().strip_prefix(PREFIX) == Some(task.as_str())
            })
        };
        let tasks = settings.upgrades.iter().copied().filter(asked);
        Upgrades {
            tasks: tasks.collect(),
            known: None,
        }
    }

    /// The keys that the password is about to be proved with.
    pub(crate) fn learn(&mut self, credentials: Option<&Credentials>) {
        let lacks = |task: &Mechanism| credentials.is_some_and(|it| sasl::lacks_key(*task, it));
        self.tasks.retain(lacks);
        if !self.tasks.is_empty() {
            self.known = credentials.map(|it| Box::new(it.clone()));
        }
    }

    /// The next task, with the keys there are.
    fn next(&mut self) -> Option<(Mechanism, Box<Credentials>)> {
        let known = self.known.take()?;
        let task = self.tasks.pop()?;
        Some((task, known))
    }
}

/// See [`Phase::ExpectUpgrade`].
#[derive(Debug)]
pub(crate) struct ExpectUpgrade {
    /// Who authenticated.
    pub account: BareJid,
    task: Mechanism,
    /// The keys there are.
    credentials: Box<Credentials>,
    /// The same with the new one among them, while that is being stored.
    upgraded: Option<Box<Credentials>>,
    pub step: Step,
}

/// How far an upgrade is.
#[derive(Debug)]
pub(crate) enum Step {
    /// `<next/>` is awaited.
    Next,
    /// The salted password.
    Hash { salt: [u8; SALT_SIZE] },
    /// Storage.
    Stored(Ticket),
}

/// Writes which upgrades there are.
pub(crate) fn write_offer(settings: &Settings, out: &mut Vec<u8>) {
    for mechanism in &settings.upgrades {
        put(
            out,
            format_args!(
                "<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>{PREFIX}{}</upgrade>",
                mechanism.as_str()
            ),
        );
    }
}

/// Writes that something is to be done before success.
fn write_continue(inline: &mut Inline, task: Mechanism, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<continue xmlns='urn:xmpp:sasl:2'>");
    // XEP-0388 2.6.3: that of the mechanism; success tells of the task.
    write_additional_data(inline.additional_data.take().as_deref(), out);
    put(
        out,
        format_args!(
            "<tasks><task>{PREFIX}{}</task></tasks></continue>",
            task.as_str()
        ),
    );
}

impl Shard {
    /// Somebody has proved a password: whether his client is told of a task first.
    pub(crate) fn begin_upgrade(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        account: &BareJid,
    ) -> bool {
        let inline = stream.inline.get_or_insert_default();
        let Some((task, credentials)) = inline.upgrades.next() else {
            return false;
        };
        write_continue(inline, task, host.output(conn));
        stream.phase = Phase::ExpectUpgrade(Box::new(ExpectUpgrade {
            account: account.clone(),
            task,
            credentials,
            upgraded: None,
            step: Step::Next,
        }));
        true
    }

    /// An element of SASL2 while a task is under way.
    pub(crate) fn on_upgrade(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        root: Node<'_>,
    ) -> Flow {
        let mut expect = match std::mem::replace(&mut stream.phase, Phase::ExpectAuth) {
            Phase::ExpectUpgrade(expect) => expect,
            phase => {
                stream.phase = phase;
                return Flow::Stop;
            }
        };
        match (root.name(), &expect.step) {
            ("next", Step::Next) if is_task(root.attr("task"), expect.task) => {
                let salt = self.write_salt(host, conn);
                expect.step = Step::Hash { salt };
                stream.phase = Phase::ExpectUpgrade(expect);
                Flow::Next
            }
            ("task-data", &Step::Hash { salt }) => {
                let rounds = self.settings.scram_iterations;
                let upgraded = salted_password(root).and_then(|salted| {
                    sasl::upgraded(expect.task, &expect.credentials, &salted, &salt, rounds)
                });
                let Some(upgraded) = upgraded.map(Box::new) else {
                    return self.upgrade_failed(host, conn, stream, SaslError::MalformedRequest);
                };
                let ticket = self.ticket(Waiting::Auth(conn));
                host.store(
                    ticket,
                    StoreOp::UpgradeCredentials {
                        account: expect.account.clone(),
                        prior: expect.credentials.clone(),
                        credentials: upgraded.clone(),
                    },
                );
                host.pause(conn);
                expect.upgraded = Some(upgraded);
                expect.step = Step::Stored(ticket);
                stream.phase = Phase::ExpectUpgrade(expect);
                Flow::Stop
            }
            ("abort", _) => self.upgrade_failed(host, conn, stream, SaslError::Aborted),
            // XEP-0388 4.8: nobody authenticates again once he has.
            ("authenticate", _) => self.interrupted(host, conn, stream),
            _ => self.upgrade_failed(host, conn, stream, SaslError::MalformedRequest),
        }
    }

    fn write_salt(&self, host: &mut impl Host, conn: ConnId) -> [u8; SALT_SIZE] {
        let salt = random_bytes(host);
        put(
            host.output(conn),
            format_args!(
                "<task-data xmlns='urn:xmpp:sasl:2'>\
                 <salt xmlns='urn:xmpp:scram-upgrade:0' iterations='{}'>{}</salt></task-data>",
                self.settings.scram_iterations,
                sasl::encode(&salt)
            ),
        );
        salt
    }

    /// A task came to nothing. Its stream has no way back to the beginning of an authentication.
    fn upgrade_failed(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &StreamState,
        error: SaslError,
    ) -> Flow {
        Profile::Sasl2.write_failure(error, host.output(conn));
        let text = Some("an upgrade failed");
        self.stream_error(host, conn, stream, StreamError::PolicyViolation, text)
    }

    /// Storage has a new key. Where it failed, the client is let in all the same, and may give it
    /// again the next time; where it has other keys than were proved, they are read: another client
    /// may have given one, and with a new password nobody is let in by the old one.
    pub(crate) fn on_upgrade_stored(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        ticket: Ticket,
        reply: StoreReply,
    ) -> Flow {
        let is_stored = |step: &Step| matches!(step, Step::Stored(of) if *of == ticket);
        let mut expect = match std::mem::replace(&mut stream.phase, Phase::ExpectAuth) {
            Phase::ExpectUpgrade(expect) if is_stored(&expect.step) => expect,
            other => {
                stream.phase = other;
                return Flow::Stop;
            }
        };
        let inline = stream.inline.get_or_insert_default();
        match (expect.upgraded.take(), reply) {
            (Some(upgraded), StoreReply::Done) => inline.upgrades.known = Some(upgraded),
            (Some(_), StoreReply::Outdated) => {
                let ticket = self.ticket(Waiting::Auth(conn));
                let account = expect.account.clone();
                host.store(ticket, StoreOp::Credentials { account });
                expect.step = Step::Stored(ticket);
                stream.phase = Phase::ExpectUpgrade(expect);
                return Flow::Stop;
            }
            (Some(_), reply @ (StoreReply::Failed(_) | StoreReply::Full)) => {
                let account = expect.account.as_str();
                tracing::warn!(?reply, account, "keys not upgraded");
            }
            (None, StoreReply::Credentials(Some(now)))
                if sasl::has_kept(&expect.credentials, &now) =>
            {
                inline.upgrades.learn(Some(&now));
            }
            _ => {
                let error = SaslError::TemporaryAuthFailure;
                return self.upgrade_failed(host, conn, stream, error);
            }
        }
        let account = expect.account;
        if self.begin_upgrade(host, conn, stream, &account) {
            return Flow::Next;
        }
        self.on_sasl2_complete(host, conn, stream, account)
    }
}

fn is_task(named: Option<&str>, task: Mechanism) -> bool {
    named.and_then(|named| named.strip_prefix(PREFIX)) == Some(task.as_str())
}

/// What a client has salted (XEP-0480 3).
fn salted_password(task_data: Node<'_>) -> Option<Zeroizing<Vec<u8>>> {
    let hash = task_data.child("hash", Ns::ScramUpgrade)?;
    let salted = sasl::decode_base64(hash.text().trim_ascii().as_bytes());
    salted.ok().map(Zeroizing::new)
}
