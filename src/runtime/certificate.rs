//! The server's certificate: read from the files of the configuration, or made by ourselves.
//!
//! Invariant: a key written by us is readable by its owner alone, and never half written.

use crate::transport::tls::ServerConfigs;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rcgen::{KeyUsagePurpose, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Certificates of one chain.
const CHAIN_MAX: usize = 16;

/// Bytes of a file; a larger one is something else.
const FILE_SIZE_MAX: u64 = 1 << 20;

/// Who may read what we write: its owner.
const PRIVATE_MODE: u32 = 0o600;

/// Why there is no certificate: what is wrong with which file, and what to do about it.
#[derive(Debug)]
pub struct CertificateError {
    /// What it is about: by that the key of the configuration is known.
    pub(crate) about: About,
    pub(crate) file: PathBuf,
    pub(crate) what: String,
    pub(crate) remedy: &'static str,
}

/// What a [`CertificateError`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// The file of the chain.
    Chain,
    /// The file of the key.
    Key,
    /// A file of the certificate that we make ourselves.
    Own,
    /// The domain that none can be made for.
    Domain,
}

impl CertificateError {
    /// The same about files that no key of the configuration names.
    fn own(self) -> CertificateError {
        CertificateError {
            about: About::Own,
            remedy: "let the server's user read it, or remove it to have another one made",
            ..self
        }
    }
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.file.display(), self.what, self.remedy)
    }
}

impl std::error::Error for CertificateError {}

/// Reads a PEM chain, the server's own certificate first, and its key.
///
/// # Errors
/// Files that cannot be read, hold something else, or do not belong together.
pub fn load(chain_file: &Path, key_file: &Path) -> Result<ServerConfigs, CertificateError> {
    let chain = read_chain(chain_file)?;
    let key = read_key(key_file)?;
    ServerConfigs::new(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => CertificateError {
            about: About::Key,
            file: key_file.to_owned(),
            what: format!(
                "the key does not belong to the certificate in {}",
                chain_file.display()
            ),
            remedy: "name the key that the certificate was made for, and put the server's own \
                     certificate first in its file",
        },
        other => CertificateError {
            about: About::Key,
            file: key_file.to_owned(),
            what: format!("the key or the certificate cannot be used ({other})"),
            remedy: "use an ECDSA P-256 or an RSA key of at least 2048 bits",
        },
    })
}

fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let failed = |what: String, remedy| CertificateError {
        about: About::Chain,
        file: file.to_owned(),
        what,
        remedy,
    };
    let text = read(file, About::Chain)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text)
        .take(CHAIN_MAX + 1)
        .collect();
    let chain = chain.map_err(|error| {
        failed(
            format!("the certificate is damaged ({error})"),
            "copy it again; it is text between BEGIN CERTIFICATE and END CERTIFICATE",
        )
    })?;
    if chain.is_empty() {
        return Err(failed(
            "there is no certificate in it".to_owned(),
            "set tls.cert to a PEM file with a BEGIN CERTIFICATE line",
        ));
    }
    if chain.len() > CHAIN_MAX {
        return Err(failed(
            format!("there are more than {CHAIN_MAX} certificates in it"),
            "keep the server's own and those that lead to its issuer",
        ));
    }
    Ok(chain)
}

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let failed = |what: String, remedy| CertificateError {
        about: About::Key,
        file: file.to_owned(),
        what,
        remedy,
    };
    let text = read(file, About::Key)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound if text.windows(9).any(|part| part == b"ENCRYPTED") => failed(
            "the key is encrypted".to_owned(),
            "decrypt it with `openssl pkey -in OLD -out NEW`",
        ),
        pem::Error::NoItemsFound => failed(
            "there is no private key in it".to_owned(),
            "set tls.key to a PEM file with a BEGIN PRIVATE KEY line",
        ),
        other => failed(format!("the key is damaged ({other})"), "copy it again"),
    })
}

fn read(file: &Path, about: About) -> Result<Vec<u8>, CertificateError> {
    let failed = |what: String| CertificateError {
        about,
        file: file.to_owned(),
        what,
        remedy: "check the path and that the server's user may read the file",
    };
    let unreadable = |error: io::Error| failed(format!("it cannot be read ({error})"));
    let metadata = fs::metadata(file).map_err(unreadable)?;
    // Whatever is no file might never end.
    if !metadata.is_file() || metadata.len() > FILE_SIZE_MAX {
        return Err(failed("it is no file of PEM".to_owned()));
    }
    fs::read(file).map_err(unreadable)
}

/// The files of the certificate that we make for `domain`, and of its key.
fn own_files(directory: &Path, domain: &str) -> (PathBuf, PathBuf) {
    let file = |ending: &str| directory.join(format!("{domain}.{ending}"));
    (file("crt"), file("key"))
}

/// Whether [`self_signed`] would succeed where the directory can be written; makes nothing there.
///
/// # Errors
/// Files in it that were tampered with, or a domain that no certificate can be made for.
pub fn check_self_signed(directory: &Path, domain: &str) -> Result<(), CertificateError> {
    let (chain_file, key_file) = own_files(directory, domain);
    if chain_file.exists() && key_file.exists() {
        load(&chain_file, &key_file)
            .map(drop)
            .map_err(CertificateError::own)
    } else {
        generate(domain, &chain_file).map(drop)
    }
}

/// The certificate that we made for `domain` in `directory`, made now if there is none. It does not
/// run out; clients must be told to trust it.
///
/// # Errors
/// As [`check_self_signed`], or a directory that cannot be written.
pub fn self_signed(directory: &Path, domain: &str) -> Result<ServerConfigs, CertificateError> {
    let (chain_file, key_file) = own_files(directory, domain);
    if !chain_file.exists() || !key_file.exists() {
        make(domain, &chain_file, &key_file)?;
    }
    tracing::warn!(
        domain,
        certificate = %chain_file.display(),
        "using a self-signed certificate, which clients will not trust; set tls.cert and tls.key"
    );
    load(&chain_file, &key_file).map_err(CertificateError::own)
}

/// A new certificate and its key, in PEM.
fn generate(domain: &str, chain_file: &Path) -> Result<(String, String), CertificateError> {
    let unusable = |error: rcgen::Error| CertificateError {
        about: About::Domain,
        file: chain_file.to_owned(),
        what: format!("no certificate can be made for {domain} ({error})"),
        remedy: "set tls.cert and tls.key to one of your own",
    };
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(unusable)?;
    let mut params = CertificateParams::new(vec![domain.to_owned()]).map_err(unusable)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, domain);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key).map_err(unusable)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn make(domain: &str, chain_file: &Path, key_file: &Path) -> Result<(), CertificateError> {
    let (certificate, key) = generate(domain, chain_file)?;
    let unwritable = |error: io::Error| CertificateError {
        about: About::Own,
        file: chain_file.to_owned(),
        what: format!("it cannot be written ({error})"),
        remedy: "let `data` name a directory that the server's user may write",
    };
    // The key first: a certificate without one is made again, a key without one replaced.
    write_private(key_file, key.as_bytes()).map_err(unwritable)?;
    write_private(chain_file, certificate.as_bytes()).map_err(unwritable)
}

/// Writes a file that only its owner may read: all of it or nothing.
pub(crate) fn write_private(file: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    // The mode holds only for a file that is made, so one left behind must go.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE_MODE)
        .open(&new)?;
    out.write_all(content)?;
    out.sync_all()?;
    fs::rename(&new, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// A directory of this test alone, gone with it.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let name = format!("vorpal-certificate-{}-{name}", std::process::id());
            let place = std::env::temp_dir().join(name);
            fs::create_dir_all(&place).expect("a directory");
            Place(place)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("the directory is ours");
        }
    }

    #[test]
    fn a_made_certificate_is_kept_and_its_key_is_private() {
        let place = Place::new("made");
        let directory = place.0.join("deep/er");
        self_signed(&directory, "example.org").expect("a certificate");
        let file = directory.join("example.org.crt");
        let first = fs::read(&file).expect("written");
        self_signed(&directory, "example.org").expect("the same certificate");
        assert_eq!(fs::read(&file).expect("kept"), first);
        let key = fs::metadata(directory.join("example.org.key")).expect("written");
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&directory).expect("ours").count(), 2);

        fs::remove_file(directory.join("example.org.key")).expect("ours");
        self_signed(&directory, "example.org").expect("another certificate");
        assert_ne!(fs::read(&file).expect("made again"), first);
    }

    #[test]
    fn files_without_sense_are_refused_with_a_remedy() {
        let place = Place::new("refused");
        self_signed(&place.0, "example.org").expect("a certificate");
        self_signed(&place.0, "example.net").expect("a certificate");
        let at = |name: &str| place.0.join(name);
        let (chain, key) = (at("example.org.crt"), at("example.org.key"));
        assert!(load(&chain, &key).is_ok());
        let refusal = |chain: &Path, key: &Path| {
            load(chain, key)
                .map(|_| ())
                .expect_err("refused")
                .to_string()
        };
        let other = refusal(&chain, &at("example.net.key"));
        assert!(
            other.contains("does not belong to the certificate"),
            "{other}"
        );
        assert!(refusal(&at("none.crt"), &key).contains("cannot be read"));
        assert!(refusal(&key, &key).contains("no certificate in it"));
        assert!(refusal(&chain, &chain).contains("no private key in it"));

        let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n\
                      -----END ENCRYPTED PRIVATE KEY-----\n";
        fs::write(at("locked.key"), locked).expect("ours");
        assert!(refusal(&chain, &at("locked.key")).contains("openssl pkey"));

        let text = fs::read_to_string(&chain).expect("text");
        let many = text.repeat(CHAIN_MAX + 1);
        fs::write(at("many.crt"), many).expect("ours");
        assert!(refusal(&at("many.crt"), &key).contains("more than 16"));
        fs::write(at("cut.crt"), &text[..text.len() / 2]).expect("ours");
        assert!(refusal(&at("cut.crt"), &key).contains("damaged"));
    }
}
