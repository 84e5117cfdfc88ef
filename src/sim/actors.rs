//! Clients that act by themselves: they chat, ask, come and go, and write down what they see.

use crate::client::{Client, Login};
use crate::element::Element;
use crate::ledger::{Ledger, Sent};
use crate::random::Random;
use crate::world::ClientId;
use std::rc::Rc;

/// How a client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// It closes its stream.
    Politely,
    /// It ends its bytes without closing the stream.
    HalfClosed,
    /// Its connection breaks.
    Vanishing,
}

/// What an actor sees and may do.
pub struct Scene<'a> {
    /// Which client it is.
    pub me: ClientId,
    /// The time, in microseconds since 1970.
    pub now: u64,
    /// The client.
    pub client: &'a mut Client,
    /// Chance.
    pub random: &'a mut Random,
    /// What everybody writes into.
    pub ledger: &'a mut Ledger,
    /// What it says, to be sent when it is done.
    pub says: Vec<u8>,
    /// When it wants to be woken, in microseconds from now.
    pub wake_us: Option<u64>,
    /// Whether and how it goes, after it has said all.
    pub leaves: Option<Leave>,
    /// Whether it comes back on another connection, where [`Actor::again`] acts on.
    pub returns: Option<Reconnection>,
}

/// When a client comes back, and how.
#[derive(Clone, Debug)]
pub struct Reconnection {
    /// In how many microseconds.
    pub in_us: u64,
    /// As whom.
    pub login: Login,
}

/// A client with a mind of its own.
pub trait Actor {
    /// Its resource is bound.
    fn on_online(&mut self, scene: &mut Scene<'_>);
    /// A stanza arrived.
    fn on_stanza(&mut self, scene: &mut Scene<'_>, stanza: &Element);
    /// The time it asked for has come.
    fn on_wake(&mut self, scene: &mut Scene<'_>);
    /// Its connection is gone.
    fn on_end(&mut self, scene: &mut Scene<'_>) {
        let _ = scene;
    }
    /// Its login failed; the connection may still be there.
    fn on_refused(&mut self, scene: &mut Scene<'_>) {
        let _ = scene;
    }
    /// Who acts on its next connection.
    fn again(&self) -> Option<Box<dyn Actor>> {
        None
    }
}

/// Whom chatters write to.
#[derive(Debug, Default)]
pub struct Town {
    /// Bare JIDs of accounts.
    pub bare: Vec<String>,
    /// Full JIDs, of sessions that may exist.
    pub full: Vec<String>,
    /// Addresses that do not exist: accounts, resources, domains, the server itself.
    pub odd: Vec<String>,
}

/// A client that does random things, a number of times.
#[derive(Debug)]
pub struct Chatter {
    /// Whom it writes to.
    pub town: Rc<Town>,
    /// How many things it will do.
    pub deeds: u32,
    /// The priority of its presence; `None` sends no presence.
    pub priority: Option<i8>,
    /// The longest pause between two deeds, in microseconds.
    pub pause_us: u64,
    /// How it goes when it has done everything; `None` stays.
    pub leaves: Option<Leave>,
    /// Whether it starts as soon as it is online, or when it is woken.
    pub eager: bool,
    /// Whether it sends directed presence and goes unavailable for a while.
    pub moody: bool,
    /// Stanzas sent so far.
    pub count: usize,
}

impl Chatter {
    fn say(&mut self, scene: &mut Scene<'_>) {
        match scene.random.below(if self.moody { 20 } else { 15 }) {
            0..6 => {
                let to = scene.random.pick(&self.town.full).clone();
                let type_ = *scene
                    .random
                    .pick(&["chat", "normal", "headline", "groupchat"]);
                self.message(scene, &to, type_);
            }
            6..9 => {
                let to = scene.random.pick(&self.town.bare).clone();
                let type_ = *scene.random.pick(&["chat", "normal"]);
                self.message(scene, &to, type_);
            }
            9..11 => {
                let to = scene.random.pick(&self.town.full).clone();
                self.ask(scene, &to);
            }
            11 => {
                let to = scene.random.pick(&self.town.bare).clone();
                self.ask(scene, &to);
            }
            12 => {
                let to = scene.random.pick(&self.town.odd).clone();
                self.ask(scene, &to);
            }
            13 => {
                let to = scene.random.pick(&self.town.odd).clone();
                self.message(scene, &to, "chat");
            }
            14 => self.present(scene),
            15..18 => {
                let of = if scene.random.happens(500) {
                    &self.town.full
                } else {
                    &self.town.bare
                };
                let to = scene.random.pick(of).clone();
                let type_ = *scene.random.pick(&["", "", " type='unavailable'"]);
                let id = self.id(scene);
                let text = format!("<presence to='{to}' id='{id}'{type_}/>");
                scene.says.extend(text.into_bytes());
            }
            18 => scene.says.extend(b"<presence type='unavailable'/>"),
            _ => scene.says.extend(b" \n "),
        }
    }

    fn id(&mut self, scene: &Scene<'_>) -> String {
        self.count += 1;
        format!("m{}-{}", scene.me.0, self.count)
    }

    fn present(&self, scene: &mut Scene<'_>) {
        if let Some(priority) = self.priority {
            let text = format!("<presence><priority>{priority}</priority></presence>");
            scene.says.extend(text.into_bytes());
        }
    }

    fn message(&mut self, scene: &mut Scene<'_>, to: &str, type_: &'static str) {
        let id = self.id(scene);
        let padding = "x".repeat(scene.random.below(40) as usize);
        let body = format!("<body>{id}{padding}</body>");
        let text = format!("<message to='{to}' id='{id}' type='{type_}'>{body}</message>");
        scene.says.extend(text.into_bytes());
        let (by, from) = (scene.me, scene.client.full.clone());
        scene.ledger.sent.push(Sent {
            by,
            from,
            to: to.into(),
            name: "message",
            type_,
            id,
        });
    }

    fn ask(&mut self, scene: &mut Scene<'_>, to: &str) {
        let id = self.id(scene);
        let type_ = *scene.random.pick(&["get", "set"]);
        let text =
            format!("<iq to='{to}' id='{id}' type='{type_}'><ping xmlns='urn:xmpp:ping'/></iq>");
        scene.says.extend(text.into_bytes());
        let (by, from) = (scene.me, scene.client.full.clone());
        scene.ledger.sent.push(Sent {
            by,
            from,
            to: to.into(),
            name: "iq",
            type_,
            id,
        });
    }

    fn go_on(&mut self, scene: &mut Scene<'_>) {
        if self.deeds > 0 {
            scene.wake_us = Some(scene.random.within((0, self.pause_us)));
        } else if self.leaves.is_some() && scene.client.is_online() {
            scene.leaves = self.leaves;
        }
    }
}

impl Actor for Chatter {
    fn on_online(&mut self, scene: &mut Scene<'_>) {
        self.present(scene);
        if self.eager {
            self.go_on(scene);
        }
    }

    fn on_stanza(&mut self, scene: &mut Scene<'_>, stanza: &Element) {
        scene.ledger.note(scene.me, stanza);
        let asks = matches!(stanza.attr("type"), "get" | "set");
        if stanza.name == "iq" && asks {
            let (from, id) = (stanza.attr("from"), stanza.attr("id"));
            let text = format!("<iq to='{from}' id='{id}' type='result'/>");
            scene.says.extend(text.into_bytes());
        }
    }

    fn on_wake(&mut self, scene: &mut Scene<'_>) {
        if !scene.client.is_online() {
            return;
        }
        // Several at once now and then: what is sent together must stay together.
        for _ in 0..=scene.random.below(4) {
            if self.deeds > 0 {
                self.deeds -= 1;
                self.say(scene);
            }
        }
        self.go_on(scene);
    }
}
