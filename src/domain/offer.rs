//! What can be bought: one purchasable specification of a product. Here: per-call packages.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

use super::amount::Units;
use super::billable::BillableStatuses;
use super::id::{OfferId, ProductId};
use super::money::Price;

/// How long a bought package is valid, in calendar units of the offer's time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Validity {
    /// Calendar days.
    Days(u16),
    /// Calendar months; a day that the last month lacks becomes its last day.
    Months(u16),
    /// Calendar years.
    Years(u16),
}

impl Validity {
    fn span(self) -> Span {
        match self {
            Self::Days(days) => i64::from(days).days(),
            Self::Months(months) => i64::from(months).months(),
            Self::Years(years) => i64::from(years).years(),
        }
    }

    /// The last second of a package that begins at `start`: 23:59:59 of its last day in the offer's zone
    /// (marketplace guide: bought 2024-04-15 15:58:30 for two years, ends 2026-04-15 23:59:59).
    /// `None` if the date lies outside the calendar.
    pub fn end(self, start: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let last_day = start.to_zoned(zone.clone()).date().checked_add(self.span()).ok()?;
        let last_second = last_day.to_datetime(Time::constant(23, 59, 59, 0));
        last_second.to_zoned(zone.clone()).ok().map(|moment| moment.timestamp())
    }
}

/// A per-call offer: paid once, grants a number of calls within a validity window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// Named by purchases.
    pub id: OfferId,
    /// What the calls are for.
    pub product: ProductId,
    /// How many calls it grants.
    pub quantity: Units,
    /// How long they can be used.
    pub validity: Validity,
    /// Whose midnight ends the validity.
    #[serde(with = "jiff::fmt::serde::tz::required")]
    pub zone: TimeZone,
    /// Which answers count.
    pub billable: BillableStatuses,
    /// What a package of it costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// Whether its product is called by apps: buying it binds the product to the account's MARKETPLACE_APP.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub for_apps: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(start: &str, validity: Validity, expected: &str) {
        let zone = TimeZone::get("Asia/Shanghai").unwrap();
        let end = validity.end(start.parse().unwrap(), &zone);
        assert_eq!(end, Some(expected.parse().unwrap()), "{start} {validity:?}");
    }

    #[test]
    fn validity_ends_with_its_last_day_in_the_offers_zone() {
        check("2024-04-15T15:58:30+08:00", Validity::Years(2), "2026-04-15T23:59:59+08:00");
        check("2024-01-31T00:00:00+08:00", Validity::Months(1), "2024-02-29T23:59:59+08:00");
        check("2024-02-29T12:00:00+08:00", Validity::Years(1), "2025-02-28T23:59:59+08:00");
        check("2024-04-15T23:59:59+08:00", Validity::Days(30), "2024-05-15T23:59:59+08:00");
        // 16:00 UTC is already the next day in Shanghai.
        check("2024-04-15T15:59:59Z", Validity::Days(1), "2024-04-16T23:59:59+08:00");
        check("2024-04-15T16:00:00Z", Validity::Days(1), "2024-04-17T23:59:59+08:00");
    }

    #[test]
    fn a_date_outside_the_calendar_is_none() {
        let start = "9999-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(Validity::Years(9000).end(start, &TimeZone::UTC), None);
    }
}
