//! Which runs count, and why others do not.

use super::*;
use crate::clock::Clock;
use crate::plan::Dialect;
use clap::Parser;

const POISSON: Pace = open(Arrivals::Poisson);
const FIXED: Pace = open(Arrivals::Fixed);

const fn open(arrivals: Arrivals) -> Pace {
    let rate = 100.0;
    Pace::Open { rate, arrivals }
}

/// What a run says of which so many of a thousand stanzas were sent to each measured.
fn judged(pace: Pace, sent: [u64; 3], change: impl FnOnce(&mut RunResult)) -> (u8, String) {
    judged_by(&[], pace, sent, change)
}

/// The same where a run has these options, too.
fn judged_by(
    options: &[&str],
    pace: Pace,
    sent: [u64; 3],
    change: impl FnOnce(&mut RunResult),
) -> (u8, String) {
    let line = ["loadgen", "--closed", "--clients", "2"];
    let cli = crate::args::Cli::parse_from(line.iter().chain(options));
    let address = "127.0.0.1:1".parse().unwrap();
    let load = &cli.run.load;
    let mut plan = load.plan(address, Dialect::Xmpp, Clock::start()).unwrap();
    plan.pace = pace;
    let slices = |sent| {
        vec![Slice {
            seconds: 10.0,
            sent,
            delivered: 1,
            ..Slice::default()
        }]
    };
    let mut result = RunResult {
        slices: slices(sent[0]),
        floor: Some(Floor {
            slices: slices(sent[1]),
            ..Floor::default()
        }),
        plain: Some(Plain {
            slices: slices(sent[2]),
            ..Plain::default()
        }),
        ..RunResult::default()
    };
    change(&mut result);
    let slo = load.slo.as_ref();
    result.thresholds = slo.map_or_else(Vec::new, |slo| slo.judge(&result));
    let (code, reasons) = verdict(&plan, 1, &result, slo);
    (code, reasons.join("; "))
}

#[test]
fn each_phase_is_held_to_its_own_schedule() {
    let line = "loadgen --scenario mixed --duration 5 --rate 100";
    let cli = crate::heed::read(line.split(' ')).expect("a line");
    let address = "127.0.0.1:1".parse().unwrap();
    let plan = cli.run.load.plan(address, Dialect::Xmpp, Clock::start());
    let plan = plan.unwrap();
    let judge_waiting = |sent: [u64; 3], delivered: [u64; 3], waited| {
        let all = sent.into_iter().zip(delivered);
        let slices: Vec<Slice> = all
            .map(|(sent, delivered)| Slice {
                seconds: 5.0,
                sent,
                delivered,
                ..Slice::default()
            })
            .collect();
        let mut result = RunResult {
            scenario_phases: phases::results(&plan, &slices, &Meter::default()),
            slices,
            ..RunResult::default()
        };
        for phase in &mut result.scenario_phases {
            phase.waited = waited;
        }
        let (code, reasons) = verdict(&plan, 1, &result, None);
        (code, reasons.join("; "))
    };
    let judge = |sent, delivered| judge_waiting(sent, delivered, 0);
    // The morning's rate grows from nothing behind two seconds of warm-up; the night rests.
    assert_eq!(judge([430, 500, 0], [9, 9, 0]), (exit::OK, String::new()));
    let (code, reasons) = judge([250, 500, 0], [9, 9, 0]);
    assert_eq!(code, exit::INVALID);
    assert!(reasons.starts_with("phase morning: only "), "{reasons}");
    let (code, reasons) = judge([430, 500, 0], [9, 0, 0]);
    assert_eq!(code, exit::INVALID);
    let expected = "phase day: nothing was delivered while it was measured";
    assert_eq!(reasons, expected);
    // It is not said of a mix that all its clients were in a login: one may be alone.
    let (_, reasons) = judge_waiting([430, 250, 0], [9, 9, 0], 7);
    let expected = "phase day: only 50.0 % of the schedule was sent: nobody asked could do it";
    assert!(reasons.starts_with(expected), "{reasons}");
}

#[test]
fn a_worker_that_is_late_does_not_hide_among_others() {
    let worker = |address: &str, sent| WorkerResult {
        address: address.into(),
        clients: 1,
        threads: 1,
        slices: vec![Slice {
            seconds: 10.0,
            sent,
            delivered: 1,
            ..Slice::default()
        }],
        ..WorkerResult::default()
    };
    // Half of 100 a second for ten seconds is each one's.
    let both = |sent: [u64; 2]| [worker("a:1", sent[0]), worker("b:1", sent[1])].to_vec();
    let judge = |workers| judged(FIXED, [1000; 3], |result| result.workers = workers);
    assert_eq!(judge(both([500, 500])), (exit::OK, String::new()));
    let (code, reasons) = judge(both([500, 490]));
    assert_eq!(code, exit::INVALID);
    assert_eq!(reasons, "worker b:1: only 98.0 % of the schedule was sent");
    let mut late = both([500, 500]);
    late[1].generator.lag.p99_us = 2.0 * LAG_P99_MAX_US;
    let (code, reasons) = judge(late);
    assert_eq!(code, exit::INVALID);
    assert_eq!(reasons, "worker b:1: the generator was 2.00 ms late (p99)");
    // One that was due nowhere but there may be missing by chance; a closed loop's may not.
    let mut idle = both([500, 500]);
    idle[0].slices[0].delivered = 0;
    assert_eq!(judge(idle.clone()).0, exit::OK);
    let closed = Pace::Closed { window: 1 };
    let (code, reasons) = judged(closed, [1000; 3], |result| result.workers = idle);
    assert_eq!(code, exit::INVALID);
    assert_eq!(
        reasons,
        "worker a:1: nothing was delivered while it was measured"
    );
    let mut apart = both([500, 500]);
    apart[1].slices[0].at = 0.19;
    assert_eq!(judge(apart.clone()).0, exit::OK);
    apart[1].slices[0].at = 0.25;
    let (code, reasons) = judge(apart);
    assert_eq!(code, exit::INVALID);
    assert_eq!(
        reasons,
        "worker b:1: it began 250.00 ms off the common start"
    );
    // What it found is in the sum already.
    let mut lossy = both([500, 500]);
    lossy[0].verdict.lost = 1;
    assert_eq!(judge(lossy).0, exit::OK);
}

#[test]
fn each_worker_is_held_to_its_part_of_a_phase() {
    let line = "loadgen --scenario mixed --duration 5 --rate 100 --clients 60";
    let cli = crate::heed::read(line.split(' ')).expect("a line");
    let address = "127.0.0.1:1".parse().unwrap();
    let mut plan = cli
        .run
        .load
        .plan_anywhere(address, Dialect::Xmpp, Clock::start());
    plan.phases[1].clients = Some(20);
    let slices = |sent: [u64; 3]| {
        sent.map(|sent| Slice {
            seconds: 5.0,
            sent,
            delivered: sent,
            ..Slice::default()
        })
    };
    let workers = |sent: [[u64; 3]; 3]| {
        (0..).zip(sent).map(|(at, sent)| WorkerResult {
            address: format!("{at}:1"),
            first: 20 * at,
            clients: 20,
            scenario_phases: phases::results(&plan, &slices(sent), &Meter::default()),
            slices: slices(sent).to_vec(),
            ..WorkerResult::default()
        })
    };
    let judge = |sent| {
        let all = slices([430, 500, 0]).to_vec();
        let result = RunResult {
            scenario_phases: phases::results(&plan, &all, &Meter::default()),
            slices: all,
            workers: workers(sent).collect(),
            ..RunResult::default()
        };
        verdict(&plan, 3, &result, None)
    };
    // By day only the first twenty act: those of the first worker.
    let good = [[143, 500, 0], [143, 0, 0], [143, 0, 0]];
    assert_eq!(judge(good), (exit::OK, Vec::new()));
    let (code, reasons) = judge([[143, 200, 0], [143, 0, 0], [40, 0, 0]]);
    assert_eq!((code, reasons.len()), (exit::INVALID, 2), "{reasons:?}");
    assert!(
        reasons[0].starts_with("phase morning: worker 2:1: only "),
        "{reasons:?}"
    );
    assert!(
        reasons[1].starts_with("phase day: worker 0:1: only 40.0 %"),
        "{reasons:?}"
    );
}

#[test]
fn a_busy_generator_limits_a_closed_loop_of_any_phase() {
    let is_limit = |line: &str, busiest: &[f64]| {
        let cli = crate::heed::read(line.split(' ')).expect("a line");
        let address = "127.0.0.1:1".parse().unwrap();
        let plan = cli.run.load.plan(address, Dialect::Xmpp, Clock::start());
        let slices: Vec<Slice> = busiest
            .iter()
            .map(|busiest| Slice {
                seconds: 2.0,
                generator_busiest: *busiest,
                ..Slice::default()
            })
            .collect();
        super::is_limit(&plan.unwrap(), &slices)
    };
    // One phase, in turns with another: all its stretches together.
    assert!(is_limit("loadgen --closed", &[1.8, 2.0, 2.0]));
    assert!(!is_limit("loadgen --closed", &[1.7, 2.0, 1.9]));
    assert!(!is_limit("loadgen --rate 5", &[2.0]));
    // Several phases: the last one rests.
    let mixed = "loadgen --scenario mixed --closed --window 2";
    assert!(is_limit(mixed, &[0.1, 1.95, 0.0]));
    assert!(!is_limit(mixed, &[1.9, 1.9, 0.0]));
    assert!(!is_limit(mixed, &[0.1, 0.1, 2.0]), "a rest");
    assert!(!is_limit("loadgen --scenario mixed", &[2.0, 2.0, 0.0]));
}

#[test]
fn all_that_is_measured_is_held_to_the_schedule() {
    let good = (exit::OK, String::new());
    assert_eq!(judged(POISSON, [1000; 3], |_| ()), good);
    for (at, whose) in ["", "floor: ", "plain: "].into_iter().enumerate() {
        let mut sent = [1000; 3];
        sent[at] = 800;
        let expected = format!("{whose}only 80.0 % of the schedule was sent");
        assert_eq!(judged(POISSON, sent, |_| ()), (exit::INVALID, expected));
        let closed = Pace::Closed { window: 1 };
        assert_eq!(judged(closed, sent, |_| ()), good);
        let late = judged(POISSON, [1000; 3], |result| {
            let lag = match (at, &mut result.floor, &mut result.plain) {
                (1, Some(floor), _) => &mut floor.lag,
                (2, _, Some(plain)) => &mut plain.lag,
                _ => &mut result.generator.lag,
            };
            lag.p99_us = 1100.0;
        });
        let expected = format!("{whose}the generator was 1.10 ms late (p99)");
        assert_eq!(late, (exit::INVALID, expected));
    }
}

#[test]
fn only_random_arrivals_may_vary() {
    // 99 % of a thousand, less four times the square root of it, or one stanza.
    for (pace, least) in [(POISSON, 864), (FIXED, 989)] {
        assert_eq!(judged(pace, [least, 1000, 1000], |_| ()).0, exit::OK);
        let (code, reason) = judged(pace, [least - 1, 1000, 1000], |_| ());
        assert_eq!(code, exit::INVALID, "{reason}");
    }
}

#[test]
fn a_schedule_without_clients_for_it_says_so() {
    let (code, reason) = judged(POISSON, [650, 1000, 1000], |result| {
        result.generator.waited = 3;
    });
    assert_eq!(code, exit::INVALID);
    assert!(reason.contains("65.0 %") && reason.contains("more --clients"));
    assert!(!reason.contains("generator"), "{reason}");
}

#[test]
fn a_fault_of_the_server_outweighs_one_of_the_generator() {
    let (code, reason) = judged(POISSON, [800, 1000, 1000], |result| {
        result.plain.as_mut().unwrap().verdict.lost = 2;
    });
    assert_eq!(code, exit::UNVERIFIED);
    assert!(reason.ends_with("; plain: 2 lost"), "{reason}");
}

#[test]
fn a_threshold_that_is_missed_has_a_code_of_its_own_behind_all_others() {
    let slow = |result: &mut RunResult| {
        result.latency = Times {
            count: 1,
            p99_us: 6_000.0,
            ..Times::default()
        };
    };
    let slo = ["--slo", "p99<5ms"];
    let (code, reason) = judged_by(&slo, FIXED, [1000; 3], slow);
    assert_eq!(
        (code, &*reason),
        (exit::MISSED, "p99<5ms was missed: 6.00 ms")
    );
    let (code, _) = judged_by(&["--slo", "p99<7ms"], FIXED, [1000; 3], slow);
    assert_eq!(code, exit::OK);
    let (code, reason) = judged_by(&slo, FIXED, [800, 1000, 1000], slow);
    assert_eq!((code, reason.matches(';').count()), (exit::INVALID, 1));
    let lost = |result: &mut RunResult| result.verdict.lost = 1;
    let (code, _) = judged_by(&slo, FIXED, [1000; 3], lost);
    assert_eq!(code, exit::UNVERIFIED);
}

#[test]
fn a_threshold_says_how_many_faults_there_may_be() {
    let slo = ["--slo", "loss<0.1%"];
    let losing = |count| {
        move |result: &mut RunResult| {
            result.verdict.expected = 10_000;
            result.verdict.lost = count;
        }
    };
    let judged = |count| judged_by(&slo, FIXED, [1000; 3], losing(count));
    assert_eq!(judged(9), (exit::OK, String::new()));
    let (code, reason) = judged(10);
    assert_eq!((code, &*reason), (exit::MISSED, "loss<0.1% was missed: 10"));
    // Those of the floor beside it are no server's.
    let (code, _) = judged_by(&slo, FIXED, [1000; 3], |result| {
        result.verdict.expected = 10_000;
        result.floor.as_mut().unwrap().verdict.lost = 1;
    });
    assert_eq!(code, exit::UNVERIFIED);
}

#[test]
fn a_server_of_which_a_part_is_counted_makes_the_run_invalid() {
    for (is_partial, expected) in [(false, exit::OK), (true, exit::INVALID)] {
        let (code, reason) = judged(POISSON, [1000; 3], |result| {
            result.server = Some(Server {
                is_partial,
                ..Server::default()
            });
        });
        assert_eq!(code, expected);
        assert_eq!(reason.contains("more than 64 processes"), is_partial);
    }
}

#[test]
fn passwords_are_not_published() {
    let words = [
        "loadgen",
        "--password",
        "secret",
        "--password=secret",
        "--user",
        "u",
    ];
    let line = command_line(words.iter().map(|word| (*word).to_owned()));
    assert_eq!(
        line.join(" "),
        "loadgen --password *** --password=*** --user u"
    );
}
