//! XEP-0012: Last Activity. When an account was last available; how long the server has been up.

use super::{Answer, Context, Extension, Request, Target, Xep, only_get};
use crate::account::AccountKey;
use crate::error::{StanzaError, put};
use crate::host::Host;
use crate::port::{Space, StoreOp, StoreReply};
use crate::shard::{Shard, Waiting};
use crate::xml::Attr;
use stanza::ns::Ns;

/// Bytes of a status that are kept.
const STATUS_SIZE_MAX: usize = 1_024;

/// Answers who may know: the account itself, and who gets its presence.
#[derive(Debug)]
pub struct LastActivity;

impl Extension for LastActivity {
    const XEP: Xep = Xep {
        number: 12,
        version: "2.0",
    };
    const NAMESPACES: &'static [Ns] = &[Ns::Last];
    const FEATURES: &'static [Ns] = &[Ns::Last];

    fn iq(
        context: &Context<'_>,
        request: &Request<'_>,
        payload: &mut Vec<u8>,
    ) -> Result<Answer, StanzaError> {
        // XEP-0012 4: who may not see the presence may not see this, and nothing else either.
        if request.target == Target::Other && !context.sees_presence {
            return Err(StanzaError::Forbidden);
        }
        only_get(request)?;
        match request.target {
            Target::Server => {
                let seconds = context.now.0.saturating_sub(context.started.0) / 1_000_000;
                write(seconds, "", payload);
                Ok(Answer::Now)
            }
            // XEP-0012 4: an available account has been idle for no time.
            Target::Account | Target::Other if !context.available.is_empty() => {
                write(0, "", payload);
                Ok(Answer::Now)
            }
            _ => {
                // The time of the question travels in the payload until storage answers.
                payload.extend_from_slice(&context.wall.0.to_le_bytes());
                let account = context.account.clone();
                let (space, key) = (Space::Activity, "".into());
                Ok(Answer::Ask(StoreOp::Document {
                    account,
                    space,
                    key,
                }))
            }
        }
    }

    fn stored(reply: StoreReply, payload: &mut Vec<u8>) -> Result<(), StanzaError> {
        let asked = <[u8; 8]>::try_from(payload.as_slice()).map(u64::from_le_bytes);
        let asked = asked.map_err(|_| StanzaError::InternalServerError)?;
        payload.clear();
        let document = match reply {
            StoreReply::Document(Some(document)) => document,
            StoreReply::Document(None) => return Err(StanzaError::ItemNotFound),
            reply => return super::done(reply),
        };
        let text = String::from_utf8_lossy(&document);
        let (at, status) = text.split_once(' ').unwrap_or((&text, ""));
        let at: u64 = at.parse().map_err(|_| StanzaError::InternalServerError)?;
        write(asked.saturating_sub(at) / 1_000_000, status, payload);
        Ok(())
    }
}

impl Shard {
    /// Notes when no resource of the account is available any more, and what the last one said.
    pub(crate) fn note_last(&mut self, host: &mut impl Host, account: AccountKey, status: &str) {
        let owner = self.accounts.at(account);
        let mut sessions = owner.sessions.iter();
        if owner.is_gone || sessions.any(|key| self.sessions.at(*key).available) {
            return;
        }
        let account = owner.jid.clone();
        let end = status.floor_char_boundary(STATUS_SIZE_MAX);
        let text = format!("{} {}", host.wall().0, &status[..end]);
        let bytes = text.trim_end().as_bytes().into();
        let ticket = self.ticket(Waiting::Nothing);
        let (space, key) = (Space::Activity, "".into());
        host.store(
            ticket,
            StoreOp::PutDocument {
                account,
                space,
                key,
                bytes,
            },
        );
    }
}

fn write(seconds: u64, status: &str, payload: &mut Vec<u8>) {
    let status = Attr(status);
    put(
        payload,
        format_args!("<query xmlns='jabber:iq:last' seconds='{seconds}'>{status}</query>"),
    );
}
