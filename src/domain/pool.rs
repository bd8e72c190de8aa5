//! A pool: all that one account can draw on for one product. Which packages pay, in which order; what is left; why
//! nothing is left.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::amount::Units;
use super::budget::Spent;
use super::event::Event;
use super::id::{AccountId, Incarnation, KeyId, PackageId, ProductId};
use super::lease::{HeldLeases, LEASE_DURATION_MAX, LEASE_PARTS_MAX, Lease, LeasePart, Want, block_size};
use super::package::Package;

/// The document version that this program writes, and the newest that it reads.
pub const POOL_VERSION: u32 = 1;

/// How far back a store's loss is repaired: gateways keep their journals for at least as long.
pub const REPAIRED_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Keys whose use a document counts: three times as many as an account has. Beyond it, whoever was idle longest goes.
pub const SPENT_KEYS_MAX: usize = 64;

/// How the last package of a pool ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// Which package.
    pub package: PackageId,
    /// True when its validity ended before its units did.
    pub expired: bool,
    /// Its last second.
    pub valid_until: Timestamp,
}

/// Use of a package that the document does not know: the store forgot the purchase, and its command will be applied
/// again by whoever journalled it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unplaced {
    /// How much, over all leases.
    pub used: Units,
    /// When it was first reported.
    pub since: Timestamp,
}

/// A pool's document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// See [`POOL_VERSION`].
    pub version: u32,
    /// Whose pool.
    pub account: AccountId,
    /// For which product.
    pub product: ProductId,
    /// Those that can still be drawn on, return units, or count late use. The others are in the history.
    pub packages: Vec<Package>,
    /// What gateways hold, by incarnation.
    pub held: BTreeMap<Incarnation, HeldLeases>,
    /// The last package that left the document, to say why nothing is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_ended: Option<Ended>,
    /// Use that waits for its package, by package.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unplaced: BTreeMap<PackageId, Unplaced>,
    /// What calls of keys with a budget have used; at most [`SPENT_KEYS_MAX`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub spent: BTreeMap<KeyId, Spent>,
    /// The highest time seen: a clock that steps back does not bring an expired package back.
    pub time_high: Timestamp,
}

/// Why a pool has nothing to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shortage {
    /// The account never bought a package of this product.
    NoPackage,
    /// All units are used.
    UsedUp,
    /// Gateways hold what is left: it is set aside for calls that are under way, or used and not booked yet.
    SetAside,
    /// The last package's validity ended.
    Expired {
        /// Its last second.
        at: Timestamp,
    },
    /// A package is there, for later.
    NotYetValid {
        /// Its first moment.
        from: Timestamp,
    },
}

impl Pool {
    /// A pool with nothing in it.
    pub fn new(account: AccountId, product: ProductId) -> Self {
        Self {
            version: POOL_VERSION,
            account,
            product,
            packages: Vec::new(),
            held: BTreeMap::new(),
            last_ended: None,
            unplaced: BTreeMap::new(),
            spent: BTreeMap::new(),
            time_high: Timestamp::UNIX_EPOCH,
        }
    }

    /// Notes the time; returns the highest that this document has seen.
    pub fn observe(&mut self, now: Timestamp) -> Timestamp {
        self.time_high = self.time_high.max(now);
        self.time_high
    }

    /// What is left over all packages in force: they are drawn as one (stacking).
    pub fn remaining(&self, now: Timestamp) -> Units {
        let in_force = self.packages.iter().filter(|package| package.in_force_at(now));
        in_force.map(Package::remaining).sum()
    }

    /// Of units that are charged to open calls and not booked yet, by package: those that take nothing from what is left,
    /// since their package is no longer in force.
    pub fn past_end<'a>(&self, open: impl IntoIterator<Item = (&'a PackageId, Units)>, now: Timestamp) -> Units {
        let in_force =
            |id: &PackageId| self.packages.iter().any(|package| package.id == *id && package.in_force_at(now));
        open.into_iter().filter(|(id, _)| !in_force(id)).map(|(_, units)| units).sum()
    }

    /// The last second of the package that is drawn next.
    pub fn next_expiry(&self, now: Timestamp) -> Option<Timestamp> {
        let drawable = |package: &&Package| package.in_force_at(now) && !package.remaining().is_zero();
        self.packages.iter().filter(drawable).map(|package| package.valid_until).min()
    }

    /// Why nothing is free; meaningful after a grant that came back empty.
    pub fn shortage(&self, now: Timestamp) -> Shortage {
        let mut in_force = self.packages.iter().filter(|package| package.in_force_at(now)).peekable();
        if in_force.peek().is_some() {
            let held = in_force.any(|package| !package.leased.is_zero());
            return if held { Shortage::SetAside } else { Shortage::UsedUp };
        }
        let begins = self.packages.iter().filter(|package| now < package.valid_from);
        if let Some(from) = begins.map(|package| package.valid_from).min() {
            return Shortage::NotYetValid { from };
        }
        let expired = self.packages.iter().filter(|package| package.expired_at(now));
        match (expired.map(|package| package.valid_until).max(), &self.last_ended) {
            (Some(at), _) => Shortage::Expired { at },
            (None, Some(ended)) if ended.expired => Shortage::Expired { at: ended.valid_until },
            (None, Some(_)) => Shortage::UsedUp,
            (None, None) => Shortage::NoPackage,
        }
    }

    /// Puts a package into the pool. If the store forgot it and its units are in use, they are not sold again: use that
    /// was reported is booked, and what gateways still hold is leased.
    pub fn add(&mut self, mut package: Package, events: &mut Vec<Event>) {
        let open = self.held.values_mut().flat_map(|held| held.leases.values_mut()).filter(|lease| lease.in_hand());
        for lease in open {
            for part in lease.parts.iter_mut().filter(|part| part.package == package.id) {
                let held = part.outstanding();
                part.granted = part.granted.saturating_sub(held);
                lease.missing.insert(package.id.clone(), held);
            }
        }
        if let Some(Unplaced { used, .. }) = self.unplaced.remove(&package.id) {
            let booked = package.free.take_up_to(used);
            package.settled.put(booked);
            package.overrun = used.saturating_sub(booked);
            if !package.overrun.is_zero() {
                let (product, overrun) = (self.product.clone(), package.overrun);
                let package = package.id.clone();
                events.push(Event::Overrun { product, package, overrun, waited_since: None });
            }
        }
        self.packages.push(package);
        self.cover_missing();
    }

    /// Gives gateways the units that they hold and that were not there when their leases were entered again: they came
    /// back, and must not be sold to others.
    pub fn cover_missing(&mut self) {
        let leases = self.held.values_mut().flat_map(|held| held.leases.values_mut());
        for lease in leases.filter(|lease| lease.in_hand() && !lease.missing.is_empty()) {
            for part in &mut lease.parts {
                let package = self.packages.iter_mut().find(|package| package.id == part.package);
                let (Some(package), Some(missing)) = (package, lease.missing.get_mut(&part.package)) else { continue };
                let covered = package.free.take_up_to(*missing);
                *missing = missing.saturating_sub(covered);
                package.leased.put(covered);
                // Use beyond what was here is booked already: the units now here are for what is still held.
                let held = part.outstanding().saturating_add(covered);
                part.granted = part.used.saturating_add(part.returned).saturating_add(held);
            }
            lease.missing.retain(|_, missing| !missing.is_zero());
        }
    }

    /// Gives up waiting for packages whose purchase nobody has applied again: their use is told as overrun.
    pub fn give_up_unplaced(&mut self, now: Timestamp, events: &mut Vec<Event>) {
        let product = self.product.clone();
        self.unplaced.retain(|package, Unplaced { used, since }| {
            let waits = now.duration_since(*since) <= REPAIRED_FOR;
            if !waits {
                let (product, package, waited_since) = (product.clone(), package.clone(), Some(*since));
                events.push(Event::Overrun { product, package, overrun: *used, waited_since });
            }
            waits
        });
    }

    /// Grants a block to a gateway, drawn from the packages in order: earliest expiry, then earliest purchase.
    /// `None` when nothing is free. The caller has dealt with expiry before ([`Pool::sweep`]). A number that was granted
    /// already is the same lease: its reply was lost. A run whose journal is booked is over: it gets nothing.
    pub fn grant(&mut self, to: &Incarnation, number: u64, want: Want, now: Timestamp) -> Option<Lease> {
        if let Some(held) = self.held.get(to) {
            if held.finished {
                return None;
            }
            let known = held.leases.get(&number);
            if known.is_some() || number <= held.closed_through {
                return known.filter(|lease| !lease.closed).cloned();
            }
        }
        let in_force = |package: &Package| package.in_force_at(now);
        let free = self.packages.iter().filter(|p| in_force(p)).map(|p| p.free).sum();
        let others = self.held.iter().filter(|(who, held)| *who != to && held.in_hand().next().is_some());
        let mut missing = block_size(want, free, others.count().saturating_add(1));
        let mut drawn: Vec<&mut Package> = self.packages.iter_mut().filter(|p| in_force(p)).collect();
        drawn.sort_by_key(|package| (package.valid_until, package.bought_at, package.id.clone()));
        let mut deadline = now.checked_add(LEASE_DURATION_MAX).unwrap_or(Timestamp::MAX);
        let mut parts = Vec::new();
        for package in drawn {
            let granted = package.free.take_up_to(missing);
            if granted.is_zero() {
                continue;
            }
            missing = missing.saturating_sub(granted);
            package.leased.put(granted);
            deadline = deadline.min(package.expires_at());
            parts.push(LeasePart::new(package.id.clone(), granted));
            if parts.len() >= LEASE_PARTS_MAX {
                break; // the next lease goes on from there
            }
        }
        if parts.is_empty() {
            return None;
        }
        let lease = Lease::new(parts, deadline);
        let held = self.held.entry(to.clone()).or_insert_with(|| HeldLeases::new(now));
        held.leases.insert(number, lease.clone());
        Some(lease)
    }

    /// How long a lease that this document has just granted lasts. Counted from the document's time: a clock that stepped
    /// back must not make it longer.
    pub fn lasts(&self, lease: &Lease) -> SignedDuration {
        lease.deadline.duration_since(self.time_high).max(SignedDuration::ZERO)
    }

    /// The leases of others with units that could be asked for: whose each is, and its number.
    pub fn leases_of_others(&self, than: &Incarnation) -> BTreeSet<(Incarnation, u64)> {
        let others = self.held.iter().filter(|(who, _)| *who != than);
        others.flat_map(|(who, held)| held.in_hand().map(|number| (who.clone(), number))).collect()
    }

    /// Whether all that a run's journal knows is booked: it is over, and gets nothing any more.
    pub fn is_finished(&self, run: &Incarnation) -> bool {
        self.held.get(run).is_some_and(|held| held.finished)
    }

    /// Lets expired units go and moves packages that are at their end out of the document.
    pub fn sweep(&mut self, now: Timestamp, events: &mut Vec<Event>) -> Vec<Package> {
        for package in &mut self.packages {
            package.forfeit_if_expired(now);
        }
        let (mut ended, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.packages).into_iter().partition(|package| package.ended_at(now));
        self.packages = kept;
        ended.sort_by_key(|package| (package.valid_until, Reverse(package.bought_at)));
        for package in &ended {
            let expired = package.settled < package.total;
            events.push(self.end_event(package, expired));
            let valid_until = package.valid_until;
            self.last_ended = Some(Ended { package: package.id.clone(), expired, valid_until });
        }
        ended
    }

    fn end_event(&self, package: &Package, expired: bool) -> Event {
        let (product, forfeited) = (self.product.clone(), package.forfeited);
        let package = package.id.clone();
        if expired {
            Event::PackageExpired { product, package, forfeited }
        } else {
            Event::PackageUsedUp { product, package }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;
    use crate::domain::allocation::Tags;
    use crate::domain::billable::BillableStatuses;
    use crate::domain::id::{CommandId, GatewayId, OfferId, ProjectId};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn noon() -> Timestamp {
        at("2026-03-01T12:00:00Z")
    }

    /// Bought at a day of February, valid from March on.
    fn package(id: &str, units: u64, bought: i8, valid_until: &str) -> Package {
        Package {
            id: PackageId::new(id).unwrap(),
            offer: OfferId::new("small").unwrap(),
            command: CommandId::new("c-1").unwrap(),
            total: Units::new(units),
            free: Units::new(units),
            leased: Units::ZERO,
            settled: Units::ZERO,
            suspense: Units::ZERO,
            forfeited: Units::ZERO,
            overrun: Units::ZERO,
            bought_at: jiff::civil::date(2026, 2, bought).to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp(),
            valid_from: at("2026-03-01T00:00:00Z"),
            valid_until: at(valid_until),
            billable: BillableStatuses::default(),
            price: None,
            project: ProjectId::default(),
            tags: Tags::default(),
        }
    }

    fn pool(packages: Vec<Package>) -> Pool {
        Pool { packages, ..Pool::new(AccountId::new("a").unwrap(), ProductId::new("chat").unwrap()) }
    }

    fn gateway(number: u64) -> Incarnation {
        Incarnation { gateway: GatewayId::new("gw").unwrap(), number }
    }

    fn want(units: u64) -> Want {
        Want { now: Units::new(units), rate: Units::ZERO }
    }

    const APRIL: &str = "2026-04-30T23:59:59Z";
    const MAY: &str = "2026-05-31T23:59:59Z";

    fn check_order(packages: Vec<Package>, wanted: u64, expected: &[(&str, u64)]) {
        let lease = pool(packages).grant(&gateway(1), 1, want(wanted), noon());
        let parts = lease.map(|lease| lease.parts).unwrap_or_default();
        let parts: Vec<_> = parts.iter().map(|part| (part.package.as_str(), part.granted.get())).collect();
        assert_eq!(parts, expected, "{wanted} wanted");
    }

    #[test]
    fn packages_are_drawn_by_earliest_expiry_then_by_earliest_purchase() {
        let late = || package("late", 5, 1, MAY);
        let early = || package("early", 5, 9, APRIL);
        check_order(vec![late(), early()], 3, &[("early", 3)]);
        check_order(vec![late(), early()], 5, &[("early", 5)]);
        check_order(vec![late(), early()], 6, &[("early", 5), ("late", 1)]);
        check_order(vec![late(), early()], 11, &[("early", 5), ("late", 5)]);
        let newer = || package("newer", 5, 9, MAY);
        check_order(vec![newer(), late()], 6, &[("late", 5), ("newer", 1)]);
        // Bought together: by their ids, so that every gateway does the same.
        check_order(vec![package("b", 5, 1, MAY), package("a", 5, 1, MAY)], 6, &[("a", 5), ("b", 1)]);
    }

    #[test]
    fn one_lease_draws_on_a_dozen_packages_and_the_next_goes_on() {
        let packages = (0..30).map(|number| package(&format!("p-{number:02}"), 1, 1, MAY)).collect();
        let mut pool = pool(packages);
        for (number, granted) in [(1, 12), (2, 12), (3, 6)] {
            let lease = pool.grant(&gateway(1), number, want(30), noon()).unwrap();
            assert_eq!(lease.parts.len(), granted);
        }
        assert_eq!(pool.grant(&gateway(1), 4, want(30), noon()), None);
    }

    #[test]
    fn only_packages_in_force_are_drawn() {
        let starting = |valid_from: &str| Package { valid_from: at(valid_from), ..package("p", 5, 1, MAY) };
        check_order(vec![starting("2026-03-01T12:00:00Z")], 1, &[("p", 1)]);
        check_order(vec![starting("2026-03-01T12:00:00.000000001Z")], 1, &[]);
        check_order(vec![package("p", 5, 1, "2026-03-01T11:59:59.000000001Z")], 1, &[("p", 1)]);
        check_order(vec![package("p", 5, 1, "2026-03-01T11:59:59Z")], 1, &[]);
        check_order(vec![], 1, &[]);
    }

    #[test]
    fn open_calls_of_packages_that_are_over_take_nothing_from_what_is_left() {
        let check = |packages: Vec<Package>, open: &[(&str, u64)], expected: u64| {
            let open: Vec<_> = open.iter().map(|(id, units)| (PackageId::new(id).unwrap(), *units)).collect();
            let open = open.iter().map(|(id, units)| (id, Units::new(*units)));
            assert_eq!(pool(packages).past_end(open, noon()), Units::new(expected));
        };
        let over = || package("over", 5, 1, "2026-03-01T11:59:59Z");
        let last_second = || package("last", 5, 1, "2026-03-01T12:00:00Z");
        check(vec![package("p", 5, 1, MAY)], &[("p", 3)], 0);
        check(vec![over(), package("p", 5, 1, MAY)], &[("over", 2), ("p", 3)], 2);
        check(vec![last_second()], &[("last", 2)], 0);
        check(vec![package("p", 5, 1, MAY)], &[("gone", 4), ("p", 3)], 4);
        check(vec![], &[], 0);
    }

    #[test]
    fn a_lease_ends_after_thirty_seconds_or_with_its_first_package() {
        let check = |packages: Vec<Package>, expected: &str| {
            let lease = pool(packages).grant(&gateway(1), 1, want(6), noon()).unwrap();
            assert_eq!(lease.deadline, at(expected));
        };
        check(vec![package("p", 9, 1, "2026-03-01T12:00:29Z")], "2026-03-01T12:00:30Z");
        check(vec![package("p", 9, 1, "2026-03-01T12:00:30Z")], "2026-03-01T12:00:30Z");
        check(vec![package("p", 9, 1, "2026-03-01T12:00:28Z")], "2026-03-01T12:00:29Z");
        check(vec![package("p", 5, 1, "2026-03-01T12:00:09Z"), package("q", 5, 1, MAY)], "2026-03-01T12:00:10Z");
    }

    #[test]
    fn a_number_that_was_granted_is_the_same_lease() {
        let mut pool = pool(vec![package("p", 10, 1, MAY)]);
        let first = pool.grant(&gateway(1), 1, want(2), noon());
        assert_eq!(pool.grant(&gateway(1), 1, want(2), noon()), first);
        assert_eq!(pool.packages[0].leased, Units::new(2));
        // Another incarnation counts its own.
        assert_ne!(pool.grant(&gateway(2), 1, want(1), noon()), None);
        assert_eq!(pool.packages[0].leased, Units::new(3));
        let held = pool.held.get_mut(&gateway(1)).unwrap();
        held.leases.get_mut(&1).unwrap().closed = true;
        assert_eq!(pool.grant(&gateway(1), 1, want(2), noon()), None);
        pool.held.get_mut(&gateway(1)).unwrap().advance();
        assert_eq!(pool.grant(&gateway(1), 1, want(2), noon()), None);
        assert_ne!(pool.grant(&gateway(1), 2, want(2), noon()), None);
    }

    #[test]
    fn a_lease_lasts_no_longer_when_the_clock_has_stepped_back() {
        let check = |before: jiff::Span, expected: i64| {
            let mut pool = pool(vec![package("p", 10, 1, "2026-03-01T12:00:19Z")]);
            pool.observe(noon());
            let now = pool.observe(noon().checked_sub(before).unwrap());
            let lease = pool.grant(&gateway(1), 1, want(1), now).unwrap();
            assert_eq!(pool.lasts(&lease), SignedDuration::from_secs(expected), "{before}");
        };
        check(0.seconds(), 20);
        check(1.hour(), 20);
        check(-5.seconds(), 15);
    }

    #[test]
    fn a_run_that_is_over_gets_nothing() {
        let mut pool = pool(vec![package("p", 10, 1, MAY)]);
        assert_ne!(pool.grant(&gateway(1), 1, want(2), noon()), None);
        assert!(!pool.is_finished(&gateway(1)));
        pool.held.get_mut(&gateway(1)).unwrap().finish();
        assert!(pool.is_finished(&gateway(1)));
        assert_eq!(pool.grant(&gateway(1), 2, want(2), noon()), None);
        assert_ne!(pool.grant(&gateway(2), 1, want(2), noon()), None);
    }

    #[test]
    fn only_those_who_hold_something_and_are_heard_of_are_asked_for_it() {
        let mut pool = pool(vec![package("p", 10, 1, MAY)]);
        for holder in 1..=4 {
            pool.grant(&gateway(holder), 1, want(1), noon());
        }
        fn lease(pool: &mut Pool, holder: u64) -> &mut Lease {
            pool.held.get_mut(&gateway(holder)).unwrap().leases.get_mut(&1).unwrap()
        }
        let asked = |pool: &Pool, by| pool.leases_of_others(&gateway(by)).into_iter().collect::<Vec<_>>();
        assert_eq!(asked(&pool, 1), [(gateway(2), 1), (gateway(3), 1), (gateway(4), 1)]);
        lease(&mut pool, 2).suspended = true;
        lease(&mut pool, 3).parts[0].used = Units::ONE;
        assert_eq!(asked(&pool, 1), [(gateway(4), 1)]);
        lease(&mut pool, 4).closed = true;
        assert_eq!(asked(&pool, 2), [(gateway(1), 1)]);
    }

    #[test]
    fn packages_are_stacked() {
        let used = Package { free: Units::new(1), settled: Units::new(4), ..package("used", 5, 1, APRIL) };
        let later = Package { valid_from: at("2026-04-01T00:00:00Z"), ..package("later", 50, 1, APRIL) };
        let held = Package { free: Units::ZERO, leased: Units::new(20), ..package("held", 20, 1, MAY) };
        let pool = pool(vec![used, later, held]);
        assert_eq!(pool.remaining(noon()), Units::new(21));
        assert_eq!(pool.next_expiry(noon()), Some(at(APRIL)));
        assert_eq!(pool.remaining(at("2026-04-01T00:00:00Z")), Units::new(71));
        assert_eq!(pool.remaining(at("2026-05-01T00:00:00Z")), Units::new(20));
        assert_eq!(pool.next_expiry(at("2026-05-01T00:00:00Z")), Some(at(MAY)));
        assert_eq!(pool.next_expiry(at("2026-06-01T00:00:00Z")), None);
    }

    fn check_shortage(packages: Vec<Package>, last_ended: Option<bool>, expected: Shortage) {
        let ended = |expired| Ended { package: PackageId::new("gone").unwrap(), expired, valid_until: at(APRIL) };
        let pool = Pool { last_ended: last_ended.map(ended), ..pool(packages) };
        assert_eq!(pool.shortage(noon()), expected, "{last_ended:?}");
    }

    #[test]
    fn a_shortage_says_why() {
        let from = noon().checked_add(1.nanosecond()).unwrap();
        let begins = |valid_from| Package { valid_from, ..package("later", 5, 1, MAY) };
        let over = || package("over", 5, 1, "2026-03-01T11:59:59Z");
        let older = || package("older", 5, 1, "2026-02-01T11:59:59Z");
        let in_force = || package("now", 5, 1, "2026-03-01T12:00:00Z");
        let expired = |text| Shortage::Expired { at: at(text) };
        check_shortage(vec![], None, Shortage::NoPackage);
        check_shortage(vec![], Some(false), Shortage::UsedUp);
        check_shortage(vec![], Some(true), expired(APRIL));
        check_shortage(vec![in_force(), begins(from), over()], Some(true), Shortage::UsedUp);
        check_shortage(vec![begins(noon())], None, Shortage::UsedUp);
        let held = |package| Package { leased: Units::new(1), ..package };
        check_shortage(vec![in_force(), held(begins(noon()))], None, Shortage::SetAside);
        check_shortage(vec![in_force(), held(begins(from)), held(over())], None, Shortage::UsedUp);
        check_shortage(vec![begins(from), over()], Some(true), Shortage::NotYetValid { from });
        check_shortage(vec![older(), over()], Some(false), expired("2026-03-01T11:59:59Z"));
    }

    fn check_sweep(package: Package, now: &str, forfeited: u64, ended: bool) {
        let (mut pool, mut events) = (pool(vec![package]), Vec::new());
        let gone = pool.sweep(at(now), &mut events);
        let packages: Vec<_> = pool.packages.iter().chain(&gone).collect();
        assert_eq!((packages[0].forfeited.get(), gone.len()), (forfeited, usize::from(ended)), "{now}");
        assert!(packages[0].balanced());
        assert_eq!((events.len(), pool.last_ended.is_some()), (usize::from(ended), ended));
    }

    #[test]
    fn what_is_free_is_forfeited_after_the_last_second() {
        let fresh = || package("p", 5, 1, "2026-03-01T23:59:59Z");
        check_sweep(fresh(), "2026-03-01T23:59:59.999999999Z", 0, false);
        check_sweep(fresh(), "2026-03-02T00:00:00Z", 5, true);
        let leased = || Package { free: Units::new(4), leased: Units::ONE, ..fresh() };
        check_sweep(leased(), "2026-03-02T00:00:00Z", 4, false);
        let suspended = || Package { free: Units::new(4), suspense: Units::ONE, ..fresh() };
        check_sweep(suspended(), "2026-03-02T00:00:00Z", 4, false);
    }

    #[test]
    fn a_package_leaves_when_its_last_unit_is_used() {
        let places = |free, settled, leased| {
            let (free, settled, leased) = (Units::new(free), Units::new(settled), Units::new(leased));
            Package { free, settled, leased, ..package("p", 5, 1, MAY) }
        };
        check_sweep(places(1, 4, 0), "2026-03-02T00:00:00Z", 0, false);
        check_sweep(places(0, 4, 1), "2026-03-02T00:00:00Z", 0, false);
        check_sweep(places(0, 5, 0), "2026-03-02T00:00:00Z", 0, true);
    }

    #[test]
    fn the_end_of_a_package_says_how_it_ended() {
        let used_up = Package { free: Units::ZERO, settled: Units::new(5), ..package("used", 5, 1, APRIL) };
        let expired = Package { free: Units::new(3), settled: Units::new(2), ..package("old", 5, 2, APRIL) };
        let (mut pool, mut events) = (pool(vec![expired, used_up]), Vec::new());
        pool.sweep(at("2026-05-01T00:00:00Z"), &mut events);
        let (product, id) = (pool.product.clone(), |text| PackageId::new(text).unwrap());
        let forfeited = Units::new(3);
        assert_eq!(
            events,
            [
                Event::PackageExpired { product: product.clone(), package: id("old"), forfeited },
                Event::PackageUsedUp { product, package: id("used") }
            ]
        );
    }
}
