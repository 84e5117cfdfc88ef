//! The command line as real processes: what it answers, and that it works beside a running server.

#![allow(clippy::unwrap_used)] // helpers of tests may, as tests may

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const VORPAL: &str = env!("CARGO_BIN_EXE_vorpal");

/// A server that does not come up, or does not go down, within this is broken.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A configuration in a directory of its own, removed with the value.
struct World {
    directory: PathBuf,
    server: Option<Child>,
}

impl World {
    fn new() -> World {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("vorpal-cli-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        let world = World {
            directory,
            server: None,
        };
        world.configure("");
        world
    }

    /// Writes the configuration, with `more` at its end.
    fn configure(&self, more: &str) {
        let data = self.data();
        let text = format!(
            "domain = \"a.example\"\ndata = {data:?}\nshards = 1\n\n[listen]\n\
             c2s = [\"127.0.0.1:0\"]\nc2s_tls = []\n{more}"
        );
        std::fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.directory.join("vorpal.toml")
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.directory.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(VORPAL);
        command.args(arguments).arg("--config").arg(self.config());
        command
    }

    fn run(&self, arguments: &[&str]) -> Answer {
        self.run_with(arguments, "")
    }

    fn run_with(&self, arguments: &[&str], stdin: &str) -> Answer {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that wants nothing from stdin may be gone already.
        let _taken = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        Answer::of(arguments, &child.wait_with_output().unwrap())
    }

    fn start(&mut self, arguments: &[&str]) {
        let ready = self.directory.join("ready");
        let mut child = self
            .command(&["serve"])
            .arg("--ready-file")
            .arg(&ready)
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while !ready.exists() {
            assert_eq!(child.try_wait().unwrap(), None, "the server ended at once");
            assert!(started.elapsed() < WAIT_MAX, "the server did not come up");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.server = Some(child);
    }

    /// Ends the server by SIGTERM, which it must obey with success.
    fn stop(&mut self) {
        let mut child = self.server.take().unwrap();
        // The shell's own `kill`: the program is not on every machine.
        let line = format!("kill -TERM {}", child.id());
        let told = Command::new("sh").args(["-c", &line]).status().unwrap();
        assert!(told.success());
        let started = Instant::now();
        loop {
            match child.try_wait().unwrap() {
                Some(status) => return assert!(status.success(), "the server ended with {status}"),
                None if started.elapsed() > WAIT_MAX => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    panic!("the server did not obey SIGTERM");
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut child) = self.server.take() {
            let _ended = child.kill();
            let _reaped = child.wait();
        }
        let _best_effort = std::fs::remove_dir_all(&self.directory);
    }
}

/// What a command said.
struct Answer {
    asked: String,
    success: bool,
    out: String,
    err: String,
}

impl Answer {
    fn of(arguments: &[&str], output: &Output) -> Answer {
        Answer {
            asked: arguments.join(" "),
            success: output.status.success(),
            out: String::from_utf8(output.stdout.clone()).unwrap(),
            err: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }

    /// It succeeded; what it printed.
    fn done(self) -> String {
        assert!(self.success, "`{}` failed: {}", self.asked, self.err);
        self.out
    }

    /// It failed; what it complained of.
    fn refused(self) -> String {
        assert!(!self.success, "`{}` succeeded: {}", self.asked, self.out);
        assert!(
            !self.err.contains("panicked"),
            "`{}`: {}",
            self.asked,
            self.err
        );
        self.err
    }
}

/// Whether one complaint is one sentence with everything in it.
fn mentions(complaint: &str, parts: &[&str]) {
    for part in parts {
        assert!(
            complaint.contains(part),
            "{part:?} is missing in: {complaint}"
        );
    }
}

/// All that the user commands do, which must be the same with and without a server.
fn account_walk(world: &World) {
    assert_eq!(world.run(&["user", "list"]).done(), "");
    world
        .run(&["user", "add", "romeo@a.example", "--password", "o1"])
        .done();
    world
        .run_with(&["user", "add", "juliet"], "o2 with spaces\n")
        .done();
    assert_eq!(
        world.run(&["user", "list"]).done(),
        "juliet@a.example\nromeo@a.example\n"
    );

    let again = world
        .run(&["user", "add", "Romeo", "--password", "o3"])
        .refused();
    mentions(
        &again,
        &["romeo@a.example", "exists already", "user passwd"],
    );
    let foreign = world
        .run(&["user", "add", "romeo@b.example", "--password", "o4"])
        .refused();
    mentions(&foreign, &["romeo@b.example", "a.example"]);
    let unsafe_name = world
        .run(&["user", "add", "stra\u{df}e", "--password", "o5"])
        .refused();
    mentions(&unsafe_name, &["stra\u{df}e", "choose another"]);
    let silent = world.run(&["user", "add", "mercutio"]).refused();
    mentions(&silent, &["no password", "--password"]);
    let empty = world.run_with(&["user", "add", "mercutio"], "\n").refused();
    mentions(&empty, &["password", "choose another"]);

    world
        .run(&["user", "passwd", "romeo", "--password", "n1"])
        .done();
    let missing = world
        .run(&["user", "passwd", "nobody", "--password", "n2"])
        .refused();
    mentions(&missing, &["no account nobody@a.example", "user list"]);
    mentions(
        &world.run(&["user", "del", "nobody"]).refused(),
        &["no account nobody@a.example"],
    );
    world.run(&["user", "del", "romeo@a.example"]).done();
    assert_eq!(world.run(&["user", "list"]).done(), "juliet@a.example\n");
    world.run(&["user", "del", "juliet"]).done();

    let made = [
        "user",
        "make",
        "u%d",
        "--count",
        "5000",
        "--password",
        "p",
        "--clique",
        "4",
    ];
    let answer = world.run(&made);
    mentions(&answer.err, &["unsafe"]);
    mentions(&answer.done(), &["Made 5000 accounts"]);
    mentions(
        &world.run(&made).done(),
        &["Made 0 accounts", "5000 existed"],
    );
    let listed = world.run(&["user", "list"]).done();
    assert_eq!(listed.lines().count(), 5000);
    assert!(listed.lines().is_sorted(), "a listing is ordered");
}

#[test]
fn check_accepts_five_lines() {
    let world = World::new();
    let text = format!(
        "domain = \"a.example\"\ndata = {:?}\n\n[listen]\nc2s = [\"127.0.0.1:5222\"]\n",
        world.data()
    );
    std::fs::write(world.config(), text).unwrap();
    mentions(&world.run(&["check"]).done(), &["a.example"]);
}

#[test]
fn check_refuses_unknown_keys_and_bad_values_with_file_and_line() {
    let world = World::new();
    let line = std::fs::read_to_string(world.config())
        .unwrap()
        .lines()
        .count()
        + 3;
    for wrong in [
        "mechanism = [\"PLAIN\"]",
        "anonymous = \"perhaps\"",
        "mechanisms = [\"MD5\"]",
    ] {
        world.configure(&format!("\n[auth]\n{wrong}\n"));
        let place = format!("{}:{line}", world.config().display());
        for command in [&["check"][..], &["serve"], &["user", "list"]] {
            let complaint = world.run(command).refused();
            mentions(&complaint, &[&place]);
        }
    }
    std::fs::write(world.config(), "shards = 1\n").unwrap();
    mentions(&world.run(&["check"]).refused(), &["domain"]);
    std::fs::remove_file(world.config()).unwrap();
    mentions(&world.run(&["check"]).refused(), &["vorpal.toml"]);
}

#[test]
fn check_refuses_in_the_words_of_serve_what_needs_no_socket_to_be_known() {
    let world = World::new();
    let file = world.file("file", "");
    let listen = "[listen]\nc2s = \"127.0.0.1:0\"\nc2s_tls = []\n";
    for (text, line) in [
        (format!("data = {file:?}\n{listen}"), 2),
        (format!("data = \"{file}/below\"\n{listen}"), 2),
        (
            "[listen]\nc2s = [\"127.0.0.1:1\", \"127.0.0.1:1\"]\n".to_owned(),
            3,
        ),
    ] {
        std::fs::write(world.config(), format!("domain = \"a.example\"\n{text}")).unwrap();
        let checked = world.run(&["check"]).refused();
        mentions(
            &checked,
            &[&format!("{}:{line}: ", world.config().display())],
        );
        assert_eq!(checked.trim_end().lines().count(), 1, "{checked}");
        assert_eq!(world.run(&["serve"]).refused(), checked);
    }
}

#[test]
fn accounts_are_managed_without_a_server() {
    let world = World::new();
    account_walk(&world);
    assert!(!world.data().join("admin.sock").exists());
}

#[test]
fn accounts_are_managed_beside_a_running_server_and_outlive_it() {
    let mut world = World::new();
    world.start(&[]);
    account_walk(&world);
    world.stop();
    assert_eq!(world.run(&["user", "list"]).done().lines().count(), 5000);
}

#[test]
fn an_ephemeral_server_forgets_its_accounts() {
    let mut world = World::new();
    world
        .run(&["user", "add", "kept", "--password", "o1"])
        .done();
    world.start(&["--ephemeral"]);
    world
        .run(&["user", "add", "lost", "--password", "o1"])
        .done();
    assert_eq!(world.run(&["user", "list"]).done(), "lost@a.example\n");
    world.stop();
    assert_eq!(world.run(&["user", "list"]).done(), "kept@a.example\n");
}

#[test]
fn a_store_in_use_without_an_admin_socket_is_one_sentence() {
    let mut world = World::new();
    world.start(&[]);
    std::fs::remove_file(world.data().join("admin.sock")).unwrap();
    let complaint = world.run(&["user", "list"]).refused();
    mentions(&complaint, &["Another process", "store", "admin socket"]);
    assert_eq!(complaint.trim_end().lines().count(), 1, "{complaint}");
    mentions(&world.run(&["serve"]).refused(), &["in use"]);
}

#[test]
fn an_import_names_its_bad_lines_and_then_imports_nothing() {
    let world = World::new();
    let file = world.file("users", "a:x\n\nb\nc:y\na:z\nd:SCRAM-SHA-1$1:x$y:z\n");
    let complaint = world.run(&["user", "import", &file]).refused();
    for (line, remedy) in [(3, "name:password"), (5, "line 1"), (6, "iterations:salt")] {
        mentions(&complaint, &[&format!("{file}:{line}: "), remedy]);
    }
    assert_eq!(world.run(&["user", "list"]).done(), "");
    mentions(
        &world.run(&["user", "import", "/nonexistent"]).refused(),
        &["/nonexistent"],
    );
}

#[test]
fn an_import_leaves_what_exists_and_says_so() {
    let world = World::new();
    world
        .run(&["user", "add", "b", "--password", "before"])
        .done();
    let key = "00".repeat(20);
    let file = world.file(
        "users",
        &format!("a:x\nb:y\nc:{{SCRAM-SHA-1}}4096:salt:{key}:{key}\n"),
    );
    let answer = world.run(&["user", "import", &file]);
    mentions(&answer.out, &["Imported 2 accounts", "1 existed"]);
    mentions(
        &answer.refused(),
        &[
            &format!("{file}:2: b@a.example exists"),
            "SCRAM hashes only",
        ],
    );
    let listed = "a@a.example\nb@a.example\nc@a.example\n";
    assert_eq!(world.run(&["user", "list"]).done(), listed);
    mentions(
        &world.run(&["user", "import", &file]).out,
        &["Imported 0 accounts", "3 existed"],
    );
}

#[test]
fn no_password_lies_in_the_data_directory_and_nobody_else_may_look() {
    use std::os::unix::fs::PermissionsExt;

    let world = World::new();
    let password = "correct horse battery staple";
    world
        .run(&["user", "add", "romeo", "--password", password])
        .done();
    let mut found = 0;
    let mut waiting = vec![world.data()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let contains = |text: &str| {
            bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        };
        assert!(!contains(password), "{} has the password", path.display());
        found += usize::from(contains("romeo@a.example"));
    }
    assert!(found > 0, "the account lies there");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&world.data().join("store")), 0o700);
}

#[test]
fn what_has_no_effect_is_warned_of_by_check_and_in_the_log() {
    let world = World::new();
    world.configure("[auth]\nplain_without_tls = true\n");
    let checked = world.run(&["check"]);
    let place = format!("{}:9: auth.plain_without_tls", world.config().display());
    mentions(&checked.err, &[&place, "tls.required"]);
    mentions(&checked.done(), &["a.example"]);
    // The log is on standard error, too, and this does not come up.
    let served = world.run(&["serve", "--ready-file", "/nowhere/ready"]);
    mentions(&served.refused(), &[&place]);
}

#[test]
fn a_ready_file_stays_while_its_server_runs_and_no_longer() {
    let mut world = World::new();
    world.start(&[]);
    let ready = world.directory.join("ready");
    let serve = ["serve", "--ready-file", ready.to_str().unwrap()];
    world.run(&serve).refused();
    assert!(ready.exists(), "another server has the store, and is ready");
    let mut child = world.server.take().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ready.exists(), "nobody removed it");
    world.configure("[wrong]\n");
    world.run(&serve).refused();
    assert!(!ready.exists(), "nothing is ready");
}

#[test]
fn a_server_that_may_lock_no_memory_says_what_to_do() {
    let world = World::new();
    let config = world.config();
    let served = Command::new("prlimit")
        .args(["--memlock=4096", VORPAL, "serve", "--config"])
        .arg(config)
        .output()
        .expect("prlimit of util-linux is there");
    let answer = Answer::of(&["serve"], &served);
    let complaint = answer.refused();
    mentions(&complaint, &["524288 bytes", "4096", "ulimit -l"]);
}

#[test]
fn a_store_of_another_domain_is_not_served_but_managed() {
    let world = World::new();
    world
        .run(&["user", "add", "romeo", "--password", "secret"])
        .done();
    let config = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), config.replace("a.example", "b.example")).unwrap();
    let refusal = world.run(&["serve"]).refused();
    let place = format!("{}:1: ", world.config().display());
    let data = world.data();
    let data = data.to_str().unwrap();
    mentions(
        &refusal,
        &[&place, "a.example", "b.example", data, "`data`"],
    );
    mentions(&world.run(&["user", "list"]).done(), &["romeo@a.example"]);
}
