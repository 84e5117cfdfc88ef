//! XEP-0377: Blocking Command Reports. A report goes to the operator's log once its block is
//! stored.

use super::{Extension, Xep};
use crate::error::StanzaError;
use stanza::ns::Ns;
use stanza::tree::Node;

/// Characters of each thing that a report says, as they are logged.
const TEXT_MAX: usize = 1_000;

/// Messages that one report names, as they are logged.
const NAMED_MAX: usize = 20;

/// Reports inside of the blocking command.
#[derive(Debug)]
pub struct Reporting;

impl Extension for Reporting {
    const XEP: Xep = Xep {
        number: 377,
        version: "0.4.1",
    };
    const FEATURES: &'static [Ns] = &[Ns::Reporting];
}

/// What somebody says of an address that is blocked with it.
#[derive(Debug)]
pub(crate) struct Report {
    reported: Box<str>,
    reason: Box<str>,
    text: Box<str>,
    stanza_ids: Vec<Box<str>>,
}

impl Report {
    /// The report in an item that blocks `reported`, if there is one.
    ///
    /// # Errors
    /// `BadRequest` without a reason (XEP-0377 4).
    pub(crate) fn of(item: Node<'_>, reported: &str) -> Result<Option<Report>, StanzaError> {
        let Some(report) = item.child("report", Ns::Reporting) else {
            return Ok(None);
        };
        let reason = report.attr("reason").filter(|reason| !reason.is_empty());
        let text = report.child("text", Ns::Reporting);
        let ids = report.children();
        let ids = ids.filter(|node| node.is("stanza-id", Ns::StanzaId));
        let cut = |text: &str| Box::from(text.chars().take(TEXT_MAX).collect::<String>());
        Ok(Some(Report {
            reported: reported.into(),
            reason: cut(reason.ok_or(StanzaError::BadRequest)?),
            text: cut(text.map_or("", |text| text.text().trim())),
            stanza_ids: ids
                .filter_map(|id| id.attr("id").map(cut))
                .take(NAMED_MAX)
                .collect(),
        }))
    }

    /// Tells the operator.
    pub(crate) fn log(&self, reporter: &str) {
        tracing::info!(
            reporter,
            reported = &*self.reported,
            reason = &*self.reason,
            text = &*self.text,
            stanza_ids = ?self.stanza_ids,
            "abuse reported"
        );
    }
}
