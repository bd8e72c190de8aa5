//! Brings into the books what the journals of ended runs know and the store does not: at start, when another run of
//! this gateway ends, and after the store has forgotten.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use super::desk::{BUSY_WAIT, Desk};
use crate::domain::account::{Sync, sync};
use crate::domain::amount::Units;
use crate::domain::event::Event;
use crate::domain::id::{AccountId, Incarnation, ProductId};
use crate::domain::lease::LeasePart;
use crate::domain::settle::{LeaseReport, RunEnd};
use crate::domain::usage::ChargePart;
use crate::ports::account_store::{Commit, CommitError, Loaded, StoreError};
use crate::ports::journal::{Damage, EarlierRun, EarlierRuns, Grant, JournalError, Record};

/// A commit that meets this many conflicts in a row is given up: nobody else should be writing at start.
const COMMIT_ATTEMPTS_MAX: usize = 8;

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
    /// Units that went into suspense, because a journal may lack records.
    pub suspended: u64,
    /// Pools that a journal knows of and the store does not have.
    pub missing: usize,
    /// Pools that have units in suspense now, and how many.
    pub suspense: BTreeMap<(AccountId, ProductId), u64>,
}

/// What a run's journal says of one pool: its leases by number.
type Leases = BTreeMap<u64, Grant>;

/// A run's journal, added up.
#[derive(Default)]
struct Added {
    pools: BTreeMap<(AccountId, ProductId), Leases>,
    /// Charges whose end has not been seen, by core and call.
    open: HashMap<(u16, u64), (AccountId, ProductId, Vec<ChargePart>)>,
    closed: bool,
}

impl Added {
    fn add(&mut self, writer: u16, record: Record) {
        match record {
            Record::Grant(grant) => {
                let pool = self.pools.entry((grant.account.clone(), grant.product.clone())).or_default();
                pool.insert(grant.number, grant);
            }
            Record::Charge(charge) => {
                self.open.insert((writer, charge.call), (charge.account, charge.product, charge.parts));
            }
            Record::End(end) => {
                if let Some(charge) = self.open.remove(&(writer, end.call))
                    && end.billed
                {
                    self.count(charge);
                }
            }
            Record::Ask(ask) => {
                self.pools.entry((ask.account, ask.product)).or_default();
            }
            Record::Close => self.closed = true,
            Record::Command(_) | Record::Refused(_) => {} // see `commands`
        }
    }

    fn count(&mut self, (account, product, parts): (AccountId, ProductId, Vec<ChargePart>)) {
        let pool = self.pools.entry((account, product)).or_default();
        for charged in parts {
            let lease = pool.get_mut(&charged.lease);
            let part = lease.and_then(|lease| lease.parts.iter_mut().find(|part| part.package == charged.package));
            match part {
                Some(part) => part.used.put(charged.units),
                None => {
                    tracing::error!(lease = charged.lease, package = %charged.package, "a charge draws on a lease that the journal does not know")
                }
            }
        }
    }
}

/// Reads every journal that is not settled, books what the store lacks, and notes that it is settled.
///
/// # Errors
/// See [`RecoveryError`].
pub async fn recover(runs: &Arc<dyn EarlierRuns>, desk: &Desk) -> Result<Recovered, RecoveryError> {
    let mut found = Recovered::default();
    for run in runs.unsettled()? {
        book_run(runs, desk, &run, &mut found).await?;
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
    since: Timestamp,
) -> Result<Recovered, RecoveryError> {
    let mut found = Recovered::default();
    for run in runs.written_since(since)? {
        book_run(runs, desk, &run, &mut found).await?;
    }
    Ok(found)
}

/// What a run's own journal says of its leases, as if no call were open. For leases that are closed it is all there is.
///
/// # Errors
/// When the journal cannot be read.
pub async fn own_leases(
    runs: &Arc<dyn EarlierRuns>,
    run: &Incarnation,
) -> Result<BTreeMap<(AccountId, ProductId), Vec<LeaseReport>>, JournalError> {
    let (added, _, _) = add_up(runs, run).await?;
    let reports = |leases: Leases| leases.into_values().map(|lease| report(lease, RunEnd::Whole)).collect();
    Ok(added.pools.into_iter().map(|(pool, leases)| (pool, reports(leases))).collect())
}

/// Reads a run's journal and adds it up; also tells how many calls had no end.
async fn add_up(runs: &Arc<dyn EarlierRuns>, run: &Incarnation) -> Result<(Added, Damage, usize), JournalError> {
    let (runs, run) = (Arc::clone(runs), run.clone());
    let read = tokio::task::spawn_blocking(move || {
        let mut added = Added::default();
        let damage = runs.read(&run, &mut |writer, record| added.add(writer, record))?;
        // The client may have received these heads: they count.
        let open: Vec<_> = added.open.drain().map(|(_, charge)| charge).collect();
        let interrupted = open.len();
        open.into_iter().for_each(|charge| added.count(charge));
        Ok((added, damage, interrupted))
    });
    read.await.map_err(|error| JournalError::Io(error.to_string()))?
}

async fn book_run(
    runs: &Arc<dyn EarlierRuns>,
    desk: &Desk,
    run: &EarlierRun,
    found: &mut Recovered,
) -> Result<(), RecoveryError> {
    let (added, damage, interrupted) = add_up(runs, &run.incarnation).await?;
    found.interrupted = found.interrupted.saturating_add(interrupted);
    let undamaged = damage.bytes == 0 && damage.missing_files == 0;
    let whole = undamaged && (run.same_boot || added.closed);
    let end = if whole { RunEnd::Whole } else { RunEnd::Lost };
    for (pool, leases) in added.pools {
        let reports: Vec<_> = leases.into_values().map(|lease| report(lease, end)).collect();
        let asked = Sync { incarnation: run.incarnation.clone(), reports, ended: Some(end), grant: None };
        let Some((suspended, suspense)) = book(desk, (&pool.0, &pool.1), &asked).await? else {
            found.missing = found.missing.saturating_add(1);
            continue;
        };
        found.suspended = found.suspended.saturating_add(suspended);
        found.suspense.insert(pool, suspense);
    }
    found.runs = found.runs.saturating_add(1);
    found.damaged_bytes = found.damaged_bytes.saturating_add(damage.bytes);
    Ok(())
}

fn report(lease: Grant, end: RunEnd) -> LeaseReport {
    let lost = end == RunEnd::Lost;
    let whole = |part: LeasePart| {
        let returned = if lost { Units::ZERO } else { part.granted.saturating_sub(part.used) };
        LeasePart { returned, ..part }
    };
    LeaseReport {
        number: lease.number,
        parts: lease.parts.into_iter().map(whole).collect(),
        deadline: lease.deadline,
        lost,
    }
}

/// Books one pool's reports; returns how many units went into suspense, and how many are there now. `None`: there is no
/// such pool.
async fn book(
    desk: &Desk,
    (account, product): (&AccountId, &ProductId),
    asked: &Sync,
) -> Result<Option<(u64, u64)>, RecoveryError> {
    let mut loaded = desk.load(account).await.map_err(CommitError::from)?;
    for _ in 0..COMMIT_ATTEMPTS_MAX {
        let there = loaded.as_ref().and_then(|there: &Loaded| Some((there, there.pools.get(product)?)));
        let Some((there, known)) = there else {
            tracing::error!(%account, %product, "a journal knows of use in a pool that the store does not have");
            return Ok(None);
        };
        let (change, _) = sync(&known.value, asked, desk.now());
        let suspended = change.events.iter().filter_map(suspended_units).sum();
        let Some(value) = change.pool else { return Ok(None) };
        let suspense: Units = value.packages.iter().map(|package| package.suspense).sum();
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
            Ok(()) => return Ok(Some((suspended, suspense.get()))),
            Err(CommitError::Conflict(current)) => loaded = current.map(|current| *current),
            Err(CommitError::TimeOff(_)) => {}
            Err(CommitError::Stranger(_)) => loaded = desk.load(account).await.map_err(CommitError::from)?,
            Err(CommitError::Busy) => tokio::time::sleep(BUSY_WAIT).await,
            Err(error) => return Err(error.into()),
        }
    }
    Err(CommitError::Store(StoreError::Unavailable(format!("{account}/{product} keeps changing"))).into())
}

fn suspended_units(event: &Event) -> Option<u64> {
    match event {
        Event::Suspended { suspense, .. } => Some(suspense.get()),
        Event::PackageAdded { .. }
        | Event::PackageUsedUp { .. }
        | Event::PackageExpired { .. }
        | Event::Overrun { .. } => None,
    }
}
