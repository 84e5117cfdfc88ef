//! The floor: a relay on one thread that parses nothing. It uses the same ring, buffers and pool as
//! the server and batches as it does: all completions of a turn, then one send per connection.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ring::{Buffers, Completion, Features, Op, Pool, Ring, RingConfig};

use crate::body::BROADCAST;
use crate::wire::{FRAME_HEAD_SIZE, HELLO};

const GROUP: u16 = 0;
const POOL_MAX: usize = 64 << 20;
const BACKLOG: i32 = 4096;
/// Room for a turn of output to one peer before it grows.
const OUT_SIZE: usize = 1024;
/// How often a stopped relay notices that it is stopped.
const TICK: Duration = Duration::from_millis(50);

/// What the relay is built for.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Clients at most.
    pub clients: u32,
    /// Bytes of a frame.
    pub frame_size: usize,
    /// Members of a clique, to which a broadcast goes.
    pub clique: u32,
    /// The core it is pinned to.
    pub core: usize,
}

/// A running relay.
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where its CPU time can be read.
    pub busy_path: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Starts one on a free loopback port.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn start(shape: Shape, features: Features) -> Result<Relay, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, started) = channel();
        let seen = stop.clone();
        let thread = std::thread::Builder::new()
            .name("floor".into())
            .spawn(move || {
                if let Err(error) = serve(shape, &features, &seen, &sender) {
                    // Whoever waits for the start learns it; later failures show as lost frames.
                    let _ = sender.send(Err(format!("the floor's relay: {error}")));
                }
            })
            .map_err(|error| error.to_string())?;
        let (address, busy_path) = started
            .recv()
            .map_err(|_| "the floor's relay did not start".to_owned())??;
        Ok(Relay {
            address,
            busy_path,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already.
            let _ = thread.join();
        }
    }
}

#[derive(Default)]
struct Peer {
    held: Vec<u8>,
    out: Vec<u8>,
    sending: bool,
    dirty: bool,
}

struct State {
    shape: Shape,
    ring: Ring,
    pool: Pool,
    peers: Vec<Peer>,
    /// The slot of each client.
    slots: Vec<u32>,
    dirty: Vec<u32>,
}

type Started = Result<(SocketAddr, String), String>;

fn serve(
    shape: Shape,
    features: &Features,
    stop: &AtomicBool,
    started: &Sender<Started>,
) -> std::io::Result<()> {
    ring::pin_thread(shape.core)?;
    let slots = shape.clients + crate::plan::SLOTS_SPARE;
    let ring = Ring::new(
        &RingConfig {
            entries: 4096,
            completions: 16_384,
            slots,
        },
        features,
    )?;
    let mut buffers = Buffers::new(&ring, GROUP, None)?;
    let listener = ring::bound_listener(SocketAddr::from(([127, 0, 0, 1], 0)), BACKLOG)?;
    let address = listener.local_addr()?;
    let mut state = State {
        shape,
        ring,
        pool: Pool::new(POOL_MAX),
        peers: (0..slots).map(|_| Peer::default()).collect(),
        slots: vec![u32::MAX; shape.clients as usize],
        dirty: Vec::new(),
    };
    state.ring.accept_multi(listener.as_fd(), 0, 0);
    state.ring.timeout(0, 0, TICK)?;
    // The controller is gone only if it failed; then `stop` follows.
    let _ = started.send(Ok((address, crate::machine::thread_path())));
    let mut completions: Vec<Completion> = Vec::with_capacity(4096);
    while !stop.load(Ordering::Relaxed) {
        state.ring.submit_and_wait(1)?;
        state.ring.reap(Some(&mut buffers), &mut completions);
        for completion in completions.drain(..) {
            match completion.token.op {
                Op::Accept => state.on_accept(completion.result, completion.more, &listener),
                Op::Timeout => state.ring.timeout(0, 0, TICK)?,
                _ => state.on_completion(completion, &mut buffers),
            }
        }
        state.flush();
    }
    Ok(())
}

impl State {
    fn on_accept(&mut self, result: i32, more: bool, listener: &TcpListener) {
        if result >= 0 {
            self.peers[result as usize] = Peer::default();
            self.ring.recv_multi(result as u32, 0, GROUP);
        }
        if !more {
            self.ring.accept_multi(listener.as_fd(), 0, 0);
        }
    }

    fn on_completion(&mut self, completion: Completion, buffers: &mut Buffers) {
        let slot = completion.token.slot;
        match completion.token.op {
            Op::Recv => {
                if let Some(chunk) = &completion.chunk {
                    self.on_bytes(slot, buffers.bytes(chunk));
                }
                self.after_recv(slot, completion.result, completion.more);
            }
            Op::Send => {
                let peer = &mut self.peers[slot as usize];
                peer.sending = false;
                if peer.dirty {
                    self.dirty.push(slot);
                }
            }
            _ => {}
        }
        if let Some(chunk) = completion.chunk {
            buffers.give_back(chunk);
        }
        if let Some(buffer) = completion.buffer {
            self.pool.give(buffer);
        }
    }

    fn after_recv(&mut self, slot: u32, result: i32, more: bool) {
        const NO_BUFFERS: i32 = -105;
        if more {
            return;
        }
        if result > 0 || result == NO_BUFFERS {
            self.ring.recv_multi(slot, 0, GROUP);
        } else if !self.peers[slot as usize].sending {
            self.ring.close(slot, 0);
        }
    }

    fn on_bytes(&mut self, slot: u32, bytes: &[u8]) {
        let size = self.shape.frame_size;
        let mut held = std::mem::take(&mut self.peers[slot as usize].held);
        let tail = if held.is_empty() {
            let frames = bytes.chunks_exact(size);
            let tail = frames.remainder();
            frames.for_each(|frame| self.on_frame(slot, frame));
            if !tail.is_empty() {
                held = self.pool.take(size);
            }
            tail
        } else {
            let missing = (size - held.len()).min(bytes.len());
            held.extend_from_slice(&bytes[..missing]);
            if held.len() < size {
                b""
            } else {
                self.on_frame(slot, &held);
                held.clear();
                let frames = bytes[missing..].chunks_exact(size);
                let tail = frames.remainder();
                frames.for_each(|frame| self.on_frame(slot, frame));
                tail
            }
        };
        held.extend_from_slice(tail);
        if held.is_empty() {
            self.pool.give(std::mem::take(&mut held));
        }
        self.peers[slot as usize].held = held;
    }

    fn on_frame(&mut self, slot: u32, frame: &[u8]) {
        let word = |at: usize| {
            u32::from_le_bytes(
                frame[at..at + 4]
                    .try_into()
                    .expect("four bytes make a word"),
            )
        };
        let (to, from) = (word(0), word(FRAME_HEAD_SIZE / 2));
        match to {
            HELLO => {
                if let Some(place) = self.slots.get_mut(from as usize) {
                    *place = slot;
                }
                self.write(slot, frame);
            }
            BROADCAST => {
                let first = from / self.shape.clique * self.shape.clique;
                for client in first..(first + self.shape.clique).min(self.shape.clients) {
                    self.route(client, frame);
                }
            }
            _ => self.route(to, frame),
        }
    }

    fn route(&mut self, client: u32, frame: &[u8]) {
        if let Some(&slot) = self
            .slots
            .get(client as usize)
            .filter(|slot| **slot != u32::MAX)
        {
            self.write(slot, frame);
        }
    }

    fn write(&mut self, slot: u32, frame: &[u8]) {
        let peer = &mut self.peers[slot as usize];
        if peer.out.capacity() == 0 {
            peer.out = self.pool.take(OUT_SIZE);
        }
        peer.out.extend_from_slice(frame);
        if !peer.dirty {
            peer.dirty = true;
            if !peer.sending {
                self.dirty.push(slot);
            }
        }
    }

    fn flush(&mut self) {
        for slot in self.dirty.drain(..) {
            let peer = &mut self.peers[slot as usize];
            if peer.sending {
                continue;
            }
            peer.dirty = false;
            peer.sending = true;
            self.ring.send(slot, 0, std::mem::take(&mut peer.out), 0);
        }
    }
}
