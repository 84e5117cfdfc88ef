//! The store on a disk that refuses for a while: the limit on file sizes stands for a full one.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::*;
use crate::conformance::{account, create, one, wait, waiting};
use crate::crash::Scratch;

const CHILD_DIRECTORY: &str = "VORPAL_STORE_TEST_FULL";

#[test]
#[ignore = "not a test by itself: the process whose disk the next test fills"]
fn child_that_writes_on_a_disk_that_fills() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else {
        return;
    };
    let mut store = Embedded::open(Path::new(&directory)).unwrap();
    one(&mut store, create("a@b.example", 1));
    for number in 0.. {
        let text = match one(
            &mut store,
            wait("a@b.example", &number.to_string(), u32::MAX),
        ) {
            StoreReply::Done => format!("acked {number}"),
            StoreReply::Failed(_) => {
                let read = one(&mut store, account("a@b.example"));
                std::thread::sleep(Duration::from_millis(20));
                let is_read = matches!(read, StoreReply::Account(Some(_)));
                format!("failed {number} {is_read}")
            }
            other => panic!("{other:?}"),
        };
        println!("{text}");
        std::io::stdout().flush().unwrap();
    }
}

struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    acked: Vec<u64>,
}

impl Running {
    /// The signal of the limit must be ignored from the start, so a shell is between.
    fn start(scratch: &Scratch) -> Running {
        let test = "recover::tests::child_that_writes_on_a_disk_that_fills";
        let mut child = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", test, "--nocapture"])
            .env(CHILD_DIRECTORY, &scratch.0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Running {
            child,
            lines,
            acked: Vec::new(),
        }
    }

    fn limit(&self, size: &str) {
        let pid = self.child.id().to_string();
        let limit = format!("--fsize={size}:unlimited");
        let done = Command::new("prlimit")
            .args(["--pid", &pid, &limit])
            .status()
            .unwrap();
        assert!(done.success());
    }

    /// Reads on until `count` lines of this kind came.
    fn read(&mut self, kind: &str, count: usize) {
        let mut found = 0;
        while found < count {
            let line = self.lines.next().expect("the child lives").unwrap();
            if let Some((_, number)) = line.split_once("acked ") {
                self.acked.push(number.parse().unwrap());
            }
            if line.contains("failed ") {
                assert!(line.ends_with("true"), "reads go on: {line}");
            }
            found += usize::from(line.contains(kind));
        }
    }
}

#[test]
fn a_full_disk_fails_writes_and_is_recovered_from_without_a_restart() {
    let scratch = Scratch::new();
    let mut running = Running::start(&scratch);
    running.read("acked ", 50);
    for _ in 0..2 {
        running.limit("4096");
        running.read("failed ", 60);
        running.limit("unlimited");
        running.read("acked ", 50);
    }
    running.child.kill().unwrap();
    while let Some(Ok(line)) = running.lines.next() {
        if let Some((_, number)) = line.split_once("acked ") {
            running.acked.push(number.parse().unwrap());
        }
    }
    running.child.wait().unwrap();
    let mut store = Embedded::open(&scratch.0).unwrap();
    let there: std::collections::BTreeSet<u64> = waiting(&mut store, "a@b.example")
        .into_iter()
        .map(|(_, text)| text.parse().unwrap())
        .collect();
    let lost: Vec<_> = running
        .acked
        .iter()
        .filter(|number| !there.contains(number))
        .collect();
    assert!(lost.is_empty(), "answered and gone: {lost:?}");
}
