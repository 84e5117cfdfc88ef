//! `[push]`: whether devices that are away are notified, and of what.

use super::value::{FromText, Number, Text};
use serde::Deserialize;
use xmpp::xep::push::{PushPolicy, ShownBody};

/// The most registrations that an account may be given: all of them are one record.
const REGISTRATIONS_MAX: u64 = 64;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the section [push]")]
pub(super) struct PushFile {
    enabled: Option<bool>,
    sender: Option<bool>,
    body: Option<Text<ShownBody>>,
    registrations_max: Option<Number<1, REGISTRATIONS_MAX>>,
}

impl PushFile {
    /// What is decided, if anybody is notified at all.
    pub(super) fn policy(self) -> Option<PushPolicy> {
        let policy = PushPolicy::default();
        let registrations_max = self.registrations_max.map(|Number(count)| count as u16);
        self.enabled.unwrap_or(false).then(|| PushPolicy {
            registrations_max: registrations_max.unwrap_or(policy.registrations_max),
            shows_sender: self.sender.unwrap_or(policy.shows_sender),
            body: self.body.map_or(policy.body, |Text(body)| body),
        })
    }
}

impl FromText for ShownBody {
    const EXPECTED: &'static str = "what is shown, in quotes";

    fn from_text(text: &str) -> Result<ShownBody, String> {
        match text {
            "none" => Ok(ShownBody::None),
            "notice" => Ok(ShownBody::Notice),
            "text" => Ok(ShownBody::Text),
            _ => Err(format!(
                "is nothing that could be shown ({text:?}); write \"none\", \"notice\" or \"text\""
            )),
        }
    }
}
