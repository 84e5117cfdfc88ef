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

#[test]
fn what_makes_no_sense_is_refused_with_its_line_and_the_remedy() {
    for (text, line, what, remedy) in [
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
    ] {
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
fn a_name_without_a_scenario_lists_those_that_there_are() {
    let complaint = find("chatt").unwrap_err();
    assert!(complaint.contains("login, chat, presence"), "{complaint}");
    let complaint = find("nowhere/x.toml").unwrap_err();
    assert!(complaint.starts_with("nowhere/x.toml: it cannot be read"));
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
