//! The journal when nothing fails, and the data directory's refusals.

use std::collections::BTreeMap;

use futures_util::FutureExt;

use super::*;
use crate::domain::id::CommandId;
use crate::domain::usage::UsageRecord;
use crate::ports::gateways::{ServerId, Servers};
use crate::ports::journal::{JournalledCommand, Position};

#[test]
fn records_of_all_writers_come_back_in_order_across_files() {
    const CALLS: u64 = 6_000;
    const WRITERS: u16 = 4;
    let dir = tempfile::tempdir().unwrap();
    let run = open(dir.path()).begin_run(RunOptions { writers: WRITERS, ..OPTIONS }).unwrap();
    std::thread::scope(|scope| {
        for writer in run.writers() {
            scope.spawn(move || {
                let mut last = None;
                for call in 0..CALLS {
                    eventually("room", || writer.reserve().is_ok());
                    let position = writer.append(&Record::Charge(charge(call))).unwrap();
                    assert!(last < Some(position), "positions grow");
                    last = Some(position);
                    writer.end(end(call));
                }
            });
        }
    });
    let stats = run.stats();
    assert!(stats.bytes_written > u64::from(WRITERS) * 2 * SEGMENT_BYTES_MIN, "several files: {stats:?}");
    assert_eq!((stats.full, stats.dropped_records), (false, 0));
    run.finish().unwrap();

    let (records, damage) = read_only_run(dir.path());
    assert_eq!(damage, Damage::default());
    let mut next: BTreeMap<u16, u64> = BTreeMap::new();
    for (writer, record) in records {
        let seen = next.entry(writer).or_default();
        let expected =
            if seen.is_multiple_of(2) { Record::Charge(charge(*seen / 2)) } else { Record::End(end(*seen / 2)) };
        assert_eq!(record, expected);
        *seen += 1;
    }
    assert_eq!(next, (0..WRITERS).map(|writer| (writer, 2 * CALLS)).collect());
}

#[test]
fn a_run_that_ended_in_order_has_no_unused_space() {
    let dir = tempfile::tempdir().unwrap();
    let run = begin(dir.path());
    run.writers()[0].append(&Record::Close).unwrap();
    run.finish().unwrap();
    let lengths: Vec<_> = files(dir.path(), 1).iter().map(|file| file.metadata().unwrap().len()).collect();
    assert_eq!(lengths, [20 + 8 + 1], "a header and one record of a byte");
}

#[test]
fn what_was_appended_survives_without_an_end_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let run = begin(dir.path());
    run.writers()[0].end(end(1));
    run.writers()[0].append(&Record::Charge(charge(2))).unwrap();
    drop(run);
    let (records, damage) = read_only_run(dir.path());
    assert_eq!(records, [(0, Record::End(end(1))), (0, Record::Charge(charge(2)))]);
    assert_eq!(damage, Damage::default(), "the zeros behind are no damage");
}

#[test]
fn a_record_for_soon_is_written_without_another() {
    let dir = tempfile::tempdir().unwrap();
    let run = begin(dir.path());
    run.writers()[0].end(end(1));
    eventually("the write", || run.stats().bytes_written > 0);
    drop(run);
    assert_eq!(read_only_run(dir.path()).0, [(0, Record::End(end(1)))]);
}

#[test]
fn what_is_written_is_synced_with_nobody_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, run) = begin_faulty(dir.path());
    let before = disk.syncs.load(Ordering::Relaxed);
    run.writers()[0].append(&Record::Close).unwrap();
    eventually("the sync", || disk.syncs.load(Ordering::Relaxed) > before);
}

#[test]
fn one_sync_serves_all_who_wait() {
    const WAITERS: usize = 64;
    let dir = tempfile::tempdir().unwrap();
    let (disk, run) = begin_faulty(dir.path());
    let writer = Arc::clone(&run.writers()[0]);
    let gate = disk.sync_gate.lock().unwrap();
    let before = disk.syncs.load(Ordering::Relaxed);
    let first = writer.append(&Record::Close).unwrap();
    wait(async {
        let mut waiters = Vec::from([writer.on_disk(first)]);
        // Asks for the first sync, which hangs at the gate.
        assert_eq!(waiters.first_mut().unwrap().now_or_never(), None);
        eventually("the first sync", || disk.syncs.load(Ordering::Relaxed) > before);
        for _ in 1..WAITERS {
            let position = writer.append(&Record::Close).unwrap();
            waiters.push(writer.on_disk(position));
        }
        for waiter in &mut waiters {
            assert_eq!(waiter.now_or_never(), None);
        }
        drop(gate);
        for result in futures_util::future::join_all(waiters).await {
            result.unwrap();
        }
    });
    let syncs = disk.syncs.load(Ordering::Relaxed) - before;
    assert!(syncs <= 3, "{syncs} syncs for {WAITERS} waiters");
}

#[test]
fn whoever_waits_when_the_run_ends_gets_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let run = begin(dir.path());
    let writer = Arc::clone(&run.writers()[0]);
    let position = writer.append(&Record::Close).unwrap();
    run.finish().unwrap();
    wait(writer.on_disk(position)).unwrap();
    assert!(wait(writer.on_disk(Position(position.0 + 1))).is_err());
    assert!(writer.append(&Record::Close).is_err());
    assert!(writer.reserve().is_err());
}

#[test]
fn runs_are_numbered_and_stay_until_they_are_settled() {
    let dir = tempfile::tempdir().unwrap();
    for number in 1..=3 {
        let run = begin(dir.path());
        assert_eq!(run.incarnation().number, number);
        run.finish().unwrap();
    }
    let run = begin(dir.path());
    let earlier = run.earlier();
    let unsettled = earlier.unsettled().unwrap();
    assert_eq!(unsettled.iter().map(|run| run.incarnation.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(unsettled.iter().all(|run| run.same_boot));
    earlier.mark_settled(&unsettled[1]).unwrap();
    let numbers: Vec<_> = earlier.unsettled().unwrap().iter().map(|run| run.incarnation.number).collect();
    assert_eq!(numbers, [1, 3]);
    run.finish().unwrap();

    // Even if the file with the last number is lost, no number comes twice.
    std::fs::remove_file(dir.path().join("incarnation")).unwrap();
    assert_eq!(begin(dir.path()).incarnation().number, 5);
}

#[test]
fn a_lost_directory_brings_no_number_again() {
    let number = |started: Timestamp| {
        let dir = tempfile::tempdir().unwrap();
        let begin = || DataDir::open(dir.path(), &gateway(), started).unwrap().begin_run(OPTIONS).unwrap();
        let first = begin().incarnation().number;
        assert_eq!(begin().incarnation().number, first + 1);
        first + 1
    };
    assert_eq!(number(first_start()), 2);
    let used = number(now());
    assert!(number(now().checked_add(jiff::SignedDuration::from_secs(2)).unwrap()) > used);
}

#[test]
fn a_run_on_another_boot_is_told_apart() {
    for boot in ["unknown", "00000000-0000-0000-0000-000000000000"] {
        let dir = tempfile::tempdir().unwrap();
        begin(dir.path()).finish().unwrap();
        let path = dir.path().join("journal/1/run.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace(&crate::adapter::boot::boot_id(), boot)).unwrap();
        assert!(!begin(dir.path()).earlier().unsettled().unwrap()[0].same_boot);
    }
}

#[test]
fn a_run_that_says_nothing_is_reported_until_it_is_settled() {
    let dir = tempfile::tempdir().unwrap();
    begin(dir.path()).finish().unwrap();
    let path = dir.path().join("journal/1/run.json");
    for damage in [Some("{"), None] {
        damage.map_or_else(|| std::fs::remove_file(&path), |text| std::fs::write(&path, text)).unwrap();
        let run = begin(dir.path());
        let report = run.earlier().unsettled().unwrap_err().to_string();
        assert!(report.contains(path.to_str().unwrap()), "{report}");
        run.earlier().mark_settled(&EarlierRun { incarnation: run.incarnation().clone(), same_boot: true }).unwrap();
    }
    data_dir::mark_settled(path.parent().unwrap()).unwrap();
    assert_eq!(begin(dir.path()).earlier().unsettled().unwrap(), []);
}

#[test]
fn a_settled_run_needs_no_more_space_than_its_records() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let run = begin(dir.path());
    run.writers()[0].append(&Record::Charge(charge(1))).unwrap();
    drop(run);
    let space = || files(dir.path(), 1).iter().map(|file| file.metadata().unwrap().blocks() * 512).sum::<u64>();
    assert!(space() >= 2 * SEGMENT_BYTES_MIN);
    let run = begin(dir.path());
    let killed = run.earlier().unsettled().unwrap().remove(0);
    run.earlier().mark_settled(&killed).unwrap();
    assert!(space() <= 2 * 4096, "{}", space());
    assert_eq!(read(&*run.earlier(), &killed), (vec![(0, Record::Charge(charge(1)))], Damage::default()));
}

fn check_refused(path: &Path, parts: &[&str]) {
    let refusal =
        DataDir::open(path, &gateway(), first_start()).and_then(|data_dir| data_dir.begin_run(OPTIONS).map(drop));
    let refusal = refusal.unwrap_err().to_string();
    for part in parts {
        assert!(refusal.contains(part), "{part:?} is missing in {refusal:?}");
    }
}

#[test]
fn a_data_directory_that_cannot_be_used_is_refused_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    check_refused(&file, &[file.to_str().unwrap(), "is not a directory", "name another place"]);
    check_refused(&file.join("below"), &["file/below", "is not a directory"]);
    // Nobody may make directories there, not even root.
    check_refused(Path::new("/proc/tollgate"), &["/proc/tollgate", "must be writable"]);

    let held = dir.path().join("held");
    let run = begin(&held);
    let holder = format!("pid {}, since 1970-01-01T00:00:00Z", std::process::id());
    check_refused(&held, &["held/lock", &holder, "stop that process"]);
    drop(run);
    begin(&held);

    std::fs::write(held.join("incarnation"), "seven").unwrap();
    check_refused(&held, &["held/incarnation", "is no number"]);
}

#[test]
fn a_data_directory_of_another_gateway_or_a_newer_program_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let other = GatewayId::new("gw-2").unwrap();
    drop(DataDir::open(dir.path(), &other, first_start()).unwrap().begin_run(OPTIONS).unwrap());
    check_refused(dir.path(), &["belongs to gateway gw-2, not gw-1", "set `gateway`"]);

    let path = dir.path().join("journal/1/run.json");
    std::fs::write(&path, r#"{"version":2,"what":"ever"}"#).unwrap();
    check_refused(dir.path(), &["1/run.json", "version 2", "use the newer program"]);
}

#[test]
fn a_new_data_directory_is_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    begin(&path).finish().unwrap();
    for part in ["", "journal", "journal/1"] {
        assert_eq!(path.join(part).metadata().unwrap().permissions().mode() & 0o777, 0o700, "{part}");
    }
}

fn usage(path: &Path) -> (Vec<UsageRecord>, UsageSummary) {
    let mut records = Vec::new();
    let (summary, _) = read_usage(path, false, &mut |record| records.push(record)).unwrap();
    (records, summary)
}

#[test]
fn usage_is_each_charge_with_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let run = begin(dir.path());
    let writer = Arc::clone(&run.writers()[0]);
    writer.append(&grant(1)).unwrap();
    for call in 1..=3 {
        writer.append(&Record::Charge(charge(call))).unwrap();
    }
    writer.append(&Record::End(end(2))).unwrap();
    let void = CallEnd { ending: Ending::SellerBroke, billed: false, ..end(1) };
    writer.append(&Record::End(void)).unwrap();
    let brief = |record: &UsageRecord| (record.charge.call, record.units.get(), record.ending, record.ended);

    let (records, summary) = usage(dir.path());
    let ended = [(2, 1, Ending::Complete, Some(now())), (1, 0, Ending::SellerBroke, Some(now()))];
    assert_eq!(records.iter().map(brief).collect::<Vec<_>>(), ended, "the third call is still open");
    assert_eq!(summary, UsageSummary { records: 2, open: 1, damage: Damage::default() });
    assert_eq!((&records[0].incarnation, records[0].core, &records[0].charge), (run.incarnation(), 0, &charge(2)));

    drop(run);
    let (records, summary) = usage(dir.path());
    let interrupted = (3, 1, Ending::Interrupted, None);
    assert_eq!(records.iter().map(brief).collect::<Vec<_>>(), [ended[0], ended[1], interrupted]);
    assert_eq!(summary, UsageSummary { records: 3, open: 0, damage: Damage::default() });
}

#[test]
fn in_a_shared_directory_two_runs_live_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let shared = || DataDir::open_shared(dir.path(), &gateway(), first_start()).unwrap().begin_run(OPTIONS).unwrap();
    let old = shared();
    old.writers()[0].append(&Record::Charge(charge(1))).unwrap();
    let new = shared();
    assert_eq!((old.incarnation().number, new.incarnation().number), (1, 2));
    assert!(matches!(DataDir::open(dir.path(), &gateway(), first_start()), Err(OpenError::Locked { .. })));
    // The journal of one that lives is not another's to settle.
    assert_eq!(new.earlier().unsettled(), Ok(Vec::new()));
    drop(old);
    let unsettled = new.earlier().unsettled().unwrap();
    assert_eq!(read(&*new.earlier(), &unsettled[0]).0, [(0, Record::Charge(charge(1)))]);
    new.earlier().mark_settled(&unsettled[0]).unwrap();
    assert_eq!(new.earlier().unsettled(), Ok(Vec::new()));
    assert_eq!(new.earlier().written_since(Timestamp::UNIX_EPOCH).unwrap(), unsettled);
    assert_eq!(new.earlier().written_since(Timestamp::MAX), Ok(Vec::new()));
}

#[test]
fn commands_are_read_without_the_calls() {
    let dir = tempfile::tempdir().unwrap();
    let run = open(dir.path()).begin_run(RunOptions { writers: 2, ..OPTIONS }).unwrap();
    let command = Record::Command(JournalledCommand {
        account: AccountId::new("acct-1").unwrap(),
        command: CommandId::new("order-1").unwrap(),
        at: now(),
        body: "{}".to_owned(),
    });
    run.writers()[1].append(&Record::Charge(charge(1))).unwrap();
    run.writers()[0].append(&command).unwrap();
    let mut seen = Vec::new();
    run.earlier().read_first(run.incarnation(), &mut |record| seen.push(record)).unwrap();
    assert_eq!(seen, [command]);
}

#[test]
fn the_servers_of_the_last_check_in_are_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let run = begin(dir.path());
    assert_eq!(run.earlier().last_servers(), Ok(None));
    let servers = Servers(vec![ServerId::new("one"), ServerId::new("two")]);
    run.earlier().note_servers(&servers).unwrap();
    drop(run);
    assert_eq!(begin(dir.path()).earlier().last_servers(), Ok(Some(servers)));
}
