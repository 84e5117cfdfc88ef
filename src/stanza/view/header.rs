//! The opening tag of a stream: whom it is for, and what it declares for the stanzas to come.

use crate::error::XmlError;
use crate::frame;
use crate::lexis;
use crate::ns::Ns;
use crate::scope::{PREFIXES_MAX, Prefix, SCOPE_SIZE_MAX, StreamScope};
use crate::simd;
use crate::view::is_content;
use crate::walk::{Attribute, Walk};

/// The opening tag of a stream.
#[derive(Clone, Debug)]
pub struct StreamHeader {
    /// The domain or host the stream is for.
    pub to: Option<String>,
    /// Who opened the stream.
    pub from: Option<String>,
    /// The stream's id, in headers of receiving entities.
    pub id: Option<String>,
    /// `version` as (major, minor), each `u16::MAX` where it is more; `None` without the attribute
    /// or if it is no version.
    pub version: Option<(u16, u16)>,
    /// `xml:lang`.
    pub lang: Option<String>,
    /// The content namespace: the default, or what a prefix declares where the default is none.
    pub content: Ns,
    /// Whether the tag is in the stream namespace.
    pub stream_ns_ok: bool,
    /// Whether its local name is `stream`.
    pub name_ok: bool,
    /// What the header declares for the stanzas to come.
    pub scope: StreamScope,
}

impl StreamHeader {
    /// Reads a `StreamOpen` frame.
    pub fn parse(bytes: &[u8]) -> Result<StreamHeader, XmlError> {
        let text = simd::check_characters(bytes)?;
        let outside = StreamScope::of(Ns::Unknown);
        let declaration = frame::declaration_size(bytes);
        let start = declaration + frame::space_size(&bytes[declaration..]);
        if bytes.get(start) != Some(&b'<') {
            return Err(XmlError::NotWellFormed);
        }
        let mut walk = Walk::new(text, &outside);
        let (tag, end) = walk.tag(start)?;
        if end != bytes.len() || tag.is_empty {
            return Err(XmlError::NotWellFormed);
        }
        let mut header = StreamHeader {
            to: None,
            from: None,
            id: None,
            version: None,
            lang: None,
            content: Ns::Unknown,
            stream_ns_ok: tag.ns.interned() == Ns::Streams,
            name_ok: tag.local().of(text) == "stream",
            scope: outside.clone(),
        };
        header.scope.name = tag.name.of(text).into();
        let mut prefixes = Vec::new();
        for &attribute in walk.attributes.iter() {
            header.note(text, attribute, &mut prefixes)?;
        }
        header.content = header.scope.default_ns;
        if !is_content(header.content) {
            let content =
                |p: &Prefix| Some(Ns::intern(p.uri.as_bytes())).filter(|&n| is_content(n));
            header.content = prefixes.iter().find_map(content).unwrap_or(header.content);
        }
        header.scope.prefixes = prefixes.into();
        header.scope.lang = header
            .lang
            .as_deref()
            .filter(|l| !l.is_empty())
            .map(Box::from);
        if header.scope.size() > SCOPE_SIZE_MAX {
            return Err(XmlError::TooBig);
        }
        header.scope.identify();
        Ok(header)
    }

    /// Whether each stanza is to name its namespace itself, as where the stream's has no prefix
    /// (RFC 6120 4.8.5).
    pub fn leaves_content_open(&self) -> bool {
        let is_open = self.scope.default.is_empty() || self.scope.default_ns == Ns::Streams;
        is_open && !is_content(self.content)
    }

    fn note(
        &mut self,
        text: &str,
        attribute: Attribute,
        prefixes: &mut Vec<Prefix>,
    ) -> Result<(), XmlError> {
        let value = lexis::attribute_value(attribute.value.of(text));
        match attribute.name.of(text) {
            "to" => self.to = Some(value.into_owned()),
            "from" => self.from = Some(value.into_owned()),
            "id" => self.id = Some(value.into_owned()),
            "version" => self.version = parse_version(&value),
            "xml:lang" => self.lang = Some(value.into_owned()),
            "xmlns" => {
                self.scope.default_ns = Ns::intern(value.as_bytes());
                self.scope.default = value.into();
            }
            name if attribute.is_declaration(text.as_bytes()) => {
                if prefixes.len() == PREFIXES_MAX {
                    return Err(XmlError::TooManyNamespaces);
                }
                let name = &name["xmlns:".len()..];
                if name != "xml" {
                    prefixes.push(Prefix::new(name, &value));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// RFC 6120 4.7.5: two numbers, leading zeros ignored. One that is larger than any version there is
/// counts as the largest: what is asked of it is whether it is higher than ours.
fn parse_version(text: &str) -> Option<(u16, u16)> {
    let (major, minor) = text.split_once('.')?;
    let number = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let append = |number: u16, digit: u8| {
            let digit = u16::from(digit - b'0');
            number.saturating_mul(10).saturating_add(digit)
        };
        is_number.then(|| digits.bytes().fold(0, append))
    };
    Some((number(major)?, number(minor)?))
}
