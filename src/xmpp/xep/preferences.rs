//! XEP-0441: Message Archive Management Preferences. Which messages an account wants archived.
//!
//! Invariant: what is answered is stored, and from then on obeyed.

use super::{Extension, Xep};
use crate::error::{StanzaError, put};
use crate::settings::Settings;
use crate::xml::Attr;
use stanza::jid::Jid;
use stanza::ns::Ns;
use stanza::tree::Node;
use std::collections::BTreeSet;

/// JIDs in the lists of one account.
pub const LISTED_MAX: usize = 1_000;

/// Bytes of them.
pub const LISTED_SIZE_MAX: usize = 64 << 10;

/// Preferences; their requests are those of archives, and the shard answers them.
#[derive(Debug)]
pub struct ArchivePreferences;

impl Extension for ArchivePreferences {
    const XEP: Xep = Xep {
        number: 441,
        version: "0.2.0",
    };

    fn is_offered(settings: &Settings) -> bool {
        settings.archives()
    }
}

/// What becomes of messages with somebody who is in no list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Policy {
    #[default]
    Always,
    Never,
    Roster,
}

impl Policy {
    const ALL: [Policy; 3] = [Policy::Always, Policy::Never, Policy::Roster];

    fn name(self) -> &'static str {
        match self {
            Policy::Always => "always",
            Policy::Never => "never",
            Policy::Roster => "roster",
        }
    }

    fn parse(name: &str) -> Option<Policy> {
        Policy::ALL.into_iter().find(|policy| policy.name() == name)
    }
}

/// What an account wants archived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Preferences {
    default: Policy,
    always: BTreeSet<Box<str>>,
    never: BTreeSet<Box<str>>,
}

impl Preferences {
    /// Reads `<prefs/>`.
    ///
    /// # Errors
    /// What is no policy or no JID, and lists that are too long.
    pub(crate) fn parse(prefs: Node<'_>) -> Result<Preferences, StanzaError> {
        let default = prefs.attr("default").and_then(Policy::parse);
        let mut wishes = Preferences {
            default: default.ok_or(StanzaError::BadRequest)?,
            ..Preferences::default()
        };
        let (mut count, mut size) = (0, 0);
        for list in prefs.children().filter(|child| child.ns() == Ns::Mam) {
            let jids = match list.name() {
                "always" => &mut wishes.always,
                "never" => &mut wishes.never,
                _ => continue,
            };
            for item in list.children().filter(|item| item.is("jid", Ns::Mam)) {
                let jid = Jid::parse(item.text().trim());
                let jid = jid.map_err(|_| StanzaError::JidMalformed)?;
                count += 1;
                size += jid.as_str().len();
                if count > LISTED_MAX || size > LISTED_SIZE_MAX {
                    return Err(StanzaError::ResourceConstraint);
                }
                jids.insert(jid.as_str().into());
            }
        }
        Ok(wishes)
    }

    /// Writes `<prefs/>`.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let default = self.default.name();
        put(
            out,
            format_args!("<prefs xmlns='urn:xmpp:mam:2' default='{default}'>"),
        );
        for (name, jids) in [("always", &self.always), ("never", &self.never)] {
            put(out, format_args!("<{name}>"));
            for jid in jids {
                put(out, format_args!("<jid>{}</jid>", Attr(jid)));
            }
            put(out, format_args!("</{name}>"));
        }
        out.extend_from_slice(b"</prefs>");
    }

    /// As storage has them: the policy's name, then a line for each JID, which has no line break.
    pub(crate) fn record(&self) -> Box<[u8]> {
        let mut record = self.default.name().as_bytes().to_vec();
        for (sign, jids) in [('+', &self.always), ('-', &self.never)] {
            for jid in jids {
                put(&mut record, format_args!("\n{sign}{jid}"));
            }
        }
        record.into()
    }

    /// Reads them; what makes no sense is passed over.
    pub(crate) fn read(record: &[u8]) -> Box<Preferences> {
        let text = String::from_utf8_lossy(record);
        let mut lines = text.lines();
        let default = lines.next().and_then(Policy::parse).unwrap_or_default();
        let mut wishes = Preferences {
            default,
            ..Preferences::default()
        };
        for line in lines {
            if let Some(jid) = line.strip_prefix('+') {
                wishes.always.insert(jid.into());
            } else if let Some(jid) = line.strip_prefix('-') {
                wishes.never.insert(jid.into());
            }
        }
        Box::new(wishes)
    }

    /// Whether messages with a peer are wanted (XEP-0441 2.4: a listed JID without a resource means
    /// all of its resources). `never` comes first: what is there cannot be taken back unseen.
    pub(crate) fn want(&self, peer: &Jid<'_>, is_contact: impl FnOnce() -> bool) -> bool {
        let is_in =
            |list: &BTreeSet<Box<str>>| list.contains(peer.as_str()) || list.contains(peer.bare());
        if is_in(&self.never) {
            return false;
        }
        is_in(&self.always)
            || match self.default {
                Policy::Always => true,
                Policy::Never => false,
                Policy::Roster => is_contact(),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stanza::scope::StreamScope;
    use stanza::tree::Tree;

    fn parse(prefs: &str) -> Result<Preferences, StanzaError> {
        let scope = StreamScope::client();
        let tree = Tree::parse(prefs.as_bytes(), &scope).unwrap();
        Preferences::parse(tree.root())
    }

    const SOME: &str = "<prefs xmlns='urn:xmpp:mam:2' default='roster'><always><jid>a@b</jid>\
        </always><never><jid>c@d/e</jid><jid>f@g</jid></never></prefs>";

    #[test]
    fn preferences_are_the_same_on_the_wire_and_in_storage() {
        let wishes = parse(SOME).unwrap();
        let mut out = Vec::new();
        wishes.write(&mut out);
        assert_eq!(String::from_utf8_lossy(&out), SOME);
        assert_eq!(*Preferences::read(&wishes.record()), wishes);
        assert_eq!(*Preferences::read(b"what\n*a@b"), Preferences::default());
    }

    #[test]
    fn lists_come_before_the_policy_and_name_resources_or_all_of_them() {
        let wishes = parse(SOME).unwrap();
        for (peer, is_contact, wanted) in [
            ("a@b", false, true),
            ("a@b/x", false, true),
            ("c@d/e", true, false),
            ("c@d", true, true),
            ("c@d", false, false),
            ("f@g/x", true, false),
        ] {
            let jid = Jid::from_prepared(peer);
            assert_eq!(wishes.want(&jid, || is_contact), wanted, "{peer}");
        }
    }

    #[test]
    fn what_makes_no_sense_and_long_lists_are_refused() {
        let with = |default: &str, jids: &str| {
            let always = format!("<always>{jids}</always>");
            parse(&format!(
                "<prefs xmlns='urn:xmpp:mam:2'{default}>{always}</prefs>"
            ))
        };
        assert_eq!(with("", ""), Err(StanzaError::BadRequest));
        assert_eq!(with(" default='some'", ""), Err(StanzaError::BadRequest));
        let always = " default='always'";
        assert_eq!(with(always, "<jid>@</jid>"), Err(StanzaError::JidMalformed));
        let many = |count: usize| -> String {
            (0..count)
                .map(|i| format!("<jid>{i}@b.example</jid>"))
                .collect()
        };
        assert!(with(always, &many(LISTED_MAX)).is_ok());
        let refused = Err(StanzaError::ResourceConstraint);
        assert_eq!(with(always, &many(LISTED_MAX + 1)), refused);
        let long: String = (0..70)
            .map(|i| format!("<jid>{}{i}@b</jid>", "x".repeat(990)))
            .collect();
        assert_eq!(with(always, &long), Err(StanzaError::ResourceConstraint));
    }
}
