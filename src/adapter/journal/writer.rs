//! One writer: its files, the records that are not in them yet, the room it has promised. A core only encodes a record and
//! copies it into the writer's tail; all else, but the rare record that must be in its file at once, is done by the
//! journal's thread, which calls `tend`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::alarm::Alarm;
use super::disk::Disk;
use super::frame::{self, FRAME_BYTES_MAX, FileId, HEADER_BYTES, RECORD_BYTES_MAX};
use super::payload::Payload;
use super::synced::{Synced, closed};
use super::tail::{self, Tail};
use crate::domain::usage::LentCharge;
use crate::ports::BoxFuture;
use crate::ports::journal::{CALL_BYTES_MAX, CallEnd, Journal, JournalError, Position, Record};

/// A record is on disk after this time, and the time of one sync. Half of it would cost a call that nobody waits for a
/// twentieth of a microsecond more.
const SYNC_EVERY: Duration = Duration::from_millis(100);
/// How often a new file is tried after one could not be made.
const RETRY: Duration = Duration::from_millis(200);
/// Waiting records are written out from this many bytes on.
const PENDING_BYTES_FLUSH: usize = 16 * 1024;
/// More than these are not kept while no file can be written: the ends of some thousand calls.
const PENDING_BYTES_MAX: usize = 64 * 1024;
/// What one call may need, and the most that is wasted where a call's record does not fit into a file's rest.
const CALL_BYTES: u64 = CALL_BYTES_MAX as u64;

/// Figures of the journal since the run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JournalStats {
    /// Bytes of records written.
    pub bytes_written: u64,
    /// Syncs of files.
    pub syncs: u64,
    /// Files made.
    pub files: u64,
    /// Bytes of earlier runs that were no valid records.
    pub damaged_bytes: u64,
    /// Ends of calls that could not be kept because the disk failed for too long.
    pub dropped_records: u64,
    /// Whether a writer waits for the disk to have room again.
    pub full: bool,
}

/// What the writers of a run have in common.
pub(super) struct Shared {
    /// The run's directory.
    pub(super) dir: PathBuf,
    /// Length of a file.
    pub(super) segment_bytes: u64,
    /// Where files are.
    pub(super) disk: Arc<dyn Disk>,
    /// Wakes the thread that tends the writers.
    pub(super) alarm: Alarm,
}

/// A writer of the journal.
pub(super) struct Writer {
    shared: Arc<Shared>,
    index: u16,
    state: Mutex<State>,
    synced: watch::Sender<Synced>,
}

/// A file and the offset of the next write.
struct Segment {
    file: Arc<File>,
    sequence: u32,
    end: u64,
}

impl Segment {
    fn new(file: Arc<File>, sequence: u32) -> Self {
        Self { file, sequence, end: HEADER_BYTES as u64 }
    }
}

/// Without a `current` there is no `next` either: a new file always becomes current first.
struct State {
    current: Option<Segment>,
    next: Option<Arc<File>>,
    /// Files that are done with, but for the sync of what they got last. The thread syncs them before it makes a new
    /// file possible, so there are never more than a few.
    retired: Vec<Arc<File>>,
    /// How many files were made.
    sequence: u32,
    /// Frames that wait, at most `PENDING_BYTES_MAX`; behind them room for one more.
    buffer: Box<[u8]>,
    /// Bytes that wait in `buffer`. They always fit into the rest of `current`.
    pending: usize,
    /// Has the waiting frames too, if the process dies. Made before the first file.
    tail: Option<Tail>,
    /// Calls that room is set aside for.
    reserved: u64,
    /// Why no new file can be made, or that the last write failed and no new file was made since.
    trouble: Option<JournalError>,
    /// When what waits is written, and all is synced.
    sync_due: Option<Instant>,
    prepare_due: Option<Instant>,
    closed: bool,
    written: u64,
    syncs: u64,
    dropped: u64,
}

/// A failure as the port names it.
pub(super) fn journal_error(error: &io::Error) -> JournalError {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let full = matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge);
    if full { JournalError::Full } else { JournalError::Io(error.to_string()) }
}

impl Writer {
    /// A writer without files; `tend` makes them.
    pub(super) fn new(shared: Arc<Shared>, index: u16) -> Self {
        let state = State {
            current: None,
            next: None,
            retired: Vec::new(),
            sequence: 0,
            buffer: vec![0; PENDING_BYTES_MAX + FRAME_BYTES_MAX].into_boxed_slice(),
            pending: 0,
            tail: None,
            reserved: 0,
            trouble: None,
            sync_due: None,
            prepare_due: Some(Instant::now()),
            closed: false,
            written: 0,
            syncs: 0,
            dropped: 0,
        };
        Self { shared, index, state: Mutex::new(state), synced: watch::Sender::new(Synced::default()) }
    }

    /// Does what is due, and says when the next thing is.
    pub(super) fn tend(&self, now: Instant) -> Option<Instant> {
        self.prepare(now);
        // Those who wait hear of a failure, and `trouble` keeps it.
        let _ = self.sync(now);
        let state = self.lock();
        [state.sync_due, state.prepare_due].into_iter().flatten().min()
    }

    /// Why no new file can be made, if so.
    pub(super) fn trouble(&self) -> Option<JournalError> {
        self.lock().trouble.clone()
    }

    /// How many files were made; the last two may be in use.
    pub(super) fn files_made(&self) -> u32 {
        self.lock().sequence
    }

    /// Adds this writer's figures.
    pub(super) fn add_to(&self, stats: &mut JournalStats) {
        let state = self.lock();
        stats.bytes_written += state.written;
        stats.syncs += state.syncs;
        stats.files += u64::from(state.sequence);
        stats.dropped_records += state.dropped;
        stats.full |= state.trouble == Some(JournalError::Full);
    }

    /// Writes out what waits, syncs all, and gives the unused space back. Nothing can be written afterwards.
    pub(super) fn finish(&self) -> Result<(), JournalError> {
        let mut state = self.lock();
        let flushed = self.write_pending(&mut state);
        let unused = state.next.take().map(|_| FileId { writer: self.index, sequence: state.sequence });
        if let Some(segment) = state.current.take() {
            // Should the cut fail, the file merely keeps its zeros.
            let _ = segment.file.set_len(segment.end);
            state.retired.push(segment.file);
        }
        state.sync_due = Some(Instant::now());
        let has_tail = state.tail.take().is_some();
        drop(state);
        if let Some(id) = unused {
            // A file with nothing but a header is as good as none.
            let _ = std::fs::remove_file(self.shared.dir.join(id.name()));
        }
        let done = flushed.and(self.sync(Instant::now()));
        if has_tail && done.is_ok() {
            // If this fails, the tail says what its files say.
            let _ = tail::end_in_order(&self.shared.dir, self.index);
        }
        self.close();
        done
    }

    /// Refuses from now on, and lets nobody wait any longer. What waits to be written is left behind.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.current = None;
        state.next = None;
        state.tail = None;
        drop(state);
        self.synced.send_modify(|synced| synced.closed = true);
    }

    /// Makes the next file if one is missing.
    fn prepare(&self, now: Instant) {
        loop {
            let state = self.lock();
            if state.closed || state.prepare_due.is_none_or(|due| due > now) {
                return;
            }
            let id = FileId { writer: self.index, sequence: state.sequence + 1 };
            let lacks_tail = state.tail.is_none();
            drop(state);
            let tail =
                lacks_tail.then(|| Tail::make(&self.shared.dir.join(tail::name(self.index)), &*self.shared.disk));
            let made = tail.transpose().and_then(|tail| Ok((tail, self.make_file(id)?)));
            let mut state = self.lock();
            match made {
                Ok((tail, file)) => {
                    if tail.is_some() {
                        state.tail = tail;
                    }
                    state.sequence = id.sequence;
                    state.trouble = None;
                    if state.current.is_none() {
                        state.current = Some(Segment::new(file, id.sequence));
                        state.place_again();
                        state.sync_due = Some(now); // for what was kept while there was no file
                    } else {
                        state.next = Some(file);
                        state.prepare_due = None;
                    }
                }
                Err(error) => {
                    state.trouble = Some(journal_error(&error));
                    state.prepare_due = Some(now + RETRY);
                }
            }
        }
    }

    fn make_file(&self, id: FileId) -> io::Result<Arc<File>> {
        let path = self.shared.dir.join(id.name());
        // The number is not in use: whatever has this name is left of an attempt that failed.
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let made = self.shared.disk.allocate(&file, self.shared.segment_bytes).and_then(|()| {
            self.shared.disk.write_at(&file, &id.header(), 0)?;
            self.shared.disk.sync(&file)?;
            File::open(&self.shared.dir)?.sync_all()
        });
        match made {
            Ok(()) => Ok(Arc::new(file)),
            Err(error) => {
                // Half a file would hold space that nobody uses. If it stays, the next attempt begins by emptying it.
                let _ = std::fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Writes what waits and syncs all that was written, for all who wait for it.
    fn sync(&self, now: Instant) -> Result<(), JournalError> {
        let mut state = self.lock();
        if state.sync_due.is_none_or(|due| due > now) {
            return Ok(());
        }
        state.sync_due = None;
        let Position(upto) = state.position();
        let written = self.write_pending(&mut state);
        if written.is_ok() {
            state.sync_due = None; // what was written just now is synced below
        }
        let mut files = std::mem::take(&mut state.retired);
        files.extend(state.current.as_ref().map(|segment| Arc::clone(&segment.file)));
        drop(state);
        let mut result = written.clone();
        for file in &files {
            result = result.and(self.shared.disk.sync(file).map_err(|error| journal_error(&error)));
        }
        self.lock().syncs += files.len() as u64;
        if let (Ok(()), Err(error)) = (&written, &result) {
            // A second sync of the same file could succeed without having written anything: the kernel forgets.
            self.abandon(&mut self.lock(), error.clone());
        }
        self.synced.send_modify(|synced| match &result {
            Ok(()) => synced.upto = upto,
            Err(error) => synced.lose(upto, error.clone()),
        });
        result
    }

    /// Writes the waiting frames with one call.
    fn write_pending(&self, state: &mut State) -> Result<(), JournalError> {
        let Some(bytes) = state.buffer.get(..state.pending).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
        let Some(segment) = &mut state.current else { return Err(state.refusal()) };
        match self.shared.disk.write_at(&segment.file, bytes, segment.end) {
            Ok(()) => {
                segment.end += bytes.len() as u64;
                state.written += bytes.len() as u64;
                state.clear();
                if state.sync_due.is_none() {
                    self.wake(&mut state.sync_due, SYNC_EVERY);
                }
                Ok(())
            }
            Err(error) => {
                // A part of it may be written, and all of it comes into the next file.
                let _ = self.shared.disk.write_at(&segment.file, &vec![0; bytes.len()], segment.end);
                // Not `Full`: room inside the file was promised, so this is a fault of the disk.
                let error = JournalError::Io(error.to_string());
                self.abandon(state, error.clone());
                Err(error)
            }
        }
    }

    /// Leaves a file that failed. The one made before it failed serves calls that are open; new ones are refused until
    /// another file could be made.
    fn abandon(&self, state: &mut State, error: JournalError) {
        state.retired.extend(state.current.take().map(|segment| segment.file));
        state.go_on();
        state.place_again();
        state.trouble = Some(error);
        self.wake(&mut state.prepare_due, Duration::ZERO);
        self.wake(&mut state.sync_due, SYNC_EVERY);
    }

    /// Encodes a record behind the waiting ones and sees to it that it fits into the current file.
    fn place(&self, state: &mut State, record: &Record) -> Result<usize, JournalError> {
        let others = match record {
            Record::Charge(_) | Record::End(_) => 0,
            Record::Grant(_) | Record::Ask(_) | Record::Close | Record::Command(_) | Record::Refused(_) => {
                (state.reserved + 1) * CALL_BYTES
            }
        };
        self.place_beside(state, record, others)
    }

    /// The same, with so many bytes that must be left for `others`.
    fn place_beside(&self, state: &mut State, record: &impl Payload, others: u64) -> Result<usize, JournalError> {
        if state.closed {
            return Err(closed());
        }
        let behind = state.buffer.get_mut(state.pending..).unwrap_or_default();
        let Some(bytes) = frame::encode(record, behind) else {
            return Err(JournalError::Io(format!("a record has more than {RECORD_BYTES_MAX} bytes")));
        };
        let size = bytes as u64;
        let rest = self.rest(state);
        let room = if size <= rest { self.room(state) } else { self.next_bytes(state) };
        if size + others > room {
            return Err(state.refusal());
        }
        if size > rest {
            self.rotate(state, bytes)?;
        }
        Ok(bytes)
    }

    /// Goes on to the next file, with the frame that was just encoded.
    fn rotate(&self, state: &mut State, bytes: usize) -> Result<(), JournalError> {
        let from = state.pending;
        self.write_pending(state)?;
        state.buffer.copy_within(from..from + bytes, 0);
        state.retired.extend(state.current.take().map(|segment| segment.file));
        state.go_on();
        self.wake(&mut state.prepare_due, Duration::ZERO);
        self.wake(&mut state.sync_due, Duration::ZERO);
        Ok(())
    }

    /// Bytes that still fit into the current file.
    fn rest(&self, state: &State) -> u64 {
        let free = |segment: &Segment| (self.shared.segment_bytes - segment.end).saturating_sub(state.pending as u64);
        state.current.as_ref().map_or(0, free)
    }

    fn next_bytes(&self, state: &State) -> u64 {
        state.next.as_ref().map_or(0, |_| self.shared.segment_bytes - HEADER_BYTES as u64)
    }

    fn room(&self, state: &State) -> u64 {
        self.rest(state) + self.next_bytes(state)
    }

    fn wake(&self, due: &mut Option<Instant>, after: Duration) {
        let at = Instant::now() + after;
        *due = Some(due.map_or(at, |earlier| earlier.min(at)));
        self.shared.alarm.set(at);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a record of a call, which the thread writes.
    fn keep(&self, state: &mut State, record: &impl Payload) -> Result<(), JournalError> {
        let bytes = self.place_beside(state, record, 0)?;
        state.take_in(bytes).map_err(|error| journal_error(&error))?;
        if state.pending >= PENDING_BYTES_FLUSH {
            // It is kept all the same; the failure shows in `trouble`.
            let _ = self.write_pending(state);
        } else if state.sync_due.is_none() {
            self.wake(&mut state.sync_due, SYNC_EVERY);
        }
        Ok(())
    }

    /// The same for an end, which only explains. Where there is no file at all it is kept for the one to come.
    fn keep_end(&self, state: &mut State, end: &CallEnd) -> Result<(), JournalError> {
        if state.current.is_some() || state.closed {
            return self.keep(state, end);
        }
        let bytes = frame::encode(end, state.buffer.get_mut(state.pending..).unwrap_or_default());
        match bytes.map(|bytes| state.pending + bytes) {
            Some(pending) if pending <= PENDING_BYTES_MAX => state.pending = pending,
            _ => return Err(state.refusal()),
        }
        Ok(())
    }
}

impl State {
    fn refusal(&self) -> JournalError {
        self.trouble.clone().unwrap_or(JournalError::Full)
    }

    fn release(&mut self) {
        self.reserved = self.reserved.saturating_sub(1); // below zero only by a caller's mistake
    }

    /// Where the last record ends that was taken in.
    fn position(&self) -> Position {
        Position(self.written + self.pending as u64)
    }

    /// Makes the file current that was made for this.
    fn go_on(&mut self) {
        self.current = self.next.take().map(|file| Segment::new(file, self.sequence));
    }

    /// The frame behind the waiting ones waits too, from now on, and survives the death of the process.
    fn take_in(&mut self, bytes: usize) -> io::Result<()> {
        let frame = self.buffer.get(self.pending..self.pending + bytes).unwrap_or_default();
        if let (Some(segment), Some(tail)) = (&self.current, &mut self.tail) {
            tail.put((segment.sequence, segment.end + self.pending as u64), frame)?;
        }
        self.pending += bytes;
        Ok(())
    }

    /// Nothing waits any more.
    fn clear(&mut self) {
        self.pending = 0;
        if let Some(tail) = &mut self.tail {
            let _ = tail.clear(); // its front is always there
        }
    }

    /// What waits goes into another file than it was taken in for. Each frame's place is written over its old one.
    fn place_again(&mut self) {
        if self.current.is_none() {
            return; // until there is a file
        }
        let pending = self.pending;
        self.clear();
        while let Some(bytes) = self.buffer.get(self.pending..pending).and_then(frame::length) {
            if self.take_in(bytes).is_err() {
                break; // a large record that nobody has been promised
            }
        }
        self.pending = pending;
    }
}

impl Journal for Writer {
    /// Also fails for a moment when more calls than fit into one file want room while the next file is being made.
    fn reserve(&self) -> Result<(), JournalError> {
        let mut state = self.lock();
        if state.closed {
            return Err(closed());
        }
        if let Some(JournalError::Io(reason)) = &state.trouble {
            return Err(JournalError::Io(reason.clone()));
        }
        if (state.reserved + 2) * CALL_BYTES > self.room(&state) {
            return Err(state.refusal());
        }
        state.reserved += 1;
        Ok(())
    }

    fn release(&self) {
        self.lock().release();
    }

    fn append(&self, record: &Record) -> Result<Position, JournalError> {
        let mut state = self.lock();
        let bytes = self.place(&mut state, record)?;
        state.pending += bytes;
        if let Err(error) = self.write_pending(&mut state) {
            // The caller hears that this record is not written, so it must not come later with the others.
            state.pending = state.pending.saturating_sub(bytes);
            state.place_again();
            if let Some(tail) = &mut state.tail {
                tail.erase_behind(bytes);
            }
            return Err(error);
        }
        Ok(Position(state.written))
    }

    fn stage(&self, charge: LentCharge<'_>, end: Option<CallEnd>) -> Result<Position, JournalError> {
        let mut state = self.lock();
        self.keep(&mut state, &(charge, end))?;
        if end.is_some() {
            state.release();
        }
        Ok(state.position())
    }

    fn end(&self, end: CallEnd) {
        let mut state = self.lock();
        if self.keep_end(&mut state, &end).is_err() {
            state.dropped += 1;
        }
        state.release();
    }

    fn on_disk(&self, position: Position) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(async move {
            let mut synced = self.synced.subscribe();
            if synced.borrow().answer(position).is_none() {
                self.wake(&mut self.lock().sync_due, Duration::ZERO);
            }
            let state = synced.wait_for(|synced| synced.answer(position).is_some()).await;
            state.ok().and_then(|state| state.answer(position)).unwrap_or_else(|| Err(closed()))
        })
    }
}
