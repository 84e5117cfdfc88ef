//! A shard: everything about the accounts whose home it is, and the streams of its connections.
//!
//! Invariant: all state of one bare JID lives on one shard. Entry points are the `on_*` methods.

use crate::account::{AccountKey, Accounts, Residence};
use crate::again::Again;
use crate::archive::Archiving;
use crate::bulk::Bulk;
use crate::conns::Conns;
use crate::ends::SessionEnd;
use crate::errand::Told;
use crate::error::StreamError;
use crate::host::{ConnId, Host, ShardId, StreamKind, Ticket, Timestamp, TlsFacts};
use crate::iq::IqRequest;
use crate::keep::Enqueued;
use crate::limit::BYTES_PER_TURN_MAX;
use crate::pace::Ends;
use crate::parcel::{Buffer, Control, Parcel};
use crate::port::{Origin, SessionId, StoreReply};
use crate::probes::LateProbes;
use crate::request::{Asker, SiblingRequests};
use crate::resume::Resuming;
use crate::revive::{Ending, SharedDormant, Sweep};
use crate::roster::{RosterRequest, RosterStep, RosterWrite};
use crate::router::Router;
use crate::session::{SessionKey, Sessions};
use crate::settings::Settings;
use crate::settle::{Cause, Settling};
use crate::stream::auth::{FAILURE_WINDOW_US, Throttle};
use crate::stream::register::REGISTRATION_WINDOW_US;
use crate::stream::sasl::Derived;
use crate::stream::scopes::Scopes;
use crate::stream::{Derivations, Flow, Phase, StreamState, frame_size};
pub(crate) use crate::timer::Timer;
use crate::wake::Waking;
use crate::xep::archive::ArchiveRequests;
use crate::xep::capabilities::Capabilities;
use crate::xep::commands::Commands;
use crate::xep::components::Components;
use crate::xep::offline::{OfflineRead, OfflineWrite};
use crate::xep::pubsub::PubSub;
use crate::xep::register::AccountChange;
use crate::xep::reporting::REPORT_WINDOW_US;
use stanza::frame::Frame;
use stanza::jid::BareJid;
use stanza::scope::StreamScope;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

/// Elements of one connection that are handled in one turn; then others have theirs.
pub const ELEMENTS_PER_TURN_MAX: usize = 64;

/// What became of the bytes given to [`Shard::on_bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How many were used up; the rest is offered again.
    pub consumed: usize,
    /// Whether the rest holds complete input, left because the connection's share of the turn is
    /// used.
    pub again: bool,
    /// Whether the rest begins with the end of a bound stream, which [`Shard::admit_ends`] has to
    /// let in.
    pub ends: bool,
}

impl Progress {
    /// So many, and nothing of the rest is complete or may be handled now.
    fn of(consumed: usize) -> Progress {
        Progress {
            consumed,
            again: false,
            ends: false,
        }
    }
}

/// Who asked for a storage or derivation answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waiting {
    /// The authentication or registration of a stream.
    Auth(ConnId),
    /// The load of an account.
    Account(AccountKey),
    /// A registration that a sibling asked for.
    Registration { shard: ShardId, asker: Ticket },
    /// A roster write.
    Roster(RosterWrite),
    /// A change of a block list.
    Blocking(AccountKey),
    /// An iq that an extension answers with what storage says.
    Iq,
    /// The first of the requests about an account's nodes.
    PubSub(AccountKey),
    /// An offline message on its way to storage.
    OfflineWrite,
    /// A session that is on its way out of storage.
    SessionEnd,
    /// Offline messages on their way from storage.
    OfflineRead,
    /// A new password, or the end of an account.
    AccountChange,
    /// What waits for an account that ends, by that request.
    Leftovers(Ticket),
    /// A session that was enabled, on its way to storage.
    Enabled { key: SessionKey, serial: u32 },
    /// What a session has become, on its way to storage.
    Saved { key: SessionKey, serial: u32 },
    /// How far a session is settled, on its way to storage.
    Handled {
        key: SessionKey,
        serial: u32,
        handled: u64,
    },
    /// A message on its way into the queues of sessions.
    Enqueue,
    /// What waits for an account, on its way into a session's queue.
    Claim,
    /// The numbers of a session's queue, up to a place.
    Renumbered {
        key: SessionKey,
        serial: u32,
        up_to: u64,
    },
    /// The same, before the session's client gets it back.
    Resumed {
        conn: ConnId,
        key: SessionKey,
        serial: u32,
    },
    /// A session that its client wants back.
    Resume(ConnId),
    /// An error that storage refused, on its way into a session's queue once more.
    Error,
    /// The sessions that the last process left.
    Sessions,
    /// One of them, which ends.
    Dormant,
    /// One of them, which is to wait in memory.
    Waking,
    /// Part of an administrator's command.
    Command { run: u64, place: u16 },
    /// A read of an archive, or a change of what goes there.
    Archive,
    /// A write that nobody waits for; a failure is logged.
    Nothing,
}

/// A request to storage or a derivation that is not answered.
#[derive(Debug)]
struct Request {
    waiting: Waiting,
    /// Whose input waits when it has made many.
    asker: Option<Asker>,
    /// The stanza that is not settled before the answer.
    cause: Option<Cause>,
}

/// One shard's state.
pub struct Shard {
    pub(crate) id: ShardId,
    pub(crate) settings: Arc<Settings>,
    pub(crate) capabilities: Capabilities,
    pub(crate) router: Router,
    pub(crate) components: Components,
    /// The scope of complete stanzas: nothing declared but `jabber:client`.
    pub(crate) client_scope: Arc<StreamScope>,
    pub(crate) scopes: Scopes,
    pub(crate) conns: Conns,
    pub(crate) sessions: Sessions,
    pub(crate) accounts: Accounts,
    pub(crate) throttle: Throttle,
    /// Exchanges that ended with their streams, by address.
    pub(crate) unfinished: Throttle,
    pub(crate) derivations: Derivations,
    pub(crate) registrations: Throttle,
    /// What accounts report of others, see [`crate::xep::reporting`].
    pub(crate) reports: Throttle,
    /// Room for the address of whoever sends the message in hand.
    pub(crate) sender: String,
    /// Targets of the fan-out under way, per shard; empty between fan-outs.
    pub(crate) fanout: Vec<Option<Buffer>>,
    /// Roster items and errors of roster writes under way, by ticket.
    pub(crate) roster_requests: HashMap<u64, RosterRequest>,
    /// Subscription writes under way, by ticket.
    pub(crate) roster_steps: HashMap<u64, RosterStep>,
    /// Those of them that storage refused.
    pub(crate) roster_again: Vec<Ticket>,
    /// The number of the last step that a contact was told of.
    pub(crate) last_telling: u64,
    pub(crate) account_changes: HashMap<u64, AccountChange>,
    pub(crate) iq_requests: HashMap<u64, IqRequest>,
    pub(crate) pubsub: PubSub,
    pub(crate) commands: Commands,
    pub(crate) offline_writes: HashMap<u64, OfflineWrite>,
    pub(crate) offline_reads: HashMap<u64, OfflineRead>,
    pub(crate) session_ends: HashMap<u64, SessionEnd>,
    /// Those of them that storage is to be told of.
    pub(crate) ends: Ends,
    /// Those of them that storage refused.
    pub(crate) ends_again: Vec<Ticket>,
    /// When the last message came, see [`Shard::arrival`].
    pub(crate) last_arrival: Timestamp,
    /// When the message in hand did, if that was before.
    pub(crate) late_since: Option<Timestamp>,
    /// When the shard came up.
    pub(crate) started: Timestamp,
    /// Whether it has had an event.
    pub(crate) has_begun: bool,
    /// Messages on their way into the queues of sessions, by ticket.
    pub(crate) enqueued: HashMap<u64, Enqueued>,
    pub(crate) again: Again,
    waiting: HashMap<u64, Request>,
    /// Whose stanza is being handled: requests made meanwhile are its own.
    pub(crate) asker: Option<Asker>,
    /// What siblings' sessions ask for.
    pub(crate) sibling_requests: SiblingRequests,
    /// What the effects of this moment are for.
    pub(crate) cause: Option<Cause>,
    /// The managed stanza that is being handled, wherever its client is.
    pub(crate) origin: Option<Origin>,
    /// What is to be archived with what becomes of the message in hand.
    pub(crate) archiving: Option<Archiving>,
    pub(crate) archive_requests: ArchiveRequests,
    /// The managed sessions in memory.
    pub(crate) managed: HashMap<SessionId, SessionKey>,
    /// Sessions of the last process that nobody has come back to yet.
    pub(crate) dormant: BTreeMap<BareJid, Vec<SessionId>>,
    pub(crate) sweep: Sweep,
    /// Whether storage has named them.
    pub(crate) sessions_known: bool,
    /// Who wants to know of which contact, asked before that.
    pub(crate) early_refreshes: Vec<(Box<str>, Box<str>)>,
    pub(crate) late_probes: LateProbes,
    /// Those of them that are to end and that storage is asked for, by ticket.
    pub(crate) endings: HashMap<u64, Ending>,
    /// Those of them that are to wait in memory and that storage is asked for, by ticket.
    pub(crate) wakings: HashMap<u64, Waking>,
    pub(crate) resuming: Resuming,
    /// Whether the time of those that nobody has come back to is over.
    pub(crate) dormancy_over: bool,
    pub(crate) shared_dormant: SharedDormant,
    last_ticket: u64,
    pub(crate) timers: BinaryHeap<Reverse<(Timestamp, Timer)>>,
    /// Sessions that were given what waits for their accounts, by its numbers, and whose sockets
    /// have not taken it yet.
    pub(crate) unwritten: BTreeMap<SessionKey, Vec<u64>>,
    /// Sessions that wait for their clients, and until when.
    pub(crate) hibernating: BTreeSet<(Timestamp, SessionKey)>,
    /// When [`Timer::Hibernation`] is to come, the next one last.
    pub(crate) hibernation_armed: Vec<Timestamp>,
    /// Stanza parcels of each sibling, and how many it was told to be settled.
    pub(crate) unsettled: Vec<Settling>,
    told_settled: Vec<u64>,
    /// What waits for each stanza parcel that a sibling has not settled yet.
    pub(crate) in_flight: Vec<VecDeque<Option<Cause>>>,
    /// Where the stream that answered `Flow::Moved` goes.
    pub(crate) moving_to: Option<ShardId>,
    pub(crate) stopping: bool,
    pub(crate) bulk: Bulk,
}

impl Shard {
    /// Shard `id` of the `settings.shards` of a process, which comes up at `started`.
    pub fn new(id: ShardId, settings: Arc<Settings>, started: Timestamp) -> Shard {
        let shards = usize::from(settings.shards);
        Shard {
            id,
            router: Router::of(&settings, id),
            components: Components::new(&settings.components),
            capabilities: Capabilities::new(&settings),
            sessions: Sessions::new(settings.archives()),
            settings,
            client_scope: Arc::new(StreamScope::client()),
            scopes: Scopes::default(),
            conns: Conns::default(),
            accounts: Accounts::default(),
            throttle: Throttle::new(FAILURE_WINDOW_US),
            unfinished: Throttle::new(FAILURE_WINDOW_US),
            derivations: Derivations::default(),
            registrations: Throttle::new(REGISTRATION_WINDOW_US),
            reports: Throttle::new(REPORT_WINDOW_US),
            sender: String::new(),
            fanout: (0..shards).map(|_| None).collect(),
            roster_requests: HashMap::new(),
            roster_steps: HashMap::new(),
            roster_again: Vec::new(),
            last_telling: 0,
            account_changes: HashMap::new(),
            iq_requests: HashMap::new(),
            pubsub: PubSub::default(),
            commands: Commands::default(),
            offline_writes: HashMap::new(),
            offline_reads: HashMap::new(),
            session_ends: HashMap::new(),
            ends: Ends::default(),
            last_arrival: Timestamp::default(),
            late_since: None,
            ends_again: Vec::new(),
            started,
            has_begun: false,
            enqueued: HashMap::new(),
            again: Again::default(),
            waiting: HashMap::new(),
            asker: None,
            sibling_requests: SiblingRequests::default(),
            cause: None,
            origin: None,
            archiving: None,
            archive_requests: ArchiveRequests::default(),
            managed: HashMap::new(),
            dormant: BTreeMap::new(),
            sweep: Sweep::default(),
            sessions_known: false,
            early_refreshes: Vec::new(),
            late_probes: LateProbes::default(),
            endings: HashMap::new(),
            wakings: HashMap::new(),
            resuming: Resuming::default(),
            dormancy_over: false,
            shared_dormant: HashMap::new(),
            last_ticket: 0,
            timers: BinaryHeap::new(),
            unwritten: BTreeMap::new(),
            hibernating: BTreeSet::new(),
            hibernation_armed: Vec::new(),
            unsettled: (0..shards).map(|_| Settling::default()).collect(),
            told_settled: vec![0; shards],
            in_flight: vec![VecDeque::new(); shards],
            moving_to: None,
            stopping: false,
            bulk: Bulk::default(),
        }
    }

    /// Has room for so many connections, before the first is there. None of it is touched before
    /// it is used, so it is no memory until then; what grows by doubling would leave as much
    /// behind, and be half empty at the worst.
    pub fn reserve(&mut self, connections: usize) {
        debug_assert!(self.conns.count() == 0, "nothing is there yet");
        self.accounts = Accounts::with_capacity(connections);
        self.conns.reserve(connections);
        self.sessions.reserve(connections);
        self.timers.reserve_exact(connections);
    }

    /// A connection came in.
    pub fn on_open(&mut self, host: &mut impl Host, conn: ConnId, kind: StreamKind, peer: IpAddr) {
        self.start(host);
        let deadline = host.now().plus_ms(self.settings.limits.auth_ms_max);
        let stream = StreamState::new(kind, &self.settings.limits, deadline, peer);
        if self.stopping {
            self.stream_error(host, conn, &stream, StreamError::SystemShutdown, None);
            return;
        }
        self.conns.put(conn, Box::new(stream));
        self.arm(host, deadline, Timer::Bound(conn));
    }

    /// A connection's TLS handshake is done.
    pub fn on_secured(&mut self, host: &mut impl Host, conn: ConnId, facts: TlsFacts) {
        let Some(mut stream) = self.conns.take(conn) else {
            return;
        };
        stream.secure = true;
        stream.tls = Some(Box::new(facts));
        if let Phase::ExpectTls = stream.phase {
            stream.phase = Phase::ExpectHeader(crate::stream::ExpectHeader { account: None });
        }
        let _ = host;
        self.conns.put(conn, stream);
    }

    /// A connection's bytes: those not consumed last time, and more.
    pub fn on_bytes(&mut self, host: &mut impl Host, conn: ConnId, bytes: &[u8]) -> Progress {
        let all = Progress::of(bytes.len());
        let Some(mut stream) = self.conns.take(conn) else {
            return all;
        };
        let mut consumed = 0;
        self.sessions.addressed = 0;
        for _ in 0..ELEMENTS_PER_TURN_MAX {
            if stream.waits() {
                break;
            }
            let rest = &bytes[consumed..];
            let (flow, size) = match stream.next_frame(rest) {
                Ok(Frame::Element(size)) if !self.bulk.admits(&mut stream.handled, size) => {
                    stream.complete = size as u32;
                    break;
                }
                Ok(Frame::StreamClose(size)) if !self.admits_end(&stream) => {
                    (stream.complete, stream.is_closed) = (size as u32, true);
                    self.conns.put(conn, stream);
                    return Progress {
                        ends: true,
                        ..Progress::of(consumed)
                    };
                }
                Ok(Frame::Incomplete) => {
                    self.conns.put(conn, stream);
                    return Progress::of(consumed);
                }
                Ok(frame) => match self.on_frame(host, conn, &mut stream, &frame, rest) {
                    Flow::Later => (Flow::Later, 0),
                    flow => (flow, frame_size(&frame)),
                },
                Err(error) => {
                    let condition = StreamError::from(error);
                    (self.stream_error(host, conn, &stream, condition, None), 0)
                }
            };
            match flow {
                Flow::Next => {
                    consumed += size;
                    // A few bytes may ask for much: megabytes, or a broadcast to thousands.
                    let is_full = host.is_choked(conn) || self.sessions.have_done_much();
                    if is_full || consumed >= BYTES_PER_TURN_MAX {
                        break;
                    }
                }
                Flow::Stop | Flow::Later => {
                    self.conns.put(conn, stream);
                    return Progress::of(consumed + size);
                }
                Flow::Moved => {
                    let to = self
                        .moving_to
                        .take()
                        .expect("a stream that moves says where to");
                    host.move_to(conn, to, stream);
                    return Progress::of(consumed);
                }
                Flow::Over => return all,
            }
        }
        let again = !stream.waits();
        self.conns.put(conn, stream);
        Progress {
            again: again && consumed < bytes.len(),
            ..Progress::of(consumed)
        }
    }

    /// A connection arrived from a sibling, or could not leave; its undigested bytes are offered
    /// next, if there is time.
    pub fn on_adopt(&mut self, host: &mut impl Host, conn: ConnId, state: Box<StreamState>) {
        self.start(host);
        let deadline = state.deadline;
        if self.stopping {
            self.stream_error(host, conn, &state, StreamError::SystemShutdown, None);
            return;
        }
        if host.now() >= deadline {
            return self.end_late(host, conn, state);
        }
        self.conns.put(conn, state);
        self.arm(host, deadline, Timer::Bound(conn));
    }

    /// A sibling's parcel.
    pub fn on_parcel(&mut self, host: &mut impl Host, from: ShardId, parcel: Parcel) {
        self.start(host);
        match parcel {
            Parcel::Stanza {
                bytes,
                home,
                origin,
            } => {
                let origin = origin.map(|origin| *origin);
                self.on_stanza_parcel(host, from, bytes, origin, home);
            }
            Parcel::Request { bytes, home, asker } => {
                self.on_sibling_request(host, from, asker, |shard, host| {
                    shard.on_stanza_parcel(host, from, bytes, None, home);
                });
            }
            Parcel::Answered { asker, count } => self.on_answered(host, asker, count),
            Parcel::Fanout(fanout) => self.on_fanout(host, *fanout),
            Parcel::Settled { count } => {
                for _ in 0..count {
                    let settled = self.in_flight[usize::from(from.0)].pop_front();
                    debug_assert!(settled.is_some(), "a sibling settles what it was sent");
                    self.close_effect(host, settled.flatten());
                }
            }
            Parcel::Control(control) => self.on_control(host, from, *control),
        }
    }

    fn on_stanza_parcel(
        &mut self,
        host: &mut impl Host,
        from: ShardId,
        bytes: Buffer,
        origin: Option<Origin>,
        home: ShardId,
    ) {
        let number = self.unsettled[usize::from(from.0)].begin();
        self.cause = Some(Cause::Parcel { from, number });
        self.origin = origin;
        self.receive(host, &bytes);
        (self.cause, self.origin) = (None, None);
        self.unsettled[usize::from(from.0)].close(number);
        host.recycle(home, bytes);
    }

    /// The turn's input is used up: settles with each sibling what it sent.
    pub fn on_turn_end(&mut self, host: &mut impl Host) {
        self.end_overflowed(host);
        self.dispose_legacies(host);
        self.arm_asking(host);
        let told = self.told_settled.iter_mut();
        for (index, (unsettled, told)) in self.unsettled.iter_mut().zip(told).enumerate() {
            let settled = unsettled.settled();
            if settled > *told {
                let count = (settled - *told) as u32;
                *told = settled;
                host.forward(ShardId(index as u16), Parcel::Settled { count });
            }
        }
    }

    fn on_control(&mut self, host: &mut impl Host, from: ShardId, control: Control) {
        match control {
            Control::Register {
                ticket,
                account,
                credentials,
            } => {
                self.on_register_parcel(host, from, Ticket(ticket), account, credentials);
            }
            Control::Registered { ticket, made } => {
                let reply = match made {
                    Some(true) => StoreReply::Done,
                    Some(false) => StoreReply::Exists,
                    None => StoreReply::Failed("the account's shard could not make it".into()),
                };
                self.on_stored(host, Ticket(ticket), reply);
            }
            Control::LastItems { account, to, nodes } => {
                self.on_last_items(host, from, &account, to, nodes);
            }
            Control::LastItemsSent => self.on_last_sent(host),
            Control::Delete { account, answer } => self.on_deletion(host, &account, answer.into()),
            Control::Errand { giver, errand } => self.on_errand(host, giver, errand),
            Control::Told { giver, told } => self.on_told(host, giver.run, giver.place, told),
            Control::NewKeys { account, answer } => self.on_new_keys(host, account, answer.into()),
        }
    }

    /// Storage answered.
    pub fn on_stored(&mut self, host: &mut impl Host, ticket: Ticket, reply: StoreReply) {
        if let StoreReply::Failed(why) = &reply
            && (self.put_off_step(host, ticket, why) || self.put_off_end(host, ticket, why))
        {
            return;
        }
        self.complete(host, ticket, |shard, host, waiting| {
            shard.on_answer(host, ticket, waiting, reply);
        });
    }

    /// Has `handle` do what a request waited for, as its cause's.
    pub(crate) fn complete<H: Host>(
        &mut self,
        host: &mut H,
        ticket: Ticket,
        handle: impl FnOnce(&mut Shard, &mut H, Waiting),
    ) {
        let Some(request) = self.waiting.remove(&ticket.0) else {
            return;
        };
        self.cause = request.cause;
        handle(self, host, request.waiting);
        self.cause = None;
        self.end_request(host, request.asker);
        self.close_effect(host, request.cause);
    }

    fn on_answer(
        &mut self,
        host: &mut impl Host,
        ticket: Ticket,
        waiting: Waiting,
        reply: StoreReply,
    ) {
        match waiting {
            Waiting::Auth(conn) => {
                let Some(mut stream) = self.conns.take(conn) else {
                    return;
                };
                let flow = self.on_auth_stored(host, conn, &mut stream, ticket, reply);
                self.settle_stream(host, conn, stream, flow);
            }
            Waiting::Account(key) => self.on_account_stored(host, key, reply),
            Waiting::Registration { shard, asker } => {
                self.on_registration_stored(host, shard, asker, reply);
            }
            Waiting::Roster(write) => self.on_roster_stored(host, ticket, write, reply),
            Waiting::Blocking(account) => self.on_blocking_stored(host, account, reply),
            Waiting::Command { run, place } => self.on_told(host, run, place, Told::Stored(reply)),
            Waiting::Iq => self.on_iq_stored(host, ticket, reply),
            Waiting::PubSub(account) => self.on_nodes_stored(host, account, reply),
            Waiting::OfflineWrite => self.on_offline_written(host, ticket, reply),
            Waiting::SessionEnd => self.on_session_ended(host, ticket, &reply),
            Waiting::OfflineRead => self.on_offline_read(host, ticket, reply),
            Waiting::AccountChange => self.on_account_changed(host, ticket, reply),
            Waiting::Leftovers(of) => self.on_leftovers(host, of, reply),
            Waiting::Enabled { key, serial } => self.on_enabled(host, key, serial, reply),
            Waiting::Saved { key, serial } => self.on_saved(host, key, serial, &reply),
            Waiting::Handled {
                key,
                serial,
                handled,
            } => self.on_handled(host, key, serial, handled, reply),
            Waiting::Enqueue => self.on_enqueued(host, ticket, reply),
            Waiting::Error => self.on_error_stored(host, ticket, &reply),
            Waiting::Claim => self.on_claimed(host, ticket, reply),
            Waiting::Renumbered { key, serial, up_to } => {
                self.on_renumbered(host, key, serial, up_to, &reply);
            }
            Waiting::Resumed { conn, key, serial } => {
                self.on_resumed(host, conn, key, serial, &reply);
            }
            Waiting::Resume(conn) => self.on_resume_stored(host, conn, reply),
            Waiting::Sessions => self.on_sessions_stored(host, reply),
            Waiting::Dormant => self.on_dormant_stored(host, ticket, reply),
            Waiting::Waking => self.on_woken(host, ticket, reply),
            Waiting::Archive => self.on_archive_stored(host, ticket, reply),
            Waiting::Nothing if matches!(reply, StoreReply::Failed(_)) => {
                tracing::error!(?reply, "a write failed");
            }
            Waiting::Nothing => {}
        }
    }

    /// A derivation is done.
    pub fn on_derived(&mut self, host: &mut impl Host, ticket: Ticket, derived: Derived) {
        self.complete(host, ticket, |shard, host, waiting| match waiting {
            Waiting::Auth(conn) => shard.on_stream_derived(host, conn, ticket, derived),
            Waiting::AccountChange => shard.on_password_derived(host, ticket, derived),
            Waiting::Command { run, .. } => shard.on_command_derived(host, run, derived),
            _ => {}
        });
    }

    /// The time asked for has come.
    pub fn on_timer(&mut self, host: &mut impl Host) {
        let now = host.now();
        while let Some(&Reverse((at, timer))) = self.timers.peek() {
            if at > now {
                host.wake_at(at);
                return;
            }
            self.timers.pop();
            match timer {
                Timer::Bound(conn) => self.check_bound(host, conn),
                Timer::Hibernation => self.on_hibernation(host),
                // The end of the turn sees to them.
                Timer::Overflow => {}
                Timer::Fetch(account, key, serial) => self.fetch_again(host, account, key, serial),
                Timer::Dormancy => self.on_dormancy(host),
                Timer::Ends => self.end_again(host),
                Timer::Roster => self.store_steps_again(host),
                Timer::Owing => self.acknowledge_again(host),
                Timer::Errors => self.on_errors(host),
                Timer::HeldBack => self.on_held_back(host),
                Timer::Save(key, serial) => self.save_again(host, key, serial),
                Timer::Strangers(key, serial) => self.on_strangers(host, key, serial),
                Timer::Blocking(account) => self.store_blocking(host, account),
                Timer::Asking => self.on_asking(host),
                Timer::Load(key) => self.on_load_again(host, key),
                Timer::Probes => self.on_probes(host),
                Timer::Walk => self.on_walk(host),
                Timer::Runs => self.on_runs(host),
                Timer::Push => self.on_push(host),
                Timer::Retention => self.on_retention(host),
            }
        }
    }

    fn check_bound(&mut self, host: &mut impl Host, conn: ConnId) {
        let Some(stream) = self.conns.take(conn) else {
            return;
        };
        match stream.phase {
            Phase::Bound(key) => {
                self.conns.put(conn, stream);
                self.check_farewell(host, key);
            }
            Phase::Component(id) => self.end_overflowed_component(host, conn, stream, id),
            _ => self.end_late(host, conn, stream),
        }
    }

    fn end_late(&mut self, host: &mut impl Host, conn: ConnId, mut stream: Box<StreamState>) {
        stream.excuse();
        let text = Some("authentication took too long");
        self.stream_error(host, conn, &stream, StreamError::ConnectionTimeout, text);
    }

    /// Streams on this shard.
    pub fn stream_count(&self) -> usize {
        self.conns.count()
    }

    /// Bound sessions on this shard.
    pub fn session_count(&self) -> usize {
        self.sessions.count()
    }

    /// Stanza parcels that siblings have not settled yet.
    pub fn in_flight_count(&self) -> u64 {
        let counts = self.in_flight.iter().map(|parcels| parcels.len() as u64);
        counts.sum()
    }

    /// Requests to storage and derivation that are not answered yet.
    pub fn unanswered_count(&self) -> usize {
        self.waiting.len()
    }

    /// The bare JIDs in memory.
    pub fn account_jids(&self) -> impl Iterator<Item = &stanza::jid::BareJid> {
        self.accounts.jids()
    }

    /// Puts a stream back that was answered outside [`Shard::on_bytes`].
    pub(crate) fn settle_stream(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: Box<StreamState>,
        flow: Flow,
    ) {
        match flow {
            Flow::Next => {
                self.conns.put(conn, stream);
                host.resume(conn);
            }
            Flow::Stop | Flow::Later => self.conns.put(conn, stream),
            Flow::Moved => unreachable!("only the first message of an exchange moves a stream"),
            Flow::Over => {}
        }
    }

    /// A new ticket for a request.
    pub(crate) fn ticket(&mut self, waiting: Waiting) -> Ticket {
        self.last_ticket += 1;
        let request = Request {
            waiting,
            asker: self.count_request(),
            cause: self.open_effect(),
        };
        self.waiting.insert(self.last_ticket, request);
        Ticket(self.last_ticket)
    }

    /// What a request that is not answered is for.
    pub(crate) fn cause_of(&self, ticket: Ticket) -> Option<Cause> {
        self.waiting.get(&ticket.0)?.cause
    }

    /// A ticket for a request that no stanza waits for.
    pub(crate) fn ticket_for_itself(&mut self, waiting: Waiting) -> Ticket {
        let (asker, cause) = (self.asker.take(), self.cause.take());
        let ticket = self.ticket(waiting);
        (self.asker, self.cause) = (asker, cause);
        ticket
    }

    /// Takes a ticket back whose request was refused.
    pub(crate) fn forget(&mut self, host: &mut impl Host, ticket: Ticket) {
        if let Some(Request { asker, cause, .. }) = self.waiting.remove(&ticket.0) {
            self.end_request(host, asker);
            self.close_effect(host, cause);
        }
    }

    /// Sets a timer.
    pub(crate) fn arm(&mut self, host: &mut impl Host, at: Timestamp, timer: Timer) {
        let first = self
            .timers
            .peek()
            .is_none_or(|Reverse((first, _))| at < *first);
        self.timers.push(Reverse((at, timer)));
        if first {
            host.wake_at(at);
        }
    }
}

/// Whether an account can be used at once.
pub(crate) fn is_resident(residence: &Residence) -> bool {
    matches!(residence, Residence::Resident)
}
