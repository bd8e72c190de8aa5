//! Calls out of journals and exports: each charge with its end, each call once. Memory grows with the calls that are
//! open at one time, not with their number.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use crate::domain::amount::Units;
use crate::domain::id::{AccountId, Incarnation, PackageId, ProductId};
use crate::domain::usage::{Charge, ChargePart, UnitClass};
use crate::ports::journal::{CallEnd, Damage, Record};

/// What is known of a run besides its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// Its gateway goes on: calls may be open, and use unreported.
    Live,
    /// It has ended; whether all that it knows is in the books.
    Ended {
        /// Its journal is marked so.
        settled: bool,
    },
    /// Only its export is at hand.
    Elsewhere,
}

/// A piece of what there is to read, in order: a run, its records, its end; or exported calls.
#[derive(Debug)]
pub enum Item {
    /// A run's journal begins.
    Run(Incarnation, RunState),
    /// A record of it, with its writer.
    Record(u16, Record),
    /// All of it was shown.
    RunEnd(Damage),
    /// A line of an export.
    Exported(Box<ExportedCall>),
}

/// What an audit reads of a line of the usage export; the rest explains, and is left unread.
#[derive(Debug, Clone, Deserialize)]
pub struct ExportedCall {
    incarnation: Incarnation,
    core: u16,
    units: u64,
    call: u64,
    request_id: String,
    account: AccountId,
    product: ProductId,
    parts: Vec<ExportedPart>,
    status: u16,
    attempts: u8,
}

/// What an audit reads of a part of such a line. Exports of earlier versions of this program name no class.
#[derive(Debug, Clone, Deserialize)]
struct ExportedPart {
    lease: u64,
    package: PackageId,
    #[serde(default)]
    class: UnitClass,
    units: Units,
}

impl From<ExportedPart> for ChargePart {
    fn from(part: ExportedPart) -> Self {
        let ExportedPart { lease, package, class, units } = part;
        Self { lease, package, class, units }
    }
}

/// A charged call.
#[derive(Debug, Clone)]
pub struct Called {
    /// Numbers the calls of one core of one run.
    pub call: u64,
    /// The client's id or ours.
    pub request_id: String,
    /// Who pays.
    pub account: AccountId,
    /// What was called.
    pub product: ProductId,
    /// Which packages pay, under which leases.
    pub parts: Vec<ChargePart>,
    /// The seller's status.
    pub status: u16,
    /// Requests sent to the seller.
    pub attempts: u8,
}

impl From<Charge> for Called {
    fn from(charge: Charge) -> Self {
        let Charge { call, request_id, account, product, parts, status, attempts, .. } = charge;
        Self { call, request_id, account, product, parts, status, attempts }
    }
}

/// Whether a charge stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It does.
    Billed,
    /// It was taken back.
    Void,
    /// Nobody knows yet: the call is under way.
    Open,
}

/// What comes of an item, with its run's number.
#[derive(Debug)]
pub enum Seen<'a> {
    /// A call, once, with its core.
    Call(u16, &'a Called, Fate),
    /// A call whose number was there before in the same journal.
    Twice(u16, &'a Called),
    /// A run whose journal was there before; it is passed over.
    RunTwice,
    /// A record that is no call.
    Other(Record),
    /// A run is read, and this was found.
    RunEnd(Damage),
}

/// Shown what comes of an item: the run's number, the run, and what it is.
pub type Each<'a> = &'a mut dyn FnMut(usize, &KnownRun, Seen<'_>);

/// A set of whole numbers that are nearly all there: kept as ranges.
#[derive(Debug, Default)]
pub struct Numbers(BTreeMap<u64, u64>);

impl Numbers {
    /// Adds one; false if it was there.
    pub fn insert(&mut self, number: u64) -> bool {
        if self.contains(number) {
            return false;
        }
        let behind = number.checked_add(1).and_then(|next| self.0.remove(&next));
        let end = behind.unwrap_or(number);
        if let Some((_, before)) = self.0.range_mut(..number).next_back()
            && before.checked_add(1) == Some(number)
        {
            *before = end;
        } else {
            self.0.insert(number, end);
        }
        true
    }

    /// Whether it is there.
    pub fn contains(&self, number: u64) -> bool {
        self.0.range(..=number).next_back().is_some_and(|(_, end)| number <= *end)
    }
}

/// A run that was seen.
#[derive(Debug)]
pub struct KnownRun {
    /// Which.
    pub incarnation: Incarnation,
    /// What is known of it.
    pub state: RunState,
    calls: HashMap<u16, Numbers>,
}

/// Joins charges with their ends, and tells runs and calls that come twice.
#[derive(Debug, Default)]
pub struct Calls {
    runs: Vec<KnownRun>,
    numbers: HashMap<Incarnation, usize>,
    /// The run that is being read; `None` also while one is passed over.
    current: Option<usize>,
    open: HashMap<(u16, u64), Called>,
    /// Exported calls that were known from elsewhere.
    pub repeated: u64,
}

impl Calls {
    /// The runs so far, by number.
    pub fn runs(&self) -> &[KnownRun] {
        &self.runs
    }

    /// The number of a run that was seen.
    pub fn number_of(&self, run: &Incarnation) -> Option<usize> {
        self.numbers.get(run).copied()
    }

    /// Whether a call was seen.
    pub fn contains(&self, run: &Incarnation, core: u16, call: u64) -> bool {
        let run = self.numbers.get(run).and_then(|number| self.runs.get(*number));
        run.and_then(|run| run.calls.get(&core)).is_some_and(|calls| calls.contains(call))
    }

    /// Takes an item in.
    pub fn take(&mut self, item: Item, each: Each<'_>) {
        match item {
            Item::Run(incarnation, state) => {
                let known = self.numbers.get(&incarnation).copied();
                self.current = known.is_none().then(|| self.number(incarnation, state));
                if let Some(run) = known {
                    self.show(run, Seen::RunTwice, each);
                }
            }
            Item::Record(core, record) => {
                if let Some(run) = self.current {
                    self.record((run, core), record, each);
                }
            }
            Item::RunEnd(damage) => {
                let open = std::mem::take(&mut self.open);
                let Some(run) = self.current.take() else { return };
                let live = self.runs.get(run).is_some_and(|run| run.state == RunState::Live);
                let fate = if live { Fate::Open } else { Fate::Billed };
                open.iter().for_each(|((core, _), called)| self.show(run, Seen::Call(*core, called, fate), each));
                self.show(run, Seen::RunEnd(damage), each);
            }
            Item::Exported(line) => {
                let ExportedCall { incarnation, core, units, call, request_id, .. } = *line;
                let ExportedCall { account, product, parts, status, attempts, .. } = *line;
                let parts = parts.into_iter().map(ChargePart::from).collect();
                let called = Called { call, request_id, account, product, parts, status, attempts };
                let run = self.number(incarnation, RunState::Elsewhere);
                if self.first(run, core, called.call) {
                    let fate = if units > 0 { Fate::Billed } else { Fate::Void };
                    self.show(run, Seen::Call(core, &called, fate), each);
                } else {
                    self.repeated += 1;
                }
            }
        }
    }

    fn show(&self, run: usize, seen: Seen<'_>, each: Each<'_>) {
        if let Some(known) = self.runs.get(run) {
            each(run, known, seen);
        }
    }

    fn record(&mut self, (run, core): (usize, u16), record: Record, each: Each<'_>) {
        match record {
            Record::Charge(charge) => {
                let called = Called::from(charge);
                if self.first(run, core, called.call) {
                    self.open.insert((core, called.call), called);
                } else {
                    self.show(run, Seen::Twice(core, &called), each);
                }
            }
            Record::End(CallEnd { call, billed, .. }) => {
                if let Some(called) = self.open.remove(&(core, call)) {
                    let fate = if billed { Fate::Billed } else { Fate::Void };
                    self.show(run, Seen::Call(core, &called, fate), each);
                }
            }
            other @ (Record::Grant(_) | Record::Ask(_) | Record::Close | Record::Command(_) | Record::Refused(_)) => {
                self.show(run, Seen::Other(other), each)
            }
        }
    }

    /// The number of a run, which is new or known.
    fn number(&mut self, incarnation: Incarnation, state: RunState) -> usize {
        if let Some(number) = self.numbers.get(&incarnation) {
            return *number;
        }
        let number = self.runs.len();
        self.numbers.insert(incarnation.clone(), number);
        self.runs.push(KnownRun { incarnation, state, calls: HashMap::new() });
        number
    }

    fn first(&mut self, run: usize, core: u16, call: u64) -> bool {
        self.runs.get_mut(run).is_some_and(|run| run.calls.entry(core).or_default().insert(call))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_kept_as_ranges_and_each_is_new_once() {
        let mut numbers = Numbers::default();
        for number in [5, 7, 6, 1, 2, u64::MAX, 0, 4, 3] {
            assert!(!numbers.contains(number) && numbers.insert(number), "{number}");
            assert!(numbers.contains(number) && !numbers.insert(number), "{number}");
        }
        assert_eq!(numbers.0, [(0, 7), (u64::MAX, u64::MAX)].into());
        assert!(!numbers.contains(8) && !numbers.contains(u64::MAX - 1));
    }
}
