//! What the comparison with other servers rests on: `scripts/peers/prosody.sh` runs a server and
//! leaves nothing of it, and `scripts/peers/table.py` hides nothing of what it is given. The server
//! here is a stand-in that listens, so that the tests need no package.

#![allow(clippy::unwrap_used)] // helpers of tests may, as tests may

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A place under the target directory, empty.
fn place(name: &str) -> PathBuf {
    let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    // It is not there the first time.
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place).unwrap();
    place
}

/// What `loadgen --json` writes, so far as the table reads it.
fn run(rate: f64, cpu: f64) -> Value {
    json!({
        "began": 1, "command": ["loadgen"], "exit": 0, "reasons": [], "rate": rate,
        "commit": "0123abc", "machine": { "host": "here" }, "ring": "", "server_config": "x = 1\n",
        "server": { "cpu_per_million": cpu, "bytes_per_connection": cpu * 1000.0 },
        "latency": { "p50_us": 1.0, "p99_us": 2.0, "max_us": 3.0 },
        "verdict": { "sent": 9, "expected": 9, "delivered": 9, "own_copies": 4, "lost": 0 },
        "generator": { "busy": 0.5, "is_limit": false },
    })
}

const LOADS: [&str; 7] = [
    "chat-2000",
    "chat-100",
    "presence-20",
    "chat-2000-tls",
    "chat-100-tls",
    "memory-plain",
    "memory-tls",
];

/// One round in which every server was measured by every load.
fn everything(name: &str) -> PathBuf {
    let runs = place(name);
    for load in LOADS {
        for (server, cpu) in [("vorpal", 2.0), ("prosody", 30.0), ("ejabberd", 40.0)] {
            leave(&runs, load, server, 1, &run(1e6 / cpu, cpu));
        }
    }
    for load in &LOADS[..3] {
        leave(&runs, load, "floor", 1, &run(1e6, 1.0));
    }
    std::fs::write(
        runs.join("versions"),
        "prosody 0.12.3-1\nejabberd 23.01-1\n",
    )
    .unwrap();
    runs
}

fn leave(runs: &Path, load: &str, server: &str, round: u32, result: &Value) {
    let name = format!("{load}.{server}.{round}.json");
    std::fs::write(runs.join(name), result.to_string()).unwrap();
}

/// (what it ended with, what it printed, peers.json)
fn table(runs: &Path) -> (Option<i32>, String, Value) {
    let out = runs.join("out");
    std::fs::create_dir_all(&out).unwrap();
    let done = Command::new("python3")
        .arg(format!("{ROOT}/scripts/peers/table.py"))
        .args([runs, &out])
        .env("LOADGEN_COMMIT", "0123abc")
        .output()
        .expect("python3 is there");
    let printed = String::from_utf8_lossy(&done.stdout).into_owned();
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    let found = std::fs::read_to_string(out.join("peers.json")).unwrap_or_default();
    let found = serde_json::from_str(&found).unwrap_or(Value::Null);
    (done.status.code(), printed + &errors, found)
}

#[test]
fn a_table_has_the_middle_of_the_rounds_and_the_file_all_of_them() {
    let runs = everything("peers-rounds");
    leave(&runs, "chat-100", "prosody", 2, &run(1.0, 90.0));
    leave(&runs, "chat-100", "prosody", 3, &run(2.0, 50.0));
    let (code, printed, found) = table(&runs);
    assert_eq!(code, Some(0), "{printed}");
    assert!(
        printed.contains("| | Vorpal | Prosody 0.12.3 | ejabberd 23.01 | floor |"),
        "{printed}"
    );
    let row = "four outstanding: CPU seconds per million | 2 | 50 | 40 | 1 |\n\
               | of Vorpal's | 1x | 25x | 20x | 0.50x |";
    assert!(printed.contains(row), "{printed}");
    let prosody = &found["loads"]["chat-100"]["prosody"];
    let expected = json!({ "median": 50.0, "min": 30.0, "max": 90.0 });
    assert_eq!(prosody["cpu_per_million"], expected);
    assert_eq!(prosody["runs"].as_array().unwrap().len(), 3);
    assert_eq!(found["commit"], "0123abc");
    assert_eq!(found["servers"]["configs"]["ejabberd"], "x = 1\n");
    let plot = std::fs::read_to_string(runs.join("out/peers.svg")).unwrap();
    assert!(plot.starts_with("<svg") && plot.ends_with("</svg>\n"));
    let outside = plot.replace("http://www.w3.org/2000/svg", "");
    assert!(!outside.contains("http") && !outside.contains("nan"));
}

#[test]
fn what_a_peer_loses_or_refuses_is_told_and_so_is_whose_limit_a_rate_is() {
    let runs = everything("peers-faults");
    let mut lossy = run(1.0, 30.0);
    lossy["exit"] = 2.into();
    lossy["reasons"] = json!(["12 lost"]);
    lossy["verdict"]["lost"] = 12.into();
    leave(&runs, "chat-2000", "prosody", 1, &lossy);
    std::fs::remove_file(runs.join("chat-100-tls.ejabberd.1.json")).unwrap();
    let refused = "7 clients of 100 could not log in\n  7 x refused\n";
    std::fs::write(runs.join("chat-100-tls.ejabberd.1.failed"), refused).unwrap();
    let mut fast = run(500_000.0, 2.0);
    fast["generator"]["is_limit"] = true.into();
    leave(&runs, "chat-100", "vorpal", 1, &fast);
    // Half of its core, and the generator as idle.
    leave(&runs, "chat-2000", "vorpal", 1, &run(250_000.0, 2.0));
    let (code, printed, found) = table(&runs);
    for said in [
        "Prosody, chat-2000, round 1: 12 lost",
        "ejabberd, chat-100-tls, round 1: no result: 7 clients of 100 could not log in",
        "| deliveries a second | 500,000* |",
        "| deliveries a second | 250,000\u{2020} |",
        "\u{2020} Neither the server's core nor the generator's was used up",
        "* The generator's core was the limit",
    ] {
        assert!(printed.contains(said), "{said}: {printed}");
    }
    assert_eq!(code, Some(1), "ejabberd has no result of a load");
    let faults = &found["loads"]["chat-2000"]["prosody"]["runs"][0]["faults"];
    assert_eq!(*faults, json!({ "lost": 12 }));
}

#[test]
fn whose_limit_a_rate_is_the_round_that_is_shown_decides() {
    let runs = everything("peers-limits");
    let round = |load: &str, number, rate, is_limit: bool| {
        let mut result = run(rate, 2.0);
        result["generator"]["is_limit"] = is_limit.into();
        leave(&runs, load, "vorpal", number, &result);
    };
    for (load, limited) in [("chat-100", 490_000.0), ("chat-100-tls", 480_000.0)] {
        for (number, rate) in [(1, 490_000.0), (2, 470_000.0), (3, 480_000.0)] {
            round(load, number, rate, rate == limited);
        }
    }
    // The second of two, and the mean is shown.
    round("chat-2000", 1, 460_000.0, false);
    round("chat-2000", 2, 440_000.0, true);
    let (_, printed, _) = table(&runs);
    let rates = printed
        .lines()
        .filter(|line| line.starts_with("| deliveries a second |"));
    let rates: Vec<&str> = rates.filter_map(|line| line.split(" | ").nth(1)).collect();
    assert_eq!(
        rates,
        ["450,000*", "480,000", "500,000", "500,000", "480,000*"]
    );
}

/// Puts executable programs into a place, each with the text of a shell's script.
fn programs(place: &Path, texts: &[(&str, &str)]) {
    for (program, text) in texts {
        let path = place.join(program);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_comparison_goes_on_where_a_server_does_not_start_or_a_load_is_killed() {
    let home = place("peers-goes-on");
    let result = home.join("result");
    std::fs::write(&result, run(1e6, 1.0).to_string()).unwrap();
    let loadgen = format!(
        "case \"$*\" in *'--clients 2000'*) kill -KILL $$ ;; esac\n\
        while [ \"$1\" != --json ]; do shift; done; cp '{}' \"$2\"",
        result.display()
    );
    let vorpal = "case $1 in serve) echo 'no such disk'; exit 1 ;; esac";
    programs(
        &home,
        &[
            ("vorpal", vorpal),
            ("loadgen", &loadgen),
            ("prosody", "exit 1"),
            ("prosodyctl", "exit 1"),
            ("erl", "exit 1"),
            ("ejabberdctl", "exit 1"),
        ],
    );
    let path = std::env::var("PATH").unwrap();
    let port = ports().to_string();
    let done = Command::new(format!("{ROOT}/scripts/bench.sh"))
        .args(["--peers", "--port", &port, "--bin"])
        .arg(&home)
        .arg("--results")
        .arg(home.join("results"))
        .env("PATH", format!("{}:{path}", home.display()))
        .output()
        .unwrap();
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_eq!(done.status.code(), Some(1), "{said}");
    for note in [
        "Vorpal, chat-2000, round 1: no result: did not start: no such disk",
        "Vorpal, chat-100-tls, round 3: no result: did not start: no such disk",
        "floor, chat-2000, round 2: no result: was killed after ",
        "Prosody, memory-tls, round 1: no result: did not start: prosody: cannot make accounts",
    ] {
        assert!(said.contains(note), "{note}: {said}");
    }
    let row = "| deliveries a second | none | none | none | 1,000,000 |";
    assert_eq!(said.matches(row).count(), 2, "{said}");
}

#[test]
fn who_is_only_told_of_packages_is_told_of_each_once() {
    let ask = |arguments: &str| {
        let line = format!(". '{ROOT}/scripts/need.sh'; need --say me {arguments}");
        let done = Command::new("bash").args(["-uc", &line]).output().unwrap();
        let said = [done.stdout, done.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        (done.status.code(), said)
    };
    let says = "me: needs packages; run: apt-get install one two\n".to_owned();
    assert_eq!(ask("sh:dash /no/1:one no-2:two no-3:one"), (Some(1), says));
    assert_eq!(ask("sh:dash /:base"), (Some(0), String::new()));
}

#[test]
fn a_comparison_in_which_vorpal_loses_or_nothing_was_measured_is_red() {
    let runs = everything("peers-vorpal");
    let mut lossy = run(1.0, 30.0);
    lossy["exit"] = 2.into();
    leave(&runs, "presence-20", "vorpal", 1, &lossy);
    assert_eq!(table(&runs).0, Some(2));
    let (code, printed, found) = table(&place("peers-nothing"));
    assert!(printed.contains("nothing was measured below"), "{printed}");
    assert_eq!((code, found), (Some(1), Value::Null));
    let runs = everything("peers-broken");
    std::fs::write(runs.join("chat-100.floor.1.json"), "{}").unwrap();
    let (code, printed, _) = table(&runs);
    assert_eq!(code, Some(1));
    let said = "chat-100.floor.1.json is not what loadgen --json writes";
    assert!(printed.contains(said), "{printed}");
}

/// The script's directory for what is temporary, and a directory with stand-ins for Prosody, whose
/// server does what `serves` says in Python once it has read its configuration as `config`.
fn stand_ins(name: &str, serves: &str) -> (PathBuf, PathBuf) {
    let home = place(name);
    let (temporary, programs) = (home.join("tmp"), home.join("bin"));
    std::fs::create_dir_all(&temporary).unwrap();
    std::fs::create_dir_all(&programs).unwrap();
    let register = "#!/bin/sh\n\
        home=$(dirname \"$2\")/data/bench%2elocalhost/accounts\n\
        mkdir -p \"$home\" && echo key >\"$home/$4.dat\"\n";
    let server = format!(
        "#!/usr/bin/env python3\n\
        import pathlib, re, signal, socket, sys, time\n\
        config = pathlib.Path(sys.argv[2]).read_text()\n\
        {serves}\n"
    );
    for (program, text) in [("prosodyctl", register), ("prosody", &server)] {
        let path = programs.join(program);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    (temporary, programs)
}

const LISTENS: &str = "ports = re.findall(r'_ports = { (\\d+) }', config)\n\
    held = [socket.create_server(('127.0.0.1', int(port))) for port in ports]\n\
    signal.pause()";

fn prosody(stand_ins: &(PathBuf, PathBuf), arguments: &[&str]) -> Child {
    let path = std::env::var("PATH").unwrap();
    Command::new(format!("{ROOT}/scripts/peers/prosody.sh"))
        .args(arguments)
        .env("PATH", format!("{}:{path}", stand_ins.1.display()))
        .env("TMPDIR", &stand_ins.0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn ended(child: Child) -> (Option<i32>, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    let said = [stdout, stderr].concat();
    (status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// Two neighbouring ports that nobody listens on, below those that Linux gives to connections;
/// others at each call.
fn ports() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        // Test binaries that run beside each other begin apart.
        let place = std::process::id().wrapping_mul(64);
        let place = place.wrapping_add(TAKEN.fetch_add(2, Ordering::Relaxed));
        let port = 16_384 + (place % 16_384) as u16;
        if [port, port + 1]
            .iter()
            .all(|it| TcpListener::bind(("127.0.0.1", *it)).is_ok())
        {
            return port;
        }
    }
}

#[test]
fn a_peer_serves_until_it_is_told_to_stop_and_leaves_nothing() {
    let stand_ins = stand_ins("peers-serve", LISTENS);
    let ready = stand_ins.1.join("ready");
    let port = ports();
    let arguments = [
        "--port",
        &port.to_string(),
        "--accounts",
        "u%d:5:2",
        "--ready-file",
        ready.to_str().unwrap(),
    ];
    let mut child = prosody(&stand_ins, &arguments);
    // It says so when it serves: that is awaited, not a time.
    let mut said = String::new();
    let mut byte = [0];
    while !said.ends_with('\n') && child.stdout.as_mut().unwrap().read(&mut byte).unwrap() > 0 {
        said.push(char::from(byte[0]));
    }
    assert!(said.contains("accounts u%d:5:2, password bench"), "{said}");
    TcpStream::connect(("127.0.0.1", port)).unwrap();
    TcpStream::connect(("127.0.0.1", port + 1)).unwrap();
    let written = loop {
        // Written just behind what was said.
        if let Ok(written) = std::fs::read_to_string(&ready) {
            break written;
        }
        std::thread::yield_now();
    };
    let (pid, config) = written.trim().split_once(' ').unwrap();
    let text = std::fs::read_to_string(config).unwrap();
    assert!(text.contains("gc = { mode = \"generational\" }"), "{text}");
    let data = Path::new(config).parent().unwrap();
    let data = data.join("data/bench%2elocalhost");
    let account = |name| std::fs::read_to_string(data.join(name)).unwrap();
    assert_eq!(account("accounts/u4.dat"), "key\n");
    assert!(
        account("roster/u3.dat").contains("[\"u2@bench.localhost\"] = { subscription = \"both\"")
    );
    assert!(
        !account("roster/u4.dat").contains('@'),
        "alone in the last clique"
    );
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");

    let told = Command::new("kill").arg(child.id().to_string()).status();
    assert!(told.unwrap().success());
    let (code, said) = ended(child);
    assert_eq!(code, Some(0), "{said}");
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the server");
    assert!(!ready.exists(), "the ready file");
    assert_eq!(std::fs::read_dir(&stand_ins.0).unwrap().count(), 0);
}

#[test]
fn a_peer_that_does_not_serve_says_why_and_leaves_nothing() {
    let dies = "sys.exit('no such module')";
    for (name, serves, says) in [
        ("peers-dies", dies, "no such module"),
        (
            "peers-taken",
            LISTENS,
            "is taken; choose two others with --port",
        ),
    ] {
        let stand_ins = stand_ins(name, serves);
        let port = ports();
        let _held =
            (serves == LISTENS).then(|| TcpListener::bind(("127.0.0.1", port + 1)).unwrap());
        let (code, said) = ended(prosody(&stand_ins, &["--port", &port.to_string()]));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(says), "{said}");
        assert_eq!(std::fs::read_dir(&stand_ins.0).unwrap().count(), 0);
    }
}

#[test]
fn what_a_peer_cannot_do_is_refused_in_a_sentence() {
    let stand_ins = stand_ins("peers-refuse", LISTENS);
    for (arguments, says) in [
        (
            &["--port", "65535"][..],
            "--port takes 1 to 65534, not 65535",
        ),
        (
            &["--core", "9999"],
            "--core takes the number of a core that is there, not 9999",
        ),
        (
            &["--accounts", "u:5:1"],
            "--accounts takes NAME:COUNT:CLIQUE as in u%d:100:20, not u:5:1",
        ),
        (&["--accounts"], "--accounts takes a value (try --help)"),
        (&["--fast"], "unknown argument --fast (try --help)"),
    ] {
        let (code, said) = ended(prosody(&stand_ins, arguments));
        assert_eq!((code, said), (Some(1), format!("prosody: {says}\n")));
    }
    // Where the packages are not there they are named.
    let bare = place("peers-bare");
    for program in ["bash", "dirname", "basename", "taskset", "openssl"] {
        let path = Command::new("which").arg(program).output().unwrap().stdout;
        let path = String::from_utf8(path).unwrap();
        std::os::unix::fs::symlink(path.trim(), bare.join(program)).unwrap();
    }
    std::os::unix::fs::symlink("/bin/true", bare.join("true")).unwrap();
    let done = Command::new(bare.join("bash"))
        .arg(format!("{ROOT}/scripts/peers/prosody.sh"))
        .env("PATH", &bare)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    let says = "prosody: needs packages; run: apt-get install prosody mawk\n";
    assert_eq!((done.status.code(), said.as_str()), (Some(1), says));
}
