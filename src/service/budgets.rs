//! Keys' budgets at work: what the books say that a key has used, and what this gateway has let in beyond it. The books
//! are the pools' documents: each exchange reports use by key, and brings what others have used.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use dashmap::DashMap;
use jiff::Timestamp;

use super::sync::{Mutex, MutexGuard};
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

#[derive(Debug, Default)]
struct State {
    pools: BTreeMap<ProductId, OfPool>,
    /// Calls that are under way: a unit each.
    held: u64,
    /// What these are worth.
    held_worth: Money,
}

impl State {
    /// What the books say.
    fn booked(&self, now: Timestamp) -> Spent {
        let booked = self.pools.values().filter_map(|pool| pool.booked).map(|spent| spent.as_of(now));
        booked.reduce(Spent::and).unwrap_or_else(|| Spent::none(now))
    }

    /// What was used and is not in the books yet.
    fn unbooked(&self) -> Used {
        self.pools.values().fold(Used::default(), |mut sum, pool| {
            sum.put(pool.unbooked());
            sum
        })
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
    /// exchange, so much more, and of those that are `open`, so much in all.
    pub fn acknowledge(&self, pool: &Pool, closed: Used, open: Used) {
        let mut state = self.lock();
        let of_pool = state.of_pool(&pool.product);
        if let Some(spent) = pool.spent.get(&self.key) {
            of_pool.see(*spent);
        }
        of_pool.closed.put(closed);
        of_pool.open = open;
    }

    /// Sets one unit aside, if the budget has one. The second value says that the store should hear soon of what was used.
    pub fn hold(
        self: &Arc<Self>,
        budget: &Budget,
        gateways: u32,
        now: Timestamp,
    ) -> Result<(KeyHold, bool), OverBudget> {
        let mut state = self.lock();
        let spent = state.booked(now);
        let open = state.held.saturating_add(state.unbooked().units.get());
        budget.check(spent, open, gateways, now)?;
        state.held = state.held.saturating_add(1);
        let near = gateways > 1 && budget.check(spent, open.saturating_mul(2), gateways, now).is_err();
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
        let spent = state.booked(now);
        let open = state.held_worth.saturating_add(state.unbooked().worth);
        budget.check_worth(spent, (open, worth), gateways, now)?;
        state.held_worth = state.held_worth.saturating_add(worth);
        self.worth = worth;
        Ok(gateways > 1 && budget.check_worth(spent, (open.times(2), worth), gateways, now).is_err())
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
        state.held = state.held.saturating_sub(1);
        state.held_worth = state.held_worth.saturating_sub(self.worth);
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
        of.acknowledge(&pool, used(1), used(1));
        drop(hold().unwrap());
        spent.add(used(1), now);
        pool.spent.insert(key.clone(), spent);
        budgets.key(&account, &key, [&pool].into_iter());
        assert!(hold().is_err());
        of.see(&Pool::new(account, chat));
        assert!(hold().is_err(), "what was read earlier changes nothing");
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
