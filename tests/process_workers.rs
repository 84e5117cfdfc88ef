//! A run that is coordinated here and driven by workers, over real sockets to the real server.

mod support;

use loadgen::args::Command;
use loadgen::heed;
use loadgen::html;
use loadgen::result::RunResult;
use loadgen::run;
use loadgen::search;
use loadgen::table;
use loadgen::workers::protocol::{ANSWER_MAX, Build, Link, Order, Report, SILENCE_MAX};
use loadgen::workers::worker;
use loadgen::workers::worker::CONNECTIONS_MAX;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use support::{DOMAIN, Options, PASSWORD, Server};

/// How long a worker may take to be free again: its clients close their streams before.
const FREE_MAX: Duration = Duration::from_secs(60);
/// Between two looks at whether it is.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until there is something.
fn until_free<T>(look: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < FREE_MAX, "no place in {FREE_MAX:?}");
        std::thread::sleep(PAUSE);
    }
}

fn server() -> Server {
    Server::start(&Options {
        users: 24,
        clique: 4,
        ..Options::default()
    })
}

/// A worker on a thread of its own; it ends with the test.
fn worker(options: &[&str]) -> String {
    let words = ["loadgen", "worker", "--quiet"].iter().chain(options);
    let Some(Command::Worker(args)) = heed::read(words).expect("a worker").command else {
        panic!("a worker was asked for")
    };
    let (listener, address) = listen();
    let features = ring::probe().expect("io_uring is needed here");
    std::thread::spawn(move || worker::serve(&listener, &args, features));
    address
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    (listener, address)
}

/// What a run with these workers comes to.
fn run(server: SocketAddr, workers: &[&str], options: &str) -> Result<RunResult, String> {
    let (port, workers) = (server.port().to_string(), workers.join(","));
    let plain: &[&str] = if options.contains("--tls") {
        &[]
    } else {
        &["--tls", "none"]
    };
    let target = [&["--domain", DOMAIN, "--port", &port], plain].concat();
    let line = ["loadgen", "--quiet", "--workers", &workers];
    let options = options.split_whitespace();
    let cli = heed::read(line.into_iter().chain(target).chain(options)).expect("a line");
    let features = ring::probe().expect("io_uring is needed here");
    let ran = match cli.run.find_max {
        true => search::find_max(&cli.run, features)?,
        false => run::server(&cli.run, features)?,
    };
    Ok(ran.result)
}

/// A busy machine may make a run invalid; what was sent arrives all the same.
fn assert_verified(result: &RunResult) {
    let verdict = &result.verdict;
    assert!(verdict.is_clean(), "{verdict:?} {:?}", result.failures);
    assert_eq!(verdict.delivered, verdict.expected);
    assert!(verdict.delivered > 0);
    assert!(result.failures.is_empty(), "{:?}", result.failures);
}

/// What the whole says is what its parts say together.
fn assert_added(result: &RunResult) {
    let parts = || result.workers.iter();
    let sum = |count: fn(&loadgen::result::WorkerResult) -> u64| parts().map(count).sum::<u64>();
    let verdict = &result.verdict;
    assert_eq!(verdict.sent, sum(|worker| worker.verdict.sent));
    assert_eq!(verdict.delivered, sum(|worker| worker.verdict.delivered));
    assert_eq!(result.latency.count, sum(|worker| worker.latency.count));
    let lag = sum(|worker| worker.generator.lag.count);
    assert_eq!(result.generator.lag.count, lag);
    for (index, slice) in result.slices.iter().enumerate() {
        let sent: u64 = parts().map(|worker| worker.slices[index].sent).sum();
        assert_eq!(slice.sent, sent);
    }
}

#[test]
fn two_workers_share_the_clients_and_their_findings_are_added_up() {
    let server = server();
    let workers = [worker(&[]), worker(&["--threads", "2"])];
    let workers = workers.each_ref().map(String::as_str);
    let options = format!(
        "--password {PASSWORD} --clients 22 --rate 400 --arrivals fixed --partners 3 --warmup 0.2 \
         --duration 2 --server-pid {}",
        std::process::id()
    );
    let result = run(server.address(), &workers, &options).expect("it runs");
    assert_verified(&result);
    assert_added(&result);
    let of = |worker: &loadgen::result::WorkerResult| (worker.first, worker.clients);
    let shares: Vec<_> = result.workers.iter().map(of).collect();
    assert_eq!(shares, [(0, 10), (10, 12)]);
    let names: Vec<_> = result
        .workers
        .iter()
        .map(|worker| &worker.address)
        .collect();
    assert_eq!(names, workers);
    let threads: Vec<_> = result.workers.iter().map(|worker| worker.threads).collect();
    assert_eq!((threads, result.load.threads), (vec![1, 2], 3));
    // Every login is in the histograms of one of them.
    let login = result
        .phases
        .iter()
        .find(|phase| phase.name == "login in all");
    assert_eq!(login.expect("they logged in").count, 22);
    let seconds: u64 = result.timeline.iter().map(|point| point.delivered).sum();
    assert_eq!(seconds, result.latency.count, "each second of each worker");
    // All began together, to what a busy machine makes of it.
    for worker in &result.workers {
        assert!(worker.slices[0].at >= result.slices[0].at, "{worker:?}");
    }
    let shown = [table::render(&result), html::render(&result)];
    for (text, worker) in shown
        .iter()
        .flat_map(|text| workers.map(|worker| (text, worker)))
    {
        assert!(text.contains(worker), "{text}");
    }
    let server = result.server.expect("it was watched");
    assert!(server.cpu_per_million.is_some_and(|cpu| cpu > 0.0));
    let json = serde_json::to_value(&result.workers).expect("it is plain data");
    assert_eq!(json[1]["address"], workers[1]);
    assert!(json[1]["machine"]["kernel"].is_string());
}

#[test]
fn one_worker_does_one_job_after_another_of_every_kind() {
    let server = server();
    let workers = [worker(&[]), worker(&[])];
    let workers = workers.each_ref().map(String::as_str);
    let phases = "clients = 24\nclique = 4\n[[phase]]\nname = 'talk'\nduration = 0.7\nrate = 200\n\
                  clients = 8\nmix = { chat = 2, presence = 1, roster = 1, reconnect = 1 }\n\
                  [[phase]]\nduration = 0.3\nmix = { idle = 1 }\n\
                  [[phase]]\nname = 'closed'\nduration = 0.5\nwindow = 2\nmix = { presence = 1 }\n";
    let scenario = server.directory().join("phases.toml");
    let accounts = server.directory().join("accounts");
    std::fs::write(&scenario, phases).expect("the directory is writable");
    // A file that only the coordinator reads.
    let ca = server.directory().join(format!("data/tls/{DOMAIN}.crt"));
    let names: String = (0..24)
        .map(|number| format!("u{number}:{PASSWORD}\n"))
        .collect();
    std::fs::write(&accounts, names).expect("the directory is writable");
    let short = "--warmup 0.1 --duration 0.5";
    for (options, of_phases) in [
        (format!("--scenario login --closed --clients 6 {short}"), 0),
        (
            format!("--scenario presence --clique 4 --clients 24 --rate 40 {short}"),
            0,
        ),
        (
            format!(
                "--tls starttls --ca {} --clients 6 --closed {short}",
                ca.display()
            ),
            0,
        ),
        (
            format!("--closed --window 2 --clients 9 --stream-management {short}"),
            0,
        ),
        (format!("--scenario {} --warmup 0", scenario.display()), 3),
        (
            "--scenario resume --clients 24 --rate 100 --duration 0.5 --warmup 0".to_owned(),
            3,
        ),
    ] {
        let options = format!("--accounts {} {options}", accounts.display());
        let result = run(server.address(), &workers, &options).expect("it runs");
        assert_verified(&result);
        assert_added(&result);
        assert_eq!(result.scenario_phases.len(), of_phases);
        for (index, phase) in result.scenario_phases.iter().enumerate() {
            let parts = result.workers.iter();
            let parts = parts.map(|worker| worker.scenario_phases[index].latency.count);
            assert_eq!(phase.latency.count, parts.sum::<u64>());
        }
    }
    let idle = format!("--scenario idle --password {PASSWORD} --clients 24 {short}");
    let result = run(server.address(), &workers, &idle).expect("it runs");
    assert_eq!((result.workers.len(), result.verdict.sent), (2, 0));
    assert!(result.verdict.is_clean(), "{:?}", result.verdict);
    let search =
        format!("--password {PASSWORD} --clients 8 --rate 1 --find-max --slo p50<1us {short}");
    let error = run(server.address(), &workers, &search).expect_err("no rate is so quick");
    assert!(error.starts_with("--find-max: no rate meets"), "{error}");
}

#[test]
fn whose_clients_fail_is_named_and_the_others_stop() {
    let server = server();
    let workers = [worker(&[]), worker(&[])];
    let workers = workers.each_ref().map(String::as_str);
    // There are 24 accounts, all of the first worker.
    let options = format!("--password {PASSWORD} --clients 48 --rate 10");
    let error = run(server.address(), &workers, &options).expect_err("they have no accounts");
    let sentence = format!("worker {}: 24 of 24 clients failed to log in", workers[1]);
    assert!(error.starts_with(&sentence), "{error}");
    assert!(error.contains("\n  24 x "), "{error}");
    let again = format!("--password {PASSWORD} --clients 8 --closed --warmup 0 --duration 0.5");
    assert_verified(&when_free(|| run(server.address(), &workers, &again)));
}

/// What a run comes to when the workers have seen off the clients of the one before.
fn when_free(run: impl Fn() -> Result<RunResult, String>) -> RunResult {
    until_free(|| match run() {
        Ok(result) => Some(result),
        Err(reason) => {
            assert!(reason.contains("is busy"), "{reason}");
            None
        }
    })
}

/// Stands before a worker, and cuts the connection as soon as its clients have delivered something.
fn fragile_wire(worker: &str) -> String {
    let (listener, address) = listen();
    let worker = worker.to_owned();
    std::thread::spawn(move || {
        let (near, _) = listener.accept().expect("the coordinator connects");
        let far = TcpStream::connect(&worker).expect("the worker listens");
        let link = |stream| Link::new(stream).expect("it is connected");
        let (mut near, mut far) = (link(near), link(far));
        let split = |link: &Link| link.split().expect("a descriptor is free");
        let (mut orders, mut to_worker) = (split(&near), split(&far));
        std::thread::spawn(move || {
            while let Ok(order) = orders.receive::<Order>(SILENCE_MAX) {
                to_worker.send(&order).expect("nothing is cut yet");
            }
        });
        while let Ok(report) = far.receive::<Report>(SILENCE_MAX) {
            let cuts = matches!(&report, Report::Progress(progress) if progress.delivered > 0);
            near.send(&report).expect("nothing is cut yet");
            if cuts {
                break;
            }
        }
        near.close();
        far.close();
    });
    address
}

#[test]
fn a_worker_that_goes_away_ends_the_run_and_all_stop() {
    let server = server();
    let workers = [worker(&[]), worker(&[])];
    let wire = fragile_wire(&workers[1]);
    // Nothing but the cut ends it: it would take a day.
    let options = format!("--password {PASSWORD} --clients 24 --rate 100 --duration 86400");
    let error = run(server.address(), &[&workers[0], &wire], &options).expect_err("one is lost");
    let sentence =
        format!("worker {wire} went away; the run is over, and the others stop their clients");
    assert_eq!(error, sentence);
    // Both are free again: of whom the coordinator forgot, and who lost it.
    let workers = workers.each_ref().map(String::as_str);
    let again = format!("--password {PASSWORD} --clients 8 --closed --warmup 0 --duration 0.5");
    assert_verified(&when_free(|| run(server.address(), &workers, &again)));
}

/// One that greets as this build does, but for what `change` changes.
fn impostor(change: fn(&mut Build)) -> String {
    let (listener, address) = listen();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("the coordinator connects");
        let mut link = Link::new(stream).expect("it is connected");
        let Ok(Order::Hello(mut build)) = link.receive(ANSWER_MAX) else {
            panic!("a coordinator greets first")
        };
        change(&mut build);
        link.send(&Report::Welcome(build)).expect("it listens");
        // It brings nothing to such a one.
        assert!(link.receive::<Order>(ANSWER_MAX).is_err());
    });
    address
}

#[test]
fn a_worker_of_another_build_is_refused() {
    let other = impostor(|build| build.version = "0.0.9".into());
    let nowhere = "127.0.0.1:9".parse().expect("an address");
    let refusal = |worker: &str| {
        let options = "--password p --clients 4 --rate 1";
        run(nowhere, &[worker], options).expect_err("it is refused")
    };
    let own = env!("CARGO_PKG_VERSION");
    let sentence = format!(
        "worker {other} has version 0.0.9, and the coordinator {own}; start both from the same \
         build"
    );
    assert_eq!(refusal(&other), sentence);
    let other = impostor(|build| build.executable = Some("abc".into()));
    let reason = refusal(&other);
    assert!(reason.contains("has executable abc, "), "{reason}");
    let other = impostor(|build| build.executable = None);
    let reason = refusal(&other);
    assert!(reason.contains("its executable cannot be read"), "{reason}");
}

#[test]
fn a_busy_worker_and_one_that_is_none_are_named() {
    let nowhere = "127.0.0.1:9".parse().expect("an address");
    let refusal = |worker: &str| {
        let options = "--password p --clients 4 --rate 1";
        run(nowhere, &[worker], options).expect_err("it is refused")
    };
    let worker = worker(&[]);
    let stream = TcpStream::connect(&worker).expect("it listens");
    let mut link = Link::new(stream).expect("it is connected");
    let own = Build::own(String::new());
    link.send(&Order::Hello(Box::new(own))).expect("it listens");
    assert!(matches!(link.receive(ANSWER_MAX), Ok(Report::Welcome(_))));
    // Who is refused takes nobody's place.
    assert_eq!(refusal(&worker), refusal(&worker));
    let busy = refusal(&worker);
    let sentence =
        format!("worker {worker} is busy with another coordinator; wait, or leave it out");
    assert_eq!(busy, sentence);
    // The place is free when the other one has left.
    link.close();
    until_free(|| (!refusal(&worker).contains("is busy")).then_some(()));
    let (listener, address) = listen();
    drop(listener);
    let absent = refusal(&address);
    assert!(
        absent.contains("start `loadgen worker --listen HOST:PORT`"),
        "{absent}"
    );
    let (listener, address) = listen();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the coordinator connects");
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let other = refusal(&address);
    assert!(other.starts_with(&format!("worker {address} ")), "{other}");
    assert!(other.ends_with("is it a `loadgen worker`?"), "{other}");
}

#[test]
fn what_workers_do_not_heed_is_refused() {
    for (options, remedy) in [
        ("--with-floor", "nothing runs in turns"),
        ("--threads 2", "`loadgen worker` has its own"),
        ("--core 0", "`loadgen worker` has its own"),
    ] {
        let line = format!("loadgen --workers 127.0.0.1:1 --password p {options}");
        let refused = heed::read(line.split_whitespace()).expect_err(options);
        let heed::Refusal::Ignored(reason) = refused else {
            panic!("{options}: {refused:?}")
        };
        assert!(reason.contains(remedy), "{reason}");
    }
}

#[test]
fn a_worker_keeps_no_more_connections_than_it_has_room_for() {
    let worker = worker(&[]);
    let connect = || TcpStream::connect(&worker).expect("it listens");
    let silent: Vec<_> = (0..CONNECTIONS_MAX).map(|_| connect()).collect();
    let mut bytes = [0];
    let ended = connect().read(&mut bytes);
    assert_eq!(ended.expect("it is closed in order"), 0);
    drop(silent);
    let greets = || {
        let mut link = Link::new(connect()).expect("it is connected");
        let own = Build::own(String::new());
        // It may be closed before it is read from.
        let _ = link.send(&Order::Hello(Box::new(own)));
        link.receive::<Report>(ANSWER_MAX).is_ok()
    };
    until_free(|| greets().then_some(()));
}
