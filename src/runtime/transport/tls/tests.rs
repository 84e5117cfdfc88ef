//! Tests of TLS against rustls' own buffered client, which can export keying material.

use super::*;
use rustls::pki_types::ServerName;
use rustls::{CipherSuite, crypto::CryptoProvider};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use std::io::{Read, Write};

mod records;

/// A certificate for example.org and its key.
fn certificate() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let names = vec!["example.org".to_owned()];
    let params = rcgen::CertificateParams::new(names).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS #8");
    (certificate.der().clone(), key)
}

struct Pair {
    client: ClientConnection,
    server: Tls,
    /// What the server has not consumed.
    held: Vec<u8>,
    /// What the server decrypted.
    plain: Vec<u8>,
    /// How often the handshake was said to have ended.
    secured: usize,
    error: Option<TlsError>,
    certificate: CertificateDer<'static>,
}

impl Pair {
    fn new(version: &'static SupportedProtocolVersion, alpn: &[&[u8]], direct: bool) -> Pair {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        Pair::with_provider(provider, version, alpn, direct)
    }

    /// With a client that offers one suite of TLS 1.3 only.
    fn of_suite(suite: CipherSuite) -> Pair {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|own| own.suite() == suite);
        Pair::with_provider(provider, &TLS13, &[], false)
    }

    fn with_provider(
        provider: CryptoProvider,
        version: &'static SupportedProtocolVersion,
        alpn: &[&[u8]],
        direct: bool,
    ) -> Pair {
        let (certificate, key) = certificate();
        let configs = ServerConfigs::new(vec![certificate.clone()], key).expect("a good pair");
        let config = if direct {
            &configs.direct
        } else {
            &configs.starttls
        };
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("a certificate");
        let mut client = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.enable_secret_extraction = true;
        client.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from("example.org").expect("a name");
        Pair {
            client: ClientConnection::new(Arc::new(client), name).expect("a client"),
            server: Tls::accept(config),
            held: Vec::new(),
            plain: Vec::new(),
            secured: 0,
            error: None,
            certificate,
        }
    }

    /// What the client has to send.
    fn sent(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).expect("memory");
        }
        bytes
    }

    /// Gives bytes to the server as a transport would; what it answers.
    fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.held.extend_from_slice(bytes);
        loop {
            let mut take = |record: &[u8]| self.plain.extend_from_slice(record);
            match self.server.open(&mut self.held, &mut take, &mut out) {
                Ok(opened) => {
                    self.held.drain(..opened.consumed);
                    if !opened.secured {
                        return out;
                    }
                    assert!(self.plain.is_empty(), "plaintext before the facts");
                    self.secured += 1;
                }
                Err(error) => {
                    self.error = Some(error);
                    return out;
                }
            }
        }
    }

    /// Gives bytes to the client.
    fn answer(&mut self, mut bytes: &[u8]) -> Result<(), rustls::Error> {
        while !bytes.is_empty() {
            self.client.read_tls(&mut bytes).expect("memory");
            self.client.process_new_packets()?;
        }
        Ok(())
    }

    /// Runs the handshake, `piece` bytes at a time towards the server.
    fn shake(&mut self, piece: usize) {
        while self.error.is_none() && self.client.is_handshaking() | self.server.is_handshaking() {
            let sent = self.sent();
            assert!(!sent.is_empty(), "both sides wait");
            for part in sent.chunks(piece) {
                let answer = self.feed(part);
                if self.answer(&answer).is_err() {
                    return;
                }
            }
        }
    }

    /// What the client reads.
    fn received(&mut self) -> Vec<u8> {
        let mut plain = Vec::new();
        let mut part = [0; 4096];
        while let Ok(count @ 1..) = self.client.reader().read(&mut part) {
            plain.extend_from_slice(&part[..count]);
        }
        plain
    }
}

#[test]
fn both_versions_carry_bytes_both_ways_in_pieces_of_any_size() {
    for version in [&TLS13, &TLS12] {
        for piece in [1, 7, 100_000] {
            let mut pair = Pair::new(version, &[], false);
            pair.shake(piece);
            assert_eq!((pair.secured, pair.error.clone()), (1, None));

            let long: Vec<u8> = (0..50_000u32).map(|index| index as u8).collect();
            pair.client.writer().write_all(&long).expect("memory");
            let sent = pair.sent();
            for part in sent.chunks(piece) {
                assert!(pair.feed(part).is_empty());
            }
            assert_eq!(pair.plain, long);
            assert!(pair.held.is_empty());

            let mut out = b"before".to_vec();
            pair.server.seal(&long, &mut out);
            pair.server.seal(b"", &mut out);
            pair.server.seal(b"x", &mut out);
            let mut received = Vec::new();
            for part in out[b"before".len()..].chunks(9000) {
                pair.answer(part).expect("good records");
                received.extend(pair.received());
            }
            assert_eq!(received, [&long[..], b"x"].concat());
        }
    }
}

#[test]
fn the_exporter_is_the_one_that_the_client_derives() {
    let mut pair = Pair::new(&TLS13, &[], false);
    pair.shake(100_000);
    let facts = pair.server.facts();
    let mut theirs = [0; 32];
    pair.client
        .export_keying_material(&mut theirs, b"EXPORTER-Channel-Binding", Some(b""))
        .expect("a secret");
    assert_eq!(facts.exporter, Some(theirs));
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &pair.certificate);
    assert_eq!(facts.server_end_point.as_deref(), Some(hash.as_ref()));
}

#[test]
fn tls_1_2_has_no_exporter_but_the_end_point() {
    let mut pair = Pair::new(&TLS12, &[], false);
    pair.shake(100_000);
    let facts = pair.server.facts();
    assert_eq!(facts.exporter, None);
    assert!(facts.server_end_point.is_some());
}

#[test]
fn handshakes_that_interleave_on_one_thread_keep_their_own_exporters() {
    let mut pairs = [Pair::new(&TLS13, &[], false), Pair::new(&TLS13, &[], false)];
    for _ in 0..2 {
        for pair in &mut pairs {
            let sent = pair.sent();
            let answer = pair.feed(&sent);
            pair.answer(&answer).expect("good records");
        }
    }
    for pair in &mut pairs {
        let mut theirs = [0; 32];
        pair.client
            .export_keying_material(&mut theirs, b"EXPORTER-Channel-Binding", Some(b""))
            .expect("a secret");
        assert_eq!(pair.server.facts().exporter, Some(theirs));
    }
}

#[test]
fn direct_tls_takes_our_protocol_or_none_and_refuses_others() {
    for (alpn, direct, agreed) in [
        (&[&b"xmpp-client"[..]][..], true, Some(&b"xmpp-client"[..])),
        (&[b"h2", b"xmpp-client"], true, Some(b"xmpp-client")),
        (&[], true, None),
        (&[b"xmpp-client"], false, None),
        (&[b"h2"], false, None),
    ] {
        let mut pair = Pair::new(&TLS13, alpn, direct);
        pair.shake(100_000);
        assert_eq!((pair.secured, pair.error.clone()), (1, None), "{alpn:?}");
        assert_eq!(pair.client.alpn_protocol(), agreed);
    }
    let mut pair = Pair::new(&TLS13, &[b"h2", b"xmpp-server"], true);
    let sent = pair.sent();
    let answer = pair.feed(&sent);
    let refused = TlsError::Protocol(rustls::Error::NoApplicationProtocol);
    assert_eq!(pair.error, Some(refused));
    let alert = rustls::AlertDescription::NoApplicationProtocol;
    assert_eq!(
        pair.answer(&answer),
        Err(rustls::Error::AlertReceived(alert))
    );
}

#[test]
fn bytes_behind_the_handshake_wait_until_the_facts_are_known() {
    for version in [&TLS13, &TLS12] {
        let mut pair = Pair::new(version, &[], false);
        let mut sent = pair.sent();
        loop {
            let answer = pair.feed(&sent);
            pair.answer(&answer).expect("good records");
            if !pair.client.is_handshaking() {
                break;
            }
            sent = pair.sent();
        }
        // The client's Finished and its first bytes arrive together; `feed` asserts the order.
        pair.client
            .writer()
            .write_all(b"<stream:stream")
            .expect("memory");
        let sent = pair.sent();
        pair.feed(&sent);
        assert_eq!(pair.secured, 1);
        assert_eq!(pair.plain, b"<stream:stream");
    }
}

#[test]
fn what_comes_to_light_while_sealing_is_not_lost() {
    let mut pair = Pair::new(&TLS13, &[], false);
    let sent = pair.sent();
    let answer = pair.feed(&sent);
    pair.answer(&answer).expect("good records");
    pair.client.writer().write_all(b"early").expect("memory");
    let mut sent = pair.sent();
    let mut out = Vec::new();
    let mut none = |_: &[u8]| panic!("the facts come first");
    let opened = pair
        .server
        .open(&mut sent, &mut none, &mut out)
        .expect("good records");
    assert!(opened.secured);
    pair.server.seal(b"late", &mut out);
    pair.answer(&out).expect("good records");
    assert_eq!(pair.received(), b"late");
    pair.held = sent.split_off(opened.consumed);
    pair.feed(b"");
    assert_eq!(pair.plain, b"early");
}

#[test]
fn both_sides_close_in_good_order() {
    for version in [&TLS13, &TLS12] {
        let mut pair = Pair::new(version, &[], false);
        pair.shake(100_000);
        pair.client.writer().write_all(b"bye").expect("memory");
        pair.client.send_close_notify();
        let mut sent = pair.sent();
        sent.extend_from_slice(b"rubbish");
        pair.feed(&sent);
        assert_eq!(pair.plain, b"bye");
        assert!(pair.server.peer_closed());
        assert!(pair.held.is_empty());

        let mut out = Vec::new();
        pair.server.seal(b"so long", &mut out);
        pair.server.close_notify(&mut out);
        let end = out.len();
        pair.server.seal(b"too late", &mut out);
        assert_eq!(out.len(), end);
        let mut bytes = &out[..];
        pair.client.read_tls(&mut bytes).expect("memory");
        let state = pair.client.process_new_packets().expect("good records");
        assert!(state.peer_has_closed());
        assert_eq!(pair.received(), b"so long");
    }
}

#[test]
fn rubbish_and_changed_records_end_the_connection_with_an_alert() {
    let mut pair = Pair::new(&TLS13, &[], false);
    let answer = pair.feed(b"<?xml version='1.0'?><stream:stream>");
    assert!(matches!(pair.error, Some(TlsError::Protocol(_))));
    // A fatal alert in clear: type 21, version 3.3, two bytes, level 2.
    assert_eq!(answer[..6], [21, 3, 3, 0, 2, 2]);
    assert!(pair.server.is_broken());

    let mut pair = Pair::new(&TLS13, &[], false);
    pair.shake(100_000);
    pair.client.writer().write_all(b"hello").expect("memory");
    let mut sent = pair.sent();
    let last = sent.len() - 1;
    sent[last] ^= 1;
    let answer = pair.feed(&sent);
    assert_eq!(
        pair.error,
        Some(TlsError::Protocol(rustls::Error::DecryptError))
    );
    let alert = rustls::AlertDescription::BadRecordMac;
    assert_eq!(
        pair.answer(&answer),
        Err(rustls::Error::AlertReceived(alert))
    );
    let mut out = Vec::new();
    pair.server.seal(b"x", &mut out);
    assert!(out.is_empty() && pair.plain.is_empty());
    let again = pair.server.open(&mut [], &mut |_: &[u8]| (), &mut out);
    assert_eq!(again, Err(TlsError::Broken));
}

#[test]
fn a_client_hello_without_end_is_cut_off() {
    let mut pair = Pair::new(&TLS13, &[], false);
    // A handshake message of 65,280 bytes, begun in records of 16,384.
    let mut record = vec![22, 3, 1, 0x40, 0];
    record.extend([1, 0, 0xff, 0]);
    record.resize(5 + (1 << 14), 0);
    pair.feed(&record);
    assert_eq!(pair.error, None);
    record.truncate(5);
    record.resize(5 + (1 << 14), 0);
    pair.feed(&record);
    assert_eq!(pair.error, Some(TlsError::TooBig));
}

#[test]
fn a_half_read_hello_survives_a_close_and_a_seal() {
    let mut pair = Pair::new(&TLS13, &[], false);
    pair.feed(&[22, 3, 1, 0, 2, 1, 0]);
    let mut out = Vec::new();
    pair.server.seal(b"x", &mut out);
    pair.server.close_notify(&mut out);
    assert!(out.is_empty());

    let mut pair = Pair::new(&TLS13, &[], false);
    pair.feed(&[22, 3, 1, 0, 2, 1, 0]);
    let shorter = pair.server.open(&mut [], &mut |_: &[u8]| (), &mut out);
    assert_eq!(shorter, Err(TlsError::Broken));
}

#[test]
fn a_key_update_is_followed() {
    let mut pair = Pair::new(&TLS13, &[], false);
    pair.shake(100_000);
    pair.client.refresh_traffic_keys().expect("TLS 1.3");
    pair.client.writer().write_all(b"new keys").expect("memory");
    let sent = pair.sent();
    let mut out = pair.feed(&sent);
    assert_eq!(
        (pair.error.clone(), &pair.plain[..]),
        (None, &b"new keys"[..])
    );
    pair.server.seal(b"mine too", &mut out);
    pair.answer(&out).expect("good records");
    assert_eq!(pair.received(), b"mine too");
}

#[test]
fn a_key_that_belongs_to_another_certificate_is_refused() {
    let (certificate_a, _) = certificate();
    let (_, key_b) = certificate();
    assert!(ServerConfigs::new(vec![certificate_a], key_b).is_err());
}

#[test]
fn a_connection_may_change_threads() {
    fn travels<T: Send + 'static>() {}
    travels::<Tls>();
    assert!(size_of::<Tls>() <= 1280);
}

/// Seals a TLS 1.3 record by hand, as no client of good manners would send it.
fn forge(secrets: &rustls::ExtractedSecrets, sequence: u64, kind: u8, content: &[u8]) -> Vec<u8> {
    use aws_lc_rs::aead;
    let rustls::ConnectionTrafficSecrets::Aes128Gcm { key, iv } = &secrets.tx.1 else {
        panic!("the server prefers AES-128-GCM");
    };
    let mut nonce: [u8; 12] = iv.as_ref().try_into().expect("twelve bytes");
    for (mine, count) in nonce[4..]
        .iter_mut()
        .zip((secrets.tx.0 + sequence).to_be_bytes())
    {
        *mine ^= count;
    }
    let key = aead::UnboundKey::new(&aead::AES_128_GCM, key.as_ref()).expect("a key");
    let mut body = [content, &[kind]].concat();
    let header = [23, 3, 3, 0, (body.len() + 16) as u8];
    let nonce = aead::Nonce::assume_unique_for_key(nonce);
    aead::LessSafeKey::new(key)
        .seal_in_place_append_tag(nonce, aead::Aad::from(header), &mut body)
        .expect("a short record");
    [&header[..], &body].concat()
}

#[test]
fn a_handshake_message_in_pieces_ends_the_connection_and_not_the_server() {
    const HANDSHAKE: u8 = 22;
    let mut pair = Pair::new(&TLS13, &[], false);
    pair.shake(100_000);
    let Pair {
        client, mut server, ..
    } = pair;
    let secrets = client
        .dangerous_extract_secrets()
        .expect("they may be taken");
    // The first half of a KeyUpdate. rustls goes on referring to it and would panic when the
    // server seals something without showing it again.
    let mut bytes = forge(&secrets, 0, HANDSHAKE, &[24, 0]);
    let mut out = Vec::new();
    let opened = server.open(&mut bytes, &mut |_: &[u8]| (), &mut out);
    assert_eq!(opened, Err(TlsError::Fragmented));
    server.seal(b"x", &mut out);
    server.close_notify(&mut out);
    assert!(out.is_empty());
}

#[test]
fn a_forged_record_of_bytes_is_read_so_the_forgery_is_good() {
    let mut pair = Pair::new(&TLS13, &[], false);
    pair.shake(100_000);
    let Pair {
        client, mut server, ..
    } = pair;
    let secrets = client
        .dangerous_extract_secrets()
        .expect("they may be taken");
    let mut bytes = forge(&secrets, 0, 23, b"hello");
    bytes.extend(forge(&secrets, 1, 23, b" world"));
    let mut plain = Vec::new();
    let mut take = |record: &[u8]| plain.extend_from_slice(record);
    let opened = server.open(&mut bytes, &mut take, &mut Vec::new());
    assert_eq!(opened.map(|opened| opened.consumed), Ok(bytes.len()));
    assert_eq!(plain, b"hello world");
}
