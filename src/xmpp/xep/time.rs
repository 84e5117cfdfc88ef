//! XEP-0202: Entity Time, in the format of XEP-0082.

use super::{Answer, Context, Extension, Request, Target, Xep, only_get};
use crate::error::{StanzaError, put};
use crate::host::Timestamp;
use stanza::ns::Ns;

/// From 0000-03-01 to 1970-01-01.
const DAYS_BEFORE_1970: u64 = 719_468;

/// Those of 400 years.
const DAYS_PER_ERA: u64 = 146_097;

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

/// The same to the microsecond.
pub(crate) fn utc_exact(at: Timestamp) -> String {
    let mut text = utc(at);
    text.pop();
    format!("{text}.{:06}Z", at.0 % 1_000_000)
}

/// The moment that XEP-0082 writes so, since 1970; `None` where it is none.
pub(crate) fn parse_utc(text: &str) -> Option<Timestamp> {
    let number = |part: &str| {
        let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<u64>().ok().filter(|_| is_number)
    };
    let (date, time) = text.split_once('T')?;
    let [year, month, day] = <[&str; 3]>::try_from(date.split('-').collect::<Vec<_>>()).ok()?;
    let (year, month, day) = (number(year)?, number(month)?, number(day)?);
    let (time, zone) = time.split_at(time.find(['Z', '+', '-'])?);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = <[&str; 3]>::try_from(time.split(':').collect::<Vec<_>>()).ok()?;
    let (hour, minute, second) = (number(hour)?, number(minute)?, number(second)?);
    let day = days_until(year, month, day)?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    number(fraction)?;
    let micros: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let at = ((day * 24 + hour) * 60 + minute) * 60 + second;
    let offset = match zone.split_at(1) {
        ("Z", "") => 0,
        ("Z", _) => return None,
        (sign, offset) => {
            let (hours, minutes) = offset.split_once(':')?;
            let minutes = number(hours)?
                .checked_mul(60)?
                .checked_add(number(minutes)?)?;
            let seconds = i64::try_from((minutes <= 24 * 60).then_some(minutes * 60)?).ok()?;
            if sign == "-" { seconds } else { -seconds }
        }
    };
    let at = at.checked_add_signed(offset)?;
    Some(Timestamp(at.checked_mul(1_000_000)? + number(&micros)?))
}

/// Days from 1970-01-01 to a date; `None` where there is none, or it is before that.
fn days_until(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9_999).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    // The inverse of `civil`.
    let year_from_march = if month > 2 { year } else { year - 1 };
    let (era, of_era) = (year_from_march / 400, year_from_march % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day.clamp(1, 31) - 1;
    let days = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    let days = (era * DAYS_PER_ERA + days).checked_sub(DAYS_BEFORE_1970)?;
    (civil(days) == (year, month, day)).then_some(days)
}

/// Year, month and day of a day since 1970-01-01, in the proleptic Gregorian calendar: years are
/// counted from March, so that the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
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

    #[test]
    fn moments_are_read_as_they_are_written_and_nothing_else_is() {
        for micros in [
            0,
            951_782_399_000_000,
            1_709_251_199_999_999,
            4_107_542_400_000_001,
        ] {
            assert_eq!(
                parse_utc(&utc_exact(Timestamp(micros))),
                Some(Timestamp(micros))
            );
        }
        let at = Some(Timestamp(951_782_400_500_000));
        for text in [
            "2000-02-29T00:00:00.5Z",
            "2000-02-29T02:30:00.5+02:30",
            "2000-02-28T23:00:00.500000999-01:00",
        ] {
            assert_eq!(parse_utc(text), at, "{text}");
        }
        for text in [
            "",
            "T",
            "2001-02-29T00:00:00Z",
            "2000-02-00T00:00:00Z",
            "2000-00-01T00:00:00Z",
            "2000-02-29",
            "2000-02-29T00:00:00",
            "2000-02-29T24:00:00Z",
            "2000-02-29T00:00Z",
            "2000-02-29T00:00:00.Z",
            "2000-02-29T00:00:00.xZ",
            "2000-02-29T00:00:00Zx",
            "2000-02-29T00:00:00+2",
            "1969-12-31T23:59:59Z",
            "99999999999999999999-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_utc(text), None, "{text}");
        }
    }
}
