//! The reference model: what was bought and what was really charged, counted by hand and without any of the ledger's
//! rules. Books that do not agree with it are wrong.

use jiff::Timestamp;

use super::store::{Disk, TIME_OFF_MAX, millis};
use crate::domain::id::{KeyId, PackageId};
use crate::domain::pool::Pool;

/// One package.
#[derive(Debug)]
pub(super) struct Sold {
    pub(super) id: PackageId,
    pub(super) product: usize,
    pub(super) total: u64,
    /// Whether its buyer was told that it is there.
    pub(super) acknowledged: bool,
    /// Its last second, as its buyer was told.
    pub(super) valid_until: Option<Timestamp>,
    /// Units that are used, or set aside for an open call.
    pub(super) taken: u64,
    /// Units of charged heads that a client received, and that were not taken back.
    pub(super) received: u64,
    /// Units of charges that were written down, and that were not taken back.
    pub(super) written: u64,
    /// Of those, units whose record was lost with its disk.
    pub(super) lost: u64,
    /// Units in suspense that an operator declared used or put back for sale.
    pub(super) declared_used: u64,
    pub(super) put_back: u64,
}

/// A key, and what its owner was told of it.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) id: KeyId,
    pub(super) added: bool,
    /// Somebody has asked to revoke it, and was perhaps told that it is gone.
    pub(super) revoking: bool,
    pub(super) revoked: bool,
}

/// Everything that was bought, and what was really used of it.
#[derive(Debug, Default)]
pub(super) struct Truth {
    pub(super) packages: Vec<Sold>,
    pub(super) keys: Vec<Key>,
    /// Units of leases that the store granted and lost in a second fault: as much may be sold twice.
    pub(super) at_risk: u64,
    /// A journal was lost, or its end: units may stand in suspense for ever.
    pub(super) journal_lost: bool,
    /// Commands were lost with a disk.
    pub(super) commands_lost: bool,
    /// The history has only faults that come alone.
    pub(super) exact: bool,
}

impl Truth {
    /// A package by its id.
    pub(super) fn of(&mut self, id: &PackageId) -> Result<&mut Sold, String> {
        self.packages.iter_mut().find(|sold| sold.id == *id).ok_or_else(|| format!("{id} was never bought"))
    }

    /// Sets a unit aside for a call.
    pub(super) fn take(&mut self, id: &PackageId) -> Result<(), String> {
        let (exact, at_risk) = (self.exact, self.at_risk);
        let sold = self.of(id)?;
        sold.taken += 1;
        let allowed = sold.total + sold.put_back + if exact { 0 } else { at_risk };
        if sold.taken > allowed {
            return Err(format!("oversold: {id} has {} units, {} are used or set aside", sold.total, sold.taken));
        }
        Ok(())
    }

    /// Checks a pool's document as it was just written. `open`: nobody is still to report what a store forgot.
    pub(super) fn check_pool(&mut self, pool: &Pool, time_high: i64, open: bool) -> Result<(), String> {
        for package in &pool.packages {
            let id = &package.id;
            if !package.balanced() {
                return Err(format!("wrong: {id} does not add up: {package:?}"));
            }
            let in_hand = pool.held.values().flat_map(|held| held.leases.values()).filter(|lease| lease.in_hand());
            let parts = in_hand.flat_map(|lease| &lease.parts).filter(|part| part.package == *id);
            let claims: u64 = parts.map(|part| part.outstanding().get()).sum();
            if package.leased.get() != claims {
                return Err(format!("wrong: {id} has {} units leased, its leases claim {claims}", package.leased));
            }
            if !package.forfeited.is_zero() && millis(package.expires_at()) > time_high + TIME_OFF_MAX {
                return Err(format!("lost: {id} lost {} units before its end", package.forfeited));
            }
            let exact = self.exact && open;
            let sold = self.of(id)?;
            let booked = package.settled.get() + package.overrun.get();
            if booked > sold.written + sold.declared_used {
                return Err(format!("doubled: {booked} units of {id} are booked, {} were charged", sold.written));
            }
            if exact && !package.overrun.is_zero() && sold.put_back == 0 {
                return Err(format!("oversold: {id} has {} units of overrun", package.overrun));
            }
        }
        Ok(())
    }

    /// Checks the books when nothing is open any more and everyone has reported.
    pub(super) fn check_rest(&self, disk: &Disk) -> Result<(), String> {
        for sold in &self.packages {
            let id = &sold.id;
            let copies: Vec<_> = disk.packages().filter(|package| package.id == *id).collect();
            let [package] = copies.as_slice() else {
                let gone = sold.acknowledged || sold.written > 0;
                if copies.len() > 1 || (gone && (self.exact || !self.commands_lost)) {
                    return Err(format!("lost: {id} was bought and is in the books {} times", copies.len()));
                }
                continue;
            };
            let stray = disk.stray.get(id).copied().unwrap_or(0) + disk.unplaced(id);
            let booked = package.settled.get() + package.overrun.get() + stray;
            let unproven = package.suspense.get() + package.leased.get() + sold.put_back;
            let unproven = unproven + if self.exact { 0 } else { sold.lost };
            if booked + sold.lost < sold.received || booked + unproven < sold.received {
                return Err(format!(
                    "lost: {} units of {id} were charged, {booked} are booked, {unproven} in suspense",
                    sold.received
                ));
            }
            if booked > sold.written + sold.declared_used {
                return Err(format!("doubled: {booked} units of {id} are booked, {} were charged", sold.written));
            }
            let rests = package.leased.is_zero() && package.suspense.is_zero();
            if !(rests || self.journal_lost) {
                return Err(format!(
                    "stuck: {} units of {id} leased, {} in suspense",
                    package.leased, package.suspense
                ));
            }
            let remains = !package.free.is_zero() || !package.forfeited.is_zero();
            if !package.overrun.is_zero() && remains {
                return Err(format!("wrong: {id} has overrun and units left: {package:?}"));
            }
            if sold.acknowledged && sold.valid_until.is_some_and(|told| told != package.valid_until) {
                return Err(format!("wrong: {id} ends at {}, its buyer was told otherwise", package.valid_until));
            }
        }
        self.check_keys(disk)
    }

    fn check_keys(&self, disk: &Disk) -> Result<(), String> {
        if !self.exact {
            return Ok(()); // what was asked for may be lost, or told again by one who was away for long
        }
        for key in &self.keys {
            let there = disk.head.value.keys.iter().any(|there| there.id == key.id);
            if there && key.revoked {
                return Err(format!("lost: key {} was revoked and is back", key.id));
            }
            if !there && key.added && !key.revoking {
                return Err(format!("lost: key {} was added and is gone", key.id));
            }
        }
        Ok(())
    }
}
