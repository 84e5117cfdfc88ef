//! XEP-0363: HTTP File Upload. Who may put which file on the server, and where it is found then.
//!
//! Invariant: what is asked of the keeper of files has a name, a size and a type that may stand in
//! a URL and in a header; whoever asks has an account that stays.

use super::disco::{Field, Form};
use super::time::utc;
use super::{Answer, Context, Extension, Request, Target, Xep, only_get};
use crate::error::{StanzaError, put};
use crate::host::Timestamp;
use crate::settings::Settings;
use crate::xml::Attr;
use stanza::jid::BareJid;
use stanza::ns::Ns;
use stanza::tree::Node;

/// Bytes of a file's name; what file systems take.
pub const NAME_SIZE_MAX: usize = 255;
/// Bytes of a type with its parameters.
pub const TYPE_SIZE_MAX: usize = 127;

/// Purposes of files other than the default one (XEP-0363 5); none is announced.
const PURPOSE: &str = "urn:xmpp:http:upload:purpose:0";

/// Gives slots to the accounts of the server; its own domain is the service.
#[derive(Debug)]
pub struct HttpUpload;

/// What may be uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadPolicy {
    /// Bytes of one file.
    pub size_max: u64,
    /// That number as it is announced.
    pub size_max_text: Box<str>,
}

impl UploadPolicy {
    /// Files of at most so many bytes.
    pub fn new(size_max: u64) -> UploadPolicy {
        UploadPolicy {
            size_max,
            size_max_text: size_max.to_string().into(),
        }
    }
}

/// A file that somebody wants to put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRequest {
    /// Whose file it will be.
    pub account: BareJid,
    /// A name that [`is_name`].
    pub name: Box<str>,
    /// A type that [`is_type`], or nothing.
    pub content_type: Box<str>,
    /// Its bytes, at least one.
    pub size: u64,
}

/// What the keeper of files says to that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotAnswer {
    /// It may be put.
    Granted(Box<Slot>),
    /// Not now, but from then on, if that is known.
    Full(Option<Timestamp>),
    /// Files cannot be kept.
    Failed,
}

/// Where a file may be put, and where it is then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Where it is put.
    pub put: Box<str>,
    /// What has to be said with it: the value of a header.
    pub authorization: Box<str>,
    /// Where it is.
    pub get: Box<str>,
}

/// Whether a file may have this name: one part of a path, without what a terminal or a header would
/// take for something else.
pub fn is_name(name: &str) -> bool {
    // What turns the direction of writing makes `exe.jpg` of `gpj.exe`.
    let turns = |c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_foreign = |c: char| c.is_control() || matches!(c, '/' | '\\') || turns(c);
    !name.is_empty()
        && name.len() <= NAME_SIZE_MAX
        && !matches!(name, "." | "..")
        && !name.contains(is_foreign)
}

/// Whether this is a number, and nothing but its digits.
pub fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a file may have this type (RFC 9110 8.3.1), perhaps with parameters. Behind a comma
/// browsers look for another one.
pub fn is_type(text: &str) -> bool {
    let is_token = |part: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
        !part.is_empty() && part.bytes().all(known)
    };
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    let parts = essence.split_once('/');
    text.len() <= TYPE_SIZE_MAX
        && parts.is_some_and(|(kind, rest)| is_token(kind) && is_token(rest))
        && text
            .bytes()
            .all(|byte| matches!(byte, b' '..=b'~') && byte != b',')
}

impl Extension for HttpUpload {
    const XEP: Xep = Xep {
        number: 363,
        version: "1.2.0",
    };
    const NAMESPACES: &'static [Ns] = &[Ns::HttpUpload];
    const FEATURES: &'static [Ns] = &[Ns::HttpUpload];

    fn is_offered(settings: &Settings) -> bool {
        settings.uploads.is_some()
    }

    /// XEP-0363 3: how large a file may be.
    fn info_form(settings: &Settings) -> Option<Form<'_>> {
        settings.uploads.as_ref().map(|policy| Form {
            kind: Ns::HttpUpload.as_str(),
            fields: vec![Field {
                var: "max-file-size".into(),
                kind: "text-single",
                values: vec![&policy.size_max_text],
            }],
        })
    }

    /// XEP-0363 4
    fn iq(
        context: &Context<'_>,
        request: &Request<'_>,
        payload: &mut Vec<u8>,
    ) -> Result<Answer, StanzaError> {
        let policy = context.settings.uploads.as_ref();
        let Some(policy) = policy.filter(|_| request.target == Target::Server) else {
            return Err(StanzaError::ServiceUnavailable);
        };
        only_get(request)?;
        // XEP-0363 6. A guest's files would have no owner as soon as it has gone.
        if context.is_anonymous {
            return Err(StanzaError::Forbidden);
        }
        let wanted = read(request.payload, context.account)?;
        if wanted.size > policy.size_max {
            write_too_large(policy, payload);
            return Ok(Answer::Refuse);
        }
        Ok(Answer::Slot(Box::new(wanted)))
    }
}

/// What a request asks for.
fn read(asked: Node<'_>, account: &BareJid) -> Result<SlotRequest, StanzaError> {
    if asked.name() != "request" {
        return Err(StanzaError::BadRequest);
    }
    // XEP-0363 5: a file that were to go before its time would stay.
    let other_purpose = |child: Node<'_>| child.ns_str() == PURPOSE && child.name() != "message";
    if asked.children().any(other_purpose) {
        return Err(StanzaError::FeatureNotImplemented);
    }
    let name = asked.attr("filename").filter(|name| is_name(name));
    let digits = asked.attr("size").filter(|size| is_number(size));
    // What is no number of 64 bits is too large in any case.
    let size = digits.map(|size| size.parse::<u64>().unwrap_or(u64::MAX));
    let content_type = asked.attr("content-type").unwrap_or_default();
    let (Some(name), Some(size @ 1..)) = (name, size) else {
        return Err(StanzaError::BadRequest);
    };
    if !content_type.is_empty() && !is_type(content_type) {
        return Err(StanzaError::BadRequest);
    }
    Ok(SlotRequest {
        account: account.clone(),
        name: name.into(),
        content_type: content_type.into(),
        size,
    })
}

/// XEP-0363 6
fn write_too_large(policy: &UploadPolicy, payload: &mut Vec<u8>) {
    put(
        payload,
        format_args!(
            "<error type='modify'><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
             <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>A file may have {0} \
             bytes.</text><file-too-large xmlns='urn:xmpp:http:upload:0'><max-file-size>{0}\
             </max-file-size></file-too-large></error>",
            policy.size_max
        ),
    );
}

/// Writes what the keeper of files said; gives the type of the stanza that has it.
pub(crate) fn answer(answer: SlotAnswer, payload: &mut Vec<u8>) -> &'static str {
    match answer {
        SlotAnswer::Granted(slot) => {
            let (put_url, get_url) = (Attr(&slot.put), Attr(&slot.get));
            put(
                payload,
                format_args!(
                    "<slot xmlns='urn:xmpp:http:upload:0'><put url='{put_url}'>\
                     <header name='Authorization'>{}</header></put><get url='{get_url}'/></slot>",
                    Attr(&slot.authorization)
                ),
            );
            return "result";
        }
        // XEP-0363 6: a time is told where it is known.
        SlotAnswer::Full(retry) => {
            payload.extend_from_slice(
                b"<error type='wait'>\
                  <resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
                  <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>\
                  There is no room for more files.</text>",
            );
            if let Some(at) = retry {
                let stamp = utc(at);
                put(
                    payload,
                    format_args!("<retry xmlns='urn:xmpp:http:upload:0' stamp='{stamp}'/>"),
                );
            }
            payload.extend_from_slice(b"</error>");
        }
        SlotAnswer::Failed => StanzaError::InternalServerError.write(payload),
    }
    "error"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_of_a_path_and_shows_what_it_is() {
        for name in ["a", ".a", "très cool.jpg", "a..b", "%2e%2e", "...", " "] {
            assert!(is_name(name), "{name:?}");
        }
        let foreign = [
            "",
            ".",
            "..",
            "a/b",
            "a\\b",
            "a\nb",
            "a\0",
            "\u{7f}",
            "a\u{202e}gpj.exe",
        ];
        for name in foreign {
            assert!(!is_name(name), "{name:?}");
        }
        assert!(is_name(&"ä".repeat(127)) && !is_name(&"ä".repeat(128)));
    }

    #[test]
    fn a_type_can_stand_in_a_header() {
        for known in ["image/jpeg", "text/plain; charset=utf-8", "a/b+c"] {
            assert!(is_type(known), "{known:?}");
        }
        let foreign = [
            "image",
            "/",
            "a/",
            "a/b\r\nX: y",
            "a b/c",
            "ä/b",
            "<a>/b",
            "image/png;x=y, text/html",
        ];
        for foreign in foreign {
            assert!(!is_type(foreign), "{foreign:?}");
        }
        assert!(!is_type(&format!("a/{}", "b".repeat(TYPE_SIZE_MAX - 1))));
    }
}
