//! Sessions without sockets: ids, waiting, repeats, silence.

use super::*;
use stanza::framing::HEADER;

const FEATURES: &str = "<stream:features><bind xmlns='b'/></stream:features>";

const KNOWN: Terms = Terms {
    is_secured: true,
    size_max: 1 << 20,
    is_known: true,
};

/// A session, its stream's words, and the clock.
struct Table {
    session: Session,
    output: Vec<u8>,
    now: Timestamp,
    said: Vec<String>,
    over: bool,
}

fn asker(number: u32) -> Asker {
    Asker {
        shard: ShardId(0),
        conn: ConnId {
            index: number,
            generation: 1,
        },
    }
}

fn body(rid: u64, stream: &str) -> Body {
    Body {
        rid,
        sid: Some("s".into()),
        stream: stream.into(),
        is_empty: stream.is_empty(),
        ..Body::default()
    }
}

fn opening() -> Opening {
    Opening {
        is_addressed: true,
        version: Some((1, 6)),
        wait: Some(60),
        hold: Some(1),
        ..Opening::default()
    }
}

impl Table {
    fn new(opening: &Opening) -> Table {
        let now = Timestamp(0).plus_ms(1_000_000);
        Table {
            session: Session::new("s".into(), 10, opening, true, now),
            output: Vec::new(),
            now,
            said: Vec::new(),
            over: false,
        }
    }

    /// One whose first request is answered.
    fn open(opening: &Opening) -> Table {
        let mut table = Table::new(opening);
        assert_eq!(table.post(1, body(10, "<open>")), []);
        table.say(&format!("{HEADER} id='i' from='d'>{FEATURES}"));
        assert_eq!(table.turn().len(), 1);
        table
    }

    /// A request comes over a connection; what is answered.
    fn post(&mut self, from: u32, body: Body) -> Vec<(u32, String)> {
        let mut answers = Vec::new();
        self.session
            .receive(body, asker(from), KNOWN, self.now, &mut answers);
        while let Some(said) = self.session.take(self.now) {
            self.said.push(String::from_utf8(said).expect("text"));
        }
        let mut all = texts(answers);
        all.extend(self.turn());
        all
    }

    fn turn(&mut self) -> Vec<(u32, String)> {
        let mut answers = Vec::new();
        let session = &mut self.session;
        self.over |= session.answer(&mut self.output, false, self.now, &mut answers);
        texts(answers)
    }

    fn say(&mut self, text: &str) {
        self.output.extend_from_slice(text.as_bytes());
    }

    fn pass(&mut self, s: u64) {
        self.now = self.now.plus_ms(s * 1000);
    }
}

fn texts(answers: Vec<Answer>) -> Vec<(u32, String)> {
    let text = |answer: Answer| {
        let text = String::from_utf8(answer.body).expect("text");
        (answer.to.conn.index, text)
    };
    answers.into_iter().map(text).collect()
}

fn empty() -> String {
    format!("<body xmlns='{HTTP_BIND}'></body>")
}

fn ended(condition: &str) -> String {
    format!("<body xmlns='{HTTP_BIND}' type='terminate' condition='{condition}'/>")
}

/// XEP-0124 7.2; XEP-0206 4
#[test]
fn the_first_answer_says_how_things_are_and_has_the_features() {
    let mut table = Table::new(&Opening {
        acknowledges: true,
        ..opening()
    });
    assert_eq!(table.post(1, body(10, "<open>")), []);
    assert_eq!(table.said, ["<open>"]);
    table.say(&format!("{HEADER} id='i' from='d'>{FEATURES}"));
    let expected = format!(
        "<body xmlns='{HTTP_BIND}' ack='10' sid='s' wait='60' hold='1' requests='2' \
         inactivity='60' polling='2' maxpause='120' ver='1.6' xmlns:xmpp='urn:xmpp:xbosh' \
         xmpp:restartlogic='true' xmpp:version='1.0' authid='i' from='d' \
         xmlns:stream='http://etherx.jabber.org/streams'>{FEATURES}</body>"
    );
    assert_eq!(table.turn(), [(1, expected)]);
    // What is said later has a namespace of its own, and nothing of the first answer.
    assert_eq!(table.post(1, body(11, "<iq/>")), []);
    table.say("<iq type='result'/>");
    let expected =
        format!("<body xmlns='{HTTP_BIND}'><iq xmlns='jabber:client' type='result'/></body>");
    assert_eq!(table.turn(), [(1, expected)]);
}

#[test]
fn no_client_gets_more_than_there_is() {
    let session = Session::new(
        "s".into(),
        1,
        &Opening {
            version: Some((2, 0)),
            wait: Some(3_600),
            hold: Some(5),
            ..opening()
        },
        true,
        Timestamp(0),
    );
    assert_eq!((session.wait_s, session.hold), (WAIT_S_MAX, 1));
    assert_eq!(session.greeting.expect("not told").version, VERSION);
}

/// XEP-0124 8
#[test]
fn a_request_waits_for_words_for_the_next_request_or_for_its_time() {
    let mut table = Table::open(&opening());
    assert_eq!(table.post(1, body(11, "")), []);
    table.pass(59);
    assert_eq!(table.turn(), []);
    table.pass(1);
    assert_eq!(table.turn(), [(1, empty())]);
    assert_eq!(table.post(1, body(12, "")), []);
    table.pass(10);
    // The second one is held now.
    assert_eq!(table.post(2, body(13, "<a/>")), [(1, empty())]);
    table.say("<b/>");
    assert_eq!(table.turn()[0].0, 2);
    assert_eq!(table.said, ["<open>", "", "", "<a/>"]);
}

/// XEP-0124 14.2
#[test]
fn requests_are_taken_in_their_order_however_they_come() {
    let mut table = Table::open(&opening());
    assert_eq!(table.post(2, body(12, "<second/>")), []);
    assert_eq!(table.said, ["<open>"]);
    assert_eq!(table.post(1, body(11, "<first/>")), [(1, empty())]);
    assert_eq!(table.said[1..], ["<first/>", "<second/>"]);
    // Nor did who asks for nothing do so behind what was sent later.
    let mut table = Table::open(&opening());
    assert_eq!(table.post(2, body(12, "<second/>")), []);
    assert_eq!(table.post(1, body(11, "")), [(1, empty())]);
    assert!(!table.over);
}

/// XEP-0124 14.3
#[test]
fn who_asks_again_gets_the_same_answer_and_nothing_is_said_twice() {
    let mut table = Table::open(&opening());
    table.say("<one/>");
    let first = table.post(1, body(11, "<a/>"));
    table.say("<two/>");
    let second = table.post(1, body(12, "<b/>"));
    assert_eq!(table.post(5, body(11, "<a/>")), [(5, first[0].1.clone())]);
    assert_eq!(table.post(6, body(12, "<b/>")), [(6, second[0].1.clone())]);
    assert_eq!(table.said[1..], ["<a/>", "<b/>"]);
    // One more answer, and the first is forgotten.
    table.say("<three/>");
    assert_eq!(table.post(1, body(13, "")).len(), 1);
    let expected = ended("item-not-found");
    assert_eq!(table.post(7, body(11, "<a/>")), [(7, expected)]);
    assert!(table.over);
}

/// XEP-0124 14.3, 17.3
#[test]
fn a_request_that_waits_goes_on_over_the_connection_it_came_over_last() {
    let mut table = Table::open(&opening());
    assert_eq!(table.post(1, body(11, "<a/>")), []);
    let error = format!("<body xmlns='{HTTP_BIND}' type='error'/>");
    assert_eq!(table.post(2, body(11, "<a/>")), [(1, error)]);
    table.say("<b/>");
    assert_eq!(table.turn()[0].0, 2);
    assert_eq!(table.said[1..], ["<a/>"]);
}

#[test]
fn what_is_for_a_lost_connection_waits_for_the_next_one() {
    let mut table = Table::open(&opening());
    assert_eq!(table.post(1, body(11, "")), []);
    table.session.lose(asker(1), table.now);
    table.say("<b/>");
    assert_eq!(table.turn(), []);
    table.pass(30);
    let answers = table.post(2, body(11, ""));
    assert!(
        answers[0].0 == 2 && answers[0].1.contains("<b "),
        "{answers:?}"
    );
    // A stranger's connection is nobody's.
    assert_eq!(table.post(3, body(12, "")), []);
    table.session.lose(asker(1), table.now);
    table.say("<c/>");
    assert_eq!(table.turn()[0].0, 3);
}

#[test]
fn a_page_goes_on_where_the_one_before_it_left_off() {
    let mut table = Table::open(&opening());
    assert_eq!(table.post(1, body(11, "")), []);
    table.session.lose(asker(1), table.now);
    table.say("<b/>");
    let answers = table.post(2, body(12, ""));
    assert!(
        answers.len() == 1 && answers[0].0 == 2 && answers[0].1.contains("<b "),
        "{answers:?}"
    );
    // Whoever loses each connection at once leaves no more behind than may be open.
    for rid in 13..40 {
        let mut answers = Vec::new();
        let next = body(rid, "<a/>");
        let (session, now) = (&mut table.session, table.now);
        session.receive(next, asker(3), KNOWN, now, &mut answers);
        session.lose(asker(3), now);
        while session.take(now).is_some() {}
        table.say("<c/>");
        assert_eq!(table.turn(), []);
        assert!(table.session.held.len() <= 1 && !table.over, "{rid}");
    }
    let answers = table.post(4, body(40, ""));
    assert_eq!(answers[0].1.matches("<c ").count(), 27, "all that was said");
}

#[test]
fn the_end_waits_for_who_asks_next_but_not_for_ever() {
    let end = "<stream:error><conflict xmlns='e'/></stream:error></stream:stream>";
    let ends = |table: &mut Table| {
        let (session, output) = (&mut table.session, &mut table.output);
        session.answer(output, true, table.now, &mut Vec::new())
    };
    let mut table = Table::open(&opening());
    table.say("<b/>");
    let told = table.post(1, body(11, "<a/>"));
    table.say(end);
    assert!(!ends(&mut table));
    let at = table.now.plus_ms(ENDED_S_MAX * 1000);
    assert_eq!(table.session.arm(None), Some(at));
    table.pass(ENDED_S_MAX - 1);
    assert_eq!(table.post(1, body(11, "<a/>")), told);
    assert!(!ends(&mut table) && !table.session.is_abandoned(table.now));
    table.pass(1);
    assert!(table.session.is_abandoned(table.now), "though it asked");
    // Nor is it told to a connection that is lost.
    let mut table = Table::open(&opening());
    assert_eq!(table.post(1, body(11, "")), []);
    table.session.lose(asker(1), table.now);
    table.say(end);
    assert!(!ends(&mut table));
    let answers = table.post(2, body(12, ""));
    assert!(
        answers[0].0 == 2 && answers[0].1.contains("<conflict "),
        "{answers:?}"
    );
    assert!(table.over);
}

#[test]
fn of_a_stranger_little_is_kept_until_its_turn() {
    let stranger = Terms {
        is_known: false,
        size_max: 2 * EARLY_SIZE_MAX,
        ..KNOWN
    };
    for (rid, size, fails) in [
        (12, EARLY_SIZE_MAX, false),
        (12, EARLY_SIZE_MAX + 1, true),
        (11, 2 * EARLY_SIZE_MAX, false),
        (11, 2 * EARLY_SIZE_MAX + 1, true),
    ] {
        let mut table = Table::open(&opening());
        let mut answers = Vec::new();
        let (session, now) = (&mut table.session, table.now);
        let next = body(rid, &"x".repeat(size));
        session.receive(next, asker(1), stranger, now, &mut answers);
        assert_eq!(session.kept(), size);
        let told = table.turn();
        let expected = [(1, ended("policy-violation"))];
        assert_eq!(&told[..], if fails { &expected[..] } else { &[] });
    }
}

/// XEP-0124 14.2
#[test]
fn ids_beyond_the_window_end_the_session() {
    let mut table = Table::open(&opening());
    assert_eq!(table.post(1, body(11, "")), []);
    let answers = table.post(2, body(14, "<a/>"));
    let expected = ended("item-not-found");
    assert_eq!(answers, [(1, expected.clone()), (2, expected)]);
    assert!(table.over);
}

/// XEP-0124 11
#[test]
fn too_many_requests_end_the_session_but_for_one_that_is_the_last() {
    // The first of them is missing, so that none is answered.
    let mut table = Table::open(&opening());
    assert_eq!(table.post(2, body(12, "<b/>")), []);
    table.session.held.push_back(Request {
        rid: 9,
        asker: Some(asker(8)),
        since: table.now,
        key: None,
    });
    let pausing = Body {
        pause: Some(1),
        ..body(13, "")
    };
    assert_eq!(table.post(3, pausing), []);
    assert!(!table.over);
    let mut table = Table::open(&opening());
    assert_eq!(table.post(2, body(12, "<b/>")), []);
    table.session.held.push_back(Request {
        rid: 9,
        asker: Some(asker(8)),
        since: table.now,
        key: None,
    });
    assert_eq!(table.post(3, body(11, "<c/>")).len(), 3);
    assert!(table.over);
}

#[test]
fn who_asks_for_nothing_too_often_is_ended() {
    let mut table = Table::open(&opening());
    table.pass(POLLING_S);
    assert_eq!(table.post(1, body(11, "<a/>")), []);
    let expected = ended("policy-violation");
    assert_eq!(
        table.post(2, body(12, "")),
        [(1, expected.clone()), (2, expected.clone())]
    );
    // In time it may.
    let mut table = Table::open(&opening());
    assert_eq!(table.post(1, body(11, "")), []);
    table.pass(POLLING_S);
    assert_eq!(table.post(2, body(12, "")), [(1, empty())]);
    // XEP-0124 12
    let polling = Opening {
        hold: Some(0),
        ..opening()
    };
    let mut table = Table::new(&polling);
    assert_eq!(table.post(1, body(10, "<open>")).len(), 1);
    assert_eq!(table.post(1, body(11, "<a/>")), [(1, empty())]);
    assert_eq!(table.post(1, body(12, "")), [(1, empty())]);
    assert_eq!(table.post(1, body(13, "")), [(1, expected)]);
}

/// XEP-0124 10
#[test]
fn a_client_that_is_away_for_too_long_has_no_session() {
    let mut table = Table::open(&opening());
    assert_eq!(
        table.session.arm(None),
        Some(table.now.plus_ms(INACTIVITY_S * 1000))
    );
    assert_eq!(table.session.arm(None), None);
    // One for whom too much waits is looked at earlier.
    let soon = Some(table.now.plus_ms(5));
    assert_eq!(table.session.arm(Some(5)), soon);
    table.pass(INACTIVITY_S - 1);
    assert!(!table.session.is_abandoned(table.now));
    assert_eq!(table.post(1, body(11, "")), []);
    table.pass(INACTIVITY_S - 1);
    assert!(!table.session.is_abandoned(table.now), "a request waits");
    table.session.lose(asker(1), table.now);
    table.pass(INACTIVITY_S);
    assert!(table.session.is_abandoned(table.now));
}

/// XEP-0124 10
#[test]
fn a_pause_is_answered_at_once_without_words_and_gives_time() {
    let pause = |rid, s| Body {
        pause: Some(s),
        is_empty: false,
        ..body(rid, "")
    };
    let mut table = Table::open(&opening());
    assert_eq!(table.post(1, body(11, "")), []);
    table.say("<b/>");
    table.session.lose(asker(1), table.now);
    assert_eq!(table.post(1, body(11, "")).len(), 1);
    assert_eq!(table.post(1, body(12, "")), []);
    table.output.extend_from_slice(b"<c/>");
    let mut answers = Vec::new();
    let session = &mut table.session;
    session.receive(pause(13, 100), asker(2), KNOWN, table.now, &mut answers);
    while session.take(table.now).is_some() {}
    assert_eq!(table.turn(), [(1, empty()), (2, empty())]);
    assert_eq!(table.output, b"<c/>");
    table.pass(99);
    assert!(!table.session.is_abandoned(table.now));
    table.pass(1);
    assert!(table.session.is_abandoned(table.now));
    // The next request ends it, and longer ones are not to be had.
    assert_eq!(table.post(1, body(14, "")).len(), 1);
    table.pass(INACTIVITY_S);
    assert!(table.session.is_abandoned(table.now));
    assert_eq!(
        table.post(1, pause(15, PAUSE_S_MAX + 1)),
        [(1, ended("policy-violation"))]
    );
}

/// XEP-0124 13, 17.2; XEP-0206 6
#[test]
fn an_end_is_told_to_the_oldest_request_and_with_its_error() {
    let mut table = Table::open(&opening());
    let terminate = Body {
        terminates: true,
        ..body(12, "<presence/></stream:stream>")
    };
    assert_eq!(table.post(1, body(11, "<a/>")), []);
    table
        .session
        .receive(terminate, asker(2), KNOWN, table.now, &mut Vec::new());
    while table.session.take(table.now).is_some() {}
    table.say("</stream:stream>");
    let first = format!("<body xmlns='{HTTP_BIND}' type='terminate'></body>");
    let second = format!("<body xmlns='{HTTP_BIND}'/>");
    assert_eq!(table.turn(), [(1, first), (2, second)]);
    assert!(table.over);
    let mut table = Table::open(&opening());
    assert_eq!(table.post(1, body(11, "<a/>")), []);
    table.say("<x/><stream:error><conflict xmlns='e'/></stream:error></stream:stream>");
    let expected = format!(
        "<body xmlns='{HTTP_BIND}' type='terminate' condition='remote-stream-error' \
         xmlns:stream='http://etherx.jabber.org/streams'><x xmlns='jabber:client'/>\
         <stream:error><conflict xmlns='e'/></stream:error></body>"
    );
    assert_eq!(table.turn(), [(1, expected)]);
    // One that ends without a word is lost.
    let mut table = Table::open(&opening());
    assert_eq!(table.post(1, body(11, "<a/>")), []);
    let mut answers = Vec::new();
    let session = &mut table.session;
    assert!(session.answer(&mut table.output, true, table.now, &mut answers));
    assert_eq!(
        texts(answers)[0].1,
        ended("remote-connection-failed").replace("/>", "></body>")
    );
    let mut table = Table::new(&opening());
    assert_eq!(table.post(1, body(10, "<open>")), []);
    let error = "<stream:error><host-unknown xmlns='e'/></stream:error></stream:stream>";
    table.say(&format!("{HEADER} id='i'>{error}"));
    let answers = table.turn();
    assert!(
        answers[0].1.contains(" condition='host-unknown'"),
        "{answers:?}"
    );
    assert!(!answers[0].1.contains("sid="), "{answers:?}");
}

#[test]
fn much_is_told_in_pieces() {
    let mut table = Table::open(&opening());
    let large = format!("<a>{}</a>", "x".repeat(ANSWER_SIZE_MAX));
    table.say(&large.repeat(3));
    for (rid, left) in [(11, 2), (12, 1), (13, 0)] {
        let answers = table.post(1, body(rid, "<b/>"));
        assert_eq!(answers[0].1.matches("<a ").count(), 1);
        assert_eq!(table.output.len(), left * large.len());
    }
}

/// XEP-0124 15.4, 15.5
#[test]
fn each_key_is_the_source_of_the_one_before() {
    let hash = |key: &str| {
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
        let hex: Vec<String> = hash.as_ref().iter().map(|b| format!("{b:02X}")).collect();
        hex.concat()
    };
    let (one, other) = ("k1".to_owned(), "l1".to_owned());
    let keyed = |rid, key: Option<&str>, new: Option<&str>| Body {
        key: key.map(Into::into),
        new_key: new.map(Into::into),
        ..body(rid, "<a/>")
    };
    let begun = || {
        let mut table = Table::new(&opening());
        let last = hash(&hash(&one));
        assert_eq!(table.post(1, keyed(10, None, Some(&last))), []);
        table.say(&format!("{HEADER}>{FEATURES}"));
        assert_eq!(table.turn().len(), 1);
        table.say("<b/>");
        assert_eq!(table.post(1, keyed(11, Some(&hash(&one)), None)).len(), 1);
        table
    };
    let mut table = begun();
    assert_eq!(
        table.post(1, keyed(12, Some(&one), Some(&hash(&other)))),
        []
    );
    table.say("<b/>");
    assert_eq!(table.turn().len(), 1);
    assert_eq!(table.post(1, keyed(13, Some(&other), None)), []);
    assert!(!table.over);
    for wrong in [Some("k2"), None] {
        let mut table = begun();
        let expected = ended("item-not-found");
        assert_eq!(table.post(1, keyed(12, wrong, None)), [(1, expected)]);
        assert_eq!(table.said.len(), 2, "nothing was said");
    }
    // Nor is an answer told again to who has no key.
    let mut table = begun();
    assert_eq!(
        table.post(2, keyed(11, None, None)),
        [(2, ended("item-not-found"))]
    );
}

#[test]
fn what_began_by_tls_does_not_go_on_in_clear() {
    let mut table = Table::open(&opening());
    let mut answers = Vec::new();
    let next = body(11, "<a/>");
    let session = &mut table.session;
    let in_clear = Terms {
        is_secured: false,
        size_max: 0,
        ..KNOWN
    };
    session.receive(next, asker(9), in_clear, table.now, &mut answers);
    assert!(answers[0].is_last, "as a stranger's");
    assert_eq!(texts(answers), [(9, ended("item-not-found"))]);
    assert_eq!(table.post(1, body(11, "<a/>")), []);
    assert!(!table.over);
}

/// XEP-0124 9.1
#[test]
fn an_acknowledgement_is_told_where_it_says_something() {
    let mut table = Table::open(&Opening {
        acknowledges: true,
        ..opening()
    });
    assert_eq!(table.post(1, body(11, "")), []);
    let told = format!("<body xmlns='{HTTP_BIND}' ack='12'></body>");
    assert_eq!(table.post(2, body(12, "<a/>")), [(1, told)]);
    table.say("<b/>");
    assert!(!table.turn()[0].1.contains("ack="));
}
