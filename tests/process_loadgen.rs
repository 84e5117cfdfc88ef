//! The load generator's scenario files over the real server: every action of every phase is
//! verified and timed apart.

mod support;

use loadgen::heed;
use loadgen::result::RunResult;
use loadgen::run;
use std::fs;
use support::server::free_port;
use support::{DOMAIN, Options, PASSWORD, Server};

/// Every action, in an open and in a closed loop, with a rest between.
const EVERYTHING: &str = "
clients = 12
clique = 4
partners = 3
warmup = 0

[[phase]]
name = 'open'
duration = 1.5
rate = 400
ramp = 0.5
mix = { chat = 10, presence = 4, directed = 2, roster = 2, reconnect = 2 }
stanza_size = { min = 180, mean = 300, max = 5000 }

[[phase]]
name = 'rest'
duration = 0.2
mix = { idle = 1 }

[[phase]]
name = 'closed'
duration = 1
clients = 8
window = 2
mix = { chat = 10, presence = 4, directed = 2, roster = 2, reconnect = 2 }
";

fn server(shards: u16) -> Server {
    Server::start(&Options {
        shards,
        users: 12,
        clique: 4,
        ..Options::default()
    })
}

/// What a run of this scenario finds.
fn run(server: &Server, scenario: &str, options: &[&str]) -> RunResult {
    let options = [&["--tls", "none"], options].concat();
    run_at(server, server.address().port(), scenario, &options)
}

/// The same at one of its ports.
fn run_at(server: &Server, port: u16, scenario: &str, options: &[&str]) -> RunResult {
    let file = server.directory().join("scenario.toml");
    fs::write(&file, scenario).expect("the directory is writable");
    let port = port.to_string();
    let target = ["--domain", DOMAIN, "--password", PASSWORD, "--port", &port];
    let line = ["loadgen", "--quiet", "--scenario"];
    let file = file.to_str().expect("the path is UTF-8");
    let words = [&line[..], &[file], &target, options].concat();
    let cli = heed::read(words).expect("the scenario makes sense");
    let features = ring::probe().expect("io_uring is needed here");
    run::server(&cli.run, features)
        .expect("the clients log in")
        .result
}

/// A busy machine may make a run invalid; what was sent arrives all the same.
fn assert_verified(result: &RunResult) {
    let verdict = &result.verdict;
    assert!(verdict.is_clean(), "{verdict:?} {:?}", result.failures);
    assert_eq!(verdict.delivered, verdict.expected);
    assert!(result.failures.is_empty(), "{:?}", result.failures);
}

#[test]
fn every_action_of_every_phase_is_verified_and_timed_apart() {
    for shards in [1, 2] {
        let server = server(shards);
        for options in [&[][..], &["--stream-management"], &["--threads", "3"]] {
            let result = run(&server, EVERYTHING, options);
            assert_verified(&result);
            // Who comes back is told the contacts' newest presence before it is ready.
            assert!(result.verdict.retold > 0, "{:?}", result.verdict);
            let names: Vec<&str> = result
                .scenario_phases
                .iter()
                .map(|phase| phase.name.as_str())
                .collect();
            assert_eq!(names, ["open", "rest", "closed"]);
            for phase in &result.scenario_phases {
                let actions: Vec<&str> = phase
                    .actions
                    .iter()
                    .map(|action| action.latency.name.as_str())
                    .collect();
                let all: &[&str] = match phase.name.as_str() {
                    "rest" => &[],
                    _ => &["chat", "presence", "directed", "roster", "reconnect"],
                };
                assert_eq!(actions, all, "{}, {options:?}", phase.name);
                assert_eq!(phase.delivered > 0, !all.is_empty());
                for action in &phase.actions {
                    let (latency, service) = (&action.latency, &action.service);
                    assert_eq!(latency.count, service.count);
                    // Who waits is served no later than it was due.
                    assert!(latency.max_us >= service.max_us, "{action:?}");
                }
            }
            assert_eq!(result.load.phases.len(), 3);
        }
    }
}

/// Everything that goes with lost networks, and at the end only those.
const LOSSES: &str = "
clients = 12
clique = 4
partners = 3
warmup = 0
stream_management = true
ack_every = 3

[[phase]]
name = 'open'
duration = 2
rate = 400
pause = 0.1
mix = { chat = 10, presence = 2, directed = 2, roster = 1, reconnect = 1, resume = 2 }
stanza_size = { min = 180, mean = 300, max = 5000 }

[[phase]]
name = 'closed'
duration = 1
window = 2
mix = { chat = 10, presence = 2, roster = 1, resume = 2 }

[[phase]]
name = 'alone'
duration = 0.5
rate = 40
mix = { resume = 1 }
";

#[test]
fn who_loses_the_network_misses_nothing_and_says_nothing_twice() {
    for shards in [1, 2] {
        let server = server(shards);
        for options in [&[][..], &["--threads", "3"]] {
            let result = run(&server, LOSSES, options);
            assert_verified(&result);
            assert!(result.verdict.resent > 0, "{:?}", result.verdict);
            for phase in &result.scenario_phases {
                let times = |name: &str| {
                    let mut actions = phase.actions.iter();
                    actions.find(|action| action.latency.name == name)
                };
                let resume = times("resume").expect("it was done");
                let away = if phase.name == "open" { 0.1 } else { 0.0 };
                // Nobody is back before his time, and what was sent to him meanwhile waited.
                assert!(resume.service.p50_us > away * 1e6, "{resume:?}");
                let chat = times("chat").map_or(f64::MAX, |chat| chat.latency.max_us);
                assert!(chat > away * 0.5e6, "{chat} us in {}", phase.name);
            }
        }
    }
}

#[test]
fn what_goes_by_websocket_is_verified_and_resumed_like_the_rest() {
    let (http, https) = (free_port(), free_port());
    let server = Server::start(&Options {
        shards: 2,
        users: 12,
        clique: 4,
        listen: &format!("http = \"127.0.0.1:{http}\"\nhttps = \"127.0.0.1:{https}\""),
        ..Options::default()
    });
    for scenario in [EVERYTHING, LOSSES] {
        let result = run_at(&server, http, scenario, &["--websocket", "--tls", "none"]);
        assert_verified(&result);
        assert_eq!(result.load.transport(), "tls none, WebSocket");
        let path = "--websocket=/xmpp-websocket";
        let options = [path, "--tls", "direct", "--insecure"];
        assert_verified(&run_at(&server, https, scenario, &options));
    }
}

#[test]
fn a_threshold_of_one_phase_decides() {
    let server = server(1);
    let phase = |name: &str, slo: &str| {
        format!(
            "[[phase]]\nname = '{name}'\nduration = 0.5\nwindow = 1\nslo = '{slo}'\n\
                 mix = {{ chat = 1 }}\n"
        )
    };
    // A closed loop keeps no schedule that a busy machine could miss.
    let options = ["--clients", "12", "--warmup", "0"];
    let good = phase("good", "p99<100s,rate>1");
    let result = run(&server, &good, &options);
    assert_verified(&result);
    assert_eq!(
        result.exit,
        loadgen::result::exit::OK,
        "{:?}",
        result.reasons
    );
    let result = run(&server, &(good + &phase("bad", "p50<1us")), &options);
    assert_verified(&result);
    let met: Vec<(&str, bool)> = result
        .thresholds
        .iter()
        .map(|one| (one.term.as_str(), one.is_met))
        .collect();
    assert_eq!(
        met,
        [
            ("good: p99<100s", true),
            ("good: rate>1", true),
            ("bad: p50<1us", false)
        ]
    );
    assert!(
        result
            .reasons
            .iter()
            .any(|why| why.starts_with("bad: p50<1us was missed: "))
    );
    assert_eq!(
        result.exit,
        loadgen::result::exit::MISSED,
        "{:?}",
        result.reasons
    );
}

#[test]
fn what_a_server_does_not_take_is_lost_and_the_run_has_failed() {
    let server = Server::start(&Options {
        limits: "stanza_size_max = 10000",
        ..Options::default()
    });
    let text = "[[phase]]\nduration = 0.5\nrate = 50\nmix = { chat = 9, roster = 1 }\n\
                stanza_size = 50000";
    let result = run(&server, text, &["--clients", "4", "--warmup", "0"]);
    assert_eq!(result.exit, loadgen::result::exit::UNVERIFIED);
    assert!(result.verdict.disconnected > 0 && result.verdict.lost > 0);
}

#[test]
fn a_server_without_rooms_is_told_from_one_that_refuses() {
    let server = server(1);
    let port = server.address().port().to_string();
    let target = ["--domain", DOMAIN, "--password", PASSWORD, "--port", &port];
    let line = ["loadgen", "--quiet", "--tls", "none", "--scenario", "muc"];
    let words = [&line[..], &["--clients", "4"], &target].concat();
    let cli = heed::read(words).expect("a line");
    let features = ring::probe().expect("io_uring is needed here");
    let ran = run::server(&cli.run, features).map(|_| ());
    let reason = ran.expect_err("there are no rooms yet");
    let sentence = format!("4 x there are no rooms at conference.{DOMAIN} (");
    assert!(reason.contains(&sentence), "{reason}");
    assert!(reason.contains("let --rooms name"), "{reason}");
}
