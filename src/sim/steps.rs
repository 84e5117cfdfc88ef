//! What scripted tests do again and again, each until everything has happened.

use crate::element::Element;
use crate::{ClientId, Faults, Login, World};
use stanza::jid::BareJid;
use xmpp::port::{RosterItem, StoreOp, StoreReply, Subscription};
use xmpp::router::Router;
use xmpp::xep::components::handshake;
use xmpp::{Settings, ShardId};

const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";

impl World {
    /// A client that has bound `full`; its account's password is `secret`.
    pub fn log_in(&mut self, full: &str) -> ClientId {
        let client = self.connect(Login::new(full, "secret"));
        self.run();
        client
    }

    /// A client with a session that can be resumed, and the session's id.
    ///
    /// # Panics
    /// Where the server does not manage it.
    pub fn log_in_managed(&mut self, full: &str) -> (ClientId, String) {
        let client = self.log_in(full);
        self.tell(client, ENABLE);
        let received = self.received(client);
        let enabled = received.iter().find(|it| it.name == "enabled");
        let id = enabled.expect("it is managed").attr("id");
        (client, id.to_owned())
    }

    /// A client that has bound `full` and is available.
    pub fn arrive(&mut self, full: &str) -> ClientId {
        let client = self.log_in(full);
        self.tell(client, "<presence/>");
        client
    }

    /// What a client was told of the presence of an account: from where, and the type.
    pub fn told_presence(&mut self, client: ClientId, of: &str) -> Vec<(String, String)> {
        let received = self.received(client).into_iter();
        let presence =
            received.filter(|it| it.name == "presence" && it.attr("from").starts_with(of));
        let told = presence.map(|it| (it.attr("from").to_owned(), it.attr("type").to_owned()));
        told.collect()
    }

    /// A calm world in which alice, bob and carl of `example.org` have accounts.
    pub fn of_three(seed: u64, shards: u16) -> World {
        let settings = Settings {
            shards,
            ..Settings::for_tests("example.org")
        };
        let mut world = World::new(seed, settings, Faults::calm());
        for name in ["alice", "bob", "carl"] {
            world.add_account(&format!("{name}@example.org"), "secret");
        }
        world
    }

    /// A client that asks for a session, of which it has had `h` stanzas; nothing has happened yet.
    pub fn ask_for(&mut self, full: &str, session: &str, h: u32) -> ClientId {
        let mut login = Login::new(full, "secret");
        login.resume = Some((session.to_owned(), h));
        self.connect(login)
    }

    /// As [`World::ask_for`], and everything has.
    pub fn resume(&mut self, full: &str, session: &str, h: u32) -> ClientId {
        let client = self.ask_for(full, session, h);
        self.run();
        client
    }

    /// Two accounts that see each other, from before anybody was there.
    ///
    /// # Panics
    /// Where storage does not take it.
    pub fn befriend(&mut self, one: &str, two: &str) {
        for (owner, contact) in [(one, two), (two, one)] {
            self.give_contact(owner, contact, Subscription::Both);
        }
    }

    /// Puts a contact into a roster in storage, whether there is such an account or not.
    ///
    /// # Panics
    /// Where storage does not take it.
    pub fn give_contact(&mut self, owner: &str, contact: &str, subscription: Subscription) {
        let mut item = RosterItem::new(BareJid::from_prepared(contact));
        (item.listed, item.subscription) = (true, subscription);
        let op = StoreOp::PutRosterItem {
            account: BareJid::from_prepared(owner),
            item: Box::new(item),
        };
        assert_eq!(self.perform(op), StoreReply::Done);
    }

    /// A component that has opened its stream, and what came back.
    pub fn open_component(&mut self, domain: &str) -> (ClientId, Vec<Element>) {
        let component = self.connect_raw_as_component();
        self.tell(
            component,
            &format!(
                "<stream:stream xmlns='jabber:component:accept' to='{domain}' \
                 xmlns:stream='http://etherx.jabber.org/streams'>"
            ),
        );
        let received = self.received(component);
        (component, received)
    }

    /// A component that is connected (XEP-0114).
    ///
    /// # Panics
    /// Where the server refuses it.
    pub fn attach(&mut self, domain: &str, secret: &str) -> ClientId {
        let (component, received) = self.open_component(domain);
        let proof = handshake(received[0].attr("id"), secret);
        self.tell(component, &format!("<handshake>{proof}</handshake>"));
        let received = self.received(component);
        assert_eq!(received[0].name, "handshake", "{received:?}");
        component
    }

    /// A client says something.
    pub fn tell(&mut self, client: ClientId, text: &str) {
        self.send(client, text);
        self.run();
    }
}

/// Bare JIDs of `example.org` whose home is `shard` of so many, without end.
pub fn homes(shards: u16, shard: u16) -> impl Iterator<Item = String> {
    let router = Router::new("example.org", shards, ShardId(0));
    let names = (0..).map(|number| format!("n{number}@example.org"));
    names.filter(move |name| router.home(name).0 == shard)
}

/// A message with its id as its body.
pub fn message(type_: &str, to: &str, id: &str) -> String {
    format!("<message type='{type_}' to='{to}' id='{id}'><body>{id}</body></message>")
}

/// The ids of messages, errors among them.
pub fn messages(received: &[Element]) -> Vec<&str> {
    let messages = received.iter().filter(|it| it.name == "message");
    messages.map(|it| it.attr("id")).collect()
}

/// The conditions of errors with the ids of what they answer.
pub fn errors(received: &[Element]) -> Vec<(&str, &str)> {
    let errors = received.iter().filter(|it| it.attr("type") == "error");
    errors.map(|it| (it.attr("id"), it.condition())).collect()
}

/// How many of them count (XEP-0198 4).
pub fn counted(received: &[Element]) -> u32 {
    let stanzas = received.iter().filter(|it| it.ns == "jabber:client");
    stanzas.count() as u32
}
