//! Outgoing connections as one linked chain: socket, options, bind, connect; one completion each.

use crate::engine::Ring;
use crate::fd;
use crate::slots::{Op, Token};
use io_uring::{opcode, squeue, types};
use std::io;
use std::net::{IpAddr, SocketAddr};

/// Things that entries point to until they are submitted; the kernel copies them then.
pub(crate) struct Scratch {
    addresses: [(libc::sockaddr_storage, libc::socklen_t); Scratch::ADDRESSES],
    addresses_used: usize,
    times: [types::Timespec; Scratch::TIMES],
    times_used: usize,
}

impl Scratch {
    const ADDRESSES: usize = 128;
    const TIMES: usize = 64;

    pub(crate) fn new() -> Scratch {
        // SAFETY: all zeroes is a valid sockaddr_storage.
        let empty: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        Scratch {
            addresses: [(empty, 0); Scratch::ADDRESSES],
            addresses_used: 0,
            times: [types::Timespec::new(); Scratch::TIMES],
            times_used: 0,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.addresses_used = 0;
        self.times_used = 0;
    }

    fn has_room(&self) -> bool {
        self.addresses_used + 2 <= Scratch::ADDRESSES && self.times_used < Scratch::TIMES
    }

    fn address(&mut self, address: SocketAddr) -> (*const libc::sockaddr, libc::socklen_t) {
        let place = &mut self.addresses[self.addresses_used];
        self.addresses_used += 1;
        *place = fd::to_storage(address);
        ((&raw const place.0).cast(), place.1)
    }

    pub(crate) fn time(&mut self, time: types::Timespec) -> *const types::Timespec {
        self.times[self.times_used] = time;
        self.times_used += 1;
        &raw const self.times[self.times_used - 1]
    }
}

/// Where to connect from and to.
#[derive(Clone, Copy, Debug)]
pub struct ConnectPlan {
    /// The local address; the kernel chooses where there is none.
    pub source: Option<IpAddr>,
    /// The server.
    pub target: SocketAddr,
}

/// An option's value; SETSOCKOPT reads it when it runs, so it must live for ever.
static ONE: libc::c_int = 1;

/// Linux: the port is chosen at connect, so that one address serves many targets.
const IP_BIND_ADDRESS_NO_PORT: u32 = 24;

impl Ring {
    /// Connects `slot` (chosen by the caller, free). Exactly one [`Op::Connect`] follows, negative
    /// where any step failed; the slot needs a [`Ring::close`] in that case too.
    pub fn connect(&mut self, slot: u32, generation: u32, plan: &ConnectPlan) -> io::Result<()> {
        self.make_scratch_room()?;
        let data = Token::new(Op::Connect, slot, generation).pack();
        let fixed = types::Fixed(slot);
        let (target, target_len) = self.scratch.address(plan.target);
        let connect = opcode::Connect::new(fixed, target, target_len)
            .build()
            .user_data(data);
        if !self.features().bind {
            self.install(slot, plain_socket(plan)?)?;
            self.push(&[connect]);
            return Ok(());
        }
        // A failing member posts its error and silences the rest; success posts only CONNECT.
        let link = squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS;
        let slot_target = types::DestinationSlot::try_from_slot_target(slot).ok();
        let family = if plan.target.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        let mut chain = Vec::with_capacity(5);
        chain.push(
            opcode::Socket::new(family, libc::SOCK_STREAM, 0)
                .file_index(slot_target)
                .build(),
        );
        chain.push(set_one(
            fixed,
            libc::IPPROTO_TCP as u32,
            libc::TCP_NODELAY as u32,
        ));
        if let Some(source) = plan.source {
            if source.is_ipv4() {
                chain.push(set_one(
                    fixed,
                    libc::IPPROTO_IP as u32,
                    IP_BIND_ADDRESS_NO_PORT,
                ));
            }
            let (local, local_len) = self.scratch.address(SocketAddr::new(source, 0));
            chain.push(opcode::Bind::new(fixed, local, local_len).build());
        }
        for entry in &mut chain {
            *entry = entry.clone().flags(link).user_data(data);
        }
        chain.push(connect);
        self.push(&chain);
        Ok(())
    }

    /// Submits where the next operation might not find room for what it points to.
    pub(crate) fn make_scratch_room(&mut self) -> io::Result<()> {
        while !self.scratch.has_room() {
            self.submit()?;
            if !self.scratch.has_room() {
                // The kernel asks for completions to be reaped; let deferred work run and retry.
                self.run_deferred()?;
                std::thread::yield_now();
            }
        }
        Ok(())
    }
}

fn set_one(fixed: types::Fixed, level: u32, name: u32) -> squeue::Entry {
    let value = (&raw const ONE).cast();
    opcode::SetSockOpt::new(fixed, level, name, value, size_of_val(&ONE) as u32).build()
}

/// Kernels before 6.11: the same preparation by plain calls.
fn plain_socket(plan: &ConnectPlan) -> io::Result<std::os::fd::OwnedFd> {
    let family = if plan.target.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let socket = fd::socket(family)?;
    fd::set_option(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY)?;
    if let Some(source) = plan.source {
        if source.is_ipv4() {
            fd::set_option(&socket, libc::IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT as i32)?;
        }
        fd::bind(&socket, SocketAddr::new(source, 0))?;
    }
    Ok(socket)
}
