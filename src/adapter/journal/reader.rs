//! Reads the records of one run. Damage costs the records that it hit, never those behind them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::Path;

use super::frame::{self, FRAME_BYTES_MAX, FileId, HEADER_BYTES};
use crate::ports::journal::{Damage, Record};

/// How much of a file is in memory: files may have a gigabyte, and several large ones would strain a small host.
const WINDOW_BYTES: usize = 1024 * 1024;

/// Shows all records of a run, or those of one writer, writer by writer, file by file. Errors name the file.
pub(super) fn read_run(dir: &Path, only: Option<u16>, each: &mut dyn FnMut(u16, Record)) -> Result<Damage, String> {
    let named = |path: &Path, error: io::Error| format!("{} cannot be read: {error}", path.display());
    let mut damage = Damage::default();
    let mut before: Option<FileId> = None;
    let files = files(dir).map_err(|error| named(dir, error))?;
    for id in files.into_iter().filter(|id| only.is_none_or(|only| id.writer == only)) {
        let expected = before.filter(|before| before.writer == id.writer).map_or(1, |before| before.sequence + 1);
        damage.missing_files += u64::from(id.sequence.saturating_sub(expected));
        before = Some(id);
        let path = dir.join(id.name());
        damage.bytes +=
            read_file(&path, id, &mut |record| each(id.writer, record)).map_err(|error| named(&path, error))?;
    }
    Ok(damage)
}

/// The journal files of a run, writer by writer, in order.
pub(super) fn files(dir: &Path) -> io::Result<BTreeSet<FileId>> {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(dir)? {
        files.extend(entry?.file_name().to_str().and_then(FileId::from_name));
    }
    Ok(files)
}

/// Shows a file's records and counts the bytes that are none, other than the zeros at its end.
fn read_file(path: &Path, id: FileId, each: &mut dyn FnMut(Record)) -> io::Result<u64> {
    let mut window = Window { file: File::open(path)?, bytes: Vec::new(), start: 0, ended: false };
    let header = window.look()?.get(..HEADER_BYTES).unwrap_or_default();
    if id.is_newer(header) {
        return Err(io::Error::other("a newer version of this program wrote it"));
    }
    if id.is_header(header) {
        window.skip(HEADER_BYTES);
    }
    let mut damaged = 0;
    let mut unclear = 0; // bytes since the last frame
    let mut meant = 0; // of these, up to the last that is not zero
    loop {
        let bytes = window.look()?;
        let Some(first) = bytes.first() else { return Ok(damaged + meant) };
        // No client can forge a frame inside a damaged one: what clients choose holds no control characters and is not
        // followed by two zeros, and a length that is made of other characters is too large.
        if let Some((record, length)) = frame::decode(bytes) {
            each(record);
            window.skip(length);
            damaged += unclear;
            (unclear, meant) = (0, 0);
            continue;
        }
        // A frame's length may begin with up to three zeros, so that many are looked at again.
        let zeros = zeros_in_front(bytes);
        let passed = zeros.saturating_sub(3).max(1);
        unclear += passed as u64;
        if *first != 0 {
            meant = unclear;
        }
        window.skip(passed);
    }
}

/// Shows the records of a file from an offset on, each with its own, until `each` breaks off. Of a file that is still
/// growing only up to the first byte that is no record. Returns where to go on, and whether all was shown.
pub(super) fn scan(
    path: &Path,
    (id, from): (FileId, u64),
    growing: bool,
    each: &mut dyn FnMut(u64, Record) -> ControlFlow<()>,
) -> io::Result<(u64, bool)> {
    let mut file = File::open(path)?;
    let mut at = file.seek(SeekFrom::Start(from))?;
    let mut window = Window { file, bytes: Vec::new(), start: 0, ended: false };
    if at == 0 && window.look()?.get(..HEADER_BYTES).is_some_and(|header| id.is_header(header)) {
        window.skip(HEADER_BYTES);
        at += HEADER_BYTES as u64;
    }
    loop {
        let bytes = window.look()?;
        if bytes.is_empty() {
            return Ok((at, true));
        }
        let passed = match frame::decode(bytes) {
            Some((record, length)) => {
                let more = each(at, record);
                if more.is_break() {
                    return Ok((at + length as u64, false));
                }
                length
            }
            None if growing => return Ok((at, true)),
            None => zeros_in_front(bytes).saturating_sub(3).max(1), // as above
        };
        window.skip(passed);
        at += passed as u64;
    }
}

/// How many zeros stand at the front. Most of an unfinished file is zeros: whole blocks are compared at once.
fn zeros_in_front(bytes: &[u8]) -> usize {
    const BLOCK: [u8; 4096] = [0; 4096];
    let whole = bytes.chunks(BLOCK.len()).take_while(|chunk| BLOCK.starts_with(chunk));
    let blocks: usize = whole.map(<[u8]>::len).sum();
    let rest = bytes.get(blocks..).unwrap_or_default();
    blocks + rest.iter().take_while(|&&byte| byte == 0).count()
}

/// A file's bytes from some point on, as far as they are in memory.
struct Window {
    file: File,
    bytes: Vec<u8>,
    start: usize,
    ended: bool,
}

impl Window {
    /// What comes next: at least the largest frame, or all that is left.
    fn look(&mut self) -> io::Result<&[u8]> {
        if self.bytes.len() - self.start < FRAME_BYTES_MAX && !self.ended {
            self.bytes.drain(..self.start);
            self.start = 0;
            let read = (&mut self.file).take(WINDOW_BYTES as u64).read_to_end(&mut self.bytes)?;
            self.ended = read < WINDOW_BYTES;
        }
        Ok(self.bytes.get(self.start..).unwrap_or_default())
    }

    fn skip(&mut self, bytes: usize) {
        self.start += bytes;
    }
}
