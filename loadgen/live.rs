//! What a person sees while it runs: a bar that moves on a terminal, a line a second on a pipe.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::clock::SECOND;
use crate::plan::Control;
use crate::stats::sum;

const BAR_WIDTH: usize = 30;

/// One second of a run.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct Point {
    /// Which second of the run.
    pub second: u64,
    /// Verified deliveries (or logins) in it.
    pub delivered: u64,
    /// Their median latency in microseconds.
    pub p50_us: f64,
    /// The 99th percentile.
    pub p99_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// The live view, and the collector of the timeline behind it.
pub struct Live {
    quiet: bool,
    terminal: bool,
    label: String,
    began: Instant,
    shown: Option<Instant>,
    expected: Duration,
    /// Whether what is shown is the subject of the run, not the floor beside it.
    is_subject: bool,
    /// The subject's seconds so far.
    pub points: Vec<Point>,
    /// The floor's.
    pub floor_points: Vec<Point>,
    /// The same as histograms, for the HDR log.
    pub seconds: Vec<(u64, Histogram<u64>)>,
    keep: bool,
    /// Deliveries at the last line, and when that was.
    counted: (u64, u64),
}

impl Live {
    /// `expected` is how long the whole will take, for the bar; `keep` keeps every second's
    /// histogram.
    pub fn new(quiet: bool, expected: Duration, keep: bool) -> Live {
        Live {
            quiet,
            terminal: std::io::stderr().is_terminal(),
            label: String::new(),
            began: Instant::now(),
            shown: None,
            expected,
            is_subject: true,
            points: Vec::new(),
            floor_points: Vec::new(),
            seconds: Vec::new(),
            keep,
            counted: (0, 0),
        }
    }

    /// Names what is going on from now on, and says whether it is the subject of the run.
    pub fn label(&mut self, label: &str, is_subject: bool) {
        self.is_subject = is_subject;
        label.clone_into(&mut self.label);
        self.shown = None;
        self.counted = (u64::MAX, 0);
    }

    /// Shows how many clients are ready.
    pub fn login(&mut self, ready: u64, failed: u64, total: u64) {
        if !self.is_time() && ready < total {
            return;
        }
        let share = ready as f64 / total.max(1) as f64;
        let failed = if failed > 0 {
            format!(", {failed} failed")
        } else {
            String::new()
        };
        self.show(share, &format!("{ready} of {total} clients ready{failed}"));
    }

    /// Shows the last second of a fleet that sends, and takes its timeline.
    pub fn run(&mut self, control: &Control, now: u64) {
        if !self.is_time() {
            return;
        }
        // Threads publish a second a little after its end.
        self.take(control, (now.saturating_sub(SECOND / 5)) / SECOND);
        let share = self.began.elapsed().as_secs_f64() / self.expected.as_secs_f64().max(0.1);
        let outstanding = sum(&control.gauges, |gauge| &gauge.outstanding);
        let delivered = sum(&control.gauges, |gauge| &gauge.delivered);
        let (before, at) = std::mem::replace(&mut self.counted, (delivered, now));
        let seconds = now.saturating_sub(at).max(1) as f64 / SECOND as f64;
        // Another fleet's count may be the smaller one.
        let rate = grouped((delivered.saturating_sub(before) as f64 / seconds) as u64);
        let points = if self.is_subject {
            &self.points
        } else {
            &self.floor_points
        };
        let text = match points.last() {
            Some(point) if point.second + 2 >= now / SECOND => format!(
                "{rate:>9}/s  p50 {:>8}  p99 {:>8}  max {:>8}  outstanding {outstanding}",
                micros(point.p50_us),
                micros(point.p99_us),
                micros(point.max_us),
            ),
            _ => format!("{rate:>9}/s  outstanding {outstanding}"),
        };
        self.show(share.min(1.0), &text);
    }

    /// Takes what the timeline holds before `second`.
    pub fn take(&mut self, control: &Control, second: u64) {
        for (second, seen) in control.timeline.take_before(second) {
            let point = Point {
                second,
                delivered: seen.len(),
                p50_us: seen.value_at_quantile(0.5) as f64 / 1e3,
                p99_us: seen.value_at_quantile(0.99) as f64 / 1e3,
                max_us: seen.max() as f64 / 1e3,
            };
            let points = match self.is_subject {
                true => &mut self.points,
                false => &mut self.floor_points,
            };
            match points.last_mut() {
                // A straggler of a second that was shown already.
                Some(last) if last.second >= second => last.delivered += point.delivered,
                _ => points.push(point),
            }
            if self.keep && self.is_subject {
                self.seconds.push((second, seen));
            }
        }
    }

    fn is_time(&self) -> bool {
        self.shown
            .is_none_or(|shown| shown.elapsed() >= Duration::from_secs(1))
    }

    fn show(&mut self, share: f64, text: &str) {
        self.shown = Some(Instant::now());
        if self.quiet {
            return;
        }
        let mut err = std::io::stderr().lock();
        let seconds = self.began.elapsed().as_secs();
        // Nobody is there to be told that standard error is closed.
        let _ = if self.terminal {
            let full = (share * BAR_WIDTH as f64) as usize;
            let bar: String = (0..BAR_WIDTH)
                .map(|at| if at < full { '█' } else { '░' })
                .collect();
            write!(
                err,
                "\r\x1b[2K{bar} {seconds:>4} s  {:<12} {text}",
                self.label
            )
        } else {
            writeln!(err, "{seconds:>4} s  {:<12} {text}", self.label)
        };
        let _ = err.flush();
    }

    /// Ends the moving line.
    pub fn end(&self) {
        if self.terminal && !self.quiet {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }
}

/// A count with its thousands apart.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Microseconds in the unit a person would choose.
pub fn micros(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{:.2} s", us / 1e6),
        us if us >= 1e3 => format!("{:.2} ms", us / 1e3),
        us if us >= 100.0 => format!("{us:.0} us"),
        us => format!("{us:.1} us"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(micros(12.34), "12.3 us");
        assert_eq!(micros(1234.0), "1.23 ms");
        assert_eq!(micros(12_340_000.0), "12.34 s");
    }
}
