//! Clients whose network is lost, led through their way back.

use super::*;
use crate::acks::KEPT_MAX;
use crate::mix::Place;
use crate::scenario::Action::{Chat, Presence, Reconnect, Resume};

/// Four clients in sessions that can be resumed; one that is lost stays away for half a second.
fn resumable(mix: &str) -> Worker {
    let phase = format!("window = 9\npause = 0.5\nmix = {{ {mix}, resume = 1 }}");
    let mut worker = mixed_with("stream_management = true\nack_every = 2", &phase);
    for index in 0..4 {
        worker.lines[index].client = Client::in_session(&format!("s{index}"));
    }
    worker.mixed().free.clear();
    worker
}

/// The kernel closed the connection that was cut, and the time to come back has come.
fn come_back(worker: &mut Worker, index: usize) {
    worker.now = worker.lines[index].idle_since + SECOND / 2;
    worker.act_what_is_due();
    assert_eq!(worker.lines[index].client.step, Step::Lost, "not closed");
    let line = &mut worker.lines[index];
    assert!(line.closing && line.shut);
    (line.open, line.closing, line.shut) = (false, false, false);
    line.out.clear();
    worker.now -= 1;
    worker.act_what_is_due();
    assert_eq!(worker.lines[index].client.step, Step::Lost, "too early");
    worker.now += 1;
    worker.act_what_is_due();
    assert_eq!(worker.lines[index].client.step, Step::Connecting);
    worker.lines[index].client.step = Step::Resume;
}

/// The `id` of the only request in what was written.
fn asked(written: &str) -> String {
    let at = written.find("<iq ").expect("it asks");
    let id = scan::attribute(&written.as_bytes()[at..], b"id");
    String::from_utf8_lossy(id.expect("it has one")).into_owned()
}

#[test]
fn who_lost_the_network_misses_nothing_and_sends_again_what_the_server_has_not() {
    let mut worker = resumable("chat = 1");
    let other = |worker: &mut Worker, of: u32| worker.mixed().ledger(Chat).partner(of, 0);
    let partner = other(&mut worker, 0);
    let sender = (1..4).find(|one| other(&mut worker, *one) == 0);
    let sender = sender.expect("he is somebody's partner");
    let first = [5, 5].map(|due| {
        assert!(worker.act(0, Chat, due));
        written(&mut worker, 0)
    });
    assert!(first[1].ends_with("<r xmlns='urn:xmpp:sm:3'/>"));
    assert!(worker.act(0, Resume, 7) && !worker.act(0, Resume, 7));
    assert!(!worker.act(0, Presence, 7) && !worker.act(0, Reconnect, 7));
    // People go on writing, to him and he himself.
    assert!(worker.act(sender, Chat, 8) && worker.act(0, Chat, 9));
    assert_eq!(written(&mut worker, 0), "");
    let missed = written(&mut worker, sender as usize);
    assert_eq!(worker.mixed().open, 5);
    come_back(&mut worker, 0);
    worker.digest(0, b"<resumed xmlns='urn:xmpp:sm:3' previd='s0' h='1'/>");
    let again = written(&mut worker, 0);
    let second = first[1].split("<r ").next().expect("it has a stanza");
    let third = again.strip_prefix(second).expect("the second, once more");
    assert!(!again.contains(&first[0]), "the server has it");
    let end = third.find("</message>").expect("the third") + "</message>".len();
    let id = asked(&third[end..]);
    let last = format!(
        "<iq type='get' id='{id}' to='bench'><ping xmlns='urn:xmpp:ping'/></iq>\
         <r xmlns='urn:xmpp:sm:3'/>"
    );
    assert_eq!(third[end..], last);
    for stanza in [&first[0], second, &third[..end]] {
        relay(&mut worker, stanza, 0, partner);
    }
    relay(&mut worker, &missed, sender, 0);
    assert_eq!(worker.mixed().places[0], Place::Lost, "he may miss more");
    worker.digest(0, format!("<iq type='result' id='{id}'/>").as_bytes());
    assert_eq!(worker.mixed().places[0], Place::Here);
    // His three stanzas and the ping; what he got is the message and the answer.
    worker.digest(
        0,
        b"<a xmlns='urn:xmpp:sm:3' h='4'/><r xmlns='urn:xmpp:sm:3'/>",
    );
    let answer = written(&mut worker, 0);
    assert_eq!(answer, "<a xmlns='urn:xmpp:sm:3' h='2'/>");
    let acks = worker.lines[0].client.acks().expect("it is managed");
    assert_eq!((acks.unacked(), acks.kept().count()), (0, 0));
    assert_eq!((worker.mixed().open, worker.acks_open), (0, 0));
    let now = worker.now;
    let times = worker.meter.mixed(0).of(Resume).expect("it is timed");
    assert!(
        times[0].max().abs_diff(now - 7) < now / 1000,
        "from its due"
    );
    for index in 0..4 {
        // What the others sent is acknowledged, too.
        if let Some(acks) = worker.lines[index].client.acks() {
            let _ = acks.on_answer(acks.unacked(), |_| ());
        }
    }
    let verdict = worker.settle();
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!((verdict.sent, verdict.delivered, verdict.resent), (5, 5, 2));
}

#[test]
fn what_is_lost_or_comes_twice_when_a_session_goes_on_is_found() {
    for (h, times, lost, duplicated) in [(0, 2, 0, 1), (1, 1, 0, 0), (1, 0, 1, 0)] {
        let mut worker = resumable("chat = 1");
        let partner = worker.mixed().ledger(Chat).partner(0, 0);
        assert!(worker.act(0, Chat, 5));
        let stanza = written(&mut worker, 0);
        assert!(worker.act(0, Resume, 7));
        come_back(&mut worker, 0);
        let resumed = format!("<resumed xmlns='urn:xmpp:sm:3' previd='s0' h='{h}'/>");
        worker.digest(0, resumed.as_bytes());
        assert_eq!(written(&mut worker, 0).starts_with(&stanza), h == 0);
        for _ in 0..times {
            relay(&mut worker, &stanza, 0, partner);
        }
        let verdict = worker.settle();
        // Its way back is not over.
        assert_eq!((verdict.lost, verdict.duplicated), (lost + 1, duplicated));
    }
}

#[test]
fn a_server_that_has_what_was_never_sent_is_not_believed() {
    let mut worker = resumable("chat = 1");
    assert!(worker.act(0, Chat, 5));
    let stanza = written(&mut worker, 0);
    assert!(worker.act(0, Resume, 7));
    come_back(&mut worker, 0);
    worker.digest(0, b"<resumed xmlns='urn:xmpp:sm:3' previd='s0' h='2'/>");
    assert!(written(&mut worker, 0).starts_with(&stanza));
    assert_eq!(worker.settle().false_acks, 1);
}

#[test]
fn who_cannot_resume_logs_in_anew_and_is_counted() {
    let mut worker = resumable("chat = 1");
    assert!(worker.act(0, Chat, 5) && worker.act(0, Chat, 5));
    assert_eq!(worker.acks_open, 1);
    assert!(worker.act(0, Resume, 7));
    come_back(&mut worker, 0);
    written(&mut worker, 0);
    worker.digest(
        0,
        b"<failed xmlns='urn:xmpp:sm:3'><item-not-found/></failed>",
    );
    assert!(written(&mut worker, 0).contains("<bind "));
    assert_eq!(worker.mixed().places[0], Place::Away);
    assert_eq!((worker.acks_open, worker.lines[0].inflight), (0, 3));
    // What is sent to him now would be another session's.
    let sender = (1..4).find(|one| worker.mixed().ledger(Chat).partner(*one, 0) == 0);
    assert!(!worker.act(sender.expect("there is one"), Chat, 8));
    worker.lines[0].client.step = Step::Ready;
    worker.on_ready(0, "u0@bench/lg".into());
    assert_eq!(
        (worker.mixed().places[0], worker.logging_in),
        (Place::Here, 0)
    );
    let verdict = worker.settle();
    assert_eq!(
        (verdict.not_resumed, verdict.lost, verdict.unacked),
        (1, 2, 0)
    );
    assert!(!verdict.is_clean());
    assert!(
        worker.meter.mixed(0).of(Resume).is_none(),
        "it was no way back"
    );
}

#[test]
fn who_has_kept_all_that_he_may_begins_nothing_more() {
    let mut worker = resumable("chat = 1");
    assert!(worker.act(0, Resume, 7));
    for number in 0..KEPT_MAX {
        assert!(worker.act(0, Chat, 8), "{number}");
    }
    assert!(!worker.act(0, Chat, 8));
}

#[test]
fn a_network_that_fails_before_the_session_goes_on_is_a_failure() {
    let mut worker = resumable("chat = 1");
    assert!(worker.act(0, Resume, 7));
    come_back(&mut worker, 0);
    worker.fail(0, "the server closed the connection".to_owned());
    assert_eq!(worker.failures.values().sum::<u64>(), 1);
    let sender = (1..4).find(|one| worker.mixed().ledger(Chat).partner(*one, 0) == 0);
    assert!(!worker.act(sender.expect("there is one"), Chat, 8));
    assert!(!worker.act(0, Chat, 8));
}
