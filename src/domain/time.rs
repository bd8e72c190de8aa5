//! How moments are written: as RFC 3339 text where people read, as microseconds since 1970 in the journal.

use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// For `#[serde(with)]`.
pub fn serialize<S: Serializer>(moment: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    if to.is_human_readable() { moment.serialize(to) } else { to.serialize_i64(moment.as_microsecond()) }
}

/// For `#[serde(with)]`.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
    if from.is_human_readable() {
        return Timestamp::deserialize(from);
    }
    Timestamp::from_microsecond(i64::deserialize(from)?).map_err(D::Error::custom)
}
