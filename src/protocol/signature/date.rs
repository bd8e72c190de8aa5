//! The only form of `x-sdk-date`: `YYYYMMDDTHHMMSSZ`, in UTC.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Reads a date of the only form; a day that the month lacks, an hour 24 and a second 60 are none.
pub fn parse_date(text: &str) -> Option<Timestamp> {
    let (b'T', b'Z') = (*text.as_bytes().get(8)?, *text.as_bytes().get(15)?) else { return None };
    if text.len() != 16 {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i16> {
        let digits = text.get(from..to)?;
        if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
    };
    let small = |from: usize| number(from, from + 2).and_then(|value| i8::try_from(value).ok());
    let time = DateTime::new(number(0, 4)?, small(4)?, small(6)?, small(9)?, small(11)?, small(13)?, 0).ok()?;
    time.to_zoned(TimeZone::UTC).ok().map(|moment| moment.timestamp())
}

/// Writes a moment in the only form.
pub fn date_text(moment: Timestamp) -> String {
    moment.strftime("%Y%m%dT%H%M%SZ").to_string()
}
