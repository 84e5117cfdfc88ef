//! Names cost nothing for the size of their namespace, and namespaces are told apart by what they
//! say.

use crate::ns::Ns;
use crate::scope::StreamScope;
use crate::tree::{DECLARED_SIZE_MAX, Tree};
use crate::view::{StanzaView, StreamHeader};
use crate::writer;
use std::cell::Cell;

thread_local! {
    /// Bytes of namespaces and other values that this thread decoded, compared or copied.
    static TOUCHED: Cell<usize> = const { Cell::new(0) };
}

/// Counts the bytes of a value that is looked at as a whole.
pub(crate) fn touch(size: usize) {
    TOUCHED.set(TOUCHED.get() + size);
}

fn touched<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = TOUCHED.get();
    let result = work();
    (result, TOUCHED.get() - before)
}

/// The unknown namespaces of the header are as long as they may be.
fn scope() -> StreamScope {
    let long = "u".repeat(900);
    let header = format!(
        "<s:stream xmlns:s='http://etherx.jabber.org/streams' xmlns='jabber:client' \
         xmlns:h='{long}' xmlns:i='urn:i' xmlns:j='urn:&#105;' xmlns:k='jabber:client'>"
    );
    let header = StreamHeader::parse(header.as_bytes());
    header.expect("a header").scope
}

/// Elements of about so many bytes: half of them declare, the others use it.
fn shapes(size: usize) -> Vec<String> {
    let half = size / 2;
    let escaped = |size: usize| "&amp;".repeat(size / 5);
    let many = |piece: &str| piece.repeat(half / piece.len());
    let (one, two) = (escaped(half), ["u", "v"].map(|u| u.repeat(half / 2)));
    let short = |i: usize| format!("<a xmlns='{}{i}'/>", "u".repeat(half / 64));
    let mut shapes = vec![
        // The reviewer's: every use decoded the namespace anew, or copied it.
        format!("<y xmlns:p='{one}'>{}</y>", many("<p:a/>")),
        format!("<y xmlns:p='{one}'>{}</y>", many("<x p:a='' p:b=''/>")),
        format!(
            "<y xmlns:p='{}' xmlns:q='{}'>{}</y>",
            two[0],
            two[1],
            many("<p:a/><q:a/>")
        ),
        // The same namespace by two names, each time compared.
        format!(
            "<y xmlns:p='{}' xmlns:q='{}'>{}</y>",
            two[0],
            two[0],
            many("<x p:a='' q:b=''/>")
        ),
        // By default.
        format!("<y xmlns='{one}'>{}</y>", many("<a/>")),
        format!(
            "<y xmlns='{}'><z xmlns='{}'>{}</z></y>",
            two[0],
            two[1],
            many("<a/>")
        ),
        // Each sibling declares its own; and all the same.
        format!("<y>{}</y>", (0..60).map(short).collect::<String>()),
        format!("<y>{}</y>", short(1).repeat(60)),
        // The stream header's.
        format!("<y>{}</y>", many("<h:a/><i:a/>")),
        format!("<y>{}</y>", many("<x h:a='' i:a=''/>")),
        // No namespaces: values and text.
        format!("<y a='{one}'>{}</y>", many("&amp;<a/>")),
    ];
    let deeper = shapes
        .iter()
        .map(|shape| format!("<message>{shape}</message>"));
    shapes.extend(deeper.collect::<Vec<_>>());
    shapes
}

#[test]
fn work_and_memory_are_linear_in_the_bytes_whatever_is_declared_and_used() {
    // Miri takes a thousand times as long.
    let sizes: &[usize] = if cfg!(miri) {
        &[2_000]
    } else {
        &[60_000, 250_000]
    };
    let scope = scope();
    for shape in sizes.iter().flat_map(|&size| shapes(size)) {
        let about = &shape[..shape.len().min(40)];
        let bytes = shape.as_bytes();
        let (view, work) = touched(|| StanzaView::parse(bytes, &scope));
        let view = view.expect(about);
        // A value is decoded once, and perhaps compared with one that is as long.
        assert!(work <= 2 * bytes.len(), "{work} for a view of {about}");
        let (tree, work) = touched(|| Tree::parse(bytes, &scope));
        let tree = tree.expect(about);
        assert!(work <= 4 * bytes.len(), "{work} for a tree of {about}");
        let size = tree.size();
        assert!(size <= 24 * bytes.len(), "{size} for a tree of {about}");
        // What is too much to declare again is refused, after no more than that.
        let ((), work) = touched(|| {
            let mut out = Vec::new();
            let _ = tree.root().write(&mut out);
            assert!(out.len() <= 6 * (bytes.len() + DECLARED_SIZE_MAX));
        });
        assert!(work <= 4 * bytes.len(), "{work} for writing {about}");
        let mut out = Vec::new();
        writer::restamp(&view, &scope, "a@x/r", "b@x", &mut out).ok();
        assert!(out.len() <= 2 * bytes.len(), "{about}");
    }
}

#[test]
fn two_attributes_of_one_name_are_told_apart_by_what_their_namespaces_say() {
    let scope = scope();
    let long = "u".repeat(900);
    for (declared, first, second, is_same) in [
        ("xmlns:p='urn:a' xmlns:q='urn:&#97;'", "p", "q", true),
        ("xmlns:p='urn:&#97;' xmlns:q='urn:&#x61;'", "p", "q", true),
        ("xmlns:p='urn:a' xmlns:q='urn:b'", "p", "q", false),
        ("xmlns:p='urn:a' xmlns:q='urn:A'", "p", "q", false),
        // Interned ones.
        (
            "xmlns:p='jabber:client' xmlns:q='jabber&#58;client'",
            "p",
            "q",
            true,
        ),
        ("xmlns:p='jabber:client'", "p", "k", true),
        ("xmlns:p='jabber:server'", "p", "k", false),
        // The stream header's.
        ("", "i", "j", true),
        ("", "h", "i", false),
        ("xmlns:p='urn:i'", "p", "j", true),
        ("xmlns:j='urn:a'", "i", "j", false),
        (&format!("xmlns:p='{long}'"), "p", "h", true),
        (&format!("xmlns:p='{long}u'"), "p", "h", false),
        // A name without a prefix is in no namespace, whatever the default one is.
        ("xmlns='urn:a' xmlns:p='urn:a' a=''", "p", "i", false),
    ] {
        let tag = format!("x {declared} {first}:a='' {second}:a=''");
        let outside = [
            "<message>",
            "<message xmlns:p='urn:o' xmlns:q='urn:o' xmlns='urn:o'>",
        ];
        for text in [
            format!("<{tag}/>"),
            format!("{}<{tag}/></message>", outside[0]),
            format!("{}<{tag}/></message>", outside[1]),
        ] {
            let view = StanzaView::parse(text.as_bytes(), &scope);
            assert_eq!(view.is_err(), is_same, "{text}");
            let tree = Tree::parse(text.as_bytes(), &scope);
            assert_eq!(tree.is_err(), is_same, "{text}");
        }
    }
}

#[test]
fn a_namespace_is_one_however_it_is_declared() {
    let header = "<s:stream xmlns:s='http://etherx.jabber.org/streams' xmlns='urn:&#100;' \
        xmlns:p='urn:d' xmlns:q='urn:q' xmlns:r='urn:q'>";
    let scope = StreamHeader::parse(header.as_bytes());
    let scope = scope.expect("a header").scope;
    let text = "<p:a><b/><c xmlns='urn:d'/><q:d><r:e/><t:f xmlns:t='urn&#58;q'/></q:d>\
        <g xmlns=''><h/></g><n:i xmlns:n='urn:n'/><i xmlns='urn:n'/></p:a>";
    let view = StanzaView::parse(text.as_bytes(), &scope).expect("an element");
    assert_eq!(view.used_prefixes(), 0b1110);
    let tree = Tree::parse(text.as_bytes(), &scope).expect("an element");
    let names: Vec<_> = tree.root().children().map(|n| n.ns_str()).collect();
    let expected = ["urn:d", "urn:d", "urn:q", "", "urn:n", "urn:n"];
    assert_eq!(names, expected);
    let mut out = Vec::new();
    tree.root().write(&mut out).expect("few declarations");
    let expected = "<a xmlns='urn:d'><b/><c/><d xmlns='urn:q'><e/><f/></d>\
        <g xmlns=''><h/></g><i xmlns='urn:n'/><i xmlns='urn:n'/></a>";
    assert_eq!(String::from_utf8_lossy(&out), expected);
}

#[test]
fn a_prefix_bound_to_an_interned_namespace_is_that_namespace() {
    let scope = scope();
    let text = "<k:message><p:a xmlns:p='urn:xmpp:&#112;ing'/></k:message>";
    let view = StanzaView::parse(text.as_bytes(), &scope).expect("a stanza");
    assert_eq!(
        (view.ns(), view.payload()),
        (Ns::Client, Some((Ns::Ping, "a")))
    );
}
