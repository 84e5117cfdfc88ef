//! The worker as a process: it says where it listens, and whatever ends it ends the run.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;

use loadgen::{heed, run};

/// Started, with the address that it says.
fn start() -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_loadgen"))
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
    let (mut victim, address) = start();
    let (mut other, others) = start();
    let workers = format!("{others},{address}");
    let line = ["loadgen", "--quiet", "--tls", "none", "--password", "p"];
    let more = ["--clients", "4", "--port", &port, "--workers", &workers];
    let cli = heed::read(line.into_iter().chain(more)).expect("a line");
    let features = ring::probe().expect("io_uring is needed here");
    let reason = std::thread::scope(|scope| {
        let ran = scope.spawn(|| run::server(&cli.run, features).map(|_| ()));
        // All of them are logging in.
        let _clients: Vec<_> = accepted.iter().take(4).collect();
        victim.kill().expect("it is ours");
        ran.join()
            .expect("it does not panic")
            .expect_err("a worker is lost")
    });
    let sentence =
        format!("worker {address} went away; the run is over, and the others stop their clients");
    assert_eq!(reason, sentence);
    victim.wait().expect("it is ours");
    // The other one lives until it is told to end.
    assert!(other.try_wait().expect("it is ours").is_none());
    let ended = format!("kill -TERM {}", other.id());
    let told = Command::new("sh").args(["-c", &ended]).status();
    assert!(told.expect("there is a shell").success());
    other.wait().expect("it is ours");
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
