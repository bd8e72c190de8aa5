//! What every account store must do, run on each of them. What only one of them does is tested beside it.

mod documents;
mod gateways;
mod index;
mod servers;
mod signatures;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use futures_util::future::LocalBoxFuture;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use tokio::sync::broadcast::error::TryRecvError;

use self::documents::*;
use self::gateways::*;
use self::index::*;
use self::signatures::*;
use crate::adapter::memory::MemoryStore;
use crate::adapter::redis::tests::{Place, redis_binary};
use crate::adapter::sqlite::SqliteStore;
use crate::domain::account::{Account, Change, apply};
use crate::domain::account::{Books, Sync, sync};
use crate::domain::allocation::Tags;
use crate::domain::amount::Units;
use crate::domain::billable::BillableStatuses;
use crate::domain::command::{Action, Command};
use crate::domain::event::Event;
use crate::domain::id::{
    AccountId, CommandId, GatewayId, Incarnation, KeyId, OfferId, PackageId, ProductId, ProjectId,
};
use crate::domain::key::{ApiKey, KeyHash};
use crate::domain::lease::Want;
use crate::domain::offer::{Offer, Validity};
use crate::ports::account_store::{AccountStore, Believed, Commit, CommitError, LIST_MAX, Loaded, Stamp, Write};
use crate::ports::clock::Clock;
use crate::ports::gateways::{Notice, ServerId};
use crate::ports::replay::ReplayCache;

/// A clock that stands until it is set.
struct StoppedClock(Mutex<Timestamp>);

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

type ReadOutbox = Box<dyn Fn(&AccountId) -> Vec<String>>;
type Overwrite = Box<dyn Fn(&AccountId, &str, &str)>;

/// A store of its own for each test.
struct World {
    store: Arc<dyn AccountStore>,
    /// The same store.
    used: Arc<dyn ReplayCache>,
    clock: Arc<StoppedClock>,
    /// The ids in an account's outbox.
    outbox: ReadOutbox,
    /// Replaces a document's text behind the store's back.
    overwrite: Overwrite,
    /// Lets the store begin another life; `None`: it forgets nothing when it restarts.
    restart: Option<Box<dyn Fn()>>,
    /// Makes each commit's stamp differ.
    random: Mutex<u64>,
    /// Goes when the test is over.
    _keeps: Option<Box<dyn std::any::Any>>,
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn stopped_clock() -> Arc<StoppedClock> {
    Arc::new(StoppedClock(Mutex::new(at("2026-03-01T12:00:00Z"))))
}

fn memory() -> World {
    let clock = stopped_clock();
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let (reads, writes, restarts) = (store.clone(), store.clone(), store.clone());
    World {
        used: store.clone(),
        store,
        clock,
        outbox: Box::new(move |account| reads.outbox(account).iter().map(Event::id).collect()),
        overwrite: Box::new(move |account, name, body| writes.overwrite(account, name, body)),
        restart: Some(Box::new(move || restarts.restart(ServerId::new("another life")))),
        random: Mutex::new(1),
        _keeps: None,
    }
}

fn sqlite() -> World {
    let clock = stopped_clock();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.sqlite3");
    let store = Arc::new(SqliteStore::open(&path, clock.clone()).unwrap());
    let tool = Arc::new(Mutex::new(rusqlite::Connection::open(&path).unwrap()));
    let other = tool.clone();
    let outbox = move |account: &AccountId| {
        let tool = tool.lock().unwrap();
        let mut ids = tool.prepare("SELECT id FROM outbox WHERE account = ?1 ORDER BY place").unwrap();
        ids.query_map([account.as_str()], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let overwrite = move |account: &AccountId, name: &str, body: &str| {
        let tool = other.lock().unwrap();
        let update = "UPDATE documents SET body = ?3 WHERE account = ?1 AND name = ?2";
        assert_eq!(tool.execute(update, [account.as_str(), name, body]), Ok(1));
    };
    World {
        used: store.clone(),
        store,
        clock,
        outbox: Box::new(outbox),
        overwrite: Box::new(overwrite),
        restart: None,
        random: Mutex::new(1),
        _keeps: Some(Box::new(directory)),
    }
}

fn account(text: &str) -> AccountId {
    AccountId::new(text).unwrap()
}

fn gateway(id: &str) -> Incarnation {
    Incarnation { gateway: GatewayId::new(id).unwrap(), number: 1 }
}

fn chat() -> ProductId {
    ProductId::new("chat").unwrap()
}

fn key(id: &str, hash: u8) -> ApiKey {
    ApiKey::new(KeyId::new(id).unwrap(), KeyHash([hash; 32]), "sk-tg-ab…yz".into(), Timestamp::UNIX_EPOCH)
}

fn add_package(id: &str, quantity: u64) -> Action {
    let offer = Offer {
        id: OfferId::new("small").unwrap(),
        product: chat(),
        quantity: Units::new(quantity),
        validity: Validity::Months(1),
        zone: TimeZone::UTC,
        billable: BillableStatuses::default(),
        price: None,
        for_apps: false,
    };
    let (project, tags) = (ProjectId::default(), Tags::default());
    let package = PackageId::new(id).unwrap();
    Action::AddPackage { package, offer, valid_from: None, project, tags, spare_app: None }
}

fn books(loaded: &Loaded) -> Books {
    let pools = loaded.pools.iter().map(|(product, pool)| (product.clone(), pool.value.clone()));
    Books { head: loaded.head.value.clone(), pools: pools.collect() }
}

impl World {
    fn stamp_after(&self, before: Option<Stamp>) -> Stamp {
        let mut random = self.random.lock().unwrap();
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        Stamp::next(before, *random)
    }

    fn opening(&self, id: &str) -> Commit {
        let head = Account::open(account(id), format!("Name of {id}"), self.clock.now());
        let write = Write { expected: None, stamp: self.stamp_after(None), value: head };
        Commit {
            account: account(id),
            head: Some(write),
            pool: None,
            ended: Vec::new(),
            events: Vec::new(),
            durable: true,
            believed: Believed { now: self.clock.now(), server: None },
            grants: false,
            by: gateway("gw"),
            turn: false,
        }
    }

    async fn opened(&self, id: &str) -> Loaded {
        self.store.commit(self.opening(id)).await.unwrap();
        self.load(id).await
    }

    async fn load(&self, id: &str) -> Loaded {
        self.store.load(&account(id)).await.unwrap().unwrap()
    }

    fn changing(&self, loaded: &Loaded, change: Change) -> Commit {
        let head = change.head.map(|value| {
            let before = loaded.head.stamp;
            Write { expected: Some(before), stamp: self.stamp_after(Some(before)), value }
        });
        let pool = change.pool.map(|value| {
            let before = loaded.pools.get(&value.product).map(|pool| pool.stamp);
            Write { expected: before, stamp: self.stamp_after(before), value }
        });
        Commit {
            account: loaded.head.value.id.clone(),
            head,
            pool,
            ended: change.ended,
            events: change.events,
            durable: false,
            believed: Believed { now: self.clock.now(), server: Some(loaded.server.clone()) },
            grants: false,
            by: gateway("gw"),
            turn: false,
        }
    }

    /// The commit of a command on what was loaded.
    fn commanding(&self, loaded: &Loaded, id: &str, action: Action) -> Commit {
        let command = Command { id: CommandId::new(id).unwrap(), action };
        self.changing(loaded, apply(&books(loaded), &command, self.clock.now()).unwrap())
    }

    /// The commit of one grant from the pool `chat`.
    fn granting(&self, loaded: &Loaded, by: &str, number: u64) -> Commit {
        let incarnation = gateway(by);
        let grant = Some((number, Want { now: Units::ONE, rate: Units::ZERO }));
        let asked = Sync { incarnation, reports: Vec::new(), ended: None, grant };
        let change = sync(&loaded.pools[&chat()].value, &asked, self.clock.now()).0;
        Commit { grants: true, by: gateway(by), ..self.changing(loaded, change) }
    }

    fn pass(&self, time: SignedDuration) {
        let mut now = self.clock.0.lock().unwrap();
        *now = now.checked_add(time).unwrap();
    }

    /// An account with a package of so many calls of `chat`.
    async fn with_package(&self, id: &str, quantity: u64) -> Loaded {
        self.check_in().await;
        let loaded = self.opened(id).await;
        let commit = self.commanding(&loaded, "first-order", add_package("p-1", quantity));
        self.store.commit(commit).await.unwrap();
        self.load(id).await
    }
}

fn conflict(result: Result<Timestamp, CommitError>) -> Option<Box<Loaded>> {
    match result {
        Err(CommitError::Conflict(current)) => current,
        other => panic!("no conflict but {other:?}"),
    }
}

async fn what_was_committed_is_loaded(world: World) {
    assert_eq!(world.store.load(&account("a")).await.unwrap(), None);
    let opening = world.opening("a");
    world.store.commit(opening.clone()).await.unwrap();
    let loaded = world.load("a").await;
    let head = opening.head.unwrap();
    assert_eq!((loaded.head.stamp, &loaded.head.value), (head.stamp, &head.value));
    assert!(loaded.pools.is_empty());
    let commit = world.commanding(&loaded, "order", add_package("p-1", 10));
    world.store.commit(commit.clone()).await.unwrap();
    let loaded = world.load("a").await;
    assert_eq!(loaded.head.value, commit.head.unwrap().value);
    let pool = commit.pool.unwrap();
    assert_eq!((loaded.pools[&chat()].stamp, &loaded.pools[&chat()].value), (pool.stamp, &pool.value));
    assert_eq!(loaded.pools[&chat()].stamp.counter, 1);
}

async fn replies_carry_the_stores_time(world: World) {
    assert_eq!(world.store.commit(world.opening("a")).await.unwrap(), at("2026-03-01T12:00:00Z"));
    *world.clock.0.lock().unwrap() = at("2026-03-01T12:00:01.5Z");
    assert_eq!(world.load("a").await.now, at("2026-03-01T12:00:01.5Z"));
    let current = conflict(world.store.commit(world.opening("a")).await);
    assert_eq!(current.unwrap().now, at("2026-03-01T12:00:01.5Z"));
}

async fn an_account_is_opened_once(world: World) {
    let first = world.opened("a").await;
    let current = conflict(world.store.commit(world.opening("a")).await);
    assert_eq!(current.as_deref(), Some(&first));
}

async fn nothing_is_written_for_an_account_that_is_not_there(world: World) {
    let elsewhere = world.with_package("a", 10).await;
    let mut commit = world.granting(&elsewhere, "gw", 1);
    commit.account = account("b");
    // Another server may be the one to hold it.
    (commit.believed.server, commit.grants) = (None, false);
    assert_eq!(conflict(world.store.commit(commit.clone()).await), None);
    commit.pool.as_mut().unwrap().expected = None;
    assert_eq!(conflict(world.store.commit(commit.clone()).await), None);
    let mut commit = Commit { pool: None, ..commit };
    commit.events = vec![Event::PackageUsedUp { product: chat(), package: PackageId::new("p-1").unwrap() }];
    assert_eq!(conflict(world.store.commit(commit).await), None);
    assert_eq!(world.store.load(&account("b")).await.unwrap(), None);
    assert_eq!((world.outbox)(&account("b")), Vec::<String>::new());
}

async fn a_conflict_returns_what_is_there(world: World) {
    let seen = world.with_package("a", 10).await;
    let (first, second) = (world.granting(&seen, "gw-1", 1), world.granting(&seen, "gw-2", 1));
    world.store.commit(first).await.unwrap();
    let current = conflict(world.store.commit(second).await).unwrap();
    assert_eq!(*current, world.load("a").await);
    let again = world.granting(&current, "gw-2", 1);
    world.store.commit(again).await.unwrap();
    assert_eq!(world.load("a").await.pools[&chat()].value.packages[0].leased, Units::new(2));
}

async fn stamps_are_compared_whole(world: World) {
    let seen = world.with_package("a", 10).await;
    let good = world.granting(&seen, "gw", 1);
    let expected = good.pool.as_ref().unwrap().expected.unwrap();
    for wrong in
        [Stamp { random: expected.random ^ 1, ..expected }, Stamp { counter: expected.counter + 1, ..expected }]
    {
        let mut commit = good.clone();
        commit.pool.as_mut().unwrap().expected = Some(wrong);
        conflict(world.store.commit(commit).await);
    }
    world.store.commit(good).await.unwrap();
}

async fn stamps_keep_all_their_bits(world: World) {
    let mut opening = world.opening("a");
    let stamp = Stamp { counter: u64::MAX, random: u64::MAX - 1 };
    opening.head.as_mut().unwrap().stamp = stamp;
    world.store.commit(opening).await.unwrap();
    assert_eq!(world.load("a").await.head.stamp, stamp);
}

async fn a_commit_whose_reply_was_lost_is_a_success_when_repeated(world: World) {
    let seen = world.with_package("a", 10).await;
    let both = world.commanding(&seen, "second-order", add_package("p-2", 5));
    for commit in [world.granting(&seen, "gw", 1), both] {
        let mut fresh = world.load("a").await;
        let mut commit = commit;
        // Both were made on the same documents; the second one follows the first.
        commit.pool.as_mut().unwrap().expected = fresh.pools.remove(&chat()).map(|pool| pool.stamp);
        world.store.commit(commit.clone()).await.unwrap();
        let after = world.load("a").await;
        let events = (world.outbox)(&account("a"));
        world.store.commit(commit).await.unwrap();
        assert_eq!(world.load("a").await, after);
        assert_eq!((world.outbox)(&account("a")), events);
    }
}

async fn of_two_writers_exactly_one_wins_each_round(world: World) {
    const ROUNDS: u64 = 50;
    world.with_package("a", 1_000).await;
    for round in 1..=ROUNDS {
        let seen = world.load("a").await;
        let race = ["gw-1", "gw-2"].map(|gateway| {
            let (store, commit) = (world.store.clone(), world.granting(&seen, gateway, round));
            tokio::spawn(async move { store.commit(commit).await.is_ok() })
        });
        let mut won = 0;
        for racer in race {
            won += u64::from(racer.await.unwrap());
        }
        assert_eq!(won, 1, "round {round}");
    }
    let pool = &world.load("a").await.pools[&chat()];
    assert_eq!(pool.value.packages[0].leased, Units::new(ROUNDS));
    assert_eq!(pool.stamp.counter, ROUNDS + 1);
}

async fn writers_of_many_accounts_do_not_disturb_each_other(world: World) {
    let ids: Vec<String> = (0..40).map(|number| format!("a-{number}")).collect();
    let mut commits = Vec::new();
    for id in &ids {
        let seen = world.with_package(id, 100).await;
        commits.push((true, world.granting(&seen, "gw-1", 1)));
        let mut stale = world.granting(&seen, "gw-2", 1);
        stale.pool.as_mut().unwrap().expected = None;
        stale.durable = true;
        commits.push((false, stale));
    }
    let send = |(fits, commit)| {
        let store = world.store.clone();
        tokio::spawn(async move { (fits, store.commit(commit).await.is_ok()) })
    };
    for sent in commits.into_iter().map(send).collect::<Vec<_>>() {
        let (fits, done) = sent.await.unwrap();
        assert_eq!(fits, done);
    }
    for id in &ids {
        assert_eq!(world.load(id).await.pools[&chat()].value.packages[0].leased, Units::ONE);
    }
}

async fn head_and_pool_are_written_together_or_not_at_all(world: World) {
    let seen = world.with_package("a", 10).await;
    let both = world.commanding(&seen, "second-order", add_package("p-2", 5));
    let (mut stale_head, mut stale_pool) = (both.clone(), both.clone());
    stale_head.head.as_mut().unwrap().expected = None;
    stale_pool.pool.as_mut().unwrap().expected = None;
    for commit in [stale_head, stale_pool] {
        let events = (world.outbox)(&account("a"));
        assert_eq!(conflict(world.store.commit(commit).await).as_deref(), Some(&seen));
        assert_eq!(world.load("a").await, seen);
        assert_eq!((world.outbox)(&account("a")), events);
    }
    world.store.commit(both).await.unwrap();
}

async fn the_history_keeps_each_package_once_and_the_latest_first(world: World) {
    assert_eq!(world.store.ended(&account("a")).await.unwrap(), []);
    let mut seen = world.with_package("a", 1).await;
    world.with_package("b", 1).await;
    let package = seen.pools[&chat()].value.packages[0].clone();
    let mut expected = Vec::new();
    for id in ["p-1", "p-2", "p-1"] {
        let mut commit = world.granting(&seen, "gw", 1);
        let ended = crate::domain::package::Package { id: PackageId::new(id).unwrap(), ..package.clone() };
        commit.ended.push(ended.clone());
        world.store.commit(commit).await.unwrap();
        expected.retain(|(_, known): &(ProductId, crate::domain::package::Package)| known.id != ended.id);
        expected.insert(0, (chat(), ended));
        assert_eq!(world.store.ended(&account("a")).await.unwrap(), expected);
        assert_eq!(world.store.ended_before(&account("a"), 1).await.unwrap(), expected[1..]);
        seen = world.load("a").await;
    }
    assert_eq!(world.store.ended(&account("b")).await.unwrap(), []);
}

async fn an_event_is_in_the_outbox_once_per_account(world: World) {
    let product = chat();
    let event = |package| Event::PackageUsedUp { product: product.clone(), package: PackageId::new(package).unwrap() };
    for id in ["a", "b"] {
        let mut seen = world.with_package(id, 10).await;
        for (number, events) in
            [vec![event("p-7"), event("p-7")], vec![event("p-8"), event("p-7")]].into_iter().enumerate()
        {
            let mut commit = world.granting(&seen, "gw", number as u64 + 1);
            commit.events = events;
            world.store.commit(commit).await.unwrap();
            seen = world.load(id).await;
        }
        assert_eq!((world.outbox)(&account(id)), ["p-1/added", "p-7/used_up", "p-8/used_up"]);
    }
}

async fn accounts_are_listed_in_pages_in_the_order_of_their_ids(world: World) {
    assert_eq!(world.store.list(None).await.unwrap(), []);
    let number = LIST_MAX + 1;
    let mut sent = Vec::new();
    for index in (0..number).rev() {
        let (store, opening) = (world.store.clone(), world.opening(&format!("a-{index:05}")));
        sent.push(tokio::spawn(async move { store.commit(Commit { durable: false, ..opening }).await }));
    }
    for sent in sent {
        sent.await.unwrap().unwrap();
    }
    let loaded = world.load("a-00000").await;
    world.store.commit(world.commanding(&loaded, "order", add_package("p-1", 1))).await.unwrap();
    let first = world.store.list(None).await.unwrap();
    assert_eq!((first.len(), first[0].id.as_str()), (LIST_MAX, "a-00000"));
    assert_eq!(first[0].name, "Name of a-00000");
    assert!(first.is_sorted_by(|one, next| one.id < next.id));
    let second = world.store.list(first.last().map(|last| last.id.clone())).await.unwrap();
    assert_eq!(second.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["a-01000"]);
    assert_eq!(world.store.list(Some(account("a-01000"))).await.unwrap(), []);
}

async fn changes_of_heads_are_told_and_nothing_else(world: World) {
    let changed = |id| Ok(Notice::Changed(account(id)));
    let mut changes = world.store.changes();
    let seen = world.with_package("a", 10).await;
    assert_eq!((changes.try_recv(), changes.try_recv()), (changed("a"), changed("a")));
    world.store.commit(world.granting(&seen, "gw", 1)).await.unwrap();
    conflict(world.store.commit(world.opening("a")).await);
    assert_eq!(changes.try_recv(), Err(TryRecvError::Empty));
}

async fn durable_or_not_a_commit_is_seen_at_once(world: World) {
    let mut seen = world.with_package("a", 100).await;
    for number in 1..=20 {
        let commit = Commit { durable: number % 3 == 0, ..world.granting(&seen, "gw", number) };
        let stamp = commit.pool.as_ref().unwrap().stamp;
        world.store.commit(commit).await.unwrap();
        seen = world.load("a").await;
        assert_eq!(seen.pools[&chat()].stamp, stamp);
    }
}

async fn a_slow_listener_is_told_that_it_has_missed_something(world: World) {
    let mut changes = world.store.changes();
    for index in 0..=crate::adapter::documents::NOTICES_KEPT {
        world.store.commit(Commit { durable: false, ..world.opening(&format!("a-{index}")) }).await.unwrap();
    }
    assert!(matches!(changes.try_recv(), Err(TryRecvError::Lagged(_))));
}

async fn time_may_pass_between_commits(world: World) {
    let seen = world.with_package("a", 10).await;
    let end = seen.pools[&chat()].value.packages[0].expires_at();
    *world.clock.0.lock().unwrap() = end.checked_add(1.second()).unwrap();
    let commit = world.granting(&world.load("a").await, "gw", 1);
    assert_eq!(commit.ended.len(), 1);
    world.store.commit(commit).await.unwrap();
    let ended = world.store.ended(&account("a")).await.unwrap();
    let ids: HashSet<_> = ended.iter().map(|(_, package)| package.id.as_str()).collect();
    assert_eq!(ids, HashSet::from(["p-1"]));
    assert_eq!((world.outbox)(&account("a")), ["p-1/added", "p-1/expired"]);
}

/// A property's name, and how it is checked.
type Property = (&'static str, fn(World) -> LocalBoxFuture<'static, ()>);

macro_rules! on_every_store {
    ($($property:ident)*) => {
        mod on_memory {
            $(#[tokio::test]
            async fn $property() {
                super::$property(super::memory()).await;
            })*
        }
        mod on_sqlite {
            $(#[tokio::test]
            async fn $property() {
                super::$property(super::sqlite()).await;
            })*
        }
        mod on_redis {
            $(#[tokio::test]
            async fn $property() {
                let place = super::Place::alone(super::redis_binary());
                super::$property(super::servers::world(place, "tollgate").await).await;
            })*
        }
        const PROPERTIES: &[Property] = &[$((stringify!($property), |world| Box::pin($property(world)))),*];
    };
}

on_every_store! {
    what_was_committed_is_loaded
    replies_carry_the_stores_time
    an_account_is_opened_once
    nothing_is_written_for_an_account_that_is_not_there
    a_conflict_returns_what_is_there
    stamps_are_compared_whole
    stamps_keep_all_their_bits
    a_commit_whose_reply_was_lost_is_a_success_when_repeated
    of_two_writers_exactly_one_wins_each_round
    writers_of_many_accounts_do_not_disturb_each_other
    head_and_pool_are_written_together_or_not_at_all
    the_key_index_follows_the_head
    the_key_index_knows_apps_and_their_codes
    a_key_of_another_account_is_refused
    the_history_keeps_each_package_once_and_the_latest_first
    an_event_is_in_the_outbox_once_per_account
    accounts_are_listed_in_pages_in_the_order_of_their_ids
    changes_of_heads_are_told_and_nothing_else
    durable_or_not_a_commit_is_seen_at_once
    a_document_may_not_grow_beyond_its_limit
    a_document_that_cannot_be_read_affects_its_account_only
    a_slow_listener_is_told_that_it_has_missed_something
    time_may_pass_between_commits
    a_commit_for_another_server_is_refused
    a_writer_whose_time_is_off_is_told_the_time
    a_server_that_may_have_forgotten_gives_no_lease_before_all_have_checked_in
    a_server_that_may_not_know_who_lives_listens_before_it_gives_leases
    a_gateway_that_never_checks_in_is_waited_for_as_long_as_leases_last
    a_gateway_that_is_always_late_gets_a_turn
    a_gateway_lives_for_a_while_after_its_heartbeat
    every_listener_hears_every_notice
    a_signature_is_used_first_once_however_many_ask_at_once
    a_used_signature_is_remembered_until_it_is_over
    a_use_that_is_taken_back_can_be_noted_again
    no_used_signature_makes_room_for_another_before_it_is_over
    what_a_store_may_have_forgotten_is_not_taken_for_new
}
