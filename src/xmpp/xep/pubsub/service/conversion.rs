//! What follows from a change for nodes and documents that say the same (XEP-0398, XEP-0402).

use super::{Outcome, Service};
use crate::error::StanzaError;
use crate::port::{AVATAR_DATA, AVATAR_METADATA, PhotoHash, Space, shown_photo};
use crate::xep::avatars::{self, Photo};
use crate::xep::pubsub::action::{NewItem, Options, Publication};
use crate::xep::pubsub::convert::{Conversion, Gathered, apply, is_public};
use crate::xep::pubsub::form::public_options;
use crate::xep::pubsub::refusal::Refusal;
use crate::xep::vcard::VCARD_SIZE_MAX;

impl Service<'_> {
    /// Adds to an outcome, whose changes the nodes have, what follows from it.
    ///
    /// # Errors
    /// There is no room for it, or what was published is not what it claims to be.
    pub(in crate::xep::pubsub) fn convert(
        &mut self,
        conversion: Conversion,
        gathered: &Gathered,
        outcome: &mut Outcome,
    ) -> Result<(), Refusal> {
        match conversion {
            Conversion::Card => self.convert_card(gathered, outcome),
            Conversion::Avatar => self.convert_avatar(gathered, outcome),
            Conversion::Bookmarks(place) => self.convert_bookmarks(place, gathered, outcome),
        }
    }

    /// XEP-0398 3.2: a card of which the picture is another than before. One that has none, and had
    /// not that of the nodes, takes nothing away: it is given theirs.
    fn convert_card(&mut self, gathered: &Gathered, outcome: &mut Outcome) -> Result<(), Refusal> {
        let nodes = [AVATAR_DATA, AVATAR_METADATA].map(|name| self.find(name));
        if !nodes.into_iter().flatten().all(is_public) {
            return Ok(());
        }
        let shown = shown_photo(nodes[1], nodes[0]);
        let card = outcome.document.as_ref();
        let photo = card.and_then(|(.., bytes)| avatars::photo_of_card(bytes));
        let before = gathered
            .document
            .as_deref()
            .and_then(avatars::photo_of_card);
        let before = before.as_ref().map(Photo::hash);
        let hash = photo.as_ref().map(Photo::hash);
        if hash == shown {
            return Ok(());
        }
        if let Some(shown) = shown
            && before != Some(shown)
            && (hash.is_none() || hash == before)
        {
            let photo = self.photo_of(gathered, &shown);
            return match (hash, photo) {
                (None, Some(photo)) => self.put_card(card_of(outcome), Some(&photo), outcome),
                _ => Ok(()),
            };
        }
        if let (Some(photo), Some(hash)) = (&photo, hash) {
            let item = (Some(hash.as_str()), photo.as_data());
            self.publish_own(
                AVATAR_DATA,
                item,
                Options::Initial(public_options()),
                outcome,
            )?;
        }
        let metadata = avatars::metadata_of(photo.as_ref());
        let id = hash.as_ref().map(PhotoHash::as_str);
        let options = Options::Initial(public_options());
        self.publish_own(AVATAR_METADATA, (id, metadata), options, outcome)?;
        outcome.photo = Some(hash);
        Ok(())
    }

    /// What the nodes say of a picture.
    fn photo_of(&self, gathered: &Gathered, hash: &PhotoHash) -> Option<Photo> {
        let said = |name: &str| {
            let node = self.find(name)?;
            let item = node.items.iter().find(|it| *it.id == *hash.as_str())?;
            gathered.payloads.get(&(node.name.clone(), item.number))
        };
        let kind = avatars::kind_in(said(AVATAR_METADATA)?, hash)?;
        Photo::of_data(kind, said(AVATAR_DATA)?)
    }

    /// Writes a card with another picture, or without one.
    fn put_card(
        &self,
        card: Option<Box<[u8]>>,
        photo: Option<&Photo>,
        outcome: &mut Outcome,
    ) -> Result<(), Refusal> {
        let Some(written) = avatars::card_with(card.as_deref(), photo) else {
            return Ok(());
        };
        let before = card.map_or(0, |card| card.len());
        if written.len() > VCARD_SIZE_MAX.max(before) {
            return Err(StanzaError::ResourceConstraint.into());
        }
        outcome.document = Some((Space::Vcard, "".into(), written.into()));
        Ok(())
    }

    /// XEP-0398 3.1
    fn convert_avatar(
        &mut self,
        gathered: &Gathered,
        outcome: &mut Outcome,
    ) -> Result<(), Refusal> {
        let shown = shown_photo(self.find(AVATAR_METADATA), self.find(AVATAR_DATA));
        let photo = shown.and_then(|hash| {
            let node = self.find(AVATAR_METADATA)?;
            let item = node.items.last()?;
            let said = gathered.payloads.get(&(node.name.clone(), item.number))?;
            // It may say that there is none, or that it lies elsewhere.
            avatars::kind_in(said, &hash)?;
            Some((hash, self.photo_of(gathered, &hash)))
        });
        // XEP-0084 3.1: its id is the hash of the picture.
        if let Some((hash, photo)) = &photo
            && photo.as_ref().map(Photo::hash) != Some(*hash)
        {
            return Err(StanzaError::NotAcceptable.into());
        }
        outcome.photo = Some(photo.as_ref().map(|(hash, _)| *hash));
        let photo = photo.and_then(|(_, photo)| photo);
        let card = gathered.document.clone();
        let had = card.as_deref().and_then(avatars::photo_of_card);
        // The picture of a card that was not that of the nodes is not theirs to take away.
        if photo.is_none() && had.as_ref().map(Photo::hash) != gathered.photo {
            return Ok(());
        }
        self.put_card(card, photo.as_ref(), outcome)
    }

    /// The account publishes an item by itself.
    pub(super) fn publish_own(
        &mut self,
        node: &str,
        (id, payload): (Option<&str>, Vec<u8>),
        options: Options,
        outcome: &mut Outcome,
    ) -> Result<(), Refusal> {
        let item = NewItem {
            id: id.map(Box::from),
            payload: payload.into(),
        };
        self.publish_all(node, vec![item], options, outcome)
    }

    pub(super) fn publish_all(
        &mut self,
        node: &str,
        items: Vec<NewItem>,
        options: Options,
        outcome: &mut Outcome,
    ) -> Result<(), Refusal> {
        let more = self.publish(Publication {
            node: node.into(),
            items,
            options,
        })?;
        self.absorb(more, outcome)
    }

    /// Something more is changed.
    pub(super) fn absorb(&mut self, more: Outcome, outcome: &mut Outcome) -> Result<(), Refusal> {
        for change in more.changes {
            if let Some(node) = &change.node {
                self.check_size(node)?;
            }
            apply(&mut self.nodes, &change);
            outcome.changes.push(change);
        }
        outcome.events.extend(more.events);
        Ok(())
    }
}

/// The card that is to be written.
fn card_of(outcome: &Outcome) -> Option<Box<[u8]>> {
    outcome.document.as_ref().map(|(.., card)| card.clone())
}
