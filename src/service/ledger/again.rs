//! A store that restarts may have forgotten what it had acknowledged. How that is noticed, and what is sent again: all
//! leases at hand, as in every exchange, and the totals of those that are closed.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};

use super::{EXCHANGES_MAX, Entry, Ledger, Memory, PoolKey};
use crate::domain::id::Incarnation;
use crate::domain::pool::Pool;
use crate::domain::settle::LeaseReport;
use crate::ports::account_store::Stamp;

/// Closed leases of a pool whose totals are at hand; those before them are in the journal.
const CLOSED_KEPT_MAX: usize = 64;

/// How much a store has forgotten, as far as this gateway can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Loss {
    /// Nothing.
    #[default]
    None,
    /// What was written in this run and is at hand.
    Shallow,
    /// Perhaps more than that: the journals must be read.
    Deep,
}

/// The totals of leases that are closed and booked, by number.
#[derive(Debug, Default)]
pub(super) struct Closed {
    kept: BTreeMap<u64, LeaseReport>,
    /// The totals up to this number are no longer at hand.
    dropped_through: u64,
    /// The document has said that all leases up to this number are closed.
    through: u64,
}

impl Closed {
    /// Notes what the store has acknowledged.
    pub(super) fn note(&mut self, reports: &[LeaseReport]) {
        for report in reports {
            if report.parts.iter().all(|part| part.outstanding().is_zero()) {
                self.kept.insert(report.number, report.clone());
            }
        }
        while self.kept.len() > CLOSED_KEPT_MAX {
            let Some((number, _)) = self.kept.pop_first() else { return };
            self.dropped_through = number;
        }
    }

    /// Takes in totals that were read from the journal. What is at hand is more recent.
    fn put_back(&mut self, reports: Vec<LeaseReport>) {
        for report in reports {
            self.kept.entry(report.number).or_insert(report);
        }
    }

    /// The totals that a document lacks.
    pub(super) fn forgotten_by(&self, document: &Pool, run: &Incarnation) -> Vec<LeaseReport> {
        let held = document.held.get(run);
        let through = held.map_or(0, |held| held.closed_through);
        let closed = |number: &u64| held.and_then(|held| held.leases.get(number)).is_some_and(|lease| lease.closed);
        let later = self.kept.range(through.saturating_add(1)..);
        later.filter(|(number, _)| !closed(number)).map(|(_, report)| report.clone()).collect()
    }
}

/// By what a store that has forgotten gives itself away: the counters of the document's stamps in this run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Witness {
    /// The first that was seen.
    first: u64,
    /// The last that was seen.
    last: u64,
}

impl Memory {
    /// Notes the stamp of a document that was seen.
    pub(super) fn witness(&mut self, stamp: Stamp) {
        let first = self.witness.map_or(stamp.counter, |witness| witness.first);
        self.witness = Some(Witness { first, last: stamp.counter });
    }

    /// Notes how far a document says that this run's leases are closed.
    pub(super) fn see_closed(&mut self, document: &Pool, run: &Incarnation) {
        let through = document.held.get(run).map_or(0, |held| held.closed_through);
        self.closed.through = self.closed.through.max(through);
    }

    /// Holds the document that was just loaded against what is remembered; returns whether the store has forgotten
    /// something.
    pub(super) fn look_for_loss(&mut self, run: &Incarnation) -> bool {
        let there = self.known.as_ref().map(|known| &known.pool);
        let counter = there.map(|there| there.stamp.counter);
        let through = there.and_then(|there| there.value.held.get(run)).map_or(0, |held| held.closed_through);
        let loss = match (self.witness, counter) {
            (None, _) => Loss::None,
            (Some(_), None) => Loss::Deep,
            (Some(witness), Some(counter)) if counter < witness.first => Loss::Deep,
            _ if through < self.closed.dropped_through => Loss::Deep,
            (Some(witness), Some(counter)) if counter < witness.last => Loss::Shallow,
            // The counter has been reached again by others: how far back the store went cannot be told.
            _ if through < self.closed.through => Loss::Deep,
            _ => Loss::None,
        };
        if loss > Loss::None {
            self.witness = None;
            self.closed.through = through;
            self.closed.dropped_through = self.closed.dropped_through.min(through);
        }
        self.loss = self.loss.max(loss);
        if let Some(stamp) = self.known.as_ref().map(|known| known.pool.stamp) {
            self.witness(stamp);
        }
        loss > Loss::None
    }
}

/// What became of reporting everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reported {
    /// How much the store had forgotten.
    pub loss: Loss,
    /// Whether pools on which leases are or were held have no document: their accounts are another gateway's to tell again.
    pub missing: bool,
}

impl Ledger {
    /// Reports every pool that this run has touched, as a store needs it that may have forgotten. `None`: it did not take
    /// everything. A gateway that has touched nothing cannot tell how much was forgotten.
    pub async fn report_all(&self) -> Option<Reported> {
        let entries: Vec<Arc<Entry>> = self.pools.iter().map(|entry| Arc::clone(&entry)).collect();
        let reports = entries.into_iter().map(|entry| async move {
            entry.memory.lock().await.known = None;
            let taken = self.exchange(&entry).await;
            let mut memory = entry.memory.lock().await;
            let touched = memory.witness.is_some() || memory.loss > Loss::None;
            let sold = entry.pool.holds_any() || !memory.closed.kept.is_empty();
            let missing = memory.known.is_none() && sold;
            (taken, touched, std::mem::take(&mut memory.loss), missing)
        });
        let all: Vec<_> = stream::iter(reports).buffer_unordered(EXCHANGES_MAX).collect().await;
        if all.iter().any(|(taken, ..)| !taken) {
            return None;
        }
        let worst = all.iter().filter(|(_, touched, ..)| *touched).map(|(_, _, loss, _)| *loss).max();
        let missing = all.iter().any(|(.., missing)| *missing);
        Some(Reported { loss: worst.unwrap_or(Loss::Deep), missing })
    }

    /// Reports what this run's journal knows of its leases, but for those at hand, which are more recent here. Returns
    /// whether the store took everything.
    pub async fn report_journalled(&self, pools: BTreeMap<PoolKey, Vec<LeaseReport>>) -> bool {
        for ((account, product), mut reports) in pools {
            let entry = self.entry(&account, &product);
            let mut memory = entry.memory.lock().await;
            let at_hand: Vec<u64> = entry.pool.reports().iter().map(|report| report.number).collect();
            reports.retain(|report| !at_hand.contains(&report.number));
            memory.closed.put_back(reports);
            memory.known = None;
            drop(memory);
            if !self.exchange(&entry).await {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{AccountId, ProductId};
    use crate::domain::lease::HeldLeases;
    use crate::ports::account_store::Stamped;
    use crate::ports::gateways::ServerId;
    use crate::service::ledger::Known;

    fn run() -> Incarnation {
        Incarnation::try_from("gw#1".to_owned()).unwrap()
    }

    /// A document at some counter that has this run's leases closed up to some number.
    fn known(counter: u64, closed_through: u64) -> Known {
        let mut pool = Pool::new(AccountId::new("a").unwrap(), ProductId::new("p").unwrap());
        let held = HeldLeases { closed_through, ..HeldLeases::new(jiff::Timestamp::UNIX_EPOCH) };
        pool.held.insert(run(), held);
        let stamp = Stamp { counter, random: 1 };
        Known { pool: Stamped { stamp, value: pool }, server: ServerId::new("s") }
    }

    #[test]
    fn a_store_that_has_forgotten_gives_itself_away() {
        // This run has seen the counters 10 to 20 and leases closed up to 5, of which the first 2 are not at hand.
        let check = |found: Option<(u64, u64)>, expected: Loss| {
            let mut memory = Memory { known: Some(known(10, 0)), ..Memory::default() };
            assert!(!memory.look_for_loss(&run()));
            memory.witness(Stamp { counter: 20, random: 1 });
            memory.see_closed(&known(20, 5).pool.value, &run());
            memory.closed.dropped_through = 2;
            memory.known = found.map(|(counter, through)| known(counter, through));
            assert_eq!(memory.look_for_loss(&run()), expected > Loss::None, "{found:?}");
            assert_eq!(memory.loss, expected, "{found:?}");
            assert!(!memory.look_for_loss(&run()), "it is found once");
        };
        check(Some((20, 5)), Loss::None);
        check(Some((21, 5)), Loss::None);
        check(Some((19, 5)), Loss::Shallow);
        check(Some((10, 2)), Loss::Shallow);
        check(Some((10, 1)), Loss::Deep);
        check(Some((9, 5)), Loss::Deep);
        check(Some((25, 4)), Loss::Deep);
        check(None, Loss::Deep);
    }

    #[test]
    fn what_a_document_lacks_is_sent_again_and_the_oldest_are_dropped() {
        let mut closed = Closed::default();
        let unused = |number| LeaseReport::unused(number, jiff::Timestamp::UNIX_EPOCH);
        let last = CLOSED_KEPT_MAX as u64 + 2;
        closed.note(&(1..=last).map(unused).collect::<Vec<_>>());
        assert_eq!(closed.dropped_through, 2);
        let numbers = |document: &Pool| -> Vec<u64> {
            closed.forgotten_by(document, &run()).iter().map(|report| report.number).collect()
        };
        assert_eq!(numbers(&known(1, last).pool.value), Vec::<u64>::new());
        assert_eq!(numbers(&known(1, last - 2).pool.value), [last - 1, last]);
        assert_eq!(numbers(&known(1, 0).pool.value).len(), CLOSED_KEPT_MAX);
        let mut behind_a_gap = known(1, last - 2).pool.value;
        let mut lease = crate::domain::lease::Lease::new(Vec::new(), jiff::Timestamp::UNIX_EPOCH);
        lease.closed = true;
        behind_a_gap.held.get_mut(&run()).unwrap().leases.insert(last, lease);
        assert_eq!(numbers(&behind_a_gap), [last - 1]);
    }
}
