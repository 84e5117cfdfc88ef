//! The files a run leaves: JSON, percentile tables and the HDR log that HdrHistogram's tools read.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;

use crate::phases;
use crate::result::RunResult;
use crate::run::Ran;
use crate::stats::Phase;

/// Nanoseconds of a microsecond: HDR files are written in microseconds.
const UNIT: f64 = 1000.0;

/// Writes a file, with the directories above it.
///
/// # Errors
/// The path, and what the system said.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    std::fs::write(path, bytes).map_err(failed)
}

/// Writes the result as JSON.
///
/// # Errors
/// As [`write`].
pub fn json(path: &Path, result: &RunResult) -> Result<(), String> {
    let mut text = serde_json::to_vec(result).map_err(|error| error.to_string())?;
    text.push(b'\n');
    write(path, &text)
}

/// The columns of [`csv`].
const CSV_HEAD: &str = "of,second,delivered,p50_us,p99_us,max_us\n";

/// What was delivered second by second, and how fast, of all that were measured in the run.
pub fn csv(result: &RunResult) -> String {
    let floor = result.floor.iter().map(|floor| ("floor", &floor.timeline));
    let plain = result.plain.iter().map(|plain| ("plain", &plain.timeline));
    let all = std::iter::once(("run", &result.timeline));
    let mut text = String::from(CSV_HEAD);
    for (of, points) in all.chain(floor).chain(plain) {
        for point in points {
            // The phases of a mixed scenario are told apart.
            let phase = phases::at(&result.scenario_phases, point.second);
            let of = phase.filter(|_| of == "run").unwrap_or(of);
            writeln!(
                text,
                "{of},{},{},{:.1},{:.1},{:.1}",
                point.second, point.delivered, point.p50_us, point.p99_us, point.max_us
            )
            .expect("a String takes it");
        }
    }
    text
}

/// Reads a server's configuration, as text.
///
/// # Errors
/// The path, and what the system said.
pub fn config(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// Which promise an acknowledgement makes by this configuration; nothing where it is not Vorpal's.
pub fn durability(config: &str) -> Option<String> {
    let config: toml::Table = config.parse().ok()?;
    // The one key that Vorpal cannot do without.
    config.get("domain")?.as_str()?;
    let mode = config.get("durability").and_then(|table| table.get("mode"));
    mode.map_or(Some("full"), toml::Value::as_str)
        .map(str::to_owned)
}

/// Reads what [`json`] wrote.
///
/// # Errors
/// The path, and what is wrong with it.
pub fn read(path: &Path) -> Result<RunResult, String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot read {}: {error}", path.display());
    let bytes = std::fs::read(path).map_err(|error| failed(&error))?;
    serde_json::from_slice(&bytes).map_err(|error| failed(&error))
}

/// Appends the main figures of a run as one line: the history that trends are read from.
///
/// # Errors
/// The path, and what the system said.
pub fn append(path: &Path, result: &RunResult) -> Result<(), String> {
    let server = result.server.as_ref();
    let floor = result.floor.as_ref();
    let line = serde_json::json!({
        "began": result.began,
        "host": result.machine.host,
        "commit": result.commit,
        "name": result.name,
        "target": result.load.target,
        "tls": result.load.tls,
        "websocket": result.load.websocket,
        "clients": result.load.clients,
        "pace": result.load.pace,
        "durability": result.durability,
        "exit": result.exit,
        "rate": result.rate,
        "p50_us": result.latency.p50_us,
        "p99_us": result.latency.p99_us,
        "delivered": result.verdict.delivered,
        "lost": result.verdict.lost,
        "cpu_per_million": server.and_then(|server| server.cpu_per_million),
        "cpu_us_per_login": server.and_then(|server| server.cpu_us_per_login),
        "bytes_per_connection": server.map(|server| server.bytes_per_connection),
        "floor_cpu_per_million": floor.map(|floor| floor.cpu_per_million),
        "floor_ratio": floor.and_then(|floor| floor.ratio),
    });
    let failed = |error: std::io::Error| format!("cannot append to {}: {error}", path.display());
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(failed)?;
    std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes()).map_err(failed)
}

/// Writes a `.hgrm` for each kind of time and one `.hlog` of the deliveries, second by second.
///
/// # Errors
/// As [`write`].
pub fn histograms(directory: &Path, ran: &Ran) -> Result<(), String> {
    let meter = &ran.findings.meter;
    let mut all = vec![
        (ran.result.latency.name.as_str(), &meter.latency),
        ("service", &meter.service),
        ("ack", &meter.acks),
        ("lag", &meter.lag),
    ];
    all.extend(
        Phase::ALL
            .iter()
            .map(|phase| (phase.name(), meter.of(*phase))),
    );
    for (name, seen) in all.into_iter().filter(|(_, seen)| !seen.is_empty()) {
        let path = directory.join(format!("{}.hgrm", name.replace(' ', "-")));
        write(&path, percentiles(seen).as_bytes())?;
    }
    for (phase, seen) in ran.result.scenario_phases.iter().zip(&meter.mixed) {
        for (action, [latency, service]) in phases::measured(seen) {
            let name = format!("{}-{}", phase.name, action.name());
            let path = |more| directory.join(format!("{name}{more}.hgrm"));
            write(&path(""), percentiles(latency).as_bytes())?;
            write(&path("-service"), percentiles(service).as_bytes())?;
        }
    }
    let log = interval_log(ran.result.began, &ran.live.seconds)?;
    write(
        &directory.join(format!("{}.hlog", ran.result.latency.name)),
        &log,
    )
}

/// The percentile table of HdrHistogram's `outputPercentileDistribution`, in microseconds.
fn percentiles(seen: &Histogram<u64>) -> String {
    const STEPS_PER_HALF: u32 = 5;
    let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let line = |text: &mut String, value: f64, quantile: f64, count: u64| {
        let end = match quantile < 1.0 {
            true => format!(" {:14.2}", 1.0 / (1.0 - quantile)),
            false => String::new(),
        };
        writeln!(text, "{value:12.3} {quantile:14.12} {count:10}{end}").expect("a String takes it");
    };
    for step in seen.iter_quantiles(STEPS_PER_HALF) {
        let count = (step.quantile() * seen.len() as f64).round() as u64;
        line(
            &mut text,
            step.value_iterated_to() as f64 / UNIT,
            step.quantile(),
            count,
        );
    }
    let (mean, deviation) = (seen.mean() / UNIT, seen.stdev() / UNIT);
    let (max, total) = (seen.max() as f64 / UNIT, seen.len());
    writeln!(
        text,
        "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]"
    )
    .expect("a String takes it");
    writeln!(text, "#[Max     = {max:12.3}, Total count    = {total:12}]")
        .expect("a String takes it");
    text
}

fn interval_log(began: u64, seconds: &[(u64, Histogram<u64>)]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let start = UNIX_EPOCH + Duration::from_secs(began);
    let mut builder = IntervalLogWriterBuilder::new();
    builder.add_comment("[Delivery times of one second each, in nanoseconds]");
    builder
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(1e6);
    let mut log = builder
        .begin_log_with(&mut bytes, &mut serializer)
        .map_err(|error| format!("cannot write the HDR log: {error}"))?;
    for (second, seen) in seconds {
        log.write_histogram(
            seen,
            Duration::from_secs(*second),
            Duration::from_secs(1),
            None,
        )
        .map_err(|error| format!("cannot write the HDR log: {error:?}"))?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Point;
    use crate::result::Floor;
    use crate::stats::histogram;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn the_promise_of_a_configuration_is_full_where_it_says_nothing() {
        let base = "domain = 'a'\n";
        let of = |more: &str| durability(&format!("{base}{more}"));
        assert_eq!(of("").as_deref(), Some("full"));
        assert_eq!(of("[durability]").as_deref(), Some("full"));
        assert_eq!(
            of("[durability]\nmode = 'memory'").as_deref(),
            Some("memory")
        );
        assert_eq!(of("[durability]\nmode = 7"), None);
        // Prosody's is no TOML, and another server's that is promises nothing that is known.
        assert_eq!(durability("VirtualHost \"a\""), None);
        assert_eq!(durability("storage = 'internal'"), None);
    }

    #[test]
    fn every_second_of_everyone_is_a_line_of_csv() {
        let point = |second| Point {
            second,
            delivered: 10 * second,
            p50_us: 1.25,
            p99_us: 2.0,
            max_us: 3.0,
        };
        let result = RunResult {
            timeline: vec![point(3), point(4)],
            floor: Some(Floor {
                timeline: vec![point(5)],
                ..Floor::default()
            }),
            ..RunResult::default()
        };
        let text = csv(&result);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[2], "run,4,40,1.2,2.0,3.0");
        assert!(lines[3].starts_with("floor,5,50,"));
        let columns = |line: &str| line.split(',').count();
        assert!(lines.iter().all(|line| columns(line) == columns(lines[0])));
    }

    #[test]
    fn a_second_of_a_phase_is_under_its_name() {
        let point = |second| Point {
            second,
            delivered: 1,
            p50_us: 1.0,
            p99_us: 1.0,
            max_us: 1.0,
        };
        let result = RunResult {
            timeline: vec![point(3), point(9)],
            scenario_phases: vec![crate::phases::PhaseResult {
                name: "storm".into(),
                at: 2.75,
                seconds: 2.0,
                ..Default::default()
            }],
            ..RunResult::default()
        };
        let text = csv(&result);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert!(lines[0].starts_with("storm,3,"), "{text}");
        assert!(lines[1].starts_with("run,9,"), "{text}");
    }

    #[test]
    fn a_percentile_table_ends_with_the_maximum() {
        let mut seen = histogram();
        for value in 1..=1000u64 {
            seen.record(value * 1000).unwrap();
        }
        let text = percentiles(&seen);
        let last = text.lines().rfind(|line| !line.starts_with('#')).unwrap();
        let words: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(&words[1..], ["1.000000000000", "1000"]);
        assert!(words[0].starts_with("1000."), "{last}");
        assert!(text.contains("Total count    =         1000]"));
    }

    #[test]
    fn the_log_reads_back_second_by_second() {
        let mut seen = histogram();
        seen.record(5000).unwrap();
        let bytes = interval_log(1_700_000_000, &[(0, seen.clone()), (1, seen)]).unwrap();
        let entries = IntervalLogIterator::new(&bytes)
            .filter(|entry| matches!(entry, Ok(LogEntry::Interval(_))))
            .count();
        assert_eq!(entries, 2);
    }
}
