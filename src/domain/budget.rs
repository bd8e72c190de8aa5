//! A key's budget: how many units its calls may use, or what they may be worth, in a day, in a month, or in all, by the
//! calendar of UTC. What was used stands in the pools' documents, booked with the leases that the calls drew on.

use std::num::NonZeroU64;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::amount::Units;
use super::money::{Currency, Money, MoneyFault, Price};

/// How much. What is left out is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Units from midnight to midnight, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_day: Option<NonZeroU64>,
    /// Units from the first of a month to the next, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_month: Option<NonZeroU64>,
    /// Units for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<NonZeroU64>,
    /// What the units may be worth, by the prices of the packages that paid for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub money: Option<MoneyBudget>,
}

/// How much money, in one currency. At least one amount is there, and each is above zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenBudget")]
pub struct MoneyBudget {
    /// Of all amounts.
    pub currency: Currency,
    /// From midnight to midnight, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_day: Option<Money>,
    /// From the first of a month to the next, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_month: Option<Money>,
    /// For ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Money>,
}

/// Why something is no budget in money.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BudgetFault {
    /// No amount.
    #[error("a budget in money has at least one of per_day, per_month and total")]
    Empty,
    /// An amount of nothing.
    #[error("an amount of a budget is more than zero; to stop a key, disable it")]
    Zero,
    /// What is written is no amount.
    #[error(transparent)]
    Amount(#[from] MoneyFault),
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenBudget {
    currency: Currency,
    per_day: Option<String>,
    per_month: Option<String>,
    total: Option<String>,
}

impl MoneyBudget {
    /// Checks the amounts, of a day, a month, and in all.
    ///
    /// # Errors
    /// See [`BudgetFault`].
    pub fn new(currency: Currency, amounts: [Option<Money>; 3]) -> Result<Self, BudgetFault> {
        let [per_day, per_month, total] = amounts;
        if amounts.iter().all(Option::is_none) {
            return Err(BudgetFault::Empty);
        }
        if amounts.iter().flatten().any(Money::is_zero) {
            return Err(BudgetFault::Zero);
        }
        Ok(Self { currency, per_day, per_month, total })
    }
}

impl TryFrom<WrittenBudget> for MoneyBudget {
    type Error = BudgetFault;
    fn try_from(written: WrittenBudget) -> Result<Self, BudgetFault> {
        let read = |text: Option<String>| text.map(|text| Money::written(&text)).transpose();
        let WrittenBudget { currency, per_day, per_month, total } = written;
        Self::new(currency, [read(per_day)?, read(per_month)?, read(total)?])
    }
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

/// What a budget allows that does not suffice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// So many units: all are used.
    Units(u64),
    /// So much money.
    Money {
        /// In all.
        limit: Price,
        /// What is left of it: less than the call is worth.
        left: Money,
    },
}

/// Why a call does not fit into a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverBudget {
    /// It is used up.
    Exhausted {
        /// Which.
        period: Period,
        /// How much it allows.
        allowed: Allowed,
        /// When it begins anew, if ever.
        renewed: Option<Timestamp>,
    },
    /// What is left is shared with other gateways, and this one's share is used until the store has heard of it.
    Share,
}

/// What calls have used, and what it is worth by the prices of the packages that paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// How many units.
    pub units: Units,
    /// What they are worth; units of packages without a price are worth nothing.
    pub worth: Money,
}

impl Used {
    /// Adds more.
    pub fn put(&mut self, more: Self) {
        self.units.put(more.units);
        self.worth = self.worth.saturating_add(more.worth);
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, more: Self) -> Self {
        self.put(more);
        self
    }

    /// How much more this is than another.
    #[must_use]
    pub fn beyond(self, other: Self) -> Self {
        Self { units: self.units.saturating_sub(other.units), worth: self.worth.saturating_sub(other.worth) }
    }

    /// Whether it is nothing.
    pub fn is_none(&self) -> bool {
        self.units.is_zero() && self.worth.is_zero()
    }
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
    /// What these are worth.
    #[serde(default, skip_serializing_if = "Worth::is_none")]
    pub worth: Worth,
}

/// What used units are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worth {
    /// Those of the day.
    pub today: Money,
    /// Those of the month.
    pub this_month: Money,
    /// All.
    pub total: Money,
}

impl Worth {
    /// Whether they are worth nothing.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Spent {
    /// Nothing so far.
    pub fn none(now: Timestamp) -> Self {
        let (today, this_month, total) = Default::default();
        Self { day: day_of(now), today, this_month, total, worth: Worth::default() }
    }

    /// Adds what was used.
    pub fn add(&mut self, used: Used, now: Timestamp) {
        *self = self.as_of(now);
        for place in [&mut self.today, &mut self.this_month, &mut self.total] {
            place.put(used.units);
        }
        for place in [&mut self.worth.today, &mut self.worth.this_month, &mut self.worth.total] {
            *place = place.saturating_add(used.worth);
        }
    }

    /// The same on another day. A day before the last one changes nothing: clocks may differ a little.
    #[must_use]
    pub fn as_of(&self, now: Timestamp) -> Self {
        let day = day_of(now);
        if day <= self.day {
            return *self;
        }
        let same_month = day.first_of_month() == self.day.first_of_month();
        let (this_month, worth) =
            if same_month { (self.this_month, self.worth.this_month) } else { (Units::ZERO, Money::ZERO) };
        let worth = Worth { today: Money::ZERO, this_month: worth, total: self.worth.total };
        Self { day, today: Units::ZERO, this_month, total: self.total, worth }
    }

    /// What two pools have used.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let worth = Worth {
            today: self.worth.today.saturating_add(other.worth.today),
            this_month: self.worth.this_month.saturating_add(other.worth.this_month),
            total: self.worth.total.saturating_add(other.worth.total),
        };
        Self {
            day: self.day.max(other.day),
            today: self.today.saturating_add(other.today),
            this_month: self.this_month.saturating_add(other.this_month),
            total: self.total.saturating_add(other.total),
            worth,
        }
    }

    /// When each period begins anew.
    fn renewals(&self) -> [(Period, Option<Timestamp>); 3] {
        let midnight = |day: Date| day.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp());
        let tomorrow = self.day.tomorrow().ok().and_then(midnight);
        let next_month = self.day.last_of_month().tomorrow().ok().and_then(midnight);
        // The one that lasts longest comes first, and is told.
        [(Period::Total, None), (Period::Month, next_month), (Period::Day, tomorrow)]
    }
}

impl Budget {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Of its amounts of money.
    pub fn currency(&self) -> Option<Currency> {
        self.money.map(|money| money.currency)
    }

    /// Whether one more call fits: `spent` is what the books say, `open` the units that this gateway has let in beyond it.
    /// Of several gateways none goes beyond its share of what is left before the books have it.
    pub fn check(&self, spent: Spent, open: u64, gateways: u32, now: Timestamp) -> Result<(), OverBudget> {
        let spent = spent.as_of(now);
        let limits = [(self.total, spent.total), (self.per_month, spent.this_month), (self.per_day, spent.today)];
        let mut share = Ok(());
        for ((period, renewed), (limit, spent)) in spent.renewals().into_iter().zip(limits) {
            let Some(limit) = limit.map(NonZeroU64::get) else { continue };
            let left = limit.saturating_sub(spent.get());
            if open >= left {
                return Err(OverBudget::Exhausted { period, allowed: Allowed::Units(limit), renewed });
            }
            if open >= (left / u64::from(gateways.max(1))).max(1) {
                share = Err(OverBudget::Share);
            }
        }
        share
    }

    /// The same in money, of a call that is worth so much: `open` is what those are worth that this gateway has let in
    /// beyond the books. A call that is worth nothing always fits.
    pub fn check_worth(
        &self,
        spent: Spent,
        (open, worth): (Money, Money),
        gateways: u32,
        now: Timestamp,
    ) -> Result<(), OverBudget> {
        let Some(money) = self.money.filter(|_| !worth.is_zero()) else { return Ok(()) };
        let spent = spent.as_of(now);
        let booked = [spent.worth.total, spent.worth.this_month, spent.worth.today];
        let limits = [money.total, money.per_month, money.per_day].into_iter().zip(booked);
        let gateways = NonZeroU64::new(gateways.into()).unwrap_or(NonZeroU64::MIN);
        let wanted = open.saturating_add(worth);
        let mut share = Ok(());
        for ((period, renewed), (limit, spent)) in spent.renewals().into_iter().zip(limits) {
            let Some(limit) = limit else { continue };
            let left = limit.saturating_sub(spent);
            if wanted > left {
                let limit = Price { amount: limit, currency: money.currency };
                let allowed = Allowed::Money { limit, left: left.saturating_sub(open) };
                return Err(OverBudget::Exhausted { period, allowed, renewed });
            }
            // One at a time is let in by whoever it comes to, as with units.
            if wanted > left.share(gateways) && !open.is_zero() {
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

    fn money(text: &str) -> Money {
        Money::written(text).unwrap()
    }

    /// Units of which each is worth a tenth.
    fn used(units: u64) -> Used {
        Used { units: Units::new(units), worth: money("0.1").times(units) }
    }

    fn spent(uses: &[(u64, &str)]) -> Spent {
        let mut spent = Spent::none(at(uses[0].1));
        uses.iter().for_each(|(units, when)| spent.add(used(*units), at(when)));
        spent
    }

    #[test]
    fn use_is_counted_by_the_day_and_month_of_utc() {
        let check = |uses: &[(u64, &str)], expected: [u64; 3]| {
            let spent = spent(uses);
            assert_eq!([spent.today, spent.this_month, spent.total].map(Units::get), expected, "{uses:?}");
            let worth = [spent.worth.today, spent.worth.this_month, spent.worth.total];
            assert_eq!(worth, expected.map(|units| used(units).worth), "{uses:?}");
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

    #[test]
    fn a_call_fits_up_to_the_last_step_of_money() {
        let check = |budget: &str, (booked, open): (u64, &str), worth: &str, now: &str, left: Option<&str>| {
            let budget: Budget = serde_json::from_str(&format!(r#"{{"money":{budget}}}"#)).unwrap();
            let booked = spent(&[(booked, "2026-01-31T12:00:00Z")]);
            let found = budget.check_worth(booked, (money(open), money(worth)), 1, at(now));
            let found = found.map_err(|over| match over {
                OverBudget::Exhausted { allowed: Allowed::Money { left, .. }, .. } => left,
                OverBudget::Exhausted { .. } | OverBudget::Share => panic!("{over:?}"),
            });
            assert_eq!(found, left.map_or(Ok(()), |left| Err(money(left))), "{booked:?} {open} {worth} {now}");
        };
        let (today, tomorrow) = ("2026-01-31T23:59:59Z", "2026-02-01T00:00:00Z");
        let (day, month) = (r#"{"currency":"CNY","per_day":"1"}"#, r#"{"currency":"CNY","per_month":"1.00"}"#);
        check(day, (3, "0.5"), "0.2", today, None);
        check(day, (3, "0.5"), "0.200000001", today, Some("0.2"));
        check(day, (3, "0.700000001"), "0.3", today, Some("0"));
        check(day, (10, "0"), "0.000000001", today, Some("0"));
        check(day, (10, "0"), "0", today, None); // a package without a price pays
        check(day, (10, "0"), "1", tomorrow, None);
        check(month, (10, "0"), "0.1", today, Some("0"));
        check(month, (10, "0"), "1", tomorrow, None);
        check(r#"{"currency":"CNY","total":"1"}"#, (9, "0"), "0.1", tomorrow, None);
        check(r#"{"currency":"CNY","total":"1"}"#, (9, "0"), "0.100000001", tomorrow, Some("0.1"));
        // A budget of a package's price is enough for all of its units, though their price is rounded.
        let third = money("10").share(NonZeroU64::new(3).unwrap());
        let budget: Budget = serde_json::from_str(r#"{"money":{"currency":"CNY","total":"10"}}"#).unwrap();
        let open = |units| budget.check_worth(Spent::none(at(today)), (third.times(units), third), 1, at(today));
        assert_eq!((open(2), open(3).is_err()), (Ok(()), true));
    }

    #[test]
    fn which_budget_in_money_is_used_up_is_told_and_when_it_begins_anew() {
        let budget = r#"{"money":{"currency":"CNY","per_day":"1","per_month":"1","total":"2"}}"#;
        let budget: Budget = serde_json::from_str(budget).unwrap();
        let over = |units: u64| {
            let booked = spent(&[(units, "2026-01-31T12:00:00Z")]);
            match budget.check_worth(booked, (Money::ZERO, money("0.1")), 1, at("2026-01-31T13:00:00Z")) {
                Err(OverBudget::Exhausted { period, allowed: Allowed::Money { limit, .. }, renewed }) => {
                    (period, limit.to_string(), renewed)
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(over(10), (Period::Month, "1 CNY".to_owned(), Some(at("2026-02-01T00:00:00Z"))));
        assert_eq!(over(20), (Period::Total, "2 CNY".to_owned(), None));
    }

    #[test]
    fn several_gateways_share_what_money_is_left() {
        let budget: Budget = serde_json::from_str(r#"{"money":{"currency":"CNY","total":"1"}}"#).unwrap();
        let check = |booked: u64, open: &str, gateways: u32| {
            let now = at("2026-01-31T12:00:00Z");
            let booked = spent(&[(booked, "2026-01-31T12:00:00Z")]);
            budget.check_worth(booked, (money(open), money("0.1")), gateways, now)
        };
        assert_eq!((check(0, "0.4", 2), check(0, "0.400000001", 2)), (Ok(()), Err(OverBudget::Share)));
        assert_eq!((check(4, "0.2", 2), check(4, "0.3", 2)), (Ok(()), Err(OverBudget::Share)));
        assert_eq!((check(9, "0", 4), check(8, "0.1", 4)), (Ok(()), Err(OverBudget::Share)));
        assert!(matches!(check(9, "0.1", 4), Err(OverBudget::Exhausted { .. })));
    }

    #[test]
    fn a_budget_in_money_names_a_currency_and_at_least_one_amount() {
        for bad in [
            r#"{"currency":"CNY"}"#,
            r#"{"per_day":"1"}"#,
            r#"{"currency":"CNY","per_day":"0"}"#,
            r#"{"currency":"CNY","per_day":"0.00","total":"1"}"#,
            r#"{"currency":"CNY","per_day":1}"#,
            r#"{"currency":"CNY","per_day":"-1"}"#,
            r#"{"currency":"cny","per_day":"1"}"#,
            r#"{"currency":"CNY","per_year":"1"}"#,
        ] {
            assert!(serde_json::from_str::<MoneyBudget>(bad).is_err(), "{bad}");
        }
        let text = r#"{"currency":"CNY","per_day":"1.5","total":"20"}"#;
        let budget: MoneyBudget = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&budget).unwrap(), text);
    }
}
