//! One client's TLS over rustls' unbuffered interface: no buffer of its own, bytes in, bytes out.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// The bytes that TLS adds to a record, with room to spare.
const RECORD_OVERHEAD_MAX: usize = 64;
/// The plain bytes of one record (RFC 8446 5.1).
const RECORD_SIZE_MAX: usize = 16 * 1024;

/// The configuration all clients of a run share. Sessions are never resumed: every handshake is a
/// full one, so that handshakes compare.
///
/// # Errors
/// What is wrong with the certificate file.
pub fn configure(ca: Option<&Path>, direct: bool) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = match ca {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            let name = path.display();
            let certificates = CertificateDer::pem_file_iter(path)
                .map_err(|error| format!("cannot read certificates from {name}: {error}"))?;
            for certificate in certificates {
                certificate
                    .map_err(|error| error.to_string())
                    .and_then(|der| roots.add(der).map_err(|error| error.to_string()))
                    .map_err(|error| format!("bad certificate in {name}: {error}"))?;
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAnything))
            .with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    if direct {
        // XEP-0368: the protocol's name for ALPN.
        config.alpn_protocols = vec![b"xmpp-client".to_vec()];
    }
    Ok(Arc::new(config))
}

/// `--insecure`: the load test is not about whom it talks to.
#[derive(Debug)]
struct AcceptAnything;

impl ServerCertVerifier for AcceptAnything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// One connection's TLS state.
pub struct Tls {
    connection: UnbufferedClientConnection,
    secured: bool,
}

/// What a step of reading came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// The handshake finished in this step.
    pub secured: bool,
    /// The peer said `close_notify`.
    pub closed: bool,
}

impl Tls {
    /// A handshake that begins with the first [`Tls::read`], of nothing.
    ///
    /// # Errors
    /// rustls' reason.
    pub fn new(config: &Arc<ClientConfig>, name: &ServerName<'static>) -> Result<Tls, String> {
        UnbufferedClientConnection::new(config.clone(), name.clone())
            .map(|connection| Tls {
                connection,
                secured: false,
            })
            .map_err(|error| error.to_string())
    }

    /// Takes what the wire brought; appends plain text and what must be sent in return.
    ///
    /// # Errors
    /// rustls' reason.
    pub fn read(
        &mut self,
        wire: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Step, String> {
        let mut step = Step::default();
        loop {
            let UnbufferedStatus {
                mut discard, state, ..
            } = self
                .connection
                .process_tls_records(&mut wire[step.consumed..]);
            let mut done = false;
            match state.map_err(|error| error.to_string())? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(|error| error.to_string())?;
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => encode(&mut data, out)?,
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::WriteTraffic(_) => {
                    step.secured = !self.secured;
                    self.secured = true;
                    done = true;
                }
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    step.closed = true;
                    done = true;
                }
                _ => done = true,
            }
            step.consumed += discard;
            if done {
                return Ok(step);
            }
        }
    }

    /// Appends `plain` to `out` as records. `wire` is what [`Tls::read`] has not consumed yet.
    ///
    /// # Errors
    /// rustls' reason.
    pub fn seal(&mut self, wire: &mut [u8], plain: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        loop {
            let status = self.connection.process_tls_records(wire);
            match status.state.map_err(|error| error.to_string())? {
                ConnectionState::EncodeTlsData(mut data) => encode(&mut data, out)?,
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::WriteTraffic(mut traffic) => {
                    let start = out.len();
                    let records = plain.len() / RECORD_SIZE_MAX + 1;
                    let mut room = plain.len() + records * RECORD_OVERHEAD_MAX;
                    loop {
                        out.resize(start + room, 0);
                        match traffic.encrypt(plain, &mut out[start..]) {
                            Ok(size) => {
                                out.truncate(start + size);
                                return Ok(());
                            }
                            Err(EncryptError::InsufficientSize(needed)) => {
                                room = needed.required_size;
                            }
                            Err(error) => return Err(error.to_string()),
                        }
                    }
                }
                _ => return Err("TLS is not ready to write".into()),
            }
        }
    }
}

fn encode<Data>(
    data: &mut rustls::unbuffered::EncodeTlsData<'_, Data>,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let start = out.len();
    let mut room = 1024;
    loop {
        out.resize(start + room, 0);
        match data.encode(&mut out[start..]) {
            Ok(size) => {
                out.truncate(start + size);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(needed)) => room = needed.required_size,
            Err(error) => return Err(error.to_string()),
        }
    }
}
