//! What is told of nodes to whom (XEP-0060 5, XEP-0163 6).

use super::{Outcome, Service};
use crate::error::{StanzaError, put};
use crate::xep::pubsub::form::write_meta_data;
use crate::xep::pubsub::refusal::Refusal;
use crate::xml::Attr;

impl Service<'_> {
    /// Who does not get the presence hears of a node that he may not read what he hears of an
    /// account that is not there.
    pub(super) fn describe(&self, name: &str) -> Result<Outcome, Refusal> {
        let found = self.node(name);
        let found = found.and_then(|node| self.visitor.may_read(node).map(|()| node));
        let node = found.map_err(|refusal| match self.visitor.sees_presence() {
            true => refusal,
            false => StanzaError::ServiceUnavailable.into(),
        })?;
        let mut payload = Vec::new();
        put(
            &mut payload,
            format_args!(
                "<query xmlns='http://jabber.org/protocol/disco#info' node='{}'>\
                 <identity category='pubsub' type='leaf'/>\
                 <feature var='http://jabber.org/protocol/disco#info'/>\
                 <feature var='http://jabber.org/protocol/disco#items'/>\
                 <feature var='http://jabber.org/protocol/pubsub'/>",
                Attr(name)
            ),
        );
        write_meta_data(&node.config, &mut payload);
        payload.extend_from_slice(b"</query>");
        Ok(Outcome::payload(payload))
    }

    /// The available resources, and the nodes that the visitor may read; or the items of one.
    pub(super) fn list(&self, of: Option<&str>) -> Result<Outcome, Refusal> {
        let account = Attr(self.account.as_str());
        let mut payload = b"<query xmlns='http://jabber.org/protocol/disco#items'".to_vec();
        let Some(name) = of else {
            payload.push(b'>');
            for full in &self.resources {
                put(&mut payload, format_args!("<item jid='{}'/>", Attr(full)));
            }
            let all = self.nodes.iter();
            for node in all.filter(|node| self.visitor.may_read(node).is_ok()) {
                let name = Attr(&node.name);
                put(
                    &mut payload,
                    format_args!("<item jid='{account}' node='{name}'"),
                );
                if !node.config.title.is_empty() {
                    let title = Attr(&node.config.title);
                    put(&mut payload, format_args!(" name='{title}'"));
                }
                payload.extend_from_slice(b"/>");
            }
            payload.extend_from_slice(b"</query>");
            return Ok(Outcome::payload(payload));
        };
        put(&mut payload, format_args!(" node='{}'>", Attr(name)));
        let found = self.node(name);
        let found = found.and_then(|node| self.visitor.may_read(node).map(|()| node));
        let items = match found {
            Ok(node) => &node.items[..],
            Err(refusal) if self.visitor.sees_presence() => return Err(refusal),
            // XEP-0030 8: it is as if nothing were there.
            Err(_) => &[],
        };
        for item in items.iter().rev() {
            // As of what items say, the older ones are left out of a long answer.
            if payload.len() as u64 > super::ANSWER_SIZE_MAX {
                break;
            }
            let id = Attr(&item.id);
            put(
                &mut payload,
                format_args!("<item jid='{account}' name='{id}'/>"),
            );
        }
        payload.extend_from_slice(b"</query>");
        Ok(Outcome::payload(payload))
    }
}
