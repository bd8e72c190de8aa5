//! Booking what gateways report of their leases. The rules that make a lost, repeated or late report harmless:
//! a report says how much was used and given back *so far*, the document books the difference to what it has; a lease
//! up to `closed_through` is done with; a lease that the document does not know above it was forgotten by the store.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::amount::Units;
use super::budget::{Spent, Used};
use super::event::Event;
use super::id::{Incarnation, KeyId, PackageId, ProductId};
use super::lease::{HeldLeases, Lease, LeasePart};
use super::package::Package;
use super::pool::{Pool, SPENT_KEYS_MAX, Unplaced};

/// How long after a run's end its journal may be reported. A finished run is remembered for as long; reported later,
/// its use would be booked a second time.
pub const JOURNAL_READ_FOR: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A gateway that has not reported for so long, and whose lease is past its deadline, is silent: what it has not reported
/// goes into suspense.
pub const SILENCE_MAX: SignedDuration = SignedDuration::from_secs(60);
/// A gateway with open calls on a lease reports at least this often, well within [`SILENCE_MAX`].
pub const REPORT_OPEN_EVERY: SignedDuration = SignedDuration::from_secs(10);

/// What a gateway says of one of its leases. Once every unit is used or given back, the lease is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseReport {
    /// Which of its leases in this pool.
    pub number: u64,
    /// What was granted, used and given back so far. Empty: nothing of it was or will be used, if it was granted at all.
    pub parts: Vec<LeasePart>,
    /// Until when it admits calls.
    pub deadline: Timestamp,
    /// What calls of keys with a budget have used of it so far.
    pub spent: BTreeMap<KeyId, Used>,
    /// The journal may have lost records of it: what is neither used nor given back goes into suspense.
    pub lost: bool,
}

impl LeaseReport {
    /// Says that nothing of a lease was or will be used: its grant never came through, or was never written down.
    pub fn unused(number: u64, now: Timestamp) -> Self {
        Self { number, parts: Vec::new(), deadline: now, spent: BTreeMap::new(), lost: false }
    }

    /// Whether no call will use the lease any more.
    fn closes(&self) -> bool {
        self.lost || self.parts.iter().all(|part| part.outstanding().is_zero())
    }
}

/// How much the journal of a run that has ended can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// It has every record that was written: a lease that it does not know was never used.
    Whole,
    /// The host went down with it: a lease that it does not know may have been used.
    Lost,
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
            let parts = report.parts.iter().map(|part| enter_again(&mut self.packages, part));
            Lease::new(parts.collect(), report.deadline)
        });
        if lease.closed {
            return; // a late repetition
        }
        if std::mem::take(&mut lease.suspended) {
            lease.parts.iter_mut().for_each(|part| heard_again(&mut self.packages, part));
        }
        book_spent(&mut self.spent, lease, &report.spent, now);
        for reported in &report.parts {
            let known = lease.parts.iter_mut().find(|part| part.package == reported.package);
            let package = self.packages.iter_mut().find(|package| package.id == reported.package);
            match (known, package) {
                (Some(known), Some(package)) => {
                    book(package, known, reported, &self.product, events);
                    let gone = known.used.saturating_add(known.returned.max(reported.returned));
                    let missing = reported.granted.saturating_sub(gone).saturating_sub(known.outstanding());
                    if missing.is_zero() {
                        lease.missing.remove(&reported.package);
                    } else {
                        lease.missing.insert(reported.package.clone(), missing);
                    }
                }
                (Some(known), None) => {
                    // The store forgot the purchase; or it forgot the lease, and the package ended without it.
                    let more = reported.used.saturating_sub(known.used);
                    known.used = known.used.max(reported.used);
                    known.returned = known.returned.max(reported.returned);
                    if !more.is_zero() {
                        let nothing = Unplaced { used: Units::ZERO, since: now };
                        self.unplaced.entry(reported.package.clone()).or_insert(nothing).used.put(more);
                    }
                }
                (None, None | Some(_)) => {}
            }
        }
        if report.closes() {
            lease.closed = true;
            lease.missing.clear();
            for part in &lease.parts {
                if let Some(package) = self.packages.iter_mut().find(|package| package.id == part.package) {
                    close(package, part, report.lost, &self.product, events);
                }
            }
        }
        held.advance();
    }

    /// Sets aside what silent gateways hold past the deadline: used or not, their journals will tell. When one reports
    /// again, its units are leased to it as before.
    pub fn suspend_silent(&mut self, now: Timestamp, events: &mut Vec<Event>) {
        for held in self.held.values_mut().filter(|held| now.duration_since(held.reported_at) > SILENCE_MAX) {
            for lease in held.leases.values_mut().filter(|lease| lease.in_hand() && lease.deadline <= now) {
                lease.suspended = true;
                for part in &lease.parts {
                    let package = self.packages.iter_mut().find(|package| package.id == part.package);
                    if let Some(package) = package {
                        set_aside(package, part.outstanding(), &self.product, events);
                    }
                }
            }
        }
    }

    /// Takes units of a package out of suspense, by an operator's decision. What no gateway will report of any more goes
    /// first; beyond it, the decision holds for the leases in suspense, so that a journal that comes back after all does
    /// not count what is counted. The caller has checked that so many are there.
    pub fn take_from_suspense(&mut self, id: &PackageId, units: Units, used: bool) {
        let Some(package) = self.packages.iter_mut().find(|package| package.id == *id) else { return };
        let suspended = self.held.values_mut().flat_map(|held| held.leases.values_mut());
        let suspended = suspended.filter(|lease| lease.suspended && !lease.closed);
        let parts = suspended.flat_map(|lease| lease.parts.iter_mut()).filter(|part| part.package == *id);
        let parts: Vec<&mut LeasePart> = parts.collect();
        let claimed: Units = parts.iter().map(|part| part.outstanding()).sum();
        let mut decided = units.saturating_sub(package.suspense.saturating_sub(claimed));
        for part in parts {
            let of_this = decided.take_up_to(part.outstanding());
            let counter = if used { &mut part.used } else { &mut part.returned };
            counter.put(of_this);
        }
        package.suspense = package.suspense.saturating_sub(units);
        if used {
            package.settled.put(units);
        } else {
            package.put_back(units);
        }
    }

    /// Ends an incarnation whose journal is booked. Its leases that the journal does not know were granted but never
    /// used, since a gateway writes a grant down before it uses it; unless the journal has lost records.
    pub fn finish(
        &mut self,
        from: &Incarnation,
        (end, known): (RunEnd, impl Fn(u64) -> bool),
        now: Timestamp,
        events: &mut Vec<Event>,
    ) {
        let Some(held) = self.held.get(from) else {
            return;
        };
        let unknown = held.leases.iter().filter(|(number, lease)| !lease.closed && !known(**number));
        let report = |(number, lease): (&u64, &Lease)| match end {
            RunEnd::Whole => LeaseReport::unused(*number, now),
            RunEnd::Lost => {
                let spent = lease.spent.keys().map(|key| (key.clone(), lease.used_by(key))).collect();
                LeaseReport { number: *number, parts: lease.parts.clone(), deadline: lease.deadline, spent, lost: true }
            }
        };
        let reports: Vec<LeaseReport> = unknown.map(report).collect();
        for report in reports {
            self.settle(from, &report, now, events);
        }
        if let Some(held) = self.held.get_mut(from).filter(|held| !held.any_open()) {
            held.finish();
        }
    }

    /// Forgets finished incarnations whose journals nobody may report any more. One that merely was silent is kept: it
    /// may go on, or its journal come back.
    pub fn forget_finished(&mut self, now: Timestamp) {
        self.held.retain(|_, held| !held.finished || now.duration_since(held.reported_at) <= JOURNAL_READ_FOR);
    }
}

/// Books the difference between what keys are reported to have used of a lease and what is known. It counts on the day
/// on which it is booked.
fn book_spent(spent: &mut BTreeMap<KeyId, Spent>, lease: &mut Lease, reported: &BTreeMap<KeyId, Used>, now: Timestamp) {
    for (key, used) in reported {
        let mut known = lease.used_by(key);
        let more = used.beyond(known);
        if !more.is_none() {
            known.put(more);
            lease.note_used_by(key, known);
            spent.entry(key.clone()).or_insert_with(|| Spent::none(now)).add(more, now);
        }
    }
    while spent.len() > SPENT_KEYS_MAX {
        let idle = spent.iter().min_by_key(|(_, spent)| spent.day).map(|(key, _)| key.clone());
        if let Some(key) = idle {
            spent.remove(&key);
        }
    }
}

/// Takes a forgotten lease's units out of what is free again. What is not there was sold twice, or its former holder has
/// not yet told again that it gave it back ([`Pool::cover_missing`]); the lease keeps only what it got, so that it never
/// returns what another holds. If the package is forgotten too, its units are taken when it comes back ([`Pool::add`]).
fn enter_again(packages: &mut [Package], part: &LeasePart) -> LeasePart {
    let Some(package) = packages.iter_mut().find(|package| package.id == part.package) else {
        return LeasePart::new(part.package.clone(), part.granted);
    };
    let mut granted = package.free.take_up_to(part.granted);
    let missing = part.granted.saturating_sub(granted);
    granted.put(package.forfeited.take_up_to(missing));
    package.leased.put(granted);
    LeasePart::new(part.package.clone(), granted)
}

/// A silent gateway reports again: its units are in its hands as before. Units that were booked to another meanwhile,
/// which only happens after the store forgot a lease, are no longer part of it.
fn heard_again(packages: &mut [Package], part: &mut LeasePart) {
    let Some(package) = packages.iter_mut().find(|package| package.id == part.package) else { return };
    let outstanding = part.outstanding();
    let back = package.suspense.take_up_to(outstanding);
    package.leased.put(back);
    part.granted = part.granted.saturating_sub(outstanding.saturating_sub(back));
}

/// Moves leased units into suspense.
fn set_aside(package: &mut Package, units: Units, product: &ProductId, events: &mut Vec<Event>) {
    let units = package.leased.take_up_to(units);
    if !units.is_zero() {
        package.suspense.put(units);
        let (product, id, suspense) = (product.clone(), package.id.clone(), package.suspense);
        events.push(Event::Suspended { product, package: id, suspense });
    }
}

/// Books the difference between what is reported and what is known. Use comes from the lease's own units; beyond them,
/// which only happens after the store forgot the lease, from what nobody holds; beyond that it is overrun, until units
/// come back that others hold. Not from suspense: those units were perhaps used as well.
fn book(
    package: &mut Package,
    known: &mut LeasePart,
    reported: &LeasePart,
    product: &ProductId,
    events: &mut Vec<Event>,
) {
    let mut missing = reported.used.saturating_sub(known.used);
    let own = known.outstanding();
    for (place, limit) in [(&mut package.leased, own), (&mut package.free, missing), (&mut package.forfeited, missing)]
    {
        let booked = place.take_up_to(missing.min(limit));
        missing = missing.saturating_sub(booked);
        package.settled.put(booked);
    }
    if !missing.is_zero() {
        package.overrun.put(missing);
        let (product, id, overrun) = (product.clone(), package.id.clone(), package.overrun);
        events.push(Event::Overrun { product, package: id, overrun, waited_since: None });
    }
    known.used = known.used.max(reported.used);

    let returned = reported.returned.saturating_sub(known.returned).min(known.outstanding());
    known.returned.put(returned);
    let back = package.leased.take_up_to(returned);
    package.put_back(back);
}

/// Lets go of what a closed lease still holds.
fn close(package: &mut Package, part: &LeasePart, lost: bool, product: &ProductId, events: &mut Vec<Event>) {
    if lost {
        return set_aside(package, part.outstanding(), product, events);
    }
    let rest = package.leased.take_up_to(part.outstanding());
    package.put_back(rest);
}

#[cfg(test)]
mod tests;
