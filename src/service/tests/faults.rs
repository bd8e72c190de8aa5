//! Gateways that share a pool, while processes die and the store fails.

use jiff::SignedDuration;

use super::cold::Counting;
use super::*;
use crate::adapter::memory::Fault;
use crate::ports::gateways::ServerId;
use crate::service::accounts::{ChangeError, Resolution};

#[tokio::test]
async fn a_killed_gateways_journal_settles_what_it_used() {
    let world = World::new();
    let one = world.gateway("gw-1").await;
    one.buy(50).await;
    for _ in 0..7 {
        one.call().await.unwrap();
    }
    let open = one.open_call().await.unwrap();
    let disk = one.kill();
    drop(open);
    let again = world.run_on("gw-1", 2, &disk).await;
    world.settled(8).await;
    assert_eq!(again.sell_out().await, 42);
}

#[tokio::test]
async fn a_run_is_settled_once_its_own_use_is_booked() {
    let world = World::new();
    let one = world.gateway("gw-1").await;
    one.buy(2).await;
    one.call().await.unwrap();
    let disk = one.kill();
    let idle = Incarnation { gateway: GatewayId::new("gw-1").unwrap(), number: 2 };
    disk.begin(idle.clone());
    disk.end(&idle);
    let by = Incarnation { number: 3, ..idle };
    let (journal, store) = (disk.begin(by.clone()), world.store.clone());
    let desk = Desk::new(store, Arc::new(SystemClock), Arc::new(SystemEntropy), by);
    let runs: Arc<dyn EarlierRuns> = journal;
    let found = recover(&runs, &desk, &Unbooked::default(), Some(Duration::ZERO)).await.unwrap();
    assert_eq!((found.runs, found.left), (2, 1));
    let unsettled = |runs: &Arc<dyn EarlierRuns>| {
        runs.unsettled().unwrap().into_iter().map(|run| run.incarnation.number).collect::<Vec<_>>()
    };
    assert_eq!(unsettled(&runs), [1]);
    recover(&runs, &desk, &Unbooked::default(), None).await.unwrap();
    assert!(unsettled(&runs).is_empty());
}

#[tokio::test]
async fn a_start_that_does_not_wait_for_the_books_refuses_no_call_for_what_an_earlier_run_held() {
    let world = World::new();
    let one = world.gateway("gw-1").await;
    one.buy(2).await;
    let (first, second) = (one.open_call().await.unwrap(), one.admit().await.unwrap());
    one.end(first);
    one.meter.give_back(second);
    assert_eq!(world.package().await.free, Units::ZERO, "both are leased");
    let (disk, store) = (one.kill(), Counting::new(&world.store));
    store.held_back.send_replace(true);
    let again = World::start_on(store.clone(), ("gw-1", 2), &disk, Some(Duration::ZERO)).await;
    eventually("the check-in", || again.ledger.is_open()).await;
    let waited = again.call().await;
    assert!(matches!(waited, Err(AdmitError::Unavailable)), "one may be left: {waited:?}");
    assert_eq!(again.metrics.ledger.recalls.get(), 0, "the run that holds it answers nobody");
    assert_eq!(world.package().await.free, Units::ZERO, "nothing is booked yet");
    store.held_back.send_replace(false);
    assert_eq!(again.sell_out().await, 1);
    again.stop().await;
    world.settled(2).await;
}

#[tokio::test]
async fn a_call_that_finds_nothing_but_what_an_ended_run_held_waits_until_that_is_booked() {
    let world = World::new();
    let (one, two) = (world.gateway("gw-1").await, world.gateway("gw-2").await);
    one.buy(1).await;
    one.meter.give_back(one.admit().await.unwrap());
    assert_eq!(world.package().await.free, Units::ZERO);
    let (disk, pool) = (one.kill(), (account(), chat()));
    two.ledger.unbooked().add(std::iter::once(&pool));
    let booked = async {
        world.run_on("gw-1", 2, &disk).await;
        two.ledger.unbooked().remove(&pool);
    };
    let (call, ()) = tokio::join!(two.call(), booked);
    assert_eq!(call, Ok(()));
    assert_eq!(two.metrics.ledger.recalls.get(), 0, "no other gateway is asked for it");
    let refused = two.call().await;
    assert!(matches!(refused, Err(AdmitError::Empty(_))), "now it is true: {refused:?}");
}

#[tokio::test]
async fn a_store_that_lost_its_tail_sells_nothing_twice() {
    let world = World::new();
    let (one, two) = (world.gateway("gw-1").await, world.gateway("gw-2").await);
    one.buy(40).await;
    let before = world.store.contents();
    // The store forgets these leases, which are in use.
    let mut sold = 0;
    for _ in 0..6 {
        one.call().await.unwrap();
        two.call().await.unwrap();
        sold += 2;
    }
    let open = one.open_call().await.unwrap();
    world.store.roll_back(before);
    world.store.restart(ServerId::new("after the rollback"));
    let (first, second) = tokio::join!(one.sell_out(), two.sell_out());
    sold += first + second + 1;
    one.end(open);
    sold += one.sell_out().await + two.sell_out().await;
    assert_eq!(sold, 40);
    let of = |gateway: &Gateway| gateway.metrics.ledger.clone();
    assert!(of(&one).rollbacks.get() + of(&two).rollbacks.get() > 0);
    assert!(of(&one).check_ins.get() >= 2 && of(&two).check_ins.get() >= 2);
    one.stop().await;
    two.stop().await;
    world.settled(40).await;
}

#[tokio::test]
async fn after_a_flushall_accounts_packages_and_use_come_back() {
    let world = World::new();
    let (one, two) = (world.gateway("gw-1").await, world.gateway("gw-2").await);
    one.buy(30).await;
    // Bought at the other one, on an account that it did not open.
    two.buy_more("order-2", 10).await;
    let mut sold = 0;
    for _ in 0..5 {
        one.call().await.unwrap();
        two.call().await.unwrap();
        sold += 2;
    }
    world.store.roll_back(Default::default());
    world.store.restart(ServerId::new("after the flush"));
    sold += one.sell_out().await + two.sell_out().await;
    // Until the account is back the pool seems to have no package; then everything is there.
    eventually("both check-ins", || one.ledger.is_open() && two.ledger.is_open()).await;
    let deadline = Instant::now() + PATIENCE;
    while sold < 40 && Instant::now() < deadline {
        sold += one.sell_out().await + two.sell_out().await;
    }
    assert_eq!(sold, 40);
    assert_eq!(one.sell_out().await + two.sell_out().await, 0);
    one.stop().await;
    two.stop().await;
    let ended = world.store.ended(&account()).await.unwrap();
    let settled: u64 = ended.iter().map(|(_, package)| package.settled.get()).sum();
    assert_eq!((ended.len(), settled), (2, 40));
}

#[tokio::test]
async fn use_of_an_account_that_comes_back_after_the_check_in_is_booked_then() {
    let world = World::new();
    let (one, two) = (world.gateway("gw-1").await, world.gateway("gw-2").await);
    one.buy(30).await;
    for _ in 0..4 {
        two.call().await.unwrap();
    }
    two.ledger.finish().await;
    world.settled(4).await;
    // The store is emptied while the only one who can tell the account again is dead.
    let disk = one.kill();
    world.store.roll_back(Default::default());
    world.store.restart(ServerId::new("after the flush"));
    eventually("the check-in begins", || !two.ledger.is_open()).await;
    let mut off = 0;
    let waits_no_longer = || {
        off += 1; // for the dead one, as long as leases last
        world.store.step_time(SignedDuration::from_secs(off));
        two.metrics.ledger.check_ins.get() >= 2
    };
    eventually("the check-in", waits_no_longer).await;
    let again = world.start("gw-1", 2, &disk).await;
    let deadline = Instant::now() + PATIENCE;
    while !world.store.load(&account()).await.unwrap().is_some_and(|there| there.pools.contains_key(&chat())) {
        assert!(Instant::now() < deadline, "the account does not come back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.settled(4).await;
    assert_eq!(again.sell_out().await, 26);
}

#[tokio::test]
async fn a_flushall_forgets_no_run_that_had_ended_before() {
    let world = World::new();
    let one = world.gateway("gw-1").await;
    one.buy(20).await;
    for _ in 0..4 {
        one.call().await.unwrap();
    }
    let disk = one.kill();
    let again = world.run_on("gw-1", 2, &disk).await;
    world.settled(4).await;
    world.store.roll_back(Default::default());
    world.store.restart(ServerId::new("after the flush"));
    drop(again.kill());
    let third = world.run_on("gw-1", 3, &disk).await;
    world.settled(4).await;
    assert_eq!(third.sell_out().await, 16);
}

#[tokio::test]
async fn a_run_whose_place_was_taken_sells_nothing_any_more() {
    let world = World::new();
    let zombie = world.gateway("gw-1").await;
    zombie.buy(20).await;
    zombie.call().await.unwrap();
    // Another process takes it for dead and settles its journal; but it goes on.
    zombie.disk.end(&zombie.by);
    let new = world.run_on("gw-1", 2, &zombie.disk).await;
    world.settled(1).await;
    zombie.ledger.nudge(&zombie.pool());
    eventually("the zombie's end", || zombie.ledger.is_superseded()).await;
    assert!(matches!(zombie.call().await, Err(AdmitError::Unavailable)));
    assert_eq!(new.sell_out().await, 19);
    world.settled(20).await;
}

#[tokio::test]
async fn a_store_whose_clock_steps_is_followed() {
    let world = World::new();
    let one = world.gateway("gw-1").await;
    one.buy(60).await;
    let mut sold = 0;
    for off in [0, 10, -10, 3_600] {
        world.store.step_time(SignedDuration::from_secs(off));
        for _ in 0..5 {
            one.call().await.unwrap();
            sold += 1;
        }
        one.pool().give_up(true); // so that the next call asks the store
    }
    assert_eq!(sold + one.sell_out().await, 60);
    one.stop().await;
    world.settled(60).await;
}

#[tokio::test]
async fn a_lost_reply_loses_and_doubles_nothing() {
    let world = World::new();
    let one = world.gateway("gw-1").await;
    one.buy(30).await;
    let mut sold = 0;
    for fault in [Fault::ReplyLost, Fault::NotWritten, Fault::Conflict, Fault::ReplyLost] {
        world.store.fail_commits([fault]);
        one.pool().give_up(true);
        for _ in 0..3 {
            sold += u64::from(one.call().await.is_ok());
        }
    }
    assert_eq!(sold + one.sell_out().await, 30);
    one.stop().await;
    world.settled(30).await;
}

#[tokio::test]
async fn a_grant_that_was_refused_and_came_about_all_the_same_is_given_back() {
    let world = World::new();
    let one = world.gateway("gw-1").await;
    one.buy(30).await;
    one.tasks[1].abort(); // so that it does not check in again and ask once more
    world.store.fail_commits([Fault::ClosedThenLate]);
    let refused = async {
        while world.store.faults_left() > 0 {
            tokio::task::yield_now().await;
        }
    };
    // The call goes away: nobody asks again.
    tokio::select! {
        biased;
        () = refused => {}
        call = one.admit() => panic!("{:?}", call.map(drop)),
    }
    one.buy_more("order-2", 5).await; // the late copy comes before this
    world.settled(0).await;
}

#[tokio::test]
async fn an_idle_gateway_notices_a_restart_of_the_store() {
    for since_check_in in [0, 1_100] {
        let world = World::new();
        let one = world.gateway("gw-1").await;
        let begun = Instant::now();
        eventually("the time", || begun.elapsed() >= Duration::from_millis(since_check_in)).await;
        world.store.restart(ServerId::new("another life"));
        eventually("the check-in", || one.metrics.ledger.check_ins.get() == 2).await;
    }
}

#[tokio::test]
async fn a_store_that_never_answers_keeps_no_call_waiting() {
    let world = World::new();
    let one = world.gateway("gw-1").await;
    one.buy(5).await;
    world.store.fail_commits([Fault::NoAnswer]);
    let begun = Instant::now();
    assert!(matches!(one.call().await, Err(AdmitError::Unavailable)));
    assert!(begun.elapsed() < Duration::from_millis(1_250), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn while_the_store_is_away_leases_go_on_and_no_call_hangs() {
    let world = World::new();
    let one = world.gateway("gw-1").await;
    one.buy(100).await;
    one.call().await.unwrap();
    let held = one.pool().outstanding().1;
    world.store.be_away(true);
    let mut sold = 1;
    let begun = Instant::now();
    while one.call().await.is_ok() {
        sold += 1;
    }
    assert!(sold > held.min(1) && begun.elapsed() < Duration::from_millis(1_500), "{:?}", begun.elapsed());
    assert!(one.ledger.store_failed_within(PATIENCE));
    world.store.be_away(false);
    let begun = Instant::now();
    eventually("the store's answer", || !one.ledger.store_failed_within(PATIENCE)).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(sold + one.sell_out().await, 100);
    one.stop().await;
    world.settled(100).await;
}

#[tokio::test]
async fn a_store_without_room_is_away_until_it_takes_a_report() {
    let world = World::new();
    let one = world.gateway("gw-1").await;
    one.buy(10).await;
    world.store.fail_commits([Fault::Full; 3]);
    assert!(matches!(one.call().await, Err(AdmitError::Unavailable)));
    one.ledger.note_store_answer(); // as a heartbeat does
    assert!(one.ledger.store_failed_within(PATIENCE));
    let begun = Instant::now();
    while one.call().await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "no call is served again");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    eventually("a heartbeat", || !one.ledger.store_failed_within(PATIENCE)).await;
    assert_eq!(one.sell_out().await, 9);
}

#[tokio::test]
async fn a_command_whose_outcome_is_unknown_is_done_once_the_store_answers() {
    for fault in [Fault::NotWritten, Fault::ReplyLost] {
        let world = World::new();
        let one = world.gateway("gw-1").await;
        one.buy(3).await;
        assert_eq!(one.sell_out().await, 3);
        world.store.fail_commits([fault]);
        let failed = one.try_to_buy("order-2", 4).await;
        assert!(matches!(failed, Err(ChangeError::Store(_))), "{failed:?}");
        let deadline = Instant::now() + PATIENCE;
        let mut sold = 0;
        while sold < 4 && Instant::now() < deadline {
            sold += one.sell_out().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(sold, 4, "{fault:?}");
        assert!(one.try_to_buy("order-2", 4).await.unwrap().repeated);
    }
}

#[tokio::test]
async fn a_command_that_was_refused_is_not_done_after_the_store_has_forgotten() {
    let world = World::new();
    let one = world.gateway("gw-1").await;
    one.buy(3).await;
    // Others are always faster: it is given up, and the caller told so.
    world.store.fail_commits(std::iter::repeat_n(Fault::Conflict, 8));
    assert!(matches!(one.try_to_buy("order-2", 4).await, Err(ChangeError::Busy)));
    world.store.roll_back(Default::default());
    world.store.restart(ServerId::new("after the flush"));
    eventually("the check-in", || one.metrics.ledger.check_ins.get() >= 2).await;
    assert_eq!(one.sell_out().await, 3);
}

#[tokio::test]
async fn units_in_suspense_are_shown_until_someone_decides() {
    let world = World::new();
    let (one, two) = (world.gateway("gw-1").await, world.gateway("gw-2").await);
    one.buy(50).await;
    let open = one.open_call().await.unwrap();
    let held = world.package().await.leased.get();
    drop(one);
    // The store's time goes on, as if the first gateway had been silent for long.
    world.store.step_time(SignedDuration::from_secs(120));
    two.call().await.unwrap();
    eventually("the suspense", || two.metrics.ledger.units_suspended.get() == i64::try_from(held).unwrap()).await;
    let package = world.package().await;
    assert_eq!(package.suspense, Units::new(held));
    let resolution = Resolution { package: package.id, units: package.suspense, used: false };
    two.accounts.resolve_suspense(&account(), None, resolution).await.unwrap();
    eventually("the decision", || two.metrics.ledger.units_suspended.get() == 0).await;
    assert_eq!(two.sell_out().await, 49);
    drop(open);
}

#[tokio::test]
async fn a_far_gateway_that_conflicts_again_and_again_is_served() {
    let world = World::new();
    let one = world.gateway("gw-1").await;
    one.buy(10).await;
    world.store.fail_commits(std::iter::repeat_n(Fault::Conflict, 6));
    assert_eq!(one.sell_out().await, 10);
}
