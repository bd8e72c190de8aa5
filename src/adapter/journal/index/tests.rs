//! Calls are found by their request id: in files that are being written, in finished ones, after the process.

use jiff::Timestamp;

use super::finder::Finder;
use super::part;
use crate::adapter::journal::{DataDir, Run, RunOptions, SEGMENT_BYTES_MIN};
use crate::domain::allocation::Allocation;
use crate::domain::amount::Units;
use crate::domain::billable::BillableStatuses;
use crate::domain::id::{AccountId, GatewayId, OfferId, PackageId, ProductId};
use crate::domain::lease::LeasePart;
use crate::domain::money::Money;
use crate::domain::usage::{CallFacts, Charge, ChargePart, Ending, PackageTerms, UnitClass};
use crate::ports::call_records::FoundCalls;
use crate::ports::journal::{CallEnd, Grant, Record};

fn account(name: &str) -> AccountId {
    AccountId::new(name).unwrap()
}

fn package() -> PackageId {
    PackageId::new("pkg").unwrap()
}

fn begin(dir: &tempfile::TempDir) -> Run {
    let dir = DataDir::open(dir.path(), &GatewayId::new("gw").unwrap(), Timestamp::UNIX_EPOCH).unwrap();
    let run = dir.begin_run(RunOptions { writers: 2, segment_bytes: SEGMENT_BYTES_MIN }).unwrap();
    let terms = PackageTerms {
        package: package(),
        offer: OfferId::new("offer").unwrap(),
        billable: BillableStatuses::default(),
        allocation: Allocation::default(),
        unit_worth: Money::ZERO,
    };
    let grant = Grant {
        account: account("a"),
        product: ProductId::new("chat").unwrap(),
        number: 1,
        parts: vec![LeasePart::new(package(), Units::new(10))],
        deadline: Timestamp::UNIX_EPOCH,
        terms: vec![terms],
    };
    run.writers()[0].append(&Record::Grant(grant)).unwrap();
    run
}

fn charge(run: &Run, who: &str, request_id: &str, call: u64) {
    stage(run, who, request_id, (call, None));
}

/// Stages a charge, with the call's end if there is one, and writes it.
fn stage(run: &Run, who: &str, request_id: &str, (call, end): (u64, Option<CallEnd>)) {
    let part = ChargePart { lease: 1, package: package(), class: UnitClass::Calls, units: Units::ONE };
    let charge = Charge {
        call,
        request_id: request_id.to_owned(),
        arrived: Timestamp::new(i64::try_from(call).unwrap(), 0).unwrap(),
        account: account(who),
        caller: None,
        product: ProductId::new("chat").unwrap(),
        parts: vec![part],
        status: 200,
        streamed: false,
        attempts: 1,
        facts: CallFacts::default(),
    };
    let writer = &run.writers()[1];
    while writer.reserve().is_err() {
        std::thread::yield_now(); // the next file is being made
    }
    writer.stage(charge.lend(), end).unwrap();
}

fn end_of(call: u64, billed: bool) -> CallEnd {
    CallEnd { call, ending: Ending::Complete, billed, at: Timestamp::UNIX_EPOCH }
}

fn end(run: &Run, call: u64, billed: bool) {
    let end = end_of(call, billed);
    let writer = &run.writers()[1];
    writer.append(&Record::End(end)).unwrap();
    writer.release();
}

fn finder(run: &Run) -> Finder {
    let (journal, own) = run.place();
    Finder::new(journal, own)
}

fn follow(finder: &mut Finder) {
    while finder.follow().unwrap() {}
}

/// Calls and units of those that have ended, latest first, and how many are open.
fn found(finder: &Finder, who: &str, request_id: &str) -> (Vec<(u64, u64)>, usize) {
    let FoundCalls { records, open } = finder.find(&account(who), request_id).unwrap();
    for record in &records {
        assert_eq!(record.terms_of(&package()).unwrap().offer.as_str(), "offer");
    }
    (records.iter().map(|record| (record.charge.call, record.units.get())).collect(), open.len())
}

#[test]
fn a_call_is_found_as_soon_as_it_was_written_by_its_account_alone() {
    let dir = tempfile::tempdir().unwrap();
    let run = begin(&dir);
    let mut finder = finder(&run);
    follow(&mut finder);
    assert_eq!(found(&finder, "a", "r-1"), (vec![], 0));
    charge(&run, "a", "r-1", 1);
    follow(&mut finder);
    assert_eq!(found(&finder, "a", "r-1"), (vec![], 1), "it is open");
    end(&run, 1, true);
    charge(&run, "a", "r-1", 2);
    end(&run, 2, false);
    charge(&run, "b", "r-1", 3);
    end(&run, 3, true);
    follow(&mut finder);
    assert_eq!(found(&finder, "a", "r-1"), (vec![(2, 0), (1, 1)], 0));
    assert_eq!(found(&finder, "b", "r-1"), (vec![(3, 1)], 0));
    assert_eq!(found(&finder, "a", "r-2"), (vec![], 0));
    stage(&run, "a", "r-2", (4, Some(end_of(4, true))));
    follow(&mut finder);
    assert_eq!(found(&finder, "a", "r-2"), (vec![(4, 1)], 0), "its end stands beside its charge");
}

#[test]
fn calls_are_found_across_files_and_after_the_process() {
    const CALLS: u64 = 6_000;
    let dir = tempfile::tempdir().unwrap();
    let run = begin(&dir);
    let mut first = finder(&run);
    charge(&run, "a", "long", 1_000_000); // its end will stand in a later file
    for call in 0..CALLS {
        charge(&run, "a", &format!("r-{call}"), call);
        end(&run, call, true);
        if call == CALLS / 2 {
            follow(&mut first);
        }
    }
    end(&run, 1_000_000, true);
    charge(&run, "a", "cut off", 1_000_001);
    follow(&mut first);
    let journal_files = || std::fs::read_dir(dir.path().join("journal/1")).unwrap().map(|entry| entry.unwrap().path());
    let count = |ending: &str| journal_files().filter(|path| path.to_string_lossy().ends_with(ending)).count();
    assert!(count(".journal") > 3, "several files");
    let check = |finder: &Finder| {
        for call in (0..CALLS).step_by(97) {
            assert_eq!(found(finder, "a", &format!("r-{call}")), (vec![(call, 1)], 0));
        }
        assert_eq!(found(finder, "a", "long"), (vec![(1_000_000, 1)], 0));
        assert_eq!(found(finder, "a", "r-6000"), (vec![], 0));
    };
    check(&first);
    assert_eq!(found(&first, "a", "cut off"), (vec![], 1));
    drop(run); // as if it had been killed

    let run = begin(&dir);
    let mut second = finder(&run);
    follow(&mut second);
    check(&second);
    assert_eq!(found(&second, "a", "cut off"), (vec![(1_000_001, 1)], 0), "it counts");
    let parts = count(".index");
    assert_eq!(parts, count(".journal"), "every file of the run that has ended has its part");

    // A damaged part is made again.
    let one =
        journal_files().find(|path| part::file_of(&path.file_name().unwrap().to_string_lossy()).is_some()).unwrap();
    std::fs::write(&one, "damaged").unwrap();
    let mut third = finder(&run);
    follow(&mut third);
    check(&third);
    assert_eq!(count(".index"), parts);
    assert!(std::fs::metadata(&one).unwrap().len() > 1_000);
}
