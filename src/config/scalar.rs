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

use super::suggest::hint;
use crate::domain::money::{Currency, Money, Price};
use crate::domain::offer::Validity;

/// The longest duration, in days.
const PERIOD_DAYS_MAX: u64 = 30;
/// The longest validity, in years; it is far below what its unit could count.
const VALIDITY_YEARS_MAX: u16 = 100;

/// A length of time, from one millisecond to 30 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Period(pub(super) Duration);

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size(pub(super) u64);

/// A whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Count(pub(super) u64);

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
    ($($name:ident),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let Scalar(text) = Scalar::deserialize(deserializer)?;
                Self::try_from(text).map_err(de::Error::custom)
            }
        }
    )*};
}

of_scalar!(Period, Size, Count, ValidityText, PriceText, Zone, Moment, Listen);

/// Digits and what follows them.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit))
}

impl TryFrom<String> for Period {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        const RIGHT: &str = "write a whole number and its unit, as in `250ms`, `10s`, `10m`, `1h` or `30d`";
        let (number, unit) = split_number(&text).ok_or_else(|| format!("`{text}` is not a duration; {RIGHT}"))?;
        let ms_each = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 3600 * 1000,
            "d" => 24 * 3600 * 1000,
            "" => return Err(format!("`{text}` has no unit; {RIGHT}")),
            _ => return Err(format!("`{unit}` is not a unit of time; {RIGHT}")),
        };
        let period = number.checked_mul(ms_each).map(Duration::from_millis);
        let max = Duration::from_secs(PERIOD_DAYS_MAX * 24 * 3600);
        match period {
            Some(Duration::ZERO) => Err(format!("`{text}` is no time at all; write at least `1ms`")),
            Some(period) if period <= max => Ok(Self(period)),
            Some(_) | None => Err(format!("`{text}` is too long; write at most `{PERIOD_DAYS_MAX}d`")),
        }
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        const RIGHT: &str = "write bytes, or a whole number and its unit, as in `512KiB`, `32MiB` or `1GiB`";
        let (number, unit) = split_number(&text).ok_or_else(|| format!("`{text}` is not a size; {RIGHT}"))?;
        let bytes_each = match unit {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(format!("`{unit}` is not a unit of size; {RIGHT}")),
        };
        number.checked_mul(bytes_each).map(Self).ok_or_else(|| format!("`{text}` is more than can be counted; {RIGHT}"))
    }
}

impl TryFrom<String> for Count {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let count = text.parse().ok().filter(|_| plain);
        count.map(Self).ok_or_else(|| format!("`{text}` is not a whole number; write digits alone, as in `100`"))
    }
}

impl TryFrom<String> for ValidityText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        const RIGHT: &str = "write calendar days, months or years, as in `30d`, `1mo` or `2y` (or `30 days`)";
        let (number, unit) = split_number(&text).ok_or_else(|| format!("`{text}` is not a validity; {RIGHT}"))?;
        let years = u64::from(VALIDITY_YEARS_MAX);
        let (max, make): (u64, fn(u16) -> Validity) = match unit.strip_prefix(' ').unwrap_or(unit) {
            "d" | "day" | "days" => (years * 365, Validity::Days),
            "mo" | "month" | "months" => (years * 12, Validity::Months),
            "y" | "year" | "years" => (years, Validity::Years),
            "m" => return Err(format!("`{text}` could be minutes or months; {RIGHT}")),
            _ => return Err(format!("`{unit}` is not a unit of validity; {RIGHT}")),
        };
        let number = u16::try_from(number).ok().filter(|number| (1..=max).contains(&u64::from(*number)));
        let number = number.ok_or_else(|| format!("`{text}` is not between 1 day and {years} years; {RIGHT}"))?;
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
    ($name:ident: $schema:tt) => {
        impl JsonSchema for $name {
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

described!(Period: { "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" });
described!(Size: { "oneOf": [
    { "type": "integer", "minimum": 1 },
    { "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)?$" },
] });
described!(Count: { "type": "integer", "minimum": 1 });
described!(ValidityText: { "type": "string", "pattern": "^[0-9]+ ?(d|days?|mo|months?|y|years?)$" });
described!(PriceText: { "type": "string", "pattern": "^[0-9]{1,12}([.][0-9]{1,9})? [A-Z]{3}$" });
described!(Zone: { "type": "string", "pattern": "^[A-Za-z]" });
described!(Moment: { "type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T.+" });
described!(Listen: { "type": "string", "pattern": "^.+:[0-9]+$" });
described!(Secret: { "type": "string" });

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
            assert_eq!(read(text), Ok(Period(Duration::from_millis(ms))), "{text}");
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
    fn sizes() {
        for (text, bytes) in
            [("0", 0), ("1", 1), ("1B", 1), ("512KiB", 524_288), ("32MiB", 33_554_432), ("1GiB", 1 << 30)]
        {
            assert_eq!(read(text), Ok(Size(bytes)), "{text}");
        }
        refused::<Size>("", "not a size");
        refused::<Size>("-1", "not a size");
        refused::<Size>("big", "not a size");
        refused::<Size>("1KB", "not a unit of size");
        refused::<Size>("1 MiB", "not a unit of size");
        refused::<Size>("1.5MiB", "not a unit of size");
        refused::<Size>("18446744073709551615GiB", "more than can be counted");
    }

    #[test]
    fn counts() {
        assert_eq!(read("0"), Ok(Count(0)));
        assert_eq!(read("18446744073709551615"), Ok(Count(u64::MAX)));
        for bad in ["", "-1", "+1", "1.0", "1e3", "0x10", "1_000", "18446744073709551616", " 1"] {
            refused::<Count>(bad, "not a whole number");
        }
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
        refused::<ValidityText>("30", "not a unit");
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
