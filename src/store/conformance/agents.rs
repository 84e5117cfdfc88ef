//! The part of the suite about user agents and their tokens.

use super::{create, jid, keys, one, put_document};
use xmpp::Timestamp;
use xmpp::port::{
    AgentId, Credentials, Space, Store, StoreOp, StoreReply, Token, TokenBinding, USER_AGENTS_MAX,
    UserAgent,
};

/// The parts of the suite.
pub(super) const PARTS: [fn(&mut dyn Store); 5] = [
    a_user_agent_is_read_as_it_was_written,
    a_user_agent_that_was_written_meanwhile_is_not_written_over,
    of_too_many_user_agents_the_one_seen_longest_ago_goes,
    user_agents_go_with_the_password_and_with_their_account,
    keys_are_upgraded_where_they_are_those_that_were_read,
];

const ROMEO: &str = "romeo@a.example";

pub(crate) fn agent(id: u64, stamp: u64) -> UserAgent {
    let token = |fill: u8, binding| Token {
        seed: u128::from_be_bytes([fill; 16]),
        binding,
        issued: Timestamp(7_000_000),
        expires: Timestamp(8_000_000),
        count: u32::from(fill),
    };
    UserAgent {
        id: AgentId(id),
        stamp,
        software: "Näme".into(),
        device: "phone".into(),
        first_seen: Timestamp(1_000_000),
        last_seen: Timestamp(id * 1_000_000),
        knows_password: true,
        next: Some(token(1, TokenBinding::Exporter)),
        current: Some(token(2, TokenBinding::None)),
    }
}

pub(crate) fn put(agent: UserAgent, prior: Option<u64>, forget_before: u64) -> StoreOp {
    StoreOp::PutUserAgent {
        account: jid(ROMEO),
        agent: Box::new(agent),
        prior,
        forget_before: Timestamp(forget_before),
    }
}

fn read(store: &mut dyn Store, id: u64) -> Option<UserAgent> {
    let op = StoreOp::UserAgent {
        account: jid(ROMEO),
        id: AgentId(id),
    };
    match one(store, op) {
        StoreReply::UserAgent(found) => found.map(|found| *found),
        other => panic!("{other:?}"),
    }
}

fn all(store: &mut dyn Store) -> Vec<u64> {
    match one(
        store,
        StoreOp::UserAgents {
            account: jid(ROMEO),
        },
    ) {
        StoreReply::UserAgents(found) => {
            let mut ids: Vec<u64> = found.iter().map(|found| found.id.0).collect();
            ids.sort_unstable();
            ids
        }
        other => panic!("{other:?}"),
    }
}

fn a_user_agent_is_read_as_it_was_written(store: &mut dyn Store) {
    assert_eq!(one(store, put(agent(1, 1), None, 0)), StoreReply::Missing);
    assert_eq!(read(store, 1), None);
    one(store, create(ROMEO, 1));
    one(store, create("romeo@a.example.net", 1));
    assert_eq!(one(store, put(agent(1, 1), None, 0)), StoreReply::Done);
    assert_eq!(read(store, 1), Some(agent(1, 1)));
    let bare = UserAgent {
        software: "".into(),
        device: "".into(),
        next: None,
        current: None,
        knows_password: false,
        ..agent(2, 2)
    };
    assert_eq!(one(store, put(bare.clone(), None, 0)), StoreReply::Done);
    assert_eq!(read(store, 2), Some(bare));
    assert_eq!(all(store), [1, 2]);
    let other = StoreOp::UserAgents {
        account: jid("romeo@a.example.net"),
    };
    assert_eq!(one(store, other), StoreReply::UserAgents(Vec::new()));
}

fn a_user_agent_that_was_written_meanwhile_is_not_written_over(store: &mut dyn Store) {
    one(store, create(ROMEO, 1));
    let outdated = StoreReply::Outdated;
    assert_eq!(one(store, put(agent(1, 2), Some(1), 0)), outdated);
    assert_eq!(one(store, put(agent(1, 1), None, 0)), StoreReply::Done);
    for prior in [None, Some(3)] {
        assert_eq!(one(store, put(agent(1, 2), prior, 0)), outdated);
    }
    assert_eq!(read(store, 1), Some(agent(1, 1)));
    // Two that have read the same: in one call as well.
    let mut replies = Vec::new();
    let both = [put(agent(1, 5), Some(1), 0), put(agent(1, 6), Some(1), 0)];
    store.perform(&mut both.into_iter(), &mut replies);
    assert_eq!(replies, [StoreReply::Done, StoreReply::Outdated]);
    assert_eq!(read(store, 1), Some(agent(1, 5)));
}

fn of_too_many_user_agents_the_one_seen_longest_ago_goes(store: &mut dyn Store) {
    one(store, create(ROMEO, 1));
    for id in 1..=USER_AGENTS_MAX as u64 {
        assert_eq!(one(store, put(agent(id, id), None, 0)), StoreReply::Done);
    }
    // One that is there already takes nobody's place.
    one(store, put(agent(9, 90), Some(9), u64::MAX));
    assert_eq!(all(store).len(), USER_AGENTS_MAX);
    one(store, put(agent(100, 100), None, 0));
    let left = all(store);
    assert_eq!((left.len(), left[0]), (USER_AGENTS_MAX, 2));
    one(store, put(agent(101, 101), None, 30_000_000));
    let expected: Vec<u64> = (30..=USER_AGENTS_MAX as u64).chain([100, 101]).collect();
    assert_eq!(all(store), expected, "the others had not been seen since");
}

fn user_agents_go_with_the_password_and_with_their_account(store: &mut dyn Store) {
    let set = |keeps: Option<u64>| StoreOp::SetCredentials {
        account: jid(ROMEO),
        credentials: keys(2),
        keeps: keeps.map(AgentId),
    };
    let remove = |which: Option<u64>| StoreOp::RemoveUserAgents {
        account: jid(ROMEO),
        which: which.map(AgentId),
    };
    assert_eq!(one(store, remove(None)), StoreReply::Missing);
    one(store, create(ROMEO, 1));
    let fill = |store: &mut dyn Store| {
        for id in 1..=4 {
            one(store, put(agent(id, id), None, 0));
        }
        for space in [Space::Archiving, Space::Push] {
            one(store, put_document(ROMEO, space, "", "x"));
        }
    };
    let wakes = |store: &mut dyn Store, space| {
        let account = jid(ROMEO);
        let key = "".into();
        let read = StoreOp::Document {
            account,
            space,
            key,
        };
        one(store, read) != StoreReply::Document(None)
    };
    fill(store);
    assert_eq!(one(store, remove(Some(3))), StoreReply::Done);
    assert_eq!(one(store, remove(Some(3))), StoreReply::Done);
    assert_eq!(all(store), [1, 2, 4]);
    assert_eq!(one(store, set(Some(2))), StoreReply::Done);
    assert_eq!(all(store), [2]);
    assert!(wakes(store, Space::Push));
    one(store, set(None));
    assert!(all(store).is_empty());
    // XEP-0357: where nobody is trusted nobody is woken.
    assert!(!wakes(store, Space::Push) && wakes(store, Space::Archiving));
    fill(store);
    assert_eq!(one(store, remove(None)), StoreReply::Done);
    assert!(all(store).is_empty());
    assert!(!wakes(store, Space::Push) && wakes(store, Space::Archiving));
    fill(store);
    let account = jid(ROMEO);
    one(store, StoreOp::DeleteAccount { account });
    one(store, create(ROMEO, 1));
    assert!(all(store).is_empty());
}

fn keys_are_upgraded_where_they_are_those_that_were_read(store: &mut dyn Store) {
    let fewer = Box::new(Credentials {
        sha1: keys(1).sha1,
        ..Credentials::default()
    });
    let upgrade = |prior: &Credentials| StoreOp::UpgradeCredentials {
        account: jid(ROMEO),
        prior: Box::new(prior.clone()),
        credentials: keys(1),
    };
    let account = jid(ROMEO);
    assert_eq!(one(store, upgrade(&fewer)), StoreReply::Missing);
    let credentials = fewer.clone();
    one(
        store,
        StoreOp::CreateAccount {
            account,
            credentials,
        },
    );
    one(store, put(agent(1, 1), None, 0));
    let known = |store: &mut dyn Store| {
        let account = jid(ROMEO);
        one(store, StoreOp::Credentials { account })
    };
    assert_eq!(one(store, upgrade(&keys(1))), StoreReply::Outdated);
    let before = StoreReply::Credentials(Some(fewer.clone()));
    assert_eq!(known(store), before);
    assert_eq!(one(store, upgrade(&fewer)), StoreReply::Done);
    assert_eq!(known(store), StoreReply::Credentials(Some(keys(1))));
    assert_eq!(all(store), [1], "its tokens are as good as before");
    assert_eq!(one(store, upgrade(&fewer)), StoreReply::Outdated);
}
