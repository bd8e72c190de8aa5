//! One part of the index of a journal file, as a file beside it: which offsets hold records with which key. Written once,
//! whole, by its name; what is damaged is made again.
//!
//! ```text
//! magic 8 · the offset in the journal file up to which it tells, u64 · 1 if the journal file ends there, u32
//! · entries, u32 · for each first byte of a key how many entries lie up to its end, 256 × u32
//! · entries by key: key u32, offset u32        (all little endian)
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::super::data_dir;
use super::super::frame::FileId;

/// Entries of one part, at most: what is held in memory until they are written.
pub(super) const ENTRIES_MAX: usize = 1 << 18;
const MAGIC: &[u8; 8] = b"tollidx1";
const FAN: usize = 256;
const FAN_AT: usize = 8 + 8 + 4 + 4;
const ENTRIES_AT: usize = FAN_AT + FAN * 4;
const ENTRY: usize = 8;
const ENDING: &str = ".index";

/// A key and where in the journal file a record with it begins.
pub(super) type Entry = (u32, u32);

/// The name of a part of a journal file's index.
pub(super) fn path(dir: &Path, file: FileId, part: u32) -> PathBuf {
    dir.join(format!("{:02}-{:06}.{part}{ENDING}", file.writer, file.sequence))
}

/// The journal file that a name is a part of the index of.
pub(in super::super) fn file_of(name: &str) -> Option<FileId> {
    let (stem, _) = name.strip_suffix(ENDING)?.split_once('.')?;
    FileId::from_name(&format!("{stem}.journal"))
}

/// Writes a part.
pub(super) fn write(path: &Path, entries: &mut [Entry], (upto, last): (u64, bool)) -> io::Result<()> {
    entries.sort_unstable();
    let mut fan = [0_u32; FAN];
    for (key, _) in entries.iter() {
        if let Some(count) = fan.get_mut(usize::from(first_byte(*key))) {
            *count += 1; // far from 2^32: there are at most `ENTRIES_MAX` and a few
        }
    }
    let count = u32::try_from(entries.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(ENTRIES_AT + entries.len() * ENTRY);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&upto.to_le_bytes());
    bytes.extend_from_slice(&u32::from(last).to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    let mut sum = 0_u32;
    for count in fan {
        sum += count;
        bytes.extend_from_slice(&sum.to_le_bytes());
    }
    for (key, offset) in entries.iter() {
        bytes.extend_from_slice(&key.to_le_bytes());
        bytes.extend_from_slice(&offset.to_le_bytes());
    }
    data_dir::replace(path, &bytes)
}

/// What a part tells: up to which offset, and whether the journal file ends there. `None`: there is no whole part.
pub(super) fn read_head(path: &Path) -> io::Result<Option<(u64, bool)>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    let mut head = [0; FAN_AT];
    if length < ENTRIES_AT as u64 {
        return Ok(None);
    }
    file.read_exact_at(&mut head, 0)?;
    let (magic, rest) = head.split_at(MAGIC.len());
    let count = u64::from(u32_at(rest, 12).unwrap_or_default());
    let whole = magic == MAGIC && length == ENTRIES_AT as u64 + count * ENTRY as u64;
    let upto = rest.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    Ok(whole.then_some((upto, u32_at(rest, 8) == Some(1))))
}

/// The offsets of records with a key, in order.
pub(super) fn find(path: &Path, key: u32) -> io::Result<Vec<u32>> {
    let file = File::open(path)?;
    let first = u64::from(first_byte(key));
    let mut ends = [0; 8]; // where the byte's entries begin and end
    let from = if first == 0 { 0 } else { first - 1 };
    file.read_exact_at(&mut ends, FAN_AT as u64 + from * 4)?;
    let (a, b) = (u32_at(&ends, 0).unwrap_or_default(), u32_at(&ends, 4).unwrap_or_default());
    let (begin, end) = if first == 0 { (0, a) } else { (a, b) };
    let count = usize::try_from(end.saturating_sub(begin)).map_err(io::Error::other)?;
    let mut bytes = vec![0; count.min(ENTRIES_MAX * 2) * ENTRY];
    file.read_exact_at(&mut bytes, ENTRIES_AT as u64 + u64::from(begin) * ENTRY as u64)?;
    let entries = bytes.chunks_exact(ENTRY);
    Ok(entries.filter(|entry| u32_at(entry, 0) == Some(key)).filter_map(|entry| u32_at(entry, 4)).collect())
}

fn first_byte(key: u32) -> u8 {
    let [first, ..] = key.to_be_bytes();
    first
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path(), FileId { writer: 1, sequence: 3 }, 0);
        assert_eq!(path.file_name().unwrap(), "01-000003.0.index");
        assert_eq!(file_of("01-000003.0.index"), Some(FileId { writer: 1, sequence: 3 }));
        assert_eq!(read_head(&path).unwrap(), None);
        let key = |number: u32| number.wrapping_mul(0x9e37_79b1);
        let mut entries: Vec<Entry> = (0..5_000).map(|number| (key(number), number)).collect();
        entries.extend([(key(7), 9_000), (0, 1), (u32::MAX, 2)]);
        write(&path, &mut entries, (77, true)).unwrap();
        assert_eq!(read_head(&path).unwrap(), Some((77, true)));
        for number in 1..5_000 {
            let expected = if number == 7 { vec![7, 9_000] } else { vec![number] };
            assert_eq!(find(&path, key(number)).unwrap(), expected);
        }
        assert_eq!(find(&path, 0).unwrap(), [0, 1]);
        assert_eq!(find(&path, u32::MAX).unwrap(), [2]);
        assert!(find(&path, key(5_001)).unwrap().is_empty());
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(2_000).unwrap();
        assert_eq!(read_head(&path).unwrap(), None, "a cut part is none");
    }
}
