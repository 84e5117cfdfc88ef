//! Shards driven directly, with as little world as they can do with: for counting what a stanza
//! costs. Storage and derivation answer at once, rings and outputs keep their memory.

use crate::client::header;
use stanza::jid::BareJid;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use store::Memory;
use xmpp::parcel::{Buffer, Parcel};
use xmpp::port::{RosterItem, Store as _, StoreOp, StoreReply, Subscription};
use xmpp::router::Router;
use xmpp::stream::StreamState;
use xmpp::stream::sasl::{DeriveJob, SALT_SIZE, derive_credentials};
use xmpp::xep::upload::SlotRequest;
use xmpp::{ConnId, Host, Settings, Shard, ShardId, StreamKind, Ticket, Timestamp};

/// Bytes that outputs and pooled buffers have room for from the start.
const BUFFER_SIZE: usize = 16 << 10;

/// Who shares a bound connection with nobody: a shard and a place on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    shard: usize,
    conn: ConnId,
}

/// Some shards and nothing else.
pub struct Direct {
    nodes: Vec<(Shard, Bench)>,
    disk: Memory,
    router: Router,
    seats: u32,
}

/// The host of one shard: it keeps what the shard says.
struct Bench {
    id: ShardId,
    outputs: Vec<Vec<u8>>,
    dirty: Vec<u32>,
    pool: Vec<Buffer>,
    rings: Vec<VecDeque<Parcel>>,
    returned: Vec<(ShardId, Buffer)>,
    stores: Vec<(Ticket, StoreOp)>,
    derives: Vec<(Ticket, Box<DeriveJob>)>,
    moves: Vec<(ConnId, ShardId, Box<StreamState>)>,
    random: crate::Random,
}

impl Host for Bench {
    fn now(&self) -> Timestamp {
        Timestamp(1_790_000_000_000_000)
    }

    fn wall(&self) -> Timestamp {
        self.now()
    }

    fn random(&mut self) -> u64 {
        self.random.bits()
    }

    fn output(&mut self, conn: ConnId) -> &mut Vec<u8> {
        let output = &mut self.outputs[conn.index as usize];
        if output.is_empty() {
            self.dirty.push(conn.index);
        }
        output
    }

    fn is_choked(&mut self, _conn: ConnId) -> bool {
        false
    }

    fn close(&mut self, conn: ConnId) {
        panic!("{conn:?} was closed");
    }

    fn tell_written(&mut self, _conn: ConnId) {}

    fn pause(&mut self, _conn: ConnId) {}

    fn resume(&mut self, _conn: ConnId) {}

    fn start_tls(&mut self, _conn: ConnId) {}

    fn move_to(&mut self, conn: ConnId, to: ShardId, state: Box<StreamState>) {
        self.moves.push((conn, to, state));
    }

    fn forward(&mut self, to: ShardId, parcel: Parcel) {
        self.rings[usize::from(to.0)].push_back(parcel);
    }

    fn buffer(&mut self) -> Buffer {
        self.pool
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(BUFFER_SIZE))
    }

    fn recycle(&mut self, home: ShardId, mut buffer: Buffer) {
        buffer.clear();
        if home == self.id {
            self.pool.push(buffer);
        } else {
            self.returned.push((home, buffer));
        }
    }

    fn store(&mut self, ticket: Ticket, op: StoreOp) {
        self.stores.push((ticket, op));
    }

    fn derive(&mut self, ticket: Ticket, job: Box<DeriveJob>) -> bool {
        self.derives.push((ticket, job));
        true
    }

    fn slot(&mut self, _ticket: Ticket, request: Box<SlotRequest>) {
        panic!("nobody uploads, but {request:?}");
    }

    fn shut_down(&mut self, _at: Timestamp) -> bool {
        false
    }

    fn is_going_down(&self) -> bool {
        true
    }

    fn wake_at(&mut self, _at: Timestamp) {}
}

impl Direct {
    /// As many shards as told, for `example.org`.
    pub fn new(shards: u16) -> Direct {
        let settings = Arc::new(Settings {
            shards,
            ..Settings::for_tests("example.org")
        });
        let node = |index| {
            let id = ShardId(index);
            let bench = Bench {
                id,
                outputs: Vec::new(),
                dirty: Vec::with_capacity(1024),
                pool: Vec::with_capacity(64),
                rings: (0..shards).map(|_| VecDeque::with_capacity(1024)).collect(),
                returned: Vec::with_capacity(64),
                stores: Vec::new(),
                derives: Vec::new(),
                moves: Vec::new(),
                random: crate::Random::new(u64::from(index)),
            };
            (Shard::new(id, settings.clone(), Timestamp(0)), bench)
        };
        Direct {
            nodes: (0..shards).map(node).collect(),
            disk: Memory::new(),
            router: Router::new("example.org", shards, ShardId(0)),
            seats: 0,
        }
    }

    /// A name that makes an account of this number at home on this shard.
    pub fn name(&self, shard: u16, number: usize) -> String {
        let names = (0..).map(|salt| format!("user{number}x{salt}"));
        let is_home =
            |name: &String| self.router.home(&format!("{name}@example.org")) == ShardId(shard);
        names
            .into_iter()
            .find(is_home)
            .expect("every shard is home to some name")
    }

    /// Makes an account whose contacts see it and are seen by it.
    pub fn account(&mut self, name: &str, contacts: &[String]) {
        let jid = |name: &str| {
            BareJid::parse(&format!("{name}@example.org")).expect("a test's name is good")
        };
        let keys = derive_credentials("secret", &[[7; SALT_SIZE]; 3], 1).expect("a password");
        let credentials = Box::new(keys);
        self.perform(StoreOp::CreateAccount {
            account: jid(name),
            credentials,
        });
        for contact in contacts {
            let mut item = RosterItem::new(jid(contact));
            item.subscription = Subscription::Both;
            item.listed = true;
            self.perform(StoreOp::PutRosterItem {
                account: jid(name),
                item: Box::new(item),
            });
        }
    }

    fn perform(&mut self, op: StoreOp) -> StoreReply {
        let mut replies = Vec::new();
        self.disk.perform(&mut std::iter::once(op), &mut replies);
        replies.pop().expect("storage answers every request")
    }

    /// Logs an account in, with the resource `r`.
    ///
    /// # Panics
    /// If it does not get in.
    pub fn login(&mut self, name: &str) -> Seat {
        let shard = usize::from(self.router.home(&format!("{name}@example.org")).0);
        let conn = ConnId {
            index: self.seats,
            generation: 1,
        };
        self.seats += 1;
        for (_, bench) in &mut self.nodes {
            bench.outputs.push(Vec::with_capacity(BUFFER_SIZE));
        }
        let seat = Seat { shard, conn };
        let (core, bench) = &mut self.nodes[shard];
        core.on_open(
            bench,
            conn,
            StreamKind::C2s,
            IpAddr::V4(Ipv4Addr::LOCALHOST),
        );
        let mut bytes = header("example.org");
        let plain = crate::scram::plain(name, "secret");
        bytes.extend(
            format!(
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>"
            )
            .into_bytes(),
        );
        self.say(seat, &bytes);
        let mut bytes = header("example.org");
        bytes.extend(
            b"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
              <resource>r</resource></bind></iq>",
        );
        self.say(seat, &bytes);
        assert!(
            self.output(seat).ends_with(b"</jid></bind></iq>"),
            "{name} did not get in"
        );
        self.end_turn();
        seat
    }

    /// Feeds bytes and settles everything, but keeps what was written until [`Direct::end_turn`].
    pub fn say(&mut self, seat: Seat, bytes: &[u8]) {
        let (core, bench) = &mut self.nodes[seat.shard];
        let mut consumed = 0;
        while consumed < bytes.len() {
            core.admit_bulk();
            let progress = core.on_bytes(bench, seat.conn, &bytes[consumed..]);
            consumed += progress.consumed;
            if !progress.again {
                break;
            }
        }
        assert_eq!(consumed, bytes.len(), "complete stanzas are consumed");
        self.settle();
    }

    /// Lets shards exchange parcels, and storage answer, until all is quiet.
    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for shard in 0..self.nodes.len() {
                quiet &= !self.answer(shard);
                for sibling in 0..self.nodes.len() {
                    while let Some(parcel) = self.nodes[sibling].1.rings[shard].pop_front() {
                        quiet = false;
                        let (core, bench) = &mut self.nodes[shard];
                        core.on_parcel(bench, ShardId(sibling as u16), parcel);
                    }
                }
                let (core, bench) = &mut self.nodes[shard];
                core.on_turn_end(bench);
                while let Some((home, buffer)) = self.nodes[shard].1.returned.pop() {
                    self.nodes[usize::from(home.0)].1.pool.push(buffer);
                }
            }
            if quiet {
                return;
            }
        }
    }

    /// Answers what a shard asked of storage and derivation; says whether there was anything.
    fn answer(&mut self, shard: usize) -> bool {
        let mut any = false;
        while let Some((ticket, op)) = self.nodes[shard].1.stores.pop() {
            any = true;
            let reply = self.perform(op);
            let (core, bench) = &mut self.nodes[shard];
            core.on_stored(bench, ticket, reply);
        }
        let (core, bench) = &mut self.nodes[shard];
        while let Some((ticket, job)) = bench.derives.pop() {
            any = true;
            core.on_derived(bench, ticket, job.run());
        }
        assert!(
            bench.moves.is_empty(),
            "clients connect to their home shard here"
        );
        any
    }

    /// What was written for a client since the last end of a turn.
    pub fn output(&self, seat: Seat) -> &[u8] {
        &self.nodes[seat.shard].1.outputs[seat.conn.index as usize]
    }

    /// Forgets what was written, as a flush does.
    pub fn end_turn(&mut self) {
        for (_, bench) in &mut self.nodes {
            for index in bench.dirty.drain(..) {
                bench.outputs[index as usize].clear();
            }
        }
    }
}
