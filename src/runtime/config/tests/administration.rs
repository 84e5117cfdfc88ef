//! Tests of `[admin]` and `[outage]`.

use super::{good, refusal};

#[test]
fn administrators_are_accounts_of_the_domain_and_nobody_is_one_unless_named() {
    let settings = |text: &str| good(&format!("domain = \"a.b\"\n{text}")).settings();
    assert!(settings("").admins.is_empty());
    assert!(settings("[admin]\njids = []").admins.is_empty());
    let admins = settings("admin.jids = [\"Romeo@A.b\", \"juliet@a.b\", \"romeo@a.b\"]").admins;
    let admins: Vec<&str> = admins.iter().map(|admin| admin.as_str()).collect();
    assert_eq!(admins, ["juliet@a.b", "romeo@a.b"]);
    for (jids, what) in [
        ("[\"romeo\"]", "has what is no account (\"romeo\")"),
        ("[\"romeo@a.b/x\"]", "has what is no account"),
        ("[\"romeo@c.d\"]", "has romeo@c.d, which is no account here"),
        ("\"romeo@a.b\"", "a list like [\"juliet@example.org\"]"),
        ("[7]", "a JID in quotes"),
    ] {
        let sentence = refusal(&format!("domain = \"a.b\"\n[admin]\njids = {jids}"));
        assert!(sentence.starts_with("vorpal.toml:3: "), "{sentence}");
        assert!(sentence.contains(what), "{sentence}");
    }
}

#[test]
fn where_outages_are_told_of_is_on_the_web() {
    let settings = |text: &str| good(&format!("domain = \"a.b\"\n{text}")).settings();
    assert!(settings("").status_addresses.is_empty());
    let urls =
        settings("outage.urls = [\"https://s.c/a.json?b&c\", \"http://d/\"]").status_addresses;
    let urls: Vec<&str> = urls.iter().map(|url| &**url).collect();
    assert_eq!(urls, ["https://s.c/a.json?b&c", "http://d/"]);
    for url in [
        "status.c",
        "https://",
        "ftp://s.c/a",
        "https://s.c/ a",
        "mailto:a@b",
    ] {
        let sentence = refusal(&format!("domain = \"a.b\"\n[outage]\nurls = [{url:?}]"));
        assert!(sentence.starts_with("vorpal.toml:3: "), "{sentence}");
        assert!(sentence.contains("no address on the web"), "{sentence}");
    }
}
