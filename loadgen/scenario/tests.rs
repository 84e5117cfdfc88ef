//! What scenario files say, what is refused in them, and what options make of them.

use super::*;
use crate::args::Cli;
use clap::Parser;

/// What is wrong with this text.
fn complaint(text: &str) -> String {
    let parsed = Written::parse(Path::new("mine.toml"), "mine", text);
    parsed.expect_err("it makes no sense")
}

/// The load of a scenario with these options beside it.
fn load(text: &str, options: &str) -> Result<LoadArgs, String> {
    let written = Written::parse(Path::new("mine.toml"), "mine", text)?;
    let words: Vec<&str> = options.split_whitespace().collect();
    let line = ["loadgen"].iter().chain(&words);
    let mut load = Cli::try_parse_from(line)
        .map_err(|error| error.to_string())?
        .run
        .load;
    let given = |option: &str| {
        let long = format!("--{}", option.replace('_', "-"));
        words.contains(&long.as_str())
    };
    apply(&written, &mut load, &given)?;
    Ok(load)
}

#[test]
fn the_old_names_have_files_that_say_what_they_always_did() {
    for (name, scenario) in [
        ("chat", Scenario::Chat),
        ("presence", Scenario::Presence),
        ("muc", Scenario::Muc),
        ("idle", Scenario::Idle),
        ("login-storm", Scenario::Login),
    ] {
        let line = ["loadgen", "--scenario", name];
        let before = Cli::parse_from(line).run.load;
        let mut after = before.clone();
        apply(&find(name).unwrap(), &mut after, &|_| false).unwrap();
        assert_eq!((after.scenario, &after.phases[..]), (scenario, &[][..]));
        let known = LoadArgs {
            scenario,
            scenario_name: name.to_owned(),
            ..before
        };
        assert_eq!(format!("{after:?}"), format!("{known:?}"), "{name}");
    }
}

/// Texts that make no sense, the line that is to blame (0: the whole), and what is said of it.
const REFUSED: &[(&str, usize, &str, &str)] = &[
    ("", 0, "it has 0 phases", "`[[phase]]`"),
    ("client = 5", 1, "unknown key `client`", "`clients`?"),
    (
        "clients = 0\n[[phase]]\nmix = { chat = 1 }",
        1,
        "`clients` is 0",
        "give 1 to",
    ),
    (
        "clients = 'x'",
        1,
        "`clients` must be a whole number",
        "correct it",
    ),
    (
        "clients = 4294967296",
        1,
        "must be a whole number, 0 to 4294967295, not integer `4294967296`",
        "correct it",
    ),
    (
        "[[phase]]\nmix = { chat = 1 }\nwindow = 70000",
        3,
        "`window` must be a whole number, 0 to 65535, not integer `70000`",
        "correct it",
    ),
    (
        "[[phase]]\nmix = { login = 1 }\nslo = 'p99<1s'",
        3,
        "`slo` has nothing to judge",
        "above the phases",
    ),
    (
        "[[phase]]\nmix = { chat = 1 }\n[[phase]]\nmix = { idle = 1 }\nslo = 'cpu<9'",
        5,
        "`slo` has nothing to judge",
        "above the phases",
    ),
    ("clients = = 5", 1, "this is not TOML", "key = value"),
    (
        "slo = 'p42<1ms'\n[[phase]]\nmix = { chat = 1 }",
        1,
        "`slo`: ",
        "correct it",
    ),
    (
        "clique = 9\n[[phase]]\nmix = { chat = 1 }",
        1,
        "would be ignored",
        "presence",
    ),
    (
        "clique = 9\nrooms = 'x'\n[[phase]]\nmix = { presence = 1 }",
        2,
        "`rooms` would be ignored",
        "it goes with muc",
    ),
    (
        "rooms = 'room@x'\n[[phase]]\nmix = { muc = 1 }",
        1,
        "`rooms` is \"room@x\"",
        "conference.example.org",
    ),
    (
        "partners = 9\n[[phase]]\nmix = { muc = 1 }",
        1,
        "`partners` would be ignored",
        "chat or directed",
    ),
    (
        "partners = 9\n[[phase]]\nmix = { presence = 1 }",
        1,
        "would be ignored",
        "chat",
    ),
    (
        "ack_every = 9\n[[phase]]\nmix = { chat = 1 }",
        1,
        "would be ignored",
        "management",
    ),
    (
        "ramp = 1\nconnect_rate = 2\n[[phase]]\nmix = { chat = 1 }",
        1,
        "exclude",
        "remove",
    ),
    ("[[phase]]\nrate = 5", 1, "`mix` is missing", "{ chat = 1 }"),
    ("[[phase]]\nmix = { }", 2, "`mix` is empty", "{ chat = 1 }"),
    (
        "[[phase]]\nmix = { chta = 1 }",
        2,
        "unknown key `chta`",
        "`chat`?",
    ),
    (
        "[[phase]]\nmix = { chat = 0 }",
        2,
        "a weight in `mix`",
        "give 1 to",
    ),
    (
        "[[phase]]\nmix = { chat = 1, idle = 1 }",
        2,
        "login and idle",
        "of its own",
    ),
    (
        "[[phase]]\nmix = { idle = 1 }\nrate = 9",
        3,
        "`rate` would be ignored",
        "idles",
    ),
    (
        "[[phase]]\nmix = { chat = 1 }\nrate = 0",
        3,
        "`rate` is 0",
        "positive",
    ),
    (
        "[[phase]]\nmix = { chat = 1 }\nrate = inf",
        3,
        "`rate` is inf",
        "positive",
    ),
    (
        "[[phase]]\nmix = { chat = 1 }\nrate = 9\nwindow = 2",
        4,
        "exclude",
        "remove one",
    ),
    (
        "[[phase]]\nmix = { chat = 1 }\nramp = 2",
        3,
        "`ramp` would be ignored",
        "`rate`",
    ),
    (
        "[[phase]]\nmix = { chat = 1 }\nduration = nan",
        3,
        "`duration` is NaN",
        "0.1 to",
    ),
    (
        "[[phase]]\nmix = { chat = 1 }\narrivals = 'posson'",
        3,
        "posson",
        "`poisson`?",
    ),
    (
        "[[phase]]\nmix = { chat = 1 }\nname = 'a/b'",
        3,
        "the name",
        "dashes",
    ),
    (
        "[[phase]]\nmix = { roster = 1 }\nstanza_size = 200",
        3,
        "would be ignored",
        "chat",
    ),
    (
        "[[phase]]\nmix = { chat = 1 }\nstanza_size = 3",
        3,
        "`stanza_size`",
        "min = 150",
    ),
    (
        "[[phase]]\nmix = { chat = 1 }\nstanza_size = { min = 300, max = 200 }",
        3,
        "`stanza_size` is none",
        "min = 150",
    ),
    (
        "[[phase]]\nmix = { chat = 1 }\nslo = 'loss=0'",
        3,
        "no figure `loss`",
        "above",
    ),
    (
        "[[phase]]\nmix = { chat = 1 }\nslo = 'bind.p99<1s'",
        3,
        "no figure",
        "above",
    ),
    (
        "[[phase]]\nname = 'a'\nmix = { chat = 1 }\n[[phase]]\nname = 'a'\nmix = { chat = 1 }",
        4,
        "a second phase is called `a`",
        "of its own",
    ),
    (
        "[[phase]]\nmix = { chat = 1 }\n[[phase]]\nmix = { login = 1 }",
        4,
        "login among several",
        "reconnect",
    ),
    (
        "[[phase]]\nmix = { chat = 1, reconnect = 1 }\npause = 1",
        3,
        "`pause` would be ignored",
        "`resume`",
    ),
    (
        "[[phase]]\nmix = { resume = 1 }\npause = 5.5",
        3,
        "`pause` is 5.5",
        "give 0 to 5",
    ),
];

#[test]
fn sessions_are_resumed_where_streams_are_managed_and_nowhere_else() {
    let text = "clients = 9\n[[phase]]\nmix = { chat = 1 }\n[[phase]]\npause = 0.5\n\
                mix = { chat = 1, resume = 1 }";
    let refused = "mine.toml:6: `resume` goes with managed streams only; write \
                   `stream_management = true` above the phases, or give --stream-management";
    assert_eq!(load(text, "").expect_err("nobody manages them"), refused);
    let explicit = format!("stream_management = false\n{text}");
    assert!(load(&explicit, "").is_err());
    for (text, options) in [
        (text.to_owned(), "--stream-management"),
        (format!("stream_management = true\n{text}"), ""),
    ] {
        let load = load(&text, options).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!((load.phases[0].pause, load.phases[1].pause), (0.0, 0.5));
        assert!(load.phases[1].to_string().ends_with(", 0.5 s away"));
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_its_line_and_the_remedy() {
    for (text, line, what, remedy) in REFUSED {
        let complaint = complaint(text);
        let place = match line {
            0 => "mine.toml: ".to_owned(),
            line => format!("mine.toml:{line}: "),
        };
        assert!(complaint.starts_with(&place), "{text:?}: {complaint}");
        assert!(complaint.contains(what), "{text:?}: {complaint}");
        let (_, said) = complaint.rsplit_once("; ").unwrap_or_default();
        assert!(complaint.contains(remedy), "{text:?}: {said}");
        assert!(!complaint.contains('\n'), "{text:?}: {complaint}");
    }
    let many = "[[phase]]\nmix = { chat = 1 }\n".repeat(PHASES_MAX);
    assert!(Written::parse(Path::new("x"), "x", &many).is_ok());
    assert!(complaint(&format!("{many}{many}")).contains("64 phases"));
}

#[test]
fn a_phase_may_have_thresholds_of_each_of_its_figures() {
    let text = |term: &str| format!("[[phase]]\nmix = {{ chat = 1 }}\nslo = '{term}'");
    for prefix in ["", "service."] {
        for column in ["mean"].into_iter().chain(crate::result::Times::HEADINGS) {
            let term = format!("{prefix}{column}<1s");
            let load = load(&text(&term), "").unwrap_or_else(|why| panic!("{why}"));
            let slo = load.phases[0].slo.as_ref().expect("it is the phase's");
            assert_eq!(slo.figures().next(), Some(&term[..term.len() - 3]));
        }
    }
    for term in ["rate>1", "cpu<5"] {
        assert!(load(&text(term), "").is_ok(), "{term}");
    }
    for term in ["ack.p99.9<1s", "login-cpu<1s", "service.rate>1", "memory<1"] {
        assert!(load(&text(term), "").is_err(), "{term}");
    }
}

#[test]
fn a_name_without_a_scenario_lists_those_that_there_are() {
    let complaint = find("chatt").unwrap_err();
    assert!(complaint.contains("login, chat, presence"), "{complaint}");
    let complaint = find("nowhere/x.toml").unwrap_err();
    assert!(complaint.starts_with("nowhere/x.toml: it cannot be read"));
}

#[test]
fn a_file_that_is_too_large_is_refused_with_its_size_and_the_most() {
    let path = std::env::temp_dir().join(format!("loadgen-{}.toml", std::process::id()));
    let name = path.to_string_lossy();
    let text = "[[phase]]\nmix = { chat = 1 }\n#";
    for (more, is_refused) in [(0, false), (1, true)] {
        let size = FILE_SIZE_MAX as usize + more;
        let comment = "#".repeat(size - text.len());
        std::fs::write(&path, format!("{text}{comment}")).unwrap();
        let found = find(&name);
        std::fs::remove_file(&path).unwrap();
        let complaint = found.err();
        let said = format!(
            "{name}: it has {size} bytes, and a scenario at most 1048576; \
             name an existing file of TOML"
        );
        assert_eq!(complaint, is_refused.then_some(said));
    }
    std::fs::create_dir(&path).unwrap();
    let complaint = find(&name).unwrap_err();
    std::fs::remove_dir(&path).unwrap();
    assert!(complaint.contains(": it is no file; name"), "{complaint}");
}

#[test]
fn every_built_in_scenario_is_let_through_and_its_name_is_known() {
    for (name, text) in BUILT_IN {
        let written = find(name).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(written.name, name);
        assert!(text.starts_with("# "), "{name} says what it is for");
        let mut load = Cli::parse_from(["loadgen"]).run.load;
        apply(&written, &mut load, &|_| false).unwrap();
        assert_eq!(load.scenario_name, name);
    }
}

/// Two phases that differ in everything.
const TWO: &str = "clients = 9\n[[phase]]\nname = 'a'\nduration = 3\nrate = 20\n\
                   arrivals = 'fixed'\nmix = { chat = 3, roster = 1 }\nclients = 4\n[[phase]]\n\
                   name = 'b'\nwarmup = 1\nrate = 60\nramp = 2\nmix = { directed = 1 }\n\
                   stanza_size = { min = 200, max = 300 }\n[[phase]]\nmix = { idle = 1 }\n\
                   [[phase]]\nname = 'd'\nwindow = 2\nmix = { reconnect = 1 }";

#[test]
fn phases_are_what_the_file_says_and_options_prevail_in_each() {
    let own = load(TWO, "").unwrap();
    assert_eq!((own.scenario, own.clients), (Scenario::Mixed, 9));
    let said: Vec<String> = own.phases.iter().map(Phase::to_string).collect();
    assert_eq!(
        said,
        [
            "a: 3 s behind 2 s unrecorded, open loop, 20/s fixed, chat 3, roster 1, 200 bytes, \
             by 4 clients",
            "b: 10 s behind 1 s unrecorded, open loop, 60/s poisson, ramp 2 s, directed 1, \
             200 to 300 bytes",
            "phase-3: 10 s, idle",
            "d: 10 s, closed loop, window 2, reconnect 1, 200 bytes",
        ]
    );
    // From 20 to 60 in two seconds, of which the second is recorded.
    assert!((own.phases[1].due(2.0) - 110.0).abs() < 1e-9);
    let options = "--rate 5 --arrivals poisson --duration 1 --stanza-size 250";
    for phase in &load(TWO, options).unwrap().phases {
        assert_eq!(phase.duration, 1.0, "{phase}");
        assert_eq!(phase.sizes, Sizes::Fixed(250));
        let open = Pace::Open {
            rate: 5.0,
            arrivals: Arrivals::Poisson,
        };
        let expected = (!phase.mix.is_empty()).then_some(open);
        assert_eq!(phase.pace, expected, "{phase}");
    }
    for (options, window) in [("--closed", 2), ("--closed --window 3", 3)] {
        let closed = load(TWO, options).unwrap();
        let last = closed.phases.last().unwrap();
        assert_eq!(last.pace, Some(Pace::Closed { window }), "{options}");
        assert_eq!(closed.phases[1].ramp, 0.0, "a closed loop has no rate");
    }
    let complaint = load(TWO, "--clients 3").unwrap_err();
    assert!(
        complaint.starts_with("mine.toml:8: phase a has 4 clients act, but there are 3; give"),
        "{complaint}"
    );
}

#[test]
fn a_warm_up_that_is_given_is_that_of_the_first_phase() {
    let warmups = |text: &str, options: &str| -> Vec<f64> {
        let phases = load(text, options).unwrap().phases;
        phases.iter().map(|phase| phase.warmup).collect()
    };
    assert_eq!(warmups(TWO, ""), [2.0, 1.0, 0.0, 0.0]);
    assert_eq!(warmups(TWO, "--warmup 5"), [5.0, 1.0, 0.0, 0.0]);
    assert_eq!(warmups(TWO, "--warmup 0"), [0.0, 1.0, 0.0, 0.0]);
    let own = TWO.replacen("duration = 3", "warmup = 4", 1);
    assert_eq!(warmups(&own, ""), [4.0, 1.0, 0.0, 0.0]);
    assert_eq!(warmups(&own, "--warmup 5"), [5.0, 1.0, 0.0, 0.0]);
    let all = format!("warmup = 3\n{own}");
    assert_eq!(warmups(&all, ""), [4.0, 1.0, 0.0, 0.0]);
}

#[test]
fn sizes_and_actions_are_drawn_as_they_are_distributed() {
    let mut random = Random::new(7);
    let count = 100_000;
    for (sizes, mean) in [
        (Sizes::Fixed(200), 200.0),
        (Sizes::Uniform(100, 300), 200.0),
        (Sizes::Exponential(100, 200, 10_000), 200.0),
    ] {
        let drawn: Vec<usize> = (0..count).map(|_| sizes.draw(&mut random)).collect();
        let (min, max) = sizes.range();
        assert!(drawn.iter().all(|size| (min..=max).contains(size)));
        let found = drawn.iter().sum::<usize>() as f64 / f64::from(count);
        assert!((found - mean).abs() < 2.0, "{sizes}: {found}");
    }
    let near = Sizes::Exponential(100, 200, 200);
    let drawn = (0..count).map(|_| near.draw(&mut random)).sum::<usize>();
    let found = drawn as f64 / f64::from(count);
    assert!(found < 170.0, "the cut takes from the mean: {found}");
    let expected = "100 to 200 bytes, 200 in the mean before the cut";
    assert_eq!(near.to_string(), expected);
    let phase = load(TWO, "").unwrap().phases.swap_remove(0);
    let chats = (0..count).filter(|_| phase.pick(&mut random) == Some(Action::Chat));
    let share = chats.count() as f64 / f64::from(count);
    assert!((share - 0.75).abs() < 0.01, "{share}");
}

#[test]
fn a_single_thing_is_done_as_options_would_have_it_and_they_prevail() {
    let text = "clients = 40\npartners = 3\nseed = 9\nwarmup = 0.5\nslo = 'loss=0'\n[[phase]]\n\
                duration = 3\nrate = 70\narrivals = 'fixed'\nmix = { directed = 1 }\n\
                stanza_size = 300";
    let load_of = |options| load(text, options).unwrap();
    let own = load_of("");
    assert_eq!((own.scenario, own.directed), (Scenario::Presence, true));
    assert_eq!((own.clients, own.partners, own.seed), (40, 3, 9));
    assert_eq!((own.warmup, own.duration, own.rate), (0.5, 3.0, Some(70.0)));
    assert_eq!((own.arrivals, own.stanza_size), (Arrivals::Fixed, 300));
    assert!(own.slo.is_some() && !own.closed);
    let other = load_of("--clients 6 --rate 5 --arrivals poisson --duration 1 --seed 2");
    assert_eq!((other.clients, other.rate), (6, Some(5.0)));
    assert_eq!((other.duration, other.seed), (1.0, 2));
    assert_eq!(other.arrivals, Arrivals::Poisson);
    let closed = load_of("--closed --window 4");
    assert_eq!((closed.closed, closed.window, closed.rate), (true, 4, None));
    let text = "[[phase]]\nwindow = 4\nmix = { chat = 1 }";
    let own = load(text, "").unwrap();
    assert_eq!((own.closed, own.window), (true, 4));
    let open = load(text, "--rate 9").unwrap();
    assert_eq!((open.closed, open.rate), (false, Some(9.0)));
}

#[test]
fn rooms_are_where_the_option_says_or_the_file_or_custom() {
    let text = "clique = 5\nrooms = 'Rooms.Example'\n[[phase]]\nmix = { muc = 1, roster = 1 }";
    let of_file = load(text, "").unwrap();
    assert_eq!(of_file.rooms.as_deref(), Some("rooms.example"));
    assert!(of_file.has_rooms() && of_file.phases[0].is_marked());
    let of_option = load(text, "--rooms other.example").unwrap();
    assert_eq!(of_option.rooms.as_deref(), Some("other.example"));
    let run = |line: &str| {
        let words = ["loadgen"].into_iter().chain(line.split_whitespace());
        crate::heed::read(words).expect("a line").run
    };
    let rooms = |line: &str| run(line).rooms().map(|rooms| rooms.domain().to_owned());
    let muc = "--scenario muc --domain Bench.Example";
    assert_eq!(rooms(muc).as_deref(), Some("conference.bench.example"));
    assert_eq!(rooms(&format!("{muc} --rooms r.x")).as_deref(), Some("r.x"));
    assert_eq!(rooms("--scenario chat"), None);
}
