//! A server that logs everybody in and has nothing but rooms: what the generator's tests of them
//! run against. A thread for each connection, and one lock over all rooms.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use loadgen::scan::{self, Piece};

/// What it does wrong, once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    #[default]
    None,
    /// It has no rooms at all.
    NoRooms,
    /// A copy is lost.
    Lose,
    /// A copy comes twice.
    Double,
    /// A copy comes behind the next of its sender.
    Swap,
    /// A copy comes from somebody else.
    Rename,
    /// A copy has another letter.
    Alter,
}

/// The copy that goes wrong: one of the measured part, or of what is before.
const FAULTY_COPY: u32 = 40;
const ROOMS: &str = "conference.bench";
const HEAD: &str = "<?xml version='1.0'?><stream:stream from='bench' id='1' version='1.0' \
                    xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";

/// Starts one; it ends with the test.
pub(crate) fn serve(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let world = Arc::new(Mutex::new(World {
        fault,
        ..World::default()
    }));
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let world = world.clone();
            let stream = stream.expect("a connection");
            std::thread::spawn(move || Session::new(number, stream, world).attend());
        }
    });
    address
}

#[derive(Default)]
struct World {
    fault: Fault,
    rooms: BTreeMap<String, Room>,
    copies: u32,
    /// For whom, of which sender, and what comes late.
    held: Option<(String, String, String)>,
}

#[derive(Default)]
struct Room {
    is_open: bool,
    occupants: Vec<Occupant>,
}

struct Occupant {
    nick: String,
    jid: String,
    stream: TcpStream,
}

struct Session {
    jid: String,
    stream: TcpStream,
    world: Arc<Mutex<World>>,
    is_known: bool,
    /// Its room and nick.
    place: Option<(String, String)>,
}

fn say(mut stream: &TcpStream, text: &str) {
    // Who has gone hears nothing.
    let _ = stream.write_all(text.as_bytes());
}

impl Session {
    fn new(number: usize, stream: TcpStream, world: Arc<Mutex<World>>) -> Session {
        Session {
            jid: format!("guest{number}@bench/lg"),
            stream,
            world,
            is_known: false,
            place: None,
        }
    }

    fn attend(mut self) {
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let size = match scan::next_piece(&bytes) {
                Piece::Incomplete => {
                    match (&self.stream).read(&mut chunk) {
                        Ok(0) | Err(_) => break,
                        Ok(size) => bytes.extend_from_slice(&chunk[..size]),
                    }
                    continue;
                }
                Piece::Space(size) => size,
                Piece::Header(size) => {
                    let offer = match self.is_known {
                        true => "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>",
                        false => "<mechanisms><mechanism>ANONYMOUS</mechanism></mechanisms>",
                    };
                    let features = format!("<stream:features>{offer}</stream:features>");
                    say(&self.stream, &(HEAD.to_owned() + &features));
                    size
                }
                Piece::Element(size) => {
                    let element = String::from_utf8_lossy(&bytes[..size]).into_owned();
                    self.on_element(&element);
                    size
                }
                Piece::End(_) => break,
                Piece::Broken => panic!("clients send XML"),
            };
            bytes.drain(..size);
        }
        self.leave();
        say(&self.stream, "</stream:stream>");
        // Others have clones of it.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    fn on_element(&mut self, element: &str) {
        let attribute = |name: &str| {
            let value = scan::attribute(element.as_bytes(), name.as_bytes());
            String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
        };
        let (id, to, type_) = (attribute("id"), attribute("to"), attribute("type"));
        let world = self.world.clone();
        let mut world = world.lock().expect("nobody panics while holding it");
        match scan::local_name(element.as_bytes()) {
            b"auth" => {
                self.is_known = true;
                say(
                    &self.stream,
                    "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
                );
            }
            b"iq" => self.on_iq(&mut world, element, &id, &to),
            b"presence" if !to.is_empty() => self.enter(&mut world, &to),
            b"message" if type_ == "groupchat" => self.speak(&mut world, element, &to),
            _ => {}
        }
    }

    fn on_iq(&self, world: &mut World, element: &str, id: &str, to: &str) {
        let mut payload = String::new();
        if id == "b" {
            payload = format!("<bind><jid>{}</jid></bind>", self.jid);
        } else if element.contains("disco#info") {
            if to != ROOMS || world.fault == Fault::NoRooms {
                let error = "<error><remote-server-not-found xmlns='x'/></error>";
                return say(
                    &self.stream,
                    &format!("<iq type='error' id='{id}'>{error}</iq>"),
                );
            }
            payload = "<query><feature var='http://jabber.org/protocol/muc'/></query>".to_owned();
        } else if element.contains("muc#owner") {
            let room = world.rooms.get_mut(to).expect("it is new");
            room.is_open = true;
        }
        say(
            &self.stream,
            &format!("<iq type='result' id='{id}' from='{to}'>{payload}</iq>"),
        );
    }

    fn enter(&mut self, world: &mut World, to: &str) {
        let (address, nick) = to.split_once('/').expect("an occupant");
        let room = world.rooms.entry(address.to_owned()).or_default();
        let is_new = room.occupants.is_empty();
        // XEP-0045 10.1.1
        if !is_new && !room.is_open {
            let error = "<error type='cancel'><item-not-found xmlns='x'/></error>";
            let refusal = format!("<presence from='{to}' type='error'>{error}</presence>");
            return say(&self.stream, &refusal);
        }
        for other in &room.occupants {
            say(
                &other.stream,
                &format!("<presence from='{to}' to='{}'/>", other.jid),
            );
            let theirs = &other.nick;
            let there = format!("<presence from='{address}/{theirs}' to='{}'/>", self.jid);
            say(&self.stream, &there);
        }
        let created = if is_new { "<status code='201'/>" } else { "" };
        let own = format!("<x><status code='110'/>{created}</x>");
        let jid = &self.jid;
        say(
            &self.stream,
            &format!(
                "<presence from='{to}' to='{jid}'>{own}</presence>\
                 <message from='{address}' to='{jid}' type='groupchat'><subject/></message>"
            ),
        );
        room.occupants.push(Occupant {
            nick: nick.to_owned(),
            jid: self.jid.clone(),
            stream: self.stream.try_clone().expect("there are descriptors"),
        });
        self.place = Some((address.to_owned(), nick.to_owned()));
    }

    fn leave(&mut self) {
        let mut world = self.world.lock().expect("nobody panics while holding it");
        let Some((address, nick)) = self.place.take() else {
            return;
        };
        let room = world.rooms.get_mut(&address).expect("it has an occupant");
        room.occupants.retain(|one| one.jid != self.jid);
        for other in &room.occupants {
            let gone = format!("<presence from='{address}/{nick}' type='unavailable'/>");
            say(&other.stream, &gone);
        }
        if room.occupants.is_empty() {
            world.rooms.remove(&address);
        }
    }

    fn speak(&self, world: &mut World, element: &str, to: &str) {
        let (address, nick) = self.place.as_ref().expect("it is in a room");
        assert_eq!(to, address, "people speak where they are");
        let room = &world.rooms[address];
        let body = &element[element.find("<body>").expect("a body")..];
        for one in &room.occupants {
            let copy = |nick: &str, body: &str| {
                let head = format!("<message type='groupchat' from='{address}/{nick}'");
                format!("{head} to='{}'>{body}", one.jid)
            };
            let right = copy(nick, body);
            world.copies += 1;
            let text = match world.fault {
                _ if world.copies != FAULTY_COPY => right,
                Fault::Lose => continue,
                Fault::Double => right.clone() + &right,
                Fault::Swap => {
                    world.held = Some((one.jid.clone(), nick.clone(), right));
                    continue;
                }
                Fault::Rename => copy("u99", body),
                Fault::Alter => copy(nick, &body.replacen("</body>", "!</body>", 1)),
                Fault::None | Fault::NoRooms => right,
            };
            say(&one.stream, &text);
            let is_next = |held: &(String, String, String)| held.0 == one.jid && held.1 == *nick;
            if world.held.as_ref().is_some_and(is_next)
                && let Some((.., late)) = world.held.take()
            {
                say(&one.stream, &late);
            }
        }
    }
}
