//! The final table on standard output.

use std::fmt::Write as _;

use crate::live::{grouped, micros};
use crate::phases;
use crate::result::{RunResult, Server, Times, exit};

/// The whole table.
pub fn render(result: &RunResult) -> String {
    let mut text = String::new();
    let load = &result.load;
    let word = match result.exit {
        exit::OK => "VERIFIED",
        exit::INVALID => "INVALID",
        exit::MISSED => "MISSED",
        _ => "FAILED",
    };
    line(&mut text, &format!("\n{}: {word}", result.name));
    for reason in &result.reasons {
        line(&mut text, &format!("  ! {reason}"));
    }
    line(
        &mut text,
        &format!(
            "  {} clients, {}, {}, {}, {}, target {}",
            grouped(load.clients.into()),
            load.scenario,
            load.pace,
            load.sizes(),
            load.transport(),
            load.target,
        ),
    );
    if let Some(mode) = &result.durability {
        line(&mut text, &format!("  durability {mode}"));
    }
    times(&mut text, result);
    text += &phases::table(&result.scenario_phases);
    tail(&mut text, result);
    text
}

/// Everything that was timed.
fn times(text: &mut String, result: &RunResult) {
    let mut head = format!("\n  {:<14}{:>10}", "times", "count");
    for heading in Times::HEADINGS {
        head += &format!("{heading:>11}");
    }
    line(text, &head);
    for times in result.times() {
        let mut row = format!("  {:<14}{:>10}", times.name, grouped(times.count));
        for us in times.columns() {
            row += &format!("{:>11}", micros(us));
        }
        line(text, &row);
    }
}

/// The account, the cost, and how the generator fared.
fn tail(text: &mut String, result: &RunResult) {
    let verdict = &result.verdict;
    line(
        text,
        &format!(
            "\n  deliveries    {} of {} expected: {}",
            grouped(verdict.delivered),
            grouped(verdict.expected),
            verdict
                .faults()
                .iter()
                .map(|(name, count)| format!("{count} {name}"))
                .collect::<Vec<_>>()
                .join(", "),
        ),
    );
    line(
        text,
        &format!("  rate          {}/s", grouped(result.rate.round() as u64)),
    );
    cost(text, result);
    for threshold in result.thresholds.iter().filter(|one| one.is_met) {
        let found = threshold.found.as_deref().unwrap_or_default();
        line(
            text,
            &format!("  threshold     {}: {found}", threshold.term),
        );
    }
    for trial in &result.trials {
        line(text, &format!("  tried         {}", trial.line()));
    }
    for worker in &result.workers {
        line(text, &format!("  worker        {}", worker.line()));
    }
    let note = match (result.generator.is_limit, &result.scenario_phases[..]) {
        (false, _) => "",
        (true, []) => ": it limits the rate; the CPU per delivery holds all the same",
        (true, _) => ": it limits the rate of a closed phase, in which it was busier than that",
    };
    line(
        text,
        &format!(
            "  generator     {:.0} % busy, {} MB{note}",
            result.generator.busy * 100.0,
            result.generator.resident >> 20,
        ),
    );
}

fn cost(text: &mut String, result: &RunResult) {
    if let Some(server) = &result.server {
        if let Some(cpu) = server.cpu_per_million {
            line(
                text,
                &format!(
                    "  server CPU    {cpu:.3} s per million deliveries{}",
                    kinds(server)
                ),
            );
        }
        if let Some(cpu) = server.cpu_us_per_login {
            line(text, &format!("  per login     {cpu:.0} us of server CPU"));
        }
        if let Some(share) = server.idle_share {
            line(
                text,
                &format!("  idle          {:.2} % of a core", share * 100.0),
            );
        }
        if server.resident_before > 0 {
            line(
                text,
                &format!(
                    "  memory        {:.0} bytes per connection ({} MB empty, {} ready, {} after)",
                    server.bytes_per_connection,
                    server.resident_before >> 20,
                    server.resident_ready >> 20,
                    server.resident_after >> 20,
                ),
            );
        }
    }
    if let Some(plain) = &result.plain {
        let layers = plain.layers();
        let more = plain.surcharge();
        let more = more.map_or(String::new(), |more| {
            format!(": {layers} adds {more} to each delivery")
        });
        line(
            text,
            &format!(
                "  {:<13} {:.3} s per million, {}/s{more}",
                format!("without {layers}"),
                plain.cpu_per_million,
                grouped(plain.rate.round() as u64),
            ),
        );
    }
    if let Some(floor) = &result.floor {
        let ratio = floor
            .ratio
            .map_or("no ratio without --server-pid".to_owned(), |ratio| {
                format!("the server costs {ratio:.2} times the floor")
            });
        line(
            text,
            &format!(
                "  floor         {:.3} s per million, {}/s with {} clients: {ratio}",
                floor.cpu_per_million,
                grouped(floor.rate.round() as u64),
                grouped(floor.clients.into()),
            ),
        );
    }
}

/// What each kind of thread had of it, where there are several.
fn kinds(server: &Server) -> String {
    let words: Vec<_> = server
        .kinds()
        .iter()
        .map(|(kind, cpu)| format!("{kind} {cpu:.3}"))
        .collect();
    if words.is_empty() {
        return String::new();
    }
    format!(": {}", words.join(", "))
}

fn line(text: &mut String, content: &str) {
    writeln!(text, "{content}").expect("a String takes everything");
}
