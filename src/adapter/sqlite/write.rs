//! The writing thread: takes what waits, writes it in one transaction, then answers. A commit that does not fit writes
//! nothing, so that it does no harm to the others of its group; a failure of the file fails the whole group.

use std::fs::File;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::open;
use super::read;
use super::signatures::{self, UsedSignatures};
use crate::adapter::documents::{self, HEAD, Verdict};
use crate::adapter::gateways::{Turns, check_believed};
use crate::domain::account::Account;
use crate::domain::event::Event;
use crate::domain::id::{AccountId, ProductId};
use crate::domain::package::Package;
use crate::domain::pool::Pool;
use crate::ports::account_store::{Commit, CommitError, Stamp, StoreError, Write};
use crate::ports::clock::Clock;
use crate::ports::gateways::{Notice, ServerId};

/// Most commits of one transaction: bounds how long the first of them waits for the last.
const GROUP_MAX: usize = 128;

/// What is to be written, and who waits for it.
pub(super) enum Job {
    Commit(Box<Commit>, oneshot::Sender<Result<Timestamp, CommitError>>),
    Use(signatures::Job),
}

/// How a commit went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Written,
    /// It is there already.
    Repeated,
}

/// Why a commit was not written.
enum Failure {
    /// It does not fit; nothing of it was written.
    Refused(CommitError),
    /// The file failed, and with it the whole group.
    File(rusqlite::Error),
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        Self::Refused(error)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::File(error)
    }
}

/// Owns the connection that writes.
pub(super) struct Writer {
    pub(super) db: Connection,
    /// Where the number of commits is noted.
    lock: File,
    used: UsedSignatures,
    /// Whether the connection waits for the disk at each transaction (`synchronous` is FULL, else NORMAL).
    waits_for_disk: bool,
    clock: Arc<dyn Clock>,
    server: ServerId,
    turns: Turns,
    notices: broadcast::Sender<Notice>,
}

impl Writer {
    pub(super) fn new(
        (db, lock, used): (Connection, File, UsedSignatures),
        server: ServerId,
        clock: Arc<dyn Clock>,
        notices: broadcast::Sender<Notice>,
    ) -> Self {
        Self { db, lock, used, waits_for_disk: true, clock, server, turns: Turns::default(), notices }
    }

    /// Writes until all senders have gone.
    pub(super) fn run(mut self, mut queued: mpsc::Receiver<Job>) {
        let mut jobs = Vec::with_capacity(GROUP_MAX);
        while queued.blocking_recv_many(&mut jobs, GROUP_MAX) > 0 {
            let (mut commits, mut waiting, mut uses) = (Vec::new(), Vec::new(), Vec::new());
            for job in jobs.drain(..) {
                match job {
                    Job::Commit(commit, answer) => {
                        commits.push(*commit);
                        waiting.push(answer);
                    }
                    Job::Use(job) => uses.push(job),
                }
            }
            // A call waits for a use: it goes first.
            if !uses.is_empty() {
                self.note_uses(uses);
            }
            if !commits.is_empty() {
                for (waiting, answer) in waiting.into_iter().zip(self.write_group(&commits)) {
                    let _ = waiting.send(answer); // fails when whoever asked has gone
                }
            }
        }
        // A wish: what stays in the log is read at the next start.
        let _ = self.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }

    /// Notes uses without waiting for the disk: the process's death loses none. Where the connection cannot be set to that,
    /// it waits.
    fn note_uses(&mut self, uses: Vec<signatures::Job>) {
        let _ = self.wait_for_disk(false);
        self.used.write_group(&mut self.db, uses, self.clock.now());
    }

    /// Writes commits in one transaction and tells of those that changed a head document. Answers in their order.
    pub(super) fn write_group(&mut self, commits: &[Commit]) -> Vec<Result<Timestamp, CommitError>> {
        let now = self.clock.now();
        match self.try_group(commits, now) {
            Ok(outcomes) => {
                let heard = |(commit, outcome): &(&Commit, &Result<Done, CommitError>)| {
                    commit.head.is_some() && matches!(outcome, Ok(Done::Written))
                };
                for (commit, _) in commits.iter().zip(&outcomes).filter(heard) {
                    let _ = self.notices.send(Notice::Changed(commit.account.clone())); // fails when nobody listens
                }
                outcomes.into_iter().map(|outcome| outcome.map(|_| now)).collect()
            }
            Err(error) => {
                let error = StoreError::from(error);
                commits.iter().map(|_| Err(error.clone().into())).collect()
            }
        }
    }

    /// A transaction that is not committed is rolled back when it is dropped, after an error too.
    fn try_group(&mut self, commits: &[Commit], now: Timestamp) -> rusqlite::Result<Vec<Result<Done, CommitError>>> {
        self.wait_for_disk(commits.iter().any(|commit| commit.durable))?;
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut outcomes = Vec::with_capacity(commits.len());
        for commit in commits {
            outcomes.push(match write(&transaction, commit, (now, &self.server), &mut self.turns) {
                Ok(done) => Ok(done),
                Err(Failure::Refused(error)) => Err(error),
                Err(Failure::File(error)) => return Err(error),
            });
        }
        let counted = "UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE name = 'commits' RETURNING CAST(value AS INTEGER)";
        let number: i64 = transaction.prepare_cached(counted)?.query_row([], |row| row.get(0))?;
        transaction.commit()?;
        open::note_commits(&self.lock, number);
        Ok(outcomes)
    }

    /// SQLite lets this be changed between transactions only.
    fn wait_for_disk(&mut self, wanted: bool) -> rusqlite::Result<()> {
        if self.waits_for_disk != wanted {
            self.db.pragma_update(None, "synchronous", if wanted { "FULL" } else { "NORMAL" })?;
            self.waits_for_disk = wanted;
        }
        Ok(())
    }
}

/// Writes one commit, or nothing if it does not fit: all that can be refused is looked at first.
fn write(
    db: &Connection,
    commit: &Commit,
    (now, server): (Timestamp, &ServerId),
    turns: &mut Turns,
) -> Result<Done, Failure> {
    let account = &commit.account;
    check_believed(commit, server, now)?;
    turns.check(commit, now)?;
    let pool = commit.pool.as_ref().map(|write| (write, documents::pool_name(&write.value.product)));
    let head_present = read::present(db, account, HEAD)?;
    let pool_present = match &pool {
        Some((_, name)) => read::present(db, account, name)?,
        None => None,
    };
    match documents::judge(commit, head_present, pool_present) {
        Verdict::Write => {}
        Verdict::Repeated => {
            turns.written(commit);
            return Ok(Done::Repeated);
        }
        Verdict::Conflict => {
            turns.conflicted(commit, now);
            let current = read::load(db, account, (now, server)).map_err(CommitError::from)?;
            return Err(CommitError::Conflict(current.map(Box::new)).into());
        }
    }
    let encode_head = |write: &Write<Account>| documents::encode(account, HEAD, &write.value, head_present);
    let head_body = commit.head.as_ref().map(encode_head).transpose()?;
    let encode_pool =
        |(write, name): &(&Write<Pool>, String)| documents::encode(account, name, &write.value, pool_present);
    let pool_body = pool.as_ref().map(encode_pool).transpose()?;
    if let Some(write) = &commit.head {
        check_keys(db, &write.value)?;
    }
    // From here on only the file can fail.
    turns.written(commit);
    if let (Some(write), Some(body)) = (&commit.head, head_body) {
        put_document(db, account, HEAD, (write.stamp, &body))?;
        put_keys(db, account, &write.value)?;
    }
    if let (Some((write, name)), Some(body)) = (&pool, pool_body) {
        put_document(db, account, name, (write.stamp, &body))?;
        for package in &commit.ended {
            put_history(db, account, (&write.value.product, package), now)?;
        }
    }
    for event in &commit.events {
        put_event(db, account, event, now)?;
    }
    Ok(Done::Written)
}

fn check_keys(db: &Connection, head: &Account) -> Result<(), Failure> {
    for hash in head.hashes() {
        if read::owner(db, &hash)?.is_some_and(|owner| owner != head.id) {
            return Err(CommitError::KeyTaken.into());
        }
    }
    Ok(())
}

fn put_document(
    db: &Connection,
    account: &AccountId,
    name: &str,
    (stamp, body): (Stamp, &str),
) -> rusqlite::Result<()> {
    const PUT: &str = "
        INSERT INTO documents (account, name, counter, random, body) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (account, name) DO UPDATE SET counter = ?3, random = ?4, body = ?5";
    let (counter, random) = (stamp.counter.cast_signed(), stamp.random.cast_signed());
    db.prepare_cached(PUT)?.execute((account.as_str(), name, counter, random, body)).map(drop)
}

fn put_keys(db: &Connection, account: &AccountId, head: &Account) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM key_index WHERE account = ?1")?.execute([account.as_str()])?;
    for hash in head.hashes() {
        let mut put = db.prepare_cached("INSERT OR IGNORE INTO key_index (hash, account) VALUES (?1, ?2)")?;
        put.execute([hash.to_string().as_str(), account.as_str()])?;
    }
    Ok(())
}

/// A package that ended, came back because the store lost its tail, and ended again, is there once.
fn put_history(
    db: &Connection,
    account: &AccountId,
    (product, package): (&ProductId, &Package),
    now: Timestamp,
) -> rusqlite::Result<()> {
    const PUT: &str =
        "INSERT OR REPLACE INTO history (account, product, package, ended_at, body) VALUES (?1, ?2, ?3, ?4, ?5)";
    let row = (account.as_str(), product.as_str(), package.id.as_str(), time(now), json(package)?);
    db.prepare_cached(PUT)?.execute(row).map(drop)
}

fn put_event(db: &Connection, account: &AccountId, event: &Event, now: Timestamp) -> rusqlite::Result<()> {
    const PUT: &str = "INSERT OR IGNORE INTO outbox (account, id, at, body) VALUES (?1, ?2, ?3, ?4)";
    db.prepare_cached(PUT)?.execute((account.as_str(), event.id(), time(now), json(event)?)).map(drop)
}

/// Always as many digits, so that the texts are in the order of the times.
fn time(moment: Timestamp) -> String {
    format!("{moment:.3}")
}

fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}
