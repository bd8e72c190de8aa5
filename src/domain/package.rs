//! A bought quantity with a validity window. Every unit of it stands in exactly one place:
//! `total = free + leased + settled + suspense + forfeited`.

use std::num::NonZeroU64;

use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

use super::allocation::Tags;
use super::amount::Units;
use super::billable::BillableStatuses;
use super::id::{CommandId, OfferId, PackageId, ProjectId};
use super::money::{Money, Price};

/// A package as the pool's document keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Named by leases and usage records.
    pub id: PackageId,
    /// What was bought.
    pub offer: OfferId,
    /// The command that brought it.
    pub command: CommandId,
    /// Units bought.
    pub total: Units,
    /// For sale.
    pub free: Units,
    /// In the hands of gateways, not yet reported used.
    pub leased: Units,
    /// Used and counted.
    pub settled: Units,
    /// Leased to a gateway that went silent: used or not, its journal will tell. Not for sale.
    pub suspense: Units,
    /// Unused when the validity ended.
    pub forfeited: Units,
    /// Used beyond `total`: only after a double fault, never sold on purpose.
    pub overrun: Units,
    /// When it was bought.
    pub bought_at: Timestamp,
    /// First moment of use.
    pub valid_from: Timestamp,
    /// Last second of use.
    pub valid_until: Timestamp,
    /// Which answers count: the offer's rules at the time of purchase.
    pub billable: BillableStatuses,
    /// What it cost: the offer's price at the time of purchase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// To what its owner allots it.
    #[serde(default, skip_serializing_if = "ProjectId::is_default")]
    pub project: ProjectId,
    /// Its owner's tags.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

impl Package {
    /// Whether it can be drawn on at a moment. The last second counts to its end.
    pub fn in_force_at(&self, now: Timestamp) -> bool {
        self.valid_from <= now && !self.expired_at(now)
    }

    /// Whether its last second has passed.
    pub fn expired_at(&self, now: Timestamp) -> bool {
        self.expires_at() <= now
    }

    /// The first moment after its last second.
    pub fn expires_at(&self) -> Timestamp {
        // One second after a calendar moment; at the calendar's own end it stays there.
        self.valid_until.checked_add(1.second()).unwrap_or(Timestamp::MAX)
    }

    /// What its owner still has of it: everything that is neither used nor lost.
    pub fn remaining(&self) -> Units {
        self.total.saturating_sub(self.settled).saturating_sub(self.forfeited)
    }

    /// Whether nothing of it can be sold, returned or counted any more.
    pub fn ended_at(&self, now: Timestamp) -> bool {
        let quiet = self.leased.is_zero() && self.suspense.is_zero();
        quiet && self.free.is_zero() && (self.expired_at(now) || self.settled >= self.total)
    }

    /// What one unit is worth: its share of the price, rounded down, so that all units together are worth no more than was
    /// paid; nothing without a price.
    pub fn unit_worth(&self) -> Money {
        let quantity = NonZeroU64::new(self.total.get());
        self.price.zip(quantity).map_or(Money::ZERO, |(price, quantity)| price.amount.share(quantity))
    }

    /// Takes back units that were not used. They cover what was used beyond the total first; only the rest is for sale.
    pub fn put_back(&mut self, mut units: Units) {
        let covered = units.take_up_to(self.overrun);
        self.overrun = self.overrun.saturating_sub(covered);
        self.settled.put(covered);
        self.free.put(units);
    }

    /// Moves what is free out of reach once the validity has ended.
    pub fn forfeit_if_expired(&mut self, now: Timestamp) {
        if self.expired_at(now) {
            let free = std::mem::take(&mut self.free);
            self.forfeited.put(free);
        }
    }

    /// Whether its units add up.
    pub fn balanced(&self) -> bool {
        let places = [self.free, self.leased, self.settled, self.suspense, self.forfeited];
        places.into_iter().sum::<Units>() == self.total
    }
}
