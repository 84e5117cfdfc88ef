//! A client that keeps its roster with the version (RFC 6121 2.6) knows all of it, whatever others
//! changed while it was away, and whatever became of the process and the disk; and how large it is.

use sim::steps::counted;
use sim::{ClientId, Element, Faults, Login, Random, World, for_every_seed};
use stanza::jid::BareJid;
use std::collections::BTreeMap;
use xmpp::Settings;
use xmpp::limit::{Limits, ROSTER_ITEM_SIZE_MEAN};
use xmpp::port::{StoreOp, StoreReply};
use xmpp::removed::{REMOVED_MAX, REMOVED_UNHEARD_MAX};

const ALICE: &str = "alice@example.org";

/// Contacts: the first three have accounts.
const CONTACTS: [&str; 5] = [
    "bob@example.org",
    "carol@example.org",
    "dave@example.org",
    "nobody@example.org",
    "somebody@elsewhere.example",
];

/// A roster as a client keeps it: items as text by their contacts.
type Items = BTreeMap<String, String>;

/// What a client keeps from one session to the next.
#[derive(Default)]
struct Cache {
    version: String,
    items: Items,
}

impl Cache {
    /// Takes a result or a push; answers whether it was a whole roster.
    fn take(&mut self, stanza: &Element) -> bool {
        let Some(query) = stanza.child("query") else {
            return false;
        };
        let is_whole = stanza.attr("type") == "result";
        if is_whole {
            self.items.clear();
        }
        for item in &query.children {
            let contact = item.attr("jid").to_owned();
            match item.attr("subscription") {
                "remove" => self.items.remove(&contact),
                _ => self.items.insert(contact, format!("{item:?}")),
            };
        }
        if !query.attr("ver").is_empty() {
            query.attr("ver").clone_into(&mut self.version);
        }
        is_whole
    }
}

struct Play {
    world: World,
    random: Random,
    /// Changes the roster, while it is there.
    desk: Option<ClientId>,
    /// Keeps it, while it is there.
    phone: Option<ClientId>,
    cache: Cache,
    others: Vec<ClientId>,
    /// How often the phone asked with a version, and how often it was sent everything.
    asked: [u32; 2],
}

fn ask_roster(version: Option<&str>) -> String {
    let version = version.map_or_else(String::new, |it| format!(" ver='{it}'"));
    format!("<iq type='get' id='r'><query xmlns='jabber:iq:roster'{version}/></iq><presence/>")
}

impl Play {
    fn start(seed: u64) -> Play {
        let mut random = Random::new(seed);
        let settings = Settings {
            shards: 1 + random.below(3) as u16,
            ..Settings::for_tests("example.org")
        };
        let mut world = World::new(seed, settings, Faults::rough(&mut random));
        world.add_account(ALICE, "secret");
        for contact in &CONTACTS[..3] {
            world.add_account(contact, "secret");
        }
        let mut play = Play {
            world,
            random,
            desk: None,
            phone: None,
            cache: Cache::default(),
            others: Vec::new(),
            asked: [0; 2],
        };
        play.connect_others();
        play
    }

    fn login(&mut self, full: &str) -> ClientId {
        let client = self.world.connect(Login::new(full, "secret"));
        self.world.run();
        client
    }

    fn connect_others(&mut self) {
        self.others.clear();
        for contact in &CONTACTS[..3] {
            let client = self.login(&format!("{contact}/x"));
            self.world.send(client, &ask_roster(None));
            self.others.push(client);
        }
    }

    fn desk(&mut self) -> ClientId {
        if let Some(desk) = self.desk {
            return desk;
        }
        let desk = self.login(&format!("{ALICE}/desk"));
        self.desk = Some(desk);
        desk
    }

    fn change(&mut self) {
        let contact = *self.random.pick(&CONTACTS);
        let item = |rest: &str| {
            format!(
                "<iq type='set' id='s'><query xmlns='jabber:iq:roster'>\
                 <item jid='{contact}'{rest}</query></iq>"
            )
        };
        let types = ["subscribe", "subscribed", "unsubscribe", "unsubscribed"];
        let type_ = *self.random.pick(&types);
        match self.random.below(5) {
            0 => {
                let desk = self.desk();
                self.world.send(desk, &item(" subscription='remove'/>"));
            }
            1 => {
                let desk = self.desk();
                let name = self.random.below(100);
                let text = item(&format!(" name='n{name}'><group>g</group></item>"));
                self.world.send(desk, &text);
            }
            2 | 3 => {
                let desk = self.desk();
                let text = format!("<presence to='{contact}' type='{type_}'/>");
                self.world.send(desk, &text);
            }
            _ => {
                let other = *self.random.pick(&self.others);
                let text = format!("<presence to='{ALICE}' type='{type_}'/>");
                self.world.send(other, &text);
            }
        }
    }

    /// What the phone was sent; whether there was a whole roster in it.
    fn hear(&mut self) -> bool {
        let Some(phone) = self.phone else {
            return false;
        };
        let got = self.world.received(phone);
        let whole = got.iter().filter(|stanza| self.cache.take(stanza));
        whole.count() > 0
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0 => {
                self.world.crash();
                self.world.run();
                (self.desk, self.phone) = (None, None);
                self.connect_others();
            }
            1 | 2 => {
                // With nobody there the account leaves memory.
                for client in [self.desk.take(), self.phone.take()].into_iter().flatten() {
                    self.world.leave(client);
                }
            }
            3 | 4 => {
                if let Some(phone) = self.phone.take() {
                    self.world.leave(phone);
                }
            }
            5 => self.world.faults.disk_failures = *self.random.pick(&[0, 0, 300]),
            6..=8 => self.sync(),
            _ => self.change(),
        }
        // Not always: then changes are under way while the next thing happens.
        if self.random.below(3) > 0 {
            self.world.run();
            self.hear();
        }
    }

    /// The phone comes back, asks for what it lacks, and knows all.
    fn sync(&mut self) {
        self.world.faults.disk_failures = 0;
        self.world.run_for(10_000);
        self.hear();
        if self.phone.is_none() {
            let phone = self.login(&format!("{ALICE}/phone"));
            self.phone = Some(phone);
            let version = self.cache.version.clone();
            self.world.send(phone, &ask_roster(Some(&version)));
            self.world.run();
            let is_whole = self.hear();
            if !version.is_empty() {
                self.asked[0] += 1;
                self.asked[1] += u32::from(is_whole);
            }
        }
        let fresh = self.login(&format!("{ALICE}/fresh"));
        self.world.send(fresh, &ask_roster(Some("")));
        self.world.run();
        self.hear();
        let mut whole = Cache::default();
        for stanza in self.world.received(fresh) {
            whole.take(&stanza);
        }
        self.world.leave(fresh);
        self.world.run();
        self.hear();
        assert_eq!(self.cache.items, whole.items);
    }
}

#[test]
fn a_client_with_a_version_knows_the_whole_roster() {
    let totals = std::cell::Cell::new([0; 2]);
    for_every_seed(200, |seed| {
        let mut play = Play::start(seed);
        for _ in 0..60 {
            play.step();
        }
        play.sync();
        let [asked, whole] = totals.get();
        totals.set([asked + play.asked[0], whole + play.asked[1]]);
    });
    let [asked, whole] = totals.get();
    assert!(asked > 4 * whole, "{whole} of {asked} answers were whole");
}

/// A client that lost the server in a crash hears of a contact that was removed meanwhile.
#[test]
fn a_session_that_comes_back_from_storage_hears_of_removals() {
    let mut world = World::new(5, Settings::for_tests("example.org"), Faults::calm());
    world.add_account(ALICE, "secret");
    let phone = world.connect(Login::new("alice@example.org/phone", "secret"));
    let desk = world.connect(Login::new("alice@example.org/desk", "secret"));
    world.run();
    let enable = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";
    world.send(phone, &format!("{enable}{}", ask_roster(None)));
    let item = |rest: &str| {
        format!(
            "<iq type='set' id='s'><query xmlns='jabber:iq:roster'>\
             <item jid='bob@example.org'{rest}/></query></iq>"
        )
    };
    world.send(desk, &item(" name='Bob'"));
    world.run();
    let got = world.received(phone);
    let enabled = got.iter().find(|stanza| stanza.name == "enabled");
    let id = enabled.expect("an answer").attr("id").to_owned();
    world.vanish(phone);
    world.run();
    world.send(desk, &item(" subscription='remove'"));
    world.run();
    world.crash();
    world.run();
    let mut login = Login::new("alice@example.org/phone", "secret");
    login.resume = Some((id, 0));
    let phone = world.connect(login);
    world.run();
    let got = world.received(phone);
    let pushes = got.iter().filter_map(|stanza| stanza.child("query"));
    let items = pushes.flat_map(|query| &query.children);
    let removed = items.filter(|item| item.attr("subscription") == "remove");
    assert_eq!(removed.count(), 1, "{got:?}");
}

#[test]
fn so_many_removals_are_remembered_and_whoever_misses_more_gets_everything() {
    let mut world = World::new(6, Settings::for_tests("example.org"), Faults::calm());
    world.add_account(ALICE, "secret");
    let desk = world.connect(Login::new("alice@example.org/desk", "secret"));
    world.run();
    let set = |number: usize, rest: &str| {
        format!(
            "<iq type='set' id='s'><query xmlns='jabber:iq:roster'>\
             <item jid='c{number}@example.org'{rest}/></query></iq>"
        )
    };
    let count = REMOVED_MAX + 2;
    for number in 0..count {
        world.send(desk, &set(number, ""));
        world.run();
    }
    // The version before each removal, and a last one.
    let mut versions = Vec::new();
    for number in 0..count {
        world.received(desk);
        world.send(desk, &ask_roster(Some("")));
        world.run();
        let got = world.received(desk);
        let mut cache = Cache::default();
        assert!(got.iter().any(|stanza| cache.take(stanza)));
        versions.push(cache);
        world.send(desk, &set(number, " subscription='remove'"));
        world.run();
    }
    world.leave(desk);
    world.run();
    for (number, mut cache) in versions.into_iter().enumerate() {
        let client = world.connect(Login::new("alice@example.org/x", "secret"));
        world.run();
        world.send(client, &ask_roster(Some(&cache.version)));
        world.run();
        let got = world.received(client);
        let whole = got.iter().filter(|stanza| cache.take(stanza)).count();
        assert_eq!(whole, usize::from(number < 2), "{number}: {got:?}");
        assert_eq!(cache.items, Items::new());
        world.leave(client);
        world.run();
    }
}

#[test]
fn a_roster_has_so_many_bytes_and_no_more() {
    const ITEMS: usize = 40;
    let limits = Limits {
        roster_items_max: ITEMS,
        ..Limits::default()
    };
    let settings = Settings {
        limits,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(7, settings, Faults::calm());
    world.add_account("alice@example.org", "secret");
    let alice = world.connect(Login::new("alice@example.org/x", "secret"));
    world.run();
    let mut set = |contact: usize, size: usize| {
        let item = format!("<item jid='{contact:04}@b.c' name='{}'/>", "n".repeat(size));
        let query = format!("<query xmlns='jabber:iq:roster'>{item}</query>");
        world.send(alice, &format!("<iq type='set' id='s'>{query}</iq>"));
        world.run();
        let answers = world.received(alice);
        answers.last().expect("an answer").condition().to_owned()
    };
    // With their addresses these have the mean of four.
    let long = 4 * ROSTER_ITEM_SIZE_MEAN - 8;
    for contact in 0..ITEMS / 4 {
        assert_eq!(set(contact, long), "");
    }
    assert_eq!(set(ITEMS, 0), "resource-constraint");
    assert_eq!(set(0, long + 1), "resource-constraint");
    // What gets shorter makes room.
    assert_eq!(set(0, long - 20), "");
    assert_eq!(set(ITEMS, 12), "");
    assert_eq!(set(ITEMS, 13), "resource-constraint");
}

fn set_contact(number: usize, rest: &str) -> String {
    format!(
        "<iq type='set' id='s'><query xmlns='jabber:iq:roster'>\
         <item jid='c{number}@example.org'{rest}/></query></iq>"
    )
}

/// A phone sleeps while so many of its contacts are removed, then the process dies. Answers the
/// phone, which is back, what it knows and all versions that it was told.
fn removed_while_asleep(world: &mut World, count: usize) -> (ClientId, Cache, Vec<String>) {
    world.add_account(ALICE, "secret");
    let (phone, session) = world.log_in_managed("alice@example.org/phone");
    let desk = world.log_in("alice@example.org/desk");
    for number in 0..count {
        world.tell(desk, &set_contact(number, ""));
    }
    world.tell(phone, &ask_roster(Some("")));
    let mut cache = Cache::default();
    let got = world.received(phone);
    let had = counted(&got);
    for stanza in &got {
        cache.take(stanza);
    }
    assert_eq!(cache.items.len(), count);
    world.vanish(phone);
    world.run();
    for number in 0..count {
        world.tell(desk, &set_contact(number, " subscription='remove'"));
    }
    world.tell(desk, &set_contact(count, ""));
    world.crash();
    world.run();
    let phone = world.resume("alice@example.org/phone", &session, had);
    let mut versions = Vec::new();
    for stanza in world.received(phone) {
        if cache.take(&stanza) || stanza.child("query").is_some() {
            versions.push(cache.version.clone());
        }
    }
    (phone, cache, versions)
}

/// What a client knows when it has logged in with what it knew.
fn log_in_with(world: &mut World, mut cache: Cache) -> Cache {
    let client = world.log_in("alice@example.org/later");
    world.tell(client, &ask_roster(Some(&cache.version)));
    let got = world.received(client);
    for stanza in &got {
        cache.take(stanza);
    }
    world.leave(client);
    cache
}

/// More than a roster remembers of them otherwise.
#[test]
fn a_session_that_comes_back_from_storage_hears_of_many_removals() {
    let mut world = World::new(8, Settings::for_tests("example.org"), Faults::calm());
    let (_, cache, _) = removed_while_asleep(&mut world, REMOVED_MAX + 6);
    assert_eq!(cache.items.len(), 1, "{:?}", cache.items);
    assert_eq!(log_in_with(&mut world, cache).items.len(), 1);
}

/// So many are remembered for it and no more: then it is told no version, whatever comes later,
/// until it asks.
#[test]
fn a_session_that_may_lack_removals_is_told_no_version() {
    let mut world = World::new(9, Settings::for_tests("example.org"), Faults::calm());
    let count = REMOVED_UNHEARD_MAX + 2;
    let (phone, mut cache, versions) = removed_while_asleep(&mut world, count);
    assert!(cache.items.len() <= 3, "{:?}", cache.items);
    let desk = world.log_in("alice@example.org/desk");
    let mut hear = |world: &mut World, text: &str| {
        world.tell(desk, text);
        let got = world.received(phone);
        for stanza in &got {
            cache.take(stanza);
        }
        cache.version.clone()
    };
    let later = hear(&mut world, &set_contact(count + 1, ""));
    let mut versions = versions.into_iter().chain([later]);
    assert!(versions.all(|version| version == "0"));
    let known = Cache {
        version: "0".to_owned(),
        items: Items::from([("gone@example.org".to_owned(), String::new())]),
    };
    assert_eq!(log_in_with(&mut world, known).items.len(), 2);
    world.tell(phone, &ask_roster(None));
    world.received(phone);
    assert_ne!(hear(&mut world, &set_contact(count + 2, "")), "0");
    // With nobody asleep any more the roster comes down to what it remembers otherwise.
    world.leave(phone);
    for number in 0..REMOVED_UNHEARD_MAX {
        world.tell(desk, &set_contact(number, ""));
        world.tell(desk, &set_contact(number, " subscription='remove'"));
    }
    let account = BareJid::from_prepared(ALICE);
    let StoreReply::Account(Some(stored)) = world.perform(StoreOp::Account { account }) else {
        panic!("no account");
    };
    let removed = stored.roster.iter().filter(|item| item.is_removed());
    assert_eq!(removed.count(), REMOVED_MAX);
}
