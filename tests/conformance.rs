//! `docs/conformance.md` is made from the code by `scripts/conformance.py`, and never falls behind.

use std::process::Command;

#[test]
fn the_conformance_page_says_what_the_code_cites() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/conformance.py");
    let done = Command::new("python3")
        .args([script, "--check"])
        .output()
        .expect("python3 is installed, as scripts/test.sh sees to");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
}

#[test]
fn the_conformance_page_has_every_extension() {
    let page = include_str!("../docs/conformance.md");
    assert!(xmpp::xep::XEPS.len() >= 6, "the extensions are there");
    for (name, xep) in xmpp::xep::XEPS {
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| [{:04}]", xep.number)))
            .unwrap_or_else(|| panic!("{name} has no row"));
        assert!(row.contains(&format!("| {} |", xep.version)), "{row}");
        assert!(!row.ends_with("| - |"), "{name} has no test that cites it");
    }
}
