//! Plain descriptors and process facts that the ring's users need and that only libc gives.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Seconds of silence before the kernel asks whether a client is still there. Rarely: each probe
/// wakes a phone.
const KEEPALIVE_IDLE: i32 = 600;

/// Seconds between probes without an answer.
const KEEPALIVE_INTERVAL: i32 = 60;

/// Probes without an answer that end a connection.
const KEEPALIVE_PROBES: i32 = 3;

/// Milliseconds for which a client may not acknowledge what it is sent. Where this is set the
/// kernel does not count its probes, but ends a connection at the first that is due after so long:
/// it must be later than the last one is sent, or a single lost packet would be enough.
const UNACKNOWLEDGED_MS: i32 =
    1000 * (KEEPALIVE_IDLE + (KEEPALIVE_PROBES - 1) * KEEPALIVE_INTERVAL + KEEPALIVE_INTERVAL / 2);

/// How long a connection waits for the other side.
const PATIENCE: [(i32, i32); 4] = [
    (libc::TCP_KEEPIDLE, KEEPALIVE_IDLE),
    (libc::TCP_KEEPINTVL, KEEPALIVE_INTERVAL),
    (libc::TCP_KEEPCNT, KEEPALIVE_PROBES),
    (libc::TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS),
];

/// A kernel counter that a ring signals at each completion while it is registered.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A counter at zero.
    pub fn new() -> io::Result<EventFd> {
        // SAFETY: no pointers are passed.
        let fd = checked(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
        // SAFETY: the descriptor is fresh and ours.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// A second descriptor for the same counter.
    pub fn try_clone(&self) -> io::Result<EventFd> {
        Ok(EventFd(self.0.try_clone()?))
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl From<EventFd> for OwnedFd {
    fn from(event: EventFd) -> OwnedFd {
        event.0
    }
}

/// Turns an owned descriptor into a type that only offers the unsafe `FromRawFd`.
pub fn adopt<T: FromRawFd>(fd: OwnedFd) -> T {
    // SAFETY: the descriptor is open and its ownership is given away here.
    unsafe { T::from_raw_fd(fd.into_raw_fd()) }
}

/// A listening socket that shares its port with its siblings (SO_REUSEPORT), whose connections
/// inherit TCP_NODELAY and end where the other side has vanished.
pub fn bound_listener(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let fd = socket(family)?;
    set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT)?;
    set_option(&fd, libc::IPPROTO_TCP, libc::TCP_NODELAY)?;
    set_option(&fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE)?;
    for (name, value) in PATIENCE {
        set_number(&fd, libc::IPPROTO_TCP, name, value)?;
    }
    if address.is_ipv6() {
        set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)?;
    }
    bind(&fd, address)?;
    // SAFETY: no pointers are passed.
    checked(unsafe { libc::listen(fd.as_raw_fd(), backlog) })?;
    Ok(TcpListener::from(fd))
}

/// An address that nobody listens on: the given one, or with a free port where that is 0. Sharing a
/// port with siblings (SO_REUSEPORT) would share it with a second server as well, silently.
pub fn free_address(address: SocketAddr) -> io::Result<SocketAddr> {
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let fd = socket(family)?;
    set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    if address.is_ipv6() {
        set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)?;
    }
    bind(&fd, address)?;
    TcpListener::from(fd).local_addr()
}

pub(crate) fn socket(family: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    // SAFETY: the descriptor is fresh and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(checked(fd)?) })
}

/// Sets a socket option of type int to 1.
pub(crate) fn set_option(fd: &OwnedFd, level: i32, name: i32) -> io::Result<()> {
    set_number(fd, level, name, 1)
}

fn set_number(fd: &OwnedFd, level: i32, name: i32, number: libc::c_int) -> io::Result<()> {
    // SAFETY: the pointer and size describe `number`.
    let result = unsafe {
        let value = (&raw const number).cast();
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            value,
            size_of_val(&number) as u32,
        )
    };
    checked(result).map(drop)
}

pub(crate) fn bind(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let (storage, len) = to_storage(address);
    // SAFETY: the pointer and length describe `storage`.
    checked(unsafe { libc::bind(fd.as_raw_fd(), (&raw const storage).cast(), len) }).map(drop)
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

pub(crate) fn to_storage(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all zeroes is a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let len = match address {
        SocketAddr::V4(v4) => {
            let target = (&raw mut storage).cast::<libc::sockaddr_in>();
            let value = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: a sockaddr_storage is larger than and aligned for every sockaddr.
            unsafe { target.write(value) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let target = (&raw mut storage).cast::<libc::sockaddr_in6>();
            let value = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { target.write(value) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, len as libc::socklen_t)
}

pub(crate) fn from_storage(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let address = (storage as *const libc::sockaddr_storage).cast::<u8>();
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which sockaddr lies in the storage.
            let v4 = unsafe { address.cast::<libc::sockaddr_in>().read() };
            let ip = v4.sin_addr.s_addr.to_ne_bytes();
            Some(SocketAddr::from((ip, u16::from_be(v4.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { address.cast::<libc::sockaddr_in6>().read() };
            Some(SocketAddr::from((
                v6.sin6_addr.s6_addr,
                u16::from_be(v6.sin6_port),
            )))
        }
        _ => None,
    }
}

/// The hard and soft limit of open files, raised to the hard one first. It also caps the table of
/// direct descriptors of each ring.
pub fn descriptors_max() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer names `limit`.
    checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above. Where raising fails the soft limit stays, which is read again.
    unsafe {
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
    }
    Ok(limit.rlim_cur)
}

/// Pins the calling thread to one of its allowed processors, `index` counted among them.
pub fn pin_thread(index: usize) -> io::Result<()> {
    // SAFETY: a cpu_set_t is plain bits, and sizes and pointers name the sets.
    unsafe {
        let mut allowed: libc::cpu_set_t = std::mem::zeroed();
        checked(libc::sched_getaffinity(
            0,
            size_of_val(&allowed),
            &raw mut allowed,
        ))?;
        let all = libc::CPU_SETSIZE as usize;
        let usable: Vec<usize> = (0..all)
            .filter(|&cpu| libc::CPU_ISSET(cpu, &allowed))
            .collect();
        let mut chosen: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(usable[index % usable.len()], &mut chosen);
        checked(libc::sched_setaffinity(
            0,
            size_of_val(&chosen),
            &raw const chosen,
        ))
        .map(drop)
    }
}

/// Makes the calling thread give way to all others at once: only an idle policy does. With a nice
/// value it would keep a processor for its turn of some 3 ms while a shard waits for it.
pub fn lower_thread_priority() {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer names `none`; 0 is the calling thread. Failing changes nothing.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none) };
}

/// Has the kernel give memory by pages of 4 KiB, which are there when they are touched: by those of
/// 2 MiB, what is reserved for connections that are not there would be memory all the same, 100,000
/// sessions took two thirds more (decision 0012), and beside a million the kernel would stop for
/// half a second to find room for a page.
pub fn small_pages() -> io::Result<()> {
    // SAFETY: no pointers are passed.
    checked(unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) }).map(|_| ())
}

/// CPU time used by the calling thread.
pub fn thread_cpu() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer names `time`.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Resident memory of a process, in bytes; `None` for itself.
pub fn resident_bytes(pid: Option<u32>) -> io::Result<u64> {
    let process = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let text = std::fs::read_to_string(format!("/proc/{process}/statm"))?;
    let pages = text
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    // SAFETY: no pointers are passed.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
    pages
        .map(|pages| pages * page)
        .ok_or_else(|| io::Error::other("statm has another form"))
}

/// The processors that this thread may run on.
pub fn allowed_processors() -> Vec<usize> {
    // SAFETY: a cpu_set_t is plain bits, and size and pointer name the set.
    unsafe {
        let mut allowed: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of_val(&allowed), &raw mut allowed) != 0 {
            return vec![0];
        }
        (0..libc::CPU_SETSIZE as usize)
            .filter(|&cpu| libc::CPU_ISSET(cpu, &allowed))
            .collect()
    }
}

/// SIGTERM and SIGINT, taken by waiting instead of by a handler.
#[derive(Clone, Copy)]
pub struct EndSignals(libc::sigset_t);

impl EndSignals {
    /// Blocks the signals in this thread and in every thread it starts from now on.
    pub fn block() -> EndSignals {
        // SAFETY: a sigset_t is plain bits; the pointers name `set`.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGTERM);
            libc::sigaddset(&raw mut set, libc::SIGINT);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            EndSignals(set)
        }
    }

    /// Waits for one of them, at most `at_most`; says whether one came.
    pub fn wait(&self, at_most: Duration) -> bool {
        let time = libc::timespec {
            tv_sec: at_most.as_secs() as libc::time_t,
            tv_nsec: at_most.subsec_nanos().into(),
        };
        // SAFETY: the pointers name the set and the time; no information is asked for.
        unsafe { libc::sigtimedwait(&self.0, std::ptr::null_mut(), &raw const time) > 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn number(fd: &impl AsRawFd, level: i32, name: i32) -> i32 {
        let (mut number, mut size) = (0, size_of::<libc::c_int>() as u32);
        // SAFETY: the pointers name `number` and its size.
        let result = unsafe {
            let value = (&raw mut number).cast();
            libc::getsockopt(fd.as_raw_fd(), level, name, value, &raw mut size)
        };
        checked(result).unwrap();
        number
    }

    #[test]
    fn a_connection_ends_where_the_other_side_has_vanished() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = bound_listener(address.parse().unwrap(), 8).unwrap();
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            for (name, value) in PATIENCE {
                assert_eq!(number(&listener, libc::IPPROTO_TCP, name), value);
                assert_eq!(number(&accepted, libc::IPPROTO_TCP, name), value);
            }
            let is_asked = number(&accepted, libc::SOL_SOCKET, libc::SO_KEEPALIVE);
            assert_eq!(is_asked, 1);
        }
    }
}
