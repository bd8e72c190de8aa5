//! The operators' use-cases over a store in memory.

use std::sync::Mutex;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan};

use super::*;
use crate::adapter::clock::SystemEntropy;
use crate::adapter::memory::{Fault, MemoryStore};
use crate::adapter::memory_journal::MemoryDisk;
use crate::domain::billable::BillableStatuses;
use crate::domain::id::OfferId;
use crate::domain::key::KEYS_PER_ACCOUNT_MAX;
use crate::domain::lease::Want;
use crate::domain::offer::Validity;
use crate::domain::settle::LeaseReport;
use crate::ports::account_store::{AccountStore, Commit};
use crate::ports::clock::Clock;

struct TestClock(Mutex<Timestamp>);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

struct World {
    accounts: Accounts,
    store: Arc<MemoryStore>,
    clock: Arc<TestClock>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(TestClock(Mutex::new("2026-01-10T00:00:00Z".parse().unwrap())));
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let keyring = Keyring::new(b"a secret of the tests", &[]).unwrap();
        let by = crate::domain::id::Incarnation::try_from("gw#1".to_owned()).unwrap();
        let desk = Desk::new(store.clone(), clock.clone(), Arc::new(SystemEntropy), by);
        let journal = Arc::new(MemoryDisk::default()).begin(desk.by.clone());
        let log = Arc::new(CommandLog::new(desk.clone(), journal.writer(0), journal));
        let accounts = Accounts::new(desk, log, keyring);
        Self { accounts, store, clock }
    }

    async fn with_account() -> (Self, AccountId) {
        let world = Self::new();
        let opened = world.accounts.open(None, Some(account("acme")), "Acme").await.unwrap();
        (world, opened.value.id)
    }

    fn pass(&self, time: SignedDuration) {
        let mut now = self.clock.0.lock().unwrap();
        *now = now.checked_add(time).unwrap();
    }
}

fn account(id: &str) -> AccountId {
    AccountId::new(id).unwrap()
}

fn command(id: &str) -> Option<CommandId> {
    Some(CommandId::new(id).unwrap())
}

fn offer(quantity: u64) -> Offer {
    Offer {
        id: OfferId::new("calls").unwrap(),
        product: ProductId::new("chat").unwrap(),
        quantity: Units::new(quantity),
        validity: Validity::Days(10),
        zone: TimeZone::UTC,
        billable: BillableStatuses::default(),
        price: None,
        for_apps: false,
    }
}

#[tokio::test]
async fn an_account_is_opened_once_per_command_or_id() {
    let world = World::new();
    let first = world.accounts.open(command("c-1"), None, "Acme").await.unwrap();
    let again = world.accounts.open(command("c-1"), None, "Acme").await.unwrap();
    assert!(!first.repeated && again.repeated);
    assert_eq!(first.value, again.value);
    assert!(first.value.id.as_str().starts_with("acct-") && first.value.id.as_str().len() == 21);

    let chosen = world.accounts.open(command("c-2"), Some(account("acme")), "Acme").await.unwrap();
    assert!(!chosen.repeated);
    assert!(world.accounts.open(command("c-2"), Some(account("acme")), "Acme").await.unwrap().repeated);
    let taken = world.accounts.open(command("c-3"), Some(account("acme")), "Acme").await;
    assert!(matches!(taken, Err(OpenError::Exists(id)) if id == account("acme")));
    assert_eq!(world.accounts.list(None).await.unwrap().len(), 2);
}

#[tokio::test]
async fn names_are_short_plain_texts() {
    let world = World::new();
    let check = async |name: &str, good: bool| {
        let opened = world.accounts.open(None, None, name).await;
        assert_eq!(opened.is_ok(), good, "{name:?}: {opened:?}");
    };
    check("A", true).await;
    check(&"ä".repeat(TEXT_CHARS_MAX), true).await;
    check(&"ä".repeat(TEXT_CHARS_MAX + 1), false).await;
    check("", false).await;
    check("  ", false).await;
    check("a\nb", false).await;
}

#[tokio::test]
async fn a_keys_text_finds_its_account_and_is_given_once() {
    let (world, id) = World::with_account().await;
    let added = world.accounts.add_key(&id, command("k-1"), NewKey::default()).await.unwrap();
    let text = added.text.unwrap();
    let hash = world.accounts.keyring.of_api_key(text.expose());
    assert_eq!(world.store.account_of(hash).await.unwrap(), Some(id.clone()));

    let again = world.accounts.add_key(&id, command("k-1"), NewKey::default()).await.unwrap();
    assert!(again.text.is_none() && again.key == added.key);
    // Commands are forgotten after 30 days, the key is not added a second time.
    world.pass(SignedDuration::from_hours(31 * 24));
    world.accounts.add_key(&id, command("k-2"), NewKey::default()).await.unwrap();
    assert!(world.accounts.add_key(&id, command("k-1"), NewKey::default()).await.unwrap().text.is_none());
    assert_eq!(world.accounts.show(&id).await.unwrap().loaded.head.value.keys.len(), 2);

    world.accounts.revoke_key(&id, &added.key.id).await.unwrap();
    assert_eq!(world.store.account_of(hash).await.unwrap(), None);
    let gone = world.accounts.revoke_key(&id, &added.key.id).await;
    assert!(matches!(gone, Err(ChangeError::Refused(Refusal::UnknownKey(_)))));
}

#[tokio::test]
async fn a_command_that_made_something_else_makes_no_key() {
    let (world, id) = World::with_account().await;
    world.accounts.add_package(&id, command("c-1"), NewPackage::of(&offer(5))).await.unwrap();
    let reused = world.accounts.add_key(&id, command("c-1"), NewKey::default()).await;
    assert!(matches!(reused, Err(ChangeError::CommandReused(_))));
    world.accounts.add_key(&id, command("c-2"), NewKey::default()).await.unwrap();
    let reused = world.accounts.add_package(&id, command("c-2"), NewPackage::of(&offer(5))).await;
    assert!(matches!(reused, Err(ChangeError::CommandReused(_))));
}

#[tokio::test]
async fn an_account_has_twenty_keys() {
    let (world, id) = World::with_account().await;
    for _ in 0..KEYS_PER_ACCOUNT_MAX {
        world.accounts.add_key(&id, None, NewKey::default()).await.unwrap();
    }
    let one_more = world.accounts.add_key(&id, None, NewKey::default()).await;
    assert!(matches!(one_more, Err(ChangeError::Refused(Refusal::TooManyKeys { max: 20 }))));
}

#[tokio::test]
async fn what_a_key_may_be_is_checked() {
    let (world, id) = World::with_account().await;
    let check = async |new: NewKey, expected: Option<InputFault>| {
        let found = match world.accounts.add_key(&id, None, new).await {
            Ok(_) => None,
            Err(ChangeError::Input(fault)) => Some(fault),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(found, expected);
    };
    let now = world.clock.now();
    let ending = |end| NewKey { expires_at: Some(end), ..NewKey::default() };
    check(ending(now), Some(InputFault::Over { field: "expires_at", end: now })).await;
    check(ending(now.checked_add(1.nanosecond()).unwrap()), None).await;
    let models = |count, name: &str| NewKey { models: Some(vec![name.to_owned(); count]), ..NewKey::default() };
    check(models(ALLOWED_MAX, "m"), None).await;
    check(models(ALLOWED_MAX + 1, "m"), Some(InputFault::List("models"))).await;
    check(models(1, "m\0"), Some(InputFault::Text("models"))).await;
    let described = NewKey { description: "x".repeat(TEXT_CHARS_MAX + 1), ..NewKey::default() };
    check(described, Some(InputFault::Text("description"))).await;
}

#[tokio::test]
async fn a_key_changes_in_what_is_given() {
    let (world, id) = World::with_account().await;
    let new = NewKey { description: "old".into(), models: Some(vec!["m".into()]), ..NewKey::default() };
    let added = world.accounts.add_key(&id, None, new).await.unwrap().key;
    let change = KeyChange { disabled: Some(true), models: Some(None), ..KeyChange::default() };
    let changed = world.accounts.change_key(&id, &added.id, change).await.unwrap();
    assert_eq!(changed, ApiKey { disabled: true, models: None, ..added });
    let unknown = world.accounts.change_key(&id, &KeyId::new("key-x").unwrap(), KeyChange::default()).await;
    assert!(matches!(unknown, Err(ChangeError::Refused(Refusal::UnknownKey(_)))));
}

#[tokio::test]
async fn a_package_is_bought_once_per_command() {
    let (world, id) = World::with_account().await;
    let first = world.accounts.add_package(&id, command("order-1"), NewPackage::of(&offer(100))).await.unwrap();
    let again = world.accounts.add_package(&id, command("order-1"), NewPackage::of(&offer(100))).await.unwrap();
    assert!(!first.repeated && again.repeated);
    assert_eq!(first.value, again.value);
    world.accounts.add_package(&id, command("order-2"), NewPackage::of(&offer(50))).await.unwrap();
    let shown = world.accounts.show(&id).await.unwrap();
    let pool = &shown.loaded.pools.values().next().unwrap().value;
    assert_eq!(pool.remaining(shown.loaded.now), Units::new(150));
    assert_eq!(world.store.outbox(&id).len(), 2);
}

#[tokio::test]
async fn a_package_that_has_ended_still_answers_for_its_command() {
    let (world, id) = World::with_account().await;
    let first = world.accounts.add_package(&id, command("order-1"), NewPackage::of(&offer(100))).await.unwrap();
    world.pass(SignedDuration::from_hours(12 * 24));
    world.accounts.add_package(&id, command("order-2"), NewPackage::of(&offer(1))).await.unwrap();
    let shown = world.accounts.show(&id).await.unwrap();
    assert_eq!(shown.ended.iter().map(|(_, package)| &package.id).collect::<Vec<_>>(), [&first.value.1.id]);
    let again = world.accounts.add_package(&id, command("order-1"), NewPackage::of(&offer(100))).await.unwrap();
    assert!(again.repeated);
    assert_eq!(again.value.1.forfeited, Units::new(100));
}

#[tokio::test]
async fn a_package_that_would_be_over_is_not_sold() {
    let (world, id) = World::with_account().await;
    let check = async |from: &str, good: bool| {
        let from = Some(from.parse().unwrap());
        let added =
            world.accounts.add_package(&id, None, NewPackage { valid_from: from, ..NewPackage::of(&offer(1)) }).await;
        assert_eq!(added.is_ok(), good, "{from:?}: {added:?}");
        assert!(good || matches!(added, Err(ChangeError::Input(InputFault::Over { field: "valid_from", .. }))));
    };
    check("2025-12-30T23:59:59Z", false).await;
    check("2025-12-31T00:00:00Z", true).await; // ends today at 23:59:59
    check("2027-01-01T00:00:00Z", true).await;
}

#[tokio::test]
async fn suspense_is_resolved_once_per_command() {
    let (world, id) = World::with_account().await;
    let package =
        world.accounts.add_package(&id, command("order-1"), NewPackage::of(&offer(8))).await.unwrap().value.1.id;
    suspend(&world, &id).await;
    let decide = async |name: &str, units, used| {
        let resolution = Resolution { package: package.clone(), units: Units::new(units), used };
        world.accounts.resolve_suspense(&id, command(name), resolution).await
    };
    let places = |done: (ProductId, Package)| {
        let package = done.1;
        (package.free.get(), package.settled.get(), package.suspense.get())
    };
    assert!(matches!(
        decide("d-0", 3, true).await,
        Err(ChangeError::Refused(Refusal::NotInSuspense { available })) if available == Units::new(2)
    ));
    assert_eq!(places(decide("d-1", 1, true).await.unwrap()), (6, 1, 1));
    assert_eq!(places(decide("d-1", 1, true).await.unwrap()), (6, 1, 1));
    // An id that did something else is no decision yet.
    assert_eq!(places(decide("order-1", 1, false).await.unwrap()), (7, 1, 0));
}

/// Leases two units to a gateway whose journal is lost.
async fn suspend(world: &World, id: &AccountId) {
    let loaded = world.store.load(id).await.unwrap().unwrap();
    let there = loaded.pools.values().next().unwrap();
    let mut pool = there.value.clone();
    let gone = crate::domain::id::Incarnation::try_from("gw#1".to_owned()).unwrap();
    let want = Want { now: Units::new(2), rate: Units::ZERO };
    let lease = pool.grant(&gone, 1, want, loaded.now).unwrap();
    let report =
        LeaseReport { number: 1, parts: lease.parts, deadline: lease.deadline, spent: Default::default(), lost: true };
    pool.settle(&gone, &report, loaded.now, &mut Vec::new());
    let desk = &world.accounts.desk;
    let commit = Commit {
        account: id.clone(),
        head: None,
        pool: Some(desk.write(Some(there.stamp), pool)),
        ended: Vec::new(),
        events: Vec::new(),
        durable: true,
        believed: desk.believed(Some(&loaded.server)),
        grants: false,
        by: desk.by.clone(),
        turn: false,
    };
    world.store.commit(commit).await.unwrap();
}

#[tokio::test]
async fn a_lost_reply_books_nothing_twice() {
    let (world, id) = World::with_account().await;
    for fault in [Fault::NotWritten, Fault::ReplyLost] {
        world.store.fail_commits([fault]);
        let name = format!("order-{fault:?}");
        let failed = world.accounts.add_package(&id, command(&name), NewPackage::of(&offer(10))).await;
        assert!(matches!(failed, Err(ChangeError::Store(_))));
        let done = world.accounts.add_package(&id, command(&name), NewPackage::of(&offer(10))).await.unwrap();
        assert_eq!(done.repeated, fault == Fault::ReplyLost);
    }
    let shown = world.accounts.show(&id).await.unwrap();
    assert_eq!(shown.loaded.pools.values().next().unwrap().value.packages.len(), 2);
}

#[tokio::test]
async fn what_the_store_had_no_room_for_is_not_made_later() {
    let (world, id) = World::with_account().await;
    world.store.fail_commits([Fault::Full, Fault::Full]);
    let refused = world.accounts.add_package(&id, None, NewPackage::of(&offer(10))).await;
    assert!(matches!(refused, Err(ChangeError::Store(StoreError::Full(_)))), "{refused:?}");
    let refused = world.accounts.open(None, Some(account("other")), "Other").await;
    assert!(matches!(refused, Err(OpenError::Store(StoreError::Full(_)))), "{refused:?}");
    world.accounts.log.retry().await.unwrap();
    world.accounts.log.tell_again().await.unwrap();
    assert!(world.accounts.show(&id).await.unwrap().loaded.pools.is_empty());
    assert_eq!(world.accounts.list(None).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_command_that_is_under_way_is_not_one_that_the_store_has_forgotten() {
    let world = World::new();
    let (log, store) = (&world.accounts.log, &world.store);
    let written = async || {
        while store.faults_left() > 0 {
            tokio::task::yield_now().await;
        }
    };
    store.fail_commits([Fault::Busy]);
    let mut opening = std::pin::pin!(world.accounts.open(None, Some(account("acme")), "Acme"));
    tokio::select! { biased; _ = &mut opening => panic!("another gateway has the turn"), () = written() => {} }
    log.tell_again().await.unwrap();
    assert!(world.accounts.list(None).await.unwrap().is_empty(), "the account is opened by whoever asked for it");
    let id = opening.await.unwrap().value.id;

    store.fail_commits([Fault::Busy]);
    let ten = offer(10);
    {
        let mut adding = std::pin::pin!(world.accounts.add_package(&id, None, NewPackage::of(&ten)));
        tokio::select! { biased; _ = &mut adding => panic!("another gateway has the turn"), () = written() => {} }
        log.tell_again().await.unwrap();
        assert!(world.accounts.show(&id).await.unwrap().loaded.pools.is_empty());
    }
    // Whoever asked has gone: what was written down is done all the same.
    log.retry().await.unwrap();
    let pools = world.accounts.show(&id).await.unwrap().loaded.pools;
    assert_eq!(pools[&ten.product].value.packages.len(), 1);
}

#[tokio::test]
async fn an_unknown_account_is_named() {
    let (world, nobody) = (World::new(), account("nobody"));
    let shown = world.accounts.show(&nobody).await;
    assert!(matches!(shown, Err(ShowError::UnknownAccount(id)) if id == nobody));
    let changed = world.accounts.add_package(&nobody, None, NewPackage::of(&offer(1))).await;
    assert!(matches!(changed, Err(ChangeError::UnknownAccount(id)) if id == nobody));
}

#[tokio::test]
async fn a_conflict_is_tried_again_a_bounded_number_of_times() {
    for (conflicts, good) in [(1, true), (COMMIT_ATTEMPTS_MAX - 1, true), (COMMIT_ATTEMPTS_MAX, false)] {
        let (world, id) = World::with_account().await;
        world.store.fail_commits(std::iter::repeat_n(Fault::Conflict, conflicts));
        let added = world.accounts.add_package(&id, None, NewPackage::of(&offer(1))).await;
        assert_eq!(added.is_ok(), good, "{conflicts}");
        assert!(good || matches!(added, Err(ChangeError::Busy)));
    }
}

#[tokio::test]
async fn changes_of_one_account_at_one_moment_are_all_made() {
    let (world, id) = World::with_account().await;
    world.store.answer_late(std::time::Duration::from_millis(1));
    let (ten, one) = (offer(10), async |number: usize| {
        let key = command(&format!("order-{number}"));
        world.accounts.add_package(&id, key, NewPackage::of(&offer(10))).await.map(drop)
    });
    let made = futures_util::future::join_all((0..40).map(one)).await;
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    let pools = world.accounts.show(&id).await.unwrap().loaded.pools;
    assert_eq!(pools[&ten.product].value.packages.len(), 40);
}
