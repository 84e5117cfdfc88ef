//! XEP-0202: Entity Time, in the format of XEP-0082.

use super::{Answer, Context, Extension, Request, Target, Xep, only_get};
use crate::error::{StanzaError, put};
use crate::host::Timestamp;
use stanza::ns::Ns;

/// Tells the server's time.
#[derive(Debug)]
pub struct Time;

impl Extension for Time {
    const XEP: Xep = Xep {
        number: 202,
        version: "2.0",
    };
    const NAMESPACES: &'static [Ns] = &[Ns::Time];
    const FEATURES: &'static [Ns] = &[Ns::Time];

    fn iq(
        context: &Context<'_>,
        request: &Request<'_>,
        payload: &mut Vec<u8>,
    ) -> Result<Answer, StanzaError> {
        if request.target == Target::Other {
            return Err(StanzaError::ServiceUnavailable);
        }
        only_get(request)?;
        put(
            payload,
            format_args!(
                "<time xmlns='urn:xmpp:time'><tzo>+00:00</tzo><utc>{}</utc></time>",
                utc(context.wall)
            ),
        );
        Ok(Answer::Now)
    }
}

/// A moment as XEP-0082 writes it, to the second.
pub fn utc(at: Timestamp) -> String {
    let seconds = at.0 / 1_000_000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day since 1970-01-01, in the proleptic Gregorian calendar: years are
/// counted from March, so that the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_BEFORE_1970: u64 = 719_468;
    const DAYS_PER_ERA: u64 = 146_097;
    let days = days + DAYS_BEFORE_1970;
    let (era, of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_the_calendar_has_them() {
        assert_eq!(utc(Timestamp(0)), "1970-01-01T00:00:00Z");
        assert_eq!(utc(Timestamp(951_782_399_000_000)), "2000-02-28T23:59:59Z");
        assert_eq!(utc(Timestamp(951_782_400_000_000)), "2000-02-29T00:00:00Z");
        assert_eq!(
            utc(Timestamp(1_709_251_199_999_999)),
            "2024-02-29T23:59:59Z"
        );
        assert_eq!(
            utc(Timestamp(4_107_542_400_000_000)),
            "2100-03-01T00:00:00Z"
        );
    }
}
