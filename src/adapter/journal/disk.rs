//! The calls on files whose failure the journal survives, behind a trait so that tests can make them fail; and how the
//! space that a killed process had allocated comes back.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, SeekFrom, seek};
use rustix::io::Errno;

/// Zeros are written in blocks of this size where the file system cannot allocate by itself.
const ZEROS: &[u8] = &[0; 64 * 1024];
/// Ranges of data that are told apart in one file; a file of ours has one.
const RANGES_MAX: usize = 1_000;

/// What the journal asks of a disk.
pub(super) trait Disk: Send + Sync {
    /// Makes a new file this long, zero throughout, so that writes inside cannot fail for want of space.
    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()>;

    /// Writes all bytes at an offset.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Waits until what was written survives the loss of power.
    fn sync(&self, file: &File) -> io::Result<()>;
}

/// The disk as it is.
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, bytes),
            other => other.map_err(io::Error::from),
        }
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

fn write_zeros(file: &File, bytes: u64) -> io::Result<()> {
    let mut at = 0;
    while at < bytes {
        let block = usize::try_from(bytes - at).ok().and_then(|rest| ZEROS.get(..rest)).unwrap_or(ZEROS);
        file.write_all_at(block, at)?;
        at += block.len() as u64;
    }
    Ok(())
}

/// Where a file holds data: all else are zeros that were never written. A file system that cannot tell says that all is
/// data. Zeros count as data, too, where the kernel holds them in memory because someone has read them: ask before reading.
/// Moves the file's own offset.
pub(super) fn data_ranges(file: &File, length: u64) -> Vec<Range<u64>> {
    let (mut ranges, mut at) = (Vec::new(), 0);
    while at < length {
        let begin = match seek(file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => return ranges,
            Ok(begin) => begin.max(at),
            Err(_) => at,
        };
        if begin >= length {
            return ranges;
        }
        let end = seek(file, SeekFrom::Hole(begin)).unwrap_or(length);
        let end = if end <= begin || ranges.len() >= RANGES_MAX { length } else { end.min(length) };
        ranges.push(begin..end);
        at = end;
    }
    ranges
}

/// Gives back the space of the zeros at a file's end. No byte changes, so a reader notices nothing.
pub(super) fn release_zeros(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    file.sync_data()?; // some file systems tell data from zeros by what is on disk
    let mut block = vec![0; ZEROS.len()];
    let mut end = data_ranges(&file, length).last().map_or(0, |data| data.end);
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        block.resize(usize::try_from(end - start).unwrap_or_default(), 0); // at most a block
        file.read_exact_at(&mut block, start)?;
        if let Some(last) = block.iter().rposition(|&byte| byte != 0) {
            end = start + last as u64 + 1;
            break;
        }
        end = start;
    }
    if end == length {
        return Ok(());
    }
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(&file, hole, end, length - end)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn zeros_at_the_end_cost_no_space_and_no_byte_changes() {
        let block = ZEROS.len();
        for (zeros_before, data, zeros) in
            [(9, 3, 0), (9, 3, 5 * block), (block - 3, 3, 2 * block), (0, 0, 3 * block), (0, 0, 0)]
        {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("file");
            let content = [vec![0; zeros_before], vec![7; data], vec![0; zeros]].concat();
            std::fs::write(&path, &content).unwrap();
            release_zeros(&path).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), content);
            let allocated = path.metadata().unwrap().blocks() * 512;
            assert!(allocated <= (zeros_before + data + 2 * 4096) as u64, "{allocated} bytes for {zeros} zeros");
        }
    }

    #[test]
    fn what_was_allocated_and_never_written_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        let length = 64 * ZEROS.len() as u64;
        RealDisk.allocate(&file, length).unwrap();
        let tells = data_ranges(&file, length).is_empty();
        let block = ZEROS.len() as u64;
        for at in [0, 7 * block] {
            file.write_all_at(&[7; 100], at).unwrap();
            let ranges = data_ranges(&file, length);
            assert!(ranges.iter().any(|data| data.start <= at && data.end >= at + 100), "{ranges:?}");
            let data: u64 = ranges.iter().map(|data| data.end - data.start).sum();
            assert!(!tells || data <= 2 * block, "zeros are taken for data: {ranges:?}");
        }
        assert!(data_ranges(&file, 0).is_empty());
    }

    #[test]
    fn allocated_files_are_as_long_as_wished_and_zero() {
        for bytes in [1, ZEROS.len() as u64, 3 * ZEROS.len() as u64 + 7] {
            for by_hand in [false, true] {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("file");
                let file = File::create(&path).unwrap();
                if by_hand { write_zeros(&file, bytes) } else { RealDisk.allocate(&file, bytes) }.unwrap();
                let read = std::fs::read(&path).unwrap();
                assert_eq!(read.len() as u64, bytes);
                assert!(read.iter().all(|&byte| byte == 0));
            }
        }
    }
}
