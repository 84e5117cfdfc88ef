//! Playing a scenario on a stage: the simulated world, or whatever else can connect clients.

use super::matching::{Names, compare, elements, fill};
use super::{Order, Scenario, Step};
use crate::client::{Login, Phase, Proof, Tls};
use crate::element::Element;
use crate::world::{ClientId, World};
use std::collections::BTreeMap;
use xmpp::port::{RosterItem, StoreOp, Subscription};

/// Where scenarios are played.
pub trait Stage {
    /// Makes an account.
    fn account(&mut self, jid: &str, password: &str);
    /// Puts an item into the stored roster of an account.
    fn roster(&mut self, account: &str, item: RosterItem);
    /// Connects and logs in; settled when the login succeeded or failed.
    ///
    /// # Errors
    /// Why the login failed.
    fn connect(&mut self, login: Login) -> Result<ClientId, String>;
    /// Connects and says nothing.
    fn open(&mut self, tls: Tls) -> ClientId;
    /// The full JID of a client that logged in.
    fn full(&self, id: ClientId) -> String;
    /// Sends text as it is.
    fn send(&mut self, id: ClientId, text: &str);
    /// Closes the stream.
    fn close(&mut self, id: ClientId);
    /// Ends the bytes.
    fn end(&mut self, id: ClientId);
    /// Breaks the connection.
    fn vanish(&mut self, id: ClientId);
    /// Waits until everything sent so far has had its effects.
    fn settle(&mut self);
    /// Lets time pass.
    fn wait(&mut self, seconds: u64);
    /// Takes what a client received.
    fn received(&mut self, id: ClientId) -> Vec<Element>;
    /// Whether the server closed a client's stream and connection, and with which stream error.
    fn closed(&self, id: ClientId) -> Option<Option<String>>;
    /// Takes the server down.
    fn shut_down(&mut self);
}

struct Cast {
    logins: BTreeMap<String, Login>,
    ids: BTreeMap<String, ClientId>,
    inboxes: BTreeMap<String, Vec<Element>>,
    names: Names,
}

/// Plays one scenario whose settings are those of the stage already.
///
/// # Errors
/// The line and what was wrong there.
pub fn play(stage: &mut impl Stage, scenario: &Scenario) -> Result<(), String> {
    let mut cast = Cast {
        logins: BTreeMap::new(),
        ids: BTreeMap::new(),
        inboxes: BTreeMap::new(),
        names: Names::new(),
    };
    let title = &scenario.title;
    for (line, step) in &scenario.steps {
        cast.step(stage, step)
            .map_err(|error| format!("{title}, line {line}: {error}"))?;
    }
    cast.collect(stage);
    for (name, inbox) in &cast.inboxes {
        if let Some(left) = inbox.first() {
            return Err(format!("{title}: at the end {name} also had {left}"));
        }
    }
    Ok(())
}

impl Cast {
    fn step(&mut self, stage: &mut impl Stage, step: &Step) -> Result<(), String> {
        match step {
            Step::Setting(..) => {}
            Step::Accounts(names) => {
                for name in names {
                    stage.account(&format!("{name}@example.org"), "secret");
                }
            }
            Step::Roster(owner, contact, state) => {
                let item = roster_item(contact, state)?;
                stage.roster(&format!("{owner}@example.org"), item);
            }
            Step::Client(name, words) => {
                self.logins.insert(name.clone(), login(words)?);
            }
            Step::Connects(name) => self.connect(stage, name)?,
            Step::Fails(name, why) => {
                let login = self.login(name)?;
                match stage.connect(login) {
                    Ok(_) => return Err(format!("{name} got in")),
                    Err(reason) if reason == *why => {}
                    Err(reason) => return Err(format!("{name} failed by {reason}")),
                }
            }
            Step::Opens(name, tls) => {
                let id = stage.open(*tls);
                self.ids.insert(name.clone(), id);
                self.inboxes.insert(name.clone(), Vec::new());
            }
            Step::Sends(name, block) => stage.send(self.id(name)?, &fill(block, &self.names)),
            Step::Receives(name, block, order) => self.receives(stage, name, block, *order)?,
            Step::Forgets(name) => {
                self.collect(stage);
                for (other, inbox) in &mut self.inboxes {
                    if name.as_ref().is_none_or(|name| name == other) {
                        inbox.clear();
                    }
                }
            }
            Step::Closes(name) => stage.close(self.id(name)?),
            Step::Ends(name) => stage.end(self.id(name)?),
            Step::Vanishes(name) => stage.vanish(self.id(name)?),
            Step::IsClosed(name, why) => {
                stage.settle();
                match stage.closed(self.id(name)?) {
                    None => return Err(format!("the stream of {name} is open")),
                    Some(reason) if reason == *why => {}
                    Some(reason) => return Err(format!("{name} was closed by {reason:?}")),
                }
            }
            Step::Wait(seconds) => stage.wait(*seconds),
            Step::Shutdown => stage.shut_down(),
        }
        Ok(())
    }

    fn connect(&mut self, stage: &mut impl Stage, name: &str) -> Result<(), String> {
        let login = self.login(name)?;
        let id = stage
            .connect(login)
            .map_err(|why| format!("{name} did not get in: {why}"))?;
        let full = stage.full(id);
        let bare = full.split('/').next().unwrap_or_default().to_owned();
        self.names.insert(name.to_owned(), full);
        self.names.insert(format!("{name}.bare"), bare);
        self.ids.insert(name.to_owned(), id);
        self.inboxes.insert(name.to_owned(), Vec::new());
        Ok(())
    }

    fn receives(
        &mut self,
        stage: &mut impl Stage,
        name: &str,
        block: &str,
        order: Order,
    ) -> Result<(), String> {
        self.collect(stage);
        let mut wanted = elements(&fill(block, &self.names))?;
        let inbox = self
            .inboxes
            .get_mut(name)
            .ok_or(format!("who is {name}?"))?;
        if wanted.is_empty() {
            return match inbox.first() {
                None => Ok(()),
                Some(got) => Err(format!("{name} received {got}")),
            };
        }
        if order == Order::Free {
            while let Some(got) = inbox.first().filter(|_| !wanted.is_empty()) {
                let names = &mut self.names;
                let place = wanted
                    .iter()
                    .position(|want| compare(want, got, names).is_ok());
                let place = place.ok_or_else(|| format!("{name} received {got}"))?;
                wanted.remove(place);
                inbox.remove(0);
            }
        }
        for want in &wanted {
            if inbox.is_empty() {
                return Err(format!("{name} did not receive {want}"));
            }
            let got = inbox.remove(0);
            compare(want, &got, &mut self.names)
                .map_err(|error| format!("{name} received {got}: {error}"))?;
        }
        Ok(())
    }

    /// Waits, and takes what everybody received.
    fn collect(&mut self, stage: &mut impl Stage) {
        stage.settle();
        for (name, id) in &self.ids {
            let inbox = self.inboxes.entry(name.clone()).or_default();
            inbox.extend(stage.received(*id));
        }
    }

    fn id(&self, name: &str) -> Result<ClientId, String> {
        self.ids
            .get(name)
            .copied()
            .ok_or(format!("{name} is not connected"))
    }

    fn login(&self, name: &str) -> Result<Login, String> {
        self.logins
            .get(name)
            .cloned()
            .ok_or(format!("who is {name}?"))
    }
}

fn roster_item(contact: &str, state: &str) -> Result<RosterItem, String> {
    let jid = if contact.contains('@') {
        contact.into()
    } else {
        format!("{contact}@example.org")
    };
    let jid = stanza::jid::BareJid::parse(&jid).map_err(|error| format!("{jid}: {error:?}"))?;
    let mut item = RosterItem::new(jid);
    item.listed = true;
    item.subscription = match state {
        "none" => Subscription::None,
        "to" => Subscription::To,
        "from" => Subscription::From,
        "both" => Subscription::Both,
        _ => return Err(format!("{state} is no subscription")),
    };
    Ok(item)
}

fn login(words: &[String]) -> Result<Login, String> {
    let (jid, options) = words.split_first().ok_or("a client has an address")?;
    let mut login = Login::new(jid, "secret");
    for option in options {
        match option.as_str() {
            "scram" => login.proof = Proof::Scram,
            "plain" => login.proof = Proof::Plain,
            "anonymous" => login.proof = Proof::Anonymous,
            "starttls" => login.tls = Tls::Start,
            "direct" => login.tls = Tls::Direct,
            "wrong" => login.password = "wrong".into(),
            _ => return Err(format!("{option} is no option of a client")),
        }
    }
    Ok(login)
}

impl Stage for World {
    fn account(&mut self, jid: &str, password: &str) {
        self.add_account(jid, password);
    }

    fn roster(&mut self, account: &str, item: RosterItem) {
        let account = stanza::jid::BareJid::parse(account).expect("a scenario's account is good");
        self.perform(StoreOp::PutRosterItem {
            account,
            item: Box::new(item),
        });
    }

    fn connect(&mut self, login: Login) -> Result<ClientId, String> {
        let id = World::connect(self, login);
        self.run();
        match &self.client(id).phase {
            Phase::Online => Ok(id),
            Phase::Refused(why) => Err(why.clone()),
            phase => Err(format!("it hangs in {phase:?}")),
        }
    }

    fn open(&mut self, tls: Tls) -> ClientId {
        match tls {
            Tls::Direct => self.connect_raw_by_tls(),
            _ => self.connect_raw(),
        }
    }

    fn full(&self, id: ClientId) -> String {
        self.client(id).full.clone()
    }

    fn send(&mut self, id: ClientId, text: &str) {
        World::send(self, id, text);
    }

    fn close(&mut self, id: ClientId) {
        self.leave(id);
    }

    fn end(&mut self, id: ClientId) {
        self.half_close(id);
    }

    fn vanish(&mut self, id: ClientId) {
        World::vanish(self, id);
    }

    fn settle(&mut self) {
        self.run();
    }

    fn wait(&mut self, seconds: u64) {
        self.run_for(seconds * 1000);
    }

    fn received(&mut self, id: ClientId) -> Vec<Element> {
        World::received(self, id)
    }

    fn closed(&self, id: ClientId) -> Option<Option<String>> {
        let client = self.client(id);
        client.ended.then(|| client.stream_error.clone())
    }

    fn shut_down(&mut self) {
        World::shut_down(self);
    }
}
