//! Files (XEP-0363) over real sockets: how they come and go, and what does not.

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use support::files::{Response, Slot, ask_slot, put, put_head, request, response, slot};
use support::server::free_port;
use support::web::{connect, connect_tls};
use support::{Client, DOMAIN, Element, Options, STANZA_ERRORS, Server};

const UPLOAD: &str = "urn:xmpp:http:upload:0";
/// How long what is done behind a client's back may take; it measures nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that takes files, with its ports for the web.
struct Site {
    server: Server,
    http: u16,
    https: u16,
}

impl Site {
    /// One with these lines of `[upload]`.
    fn start(upload: &str) -> Site {
        Site::start_with(upload, &Options::default())
    }

    fn start_with(upload: &str, options: &Options<'_>) -> Site {
        let (http, https) = (free_port(), free_port());
        let listen = format!("http = \"127.0.0.1:{http}\"\nhttps = \"127.0.0.1:{https}\"");
        let more = format!("[upload]\nenabled = true\n{upload}\n{}", options.more);
        let server = Server::start(&Options {
            listen: &listen,
            more: &more,
            ..*options
        });
        Site {
            server,
            http,
            https,
        }
    }

    fn url(&self) -> String {
        format!("https://{DOMAIN}:{}", self.https)
    }

    fn wire(&self) -> TcpStream {
        connect(self.http)
    }

    fn slot(&self, client: &mut Client, name: &str, size: usize, kind: &str) -> Slot {
        slot(client, &self.url(), name, size as u64, kind)
    }

    /// Puts a file of a user, and gives where it is.
    fn put(&self, client: &mut Client, name: &str, file: &[u8], kind: &str) -> Slot {
        let slot = self.slot(client, name, file.len(), kind);
        let answer = put(self.wire(), &slot, file);
        assert_eq!(answer.status, 201, "{answer:?}");
        slot
    }

    fn get(&self, slot: &Slot, more: &str) -> Response {
        request(self.wire(), "GET", &slot.path, more)
    }

    fn directory(&self) -> PathBuf {
        self.server.directory().join("data/uploads")
    }

    /// How many files are on their way in.
    fn partial(&self) -> usize {
        let entries = fs::read_dir(self.directory().join("partial"));
        entries.expect("it is there").count()
    }
}

/// Bytes of which none is where another one was.
fn bytes(size: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..size).map(|_| next()).collect()
}

/// Waits until something is so.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        sleep(Duration::from_millis(10));
    }
}

/// The condition of an error, and what stands beside it.
fn refusal(answer: &Element) -> (String, Element) {
    let condition = answer.condition(STANZA_ERRORS).unwrap_or_default();
    let error = answer.child("error").expect("an error");
    (condition.to_owned(), error.clone())
}

#[test]
fn what_is_put_is_there_for_everybody_and_after_a_restart() {
    // Whichever shard gets a connection, and wherever files are kept.
    let mut site = Site::start_with(
        "directory = \"elsewhere\"",
        &Options {
            shards: 3,
            ..Options::default()
        },
    );
    let mut client = Client::log_in(&site.server, "u0", "phone");
    let file = bytes(200_000);
    let slot = site.slot(&mut client, "très cool.jpg", file.len(), "image/jpeg");
    assert!(slot.path.ends_with("/tr%C3%A8s%20cool.jpg"), "{slot:?}");
    assert_eq!(site.get(&slot, "").status, 404);
    let answer = put(connect_tls(&site.server, site.https), &slot, &file);
    assert_eq!(answer.status, 201, "{answer:?}");
    for round in 0..20 {
        let answer = site.get(&slot, "");
        assert_eq!((answer.status, &answer.body), (200, &file), "{round}");
        for (name, value) in [
            ("Content-Type", "image/jpeg"),
            ("Content-Length", "200000"),
            ("Content-Disposition", "inline"),
            ("X-Content-Type-Options", "nosniff"),
            ("Access-Control-Allow-Origin", "*"),
            ("Accept-Ranges", "bytes"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{answer:?}");
        }
        let policy = answer.header("Content-Security-Policy").unwrap_or_default();
        assert!(policy.contains("default-src 'none'") && policy.contains("sandbox"));
        let tls = request(connect_tls(&site.server, site.https), "GET", &slot.path, "");
        assert_eq!(tls.body, file);
        if round == 10 {
            site.server.restart();
        }
    }
}

#[test]
fn a_head_and_parts_of_a_file_may_be_asked_for() {
    let site = Site::start("");
    let mut client = Client::log_in(&site.server, "u0", "phone");
    let file = bytes(150_000);
    let slot = site.put(&mut client, "a.html", &file, "text/html");
    let head = request(site.wire(), "HEAD", &slot.path, "");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("Content-Length"), Some("150000"));
    // A browser would run it.
    assert_eq!(head.header("Content-Disposition"), Some("attachment"));
    let tag = head.header("ETag").expect("one").to_owned();
    let part = |range: &str| site.get(&slot, &format!("Range: bytes={range}\r\n"));
    for (range, start, end) in [
        ("0-0", 0, 1),
        ("1000-69999", 1000, 70_000),
        ("149999-", 149_999, 150_000),
        ("-5", 149_995, 150_000),
        ("100-999999", 100, 150_000),
        ("-999999", 0, 150_000),
    ] {
        let answer = part(range);
        assert_eq!(answer.status, 206, "{range}: {}", answer.head);
        assert_eq!(answer.body, file[start..end], "{range}");
        let place = format!("bytes {start}-{}/150000", end - 1);
        assert_eq!(answer.header("Content-Range"), Some(&*place));
    }
    for range in ["150000-", "-0"] {
        let answer = part(range);
        assert_eq!(answer.status, 416, "{range}");
        assert_eq!(answer.header("Content-Range"), Some("bytes */150000"));
    }
    for range in ["0-1,5-6", "5-1", "a-b", "-", "99999999999999999999-"] {
        assert_eq!(part(range).body.len(), file.len(), "{range}");
    }
    let known = site.get(&slot, &format!("If-None-Match: \"x\", W/{tag}\r\n"));
    assert_eq!((known.status, known.body.len()), (304, 0));
    let other = site.get(&slot, "If-Range: \"x\"\r\nRange: bytes=0-0\r\n");
    assert_eq!((other.status, other.body.len()), (200, file.len()));
}

#[test]
fn nothing_comes_but_what_its_slot_is_for_and_once() {
    let site = Site::start("");
    let mut client = Client::log_in(&site.server, "u0", "phone");
    let file = bytes(1_000);
    let slot = site.slot(&mut client, "a.png", file.len(), "image/png");
    let sent = |head: String| {
        let mut wire = site.wire();
        wire.write_all(head.as_bytes()).expect("the server reads");
        let _refused = wire.write_all(&file);
        response(&mut wire).status
    };
    let good = put_head(&slot, 1_000, "Content-Type: image/png\r\n");
    assert_eq!(sent(put_head(&slot, 999, "")), 400, "another size");
    assert_eq!(sent(put_head(&slot, 1_001, "")), 400, "another size");
    assert_eq!(
        sent(put_head(&slot, 1_000, "Content-Length: 1000\r\n")),
        400
    );
    assert_eq!(
        sent(put_head(&slot, 1_000, "Content-Type: text/html\r\n")),
        400
    );
    assert_eq!(sent(good.replace("Content-Length: 1000\r\n", "")), 411);
    let chunked = put_head(&slot, 1_000, "Transfer-Encoding: chunked\r\n");
    assert_eq!(sent(chunked), 411);
    assert_eq!(sent(good.replace("Bearer ", "Bearer A")), 403, "a token");
    assert_eq!(sent(good.replace("Authorization", "X-Nothing")), 403);
    assert_eq!(sent(good.replace("a.png", "b.png")), 403, "another name");
    let other = site.slot(&mut client, "a.png", file.len(), "image/png");
    assert_eq!(sent(good.replace(&slot.path, &other.path)), 403, "a file");
    assert_eq!(sent(good.clone()), 201);
    assert_eq!(sent(good), 409, "it is there");
    assert_eq!(site.get(&slot, "").body, file);
    assert_eq!(site.get(&other, "").status, 404);
    assert_eq!(site.partial(), 0);
}

#[test]
fn no_path_leads_to_anything_but_files() {
    let site = Site::start("");
    let mut client = Client::log_in(&site.server, "u0", "phone");
    let slot = site.put(&mut client, "a.txt", b"abc", "");
    let address = slot.path.trim_end_matches("/a.txt");
    assert_eq!(
        site.get(&slot, "").header("Content-Type"),
        Some("application/octet-stream")
    );
    for path in [
        "/upload/".to_owned(),
        "/upload/../vorpal.toml".to_owned(),
        "/upload/%2e%2e/%2e%2e/vorpal.toml".to_owned(),
        format!("{address}/b.txt"),
        format!("{address}/../a.txt"),
        format!("{address}/%2e%2e%2fa.txt"),
        format!("{address}/a.txt%00"),
        format!("{address}/a.txt/"),
        format!("{address}/a.tx%"),
        format!("{address}%00/a.txt"),
        address.to_owned(),
        "/upload/AAAA/a.txt".to_owned(),
        format!("/upload/{}/a.txt", "A".repeat(43)),
    ] {
        let answer = request(site.wire(), "GET", &path, "");
        assert_eq!(answer.status, 404, "{path}");
    }
    let mut masked = Slot { ..slot.clone() };
    masked.path = slot.path.replace("a.txt", "%61.txt");
    assert_eq!(site.get(&masked, "").body, b"abc", "the same name");
    let answer = request(site.wire(), "POST", &slot.path, "Content-Length: 0\r\n");
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("Allow"), Some("GET, HEAD, PUT, OPTIONS"));
}

#[test]
fn pages_of_other_sites_may_ask() {
    let site = Site::start("");
    let more = "Origin: https://a.b\r\nAccess-Control-Request-Method: PUT\r\n\
                Access-Control-Request-Headers: authorization\r\n";
    let answer = request(site.wire(), "OPTIONS", "/upload/a/b", more);
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    let of = |name| answer.header(name).unwrap_or_default();
    assert_eq!(of("Access-Control-Allow-Origin"), "*");
    assert!(of("Access-Control-Allow-Methods").contains("PUT"));
    assert!(of("Access-Control-Allow-Headers").contains("Authorization"));
}

#[test]
fn a_client_that_waits_is_told_to_go_on() {
    let site = Site::start("");
    let mut client = Client::log_in(&site.server, "u0", "phone");
    let slot = site.slot(&mut client, "a", 3, "");
    let mut wire = site.wire();
    let head = put_head(&slot, 3, "Expect: 100-continue\r\n");
    wire.write_all(head.as_bytes()).expect("the server reads");
    let mut told = [0; 25];
    wire.read_exact(&mut told).expect("an answer");
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    wire.write_all(b"abc").expect("the server reads");
    assert_eq!(response(&mut wire).status, 201);
    // One that must not come is refused before it does.
    let mut wire = site.wire();
    wire.write_all(head.as_bytes()).expect("the server reads");
    assert_eq!(response(&mut wire).status, 409);
}

#[test]
fn what_does_not_come_whole_is_not_there_and_may_come_again() {
    let mut site = Site::start("");
    let mut client = Client::log_in(&site.server, "u0", "phone");
    let file = bytes(500_000);
    let slot = site.slot(&mut client, "a", file.len(), "");
    let begin = |site: &Site| {
        let mut wire = site.wire();
        let head = put_head(&slot, file.len() as u64, "");
        wire.write_all(head.as_bytes()).expect("the server reads");
        wire.write_all(&file[..300_000]).expect("the server reads");
        until("it comes", || site.partial() == 1);
        wire
    };
    let wire = begin(&site);
    let second = put(site.wire(), &slot, &file);
    assert_eq!((second.status, site.get(&slot, "").status), (409, 404));
    drop(wire);
    until("it is removed", || site.partial() == 0);
    let _wire = begin(&site);
    site.server.kill();
    assert_eq!(site.partial(), 1, "a crash leaves it");
    site.server.start_again();
    assert_eq!((site.partial(), site.get(&slot, "").status), (0, 404));
    assert_eq!(put(site.wire(), &slot, &file).status, 201);
    assert_eq!(site.get(&slot, "").body, file);
}

#[test]
fn a_large_file_takes_little_memory_however_slowly_it_goes() {
    const SIZE: usize = 50 << 20;
    let site = Site::start("");
    let mut client = Client::log_in(&site.server, "u0", "phone");
    let file = bytes(SIZE);
    let before = site.server.resident_peak_kib();
    let slot = site.put(&mut client, "large", &file, "");
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut wire = site.wire();
        let head = format!("GET {} HTTP/1.1\r\nHost: {DOMAIN}\r\n\r\n", slot.path);
        wire.write_all(head.as_bytes()).expect("the server reads");
        slow.push(wire);
    }
    let tls = request(connect_tls(&site.server, site.https), "GET", &slot.path, "");
    assert!(tls.body == file, "what came is another file");
    for wire in &mut slow {
        assert!(response(wire).body == file, "what came is another file");
    }
    let grown = site.server.resident_peak_kib() - before;
    assert!(
        grown < 20 << 10,
        "{grown} KiB more for a file of {} KiB",
        SIZE >> 10
    );
}

#[test]
fn who_rests_while_a_file_goes_gets_all_of_it() {
    // In pieces that come from the disk at once.
    const SIZES: std::ops::RangeInclusive<usize> = 20..=80;
    const STEP: usize = 64 << 10;
    // Longer than what is said before a close may take.
    const REST: Duration = Duration::from_secs(7);
    let site = Site::start("");
    let mut client = Client::log_in(&site.server, "u0", "phone");
    let file = bytes(SIZES.end() * STEP);
    let slot = site.put(&mut client, "a", &file, "");
    // Of whatever size, the end of one of them has no room in the kernel.
    let wires = Vec::from_iter(SIZES.map(|count| {
        let mut wire = site.wire();
        let path = &slot.path;
        let last = count * STEP - 1;
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nRange: bytes=0-{last}\r\n\r\n");
        wire.write_all(head.as_bytes()).expect("the server reads");
        (wire, last + 1)
    }));
    sleep(REST);
    for (mut wire, size) in wires {
        let body = response(&mut wire).body;
        assert!(body == file[..size], "{} of {size} bytes came", body.len());
    }
}

#[test]
fn who_has_no_room_is_told_and_so_is_whose_file_is_too_large() {
    let site = Site::start("max_file_size = 100000\nquota = 250000\ndaily_quota = 400000\n");
    let mut client = Client::log_in(&site.server, "u0", "phone");
    let query = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
    let info = client.ask(DOMAIN, "get", query);
    let query = info.child("query").expect("a result");
    let told = |name: &str, value: &str| {
        let mut all = query.children.iter();
        all.any(|child| child.name == name && child.attr("var") == Some(value))
    };
    assert!(told("feature", UPLOAD));
    let form = query.child("x").expect("a form");
    let size = form
        .children
        .iter()
        .find(|it| it.attr("var") == Some("max-file-size"));
    assert_eq!(size.expect("a field").child_text("value"), "100000");
    let (condition, error) = refusal(&ask_slot(&mut client, "a", 100_001, ""));
    assert_eq!(condition, "not-acceptable");
    let too_large = error.child("file-too-large").expect("the reason");
    assert_eq!(too_large.child_text("max-file-size"), "100000");
    let file = bytes(100_000);
    site.put(&mut client, "a", &file, "");
    // What is granted counts before it is there.
    let slot = site.slot(&mut client, "b", file.len(), "");
    let (condition, error) = refusal(&ask_slot(&mut client, "c", 100_000, ""));
    assert_eq!(condition, "resource-constraint");
    assert!(
        error.child("retry").is_none(),
        "nothing goes by itself so soon"
    );
    assert_eq!(put(site.wire(), &slot, &file).status, 201);
    assert_eq!(
        refusal(&ask_slot(&mut client, "c", 50_000, "")).0,
        condition
    );
    site.slot(&mut client, "c", 10_000, "");
    // Another user has room of his own.
    let mut other = Client::log_in(&site.server, "u1", "phone");
    site.put(&mut other, "a", &file, "");
}

#[test]
fn what_may_come_in_a_day_is_counted_over_a_restart() {
    let mut site = Site::start("max_file_size = 100000\ndaily_quota = 210000\n");
    let mut client = Client::log_in(&site.server, "u0", "phone");
    let file = bytes(100_000);
    for name in ["a", "b"] {
        site.put(&mut client, name, &file, "");
    }
    for _ in 0..2 {
        let (condition, error) = refusal(&ask_slot(&mut client, "c", 100_000, ""));
        assert_eq!(condition, "resource-constraint");
        let stamp = error.child("retry").and_then(|it| it.attr("stamp"));
        assert!(
            stamp.is_some_and(|stamp| stamp.ends_with("T00:00:00Z")),
            "{error:?}"
        );
        site.server.restart();
        client = Client::log_in(&site.server, "u0", "phone");
    }
}

#[test]
fn the_files_of_a_deleted_account_go_whoever_deletes_it() {
    let mut site = Site::start_with(
        "",
        &Options {
            clique: 1,
            ..Options::default()
        },
    );
    let users = ["u0", "u1", "u2", "u3"];
    let mut clients = users.map(|user| Client::log_in(&site.server, user, "phone"));
    let slots = clients
        .each_mut()
        .map(|client| site.put(client, "a", b"abc", ""));
    let statuses = |site: &Site| slots.each_ref().map(|slot| site.get(slot, "").status);
    let cancel = "<query xmlns='jabber:iq:register'><remove/></query>";
    let answer = clients[0].ask(DOMAIN, "set", cancel);
    assert_eq!(answer.attr("type"), Some("result"), "{answer:?}");
    until("it is gone", || statuses(&site) == [404, 200, 200, 200]);
    delete(site.server.directory(), "u1");
    until("it is gone", || statuses(&site) == [404, 404, 200, 200]);
    site.server.terminate();
    site.server.wait();
    delete(site.server.directory(), "u2");
    let kept = fs::read_dir(site.directory().join("files")).expect("it is there");
    assert_eq!(kept.count(), 1);
    // Those that a crash has left: of an account that is gone, of one that is not, and of none that
    // anybody deleted.
    let files = site.directory().join("files");
    let left = [("nobody", true), ("u3", true), ("nobody", false)].map(|(owner, is_marked)| {
        let number = fs::read_dir(&files).expect("it is there").count();
        let directory = files.join(number.to_string().repeat(32));
        fs::create_dir(&directory).expect("it is ours");
        let write = |name: &str, text: &str| fs::write(directory.join(name), text);
        write("owner", &format!("{owner}@{DOMAIN}")).expect("it is ours");
        write(&"a".repeat(32), "abc").expect("it is ours");
        if is_marked {
            write("deleted", "").expect("it is ours");
        }
        directory
    });
    site.server.start_again();
    assert_eq!(statuses(&site), [404, 404, 404, 200]);
    assert_eq!(left.each_ref().map(|it| it.exists()), [false, true, true]);
    assert!(!left[1].join("deleted").exists());
}

fn delete(directory: &Path, user: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vorpal"));
    command.current_dir(directory);
    let status = command
        .args(["user", "del", user, "--config", "vorpal.toml"])
        .status();
    assert!(status.expect("the binary was built").success());
}

#[test]
fn what_is_old_is_removed_and_makes_room() {
    let mut site = Site::start("max_file_size = 1000\nquota = 6000\nexpire_days = 2\n");
    let mut client = Client::log_in(&site.server, "u0", "phone");
    let slot = site.put(&mut client, "a", b"abc", "");
    assert_eq!(
        refusal(&ask_slot(&mut client, "b", 1_000, "")).0,
        "resource-constraint"
    );
    site.server.terminate();
    site.server.wait();
    let users = fs::read_dir(site.directory().join("files")).expect("it is there");
    let user = users.map(|entry| entry.expect("it is there").path()).next();
    let day = Duration::from_secs(86_400);
    let files = fs::read_dir(user.expect("one")).expect("it is there");
    for file in files.map(|entry| entry.expect("it is there").path()) {
        let file = fs::File::options()
            .write(true)
            .open(file)
            .expect("it is ours");
        file.set_modified(SystemTime::now() - 3 * day)
            .expect("it is ours");
    }
    site.server.start_again();
    until("it is gone", || site.get(&slot, "").status == 404);
    let mut client = Client::log_in(&site.server, "u0", "phone");
    site.put(&mut client, "b", &bytes(1_000), "");
}

#[test]
fn so_many_files_come_from_one_address_at_once() {
    const TRANSFERS_PER_ADDRESS_MAX: usize = 64;
    const COMING_PER_USER_MAX: usize = 16;
    const SLOTS_PER_USER_MAX: usize = 64;
    let site = Site::start("");
    let mut clients = ["u0", "u1", "u2", "u3"].map(|user| Client::log_in(&site.server, user, "a"));
    let mut wires = Vec::new();
    for number in 0..TRANSFERS_PER_ADDRESS_MAX {
        let client = &mut clients[number / COMING_PER_USER_MAX];
        let slot = site.slot(client, "a", 10, "");
        let mut wire = site.wire();
        let head = put_head(&slot, 10, "Expect: 100-continue\r\n");
        wire.write_all(head.as_bytes()).expect("the server reads");
        let mut told = [0; 25];
        wire.read_exact(&mut told).expect("an answer");
        assert!(told.starts_with(b"HTTP/1.1 100 "), "{number}");
        wires.push((slot, wire));
        if number + 1 == COMING_PER_USER_MAX {
            let slot = site.slot(client, "a", 10, "");
            let busy = put(site.wire(), &slot, b"0123456789");
            assert_eq!((busy.status, busy.header("Retry-After")), (503, Some("10")));
        }
    }
    let client = &mut clients[0];
    for _ in COMING_PER_USER_MAX + 1..SLOTS_PER_USER_MAX {
        site.slot(client, "a", 10, "");
    }
    let (condition, error) = refusal(&ask_slot(client, "a", 10, ""));
    assert_eq!(condition, "resource-constraint");
    assert!(error.child("retry").is_some());
    let (slot, mut wire) = wires.pop().expect("there are some");
    let busy = site.get(&slot, "");
    assert_eq!((busy.status, busy.header("Retry-After")), (503, Some("10")));
    wire.write_all(b"0123456789").expect("the server reads");
    assert_eq!(response(&mut wire).status, 201);
    assert_eq!(site.get(&slot, "").body, b"0123456789");
}

#[test]
fn where_tls_must_be_nothing_comes_or_goes_in_clear() {
    let site = Site::start_with(
        "",
        &Options {
            tls_required: true,
            ..Options::default()
        },
    );
    for method in ["GET", "PUT", "OPTIONS"] {
        let answer = request(site.wire(), method, "/upload/a/b", "");
        assert_eq!(answer.status, 403, "{method}");
    }
    let wire = connect_tls(&site.server, site.https);
    assert_eq!(request(wire, "GET", "/upload/a/b", "").status, 404);
}

#[test]
fn a_server_that_is_told_to_stop_does_not_wait_for_files() {
    let mut site = Site::start("");
    let mut client = Client::log_in(&site.server, "u0", "phone");
    let slot = site.slot(&mut client, "a", 1_000, "");
    let mut wire = site.wire();
    let head = put_head(&slot, 1_000, "");
    wire.write_all(head.as_bytes()).expect("the server reads");
    until("it comes", || site.partial() == 1);
    site.server.terminate();
    assert!(site.server.wait().success());
    // Those are cut as soon as it is told, and not when its time is over.
    let log = site.server.log();
    assert!(
        log.contains("files on their way were cut by the end"),
        "{log}"
    );
    site.server.start_again();
    assert_eq!(site.partial(), 0);
}

#[test]
fn a_file_that_comes_ends_with_its_account() {
    let site = Site::start("");
    let mut client = Client::log_in(&site.server, "u0", "phone");
    let slot = site.slot(&mut client, "a", 10, "");
    let mut wire = site.wire();
    let head = put_head(&slot, 10, "Expect: 100-continue\r\n");
    wire.write_all(head.as_bytes()).expect("the server reads");
    let mut told = [0; 25];
    wire.read_exact(&mut told).expect("an answer");
    delete(site.server.directory(), "u0");
    // Long before its client's time is over.
    until("it is removed", || site.partial() == 0);
    let mut rest = Vec::new();
    // The connection ends, in order or not.
    let _ended = wire.read_to_end(&mut rest);
    assert_eq!(rest, b"");
    assert_eq!(put(site.wire(), &slot, b"0123456789").status, 403);
}

#[test]
fn unless_it_is_configured_there_are_no_files() {
    let http = free_port();
    let server = Server::start(&Options {
        listen: &format!("http = \"127.0.0.1:{http}\""),
        ..Options::default()
    });
    let mut client = Client::log_in(&server, "u0", "phone");
    let answer = ask_slot(&mut client, "a", 1, "");
    assert_eq!(answer.condition(STANZA_ERRORS), Some("service-unavailable"));
    assert_eq!(request(connect(http), "GET", "/upload/a/b", "").status, 404);
}
