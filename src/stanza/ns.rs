//! Namespaces, interned: one byte each, found by one multiplication and one comparison.
//!
//! Invariant: `Ns::intern(ns.as_str().as_bytes()) == ns` for every namespace but `Unknown`.

macro_rules! namespaces {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// An interned namespace.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub enum Ns {
            /// A namespace that is not in the table; its text is in the bytes it came from.
            #[default]
            Unknown,
            $($(#[$doc])* $name,)*
        }

        /// Every interned namespace with its text, in the order of the enum; the first is
        /// `Unknown`.
        const TABLE: &[(Ns, &str)] = &[(Ns::Unknown, ""), $((Ns::$name, $text),)*];
    };
}

namespaces! {
    /// The content of a client-to-server stream (RFC 6120 4.8.2).
    Client = "jabber:client";
    /// The content of a server-to-server stream (RFC 6120 4.8.2).
    Server = "jabber:server";
    /// The stream itself (RFC 6120 4.8.1).
    Streams = "http://etherx.jabber.org/streams";
    /// Conditions of stream errors.
    StreamErrors = "urn:ietf:params:xml:ns:xmpp-streams";
    /// Conditions of stanza errors.
    StanzaErrors = "urn:ietf:params:xml:ns:xmpp-stanzas";
    /// STARTTLS.
    Tls = "urn:ietf:params:xml:ns:xmpp-tls";
    /// SASL (RFC 6120 6).
    Sasl = "urn:ietf:params:xml:ns:xmpp-sasl";
    /// Channel-binding types (XEP-0440).
    SaslCb = "urn:xmpp:sasl-cb:0";
    /// Resource binding.
    Bind = "urn:ietf:params:xml:ns:xmpp-bind";
    /// The session request of RFC 3921.
    Session = "urn:ietf:params:xml:ns:xmpp-session";
    /// Frames of XMPP over WebSocket (RFC 7395).
    Framing = "urn:ietf:params:xml:ns:xmpp-framing";
    /// `xml:` attributes.
    Xml = "http://www.w3.org/XML/1998/namespace";
    /// In-band registration (XEP-0077).
    Register = "jabber:iq:register";
    /// The stream feature of in-band registration (XEP-0077).
    RegisterFeature = "http://jabber.org/features/iq-register";
    /// Rosters (RFC 6121 2).
    Roster = "jabber:iq:roster";
    /// The stream feature of roster versions.
    RosterVer = "urn:xmpp:features:rosterver";
    /// The stream feature of subscription pre-approval.
    PreApproval = "urn:xmpp:features:pre-approval";
    /// Service discovery, information (XEP-0030).
    DiscoInfo = "http://jabber.org/protocol/disco#info";
    /// Service discovery, items (XEP-0030).
    DiscoItems = "http://jabber.org/protocol/disco#items";
    /// XMPP ping (XEP-0199).
    Ping = "urn:xmpp:ping";
    /// Entity time (XEP-0202).
    Time = "urn:xmpp:time";
    /// Software version (XEP-0092).
    Version = "jabber:iq:version";
    /// Last activity (XEP-0012).
    Last = "jabber:iq:last";
    /// Stream limits (XEP-0478).
    StreamLimits = "urn:xmpp:stream-limits:0";
    /// Stream management (XEP-0198).
    StreamManagement = "urn:xmpp:sm:3";
    /// Delayed delivery (XEP-0203).
    Delay = "urn:xmpp:delay";
    /// Message carbons (XEP-0280).
    Carbons = "urn:xmpp:carbons:2";
    /// The rules that carbons obey (XEP-0280).
    CarbonsRules = "urn:xmpp:carbons:rules:0";
    /// Stanza forwarding (XEP-0297).
    Forward = "urn:xmpp:forward:0";
    /// Chat states (XEP-0085).
    ChatStates = "http://jabber.org/protocol/chatstates";
    /// Message processing hints (XEP-0334).
    Hints = "urn:xmpp:hints";
    /// Data forms (XEP-0004).
    DataForms = "jabber:x:data";
    /// Private XML storage (XEP-0049).
    Private = "jabber:iq:private";
    /// vcard-temp (XEP-0054).
    VcardTemp = "vcard-temp";
    /// Avatars in presence (XEP-0153).
    VcardUpdate = "vcard-temp:x:update";
    /// vCard4 (XEP-0292).
    Vcard4 = "urn:ietf:params:xml:ns:vcard-4.0";
    /// Blocking command (XEP-0191).
    Blocking = "urn:xmpp:blocking";
    /// Conditions of the blocking command (XEP-0191).
    BlockingErrors = "urn:xmpp:blocking:errors";
    /// Abuse reports (XEP-0377).
    Reporting = "urn:xmpp:reporting:1";
    /// Rooms (XEP-0045).
    Muc = "http://jabber.org/protocol/muc";
    /// What rooms say to occupants (XEP-0045).
    MucUser = "http://jabber.org/protocol/muc#user";
    /// What admins say to rooms (XEP-0045).
    MucAdmin = "http://jabber.org/protocol/muc#admin";
    /// What owners say to rooms (XEP-0045).
    MucOwner = "http://jabber.org/protocol/muc#owner";
    /// Direct invitations (XEP-0249).
    Conference = "jabber:x:conference";
    /// Stable stanza ids (XEP-0359).
    StanzaId = "urn:xmpp:sid:0";
    /// Occupant ids (XEP-0421).
    OccupantId = "urn:xmpp:occupant-id:0";
    /// Message archives (XEP-0313).
    Mam = "urn:xmpp:mam:2";
    /// The queries of message archives that came later (XEP-0313).
    MamExtended = "urn:xmpp:mam:2#extended";
    /// Message retraction (XEP-0424).
    Retract = "urn:xmpp:message-retract:1";
    /// That archives put something in the place of what is retracted (XEP-0424 4).
    RetractTombstone = "urn:xmpp:message-retract:1#tombstone";
    /// Message reactions (XEP-0444).
    Reactions = "urn:xmpp:reactions:0";
    /// Result sets (XEP-0059).
    ResultSet = "http://jabber.org/protocol/rsm";
    /// Publish-subscribe (XEP-0060).
    PubSub = "http://jabber.org/protocol/pubsub";
    /// Events of publish-subscribe (XEP-0060).
    PubSubEvent = "http://jabber.org/protocol/pubsub#event";
    /// Owners' requests of publish-subscribe (XEP-0060).
    PubSubOwner = "http://jabber.org/protocol/pubsub#owner";
    /// Error conditions of publish-subscribe (XEP-0060).
    PubSubErrors = "http://jabber.org/protocol/pubsub#errors";
    /// Client state indication (XEP-0352).
    ClientState = "urn:xmpp:csi:0";
    /// Push notifications (XEP-0357).
    Push = "urn:xmpp:push:0";
    /// HTTP file upload (XEP-0363).
    HttpUpload = "urn:xmpp:http:upload:0";
    /// Entity capabilities (XEP-0115).
    Caps = "http://jabber.org/protocol/caps";
    /// The stream feature of stanza acknowledgement by dialback.
    Dialback = "jabber:server:dialback";
    /// The stream feature that announces dialback (XEP-0220).
    DialbackFeature = "urn:xmpp:features:dialback";
    /// Bidirectional server-to-server streams (XEP-0288).
    Bidi = "urn:xmpp:bidi";
    /// The stream feature of XEP-0288.
    BidiFeature = "urn:xmpp:features:bidi";
    /// Components, accepting side (XEP-0114).
    ComponentAccept = "jabber:component:accept";
    /// Receipts (XEP-0184).
    Receipts = "urn:xmpp:receipts";
    /// Chat markers (XEP-0333).
    ChatMarkers = "urn:xmpp:chat-markers:0";
    /// Last message correction (XEP-0308).
    Correct = "urn:xmpp:message-correct:0";
    /// Out-of-band data (XEP-0066).
    OutOfBand = "jabber:x:oob";
    /// Ad-hoc commands (XEP-0050).
    Commands = "http://jabber.org/protocol/commands";
    /// Nicknames (XEP-0172).
    Nick = "http://jabber.org/protocol/nick";
    /// Extensible addressing (XEP-0033).
    Address = "http://jabber.org/protocol/address";
    /// Extensible SASL profile (XEP-0388).
    Sasl2 = "urn:xmpp:sasl:2";
    /// Bind 2 (XEP-0386).
    Bind2 = "urn:xmpp:bind:0";
    /// Fast authentication (XEP-0484).
    Fast = "urn:xmpp:fast:0";
    /// Upgrades of SASL mechanisms (XEP-0480).
    SaslUpgrade = "urn:xmpp:sasl:upgrade:0";
    /// Upgrades to SCRAM with another hash (XEP-0480).
    ScramUpgrade = "urn:xmpp:scram-upgrade:0";
    /// Client access management (XEP-0494).
    ClientAccess = "urn:xmpp:cam:0";
    /// OMEMO, the version in the field (XEP-0384).
    OmemoLegacy = "eu.siacs.conversations.axolotl";
    /// Explicit message encryption (XEP-0380).
    Encryption = "urn:xmpp:eme:0";
    /// External services (XEP-0215).
    ExternalServices = "urn:xmpp:extdisco:2";
    /// BOSH (XEP-0124).
    HttpBind = "http://jabber.org/protocol/httpbind";
    /// XMPP over BOSH (XEP-0206).
    Xbosh = "urn:xmpp:xbosh";
    /// Jingle (XEP-0166).
    Jingle = "urn:xmpp:jingle:1";
    /// Jingle message initiation (XEP-0353).
    JingleMessage = "urn:xmpp:jingle-message:0";
    /// Bookmarks in private storage (XEP-0048).
    Bookmarks = "storage:bookmarks";
    /// Bookmarks, one item each (XEP-0402).
    Bookmarks2 = "urn:xmpp:bookmarks:1";
    /// That those are also in private storage (XEP-0402 6).
    BookmarksCompat = "urn:xmpp:bookmarks:1#compat";
    /// That those are also in one item (XEP-0402 6).
    BookmarksCompatPep = "urn:xmpp:bookmarks:1#compat-pep";
    /// That bookmarks in private storage are also in a node (XEP-0411).
    BookmarksConversion = "urn:xmpp:bookmarks-conversion:0";
    /// That the picture of a card is that of a node (XEP-0398).
    AvatarConversion = "urn:xmpp:pep-vcard-conversion:0";
    /// How far a chat was displayed, for the account's own devices (XEP-0490).
    Displayed = "urn:xmpp:mds:displayed:0";
    /// That a server takes that from messages (XEP-0490 4.5.2).
    DisplayedAssist = "urn:xmpp:mds:server-assist:0";
    /// Offline message retrieval and `msgoffline` (XEP-0160 announces it by this name).
    Offline = "msgoffline";
}

/// Namespaces in the table, `Unknown` among them.
pub const COUNT: usize = TABLE.len();

const _: () = assert!(COUNT <= 128, "a set of namespaces is one u128");

/// Slots of the hash table; a power of two, at most half full.
const SLOTS: usize = 256;
/// An odd multiplier that spreads the table well.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// Shorter names than this are never in the table.
const SIZE_MIN: usize = 8;

const fn slot(bytes: &[u8]) -> usize {
    let end = bytes.len();
    let mut last = [0; 8];
    let mut i = 0;
    while i < 8 {
        last[i] = bytes[end - 8 + i];
        i += 1;
    }
    let word = u64::from_le_bytes(last) ^ end as u64;
    (word.wrapping_mul(SPREAD) >> 56) as usize
}

/// Slot by slot the index of a namespace, 0 where none is; collisions take the next free slot.
const INDEX: [u8; SLOTS] = {
    let mut index = [0; SLOTS];
    let mut i = 1;
    while i < TABLE.len() {
        let mut at = slot(TABLE[i].1.as_bytes());
        while index[at] != 0 {
            at = (at + 1) % SLOTS;
        }
        index[at] = i as u8;
        i += 1;
    }
    index
};

impl Ns {
    /// The namespace of this name, `Unknown` if it is not in the table.
    #[inline]
    pub fn intern(name: &[u8]) -> Ns {
        if name.len() < SIZE_MIN {
            return Ns::Unknown;
        }
        let mut at = slot(name);
        loop {
            let (ns, text) = TABLE[INDEX[at] as usize];
            if text.as_bytes() == name || ns == Ns::Unknown {
                return ns;
            }
            at = (at + 1) % SLOTS;
        }
    }

    /// Several namespaces, bit by bit, for [`crate::view::StanzaView::has_child_in`].
    pub const fn set(all: &[Ns]) -> u128 {
        let (mut set, mut index) = (0, 0);
        while index < all.len() {
            set |= 1 << all[index] as u8;
            index += 1;
        }
        set & !(1 << Ns::Unknown as u8)
    }

    /// The name, as it stands in `xmlns`; empty for `Unknown`.
    pub fn as_str(self) -> &'static str {
        TABLE[self as usize].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_namespace_is_found_by_its_name_and_stands_at_its_index() {
        for (i, &(ns, text)) in TABLE.iter().enumerate() {
            assert_eq!(ns as usize, i);
            assert_eq!(Ns::intern(text.as_bytes()), ns);
            assert_eq!(ns.as_str(), text);
        }
    }

    #[test]
    fn names_that_only_resemble_a_namespace_are_unknown() {
        for text in [
            "",
            "urn",
            "jabber:clienu",
            "xjabber:client",
            "jabber:clien",
            "Jabber:client",
        ] {
            assert_eq!(Ns::intern(text.as_bytes()), Ns::Unknown, "{text}");
        }
    }
}
