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
    scene.depot.expire(&user, now_s + DAY_S - 60);
    assert!(scene.depot.place(&put.file).exists());
    scene.depot.expire(&user, now_s + 2 * DAY_S);
    assert!(!scene.depot.directory(&user).exists());
    assert_eq!((scene.size(), scene.depot.users().len()), (0, 0));
    // The next file has a place again.
    let put = scene.grant(100, now_s);
    scene.keep(&put, now_s);
}

#[test]
fn so_many_transfers_go_on_at_once() {
    let mut scene = scene("transfers");
    let peer = |number: u8| IpAddr::from([192, 0, 2, number]);
    let each = TRANSFERS_PER_ADDRESS_MAX;
    for number in 0..(TRANSFERS_MAX / each as usize) as u8 {
        assert!((0..each).all(|_| scene.depot.enter(peer(number))));
        assert!(!scene.depot.enter(peer(number)), "one address");
    }
    assert!(!scene.depot.enter(peer(99)), "all");
    scene.depot.leave(peer(0));
    assert!(scene.depot.enter(peer(99)));
}
