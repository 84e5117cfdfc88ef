//! Executable style: the rules of CONTRIBUTING.md that a machine can hold, each failure with its
//! place and remedy.
//!
//! Rules about code look at the text with comments and literals blanked out, so that prose may
//! name what code must not use.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_CHARS_MAX: usize = 100;
const MAIN_LINES_MAX: usize = 150;
const ARCHITECTURE_LINES_MAX: usize = 250;

/// Lines above an `unsafe` block in which its `// SAFETY:` may begin.
const SAFETY_LINES_MAX: usize = 12;

/// Directories that hold nothing of ours, or nothing that is written by hand.
const SKIPPED: &[&str] = &["target", ".git", ".venv", "results", "corpus", "artifacts"];

/// Where `unsafe` may stand: the ring, the SIMD scanner, and the allocator that counts.
const UNSAFE_PLACES: &[&str] = &[
    "src/ring/",
    "src/stanza/frame",
    "src/stanza/scan",
    "src/stanza/simd",
    "tests/allocations",
];

/// Crates of the house from the ground up, with the crates of the house each may depend on.
const FLOORS: &[(&str, &[&str])] = &[
    ("src/stanza", &[]),
    ("src/ring", &[]),
    ("src/xmpp", &["stanza"]),
    ("src/store", &["stanza", "xmpp"]),
    ("src/runtime", &["stanza", "ring", "xmpp", "store"]),
    ("src/sim", &["stanza", "xmpp", "store"]),
    ("loadgen", &["stanza", "ring"]),
];

const HOUSE: &[&str] = &[
    "stanza", "ring", "xmpp", "store", "cluster", "runtime", "sim", "loadgen", "vorpal",
];

/// Dependencies that would bring a clock, a socket or a thread onto floors 0 and 1.
const WORLDLY: &[&str] = &[
    "glommio",
    "io-uring",
    "rustls",
    "tokio",
    "libc",
    "rand",
    "getrandom",
    "chrono",
    "time",
    "crossbeam",
    "parking_lot",
    "async-std",
    "futures",
];

struct File {
    path: String,
    text: String,
    code: String,
}

struct Report(Vec<String>);

impl Report {
    fn add(&mut self, path: &str, line: usize, what: &str, remedy: &str) {
        self.0.push(format!("{path}:{line}: {what}; {remedy}"));
    }

    fn check(self, rule: &str) {
        let mut all = String::new();
        for line in &self.0 {
            writeln!(all, "  {line}").expect("writing to a string does not fail");
        }
        assert!(self.0.is_empty(), "{rule}: {} places\n{all}", self.0.len());
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below the root with one of these extensions, as paths relative to the root.
fn walk(extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![root()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).expect("a directory of the checkout is readable") {
            let path = entry.expect("a directory entry is readable").path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir() {
                if !SKIPPED.contains(&name.as_str()) {
                    waiting.push(path);
                }
                continue;
            }
            let extension = path
                .extension()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if extensions.contains(&extension.as_str()) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .to_string_lossy()
        .into_owned()
}

fn rust_files() -> Vec<File> {
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("a source file is UTF-8");
        let code = blank(&text);
        File {
            path: relative(path),
            text,
            code,
        }
    };
    walk(&["rs"]).iter().map(read).collect()
}

/// Whether a file belongs to the crates that must not know the world: `stanza` and `xmpp`.
fn is_pure(path: &str) -> bool {
    path.starts_with("src/xmpp/") || path.starts_with("src/stanza/")
}

/// The text with comments, strings and character literals replaced by spaces; lines stay lines.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        if end == at {
            out.push(bytes[at]);
            at += 1;
        } else {
            out.extend(
                bytes[at..end]
                    .iter()
                    .map(|&b| if b == b'\n' { b'\n' } else { b' ' }),
            );
            at = end;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Where the comment or literal that starts at `at` ends; `at` itself if none starts there.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return at + rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        return at + find(rest, b"*/").map_or(rest.len(), |n| n + 2);
    }
    let word_before = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    let raw = rest
        .strip_prefix(b"b")
        .or(rest.strip_prefix(b"c"))
        .unwrap_or(rest);
    if !word_before && raw.first() == Some(&b'r') {
        let hashes = raw[1..].iter().take_while(|&&b| b == b'#').count();
        if raw.get(1 + hashes) == Some(&b'"') {
            let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
            let body = &raw[2 + hashes..];
            let length = find(body, &close).map_or(body.len(), |n| n + close.len());
            return at + (rest.len() - raw.len()) + 2 + hashes + length;
        }
    }
    match rest[0] {
        b'"' => at + quoted_length(rest, b'"'),
        b'\'' if rest.get(1) == Some(&b'\\') => at + quoted_length(rest, b'\''),
        b'\'' => {
            // A lifetime has no closing quote one character later.
            let width = std::str::from_utf8(&rest[1..rest.len().min(5)])
                .map_or_else(|e| e.valid_up_to(), str::len);
            let first = std::str::from_utf8(&rest[1..1 + width])
                .ok()
                .and_then(|s| s.chars().next());
            match first {
                Some(c) if rest.get(1 + c.len_utf8()) == Some(&b'\'') => at + c.len_utf8() + 2,
                _ => at,
            }
        }
        _ => at,
    }
}

fn quoted_length(rest: &[u8], quote: u8) -> usize {
    let mut n = 1;
    while n < rest.len() && rest[n] != quote {
        n += if rest[n] == b'\\' { 2 } else { 1 };
    }
    (n + 1).min(rest.len())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// Whether `word` stands in the line as a whole word.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(is_part)
            && !line[at + word.len()..].chars().next().is_some_and(is_part)
    })
}

#[test]
fn every_source_file_says_what_it_is_and_stays_readable() {
    let mut report = Report(Vec::new());
    for file in rust_files() {
        if !file.text.starts_with("//! ") {
            report.add(
                &file.path,
                1,
                "does not begin with `//!`",
                "say in a sentence what it is",
            );
        }
        let count = file.text.lines().count();
        let most = if file.path == "src/main.rs" {
            MAIN_LINES_MAX
        } else {
            FILE_LINES_MAX
        };
        if count > most {
            report.add(
                &file.path,
                count,
                &format!("{count} lines, {most} allowed"),
                "split it",
            );
        }
        for (index, line) in file.text.lines().enumerate() {
            let chars = line.chars().count();
            if chars > LINE_CHARS_MAX {
                report.add(
                    &file.path,
                    index + 1,
                    &format!("{chars} characters"),
                    "break the line",
                );
            }
            if line.contains('\t') || line.ends_with(' ') {
                let what = "a tab or trailing space";
                report.add(&file.path, index + 1, what, "run cargo fmt");
            }
        }
    }
    report.check("every file begins with `//!` and keeps to the limits");
}

#[test]
fn functions_fit_on_a_screen() {
    let mut report = Report(Vec::new());
    for file in rust_files() {
        for (line, length) in function_lengths(&file.code) {
            if length > FUNCTION_LINES_MAX {
                let what = format!("a function of {length} lines, {FUNCTION_LINES_MAX} allowed");
                report.add(&file.path, line, &what, "give its parts names of their own");
            }
        }
    }
    report.check("functions are short");
}

/// First line and length in lines of each function with a body.
fn function_lengths(code: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        if !declares_function(line) {
            continue;
        }
        let mut depth = 0_usize;
        let mut nested = 0_usize;
        'body: for (index, body) in lines.iter().enumerate().skip(start) {
            for byte in body.bytes() {
                match byte {
                    b'{' => depth += 1,
                    b'}' if depth == 1 => {
                        found.push((start + 1, index - start + 1));
                        break 'body;
                    }
                    b'}' if depth > 1 => depth -= 1,
                    b'(' | b'[' if depth == 0 => nested += 1,
                    b')' | b']' if depth == 0 => nested = nested.saturating_sub(1),
                    // A declaration without a body. Commas say nothing: `Result<A, B>` has one.
                    b';' if depth == 0 && nested == 0 => break 'body,
                    _ => {}
                }
            }
        }
    }
    found
}

/// Whether a function's name stands on the line, unlike that of a function pointer's type.
fn declares_function(line: &str) -> bool {
    line.match_indices("fn ").any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let name = line[at + "fn ".len()..].chars().next();
        before.is_none_or(|c| c == ' ' || c == '(')
            && name.is_some_and(|c| c.is_alphabetic() || c == '_' || c == '$')
    })
}

#[test]
fn nothing_unfinished_is_left_behind() {
    let mut report = Report(Vec::new());
    let remedy = "finish it, or say in the issue that it is missing";
    for file in rust_files() {
        for (index, line) in file.code.lines().enumerate() {
            for name in ["todo!", "dbg!", "unimplemented!"] {
                if line.contains(name) {
                    report.add(&file.path, index + 1, &format!("`{name}`"), remedy);
                }
            }
        }
        if file.path == "tests/tidy.rs" {
            continue;
        }
        for (index, line) in file.text.lines().enumerate() {
            if line.contains("TODO") || line.contains("FIXME") || line.contains("XXX") {
                report.add(&file.path, index + 1, "a note of unfinished work", remedy);
            }
        }
    }
    report.check("main holds finished work");
}

#[test]
fn unsafe_stands_only_where_it_may_and_says_why() {
    let mut report = Report(Vec::new());
    for file in rust_files() {
        let lines: Vec<&str> = file.text.lines().collect();
        let allowed = UNSAFE_PLACES
            .iter()
            .any(|place| file.path.starts_with(place));
        for (index, code) in file.code.lines().enumerate() {
            if !has_word(code, "unsafe") {
                continue;
            }
            if !allowed {
                let remedy = "move it into src/ring behind a safe interface";
                report.add(
                    &file.path,
                    index + 1,
                    "`unsafe` outside the ring and scanner",
                    remedy,
                );
            }
            let states_contract = code.contains("unsafe fn") || code.contains("unsafe extern");
            let from = index.saturating_sub(SAFETY_LINES_MAX);
            let reasoned = lines[from..=index]
                .iter()
                .any(|line| line.contains("// SAFETY:"));
            if !states_contract && !reasoned {
                let remedy = "write `// SAFETY:` above it, with what makes it sound";
                report.add(&file.path, index + 1, "`unsafe` without its reason", remedy);
            }
        }
    }
    report.check("unsafe code is confined and argued for");
}

#[test]
fn floors_0_and_1_share_nothing_and_floor_1_runs_to_completion() {
    let mut report = Report(Vec::new());
    for file in rust_files() {
        let ground = is_pure(&file.path) || file.path.starts_with("src/ring/");
        for (index, line) in file.code.lines().enumerate() {
            for word in ["RefCell", "Mutex", "RwLock", "Condvar"] {
                if ground && has_word(line, word) {
                    let remedy = "a shard owns its state: split the borrow or pass a parcel";
                    report.add(
                        &file.path,
                        index + 1,
                        &format!("`{word}` on floor 0 or 1"),
                        remedy,
                    );
                }
            }
            // Tests of these crates may read their corpus.
            if !is_pure(&file.path) || file.path.contains("/tests") {
                continue;
            }
            if has_word(line, "async") || line.contains(".await") {
                let remedy = "return, and take the answer as an event";
                report.add(&file.path, index + 1, "`async` in the sans-IO core", remedy);
            }
            let worldly = [
                "Instant",
                "SystemTime",
                "TcpStream",
                "TcpListener",
                "UdpSocket",
            ];
            for word in worldly
                .into_iter()
                .chain(["std::thread", "std::fs", "RandomState"])
            {
                if has_word(line, word) {
                    let what = format!("`{word}` in the sans-IO core");
                    report.add(&file.path, index + 1, &what, "ask the Host");
                }
            }
        }
    }
    report.check("the core is deterministic and lock-free");
}

/// Names of all dependencies a manifest declares, with the line and whether only for tests.
fn dependencies(manifest: &str) -> Vec<(usize, String, bool)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for (index, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
            continue;
        }
        let name: String = line
            .chars()
            .take_while(|&c| c.is_alphanumeric() || "-_".contains(c))
            .collect();
        let listed = section == "dependencies" || section == "dev-dependencies";
        let own_table = section.strip_prefix("dependencies.");
        if listed && !name.is_empty() {
            found.push((index + 1, name, section == "dev-dependencies"));
        } else if let Some(name) = own_table {
            found.push((index + 1, name.to_owned(), false));
        }
    }
    found
}

#[test]
fn lower_floors_never_see_upper_ones() {
    let mut report = Report(Vec::new());
    for &(floor, below) in FLOORS {
        let path = format!("{floor}/Cargo.toml");
        let manifest = fs::read_to_string(root().join(&path)).expect("every floor has a manifest");
        for (line, name, for_tests) in dependencies(&manifest) {
            let of_house = HOUSE.contains(&name.as_str());
            if of_house && !for_tests && !below.contains(&name.as_str()) {
                let what = format!("depends on `{name}`, which is not below it");
                report.add(
                    &path,
                    line,
                    &what,
                    "define a port here and implement it there",
                );
            }
            let pure = floor == "src/stanza" || floor == "src/xmpp";
            if pure && !for_tests && WORLDLY.contains(&name.as_str()) {
                let what = format!("depends on `{name}`, which knows the world");
                report.add(&path, line, &what, "take it as an event or through Host");
            }
        }
    }
    report.check("floors see only what lies below them");
}

#[test]
fn every_dependency_has_its_reason() {
    let decision = "docs/decisions/0002-dependencies.md";
    let reasons = fs::read_to_string(root().join(decision)).expect("the decision is there");
    let mut report = Report(Vec::new());
    let places = FLOORS
        .iter()
        .map(|&(floor, _)| format!("{floor}/Cargo.toml"));
    for path in places.chain(["Cargo.toml".to_owned()]) {
        let manifest = fs::read_to_string(root().join(&path)).expect("the manifest is there");
        for (line, name, _) in dependencies(&manifest) {
            if !HOUSE.contains(&name.as_str()) && !reasons.contains(&format!("`{name}`")) {
                let remedy = format!("say in {decision} why it and not another");
                report.add(&path, line, &format!("`{name}` without a reason"), &remedy);
            }
        }
    }
    report.check("every dependency is argued for");
}

#[test]
fn nothing_refers_to_one_machine() {
    let mut report = Report(Vec::new());
    let private = [
        "/wo".to_owned() + "rk/",
        "/ho".to_owned() + "me/",
        "/ro".to_owned() + "ot/",
    ];
    for path in walk(&["rs", "toml", "md", "sh", "py", "txt", "html", "json"]) {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        for (index, line) in text.lines().enumerate() {
            for place in &private {
                if line.contains(place.as_str()) {
                    let what = format!("names `{place}`");
                    let remedy = "derive the path from the checkout or take it as an argument";
                    report.add(&relative(&path), index + 1, &what, remedy);
                }
            }
        }
    }
    report.check("a fresh clone works anywhere");
}

#[test]
fn files_are_named_for_what_they_hold() {
    let mut report = Report(Vec::new());
    for file in rust_files() {
        let name = Path::new(&file.path)
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy();
        let vague = [
            "util", "utils", "helper", "helpers", "manager", "common", "misc",
        ];
        if vague.contains(&&*name) || name.starts_with("xep0") {
            report.add(
                &file.path,
                1,
                "a name that says nothing",
                "name it for what it holds",
            );
        }
    }
    report.check("names are XMPP's words");
}

#[test]
fn the_architecture_page_stays_short_and_true() {
    let path = "docs/ARCHITECTURE.md";
    let page = fs::read_to_string(root().join(path)).expect("the page is there");
    let mut report = Report(Vec::new());
    let count = page.lines().count();
    if count > ARCHITECTURE_LINES_MAX {
        report.add(
            path,
            count,
            &format!("{count} lines"),
            "move detail beside the code",
        );
    }
    for (index, line) in page.lines().enumerate() {
        for name in line.split('`').skip(1).step_by(2) {
            let is_path = name.starts_with("src/") || name.starts_with("tests/");
            if is_path && !root().join(name).exists() {
                report.add(
                    path,
                    index + 1,
                    &format!("`{name}` is gone"),
                    "say where it is now",
                );
            }
        }
    }
    report.check("docs/ARCHITECTURE.md describes this checkout");
}

#[test]
fn blanking_keeps_code_and_lines_and_hides_prose() {
    let source = "let a = \"unsafe\"; // todo!\nlet b = 'x'; fn f<'a>() { r#\"}\"# }\n/* } */ c";
    let code = blank(source);
    assert_eq!(code.lines().count(), source.lines().count());
    assert!(!code.contains("unsafe") && !code.contains("todo!") && !code.contains('x'));
    assert!(code.contains("fn f<'a>() {") && code.ends_with(" c"));
}

#[test]
fn every_function_with_a_body_is_measured_whatever_its_signature() {
    let cases: &[(&str, &[(usize, usize)])] = &[
        (
            "fn a() {\n}\nfn b();\nfn c(d: [u8; 4]) { if x { } }",
            &[(1, 2), (4, 1)],
        ),
        // Commas behind the parameters.
        (
            "pub fn a(b: C) -> Result<(D, E), F> {\n    g();\n}",
            &[(1, 3)],
        ),
        (
            "fn a<B, C>(b: B) -> D<C>\nwhere\n    B: E<C, F>,\n    C: G,\n{\n}",
            &[(1, 6)],
        ),
        // The parameters begin on a later line.
        (
            "fn a<\n    B: C,\n>(\n    b: B,\n) -> Result<D, E> {\n    f\n}",
            &[(1, 7)],
        ),
        ("const fn a() -> [u8; 4] {\n    [0; 4]\n}", &[(1, 3)]),
        // A declaration's end is not the end of what follows it.
        (
            "trait A {\n    fn b(&self) -> Result<C, D>;\n    fn e() {\n    }\n}",
            &[(3, 2)],
        ),
        (
            "struct A {\n    b: fn(C, D) -> E,\n    f: &dyn Fn(G),\n}\nfn h() {\n}",
            &[(5, 2)],
        ),
        (
            "fn a() {\n    fn b() -> Result<C, D> {\n    }\n}",
            &[(1, 4), (2, 2)],
        ),
    ];
    for (code, lengths) in cases {
        assert_eq!(function_lengths(code), *lengths, "{code}");
    }
}
