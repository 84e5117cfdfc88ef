//! XEP-0455: Service Outage Status. Where a client, or its user, finds out why the server is not
//! there: addresses that are told while it is.

use super::disco::{Field, Form};
use super::{Extension, Xep};
use crate::settings::Settings;

/// A form in what the server says of itself.
#[derive(Debug)]
pub struct OutageStatus;

impl Extension for OutageStatus {
    const XEP: Xep = Xep {
        number: 455,
        version: "0.4.0",
    };

    /// XEP-0455 2.1
    fn info_form(settings: &Settings) -> Option<Form<'_>> {
        let addresses = &settings.status_addresses;
        (!addresses.is_empty()).then(|| Form {
            kind: "urn:xmpp:sos:0",
            fields: vec![Field {
                var: "external-status-addresses".into(),
                kind: "list-multi",
                values: addresses.iter().map(|address| &**address).collect(),
            }],
        })
    }
}
