//! The whole generator over real rings and sockets, against the floor's relay: a run ends verified,
//! in both directions of traffic, and its cost was read.

use clap::Parser;
use loadgen::args::{Cli, Command, LoadArgs};
use loadgen::compare::compare;
use loadgen::result::{RunResult, exit};
use loadgen::run;

fn floor(words: &[&str]) -> RunResult {
    let line = [
        "loadgen",
        "floor",
        "--quiet",
        "--warmup",
        "0.1",
        "--duration",
        "0.5",
    ];
    let cli = Cli::try_parse_from(line.iter().chain(words)).expect("the words are options");
    let Some(Command::Floor(load)) = cli.command else {
        panic!("floor was asked for")
    };
    measure(&load)
}

fn measure(load: &LoadArgs) -> RunResult {
    let features = ring::probe().expect("io_uring is needed here");
    run::floor(load, features).expect("the relay starts").result
}

#[test]
fn a_closed_loop_of_chat_through_the_relay_is_verified() {
    let result = floor(&[
        "--clients",
        "30",
        "--closed",
        "--window",
        "4",
        "--partners",
        "3",
    ]);
    assert_eq!((result.exit, &result.reasons[..]), (exit::OK, &[][..]));
    assert_eq!(result.verdict.delivered, result.verdict.expected);
    assert!(result.verdict.delivered > 120, "{:?}", result.verdict);
    assert!(result.server.unwrap().cpu_per_million.unwrap() > 0.0);
}

#[test]
fn what_is_said_in_a_room_reaches_all_who_are_in_it() {
    let words = ["--scenario", "muc", "--clients", "24", "--clique", "10"];
    let result = floor(&[&words[..], &["--closed", "--window", "2"]].concat());
    assert_eq!((result.exit, &result.reasons[..]), (exit::OK, &[][..]));
    let verdict = result.verdict;
    assert_eq!(verdict.delivered, verdict.expected);
    assert_eq!(verdict.own_copies, 0, "they are deliveries, too");
    assert!(verdict.delivered > 4 * verdict.sent, "{verdict:?}");
}

#[test]
fn every_broadcast_reaches_the_whole_clique() {
    let words = [
        "--scenario",
        "presence",
        "--clients",
        "24",
        "--clique",
        "10",
        "--closed",
    ];
    let result = floor(&words);
    assert_eq!((result.exit, &result.reasons[..]), (exit::OK, &[][..]));
    // The relay returns a copy to the sender, which is not expected of servers.
    assert!(result.verdict.own_copies >= result.verdict.sent * 9 / 10);
    assert_eq!(result.verdict.delivered, result.verdict.expected);
}

#[test]
fn a_threshold_decides_and_two_runs_of_one_load_compare() {
    let run = |slo| floor(&["--clients", "10", "--closed", "--slo", slo]);
    let good = run("p99<100s,loss=0,rate>1");
    assert_eq!((good.exit, &good.reasons[..]), (exit::OK, &[][..]));
    assert_eq!(good.thresholds.len(), 3);
    let bad = run("p99<1us,loss=0");
    assert_eq!(bad.exit, exit::MISSED);
    assert!(bad.reasons[0].starts_with("p99<1us was missed: "));
    // Through the files that the command compares.
    let read = |result: &RunResult| {
        let text = serde_json::to_vec(result).expect("it is plain data");
        serde_json::from_slice::<RunResult>(&text).expect("it was written so")
    };
    let (good, bad) = (read(&good), read(&bad));
    // A thousandfold is beyond what a busy machine does to a run.
    let same = compare(&good, &bad, 1000.0, &[]).expect("one load");
    assert_eq!(same.exit(), exit::OK, "{}", same.render());
    let other = floor(&["--clients", "12", "--closed"]);
    assert!(compare(&good, &other, 1000.0, &[]).is_err());
}

#[test]
fn an_open_loop_sends_its_schedule_over_several_threads() {
    let words = [
        "--clients",
        "40",
        "--rate",
        "400",
        "--arrivals",
        "fixed",
        "--threads",
        "2",
    ];
    let result = floor(&words);
    let sent: u64 = result.slices.iter().map(|slice| slice.sent).sum();
    let seconds: f64 = result.slices.iter().map(|slice| slice.seconds).sum();
    // A busy machine sends late, which makes the run invalid; it never sends more.
    assert!(
        sent as f64 <= 400.0 * seconds * 1.1 + 60.0,
        "{sent} in {seconds} s"
    );
    assert_eq!(result.verdict.delivered, result.verdict.expected);
    assert_eq!(result.load.threads, 2);
}
