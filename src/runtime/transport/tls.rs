//! TLS of one connection without I/O: bytes in, plaintext and bytes out.
//!
//! rustls makes the handshake and all keys. The records of TLS 1.3 are then opened and sealed by a
//! layer of our own with the same primitives, which costs a third (decision 0006).

mod machine;

use super::binding;
use machine::Machine;
use ring::records::{FRAGMENT_SIZE_MAX, RECORD_HEADER_SIZE, RecordError, Records};
use rustls::CipherSuite;
use rustls::server::{NoServerSessionStorage, ServerConnectionData};
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::sync::Arc;
use xmpp::TlsFacts;

/// Bytes of a TLS record at most (RFC 5246 6.2.3): so much may wait for its end. It bounds a
/// `ClientHello` too, which is a tenth of it.
pub const RECORD_SIZE_MAX: usize = RECORD_HEADER_SIZE + (1 << 14) + 2048;

/// What a record adds to them at most: header, nonce of TLS 1.2, content type of 1.3, tag.
const RECORD_OVERHEAD_MAX: usize = RECORD_HEADER_SIZE + 8 + 1 + 16;

/// The protocol of clients on the direct TLS port (XEP-0368 5).
const ALPN_CLIENT: &[u8] = b"xmpp-client";

/// The protocol of browsers; WebSocket over HTTP/2 is not spoken.
const ALPN_WEB: &[u8] = b"http/1.1";

/// Our side of all handshakes on one kind of port.
pub struct ServerConfig {
    rustls: Arc<rustls::ServerConfig>,
    server_end_point: Option<Box<[u8]>>,
}

/// The kinds of port with the same certificate.
#[derive(Clone, Debug)]
pub struct ServerConfigs {
    /// For STARTTLS, where no ALPN is needed.
    pub starttls: Arc<ServerConfig>,
    /// For direct TLS: a client that names protocols by ALPN must name ours.
    pub direct: Arc<ServerConfig>,
    /// For the web, by the same rule.
    pub web: Arc<ServerConfig>,
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
        // For the record layer of our own; nothing else takes them.
        config.enable_secret_extraction = true;
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
            web: with_alpn(vec![ALPN_WEB.to_vec()]),
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

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> TlsError {
        TlsError::Protocol(error)
    }
}

impl From<RecordError> for TlsError {
    fn from(error: RecordError) -> TlsError {
        match error {
            RecordError::Protocol(error) => TlsError::Protocol(error),
            RecordError::Fragmented => TlsError::Fragmented,
        }
    }
}

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

/// The server's side of one TLS connection. Idle on TLS 1.3, it is 1.3 KB with
/// all keys, and what rustls needs to make the next ones. All that each record asks for beside a
/// key stands in the first line of it, which so can be fetched alone and ahead of the keys.
#[repr(C, align(64))]
pub struct Tls {
    /// Bytes that the last `open` left over.
    held: u32,
    peer_closed: bool,
    broken: bool,
    /// From the end of the handshake until they are taken.
    facts: Option<Box<TlsFacts>>,
    layer: Layer,
}

/// What opens and seals.
#[expect(
    clippy::large_enum_variant,
    reason = "almost all connections are of the large kind, which is to be near"
)]
#[repr(u8)]
enum Layer {
    /// rustls, which still shakes hands or speaks TLS 1.2.
    Machine(Box<Machine>),
    /// Our own record layer.
    Records(Records<ServerConnectionData>),
    /// Nothing: the connection is broken.
    Over,
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

impl Tls {
    /// Waits for a `ClientHello`.
    pub fn accept(config: &Arc<ServerConfig>) -> Tls {
        Tls {
            layer: Layer::Machine(Box::new(Machine::accept(config))),
            facts: None,
            held: 0,
            peer_closed: false,
            broken: false,
        }
    }

    /// Has come from memory what each record asks for beside a key.
    pub(crate) fn prefetch(&self) {
        ring::prefetch(&self.held);
    }

    /// Has what [`Tls::open`] will read come from memory; costs next to nothing, for it does not
    /// look whether there are keys where they would be.
    pub(crate) fn prefetch_opening(&self) {
        Records::prefetch_opening(self.records_place());
    }

    /// As [`Tls::prefetch_opening`], for [`Tls::seal`].
    pub(crate) fn prefetch_sealing(&self) {
        Records::prefetch_sealing(self.records_place());
    }

    /// Where the record layer is, if there is one.
    fn records_place(&self) -> *const Records<ServerConnectionData> {
        // The reference for `repr(u8)`: a union of structs of C that begin with the discriminant.
        let layer = std::ptr::from_ref(&self.layer).cast::<u8>();
        layer
            .wrapping_add(align_of::<Records<ServerConnectionData>>())
            .cast()
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
        if self.broken || incoming.len() < self.held as usize {
            self.broken = true;
            return Err(TlsError::Broken);
        }
        let opened = match &mut self.layer {
            Layer::Records(records) => match records.open(incoming, plain, out) {
                Ok(progress) => {
                    self.peer_closed |= progress.closed;
                    Ok(Opened {
                        // RFC 8446 6.1: whatever stands behind close_notify is ignored.
                        consumed: match progress.closed {
                            true => incoming.len(),
                            false => progress.consumed,
                        },
                        secured: false,
                    })
                }
                Err(error) => Err(error.into()),
            },
            Layer::Machine(machine) => {
                let opened = machine.open(incoming, plain, out);
                self.after_step(&opened);
                opened
            }
            Layer::Over => Err(TlsError::Broken),
        };
        match &opened {
            Ok(opened) => self.held = (incoming.len() - opened.consumed) as u32,
            Err(_) => self.broken = true,
        }
        opened
    }

    /// Notes what rustls came to, and takes the records over where it is done.
    fn after_step(&mut self, opened: &Result<Opened, TlsError>) {
        let Layer::Machine(machine) = &self.layer else {
            return;
        };
        self.peer_closed |= machine.peer_closed;
        let Ok(opened) = opened else {
            return;
        };
        if opened.secured {
            self.facts = Some(Box::new(machine.facts()));
        } else if machine.is_spent()
            && let Layer::Machine(machine) = std::mem::replace(&mut self.layer, Layer::Over)
        {
            match machine.into_records() {
                Ok(records) => self.layer = Layer::Records(records),
                Err(error) => {
                    tracing::error!(%error, "the records of a connection could not be taken over");
                    self.broken = true;
                }
            }
        }
    }

    /// Encrypts `plain` and appends the records to `out`. Before the end of the handshake and on a
    /// broken connection nothing is appended: see [`Tls::is_broken`].
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        if plain.is_empty() || self.broken {
            return;
        }
        match &mut self.layer {
            Layer::Records(records) => self.broken = records.seal(plain, out).is_err(),
            Layer::Machine(machine) => {
                machine.seal(plain, out);
                self.broken = machine.broken;
                self.peer_closed |= machine.peer_closed;
            }
            Layer::Over => self.broken = true,
        }
    }

    /// Appends our `close_notify` to `out`; nothing can be sealed after it.
    pub fn close_notify(&mut self, out: &mut Vec<u8>) {
        if !self.broken {
            match &mut self.layer {
                // What cannot be said is said by the end of the connection.
                Layer::Records(records) => records.close_notify(out).unwrap_or_default(),
                Layer::Machine(machine) => machine.close_notify(out),
                Layer::Over => {}
            }
        }
        self.broken = true;
    }

    /// Whether the handshake still goes on.
    pub fn is_handshaking(&self) -> bool {
        matches!(&self.layer, Layer::Machine(machine) if machine.is_handshaking())
    }

    /// What channel bindings need; asked once, when [`Opened::secured`] says so.
    pub fn facts(&mut self) -> TlsFacts {
        debug_assert!(self.facts.is_some(), "asked once, after the handshake");
        self.facts.take().map(|facts| *facts).unwrap_or_default()
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

#[cfg(test)]
mod tests;
