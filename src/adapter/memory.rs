//! A store in memory, for tests: it can fail on demand and lose its tail. It keeps its documents as text, so that it
//! refuses what the others refuse.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::broadcast;

use super::documents::{self, CHANGES_KEPT, Document, HEAD, Present, Verdict};
use crate::domain::account::Account;
use crate::domain::event::Event;
use crate::domain::id::{AccountId, ProductId};
use crate::domain::key::KeyHash;
use crate::domain::package::Package;
use crate::ports::BoxFuture;
use crate::ports::account_store::{AccountStore, AccountSummary, Commit, CommitError, LIST_MAX, Loaded, StoreError};
use crate::ports::clock::Clock;

/// How one commit is to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The store does not do it.
    NotWritten,
    /// The store does it, the reply is lost.
    ReplyLost,
}

/// All that a [`MemoryStore`] keeps, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    documents: BTreeMap<AccountId, BTreeMap<String, Document>>,
    keys: HashMap<KeyHash, AccountId>,
    history: Vec<(AccountId, ProductId, Package)>,
    outbox: Vec<(AccountId, Event)>,
}

/// Keeps accounts until it is dropped.
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    contents: Mutex<Contents>,
    faults: Mutex<VecDeque<Fault>>,
    changes: broadcast::Sender<AccountId>,
}

impl MemoryStore {
    /// An empty store that takes its time from the clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let changes = broadcast::Sender::new(CHANGES_KEPT);
        Self { clock, contents: Mutex::default(), faults: Mutex::default(), changes }
    }

    /// Lets the next commits fail, one each.
    pub fn fail_commits(&self, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.faults).extend(faults);
    }

    /// All that is kept now.
    pub fn contents(&self) -> Contents {
        lock(&self.contents).clone()
    }

    /// Puts back what was kept earlier: all later commits are lost.
    pub fn roll_back(&self, to: Contents) {
        *lock(&self.contents) = to;
    }

    /// An account's events, oldest first.
    pub fn outbox(&self, account: &AccountId) -> Vec<Event> {
        let contents = lock(&self.contents);
        contents.outbox.iter().filter(|(whose, _)| whose == account).map(|(_, event)| event.clone()).collect()
    }

    /// Replaces a document's text, whatever it says.
    #[cfg(test)]
    pub(super) fn overwrite(&self, account: &AccountId, name: &str, body: &str) {
        let mut contents = lock(&self.contents);
        contents.documents.get_mut(account).unwrap().get_mut(name).unwrap().body = body.to_owned();
    }

    fn write(&self, commit: Commit) -> Result<Timestamp, CommitError> {
        let fault = lock(&self.faults).pop_front();
        let lost = |text: &str| Err(StoreError::Unavailable(text.to_owned()).into());
        if fault == Some(Fault::NotWritten) {
            return lost("a fault was asked for");
        }
        let (now, account, heard) = (self.clock.now(), commit.account.clone(), commit.head.is_some());
        if lock(&self.contents).write(commit, now)? && heard {
            let _ = self.changes.send(account); // fails when nobody listens
        }
        if fault == Some(Fault::ReplyLost) { lost("the reply was lost") } else { Ok(now) }
    }
}

impl Contents {
    /// Returns whether anything was written; false for a commit that is there already.
    fn write(&mut self, commit: Commit, now: Timestamp) -> Result<bool, CommitError> {
        let pool_name = commit.pool.as_ref().map(|write| documents::pool_name(&write.value.product));
        let head = self.present(&commit.account, HEAD);
        let pool = pool_name.as_deref().and_then(|name| self.present(&commit.account, name));
        match documents::judge(&commit, head, pool) {
            Verdict::Write => {}
            Verdict::Repeated => return Ok(false),
            Verdict::Conflict => return Err(CommitError::Conflict(self.load(&commit.account, now)?.map(Box::new))),
        }
        let account = &commit.account;
        let mut written = Vec::new();
        if let Some(write) = &commit.head {
            self.check_keys(&write.value)?;
            let body = documents::encode(account, HEAD, &write.value, head)?;
            written.push(Document { name: HEAD.to_owned(), stamp: write.stamp, body });
        }
        if let (Some(write), Some(name)) = (&commit.pool, pool_name) {
            let body = documents::encode(account, &name, &write.value, pool)?;
            written.push(Document { name, stamp: write.stamp, body });
        }
        // Nothing below fails: all or nothing.
        if let Some(write) = &commit.head {
            self.keys.retain(|_, owner| owner != account);
            self.keys.extend(write.value.keys.iter().map(|key| (key.hash, account.clone())));
        }
        let known = self.documents.entry(account.clone()).or_default();
        known.extend(written.into_iter().map(|document| (document.name.clone(), document)));
        if let Some(pool) = commit.pool {
            for package in commit.ended {
                self.history.retain(|(whose, _, known)| whose != account || known.id != package.id);
                self.history.push((account.clone(), pool.value.product.clone(), package));
            }
        }
        for event in commit.events {
            if !self.outbox.iter().any(|(whose, known)| whose == account && known.id() == event.id()) {
                self.outbox.push((account.clone(), event));
            }
        }
        Ok(true)
    }

    fn check_keys(&self, head: &Account) -> Result<(), CommitError> {
        let taken = |hash| self.keys.get(hash).is_some_and(|owner| *owner != head.id);
        if head.keys.iter().any(|key| taken(&key.hash)) { Err(CommitError::KeyTaken) } else { Ok(()) }
    }

    fn present(&self, account: &AccountId, name: &str) -> Option<Present> {
        let document = self.documents.get(account)?.get(name)?;
        Some(Present { stamp: document.stamp, bytes: document.body.len() })
    }

    fn load(&self, account: &AccountId, now: Timestamp) -> Result<Option<Loaded>, StoreError> {
        let documents = self.documents.get(account).into_iter().flat_map(BTreeMap::values).cloned();
        documents::assemble(account, documents.collect(), now)
    }

    fn list(&self, after: Option<&AccountId>) -> Vec<AccountSummary> {
        let later = self.documents.iter().filter(|(id, _)| after.is_none_or(|after| after < *id)).take(LIST_MAX);
        let head = |id: &AccountId, all: &BTreeMap<String, Document>| {
            let head = all.get(HEAD).and_then(|head| documents::account_name(&head.body));
            AccountSummary { id: id.clone(), name: head.unwrap_or_default() }
        };
        later.map(|(id, all)| head(id, all)).collect()
    }
}

impl AccountStore for MemoryStore {
    fn load<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<Option<Loaded>, StoreError>> {
        Box::pin(async move { lock(&self.contents).load(account, self.clock.now()) })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Timestamp, CommitError>> {
        Box::pin(async move { self.write(commit) })
    }

    fn list(&self, after: Option<AccountId>) -> BoxFuture<'_, Result<Vec<AccountSummary>, StoreError>> {
        Box::pin(async move { Ok(lock(&self.contents).list(after.as_ref())) })
    }

    fn account_of(&self, hash: KeyHash) -> BoxFuture<'_, Result<Option<AccountId>, StoreError>> {
        Box::pin(async move { Ok(lock(&self.contents).keys.get(&hash).cloned()) })
    }

    fn ended<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<Vec<(ProductId, Package)>, StoreError>> {
        Box::pin(async move {
            let contents = lock(&self.contents);
            let of_account = contents.history.iter().rev().filter(|(whose, ..)| whose == account).take(LIST_MAX);
            Ok(of_account.map(|(_, product, package)| (product.clone(), package.clone())).collect())
        })
    }

    fn changes(&self) -> broadcast::Receiver<AccountId> {
        self.changes.subscribe()
    }
}

/// A panic of another thread leaves nothing half done here: every change is made after the last check.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::clock::SystemClock;
    use crate::ports::account_store::{Stamp, Write};

    fn account() -> AccountId {
        AccountId::new("a").unwrap()
    }

    fn renaming(expected: Option<Stamp>, random: u64) -> Commit {
        let head = Account::open(account(), format!("Name {random}"), Timestamp::UNIX_EPOCH);
        let write = Write { expected, stamp: Stamp::next(expected, random), value: head };
        let (ended, events) = (Vec::new(), Vec::new());
        Commit { account: account(), head: Some(write), pool: None, ended, events, durable: true }
    }

    #[tokio::test]
    async fn faults_come_in_their_order_and_once_each() {
        let store = MemoryStore::new(Arc::new(SystemClock));
        store.fail_commits([Fault::NotWritten, Fault::ReplyLost]);
        store.commit(renaming(None, 1)).await.unwrap_err();
        assert_eq!(store.load(&account()).await.unwrap(), None);
        store.commit(renaming(None, 1)).await.unwrap_err();
        assert!(store.load(&account()).await.unwrap().is_some());
        store.commit(renaming(None, 1)).await.unwrap();
    }

    #[tokio::test]
    async fn a_counter_reached_again_after_the_tail_was_lost_does_not_match() {
        let store = MemoryStore::new(Arc::new(SystemClock));
        store.commit(renaming(None, 1)).await.unwrap();
        let kept = store.contents();
        let first = Some(Stamp { counter: 1, random: 1 });
        store.commit(renaming(first, 2)).await.unwrap();
        store.roll_back(kept);
        store.commit(renaming(first, 3)).await.unwrap();
        let stale = store.commit(renaming(Some(Stamp { counter: 2, random: 2 }), 4)).await;
        assert!(matches!(stale, Err(CommitError::Conflict(Some(_)))), "{stale:?}");
    }
}
