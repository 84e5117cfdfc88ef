//! Refuses the options that a run would not heed: a result must not seem to be of a load that it
//! was not.

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use crate::args::{Cli, Command, LoadArgs, RunArgs};
use crate::client::{Mechanism, TlsMode};
use crate::plan::{Pace, Scenario};
use crate::scenario::{self, Action, Phase};

/// What keeps a command line from being carried out.
#[derive(Debug)]
pub enum Refusal {
    /// It is none, or asks for help.
    Usage(clap::Error),
    /// An option that would be ignored, with the remedy.
    Ignored(String),
    /// There is no such scenario, or it makes no sense.
    Scenario(String),
}

/// Reads a command line.
///
/// # Errors
/// It is none, or has an option that would be ignored.
pub fn read<T>(words: impl IntoIterator<Item = T>) -> Result<Cli, Refusal>
where
    T: Into<std::ffi::OsString> + Clone,
{
    let command = Cli::command();
    let matches = command
        .clone()
        .try_get_matches_from(words)
        .map_err(Refusal::Usage)?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(Refusal::Usage)?;
    match &mut cli.command {
        None => resolve(&matches, &mut cli.run.load),
        Some(Command::Floor(load)) => matches
            .subcommand_matches("floor")
            .map_or(Ok(()), |matches| resolve(matches, load)),
        Some(Command::Report { .. } | Command::Compare { .. } | Command::Worker(_)) => Ok(()),
    }
    .map_err(Refusal::Scenario)?;
    let ignored = match &cli.command {
        None => ignored(&command, &matches, &cli.run.load, Some(&cli.run)),
        Some(Command::Floor(load)) => {
            let floor = command
                .find_subcommand("floor")
                .zip(matches.subcommand_matches("floor"));
            floor.and_then(|(command, matches)| ignored(command, matches, load, None))
        }
        Some(Command::Report { .. } | Command::Compare { .. } | Command::Worker(_)) => None,
    };
    match ignored {
        Some(reason) => Err(Refusal::Ignored(reason)),
        None => Ok(cli),
    }
}

/// Lets the load be what its scenario says, but for the options that were given.
fn resolve(matches: &ArgMatches, load: &mut LoadArgs) -> Result<(), String> {
    let name = matches
        .get_raw("scenario")
        .and_then(|mut words| words.next());
    let name = name.unwrap_or_default().to_string_lossy();
    // The one without a file: it is older than they are.
    if name == "login" {
        load.scenario_name = name.into_owned();
        return Ok(());
    }
    let written = scenario::find(&name)?;
    scenario::apply(&written, load, &|option| is_given(matches, option))
}

fn is_given(matches: &ArgMatches, option: &str) -> bool {
    matches.value_source(option) == Some(ValueSource::CommandLine)
}

/// What is wrong with the first option that was given in vain.
fn ignored(
    command: &clap::Command,
    matches: &ArgMatches,
    load: &LoadArgs,
    run: Option<&RunArgs>,
) -> Option<String> {
    let given = |option: &&str| is_given(matches, option);
    let mut options = command
        .get_arguments()
        .map(|option| option.get_id().as_str())
        .filter(given);
    let has_workers = run.is_some_and(|run| !run.workers.is_empty());
    let (option, remedy) = options.find_map(|option| match local_remedy(option) {
        Some(remedy) if has_workers => Some((option, remedy)),
        _ => (!heeds(option, load, run)).then(|| (option, remedy(option))),
    })?;
    let name = option.replace('_', "-");
    Some(format!("--{name} would be ignored: {remedy}"))
}

/// What to do instead of giving an option that workers do not heed.
fn local_remedy(option: &str) -> Option<&'static str> {
    Some(match option {
        "threads" | "core" => "with --workers each `loadgen worker` has its own; give it there",
        "with_floor" | "with_plain" => {
            "with --workers nothing runs in turns; leave it out, or --workers"
        }
        _ => return None,
    })
}

/// Whether a run, or the floor alone where there is no `run`, does anything with an option.
fn heeds(option: &str, load: &LoadArgs, run: Option<&RunArgs>) -> bool {
    let is_mixed = load.scenario == Scenario::Mixed;
    let talks_alone = [Scenario::Chat, Scenario::Presence, Scenario::Muc].contains(&load.scenario);
    let talks = talks_alone || load.has(Action::is_marked);
    let presence = load.scenario == Scenario::Presence;
    let announces = presence && !load.directed || load.has(|action| action == Action::Presence);
    let broadcasts = announces || load.has_rooms();
    let pairs = talks_alone && !broadcasts || load.has(Action::is_pairwise);
    let acts = !matches!(load.scenario, Scenario::Idle | Scenario::Mixed)
        || load.phases.iter().any(|phase| phase.pace.is_some());
    let is_closed = |phase: &Phase| matches!(phase.pace, Some(Pace::Closed { .. }));
    let closed = load.closed && talks || load.phases.iter().any(is_closed);
    let is_open = |phase: &Phase| matches!(phase.pace, Some(Pace::Open { .. }));
    // Logins follow one another unless a rate is asked for.
    let searches = run.is_some_and(|run| run.find_max);
    let open = match is_mixed {
        true => load.phases.iter().any(is_open),
        false => !load.closed && (talks || load.rate.is_some() || searches),
    };
    let paced_logins = load.connect_rate.is_some() || load.ramp.is_some();
    let secure = run.is_some_and(|run| run.tls != TlsMode::None);
    match option {
        "directed" => presence,
        "partners" => pairs,
        "clique" => broadcasts,
        "rooms" => load.has_rooms() && run.is_some(),
        "rate" | "closed" => acts,
        "arrivals" => open,
        "window" => closed,
        "ack_every" => load.stream_management && (talks || is_mixed && acts),
        "stanza_size" => talks,
        "no_spin" => open || paced_logins,
        "stream_management" | "connect_rate" | "ramp" => run.is_some(),
        "ca" => secure,
        "insecure" => secure && run.is_some_and(|run| run.ca.is_none()),
        "user" => run.is_some_and(|run| run.accounts.is_none() && !run.anonymous),
        "mechanism" => {
            run.is_some_and(|run| run.anonymous == (run.mechanism == Some(Mechanism::Anonymous)))
        }
        "no_roster" => load.scenario != Scenario::Login,
        // The broadcasts are what it would leave out.
        "no_presence" => load.scenario != Scenario::Login && !announces,
        "with_floor" => talks_alone,
        "with_plain" => {
            let is_wrapped = secure || run.is_some_and(|run| run.websocket.is_some());
            is_wrapped && !matches!(load.scenario, Scenario::Idle | Scenario::Mixed)
        }
        "host" | "port" | "domain" | "tls" | "websocket" | "server_pid" | "server_config" => true,
        "password" | "accounts" | "anonymous" | "register" => true,
        "clients" | "scenario" | "warmup" | "duration" | "seed" | "threads" | "core" => true,
        "json" | "report" | "hgrm" | "history" | "csv" | "name" | "quiet" => true,
        "slo" | "workers" => true,
        "find_max" => acts && load.phases.len() <= 1 && !closed,
        _ => unreachable!("--{option}: say here which runs heed it"),
    }
}

/// What to do instead of giving an option that is not heeded.
fn remedy(option: &str) -> &'static str {
    match option {
        "directed" => "it goes with --scenario presence",
        "partners" => "it goes with --scenario chat, presence --directed, or a mix with either",
        "clique" => {
            "it goes with --scenario presence, without --directed, with --scenario muc, or a mix \
             with either"
        }
        "rooms" => "it goes with --scenario muc, or a mix with muc, against a server",
        "rate" | "closed" => "who idles sends nothing; leave it out",
        "find_max" => {
            "it goes with one phase that sends by a rate; leave `window` out of it, or give --rate"
        }
        "arrivals" => "only an open loop has a schedule; give --rate, without --closed",
        "window" => {
            "it goes with --closed, in --scenario chat, presence, muc or a mix, or a phase with \
             `window`"
        }
        "ack_every" => {
            "it goes with --stream-management, in --scenario chat, presence, muc or a mix"
        }
        "stanza_size" => {
            "it goes with --scenario chat, presence or muc, or a mix with chat, presence, directed \
             or muc"
        }
        "with_floor" => "it goes with --scenario chat, presence or muc",
        "no_spin" => "only a schedule is awaited; give --rate, --connect-rate or --ramp",
        "stream_management" => "the floor has no streams; leave it out",
        "connect_rate" | "ramp" => "the floor's clients come all at once; leave it out",
        "ca" => "it goes with --tls starttls or direct",
        "insecure" => "it goes with --tls starttls or direct, and without --ca",
        "user" => "it goes with --password, neither with --accounts nor with --anonymous",
        "mechanism" => "ANONYMOUS goes with --anonymous, the others with accounts",
        "no_roster" => "--scenario login ends before it; leave it out",
        "no_presence" => {
            "--scenario login ends before it, and broadcasts are presence; leave it out"
        }
        "with_plain" => {
            "it goes with --tls starttls or direct or with --websocket, and with --scenario chat, \
             presence, muc or login"
        }
        _ => "leave it out",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(line: &str) -> Option<String> {
        match read(["loadgen"].into_iter().chain(line.split_whitespace())) {
            Ok(_) => None,
            Err(Refusal::Ignored(reason) | Refusal::Scenario(reason)) => Some(reason),
            Err(Refusal::Usage(error)) => panic!("{line}: {error}"),
        }
    }

    #[test]
    fn what_a_run_would_ignore_is_refused_with_the_remedy() {
        for (line, option) in [
            ("--window 4", "window"),
            ("--scenario login --closed --window 4", "window"),
            ("--directed", "directed"),
            ("--scenario presence --partners 2", "partners"),
            ("--scenario idle --partners 2", "partners"),
            ("--clique 5", "clique"),
            ("--rooms conference.x", "rooms"),
            ("--scenario mixed --rooms conference.x", "rooms"),
            ("floor --scenario muc --rooms conference.x", "rooms"),
            ("--scenario muc --directed", "directed"),
            ("--scenario muc --partners 2", "partners"),
            ("--scenario presence --directed --clique 5", "clique"),
            ("--scenario idle --rate 5", "rate"),
            ("--scenario idle --closed", "closed"),
            ("--scenario idle --find-max --slo p99<1s", "find-max"),
            ("--closed --arrivals fixed", "arrivals"),
            ("--scenario login --arrivals fixed", "arrivals"),
            ("--ack-every 9", "ack-every"),
            (
                "--scenario idle --stream-management --ack-every 9",
                "ack-every",
            ),
            ("--scenario login --stanza-size 300", "stanza-size"),
            ("--closed --no-spin", "no-spin"),
            ("floor --stream-management", "stream-management"),
            ("floor --connect-rate 5", "connect-rate"),
            ("floor --ramp 5", "ramp"),
            ("floor --window 2", "window"),
            ("--tls none --ca x", "ca"),
            ("--tls none --insecure", "insecure"),
            ("--ca x --insecure", "insecure"),
            ("--accounts x --user a%d", "user"),
            ("--anonymous --user a%d", "user"),
            ("--anonymous --mechanism PLAIN", "mechanism"),
            ("--mechanism ANONYMOUS", "mechanism"),
            ("--scenario login --no-roster", "no-roster"),
            ("--scenario login --no-presence", "no-presence"),
            ("--scenario idle --with-floor", "with-floor"),
            ("--scenario mixed --directed", "directed"),
            ("--scenario roster --partners 2", "partners"),
            ("--scenario roster --stanza-size 300", "stanza-size"),
            ("--scenario reconnect --clique 5", "clique"),
            ("--scenario reconnect --window 5", "window"),
            ("--scenario mixed --closed --arrivals fixed", "arrivals"),
            ("--scenario mixed --with-floor", "with-floor"),
            ("--scenario mixed --find-max --slo p99<1s", "find-max"),
            ("--tls none --server-pid 1 --with-plain 5222", "with-plain"),
            (
                "--scenario idle --server-pid 1 --with-plain 5222",
                "with-plain",
            ),
        ] {
            let reason = reason(line).unwrap_or_else(|| panic!("not refused: {line}"));
            let expected = format!("--{option} would be ignored: ");
            assert!(reason.starts_with(&expected), "{line}: {reason}");
            assert!(!reason.contains('\n') && reason.len() > expected.len());
            if matches!(option, "window" | "ack-every" | "stanza-size") {
                assert!(reason.contains("a mix"), "mixes heed it, too: {reason}");
            }
        }
    }

    #[test]
    fn the_window_of_a_file_is_not_searched_over() {
        let path = std::env::temp_dir().join(format!("loadgen-{}-window.toml", std::process::id()));
        let search = format!("--scenario {} --find-max --slo p99<1s", path.display());
        let paced = format!("{search} --rate 9");
        // The first is run as options would be, the second as a phase.
        for mix in ["chat = 1", "chat = 1, roster = 1"] {
            let phase = format!("[[phase]]\nmix = {{ {mix} }}\n");
            std::fs::write(&path, format!("{phase}window = 4\n")).unwrap();
            let found = (reason(&search), reason(&paced));
            std::fs::write(&path, &phase).unwrap();
            let open = reason(&search);
            std::fs::remove_file(&path).unwrap();
            assert_eq!((found.1, open), (None, None), "{mix}");
            let refused = found.0.unwrap_or_else(|| panic!("not refused: {mix}"));
            let expected =
                "--find-max would be ignored: it goes with one phase that sends by a rate";
            assert!(refused.starts_with(expected), "{mix}: {refused}");
        }
    }

    #[test]
    fn what_a_run_heeds_is_not_refused() {
        for line in [
            "",
            "--closed --window 4 --partners 3 --stanza-size 300",
            "--scenario presence --clique 5 --closed --window 2",
            "--scenario muc --clique 5 --closed --window 2 --rooms x --no-presence --with-floor",
            "--scenario muc --rate 9 --arrivals fixed --stanza-size 300 --stream-management",
            "--scenario muc --insecure --with-plain 5222 --server-pid 1",
            "--scenario muc --find-max --slo p99<5ms,join.p99<1s",
            "floor --scenario muc --clique 5 --closed",
            "--scenario presence --directed --partners 2 --rate 9 --arrivals fixed --no-spin",
            "--scenario login --rate 9 --arrivals fixed --no-spin",
            "--scenario login --closed --stream-management",
            "--scenario idle --no-roster --no-presence --connect-rate 9 --no-spin",
            "--stream-management --ack-every 9 --arrivals fixed",
            "--ca x --with-plain 5222 --server-pid 1 --with-floor",
            "--anonymous --mechanism ANONYMOUS --insecure",
            "--password p --user a%d --mechanism PLAIN",
            "floor --closed --window 2 --threads 2 --partners 2",
            "--find-max --slo p99<5ms,loss=0 --rate 100",
            "--scenario mixed --closed --window 2 --clique 5 --partners 2 --no-roster",
            "--scenario mixed --rate 9 --arrivals fixed --stanza-size 300 --no-spin --seed 2",
            "--scenario reconnect --stream-management --ack-every 9 --no-presence",
            "--scenario roster --find-max --slo p99<5ms",
            "--scenario login-storm --rate 9",
            "--scenario presence-storm --clients 40 --duration 1 --warmup 0",
            "report a.json --out x.html",
            "compare a.json b.json --noise 3% --only cpu,p99",
        ] {
            assert_eq!(reason(line), None, "{line}");
        }
    }

    #[test]
    fn of_every_option_it_is_known_which_runs_heed_it() {
        let cli = Cli::from_arg_matches(&Cli::command().get_matches_from(["loadgen"]));
        let run = cli.expect("no option is needed").run;
        let command = Cli::command();
        let options = command.get_arguments();
        let mut count = 0;
        for option in options {
            // Panics for one that is not known.
            heeds(option.get_id().as_str(), &run.load, Some(&run));
            count += 1;
        }
        assert!(count > 40, "{count}");
    }
}
