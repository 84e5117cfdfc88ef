//! The slow path of preparation: nodeprep, resourceprep and UTS 46.
//!
//! Code points that Unicode 3.2 did not know are allowed, as the installed base does
//! (libidn with unassigned code points allowed): a strict table would refuse emoji in resources and
//! nicknames. New *accounts* are held to a stricter rule, [`check_new_local`].

use super::{JidError, LABEL_SIZE_MAX, PART_SIZE_MAX};
use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use precis_core::profile::PrecisFastInvocation;
use precis_profiles::{OpaqueString, UsernameCaseMapped};
use std::borrow::Cow;
use std::net::Ipv6Addr;
use stringprep::tables;
use unicode_normalization::UnicodeNormalization;

/// Bytes of a part before preparation; it can only shrink by characters mapped to nothing.
const RAW_SIZE_MAX: usize = 4 * PART_SIZE_MAX;

/// Rounds of mapping and normalisation until a fixed point must be reached. One suffices for what
/// Unicode 3.2 knew; newer compatibility characters may decompose into capitals and take two.
const ROUNDS_MAX: usize = 4;

/// What a domain must not contain, once mapped: all of printable ASCII but letters, digits, hyphen,
/// dot and underscore. The brackets of IPv6 literals are handled before.
const DOMAIN_DENIED: AsciiDenyList = AsciiDenyList::new(true, "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~");

/// Prepares a resourcepart (RFC 6122, resourceprep).
pub fn prepare_resource(resource: &str) -> Result<Cow<'_, str>, JidError> {
    if resource.bytes().all(|b| matches!(b, 0x20..=0x7e)) {
        return sized(Cow::Borrowed(resource));
    }
    let prepared = stable(resource, false, JidError::Resource)?;
    if prepared.chars().any(prohibited) || prohibited_bidirectional(&prepared) {
        return Err(JidError::Resource);
    }
    sized(Cow::Owned(prepared))
}

/// Prepares a localpart (RFC 6122, nodeprep).
pub(super) fn local(local: &str) -> Result<Cow<'_, str>, JidError> {
    let prepared = stable(local, true, JidError::Local)?;
    let banned =
        |c| prohibited(c) || matches!(c, ' ' | '"' | '&' | '\'' | '/' | ':' | '<' | '>' | '@');
    if prepared.chars().any(banned) || prohibited_bidirectional(&prepared) {
        return Err(JidError::Local);
    }
    sized(Cow::Owned(prepared))
}

/// Prepares a domainpart: A-labels, lower case, no trailing dot; IPv6 literals in canonical form.
pub(super) fn domain(domain: &str) -> Result<Cow<'_, str>, JidError> {
    if domain.len() > RAW_SIZE_MAX {
        return Err(JidError::TooLong);
    }
    if let Some(literal) = domain.strip_prefix('[') {
        let literal = literal.strip_suffix(']').ok_or(JidError::Domain)?;
        let address: Ipv6Addr = literal.parse().map_err(|_| JidError::Domain)?;
        return Ok(Cow::Owned(format!("[{address}]")));
    }
    // RFC 7622 3.2: a final dot is dropped before any other step.
    let domain = domain
        .strip_suffix(['.', '\u{3002}', '\u{ff0e}', '\u{ff61}'])
        .unwrap_or(domain);
    if domain.is_empty() {
        return Err(JidError::Empty);
    }
    let ascii = Uts46::new()
        .to_ascii(
            domain.as_bytes(),
            DOMAIN_DENIED,
            Hyphens::CheckFirstLast,
            DnsLength::Ignore,
        )
        .map_err(|_| JidError::Domain)?;
    if ascii.split('.').any(str::is_empty) {
        return Err(JidError::Domain);
    }
    if ascii.split('.').any(|label| label.len() > LABEL_SIZE_MAX) {
        return Err(JidError::TooLong);
    }
    sized(ascii)
}

/// The provisioning rule: a new account's localpart must come out the same under nodeprep and under
/// PRECIS UsernameCaseMapped, so that servers of both worlds agree on who it is.
pub fn check_new_local(text: &str) -> Result<(), JidError> {
    let old = local(text)?;
    let new = UsernameCaseMapped::enforce(text).map_err(|_| JidError::Ambiguous)?;
    if old == new {
        Ok(())
    } else {
        Err(JidError::Ambiguous)
    }
}

/// Prepares a password: SASLprep, as SCRAM was defined with, else OpaqueString (RFC 8265).
pub fn prepare_password(password: &str) -> Result<String, JidError> {
    if password.is_empty() {
        return Err(JidError::Empty);
    }
    let prepared = stringprep::saslprep(password)
        .or_else(|_| OpaqueString::enforce(password).map_err(|_| JidError::Password))?;
    if prepared.is_empty() {
        Err(JidError::Empty)
    } else {
        Ok(prepared.into_owned())
    }
}

fn sized(part: Cow<'_, str>) -> Result<Cow<'_, str>, JidError> {
    match part.len() {
        0 => Err(JidError::Empty),
        1..=PART_SIZE_MAX => Ok(part),
        _ => Err(JidError::TooLong),
    }
}

/// Maps and normalises until nothing changes; that it never does is an `error`.
fn stable(text: &str, fold_case: bool, error: JidError) -> Result<String, JidError> {
    if text.len() > RAW_SIZE_MAX {
        return Err(JidError::TooLong);
    }
    let mut before = map(text, fold_case)?;
    for _ in 0..ROUNDS_MAX {
        let after = map(&before, fold_case)?;
        if after == before {
            return Ok(after);
        }
        before = after;
    }
    Err(error)
}

/// RFC 3454 3 and 4: characters mapped to nothing, case folding, NFKC. Some characters expand to
/// eighteen, so it stops where the result becomes too long.
fn map(text: &str, fold_case: bool) -> Result<String, JidError> {
    let kept = text
        .chars()
        .filter(|&c| !tables::commonly_mapped_to_nothing(c));
    if fold_case {
        gather(kept.flat_map(tables::case_fold_for_nfkc).nfkc())
    } else {
        gather(kept.nfkc())
    }
}

fn gather(chars: impl Iterator<Item = char>) -> Result<String, JidError> {
    let mut out = String::new();
    for c in chars {
        out.push(c);
        if out.len() > PART_SIZE_MAX {
            return Err(JidError::TooLong);
        }
    }
    Ok(out)
}

/// RFC 3454 C.1.2 to C.9, prohibited in local- and resourceparts alike.
fn prohibited(c: char) -> bool {
    tables::non_ascii_space_character(c)
        || tables::ascii_control_character(c)
        || tables::non_ascii_control_character(c)
        || tables::private_use(c)
        || tables::non_character_code_point(c)
        || tables::inappropriate_for_plain_text(c)
        || tables::inappropriate_for_canonical_representation(c)
        || tables::change_display_properties_or_deprecated(c)
        || tables::tagging_character(c)
}

/// RFC 3454 6.
fn prohibited_bidirectional(text: &str) -> bool {
    if !text.contains(tables::bidi_r_or_al) {
        return false;
    }
    text.contains(tables::bidi_l)
        || !text.starts_with(tables::bidi_r_or_al)
        || !text.ends_with(tables::bidi_r_or_al)
}
