//! Exports that go on from a mark, and the removal of what nobody needs any more.

use std::fs::OpenOptions;

use jiff::{SignedDuration, ToSpan};

use super::*;
use crate::config::Remove;
use crate::domain::allocation::Allocation;
use crate::domain::billable::BillableStatuses;
use crate::domain::id::OfferId;
use crate::domain::money::Money;
use crate::domain::usage::UsageRecord;

const KEPT: Retention = Retention { keep: SignedDuration::from_hours(7 * 24), remove: Remove::Exported };

/// As an export does; returns the calls that it shows.
fn export(path: &Path, since_mark: bool, mark: bool) -> Vec<u64> {
    let mut calls = Vec::new();
    let mut each = |record: UsageRecord| calls.push(record.charge.call);
    let (_, marks) = read_usage(path, since_mark, &mut each).unwrap();
    if mark {
        marks.note().unwrap();
    }
    calls
}

/// Makes files as old as they would be then.
fn age(files: &[PathBuf], days: i64) {
    let then = Timestamp::now().checked_sub((days * 24).hours()).unwrap();
    for file in files {
        OpenOptions::new().write(true).open(file).unwrap().set_modified(then.into()).unwrap();
    }
}

fn tidy(run: &Run, retention: Retention) -> u64 {
    run.tidier().tidy(&retention, None, Timestamp::now()).unwrap().removed_files
}

/// Charges calls, and ends those that are asked for, until the writer has made so many files.
fn fill(run: &Run, from: u64, files_made: usize, ends: impl Fn(u64) -> bool) -> u64 {
    let path = run.tidier().journal.parent().unwrap().to_owned();
    let writer = Arc::clone(&run.writers()[0]);
    let mut call = from;
    while files(&path, run.incarnation().number).len() < files_made {
        eventually("room", || writer.append(&Record::Charge(charge(call))).is_ok());
        if ends(call) {
            eventually("room", || writer.append(&Record::End(end(call))).is_ok());
        }
        call += 1;
    }
    call
}

#[test]
fn exports_since_the_mark_show_each_call_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let run = begin(path);
    let writer = Arc::clone(&run.writers()[0]);
    for call in [1, 2, 3] {
        writer.append(&Record::Charge(charge(call))).unwrap();
    }
    writer.append(&Record::End(end(2))).unwrap();
    assert_eq!(export(path, true, false), [2]);
    assert_eq!(export(path, true, true), [2], "an export that is not noted moves no mark");
    assert_eq!(export(path, true, true), [0_u64; 0]);
    writer.append(&Record::End(end(1))).unwrap();
    assert_eq!(export(path, true, true), [1]);
    // The third call's charge lies some files before its end.
    let next = fill(&run, 4, 4, |_| true);
    let filled: Vec<u64> = (4..next).collect();
    assert_eq!(export(path, true, true), filled);
    writer.append(&Record::End(end(3))).unwrap();
    assert_eq!(export(path, true, true), [3]);
    writer.stage(charge(next).lend(), Some(end(next))).unwrap();
    writer.append(&Record::Charge(charge(next + 1))).unwrap();
    assert_eq!(export(path, true, true), [next], "a charge with its end");
    drop(run);
    assert_eq!(export(path, true, true), [next + 1], "interrupted");
    assert_eq!(export(path, true, true), [0_u64; 0]);
    assert_eq!(export(path, false, false).len() as u64, next + 1, "without the mark all are shown");
}

#[test]
fn a_run_goes_whole_once_it_is_settled_exported_and_old() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let first = begin(path);
    first.writers()[0].append(&Record::Charge(charge(1))).unwrap();
    drop(first);
    let run = begin(path);
    assert_eq!(tidy(&run, KEPT), 0);
    age(&files(path, 1), 8);
    assert_eq!(tidy(&run, Retention { remove: Remove::Settled, ..KEPT }), 0, "it is not settled");
    run.earlier().mark_settled(&run.earlier().unsettled().unwrap()[0]).unwrap();
    age(&files(path, 1), 8);
    assert_eq!(tidy(&run, KEPT), 0, "it is not exported");
    assert_eq!(tidy(&run, Retention { remove: Remove::Never, ..KEPT }), 0);
    assert_eq!(export(path, true, true), [1]);
    let reading = RunsOnDisk::find(path).unwrap();
    assert_eq!(tidy(&run, KEPT), 0, "somebody reads it");
    drop(reading);
    let before = run.tidier().tidy(&Retention { remove: Remove::Never, ..KEPT }, None, Timestamp::now()).unwrap();
    let gone = files(path, 1).len() as u64;
    let after = run.tidier().tidy(&KEPT, None, Timestamp::now()).unwrap();
    assert_eq!(after.removed_files, gone);
    assert!(after.disk_bytes < before.disk_bytes, "{before:?} {after:?}");
    assert!(!path.join("journal/1").exists());
    assert_eq!(tidy(&run, KEPT), 0);
    drop(run);
    assert_eq!(begin(path).incarnation().number, 3, "no number comes again");
}

#[test]
fn old_files_of_the_run_that_goes_on_are_removed_and_are_not_missing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    // The second writer is a core's; this test's calls are in the first, whose files need no export.
    let run = begin(path);
    let next = fill(&run, 1, 5, |_| true);
    age(&files(path, 1)[..2], 8);
    let held_since = Timestamp::now().checked_sub((9 * 24).hours()).unwrap();
    assert_eq!(run.tidier().tidy(&KEPT, Some(held_since), Timestamp::now()).unwrap().removed_files, 0);
    assert_eq!(tidy(&run, KEPT), 2);
    assert_eq!((files(path, 1).len(), tidy(&run, KEPT)), (3, 0));
    run.writers()[0].append(&Record::Charge(charge(next))).unwrap();
    drop(run);
    let (records, damage) = read_only_run(path);
    assert!(damage.is_whole(), "{damage:?}");
    assert_eq!(damage.removed_files, 2);
    assert!(records.len() > 1);
}

#[test]
fn files_with_a_call_that_was_open_at_the_last_export_stay() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let run = open(path).begin_run(RunOptions { writers: 2, ..OPTIONS }).unwrap();
    let writer = Arc::clone(&run.writers()[1]);
    let of_core = || files(path, 1).into_iter().filter(|file| is_of(file, "01-")).collect::<Vec<_>>();
    let mut call = 1;
    while of_core().len() < 5 {
        eventually("room", || writer.append(&Record::Charge(charge(call))).is_ok());
        if call > 1 {
            eventually("room", || writer.append(&Record::End(end(call))).is_ok());
        }
        call += 1;
    }
    // A file is seen before its writer counts it; until then the third is not left for good.
    eventually("both writers have made their files", || run.stats().files >= 7);
    export(path, true, true);
    age(&of_core()[..3], 8);
    assert_eq!(tidy(&run, KEPT), 0, "the first call is still open");
    writer.append(&Record::End(end(1))).unwrap();
    assert_eq!(tidy(&run, KEPT), 0, "its end is not exported");
    assert_eq!(export(path, true, true), [1]);
    age(&of_core()[..3], 8);
    assert_eq!(tidy(&run, KEPT), 3);
    assert_eq!(of_core().len(), 2);
}

fn is_of(file: &Path, start: &str) -> bool {
    file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
}

/// A grant on a package that tells its offer.
fn telling_grant() -> Record {
    let terms = PackageTerms {
        package: PackageId::new("pkg-1").unwrap(),
        offer: OfferId::new("offer-1").unwrap(),
        billable: BillableStatuses::default(),
        allocation: Allocation::default(),
        unit_worth: Money::ZERO,
    };
    grant_with(1, vec![terms])
}

/// The offers that an export since the mark shows, record by record.
fn offers(path: &Path) -> Vec<Option<String>> {
    let mut offers = Vec::new();
    let mut each = |record: UsageRecord| offers.extend(record.parts().map(|part| part.offer.map(ToString::to_string)));
    let (_, marks) = read_usage(path, true, &mut each).unwrap();
    marks.note().unwrap();
    offers
}

#[test]
fn grants_stay_as_long_as_calls_that_draw_on_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let run = open(path).begin_run(RunOptions { writers: 2, ..OPTIONS }).unwrap();
    let tidier = run.tidier();
    let removed = || tidier.tidy(&KEPT, None, Timestamp::now()).unwrap().removed_files;
    let of = |start: &str| files(path, 1).into_iter().filter(|file| is_of(file, start)).collect::<Vec<_>>();
    let fill = |writer: usize, files_made: usize, record: &dyn Fn(u64) -> [Record; 2]| {
        let (writer, start) = (Arc::clone(&run.writers()[writer]), format!("{writer:02}-"));
        let mut number = 2;
        while of(&start).len() < files_made {
            for record in record(number) {
                eventually("room", || writer.append(&record).is_ok());
            }
            number += 1;
        }
    };
    run.writers()[0].append(&telling_grant()).unwrap();
    fill(0, 4, &|_| [grant(1), grant(1)]);
    // A file is seen before its writer counts it; until then the second is not left for good.
    eventually("both writers have made their files", || run.stats().files >= 6);
    age(&of("00-")[..2], 30);
    let call = |number| [Record::Charge(charge(number)), Record::End(end(number))];
    for record in call(1) {
        run.writers()[1].append(&record).unwrap();
    }
    assert_eq!(removed(), 0, "the call draws on a lease of the first");
    assert_eq!(offers(path), [Some("offer-1".to_owned())]);
    fill(1, 4, &call);
    eventually("the second writer has made two more", || run.stats().files >= 8);
    let shown = offers(path);
    assert!(shown.len() > 1 && shown.iter().all(Option::is_some), "behind the mark of the grants too: {shown:?}");
    assert_eq!(removed(), 0, "the call's file is young");
    age(&of("01-")[..1], 8);
    assert_eq!(removed(), 3, "the call's file, and both files of grants with it");
    assert_eq!((of("00-").len(), of("01-").len()), (2, 3));
}

#[test]
fn an_index_goes_with_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let run = begin(path);
    fill(&run, 1, 4, |_| true);
    let index = |name: &str| path.join("journal/1").join(name);
    let all = ["00-000001.0.index", "00-000001.1.index", "00-000002.0.index", "09-000001.0.index"].map(index);
    all.iter().for_each(|index| std::fs::write(index, "index").unwrap());
    age(&files(path, 1)[..1], 8);
    assert_eq!(tidy(&run, KEPT), 1);
    assert_eq!(all.map(|index| index.exists()), [false, false, true, false], "one without a file goes too");
}

#[test]
fn an_interrupted_removal_is_finished_and_nobody_sees_its_rest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    begin(path).finish().unwrap();
    std::fs::rename(path.join("journal/1"), path.join("journal/1.gone")).unwrap();
    let run = begin(path);
    fill(&run, 1, 4, |_| true);
    std::fs::write(path.join("journal/2/removed.json"), r#"{"0":1}"#).unwrap();
    let shown = export(path, false, false);
    assert!(!shown.contains(&1), "what is noted as removed does not count");
    assert!(tidy(&run, KEPT) >= 1);
    assert!(!path.join("journal/1.gone").exists());
    assert_eq!(files(path, 2).len(), 3);
    assert_eq!(export(path, false, false), shown);
}
