//! Scenarios: who connects, what they send, what they must receive, as text that can be read aloud.
//!
//! A file holds several; each begins with `== its title` and plays on a fresh server for
//! `example.org`. A line is one step; an indented block of XML under it is its content:
//!
//! ```text
//! == A message to a full JID reaches that resource and no other
//! account alice bob
//! client alice alice@example.org/desk
//! client bob bob@example.org/phone
//! alice connects
//! bob connects
//! alice sends
//!   <message to='{bob}' type='chat' id='1'><body>hi</body></message>
//! bob receives
//!   <message from='{alice}' to='{bob}' type='chat' id='1'><body>hi</body></message>
//! ```
//!
//! In what is expected, `*` as a value or text stands for anything but nothing, `{name}` for what
//! it stood for before (a client's name for its full JID) or, the first time, for anything, to be
//! remembered; `<etc/>` for further children and `etc=''` for further attributes. Attributes have
//! no order; children have. At the end of a scenario nobody may hold what was not expected.

mod matching;
mod play;

pub use play::{Stage, play};

use crate::client::Tls;

/// One scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it shows.
    pub title: String,
    /// Its steps, each with its line in the file.
    pub steps: Vec<(usize, Step)>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `setting NAME on|off`: before anything else.
    Setting(String, bool),
    /// `account NAME ..`: `NAME@example.org` with the password `secret`.
    Accounts(Vec<String>),
    /// `roster NAME CONTACT none|to|from|both`: an item in storage.
    Roster(String, String, String),
    /// `client NAME JID [scram|plain|anonymous] [starttls|direct]`: how a client will log in.
    Client(String, Vec<String>),
    /// `NAME connects`: logs in, which must succeed.
    Connects(String),
    /// `NAME fails to connect`, with the condition that says why.
    Fails(String, String),
    /// `NAME opens` or `NAME opens by tls`: a connection on which the scenario itself says
    /// everything.
    Opens(String, Tls),
    /// `NAME sends`, with a block.
    Sends(String, String),
    /// `NAME receives` or `NAME receives in any order`, with a block; `NAME receives nothing`.
    Receives(String, String, Order),
    /// `NAME forgets`: what it received so far does not matter; `all forget`.
    Forgets(Option<String>),
    /// `NAME closes` its stream.
    Closes(String),
    /// `NAME ends` its bytes without closing the stream.
    Ends(String),
    /// `NAME vanishes`: its connection breaks.
    Vanishes(String),
    /// `NAME is closed [by CONDITION]`: the server ended the stream, with that error or none.
    IsClosed(String, Option<String>),
    /// `wait SECONDS`.
    Wait(u64),
    /// `shutdown`: the server goes down.
    Shutdown,
}

/// Whether the order of what is expected matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As written.
    Strict,
    /// Any.
    Free,
}

/// Reads the scenarios of one file.
///
/// # Errors
/// The first line that cannot be understood.
pub fn parse(text: &str) -> Result<Vec<Scenario>, String> {
    let mut scenarios: Vec<Scenario> = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(title) = line.strip_prefix("== ") {
            scenarios.push(Scenario {
                title: title.into(),
                steps: Vec::new(),
            });
            continue;
        }
        let mut block = String::new();
        while let Some((_, next)) = lines.peek()
            && next.starts_with("  ")
        {
            // A line may end between two attributes, or between two elements.
            if !block.is_empty() && !block.ends_with('>') {
                block.push(' ');
            }
            block.push_str(next.trim());
            lines.next();
        }
        let step = parse_step(line, block).ok_or(format!("line {}: {line}", index + 1))?;
        let scenario = scenarios
            .last_mut()
            .ok_or(format!("line {}: no title yet", index + 1))?;
        scenario.steps.push((index + 1, step));
    }
    Ok(scenarios)
}

fn parse_step(line: &str, block: String) -> Option<Step> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let own = |word: &str| word.to_owned();
    let step = match words.as_slice() {
        ["setting", name, value] => Step::Setting(own(name), *value == "on"),
        ["account", names @ ..] => Step::Accounts(names.iter().map(|name| own(name)).collect()),
        ["roster", owner, contact, state] => Step::Roster(own(owner), own(contact), own(state)),
        ["client", name, rest @ ..] => {
            Step::Client(own(name), rest.iter().map(|word| own(word)).collect())
        }
        ["all", "forget"] => Step::Forgets(None),
        ["wait", seconds] => Step::Wait(seconds.parse().ok()?),
        ["shutdown"] => Step::Shutdown,
        [name, "connects"] => Step::Connects(own(name)),
        [name, "fails", "to", "connect", why] => Step::Fails(own(name), own(why)),
        [name, "opens"] => Step::Opens(own(name), Tls::Never),
        [name, "opens", "by", "tls"] => Step::Opens(own(name), Tls::Direct),
        [name, "sends"] => Step::Sends(own(name), block.clone()),
        [name, "receives", "nothing"] => Step::Receives(own(name), String::new(), Order::Strict),
        [name, "receives"] => Step::Receives(own(name), block.clone(), Order::Strict),
        [name, "receives", "in", "any", "order"] => {
            Step::Receives(own(name), block.clone(), Order::Free)
        }
        [name, "forgets"] => Step::Forgets(Some(own(name))),
        [name, "closes"] => Step::Closes(own(name)),
        [name, "ends"] => Step::Ends(own(name)),
        [name, "vanishes"] => Step::Vanishes(own(name)),
        [name, "is", "closed"] => Step::IsClosed(own(name), None),
        [name, "is", "closed", "by", why] => Step::IsClosed(own(name), Some(own(why))),
        _ => return None,
    };
    let takes_block = match &step {
        Step::Sends(..) => true,
        Step::Receives(..) => words.get(2) != Some(&"nothing"),
        _ => false,
    };
    (takes_block != block.is_empty()).then_some(step)
}
