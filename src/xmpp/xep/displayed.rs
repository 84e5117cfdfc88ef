//! XEP-0490: Message Displayed Synchronization. How far chats were displayed is what a node of the
//! account says, as clients publish it; or the server does, by what it takes out of a message.

use super::pubsub::{Action, NAME_SIZE_MAX, NewItem, Options, Publication, private_options};
use super::{Extension, Xep};
use crate::host::Host;
use crate::session::SessionKey;
use crate::settings::Settings;
use crate::shard::Shard;
use crate::stanza::Type;
use stanza::jid::Jid;
use stanza::ns::Ns;
use stanza::scope::StreamScope;
use stanza::tree::{Node, Tree};
use stanza::view::{Kind, StanzaView};

/// The server's part in it.
#[derive(Debug)]
pub struct Displayed;

impl Extension for Displayed {
    const XEP: Xep = Xep {
        number: 490,
        version: "1.0.1",
    };
    const ACCOUNT_FEATURES: &'static [Ns] = &[Ns::DisplayedAssist];

    fn is_offered(settings: &Settings) -> bool {
        settings.has_nodes()
    }
}

/// Whether a child of a client's stanza is for the server alone: its id is nobody else's business.
pub(crate) fn is_for_server(stanza: &StanzaView<'_>, child: Node<'_>) -> bool {
    stanza.kind() == Kind::Message && child.is("displayed", Ns::Displayed)
}

impl Shard {
    /// A client's message may say how far it displayed the chat with whom it is for: that is
    /// published, where the node is a list of the account's alone (XEP-0490 4.5.3). The message
    /// goes on without it, whatever becomes of either.
    #[cold]
    pub(crate) fn note_displayed(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        scope: &StreamScope,
    ) {
        if view.kind() != Kind::Message || !view.has_child_ns(Ns::Displayed) {
            return;
        }
        let is_own = view.from().is_none_or(|it| self.is_own_address(key, &it));
        let is_error = Type::parse(Kind::Message, view.type_().as_deref()) == Type::Error;
        let Some(to) = view.to().filter(|_| is_own && !is_error) else {
            return;
        };
        let tree = Tree::parse(view.bytes(), scope).ok();
        let displayed = tree
            .as_ref()
            .and_then(|tree| tree.root().child("displayed", Ns::Displayed));
        let mut payload = Vec::new();
        let is_written = displayed.is_some_and(|it| it.write(&mut payload).is_ok());
        if !is_written || Jid::parse(&to).is_err() || to.len() > NAME_SIZE_MAX {
            return;
        }
        let publication = Publication {
            node: Ns::Displayed.as_str().into(),
            // XEP-0490 5.1: the address as the client wrote it.
            items: vec![NewItem {
                id: Some(to.as_ref().into()),
                payload: payload.into(),
            }],
            options: Options::Private(private_options()),
        };
        let account = self.sessions.at(key).account;
        self.do_with_nodes(host, account, Action::Publish(publication));
    }
}
