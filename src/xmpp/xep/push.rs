//! XEP-0357: Push Notifications. Where the devices of an account want to be woken while they are
//! away.
//!
//! Invariant: a registration is in storage and outlives the session that made it. It ends by its
//! client's word or its service's, with the access of its device, and with the account.

mod publish;
mod summary;
mod targets;

pub(crate) use targets::Notifications;
pub use targets::{ACK_MS_MAX, ANSWER_MS_MAX, INTERVAL_MS, REQUESTS_MAX, RETRY_MS, TARGETS_MAX};

use super::components::ComponentId;
use super::pubsub::form::fields;
use super::{Extension, Target, Xep};
use crate::account::AccountKey;
use crate::error::StanzaError;
use crate::host::Host;
use crate::port::{AgentId, Space, StoreOp};
use crate::router::Route;
use crate::session::SessionKey;
use crate::settings::Settings;
use crate::shard::Shard;
use stanza::jid::{Jid, bare_of, home_hash};
use stanza::ns::Ns;
use stanza::scope::StreamScope;
use stanza::tree::{Node, Tree};
use stanza::view::StanzaView;
use stanza::writer;
use std::rc::Rc;

/// Registrations of one account unless configured; for one more the oldest goes.
pub const REGISTRATIONS_MAX_DEFAULT: u16 = 16;

/// Bytes of the address of a push service.
pub const SERVICE_SIZE_MAX: usize = 1_023;

/// Bytes of a node's name.
pub const NODE_SIZE_MAX: usize = 1_023;

/// Bytes of the options that go with each publication, as XML.
pub const OPTIONS_SIZE_MAX: usize = 2 << 10;

/// Bytes of all registrations of an account as storage has them: for more the oldest go.
pub const RECORD_SIZE_MAX: usize = 32 << 10;

/// The kind of the form that has them.
const OPTIONS: &str = "http://jabber.org/protocol/pubsub#publish-options";

/// Push notifications. The shard answers its clients: who is to be woken is live state.
#[derive(Debug)]
pub struct PushNotifications;

impl Extension for PushNotifications {
    const XEP: Xep = Xep {
        number: 357,
        version: "0.4.1",
    };
    const NAMESPACES: &'static [Ns] = &[Ns::Push];
    // XEP-0357 4.1: an account has it, where it may.
    const ACCOUNT_FEATURES: &'static [Ns] = &[Ns::Push];

    fn is_offered(settings: &Settings) -> bool {
        settings.push.is_some()
    }
}

/// What a notification says of the last message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShownBody {
    /// Nothing.
    #[default]
    None,
    /// That there is one, by the same words for every message: services take such a notification
    /// for one that is to be shown.
    Notice,
    /// What it says, or the beginning of that.
    Text,
}

/// What an operator decides of notifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushPolicy {
    /// Registrations of one account.
    pub registrations_max: u16,
    /// Whether a notification says who sent the last message.
    pub shows_sender: bool,
    /// What it says of it.
    pub body: ShownBody,
}

impl Default for PushPolicy {
    fn default() -> PushPolicy {
        PushPolicy {
            registrations_max: REGISTRATIONS_MAX_DEFAULT,
            shows_sender: false,
            body: ShownBody::None,
        }
    }
}

/// A device of an account, as far as sessions tell: by what its client calls itself, or by its
/// resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Device {
    /// Empty where only the user agent is known.
    resource: Box<str>,
    agent: Option<AgentId>,
}

impl Device {
    pub(crate) fn of_agent(agent: AgentId) -> Device {
        Device {
            agent: Some(agent),
            ..Device::default()
        }
    }

    fn is(&self, other: &Device) -> bool {
        self.has(other.agent, &other.resource)
    }

    /// Whether a session of that user agent, or of that resource where one of the two has none, is
    /// its: anybody who is let in can take a resource.
    fn has(&self, agent: Option<AgentId>, resource: &str) -> bool {
        match (self.agent, agent) {
            (Some(own), Some(agent)) => own == agent,
            _ => !resource.is_empty() && *self.resource == *resource,
        }
    }
}

/// Where to publish what a device is to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Registration {
    /// The push service, prepared.
    service: Box<str>,
    /// The node there, or empty.
    node: Box<str>,
    /// The form with the options of each publication as a complete element, or empty.
    options: Box<[u8]>,
    device: Device,
}

impl Registration {
    /// Reads `<enable/>`.
    ///
    /// # Errors
    /// What is no address or no form, and what is too long.
    fn parse(enable: Node<'_>, device: Device) -> Result<Registration, StanzaError> {
        let service = enable.attr("jid").ok_or(StanzaError::BadRequest)?;
        let service = Jid::parse(service).map_err(|_| StanzaError::JidMalformed)?;
        let node = enable.attr("node").unwrap_or_default();
        let mut options = Vec::new();
        if let Some(form) = enable.child("x", Ns::DataForms) {
            // XEP-0357 5: a form of that kind.
            let fields = fields(form);
            let mut kinds = fields.iter().filter(|(var, _)| &**var == "FORM_TYPE");
            let is_it = |(_, values): &(_, Vec<Box<str>>)| values.iter().any(|it| **it == *OPTIONS);
            if !kinds.next().is_some_and(is_it) {
                return Err(StanzaError::BadRequest);
            }
            let written = form.write(&mut options);
            written.map_err(|_| StanzaError::NotAcceptable)?;
        }
        let is_long = service.as_str().len() > SERVICE_SIZE_MAX
            || node.len() > NODE_SIZE_MAX
            || options.len() > OPTIONS_SIZE_MAX;
        match is_long {
            true => Err(StanzaError::NotAcceptable),
            false => Ok(Registration {
                service: service.as_str().into(),
                node: node.into(),
                options: options.into(),
                device,
            }),
        }
    }

    /// XEP-0357 5: one node of a service is registered once.
    fn is(&self, service: &str, node: &str) -> bool {
        *self.service == *service && *self.node == *node
    }

    fn write(&self, out: &mut Vec<u8>) {
        let agent = self.device.agent.map(|agent| agent.to_string());
        writer::open(out, "enable")
            .attr("jid", &self.service)
            .attr("node", &self.node)
            .attr("resource", &self.device.resource)
            .attr_if("agent", agent.as_deref())
            .start();
        out.extend_from_slice(&self.options);
        writer::close(out, "enable");
    }

    /// Its bytes in storage.
    fn size(&self) -> usize {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        bytes.len()
    }
}

/// Which registrations are to go.
#[derive(Debug)]
pub(crate) enum Unwanted {
    /// Those of a service.
    Service(Box<str>),
    /// That of a node of a service.
    Node(Box<str>, Box<str>),
    /// Those of a device.
    Of(Device),
    /// All, but those of a user agent.
    All { but: Option<AgentId> },
}

impl Unwanted {
    /// Reads `<disable/>`.
    ///
    /// # Errors
    /// What is no address.
    fn parse(disable: Node<'_>) -> Result<Unwanted, StanzaError> {
        let service = disable.attr("jid").ok_or(StanzaError::BadRequest)?;
        let service = Jid::parse(service).map_err(|_| StanzaError::JidMalformed)?;
        let service = service.as_str().into();
        // XEP-0357 6: without a node all of the service.
        Ok(match disable.attr("node") {
            Some(node) => Unwanted::Node(service, node.into()),
            None => Unwanted::Service(service),
        })
    }

    fn has(&self, registration: &Registration) -> bool {
        match self {
            Unwanted::Service(service) => registration.service == *service,
            Unwanted::Node(service, node) => registration.is(service, node),
            Unwanted::Of(device) => registration.device.is(device),
            Unwanted::All { but } => but.is_none() || registration.device.agent != *but,
        }
    }
}

/// What an account has registered.
#[derive(Debug, Default)]
pub(crate) struct Registrations {
    /// By when they were enabled last.
    all: Vec<Rc<Registration>>,
    /// Writes that storage has not taken, or not yet.
    unstored: usize,
}

impl Registrations {
    /// Reads what storage has, also where nobody is notified: it ends with the trust in a device
    /// there, too. What makes no sense is passed over.
    pub(crate) fn read(record: &[u8]) -> Option<Box<Registrations>> {
        let scope = StreamScope::client();
        let Ok(tree) = Tree::parse(record, &scope) else {
            tracing::error!("registrations for push are damaged");
            return None;
        };
        let enabled = tree.root().children().filter_map(|enable| {
            let agent = enable.attr("agent");
            let agent = agent.and_then(|agent| u64::from_str_radix(agent, 16).ok());
            let device = Device {
                resource: enable.attr("resource").unwrap_or_default().into(),
                agent: agent.map(AgentId),
            };
            Registration::parse(enable, device).ok().map(Rc::new)
        });
        let all: Vec<Rc<Registration>> = enabled.collect();
        (!all.is_empty()).then(|| Box::new(Registrations { all, unstored: 0 }))
    }

    /// As storage has them.
    fn record(&self) -> Box<[u8]> {
        let mut record = Vec::new();
        writer::open(&mut record, "push").ns(Ns::Push).start();
        self.all.iter().for_each(|one| one.write(&mut record));
        writer::close(&mut record, "push");
        record.into()
    }

    /// Adds one, in place of an older one of the same node; of more than `count_max`, or more
    /// bytes than [`RECORD_SIZE_MAX`], the oldest go. Gives those that are not there any more;
    /// `None` where nothing changed but that it is the newest now.
    fn put(
        &mut self,
        registration: Registration,
        count_max: usize,
    ) -> Option<Vec<Rc<Registration>>> {
        let Registration { service, node, .. } = &registration;
        let place = self.all.iter().position(|known| known.is(service, node));
        if let Some(place) = place
            && *self.all[place] == registration
        {
            self.all[place..].rotate_left(1);
            return None;
        }
        let mut gone: Vec<Rc<Registration>> = Vec::new();
        gone.extend(place.map(|place| self.all.remove(place)));
        self.all.push(Rc::new(registration));
        let mut excess = self.all.len().saturating_sub(count_max);
        let sizes: Vec<usize> = self.all.iter().map(|one| one.size()).collect();
        let mut left: usize = sizes[excess..].iter().sum();
        while left > RECORD_SIZE_MAX {
            left -= sizes[excess];
            excess += 1;
        }
        gone.extend(self.all.drain(..excess));
        Some(gone)
    }
}

impl Shard {
    /// A client says where a device of its account is to be woken, or where no longer.
    pub(crate) fn on_push_request(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        tree: &Tree<'_>,
    ) -> Result<(), StanzaError> {
        let policy = self.settings.push.ok_or(StanzaError::ServiceUnavailable)?;
        let payload = tree.root().children().next();
        let payload = payload.ok_or(StanzaError::BadRequest)?;
        let account = self.sessions.at(key).account;
        if self.accounts.at(account).is_anonymous {
            return Err(StanzaError::ServiceUnavailable);
        }
        let has_changed = match payload.name() {
            "enable" => {
                let registration = Registration::parse(payload, self.device_of(key))?;
                self.push_component(&registration.service)?;
                self.put_push(account, registration, policy)
            }
            "disable" => self.withdraw_push(account, &Unwanted::parse(payload)?),
            _ => return Err(StanzaError::BadRequest),
        };
        let answered = self.iq_request(key, view, Target::Account);
        match has_changed {
            true => {
                let registrations = self.accounts.at_mut(account).push.as_mut();
                registrations.into_iter().for_each(|it| it.unstored += 1);
                let ticket = self.keep_request(Ns::Push, Vec::new(), answered);
                let op = self.push_record(account);
                host.store(ticket, op);
            }
            false => self.reply(host, &answered, Ok(&[])),
        }
        Ok(())
    }

    /// The component that a push service belongs to: whom nobody could reach is refused at once.
    fn push_component(&self, service: &str) -> Result<ComponentId, StanzaError> {
        match self.router.route(&Jid::from_prepared(service)) {
            Route::Component(id) => Ok(id),
            // A client is no push service, and for an account its server answers.
            Route::Here(_) | Route::Shard(_) | Route::Server => Err(StanzaError::NotAllowed),
            Route::Remote => Err(StanzaError::RemoteServerNotFound),
        }
    }

    /// Adds a registration in memory; whether storage is to know. Nothing is told any more by what
    /// it replaces, nor what it would say: the client is there.
    fn put_push(
        &mut self,
        account: AccountKey,
        registration: Registration,
        policy: PushPolicy,
    ) -> bool {
        let owner = self.accounts.at_mut(account);
        let jid = owner.jid.clone();
        let registrations = owner.push.get_or_insert_default();
        let Some(gone) = registrations.put(registration, policy.registrations_max.into()) else {
            // Clients enable at each login.
            return registrations.unstored > 0;
        };
        let is_gone = |one: &Registration| gone.iter().any(|it| it.is(&one.service, &one.node));
        self.accounts.notifications.forget(jid.as_str(), is_gone);
        true
    }

    /// Storage has what a client changed.
    pub(crate) fn on_push_request_stored(&mut self, full: &str) {
        let bare = bare_of(full);
        let Some(account) = self.accounts.find(home_hash(bare), bare) else {
            return;
        };
        if let Some(registrations) = &mut self.accounts.at_mut(account).push {
            registrations.unstored = registrations.unstored.saturating_sub(1);
        }
    }

    /// Forgets registrations in memory; whether there were some.
    fn withdraw_push(&mut self, account: AccountKey, unwanted: &Unwanted) -> bool {
        let owner = self.accounts.at_mut(account);
        let jid = owner.jid.clone();
        let Some(registrations) = &mut owner.push else {
            return false;
        };
        let before = registrations.all.len();
        registrations.all.retain(|one| !unwanted.has(one));
        let count = registrations.all.len();
        if count == 0 {
            owner.push = None;
        }
        let notifications = &mut self.accounts.notifications;
        notifications.forget(jid.as_str(), |one| unwanted.has(one));
        count < before
    }

    /// Has storage forget registrations of an account in memory.
    pub(crate) fn disable_push(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        unwanted: &Unwanted,
    ) {
        if self.withdraw_push(account, unwanted) {
            let ticket = self.ticket_for_itself(crate::shard::Waiting::Nothing);
            let op = self.push_record(account);
            host.store(ticket, op);
        }
    }

    /// What storage is to have of an account's registrations.
    fn push_record(&self, account: AccountKey) -> StoreOp {
        let owner = self.accounts.at(account);
        let registrations = owner.push.as_ref();
        StoreOp::PutDocument {
            account: owner.jid.clone(),
            space: Space::Push,
            key: "".into(),
            bytes: registrations.map_or_else(Box::default, |all| all.record()),
        }
    }

    /// The device that a session is of.
    pub(crate) fn device_of(&self, key: SessionKey) -> Device {
        Device {
            resource: self.sessions.at(key).resource().into(),
            agent: self.sessions.agents.get(&key).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(enable: &str) -> Result<Registration, StanzaError> {
        let scope = StreamScope::client();
        let tree = Tree::parse(enable.as_bytes(), &scope).expect("it is well-formed");
        let device = Device {
            resource: "phone & co".into(),
            agent: Some(AgentId(7)),
        };
        Registration::parse(tree.root(), device)
    }

    fn with_form(kind: &str, value: &str) -> String {
        format!(
            "<enable xmlns='urn:xmpp:push:0' jid='Push.example.org' node='n&apos;1'>\
             <x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>{kind}</value>\
             </field><field var='secret'><value>{value}</value></field></x></enable>"
        )
    }

    #[test]
    fn what_storage_has_reads_as_what_was_enabled() {
        let mut all = Registrations::default();
        let first = parsed(&with_form(OPTIONS, "&lt;x")).expect("a registration");
        assert_eq!(&*first.service, "push.example.org");
        assert!(first.options.ends_with(b"</x>") && !first.node.is_empty());
        assert_eq!(all.put(first.clone(), 2), Some(vec![]));
        let plain = "<enable xmlns='urn:xmpp:push:0' jid='push.example.org/r'/>";
        let second = parsed(plain).expect("a registration");
        all.put(second.clone(), 2);
        let stored = Registrations::read(&all.record()).expect("two");
        let known: Vec<Registration> = stored.all.iter().map(|one| (**one).clone()).collect();
        assert_eq!(known, [first.clone(), second.clone()]);
        // The same node again is the newest, and the oldest goes.
        assert_eq!(all.put(first.clone(), 2), None);
        let another = parsed(&plain.replace("/r", "/s")).expect("another");
        assert_eq!(all.put(another, 2), Some(vec![Rc::new(second)]));
        let nodes: Vec<&str> = all.all.iter().map(|one| &*one.service).collect();
        assert_eq!(nodes, ["push.example.org", "push.example.org/s"]);
        // The same with something else in it.
        let other = parsed(&with_form(OPTIONS, "y")).expect("a registration");
        assert_eq!(all.put(other, 2), Some(vec![Rc::new(first)]));
        assert!(Registrations::read(b"<push xmlns='urn:xmpp:push:0'/>").is_none());
        assert!(Registrations::read(b"x").is_none());
    }

    #[test]
    fn a_record_does_not_grow_by_long_names() {
        let mut all = Registrations::default();
        let long = "&quot;".repeat(NODE_SIZE_MAX - 2);
        for index in 10..42 {
            let enable = format!(
                "<enable xmlns='urn:xmpp:push:0' jid='push.example.org' node='{long}{index}'/>"
            );
            let registration = parsed(&enable).expect("a registration");
            assert!(all.put(registration, 64).is_some());
            assert!(all.record().len() < RECORD_SIZE_MAX + 100);
        }
        let last = all.all.last().expect("the newest stays");
        assert!(last.node.ends_with("41") && all.all.len() > 1);
    }

    #[test]
    fn what_is_no_registration_is_refused() {
        let long = "n".repeat(NODE_SIZE_MAX + 1);
        for (enable, error) in [
            ("<enable/>".to_owned(), StanzaError::BadRequest),
            ("<enable jid='a@'/>".to_owned(), StanzaError::JidMalformed),
            (
                format!("<enable jid='a' node='{long}'/>"),
                StanzaError::NotAcceptable,
            ),
            (with_form("other", "x"), StanzaError::BadRequest),
            (
                with_form(OPTIONS, &"x".repeat(OPTIONS_SIZE_MAX)),
                StanzaError::NotAcceptable,
            ),
        ] {
            assert_eq!(parsed(&enable), Err(error), "{enable}");
        }
    }

    #[test]
    fn what_goes_is_of_a_service_a_node_or_a_device() {
        let one = parsed(&with_form(OPTIONS, "x")).expect("a registration");
        let (service, other) = ("push.example.org", "other.example.org");
        let by_agent = || Device::of_agent(AgentId(7));
        let by_resource = |resource: &str| Device {
            resource: resource.into(),
            agent: None,
        };
        for (unwanted, goes) in [
            (Unwanted::Service(service.into()), true),
            (Unwanted::Service(other.into()), false),
            (Unwanted::Node(service.into(), "n'1".into()), true),
            (Unwanted::Node(service.into(), "n".into()), false),
            (Unwanted::Of(by_agent()), true),
            (Unwanted::Of(by_resource("phone & co")), true),
            (Unwanted::Of(by_resource("desk")), false),
            (Unwanted::Of(Device::default()), false),
            // Who takes its resource is not it.
            (
                Unwanted::Of(Device {
                    agent: Some(AgentId(8)),
                    ..by_resource("phone & co")
                }),
                false,
            ),
            (Unwanted::All { but: None }, true),
            (
                Unwanted::All {
                    but: Some(AgentId(7)),
                },
                false,
            ),
            (
                Unwanted::All {
                    but: Some(AgentId(8)),
                },
                true,
            ),
        ] {
            assert_eq!(unwanted.has(&one), goes, "{unwanted:?}");
        }
    }
}
