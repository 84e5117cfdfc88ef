//! In-band registration before authentication (XEP-0077 3.1), where it is open.
//!
//! Invariant: a connection registers on the shard that its address hashes to, which counts the
//! attempts; the account is made at its home.

use super::bind::may_be_guests;
use super::sasl::{DeriveJob, Password, Salts};
use super::{ExpectVerdict, Flow, Phase, StreamState, auth};
use crate::error::{StanzaError, StreamError, put};
use crate::host::{ConnId, Host, ShardId, Ticket, random_bytes};
use crate::limit::{CONFLICTS_PER_REGISTRATION, REGISTRATION_REQUESTS_MAX};
use crate::parcel::{Control, Parcel};
use crate::port::{Credentials, StoreOp, StoreReply};
use crate::shard::{Shard, Waiting};
use crate::xml::Attr;
use stanza::jid::{BareJid, check_new_local};
use stanza::ns::Ns;
use stanza::tree::Tree;
use stanza::view::{Kind, StanzaView};

/// The window in which registrations of one address count, in microseconds.
pub(crate) const REGISTRATION_WINDOW_US: u64 = 3_600_000_000;

/// A registration that waits for its keys or for storage.
#[derive(Debug)]
pub(crate) struct Request {
    account: BareJid,
    iq: Box<str>,
}

impl Shard {
    /// Whether this stanza is a registration request that may be answered before authentication; in
    /// the middle of one it may not.
    pub(crate) fn is_registration(&self, stream: &StreamState, view: &StanzaView<'_>) -> bool {
        let protected = stream.secure || !self.settings.tls_required;
        self.settings.registration_open
            && protected
            && matches!(stream.phase, Phase::ExpectAuth)
            && view.kind() == Kind::Iq
            && view.payload().is_some_and(|(ns, _)| ns == Ns::Register)
    }

    /// Answers a registration request of a stream that is not authenticated.
    pub(crate) fn on_register(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        view: &StanzaView<'_>,
    ) -> Flow {
        let iq = view.id().unwrap_or_default();
        let type_ = view.type_();
        let is_set = type_.as_deref() == Some("set");
        // One shard counts all that an address registers.
        let counting = self.router.home(&stream.counted_peer());
        if is_set && counting != self.id {
            self.moving_to = Some(counting);
            return Flow::Moved;
        }
        if stream.asked >= REGISTRATION_REQUESTS_MAX {
            let text = Some("too many registration requests");
            return self.stream_error(host, conn, stream, StreamError::PolicyViolation, text);
        }
        stream.asked += 1;
        match type_.as_deref() {
            Some("get") => {
                self.register_result(
                    host,
                    conn,
                    &iq,
                    "<query xmlns='jabber:iq:register'><instructions>Choose a user name and a \
                     password.</instructions><username/><password/></query>",
                );
                Flow::Next
            }
            Some("set") => match self.parse_registration(host, stream, view) {
                Ok((account, password)) => {
                    self.derive_registration(host, conn, stream, account, password, &iq)
                }
                Err(error) => self.register_error(host, conn, &iq, error),
            },
            _ => self.register_error(host, conn, &iq, StanzaError::BadRequest),
        }
    }

    fn parse_registration(
        &mut self,
        host: &mut impl Host,
        stream: &StreamState,
        view: &StanzaView<'_>,
    ) -> Result<(BareJid, Password), StanzaError> {
        // RFC 6120 8.2.3: a request has an id and one child.
        if view.id().is_none() || view.child_count() != 1 {
            return Err(StanzaError::BadRequest);
        }
        if view.to().is_some_and(|to| !self.router.is_server(&to)) {
            return Err(StanzaError::ItemNotFound);
        }
        let scope = stream.scope.as_deref().ok_or(StanzaError::BadRequest)?;
        let tree = Tree::parse(view.bytes(), scope).map_err(|_| StanzaError::BadRequest)?;
        let query = tree
            .root()
            .child("query", Ns::Register)
            .ok_or(StanzaError::BadRequest)?;
        if query.child("remove", Ns::Register).is_some() {
            return Err(StanzaError::UnexpectedRequest);
        }
        let text = |name| {
            query
                .child(name, Ns::Register)
                .map(|node| node.text().to_owned())
        };
        // XEP-0077 3.1.1: an empty or missing field is not acceptable.
        let username = text("username").filter(|text| !text.is_empty());
        let password = text("password").filter(|text| !text.is_empty());
        let (Some(username), Some(password)) = (username, password) else {
            return Err(StanzaError::NotAcceptable);
        };
        if username.contains(['@', '/']) || check_new_local(&username).is_err() {
            return Err(StanzaError::NotAcceptable);
        }
        let account = BareJid::parse(&format!("{username}@{}", self.settings.domain))
            .map_err(|_| StanzaError::NotAcceptable)?;
        // Who had a guest's name would get what is for the guest.
        if may_be_guests(&self.settings, &account) {
            return Err(StanzaError::NotAcceptable);
        }
        self.count_registration(host, stream)?;
        Ok((account, Password::new(password)))
    }

    /// Counts an attempt as an account created, before anybody knows whether one will be: many at a
    /// time get no further than one after the other.
    fn count_registration(
        &mut self,
        host: &mut impl Host,
        stream: &StreamState,
    ) -> Result<(), StanzaError> {
        let accounts_max = self.settings.limits.registrations_per_hour_max;
        let max = accounts_max * CONFLICTS_PER_REGISTRATION;
        let peer = stream.counted_peer();
        if self.registrations.is_over(&peer, host.now(), max) {
            return Err(StanzaError::ResourceConstraint);
        }
        self.registrations
            .count_many(&peer, host.now(), CONFLICTS_PER_REGISTRATION);
        Ok(())
    }

    /// An attempt made no account and told no more than that its name is taken. It counts a part:
    /// who guesses names runs out of attempts, who chooses another one does not.
    fn count_conflict(&mut self, host: &mut impl Host, stream: &StreamState) {
        let peer = stream.counted_peer();
        self.registrations
            .take_back(&peer, host.now(), CONFLICTS_PER_REGISTRATION - 1);
    }

    fn derive_registration(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        account: BareJid,
        password: Password,
        iq: &str,
    ) -> Flow {
        let salts: Salts = [random_bytes(host), random_bytes(host), random_bytes(host)];
        let rounds = self.settings.scram_iterations;
        let Ok(job) = DeriveJob::new_credentials(&password, salts, rounds) else {
            return self.register_error(host, conn, iq, StanzaError::NotAcceptable);
        };
        let ticket = self.ticket(Waiting::Auth(conn));
        if !host.derive(ticket, Box::new(job)) {
            self.forget(host, ticket);
            return self.register_error(host, conn, iq, StanzaError::ResourceConstraint);
        }
        host.pause(conn);
        let request = auth::Request::Register(Request {
            account,
            iq: iq.into(),
        });
        stream.phase = Phase::ExpectVerdict(Box::new(ExpectVerdict::new(ticket, request)));
        Flow::Stop
    }

    /// The keys are there: have the account made at its home.
    pub(crate) fn on_register_derived(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        request: Request,
        credentials: Box<Credentials>,
    ) -> Flow {
        let ticket = self.ticket(Waiting::Auth(conn));
        let account = request.account.clone();
        match self.router.home(account.as_str()) {
            // Who had an administrator's name could do what he may: to whoever asks it is taken,
            // whether or not, and after a derivation, too.
            _ if self.settings.is_admin(&account) => {
                host.store(ticket, StoreOp::Credentials { account });
            }
            home if home == self.id => {
                host.store(
                    ticket,
                    StoreOp::CreateAccount {
                        account,
                        credentials,
                    },
                );
            }
            home => {
                let control = Control::Register {
                    ticket: ticket.0,
                    account,
                    credentials,
                };
                host.forward(home, Parcel::Control(Box::new(control)));
            }
        }
        let request = auth::Request::Register(request);
        stream.phase = Phase::ExpectVerdict(Box::new(ExpectVerdict::new(ticket, request)));
        Flow::Stop
    }

    /// Storage said whether the account was made.
    pub(crate) fn on_register_stored(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        request: Request,
        reply: StoreReply,
    ) -> Flow {
        match reply {
            StoreReply::Done => {
                tracing::info!(account = request.account.as_str(), "account registered");
                stream.asked = 0;
                self.register_result(host, conn, &request.iq, "");
                Flow::Next
            }
            StoreReply::Exists | StoreReply::Credentials(_) => {
                self.count_conflict(host, stream);
                self.register_error(host, conn, &request.iq, StanzaError::Conflict)
            }
            reply => {
                tracing::error!(?reply, "storage did not make an account");
                self.register_error(host, conn, &request.iq, StanzaError::InternalServerError)
            }
        }
    }

    /// A sibling asks for an account whose home is here.
    pub(crate) fn on_register_parcel(
        &mut self,
        host: &mut impl Host,
        from: ShardId,
        asker: Ticket,
        account: BareJid,
        credentials: Box<Credentials>,
    ) {
        let ticket = self.ticket(Waiting::Registration { shard: from, asker });
        host.store(
            ticket,
            StoreOp::CreateAccount {
                account,
                credentials,
            },
        );
    }

    fn register_result(&self, host: &mut impl Host, conn: ConnId, iq: &str, payload: &str) {
        let domain = Attr(&self.settings.domain);
        put(
            host.output(conn),
            format_args!(
                "<iq type='result' id='{}' from='{domain}'>{payload}</iq>",
                Attr(iq)
            ),
        );
    }

    fn register_error(
        &self,
        host: &mut impl Host,
        conn: ConnId,
        iq: &str,
        error: StanzaError,
    ) -> Flow {
        let domain = Attr(&self.settings.domain);
        let out = host.output(conn);
        put(
            out,
            format_args!("<iq type='error' id='{}' from='{domain}'>", Attr(iq)),
        );
        error.write(out);
        out.extend_from_slice(b"</iq>");
        Flow::Next
    }
}
