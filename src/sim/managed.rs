//! People whose clients manage their streams (XEP-0198): they lose their connections and the
//! server, come back, and write down what they sent and got.
//!
//! A person lives on over many connections; each of these is a client of the world with an actor
//! that shares the person.

use crate::actors::{Actor, Leave, Reconnection, Scene};
use crate::client::Login;
use crate::contacts::Contacts;
use crate::element::Element;
use crate::steps::message;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

const SM: &str = "urn:xmpp:sm:3";

/// How long a person waits before the next try to connect, in microseconds, unless told otherwise.
const RETRY_US: (u64, u64) = (10, 2_000_000);

/// A message that a person sent.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// To whom.
    pub to: String,
    /// In how many sessions: a message that is sent again in a new session is a new one.
    pub sessions: u32,
    /// The first of them.
    pub epoch: u32,
    /// When it was first sent.
    pub sent_at: u64,
    /// Whether the server took responsibility, and when it said so.
    pub acked: bool,
    /// See `acked`.
    pub acked_at: u64,
    /// How many errors came for it.
    pub errors: u32,
    /// Whether it bounces where the receiver has no such session (RFC 6121 8.5.3.2.1).
    pub bounces: bool,
}

/// A message that a person got.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Its id.
    pub id: String,
    /// To whom, as it says.
    pub to: String,
    /// In which session of the receiver's.
    pub epoch: u32,
    /// Whether it waited in storage.
    pub delayed: bool,
    /// Whether that session was managed by then.
    pub managed: bool,
}

/// What the person's stream holds for the case that it is sent again.
#[derive(Clone, Debug)]
struct Unacked {
    text: String,
    what: What,
}

/// What is written down about a stanza.
#[derive(Clone, Debug)]
enum What {
    /// The message with this id.
    Message(String),
    /// The step with this number.
    Step(usize),
    Other,
}

/// Somebody with one client.
#[derive(Debug)]
pub struct Person {
    /// The full JID.
    pub full: String,
    /// Whom to write to.
    pub town: Rc<Vec<String>>,
    /// How many things are left to do.
    pub deeds: u32,
    /// The longest pause between two, in microseconds.
    pub pause_us: u64,
    /// How often in a thousand deeds the network fails, and how often a session is given up.
    pub losses: u64,
    /// See `losses`.
    pub farewells: u64,
    /// How often in a thousand an acknowledgement that is asked for is not given.
    pub silences: u64,
    /// How often in a thousand times the client comes back without its session.
    pub forgets: u64,
    /// The shortest and the longest pause before the next try to connect, in microseconds.
    pub retry_us: (u64, u64),
    /// The person's contacts.
    pub contacts: Contacts,
    /// How many sessions there have been.
    pub epoch: u32,
    /// When the last of them began, in microseconds since 1970.
    pub began: u64,
    /// How often the server would not manage a session.
    pub refusals: u32,
    /// How many sessions were resumed.
    pub resumptions: u32,
    /// From when to when the server may have had a session that was not managed, or not yet.
    pub exposures: Vec<(u64, u64)>,
    /// When the last session that was managed lost its connection.
    left_at: Option<u64>,
    /// What was said, by id.
    pub said: BTreeMap<String, Said>,
    /// What was heard, in order.
    pub heard: Vec<Heard>,
    /// The connection of now.
    pub client: usize,
    count: u32,
    session: Option<String>,
    enabled: bool,
    acked: u32,
    unacked: VecDeque<Unacked>,
    received: u32,
}

impl Person {
    /// Somebody who has never been here.
    pub fn new(full: &str, town: Rc<Vec<String>>) -> Person {
        Person {
            full: full.into(),
            town,
            deeds: 0,
            pause_us: 1_000,
            losses: 0,
            farewells: 0,
            silences: 0,
            forgets: 0,
            retry_us: RETRY_US,
            contacts: Contacts::default(),
            epoch: 0,
            began: 0,
            refusals: 0,
            resumptions: 0,
            exposures: Vec::new(),
            left_at: Some(0),
            said: BTreeMap::new(),
            heard: Vec::new(),
            client: usize::MAX,
            count: 0,
            session: None,
            enabled: false,
            acked: 0,
            unacked: VecDeque::new(),
            received: 0,
        }
    }

    /// Whether everything said was acknowledged, in a session that is there.
    pub fn is_settled(&self) -> bool {
        self.enabled && self.unacked.is_empty()
    }

    fn login(&self) -> Login {
        let mut login = Login::new(&self.full, "secret");
        login.resume = self.session.clone().map(|session| (session, self.received));
        login
    }

    /// Whether something that was under way from then to then may have come to a session that was
    /// not managed, which promises nothing.
    pub fn was_exposed(&self, (from, to): (u64, u64)) -> bool {
        let mut exposures = self.exposures.iter();
        exposures.any(|&(since, until)| since <= to && from <= until)
    }

    /// The bare JID.
    pub fn bare(&self) -> &str {
        self.full.split('/').next().unwrap_or_default()
    }

    fn acknowledge(&mut self, h: u32, now: u64) {
        assert!(
            h.wrapping_sub(self.acked) as usize <= self.unacked.len(),
            "{}: the server has {h}, and {} and {} were sent",
            self.full,
            self.acked,
            self.unacked.len()
        );
        let own = self.bare().to_owned();
        for _ in 0..h.wrapping_sub(self.acked) {
            let gone = self.unacked.pop_front().expect("it was counted");
            match gone.what {
                What::Message(id) => {
                    if let Some(said) = self.said.get_mut(&id) {
                        (said.acked, said.acked_at) = (true, now);
                    }
                }
                What::Step(number) => self.contacts.acknowledge(&own, number, now),
                What::Other => {}
            }
        }
        self.acked = h;
    }

    fn say(&mut self, scene: &mut Scene<'_>, text: String, what: What) {
        scene.says.extend(text.as_bytes());
        self.unacked.push_back(Unacked { text, what });
    }

    /// A new session: what the old one left open is sent once more.
    fn begin(&mut self, scene: &mut Scene<'_>) {
        self.epoch += 1;
        self.began = scene.now;
        (self.session, self.enabled) = (None, false);
        (self.acked, self.received) = (0, 0);
        let left = std::mem::take(&mut self.unacked);
        scene
            .says
            .extend(format!("<enable xmlns='{SM}' resume='true'/>").bytes());
        if self.contacts.steps_per_mille > 0 {
            let text = "<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>";
            self.say(scene, text.into(), What::Other);
        }
        self.say(scene, "<presence/>".into(), What::Other);
        for Unacked { text, what } in left {
            match &what {
                What::Message(id) => {
                    if let Some(said) = self.said.get_mut(id) {
                        said.sessions += 1;
                        self.say(scene, text, what);
                    }
                }
                What::Step(number) => {
                    let own = self.bare().to_owned();
                    self.contacts.lose(&own, *number, scene.now);
                }
                What::Other => {}
            }
        }
    }

    /// The old session: what did not reach the server is sent again, in the same order.
    fn go_on(&mut self, scene: &mut Scene<'_>, h: u32) {
        self.resumptions += 1;
        self.left_at = None;
        self.enabled = true;
        self.acknowledge(h, scene.now);
        for left in &self.unacked {
            scene.says.extend(left.text.as_bytes());
        }
        scene.says.extend(format!("<r xmlns='{SM}'/>").bytes());
    }

    fn write(&mut self, scene: &mut Scene<'_>) {
        let to = scene.random.pick(&self.town).clone();
        self.count += 1;
        let id = format!(
            "{}-{}",
            self.full.split('@').next().unwrap_or(""),
            self.count
        );
        let type_ = *scene.random.pick(&["chat", "normal"]);
        let said = Said {
            to: to.clone(),
            bounces: type_ == "normal" && to.contains('/'),
            sessions: 1,
            epoch: self.epoch,
            sent_at: scene.now,
            ..Said::default()
        };
        self.said.insert(id.clone(), said);
        let text = message(type_, &to, &id);
        self.say(scene, text, What::Message(id));
        if scene.random.happens(300) {
            scene.says.extend(format!("<r xmlns='{SM}'/>").bytes());
        }
    }

    fn act(&mut self, scene: &mut Scene<'_>) {
        let bare = self.bare().to_owned();
        let is_other = |other: &&String| !other.contains('/') && **other != bare;
        let others: Vec<&String> = self.town.iter().filter(is_other).collect();
        let acted = self.contacts.act(scene.random, &bare, &others, scene.now);
        let Some((number, text)) = acted else {
            return self.write(scene);
        };
        self.say(scene, text, What::Step(number));
        scene.says.extend(format!("<r xmlns='{SM}'/>").bytes());
    }

    fn wake_later(&self, scene: &mut Scene<'_>) {
        if self.deeds > 0 {
            scene.wake_us = Some(scene.random.within((0, self.pause_us)));
        }
    }

    fn on_element(&mut self, scene: &mut Scene<'_>, element: &Element) {
        if element.ns == SM {
            return self.on_management(scene, element);
        }
        if self.enabled {
            self.received = self.received.wrapping_add(1);
        }
        self.contacts.on_element(element, scene.now);
        if element.name != "message" {
            return;
        }
        let id = element.attr("id").to_owned();
        if element.attr("type") == "error" {
            if let Some(said) = self.said.get_mut(&id) {
                said.errors += 1;
            }
            return;
        }
        self.heard.push(Heard {
            id,
            to: element.attr("to").into(),
            epoch: self.epoch,
            delayed: element.child("delay").is_some(),
            managed: self.enabled,
        });
    }

    fn on_management(&mut self, scene: &mut Scene<'_>, element: &Element) {
        match element.name.as_str() {
            "enabled" => {
                self.session = Some(element.attr("id").to_owned());
                self.enabled = true;
                let since = self.left_at.take().unwrap_or_default();
                self.exposures.push((since, scene.now));
                self.wake_later(scene);
            }
            "failed" => {
                // Storage would not have the session; a later try may be luckier.
                self.refusals += 1;
                scene.leaves = Some(Leave::Vanishing);
                self.come_back_later(scene);
            }
            "a" => {
                let h = element
                    .attr("h")
                    .parse()
                    .expect("the server's h is a number");
                self.acknowledge(h, scene.now);
            }
            "r" if !scene.random.happens(self.silences) => self.answer(scene),
            _ => {}
        }
    }

    fn answer(&self, scene: &mut Scene<'_>) {
        let h = self.received;
        scene
            .says
            .extend(format!("<a xmlns='{SM}' h='{h}'/>").bytes());
    }

    fn come_back_later(&mut self, scene: &mut Scene<'_>) {
        if self.forgets > 0 && scene.random.happens(self.forgets) {
            self.session = None;
        }
        self.left_at.get_or_insert(scene.now);
        scene.returns = Some(Reconnection {
            in_us: scene.random.within(self.retry_us),
            login: self.login(),
        });
    }

    fn lose_or_leave(&mut self, scene: &mut Scene<'_>) -> bool {
        if scene.random.happens(self.losses) {
            scene.leaves = Some(Leave::Vanishing);
        } else if scene.random.happens(self.farewells) {
            // What is on its way is not waited for: to be sent again in the next session.
            // It comes back when the server has closed the stream.
            self.session = None;
            scene.leaves = Some(Leave::Politely);
            return true;
        } else {
            return false;
        }
        self.come_back_later(scene);
        true
    }
}

/// The acting of a person on one connection.
#[derive(Clone, Debug)]
pub struct Managed(pub Rc<RefCell<Person>>);

impl Managed {
    /// Has the person ask and answer once more, for everything to be settled.
    pub fn settle(&self, says: &mut Vec<u8>) {
        let person = self.0.borrow();
        if person.enabled {
            let h = person.received;
            says.extend(format!("<r xmlns='{SM}'/><a xmlns='{SM}' h='{h}'/>").bytes());
        }
    }

    /// How the person logs in the next time.
    pub fn login(&self) -> Login {
        self.0.borrow().login()
    }

    fn is_now(&self, scene: &Scene<'_>) -> bool {
        self.0.borrow().client == scene.me.0
    }
}

impl Actor for Managed {
    fn on_online(&mut self, scene: &mut Scene<'_>) {
        let mut person = self.0.borrow_mut();
        person.client = scene.me.0;
        match scene.client.resumed {
            Some(h) => {
                person.go_on(scene, h);
                person.wake_later(scene);
            }
            None => person.begin(scene),
        }
    }

    fn on_stanza(&mut self, scene: &mut Scene<'_>, stanza: &Element) {
        if self.is_now(scene) {
            self.0.borrow_mut().on_element(scene, stanza);
        }
    }

    fn on_wake(&mut self, scene: &mut Scene<'_>) {
        if !scene.client.is_online() || !self.is_now(scene) || !self.0.borrow().enabled {
            return;
        }
        let mut person = self.0.borrow_mut();
        for _ in 0..=scene.random.below(4) {
            if person.deeds == 0 {
                break;
            }
            person.deeds -= 1;
            if person.lose_or_leave(scene) {
                return;
            }
            let steps = person.contacts.steps_per_mille;
            if steps > 0 && scene.random.happens(steps) {
                person.act(scene);
            } else {
                person.write(scene);
            }
        }
        person.wake_later(scene);
    }

    fn on_end(&mut self, scene: &mut Scene<'_>) {
        let mut person = self.0.borrow_mut();
        // An older connection may end late, after the person has come back on a newer one.
        if person.client == scene.me.0 || !scene.client.was_online() {
            person.come_back_later(scene);
        }
    }

    fn on_refused(&mut self, scene: &mut Scene<'_>) {
        scene.leaves = Some(Leave::Vanishing);
        self.0.borrow_mut().come_back_later(scene);
    }

    fn again(&self) -> Option<Box<dyn Actor>> {
        Some(Box::new(self.clone()))
    }
}
