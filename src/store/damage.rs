//! What a damaged store says: a copy of one is damaged in one place, and in another, and so on; an
//! opening of it either refuses, and leaves it as it was, or has everything.

use std::path::{Path, PathBuf};

use xmpp::port::{Store, StoreOp, StoreReply};
use xxhash_rust::xxh3::xxh3_64;

use crate::Embedded;
use crate::backup::Backup;
use crate::conformance::sessions::{enqueue, save, session};
use crate::conformance::{account, create, credentials, full_item, jid, one, put, wait};
use crate::crash::{Scratch, copy_tree};
use crate::embedded::DIRECTORY;

const ACCOUNTS: usize = 24;
/// Places of a file.
const PLACES: usize = 40;

fn name(number: usize) -> String {
    format!("u{number}@a.example")
}

/// Makes the accounts with these numbers, each with something of every kind.
fn fill(store: &mut Embedded, numbers: std::ops::Range<usize>) {
    for name in numbers.map(name) {
        let ops = [
            create(&name, 1),
            put(&name, full_item("juliet@b.example")),
            wait(&name, "<message id='1'/>", 9),
            save(&name, 1, "orchard"),
            enqueue(&name, 1, 1, "<message id='2'/>"),
        ];
        for op in ops {
            assert_eq!(one(store, op), StoreReply::Done);
        }
    }
}

fn everything(store: &mut Embedded) -> Vec<StoreReply> {
    let ops = (0..ACCOUNTS).map(name).flat_map(|name| {
        let owner = jid(&name);
        let of_session = StoreOp::Session {
            account: owner.clone(),
            session: session(&name, 1),
        };
        let offline = StoreOp::Offline { account: owner };
        [credentials(&name), account(&name), offline, of_session]
    });
    let mut replies = Vec::new();
    store.perform(&mut ops.collect::<Vec<_>>().into_iter(), &mut replies);
    replies
}

/// A store that was opened several times and closed, or killed, and what it has.
struct Whole {
    scratch: Scratch,
    replies: Vec<StoreReply>,
    /// The file of the log that the last commit went to, and where the one before it ended.
    last: (u64, u64),
}

fn whole(is_killed: bool) -> Whole {
    let scratch = Scratch::new();
    // The second opening has journals that end where what is written does.
    for part in 0..2 {
        let mut store = Embedded::open(&scratch.0).unwrap();
        fill(&mut store, part * ACCOUNTS / 3..(part + 1) * ACCOUNTS / 3);
    }
    let mut store = Embedded::open(&scratch.0).unwrap();
    fill(&mut store, 2 * ACCOUNTS / 3..ACCOUNTS);
    let last = store.engine().unwrap().logged.borrow().end();
    one(&mut store, put(&name(0), full_item("nurse@b.example")));
    let replies = everything(&mut store);
    let scratch = match is_killed {
        true => scratch.killed(),
        false => {
            drop(store);
            scratch
        }
    };
    Whole {
        scratch,
        replies,
        last,
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

fn used(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1)
}

/// Opens what is damaged: `None` if it is refused, in one sentence and with nothing touched.
fn found(damaged: &Scratch, file: &Path) -> Option<Vec<StoreReply>> {
    let before = std::fs::read(file).ok();
    match Embedded::open(&damaged.0) {
        Ok(mut store) => Some(everything(&mut store)),
        Err(error) => {
            let told = error.to_string();
            assert!(told.contains("vorpal restore"), "{told}");
            assert!(told.ends_with('.') && !told.contains('\n'), "{told}");
            for word in ["Error", "{", "Invalid", "Some("] {
                assert!(!told.contains(word), "{told}");
            }
            assert!(std::fs::read(file).ok() == before, "{told}");
            None
        }
    }
}

/// Damages what `is_meant` in each of many places, and gives how often that was refused.
fn damage_each(whole: &Whole, is_meant: impl Fn(&str) -> bool) -> usize {
    let store = whole.scratch.0.join(DIRECTORY);
    let mut refused = 0;
    for path in files(&store) {
        let relative = path.strip_prefix(&store).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let size = used(&bytes);
        if !is_meant(relative.to_str().unwrap()) || size == 0 {
            continue;
        }
        let is_last = relative
            .file_name()
            .is_some_and(|name| *name == *format!("{:016x}", whole.last.0));
        let step = size.div_ceil(if size < 400 { PLACES / 4 } else { PLACES });
        for place in (0..size).step_by(step).chain([size - 1]) {
            for is_cut in [false, true] {
                let copy = Scratch::new();
                copy_tree(&whole.scratch.0, &copy.0);
                let target = copy.0.join(DIRECTORY).join(relative);
                let mut damaged = bytes.clone();
                match is_cut {
                    true => damaged.truncate(place),
                    false => damaged[place] ^= 1 << (place % 8),
                }
                std::fs::write(&target, damaged).unwrap();
                let what = format!("{} at {place} of {size}: {is_cut}", relative.display());
                match found(&copy, &target) {
                    None => refused += 1,
                    // Of a store that was killed the last commit may be torn.
                    Some(_) if is_last && place as u64 >= whole.last.1 => {}
                    Some(replies) => assert!(replies == whole.replies, "{what}"),
                }
            }
        }
    }
    refused
}

#[test]
fn a_damaged_journal_is_refused_or_the_log_has_what_it_lacks() {
    for is_killed in [false, true] {
        let refused = damage_each(&whole(is_killed), |name| name.ends_with(".jnl"));
        assert!(refused > PLACES / 4, "{refused}");
    }
}

#[test]
fn a_damaged_log_is_refused_but_for_its_last_commit_after_a_kill() {
    for is_killed in [false, true] {
        let mut whole = whole(is_killed);
        if !is_killed {
            // Where it ends is noted.
            whole.last.1 = u64::MAX;
        }
        let refused = damage_each(&whole, |name| name.starts_with("log/"));
        assert!(refused > PLACES, "{refused}");
    }
}

#[test]
fn any_other_damaged_file_is_refused_in_words_or_does_no_harm() {
    let whole = whole(false);
    let refused = damage_each(&whole, |name| {
        !name.starts_with("log/") && !name.ends_with(".jnl")
    });
    assert!(refused > PLACES, "{refused}");
}

#[test]
fn a_file_that_is_gone_is_missed_or_was_not_needed() {
    for is_killed in [false, true] {
        let whole = whole(is_killed);
        let store = whole.scratch.0.join(DIRECTORY);
        let mut refused = 0;
        for path in files(&store) {
            let relative = path.strip_prefix(&store).unwrap();
            let copy = Scratch::new();
            copy_tree(&whole.scratch.0, &copy.0);
            let target = copy.0.join(DIRECTORY).join(relative);
            std::fs::remove_file(&target).unwrap();
            match found(&copy, &target) {
                None => refused += 1,
                Some(replies) => assert!(replies == whole.replies, "{}", relative.display()),
            }
        }
        // Its list and its tables, for each of the engine's trees, and more.
        assert!(refused > TREES, "{refused}");
    }
}

/// The accounts, rosters, what waits, sessions, queues, archives, what the store is, and the
/// engine's own.
const TREES: usize = 8;

#[test]
fn a_tree_that_is_gone_is_missed_before_the_engine_makes_another() {
    let whole = whole(false);
    let trees = Path::new(DIRECTORY).join("keyspaces");
    let mut count = 0;
    for entry in std::fs::read_dir(whole.scratch.0.join(&trees)).unwrap() {
        let name = entry.unwrap().file_name();
        let copy = Scratch::new();
        copy_tree(&whole.scratch.0, &copy.0);
        let before = files(&copy.0.join(&trees)).len();
        let tree = copy.0.join(&trees).join(name);
        let gone = files(&tree).len();
        std::fs::remove_dir_all(&tree).unwrap();
        assert!(found(&copy, &tree).is_none());
        assert_eq!(files(&copy.0.join(&trees)).len(), before - gone);
        count += 1;
    }
    assert_eq!(count, TREES);
}

#[test]
fn a_store_without_a_seal_opens_and_has_one_from_then_on() {
    let whole = whole(true);
    let path = whole.scratch.0.join(DIRECTORY).join("seal");
    std::fs::remove_file(&path).unwrap();
    // One that was cut off while it was made is nobody's.
    std::fs::write(path.with_extension("new"), "seal").unwrap();
    let mut store = Embedded::open(&whole.scratch.0).unwrap();
    assert!(everything(&mut store) == whole.replies);
    assert!(path.exists());
}

/// The first seals did not have the number of trees, which stands behind three others.
#[test]
fn a_seal_of_the_first_kind_opens_and_has_the_trees_from_then_on() {
    for is_killed in [false, true] {
        let whole = whole(is_killed);
        let path = whole.scratch.0.join(DIRECTORY).join("seal");
        let now = std::fs::read(&path).unwrap();
        let mut first = [&now[..24], &now[32..48]].concat();
        first.extend(xxh3_64(&first).to_be_bytes());
        std::fs::write(&path, &first).unwrap();
        let mut store = Embedded::open(&whole.scratch.0).unwrap();
        assert!(everything(&mut store) == whole.replies);
        drop(store);
        let then = std::fs::read(&path).unwrap();
        assert_eq!(then.len(), now.len());
        assert_eq!(then[24..32], now[24..32], "the number of trees");
        first[8] ^= 1;
        std::fs::write(&path, &first).unwrap();
        assert!(found(&whole.scratch, &path).is_none());
    }
}

#[test]
fn a_seal_that_cannot_be_written_leaves_the_store_whole() {
    let whole = whole(false);
    let mut store = Embedded::open(&whole.scratch.0).unwrap();
    // Nothing can be written to that name, and nothing put in its place.
    let new = whole.scratch.0.join(DIRECTORY).join("seal.new");
    std::fs::create_dir(&new).unwrap();
    let before = std::fs::read(new.with_extension("")).unwrap();
    for number in 0..4 {
        let item = full_item(&format!("nurse{number}@b.example"));
        assert_eq!(one(&mut store, put(&name(0), item)), StoreReply::Done);
        // The log goes on to another file, and gives the one before up.
        store.engine().unwrap().checkpoint().unwrap();
    }
    let replies = everything(&mut store);
    assert_eq!(std::fs::read(new.with_extension("")).unwrap(), before);
    let killed = whole.scratch.killed();
    for _ in 0..2 {
        let mut again = Embedded::open(&killed.0).unwrap();
        assert!(everything(&mut again) == replies);
    }
}

#[test]
fn a_seal_that_was_not_finished_does_not_count() {
    let whole = whole(true);
    let (mut store, copy) = (Embedded::open(&whole.scratch.0).unwrap(), Scratch::new());
    let seal = |scratch: &Scratch| scratch.0.join(DIRECTORY).join("seal");
    let before = std::fs::read(seal(&whole.scratch)).unwrap();
    store.engine().unwrap().sync().unwrap();
    copy_tree(&whole.scratch.0, &copy.0);
    // The engine has the number of a seal that the process did not live to write.
    std::fs::write(seal(&copy), before).unwrap();
    for _ in 0..2 {
        let mut again = Embedded::open(&copy.0).unwrap();
        assert!(everything(&mut again) == everything(&mut store));
    }
}

#[test]
fn a_restored_store_is_sealed_where_it_then_lies() {
    let (from, to) = (whole(false), Scratch::new());
    let mut store = Embedded::open(&from.scratch.0).unwrap();
    let file = from.scratch.0.join("backup");
    store.snapshot().unwrap().save(&file, &mut |_| {}).unwrap();
    Backup::open(&file).unwrap().restore(&to.0).unwrap();
    let journal = |scratch: &Scratch| {
        let mut files = files(&scratch.0.join(DIRECTORY)).into_iter();
        files.find(|path| path.extension().is_some_and(|end| end == "jnl"))
    };
    let killed = to.killed();
    assert_eq!(
        crate::list(&mut Embedded::open(&killed.0).unwrap())
            .unwrap()
            .len(),
        ACCOUNTS
    );
    let path = journal(&to).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[used(&std::fs::read(&path).unwrap()) / 2] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(found(&to, &path).is_none());
}

/// Makes a store as one of before there was a log.
pub(crate) fn without_log(scratch: &Scratch) {
    let path = scratch.0.join(DIRECTORY);
    let database = fjall::Database::builder(&path).open().unwrap();
    let about = database.keyspace("about", Default::default).unwrap();
    about.remove(b"log").unwrap();
    database.persist(fjall::PersistMode::SyncAll).unwrap();
    std::fs::remove_dir_all(path.join("log")).unwrap();
    std::fs::remove_file(path.join("seal")).unwrap();
}
