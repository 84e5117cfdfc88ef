//! Random walks through the subscription states of RFC 6121 Appendix A, with both servers' sides,
//! both rosters and what everybody sees compared after each step.

use sim::{ClientId, Element, Faults, Login, Random, World, for_every_seed};
use stanza::jid::BareJid;
use std::collections::BTreeMap;
use xmpp::Settings;
use xmpp::port::{RosterItem, StoreOp, StoreReply};

const PEOPLE: [&str; 3] = ["alice@example.org", "bob@example.org", "carol@example.org"];

struct Walk {
    world: World,
    clients: Vec<ClientId>,
    /// Whether, as far as a client was told, another's resource is available.
    views: BTreeMap<(usize, String), bool>,
}

impl Walk {
    fn start(seed: u64, shards: u16) -> Walk {
        let settings = Settings {
            shards,
            ..Settings::for_tests("example.org")
        };
        let mut world = World::new(seed, settings, Faults::rough(&mut Random::new(seed)));
        let clients = PEOPLE.map(|jid| {
            world.add_account(jid, "secret");
            world.connect(Login::new(&format!("{jid}/x"), "secret"))
        });
        world.run();
        for client in clients {
            let text = "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq><presence/>";
            world.send(client, text);
        }
        let mut walk = Walk {
            world,
            clients: clients.to_vec(),
            views: BTreeMap::new(),
        };
        walk.settle();
        walk
    }

    fn settle(&mut self) {
        self.world.run();
        for (index, client) in self.clients.iter().enumerate() {
            for stanza in self.world.received(*client) {
                let available = match (stanza.name.as_str(), stanza.attr("type")) {
                    ("presence", "") => true,
                    ("presence", "unavailable") => false,
                    _ => continue,
                };
                self.views
                    .insert((index, stanza.attr("from").to_owned()), available);
            }
        }
    }

    fn roster(&mut self, of: usize) -> Vec<RosterItem> {
        let account = BareJid::from_prepared(PEOPLE[of]);
        match self.world.perform(StoreOp::Account { account }) {
            StoreReply::Account(Some(data)) => data.roster,
            other => panic!("{other:?}"),
        }
    }

    fn item(&mut self, of: usize, contact: usize) -> RosterItem {
        let jid = BareJid::from_prepared(PEOPLE[contact]);
        let found = self.roster(of).into_iter().find(|item| item.contact == jid);
        found.unwrap_or_else(|| RosterItem::new(jid))
    }

    /// One of the things that a person can do about a contact.
    fn step(&mut self, random: &mut Random) -> String {
        let who = random.below(PEOPLE.len() as u64) as usize;
        let contact = (who + 1 + random.below(PEOPLE.len() as u64 - 1) as usize) % PEOPLE.len();
        let to = PEOPLE[contact];
        let text = match random.below(10) {
            8 => format!(
                "<iq type='set' id='s'><query xmlns='jabber:iq:roster'>\
                 <item jid='{to}' subscription='remove'/></query></iq>"
            ),
            9 => format!(
                "<iq type='set' id='s'><query xmlns='jabber:iq:roster'>\
                 <item jid='{to}' name='n'/></query></iq>"
            ),
            pick => {
                let types = ["subscribe", "subscribed", "unsubscribe", "unsubscribed"];
                format!("<presence to='{to}' type='{}'/>", types[pick as usize % 4])
            }
        };
        self.world.send(self.clients[who], &text);
        self.settle();
        format!("{}: {text}", PEOPLE[who])
    }

    /// Both sides say the same of each subscription, and presence is seen by who may see it.
    fn check(&mut self, steps: &[String]) {
        for who in 0..PEOPLE.len() {
            for contact in (0..PEOPLE.len()).filter(|contact| *contact != who) {
                let (own, other) = (self.item(who, contact), self.item(contact, who));
                let place = format!("after {steps:#?}\n{own:?}\n{other:?}");
                assert_eq!(
                    own.subscription.is_to(),
                    other.subscription.is_from(),
                    "{place}"
                );
                assert!(
                    !own.ask || other.pending_in.is_some(),
                    "nobody waits: {place}"
                );
                assert!(!(own.ask && own.subscription.is_to()), "{place}");
                let pending = other.pending_in.is_some();
                assert!(!(pending && other.subscription.is_from()), "{place}");
                let view = self.views.get(&(who, format!("{}/x", PEOPLE[contact])));
                let sees = view.copied().unwrap_or(false);
                assert_eq!(sees, own.subscription.is_to(), "what is seen: {place}");
            }
        }
    }
}

#[test]
fn both_rosters_and_what_is_seen_agree_after_every_step() {
    for_every_seed(60, |seed| {
        let mut random = Random::new(seed);
        let mut walk = Walk::start(seed, 1 + (seed % 3) as u16);
        let mut steps = Vec::new();
        for _ in 0..60 {
            steps.push(walk.step(&mut random));
            walk.check(&steps);
        }
        walk.world.check_rest();
    });
}

#[test]
fn what_was_agreed_is_still_so_after_everybody_logs_in_again() {
    for seed in 1..=20 {
        let mut random = Random::new(seed);
        let mut walk = Walk::start(seed, 1 + (seed % 3) as u16);
        let steps: Vec<String> = (0..30).map(|_| walk.step(&mut random)).collect();
        for client in walk.clients.clone() {
            walk.world.leave(client);
        }
        walk.world.run();
        walk.views.clear();
        walk.clients = PEOPLE
            .iter()
            .map(|jid| {
                walk.world
                    .connect(Login::new(&format!("{jid}/x"), "secret"))
            })
            .collect();
        walk.world.run();
        for client in walk.clients.clone() {
            walk.world.send(client, "<presence/>");
        }
        walk.settle();
        walk.check(&steps);
    }
}

/// Alice and bob see each other, and bob blocks her: what she ends then is over in his roster, too,
/// and neither hears of the other.
#[test]
fn what_a_blocked_contact_ends_is_over_on_both_sides_and_nobody_is_told() {
    let [alice, bob] = [0, 1];
    let says = |type_| format!("<presence to='{}' type='{type_}'/>", PEOPLE[bob]);
    let iq = |payload: &str| format!("<iq type='set' id='i'>{payload}</iq>");
    let removal = format!(
        "<query xmlns='jabber:iq:roster'><item jid='{}' subscription='remove'/></query>",
        PEOPLE[bob]
    );
    let cancellation = "<query xmlns='jabber:iq:register'><remove/></query>";
    let ends = [
        (says("unsubscribe"), "to"),
        (says("unsubscribed"), "from"),
        (iq(&removal), "none"),
        (iq(cancellation), "none"),
        (says("subscribe"), "both"),
        (says("subscribed"), "both"),
    ];
    for (seed, (end, left)) in (0..6).flat_map(|seed| ends.iter().map(move |end| (seed, end))) {
        let place = format!("seed {seed}: {end}");
        let mut walk = Walk::start(seed, 1 + (seed % 3) as u16);
        for (who, contact) in [(alice, bob), (bob, alice)] {
            for (who, contact, type_) in [(who, contact, "subscribe"), (contact, who, "subscribed")]
            {
                let text = format!("<presence to='{}' type='{type_}'/>", PEOPLE[contact]);
                walk.world.send(walk.clients[who], &text);
                walk.settle();
            }
        }
        let command = |name: &str| {
            let item = format!("<item jid='{}'/>", PEOPLE[alice]);
            iq(&format!(
                "<{name} xmlns='urn:xmpp:blocking'>{item}</{name}>"
            ))
        };
        walk.world.send(walk.clients[bob], &command("block"));
        walk.settle();
        walk.world.send(walk.clients[alice], end);
        walk.world.run();
        let heard = walk.world.received(walk.clients[bob]);
        let is_push = |it: &Element| it.name == "iq" && it.child("query").is_some();
        assert!(heard.iter().all(is_push), "{place}: {heard:?}");
        assert_eq!(heard.is_empty(), *left == "both", "{place}");
        let item = walk.item(bob, alice);
        assert_eq!(item.subscription.as_str(), *left, "{place}");
        assert!(item.pending_in.is_none(), "{place}");
        // Once she is not blocked any more she sees him if she still may.
        walk.world.send(walk.clients[bob], &command("unblock"));
        walk.world.run();
        let heard = walk.world.received(walk.clients[alice]);
        let seen = heard
            .iter()
            .filter(|it| it.attr("from").starts_with(PEOPLE[bob]));
        let seen: Vec<_> = seen.map(|it| it.attr("type")).collect();
        let expected: &[&str] = if item.subscription.is_from() {
            &[""]
        } else {
            &[]
        };
        assert_eq!(seen, expected, "{place}");
    }
}
