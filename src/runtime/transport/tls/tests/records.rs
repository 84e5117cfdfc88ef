//! Tests of the record layer: what rustls' client sends and reads, and what only a forger sends.

use super::*;
use rustls::{AlertDescription, Error, InvalidMessage, PeerMisbehaved};

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

/// A server after its handshake and the keys of its client.
fn forger() -> (Tls, rustls::ExtractedSecrets) {
    let mut pair = Pair::new(&TLS13, &[], false);
    pair.shake(100_000);
    let secrets = pair
        .client
        .dangerous_extract_secrets()
        .expect("they may be taken");
    (pair.server, secrets)
}

/// What the server makes of the records: the plaintext, and how it ended.
fn open(server: &mut Tls, mut bytes: Vec<u8>) -> (Vec<u8>, Result<usize, TlsError>) {
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    let mut take = |record: &[u8]| plain.extend_from_slice(record);
    let opened = server.open(&mut bytes, &mut take, &mut out);
    (plain, opened.map(|opened| opened.consumed))
}

#[test]
fn every_suite_carries_bytes_both_ways() {
    for suite in [
        CipherSuite::TLS13_AES_128_GCM_SHA256,
        CipherSuite::TLS13_AES_256_GCM_SHA384,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ] {
        let mut pair = Pair::of_suite(suite);
        pair.shake(100_000);
        assert!(matches!(pair.server.layer, Layer::Records(_)), "{suite:?}");
        for round in 0..3 {
            let text = format!("{suite:?} {round}");
            pair.client
                .writer()
                .write_all(text.as_bytes())
                .expect("memory");
            let sent = pair.sent();
            assert_eq!(pair.feed(&sent), b"");
            assert_eq!(pair.error, None);
            assert_eq!(std::mem::take(&mut pair.plain), text.as_bytes());
            let mut out = Vec::new();
            pair.server.seal(text.as_bytes(), &mut out);
            pair.answer(&out).expect("good records");
            assert_eq!(pair.received(), text.as_bytes());
        }
    }
}

#[test]
fn keys_are_fetched_from_where_they_are() {
    let mut pair = Pair::new(&TLS13, &[], false);
    pair.shake(100_000);
    let Layer::Records(records) = &pair.server.layer else {
        panic!("TLS 1.3 has records of our own");
    };
    assert_eq!(pair.server.records_place(), std::ptr::from_ref(records));
}

#[test]
fn tls_1_2_stays_with_rustls() {
    let mut pair = Pair::new(&TLS12, &[], false);
    pair.shake(100_000);
    pair.client.writer().write_all(b"hello").expect("memory");
    let sent = pair.sent();
    pair.feed(&sent);
    assert_eq!(pair.plain, b"hello");
    assert!(matches!(pair.server.layer, Layer::Machine(_)));
}

#[test]
fn keys_are_renewed_before_they_are_worn_out_and_when_the_peer_asks() {
    let mut pair = Pair::new(&TLS13, &[], false);
    pair.shake(100_000);
    let Layer::Records(records) = &mut pair.server.layer else {
        panic!("TLS 1.3 has records of our own");
    };
    records.renew_after(2);
    let mut sizes = Vec::new();
    for _ in 0..5 {
        let mut out = Vec::new();
        pair.server.seal(b"x", &mut out);
        sizes.push(out.len());
        pair.answer(&out).expect("good records");
        assert_eq!(pair.received(), b"x");
    }
    // Five bytes of header, the byte, its type and the tag; two bring a KeyUpdate.
    assert_eq!(sizes, [23, 23, 23 + 27, 23, 23 + 27]);

    let (mut server, secrets) = forger();
    let (_, opened) = open(
        &mut server,
        forge(&secrets, 0, HANDSHAKE, &[24, 0, 0, 1, 1]),
    );
    assert_eq!(opened, Ok(27));
    let (mut first, mut second) = (Vec::new(), Vec::new());
    server.seal(b"x", &mut first);
    server.seal(b"x", &mut second);
    assert_eq!((first.len(), second.len()), (23 + 27, 23));
    // The old key opens nothing any more.
    let (plain, opened) = open(&mut server, forge(&secrets, 1, DATA, b"old"));
    assert_eq!((plain.len(), opened), (0, Err(Error::DecryptError.into())));
}

#[test]
fn padding_is_taken_off_and_a_record_of_nothing_else_is_refused() {
    let (mut server, secrets) = forger();
    // The forger's type comes last, so a padded record ends in zeros of which it is the last.
    let (plain, opened) = open(&mut server, forge(&secrets, 0, 0, b"hello\x17\0\0"));
    assert_eq!((&plain[..], opened.is_ok()), (&b"hello"[..], true));
    let (_, opened) = open(&mut server, forge(&secrets, 1, 0, &[0; 20]));
    let Err(TlsError::Protocol(Error::InappropriateMessage { .. })) = opened else {
        panic!("{opened:?}");
    };
}

#[test]
fn records_without_bytes_are_suffered_for_a_while() {
    let (mut server, secrets) = forger();
    for sequence in 0..32 {
        let (plain, opened) = open(&mut server, forge(&secrets, sequence, DATA, b""));
        assert_eq!((plain.len(), opened), (0, Ok(22)));
    }
    let (plain, _) = open(&mut server, forge(&secrets, 32, DATA, b"at last"));
    assert_eq!(plain, b"at last");
    for sequence in 33..65 {
        let (_, opened) = open(&mut server, forge(&secrets, sequence, DATA, b""));
        assert_eq!(opened, Ok(22));
    }
    let (_, opened) = open(&mut server, forge(&secrets, 65, DATA, b""));
    let misbehaved = Error::PeerMisbehaved(PeerMisbehaved::TooManyEmptyFragments);
    assert_eq!(opened, Err(misbehaved.into()));
}

#[test]
fn alerts_are_understood() {
    let (mut server, secrets) = forger();
    let user_canceled = forge(&secrets, 0, ALERT, &[1, 90]);
    assert_eq!(open(&mut server, user_canceled).1, Ok(24));
    assert!(!server.peer_closed());
    let goodbye = [forge(&secrets, 1, ALERT, &[1, 0]), b"rubbish".to_vec()].concat();
    assert_eq!(open(&mut server, goodbye).1, Ok(24 + 7));
    assert!(server.peer_closed());

    let (mut server, secrets) = forger();
    let fatal = forge(&secrets, 0, ALERT, &[2, 80]);
    let received = Error::AlertReceived(AlertDescription::InternalError);
    assert_eq!(open(&mut server, fatal).1, Err(received.into()));
    assert!(server.is_broken());

    let (mut server, secrets) = forger();
    let long = forge(&secrets, 0, ALERT, &[2, 80, 0]);
    let malformed = Error::InvalidMessage(InvalidMessage::TrailingData("Alert"));
    assert_eq!(open(&mut server, long).1, Err(malformed.into()));
}

#[test]
fn what_no_client_may_send_after_the_handshake_is_answered_by_an_alert() {
    let too_long = [DATA, 3, 3, 0x41, 0x01];
    let change_cipher_spec = [20, 3, 3, 0, 1, 1];
    for (bytes, alert) in [
        (&too_long[..], AlertDescription::RecordOverflow),
        (&change_cipher_spec, AlertDescription::UnexpectedMessage),
        (b"<stream:stream", AlertDescription::UnexpectedMessage),
        (&[DATA, 3, 3, 0, 1, 0], AlertDescription::BadRecordMac),
    ] {
        let mut pair = Pair::new(&TLS13, &[], false);
        pair.shake(100_000);
        let answer = pair.feed(bytes);
        assert!(pair.error.is_some(), "{bytes:?}");
        let told = pair.answer(&answer);
        assert_eq!(told, Err(Error::AlertReceived(alert)), "{bytes:?}");
        assert!(pair.server.is_broken() && pair.plain.is_empty());
    }

    // Another ClientHello, two messages in one record, an unknown request, an empty message.
    for (content, alert) in [
        (&[1, 0, 0, 0][..], AlertDescription::UnexpectedMessage),
        (
            &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0],
            AlertDescription::UnexpectedMessage,
        ),
        (&[24, 0, 0, 1, 2], AlertDescription::IllegalParameter),
        (&[], AlertDescription::UnexpectedMessage),
    ] {
        let (mut server, secrets) = forger();
        let (mut bytes, mut out) = (forge(&secrets, 0, HANDSHAKE, content), Vec::new());
        let opened = server.open(&mut bytes, &mut |_: &[u8]| (), &mut out);
        assert!(opened.is_err(), "{content:?}");
        assert_eq!(
            unseal(&secrets, &mut out),
            [2, alert.into(), ALERT],
            "{content:?}"
        );
    }
}

/// What the server sealed first: its content, and behind it the type.
fn unseal<'r>(secrets: &rustls::ExtractedSecrets, record: &'r mut [u8]) -> &'r [u8] {
    use aws_lc_rs::aead;
    let (sequence, rustls::ConnectionTrafficSecrets::Aes128Gcm { key, iv }) = &secrets.rx else {
        panic!("the server prefers AES-128-GCM");
    };
    let mut nonce: [u8; 12] = iv.as_ref().try_into().expect("twelve bytes");
    for (mine, count) in nonce[4..].iter_mut().zip(sequence.to_be_bytes()) {
        *mine ^= count;
    }
    let key = aead::UnboundKey::new(&aead::AES_128_GCM, key.as_ref()).expect("a key");
    let (header, sealed) = record.split_first_chunk_mut::<5>().expect("a record");
    let nonce = aead::Nonce::assume_unique_for_key(nonce);
    aead::LessSafeKey::new(key)
        .open_in_place(nonce, aead::Aad::from(*header), sealed)
        .expect("sealed by the server")
}
