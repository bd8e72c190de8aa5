//! Usage records rolled up: exact sums by hour or day and by whatever else is asked for. A pure fold: the order of the
//! records does not matter.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{RoundMode, Timestamp, Unit, ZonedRound};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::amount::Units;
use super::usage::{CallerRef, UnitClass, UsageRecord};

/// How long a row's time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// From one full hour to the next.
    Hour,
    /// From midnight to midnight.
    Day,
}

/// By what rows differ besides their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of a usage record")]
pub enum Group {
    Account,
    Product,
    Key,
    App,
    Project,
    Model,
}

impl Group {
    /// Every one, in the order of the columns.
    pub const ALL: [Self; 6] = [Self::Account, Self::Product, Self::Key, Self::App, Self::Project, Self::Model];

    /// The name in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Product => "product",
            Self::Key => "key",
            Self::App => "app",
            Self::Project => "project",
            Self::Model => "model",
        }
    }

    /// What a record says; empty if it says nothing.
    fn of(self, record: &UsageRecord) -> String {
        let charge = &record.charge;
        match self {
            Self::Account => charge.account.to_string(),
            Self::Product => charge.product.to_string(),
            Self::Key => match &charge.caller {
                Some(CallerRef::Key(key)) => key.to_string(),
                Some(CallerRef::App(_)) | None => String::new(),
            },
            Self::App => match &charge.caller {
                Some(CallerRef::App(app)) => app.to_string(),
                Some(CallerRef::Key(_)) | None => String::new(),
            },
            Self::Project => charge.facts.allocation.project.to_string(),
            Self::Model => charge.facts.model.as_deref().unwrap_or_default().to_owned(),
        }
    }
}

/// What is added up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sums {
    /// Calls that count.
    pub calls: u64,
    /// Calls whose charge was taken back.
    pub voided: u64,
    /// Their units, by what they count.
    pub units: BTreeMap<UnitClass, Units>,
    /// Units of these that are estimated.
    pub estimated: Units,
}

/// A report that records are added to.
#[derive(Debug, Clone)]
pub struct Report {
    period: Period,
    zone: TimeZone,
    groups: Vec<Group>,
    rows: BTreeMap<(Timestamp, Vec<String>), Sums>,
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<'a> {
    /// When the row's time begins.
    pub start: Timestamp,
    /// By what it differs from others of its time.
    pub groups: Vec<(Group, &'a str)>,
    /// The sums.
    pub sums: &'a Sums,
}

impl Report {
    /// One with no rows. Groups are columns in the order of [`Group::ALL`], each once.
    pub fn new(period: Period, zone: TimeZone, groups: &[Group]) -> Self {
        let groups = Group::ALL.into_iter().filter(|group| groups.contains(group)).collect();
        Self { period, zone, groups, rows: BTreeMap::new() }
    }

    /// Adds a record to its row, by when the call arrived.
    pub fn add(&mut self, record: &UsageRecord) {
        let start = self.start(record.charge.arrived);
        let groups = self.groups.iter().map(|group| group.of(record)).collect();
        let sums = self.rows.entry((start, groups)).or_default();
        if record.units.is_zero() {
            sums.voided = sums.voided.saturating_add(1);
            return;
        }
        sums.calls = sums.calls.saturating_add(1);
        for (class, units) in record.classes() {
            sums.units.entry(class).or_insert(Units::ZERO).put(units);
        }
        if record.charge.facts.estimated() {
            sums.estimated.put(record.units);
        }
    }

    /// The rows, by time and then by their groups.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|((start, groups), sums)| {
            let groups = self.groups.iter().copied().zip(groups.iter().map(String::as_str)).collect();
            Row { start: *start, groups, sums }
        })
    }

    fn start(&self, arrived: Timestamp) -> Timestamp {
        let local = arrived.to_zoned(self.zone.clone());
        let start = match self.period {
            Period::Hour => local.round(ZonedRound::new().smallest(Unit::Hour).mode(RoundMode::Floor)),
            Period::Day => local.start_of_day(),
        };
        start.map_or(arrived, |start| start.timestamp()) // fails only at the calendar's own end
    }
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("start", &self.start)?;
        for (group, value) in &self.groups {
            map.serialize_entry(group.name(), &(!value.is_empty()).then_some(value))?;
        }
        map.serialize_entry("calls", &self.sums.calls)?;
        map.serialize_entry("voided", &self.sums.voided)?;
        map.serialize_entry("units", &self.sums.units)?;
        map.serialize_entry("estimated", &self.sums.estimated)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::allocation::Allocation;
    use crate::domain::id::{AccountId, Incarnation, KeyId, PackageId, ProductId, ProjectId};
    use crate::domain::usage::{CallFacts, Charge, ChargePart, Ending};

    /// A call of an account at a moment, with what its rows can differ by.
    fn record(account: &str, arrived: &str, model: Option<&str>, units: u64) -> UsageRecord {
        let part = |units| ChargePart {
            lease: 1,
            package: PackageId::new("p").unwrap(),
            class: UnitClass::Calls,
            units: Units::new(units),
        };
        let project = ProjectId::new(if account == "a" { "search" } else { "default" }).unwrap();
        let allocation = Arc::new(Allocation { project, ..Allocation::default() });
        let charge = Charge {
            call: 1,
            request_id: "r".to_owned(),
            arrived: arrived.parse().unwrap(),
            account: AccountId::new(account).unwrap(),
            caller: Some(CallerRef::Key(KeyId::new("key-1").unwrap())),
            product: ProductId::new("chat").unwrap(),
            parts: vec![part(1), part(units.saturating_sub(1))],
            status: 200,
            streamed: false,
            attempts: 1,
            facts: CallFacts { model: model.map(Into::into), allocation, ..CallFacts::default() },
        };
        let (incarnation, units) = (Incarnation::try_from("gw#1".to_owned()).unwrap(), Units::new(units));
        let (ending, terms) = (Ending::Complete, Vec::new());
        UsageRecord { incarnation, core: 1, charge, units, ending, ended: None, terms }
    }

    fn records() -> Vec<UsageRecord> {
        vec![
            record("a", "2026-11-25T10:00:00Z", Some("m"), 1),
            record("a", "2026-11-25T10:59:59.999999999Z", Some("m"), 3),
            record("a", "2026-11-25T11:00:00Z", None, 1),
            record("b", "2026-11-25T10:30:00Z", Some("m"), 1),
            record("b", "2026-11-25T16:00:00Z", Some("n"), 1),
            record("b", "2026-11-25T15:59:59Z", Some("n"), 0),
        ]
    }

    fn check(period: Period, zone: &str, groups: &[Group], expected: &[&str]) {
        let mut rows = Vec::new();
        for backwards in [false, true] {
            let mut report = Report::new(period, TimeZone::get(zone).unwrap(), groups);
            let mut records = records();
            if backwards {
                records.reverse();
            }
            records.iter().for_each(|record| report.add(record));
            let line = |row: Row<'_>| {
                let groups: String = row.groups.iter().map(|(_, value)| format!(" {value}")).collect();
                let units = row.sums.units.get(&UnitClass::Calls).copied().unwrap_or_default();
                format!("{:.0}{groups}: {} calls, {units} units, {} void", row.start, row.sums.calls, row.sums.voided)
            };
            rows = report.rows().map(line).collect();
            assert_eq!(rows, expected, "{backwards}");
        }
        assert!(!rows.is_empty());
    }

    #[test]
    fn calls_are_added_up_by_hour_and_day_of_a_zone() {
        check(
            Period::Hour,
            "UTC",
            &[],
            &[
                "2026-11-25T10:00:00Z: 3 calls, 5 units, 0 void",
                "2026-11-25T11:00:00Z: 1 calls, 1 units, 0 void",
                "2026-11-25T15:00:00Z: 0 calls, 0 units, 1 void",
                "2026-11-25T16:00:00Z: 1 calls, 1 units, 0 void",
            ],
        );
        check(Period::Day, "UTC", &[], &["2026-11-25T00:00:00Z: 5 calls, 7 units, 1 void"]);
        check(
            Period::Day,
            "Asia/Shanghai",
            &[],
            &["2026-11-24T16:00:00Z: 4 calls, 6 units, 1 void", "2026-11-25T16:00:00Z: 1 calls, 1 units, 0 void"],
        );
        check(
            Period::Hour,
            "Asia/Kolkata",
            &[],
            &[
                "2026-11-25T09:30:00Z: 1 calls, 1 units, 0 void",
                "2026-11-25T10:30:00Z: 3 calls, 5 units, 0 void",
                "2026-11-25T15:30:00Z: 1 calls, 1 units, 1 void",
            ],
        );
    }

    #[test]
    fn rows_differ_by_what_is_asked_for() {
        check(
            Period::Day,
            "UTC",
            &[Group::Account],
            &["2026-11-25T00:00:00Z a: 3 calls, 5 units, 0 void", "2026-11-25T00:00:00Z b: 2 calls, 2 units, 1 void"],
        );
        check(
            Period::Day,
            "UTC",
            &[Group::Model, Group::Project],
            &[
                "2026-11-25T00:00:00Z default m: 1 calls, 1 units, 0 void",
                "2026-11-25T00:00:00Z default n: 1 calls, 1 units, 1 void",
                "2026-11-25T00:00:00Z search : 1 calls, 1 units, 0 void",
                "2026-11-25T00:00:00Z search m: 2 calls, 4 units, 0 void",
            ],
        );
        check(
            Period::Day,
            "UTC",
            &[Group::Key, Group::Product, Group::Key],
            &["2026-11-25T00:00:00Z chat key-1: 5 calls, 7 units, 1 void"],
        );
    }

    #[test]
    fn a_row_is_json_that_says_what_it_is() {
        let mut report = Report::new(Period::Hour, TimeZone::UTC, &[Group::Model]);
        report.add(&record("a", "2026-11-25T11:00:00Z", None, 1));
        let rows: Vec<_> = report.rows().collect();
        assert_eq!(
            serde_json::to_string(&rows).unwrap(),
            r#"[{"start":"2026-11-25T11:00:00Z","model":null,"calls":1,"voided":0,"units":{"calls":1},"estimated":0}]"#
        );
    }
}
