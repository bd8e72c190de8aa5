//! What becomes of a charge that cannot be written down, and the room in the journal.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use futures_util::FutureExt;
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::domain::usage::LentCharge;
use crate::ports::BoxFuture;
use crate::ports::journal::{CallEnd, Journal, JournalError, Position, Record};

/// A journal whose disk can be full or broken. Counts what is reserved and not released.
struct Watched {
    journal: Arc<dyn Journal>,
    full: AtomicBool,
    broken: AtomicBool,
    reserved: AtomicI64,
}

impl Journal for Watched {
    fn reserve(&self) -> Result<(), JournalError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(JournalError::Full);
        }
        self.reserved.fetch_add(1, Ordering::Relaxed);
        self.journal.reserve()
    }

    fn release(&self) {
        self.reserved.fetch_sub(1, Ordering::Relaxed);
        self.journal.release();
    }

    fn append(&self, record: &Record) -> Result<Position, JournalError> {
        self.journal.append(record)
    }

    fn stage(&self, charge: LentCharge<'_>, end: Option<CallEnd>) -> Result<Position, JournalError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(JournalError::Io("broken".to_owned()));
        }
        if end.is_some() {
            self.reserved.fetch_sub(1, Ordering::Relaxed);
        }
        self.journal.stage(charge, end)
    }

    fn end(&self, end: CallEnd) {
        self.reserved.fetch_sub(1, Ordering::Relaxed);
        self.journal.end(end);
    }

    fn on_disk(&self, position: Position) -> BoxFuture<'_, Result<(), JournalError>> {
        self.journal.on_disk(position)
    }
}

/// A gateway whose account has bought so many calls, with a journal that is watched.
async fn watched(world: &World, units: u64) -> (Gateway, Arc<Watched>) {
    let mut gateway = world.gateway("gw-1").await;
    gateway.buy(units).await;
    let (full, broken) = (AtomicBool::default(), AtomicBool::default());
    let reserved = AtomicI64::default();
    let watched = Arc::new(Watched { journal: gateway.journal.writer(1), full, broken, reserved });
    gateway.meter = Meter::new(gateway.ledger.clone(), watched.clone(), CALL_PATIENCE);
    (gateway, watched)
}

#[tokio::test]
async fn charges_that_cannot_be_written_cost_nothing() {
    let world = World::new();
    let (gateway, journal) = watched(&world, 10).await;
    let [mut first, mut last] = [gateway.admit().await.unwrap(), gateway.admit().await.unwrap()];
    let left = gateway.pool().remaining();
    journal.broken.store(true, Ordering::Relaxed);
    for call in [&mut first, &mut last] {
        assert_eq!(gateway.meter.charge(call, answered()), Err(JournalError::Io("broken".to_owned())));
    }
    for call in [first, last] {
        assert_eq!((call.charged(), gateway.pool().remaining()), (None, left));
        gateway.meter.give_back(call);
    }
    journal.broken.store(false, Ordering::Relaxed);
    assert_eq!(gateway.sell_out().await, 10);
}

#[tokio::test]
async fn a_charge_that_is_taken_back_is_for_sale_again() {
    let world = World::new();
    let (gateway, _) = watched(&world, 10).await;
    let call = gateway.admit().await.unwrap();
    let left = gateway.pool().remaining();
    let call = gateway.charged(call).await;
    assert_eq!(gateway.pool().remaining(), left - 1);
    gateway.meter.end(call, Ending::SellerBroke, false, SystemClock.now());
    assert_eq!(gateway.pool().remaining(), left);
    assert_eq!(gateway.sell_out().await, 10);
}

#[tokio::test]
async fn the_end_of_a_whole_answer_is_written_down_with_its_charge_and_once() {
    let world = World::new();
    let (gateway, journal) = watched(&world, 3).await;
    let mut call = gateway.admit().await.unwrap();
    let at = SystemClock.now();
    let whole = Answered { whole: Some(at), ..answered() };
    let charged = gateway.meter.charge(&mut call, whole).unwrap().charged.unwrap();
    assert!(charged.ended);
    assert_eq!(journal.reserved.load(Ordering::Relaxed), 0, "it has no more to write");
    gateway.meter.settle(call);
    assert_eq!(journal.reserved.load(Ordering::Relaxed), 0);
    let mut ends = Vec::new();
    let mut each = |_, record| ends.extend(if let Record::End(end) = record { Some(end) } else { None });
    gateway.journal.read(&gateway.by, &mut each).unwrap();
    assert_eq!(ends, [CallEnd { call: 1, ending: Ending::Complete, billed: true, at }]);
    assert_eq!(gateway.sell_out().await, 2);
    world.settled(3).await;
}

#[tokio::test]
async fn room_in_the_journal_comes_before_a_call_and_is_given_back_however_it_ends() {
    let world = World::new();
    let (gateway, journal) = watched(&world, 3).await;
    journal.full.store(true, Ordering::Relaxed);
    assert!(matches!(gateway.admit().await, Err(AdmitError::Journal)));
    journal.full.store(false, Ordering::Relaxed);
    gateway.meter.give_back(gateway.admit().await.unwrap());
    let taken_back = gateway.open_call().await.unwrap();
    assert_eq!(journal.reserved.load(Ordering::Relaxed), 1);
    gateway.meter.end(taken_back, Ending::SellerBroke, false, SystemClock.now());
    assert_eq!(gateway.sell_out().await, 3, "and one is refused");
    assert_eq!(journal.reserved.load(Ordering::Relaxed), 0);
}

/// The time of day, so many seconds ahead.
#[derive(Default)]
struct Ahead(AtomicI64);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        SystemClock.now() + SignedDuration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

#[tokio::test]
async fn an_open_call_of_a_package_that_is_over_takes_nothing_from_the_next_one() {
    let clock = Arc::new(Ahead::default());
    let world = World { store: Arc::new(MemoryStore::new(clock.clone())) };
    let gateway = world.gateway("gw-1").await;
    gateway.buy(4).await;
    let stream = gateway.open_call().await.unwrap();
    assert_eq!(gateway.pool().remaining(), 3);

    clock.0.store(11 * 24 * 60 * 60, Ordering::Relaxed);
    gateway.buy_more("order-2", 10).await;
    let next = gateway.open_call().await.unwrap();
    assert_eq!(gateway.pool().remaining(), 9, "the stream's unit is the first package's");
    gateway.end(stream);
    gateway.end(next);
    eventually("the report", || !gateway.pool().has_news(Instant::now())).await;
    assert_eq!(gateway.pool().remaining(), 9);
    gateway.stop().await;
}

#[tokio::test]
async fn a_call_that_hangs_up_while_it_waits_for_quota_gives_its_room_back() {
    let world = World::new();
    let (gateway, journal) = watched(&world, 3).await;
    assert!(gateway.admit().now_or_never().is_none(), "nothing is leased yet");
    assert_eq!(journal.reserved.load(Ordering::Relaxed), 0);
}
