//! Money: exact decimals, counted in whole steps far below any coin. Nothing here is a binary fraction, and nothing is
//! rounded but the price of one unit, and that down.

use std::fmt;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize, Serializer};

/// Steps of one whole unit of a currency: 18 places, so that the calls of a package of 1,000,000,000,000 are together less
/// than a millionth off its price.
const STEPS: u128 = 1_000_000_000_000_000_000;
/// Places behind the point.
const PLACES: usize = 18;
/// Places of what people write.
pub const PLACES_WRITTEN_MAX: usize = 9;
/// Digits before the point of what people write.
pub const DIGITS_WRITTEN_MAX: usize = 12;

/// Why a text is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an amount of money; write 1 to {DIGITS_WRITTEN_MAX} digits and at most {PLACES_WRITTEN_MAX} places, as in `49.90`"
)]
pub struct MoneyFault(String);

/// Why a text is no currency.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a currency; write the three capital letters of ISO 4217, as in `CNY`")]
pub struct CurrencyFault(String);

/// An amount, never below zero, in a currency that is known beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct Money(u128);

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Reads what people write: `49.90`.
    ///
    /// # Errors
    /// See [`MoneyFault`].
    pub fn written(text: &str) -> Result<Self, MoneyFault> {
        Self::read(text, (DIGITS_WRITTEN_MAX, PLACES_WRITTEN_MAX)).ok_or_else(|| MoneyFault(text.to_owned()))
    }

    fn read(text: &str, (digits_max, places_max): (usize, usize)) -> Option<Self> {
        let (whole, places) = text.split_once('.').map_or((text, None), |(whole, places)| (whole, Some(places)));
        let plain = |digits: &str, max: usize| {
            (1..=max).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !plain(whole, digits_max) || places.is_some_and(|places| !plain(places, places_max)) {
            return None;
        }
        let steps = format!("{:0<PLACES$}", places.unwrap_or_default());
        let whole = whole.parse::<u128>().ok()?.checked_mul(STEPS)?;
        whole.checked_add(steps.parse().ok()?).map(Self)
    }

    /// True for nothing.
    pub const fn is_zero(&self) -> bool {
        self.0 == 0
    }

    /// The sum; stays at the largest amount, 3 × 10^20, which nobody has.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference; stays at zero. For "how much more than", where less means none.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// So many times as much; stays at the largest amount.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(u128::from(count)))
    }

    /// One of so many equal shares, rounded down: all of them together are no more than the whole.
    #[must_use]
    pub fn share(self, of: NonZeroU64) -> Self {
        Self(self.0.checked_div(u128::from(of.get())).unwrap_or_default()) // no zero
    }
}

impl TryFrom<String> for Money {
    type Error = MoneyFault;
    fn try_from(text: String) -> Result<Self, MoneyFault> {
        Self::read(&text, (39, PLACES)).ok_or(MoneyFault(text))
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl fmt::Display for Money {
    /// Without zeros at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.checked_div(STEPS).unwrap_or_default(); // no zero
        let steps = self.0.checked_rem(STEPS).unwrap_or_default();
        write!(f, "{whole}")?;
        if steps == 0 {
            return Ok(());
        }
        let places = format!("{steps:0>PLACES$}");
        write!(f, ".{}", places.trim_end_matches('0'))
    }
}

/// A currency of ISO 4217.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Currency([u8; 3]);

impl Currency {
    /// Checks the form: three capital letters.
    ///
    /// # Errors
    /// See [`CurrencyFault`].
    pub fn new(text: &str) -> Result<Self, CurrencyFault> {
        let letters = <[u8; 3]>::try_from(text.as_bytes()).ok();
        let letters = letters.filter(|letters| letters.iter().all(u8::is_ascii_uppercase));
        letters.map(Self).ok_or_else(|| CurrencyFault(text.to_owned()))
    }

    /// The letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default() // letters
    }
}

impl TryFrom<String> for Currency {
    type Error = CurrencyFault;
    fn try_from(text: String) -> Result<Self, CurrencyFault> {
        Self::new(&text)
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What something costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// How much.
    pub amount: Money,
    /// Of what.
    pub currency: Currency,
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.amount, self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(text: &str) -> Money {
        Money::written(text).unwrap()
    }

    #[test]
    fn amounts_are_read_as_people_write_them_and_read_back() {
        let check = |text: &str, shown: &str| {
            let read = money(text);
            assert_eq!(read.to_string(), shown, "{text}");
            assert_eq!(serde_json::to_string(&read).unwrap(), format!("{shown:?}"));
            assert_eq!(serde_json::from_str::<Money>(&format!("{shown:?}")).unwrap(), read);
        };
        check("0", "0");
        check("49.90", "49.9");
        check("007", "7");
        check("0.000000001", "0.000000001");
        check("999999999999.999999999", "999999999999.999999999");
        for bad in ["", ".", "1.", ".5", "-1", "+1", "1,5", "1e3", " 1", "0.0000000001", "1000000000000", "1.2.3", "٣"]
        {
            assert!(Money::written(bad).is_err(), "{bad}");
        }
        for edge in [Money(1), Money(u128::MAX)] {
            assert_eq!(Money::try_from(edge.to_string()).unwrap(), edge);
        }
        assert!(serde_json::from_str::<Money>("1.5").is_err(), "a number would be a binary fraction");
    }

    #[test]
    fn a_share_is_rounded_down_so_that_all_are_no_more_than_the_whole() {
        let check = |price: &str, of: u64, share: &str| {
            let (price, of) = (money(price), NonZeroU64::new(of).unwrap());
            assert_eq!(price.share(of).to_string(), share, "{price}/{of}");
            let all = price.share(of).times(of.get());
            assert!(all <= price && price.saturating_sub(all) < Money(u128::from(of.get())), "{price}/{of}");
        };
        check("10", 4, "2.5");
        check("10", 3, "3.333333333333333333");
        check("20", 3, "6.666666666666666666");
        check("49.90", 1_000, "0.0499");
        check("100", 3_000_000_000, "0.000000033333333333");
        check("0.000000001", 1_000_000_000_000, "0");
        check("0", 7, "0");
    }

    #[test]
    fn sums_stay_within_their_range() {
        assert_eq!(money("0.1").saturating_add(money("0.2")), money("0.3"));
        assert_eq!(money("1").saturating_sub(money("1.5")), Money::ZERO);
        assert_eq!(Money(u128::MAX).saturating_add(Money(1)), Money(u128::MAX));
        assert_eq!(money("999999999999").times(u64::MAX), Money(u128::MAX));
    }

    #[test]
    fn a_currency_has_three_capital_letters() {
        assert_eq!(Currency::new("CNY").unwrap().to_string(), "CNY");
        for bad in ["", "cny", "CN", "CNYY", "C1Y", "¥"] {
            assert!(Currency::new(bad).is_err(), "{bad}");
        }
        let price = Price { amount: money("49.90"), currency: Currency::new("EUR").unwrap() };
        let text = r#"{"amount":"49.9","currency":"EUR"}"#;
        assert_eq!(
            (serde_json::to_string(&price).unwrap(), price.to_string()),
            (text.to_owned(), "49.9 EUR".to_owned())
        );
        assert_eq!(serde_json::from_str::<Price>(text).unwrap(), price);
    }
}
