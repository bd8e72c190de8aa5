//! Removes records that nobody needs any more: whole runs, and of the run that goes on the oldest files. What may go is
//! decided by pure functions; a crash in the middle of a removal leaves what the next look finishes.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::data_dir::{self, replace, sync_dir};
use super::exported::Exported;
use super::frame::FileId;
use super::index;
use super::reader::{self, REMOVED};
use super::writer::Writer;
use crate::config::Remove;
use crate::ports::journal::JournalError;

/// What a run's directory is called while it is being deleted: no run's name.
const GONE: &str = "gone";

/// The writer of grants.
const GRANTS: u16 = 0;

/// When records may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long they are kept at least.
    pub keep: SignedDuration,
    /// What must have been done with them.
    pub remove: Remove,
}

/// What was found and done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tidied {
    /// What the journals of all runs take on the disk now.
    pub disk_bytes: u64,
    /// Files removed.
    pub removed_files: u64,
}

/// A run that has ended, as far as its removal depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EndedRun {
    /// All of its use is in the books.
    settled: bool,
    /// All of its usage was exported.
    exported: bool,
    last_written: Timestamp,
}

/// A file that its writer has left, as far as its removal depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OldFile {
    id: FileId,
    /// Neither its calls nor their ends are needed by the next export.
    exported: bool,
    last_written: Timestamp,
}

impl OldFile {
    /// Whether it may grant, or charge to, a lease that is held.
    fn is_held(&self, held_since: Option<Timestamp>) -> bool {
        held_since.is_some_and(|since| self.last_written >= since)
    }
}

impl Retention {
    fn is_old(&self, last_written: Timestamp, now: Timestamp) -> bool {
        last_written.checked_add(self.keep).is_ok_and(|until| until < now)
    }

    fn is_done(&self, exported: bool) -> bool {
        match self.remove {
            Remove::Exported => exported,
            Remove::Settled => true,
            Remove::Never => false,
        }
    }

    /// Whether a run may go.
    fn run_may_go(&self, run: EndedRun, now: Timestamp) -> bool {
        run.settled && self.is_done(run.exported) && self.is_old(run.last_written, now)
    }

    /// Up to which number each writer's files may go, from the front. `held_since`: when the oldest lease was granted that
    /// the store has not acknowledged as closed: from then on every charge may still be needed.
    fn front_that_may_go(
        &self,
        files: &[OldFile],
        held_since: Option<Timestamp>,
        now: Timestamp,
    ) -> BTreeMap<u16, u32> {
        let mut front = BTreeMap::new();
        let mut stopped = Vec::new();
        for file in files {
            let goes = !file.is_held(held_since) && self.is_done(file.exported) && self.is_old(file.last_written, now);
            if goes && !stopped.contains(&file.id.writer) {
                front.insert(file.id.writer, file.id.sequence);
            } else {
                stopped.push(file.id.writer);
            }
        }
        front
    }
}

/// Which files of calls draw on the leases of files of grants that are held no more: the last of each writer. A call's
/// record tells offer and rule by its grant, so grants stay as long as such calls do.
#[derive(Debug, Default)]
struct DrawnOn(BTreeMap<u32, BTreeMap<u16, u32>>);

impl DrawnOn {
    /// Takes in files of grants none of whose leases is held: what is charged from now on draws on none of them.
    fn note(&mut self, dir: &Path, unheld: impl Iterator<Item = u32>) -> io::Result<()> {
        let new: Vec<u32> = unheld.filter(|grants| !self.0.contains_key(grants)).collect();
        if !new.is_empty() {
            let mut calls = reader::last_written(dir, &reader::files(dir)?);
            calls.remove(&GRANTS);
            self.0.extend(new.into_iter().map(|grants| (grants, calls.clone())));
        }
        Ok(())
    }

    /// Up to which number files of grants may go, if they may up to `wanted` for their own sake; forgets them. `removed`:
    /// up to which number calls are gone.
    fn take_front(&mut self, wanted: u32, removed: &BTreeMap<u16, u32>) -> Option<u32> {
        let is_gone = |(writer, last): (&u16, &u32)| removed.get(writer).is_some_and(|removed| last <= removed);
        let free = self.0.iter().take_while(|(grants, calls)| **grants <= wanted && calls.iter().all(is_gone));
        let front = free.last().map(|(grants, _)| *grants);
        self.0.retain(|grants, _| front.is_none_or(|front| *grants > front));
        front
    }
}

/// Removes what is no longer needed, on behalf of a run that goes on. Knows nothing of who holds the run.
#[derive(Clone)]
pub struct Tidier {
    pub(super) journal: PathBuf,
    /// The run that goes on.
    pub(super) current: u64,
    pub(super) writers: Arc<[Arc<Writer>]>,
    drawn_on: Arc<Mutex<DrawnOn>>,
}

impl Tidier {
    /// Begins to look after a run that goes on.
    pub(super) fn new(journal: PathBuf, current: u64, writers: Arc<[Arc<Writer>]>) -> Self {
        Self { journal, current, writers, drawn_on: Arc::default() }
    }

    /// Measures what the journals take, and removes what may go. Waits for disks: not for a thread that serves calls.
    ///
    /// # Errors
    /// When something cannot be read or removed; what was removed until then is gone, and the rest is tried again.
    pub fn tidy(
        &self,
        retention: &Retention,
        held_since: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Tidied, JournalError> {
        let journal = &self.journal;
        let named = |error: io::Error| JournalError::Io(format!("{}: {error}", journal.display()));
        let mut tidied = Tidied::default();
        if let Some(removal) = data_dir::begin_removal(journal).map_err(named)? {
            tidied.removed_files = finish_removals(journal).map_err(named)?;
            for (number, dir) in data_dir::runs(journal).map_err(named)? {
                if number == self.current {
                    tidied.removed_files += self.tidy_own(&dir, retention, held_since, now).map_err(named)?;
                } else if !data_dir::is_live(&dir).unwrap_or(true) {
                    let goes = retention.run_may_go(ended_run(&dir).map_err(named)?, now);
                    let removed = if goes { remove_run(journal, &dir) } else { remove_noted(&dir) };
                    tidied.removed_files += removed.map_err(named)?;
                }
            }
            drop(removal);
        }
        tidied.disk_bytes = disk_bytes(journal).map_err(named)?;
        Ok(tidied)
    }

    /// Whether nothing is written to a file of this run any more. Two are in use: the current one and the next.
    fn is_left(&self, id: FileId) -> bool {
        let writer = self.writers.get(usize::from(id.writer));
        writer.is_some_and(|writer| id.sequence.saturating_add(2) <= writer.files_made())
    }

    /// Removes the oldest files of the run that goes on.
    fn tidy_own(
        &self,
        dir: &Path,
        retention: &Retention,
        held_since: Option<Timestamp>,
        now: Timestamp,
    ) -> io::Result<u64> {
        let exported = Exported::read(dir)?;
        let mut old = Vec::new();
        for id in reader::files(dir)?.into_iter().filter(|id| self.is_left(*id)) {
            // The writer of grants has no usage to export.
            let exported = id.writer == GRANTS || exported.is_past(id);
            old.push(OldFile { id, exported, last_written: data_dir::modified(&dir.join(id.name()))? });
        }
        let mut drawn_on = self.drawn_on.lock().unwrap_or_else(PoisonError::into_inner);
        let unheld = old.iter().filter(|file| file.id.writer == GRANTS && !file.is_held(held_since));
        drawn_on.note(dir, unheld.map(|file| file.id.sequence))?;
        let mut front = retention.front_that_may_go(&old, held_since, now);
        let grants = front.remove(&GRANTS);
        let mut removed = reader::removed(dir)?;
        removed.extend(&front);
        let grants = grants.and_then(|wanted| drawn_on.take_front(wanted, &removed));
        if !front.is_empty() || grants.is_some() {
            removed.extend(grants.map(|grants| (GRANTS, grants)));
            // Noted first: from then on they do not count, whether they are there or not.
            replace(&dir.join(REMOVED), &serde_json::to_vec(&removed)?)?;
        }
        remove_noted(dir)
    }
}

fn ended_run(dir: &Path) -> io::Result<EndedRun> {
    let mut last_written = Timestamp::MIN;
    for id in reader::files(dir)? {
        last_written = last_written.max(data_dir::modified(&dir.join(id.name()))?);
    }
    if last_written == Timestamp::MIN {
        last_written = data_dir::modified(dir)?; // it wrote nothing
    }
    Ok(EndedRun { settled: data_dir::is_settled(dir), exported: Exported::read(dir)?.whole, last_written })
}

/// Takes a run out of the journal at once, then deletes it.
fn remove_run(journal: &Path, dir: &Path) -> io::Result<u64> {
    let files = reader::all_files(dir)?.len() as u64;
    let gone = dir.with_extension(GONE);
    std::fs::rename(dir, &gone)?;
    sync_dir(journal)?;
    std::fs::remove_dir_all(&gone)?;
    Ok(files)
}

/// Goes on with what a crash interrupted.
fn finish_removals(journal: &Path) -> io::Result<u64> {
    let mut files = 0;
    for dir in inside(journal)?.into_iter().filter(|path| path.extension().is_some_and(|name| name == GONE)) {
        files += reader::all_files(&dir)?.len() as u64;
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(files)
}

/// Deletes the files of which it is noted that they are removed, and the indexes of files that are gone.
fn remove_noted(dir: &Path) -> io::Result<u64> {
    let index_of = |path: &PathBuf| path.file_name().and_then(|name| index::file_of(name.to_str()?));
    // Looked for first: a file of the journal is there before its index.
    let indexes: Vec<_> = inside(dir)?.into_iter().filter_map(|path| Some((index_of(&path)?, path))).collect();
    let kept = reader::files(dir)?;
    let mut files = 0;
    for id in reader::all_files(dir)?.difference(&kept) {
        std::fs::remove_file(dir.join(id.name()))?;
        files += 1;
    }
    for (_, path) in indexes.iter().filter(|(of, _)| !kept.contains(of)) {
        std::fs::remove_file(path)?;
    }
    Ok(files)
}

fn inside(dir: &Path) -> io::Result<Vec<PathBuf>> {
    std::fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect()
}

/// What lies under a directory, two levels deep, in allocated bytes. A file that goes meanwhile takes none.
fn disk_bytes(journal: &Path) -> io::Result<u64> {
    const SECTOR_BYTES: u64 = 512;
    let mut sectors = 0;
    for path in inside(journal)? {
        let files = if path.is_dir() { inside(&path).unwrap_or_default() } else { vec![path] };
        sectors += files.iter().filter_map(|file| file.metadata().ok()).map(|file| file.blocks()).sum::<u64>();
    }
    Ok(sectors * SECTOR_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: i8) -> Timestamp {
        jiff::civil::date(2026, 3, day).to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp()
    }

    fn retention(remove: Remove) -> Retention {
        Retention { keep: SignedDuration::from_hours(7 * 24), remove }
    }

    #[test]
    fn a_run_goes_when_it_is_settled_exported_and_older_than_it_is_kept() {
        let check = |remove, settled, exported, written, goes| {
            let run = EndedRun { settled, exported, last_written: day(written) };
            let shown = format!("{remove:?} {run:?}");
            assert_eq!(retention(remove).run_may_go(run, day(20)), goes, "{shown}");
        };
        check(Remove::Exported, true, true, 12, true);
        check(Remove::Exported, true, true, 13, false);
        check(Remove::Exported, true, false, 12, false);
        check(Remove::Exported, false, true, 12, false);
        check(Remove::Settled, true, false, 12, true);
        check(Remove::Settled, true, false, 13, false);
        check(Remove::Settled, false, true, 12, false);
        check(Remove::Never, true, true, 1, false);
        check(Remove::Exported, true, true, 30, false); // a clock that stepped back
    }

    #[test]
    fn of_the_run_that_goes_on_only_the_front_goes() {
        // Writer, number, exported, day of the last record.
        type Files = [(u16, u32, bool, i8)];
        let check = |remove, files: &Files, held_since: Option<i8>, expected: &[(u16, u32)]| {
            let file = |(writer, sequence, exported, written): &(u16, u32, bool, i8)| OldFile {
                id: FileId { writer: *writer, sequence: *sequence },
                exported: *exported,
                last_written: day(*written),
            };
            let old: Vec<_> = files.iter().map(file).collect();
            let front = retention(remove).front_that_may_go(&old, held_since.map(day), day(20));
            assert_eq!(front.into_iter().collect::<Vec<_>>(), expected, "{files:?} {held_since:?}");
        };
        let files = [(0, 1, true, 5), (0, 2, true, 11), (1, 4, true, 10), (1, 5, true, 12), (1, 6, true, 13)];
        check(Remove::Exported, &files, None, &[(0, 2), (1, 5)]);
        check(Remove::Exported, &files, Some(19), &[(0, 2), (1, 5)]);
        check(Remove::Exported, &files, Some(11), &[(0, 1), (1, 4)]);
        check(Remove::Exported, &files, Some(1), &[]);
        check(Remove::Never, &files, None, &[]);
        let gap = [(1, 1, true, 1), (1, 2, false, 2), (1, 3, true, 3), (2, 1, false, 1)];
        check(Remove::Exported, &gap, None, &[(1, 1)]);
        check(Remove::Settled, &gap, None, &[(1, 3), (2, 1)]);
    }
}
