//! XEP-0494: Client Access Management. What has access to an account, for its owner to see and to
//! take back.
//!
//! Invariant: whatever is connected is in the list, also what does not say which user agent it is.
//! What has proved the password may come back with it: taking its access back ends its sessions and
//! its tokens, and the answer says that a new password is needed besides.

use super::register::AccountChange;
use super::{Extension, Target, Xep};
use crate::account::AccountKey;
use crate::error::{StanzaError, put};
use crate::host::{Host, Timestamp};
use crate::iq::IqRequest;
use crate::port::{AgentId, StoreOp, StoreReply, UserAgent};
use crate::revoke::Revoked;
use crate::session::SessionKey;
use crate::shard::Shard;
use crate::xep::time::utc;
use crate::xml::Attr;
use stanza::ns::Ns;
use stanza::tree::Tree;
use stanza::view::StanzaView;

/// Client access management. Its requests need more than an extension sees: see
/// [`Shard::on_client_access`].
#[derive(Debug)]
pub struct ClientAccess;

impl Extension for ClientAccess {
    const XEP: Xep = Xep {
        number: 494,
        version: "0.1.0",
    };
    const FEATURES: &'static [Ns] = &[Ns::ClientAccess];
}

/// How the id of a session begins whose client does not say which it is.
const SESSION_PREFIX: &str = "session-";

/// What a client hears whose access was taken back.
const BY_OWNER: &str = "the account's owner revoked this client's access";

/// A request that waits for storage.
#[derive(Debug)]
pub(crate) struct AccessRequest {
    pub account: AccountKey,
    pub answer: IqRequest,
    step: Step,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// All user agents are being read.
    List,
    /// That one is.
    Find(AgentId),
    /// That one is being forgotten, and knows the password or not.
    Forget { id: AgentId, knows_password: bool },
    /// A session is to end, if it is that user of its place; whether the account has a password is
    /// being read. By then the session's own stream is in nobody's hands.
    End { key: SessionKey, serial: u32 },
}

/// What `<revoke/>` names.
enum Named {
    Agent(AgentId),
    /// A session, by its serial number and place.
    Session(u32, SessionKey),
}

impl Named {
    fn parse(id: &str) -> Option<Named> {
        let hex = |text: &str| {
            let is_it = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_it.then(|| u64::from_str_radix(text, 16).ok())?
        };
        match id.strip_prefix(SESSION_PREFIX) {
            None => Some(Named::Agent(AgentId(hex(id)?))),
            Some(rest) => {
                let number = hex(rest)?;
                Some(Named::Session(
                    (number >> 32) as u32,
                    SessionKey(number as u32),
                ))
            }
        }
    }
}

impl Shard {
    /// A request of a client about the access to its own account.
    pub(crate) fn on_client_access(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        tree: &Tree<'_>,
        is_set: bool,
    ) -> Result<(), StanzaError> {
        let payload = tree.root().children().next();
        let payload = payload.ok_or(StanzaError::BadRequest)?;
        let account = self.sessions.at(key).account;
        let answer = self.iq_request(key, view, Target::Account);
        let step = match (payload.name(), is_set) {
            ("list", false) => Step::List,
            ("revoke", true) => {
                let id = payload.attr("id").ok_or(StanzaError::BadRequest)?;
                match Named::parse(id).ok_or(StanzaError::ItemNotFound)? {
                    Named::Agent(id) => Step::Find(id),
                    Named::Session(serial, key) => Step::End { key, serial },
                }
            }
            _ => return Err(StanzaError::BadRequest),
        };
        self.ask_access(
            host,
            AccessRequest {
                account,
                answer,
                step,
            },
        );
        Ok(())
    }

    fn ask_access(&mut self, host: &mut impl Host, request: AccessRequest) {
        let account = self.accounts.at(request.account).jid.clone();
        let op = match request.step {
            Step::List => StoreOp::UserAgents { account },
            Step::Find(id) => StoreOp::UserAgent { account, id },
            Step::End { .. } => StoreOp::Credentials { account },
            Step::Forget { id, .. } => StoreOp::RemoveUserAgents {
                account,
                which: Some(id),
            },
        };
        let ticket = self.change(request.account, AccountChange::Access(request));
        host.store(ticket, op);
    }

    /// Storage answered a request about access.
    pub(crate) fn on_access_stored(
        &mut self,
        host: &mut impl Host,
        request: AccessRequest,
        reply: StoreReply,
    ) {
        let account = request.account;
        self.answer_access(host, request, reply);
        self.accounts.at_mut(account).pins -= 1;
        self.evict_if_idle(account);
    }

    fn answer_access(&mut self, host: &mut impl Host, request: AccessRequest, reply: StoreReply) {
        let AccessRequest {
            account,
            answer,
            step,
        } = request;
        match (step, reply) {
            (Step::List, StoreReply::UserAgents(agents)) => {
                let mut list = Vec::new();
                self.write_clients(host, account, &agents, &mut list);
                self.reply(host, &answer, Ok(&list));
            }
            (Step::Find(id), StoreReply::UserAgent(found)) => {
                let sessions = self.accounts.at(account).sessions.iter();
                let mut agents = sessions.map(|key| self.sessions.agents.get(key));
                if found.is_none() && !agents.any(|agent| agent == Some(&id)) {
                    return self.reply(host, &answer, Err(StanzaError::ItemNotFound));
                }
                let knows_password = found.is_none_or(|found| found.knows_password);
                let step = Step::Forget { id, knows_password };
                self.ask_access(
                    host,
                    AccessRequest {
                        account,
                        answer,
                        step,
                    },
                );
            }
            (Step::Forget { id, knows_password }, StoreReply::Done) => {
                self.answer_revoked(host, &answer, knows_password);
                let bare = self.accounts.at(account).jid.clone();
                self.revoke_access(host, bare.as_str(), Revoked::Agent(id), BY_OWNER);
            }
            (Step::End { key, serial }, StoreReply::Credentials(found)) => {
                let knows_password = found.is_some_and(|keys| keys.has_any());
                self.end_access(host, &answer, account, (key, serial), knows_password);
            }
            (_, reply) => {
                let error = super::done(reply).err();
                let error = error.unwrap_or(StanzaError::InternalServerError);
                self.reply(host, &answer, Err(error));
            }
        }
    }

    fn end_access(
        &mut self,
        host: &mut impl Host,
        answer: &IqRequest,
        account: AccountKey,
        (key, serial): (SessionKey, u32),
        knows_password: bool,
    ) {
        let owner = self.accounts.at(account);
        let is_it = owner.sessions.contains(&key) && self.sessions.at(key).serial == serial;
        if !is_it || self.sessions.agents.contains_key(&key) {
            return self.reply(host, answer, Err(StanzaError::ItemNotFound));
        }
        let bare = owner.jid.clone();
        self.answer_revoked(host, answer, knows_password);
        self.revoke_access(host, bare.as_str(), Revoked::Session(key), BY_OWNER);
    }

    /// XEP-0494 3.2: whoever knows the password is kept out by another one only.
    fn answer_revoked(&mut self, host: &mut impl Host, answer: &IqRequest, knows_password: bool) {
        match knows_password {
            false => self.reply(host, answer, Ok(&[])),
            true => self.reply_by(
                host,
                answer,
                "error",
                b"<error type='cancel'><service-unavailable \
                  xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
                  <password-reset-required xmlns='urn:xmpp:cam:0'/></error>",
            ),
        }
    }

    /// XEP-0494 3.1
    fn write_clients(
        &self,
        host: &impl Host,
        account: AccountKey,
        agents: &[UserAgent],
        out: &mut Vec<u8>,
    ) {
        let now = host.wall();
        let forget_us = u64::from(self.settings.agents.forget_s) * 1_000_000;
        let owner = self.accounts.at(account);
        out.extend_from_slice(b"<clients xmlns='urn:xmpp:cam:0'>");
        for agent in agents {
            let sessions = owner.sessions.iter();
            let mut own = sessions.filter(|key| self.sessions.agents.get(key) == Some(&agent.id));
            let session = own.next();
            let is_on = session.is_some_and(|key| self.sessions.at(*key).outlet.conn.is_some());
            let last_seen = if is_on { now } else { agent.last_seen };
            let has_access = session.is_some() || agent.has_token(now);
            if !has_access && last_seen.0.saturating_add(forget_us) < now.0 {
                continue;
            }
            write_client(out, &agent.id.to_string(), session.is_some());
            write_seen(out, "first-seen", agent.first_seen);
            write_seen(out, "last-seen", last_seen);
            write_auth(out, agent.knows_password, agent.has_token(now));
            write_names(out, &agent.software, &agent.device);
            out.extend_from_slice(b"</client>");
        }
        for key in &owner.sessions {
            let agent = self.sessions.agents.get(key);
            if agents.iter().any(|known| Some(&known.id) == agent) {
                continue;
            }
            let session = self.sessions.at(*key);
            let id = match agent {
                // Storage did not take it when it logged in.
                Some(agent) => agent.to_string(),
                None => format!("{SESSION_PREFIX}{:08x}{:08x}", session.serial, key.0),
            };
            write_client(out, &id, true);
            if session.outlet.conn.is_some() {
                write_seen(out, "last-seen", now);
            }
            write_auth(out, !owner.is_anonymous, false);
            // All that is known of it is what it calls itself in its address.
            write_names(out, "", session.resource());
            out.extend_from_slice(b"</client>");
        }
        out.extend_from_slice(b"</clients>");
    }
}

fn write_client(out: &mut Vec<u8>, id: &str, is_connected: bool) {
    put(
        out,
        format_args!("<client connected='{is_connected}' id='{id}' type='session'>"),
    );
}

fn write_seen(out: &mut Vec<u8>, name: &str, at: Timestamp) {
    put(out, format_args!("<{name}>{}</{name}>", utc(at)));
}

fn write_auth(out: &mut Vec<u8>, knows_password: bool, has_token: bool) {
    out.extend_from_slice(b"<auth>");
    if knows_password {
        out.extend_from_slice(b"<password/>");
    }
    if has_token {
        out.extend_from_slice(b"<fast/>");
    }
    out.extend_from_slice(b"</auth><permission status='unrestricted'/>");
}

fn write_names(out: &mut Vec<u8>, software: &str, device: &str) {
    let names = [("software", software), ("device", device)];
    let known = names.into_iter().filter(|(_, text)| !text.is_empty());
    let mut known = known.peekable();
    if known.peek().is_none() {
        return;
    }
    out.extend_from_slice(b"<user-agent>");
    for (name, text) in known {
        put(out, format_args!("<{name}>{}</{name}>", Attr(text)));
    }
    out.extend_from_slice(b"</user-agent>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_that_of_a_user_agent_or_of_a_session_or_nobody_s() {
        let agent = AgentId(0x0123_4567_89ab_cdef);
        let parsed = Named::parse(&agent.to_string());
        assert!(matches!(parsed, Some(Named::Agent(id)) if id == agent));
        let parsed = Named::parse("session-0000000700000009");
        assert!(matches!(parsed, Some(Named::Session(7, SessionKey(9)))));
        for bad in ["", "1", "+123456789abcdef", "session-", "session-1", "x"] {
            assert!(Named::parse(bad).is_none(), "{bad}");
        }
    }
}
