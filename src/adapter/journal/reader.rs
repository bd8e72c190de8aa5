//! Reads the records of one run. Damage costs the records that it hit, never those behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::data_dir;
use super::disk::data_ranges;
use super::frame::{self, FRAME_BYTES_MAX, FileId, HEADER_BYTES};
use super::tail::{self, Left, Piece};
use crate::ports::journal::{Damage, Record};

/// Says which files of a run were removed on purpose.
pub(super) const REMOVED: &str = "removed.json";

/// How much of a file is in memory at most: files may have a gigabyte, and several large ones would strain a small host.
const WINDOW_BYTES: usize = 1024 * 1024;

/// Which records of a run are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Wanted<'a> {
    /// Of one writer alone.
    pub(super) only: Option<u16>,
    /// Not from files before these, by writer.
    pub(super) from: Option<&'a BTreeMap<u16, u32>>,
    /// Whether the run may still be written. Then the file that is written last is read up to its
    /// first gap: what lies beyond may be the later half of something whose first half is on its way.
    pub(super) live: bool,
    /// Of such a run only what stands in its files: what is in a tail may yet get another place, if the disk fails.
    pub(super) filed: bool,
}

/// Where a record ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// In which file.
    pub(super) file: FileId,
    /// The offset behind it.
    pub(super) end: u64,
}

/// Shows the wanted records of a run, writer by writer, file by file. Errors name the file.
pub(super) fn read_run(dir: &Path, wanted: Wanted<'_>, each: &mut dyn FnMut(Place, Record)) -> Result<Damage, String> {
    let named = |path: &Path, error: io::Error| format!("{} cannot be read: {error}", path.display());
    let removed = removed(dir).map_err(|error| named(dir, error))?;
    let mut damage = Damage { removed_files: removed.values().map(|last| u64::from(*last)).sum(), ..Damage::default() };
    let mut files = files(dir).map_err(|error| named(dir, error))?;
    let from = |writer: u16| wanted.from.and_then(|from| from.get(&writer)).copied().unwrap_or(1);
    files.retain(|id| wanted.only.is_none_or(|only| id.writer == only) && id.sequence >= from(id.writer));
    let last = if wanted.live { last_written(dir, &files) } else { BTreeMap::new() };
    let newest: BTreeMap<u16, u32> = files.iter().map(|id| (id.writer, id.sequence)).collect();
    let mut before: Option<FileId> = None;
    let mut left = (None, Left::default());
    for id in files {
        let last = last.get(&id.writer).copied();
        if wanted.live && last.is_none_or(|last| id.sequence > last) {
            continue; // nothing was in it when it was looked at
        }
        let first = removed.get(&id.writer).map_or(1, |last| last.saturating_add(1)).max(from(id.writer));
        let expected = before.filter(|before| before.writer == id.writer).map_or(first, |before| before.sequence + 1);
        damage.missing_files += u64::from(id.sequence.saturating_sub(expected));
        before = Some(id);
        if left.0 != Some(id.writer) {
            // Before the files: what leaves the tail meanwhile is there.
            let path = dir.join(tail::name(id.writer));
            left = (Some(id.writer), Left::read(&path).map_err(|error| named(&path, error))?);
            if !wanted.live {
                damage.add(left.1.damage); // of one that is being written parts are seen
            }
        }
        let to_gap = last == Some(id.sequence);
        let begun = newest.get(&id.writer) > Some(&id.sequence);
        let pieces = if wanted.live && wanted.filed { Vec::new() } else { left.1.of_file(id.sequence) };
        let path = dir.join(id.name());
        let read = read_file(&path, (id, begun), (to_gap, pieces), each).map_err(|error| named(&path, error))?;
        damage.bytes += read.damaged;
        // Nobody knows what was in it. That of a settled run was written into its files.
        let lacks_tail = !begun && read.has_tail && !left.1.found && !data_dir::is_settled(dir);
        damage.missing_files += u64::from(lacks_tail);
    }
    Ok(damage)
}

/// The last file of each writer that has a record. Those before it are not written any more.
pub(super) fn last_written(dir: &Path, files: &BTreeSet<FileId>) -> BTreeMap<u16, u32> {
    let has_record = |id: &&FileId| begins_with_record(dir, **id).unwrap_or(false);
    files.iter().filter(has_record).map(|id| (id.writer, id.sequence)).collect()
}

fn begins_with_record(dir: &Path, id: FileId) -> io::Result<bool> {
    let path = dir.join(id.name());
    let mut window = Window::open(&path, true, Vec::new())?;
    if !window.look()?.get(..HEADER_BYTES).is_some_and(|header| id.is_header(header)) {
        return Ok(false);
    }
    window.skip(HEADER_BYTES);
    if frame::decode(window.look()?).is_some() {
        return Ok(true);
    }
    Ok(pieces_of(dir, id)?.iter().any(|piece| piece.range().start == HEADER_BYTES as u64))
}

/// The journal files of a run, writer by writer, in order; without those that were removed because nobody needs them.
pub(super) fn files(dir: &Path) -> io::Result<BTreeSet<FileId>> {
    let removed = removed(dir)?;
    let mut files = all_files(dir)?;
    files.retain(|id| removed.get(&id.writer).is_none_or(|last| id.sequence > *last));
    Ok(files)
}

/// Also those whose removal was interrupted.
pub(super) fn all_files(dir: &Path) -> io::Result<BTreeSet<FileId>> {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(dir)? {
        files.extend(entry?.file_name().to_str().and_then(FileId::from_name));
    }
    Ok(files)
}

/// Up to which number each writer's files were removed on purpose: they are not missing.
pub(super) fn removed(dir: &Path) -> io::Result<BTreeMap<u16, u32>> {
    match std::fs::read(dir.join(REMOVED)) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

/// What reading a file has shown besides its records.
struct FileRead {
    /// Bytes that are none, other than the zeros at its end.
    damaged: u64,
    /// Whether its writer has a tail.
    has_tail: bool,
}

/// Shows a file's records. One that was `begun` had a header: a newer one was made after it.
fn read_file(
    path: &Path,
    (id, begun): (FileId, bool),
    (to_gap, pieces): (bool, Vec<Piece>),
    each: &mut dyn FnMut(Place, Record),
) -> io::Result<FileRead> {
    let mut window = Window::open(path, to_gap, pieces)?;
    let cut_off = window.cut_off()?;
    let header = window.look()?.get(..HEADER_BYTES).unwrap_or_default();
    if id.is_newer(header) {
        return Err(io::Error::other("a newer version of this program wrote it"));
    }
    let mut read = FileRead { damaged: cut_off, has_tail: id.has_tail(header) };
    if id.is_header(header) {
        window.skip(HEADER_BYTES);
    } else if begun {
        read.damaged += HEADER_BYTES as u64;
    }
    let mut unclear = 0; // bytes since the last frame
    let mut meant = 0; // of these, up to the last that is not zero
    loop {
        let bytes = window.look()?;
        let Some(first) = bytes.first() else {
            read.damaged += meant;
            return Ok(read);
        };
        // No client can forge a frame inside a damaged one: what clients choose holds no control characters and is not
        // followed by two zeros, and a length that is made of other characters is too large.
        if let Some((records, length)) = frame::decode(bytes) {
            window.skip(length);
            let place = Place { file: id, end: window.offset() };
            records.into_iter().for_each(|record| each(place, record));
            read.damaged += unclear;
            (unclear, meant) = (0, 0);
            continue;
        }
        if to_gap {
            return Ok(read);
        }
        // A frame's length may begin with up to three zeros, so that many are looked at again.
        let zeros = frame::zeros_in_front(bytes);
        let passed = zeros.saturating_sub(3).max(1);
        let only_zeros = zeros == bytes.len();
        unclear += passed as u64;
        if *first != 0 {
            meant = unclear;
        }
        window.skip(passed);
        if only_zeros {
            unclear += window.skip_hole();
        }
    }
}

/// Shows the records of a file from an offset on, each with that of its frame, until `each` breaks off: after the rest
/// of a frame. Of a file that is still
/// growing only up to the first byte that is no record. Returns where to go on, and whether all was shown.
pub(super) fn scan(
    dir: &Path,
    (id, from): (FileId, u64),
    growing: bool,
    each: &mut dyn FnMut(u64, Record) -> ControlFlow<()>,
) -> io::Result<(u64, bool)> {
    let mut window = Window::open(&dir.join(id.name()), growing, pieces_of(dir, id)?)?;
    window.base = from;
    if from == 0 && window.look()?.get(..HEADER_BYTES).is_some_and(|header| id.is_header(header)) {
        window.skip(HEADER_BYTES);
    }
    loop {
        let at = window.offset();
        let bytes = window.look()?;
        if bytes.is_empty() {
            return Ok((at, true));
        }
        let mut only_zeros = false;
        let passed = match frame::decode(bytes) {
            Some((records, length)) => {
                let more: Vec<_> = records.into_iter().map(|record| each(at, record)).collect();
                if more.contains(&ControlFlow::Break(())) {
                    return Ok((at + length as u64, false));
                }
                length
            }
            None if growing => return Ok((at, true)),
            None => {
                let zeros = frame::zeros_in_front(bytes);
                only_zeros = zeros == bytes.len();
                zeros.saturating_sub(3).max(1) // as above
            }
        };
        window.skip(passed);
        if only_zeros {
            window.skip_hole();
        }
    }
}

/// What a writer's tail holds of one of its files: to be read before the file.
fn pieces_of(dir: &Path, id: FileId) -> io::Result<Vec<Piece>> {
    Ok(Left::read(&dir.join(tail::name(id.writer)))?.of_file(id.sequence))
}

/// The records that stand at an offset, if any do.
pub(super) fn records_at(dir: &Path, (id, offset): (FileId, u64)) -> io::Result<Vec<Record>> {
    let mut window = Window::open(&dir.join(id.name()), true, pieces_of(dir, id)?)?;
    window.base = offset;
    Ok(frame::decode(window.look()?).map(|(records, _)| records).unwrap_or_default())
}

/// A file's bytes from some point on, as far as they are in memory.
struct Window {
    file: File,
    /// What its writer's tail holds of it.
    pieces: Vec<Piece>,
    bytes: Vec<u8>,
    start: usize,
    /// Where `bytes` begin in the file.
    base: u64,
    /// How much is read next: more and more, since most files that a killed process leaves end soon.
    step: usize,
    /// How much is read at a time at most.
    step_max: usize,
    ended: bool,
    /// Where data is, as it was before anything was read, and up to where that is known.
    data: Vec<Range<u64>>,
    known: u64,
}

impl Window {
    /// Of a file that a gateway may still write to, little is read beyond what is needed, and the kernel reads nothing
    /// ahead: it would fill its memory of the file in pieces of up to 2 MiB, and each small write into such a piece then
    /// costs the gateway some 20 µs (ext4 walks through all blocks of the piece). Of others the parts that were never
    /// written are not read.
    fn open(path: &Path, growing: bool, pieces: Vec<Piece>) -> io::Result<Self> {
        let file = File::open(path)?;
        let (mut data, mut known) = (Vec::new(), 0);
        if growing {
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random); // advice is all it is
        } else {
            // Some file systems tell data from zeros by what is on disk. One that can only be read has it there.
            let _ = file.sync_data();
            known = file.metadata()?.len();
            data = data_ranges(&file, known);
            // What the tail holds may lie where nothing was ever written.
            data.extend(pieces.iter().map(Piece::range).filter(|range| range.end <= known));
            data.sort_by_key(|range| range.start);
        }
        let step_max = if growing { FRAME_BYTES_MAX } else { WINDOW_BYTES };
        let (bytes, step) = (Vec::new(), FRAME_BYTES_MAX);
        Ok(Self { file, pieces, bytes, start: 0, base: 0, step, step_max, ended: false, data, known })
    }

    /// How many bytes belong into the file that it is too short for.
    fn cut_off(&self) -> io::Result<u64> {
        let length = self.file.metadata()?.len();
        let beyond = self.pieces.iter().map(Piece::range).filter(|range| range.end > length);
        Ok(beyond.map(|range| range.end - range.start.max(length)).sum())
    }

    /// How much of the file is passed.
    fn offset(&self) -> u64 {
        self.base + self.start as u64
    }

    /// Where the bytes end that are in memory.
    fn read_to(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// Up to where there are only zeros that were never written; the offset itself if there are none.
    fn hole_end(&self, at: u64) -> u64 {
        match self.data.iter().find(|data| data.end > at) {
            Some(data) => data.start.max(at),
            None => self.known.max(at),
        }
    }

    /// Up to where data goes.
    fn data_end(&self, at: u64) -> u64 {
        self.data.iter().find(|data| data.contains(&at)).map_or(u64::MAX, |data| data.end)
    }

    /// What comes next: at least the largest frame, or all that is left.
    fn look(&mut self) -> io::Result<&[u8]> {
        while self.bytes.len() - self.start < FRAME_BYTES_MAX && !self.ended {
            self.base += self.start as u64;
            self.bytes.drain(..self.start);
            self.start = 0;
            let (at, old) = (self.read_to(), self.bytes.len());
            let zeros = self.hole_end(at) - at;
            if zeros > 0 {
                let zeros = usize::try_from(zeros).unwrap_or(FRAME_BYTES_MAX).min(FRAME_BYTES_MAX);
                self.bytes.resize(old + zeros, 0);
                continue;
            }
            let step = usize::try_from(self.data_end(at) - at).unwrap_or(self.step).min(self.step);
            self.bytes.resize(old + step, 0);
            let read = read_at(&self.file, self.bytes.get_mut(old..).unwrap_or_default(), at)?;
            self.bytes.truncate(old + read);
            tail::lay_over(self.bytes.get_mut(old..).unwrap_or_default(), at, &self.pieces);
            self.ended = read < step;
            self.step = self.step.saturating_mul(2).min(self.step_max);
        }
        Ok(self.bytes.get(self.start..).unwrap_or_default())
    }

    fn skip(&mut self, bytes: usize) {
        self.start += bytes;
    }

    /// Where nothing but zeros is in memory and more of them follow that were never written, goes on shortly before what
    /// comes behind them; tells how many bytes were passed.
    fn skip_hole(&mut self) -> u64 {
        let end = self.hole_end(self.read_to());
        // A frame may begin with three zeros.
        let passed = end.saturating_sub(3).saturating_sub(self.offset());
        if end == self.read_to() || passed == 0 {
            return 0;
        }
        self.base = self.offset() + passed;
        self.start = 0;
        self.bytes.clear();
        self.step = FRAME_BYTES_MAX;
        passed
    }
}

/// Reads as much as there is.
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_written_is_passed_without_being_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("file")).unwrap();
        let (length, data) = (64 * WINDOW_BYTES as u64, 48 * WINDOW_BYTES as u64);
        file.set_len(length).unwrap();
        let tells = data_ranges(&file, length).is_empty();
        file.write_all_at(&[7; 100], data).unwrap();
        let mut window = Window::open(&dir.path().join("file"), false, Vec::new()).unwrap();
        let zeros = window.look().unwrap().len();
        window.skip(zeros);
        let passed = window.skip_hole();
        assert!(window.offset() <= data - 3 && (!tells || window.offset() == data - 3), "{}", window.offset());
        assert_eq!(passed, window.offset() - zeros as u64);
        while window.offset() < data {
            assert_eq!(window.look().unwrap()[0], 0);
            window.skip(1);
        }
        assert!(window.look().unwrap().starts_with(&[7; 100]));
    }

    #[test]
    fn of_a_growing_file_little_is_read_that_nobody_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![0; 4 * WINDOW_BYTES]).unwrap();
        for (growing, second) in [(true, FRAME_BYTES_MAX), (false, 2 * FRAME_BYTES_MAX)] {
            let mut window = Window::open(&path, growing, Vec::new()).unwrap();
            assert_eq!(window.look().unwrap().len(), FRAME_BYTES_MAX);
            window.skip(1);
            assert_eq!(window.look().unwrap().len(), FRAME_BYTES_MAX - 1 + second, "growing: {growing}");
            assert_eq!(window.read_to(), (FRAME_BYTES_MAX + second) as u64);
        }
    }
}
