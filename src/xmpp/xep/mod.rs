//! Extensions: one XEP, one file, one line in [`extensions!`].
//!
//! Invariant: a namespace has at most one owner; a second one is an error of the build.

pub mod archive;
pub mod avatars;
pub mod bind2;
pub mod blocking;
pub mod bookmarks;
pub mod capabilities;
pub mod carbons;
pub mod client_access;
pub mod client_state;
pub mod commands;
pub mod components;
pub mod contact;
pub mod disco;
pub mod displayed;
pub mod downgrade;
pub mod external_services;
pub mod fast;
pub mod hints;
pub mod interest;
pub mod last;
pub mod limits;
pub mod offline;
pub mod outage;
pub mod ping;
pub mod preferences;
pub mod private;
pub mod pubsub;
pub mod push;
pub mod register;
pub mod reporting;
pub mod result_sets;
pub mod retraction;
pub mod sasl2;
pub mod stable_ids;
pub mod stream_management;
pub mod time;
pub mod upgrade;
pub mod upload;
pub mod vcard;
pub mod version;

use crate::error::StanzaError;
use crate::host::Timestamp;
use crate::port::{Document, StoreOp, StoreReply};
use crate::session::{SessionKey, Sessions};
use crate::settings::Settings;
use capabilities::Capabilities;
use disco::Form;
use stanza::jid::BareJid;
use stanza::ns::Ns;
use stanza::tree::Node;
use upload::SlotRequest;

/// What a XEP's file says of itself; feeds disco and the conformance table.
#[derive(Clone, Copy, Debug)]
pub struct Xep {
    /// Its number.
    pub number: u16,
    /// The version of the text that was followed.
    pub version: &'static str,
}

/// Whom a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The server.
    Server,
    /// The sender's own account, by its bare JID or by no address at all.
    Account,
    /// Another account, by its bare JID.
    Other,
}

/// An iq request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Whom it is for.
    pub target: Target,
    /// `set` rather than `get`.
    pub is_set: bool,
    /// The only child of the iq.
    pub payload: Node<'a>,
}

/// What an extension may look at.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The administrator's decisions.
    pub settings: &'a Settings,
    /// The account that is asked for: the asker's own, or the one whose bare JID was addressed.
    pub account: &'a BareJid,
    /// Whether that account ends with its session.
    pub is_anonymous: bool,
    /// What the server says of itself.
    pub capabilities: &'a Capabilities,
    /// The available resources of that account.
    pub available: Available<'a>,
    /// Whether the asker gets that account's presence.
    pub sees_presence: bool,
    /// Whether that account has nodes of its own (XEP-0163).
    pub has_nodes: bool,
    /// The time of the turn.
    pub now: Timestamp,
    /// What clocks show: for times that are told.
    pub wall: Timestamp,
    /// When the server started.
    pub started: Timestamp,
}

/// The available resources of an account.
#[derive(Clone, Copy, Debug)]
pub struct Available<'a> {
    pub(crate) sessions: &'a Sessions,
    /// All that are bound.
    pub(crate) keys: &'a [SessionKey],
}

impl<'a> Available<'a> {
    /// Their full JIDs.
    pub fn addresses(self) -> impl Iterator<Item = &'a str> {
        let sessions = self.keys.iter().map(move |key| self.sessions.at(*key));
        let available = sessions.filter(|session| session.available);
        available.map(|session| session.full())
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.addresses().next().is_none()
    }
}

/// How a request is answered.
#[derive(Debug)]
pub enum Answer {
    /// By the payload that was appended.
    Now,
    /// Empty, when storage has this document, with what the account's nodes say of the same.
    Change(Document),
    /// By what storage says; `Extension::stored` writes the payload then.
    Ask(StoreOp),
    /// By what the keeper of files says; `upload::answer` writes the payload then.
    Slot(Box<SlotRequest>),
    /// By an error of the payload that was appended, because it says more than its condition.
    Refuse,
}

/// A XEP's part in the server. What an extension leaves out costs nothing.
pub trait Extension {
    /// Which XEP.
    const XEP: Xep;
    /// Namespaces of iq payloads that it answers.
    const NAMESPACES: &'static [Ns] = &[];
    /// What the server says of it in disco#info.
    const FEATURES: &'static [Ns] = &[];
    /// What an account says of it.
    const ACCOUNT_FEATURES: &'static [Ns] = &[];

    /// Whether the server has it: what an operator did not configure is not announced.
    fn is_offered(settings: &Settings) -> bool {
        let _ = settings;
        true
    }

    /// More that the server says of itself in disco#info (XEP-0128 2).
    fn info_form(settings: &Settings) -> Option<Form<'_>> {
        let _ = settings;
        None
    }

    /// Answers a request in one of its namespaces: appends the payload of the result, or asks
    /// storage first.
    ///
    /// # Errors
    /// The condition of the error that answers the request.
    fn iq(
        context: &Context<'_>,
        request: &Request<'_>,
        payload: &mut Vec<u8>,
    ) -> Result<Answer, StanzaError> {
        let _ = (context, request, payload);
        Err(StanzaError::ServiceUnavailable)
    }

    /// Continues a request whose [`Answer::Ask`] storage has answered.
    ///
    /// # Errors
    /// The condition of the error that answers the request.
    fn stored(reply: StoreReply, payload: &mut Vec<u8>) -> Result<(), StanzaError> {
        let _ = payload;
        done(reply)
    }
}

/// Lists the extensions; the order is the order of their passes.
macro_rules! extensions {
    ($($module:ident: $extension:ty,)*) => {
        /// Every extension, for disco and the conformance table.
        pub const XEPS: &[(&str, Xep)] = &[
            $((stringify!($module), <$extension as Extension>::XEP),)*
        ];

        /// What the server announces, extension by extension.
        pub(crate) fn features(settings: &Settings) -> Vec<Ns> {
            let mut features = Vec::new();
            $(if <$extension as Extension>::is_offered(settings) {
                features.extend_from_slice(<$extension as Extension>::FEATURES);
            })*
            features
        }

        /// What accounts announce.
        pub(crate) fn account_features(settings: &Settings) -> Vec<Ns> {
            let mut features = Vec::new();
            $(if <$extension as Extension>::is_offered(settings) {
                features.extend_from_slice(<$extension as Extension>::ACCOUNT_FEATURES);
            })*
            features
        }

        /// The forms in what it says of itself.
        pub(crate) fn info_forms(settings: &Settings) -> Vec<Form<'_>> {
            let forms = [$(<$extension as Extension>::info_form(settings),)*];
            forms.into_iter().flatten().collect()
        }

        const OWNED: &[&[Ns]] = &[$(<$extension as Extension>::NAMESPACES,)*];

        /// Whether an extension answers requests in a namespace.
        pub(crate) fn is_owned(ns: Ns) -> bool {
            OWNED.iter().any(|owned| owned.contains(&ns))
        }

        /// Has the owner of the payload's namespace answer a request.
        ///
        /// # Errors
        /// The owner's, or `service-unavailable` for a namespace that nobody owns.
        pub fn iq(
            ns: Ns,
            context: &Context<'_>,
            request: &Request<'_>,
            payload: &mut Vec<u8>,
        ) -> Result<Answer, StanzaError> {
            $(if const { !<$extension as Extension>::NAMESPACES.is_empty() }
                && <$extension as Extension>::NAMESPACES.contains(&ns)
            {
                return <$extension as Extension>::iq(context, request, payload);
            })*
            Err(StanzaError::ServiceUnavailable)
        }

        /// Has the owner of a namespace continue a request that storage answered.
        ///
        /// # Errors
        /// The owner's.
        pub(crate) fn stored(
            ns: Ns,
            reply: StoreReply,
            payload: &mut Vec<u8>,
        ) -> Result<(), StanzaError> {
            $(if const { !<$extension as Extension>::NAMESPACES.is_empty() }
                && <$extension as Extension>::NAMESPACES.contains(&ns)
            {
                return <$extension as Extension>::stored(reply, payload);
            })*
            Err(StanzaError::ServiceUnavailable)
        }
    };
}

extensions! {
    administration: commands::administration::Administration,
    archive: archive::Archive,
    avatars: avatars::AvatarConversion,
    bind2: bind2::Bind2,
    blocking: blocking::Blocking,
    bookmarks: bookmarks::Bookmarks,
    bookmarks_conversion: bookmarks::BookmarksConversion,
    capabilities: capabilities::EntityCapabilities,
    carbons: carbons::Carbons,
    client_access: client_access::ClientAccess,
    client_state: client_state::ClientState,
    commands: commands::AdHocCommands,
    components: components::ComponentProtocol,
    contact: contact::Contact,
    disco: disco::Disco,
    disco_items: disco::DiscoItems,
    displayed: displayed::Displayed,
    downgrade: downgrade::Downgrade,
    external_services: external_services::ExternalServices,
    fast: fast::Fast,
    hints: hints::Hints,
    last: last::LastActivity,
    limits: limits::Limits,
    offline: offline::Offline,
    outage: outage::OutageStatus,
    personal_eventing: pubsub::PersonalEventing,
    ping: ping::Ping,
    preferences: preferences::ArchivePreferences,
    private: private::Private,
    private_data: pubsub::PrivateData,
    public_data: pubsub::PublicData,
    pubsub: pubsub::PubSubCore,
    push: push::PushNotifications,
    register: register::Register,
    reporting: reporting::Reporting,
    result_sets: result_sets::ResultSets,
    retraction: retraction::MessageRetraction,
    sasl2: sasl2::Sasl2,
    stable_ids: stable_ids::StableIds,
    stream_management: stream_management::StreamManagement,
    time: time::Time,
    upload: upload::HttpUpload,
    upgrade: upgrade::Upgrade,
    vcard: vcard::Vcard,
    version: version::Version,
}

/// No namespace may stand in two lists.
const _: () = {
    let mut seen = [false; 256];
    let mut list = 0;
    while list < OWNED.len() {
        let mut index = 0;
        while index < OWNED[list].len() {
            let ns = OWNED[list][index] as usize;
            assert!(!seen[ns], "a namespace has two owners in extensions!");
            seen[ns] = true;
            index += 1;
        }
        list += 1;
    }
};

/// What a write's answer means for the request that caused it.
fn done(reply: StoreReply) -> Result<(), StanzaError> {
    match reply {
        StoreReply::Done => Ok(()),
        StoreReply::Full => Err(StanzaError::ResourceConstraint),
        StoreReply::Missing => Err(StanzaError::ItemNotFound),
        reply => {
            tracing::error!(?reply, "storage did not answer a request");
            Err(StanzaError::InternalServerError)
        }
    }
}

/// The answer to a set where only get makes sense.
fn only_get(request: &Request<'_>) -> Result<(), StanzaError> {
    if request.is_set {
        Err(StanzaError::NotAllowed)
    } else {
        Ok(())
    }
}
