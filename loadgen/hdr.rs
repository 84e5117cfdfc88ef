//! Histograms in messages: HdrHistogram's V2 encoding, in base64. What is read counts exactly what
//! was written, in the same buckets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer as Reader, Serializer as _, V2Serializer};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::stats::histogram;

/// A histogram on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed(pub Histogram<u64>);

impl Serialize for Packed {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        serialize(&self.0, to)
    }
}

impl<'de> Deserialize<'de> for Packed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Packed, D::Error> {
        deserialize(from).map(Packed)
    }
}

/// Writes one.
pub(crate) fn serialize<S: Serializer>(seen: &Histogram<u64>, to: S) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::new();
    V2Serializer::new()
        .serialize(seen, &mut bytes)
        .map_err(S::Error::custom)?;
    to.serialize_str(&BASE64.encode(bytes))
}

/// Reads one; others than [`histogram`] makes are refused, for they would not add up.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Histogram<u64>, D::Error> {
    let text = String::deserialize(from)?;
    let bytes = BASE64.decode(text).map_err(D::Error::custom)?;
    let seen: Histogram<u64> = Reader::new()
        .deserialize(&mut &bytes[..])
        .map_err(|error| D::Error::custom(format!("no histogram: {error:?}")))?;
    let bounds = |seen: &Histogram<u64>| (seen.low(), seen.high(), seen.sigfig());
    if bounds(&seen) != bounds(&histogram()) {
        return Err(D::Error::custom("a histogram of other bounds"));
    }
    Ok(seen)
}

/// Several of them.
pub(crate) mod list {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        all: &[Histogram<u64>],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(all.iter().cloned().map(Packed))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<Histogram<u64>>, D::Error> {
        let all = Vec::<Packed>::deserialize(from)?;
        Ok(all.into_iter().map(|Packed(seen)| seen).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_was_written() {
        let mut seen = histogram();
        for value in [1, 999, 1_234_567, 7_000_000_000, u64::MAX] {
            seen.saturating_record(value);
            seen.saturating_record(value);
        }
        for seen in [seen, histogram()] {
            let text = serde_json::to_string(&Packed(seen.clone())).unwrap();
            let Packed(read) = serde_json::from_str(&text).unwrap();
            assert_eq!(read, seen);
            assert_eq!((read.len(), read.max()), (seen.len(), seen.max()));
            let mut sum = histogram();
            sum.add(&read).unwrap();
            sum.add(&read).unwrap();
            assert_eq!(sum.len(), 2 * seen.len());
        }
    }

    #[test]
    fn other_bounds_and_other_bytes_are_refused() {
        let other = Histogram::<u64>::new_with_bounds(1, 1000, 2).unwrap();
        let text = serde_json::to_string(&Packed(other)).unwrap();
        for bad in [text.as_str(), "\"\"", "\"?\"", "\"AAAA\"", "7"] {
            assert!(serde_json::from_str::<Packed>(bad).is_err(), "{bad}");
        }
    }
}
