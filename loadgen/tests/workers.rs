//! The worker as a process: it says where it listens, and whatever ends it ends the run.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;

use loadgen::{heed, run};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_loadgen");

/// Started, with the address that it says.
fn start(executable: &Path) -> (Child, String) {
    let directory = executable.parent().expect("it lies somewhere");
    let mut child = Command::new(executable)
        .current_dir(directory)
        .args(["worker", "--listen", "127.0.0.1:0", "--quiet"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    let mut line = String::new();
    let out = child.stdout.take().expect("it is piped");
    BufReader::new(out)
        .read_line(&mut line)
        .expect("it says a line");
    let address = line
        .trim_end()
        .strip_prefix("loadgen worker: listening on ");
    let address = address.unwrap_or_else(|| panic!("{line}")).to_owned();
    (child, address)
}

#[test]
fn a_worker_that_is_killed_ends_the_run_with_its_name() {
    // A server that accepts everybody and says nothing.
    let server = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = server.local_addr().expect("it is bound").port().to_string();
    let (sender, accepted) = channel();
    std::thread::spawn(move || {
        for stream in server.incoming() {
            if sender.send(stream).is_err() {
                return;
            }
        }
    });
    let (mut victim, address) = start(Path::new(EXECUTABLE));
    // A copy elsewhere, where git says something else or nothing, is of the same build.
    let elsewhere = std::env::temp_dir().join(format!("loadgen-copy-{}", std::process::id()));
    std::fs::create_dir_all(&elsewhere).expect("it is writable");
    let copy = elsewhere.join("loadgen");
    // By another process: a child of another test must not have it open for writing.
    let copied = Command::new("cp").arg(EXECUTABLE).arg(&copy).status();
    assert!(copied.expect("it is installed").success());
    let (mut other, others) = start(&copy);
    std::fs::remove_dir_all(&elsewhere).expect("it is ours");
    let workers = format!("{others},{address}");
    let mut coordinator = Command::new(EXECUTABLE)
        .args([
            "--quiet",
            "--tls",
            "none",
            "--password",
            "p",
            "--clients",
            "4",
        ])
        .args(["--port", &port, "--workers", &workers])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    // All of them are logging in.
    let clients = accepted.iter().take(4);
    let _clients: Vec<_> = clients.collect();
    victim.kill().expect("it is ours");
    let mut said = String::new();
    let mut errors = coordinator.stderr.take().expect("it is piped");
    errors.read_to_string(&mut said).expect("it says a line");
    let status = coordinator.wait().expect("it is ours");
    let sentence =
        format!("worker {address} went away; the run is over, and the others stop their clients");
    assert_eq!(said, format!("loadgen: {sentence}\n"));
    assert_eq!(status.code(), Some(1));
    victim.wait().expect("it is ours");
    // The other one lives until it is told to end.
    assert!(other.try_wait().expect("it is ours").is_none());
    let ended = format!("kill -TERM {}", other.id());
    let told = Command::new("sh").args(["-c", &ended]).status();
    assert!(told.expect("there is a shell").success());
    other.wait().expect("it is ours");
}

#[test]
fn a_worker_of_another_executable_is_refused() {
    // The coordinator is this test.
    let (mut worker, address) = start(Path::new(EXECUTABLE));
    let line = ["loadgen", "--quiet", "--tls", "none", "--password", "p"];
    let more = ["--clients", "4", "--port", "9", "--workers", &address];
    let cli = heed::read(line.into_iter().chain(more)).expect("a line");
    let features = ring::probe().expect("io_uring is needed here");
    let ran = run::server(&cli.run, features).map(|_| ());
    worker.kill().expect("it is ours");
    worker.wait().expect("it is ours");
    let reason = ran.expect_err("it is another build");
    let begin = format!("worker {address} has executable ");
    assert!(reason.starts_with(&begin), "{reason}");
    let end = "(SHA-256); start both from the same build";
    assert!(reason.ends_with(end), "{reason}");
}

#[test]
fn an_address_that_is_not_this_machines_is_refused_with_the_remedy() {
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["worker", "--listen", "192.0.2.1:1"])
        .output()
        .expect("the binary was built");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--listen 192.0.2.1:1: "), "{said}");
    assert!(said.contains("give HOST:PORT of this machine"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}
