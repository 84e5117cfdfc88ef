//! What a view accepts, what it refuses, and the facts it notes.

use super::*;
use crate::scope::SCOPE_SIZE_MAX;

const CLIENT: &str = "<stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' xmlns:c='jabber:client' xmlns:e='urn:e' \
    to='example.org' version='1.0' xml:lang='de'>";

fn scope() -> StreamScope {
    StreamHeader::parse(CLIENT.as_bytes())
        .expect("a header")
        .scope
}

fn verdict(text: &str) -> Result<(), XmlError> {
    let view = StanzaView::parse(text.as_bytes(), &scope()).map(|_| ());
    let tree = crate::tree::Tree::parse(text.as_bytes(), &scope()).map(|_| ());
    assert_eq!(view, tree, "{text}");
    view
}

fn view<'a>(text: &'a str) -> StanzaView<'a> {
    StanzaView::parse(text.as_bytes(), &scope()).expect(text)
}

#[test]
fn the_facts_of_a_message_are_noted() {
    let text = "<message to='b@x/&apos;r&#x27;' id=\"1\" from = 'a@x' type='chat' xml:lang='en'>\
        <active xmlns='http://jabber.org/protocol/chatstates'/><body>hi</body>\
        <private xmlns='urn:xmpp:carbons:2'><body xmlns='jabber:client'/></private></message>";
    let view = view(text);
    assert_eq!(
        (view.kind(), view.name(), view.ns()),
        (Kind::Message, "message", Ns::Client)
    );
    assert_eq!(view.to().as_deref(), Some("b@x/'r'"));
    assert!(matches!(view.from(), Some(Cow::Borrowed("a@x"))));
    assert_eq!(view.id().as_deref(), Some("1"));
    assert_eq!(view.type_().as_deref(), Some("chat"));
    assert_eq!(view.lang().as_deref(), Some("en"));
    assert_eq!(view.payload(), Some((Ns::ChatStates, "active")));
    assert_eq!(view.child_count(), 3);
    assert!(view.has_body() && view.has_child_ns(Ns::Carbons) && !view.has_child_ns(Ns::Hints));
    assert_eq!(view.bytes(), text.as_bytes());
}

#[test]
fn a_body_that_is_not_a_child_or_not_of_the_content_is_none() {
    assert!(!view("<message><x xmlns='urn:x'><body/></x></message>").has_body());
    assert!(!view("<message><body xmlns='urn:x'/></message>").has_body());
    assert!(view("<message><c:body/></message>").has_body());
}

#[test]
fn the_kind_depends_on_the_namespace() {
    assert_eq!(view("<iq/>").kind(), Kind::Iq);
    assert_eq!(view("<c:presence/>").kind(), Kind::Presence);
    assert_eq!(view("<iq xmlns='jabber:server'/>").kind(), Kind::Iq);
    assert_eq!(view("<iq xmlns='urn:x'/>").kind(), Kind::Other);
    assert_eq!(view("<e:iq/>").kind(), Kind::Other);
    assert_eq!(
        view("<r xmlns='urn:xmpp:sm:3'/>").ns(),
        Ns::StreamManagement
    );
    assert_eq!(
        view("<m:r xmlns:m='urn:xmpp&#58;sm:3'/>").ns(),
        Ns::StreamManagement
    );
}

#[test]
fn what_is_not_well_formed_is_refused() {
    let texts = [
        "<a></b>",
        "<a>",
        "<a/><b/>",
        "<a/> ",
        "<a b='1' b='2'/>",
        "<a b=1/>",
        "<a b='1'c='2'/>",
        "<a b/>",
        "<a b='<'/>",
        "<a b='&'/>",
        "<a>&</a>",
        "<a>& lt;</a>",
        "<a>&lt</a>",
        "<a>]]></a>",
        "<a>x]]>y</a>",
        "<a/",
        "<a / >",
        "<a></a",
        "<a></ a>",
        "<1a/>",
        "<-a/>",
        "<a><b></a></b>",
        "<a>&#0;</a>",
        "<a>&#x1F;</a>",
        "<a>&#xD800;</a>",
        "<a>&#xFFFE;</a>",
        "<a>&#x110000;</a>",
        "<a>&#;</a>",
        "<a>&#x;</a>",
        "<a>&#xg;</a>",
        "<a>&#-1;</a>",
        "<a>&#X41;</a>",
        "<a>&#99999999999999999999;</a>",
        "<a>&#+65;</a>",
        "<a b='&#0;'/>",
        "<a>\u{1}</a>",
        "<a>\u{ffff}</a>",
        "<a>\0</a>",
        "<a b=\"'/>",
        "<a =''/>",
        "<>",
        "</a>",
        "",
        "<a><![CDATA[</a>",
        "<a><b/></a>x",
        "<\u{d7}/>",
        "<a\u{2028}/>",
        "<a \u{300}='x'/>",
    ];
    for text in texts {
        assert_eq!(verdict(text), Err(XmlError::NotWellFormed), "{text}");
    }
}

#[test]
fn what_breaks_the_rules_of_namespaces_is_refused() {
    let texts = [
        "<p:a/>",
        "<a p:b='1'/>",
        "<p:a xmlns:q='urn:q'/>",
        "<a:b:c/>",
        "<:a/>",
        "<a:/>",
        "<a:1/>",
        "<a xmlns:p=''/>",
        "<a xmlns:xml='urn:x'/>",
        "<a xmlns:xmlns='urn:x'/>",
        "<xmlns:a/>",
        "<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>",
        "<a xmlns='http://www.w3.org/XML/1998/namespace'/>",
        "<a xmlns:p='http://www.w3.org/2000/xmlns/'/>",
        "<a xmlns='http://www.w3.org/2000/xmlns/'/>",
        "<a xmlns='u' xmlns='u'/>",
        "<a xmlns:p='u' xmlns:p='v'/>",
        "<a xmlns:p='u' xmlns:q='u' p:x='1' q:x='2'/>",
        "<a xmlns:p='urn:e' p:x='1' e:x='2'/>",
        "<a xmlns:p='u' xmlns:q='&#117;' p:x='1' q:x='2'/>",
        "<a><b xmlns:p='u'/><p:c/></a>",
        "<a xmlns:p='u'><p:b></b></a>",
        "<a xmlns:p='u' p:='1'/>",
        "<p:a xmlns:p='u'></a>",
    ];
    for text in texts {
        assert_eq!(verdict(text), Err(XmlError::NotWellFormed), "{text}");
    }
}

#[test]
fn what_is_well_formed_is_accepted() {
    let texts = [
        "<a/>",
        "<a />",
        "<a\n\tb = 'c'\r\n/>",
        "<a></a >",
        "<a>]]&gt; ]] ></a>",
        "<a b='>'/>",
        "<a b=\"'\" c='\"'/>",
        "<a>&lt;&gt;&amp;&apos;&quot;&#9;&#x10FFFF;&#0000065;</a>",
        "<a><![CDATA[<&]]]]><![CDATA[>]]></a>",
        "<a xml:lang='x' lang='y'/>",
        "<e:a e:b='1' b='2'/>",
        "<a xmlns:p='u'><b xmlns:p='v'><p:c/></b><p:d/></a>",
        "<a xmlns=''><b/></a>",
        "<\u{e9}/>",
        "<a xmlns:\u{e9}='u' \u{e9}:x\u{b7}='1'/>",
        "<a.b-c_d1/>",
        "<_/>",
        "<a xmlns:p='u' xmlns:q='u' p:x='1' q:y='2'/>",
        "<a xmlns:xml='http://www.w3.org/XML/1998/namespace'/>",
        "<a xmlnsx='1' xml='2'/>",
    ];
    for text in texts {
        assert_eq!(verdict(text), Ok(()), "{text}");
    }
}

#[test]
fn restricted_xml_is_told_apart() {
    let texts = [
        "<a><!-- x --></a>",
        "<a><?x y?></a>",
        "<a>&foo;</a>",
        "<a b='&foo;'/>",
        "<a>&foo:bar;</a>",
        "<!DOCTYPE a><a/>",
        "<a><!DOCTYPE a></a>",
        "<?xml version='1.0'?><a/>",
        "<a><!ENTITY x></a>",
    ];
    for text in texts {
        assert_eq!(verdict(text), Err(XmlError::Restricted), "{text}");
    }
}

#[test]
fn limits_hold_without_the_scanner_too() {
    let nested = |depth: usize| "<a>".repeat(depth) + &"</a>".repeat(depth);
    // As deep as the scanner lets them be, and a copy of such a one.
    assert_eq!(verdict(&nested(67)), Ok(()));
    assert_eq!(verdict(&nested(68)), Err(XmlError::TooDeep));
    let attributes: String = (0..400).map(|i| format!(" a{i}='x'")).collect();
    assert_eq!(
        verdict(&format!("<a{attributes}/>")),
        Err(XmlError::TooManyAttributes)
    );
    let many = "<b xmlns='u'/>".repeat(1_000);
    assert_eq!(
        verdict(&format!("<a>{many}</a>")),
        Err(XmlError::TooManyNamespaces)
    );
}

#[test]
fn many_attributes_are_compared_too() {
    let attributes: String = (0..100).map(|i| format!(" a{i}='x'")).collect();
    assert_eq!(verdict(&format!("<a{attributes}/>")), Ok(()));
    assert_eq!(
        verdict(&format!("<a{attributes} a57='y'/>")),
        Err(XmlError::NotWellFormed)
    );
}

#[test]
fn bytes_that_are_not_utf_8_are_refused() {
    for bytes in [
        &b"<a>\xff</a>"[..],
        b"<a>\xc0\xaf</a>",
        b"<a b='\xed\xa0\x80'/>",
    ] {
        assert_eq!(
            StanzaView::parse(bytes, &scope()).map(|_| ()),
            Err(XmlError::BadEncoding)
        );
    }
}

#[test]
fn a_stream_header_says_whom_it_is_for_and_what_it_declares() {
    let header = StreamHeader::parse(
        b"<?xml version='1.0'?>\n<s:stream xmlns:s='http://etherx.jabber.org/streams' id='i&amp;'
        xmlns='jabber:server' xmlns:db='jabber:server:dialback' from='a' to='b' version='1.0'>",
    );
    let header = header.expect("a header");
    assert!(header.stream_ns_ok);
    assert_eq!(header.content, Ns::Server);
    assert_eq!(
        (header.to.as_deref(), header.from.as_deref()),
        (Some("b"), Some("a"))
    );
    assert_eq!(
        (header.id.as_deref(), header.version),
        (Some("i&"), Some((1, 0)))
    );
    let prefixes: Vec<_> = header
        .scope
        .prefixes()
        .iter()
        .map(|p| (&*p.name, &*p.uri))
        .collect();
    let expected = [
        ("s", "http://etherx.jabber.org/streams"),
        ("db", "jabber:server:dialback"),
    ];
    assert_eq!(prefixes, expected);
    assert!(header.scope.closes(b"</s:stream>") && header.scope.closes(b"</s:stream \n>"));
    assert!(!header.scope.closes(b"</stream:stream>") && !header.scope.closes(b"</s:streams>"));
}

#[test]
fn the_content_namespace_may_have_a_prefix() {
    let header = StreamHeader::parse(
        b"<stream xmlns='http://etherx.jabber.org/streams' xmlns:c='jabber:client'>",
    );
    let header = header.expect("a header");
    assert!(header.stream_ns_ok);
    assert_eq!((header.content, header.version), (Ns::Client, None));
}

#[test]
fn headers_that_are_none_are_told() {
    let parse = |text: &str| StreamHeader::parse(text.as_bytes());
    assert!(
        !parse("<stream:stream xmlns:stream='urn:x'>")
            .expect("well-formed")
            .stream_ns_ok
    );
    assert!(
        !parse("<stream xmlns='jabber:client'>")
            .expect("well-formed")
            .stream_ns_ok
    );
    for version in ["1", "1.x", ".", "1.", ".0", "1.0.0", "", "-1.0", "1.99999x"] {
        let header = parse(&format!("<a version='{version}'>")).expect("well-formed");
        assert_eq!(header.version, None, "{version}");
    }
    // RFC 6120 4.7.5: a number has as many digits as it likes.
    let long = "9".repeat(1000);
    let zeros = "0".repeat(1000);
    for (version, expected) in [
        ("01.10", (1, 10)),
        ("65535.65535", (u16::MAX, u16::MAX)),
        ("65536.0", (u16::MAX, 0)),
        ("99999.0", (u16::MAX, 0)),
        ("1.99999", (1, u16::MAX)),
        (&format!("{long}.{long}"), (u16::MAX, u16::MAX)),
        (&format!("{zeros}1.{zeros}"), (1, 0)),
    ] {
        let header = parse(&format!("<a version='{version}'>")).expect("well-formed");
        assert_eq!(header.version, Some(expected), "{version}");
    }
    assert_eq!(
        parse("<stream:stream>").map(|_| ()),
        Err(XmlError::NotWellFormed)
    );
    assert_eq!(
        parse("<a b='1' b='2'>").map(|_| ()),
        Err(XmlError::NotWellFormed)
    );
    let many: String = (0..65).map(|i| format!(" xmlns:p{i}='u'")).collect();
    assert_eq!(
        parse(&format!("<a{many}>")).map(|_| ()),
        Err(XmlError::TooManyNamespaces)
    );
}

#[test]
fn a_header_hands_on_a_kilobyte_at_most() {
    let parse = |text: String| StreamHeader::parse(text.as_bytes()).map(|_| ());
    let fixed = "jabber:client".len() + "s".len() + Ns::Streams.as_str().len();
    let spare = SCOPE_SIZE_MAX - fixed;
    let header = |more: &str| {
        format!(
            "<s:stream xmlns='jabber:client' id='{}' \
             xmlns:s='http://etherx.jabber.org/streams'{more}>",
            // What ends with the header may be longer.
            "i".repeat(2 * SCOPE_SIZE_MAX)
        )
    };
    for (name, size) in [("xml:lang", spare), ("xmlns:p", spare - 1)] {
        for (size, is_refused) in [(size, false), (size + 1, true)] {
            let expected = is_refused.then_some(XmlError::TooBig);
            let more = format!(" {name}='{}'", "v".repeat(size));
            assert_eq!(parse(header(&more)).err(), expected, "{name} {size}");
        }
    }
    let default = "d".repeat(SCOPE_SIZE_MAX + 1);
    let default = parse(format!("<s:stream xmlns='{default}' xmlns:s='s'>"));
    assert_eq!(default, Err(XmlError::TooBig));
}
