//! `report.html`: one self-contained page that a person would rather look at than read.

use crate::draw::{acks, latency, over_time, stretches, throughput};
use crate::live::{grouped, micros};
use crate::phases;
use crate::plot;
use crate::result::{Plain, RunResult, Server, Times, exit};
use crate::search::Trial;
use crate::slo::Threshold;

const STYLE: &str = include_str!("report.css");

/// The page of one run.
pub fn render(result: &RunResult) -> String {
    page(&result.name, &parts(result))
}

/// The page of several runs: one table of all, and each run's own page behind its line.
pub fn render_all(results: &[RunResult]) -> String {
    if results.is_empty() {
        return page("nothing", "");
    }
    let bad = results
        .iter()
        .filter(|result| result.exit != exit::OK)
        .count();
    let (class, word) = match bad {
        0 => ("good", "all verified".to_owned()),
        _ => ("bad", format!("{bad} of {} not in order", results.len())),
    };
    let mut content = format!(
        "<header><h1>Load test</h1><span class='badge {class}'>{word}</span>\
         <p>{} &middot; {}</p></header>\n",
        distinct(results, machine).join("; "),
        distinct(results, commit).join(", "),
    );
    content += &wide_card(
        "All runs",
        &overview(results),
        "server CPU in seconds per million deliveries (microseconds per login); the floor is the \
         same traffic through a relay that parses nothing, in the same run",
    );
    let costs: Vec<_> = results.iter().flat_map(cost_rows).collect();
    if !costs.is_empty() {
        let note = "CPU seconds per million deliveries, each run beside its floor";
        content += &wide_card("What it costs", &plot::bars(&costs), note);
    }
    for result in results {
        content += &format!(
            "<details class='whole'><summary>{}</summary><div class='run'>{}</div></details>\n",
            escaped(&result.name),
            parts(result)
        );
    }
    page("Load test", &content)
}

/// What runs say of something, each answer once: a page may be of several invocations.
fn distinct(results: &[RunResult], read: fn(&RunResult) -> String) -> Vec<String> {
    let mut all: Vec<String> = results.iter().map(read).collect();
    all.sort();
    all.dedup();
    all
}

fn machine(result: &RunResult) -> String {
    escaped(&result.machine.to_string())
}

fn commit(result: &RunResult) -> String {
    escaped(result.commit.as_deref().unwrap_or("unknown commit"))
}

fn page(title: &str, content: &str) -> String {
    format!(
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>\n\
         <meta name='viewport' content='width=device-width, initial-scale=1'>\n\
         <title>{} - loadgen</title>\n<style>\n{STYLE}</style></head>\n\
         <body><main>\n{content}</main></body></html>\n",
        escaped(title)
    )
}

/// One line for each run.
fn overview(results: &[RunResult]) -> String {
    let is_mixed = distinct(results, commit).len() > 1;
    let mut rows = format!(
        "<tr><th>run</th><th></th><th>clients</th><th>durability</th><th>rate/s</th><th>p50</th>\
         <th>p99</th><th>ack p99</th><th>lost</th><th>CPU</th><th>floor</th><th>ratio</th>\
         <th>bytes/connection</th>{}</tr>",
        if is_mixed { "<th>commit</th>" } else { "" },
    );
    for result in results {
        let (class, word) = verdict_of(result);
        let server = result.server.as_ref();
        let per_login = server.filter(|_| result.load.scenario == "login");
        let cpu = match per_login.and_then(|server| server.cpu_us_per_login) {
            Some(cpu) => format!("{cpu:.0} us"),
            None => server
                .and_then(|server| server.cpu_per_million)
                .map_or(String::new(), |cpu| format!("{cpu:.3} s")),
        };
        let floor = result.floor.as_ref();
        rows += &format!(
            "<tr><th>{}</th><td><span class='badge small {class}'>{word}</span></td><td>{}</td>\
             <td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{cpu}</td>\
             <td>{}</td><td>{}</td><td>{}</td>{}</tr>",
            escaped(&result.name),
            grouped(result.load.clients.into()),
            escaped(result.durability.as_deref().unwrap_or("")),
            match result.latency.count {
                // Who idles has no rate.
                0 => String::new(),
                _ => grouped(result.rate.round() as u64),
            },
            shown(&result.latency, result.latency.p50_us),
            shown(&result.latency, result.latency.p99_us),
            shown(&result.acks, result.acks.p99_us),
            grouped(result.verdict.lost),
            floor.map_or(String::new(), |floor| format!(
                "{:.3} s",
                floor.cpu_per_million
            )),
            floor
                .and_then(|floor| floor.ratio)
                .map_or(String::new(), |ratio| format!("{ratio:.2}&times;")),
            bytes_per_connection(result).unwrap_or_default(),
            match is_mixed {
                true => format!("<td>{}</td>", commit(result)),
                false => String::new(),
            },
        );
    }
    format!("<div class='wide'><table>{rows}</table></div>")
}

/// Everything about one run.
fn parts(result: &RunResult) -> String {
    let mut page = String::new();
    page += &heading(result);
    page += &tiles(result);
    page += &thresholds(result);
    page += &trials(result);
    if !result.latency.curve.is_empty() {
        page += &card(
            "Latency by percentile",
            &latency(result),
            latency_note(result),
        );
    }
    if !result.acks.curve.is_empty() {
        page += &card(
            "Acknowledgements by percentile",
            &acks(result),
            "from asking to the answer that covers everything sent before",
        );
    }
    if stretches(result).iter().any(|stretch| stretch.len() > 1) {
        page += &card(
            "Deliveries a second",
            &throughput(result),
            "one point for each second",
        );
        page += &card(
            "Latency over time",
            &over_time(result),
            "median and 99th percentile",
        );
    }
    if !result.scenario_phases.is_empty() {
        let note = "each from the time it was due, and (service) from the time it was begun";
        page += &wide_card("Phases", &phases::page(&result.scenario_phases), note);
    }
    if !result.phases.is_empty() {
        let rows: Vec<_> = result
            .phases
            .iter()
            .map(|times| {
                (
                    times.name.clone(),
                    [times.p50_us, times.p99_us, times.max_us],
                )
            })
            .collect();
        let note = "median to 99th percentile (printed), dot at the longest";
        page += &card("Logging in", &plot::ranges(&rows), note);
    }
    page += &kinds(result);
    page += &cost(result);
    page += &verification(result);
    page += &times_table(result);
    page += &facts(result);
    page
}

fn verdict_of(result: &RunResult) -> (&'static str, &'static str) {
    match result.exit {
        exit::OK => ("good", "verified"),
        exit::INVALID => ("doubtful", "invalid"),
        exit::MISSED => ("bad", "missed"),
        _ => ("bad", "failed"),
    }
}

fn heading(result: &RunResult) -> String {
    let (class, word) = verdict_of(result);
    let load = &result.load;
    let managed = load.ack_every.map_or(String::new(), |every| {
        format!(" &middot; acknowledgement asked for after every {every}")
    });
    let durability = result.durability.as_ref().map_or(String::new(), |mode| {
        format!(" &middot; durability {}", escaped(mode))
    });
    let mut text = format!(
        "<header><h1>{}</h1><span class='badge {class}'>{word}</span>\
         <p>{} clients &middot; {} &middot; {} &middot; {} &middot; {}\
         {managed}{durability}</p>",
        escaped(&result.name),
        grouped(load.clients.into()),
        escaped(&load.scenario),
        escaped(&load.pace),
        load.sizes(),
        load.transport(),
    );
    for reason in &result.reasons {
        text += &format!("<p class='reason'>{}</p>", escaped(reason));
    }
    text + "</header>\n"
}

fn tiles(result: &RunResult) -> String {
    let unit = if result.load.scenario == "login" {
        "logins/s"
    } else {
        "deliveries/s"
    };
    let mut tiles = vec![
        (grouped(result.rate.round() as u64), unit.to_owned()),
        (micros(result.latency.p50_us), "median".to_owned()),
        (micros(result.latency.p99_us), "99th percentile".to_owned()),
        (grouped(result.verdict.lost), "lost".to_owned()),
    ];
    if result.latency.count == 0 {
        // An idle run has neither rate nor latency.
        tiles.clear();
    }
    if result.acks.count > 0 {
        tiles.push((
            micros(result.acks.p50_us),
            "acknowledged, median".to_owned(),
        ));
    }
    if let Some(server) = &result.server {
        if let Some(cpu) = server.cpu_per_million {
            tiles.push((format!("{cpu:.2} s"), "server CPU per million".to_owned()));
        } else if let Some(cpu) = server.cpu_us_per_login {
            tiles.push((format!("{cpu:.0} us"), "server CPU per login".to_owned()));
        }
    }
    if let Some(bytes) = bytes_per_connection(result) {
        tiles.push((bytes, "bytes per connection".to_owned()));
    }
    if let Some(more) = result.plain.as_ref().and_then(Plain::surcharge) {
        tiles.push((more, "TLS per delivery".to_owned()));
    }
    if let Some(ratio) = result.floor.as_ref().and_then(|floor| floor.ratio) {
        tiles.push((format!("{ratio:.2}&times;"), "the floor's CPU".to_owned()));
    }
    let tiles: String = tiles
        .iter()
        .map(|(value, name)| format!("<div class='tile'><b>{value}</b><span>{name}</span></div>"))
        .collect();
    format!("<section class='tiles'>{tiles}</section>\n")
}

/// What was asked of the run, and what it came to.
fn thresholds(result: &RunResult) -> String {
    let row = |threshold: &Threshold| {
        let (class, word) = match threshold.is_met {
            true => ("good", "met"),
            false => ("bad", "missed"),
        };
        format!(
            "<tr><th>{}</th><td>{}</td>\
             <td><span class='badge small {class}'>{word}</span></td></tr>",
            escaped(&threshold.term),
            threshold.found.as_deref().unwrap_or("not measured"),
        )
    };
    let rows: String = result.thresholds.iter().map(row).collect();
    match rows.is_empty() {
        true => String::new(),
        false => card("Thresholds", &format!("<table>{rows}</table>"), ""),
    }
}

/// The rates that a search tried, the highest of which that met the thresholds is this run's.
fn trials(result: &RunResult) -> String {
    let mut trials: Vec<&Trial> = result.trials.iter().collect();
    trials.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    let row = |trial: &&Trial| {
        let (class, word) = match trial.exit {
            exit::OK => ("good", "met"),
            exit::INVALID => ("doubtful", "invalid"),
            _ => ("bad", "missed"),
        };
        format!(
            "<tr><th>{}/s</th><td>{}</td><td><span class='badge small {class}'>{word}</span></td>\
             <td>{}</td></tr>",
            grouped(trial.rate.round() as u64),
            micros(trial.p99_us),
            escaped(&trial.reasons.join("; ")),
        )
    };
    let rows: String = trials.iter().map(row).collect();
    let note = "each rate was a run of its own; p99 from the time each stanza was due";
    match rows.is_empty() {
        true => String::new(),
        false => card(
            "The search for the most",
            &format!("<div class='wide'><table>{rows}</table></div>"),
            note,
        ),
    }
}

fn latency_note(result: &RunResult) -> &'static str {
    match result.load.pace.starts_with("open") {
        true => "open loop: counted from the time each stanza was due",
        false => "closed loop: a slow answer delays the next question, so tails look kinder",
    }
}

fn cost(result: &RunResult) -> String {
    let rows = cost_rows(result);
    if rows.is_empty() {
        return String::new();
    }
    let note = "CPU seconds per million deliveries; the floor is the same traffic through a relay \
                that parses nothing, measured in turns with the server";
    wide_card("What it costs", &plot::bars(&rows), note)
}

/// The server's bar and the floor's, where both were measured.
fn cost_rows(result: &RunResult) -> Vec<(String, f64, String, &'static str)> {
    let cpu = result
        .server
        .as_ref()
        .and_then(|server| server.cpu_per_million);
    let Some(cpu) = cpu.filter(|_| result.floor.is_some() || result.plain.is_some()) else {
        return Vec::new();
    };
    let ratio = result.floor.as_ref().and_then(|floor| floor.ratio);
    let ratio = ratio.map_or(String::new(), |ratio| {
        format!(", {ratio:.2} times the floor")
    });
    let mut rows = vec![(
        escaped(&result.name),
        cpu,
        format!("{cpu:.3} s{ratio}"),
        "first",
    )];
    if let Some(plain) = &result.plain {
        let layers = plain.layers();
        let more = plain.surcharge();
        let more = more.map_or(String::new(), |more| format!(": {layers} adds {more}"));
        let label = format!("{:.3} s{more}", plain.cpu_per_million);
        rows.push((
            format!("without {layers}"),
            plain.cpu_per_million,
            label,
            "third",
        ));
    }
    if let Some(floor) = &result.floor {
        let below = floor.cpu_per_million;
        rows.push(("floor".to_owned(), below, format!("{below:.3} s"), "floor"));
    }
    rows
}

/// What each kind of the server's threads had of its CPU time, where there are several.
fn kinds(result: &RunResult) -> String {
    let kinds = result
        .server
        .as_ref()
        .map(Server::kinds)
        .unwrap_or_default();
    let rows: Vec<_> = kinds
        .into_iter()
        .map(|(kind, cpu)| (escaped(kind), cpu, format!("{cpu:.3} s"), "first"))
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let note = "server CPU in seconds per million deliveries, by the kind of its threads";
    card("Where the CPU time goes", &plot::bars(&rows), note)
}

/// Bytes per connection, where so many connections outweigh what the server warms up once.
fn bytes_per_connection(result: &RunResult) -> Option<String> {
    let server = result
        .server
        .as_ref()
        .filter(|server| server.resident_ready > 0)?;
    (result.load.clients >= Server::BYTES_CLIENTS_MIN)
        .then(|| grouped(server.bytes_per_connection as u64))
}

/// A time, or nothing where nothing was timed.
fn shown(times: &Times, us: f64) -> String {
    if times.count > 0 {
        micros(us)
    } else {
        String::new()
    }
}

fn verification(result: &RunResult) -> String {
    let verdict = &result.verdict;
    let mut cells = format!(
        "<td>{}</td><td>{}</td><td>{}</td>",
        grouped(verdict.sent),
        grouped(verdict.expected),
        grouped(verdict.delivered)
    );
    let mut names = "<th>sent</th><th>expected</th><th>delivered</th>".to_owned();
    for (name, count) in verdict.faults() {
        names += &format!("<th>{name}</th>");
        let class = if count > 0 { "bad" } else { "zero" };
        cells += &format!("<td class='{class}'>{}</td>", grouped(count));
    }
    let table = format!("<div class='wide'><table><tr>{names}</tr><tr>{cells}</tr></table></div>");
    wide_card(
        "Verification",
        &table,
        "every delivery is checked for sender, order, count and content, every acknowledgement \
         for what it covers",
    )
}

fn times_table(result: &RunResult) -> String {
    let headings = Times::HEADINGS.map(|heading| format!("<th>{heading}</th>"));
    let mut rows = format!(
        "<tr><th></th><th>count</th><th>mean</th>{}</tr>",
        headings.concat()
    );
    for times in result.times() {
        let mean = std::iter::once(times.mean_us);
        let cells: String = mean
            .chain(times.columns())
            .map(|us| format!("<td>{}</td>", micros(us)))
            .collect();
        let count = grouped(times.count);
        rows += &format!("<tr><th>{}</th><td>{count}</td>{cells}</tr>", times.name);
    }
    wide_card(
        "Times",
        &format!("<div class='wide'><table>{rows}</table></div>"),
        "",
    )
}

fn facts(result: &RunResult) -> String {
    let limits = result.machine.open_files;
    let load = &result.load;
    let mut rows = vec![
        ("command", result.command.join(" ")),
        (
            "version",
            format!(
                "{} {}",
                result.version,
                result.commit.as_deref().unwrap_or("")
            ),
        ),
        ("target", format!("{} {}", load.target, load.domain)),
        ("mechanism", load.mechanism.clone()),
        ("limits", format!("open files {} / {}", limits.0, limits.1)),
        ("io_uring", result.ring.clone()),
        ("clock", result.machine.clock_source.clone()),
        ("seed", load.seed.to_string()),
        (
            "threads",
            match load.core {
                Some(core) => format!("{}, pinned from core {core} on", load.threads),
                None => load.threads.to_string(),
            },
        ),
        (
            "generator",
            format!(
                "{:.0} % busy, {} MB",
                result.generator.busy * 100.0,
                result.generator.resident >> 20
            ),
        ),
    ];
    for worker in &result.workers {
        let commit = worker.commit.as_deref().unwrap_or_default();
        rows.push(("worker", format!("{} {commit}", worker.line())));
    }
    if let Some(server) = &result.server {
        rows.push(("server", server.command.clone()));
        rows.push((
            "server memory",
            format!(
                "{} MB empty, {} MB with all clients, {} MB after the load",
                server.resident_before >> 20,
                server.resident_ready >> 20,
                server.resident_after >> 20,
            ),
        ));
    }
    let row = |name: &str, value: &str| format!("<dt>{name}</dt><dd>{value}</dd>");
    let rows: String = std::iter::once(row("machine", &machine(result)))
        .chain(
            rows.iter()
                .filter(|(_, value)| !value.trim().is_empty())
                .map(|(name, value)| row(name, &escaped(value))),
        )
        .collect();
    let config = result.server_config.as_ref().map_or(String::new(), |text| {
        let text = escaped(text);
        format!("<details><summary>server configuration</summary><pre>{text}</pre></details>")
    });
    let facts = format!("<dl>{rows}</dl>{config}");
    wide_card("What decided this result", &facts, "")
}

fn card(title: &str, content: &str, note: &str) -> String {
    section("card", title, content, note)
}

/// A card as wide as the page.
fn wide_card(title: &str, content: &str, note: &str) -> String {
    section("card whole", title, content, note)
}

fn section(class: &str, title: &str, content: &str, note: &str) -> String {
    let note = if note.is_empty() {
        String::new()
    } else {
        format!("<p class='note'>{note}</p>")
    };
    format!("<section class='{class}'><h2>{title}</h2>{note}\n{content}</section>\n")
}

pub(crate) fn escaped(text: &str) -> String {
    let mut out = Vec::new();
    crate::scan::escape(text, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Slice;
    use crate::ledger::Verdict;
    use crate::live::Point;
    use crate::machine::Machine;
    use crate::result::{Floor, Load, Plain};
    use crate::stats::histogram;

    /// A result with something in every part.
    fn result() -> RunResult {
        let mut seen = histogram();
        for value in 1..=10_000u64 {
            seen.record(value * 1000).unwrap();
        }
        let times = Times::of("message", &seen);
        let floor = Floor {
            cpu_per_million: 2.0,
            ratio: Some(1.5),
            latency: times.clone(),
            ..Floor::default()
        };
        let point = |second| Point {
            second,
            delivered: 10,
            p50_us: 1.0,
            p99_us: 9.0,
            max_us: 20.0,
        };
        RunResult {
            name: "a <name>".into(),
            version: "0".into(),
            command: vec!["loadgen".into()],
            machine: Machine::read(),
            load: Load {
                scenario: "chat".into(),
                pace: "closed loop".into(),
                ack_every: Some(7),
                ..Load::default()
            },
            server_config: Some("a = \"b\"\n".into()),
            durability: Some("arch<ive".into()),
            exit: exit::UNVERIFIED,
            reasons: vec!["3 lost".into()],
            rate: 1_234_567.0,
            latency: times.clone(),
            service: Times::default(),
            acks: times.clone(),
            phases: vec![times],
            verdict: Verdict {
                unacked: 4711,
                false_acks: 815,
                ..Verdict::default()
            },
            slices: vec![Slice {
                at: 3.0,
                seconds: 3.0,
                ..Slice::default()
            }],
            timeline: vec![point(3), point(4), point(5)],
            server: Some(Server {
                cpu_per_million: Some(3.0),
                cpu_per_million_by_thread: [("shard", 2.0), ("st<re", 1.0), ("idle", 0.0001)]
                    .map(|(kind, cpu)| (kind.to_owned(), cpu))
                    .into(),
                ..Server::default()
            }),
            floor: Some(floor),
            plain: Some(Plain {
                cpu_per_million: 2.5,
                surcharge_us: Some(0.5),
                ..Plain::default()
            }),
            ..RunResult::default()
        }
    }

    #[test]
    fn thresholds_and_a_search_are_shown_where_there_are_any() {
        let mut asked = result();
        asked.thresholds = vec![Threshold {
            term: "p99<5ms".into(),
            found: Some("9.90 ms".into()),
            is_met: false,
        }];
        asked.trials = vec![Trial {
            rate: 48_000.0,
            exit: exit::MISSED,
            reasons: vec!["p99<5ms was missed".into()],
            ..Trial::default()
        }];
        let page = render(&asked);
        let missed = "<span class='badge small bad'>missed</span>";
        let row = format!("<tr><th>p99&lt;5ms</th><td>9.90 ms</td><td>{missed}</td></tr>");
        assert!(page.contains(&row));
        assert!(page.contains("<th>48,000/s</th>") && page.contains("p99&lt;5ms was missed"));
        let page = render(&result());
        assert!(!page.contains("Thresholds") && !page.contains("The search"));
    }

    #[test]
    fn the_page_is_self_contained_and_shows_the_verdict() {
        let page = render(&result());
        assert!(
            page.contains("a &lt;name&gt;")
                && page.contains("badge bad")
                && page.contains("3 lost")
        );
        assert!(page.contains("1,234,567") && page.contains("1.50&times;"));
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert_eq!(page.matches("<svg").count(), 7);
        for outside in [
            "http:", "https:", "src=", "@import", "<script", "NaN", "inf,",
        ] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn a_managed_run_shows_its_acknowledgements_and_what_storing_costs() {
        let page = render(&result());
        assert!(page.contains("asked for after every 7"));
        assert!(page.contains("Acknowledgements by percentile"));
        for cell in ["<td class='bad'>4,711</td>", "<td class='bad'>815</td>"] {
            assert!(page.contains(cell), "{cell}");
        }
        assert!(page.contains(">2.000 s<") && page.contains(">st&lt;re<"));
        assert!(!page.contains(">idle<"), "too little to be seen");
        let mut unmanaged = result();
        (unmanaged.load.ack_every, unmanaged.acks) = (None, Times::default());
        let threads = &mut unmanaged.server.as_mut().unwrap().cpu_per_million_by_thread;
        threads.retain(|kind, _| kind == "shard");
        let page = render(&unmanaged);
        assert!(!page.contains("Acknowledgements by") && !page.contains("asked for after"));
        assert!(!page.contains("Where the CPU time goes"));
    }

    #[test]
    fn several_runs_share_a_page_and_survive_json() {
        let text = serde_json::to_string(&result()).unwrap();
        let read: RunResult = serde_json::from_str(&text).unwrap();
        let page = render_all(&[result(), read]);
        assert_eq!(page.matches("<details class='whole'").count(), 2);
        let overview = page.split("</table>").next().unwrap();
        // Once for the deliveries and once for the acknowledgements of each.
        assert_eq!(
            overview.matches("<td>9.90 ms</td>").count(),
            4,
            "{overview}"
        );
        assert!(page.contains("2 of 2 not in order"));
        assert_eq!(page.matches("<html").count(), 1);
    }

    #[test]
    fn a_page_of_several_invocations_says_which_run_is_of_which() {
        let mut other = result();
        let same = render_all(&[result(), other.clone()]);
        assert_eq!(same.matches("unknown commit").count(), 1);
        (other.commit, other.machine.kernel) = (Some("abc".into()), "9.9".into());
        let mixed = render_all(&[result(), other]);
        let head = mixed.split("</header>").next().unwrap();
        assert!(head.contains("abc, unknown commit") && head.contains("kernel 9.9"));
        assert!(mixed.contains("<td>abc</td>") && mixed.contains("<td>unknown commit</td>"));
    }

    #[test]
    fn what_the_server_ran_with_is_folded_and_its_promise_is_not() {
        let page = render_all(&[result()]);
        assert!(page.contains("<th>durability</th>") && page.contains("<td>arch&lt;ive</td>"));
        assert!(page.contains("&middot; durability arch&lt;ive</p>"));
        let folded = "<details><summary>server configuration</summary><pre>a = &quot;b&quot;";
        assert!(page.contains(folded));
        let mut unknown = result();
        (unknown.server_config, unknown.durability) = (None, None);
        let page = render(&unknown);
        assert!(!page.contains("<pre>") && !page.contains("durability"));
    }

    #[test]
    fn a_result_without_measurements_is_still_a_page() {
        let mut empty = result();
        empty.latency = Times::default();
        empty.timeline.clear();
        empty.phases.clear();
        (empty.floor, empty.server) = (None, None);
        empty.acks = Times::default();
        let page = render(&empty);
        assert!(page.contains("Verification") && !page.contains("<svg"));
    }
}
