//! The tail of a writer: its records that are not in its journal file yet, in memory that outlives the process. The memory
//! is a mapped file, so taking a record in is a copy and no call of the kernel; what a killed process leaves there is read
//! as if it stood in the journal file. It is never synced: for the loss of power there are the journal files alone.
//!
//! Each record stands here as a frame and, behind it, its place: the number of the file, the offset in it, and a check over
//! both and the frame's length, all little endian. So a record that was overtaken (it is in its file by now) does no harm,
//! and needs not be removed: it says the same as its file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use mmap_io::{MemoryMappedFile, MmapIoError};

use super::disk::Disk;
use super::frame::{self, FileId};

/// The file's length. Holds what may wait for the journal file in the smallest records there are, each with its place.
const TAIL_BYTES: u64 = 128 * 1024;
/// A place's length.
const PLACE_BYTES: usize = 16;
/// Part of each place's check, so that zeros are none.
const CHECK: u32 = u32::from_le_bytes(*b"tail");

/// The tail of a writer that goes on.
pub(super) struct Tail {
    map: MemoryMappedFile,
    /// Where the next record goes.
    end: u64,
}

/// A record of a tail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// In which file of its writer it belongs.
    sequence: u32,
    /// Where.
    offset: u64,
    /// Its frame, which may be damaged.
    frame: Vec<u8>,
}

/// The file's name in the run's directory.
pub(super) fn name(writer: u16) -> String {
    format!("{writer:02}.tail")
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
        Ok(Self { map, end: 0 })
    }

    /// Takes in a frame that is to stand in a file at an offset. It survives the death of the process when this returns.
    pub(super) fn put(&mut self, (sequence, offset): (u32, u64), frame: &[u8]) -> io::Result<()> {
        let bytes = frame.len() + PLACE_BYTES;
        let mut room = self.map.as_slice_mut(self.end, bytes as u64).map_err(io::Error::other)?;
        let (to, place) = room.split_at_mut(frame.len());
        to.copy_from_slice(frame);
        place.copy_from_slice(&place_of(sequence, offset, frame.len()));
        drop(room);
        self.end += bytes as u64;
        Ok(())
    }

    /// Lets nothing be found of a record of this length behind the last one.
    pub(super) fn erase_behind(&mut self, frame_bytes: usize) {
        let bytes = (frame_bytes + PLACE_BYTES) as u64;
        let room = self.map.as_slice_mut(self.end, bytes.min(TAIL_BYTES - self.end));
        if let Ok(mut room) = room {
            room.fill(0);
        }
    }

    /// All that was taken in is in its file: the next records may go over it.
    pub(super) fn clear(&mut self) {
        self.end = 0;
    }
}

fn place_of(sequence: u32, offset: u64, length: usize) -> [u8; PLACE_BYTES] {
    let [low, high] = [offset as u32, (offset >> 32) as u32]; // both halves are there
    let check = CHECK ^ sequence ^ low.rotate_left(11) ^ high.rotate_left(22) ^ length as u32; // a frame has 64 KiB
    (u128::from(sequence) | u128::from(offset) << 32 | u128::from(check) << 96).to_le_bytes()
}

/// The frame at the start of some bytes, with its place.
fn piece(bytes: &[u8]) -> Option<Piece> {
    let length = frame::length(bytes)?;
    let (frame, rest) = bytes.split_at_checked(length)?;
    let place = rest.first_chunk::<PLACE_BYTES>()?;
    let (sequence, rest) = place.split_first_chunk()?;
    let (offset, _) = rest.split_first_chunk()?;
    let (sequence, offset) = (u32::from_le_bytes(*sequence), u64::from_le_bytes(*offset));
    let is_place = *place == place_of(sequence, offset, length);
    is_place.then(|| Piece { sequence, offset, frame: frame.to_vec() })
}

/// All pieces of a tail; of one that is being written those that are whole. A tail that is missing has none.
fn pieces(path: &Path) -> io::Result<Vec<Piece>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
    while !rest.is_empty() {
        let passed = match piece(rest) {
            Some(piece) => {
                let length = piece.frame.len() + PLACE_BYTES;
                pieces.push(piece);
                length
            }
            None => frame::zeros_in_front(rest).saturating_sub(3).max(1), // a length may begin with three zeros
        };
        rest = rest.get(passed..).unwrap_or_default();
    }
    Ok(pieces)
}

/// What a writer's tail holds of one of its files: to be read before the file, for what leaves the tail is in the file.
pub(super) fn pieces_of(dir: &Path, file: FileId) -> io::Result<Vec<Piece>> {
    let mut pieces = pieces(&dir.join(name(file.writer)))?;
    pieces.retain(|piece| piece.sequence == file.sequence);
    Ok(pieces)
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

/// Writes what a writer has left in its tail into its files, and empties the tail. Its run has ended.
pub(super) fn fold(dir: &Path, writer: u16) -> io::Result<()> {
    let path = dir.join(name(writer));
    let mut files: Vec<(u32, File)> = Vec::new();
    for piece in pieces(&path)? {
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
    empty(dir, writer)
}

/// Empties a writer's tail: all that it held is in its files.
pub(super) fn empty(dir: &Path, writer: u16) -> io::Result<()> {
    match OpenOptions::new().write(true).open(dir.join(name(writer))) {
        Ok(file) => file.set_len(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()), // of an earlier version
        Err(error) => Err(error),
    }
}
