//! Copies `src/ring/spsc.rs` with loom's atomics, cells and counts in place of the standard ones.

use std::path::Path;
use std::{env, fs};

const SOURCE: &str = "../../src/ring/spsc.rs";

/// What is replaced by what; each must be there, or the model would check something else.
const REPLACED: [(&str, &str); 3] = [
    ("use std::cell::UnsafeCell;", "use crate::cell::UnsafeCell;"),
    ("use std::sync::Arc;", "use loom::sync::Arc;"),
    ("use std::sync::atomic::", "use loom::sync::atomic::"),
];

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    let text = fs::read_to_string(SOURCE).expect("the lane is where it was");
    let code = text
        .split("#[cfg(test)]")
        .next()
        .expect("there is a first part");
    let mut code: String = code
        .lines()
        .filter(|line| !line.starts_with("//!"))
        .map(|line| line.to_owned() + "\n")
        .collect();
    for (from, to) in REPLACED {
        assert_eq!(
            code.matches(from).count(),
            1,
            "`{from}` is not in {SOURCE} once"
        );
        code = code.replace(from, to);
    }
    let directory = env::var("OUT_DIR").expect("cargo sets it");
    fs::write(Path::new(&directory).join("spsc.rs"), code).expect("the directory is writable");
}
