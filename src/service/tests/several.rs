//! Gateways that share a pool, with nothing going wrong.

use futures_util::future::join_all;
use jiff::SignedDuration;

use super::*;
use crate::domain::account::{Sync, sync};
use crate::domain::lease::{Lease, Want};
use crate::domain::settle::LeaseReport;
use crate::ports::account_store::Commit;
use crate::ports::gateways::{Notice, ServerId};
use crate::service::supply::DRY_DOUBTED;

#[tokio::test]
async fn gateways_that_race_for_the_last_units_sell_exactly_what_was_bought() {
    for units in [1, 2, 10, 100] {
        let world = World::new();
        let (one, two) = (world.gateway("gw-1").await, world.gateway("gw-2").await);
        one.buy(units).await;
        let burst = |gateway| join_all((0..60).map(|_| Gateway::call(gateway)));
        let (first, second) = tokio::join!(burst(&one), burst(&two));
        let mut sold = first.iter().chain(&second).filter(|call| call.is_ok()).count() as u64;
        sold += one.sell_out().await + two.sell_out().await;
        assert_eq!(sold, units);
        one.stop().await;
        two.stop().await;
        world.settled(units).await;
    }
}

#[tokio::test]
async fn units_that_another_gateway_holds_are_recalled_before_a_call_is_refused() {
    let world = World::new();
    let (one, two) = (world.gateway("gw-1").await, world.gateway("gw-2").await);
    one.buy(4).await;
    // Four calls wait at once, so all units are leased to the first; three cost nothing in the end.
    let mut calls = join_all((0..4).map(|_| one.admit())).await;
    let open = calls.pop().unwrap().unwrap();
    for call in calls {
        one.meter.give_back(call.unwrap());
    }
    assert_eq!(world.package().await.leased, Units::new(4));
    assert_eq!(two.sell_out().await, 3);
    assert!(two.metrics.ledger.recalls.get() > 0);
    assert_eq!(one.sell_out().await, 0);
    one.meter.give_back(open);
    assert_eq!(two.sell_out().await + one.sell_out().await, 1);
    one.stop().await;
    two.stop().await;
    world.settled(4).await;
}

#[tokio::test]
async fn a_refusal_is_not_remembered_while_somebody_who_holds_units_is_silent() {
    let world = World::new();
    let (one, two) = (world.gateway("gw-1").await, world.gateway("gw-2").await);
    one.buy(1).await;
    one.meter.give_back(one.admit().await.unwrap());
    one.tasks.iter().for_each(JoinHandle::abort);
    assert!(matches!(two.call().await, Err(AdmitError::Empty(_))));
    assert_eq!(two.pool().known_dry(Instant::now() + DRY_DOUBTED), None);
    one.stop().await;
    eventually("the unit", || two.pool().known_dry(Instant::now()).is_none()).await;
    assert_eq!(two.call().await, Ok(()));
}

/// A gateway's run whose every step the test makes.
struct ByHand(Desk);

impl ByHand {
    fn new(world: &World, name: &str) -> Self {
        let by = Incarnation { gateway: GatewayId::new(name).unwrap(), number: 1 };
        Self(Desk::new(world.store.clone(), Arc::new(SystemClock), Arc::new(SystemEntropy), by))
    }

    async fn sync(&self, reports: Vec<LeaseReport>, grant: Option<(u64, Want)>) -> Option<Lease> {
        let loaded = self.0.load(&account()).await.unwrap().unwrap();
        let seen = &loaded.pools[&chat()];
        let round = Sync { incarnation: self.0.by.clone(), reports, ended: None, grant };
        let (change, lease) = sync(&seen.value, &round, self.0.now());
        let commit = Commit {
            account: account(),
            head: None,
            pool: change.pool.map(|next| self.0.write(Some(seen.stamp), next)),
            ended: change.ended,
            events: change.events,
            durable: false,
            believed: self.0.believed(Some(&loaded.server)),
            grants: lease.is_some(),
            by: self.0.by.clone(),
            turn: false,
        };
        self.0.commit(commit).await.unwrap();
        lease
    }

    /// Leases one unit, by its first lease.
    async fn take(&self) {
        let want = Want { now: Units::ONE, rate: Units::ZERO };
        assert_ne!(self.sync(Vec::new(), Some((1, want))).await, None);
    }

    /// Gives it back, unused.
    async fn give_back(&self) {
        self.sync(vec![LeaseReport::unused(1, self.0.now())], None).await;
    }

    async fn answer(&self) {
        let notice = Notice::Answered { account: account(), product: chat(), by: self.0.by.clone() };
        self.0.store.notify(notice).await.unwrap();
    }
}

#[tokio::test]
async fn whoever_takes_units_that_were_given_back_for_another_is_asked_for_them_too() {
    let world = World::new();
    let one = world.gateway("gw-1").await;
    one.buy(1).await;
    let (first, second) = (ByHand::new(&world, "gw-2"), ByHand::new(&world, "gw-3"));
    first.take().await;
    let mut notices = world.store.changes();
    let mut recalled = async || while !matches!(notices.recv().await.unwrap(), Notice::Recall { .. }) {};
    let others = async {
        recalled().await;
        first.give_back().await;
        second.take().await;
        first.answer().await;
        recalled().await;
        second.give_back().await;
        second.answer().await;
    };
    let (called, asked) = tokio::join!(one.call(), tokio::time::timeout(PATIENCE, others));
    assert_eq!((called, asked), (Ok(()), Ok(())));
}

#[tokio::test]
async fn a_refusal_is_not_remembered_while_somebody_who_holds_units_was_not_asked() {
    let world = World::new();
    let one = world.gateway("gw-1").await;
    one.buy(1).await;
    let hands = ["gw-2", "gw-3", "gw-4", "gw-5"].map(|name| ByHand::new(&world, name));
    hands[0].take().await;
    let mut notices = world.store.changes();
    let others = async {
        // The unit goes on from hand to hand, more often than anybody is asked.
        for pair in hands.windows(2) {
            while !matches!(notices.recv().await.unwrap(), Notice::Recall { .. }) {}
            pair[0].give_back().await;
            pair[1].take().await;
            pair[0].answer().await;
        }
    };
    let (called, asked) = tokio::join!(one.call(), tokio::time::timeout(PATIENCE, others));
    assert!(matches!((called, asked), (Err(AdmitError::Empty(_)), Ok(()))));
    assert_eq!(one.pool().known_dry(Instant::now() + DRY_DOUBTED), None);
}

#[tokio::test]
async fn a_package_that_one_gateway_adds_is_sold_by_the_other_at_once() {
    let world = World::new();
    let (one, two) = (world.gateway("gw-1").await, world.gateway("gw-2").await);
    one.buy(1).await;
    assert_eq!(two.sell_out().await, 1);
    one.buy_more("order-2", 2).await;
    eventually("the notice", || two.pool().known_dry(Instant::now()).is_none()).await;
    assert_eq!(two.sell_out().await, 2);
}

#[tokio::test]
async fn a_refused_call_costs_the_store_no_commit() {
    let world = World::new();
    let one = world.gateway("gw-1").await;
    one.buy(1).await;
    assert_eq!(one.sell_out().await, 1);
    eventually("the report", || one.pool().outstanding() == (0, 0)).await;
    let commits = one.metrics.commits.done.get();
    for _ in 0..1_000 {
        assert!(matches!(one.call().await, Err(AdmitError::Empty(_))));
    }
    assert_eq!(one.metrics.commits.done.get(), commits);
}

#[tokio::test]
async fn during_an_upgrade_two_runs_of_a_gateway_sell_side_by_side() {
    let world = World::new();
    let old = world.gateway("gw-1").await;
    old.buy(20).await;
    let open = old.open_call().await.unwrap();
    let new = world.run_on("gw-1", 2, &old.disk).await;
    old.call().await.unwrap();
    new.call().await.unwrap();
    old.end(open);
    // The old run ends without an end in order; the new one settles its journal while it goes on.
    drop(old.kill());
    let sold = 3 + new.sell_out().await;
    assert!(sold <= 20);
    eventually("the settlement", || new.journal.unsettled().unwrap().is_empty()).await;
    assert_eq!(sold + new.sell_out().await, 20);
    new.stop().await;
    world.settled(20).await;
}

#[tokio::test]
async fn a_run_that_ends_before_it_could_tell_its_commands_again_is_not_forgotten() {
    let world = World::new();
    let old = world.gateway("gw-1").await;
    old.buy(3).await;
    let before = world.store.contents();
    old.buy_more("order-2", 4).await;
    let new = world.run_on("gw-1", 2, &old.disk).await;
    // The store forgets the purchase while the old run hangs; the new one cannot read the journal of a run that lives.
    old.tasks.iter().for_each(JoinHandle::abort);
    world.store.roll_back(before);
    world.store.restart(ServerId::new("after the rollback"));
    let mut off = 0;
    let waits_no_longer = || {
        off += 1; // the old run is waited for as long as leases last
        world.store.step_time(SignedDuration::from_secs(off));
        new.metrics.ledger.check_ins.get() >= 2
    };
    eventually("the check-in", waits_no_longer).await;
    drop(old.kill());
    let (mut sold, deadline) = (0, Instant::now() + PATIENCE);
    while sold < 7 && Instant::now() < deadline {
        sold += new.sell_out().await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(sold, 7);
}

#[tokio::test]
async fn a_busy_pool_costs_the_store_few_commits() {
    const CALLS_EACH: usize = 2; // every five milliseconds
    let world = World::new();
    let one = world.gateway("gw-1").await;
    one.buy(1_000_000).await;
    let mut sold = 0_u64;
    let mut run = async |time: Duration| {
        let begun = Instant::now();
        while begun.elapsed() < time {
            for _ in 0..CALLS_EACH {
                one.call().await.unwrap();
                sold += 1;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    run(Duration::from_millis(1_500)).await; // blocks grow with the rate
    let before = one.metrics.commits.done.get();
    run(Duration::from_secs(2)).await;
    let commits = one.metrics.commits.done.get() - before;
    assert!(commits <= 9, "{commits} commits in two seconds");
    one.stop().await;
    world.settled(sold).await;
}

#[tokio::test]
async fn a_pool_with_seconds_of_supply_left_costs_the_store_at_most_four_commits_a_second() {
    const CALLS_EACH: u64 = 2; // every five milliseconds: at most 400 a second
    let world = World::new();
    let one = world.gateway("gw-1").await;
    one.buy(4_400).await;
    let sell = async |until_sold: u64, sold: &mut u64| {
        while *sold < until_sold {
            for _ in 0..CALLS_EACH {
                one.call().await.unwrap();
                *sold += 1;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let mut sold = 0;
    sell(400, &mut sold).await; // blocks grow with the rate
    let (before, begun) = (one.metrics.commits.done.get(), Instant::now());
    sell(2_800, &mut sold).await; // from ten seconds of supply down to four
    let (commits, most) = (one.metrics.commits.done.get() - before, 4.0 * begun.elapsed().as_secs_f64() + 1.0);
    assert!(commits as f64 <= most, "{commits} commits in {:?}", begun.elapsed());
    one.stop().await;
    world.settled(sold).await;
}
