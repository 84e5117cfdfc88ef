//! Multi-User Chat (XEP-0045) as a client speaks it: the addresses of rooms and occupants, what is
//! written to enter one, and what the answers mean.

use crate::scan;

/// What a room is called in front of its number.
const ROOM: &str = "room";
/// What an occupant is called in front of its number.
const NICK: &str = "u";
/// Bytes of a domain (RFC 7622 3.2).
const DOMAIN_SIZE_MAX: usize = 1023;
/// The namespace, which is the feature of a service that has rooms, too (XEP-0045 6.2).
const XMLNS: &str = "http://jabber.org/protocol/muc";
/// The `id` of the question whether there are rooms.
pub const ASKING: &[u8] = b"q";
/// The `id` of the request that opens a room.
pub const OPENING: &[u8] = b"j";
/// This is the presence of who receives it (XEP-0045 7.2.2).
const SELF: &[u8] = b"110";
/// The room is new, and locked until it is configured (XEP-0045 10.1.1).
const CREATED: &[u8] = b"201";

/// The rooms of a run: one for each clique, all at one domain.
///
/// Rooms and nicks have the numbers of accounts, so that fleets with accounts of their own meet in
/// no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rooms {
    domain: String,
    size: u32,
}

/// What a stanza means to a client that enters a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing: another occupant, another room, or another matter.
    Other,
    /// The client is in; the room is new where that is true.
    Entered(bool),
    /// The client is in under another nick than it asked for.
    Renamed,
    /// The room's subject, which comes last of what an occupant is told at first.
    Subject,
    /// The room does not let it in.
    Refused,
}

/// Whether `domain` can be one.
///
/// # Errors
/// What is wrong with it, with the remedy.
pub fn domain(domain: &str) -> Result<String, String> {
    let is_plain = |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '.' | '_');
    match (1..=DOMAIN_SIZE_MAX).contains(&domain.len()) && domain.chars().all(is_plain) {
        true => Ok(domain.to_lowercase()),
        false => Err("takes the domain of the rooms, such as conference.example.org".to_owned()),
    }
}

/// Where rooms are by custom, on a server with this domain.
pub fn domain_default(server: &str) -> String {
    format!("conference.{}", server.to_lowercase())
}

impl Rooms {
    /// Rooms of `size` occupants each.
    pub fn new(domain: &str, size: u32) -> Rooms {
        assert!(size > 0, "a room has occupants");
        Rooms {
            domain: domain.to_owned(),
            size,
        }
    }

    /// Where they are.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The address of the room of client `index`, the first client having account `first`.
    pub fn room(&self, first: u32, index: u32) -> String {
        format!("{ROOM}{}@{}", first + index / self.size, self.domain)
    }

    /// The address of client `index` in it.
    pub fn occupant(&self, first: u32, index: u32) -> String {
        format!("{}/{NICK}{}", self.room(first, index), first + index)
    }

    /// Whether an address is that of a room, or of somebody in one.
    pub fn has(&self, address: &[u8]) -> bool {
        let domain = memchr::memchr(b'@', address)
            .and_then(|at| address[at + 1..].strip_prefix(self.domain.as_bytes()));
        domain.is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
    }

    /// What a stanza means to a client that enters a room as `occupant`.
    pub fn hear(&self, occupant: &str, element: &[u8]) -> Heard {
        let from = scan::attribute(element, b"from").unwrap_or(b"");
        let room = room_of(occupant).as_bytes();
        let is_of_room = from
            .strip_prefix(room)
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'/')));
        let type_ = scan::attribute(element, b"type");
        match (scan::local_name(element), type_) {
            _ if !is_of_room => Heard::Other,
            (b"presence", Some(b"error")) => Heard::Refused,
            (b"presence", None) if has_status(element, SELF) => match from == occupant.as_bytes() {
                true => Heard::Entered(has_status(element, CREATED)),
                false => Heard::Renamed,
            },
            // XEP-0045 7.2.15: a subject has no body beside it, and may be empty.
            (b"message", Some(b"groupchat"))
                if scan::text_of(element, b"subject").is_some()
                    && scan::text_of(element, b"body").is_none() =>
            {
                Heard::Subject
            }
            _ => Heard::Other,
        }
    }

    /// Asks whether there are rooms.
    pub fn write_question(&self, out: &mut Vec<u8>) {
        // XEP-0045 6.2
        out.extend_from_slice(b"<iq type='get' id='");
        out.extend_from_slice(ASKING);
        out.extend_from_slice(b"' to='");
        scan::escape(&self.domain, out);
        out.extend_from_slice(b"'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>");
    }

    /// What is wrong where nothing that answers so, or with this error condition, has rooms.
    ///
    /// # Errors
    /// That, with the remedy.
    pub fn check(&self, answer: &[u8], error: Option<&str>) -> Result<(), String> {
        let mut features = memchr::memmem::find_iter(answer, b"<feature");
        let is_muc = |at| scan::attribute(&answer[at..], b"var") == Some(XMLNS.as_bytes());
        if error.is_none() && features.any(is_muc) {
            return Ok(());
        }
        let domain = &self.domain;
        let why = error.unwrap_or("it is something else");
        Err(format!(
            "there are no rooms at {domain} ({why}); let --rooms name the domain that has them"
        ))
    }

    /// Why nobody can be in a room that answers with this error condition.
    pub fn refusal(&self, condition: &str) -> String {
        let domain = &self.domain;
        match condition {
            "conflict" => format!(
                "somebody else is in the rooms at {domain} under the nicks of this run \
                 ({condition}); let nobody use them meanwhile"
            ),
            _ => format!(
                "the rooms at {domain} refuse who enters ({condition}); let the server take \
                 everybody, and {} in a room",
                self.size
            ),
        }
    }
}

/// The room that somebody is in.
pub fn room_of(occupant: &str) -> &str {
    occupant.split('/').next().unwrap_or(occupant)
}

/// Asks to be let in as `occupant`, and for nothing that was said before.
pub fn write_join(occupant: &str, out: &mut Vec<u8>) {
    // XEP-0045 7.2.1 and 7.2.14
    out.extend_from_slice(b"<presence to='");
    scan::escape(occupant, out);
    out.extend_from_slice(
        b"'><x xmlns='http://jabber.org/protocol/muc'><history maxchars='0'/></x></presence>",
    );
}

/// Takes a new room as it is, so that others may enter.
pub fn write_opening(occupant: &str, out: &mut Vec<u8>) {
    // XEP-0045 10.1.2
    out.extend_from_slice(b"<iq type='set' id='");
    out.extend_from_slice(OPENING);
    out.extend_from_slice(b"' to='");
    scan::escape(room_of(occupant), out);
    out.extend_from_slice(
        b"'><query xmlns='http://jabber.org/protocol/muc#owner'>\
          <x xmlns='jabber:x:data' type='submit'/></query></iq>",
    );
}

/// Whether a presence has this status code.
fn has_status(presence: &[u8], code: &[u8]) -> bool {
    memchr::memmem::find_iter(presence, b"<status")
        .any(|at| scan::attribute(&presence[at..], b"code") == Some(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: &str = "room3@conference.example/u64";

    fn rooms() -> Rooms {
        Rooms::new("conference.example", 20)
    }

    fn heard(element: &str) -> Heard {
        rooms().hear(ME, element.as_bytes())
    }

    #[test]
    fn rooms_are_cliques_and_two_fleets_meet_in_none() {
        assert_eq!(rooms().occupant(0, 64), ME);
        assert_eq!(room_of(ME), "room3@conference.example");
        let all = |first: u32| (0..41).map(move |index| rooms().room(first, index));
        let of_one: std::collections::BTreeSet<_> = all(0).collect();
        assert_eq!(of_one.len(), 3);
        // The neighbours have the accounts behind.
        assert!(all(41).all(|room| !of_one.contains(&room)));
    }

    #[test]
    fn an_address_is_of_a_room_by_its_whole_domain() {
        for (address, is_one) in [
            ("room0@conference.example", true),
            ("room0@conference.example/u1", true),
            ("conference.example", false),
            ("room0@conference.example.org", false),
            ("room0@conference.example.org/u1", false),
            ("u1@example/conference.example", false),
            ("", false),
        ] {
            assert_eq!(rooms().has(address.as_bytes()), is_one, "{address}");
        }
    }

    #[test]
    fn the_answers_to_who_enters_are_told_apart() {
        let presence = |from: &str, codes: &str| {
            format!(
                "<presence from='{from}'><x xmlns='http://jabber.org/protocol/muc#user'><item \
                 affiliation=\"none\"/>{codes}</x></presence>"
            )
        };
        let room = room_of(ME);
        let own = "<status code='110'/>";
        assert_eq!(heard(&presence(ME, own)), Heard::Entered(false));
        let created = "<status code=\"201\"/><status code=\"110\"/>";
        assert_eq!(heard(&presence(ME, created)), Heard::Entered(true));
        let other = format!("{room}/other");
        assert_eq!(heard(&presence(&other, own)), Heard::Renamed);
        assert_eq!(heard(&presence(&other, "")), Heard::Other);
        let elsewhere = "room30@conference.example/u64";
        assert_eq!(heard(&presence(elsewhere, own)), Heard::Other);
        let message =
            |inner: &str| format!("<message from='{room}' type='groupchat'>{inner}</message>");
        for subject in ["<subject/>", "<subject></subject>", "<subject>x</subject>"] {
            assert_eq!(heard(&message(subject)), Heard::Subject, "{subject}");
        }
        // What is said under a subject is no change of it (XEP-0045 8.1).
        let said = "<subject>x</subject><body>y</body>";
        assert_eq!(heard(&message(said)), Heard::Other);
        let error = format!("<presence from='{ME}' type='error'><error/></presence>");
        assert_eq!(heard(&error), Heard::Refused);
    }

    #[test]
    fn what_is_no_domain_of_rooms_is_refused() {
        assert_eq!(domain("Rooms.Example"), Ok("rooms.example".to_owned()));
        for bad in ["", "a b", "room@conference.example", "x/y", "<x>", "a'b"] {
            assert!(domain(bad).is_err(), "{bad}");
        }
        assert_eq!(domain_default("Example"), "conference.example");
    }

    #[test]
    fn only_a_service_with_the_feature_has_rooms() {
        let answer = |feature: &str| {
            let features = format!("<feature var='x'/><feature var=\"{feature}\"/>");
            format!("<iq type='result'><query>{features}</query></iq>")
        };
        let check = |feature: &str| rooms().check(answer(feature).as_bytes(), None);
        assert_eq!(check(XMLNS), Ok(()));
        let other = check("http://jabber.org/protocol/muc#user").unwrap_err();
        assert!(
            other.contains("conference.example (it is something else)"),
            "{other}"
        );
        let error = rooms().check(b"<iq type='error'/>", Some("remote-server-not-found"));
        let error = error.unwrap_err();
        assert!(
            error.contains("(remote-server-not-found); let --rooms name"),
            "{error}"
        );
    }

    #[test]
    fn each_refusal_has_its_remedy() {
        for (condition, remedy) in [
            ("conflict", "let nobody use them"),
            ("registration-required", "let the server take everybody"),
        ] {
            let sentence = rooms().refusal(condition);
            assert!(sentence.contains(remedy), "{sentence}");
            assert!(sentence.contains(condition), "{sentence}");
            assert!(sentence.contains("conference.example"), "{sentence}");
        }
    }
}
