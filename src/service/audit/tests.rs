//! Tables of what does not agree, over books that the domain's own functions made.

use jiff::Timestamp;
use serde_json::json;

use super::answers::Answer;
use super::calls::ExportedCall;
use super::replay::{BookedBalance, Replay, Terms};
use super::report::Counts;
use super::*;
use crate::domain::account::{self, Account, Sync, apply, sync};
use crate::domain::amount::Units;
use crate::domain::command::Command;
use crate::domain::id::ProductId;
use crate::domain::lease::{LeasePart, Want};
use crate::domain::pool::Pool;
use crate::domain::settle::{LeaseReport, RunEnd};
use crate::domain::usage::{CallFacts, Charge, ChargePart, Ending, UnitClass};
use crate::ports::journal::{CallEnd, CommandRefused, JournalledCommand};

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn gateway() -> Incarnation {
    Incarnation::try_from("gw#7".to_owned()).unwrap()
}

fn buyer() -> AccountId {
    AccountId::new("acme").unwrap()
}

fn package(id: &str) -> PackageId {
    PackageId::new(id).unwrap()
}

/// The body of a command as the journal keeps it.
fn body(id: &str, action: serde_json::Value) -> String {
    json!({ "change": { "id": id, "action": action } }).to_string()
}

fn purchase(of: &str, calls: u64) -> serde_json::Value {
    let statuses = json!([{ "from": null, "statuses": "success" }]);
    let offer = json!({
        "id": "chat-10", "product": "chat", "quantity": calls, "validity": { "days": 30 }, "zone": "UTC",
        "billable": statuses,
    });
    json!({ "add_package": { "package": of, "offer": offer, "valid_from": null } })
}

fn decision(units: u64, used: bool) -> serde_json::Value {
    json!({ "resolve_suspense": { "product": "chat", "package": "p", "units": units, "used": used } })
}

/// Everything that an audit joins.
struct World {
    books: account::Books,
    ended: Vec<(AccountId, ProductId, crate::domain::package::Package)>,
    state: RunState,
    records: Vec<(u16, Record)>,
    damage: Damage,
    answers: Option<Vec<(String, u16)>>,
    exported: Vec<serde_json::Value>,
}

impl World {
    /// A package of ten, of which one run has used three on a lease that is closed.
    fn new() -> Self {
        let head = Account::open(buyer(), "Acme".to_owned(), now());
        let mut world = Self {
            books: account::Books { head, pools: BTreeMap::new() },
            ended: Vec::new(),
            state: RunState::Ended { settled: true },
            records: Vec::new(),
            damage: Damage::default(),
            answers: None,
            exported: Vec::new(),
        };
        world.command("buy", purchase("p", 10));
        let lease = world.grant(4);
        (1..=3).for_each(|call| world.call(lease, call, Some(true)));
        world.report(lease, (4, 3, 1), false);
        world
    }

    fn pool(&mut self) -> &mut Pool {
        self.books.pools.get_mut(&ProductId::new("chat").unwrap()).unwrap()
    }

    fn command(&mut self, id: &str, action: serde_json::Value) {
        let command =
            Command { id: CommandId::new(id).unwrap(), action: serde_json::from_value(action.clone()).unwrap() };
        let change = apply(&self.books, &command, now()).unwrap();
        self.ended.extend(change.ended.into_iter().map(|of| (buyer(), ProductId::new("chat").unwrap(), of)));
        self.books.head = change.head.unwrap();
        self.books.pools.extend(change.pool.map(|pool| (pool.product.clone(), pool)));
        let record = JournalledCommand { account: buyer(), command: command.id, at: now(), body: body(id, action) };
        self.records.push((0, Record::Command(record)));
    }

    fn sync(&mut self, sync_with: &Sync) -> Option<u64> {
        let (change, lease) = sync(self.pool(), sync_with, now());
        self.ended.extend(change.ended.into_iter().map(|of| (buyer(), ProductId::new("chat").unwrap(), of)));
        *self.pool() = change.pool.unwrap();
        lease.and(sync_with.grant.map(|(number, _)| number))
    }

    fn grant(&mut self, units: u64) -> u64 {
        let number =
            self.pool().held.get(&gateway()).map_or(0, |held| held.closed_through + held.leases.len() as u64) + 1;
        let want = Want { now: Units::new(units), rate: Units::ZERO };
        self.sync(&Sync { incarnation: gateway(), reports: Vec::new(), ended: None, grant: Some((number, want)) })
            .unwrap()
    }

    /// Reports what was granted, used and given back of a lease.
    fn report(&mut self, number: u64, (granted, used, returned): (u64, u64, u64), lost: bool) {
        let part = LeasePart {
            used: Units::new(used),
            returned: Units::new(returned),
            ..LeasePart::new(package("p"), Units::new(granted))
        };
        let report = LeaseReport { number, parts: vec![part], deadline: now(), spent: Default::default(), lost };
        let ended = lost.then_some(RunEnd::Lost);
        self.sync(&Sync { incarnation: gateway(), reports: vec![report], ended, grant: None });
    }

    /// Writes a call down. `billed`: how it ended, if it did.
    fn call(&mut self, lease: u64, call: u64, billed: Option<bool>) {
        self.call_on("p", lease, call, billed);
    }

    fn call_on(&mut self, of: &str, lease: u64, call: u64, billed: Option<bool>) {
        let charge = Charge {
            call,
            request_id: format!("r-{call}"),
            arrived: now(),
            account: buyer(),
            caller: None,
            product: ProductId::new("chat").unwrap(),
            parts: vec![ChargePart { lease, package: package(of), class: UnitClass::Calls, units: Units::ONE }],
            status: 200,
            streamed: false,
            attempts: 1,
            facts: CallFacts::default(),
        };
        self.records.push((1, Record::Charge(charge)));
        if let Some(billed) = billed {
            let end = CallEnd { call, ending: Ending::Complete, billed, at: now() };
            self.records.push((1, Record::End(end)));
        }
    }

    fn books(&self) -> Books {
        let mut books = Books::default();
        books.add(self.books.pools.values().cloned().collect(), self.ended.clone());
        books
    }

    fn read(&self, each: &mut dyn FnMut(Item)) {
        each(Item::Run(gateway(), self.state));
        self.records.iter().for_each(|(writer, record)| each(Item::Record(*writer, record.clone())));
        each(Item::RunEnd(self.damage));
        for line in &self.exported {
            let call: ExportedCall = serde_json::from_value(line.clone()).unwrap();
            each(Item::Exported(Box::new(call)));
        }
    }

    fn audit(&self) -> Report {
        let mut audit = Audit::new(self.books(), self.answers.is_some());
        let answers = || {
            let of = |(id, status): &(String, u16)| Answer { request_id: id.clone(), status: *status };
            self.answers.iter().flatten().map(of)
        };
        answers().for_each(|answer| audit.answered(&answer));
        self.read(&mut |item| audit.take(item));
        let mut second = audit.compare();
        if second.is_needed() {
            self.read(&mut |item| second.take(item));
            answers().for_each(|answer| second.answered(&answer, true));
        }
        second.report()
    }

    fn replay(&self) -> Vec<replay::Balance> {
        let mut replay = Replay::default();
        self.read(&mut |item| replay.take(item));
        replay.balances(Some(&self.books()), now())
    }
}

/// What differs in a world after a change.
#[track_caller]
fn differs(change: impl FnOnce(&mut World)) -> Vec<Difference> {
    let mut world = World::new();
    change(&mut world);
    world.audit().differences
}

fn charged_not_booked(units: u64, lease: Option<u64>, ids: &[&str]) -> Difference {
    Difference::ChargedNotBooked {
        account: buyer(),
        package: package("p"),
        lease: lease.map(|number| LeaseName { run: gateway(), number }),
        units,
        request_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
    }
}

fn booked_not_charged(units: u64, leases: &[u64]) -> Difference {
    Difference::BookedNotCharged {
        account: buyer(),
        package: package("p"),
        units,
        leases: leases.iter().map(|number| LeaseName { run: gateway(), number: *number }).collect(),
        without_journal: Vec::new(),
    }
}

#[test]
fn where_all_is_well_nothing_differs() {
    let world = World::new();
    let report = world.audit();
    assert_eq!(report.differences, []);
    assert_eq!(report.holdings, []);
    let Counts { runs, calls, units, packages, unreported, open, .. } = report.counts;
    assert_eq!((runs, calls, units, packages, unreported, open), (1, 3, 3, 1, 0, 0));
}

#[test]
fn what_is_charged_and_not_booked_is_named() {
    assert_eq!(differs(|world| world.call(1, 4, Some(true))), [charged_not_booked(1, None, &[])]);
    let second_lease = |state| {
        move |world: &mut World| {
            let lease = world.grant(3);
            world.call(lease, 4, Some(true));
            world.call(lease, 5, Some(true));
            world.call(lease, 6, Some(false));
            world.state = state;
        }
    };
    let settled = RunState::Ended { settled: true };
    let expected = charged_not_booked(2, Some(2), &["r-4", "r-5"]);
    assert_eq!(differs(second_lease(settled)), [expected]);
    for state in [RunState::Live, RunState::Ended { settled: false }] {
        let mut world = World::new();
        second_lease(state)(&mut world);
        let report = world.audit();
        assert_eq!((report.differences, report.counts.unreported), (vec![], 2), "{state:?}: somebody will report it");
        let holding = &report.holdings[0];
        assert_eq!((holding.units, holding.suspense, holding.journal), (3, false, true));
    }
    let unknown = |world: &mut World| {
        world.call_on("q", 1, 4, Some(true));
        world.call_on("q", 9, 5, Some(true));
    };
    let request_ids = vec!["r-4".to_owned(), "r-5".to_owned()];
    let expected = Difference::UnknownPackage { account: buyer(), package: package("q"), units: 2, request_ids };
    assert_eq!(differs(unknown), [expected]);
}

#[test]
fn what_is_booked_and_not_charged_is_named() {
    assert_eq!(differs(|world| world.records.truncate(5)), [booked_not_charged(1, &[])]);
    let ahead = |world: &mut World| {
        let lease = world.grant(3);
        world.call(lease, 4, Some(true));
        world.report(lease, (3, 2, 0), false);
        world.state = RunState::Live;
    };
    assert_eq!(differs(ahead), [booked_not_charged(1, &[2])]);
    let elsewhere = differs(|world| {
        world.records.retain(|(writer, _)| *writer == 0);
        let other = Incarnation::try_from("gw#8".to_owned()).unwrap();
        let held = world.pool().held.remove(&gateway()).unwrap();
        world.pool().held.insert(other, held);
    });
    let without_journal = vec![Incarnation::try_from("gw#8".to_owned()).unwrap()];
    let (account, package) = (buyer(), package("p"));
    let leases = Vec::new();
    assert_eq!(elsewhere, [Difference::BookedNotCharged { account, package, units: 3, leases, without_journal }]);
}

#[test]
fn an_open_call_is_no_difference_whether_it_is_booked_or_not() {
    for booked in [0, 1] {
        let mut world = World::new();
        let lease = world.grant(2);
        world.call(lease, 4, None);
        world.report(lease, (2, booked, 2 - booked), false);
        world.state = RunState::Live;
        let report = world.audit();
        assert_eq!((report.differences, report.counts.open), (vec![], 1), "{booked}");
    }
}

#[test]
fn calls_and_runs_that_come_twice_are_named() {
    let twice = differs(|world| world.call(1, 3, Some(false)));
    let of_call = Difference::ChargedTwice { run: gateway(), core: 1, call: 3, request_id: "r-3".to_owned() };
    assert_eq!(twice, [of_call]);
    let world = World::new();
    let mut audit = Audit::new(world.books(), false);
    world.read(&mut |item| audit.take(item));
    world.read(&mut |item| audit.take(item));
    assert_eq!(audit.compare().report().differences, [Difference::RunTwice { run: gateway() }]);
}

#[test]
fn an_export_fills_what_the_journal_no_longer_has_and_counts_nothing_twice() {
    let line = |call: u64, units: u64| {
        json!({
            "incarnation": "gw#7", "core": 1, "call": call, "request_id": format!("r-{call}"), "account": "acme",
            "product": "chat", "parts": [{ "lease": 1, "package": "p", "units": 1 }], "status": 200, "attempts": 1,
            "units": units, "ending": "complete",
        })
    };
    let mut world = World::new();
    world.exported = vec![line(1, 1), line(2, 1), line(3, 1), line(3, 1), line(4, 0)];
    assert_eq!((world.audit().differences, world.audit().counts.repeated), (vec![], 4));
    world.records.retain(|(writer, _)| *writer == 0);
    assert_eq!((world.audit().differences, world.audit().counts.repeated), (vec![], 1));
    assert_eq!(world.replay()[0].used, 3);
}

#[test]
fn damage_and_books_that_do_not_add_up_are_named() {
    let damage = Damage { bytes: 0, missing_files: 1, removed_files: 0 };
    let expected = Difference::JournalDamaged { run: gateway(), bytes: 0, missing_files: 1 };
    assert_eq!(differs(|world| world.damage = damage), [expected]);
    let removed = Damage { removed_files: 3, ..Damage::default() };
    assert_eq!(differs(|world| world.damage = removed), []);
    let (account, id) = (buyer(), package("p"));
    let unbalanced = Difference::Unbalanced { account: account.clone(), package: id.clone() };
    assert_eq!(differs(|world| world.pool().packages[0].free.put(Units::ONE)), [unbalanced]);
    let overrun = differs(|world| {
        world.pool().packages[0].overrun.put(Units::ONE);
        world.call(1, 4, Some(true));
    });
    assert_eq!(overrun, [Difference::Overrun { account, package: id, units: 1 }]);
}

#[test]
fn an_operators_decision_explains_what_no_journal_charges() {
    let lost = |world: &mut World| {
        let lease = world.grant(4);
        world.call(lease, 4, Some(true));
        world.report(lease, (4, 1, 0), true);
    };
    let mut world = World::new();
    lost(&mut world);
    let report = world.audit();
    assert_eq!(report.differences, []);
    assert_eq!((report.holdings[0].units, report.holdings[0].suspense, &report.holdings[0].lease), (3, true, &None));
    world.command("decide", decision(2, true));
    world.command("decide-again", decision(1, false));
    assert_eq!((world.audit().differences, world.audit().holdings), (vec![], vec![]));
    let balance = &world.replay()[0];
    assert_eq!((balance.used, balance.decided, balance.agrees(true)), (6, 2, Some(true)));
    world
        .records
        .retain(|(_, record)| !matches!(record, Record::Command(command) if command.command.as_str() == "decide"));
    assert_eq!(world.audit().differences, [booked_not_charged(2, &[])]);
}

#[test]
fn the_sellers_log_is_joined_by_request_id() {
    let with = |answers: &[(&str, u16)]| {
        let answers = answers.iter().map(|(id, status)| ((*id).to_owned(), *status)).collect();
        differs(|world| world.answers = Some(answers))
    };
    let not_charged = |id: &str| Difference::AnsweredNotCharged { request_id: id.to_owned(), times: 1 };
    let not_answered = |id: &str| Difference::ChargedNotAnswered { request_id: id.to_owned(), times: 1 };
    assert_eq!(with(&[("r-3", 200), ("r-1", 200), ("r-2", 204), ("r-9", 500)]), []);
    assert_eq!(with(&[("r-1", 200), ("r-2", 200), ("r-3", 200), ("r-4", 200)]), [not_charged("r-4")]);
    assert_eq!(with(&[("r-1", 200), ("r-2", 200), ("r-3", 500)]), [not_answered("r-3")]);
    let void = differs(|world| {
        world.call(1, 4, Some(false));
        world.answers = Some(["r-1", "r-2", "r-3", "r-4"].map(|id| (id.to_owned(), 200)).into());
    });
    assert_eq!(void, [], "a charge that was taken back explains its answer");
}

/// A balance as (package, terms, bought, used, remaining).
fn brief(balance: &replay::Balance) -> (&str, Terms, u64, u64, u64) {
    (balance.package.as_str(), balance.terms, balance.bought, balance.used, balance.remaining)
}

#[test]
fn replay_folds_each_command_and_call_once() {
    let mut world = World::new();
    world.command("buy-2", purchase("q", 5));
    let again = world.records[0].clone();
    world.records.push(again);
    let (command, body) = (CommandId::new("no").unwrap(), body("no", purchase("r", 7)));
    let refused = JournalledCommand { account: buyer(), command, at: now(), body };
    let told = CommandRefused { account: buyer(), command: refused.command.clone() };
    world.records.extend([(0, Record::Command(refused)), (0, Record::Refused(told))]);
    world.call(1, 4, Some(false));
    let balances = world.replay();
    let briefs: Vec<_> = balances.iter().map(brief).collect();
    assert_eq!(briefs, [("p", Terms::Command, 10, 3, 7), ("q", Terms::Command, 5, 0, 5)]);
    assert!(balances.iter().all(|balance| balance.agrees(true) == Some(true) && !balance.ended));
    assert_eq!(balances[0].booked, Some(BookedBalance { bought: 10, used: 3, remaining: 7 }));
    assert_eq!((balances[0].calls, balances[0].valid_until), (3, Some("2026-03-31T23:59:59Z".parse().unwrap())));
}

#[test]
fn replay_says_where_the_books_differ_and_where_it_knows_no_terms() {
    let mut world = World::new();
    world.call(1, 4, Some(true));
    assert_eq!(world.replay()[0].agrees(true), Some(false));
    world.records.remove(0);
    assert_eq!(brief(&world.replay()[0]), ("p", Terms::Books, 10, 4, 6), "older than the records: as it was bought");
    let mut alone = Replay::default();
    world.read(&mut |item| alone.take(item));
    let balances = alone.balances(None, now());
    assert_eq!(brief(&balances[0]), ("p", Terms::Unknown, 0, 4, 0));
    assert_eq!(balances[0].agrees(false), Some(false));
}

#[test]
fn replay_lets_an_expired_package_end_with_nothing_left() {
    let world = World::new();
    let mut replay = Replay::default();
    world.read(&mut |item| replay.take(item));
    let last: Timestamp = "2026-03-31T23:59:59Z".parse().unwrap();
    let after = last.checked_add(jiff::SignedDuration::from_secs(1)).unwrap();
    let balance = replay.balances(Some(&world.books()), after).remove(0);
    assert_eq!((balance.used, balance.remaining, balance.ended, balance.agrees(true)), (3, 0, true, Some(true)));
}

#[test]
fn replay_without_the_books_compares_nothing() {
    let world = World::new();
    let mut replay = Replay::default();
    world.read(&mut |item| replay.take(item));
    let balance = replay.balances(None, now()).remove(0);
    assert_eq!((brief(&balance), balance.agrees(false)), (("p", Terms::Command, 10, 3, 7), None));
}
