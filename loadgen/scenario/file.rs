//! The keys of a scenario file, their ranges, and what they mean together.

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::complaint::{Source, nearest};
use super::{Action, PHASES_MAX, Sizes, arrivals};
use crate::args::{LoadArgs, RATE_MAX, SECONDS_MAX, stanza_sizes};
use crate::figure::is_column;
use crate::ledger::{CLIQUE_MAX, PARTNERS_MAX};
use crate::muc;
use crate::plan::Scenario;
use crate::schedule::Arrivals;
use crate::slo::Slo;

/// The largest weight in a mix.
pub(crate) const WEIGHT_MAX: u32 = 1_000_000;
/// Letters of a phase's name, which names files, too.
const NAME_SIZE_MAX: usize = 24;
/// The shortest phase.
const DURATION_MIN: f64 = 0.1;
/// The longest that a client is away: between phases what is outstanding has twice as long to come.
pub(crate) const PAUSE_MAX: f64 = 5.0;

/// A value that knows where it is written, where it is.
type Located<T> = Option<Spanned<T>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "the keys of docs/LOADGEN.md")]
struct FileText {
    clients: Located<u32>,
    clique: Located<u32>,
    partners: Located<u32>,
    rooms: Located<String>,
    seed: Option<u64>,
    warmup: Located<f64>,
    ramp: Located<f64>,
    connect_rate: Located<f64>,
    stream_management: Option<bool>,
    ack_every: Located<u32>,
    slo: Located<String>,
    #[serde(default)]
    phase: Vec<Spanned<PhaseText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section [[phase]]")]
struct PhaseText {
    name: Located<String>,
    duration: Located<f64>,
    warmup: Located<f64>,
    clients: Located<u32>,
    rate: Located<f64>,
    arrivals: Located<String>,
    window: Located<u16>,
    ramp: Located<f64>,
    mix: Spanned<MixText>,
    stanza_size: Located<toml::Value>,
    pause: Located<f64>,
    slo: Located<String>,
}

#[derive(Clone, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "weights like { chat = 8, presence = 1 }"
)]
struct MixText {
    chat: Option<u32>,
    presence: Option<u32>,
    directed: Option<u32>,
    muc: Option<u32>,
    roster: Option<u32>,
    reconnect: Option<u32>,
    resume: Option<u32>,
    login: Option<u32>,
    idle: Option<u32>,
}

/// A scenario as its file has it: what it does not say is left to the options.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The built-in one's name, or the file's without its ending.
    pub name: String,
    /// How many clients.
    pub clients: Option<u32>,
    /// Members of a clique.
    pub clique: Option<u32>,
    /// Partners of each client.
    pub partners: Option<u32>,
    /// The domain of the rooms.
    pub rooms: Option<String>,
    /// Decides everything random.
    pub seed: Option<u64>,
    /// Seconds that are not recorded before the first phase.
    pub warmup: Option<f64>,
    /// Seconds over which clients connect.
    pub ramp: Option<f64>,
    /// Connections a second.
    pub connect_rate: Option<f64>,
    /// Whether streams are managed.
    pub stream_management: Option<bool>,
    /// Stanzas after which a client asks for acknowledgement.
    pub ack_every: Option<u32>,
    /// What the run must show.
    pub slo: Option<Slo>,
    /// What happens, in order.
    pub phases: Vec<PhaseWritten>,
}

/// One phase of it.
#[derive(Clone, Debug, PartialEq)]
pub struct PhaseWritten {
    pub(super) name: String,
    pub(super) duration: Option<f64>,
    pub(super) warmup: Option<f64>,
    pub(super) clients: Option<u32>,
    /// `file:line` of the last.
    clients_at: String,
    pub(super) rate: Option<f64>,
    pub(super) arrivals: Option<Arrivals>,
    pub(super) window: Option<u16>,
    pub(super) ramp: Option<f64>,
    /// Empty where clients rest, or log in and out.
    pub(super) mix: Vec<(Action, u32)>,
    /// `file:line` of that.
    mix_at: String,
    is_login: bool,
    pub(super) sizes: Option<Sizes>,
    pub(super) pause: Option<f64>,
    pub(super) slo: Option<Slo>,
}

impl Written {
    /// Reads the text of the file at `path`, which need not exist.
    ///
    /// # Errors
    /// The first thing in it that makes no sense.
    pub fn parse(path: &Path, name: &str, text: &str) -> Result<Written, String> {
        let source = Source { path, text };
        let file: FileText = toml::from_str(text).map_err(|error| source.complain(&error))?;
        let count = file.phase.len();
        if !(1..=PHASES_MAX).contains(&count) {
            let what = format!("it has {count} phases");
            let remedy = format!("begin each, 1 to {PHASES_MAX}, with a line `[[phase]]`");
            return Err(source.refuse_all(&what, &remedy));
        }
        let mut names = BTreeSet::new();
        let mut phases = Vec::new();
        for (index, phase) in file.phase.iter().enumerate() {
            let parsed = phase.as_ref().check(&source, index, phase.span())?;
            if parsed.is_login && count > 1 {
                let remedy = "reconnect goes with other phases, login only alone";
                let mix = phase.as_ref().mix.span();
                return Err(source.refuse(&mix, "login among several phases", remedy));
            }
            if !names.insert(parsed.name.clone()) {
                let what = format!("a second phase is called `{}`", parsed.name);
                return Err(source.refuse(&phase.span(), &what, "give each a name of its own"));
            }
            phases.push(parsed);
        }
        file.check_together(&source, &phases)?;
        Ok(Written {
            name: name.to_owned(),
            clients: within(&source, "clients", &file.clients, 1..=u32::MAX)?,
            clique: within(&source, "clique", &file.clique, 2..=CLIQUE_MAX)?,
            partners: within(&source, "partners", &file.partners, 1..=PARTNERS_MAX)?,
            rooms: rooms(&source, &file.rooms)?,
            seed: file.seed,
            warmup: within(&source, "warmup", &file.warmup, 0.0..=SECONDS_MAX)?,
            ramp: within(&source, "ramp", &file.ramp, 0.0..=SECONDS_MAX)?,
            connect_rate: rate(&source, "connect_rate", &file.connect_rate)?,
            stream_management: file.stream_management,
            ack_every: within(&source, "ack_every", &file.ack_every, 1..=u32::MAX)?,
            slo: slo(&source, &file.slo)?,
            phases,
        })
    }

    /// What it is where the generator does nothing else all the time.
    pub(super) fn simple(&self) -> Option<Scenario> {
        let [phase] = &self.phases[..] else {
            return None;
        };
        let is_plain = phase.clients.is_none() && phase.ramp.is_none() && phase.slo.is_none();
        if !is_plain || !matches!(phase.sizes, None | Some(Sizes::Fixed(_))) {
            return None;
        }
        match phase.mix[..] {
            [] if phase.is_login => Some(Scenario::Login),
            [] => Some(Scenario::Idle),
            [(action, _)] if action.is_marked() => Some(action.scenario()),
            _ => None,
        }
    }

    /// Lets `load` do what the only phase says, but for the options that were `given`.
    pub(super) fn apply_single(&self, load: &mut LoadArgs, given: &dyn Fn(&str) -> bool) {
        let phase = &self.phases[0];
        if let Some(duration) = phase.duration.filter(|_| !given("duration")) {
            load.duration = duration;
        }
        if let Some(warmup) = phase.warmup.filter(|_| !given("warmup")) {
            load.warmup = warmup;
        }
        if let Some(arrivals) = phase.arrivals.filter(|_| !given("arrivals")) {
            load.arrivals = arrivals;
        }
        let is_paced = given("rate") || given("closed");
        if let Some(rate) = phase.rate.filter(|_| !is_paced) {
            load.rate = Some(rate);
        }
        if let Some(window) = phase.window {
            load.closed |= !given("rate");
            if load.closed && !given("window") {
                load.window = window;
            }
        }
        if let Some(Sizes::Fixed(size)) = phase.sizes.filter(|_| !given("stanza_size")) {
            load.stanza_size = size;
        }
        load.directed |= phase.mix.iter().any(|(one, _)| *one == Action::Directed);
    }

    /// Refuses a phase that asks for more clients than there are.
    pub(super) fn check_clients(&self, load: &LoadArgs) -> Result<(), String> {
        let there = load.clients;
        for phase in &self.phases {
            if let Some(wanted) = phase.clients.filter(|wanted| *wanted > there) {
                return Err(format!(
                    "{}: phase {} has {wanted} clients act, but there are {there}; \
                     give --clients {wanted} or more, or the phase fewer",
                    phase.clients_at, phase.name
                ));
            }
        }
        Ok(())
    }

    /// Refuses a phase whose clients would resume what nobody manages.
    pub(super) fn check_resumable(&self, load: &LoadArgs) -> Result<(), String> {
        let resumes = |phase: &&PhaseWritten| {
            let mut actions = phase.mix.iter();
            actions.any(|(action, _)| *action == Action::Resume)
        };
        match self.phases.iter().find(resumes) {
            Some(phase) if !load.stream_management => Err(format!(
                "{}: `resume` goes with managed streams only; write `stream_management = true` \
                 above the phases, or give --stream-management",
                phase.mix_at
            )),
            _ => Ok(()),
        }
    }
}

impl FileText {
    /// Refuses what would be ignored, and what excludes each other.
    fn check_together(&self, source: &Source<'_>, all: &[PhaseWritten]) -> Result<(), String> {
        let has = |fits: fn(Action) -> bool| {
            let mut actions = all.iter().flat_map(|phase| &phase.mix);
            actions.any(|(action, _)| fits(*action))
        };
        let alone = "it goes with presence or muc in a mix; add one, or remove this";
        if let Some(clique) = self.clique.as_ref().filter(|_| !has(Action::is_broadcast)) {
            return Err(source.refuse(&clique.span(), "`clique` would be ignored", alone));
        }
        let alone = "it goes with chat or directed in a mix; add one, or remove this";
        if let Some(partners) = self.partners.as_ref().filter(|_| !has(Action::is_pairwise)) {
            return Err(source.refuse(&partners.span(), "`partners` would be ignored", alone));
        }
        let alone = "it goes with muc in a mix; add that, or remove this";
        let has_rooms = has(|action| action == Action::Muc);
        if let Some(rooms) = self.rooms.as_ref().filter(|_| !has_rooms) {
            return Err(source.refuse(&rooms.span(), "`rooms` would be ignored", alone));
        }
        let is_managed = self.stream_management == Some(true);
        if let Some(every) = self.ack_every.as_ref().filter(|_| !is_managed) {
            let remedy = "it goes with `stream_management = true`";
            return Err(source.refuse(&every.span(), "`ack_every` would be ignored", remedy));
        }
        match (&self.ramp, &self.connect_rate) {
            (Some(ramp), Some(_)) => {
                let what = "`ramp` and `connect_rate` exclude each other";
                Err(source.refuse(&ramp.span(), what, "remove one of them"))
            }
            _ => Ok(()),
        }
    }
}

impl PhaseText {
    fn check(
        &self,
        source: &Source<'_>,
        index: usize,
        place: Range<usize>,
    ) -> Result<PhaseWritten, String> {
        let (mix, is_login) = self.mix.as_ref().check(source, &self.mix.span())?;
        self.check_heeded(source, &mix, is_login)?;
        let clients = within(source, "clients", &self.clients, 1..=u32::MAX)?;
        let clients_at = self
            .clients
            .as_ref()
            .map_or(place.start, |c| c.span().start);
        let place_of = |at| format!("{}:{}", source.path.display(), source.line_at(at));
        Ok(PhaseWritten {
            name: self.check_name(source, index)?,
            duration: within(
                source,
                "duration",
                &self.duration,
                DURATION_MIN..=SECONDS_MAX,
            )?,
            warmup: within(source, "warmup", &self.warmup, 0.0..=SECONDS_MAX)?,
            clients,
            clients_at: place_of(clients_at),
            rate: rate(source, "rate", &self.rate)?,
            arrivals: self.check_arrivals(source)?,
            window: within(source, "window", &self.window, 1..=u16::MAX)?,
            ramp: within(source, "ramp", &self.ramp, 0.0..=SECONDS_MAX)?,
            mix,
            mix_at: place_of(self.mix.span().start),
            is_login,
            sizes: self.check_sizes(source)?,
            pause: within(source, "pause", &self.pause, 0.0..=PAUSE_MAX)?,
            slo: self.check_slo(source)?,
        })
    }

    /// Refuses keys that the phase would ignore, and those that exclude each other.
    fn check_heeded(
        &self,
        source: &Source<'_>,
        mix: &[(Action, u32)],
        is_login: bool,
    ) -> Result<(), String> {
        fn span<T>(place: &Located<T>) -> Option<Range<usize>> {
            place.as_ref().map(Spanned::span)
        }
        let ignored = |name: &str, at: Option<Range<usize>>, remedy: &str| match at {
            Some(at) => Err(source.refuse(&at, &format!("`{name}` would be ignored"), remedy)),
            None => Ok(()),
        };
        let rests = mix.is_empty() && !is_login;
        if rests {
            let remedy = "who idles sends nothing; remove it";
            ignored("rate", span(&self.rate), remedy)?;
            ignored("arrivals", span(&self.arrivals), remedy)?;
        }
        if mix.is_empty() {
            let remedy = "it goes with a mix of chat, presence, directed, muc, roster, reconnect \
                          or resume";
            ignored("window", span(&self.window), remedy)?;
            ignored("ramp", span(&self.ramp), remedy)?;
            ignored("clients", span(&self.clients), remedy)?;
            if let Some(slo) = &self.slo {
                let what = "`slo` has nothing to judge in a phase of login or idle";
                let remedy = "set it for the whole run, above the phases";
                return Err(source.refuse(&slo.span(), what, remedy));
            }
        }
        if !mix.iter().any(|(action, _)| action.is_marked()) {
            let remedy = "it goes with chat, presence, directed or muc in the mix";
            ignored("stanza_size", span(&self.stanza_size), remedy)?;
        }
        if !mix.iter().any(|(action, _)| *action == Action::Resume) {
            let remedy = "it is how long who is to `resume` is away; add that to the mix";
            ignored("pause", span(&self.pause), remedy)?;
        }
        if let Some(window) = self.window.as_ref().filter(|_| self.rate.is_some()) {
            let what = "`rate` (open loop) and `window` (closed loop) exclude each other";
            return Err(source.refuse(&window.span(), what, "remove one of them"));
        }
        if self.window.is_some() {
            let remedy = "a closed loop has no schedule; remove it, or `window`";
            ignored("arrivals", span(&self.arrivals), remedy)?;
            ignored("ramp", span(&self.ramp), remedy)?;
        }
        if self.rate.is_none() {
            let remedy = "it goes with `rate`";
            ignored("ramp", span(&self.ramp), remedy)?;
        }
        if is_login && self.rate.is_none() {
            let remedy = "logins follow one another unless there is a `rate`";
            ignored("arrivals", span(&self.arrivals), remedy)?;
        }
        Ok(())
    }

    fn check_name(&self, source: &Source<'_>, index: usize) -> Result<String, String> {
        let Some(name) = &self.name else {
            return Ok(format!("phase-{}", index + 1));
        };
        let text = name.as_ref();
        let is_plain = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !is_plain || !(1..=NAME_SIZE_MAX).contains(&text.len()) {
            let remedy = format!("use 1 to {NAME_SIZE_MAX} letters, digits and dashes");
            return Err(source.refuse(&name.span(), "the name of this phase is none", &remedy));
        }
        Ok(text.clone())
    }

    fn check_arrivals(&self, source: &Source<'_>) -> Result<Option<Arrivals>, String> {
        let Some(text) = &self.arrivals else {
            return Ok(None);
        };
        arrivals(text.as_ref()).map(Some).ok_or_else(|| {
            let what = format!("`arrivals` is {:?}", text.as_ref());
            let remedy = nearest(text.as_ref(), &["poisson", "fixed"]);
            source.refuse(&text.span(), &what, &remedy)
        })
    }

    fn check_sizes(&self, source: &Source<'_>) -> Result<Option<Sizes>, String> {
        let Some(written) = &self.stanza_size else {
            return Ok(None);
        };
        let number = |value: &toml::Value| {
            let number = value
                .as_integer()
                .and_then(|value| usize::try_from(value).ok());
            number.filter(|number| stanza_sizes().contains(number))
        };
        let sizes = match written.as_ref() {
            toml::Value::Table(table) => {
                let known = ["min", "mean", "max"];
                let is_known = table.keys().all(|key| known.contains(&key.as_str()));
                let [min, mean, max] = known.map(|key| table.get(key).map(number));
                match (min, mean, max) {
                    _ if !is_known => None,
                    (Some(Some(min)), None, Some(Some(max))) if min <= max => {
                        Some(Sizes::Uniform(min, max))
                    }
                    (Some(Some(min)), Some(Some(mean)), Some(Some(max)))
                        if min <= mean && mean <= max =>
                    {
                        Some(Sizes::Exponential(min, mean, max))
                    }
                    _ => None,
                }
            }
            value => number(value).map(Sizes::Fixed),
        };
        sizes.map(Some).ok_or_else(|| {
            let sizes = stanza_sizes();
            let what = "`stanza_size` is none";
            let remedy = format!(
                "give bytes, {} to {}, as in 200, {{ min = 150, max = 900 }} (all alike) or \
                 {{ min = 150, mean = 250, max = 4000 }} (exponential)",
                sizes.start(),
                sizes.end()
            );
            source.refuse(&written.span(), what, &remedy)
        })
    }

    /// A phase has times and costs of its own; what arrived or not is known of the whole run.
    fn check_slo(&self, source: &Source<'_>) -> Result<Option<Slo>, String> {
        let parsed = slo(source, &self.slo)?;
        let is_of_phase = |name: &str| {
            let column = name.strip_prefix("service.").unwrap_or(name);
            is_column(column) || matches!(name, "rate" | "cpu")
        };
        let mut figures = parsed.iter().flat_map(Slo::figures);
        let foreign = figures.find(|name| !is_of_phase(name)).map(str::to_owned);
        drop(figures);
        match (foreign, &self.slo) {
            (Some(name), Some(written)) => {
                let what = format!("a phase has no figure `{name}`");
                let remedy = "it has latencies, service times, rate and cpu; set this for the \
                              whole run, above the phases";
                Err(source.refuse(&written.span(), &what, remedy))
            }
            _ => Ok(parsed),
        }
    }
}

impl MixText {
    /// The actions by weight, and whether clients log in and out instead.
    fn check(
        &self,
        source: &Source<'_>,
        at: &Range<usize>,
    ) -> Result<(Vec<(Action, u32)>, bool), String> {
        let weights = [
            (Action::Chat, self.chat),
            (Action::Presence, self.presence),
            (Action::Directed, self.directed),
            (Action::Muc, self.muc),
            (Action::Roster, self.roster),
            (Action::Reconnect, self.reconnect),
            (Action::Resume, self.resume),
        ];
        let mix: Vec<_> = weights
            .into_iter()
            .filter_map(|(action, weight)| Some((action, weight?)))
            .collect();
        let alone = [self.login, self.idle];
        let mut all = mix.iter().map(|(_, weight)| *weight);
        let mut others = alone.iter().flatten().copied();
        if all.any(|weight| !(1..=WEIGHT_MAX).contains(&weight))
            || others.any(|weight| !(1..=WEIGHT_MAX).contains(&weight))
        {
            let remedy = format!("give 1 to {WEIGHT_MAX}, or remove the action");
            return Err(source.refuse(at, "a weight in `mix` is none", &remedy));
        }
        let alone = alone.iter().flatten().count();
        if mix.len() + alone == 0 {
            let remedy = "say what its clients do, as in `mix = { chat = 1 }`";
            return Err(source.refuse(at, "`mix` is empty", remedy));
        }
        if alone > 0 && mix.len() + alone > 1 {
            let remedy = "make a phase of its own of it";
            return Err(source.refuse(at, "login and idle go with nothing else", remedy));
        }
        Ok((mix, self.login.is_some()))
    }
}

/// A value of a range.
fn within<T: PartialOrd + Copy + std::fmt::Display>(
    source: &Source<'_>,
    key: &str,
    place: &Located<T>,
    range: RangeInclusive<T>,
) -> Result<Option<T>, String> {
    let Some(value) = place else {
        return Ok(None);
    };
    let (number, at) = (*value.as_ref(), value.span());
    if range.contains(&number) {
        return Ok(Some(number));
    }
    let what = format!("`{key}` is {number}");
    let remedy = format!("give {} to {}", range.start(), range.end());
    Err(source.refuse(&at, &what, &remedy))
}

fn rate(source: &Source<'_>, key: &str, place: &Located<f64>) -> Result<Option<f64>, String> {
    within(source, key, place, f64::MIN_POSITIVE..=RATE_MAX).map_err(|_| {
        let at = place.as_ref().map_or(0..0, Spanned::span);
        let number = place.as_ref().map_or(0.0, |value| *value.as_ref());
        let remedy = format!("give a positive number up to {RATE_MAX}");
        source.refuse(&at, &format!("`{key}` is {number}"), &remedy)
    })
}

fn rooms(source: &Source<'_>, place: &Located<String>) -> Result<Option<String>, String> {
    let Some(text) = place else {
        return Ok(None);
    };
    muc::domain(text.as_ref()).map(Some).map_err(|_| {
        let what = format!("`rooms` is {:?}", text.as_ref());
        let remedy = "give the domain of the rooms, as in \"conference.example.org\"";
        source.refuse(&text.span(), &what, remedy)
    })
}

fn slo(source: &Source<'_>, place: &Located<String>) -> Result<Option<Slo>, String> {
    let Some(text) = place else {
        return Ok(None);
    };
    let parsed: Result<Slo, String> = text.as_ref().parse();
    parsed.map(Some).map_err(|why| {
        source.refuse(
            &text.span(),
            &format!("`slo`: {why}"),
            "correct it, or remove the line",
        )
    })
}
