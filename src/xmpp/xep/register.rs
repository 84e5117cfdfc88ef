//! XEP-0077: In-Band Registration. What a logged-in client may do with its account: look, change
//! its password, cancel. Creating one comes before authentication, see `stream::register`.

use super::{Answer, Context, Extension, Request, Target, Xep};
use crate::account::AccountKey;
use crate::error::{StanzaError, StreamError, put};
use crate::host::{Host, Ticket};
use crate::port::{Credentials, StoreOp, StoreReply};
use crate::session::SessionKey;
use crate::shard::{Shard, Waiting};
use crate::stream::sasl::{DeriveJob, Derived, Password, SALT_SIZE, Salts};
use crate::xml::Attr;
use stanza::jid::BareJid;
use stanza::ns::Ns;
use stanza::tree::{Node, Tree};
use stanza::view::StanzaView;

/// Registration as a logged-in client sees it.
#[derive(Debug)]
pub struct Register;

impl Extension for Register {
    const XEP: Xep = Xep {
        number: 77,
        version: "2.4",
    };
    const NAMESPACES: &'static [Ns] = &[Ns::Register];
    const FEATURES: &'static [Ns] = &[Ns::Register];

    fn iq(
        context: &Context<'_>,
        request: &Request<'_>,
        payload: &mut Vec<u8>,
    ) -> Result<Answer, StanzaError> {
        if request.target == Target::Other || request.is_set {
            return Err(StanzaError::ServiceUnavailable);
        }
        let local = context.account.local().unwrap_or_default();
        put(
            payload,
            format_args!(
                "<query xmlns='jabber:iq:register'><registered/><username>{}</username>\
                 <password/></query>",
                Attr(local)
            ),
        );
        Ok(Answer::Now)
    }
}

/// A change of an account that waits for its keys or for storage.
#[derive(Debug)]
pub(crate) enum AccountChange {
    /// The new password's keys, then their commit.
    Password {
        account: AccountKey,
        answer: crate::iq::IqRequest,
    },
    /// The account's end.
    Removal {
        account: AccountKey,
        answer: crate::iq::IqRequest,
    },
}

impl Shard {
    /// A set of a logged-in client: a new password, or the end of the account.
    pub(crate) fn on_account_change(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        tree: &Tree<'_>,
        target: Target,
    ) -> Result<(), StanzaError> {
        let query = tree
            .root()
            .child("query", Ns::Register)
            .ok_or(StanzaError::BadRequest)?;
        let account = self.sessions.at(key).account;
        let answer = self.iq_request(key, view, target);
        if query.child("remove", Ns::Register).is_some() {
            // XEP-0077 3.2: `<remove/>` stands alone.
            if query.children().count() != 1 {
                return Err(StanzaError::BadRequest);
            }
            let op = StoreOp::DeleteAccount {
                account: self.accounts.at(account).jid.clone(),
            };
            let ticket = self.change(account, AccountChange::Removal { account, answer });
            host.store(ticket, op);
            return Ok(());
        }
        let password = new_password(query, &self.accounts.at(account).jid)?;
        let mut salts: Salts = [[0; SALT_SIZE]; 3];
        for chunk in salts.as_flattened_mut().chunks_mut(8) {
            chunk.copy_from_slice(&host.random().to_le_bytes()[..chunk.len()]);
        }
        let rounds = self.settings.scram_iterations;
        let job = DeriveJob::new_credentials(&password, salts, rounds)
            .map_err(|_| StanzaError::NotAcceptable)?;
        let ticket = self.change(account, AccountChange::Password { account, answer });
        if !host.derive(ticket, Box::new(job)) {
            self.forget(host, ticket);
            self.account_changes.remove(&ticket.0);
            self.accounts.at_mut(account).pins -= 1;
            return Err(StanzaError::ResourceConstraint);
        }
        Ok(())
    }

    fn change(&mut self, account: AccountKey, change: AccountChange) -> Ticket {
        self.accounts.at_mut(account).pins += 1;
        let ticket = self.ticket(Waiting::AccountChange);
        self.account_changes.insert(ticket.0, change);
        ticket
    }

    /// The keys of a new password are there.
    pub(crate) fn on_password_derived(
        &mut self,
        host: &mut impl Host,
        ticket: Ticket,
        derived: Derived,
    ) {
        let Derived::Credentials(credentials) = derived else {
            return;
        };
        let Some(change) = self.account_changes.remove(&ticket.0) else {
            return;
        };
        let AccountChange::Password { account, .. } = &change else {
            return;
        };
        let op = set_credentials(self.accounts.at(*account).jid.clone(), credentials);
        let ticket = self.ticket(Waiting::AccountChange);
        self.account_changes.insert(ticket.0, change);
        host.store(ticket, op);
    }

    /// Storage answered a change of an account.
    pub(crate) fn on_account_changed(
        &mut self,
        host: &mut impl Host,
        ticket: Ticket,
        reply: StoreReply,
    ) {
        let Some(change) = self.account_changes.remove(&ticket.0) else {
            return;
        };
        let outcome = super::done(reply);
        match change {
            AccountChange::Password { account, answer } => {
                self.reply(host, &answer, outcome.map(|()| &[][..]));
                self.accounts.at_mut(account).pins -= 1;
                self.evict_if_idle(account);
            }
            AccountChange::Removal { account, answer } => {
                self.reply(host, &answer, outcome.map(|()| &[][..]));
                if outcome.is_ok() {
                    self.leave_contacts(host, account);
                    let jid = self.accounts.at(account).jid.clone();
                    tracing::info!(account = jid.as_str(), "account cancelled");
                    self.end_account(host, jid.as_str(), StreamError::NotAuthorized);
                }
                self.accounts.at_mut(account).pins -= 1;
                self.evict_if_idle(account);
            }
        }
    }

    /// Contacts of an account that ends see its subscriptions end (XEP-0077 3.2).
    fn leave_contacts(&mut self, host: &mut impl Host, account: AccountKey) {
        let bare = self.accounts.at(account).jid.as_str().to_owned();
        let roster = std::mem::take(&mut self.accounts.at_mut(account).roster);
        for item in &roster {
            if item.subscription.is_from() || item.pending_in.is_some() {
                self.withdraw_account(host, account, item.contact.as_str());
                self.say_subscription(host, "unsubscribed", &bare, &item.contact);
            }
            if item.subscription.is_to() || item.ask {
                self.say_subscription(host, "unsubscribe", &bare, &item.contact);
            }
        }
    }
}

fn set_credentials(account: BareJid, credentials: Box<Credentials>) -> StoreOp {
    StoreOp::SetCredentials {
        account,
        credentials,
    }
}

/// The new password of a request that names its own account (XEP-0077 3.3).
fn new_password(query: Node<'_>, account: &BareJid) -> Result<Password, StanzaError> {
    let text = |name| {
        query
            .child(name, Ns::Register)
            .map(|node| node.text().to_owned())
    };
    let (Some(username), Some(password)) = (text("username"), text("password")) else {
        return Err(StanzaError::BadRequest);
    };
    let named = BareJid::parse(&format!("{username}@{}", account.domain()));
    if named.as_ref() != Ok(account) {
        return Err(StanzaError::NotAllowed);
    }
    if password.is_empty() {
        return Err(StanzaError::NotAcceptable);
    }
    Ok(Password::new(password))
}
