//! Rooms over real sockets, against a small server of rooms that does as it is told: a run ends
//! verified, and every fault of the server is found and named.

mod muc;

use loadgen::args::Command;
use loadgen::heed;
use loadgen::ledger::Verdict;
use loadgen::result::{RunResult, exit};
use loadgen::run;
use loadgen::workers::worker;
use muc::{Fault, serve};

/// What a run of anonymous clients against a server with this fault comes to.
fn run(fault: Fault, options: &str) -> Result<RunResult, String> {
    let port = serve(fault).port().to_string();
    let target = ["--domain", "bench", "--port", &port, "--anonymous"];
    let line = ["loadgen", "--quiet", "--tls", "none"];
    let words = line.into_iter().chain(target);
    let words = words.chain(options.split_whitespace());
    let cli = heed::read(words).expect("the words are options");
    let features = ring::probe().expect("io_uring is needed here");
    Ok(run::server(&cli.run, features)?.result)
}

/// Seven clients in rooms of three: the last is alone in its room.
const SEVEN: &str = "--scenario muc --clients 7 --clique 3 --closed --window 2 --warmup 0.1 \
                     --duration 0.5";

fn assert_verified(result: &RunResult) {
    let verdict = &result.verdict;
    assert!(verdict.is_clean(), "{verdict:?} {:?}", result.failures);
    assert_eq!(verdict.delivered, verdict.expected);
    assert!(verdict.delivered > 0);
    assert!(result.failures.is_empty(), "{:?}", result.failures);
}

#[test]
fn every_occupant_of_every_room_gets_all_that_is_said() {
    let result = run(Fault::None, SEVEN).expect("they enter");
    assert_verified(&result);
    assert_eq!((result.exit, &result.reasons[..]), (exit::OK, &[][..]));
    assert!(result.verdict.delivered > result.verdict.sent);
    assert_eq!(result.verdict.own_copies, 0);
    let join = result.phases.iter().find(|phase| phase.name == "join");
    assert_eq!(join.map(|join| join.count), Some(7), "a part of each login");
    assert_eq!(result.load.rooms.as_deref(), Some("conference.bench"));
    assert_eq!(result.load.scenario, "muc");
}

#[test]
fn who_comes_back_enters_again_and_a_room_that_closed_is_opened_anew() {
    // The last is alone in its room, which closes with each time that it leaves.
    let text = "clients = 7\nclique = 2\nwarmup = 0\n[[phase]]\nduration = 1\nwindow = 2\n\
                mix = { muc = 3, reconnect = 2 }";
    let name = format!("loadgen-{}-rooms.toml", std::process::id());
    let file = std::env::temp_dir().join(name);
    std::fs::write(&file, text).expect("it is writable");
    let result = run(Fault::None, &format!("--scenario {}", file.display()));
    std::fs::remove_file(&file).expect("it is ours");
    let result = result.expect("they enter");
    assert_verified(&result);
    let actions = &result.scenario_phases[0].actions;
    let names: Vec<&str> = actions
        .iter()
        .map(|one| one.latency.name.as_str())
        .collect();
    assert_eq!(names, ["muc", "reconnect"]);
    let join = result.phases.iter().find(|phase| phase.name == "join");
    assert!(join.is_some_and(|join| join.count > 7));
}

#[test]
fn every_fault_of_a_room_is_found() {
    type Count = fn(&Verdict) -> u64;
    let faults: [(Fault, Count); 5] = [
        (Fault::Lose, |verdict| verdict.lost),
        (Fault::Double, |verdict| verdict.duplicated),
        (Fault::Swap, |verdict| verdict.reordered),
        (Fault::Rename, |verdict| verdict.misrouted),
        (Fault::Alter, |verdict| verdict.corrupted),
    ];
    for (fault, count) in faults {
        // What is lost is waited for.
        let result = run(fault, SEVEN).expect("they enter");
        assert_eq!(count(&result.verdict), 1, "{fault:?}: {:?}", result.verdict);
        assert_eq!(result.exit, exit::UNVERIFIED, "{fault:?}");
    }
}

#[test]
fn where_there_are_no_rooms_the_run_says_so_and_where_to_look() {
    let elsewhere = format!("{SEVEN} --rooms elsewhere.bench");
    for (fault, options, domain) in [
        (Fault::NoRooms, SEVEN, "conference.bench"),
        (Fault::None, &elsewhere, "elsewhere.bench"),
    ] {
        let reason = run(fault, options).expect_err("there are none");
        let sentence = format!(
            "7 x there are no rooms at {domain} (remote-server-not-found); let --rooms name the \
             domain that has them"
        );
        assert!(reason.contains(&sentence), "{reason}");
    }
}

#[test]
fn a_size_that_the_rooms_address_does_not_leave_room_for_is_refused() {
    let small = format!("{SEVEN} --stanza-size 100");
    let reason = run(Fault::None, &small).expect_err("it is too small");
    // <message type='groupchat' to='room2@conference.bench'><body></body></message> and the mark.
    assert!(
        reason.contains("a stanza takes 132 bytes at least"),
        "{reason}"
    );
}

/// A worker on a thread of its own; it ends with the test.
fn start_worker() -> String {
    let words = ["loadgen", "worker", "--quiet"];
    let Some(Command::Worker(args)) = heed::read(words).expect("a worker").command else {
        panic!("a worker was asked for")
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    let features = ring::probe().expect("io_uring is needed here");
    std::thread::spawn(move || worker::serve(&listener, &args, features));
    address
}

#[test]
fn workers_have_whole_rooms() {
    let workers = [start_worker(), start_worker()].join(",");
    let options = format!("{SEVEN} --workers {workers}");
    let result = run(Fault::None, &options).expect("they enter");
    assert_verified(&result);
    let clients: Vec<u32> = result.workers.iter().map(|one| one.clients).collect();
    assert_eq!(clients, [3, 4]);
}
