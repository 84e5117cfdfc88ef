//! What the embedded store keeps when its process dies, and what it says to damage.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use xmpp::Timestamp;
use xmpp::port::{
    Enqueue, OfflineQuota, Origin, QueuedStanza, RosterItem, Store, StoreOp, StoreReply,
    WholeAccount,
};

use crate::backup::Table;
use crate::conformance::sessions::{
    ARRIVED, dequeue, end, enqueue, queue, renumber, save, session, share, stored,
};
use crate::conformance::{account, conformance, create, credentials, delete, full_item, jid, keys};
use crate::conformance::{one, put, roster, wait, waiting};
use crate::embedded::Staged;
use crate::records::KEY_SIZE_MAX;
use crate::{Embedded, OpenError, schema};

/// A directory of this test alone, removed with the value.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = format!("vorpal-store-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(path);
        std::fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    /// What a kill at this moment would leave on the disk.
    pub(crate) fn killed(&self) -> Scratch {
        let copy = Scratch::new();
        copy_tree(&self.0, &copy.0);
        copy
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn open(scratch: &Scratch) -> Embedded {
    Embedded::open(&scratch.0).unwrap()
}

fn open_error(scratch: &Scratch) -> OpenError {
    match Embedded::open(&scratch.0) {
        Ok(_) => panic!("this store should have been refused"),
        Err(error) => error,
    }
}

fn failure(reply: StoreReply) -> String {
    match reply {
        StoreReply::Failed(text) => text.into(),
        other => panic!("this should have failed: {other:?}"),
    }
}

/// A store with the directory that it lies in.
struct Owned(
    Embedded,
    #[expect(dead_code, reason = "removed when dropped")] Scratch,
);

impl Store for Owned {
    fn perform(&mut self, ops: &mut dyn Iterator<Item = StoreOp>, replies: &mut Vec<StoreReply>) {
        self.0.perform(ops, replies);
    }

    fn accounts(
        &mut self,
        each: &mut dyn FnMut(stanza::jid::BareJid) -> bool,
    ) -> Result<(), Box<str>> {
        self.0.accounts(each)
    }
}

#[test]
fn the_embedded_store_conforms() {
    conformance(|| {
        let scratch = Scratch::new();
        Box::new(Owned(open(&scratch), scratch))
    });
}

#[test]
fn what_was_answered_is_there_after_a_kill() {
    let scratch = Scratch::new();
    let mut store = open(&scratch);
    one(&mut store, create("romeo@a.example", 1));
    one(&mut store, create("mercutio@a.example", 2));
    one(
        &mut store,
        put("romeo@a.example", full_item("juliet@b.example")),
    );
    one(
        &mut store,
        StoreOp::DeleteAccount {
            account: jid("mercutio@a.example"),
        },
    );

    let copy = scratch.killed();
    let mut reopened = open(&copy);
    let found = one(&mut reopened, credentials("romeo@a.example"));
    assert_eq!(found, StoreReply::Credentials(Some(keys(1))));
    assert_eq!(
        roster(&mut reopened, "romeo@a.example"),
        [full_item("juliet@b.example")]
    );
    assert_eq!(
        one(&mut reopened, account("mercutio@a.example")),
        StoreReply::Account(None)
    );

    // And again, now that the journal was replayed once.
    one(&mut reopened, create("mercutio@a.example", 3));
    let mut again = open(&copy.killed());
    let found = one(&mut again, credentials("mercutio@a.example"));
    assert_eq!(found, StoreReply::Credentials(Some(keys(3))));
    assert_eq!(roster(&mut again, "romeo@a.example").len(), 1);
}

#[test]
fn a_call_cut_in_the_middle_of_its_commit_is_wholly_gone() {
    let scratch = Scratch::new();
    let mut store = open(&scratch);
    one(&mut store, create("romeo@a.example", 1));
    let before = scratch.killed();
    let ops = [
        create("tybalt@a.example", 2),
        put("romeo@a.example", full_item("t@a.example")),
    ];
    store.perform(&mut ops.into_iter(), &mut Vec::new());

    let whole = written_size(&scratch);
    for missing in [1, 9, 60, 200] {
        let copy = cut(&before, &scratch, whole - missing);
        let mut reopened = open(&copy);
        let found = one(&mut reopened, credentials("romeo@a.example"));
        assert_eq!(
            found,
            StoreReply::Credentials(Some(keys(1))),
            "{missing} bytes cut"
        );
        assert_eq!(
            roster(&mut reopened, "romeo@a.example"),
            [],
            "{missing} bytes cut"
        );
        let found = one(&mut reopened, account("tybalt@a.example"));
        assert_eq!(found, StoreReply::Account(None), "{missing} bytes cut");

        // The store is as good as before: it takes writes and keeps them.
        assert_eq!(
            one(&mut reopened, create("paris@a.example", 4)),
            StoreReply::Done
        );
        let mut again = open(&copy.killed());
        let found = one(&mut again, credentials("paris@a.example"));
        assert_eq!(
            found,
            StoreReply::Credentials(Some(keys(4))),
            "{missing} bytes cut"
        );
    }
}

/// The file of the log that commits go to.
fn log_of(scratch: &Scratch) -> PathBuf {
    let files = crate::commit::log_files(&scratch.0.join(crate::embedded::DIRECTORY)).unwrap();
    files.into_iter().max().unwrap()
}

/// The log's size without the zeros that are allocated ahead.
pub(crate) fn written_size(scratch: &Scratch) -> u64 {
    let bytes = std::fs::read(log_of(scratch)).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    last as u64 + 1
}

/// What a kill would have left at `before`, with so many bytes of what is in the log by now: the
/// engine gets nothing before the log has all of it.
pub(crate) fn cut(before: &Scratch, now: &Scratch, size: u64) -> Scratch {
    let copy = before.killed();
    let mut bytes = std::fs::read(log_of(now)).unwrap();
    bytes[size as usize..].fill(0);
    std::fs::write(log_of(&copy), bytes).unwrap();
    copy
}

const CHILD_DIRECTORY: &str = "VORPAL_STORE_TEST_CHILD";
const ACKED_BEFORE_KILL: usize = 200;

#[test]
#[ignore = "not a test by itself: the process that the next test kills"]
fn child_that_writes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else {
        return;
    };
    let mut store = Embedded::open(Path::new(&directory)).unwrap();
    for number in 0.. {
        let name = format!("u{number}@a.example");
        let ops = [
            create(&name, 1),
            put(&name, RosterItem::new(jid("juliet@b.example"))),
        ];
        let mut replies = Vec::new();
        store.perform(&mut ops.into_iter(), &mut replies);
        assert_eq!(replies, [StoreReply::Done, StoreReply::Done]);
        println!("acked {number}");
        std::io::stdout().flush().unwrap();
    }
}

#[test]
fn no_answered_write_is_lost_to_sigkill() {
    let scratch = Scratch::new();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "crash::child_that_writes_until_it_is_killed",
            "--nocapture",
        ])
        .env(CHILD_DIRECTORY, &scratch.0)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acked = 0;
    while acked < ACKED_BEFORE_KILL {
        // The harness prints its own words before the first answer, on the same line.
        let line = lines.next().unwrap().unwrap();
        acked += usize::from(line.contains("acked "));
    }
    child.kill().unwrap();
    let more = lines
        .map_while(Result::ok)
        .filter(|line| line.contains("acked "))
        .count();
    child.wait().unwrap();

    let mut store = open(&scratch);
    for number in 0..acked + more {
        let items = roster(&mut store, &format!("u{number}@a.example"));
        assert_eq!(items.len(), 1, "u{number} was answered with its contact");
    }
    let count = crate::list(&mut store).unwrap().len();
    assert!(
        (acked + more..=acked + more + 1).contains(&count),
        "{count} accounts after {acked}"
    );
    // A write that was cut off is wholly there or wholly absent.
    for name in crate::list(&mut store).unwrap() {
        assert_eq!(
            roster(&mut store, name.as_str()).len(),
            1,
            "{name:?} is half written"
        );
    }
}

#[test]
fn a_garbage_record_fails_its_own_account_only() {
    let scratch = Scratch::new();
    let mut store = open(&scratch);
    for name in ["romeo@a.example", "juliet@a.example"] {
        one(&mut store, create(name, 1));
        one(&mut store, put(name, full_item("nurse@a.example")));
    }
    let (romeo, nurse) = (jid("romeo@a.example"), jid("nurse@a.example"));
    for garbage in [
        &b""[..],
        b"\x01",
        b"\x01garbage",
        b"\x63future record",
        &[0xff; 300],
    ] {
        store
            .engine()
            .unwrap()
            .put_raw_item(&romeo, &nurse, garbage);
        failure(one(&mut store, account("romeo@a.example")));
        store.engine().unwrap().put_raw_account(&romeo, garbage);
        failure(one(&mut store, credentials("romeo@a.example")));
    }
    assert_eq!(roster(&mut store, "juliet@a.example").len(), 1);
    let found = one(&mut store, credentials("juliet@a.example"));
    assert_eq!(found, StoreReply::Credentials(Some(keys(1))));

    // An operator can repair both: new keys, and the item put anew; or delete the account.
    let set = StoreOp::SetCredentials {
        account: romeo.clone(),
        credentials: keys(5),
        keeps: None,
    };
    assert_eq!(one(&mut store, set), StoreReply::Done);
    let found = one(&mut store, credentials("romeo@a.example"));
    assert_eq!(found, StoreReply::Credentials(Some(keys(5))));
    let deleted = one(&mut store, StoreOp::DeleteAccount { account: romeo });
    assert_eq!(deleted, StoreReply::Done);
    assert_eq!(
        one(&mut store, account("romeo@a.example")),
        StoreReply::Account(None)
    );
}

#[test]
fn a_failed_operation_leaves_the_others_of_its_call_alone() {
    let scratch = Scratch::new();
    let mut store = open(&scratch);
    one(&mut store, create("romeo@a.example", 1));
    store
        .engine()
        .unwrap()
        .put_raw_account(&jid("romeo@a.example"), b"\x01torn");
    let ops = [
        create("a@a.example", 1),
        credentials("romeo@a.example"),
        create("b@a.example", 2),
    ];
    let mut replies = Vec::new();
    store.perform(&mut ops.into_iter(), &mut replies);
    assert_eq!(
        [&replies[0], &replies[2]],
        [&StoreReply::Done, &StoreReply::Done]
    );
    failure(replies.remove(1));
    let found = one(&mut store, credentials("b@a.example"));
    assert_eq!(found, StoreReply::Credentials(Some(keys(2))));
}

#[test]
fn a_newer_schema_is_refused_with_both_numbers() {
    let scratch = Scratch::new();
    open(&scratch)
        .engine()
        .unwrap()
        .put_raw_schema(&(schema::SCHEMA + 1).to_be_bytes());
    let error = open_error(&scratch);
    assert!(matches!(error, OpenError::Newer(_)), "{error:?}");
    let text = error.to_string();
    let names_both = text.contains("schema 13") && text.contains("knows 12");
    assert!(names_both, "{text}");
    assert_eq!(text.matches(". ").count(), 0, "one sentence: {text}");
}

/// Octets written as hexadecimal digits.
pub(crate) fn octets(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

#[test]
fn a_store_of_schema_1_is_upgraded_and_keeps_what_it_has() {
    let scratch = Scratch::new();
    let (account, contact) = (jid("a@b.example"), jid("juliet@b.example"));
    {
        // What schema 1 wrote, which had no keyspace of kept things.
        let store = open(&scratch);
        let engine = store.engine().unwrap();
        engine.put_raw_account(&account, &octets(CREDENTIALS_1));
        engine.put_raw_item(&account, &contact, &octets(ITEM_1));
        engine.put_raw_schema(&1_u32.to_be_bytes());
    }
    let mut store = open(&scratch);
    let found = one(&mut store, credentials("a@b.example"));
    assert_eq!(found, StoreReply::Credentials(Some(keys(1))));
    let item = RosterItem {
        changed: 0,
        prior: 0,
        ..full_item("juliet@b.example")
    };
    assert_eq!(roster(&mut store, "a@b.example"), [item]);
    assert_eq!(
        one(&mut store, wait("a@b.example", "x", 1)),
        StoreReply::Done
    );
    drop(store);
    let mut again = open(&scratch);
    assert_eq!(waiting(&mut again, "a@b.example").len(), 1);
    // Nobody who knows only schema 1 opens it any more: it says so by its number.
    assert_eq!(
        again.engine().unwrap().raw_schema(),
        schema::SCHEMA.to_be_bytes()
    );
}

#[test]
fn a_store_of_schema_2_gets_room_for_sessions_and_keeps_what_it_has() {
    let scratch = Scratch::new();
    {
        let mut store = open(&scratch);
        one(&mut store, create("a@b.example", 1));
        one(&mut store, wait("a@b.example", "<message/>", 9));
        let engine = store.engine().unwrap();
        // Kept things have had the same records since schema 2.
        engine.drop_keyspaces(&["sessions", "queue"]);
        engine.put_raw_schema(&2_u32.to_be_bytes());
    }
    let mut store = open(&scratch);
    assert_eq!(
        one(&mut store, save("a@b.example", 1, "orchard")),
        StoreReply::Done
    );
    let claim = StoreOp::ClaimOffline {
        account: jid("a@b.example"),
        session: session("a@b.example", 1),
        place: 1,
        number: Some(1),
    };
    one(&mut store, claim);
    drop(store);
    let mut again = open(&scratch);
    let expected = [(1, 1, "<message/>".to_owned())];
    assert_eq!(queue(&mut again, "a@b.example", 1), expected);
    assert_eq!(waiting(&mut again, "a@b.example"), []);
}

#[test]
fn a_store_of_schema_3_keeps_what_waits_in_both_places() {
    let scratch = Scratch::new();
    let account = jid("a@b.example");
    {
        let mut store = open(&scratch);
        one(&mut store, create("a@b.example", 1));
        one(&mut store, save("a@b.example", 1, "orchard"));
        one(&mut store, wait("a@b.example", "<message id='1'/>", 9));
        one(&mut store, wait("a@b.example", "<message id='2'/>", 9));
        drop(store);
        // Opened again, all of it is in the engine; schema 3 had no log.
        let store = open(&scratch);
        let engine = store.engine().unwrap();
        engine.put_raw_count(&account, 2, 2, None);
        let record = [&[1, 0, 0, 0, 7][..], b"<message/>"].concat();
        engine.put_raw_queued(&account, 1, 1, &record);
        engine.put_raw_item(&account, &jid("juliet@b.example"), &octets(ITEM_1));
        engine.put_raw_schema(&3_u32.to_be_bytes());
    }
    crate::damage::without_log(&scratch);
    let mut store = open(&scratch);
    let expected = [(1, 7, "<message/>".to_owned())];
    assert_eq!(queue(&mut store, "a@b.example", 1), expected);
    assert_eq!(roster(&mut store, "a@b.example").len(), 1);
    // Two of seventeen bytes wait: so many more fit, and not one more.
    let put = |room: u64| StoreOp::PutOffline {
        account: account.clone(),
        arrived: ARRIVED,
        stanza: b"<message id='3'/>"[..].into(),
        quota: OfflineQuota {
            count: 9,
            size: room,
        },
        origin: None,
    };
    assert_eq!(one(&mut store, put(50)), StoreReply::Full);
    assert_eq!(one(&mut store, put(51)), StoreReply::Done);
    drop(store);
    assert_eq!(waiting(&mut open(&scratch), "a@b.example").len(), 3);
}

#[test]
fn a_store_of_schema_5_keeps_its_rosters_and_numbers_their_changes_from_then_on() {
    let scratch = Scratch::new();
    let account = jid("a@b.example");
    {
        let mut store = open(&scratch);
        one(&mut store, create("a@b.example", 1));
        let engine = store.engine().unwrap();
        engine.put_raw_item(&account, &jid("juliet@b.example"), &octets(ITEM_1));
        engine.put_raw_schema(&5_u32.to_be_bytes());
    }
    let mut store = open(&scratch);
    let old = roster(&mut store, "a@b.example");
    assert_eq!((old[0].changed, old[0].prior), (0, 0));
    one(
        &mut store,
        put("a@b.example", full_item("juliet@b.example")),
    );
    drop(store);
    let kept = roster(&mut open(&scratch), "a@b.example");
    assert_eq!(kept, [full_item("juliet@b.example")]);
}

#[test]
fn a_store_of_schema_4_keeps_what_waits_for_its_sessions() {
    let scratch = Scratch::new();
    {
        let mut store = open(&scratch);
        one(&mut store, create("a@b.example", 1));
        one(&mut store, save("a@b.example", 1, "orchard"));
        one(
            &mut store,
            enqueue("a@b.example", 1, 2, "<message id='2'/>"),
        );
        let engine = store.engine().unwrap();
        // What schema 4 wrote: version, number, stanza.
        let record = [&[1, 0, 0, 0, 7][..], b"<message/>"].concat();
        engine.put_raw_queued(&jid("a@b.example"), 1, 1, &record);
        engine.put_raw_schema(&4_u32.to_be_bytes());
    }
    let mut store = open(&scratch);
    let found = stored(&mut store, "a@b.example", 1).unwrap().queue;
    let found = found
        .iter()
        .map(|queued| (queued.place, queued.number, queued.arrived));
    let expected = [(1, Some(7), Timestamp(0)), (2, Some(2), ARRIVED)];
    assert_eq!(found.collect::<Vec<_>>(), expected);
    one(
        &mut store,
        renumber("a@b.example", 1, vec![(1, 8), (2, 9)], 2),
    );
    let queue = queue(&mut store, "a@b.example", 1);
    assert_eq!(queue[0], (1, 8, "<message/>".to_owned()));
    assert_eq!(queue[1], (2, 9, "<message id='2'/>".to_owned()));
}

/// Of how many groups it is noted that sessions left them.
fn groups_left_after(store: &mut Embedded, account: &str, op: StoreOp) -> usize {
    one(store, op);
    let engine = store.engine().unwrap();
    engine
        .count_left(&Staged::default(), &jid(account))
        .unwrap()
}

/// Whoever has left a group is remembered for as long as another queue has it.
#[test]
fn nothing_stays_of_what_sessions_shared_when_the_last_of_them_has_ended() {
    let scratch = Scratch::new();
    let mut store = open(&scratch);
    let account = "a@b.example";
    one(&mut store, create(account, 1));
    for secret in 1..=3 {
        one(&mut store, save(account, secret, "orchard"));
    }
    for place in 1..=5_000 {
        one(&mut store, share(account, &[1, 2, 3], place, "<message/>"));
    }
    let mut left = |op| groups_left_after(&mut store, account, op);
    assert_eq!(left(end(account, 1)), 5_000);
    // A client has the first thousand.
    assert_eq!(left(dequeue(account, 2, 1, 1_000)), 5_000);
    assert_eq!(left(end(account, 2)), 5_000);
    assert_eq!(left(end(account, 3)), 0);
    let ops = [4, 5].map(|secret| save(account, secret, "orchard"));
    store.perform(&mut ops.into_iter(), &mut Vec::new());
    one(&mut store, share(account, &[4, 5], 1, "<message/>"));
    one(&mut store, end(account, 4));
    one(&mut store, delete(account));
    store.snapshot().unwrap(); // By then it is done.
    assert_eq!(groups_left_after(&mut store, account, delete(account)), 0);
}

#[test]
fn what_a_session_leaves_waits_once_whatever_is_damaged_beside_it() {
    let (scratch, name) = (Scratch::new(), "a@b.example");
    let mut store = open(&scratch);
    one(&mut store, create(name, 1));
    one(&mut store, save(name, 1, "orchard"));
    one(&mut store, save(name, 2, "balcony"));
    one(&mut store, share(name, &[1, 2], 1, "<message/>"));
    drop(store);
    store = open(&scratch);
    (store.engine().unwrap()).put_raw_queued(&jid(name), 2, 2, b"\x63future record");
    let mut store = open(&scratch.killed());
    let leave = |secret| StoreOp::EndSession {
        account: jid(name),
        session: session(name, secret),
        waiting: vec![(ARRIVED, b"left"[..].into())],
        quota: OfflineQuota::UNLIMITED,
    };
    failure(one(&mut store, leave(2)));
    assert_eq!(waiting(&mut store, name), []);
    for _ in 0..2 {
        assert_eq!(one(&mut store, leave(1)), StoreReply::Done);
    }
    assert_eq!(waiting(&mut store, name), [(1, "left".to_owned())]);
}

#[test]
fn a_store_of_schema_7_keeps_what_waits_for_its_sessions() {
    let scratch = Scratch::new();
    {
        let mut store = open(&scratch);
        one(&mut store, create("a@b.example", 1));
        one(&mut store, save("a@b.example", 1, "orchard"));
        let engine = store.engine().unwrap();
        // What schema 7 wrote: version, number or none, time, stanza.
        for (place, version) in [(1, 2), (2, 3)] {
            let time = ARRIVED.0.to_be_bytes();
            let record = [&[version, 0, 0, 0, 7][..], &time, b"<message/>"].concat();
            engine.put_raw_queued(&jid("a@b.example"), 1, place, &record);
        }
        engine.put_raw_schema(&7_u32.to_be_bytes());
    }
    let mut store = open(&scratch);
    let found = stored(&mut store, "a@b.example", 1).unwrap().queue;
    let queued = |place, number| QueuedStanza {
        place,
        number,
        arrived: ARRIVED,
        has_waited: false,
        stanza: b"<message/>"[..].into(),
        shared: None,
    };
    assert_eq!(found, [queued(1, Some(7)), queued(2, None)]);
}

#[test]
fn a_commit_with_an_effect_and_its_mark_is_there_whole_or_not_at_all() {
    let scratch = Scratch::new();
    let mut store = open(&scratch);
    one(&mut store, create("a@b.example", 1));
    one(&mut store, save("a@b.example", 1, "orchard"));
    let (before, killed) = (written_size(&scratch), scratch.killed());
    let origin = Origin {
        session: session("a@b.example", 1),
        number: 1,
        hash: 7,
        is_late: false,
    };
    let StoreOp::Enqueue(mut sent) = enqueue("a@b.example", 1, 1, "<message/>") else {
        unreachable!("that is what it makes");
    };
    sent.origin = Some(origin);
    let op = StoreOp::Enqueue(sent);
    assert_eq!(one(&mut store, op), StoreReply::Done);
    let after = written_size(&scratch);
    assert!(after > before);
    for size in before..=after {
        let copy = cut(&killed, &scratch, size);
        let found = stored(&mut open(&copy), "a@b.example", 1).unwrap();
        let is_whole = size == after;
        let lengths = (found.queue.len(), found.marks.len());
        assert_eq!(lengths, (is_whole.into(), is_whole.into()), "{size}");
    }
}

#[test]
fn a_mark_keeps_what_failed_over_a_restart() {
    let scratch = Scratch::new();
    let mut store = open(&scratch);
    one(&mut store, create("a@b.example", 1));
    one(&mut store, save("a@b.example", 1, "orchard"));
    let marked = |number| {
        StoreOp::Enqueue(Enqueue {
            account: jid("a@b.example"),
            copies: Vec::new(),
            stanza: b"<message/>"[..].into(),
            carbons: Vec::new(),
            shared: None,
            arrived: ARRIVED,
            origin: Some(Origin {
                session: session("a@b.example", 1),
                number,
                hash: 10 * number,
                is_late: false,
            }),
        })
    };
    store.note_failure(&marked(3));
    one(&mut store, marked(4));
    drop(store);
    let marks = stored(&mut open(&scratch), "a@b.example", 1).unwrap().marks;
    assert_eq!((marks[0].last, marks[0].hash), (4, 40));
    assert_eq!(marks[0].failed, [3]);
}

#[test]
fn what_no_key_can_be_is_left_out_of_a_log_that_has_it() {
    let scratch = Scratch::new();
    let mut store = open(&scratch);
    one(&mut store, create("a@b.example", 1));
    for table in Table::ALL {
        let engine = store.engine().unwrap();
        engine.put_raw_logged(table, &[7; KEY_SIZE_MAX + 1], b"x");
        engine.put_raw_logged(table, b"", b"x");
    }
    one(&mut store, wait("a@b.example", "behind", 9));
    for mut reopened in [open(&scratch.killed()), open(&scratch.killed())] {
        assert_eq!(waiting(&mut reopened, "a@b.example").len(), 1);
        assert!(reopened.snapshot().is_ok());
    }
}

#[test]
fn what_no_key_can_be_does_not_reach_the_log() {
    let scratch = Scratch::new();
    let mut store = open(&scratch);
    one(&mut store, create("a@b.example", 1));
    let engine = store.engine().unwrap();
    let before = written_size(&scratch);
    for table in Table::ALL {
        let mut staged = Staged::default();
        let key = vec![7; KEY_SIZE_MAX + 1].into();
        staged.of_mut(table).insert(key, Some(b"x".to_vec()));
        assert!(engine.commit(staged).is_err());
    }
    assert_eq!(written_size(&scratch), before);
}

/// The record of [`keys`] of 1, by the build that had schema 1.
const CREDENTIALS_1: &str = "\
    01010101010101010101010101010101010101010101010101010101010101010101010101fefefefefefefefe \
    fefefefefefefefefefefefe010101010101010101010101010101010101010101010101010101010101010101 \
    010101010101010101010101010101fefefefefefefefefefefefefefefefefefefefefefefefefefefefefefe \
    fefe01010101010101010101010101010101010101010101010101010101010101010101010101010101010101 \
    01010101010101010101010101010101010101010101010101010101010101010101010101fefefefefefefefe \
    fefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefe \
    fefefefefefefefefefefe01e7feffff1000000001100000ebfeffff14000000f7feffff140000000102ffffff \
    100000000110000006ffffff200000001effffff200000000135ffffff100000000110000039ffffff40000000 \
    71ffffff40000000";

/// The record of [`full_item`], by the same.
const ITEM_1: &str = "\
    014e7572736520f09fa49653657276616e7473436170756c6574202620736f6e73eaffffff08000000eaffffff \
    0e0000003c70726573656e636520747970653d27737562736372696265272f3eb4ffffff0a000000ccffffff02 \
    000000030701d1ffffff1c000000";

#[test]
fn a_damaged_schema_number_is_refused() {
    let scratch = Scratch::new();
    open(&scratch).engine().unwrap().put_raw_schema(b"?");
    let error = open_error(&scratch);
    assert!(error.to_string().contains("damaged"), "{error}");
}

#[test]
fn a_store_in_use_is_refused_in_one_sentence() {
    let scratch = Scratch::new();
    let _held = open(&scratch);
    let error = open_error(&scratch);
    assert!(matches!(error, OpenError::Locked(_)), "{error:?}");
    assert!(error.to_string().contains("in use"), "{error}");
}

#[test]
fn bulk_loading_creates_what_is_new_and_survives_a_kill() {
    let scratch = Scratch::new();
    let mut store = open(&scratch);
    one(&mut store, create("u3@a.example", 9));
    let account = |number: u32| {
        let contact = RosterItem::new(jid(&format!("u{}@a.example", number ^ 1)));
        let mut whole = WholeAccount::new(jid(&format!("u{number}@a.example")), *keys(1));
        whole.data.roster = vec![contact];
        whole
    };
    // The last one comes twice.
    let accounts = (0..20_000)
        .map(account)
        .chain(std::iter::once(account(19_999)));
    let mut existed = Vec::new();
    let loaded = store
        .bulk_load(accounts, |account| existed.push(account.clone()))
        .unwrap();
    assert_eq!(existed, [jid("u3@a.example"), jid("u19999@a.example")]);
    assert_eq!((loaded.created, loaded.existed), (19_999, 2));

    let mut reopened = open(&scratch.killed());
    assert_eq!(crate::list(&mut reopened).unwrap().len(), 20_000);
    for number in [0, 1, 4, 12_345, 19_999] {
        let items = roster(&mut reopened, &format!("u{number}@a.example"));
        assert_eq!(items[0].contact, jid(&format!("u{}@a.example", number ^ 1)));
    }
    let untouched = one(&mut reopened, credentials("u3@a.example"));
    assert_eq!(untouched, StoreReply::Credentials(Some(keys(9))));
    assert_eq!(roster(&mut reopened, "u3@a.example"), []);
}
