//! The plots of one run: times by percentile, and what happened second by second.

use crate::live::Point;
use crate::plot::{Axis, Plot};
use crate::result::{RunResult, Times};

/// Latency by percentile, with whatever it is to be compared with.
pub(crate) fn latency(result: &RunResult) -> String {
    let mut curves = vec![
        (&result.latency, "first", result.latency.name.as_str()),
        (&result.service, "second", "service time"),
    ];
    if let Some(plain) = &result.plain {
        curves.push((&plain.latency, "third", plain.latency.name.as_str()));
    }
    if let Some(floor) = &result.floor {
        curves.push((&floor.latency, "floor", "floor"));
    }
    percentiles(&curves, "latency by percentile")
}

/// Acknowledgements by percentile, beside the deliveries that they are for.
pub(crate) fn acks(result: &RunResult) -> String {
    let curves = [
        (&result.acks, "first", "acknowledgement"),
        (&result.latency, "floor", result.latency.name.as_str()),
    ];
    percentiles(&curves, "acknowledgements by percentile")
}

/// Curves over the logarithm of 1/(1-percentile), the first with what is below it filled.
fn percentiles(curves: &[(&Times, &'static str, &str)], title: &str) -> String {
    let shown = || curves.iter().filter(|(times, ..)| !times.curve.is_empty());
    let low = shown()
        .map(|(times, ..)| times.curve[0].1)
        .fold(f64::MAX, f64::min);
    let high = shown().map(|(times, ..)| times.max_us).fold(0.0, f64::max);
    let deepest = shown()
        .filter_map(|(times, ..)| times.curve.last())
        .map(|point| rarity(point.0))
        .fold(10.0, f64::max);
    let mut plot = Plot::new(Axis::log(1.0, deepest, false), Axis::log(low, high, true));
    plot.mark_times();
    for percentile in [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999] {
        if rarity(percentile) <= deepest {
            plot.mark_x(rarity(percentile), &percentile.to_string());
        }
    }
    for (at, (times, class, label)) in shown().enumerate() {
        let points: Vec<_> = times
            .curve
            .iter()
            .map(|(percentile, us)| (rarity(*percentile), *us))
            .collect();
        match at {
            0 => plot.area(&points, class, label),
            _ => plot.curve(&points, class, label),
        }
    }
    plot.render(title)
}

fn rarity(percentile: f64) -> f64 {
    1.0 / (1.0 - percentile / 100.0).max(1e-7)
}

/// The whole seconds of the measured stretches, each stretch apart: a second that is cut by its end
/// would look like a dip.
pub(crate) fn stretches(result: &RunResult) -> Vec<Vec<&Point>> {
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

pub(crate) fn throughput(result: &RunResult) -> String {
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

pub(crate) fn over_time(result: &RunResult) -> String {
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
