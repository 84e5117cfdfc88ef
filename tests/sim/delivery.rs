//! The delivery table of RFC 6121 8.5, every cell: what the account has x which address x which
//! stanza, on one shard and across two.

use sim::{ClientId, Faults, Login, World};
use stanza::jid::BareJid;
use xmpp::Settings;
use xmpp::port::{StoreOp, StoreReply};

/// What the receiving account has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    NoAccount,
    NoResource,
    /// Connected, but never sent presence.
    Silent,
    OnlyNegative,
    One,
    /// Two of priority 5 and 0, one of priority -1, one without presence.
    Several,
}

const STATES: [State; 6] = [
    State::NoAccount,
    State::NoResource,
    State::Silent,
    State::OnlyNegative,
    State::One,
    State::Several,
];

/// How the account is addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Address {
    Bare,
    /// A resource that is connected.
    Match(&'static str),
    NoMatch,
}

/// What becomes of a stanza.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// It waits in storage.
    Stored,
    /// These resources get it, in the order of their names.
    Delivered(Vec<&'static str>),
    /// The sender gets this error.
    Bounced(&'static str),
    /// Nobody hears of it.
    Dropped,
}

impl State {
    /// The resources that are there, with the priority of their presence.
    fn resources(self) -> &'static [(&'static str, Option<i8>)] {
        match self {
            State::NoAccount | State::NoResource => &[],
            State::Silent => &[("silent", None)],
            State::OnlyNegative => &[("low", Some(-1))],
            State::One => &[("desk", Some(0))],
            State::Several => &[
                ("desk", Some(0)),
                ("low", Some(-1)),
                ("phone", Some(5)),
                ("silent", None),
            ],
        }
    }

    fn addresses(self) -> Vec<Address> {
        let full = self
            .resources()
            .iter()
            .map(|(name, _)| Address::Match(name));
        [Address::Bare, Address::NoMatch]
            .into_iter()
            .chain(full)
            .collect()
    }

    fn available(self, least: i8) -> Vec<&'static str> {
        let fits = |(name, priority): &(&'static str, Option<i8>)| {
            priority
                .is_some_and(|priority| priority >= least)
                .then_some(*name)
        };
        self.resources().iter().filter_map(fits).collect()
    }
}

const UNAVAILABLE: Fate = Fate::Bounced("service-unavailable");

/// What the RFC, and the choices that it leaves to us, say of a stanza.
fn expected(state: State, address: Address, name: &str, type_: &str) -> Fate {
    let delivered = |to: Vec<&'static str>, otherwise: Fate| {
        if to.is_empty() {
            otherwise
        } else {
            Fate::Delivered(to)
        }
    };
    match (name, type_, address) {
        // 8.5.3.1: a matching resource gets whatever there is.
        ("message" | "iq", _, Address::Match(resource)) => Fate::Delivered(vec![resource]),
        ("presence", "" | "unavailable", Address::Match(resource)) => {
            Fate::Delivered(vec![resource])
        }
        // 8.5.1, 8.5.2.1.1, 8.5.2.2.1, 8.5.3.2.1: all of non-negative priority, or nobody.
        // 5.2.2: an unknown type is a normal one.
        // 8.5.2.2.1 and XEP-0160: what a person would read later waits, if there is an account.
        ("message", "" | "normal" | "unheard-of", Address::Bare) | ("message", "chat", _) => {
            let waits = match state {
                State::NoAccount => UNAVAILABLE,
                _ => Fate::Stored,
            };
            delivered(state.available(0), waits)
        }
        ("message", "headline", Address::Bare) => delivered(state.available(0), Fate::Dropped),
        ("message", "groupchat", _) => UNAVAILABLE,
        ("message", "error", _) => Fate::Dropped,
        ("message", "headline", Address::NoMatch) => Fate::Dropped,
        ("message", _, _) => UNAVAILABLE,
        // 8.5.2.1.2: to all available resources, whatever their priority.
        ("presence", "" | "unavailable", Address::Bare) => {
            delivered(state.available(-128), Fate::Dropped)
        }
        ("presence", _, _) => Fate::Dropped,
        // 8.5.1 and 8.5.2.1.3: the server answers for the account; here it cannot.
        ("iq", "get" | "set", _) => UNAVAILABLE,
        _ => Fate::Dropped,
    }
}

struct Scene {
    world: World,
    alice: ClientId,
    bob: Vec<(&'static str, ClientId)>,
}

fn scene(seed: u64, shards: u16, state: State) -> Scene {
    let settings = Settings {
        shards,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(seed, settings, Faults::calm());
    world.add_account("alice@example.org", "secret");
    let alice = world.connect(Login::new("alice@example.org/desk", "secret"));
    if state != State::NoAccount {
        world.add_account("bob@example.org", "secret");
    }
    let mut bob = Vec::new();
    for (resource, priority) in state.resources() {
        let id = world.connect(Login::new(&format!("bob@example.org/{resource}"), "secret"));
        world.run();
        if let Some(priority) = priority {
            let text = format!("<presence><priority>{priority}</priority></presence>");
            world.send(id, &text);
        }
        bob.push((*resource, id));
    }
    world.run();
    world.send(alice, "<presence/>");
    world.run();
    for (_, id) in &bob {
        world.received(*id);
    }
    world.received(alice);
    Scene { world, alice, bob }
}

impl Scene {
    /// Sends one stanza from alice and finds out what becomes of it.
    fn fate(&mut self, address: Address, name: &str, type_: &str) -> Fate {
        let to = match address {
            Address::Bare => "bob@example.org".to_owned(),
            Address::Match(resource) => format!("bob@example.org/{resource}"),
            Address::NoMatch => "bob@example.org/elsewhere".to_owned(),
        };
        let attribute = if type_.is_empty() {
            String::new()
        } else {
            format!(" type='{type_}'")
        };
        let payload = match (name, type_) {
            ("iq", "get" | "set") => "<ping xmlns='urn:xmpp:ping'/>",
            ("message", _) => "<body>hi</body>",
            _ => "",
        };
        let text = format!("<{name} to='{to}' id='cell'{attribute}>{payload}</{name}>");
        self.world.send(self.alice, &text);
        self.world.run();
        let mut delivered = Vec::new();
        for (resource, id) in &self.bob {
            let got = self.world.received(*id);
            assert!(
                got.len() <= 1,
                "{resource} got {} stanzas for {text}",
                got.len()
            );
            if let Some(stanza) = got.first() {
                assert_eq!(
                    (stanza.name.as_str(), stanza.attr("type")),
                    (name, type_),
                    "{text}"
                );
                assert_eq!(stanza.attr("from"), "alice@example.org/desk", "{text}");
                assert_eq!(stanza.attr("to"), to, "`to` is never rewritten: {text}");
                delivered.push(*resource);
            }
        }
        let answers = self.world.received(self.alice);
        match (answers.first(), delivered.is_empty()) {
            (None, true) if self.waits() => Fate::Stored,
            (None, true) => Fate::Dropped,
            (None, false) => Fate::Delivered(delivered),
            (Some(error), true) => {
                assert_eq!((answers.len(), error.attr("type")), (1, "error"), "{text}");
                assert_eq!(error.name, name, "{text}");
                assert_eq!(
                    (error.attr("id"), error.attr("from")),
                    ("cell", &*to),
                    "{text}"
                );
                assert_eq!(error.attr("to"), "alice@example.org/desk", "{text}");
                conditions(error.condition())
            }
            (Some(answer), false) => panic!("{text} was delivered and answered by {answer}"),
        }
    }
}

impl Scene {
    /// Whether the stanza waits for bob in storage; it is taken out.
    fn waits(&mut self) -> bool {
        let account = BareJid::from_prepared("bob@example.org");
        let asked = StoreOp::Offline {
            account: account.clone(),
        };
        let StoreReply::Offline(waiting) = self.world.perform(asked) else {
            panic!("storage tells what waits");
        };
        let Some((last, (_, bytes))) = waiting.last() else {
            return false;
        };
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(waiting.len(), 1, "{text}");
        assert!(
            text.contains("id='cell'") && text.contains("<delay "),
            "{text}"
        );
        let up_to = *last;
        self.world
            .perform(StoreOp::RemoveOffline { account, up_to });
        true
    }
}

/// The conditions that may occur, so that fates can be compared.
fn conditions(found: &str) -> Fate {
    let known = [
        "service-unavailable",
        "not-acceptable",
        "bad-request",
        "item-not-found",
    ];
    let known = known.into_iter().find(|known| *known == found);
    Fate::Bounced(known.unwrap_or_else(|| panic!("odd condition {found}")))
}

#[test]
fn every_cell_of_the_delivery_table_is_as_rfc_6121_has_it() {
    let stanzas: [(&str, &[&str]); 3] = [
        (
            "message",
            &[
                "",
                "normal",
                "chat",
                "groupchat",
                "headline",
                "error",
                "unheard-of",
            ],
        ),
        ("presence", &["", "unavailable"]),
        ("iq", &["get", "set", "result", "error"]),
    ];
    let mut wrong = Vec::new();
    let mut cells = 0;
    for shards in [1, 2, 3] {
        for state in STATES {
            let mut scene = scene(7, shards, state);
            for address in state.addresses() {
                for (name, types) in stanzas {
                    for type_ in types {
                        let got = scene.fate(address, name, type_);
                        let want = expected(state, address, name, type_);
                        cells += 1;
                        if got != want {
                            wrong.push(format!(
                                "{shards} shards, {state:?} {address:?} {name} '{type_}': {got:?}, \
                                 not {want:?}"
                            ));
                        }
                    }
                }
            }
            scene.world.check_rest();
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {cells} cells:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn the_table_is_the_same_for_ones_own_account() {
    // RFC 6120 10.3.1: a message without an address is for one's own bare JID.
    for shards in [1, 2] {
        let mut scene = scene(3, shards, State::NoResource);
        scene.world.send(
            scene.alice,
            "<message id='1'><body>note to self</body></message>",
        );
        scene.world.run();
        let got = scene.world.received(scene.alice);
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].attr("from"), "alice@example.org/desk");
        assert_eq!(got[0].attr("to"), "alice@example.org");
    }
}

#[test]
fn a_resource_whose_copy_storage_refuses_gets_it_all_the_same_if_another_has_it() {
    let mut world = World::new(3, Settings::for_tests("example.org"), Faults::calm());
    for name in ["alice", "bob"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    let login = |world: &mut World, full: &str, first: &str| {
        let client = world.connect(Login::new(full, "secret"));
        world.run();
        world.send(client, first);
        world.run();
        assert!(!world.received(client).is_empty());
        client
    };
    let alice = login(&mut world, "alice@example.org/desk", "<presence/>");
    let enable = "<enable xmlns='urn:xmpp:sm:3' resume='true'/><presence/>";
    let managed = login(&mut world, "bob@example.org/phone", enable);
    let plain = login(&mut world, "bob@example.org/watch", "<presence/>");
    world.received(managed);
    world.faults.disk_failures = 1_000;
    let message = |id: u32| format!("<message to='bob@example.org' id='{id}'><body/></message>");
    world.send(alice, &message(1));
    world.run();
    let ids = |world: &mut World, client| -> Vec<String> {
        let got = world.received(client);
        let stanzas = got.iter().filter(|it| it.name == "message");
        stanzas.map(|it| it.attr("id").to_owned()).collect()
    };
    assert_eq!(ids(&mut world, plain), ["1"]);
    assert_eq!(ids(&mut world, managed), ["1"]);
    assert_eq!(ids(&mut world, alice), [""; 0], "nor is it an error");
    world.faults.disk_failures = 0;
    world.send(alice, &message(2));
    world.run();
    for client in [plain, managed] {
        assert_eq!(ids(&mut world, client), ["2"]);
    }
}
