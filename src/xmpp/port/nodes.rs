//! The nodes of an account's publish-subscribe service (XEP-0060), as storage keeps them.

use crate::host::Timestamp;

/// Bytes that a text or an item of a node counts for besides what it says: many small ones are as
/// much to read as a few large ones.
const PART_SIZE: u64 = 128;

/// A node with all that decides what may be done with it. What its items say lies beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What tells it from others of its account.
    pub name: Box<str>,
    /// How it is configured.
    pub config: NodeConfig,
    /// Who is more to it than anybody, by prepared bare JIDs, each once. The account itself is its
    /// owner and not among them.
    pub affiliations: Vec<(Box<str>, Affiliation)>,
    /// Prepared JIDs that asked for its notifications, each once.
    pub subscriptions: Vec<Box<str>>,
    /// Its items, oldest first.
    pub items: Vec<NodeItem>,
    /// The last number that an item was given.
    pub last: u64,
}

/// What is known of an item without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeItem {
    /// Under which its payload lies; never given twice in a node.
    pub number: u64,
    /// What it is called; no two of a node have one name.
    pub id: Box<str>,
    /// Bytes of what lies there.
    pub size: u32,
    /// When it was published, by the clock on the wall.
    pub at: Timestamp,
}

/// The configuration of a node (XEP-0060 16.4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// A name for people.
    pub title: Box<str>,
    /// What its items are, mostly a namespace.
    pub kind: Box<str>,
    /// Who may subscribe and read.
    pub access: AccessModel,
    /// The groups of the roster that [`AccessModel::Roster`] names.
    pub groups: Vec<Box<str>>,
    /// Who may publish.
    pub publish: PublishModel,
    /// Items that it keeps; `u32::MAX` where its owner wants as many as may be.
    pub items_max: u32,
    /// Whether it keeps any.
    pub persists: bool,
    /// When the last one is sent unasked.
    pub send_last: SendLast,
    /// Whether anybody is told of what happens to it.
    pub notifies: bool,
    /// Whether they are told what an item says.
    pub delivers_payloads: bool,
    /// Whether they are told of items that are taken back.
    pub notifies_retract: bool,
    /// Whether they are told of its end.
    pub notifies_delete: bool,
    /// Whether they are told of a new configuration.
    pub notifies_config: bool,
}

impl Default for NodeConfig {
    /// That of a node of personal eventing (XEP-0163 5).
    fn default() -> NodeConfig {
        NodeConfig {
            title: "".into(),
            kind: "".into(),
            access: AccessModel::Presence,
            groups: Vec::new(),
            publish: PublishModel::Publishers,
            items_max: 1,
            persists: true,
            send_last: SendLast::OnSubscriptionAndPresence,
            notifies: true,
            delivers_payloads: true,
            notifies_retract: true,
            notifies_delete: true,
            notifies_config: false,
        }
    }
}

/// Gives the values of an enum the texts that they have on the wire.
macro_rules! on_the_wire {
    ($name:ident: $($value:ident = $text:literal,)*) => {
        impl $name {
            /// All of them.
            pub const ALL: &[$name] = &[$($name::$value,)*];

            /// Its value on the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$value => $text,)*
                }
            }

            /// The one with this value on the wire.
            pub fn parse(text: &str) -> Option<$name> {
                $name::ALL.iter().copied().find(|one| one.as_str() == text)
            }
        }
    };
}

/// Who may subscribe to a node and read it (XEP-0060 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AccessModel {
    /// Anybody.
    Open = 1,
    /// Who gets the account's presence.
    Presence = 2,
    /// Of those, who is in one of some groups of its roster.
    Roster = 3,
    /// Who is named.
    Whitelist = 4,
}

on_the_wire! { AccessModel:
    Open = "open",
    Presence = "presence",
    Roster = "roster",
    Whitelist = "whitelist",
}

/// Who may publish to a node besides its owners (XEP-0060 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PublishModel {
    /// Who is named as a publisher.
    Publishers = 1,
    /// Who is subscribed, too.
    Subscribers = 2,
    /// Anybody who may read it.
    Open = 3,
}

on_the_wire! { PublishModel:
    Publishers = "publishers",
    Subscribers = "subscribers",
    Open = "open",
}

/// When the last item of a node is sent unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SendLast {
    /// At no time.
    Never = 1,
    /// To who subscribes.
    OnSubscription = 2,
    /// And to whose resource becomes available.
    OnSubscriptionAndPresence = 3,
}

on_the_wire! { SendLast:
    Never = "never",
    OnSubscription = "on_sub",
    OnSubscriptionAndPresence = "on_sub_and_presence",
}

/// What somebody is to a node (XEP-0060 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Affiliation {
    /// Does with it whatever can be done.
    Owner = 1,
    /// Publishes, and reads whatever the access model says.
    Publisher = 2,
    /// Reads whatever the access model says.
    Member = 3,
    /// Does nothing with it, whatever the access model says.
    Outcast = 4,
}

on_the_wire! { Affiliation:
    Owner = "owner",
    Publisher = "publisher",
    Member = "member",
    Outcast = "outcast",
}

impl Node {
    /// A node that nothing was published to.
    pub fn new(name: &str, config: NodeConfig) -> Node {
        Node {
            name: name.into(),
            config,
            affiliations: Vec::new(),
            subscriptions: Vec::new(),
            items: Vec::new(),
            last: 0,
        }
    }

    /// Bytes of all that its owner has put there, and for each part of what it takes besides.
    pub fn size(&self) -> u64 {
        let config = &self.config;
        let texts = [&self.name, &config.title, &config.kind].into_iter();
        let texts = texts.chain(&config.groups);
        let texts = texts.chain(self.affiliations.iter().map(|(jid, _)| jid));
        let texts = texts.map(|text| text.len() as u64 + PART_SIZE);
        let items = self.items.iter();
        let items = items.map(|item| u64::from(item.size) + PART_SIZE);
        texts.chain(items).sum()
    }

    /// Bytes of what says who is subscribed: others put that there, so that it is counted apart.
    pub fn subscriptions_size(&self) -> u64 {
        let sizes = self.subscriptions.iter();
        sizes.map(|jid| jid.len() as u64 + PART_SIZE).sum()
    }
}

/// The node that has pictures, by their hashes (XEP-0084).
pub const AVATAR_DATA: &str = "urn:xmpp:avatar:data";

/// The node that says which of them is shown (XEP-0084).
pub const AVATAR_METADATA: &str = "urn:xmpp:avatar:metadata";

/// The SHA-1 of a picture in lower-case hexadecimal digits, which is its id (XEP-0084 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhotoHash([u8; 40]);

impl PhotoHash {
    /// That of these bytes.
    pub fn of(sha1: &[u8; 20]) -> PhotoHash {
        let digit = |half: u8| b"0123456789abcdef"[usize::from(half)];
        let place = |at: usize| match at % 2 {
            0 => digit(sha1[at / 2] >> 4),
            _ => digit(sha1[at / 2] & 15),
        };
        PhotoHash(std::array::from_fn(place))
    }

    /// One as it is written; `None` where it is none.
    pub fn parse(text: &str) -> Option<PhotoHash> {
        let digits: [u8; 40] = text.as_bytes().try_into().ok()?;
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        digits.iter().all(is_digit).then_some(PhotoHash(digits))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits are ASCII")
    }
}

/// Whether a node is everybody's to read, with no exception.
pub fn is_everybodys(node: &Node) -> bool {
    let mut all = node.affiliations.iter();
    node.config.access == AccessModel::Open && all.all(|(_, it)| *it != Affiliation::Outcast)
}

/// The picture that an account shows to everybody, by its nodes [`AVATAR_METADATA`] and
/// [`AVATAR_DATA`]: the last item of the one is called as an item of the other is.
pub fn shown_photo(metadata: Option<&Node>, data: Option<&Node>) -> Option<PhotoHash> {
    let (metadata, data) = (metadata?, data?);
    let id = &metadata.items.last()?.id;
    let is_there = data.items.iter().any(|item| item.id == *id);
    let is_shown = is_there && is_everybodys(metadata) && is_everybodys(data);
    PhotoHash::parse(id).filter(|_| is_shown)
}

/// What becomes of a node. All changes of one operation are one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeChange {
    /// Which.
    pub name: Box<str>,
    /// The whole node as it is from now on; `None` where it ends, with all of its items.
    pub node: Option<Box<Node>>,
    /// Items that are new, by their numbers.
    pub put: Vec<(u64, Box<[u8]>)>,
    /// The numbers of those that go.
    pub remove: Vec<u64>,
}

/// The numbers of items with what these say.
pub type NumberedItems = Vec<(u64, Box<[u8]>)>;

/// A node as it moves in from elsewhere or out to there: with what its items say.
pub type WholeNode = (Node, NumberedItems);
