//! This gateway's side of the shared books: keeps every pool supplied with leases and the store informed of their use.
//! One exchange per pool is under way at a time (`exchange`); how gateways help each other out near the end of a pool is
//! in `recall`, what is sent again to a store that has forgotten in `again`.

mod again;
mod exchange;
mod recall;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use tokio::sync::{Mutex, Notify, broadcast, mpsc};

use self::again::{Closed, Witness};
pub use self::again::{Loss, Reported};
use super::desk::Desk;
use super::supply::LocalPool;
use super::unbooked::Unbooked;
use crate::domain::id::{AccountId, Incarnation, ProductId};
use crate::domain::lease::LEASE_DURATION_MAX;
use crate::domain::pool::Pool;
use crate::domain::settle::REPORT_OPEN_EVERY;
use crate::ports::BoxFuture;
use crate::ports::account_store::{Loaded, Stamped};
use crate::ports::gateways::{Notice, ServerId};
use crate::ports::journal::Journal;
use crate::telemetry::metrics::Metrics;

/// How often pools are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A pool with news is reported when its last exchange is at least this old; with the ticks above, twice a second.
pub(super) const REPORT_AFTER: Duration = Duration::from_millis(400);
/// A pool that has drawn nothing for so long is idle: it can do without its leases.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// Exchanges that are under way at one time.
const EXCHANGES_MAX: usize = 256;
/// Exchanges beside which one begins that only reports: the rest is kept for pools whose calls wait.
const REPORTS_MAX: usize = EXCHANGES_MAX / 2;
/// What was read on behalf of a call is of use to its pool for so long: then another gateway has likely written.
const READ_BELIEVED: Duration = Duration::from_secs(1);
/// Pools that are remembered, beyond those in use.
const POOLS_MAX: usize = 100_000;

type PoolKey = (AccountId, ProductId);

/// What an exchange with the store remembers for the next one.
#[derive(Debug, Default)]
struct Memory {
    /// The document as last seen.
    known: Option<Known>,
    /// When it was last written down that this run draws on the pool.
    asked_at: Option<Instant>,
    /// The last lease number used.
    last_number: u64,
    /// Numbers whose grant may not have come through, or could not be written down.
    burnt: Vec<u64>,
    /// Leases that are closed and booked, in case the store forgets that.
    closed: Closed,
    /// By what a store that has forgotten gives itself away.
    witness: Option<Witness>,
    /// What the store was found to have forgotten since it was last asked.
    loss: Loss,
    /// Units of leases that are closed and booked.
    booked: u64,
    /// When the store was last asked for all of the account's pools.
    looked_at: Option<Instant>,
    /// For the rate: when, and how many units were drawn by then.
    measured: Option<(Instant, u64)>,
    /// When the last exchange began.
    exchanged_at: Option<Instant>,
}

/// A pool's document and who holds it.
#[derive(Debug, Clone)]
struct Known {
    pool: Stamped<Pool>,
    server: ServerId,
}

impl Known {
    fn of(product: &ProductId, loaded: Loaded) -> Option<Self> {
        let Loaded { mut pools, server, .. } = loaded;
        pools.remove(product).map(|pool| Self { pool, server })
    }
}

/// How lately a pool was drawn on: units drawn by then, and when that was last seen to have grown.
type Pace = (u64, Instant);

/// An account's documents, read on behalf of a call.
#[derive(Debug)]
pub struct Read {
    /// What was read.
    pub loaded: Loaded,
    /// When the store was asked.
    pub asked: Instant,
}

#[derive(Debug)]
struct Entry {
    pool: Arc<LocalPool>,
    memory: Mutex<Memory>,
    pace: std::sync::Mutex<Option<Pace>>,
}

impl Entry {
    /// Notes how much was drawn; returns whether the pool can do without its leases.
    fn is_idle(&self, now: Instant) -> bool {
        let drawn = self.pool.drawn();
        let mut pace = locked(&self.pace);
        match *pace {
            Some((before, at)) if before == drawn => now.duration_since(at) >= IDLE_AFTER,
            Some(_) | None => {
                *pace = Some((drawn, now));
                false
            }
        }
    }

    /// Whether the store should hear of it now.
    fn is_due(&self, now: Instant) -> bool {
        let Ok(memory) = self.memory.try_lock() else { return false }; // an exchange is under way
        let since = memory.exchanged_at.map_or(Duration::MAX, |at| now.duration_since(at));
        let open_calls = Duration::try_from(REPORT_OPEN_EVERY).unwrap_or(Duration::MAX);
        since >= REPORT_AFTER && self.pool.has_news(now) || since >= open_calls && self.pool.holds_retired()
    }
}

fn locked<T>(mutex: &std::sync::Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner) // plain values: valid between any two operations
}

/// What the ledger works with.
pub struct Parts {
    /// The shared books, in the name of this run.
    pub desk: Desk,
    /// The writer for grants.
    pub grants: Arc<dyn Journal>,
    /// Counts commits and leases.
    pub metrics: Metrics,
    /// Pools that earlier runs have drawn on and that are not booked yet.
    pub unbooked: Arc<Unbooked>,
}

/// All pools that this gateway has touched.
pub struct Ledger {
    parts: Parts,
    pools: DashMap<PoolKey, Arc<Entry>>,
    nudges: mpsc::UnboundedSender<PoolKey>,
    /// When the store last did not take a report.
    failed_at: std::sync::Mutex<Option<Instant>>,
    /// When it last had no room for one. Unlike other failures this is not over when it answers a question.
    full_at: std::sync::Mutex<Option<Instant>>,
    /// Whether new leases may be asked for: this gateway has checked in, and the store is open.
    open: AtomicBool,
    /// The store has turned out to be another than the one checked in with.
    alarm: Notify,
    /// This run's journal is booked although it goes on: another process has taken its place.
    superseded: AtomicBool,
    /// Units in suspense, of the pools that have any.
    suspense: DashMap<PoolKey, u64>,
}

/// The receiving end of nudges; given to [`Ledger::run`]. Holds at most one nudge per pool (see [`LocalPool::nudge`]).
pub type Nudges = mpsc::UnboundedReceiver<PoolKey>;

/// Exchanges and answers to recalls that are under way.
type Active<'a> = FuturesUnordered<BoxFuture<'a, ()>>;

impl Ledger {
    /// A ledger with no pool yet. It asks for no lease before [`Ledger::set_open`].
    pub fn new(parts: Parts) -> (Self, Nudges) {
        let (nudges, nudged) = mpsc::unbounded_channel();
        parts.unbooked.tell(nudges.clone());
        let ledger = Self {
            parts,
            pools: DashMap::new(),
            nudges,
            failed_at: std::sync::Mutex::default(),
            full_at: std::sync::Mutex::default(),
            open: AtomicBool::new(false),
            alarm: Notify::new(),
            superseded: AtomicBool::new(false),
            suspense: DashMap::new(),
        };
        (ledger, nudged)
    }

    /// This run's name.
    pub fn incarnation(&self) -> &Incarnation {
        &self.parts.desk.by
    }

    /// Pools that earlier runs have drawn on and that are not booked yet.
    pub fn unbooked(&self) -> &Unbooked {
        &self.parts.unbooked
    }

    /// Whether the store has failed within the last while.
    pub fn store_failed_within(&self, recent: Duration) -> bool {
        let within = |at: &std::sync::Mutex<Option<Instant>>| locked(at).is_some_and(|at| at.elapsed() < recent);
        within(&self.failed_at) || within(&self.full_at)
    }

    /// Notes that the store has failed.
    pub fn note_store_failure(&self) {
        *locked(&self.failed_at) = Some(Instant::now());
    }

    /// Notes that the store answers again.
    pub fn note_store_answer(&self) {
        *locked(&self.failed_at) = None;
    }

    /// Notes that the store had no room for a report, or that it has taken one.
    fn note_room(&self, room: bool) {
        *locked(&self.full_at) = (!room).then(Instant::now);
    }

    /// Whether another process has taken this run's place: it may sell nothing any more.
    pub fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::Relaxed)
    }

    /// The local side of a pool.
    pub fn pool(&self, account: &AccountId, product: &ProductId) -> Arc<LocalPool> {
        Arc::clone(&self.entry(account, product).pool)
    }

    /// Takes in what was read a moment ago, so that the first exchange of a pool, which comes next, need not read it
    /// again. A pool that has exchanged anything knows better. What has changed since is found out by the commit.
    pub fn introduce(&self, pool: &LocalPool, read: Read) {
        if read.asked.elapsed() > READ_BELIEVED {
            return;
        }
        self.parts.desk.time.note(read.asked, read.loaded.now);
        let entry = self.entry(&pool.account, &pool.product);
        if let Ok(mut memory) = entry.memory.try_lock()
            && memory.exchanged_at.is_none()
        {
            memory.known = Known::of(&pool.product, read.loaded);
        }
    }

    fn entry(&self, account: &AccountId, product: &ProductId) -> Arc<Entry> {
        let key = (account.clone(), product.clone());
        if let Some(entry) = self.pools.get(&key) {
            return Arc::clone(&entry);
        }
        let new = || {
            let pool = Arc::new(LocalPool::new(account.clone(), product.clone()));
            Arc::new(Entry { pool, memory: Mutex::default(), pace: std::sync::Mutex::default() })
        };
        Arc::clone(&self.pools.entry(key).or_insert_with(new))
    }

    /// Asks for an exchange, once until it begins.
    pub fn nudge(&self, pool: &LocalPool) {
        if pool.nudge() {
            // Fails only while the process stops: then nobody waits for long.
            let _ = self.nudges.send((pool.account.clone(), pool.product.clone()));
        }
    }

    /// The store should hear soon of what was used of a pool.
    pub fn tell_soon(&self, pool: &LocalPool) {
        if pool.tell() {
            let _ = self.nudges.send((pool.account.clone(), pool.product.clone())); // as above
        }
    }

    /// Says whether new leases may be asked for. Those who waited for it are served.
    pub fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Release);
        if open {
            for entry in self.pools.iter().filter(|entry| entry.pool.waiting() > 0) {
                entry.pool.nudge();
                let _ = self.nudges.send(entry.key().clone()); // as above
            }
        }
    }

    /// Since when charges may draw on leases that the store has not acknowledged as closed; `None`: there are none.
    pub fn held_since(&self) -> Option<Timestamp> {
        let earliest = self.pools.iter().filter_map(|entry| entry.pool.earliest_deadline()).min();
        // A lease was granted this long before its deadline at most.
        earliest.map(|deadline| deadline.checked_sub(LEASE_DURATION_MAX).unwrap_or(Timestamp::MIN))
    }

    /// Whether new leases may be asked for.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Resolves when the store has turned out to be another than the one that this gateway has checked in with.
    pub async fn alarmed(&self) {
        self.alarm.notified().await;
    }

    /// Notes a sign that the store is another.
    fn raise_alarm(&self) {
        self.open.store(false, Ordering::Release);
        self.alarm.notify_one();
    }

    /// Serves nudges and recalls and reports news until `stop` resolves.
    pub async fn run(&self, mut nudges: Nudges, stop: impl Future<Output = ()>) {
        let mut notices = self.parts.desk.store.changes();
        let mut tick = tokio::time::interval(LOOK_EVERY);
        let mut active: HashMap<PoolKey, Arc<Entry>> = HashMap::new();
        let mut exchanges: Active<'_> = FuturesUnordered::new();
        let mut due: VecDeque<Arc<Entry>> = VecDeque::new();
        tokio::pin!(stop);
        loop {
            // Not in a fixed order: exchanges that a fast store answers at once must not keep the others waiting.
            tokio::select! {
                () = &mut stop => break,
                Some(()) = exchanges.next(), if !exchanges.is_empty() => {}
                Some(key) = nudges.recv(), if exchanges.len() < EXCHANGES_MAX => {
                    if let Some(entry) = self.pools.get(&key).map(|entry| Arc::clone(&entry)) {
                        active.insert(key, Arc::clone(&entry));
                        exchanges.push(self.exchange_soon(entry));
                    }
                }
                notice = notices.recv() => self.hear(notice, &exchanges),
                _ = tick.tick() => {
                    let now = Instant::now();
                    // One whose first exchange is under way holds nothing yet; forgotten, its use would not be reported.
                    let under_way = |entry: &Entry| entry.pool.waiting() > 0 || entry.memory.try_lock().is_err();
                    active.retain(|_, entry| entry.pool.holds_any() || under_way(entry));
                    for entry in active.values() {
                        entry.is_idle(now); // notes the pace
                    }
                    if due.is_empty() {
                        due.extend(active.values().filter(|entry| entry.is_due(now)).map(Arc::clone));
                    }
                    self.show(active.values());
                    self.forget_idle();
                }
            }
            while exchanges.len() < REPORTS_MAX
                && let Some(entry) = due.pop_front()
            {
                if entry.is_due(Instant::now()) {
                    exchanges.push(self.exchange_soon(entry));
                }
            }
        }
        while exchanges.next().await.is_some() {}
    }

    fn exchange_soon(&self, entry: Arc<Entry>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.exchange(&entry).await;
        })
    }

    /// Reports everything and gives all leases back. For the end of the process, when no call is open any more.
    pub async fn finish(&self) {
        let entries: Vec<_> = self.pools.iter().map(|entry| Arc::clone(&entry)).collect();
        for entry in entries.iter().filter(|entry| entry.pool.holds_any()) {
            entry.pool.retire();
            self.exchange(entry).await;
        }
    }

    /// Keeps the number of remembered pools bounded: those that hold nothing and nobody uses can be loaded again.
    fn forget_idle(&self) {
        if self.pools.len() > POOLS_MAX {
            self.pools.retain(|_, entry| entry.pool.holds_any() || Arc::strong_count(&entry.pool) > 1);
        }
    }

    /// Takes in what happened at the store.
    fn hear<'a>(&'a self, notice: Result<Notice, broadcast::error::RecvError>, active: &Active<'a>) {
        match notice {
            Ok(Notice::Changed(account)) => self.note_change(Some(&account), active),
            Ok(Notice::Recall { account, product, by }) if by != self.parts.desk.by => {
                active.push(Box::pin(self.answer_recall(account, product)));
            }
            Ok(Notice::Recall { .. } | Notice::Answered { .. } | Notice::CheckIn) => {}
            Ok(Notice::Missed) | Err(_) => self.note_change(None, active),
        }
    }

    /// An account was changed by a command: what is known of its pools may be wrong, and an empty one may be full.
    fn note_change<'a>(&'a self, changed: Option<&AccountId>, active: &Active<'a>) {
        for entry in &self.pools {
            if changed.is_none_or(|account| entry.pool.account == *account) {
                entry.pool.forget_dry();
                if let Ok(mut memory) = entry.memory.try_lock() {
                    memory.known = None; // an exchange that is under way meets a conflict instead
                }
                if entry.pool.holds_any() {
                    entry.pool.note_news();
                }
            }
        }
        // An operator may have decided on what is in suspense.
        let concerned = |entry: &dashmap::mapref::multiple::RefMulti<'_, PoolKey, u64>| {
            changed.is_none_or(|account| entry.key().0 == *account)
        };
        let keys: Vec<PoolKey> = self.suspense.iter().filter(concerned).map(|entry| entry.key().clone()).collect();
        for (account, product) in keys {
            active.push(self.exchange_soon(self.entry(&account, &product)));
        }
    }

    /// Notes what of a pool is in suspense, for the operators to see.
    pub fn note_suspense(&self, account: &AccountId, product: &ProductId, units: u64) {
        let key = (account.clone(), product.clone());
        if units > 0 {
            self.suspense.insert(key, units);
        } else if !self.suspense.is_empty() {
            self.suspense.remove(&key);
        }
    }

    /// Brings the gauges up to date.
    fn show<'a>(&self, active: impl ExactSizeIterator<Item = &'a Arc<Entry>>) {
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let metrics = &self.parts.metrics;
        metrics.ledger.pools_leased.set(i64::try_from(active.len()).unwrap_or(i64::MAX));
        let (mut leases, mut units, mut unreported) = (0_u64, 0_u64, 0_u64);
        for entry in active {
            let outstanding = entry.pool.outstanding();
            leases = leases.saturating_add(outstanding.0);
            units = units.saturating_add(outstanding.1);
            unreported = unreported.saturating_add(u64::from(entry.pool.has_news(Instant::now())));
        }
        metrics.ledger.leases_open.set(gauge(leases));
        metrics.ledger.units_leased.set(gauge(units));
        metrics.ledger.pools_unreported.set(gauge(unreported));
        metrics.ledger.units_suspended.set(gauge(self.suspense.iter().map(|entry| *entry.value()).sum()));
    }
}
