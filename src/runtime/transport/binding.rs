//! Channel bindings: `tls-exporter` (RFC 9266) and `tls-server-end-point` (RFC 5929 4).
//!
//! rustls' unbuffered connection has no `export_keying_material`, so the exporter secret is taken
//! where rustls would log it, and only on the thread and during the step that makes it.

use aws_lc_rs::digest::{self, Algorithm, SHA224, SHA256, SHA384, SHA512};
use rustls::Tls13CipherSuite;
use rustls::crypto::tls13::OkmBlock;
use std::cell::RefCell;
use zeroize::Zeroizing;

/// The name under which rustls logs what exporters are derived from.
const EXPORTER_SECRET: &str = "EXPORTER_SECRET";

/// RFC 9266 2.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// Bytes of the secret: one hash of a TLS 1.3 suite.
const SECRET_SIZE_MAX: usize = 64;

/// A secret on its short way; wiped when dropped.
pub(super) type Secret = Zeroizing<Vec<u8>>;

/// What the current thread does with a logged secret.
enum Ear {
    Shut,
    Open,
    Heard(Secret),
}

thread_local! {
    static EAR: RefCell<Ear> = const { RefCell::new(Ear::Shut) };
}

/// Runs one step of a handshake; beside its result comes the exporter secret if it was made in it.
pub(super) fn overhear<T>(step: impl FnOnce() -> T) -> (T, Option<Secret>) {
    EAR.set(Ear::Open);
    let result = step();
    match EAR.replace(Ear::Shut) {
        Ear::Heard(secret) => (result, Some(secret)),
        Ear::Open | Ear::Shut => (result, None),
    }
}

/// Where rustls would log secrets: keeps the exporter secret for [`overhear`], drops all others.
#[derive(Debug)]
pub(super) struct ExporterLog;

impl rustls::KeyLog for ExporterLog {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        // TLS 1.2 logs its master secret without asking `will_log`.
        if !self.will_log(label) || secret.len() > SECRET_SIZE_MAX {
            return;
        }
        EAR.with_borrow_mut(|ear| {
            if matches!(ear, Ear::Open) {
                *ear = Ear::Heard(Zeroizing::new(secret.to_vec()));
            }
        });
    }

    fn will_log(&self, label: &str) -> bool {
        label == EXPORTER_SECRET
    }
}

/// `tls-exporter` of a TLS 1.3 connection: the 32 bytes that both sides can derive.
pub(super) fn exporter(suite: &Tls13CipherSuite, secret: &[u8]) -> Option<[u8; 32]> {
    // RFC 8446 7.5: Expand-Label(Derive-Secret(secret, label, ""), "exporter", Hash(""), 32).
    let empty_hash = suite.common.hash_provider.hash(&[]);
    let mut derived = Zeroizing::new([0; SECRET_SIZE_MAX]);
    let derived = derived.get_mut(..secret.len())?;
    expand_label(suite, secret, EXPORTER_LABEL, empty_hash.as_ref(), derived)?;
    let mut exporter = [0; 32];
    expand_label(
        suite,
        derived,
        b"exporter",
        empty_hash.as_ref(),
        &mut exporter,
    )?;
    Some(exporter)
}

/// HKDF-Expand-Label of RFC 8446 7.1.
fn expand_label(
    suite: &Tls13CipherSuite,
    secret: &[u8],
    label: &[u8],
    context: &[u8],
    output: &mut [u8],
) -> Option<()> {
    const PREFIX: &[u8] = b"tls13 ";
    let size = u16::try_from(output.len()).ok()?.to_be_bytes();
    let label_size = [u8::try_from(PREFIX.len() + label.len()).ok()?];
    let context_size = [u8::try_from(context.len()).ok()?];
    let info: [&[u8]; 6] = [&size, &label_size, PREFIX, label, &context_size, context];
    let expander = suite.hkdf_provider.expander_for_okm(&OkmBlock::new(secret));
    expander.expand_slice(&info, output).ok()
}

/// `tls-server-end-point`: the certificate's hash, by the hash function of its signature.
///
/// `None` where RFC 5929 4.1 defines none, as with Ed25519.
pub(super) fn server_end_point(certificate: &[u8]) -> Option<Box<[u8]>> {
    let algorithm = signature_hash(certificate)?;
    Some(digest::digest(algorithm, certificate).as_ref().into())
}

/// OIDs of signature algorithms in DER, with the hash that stands for them in the binding.
/// MD5 and SHA-1 are replaced by SHA-256 (RFC 5929 4.1).
const SIGNATURES: &[(&[u8], &Algorithm)] = &[
    // 1.2.840.113549.1.1.*: RSA PKCS #1 v1.5 with MD5, SHA-1, -256, -384, -512, -224.
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04],
        &SHA256,
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05],
        &SHA256,
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b],
        &SHA256,
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c],
        &SHA384,
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d],
        &SHA512,
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0e],
        &SHA224,
    ),
    // 1.2.840.10045.4.*: ECDSA with SHA-1, -224, -256, -384, -512.
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01], &SHA256),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x01], &SHA224),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02], &SHA256),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03], &SHA384),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04], &SHA512),
];

/// 1.2.840.113549.1.1.10: RSASSA-PSS, whose hash is a parameter (RFC 4055 3.1).
const PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];

/// 2.16.840.1.101.3.4.2.*: SHA-256, -384, -512, -224. Without one, PSS means SHA-1.
const PSS_HASHES: &[(&[u8], &Algorithm)] = &[
    (
        &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01],
        &SHA256,
    ),
    (
        &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02],
        &SHA384,
    ),
    (
        &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03],
        &SHA512,
    ),
    (
        &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x04],
        &SHA224,
    ),
];

const DER_OID: u8 = 0x06;
const DER_SEQUENCE: u8 = 0x30;
const DER_CONTEXT_0: u8 = 0xa0;

fn signature_hash(certificate: &[u8]) -> Option<&'static Algorithm> {
    let (mut certificate, _) = der(certificate, DER_SEQUENCE)?;
    // Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, signatureValue }
    (_, certificate) = der(certificate, DER_SEQUENCE)?;
    let (identifier, _) = der(certificate, DER_SEQUENCE)?;
    let (oid, parameters) = der(identifier, DER_OID)?;
    if oid != PSS {
        return SIGNATURES
            .iter()
            .find(|(known, _)| *known == oid)
            .map(|(_, hash)| *hash);
    }
    let hash = der(parameters, DER_SEQUENCE)
        .and_then(|(parameters, _)| der(parameters, DER_CONTEXT_0))
        .and_then(|(hash, _)| der(hash, DER_SEQUENCE))
        .and_then(|(hash, _)| der(hash, DER_OID));
    match hash {
        None => Some(&SHA256),
        Some((oid, _)) => PSS_HASHES
            .iter()
            .find(|(known, _)| *known == oid)
            .map(|(_, hash)| *hash),
    }
}

/// The content of the DER element with this tag at the start of `bytes`, and what follows it.
fn der(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let (size, mut rest) = rest.split_first()?;
    let mut size = usize::from(*size);
    if size & 0x80 != 0 {
        // The long form: so many bytes of size follow; four are enough for any certificate.
        let count = size & 0x7f;
        if *first != tag || count > 4 || rest.len() < count {
            return None;
        }
        let digits;
        (digits, rest) = rest.split_at(count);
        size = digits
            .iter()
            .fold(0, |sum, digit| sum << 8 | usize::from(*digit));
    }
    (*first == tag)
        .then(|| rest.split_at_checked(size))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate with this signature algorithm identifier, and nothing else of use in it.
    fn signed(identifier: &[u8]) -> Vec<u8> {
        let mut body = vec![DER_SEQUENCE, 0x81, 3, 2, 1, 1];
        body.extend([DER_SEQUENCE, identifier.len() as u8]);
        body.extend(identifier);
        body.extend([3, 1, 0]);
        let mut all = vec![DER_SEQUENCE, 0x82, 0, body.len() as u8];
        all.extend(body);
        all
    }

    fn oid(bytes: &[u8]) -> Vec<u8> {
        [&[DER_OID, bytes.len() as u8], bytes].concat()
    }

    fn wrap(tag: u8, bytes: &[u8]) -> Vec<u8> {
        [&[tag, bytes.len() as u8], bytes].concat()
    }

    #[test]
    fn the_end_point_is_hashed_as_the_certificate_was_signed() {
        for (signature, hash) in SIGNATURES {
            let certificate = signed(&oid(signature));
            let expected = digest::digest(hash, &certificate);
            let found = server_end_point(&certificate).expect("a known signature");
            assert_eq!(&*found, expected.as_ref());
        }
        // Ed25519 has no hash of its own (1.3.101.112).
        assert_eq!(server_end_point(&signed(&oid(&[0x2b, 0x65, 0x70]))), None);
    }

    #[test]
    fn pss_names_its_hash_in_a_parameter() {
        for (name, hash) in PSS_HASHES {
            let inner = wrap(DER_CONTEXT_0, &wrap(DER_SEQUENCE, &oid(name)));
            let certificate = signed(&[oid(PSS), wrap(DER_SEQUENCE, &inner)].concat());
            let found = server_end_point(&certificate).expect("a known hash");
            assert_eq!(&*found, digest::digest(hash, &certificate).as_ref());
        }
        let certificate = signed(&[oid(PSS), wrap(DER_SEQUENCE, &[])].concat());
        let found = server_end_point(&certificate).expect("SHA-1 is meant");
        assert_eq!(found.len(), 32);
    }

    #[test]
    fn a_certificate_cut_anywhere_has_no_end_point_and_does_no_harm() {
        let certificate = signed(&oid(SIGNATURES[8].0));
        for size in 0..certificate.len() {
            assert_eq!(server_end_point(&certificate[..size]), None);
        }
        assert_eq!(server_end_point(&[0xff; 64]), None);
    }

    #[test]
    fn only_the_exporter_secret_is_kept_and_only_while_it_is_asked_for() {
        use rustls::KeyLog as _;
        let log = |label| ExporterLog.log(label, &[], &[1; 32]);
        log(EXPORTER_SECRET);
        let ((), heard) = overhear(|| log("CLIENT_RANDOM"));
        assert!(heard.is_none());
        let ((), heard) = overhear(|| log(EXPORTER_SECRET));
        assert_eq!(heard.as_deref(), Some(&vec![1; 32]));
        let ((), heard) = overhear(|| ());
        assert!(heard.is_none());
    }
}
