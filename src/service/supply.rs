//! A pool as this gateway sees it: the leases it holds, drawn on by all cores without a lock. What is free here may be
//! admitted at once; everything else is asked of the ledger (`ledger`).

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::HeaderValue;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::budgets::KeyUse;
use super::sync::{AtomicBool, AtomicI64, AtomicU64, Mutex, MutexGuard, Ordering};
use crate::domain::amount::Units;
use crate::domain::billable::BillableStatuses;
use crate::domain::budget::Used;
use crate::domain::id::{AccountId, KeyId, PackageId, ProductId};
use crate::domain::lease::LeasePart;
use crate::domain::money::Money;
use crate::domain::pool::Shortage;
use crate::domain::settle::LeaseReport;

/// An empty answer is believed for this long, so that refused calls cost the store nothing.
pub const DRY_BELIEVED: Duration = Duration::from_millis(250);
/// The same where another gateway that holds units has not said what it can do without: only for those who wait now.
pub const DRY_DOUBTED: Duration = Duration::from_millis(10);
/// More is asked for when a lease has less than this part of it left (one in four).
const LOW_WATER_SHARE: u64 = 4;
/// Set in a part's `left` when no further call may be admitted on it.
const RETIRED: u64 = 1 << 63;

/// One package's share of a lease.
#[derive(Debug)]
pub struct LocalPart {
    /// Who pays.
    pub package: PackageId,
    /// Which answers count: the package's own terms.
    pub billable: Arc<BillableStatuses>,
    /// What one unit is worth.
    pub unit_worth: Money,
    granted: u64,
    left: AtomicU64,
    /// Charged, less what was taken back.
    charged: AtomicU64,
    used: AtomicU64,
    /// Given back before the lease's time was over.
    given: AtomicU64,
}

impl LocalPart {
    fn take(&self) -> Option<u64> {
        let one_less = |left: u64| if left & RETIRED == 0 { left.checked_sub(1) } else { None };
        self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less).ok()
    }

    fn report(&self) -> LeasePart {
        // `used` and `given` before `left`: what they count was taken out of `left` first, so that the three never
        // exceed what was granted.
        let used = self.used.load(Ordering::Acquire);
        let given = self.given.load(Ordering::Acquire);
        let left = self.left.load(Ordering::Acquire);
        let returned = if left & RETIRED == 0 { 0 } else { left & !RETIRED };
        LeasePart {
            package: self.package.clone(),
            granted: Units::new(self.granted),
            used: Units::new(used),
            returned: Units::new(returned.saturating_add(given)),
        }
    }

    /// Gives back what nobody has taken, or half of it, at least one. Returns how much.
    fn give_up(&self, all: bool) -> u64 {
        let share = |left: u64| if all { left } else { left.div_ceil(2) };
        let less = |left: u64| (left & RETIRED == 0 && left > 0).then(|| left.saturating_sub(share(left)));
        let given = self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).map_or(0, share);
        self.given.fetch_add(given, Ordering::AcqRel);
        given
    }
}

/// A lease in this gateway's hands.
#[derive(Debug)]
pub struct LocalLease {
    /// Within the pool and this incarnation.
    pub number: u64,
    parts: Vec<LocalPart>,
    deadline: Timestamp,
    admits_until: Instant,
    /// Admits no call any more: only units of open calls are left on it.
    retired: AtomicBool,
    /// What calls of keys with a budget have used.
    spent: Mutex<BTreeMap<KeyId, Used>>,
}

impl LocalLease {
    fn retire(&self) {
        for part in &self.parts {
            part.left.fetch_or(RETIRED, Ordering::AcqRel);
        }
        self.retired.store(true, Ordering::Release);
    }

    fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }
}

/// One unit set aside for one call. Ends by [`LocalPool::settle`] or [`LocalPool::give_back`].
#[derive(Debug)]
#[must_use = "a dropped hold keeps its unit from being sold until the gateway restarts"]
pub struct Hold {
    lease: Arc<LocalLease>,
    part: usize,
}

impl Hold {
    /// The lease's number.
    pub fn lease(&self) -> u64 {
        self.lease.number
    }

    /// The part it was taken from; always there, since a hold is only made from one.
    pub fn part(&self) -> Option<&LocalPart> {
        self.lease.parts.get(self.part)
    }

    /// What the unit is worth.
    pub fn unit_worth(&self) -> Money {
        self.part().map(|part| part.unit_worth).unwrap_or_default()
    }
}

/// What a package says of a lease's part on it.
#[derive(Debug, Clone, Default)]
pub struct PartTerms {
    /// Which answers count.
    pub billable: BillableStatuses,
    /// What one unit is worth.
    pub unit_worth: Money,
}

/// A lease as it was granted, with the terms of each part.
#[derive(Debug)]
pub struct Granted {
    /// Within the pool and this incarnation.
    pub number: u64,
    /// In the order of draw-down.
    pub parts: Vec<(LeasePart, PartTerms)>,
    /// The store's deadline.
    pub deadline: Timestamp,
    /// The same on this machine's monotonic clock, counted from before the lease was asked for.
    pub admits_until: Instant,
}

/// Why a pool has no supply at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dry {
    /// There is nothing to be had.
    Short(Shortage),
    /// The store or the journal failed: nobody knows what there is.
    Unavailable,
}

/// What the documents say of a pool, as far as answers show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What is left in the documents, plus what this gateway has reported used.
    pub base: i64,
    /// The last second of the package that is drawn next, as answers show it.
    pub expires: Option<HeaderValue>,
}

/// What is left of a pool, as answers show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Units.
    pub units: u64,
    /// The last second of the package that is drawn next.
    pub expires: Option<HeaderValue>,
}

/// One account's pool for one product.
#[derive(Debug)]
pub struct LocalPool {
    /// Whose.
    pub account: AccountId,
    /// For what.
    pub product: ProductId,
    open: ArcSwap<Vec<Arc<LocalLease>>>,
    /// Leases that the store has not acknowledged as closed.
    held: Mutex<BTreeMap<u64, Arc<LocalLease>>>,
    standing: ArcSwap<Standing>,
    /// Units charged so far, less those taken back.
    charged: AtomicI64,
    /// Units taken so far: the rate is read off it.
    drawn: AtomicU64,
    waiting: AtomicU64,
    nudged: AtomicBool,
    /// Somebody has said that the store should hear soon of what was used.
    telling: AtomicBool,
    news: AtomicBool,
    dry: ArcSwapOption<(Instant, Dry)>,
    refilled: Notify,
    /// The keys with a budget that have drawn on it.
    budgets: Mutex<Vec<Arc<KeyUse>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner) // the map is valid between any two of its operations
}

impl LocalPool {
    /// A pool with nothing leased yet.
    pub fn new(account: AccountId, product: ProductId) -> Self {
        Self {
            account,
            product,
            open: ArcSwap::default(),
            held: Mutex::default(),
            standing: ArcSwap::from_pointee(Standing { base: 0, expires: None }),
            charged: AtomicI64::new(0),
            drawn: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            nudged: AtomicBool::new(false),
            telling: AtomicBool::new(false),
            news: AtomicBool::new(false),
            dry: ArcSwapOption::empty(),
            refilled: Notify::new(),
            budgets: Mutex::default(),
        }
    }

    /// A key with a budget draws on it: from now on each exchange tells how much of its use is in the books.
    pub fn note_budget(&self, of: &Arc<KeyUse>) {
        let mut budgets = locked(&self.budgets);
        if !budgets.iter().any(|known| Arc::ptr_eq(known, of)) {
            budgets.push(Arc::clone(of)); // one per key, of which an account has twenty at a time
        }
    }

    /// The keys with a budget that have drawn on it.
    pub fn budgets(&self) -> Vec<Arc<KeyUse>> {
        locked(&self.budgets).clone()
    }

    /// Takes one unit if one is here: the whole of a warm call's admission. The second value says that more should be
    /// asked for, so that the next calls need not wait.
    pub fn take(&self, now: Instant) -> Option<(Hold, bool)> {
        let open = self.open.load();
        for lease in open.iter().filter(|lease| now < lease.admits_until) {
            for (index, part) in lease.parts.iter().enumerate() {
                if let Some(before) = part.take() {
                    self.drawn.fetch_add(1, Ordering::Relaxed);
                    let low = before <= part.granted / LOW_WATER_SHARE;
                    let last = open.last().is_some_and(|last| Arc::ptr_eq(last, lease));
                    return Some((Hold { lease: Arc::clone(lease), part: index }, low && last));
                }
            }
        }
        None
    }

    /// Puts a unit back: its call costs nothing. It can be taken again at once, or returns to the store if its lease's
    /// time is over.
    pub fn give_back(&self, hold: &Hold) {
        if let Some(part) = hold.part() {
            let before = part.left.fetch_add(1, Ordering::AcqRel);
            if before & RETIRED != 0 || hold.lease.admits_until <= Instant::now() {
                self.news.store(true, Ordering::Release);
            }
            // Whoever was refused for want of this unit may now ask again.
            if self.dry.load().is_some() {
                self.dry.store(None);
            }
        }
    }

    /// Notes that a unit's call counts and has ended.
    pub fn settle(&self, hold: &Hold) {
        if let Some(part) = hold.part() {
            part.used.fetch_add(1, Ordering::AcqRel);
            self.news.store(true, Ordering::Release);
        }
    }

    /// The same of a call of a key with a budget.
    pub fn settle_for(&self, hold: &Hold, key: &KeyId, units: Units) {
        let worth = hold.unit_worth().times(units.get());
        locked(&hold.lease.spent).entry(key.clone()).or_default().put(Used { units, worth });
        self.settle(hold);
    }

    /// Counts a unit's charge; returns what is left after it.
    pub fn charge(&self, hold: &Hold) -> Left {
        if let Some(part) = hold.part() {
            part.charged.fetch_add(1, Ordering::AcqRel);
        }
        self.charged.fetch_add(1, Ordering::AcqRel);
        self.left()
    }

    /// Takes a unit's charge back.
    pub fn uncharge(&self, hold: &Hold) {
        if let Some(part) = hold.part() {
            part.charged.fetch_sub(1, Ordering::AcqRel);
        }
        self.charged.fetch_sub(1, Ordering::AcqRel);
    }

    /// What is charged beyond what was reported as used, by package.
    pub fn open_charges(&self, reported: &[LeaseReport]) -> Vec<(PackageId, Units)> {
        let held = locked(&self.held);
        let of_lease = |lease: &Arc<LocalLease>| -> Vec<(PackageId, Units)> {
            let told = reported.iter().find(|report| report.number == lease.number);
            let used = |id: &PackageId| {
                let part = told.and_then(|told| told.parts.iter().find(|part| part.package == *id));
                part.map_or(Units::ZERO, |part| part.used)
            };
            let open = |part: &LocalPart| {
                let charged = Units::new(part.charged.load(Ordering::Acquire));
                (part.package.clone(), charged.saturating_sub(used(&part.package)))
            };
            lease.parts.iter().map(open).collect()
        };
        held.values().flat_map(of_lease).collect()
    }

    /// What is left: in the documents, less what was charged here and is not booked yet.
    pub fn left(&self) -> Left {
        let standing = self.standing.load();
        Left { units: self.remaining_of(&standing), expires: standing.expires.clone() }
    }

    /// The units alone.
    pub fn remaining(&self) -> u64 {
        self.remaining_of(&self.standing.load())
    }

    fn remaining_of(&self, standing: &Standing) -> u64 {
        let left = standing.base.saturating_sub(self.charged.load(Ordering::Acquire));
        u64::try_from(left).unwrap_or(0)
    }

    /// Why there is nothing, if the last answer said so a moment ago.
    pub fn known_dry(&self, now: Instant) -> Option<Dry> {
        let known = self.dry.load();
        known.as_ref().filter(|known| now < known.0).map(|known| known.1.clone())
    }

    /// Forgets an empty answer: something was bought, or changed by hand.
    pub fn forget_dry(&self) {
        self.dry.store(None);
    }

    /// True for the first caller since the last exchange began: it must tell the ledger that the store should hear soon
    /// of what was used. Asks for no supply.
    pub fn tell(&self) -> bool {
        self.news.store(true, Ordering::Release);
        !self.telling.swap(true, Ordering::AcqRel)
    }

    /// True for the first caller since the last answer: it must ask the ledger.
    pub fn nudge(&self) -> bool {
        !self.nudged.swap(true, Ordering::AcqRel)
    }

    /// A call begins to wait for supply. Look for supply once more before awaiting [`Waiting::refilled`]: an answer that
    /// comes in between is not missed.
    pub fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        Waiting { pool: self, refilled: Box::pin(self.refilled.notified()) }
    }

    /// How many calls wait.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Acquire)
    }

    /// Units taken since the start.
    pub fn drawn(&self) -> u64 {
        self.drawn.load(Ordering::Relaxed)
    }

    /// Whether there is anything the store does not know, or a lease whose time is over.
    pub fn has_news(&self, now: Instant) -> bool {
        let over = |lease: &Arc<LocalLease>| lease.admits_until <= now && !lease.is_retired();
        self.news.load(Ordering::Acquire) || locked(&self.held).values().any(over)
    }

    /// Whether it holds a lease whose time is over, for calls that are still open.
    pub fn holds_retired(&self) -> bool {
        locked(&self.held).values().any(|lease| lease.is_retired())
    }

    /// Whether it holds any lease that is not closed.
    pub fn holds_any(&self) -> bool {
        !locked(&self.held).is_empty()
    }

    /// Begins an exchange with the store: whatever happens from now on is news for the next one. Ends admission on
    /// leases whose time is over. Returns whether more supply was asked for.
    pub fn begin_sync(&self, now: Instant) -> bool {
        let nudged = self.nudged.swap(false, Ordering::AcqRel);
        self.telling.store(false, Ordering::Release);
        self.news.store(false, Ordering::Release);
        locked(&self.held).values().filter(|lease| lease.admits_until <= now).for_each(|lease| lease.retire());
        nudged
    }

    /// There is something to tell or to hear: an exchange failed, or the account was changed.
    pub fn note_news(&self) {
        self.news.store(true, Ordering::Release);
    }

    /// Gives back what no call has taken, or half of it, because another gateway needs it. Returns how much.
    pub fn give_up(&self, all: bool) -> u64 {
        let given = self.open.load().iter().flat_map(|lease| &lease.parts).map(|part| part.give_up(all)).sum();
        if given > 0 {
            self.news.store(true, Ordering::Release);
        }
        given
    }

    /// Leases and units that are not known to be used or given back.
    pub fn outstanding(&self) -> (u64, u64) {
        let held = locked(&self.held);
        let units = held.values().flat_map(|lease| &lease.parts).map(|part| part.report().outstanding().get()).sum();
        (u64::try_from(held.len()).unwrap_or(u64::MAX), units)
    }

    /// Ends admission for good: the gateway stops.
    pub fn retire(&self) {
        locked(&self.held).values().for_each(|lease| lease.retire());
        self.news.store(true, Ordering::Release);
    }

    /// All leases that the store has not acknowledged as closed, as they stand.
    pub fn reports(&self) -> Vec<LeaseReport> {
        let held = locked(&self.held);
        let report = |lease: &Arc<LocalLease>| LeaseReport {
            number: lease.number,
            parts: lease.parts.iter().map(LocalPart::report).collect(),
            deadline: lease.deadline,
            // After the parts: what they count as used is counted here by then.
            spent: locked(&lease.spent).clone(),
            lost: false,
        };
        held.values().map(report).collect()
    }

    /// The earliest deadline of the leases that the store has not acknowledged as closed.
    pub fn earliest_deadline(&self) -> Option<Timestamp> {
        locked(&self.held).values().map(|lease| lease.deadline).min()
    }

    /// Takes in what an exchange brought: a lease perhaps, the acknowledged reports, how the pool stands.
    pub fn accept(&self, granted: Option<Granted>, reported: &[LeaseReport], standing: Standing) {
        let closed = |report: &&LeaseReport| report.parts.iter().all(|part| part.outstanding().is_zero());
        let mut held = locked(&self.held);
        for report in reported.iter().filter(closed) {
            held.remove(&report.number);
        }
        if let Some(granted) = granted {
            let part = |(part, terms): (LeasePart, PartTerms)| LocalPart {
                package: part.package,
                billable: Arc::new(terms.billable),
                unit_worth: terms.unit_worth,
                granted: part.granted.get(),
                left: AtomicU64::new(part.granted.get()),
                charged: AtomicU64::new(0),
                used: AtomicU64::new(0),
                given: AtomicU64::new(0),
            };
            let parts = granted.parts.into_iter().map(part).collect();
            let (number, deadline, admits_until) = (granted.number, granted.deadline, granted.admits_until);
            let (retired, spent) = (AtomicBool::new(false), Mutex::default());
            held.insert(number, Arc::new(LocalLease { number, parts, deadline, admits_until, retired, spent }));
        }
        self.standing.store(Arc::new(standing));
        self.open.store(Arc::new(held.values().map(Arc::clone).collect()));
    }

    /// Wakes all who wait: there is supply, or a reason why there is none, which is believed for so long.
    pub fn answer(&self, dry: Option<Dry>, believed: Duration) {
        self.dry.store(dry.map(|dry| Arc::new((Instant::now() + believed, dry))));
        self.refilled.notify_waiters();
    }
}

/// A call that waits for supply.
#[derive(Debug)]
pub struct Waiting<'a> {
    pool: &'a LocalPool,
    refilled: Pin<Box<Notified<'a>>>,
}

impl Waiting<'_> {
    /// Until the next answer since this guard was made.
    pub async fn refilled(&mut self) {
        self.refilled.as_mut().await;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.pool.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests;
