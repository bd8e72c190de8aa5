//! The store and the journal that a start finds: accounts with a package each, leases of a run on some of them, and the
//! calls that the run charged before it was killed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use tollgate::adapter::clock::{SystemClock, SystemEntropy};
use tollgate::adapter::journal::{DataDir, RunOptions};
use tollgate::adapter::redis::RedisStore;
use tollgate::adapter::sqlite::SqliteStore;
use tollgate::config::{Login, Redis, RedisAddress, RedisServers};
use tollgate::domain::account::Account;
use tollgate::domain::allocation::Tags;
use tollgate::domain::amount::Units;
use tollgate::domain::billable::BillableStatuses;
use tollgate::domain::id::{
    AccountId, CommandId, GatewayId, Incarnation, KeyId, OfferId, PackageId, ProductId, ProjectId,
};
use tollgate::domain::key::ApiKey;
use tollgate::domain::lease::{Lease, LeasePart, Want};
use tollgate::domain::package::Package;
use tollgate::domain::pool::Pool;
use tollgate::domain::usage::{CallFacts, Charge, ChargePart, Ending, PackageTerms, UnitClass};
use tollgate::ports::account_store::{AccountStore, Believed, Commit, Stamp, Write};
use tollgate::ports::gateways::CheckIn;
use tollgate::ports::journal::{CallEnd, Grant, Journal, Record};
use tollgate::protocol::api_key::{ApiKeyText, KEY_RANDOM_BYTES, KeyHasher};
use tollgate::service::desk::Desk;
use tollgate::service::recovery::recover;
use tollgate::service::unbooked::Unbooked;

/// The gateway that was killed and starts again.
pub(crate) const GATEWAY: &str = "bench";
/// Units of every package, and of every lease.
const BOUGHT: u64 = 10_000_000;
const LEASED: u64 = 100_000;
/// Commits under way at one time.
const AT_ONCE: usize = 256;
/// Charges that one write puts into the journal.
const BATCH: u64 = 64;

/// Where everything is.
pub(crate) struct Place {
    pub(crate) data: PathBuf,
    /// A server's socket; `None`: the embedded store.
    pub(crate) redis: Option<PathBuf>,
}

/// How much of it there is.
pub(crate) struct Plan {
    pub(crate) packages: u64,
    /// Pools on which the killed run holds a lease.
    pub(crate) pools: u64,
    pub(crate) journal_bytes: u64,
}

/// Prepares all; returns the number of calls in the journal.
pub(crate) async fn prepare(place: &Place, plan: &Plan) -> u64 {
    std::fs::create_dir_all(&place.data).unwrap();
    let gateway = GatewayId::new(GATEWAY).unwrap();
    let dir = DataDir::open(&place.data, &gateway, Timestamp::now()).unwrap();
    let run = dir.begin_run(RunOptions { writers: 2, segment_bytes: 16 << 20 }).unwrap();
    let store = open(place).await;
    let servers = store.servers().await.unwrap();
    run.earlier().note_servers(&servers).unwrap();
    let writers = run.writers();
    let [grants, charges] = writers.as_slice() else { panic!("two writers were asked for") };
    let by = run.incarnation().clone();
    // A run that has sold had checked in: the next one finds the store open.
    while store.check_in(&by, &servers, std::slice::from_ref(&by)).await.unwrap() != CheckIn::Open {
        tokio::time::sleep(Duration::from_millis(100)).await; // a server that is new waits for others first
    }
    let commits = stream::iter(0..plan.packages).map(|number| {
        let (pool, lease) = pool(number, (number < plan.pools).then_some(&by));
        if let Some(lease) = lease {
            let (account, product) = (pool.account.clone(), pool.product.clone());
            let (parts, deadline) = (lease.parts, lease.deadline);
            let terms = pool.packages.iter().map(PackageTerms::of).collect();
            grants.append(&Record::Grant(Grant { account, product, number: 1, parts, deadline, terms })).unwrap();
        }
        store.commit(opening(pool, &by))
    });
    commits.buffer_unordered(AT_ONCE).for_each(|done| async { done.map(drop).unwrap() }).await;
    let mut calls = 0;
    while run.stats().bytes_written < plan.journal_bytes {
        for _ in 0..BATCH {
            while charges.reserve().is_err() {
                std::thread::yield_now(); // the next file is being made
            }
            calls += 1;
            charge(&**charges, calls, calls % plan.pools);
        }
    }
    calls
}

/// Accounts that nobody has called for yet, with a package and a key each; returns the keys.
pub(crate) async fn prepare_cold(socket: PathBuf, accounts: u64, hasher: &KeyHasher) -> Vec<ApiKeyText> {
    let store = open(&Place { data: PathBuf::new(), redis: Some(socket) }).await;
    let by = Incarnation { gateway: GatewayId::new("prepares").unwrap(), number: 1 };
    let key = |number: u64| {
        let mut random = [0; KEY_RANDOM_BYTES];
        // A key has a character for each byte, one of 62.
        random[..3].copy_from_slice(&[number % 62, number / 62 % 62, number / 3_844 % 62].map(|digit| digit as u8));
        ApiKeyText::from_random(random).unwrap()
    };
    let keys: Vec<ApiKeyText> = (0..accounts).map(key).collect();
    let commits = stream::iter(keys.iter().zip(0..)).map(|(key, number)| {
        let mut commit = opening(pool(number, None).0, &by);
        commit.head.as_mut().unwrap().value.keys.push(known(key, hasher));
        store.commit(commit)
    });
    commits.buffer_unordered(AT_ONCE).for_each(|done| async { done.map(drop).unwrap() }).await;
    keys
}

/// A key as its account's document keeps it.
fn known(key: &ApiKeyText, hasher: &KeyHasher) -> ApiKey {
    let id = KeyId::new("key-1").unwrap();
    ApiKey {
        description: "bench".to_owned(),
        ..ApiKey::new(id, hasher.hash(key.expose()), key.hint(), Timestamp::now())
    }
}

/// Brings the journal into the books, as the next start would.
pub(crate) async fn settle(place: &Place) {
    let gateway = GatewayId::new(GATEWAY).unwrap();
    let dir = DataDir::open(&place.data, &gateway, Timestamp::now()).unwrap();
    let run = dir.begin_run(RunOptions { writers: 2, segment_bytes: 16 << 20 }).unwrap();
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
    let desk = Desk::new(open(place).await, clock, entropy, run.incarnation().clone());
    recover(&run.earlier(), &desk, &Unbooked::default(), None).await.unwrap();
    run.finish().unwrap();
}

async fn open(place: &Place) -> Arc<dyn AccountStore> {
    let Some(socket) = &place.redis else {
        return Arc::new(SqliteStore::open(&place.data.join("store.sqlite3"), Arc::new(SystemClock)).unwrap());
    };
    let settings = Redis {
        servers: RedisServers::One(RedisAddress::Socket(socket.clone())),
        database: 0,
        prefix: "tollgate".to_owned(),
        tls: None,
        login: Login::default(),
        timeout: Duration::from_secs(10),
        volatile: false,
        durable: false,
    };
    Arc::new(RedisStore::open(&settings, Arc::new(SystemEntropy)).await.unwrap())
}

fn chat() -> ProductId {
    ProductId::new("chat").unwrap()
}

fn account(number: u64) -> AccountId {
    AccountId::new(&format!("account-{number:07}")).unwrap()
}

/// A package that has been in force for an hour, and is for months.
pub(crate) fn package(id: &str) -> Package {
    let now = Timestamp::now().checked_sub(SignedDuration::from_hours(1)).unwrap();
    Package {
        id: PackageId::new(id).unwrap(),
        offer: OfferId::new("chat-1000000").unwrap(),
        command: CommandId::new(&format!("order-{id}")).unwrap(),
        total: Units::new(BOUGHT),
        free: Units::new(BOUGHT),
        leased: Units::ZERO,
        settled: Units::ZERO,
        suspense: Units::ZERO,
        forfeited: Units::ZERO,
        overrun: Units::ZERO,
        bought_at: now,
        valid_from: now,
        valid_until: now.checked_add(SignedDuration::from_hours(90 * 24)).unwrap(),
        billable: BillableStatuses::default(),
        price: None,
        project: ProjectId::default(),
        tags: Tags::default(),
    }
}

/// A pool with one package, and a lease on it if it was drawn on.
fn pool(number: u64, leased_to: Option<&Incarnation>) -> (Pool, Option<Lease>) {
    let mut pool = Pool::new(account(number), chat());
    let now = pool.observe(Timestamp::now());
    pool.add(package(&format!("package-{number:07}")), &mut Vec::new());
    let want = Want { now: Units::new(1), rate: Units::new(LEASED) };
    let lease = leased_to.map(|by| pool.grant(by, 1, want, now).unwrap());
    (pool, lease)
}

fn opening(pool: Pool, by: &Incarnation) -> Commit {
    let (account, now) = (pool.account.clone(), Timestamp::now());
    let stamp = Stamp::next(None, 1);
    let head = Account::open(account.clone(), "Bench".to_owned(), now);
    Commit {
        account,
        head: Some(Write { expected: None, stamp, value: head }),
        pool: Some(Write { expected: None, stamp, value: pool }),
        ended: Vec::new(),
        events: Vec::new(),
        durable: false,
        believed: Believed { now, server: None },
        grants: false,
        by: by.clone(),
        turn: false,
    }
}

/// What each call is called.
pub(crate) fn request_id(call: u64) -> String {
    format!("0123456789abcdef-{call:016x}")
}

/// One call from its charge to its end, as the meter writes it.
fn charge(journal: &dyn Journal, call: u64, number: u64) {
    let now = Timestamp::now();
    let package = PackageId::new(&format!("package-{number:07}")).unwrap();
    let charge = Charge {
        call,
        request_id: request_id(call),
        arrived: now,
        account: account(number),
        caller: None,
        product: chat(),
        parts: vec![ChargePart { lease: 1, package, class: UnitClass::Calls, units: Units::new(1) }],
        status: 200,
        streamed: false,
        attempts: 1,
        facts: CallFacts::default(),
    };
    journal.stage(charge.lend(), None).unwrap();
    journal.end(CallEnd { call, ending: Ending::Complete, billed: true, at: now });
}

/// A part of a lease of which some is used.
pub(crate) fn part(id: &PackageId, granted: u64, used: u64) -> LeasePart {
    LeasePart { used: Units::new(used), ..LeasePart::new(id.clone(), Units::new(granted)) }
}
