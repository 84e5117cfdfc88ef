//! XEP-0157: Contact Addresses for XMPP Services. Whom to turn to, by kind of matter.

use super::disco::{Field, Form};
use super::{Extension, Xep};
use crate::settings::Settings;

/// A form in what the server says of itself.
#[derive(Debug)]
pub struct Contact;

impl Extension for Contact {
    const XEP: Xep = Xep {
        number: 157,
        version: "1.1.1",
    };

    /// XEP-0157 3: one field for each kind that has addresses.
    fn info_form(settings: &Settings) -> Option<Form<'_>> {
        let fields = settings.contacts.iter().map(|(kind, addresses)| Field {
            var: format!("{kind}-addresses").into(),
            kind: "list-multi",
            values: addresses.iter().map(|address| &**address).collect(),
        });
        (!settings.contacts.is_empty()).then(|| Form {
            kind: "http://jabber.org/network/serverinfo",
            fields: fields.collect(),
        })
    }
}
