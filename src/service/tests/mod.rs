//! Several gateways, each with its own journal, on one store in memory that can fail: what is sold is what was bought.

mod charges;
mod cold;
mod crowded;
mod faults;
mod patience;
mod several;

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use tokio::task::JoinHandle;

use super::accounts::{Accounts, ChangeError, Done, NewPackage};
use super::attendance::Attendance;
use super::authenticate::tests::no_limits;
use super::commands::CommandLog;
use super::desk::Desk;
use super::ledger::{Ledger, Parts};
use super::meter::{AdmitError, Answered, Meter, OpenCall};
use super::recovery::recover;
use super::supply::LocalPool;
use super::unbooked::Unbooked;
use crate::adapter::clock::{SystemClock, SystemEntropy};
use crate::adapter::memory::MemoryStore;
use crate::adapter::memory_journal::{MemoryDisk, MemoryRun};
use crate::domain::amount::Units;
use crate::domain::billable::BillableStatuses;
use crate::domain::id::{AccountId, CommandId, GatewayId, Incarnation, OfferId, ProductId};
use crate::domain::offer::{Offer, Validity};
use crate::domain::package::Package;
use crate::domain::usage::{CallFacts, Ending};
use crate::ports::account_store::AccountStore;
use crate::ports::clock::Clock;
use crate::ports::journal::EarlierRuns;
use crate::protocol::keyring::Keyring;
use crate::telemetry::metrics::Metrics;

/// Far more than a slow machine needs; a test that waits longer fails.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a call waits for the store.
const CALL_PATIENCE: Duration = Duration::from_secs(1);

const HASH_KEY: &[u8] = b"a secret of the tests";

fn account() -> AccountId {
    AccountId::new("acme").unwrap()
}

fn chat() -> ProductId {
    ProductId::new("chat").unwrap()
}

fn offer(units: u64) -> Offer {
    Offer {
        id: OfferId::new("calls").unwrap(),
        product: chat(),
        quantity: Units::new(units),
        validity: Validity::Days(10),
        zone: TimeZone::UTC,
        billable: BillableStatuses::default(),
        price: None,
        for_apps: false,
    }
}

struct World {
    store: Arc<MemoryStore>,
}

/// A gateway with all that it consists of but the network.
struct Gateway {
    by: Incarnation,
    disk: Arc<MemoryDisk>,
    journal: Arc<MemoryRun>,
    ledger: Arc<Ledger>,
    accounts: Accounts,
    meter: Meter,
    metrics: Metrics,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl World {
    fn new() -> Self {
        Self { store: Arc::new(MemoryStore::new(Arc::new(SystemClock))) }
    }

    /// Starts a gateway's first run.
    async fn gateway(&self, name: &str) -> Gateway {
        self.run_on(name, 1, &Arc::new(MemoryDisk::default())).await
    }

    /// Starts a run of a gateway on its disk: settles the earlier ones and waits until it may sell.
    async fn run_on(&self, name: &str, number: u64, disk: &Arc<MemoryDisk>) -> Gateway {
        let gateway = self.start(name, number, disk).await;
        eventually("the check-in", || gateway.ledger.is_open()).await;
        gateway
    }

    async fn start(&self, name: &str, number: u64, disk: &Arc<MemoryDisk>) -> Gateway {
        Self::start_on(self.store.clone(), (name, number), disk, None).await
    }

    /// Starts a run that waits so long at most for the books of earlier ones.
    async fn start_on(
        store: Arc<dyn AccountStore>,
        (name, number): (&str, u64),
        disk: &Arc<MemoryDisk>,
        patience: Option<Duration>,
    ) -> Gateway {
        let by = Incarnation { gateway: GatewayId::new(name).unwrap(), number };
        let journal = disk.begin(by.clone());
        let runs: Arc<dyn EarlierRuns> = journal.clone();
        let desk = Desk::new(store, Arc::new(SystemClock), Arc::new(SystemEntropy), by.clone());
        let unbooked = Arc::new(Unbooked::default());
        recover(&runs, &desk, &unbooked, patience).await.unwrap();
        let metrics = Metrics::new().unwrap();
        let parts = Parts { desk: desk.clone(), grants: journal.writer(0), metrics: metrics.clone(), unbooked };
        let (ledger, nudges) = Ledger::new(parts);
        let ledger = Arc::new(ledger);
        let commands = Arc::new(CommandLog::new(desk.clone(), journal.writer(0), runs.clone()));
        let attendance = Attendance::new(desk.clone(), ledger.clone(), commands.clone(), runs, metrics.clone());
        let syncing = ledger.clone();
        let tasks = vec![
            tokio::spawn(async move { syncing.run(nudges, std::future::pending()).await }),
            tokio::spawn(async move { attendance.run(std::future::pending()).await }),
        ];
        let keyring = Keyring::new(HASH_KEY, &[]).unwrap();
        let accounts = Accounts::new(desk, commands, keyring);
        let meter = Meter::new(ledger.clone(), journal.writer(1), CALL_PATIENCE);
        Gateway { by, disk: disk.clone(), journal, ledger, accounts, meter, metrics, tasks }
    }

    async fn package(&self) -> Package {
        let loaded = self.store.load(&account()).await.unwrap().unwrap();
        let pool = &loaded.pools[&chat()].value;
        let package = pool.packages.first().cloned();
        match package {
            Some(package) => package,
            None => self.store.ended(&account()).await.unwrap().remove(0).1,
        }
    }

    /// Waits until the books say that so many units are used and nothing is leased or in suspense.
    async fn settled(&self, units: u64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let package = self.package().await;
            let quiet = package.leased.is_zero() && package.suspense.is_zero();
            if package.settled == Units::new(units) && quiet {
                assert!(package.balanced() && package.overrun.is_zero(), "{package:?}");
                return;
            }
            assert!(Instant::now() < deadline, "{units} units are not settled: {package:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A seller's answer that counts.
fn answered() -> Answered<'static> {
    static FACTS: LazyLock<CallFacts> = LazyLock::new(CallFacts::default);
    let (arrived, caller, facts) = (SystemClock.now(), None, FACTS.lend());
    Answered { request_id: "r", arrived, caller, status: 200, streamed: false, attempts: 1, whole: None, facts }
}

/// Waits for a condition that the tasks bring about.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

impl Gateway {
    /// Opens the account and buys a package of so many calls.
    async fn buy(&self, units: u64) {
        let opened = self.accounts.open(None, Some(account()), "Acme").await;
        assert!(opened.is_ok(), "{opened:?}");
        self.buy_more("order-1", units).await;
    }

    async fn buy_more(&self, order: &str, units: u64) {
        self.try_to_buy(order, units).await.unwrap();
    }

    async fn try_to_buy(&self, order: &str, units: u64) -> Result<Done<(ProductId, Package)>, ChangeError> {
        let order = Some(CommandId::new(order).unwrap());
        self.accounts.add_package(&account(), order, NewPackage::of(&offer(units))).await
    }

    fn pool(&self) -> Arc<LocalPool> {
        self.ledger.pool(&account(), &chat())
    }

    /// Admits a call that is not charged yet.
    async fn admit(&self) -> Result<OpenCall, AdmitError> {
        self.meter.admit(self.pool(), Duration::ZERO).await
    }

    /// Admits a call and charges it; it stays open.
    async fn open_call(&self) -> Result<OpenCall, AdmitError> {
        Ok(self.charged(self.admit().await?).await)
    }

    async fn charged(&self, mut call: OpenCall) -> OpenCall {
        let metered = self.meter.charge(&mut call, answered()).unwrap();
        assert!(metered.charged.is_some());
        call
    }

    fn end(&self, call: OpenCall) {
        self.meter.end(call, Ending::Complete, true, SystemClock.now());
    }

    /// One call from its beginning to its end.
    async fn call(&self) -> Result<(), AdmitError> {
        let call = self.open_call().await?;
        tokio::task::yield_now().await;
        self.end(call);
        Ok(())
    }

    /// Calls one after the other until one is refused for want of quota; returns how many were served.
    async fn sell_out(&self) -> u64 {
        let (mut sold, deadline) = (0, Instant::now() + PATIENCE);
        loop {
            match self.call().await {
                Ok(()) => sold += 1,
                Err(AdmitError::Empty(_)) => return sold,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        }
    }

    /// As if its process had died: its journal can be settled.
    fn kill(self) -> Arc<MemoryDisk> {
        self.disk.end(&self.by);
        self.disk.clone()
    }

    /// Stops in order: everything is in the books.
    async fn stop(self) {
        self.ledger.finish().await;
    }
}
