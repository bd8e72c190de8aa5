//! At start: brings into the books what the journals of earlier runs know and the store does not.

use super::desk::{BUSY_WAIT, Desk};
use super::tally::Tally;
use crate::domain::account::{Sync, sync};
use crate::domain::event::Event;
use crate::domain::id::{AccountId, ProductId};
use crate::domain::settle::RunEnd;
use crate::ports::account_store::{Commit, CommitError, Loaded, StoreError};
use crate::ports::journal::{EarlierRuns, JournalError};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Runs whose journals were read.
    pub runs: usize,
    /// Calls that were charged and whose end is not in the journal: counted.
    pub interrupted: usize,
    /// Bytes that were no valid record.
    pub damaged_bytes: u64,
    /// Units that went into suspense, because a journal may lack records.
    pub suspended: u64,
}

/// Reads every journal that is not settled, books what the store lacks, and notes that it is settled.
pub async fn recover(runs: &dyn EarlierRuns, desk: &Desk) -> Result<Recovered, RecoveryError> {
    let mut found = Recovered::default();
    for run in runs.unsettled()? {
        let mut tally = Tally::default();
        let damage = runs.read(&run, &mut |writer, record| tally.add(writer, record))?;
        found.interrupted = found.interrupted.saturating_add(tally.count_open());
        let undamaged = damage.bytes == 0 && damage.missing_files == 0;
        let whole = undamaged && (run.same_boot || tally.closed());
        let end = if whole { RunEnd::Whole } else { RunEnd::Lost };
        for ((account, product), asked) in tally.reports(&run.incarnation, end) {
            let suspended = book(desk, (&account, &product), &asked).await?;
            found.suspended = found.suspended.saturating_add(suspended);
        }
        runs.mark_settled(&run)?;
        found.runs = found.runs.saturating_add(1);
        found.damaged_bytes = found.damaged_bytes.saturating_add(damage.bytes);
        tracing::info!(run = %run.incarnation, damaged_bytes = damage.bytes, whole, "an earlier run's journal is settled");
    }
    Ok(found)
}

/// Books one pool's reports; returns how many units went into suspense.
async fn book(desk: &Desk, (account, product): (&AccountId, &ProductId), asked: &Sync) -> Result<u64, RecoveryError> {
    let mut loaded = desk.load(account).await.map_err(CommitError::from)?;
    for _ in 0..COMMIT_ATTEMPTS_MAX {
        let there = loaded.as_ref().and_then(|there: &Loaded| Some((there, there.pools.get(product)?)));
        let Some((there, known)) = there else {
            tracing::error!(%account, %product, "a journal knows of use in a pool that the store does not have");
            return Ok(0);
        };
        let (change, _) = sync(&known.value, asked, desk.now());
        let suspended = change.events.iter().filter_map(suspended_units).sum();
        let Some(value) = change.pool else { return Ok(0) };
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
            Ok(()) => return Ok(suspended),
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
