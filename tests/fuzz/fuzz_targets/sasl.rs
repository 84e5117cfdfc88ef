//! SASL and everything else before a resource is bound: no bytes get a client in without its
//! password, and none bring a shard out of order.
//!
//! A line is an element of its own: `auth MECHANISM data`, `response data` and `plain data` encode
//! what they carry, anything else is sent as it stands.

#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use libfuzzer_sys::fuzz_target;
use sim::{Faults, World};
use xmpp::Settings;

const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";

fn element(line: &[u8]) -> Vec<u8> {
    let word = |prefix: &[u8]| line.strip_prefix(prefix);
    if let Some(rest) = word(b"auth ") {
        let space = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
        let (mechanism, data) = rest.split_at(space);
        let mechanism = String::from_utf8_lossy(mechanism);
        let data = BASE64.encode(data.get(1..).unwrap_or_default());
        return format!("<auth xmlns='{SASL}' mechanism='{mechanism}'>{data}</auth>").into_bytes();
    }
    if let Some(data) = word(b"response ") {
        let data = BASE64.encode(data);
        return format!("<response xmlns='{SASL}'>{data}</response>").into_bytes();
    }
    match line {
        b"header" => sim::client::header("example.org"),
        other => other.to_vec(),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let settings = Settings {
        shards: 2,
        anonymous: false,
        registration_open: false,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(1, settings, Faults::calm());
    world.add_account("alice@example.org", "a password that no corpus holds");
    let client = world.connect_raw();
    world.send_bytes(client, &sim::client::header("example.org"));
    world.run();
    for line in bytes.split(|byte| *byte == b'\n') {
        world.send_bytes(client, &element(line));
        world.run();
    }
    let answers = world.received(client);
    let got_in = answers.iter().any(|answer| answer.name == "success");
    assert!(!got_in, "somebody got in");
    world.check_rest();
});
