//! The operations: each one entry (or one linked chain) whose completion carries its token.

use crate::engine::{AcceptLane, Ring, RingConfig};
use crate::fd;
use crate::probe::Features;
use crate::slots::{Op, Token};
use io_uring::{opcode, squeue, types};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

impl Ring {
    /// Accepts one connection into a slot that the kernel chooses, and keeps the peer's address for
    /// [`Ring::peer`]. `lane` is a small number with one accept in flight; completes as
    /// [`Op::Accept`] with `slot: lane` and the slot as the result.
    pub fn accept(&mut self, listener: BorrowedFd<'_>, lane: u32, generation: u32) {
        while self.accepts.len() <= lane as usize {
            // SAFETY: all zeroes is a valid sockaddr_storage.
            let address = unsafe { std::mem::zeroed() };
            self.accepts.push(Box::new(AcceptLane {
                address,
                len: 0,
                in_flight: false,
            }));
        }
        let place = &mut self.accepts[lane as usize];
        assert!(!place.in_flight, "one accept per lane");
        place.in_flight = true;
        place.len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        let (address, len) = (&raw mut place.address, &raw mut place.len);
        let fd = types::Fd(listener.as_raw_fd());
        let entry = opcode::Accept::new(fd, address.cast(), len)
            .file_index(Some(types::DestinationSlot::auto_target()))
            .build();
        let token = Token::new(Op::Accept, lane, generation);
        self.push(&[entry.user_data(token.pack())]);
    }

    /// Who connected in the last finished accept of `lane`.
    pub fn peer(&self, lane: u32) -> Option<SocketAddr> {
        let lane = self
            .accepts
            .get(lane as usize)
            .filter(|lane| !lane.in_flight)?;
        fd::from_storage(&lane.address)
    }

    /// Accepts connections until a completion without `more` (a full table ends it with ENFILE).
    pub fn accept_multi(&mut self, listener: BorrowedFd<'_>, lane: u32, generation: u32) {
        let fd = types::Fd(listener.as_raw_fd());
        let entry = opcode::AcceptMulti::new(fd)
            .allocate_file_index(true)
            .build();
        let token = Token::new(Op::Accept, lane, generation);
        self.push(&[entry.user_data(token.pack())]);
    }

    /// Receives until the peer closes, an error, or ENOBUFS: then a completion without `more`.
    pub fn recv_multi(&mut self, slot: u32, generation: u32, group: u16) {
        let entry = opcode::RecvMulti::new(types::Fixed(slot), group).build();
        let token = Token::new(Op::Recv, slot, generation);
        self.push(&[entry.user_data(token.pack())]);
    }

    /// Receives once, at most `size` bytes (0: as much as the buffer takes).
    pub fn recv_once(&mut self, slot: u32, generation: u32, group: u16, size: u32) {
        let entry = opcode::Recv::new(types::Fixed(slot), std::ptr::null_mut(), size)
            .buf_group(group)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        let token = Token::new(Op::Recv, slot, generation);
        self.push(&[entry.user_data(token.pack())]);
    }

    /// Sends `buffer[from..]` whole (MSG_WAITALL). One send per slot at a time; the completion
    /// brings the buffer back.
    pub fn send(&mut self, slot: u32, generation: u32, buffer: Vec<u8>, from: usize) {
        let bytes = &buffer[from..];
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(types::Fixed(slot), bytes.as_ptr(), size)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build();
        let token = Token::new(Op::Send, slot, generation);
        let slot_index = slot as usize;
        if slot_index >= self.sends.len() {
            assert!(slot < self.slots(), "a slot of this ring");
            self.sends.resize_with(slot_index + 1, || None);
        }
        let place = &mut self.sends[slot_index];
        assert!(place.is_none(), "one send per slot");
        // Moving a Vec does not move its heap bytes, so the entry's pointer stays right.
        *place = Some(buffer);
        self.push(&[entry.user_data(token.pack())]);
    }

    /// Frees a slot and closes its socket. Nothing may be in flight on it but what was cancelled.
    pub fn close(&mut self, slot: u32, generation: u32) {
        let entry = opcode::Close::new(types::Fixed(slot)).build();
        let token = Token::new(Op::Close, slot, generation);
        self.push(&[entry.user_data(token.pack())]);
    }

    /// Cancels the operation that `token` names; it completes with ECANCELED, or as it would have.
    pub fn cancel(&mut self, token: Token) {
        let entry = opcode::AsyncCancel::new(token.pack()).build();
        let own = Token::new(Op::Cancel, token.slot, token.generation);
        self.push(&[entry.user_data(own.pack())]);
    }

    /// Ends the writing side: the peer reads everything and then the end. The kernel does it on a
    /// worker thread, so this is for rare closings. It looks the slot up only there: the slot must
    /// keep its user until [`Op::Shutdown`] has completed.
    pub fn shutdown_write(&mut self, slot: u32, generation: u32) {
        let entry = opcode::Shutdown::new(types::Fixed(slot), libc::SHUT_WR).build();
        let token = Token::new(Op::Shutdown, slot, generation);
        self.push(&[entry.user_data(token.pack())]);
    }

    /// Completes as [`Op::Timeout`] (result -ETIME) after `after`.
    pub fn timeout(&mut self, slot: u32, generation: u32, after: Duration) -> io::Result<()> {
        self.make_scratch_room()?;
        let time = self.scratch.time(types::Timespec::from(after));
        let token = Token::new(Op::Timeout, slot, generation);
        self.push(&[opcode::Timeout::new(time).build().user_data(token.pack())]);
        Ok(())
    }

    /// Completes as [`Op::Poll`] when a plain descriptor is readable.
    pub fn poll_readable(&mut self, fd: BorrowedFd<'_>, slot: u32, generation: u32) {
        let fd = types::Fd(fd.as_raw_fd());
        let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).build();
        let token = Token::new(Op::Poll, slot, generation);
        self.push(&[entry.user_data(token.pack())]);
    }

    /// Posts a completion with `token` and `result` into another ring, waking its thread. Failure
    /// alone completes here, as [`Op::Cancel`] of slot `u32::MAX`.
    pub fn ring_bell(&mut self, other: RawFd, token: Token, result: i32) {
        let entry = opcode::MsgRingData::new(types::Fd(other), result, token.pack(), None).build();
        let own = Token::new(Op::Cancel, u32::MAX, 0);
        self.push(&[entry
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(own.pack())]);
    }

    /// Sends the socket of `slot` into a free slot of another ring, then closes ours. There it
    /// arrives as `arrival` with the new slot as result; here [`Op::Sent`] follows, and an
    /// [`Op::Close`] behind it. Where `Sent` is negative (ENFILE: the table there is full) the
    /// close is cancelled and the slot is as it was.
    pub fn send_slot(&mut self, slot: u32, generation: u32, other: RawFd, arrival: Token) {
        let target = types::DestinationSlot::auto_target();
        let source = types::Fixed(slot);
        let ring = types::Fd(other);
        let send = opcode::MsgRingSendFd::new(ring, source, target, arrival.pack()).build();
        let close = opcode::Close::new(source).build();
        let token = Token::new(Op::Sent, slot, generation);
        let after = Token::new(Op::Close, slot, generation);
        self.push(&[
            send.flags(squeue::Flags::IO_LINK).user_data(token.pack()),
            close.user_data(after.pack()),
        ]);
    }
}

/// A ring that only rings others: for threads that have no ring of their own.
pub struct Bell {
    ring: Ring,
    ignored: Vec<crate::Completion>,
}

impl Bell {
    /// A bell, to be used by the calling thread.
    pub fn new(features: &Features) -> io::Result<Bell> {
        let config = RingConfig {
            entries: 16,
            completions: 32,
            slots: 1,
        };
        Ok(Bell {
            ring: Ring::new(&config, features)?,
            ignored: Vec::new(),
        })
    }

    /// Posts a completion with `token` into `other`.
    pub fn ring(&mut self, other: RawFd, token: Token) -> io::Result<()> {
        self.ring.ring_bell(other, token, 0);
        self.ring.run_deferred()?;
        self.ring.reap(None, &mut self.ignored);
        self.ignored.clear();
        Ok(())
    }
}
