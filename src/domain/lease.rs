//! Leases: blocks of quota that a gateway may hand out without asking again.
//!
//! A lease is a grow-only counter: its gateway reports the units used *so far*, so that a report that is lost,
//! repeated or overtaken does no harm (see `settle`).

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::amount::Units;
use super::budget::Used;
use super::id::{KeyId, PackageId};
use super::money::Money;

/// The longest time for which a gateway may admit calls on one lease.
pub const LEASE_DURATION_MAX: SignedDuration = SignedDuration::from_secs(30);
/// Above this much free quota, no block is larger than the share below.
const PLENTY: u64 = 1_000;
/// One block takes at most a sixteenth of plenty: with more than four seconds of supply free, blocks last a quarter of a
/// second or longer, so that a pool costs the store at most four commits a second.
const PLENTY_SHARE: u64 = 16;
/// Each holder may take a quarter of its equal share: blocks shrink towards 1 as the pool runs dry.
const HOLDER_SHARE: u64 = 4;

/// Packages that one lease draws on, at most: their terms stand in the journal's record of it.
pub const LEASE_PARTS_MAX: usize = 12;

/// One package's share of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeasePart {
    /// Whose units these are.
    pub package: PackageId,
    /// How many were granted.
    pub granted: Units,
    /// How many of them are known to be used; only grows.
    pub used: Units,
    /// How many were given back unused; only grows.
    pub returned: Units,
}

impl LeasePart {
    /// A part of which nothing is used yet.
    pub fn new(package: PackageId, granted: Units) -> Self {
        Self { package, granted, used: Units::ZERO, returned: Units::ZERO }
    }

    /// What its gateway still holds: admissible, or set aside for open calls.
    pub fn outstanding(&self) -> Units {
        self.granted.saturating_sub(self.used).saturating_sub(self.returned)
    }
}

/// A block of quota in the hands of one gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// In the order in which they are drawn down.
    pub parts: Vec<LeasePart>,
    /// Ends admission, not calls: units of open calls stay leased until they are reported.
    pub deadline: Timestamp,
    /// Closed, but a lease with a smaller number is still open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
    /// Its gateway is silent: what is outstanding stands in suspense, not in `leased`, until it reports again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspended: bool,
    /// The store forgot this lease and did not have all of its units when it was entered again: so many its gateway
    /// holds of a package beyond what `parts` say. They are set aside as soon as they come back.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: BTreeMap<PackageId, Units>,
    /// What calls of keys with a budget have used of it; only grows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub spent: BTreeMap<KeyId, Units>,
    /// What that is worth, as far as it is worth anything; only grows, too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub worth: BTreeMap<KeyId, Money>,
}

impl Lease {
    /// A lease that was just granted.
    pub fn new(parts: Vec<LeasePart>, deadline: Timestamp) -> Self {
        let (missing, spent, worth) = Default::default();
        Self { parts, deadline, closed: false, suspended: false, missing, spent, worth }
    }

    /// What a key's calls have used of it.
    pub fn used_by(&self, key: &KeyId) -> Used {
        let units = self.spent.get(key).copied().unwrap_or_default();
        Used { units, worth: self.worth.get(key).copied().unwrap_or_default() }
    }

    /// Notes what they have used by now.
    pub fn note_used_by(&mut self, key: &KeyId, used: Used) {
        self.spent.insert(key.clone(), used.units);
        if !used.worth.is_zero() {
            self.worth.insert(key.clone(), used.worth);
        }
    }

    /// Whether its units are in the hands of a gateway that is heard of.
    pub fn in_hand(&self) -> bool {
        !self.closed && !self.suspended
    }
}

/// What one incarnation of a gateway holds of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldLeases {
    /// All leases up to this number are closed. Numbers begin at 1.
    pub closed_through: u64,
    /// The others that the store has seen, by number.
    pub leases: BTreeMap<u64, Lease>,
    /// When this incarnation last reported anything.
    pub reported_at: Timestamp,
    /// The incarnation has ended and all that its journal knows is booked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finished: bool,
}

impl HeldLeases {
    /// Nothing held, nothing closed yet.
    pub fn new(now: Timestamp) -> Self {
        Self { closed_through: 0, leases: BTreeMap::new(), reported_at: now, finished: false }
    }

    /// Drops closed leases from the front as far as the numbers have no gap.
    pub fn advance(&mut self) {
        while let Some(entry) = self.leases.first_entry() {
            let next = self.closed_through.saturating_add(1); // 2^64 leases never happen
            if *entry.key() != next || !entry.get().closed {
                break;
            }
            self.closed_through = next;
            entry.remove();
        }
    }

    /// Notes that the incarnation has ended with all of its leases closed. Numbers in between that the document does
    /// not know were never granted.
    pub fn finish(&mut self) {
        let highest = self.leases.last_key_value().map_or(0, |(number, _)| *number);
        self.closed_through = self.closed_through.max(highest);
        self.leases.clear();
        self.finished = true;
    }

    /// Whether any lease is still open.
    pub fn any_open(&self) -> bool {
        self.leases.values().any(|lease| !lease.closed)
    }

    /// The numbers of leases that hold units and are heard of: whoever has them would answer if asked for them.
    pub fn in_hand(&self) -> impl Iterator<Item = u64> {
        let holds = |part: &LeasePart| !part.outstanding().is_zero();
        let in_hand = self.leases.iter().filter(move |(_, lease)| lease.in_hand() && lease.parts.iter().any(holds));
        in_hand.map(|(number, _)| *number)
    }
}

/// How much a gateway asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Units that waiting calls need now.
    pub now: Units,
    /// Units drawn in the last second.
    pub rate: Units,
}

/// How large a block one gateway may take: what a second of its traffic needs, at most a quarter of its equal share of
/// what is free; at least what waits now, while there is that much; of plenty, never more than a sixteenth.
pub fn block_size(want: Want, free: Units, holders: usize) -> Units {
    let free = free.get();
    let holders = u64::try_from(holders).unwrap_or(u64::MAX).max(1);
    let share = (free / HOLDER_SHARE / holders).max(1);
    let asked = want.now.max(want.rate).get().clamp(1, share);
    let size = asked.max(want.now.get()).min(free);
    Units::new(if free > PLENTY { size.min(free / PLENTY_SHARE) } else { size })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(now: u64, rate: u64, free: u64, holders: usize, expected: u64) {
        let want = Want { now: Units::new(now), rate: Units::new(rate) };
        let size = block_size(want, Units::new(free), holders);
        assert_eq!(size, Units::new(expected), "want {now} rate {rate} free {free} holders {holders}");
    }

    #[test]
    fn a_block_covers_a_second_of_traffic_but_only_a_quarter_of_its_share() {
        check(1, 10, 1_000, 1, 10);
        check(1, 250, 1_000, 1, 250);
        check(1, 251, 1_000, 1, 250);
        check(1, 250, 1_000, 2, 125);
        check(1, 0, 1_000, 1, 1);
    }

    #[test]
    fn what_waits_now_is_served_while_there_is_enough() {
        check(256, 0, 1_000, 1, 256);
        check(256, 0, 100, 1, 100);
        check(3, 0, 3, 8, 3);
    }

    #[test]
    fn blocks_shrink_to_one_near_exhaustion() {
        check(1, 1_000, 8, 1, 2);
        check(1, 1_000, 7, 1, 1);
        check(1, 1_000, 1, 1, 1);
        check(1, 1_000, 0, 1, 0);
    }

    #[test]
    fn of_plenty_at_most_a_sixteenth() {
        check(1, 5_000, 1_000, 1, 250);
        check(1, 5_000, 1_001, 1, 62);
        check(500, 0, 1_001, 1, 62);
        check(1, 5_000, 1_000_000, 1, 5_000);
        // Four seconds of supply: a block is a quarter of a second's.
        check(1, 5_000, 20_000, 1, 1_250);
    }

    #[test]
    fn closed_leases_leave_from_the_front_only() {
        let lease = |closed| Lease { closed, ..Lease::new(Vec::new(), Timestamp::UNIX_EPOCH) };
        let leases = [(2, lease(true)), (3, lease(false)), (4, lease(true))].into();
        let mut held = HeldLeases { leases, ..HeldLeases::new(Timestamp::UNIX_EPOCH) };
        held.advance();
        assert_eq!(held.closed_through, 0);
        held.leases.insert(1, lease(true));
        held.advance();
        assert_eq!((held.closed_through, held.leases.len()), (2, 2));
        held.leases.insert(3, lease(true));
        held.advance();
        assert_eq!((held.closed_through, held.leases.len()), (4, 0));
    }
}
