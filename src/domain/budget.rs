//! A key's budget: how many units its calls may use in a day, in a month, or in all, by the calendar of UTC. What was used
//! stands in the pools' documents, booked with the leases that the calls drew on.

use std::num::NonZeroU64;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::amount::Units;

/// How many units. What is left out is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// From midnight to midnight, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_day: Option<NonZeroU64>,
    /// From the first of a month to the next, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_month: Option<NonZeroU64>,
    /// For ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<NonZeroU64>,
}

/// For how long a budget is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// A day.
    Day,
    /// A month.
    Month,
    /// For ever.
    Total,
}

/// Why a call does not fit into a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverBudget {
    /// It is used up.
    Exhausted {
        /// Which.
        period: Period,
        /// Its units.
        limit: u64,
        /// When it begins anew, if ever.
        renewed: Option<Timestamp>,
    },
    /// What is left is shared with other gateways, and this one's share is used until the store has heard of it.
    Share,
}

/// What calls of one key have used of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spent {
    /// The last day on which anything was booked, UTC.
    pub day: Date,
    /// On that day.
    pub today: Units,
    /// In its month.
    pub this_month: Units,
    /// Since the key has a budget.
    pub total: Units,
}

impl Spent {
    /// Nothing so far.
    pub fn none(now: Timestamp) -> Self {
        Self { day: day_of(now), today: Units::ZERO, this_month: Units::ZERO, total: Units::ZERO }
    }

    /// Adds units that were used.
    pub fn add(&mut self, units: Units, now: Timestamp) {
        *self = self.as_of(now);
        self.today.put(units);
        self.this_month.put(units);
        self.total.put(units);
    }

    /// The same on another day. A day before the last one changes nothing: clocks may differ a little.
    #[must_use]
    pub fn as_of(&self, now: Timestamp) -> Self {
        let day = day_of(now);
        if day <= self.day {
            return *self;
        }
        let same_month = day.first_of_month() == self.day.first_of_month();
        let this_month = if same_month { self.this_month } else { Units::ZERO };
        Self { day, today: Units::ZERO, this_month, total: self.total }
    }

    /// What two pools have used.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            day: self.day.max(other.day),
            today: self.today.saturating_add(other.today),
            this_month: self.this_month.saturating_add(other.this_month),
            total: self.total.saturating_add(other.total),
        }
    }
}

impl Budget {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether one more call fits: `spent` is what the books say, `open` what this gateway has let in beyond it. Of several
    /// gateways none goes beyond its share of what is left before the books have it.
    pub fn check(&self, spent: Spent, open: u64, gateways: u32, now: Timestamp) -> Result<(), OverBudget> {
        let spent = spent.as_of(now);
        let midnight = |day: Date| day.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp());
        let tomorrow = || spent.day.tomorrow().ok().and_then(midnight);
        let next_month = || spent.day.last_of_month().tomorrow().ok().and_then(midnight);
        let periods = [
            (Period::Total, self.total, spent.total, None),
            (Period::Month, self.per_month, spent.this_month, next_month()),
            (Period::Day, self.per_day, spent.today, tomorrow()),
        ];
        let mut share = Ok(());
        for (period, limit, spent, renewed) in periods {
            let Some(limit) = limit.map(NonZeroU64::get) else { continue };
            let left = limit.saturating_sub(spent.get());
            if open >= left {
                return Err(OverBudget::Exhausted { period, limit, renewed });
            }
            if open >= (left / u64::from(gateways.max(1))).max(1) {
                share = Err(OverBudget::Share);
            }
        }
        share
    }
}

fn day_of(now: Timestamp) -> Date {
    now.to_zoned(TimeZone::UTC).date()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn spent(uses: &[(u64, &str)]) -> Spent {
        let mut spent = Spent::none(at(uses[0].1));
        uses.iter().for_each(|(units, when)| spent.add(Units::new(*units), at(when)));
        spent
    }

    #[test]
    fn use_is_counted_by_the_day_and_month_of_utc() {
        let check = |uses: &[(u64, &str)], expected: [u64; 3]| {
            let spent = spent(uses);
            assert_eq!([spent.today, spent.this_month, spent.total].map(Units::get), expected, "{uses:?}");
            let text = serde_json::to_string(&spent).unwrap();
            assert_eq!(serde_json::from_str::<Spent>(&text).unwrap(), spent, "{text}");
        };
        check(&[(2, "2026-01-31T00:00:00Z"), (3, "2026-01-31T23:59:59.9Z")], [5, 5, 5]);
        check(&[(2, "2026-01-30T23:59:59.9Z"), (3, "2026-01-31T00:00:00Z")], [3, 5, 5]);
        check(&[(2, "2026-01-31T23:59:59.9Z"), (3, "2026-02-01T00:00:00Z")], [3, 3, 5]);
        check(&[(2, "2025-12-31T12:00:00Z"), (3, "2026-12-31T12:00:00Z")], [3, 3, 5]);
        check(&[(2, "2026-01-31T12:00:00Z"), (3, "2026-01-30T12:00:00Z")], [5, 5, 5]);
    }

    #[test]
    fn a_call_fits_up_to_the_last_unit() {
        let check = |budget: &str, uses: &[(u64, &str)], open: u64, now: &str, expected: Result<(), Option<&str>>| {
            let budget: Budget = serde_json::from_str(budget).unwrap();
            let found = budget.check(spent(uses), open, 1, at(now)).map_err(|over| match over {
                OverBudget::Exhausted { renewed, .. } => renewed,
                OverBudget::Share => panic!("alone, all is its share"),
            });
            assert_eq!(found, expected.map_err(|renewed| renewed.map(at)), "{open} at {now}");
        };
        let used = [(3, "2026-01-31T12:00:00Z")];
        let (today, tomorrow) = ("2026-01-31T23:59:59Z", "2026-02-01T00:00:00Z");
        check(r#"{"per_day":5}"#, &used, 1, today, Ok(()));
        check(r#"{"per_day":5}"#, &used, 2, today, Err(Some(tomorrow)));
        check(r#"{"per_day":5}"#, &used, 4, tomorrow, Ok(()));
        check(r#"{"per_day":5}"#, &used, 5, tomorrow, Err(Some("2026-02-02T00:00:00Z")));
        check(r#"{"per_month":3}"#, &used, 0, today, Err(Some(tomorrow)));
        check(r#"{"per_month":3}"#, &used, 0, tomorrow, Ok(()));
        check(r#"{"total":3}"#, &used, 0, tomorrow, Err(None));
        check(r#"{"total":4}"#, &used, 0, tomorrow, Ok(()));
        // The one that lasts longest is told.
        check(r#"{"per_day":1,"total":3}"#, &used, 0, today, Err(None));
        check("{}", &used, u64::MAX, today, Ok(()));
        assert!(serde_json::from_str::<Budget>(r#"{"per_day":0}"#).is_err());
    }

    #[test]
    fn several_gateways_share_what_is_left() {
        let budget: Budget = serde_json::from_str(r#"{"total":10}"#).unwrap();
        let check = |spent_units: u64, open: u64, gateways: u32| {
            let now = at("2026-01-31T12:00:00Z");
            budget.check(spent(&[(spent_units, "2026-01-31T12:00:00Z")]), open, gateways, now)
        };
        assert_eq!((check(0, 4, 2), check(0, 5, 2)), (Ok(()), Err(OverBudget::Share)));
        assert_eq!((check(4, 2, 2), check(4, 3, 2)), (Ok(()), Err(OverBudget::Share)));
        // The last unit is let in by whoever comes, one at a time.
        assert_eq!((check(9, 0, 4), check(8, 1, 4)), (Ok(()), Err(OverBudget::Share)));
        assert!(matches!(check(9, 1, 4), Err(OverBudget::Exhausted { .. })));
    }
}
