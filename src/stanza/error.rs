//! Why bytes are refused as a stream: one type for the scanner, the view and the tree.

use std::fmt;

/// What is wrong with the bytes. The stream layer turns it into a stream error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum XmlError {
    /// A comment, processing instruction, DTD or entity beyond the five (RFC 6120 11.1).
    Restricted,
    /// Not well-formed XML, or not well-formed with regard to namespaces (RFC 6120 11.3).
    NotWellFormed,
    /// Text stands between the elements of a stream, where only white space may.
    StrayText,
    /// The element is larger than the limit.
    TooBig,
    /// Elements are nested deeper than the limit.
    TooDeep,
    /// One element has more attributes than the limit.
    TooManyAttributes,
    /// One element and its descendants declare more namespaces than the limit.
    TooManyNamespaces,
    /// The bytes are not UTF-8.
    BadEncoding,
    /// The bytes announce an encoding other than UTF-8 (RFC 6120 11.6).
    UnsupportedEncoding,
}

impl fmt::Display for XmlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            XmlError::Restricted => "restricted XML",
            XmlError::NotWellFormed => "XML is not well-formed",
            XmlError::StrayText => "text stands between stanzas",
            XmlError::TooBig => "element is too big",
            XmlError::TooDeep => "elements are nested too deep",
            XmlError::TooManyAttributes => "element has too many attributes",
            XmlError::TooManyNamespaces => "element declares too many namespaces",
            XmlError::BadEncoding => "bytes are not UTF-8",
            XmlError::UnsupportedEncoding => "encoding is not UTF-8",
        })
    }
}

impl std::error::Error for XmlError {}
