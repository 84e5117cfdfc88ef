//! How a measured stanza looks in each dialect, and how its mark is found again.

use crate::body::{BROADCAST, Filler, MARK_SIZE_MIN, Mark};
use crate::plan::{Dialect, Plan, Scenario};
use crate::scan;

/// The floor's frame: destination and sender as four bytes each, little-endian, then the mark.
pub const FRAME_HEAD_SIZE: usize = 8;
/// The destination of the frame with which a client introduces itself, and of the answer to it.
pub const HELLO: u32 = u32::MAX - 1;

/// What a whole stanza from the server means for the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading<'a> {
    /// A measured stanza, and the `from` and `to` it bears.
    Measured(Mark, &'a [u8], &'a [u8]),
    /// It should be one, but its bytes are not as they were sent.
    Corrupted,
    /// An error came back.
    Bounced,
    /// A request that must be answered.
    Request,
    /// The server ends the stream with an error.
    StreamError,
    /// Of no interest: initial presence, a result.
    Other,
}

/// Writes and reads measured stanzas.
pub struct Shape {
    dialect: Dialect,
    scenario: Scenario,
    size: usize,
    filler: Filler,
}

impl Shape {
    /// What `plan` asks for.
    pub fn new(plan: &Plan) -> Shape {
        Shape {
            dialect: plan.dialect,
            scenario: plan.scenario,
            size: plan.stanza_size,
            filler: Filler::new(plan.seed, plan.stanza_size),
        }
    }

    /// The smallest size that every stanza can have whose receivers' JIDs are escaped so long.
    pub fn size_min(scenario: Scenario, directed: bool, jid_size: usize) -> usize {
        let to = match scenario {
            Scenario::Presence if !directed => 0,
            _ => " to=''".len() + jid_size,
        };
        let (head, start, tail) = envelope(scenario);
        head.len() + to + start.len() + tail.len() + MARK_SIZE_MIN
    }

    /// Appends the stanza that carries `mark`; `to` is the receiver's JID.
    pub fn write(&self, mark: &Mark, to: &str, out: &mut Vec<u8>) {
        if self.dialect == Dialect::Floor {
            out.extend_from_slice(&mark.to.to_le_bytes());
            out.extend_from_slice(&mark.from.to_le_bytes());
            self.filler.write(mark, self.size - FRAME_HEAD_SIZE, out);
            return;
        }
        self.write_sized(self.scenario, self.size, mark, to, out);
    }

    /// Appends a stanza as `scenario` has it, of another size.
    pub fn write_sized(
        &self,
        scenario: Scenario,
        size: usize,
        mark: &Mark,
        to: &str,
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        let (head, text, tail) = envelope(scenario);
        out.extend_from_slice(head);
        if mark.to != BROADCAST || scenario == Scenario::Muc {
            out.extend_from_slice(b" to='");
            scan::escape(to, out);
            out.push(b'\'');
        }
        out.extend_from_slice(text);
        let used = out.len() - start + tail.len();
        self.filler.write(mark, size.saturating_sub(used), out);
        out.extend_from_slice(tail);
    }

    /// Reads one whole element of a ready client's stream.
    pub fn read<'a>(&self, element: &'a [u8]) -> Reading<'a> {
        let (name, own_type) = match scan::local_name(element) {
            b"message" => (b"body".as_slice(), Some(b"chat".as_slice())),
            b"presence" => (b"status".as_slice(), None),
            b"iq" => {
                return match scan::attribute(element, b"type") {
                    Some(b"get" | b"set") => Reading::Request,
                    _ => Reading::Other,
                };
            }
            b"error" => return Reading::StreamError,
            _ => return Reading::Other,
        };
        let type_ = scan::attribute(element, b"type");
        if type_ == Some(b"error") {
            return Reading::Bounced;
        }
        self.read_text(element, name, type_ == own_type)
    }

    /// Reads the mark in the child called `name`, in a stanza that is of its type or not.
    fn read_text<'a>(&self, element: &'a [u8], name: &[u8], is_of_type: bool) -> Reading<'a> {
        match scan::text_and_rest(element, name) {
            None => Reading::Other,
            // A second body would be what a person reads as well.
            Some((_, rest)) if scan::text_of(rest, name).is_some() => Reading::Corrupted,
            Some((text, _)) => match self.filler.read(text, false) {
                Some(mark) if is_of_type => {
                    let address = |name| scan::attribute(element, name).unwrap_or(b"");
                    Reading::Measured(mark, address(b"from"), address(b"to"))
                }
                _ => Reading::Corrupted,
            },
        }
    }

    /// Reads a message or presence from a room; what carries no mark there tells of occupants.
    pub fn read_groupchat<'a>(&self, element: &'a [u8]) -> Reading<'a> {
        let type_ = scan::attribute(element, b"type");
        match scan::local_name(element) {
            _ if type_ == Some(b"error") => Reading::Bounced,
            b"message" => self.read_text(element, b"body", type_ == Some(b"groupchat")),
            _ => Reading::Other,
        }
    }

    /// Reads one frame of the floor.
    pub fn read_frame(&self, frame: &[u8]) -> Option<Mark> {
        let mark = self.filler.read(&frame[FRAME_HEAD_SIZE..], false)?;
        (frame[..4] == mark.to.to_le_bytes()).then_some(mark)
    }

    /// The frame with which client `index` introduces itself to the relay.
    pub fn write_hello(&self, index: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&HELLO.to_le_bytes());
        out.extend_from_slice(&index.to_le_bytes());
        out.resize(start + self.size, b' ');
    }
}

/// What stands before the address, between it and the mark, and behind that.
fn envelope(scenario: Scenario) -> (&'static [u8], &'static [u8], &'static [u8]) {
    match scenario {
        Scenario::Presence => (b"<presence", b"><status>", b"</status></presence>"),
        Scenario::Muc => (
            b"<message type='groupchat'",
            b"><body>",
            b"</body></message>",
        ),
        _ => (b"<message type='chat'", b"><body>", b"</body></message>"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::plan::{Pace, Part};

    fn shape(dialect: Dialect, scenario: Scenario) -> Shape {
        Shape::new(&Plan {
            target: "127.0.0.1:5222".parse().unwrap(),
            dialect,
            clients: 10,
            part: Part::whole(10),
            phases: Vec::new(),
            scenario,
            directed: false,
            partners: 1,
            clique: 5,
            pace: Pace::Closed { window: 1 },
            spins: true,
            ack_every: None,
            stanza_size: 200,
            connect_rate: None,
            core: None,
            seed: 1,
            threads: 1,
            clock: Clock::start(),
        })
    }

    const TO: &[u8] = b"u2@bench.localhost/lg";

    const MARK: Mark = Mark {
        from: 1,
        to: 2,
        sequence: 3,
        intended: 4,
        sent: 5,
    };

    #[test]
    fn stanzas_have_the_size_asked_for_and_read_back() {
        let bare = [(Scenario::Presence, BROADCAST), (Scenario::Chat, BROADCAST)];
        for scenario in [Scenario::Chat, Scenario::Presence, Scenario::Muc] {
            for to in [2, BROADCAST] {
                let shape = shape(Dialect::Xmpp, scenario);
                let mark = Mark { to, ..MARK };
                let mut out = b"before".to_vec();
                shape.write(&mark, "u2@bench.localhost/lg", &mut out);
                assert_eq!(out.len(), 206);
                let read = match scenario {
                    Scenario::Muc => shape.read_groupchat(&out[6..]),
                    _ => shape.read(&out[6..]),
                };
                let to = if bare.contains(&(scenario, to)) {
                    b""
                } else {
                    TO
                };
                assert_eq!(read, Reading::Measured(mark, b"", to));
            }
        }
    }

    #[test]
    fn the_smallest_size_is_kept_to_the_byte() {
        let jid = "u'2@bench.localhost/lg";
        let escaped = jid.len() + "&apos;".len() - 1;
        for scenario in [Scenario::Chat, Scenario::Presence, Scenario::Muc] {
            for (to, directed) in [(2, true), (BROADCAST, false)] {
                if scenario == Scenario::Chat && !directed {
                    continue;
                }
                let mut shape = shape(Dialect::Xmpp, scenario);
                let size = Shape::size_min(scenario, directed, escaped);
                for more in [0, 1] {
                    shape.size = size + more;
                    let mut out = Vec::new();
                    shape.write(&Mark { to, ..MARK }, jid, &mut out);
                    assert_eq!(out.len(), size + more, "{scenario:?} to {to}");
                }
            }
        }
    }

    #[test]
    fn frames_have_the_size_asked_for_and_read_back() {
        let shape = shape(Dialect::Floor, Scenario::Chat);
        let mut out = Vec::new();
        shape.write(&MARK, "", &mut out);
        assert_eq!(out.len(), 200);
        assert_eq!(shape.read_frame(&out), Some(MARK));
        out[0] ^= 1;
        assert_eq!(shape.read_frame(&out), None);
        out.clear();
        shape.write_hello(3, &mut out);
        assert_eq!(out.len(), 200);
    }

    #[test]
    fn corruption_errors_and_requests_are_told_apart() {
        let shape = shape(Dialect::Xmpp, Scenario::Chat);
        let mut out = Vec::new();
        shape.write(&MARK, "u2@bench.localhost/lg", &mut out);
        let text = String::from_utf8(out).unwrap();
        let stamped = text.replacen("<message", "<message from='a@b/c'", 1);
        assert_eq!(
            shape.read(stamped.as_bytes()),
            Reading::Measured(MARK, b"a@b/c", TO)
        );
        let other = text.replacen("chat", "headline", 1);
        assert_eq!(shape.read(other.as_bytes()), Reading::Corrupted);
        let bounced = text.replacen("chat", "error", 1);
        assert_eq!(shape.read(bounced.as_bytes()), Reading::Bounced);
        let at = text.rfind("</body>").unwrap();
        let mut corrupt = text.clone().into_bytes();
        corrupt[at - 1] ^= 1;
        assert_eq!(shape.read(&corrupt), Reading::Corrupted);
        let second = text.replacen("</body>", "</body><body>more</body>", 1);
        assert_eq!(shape.read(second.as_bytes()), Reading::Corrupted);
        assert_eq!(shape.read(b"<iq type='get' id='1'/>"), Reading::Request);
        assert_eq!(shape.read(b"<presence from='x'/>"), Reading::Other);
        assert_eq!(
            shape.read(b"<stream:error><reset/></stream:error>"),
            Reading::StreamError
        );
    }
}
