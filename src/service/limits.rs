//! Rate limits at work: who has used how much on this gateway, and whether one more call may pass. All levels are asked
//! before any is touched, under their locks, so that a refusal at one costs nothing at another. Nothing here waits.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use dashmap::DashMap;

use super::budgets::Budgets;
use crate::domain::id::{AccountId, ProductId};
use crate::domain::limit::{Level, Limits, Over, Standing, Use};
use crate::domain::usage::CallerRef;

/// Limits that one call meets at most: of its product, its account and its key or app, and what the product sets for
/// each account and each key or app.
const MET_MAX: usize = 5;
/// Uses that are remembered; above it, those that hold nobody back are forgotten.
const SCOPES_MAX: usize = 100_000;

/// How many gateways share the store, as it last said: each enforces its share of every limit.
#[derive(Debug)]
pub struct Fleet(AtomicU32);

impl Default for Fleet {
    fn default() -> Self {
        Self(AtomicU32::new(1))
    }
}

impl Fleet {
    /// Notes how many live.
    pub fn note(&self, gateways: usize) {
        self.0.store(u32::try_from(gateways).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// How many live; this one does.
    pub fn gateways(&self) -> NonZeroU32 {
        NonZeroU32::new(self.0.load(Ordering::Relaxed)).unwrap_or(NonZeroU32::MIN)
    }
}

/// Whose use.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Whose {
    /// Of all callers of a product.
    Product(ProductId),
    /// Of an account, over all products or of one.
    Account(AccountId, Option<ProductId>),
    /// Of an account's key or app, over all products or of one.
    Caller(AccountId, CallerRef, Option<ProductId>),
}

/// What is used of the limits of one product, account, key or app.
#[derive(Debug, Default)]
pub struct Scope(Mutex<Use>);

impl Scope {
    fn lock(&self) -> MutexGuard<'_, Use> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner) // plain figures: valid between any two operations
    }
}

/// One level's limits, and what is used of them.
#[derive(Debug, Clone)]
pub struct Limited {
    /// Of what.
    pub level: Level,
    /// The limits.
    pub limits: Limits,
    /// The use.
    pub scope: Arc<Scope>,
}

/// Why a call may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Whose limit.
    pub level: Level,
    /// Which, and until when.
    pub over: Over,
}

/// Remembers uses, and lets calls pass.
#[derive(Debug, Default)]
pub struct Limiter {
    scopes: DashMap<Whose, Arc<Scope>>,
    fleet: Arc<Fleet>,
    /// What keys have used of their budgets.
    pub budgets: Budgets,
}

impl Limiter {
    /// Nobody has used anything.
    pub fn new(fleet: Arc<Fleet>) -> Self {
        Self { scopes: DashMap::new(), fleet, budgets: Budgets::default() }
    }

    /// How many gateways enforce each limit together.
    pub fn gateways(&self) -> NonZeroU32 {
        self.fleet.gateways()
    }

    /// Limits that are to be enforced: `None` if there are none. What is used of them is remembered when they change, and
    /// when the configuration or the account does.
    pub fn limited(&self, level: Level, limits: Limits, whose: impl FnOnce() -> Whose) -> Option<Limited> {
        if limits.is_none() {
            return None;
        }
        let whose = whose();
        let known = self.scopes.get(&whose).map(|scope| Arc::clone(&scope));
        let scope = known.unwrap_or_else(|| {
            self.make_room();
            Arc::clone(&self.scopes.entry(whose).or_default())
        });
        Some(Limited { level, limits, scope })
    }

    /// Forgets uses that hold nobody back. If all do, the first ones go: memory stays bounded, and whoever is forgotten
    /// begins anew.
    fn make_room(&self) {
        if self.scopes.len() < SCOPES_MAX {
            return;
        }
        let now = Instant::now();
        self.scopes.retain(|_, scope| Arc::strong_count(scope) > 1 || scope.lock().matters(now));
        if self.scopes.len() >= SCOPES_MAX {
            let mut surplus = SCOPES_MAX / 2;
            self.scopes.retain(|_, _| {
                let keep = surplus == 0;
                surplus = surplus.saturating_sub(1);
                keep
            });
        }
    }

    /// Lets a call pass that all limits let in; else none of them is touched. They come in the order of their levels, the
    /// same for every call, so that no two calls wait for each other.
    pub fn admit<'a>(&self, met: impl IntoIterator<Item = &'a Limited>, now: Instant) -> Result<Permit, Refused> {
        let gateways = self.fleet.gateways();
        let mut held: [Option<(MutexGuard<'a, Use>, &'a Limited)>; MET_MAX] = Default::default();
        let mut refused: Option<Refused> = None;
        for (place, limited) in held.iter_mut().zip(met) {
            let used = limited.scope.lock();
            if let Err(over) = used.check(&limited.limits, gateways, now) {
                let longer = refused.is_none_or(|refused| over.wait > refused.over.wait);
                refused = if longer { Some(Refused { level: limited.level, over }) } else { refused };
            }
            *place = Some((used, limited));
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        let mut permit = Permit { met: Default::default(), standing: None, gateways };
        for (place, held) in permit.met.iter_mut().zip(held) {
            let Some((mut used, limited)) = held else { break };
            let standing = used.take(&limited.limits, gateways, now);
            permit.standing = match (permit.standing, standing) {
                (Some(one), Some(other)) => Some(one.tighter(other)),
                (one, other) => one.or(other),
            };
            *place = Some((Arc::clone(&limited.scope), limited.limits));
        }
        Ok(permit)
    }
}

/// A call that has passed. It is under way until this is dropped.
#[derive(Debug)]
#[must_use = "a call is under way as long as its permit is kept"]
pub struct Permit {
    met: [Option<(Arc<Scope>, Limits)>; MET_MAX],
    standing: Option<Standing>,
    gateways: NonZeroU32,
}

impl Permit {
    /// How the tightest rate stands, if there is one.
    pub fn standing(&self) -> Option<Standing> {
        self.standing
    }

    /// The call was refused after all, before it cost anything: it has used nothing.
    pub fn give_back(self, now: Instant) {
        for (scope, limits) in self.met.iter().flatten() {
            scope.lock().give_back(limits, self.gateways, now);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.met.iter().flatten().for_each(|(scope, _)| scope.lock().end());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::id::KeyId;
    use crate::domain::limit::Kind;

    fn limits(text: &str) -> Limits {
        serde_json::from_str(text).unwrap()
    }

    fn product(limiter: &Limiter, text: &str) -> Limited {
        let whose = || Whose::Product(ProductId::new("chat").unwrap());
        limiter.limited(Level::Product, limits(text), whose).unwrap()
    }

    fn key(limiter: &Limiter, text: &str) -> Limited {
        let (account, key) = (AccountId::new("a").unwrap(), CallerRef::Key(KeyId::new("k").unwrap()));
        limiter.limited(Level::Key, limits(text), || Whose::Caller(account, key, None)).unwrap()
    }

    #[test]
    fn all_levels_are_asked_before_any_is_touched() {
        let (limiter, now) = (Limiter::default(), Instant::now());
        let (product, key) = (product(&limiter, r#"{"per_minute":3}"#), key(&limiter, r#"{"per_day":1}"#));
        let both = || [&product, &key];
        let permit = limiter.admit(both(), now).unwrap();
        let shown = permit.standing().unwrap();
        assert_eq!((shown.limit, shown.left), (1, 0), "the tightest");
        let refused = limiter.admit(both(), now).unwrap_err();
        assert_eq!((refused.level, refused.over.kind), (Level::Key, Kind::Day));
        // The product lost one call, not two.
        assert_eq!(limiter.admit([&product], now).unwrap().standing().unwrap().left, 1);
        permit.give_back(now);
        assert_eq!(limiter.admit([&product], now).unwrap().standing().unwrap().left, 1);
        drop(limiter.admit(both(), now).unwrap());
        let refused = limiter.admit(both(), now).unwrap_err();
        assert_eq!((refused.level, refused.over.kind), (Level::Key, Kind::Day), "the longest wait is told");
        let refused = limiter.admit([&product], now).unwrap_err();
        assert_eq!(refused.over.wait, Some(Duration::from_secs(20)));
    }

    #[test]
    fn a_call_is_under_way_until_its_permit_is_dropped() {
        let (limiter, now) = (Limiter::default(), Instant::now());
        let (product, key) = (product(&limiter, r#"{"concurrent":2}"#), key(&limiter, r#"{"concurrent":1}"#));
        let first = limiter.admit([&product, &key], now).unwrap();
        assert_eq!(first.standing(), None, "nothing is known of when it is fresh");
        assert_eq!(limiter.admit([&product, &key], now).unwrap_err().level, Level::Key);
        let second = limiter.admit([&product], now).unwrap();
        assert_eq!(limiter.admit([&product], now).unwrap_err().level, Level::Product);
        drop(first);
        let third = limiter.admit([&product, &key], now).unwrap();
        second.give_back(now);
        drop(third);
        drop((limiter.admit([&product, &key], now).unwrap(), limiter.admit([&product], now).unwrap()));
    }

    #[test]
    fn uses_are_remembered_while_they_hold_anybody_back_and_bounded() {
        let (limiter, now) = (Limiter::default(), Instant::now());
        drop(limiter.admit([&key(&limiter, r#"{"per_day":1}"#)], now).unwrap());
        assert!(limiter.admit([&key(&limiter, r#"{"per_day":1}"#)], now).is_err(), "found again by its name");
        for number in 0..SCOPES_MAX + 10 {
            let account = AccountId::new(&format!("a-{number}")).unwrap();
            limiter.limited(Level::Account, limits(r#"{"per_day":1}"#), || Whose::Account(account, None));
        }
        assert!(limiter.scopes.len() <= SCOPES_MAX);
        assert!(limiter.admit([&key(&limiter, r#"{"per_day":1}"#)], now).is_err(), "others hold nobody back");
        assert!(limiter.limited(Level::Key, Limits::NONE, || unreachable!()).is_none());
    }

    #[test]
    fn each_of_several_gateways_lets_its_share_in() {
        let fleet = Arc::new(Fleet::default());
        let (limiter, now) = (Limiter::new(Arc::clone(&fleet)), Instant::now());
        let product = product(&limiter, r#"{"per_day":8}"#);
        fleet.note(2);
        for left in (0..4).rev() {
            assert_eq!(limiter.admit([&product], now).unwrap().standing().unwrap().left, left);
        }
        assert!(limiter.admit([&product], now).is_err());
        fleet.note(0); // never: this one lives
        assert_eq!(limiter.admit([&product], now).unwrap().standing().unwrap().left, 3);
    }
}
