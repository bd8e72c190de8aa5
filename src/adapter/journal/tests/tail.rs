//! What a process that is killed leaves in its writers' tails.

use super::frame::FileId;
use super::*;
use crate::ports::journal::Journal;

const FIRST_FILE: FileId = FileId { writer: 0, sequence: 1 };

fn tail_of(path: &Path) -> PathBuf {
    path.join("journal/1").join(super::super::tail::name(0))
}

/// Stages charges and their ends.
fn stage(writer: &dyn Journal, calls: std::ops::RangeInclusive<u64>) {
    for call in calls {
        writer.stage(charge(call).lend(), None).unwrap();
        writer.end(end(call));
    }
}

fn records(calls: std::ops::RangeInclusive<u64>) -> Vec<(u16, Record)> {
    calls.flat_map(|call| [(0, Record::Charge(charge(call))), (0, Record::End(end(call)))]).collect()
}

/// A killed run with three calls, none of which is in its file.
fn killed(path: &Path) {
    let mut run = begin(path);
    run.stop_thread(); // it would write them
    stage(&*run.writers()[0], 1..=3);
}

/// Begins another run beside the only unsettled one.
fn begin_after(path: &Path) -> (Run, EarlierRun) {
    let run = begin(path);
    let ended = run.earlier().unsettled().unwrap().remove(0);
    (run, ended)
}

#[test]
fn what_is_only_in_the_tail_is_read() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path());
    assert_eq!(read_only_run(dir.path()), (records(1..=3), Damage::default()));
}

#[test]
fn an_end_that_is_known_with_its_charge_stands_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = begin(dir.path());
    run.stop_thread();
    for call in 1..=2 {
        run.writers()[0].stage(charge(call).lend(), Some(end(call))).unwrap();
    }
    drop(run);
    assert_eq!(read_only_run(dir.path()), (records(1..=2), Damage::default()));
}

#[test]
fn what_is_in_the_tail_and_in_the_file_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let run = begin(dir.path());
    let writer = Arc::clone(&run.writers()[0]);
    stage(&*writer, 1..=2);
    writer.append(&Record::Close).unwrap(); // writes all
    stage(&*writer, 3..=3); // over the first of them
    drop(run);
    let mut expected = records(1..=2);
    expected.push((0, Record::Close));
    expected.extend(records(3..=3));
    assert_eq!(read_only_run(dir.path()), (expected, Damage::default()));
}

#[test]
fn a_run_that_goes_on_shows_what_is_in_its_tail() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = begin(dir.path());
    run.stop_thread();
    stage(&*run.writers()[0], 1..=3);
    let current = EarlierRun { incarnation: run.incarnation().clone(), same_boot: true };
    assert_eq!(read(&*run.earlier(), &current), (records(1..=3), Damage::default()));
    let beside = RunsOnDisk::find(dir.path()).unwrap();
    let mut seen = Vec::new();
    beside.runs[0].read(&mut |writer, record| seen.push((writer, record))).unwrap();
    assert_eq!((beside.runs[0].live, seen), (true, records(1..=3)));
}

#[test]
fn records_go_on_from_file_to_file() {
    let dir = tempfile::tempdir().unwrap();
    let run = begin(dir.path());
    let writer = Arc::clone(&run.writers()[0]);
    let calls = 3 * SEGMENT_BYTES_MIN / 100;
    for call in 1..=calls {
        eventually("room", || writer.reserve().is_ok());
        stage(&*writer, call..=call);
    }
    drop(run);
    assert_eq!(read_only_run(dir.path()), (records(1..=calls), Damage::default()));
    assert!(files(dir.path(), 1).len() > 2);
}

#[test]
fn a_settled_runs_files_hold_all_and_its_tail_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path());
    let (run, ended) = begin_after(dir.path());
    let earlier = run.earlier();
    earlier.mark_settled(&ended).unwrap();
    assert!(!tail_of(dir.path()).exists());
    assert_eq!(read(&*earlier, &ended), (records(1..=3), Damage::default()));
}

/// Should its tail be cut, the process would die of it.
#[test]
fn a_run_that_another_process_believes_dead_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let run = begin(dir.path());
    let writer = Arc::clone(&run.writers()[0]);
    stage(&*writer, 1..=1);
    super::super::tail::fold(&dir.path().join("journal/1"), 0).unwrap();
    stage(&*writer, 2..=2);
    writer.append(&Record::Close).unwrap();
    let mut expected = records(1..=2);
    expected.push((0, Record::Close));
    drop(run);
    assert_eq!(read_only_run(dir.path()), (expected, Damage { missing_files: 1, ..Damage::default() }));
}

/// What is in a tail gets another place if its file fails: a mark must not go beyond it.
#[test]
fn an_export_shows_of_a_run_that_goes_on_what_is_in_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = begin(dir.path());
    run.stop_thread();
    let writer = Arc::clone(&run.writers()[0]);
    stage(&*writer, 1..=1);
    writer.append(&Record::End(end(99))).unwrap(); // writes all
    stage(&*writer, 2..=2);
    let shown = || read_usage(dir.path(), false, &mut |_| {}).unwrap().0.records;
    assert_eq!(shown(), 1);
    drop(run);
    assert_eq!(shown(), 2, "nothing gets another place any more");
}

#[test]
fn a_tail_that_is_gone_is_told() {
    for (in_order, gone) in [(false, true), (true, true), (true, false)] {
        let dir = tempfile::tempdir().unwrap();
        let run = begin(dir.path());
        stage(&*run.writers()[0], 1..=3);
        if in_order {
            run.finish().unwrap();
            // On disk, unlike what was there before: it holds after a loss of power, too.
            assert_eq!(std::fs::read(tail_of(dir.path())).unwrap(), b"in order");
        } else {
            drop(run);
        }
        if gone {
            std::fs::remove_file(tail_of(dir.path())).unwrap();
        }
        let damage = read_only_run(dir.path()).1;
        assert_eq!(damage, Damage { missing_files: u64::from(gone), ..Damage::default() }, "in order: {in_order}");
    }
}

#[test]
fn a_run_of_an_earlier_version_has_no_tail() {
    let dir = tempfile::tempdir().unwrap();
    let run = begin(dir.path());
    run.writers()[0].append(&Record::Close).unwrap();
    run.finish().unwrap();
    std::fs::remove_file(tail_of(dir.path())).unwrap();
    let file = &files(dir.path(), 1)[0];
    let mut bytes = std::fs::read(file).unwrap();
    bytes[..frame::HEADER_BYTES].copy_from_slice(&FIRST_FILE.header_of(4));
    std::fs::write(file, bytes).unwrap();
    assert_eq!(read_only_run(dir.path()), (vec![(0, Record::Close)], Damage::default()));
}

#[test]
fn a_byte_of_the_tail_that_is_changed_costs_at_most_its_record_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path());
    let path = tail_of(dir.path());
    let whole = std::fs::read(&path).unwrap();
    let used = whole.iter().rposition(|&byte| byte != 0).unwrap();
    let (run, ended) = begin_after(dir.path());
    let earlier = run.earlier();
    for at in 0..=used {
        let mut changed = whole.clone();
        changed[at] ^= 0x55;
        std::fs::write(&path, changed).unwrap();
        let (read, damage) = read(&*earlier, &ended);
        let missing: Vec<_> = records(1..=3).into_iter().filter(|record| !read.contains(record)).collect();
        assert_eq!(read.len() + missing.len(), 6, "byte {at}: nothing is made up");
        assert_eq!(missing.len(), usize::from(at >= 8), "byte {at}");
        assert!(!damage.is_whole(), "byte {at}");
    }
}

#[test]
fn a_tail_that_is_not_what_its_writer_left_is_told() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path());
    let path = tail_of(dir.path());
    let whole = std::fs::read(&path).unwrap();
    let (run, ended) = begin_after(dir.path());
    let earlier = run.earlier();
    let noise = |bytes: usize| (0..bytes).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect::<Vec<_>>();
    let longer = [&whole[..], &[0]].concat();
    let wrong = [Vec::new(), vec![0], vec![0; whole.len()], noise(whole.len()), noise(9)];
    for bytes in wrong.into_iter().chain([8, 50, 200, whole.len() - 1].map(|at| whole[..at].to_vec())).chain([longer]) {
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&*earlier, &ended).1.missing_files, 1, "{} bytes", bytes.len());
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(read(&*earlier, &ended), (records(1..=3), Damage::default()));
}

#[test]
fn a_file_that_was_cut_before_what_its_writers_tail_has_is_told() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path());
    let file = std::fs::OpenOptions::new().write(true).open(&files(dir.path(), 1)[0]).unwrap();
    file.set_len(frame::HEADER_BYTES as u64).unwrap();
    let (records, damage) = read_only_run(dir.path());
    assert!(records.is_empty() && damage.bytes > 300, "{damage:?}");
}

#[test]
fn what_a_file_has_is_not_changed_by_its_writers_tail() {
    let dir = tempfile::tempdir().unwrap();
    let run = begin(dir.path());
    stage(&*run.writers()[0], 1..=2);
    run.writers()[0].append(&Record::Close).unwrap(); // writes all
    drop(run);
    let tail = tail_of(dir.path());
    let whole = std::fs::read(&tail).unwrap();
    let (run, ended) = begin_after(dir.path());
    let earlier = run.earlier();
    let mut expected = records(1..=2);
    expected.push((0, Record::Close));
    for at in 8..=whole.iter().rposition(|&byte| byte != 0).unwrap() {
        let mut changed = whole.clone();
        changed[at] ^= 0x55;
        std::fs::write(&tail, changed).unwrap();
        assert_eq!(read(&*earlier, &ended), (expected.clone(), Damage::default()), "byte {at}");
    }
}

#[test]
fn what_was_refused_does_not_come_from_the_tail() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, run) = begin_faulty(dir.path());
    let writer = Arc::clone(&run.writers()[0]);
    stage(&*writer, 1..=1);
    disk.write_fails.store(true, Ordering::Relaxed);
    assert!(writer.append(&grant(3)).is_err());
    assert!(writer.append(&grant(400)).is_err(), "larger than what a tail has left");
    drop(run);
    assert_eq!(read_only_run(dir.path()).0, records(1..=1));
}
