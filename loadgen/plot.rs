//! Plots as SVG text: axes, curves, areas and ranges; no script, no external asset.

use std::fmt::Write as _;

use crate::live::micros;

// Cards are about as wide, so that text has the size that the style gives it.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 270.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 40.0;

/// A range of values along one side of a plot.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    min: f64,
    max: f64,
    is_log: bool,
}

impl Axis {
    /// Equal distances for equal differences.
    pub fn linear(min: f64, max: f64) -> Axis {
        Axis {
            min,
            max: if max > min { max } else { min + 1.0 },
            is_log: false,
        }
    }

    /// Equal distances for equal ratios, widened to whole decades where `whole`.
    pub fn log(min: f64, max: f64, whole: bool) -> Axis {
        let (mut low, mut high) = (min.max(1e-9).log10(), max.max(1e-9).log10());
        if whole {
            (low, high) = (low.floor(), high.ceil());
        }
        Axis {
            min: low,
            max: if high > low { high } else { low + 1.0 },
            is_log: true,
        }
    }

    /// Where `value` lies, 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let value = if self.is_log {
            value.max(1e-9).log10()
        } else {
            value
        };
        ((value - self.min) / (self.max - self.min)).clamp(0.0, 1.0)
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + self.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.place(value) * (HEIGHT - TOP - BOTTOM)
    }
}

/// A plot under construction.
pub struct Plot {
    x: Axis,
    y: Axis,
    body: String,
    legend: Vec<(String, &'static str)>,
}

impl Plot {
    /// An empty plot.
    pub fn new(x: Axis, y: Axis) -> Plot {
        Plot {
            x,
            y,
            body: String::new(),
            legend: Vec::new(),
        }
    }

    /// A line across at `value`, with its label.
    pub fn mark_y(&mut self, value: f64, label: &str) {
        let (y, end) = (self.y.y(value), WIDTH - RIGHT);
        self.put(format_args!(
            "<line class='grid' x1='{LEFT}' x2='{end}' y1='{y:.1}' y2='{y:.1}'/>\
             <text class='tick' x='{:.1}' y='{:.1}' text-anchor='end'>{label}</text>",
            LEFT - 8.0,
            y + 4.0
        ));
    }

    /// A line down at `value`, with its label.
    pub fn mark_x(&mut self, value: f64, label: &str) {
        let (x, end) = (self.x.x(value), HEIGHT - BOTTOM);
        self.put(format_args!(
            "<line class='grid' x1='{x:.1}' x2='{x:.1}' y1='{TOP}' y2='{end}'/>\
             <text class='tick' x='{x:.1}' y='{:.1}' text-anchor='middle'>{label}</text>",
            end + 18.0
        ));
    }

    /// Decades of a logarithmic axis of microseconds.
    pub fn mark_times(&mut self) {
        let (low, high) = (self.y.min as i32, self.y.max as i32);
        for decade in low..=high {
            let value = 10f64.powi(decade);
            self.mark_y(value, &short_time(value));
        }
    }

    /// Four round steps of a linear axis of counts.
    pub fn mark_counts(&mut self) {
        let step = round_step(self.y.max / 4.0);
        let mut value = 0.0;
        while value <= self.y.max * 1.001 {
            self.mark_y(value, &short_count(value));
            value += step;
        }
    }

    /// A curve through `points`.
    pub fn curve(&mut self, points: &[(f64, f64)], class: &'static str, label: &str) {
        if points.is_empty() {
            return;
        }
        let path = self.path(points);
        self.put(format_args!("<path class='curve {class}' d='M{path}'/>"));
        if !label.is_empty() {
            self.legend.push((label.to_owned(), class));
        }
    }

    /// A curve with what is below it filled.
    pub fn area(&mut self, points: &[(f64, f64)], class: &'static str, label: &str) {
        let (Some(first), Some(last)) = (points.first(), points.last()) else {
            return;
        };
        let (start, end) = (self.x.x(first.0), self.x.x(last.0));
        let (path, base) = (self.path(points), HEIGHT - BOTTOM);
        self.put(format_args!(
            "<path class='area {class}' d='M{start:.1},{base} L{path} L{end:.1},{base} Z'/>"
        ));
        self.curve(points, class, label);
    }

    fn path(&self, points: &[(f64, f64)]) -> String {
        let mut path = String::new();
        for (at, (x, y)) in points.iter().enumerate() {
            let separator = if at == 0 { "" } else { " L" };
            write!(path, "{separator}{:.1},{:.1}", self.x.x(*x), self.y.y(*y))
                .expect("a String takes everything");
        }
        path
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        self.body
            .write_fmt(text)
            .expect("a String takes everything");
        self.body.push('\n');
    }

    /// The SVG element, named for those who do not see it.
    pub fn render(mut self, title: &str) -> String {
        let mut x = LEFT;
        for (label, class) in std::mem::take(&mut self.legend) {
            let y = HEIGHT - 4.0;
            self.put(format_args!(
                "<rect class='key {class}' x='{x:.1}' y='{:.1}' width='14' height='4' rx='2'/>\
                 <text class='label' x='{:.1}' y='{y:.1}'>{label}</text>",
                y - 6.0,
                x + 20.0
            ));
            x += 44.0 + 7.0 * label.chars().count() as f64;
        }
        format!(
            "<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{title}'>\n{}</svg>\n",
            self.body
        )
    }
}

/// Rows of ranges on a logarithmic time axis: from the median to the 99th percentile, a dot at the
/// maximum.
pub fn ranges(rows: &[(String, [f64; 3])]) -> String {
    const ROW: f64 = 30.0;
    let names = names_width(rows.iter().map(|(name, _)| name));
    let height = ROW * rows.len() as f64 + 30.0;
    let low = rows
        .iter()
        .map(|(_, times)| times[0])
        .fold(f64::MAX, f64::min);
    let high = rows.iter().map(|(_, times)| times[2]).fold(0.0, f64::max);
    let axis = Axis::log(low, high, true);
    let x = |value: f64| names + axis.place(value) * (WIDTH - names - 70.0);
    let mut body = String::new();
    for decade in axis.min as i32..=axis.max as i32 {
        let (at, end) = (x(10f64.powi(decade)), height - 24.0);
        body += &format!(
            "<line class='grid' x1='{at:.1}' x2='{at:.1}' y1='4' y2='{end}'/>\
             <text class='tick' x='{at:.1}' y='{:.1}' text-anchor='middle'>{}</text>\n",
            height - 8.0,
            short_time(10f64.powi(decade))
        );
    }
    for (at, (name, times)) in rows.iter().enumerate() {
        let y = ROW * at as f64 + 18.0;
        let (from, to, end) = (x(times[0]), x(times[1]), x(times[2]));
        body += &format!(
            "<text class='label' x='{:.1}' y='{:.1}' text-anchor='end'>{name}</text>\
             <rect class='bar' x='{from:.1}' y='{:.1}' width='{:.1}' height='10' rx='5'/>\
             <circle class='dot' cx='{end:.1}' cy='{y:.1}' r='3'/>\
             <text class='tick' x='{:.1}' y='{:.1}'>{}</text>\n",
            names - 14.0,
            y + 4.0,
            y - 5.0,
            (to - from).max(4.0),
            end + 8.0,
            y + 4.0,
            micros(times[1])
        );
    }
    format!("<svg viewBox='0 0 {WIDTH} {height}' role='img' aria-label='times'>\n{body}</svg>\n")
}

/// Two or more bars to be compared.
pub fn bars(rows: &[(String, f64, String, &str)]) -> String {
    const ROW: f64 = 34.0;
    let names = names_width(rows.iter().map(|row| &row.0));
    let height = ROW * rows.len() as f64 + 8.0;
    let high = rows.iter().map(|row| row.1).fold(1e-12, f64::max);
    let mut body = String::new();
    for (at, (name, value, label, class)) in rows.iter().enumerate() {
        let y = ROW * at as f64 + 6.0;
        let width = (value / high * (WIDTH - names - 200.0)).max(3.0);
        body += &format!(
            "<text class='label' x='{:.1}' y='{:.1}' text-anchor='end'>{name}</text>\
             <rect class='block {class}' x='{names}' y='{y:.1}' width='{width:.1}' height='22' \
             rx='4'/>\
             <text class='label' x='{:.1}' y='{:.1}'>{label}</text>\n",
            names - 14.0,
            y + 15.0,
            names + width + 10.0,
            y + 15.0
        );
    }
    format!("<svg viewBox='0 0 {WIDTH} {height}' role='img' aria-label='cost'>\n{body}</svg>\n")
}

/// The room that the names before rows need.
fn names_width<'a>(names: impl Iterator<Item = &'a String>) -> f64 {
    let longest = names.map(|name| name.chars().count()).max();
    // So wide is a letter at most, on average, and the gap behind the names.
    (longest.unwrap_or(0) as f64 * 7.5 + 18.0).max(90.0)
}

/// A round number near `rough`: 1, 2 or 5 times a power of ten.
fn round_step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough)
        .unwrap_or(10.0 * power)
}

fn short_count(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{} M", trimmed(value / 1e6)),
        value if value >= 1e3 => format!("{} k", trimmed(value / 1e3)),
        value => trimmed(value),
    }
}

fn short_time(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{} s", trimmed(us / 1e6)),
        us if us >= 1e3 => format!("{} ms", trimmed(us / 1e3)),
        us => format!("{} us", trimmed(us)),
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_put_their_ends_at_the_ends() {
        let linear = Axis::linear(0.0, 10.0);
        assert_eq!(
            (linear.place(0.0), linear.place(5.0), linear.place(99.0)),
            (0.0, 0.5, 1.0)
        );
        let log = Axis::log(3.0, 700.0, true);
        assert_eq!((log.place(1.0), log.place(1000.0)), (0.0, 1.0));
        assert!((log.place(10.0) - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(Axis::linear(5.0, 5.0).place(5.0), 0.0);
    }

    #[test]
    fn labels_and_steps_are_round() {
        assert_eq!(short_count(2_500_000.0), "2.5 M");
        assert_eq!(short_time(1000.0), "1 ms");
        assert_eq!(short_time(0.1), "0.1 us");
        assert_eq!(round_step(1_300.0), 2_000.0);
        assert_eq!(round_step(5_000.0), 5_000.0);
    }

    #[test]
    fn long_names_have_the_room_they_need() {
        let end = |name: &str| {
            let svg = bars(&[(name.to_owned(), 1.0, "1 s".to_owned(), "first")]);
            let x = svg
                .split(" x='")
                .nth(1)
                .and_then(|rest| rest.split('\'').next());
            x.and_then(|x| x.parse::<f64>().ok()).unwrap()
        };
        assert!(end("chat-2000-paced-tls") >= 19.0 * 7.5);
        assert!(end("floor") < end("chat-2000-paced-tls"));
    }

    #[test]
    fn a_plot_holds_its_curve_and_no_impossible_number() {
        let mut plot = Plot::new(Axis::linear(0.0, 1.0), Axis::log(1.0, 10.0, true));
        plot.mark_times();
        plot.area(&[(0.0, 0.0), (1.0, f64::MAX)], "a", "name");
        plot.curve(&[], "b", "absent");
        let svg = plot.render("title");
        assert!(svg.contains("name") && svg.contains("1 us") && !svg.contains("absent"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
