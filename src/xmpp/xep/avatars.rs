//! XEP-0398: User Avatar to vCard-Based Avatars Conversion. The picture of a card (XEP-0153) and
//! that of an account's nodes (XEP-0084) are one, where anybody may read the nodes, and presence
//! says its hash for those clients that do not.
//!
//! Invariant: an account whose picture anybody may see has its hash at hand; for others presence
//! costs one look at that.

use super::{Extension, Xep};
use crate::account::AccountKey;
use crate::error::put;
use crate::host::Host;
use crate::limit::PRESENCE_SIZE_MAX;
use crate::port::{AVATAR_DATA, AVATAR_METADATA, PhotoHash};
use crate::session::{Presence, SessionKey};
use crate::settings::Settings;
use crate::shard::Shard;
use crate::stanza::Type;
use crate::xml::Attr;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};
use stanza::jid::Jid;
use stanza::ns::Ns;
use stanza::scope::StreamScope;
use stanza::tree::{Node, Tree};
use stanza::view::StanzaView;

/// What a picture is where nobody says it (XEP-0084 4.2.1).
const KIND: &str = "image/png";
/// Bytes of the name of a picture's type.
const KIND_SIZE_MAX: usize = 127;
/// Bytes of a presence that says a hash: there is room for the address of its client, too.
const SIZE_MAX: usize = PRESENCE_SIZE_MAX - (4 << 10);
const PRESENCE_END: &[u8] = b"</presence>";

/// Avatars, by nodes and by cards.
#[derive(Debug)]
pub struct AvatarConversion;

impl Extension for AvatarConversion {
    const XEP: Xep = Xep {
        number: 398,
        version: "1.0.0",
    };
    const ACCOUNT_FEATURES: &'static [Ns] = &[Ns::AvatarConversion];

    fn is_offered(settings: &Settings) -> bool {
        settings.has_nodes()
    }
}

/// A picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Photo {
    /// Its media type.
    kind: Box<str>,
    bytes: Vec<u8>,
}

impl Photo {
    /// The hash that is its id.
    pub(crate) fn hash(&self) -> PhotoHash {
        PhotoHash::of(&Sha1::digest(&self.bytes).into())
    }

    fn decode(kind: &str, text: &str) -> Option<Photo> {
        let text: Vec<u8> = text
            .bytes()
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect();
        let bytes = STANDARD.decode(text).ok().filter(|it| !it.is_empty())?;
        let is_fit = !kind.is_empty() && kind.len() <= KIND_SIZE_MAX;
        let kind = if is_fit { kind } else { KIND };
        Some(Photo {
            kind: kind.into(),
            bytes,
        })
    }

    /// That of an item of [`AVATAR_DATA`].
    pub(crate) fn of_data(kind: Box<str>, item: &[u8]) -> Option<Photo> {
        let scope = StreamScope::client();
        let tree = Tree::parse(item, &scope).ok()?;
        let data = child(tree.root(), "data", AVATAR_DATA)?;
        Photo::decode(&kind, data.text())
    }

    /// What an item of [`AVATAR_DATA`] has of it.
    pub(crate) fn as_data(&self) -> Vec<u8> {
        let text = STANDARD.encode(&self.bytes);
        format!("<data xmlns='{AVATAR_DATA}'>{text}</data>").into_bytes()
    }
}

fn child<'t>(parent: Node<'t>, name: &str, ns: &str) -> Option<Node<'t>> {
    let mut children = parent.children();
    children.find(|child| child.name() == name && child.ns_str() == ns)
}

/// The type of a picture, by an item of [`AVATAR_METADATA`]; `None` where that says that there is
/// none. Pictures that lie elsewhere are passed over (XEP-0398 3.1).
pub(crate) fn kind_in(item: &[u8], hash: &PhotoHash) -> Option<Box<str>> {
    let scope = StreamScope::client();
    let tree = Tree::parse(item, &scope).ok()?;
    let metadata = child(tree.root(), "metadata", AVATAR_METADATA)?;
    let is_here = |info: &Node<'_>| {
        info.name() == "info"
            && info.attr("url").is_none()
            && info.attr("id") == Some(hash.as_str())
    };
    let info = metadata.children().find(is_here)?;
    Some(info.attr("type").unwrap_or(KIND).into())
}

/// What an item of [`AVATAR_METADATA`] says of a picture, or that there is none.
pub(crate) fn metadata_of(photo: Option<&Photo>) -> Vec<u8> {
    let Some(photo) = photo else {
        return format!("<metadata xmlns='{AVATAR_METADATA}'/>").into_bytes();
    };
    let (size, hash, kind) = (photo.bytes.len(), photo.hash(), Attr(&photo.kind));
    let id = hash.as_str();
    format!(
        "<metadata xmlns='{AVATAR_METADATA}'><info bytes='{size}' id='{id}' type='{kind}'/>\
         </metadata>"
    )
    .into_bytes()
}

/// The picture of a card (XEP-0153 3.1).
pub(crate) fn photo_of_card(card: &[u8]) -> Option<Photo> {
    let scope = StreamScope::client();
    let tree = Tree::parse(card, &scope).ok()?;
    let photo = tree.root().child("PHOTO", Ns::VcardTemp)?;
    let kind = photo.child("TYPE", Ns::VcardTemp);
    let kind = kind.map_or(KIND, |kind| kind.text().trim());
    Photo::decode(kind, photo.child("BINVAL", Ns::VcardTemp)?.text())
}

/// A card with another picture, or without one; `None` where it is as it was.
pub(crate) fn card_with(card: Option<&[u8]>, photo: Option<&Photo>) -> Option<Vec<u8>> {
    let before = card.and_then(photo_of_card);
    if before.as_ref() == photo {
        return None;
    }
    let scope = StreamScope::client();
    let tree = card.and_then(|card| Tree::parse(card, &scope).ok());
    let mut out = b"<vCard xmlns='vcard-temp'".to_vec();
    let attributes = tree.as_ref().map(|tree| tree.root().attrs());
    let is_plain = |name: &str| name == "xml:lang" || !name.contains(':');
    for (name, value) in attributes.into_iter().flatten() {
        if is_plain(name) {
            put(&mut out, format_args!(" {name}='{}'", Attr(value)));
        }
    }
    out.push(b'>');
    let children = tree.as_ref().map(|tree| tree.root().children());
    for child in children.into_iter().flatten() {
        if !child.is("PHOTO", Ns::VcardTemp) {
            // One that cannot be written is left out.
            let _left_out = child.write_within(Ns::VcardTemp.as_str(), &mut out);
        }
    }
    if let Some(photo) = photo {
        let (kind, text) = (Attr(&photo.kind), STANDARD.encode(&photo.bytes));
        put(
            &mut out,
            format_args!("<PHOTO><TYPE>{kind}</TYPE><BINVAL>{text}</BINVAL></PHOTO>"),
        );
    }
    out.extend_from_slice(b"</vCard>");
    Some(out)
}

/// A presence that says nothing of pictures.
fn presence_without(bytes: &[u8], scope: &StreamScope) -> Option<Vec<u8>> {
    let tree = Tree::parse(bytes, scope).ok()?;
    let updates = tree.root().children();
    let updates = updates.filter(|it| it.is("x", Ns::VcardUpdate));
    let places: Vec<_> = updates.map(|it| it.place()).collect();
    let mut bytes = bytes.to_vec();
    for place in places.into_iter().rev() {
        bytes.drain(place);
    }
    Some(bytes)
}

/// A presence that says this picture's hash, or that there is none any more; `None` where it is to
/// stay as it is (XEP-0398 4).
fn presence_with(
    view: &StanzaView<'_>,
    scope: &StreamScope,
    photo: Option<&PhotoHash>,
) -> Option<Vec<u8>> {
    let mut bytes = view.bytes().to_vec();
    if view.has_child_ns(Ns::VcardUpdate) {
        let tree = Tree::parse(view.bytes(), scope).ok()?;
        let updates = tree.root().children();
        let updates = updates.filter(|it| it.is("x", Ns::VcardUpdate));
        let updates: Vec<Node<'_>> = updates.collect();
        let said = updates
            .iter()
            .find_map(|it| it.child("photo", Ns::VcardUpdate));
        let said = said.map(|it| it.text().trim());
        // Its client has no picture, or says the hash itself.
        if said == Some("") || said.is_some() && said == photo.map(PhotoHash::as_str) {
            return None;
        }
        for update in updates.iter().rev() {
            bytes.drain(update.place());
        }
    } else if photo.is_none() {
        return None;
    }
    let hash = photo.map_or("", PhotoHash::as_str);
    if bytes.ends_with(b"/>") {
        bytes.truncate(bytes.len() - 2);
        bytes.push(b'>');
    } else {
        bytes.truncate(bytes.iter().rposition(|byte| *byte == b'<')?);
    }
    put(
        &mut bytes,
        format_args!("<x xmlns='vcard-temp:x:update'><photo>{hash}</photo></x>"),
    );
    bytes.extend_from_slice(PRESENCE_END);
    // What stood around an element may mean something else side by side.
    let is_fit = bytes.len() <= SIZE_MAX && StanzaView::parse(&bytes, scope).is_ok();
    is_fit.then_some(bytes)
}

impl Shard {
    /// A presence of a client, which says the hash of its account's picture (XEP-0398 4).
    #[inline]
    pub(crate) fn on_presence_of_client(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        scope: &StreamScope,
        type_: Type,
        to: Option<Jid<'_>>,
    ) {
        let account = self.accounts.at(self.sessions.at(key).account);
        if let Some(photo) = &account.photo
            && type_ == Type::Available
            && let Some(bytes) = presence_with(view, scope, Some(photo))
            && let Ok(view) = StanzaView::parse(&bytes, scope)
        {
            return self.on_presence(host, key, &view, scope, type_, to);
        }
        self.on_presence(host, key, view, scope, type_, to);
    }

    /// The picture that anybody may see of an account is another one: its contacts are told of it
    /// by the presence of those sessions that do not say that they have none. Directed presence is
    /// the client's business (XEP-0398 5.1).
    pub(crate) fn set_photo(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        photo: Option<PhotoHash>,
    ) {
        self.accounts.at_mut(account).photo = photo.map(Box::new);
        let scope = self.client_scope.clone();
        for key in self.accounts.at(account).sessions.clone() {
            let session = self.sessions.at(key);
            let Some(presence) = session.presence.as_deref().filter(|_| session.available) else {
                continue;
            };
            let view = StanzaView::parse(&presence.bytes, &scope).ok();
            let changed = view.and_then(|view| presence_with(&view, &scope, photo.as_ref()));
            if let Some(bytes) = changed {
                let presence = Presence {
                    bytes: bytes.into(),
                    split: presence.split,
                };
                let mut kept = presence.clone();
                // That it has none any more is said once, and not its client's wish.
                if photo.is_none()
                    && let Some(bytes) = presence_without(&presence.bytes, &scope)
                {
                    kept.bytes = bytes.into();
                }
                self.sessions.at_mut(key).presence = Some(Box::new(kept));
                self.announce(host, key, &presence, &[]);
                self.save_session(host, key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Photo {
        Photo::decode("image/gif", "aGVs\n bG8=").unwrap()
    }

    /// XEP-0398 4
    #[test]
    fn presence_says_the_hash_unless_its_client_has_no_picture() {
        let scope = StreamScope::client();
        let said = |text: &str, photo: Option<&PhotoHash>| {
            let view = StanzaView::parse(text.as_bytes(), &scope).unwrap();
            let bytes = presence_with(&view, &scope, photo)?;
            Some(String::from_utf8(bytes).unwrap())
        };
        let hash = hello().hash();
        let x = format!(
            "<x xmlns='vcard-temp:x:update'><photo>{}</photo></x>",
            hash.as_str()
        );
        let whole = format!("<presence>{x}</presence>");
        let other = whole.replace("aaf4", "aaf5");
        for text in [
            "<presence/>",
            "<presence></presence >",
            "<presence><x xmlns='vcard-temp:x:update'/></presence>",
            &other,
        ] {
            assert_eq!(said(text, Some(&hash)), Some(whole.clone()), "{text}");
        }
        let none = "<presence><x xmlns='vcard-temp:x:update'><photo/></x></presence>";
        assert_eq!(said(none, Some(&hash)), None);
        assert_eq!(said(&whole, Some(&hash)), None);
        assert_eq!(said("<presence/>", None), None);
        let gone = "<presence><x xmlns='vcard-temp:x:update'><photo></photo></x></presence>";
        assert_eq!(said(&whole, None).as_deref(), Some(gone));
        let long = format!(
            "<presence><status>{}</status></presence>",
            "x".repeat(SIZE_MAX - 40)
        );
        assert_eq!(said(&long, Some(&hash)), None);
    }

    #[test]
    fn a_card_has_one_picture_and_keeps_what_else_it_says() {
        let photo = hello();
        assert_eq!(
            photo.hash().as_str(),
            "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d"
        );
        let card = card_with(None, Some(&photo)).unwrap();
        assert_eq!(photo_of_card(&card), Some(photo.clone()));
        assert_eq!(card_with(Some(&card), Some(&photo)), None);
        let card =
            b"<vCard xmlns='vcard-temp' version='2.0'><FN>A&amp;B</FN><PHOTO><TYPE/></PHOTO>\
              </vCard>";
        let with = card_with(Some(card), Some(&photo)).unwrap();
        let with = String::from_utf8(with).unwrap();
        let begin = "<vCard xmlns='vcard-temp' version='2.0'><FN>A&amp;B</FN><PHOTO>\
                     <TYPE>image/gif</TYPE>";
        assert!(with.starts_with(begin), "{with}");
        let without = card_with(Some(with.as_bytes()), None).unwrap();
        assert_eq!(
            without,
            b"<vCard xmlns='vcard-temp' version='2.0'><FN>A&amp;B</FN></vCard>"
        );
    }

    #[test]
    fn an_item_says_what_its_picture_is_or_that_it_lies_elsewhere() {
        let photo = hello();
        let item = |content: &[u8]| [b"<item>", content, b"</item>"].concat();
        let metadata = item(&metadata_of(Some(&photo)));
        let hash = photo.hash();
        assert_eq!(kind_in(&metadata, &hash).as_deref(), Some("image/gif"));
        assert_eq!(kind_in(&item(&metadata_of(None)), &hash), None);
        let text = String::from_utf8(metadata).unwrap();
        let elsewhere = text.replace("<info", "<info url='http://a'");
        assert_eq!(kind_in(elsewhere.as_bytes(), &hash), None);
        let data = item(&photo.as_data());
        assert_eq!(Photo::of_data("image/gif".into(), &data), Some(photo));
    }
}
