//! IQ stanzas: every request gets exactly one answer (RFC 6120 8.2.3, RFC 6121 8.5).

use crate::account::AccountKey;
use crate::error::StanzaError;
use crate::host::Host;
use crate::router::Route;
use crate::session::SessionKey;
use crate::shard::Shard;
use crate::stanza::{Stanza, Type, write_reply_head};
use crate::xep::{self, Context, Target};
use stanza::jid::Jid;
use stanza::ns::Ns;
use stanza::scope::StreamScope;
use stanza::tree::Tree;
use stanza::view::{Kind, StanzaView};

impl Shard {
    /// An iq of a bound client.
    pub(crate) fn on_iq(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        scope: &StreamScope,
        type_: Type,
        to: Option<Jid<'_>>,
    ) {
        let is_request = matches!(type_, Type::Get | Type::Set);
        let is_answer = matches!(type_, Type::Result | Type::Error);
        // RFC 6120 8.2.3: an id always; one child in a request, at most one in a result.
        let shapely = match type_ {
            Type::Get | Type::Set => view.child_count() == 1,
            Type::Result => view.child_count() <= 1,
            _ => true,
        };
        if view.id().is_none() || !shapely || !(is_request || is_answer) {
            return self.refuse(host, key, view, scope, type_, StanzaError::BadRequest);
        }
        let session = self.sessions.at(key);
        let own = to.as_ref().is_none_or(|to| to.as_str() == session.bare());
        if own {
            return self.answer(host, key, view, scope, type_, Target::Account);
        }
        let to = to.expect("an iq without an address is for the sender's account");
        match self.router.route(&to) {
            Route::Server if to.is_bare() => {
                self.answer(host, key, view, scope, type_, Target::Server);
            }
            Route::Server => self.refuse(
                host,
                key,
                view,
                scope,
                type_,
                StanzaError::ServiceUnavailable,
            ),
            Route::Remote => self.refuse(
                host,
                key,
                view,
                scope,
                type_,
                StanzaError::RemoteServerNotFound,
            ),
            // RFC 6121 2.1.5: nobody reads or writes another account's roster.
            _ if to.is_bare() && view.payload().is_some_and(|(ns, _)| ns == Ns::Roster) => {
                self.refuse(host, key, view, scope, type_, StanzaError::Forbidden);
            }
            // RFC 6121 8.5.1: the server answers for an account, the same whether it exists or not.
            _ if to.is_bare() => {
                self.refuse(
                    host,
                    key,
                    view,
                    scope,
                    type_,
                    StanzaError::ServiceUnavailable,
                );
            }
            route => self.carry(host, key, view, scope, type_, &to, route),
        }
    }

    /// An iq for a full JID of an account at home here (RFC 6121 8.5.3).
    pub(crate) fn deliver_iq(
        &mut self,
        host: &mut impl Host,
        account: Option<AccountKey>,
        stanza: &Stanza<'_>,
    ) {
        let delivered = account.is_some_and(|account| self.deliver_request(host, account, stanza));
        if !delivered {
            self.bounce(host, stanza, StanzaError::ServiceUnavailable);
        }
    }

    /// Delivers to the resource that matches; answers whether there is one.
    pub(crate) fn deliver_request(
        &self,
        host: &mut impl Host,
        account: AccountKey,
        stanza: &Stanza<'_>,
    ) -> bool {
        let Some(resource) = stanza.to.resource() else {
            return false;
        };
        let sessions = &self.accounts.at(account).sessions;
        let matching = sessions
            .iter()
            .find(|key| self.sessions.at(**key).resource() == resource);
        let Some(&session) = matching else {
            return false;
        };
        self.send(host, session, stanza);
        true
    }

    /// Answers a request to the server, or to the sender's own account.
    fn answer(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        scope: &StreamScope,
        type_: Type,
        target: Target,
    ) {
        let is_set = match type_ {
            Type::Get => false,
            Type::Set => true,
            // RFC 6120 8.2.3: an answer to what the server never asked, or a push's, ends here.
            _ => return,
        };
        let Some((ns, name)) = view.payload() else {
            return;
        };
        let Ok(tree) = Tree::parse(view.bytes(), scope) else {
            return;
        };
        let outcome = match (ns, target) {
            (Ns::Roster, Target::Account) => self.on_roster(host, key, view, &tree, is_set),
            // RFC 6121 1.4: a session is there as soon as the resource is bound.
            (Ns::Session, _) if is_set && name == "session" => {
                self.reply(host, key, view, target, &[]);
                Ok(())
            }
            _ => {
                let request = xep::Request {
                    target,
                    is_set,
                    payload: tree
                        .root()
                        .children()
                        .next()
                        .expect("a request has one child"),
                };
                let session = self.sessions.at(key);
                let now = host.now();
                let context = Context {
                    settings: &self.settings,
                    session,
                    now,
                };
                let mut payload = Vec::new();
                let outcome = xep::iq(ns, &context, &request, &mut payload);
                if outcome.is_ok() {
                    self.reply(host, key, view, target, &payload);
                }
                outcome
            }
        };
        if let Err(error) = outcome {
            self.refuse(host, key, view, scope, type_, error);
        }
    }

    /// Writes the result of a request.
    fn reply(
        &self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        target: Target,
        payload: &[u8],
    ) {
        let session = self.sessions.at(key);
        let from = match target {
            Target::Server => &self.settings.domain,
            Target::Account => session.bare(),
        };
        let out = host.output(session.conn);
        write_reply_head(Kind::Iq, "result", from, session.full(), view.id(), out);
        out.extend_from_slice(payload);
        out.extend_from_slice(b"</iq>");
    }
}
