//! Addresses: what is accepted is a fixed point, and its parts are those of its text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stanza::jid::{self, Jid};

fuzz_target!(|text: &str| {
    let _ = jid::check_new_local(text);
    let _ = jid::prepare_password(text);
    let Ok(prepared) = Jid::parse(text) else {
        return;
    };
    let again = Jid::parse(prepared.as_str()).expect("accepted again");
    assert_eq!(again, prepared);
    let trusted = Jid::from_prepared(prepared.as_str());
    assert_eq!(trusted.local(), prepared.local());
    assert_eq!(trusted.domain(), prepared.domain());
    assert_eq!(trusted.resource(), prepared.resource());
    for part in [
        prepared.local(),
        Some(prepared.domain()),
        prepared.resource(),
    ] {
        assert!(part.is_none_or(|p| !p.is_empty() && p.len() <= jid::PART_SIZE_MAX));
    }
});
