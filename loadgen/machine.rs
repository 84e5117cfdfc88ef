//! What the machine and a process say about themselves under `/proc`.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::OnceLock;
use std::{fmt, fs};

use aws_lc_rs::digest;

use crate::plain;

/// Bytes of a file that are hashed at once.
const HASHED_AT_ONCE: usize = 64 << 10;

/// The facts of the machine that decide a result.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Machine {
    /// Its name.
    #[serde(deserialize_with = "plain::text")]
    pub host: String,
    /// The kernel's release.
    #[serde(deserialize_with = "plain::text")]
    pub kernel: String,
    /// The processor's model.
    #[serde(deserialize_with = "plain::text")]
    pub cpu: String,
    /// Cores in use by the system.
    pub cores: usize,
    /// Memory in kB.
    pub memory_kb: u64,
    /// Soft and hard limit of open files.
    pub open_files: (u64, u64),
    /// The clock that times are read from.
    #[serde(deserialize_with = "plain::text")]
    pub clock_source: String,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine {
            cpu, cores, kernel, ..
        } = self;
        write!(f, "{cpu}, {cores} cores, kernel {kernel}")
    }
}

impl Machine {
    /// Reads them; what cannot be read is empty or 0.
    pub fn read() -> Machine {
        let cpuinfo = line("/proc/cpuinfo");
        let field = |text: &str, name: &str| {
            text.lines()
                .find(|line| line.starts_with(name))
                .and_then(|line| line.split_once(':'))
                .map_or(String::new(), |(_, value)| value.trim().to_owned())
        };
        let memory = field(&line("/proc/meminfo"), "MemTotal");
        Machine {
            host: line("/proc/sys/kernel/hostname"),
            kernel: line("/proc/sys/kernel/osrelease"),
            cpu: field(&cpuinfo, "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_kb: number(&memory),
            open_files: open_files(),
            clock_source: line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        }
    }
}

fn line(path: &str) -> String {
    fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

fn number(text: &str) -> u64 {
    text.split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}

/// The soft and hard limit of open files of this process.
pub fn open_files() -> (u64, u64) {
    let limits = line("/proc/self/limits");
    let Some(rest) = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
    else {
        return (0, 0);
    };
    let read = |word: Option<&str>| match word {
        Some("unlimited") => u64::MAX,
        Some(word) => word.parse().unwrap_or(0),
        None => 0,
    };
    let mut words = rest.split_whitespace();
    let soft = read(words.next());
    (soft, read(words.next()))
}

/// Processes of a server that are counted, at most: see [`has_more_processes`].
pub const PROCESSES_MAX: usize = 64;

/// Whether a server has more processes than [`PROCESSES_MAX`]: what is read of it is of a part
/// then.
pub fn has_more_processes(pid: u32) -> bool {
    relatives(pid).len() > PROCESSES_MAX
}

/// A process and those that descend from it: a server's helpers are a part of what it costs.
fn family(pid: u32) -> Vec<u32> {
    let mut pids = relatives(pid);
    pids.truncate(PROCESSES_MAX);
    pids
}

/// Its family with one too many where it is too large.
fn relatives(pid: u32) -> Vec<u32> {
    let mut pids = vec![pid];
    let mut known = 0;
    while known < pids.len() {
        let tasks = fs::read_dir(format!("/proc/{}/task", pids[known]));
        known += 1;
        for task in tasks.into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            pids.extend(children.split_whitespace().flat_map(str::parse::<u32>));
        }
        pids.truncate(PROCESSES_MAX + 1);
    }
    pids
}

/// Resident memory of a process and its descendants, in bytes. What they share is counted for each.
pub fn resident(pid: u32) -> Option<u64> {
    let own = resident_alone(pid)?;
    let helpers = family(pid).into_iter().skip(1);
    Some(own + helpers.filter_map(resident_alone).sum::<u64>())
}

fn resident_alone(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rest = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(number(rest) * 1024)
}

/// Nanoseconds on a core, by kind of thread: their names without the numbers.
pub type Busy = BTreeMap<String, u64>;

/// Nanoseconds that the threads of a process and its descendants have spent on a core. A thread
/// that ends takes its time with it, so compare only while the set of threads is stable.
pub fn process_busy(pid: u32) -> Option<Busy> {
    let mut busy = Busy::new();
    for (at, pid) in family(pid).into_iter().enumerate() {
        let tasks = match fs::read_dir(format!("/proc/{pid}/task")) {
            Ok(tasks) => tasks,
            Err(_) if at == 0 => return None,
            // A helper that has ended meanwhile.
            Err(_) => continue,
        };
        for task in tasks.flatten().map(|task| task.path()) {
            let Some(spent) = schedstat(&task.join("schedstat").to_string_lossy()) else {
                continue;
            };
            let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
            let kind = name
                .trim_end()
                .trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
            *busy.entry(kind.to_owned()).or_default() += spent;
        }
    }
    Some(busy)
}

/// Nanoseconds that the calling thread has spent on a core.
pub fn thread_busy() -> u64 {
    schedstat("/proc/thread-self/schedstat").unwrap_or(0)
}

/// A path at which another thread can read the calling thread's [`busy_at`].
pub fn thread_path() -> String {
    fs::read_link("/proc/thread-self")
        .map(|link| format!("/proc/{}/schedstat", link.display()))
        .unwrap_or_default()
}

/// Nanoseconds on a core of the thread behind a [`thread_path`].
pub fn busy_at(path: &str) -> Option<u64> {
    schedstat(path)
}

fn schedstat(path: &str) -> Option<u64> {
    fs::read_to_string(path)
        .ok()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// The SHA-256 of the file that this process runs, in hexadecimal; read once. Nothing where it
/// cannot be read.
pub fn executable() -> Option<&'static str> {
    static HASH: OnceLock<Option<String>> = OnceLock::new();
    // The link leads to what runs, whatever has its name by now.
    HASH.get_or_init(|| hash("/proc/self/exe").ok()).as_deref()
}

fn hash(path: &str) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut piece = vec![0; HASHED_AT_ONCE];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            size => context.update(&piece[..size]),
        }
    }
    let hash = context.finish();
    Ok(hash
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// The commit under test, asked for once: `LOADGEN_COMMIT`, or what git says here, or nothing.
pub fn commit() -> Option<String> {
    static COMMIT: OnceLock<Option<String>> = OnceLock::new();
    COMMIT.get_or_init(read_commit).clone()
}

fn read_commit() -> Option<String> {
    if let Ok(commit) = std::env::var("LOADGEN_COMMIT") {
        return Some(commit);
    }
    let output = std::process::Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .stderr(std::process::Stdio::null())
        .output()
        .ok()?;
    let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !commit.is_empty()).then_some(commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_says_what_it_uses() {
        let pid = std::process::id();
        assert!(resident(pid).unwrap() > 100 * 1024);
        let mut sum = 0u64;
        for number in 0..30_000_000u64 {
            sum = std::hint::black_box(sum ^ number);
        }
        assert!(thread_busy() > 0);
        assert!(busy_at(&thread_path()).unwrap() > 0);
        assert!(process_busy(pid).unwrap().values().sum::<u64>() >= thread_busy() / 2);
        assert!(resident(u32::MAX).is_none());
    }

    /// A shell whose `$0` is this number, once it has said something.
    fn shell(work: &str, number: usize) -> std::process::Child {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", work, &number.to_string()])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0];
        std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut said).unwrap();
        shell
    }

    #[test]
    fn a_server_is_counted_with_the_processes_that_it_started() {
        // The shell's child works and then waits for the end of its input, which we hold.
        let work = "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; echo; read line";
        let mut shell = shell(&format!("({work}); exit 0"), 0);
        let pids = family(shell.id());
        let alone = |pid: u32| {
            let spent = schedstat(&format!("/proc/{pid}/task/{pid}/schedstat")).unwrap();
            (resident_alone(pid).unwrap(), spent)
        };
        let (all, busy) = (resident(shell.id()), process_busy(shell.id()).unwrap());
        let each: Vec<_> = pids.iter().map(|pid| alone(*pid)).collect();
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert_eq!(pids.len(), 2, "{pids:?}");
        assert!(all.unwrap() > each[0].0 * 3 / 2, "{all:?} of {each:?}");
        assert!(busy.into_values().sum::<u64>() >= each[1].1 / 2, "{each:?}");
    }

    #[test]
    fn a_server_with_more_processes_than_are_counted_is_known_as_one() {
        for (children, is_more) in [(PROCESSES_MAX - 1, false), (PROCESSES_MAX, true)] {
            // They end with their input, which we hold.
            let work = "exec 3<&0; i=0; while [ $i -lt $0 ]; do cat <&3 & i=$((i+1)); done; \
                        echo; wait";
            let mut shell = shell(work, children);
            let found = (has_more_processes(shell.id()), family(shell.id()).len());
            drop(shell.stdin.take());
            shell.wait().unwrap();
            assert_eq!(found, (is_more, PROCESSES_MAX));
        }
    }

    #[test]
    fn the_executable_is_known_by_what_is_in_it() {
        let own = executable().expect("it is readable");
        assert_eq!(own.len(), 64, "{own}");
        let itself = std::env::current_exe().expect("it has a path");
        let again = hash(&itself.to_string_lossy());
        assert_eq!(again.expect("it is readable"), own);
        // FIPS 180-4: the hash of nothing.
        let empty = hash("/dev/null").expect("it is readable");
        assert!(empty.starts_with("e3b0c44298fc1c14"), "{empty}");
        assert!(hash("/nowhere").is_err());
    }

    #[test]
    fn the_machine_has_a_kernel_and_limits() {
        let machine = Machine::read();
        assert!(!machine.kernel.is_empty());
        assert!(machine.cores >= 1);
        assert!(machine.open_files.0 > 0 && machine.open_files.0 <= machine.open_files.1);
    }
}
