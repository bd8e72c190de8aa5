//! Reports that come once, twice, late or never: what each does to a pool of ten units.

use jiff::ToSpan;

use super::*;
use crate::domain::allocation::Tags;
use crate::domain::billable::BillableStatuses;
use crate::domain::id::{AccountId, CommandId, GatewayId, OfferId, PackageId, ProductId, ProjectId};
use crate::domain::lease::Want;
use crate::domain::money::Money;

fn noon() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn id() -> PackageId {
    PackageId::new("p").unwrap()
}

/// A pool with one package of ten units that ends at midnight.
fn pool() -> Pool {
    let mut pool = Pool::new(AccountId::new("a").unwrap(), ProductId::new("chat").unwrap());
    pool.packages.push(Package {
        id: id(),
        offer: OfferId::new("small").unwrap(),
        command: CommandId::new("c-1").unwrap(),
        total: Units::new(10),
        free: Units::new(10),
        leased: Units::ZERO,
        settled: Units::ZERO,
        suspense: Units::ZERO,
        forfeited: Units::ZERO,
        overrun: Units::ZERO,
        bought_at: noon(),
        valid_from: noon(),
        valid_until: "2026-03-01T23:59:59Z".parse().unwrap(),
        billable: BillableStatuses::default(),
        price: None,
        project: ProjectId::default(),
        tags: Tags::default(),
    });
    pool
}

fn gateway(number: u64) -> Incarnation {
    Incarnation { gateway: GatewayId::new("gw").unwrap(), number }
}

fn grant(pool: &mut Pool, to: u64, number: u64, units: u64) {
    let want = Want { now: Units::new(units), rate: Units::ZERO };
    pool.grant(&gateway(to), number, want, noon()).unwrap();
}

/// What a report says of the rest of its lease.
#[derive(Clone, Copy, PartialEq)]
enum Rest {
    Held,
    Returned,
    Lost,
}

fn report(number: u64, granted: u64, used: u64, rest: Rest) -> LeaseReport {
    let returned = if rest == Rest::Returned { granted.saturating_sub(used) } else { 0 };
    let part = LeasePart {
        used: Units::new(used),
        returned: Units::new(returned),
        ..LeasePart::new(id(), Units::new(granted))
    };
    LeaseReport { number, parts: vec![part], deadline: noon(), spent: BTreeMap::new(), lost: rest == Rest::Lost }
}

fn settle(pool: &mut Pool, from: u64, report: LeaseReport) -> Vec<Event> {
    let mut events = Vec::new();
    pool.settle(&gateway(from), &report, noon(), &mut events);
    events
}

/// The package's units: free, leased, settled, suspense, overrun.
fn check(pool: &Pool, expected: [u64; 5]) {
    let package = &pool.packages[0];
    let places = [package.free, package.leased, package.settled, package.suspense, package.overrun];
    assert_eq!(places.map(Units::get), expected);
    assert!(package.balanced());
}

#[test]
fn a_report_says_how_much_was_used_so_far() {
    let mut pool = pool();
    grant(&mut pool, 1, 1, 4);
    check(&pool, [6, 4, 0, 0, 0]);
    for used in [0, 3, 3, 1] {
        settle(&mut pool, 1, report(1, 4, used, Rest::Held));
    }
    check(&pool, [6, 1, 3, 0, 0]);
    for (used, end) in [(3, Rest::Returned), (4, Rest::Returned), (2, Rest::Held)] {
        settle(&mut pool, 1, report(1, 4, used, end));
        check(&pool, [7, 0, 3, 0, 0]);
    }
    assert_eq!(pool.held[&gateway(1)].closed_through, 1);
}

#[test]
fn a_repetition_behind_a_gap_does_nothing() {
    let mut pool = pool();
    grant(&mut pool, 1, 2, 4);
    settle(&mut pool, 1, report(2, 4, 1, Rest::Returned));
    settle(&mut pool, 1, report(2, 4, 3, Rest::Returned));
    check(&pool, [9, 0, 1, 0, 0]);
    assert_eq!(pool.held[&gateway(1)].closed_through, 0);
    // The number that never came through closes the gap.
    let nothing = LeaseReport::unused(1, noon());
    settle(&mut pool, 1, nothing);
    assert_eq!((pool.held[&gateway(1)].closed_through, pool.held[&gateway(1)].leases.len()), (2, 0));
}

#[test]
fn a_grant_whose_reply_was_lost_is_given_back_with_nothing_known_of_it() {
    let mut pool = pool();
    grant(&mut pool, 1, 1, 4);
    settle(&mut pool, 1, LeaseReport::unused(1, noon()));
    check(&pool, [10, 0, 0, 0, 0]);
}

#[test]
fn after_expiry_open_calls_still_count_and_the_rest_is_forfeited() {
    let (mut pool, mut events) = (pool(), Vec::new());
    grant(&mut pool, 1, 1, 4);
    let midnight = "2026-03-02T00:00:00Z".parse().unwrap();
    assert_eq!(pool.sweep(midnight, &mut events), []);
    check(&pool, [0, 4, 0, 0, 0]);
    settle(&mut pool, 1, report(1, 4, 2, Rest::Held));
    assert_eq!(pool.sweep(midnight, &mut events), []);
    settle(&mut pool, 1, report(1, 4, 3, Rest::Returned));
    let ended = pool.sweep(midnight, &mut events);
    assert_eq!((ended[0].settled, ended[0].forfeited), (Units::new(3), Units::new(7)));
    assert!(ended[0].balanced());
}

#[test]
fn what_a_lost_journal_may_know_goes_into_suspense() {
    let mut pool = pool();
    grant(&mut pool, 1, 1, 4);
    let events = settle(&mut pool, 1, report(1, 4, 1, Rest::Lost));
    check(&pool, [6, 0, 1, 3, 0]);
    let (product, package) = (pool.product.clone(), id());
    assert_eq!(events, [Event::Suspended { product, package, suspense: Units::new(3) }]);
}

/// Two gateways hold four units each; the first one used one and fell silent at noon.
fn with_a_silent_gateway() -> Pool {
    let mut pool = pool();
    grant(&mut pool, 1, 1, 4);
    grant(&mut pool, 2, 1, 4);
    settle(&mut pool, 1, report(1, 4, 1, Rest::Held));
    settle(&mut pool, 2, report(1, 4, 0, Rest::Held));
    pool
}

/// Lets time pass with only the second gateway reporting; returns what was told.
fn pass(pool: &mut Pool, time: jiff::Span) -> Vec<Event> {
    let (now, mut events) = (noon().checked_add(time).unwrap(), Vec::new());
    pool.settle(&gateway(2), &report(1, 4, 0, Rest::Held), now, &mut events);
    pool.suspend_silent(now, &mut events);
    events
}

#[test]
fn what_a_silent_gateway_holds_goes_into_suspense_after_its_deadline() {
    let check = |silent: jiff::Span, deadline: jiff::Span, suspended: bool| {
        let mut pool = with_a_silent_gateway();
        let leases = &mut pool.held.get_mut(&gateway(1)).unwrap().leases;
        leases.get_mut(&1).unwrap().deadline = noon().checked_add(deadline).unwrap();
        let events = pass(&mut pool, silent);
        check(&pool, if suspended { [2, 4, 1, 3, 0] } else { [2, 7, 1, 0, 0] });
        assert_eq!(events.len(), usize::from(suspended));
        assert_eq!(pool.held[&gateway(1)].leases[&1].in_hand(), !suspended, "{silent} {deadline}");
        assert_eq!(pass(&mut pool, silent), [], "what is in suspense is not told again");
    };
    check(60.seconds(), 30.seconds(), false);
    check(60.seconds().nanoseconds(1), 30.seconds(), true);
    check(90.seconds(), 90.seconds(), true);
    check(90.seconds(), 90.seconds().nanoseconds(1), false);
}

#[test]
fn a_silent_gateway_that_reports_again_goes_on_as_before() {
    let check = |reported: LeaseReport, expected: [u64; 5]| {
        let mut pool = with_a_silent_gateway();
        pass(&mut pool, 90.seconds());
        settle(&mut pool, 1, reported);
        super::tests::check(&pool, expected);
    };
    check(report(1, 4, 1, Rest::Held), [2, 7, 1, 0, 0]);
    check(report(1, 4, 3, Rest::Held), [2, 5, 3, 0, 0]);
    check(report(1, 4, 3, Rest::Returned), [3, 4, 3, 0, 0]);
    check(report(1, 4, 3, Rest::Lost), [2, 4, 3, 1, 0]);
    check(LeaseReport::unused(1, noon()), [5, 4, 1, 0, 0]);
}

#[test]
fn a_silent_gateways_journal_settles_what_stands_in_suspense() {
    let check = |end: RunEnd, expected: [u64; 5]| {
        let mut pool = with_a_silent_gateway();
        pass(&mut pool, 90.seconds());
        pool.finish(&gateway(1), (end, |_| false), noon(), &mut Vec::new());
        super::tests::check(&pool, expected);
        assert!(pool.is_finished(&gateway(1)));
    };
    check(RunEnd::Whole, [5, 4, 1, 0, 0]);
    check(RunEnd::Lost, [2, 4, 1, 3, 0]);
}

#[test]
fn what_an_operator_decided_is_not_counted_again_when_the_journal_comes_back() {
    // In suspense: three units of the silent gateway, and `lost` of one whose journal will never come.
    let check = |lost: u64, decided: u64, used: bool, expected: [u64; 5]| {
        let mut pool = with_a_silent_gateway();
        pass(&mut pool, 90.seconds());
        let package = &mut pool.packages[0];
        (package.free, package.suspense) = (Units::new(2 - lost), Units::new(3 + lost));
        pool.take_from_suspense(&id(), Units::new(decided), used);
        assert!(pool.packages[0].balanced());
        settle(&mut pool, 1, report(1, 4, 3, Rest::Returned)); // two of the three were used
        super::tests::check(&pool, expected);
    };
    check(0, 0, true, [3, 4, 3, 0, 0]);
    check(0, 2, true, [3, 4, 3, 0, 0]);
    check(0, 3, true, [2, 4, 4, 0, 0]);
    check(0, 1, false, [3, 4, 3, 0, 0]);
    check(0, 3, false, [3, 4, 3, 0, 0]);
    // The lost ones go first: the others will be told.
    check(2, 2, false, [3, 4, 3, 0, 0]);
    check(2, 2, true, [1, 4, 5, 0, 0]);
    check(2, 5, true, [0, 4, 6, 0, 0]);
}

#[test]
fn a_forgotten_lease_is_entered_again() {
    let mut pool = pool();
    settle(&mut pool, 1, report(1, 4, 1, Rest::Held));
    check(&pool, [6, 3, 1, 0, 0]);
    settle(&mut pool, 1, report(1, 4, 3, Rest::Returned));
    check(&pool, [7, 0, 3, 0, 0]);
}

#[test]
fn a_forgotten_lease_whose_units_were_sold_again_returns_nothing_of_the_others() {
    let mut pool = pool();
    grant(&mut pool, 2, 1, 8);
    settle(&mut pool, 1, report(1, 4, 0, Rest::Held));
    check(&pool, [0, 10, 0, 0, 0]); // two of the four were still free
    settle(&mut pool, 1, report(1, 4, 0, Rest::Returned));
    check(&pool, [2, 8, 0, 0, 0]);
}

#[test]
fn use_beyond_the_total_is_overrun_until_units_come_back() {
    let mut pool = pool();
    grant(&mut pool, 2, 1, 8);
    let events = settle(&mut pool, 1, report(1, 4, 4, Rest::Returned));
    check(&pool, [0, 8, 2, 0, 2]);
    let (product, package) = (pool.product.clone(), id());
    assert_eq!(events, [Event::Overrun { product, package, overrun: Units::new(2), waited_since: None }]);
    settle(&mut pool, 2, report(1, 8, 5, Rest::Returned));
    check(&pool, [1, 0, 9, 0, 0]);
}

#[test]
fn use_of_an_unknown_package_waits_for_it_and_is_told_once_if_it_does_not_come() {
    let mut pool = pool();
    pool.packages.clear();
    for used in [0, 3, 3] {
        assert_eq!(settle(&mut pool, 1, report(1, 4, used, Rest::Held)), []);
    }
    settle(&mut pool, 1, report(1, 4, 4, Rest::Returned));
    assert_eq!(pool.unplaced[&id()], Unplaced { used: Units::new(4), since: noon() });
    let (product, package, overrun) = (pool.product.clone(), id(), Units::new(4));
    let told = |pool: &mut Pool, later: jiff::Span| {
        let mut events = Vec::new();
        pool.give_up_unplaced(noon().checked_add(later).unwrap(), &mut events);
        events
    };
    assert_eq!(told(&mut pool, 168.hours()), []);
    let first = Event::Overrun { product, package, overrun, waited_since: Some(noon()) };
    assert_eq!(told(&mut pool, 168.hours().nanoseconds(1)), std::slice::from_ref(&first));
    assert_eq!(told(&mut pool, 200.hours()), []);
    // As much use of the same package, that comes later, is told as well.
    let later = noon().checked_add(200.hours()).unwrap();
    pool.settle(&gateway(2), &report(1, 4, 4, Rest::Returned), later, &mut Vec::new());
    let second = told(&mut pool, 369.hours());
    assert_eq!(second.len(), 1);
    assert_ne!(second[0].id(), first.id());
}

#[test]
fn a_purchase_that_comes_back_finds_its_use_and_what_is_still_held() {
    let check = |reported: LeaseReport, expected: [u64; 5], overrun: u64| {
        let mut pool = pool();
        let package = pool.packages.remove(0);
        settle(&mut pool, 1, reported.clone());
        let mut events = Vec::new();
        pool.add(package, &mut events);
        super::tests::check(&pool, expected);
        let (product, package, overrun) = (pool.product.clone(), id(), Units::new(overrun));
        let told = (!overrun.is_zero()).then_some(Event::Overrun { product, package, overrun, waited_since: None });
        assert_eq!(events, Vec::from_iter(told));
        // Told again, nothing is counted again.
        settle(&mut pool, 1, reported);
        super::tests::check(&pool, expected);
    };
    check(report(1, 4, 0, Rest::Held), [6, 4, 0, 0, 0], 0);
    check(report(1, 4, 3, Rest::Held), [6, 1, 3, 0, 0], 0);
    check(report(1, 4, 3, Rest::Returned), [7, 0, 3, 0, 0], 0);
    check(report(1, 12, 12, Rest::Returned), [0, 0, 10, 0, 2], 2);
}

#[test]
fn units_that_another_gives_back_late_are_not_sold_while_a_forgotten_lease_claims_them() {
    // Before the store forgot it, the first gateway had given back eight, and the second had got five of them.
    let mut pool = pool();
    grant(&mut pool, 1, 1, 8);
    settle(&mut pool, 2, report(1, 5, 0, Rest::Held));
    check(&pool, [0, 10, 0, 0, 0]);
    settle(&mut pool, 1, report(1, 8, 0, Rest::Returned));
    check(&pool, [8, 2, 0, 0, 0]);
    pool.cover_missing();
    check(&pool, [5, 5, 0, 0, 0]);
    settle(&mut pool, 2, report(1, 5, 4, Rest::Held));
    pool.cover_missing();
    check(&pool, [5, 1, 4, 0, 0]);
    settle(&mut pool, 2, report(1, 5, 4, Rest::Returned));
    check(&pool, [6, 0, 4, 0, 0]);
    assert!(pool.held.values().all(|held| held.leases.is_empty()));
}

#[test]
fn a_forgotten_lease_that_used_what_was_missing_claims_only_the_rest() {
    let mut pool = pool();
    grant(&mut pool, 1, 1, 10);
    settle(&mut pool, 2, report(1, 5, 2, Rest::Held));
    check(&pool, [0, 10, 0, 0, 2]);
    settle(&mut pool, 1, report(1, 10, 0, Rest::Returned));
    pool.cover_missing();
    check(&pool, [5, 3, 2, 0, 0]);
    settle(&mut pool, 2, report(1, 5, 4, Rest::Returned));
    check(&pool, [6, 0, 4, 0, 0]);
}

#[test]
fn use_beyond_a_lease_takes_nothing_out_of_suspense() {
    let mut pool = pool();
    let package = &mut pool.packages[0];
    (package.free, package.suspense) = (Units::new(4), Units::new(6));
    settle(&mut pool, 1, report(1, 5, 5, Rest::Returned));
    check(&pool, [0, 0, 4, 6, 1]);
}

#[test]
fn leases_that_the_journal_of_an_ended_run_does_not_know_were_never_used() {
    let mut pool = pool();
    grant(&mut pool, 1, 1, 2);
    grant(&mut pool, 1, 4, 3);
    grant(&mut pool, 2, 1, 1);
    settle(&mut pool, 1, report(1, 2, 2, Rest::Returned));
    pool.finish(&gateway(1), (RunEnd::Whole, |number| number == 1), noon(), &mut Vec::new());
    check(&pool, [7, 1, 2, 0, 0]);
    let held = &pool.held[&gateway(1)];
    assert_eq!((held.closed_through, held.leases.len(), held.finished), (4, 0, true));
    assert!(!pool.held[&gateway(2)].finished);
}

#[test]
fn only_finished_runs_are_forgotten_and_not_before_their_journals() {
    let check = |finished: bool, later: jiff::Span, kept: bool| {
        let mut pool = pool();
        pool.held.insert(gateway(1), HeldLeases { finished, ..HeldLeases::new(noon()) });
        pool.forget_finished(noon().checked_add(later).unwrap());
        assert_eq!(pool.held.contains_key(&gateway(1)), kept, "{finished} {later}");
    };
    check(true, 720.hours(), true);
    check(true, 720.hours().nanoseconds(1), false);
    check(false, 9_000.hours(), true);
}

/// Units of which each is worth a tenth.
fn worth_a_tenth(units: u64) -> Used {
    Used { units: Units::new(units), worth: Money::written("0.1").unwrap().times(units) }
}

/// A report of a lease with what a key has used of it.
fn by_key(number: u64, used: u64, rest: Rest) -> LeaseReport {
    let key = KeyId::new("k").unwrap();
    LeaseReport { spent: [(key, worth_a_tenth(used))].into(), ..report(number, 4, used, rest) }
}

#[test]
fn what_keys_have_used_is_booked_once_with_their_leases() {
    let key = KeyId::new("k").unwrap();
    let mut pool = pool();
    let mut check = |report: &LeaseReport, expected: u64| {
        pool.settle(&gateway(1), report, noon(), &mut Vec::new());
        let booked = pool.spent.get(&key).map(|spent| Used { units: spent.total, worth: spent.worth.total });
        assert_eq!(booked, Some(worth_a_tenth(expected)), "{report:?}");
    };
    check(&by_key(1, 1, Rest::Held), 1);
    check(&by_key(1, 3, Rest::Held), 3);
    check(&by_key(1, 1, Rest::Held), 3); // overtaken
    check(&by_key(1, 3, Rest::Returned), 3);
    check(&by_key(1, 4, Rest::Returned), 3); // closed
    check(&by_key(2, 2, Rest::Returned), 5);
    // Keys come and go: the document holds the latest.
    for number in 0..SPENT_KEYS_MAX + 5 {
        let later = noon().checked_add(SignedDuration::from_hours(24)).unwrap();
        let spent = [(KeyId::new(&format!("k-{number}")).unwrap(), worth_a_tenth(1))].into();
        let number = u64::try_from(number).unwrap() + 3;
        let report = LeaseReport { spent, ..report(number, 1, 1, Rest::Returned) };
        pool.settle(&gateway(1), &report, later, &mut Vec::new());
    }
    assert_eq!((pool.spent.len(), pool.spent.get(&key)), (SPENT_KEYS_MAX, None));
    let text = serde_json::to_string(&pool).unwrap();
    assert_eq!(serde_json::from_str::<Pool>(&text).unwrap(), pool);
}
