//! What a list of blocked addresses is made of.

use super::*;
use crate::presence::resources_barred;
use stanza::scope::StreamScope;

/// How many addresses a request names, where it names this many, and the first one twice.
fn count_named(command: &str, count: usize) -> Result<usize, StanzaError> {
    let items: String = (0..count)
        .chain([0])
        .map(|index| format!("<item jid='{index}.example'/>"))
        .collect();
    let text = format!("<{command} xmlns='urn:xmpp:blocking'>{items}</{command}>");
    let scope = StreamScope::client();
    let tree = Tree::parse(text.as_bytes(), &scope).unwrap();
    named_in(tree.root()).map(|(named, _)| named.len())
}

#[test]
fn a_request_names_so_many_addresses_and_no_more() {
    for command in ["block", "unblock"] {
        assert_eq!(count_named(command, BLOCKED_MAX), Ok(BLOCKED_MAX));
        let refused = Err(StanzaError::ResourceConstraint);
        assert_eq!(count_named(command, BLOCKED_MAX + 1), refused);
    }
}

#[test]
fn a_block_means_the_address_and_what_lies_under_it() {
    let jids = ["a@x.example", "b@x.example/r", "y.example", "z.example/r"];
    let list = BlockList::new(jids.map(Box::from).to_vec());
    for blocked in [
        "a@x.example",
        "a@x.example/any",
        "b@x.example/r",
        "c@y.example/q",
        "c@z.example/r",
    ] {
        assert!(blocks(&list, &Jid::parse(blocked).unwrap()), "{blocked}");
    }
    for free in [
        "b@x.example",
        "b@x.example/s",
        "x.example",
        "c@z.example",
        "z.example/s",
    ] {
        assert!(!blocks(&list, &Jid::parse(free).unwrap()), "{free}");
    }
    for (contact, expected) in [
        ("b@x.example", &["r"][..]),
        ("c@z.example", &["r"]),
        ("z.example", &["r"]),
        ("a@x.example", &[]),
    ] {
        let barred: Vec<&str> = resources_barred(&list, contact).collect();
        assert_eq!(barred, expected);
    }
}

#[test]
fn a_list_keeps_its_order_and_has_nobody_twice() {
    let named = |jids: &[&str]| -> Vec<Box<str>> { jids.iter().map(|jid| (*jid).into()).collect() };
    let steps = [
        (Command::Block, named(&["z@y/r", "y", "z@y"])),
        (Command::Block, named(&["y/r", "z@y", "a@y"])),
        (Command::Unblock, named(&["y", "z@y/r", "b@y"])),
        (Command::Block, named(&["y"])),
    ];
    let none = BlockList::default();
    let mut draft = Draft::of(&none);
    for (command, named) in &steps {
        assert_eq!(draft.apply(*command, named), Ok(()));
    }
    let list = draft.finish();
    assert_eq!(list.jids(), named(&["z@y", "y/r", "a@y", "y"]));
    let mut draft = Draft::of(&list);
    assert_eq!(draft.size, list.size());
    assert_eq!(draft.apply(Command::Unblock, &[]), Ok(()));
    assert!(draft.size == 0 && draft.finish().is_empty());
}
