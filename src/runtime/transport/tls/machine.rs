//! rustls' own connection, through the handshake; for TLS 1.2 also behind it.
//!
//! Invariant: rustls' unbuffered connection is never shown less than what it still refers to; it
//! would panic. So the rest of [`Machine::open`] is offered again, and a fragment that rustls keeps
//! referring to after the handshake ends the connection.

use super::{
    FRAGMENT_SIZE_MAX, Opened, RECORD_OVERHEAD_MAX, RECORD_SIZE_MAX, ServerConfig, TlsError,
    binding,
};
use ring::records::{Records, holds_record};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedStatus, WriteTraffic,
};
use rustls::{ProtocolVersion, SupportedCipherSuite};
use std::sync::Arc;
use xmpp::TlsFacts;

/// Alerts that are fetched after an error; rustls queues one.
const ALERTS_MAX: usize = 4;

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

/// A connection that rustls drives.
pub(super) struct Machine {
    connection: UnbufferedServerConnection,
    config: Arc<ServerConfig>,
    exporter: Option<[u8; 32]>,
    /// Plaintext that came to light while something was sealed.
    early: Vec<u8>,
    pub(super) peer_closed: bool,
    /// Nothing can be written any more.
    pub(super) broken: bool,
}

impl Machine {
    /// Waits for a `ClientHello`.
    pub(super) fn accept(config: &Arc<ServerConfig>) -> Machine {
        let connection = UnbufferedServerConnection::new(config.rustls.clone())
            .expect("rustls refuses only fragment sizes, and we set none");
        Machine {
            connection,
            config: config.clone(),
            exporter: None,
            early: Vec::new(),
            peer_closed: false,
            broken: false,
        }
    }

    /// Takes what the peer sent, as [`super::Tls::open`] says.
    pub(super) fn open(
        &mut self,
        incoming: &mut [u8],
        plain: &mut impl FnMut(&[u8]),
        out: &mut Vec<u8>,
    ) -> Result<Opened, TlsError> {
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
            // After the handshake, nothing read and nothing to say means nothing to ask rustls for;
            // but TLS 1.3 goes on until its records can be taken over.
            let spent = !handshaking
                && !self.is_tls13()
                && consumed == incoming.len()
                && !self.connection.wants_write();
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
        let connection = &mut self.connection;
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

    /// As [`super::Tls::seal`].
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let records = plain.len().div_ceil(FRAGMENT_SIZE_MAX);
        let size = plain.len() + records * RECORD_OVERHEAD_MAX;
        self.write(size, out, |traffic, space| traffic.encrypt(plain, space));
    }

    /// As [`super::Tls::close_notify`].
    pub(super) fn close_notify(&mut self, out: &mut Vec<u8>) {
        let size = 2 + RECORD_OVERHEAD_MAX;
        self.write(size, out, |traffic, space| {
            traffic.queue_close_notify(space)
        });
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
    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// What channel bindings need.
    pub(super) fn facts(&self) -> TlsFacts {
        TlsFacts {
            exporter: self.exporter,
            server_end_point: self.config.server_end_point.clone(),
        }
    }

    fn is_tls13(&self) -> bool {
        self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// Whether [`Machine::into_records`] may be called: TLS 1.3 after its handshake, and rustls has
    /// nothing left to say or to hand over.
    pub(super) fn is_spent(&self) -> bool {
        self.is_tls13()
            && !self.is_handshaking()
            && !self.connection.wants_write()
            && self.early.is_empty()
            && !self.peer_closed
            && !self.broken
    }

    /// Takes the records over from rustls.
    ///
    /// # Errors
    /// What rustls has against it.
    pub(super) fn into_records(self) -> Result<Records<ServerConnectionData>, rustls::Error> {
        let (secrets, keys) = self.connection.dangerous_into_kernel_connection()?;
        Records::new(&secrets, keys)
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
