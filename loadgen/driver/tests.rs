//! A ring thread without connections, led through the stages and fed with bytes.

use super::*;
use crate::args::Cli;
use crate::body::Mark;
use crate::ledger::Verdict;
use crate::muc::Rooms;
use crate::plan::Dialect;
use crate::scan;
use clap::Parser;

mod resume;

/// A thread with all clients of the command line.
fn worker(line: &[&str]) -> Worker {
    let words = ["loadgen"].iter().chain(line);
    worker_of(&Cli::parse_from(words).run.load)
}

/// A thread with all clients of this load.
fn worker_of(load: &crate::args::LoadArgs) -> Worker {
    let address = "127.0.0.1:1".parse().unwrap();
    let plan = load
        .plan(address, Dialect::Xmpp, crate::clock::Clock::start())
        .unwrap();
    let features = ring::probe().expect("io_uring is needed here");
    let config = RingConfig {
        entries: 8,
        completions: 16,
        slots: plan.clients,
    };
    let job = Job {
        thread: 0,
        first: 0,
        count: plan.clients,
        core: None,
        shares_core: false,
        control: Arc::new(Control::new(1)),
        plan: Arc::new(plan),
        script: Arc::new(Script {
            rooms: load
                .has_rooms()
                .then(|| Rooms::new("conference.bench", load.clique)),
            ..Script::anonymous("bench")
        }),
        tls: None,
        features,
        derive: std::sync::mpsc::channel().0,
    };
    let ring = Ring::new(&config, &features).expect("a small ring is to be had");
    Worker::new(job, ring)
}

#[test]
fn all_turns_of_a_login_run_are_measured_and_only_the_first_round_is_not() {
    for warm in [true, false] {
        let mut worker = worker(&["--scenario", "login", "--clients", "2"]);
        let mut now = 0;
        let mut enter = |worker: &mut Worker, stage| {
            now += 1;
            worker.job.control.enter(stage, now);
            worker.look_at_stage();
        };
        worker.meter.phase(crate::stats::Phase::Bind, 1);
        worker.meter.lag.saturating_record(1);
        worker.meter.false_acks = 5;
        for turn in 1..=3 {
            if warm {
                enter(&mut worker, Stage::Warm);
            }
            enter(&mut worker, Stage::Measure);
            worker.meter.lag.saturating_record(1);
            assert_eq!(worker.meter.lag.len(), turn, "turn {turn}, warm {warm}");
            enter(&mut worker, Stage::Hold);
        }
        assert!(worker.meter.of(crate::stats::Phase::Bind).is_empty());
        assert_eq!(worker.meter.false_acks, 5, "a fault is one at any time");
    }
}

#[test]
fn a_login_that_had_to_wait_for_a_client_is_not_the_generators_delay() {
    let mut worker = worker(&["--scenario", "login", "--clients", "2", "--rate", "9"]);
    worker.now = 9_000;
    worker.record_login_lag(2_000, 8_000);
    assert_eq!((worker.meter.lag.max(), worker.meter.waited), (1_000, 1));
    worker.record_login_lag(2_000, 1_000);
    assert_eq!((worker.meter.lag.max(), worker.meter.waited), (7_003, 1));
}

#[test]
fn a_schedule_that_is_far_behind_says_that_it_waits_for_clients() {
    let mut worker = worker(&["--scenario", "login", "--clients", "2", "--rate", "1000"]);
    worker.begun = 2;
    for (stage, now) in [(Stage::Warm, 1), (Stage::Measure, 5 * SECOND)] {
        worker.job.control.enter(stage, now);
        worker.look_at_stage();
    }
    worker.now = 6 * SECOND;
    worker.lines[0].idle_since = 6 * SECOND - 300;
    worker.lines[1].idle_since = 6 * SECOND - 200;
    worker.begin_connections().unwrap();
    assert_eq!((worker.meter.waited, worker.ledger.verdict.sent), (2, 2));
    assert_eq!(worker.meter.lag.max(), 300);
}

/// Hands a client the stanza that carries this mark, as the server would; without an address where
/// it is empty.
fn deliver(worker: &mut Worker, to: u32, mark: &Mark, address: &str) {
    let mut written = Vec::new();
    worker.shape.write(mark, "", &mut written);
    let written = String::from_utf8(written)
        .unwrap()
        .replacen(" to=''", "", 1);
    let end = written.find([' ', '>']).unwrap();
    let (name, rest) = written.split_at(end);
    let sender = &worker.jids[mark.from as usize];
    let to_address = match address {
        "" => String::new(),
        address => format!(" to='{address}'"),
    };
    let stanza = format!("{name} from='{sender}'{to_address}{rest}");
    assert_eq!(worker.digest(to, stanza.as_bytes()), stanza.len());
}

/// Two clients that are ready, and the first thing that the first of them sends.
fn ready(line: &[&str]) -> (Worker, Mark) {
    let mut worker = worker(&[&["--clients", "2"], line].concat());
    for index in 0..2 {
        worker.jids[index] = format!("u{index}@bench/lg").into();
        worker.lines[index].client.step = Step::Ready;
    }
    let (to, sequence) = worker.ledger.send(0, 0);
    let (intended, sent) = (0, 0);
    let mark = Mark {
        from: 0,
        to,
        sequence,
        intended,
        sent,
    };
    (worker, mark)
}

#[test]
fn what_comes_while_the_stream_closes_is_in_the_account() {
    let (mut worker, mark) = ready(&[]);
    deliver(&mut worker, 1, &mark, "u1@bench/lg");
    worker.lines[1].client.close(&mut Vec::new());
    deliver(&mut worker, 1, &mark, "u1@bench/lg");
    let verdict = worker.ledger.verdict;
    assert_eq!((verdict.delivered, verdict.duplicated), (1, 1));
    // Nothing may follow the end of the stream.
    for asks in ["<r xmlns='urn:xmpp:sm:3'/>", "<iq type='get' id='1'/>"] {
        worker.digest(1, asks.as_bytes());
        assert!(worker.lines[1].out.is_empty(), "{asks}");
    }
}

#[test]
fn a_broadcast_comes_to_the_bare_or_the_full_address_of_its_receiver() {
    for (address, is_right) in [
        ("u1@bench/lg", true),
        ("u1@bench", true),
        ("", true),
        ("u0@bench", false),
        ("u1@bench/other", false),
    ] {
        let (mut worker, mark) = ready(&["--scenario", "presence"]);
        deliver(&mut worker, 1, &mark, address);
        let verdict = worker.ledger.verdict;
        let expected = (u64::from(is_right), u64::from(!is_right));
        assert_eq!(
            (verdict.delivered, verdict.misrouted),
            expected,
            "{address}"
        );
    }
    // What is sent to one resource comes to it and no other.
    let (mut worker, mark) = ready(&[]);
    deliver(&mut worker, 1, &mark, "u1@bench");
    assert_eq!(worker.ledger.verdict.misrouted, 1);
}

#[test]
fn two_fleets_on_one_source_address_stay_below_what_servers_take() {
    let clients = 9_000;
    let mut connections = std::collections::HashMap::new();
    for account in 0..2 * clients {
        *connections.entry(source_of(account, 1)).or_insert(0) += 1;
    }
    assert_eq!(connections.values().max(), Some(&CONNECTIONS_PER_ADDRESS));
    let first = connections.keys().all(|source| match source {
        IpAddr::V4(source) => source.octets()[..2] == [127, 0] && source.octets()[3] > 1,
        IpAddr::V6(_) => false,
    });
    assert!(first, "127.0.0.1 is left to others");
}

#[test]
fn a_schedule_is_shared_by_those_who_have_somebody_to_send_to() {
    let line = ["--scenario", "presence", "--clients", "3", "--clique", "2"];
    let mut worker = worker(&[&line[..], &["--rate", "1000"]].concat());
    for line in &mut worker.lines {
        line.client.step = Step::Ready;
    }
    worker.job.control.enter(Stage::Warm, 0);
    worker.look_at_stage();
    worker.now = 10_000_000_000;
    worker.send_what_is_due();
    assert_eq!(
        worker.ledger.verdict.sent, 1024,
        "a turn's worth, and none in vain"
    );
}

/// Clients that are ready and do what a phase says; the controller has let it begin.
fn mixed(phase: &str) -> Worker {
    mixed_with("", phase)
}

/// The same with more keys above the phase.
fn mixed_with(keys: &str, phase: &str) -> Worker {
    let path = std::path::Path::new("x.toml");
    let text = format!("clients = 4\n{keys}\n[[phase]]\n{phase}");
    let written = crate::scenario::Written::parse(path, "x", &text).unwrap();
    let mut load = Cli::parse_from(["loadgen"]).run.load;
    crate::scenario::apply(&written, &mut load, &|_| false).unwrap();
    let mut worker = worker_of(&load);
    for index in 0..4 {
        worker.jids[index] = format!("u{index}@bench/lg").into();
        worker.lines[index].client.step = Step::Ready;
        worker.lines[index].open = true;
    }
    worker.job.control.begin_phase(0);
    worker.job.control.enter(Stage::Measure, 1);
    worker.now = 1;
    worker.look_at_stage();
    worker
}

/// What a client has written, which it no longer has then.
fn written(worker: &mut Worker, index: usize) -> String {
    String::from_utf8(std::mem::take(&mut worker.lines[index].out)).unwrap()
}

/// Hands `to` what `from` wrote, as a server would.
fn relay(worker: &mut Worker, stanza: &str, from: u32, to: u32) {
    let name_end = stanza.find([' ', '>']).unwrap();
    let (name, rest) = stanza.split_at(name_end);
    let address = match rest.contains(" to='") {
        true => String::new(),
        false => format!(" to='u{to}@bench'"),
    };
    let stanza = format!("{name} from='u{from}@bench/lg'{address}{rest}");
    worker.digest(to, stanza.as_bytes());
}

#[test]
fn who_leaves_awaits_what_is_for_him_and_is_sent_nothing_more() {
    const MIX: &str = "presence = 1, reconnect = 1";
    let mut worker = mixed(&format!("window = 1\nmix = {{ {MIX} }}"));
    worker.mixed().free.clear();
    let presence = crate::scenario::Action::Presence;
    let reconnect = crate::scenario::Action::Reconnect;
    assert!(worker.act(0, presence, 5));
    let first = written(&mut worker, 0);
    assert!(worker.act(1, reconnect, 6) && !worker.act(1, reconnect, 6));
    worker.act_what_is_due();
    assert!(
        written(&mut worker, 1).is_empty(),
        "something is for him yet"
    );
    // What is sent meanwhile may come to him or not.
    assert!(worker.act(2, presence, 7));
    let second = written(&mut worker, 2);
    for to in [1, 2, 3] {
        relay(&mut worker, &first, 0, to);
    }
    worker.mixed().free.clear();
    worker.act_what_is_due();
    assert_eq!(written(&mut worker, 1), "</stream:stream>");
    for to in [0, 3] {
        relay(&mut worker, &second, 2, to);
    }
    assert_eq!(worker.mixed().open, 1, "his return");
    let verdict = worker.settle();
    assert_eq!((verdict.sent, verdict.expected, verdict.lost), (3, 6, 1));
    // He is back, and is told once what he missed.
    worker.come_back(1);
    worker.lines[1].client.step = Step::Ready;
    worker.on_ready(1, "u1@bench/lg".into());
    for _ in 0..2 {
        relay(&mut worker, &second, 2, 1);
    }
    let verdict = worker.settle();
    assert_eq!((verdict.delivered, verdict.lost, verdict.retold), (6, 0, 2));
    assert!(verdict.is_clean());
    relay(&mut worker, &second, 2, 1);
    assert_eq!(worker.settle().duplicated, 1);
}

#[test]
fn who_leaves_awaits_what_he_sent_himself() {
    use crate::scenario::Action::{Chat, Presence, Reconnect};
    let mut worker = mixed("window = 9\nmix = { chat = 1, presence = 1, reconnect = 1 }");
    worker.mixed().free.clear();
    assert!(worker.act(0, Chat, 5));
    let chat = written(&mut worker, 0);
    assert!(worker.act(0, Presence, 6));
    let presence = written(&mut worker, 0);
    assert!(worker.act(0, Reconnect, 7));
    let partner = worker.mixed().ledger(Chat).partner(0, 0);
    let mut leaves = |from, to, stanza: &str| {
        relay(&mut worker, stanza, from, to);
        worker.mixed().free.clear();
        worker.act_what_is_due();
        written(&mut worker, 0) == "</stream:stream>"
    };
    assert!(!leaves(0, partner, &chat));
    assert!(!leaves(0, 1, &presence) && !leaves(0, 2, &presence));
    assert!(leaves(0, 3, &presence), "all has come");
}

#[test]
fn who_waits_to_leave_for_a_copy_that_is_lost_has_not_lost_his_return() {
    use crate::scenario::Action::{Chat, Reconnect};
    let mut worker = mixed("window = 9\nmix = { chat = 1, reconnect = 1 }");
    worker.mixed().free.clear();
    assert!(worker.act(0, Chat, 5));
    let receiver = worker.mixed().ledger(Chat).partner(0, 0);
    assert!(worker.act(receiver, Reconnect, 6));
    worker.act_what_is_due();
    let verdict = worker.settle();
    assert_eq!((verdict.sent, verdict.expected, verdict.lost), (1, 1, 1));
    let chat = written(&mut worker, 0);
    relay(&mut worker, &chat, 0, receiver);
    worker.mixed().free.clear();
    worker.act_what_is_due();
    let verdict = worker.settle();
    assert_eq!((verdict.sent, verdict.expected, verdict.lost), (2, 2, 1));
}

#[test]
fn a_window_is_not_exceeded_by_what_the_phase_before_left() {
    let mut worker = mixed("window = 2\nmix = { roster = 1 }");
    worker.mixed().free.clear();
    let roster = crate::scenario::Action::Roster;
    let asked: Vec<String> = (0..4)
        .map(|_| {
            assert!(worker.act(0, roster, 5));
            let asked = written(&mut worker, 0);
            let id = scan::attribute(asked.as_bytes(), b"id").unwrap();
            String::from_utf8_lossy(id).into_owned()
        })
        .collect();
    worker.begin_phase();
    worker.mixed().free.retain(|client| *client == 0);
    let free = asked.iter().map(|id| {
        let answer = format!("<iq type='result' id='{id}'><query xmlns='jabber:iq:roster'/></iq>");
        worker.digest(0, answer.as_bytes());
        worker.mixed().free.len()
    });
    assert_eq!(free.collect::<Vec<_>>(), [0, 0, 1, 2]);
}

#[test]
fn what_comes_on_the_way_back_is_in_the_account() {
    let mut worker = mixed("window = 1\nmix = { presence = 1, reconnect = 1 }");
    worker.job.script = Arc::new(Script {
        roster: true,
        presence: true,
        ..Script::anonymous("bench")
    });
    worker.mixed().free.clear();
    assert!(worker.act(0, crate::scenario::Action::Presence, 5));
    let newest = written(&mut worker, 0);
    for to in [1, 2, 3] {
        relay(&mut worker, &newest, 0, to);
    }
    assert!(worker.act(1, crate::scenario::Action::Reconnect, 6));
    worker.mixed().free.clear();
    worker.act_what_is_due();
    relay(&mut worker, &newest, 0, 1);
    let verdict = worker.settle();
    assert_eq!(
        (verdict.duplicated, verdict.retold),
        (1, 0),
        "he still goes"
    );
    worker.come_back(1);
    // The server may give him another resource than before.
    worker.lines[1].client.step = Step::Bind;
    let bound = "<iq type='result' id='b'><bind><jid>u1@bench/new</jid></bind></iq>";
    worker.digest(1, bound.as_bytes());
    assert_eq!(worker.lines[1].client.step, Step::Roster);
    let told = newest.replacen(
        "<presence",
        "<presence from='u0@bench/lg' to='u1@bench/new'",
        1,
    );
    for (step, retold, duplicated) in [(Step::Roster, 1, 1), (Step::Presence, 1, 2)] {
        worker.lines[1].client.step = step;
        worker.digest(1, told.as_bytes());
        let verdict = worker.settle();
        let found = (verdict.retold, verdict.duplicated, verdict.misrouted);
        assert_eq!(found, (retold, duplicated, 0), "{step:?}");
    }
    let end = told.find("</status>").unwrap();
    let broken = format!("{}?{}", &told[..end - 1], &told[end..]);
    worker.digest(1, broken.as_bytes());
    worker.digest(1, b"<message type='error' from='u0@bench/lg'/>");
    // What carries no mark is the others' coming and going.
    worker.digest(1, b"<presence from='u2@bench/lg'/>");
    let verdict = worker.settle();
    assert_eq!((verdict.corrupted, verdict.bounced), (1, 1));
    assert!(worker.failures.is_empty(), "{:?}", worker.failures);
    assert_eq!(worker.lines[1].client.step, Step::Presence);
}

#[test]
fn a_return_that_fails_at_once_is_a_failure_and_no_more() {
    let mut worker = mixed("window = 1\nmix = { reconnect = 1 }");
    let features = Features {
        bind: false,
        ..worker.job.features
    };
    // A ring without the client's slot.
    let config = RingConfig {
        entries: 8,
        completions: 16,
        slots: 1,
    };
    worker.ring = Ring::new(&config, &features).expect("a small ring is to be had");
    worker.mixed().places[2] = crate::mix::Place::Away;
    worker.come_back(2);
    assert_eq!(worker.failures.values().sum::<u64>(), 1);
    assert_eq!(worker.logging_in, 0);
}

#[test]
fn an_answer_counts_once_and_must_be_the_whole_roster() {
    let mut worker = mixed("window = 1\nmix = { roster = 1 }");
    worker.mixed().free.clear();
    let roster = |id: &str, contacts: &[&str]| {
        let items = contacts
            .iter()
            .map(|name| format!("<item name='x' jid='{name}@bench'/>"));
        let items = items.collect::<String>();
        format!("<iq type='result' id='{id}'><query xmlns='jabber:iq:roster'>{items}</query></iq>")
    };
    let ask = |worker: &mut Worker| {
        assert!(worker.act(0, crate::scenario::Action::Roster, 5));
        let asked = written(worker, 0);
        scan::attribute(asked.as_bytes(), b"id").map(|id| String::from_utf8_lossy(id).into_owned())
    };
    let first = ask(&mut worker).unwrap();
    worker.digest(0, roster(&first, &["a", "b", "c"]).as_bytes());
    assert!(worker.settle().is_clean());
    worker.digest(0, roster(&first, &["a", "b", "c"]).as_bytes());
    assert_eq!(worker.settle().duplicated, 1);
    let second = ask(&mut worker).unwrap();
    assert_eq!(worker.settle().lost, 1);
    worker.digest(0, roster(&second, &["a", "b"]).as_bytes());
    // In another order it is the same; somebody else's of the same length is not.
    for (contacts, corrupted) in [
        (["c", "a", "b"], 1),
        (["a", "b", "d"], 2),
        (["a", "b", "b"], 3),
    ] {
        let next = ask(&mut worker).unwrap();
        worker.digest(0, roster(&next, &contacts).as_bytes());
        assert_eq!(worker.settle().corrupted, corrupted, "{contacts:?}");
    }
    let third = ask(&mut worker).unwrap();
    worker.digest(0, format!("<iq type='error' id='{third}'/>").as_bytes());
    let verdict = worker.settle();
    assert_eq!(
        (verdict.corrupted, verdict.bounced, verdict.lost),
        (3, 1, 0)
    );
    let times = worker.meter.mixed(0).of(crate::scenario::Action::Roster);
    assert_eq!(times.map(|times| times[0].len()), Some(6));
}

#[test]
fn what_nobody_can_do_stays_due_and_waits() {
    let mut worker = mixed("rate = 10\narrivals = 'fixed'\nmix = { chat = 1, directed = 1 }");
    for place in &mut worker.mixed().places {
        *place = crate::mix::Place::Away;
    }
    worker.now = SECOND;
    worker.act_what_is_due();
    assert_eq!(worker.settle().sent, 0);
    for place in &mut worker.mixed().places {
        *place = crate::mix::Place::Here;
    }
    worker.act_what_is_due();
    assert_eq!(worker.settle().sent, 10);
    // One waited for people, the others behind it: none for the generator.
    assert_eq!((worker.meter.waited, worker.meter.lag.len()), (10, 0));
    // What becomes due later does.
    worker.now = 2 * SECOND;
    worker.act_what_is_due();
    assert_eq!((worker.meter.waited, worker.meter.lag.len()), (10, 10));
}

/// Clients that are ready, each in its room.
fn in_rooms(mut worker: Worker) -> Worker {
    for index in 0..worker.job.count {
        let line = &mut worker.lines[index as usize];
        line.client.step = Step::Ready;
        line.open = true;
        worker.jids[index as usize] = format!("u{index}@bench/lg").into();
        worker.is_in_room(index);
    }
    worker
}

/// Hands `to` what an `occupant` wrote, as its room would.
fn reflect(worker: &mut Worker, stanza: &str, occupant: &str, to: u32) {
    let rest = &stanza[stanza.find(" type=").unwrap()..];
    let rest = rest.replacen(" to='room0@conference.bench'", "", 1);
    let head = format!("<message from='{occupant}' to='u{to}@bench/lg'");
    worker.digest(to, (head + &rest).as_bytes());
}

const ROOM: &str = "room0@conference.bench";

#[test]
fn what_is_said_in_a_room_comes_to_every_occupant_from_its_sender() {
    let line = ["--scenario", "muc", "--clients", "3", "--clique", "2"];
    let said = || {
        let mut worker = in_rooms(worker(&line));
        worker.send_one(0, 5);
        let stanza = written(&mut worker, 0);
        assert!(stanza.starts_with("<message type='groupchat' to='room0@conference.bench'>"));
        assert_eq!(stanza.len(), 200);
        (worker, stanza)
    };
    let own = format!("{ROOM}/u0");
    let (mut worker, stanza) = said();
    for to in [0, 1] {
        reflect(&mut worker, &stanza, &own, to);
    }
    let verdict = worker.settle();
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!(
        (verdict.expected, verdict.delivered, verdict.own_copies),
        (2, 2, 0)
    );
    reflect(&mut worker, &stanza, &own, 0);
    assert_eq!(
        worker.settle().duplicated,
        1,
        "one comes back to who said it"
    );
    let (worker, _) = said();
    assert_eq!(worker.ledger.settle().lost, 2);
    // Another room, another occupant, the room itself, and his real address.
    for (from, to) in [
        ("room1@conference.bench/u0", 1),
        ("room0@conference.bench/u1", 1),
        (ROOM, 1),
        ("u0@bench/lg", 1),
        (own.as_str(), 2),
    ] {
        let (mut worker, stanza) = said();
        reflect(&mut worker, &stanza, from, to);
        let verdict = worker.settle();
        let is_fault = verdict.misrouted + verdict.corrupted == 1;
        assert!(is_fault && verdict.delivered == 0, "{from}: {verdict:?}");
    }
    let (mut worker, stanza) = said();
    reflect(&mut worker, &stanza.replace("groupchat", "chat"), &own, 1);
    assert_eq!(worker.settle().corrupted, 1);
}

#[test]
fn what_rooms_tell_of_themselves_is_no_delivery_and_no_fault() {
    let line = ["--scenario", "muc", "--clients", "2"];
    let mut worker = in_rooms(worker(&line));
    let to = "to='u1@bench/lg'";
    for told in [
        format!("<presence from='{ROOM}/u0' {to}><x><status code='110'/></x></presence>"),
        format!("<presence from='{ROOM}/u0' type='unavailable' {to}/>"),
        format!("<message from='{ROOM}' type='groupchat' {to}><subject/></message>"),
        format!(
            "<message from='{ROOM}' type='groupchat' {to}><x><status code='104'/></x></message>"
        ),
        format!("<message from='{ROOM}' type='groupchat' {to}><body>Be kind.</body></message>"),
    ] {
        worker.digest(1, told.as_bytes());
        let verdict = worker.settle();
        assert_eq!(verdict, Verdict::default(), "{told}");
    }
    for (told, bounced, corrupted) in [
        (format!("<message from='{ROOM}' type='error' {to}/>"), 1, 0),
        (
            format!("<presence from='{ROOM}/u1' type='error' {to}/>"),
            2,
            0,
        ),
        (
            format!("<message from='{ROOM}/u0' type='groupchat' {to}><body>x</body></message>"),
            2,
            1,
        ),
    ] {
        worker.digest(1, told.as_bytes());
        let verdict = worker.settle();
        assert_eq!(
            (verdict.bounced, verdict.corrupted),
            (bounced, corrupted),
            "{told}"
        );
    }
}

#[test]
fn who_is_alone_in_a_room_hears_himself() {
    let line = ["--scenario", "muc", "--clients", "3", "--clique", "2"];
    let mut worker = in_rooms(worker(&line));
    worker.send_one(2, 5);
    assert_eq!(worker.job.plan.senders(3), 3);
    assert_eq!(worker.settle().expected, 1);
}

#[test]
fn a_window_of_a_room_has_room_once_the_last_copy_has_come() {
    let line = ["--scenario", "muc", "--clients", "2", "--closed"];
    let mut worker = in_rooms(worker(&line));
    worker.job.control.enter(Stage::Measure, 1);
    worker.now = 1;
    worker.look_at_stage();
    let stanza = written(&mut worker, 0);
    reflect(&mut worker, &stanza, &format!("{ROOM}/u0"), 0);
    assert!(written(&mut worker, 0).is_empty(), "one copy is on its way");
    reflect(&mut worker, &stanza, &format!("{ROOM}/u0"), 1);
    assert!(written(&mut worker, 0).starts_with("<message type='groupchat'"));
}

#[test]
fn who_is_the_last_in_a_room_keeps_it_open_and_who_is_away_need_not_hear_what_is_said() {
    use crate::scenario::Action::{Muc, Reconnect};
    let mut worker = in_rooms(mixed("window = 9\nmix = { muc = 1, reconnect = 1 }"));
    worker.mixed().free.clear();
    for away in [0, 2, 3] {
        worker.leave_room(away);
        worker.mixed().places[away as usize] = crate::mix::Place::Away;
        worker.lines[away as usize].client.step = Step::Join;
    }
    worker.come_to_room(3);
    let enters = written(&mut worker, 3);
    assert!(
        enters.starts_with("<presence to='room0@conference.bench/u3'>"),
        "{enters}"
    );
    assert!(worker.act(1, Reconnect, 5));
    worker.act_what_is_due();
    assert!(
        written(&mut worker, 1).is_empty(),
        "it would close behind him"
    );
    for back in [0, 2] {
        worker.logging_in = 1;
        worker.come_to_room(back);
        worker.on_ready(back, format!("u{back}@bench/lg").into());
        worker.lines[back as usize].client.step = Step::Ready;
    }
    worker.mixed().free.clear();
    written(&mut worker, 0);
    assert!(worker.act(0, Muc, 6));
    let said = written(&mut worker, 0);
    worker.act_what_is_due();
    assert_eq!(written(&mut worker, 1), "</stream:stream>");
    worker.lines[3].client.step = Step::Ready;
    worker.logging_in = 1;
    worker.on_ready(3, "u3@bench/lg".into());
    // 0 and 2 were there; 1 was leaving and 3 coming: they may hear it or not.
    for to in [0, 2, 3] {
        reflect(&mut worker, &said, &format!("{ROOM}/u0"), to);
    }
    let verdict = worker.ledger.verdict;
    assert!(verdict.is_clean(), "{verdict:?}");
    let verdict = worker.mixed().ledger(Muc).settle();
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!(
        (verdict.expected, verdict.delivered, verdict.retold),
        (2, 2, 1)
    );
}
