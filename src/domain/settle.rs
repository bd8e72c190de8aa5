//! Booking what gateways report of their leases. The rules that make a lost, repeated or late report harmless:
//! a report says how much was used *so far*, the document books the difference to what it has; a lease up to
//! `closed_through` is done with; a lease that the document does not know above it was forgotten by the store.

use jiff::{SignedDuration, Timestamp};

use super::amount::Units;
use super::event::Event;
use super::id::Incarnation;
use super::lease::{HeldLeases, Lease, LeasePart};
use super::package::Package;
use super::pool::Pool;

/// How long an incarnation that holds nothing is remembered: as long as its journal may be read again.
const QUIET_KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Whether a lease goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseEnd {
    /// It may still be used.
    Open,
    /// No call will use it any more: what is unused goes back for sale.
    Closed,
    /// Its journal may have lost records: what is not known to be used goes into suspense.
    Lost,
}

/// What a gateway says of one of its leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseReport {
    /// Which of its leases in this pool.
    pub number: u64,
    /// What was granted and how much is used so far. Empty for a number whose grant never came through.
    pub parts: Vec<LeasePart>,
    /// Until when it admits calls.
    pub deadline: Timestamp,
    /// Whether it goes on.
    pub end: LeaseEnd,
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
            let parts = report.parts.iter().map(|part| LeasePart { used: Units::ZERO, ..part.clone() });
            Lease { parts: parts.collect(), deadline: report.deadline, closed: false }
        });
        if lease.closed {
            return; // a late repetition
        }
        for reported in &report.parts {
            let known = lease.parts.iter_mut().find(|part| part.package == reported.package);
            let package = self.packages.iter_mut().find(|package| package.id == reported.package);
            if let (Some(known), Some(package)) = (known, package) {
                book_use(package, known, reported.used);
            }
        }
        if report.end != LeaseEnd::Open {
            lease.closed = true;
            for part in &lease.parts {
                let unused = part.granted.saturating_sub(part.used);
                if let Some(package) = self.packages.iter_mut().find(|package| package.id == part.package) {
                    let unused = package.leased.take_up_to(unused);
                    let back = if report.end == LeaseEnd::Lost { &mut package.suspense } else { &mut package.free };
                    back.put(unused);
                }
            }
        }
        held.advance();
        let named = |package: &Package| report.parts.iter().any(|part| part.package == package.id);
        let product = &self.product;
        for package in self.packages.iter().filter(|package| named(package)) {
            let (product, id) = (product.clone(), package.id.clone());
            if !package.overrun.is_zero() {
                events.push(Event::Overrun { product: product.clone(), package: id.clone(), overrun: package.overrun });
            }
            if report.end == LeaseEnd::Lost && !package.suspense.is_zero() {
                events.push(Event::Suspended { product, package: id, suspense: package.suspense });
            }
        }
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
        let Some(held) = self.held.get(from) else {
            return;
        };
        let unknown = held.leases.iter().filter(|(number, lease)| !lease.closed && !known(**number));
        let reports: Vec<LeaseReport> = unknown
            .map(|(number, lease)| LeaseReport {
                number: *number,
                parts: lease.parts.clone(),
                deadline: lease.deadline,
                end: LeaseEnd::Closed,
            })
            .collect();
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

/// Takes a forgotten lease's units out of what is free again. What is no longer free there was sold twice: overrun.
fn enter_again(packages: &mut [Package], part: &LeasePart) {
    if let Some(package) = packages.iter_mut().find(|package| package.id == part.package) {
        let mut taken = package.free.take_up_to(part.granted);
        let missing = part.granted.saturating_sub(taken);
        taken.put(package.forfeited.take_up_to(missing));
        package.leased.put(taken);
    }
}

/// Books the difference between what is reported and what is known.
fn book_use(package: &mut Package, known: &mut LeasePart, reported: Units) {
    let more = reported.saturating_sub(known.used);
    let mut booked = package.leased.take_up_to(more);
    let missing = more.saturating_sub(booked);
    booked.put(package.suspense.take_up_to(missing));
    package.settled.put(booked);
    package.overrun.put(more.saturating_sub(booked));
    known.used = known.used.max(reported);
}
