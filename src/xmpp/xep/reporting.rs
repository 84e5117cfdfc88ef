//! XEP-0377: Blocking Command Reports. A report goes to the operator's log once its block is
//! stored.
//!
//! Invariant: nobody writes more to the log than so many reports in a minute; a line says how many
//! more there were at once.

use super::{Extension, Xep};
use crate::account::AccountKey;
use crate::error::StanzaError;
use crate::host::Host;
use crate::shard::Shard;
use stanza::ns::Ns;
use stanza::tree::Node;

/// Characters of each thing that a report says, as they are logged.
const TEXT_MAX: usize = 1_000;

/// Messages that one report names, as they are logged.
const NAMED_MAX: usize = 20;

/// Reports of one account that are logged within a minute.
const REPORTS_PER_MINUTE_MAX: u32 = 20;

/// That minute, in microseconds.
pub(crate) const REPORT_WINDOW_US: u64 = 60_000_000;

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

    /// Tells the operator, whatever else he wants to hear.
    fn log(&self, reporter: &str) {
        tracing::warn!(
            reporter,
            reported = &*self.reported,
            reason = &*self.reason,
            text = &*self.text,
            stanza_ids = ?self.stanza_ids,
            "abuse reported"
        );
    }
}

impl Shard {
    /// An account reports others: the operator is told of as many as may be logged.
    pub(crate) fn log_reports(
        &mut self,
        host: &impl Host,
        reporter: AccountKey,
        reports: &[Report],
    ) {
        let reporter = self.accounts.at(reporter).jid.as_str();
        let now = host.now();
        let before = self.reports.counted(reporter, now);
        let (logged, more) = share(before, reports.len());
        for report in &reports[..logged] {
            report.log(reporter);
        }
        if more > 0 {
            tracing::warn!(reporter, more, "more abuse was reported than is logged");
        }
        if !reports.is_empty() {
            self.reports.count_many(reporter, now, reports.len() as u32);
        }
    }
}

/// How many of `count` reports are logged behind `before` of the same minute, and of how many a
/// line says that they are not: that is said once.
fn share(before: u32, count: usize) -> (usize, usize) {
    let room = REPORTS_PER_MINUTE_MAX.saturating_sub(before) as usize;
    let logged = count.min(room);
    match before > REPORTS_PER_MINUTE_MAX {
        true => (0, 0),
        false => (logged, count - logged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_reports_are_logged_in_a_minute_and_once_how_many_more_there_were() {
        for (before, count, expected) in [
            (0, 0, (0, 0)),
            (0, 20, (20, 0)),
            (0, 1_000, (20, 980)),
            (15, 6, (5, 1)),
            (20, 1, (0, 1)),
            (21, 1_000, (0, 0)),
        ] {
            assert_eq!(share(before, count), expected, "{count} behind {before}");
        }
    }
}
