//! Commands on their way into the books: written down before they are committed, and told again to a store that has
//! forgotten them. What operators may ask for is in `accounts`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::desk::{BUSY_WAIT, Desk};
use crate::domain::account::{Account, Books, Change, apply};
use crate::domain::command::Command;
use crate::domain::id::{AccountId, CommandId, ProductId};
use crate::ports::account_store::{Commit, CommitError, Loaded, PURCHASE_BYTES_MAX, StoreError};
use crate::ports::journal::{CommandRefused, EarlierRuns, Journal, JournalError, JournalledCommand, Record};

/// What was written down longer ago is not told again: the longest loss of a store that is repaired.
pub const TOLD_AGAIN_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A command that cannot be done yet, because one of another gateway must come first, is tried for so long.
const RETRY_FOR: Duration = Duration::from_secs(60);
/// Commands that are tried again, at most; the journal has the others, for the next check-in.
const RETRIED_MAX: usize = 10_000;
/// How often a change is tried against documents that others change at the same time.
const COMMIT_ATTEMPTS_MAX: usize = 8;

/// A command as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Told {
    /// Opens an account.
    Open {
        /// The command that opens it.
        id: CommandId,
        /// Its name for people.
        name: String,
    },
    /// Changes one.
    Change(Box<Command>),
}

impl Told {
    fn id(&self) -> &CommandId {
        match self {
            Self::Open { id, .. } => id,
            Self::Change(command) => &command.id,
        }
    }
}

/// Why a command could not be told again.
#[derive(Debug, thiserror::Error)]
pub enum TellError {
    /// The journal could not be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] CommitError),
}

/// How telling a command again went.
enum Retold {
    /// It is in the documents.
    There,
    /// The rules refuse it as things are.
    Refused(String),
}

/// This gateway's commands.
pub struct CommandLog {
    desk: Desk,
    journal: Arc<dyn Journal>,
    runs: Arc<dyn EarlierRuns>,
    /// Whose outcome is unknown, or which must wait for another gateway's; with the end of patience.
    pending: Mutex<Vec<(JournalledCommand, Instant)>>,
    /// What operators ask for at this moment: written down, it may be, and not in the store yet.
    under_way: Mutex<BTreeSet<(AccountId, CommandId)>>,
}

/// A command is under way as long as this lives.
pub(super) struct UnderWay<'a> {
    log: &'a CommandLog,
    which: (AccountId, CommandId),
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.log.commands_under_way().remove(&self.which);
    }
}

impl CommandLog {
    /// Over the journal's writer for grants.
    pub fn new(desk: Desk, journal: Arc<dyn Journal>, runs: Arc<dyn EarlierRuns>) -> Self {
        Self { desk, journal, runs, pending: Mutex::default(), under_way: Mutex::default() }
    }

    /// Notes that a command is about to be written down and done: until that has ended nobody else does it, for a store
    /// that lacks it has not forgotten it.
    pub(super) fn under_way(&self, account: &AccountId, command: &CommandId) -> UnderWay<'_> {
        let which = (account.clone(), command.clone());
        self.commands_under_way().insert(which.clone());
        UnderWay { log: self, which }
    }

    fn commands_under_way(&self) -> MutexGuard<'_, BTreeSet<(AccountId, CommandId)>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner) // plain values
    }

    fn is_under_way(&self, record: &JournalledCommand) -> bool {
        self.commands_under_way().contains(&(record.account.clone(), record.command.clone()))
    }

    /// Writes a command down; it survives the loss of power when this returns.
    pub(super) async fn write(
        &self,
        account: &AccountId,
        told: &Told,
        at: Timestamp,
    ) -> Result<JournalledCommand, JournalError> {
        let body = serde_json::to_string(told).map_err(|error| JournalError::Io(error.to_string()))?;
        let record = JournalledCommand { account: account.clone(), command: told.id().clone(), at, body };
        let position = self.journal.append(&Record::Command(record.clone()))?;
        match self.journal.on_disk(position).await {
            Ok(()) => Ok(record),
            Err(error) => {
                self.refused(record);
                Err(error)
            }
        }
    }

    /// Notes that a command that was written down was not done and never will be.
    pub(super) fn refused(&self, record: JournalledCommand) {
        let JournalledCommand { account, command, .. } = record;
        if let Err(error) = self.journal.append(&Record::Refused(CommandRefused { account, command })) {
            tracing::error!(%error, "a command was refused, but the journal does not say so");
        }
    }

    /// Notes that the store failed while it was told of a command. Where it is certain that nothing was written, the
    /// command is refused; where nobody knows, it will be done once the store answers.
    pub(super) fn failed(&self, record: JournalledCommand, error: &StoreError) {
        match error {
            StoreError::Full(_) => self.refused(record),
            StoreError::Unavailable(_) | StoreError::Broken { .. } => {
                self.retry_later(record, Instant::now() + RETRY_FOR);
            }
        }
    }

    fn retry_later(&self, record: JournalledCommand, until: Instant) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.len() < RETRIED_MAX {
            pending.push((record, until));
        }
    }

    /// Does what a store that may have forgotten lacks of the commands of the last days.
    ///
    /// # Errors
    /// When the journal cannot be read or the store does not answer. Telling them again is harmless.
    pub async fn tell_again(&self) -> Result<(), TellError> {
        let since = self.desk.now().checked_sub(TOLD_AGAIN_FOR).unwrap_or(Timestamp::MIN);
        let (runs, own) = (Arc::clone(&self.runs), self.desk.by.clone());
        let read = tokio::task::spawn_blocking(move || journalled(&*runs, &own, since)).await;
        let commands = read.map_err(|error| JournalError::Io(error.to_string()))??;
        self.tell(commands.into_iter().map(|record| (record, Instant::now() + RETRY_FOR)).collect()).await
    }

    /// Tries again what could not be done before.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn retry(&self) -> Result<(), TellError> {
        let pending = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        self.tell(pending).await
    }

    async fn tell(&self, commands: Vec<(JournalledCommand, Instant)>) -> Result<(), TellError> {
        let mut left = commands.into_iter();
        while let Some((record, until)) = left.next() {
            if Instant::now() < until && self.is_under_way(&record) {
                self.retry_later(record, until);
                continue;
            }
            match self.tell_one(&record).await {
                Ok(Retold::There) => {}
                Ok(Retold::Refused(_)) if Instant::now() < until => self.retry_later(record, until),
                Ok(Retold::Refused(reason)) => {
                    let JournalledCommand { account, command, .. } = record;
                    tracing::error!(%account, %command, reason, "a command that the store has forgotten cannot be done again");
                }
                Err(error) => {
                    self.retry_later(record, until);
                    left.for_each(|(record, until)| self.retry_later(record, until));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn tell_one(&self, record: &JournalledCommand) -> Result<Retold, TellError> {
        let told = match serde_json::from_str(&record.body) {
            Ok(told) => told,
            Err(error) => return Ok(Retold::Refused(error.to_string())),
        };
        for _ in 0..COMMIT_ATTEMPTS_MAX {
            let loaded = match self.desk.load(&record.account).await {
                Ok(loaded) => loaded,
                Err(error @ StoreError::Broken { .. }) => return Ok(Retold::Refused(error.to_string())),
                Err(error @ (StoreError::Unavailable(_) | StoreError::Full(_))) => {
                    return Err(CommitError::from(error).into());
                }
            };
            let known = |loaded: &Loaded| loaded.head.value.commands.contains_key(&record.command);
            let commit = match (&told, &loaded) {
                (_, Some(loaded)) if known(loaded) => return Ok(Retold::There),
                (Told::Open { .. }, Some(_)) => return Ok(Retold::Refused("the account's id is taken".to_owned())),
                (Told::Open { id, name }, None) => opening(&self.desk, account(record, id, name)),
                (Told::Change(_), None) => return Ok(Retold::Refused("there is no such account".to_owned())),
                (Told::Change(command), Some(loaded)) => match apply(&books(loaded), command, record.at) {
                    Err(refusal) => return Ok(Retold::Refused(refusal.to_string())),
                    Ok(change) => match commit_of(&self.desk, loaded, &change) {
                        None => return Ok(Retold::There),
                        Some(commit) => commit,
                    },
                },
            };
            match self.desk.commit(commit).await {
                Ok(()) => {
                    tracing::warn!(account = %record.account, command = %record.command, "the store had forgotten a command: it is done again");
                    return Ok(Retold::There);
                }
                Err(CommitError::Conflict(_) | CommitError::TimeOff(_) | CommitError::Stranger(_)) => {}
                Err(CommitError::Busy | CommitError::Closed) => tokio::time::sleep(BUSY_WAIT).await,
                Err(error @ (CommitError::TooLarge { .. } | CommitError::KeyTaken)) => {
                    return Ok(Retold::Refused(error.to_string()));
                }
                Err(error @ CommitError::Store(_)) => return Err(error.into()),
            }
        }
        Ok(Retold::Refused("the account keeps changing".to_owned()))
    }
}

/// The commands that this gateway has written down since a moment and that were not refused, oldest first.
fn journalled(
    runs: &dyn EarlierRuns,
    own: &crate::domain::id::Incarnation,
    since: Timestamp,
) -> Result<Vec<JournalledCommand>, JournalError> {
    let mut commands: BTreeMap<(AccountId, CommandId), JournalledCommand> = BTreeMap::new();
    let earlier = runs.written_since(since)?.into_iter().map(|run| run.incarnation);
    for run in earlier.chain([own.clone()]) {
        runs.read_first(&run, &mut |record| match record {
            Record::Command(command) if command.at >= since => {
                commands.insert((command.account.clone(), command.command.clone()), command);
            }
            Record::Refused(refused) => {
                commands.remove(&(refused.account, refused.command));
            }
            Record::Command(_)
            | Record::Grant(_)
            | Record::Charge(_)
            | Record::End(_)
            | Record::Close
            | Record::Ask(_) => {}
        })?;
    }
    let mut commands: Vec<_> = commands.into_values().collect();
    commands.sort_by_key(|command| command.at);
    Ok(commands)
}

fn account(record: &JournalledCommand, command: &CommandId, name: &str) -> Account {
    let mut head = Account::open(record.account.clone(), name.to_owned(), record.at);
    head.commands.insert(command.clone(), record.at);
    head
}

/// The commit that opens an account.
pub(super) fn opening(desk: &Desk, head: Account) -> Commit {
    Commit {
        account: head.id.clone(),
        head: Some(desk.write(None, head)),
        pool: None,
        ended: Vec::new(),
        events: Vec::new(),
        durable: true,
        believed: desk.believed(None),
        grants: false,
        by: desk.by.clone(),
        turn: false,
    }
}

/// The commit of a command's change; `None` when nothing changes: the command was applied before.
pub(super) fn commit_of(desk: &Desk, loaded: &Loaded, change: &Change) -> Option<Commit> {
    let head = desk.write(Some(loaded.head.stamp), change.head.clone()?);
    let pool = change.pool.clone().map(|pool| {
        let seen = loaded.pools.get(&pool.product).map(|there| there.stamp);
        desk.write(seen, pool)
    });
    Some(Commit {
        account: head.value.id.clone(),
        head: Some(head),
        pool,
        ended: change.ended.clone(),
        events: change.events.clone(),
        durable: true,
        believed: desk.believed(Some(&loaded.server)),
        grants: false,
        by: desk.by.clone(),
        turn: true,
    })
}

/// The size of a pool's document, if a purchase would make it so large that leases have no room there.
pub(super) fn crowded(loaded: &Loaded, change: &Change) -> Option<(ProductId, usize)> {
    let next = change.pool.as_ref()?;
    let before = loaded.pools.get(&next.product).map_or(0, |pool| pool.value.packages.len());
    if next.packages.len() <= before {
        return None;
    }
    let bytes = serde_json::to_string(next).map_or(usize::MAX, |text| text.len());
    (bytes > PURCHASE_BYTES_MAX).then(|| (next.product.clone(), bytes))
}

/// An account's documents without their stamps.
pub(super) fn books(loaded: &Loaded) -> Books {
    let pools = loaded.pools.iter().map(|(product, pool)| (product.clone(), pool.value.clone()));
    Books { head: loaded.head.value.clone(), pools: pools.collect() }
}
