//! `[upload]`, and what it depends on.

use super::{good, refusal};
use crate::uploads::UploadConfig;
use std::path::Path;
use std::time::Duration;

const HTTPS: &str = "domain = \"a.b\"\n[listen]\nhttps = \"0.0.0.0:5281\"\n[upload]\n";

fn uploads(lines: &str) -> UploadConfig {
    let config = good(&format!("{HTTPS}enabled = true\n{lines}"));
    let policy = config.settings().uploads.expect("it is announced");
    let uploads = config.uploads.expect("it is enabled");
    assert_eq!(policy.size_max, uploads.size_max);
    uploads
}

#[test]
fn nothing_is_taken_unless_it_is_asked_for() {
    for text in ["domain = \"a.b\"", HTTPS, &format!("{HTTPS}quota = 1\n")] {
        let config = good(text);
        assert_eq!((&config.uploads, config.settings().uploads), (&None, None));
    }
}

#[test]
fn everything_else_has_a_default() {
    let defaults = uploads("");
    assert!(defaults.directory.ends_with("data/uploads"));
    assert_eq!(&*defaults.url, "https://a.b:5281");
    assert_eq!((defaults.size_max, defaults.quota), (100 << 20, 1 << 30));
    assert_eq!(defaults.daily, 512 << 20);
    assert_eq!(defaults.lifetime, Some(Duration::from_secs(31 * 86_400)));
    assert!(defaults.durable);
    let said = uploads(
        "directory = \"/a/b\"\nmax_file_size = 5\nquota = 9000\ndaily_quota = 8000\n\
         expire_days = 0\n[web]\nurl = \"https://c.d/\"\n[durability]\nmode = \"memory\"",
    );
    assert_eq!(
        (&*said.directory, &*said.url),
        (Path::new("/a/b"), "https://c.d")
    );
    assert_eq!((said.size_max, said.quota, said.daily), (5, 9_000, 8_000));
    assert_eq!((said.lifetime, said.durable), (None, false));
    // What is not written makes room for what is.
    let large = uploads("max_file_size = 2000000000");
    assert!(large.quota > large.size_max && large.daily > large.size_max);
}

#[test]
fn what_makes_no_sense_is_refused_with_its_line() {
    let domain = "domain = \"a.b\"\n";
    for (text, expected) in [
        (
            format!("{domain}[upload]\nenabled = true"),
            "3: upload.enabled is true, but nothing listens for the web; give listen.https or \
             listen.http an address",
        ),
        (
            format!("{domain}[listen]\nhttp = \"0.0.0.0:80\"\n[upload]\nenabled = true"),
            "5: upload.enabled is true, but it is not known where clients find files; set \
             web.url, or give listen.https an address",
        ),
        (
            format!("{HTTPS}enabled = true\nmax_file_size = 5000\nquota = 9000"),
            "7: upload.quota (9000) has no room for one file of upload.max_file_size (5000) and \
             4096 bytes more that each takes; raise it, or lower upload.max_file_size",
        ),
        (
            format!("{HTTPS}enabled = true\nmax_file_size = 0"),
            "6: `max_file_size` must be a whole number from 1 to 1125899906842624, not integer \
             `0`; correct it, or remove the line to have the default",
        ),
        (
            format!("{HTTPS}enable = true"),
            "5: unknown key `enable`; did you mean `enabled`?",
        ),
    ] {
        let refused = refusal(&text);
        assert!(refused.ends_with(expected), "{refused}");
    }
}
