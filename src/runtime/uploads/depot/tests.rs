//! What there is room for, for how long a slot is good, and what is left behind.

use super::*;
use std::time::Duration;

const NOW_S: u64 = 1_800_000_000;

/// A depot in a directory of its own, which goes with it.
struct Scene {
    directory: PathBuf,
    depot: Depot,
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _it_was_ours = fs::remove_dir_all(&self.directory);
    }
}

fn config(name: &str) -> UploadConfig {
    let process = std::process::id();
    UploadConfig {
        directory: std::env::temp_dir().join(format!("vorpal-depot-{process}-{name}")),
        url: "https://a.b".into(),
        size_max: 1 << 20,
        quota: 4 << 20,
        daily: 1 << 30,
        lifetime: Some(Duration::from_secs(DAY_S)),
        durable: true,
    }
}

fn keys() -> Arc<Keys> {
    Arc::new(Keys::new(&[1; 32]))
}

fn scene(name: &str) -> Scene {
    let config = config(name);
    Scene {
        directory: config.directory.clone(),
        depot: Depot::open(config, keys()).expect("a directory can be made"),
    }
}

fn account() -> BareJid {
    BareJid::from_prepared("a@b.c")
}

impl Scene {
    fn ask(&mut self, size: u64, now_s: u64) -> SlotAnswer {
        let request = SlotRequest {
            account: account(),
            name: "a b".into(),
            content_type: "image/png".into(),
            size,
        };
        self.depot.grant(&request, Timestamp(now_s * 1_000_000))
    }

    /// The file that a slot is for.
    fn grant(&mut self, size: u64, now_s: u64) -> Put {
        let SlotAnswer::Granted(slot) = self.ask(size, now_s) else {
            panic!("there is room");
        };
        let rest = slot.put.strip_prefix("https://a.b/upload/").expect("ours");
        let (address, name) = rest.split_once('/').expect("a name");
        assert_eq!((name, &slot.get), ("a%20b", &slot.put));
        let file = keys().file(address).expect("ours");
        let token = slot.authorization.strip_prefix("Bearer ").expect("a token");
        let permit = keys().permit(&file, "a b", token.as_bytes());
        let permit = permit.expect("ours");
        assert_eq!((permit.size, &*permit.content_type), (size, "image/png"));
        Put {
            file,
            name: "a b".into(),
            content_type: permit.content_type,
            size,
            until_s: permit.until_s,
        }
    }

    /// Has a file be there, as the keeper does.
    fn keep(&mut self, put: &Put, now_s: u64) {
        assert_eq!(self.depot.begin(put, now_s), Ok(()));
        let label = Label {
            name: put.name.clone(),
            content_type: put.content_type.clone(),
        };
        let mut bytes = label.block();
        bytes.resize(LABEL_SIZE + put.size as usize, 7);
        fs::write(self.depot.place(&put.file), bytes).expect("it is ours");
        self.depot.end(put, true, now_s);
    }

    /// Has what is old be gone, as the keeper does.
    fn expire(&mut self, user: &User, now_s: u64) {
        let removal = self.depot.removal_of_old(user, now_s);
        let freed = removal.map_or(0, |remove| remove());
        self.depot.forget(user, freed, now_s);
    }

    fn size(&self) -> u64 {
        self.depot.users.values().map(|usage| usage.size).sum()
    }
}

#[test]
fn a_label_is_a_block_and_read_back_however_long_its_names_are() {
    let label = Label {
        name: "\"".repeat(255).into(),
        content_type: "\\".repeat(127).into(),
    };
    let block = label.block();
    assert_eq!(
        (block.len(), Label::read(&block)),
        (LABEL_SIZE, Some(label))
    );
    assert_eq!(Label::read(&block[..LABEL_SIZE - 1]), None);
    assert_eq!(Label::read(&[0; LABEL_SIZE]), None);
}

#[test]
fn a_slot_is_good_for_one_file_and_for_its_time() {
    let mut scene = scene("slot");
    let put = scene.grant(10, NOW_S);
    assert_eq!(put.until_s, NOW_S + SLOT_LIFETIME.as_secs());
    assert_eq!(scene.depot.begin(&put, put.until_s + 1), Err(Refusal::Over));
    assert_eq!(scene.depot.begin(&put, put.until_s), Ok(()));
    assert_eq!(scene.depot.begin(&put, NOW_S), Err(Refusal::There), "twice");
    scene.depot.end(&put, false, NOW_S);
    scene.keep(&put, NOW_S);
    assert_eq!(scene.depot.begin(&put, NOW_S), Err(Refusal::There));
    let other = scene.grant(10, NOW_S);
    let _gone = scene.depot.take_away(&account()).expect("there was a file");
    assert_eq!(scene.depot.begin(&other, NOW_S), Err(Refusal::Over));
    // Whoever has the name next has nothing to do with it.
    scene.grant(10, NOW_S);
    assert_eq!(scene.depot.begin(&other, NOW_S), Err(Refusal::Over));
}

#[test]
fn a_slot_of_before_a_start_is_good_after_it_unless_its_account_is_another() {
    let mut scene = scene("before");
    let put = scene.grant(10, NOW_S);
    let config = config("before");
    scene.depot._claim.unlock().expect("it is ours");
    scene.depot = Depot::open(config, keys()).expect("it is ours");
    scene.depot.opened_s = NOW_S + 1;
    scene
        .depot
        .users
        .get_mut(&put.file.user)
        .expect("it is there")
        .since_s = NOW_S + 1;
    assert_eq!(scene.depot.begin(&put, NOW_S + 2), Err(Refusal::Over));
    scene
        .depot
        .users
        .get_mut(&put.file.user)
        .expect("it is there")
        .since_s = NOW_S;
    assert_eq!(scene.depot.begin(&put, NOW_S + 2), Ok(()));
}

#[test]
fn so_many_files_of_one_account_come_at_once_and_end_with_it() {
    let mut scene = scene("coming");
    let puts: Vec<Put> = (0..=COMING_PER_USER_MAX)
        .map(|_| scene.grant(1, NOW_S))
        .collect();
    for put in &puts[1..] {
        assert_eq!(scene.depot.begin(put, NOW_S), Ok(()));
    }
    assert_eq!(scene.depot.begin(&puts[0], NOW_S), Err(Refusal::Busy));
    scene.depot.end(&puts[1], false, NOW_S);
    assert_eq!(scene.depot.begin(&puts[0], NOW_S), Ok(()));
    assert!(scene.depot.is_coming(&puts[0].file));
    let _gone = scene.depot.take_away(&account());
    scene.grant(1, NOW_S);
    assert!(!scene.depot.is_coming(&puts[0].file));
}

#[test]
fn a_time_is_told_only_where_there_is_one() {
    let mut scene = scene("retry");
    scene.depot.config.daily = 3 << 20;
    for _ in 0..2 {
        let put = scene.grant(1 << 20, NOW_S);
        assert_eq!(scene.depot.begin(&put, NOW_S), Ok(()));
    }
    // Those that come are over when they are there.
    assert_eq!(scene.ask(1 << 20, NOW_S), SlotAnswer::Full(None));
    scene.grant(1 << 10, NOW_S);
    let retry = Timestamp((NOW_S + SLOT_LIFETIME.as_secs() + 1) * 1_000_000);
    assert_eq!(scene.ask(1 << 20, NOW_S), SlotAnswer::Full(Some(retry)));
    let usage = scene.depot.users.values_mut().next().expect("there is one");
    usage.day.1 = 3 << 20;
    let midnight = Timestamp((NOW_S / DAY_S + 1) * DAY_S * 1_000_000);
    assert_eq!(scene.ask(1, NOW_S), SlotAnswer::Full(Some(midnight)));
}

#[test]
fn slots_that_are_open_take_room_until_they_are_over() {
    let mut scene = scene("room");
    for _ in 0..3 {
        scene.grant(1 << 20, NOW_S);
    }
    assert_eq!(scene.ask(1 << 20, NOW_S), SlotAnswer::Full(None));
    let later_s = NOW_S + SLOT_LIFETIME.as_secs() + 1;
    scene.grant(1 << 20, later_s);
    // So many may be open at once, however small.
    for _ in 1..SLOTS_PER_USER_MAX {
        scene.grant(1, later_s);
    }
    let retry = Timestamp((later_s + SLOT_LIFETIME.as_secs() + 1) * 1_000_000);
    assert_eq!(scene.ask(1, later_s), SlotAnswer::Full(Some(retry)));
    scene.grant(1, later_s + SLOT_LIFETIME.as_secs() + 1);
}

#[test]
fn what_is_there_is_counted_at_the_next_start_and_what_came_partly_is_gone() {
    let mut scene = scene("start");
    let put = scene.grant(100, NOW_S);
    scene.keep(&put, NOW_S);
    assert_eq!(scene.size(), 100 + LABEL_SIZE as u64);
    fs::write(scene.depot.partial(&put.file), "abc").expect("it is ours");
    let config = config("start");
    scene.depot._claim.unlock().expect("it is ours");
    scene.depot = Depot::open(config, keys()).expect("it is ours");
    assert_eq!(scene.size(), 100 + LABEL_SIZE as u64);
    assert!(!scene.depot.partial(&put.file).exists());
    assert!(scene.depot.place(&put.file).exists());
}

#[test]
fn what_has_outlived_its_time_goes_and_then_its_directory() {
    let mut scene = scene("expiry");
    let now_s = seconds(SystemTime::now());
    let put = scene.grant(100, now_s);
    scene.keep(&put, now_s);
    let user = put.file.user;
    scene.expire(&user, now_s + DAY_S - 60);
    assert!(scene.depot.place(&put.file).exists());
    scene.expire(&user, now_s + 2 * DAY_S);
    assert!(!scene.depot.directory(&user).exists());
    assert_eq!((scene.size(), scene.depot.users().len()), (0, 0));
    // The next file has a place again.
    let put = scene.grant(100, now_s);
    scene.keep(&put, now_s);
}

#[test]
fn so_many_transfers_go_on_at_once() {
    let mut scene = scene("transfers");
    // Every other address of a network is another client's.
    let peer = |network: u16, host: u16| IpAddr::from([0x2001, 0xdb8, 0, network, 0, 0, 0, host]);
    let each = TRANSFERS_PER_ADDRESS_MAX as u16;
    for network in 0..TRANSFERS_MAX as u16 / each {
        assert!((0..each).all(|host| scene.depot.enter(peer(network, host), false)));
        assert!(!scene.depot.enter(peer(network, each), true), "one network");
    }
    assert!(!scene.depot.enter(peer(99, 0), false), "all");
    assert!(
        scene.depot.enter(peer(99, 0), true),
        "files that come have their own"
    );
    scene.depot.leave(peer(0, 0), false);
    assert!(scene.depot.enter(peer(99, 0), false));
}

#[test]
fn a_directory_is_used_by_one_and_only_if_it_was_made_for_files() {
    let scene = scene("claim");
    let taken = Depot::open(config("claim"), keys())
        .err()
        .expect("it is used");
    assert_eq!(taken.to_string(), "another server uses it");
    let foreign = config("foreign");
    fs::create_dir_all(foreign.directory.join(PARTIAL)).expect("it can be made");
    let refused = Depot::open(foreign.clone(), keys())
        .err()
        .expect("it is another's");
    assert!(refused.to_string().contains("not empty"), "{refused}");
    assert!(
        foreign.directory.join(PARTIAL).exists(),
        "nothing of it goes"
    );
    fs::remove_dir_all(&foreign.directory).expect("it is ours");
    drop(scene);
}

#[test]
fn an_entry_that_cannot_be_read_stops_nobody() {
    let mut scene = scene("stray");
    let put = scene.grant(100, NOW_S);
    scene.keep(&put, NOW_S);
    let stray = scene.directory.join(FILES).join("0".repeat(32));
    fs::write(stray, "no directory").expect("it is ours");
    scene.depot._claim.unlock().expect("it is ours");
    scene.depot = Depot::open(config("stray"), keys()).expect("it is ours");
    assert_eq!(scene.size(), 100 + LABEL_SIZE as u64);
}
