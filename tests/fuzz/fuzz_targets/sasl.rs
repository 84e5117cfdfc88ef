//! SASL and everything else before a resource is bound: no bytes get a client in without its
//! password, and none bring a shard out of order.
//!
//! A line is an element of its own: `auth MECHANISM data` and `response data` encode what they
//! carry, `authenticate MECHANISM data` (XEP-0388) likewise, with all that may be asked for with
//! it, a token (XEP-0484) among that; anything else is sent as it stands. Where the first line is
//! `tls`, the stream has TLS.

#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use libfuzzer_sys::fuzz_target;
use sim::{Faults, World};
use xmpp::Settings;

const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
const SASL2: &str = "urn:xmpp:sasl:2";

const INLINE: &str = "<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'/>\
                      <fast xmlns='urn:xmpp:fast:0' count='1'/>\
                      <request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>\
                      <bind xmlns='urn:xmpp:bind:0'/>";

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
    if let Some(rest) = word(b"authenticate ") {
        let space = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
        let (mechanism, data) = rest.split_at(space);
        let mechanism = String::from_utf8_lossy(mechanism);
        let data = BASE64.encode(data.get(1..).unwrap_or_default());
        return format!(
            "<authenticate xmlns='{SASL2}' mechanism='{mechanism}'>\
             <initial-response>{data}</initial-response>{INLINE}</authenticate>"
        )
        .into_bytes();
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
    let (client, bytes) = match bytes.strip_prefix(b"tls\n") {
        Some(rest) => (world.connect_raw_by_tls(), rest),
        None => (world.connect_raw(), bytes),
    };
    world.run();
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
