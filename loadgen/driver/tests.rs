//! A ring thread without connections, led through the stages and fed with bytes.

use super::*;
use crate::args::Cli;
use crate::body::Mark;
use crate::plan::Dialect;
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
        script: Arc::new(Script::anonymous("bench")),
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

/// Hands a client the stanza that carries this mark, as the server would; without an address where
/// it is empty.
fn deliver(worker: &mut Worker, to: u32, mark: &Mark, address: &str) {
    let mut written = Vec::new();
    worker.shape.write(mark, "", &mut written);
    let written = String::from_utf8(written)
        .unwrap()
        .replacen(" to=''", "", 1);
    let end = written.find([' ', '>']).unwrap();
    let (name, rest) = written.split_at(end);
    let sender = &worker.jids[mark.from as usize];
    let to_address = match address {
        "" => String::new(),
        address => format!(" to='{address}'"),
    };
    let stanza = format!("{name} from='{sender}'{to_address}{rest}");
    assert_eq!(worker.digest(to, stanza.as_bytes()), stanza.len());
}

/// Two clients that are ready, and the first thing that the first of them sends.
fn ready(line: &[&str]) -> (Worker, Mark) {
    let mut worker = worker(&[&["--clients", "2"], line].concat());
    for index in 0..2 {
        worker.jids[index] = format!("u{index}@bench/lg").into();
        worker.lines[index].client.step = Step::Ready;
    }
    let (to, sequence) = worker.ledger.send(0, 0);
    let (intended, sent) = (0, 0);
    let mark = Mark {
        from: 0,
        to,
        sequence,
        intended,
        sent,
    };
    (worker, mark)
}

#[test]
fn what_comes_while_the_stream_closes_is_in_the_account() {
    let (mut worker, mark) = ready(&[]);
    deliver(&mut worker, 1, &mark, "u1@bench/lg");
    worker.lines[1].client.close(&mut Vec::new());
    deliver(&mut worker, 1, &mark, "u1@bench/lg");
    let verdict = worker.ledger.verdict;
    assert_eq!((verdict.delivered, verdict.duplicated), (1, 1));
    // Nothing may follow the end of the stream.
    for asks in ["<r xmlns='urn:xmpp:sm:3'/>", "<iq type='get' id='1'/>"] {
        worker.digest(1, asks.as_bytes());
        assert!(worker.lines[1].out.is_empty(), "{asks}");
    }
}

#[test]
fn a_broadcast_comes_to_the_bare_or_the_full_address_of_its_receiver() {
    for (address, is_right) in [
        ("u1@bench/lg", true),
        ("u1@bench", true),
        ("", true),
        ("u0@bench", false),
        ("u1@bench/other", false),
    ] {
        let (mut worker, mark) = ready(&["--scenario", "presence"]);
        deliver(&mut worker, 1, &mark, address);
        let verdict = worker.ledger.verdict;
        let expected = (u64::from(is_right), u64::from(!is_right));
        assert_eq!(
            (verdict.delivered, verdict.misrouted),
            expected,
            "{address}"
        );
    }
    // What is sent to one resource comes to it and no other.
    let (mut worker, mark) = ready(&[]);
    deliver(&mut worker, 1, &mark, "u1@bench");
    assert_eq!(worker.ledger.verdict.misrouted, 1);
}

#[test]
fn two_fleets_on_one_source_address_stay_below_what_servers_take() {
    let clients = 9_000;
    let mut connections = std::collections::HashMap::new();
    for account in 0..2 * clients {
        *connections.entry(source_of(account, 1)).or_insert(0) += 1;
    }
    assert_eq!(connections.values().max(), Some(&CONNECTIONS_PER_ADDRESS));
    let first = connections.keys().all(|source| match source {
        IpAddr::V4(source) => source.octets()[..2] == [127, 0] && source.octets()[3] > 1,
        IpAddr::V6(_) => false,
    });
    assert!(first, "127.0.0.1 is left to others");
}

#[test]
fn a_schedule_is_shared_by_those_who_have_somebody_to_send_to() {
    let line = ["--scenario", "presence", "--clients", "3", "--clique", "2"];
    let mut worker = worker(&[&line[..], &["--rate", "1000"]].concat());
    for line in &mut worker.lines {
        line.client.step = Step::Ready;
    }
    worker.job.control.enter(Stage::Warm, 0);
    worker.look_at_stage();
    worker.now = 10_000_000_000;
    worker.send_what_is_due();
    assert_eq!(
        worker.ledger.verdict.sent, 1024,
        "a turn's worth, and none in vain"
    );
}
