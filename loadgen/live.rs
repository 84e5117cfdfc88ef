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

/// Which of those that are measured in turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// What the run is about.
    Subject,
    /// The floor beside it.
    Floor,
    /// The neighbours without TLS.
    Plain,
}

/// Who looks on while clients are led through the stages of a run.
pub trait Watch {
    /// So many of all clients are ready, and so many have failed.
    fn login(&mut self, ready: u64, failed: u64, total: u64);

    /// A fleet sends, or waits for what it has sent.
    fn run(&mut self, control: &Control, now: u64);

    /// Whether nobody waits for the result any more.
    fn is_over(&self) -> bool {
        false
    }
}

/// The live view, and the collector of the timeline behind it.
pub struct Live {
    quiet: bool,
    terminal: bool,
    label: String,
    began: Instant,
    shown: Option<Instant>,
    expected: Duration,
    /// Whose seconds are shown and taken.
    whose: Whose,
    /// The subject's seconds so far.
    pub points: Vec<Point>,
    /// The floor's.
    pub floor_points: Vec<Point>,
    /// Those of the neighbours without TLS.
    pub plain_points: Vec<Point>,
    /// The same as histograms, for the HDR log.
    pub seconds: Vec<(u64, Histogram<u64>)>,
    keep: bool,
    /// Deliveries at the last line, and when that was.
    counted: (u64, u64),
}

impl Watch for Live {
    /// Shows how many clients are ready.
    fn login(&mut self, ready: u64, failed: u64, total: u64) {
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
    fn run(&mut self, control: &Control, now: u64) {
        if !self.is_time() {
            return;
        }
        self.take(control, published(now));
        let share = self.began.elapsed().as_secs_f64() / self.expected.as_secs_f64().max(0.1);
        let outstanding = sum(&control.gauges, |gauge| &gauge.outstanding);
        let delivered = sum(&control.gauges, |gauge| &gauge.delivered);
        let (before, at) = std::mem::replace(&mut self.counted, (delivered, now));
        let seconds = now.saturating_sub(at).max(1) as f64 / SECOND as f64;
        // Another fleet's count may be the smaller one.
        let rate = grouped((delivered.saturating_sub(before) as f64 / seconds) as u64);
        let text = match self.own_points().last() {
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
}

/// The second before which all that threads have seen is in the timeline: they publish each a
/// little after its end.
pub(crate) fn published(now: u64) -> u64 {
    now.saturating_sub(SECOND / 5) / SECOND
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
            whose: Whose::Subject,
            points: Vec::new(),
            floor_points: Vec::new(),
            plain_points: Vec::new(),
            seconds: Vec::new(),
            keep,
            counted: (0, 0),
        }
    }

    /// Names what is going on from now on, and says whose it is.
    pub fn label(&mut self, label: &str, whose: Whose) {
        self.whose = whose;
        label.clone_into(&mut self.label);
        self.shown = None;
        self.counted = (u64::MAX, 0);
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
            let points = self.own_points();
            match points.last_mut() {
                // A straggler of a second that was shown already.
                Some(last) if last.second >= second => last.delivered += point.delivered,
                _ => points.push(point),
            }
            if self.keep && self.whose == Whose::Subject {
                self.seconds.push((second, seen));
            }
        }
    }

    /// The seconds of what goes on now.
    fn own_points(&mut self) -> &mut Vec<Point> {
        match self.whose {
            Whose::Subject => &mut self.points,
            Whose::Floor => &mut self.floor_points,
            Whose::Plain => &mut self.plain_points,
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
    fn each_fleet_has_its_own_seconds() {
        let mut live = Live::new(true, Duration::ZERO, true);
        let mut seen = crate::stats::histogram();
        for (count, whose) in [(1, Whose::Subject), (2, Whose::Floor), (3, Whose::Plain)] {
            let control = Control::new(1);
            seen.record(1000).unwrap();
            control.timeline.add(7, &seen);
            live.label("x", whose);
            live.take(&control, u64::MAX);
            assert_eq!(live.own_points().len(), 1);
            assert_eq!(live.own_points()[0].delivered, count);
        }
        assert_eq!(live.seconds.len(), 1, "the log is the subject's");
    }

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
