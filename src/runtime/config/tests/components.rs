//! Tests of `[component."domain"]` and of where components connect.

use super::{good, refusal};
use xmpp::xep::components::{COMPONENTS_MAX, Component};

const SECRET: &str = "secret = \"north by northwest\"";

#[test]
fn components_have_domains_secrets_and_somewhere_to_connect() {
    let config = good(&format!(
        "domain = \"example.org\"\n[listen]\ncomponent = [\"127.0.0.1:5347\", \"[::1]:5347\"]\n\
         [component.\"IRC.example.org\"]\n{SECRET}\n[component.\"b\u{fc}cher.example\"]\n{SECRET}\n"
    ));
    assert_eq!(config.component.len(), 2);
    let component = |domain: &str| Component {
        domain: domain.into(),
        secret: "north by northwest".into(),
    };
    let expected = [
        component("irc.example.org"),
        component("xn--bcher-kva.example"),
    ];
    assert_eq!(config.settings().components, expected);
    let none = good("domain = \"example.org\"\n[listen]\ncomponent = []\n");
    assert!(none.component.is_empty() && none.settings().components.is_empty());
}

/// What follows on the line of the domain, which line is blamed, and for what.
const SENSELESS: &[(&str, u32, &str)] = &[
    (
        "listen.component = \"127.0.0.1:5347\"",
        2,
        "no component is configured; add a table",
    ),
    (
        "[component.\"irc.example.org\"]\nsecret = \"north by northwest\"",
        2,
        "component \"irc.example.org\" could not connect, because listen.component",
    ),
    (
        "[listen]\ncomponent = \"127.0.0.1:5347\"\n[component.\"irc.example.org\"]",
        4,
        "has no secret; add a line",
    ),
    (
        "[listen]\ncomponent = \"127.0.0.1:5347\"\n[component.\"irc.example.org\"]\nsecret = \"\"",
        5,
        "`secret` has 0 bytes; write 12 to 256",
    ),
    (
        "[listen]\ncomponent = \"127.0.0.1:5347\"\n[component.\"irc.example.org\"]\nsecret = \"x\"",
        5,
        "`secret` has 1 bytes; write 12 to 256",
    ),
    (
        "[listen]\ncomponent = \"127.0.0.1:5347\"\n[component.\"Example.org\"]\n\
         secret = \"north by northwest\"",
        4,
        "is the domain of the server; give",
    ),
    (
        "[listen]\ncomponent = \"127.0.0.1:5347\"\n[component.\"a@b.c\"]\n\
         secret = \"north by northwest\"",
        4,
        "component \"a@b.c\" is not a domain; write",
    ),
    (
        "[listen]\ncomponent = \"127.0.0.1:5347\"\n[component.\"A.b\"]\n\
         secret = \"north by northwest\"\n[component.\"a.b\"]\nsecret = \"north by northwest\"",
        6,
        "stands here twice",
    ),
    (
        "[listen]\ncomponent = \"127.0.0.1:5347\"\n[component.\"a.b\"]\nsecrets = \"x\"",
        5,
        "unknown key `secrets`; did you mean `secret`?",
    ),
    (
        "[listen]\nc2s = []\nc2s_tls = []\ncomponent = \"127.0.0.1:5347\"\n[component.\"a.b\"]\n\
         secret = \"north by northwest\"",
        3,
        "nobody could connect",
    ),
    (
        "[listen]\ncomponent = \"127.0.0.1:5222\"\n[component.\"a.b\"]\n\
         secret = \"north by northwest\"",
        3,
        "cover each other; keep the one",
    ),
];

#[test]
fn what_makes_no_sense_is_refused_with_its_line_and_a_remedy() {
    for (text, line, said) in SENSELESS {
        let sentence = refusal(&format!("domain = \"example.org\"\n{text}\n"));
        let place = format!("vorpal.toml:{line}: ");
        assert!(
            sentence.starts_with(&place) && sentence.contains(said),
            "{text}: {sentence}"
        );
    }
}

#[test]
fn there_may_be_so_many_and_no_more() {
    let with = |count: usize| {
        let tables = (0..count).map(|n| format!("[component.\"c{n}.example.org\"]\n{SECRET}\n"));
        let tables: String = tables.collect();
        format!("domain = \"example.org\"\n[listen]\ncomponent = \"127.0.0.1:5347\"\n{tables}")
    };
    assert_eq!(good(&with(COMPONENTS_MAX)).components.len(), COMPONENTS_MAX);
    assert!(refusal(&with(COMPONENTS_MAX + 1)).contains("is one too many; keep 64"));
}
