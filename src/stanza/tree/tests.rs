//! Reading trees and writing them out.

use super::*;
use crate::view::StreamHeader;

fn tree<'a>(text: &'a str, scope: &StreamScope) -> Tree<'a> {
    Tree::parse(text.as_bytes(), scope).expect(text)
}

#[test]
fn a_payload_is_read_by_names_and_namespaces() {
    let text = "<iq id='1' type='set'><query xmlns='jabber:iq:roster' xml:lang='en'>\
        <item jid='a@b' name='A &amp; B&#10;'><group>x</group><group>y</group></item></query></iq>";
    let scope = StreamScope::client();
    let tree = tree(text, &scope);
    let iq = tree.root();
    assert!(iq.is("iq", Ns::Client));
    let query = iq.child("query", Ns::Roster).expect("a query");
    assert_eq!(query.attr("xml:lang"), Some("en"));
    assert_eq!(query.attr_ns("lang", Ns::Xml.as_str()), Some("en"));
    assert_eq!(query.attr("xmlns"), None);
    let item = query.child("item", Ns::Roster).expect("an item");
    assert_eq!(item.attr("name"), Some("A & B\n"));
    let groups: Vec<_> = item.children().map(|g| g.text()).collect();
    assert_eq!(groups, ["x", "y"]);
    assert_eq!(
        item.children().next().expect("a group").raw(),
        b"<group>x</group>"
    );
    assert!(iq.child("query", Ns::Client).is_none());
}

#[test]
fn text_is_joined_and_resolved() {
    let text = "<a>x\r\n&lt;<b>no</b><![CDATA[<&\r]]>y&#13;<c/></a>";
    let scope = StreamScope::client();
    assert_eq!(tree(text, &scope).root().text(), "x\n<<&\ny\r");
    let text = "<a b='1\r\n2\t3&#9;'/>";
    assert_eq!(tree(text, &scope).root().attr("b"), Some("1 2 3\t"));
    assert_eq!(tree("<a>one</a>", &scope).root().text(), "one");
    assert_eq!(tree("<a/>", &scope).root().text(), "");
}

#[test]
fn foreign_namespaces_keep_their_text() {
    let header = "<s:stream xmlns:s='http://etherx.jabber.org/streams' xmlns='jabber:client' \
        xmlns:e='urn:&amp;e'>";
    let scope = StreamHeader::parse(header.as_bytes())
        .expect("a header")
        .scope;
    let tree = tree("<a><e:b/><c xmlns='urn:c'><d xmlns=''/></c></a>", &scope);
    let names: Vec<_> = tree
        .root()
        .children()
        .map(|n| (n.name(), n.ns_str()))
        .collect();
    assert_eq!(names, [("b", "urn:&e"), ("c", "urn:c")]);
    let c = tree.root().children().nth(1).expect("c");
    assert_eq!(c.children().next().expect("d").ns_str(), "");
}

#[test]
fn a_written_element_stands_on_its_own() {
    let header = "<s:stream xmlns:s='http://etherx.jabber.org/streams' xmlns='jabber:client' \
        xmlns:e='urn:e'>";
    let scope = StreamHeader::parse(header.as_bytes())
        .expect("a header")
        .scope;
    let text = "<iq><e:a e:x='1' y=\"'\" xml:lang='en'>t<e:b/>&lt;<c/><d xmlns=''/></e:a></iq>";
    let tree = tree(text, &scope);
    let mut out = Vec::new();
    tree.root()
        .children()
        .next()
        .expect("a")
        .write(&mut out)
        .expect("few declarations");
    let expected = "<a xmlns='urn:e' xmlns:e='urn:e' e:x='1' y='&apos;' xml:lang='en'>t<b/>&lt;\
        <c xmlns='jabber:client'/><d xmlns=''/></a>";
    assert_eq!(String::from_utf8_lossy(&out), expected);
}

#[test]
fn what_would_grow_beyond_measure_is_not_written() {
    let uri = "u".repeat(20 << 10);
    let many = |uri: &str, count| format!("<a xmlns:p='{uri}'>{}</a>", "<p:b/>".repeat(count));
    let scope = StreamScope::client();
    for (text, is_written) in [
        (many("u", 200), true),
        (many("u", 300), false),
        (many(&uri, 1), true),
        (many(&uri, 2), false),
    ] {
        let mut out = b"before".to_vec();
        let written = tree(&text, &scope).root().write(&mut out);
        assert_eq!(written.is_ok(), is_written);
        assert_eq!(out == b"before", !is_written);
    }
}

#[test]
fn a_large_flat_tree_is_built_and_left_iteratively() {
    // Miri takes a thousand times as long.
    const COUNT: usize = if cfg!(miri) { 500 } else { 50_000 };
    let text = format!("<a>{}</a>", "<b/>x".repeat(COUNT));
    let scope = StreamScope::client();
    let tree = tree(&text, &scope);
    assert_eq!(tree.root().children().count(), COUNT);
    assert_eq!(tree.root().text().len(), COUNT);
    let mut out = Vec::new();
    tree.root()
        .write_within("jabber:client", &mut out)
        .expect("no declarations");
    assert_eq!(String::from_utf8_lossy(&out), text);
}

#[test]
fn an_element_of_the_xml_namespace_keeps_its_prefix() {
    let stanza = b"<iq><xml:a xml:b='1'><c xmlns='urn:c'/><xml:d/></xml:a></iq>";
    let tree = Tree::parse(stanza, &StreamScope::client()).unwrap();
    let mut out = Vec::new();
    let payload = tree.root().children().next().unwrap();
    payload.write(&mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text, "<xml:a xml:b='1'><c xmlns='urn:c'/><xml:d/></xml:a>");
    let again = Tree::parse(text.as_bytes(), &StreamScope::client()).unwrap();
    assert_eq!(again.root().ns(), Ns::Xml);
}
