//! What a charge waits for, what becomes of one that cannot be written down, and the room in the journal.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use futures_util::FutureExt;
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::ports::BoxFuture;
use crate::ports::journal::{Journal, JournalError, Position, Record};

/// A journal whose disk can be full or broken. Counts what is reserved and not released, and how often it is written.
struct Watched {
    journal: Arc<dyn Journal>,
    full: AtomicBool,
    broken: AtomicBool,
    reserved: AtomicI64,
    writes: AtomicU64,
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

    fn stage(&self, record: &Record) -> Result<(), JournalError> {
        self.journal.stage(record)
    }

    fn write(&self) -> Result<Position, JournalError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(JournalError::Io("broken".to_owned()));
        }
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.journal.write()
    }

    fn append_soon(&self, record: &Record) {
        self.journal.append_soon(record);
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
    let (reserved, writes) = (AtomicI64::default(), AtomicU64::default());
    let watched = Arc::new(Watched { journal: gateway.journal.writer(1), full, broken, reserved, writes });
    gateway.meter = Meter::new(gateway.ledger.clone(), watched.clone(), CALL_PATIENCE);
    (gateway, watched)
}

#[tokio::test]
async fn a_charge_is_made_when_it_is_written_and_not_before() {
    let world = World::new();
    let (gateway, journal) = watched(&world, 10).await;
    let mut call = gateway.admit().await.unwrap();
    {
        let mut charge = pin!(gateway.meter.charge(&mut call, answered()));
        assert!(charge.as_mut().now_or_never().is_none(), "nothing is written yet");
        assert_eq!(journal.writes.load(Ordering::Relaxed), 0);
        let charged = tokio::select! {
            charged = charge => charged.unwrap(),
            () = gateway.meter.write_charges() => None, // never ends
        };
        assert!(charged.is_some());
    }
    assert_eq!(journal.writes.load(Ordering::Relaxed), 1);
    gateway.end(call);
}

/// The end of a turn of the event loop.
fn end_turn(gateway: &Gateway) {
    assert!(gateway.meter.write_charges().now_or_never().is_none(), "never ends");
}

/// How the charges of a test go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The first, and one after a turn with two.
    Waits,
    /// One after a turn with one: no other is expected.
    AtOnce,
    /// One beside that.
    WaitsBesideOne,
}

#[tokio::test]
async fn a_charge_without_company_is_written_at_once() {
    let world = World::new();
    let (gateway, journal) = watched(&world, 10).await;
    let mut open = Vec::new();
    for turn in [Turn::Waits, Turn::AtOnce, Turn::WaitsBesideOne, Turn::Waits] {
        let mut call = gateway.admit().await.unwrap();
        {
            let mut charge = pin!(gateway.meter.charge(&mut call, answered()));
            let at_once = charge.as_mut().now_or_never();
            assert_eq!(at_once.is_some(), turn == Turn::AtOnce);
            if turn != Turn::AtOnce {
                end_turn(&gateway);
                assert!(charge.await.unwrap().is_some());
            }
        }
        open.push(call);
        assert_eq!(journal.writes.load(Ordering::Relaxed), open.len() as u64);
    }
    end_turn(&gateway);
    assert_eq!(journal.writes.load(Ordering::Relaxed), 4, "a turn without waiting charges writes nothing");
    open.into_iter().for_each(|call| gateway.end(call));
}

#[tokio::test]
async fn a_charge_that_cannot_be_written_costs_nothing() {
    let world = World::new();
    let (gateway, journal) = watched(&world, 10).await;
    let mut call = gateway.admit().await.unwrap();
    let left = gateway.pool().remaining();
    journal.broken.store(true, Ordering::Relaxed);
    let charged = tokio::select! {
        charged = gateway.meter.charge(&mut call, answered()) => charged,
        () = gateway.meter.write_charges() => Ok(None), // never ends
    };
    assert_eq!(charged, Err(JournalError::Io("broken".to_owned())));
    assert_eq!((call.charged(), gateway.pool().remaining()), (None, left));
    gateway.meter.give_back(call);
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
    assert_eq!(stream.charged().unwrap().remaining, 3);

    clock.0.store(11 * 24 * 60 * 60, Ordering::Relaxed);
    gateway.buy_more("order-2", 10).await;
    let next = gateway.open_call().await.unwrap();
    assert_eq!(next.charged().unwrap().remaining, 9, "the stream's unit is the first package's");
    gateway.end(stream);
    gateway.end(next);
    eventually("the report", || !gateway.pool().has_news(Instant::now())).await;
    assert_eq!(gateway.pool().remaining(), 9);
    gateway.stop().await;
}
