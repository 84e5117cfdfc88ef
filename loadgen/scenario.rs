//! Scenarios: what clients do once they are ready, phase by phase, from a file or a built-in one.
//!
//! Invariant: a scenario that is let through can be run; everything else is refused by one sentence
//! with the file, the line and the remedy. `docs/LOADGEN.md` has every key.

mod complaint;
mod file;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::args::LoadArgs;
use crate::plan::{Pace, Scenario};
use crate::random::Random;
use crate::schedule::{Arrivals, Ramp};
use crate::slo::Slo;

pub use file::Written;
pub(crate) use file::{PAUSE_MAX, WEIGHT_MAX};

/// Phases of one scenario: each has histograms of its own.
pub const PHASES_MAX: usize = 32;
/// Bytes of a scenario file; a larger one is something else.
const FILE_SIZE_MAX: u64 = 1 << 20;

/// The built-in scenarios: readable examples of the format.
pub const BUILT_IN: [(&str, &str); 10] = [
    ("chat", include_str!("scenarios/chat.toml")),
    ("presence", include_str!("scenarios/presence.toml")),
    ("muc", include_str!("scenarios/muc.toml")),
    ("idle", include_str!("scenarios/idle.toml")),
    ("login-storm", include_str!("scenarios/login-storm.toml")),
    ("roster", include_str!("scenarios/roster.toml")),
    ("mixed", include_str!("scenarios/mixed.toml")),
    (
        "presence-storm",
        include_str!("scenarios/presence-storm.toml"),
    ),
    ("reconnect", include_str!("scenarios/reconnect.toml")),
    ("resume", include_str!("scenarios/resume.toml")),
];

/// What a client may do in a phase that has several such things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// A message to a partner.
    Chat,
    /// Presence to everybody in the clique.
    Presence,
    /// Presence to a partner.
    Directed,
    /// A message to the room of the clique.
    Muc,
    /// Asking for the roster.
    Roster,
    /// Closing the stream and logging in again.
    Reconnect,
    /// Losing the network, and having the session go on over another connection.
    Resume,
}

impl Action {
    /// All of them, as tables have them.
    pub const ALL: [Action; 7] = [
        Action::Chat,
        Action::Presence,
        Action::Directed,
        Action::Muc,
        Action::Roster,
        Action::Reconnect,
        Action::Resume,
    ];

    /// Its name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Action::Chat => "chat",
            Action::Presence => "presence",
            Action::Directed => "directed",
            Action::Muc => "muc",
            Action::Roster => "roster",
            Action::Reconnect => "reconnect",
            Action::Resume => "resume",
        }
    }

    /// Whether it carries a mark to other clients.
    pub fn is_marked(self) -> bool {
        !matches!(self, Action::Roster | Action::Reconnect | Action::Resume)
    }

    /// Whether it goes to everybody in the clique.
    pub fn is_broadcast(self) -> bool {
        matches!(self, Action::Presence | Action::Muc)
    }

    /// The scenario that has stanzas like it, where it is marked.
    pub fn scenario(self) -> Scenario {
        match self {
            Action::Chat => Scenario::Chat,
            Action::Presence | Action::Directed => Scenario::Presence,
            Action::Muc => Scenario::Muc,
            Action::Roster | Action::Reconnect | Action::Resume => Scenario::Mixed,
        }
    }

    /// Whether it is a way back to the server, which is no delivery.
    pub fn is_return(self) -> bool {
        matches!(self, Action::Reconnect | Action::Resume)
    }

    /// Whether it goes to one partner.
    pub fn is_pairwise(self) -> bool {
        matches!(self, Action::Chat | Action::Directed)
    }
}

/// How large stanzas are, in bytes as the client writes them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Sizes {
    /// All of one size.
    Fixed(usize),
    /// Each size from the first to the second alike.
    Uniform(usize, usize),
    /// Exponential above the first, with this mean in all, then cut off at the last.
    Exponential(usize, usize, usize),
}

impl Sizes {
    /// The next one.
    pub fn draw(&self, random: &mut Random) -> usize {
        match *self {
            Sizes::Fixed(size) => size,
            Sizes::Uniform(min, max) => min + random.below((max - min + 1) as u32) as usize,
            Sizes::Exponential(min, mean, max) => {
                let more = -random.unit().ln() * (mean - min) as f64;
                max.min(min + more as usize)
            }
        }
    }

    /// The smallest and the largest that there are.
    pub fn range(&self) -> (usize, usize) {
        match *self {
            Sizes::Fixed(size) => (size, size),
            Sizes::Uniform(min, max) | Sizes::Exponential(min, _, max) => (min, max),
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sizes::Fixed(size) => write!(f, "{size} bytes"),
            Sizes::Uniform(min, max) => write!(f, "{min} to {max} bytes"),
            Sizes::Exponential(min, mean, max) => {
                write!(f, "{min} to {max} bytes, {mean} in the mean before the cut")
            }
        }
    }
}

/// One phase of a run that has several, or whose clients do several things.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name in reports.
    pub name: String,
    /// Seconds that are not recorded.
    pub warmup: f64,
    /// Seconds that are.
    pub duration: f64,
    /// The first so many clients act; all where it says nothing.
    pub clients: Option<u32>,
    /// When they act; never in a phase of rest.
    pub pace: Option<Pace>,
    /// Seconds over which an open loop's rate grows from `rate_from` to its own.
    pub ramp: f64,
    /// The rate that the ramp begins with.
    pub rate_from: f64,
    /// What they do, by weight.
    pub mix: Vec<(Action, u32)>,
    /// How large their stanzas are.
    pub sizes: Sizes,
    /// Seconds that a client whose network is lost stays away.
    pub pause: f64,
    /// What the phase must show; who judges the run knows it.
    #[serde(skip)]
    pub slo: Option<Slo>,
}

impl Phase {
    /// Whether `action` is among what clients do.
    pub fn has(&self, action: Action) -> bool {
        self.mix.iter().any(|(one, _)| *one == action)
    }

    /// Whether any of them carries a mark to other clients.
    pub fn is_marked(&self) -> bool {
        self.mix.iter().any(|(action, _)| action.is_marked())
    }

    /// One of the actions, as often as its weight says.
    pub fn pick(&self, random: &mut Random) -> Option<Action> {
        let all: u32 = self.mix.iter().map(|(_, weight)| weight).sum();
        if all == 0 {
            return None;
        }
        let mut at = random.below(all);
        for (action, weight) in &self.mix {
            if at < *weight {
                return Some(*action);
            }
            at -= weight;
        }
        None
    }

    /// What an open loop's schedule asks for in so many recorded seconds.
    pub fn due(&self, seconds: f64) -> f64 {
        match self.pace {
            Some(Pace::Open { rate, .. }) if self.ramp > 0.0 => {
                let ramp = Ramp {
                    from: self.rate_from,
                    to: rate,
                    seconds: self.ramp,
                };
                ramp.count(self.warmup + seconds) - ramp.count(self.warmup)
            }
            Some(Pace::Open { rate, .. }) => rate * seconds,
            Some(Pace::Closed { .. }) | None => 0.0,
        }
    }

    /// `open loop, 500/s poisson`, as results say it.
    pub fn pace_text(&self) -> String {
        match self.pace {
            None => "idle".to_owned(),
            Some(pace) if self.ramp > 0.0 => format!("{pace}, ramp {} s", self.ramp),
            Some(pace) => pace.to_string(),
        }
    }

    /// `chat 8, presence 1`, as results say it.
    pub fn mix_text(&self) -> String {
        let all = self.mix.iter();
        let all: Vec<_> = all
            .map(|(action, weight)| format!("{} {weight}", action.name()))
            .collect();
        all.join(", ")
    }
}

/// All that decides what a phase does, on one line: two runs of the same load have the same.
impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} s", self.name, self.duration)?;
        if self.warmup > 0.0 {
            write!(f, " behind {} s unrecorded", self.warmup)?;
        }
        write!(f, ", {}", self.pace_text())?;
        if !self.mix.is_empty() {
            write!(f, ", {}, {}", self.mix_text(), self.sizes)?;
        }
        if self.pause > 0.0 {
            write!(f, ", {} s away", self.pause)?;
        }
        match self.clients {
            Some(clients) => write!(f, ", by {clients} clients"),
            None => Ok(()),
        }
    }
}

/// Finds the scenario that `--scenario` names: a built-in one, or a file.
///
/// # Errors
/// There is none, or it makes no sense.
pub fn find(name: &str) -> Result<Written, String> {
    let built_in = BUILT_IN.iter().find(|(known, _)| *known == name);
    if let Some((name, text)) = built_in {
        let path = PathBuf::from(format!("loadgen/scenarios/{name}.toml"));
        return Written::parse(&path, name, text);
    }
    let path = Path::new(name);
    let is_file = path
        .extension()
        .is_some_and(|extension| extension == "toml");
    if !is_file {
        let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        return Err(format!(
            "--scenario {name}: there is none of this name; give login, {}, or a FILE.toml",
            names.join(", ")
        ));
    }
    let refused = |what: String| format!("{name}: {what}; name an existing file of TOML");
    let unreadable = |error: std::io::Error| refused(format!("it cannot be read ({error})"));
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(refused("it is no file".to_owned()));
    }
    let size = metadata.len();
    if size > FILE_SIZE_MAX {
        let what = format!("it has {size} bytes, and a scenario at most {FILE_SIZE_MAX}");
        return Err(refused(what));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        format!("{name}:{line}: this line is not UTF-8; convert the file")
    })?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    Written::parse(path, &stem, &text)
}

/// Lets `load` be what `written` says, but for the options that were `given`.
///
/// # Errors
/// What does not fit together.
pub fn apply(
    written: &Written,
    load: &mut LoadArgs,
    given: &dyn Fn(&str) -> bool,
) -> Result<(), String> {
    macro_rules! take {
        ($($name:ident),*) => {
            $(if let Some(value) = &written.$name {
                if !given(stringify!($name)) {
                    load.$name = value.clone().into();
                }
            })*
        };
    }
    take!(clients, clique, partners, rooms, seed, warmup, slo);
    let paced = given("ramp") || given("connect_rate");
    if !paced {
        (load.ramp, load.connect_rate) = (written.ramp, written.connect_rate);
    }
    load.stream_management |= written.stream_management.unwrap_or(false);
    if let Some(every) = written.ack_every.filter(|_| !given("ack_every")) {
        load.ack_every = every;
    }
    load.scenario_name.clone_from(&written.name);
    match written.simple() {
        Some(simple) => {
            load.scenario = simple;
            written.apply_single(load, given);
        }
        None => {
            load.scenario = Scenario::Mixed;
            load.phases = phases(written, load, given);
            let rates = load.phases.iter().filter_map(|phase| match phase.pace? {
                Pace::Open { rate, .. } => Some(rate),
                Pace::Closed { .. } => None,
            });
            // What a search begins with.
            load.rate = load.rate.or(rates.into_iter().next());
            written.check_clients(load)?;
            written.check_resumable(load)?;
        }
    }
    Ok(())
}

/// The phases of a scenario that has several, or whose clients do several things.
fn phases(written: &Written, load: &LoadArgs, given: &dyn Fn(&str) -> bool) -> Vec<Phase> {
    let mut rate_before = 0.0;
    let mut phases = Vec::new();
    for (index, phase) in written.phases.iter().enumerate() {
        let arrivals = match phase.arrivals {
            Some(arrivals) if !given("arrivals") => arrivals,
            _ => load.arrivals,
        };
        let mut window = phase.window;
        if given("window") && (window.is_some() || given("closed")) {
            window = Some(load.window);
        }
        let open = |rate| Pace::Open { rate, arrivals };
        let pace = match (phase.rate, window) {
            _ if phase.mix.is_empty() => None,
            _ if given("rate") => Some(open(load.rate_default())),
            (_, Some(window)) => Some(Pace::Closed { window }),
            _ if given("closed") => Some(Pace::Closed {
                window: load.window,
            }),
            (Some(rate), None) => Some(open(rate)),
            (None, None) => Some(open(load.rate_default())),
        };
        // The option is that of the run: of its beginning.
        let warmup = match (index, phase.warmup) {
            (0, Some(warmup)) if !given("warmup") => warmup,
            (0, _) => load.warmup,
            (_, own) => own.unwrap_or(0.0),
        };
        let sizes = match phase.sizes {
            Some(sizes) if !given("stanza_size") => sizes,
            _ => Sizes::Fixed(load.stanza_size),
        };
        phases.push(Phase {
            name: phase.name.clone(),
            warmup,
            duration: match phase.duration {
                Some(duration) if !given("duration") => duration,
                _ => load.duration,
            },
            clients: phase.clients,
            pace,
            ramp: phase.ramp.filter(|_| is_open(pace)).unwrap_or(0.0),
            rate_from: rate_before,
            mix: phase.mix.clone(),
            sizes,
            pause: phase.pause.unwrap_or(0.0),
            slo: phase.slo.clone(),
        });
        rate_before = match pace {
            Some(Pace::Open { rate, .. }) => rate,
            _ => 0.0,
        };
    }
    phases
}

fn is_open(pace: Option<Pace>) -> bool {
    matches!(pace, Some(Pace::Open { .. }))
}

/// How gaps are distributed, as files write it.
fn arrivals(text: &str) -> Option<Arrivals> {
    match text {
        "poisson" => Some(Arrivals::Poisson),
        "fixed" => Some(Arrivals::Fixed),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
