//! Requests about an account's nodes, one after another: each reads what storage has, and what it
//! changes is stored before the next one reads.

use super::action::{self, Action};
use super::last::{CatchUps, LastItems};
use super::refusal::Refusal;
use super::rights::{Visitor, bare_of};
use super::service::{Outcome, Reply, Service};
use crate::account::AccountKey;
use crate::error::StanzaError;
use crate::host::Host;
use crate::iq::IqRequest;
use crate::port::{Node, NumberedItems, StoreOp, StoreReply};
use crate::request::Asker;
use crate::settle::Cause;
use crate::shard::{Shard, Waiting};
use crate::xep::Request;
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
}

/// Somebody's request.
#[derive(Debug)]
pub(super) struct Asked {
    answered: IqRequest,
    action: Option<Action>,
    /// Whose input waits when it has made many.
    asker: Option<Asker>,
    /// The stanza that is not settled before the answer.
    cause: Option<Cause>,
}

/// What the first of the jobs waits for.
#[derive(Debug)]
enum Step {
    /// The nodes.
    Reading,
    /// What items of a node say.
    Fetching(Box<str>),
    /// The changes.
    Writing(Box<Outcome>),
    /// Items that are sent one after another, the last one first.
    Sending(Vec<(Node, u64)>),
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
            let outcome = self.perform(host, account, None, Vec::new(), answered.asker(), action);
            self.answer_nodes(host, &answered, outcome.map(|outcome| outcome.reply));
            return Ok(());
        };
        if self.accounts.at(key).is_anonymous {
            return Err(StanzaError::ServiceUnavailable);
        }
        let visitor = Visitor::at(self.accounts.at(key), answered.asker());
        let jobs_max = match visitor.sees_presence() {
            true => JOBS_PER_ACCOUNT_MAX,
            false => STRANGERS_JOBS_MAX,
        };
        let count = self.pubsub.queues.get(&key).map_or(0, |it| it.jobs.len());
        if count >= jobs_max {
            return Err(StanzaError::ResourceConstraint);
        }
        // What only reads leaves nothing behind that a crash could take.
        let cause = match request.is_set {
            true => self.open_effect(),
            false => None,
        };
        let asked = Asked {
            answered,
            action: Some(action),
            asker: self.count_request(),
            cause,
        };
        self.enqueue_job(host, key, Job::Request(asked));
        Ok(())
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

    fn begin_job(&mut self, host: &mut impl Host, key: AccountKey) {
        let account = self.accounts.at(key).jid.clone();
        self.ask_nodes(host, key, Step::Reading, StoreOp::Nodes { account });
    }

    fn ask_nodes(&mut self, host: &mut impl Host, key: AccountKey, step: Step, op: StoreOp) {
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
            (Step::Sending(rest), StoreReply::Items(items)) => {
                self.send_next(host, key, rest, Some(items));
            }
            (_, reply) => {
                let error = match reply {
                    // It was deleted meanwhile.
                    StoreReply::Missing => StanzaError::ItemNotFound,
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
        self.accounts.at_mut(key).has_no_nodes = nodes.is_empty();
        let front = self.pubsub.queues.get_mut(&key);
        let (asker, action) = match front.and_then(|queue| queue.jobs.front_mut()) {
            Some(Job::Request(asked)) => {
                let asker = asked.answered.asker().to_owned();
                (asker, asked.action.take())
            }
            Some(Job::Last(wanted)) => {
                let (to, wanted) = (wanted.to.clone(), wanted.wanted.clone());
                let rest = self.last_items_for(key, nodes, &to, &wanted);
                return self.send_next(host, key, rest, None);
            }
            None => return,
        };
        let Some(action) = action else { return };
        let account = self.accounts.at(key).jid.clone();
        match self.perform(host, &account, Some(key), nodes, &asker, action) {
            Err(refusal) => self.end_job(host, key, Err(refusal)),
            Ok(mut outcome) if !outcome.changes.is_empty() => {
                let changes = std::mem::take(&mut outcome.changes);
                self.accounts.at_mut(key).has_no_nodes = false;
                let step = Step::Writing(Box::new(outcome));
                self.ask_nodes(host, key, step, StoreOp::ChangeNodes { account, changes });
            }
            Ok(Outcome {
                reply: Reply::Items(node, numbers),
                ..
            }) => {
                let of = node.clone();
                let op = StoreOp::Items {
                    account,
                    node,
                    numbers,
                };
                self.ask_nodes(host, key, Step::Fetching(of), op);
            }
            // What nothing is stored of is told at once.
            Ok(outcome) => self.on_nodes_written(host, key, outcome),
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
    ) -> Result<Outcome, Refusal> {
        let bare = bare_of(asker);
        let found = known.map(|key| self.accounts.at(key));
        let visitor = Visitor {
            jid: asker,
            is_account: bare == account.as_str(),
            item: found.and_then(|found| found.contact(bare)),
        };
        let sessions = found.map_or(&[][..], |found| &found.sessions);
        let sessions = sessions.iter().map(|key| self.sessions.at(*key));
        let seen = sessions.filter(|session| session.available && visitor.sees_presence());
        let service = Service {
            account,
            nodes,
            resources: seen.map(|session| session.full()).collect(),
            visitor,
            limits: &self.settings.limits,
            at: host.wall(),
            random: &mut || host.random(),
        };
        service.perform(action)
    }

    /// What was asked for is durable.
    fn on_nodes_written(&mut self, host: &mut impl Host, key: AccountKey, outcome: Outcome) {
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
    fn end_job(&mut self, host: &mut impl Host, key: AccountKey, outcome: Result<Reply, Refusal>) {
        let Some(queue) = self.pubsub.queues.get_mut(&key) else {
            return;
        };
        let job = queue.jobs.pop_front();
        let is_last = queue.jobs.is_empty();
        match job {
            Some(Job::Request(asked)) => {
                self.answer_nodes(host, &asked.answered, outcome);
                (self.cause, self.asker) = (None, None);
                self.end_request(host, asked.asker);
                self.close_effect(host, asked.cause);
            }
            Some(Job::Last(wanted)) => self.tell_last_sent(host, &wanted),
            None => {}
        }
        // What the answer led to may have brought another.
        let has_more = self
            .pubsub
            .queues
            .get(&key)
            .is_some_and(|it| !it.jobs.is_empty());
        match has_more {
            true if is_last => {}
            true => self.begin_job(host, key),
            false => {
                self.pubsub.queues.remove(&key);
                self.accounts.at_mut(key).pins -= 1;
                self.evict_if_idle(key);
            }
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
