//! How many instructions the hot path takes, counted by valgrind and held to limits.
//!
//! `cargo bench -p sim --bench instructions` runs this program under callgrind, each case with a
//! small and a large number of rounds; the difference is the case alone, start-up falls out. It
//! fails, with the numbers, where a case takes more than `tests/instructions.toml` allows, or so
//! much less that it cannot have done its work.
//! `-- --write` writes what was measured, and the margin, into that file.

use sim::direct::{Direct, Seat};
use sim::scram::Scram;
use stanza::frame::{Frame, Limits, Scanner};
use stanza::scope::StreamScope;
use stanza::view::StanzaView;
use stanza::writer::restamp;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use xmpp::Settings;
use xmpp::stream::sasl::{
    Exchange, First, Mechanism, NONCE_SIZE, Offer, SALT_SIZE, begin, decode, derive_credentials,
    encode,
};

const CASES: [&str; 7] = [
    "scan",
    "view",
    "restamp",
    "route",
    "route-across",
    "fanout",
    "scram",
];

/// Rounds of the two runs of a case.
const ROUNDS: (u64, u64) = (50, 250);

/// How far above what was measured a limit is set, in per cent.
const MARGIN: u64 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, case, rounds] = arguments.as_slice()
        && flag == "--case"
    {
        run(case, rounds.parse().expect("rounds are a number"));
        return ExitCode::SUCCESS;
    }
    let measured = CASES.map(|case| (case, measure(case)));
    if arguments.iter().any(|argument| argument == "--write") {
        write_limits(&measured);
        return ExitCode::SUCCESS;
    }
    let limits = std::fs::read_to_string(limits_path()).expect("tests/instructions.toml is there");
    let mut passed = true;
    for (case, count) in measured {
        let limit = limit_of(&limits, case).unwrap_or_else(|| panic!("no limit for {case}"));
        let verdict = match count {
            _ if count > limit => "TOO MANY",
            // Less than half is no gain that came unnoticed: the work was optimised away.
            _ if count < limit / 2 => "TOO FEW",
            _ => "ok",
        };
        println!("instructions: {case:14} {count:8} measured {limit:8} allowed  {verdict}");
        passed &= verdict == "ok";
    }
    if passed {
        return ExitCode::SUCCESS;
    }
    println!(
        "instructions: a case takes more than tests/instructions.toml allows, or less than half \
         of it; make it cheaper, see that it still does its work, or set the limit anew with a \
         reason: cargo bench -p sim --bench instructions -- --write"
    );
    ExitCode::FAILURE
}

fn limits_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/instructions.toml")
}

fn limit_of(limits: &str, case: &str) -> Option<u64> {
    let value = |line: &str| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == case).then(|| value.trim().parse().ok())?
    };
    limits.lines().find_map(value)
}

fn write_limits(measured: &[(&str, u64)]) {
    let mut text = format!(
        "# The most instructions that one round of each case of bench/instructions.rs may\n\
         # take: what was measured, and {MARGIN} per cent. Valgrind counts, and gives the same\n\
         # number each time but for one or two; the toolchain is pinned.\n"
    );
    for (case, count) in measured {
        let limit = count + count * MARGIN / 100;
        writeln!(text, "{case} = {limit}").expect("a String takes all");
        println!("instructions: {case:14} {count:8} measured {limit:8} written");
    }
    std::fs::write(limits_path(), text).expect("tests/instructions.toml can be written");
}

/// Instructions of one round.
fn measure(case: &str) -> u64 {
    let (few, many) = ROUNDS;
    let difference = count(case, many).saturating_sub(count(case, few));
    difference / (many - few)
}

/// Instructions of a whole run under callgrind.
fn count(case: &str, rounds: u64) -> u64 {
    let program = std::env::current_exe().expect("this program is a file");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--case", case, &rounds.to_string()])
        .output()
        .expect("valgrind is installed: apt-get install valgrind");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{case} failed under valgrind:\n{text}"
    );
    let collected = text
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, number) = collected.unwrap_or_else(|| panic!("callgrind says no number:\n{text}"));
    number.trim().parse().expect("callgrind's number is one")
}

const MESSAGE: &[u8] = b"<message to='romeo@example.org/orchard' type='chat' id='m-1234567'>\
    <body>Neither, fair saint, if either thee dislike.</body>\
    <active xmlns='http://jabber.org/protocol/chatstates'/></message>";

fn run(case: &str, rounds: u64) {
    let scope = StreamScope::client();
    match case {
        "scan" => {
            let mut scanner = Scanner::headless(Limits::default());
            repeat(rounds, || match scanner.next(black_box(MESSAGE)) {
                Ok(Frame::Element(size)) => assert_eq!(size, MESSAGE.len()),
                other => panic!("{other:?}"),
            });
        }
        "view" => repeat(rounds, || {
            black_box(StanzaView::parse(black_box(MESSAGE), &scope).expect("it is well-formed"));
        }),
        "restamp" => {
            let view = StanzaView::parse(MESSAGE, &scope).expect("it is well-formed");
            let mut out = Vec::with_capacity(4096);
            repeat(rounds, || {
                out.clear();
                let (from, to) = ("juliet@example.org/balcony", "romeo@example.org/orchard");
                restamp(black_box(&view), &scope, from, to, &mut out).expect("it is plain");
            });
        }
        "route" => route(1, rounds),
        "route-across" => route(2, rounds),
        "fanout" => fanout(rounds),
        "scram" => scram(rounds),
        other => panic!("{other} is no case"),
    }
}

fn repeat(rounds: u64, mut work: impl FnMut()) {
    for _ in 0..rounds {
        work();
    }
}

fn available(direct: &mut Direct, name: &str) -> Seat {
    let seat = direct.login(name);
    direct.say(seat, b"<presence/>");
    direct.end_turn();
    seat
}

/// A message between two clients, on one shard or from one to the other.
fn route(shards: u16, rounds: u64) {
    let mut direct = Direct::new(shards);
    let (from, to) = (direct.name(0, 1), direct.name(shards - 1, 2));
    direct.account(&from, &[]);
    direct.account(&to, &[]);
    let (alice, bob) = (available(&mut direct, &from), available(&mut direct, &to));
    let text = String::from_utf8_lossy(MESSAGE);
    let text = text.replace("romeo@example.org/orchard", &format!("{to}@example.org/r"));
    repeat(rounds, || {
        direct.say(alice, black_box(text.as_bytes()));
        assert!(direct.output(bob).len() > 200);
        direct.end_turn();
    });
}

/// A presence to twenty contacts on two shards.
fn fanout(rounds: u64) {
    let mut direct = Direct::new(2);
    let names: Vec<String> = (0..=20)
        .map(|number| direct.name(number % 2, number.into()))
        .collect();
    direct.account(&names[0], &names[1..]);
    for name in &names[1..] {
        direct.account(name, &names[..1]);
    }
    let seats: Vec<Seat> = names
        .iter()
        .map(|name| available(&mut direct, name))
        .collect();
    repeat(rounds, || {
        direct.say(
            seats[0],
            black_box(b"<presence><show>away</show></presence>"),
        );
        assert!(!direct.output(seats[20]).is_empty());
        direct.end_turn();
    });
}

/// The server's half of SCRAM-SHA-256, from the client's first message to the proof that the server
/// knows the account: what one client said is said again, to the same nonce.
fn scram(rounds: u64) {
    const NONCE: [u8; NONCE_SIZE] = [9; NONCE_SIZE];
    const SECRET: [u8; 32] = [3; 32];
    let settings = Settings::for_tests("example.org");
    let offer = Offer::new(&settings, None);
    let keys = derive_credentials("secret", &[[7; SALT_SIZE]; 3], 1).expect("a password");
    let begun = |first: &[u8]| match begin(Mechanism::ScramSha256, Some(first), &offer) {
        Ok(First::NeedsCredentials { exchange, .. }) => exchange,
        other => panic!("{other:?}"),
    };
    let challenge = |exchange: &mut Exchange| exchange.challenge(Some(&keys), NONCE, &SECRET, 1);
    let (mut client, first) = Scram::start("romeo", "secret", "a-client's-nonce", None);
    let first = decode(first.as_bytes()).expect("base64");
    let said = client.respond(&encode(&challenge(&mut begun(&first))));
    let last = decode(said.expect("the challenge is one").as_bytes()).expect("base64");
    repeat(rounds, || {
        let mut exchange = begun(black_box(&first));
        black_box(challenge(&mut exchange));
        exchange
            .finish(black_box(&last))
            .expect("the password is right");
    });
}
