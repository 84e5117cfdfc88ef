//! What `scripts/criterion.py` makes of the files that criterion leaves: medians with their
//! intervals and the commit, and no comparison without the baselines.

#![allow(clippy::unwrap_used)] // helpers of tests may, as tests may

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A place under the target directory, empty.
fn place(name: &str) -> PathBuf {
    let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    // It is not there the first time.
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place).unwrap();
    place
}

/// Leaves what criterion leaves of a bench whose median is `median` nanoseconds.
fn leave(home: &Path, group: &str, name: &str, median: f64) {
    let new = home.join(group).join(name).join("new");
    std::fs::create_dir_all(&new).unwrap();
    let about = serde_json::json!({
        "group_id": group, "function_id": name, "value_str": null,
        "throughput": { "Bytes": 241 }, "full_id": format!("{group}/{name}"),
    });
    let estimates = serde_json::json!({
        "mean": { "point_estimate": 1.0 },
        "median": {
            "confidence_interval": {
                "confidence_level": 0.95, "lower_bound": median - 1.0, "upper_bound": median + 2.0,
            },
            "point_estimate": median, "standard_error": 0.1,
        },
    });
    std::fs::write(new.join("benchmark.json"), about.to_string()).unwrap();
    std::fs::write(new.join("estimates.json"), estimates.to_string()).unwrap();
}

fn gather(home: &Path, out: &Path) -> Output {
    Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/criterion.py"))
        .args([home, out])
        .env("LOADGEN_COMMIT", "0123abc-dirty")
        .output()
        .expect("python3 is there")
}

#[test]
fn medians_come_with_their_intervals_and_the_commit() {
    let home = place("criterion");
    for (name, median) in [("xml-rs", 4000.0), ("scanner", 100.0), ("quick-xml", 500.0)] {
        leave(&home, "scan", name, median);
    }
    let out = home.join("criterion.json");
    let done = gather(&home, &out);
    assert!(done.status.success(), "{done:?}");
    let text = std::fs::read_to_string(&out).unwrap();
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(found["commit"], "0123abc-dirty");
    let benches = found["benches"].as_array().unwrap();
    let names: Vec<_> = benches.iter().map(|bench| &bench["name"]).collect();
    assert_eq!(names, ["quick-xml", "scanner", "xml-rs"]);
    let scanner = &benches[1];
    assert_eq!(
        (&scanner["group"], &scanner["handles"]["count"]),
        (&"scan".into(), &241.into())
    );
    let numbers = ["median_ns", "low_ns", "high_ns", "confidence", "per_second"];
    let numbers = numbers.map(|name| scanner[name].as_f64().unwrap());
    assert_eq!(numbers, [100.0, 99.0, 102.0, 0.95, 2.41e9]);
}

#[test]
fn nothing_is_written_without_baselines_or_without_benches() {
    for (name, left) in [("criterion-alone", true), ("criterion-empty", false)] {
        let home = place(name);
        if left {
            leave(&home, "scan", "scanner", 100.0);
            leave(&home, "scan", "xml-rs", 4000.0);
        }
        let out = home.join("criterion.json");
        let done = gather(&home, &out);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && !out.exists(), "{name}");
        let why = if left {
            "scan lacks quick-xml"
        } else {
            "nothing was measured"
        };
        assert!(said.contains(why), "{said}");
    }
}
