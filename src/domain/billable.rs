//! Does this finished call count? The rule is data: which statuses are billable, from which day on.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::amount::Units;

/// Which statuses of a seller's answer are billable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StatusRule {
    /// Every answer counts, errors too (the marketplace's rule for per-call packages before 2025-07-16).
    Any,
    /// Only [200, 300) counts.
    Success,
}

impl StatusRule {
    /// Whether an answer with this status is billable under this rule.
    pub fn contains(self, status: u16) -> bool {
        match self {
            Self::Any => true,
            Self::Success => (200..300).contains(&status),
        }
    }
}

/// A rule and the moment from which it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatedRule {
    /// First moment at which the rule holds; `None` means since ever.
    pub from: Option<Timestamp>,
    /// What holds.
    pub statuses: StatusRule,
}

/// The dated rules of an offer, oldest first. A package keeps those it was bought under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BillableStatuses(Vec<DatedRule>);

impl Default for BillableStatuses {
    /// 2xx since ever: the default for a new offer.
    fn default() -> Self {
        Self(vec![DatedRule { from: None, statuses: StatusRule::Success }])
    }
}

impl BillableStatuses {
    /// Orders the rules by date. Before the first dated rule the default holds.
    pub fn new(mut rules: Vec<DatedRule>) -> Self {
        rules.sort_by_key(|rule| rule.from);
        Self(rules)
    }

    /// The rule in force at a moment, with its date.
    pub fn in_force_at(&self, moment: Timestamp) -> DatedRule {
        let begun = |rule: &&DatedRule| rule.from.is_none_or(|from| from <= moment);
        self.0.iter().rfind(begun).copied().unwrap_or(DatedRule { from: None, statuses: StatusRule::Success })
    }
}

/// Returns the charge for one call, by the rule in force when it arrived: one call, one unit.
/// `None` as status means that no seller answered: our own refusals are never billed.
pub fn charge(rules: &BillableStatuses, arrived: Timestamp, status: Option<u16>) -> Units {
    match status {
        Some(status) if rules.in_force_at(arrived).statuses.contains(status) => Units::ONE,
        Some(_) | None => Units::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn per_call() -> BillableStatuses {
        let changed = "2025-07-16T00:00:00+08:00".parse().unwrap();
        BillableStatuses::new(vec![
            DatedRule { from: Some(changed), statuses: StatusRule::Success },
            DatedRule { from: None, statuses: StatusRule::Any },
        ])
    }

    fn check(rules: &BillableStatuses, arrived: &str, status: Option<u16>, expected: u64) {
        let arrived = arrived.parse().unwrap();
        assert_eq!(charge(rules, arrived, status), Units::new(expected), "{arrived} {status:?}");
    }

    #[test]
    fn per_call_packages_stop_charging_failures_on_the_day_the_rule_changed() {
        check(&per_call(), "2025-07-15T23:59:59+08:00", Some(500), 1);
        check(&per_call(), "2025-07-16T00:00:00+08:00", Some(500), 0);
        check(&per_call(), "2025-07-16T00:00:00+08:00", Some(299), 1);
        check(&per_call(), "2025-07-15T23:59:59+08:00", None, 0);
    }

    #[test]
    fn the_rule_in_force_is_named_with_its_date() {
        let rules = per_call();
        let (before, after) =
            ("2025-07-15T23:59:59+08:00".parse().unwrap(), "2025-07-16T00:00:00+08:00".parse().unwrap());
        assert_eq!(rules.in_force_at(before), DatedRule { from: None, statuses: StatusRule::Any });
        assert_eq!(rules.in_force_at(after), DatedRule { from: Some(after), statuses: StatusRule::Success });
        let later = BillableStatuses::new(vec![DatedRule { from: Some(after), statuses: StatusRule::Any }]);
        assert_eq!(later.in_force_at(before), DatedRule { from: None, statuses: StatusRule::Success });
    }

    #[test]
    fn a_new_offer_charges_2xx_since_ever() {
        let rules = BillableStatuses::default();
        for (status, expected) in [(199, 0), (200, 1), (204, 1), (299, 1), (300, 0), (429, 0), (500, 0)] {
            check(&rules, "2001-01-01T00:00:00Z", Some(status), expected);
        }
    }
}
