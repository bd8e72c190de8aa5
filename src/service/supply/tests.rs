//! A pool in local memory: what is taken, given back, charged and reported.

use super::*;

fn pool() -> LocalPool {
    LocalPool::new(AccountId::new("a").unwrap(), ProductId::new("p").unwrap())
}

fn grant(pool: &LocalPool, number: u64, units: u64, admits_until: Instant) {
    let part = LeasePart::new(PackageId::new("pkg").unwrap(), Units::new(units));
    let parts = vec![(part, PartTerms::default())];
    let granted = Granted { number, parts, deadline: Timestamp::UNIX_EPOCH, admits_until };
    pool.accept(Some(granted), &[], Standing { base: 100, expires: None });
}

/// Number, used and returned of each report.
fn reported(pool: &LocalPool) -> Vec<(u64, u64, u64)> {
    let one = |report: &LeaseReport| (report.number, report.parts[0].used.get(), report.parts[0].returned.get());
    pool.reports().iter().map(one).collect()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

#[test]
fn exactly_what_was_granted_can_be_taken() {
    let pool = pool();
    grant(&pool, 1, 2, soon());
    let holds: Vec<_> = std::iter::from_fn(|| pool.take(Instant::now())).collect();
    assert_eq!(holds.len(), 2);
    assert_eq!(reported(&pool), [(1, 0, 0)]);
}

#[test]
fn a_unit_that_was_given_back_can_be_taken_again() {
    let pool = pool();
    grant(&pool, 1, 1, soon());
    let (hold, _) = pool.take(Instant::now()).unwrap();
    assert!(pool.take(Instant::now()).is_none());
    pool.answer(Some(Dry::Short(Shortage::UsedUp)), DRY_BELIEVED);
    pool.give_back(&hold);
    assert_eq!(pool.known_dry(Instant::now()), None, "whoever was refused may ask again");
    let (hold, _) = pool.take(Instant::now()).unwrap();
    pool.settle(&hold);
    assert_eq!(reported(&pool), [(1, 1, 0)]);
}

#[test]
fn a_lease_whose_time_is_over_gives_back_what_is_unused_and_keeps_open_calls() {
    let pool = pool();
    let end = soon();
    grant(&pool, 1, 3, end);
    let (open, _) = pool.take(Instant::now()).unwrap();
    assert!(pool.take(end).is_none(), "admission ends with the deadline");
    pool.begin_sync(end);
    assert_eq!(reported(&pool), [(1, 0, 2)], "one unit stays with the open call");
    pool.settle(&open);
    assert_eq!(reported(&pool), [(1, 1, 2)]);
    let reports = pool.reports();
    pool.accept(None, &reports, Standing { base: 100, expires: None });
    assert!(!pool.holds_any(), "every unit is accounted for");
}

#[test]
fn a_call_that_costs_nothing_after_the_deadline_returns_its_unit_with_the_next_report() {
    let pool = pool();
    let end = soon();
    grant(&pool, 1, 1, end);
    let (open, _) = pool.take(Instant::now()).unwrap();
    pool.begin_sync(end);
    assert_eq!(reported(&pool), [(1, 0, 0)]);
    pool.give_back(&open);
    assert!(pool.has_news(Instant::now()));
    assert_eq!(reported(&pool), [(1, 0, 1)]);
}

#[test]
fn what_is_asked_back_is_all_of_the_rest_or_half_of_it_but_no_open_calls_unit() {
    for (left, all, given) in [(0, true, 0), (1, false, 1), (4, false, 2), (5, false, 3), (5, true, 5)] {
        let pool = pool();
        grant(&pool, 1, left + 1, soon());
        let (open, _) = pool.take(Instant::now()).unwrap();
        assert_eq!(pool.give_up(all), given, "{left} {all}");
        assert_eq!(reported(&pool), [(1, 0, given)]);
        assert_eq!(std::iter::from_fn(|| pool.take(Instant::now())).count() as u64, left - given);
        pool.settle(&open);
        assert_eq!(reported(&pool), [(1, 1, given)]);
    }
}

#[test]
fn what_was_given_up_and_what_a_late_call_returns_add_up() {
    let pool = pool();
    let end = soon();
    grant(&pool, 1, 4, end);
    let (open, _) = pool.take(Instant::now()).unwrap();
    assert_eq!(pool.give_up(false), 2);
    pool.begin_sync(end);
    assert_eq!(pool.give_up(true), 0, "its time is over: the rest goes with the report");
    assert_eq!(reported(&pool), [(1, 0, 3)]);
    assert!(pool.holds_retired() && !pool.has_news(end), "an open call alone is no news");
    pool.give_back(&open);
    assert_eq!(reported(&pool), [(1, 0, 4)]);
    assert_eq!(pool.outstanding(), (1, 0));
}

#[test]
fn leases_are_drawn_in_the_order_of_their_grants() {
    let pool = pool();
    grant(&pool, 1, 1, soon());
    grant(&pool, 2, 1, soon());
    let numbers: Vec<_> = std::iter::from_fn(|| pool.take(Instant::now())).map(|(hold, _)| hold.lease()).collect();
    assert_eq!(numbers, [1, 2]);
}

#[test]
fn more_is_asked_for_when_the_last_lease_runs_low() {
    let pool = pool();
    grant(&pool, 1, 8, soon());
    let low: Vec<bool> = std::iter::from_fn(|| pool.take(Instant::now())).map(|(_, low)| low).collect();
    assert_eq!(low, [false, false, false, false, false, false, true, true]);
    assert!(pool.nudge(), "the first asks");
    assert!(!pool.nudge(), "the others need not");
    assert!(pool.begin_sync(Instant::now()), "the exchange knows that it was asked");
    assert!(!pool.begin_sync(Instant::now()));
}

#[test]
fn what_a_failed_exchange_was_to_report_is_still_news() {
    let pool = pool();
    grant(&pool, 1, 2, soon());
    let (hold, _) = pool.take(Instant::now()).unwrap();
    pool.settle(&hold);
    pool.begin_sync(Instant::now());
    assert!(!pool.has_news(Instant::now()));
    pool.note_news();
    assert!(pool.has_news(Instant::now()));
}

#[test]
fn what_is_left_counts_charges_before_they_are_booked() {
    let pool = pool();
    grant(&pool, 1, 8, soon());
    let (one, _) = pool.take(Instant::now()).unwrap();
    let (other, _) = pool.take(Instant::now()).unwrap();
    assert_eq!(pool.charge(&one).units, 99);
    assert_eq!(pool.charge(&other).units, 98);
    let open = |reports: &[LeaseReport]| pool.open_charges(reports).remove(0).1.get();
    assert_eq!(open(&pool.reports()), 2);
    pool.uncharge(&other);
    assert_eq!((pool.remaining(), open(&pool.reports())), (99, 1));
    let before = pool.reports();
    pool.settle(&one);
    assert_eq!((open(&before), open(&pool.reports())), (1, 0), "beyond what that report says");
}
