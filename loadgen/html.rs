//! `report.html`: one self-contained page that a person would rather look at than read.

use crate::live::{Point, grouped, micros};
use crate::plot::{self, Axis, Plot};
use crate::result::{RunResult, Times, exit};

const STYLE: &str = include_str!("report.css");

/// The page of one run.
pub fn render(result: &RunResult) -> String {
    page(&result.name, &parts(result))
}

/// The page of several runs: one table of all, and each run's own page behind its line.
pub fn render_all(results: &[RunResult]) -> String {
    let Some(first) = results.first() else {
        return page("nothing", "");
    };
    let bad = results
        .iter()
        .filter(|result| result.exit != exit::OK)
        .count();
    let (class, word) = match bad {
        0 => ("good", "all verified".to_owned()),
        _ => ("bad", format!("{bad} of {} not in order", results.len())),
    };
    let machine = &first.machine;
    let mut content = format!(
        "<header><h1>Load test</h1><span class='badge {class}'>{word}</span>\
         <p>{}, {} cores, kernel {} &middot; {}</p></header>\n",
        escaped(&machine.cpu),
        machine.cores,
        escaped(&machine.kernel),
        escaped(first.commit.as_deref().unwrap_or("unknown commit")),
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
    let mut rows = String::from(
        "<tr><th>run</th><th></th><th>clients</th><th>rate/s</th><th>p50</th><th>p99</th>\
         <th>lost</th><th>CPU</th><th>floor</th><th>ratio</th><th>bytes/connection</th></tr>",
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
             <td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{cpu}</td><td>{}</td><td>{}</td>\
             <td>{}</td></tr>",
            escaped(&result.name),
            grouped(result.load.clients.into()),
            grouped(result.rate.round() as u64),
            shown(&result.latency, result.latency.p50_us),
            shown(&result.latency, result.latency.p99_us),
            grouped(result.verdict.lost),
            floor.map_or(String::new(), |floor| format!(
                "{:.3} s",
                floor.cpu_per_million
            )),
            floor
                .and_then(|floor| floor.ratio)
                .map_or(String::new(), |ratio| format!("{ratio:.2}&times;")),
            bytes_per_connection(result).unwrap_or_default(),
        );
    }
    format!("<div class='wide'><table>{rows}</table></div>")
}

/// Everything about one run.
fn parts(result: &RunResult) -> String {
    let mut page = String::new();
    page += &heading(result);
    page += &tiles(result);
    if !result.latency.curve.is_empty() {
        page += &card(
            "Latency by percentile",
            &latency(result),
            latency_note(result),
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
        _ => ("bad", "failed"),
    }
}

fn heading(result: &RunResult) -> String {
    let (class, word) = verdict_of(result);
    let load = &result.load;
    let mut text = format!(
        "<header><h1>{}</h1><span class='badge {class}'>{word}</span>\
         <p>{} clients &middot; {} &middot; {} &middot; {}-byte stanzas &middot; tls {}</p>",
        escaped(&result.name),
        grouped(load.clients.into()),
        escaped(&load.scenario),
        escaped(&load.pace),
        load.stanza_size,
        if load.tls.is_empty() {
            "none"
        } else {
            &load.tls
        },
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
    if let Some(more) = result.plain.as_ref().and_then(|plain| plain.surcharge_us) {
        tiles.push((format!("{more:.2} us"), "TLS per delivery".to_owned()));
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

fn latency_note(result: &RunResult) -> &'static str {
    match result.load.pace.starts_with("open") {
        true => "open loop: counted from the time each stanza was due",
        false => "closed loop: a slow answer delays the next question, so tails look kinder",
    }
}

/// Curves over the logarithm of 1/(1-percentile).
fn latency(result: &RunResult) -> String {
    let floor = result.floor.as_ref().map(|floor| &floor.latency);
    let plain = result.plain.as_ref().map(|plain| &plain.latency);
    let all = [Some(&result.latency), Some(&result.service), plain, floor];
    let shown = || all.iter().flatten().filter(|times| !times.curve.is_empty());
    let low = shown()
        .map(|times| times.curve[0].1)
        .fold(f64::MAX, f64::min);
    let high = shown().map(|times| times.max_us).fold(0.0, f64::max);
    let deepest = shown()
        .filter_map(|times| times.curve.last())
        .map(|point| rarity(point.0));
    let deepest = deepest.fold(10.0, f64::max);
    let mut plot = Plot::new(Axis::log(1.0, deepest, false), Axis::log(low, high, true));
    plot.mark_times();
    let nines = [
        (0.0, "0"),
        (50.0, "50"),
        (90.0, "90"),
        (99.0, "99"),
        (99.9, "99.9"),
    ];
    let more = [(99.99, "99.99"), (99.999, "99.999")];
    for (percentile, label) in nines.into_iter().chain(more) {
        if rarity(percentile) <= deepest {
            plot.mark_x(rarity(percentile), label);
        }
    }
    let points = |times: &Times| -> Vec<(f64, f64)> {
        times
            .curve
            .iter()
            .map(|(percentile, us)| (rarity(*percentile), *us))
            .collect()
    };
    if let Some(floor) = floor {
        plot.curve(&points(floor), "floor", "floor");
    }
    if let Some(plain) = plain {
        plot.curve(&points(plain), "second", "without TLS");
    }
    plot.curve(&points(&result.service), "second", "service time");
    plot.area(&points(&result.latency), "first", &result.latency.name);
    plot.render("latency by percentile")
}

fn rarity(percentile: f64) -> f64 {
    1.0 / (1.0 - percentile / 100.0).max(1e-7)
}

/// The whole seconds of the measured stretches, each stretch apart: a second that is cut by its end
/// would look like a dip.
fn stretches(result: &RunResult) -> Vec<Vec<&Point>> {
    let within = |point: &&Point| {
        let (from, to) = (point.second as f64, point.second as f64 + 1.0);
        result
            .slices
            .iter()
            .any(|slice| slice.at <= from && to <= slice.at + slice.seconds)
    };
    let mut stretches: Vec<Vec<&Point>> = Vec::new();
    for point in result.timeline.iter().filter(within) {
        match stretches.last_mut() {
            Some(stretch)
                if stretch
                    .last()
                    .is_some_and(|last| last.second + 1 == point.second) =>
            {
                stretch.push(point);
            }
            _ => stretches.push(vec![point]),
        }
    }
    stretches
}

/// One curve for each stretch, named once, side by side as if the turns of the floor took no time.
fn draw(plot: &mut Plot, result: &RunResult, read: fn(&Point) -> f64, style: (&'static str, &str)) {
    let mut second = 0.0;
    for (at, stretch) in stretches(result).iter().enumerate() {
        let mut points = Vec::new();
        for point in stretch {
            points.push((second, read(point)));
            second += 1.0;
        }
        plot.curve(&points, style.0, if at == 0 { style.1 } else { "" });
    }
}

fn measured_seconds(result: &RunResult) -> usize {
    stretches(result).iter().map(Vec::len).sum()
}

fn seconds(result: &RunResult) -> Axis {
    Axis::linear(
        0.0,
        measured_seconds(result).saturating_sub(1).max(1) as f64,
    )
}

fn mark_seconds(plot: &mut Plot, result: &RunResult) {
    let count = measured_seconds(result);
    for second in (0..count).step_by(count.div_ceil(8).max(1)) {
        plot.mark_x(second as f64, &format!("{second} s"));
    }
}

fn throughput(result: &RunResult) -> String {
    let high = stretches(result)
        .iter()
        .flatten()
        .map(|point| point.delivered)
        .max();
    let mut plot = Plot::new(
        seconds(result),
        Axis::linear(0.0, high.unwrap_or(1) as f64 * 1.08),
    );
    plot.mark_counts();
    mark_seconds(&mut plot, result);
    draw(
        &mut plot,
        result,
        |point| point.delivered as f64,
        ("first", "deliveries a second"),
    );
    plot.render("deliveries a second")
}

fn over_time(result: &RunResult) -> String {
    let stretches = stretches(result);
    let points = || stretches.iter().flatten();
    let low = points().map(|point| point.p50_us).fold(f64::MAX, f64::min);
    let high = points().map(|point| point.p99_us).fold(0.0, f64::max);
    let mut plot = Plot::new(seconds(result), Axis::log(low, high, true));
    plot.mark_times();
    mark_seconds(&mut plot, result);
    draw(&mut plot, result, |point| point.p50_us, ("first", "median"));
    draw(
        &mut plot,
        result,
        |point| point.p99_us,
        ("second", "99th percentile"),
    );
    plot.render("latency over time")
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
        let more = plain.surcharge_us.unwrap_or(0.0);
        let label = format!("{:.3} s: TLS adds {more:.2} us", plain.cpu_per_million);
        rows.push((
            "without TLS".to_owned(),
            plain.cpu_per_million,
            label,
            "second",
        ));
    }
    if let Some(floor) = &result.floor {
        let below = floor.cpu_per_million;
        rows.push(("floor".to_owned(), below, format!("{below:.3} s"), "floor"));
    }
    rows
}

/// Bytes per connection, where so many connections outweigh what the server warms up once.
fn bytes_per_connection(result: &RunResult) -> Option<String> {
    const CLIENTS_MIN: u32 = 5_000;
    let server = result
        .server
        .as_ref()
        .filter(|server| server.resident_ready > 0)?;
    (result.load.clients >= CLIENTS_MIN).then(|| grouped(server.bytes_per_connection as u64))
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
        "every delivery is checked for sender, order, count and content",
    )
}

fn times_table(result: &RunResult) -> String {
    let mut rows = String::from(
        "<tr><th></th><th>count</th><th>mean</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th>\
         <th>p99.99</th><th>max</th></tr>",
    );
    let floor = result.floor.as_ref().map(|floor| &floor.latency);
    let more = [
        &result.latency,
        &result.service,
        &result.acks,
        &result.generator.lag,
    ];
    let plain = result.plain.as_ref().map(|plain| &plain.latency);
    for times in result
        .phases
        .iter()
        .chain(more)
        .chain(plain)
        .chain(floor)
        .filter(|times| times.count > 0)
    {
        rows += &format!(
            "<tr><th>{}</th><td>{}</td>",
            times.name,
            grouped(times.count)
        );
        let columns = [
            times.mean_us,
            times.p50_us,
            times.p90_us,
            times.p99_us,
            times.p999_us,
        ];
        for value in columns.into_iter().chain([times.p9999_us, times.max_us]) {
            rows += &format!("<td>{}</td>", micros(value));
        }
        rows += "</tr>";
    }
    wide_card(
        "Times",
        &format!("<div class='wide'><table>{rows}</table></div>"),
        "",
    )
}

fn facts(result: &RunResult) -> String {
    let machine = &result.machine;
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
        (
            "machine",
            format!(
                "{}, {} cores, kernel {}",
                machine.cpu, machine.cores, machine.kernel
            ),
        ),
        (
            "limits",
            format!(
                "open files {} / {}",
                machine.open_files.0, machine.open_files.1
            ),
        ),
        ("io_uring", result.ring.clone()),
        ("clock", machine.clock_source.clone()),
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
    let rows: String = rows
        .iter()
        .filter(|(_, value)| !value.trim().is_empty())
        .map(|(name, value)| format!("<dt>{name}</dt><dd>{}</dd>", escaped(value)))
        .collect();
    wide_card("What decided this result", &format!("<dl>{rows}</dl>"), "")
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

fn escaped(text: &str) -> String {
    let mut out = Vec::new();
    crate::scan::escape(text, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Slice;
    use crate::machine::Machine;
    use crate::result::{Floor, Load, Plain, Server};
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
            began: 0,
            version: "0".into(),
            commit: None,
            command: vec!["loadgen".into()],
            machine: Machine::read(),
            ring: String::new(),
            load: Load {
                scenario: "chat".into(),
                pace: "closed loop".into(),
                ..Load::default()
            },
            exit: exit::UNVERIFIED,
            reasons: vec!["3 lost".into()],
            rate: 1_234_567.0,
            latency: times.clone(),
            service: Times::default(),
            acks: Times::default(),
            phases: vec![times],
            verdict: Default::default(),
            failures: Default::default(),
            slices: vec![Slice {
                at: 3.0,
                seconds: 3.0,
                ..Slice::default()
            }],
            timeline: vec![point(3), point(4), point(5)],
            server: Some(Server {
                cpu_per_million: Some(3.0),
                ..Server::default()
            }),
            floor: Some(floor),
            plain: Some(Plain {
                cpu_per_million: 2.5,
                surcharge_us: Some(0.5),
                ..Plain::default()
            }),
            generator: Default::default(),
        }
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
        assert_eq!(page.matches("<svg").count(), 5);
        for outside in [
            "http:", "https:", "src=", "@import", "<script", "NaN", "inf,",
        ] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn several_runs_share_a_page_and_survive_json() {
        let text = serde_json::to_string(&result()).unwrap();
        let read: RunResult = serde_json::from_str(&text).unwrap();
        let page = render_all(&[result(), read]);
        assert_eq!(page.matches("<details").count(), 2);
        assert!(page.contains("2 of 2 not in order"));
        assert_eq!(page.matches("<html").count(), 1);
    }

    #[test]
    fn a_result_without_measurements_is_still_a_page() {
        let mut empty = result();
        empty.latency = Times::default();
        empty.timeline.clear();
        empty.phases.clear();
        (empty.floor, empty.server) = (None, None);
        let page = render(&empty);
        assert!(page.contains("Verification") && !page.contains("<svg"));
    }
}
