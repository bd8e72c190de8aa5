//! The tail of a writer: its records that are not in its journal file yet, in memory that outlives the process. The memory
//! is a mapped file, so taking a record in is a copy and no call of the kernel; what a killed process leaves there is read
//! as if it stood in the journal file. It is never synced: for the loss of power there are the journal files alone.
//!
//! Each record stands here as a frame and, behind it, its place: the number of the file, the offset in it, and a check over
//! both and the frame's length, all little endian. So a record that was overtaken (it is in its file by now) does no harm,
//! and needs not be removed: it says the same as its file. In front of all records stands how far those go that wait: what
//! is no record before that point is damage.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{Ordering, compiler_fence};

use mmap_io::{MemoryMappedFile, MmapIoError};

use super::disk::Disk;
use super::frame::{self, FileId};
use crate::ports::journal::Damage;

/// The file's length. Holds what may wait for the journal file in the smallest records there are, each with its place.
const TAIL_BYTES: u64 = 128 * 1024;
/// What an ended run leaves of it that has stopped in order: all that it held is in its files.
const IN_ORDER: &[u8] = b"in order";
/// The length of what stands in front of the records: how far they go, and its check.
const FRONT_BYTES: usize = 8;
/// A place's length.
const PLACE_BYTES: usize = 16;
/// Part of each check, so that zeros are none.
const CHECK: u32 = u32::from_le_bytes(*b"tail");

/// The tail of a writer that goes on.
pub(super) struct Tail {
    map: MemoryMappedFile,
    /// Where the next record goes.
    end: usize,
}

/// A record of a tail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// In which file of its writer it belongs.
    sequence: u32,
    /// Where.
    offset: u64,
    frame: Vec<u8>,
}

/// What a writer has left in its tail.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Whether the tail is there.
    pub(super) found: bool,
    /// Its records that are whole.
    pieces: Vec<Piece>,
    /// What is wrong with the rest.
    pub(super) damage: Damage,
}

/// The file's name in the run's directory.
pub(super) fn name(writer: u16) -> String {
    format!("{writer:02}.tail")
}

fn front(end: usize) -> [u8; FRONT_BYTES] {
    let end = end as u32; // at most `TAIL_BYTES`
    (u64::from(end) | u64::from(end ^ CHECK) << 32).to_le_bytes()
}

fn place_of(sequence: u32, offset: u64, length: usize) -> [u8; PLACE_BYTES] {
    let [low, high] = [offset as u32, (offset >> 32) as u32]; // both halves are there
    let check = CHECK ^ sequence ^ low.rotate_left(11) ^ high.rotate_left(22) ^ length as u32; // a frame has 64 KiB
    (u128::from(sequence) | u128::from(offset) << 32 | u128::from(check) << 96).to_le_bytes()
}

impl Tail {
    /// Makes an empty one. Its space is allocated, so that no copy into it can fail for want of it.
    pub(super) fn make(path: &Path, disk: &dyn Disk) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        disk.allocate(&file, TAIL_BYTES)?;
        let map = MemoryMappedFile::open_rw(path).map_err(|error| {
            let kind = if let MmapIoError::Io(error) = &error { error.kind() } else { io::ErrorKind::Other };
            io::Error::new(kind, format!("{} cannot be mapped: {error}", path.display()))
        })?;
        let mut tail = Self { map, end: 0 };
        tail.clear()?;
        Ok(tail)
    }

    /// Takes in a frame that is to stand in a file at an offset. It survives the death of the process when this returns.
    pub(super) fn put(&mut self, (sequence, offset): (u32, u64), frame: &[u8]) -> io::Result<()> {
        let end = self.end + frame.len() + PLACE_BYTES;
        let mut bytes = self.map.as_slice_mut(0, end as u64).map_err(io::Error::other)?;
        let (before, room) = bytes.split_at_mut(self.end);
        let (to, place) = room.split_at_mut(frame.len());
        to.copy_from_slice(frame);
        place.copy_from_slice(&place_of(sequence, offset, frame.len()));
        // The record first, in the machine's order, too: what is said to be there is there.
        compiler_fence(Ordering::Release);
        if let Some(first) = before.first_chunk_mut() {
            *first = front(end);
        }
        self.end = end;
        Ok(())
    }

    /// Lets nothing be found of a record of this length behind the last one.
    pub(super) fn erase_behind(&mut self, frame_bytes: usize) {
        let bytes = (frame_bytes + PLACE_BYTES) as u64;
        let at = self.end as u64;
        if let Ok(mut room) = self.map.as_slice_mut(at, bytes.min(TAIL_BYTES - at)) {
            room.fill(0);
        }
    }

    /// All that was taken in is in its file: the next records may go over it.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.map.update_region(0, &front(FRONT_BYTES)).map_err(io::Error::other)?;
        self.end = FRONT_BYTES;
        Ok(())
    }
}

/// The record at the start of some bytes, with its place.
fn piece(bytes: &[u8]) -> Option<Piece> {
    let (frame, rest) = bytes.split_at_checked(frame::length(bytes)?)?;
    let place = rest.first_chunk::<PLACE_BYTES>()?;
    let (sequence, rest) = place.split_first_chunk()?;
    let (offset, _) = rest.split_first_chunk()?;
    let (sequence, offset) = (u32::from_le_bytes(*sequence), u64::from_le_bytes(*offset));
    let whole = *place == place_of(sequence, offset, frame.len()) && frame::is_whole(frame);
    whole.then(|| Piece { sequence, offset, frame: frame.to_vec() })
}

/// How far the records go that wait; `None` if it does not say so.
fn waiting(bytes: &[u8]) -> Option<usize> {
    let first = bytes.first_chunk::<FRONT_BYTES>()?;
    let end = usize::try_from(u32::from_le_bytes(*first.first_chunk()?)).ok()?;
    (*first == front(end) && bytes.len() as u64 == TAIL_BYTES).then_some(end)
}

impl Left {
    /// Looks what is in a tail; of one that is being written what is whole. One that is not there has nothing.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Self::of(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    fn of(bytes: &[u8]) -> Self {
        let mut left = Self { found: true, ..Self::default() };
        if bytes == IN_ORDER {
            return left;
        }
        let end = waiting(bytes);
        left.damage.missing_files = u64::from(end.is_none()); // nobody knows what was in it
        let (end, mut at) = (end.unwrap_or_default(), FRONT_BYTES);
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            at += match piece(rest) {
                Some(piece) => {
                    let length = piece.frame.len() + PLACE_BYTES;
                    left.pieces.push(piece);
                    length
                }
                None if at < end => {
                    left.damage.bytes += 1;
                    1
                }
                None => frame::zeros_in_front(rest).saturating_sub(3).max(1), // a length may begin with three zeros
            };
        }
        left
    }

    /// What belongs into a file: to be read before the file, for what leaves the tail is in the file.
    pub(super) fn of_file(&self, sequence: u32) -> Vec<Piece> {
        self.pieces.iter().filter(|piece| piece.sequence == sequence).cloned().collect()
    }
}

/// Lays pieces over what a file holds from an offset on. They only fill what is zero: what is in the file says the same,
/// or was changed since.
pub(super) fn lay_over(bytes: &mut [u8], at: u64, pieces: &[Piece]) {
    for piece in pieces {
        let skipped = at.saturating_sub(piece.offset);
        let into = piece.offset.saturating_sub(at);
        let (Ok(skipped), Ok(into)) = (usize::try_from(skipped), usize::try_from(into)) else { continue };
        let from = piece.frame.get(skipped..).unwrap_or_default();
        let to = bytes.get_mut(into..).unwrap_or_default();
        to.iter_mut().zip(from).filter(|(byte, _)| **byte == 0).for_each(|(byte, from)| *byte = *from);
    }
}

impl Piece {
    /// Where it stands in its file.
    pub(super) fn range(&self) -> std::ops::Range<u64> {
        self.offset..self.offset + self.frame.len() as u64
    }
}

/// Writes what a writer has left in its tail into its files, and removes the tail. Its run has ended, or is believed to
/// have: whoever has it mapped still keeps it, so it is not cut.
pub(super) fn fold(dir: &Path, writer: u16) -> io::Result<()> {
    let mut files: Vec<(u32, File)> = Vec::new();
    let path = dir.join(name(writer));
    for piece in Left::read(&path)?.pieces {
        if files.last().is_none_or(|(sequence, _)| *sequence != piece.sequence) {
            let id = FileId { writer, sequence: piece.sequence };
            match OpenOptions::new().read(true).write(true).open(dir.join(id.name())) {
                Ok(file) => files.push((piece.sequence, file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // removed, or lost
                Err(error) => return Err(error),
            }
        }
        let Some((_, file)) = files.last() else { continue };
        let mut bytes = vec![0; piece.frame.len()];
        match file.read_exact_at(&mut bytes, piece.offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue, // it was cut
            read => read?,
        }
        lay_over(&mut bytes, piece.offset, std::slice::from_ref(&piece));
        file.write_all_at(&bytes, piece.offset)?;
    }
    for (_, file) in &files {
        file.sync_data()?;
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()), // there is none of an earlier version
    }
}

/// Says that all is in the files. For a writer that has stopped, and holds its tail no more.
pub(super) fn end_in_order(dir: &Path, writer: u16) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(dir.join(name(writer)))?;
    file.write_all(IN_ORDER)?;
    file.sync_all()
}
