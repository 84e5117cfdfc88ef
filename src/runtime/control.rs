//! The way into the running server from outside of it: storage requests, and news for the shards.

use crate::admin::AdminBackend;
use crate::doorbell::{Caller, Doorbell};
use crate::storage::{Listing, Request, Viewed, Waker};
use ring::{Bell, Features};
use stanza::jid::BareJid;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;
use xmpp::ShardId;
use xmpp::parcel::{Control as News, Parcel};
use xmpp::port::{StoreOp, StoreReply};
use xmpp::router::Router;

/// How long an account's contacts may take to hear of its end: less than an admin client waits.
const DELETION_WAIT_MAX: Duration = Duration::from_secs(100);

/// How long shards may take to hear of new keys: they are awake within one turn.
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
    /// and waits for that: who has heard of a new password may rely on it.
    fn outdate_proofs(&self, accounts: Vec<BareJid>) {
        if accounts.is_empty() {
            return;
        }
        let (told, all_told) = mpsc::channel();
        for account in accounts {
            let home = usize::from(self.0.router.home(account.as_str()).0);
            let told = told.clone();
            let news = Box::new(News::NewKeys { account, told });
            self.tell(home, Command::Parcel(Parcel::Control(news)));
        }
        drop(told);
        // Nothing comes: the last of them closes the channel.
        if all_told.recv_timeout(NEW_KEYS_WAIT_MAX) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("logins begun with an old password may still succeed");
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
        let new_keys = ops.iter().filter_map(|op| match op {
            StoreOp::SetCredentials { account, .. } | StoreOp::RemoveUserAgents { account, .. } => {
                Some(account.clone())
            }
            _ => None,
        });
        let new_keys: Vec<BareJid> = new_keys.collect();
        let (answer, replies) = mpsc::channel();
        self.request(Request::Perform(ops, answer));
        let replies = replies
            .recv()
            .unwrap_or_else(|_| vec![StoreReply::Failed("the server is going down".into()); count]);
        self.outdate_proofs(new_keys);
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
