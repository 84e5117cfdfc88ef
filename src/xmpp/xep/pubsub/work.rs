//! Requests about an account's nodes, one after another: each reads what storage has, and what it
//! changes is stored before the next one reads.

use super::action::{self, Action};
use super::convert::{Gathering, adopts_first};
use super::last::{CatchUps, LastItems};
use super::refusal::Refusal;
use super::rights::{Visitor, bare_of};
use super::service::{Outcome, Reply, Service};
use crate::account::AccountKey;
use crate::error::StanzaError;
use crate::host::{Host, Ticket};
use crate::iq::IqRequest;
use crate::port::{Document, Node, NumberedItems, Space, StoreOp, StoreReply};
use crate::request::Asker;
use crate::settle::Cause;
use crate::shard::{Shard, Waiting};
use crate::xep::{Request, bookmarks};
use stanza::jid::BareJid;
use stanza::ns::Ns;
use std::collections::{HashMap, VecDeque};

/// Requests about one account's nodes that wait for those before them; the next one is refused.
pub const JOBS_PER_ACCOUNT_MAX: usize = 1_024;

/// How many may wait when somebody asks who does not get the account's presence.
pub const STRANGERS_JOBS_MAX: usize = 256;

/// Requests about nodes that are under way, by account. One that has some stays in memory.
#[derive(Debug, Default)]
pub(crate) struct PubSub {
    queues: HashMap<AccountKey, Queue>,
    pub(super) catch_ups: CatchUps,
}

#[derive(Debug)]
struct Queue {
    /// The first one is under way.
    jobs: VecDeque<Job>,
    step: Step,
}

/// What is to be done with an account's nodes.
#[derive(Debug)]
pub(super) enum Job {
    Request(Asked),
    Last(LastItems),
    /// A document is read as any other is, behind what may be changing it.
    Document(Box<(Ticket, StoreOp)>),
}

/// Somebody's request, or what an account does by itself.
#[derive(Debug)]
pub(super) struct Asked {
    /// How the one is answered; the other is not.
    answered: Option<IqRequest>,
    action: Option<Action>,
    /// Whose input waits when it has made many.
    asker: Option<Asker>,
    /// The stanza that is not settled before the answer.
    cause: Option<Cause>,
    /// Bookmarks from before it are in nodes, or there are none.
    has_adopted: bool,
}

/// What the first of the jobs waits for.
#[derive(Debug)]
pub(super) enum Step {
    /// The nodes.
    Reading,
    /// What items of a node say.
    Fetching(Box<str>),
    /// The changes.
    Writing(Box<Outcome>),
    /// Items that are sent one after another, the last one first.
    Sending(Vec<(Node, u64)>),
    /// What it takes to convert a change.
    Gathering(Box<Gathering>),
}

impl Job {
    /// The only node that it takes, where somebody else than its owner reads one.
    fn only(&self, account: &BareJid) -> Option<&str> {
        let Job::Request(asked) = self else {
            return None;
        };
        let asker = asked.answered.as_ref()?.asker();
        match asked.action.as_ref()? {
            _ if bare_of(asker) == account.as_str() => None,
            Action::Read(node, ..) | Action::Describe(node) | Action::List(Some(node)) => {
                Some(node)
            }
            _ => None,
        }
    }
}

impl Asked {
    /// What an account does before a request of its own.
    fn adoption() -> Asked {
        Asked {
            answered: None,
            action: Some(Action::Adopt),
            asker: None,
            cause: None,
            has_adopted: true,
        }
    }
}

impl Shard {
    /// A request that this service answers. `known` is the account, where it is one.
    ///
    /// # Errors
    /// It cannot be dealt with.
    pub(crate) fn on_nodes_asked(
        &mut self,
        host: &mut impl Host,
        account: &BareJid,
        known: Option<AccountKey>,
        request: &Request<'_>,
        mut answered: IqRequest,
    ) -> Result<(), StanzaError> {
        // XEP-0030 8: who must not know of an account hears of it what he hears of none.
        if matches!(request.payload.ns(), Ns::DiscoInfo | Ns::DiscoItems) {
            answered.keep_question(request.payload);
        }
        let action = match action::read(request) {
            Ok(action) => action,
            Err(refusal) => {
                self.refuse_request(host, &answered, refusal);
                return Ok(());
            }
        };
        let Some(key) = known else {
            let asker = answered.asker();
            let (_, outcome) = self.perform(host, account, None, Vec::new(), asker, action);
            self.answer_nodes(host, &answered, outcome.map(|outcome| outcome.reply));
            return Ok(());
        };
        if self.accounts.at(key).is_anonymous {
            return Err(StanzaError::ServiceUnavailable);
        }
        self.enqueue_request(host, key, action, request.is_set, answered)
    }

    /// A client writes a document of its account of which nodes say the same.
    ///
    /// # Errors
    /// Too much waits already.
    pub(crate) fn on_document(
        &mut self,
        host: &mut impl Host,
        key: AccountKey,
        document: Document,
        answered: IqRequest,
    ) -> Result<(), StanzaError> {
        self.enqueue_request(host, key, Action::Put(document), true, answered)
    }

    fn enqueue_request(
        &mut self,
        host: &mut impl Host,
        key: AccountKey,
        action: Action,
        is_set: bool,
        answered: IqRequest,
    ) -> Result<(), StanzaError> {
        let jobs_max = self.jobs_max(key, answered.asker());
        let count = self.pubsub.queues.get(&key).map_or(0, |it| it.jobs.len());
        if count >= jobs_max {
            return Err(StanzaError::ResourceConstraint);
        }
        // What only reads leaves nothing behind that a crash could take.
        let cause = match is_set {
            true => self.open_effect(),
            false => None,
        };
        let asked = Asked {
            answered: Some(answered),
            action: Some(action),
            asker: self.count_request(),
            cause,
            has_adopted: false,
        };
        self.enqueue_job(host, key, Job::Request(asked));
        Ok(())
    }

    /// An account does something with its own nodes that no request asked for. Where too much
    /// waits already it is left undone.
    pub(crate) fn do_with_nodes(&mut self, host: &mut impl Host, key: AccountKey, action: Action) {
        let account = self.accounts.at(key);
        let count = self.pubsub.queues.get(&key).map_or(0, |it| it.jobs.len());
        if account.is_anonymous || account.is_gone || count >= JOBS_PER_ACCOUNT_MAX {
            return;
        }
        let asked = Asked {
            answered: None,
            action: Some(action),
            asker: self.count_request(),
            cause: self.open_effect(),
            has_adopted: false,
        };
        self.enqueue_job(host, key, Job::Request(asked));
    }

    /// Something between an account and a contact has changed: where the contact may not read a
    /// node any more, he is not subscribed to it (XEP-0163 7.1).
    pub(crate) fn recalculate_access(
        &mut self,
        host: &mut impl Host,
        key: AccountKey,
        contact: &BareJid,
    ) {
        let account = self.accounts.at(key);
        // One that is leaving loses all of its contacts, and then its nodes.
        if !account.has_no_nodes && account.leaving.is_none() {
            self.do_with_nodes(host, key, Action::Recalculate(contact.as_str().into()));
        }
    }

    pub(super) fn enqueue_job(&mut self, host: &mut impl Host, key: AccountKey, job: Job) {
        let queue = self.pubsub.queues.entry(key).or_insert_with(|| {
            self.accounts.at_mut(key).pins += 1;
            Queue {
                jobs: VecDeque::new(),
                step: Step::Reading,
            }
        });
        queue.jobs.push_back(job);
        if queue.jobs.len() == 1 {
            self.begin_job(host, key);
        }
    }

    /// Begins the next of an account's jobs, if there is one.
    fn begin_job(&mut self, host: &mut impl Host, key: AccountKey) {
        let Some(mut queue) = self.pubsub.queues.remove(&key) else {
            return;
        };
        while let Some(job) = queue.jobs.pop_front() {
            if let Job::Document(asked) = job {
                let (ticket, op) = *asked;
                host.store(ticket, op);
                continue;
            }
            let account = self.accounts.at(key).jid.clone();
            let only = job.only(&account).map(Box::from);
            queue.jobs.push_front(job);
            self.pubsub.queues.insert(key, queue);
            let op = StoreOp::Nodes { account, only };
            return self.ask_nodes(host, key, Step::Reading, op);
        }
        self.accounts.at_mut(key).pins -= 1;
        self.evict_if_idle(key);
    }

    /// Whether somebody's read has to wait for what is done with an account's nodes, and does.
    pub(crate) fn waits_for_nodes(&self, key: AccountKey, asker: &str, op: &StoreOp) -> bool {
        let is_shared = match op {
            StoreOp::Document {
                space: Space::Vcard,
                ..
            } => self.settings.has_nodes(),
            _ => self.is_of_bookmarks(op),
        };
        let count = self.pubsub.queues.get(&key).map_or(0, |it| it.jobs.len());
        is_shared && (count > 0 || self.adopts_before(key, op)) && count < self.jobs_max(key, asker)
    }

    /// Whether a document is one of bookmarks, which nodes have, too.
    fn is_of_bookmarks(&self, op: &StoreOp) -> bool {
        let is_of_bookmarks = match op {
            StoreOp::Document { space, key, .. } => {
                *space == Space::Private && **key == *bookmarks::KEY
            }
            _ => false,
        };
        is_of_bookmarks && self.settings.has_bookmarks_converted()
    }

    /// Whether nodes may have bookmarks that such a document has not.
    fn adopts_before(&self, key: AccountKey, op: &StoreOp) -> bool {
        let account = self.accounts.at(key);
        self.is_of_bookmarks(op) && !account.has_no_nodes && !account.is_anonymous
    }

    /// How many jobs may wait before somebody's next one.
    fn jobs_max(&self, key: AccountKey, asker: &str) -> usize {
        match Visitor::at(self.accounts.at(key), asker).sees_presence() {
            true => JOBS_PER_ACCOUNT_MAX,
            false => STRANGERS_JOBS_MAX,
        }
    }

    /// Such a read is done in its turn.
    pub(crate) fn enqueue_read(
        &mut self,
        host: &mut impl Host,
        key: AccountKey,
        ticket: Ticket,
        op: StoreOp,
    ) {
        if self.adopts_before(key, &op) {
            self.enqueue_job(host, key, Job::Request(Asked::adoption()));
        }
        self.enqueue_job(host, key, Job::Document(Box::new((ticket, op))));
    }

    pub(super) fn ask_nodes(
        &mut self,
        host: &mut impl Host,
        key: AccountKey,
        step: Step,
        op: StoreOp,
    ) {
        if let Some(queue) = self.pubsub.queues.get_mut(&key) {
            queue.step = step;
        }
        let ticket = self.ticket_for_itself(Waiting::PubSub(key));
        host.store(ticket, op);
    }

    /// Storage answered the first of an account's jobs.
    pub(crate) fn on_nodes_stored(
        &mut self,
        host: &mut impl Host,
        key: AccountKey,
        reply: StoreReply,
    ) {
        let Some(queue) = self.pubsub.queues.get_mut(&key) else {
            return;
        };
        let step = std::mem::replace(&mut queue.step, Step::Reading);
        let Some(job) = queue.jobs.front_mut() else {
            return;
        };
        if let Job::Request(asked) = job {
            (self.cause, self.asker) = (asked.cause, asked.asker);
        }
        if self.accounts.at(key).is_gone {
            // Another may have its name by now, and no node of it.
            return self.end_job(host, key, Err(StanzaError::ItemNotFound.into()));
        }
        match (step, reply) {
            (Step::Reading, StoreReply::Nodes(nodes)) => self.on_nodes_read(host, key, nodes),
            (Step::Fetching(node), StoreReply::Items(items)) => {
                let payload = write_items(&node, &items);
                self.end_job(host, key, Ok(Reply::Payload(payload)));
            }
            (Step::Writing(outcome), StoreReply::Done) => {
                self.on_nodes_written(host, key, *outcome)
            }
            (Step::Gathering(it), reply @ (StoreReply::Document(_) | StoreReply::Items(_))) => {
                self.on_gathered(host, key, it, reply);
            }
            (Step::Sending(rest), StoreReply::Items(items)) => {
                self.send_next(host, key, rest, Some(items));
            }
            (_, reply) => {
                let error = match reply {
                    // It was deleted meanwhile.
                    StoreReply::Missing => StanzaError::ItemNotFound,
                    StoreReply::Full => StanzaError::ResourceConstraint,
                    reply => {
                        tracing::error!(?reply, "storage did not answer about nodes");
                        StanzaError::InternalServerError
                    }
                };
                self.end_job(host, key, Err(error.into()));
            }
        }
        self.asker = None;
    }

    fn on_nodes_read(&mut self, host: &mut impl Host, key: AccountKey, nodes: Vec<Node>) {
        let account = self.accounts.at(key).jid.clone();
        let Some(queue) = self.pubsub.queues.get_mut(&key) else {
            return;
        };
        let front = queue.jobs.front();
        if front.is_some_and(|job| job.only(&account).is_none()) {
            self.accounts.at_mut(key).has_no_nodes = nodes.is_empty();
        }
        let asked = match queue.jobs.front_mut() {
            Some(Job::Request(asked)) => asked,
            Some(Job::Last(wanted)) => {
                let (to, wanted) = (wanted.to.clone(), wanted.wanted.clone());
                let rest = self.last_items_for(key, nodes, &to, &wanted);
                return self.send_next(host, key, rest, None);
            }
            Some(Job::Document(_)) | None => return,
        };
        let Some(action) = asked.action.take() else {
            return;
        };
        let asker = asked.answered.as_ref().map(|answered| answered.asker());
        let asker = asker.unwrap_or(account.as_str()).to_owned();
        if self.settings.has_bookmarks_converted()
            && !asked.has_adopted
            && adopts_first(&nodes, account.as_str(), &asker, &action)
        {
            (asked.action, asked.has_adopted) = (Some(action), true);
            queue.jobs.push_front(Job::Request(Asked::adoption()));
            return self.on_nodes_read(host, key, nodes);
        }
        let (nodes, outcome) = self.perform(host, &account, Some(key), nodes, &asker, action);
        match outcome {
            Ok(outcome) => self.on_performed(host, key, nodes, outcome),
            Err(refusal) => self.end_job(host, key, Err(refusal)),
        }
    }

    /// What an action led to is stored, if anything is to be.
    pub(super) fn commit_nodes(
        &mut self,
        host: &mut impl Host,
        key: AccountKey,
        mut outcome: Outcome,
    ) {
        let account = self.accounts.at(key).jid.clone();
        if !outcome.changes.is_empty() || outcome.document.is_some() {
            let changes = std::mem::take(&mut outcome.changes);
            let document = outcome.document.take();
            self.accounts.at_mut(key).has_no_nodes &= changes.is_empty();
            let op = StoreOp::ChangeNodes {
                account,
                changes,
                document,
            };
            return self.ask_nodes(host, key, Step::Writing(Box::new(outcome)), op);
        }
        match outcome.reply {
            Reply::Items(node, numbers) => {
                let of = node.clone();
                let op = StoreOp::Items {
                    account,
                    node,
                    numbers,
                };
                self.ask_nodes(host, key, Step::Fetching(of), op);
            }
            // What nothing is stored of is told at once.
            _ => self.on_nodes_written(host, key, outcome),
        }
    }

    /// An action on nodes, as the account knows who asks for it.
    fn perform(
        &self,
        host: &mut impl Host,
        account: &BareJid,
        known: Option<AccountKey>,
        nodes: Vec<Node>,
        asker: &str,
        action: Action,
    ) -> (Vec<Node>, Result<Outcome, Refusal>) {
        let found = known.map(|key| self.accounts.at(key));
        let roster = found.map_or(&[][..], |found| &found.roster);
        let visitor = Visitor::of(account, roster, asker);
        let sessions = found.map_or(&[][..], |found| &found.sessions);
        let sessions = sessions.iter().map(|key| self.sessions.at(*key));
        let seen = sessions.filter(|session| session.available && visitor.sees_presence());
        let mut service = Service {
            account,
            nodes,
            resources: seen.map(|session| session.full()).collect(),
            visitor,
            roster,
            limits: &self.settings.limits,
            at: host.wall(),
            random: &mut || host.random(),
        };
        let outcome = service.perform(action);
        (service.nodes, outcome)
    }

    /// What was asked for is durable.
    fn on_nodes_written(&mut self, host: &mut impl Host, key: AccountKey, outcome: Outcome) {
        if let Some(photo) = outcome.photo {
            self.set_photo(host, key, photo);
        }
        for event in &outcome.events {
            self.tell_of_node(host, key, event);
        }
        if let Some((to, node)) = outcome.last_for {
            let wanted = LastItems::for_subscriber(to, node);
            if let Some(queue) = self.pubsub.queues.get_mut(&key) {
                queue.jobs.push_back(Job::Last(wanted));
            }
        }
        self.end_job(host, key, Ok(outcome.reply));
    }

    /// Sends the next of an account's last items, whose payload storage has given or is to give.
    fn send_next(
        &mut self,
        host: &mut impl Host,
        key: AccountKey,
        mut rest: Vec<(Node, u64)>,
        items: Option<NumberedItems>,
    ) {
        let front = self.pubsub.queues.get(&key).and_then(|it| it.jobs.front());
        let to = match front {
            Some(Job::Last(wanted)) => wanted.to.clone(),
            _ => return,
        };
        if let Some(items) = items
            && let Some((node, _)) = rest.pop()
            && let Some((_, bytes)) = items.first()
        {
            self.send_last(host, key, &to, &node, bytes);
        }
        let Some((node, number)) = rest.last() else {
            return self.end_job(host, key, Ok(Reply::Empty));
        };
        let op = StoreOp::Items {
            account: self.accounts.at(key).jid.clone(),
            node: node.name.clone(),
            numbers: vec![*number],
        };
        self.ask_nodes(host, key, Step::Sending(rest), op);
    }

    /// The first of an account's jobs is done: the next one begins.
    pub(super) fn end_job(
        &mut self,
        host: &mut impl Host,
        key: AccountKey,
        outcome: Result<Reply, Refusal>,
    ) {
        let Some(queue) = self.pubsub.queues.get_mut(&key) else {
            return;
        };
        let job = queue.jobs.pop_front();
        let is_last = queue.jobs.is_empty();
        match job {
            Some(Job::Request(asked)) => {
                match (&asked.answered, outcome) {
                    (Some(answered), outcome) => self.answer_nodes(host, answered, outcome),
                    (None, Ok(_)) => {}
                    (None, Err(refusal)) => {
                        tracing::debug!(?refusal, "nothing was done with an account's nodes");
                    }
                }
                (self.cause, self.asker) = (None, None);
                self.end_request(host, asked.asker);
                self.close_effect(host, asked.cause);
            }
            Some(Job::Last(wanted)) => self.tell_last_sent(host, &wanted),
            Some(Job::Document(_)) | None => {}
        }
        // What the answer led to may have brought another.
        let has_more = self
            .pubsub
            .queues
            .get(&key)
            .is_some_and(|it| !it.jobs.is_empty());
        if !(has_more && is_last) {
            self.begin_job(host, key);
        }
    }

    fn answer_nodes(
        &mut self,
        host: &mut impl Host,
        answered: &IqRequest,
        outcome: Result<Reply, Refusal>,
    ) {
        match outcome {
            Ok(Reply::Payload(payload)) => self.reply(host, answered, Ok(&payload)),
            Ok(Reply::Empty | Reply::Items(..)) => self.reply(host, answered, Ok(&[])),
            Err(refusal) => self.refuse_request(host, answered, refusal),
        }
    }

    fn refuse_request(&mut self, host: &mut impl Host, answered: &IqRequest, refusal: Refusal) {
        let mut error = answered.question().to_vec();
        refusal.write(&mut error);
        self.reply_by(host, answered, "error", &error);
    }

    /// Requests about nodes that are under way.
    pub fn node_request_count(&self) -> usize {
        let queues = self.pubsub.queues.values();
        queues.map(|queue| queue.jobs.len()).sum()
    }
}

/// The answer to who reads a node. What is gone meanwhile is left out.
fn write_items(node: &str, items: &NumberedItems) -> Vec<u8> {
    let size: usize = items.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut payload = Vec::with_capacity(size + node.len() + 128);
    crate::error::put(
        &mut payload,
        format_args!(
            "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='{}'>",
            crate::xml::Attr(node)
        ),
    );
    for (_, bytes) in items {
        payload.extend_from_slice(bytes);
    }
    payload.extend_from_slice(b"</items></pubsub>");
    payload
}
