//! The whole runtime over real sockets: moves, lanes of one item, caps, and the end.

#![allow(clippy::unwrap_used)] // helpers of tests may, as tests may

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use runtime::config::RuntimeConfig;
use runtime::{Counters, Server, Tuning};
use stanza::jid::BareJid;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use store::Memory;
use xmpp::Settings;
use xmpp::port::{RosterItem, Store, StoreOp, StoreReply};
use xmpp::stream::sasl::{SALT_SIZE, Salts, derive_credentials};

const HEADER: &str = "<stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' to='test.example' version='1.0'>";
const ANONYMOUS: &str = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>";
const BIND: &str = "<iq type='set' id='bind'>\
    <bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
/// A failing test ends by it instead of hanging; no verdict depends on it.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(shards: u16) -> RuntimeConfig {
    let unique = format!(
        "vorpal-runtime-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    );
    let data = std::env::temp_dir().join(unique.replace(['(', ')'], ""));
    std::fs::create_dir_all(&data).unwrap();
    let mut settings = Settings::for_tests("test.example");
    settings.shards = shards;
    settings.tls_available = true;
    RuntimeConfig {
        tls: runtime::certificate::self_signed(&data, "test.example").unwrap(),
        settings,
        shards_fixed: true,
        idle_spin: Duration::ZERO,
        c2s: vec!["127.0.0.1:0".parse().unwrap()],
        c2s_tls: Vec::new(),
        component: Vec::new(),
        http: Vec::new(),
        https: Vec::new(),
        site: runtime::transport::http::Site::default(),
        uploads: None,
        data,
        output_max: 1 << 20,
        connections_per_address_max: 0,
        connections_max: runtime::config::CONNECTIONS_MAX_DEFAULT,
    }
}

fn start(config: RuntimeConfig, tuning: &Tuning) -> (Server, SocketAddr) {
    let data = config.data.clone();
    let server = Server::start(config, tuning, Box::new(Memory::new())).unwrap();
    std::fs::remove_dir_all(data).unwrap();
    let address = server.addresses()[0];
    (server, address)
}

fn tuning() -> Tuning {
    Tuning {
        pinned: false,
        ..Tuning::default()
    }
}

fn total(counters: &[Counters], of: impl Fn(&Counters) -> u64) -> u64 {
    counters.iter().map(of).sum()
}

/// A connection that reads what it is asked for.
struct Wire {
    socket: TcpStream,
    got: String,
}

impl Wire {
    fn open(address: SocketAddr) -> Wire {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Wire {
            socket,
            got: String::new(),
        }
    }

    fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).unwrap();
    }

    /// Reads up to and including `end` and takes it out.
    fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.got.find(end) {
                let rest = self.got.split_off(at + end.len());
                return std::mem::replace(&mut self.got, rest);
            }
            assert!(self.more(), "the end, without {end}, behind: {}", self.got);
        }
    }

    fn more(&mut self) -> bool {
        let mut bytes = [0; 16 << 10];
        let count = loop {
            match self.socket.read(&mut bytes) {
                Ok(count) => break count,
                // A thread that started a server still has deferred work of its rings.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break 0,
            }
        };
        self.got
            .push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        count > 0
    }

    fn login(address: SocketAddr) -> (Wire, String) {
        let mut wire = Wire::open(address);
        wire.send(HEADER);
        wire.until("</stream:features>");
        wire.send(ANONYMOUS);
        wire.until("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
        wire.send(HEADER);
        wire.until("</stream:features>");
        wire.send(BIND);
        let bound = wire.until("</iq>");
        let jid = bound
            .split("<jid>")
            .nth(1)
            .unwrap()
            .split("</jid>")
            .next()
            .unwrap();
        (wire, jid.to_owned())
    }
}

/// Makes the account `u<number>`.
fn make_account(server: &Server, number: usize) {
    make_account_of(server, number, 1);
}

/// The same with keys that say so many iterations, and are not made with these.
fn make_account_of(server: &Server, number: usize, iterations: u32) {
    let account = BareJid::parse(&format!("u{number}@test.example")).unwrap();
    let salts: Salts = [[1; SALT_SIZE], [2; SALT_SIZE], [3; SALT_SIZE]];
    let mut credentials = Box::new(derive_credentials("secret", &salts, 1).unwrap());
    credentials.sha256.as_mut().unwrap().iterations = iterations;
    let made = server.control().store(StoreOp::CreateAccount {
        account,
        credentials,
    });
    assert_eq!(made, StoreReply::Done);
}

/// Its authentication.
fn auth(number: usize) -> String {
    let proof = BASE64.encode(format!("\0u{number}\0secret"));
    let sasl = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'";
    format!("<auth {sasl}>{proof}</auth>")
}

/// The numbers in `<body>n</body>`, in order of appearance.
fn bodies(text: &str) -> Vec<usize> {
    let parts = text.split("<body>").skip(1);
    parts
        .map(|part| part.split("</body>").next().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn a_client_that_writes_all_the_time_moves_home_without_losing_or_reordering_a_byte() {
    const CLIENTS: usize = 48;
    const PINGS: usize = 150;
    let (server, address) = start(config(3), &tuning());
    for client in 0..CLIENTS {
        make_account(&server, client);
    }
    let client = |seed: usize| {
        let mut wire = Wire::open(address);
        let mut all = format!("{HEADER}{}{HEADER}{BIND}", auth(seed));
        for number in 0..PINGS {
            let ping = "<ping xmlns='urn:xmpp:ping'/>";
            all += &format!("<iq type='get' id='p{number}' to='test.example'>{ping}</iq>");
        }
        let mut writer = wire.socket.try_clone().unwrap();
        let writing = std::thread::spawn(move || {
            // Pieces of every size, so that the move falls everywhere between them.
            let (mut rest, mut state) = (all.as_bytes(), seed * 7919 + 1);
            while !rest.is_empty() {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let size = (1 + (state >> 33) % 90).min(rest.len());
                writer.write_all(&rest[..size]).unwrap();
                rest = &rest[size..];
            }
        });
        let last = format!("id='p{}'", PINGS - 1);
        let answers = wire.until(&last);
        writing.join().unwrap();
        let at = |number| {
            let id = format!("id='p{number}'");
            assert_eq!(answers.matches(&id).count(), 1, "{id} in {answers}");
            answers.find(&id)
        };
        assert!(
            (1..PINGS).all(|number| at(number - 1) < at(number)),
            "{answers}"
        );
    };
    std::thread::scope(|scope| {
        for seed in 0..CLIENTS {
            scope.spawn(move || client(seed));
        }
    });
    let counters = server.stop().unwrap();
    let (moved, adopted) = (
        total(&counters, |c| c.moved),
        total(&counters, |c| c.adopted),
    );
    assert!(
        moved > 0 && moved == adopted,
        "{moved} left and {adopted} arrived"
    );
}

#[test]
fn lanes_with_room_for_one_item_lose_nothing_and_keep_order() {
    lanes_with_room_for_one_item(Duration::ZERO);
}

#[test]
fn shards_that_stay_awake_hear_clients_and_siblings_as_those_that_sleep() {
    lanes_with_room_for_one_item(Duration::from_micros(50));
}

fn lanes_with_room_for_one_item(idle_spin: Duration) {
    const PAIRS: usize = 12;
    const MESSAGES: usize = 400;
    let tuning = Tuning {
        lane_capacity: Some(1),
        ..tuning()
    };
    let config = RuntimeConfig {
        idle_spin,
        ..config(3)
    };
    let (server, address) = start(config, &tuning);
    let mut clients: Vec<(Wire, String)> = (0..PAIRS).map(|_| Wire::login(address)).collect();
    let jids: Vec<String> = clients.iter().map(|(_, jid)| jid.clone()).collect();
    std::thread::scope(|scope| {
        for (index, (wire, _)) in clients.iter_mut().enumerate() {
            let to = &jids[(index + 1) % PAIRS];
            scope.spawn(move || {
                let mut writer = wire.socket.try_clone().unwrap();
                let writing = scope.spawn(move || {
                    for number in 0..MESSAGES {
                        let body = format!("<body>{number}</body>");
                        let message = format!("<message type='chat' to='{to}'>{body}</message>");
                        writer.write_all(message.as_bytes()).unwrap();
                    }
                });
                let got = wire.until(&format!("<body>{}</body>", MESSAGES - 1));
                writing.join().unwrap();
                assert_eq!(bodies(&got), Vec::from_iter(0..MESSAGES));
            });
        }
    });
    let counters = server.stop().unwrap();
    assert!(
        total(&counters, |c| c.parcels) > 0,
        "some pairs are on two shards"
    );
    assert!(
        total(&counters, |c| c.spilled_max) > 0,
        "one item is soon too few"
    );
}

/// Storage that takes its time.
struct Slow(Memory);

impl Store for Slow {
    fn perform(&mut self, ops: &mut dyn Iterator<Item = StoreOp>, replies: &mut Vec<StoreReply>) {
        std::thread::sleep(Duration::from_millis(1));
        self.0.perform(ops, replies);
    }

    fn accounts(&mut self, each: &mut dyn FnMut(BareJid) -> bool) -> Result<(), Box<str>> {
        self.0.accounts(each)
    }
}

#[test]
fn with_room_for_one_request_to_slow_storage_all_are_answered_and_messages_go_on() {
    const CLIENTS: usize = 9;
    const ROUNDS: usize = 60;
    let tuning = Tuning {
        lane_capacity: Some(1),
        ..tuning()
    };
    let config = config(3);
    let data = config.data.clone();
    let server = Server::start(config, &tuning, Box::new(Slow(Memory::new()))).unwrap();
    std::fs::remove_dir_all(data).unwrap();
    let address = server.addresses()[0];
    let mut clients: Vec<(Wire, String)> = (0..CLIENTS).map(|_| Wire::login(address)).collect();
    let jids: Vec<String> = clients.iter().map(|(_, jid)| jid.clone()).collect();
    std::thread::scope(|scope| {
        for (index, (wire, _)) in clients.iter_mut().enumerate() {
            let to = &jids[(index + 1) % CLIENTS];
            let mut burst = String::new();
            for number in 0..ROUNDS {
                // Two requests at home, and one wherever the stranger would be at home.
                burst += &format!(
                    "<iq type='set' id='{number}'><query xmlns='jabber:iq:roster'>\
                     <item jid='c@test.example' name='{number}'/></query></iq>\
                     <presence to='s{index}-{number}@test.example' type='unsubscribe'/>\
                     <message type='chat' to='{to}'><body>{number}</body></message>"
                );
            }
            burst += "<iq type='get' id='last'><ping xmlns='urn:xmpp:ping'/></iq>";
            scope.spawn(move || {
                wire.send(&burst);
                // The ping's answer, the sets' answers and the neighbour's messages may come in
                // any order among each other, but each kind in its own.
                let expected = [
                    ("id='last'", 1),
                    ("<iq from", ROUNDS + 1),
                    ("<body>", ROUNDS),
                ];
                let all = |got: &str| {
                    expected
                        .iter()
                        .all(|(what, count)| got.matches(what).count() == *count)
                };
                while !(all(&wire.got) && wire.got.ends_with('>')) {
                    assert!(wire.more(), "the end, behind: {}", wire.got);
                }
                assert_eq!(bodies(&wire.got), Vec::from_iter(0..ROUNDS));
                let places = (0..ROUNDS).map(|number| wire.got.find(&format!("id='{number}'")));
                let places: Vec<usize> = places.map(Option::unwrap).collect();
                assert!(places.is_sorted(), "the answers keep the order of the sets");
            });
        }
    });
    server.stop().unwrap();
}

#[test]
fn a_client_that_does_not_read_is_cut_and_others_go_on() {
    // Together more than both socket buffers and a burst may hold.
    const MESSAGES: usize = 80_000;
    let (server, address) = start(config(2), &tuning());
    let (mut sleeper, deaf) = Wire::login(address);
    let (mut talker, own) = Wire::login(address);
    let body = "x".repeat(1 << 10);
    let message = format!("<message type='chat' to='{deaf}'><body>{body}</body></message>");
    let mut writer = talker.socket.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        for _ in 0..MESSAGES {
            writer.write_all(message.as_bytes()).unwrap();
        }
        let last = format!("<message to='{own}'><body>7</body></message>");
        writer.write_all(last.as_bytes()).unwrap();
        MESSAGES * message.len()
    });
    // What comes behind the cut bounces, and is read as fast as it comes.
    while !talker.got.contains("<body>7</body>") {
        let old = talker.got.len().saturating_sub("<body>7</body>".len());
        talker.got.drain(..old);
        assert!(talker.more(), "who reads is not cut");
    }
    let written = writing.join().unwrap();
    let mut got = 0;
    while sleeper.more() {
        got += std::mem::take(&mut sleeper.got).len();
    }
    assert!(got < written, "it was cut before the last message");
    let counters = server.stop().unwrap();
    assert_eq!(total(&counters, |c| c.cut_slow), 1);
}

#[test]
fn who_holds_most_of_what_cannot_be_handled_pays_and_nobody_else() {
    const STRANGERS: usize = 20;
    const SIZE: usize = 60_000;
    let tuning = Tuning {
        undigested_max: 1 << 20,
        ..tuning()
    };
    let (server, address) = start(config(1), &tuning);
    let (mut user, jid) = Wire::login(address);
    let start = |_| {
        let mut stranger = Wire::open(address);
        stranger.send(HEADER);
        stranger.until("</stream:features>");
        stranger.send(&format!("<message id='{}", "x".repeat(SIZE)));
        stranger
    };
    let mut strangers: Vec<Wire> = (0..STRANGERS).map(start).collect();
    let body = "y".repeat(40_000);
    for round in 0..STRANGERS {
        user.send(&format!("<message to='{jid}'><body>{body}"));
        // What they hold comes anew meanwhile, so that there is always too much.
        strangers.push(start(round));
        user.send(&format!("{round}</body></message>"));
        assert!(
            user.until("</message>")
                .ends_with(&format!("y{round}</body></message>"))
        );
    }
    let counters = server.stop().unwrap();
    let cut = total(&counters, |c| c.cut_undigested);
    let mut told = 0;
    for mut stranger in strangers {
        while stranger.more() {}
        told += u64::from(stranger.got.contains("<resource-constraint xmlns="));
    }
    assert!(cut > 0 && told == cut, "{cut} were cut and {told} told");
}

#[test]
fn what_stands_behind_the_last_body_of_a_connection_is_in_nobodys_way() {
    const STRANGERS: usize = 20;
    let tuning = Tuning {
        undigested_max: 64 << 10,
        ..tuning()
    };
    let mut config = config(1);
    config.http = vec!["127.0.0.1:0".parse().unwrap()];
    let (server, address) = start(config, &tuning);
    let web = server.addresses()[1];
    let (mut user, jid) = Wire::login(address);
    let body = "x".repeat(8 << 10);
    user.send(&format!("<message to='{jid}'><body>{body}"));
    let head = "POST /http-bind HTTP/1.0\r\nContent-Length: 1\r\n\r\n-";
    let request = format!("{head}{}", "y".repeat(15 << 10));
    for _ in 0..STRANGERS {
        let mut stranger = Wire::open(web);
        stranger.send(&request);
        stranger.until("condition='bad-request'/>");
    }
    user.send("!</body></message>");
    assert!(user.until("</message>").contains("x!</body>"));
    let counters = server.stop().unwrap();
    assert_eq!(total(&counters, |c| c.cut_undigested), 0);
}

/// Has so many requests of 59 kB wait for the account `u0`.
fn make_requests(server: &Server, count: usize) {
    let status = "x".repeat(59_000);
    for number in 0..count {
        let contact = BareJid::parse(&format!("c{number}@test.example")).unwrap();
        let request = format!(
            "<presence type='subscribe' from='{}' to='u0@test.example'><status>{status}</status>\
             </presence>",
            contact.as_str()
        );
        let mut item = RosterItem::new(contact);
        item.pending_in = Some(request.as_bytes().into());
        let put = server.control().store(StoreOp::PutRosterItem {
            account: BareJid::parse("u0@test.example").unwrap(),
            item: Box::new(item),
        });
        assert_eq!(put, StoreReply::Done);
    }
}

#[test]
fn a_managed_session_that_is_cut_for_its_bytes_waits_for_its_client() {
    let tuning = Tuning {
        undigested_max: 32 << 10,
        ..tuning()
    };
    let (server, address) = start(config(1), &tuning);
    make_account(&server, 0);
    let mut wire = Wire::open(address);
    wire.send(&format!("{HEADER}{}{HEADER}{BIND}", auth(0)));
    wire.until("</jid>");
    wire.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    let enabled = wire.until("max='300'/>");
    let session = enabled.split(" id='").nth(1).unwrap();
    let session = session.split('\'').next().unwrap();
    wire.send(&format!("<message id='{}", "x".repeat(60_000)));
    wire.until("<resource-constraint xmlns=");
    let mut again = Wire::open(address);
    again.send(&format!("{HEADER}{}{HEADER}", auth(0)));
    again.until("urn:xmpp:sm:3");
    again.send(&format!(
        "<resume xmlns='urn:xmpp:sm:3' h='0' previd='{session}'/>"
    ));
    again.until("<resumed ");
    server.stop().unwrap();
}

#[test]
fn a_burst_for_a_client_that_reads_comes_whole() {
    const REQUESTS: usize = 250;
    let (server, address) = start(config(1), &tuning());
    make_account(&server, 0);
    make_requests(&server, REQUESTS);
    let mut wire = Wire::open(address);
    wire.send(&format!("{HEADER}{}{HEADER}{BIND}<presence/>", auth(0)));
    for _ in 0..REQUESTS {
        assert!(wire.until("</presence>").contains("type='subscribe'"));
    }
    let counters = server.stop().unwrap();
    assert_eq!(total(&counters, |c| c.cut_slow), 0);
}

#[test]
fn bursts_for_clients_that_do_not_read_share_a_budget() {
    // Of 24 MB both socket buffers together take no more than 10, and the budget is 32 MiB.
    const REQUESTS: usize = 400;
    let (server, address) = start(config(1), &tuning());
    make_account(&server, 0);
    make_requests(&server, REQUESTS);
    let all = format!("{HEADER}{}{HEADER}{BIND}<presence/>", auth(0));
    let mut deaf = Wire::open(address);
    deaf.send(&all);
    deaf.until("<jid>");
    let mut second = Wire::open(address);
    second.send(&all);
    while second.more() {}
    assert!(
        !second.got.contains("type='subscribe'"),
        "it was cut at once"
    );
    let counters = server.stop().unwrap();
    assert_eq!(total(&counters, |c| c.cut_slow), 1);
}

#[test]
fn connections_beyond_the_cap_of_an_address_are_turned_away() {
    let mut config = config(1);
    config.connections_per_address_max = 2;
    let (server, address) = start(config, &tuning());
    let (first, _) = Wire::login(address);
    let (_second, _) = Wire::login(address);
    let mut third = Wire::open(address);
    assert!(!third.more(), "it is closed unheard");
    drop(first);
    // The place is free as soon as the server has seen the end.
    loop {
        let mut next = Wire::open(address);
        let _ = next.socket.write_all(HEADER.as_bytes());
        if next.more() {
            break;
        }
    }
    server.stop().unwrap();
}

#[test]
fn whoever_does_not_read_and_names_an_account_elsewhere_has_no_more_time_to_log_in() {
    // Of every size, so that what some have asked for is just more than their socket takes.
    const SIZES: usize = 40;
    const STEP: usize = 100 << 10;
    let mut config = config(2);
    config.settings.limits.auth_ms_max = 3_000;
    let (server, address) = start(config, &tuning());
    // Quotes are written as entities.
    let ask = |size: usize| {
        let id = "'".repeat(size / "&apos;".len());
        let query = "<query xmlns='jabber:iq:register'/>";
        format!("<iq type='get' id=\"{id}\">{query}</iq>")
    };
    let mut deaf: Vec<TcpStream> = (0..2 * SIZES)
        .map(|number| {
            let mut wire = Wire::open(address);
            let (mut all, mut size) = (HEADER.to_owned(), (1 + number / 2) * STEP);
            while size > 0 {
                let part = size.min(3 * STEP);
                all += &ask(part);
                size -= part;
            }
            // One of two names is at home elsewhere, wherever the client came in.
            all += &auth(number);
            wire.send(&all);
            wire.socket
        })
        .collect();
    for socket in &mut deaf {
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let until = std::time::Instant::now() + PATIENCE;
        while socket.write_all(b" ").is_ok() {
            assert!(std::time::Instant::now() < until, "it is kept for ever");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    server.stop().unwrap();
}

#[test]
fn at_the_end_every_stream_is_told_and_closed() {
    let (server, address) = start(config(2), &tuning());
    let mut clients: Vec<Wire> = (0..20).map(|_| Wire::login(address).0).collect();
    let (mut halfway, mut silent) = (Wire::open(address), Wire::open(address));
    halfway.send(HEADER);
    halfway.until("</stream:features>");
    let stopping = std::thread::spawn(move || server.stop().unwrap());
    clients.push(halfway);
    for wire in &mut clients {
        wire.until("<system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>");
        wire.until("</stream:stream>");
        assert!(!wire.more());
    }
    while silent.more() {}
    stopping.join().unwrap();
}

#[test]
fn the_end_waits_for_no_derivation() {
    let (server, address) = start(config(1), &tuning());
    // Many minutes; the thread ends with the process.
    make_account_of(&server, 0, u32::MAX);
    let attempt = || {
        let mut wire = Wire::open(address);
        wire.send(&format!("{HEADER}{}", auth(0)));
        wire.until("</stream:features>");
        wire
    };
    let _first = attempt();
    // It is under way, and is all that the account may have.
    attempt().until("<temporary-auth-failure/>");
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || ended.send(server.stop().is_ok()));
    assert_eq!(end.recv_timeout(PATIENCE), Ok(true));
}

#[test]
fn an_address_that_somebody_listens_on_is_refused_with_a_remedy() {
    let (server, address) = start(config(1), &tuning());
    let mut second = config(1);
    second.c2s = vec![address];
    let Err(error) = Server::start(second, &tuning(), Box::new(Memory::new())) else {
        panic!("two servers on one port");
    };
    assert!(error.to_string().contains("[listen]"), "{error}");
    server.stop().unwrap();
}
