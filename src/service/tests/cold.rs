//! What a call costs that is the first of its account: how often it waits for the store, and how often the store is
//! asked for it in all.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use tokio::sync::{broadcast, watch};

use super::*;
use crate::domain::credential::Scheme;
use crate::domain::key::KeyHash;
use crate::ports::BoxFuture;
use crate::ports::account_store::{AccountSummary, Commit, CommitError, Loaded, StoreError};
use crate::ports::gateways::{CheckIn, Heartbeat, Notice, Servers};
use crate::protocol::api_key::ApiKeyText;
use crate::service::accounts::{NewKey, NewPackage};
use crate::service::authenticate::{Authenticator, Presented};
use crate::service::ledger::REPORT_AFTER;

const ACCOUNTS: usize = 200;

/// A store that counts how often it is asked about an account.
pub(super) struct Counting {
    store: Arc<MemoryStore>,
    asked: AtomicUsize,
    /// Whether commits that grant nothing wait: reports, and what earlier runs held.
    pub(super) held_back: watch::Sender<bool>,
}

impl Counting {
    pub(super) fn new(store: &Arc<MemoryStore>) -> Arc<Self> {
        Arc::new(Self { store: store.clone(), asked: AtomicUsize::default(), held_back: watch::Sender::new(false) })
    }

    fn count(&self) -> &MemoryStore {
        self.asked.fetch_add(1, Ordering::Relaxed);
        &self.store
    }
}

impl AccountStore for Counting {
    fn load<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<Option<Loaded>, StoreError>> {
        self.count().load(account)
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Timestamp, CommitError>> {
        let (store, mut held_back) = (self.count(), self.held_back.subscribe());
        Box::pin(async move {
            if !commit.grants {
                held_back.wait_for(|held_back| !held_back).await.unwrap();
            }
            store.commit(commit).await
        })
    }

    fn list(&self, after: Option<AccountId>) -> BoxFuture<'_, Result<Vec<AccountSummary>, StoreError>> {
        self.count().list(after)
    }

    fn account_of(&self, hash: KeyHash) -> BoxFuture<'_, Result<Option<AccountId>, StoreError>> {
        self.count().account_of(hash)
    }

    fn load_by_key(&self, hash: KeyHash) -> BoxFuture<'_, Result<Option<Loaded>, StoreError>> {
        self.count().load_by_key(hash)
    }

    fn ended_before<'a>(
        &'a self,
        account: &'a AccountId,
        latest: usize,
    ) -> BoxFuture<'a, Result<Vec<(ProductId, Package)>, StoreError>> {
        self.count().ended_before(account, latest)
    }

    fn changes(&self) -> broadcast::Receiver<Notice> {
        self.store.changes()
    }

    fn notify(&self, notice: Notice) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.notify(notice)
    }

    fn heard_at(&self) -> Option<Instant> {
        self.store.heard_at()
    }

    fn heartbeat<'a>(&'a self, by: &'a Incarnation) -> BoxFuture<'a, Result<Heartbeat, StoreError>> {
        self.store.heartbeat(by)
    }

    fn leave<'a>(&'a self, by: &'a Incarnation) -> BoxFuture<'a, Result<(), StoreError>> {
        self.store.leave(by)
    }

    fn servers(&self) -> BoxFuture<'_, Result<Servers, StoreError>> {
        self.store.servers()
    }

    fn check_in<'a>(
        &'a self,
        by: &'a Incarnation,
        servers: &'a Servers,
        live: &'a [Incarnation],
    ) -> BoxFuture<'a, Result<CheckIn, StoreError>> {
        self.store.check_in(by, servers, live)
    }
}

/// An account with a package of a thousand calls, and its key.
pub(super) async fn opened(gateway: &Gateway, number: usize) -> (AccountId, ApiKeyText) {
    let id = AccountId::new(&format!("account-{number}")).unwrap();
    gateway.accounts.open(None, Some(id.clone()), "Cold").await.unwrap();
    let order = Some(CommandId::new(&format!("order-{number}")).unwrap());
    gateway.accounts.add_package(&id, order, NewPackage::of(&offer(1_000))).await.unwrap();
    let key = gateway.accounts.add_key(&id, None, NewKey::default()).await.unwrap();
    (id, key.text.unwrap())
}

pub(super) fn api_key(key: &ApiKeyText) -> Presented<'_> {
    Presented { scheme: Scheme::ApiKey, text: key.expose(), client: "" }
}

#[tokio::test]
async fn the_first_call_of_an_account_waits_twice_for_the_store_and_costs_it_three_commands() {
    let world = World::new();
    let other = world.gateway("gw-1").await;
    let mut keys = Vec::new();
    for number in 0..ACCOUNTS {
        keys.push(opened(&other, number).await.1);
    }
    let store = Counting::new(&world.store);
    let one = World::start_on(store.clone(), ("gw-2", 1), &Arc::new(MemoryDisk::default()), None).await;
    eventually("the check-in", || one.ledger.is_open()).await;
    let asked = || store.asked.load(Ordering::Relaxed);
    let keyring = Keyring::new(HASH_KEY, &[]).unwrap();
    let (authenticator, before) = (Authenticator::new(store.clone(), keyring, no_limits(), CALL_PATIENCE), asked());
    let mut calls = Vec::new();
    for key in &keys {
        let found =
            authenticator.caller(api_key(key), (Timestamp::now(), Duration::ZERO), &RefCell::default()).await.unwrap();
        let pool = found.caller.pool(&chat(), &one.ledger);
        one.ledger.introduce(&pool, *found.read.unwrap());
        calls.push(one.meter.admit(Arc::clone(&pool), Duration::ZERO).await.unwrap());
    }
    assert_eq!(asked() - before, 2 * ACCOUNTS, "while a call is open nothing is reported");
    for call in calls {
        let call = one.charged(call).await;
        one.end(call);
    }
    let leased = || one.metrics.commits.done.get();
    eventually("the reports", || leased() as usize == 2 * ACCOUNTS).await;
    assert_eq!(asked() - before, 3 * ACCOUNTS);
}

#[tokio::test]
async fn however_many_pools_have_news_a_call_that_waits_is_served() {
    const POOLS: usize = 300; // more than exchanges can be under way at one time
    let world = World::new();
    let other = world.gateway("gw-1").await;
    let mut accounts = Vec::new();
    for number in 0..=POOLS {
        accounts.push(opened(&other, number).await.0);
    }
    let waits = accounts.pop().unwrap();
    let store = Counting::new(&world.store);
    let one = World::start_on(store.clone(), ("gw-2", 1), &Arc::new(MemoryDisk::default()), None).await;
    eventually("the check-in", || one.ledger.is_open()).await;
    let mut calls = Vec::new();
    for account in &accounts {
        let call = one.meter.admit(one.ledger.pool(account, &chat()), Duration::ZERO).await.unwrap();
        calls.push(one.charged(call).await);
    }
    // All are due at once, and their reports hang, as many as may.
    let admitted = Instant::now();
    eventually("reports to be due", || admitted.elapsed() > REPORT_AFTER).await;
    store.held_back.send_replace(true);
    let before = store.asked.load(Ordering::Relaxed);
    for call in calls {
        one.end(call);
    }
    eventually("the reports", || store.asked.load(Ordering::Relaxed) > before).await;
    let call = one.meter.admit(one.ledger.pool(&waits, &chat()), Duration::ZERO).await;
    one.meter.give_back(call.unwrap());
}

#[tokio::test]
async fn what_was_read_for_a_call_and_has_changed_since_is_read_again() {
    let world = World::new();
    let (one, other) = (world.gateway("gw-1").await, world.gateway("gw-2").await);
    let (id, key) = opened(&other, 1).await;
    let keyring = Keyring::new(HASH_KEY, &[]).unwrap();
    let authenticator = Authenticator::new(world.store.clone(), keyring, no_limits(), CALL_PATIENCE);
    let found =
        authenticator.caller(api_key(&key), (Timestamp::now(), Duration::ZERO), &RefCell::default()).await.unwrap();
    let theirs = other.ledger.pool(&id, &chat());
    let sold = other.meter.admit(Arc::clone(&theirs), Duration::ZERO).await.unwrap();
    let pool = found.caller.pool(&chat(), &one.ledger);
    one.ledger.introduce(&pool, *found.read.unwrap());
    let call = one.meter.admit(Arc::clone(&pool), Duration::ZERO).await.unwrap();
    assert_eq!(one.metrics.commits.conflict.get(), 1);
    for (gateway, call) in [(&other, sold), (&one, call)] {
        let call = gateway.charged(call).await;
        gateway.end(call);
        gateway.ledger.finish().await;
    }
    let loaded = world.store.load(&id).await.unwrap().unwrap();
    let package = &loaded.pools[&chat()].value.packages[0];
    assert_eq!((package.settled, package.leased), (Units::new(2), Units::ZERO));
}
