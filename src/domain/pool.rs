//! A pool: all that one account can draw on for one product. Which packages pay, in which order; what is left; why
//! nothing is left.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::amount::Units;
use super::event::Event;
use super::id::{AccountId, Incarnation, PackageId, ProductId};
use super::lease::{HeldLeases, LEASE_DURATION_MAX, Lease, LeasePart, Want, block_size};
use super::package::Package;

/// The document version that this program writes, and the newest that it reads.
pub const POOL_VERSION: u32 = 1;

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
    /// The highest time seen: a clock that steps back does not bring an expired package back.
    pub time_high: Timestamp,
}

/// Why a pool has nothing to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shortage {
    /// The account never bought a package of this product.
    NoPackage,
    /// All units are used, or set aside for calls that are under way.
    UsedUp,
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

    /// The last second of the package that is drawn next.
    pub fn next_expiry(&self, now: Timestamp) -> Option<Timestamp> {
        let drawable = |package: &&Package| package.in_force_at(now) && !package.remaining().is_zero();
        self.packages.iter().filter(drawable).map(|package| package.valid_until).min()
    }

    /// Why nothing is free; meaningful after a grant that came back empty.
    pub fn shortage(&self, now: Timestamp) -> Shortage {
        if self.packages.iter().any(|package| package.in_force_at(now)) {
            return Shortage::UsedUp;
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

    /// Grants a block to a gateway, drawn from the packages in order: earliest expiry, then earliest purchase.
    /// `None` when nothing is free. The caller has dealt with expiry before ([`Pool::sweep`]).
    pub fn grant(&mut self, to: &Incarnation, number: u64, want: Want, now: Timestamp) -> Option<Lease> {
        let in_force = |package: &Package| package.in_force_at(now);
        let free = self.packages.iter().filter(|p| in_force(p)).map(|p| p.free).sum();
        let others = self.held.iter().filter(|(who, held)| *who != to && held.any_open());
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
        }
        if parts.is_empty() {
            return None;
        }
        let lease = Lease { parts, deadline, closed: false };
        let held = self.held.entry(to.clone()).or_insert_with(|| HeldLeases::new(now));
        held.leases.insert(number, lease.clone());
        Some(lease)
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
