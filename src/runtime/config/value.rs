//! Values that check themselves while they are read, so that each complaint has its line.
//!
//! What they say is `what; remedy`, to be put behind the name of the key.

use crate::logging::Log;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Unexpected, Visitor};
use stanza::jid::{BareJid, Jid};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use xmpp::settings::Durability;
use xmpp::stream::sasl::Mechanism;

/// Addresses that one kind of port listens on.
const ADDRESSES_MAX: usize = 16;

/// A value that is read from text.
pub(super) trait FromText: Sized {
    /// What may be written, for a complaint about something that is no text.
    const EXPECTED: &'static str;

    /// Reads it.
    ///
    /// # Errors
    /// `what; remedy`
    fn from_text(text: &str) -> Result<Self, String>;
}

/// Reads a [`FromText`].
pub(super) struct Text<T>(pub(super) T);

impl<'de, T: FromText> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_str(TextVisitor(std::marker::PhantomData))
            .map(Text)
    }
}

struct TextVisitor<T>(std::marker::PhantomData<T>);

impl<T: FromText> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).map_err(E::custom)
    }
}

/// A value that stands in a list.
pub(super) trait InList: FromText {
    /// A list of them, for a complaint about something that is none.
    const LIST: &'static str;
}

/// Reads a list of values.
pub(super) struct List<T>(pub(super) Vec<T>);

impl<'de, T: InList> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_seq(ListVisitor(std::marker::PhantomData))
            .map(List)
    }
}

struct ListVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: InList> Visitor<'de> for ListVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list like {}", T::LIST)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut all = Vec::new();
        // The size of the file bounds it.
        while let Some(Text(value)) = list.next_element::<Text<T>>()? {
            all.push(value);
        }
        Ok(all)
    }
}

/// A domain, prepared.
pub(super) struct Domain(pub(super) Box<str>);

impl FromText for Domain {
    const EXPECTED: &'static str = "a domain in quotes";

    fn from_text(text: &str) -> Result<Domain, String> {
        let refusal = || format!("is not a domain ({text:?}); write it like \"example.org\"");
        let jid = Jid::parse(text).map_err(|_| refusal())?;
        if jid.local().is_some() || jid.resource().is_some() {
            return Err(refusal());
        }
        Ok(Domain(jid.domain().into()))
    }
}

impl FromText for Log {
    const EXPECTED: &'static str = "a level in quotes";

    fn from_text(text: &str) -> Result<Log, String> {
        Log::parse(text).ok_or_else(|| {
            format!(
                "is no level ({text:?}); write \"off\", \"error\", \"warn\", \"info\", \"debug\" \
                 or \"trace\", with \"json:\" before it for JSON"
            )
        })
    }
}

impl FromText for Durability {
    const EXPECTED: &'static str = "the name of a mode in quotes";

    fn from_text(text: &str) -> Result<Durability, String> {
        match text {
            "full" => Ok(Durability::Full),
            "archive" => Ok(Durability::Archive),
            "memory" => Ok(Durability::Memory),
            _ => Err(format!(
                "is no mode ({text:?}); write \"full\", \"archive\" or \"memory\""
            )),
        }
    }
}

/// Where somebody is reached, as a URI (XEP-0157).
pub(super) struct ContactUri(pub(super) Box<str>);

impl FromText for ContactUri {
    const EXPECTED: &'static str = "a URI in quotes";

    fn from_text(text: &str) -> Result<ContactUri, String> {
        let known = ["mailto:", "xmpp:", "https:", "http:", "tel:"];
        let has_scheme = known.iter().any(|scheme| {
            text.strip_prefix(scheme)
                .is_some_and(|rest| !rest.is_empty())
        });
        let is_foreign = |c: char| c.is_whitespace() || c.is_control() || "<>\"".contains(c);
        if !has_scheme || text.contains(is_foreign) {
            return Err(format!(
                "has what is no URI of a contact ({text:?}); write it like \
                 \"mailto:admin@example.org\" or \"xmpp:admin@example.org\""
            ));
        }
        Ok(ContactUri(text.into()))
    }
}

impl InList for ContactUri {
    const LIST: &'static str = "[\"mailto:admin@example.org\"]";
}

/// An account that administers the server (XEP-0133).
pub(super) struct AdminJid(pub(super) BareJid);

impl FromText for AdminJid {
    const EXPECTED: &'static str = "a JID in quotes";

    fn from_text(text: &str) -> Result<AdminJid, String> {
        let jid = BareJid::parse(text).ok();
        let jid = jid.filter(|jid| jid.local().is_some());
        jid.map(AdminJid).ok_or_else(|| {
            format!("has what is no account ({text:?}); write it like \"juliet@example.org\"")
        })
    }
}

impl InList for AdminJid {
    const LIST: &'static str = "[\"juliet@example.org\"]";
}

/// Where something is on the web (XEP-0455).
pub(super) struct WebAddress(pub(super) Box<str>);

impl FromText for WebAddress {
    const EXPECTED: &'static str = "an address in quotes";

    fn from_text(text: &str) -> Result<WebAddress, String> {
        let rest = ["https://", "http://"].into_iter();
        let mut rest = rest.filter_map(|scheme| text.strip_prefix(scheme));
        let is_foreign = |c: char| c.is_whitespace() || c.is_control() || "<>\"".contains(c);
        match rest.next() {
            Some(rest) if !rest.is_empty() && !rest.contains(is_foreign) => {
                Ok(WebAddress(text.into()))
            }
            _ => Err(format!(
                "has what is no address on the web ({text:?}); write it like \
                 \"https://status.example.net/example.org.json\""
            )),
        }
    }
}

impl InList for WebAddress {
    const LIST: &'static str = "[\"https://status.example.net/example.org.json\"]";
}

impl FromText for SocketAddr {
    const EXPECTED: &'static str = "an address with a port in quotes";

    fn from_text(text: &str) -> Result<SocketAddr, String> {
        let address: SocketAddr = text.parse().map_err(|_| {
            format!(
                "is no address with a port ({text:?}); write it like \"0.0.0.0:5222\" or \
                 \"[::]:5222\""
            )
        })?;
        // Listeners of IPv6 take IPv6 only, so the kernel would refuse it.
        let mapped = match address.ip() {
            IpAddr::V6(ip) => ip.to_ipv4_mapped(),
            IpAddr::V4(_) => None,
        };
        match mapped {
            Some(ip) => Err(format!(
                "has an address of IPv4 written as one of IPv6 ({text:?}); write \"{ip}:{}\"",
                address.port()
            )),
            None => Ok(address),
        }
    }
}

/// A mechanism that proves a password; ANONYMOUS has a key of its own.
impl FromText for Mechanism {
    const EXPECTED: &'static str = "the name of a mechanism in quotes";

    fn from_text(text: &str) -> Result<Mechanism, String> {
        match Mechanism::parse(text) {
            Some(Mechanism::Anonymous) => {
                Err("does not take ANONYMOUS; set auth.anonymous to true instead".to_owned())
            }
            Some(mechanism) => Ok(mechanism),
            None => Err(format!(
                "has an unknown mechanism ({text:?}); known are SCRAM-SHA-512, SCRAM-SHA-256, \
                 SCRAM-SHA-1 and PLAIN"
            )),
        }
    }
}

impl InList for Mechanism {
    const LIST: &'static str = "[\"SCRAM-SHA-256\", \"PLAIN\"]";
}

/// One address or a list of them; an empty list switches the port off.
pub(super) struct Addresses(pub(super) Vec<SocketAddr>);

impl Addresses {
    /// Those that are configured, of a port that is off unless it is.
    pub(super) fn or_none(configured: Option<Addresses>) -> Vec<SocketAddr> {
        configured.map_or_else(Vec::new, |Addresses(list)| list)
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(AddressesVisitor)
            .map(Addresses)
    }
}

struct AddressesVisitor;

impl<'de> Visitor<'de> for AddressesVisitor {
    type Value = Vec<SocketAddr>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address with a port like \"0.0.0.0:5222\", or a list like [\"[::]:5222\"]")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        SocketAddr::from_text(text)
            .map(|one| vec![one])
            .map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Text(address)) = list.next_element::<Text<SocketAddr>>()? {
            if all.len() == ADDRESSES_MAX {
                let what = format!("has more than {ADDRESSES_MAX} addresses; listen on fewer");
                return Err(de::Error::custom(what));
            }
            all.push(address);
        }
        Ok(all)
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy)]
pub(super) struct Number<const MIN: u64, const MAX: u64>(pub(super) u64);

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Number<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_i64(NumberVisitor::<MIN, MAX>)
            .map(Number)
    }
}

struct NumberVisitor<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Visitor<'_> for NumberVisitor<MIN, MAX> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
        match u64::try_from(number) {
            Ok(good) if (MIN..=MAX).contains(&good) => Ok(good),
            _ => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }
}
