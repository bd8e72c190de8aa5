//! Brings into the books what the journals of ended runs know and the store does not: at start, when another run of
//! this gateway ends, and after the store has forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;

use super::desk::{BUSY_WAIT, Desk};
use super::tally::Tally;
use super::unbooked::Unbooked;
use crate::domain::account::{Account, Sync, sync};
use crate::domain::amount::Units;
use crate::domain::id::{AccountId, Incarnation, KeyId, ProductId};
use crate::domain::pool::Pool;
use crate::domain::settle::{LeaseReport, RunEnd};
use crate::ports::account_store::{Commit, CommitError, Loaded, StoreError};
use crate::ports::journal::{Damage, EarlierRun, EarlierRuns, JournalError};

/// Pools that are booked at one time: the store answers many together with one wait for its disk or network.
const BOOKED_AT_ONCE: usize = 256;
/// A commit that meets this many conflicts in a row is given up: nobody else should be writing at start.
const COMMIT_ATTEMPTS_MAX: usize = 8;

type PoolKey = (AccountId, ProductId);

/// Why the books could not be brought up to date. The gateway must not start: it would sell what is sold.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// A journal could not be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] CommitError),
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Runs whose journals were read.
    pub runs: usize,
    /// Calls that were charged and whose end is not in the journal: counted.
    pub interrupted: usize,
    /// Bytes that were no valid record.
    pub damaged_bytes: u64,
    /// Files that are missing.
    pub missing_files: u64,
    /// Pools that a journal knows of and the store does not have.
    pub missing: usize,
    /// Pools whose documents cannot be read.
    pub broken: usize,
    /// Pools that are not booked yet.
    pub left: usize,
    /// Runs of which a pool is not booked yet, or cannot be.
    pub unsettled: BTreeSet<Incarnation>,
    /// Pools that have units in suspense now, and how many.
    pub suspense: BTreeMap<PoolKey, u64>,
}

/// Reads every journal that is not settled, books what the store lacks, and notes of each run all of whose use is booked
/// that it is settled. What is not booked within `patience`, which begins when all is read, is left to a later attempt,
/// and named in `unbooked`.
///
/// # Errors
/// See [`RecoveryError`].
pub async fn recover(
    runs: &Arc<dyn EarlierRuns>,
    desk: &Desk,
    unbooked: &Unbooked,
    patience: Option<Duration>,
) -> Result<Recovered, RecoveryError> {
    let ended = runs.unsettled()?;
    let mut found = Recovered::default();
    book_runs((runs, desk, unbooked), &ended, patience, &mut found).await?;
    if found.left > 0 {
        tracing::info!(pools = found.left, "what earlier runs sold is brought into the books while calls are served");
    }
    let units: u64 = found.suspense.values().sum();
    if units > 0 {
        tracing::warn!(
            units,
            "units are in suspense: see `tollgate packages list`, decide with `tollgate packages resolve`"
        );
    }
    for run in ended.into_iter().filter(|run| !found.unsettled.contains(&run.incarnation)) {
        runs.mark_settled(&run)?;
        tracing::info!(run = %run.incarnation, "an earlier run's journal is settled");
    }
    Ok(found)
}

/// Books again what the runs of the last days knew, whether settled or not: the store may have forgotten it.
///
/// # Errors
/// See [`RecoveryError`].
pub async fn recover_again(
    runs: &Arc<dyn EarlierRuns>,
    desk: &Desk,
    unbooked: &Unbooked,
    since: Timestamp,
) -> Result<Recovered, RecoveryError> {
    let mut found = Recovered::default();
    book_runs((runs, desk, unbooked), &runs.written_since(since)?, None, &mut found).await?;
    Ok(found)
}

/// What a run's own journal says of its leases, as if no call were open. For leases that are closed it is all there is.
///
/// # Errors
/// When the journal cannot be read.
pub async fn own_leases(
    runs: &Arc<dyn EarlierRuns>,
    run: &Incarnation,
) -> Result<BTreeMap<PoolKey, Vec<LeaseReport>>, JournalError> {
    let (tally, _, _) = add_up(runs, run).await?;
    let pools = tally.reports(run, RunEnd::Whole);
    Ok(pools.into_iter().map(|(pool, asked)| (pool, asked.reports)).collect())
}

/// Reads a run's journal and adds it up; also tells how many calls had no end.
async fn add_up(runs: &Arc<dyn EarlierRuns>, run: &Incarnation) -> Result<(Tally, Damage, usize), JournalError> {
    let (runs, run) = (Arc::clone(runs), run.clone());
    let read = tokio::task::spawn_blocking(move || {
        let mut tally = Tally::default();
        let mut damage = runs.read(&run, &mut |writer, record| tally.add(writer, record))?;
        let interrupted = tally.count_open();
        if tally.unknown() > 0 && damage.removed_files == 0 {
            let charges = tally.unknown();
            tracing::error!(%run, charges, "charges draw on leases that the journal does not know");
            damage.missing_files = damage.missing_files.saturating_add(1); // the one that told of them
        }
        Ok((tally, damage, interrupted))
    });
    read.await.map_err(|error| JournalError::Io(error.to_string()))?
}

/// Reads all the runs' journals, then books pool after pool as long as `patience` allows.
async fn book_runs(
    (runs, desk, unbooked): (&Arc<dyn EarlierRuns>, &Desk, &Unbooked),
    ended: &[EarlierRun],
    patience: Option<Duration>,
    found: &mut Recovered,
) -> Result<(), RecoveryError> {
    let mut pools: BTreeMap<PoolKey, Vec<Sync>> = BTreeMap::new();
    for run in ended {
        let (tally, damage, interrupted) = add_up(runs, &run.incarnation).await?;
        let whole = damage.is_whole() && (run.same_boot || tally.closed());
        let end = if whole { RunEnd::Whole } else { RunEnd::Lost };
        for (pool, asked) in tally.reports(&run.incarnation, end) {
            pools.entry(pool).or_default().push(asked);
        }
        found.interrupted = found.interrupted.saturating_add(interrupted);
        found.runs = found.runs.saturating_add(1);
        found.damaged_bytes = found.damaged_bytes.saturating_add(damage.bytes);
        found.missing_files = found.missing_files.saturating_add(damage.missing_files);
    }
    unbooked.add(pools.keys());
    let mut waiting: BTreeMap<PoolKey, Vec<Incarnation>> = BTreeMap::new();
    for (pool, asked) in &pools {
        waiting.insert(pool.clone(), asked.iter().map(|asked| asked.incarnation.clone()).collect());
    }
    let until = patience.map(|patience| Instant::now() + patience);
    let next = || {
        if until.is_some_and(|until| Instant::now() >= until) {
            return None;
        }
        let wanted = std::iter::from_fn(|| unbooked.next_wanted()).find_map(|pool| pools.remove_entry(&pool));
        wanted.or_else(|| pools.pop_first())
    };
    let begun = stream::iter(std::iter::from_fn(next)).map(|(pool, asked)| book_pool(desk, pool, asked));
    let mut booked = begun.buffer_unordered(BOOKED_AT_ONCE);
    while let Some(outcome) = booked.next().await {
        match outcome {
            (pool, Ok(Some(suspense))) => {
                unbooked.remove(&pool);
                waiting.remove(&pool);
                found.suspense.insert(pool, suspense);
            }
            (pool, Ok(None)) => {
                unbooked.remove(&pool);
                waiting.remove(&pool);
                found.missing = found.missing.saturating_add(1);
            }
            // Only this account is refused, until its document is mended.
            (_, Err(CommitError::Store(error @ StoreError::Broken { .. }))) => {
                tracing::error!(%error, "what an earlier run sold cannot be brought into the books yet");
                found.broken = found.broken.saturating_add(1);
            }
            (_, Err(error)) => return Err(error.into()),
        }
    }
    drop(booked);
    found.left = pools.len();
    found.unsettled.extend(waiting.into_values().flatten());
    Ok(())
}

/// Books what each of the runs knows of one pool; see [`book`].
async fn book_pool(desk: &Desk, pool: PoolKey, asked: Vec<Sync>) -> (PoolKey, Result<Option<u64>, CommitError>) {
    let mut suspense = None;
    for asked in asked {
        match book(desk, (&pool.0, &pool.1), &asked).await {
            Ok(now) => suspense = now.or(suspense),
            Err(error) => return (pool, Err(error)),
        }
    }
    (pool, Ok(suspense))
}

/// Books one pool's reports; returns how many units are in suspense now. `None`: there is no such pool.
async fn book(
    desk: &Desk,
    (account, product): (&AccountId, &ProductId),
    asked: &Sync,
) -> Result<Option<u64>, CommitError> {
    let mut loaded = desk.load(account).await?;
    for _ in 0..COMMIT_ATTEMPTS_MAX {
        let there = loaded.as_ref().and_then(|there: &Loaded| Some((there, there.pools.get(product)?)));
        let Some((there, known)) = there else {
            tracing::error!(%account, %product, "a journal knows of use in a pool that the store does not have");
            return Ok(None);
        };
        let asked = &of_budgets(asked, &there.head.value);
        let (change, _) = sync(&known.value, asked, desk.now());
        let Some(value) = change.pool else { return Ok(None) };
        let suspense: Units = value.packages.iter().map(|package| package.suspense).sum();
        let time_high = known.value.time_high;
        if (Pool { time_high, ..value.clone() }) == known.value {
            return Ok(Some(suspense.get())); // an earlier attempt has booked it
        }
        let commit = Commit {
            account: account.clone(),
            head: None,
            pool: Some(desk.write(Some(known.stamp), value)),
            ended: change.ended,
            events: change.events,
            durable: true,
            believed: desk.believed(Some(&there.server)),
            grants: false,
            by: desk.by.clone(),
            turn: true,
        };
        match desk.commit(commit).await {
            Ok(()) => return Ok(Some(suspense.get())),
            Err(CommitError::Conflict(current)) => loaded = current.map(|current| *current),
            Err(CommitError::TimeOff(_)) => {}
            Err(CommitError::Stranger(_)) => loaded = desk.load(account).await?,
            Err(CommitError::Busy) => tokio::time::sleep(BUSY_WAIT).await,
            Err(error) => return Err(error),
        }
    }
    Err(CommitError::Store(StoreError::Unavailable(format!("{account}/{product} keeps changing"))))
}

/// The books count the use of keys with a budget alone; a journal knows that of all.
fn of_budgets(asked: &Sync, head: &Account) -> Sync {
    let mut asked = asked.clone();
    let has_budget = |key: &KeyId| head.keys.iter().any(|known| known.id == *key && !known.budget.is_none());
    asked.reports.iter_mut().for_each(|report| report.spent.retain(|key, _| has_budget(key)));
    asked
}
