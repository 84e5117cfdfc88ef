//! Tests of `[[external_service]]`.

use super::{ExternalService, good, refusal};
use xmpp::xep::external_services::{Access, EXTERNAL_SERVICES_MAX};

fn service(kind: &str, host: &str, at: Option<(u16, &str)>, access: Access) -> ExternalService {
    ExternalService {
        kind: kind.into(),
        host: host.into(),
        port: at.map(|(port, _)| port),
        transport: at.map(|(_, transport)| transport.into()),
        access,
    }
}

#[test]
fn every_key_is_understood() {
    let settings = good(
        r#"
        domain = "example.org"
        [[external_service]]
        type = "turn"
        host = "Relay.example.org"
        port = 3479
        transport = "tcp"
        secret = "north"
        lifetime_s = 600
        [[external_service]]
        type = "files"
        host = "2001:DB8::1"
        username = "guest"
        password = "guest"
        "#,
    );
    let secret = Access::TimeLimited {
        secret: "north".into(),
        lifetime_s: 600,
    };
    let fixed = Access::Fixed {
        username: "guest".into(),
        password: "guest".into(),
    };
    assert_eq!(
        settings.external_services,
        [
            service("turn", "relay.example.org", Some((3_479, "tcp")), secret),
            service("files", "2001:db8::1", None, fixed),
        ]
    );
}

#[test]
fn they_have_the_ports_and_transports_that_are_usual_for_their_types() {
    let services = |text: &str| good(&format!("domain = \"a.b\"\n{text}")).external_services;
    let usual = |kind: &str| {
        services(&format!(
            "external_service = [{{type = {kind:?}, host = \"c.d\"}}]"
        ))
    };
    for kind in ["stun", "turn"] {
        assert_eq!(
            usual(kind),
            [service(kind, "c.d", Some((3_478, "udp")), Access::Open)]
        );
    }
    for kind in ["stuns", "turns"] {
        assert_eq!(
            usual(kind),
            [service(kind, "c.d", Some((5_349, "tcp")), Access::Open)]
        );
    }
    assert_eq!(usual("ftp"), [service("ftp", "c.d", None, Access::Open)]);
}

/// What follows on the second line's table, which line is blamed, and for what.
const SENSELESS: &[(&str, u32, &str)] = &[
    (
        "secret = \"s\"\nusername = \"u\"",
        2,
        "has a secret, from which",
    ),
    (
        "username = \"u\"",
        2,
        "has one of username and password; set both",
    ),
    (
        "password = \"p\"",
        2,
        "has one of username and password; set both",
    ),
    ("lifetime_s = 60", 2, "has a lifetime_s, but no secret"),
    (
        "[[external_service]]\nhost = \"a.b\"",
        5,
        "has no type; add a line like",
    ),
    (
        "[[external_service]]\ntype = \"turn\"",
        5,
        "has no host; add a line like",
    ),
    (
        "[[external_service]]\ntype = \"turn\"\nhost = \"A.B\"\nsecret = \"s\"",
        5,
        "this external_service stands here twice; remove one of the two",
    ),
    (
        "secret = \"\"",
        5,
        "`secret` cannot be used as it is; write",
    ),
    (
        "secret = \"a\\u0000\"",
        5,
        "`secret` cannot be used as it is; write",
    ),
    (
        "secret = 7",
        5,
        "`secret` must be text in quotes, not integer `7`",
    ),
    (
        "port = 0",
        5,
        "`port` must be a whole number from 1 to 65535",
    ),
    (
        "lifetime_s = 59",
        5,
        "`lifetime_s` must be a whole number from 60 to 604800",
    ),
    (
        "transport = \"sctp\"",
        5,
        "`transport` is unknown (\"sctp\"); write \"udp\" or",
    ),
    (
        "secrets = \"s\"",
        5,
        "unknown key `secrets`; did you mean `secret`?",
    ),
    (
        "[[external_service]]\ntype = \"a b\"",
        6,
        "`type` is no type of a service (\"a b\")",
    ),
    (
        "[[external_service]]\nhost = \"[::1]\"",
        6,
        "is neither a domain nor an IP address",
    ),
    (
        "[[external_service]]\nhost = \"a@b\"",
        6,
        "is neither a domain nor an IP address",
    ),
];

#[test]
fn those_that_make_no_sense_are_refused_with_their_line() {
    let begun = "domain = \"a.b\"\n[[external_service]]\ntype = \"turn\"\nhost = \"a.b\"\n";
    for (text, line, part) in SENSELESS {
        let sentence = refusal(&format!("{begun}{text}"));
        let place = format!("vorpal.toml:{line}: ");
        assert!(
            sentence.starts_with(&place) && sentence.contains(part),
            "{text:?}: {sentence}"
        );
    }
    let one = refusal("domain = \"a.b\"\n[external_service]\ntype = \"turn\"");
    assert!(
        one.starts_with("vorpal.toml:2: ") && one.contains("`[[` and `]]`"),
        "{one}"
    );
}

#[test]
fn there_are_so_many_at_most() {
    let many = |count: usize| {
        let table = |n| format!("\n[[external_service]]\ntype = \"stun\"\nhost = \"h{n}\"");
        "domain = \"a.b\"".to_owned() + &(0..count).map(table).collect::<String>()
    };
    let all = good(&many(EXTERNAL_SERVICES_MAX)).external_services;
    assert_eq!(all.len(), EXTERNAL_SERVICES_MAX);
    let more = refusal(&many(EXTERNAL_SERVICES_MAX + 1));
    assert!(
        more.starts_with("vorpal.toml:98: this external_service is one too many; "),
        "{more}"
    );
}
