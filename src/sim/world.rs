//! The world: shards, clients, wires, disk and clock, one event after another.
//!
//! Invariants: events happen in the order of their times; a wire and a ring keep the order of what
//! is on them; a full ring neither drops nor blocks; while a parcel waits outside its ring, or a
//! request outside what storage takes, nothing new is admitted; every buffer goes home.

mod check;
mod crash;
mod turn;
mod wire;

use crate::actors::{Actor, Leave, Reconnection, Scene};
use crate::asked::Asked;
use crate::client::{Client, Login, Tls};
use crate::faults::Faults;
use crate::host::Side;
use crate::ledger::Ledger;
use crate::random::Random;
use crate::trace::Trace;
use stanza::jid::BareJid;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use store::Memory;
use wire::Wire;
use xmpp::port::{Credentials, Store as _, StoreOp, StoreReply};
use xmpp::stream::StreamState;
use xmpp::stream::sasl::{DeriveJob, Derived, derive_credentials};
use xmpp::xep::upload::SlotAnswer;
use xmpp::{ConnId, Settings, Shard, ShardId, StreamKind, Ticket, Timestamp};

pub use crash::Deaths;

/// When the simulated world begins: microseconds since 1970, some day in 2026.
const BEGINNING_US: u64 = 1_790_000_000_000_000;

/// Events in one run; more means that something goes round in circles.
const EVENTS_MAX: u64 = 20_000_000;

/// A client, which is also the wire that it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub usize);

/// What happens at some time.
enum Event {
    Turn(usize),
    ToServer {
        wire: usize,
        secure: bool,
        bytes: Vec<u8>,
    },
    Handshake {
        wire: usize,
    },
    ServerEof {
        wire: usize,
    },
    Reset {
        wire: usize,
    },
    ToClient {
        wire: usize,
        bytes: Vec<u8>,
    },
    ClientEof {
        wire: usize,
    },
    Disk {
        shard: usize,
        ticket: Ticket,
        op: StoreOp,
    },
    Input {
        shard: usize,
        input: Input,
    },
    Derive {
        shard: usize,
        ticket: Ticket,
        job: Box<DeriveJob>,
    },
    Adopt {
        wire: usize,
        shard: usize,
        state: Box<StreamState>,
    },
    Wake {
        client: usize,
    },
    Connect {
        login: Login,
        actor: Option<Box<dyn Actor>>,
    },
}

/// What waits for a shard's next turn, beside bytes and parcels.
enum Input {
    Open {
        wire: usize,
        kind: StreamKind,
    },
    Secured {
        conn: ConnId,
        exporter: [u8; 32],
    },
    Written {
        conn: ConnId,
    },
    Closed {
        conn: ConnId,
    },
    Stored {
        ticket: Ticket,
        reply: StoreReply,
    },
    Derived {
        ticket: Ticket,
        derived: Derived,
    },
    Slot {
        ticket: Ticket,
        answer: SlotAnswer,
    },
    Adopt {
        wire: usize,
        state: Box<StreamState>,
    },
    Delete {
        account: BareJid,
        answer: Sender<StoreReply>,
    },
    NewKeys {
        account: BareJid,
        answer: Sender<StoreReply>,
    },
    ShutdownNear,
    Shutdown,
}

/// One shard with what is around it.
struct Node {
    shard: Shard,
    side: Side,
    inbox: VecDeque<Input>,
    /// What storage and derivation answered: taken whatever else waits.
    answers: VecDeque<Input>,
    /// A turn is on the agenda.
    awake: bool,
    /// When the last storage request, and the last answer, happens: their order is kept.
    disk_at: u64,
    answer_at: u64,
    /// After how many more steps it panics.
    dies_in: Option<u64>,
}

struct Entry {
    at: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.order == other.order
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// The simulated world.
pub struct World {
    /// What the clients did and saw.
    pub ledger: Ledger,
    /// Every event so far, as a hash.
    pub trace: Trace,
    /// How rough the world is.
    pub faults: Faults,
    /// Where a client that connects is.
    pub peer: IpAddr,
    seed: u64,
    now: u64,
    random: Random,
    settings: Arc<Settings>,
    nodes: Vec<Node>,
    wires: Vec<Wire>,
    clients: Vec<Client>,
    actors: Vec<Option<Box<dyn Actor>>>,
    disk: Memory,
    /// Writes that were refused and may be there.
    doubted: Vec<StoreOp>,
    agenda: BinaryHeap<Reverse<Entry>>,
    order: u64,
    /// The most bytes that ever waited in the server for one client.
    unsent_peak: usize,
    /// The most that one turn ever wrote for one client.
    output_peak: usize,
    /// The most requests that ever waited on one shard.
    unanswered_peak: usize,
    moves: usize,
    derivations: usize,
    session_writes: usize,
    /// What costs storage much.
    pub asked: Asked,
    deaths: Deaths,
    /// Shards that have not heard yet that all will end.
    unprepared: usize,
}

fn nodes(
    settings: &Arc<Settings>,
    random: &mut Random,
    faults: &Faults,
    started: u64,
) -> Vec<Node> {
    let end = Arc::new(OnceLock::new());
    let node = |index| {
        let id = ShardId(index);
        Node {
            shard: Shard::new(id, settings.clone(), Timestamp(started)),
            side: Side::new(id, settings.shards, random.fork(), faults, end.clone()),
            inbox: VecDeque::new(),
            answers: VecDeque::new(),
            awake: false,
            disk_at: 0,
            answer_at: 0,
            dies_in: None,
        }
    };
    (0..settings.shards).map(node).collect()
}

impl World {
    /// A world of `settings.shards` shards.
    pub fn new(seed: u64, settings: Settings, faults: Faults) -> World {
        let mut random = Random::new(seed);
        let settings = Arc::new(settings);
        let nodes = nodes(&settings, &mut random, &faults, BEGINNING_US);
        World {
            ledger: Ledger::default(),
            trace: Trace::new(),
            faults,
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            seed,
            now: BEGINNING_US,
            random,
            settings,
            nodes,
            wires: Vec::new(),
            clients: Vec::new(),
            actors: Vec::new(),
            disk: Memory::new(),
            doubted: Vec::new(),
            agenda: BinaryHeap::new(),
            order: 0,
            unsent_peak: 0,
            output_peak: 0,
            unanswered_peak: 0,
            moves: 0,
            derivations: 0,
            session_writes: 0,
            asked: Asked::default(),
            deaths: Deaths::default(),
            unprepared: 0,
        }
    }

    /// The seed, for messages of failed tests.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The time, in microseconds since 1970.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Makes an account in storage, at once.
    ///
    /// # Panics
    /// If the address or the password cannot be used.
    pub fn add_account(&mut self, jid: &str, password: &str) {
        let (account, credentials) = self.account_with(jid, password);
        self.perform(StoreOp::CreateAccount {
            account,
            credentials,
        });
    }

    /// An administrator gives an account a new password: storage has it at once. The receiver
    /// gets an answer when its shard has heard of it.
    ///
    /// # Panics
    /// If the address or the password cannot be used.
    pub fn set_password(&mut self, jid: &str, password: &str) -> Receiver<StoreReply> {
        let (account, credentials) = self.account_with(jid, password);
        self.perform(StoreOp::SetCredentials {
            account: account.clone(),
            credentials,
            keeps: None,
        });
        self.tell_new_keys(account)
    }

    fn account_with(&self, jid: &str, password: &str) -> (BareJid, Box<Credentials>) {
        let account = BareJid::parse(jid).expect("a test's account is good");
        let salts = [[7; xmpp::stream::sasl::SALT_SIZE]; 3];
        let rounds = self.settings.scram_iterations;
        let credentials = derive_credentials(password, &salts, rounds).expect("a good password");
        (account, Box::new(credentials))
    }

    fn home(&self, account: &BareJid) -> usize {
        let router =
            xmpp::router::Router::new(&self.settings.domain, self.settings.shards, ShardId(0));
        usize::from(router.home(account.as_str()).0)
    }

    /// Has storage do something at once, beside the server.
    pub fn perform(&mut self, op: StoreOp) -> StoreReply {
        let mut replies = Vec::new();
        self.disk.perform(&mut std::iter::once(op), &mut replies);
        replies.pop().expect("storage answers every request")
    }

    /// When a command has the server go down, in microseconds.
    pub fn ends_at(&self) -> Option<u64> {
        let end = self.nodes.first()?.side.end.get();
        end.map(|end| end.0)
    }

    /// An administrator has the server delete an account; what it answers comes to the receiver.
    ///
    /// # Panics
    /// If the address cannot be used.
    pub fn delete(&mut self, jid: &str) -> Receiver<StoreReply> {
        let account = BareJid::parse(jid).expect("a test's account is good");
        let home = self.home(&account);
        let (answer, outcome) = mpsc::channel();
        self.input(home, Input::Delete { account, answer });
        outcome
    }

    /// A client that a script speaks for; its connection opens now.
    pub fn connect_raw(&mut self) -> ClientId {
        self.connect_with(None, StreamKind::C2s, None)
    }

    /// As [`World::connect_raw`], with TLS from the first byte.
    pub fn connect_raw_by_tls(&mut self) -> ClientId {
        self.connect_with(None, StreamKind::C2sDirectTls, None)
    }

    /// As [`World::connect_raw`], for a component.
    pub fn connect_raw_as_component(&mut self) -> ClientId {
        self.connect_with(None, StreamKind::Component, None)
    }

    /// As [`World::connect_raw`], over the web: what it says are messages ([`World::say`]), which
    /// come by TLS or in clear for good.
    pub fn connect_raw_by_web(&mut self, secure: bool) -> ClientId {
        let client = self.connect_with(None, StreamKind::C2sWeb, None);
        self.clients[client.0].secure = secure;
        client
    }

    /// Sends a message of a client of the web, and lets the world come to rest.
    pub fn say(&mut self, id: ClientId, message: &str) {
        let mut stream = Vec::new();
        stanza::framing::unframe(message.as_bytes(), &mut stream);
        self.send_bytes(id, &stream);
        self.run();
    }

    /// A client that logs in.
    pub fn connect(&mut self, login: Login) -> ClientId {
        self.connect_actor(login, None)
    }

    /// A client that logs in and then acts by itself.
    pub fn connect_actor(&mut self, login: Login, actor: Option<Box<dyn Actor>>) -> ClientId {
        let kind = match login.tls {
            Tls::Direct => StreamKind::C2sDirectTls,
            _ => StreamKind::C2s,
        };
        self.connect_with(Some(login), kind, actor)
    }

    fn connect_with(
        &mut self,
        login: Option<Login>,
        kind: StreamKind,
        actor: Option<Box<dyn Actor>>,
    ) -> ClientId {
        let wire = self.wires.len();
        let mut exporter = [0; 32];
        exporter[..8].copy_from_slice(&self.random.bits().to_le_bytes());
        let direct = matches!(kind, StreamKind::C2sDirectTls);
        let mut client = Client::new(login, exporter);
        client.secure = direct;
        let opening = client.opening();
        self.wires.push(Wire::new(kind == StreamKind::C2sWeb));
        self.clients.push(client);
        self.actors.push(actor);
        let shard = self.random.below(self.nodes.len() as u64) as usize;
        let at = self.upstream(wire);
        self.schedule(
            at,
            Event::Input {
                shard,
                input: Input::Open { wire, kind },
            },
        );
        if direct {
            let at = self.upstream(wire);
            self.schedule(at, Event::Handshake { wire });
        }
        self.send_bytes(ClientId(wire), &opening);
        ClientId(wire)
    }

    /// The client.
    pub fn client(&self, id: ClientId) -> &Client {
        &self.clients[id.0]
    }

    /// The client, to look into its inbox.
    pub fn client_mut(&mut self, id: ClientId) -> &mut Client {
        &mut self.clients[id.0]
    }

    /// Every client there ever was.
    pub fn clients(&self) -> impl Iterator<Item = &Client> {
        self.clients.iter()
    }

    /// The shards, to look at what they hold.
    pub fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.nodes.iter().map(|node| &node.shard)
    }

    /// The most bytes that ever waited in the server for one client.
    pub fn unsent_peak(&self) -> usize {
        self.unsent_peak
    }

    /// The most bytes that one turn ever wrote for one client.
    pub fn output_peak(&self) -> usize {
        self.output_peak
    }

    /// The most requests to storage and derivation that ever waited on one shard between turns.
    pub fn unanswered_peak(&self) -> usize {
        self.unanswered_peak
    }

    /// How many connections moved to another shard.
    pub fn moves(&self) -> usize {
        self.moves
    }

    /// How many derivations there were.
    pub fn derivations(&self) -> usize {
        self.derivations
    }

    /// How often storage was told what a session is.
    pub fn session_writes(&self) -> usize {
        self.session_writes
    }

    /// The most parcels that ever waited outside one full ring.
    pub fn spill_peak(&self) -> usize {
        self.nodes
            .iter()
            .map(|node| node.side.spill_peak)
            .max()
            .unwrap_or(0)
    }

    /// How many parcels shards have sent each other.
    pub fn parcels(&self) -> usize {
        self.nodes.iter().map(|node| node.side.parcels).sum()
    }

    /// The most parcels that ever waited for one shard in one ring and outside it.
    pub fn parcels_peak(&self) -> usize {
        let peaks = self.nodes.iter().map(|node| node.side.parcels_peak);
        peaks.max().unwrap_or(0)
    }

    /// The most bytes of stanzas and addresses that ever were in one parcel.
    pub fn parcel_size_peak(&self) -> usize {
        let peaks = self.nodes.iter().map(|node| node.side.parcel_size_peak);
        peaks.max().unwrap_or(0)
    }

    /// Sends text as a client.
    pub fn send(&mut self, id: ClientId, text: &str) {
        self.send_bytes(id, text.as_bytes());
    }

    /// Takes the stanzas that a client has received.
    pub fn received(&mut self, id: ClientId) -> Vec<crate::Element> {
        self.clients[id.0].inbox.drain(..).collect()
    }

    /// Closes the client's side: `</stream:stream>` and the end of its bytes.
    pub fn leave(&mut self, id: ClientId) {
        self.send_bytes(id, b"</stream:stream>");
        self.half_close(id);
    }

    /// The client will send no more, but reads on.
    pub fn half_close(&mut self, id: ClientId) {
        let at = self.upstream(id.0);
        self.wires[id.0].says_no_more = true;
        self.schedule(at, Event::ServerEof { wire: id.0 });
    }

    /// The client is gone without a word.
    pub fn vanish(&mut self, id: ClientId) {
        self.wires[id.0].client_gone = true;
        self.clients[id.0].ended = true;
        let at = self.upstream(id.0);
        self.schedule(at, Event::Reset { wire: id.0 });
    }

    /// Whether the client takes what arrives.
    pub fn set_reading(&mut self, id: ClientId, reads: bool) {
        self.wires[id.0].reads = reads;
        if reads {
            let bytes = std::mem::take(&mut self.wires[id.0].unread);
            self.read(id.0, &bytes);
        }
    }

    /// Tells every shard that the end is near, and when all have heard it, to end its streams.
    pub fn shut_down(&mut self) {
        self.unprepared = self.nodes.len();
        for shard in 0..self.nodes.len() {
            self.input(shard, Input::ShutdownNear);
        }
    }

    /// The clock jumps ahead, as after a machine was suspended: every deadline in between has
    /// passed, and what was under way arrives at once.
    pub fn jump(&mut self, ms: u64) {
        self.now += ms * 1000;
    }

    /// Lets everything happen that is under way. Deadlines in the future stay there.
    pub fn run(&mut self) {
        while let Some(Reverse(entry)) = self.agenda.pop() {
            self.happen(entry);
        }
    }

    /// As [`World::run`], and then on for `ms` milliseconds, timers included.
    pub fn run_for(&mut self, ms: u64) {
        self.run_until(self.now + ms * 1000);
    }

    /// Runs until a moment, timers included.
    pub fn run_until(&mut self, end: u64) {
        loop {
            for shard in 0..self.nodes.len() {
                let node = &mut self.nodes[shard];
                let idle = !node.awake && !node.side.is_spilling();
                let due = node.side.wake.filter(|at| *at <= end && idle);
                // Whatever happens before that may wake it earlier.
                let next = self.agenda.peek().map(|Reverse(entry)| entry.at);
                if let Some(at) = due.filter(|at| next.is_none_or(|next| next >= *at)) {
                    node.awake = true;
                    let at = at.max(self.now);
                    self.schedule(at, Event::Turn(shard));
                }
            }
            match self.agenda.peek() {
                Some(Reverse(entry)) if entry.at <= end => {
                    let Reverse(entry) = self.agenda.pop().expect("what was seen is there");
                    self.happen(entry);
                }
                _ => break,
            }
        }
        self.now = self.now.max(end);
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.agenda.push(Reverse(Entry {
            at,
            order: self.order,
            event,
        }));
    }

    fn happen(&mut self, entry: Entry) {
        self.now = self.now.max(entry.at);
        assert!(
            self.trace.events() < EVENTS_MAX,
            "seed {}: it never ends",
            self.seed
        );
        match entry.event {
            Event::Turn(shard) => self.turn(shard),
            Event::ToServer {
                wire,
                secure,
                bytes,
            } => self.reach_server(wire, secure, &bytes),
            Event::Handshake { wire } => self.handshake(wire),
            Event::ServerEof { wire } => self.server_eof(wire),
            Event::Reset { wire } => self.reset(wire),
            Event::ToClient { wire, bytes } => self.reach_client(wire, &bytes),
            Event::ClientEof { wire } => self.client_eof(wire),
            Event::Disk { shard, ticket, op } => self.disk(shard, ticket, op),
            Event::Input { shard, input } => self.input(shard, input),
            Event::Derive { shard, ticket, job } => {
                self.nodes[shard].side.derivations -= 1;
                self.derivations += 1;
                self.input(
                    shard,
                    Input::Derived {
                        ticket,
                        derived: job.run(),
                    },
                );
            }
            Event::Adopt { wire, shard, state } => {
                self.input(shard, Input::Adopt { wire, state });
            }
            Event::Connect { login, actor } => {
                self.connect_actor(login, actor);
            }
            Event::Wake { client } => self.act(client, |actor, scene| actor.on_wake(scene)),
        }
    }

    /// Storage does its work now and answers later.
    fn disk(&mut self, shard: usize, ticket: Ticket, op: StoreOp) {
        self.trace
            .note("disk", self.now, ticket.0, format!("{op:?}").as_bytes());
        self.session_writes += usize::from(matches!(op, StoreOp::PutSession { .. }));
        let reply = self.perform_or_refuse(op);
        let delay = self.random.within(self.faults.disk_us);
        let at = self.nodes[shard].answer_at.max(self.now + delay);
        self.nodes[shard].answer_at = at;
        self.schedule(
            at,
            Event::Input {
                shard,
                input: Input::Stored { ticket, reply },
            },
        );
    }

    fn input(&mut self, shard: usize, input: Input) {
        let node = &mut self.nodes[shard];
        match input {
            Input::Stored { .. } | Input::Derived { .. } | Input::Slot { .. } => {
                node.answers.push_back(input)
            }
            _ => node.inbox.push_back(input),
        }
        self.wake(shard);
    }

    /// Puts a turn of a shard on the agenda.
    fn wake(&mut self, shard: usize) {
        if !std::mem::replace(&mut self.nodes[shard].awake, true) {
            let at = self.now + self.random.within(self.faults.turn_us);
            self.schedule(at, Event::Turn(shard));
        }
    }

    /// Has a client's actor do something, and carries out what it wants.
    fn act(&mut self, client: usize, does: impl FnOnce(&mut dyn Actor, &mut Scene<'_>)) {
        let Some(mut actor) = self.actors[client].take() else {
            return;
        };
        let mut scene = Scene {
            me: ClientId(client),
            now: self.now,
            client: &mut self.clients[client],
            random: &mut self.random,
            ledger: &mut self.ledger,
            says: Vec::new(),
            wake_us: None,
            leaves: None,
            returns: None,
        };
        does(&mut *actor, &mut scene);
        let Scene {
            says,
            wake_us,
            leaves,
            returns,
            ..
        } = scene;
        if let Some(Reconnection { in_us, login }) = returns {
            let actor = actor.again();
            self.schedule(self.now + in_us, Event::Connect { login, actor });
        }
        self.actors[client] = Some(actor);
        self.send_bytes(ClientId(client), &says);
        if let Some(delay) = wake_us {
            self.schedule(self.now + delay, Event::Wake { client });
        }
        match leaves {
            None => {}
            Some(Leave::Politely) => self.leave(ClientId(client)),
            Some(Leave::HalfClosed) => self.half_close(ClientId(client)),
            Some(Leave::Vanishing) => self.vanish(ClientId(client)),
        }
    }
}

impl World {
    /// Has an actor do its next deed now.
    pub fn rouse(&mut self, id: ClientId) {
        self.schedule(self.now, Event::Wake { client: id.0 });
    }
}
