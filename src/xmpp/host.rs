//! The one seam between the protocol and the world: every effect of a [`crate::Shard`] is a call of
//! [`Host`], every input one of the shard's `on_*` methods.

use crate::parcel::{Buffer, Parcel};
use crate::port::StoreOp;
use crate::stream::StreamState;
use crate::stream::sasl::DeriveJob;
use crate::xep::upload::SlotRequest;

/// A shard of this process, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

/// A connection on this shard. `index` is small and reused, `generation` tells its users apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// The slot.
    pub index: u32,
    /// Which user of the slot.
    pub generation: u32,
}

/// Microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This moment, `ms` milliseconds later.
    pub fn plus_ms(self, ms: u64) -> Timestamp {
        Timestamp(self.0 + ms * 1000)
    }

    /// This moment, `s` seconds earlier, or the first one.
    pub fn minus_s(self, s: u64) -> Timestamp {
        Timestamp(self.0.saturating_sub(s.saturating_mul(1_000_000)))
    }
}

/// Who asked for something that is answered by an event. Opaque to the host; unique on its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// How a connection came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamKind {
    /// A client on the STARTTLS port: plain bytes at first.
    C2s,
    /// A client on the direct TLS port; `Shard::on_secured` comes before its first bytes.
    C2sDirectTls,
    /// A client on a port for the web; `Shard::on_upgraded` comes before its first bytes.
    C2sWeb,
    /// An external component (XEP-0114), in clear.
    Component,
}

/// What TLS tells the stream once the handshake is done (RFC 9266, RFC 5929).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// The 32 bytes of `tls-exporter`: on TLS 1.3, and on 1.2 with the extended master secret.
    pub exporter: Option<[u8; 32]>,
    /// The hash of `tls-server-end-point`: of our certificate, by its signature's hash.
    pub server_end_point: Option<Box<[u8]>>,
}

/// The world as one shard sees it.
pub trait Host {
    /// The time of this turn; it never goes back.
    fn now(&self) -> Timestamp;

    /// What clocks show in this turn, for times that others are told: it goes with the system's, to
    /// and fro.
    fn wall(&self) -> Timestamp;

    /// 64 bits that nobody can predict (in the simulation: from the seed).
    fn random(&mut self) -> u64;

    /// What will be written to `conn` at the end of the turn: append to it, and only that. For a
    /// connection that is gone it is a scratch buffer that nobody reads.
    fn output(&mut self, conn: ConnId) -> &mut Vec<u8>;

    /// Whether so much waits to be written to `conn` that the rest of its input is to wait, too.
    fn is_choked(&mut self, conn: ConnId) -> bool;

    /// Asks for `Shard::on_written` as soon as the socket has taken all that was output to `conn`.
    fn tell_written(&mut self, conn: ConnId);

    /// Writes what is in the output, in bounded time, then closes. No event follows,
    /// `Shard::on_close` neither.
    fn close(&mut self, conn: ConnId);

    /// Stops feeding `conn` its bytes until [`Host::resume`]; `on_bytes` returns at once after it.
    fn pause(&mut self, conn: ConnId);

    /// Feeds `conn` again, starting with what was not consumed; calls `on_bytes` after this event.
    fn resume(&mut self, conn: ConnId);

    /// Flushes the output in clear, drops every plain byte behind the last consumed one, and starts
    /// the handshake; answered by `Shard::on_secured`, or by `on_close`.
    fn start_tls(&mut self, conn: ConnId);

    /// Hands a connection with empty output to another shard together with its undigested bytes;
    /// there `Shard::on_adopt` answers. The id is dead here from now on.
    fn move_to(&mut self, conn: ConnId, to: ShardId, state: Box<StreamState>);

    /// Sends a parcel to a sibling (never to this shard). Parcels between two shards keep their
    /// order.
    fn forward(&mut self, to: ShardId, parcel: Parcel);

    /// An empty buffer from this shard's pool.
    fn buffer(&mut self) -> Buffer;

    /// Gives a buffer back to the pool of the shard that took it.
    fn recycle(&mut self, home: ShardId, buffer: Buffer);

    /// Asks storage; answered by `Shard::on_stored`.
    fn store(&mut self, ticket: Ticket, op: StoreOp);

    /// Runs PBKDF2 away from the shards; answered by `Shard::on_derived`, or, where too many wait
    /// already, refused by `false`.
    fn derive(&mut self, ticket: Ticket, job: Box<DeriveJob>) -> bool;

    /// Asks the keeper of files for a slot (XEP-0363); answered by `Shard::on_slot`.
    fn slot(&mut self, ticket: Ticket, request: Box<SlotRequest>);

    /// Has the server go down at `at`; `false` where it is going to already.
    fn shut_down(&mut self, at: Timestamp) -> bool;

    /// Whether [`Host::shut_down`] was asked for already.
    fn is_going_down(&self) -> bool;

    /// Asks for `Shard::on_timer` at `at` or soon after. One wish at a time: a new one replaces it.
    fn wake_at(&mut self, at: Timestamp);
}

/// Bytes that nobody can predict: a salt, or a nonce.
pub(crate) fn random_bytes<const SIZE: usize>(host: &mut impl Host) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    for chunk in bytes.chunks_mut(size_of::<u64>()) {
        chunk.copy_from_slice(&host.random().to_le_bytes()[..chunk.len()]);
    }
    bytes
}
