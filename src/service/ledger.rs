//! This gateway's side of the shared books: keeps every pool supplied with leases and the store informed of their use.
//! One exchange per pool is under way at a time; it reports, and asks for the needs of all who wait.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use tokio::sync::{Mutex, broadcast, mpsc};

use super::desk::{BUSY_WAIT, Desk};
use super::supply::{Dry, Granted, LocalPool, Standing};
use crate::domain::account::{Change, Sync, sync};
use crate::domain::amount::Units;
use crate::domain::id::{AccountId, Incarnation, PackageId, ProductId};
use crate::domain::lease::{Lease, LeasePart, Want};
use crate::domain::pool::{Pool, Shortage};
use crate::domain::settle::LeaseReport;
use crate::ports::account_store::{Commit, CommitError, Loaded, Stamped, StoreError};
use crate::ports::gateways::{Notice, ServerId};
use crate::ports::journal::{Ask, Grant, Journal, JournalError, Record};
use crate::telemetry::metrics::Metrics;

/// How often pools with news are reported.
const REPORT_EVERY: Duration = Duration::from_millis(250);
/// A commit that meets this many conflicts in a row is left to the next exchange.
const COMMIT_ATTEMPTS_MAX: usize = 8;
/// Exchanges that are under way at one time.
const EXCHANGES_MAX: usize = 256;
/// Pools that are remembered, beyond those in use.
const POOLS_MAX: usize = 100_000;
/// Rates are measured over at least this long.
const RATE_WINDOW_MIN: Duration = Duration::from_millis(100);

type PoolKey = (AccountId, ProductId);

/// What an exchange with the store remembers for the next one.
#[derive(Debug, Default)]
struct Memory {
    /// The document as last seen.
    known: Option<Known>,
    /// Whether the journal says that this run draws on the pool.
    asked: bool,
    /// The last lease number used.
    last_number: u64,
    /// Numbers whose grant may not have come through, or could not be written down.
    burnt: Vec<u64>,
    /// Units of leases that are closed and booked.
    booked: u64,
    /// For the rate: when, and how many units were drawn by then.
    measured: Option<(Instant, u64)>,
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

#[derive(Debug)]
struct Entry {
    pool: Arc<LocalPool>,
    memory: Mutex<Memory>,
}

/// What the ledger works with.
pub struct Parts {
    /// The shared books, in the name of this run.
    pub desk: Desk,
    /// The writer for grants.
    pub grants: Arc<dyn Journal>,
    /// Counts commits and leases.
    pub metrics: Metrics,
}

/// All pools that this gateway has touched.
pub struct Ledger {
    parts: Parts,
    pools: DashMap<PoolKey, Arc<Entry>>,
    nudges: mpsc::UnboundedSender<PoolKey>,
    /// When the store last did not take a report.
    failed_at: std::sync::Mutex<Option<Instant>>,
}

/// The receiving end of nudges; given to [`Ledger::run`]. Holds at most one nudge per pool (see [`LocalPool::nudge`]).
pub type Nudges = mpsc::UnboundedReceiver<PoolKey>;

/// Why an exchange brought nothing.
#[derive(Debug, thiserror::Error)]
enum ExchangeError {
    #[error(transparent)]
    Store(#[from] CommitError),
    #[error("the documents changed {COMMIT_ATTEMPTS_MAX} times meanwhile")]
    Contended,
}

impl From<StoreError> for ExchangeError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

impl Ledger {
    /// A ledger with no pool yet.
    pub fn new(parts: Parts) -> (Self, Nudges) {
        let (nudges, nudged) = mpsc::unbounded_channel();
        (Self { parts, pools: DashMap::new(), nudges, failed_at: std::sync::Mutex::default() }, nudged)
    }

    /// This run's name.
    pub fn incarnation(&self) -> &Incarnation {
        &self.parts.desk.by
    }

    /// Whether the store has failed within the last while.
    pub fn store_failed_within(&self, recent: Duration) -> bool {
        let failed_at = self.failed_at.lock().unwrap_or_else(PoisonError::into_inner);
        failed_at.is_some_and(|at| at.elapsed() < recent)
    }

    /// The local side of a pool.
    pub fn pool(&self, account: &AccountId, product: &ProductId) -> Arc<LocalPool> {
        let key = (account.clone(), product.clone());
        if let Some(entry) = self.pools.get(&key) {
            return Arc::clone(&entry.pool);
        }
        let new = || {
            let pool = Arc::new(LocalPool::new(account.clone(), product.clone()));
            Arc::new(Entry { pool, memory: Mutex::default() })
        };
        Arc::clone(&self.pools.entry(key).or_insert_with(new).pool)
    }

    /// Asks for an exchange, once until it begins.
    pub fn nudge(&self, pool: &LocalPool) {
        if pool.nudge() {
            // Fails only while the process stops: then nobody waits for long.
            let _ = self.nudges.send((pool.account.clone(), pool.product.clone()));
        }
    }

    /// Serves nudges and reports news until `stop` resolves.
    pub async fn run(&self, mut nudges: Nudges, stop: impl Future<Output = ()>) {
        let mut changes = self.parts.desk.store.changes();
        let mut tick = tokio::time::interval(REPORT_EVERY);
        let mut active: HashMap<PoolKey, Arc<Entry>> = HashMap::new();
        let mut exchanges = FuturesUnordered::new();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(()) = exchanges.next(), if !exchanges.is_empty() => {}
                Some(key) = nudges.recv(), if exchanges.len() < EXCHANGES_MAX => {
                    if let Some(entry) = self.pools.get(&key).map(|entry| Arc::clone(&entry)) {
                        active.insert(key, Arc::clone(&entry));
                        exchanges.push(self.exchange(entry));
                    }
                }
                changed = changes.recv() => self.note_change(changed),
                _ = tick.tick() => {
                    let now = Instant::now();
                    active.retain(|_, entry| entry.pool.holds_any());
                    self.parts.metrics.pools_leased.set(i64::try_from(active.len()).unwrap_or(i64::MAX));
                    let idle = |entry: &&Arc<Entry>| entry.memory.try_lock().is_ok();
                    let due = active.values().filter(|entry| entry.pool.has_news(now)).filter(idle);
                    exchanges.extend(due.take(EXCHANGES_MAX).map(|entry| self.exchange(Arc::clone(entry))));
                    self.forget_idle();
                }
            }
        }
        while exchanges.next().await.is_some() {}
    }

    /// Reports everything and gives all leases back. For the end of the process, when no call is open any more.
    pub async fn finish(&self) {
        let entries: Vec<_> = self.pools.iter().map(|entry| Arc::clone(&entry)).collect();
        for entry in entries.iter().filter(|entry| entry.pool.holds_any()) {
            entry.pool.retire();
            self.exchange(Arc::clone(entry)).await;
        }
    }

    /// Keeps the number of remembered pools bounded: those that hold nothing and nobody uses can be loaded again.
    fn forget_idle(&self) {
        if self.pools.len() > POOLS_MAX {
            self.pools.retain(|_, entry| entry.pool.holds_any() || Arc::strong_count(&entry.pool) > 1);
        }
    }

    /// An account was changed by a command: what is known of its pools may be wrong, and an empty one may be full.
    fn note_change(&self, notice: Result<Notice, broadcast::error::RecvError>) {
        let changed = match notice {
            Ok(Notice::Changed(account)) => Some(account),
            Ok(Notice::Recall { .. } | Notice::Answered { .. } | Notice::CheckIn) => return,
            Ok(Notice::Missed) | Err(_) => None,
        };
        for entry in &self.pools {
            if changed.as_ref().is_none_or(|account| entry.pool.account == *account) {
                entry.pool.forget_dry();
                if let Ok(mut memory) = entry.memory.try_lock() {
                    memory.known = None; // an exchange that is under way meets a conflict instead
                }
                if entry.pool.holds_any() {
                    self.nudge(&entry.pool);
                }
            }
        }
    }

    async fn exchange(&self, entry: Arc<Entry>) {
        let pool = &entry.pool;
        let mut memory = entry.memory.lock().await;
        match self.try_exchange(pool, &mut memory).await {
            Ok(dry) => pool.answer(dry),
            Err(error) => {
                memory.known = None;
                pool.sync_failed();
                self.parts.metrics.commits.failed.inc();
                *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                tracing::warn!(account = %pool.account, product = %pool.product, %error, "the store did not take a report");
                pool.answer(Some(Dry::Unavailable));
            }
        }
    }

    async fn try_exchange(&self, pool: &LocalPool, memory: &mut Memory) -> Result<Option<Dry>, ExchangeError> {
        let asked = Instant::now();
        let wants = pool.begin_sync(asked) || pool.waiting() > 0;
        let want = want(pool, memory, asked);
        let number = memory.last_number.saturating_add(1);
        for _ in 0..COMMIT_ATTEMPTS_MAX {
            let Some(known) = self.known(pool, memory).await? else {
                pool.accept(None, &[], Standing { base: 0, expires: None });
                return Ok(Some(Dry::Short(Shortage::NoPackage)));
            };
            if wants && !memory.asked {
                memory.asked = self.write(&ask(pool)).is_ok();
                if !memory.asked {
                    return Ok(Some(Dry::Unavailable));
                }
            }
            let now = self.parts.desk.now();
            let mut reports = pool.reports();
            reports.extend(memory.burnt.iter().map(|number| LeaseReport::unused(*number, now)));
            let grant = wants.then_some((number, want));
            let incarnation = self.parts.desk.by.clone();
            let asked_for = Sync { incarnation, reports, ended: None, grant };
            let (change, lease) = sync(&known.pool.value, &asked_for, now);
            let Some(next) = self.commit(pool, (known, change, lease.is_some()), memory).await? else { continue };
            memory.burnt.clear();
            let granted = lease.as_ref().and_then(|lease| {
                memory.last_number = number;
                // What cannot be written down is not used: it is reported as such next time.
                let written = self.write(&grant_record(pool, number, lease));
                let admits_until = asked + Duration::try_from(next.lasts(lease)).unwrap_or_default();
                written
                    .map(|()| granted(number, lease, &next, admits_until))
                    .map_err(|_| memory.burnt.push(number))
                    .ok()
            });
            let dry = match (&lease, &granted) {
                (None, _) => wants.then(|| Dry::Short(next.shortage(now))),
                (Some(_), None) => Some(Dry::Unavailable),
                (Some(_), Some(_)) => None,
            };
            pool.accept(granted, &asked_for.reports, standing(&next, &asked_for.reports, memory, now));
            return Ok(dry);
        }
        Err(ExchangeError::Contended)
    }

    /// The pool's document as last seen, else as the store has it; `None` if there is none.
    async fn known(&self, pool: &LocalPool, memory: &mut Memory) -> Result<Option<Known>, StoreError> {
        if memory.known.is_none() {
            let loaded = self.parts.desk.load(&pool.account).await?;
            memory.known = loaded.and_then(|loaded| Known::of(&pool.product, loaded));
        }
        Ok(memory.known.clone())
    }

    /// Commits if anything changed. Returns the document as it is now, or `None` after a conflict.
    async fn commit(
        &self,
        pool: &LocalPool,
        (known, change, grants): (Known, Change, bool),
        memory: &mut Memory,
    ) -> Result<Option<Pool>, ExchangeError> {
        let Known { pool: seen, server } = known;
        let Some(next) = change.pool else { return Ok(Some(seen.value)) };
        let nothing_but_time = Pool { time_high: seen.value.time_high, ..next.clone() } == seen.value;
        if nothing_but_time {
            return Ok(Some(seen.value));
        }
        let desk = &self.parts.desk;
        let write = desk.write(Some(seen.stamp), next.clone());
        let stamp = write.stamp;
        let commit = Commit {
            account: pool.account.clone(),
            head: None,
            pool: Some(write),
            ended: change.ended,
            events: change.events,
            durable: false,
            believed: desk.believed(Some(&server)),
            grants,
            by: desk.by.clone(),
            turn: false,
        };
        match desk.commit(commit).await {
            Ok(()) => {
                self.parts.metrics.commits.done.inc();
                memory.known = Some(Known { pool: Stamped { stamp, value: next.clone() }, server });
                Ok(Some(next))
            }
            Err(CommitError::Conflict(current)) => {
                self.parts.metrics.commits.conflict.inc();
                memory.known = current.and_then(|current| Known::of(&pool.product, *current));
                Ok(None)
            }
            Err(CommitError::TimeOff(_)) => Ok(None),
            Err(CommitError::Busy) => {
                tokio::time::sleep(BUSY_WAIT).await;
                Ok(None)
            }
            Err(error) => {
                // Whether it happened is unknown: the number is reported empty if nothing comes of it.
                memory.last_number = memory.last_number.saturating_add(1);
                memory.burnt.push(memory.last_number);
                Err(error.into())
            }
        }
    }

    fn write(&self, record: &Record) -> Result<(), JournalError> {
        let written = self.parts.grants.append(record).map(|_| ());
        written.inspect_err(|error| tracing::warn!(%error, "no lease is used, for it cannot be written down"))
    }
}

fn grant_record(pool: &LocalPool, number: u64, lease: &Lease) -> Record {
    let (account, product) = (pool.account.clone(), pool.product.clone());
    Record::Grant(Grant { account, product, number, parts: lease.parts.clone(), deadline: lease.deadline })
}

/// A lease with the terms of the packages that it draws on.
fn granted(number: u64, lease: &Lease, document: &Pool, admits_until: Instant) -> Granted {
    let terms = |id: &PackageId| document.packages.iter().find(|package| package.id == *id);
    let with_terms = |part: &LeasePart| {
        let billable = terms(&part.package).map(|package| package.billable.clone()).unwrap_or_default();
        (part.clone(), Arc::new(billable))
    };
    let parts = lease.parts.iter().map(with_terms).collect();
    Granted { number, parts, deadline: lease.deadline, admits_until }
}

/// Says, before the first lease, that this run draws on the pool.
fn ask(pool: &LocalPool) -> Record {
    Record::Ask(Ask { account: pool.account.clone(), product: pool.product.clone() })
}

/// What a pool needs: what waits, and what the last second drew.
fn want(pool: &LocalPool, memory: &mut Memory, now: Instant) -> Want {
    let drawn = pool.drawn();
    let waiting = pool.waiting();
    let (since, before) = memory.measured.unwrap_or((now, drawn));
    let elapsed = now.duration_since(since).max(RATE_WINDOW_MIN);
    let per_second = u128::from(drawn.saturating_sub(before)) * 1_000 / elapsed.as_millis().max(1);
    memory.measured = Some((now, drawn));
    Want { now: Units::new(waiting), rate: Units::new(u64::try_from(per_second).unwrap_or(u64::MAX)) }
}

/// How a pool stands after a commit. `base` does not move when use is booked: the documents lose what `booked` gains.
fn standing(document: &Pool, reports: &[LeaseReport], memory: &mut Memory, now: Timestamp) -> Standing {
    let used = |report: &LeaseReport| report.parts.iter().map(|part| part.used.get()).sum::<u64>();
    let open = |report: &&LeaseReport| report.parts.iter().any(|part| !part.outstanding().is_zero());
    let in_open: u64 = reports.iter().filter(open).map(used).sum();
    let closed: u64 = reports.iter().map(used).sum::<u64>().saturating_sub(in_open);
    memory.booked = memory.booked.saturating_add(closed);
    let booked = memory.booked.saturating_add(in_open);
    let base = document.remaining(now).get().saturating_add(booked);
    let expires = document.next_expiry(now).map(|expires| expires.to_string().into());
    Standing { base: i64::try_from(base).unwrap_or(i64::MAX), expires }
}
