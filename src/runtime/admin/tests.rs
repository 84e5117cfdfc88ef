//! Both ends of the admin socket against a store in memory.

use std::sync::Mutex;

use store::Memory;
use xmpp::port::{
    Credentials, DOCUMENTS_MAX, RosterItem, ScramKey, Space, Store, Subscription, WholeAccount,
};

use super::*;

#[derive(Default)]
struct Backend {
    store: Mutex<Memory>,
    gone: Arc<Mutex<Vec<BareJid>>>,
}

impl AdminBackend for Backend {
    fn domain(&self) -> &str {
        "a.example"
    }

    fn perform(&self, ops: Vec<StoreOp>) -> Vec<StoreReply> {
        let mut replies = Vec::new();
        self.store
            .lock()
            .unwrap()
            .perform(&mut ops.into_iter(), &mut replies);
        replies
    }

    fn accounts(&self) -> Result<Vec<BareJid>, Box<str>> {
        store::list(&mut *self.store.lock().unwrap())
    }

    fn delete(&self, account: BareJid) -> StoreReply {
        self.gone.lock().unwrap().push(account.clone());
        let replies = self.perform(vec![StoreOp::DeleteAccount { account }]);
        replies.into_iter().next().expect("every write is answered")
    }
}

struct World {
    data: PathBuf,
    gone: Arc<Mutex<Vec<BareJid>>>,
    socket: Option<AdminSocket>,
}

impl World {
    fn new(name: &str) -> World {
        let data = std::env::temp_dir().join(format!("vorpal-admin-{name}-{}", std::process::id()));
        std::fs::create_dir(&data).unwrap();
        let backend = Backend::default();
        let gone = Arc::clone(&backend.gone);
        let socket = Some(AdminSocket::serve(&data, backend).unwrap());
        World { data, gone, socket }
    }

    fn client(&self) -> Client {
        Client::connect(&self.data)
            .unwrap()
            .expect("the server answers")
    }

    /// Sends raw bytes and gives the first line of the answer.
    fn raw(&self, bytes: &[u8]) -> String {
        let stream = UnixStream::connect(self.data.join(SOCKET_NAME)).unwrap();
        // The server may refuse and close before it has read everything.
        let _written = (&stream).write_all(bytes);
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        line
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.socket = None;
        let _best_effort = std::fs::remove_dir_all(&self.data);
    }
}

fn jid(text: &str) -> BareJid {
    BareJid::parse(text).unwrap()
}

fn keys() -> Box<Credentials> {
    let key = |size: usize| {
        Some(ScramKey {
            salt: vec![0x0f, 0xf0, 0x80].into(),
            iterations: 4096,
            stored_key: vec![0xa5; size].into(),
            server_key: vec![0x5a; size].into(),
        })
    };
    Box::new(Credentials {
        sha1: key(20),
        sha256: key(32),
        sha512: key(64),
    })
}

fn create(account: &str) -> StoreOp {
    StoreOp::CreateAccount {
        account: jid(account),
        credentials: keys(),
    }
}

/// An account with some of everything.
fn whole(account: &str) -> WholeAccount {
    let mut whole = WholeAccount::new(jid(account), *keys());
    let item = RosterItem {
        name: "Nurse \"A\"\n".into(),
        groups: vec!["Servants".into()],
        subscription: Subscription::Both,
        listed: true,
        ..RosterItem::new(jid("nurse@a.example"))
    };
    let request = RosterItem {
        pending_in: Some(b"<presence type='subscribe'/>".as_slice().into()),
        ..RosterItem::new(jid("paris@a.example"))
    };
    whole.data.roster = vec![item, request];
    whole.data.blocked = vec!["tybalt@a.example/sword".into(), "c.example".into()];
    let text = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
    let of_space = |space| (space, "a urn:a".into(), text("<a>\u{1f916}</a>"));
    whole.documents = Space::ALL.map(of_space).into();
    whole.offline = vec![text("<message id='1'/>"), text("<message id='2'/>")];
    whole
}

fn create_whole(whole: WholeAccount) -> StoreOp {
    let whole = Box::new(whole);
    StoreOp::CreateWhole { whole }
}

#[test]
fn every_write_of_the_command_line_survives_the_line() {
    let account = jid("romeo@a.example");
    let bare = create_whole(WholeAccount::new(account.clone(), Credentials::default()));
    let set = StoreOp::SetCredentials {
        account: account.clone(),
        credentials: keys(),
        keeps: None,
    };
    let delete = StoreOp::DeleteAccount {
        account: account.clone(),
    };
    let revoke = StoreOp::RemoveUserAgents {
        account: account.clone(),
        which: None,
    };
    let all = [
        create_whole(whole("romeo@a.example")),
        bare,
        set,
        delete,
        revoke,
    ];
    for op in all {
        let line = serde_json::to_string(&protocol::Op::from_store_op(&op).unwrap()).unwrap();
        let read: protocol::Op = serde_json::from_str(&line).unwrap();
        assert_eq!(read.into_store_op("a.example"), Ok(op), "{line}");
    }
    // A new account owns nothing, unless it is said.
    let line = protocol::Op::from_store_op(&create("romeo@a.example")).unwrap();
    let plain = create_whole(WholeAccount::new(account.clone(), *keys()));
    assert_eq!(line.into_store_op("a.example"), Ok(plain));
    assert!(protocol::Op::from_store_op(&StoreOp::Credentials { account }).is_err());
}

#[test]
fn an_account_may_have_no_keys_but_is_given_some() {
    let world = World::new("keyless");
    let mut client = world.client();
    let account = jid("romeo@a.example");
    let bare = WholeAccount::new(account.clone(), Credentials::default());
    let done = client.perform(&[create_whole(bare)]).unwrap();
    assert_eq!(done, [StoreReply::Done]);
    let set = |credentials| StoreOp::SetCredentials {
        account: account.clone(),
        credentials,
        keeps: None,
    };
    let error = client.perform(&[set(Box::default())]).unwrap_err();
    assert!(error.to_string().contains("at least one hash"), "{error}");
    assert_eq!(client.perform(&[set(keys())]).unwrap(), [StoreReply::Done]);
}

#[test]
fn accounts_are_made_listed_and_deleted_through_the_socket() {
    let world = World::new("walk");
    let mut client = world.client();
    let names: Vec<String> = (1000..3500)
        .map(|number| format!("u{number}@a.example"))
        .collect();
    let ops: Vec<StoreOp> = names.iter().map(|name| create(name)).collect();
    assert!(
        client
            .perform(&ops)
            .unwrap()
            .iter()
            .all(|reply| *reply == StoreReply::Done)
    );
    let delete = |name: &str| StoreOp::DeleteAccount { account: jid(name) };
    let (first, new) = (&names[0], "u0@a.example");
    let mixed = [
        create(first),
        delete(first),
        delete(first),
        create(new),
        delete(new),
    ];
    let replies = client.perform(&mixed).unwrap();
    let (exists, done, missing) = (StoreReply::Exists, StoreReply::Done, StoreReply::Missing);
    assert_eq!(replies, [exists, done.clone(), missing, done.clone(), done]);
    assert_eq!(
        *world.gone.lock().unwrap(),
        [jid(first), jid(first), jid(new)],
        "whoever deletes tells the contacts, in the order of the line"
    );

    let mut listed = Vec::new();
    client
        .list(&mut |account| {
            listed.push(account.to_owned());
            true
        })
        .unwrap();
    assert_eq!(listed, names[1..]);
}

#[test]
fn accounts_of_other_domains_and_unsafe_names_are_refused() {
    let world = World::new("refuse");
    let mut client = world.client();
    for name in ["romeo@b.example", "a.example"] {
        let error = client.perform(&[create(name)]).unwrap_err();
        assert!(
            error.to_string().contains("is no account of a.example"),
            "{error}"
        );
    }
    let mut listed = 0;
    client
        .list(&mut |_| {
            listed += 1;
            true
        })
        .unwrap();
    assert_eq!(listed, 0);
}

#[test]
fn nonsense_is_answered_with_a_sentence_and_a_line_is_bounded() {
    let world = World::new("nonsense");
    for nonsense in [
        &b"hello\n"[..],
        b"{\"perform\":[{\"drop\":{}}]}\n",
        b"\xff\xfe\n",
        b"{}\n",
    ] {
        let answer = world.raw(nonsense);
        assert!(
            answer.starts_with("{\"error\":\"This is no request"),
            "{answer}"
        );
    }
    let answer = world.raw(&vec![b' '; LINE_SIZE_MAX + 1]);
    assert!(answer.contains("at most"), "{answer}");
    let delete = r#"{"delete":{"account":"u@a.example"}}"#;
    let many = vec![delete; OPS_MAX + 1].join(",");
    let answer = world.raw(format!("{{\"perform\":[{many}]}}\n").as_bytes());
    assert!(answer.contains("at most 4096 operations"), "{answer}");
}

#[test]
fn keys_of_the_wrong_size_are_refused() {
    let world = World::new("keys");
    for (stored, iterations) in [("00", 4096), ("zz", 4096), (&*"ab".repeat(20), 0)] {
        let server = "ab".repeat(20);
        let line = format!(
            r#"{{"perform":[{{"create":{{"account":"u@a.example","keys":{{"sha1":{{"salt":"00",
            "iterations":{iterations},"stored_key":"{stored}","server_key":"{server}"}}}}}}}}]}}"#
        );
        let answer = world.raw(format!("{}\n", line.replace('\n', "")).as_bytes());
        assert!(answer.starts_with("{\"error\":"), "{answer}");
    }
}

#[test]
fn the_socket_is_private_gone_after_stopping_and_not_shared() {
    let mut world = World::new("mode");
    let path = world.data.join(SOCKET_NAME);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = AdminSocket::serve(&world.data, Backend::default());
    assert_eq!(
        second.err().map(|error| error.kind()),
        Some(io::ErrorKind::AddrInUse)
    );
    world.socket = None;
    assert!(Client::connect(&world.data).unwrap().is_none());

    // What a killed server leaves behind is no obstacle.
    drop(UnixListener::bind(&path).unwrap());
    assert!(Client::connect(&world.data).unwrap().is_none());
    let fresh = world.data.join(FRESH_NAME);
    std::fs::create_dir(&fresh).unwrap();
    drop(UnixListener::bind(fresh.join("s")).unwrap());
    world.socket = Some(AdminSocket::serve(&world.data, Backend::default()).unwrap());
    assert!(Client::connect(&world.data).unwrap().is_some());
    assert!(!fresh.exists());
}

#[test]
fn a_path_that_is_too_long_for_an_address_is_served_too() {
    let world = World::new("long");
    let data = world.data.join("x".repeat(200));
    std::fs::create_dir(&data).unwrap();
    let served = AdminSocket::serve(&data, Backend::default()).unwrap();
    assert!(Client::connect(&data).unwrap().is_some());
    drop(served);
    assert!(Client::connect(&data).unwrap().is_none());
    assert!(!data.join(SOCKET_NAME).exists());
}

#[test]
fn one_connection_too_many_is_told_so() {
    let world = World::new("busy");
    let mut held: Vec<Client> = (0..CLIENTS_MAX).map(|_| world.client()).collect();
    // An answer to each proves that it is being served.
    for client in &mut held {
        client.perform(&[]).unwrap();
        assert_eq!(client.perform(&[create("u@a.example")]).unwrap().len(), 1);
    }
    let answer = world.raw(b"\"list\"\n");
    assert!(answer.contains("busy"), "{answer}");
    // Before the server has closed the connection, and after.
    for wait in [0, 0, 0, 0, 100] {
        let mut client = world.client();
        std::thread::sleep(Duration::from_millis(wait));
        let error = client.perform(&[create("u@a.example")]).unwrap_err();
        assert!(error.to_string().contains("busy"), "{error}");
    }
}

#[test]
fn a_quota_that_is_used_up_is_answered_for_the_account_that_met_it() {
    let world = World::new("full");
    let mut client = world.client();
    let with = |account: &str, count: usize| {
        let mut whole = WholeAccount::new(jid(account), *keys());
        let document = |number: usize| {
            let key = format!("{number}").into();
            (Space::Private, key, b"<a/>".as_slice().into())
        };
        whole.documents = (0..count).map(document).collect();
        create_whole(whole)
    };
    let ops = [
        with("romeo@a.example", DOCUMENTS_MAX),
        with("juliet@a.example", DOCUMENTS_MAX + 1),
        with("nurse@a.example", 1),
    ];
    let replies = client.perform(&ops).unwrap();
    assert_eq!(
        replies,
        [StoreReply::Done, StoreReply::Full, StoreReply::Done]
    );
    assert_eq!(client.perform(&ops[1..2]).unwrap(), [StoreReply::Full]);
}

#[test]
fn more_bytes_than_a_line_takes_go_in_several() {
    let world = World::new("lines");
    let mut client = world.client();
    let with = |number: usize, document: Box<[u8]>| {
        let account = format!("u{number}@a.example");
        let mut whole = WholeAccount::new(jid(&account), *keys());
        whole.documents = vec![(Space::Vcard, "".into(), document)];
        (number, create_whole(whole))
    };
    // Each of the quotation marks is two bytes of the line.
    let large = || vec![b'"'; LINE_SIZE_MAX / 16].into();
    let mut ops: Vec<_> = (0..20).map(|number| with(number, large())).collect();
    // One alone that no line takes is refused in a sentence, and the others are not.
    ops[7] = with(7, vec![b'x'; LINE_SIZE_MAX].into());
    let mut answers = Vec::new();
    let mut answered = |number, answer| {
        answers.push((number, answer));
        true
    };
    let writes = ops.iter().map(|(number, op)| (*number, op));
    client.perform_each(writes, &mut answered).unwrap();
    let (_, refusal) = answers.remove(7);
    assert!(
        matches!(&refusal, Answer::Refused(text) if text.contains("stop it and try again")),
        "{refusal:?}"
    );
    let others = (0..20).filter(|number| *number != 7);
    let done = others.map(|number| (number, Answer::Reply(StoreReply::Done)));
    assert_eq!(answers, done.collect::<Vec<_>>(), "in their order");
    let refusal = client.perform(&[ops.remove(7).1]).unwrap_err().to_string();
    assert!(refusal.contains("stop it and try again"), "{refusal}");
}

#[test]
fn who_has_heard_enough_is_told_only_what_was_under_way() {
    let world = World::new("enough");
    let mut client = world.client();
    let ops: Vec<StoreOp> = (0..4 * OPS_MAX)
        .map(|number| create(&format!("u{number}@a.example")))
        .collect();
    let mut answers = 0;
    let mut answered = |(), _| {
        answers += 1;
        answers < 10
    };
    let writes = ops.iter().map(|op| ((), op));
    client.perform_each(writes, &mut answered).unwrap();
    let mut exist = |number: usize| {
        let replies = client.perform(&ops[number..=number]).unwrap();
        replies == [StoreReply::Exists]
    };
    assert!(exist(answers - 1), "what is done was told");
    assert!(!exist(answers), "what was not told is not done");
    assert!(!exist(ops.len() - 1), "the last line was not sent");
}

#[test]
fn lines_that_are_sent_ahead_are_answered_in_their_order() {
    let world = World::new("ahead");
    let asked = b"\"list\"\nnonsense\n{\"perform\":[]}\n";
    let stream = UnixStream::connect(world.data.join(SOCKET_NAME)).unwrap();
    (&stream).write_all(asked).unwrap();
    // Whoever has said everything is answered all the same.
    stream.shutdown(Shutdown::Write).unwrap();
    let answers: Vec<String> = BufReader::new(&stream)
        .lines()
        .map(Result::unwrap)
        .collect();
    let [listed, refused, performed] = &answers[..] else {
        panic!("three lines are answered: {answers:?}")
    };
    assert_eq!(listed, r#"{"accounts":[]}"#);
    assert!(refused.contains("This is no request"), "{refused}");
    assert_eq!(performed, r#"{"replies":[]}"#);
}
