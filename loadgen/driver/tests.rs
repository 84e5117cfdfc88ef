//! A ring thread without connections, led through the stages and fed with bytes.

use super::*;
use crate::accounts::Accounts;
use crate::args::Cli;
use crate::client::TlsMode;
use crate::plan::Dialect;
use crate::scram::KeyCache;
use clap::Parser;

/// A thread with all clients of the command line.
fn worker(line: &[&str]) -> Worker {
    let words = ["loadgen"].iter().chain(line);
    let load = Cli::parse_from(words).run.load;
    let address = "127.0.0.1:1".parse().unwrap();
    let plan = load
        .plan(address, Dialect::Xmpp, crate::clock::Clock::start())
        .unwrap();
    let features = ring::probe().expect("io_uring is needed here");
    let config = RingConfig {
        entries: 8,
        completions: 16,
        slots: plan.clients,
    };
    let job = Job {
        thread: 0,
        first: 0,
        count: plan.clients,
        core: None,
        shares_core: false,
        control: Arc::new(Control::new(1)),
        plan: Arc::new(plan),
        script: Arc::new(Script {
            domain: "bench".into(),
            tls: TlsMode::None,
            mechanism: None,
            accounts: Accounts::Anonymous,
            first_account: 0,
            register: false,
            roster: false,
            presence: false,
            ack_every: None,
            keys: KeyCache::default(),
        }),
        tls: None,
        features,
        derive: std::sync::mpsc::channel().0,
    };
    let ring = Ring::new(&config, &features).expect("a small ring is to be had");
    Worker::new(job, ring)
}

#[test]
fn all_turns_of_a_login_run_are_measured_and_only_the_first_round_is_not() {
    for warm in [true, false] {
        let mut worker = worker(&["--scenario", "login", "--clients", "2"]);
        let mut now = 0;
        let mut enter = |worker: &mut Worker, stage| {
            now += 1;
            worker.job.control.enter(stage, now);
            worker.look_at_stage();
        };
        worker.meter.phase(crate::stats::Phase::Bind, 1);
        worker.meter.lag.saturating_record(1);
        worker.meter.false_acks = 5;
        for turn in 1..=3 {
            if warm {
                enter(&mut worker, Stage::Warm);
            }
            enter(&mut worker, Stage::Measure);
            worker.meter.lag.saturating_record(1);
            assert_eq!(worker.meter.lag.len(), turn, "turn {turn}, warm {warm}");
            enter(&mut worker, Stage::Hold);
        }
        assert!(worker.meter.of(crate::stats::Phase::Bind).is_empty());
        assert_eq!(worker.meter.false_acks, 5, "a fault is one at any time");
    }
}

#[test]
fn a_login_that_had_to_wait_for_a_client_is_not_the_generators_delay() {
    let mut worker = worker(&["--scenario", "login", "--clients", "2", "--rate", "9"]);
    worker.now = 9_000;
    worker.record_login_lag(2_000, 8_000);
    assert_eq!((worker.meter.lag.max(), worker.meter.waited), (1_000, 1));
    worker.record_login_lag(2_000, 1_000);
    assert_eq!((worker.meter.lag.max(), worker.meter.waited), (7_003, 1));
}

#[test]
fn a_schedule_that_is_far_behind_says_that_it_waits_for_clients() {
    let mut worker = worker(&["--scenario", "login", "--clients", "2", "--rate", "1000"]);
    worker.begun = 2;
    for (stage, now) in [(Stage::Warm, 1), (Stage::Measure, 5 * SECOND)] {
        worker.job.control.enter(stage, now);
        worker.look_at_stage();
    }
    worker.now = 6 * SECOND;
    worker.lines[0].idle_since = 6 * SECOND - 300;
    worker.lines[1].idle_since = 6 * SECOND - 200;
    worker.begin_connections().unwrap();
    assert_eq!((worker.meter.waited, worker.ledger.verdict.sent), (2, 2));
    assert_eq!(worker.meter.lag.max(), 300);
}
