//! A stand-in for a server whose sessions go on over another connection (XEP-0198 5), rightly or
//! not: whatever goes wrong with one is found.

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use loadgen::result::{RunResult, exit};
use loadgen::scan::{self, Piece};
use loadgen::{heed, run};

/// Two people write to each other, and now and then one of them loses the network.
const SCENARIO: &str = "
clients = 2
warmup = 0
stream_management = true
ack_every = 4

[[phase]]
duration = 1.5
rate = 300
pause = 0.1
mix = { chat = 30, resume = 1 }
";
/// Messages to a client between two requests for acknowledgement.
const ASK_EVERY: u32 = 4;

/// What the stand-in does wrong, each time that it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing.
    None,
    /// The first message that was missed is not sent again.
    Loses,
    /// One that the client has is sent again.
    Duplicates,
    /// The first two that were missed are sent in the wrong order.
    Reorders,
    /// What was handled is said not to be, so that the client sends it again.
    Forgets,
    /// More is said to be handled than was ever sent.
    Invents,
    /// A session that waits is said to be unknown.
    Refuses,
    /// The session goes on under another name.
    Renames,
}

/// One session; it outlives its connections.
#[derive(Default)]
struct Session {
    /// The number of its connection, and where that is written to.
    out: Option<(usize, TcpStream)>,
    /// Stanzas of the client.
    handled: u32,
    /// Of these, what the client was told.
    told: u32,
    /// What the client has not acknowledged, in order.
    unacked: VecDeque<String>,
    /// How much it has.
    acked: u32,
    /// The last message of that.
    last: Option<String>,
}

impl Session {
    fn write(&mut self, text: &str) {
        if let Some((_, out)) = &mut self.out {
            // Who is gone is noticed by who reads.
            let _ = out.write_all(text.as_bytes());
        }
    }

    fn deliver(&mut self, stanza: String) {
        self.write(&stanza);
        self.unacked.push_back(stanza);
        if (self.acked + self.unacked.len() as u32).is_multiple_of(ASK_EVERY) {
            self.write("<r xmlns='urn:xmpp:sm:3'/>");
        }
    }

    fn on_acknowledged(&mut self, h: u32) {
        while self.acked < h {
            let stanza = self.unacked.pop_front().expect("it was sent");
            self.acked += 1;
            if stanza.starts_with("<message") {
                self.last = Some(stanza);
            }
        }
    }

    /// Says that it goes on and sends what was missed, but for the fault.
    fn resume(&mut self, user: &str, h: u32, fault: Fault) {
        self.on_acknowledged(h);
        let mut again: Vec<String> = self.unacked.iter().cloned().collect();
        let messages: Vec<usize> = (0..again.len())
            .filter(|at| again[*at].starts_with("<message"))
            .collect();
        match (fault, &messages[..]) {
            (Fault::Loses, [first, ..]) => {
                again.remove(*first);
                self.unacked.remove(*first);
            }
            (Fault::Duplicates, _) => {
                if let Some(stanza) = self.last.take() {
                    again.insert(0, stanza.clone());
                    self.unacked.push_front(stanza);
                }
            }
            (Fault::Reorders, [first, second, ..]) => again.swap(*first, *second),
            _ => {}
        }
        if fault == Fault::Forgets {
            self.handled = self.told;
        }
        self.told = self.handled;
        let h = match fault {
            Fault::Invents => self.handled + 1000,
            _ => self.handled,
        };
        let name = match fault {
            Fault::Renames => "other",
            _ => user,
        };
        self.write(&format!(
            "<resumed xmlns='urn:xmpp:sm:3' previd='{name}' h='{h}'/>"
        ));
        self.write(&again.concat());
        self.write("<r xmlns='urn:xmpp:sm:3'/>");
    }
}

/// All sessions, by the name of the user, which is that of the session, too.
type Sessions = Arc<Mutex<HashMap<String, Session>>>;

/// One connection.
struct Connection {
    number: usize,
    stream: TcpStream,
    user: String,
    sessions: Sessions,
    fault: Fault,
}

impl Connection {
    fn write(&mut self, text: &str) {
        let _ = self.stream.write_all(text.as_bytes());
    }

    /// Reads to the end; what is not closed in order may be resumed.
    fn serve(mut self) {
        let mut bytes = Vec::new();
        loop {
            let piece = scan::next_piece(&bytes);
            let size = match piece {
                Piece::Space(size) => size,
                Piece::Header(size) => {
                    self.on_header();
                    size
                }
                Piece::Element(size) => {
                    self.on_element(&bytes[..size]);
                    size
                }
                Piece::End(_) | Piece::Broken => break self.write("</stream:stream>"),
                Piece::Incomplete => {
                    let mut more = [0; 4096];
                    match self.stream.read(&mut more) {
                        Ok(count @ 1..) => bytes.extend_from_slice(&more[..count]),
                        Ok(_) | Err(_) => break,
                    }
                    continue;
                }
            };
            bytes.drain(..size);
        }
        let mut sessions = self.sessions.lock().expect("nobody panics");
        if let Some(session) = sessions.get_mut(&self.user) {
            // Another connection may have taken it over.
            session.out.take_if(|(number, _)| *number == self.number);
        }
    }

    fn on_header(&mut self) {
        let features = match self.user.as_str() {
            "" => {
                "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
                 <mechanism>PLAIN</mechanism></mechanisms>"
            }
            _ => {
                "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>\
                 <sm xmlns='urn:xmpp:sm:3'/>"
            }
        };
        self.write(&format!(
            "<stream:stream from='test' id='1' version='1.0' xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams'>\
             <stream:features>{features}</stream:features>"
        ));
    }

    fn on_element(&mut self, element: &[u8]) {
        let attribute = |name: &str| {
            let value = scan::attribute(element, name.as_bytes()).unwrap_or_default();
            String::from_utf8_lossy(value).into_owned()
        };
        let h = attribute("h").parse().unwrap_or_default();
        let id = attribute("id");
        match scan::local_name(element) {
            b"auth" => {
                let text = scan::text_of(element, b"auth").expect("an initial response");
                let text = BASE64.decode(text).expect("it is base64");
                let mut parts = text.split(|byte| *byte == 0).skip(1);
                let user = parts.next().expect("PLAIN has a name");
                self.user = String::from_utf8_lossy(user).into_owned();
                self.write("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
            }
            b"iq" if id == "b" => {
                let jid = format!("<jid>{}@test/lg</jid>", self.user);
                let bind = "urn:ietf:params:xml:ns:xmpp-bind";
                self.write(&format!(
                    "<iq type='result' id='b'><bind xmlns='{bind}'>{jid}</bind></iq>"
                ));
            }
            b"enable" => {
                let out = self.stream.try_clone().expect("there are descriptors");
                let session = Session {
                    out: Some((self.number, out)),
                    ..Session::default()
                };
                let mut sessions = self.sessions.lock().expect("nobody panics");
                sessions.insert(self.user.clone(), session);
                drop(sessions);
                let user = self.user.clone();
                self.write(&format!(
                    "<enabled xmlns='urn:xmpp:sm:3' id='{user}' resume='true'/>"
                ));
            }
            b"resume" if self.fault == Fault::Refuses => {
                self.write("<failed xmlns='urn:xmpp:sm:3'><item-not-found/></failed>");
            }
            b"resume" => {
                assert_eq!(attribute("previd"), self.user);
                let out = self.stream.try_clone().expect("there are descriptors");
                self.on_session(|number, session, user, fault| {
                    session.out = Some((number, out));
                    session.resume(user, h, fault);
                });
            }
            b"r" => self.on_session(|_, session, _, _| {
                session.told = session.handled;
                let h = session.handled;
                session.write(&format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
            }),
            b"a" => self.on_session(|_, session, _, _| session.on_acknowledged(h)),
            name => self.on_stanza(name, &id, element),
        }
    }

    fn on_session(&self, then: impl FnOnce(usize, &mut Session, &str, Fault)) {
        let mut sessions = self.sessions.lock().expect("nobody panics");
        if let Some(session) = sessions.get_mut(&self.user) {
            then(self.number, session, &self.user, self.fault);
        }
    }

    fn on_stanza(&mut self, name: &[u8], id: &str, element: &[u8]) {
        let mut sessions = self.sessions.lock().expect("nobody panics");
        let Some(own) = sessions.get_mut(&self.user) else {
            return;
        };
        own.handled += 1;
        match name {
            b"iq" => {
                let roster = scan::holds(element, b"jabber:iq:roster");
                let query = match roster {
                    true => "<query xmlns='jabber:iq:roster'/>",
                    false => "",
                };
                own.deliver(format!("<iq type='result' id='{id}'>{query}</iq>"));
            }
            b"message" => {
                let to = scan::attribute(element, b"to").unwrap_or_default();
                let to = String::from_utf8_lossy(to);
                let receiver = to.split('@').next().unwrap_or_default();
                let text = String::from_utf8_lossy(element);
                let from = format!("<message from='{}@test/lg'", self.user);
                let stamped = text.replacen("<message", &from, 1);
                if let Some(session) = sessions.get_mut(receiver) {
                    session.deliver(stamped);
                }
            }
            _ => {}
        }
    }
}

/// What a run against a stand-in with this fault comes to.
fn run_against(fault: Fault) -> RunResult {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        let sessions = Sessions::default();
        for (number, stream) in listener.incoming().enumerate() {
            let Ok(stream) = stream else { return };
            let connection = Connection {
                number,
                stream,
                user: String::new(),
                sessions: sessions.clone(),
                fault,
            };
            std::thread::spawn(|| connection.serve());
        }
    });
    let name = format!("loadgen-resume-{}-{fault:?}.toml", std::process::id());
    let file = std::env::temp_dir().join(name);
    std::fs::write(&file, SCENARIO).expect("the directory is writable");
    let line = format!(
        "loadgen --quiet --tls none --domain test --password p --port {port} --scenario {}",
        file.display()
    );
    let cli = heed::read(line.split(' ')).expect("a line");
    let features = ring::probe().expect("io_uring is needed here");
    let ran = run::server(&cli.run, features);
    std::fs::remove_file(&file).expect("it is ours");
    ran.expect("the clients log in").result
}

#[test]
fn a_session_that_goes_on_rightly_loses_and_repeats_nothing() {
    let result = run_against(Fault::None);
    let verdict = &result.verdict;
    assert!(verdict.is_clean(), "{verdict:?} {:?}", result.failures);
    assert_eq!(verdict.delivered, verdict.expected);
    assert!(verdict.resent > 0, "{verdict:?}");
    let phase = &result.scenario_phases[0];
    let resume = phase
        .actions
        .iter()
        .find(|one| one.latency.name == "resume");
    assert!(resume.is_some_and(|one| one.latency.count > 0));
    let parts: Vec<_> = result
        .phases
        .iter()
        .map(|part| part.name.as_str())
        .collect();
    assert!(parts.contains(&"resume"), "{parts:?}");
}

/// The run has failed for this, which is counted and said.
fn assert_found(fault: Fault, count: &str) {
    let result = run_against(fault);
    let faults: HashMap<_, _> = result.verdict.faults().into_iter().collect();
    assert_eq!(result.exit, exit::UNVERIFIED, "{fault:?}: {faults:?}");
    assert!(faults[count] > 0, "{fault:?}: {faults:?}");
    let named = format!("{} {count}", faults[count]);
    assert!(result.reasons.contains(&named), "{:?}", result.reasons);
    assert!(result.failures.is_empty(), "{:?}", result.failures);
}

#[test]
fn what_comes_twice_or_out_of_order_or_was_never_sent_is_found() {
    assert_found(Fault::Duplicates, "duplicated");
    assert_found(Fault::Reorders, "reordered");
    assert_found(Fault::Forgets, "duplicated");
    assert_found(Fault::Invents, "false acks");
}

#[test]
fn a_message_that_is_not_sent_again_is_found() {
    assert_found(Fault::Loses, "lost");
}

#[test]
fn a_session_that_is_no_more_is_found() {
    assert_found(Fault::Refuses, "not resumed");
}

#[test]
fn a_session_that_was_not_asked_for_is_a_failure() {
    let result = run_against(Fault::Renames);
    let reason = "the server resumed another session than was asked for";
    assert!(
        result.failures.contains_key(reason),
        "{:?}",
        result.failures
    );
    assert_eq!(result.exit, exit::UNVERIFIED);
}
