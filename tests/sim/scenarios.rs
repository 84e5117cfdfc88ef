//! Plays every scenario of `tests/scenarios` in simulated worlds of one, two and three shards.

use sim::scenario::{Scenario, Step, parse, play};
use sim::{Faults, Random, World};
use std::path::Path;
use xmpp::Settings;
use xmpp::xep::external_services::{Access, ExternalService};

/// Which worlds: how many shards, and the seed of a rough one; 0 is calm.
const WORLDS: [(u16, u64); 6] = [(1, 0), (2, 0), (3, 0), (1, 1), (2, 2), (3, 3)];

/// What may be configured of services: open, with a time limit, and with fixed credentials.
fn external_services() -> Vec<ExternalService> {
    let service = |kind: &str, host: &str, port, transport: &str, access| ExternalService {
        kind: kind.into(),
        host: host.into(),
        port,
        transport: (!transport.is_empty()).then(|| transport.into()),
        access,
    };
    let limited = || Access::TimeLimited {
        secret: "north".into(),
        lifetime_s: 3_600,
    };
    let fixed = Access::Fixed {
        username: "guest".into(),
        password: "<&'".into(),
    };
    vec![
        service(
            "stun",
            "relay.example.org",
            Some(3_478),
            "udp",
            Access::Open,
        ),
        service("turn", "relay.example.org", Some(3_478), "udp", limited()),
        service("turn", "relay.example.org", Some(443), "tcp", limited()),
        service("files", "2001:db8::1", None, "", fixed),
    ]
}

fn settings(scenario: &Scenario, shards: u16) -> Settings {
    let mut settings = Settings {
        shards,
        ..Settings::for_tests("example.org")
    };
    for (_, step) in &scenario.steps {
        let Step::Setting(name, on) = step else {
            continue;
        };
        match name.as_str() {
            "tls_available" => settings.tls_available = *on,
            "tls_required" => settings.tls_required = *on,
            "plain_without_tls" => settings.plain_without_tls = *on,
            "anonymous" => settings.anonymous = *on,
            "archive" => settings.archive = *on,
            "converts_bookmarks" => settings.converts_bookmarks = *on,
            "registration_open" => settings.registration_open = *on,
            "external_services" if *on => settings.external_services = external_services(),
            _ => panic!("{}: {name} is no setting", scenario.title),
        }
    }
    settings
}

fn play_file(path: &Path) -> (usize, Vec<String>) {
    let text = std::fs::read_to_string(path).expect("a listed file can be read");
    let name = path
        .file_name()
        .expect("a file has a name")
        .to_string_lossy()
        .into_owned();
    let scenarios = parse(&text).unwrap_or_else(|error| panic!("{name}, {error}"));
    assert!(!scenarios.is_empty(), "{name} is empty");
    let mut failures = Vec::new();
    for scenario in &scenarios {
        for (shards, seed) in WORLDS {
            let faults = match seed {
                0 => Faults::calm(),
                seed => Faults::rough(&mut Random::new(seed)),
            };
            let mut world = World::new(seed, settings(scenario, shards), faults);
            if let Err(error) = play(&mut world, scenario) {
                failures.push(format!("{name}: {error} ({shards} shards, seed {seed})"));
                break;
            }
            world.run();
            world.check_rest();
        }
    }
    (scenarios.len(), failures)
}

#[test]
fn every_scenario_ends_as_it_is_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenarios");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("scenarios lie in tests/scenarios")
        .map(|entry| entry.expect("an entry can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    let only = std::env::var("SCENARIO").unwrap_or_default();
    let mut failures = Vec::new();
    let mut count = 0;
    for path in paths
        .iter()
        .filter(|path| path.to_string_lossy().contains(&only))
    {
        let (played, failed) = play_file(path);
        count += played;
        failures.extend(failed);
    }
    let summary = format!("{} of {count} scenarios failed", failures.len());
    assert!(failures.is_empty(), "{summary}:\n{}", failures.join("\n"));
    assert!(count > 0);
}

#[test]
fn a_scenario_whose_expectation_is_wrong_fails() {
    let text = "== t\naccount a\nclient a a@example.org/x\na connects\na sends\n  \
                <iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>\na receives\n  WANT\n";
    let verdict = |want: &str| {
        let scenario = &parse(&text.replace("WANT", want)).unwrap()[0];
        let settings = Settings::for_tests("example.org");
        play(&mut World::new(1, settings, Faults::calm()), scenario)
    };
    let good = "<iq type='result' id='1' from='a@example.org' to='{a}'/>";
    assert_eq!(verdict(good), Ok(()));
    for bad in [
        good.replace("id='1'", "id='2'"),
        good.replace("id='1'", ""),
        good.replace("{a}", "{a.bare}"),
        good.replace("/>", "><x/></iq>"),
        good.replace("iq", "message"),
        good.replace(" type", " xmlns='other' type"),
        format!("{good}{good}"),
    ] {
        assert!(verdict(&bad).is_err(), "{bad} passed");
    }
    assert!(verdict("<message etc=''/>").is_err());
    assert_eq!(verdict("<iq etc=''/>"), Ok(()));
    assert!(
        play(
            &mut World::new(1, Settings::for_tests("example.org"), Faults::calm()),
            &parse(&text[..text.find("a receives").unwrap()]).unwrap()[0],
        )
        .is_err_and(|error| error.contains("at the end"))
    );
}
