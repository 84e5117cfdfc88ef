//! `[web]` and the ports that it is for.

use super::{good, refusal};

fn site(lines: &str) -> crate::transport::http::Site {
    good(&format!("domain = \"a.b\"\n{lines}")).site
}

#[test]
fn nothing_is_served_to_the_web_unless_it_is_asked_for() {
    let config = good("domain = \"a.b\"");
    assert!(config.http.is_empty() && config.https.is_empty());
    let site = config.site;
    assert_eq!((site.origins, site.authority), (None, None));
    assert!(site.trusted_proxies.is_empty() && site.must_secure);
    assert!(!self::site("[tls]\nrequired = false").must_secure);
}

#[test]
fn where_the_websocket_is_follows_from_the_first_port_with_tls_unless_it_is_said() {
    let url = |lines: &str| site(lines).websocket_url().unwrap_or_default();
    assert_eq!(url("[listen]\nhttp = \"0.0.0.0:80\""), "");
    let https = "[listen]\nhttps = [\"0.0.0.0:443\", \"[::]:5281\"]\n";
    assert_eq!(url(https), "wss://a.b/xmpp-websocket");
    assert_eq!(
        url("[listen]\nhttps = \"0.0.0.0:5281\""),
        "wss://a.b:5281/xmpp-websocket"
    );
    let said = |url: &str| format!("{https}[web]\nurl = {url:?}");
    assert_eq!(url(&said("https://c.d:1/")), "wss://c.d:1/xmpp-websocket");
}

#[test]
fn origins_and_proxies_are_lists() {
    let site = site(
        "[web]\norigins = [\"https://c.d\", \"null\"]\n\
         trusted_proxies = [\"::ffff:10.0.0.1\", \"::1\"]",
    );
    let origins = site.origins.expect("some");
    assert_eq!(
        origins,
        ["https://c.d".into(), "null".into()] as [Box<str>; 2]
    );
    let proxies: Vec<String> = site
        .trusted_proxies
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(proxies, ["10.0.0.1", "::1"]);
    for all in ["[]", "[\"*\"]", "[\"https://c.d\", \"*\"]"] {
        assert_eq!(self::site(&format!("[web]\norigins = {all}")).origins, None);
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_its_line() {
    for (line, expected) in [
        (
            "url = \"wss://c.d\"",
            "`url` is no URL of HTTPS without a path (\"wss://c.d\"); write it like \
             \"https://chat.example.org\"",
        ),
        (
            "url = \"http://c.d\"",
            "`url` is no URL of HTTPS without a path (\"http://c.d\"); write it like \
             \"https://chat.example.org\"",
        ),
        (
            "url = \"https://c.d/path\"",
            "`url` is no URL of HTTPS without a path (\"https://c.d/path\"); write it like \
             \"https://chat.example.org\"",
        ),
        (
            "origins = [\"c.d\"]",
            "`origins` has what is no origin (\"c.d\"); write it like \
             \"https://chat.example.org\", without a path",
        ),
        (
            "trusted_proxies = [\"10.0.0.0/8\"]",
            "`trusted_proxies` has what is no address (\"10.0.0.0/8\"); write it like \
             \"127.0.0.1\"",
        ),
    ] {
        let refused = refusal(&format!("domain = \"a.b\"\n[web]\n{line}"));
        assert_eq!(refused, format!("vorpal.toml:3: {expected}"));
    }
    let both = refusal("domain = \"a.b\"\n[listen]\nhttp = \"[::1]:1\"\nhttps = \"[::1]:1\"");
    assert_eq!(
        both,
        "vorpal.toml:4: http and https both have [::1]:1; give one another port"
    );
}

#[test]
fn a_port_in_clear_that_nobody_can_use_is_warned_of() {
    let warnings = |more: &str| {
        let text = format!("domain = \"a.b\"\n[listen]\nhttp = \"[::1]:80\"\n{more}");
        good(&text).warnings()
    };
    let one = warnings("");
    assert_eq!(one.len(), 1, "{one:?}");
    assert!(
        one[0].contains("vorpal.toml:3: nobody can log in over listen.http"),
        "{one:?}"
    );
    assert!(warnings("[tls]\nrequired = false").is_empty());
    assert!(warnings("[web]\ntrusted_proxies = [\"::1\"]").is_empty());
}
