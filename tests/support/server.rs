//! Starts the built binary on free ports in a directory of its own, and stops it by its pid.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use xmpp::ShardId;
use xmpp::router::Router;

use super::{DOMAIN, PASSWORD};

const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// Where servers listen.
const PORTS: Range<u16> = 16_384..32_768;
const PORTS_OF_A_PROCESS: u32 = 64;

static STARTED: AtomicU32 = AtomicU32::new(0);
static PORTS_TAKEN: AtomicU32 = AtomicU32::new(0);

/// What a test wants of its server.
pub(crate) struct Options<'a> {
    /// Threads that own accounts.
    pub(crate) shards: u16,
    /// Accounts to make, named from `u0`.
    pub(crate) users: u32,
    /// How many in order are contacts of each other.
    pub(crate) clique: u32,
    /// Lines of `[limits]`.
    pub(crate) limits: &'a str,
    /// Lines of `[auth]` beside the permission to use PLAIN in clear.
    pub(crate) auth: &'a str,
    /// Lines of `[listen]` beside the ports of XMPP.
    pub(crate) listen: &'a str,
    /// Whether clients must use TLS.
    pub(crate) tls_required: bool,
    /// Whether there are archives: what is delivered has an id then.
    pub(crate) archive: bool,
    /// Sections behind all others.
    pub(crate) more: &'a str,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            shards: 1,
            users: 4,
            clique: 4,
            limits: "",
            auth: "",
            listen: "",
            tls_required: false,
            archive: false,
            more: "",
        }
    }
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    directory: PathBuf,
    port: u16,
}

impl Server {
    /// Starts a server that accepts PLAIN in clear, with accounts `u0`, `u1`, ..
    pub(crate) fn start(options: &Options<'_>) -> Server {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("vorpal-test-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).expect("the temporary directory is writable");
        let port = free_port();
        let config = format!(
            "domain = {DOMAIN:?}\ndata = {data:?}\nshards = {shards}\n\
             [listen]\nc2s = \"127.0.0.1:{port}\"\nc2s_tls = \"127.0.0.1:{tls_port}\"\n{listen}\n\
             [tls]\nrequired = {required}\n[auth]\nplain_without_tls = true\n{auth}\n\
             [limits]\n{limits}\n[archive]\nenabled = {archive}\n{more}\n",
            data = directory.join("data"),
            shards = options.shards,
            tls_port = free_port(),
            listen = options.listen,
            required = options.tls_required,
            auth = options.auth,
            limits = options.limits,
            archive = options.archive,
            more = options.more,
        );
        fs::write(directory.join("vorpal.toml"), config).expect("the directory is writable");
        make_users(&directory, options);
        let child = launch(&directory);
        Server {
            child,
            directory,
            port,
        }
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Where its files are; the configuration is `vorpal.toml`.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Brings accounts into the running server: `<user/>` elements of XEP-0227.
    pub(crate) fn import(&self, users: &str) {
        let text = format!(
            "<server-data xmlns='urn:xmpp:pie:0'><host jid='{DOMAIN}'>{users}</host></server-data>"
        );
        fs::write(self.directory.join("users.xml"), text).expect("the directory is writable");
        let output = vorpal(&self.directory)
            .args(["import", "users.xml", "--config", "vorpal.toml"])
            .output()
            .expect("the binary was built");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "import: {complaint}");
    }

    /// Asks the server to stop, as an administrator does.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Ends the server at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("the child is ours");
    }

    /// Waits for the end of a server that was asked to stop.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + STOP_MAX;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                return status;
            }
            assert!(
                Instant::now() < until,
                "the server ignored SIGTERM\n{}",
                self.log()
            );
            sleep(POLL);
        }
    }

    /// Stops the server and starts it again on the same data and port.
    pub(crate) fn restart(&mut self) {
        self.terminate();
        self.wait();
        self.start_again();
    }

    /// Starts the server again, which has ended.
    pub(crate) fn start_again(&mut self) {
        self.child = launch(&self.directory);
    }

    /// Whether the process lives.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the child is ours").is_none()
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// The most that it ever was.
    pub(crate) fn resident_peak_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).expect("the server runs");
        let line = status
            .lines()
            .find(|line| line.starts_with(name))
            .expect("the kernel tells it");
        let number = line.split_whitespace().nth(1).expect("a number follows");
        number.parse().expect("it is a number")
    }

    /// What the server logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn signal(&self, name: &str) {
        // The shell's own `kill`: the program is not on every machine.
        let line = format!("kill -{name} {}", self.child.id());
        let status = Command::new("sh")
            .args(["-c", &line])
            .status()
            .expect("there is a shell");
        assert!(status.success(), "{line} failed");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The shard that an account is at home on: where two meet is no matter of chance, so this asks
/// the router itself.
pub(crate) fn home(user: &str, shards: u16) -> u16 {
    let router = Router::new(DOMAIN, shards, ShardId(0));
    router.home(&format!("{user}@{DOMAIN}")).0
}

/// A port that nobody listens on, below those that Linux gives to connections, and another one at
/// each call.
pub(crate) fn free_port() -> u16 {
    loop {
        let number = PORTS_TAKEN.fetch_add(1, Ordering::Relaxed);
        // Test binaries that run beside each other begin apart.
        let place = std::process::id()
            .wrapping_mul(PORTS_OF_A_PROCESS)
            .wrapping_add(number);
        let port = PORTS.start + (place % PORTS.len() as u32) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

fn vorpal(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vorpal"));
    command.current_dir(directory).stdin(Stdio::null());
    command
}

fn make_users(directory: &Path, options: &Options<'_>) {
    let output = vorpal(directory)
        .args([
            "user",
            "make",
            "u%d",
            "--password",
            PASSWORD,
            "--config",
            "vorpal.toml",
        ])
        .args(["--count", &options.users.to_string()])
        .args(["--clique", &options.clique.to_string()])
        .output()
        .expect("the binary was built");
    assert!(
        output.status.success(),
        "user make: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn launch(directory: &Path) -> Child {
    let ready = directory.join("ready");
    let _ = fs::remove_file(&ready);
    let log = File::options()
        .create(true)
        .append(true)
        .open(directory.join("log"));
    let log = log.expect("the directory is writable");
    let mut child = vorpal(directory)
        .args(["serve", "--config", "vorpal.toml", "--ready-file", "ready"])
        .stdout(log.try_clone().expect("a descriptor is free"))
        .stderr(log)
        .spawn()
        .expect("the binary was built");
    let until = Instant::now() + START_MAX;
    while !ready.exists() {
        let ended = child.try_wait().expect("the child is ours");
        let said = || fs::read_to_string(directory.join("log")).unwrap_or_default();
        assert!(ended.is_none(), "the server ended at once:\n{}", said());
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the server did not come up:\n{}", said());
        }
        sleep(POLL);
    }
    child
}
