//! How long a call waits for a store that answers late or never: for all that it needs of it together, no longer than
//! its patience.

use std::cell::RefCell;

use jiff::Timestamp;

use super::cold::{api_key, opened};
use super::*;
use crate::adapter::memory::Fault;
use crate::ports::gateways::ServerId;
use crate::protocol::api_key::ApiKeyText;
use crate::service::authenticate::{AuthError, Authenticator, Found};

/// Of a call whose store is silent.
const SHORT: Duration = Duration::from_millis(100);
/// A refusal comes so soon, even on a busy machine.
const REFUSED_WITHIN: Duration = Duration::from_millis(900);

/// A gateway whose callers wait so long.
struct Patient<'a> {
    gateway: &'a Gateway,
    authenticator: Authenticator,
    meter: Meter,
}

impl<'a> Patient<'a> {
    fn new(world: &World, gateway: &'a Gateway, patience: Duration) -> Self {
        let authenticator =
            Authenticator::new(world.store.clone(), Keyring::new(HASH_KEY, &[]).unwrap(), no_limits(), patience);
        let meter = Meter::new(gateway.ledger.clone(), gateway.journal.writer(2), patience);
        Self { gateway, authenticator, meter }
    }

    async fn find(&self, key: &ApiKeyText) -> Result<Found, AuthError> {
        self.authenticator.caller(api_key(key), (Timestamp::now(), Duration::ZERO), &RefCell::default()).await
    }

    /// Sets quota aside for a call that begins now, as the data plane does.
    async fn call(&self, key: &ApiKeyText) -> Result<OpenCall, AdmitError> {
        let Ok(found) = self.find(key).await else { return Err(AdmitError::Unavailable) };
        let pool = found.caller.pool(&chat(), &self.gateway.ledger);
        if let Some(read) = found.read {
            self.gateway.ledger.introduce(&pool, *read);
        }
        self.meter.admit(Arc::clone(&pool), found.waited).await
    }

    /// The call must be refused, and in time.
    async fn is_refused(&self, key: &ApiKeyText, why: &str) {
        let began = Instant::now();
        let refused = tokio::time::timeout(PATIENCE, self.call(key)).await;
        assert!(matches!(refused, Ok(Err(AdmitError::Unavailable))), "{why}: {:?}", refused.map(|call| call.map(drop)));
        assert!(began.elapsed() < REFUSED_WITHIN, "{why}: after {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn waits_for_the_store_are_added_up() {
    let world = World::new();
    let (one, other) = (world.gateway("gw-1").await, world.gateway("gw-2").await);
    let ((id, key), (_, second)) = (opened(&other, 1).await, opened(&other, 2).await);
    // Each answer comes within a call's patience, two of them do not.
    let patient = Patient::new(&world, &one, Duration::from_secs(1));
    world.store.answer_late(Duration::from_millis(600));
    let found = patient.find(&key).await.unwrap();
    assert!(found.waited >= Duration::from_millis(600));
    // The same for a second credential in the request.
    let at = (Timestamp::now(), found.waited);
    let also = patient.authenticator.caller(api_key(&second), at, &RefCell::default()).await;
    assert!(matches!(also, Err(AuthError::Unavailable(_))));
    let pool = one.ledger.pool(&id, &chat());
    one.ledger.introduce(&pool, *found.read.unwrap());
    assert!(matches!(patient.meter.admit(Arc::clone(&pool), found.waited).await, Err(AdmitError::Unavailable)));
    // What it asked for comes all the same, and serves the next.
    eventually("the lease", || pool.holds_any()).await;
    let call = patient.call(&key).await.unwrap();
    patient.meter.give_back(call);
}

#[tokio::test]
async fn a_call_is_refused_in_time_wherever_the_store_falls_silent() {
    let world = World::new();
    let (one, other) = (world.gateway("gw-1").await, world.gateway("gw-2").await);
    let mut keys = Vec::new();
    for number in 0..4 {
        keys.push(opened(&other, number).await.1);
    }
    let patient = Patient::new(&world, &one, SHORT);
    let [first, second, third, fourth] = keys.as_slice() else { unreachable!() };

    world.store.answer_late(Duration::MAX);
    patient.is_refused(first, "nobody says whose key it is").await;
    world.store.answer_late(Duration::ZERO);

    patient.find(second).await.unwrap();
    world.store.answer_late(Duration::MAX);
    patient.is_refused(second, "the account is not read").await;
    world.store.answer_late(Duration::ZERO);

    world.store.fail_commits([Fault::NoAnswer]);
    patient.is_refused(third, "the commit is not answered").await;

    patient.find(fourth).await.unwrap();
    world.store.answer_late(SHORT / 2);
    world.store.fail_commits([Fault::Conflict; 12]);
    patient.is_refused(fourth, "others are always faster").await;
}

#[tokio::test]
async fn a_call_is_refused_in_time_while_the_store_waits_for_another_gateway() {
    let world = World::new();
    let (one, other) = (world.gateway("gw-1").await, world.gateway("gw-2").await);
    let (_, key) = opened(&one, 1).await;
    let patient = Patient::new(&world, &one, SHORT);
    drop(other); // it says nothing any more, but lives as far as anybody knows
    world.store.restart(ServerId::new("after the restart"));
    eventually("the doubt", || !one.ledger.is_open()).await;
    patient.is_refused(&key, "no leases are given").await;
}

#[tokio::test]
async fn a_call_is_refused_in_time_while_it_is_always_anothers_turn() {
    let world = World::new();
    let (one, other) = (world.gateway("gw-1").await, world.gateway("gw-2").await);
    let (_, key) = opened(&other, 1).await;
    let patient = Patient::new(&world, &one, SHORT);
    patient.find(&key).await.unwrap();
    world.store.fail_commits([Fault::Busy; 100]);
    patient.is_refused(&key, "it is another's turn").await;
    // The ledger tries twelve times, a fiftieth of a second apart; the call does not wait for that.
    assert!((90..100).contains(&world.store.faults_left()), "{} faults are left", world.store.faults_left());
}

#[tokio::test]
async fn a_call_that_recalls_units_waits_for_their_holder_no_longer_than_its_patience() {
    let world = World::new();
    let (one, other) = (world.gateway("gw-1").await, world.gateway("gw-2").await);
    let (id, key) = opened(&other, 1).await;
    let pool = other.ledger.pool(&id, &chat());
    let mut sold = Vec::new();
    while let Ok(call) = other.meter.admit(Arc::clone(&pool), Duration::ZERO).await {
        sold.push(call);
    }
    assert_eq!(sold.len(), 1_000);
    drop(other); // it says nothing any more, but lives as far as anybody knows
    let hasty = Patient::new(&world, &one, Duration::from_millis(20));
    hasty.is_refused(&key, "the holder is asked, and does not answer").await;
    eventually("the recall", || one.metrics.ledger.recalls.get() == 1).await;
    let patient = Patient::new(&world, &one, Duration::from_secs(10));
    let began = Instant::now();
    let refused = patient.call(&key).await;
    assert!(matches!(refused, Err(AdmitError::Empty(_))), "{:?}", refused.map(drop));
    assert!(began.elapsed() < REFUSED_WITHIN, "the holder is not waited for beyond a while: {:?}", began.elapsed());
}

#[tokio::test]
async fn the_use_of_a_lease_that_came_too_late_for_its_call_is_reported() {
    let world = World::new();
    let one = world.gateway("gw-1").await;
    one.buy(1_000).await;
    let patient = Patient::new(&world, &one, SHORT);
    // Its first exchange is under way for longer than the ledger takes from one look at its pools to the next.
    world.store.answer_late(Duration::from_millis(600));
    let pool = one.pool();
    assert!(matches!(patient.meter.admit(Arc::clone(&pool), Duration::ZERO).await, Err(AdmitError::Unavailable)));
    eventually("the lease", || pool.holds_any()).await;
    world.store.answer_late(Duration::ZERO);
    one.call().await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while world.package().await.settled != Units::new(1) {
        assert!(Instant::now() < deadline, "the call is not reported");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
