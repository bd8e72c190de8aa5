//! Files that were cut or changed: what was not hit is read, the rest is counted.

use std::os::unix::fs::FileExt;

use super::frame::FileId;
use super::*;

/// A finished run of one writer with these records; returns its only file.
fn one_file(path: &Path, records: &[Record]) -> PathBuf {
    let run = begin(path);
    for record in records {
        run.writers()[0].append(record).unwrap();
    }
    run.finish().unwrap();
    files(path, 1).remove(0)
}

fn three() -> [Record; 3] {
    [Record::Charge(charge(1)), grant(2), Record::Charge(charge(3))]
}

/// Reads the run whose only file has these bytes.
fn read_bytes(path: &Path, file: &Path, bytes: &[u8]) -> (Vec<Record>, u64) {
    std::fs::write(file, bytes).unwrap();
    let mut records = Vec::new();
    let damage =
        reader::read_run(&path.join("journal/1"), reader::Wanted::default(), &mut |_, record| records.push(record))
            .unwrap();
    assert_eq!(damage.missing_files, 0);
    (records, damage.bytes)
}

/// Where each record of `three` begins and the last ends.
fn bounds(whole: &[u8]) -> Vec<usize> {
    let mut bounds = vec![frame::HEADER_BYTES];
    while let Some((_, length)) = frame::decode(&whole[*bounds.last().unwrap()..]) {
        bounds.push(bounds.last().unwrap() + length);
    }
    assert_eq!((bounds.len(), bounds.last()), (4, Some(&whole.len())));
    bounds
}

#[test]
fn a_tail_torn_at_any_byte_costs_only_its_record() {
    let dir = tempfile::tempdir().unwrap();
    let file = one_file(dir.path(), &three());
    let whole = std::fs::read(&file).unwrap();
    let last = bounds(&whole)[2];
    for length in last..whole.len() {
        for zeros in [0, 1, 5_000] {
            let mut torn = whole[..length].to_vec();
            // What was torn may itself end in zeros, which are not told from the unused rest.
            let damage = torn[last..].iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
            torn.extend(std::iter::repeat_n(0, zeros));
            assert_eq!(read_bytes(dir.path(), &file, &torn), (three()[..2].to_vec(), damage as u64), "{length}");
        }
    }
}

#[test]
fn a_byte_changed_anywhere_costs_only_the_record_it_hit() {
    let dir = tempfile::tempdir().unwrap();
    let file = one_file(dir.path(), &three());
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.extend([0; 100]);
    let bounds = bounds(&bytes[..bytes.len() - 100]);
    for at in 0..bounds[3] {
        for flip in [0x01, 0x80, 0xff] {
            bytes[at] ^= flip;
            let (records, damage) = read_bytes(dir.path(), &file, &bytes);
            bytes[at] ^= flip;
            let mut expected = three().to_vec();
            let hit = bounds.iter().filter(|&&bound| bound <= at).count();
            if hit == 0 {
                assert_eq!((records, damage), (expected, frame::HEADER_BYTES as u64), "header byte {at}");
            } else {
                expected.remove(hit - 1);
                assert_eq!(records, expected, "byte {at} flipped by {flip}");
                assert!(damage > 0 && damage <= (bounds[hit] - bounds[hit - 1]) as u64, "byte {at}: {damage}");
            }
        }
    }
}

#[test]
fn what_lies_behind_a_gap_that_was_never_written_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let file = one_file(dir.path(), &three());
    let whole = std::fs::read(&file).unwrap();
    let gap = whole.len()..3_000_000;
    let frame = whole[bounds(&whole)[2]..].to_vec();
    for tail in [frame.clone(), frame[..frame.len() - 1].to_vec(), vec![0xff; 9], Vec::new()] {
        let mut dense = whole.clone();
        dense.resize(gap.end, 0);
        dense.extend(&tail);
        dense.resize(4_000_000, 0);
        let read = read_bytes(dir.path(), &file, &dense);
        std::fs::write(&file, &whole).unwrap();
        let sparse = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
        sparse.set_len(dense.len() as u64).unwrap();
        sparse.write_all_at(&tail, gap.end as u64).unwrap();
        let mut records = Vec::new();
        let run = dir.path().join("journal/1");
        let damage = reader::read_run(&run, reader::Wanted::default(), &mut |_, record| records.push(record)).unwrap();
        assert_eq!((records, damage.bytes), read, "{tail:?}");
        assert_eq!(read.1 > 0, !tail.is_empty(), "{tail:?}");
    }
}

#[test]
fn empty_and_unused_files_are_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let file = one_file(dir.path(), &[Record::Close]);
    let header = std::fs::read(&file).unwrap()[..frame::HEADER_BYTES].to_vec();
    assert_eq!(read_bytes(dir.path(), &file, &[]), (vec![], 0));
    assert_eq!(read_bytes(dir.path(), &file, &header), (vec![], 0));
    assert_eq!(read_bytes(dir.path(), &file, &[0; 3_000_000]), (vec![], 0), "allocated, header never written");
}

#[test]
fn records_around_a_large_hole_and_across_the_window_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let file = one_file(dir.path(), &three());
    let whole = std::fs::read(&file).unwrap();
    for hole in [0_u8, 0xaa, 0x01] {
        // 0x01010101 is too large for a length; so the search is quick whatever fills the hole.
        let size = 2_500_000;
        let bytes = [&whole[..], &vec![hole; size], &whole[frame::HEADER_BYTES..]].concat();
        let expected = [three(), three()].concat();
        assert_eq!(read_bytes(dir.path(), &file, &bytes), (expected, size as u64));
    }
}

#[test]
fn the_largest_record_is_read_wherever_it_lies() {
    let dir = tempfile::tempdir().unwrap();
    let large = grant(7_000);
    let records: Vec<_> = (0..3).map(|_| large.clone()).collect();
    let file = one_file(dir.path(), &records);
    let whole = std::fs::read(&file).unwrap();
    assert!(whole.len() > 3 * 60_000, "they are large: {}", whole.len());
    let many = [&whole[..], &whole[frame::HEADER_BYTES..].repeat(10)].concat();
    assert_eq!(read_bytes(dir.path(), &file, &many), (vec![large; 33], 0));
}

#[test]
fn a_record_that_is_too_large_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let run = begin(dir.path());
    let refusal = run.writers()[0].append(&grant(10_000)).unwrap_err().to_string();
    assert!(refusal.contains("more than 65536 bytes"), "{refusal}");
    run.writers()[0].append(&Record::Close).unwrap();
    run.finish().unwrap();
    assert_eq!(read_only_run(dir.path()).0, [(0, Record::Close)]);
}

#[test]
fn a_missing_file_is_counted_and_a_newer_one_refused() {
    let dir = tempfile::tempdir().unwrap();
    let run = begin(dir.path());
    while files(dir.path(), 1).len() < 5 {
        eventually("room", || run.writers()[0].append(&Record::Charge(charge(1))).is_ok());
    }
    run.finish().unwrap();
    let files = files(dir.path(), 1);
    std::fs::remove_file(&files[1]).unwrap();
    let run_dir = dir.path().join("journal/1");
    let damage = reader::read_run(&run_dir, reader::Wanted::default(), &mut |_, _| {}).unwrap();
    assert_eq!(damage, Damage { missing_files: 1, ..Damage::default() });

    // One that is there without its content is as good as missing, unless it was just being made.
    for (at, bytes) in [(3, 0), (2, frame::HEADER_BYTES as u64)] {
        for left in [&[][..], &[0; 100]] {
            std::fs::write(&files[at], left).unwrap();
            let damage = reader::read_run(&run_dir, reader::Wanted::default(), &mut |_, _| {}).unwrap();
            assert_eq!(damage, Damage { bytes, missing_files: 1, ..Damage::default() }, "{at}: {left:?}");
        }
    }

    let mut bytes = std::fs::read(&files[0]).unwrap();
    bytes[8] = 9;
    let crc = crc32fast::hash(&bytes[..16]).to_le_bytes();
    bytes[16..20].copy_from_slice(&crc);
    std::fs::write(&files[0], bytes).unwrap();
    let refusal = reader::read_run(&run_dir, reader::Wanted::default(), &mut |_, _| {}).unwrap_err();
    assert!(refusal.contains(files[0].to_str().unwrap()) && refusal.contains("newer version"), "{refusal}");
}

#[test]
fn damage_is_reported_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let file = one_file(dir.path(), &three());
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.extend(b"junk");
    std::fs::write(&file, bytes).unwrap();
    let run = begin(dir.path());
    let earlier = run.earlier();
    let (records, damage) = read(&*earlier, &earlier.unsettled().unwrap()[0]);
    assert_eq!((records.len(), damage), (3, Damage { bytes: 4, ..Damage::default() }));
    assert_eq!(run.stats().damaged_bytes, 4);
}

#[test]
fn what_a_running_earlier_version_writes_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let run = begin(dir.path());
    run.writers()[0].append(&Record::Charge(charge(1))).unwrap();
    let file = File::options().write(true).open(&files(dir.path(), 1)[0]).unwrap();
    file.write_all_at(&FileId { writer: 0, sequence: 1 }.header_of(1), 0).unwrap();
    let runs = RunsOnDisk::find(dir.path()).unwrap().runs;
    let mut records = Vec::new();
    runs[0].read(&mut |_, record| records.push(record)).unwrap();
    assert!(runs[0].live);
    assert_eq!(records, [Record::Charge(charge(1))]);
}
