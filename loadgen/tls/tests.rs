//! Tests of TLS against rustls' own server.

use super::*;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion};
use std::io::{Read as _, Write as _};

struct Pair {
    client: Tls,
    server: ServerConnection,
    /// What the client has not consumed.
    held: Vec<u8>,
    /// What the client decrypted.
    plain: Vec<u8>,
    /// What the server decrypted.
    received: Vec<u8>,
    /// How often the handshake was said to have ended.
    secured: usize,
}

impl Pair {
    /// After the handshake, whose bytes the client gets `cut` at a time.
    fn shaken(
        provider: CryptoProvider,
        version: &'static SupportedProtocolVersion,
        cut: usize,
    ) -> Pair {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["example.org".to_owned()]);
        let certificate = params
            .expect("a name")
            .self_signed(&key)
            .expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS #8");
        let config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a good pair");
        let name = ServerName::try_from("example.org").expect("a name");
        let mut pair = Pair {
            client: Tls::new(&configure(None, None).expect("nothing to read"), &name)
                .expect("a client"),
            server: ServerConnection::new(Arc::new(config)).expect("a server"),
            held: Vec::new(),
            plain: Vec::new(),
            received: Vec::new(),
            secured: 0,
        };
        let hello = pair.feed(b"").expect("nothing is read");
        pair.answer(&hello);
        while pair.server.wants_write() {
            for piece in pair.sent().chunks(cut) {
                let out = pair.feed(piece).expect("good records");
                pair.answer(&out);
            }
        }
        pair
    }

    fn sent(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.server.wants_write() {
            self.server.write_tls(&mut bytes).expect("memory");
        }
        bytes
    }

    /// Shows the client more bytes: what it sends in return.
    fn feed(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        self.held.extend_from_slice(bytes);
        let mut out = Vec::new();
        let step = self
            .client
            .read(&mut self.held, &mut self.plain, &mut out)?;
        self.held.drain(..step.consumed);
        self.secured += usize::from(step.secured);
        Ok(out)
    }

    fn answer(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.server.read_tls(&mut bytes).expect("memory");
            let state = self.server.process_new_packets().expect("good records");
            let start = self.received.len();
            self.received
                .resize(start + state.plaintext_bytes_to_read(), 0);
            let mut reader = self.server.reader();
            reader
                .read_exact(&mut self.received[start..])
                .expect("all came");
        }
    }

    /// Sends `text` both ways, in pieces.
    fn converse(&mut self, text: &str, cut: usize) {
        self.server
            .writer()
            .write_all(text.as_bytes())
            .expect("memory");
        for piece in self.sent().chunks(cut) {
            let out = self.feed(piece).expect("good records");
            self.answer(&out);
        }
        assert_eq!(std::mem::take(&mut self.plain), text.as_bytes());
        let mut out = Vec::new();
        self.client
            .seal(&mut self.held, text.as_bytes(), &mut out)
            .expect("it is open");
        self.answer(&out);
        assert_eq!(std::mem::take(&mut self.received), text.as_bytes());
    }
}

#[test]
fn the_records_of_every_suite_are_taken_over_from_rustls_at_any_cut() {
    let suites = default_provider().cipher_suites.into_iter();
    // The server's key is of ECDSA.
    for suite in suites.filter(|suite| !format!("{suite:?}").contains("_RSA_")) {
        let mut provider = default_provider();
        provider.cipher_suites = vec![suite];
        let version = match suite.tls13() {
            Some(_) => &TLS13,
            None => &TLS12,
        };
        for cut in [1, 7, 100, 100_000] {
            // With two offers of sessions behind the handshake of TLS 1.3.
            let mut pair = Pair::shaken(provider.clone(), version, cut);
            assert_eq!(pair.secured, 1, "{suite:?}");
            pair.converse("hello", cut);
            let is_ours = matches!(pair.client.layer, Layer::Records(_));
            assert_eq!(is_ours, suite.tls13().is_some(), "{suite:?}");
            pair.converse(&"long ".repeat(10_000), 1_000 * cut);
        }
    }
}

#[test]
fn new_keys_of_the_server_are_followed() {
    let mut pair = Pair::shaken(default_provider(), &TLS13, 100_000);
    pair.server
        .refresh_traffic_keys()
        .expect("TLS 1.3 has that");
    pair.converse("hello", 100_000);
}

#[test]
fn a_goodbye_and_a_forgery_are_told_apart() {
    let mut pair = Pair::shaken(default_provider(), &TLS13, 100_000);
    pair.server.send_close_notify();
    let mut goodbye = pair.sent();
    let step = pair
        .client
        .read(&mut goodbye, &mut pair.plain, &mut Vec::new());
    assert!(step.expect("good records").closed);

    let mut pair = Pair::shaken(default_provider(), &TLS13, 100_000);
    let forged = pair.feed(&[
        23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20,
    ]);
    assert!(forged.is_err());
}
