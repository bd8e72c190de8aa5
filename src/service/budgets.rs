//! Keys' budgets at work: what the books say that a key has used, and what this gateway has let in beyond it. The books
//! are the pools' documents: each exchange reports use by key, and brings what others have used.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use dashmap::DashMap;
use jiff::Timestamp;

use super::sync::{Mutex, MutexGuard};
use crate::domain::amount::Units;
use crate::domain::budget::{Budget, OverBudget, Spent, Used};
use crate::domain::id::{AccountId, KeyId, ProductId};
use crate::domain::money::Money;
use crate::domain::pool::Pool;

/// Keys that are remembered; above it, those that nobody uses are forgotten: the books know them.
const KEYS_MAX: usize = 100_000;

/// A pool's part of a key's use.
#[derive(Debug, Default)]
struct OfPool {
    /// What the books said last.
    booked: Option<Spent>,
    /// What this run's calls have used.
    used: Used,
    /// What of that is in `booked`, of leases that are closed.
    closed: Used,
    /// The same of leases that are open.
    open: Used,
}

/// What was known when all of the account's pools were last looked at.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// What the books said.
    booked: Spent,
    /// What of this run's use was in that.
    acknowledged: Used,
}

#[derive(Debug, Default)]
struct State {
    pools: BTreeMap<ProductId, OfPool>,
    /// The share of what is left is of what was left then: what this gateway books itself does not renew it, or each of
    /// several would go on as long as it sees its own pools alone.
    looked: Option<Look>,
    /// Whether a share is nearly used: the next exchange should look.
    wants_look: bool,
    /// For calls that are under way: a unit each, and what these are worth.
    held: Used,
}

impl State {
    /// What the books say.
    fn booked(&self, now: Timestamp) -> Spent {
        let booked = self.pools.values().filter_map(|pool| pool.booked).map(|spent| spent.as_of(now));
        booked.reduce(Spent::and).unwrap_or_else(|| Spent::none(now))
    }

    /// What was used and is not in the books yet.
    fn unbooked(&self) -> Used {
        self.sum(OfPool::unbooked)
    }

    /// What this run has used since the books were last looked at whole.
    fn since_look(&self) -> Used {
        let known = self.looked.map_or(Used::default(), |look| look.acknowledged);
        self.sum(|pool| pool.used).beyond(known)
    }

    fn sum(&self, of: impl Fn(&OfPool) -> Used) -> Used {
        self.pools.values().map(of).fold(Used::default(), Used::and)
    }

    fn look(&mut self, now: Timestamp) -> Look {
        let acknowledged = self.sum(|pool| pool.closed.and(pool.open));
        let look = Look { booked: self.booked(now), acknowledged };
        (self.looked, self.wants_look) = (Some(look), false);
        look
    }

    /// Checks what the books say and what is open beyond that; then, with several gateways, the share of what was left
    /// at the last look. Returns whether the next exchange should look again.
    fn check(
        &mut self,
        (gateways, now): (u32, Timestamp),
        fits: impl Fn(Spent, Used, u32) -> Result<(), OverBudget>,
    ) -> Result<bool, OverBudget> {
        fits(self.booked(now), self.held.and(self.unbooked()), 1)?;
        if gateways <= 1 {
            return Ok(false);
        }
        let look = self.looked.unwrap_or_else(|| self.look(now));
        let open = self.held.and(self.since_look());
        let shared = fits(look.booked, open, gateways);
        self.wants_look |= shared.is_err() || fits(look.booked, open.and(open), gateways).is_err();
        shared.map(|()| self.wants_look).map_err(|_| OverBudget::Share)
    }

    fn of_pool(&mut self, product: &ProductId) -> &mut OfPool {
        self.pools.entry(product.clone()).or_default()
    }
}

/// What a key has used of its budget.
#[derive(Debug)]
pub struct KeyUse {
    /// Which key.
    pub key: KeyId,
    state: Mutex<State>,
}

impl KeyUse {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner) // plain figures: valid between any two operations
    }

    /// Takes in a pool's document that was read. While an exchange with use of this run may be under way, it is left:
    /// how much of that use it has is known only from the exchange's own document.
    pub fn see(&self, pool: &Pool) {
        if let Some(spent) = pool.spent.get(&self.key) {
            let mut state = self.lock();
            let of_pool = state.of_pool(&pool.product);
            if of_pool.unbooked().is_none() {
                of_pool.see(*spent);
            }
        }
    }

    /// Takes in a pool's document after an exchange. What it has of this run's use: of leases that were `closed` with this
    /// exchange, so much more, and of those that are `open`, so much in all. `looked`: when, if the exchange has just
    /// looked at all of the account's pools.
    pub fn acknowledge(&self, pool: &Pool, (closed, open): (Used, Used), looked: Option<Timestamp>) {
        let mut state = self.lock();
        let of_pool = state.of_pool(&pool.product);
        if let Some(spent) = pool.spent.get(&self.key) {
            of_pool.see(*spent);
        }
        of_pool.closed.put(closed);
        of_pool.open = open;
        if let Some(now) = looked {
            state.look(now);
        }
    }

    /// Whether the next exchange should look at all of the account's pools, as this gateway's share is nearly used.
    pub fn wants_look(&self) -> bool {
        self.lock().wants_look
    }

    /// Sets one unit aside, if the budget has one. The second value says that the store should hear soon of what was used.
    pub fn hold(
        self: &Arc<Self>,
        budget: &Budget,
        gateways: u32,
        now: Timestamp,
    ) -> Result<(KeyHold, bool), OverBudget> {
        let mut state = self.lock();
        let fits = |spent, open: Used, gateways| budget.check(spent, open.units.get(), gateways, now);
        let near = state.check((gateways, now), fits)?;
        state.held.units.put(Units::new(1));
        Ok((KeyHold { of: Arc::clone(self), worth: Money::ZERO, ended: false }, near))
    }
}

impl OfPool {
    /// What was used and is not in the books yet.
    fn unbooked(&self) -> Used {
        self.used.beyond(self.closed).beyond(self.open)
    }

    /// What was read earlier may come later: use only grows.
    fn see(&mut self, spent: Spent) {
        if self.booked.is_none_or(|booked| spent.total >= booked.total) {
            self.booked = Some(spent);
        }
    }
}

/// One unit of a key's budget, set aside for a call. Dropped, it is there again.
#[derive(Debug)]
#[must_use = "a call's unit is there again when this is dropped"]
pub struct KeyHold {
    of: Arc<KeyUse>,
    /// What it is worth, once it is known which package pays.
    worth: Money,
    ended: bool,
}

impl KeyHold {
    /// Whose.
    pub fn key(&self) -> &KeyId {
        &self.of.key
    }

    /// The key and what it has used.
    pub fn of(&self) -> &Arc<KeyUse> {
        &self.of
    }

    /// It is known which package pays: sets aside what the unit is worth, if the budget has so much money. The second
    /// value as of [`KeyUse::hold`].
    pub fn weigh(&mut self, worth: Money, budget: &Budget, gateways: u32, now: Timestamp) -> Result<bool, OverBudget> {
        let mut state = self.of.lock();
        let fits = |spent, open: Used, gateways| budget.check_worth(spent, (open.worth, worth), gateways, now);
        let near = state.check((gateways, now), fits)?;
        state.held.worth = state.held.worth.saturating_add(worth);
        self.worth = worth;
        Ok(near)
    }

    /// The call counts: so much of a pool is used. To be called before a lease's counter has it, which an exchange
    /// reports.
    pub fn spend(&mut self, product: &ProductId, used: Used) {
        self.end(Some((product, used)));
    }

    /// What was set aside is used, or there again; both in one step, as another call may look in between.
    fn end(&mut self, spent: Option<(&ProductId, Used)>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let mut state = self.of.lock();
        state.held = state.held.beyond(Used { units: Units::new(1), worth: self.worth });
        if let Some((product, used)) = spent {
            state.of_pool(product).used.put(used);
        }
    }
}

impl Drop for KeyHold {
    fn drop(&mut self) {
        self.end(None);
    }
}

/// The keys with budgets that this gateway has met.
#[derive(Debug, Default)]
pub struct Budgets(DashMap<(AccountId, KeyId), Arc<KeyUse>>);

impl Budgets {
    /// What a key has used, with what the account's documents say.
    pub fn key<'a>(&self, account: &AccountId, key: &KeyId, pools: impl Iterator<Item = &'a Pool>) -> Arc<KeyUse> {
        if self.0.len() >= KEYS_MAX {
            self.0.retain(|_, of| Arc::strong_count(of) > 1);
        }
        let new = || Arc::new(KeyUse { key: key.clone(), state: Mutex::default() });
        let of = Arc::clone(&self.0.entry((account.clone(), key.clone())).or_insert_with(new));
        pools.for_each(|pool| of.see(pool));
        of
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::amount::Units;

    fn used(units: u64) -> Used {
        Used { units: Units::new(units), worth: Money::written("0.5").unwrap().times(units) }
    }

    /// Three units, and the same in money of which a call is worth a half.
    #[test]
    fn what_is_held_used_and_booked_is_counted_once() {
        for budget in [r#"{"total":3}"#, r#"{"money":{"currency":"CNY","total":"1.5"}}"#] {
            check(&serde_json::from_str(budget).unwrap());
        }
    }

    fn check(budget: &Budget) {
        let (account, key) = (AccountId::new("a").unwrap(), KeyId::new("k").unwrap());
        let (budgets, now) = (Budgets::default(), Timestamp::UNIX_EPOCH);
        let chat = ProductId::new("chat").unwrap();
        let of = budgets.key(&account, &key, std::iter::empty());
        let hold = || {
            let (mut hold, _) = of.hold(budget, 1, now)?;
            hold.weigh(used(1).worth, budget, 1, now)?;
            Ok::<_, OverBudget>(hold)
        };
        let (first, mut second, mut third) = (hold().unwrap(), hold().unwrap(), hold().unwrap());
        assert!(hold().is_err(), "calls under way count");
        drop(first);
        second.spend(&chat, used(1));
        third.spend(&chat, used(1));
        drop((second, third));
        let fourth = hold().unwrap();
        assert!(hold().is_err());
        drop(fourth);
        // The books have the two, and one of another gateway.
        let mut pool = Pool::new(account.clone(), chat.clone());
        let mut spent = Spent::none(now);
        spent.add(used(2), now);
        pool.spent.insert(key.clone(), spent);
        of.acknowledge(&pool, (used(1), used(1)), None);
        drop(hold().unwrap());
        spent.add(used(1), now);
        pool.spent.insert(key.clone(), spent);
        budgets.key(&account, &key, [&pool].into_iter());
        assert!(hold().is_err());
        of.see(&Pool::new(account, chat));
        assert!(hold().is_err(), "what was read earlier changes nothing");
    }

    /// Two gateways with one budget of 60, each with a product of its own.
    #[test]
    fn a_share_is_renewed_by_looking_at_all_pools_alone() {
        let (account, key) = (AccountId::new("a").unwrap(), KeyId::new("k").unwrap());
        let (budget, now): (Budget, _) = (serde_json::from_str(r#"{"total":60}"#).unwrap(), Timestamp::UNIX_EPOCH);
        let of = Budgets::default().key(&account, &key, std::iter::empty());
        let pool = |product: &str, units: u64| {
            let mut pool = Pool::new(account.clone(), ProductId::new(product).unwrap());
            let mut spent = Spent::none(now);
            spent.add(used(units), now);
            pool.spent.insert(key.clone(), spent);
            pool
        };
        let sell = || {
            let mut sold = 0;
            loop {
                match of.hold(&budget, 2, now) {
                    Ok((mut hold, _)) => hold.spend(&ProductId::new("chat").unwrap(), used(1)),
                    Err(refused) => return (sold, refused),
                }
                sold += 1;
            }
        };
        assert_eq!(sell(), (30, OverBudget::Share));
        assert!(of.wants_look());
        // What it books itself tells nothing of what the other has used meanwhile.
        of.acknowledge(&pool("chat", 30), (used(30), Used::default()), None);
        assert_eq!(sell(), (0, OverBudget::Share));
        // The other's document does: 20 of 60 are left, half of them for this one.
        of.see(&pool("api", 10));
        of.acknowledge(&pool("chat", 30), (Used::default(), Used::default()), Some(now));
        assert!(!of.wants_look());
        assert_eq!(sell(), (10, OverBudget::Share));
        of.see(&pool("api", 20));
        of.acknowledge(&pool("chat", 40), (used(10), Used::default()), Some(now));
        let (sold, refused) = sell();
        assert_eq!((sold, matches!(refused, OverBudget::Exhausted { .. })), (0, true));
    }

    #[test]
    fn a_unit_that_is_too_dear_is_not_set_aside_and_a_cheaper_one_is() {
        let of = Budgets::default().key(&AccountId::new("a").unwrap(), &KeyId::new("k").unwrap(), std::iter::empty());
        let (budget, now) = (r#"{"money":{"currency":"CNY","total":"1"}}"#, Timestamp::UNIX_EPOCH);
        let budget: Budget = serde_json::from_str(budget).unwrap();
        let weigh = |worth: &str| {
            let (mut hold, _) = of.hold(&budget, 1, now).unwrap();
            hold.weigh(Money::written(worth).unwrap(), &budget, 1, now).map(|_| hold)
        };
        let open = weigh("0.6").unwrap();
        assert!(weigh("0.5").is_err());
        drop(weigh("0.4").unwrap());
        drop(weigh("0.4").unwrap());
        drop(weigh("0").unwrap());
        drop(open);
        drop(weigh("1").unwrap());
    }
}
