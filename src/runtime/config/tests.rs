//! Tests of the configuration: what is understood, and how the rest is refused.

use super::file::{RANGES, limit};
use super::*;
use tracing_subscriber::filter::LevelFilter;
use xmpp::settings::{ArchivePolicy, Durability};
use xmpp::xep::push::ShownBody;

mod administration;
mod components;
mod services;
mod upload;
mod web;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/etc/vorpal/vorpal.toml"), text)
}

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|error| panic!("refused: {error}"))
}

/// The sentence that refuses this, without the directory.
fn refusal(text: &str) -> String {
    let error = parse(text).expect_err("it makes no sense").to_string();
    let sentence = error
        .strip_prefix("/etc/vorpal/")
        .expect("the file comes first")
        .to_owned();
    assert!(!sentence.contains('\n'), "{sentence}");
    assert!(sentence.contains("; "), "no remedy: {sentence}");
    sentence
}

#[test]
fn one_line_is_a_server_with_everything_at_its_default() {
    let config = good("domain = \"Example.ORG\"");
    assert_eq!(&*config.domain, "example.org");
    assert_eq!(config.data, Path::new("/etc/vorpal/data"));
    assert_eq!(config.log, Log::default());
    assert_eq!(
        config.c2s,
        ["0.0.0.0:5222".parse::<SocketAddr>().expect("an address")]
    );
    assert_eq!(
        config.c2s_tls,
        ["0.0.0.0:5223".parse::<SocketAddr>().expect("an address")]
    );
    assert_eq!((config.shards, config.certificate.clone()), (None, None));
    let settings = config.settings();
    assert!(settings.shards >= 1);
    assert!(settings.tls_required && settings.tls_available);
    assert!(!settings.plain_without_tls && !settings.anonymous && !settings.registration_open);
    assert_eq!(settings.mechanisms, Settings::mechanisms_default());
    assert_eq!(settings.durability, Durability::Full);
    assert_eq!(settings.push, None);
    assert!(!settings.archives());
    assert_eq!(settings.retention, ArchivePolicy::default());
    assert_eq!(settings.contacts, []);
    assert_eq!(
        settings.limits.stanza_size_max,
        Limits::default().stanza_size_max
    );
}

#[test]
fn devices_are_notified_where_that_is_turned_on() {
    let push = |keys: &str| good(&format!("domain = \"a.b\"\n[push]\n{keys}")).push;
    assert_eq!(push("sender = true"), None);
    assert_eq!(push("enabled = true"), Some(PushPolicy::default()));
    let all = "enabled = true\nsender = true\nbody = \"notice\"\nregistrations_max = 3";
    let expected = PushPolicy {
        registrations_max: 3,
        shows_sender: true,
        body: ShownBody::Notice,
    };
    assert_eq!(push(all), Some(expected));
}

#[test]
fn every_key_is_understood() {
    let config = good(
        r#"
        domain = "example.org"
        data = "/var/lib/vorpal"
        shards = 3
        idle_spin_us = 50
        log = "json:debug"
        [listen]
        c2s = ["127.0.0.1:15222", "[::1]:15222"]
        c2s_tls = []
        [tls]
        cert = "chain.pem"
        key = "/etc/ssl/key.pem"
        required = false
        [auth]
        mechanisms = ["PLAIN", "scram-sha-256"]
        plain_without_tls = true
        anonymous = true
        [limits]
        stanza_size_max = 100_000
        output_max = 200_000
        connections_per_address_max = 5
        connections_max = 6
        [registration]
        open = true
        [durability]
        mode = "archive"
        [archive]
        enabled = true
        [contact]
        abuse = ["mailto:abuse@example.org"]
        admin = []
        support = ["xmpp:help@example.org", "https://example.org/help"]
        "#,
    );
    assert_eq!(config.data, Path::new("/var/lib/vorpal"));
    assert_eq!(
        (config.log.level, config.log.json),
        (LevelFilter::DEBUG, true)
    );
    assert_eq!((config.c2s.len(), config.c2s_tls.len()), (2, 0));
    let chain = PathBuf::from("/etc/vorpal/chain.pem");
    assert_eq!(
        config.certificate,
        Some((chain, PathBuf::from("/etc/ssl/key.pem")))
    );
    assert_eq!(config.output_max, 200_000);
    assert_eq!(
        (config.connections_per_address_max, config.connections_max),
        (5, 6)
    );
    assert_eq!(config.idle_spin, Duration::from_micros(50));
    let settings = config.settings();
    assert_eq!(settings.shards, 3);
    assert_eq!(settings.limits.stanza_size_max, 100_000);
    assert!(settings.anonymous && settings.registration_open && settings.plain_without_tls);
    assert!(!settings.tls_required);
    assert_eq!(settings.durability, Durability::Archive);
    assert!(settings.archives());
    let contacts: Vec<(&str, usize)> = settings
        .contacts
        .iter()
        .map(|(kind, list)| (&**kind, list.len()))
        .collect();
    assert_eq!(contacts, [("abuse", 1), ("support", 2)]);
    let names: Vec<_> = settings.mechanisms.iter().map(|one| one.as_str()).collect();
    assert_eq!(names, ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN"]);
}

#[test]
fn what_archives_keep_is_configured() {
    let config = "domain = \"a.example\"\n[archive]\nkeep_days = 30\nmessages_max = 7";
    let kept = good(config).settings().retention;
    assert_eq!((kept.keep_s, kept.messages_max), (30 * 86_400, 7));
    // What is archived goes only where somebody said so.
    let unsaid = good("domain = \"a.example\"").settings().retention;
    assert_eq!((unsaid.keep_s, unsaid.messages_max), (0, 0));
    let on = good("domain = \"a.example\"\n[archive]\nenabled = true").settings();
    assert!(on.archives());
}

#[test]
fn what_is_kept_of_clients_is_configured() {
    let config = good(
        r#"
        domain = "example.org"
        [auth]
        token_days = 7
        token_rotation_hours = 12
        client_days = 3650
        client_names = false
        "#,
    );
    let agents = AgentPolicy {
        token_s: 7 * 86_400,
        rotation_s: 12 * 3_600,
        forget_s: 3_650 * 86_400,
        keeps_names: false,
    };
    assert_eq!((config.agents, config.settings().agents), (agents, agents));
    let config = good("domain = \"example.org\"\n[auth]\ntoken_days = 1");
    assert_eq!(config.agents.rotation_s, 12 * 3_600);
    let config = good("domain = \"example.org\"");
    assert_eq!(config.agents, AgentPolicy::default());
}

#[test]
fn every_limit_takes_both_ends_of_its_range_and_nothing_beyond() {
    for (name, low, high) in RANGES {
        for value in [low, high] {
            let output = "output_max = 1_000_000_000";
            let text = format!("domain = \"a.b\"\n[limits]\n{output}\n{name} = {value}");
            assert_eq!(limit(&good(&text).limits, name), *value, "{name}");
        }
        let text = format!("domain = \"a.b\"\n[limits]\n{name} = {}", high + 1);
        let expected = format!(
            "vorpal.toml:3: `{name}` must be a whole number from {low} to {high}, not integer \
             `{}`; correct it, or remove the line to have the default",
            high + 1
        );
        assert_eq!(refusal(&text), expected);
    }
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    assert_eq!(
        refusal("domain = \"a.b\"\nshard = 2"),
        "vorpal.toml:2: unknown key `shard`; did you mean `shards`?"
    );
    assert_eq!(
        refusal("domain = \"a.b\"\n\n[listn]\nc2s = \"0.0.0.0:1\""),
        "vorpal.toml:3: unknown key `listn`; did you mean `listen`?"
    );
    assert_eq!(
        refusal("domain = \"a.b\"\nfoo = 1"),
        "vorpal.toml:2: unknown key `foo`; known here are domain, data, shards, idle_spin_us, \
         log, listen, tls, auth, limits, registration, durability, archive, contact, \
         external_service, web, upload, push, component, admin, outage"
    );
    assert_eq!(
        refusal("domain = \"a.b\"\n[tls]\nchain = \"x\""),
        "vorpal.toml:3: unknown key `chain`; known here are cert, key, required"
    );
    assert_eq!(
        refusal("domain = \"a.b\"\n[limits]\nstanza_size = 20000"),
        "vorpal.toml:3: unknown key `stanza_size`; known here are output_max, \
         connections_per_address_max, connections_max, stanza_size_before_auth_max, \
         stanza_size_max, depth_max, attributes_max, namespaces_max, auth_ms_max, \
         whitespace_before_auth_max, resources_max, roster_items_max, auth_tries_max, \
         directed_max, offline_max, nodes_max, node_items_max, item_size_max, items_size_max, \
         registrations_per_hour_max, auth_failures_per_minute_max"
    );
    assert_eq!(
        refusal("domain = \"a.b\"\n[registration]\nopened = true"),
        "vorpal.toml:3: unknown key `opened`; did you mean `open`?"
    );
}

#[test]
fn what_waits_for_an_account_fits_what_may_wait_for_a_connection() {
    let size = |limits: &str| {
        let text = format!("domain = \"a.b\"\n[limits]\n{limits}");
        good(&text).settings().limits.offline_size_max
    };
    assert_eq!(size(""), xmpp::limit::OFFLINE_SIZE_MAX);
    assert_eq!(size("output_max = 262144"), 4 * 262_144);
}

#[test]
fn bad_values_are_refused_with_their_line_and_a_remedy() {
    let default = "correct it, or remove the line to have the default";
    for (text, expected) in [
        (
            "[tls]\nrequired = \"yes\"",
            "2: `required` must be true or false, not string \"yes\"",
        ),
        (
            "shards = 0",
            "1: `shards` must be a whole number from 1 to 4096, not integer `0`",
        ),
        (
            "shards = \"2\"",
            "1: `shards` must be a whole number from 1 to 4096, not string \"2\"",
        ),
        (
            "data = 7",
            "1: `data` must be text in quotes, not integer `7`",
        ),
        (
            "log = true",
            "1: `log` must be a level in quotes, not boolean `true`",
        ),
        (
            "[auth]\nmechanisms = \"PLAIN\"",
            "2: `mechanisms` must be a list like [\"SCRAM-SHA-256\", \"PLAIN\"], not string \
             \"PLAIN\"",
        ),
        (
            "[contact]\nadmin = \"mailto:a@example.org\"",
            "2: `admin` must be a list like [\"mailto:admin@example.org\"], not string \
             \"mailto:a@example.org\"",
        ),
        (
            "[listen]\nc2s = 5222",
            "2: `c2s` must be an address with a port like \"0.0.0.0:5222\", or a list like \
             [\"[::]:5222\"], not integer `5222`",
        ),
        (
            "listen = 1",
            "1: `listen` must be the section [listen], not integer `1`",
        ),
    ] {
        let sentence = refusal(&format!("{text}\n"));
        assert_eq!(sentence, format!("vorpal.toml:{expected}; {default}"));
    }
}

#[test]
fn a_domain_of_another_type_is_not_to_be_left_to_a_default() {
    assert_eq!(
        refusal("domain = 5"),
        "vorpal.toml:1: `domain` must be a domain in quotes, not integer `5`; write it like \
         `domain = \"example.org\"`"
    );
}

#[test]
fn what_has_no_effect_is_warned_of() {
    let warnings = |text: &str| good(&format!("domain = \"a.b\"\n{text}")).warnings();
    assert_eq!(
        warnings("[auth]\nplain_without_tls = true"),
        [
            "/etc/vorpal/vorpal.toml:3: auth.plain_without_tls has no effect, because clients \
             must use TLS; set tls.required to false, or remove it"
        ]
    );
    let none: [&str; 0] = [];
    assert_eq!(
        warnings("[tls]\nrequired = false\n[auth]\nplain_without_tls = true"),
        none
    );
    assert_eq!(warnings("[auth]\nplain_without_tls = false"), none);
}

#[test]
fn values_that_check_themselves_say_what_to_write_instead() {
    for (text, line, part) in [
        (
            "domain = \"a@b\"",
            1,
            "is not a domain (\"a@b\"); write it like \"example.org\"",
        ),
        ("domain = \"\"", 1, "is not a domain"),
        (
            "log = \"loud\"",
            1,
            "`log` is no level (\"loud\"); write \"off\"",
        ),
        (
            "[listen]\nc2s = \"5222\"",
            2,
            "`c2s` is no address with a port (\"5222\"); write it",
        ),
        (
            "[listen]\n\nc2s = [\"x:y\"]",
            3,
            "is no address with a port",
        ),
        (
            "[durability]\nmode = \"fast\"",
            2,
            "`mode` is no mode (\"fast\"); write \"full\", \"archive\" or \"memory\"",
        ),
        (
            "[push]\nbody = \"all\"",
            2,
            "`body` is nothing that could be shown (\"all\"); write \"none\", \"notice\" or",
        ),
        (
            "[contact]\nadmin = [\"admin@example.org\"]",
            2,
            "`admin` has what is no URI of a contact (\"admin@example.org\"); write it like",
        ),
        (
            "[auth]\nmechanisms = [\"EXTERNAL\"]",
            2,
            "has an unknown mechanism (\"EXTERNAL\")",
        ),
        (
            "[auth]\nmechanisms = [\"ANONYMOUS\"]",
            2,
            "set auth.anonymous to true instead",
        ),
        ("domain = a", 1, "this is not TOML"),
        ("[tls\n", 1, "this is not TOML"),
        ("domain = \"a.b\"\ndomain = \"a.b\"", 2, "each key once"),
    ] {
        let sentence = refusal(text);
        let place = format!("vorpal.toml:{line}: ");
        assert!(
            sentence.starts_with(&place) && sentence.contains(part),
            "{text:?}: {sentence}"
        );
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    assert_eq!(
        refusal("shards = 1"),
        "vorpal.toml: `domain` is missing; begin the file with a line like `domain = \
         \"example.org\"`"
    );
    assert_eq!(
        refusal("domain = \"a.b\"\n[tls]\nrequired = true\nkey = \"k\""),
        "vorpal.toml:4: tls.key stands without tls.cert; set both, or remove it to have a \
         self-signed certificate"
    );
    let cert = refusal("domain = \"a.b\"\ntls.cert = \"c\"");
    assert!(
        cert.starts_with("vorpal.toml:2: tls.cert stands without tls.key"),
        "{cert}"
    );
    let nobody = refusal("domain = \"a.b\"\n[auth]\nmechanisms = []");
    assert!(
        nobody.starts_with("vorpal.toml:3: auth.mechanisms is empty"),
        "{nobody}"
    );
    assert!(good("domain = \"a.b\"\n[auth]\nmechanisms = []\nanonymous = true").anonymous);
    let small = refusal("domain = \"a.b\"\n[limits]\noutput_max = 20_000");
    assert!(
        small.starts_with("vorpal.toml:3: limits.output_max (20000) is below"),
        "{small}"
    );
    let large = refusal("domain = \"a.b\"\n[limits]\nstanza_size_max = 2_000_000");
    assert!(
        large.starts_with("vorpal.toml:3: limits.output_max (1048576)"),
        "{large}"
    );
}

#[test]
fn files_that_cannot_be_read_are_refused_by_name() {
    let none = Config::load(Path::new("/nowhere/vorpal.toml")).expect_err("there is none");
    let sentence = none.to_string();
    assert!(
        sentence.starts_with("/nowhere/vorpal.toml: it cannot be read"),
        "{sentence}"
    );
    assert!(
        sentence.ends_with("; name an existing file of TOML with --config"),
        "{sentence}"
    );
    let directory = Config::load(&std::env::temp_dir()).expect_err("a directory");
    assert!(
        directory
            .to_string()
            .contains("it is no configuration file")
    );
}

#[test]
fn a_line_that_is_not_utf_8_is_named() {
    let path = std::env::temp_dir().join(format!("vorpal-latin-{}.toml", std::process::id()));
    fs::write(&path, b"domain = 'a.example'\n# caf\xe9\n").expect("a file");
    let refusal = Config::load(&path).expect_err("Latin-1").to_string();
    fs::remove_file(&path).expect("the file is there");
    let ends = ":2: this line is not UTF-8; convert the file";
    assert!(refusal.ends_with(ends), "{refusal}");
}

#[test]
fn preparing_makes_what_is_missing_and_keeps_it() {
    let place = std::env::temp_dir().join(format!("vorpal-config-{}", std::process::id()));
    let text = format!("domain = \"example.org\"\ndata = {:?}", place.join("data"));
    let prepare = || good(&text).prepare().expect("it can be served");
    let first = prepare();
    assert!(first.data.is_dir());
    assert!(!first.shards_fixed);
    assert_ne!(first.settings.fake_salt_secret, [0; 32]);
    let certificate = fs::read(first.data.join("tls/example.org.crt")).expect("made");
    let second = prepare();
    assert_eq!(
        second.settings.fake_salt_secret,
        first.settings.fake_salt_secret
    );
    let kept = fs::read(first.data.join("tls/example.org.crt")).expect("kept");
    assert_eq!(kept, certificate);

    fs::write(first.data.join(SALT_SECRET_FILE), b"short").expect("ours");
    let error = good(&text)
        .prepare()
        .expect_err("the secret is damaged")
        .to_string();
    assert!(
        error.contains("salt.secret, but it is not the 32 bytes it was; restore it"),
        "{error}"
    );

    fs::remove_dir_all(&place).expect("ours");
}

#[test]
fn the_manual_names_every_key_and_its_range() {
    let manual = include_str!("../../../docs/CONFIGURATION.md");
    for key in [
        "domain",
        "data",
        "shards",
        "idle_spin_us",
        "log",
        "c2s",
        "c2s_tls",
        "http",
        "https",
        "component",
        "url",
        "origins",
        "trusted_proxies",
        "cert",
        "key",
        "required",
        "mechanisms",
        "plain_without_tls",
        "anonymous",
        "token_days",
        "token_rotation_hours",
        "client_days",
        "client_names",
        "open",
        "output_max",
        "connections_per_address_max",
        "connections_max",
        "type",
        "host",
        "port",
        "transport",
        "secret",
        "lifetime_s",
        "jids",
        "urls",
        "enabled",
        "directory",
        "max_file_size",
        "quota",
        "daily_quota",
        "expire_days",
    ] {
        assert!(manual.contains(&format!("| `{key}` |")), "no row for {key}");
    }
    let defaults = Limits::default();
    for (name, low, high) in RANGES {
        let default = limit(&defaults, name);
        let row = format!("| `{name}` | {low} to {high} | {default} |");
        assert!(manual.contains(&row), "no row like {row}");
    }
    // The examples in it are configurations, the first a whole one.
    let mut examples = manual.split("```toml\n").skip(1);
    let mut example = || examples.next().and_then(|rest| rest.split("```").next());
    good(example().expect("an example"));
    let mut more = 0;
    while let Some(example) = example() {
        good(&format!("domain = \"example.org\"\n{example}"));
        more += 1;
    }
    assert_eq!(more, 7);
}

#[test]
fn listeners_that_nobody_could_reach_are_refused_with_their_line() {
    let none = refusal("domain = \"a.b\"\n[listen]\nc2s = []\nc2s_tls = []");
    assert!(none.starts_with("vorpal.toml:3: "), "{none}");
    assert!(none.contains("nobody could connect"), "{none}");
    let same = refusal("domain = \"a.b\"\n[listen]\nc2s = \"[::1]:1\"\nc2s_tls = \"[::1]:1\"");
    assert!(same.starts_with("vorpal.toml:4: "), "{same}");
    assert!(same.contains("both have [::1]:1"), "{same}");
}

#[test]
fn listeners_that_take_each_others_port_are_refused_with_their_line() {
    let listen = |lines: &str| format!("domain = \"a.b\"\n[listen]\n{lines}");
    for (lines, expected) in [
        (
            "c2s = [\"10.0.0.1:1\", \"10.0.0.2:1\", \"10.0.0.1:1\"]",
            "vorpal.toml:3: c2s has 10.0.0.1:1 twice; remove one of them",
        ),
        (
            "c2s = []\nc2s_tls = [\"[::1]:1\", \"[::1]:1\"]",
            "vorpal.toml:4: c2s_tls has [::1]:1 twice; remove one of them",
        ),
        (
            "c2s = [\"10.0.0.1:1\", \"0.0.0.0:1\"]",
            "vorpal.toml:3: 10.0.0.1:1 in c2s and 0.0.0.0:1 in c2s cover each other; keep the one \
             for all addresses, or give one another port",
        ),
        (
            "c2s = \"[::]:1\"\nc2s_tls = \"[::1]:1\"",
            "vorpal.toml:4: [::]:1 in c2s and [::1]:1 in c2s_tls cover each other; keep the one \
             for all addresses, or give one another port",
        ),
        // The default of the other list is written nowhere.
        (
            "c2s = \"0.0.0.0:5223\"",
            "vorpal.toml:3: c2s and c2s_tls both have 0.0.0.0:5223; give one another port",
        ),
        (
            "c2s = \"[::ffff:10.0.0.1]:1\"",
            "vorpal.toml:3: `c2s` has an address of IPv4 written as one of IPv6 \
             (\"[::ffff:10.0.0.1]:1\"); write \"10.0.0.1:1\"",
        ),
    ] {
        assert_eq!(refusal(&listen(lines)), expected);
    }
    // Port 0 is a free one each time, and the two families do not meet.
    let apart = "c2s = [\"10.0.0.1:0\", \"10.0.0.1:0\", \"0.0.0.0:1\", \"[::]:1\"]";
    assert_eq!(good(&listen(apart)).c2s.len(), 4);
}

/// A directory of one test alone, gone with it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let name = format!("vorpal-config-{}-{name}", std::process::id());
        let place = std::env::temp_dir().join(name);
        fs::create_dir(&place).expect("a directory");
        Place(place)
    }

    /// How this text is refused as a file in the directory, which is left out: by looking, and by
    /// serving, in the same words and without anything made.
    fn refusal(&self, text: &str) -> String {
        let config = Config::parse(&self.0.join("vorpal.toml"), text).expect("it makes sense");
        let files = || fs::read_dir(&self.0).expect("ours").count();
        let before = files();
        let checked = config.check().expect_err("refused").to_string();
        assert_eq!(files(), before, "looking makes nothing");
        let served = config.prepare().expect_err("refused").to_string();
        assert_eq!(checked, served);
        assert!(!served.contains('\n'), "{served}");
        served.replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _best_effort = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_data_directory_that_cannot_be_one_is_refused_before_anything_is_made() {
    let place = Place::new("data");
    fs::write(place.0.join("file"), "").expect("ours");
    std::os::unix::fs::symlink("nowhere", place.0.join("link")).expect("ours");
    let remedy = "let it name a directory that the server's user may write";
    for (data, wrong) in [
        ("file", "file is no directory"),
        ("file/below/it", "file is no directory"),
        ("link", "link is a link to nothing"),
        ("link/below", "link is a link to nothing"),
    ] {
        assert_eq!(
            place.refusal(&format!("domain = \"a.b\"\ndata = {data:?}")),
            format!("vorpal.toml:2: `data` is {data}, but {wrong}; {remedy}")
        );
    }
    for (data, root) in [("/proc/nope", "/proc"), ("/sys/nope/below", "/sys")] {
        let wrong = format!("{root} is the kernel's, which keeps no files");
        assert_eq!(
            place.refusal(&format!("domain = \"a.b\"\ndata = {data:?}")),
            format!("vorpal.toml:2: `data` is {data}, but {wrong}; {remedy}")
        );
    }
    // The default has no line. What lies within must be directories, too.
    fs::create_dir(place.0.join("data")).expect("ours");
    for within in ["store", "tls"] {
        let file = place.0.join("data").join(within);
        fs::write(&file, "").expect("ours");
        assert_eq!(
            place.refusal("domain = \"a.b\""),
            format!("vorpal.toml: `data` is data, but data/{within} is no directory; {remedy}")
        );
        fs::remove_file(&file).expect("ours");
    }
    let config = Config::parse(&place.0.join("vorpal.toml"), "domain = \"a.b\"");
    config.expect("good").check().expect("it can be served");
}

#[test]
fn a_data_directory_that_may_not_be_written_is_refused() {
    let place = Place::new("closed");
    let closed = place.0.join("closed");
    DirBuilder::new().mode(0o500).create(&closed).expect("ours");
    // Root writes everywhere.
    if fs::create_dir(closed.join("probe")).is_ok() {
        return;
    }
    let sentence = place.refusal("domain = \"a.b\"\ndata = \"closed/data\"");
    assert!(
        sentence.starts_with("vorpal.toml:2: `data` is closed/data, but closed cannot be written"),
        "{sentence}"
    );
}

#[test]
fn what_serving_would_find_damaged_in_the_data_directory_is_found_by_looking() {
    let place = Place::new("damaged");
    let data = place.0.join("data");
    fs::create_dir_all(&data).expect("ours");
    fs::write(data.join(SALT_SECRET_FILE), b"short").expect("ours");
    let sentence = place.refusal("domain = \"a.b\"");
    assert!(
        sentence.starts_with("vorpal.toml: `data` has data/salt.secret, but it is not the 32"),
        "{sentence}"
    );
    fs::remove_file(data.join(SALT_SECRET_FILE)).expect("ours");

    let config = Config::parse(&place.0.join("vorpal.toml"), "domain = \"a.b\"");
    config.expect("good").prepare().expect("it can be served");
    fs::write(data.join("tls/a.b.key"), "").expect("ours");
    assert_eq!(
        place.refusal("domain = \"a.b\"\ndata = \"data\""),
        "vorpal.toml:2: `data` has data/tls/a.b.key, but there is no private key in it; let the \
         server's user read it, or remove it to have another one made"
    );
}

#[test]
fn certificates_and_keys_are_refused_with_the_line_that_names_them() {
    let place = Place::new("certificates");
    for domain in ["a.b", "c.d"] {
        let text = format!("domain = {domain:?}\ndata = \".\"");
        let config = Config::parse(&place.0.join("vorpal.toml"), &text).expect("good");
        config.prepare().expect("it can be served");
    }
    fs::write(place.0.join("cut"), "-----BEGIN CERTIFICATE-----\nAAAA").expect("ours");
    let own = |cert: &str, key: &str| {
        place.refusal(&format!(
            "domain = \"a.b\"\n[tls]\ncert = {cert:?}\nkey = {key:?}"
        ))
    };
    let (cert, key) = ("tls/a.b.crt", "tls/a.b.key");
    for (sentence, expected) in [
        (
            own("none", key),
            "3: tls.cert is none, but it cannot be read (",
        ),
        (
            own("tls", key),
            "3: tls.cert is tls, but it is no file of PEM; check the path",
        ),
        (
            own(key, key),
            "3: tls.cert is tls/a.b.key, but there is no certificate in it; set",
        ),
        (
            own("cut", key),
            "3: tls.cert is cut, but the certificate is damaged (",
        ),
        (
            own(cert, "none"),
            "4: tls.key is none, but it cannot be read (",
        ),
        (
            own(cert, "/dev/null"),
            "4: tls.key is /dev/null, but it is no file of PEM; check the",
        ),
        (
            own(cert, cert),
            "4: tls.key is tls/a.b.crt, but there is no private key in it; set",
        ),
        (
            own(cert, "tls/c.d.key"),
            "4: tls.key is tls/c.d.key, but the key does not belong to the certificate in \
             tls/a.b.crt; name the key",
        ),
    ] {
        assert!(
            sentence.starts_with(&format!("vorpal.toml:{expected}")),
            "{sentence}"
        );
    }
    let inline = "domain = \"a.b\"\ntls = { cert = \"none\", key = \"none\" }";
    assert!(
        place
            .refusal(inline)
            .starts_with("vorpal.toml:2: tls.cert is none")
    );
}
