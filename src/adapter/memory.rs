//! A store in memory, for tests: it can fail on demand, lose its tail, restart, mistake the time and lose notices. It
//! keeps its documents as text, so that it refuses what the others refuse.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::broadcast;

use super::documents::{self, Document, HEAD, NOTICES_KEPT, Present, Verdict};
use super::gateways::{Gate, Heartbeats, Turns, check_believed};
use crate::domain::account::Account;
use crate::domain::credential::SignatureUse;
use crate::domain::event::Event;
use crate::domain::id::{AccountId, Incarnation, ProductId};
use crate::domain::key::KeyHash;
use crate::domain::package::Package;
use crate::ports::BoxFuture;
use crate::ports::account_store::{AccountStore, AccountSummary, Commit, CommitError, LIST_MAX, Loaded, StoreError};
use crate::ports::clock::Clock;
use crate::ports::gateways::{CheckIn, Heartbeat, Notice, ServerId, Servers};
use crate::ports::replay::{ReplayCache, UsedSignature};

/// The name of a new store's first life.
const FIRST_LIFE: &str = "memory-1";

/// How one commit is to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The store does not do it.
    NotWritten,
    /// The store has no room for it.
    Full,
    /// The store does it, the reply is lost.
    ReplyLost,
    /// Someone else was faster.
    Conflict,
    /// It is another gateway's turn.
    Busy,
    /// The store does it, and never says so.
    NoAnswer,
    /// The store gives no leases; a copy of the commit comes before the next one, when it gives them again.
    ClosedThenLate,
}

/// All that a [`MemoryStore`] keeps, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    documents: BTreeMap<AccountId, BTreeMap<String, Document>>,
    keys: HashMap<KeyHash, AccountId>,
    history: Vec<(AccountId, ProductId, Package)>,
    outbox: Vec<(AccountId, Event)>,
    heartbeats: Heartbeats,
    /// Used signatures, each with the moment at which it is over.
    signatures: HashMap<KeyHash, Timestamp>,
}

/// What a restart of the store ends.
#[derive(Debug)]
struct Life {
    server: ServerId,
    gate: Gate,
    turns: Turns,
    /// Since when nothing can be forgotten; `None`: not all have checked in.
    opened: Option<Timestamp>,
}

impl Life {
    fn new(server: ServerId) -> Self {
        Self { server, gate: Gate::default(), turns: Turns::default(), opened: None }
    }

    /// One before which there was none.
    fn first() -> Self {
        Self { gate: Gate::open(), opened: Some(Timestamp::MIN), ..Self::new(ServerId::new(FIRST_LIFE)) }
    }
}

/// How the store as a whole behaves.
#[derive(Debug, Clone, Copy, Default)]
struct Mood {
    /// What its clock is off.
    off: SignedDuration,
    /// Nothing is answered but errors.
    away: bool,
    /// How late what calls ask for is answered.
    late: Duration,
    /// Since when notices are lost.
    deaf_since: Option<Instant>,
}

/// Keeps accounts until it is dropped. Several gateways of one process can share it.
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    contents: Mutex<Contents>,
    life: Mutex<Life>,
    mood: Mutex<Mood>,
    faults: Mutex<VecDeque<Fault>>,
    /// A copy of a commit that is still under way.
    late: Mutex<Option<Commit>>,
    notices: broadcast::Sender<Notice>,
}

impl MemoryStore {
    /// An empty store that takes its time from the clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let life = Mutex::new(Life::first());
        let notices = broadcast::Sender::new(NOTICES_KEPT);
        let (contents, mood, faults, late) = (Mutex::default(), Mutex::default(), Mutex::default(), Mutex::default());
        Self { clock, contents, life, mood, faults, late, notices }
    }

    /// Lets the next commits fail, one each.
    pub fn fail_commits(&self, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.faults).extend(faults);
    }

    /// How many of these faults are still to come.
    pub fn faults_left(&self) -> usize {
        lock(&self.faults).len()
    }

    /// Answers nothing but errors from now on, or no longer.
    pub fn be_away(&self, away: bool) {
        lock(&self.mood).away = away;
    }

    /// Does at once what calls ask for, and answers so much later.
    pub fn answer_late(&self, by: Duration) {
        lock(&self.mood).late = by;
    }

    /// Lets the store's clock be off by so much.
    pub fn step_time(&self, off: SignedDuration) {
        lock(&self.mood).off = off;
    }

    /// Loses all notices from now on, or no longer; then those who listen are told that they may have missed some.
    pub fn lose_notices(&self, lose: bool) {
        let before = std::mem::replace(&mut lock(&self.mood).deaf_since, lose.then(Instant::now));
        if before.is_some() && !lose {
            self.tell(Notice::Missed);
        }
    }

    /// Begins another life: no gateway has checked in with it. What is kept stays as it is.
    pub fn restart(&self, server: ServerId) {
        *lock(&self.life) = Life::new(server);
    }

    /// All that is kept now.
    pub fn contents(&self) -> Contents {
        lock(&self.contents).clone()
    }

    /// Puts back what was kept earlier: all later commits are lost. A real store restarts with that.
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

    /// The store's time, if it answers at all.
    fn now(&self) -> Result<Timestamp, StoreError> {
        let Mood { off, away, .. } = *lock(&self.mood);
        if away {
            return Err(StoreError::Unavailable("it was told to be away".to_owned()));
        }
        let now = self.clock.now();
        Ok(now.checked_add(off).unwrap_or(now))
    }

    /// What was done becomes known when it is time.
    async fn answered<T>(&self, answer: T) -> T {
        let late = lock(&self.mood).late;
        if !late.is_zero() {
            tokio::time::sleep(late).await;
        }
        answer
    }

    fn tell(&self, notice: Notice) {
        if lock(&self.mood).deaf_since.is_none() {
            let _ = self.notices.send(notice); // fails when nobody listens
        }
    }

    fn write(&self, commit: Commit) -> Result<Timestamp, CommitError> {
        let now = self.now()?;
        if let Some(late) = lock(&self.late).take() {
            let _ = self.try_write(late, now); // nobody waits for its answer
        }
        let fault = lock(&self.faults).pop_front();
        if fault == Some(Fault::ClosedThenLate) {
            *lock(&self.late) = Some(commit);
            return Err(CommitError::Closed);
        }
        let lost = |text: &str| Err(StoreError::Unavailable(text.to_owned()).into());
        if fault == Some(Fault::NotWritten) {
            return lost("a fault was asked for");
        }
        if fault == Some(Fault::Full) {
            return Err(StoreError::Full("a fault was asked for".to_owned()).into());
        }
        if fault == Some(Fault::Busy) {
            return Err(CommitError::Busy);
        }
        if fault == Some(Fault::Conflict) {
            let server = lock(&self.life).server.clone();
            let there = lock(&self.contents).load(&commit.account, (now, &server))?;
            return Err(CommitError::Conflict(there.map(Box::new)));
        }
        let heard = commit.head.as_ref().map(|_| Notice::Changed(commit.account.clone()));
        if self.try_write(commit, now)? {
            heard.into_iter().for_each(|notice| self.tell(notice));
        }
        if fault == Some(Fault::ReplyLost) { lost("the reply was lost") } else { Ok(now) }
    }

    fn try_write(&self, commit: Commit, now: Timestamp) -> Result<bool, CommitError> {
        let mut life = lock(&self.life);
        check_believed(&commit, &life.server, now)?;
        life.turns.check(&commit, now)?;
        let (open, server) = (life.gate.is_open(), life.server.clone());
        let written = lock(&self.contents).write(&commit, (now, &server), open);
        match &written {
            Ok(_) => life.turns.written(&commit),
            Err(CommitError::Conflict(_)) => life.turns.conflicted(&commit, now),
            Err(_) => {}
        }
        written
    }
}

impl Contents {
    /// Returns whether anything was written; false for a commit that is there already.
    fn write(&mut self, commit: &Commit, at: (Timestamp, &ServerId), open: bool) -> Result<bool, CommitError> {
        let pool_name = commit.pool.as_ref().map(|write| documents::pool_name(&write.value.product));
        let head = self.present(&commit.account, HEAD);
        let pool = pool_name.as_deref().and_then(|name| self.present(&commit.account, name));
        match documents::judge(commit, head, pool) {
            Verdict::Write if commit.grants && !open => return Err(CommitError::Closed),
            Verdict::Write => {}
            Verdict::Repeated => return Ok(false),
            Verdict::Conflict => return Err(CommitError::Conflict(self.load(&commit.account, at)?.map(Box::new))),
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
            self.keys.extend(write.value.hashes().map(|hash| (hash, account.clone())));
        }
        let known = self.documents.entry(account.clone()).or_default();
        known.extend(written.into_iter().map(|document| (document.name.clone(), document)));
        if let Some(pool) = &commit.pool {
            for package in &commit.ended {
                self.history.retain(|(whose, _, known)| whose != account || known.id != package.id);
                self.history.push((account.clone(), pool.value.product.clone(), package.clone()));
            }
        }
        for event in &commit.events {
            if !self.outbox.iter().any(|(whose, known)| whose == account && known.id() == event.id()) {
                self.outbox.push((account.clone(), event.clone()));
            }
        }
        Ok(true)
    }

    fn note_use(
        &mut self,
        used: UsedSignature,
        max: usize,
        (now, opened): (Timestamp, Option<Timestamp>),
    ) -> SignatureUse {
        if now >= used.ends {
            return SignatureUse::Over;
        }
        self.signatures.retain(|_, ends| now < *ends);
        if self.signatures.contains_key(&used.name) {
            return SignatureUse::Again;
        }
        if opened.is_none_or(|opened| used.dated < opened) {
            return SignatureUse::Unsure;
        }
        if self.signatures.len() >= max {
            return SignatureUse::Full;
        }
        self.signatures.insert(used.name, used.ends);
        SignatureUse::First
    }

    fn check_keys(&self, head: &Account) -> Result<(), CommitError> {
        let taken = |hash| self.keys.get(&hash).is_some_and(|owner| *owner != head.id);
        if head.hashes().any(taken) { Err(CommitError::KeyTaken) } else { Ok(()) }
    }

    fn present(&self, account: &AccountId, name: &str) -> Option<Present> {
        let document = self.documents.get(account)?.get(name)?;
        Some(Present { stamp: document.stamp, bytes: document.body.len() })
    }

    fn load(&self, account: &AccountId, at: (Timestamp, &ServerId)) -> Result<Option<Loaded>, StoreError> {
        let documents = self.documents.get(account).into_iter().flat_map(BTreeMap::values).cloned();
        documents::assemble(account, documents.collect(), at)
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

impl ReplayCache for MemoryStore {
    fn note_use(&self, used: UsedSignature, max: usize) -> BoxFuture<'_, Result<SignatureUse, StoreError>> {
        Box::pin(async move {
            let now = self.now()?;
            let opened = lock(&self.life).opened;
            let said = lock(&self.contents).note_use(used, max, (now, opened));
            Ok(self.answered(said).await)
        })
    }

    fn take_back(&self, used: UsedSignature) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.now()?;
            lock(&self.contents).signatures.remove(&used.name);
            self.answered(()).await;
            Ok(())
        })
    }
}

impl AccountStore for MemoryStore {
    fn load<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<Option<Loaded>, StoreError>> {
        Box::pin(async move {
            let now = self.now()?;
            let server = lock(&self.life).server.clone();
            let loaded = lock(&self.contents).load(account, (now, &server));
            self.answered(loaded).await
        })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Timestamp, CommitError>> {
        Box::pin(async move {
            let silent = lock(&self.faults).front() == Some(&Fault::NoAnswer);
            let answer = self.write(commit);
            if silent { std::future::pending().await } else { self.answered(answer).await }
        })
    }

    fn list(&self, after: Option<AccountId>) -> BoxFuture<'_, Result<Vec<AccountSummary>, StoreError>> {
        Box::pin(async move { self.now().map(|_| lock(&self.contents).list(after.as_ref())) })
    }

    fn account_of(&self, hash: KeyHash) -> BoxFuture<'_, Result<Option<AccountId>, StoreError>> {
        Box::pin(async move { self.now().map(|_| lock(&self.contents).keys.get(&hash).cloned()) })
    }

    fn load_by_key(&self, hash: KeyHash) -> BoxFuture<'_, Result<Option<Loaded>, StoreError>> {
        Box::pin(async move {
            let now = self.now()?;
            let server = lock(&self.life).server.clone();
            let loaded = {
                let contents = lock(&self.contents);
                contents.keys.get(&hash).map_or(Ok(None), |account| contents.load(account, (now, &server)))
            };
            self.answered(loaded).await
        })
    }

    fn ended_before<'a>(
        &'a self,
        account: &'a AccountId,
        latest: usize,
    ) -> BoxFuture<'a, Result<Vec<(ProductId, Package)>, StoreError>> {
        Box::pin(async move {
            self.now()?;
            let contents = lock(&self.contents);
            let of_account = contents.history.iter().rev().filter(|(whose, ..)| whose == account);
            Ok(of_account
                .skip(latest)
                .take(LIST_MAX)
                .map(|(_, product, package)| (product.clone(), package.clone()))
                .collect())
        })
    }

    fn changes(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    fn notify(&self, notice: Notice) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.now().map(|_| self.tell(notice)) })
    }

    fn heard_at(&self) -> Option<Instant> {
        let Mood { away, deaf_since, .. } = *lock(&self.mood);
        if away { None } else { Some(deaf_since.unwrap_or_else(Instant::now)) }
    }

    fn heartbeat<'a>(&'a self, by: &'a Incarnation) -> BoxFuture<'a, Result<Heartbeat, StoreError>> {
        Box::pin(async move {
            let now = self.now()?;
            let server = lock(&self.life).server.clone();
            Ok(Heartbeat { now, live: lock(&self.contents).heartbeats.beat(by, now), server })
        })
    }

    fn leave<'a>(&'a self, by: &'a Incarnation) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move { self.now().map(|_| lock(&self.contents).heartbeats.leave(by)) })
    }

    fn servers(&self) -> BoxFuture<'_, Result<Servers, StoreError>> {
        Box::pin(async move { self.now().map(|_| Servers(vec![lock(&self.life).server.clone()])) })
    }

    fn check_in<'a>(
        &'a self,
        by: &'a Incarnation,
        servers: &'a Servers,
        live: &'a [Incarnation],
    ) -> BoxFuture<'a, Result<CheckIn, StoreError>> {
        Box::pin(async move {
            let now = self.now()?;
            let mut life = lock(&self.life);
            if servers.0 != [life.server.clone()] {
                return Ok(CheckIn::Stranger);
            }
            let whole = lock(&self.contents).heartbeats.are_whole(now);
            if !life.gate.check_in(by, (live, whole), now) {
                return Ok(CheckIn::Waiting);
            }
            life.opened.get_or_insert(now);
            Ok(CheckIn::Open)
        })
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
    use crate::ports::account_store::{Believed, Stamp, Write};

    fn account() -> AccountId {
        AccountId::new("a").unwrap()
    }

    fn renaming(expected: Option<Stamp>, random: u64) -> Commit {
        let head = Account::open(account(), format!("Name {random}"), Timestamp::UNIX_EPOCH);
        let write = Write { expected, stamp: Stamp::next(expected, random), value: head };
        let (ended, events) = (Vec::new(), Vec::new());
        let by = Incarnation::try_from("gw#1".to_owned()).unwrap();
        let believed = Believed { now: Timestamp::now(), server: None };
        let (pool, head) = (None, Some(write));
        Commit {
            account: account(),
            head,
            pool,
            ended,
            events,
            durable: true,
            believed,
            grants: false,
            by,
            turn: false,
        }
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
