//! Admission's atomics under shuttle, which runs each scene with many interleavings of its threads: never more is
//! admitted than was granted, nothing is lost, a waiter is always woken. Shuttle assumes sequential consistency: that the
//! orderings are strong enough is not shown here.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use shuttle::sync::{Mutex, mpsc};
use shuttle::thread;

use super::budgets::{Budgets, KeyUse};
use super::supply::{DRY_BELIEVED, Granted, LocalPool, PartTerms, Standing};
use crate::domain::amount::Units;
use crate::domain::budget::{Budget, Spent, Used};
use crate::domain::id::{AccountId, KeyId, PackageId, ProductId};
use crate::domain::lease::LeasePart;
use crate::domain::pool::Pool;
use crate::domain::settle::LeaseReport;

/// Interleavings of each scene.
const TRIED: usize = 3_000;
/// Switches to other threads within one of them that shuttle looks for cleverly (probabilistic concurrency testing).
const DEPTH: usize = 4;

/// Tries a scene with random schedules, and with few but well-chosen switches.
fn check(scene: fn()) {
    shuttle::check_random(scene, TRIED);
    shuttle::check_pct(scene, TRIED, DEPTH);
}

fn pool() -> Arc<LocalPool> {
    Arc::new(LocalPool::new(AccountId::new("a").unwrap(), product()))
}

fn standing() -> Standing {
    Standing { base: 100, expires: None }
}

fn lease(number: u64, units: u64) -> Granted {
    let part = LeasePart::new(PackageId::new("pkg").unwrap(), Units::new(units));
    let parts = vec![(part, PartTerms::default())];
    let admits_until = Instant::now() + Duration::from_secs(3_600);
    Granted { number, parts, deadline: Timestamp::UNIX_EPOCH, admits_until }
}

/// Units used and returned, over all reports.
fn sums(reports: &[LeaseReport]) -> (u64, u64) {
    let parts = || reports.iter().flat_map(|report| &report.parts);
    (parts().map(|part| part.used.get()).sum(), parts().map(|part| part.returned.get()).sum())
}

/// Takes up to `calls` units and ends each call: the even ones count, the odd ones cost nothing. Returns how many count.
fn serve(pool: &LocalPool, calls: u64) -> u64 {
    let mut counted = 0;
    for call in 0..calls {
        let Some((hold, _)) = pool.take(Instant::now()) else { break };
        if call % 2 == 0 {
            pool.settle(&hold);
            counted += 1;
        } else {
            pool.give_back(&hold);
        }
    }
    counted
}

#[test]
fn no_more_is_admitted_than_was_granted() {
    check(|| {
        let pool = pool();
        pool.accept(Some(lease(1, 2)), &[], standing());
        let takers: Vec<_> = (0..3)
            .map(|_| {
                let pool = Arc::clone(&pool);
                thread::spawn(move || std::iter::from_fn(|| pool.take(Instant::now())).take(2).count())
            })
            .collect();
        pool.accept(Some(lease(2, 1)), &[], standing());
        let taken: usize = takers.into_iter().map(|taker| taker.join().unwrap()).sum();
        let left = std::iter::from_fn(|| pool.take(Instant::now())).count();
        assert_eq!(taken + left, 3);
    });
}

#[test]
fn every_unit_is_used_or_returned_once_the_calls_have_ended() {
    check(|| {
        let pool = pool();
        pool.accept(Some(lease(1, 3)), &[], standing());
        let servers: Vec<_> = (0..2)
            .map(|_| {
                let pool = Arc::clone(&pool);
                thread::spawn(move || serve(&pool, 3))
            })
            .collect();
        pool.retire();
        let counted: u64 = servers.into_iter().map(|server| server.join().unwrap()).sum();
        assert_eq!(sums(&pool.reports()), (counted, 3 - counted));
    });
}

#[test]
fn what_a_report_returns_is_never_used_afterwards() {
    check(|| {
        let pool = pool();
        pool.accept(Some(lease(1, 3)), &[], standing());
        let server = {
            let pool = Arc::clone(&pool);
            thread::spawn(move || serve(&pool, 3))
        };
        let returner = {
            let pool = Arc::clone(&pool);
            thread::spawn(move || pool.retire())
        };
        let (used, returned) = sums(&pool.reports());
        assert!(used + returned <= 3, "{used} used and {returned} returned of 3");
        server.join().unwrap();
        returner.join().unwrap();
        let (used_at_last, returned_at_last) = sums(&pool.reports());
        assert!(used_at_last >= used && returned_at_last >= returned, "counters only grow");
        assert!(used_at_last + returned <= 3, "{returned} were returned, {used_at_last} are used");
    });
}

#[test]
fn use_is_in_the_report_or_still_news() {
    check(|| {
        let pool = pool();
        pool.accept(Some(lease(1, 2)), &[], standing());
        let server = {
            let pool = Arc::clone(&pool);
            thread::spawn(move || serve(&pool, 1))
        };
        pool.begin_sync(Instant::now());
        let reports = pool.reports();
        pool.accept(None, &reports, standing());
        let counted = server.join().unwrap();
        assert!(sums(&reports).0 == counted || pool.has_news(Instant::now()), "use that nobody will report");
    });
}

#[test]
fn a_lease_is_let_go_only_when_every_unit_is_told() {
    check(|| {
        let pool = pool();
        pool.accept(Some(lease(1, 2)), &[], standing());
        let server = {
            let pool = Arc::clone(&pool);
            thread::spawn(move || serve(&pool, 2))
        };
        pool.retire();
        let reports = pool.reports();
        pool.accept(None, &reports, standing());
        let told = sums(&reports);
        let counted = server.join().unwrap();
        let at_last = if pool.holds_any() { sums(&pool.reports()) } else { told };
        assert_eq!(at_last, (counted, 2 - counted));
    });
}

#[test]
fn a_waiter_is_always_woken() {
    check(|| {
        let pool = pool();
        let (nudges, nudged) = mpsc::channel();
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let (pool, nudges) = (Arc::clone(&pool), nudges.clone());
                thread::spawn(move || {
                    loop {
                        let mut waiting = pool.wait();
                        if let Some((hold, _)) = pool.take(Instant::now()) {
                            return pool.settle(&hold);
                        }
                        if pool.nudge() {
                            nudges.send(()).unwrap();
                        }
                        shuttle::future::block_on(waiting.refilled());
                    }
                })
            })
            .collect();
        drop(nudges);
        // The ledger: one exchange for each nudge, and one unit with each. A lost wake-up is a deadlock.
        let mut number = 0;
        while nudged.recv().is_ok() {
            pool.begin_sync(Instant::now());
            number += 1;
            pool.accept(Some(lease(number, 1)), &[], standing());
            pool.answer(None, DRY_BELIEVED);
        }
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        assert_eq!((pool.waiting(), sums(&pool.reports()).0), (0, 2));
    });
}

fn product() -> ProductId {
    ProductId::new("p").unwrap()
}

/// A key, of which nobody has used anything.
fn key() -> Arc<KeyUse> {
    let (account, key) = (AccountId::new("a").unwrap(), KeyId::new("k").unwrap());
    Budgets::default().key(&account, &key, std::iter::empty())
}

fn units(units: u64) -> Used {
    Used { units: Units::new(units), ..Used::default() }
}

/// Makes up to `calls` calls that count, of a key with a budget of so many units; returns how many were let in. Each is
/// noted in `reported` once the key's use has it, as a lease's counter is.
fn spend(of: &Arc<KeyUse>, calls: u64, total: u64, reported: &Mutex<u64>) -> u64 {
    let budget = Budget { total: NonZeroU64::new(total), ..Budget::default() };
    let call = || {
        let (mut hold, _) = of.hold(&budget, 1, Timestamp::UNIX_EPOCH).ok()?;
        hold.spend(&product(), units(1));
        *reported.lock().unwrap() += 1;
        Some(())
    };
    (0..calls).filter_map(|_| call()).count() as u64
}

#[test]
fn calls_at_one_time_never_exceed_a_budget() {
    check(|| {
        let (of, reported) = (key(), Arc::new(Mutex::new(0)));
        let buyers: Vec<_> = (0..3)
            .map(|_| {
                let (of, reported) = (Arc::clone(&of), Arc::clone(&reported));
                thread::spawn(move || spend(&of, 1, 2, &reported))
            })
            .collect();
        let let_in: u64 = buyers.into_iter().map(|buyer| buyer.join().unwrap()).sum();
        assert_eq!(let_in, 2);
    });
}

#[test]
fn a_budget_is_used_to_its_last_unit_while_its_use_is_booked_and_read() {
    check(|| {
        let (of, reported) = (key(), Arc::new(Mutex::new(0)));
        let document = Pool::new(AccountId::new("a").unwrap(), product());
        let store = Arc::new(Mutex::new(document));
        let buyers: Vec<_> = (0..2)
            .map(|_| {
                let (of, reported) = (Arc::clone(&of), Arc::clone(&reported));
                thread::spawn(move || spend(&of, 1, 2, &reported))
            })
            .collect();
        let reader = {
            let (of, store) = (Arc::clone(&of), Arc::clone(&store));
            thread::spawn(move || {
                let read = store.lock().unwrap().clone();
                of.see(&read);
            })
        };
        // One exchange.
        let used = *reported.lock().unwrap();
        let written = {
            let mut written = store.lock().unwrap();
            let mut spent = Spent::none(Timestamp::UNIX_EPOCH);
            spent.add(units(used), Timestamp::UNIX_EPOCH);
            written.spent.insert(of.key.clone(), spent);
            written.clone()
        };
        of.acknowledge(&written, (units(0), units(used)), None);
        let let_in: u64 = buyers.into_iter().map(|buyer| buyer.join().unwrap()).sum();
        reader.join().unwrap();
        assert_eq!((let_in, spend(&of, 1, 2, &reported)), (2, 0));
    });
}
