//! One client's TLS without a buffer of its own: bytes in, bytes out.
//!
//! rustls shakes hands by its unbuffered interface. Behind the handshake of TLS 1.3 the records are
//! those of [`ring::records`], as the server's are: what the generator does to the caches of the
//! machine, the server pays for, and so it is to do as little as it can.

use std::path::Path;
use std::sync::Arc;

use ring::records::{FRAGMENT_SIZE_MAX, Records, holds_record};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnectionData, Resumption, UnbufferedClientConnection};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{
    ClientConfig, DigitallySignedStruct, ProtocolVersion, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// The bytes that TLS adds to a record, with room to spare.
const RECORD_OVERHEAD_MAX: usize = 64;

/// Certificates to trust.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Ca {
    /// The file that they are from.
    pub name: String,
    /// What is in it.
    pub pem: String,
}

impl Ca {
    /// Reads a file of them.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(path: &Path) -> Result<Ca, String> {
        let name = path.display().to_string();
        let bytes = std::fs::read(path)
            .map_err(|error| format!("cannot read certificates from {name}: {error}"))?;
        let pem = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Ca { name, pem })
    }
}

/// The configuration all clients of a run share. Sessions are never resumed: every handshake is a
/// full one, so that handshakes compare.
///
/// # Errors
/// What is wrong with the certificates.
pub fn configure(ca: Option<&Ca>, alpn: Option<&str>) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = match ca {
        Some(Ca { name, pem }) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
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
    // For the record layer; nothing else takes them.
    config.enable_secret_extraction = true;
    config.alpn_protocols = alpn.map(|name| name.into()).into_iter().collect();
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

const OVER: &str = "the TLS connection is over";

/// One connection's TLS state.
pub struct Tls {
    layer: Layer,
    secured: bool,
}

/// What opens and seals.
enum Layer {
    /// rustls, which still shakes hands or speaks TLS 1.2.
    Machine(Box<UnbufferedClientConnection>),
    /// The record layer.
    Records(Box<Records<ClientConnectionData>>),
    /// Nothing: the records could not be taken over.
    Over,
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
                layer: Layer::Machine(Box::new(connection)),
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
        match &mut self.layer {
            Layer::Records(records) => {
                let mut take = |record: &[u8]| plain.extend_from_slice(record);
                let progress = records.open(wire, &mut take, out);
                let progress = progress.map_err(|error| error.to_string())?;
                Ok(Step {
                    consumed: progress.consumed,
                    secured: false,
                    closed: progress.closed,
                })
            }
            Layer::Machine(_) => {
                let step = self.shake(wire, plain, out)?;
                if self.secured && !step.closed && !holds_record(&wire[step.consumed..]) {
                    self.take_over()?;
                }
                Ok(step)
            }
            Layer::Over => Err(OVER.into()),
        }
    }

    /// As [`Tls::read`], by rustls.
    fn shake(
        &mut self,
        wire: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Step, String> {
        let Layer::Machine(connection) = &mut self.layer else {
            return Err(OVER.into());
        };
        let mut step = Step::default();
        loop {
            let UnbufferedStatus {
                mut discard, state, ..
            } = connection.process_tls_records(&mut wire[step.consumed..]);
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

    /// Goes on with the record layer where rustls has nothing left to say or to hand over.
    fn take_over(&mut self) -> Result<(), String> {
        match std::mem::replace(&mut self.layer, Layer::Over) {
            Layer::Machine(connection)
                if connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)
                    && !connection.wants_write() =>
            {
                let (secrets, keys) = connection
                    .dangerous_into_kernel_connection()
                    .map_err(|error| error.to_string())?;
                let records = Records::new(&secrets, keys).map_err(|error| error.to_string())?;
                self.layer = Layer::Records(Box::new(records));
            }
            layer => self.layer = layer,
        }
        Ok(())
    }

    /// Appends `plain` to `out` as records. `wire` is what [`Tls::read`] has not consumed yet.
    ///
    /// # Errors
    /// rustls' reason.
    pub fn seal(&mut self, wire: &mut [u8], plain: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let connection = match &mut self.layer {
            Layer::Records(records) => {
                let sealed = records.seal(plain, out);
                return sealed.map_err(|error| error.to_string());
            }
            Layer::Machine(connection) => connection,
            Layer::Over => return Err(OVER.into()),
        };
        loop {
            let status = connection.process_tls_records(wire);
            match status.state.map_err(|error| error.to_string())? {
                ConnectionState::EncodeTlsData(mut data) => encode(&mut data, out)?,
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::WriteTraffic(mut traffic) => {
                    let start = out.len();
                    let records = plain.len() / FRAGMENT_SIZE_MAX + 1;
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

#[cfg(test)]
mod tests;
