//! The way into the running server from outside of it: storage requests, and news for the shards.

use crate::admin::AdminBackend;
use crate::doorbell::{Caller, Doorbell};
use crate::storage::{Listing, Request, Viewed, Waker};
use ring::{Bell, Features};
use stanza::jid::BareJid;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use xmpp::ShardId;
use xmpp::parcel::{Control as News, Parcel};
use xmpp::port::{StoreOp, StoreReply};
use xmpp::router::Router;

/// How long an account's contacts may take to hear of its end: less than an admin client waits.
const DELETION_WAIT_MAX: Duration = Duration::from_secs(100);

/// How long shards may take to end what old keys let in: they are awake within one turn, and wait
/// for one write.
const NEW_KEYS_WAIT_MAX: Duration = Duration::from_secs(10);

/// What a shard is told from outside.
#[derive(Debug)]
pub(crate) enum Command {
    /// Work for the protocol.
    Parcel(Parcel),
    /// All shards are up: accept connections.
    Listen,
    /// All shards will end. This is dropped when siblings have what they are to hear before.
    Prepare(Sender<()>),
    /// End every stream and then the shard.
    Stop,
}

struct Inner {
    domain: Box<str>,
    router: Router,
    features: Features,
    storage: Sender<Request>,
    waker: Arc<Waker>,
    inboxes: Vec<(Sender<Command>, Arc<Doorbell>)>,
}

/// A handle on the running server for any thread; its calls block.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

impl Control {
    pub(crate) fn new(
        domain: &str,
        features: Features,
        storage: Sender<Request>,
        waker: Arc<Waker>,
        inboxes: Vec<(Sender<Command>, Arc<Doorbell>)>,
    ) -> Control {
        // Seen from the first shard; only the homes of accounts are asked for.
        let router = Router::new(domain, inboxes.len() as u16, ShardId(0));
        let domain = domain.into();
        Control(Arc::new(Inner {
            domain,
            router,
            features,
            storage,
            waker,
            inboxes,
        }))
    }

    /// Performs one storage operation.
    pub fn store(&self, op: StoreOp) -> StoreReply {
        let stopped = || StoreReply::Failed("the server is going down".into());
        self.perform(vec![op]).pop().unwrap_or_else(stopped)
    }

    fn request(&self, request: Request) -> bool {
        let sent = self.0.storage.send(request).is_ok();
        self.0.waker.wake();
        sent
    }

    pub(crate) fn stop_storage(&self) {
        self.request(Request::Stop);
    }

    /// Tells every shard to accept connections.
    pub(crate) fn listen(&self) {
        for shard in 0..self.0.inboxes.len() {
            self.tell(shard, Command::Listen);
        }
    }

    /// Tells every shard that all will end, and waits for what they tell each other: whoever is to
    /// hear of it is still there then.
    pub(crate) fn prepare_shards(&self, patience: Duration) {
        let (turns, ended) = mpsc::channel();
        for shard in 0..self.0.inboxes.len() {
            self.tell(shard, Command::Prepare(turns.clone()));
        }
        drop(turns);
        // Nothing comes: the last of the turns closes the channel.
        let _closed = ended.recv_timeout(patience);
    }

    /// Tells every shard to end.
    pub(crate) fn stop_shards(&self) {
        for shard in 0..self.0.inboxes.len() {
            self.tell(shard, Command::Stop);
        }
    }

    /// Has the homes of accounts forget what was begun with their old keys, and end their sessions,
    /// and waits for that: who has heard of a new password may rely on it. Where it fails, so does
    /// the operation: its reply is given with the account.
    fn outdate_proofs(&self, accounts: Vec<(BareJid, &mut StoreReply)>) {
        let begin = |(account, reply): (BareJid, _)| {
            let home = usize::from(self.0.router.home(account.as_str()).0);
            let (answer, outcome) = mpsc::channel();
            let news = Box::new(News::NewKeys { account, answer });
            self.tell(home, Command::Parcel(Parcel::Control(news)));
            (outcome, reply)
        };
        let begun: Vec<_> = accounts.into_iter().map(begin).collect();
        let until = Instant::now() + NEW_KEYS_WAIT_MAX;
        for (outcome, reply) in begun {
            let patience = until.saturating_duration_since(Instant::now());
            note_end(reply, outcome.recv_timeout(patience));
        }
    }

    fn tell(&self, shard: usize, command: Command) {
        let (inbox, bell) = &self.0.inboxes[shard];
        if inbox.send(command).is_err() {
            return;
        }
        match Bell::new(&self.0.features) {
            Ok(mut own) => bell.post_with(Caller::Control.bit(bell.shards()), &mut own),
            Err(error) => tracing::warn!(%error, "a shard could not be woken"),
        }
    }
}

impl AdminBackend for Control {
    fn domain(&self) -> &str {
        &self.0.domain
    }

    fn perform(&self, ops: Vec<StoreOp>) -> Vec<StoreReply> {
        let count = ops.len();
        let new_keys = ops.iter().map(|op| match op {
            StoreOp::SetCredentials { account, .. } | StoreOp::RemoveUserAgents { account, .. } => {
                Some(account.clone())
            }
            _ => None,
        });
        let new_keys: Vec<Option<BareJid>> = new_keys.collect();
        let (answer, replies) = mpsc::channel();
        self.request(Request::Perform(ops, answer));
        let mut replies = replies
            .recv()
            .unwrap_or_else(|_| vec![StoreReply::Failed("the server is going down".into()); count]);
        let outdated = new_keys.into_iter().zip(&mut replies);
        let outdated = outdated.filter_map(|(account, reply)| Some((account?, reply)));
        self.outdate_proofs(outdated.collect());
        replies
    }

    fn accounts(&self) -> Listing {
        let (answer, listing) = mpsc::channel();
        self.request(Request::Accounts(answer));
        listing
            .recv()
            .unwrap_or_else(|_| Err("the server is going down".into()))
    }

    fn snapshot(&self) -> Viewed {
        let (answer, viewed) = mpsc::channel();
        self.request(Request::Snapshot(answer));
        viewed
            .recv()
            .unwrap_or_else(|_| Err("the server is going down".into()))
    }

    fn delete(&self, account: BareJid) -> StoreReply {
        let home = usize::from(self.0.router.home(account.as_str()).0);
        let (answer, outcome) = mpsc::channel();
        let news = Box::new(News::Delete { account, answer });
        self.tell(home, Command::Parcel(Parcel::Control(news)));
        outcome
            .recv_timeout(DELETION_WAIT_MAX)
            .unwrap_or_else(|error| {
                StoreReply::Failed(match error {
                    RecvTimeoutError::Timeout => {
                        "its contacts are still being told, and it goes when they have been".into()
                    }
                    RecvTimeoutError::Disconnected => "the server is going down".into(),
                })
            })
    }
}

/// What an operation came to whose account's home has ended what old keys let in, or has not: who
/// hears of success may rely on that.
fn note_end(reply: &mut StoreReply, ended: Result<StoreReply, RecvTimeoutError>) {
    if *reply != StoreReply::Done {
        return;
    }
    let why = match ended {
        Ok(StoreReply::Failed(why)) => why,
        // Done, or the account is gone meanwhile.
        Ok(_) => return,
        Err(RecvTimeoutError::Timeout) => "its shard did not answer in time".into(),
        Err(RecvTimeoutError::Disconnected) => "the server is going down".into(),
    };
    let why = format!("it is written, but tokens of before may be left ({why}): do it once more");
    *reply = StoreReply::Failed(why.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_fails_where_what_old_keys_let_in_may_be_left() {
        let failed = |why: &str| StoreReply::Failed(why.into());
        let after = |mut reply: StoreReply, ended| {
            note_end(&mut reply, ended);
            reply
        };
        for ended in [StoreReply::Done, StoreReply::Missing] {
            assert_eq!(after(StoreReply::Done, Ok(ended)), StoreReply::Done);
        }
        for (ended, what) in [
            (Ok(failed("no space")), "(no space)"),
            (Err(RecvTimeoutError::Timeout), "in time"),
            (Err(RecvTimeoutError::Disconnected), "going down"),
        ] {
            match after(StoreReply::Done, ended) {
                StoreReply::Failed(why) => assert!(why.contains(what), "{why}"),
                other => panic!("{other:?}"),
            }
        }
        // What was not even begun keeps its reason.
        for first in [StoreReply::Missing, failed("before")] {
            assert_eq!(after(first.clone(), Ok(failed("behind"))), first);
        }
    }
}
