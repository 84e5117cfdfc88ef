//! One stanza on its way to its receiver: the facts that delivery asks for, and its bytes.

use crate::archive::{Stamp, take_out_stamp};
use crate::error::StanzaError;
use crate::xml::Attr;
use stanza::jid::Jid;
use stanza::ns::Ns;
use stanza::scope::StreamScope;
use stanza::tree::Tree;
use stanza::view::{Kind, StanzaView};
use stanza::writer;
use std::borrow::Cow;

/// The `type` of a stanza of any kind. `Normal` is a message's default, `Available` a presence's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the RFC's
pub enum Type {
    Normal,
    Chat,
    Groupchat,
    Headline,
    Error,
    Available,
    Unavailable,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
    Probe,
    Get,
    Set,
    Result,
    /// None of those that the kind knows.
    Invalid,
}

impl Type {
    /// The type that `attribute` means on a stanza of this kind.
    pub fn parse(kind: Kind, attribute: Option<&str>) -> Type {
        match (kind, attribute) {
            (Kind::Message, Some("chat")) => Type::Chat,
            (Kind::Message, Some("groupchat")) => Type::Groupchat,
            (Kind::Message, Some("headline")) => Type::Headline,
            (Kind::Message | Kind::Presence | Kind::Iq, Some("error")) => Type::Error,
            // RFC 6121 5.2.2: an unknown type of a message means normal.
            (Kind::Message, _) => Type::Normal,
            (Kind::Presence, None) => Type::Available,
            (Kind::Presence, Some("unavailable")) => Type::Unavailable,
            (Kind::Presence, Some("subscribe")) => Type::Subscribe,
            (Kind::Presence, Some("subscribed")) => Type::Subscribed,
            (Kind::Presence, Some("unsubscribe")) => Type::Unsubscribe,
            (Kind::Presence, Some("unsubscribed")) => Type::Unsubscribed,
            (Kind::Presence, Some("probe")) => Type::Probe,
            (Kind::Iq, Some("get")) => Type::Get,
            (Kind::Iq, Some("set")) => Type::Set,
            (Kind::Iq, Some("result")) => Type::Result,
            _ => Type::Invalid,
        }
    }

    /// Whether it manages a subscription (RFC 6121 3).
    pub fn is_subscription(self) -> bool {
        matches!(
            self,
            Type::Subscribe | Type::Subscribed | Type::Unsubscribe | Type::Unsubscribed
        )
    }
}

/// A stanza whose `from` is certain and whose `to` is prepared.
#[derive(Debug)]
pub(crate) struct Stanza<'a> {
    pub kind: Kind,
    pub type_: Type,
    /// The sender, prepared: full, or bare for what an account itself says.
    pub from: &'a str,
    /// The receiver.
    pub to: &'a Jid<'a>,
    view: &'a StanzaView<'a>,
    /// What the view's prefixes mean; `None` where the bytes are complete and go out as they are.
    scope: Option<&'a StreamScope>,
    /// The id that it gets as it is written, where an archive is to have it.
    stamp: Option<&'a Stamp<'a>>,
}

impl<'a> Stanza<'a> {
    /// A stanza just received from a client, to be stamped as it is written.
    pub(crate) fn received(
        view: &'a StanzaView<'a>,
        scope: &'a StreamScope,
        type_: Type,
        from: &'a str,
        to: &'a Jid<'a>,
    ) -> Stanza<'a> {
        Stanza {
            kind: view.kind(),
            type_,
            from,
            to,
            view,
            scope: Some(scope),
            stamp: None,
        }
    }

    /// The same with the id that an archive knows it by.
    pub(crate) fn stamped(self, stamp: Option<&'a Stamp<'a>>) -> Stanza<'a> {
        Stanza { stamp, ..self }
    }

    /// Whether it may have the id of its receiver's archive.
    #[inline]
    pub(crate) fn may_be_stamped(&self) -> bool {
        self.stamp.is_some() || self.view.has_child_ns(Ns::StanzaId)
    }

    /// A stanza that carries its own stamps.
    pub(crate) fn complete(view: &'a StanzaView<'a>, from: &'a str, to: &'a Jid<'a>) -> Stanza<'a> {
        let type_ = Type::parse(view.kind(), view.type_().as_deref());
        Stanza {
            kind: view.kind(),
            type_,
            from,
            to,
            view,
            scope: None,
            stamp: None,
        }
    }

    /// Appends the stanza, with its stamps, without a namespace of its own.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self.scope {
            Some(scope) => writer::restamp(self.view, scope, self.from, self.to.as_str(), out)
                .expect("a plain stanza is copied"),
            None => out.extend_from_slice(self.view.bytes()),
        }
        if let Some(stamp) = self.stamp {
            stamp.put(out);
        }
    }

    /// The id, unescaped.
    pub(crate) fn id(&self) -> Option<Cow<'a, str>> {
        self.view.id()
    }

    /// The checked element.
    pub(crate) fn view(&self) -> &'a StanzaView<'a> {
        self.view
    }

    /// The element as a tree, in the scope of the stream that it came by.
    pub(crate) fn tree(&self) -> Option<Tree<'a>> {
        let complete = StreamScope::client();
        let scope = self.scope.unwrap_or(&complete);
        Tree::parse(self.view.bytes(), scope).ok()
    }

    /// Whether the server answers it for an account, which may be at length. What one client asks
    /// of another is none of that: nobody knows when that has an answer.
    pub(crate) fn asks(&self) -> bool {
        match self.type_ {
            Type::Get | Type::Set => self.to.is_bare(),
            type_ => type_ == Type::Probe,
        }
    }

    /// Whether an error may be sent for it: never for an error, nor for an iq result (RFC 6120
    /// 8.3.1).
    pub(crate) fn may_bounce(&self) -> bool {
        !matches!(self.type_, Type::Error | Type::Result)
    }

    /// Appends the error that answers the stanza: same kind and id, addresses swapped, the payload
    /// kept (RFC 6120 8.3.1).
    pub(crate) fn write_error(&self, error: StanzaError, out: &mut Vec<u8>) {
        write_reply_head(
            self.kind,
            "error",
            self.to.as_str(),
            self.from,
            self.id(),
            out,
        );
        let mut whole = Vec::new();
        self.write(&mut whole);
        take_out_stamp(&mut whole, self.to.bare());
        write_payload(&whole, out);
        error.write(out);
        let name = self.view.name();
        out.extend_from_slice(format!("</{name}>").as_bytes());
    }
}

/// How a message ends that says something.
pub(crate) const MESSAGE_END: &[u8] = b"</message>";

/// Puts an element at the end of what a complete message says.
pub(crate) fn append_child(message: &mut Vec<u8>, child: &[u8]) {
    if message.ends_with(b"/>") {
        message.truncate(message.len() - 2);
        message.push(b'>');
    } else if let Some(place) = message.iter().rposition(|byte| *byte == b'<') {
        // The client's own end may have white space in it.
        message.truncate(place);
    }
    message.extend_from_slice(child);
    message.extend_from_slice(MESSAGE_END);
}

/// Appends the opening tag of a reply.
pub(crate) fn write_reply_head(
    kind: Kind,
    type_: &str,
    from: &str,
    to: &str,
    id: Option<Cow<'_, str>>,
    out: &mut Vec<u8>,
) {
    let name = match kind {
        Kind::Message => "message",
        Kind::Presence => "presence",
        Kind::Iq | Kind::Other => "iq",
    };
    let mut open = writer::open(out, name).attr("from", from).attr("to", to);
    if let Some(id) = &id {
        open = open.attr("id", id);
    }
    open.attr("type", type_).start();
}

/// Appends the payload of a received stanza, for an answer to its sender.
pub(crate) fn write_content(view: &StanzaView<'_>, scope: &StreamScope, out: &mut Vec<u8>) {
    let mut whole = Vec::new();
    writer::restamp(view, scope, "", "", &mut whole).expect("a plain stanza is copied");
    write_payload(&whole, out);
}

/// Appends the payload of a stamped stanza behind the opening tag of its answer (RFC 6120 8.3.1),
/// which gains the prefixes that the stanza's own tag declares.
fn write_payload(whole: &[u8], out: &mut Vec<u8>) {
    let (tag, content) = parts(whole);
    if content.is_empty() {
        return;
    }
    let end = out.pop();
    debug_assert_eq!(end, Some(b'>'), "an opening tag stands before a payload");
    write_declarations(tag, out);
    out.push(b'>');
    out.extend_from_slice(content);
}

/// Appends those attributes of a tag, known to be well-formed, that declare prefixes.
fn write_declarations(tag: &[u8], out: &mut Vec<u8>) {
    let mut rest = tag;
    while let Some(start) = rest.iter().position(|byte| matches!(byte, b'\'' | b'"')) {
        let (before, value) = rest.split_at(start);
        let Some(end) = value[1..].iter().position(|byte| *byte == value[0]) else {
            return;
        };
        let (value, more) = value.split_at(end + 2);
        let name = before.trim_ascii_end();
        let name = name.strip_suffix(b"=").unwrap_or(name).trim_ascii_end();
        let name = name.rsplit(u8::is_ascii_whitespace).next();
        if let Some(name) = name.filter(|name| name.starts_with(b"xmlns:")) {
            out.push(b' ');
            out.extend_from_slice(name);
            out.push(b'=');
            out.extend_from_slice(value);
        }
        rest = more;
    }
}

/// The opening tag of an element that is known to be well-formed, and what its tags enclose.
fn parts(element: &[u8]) -> (&[u8], &[u8]) {
    let mut quote = None;
    let end = element.iter().position(|&byte| match (quote, byte) {
        (None, b'\'' | b'"') => {
            quote = Some(byte);
            false
        }
        (Some(open), byte) => {
            if open == byte {
                quote = None;
            }
            false
        }
        (None, byte) => byte == b'>',
    });
    let end = end.unwrap_or(element.len() - 1);
    let (tag, rest) = element.split_at(end + 1);
    if tag.ends_with(b"/>") {
        return (tag, &[]);
    }
    let close = rest.iter().rposition(|&byte| byte == b'<');
    (tag, &rest[..close.unwrap_or(0)])
}

/// A presence without content from an account or resource.
pub(crate) fn simple_presence(type_: &str, from: &str, to: &str) -> Vec<u8> {
    let (from, to) = (Attr(from), Attr(to));
    format!("<presence from='{from}' to='{to}' type='{type_}'/>").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_of_an_element_is_what_its_tags_enclose() {
        let content = |element| String::from_utf8_lossy(parts(element).1).into_owned();
        assert_eq!(content(b"<iq id='>'><a b=\"/>\"/>x</iq>"), "<a b=\"/>\"/>x");
        assert_eq!(content(b"<iq a='\"/>'/>"), "");
        assert_eq!(content(b"<iq></iq>"), "");
    }

    #[test]
    fn an_answer_declares_the_prefixes_of_the_payload_that_it_keeps() {
        let answered = |element: &str| {
            let mut out = b"<iq id='1'>".to_vec();
            write_payload(element.as_bytes(), &mut out);
            String::from_utf8_lossy(&out).into_owned()
        };
        assert_eq!(
            answered("<iq a='xmlns:n=\"x\"' xmlns:p = \"u'>\" b='' xmlns:q='v'><p:x/></iq>"),
            "<iq id='1' xmlns:p=\"u'>\" xmlns:q='v'><p:x/>"
        );
        assert_eq!(answered("<iq xmlns:p='u'/>"), "<iq id='1'>");
        assert_eq!(
            answered("<iq><x xmlns:p='u'/></iq>"),
            "<iq id='1'><x xmlns:p='u'/>"
        );
    }
}
