//! The running server: its threads, how they start and how they end.

use crate::accept::{Accept, Listener};
use crate::admission::Admission;
use crate::bosh::Bosh;
use crate::clock::Clock;
use crate::config::RuntimeConfig;
use crate::connection::{CHOKE_SIZE_MAX, Conns};
use crate::control::{Command, Control};
use crate::derive::{self, DeriveLink};
use crate::doorbell::Doorbell;
use crate::handoff::Handoff;
use crate::host::{Random, World};
use crate::mesh::{self, Mesh};
use crate::park;
use crate::plan::Plan;
use crate::storage::{self, StorageLink};
use crate::transport::tls::ServerConfigs;
use crate::turn::{Counters, TICK, Turn};
use crate::uploads::{self, Jobs, UploadLink};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use ring::{BufferShape, Buffers, EndSignals, Features, Pool, Ring, RingConfig};
use rustix::process::{Resource, getrlimit};
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use xmpp::port::Store;
use xmpp::{Settings, Shard, Timestamp};

/// Connections that may wait in the kernel for their accept, per listener.
const BACKLOG: i32 = 4096;
/// Entries of a shard's ring; a turn's sends fit.
const RING_ENTRIES: u32 = 4096;
/// Completions that fit before the kernel keeps them itself.
const RING_COMPLETIONS: u32 = 16 << 10;
/// Memory of glommio's own I/O; it does next to none for us.
const EXECUTOR_MEMORY: usize = 64 << 10;
/// Depth of glommio's own rings.
const EXECUTOR_DEPTH: usize = 16;
/// Bytes of unused buffers that a shard keeps.
const POOL_HELD_MAX: usize = 32 << 20;
/// How often the process looks whether a shard has died.
const WATCH: Duration = Duration::from_millis(500);
/// How much longer than it may take the end of the shards is waited for.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Bytes of locked memory without which no executor starts (glommio asks for as many).
const LOCKED_MIN: u64 = 512 << 10;
/// What to do about too little of it.
const LOCKED_REMEDY: &str = "raise the limit of locked memory, which all processes of a user share \
                             (`ulimit -l`, or LimitMEMLOCK= of a unit)";
/// How long a listener waits for its address, and between its tries.
const LISTEN_PATIENCE: Duration = Duration::from_secs(10);
const LISTEN_RETRY: Duration = Duration::from_millis(20);
/// How often it is looked for.
const STOP_POLL: Duration = Duration::from_millis(2);

/// What tests and benches set; nobody configures it.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Items of a lane between two shards, and to storage; `None` is chosen by the number of
    /// shards.
    pub lane_capacity: Option<usize>,
    /// Threads that derive keys.
    pub derive_threads: usize,
    /// Bytes that one shard holds undigested for all its connections.
    pub undigested_max: usize,
    /// Milliseconds until the end, after the signal.
    pub stop_ms_max: u64,
    /// Whether shards are pinned to processors.
    pub pinned: bool,
}

impl Tuning {
    /// Items of a lane between two of so many shards.
    fn mesh_capacity(&self, shards: usize) -> usize {
        self.lane_capacity
            .unwrap_or_else(|| mesh::lane_capacity(shards))
    }
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            lane_capacity: None,
            derive_threads: 1,
            undigested_max: 64 << 20,
            stop_ms_max: 5_000,
            pinned: true,
        }
    }
}

/// Why the server could not start or go on.
#[derive(Debug)]
pub enum ServeError {
    /// io_uring cannot be used here.
    Ring(ring::Refused),
    /// An address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// There is too little memory that may be locked: what is needed, and what is allowed.
    Memory(String),
    /// A shard could not be set up, or failed.
    Shard(u16, String),
    /// A thread could not be started.
    Thread(io::Error),
    /// Files cannot be kept; why, and what helps.
    Uploads(String),
    /// Shards did not end in time; their threads are left behind.
    Stuck(usize),
}

impl std::error::Error for ServeError {}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Ring(refused) => refused.fmt(f),
            ServeError::Listen(address, error) => write!(
                f,
                "{address} cannot be listened on ({error}): free it, or set another in [listen]"
            ),
            ServeError::Memory(needed) => write!(f, "the server needs {needed}: {LOCKED_REMEDY}"),
            ServeError::Shard(shard, error) => write!(f, "shard {shard} failed: {error}"),
            ServeError::Uploads(why) => write!(f, "uploads cannot be kept: {why}"),
            ServeError::Stuck(count) => write!(f, "{count} shards did not end in time"),
            ServeError::Thread(error) => write!(
                f,
                "a thread cannot be started ({error}): raise the limit of processes (`ulimit -u`)"
            ),
        }
    }
}

/// The running server. It ends with [`Server::stop`].
pub struct Server {
    control: Control,
    plan: Plan,
    addresses: Vec<SocketAddr>,
    shards: Vec<ExecutorJoinHandle<Result<Counters, String>>>,
    storage: JoinHandle<()>,
    derivers: Vec<JoinHandle<()>>,
    uploads: Option<uploads::Thread>,
    /// Each running shard holds one more.
    alive: Arc<()>,
    stop_ms_max: u64,
    clock: Clock,
    /// When a command has it go down.
    end: Arc<OnceLock<Timestamp>>,
}

/// What a shard's thread starts with.
struct Seed {
    index: u16,
    settings: Arc<Settings>,
    features: Features,
    plan: Plan,
    tuning: Tuning,
    output_max: usize,
    idle_spin: Duration,
    ends: Ends,
    starttls: Option<Arc<crate::transport::tls::ServerConfig>>,
    bells: Vec<Arc<Doorbell>>,
    admission: Arc<Admission>,
    clock: Clock,
    end: Arc<OnceLock<Timestamp>>,
    alive: Arc<()>,
}

/// What a shard has to itself of all that was made for all: its ends of lanes, its sockets.
struct Ends {
    mesh: Mesh,
    storage: StorageLink,
    derive: DeriveLink,
    uploads: Option<UploadLink>,
    listeners: Vec<Listener>,
    commands: Receiver<Command>,
}

impl Server {
    /// Starts all threads and listens. Returns when connections are accepted.
    ///
    /// # Errors
    /// The first thing that stood in the way; nothing of the server is left then.
    pub fn start(
        config: RuntimeConfig,
        tuning: &Tuning,
        store: Box<dyn Store>,
    ) -> Result<Server, ServeError> {
        let features = ring::probe().map_err(ServeError::Ring)?;
        let processors = ring::allowed_processors();
        let descriptors = ring::descriptors_max().map_err(ServeError::Thread)?;
        let locked = getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX);
        if locked < LOCKED_MIN {
            let needed = format!("{LOCKED_MIN} bytes of locked memory, and may have {locked}");
            return Err(ServeError::Memory(needed));
        }
        let mut plan = Plan::new(&config, processors.len(), descriptors);
        if !features.send_fd && plan.shards > 1 {
            tracing::warn!("this kernel cannot move connections between rings: one shard only");
            plan.shards = 1;
        }
        tracing::info!(%features, "io_uring");
        tracing::info!("{plan}");
        let (mut server, seeds) = Server::lay_out(config, tuning, store, plan, features)?;
        let (up, ready) = mpsc::channel();
        let mut failure = None;
        for seed in seeds {
            let index = seed.index;
            match spawn(seed, &processors, up.clone()) {
                Ok(handle) => server.shards.push(handle),
                Err(error) => failure = failure.or(Some(ServeError::Shard(index, error))),
            }
        }
        drop(up);
        let mut grown = 0;
        for (index, result) in ready {
            match result {
                Ok(()) => grown += 1,
                Err(error) => failure = failure.or(Some(ServeError::Shard(index, error))),
            }
        }
        if failure.is_some() || grown < plan.shards {
            // One whose executor did not start says why only when it is joined.
            let ended = server.stop().err();
            let unknown = || ServeError::Shard(grown, "it did not start".to_owned());
            return Err(failure.or(ended).unwrap_or_else(unknown));
        }
        server.control.listen();
        Ok(server)
    }

    /// Binds, starts the threads beside the shards, and makes what each shard starts with.
    fn lay_out(
        config: RuntimeConfig,
        tuning: &Tuning,
        mut store: Box<dyn Store>,
        plan: Plan,
        features: Features,
    ) -> Result<(Server, Vec<Seed>), ServeError> {
        let count = usize::from(plan.shards);
        let settings = Arc::new(Settings {
            shards: plan.shards,
            ..config.settings.clone()
        });
        let (listeners, addresses) = listen(&config, count)?;
        let bells = Vec::from_iter((0..count).map(|_| Arc::new(Doorbell::new(count))));
        let meshes = mesh::weave(&bells, tuning.mesh_capacity(count));
        let (requests, receive) = mpsc::channel();
        let capacity = tuning.lane_capacity.unwrap_or(storage::LANE_CAPACITY);
        let (files, jobs, uploads) = keep_uploads(&config, &mut *store, &bells, features)?;
        let stored = storage::start(store, jobs, &bells, receive, features, capacity)
            .map_err(ServeError::Thread)?;
        let (derive_links, derivers) =
            derive::start(tuning.derive_threads, &bells, features).map_err(ServeError::Thread)?;
        let (senders, receivers): (Vec<Sender<Command>>, Vec<_>) =
            (0..count).map(|_| mpsc::channel()).unzip();
        let inboxes = senders.into_iter().zip(bells.iter().cloned()).collect();
        let control = Control::new(
            &settings.domain,
            features,
            requests,
            stored.waker.clone(),
            inboxes,
        );
        let per_address = config.connections_per_address_max;
        let admission = Arc::new(Admission::new(plan.connections_max, per_address));
        let (clock, alive, end) = (Clock::new(), Arc::new(()), Arc::new(OnceLock::new()));
        let links = stored.links.into_iter().zip(derive_links).zip(files);
        let ends = share_out(meshes, links, listeners.into_iter().zip(receivers));
        let seed = |(index, ends)| Seed {
            index: index as u16,
            settings: settings.clone(),
            features,
            plan,
            tuning: tuning.clone(),
            output_max: config.output_max,
            idle_spin: config.idle_spin,
            ends,
            starttls: starttls(&config.tls),
            bells: bells.clone(),
            admission: admission.clone(),
            clock,
            end: end.clone(),
            alive: alive.clone(),
        };
        let seeds = ends.enumerate().map(seed).collect();
        let server = Server {
            control,
            plan,
            addresses,
            shards: Vec::new(),
            storage: stored.handle,
            derivers,
            uploads,
            alive,
            stop_ms_max: tuning.stop_ms_max,
            clock,
            end,
        };
        Ok((server, seeds))
    }

    /// The handle for requests from outside.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// What limits the server runs with.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The addresses listened on: those in clear first, then those with TLS, then those for the web
    /// in the same order, then those for components.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Whether all shards still run.
    pub fn is_alive(&self) -> bool {
        Arc::strong_count(&self.alive) > self.shards.len()
    }

    /// Whether an administrator's command has it go down now.
    pub fn is_to_end(&self) -> bool {
        let end = self.end.get();
        end.is_some_and(|end| *end <= self.clock.now())
    }

    /// Ends every stream, writes what can be written in bounded time, and joins the threads. One
    /// that is in the middle of a long derivation is left to end by itself.
    ///
    /// # Errors
    /// A shard that had failed before.
    pub fn stop(self) -> Result<Vec<Counters>, ServeError> {
        self.control.prepare_shards(STOP_GRACE);
        self.control.stop_shards();
        let patience = Instant::now() + Duration::from_millis(self.stop_ms_max) + STOP_GRACE;
        while Arc::strong_count(&self.alive) > 1 {
            if Instant::now() > patience {
                return Err(ServeError::Stuck(Arc::strong_count(&self.alive) - 1));
            }
            std::thread::sleep(STOP_POLL);
        }
        let mut counters = Vec::new();
        let mut failure = None;
        for (index, shard) in self.shards.into_iter().enumerate() {
            match shard.join() {
                Ok(Ok(counted)) => counters.push(counted),
                Ok(Err(error)) => failure = Some(ServeError::Shard(index as u16, error)),
                Err(error) => failure = Some(ServeError::Shard(index as u16, error.to_string())),
            }
        }
        // The links went with the shards, so these threads end by themselves.
        self.control.stop_storage();
        if self.storage.join().is_err() {
            tracing::error!("a thread panicked");
        }
        // The last who could ask it anything went with those.
        if let Some(uploads) = self.uploads
            && let Err(error) = uploads.join()
        {
            tracing::error!(%error, "the keeper of files ended early");
        }
        derive::end(self.derivers);
        failure.map_or(Ok(counters), Err)
    }
}

/// Serves until SIGTERM or SIGINT, or until an administrator's command says so. `ready` is called
/// once connections are accepted.
///
/// # Errors
/// Why the server could not start, or that a shard failed.
pub fn serve(
    config: RuntimeConfig,
    store: Box<dyn Store>,
    ready: impl FnOnce(&Server),
) -> Result<(), ServeError> {
    let signals = EndSignals::block();
    let server = Server::start(config, &Tuning::default(), store)?;
    ready(&server);
    while !signals.wait(WATCH) {
        if !server.is_alive() || server.is_to_end() {
            break;
        }
    }
    tracing::info!("going down");
    for (shard, counted) in server.stop()?.iter().enumerate() {
        tracing::info!(shard, ?counted, "shard ended");
    }
    Ok(())
}

/// Binds every address once for each shard.
/// Tries again for a while where an address is in use: the sockets of a process that was killed go
/// with its rings, a moment after it.
fn patiently<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let until = Instant::now() + LISTEN_PATIENCE;
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(LISTEN_RETRY);
            }
            done => return done,
        }
    }
}

fn listen(
    config: &RuntimeConfig,
    shards: usize,
) -> Result<(Vec<Vec<Listener>>, Vec<SocketAddr>), ServeError> {
    let mut all: Vec<Vec<Listener>> = (0..shards).map(|_| Vec::new()).collect();
    let mut addresses = Vec::new();
    let site = Arc::new(config.site.clone());
    let kinds = [
        (&config.c2s, None, None, false),
        (&config.c2s_tls, Some(&config.tls.direct), None, false),
        (&config.http, None, Some(&site), false),
        (&config.https, Some(&config.tls.web), Some(&site), false),
        (&config.component, None, None, true),
    ];
    let each = |(list, tls, site, is_for_components): (&'_ Vec<SocketAddr>, _, _, _)| {
        let list = list.clone().into_iter();
        list.map(move |address| (address, tls, site, is_for_components))
    };
    for (address, tls, site, is_for_components) in kinds.into_iter().flat_map(each) {
        let failed = |error| ServeError::Listen(address, error);
        // Port 0 is chosen once; the siblings share it.
        let bound = patiently(|| ring::free_address(address)).map_err(failed)?;
        for listeners in &mut all {
            listeners.push(Listener {
                socket: ring::bound_listener(bound, BACKLOG).map_err(failed)?,
                direct_tls: tls.cloned(),
                site: site.cloned(),
                is_for_components,
            });
        }
        addresses.push(bound);
    }
    Ok((all, addresses))
}

/// A way to the keeper of files for each shard, one for storage, and the keeper; nothing where
/// there are no files.
type Kept = (
    Vec<Option<UploadLink>>,
    Option<Jobs>,
    Option<uploads::Thread>,
);

fn keep_uploads(
    config: &RuntimeConfig,
    store: &mut dyn Store,
    bells: &[Arc<Doorbell>],
    features: Features,
) -> Result<Kept, ServeError> {
    let (Some(kept), Some(keys)) = (&config.uploads, &config.site.uploads) else {
        return Ok((bells.iter().map(|_| None).collect(), None, None));
    };
    let started = uploads::start(kept.clone(), keys.clone(), store, bells, features);
    let started = started.map_err(ServeError::Uploads)?;
    let links = started.links.into_iter().map(Some).collect();
    Ok((links, Some(started.jobs), Some(started.thread)))
}

fn starttls(tls: &ServerConfigs) -> Option<Arc<crate::transport::tls::ServerConfig>> {
    Some(tls.starttls.clone())
}

/// Gives each shard its own of everything that was made once for each.
fn share_out(
    meshes: Vec<Mesh>,
    links: impl Iterator<Item = ((StorageLink, DeriveLink), Option<UploadLink>)>,
    outside: impl Iterator<Item = (Vec<Listener>, Receiver<Command>)>,
) -> impl Iterator<Item = Ends> {
    let own = meshes.into_iter().zip(links).zip(outside);
    own.map(|((mesh, (links, uploads)), (listeners, commands))| Ends {
        mesh,
        storage: links.0,
        derive: links.1,
        uploads,
        listeners,
        commands,
    })
}

type Up = Sender<(u16, Result<(), String>)>;

fn spawn(
    seed: Seed,
    processors: &[usize],
    up: Up,
) -> Result<ExecutorJoinHandle<Result<Counters, String>>, String> {
    // More shards than processors are moved about by the kernel: pinned, those that share a
    // processor with somebody else's work would starve together.
    let pinned = seed.tuning.pinned && usize::from(seed.plan.shards) <= processors.len();
    let placement = match pinned {
        true => Placement::Fixed(processors[usize::from(seed.index) % processors.len()]),
        false => Placement::Unbound,
    };
    LocalExecutorBuilder::new(placement)
        .name("shard")
        .io_memory(EXECUTOR_MEMORY)
        .ring_depth(EXECUTOR_DEPTH)
        .preempt_timer(park::PREEMPT)
        .spawn(move || async move {
            let index = seed.index;
            let _alive = seed.alive.clone();
            let mut turn = match grow(seed) {
                Ok(turn) => turn,
                Err(error) => {
                    let text = cannot_grow(&error);
                    let _ = up.send((index, Err(text.clone())));
                    return Err(text);
                }
            };
            let _ = up.send((index, Ok(())));
            drop(up);
            let result = park::run(&mut turn).await;
            turn.counters.spilled_max = turn.world.mesh.spilled_max() as u64;
            result
                .map(|()| turn.counters)
                .map_err(|error| error.to_string())
        })
        .map_err(|error| error.to_string())
}

/// What kept a shard from being set up, with the remedy where it is known.
fn cannot_grow(error: &io::Error) -> String {
    match error.kind() {
        // The kernel counts rings and their buffers as locked memory of their user.
        io::ErrorKind::OutOfMemory => format!("{error}: {LOCKED_REMEDY}, or set fewer `shards`"),
        _ => error.to_string(),
    }
}

/// Builds the turn on the thread that will run it.
fn grow(seed: Seed) -> io::Result<Turn> {
    let config = RingConfig {
        entries: RING_ENTRIES,
        completions: RING_COMPLETIONS,
        slots: seed.plan.slots,
    };
    let ring = Ring::new(&config, &seed.features)?;
    let shape = BufferShape::suiting(&ring).shared(seed.plan.shards_per_processor());
    let buffers = Buffers::new(&ring, 0, Some(shape))?;
    let ends = seed.ends;
    let id = ends.mesh.id();
    seed.bells[usize::from(id.0)].hang(ring.try_clone_descriptor()?);
    let world = World {
        conns: Conns::with_capacity(seed.plan.slots),
        pool: Pool::new(POOL_HELD_MAX),
        mesh: ends.mesh,
        storage: ends.storage,
        derive: ends.derive,
        uploads: ends.uploads,
        bosh: Bosh::default(),
        begun: Vec::new(),
        starttls: seed.starttls,
        dirty: Vec::new(),
        ready: VecDeque::new(),
        ending: VecDeque::new(),
        end: seed.end,
        wish: None,
        clock: seed.clock,
        now: seed.clock.now(),
        wall: seed.clock.now(),
        held: 0,
        output_max: seed.output_max,
        bursts: 0,
        choke_size: CHOKE_SIZE_MAX.min(seed.output_max),
        random: Random::new(),
        scratch: Vec::new(),
        message: Vec::new(),
        unframed: Vec::new(),
    };
    let mut shard = Shard::new(id, seed.settings, world.now);
    shard.reserve(seed.plan.slots as usize);
    Ok(Turn {
        ring,
        buffers,
        shard,
        world,
        accept: Accept::new(ends.listeners),
        handoff: Handoff::default(),
        admission: seed.admission,
        bells: seed.bells,
        commands: ends.commands,
        counters: Counters::default(),
        endings: BinaryHeap::new(),
        held_max: seed.tuning.undigested_max,
        held_mark: seed.tuning.undigested_max,
        worked: false,
        ticked: false,
        tick: TICK * seed.plan.shards_per_processor(),
        prepared: None,
        stopping: None,
        stop_ms_max: seed.tuning.stop_ms_max,
        completions: Vec::new(),
        withheld: VecDeque::new(),
        lanes_wait: false,
        armed: None,
        alarms: 0,
        idle_spin: seed.idle_spin,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_without_memory_for_its_ring_says_which_limit_to_raise() {
        // ENOMEM
        let text = cannot_grow(&io::Error::from_raw_os_error(12));
        assert!(
            text.contains("Cannot allocate memory") && text.contains("ulimit -l"),
            "{text}"
        );
        assert!(!cannot_grow(&io::Error::other("x")).contains("ulimit"));
    }
}
