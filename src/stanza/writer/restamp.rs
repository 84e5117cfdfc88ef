//! The one copy of a stanza on its way through.

use super::{Open, escape_attr};
use crate::error::XmlError;
use crate::scope::StreamScope;
use crate::tree::Tree;
use crate::view::{StanzaView, is_content};

/// Appends the stanza with a new `from` and `to` (left out if empty), namespace-neutral.
///
/// The root loses the declaration of its content namespace, gains those of the stream header's
/// prefixes that the stanza uses and the stream's `xml:lang` if it has none of its own. Everything
/// else is copied byte for byte. A root that is not a plain stanza (prefixed, or in a namespace
/// that is no content namespace) is written anew with the same meaning.
///
/// Only the latter can fail, with `TooManyNamespaces` ([`crate::tree::Node::write`]); then nothing
/// is appended.
pub fn restamp(
    view: &StanzaView<'_>,
    scope: &StreamScope,
    from: &str,
    to: &str,
    out: &mut Vec<u8>,
) -> Result<(), XmlError> {
    if !view.is_plain() {
        return rewrite(view, scope, from, to, out);
    }
    let bytes = view.bytes();
    out.reserve(bytes.len() + from.len() + to.len() + "  from=''  to=''".len());
    out.extend_from_slice(&bytes[..view.name_end()]);
    stamp(out, b" from='", from);
    stamp(out, b" to='", to);
    let mut copied = view.name_end();
    for (cut, end) in view.cuts() {
        if end > copied {
            out.extend_from_slice(&bytes[copied..cut]);
            copied = end;
        }
    }
    let end = view.attributes_end();
    out.extend_from_slice(&bytes[copied..end]);
    if view.used_prefixes() != 0 {
        declare(view, scope, out);
    }
    if let Some(lang) = scope.lang()
        && view.lang().is_none()
    {
        stamp(out, b" xml:lang='", lang);
    }
    out.extend_from_slice(&bytes[end..]);
    Ok(())
}

#[inline(always)]
fn stamp(out: &mut Vec<u8>, start: &[u8], value: &str) {
    if !value.is_empty() {
        out.extend_from_slice(start);
        escape_attr(value, out);
        out.push(b'\'');
    }
}

/// Re-declares the prefixes of the stream header that the stanza uses.
#[cold]
fn declare(view: &StanzaView<'_>, scope: &StreamScope, out: &mut Vec<u8>) {
    let mut tag = Open { out };
    for (i, prefix) in scope.prefixes().iter().enumerate() {
        // A prefix that the root declares itself hides the header's, so it is never among the used.
        if view.used_prefixes() & 1 << i != 0 {
            tag = tag.attr(&format!("xmlns:{}", prefix.name), &prefix.uri);
        }
    }
}

/// Writes the stanza anew, without prefixes.
#[cold]
fn rewrite(
    view: &StanzaView<'_>,
    scope: &StreamScope,
    from: &str,
    to: &str,
    out: &mut Vec<u8>,
) -> Result<(), XmlError> {
    let tree = Tree::parse(view.bytes(), scope)?;
    let root = tree.root();
    let lang = scope.lang().filter(|_| view.lang().is_none()).unwrap_or("");
    // An empty stamp drops the attribute it replaces.
    let stamps = [("from", from), ("to", to), ("xml:lang", lang)];
    let stamps = if lang.is_empty() {
        &stamps[..2]
    } else {
        &stamps[..]
    };
    let outside = is_content(root.ns()).then(|| root.ns_str());
    root.write_stamped(outside, stamps, out)
}

/// How the content namespaces of clients and components begin, which name what both say alike.
const CONTENT_START: &str = "jabber:c";

/// A stanza, already stamped, with everything that belongs to it in the namespace of its root. A
/// client may name `jabber:client` inside of one, and a component what its stream has: on another
/// stream that is a foreign namespace. What is inside of something else, as a forwarded message, is
/// left alone. `None` where the stanza names no content namespace, and where it cannot be written
/// anew ([`crate::tree::Node::write`]).
pub fn unify(stanza: &[u8], scope: &StreamScope) -> Option<Vec<u8>> {
    // Of a string, since that search looks at many bytes at once.
    if !std::str::from_utf8(stanza).is_ok_and(|text| text.contains(CONTENT_START)) {
        return None;
    }
    let mut tree = Tree::parse(stanza, scope).ok()?;
    tree.unify_content();
    let root = tree.root();
    let mut out = Vec::with_capacity(stanza.len());
    root.write_within(root.ns_str(), &mut out).ok()?;
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::StreamHeader;

    fn stamped(header: &str, stanza: &str) -> String {
        let scope = StreamHeader::parse(header.as_bytes())
            .expect("a header")
            .scope;
        let view = StanzaView::parse(stanza.as_bytes(), &scope).expect(stanza);
        let mut out = Vec::new();
        restamp(&view, &scope, "a@x/'r", "b@x", &mut out).expect("few declarations");
        StanzaView::parse(&out, &StreamScope::client()).expect("a stamped stanza is one again");
        String::from_utf8(out).expect("UTF-8")
    }

    const PLAIN: &str = "<s:stream xmlns='jabber:client' \
        xmlns:s='http://etherx.jabber.org/streams' xmlns:e='urn:e'>";
    const GERMAN: &str = "<s:stream xmlns='jabber:client' \
        xmlns:s='http://etherx.jabber.org/streams' xml:lang='de'>";
    const PREFIXED: &str =
        "<stream xmlns='http://etherx.jabber.org/streams' xmlns:c='jabber:client'>";
    const SERVER: &str =
        "<s:stream xmlns='jabber:server' xmlns:s='http://etherx.jabber.org/streams'>";

    #[test]
    fn the_stamp_replaces_addresses_and_all_else_is_kept() {
        let stanza = "<message  id=\"1\" to='B@x'\n xmlns='jabber:client' a='&#10;' from='evil' \
            ><body>x <![CDATA[<]]>&gt;</body></message>";
        let expected = "<message from='a@x/&apos;r' to='b@x'  id=\"1\" a='&#10;' >\
            <body>x <![CDATA[<]]>&gt;</body></message>";
        assert_eq!(stamped(PLAIN, stanza), expected);
        assert_eq!(stamped(PLAIN, "<iq/>"), "<iq from='a@x/&apos;r' to='b@x'/>");
    }

    #[test]
    fn used_prefixes_of_the_header_are_declared_again_and_no_others() {
        let stanza = "<message><e:x><e:y/></e:x></message>";
        let expected = "<message from='a@x/&apos;r' to='b@x' xmlns:e='urn:e'>\
            <e:x><e:y/></e:x></message>";
        assert_eq!(stamped(PLAIN, stanza), expected);
        let stanza = "<message><e:x xmlns:e='urn:other'/></message>";
        let expected = "<message from='a@x/&apos;r' to='b@x'><e:x xmlns:e='urn:other'/></message>";
        assert_eq!(stamped(PLAIN, stanza), expected);
        let stanza = "<message e:q='1'/>";
        let expected = "<message from='a@x/&apos;r' to='b@x' e:q='1' xmlns:e='urn:e'/>";
        assert_eq!(stamped(PLAIN, stanza), expected);
    }

    #[test]
    fn the_language_of_the_stream_is_inherited() {
        let expected = "<message from='a@x/&apos;r' to='b@x' xml:lang='de'/>";
        assert_eq!(stamped(GERMAN, "<message/>"), expected);
        let stanza = "<message xml:lang='en'/>";
        let expected = "<message from='a@x/&apos;r' to='b@x' xml:lang='en'/>";
        assert_eq!(stamped(GERMAN, stanza), expected);
    }

    #[test]
    fn prefixed_stanzas_come_out_without_prefixes() {
        let stanza = "<c:message to='q' c:z='1'><c:body>&lt;</c:body><x/></c:message>";
        let expected = "<message from='a@x/&apos;r' to='b@x' xmlns:c='jabber:client' c:z='1'>\
            <body>&lt;</body><x xmlns='http://etherx.jabber.org/streams'/></message>";
        assert_eq!(stamped(PREFIXED, stanza), expected);
        let stanza = "<c:iq xmlns:c='jabber:client'><c:a/></c:iq>";
        assert_eq!(
            stamped(PLAIN, stanza),
            "<iq from='a@x/&apos;r' to='b@x'><a/></iq>"
        );
    }

    #[test]
    fn stanzas_of_servers_come_out_neutral_with_their_errors() {
        let stanza = "<iq type='error'><error type='auth'><x xmlns='jabber:client'/></error></iq>";
        let expected = "<iq from='a@x/&apos;r' to='b@x' type='error'>\
            <error type='auth'><x xmlns='jabber:client'/></error></iq>";
        assert_eq!(stamped(SERVER, stanza), expected);
    }

    #[test]
    fn an_empty_address_is_left_out() {
        let scope = StreamScope::client();
        let mut out = Vec::new();
        let view = StanzaView::parse(b"<presence to='x' from='y'/>", &scope).expect("a stanza");
        restamp(&view, &scope, "a@x", "", &mut out).expect("few declarations");
        assert_eq!(out, b"<presence from='a@x'/>");
    }

    #[test]
    fn a_stanza_at_every_limit_is_still_one_after_its_stamp() {
        let prefixes: String = (0..63).map(|i| format!(" xmlns:p{i}='urn:{i}'")).collect();
        let header =
            format!("<s:stream xmlns:s='u' xmlns='jabber:client'{prefixes} xml:lang='de'>");
        let attributes: String = (0..128)
            .map(|i| format!(" xmlns:q{i}='u{i}' b{i}=''"))
            .collect();
        let used: String = (0..63).map(|i| format!("<p{i}:x/>")).collect();
        let stanza = format!("<message{attributes}>{used}</message>");
        let text = stamped(&header, &stanza);
        assert!(text.contains(" xmlns:p62='urn:62'"));
    }

    #[test]
    fn what_a_stanza_says_is_of_its_own_namespace() {
        let client = StreamScope::client();
        let unified = |stanza: &str| {
            let out = unify(stanza.as_bytes(), &client);
            out.map(|out| String::from_utf8(out).expect("UTF-8"))
        };
        let plain = "<message><body>x</body><x xmlns='u:x'/></message>";
        assert_eq!(unified(plain), None);
        for other in [
            "<message><body xmlns='jabber:client'>x</body><x xmlns='u:x'/></message>",
            "<message xmlns:c='jabber:component:accept'><c:body>x</c:body>\
             <x xmlns='u:x'/></message>",
        ] {
            assert_eq!(unified(other).as_deref(), Some(plain), "{other}");
        }
        // Within its own, but not within another one.
        let other = "<iq><error xmlns='jabber:component:accept'><text><a/></text>\
                     <x xmlns='u:x'><message xmlns='jabber:client'/></x></error></iq>";
        let expected = "<iq><error><text><a/></text>\
                        <x xmlns='u:x'><message xmlns='jabber:client'/></x></error></iq>";
        assert_eq!(unified(other).as_deref(), Some(expected));
        let many = format!(
            "<iq xmlns:p='jabber:client:x'>{}</iq>",
            "<p:a/>".repeat(300)
        );
        assert_eq!(unified(&many), None);
    }
}
