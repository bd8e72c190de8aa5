//! Booking what gateways report of their leases. The rules that make a lost, repeated or late report harmless:
//! a report says how much was used and given back *so far*, the document books the difference to what it has; a lease
//! up to `closed_through` is done with; a lease that the document does not know above it was forgotten by the store.

use jiff::{SignedDuration, Timestamp};

use super::amount::Units;
use super::event::Event;
use super::id::{Incarnation, ProductId};
use super::lease::{HeldLeases, Lease, LeasePart};
use super::package::Package;
use super::pool::Pool;

/// How long an incarnation that holds nothing is remembered: as long as its journal may be read again.
const QUIET_KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What a gateway says of one of its leases. Once every unit is used or given back, the lease is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseReport {
    /// Which of its leases in this pool.
    pub number: u64,
    /// What was granted, used and given back so far. Empty: nothing of it was or will be used, if it was granted at all.
    pub parts: Vec<LeasePart>,
    /// Until when it admits calls.
    pub deadline: Timestamp,
    /// The journal may have lost records of it: what is neither used nor given back goes into suspense.
    pub lost: bool,
}

impl LeaseReport {
    /// Says that nothing of a lease was or will be used: its grant never came through, or was never written down.
    pub fn unused(number: u64, now: Timestamp) -> Self {
        Self { number, parts: Vec::new(), deadline: now, lost: false }
    }
}

impl Pool {
    /// Books one report. Units return to sale only while their package is valid; see [`Pool::sweep`].
    pub fn settle(&mut self, from: &Incarnation, report: &LeaseReport, now: Timestamp, events: &mut Vec<Event>) {
        let held = self.held.entry(from.clone()).or_insert_with(|| HeldLeases::new(now));
        held.reported_at = held.reported_at.max(now);
        if report.number <= held.closed_through {
            return; // all of it is booked already
        }
        let lease = held.leases.entry(report.number).or_insert_with(|| {
            for part in &report.parts {
                enter_again(&mut self.packages, part);
            }
            let parts = report.parts.iter().map(|part| LeasePart::new(part.package.clone(), part.granted));
            Lease { parts: parts.collect(), deadline: report.deadline, closed: false }
        });
        if lease.closed {
            return; // a late repetition
        }
        let unused = |part: &LeasePart| LeasePart { returned: part.granted, ..part.clone() };
        let parts = match report.parts.as_slice() {
            [] => lease.parts.iter().map(unused).collect(),
            parts => parts.to_vec(),
        };
        for reported in &parts {
            let known = lease.parts.iter_mut().find(|part| part.package == reported.package);
            let package = self.packages.iter_mut().find(|package| package.id == reported.package);
            if let (Some(known), Some(package)) = (known, package) {
                book(package, known, reported, &self.product, events);
                if report.lost {
                    suspend(package, known.outstanding(), &self.product, events);
                }
            }
        }
        lease.closed = report.lost || lease.parts.iter().all(|part| part.outstanding().is_zero());
        held.advance();
    }

    /// Closes the leases of an incarnation that its journal does not know: they were granted, but never used, since
    /// a gateway writes a grant down before it uses it.
    pub fn close_unknown(
        &mut self,
        from: &Incarnation,
        known: impl Fn(u64) -> bool,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) {
        let Some(held) = self.held.get(from) else { return };
        let unknown = held.leases.iter().filter(|(number, lease)| !lease.closed && !known(**number));
        let reports: Vec<LeaseReport> = unknown.map(|(number, _)| LeaseReport::unused(*number, now)).collect();
        for report in reports {
            self.settle(from, &report, now, events);
        }
    }

    /// Forgets incarnations other than `reporter` that hold nothing and have been silent for longer than a journal is kept.
    pub fn forget_quiet(&mut self, reporter: &Incarnation, now: Timestamp) {
        let long_ago = |held: &HeldLeases| now.duration_since(held.reported_at) > QUIET_KEPT;
        self.held.retain(|who, held| who == reporter || !held.leases.is_empty() || !long_ago(held));
    }
}

/// Takes a forgotten lease's units out of what is free again. What is no longer there was sold twice: overrun, as soon
/// as it is used.
fn enter_again(packages: &mut [Package], part: &LeasePart) {
    if let Some(package) = packages.iter_mut().find(|package| package.id == part.package) {
        let mut taken = package.free.take_up_to(part.granted);
        let missing = part.granted.saturating_sub(taken);
        taken.put(package.forfeited.take_up_to(missing));
        package.leased.put(taken);
    }
}

/// Books the difference between what is reported and what is known.
fn book(
    package: &mut Package,
    known: &mut LeasePart,
    reported: &LeasePart,
    product: &ProductId,
    events: &mut Vec<Event>,
) {
    let used = reported.used.saturating_sub(known.used);
    let mut booked = package.leased.take_up_to(used);
    let missing = used.saturating_sub(booked);
    booked.put(package.suspense.take_up_to(missing));
    package.settled.put(booked);
    let overrun = used.saturating_sub(booked);
    if !overrun.is_zero() {
        package.overrun.put(overrun);
        let (product, id) = (product.clone(), package.id.clone());
        events.push(Event::Overrun { product, package: id, overrun: package.overrun });
    }
    known.used = known.used.max(reported.used);

    let returned = reported.returned.saturating_sub(known.returned);
    let back = package.leased.take_up_to(returned);
    package.free.put(back);
    known.returned = known.returned.max(reported.returned);
}

fn suspend(package: &mut Package, units: Units, product: &ProductId, events: &mut Vec<Event>) {
    let units = package.leased.take_up_to(units);
    if !units.is_zero() {
        package.suspense.put(units);
        let (product, id) = (product.clone(), package.id.clone());
        events.push(Event::Suspended { product, package: id, suspense: package.suspense });
    }
}
