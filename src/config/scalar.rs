//! Values with a unit or a form of their own: durations, sizes, validities, listeners. Each is read from the text of
//! one scalar and says what would be right. URLs and hosts are in `address`.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::SecretString;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

use super::pattern::{in_units, numbers};
use super::suggest::hint;
use crate::domain::money::{Currency, DIGITS_WRITTEN_MAX, Money, PLACES_WRITTEN_MAX, Price};
use crate::domain::offer::Validity;

/// The longest duration, in milliseconds: 30 days.
pub(super) const PERIOD_MS_MAX: u64 = 30 * 24 * 3600 * 1000;
/// The longest validity, in years; it is far below what its unit could count.
const VALIDITY_YEARS_MAX: u64 = 100;

/// Units of time, in milliseconds.
const TIMES: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60 * 1000), ("h", 3600 * 1000), ("d", 24 * 3600 * 1000)];
/// Units of size, in bytes.
const SIZES: [(&str, u64); 5] = [("", 1), ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
/// A unit of a validity, the most of it, and what it makes.
type ValidityUnit = (&'static str, u64, fn(u16) -> Validity);
/// Units of a validity.
const VALIDITIES: [ValidityUnit; 9] = [
    ("d", VALIDITY_YEARS_MAX * 365, Validity::Days),
    ("day", VALIDITY_YEARS_MAX * 365, Validity::Days),
    ("days", VALIDITY_YEARS_MAX * 365, Validity::Days),
    ("mo", VALIDITY_YEARS_MAX * 12, Validity::Months),
    ("month", VALIDITY_YEARS_MAX * 12, Validity::Months),
    ("months", VALIDITY_YEARS_MAX * 12, Validity::Months),
    ("y", VALIDITY_YEARS_MAX, Validity::Years),
    ("year", VALIDITY_YEARS_MAX, Validity::Years),
    ("years", VALIDITY_YEARS_MAX, Validity::Years),
];

/// A length of time, by default from one millisecond to 30 days; the bounds are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Period<const MIN: u64 = 1, const MAX: u64 = PERIOD_MS_MAX>(pub(super) Duration);

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size<const MIN: u64, const MAX: u64>(pub(super) u64);

/// A whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Count<const MIN: u64, const MAX: u64>(pub(super) u64);

/// How long a package is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ValidityText(pub(super) Validity);

/// An amount of money and its currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PriceText(pub(super) Price);

/// A zone of the time-zone database.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Zone(pub(super) TimeZone);

/// A moment with its offset from UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment(pub(super) Timestamp);

/// An address and port to listen on; port 0 picks a free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listen(pub(super) SocketAddr);

/// A text that is never shown.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "String")]
pub(super) struct Secret(pub(super) SecretString);

/// What stands in one scalar, with quotes or without.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;

        impl Visitor<'_> for ScalarVisitor {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a single value")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }
        }

        deserializer.deserialize_any(ScalarVisitor)
    }
}

/// Reads a value from a scalar, whatever YAML takes that for: the value says best itself what would be right.
macro_rules! of_scalar {
    ($($name:ident $(<$($bound:ident),*>)?),*) => {$(
        impl<'de $(, $(const $bound: u64),*)?> Deserialize<'de> for $name $(<$($bound),*>)? {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let Scalar(text) = Scalar::deserialize(deserializer)?;
                Self::try_from(text).map_err(de::Error::custom)
            }
        }
    )*};
}

of_scalar!(Period<MIN, MAX>, Size<MIN, MAX>, Count<MIN, MAX>, ValidityText, PriceText, Zone, Moment, Listen);

/// Digits and what follows them.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit))
}

/// How much a unit of a table is.
fn unit_of(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, each)| *each)
}

/// An amount in the largest unit that leaves no rest.
fn in_largest(units: &[(&str, u64)], amount: u64) -> String {
    let unit = units.iter().rev().find(|(_, each)| amount >= *each && amount.is_multiple_of(*each));
    unit.map_or_else(|| amount.to_string(), |(name, each)| format!("{}{name}", amount / each))
}

/// A size in the largest unit that leaves no rest, for people.
pub(super) fn size_text(bytes: u64) -> String {
    match bytes {
        1 => "1 byte".to_owned(),
        bytes if bytes.is_multiple_of(1 << 10) && bytes > 0 => in_largest(&SIZES, bytes),
        bytes => format!("{bytes} bytes"),
    }
}

impl<const MIN: u64, const MAX: u64> TryFrom<String> for Period<MIN, MAX> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        const RIGHT: &str = "write a whole number and its unit, as in `250ms`, `10s`, `10m`, `1h` or `30d`";
        let (number, unit) = split_number(&text).ok_or_else(|| format!("`{text}` is not a duration; {RIGHT}"))?;
        if unit.is_empty() {
            return Err(format!("`{text}` has no unit; {RIGHT}"));
        }
        let each = unit_of(&TIMES, unit).ok_or_else(|| format!("`{unit}` is not a unit of time; {RIGHT}"))?;
        let ms = number.saturating_mul(each);
        let (least, most) = (in_largest(&TIMES, MIN), in_largest(&TIMES, MAX));
        match ms {
            0 => Err(format!("`{text}` is no time at all; write at least `{least}`")),
            ms if ms < MIN => Err(format!("`{text}` is too short; write at least `{least}`")),
            ms if ms > MAX => Err(format!("`{text}` is too long; write at most `{most}`")),
            ms => Ok(Self(Duration::from_millis(ms))),
        }
    }
}

impl<const MIN: u64, const MAX: u64> TryFrom<String> for Size<MIN, MAX> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        const RIGHT: &str = "write bytes, or a whole number and its unit, as in `512KiB`, `32MiB` or `1GiB`";
        let (number, unit) = split_number(&text).ok_or_else(|| format!("`{text}` is not a size; {RIGHT}"))?;
        let each = unit_of(&SIZES, unit).ok_or_else(|| format!("`{unit}` is not a unit of size; {RIGHT}"))?;
        let bytes = number.saturating_mul(each);
        if !(MIN..=MAX).contains(&bytes) {
            let (least, most) = (size_text(MIN), size_text(MAX));
            return Err(format!("{} is out of range; write a size from {least} to {most}", size_text(bytes)));
        }
        Ok(Self(bytes))
    }
}

impl<const MIN: u64, const MAX: u64> TryFrom<String> for Count<MIN, MAX> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("`{text}` is not a whole number; write digits alone, as in `100`"));
        }
        let count = text.parse().ok().filter(|count| (MIN..=MAX).contains(count));
        count.map(Self).ok_or_else(|| format!("{text} is out of range; write a number from {MIN} to {MAX}"))
    }
}

impl TryFrom<String> for ValidityText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        const RIGHT: &str = "write calendar days, months or years, as in `30d`, `1mo` or `2y` (or `30 days`)";
        let (number, unit) = split_number(&text).ok_or_else(|| format!("`{text}` is not a validity; {RIGHT}"))?;
        let name = unit.strip_prefix(' ').unwrap_or(unit);
        let Some((_, max, make)) = VALIDITIES.iter().find(|(known, ..)| *known == name) else {
            return Err(match name {
                "" => format!("`{text}` has no unit; {RIGHT}"),
                "m" => format!("`{text}` could be minutes or months; {RIGHT}"),
                _ => format!("`{unit}` is not a unit of validity; {RIGHT}"),
            });
        };
        let number = u16::try_from(number).ok().filter(|number| (1..=*max).contains(&u64::from(*number)));
        let number =
            number.ok_or_else(|| format!("`{text}` is not between 1 day and {VALIDITY_YEARS_MAX} years; {RIGHT}"))?;
        Ok(Self(make(number)))
    }
}

impl TryFrom<String> for PriceText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (amount, currency) = text.split_once(' ').ok_or_else(|| {
            format!("`{text}` is not a price; write an amount, a space and the currency, as in `49.90 CNY`")
        })?;
        let amount = Money::written(amount).map_err(|fault| fault.to_string())?;
        let currency = Currency::new(currency).map_err(|fault| fault.to_string())?;
        Ok(Self(Price { amount, currency }))
    }
}

impl TryFrom<String> for Zone {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // The program's own tables, not the machine's: the same name means the same on every machine.
        let zones = jiff::tz::TimeZoneDatabase::bundled();
        zones.get(&text).map(Self).map_err(|_| {
            let names: Vec<String> = zones.available().map(|name| name.as_str().to_owned()).collect();
            let hint = hint(&text, names.iter().map(String::as_str));
            format!(
                "`{text}` is not a time zone{hint}; write a name of the tz database, as in `Asia/Shanghai` or `UTC`"
            )
        })
    }
}

impl TryFrom<String> for Moment {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let moment = text.parse().map(Self);
        moment.map_err(|_| {
            format!("`{text}` is not a moment; write date, time and offset, as in `2025-07-16T00:00:00+08:00`")
        })
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let listen = text.parse().map(Self);
        listen.map_err(|_| {
            format!("`{text}` is not an address and port; write both in figures, as in `127.0.0.1:8080` or `[::]:8080`")
        })
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

/// Gives a scalar its JSON Schema, inline.
macro_rules! described {
    ($name:ident $(<$($bound:ident),*>)?: $schema:tt) => {
        impl $(<$(const $bound: u64),*>)? JsonSchema for $name $(<$($bound),*>)? {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

described!(Period<MIN, MAX>: { "type": "string", "pattern": in_units(&(MIN..=MAX), &TIMES) });
described!(Size<MIN, MAX>: { "oneOf": [
    { "type": "integer", "minimum": MIN, "maximum": MAX },
    { "type": "string", "pattern": in_units(&(MIN..=MAX), &SIZES) },
] });
described!(Count<MIN, MAX>: { "oneOf": [
    { "type": "integer", "minimum": MIN, "maximum": MAX },
    { "type": "string", "pattern": in_units(&(MIN..=MAX), &[("", 1)]) },
] });
described!(ValidityText: { "type": "string", "pattern": validity_pattern() });
described!(PriceText: { "type": "string", "pattern": price_pattern() });
described!(Zone: { "type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_+/-]*$" });
described!(Moment: { "type": "string", "pattern": "^[0-9]{4}-?[0-9]{2}-?[0-9]{2}[Tt ].*([Zz]|[+-][0-9:]+)" });
described!(Listen: { "type": "string", "pattern": listen_pattern() });
described!(Secret: { "type": "string" });

fn validity_pattern() -> String {
    let each = VALIDITIES.iter().map(|(name, max, _)| format!("{} ?{name}", numbers(1..=*max)));
    format!("^({})$", each.collect::<Vec<_>>().join("|"))
}

fn price_pattern() -> String {
    format!("^[0-9]{{1,{DIGITS_WRITTEN_MAX}}}([.][0-9]{{1,{PLACES_WRITTEN_MAX}}})? [A-Z]{{3}}$")
}

fn listen_pattern() -> String {
    let port = numbers(0..=u64::from(u16::MAX));
    format!(r"^([0-9]{{1,3}}(\.[0-9]{{1,3}}){{3}}|\[[0-9A-Fa-f:.]+(%[0-9]+)?\]):{port}$")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: TryFrom<String, Error = String>>(text: &str) -> Result<T, String> {
        T::try_from(text.to_owned())
    }

    fn refused<T: TryFrom<String, Error = String>>(text: &str, word: &str) {
        let message = read::<T>(text).err().unwrap_or_default();
        assert!(message.contains(word), "{text:?}: {message}");
    }

    #[test]
    fn durations() {
        for (text, ms) in [
            ("1ms", 1),
            ("250ms", 250),
            ("10s", 10_000),
            ("10m", 600_000),
            ("1h", 3_600_000),
            ("30d", 2_592_000_000),
            ("007s", 7000),
        ] {
            assert_eq!(read(text), Ok(Period::<1, PERIOD_MS_MAX>(Duration::from_millis(ms))), "{text}");
        }
        refused::<Period>("", "not a duration");
        refused::<Period>("s", "not a duration");
        refused::<Period>("-1s", "not a duration");
        refused::<Period>("99999999999999999999s", "not a duration");
        refused::<Period>("1.5s", "not a unit of time");
        refused::<Period>("1h30m", "not a unit of time");
        refused::<Period>("10 s", "not a unit of time");
        refused::<Period>("10", "no unit");
        refused::<Period>("0s", "no time at all");
        refused::<Period>("31d", "at most `30d`");
        refused::<Period>("2592001s", "at most `30d`");
        refused::<Period>("18446744073709551615d", "at most `30d`");
    }

    #[test]
    fn bounds_of_a_duration_are_named() {
        type Between = Period<10, 90_000>;
        assert_eq!(read("90s"), Ok(Period::<10, 90_000>(Duration::from_secs(90))));
        refused::<Between>("0s", "at least `10ms`");
        refused::<Between>("9ms", "`9ms` is too short; write at least `10ms`");
        refused::<Between>("2m", "at most `90s`");
    }

    #[test]
    fn sizes() {
        type Size = super::Size<0, { u64::MAX }>;
        for (text, bytes) in
            [("0", 0), ("1", 1), ("1B", 1), ("512KiB", 524_288), ("32MiB", 33_554_432), ("1GiB", 1 << 30)]
        {
            assert_eq!(read(text), Ok(super::Size::<0, { u64::MAX }>(bytes)), "{text}");
        }
        refused::<Size>("", "not a size");
        refused::<Size>("-1", "not a size");
        refused::<Size>("big", "not a size");
        refused::<Size>("1KB", "not a unit of size");
        refused::<Size>("1 MiB", "not a unit of size");
        refused::<Size>("1.5MiB", "not a unit of size");
        refused::<super::Size<2, 2048>>("18446744073709551615GiB", "write a size from 2 bytes to 2KiB");
        refused::<super::Size<2, 2048>>("1", "1 byte is out of range");
    }

    #[test]
    fn counts() {
        type Count = super::Count<0, { u64::MAX }>;
        assert_eq!(read("0"), Ok(super::Count::<0, { u64::MAX }>(0)));
        assert_eq!(read("18446744073709551615"), Ok(super::Count::<0, { u64::MAX }>(u64::MAX)));
        for bad in ["", "-1", "+1", "1.0", "1e3", "0x10", "1_000", " 1"] {
            refused::<Count>(bad, "not a whole number");
        }
        refused::<Count>("18446744073709551616", "out of range");
        refused::<super::Count<1, 7>>("8", "8 is out of range; write a number from 1 to 7");
        refused::<super::Count<1, 7>>("0", "from 1 to 7");
    }

    #[test]
    fn validities() {
        for (text, expected) in [
            ("30d", Validity::Days(30)),
            ("30 days", Validity::Days(30)),
            ("1 day", Validity::Days(1)),
            ("1mo", Validity::Months(1)),
            ("1 month", Validity::Months(1)),
            ("6 months", Validity::Months(6)),
            ("2y", Validity::Years(2)),
            ("2 years", Validity::Years(2)),
            ("100y", Validity::Years(100)),
            ("36500d", Validity::Days(36500)),
        ] {
            assert_eq!(read(text), Ok(ValidityText(expected)), "{text}");
        }
        refused::<ValidityText>("", "not a validity");
        refused::<ValidityText>("month", "not a validity");
        refused::<ValidityText>("1m", "minutes or months");
        refused::<ValidityText>("30", "has no unit");
        refused::<ValidityText>("1 week", "not a unit");
        refused::<ValidityText>("30  days", "not a unit");
        refused::<ValidityText>("0d", "not between");
        refused::<ValidityText>("36501d", "not between");
        refused::<ValidityText>("1201mo", "not between");
        refused::<ValidityText>("101y", "not between");
        refused::<ValidityText>("65537d", "not between");
    }

    #[test]
    fn prices() {
        for (text, shown) in [("49.90 CNY", "49.9 CNY"), ("0 EUR", "0 EUR"), ("0.000000001 USD", "0.000000001 USD")] {
            assert_eq!(read::<PriceText>(text).map(|price| price.0.to_string()), Ok(shown.to_owned()), "{text}");
        }
        refused::<PriceText>("", "not a price");
        refused::<PriceText>("49.90", "not a price");
        refused::<PriceText>("49.90CNY", "not a price");
        refused::<PriceText>("49,90 CNY", "not an amount of money");
        refused::<PriceText>("-1 CNY", "not an amount of money");
        refused::<PriceText>("0.0000000001 CNY", "at most 9 places");
        refused::<PriceText>("49.90  CNY", "not a currency");
        refused::<PriceText>("49.90 cny", "three capital letters");
    }

    #[test]
    fn zones_moments_and_listeners() {
        assert!(read::<Zone>("UTC").is_ok());
        assert!(read::<Zone>("Asia/Shanghai").is_ok());
        refused::<Zone>("Asia/Shanghia", "did you mean `Asia/Shanghai`?");
        refused::<Zone>("Local", "not a time zone");
        refused::<Zone>("+08:00", "not a time zone");
        assert!(read::<Moment>("2025-07-16T00:00:00+08:00").is_ok());
        assert!(read::<Moment>("2025-07-16T00:00:00Z").is_ok());
        refused::<Moment>("2025-07-16", "not a moment");
        refused::<Moment>("2025-07-16T00:00:00", "not a moment");
        refused::<Moment>("2025-13-16T00:00:00Z", "not a moment");
        assert!(read::<Listen>("127.0.0.1:0").is_ok());
        assert!(read::<Listen>("[::1]:8080").is_ok());
        refused::<Listen>("localhost:8080", "in figures");
        refused::<Listen>("127.0.0.1", "not an address and port");
        refused::<Listen>("127.0.0.1:65536", "not an address and port");
        refused::<Listen>(":8080", "not an address and port");
    }
}
