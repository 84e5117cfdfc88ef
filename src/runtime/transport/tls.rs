//! TLS of one connection without I/O: bytes in, plaintext and bytes out.
//!
//! Invariant: rustls' unbuffered connection is never shown less than what it still refers to; it
//! would panic. So the rest of [`Tls::open`] is offered again, and a fragment that rustls keeps
//! referring to after the handshake ends the connection.

use super::binding;
use rustls::server::{NoServerSessionStorage, ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedStatus, WriteTraffic,
};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, SupportedCipherSuite};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::sync::Arc;
use xmpp::TlsFacts;

/// Bytes of a TLS record at most (RFC 5246 6.2.3): so much may wait for its end. It bounds a
/// `ClientHello` too, which is a tenth of it.
pub const RECORD_SIZE_MAX: usize = RECORD_HEADER_SIZE + (1 << 14) + 2048;

const RECORD_HEADER_SIZE: usize = 5;

/// Plain bytes that fit into one record.
const FRAGMENT_SIZE_MAX: usize = 1 << 14;

/// What a record adds to them at most: header, nonce of TLS 1.2, content type of 1.3, tag.
const RECORD_OVERHEAD_MAX: usize = RECORD_HEADER_SIZE + 8 + 1 + 16;

/// Alerts that are fetched after an error; rustls queues one.
const ALERTS_MAX: usize = 4;

/// The protocol of clients on the direct TLS port (XEP-0368 5).
const ALPN_CLIENT: &[u8] = b"xmpp-client";

/// Our side of all handshakes on one kind of port.
pub struct ServerConfig {
    rustls: Arc<rustls::ServerConfig>,
    server_end_point: Option<Box<[u8]>>,
}

/// The two kinds of port with the same certificate.
#[derive(Clone, Debug)]
pub struct ServerConfigs {
    /// For STARTTLS, where no ALPN is needed.
    pub starttls: Arc<ServerConfig>,
    /// For direct TLS: a client that names protocols by ALPN must name ours.
    pub direct: Arc<ServerConfig>,
}

impl ServerConfigs {
    /// From a chain, the server's own certificate first, and the key that belongs to it.
    ///
    /// # Errors
    /// What rustls says: a key that it cannot use, or of another certificate.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<ServerConfigs, rustls::Error> {
        let end_point = chain
            .first()
            .and_then(|leaf| binding::server_end_point(leaf));
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        // AES-128 first, and by our order: its handshakes hash with SHA-256, for which processors
        // have instructions as they have none for SHA-384, and its keys are smaller.
        provider
            .cipher_suites
            .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.ignore_client_order = true;
        config.key_log = Arc::new(binding::ExporterLog);
        // No resumption: with ECDSA it saves nothing, and its cache would be a lock between shards.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let with_alpn = |alpn: Vec<Vec<u8>>| {
            let mut rustls = config.clone();
            rustls.alpn_protocols = alpn;
            let server_end_point = end_point.clone();
            Arc::new(ServerConfig {
                rustls: Arc::new(rustls),
                server_end_point,
            })
        };
        Ok(ServerConfigs {
            starttls: with_alpn(Vec::new()),
            direct: with_alpn(vec![ALPN_CLIENT.to_vec()]),
        })
    }
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("alpn", &self.rustls.alpn_protocols)
            .finish()
    }
}

/// Why a connection cannot go on. The alert for the peer, if any, is in the output already.
#[derive(Clone, Debug, PartialEq)]
pub enum TlsError {
    /// What rustls has against the peer's bytes.
    Protocol(rustls::Error),
    /// More than [`RECORD_SIZE_MAX`] bytes without a complete message.
    TooBig,
    /// A handshake message in pieces after the handshake; nobody sends such.
    Fragmented,
    /// The connection failed earlier, or was shown less than it left over.
    Broken,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Protocol(error) => error.fmt(f),
            TlsError::TooBig => f.write_str("an overlong handshake message"),
            TlsError::Fragmented => f.write_str("a handshake message in pieces"),
            TlsError::Broken => f.write_str("the TLS connection is broken"),
        }
    }
}

impl std::error::Error for TlsError {}

/// What [`Tls::open`] did.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Bytes that are done with. The rest is kept *as it is now*, for it may be decrypted already,
    /// and offered again with more behind it.
    pub consumed: usize,
    /// The handshake ended in this call, which stopped there: take the facts, tell the stream, then
    /// call `open` again at once with the rest, even with none; plaintext may be waiting.
    pub secured: bool,
}

/// The server's side of one TLS connection. Idle, it takes about 2.4 KB.
pub struct Tls {
    connection: Box<UnbufferedServerConnection>,
    /// Until the facts are taken.
    config: Option<Arc<ServerConfig>>,
    exporter: Option<[u8; 32]>,
    /// Plaintext that came to light while something was sealed.
    early: Vec<u8>,
    /// Bytes that the last `open` left over.
    held: u32,
    peer_closed: bool,
    broken: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("held", &self.held)
            .field("peer_closed", &self.peer_closed)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

/// What one step of rustls' machine came to.
enum Step {
    /// Take another one.
    More,
    /// The handshake has ended, and plaintext may wait.
    Secured,
    /// Nothing to do without more bytes.
    Blocked,
    /// The peer has closed its side.
    Closed,
}

impl Tls {
    /// Waits for a `ClientHello`.
    pub fn accept(config: &Arc<ServerConfig>) -> Tls {
        let connection = UnbufferedServerConnection::new(config.rustls.clone())
            .expect("rustls refuses only fragment sizes, and we set none");
        Tls {
            connection: Box::new(connection),
            config: Some(config.clone()),
            exporter: None,
            early: Vec::new(),
            held: 0,
            peer_closed: false,
            broken: false,
        }
    }

    /// Takes what the peer sent: decrypts, hands the plaintext of each record to `plain`, and
    /// appends to `out` what the handshake answers.
    ///
    /// # Errors
    /// The connection is over; `out` is to be written before it is closed.
    pub fn open(
        &mut self,
        incoming: &mut [u8],
        plain: &mut impl FnMut(&[u8]),
        out: &mut Vec<u8>,
    ) -> Result<Opened, TlsError> {
        let opened = self.open_records(incoming, plain, out);
        match &opened {
            Ok(opened) => self.held = (incoming.len() - opened.consumed) as u32,
            Err(_) => self.broken = true,
        }
        opened
    }

    fn open_records(
        &mut self,
        incoming: &mut [u8],
        plain: &mut impl FnMut(&[u8]),
        out: &mut Vec<u8>,
    ) -> Result<Opened, TlsError> {
        if self.broken || incoming.len() < self.held as usize {
            return Err(TlsError::Broken);
        }
        if !self.early.is_empty() {
            plain(&std::mem::take(&mut self.early));
        }
        let mut consumed = 0;
        loop {
            let handshaking = self.is_handshaking();
            let (discard, step) = self.step(&mut incoming[consumed..], handshaking, plain, out);
            consumed += discard;
            let step = match step {
                Ok(step) => step,
                Err(error) => {
                    self.fetch_alerts(&mut incoming[consumed..], out);
                    return Err(TlsError::Protocol(error));
                }
            };
            let rest = &incoming[consumed..];
            match step {
                // RFC 8446 6.1: whatever stands behind close_notify is ignored.
                Step::Closed => {
                    return Ok(Opened {
                        consumed: incoming.len(),
                        secured: false,
                    });
                }
                Step::Blocked if !self.is_handshaking() && holds_record(rest) => {
                    return Err(TlsError::Fragmented);
                }
                Step::Blocked if rest.len() > RECORD_SIZE_MAX => return Err(TlsError::TooBig),
                Step::Blocked | Step::More | Step::Secured => {}
            }
            let secured = handshaking && !self.is_handshaking();
            // After the handshake, nothing read and nothing to say means nothing to ask rustls for.
            let spent =
                !handshaking && consumed == incoming.len() && !self.connection.wants_write();
            if secured || spent || !matches!(step, Step::More) {
                return Ok(Opened { consumed, secured });
            }
        }
    }

    /// One turn of rustls' machine: how many bytes it is done with, and what it came to.
    fn step(
        &mut self,
        incoming: &mut [u8],
        handshaking: bool,
        plain: &mut impl FnMut(&[u8]),
        out: &mut Vec<u8>,
    ) -> (usize, Result<Step, rustls::Error>) {
        let connection = &mut *self.connection;
        let (status, secret) = if handshaking {
            binding::overhear(move || connection.process_tls_records(incoming))
        } else {
            (connection.process_tls_records(incoming), None)
        };
        let UnbufferedStatus { mut discard, state } = status;
        let step = match state {
            Err(error) => return (discard, Err(error)),
            // Left alone, it comes again in the next call, when the stream knows the facts.
            Ok(ConnectionState::ReadTraffic(_)) if handshaking => Step::Secured,
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => {
                            discard += record.discard;
                            plain(record.payload);
                        }
                        Err(error) => return (discard, Err(error)),
                    }
                }
                Step::More
            }
            Ok(ConnectionState::EncodeTlsData(chunk)) => {
                append_chunk(chunk, out);
                Step::More
            }
            Ok(ConnectionState::TransmitTlsData(chunk)) => {
                chunk.done();
                Step::More
            }
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                self.peer_closed = true;
                Step::Closed
            }
            // Early data is never offered, and no other state is known.
            Ok(_) => Step::Blocked,
        };
        if let (Some(secret), Some(SupportedCipherSuite::Tls13(suite))) =
            (secret, self.connection.negotiated_cipher_suite())
        {
            self.exporter = binding::exporter(suite, &secret);
        }
        (discard, Ok(step))
    }

    /// Appends the alert that rustls queued when it failed. It must not look again at the bytes
    /// that it failed on: it would trip over its own first alert.
    fn fetch_alerts(&mut self, incoming: &mut [u8], out: &mut Vec<u8>) {
        let mut consumed = 0;
        for _ in 0..ALERTS_MAX {
            if !self.connection.wants_write() {
                return;
            }
            let status = self
                .connection
                .process_tls_records(&mut incoming[consumed..]);
            consumed += status.discard;
            match status.state {
                Ok(ConnectionState::EncodeTlsData(chunk)) => append_chunk(chunk, out),
                _ => return,
            }
        }
    }

    /// Encrypts `plain` and appends the records to `out`. Before the end of the handshake and on a
    /// broken connection nothing is appended: see [`Tls::is_broken`].
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        if plain.is_empty() {
            return;
        }
        let records = plain.len().div_ceil(FRAGMENT_SIZE_MAX);
        let size = plain.len() + records * RECORD_OVERHEAD_MAX;
        self.write(size, out, |traffic, space| traffic.encrypt(plain, space));
    }

    /// Appends our `close_notify` to `out`; nothing can be sealed after it.
    pub fn close_notify(&mut self, out: &mut Vec<u8>) {
        let size = 2 + RECORD_OVERHEAD_MAX;
        self.write(size, out, |traffic, space| {
            traffic.queue_close_notify(space)
        });
        self.broken = true;
    }

    /// Lets `encode` write into `size` bytes of `out`, or into as many more as it asks for.
    fn write(
        &mut self,
        size: usize,
        out: &mut Vec<u8>,
        mut encode: impl FnMut(&mut Traffic<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    ) {
        // A half-read ClientHello forbids to call rustls without its bytes.
        if self.broken || self.is_handshaking() {
            return;
        }
        let mut size = size;
        loop {
            let status = self.connection.process_tls_records(&mut []);
            match status.state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let start = out.len();
                    out.resize(start + size, 0);
                    match encode(&mut traffic, &mut out[start..]) {
                        Ok(written) => {
                            out.truncate(start + written);
                            return;
                        }
                        Err(EncryptError::InsufficientSize(needed))
                            if needed.required_size > size =>
                        {
                            out.truncate(start);
                            size = needed.required_size;
                        }
                        Err(_) => {
                            out.truncate(start);
                            self.broken = true;
                            return;
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(chunk)) => append_chunk(chunk, out),
                Ok(ConnectionState::TransmitTlsData(chunk)) => chunk.done(),
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        self.early.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::PeerClosed) => self.peer_closed = true,
                _ => {
                    self.broken = true;
                    return;
                }
            }
        }
    }

    /// Whether the handshake still goes on.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// What channel bindings need; asked once, when [`Opened::secured`] says so.
    pub fn facts(&mut self) -> TlsFacts {
        debug_assert!(
            !self.is_handshaking(),
            "the facts are known after the handshake"
        );
        TlsFacts {
            exporter: self.exporter.take(),
            server_end_point: self
                .config
                .take()
                .and_then(|own| own.server_end_point.clone()),
        }
    }

    /// The protocol agreed on by ALPN.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// Whether the peer said `close_notify`: the end of its bytes is the end of its stream.
    pub fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Whether nothing can be written any more: after an error or our `close_notify`.
    pub fn is_broken(&self) -> bool {
        self.broken
    }
}

type Traffic<'c> = WriteTraffic<'c, ServerConnectionData>;

/// Appends one handshake record or alert, as rustls made it.
fn append_chunk(mut chunk: EncodeTlsData<'_, ServerConnectionData>, out: &mut Vec<u8>) {
    let start = out.len();
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
        chunk.encode(&mut [])
    {
        out.resize(start + required_size, 0);
        let written = chunk.encode(&mut out[start..]).unwrap_or(0);
        out.truncate(start + written);
    }
}

/// Whether `bytes` begin with a whole record.
fn holds_record(bytes: &[u8]) -> bool {
    match bytes {
        [_, _, _, high, low, body @ ..] => {
            body.len() >= usize::from(u16::from_be_bytes([*high, *low]))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
