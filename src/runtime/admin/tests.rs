//! Both ends of the admin socket against a store in memory.

use std::sync::Mutex;

use store::Memory;
use xmpp::port::{Credentials, DOCUMENTS_MAX, RosterItem, ScramKey, Space, Store, Subscription};

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

    fn account_gone(&self, account: BareJid) {
        self.gone.lock().unwrap().push(account);
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

#[test]
fn every_write_of_the_command_line_survives_the_line() {
    let item = RosterItem {
        name: "Nurse \"A\"\n".into(),
        groups: vec!["Servants".into()],
        subscription: Subscription::Both,
        listed: true,
        ..RosterItem::new(jid("nurse@a.example"))
    };
    let account = jid("romeo@a.example");
    let ops = [
        create("romeo@a.example"),
        StoreOp::SetCredentials {
            account: account.clone(),
            credentials: keys(),
        },
        StoreOp::PutRosterItem {
            account: account.clone(),
            item: Box::new(item),
        },
        StoreOp::DeleteAccount {
            account: account.clone(),
        },
    ];
    for op in ops {
        let line = serde_json::to_string(&protocol::Op::from_store_op(&op).unwrap()).unwrap();
        let read: protocol::Op = serde_json::from_str(&line).unwrap();
        assert_eq!(read.into_store_op("a.example"), Ok(op), "{line}");
    }
    assert!(protocol::Op::from_store_op(&StoreOp::Credentials { account }).is_err());
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
    let mixed = [create(&names[0]), delete(&names[0]), delete(&names[0])];
    let replies = client.perform(&mixed).unwrap();
    assert_eq!(
        replies,
        [StoreReply::Exists, StoreReply::Done, StoreReply::Missing]
    );
    assert_eq!(
        *world.gone.lock().unwrap(),
        [jid(&names[0])],
        "told once, for the one that was"
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
    world.socket = Some(AdminSocket::serve(&world.data, Backend::default()).unwrap());
    assert!(Client::connect(&world.data).unwrap().is_some());
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
}

#[test]
fn a_quota_that_is_used_up_is_answered_for_the_write_that_met_it() {
    let world = World::new("full");
    let mut client = world.client();
    let document = |account: &str, number: usize| StoreOp::PutDocument {
        account: jid(account),
        space: Space::Private,
        key: format!("{number}").into(),
        bytes: b"<a/>".as_slice().into(),
    };
    let (romeo, juliet) = ("romeo@a.example", "juliet@a.example");
    let mut ops = vec![create(romeo)];
    ops.extend((0..=DOCUMENTS_MAX).map(|number| document(romeo, number)));
    ops.push(document(juliet, 0));
    let mut replies = client.perform(&ops).unwrap();
    let last = replies.split_off(1 + DOCUMENTS_MAX);
    assert_eq!(last, [StoreReply::Full, StoreReply::Missing]);
    assert!(replies.iter().all(|reply| *reply == StoreReply::Done));
}

#[test]
fn more_bytes_than_a_line_takes_go_in_several() {
    let world = World::new("lines");
    let mut client = world.client();
    let account = "romeo@a.example";
    // Each of the quotation marks is two bytes of the line.
    let document: Box<[u8]> = vec![b'"'; LINE_SIZE_MAX / 16].into();
    let put = |number: usize| StoreOp::PutDocument {
        account: jid(account),
        space: Space::Private,
        key: format!("{number}").into(),
        bytes: document.clone(),
    };
    let ops: Vec<StoreOp> = std::iter::once(create(account))
        .chain((0..20).map(put))
        .collect();
    assert_eq!(client.perform(&ops).unwrap(), vec![StoreReply::Done; 21]);
    // One alone that no line takes is refused in a sentence.
    let huge = StoreOp::PutDocument {
        account: jid(account),
        space: Space::Vcard,
        key: "".into(),
        bytes: vec![b'x'; LINE_SIZE_MAX].into(),
    };
    let refusal = client.perform(&[huge]).unwrap_err().to_string();
    assert!(refusal.contains("stop it and try again"), "{refusal}");
}
