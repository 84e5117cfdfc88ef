//! One ring: set-up, submission and completions; the operations are in `ops.rs`.
//!
//! Invariant: a `Vec` being sent lives in `sends` until its completion, an address being filled in
//! `accepts`; both are leaked, not freed, where the ring dies first.

use crate::buffers::{Buffers, Chunk};
use crate::connect::Scratch;
use crate::probe::Features;
use crate::slots::{Op, Token};
use io_uring::{IoUring, cqueue, squeue};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

/// The size of a ring.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Submission entries; a power of two.
    pub entries: u32,
    /// Completion entries; a power of two.
    pub completions: u32,
    /// Direct descriptors; capped by RLIMIT_NOFILE.
    pub slots: u32,
}

/// One finished operation, or one result of an operation that goes on.
#[derive(Debug)]
pub struct Completion {
    /// Which.
    pub token: Token,
    /// What the kernel answered: a count or slot, or the negative error number.
    pub result: i32,
    /// Whether more completions of the same operation follow.
    pub more: bool,
    /// What was received; to be given back to the [`Buffers`].
    pub chunk: Option<Chunk>,
    /// What was sent, back for the pool or for sending the rest.
    pub buffer: Option<Vec<u8>>,
}

impl Completion {
    /// The error, where the result is one.
    pub fn error(&self) -> Option<io::Error> {
        (self.result < 0).then(|| io::Error::from_raw_os_error(-self.result))
    }
}

pub(crate) struct AcceptLane {
    pub(crate) address: libc::sockaddr_storage,
    pub(crate) len: libc::socklen_t,
    pub(crate) in_flight: bool,
}

/// How often a ring's memory is asked for.
const BUILD_TRIES: u32 = 20;
/// How long that rests between.
const BUILD_REST: Duration = Duration::from_millis(1);

/// Sets a ring up, whatever fills memory: the kernel asks for all its pages at once and gives up
/// with ENOMEM where it gets fewer (`io_region_allocate_pages`, Linux 6.14). So it does while files
/// fill its cache, though it need only take some back from there: of 100,000 set up beside a large
/// copy 100 failed, and each at once succeeded.
fn build(builder: &io_uring::Builder, entries: u32) -> io::Result<IoUring> {
    let mut tries = 0;
    loop {
        tries += 1;
        match builder.build(entries) {
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory && tries < BUILD_TRIES => {
                std::thread::sleep(BUILD_REST);
            }
            other => return other,
        }
    }
}

/// An io_uring with a table of direct descriptors. Only the thread that made it may use it
/// (SINGLE_ISSUER), which it is not `Send` for.
pub struct Ring {
    uring: IoUring,
    features: Features,
    slots: u32,
    backlog: VecDeque<Vec<squeue::Entry>>,
    /// What is being sent, by slot; as long as the highest slot that ever sent asks for. The kernel
    /// chooses the lowest that is free, so it grows with the connections, not with their maximum,
    /// in the room that is reserved for all: nobody has touched the rest, so it is no memory yet.
    pub(crate) sends: Vec<Option<Vec<u8>>>,
    #[expect(
        clippy::vec_box,
        reason = "the kernel writes to a lane while the vector grows"
    )]
    pub(crate) accepts: Vec<Box<AcceptLane>>,
    pub(crate) scratch: Box<Scratch>,
    _one_thread: std::marker::PhantomData<*const ()>,
}

impl Ring {
    /// Sets a ring up with what `features` allows.
    pub fn new(config: &RingConfig, features: &Features) -> io::Result<Ring> {
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(config.completions);
        builder.setup_clamp();
        if features.no_sqarray {
            builder.setup_no_sqarray();
        }
        let uring = build(&builder, config.entries)?;
        uring.submitter().register_files_sparse(config.slots)?;
        Ok(Ring {
            uring,
            features: *features,
            slots: config.slots,
            backlog: VecDeque::new(),
            sends: Vec::with_capacity(config.slots as usize),
            accepts: Vec::new(),
            scratch: Box::new(Scratch::new()),
            _one_thread: std::marker::PhantomData,
        })
    }

    /// What this ring was set up with.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// The size of the table of direct descriptors.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// The ring's own descriptor: what other rings need to ring it or send to it.
    pub fn descriptor(&self) -> RawFd {
        self.uring.as_raw_fd()
    }

    /// A duplicate of the ring's descriptor, for siblings that may outlive this ring.
    pub fn try_clone_descriptor(&self) -> io::Result<OwnedFd> {
        // SAFETY: the ring owns its descriptor for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.uring.as_raw_fd()) }
            .as_fd()
            .try_clone_to_owned()
    }

    /// Hands what was pushed to the kernel.
    pub fn submit(&mut self) -> io::Result<()> {
        self.enter(0, false)
    }

    /// Hands over what was pushed and sleeps until `want` completions are there. It takes no
    /// timeout (one on every wait costs up to 14 us); arm [`Ring::timeout`] for that.
    pub fn submit_and_wait(&mut self, want: u32) -> io::Result<()> {
        self.enter(want, true)
    }

    /// Hands over what was pushed and lets deferred completions come up, without sleeping.
    pub fn run_deferred(&mut self) -> io::Result<()> {
        self.enter(0, true)
    }

    fn enter(&mut self, want: u32, get_events: bool) -> io::Result<()> {
        const GETEVENTS: u32 = 1;
        self.drain_backlog();
        let to_submit = self.uring.submission().len() as u32;
        let flags = if get_events { GETEVENTS } else { 0 };
        let submitter = self.uring.submitter();
        // SAFETY: no argument structure is passed; the entries were made by this crate, whose
        // operations keep what they point to alive.
        let result = unsafe { submitter.enter::<libc::sigset_t>(to_submit, want, flags, None) };
        match result {
            Ok(submitted) => {
                if submitted as u32 == to_submit && self.backlog.is_empty() {
                    self.scratch.clear();
                }
                Ok(())
            }
            // EINTR: a signal. EBUSY and EAGAIN: completions must be reaped first, entries stay.
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Whether no completion waits to be reaped.
    pub fn is_quiet(&mut self) -> bool {
        self.uring.completion().is_empty()
    }

    /// Moves the finished completions into `out`, at most as many as were there at the call.
    pub fn reap(&mut self, mut buffers: Option<&mut Buffers>, out: &mut Vec<Completion>) {
        let (sends, accepts) = (&mut self.sends, &mut self.accepts);
        for entry in self.uring.completion() {
            let Some(token) = Token::unpack(entry.user_data()) else {
                continue;
            };
            let (flags, result) = (entry.flags(), entry.result());
            let mut completion = Completion {
                token,
                result,
                more: cqueue::more(flags),
                chunk: None,
                buffer: None,
            };
            if let (Some(buffer), Some(buffers)) = (cqueue::buffer_select(flags), &mut buffers) {
                let more = cqueue::buffer_more(flags);
                completion.chunk = Some(buffers.book(buffer, result.max(0) as u32, more));
            }
            match token.op {
                Op::Send => completion.buffer = sends[token.slot as usize].take(),
                Op::Accept => {
                    if let Some(lane) = accepts.get_mut(token.slot as usize) {
                        lane.in_flight = completion.more;
                    }
                }
                _ => {}
            }
            out.push(completion);
        }
    }

    /// Pushes entries that must stay together (a linked chain), in order behind all earlier ones.
    pub(crate) fn push(&mut self, entries: &[squeue::Entry]) {
        if self.backlog.is_empty() && self.try_push(entries) {
            return;
        }
        self.drain_backlog();
        if !self.backlog.is_empty() || !self.try_push(entries) {
            // The kernel takes nothing until completions are reaped: the next enter drains this.
            self.backlog.push_back(entries.to_vec());
        }
    }

    fn try_push(&mut self, entries: &[squeue::Entry]) -> bool {
        for _ in 0..2 {
            let mut queue = self.uring.submission();
            if queue.capacity() - queue.len() >= entries.len() {
                // SAFETY: every operation of this crate keeps its memory alive until completion.
                return unsafe { queue.push_multiple(entries) }.is_ok();
            }
            drop(queue);
            if self.uring.submitter().submit().is_err() {
                return false;
            }
        }
        false
    }

    fn drain_backlog(&mut self) {
        while let Some(entries) = self.backlog.pop_front() {
            if !self.try_push(&entries) {
                self.backlog.push_front(entries);
                return;
            }
        }
    }

    /// Registers an eventfd that each completion signals, for sleeping elsewhere.
    pub fn register_eventfd(&self, event: &crate::EventFd) -> io::Result<()> {
        self.uring.submitter().register_eventfd(event.as_raw_fd())
    }

    /// Ends what [`Ring::register_eventfd`] began.
    pub fn unregister_eventfd(&self) -> io::Result<()> {
        self.uring.submitter().unregister_eventfd()
    }

    /// Puts a plain descriptor into a slot; the plain one is closed.
    pub fn install(&self, slot: u32, fd: OwnedFd) -> io::Result<()> {
        self.uring
            .submitter()
            .register_files_update(slot, &[fd.as_raw_fd()])
            .map(drop)
    }

    pub(crate) fn register_buffers(
        &self,
        address: u64,
        count: u16,
        group: u16,
        incremental: bool,
    ) -> io::Result<()> {
        const IOU_PBUF_RING_INC: u16 = 2;
        let flags = if incremental { IOU_PBUF_RING_INC } else { 0 };
        // SAFETY: `Buffers::new` is the only caller and never unmaps what it passes.
        unsafe {
            self.uring
                .submitter()
                .register_buf_ring_with_flags(address, count, group, flags)
        }
    }

    pub(crate) fn accepts_incremental_buffers(&self) -> bool {
        const GROUP: u16 = u16::MAX;
        const ENTRIES: u16 = 1;
        let Ok(page) = crate::buffers::map(4096) else {
            return false;
        };
        let accepted = self
            .register_buffers(page as u64, ENTRIES, GROUP, true)
            .is_ok();
        accepted && self.uring.submitter().unregister_buf_ring(GROUP).is_ok()
    }

    pub(crate) fn supports_bind(&self) -> bool {
        let mut probe = io_uring::Probe::new();
        self.uring.submitter().register_probe(&mut probe).is_ok()
            && probe.is_supported(io_uring::opcode::Bind::CODE)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel ends pending operations only some time after the descriptor is closed.
        for buffer in self.sends.iter_mut().filter_map(Option::take) {
            std::mem::forget(buffer);
        }
        for lane in self.accepts.drain(..).filter(|lane| lane.in_flight) {
            std::mem::forget(lane);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_remembers_sends_of_the_slots_that_sent_and_no_others() {
        let features = crate::probe().expect("io_uring is here");
        let config = RingConfig {
            entries: 8,
            completions: 16,
            slots: 4096,
        };
        let mut ring = Ring::new(&config, &features).expect("a ring");
        assert_eq!(ring.sends.len(), 0);
        // Nothing is in the slot, so the kernel gives the buffer back at once.
        ring.send(5, 1, vec![0; 10], 0);
        assert_eq!(ring.sends.len(), 6);
        ring.submit_and_wait(1).expect("the kernel takes it");
        let mut completions = Vec::new();
        ring.reap(None, &mut completions);
        assert_eq!(completions[0].buffer.as_ref().map(Vec::len), Some(10));
        assert!(completions[0].error().is_some());
    }
}
