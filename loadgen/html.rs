//! `report.html`: one self-contained page that a person would rather look at than read.

use crate::live::{grouped, micros};
use crate::plot::{self, Axis, Plot};
use crate::result::{RunResult, Times, exit};

const STYLE: &str = include_str!("report.css");

/// The page.
pub fn render(result: &RunResult) -> String {
    let mut page = String::new();
    let title = escaped(&result.name);
    page += "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>\n";
    page += "<meta name='viewport' content='width=device-width, initial-scale=1'>\n";
    page += &format!("<title>{title} - loadgen</title>\n<style>\n{STYLE}</style></head><body><main>\n");
    page += &heading(result);
    page += &tiles(result);
    if !result.latency.curve.is_empty() {
        page += &card("Latency by percentile", &latency(result), latency_note(result));
    }
    if result.timeline.len() > 1 {
        page += &card("Deliveries a second", &throughput(result), "one point for each second");
        page += &card("Latency over time", &over_time(result), "median and 99th percentile");
    }
    page += &cost(result);
    if !result.phases.is_empty() {
        let rows: Vec<_> = result
            .phases
            .iter()
            .map(|times| (times.name.clone(), [times.p50_us, times.p99_us, times.max_us]))
            .collect();
        let note = "median to 99th percentile (printed), dot at the longest";
        page += &card("Logging in", &plot::ranges(&rows), note);
    }
    page += &verification(result);
    page += &times_table(result);
    page += &facts(result);
    page += "</main></body></html>\n";
    page
}

fn heading(result: &RunResult) -> String {
    let (class, word) = match result.exit {
        exit::OK => ("good", "verified"),
        exit::INVALID => ("doubtful", "invalid"),
        _ => ("bad", "failed"),
    };
    let load = &result.load;
    let mut text = format!(
        "<header><h1>{}</h1><span class='badge {class}'>{word}</span>\
         <p>{} clients &middot; {} &middot; {} &middot; {}-byte stanzas &middot; tls {}</p>",
        escaped(&result.name),
        grouped(load.clients.into()),
        escaped(&load.scenario),
        escaped(&load.pace),
        load.stanza_size,
        if load.tls.is_empty() { "none" } else { &load.tls },
    );
    for reason in &result.reasons {
        text += &format!("<p class='reason'>{}</p>", escaped(reason));
    }
    text + "</header>\n"
}

fn tiles(result: &RunResult) -> String {
    let unit = if result.load.scenario == "login" { "logins/s" } else { "deliveries/s" };
    let mut tiles = vec![
        (grouped(result.rate.round() as u64), unit.to_owned()),
        (micros(result.latency.p50_us), "median".to_owned()),
        (micros(result.latency.p99_us), "99th percentile".to_owned()),
        (grouped(result.verdict.lost), "lost".to_owned()),
    ];
    if let Some(server) = &result.server {
        if let Some(cpu) = server.cpu_per_million {
            tiles.push((format!("{cpu:.2} s"), "server CPU per million".to_owned()));
        } else if let Some(cpu) = server.cpu_us_per_login {
            tiles.push((format!("{cpu:.0} us"), "server CPU per login".to_owned()));
        }
        if server.resident_ready > 0 {
            let bytes = grouped(server.bytes_per_connection as u64);
            tiles.push((bytes, "bytes per connection".to_owned()));
        }
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
    let all = [Some(&result.latency), Some(&result.service), floor];
    let shown = || all.iter().flatten().filter(|times| !times.curve.is_empty());
    let low = shown().map(|times| times.curve[0].1).fold(f64::MAX, f64::min);
    let high = shown().map(|times| times.max_us).fold(0.0, f64::max);
    let deepest = shown().filter_map(|times| times.curve.last()).map(|point| rarity(point.0));
    let deepest = deepest.fold(10.0, f64::max);
    let mut plot = Plot::new(Axis::log(1.0, deepest, false), Axis::log(low, high, true));
    plot.mark_times();
    let nines = [(0.0, "0"), (50.0, "50"), (90.0, "90"), (99.0, "99"), (99.9, "99.9")];
    let more = [(99.99, "99.99"), (99.999, "99.999")];
    for (percentile, label) in nines.into_iter().chain(more) {
        if rarity(percentile) <= deepest {
            plot.mark_x(rarity(percentile), label);
        }
    }
    let points = |times: &Times| -> Vec<(f64, f64)> {
        times.curve.iter().map(|(percentile, us)| (rarity(*percentile), *us)).collect()
    };
    if let Some(floor) = floor {
        plot.curve(&points(floor), "floor", "floor");
    }
    plot.curve(&points(&result.service), "second", "service time");
    plot.area(&points(&result.latency), "first", &result.latency.name);
    plot.render("latency by percentile")
}

fn rarity(percentile: f64) -> f64 {
    1.0 / (1.0 - percentile / 100.0).max(1e-7)
}

fn seconds(result: &RunResult) -> Axis {
    let first = result.timeline.first().map_or(0, |point| point.second);
    let last = result.timeline.last().map_or(1, |point| point.second);
    Axis::linear(first as f64, last as f64)
}

fn mark_seconds(plot: &mut Plot, result: &RunResult) {
    let (Some(first), Some(last)) = (result.timeline.first(), result.timeline.last()) else { return };
    let step = ((last.second - first.second) / 8).max(1);
    for second in (first.second..=last.second).step_by(step as usize) {
        plot.mark_x(second as f64, &format!("{second} s"));
    }
}

fn throughput(result: &RunResult) -> String {
    let points: Vec<_> =
        result.timeline.iter().map(|point| (point.second as f64, point.delivered as f64)).collect();
    let high = points.iter().map(|point| point.1).fold(1.0, f64::max);
    let mut plot = Plot::new(seconds(result), Axis::linear(0.0, high * 1.08));
    plot.mark_counts();
    mark_seconds(&mut plot, result);
    plot.area(&points, "first", "deliveries a second");
    plot.render("deliveries a second")
}

fn over_time(result: &RunResult) -> String {
    let at = |read: fn(&crate::live::Point) -> f64| -> Vec<(f64, f64)> {
        result.timeline.iter().map(|point| (point.second as f64, read(point))).collect()
    };
    let (median, tail) = (at(|point| point.p50_us), at(|point| point.p99_us));
    let low = median.iter().map(|point| point.1).fold(f64::MAX, f64::min);
    let high = tail.iter().map(|point| point.1).fold(0.0, f64::max);
    let mut plot = Plot::new(seconds(result), Axis::log(low, high, true));
    plot.mark_times();
    mark_seconds(&mut plot, result);
    plot.curve(&median, "first", "median");
    plot.curve(&tail, "second", "99th percentile");
    plot.render("latency over time")
}

fn cost(result: &RunResult) -> String {
    let (Some(floor), Some(server)) = (&result.floor, &result.server) else {
        return String::new();
    };
    let Some(cpu) = server.cpu_per_million else { return String::new() };
    let rows = [
        ("server".to_owned(), cpu, format!("{cpu:.3} s"), "first"),
        ("floor".to_owned(), floor.cpu_per_million, format!("{:.3} s", floor.cpu_per_million), "floor"),
    ];
    let note = "CPU seconds per million deliveries; the floor is the same traffic through a relay \
                that parses nothing, measured in turns with the server";
    card("What it costs", &plot::bars(&rows), note)
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
    card("Verification", &table, "every delivery is checked for sender, order, count and content")
}

fn times_table(result: &RunResult) -> String {
    let mut rows = String::from(
        "<tr><th></th><th>count</th><th>mean</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th>\
         <th>p99.99</th><th>max</th></tr>",
    );
    let floor = result.floor.as_ref().map(|floor| &floor.latency);
    let more = [&result.latency, &result.service, &result.generator.lag];
    for times in result.phases.iter().chain(more).chain(floor).filter(|times| times.count > 0) {
        rows += &format!("<tr><th>{}</th><td>{}</td>", times.name, grouped(times.count));
        let columns = [times.mean_us, times.p50_us, times.p90_us, times.p99_us, times.p999_us];
        for value in columns.into_iter().chain([times.p9999_us, times.max_us]) {
            rows += &format!("<td>{}</td>", micros(value));
        }
        rows += "</tr>";
    }
    card("Times", &format!("<div class='wide'><table>{rows}</table></div>"), "")
}

fn facts(result: &RunResult) -> String {
    let machine = &result.machine;
    let load = &result.load;
    let mut rows = vec![
        ("command", result.command.join(" ")),
        ("version", format!("{} {}", result.version, result.commit.as_deref().unwrap_or(""))),
        ("target", format!("{} {}", load.target, load.domain)),
        ("mechanism", load.mechanism.clone()),
        ("machine", format!("{}, {} cores, kernel {}", machine.cpu, machine.cores, machine.kernel)),
        ("limits", format!("open files {} / {}", machine.open_files.0, machine.open_files.1)),
        ("io_uring", result.ring.clone()),
        ("clock", machine.clock_source.clone()),
        ("seed", load.seed.to_string()),
        ("threads", format!("{} from core {:?}", load.threads, load.core)),
        ("generator", format!("{:.0} % busy, {} MB", result.generator.busy * 100.0,
            result.generator.resident >> 20)),
    ];
    if let Some(server) = &result.server {
        rows.push(("server", server.command.clone()));
        rows.push(("server memory", format!(
            "{} MB empty, {} MB with all clients, {} MB after the load",
            server.resident_before >> 20, server.resident_ready >> 20, server.resident_after >> 20,
        )));
    }
    let rows: String = rows
        .iter()
        .filter(|(_, value)| !value.trim().is_empty())
        .map(|(name, value)| format!("<dt>{name}</dt><dd>{}</dd>", escaped(value)))
        .collect();
    card("What decided this result", &format!("<dl>{rows}</dl>"), "")
}

fn card(title: &str, content: &str, note: &str) -> String {
    let note = if note.is_empty() { String::new() } else { format!("<p class='note'>{note}</p>") };
    format!("<section class='card'><h2>{title}</h2>{note}\n{content}</section>\n")
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
    use crate::live::Point;
    use crate::machine::Machine;
    use crate::result::{Floor, Load, Server};
    use crate::stats::histogram;

    /// A result with something in every part.
    fn result() -> RunResult {
        let mut seen = histogram();
        for value in 1..=10_000u64 {
            seen.record(value * 1000).unwrap();
        }
        let times = Times::of("message", &seen);
        let floor = Floor { cpu_per_million: 2.0, ratio: Some(1.5), latency: times.clone(), ..Floor::default() };
        let point = |second| Point { second, delivered: 10, p50_us: 1.0, p99_us: 9.0, max_us: 20.0 };
        RunResult {
            name: "a <name>".into(),
            began: 0,
            version: "0".into(),
            commit: None,
            command: vec!["loadgen".into()],
            machine: Machine::read(),
            ring: String::new(),
            load: Load { scenario: "chat".into(), pace: "closed loop".into(), ..Load::default() },
            exit: exit::UNVERIFIED,
            reasons: vec!["3 lost".into()],
            rate: 1_234_567.0,
            latency: times.clone(),
            service: Times::default(),
            phases: vec![times],
            verdict: Default::default(),
            failures: Default::default(),
            slices: vec![Slice::default()],
            timeline: vec![point(3), point(4), point(5)],
            server: Some(Server { cpu_per_million: Some(3.0), ..Server::default() }),
            floor: Some(floor),
            generator: Default::default(),
        }
    }

    #[test]
    fn the_page_is_self_contained_and_shows_the_verdict() {
        let page = render(&result());
        assert!(page.contains("a &lt;name&gt;") && page.contains("badge bad") && page.contains("3 lost"));
        assert!(page.contains("1,234,567") && page.contains("1.50&times;"));
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert_eq!(page.matches("<svg").count(), 5);
        for outside in ["http:", "https:", "src=", "@import", "<script", "NaN", "inf,"] {
            assert!(!page.contains(outside), "{outside}");
        }
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
