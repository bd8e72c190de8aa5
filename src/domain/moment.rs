//! How a moment is stored: as text where people read, as two numbers in the journal, which writes several for each call.

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

/// For `#[serde(with)]`.
pub fn serialize<S: Serializer>(moment: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        return moment.serialize(serializer);
    }
    (moment.as_second(), moment.subsec_nanosecond()).serialize(serializer)
}

/// For `#[serde(with)]`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    if deserializer.is_human_readable() {
        return Timestamp::deserialize(deserializer);
    }
    let (second, nanosecond) = <(i64, i32)>::deserialize(deserializer)?;
    Timestamp::new(second, nanosecond).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Held(#[serde(with = "super")] Timestamp);

    #[test]
    fn every_moment_reads_back_from_text_and_from_numbers() {
        for text in ["2026-11-22T10:00:00.123456789Z", "1969-12-31T23:59:59.5Z", "1970-01-01T00:00:00Z"] {
            let held = Held(text.parse().unwrap());
            assert_eq!(serde_json::to_string(&held).unwrap(), format!("{text:?}"));
            assert_eq!(serde_json::from_str::<Held>(&format!("{text:?}")).unwrap(), held);
            let bytes = postcard::to_stdvec(&held).unwrap();
            assert!(bytes.len() <= 10, "{text} takes {} bytes", bytes.len());
            assert_eq!(postcard::from_bytes::<Held>(&bytes).unwrap(), held);
        }
        for edge in [Timestamp::MIN, Timestamp::MAX] {
            assert_eq!(postcard::from_bytes::<Held>(&postcard::to_stdvec(&Held(edge)).unwrap()).unwrap(), Held(edge));
        }
        assert!(postcard::from_bytes::<Held>(&postcard::to_stdvec(&(i64::MAX, 0_i32)).unwrap()).is_err());
    }
}
