//! The embedded store: one SQLite file, `store.sqlite3`, that the `sqlite3` tool can read while this program runs.
//!
//! One thread owns the connection that writes and one the connection that reads, so that no core that serves calls
//! waits for a disk. What waits to be written is written in one transaction (see `write`).

mod open;
mod read;
mod signatures;
#[cfg(test)]
mod tests;
mod write;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{broadcast, mpsc, oneshot};

pub use self::open::OpenError;
use self::open::Opened;
use self::signatures::UsedSignatures;
use self::write::{Job, Writer};
use super::documents::NOTICES_KEPT;
use super::gateways::Heartbeats;
use crate::domain::credential::SignatureUse;
use crate::domain::id::{AccountId, Incarnation, ProductId};
use crate::domain::key::KeyHash;
use crate::domain::package::Package;
use crate::ports::BoxFuture;
use crate::ports::account_store::{AccountStore, AccountSummary, Commit, CommitError, Loaded, StoreError};
use crate::ports::clock::Clock;
use crate::ports::gateways::{CheckIn, Heartbeat, Notice, ServerId, Servers};
use crate::ports::replay::{ReplayCache, UsedSignature};

/// Commits that may wait to be written; further ones wait for room.
const COMMITS_QUEUED_MAX: usize = 1_024;
/// Questions that may wait for the reading thread; further ones wait for room.
const QUESTIONS_QUEUED_MAX: usize = 1_024;

type Question = Box<dyn FnOnce(&Connection) + Send>;

/// Keeps accounts in a SQLite file. It belongs to one process and forgets nothing that was answered, so that there is
/// nothing to check in for: it gives leases at any time. Dropping it waits until all that was sent is written.
pub struct SqliteStore {
    clock: Arc<dyn Clock>,
    server: ServerId,
    heartbeats: Mutex<Heartbeats>,
    notices: broadcast::Sender<Notice>,
    commits: Option<mpsc::Sender<Job>>,
    questions: Option<mpsc::Sender<Question>>,
    writing: Option<JoinHandle<()>>,
    reading: Option<JoinHandle<()>>,
    /// Released after the threads have ended; `None`: opened to be read.
    lock: Option<std::fs::File>,
}

impl SqliteStore {
    /// Opens the store, or makes it if there is no such file. The directory must be there.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let Opened { lock, writer, reader, server } = open::open(path)?;
        let notices = broadcast::Sender::new(NOTICES_KEPT);
        let (commits, queued) = mpsc::channel(COMMITS_QUEUED_MAX);
        let used = UsedSignatures::load(&writer, clock.now()).map_err(|error| open::fault(path, &error))?;
        let own = lock.try_clone().map_err(|error| unusable(path, &error))?;
        let writer = Writer::new((writer, own, used), server.clone(), clock.clone(), notices.clone());
        let writing = spawn("store-write", path, move || writer.run(queued))?;
        let mut store = Self::reading(path, clock, (reader, server))?;
        (store.notices, store.commits, store.writing, store.lock) = (notices, Some(commits), Some(writing), Some(lock));
        Ok(store)
    }

    /// Opens a store to read it, beside the process that it belongs to, if there is one. Every commit is refused.
    pub fn open_to_read(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Self::reading(path, clock, open::open_to_read(path)?)
    }

    fn reading(
        path: &Path,
        clock: Arc<dyn Clock>,
        (reader, server): (Connection, ServerId),
    ) -> Result<Self, OpenError> {
        let (questions, mut asked) = mpsc::channel::<Question>(QUESTIONS_QUEUED_MAX);
        let reading = spawn("store-read", path, move || {
            while let Some(question) = asked.blocking_recv() {
                question(&reader);
            }
        })?;
        Ok(Self {
            clock,
            server,
            heartbeats: Mutex::default(),
            notices: broadcast::Sender::new(NOTICES_KEPT),
            commits: None,
            questions: Some(questions),
            writing: None,
            reading: Some(reading),
            lock: None,
        })
    }

    /// Lets the reading thread answer a question.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, answer) = oneshot::channel();
        let question: Question = Box::new(move |db| {
            let _ = sender.send(question(db)); // fails when the asker has gone
        });
        let questions = self.questions.as_ref().ok_or_else(ended)?;
        questions.send(question).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    fn heartbeats(&self) -> std::sync::MutexGuard<'_, Heartbeats> {
        self.heartbeats.lock().unwrap_or_else(PoisonError::into_inner) // valid between any two of its operations
    }

    async fn send(&self, commit: Commit) -> Result<Timestamp, CommitError> {
        let (sender, answer) = oneshot::channel();
        let commits = self.commits.as_ref().ok_or_else(only_read)?;
        commits.send(Job::Commit(Box::new(commit), sender)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    async fn signature(&self, used: UsedSignature, asked: signatures::Asked) -> Result<SignatureUse, StoreError> {
        let (sender, answer) = oneshot::channel();
        let commits = self.commits.as_ref().ok_or_else(only_read)?;
        let job = Job::Use(signatures::Job { used, asked, answer: sender });
        commits.send(job).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // The reader goes first, so that the writer's connection is the last and can clear the write-ahead log away.
        drop(self.questions.take());
        drop(self.commits.take());
        for thread in [self.reading.take(), self.writing.take()].into_iter().flatten() {
            let _ = thread.join(); // a panic in it has been reported already
        }
        drop(self.lock.take());
    }
}

impl ReplayCache for SqliteStore {
    fn note_use(&self, used: UsedSignature, max: usize) -> BoxFuture<'_, Result<SignatureUse, StoreError>> {
        Box::pin(self.signature(used, signatures::Asked::Note { max }))
    }

    fn take_back(&self, used: UsedSignature) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.signature(used, signatures::Asked::TakeBack).await.map(|_| ()) })
    }
}

impl AccountStore for SqliteStore {
    fn load<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<Option<Loaded>, StoreError>> {
        let (account, clock, server) = (account.clone(), self.clock.clone(), self.server.clone());
        Box::pin(self.ask(move |db| read::load(db, &account, (clock.now(), &server))))
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Timestamp, CommitError>> {
        Box::pin(self.send(commit))
    }

    fn list(&self, after: Option<AccountId>) -> BoxFuture<'_, Result<Vec<AccountSummary>, StoreError>> {
        Box::pin(self.ask(move |db| read::list(db, after.as_ref())))
    }

    fn account_of(&self, hash: KeyHash) -> BoxFuture<'_, Result<Option<AccountId>, StoreError>> {
        Box::pin(self.ask(move |db| Ok(read::owner(db, &hash)?)))
    }

    fn load_by_key(&self, hash: KeyHash) -> BoxFuture<'_, Result<Option<Loaded>, StoreError>> {
        let (clock, server) = (self.clock.clone(), self.server.clone());
        Box::pin(self.ask(move |db| match read::owner(db, &hash)? {
            Some(account) => read::load(db, &account, (clock.now(), &server)),
            None => Ok(None),
        }))
    }

    fn ended_before<'a>(
        &'a self,
        account: &'a AccountId,
        latest: usize,
    ) -> BoxFuture<'a, Result<Vec<(ProductId, Package)>, StoreError>> {
        let account = account.clone();
        Box::pin(self.ask(move |db| read::ended(db, &account, latest)))
    }

    fn changes(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    fn notify(&self, notice: Notice) -> BoxFuture<'_, Result<(), StoreError>> {
        let _ = self.notices.send(notice); // fails when nobody listens
        Box::pin(std::future::ready(Ok(())))
    }

    /// Notices do not leave the process: none is lost.
    fn heard_at(&self) -> Option<Instant> {
        Some(Instant::now())
    }

    fn heartbeat<'a>(&'a self, by: &'a Incarnation) -> BoxFuture<'a, Result<Heartbeat, StoreError>> {
        let now = self.clock.now();
        let live = self.heartbeats().beat(by, now);
        Box::pin(std::future::ready(Ok(Heartbeat { now, live, server: self.server.clone() })))
    }

    fn leave<'a>(&'a self, by: &'a Incarnation) -> BoxFuture<'a, Result<(), StoreError>> {
        self.heartbeats().leave(by);
        Box::pin(std::future::ready(Ok(())))
    }

    fn servers(&self) -> BoxFuture<'_, Result<Servers, StoreError>> {
        Box::pin(std::future::ready(Ok(Servers(vec![self.server.clone()]))))
    }

    fn check_in<'a>(
        &'a self,
        _: &'a Incarnation,
        servers: &'a Servers,
        _: &'a [Incarnation],
    ) -> BoxFuture<'a, Result<CheckIn, StoreError>> {
        let known = servers.0 == [self.server.clone()];
        Box::pin(std::future::ready(Ok(if known { CheckIn::Open } else { CheckIn::Stranger })))
    }
}

/// Nothing is written through a store that was opened to be read.
fn only_read() -> StoreError {
    StoreError::Unavailable("it was opened to be read only".to_owned())
}

/// A thread of the store ends before the store does only if it has panicked.
fn ended() -> StoreError {
    StoreError::Unavailable("a thread of the store has ended; restart the program".to_owned())
}

fn spawn(name: &str, path: &Path, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map_err(|error| unusable(path, &error))
}

fn unusable(path: &Path, error: &std::io::Error) -> OpenError {
    OpenError::Unusable { path: path.to_owned(), reason: error.to_string() }
}

impl From<rusqlite::Error> for StoreError {
    /// A transaction for which there is no room is rolled back.
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}
