//! Full and failing disks: what was promised is kept, the rest is refused, and service resumes by itself.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::process::Command;

use super::*;
use crate::domain::allocation::{Allocation, TAGS_BYTES_MAX, TAGS_MAX, Tags};
use crate::domain::billable::{BillableStatuses, DatedRule, StatusRule};
use crate::domain::id::{ID_BYTES_MAX, OfferId, ProjectId};
use crate::domain::lease::LEASE_PARTS_MAX;
use crate::domain::money::Money;
use crate::domain::usage::{END_USER_BYTES_MAX, Exactness, MODEL_BYTES_MAX, PackageTerms};
use crate::ports::journal::{CALL_BYTES_MAX, Journal, JournalError};

/// A charge and an end that need nearly all that a call may.
fn large_call(call: u64) -> (Record, Record) {
    let part = part(u64::MAX, &"p".repeat(64));
    let mut charge = charge(call);
    charge.parts = vec![part; 25];
    let records = (Record::Charge(charge), Record::End(end(call)));
    let mut buffer = [0; CALL_BYTES_MAX];
    let bytes = frame::encode(&records.0, &mut buffer).unwrap() + frame::encode(&records.1, &mut buffer).unwrap();
    assert!((CALL_BYTES_MAX - 100..=CALL_BYTES_MAX).contains(&bytes), "{bytes}");
    records
}

/// Everything as long as it may be.
#[test]
fn the_longest_call_fits_into_what_is_set_aside_for_one() {
    let id = "i".repeat(ID_BYTES_MAX);
    let tags = (0..TAGS_MAX).map(|number| (format!("tag-{number:02}"), "v".repeat(TAGS_BYTES_MAX / TAGS_MAX - 6)));
    let allocation = Allocation { project: ProjectId::new(&id).unwrap(), tags: Tags::new(tags.collect()).unwrap() };
    let text = |bytes| -> Option<Arc<str>> { Some("t".repeat(bytes).into()) };
    let longest = Charge {
        call: u64::MAX,
        request_id: "r".repeat(128), // what `protocol::request_id` lets through
        arrived: Timestamp::MAX,
        account: AccountId::new(&id).unwrap(),
        caller: Some(CallerRef::Key(KeyId::new(&id).unwrap())),
        product: ProductId::new(&id).unwrap(),
        parts: vec![part(u64::MAX, &id)],
        status: u16::MAX,
        streamed: true,
        attempts: u8::MAX,
        facts: CallFacts {
            model: text(MODEL_BYTES_MAX),
            sellers_model: text(MODEL_BYTES_MAX),
            end_user: text(END_USER_BYTES_MAX),
            exactness: Exactness::Estimated,
            allocation: Arc::new(allocation),
        },
    };
    let end = CallEnd { call: u64::MAX, at: Timestamp::MAX, ..end(1) };
    let mut buffer = [0; CALL_BYTES_MAX];
    let charge = frame::encode(&Record::Charge(longest.clone()), &mut buffer).unwrap();
    assert_eq!(frame::decode(&buffer).unwrap().0, [Record::Charge(longest)]);
    let end = frame::encode(&Record::End(end), &mut buffer).unwrap();
    assert!(charge + end <= CALL_BYTES_MAX, "{charge} + {end}");
}

/// As many packages as a lease may draw on, with as many rules and tags as each may have.
#[test]
fn the_longest_grant_fits_into_a_record() {
    let id = "i".repeat(ID_BYTES_MAX);
    let rule = |second: i64| DatedRule {
        from: Some(Timestamp::new(253_000_000_000 + second, 999_999_999).unwrap()),
        statuses: StatusRule::Success,
    };
    let tags = BTreeMap::from([("t".repeat(32), "v".repeat(TAGS_BYTES_MAX - 32))]);
    let terms = PackageTerms {
        package: PackageId::new(&id).unwrap(),
        offer: OfferId::new(&id).unwrap(),
        billable: BillableStatuses::new((0..100).map(rule).collect()), // as many as a configuration may have
        allocation: Allocation { project: ProjectId::new(&id).unwrap(), tags: Tags::new(tags).unwrap() },
        unit_worth: Money::written("999999999999.999999999").unwrap().share(NonZeroU64::new(7).unwrap()),
    };
    let many = Units::new(u64::MAX);
    let lease_part = LeasePart { used: many, returned: many, ..LeasePart::new(PackageId::new(&id).unwrap(), many) };
    let grant = Record::Grant(Grant {
        account: AccountId::new(&id).unwrap(),
        product: ProductId::new(&id).unwrap(),
        number: u64::MAX,
        parts: vec![lease_part; LEASE_PARTS_MAX],
        deadline: Timestamp::MAX,
        terms: vec![terms; LEASE_PARTS_MAX],
    });
    let mut buffer = vec![0; frame::FRAME_BYTES_MAX];
    assert!(frame::encode(&grant, &mut buffer).is_some());
    assert_eq!(frame::decode(&buffer).unwrap().0, [grant]);
}

/// Reserves until it is refused, and says how often that went well.
fn reserve_all(writer: &dyn Journal) -> (u64, JournalError) {
    let mut reserved = 0;
    loop {
        match writer.reserve() {
            Ok(()) => reserved += 1,
            Err(error) => return (reserved, error),
        }
    }
}

/// Fills the disk, keeps every promise, lets space come back, and looks that all is there.
fn check_full_disk(path: &Path, run: Run, set_full: &dyn Fn(bool)) {
    let writer = Arc::clone(&run.writers()[0]);
    set_full(true);
    let (reserved, error) = reserve_all(&*writer);
    assert_eq!(error, JournalError::Full);
    assert!(reserved >= 2 * (SEGMENT_BYTES_MIN / CALL_BYTES_MAX as u64) - 3, "two files hold more than {reserved}");
    assert_eq!(writer.append(&grant(400)).unwrap_err(), JournalError::Full, "a grant must not take what is promised");

    for call in 0..reserved {
        let (charge, end) = large_call(call);
        writer.append(&charge).unwrap();
        writer.append(&end).unwrap();
        writer.release();
    }
    eventually("the report", || run.stats().full);
    assert_eq!(reserve_all(&*writer).1, JournalError::Full, "a few bytes less than promised were needed");

    set_full(false);
    eventually("service", || writer.reserve().is_ok());
    eventually("the all-clear", || !run.stats().full);
    writer.append(&Record::Charge(charge(reserved))).unwrap();
    writer.end(end(reserved));
    run.finish().unwrap();

    let mut expected: Vec<_> = (0..reserved).map(large_call).collect();
    expected.push((Record::Charge(charge(reserved)), Record::End(end(reserved))));
    let mut records = Vec::new();
    let damage =
        reader::read_run(&path.join("journal/1"), reader::Wanted::default(), &mut |_, record| records.push(record))
            .unwrap();
    assert_eq!(damage, Damage::default());
    assert_eq!(records, expected.into_iter().flat_map(|(charge, end)| [charge, end]).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_keeps_its_promises_and_service_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, run) = begin_faulty(dir.path());
    check_full_disk(dir.path(), run, &|full| disk.full.store(full, Ordering::Relaxed));
}

/// Unmounts when the test ends, however it does.
struct Mount(tempfile::TempDir);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_disk_that_is_really_full_keeps_its_promises_and_service_resumes() {
    let mount = Mount(tempfile::tempdir().unwrap());
    let path = mount.0.path();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(path).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: this user cannot mount a small file system; the same is tested with injected faults");
        return;
    }
    let run = begin(path);
    let filler = path.join("filler");
    check_full_disk(path, run, &|full| {
        if full {
            let file = File::create(&filler).unwrap();
            let mut bytes = 4096 * 256;
            while bytes > 0 {
                // Takes what is free, in ever smaller pieces.
                let at = file.metadata().unwrap().len();
                if RealDisk.allocate_more(&file, at, bytes).is_err() {
                    bytes /= 2;
                }
            }
        } else {
            std::fs::remove_file(&filler).unwrap();
        }
    });
}

impl RealDisk {
    fn allocate_more(&self, file: &File, at: u64, bytes: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), at, bytes)?)
    }
}

#[test]
fn a_gateway_starts_on_a_full_disk_and_serves_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    disk.full.store(true, Ordering::Relaxed);
    let run = Run::begin(open(dir.path()), OPTIONS, Arc::clone(&disk) as Arc<dyn Disk>).unwrap();
    let writer = Arc::clone(&run.writers()[0]);
    assert_eq!(writer.reserve().unwrap_err(), JournalError::Full);
    assert_eq!(writer.append(&Record::Close).unwrap_err(), JournalError::Full);
    assert!(run.stats().full);
    disk.full.store(false, Ordering::Relaxed);
    eventually("service", || writer.reserve().is_ok());
}

#[test]
fn released_room_is_there_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, run) = begin_faulty(dir.path());
    disk.full.store(true, Ordering::Relaxed);
    let writer = &run.writers()[0];
    let (reserved, _) = reserve_all(&**writer);
    writer.release();
    writer.reserve().unwrap();
    assert_eq!(writer.reserve().unwrap_err(), JournalError::Full);
    (0..reserved).for_each(|_| writer.release());
    assert_eq!(reserve_all(&**writer).0, reserved);
}

#[test]
fn a_charge_with_its_end_needs_no_more_room() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, run) = begin_faulty(dir.path());
    disk.full.store(true, Ordering::Relaxed);
    let writer = &run.writers()[0];
    reserve_all(&**writer);
    writer.stage(charge(1).lend(), None).unwrap();
    assert_eq!(writer.reserve().unwrap_err(), JournalError::Full, "its end is to come");
    let mut ended = 0;
    while writer.reserve().is_err() {
        ended += 1;
        writer.stage(charge(1 + ended).lend(), Some(end(1 + ended))).unwrap();
    }
    assert!((1..=3).contains(&ended), "{ended}");
}

#[test]
fn a_failed_write_refuses_new_calls_until_a_new_file_works_and_loses_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, run) = begin_faulty(dir.path());
    let writer = Arc::clone(&run.writers()[0]);
    writer.append(&Record::Charge(charge(1))).unwrap();
    writer.end(end(1));
    disk.write_fails.store(true, Ordering::Relaxed);
    for call in [2, 3] {
        // The second finds no file at all.
        assert!(matches!(writer.append(&Record::Charge(charge(call))), Err(JournalError::Io(_))));
        assert!(matches!(writer.reserve(), Err(JournalError::Io(_))));
    }
    writer.end(end(4));
    assert!(!run.stats().full, "this is another trouble");
    disk.write_fails.store(false, Ordering::Relaxed);
    eventually("service", || writer.reserve().is_ok());
    writer.append(&Record::Charge(charge(5))).unwrap();
    run.finish().unwrap();

    let (records, damage) = read_only_run(dir.path());
    let expected = [Record::Charge(charge(1)), Record::End(end(1)), Record::End(end(4)), Record::Charge(charge(5))];
    assert_eq!(records, expected.map(|record| (0, record)));
    assert_eq!(damage, Damage::default());
}

#[test]
fn what_was_staged_outlives_a_disk_that_fails_for_a_while() {
    for (killed, noticed_by_the_thread) in [(false, false), (false, true), (true, false), (true, true)] {
        let dir = tempfile::tempdir().unwrap();
        let (disk, run) = begin_faulty(dir.path());
        let writer = Arc::clone(&run.writers()[0]);
        disk.write_fails.store(true, Ordering::Relaxed);
        for call in [1, 2] {
            writer.stage(charge(call).lend(), None).unwrap();
        }
        if noticed_by_the_thread {
            eventually("the failure", || writer.reserve().map(|()| writer.release()).is_err());
        } else {
            // Another record's write takes the staged ones along: its failure is its own affair.
            assert!(writer.append(&Record::End(end(1))).is_err());
        }
        writer.stage(charge(3).lend(), None).unwrap();
        if !killed {
            disk.write_fails.store(false, Ordering::Relaxed);
            eventually("service", || writer.reserve().is_ok());
            let last = writer.stage(charge(4).lend(), None).unwrap();
            wait(writer.on_disk(last)).unwrap();
            run.finish().unwrap();
        } else {
            drop(run);
        }
        let calls = if killed { 1..=3 } else { 1..=4 };
        let expected: Vec<_> = calls.map(|call| (0, Record::Charge(charge(call)))).collect();
        let read = read_only_run(dir.path());
        assert_eq!(read, (expected, Damage::default()), "killed: {killed}, by the thread: {noticed_by_the_thread}");
    }
}

#[test]
fn a_write_that_fails_halfway_leaves_nothing_that_comes_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, run) = begin_faulty(dir.path());
    let writer = Arc::clone(&run.writers()[0]);
    disk.write_torn.store(true, Ordering::Relaxed);
    let staged = (1..=9).map(|call| writer.stage(charge(call).lend(), None).unwrap()).max().unwrap();
    let _ = wait(writer.on_disk(staged)); // it fails or not: that is the first file's affair
    eventually("service", || writer.reserve().is_ok());
    run.finish().unwrap();
    let expected: Vec<_> = (1..=9).map(|call| (0, Record::Charge(charge(call)))).collect();
    assert_eq!(read_only_run(dir.path()), (expected, Damage::default()));
}

#[test]
fn a_call_that_no_file_is_left_for_is_refused_and_those_before_it_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, run) = begin_faulty(dir.path());
    let writer = Arc::clone(&run.writers()[0]);
    disk.write_fails.store(true, Ordering::Relaxed);
    let mut calls = 0;
    let refused = loop {
        if let Err(error) = writer.stage(charge(calls + 1).lend(), None) {
            break error;
        }
        calls += 1;
        writer.end(end(calls));
    };
    assert!(calls > 100, "{calls}");
    assert_eq!(Err(refused), writer.reserve(), "for the same reason as other calls");
    drop(run);
    let records = read_only_run(dir.path()).0;
    let expected = (1..=calls).flat_map(|call| [Record::Charge(charge(call)), Record::End(end(call))]);
    assert_eq!(records, expected.map(|record| (0, record)).collect::<Vec<_>>());
}

#[test]
fn a_failed_sync_is_told_to_those_it_concerns_only() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, run) = begin_faulty(dir.path());
    let writer = Arc::clone(&run.writers()[0]);
    let safe = writer.append(&Record::Charge(charge(1))).unwrap();
    wait(writer.on_disk(safe)).unwrap();
    disk.sync_fails.store(true, Ordering::Relaxed);
    let lost = writer.append(&Record::Charge(charge(2))).unwrap();
    assert!(matches!(wait(writer.on_disk(lost)), Err(JournalError::Io(_))));
    assert!(matches!(writer.reserve(), Err(JournalError::Io(_))));
    disk.sync_fails.store(false, Ordering::Relaxed);
    eventually("service", || writer.reserve().is_ok());
    let later = writer.append(&Record::Charge(charge(3))).unwrap();
    wait(writer.on_disk(later)).unwrap();
    wait(writer.on_disk(safe)).unwrap();
    assert!(matches!(wait(writer.on_disk(lost)), Err(JournalError::Io(_))), "a later sync does not bring it back");
    run.finish().unwrap();
    let expected: Vec<_> = (1..=3).map(|call| (0, Record::Charge(charge(call)))).collect();
    assert_eq!(read_only_run(dir.path()).0, expected);
}

#[test]
fn an_unwaited_end_without_any_file_is_kept_up_to_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, run) = begin_faulty(dir.path());
    let writer = Arc::clone(&run.writers()[0]);
    disk.full.store(true, Ordering::Relaxed);
    disk.write_fails.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        assert!(writer.append(&Record::Close).is_err());
    }
    let mut kept: u64 = 0;
    while run.stats().dropped_records == 0 {
        writer.end(end(kept));
        kept += 1;
    }
    kept -= 1;
    assert!(kept > 1_000, "{kept} ends were kept");
    disk.full.store(false, Ordering::Relaxed);
    disk.write_fails.store(false, Ordering::Relaxed);
    eventually("the write", || run.stats().bytes_written > 0);
    run.finish().unwrap();
    let expected: Vec<_> = (0..kept).map(|call| (0, Record::End(end(call)))).collect();
    assert_eq!(read_only_run(dir.path()).0, expected);
}
