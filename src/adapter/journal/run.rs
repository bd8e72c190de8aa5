//! One run of a gateway: its writers and the thread that does the slow part of their work.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use super::SEGMENT_BYTES_MIN;
use super::alarm::Alarm;
use super::data_dir::{DataDir, Held, NewRun, OpenError, unusable};
use super::disk::{Disk, RealDisk};
use super::earlier::Earlier;
use super::index::CallIndex;
use super::retention::Tidier;
use super::writer::{JournalStats, Shared, Writer};
use crate::adapter::boot::boot_id;
use crate::domain::id::Incarnation;
use crate::ports::journal::{EarlierRuns, Journal, JournalError};

/// What a run's journal is to be like.
#[derive(Debug, Clone, Copy)]
pub struct RunOptions {
    /// How many writers: one for each core, one for grants.
    pub writers: u16,
    /// Length of each file, in bytes; at least [`SEGMENT_BYTES_MIN`]. Each writer holds two.
    pub segment_bytes: u64,
}

/// A run in progress. Dropped without [`Run::finish`] it is as if the process had died.
pub struct Run {
    incarnation: Incarnation,
    shared: Arc<Shared>,
    writers: Arc<[Arc<Writer>]>,
    earlier: Arc<Earlier>,
    thread: Option<JoinHandle<()>>,
    /// Hold the locks; let go last.
    _locks: (DataDir, Held),
}

impl DataDir {
    /// Begins a run under a number that was never used before. A full disk does not hinder it, if there is room for a
    /// few bytes: calls are refused until there is more.
    pub fn begin_run(self, options: RunOptions) -> Result<Run, OpenError> {
        Run::begin(self, options, Arc::new(RealDisk))
    }
}

impl Run {
    pub(super) fn begin(data_dir: DataDir, options: RunOptions, disk: Arc<dyn Disk>) -> Result<Self, OpenError> {
        let boot_id = boot_id();
        let NewRun { number, dir, alive } = data_dir.new_run(&boot_id)?;
        let segment_bytes = options.segment_bytes.max(SEGMENT_BYTES_MIN);
        let shared = Arc::new(Shared { dir: dir.clone(), segment_bytes, disk, alarm: Alarm::default() });
        let writers: Arc<[Arc<Writer>]> =
            (0..options.writers).map(|index| Arc::new(Writer::new(Arc::clone(&shared), index))).collect();
        for writer in writers.iter() {
            // The first files are made here, so that the gateway serves calls from its first moment.
            if let Some(due) = writer.tend(Instant::now()) {
                shared.alarm.set(due);
            }
            if let Some(JournalError::Io(reason)) = writer.trouble() {
                return Err(unusable(&dir)(std::io::Error::other(reason)));
            }
        }
        let earlier = Arc::new(Earlier {
            journal: data_dir.journal(),
            gateway: data_dir.gateway().clone(),
            current: number,
            boot_id,
            damaged_bytes: AtomicU64::new(0),
        });
        let incarnation = Incarnation { gateway: data_dir.gateway().clone(), number };
        let (tended, alarm) = (Arc::clone(&writers), Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || tend(&tended, &alarm.alarm))
            .map_err(unusable(&dir))?;
        Ok(Self { incarnation, shared, writers, earlier, thread: Some(thread), _locks: (data_dir, alive) })
    }

    /// Which run this is.
    pub fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }

    /// The writers, by number. They refuse to write once the run has ended.
    pub fn writers(&self) -> Vec<Arc<dyn Journal>> {
        self.writers.iter().map(|writer| Arc::clone(writer) as Arc<dyn Journal>).collect()
    }

    /// The runs before this one.
    pub fn earlier(&self) -> Arc<dyn EarlierRuns> {
        Arc::clone(&self.earlier) as Arc<dyn EarlierRuns>
    }

    /// Begins to keep an index of this run and the earlier ones.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn index_calls(&self) -> io::Result<CallIndex> {
        let (journal, run) = self.place();
        CallIndex::begin(journal, run)
    }

    /// Where the runs are, and which one this is.
    pub(super) fn place(&self) -> (PathBuf, Incarnation) {
        (self.earlier.journal.clone(), self.incarnation.clone())
    }

    /// Figures for metrics.
    pub fn stats(&self) -> JournalStats {
        let damaged_bytes = self.earlier.damaged_bytes.load(Ordering::Relaxed);
        let mut stats = JournalStats { damaged_bytes, ..JournalStats::default() };
        for writer in self.writers.iter() {
            writer.add_to(&mut stats);
        }
        stats
    }

    /// Whoever removes what is no longer needed.
    pub fn tidier(&self) -> Tidier {
        let journal = self.earlier.journal.clone();
        Tidier::new(journal, self.incarnation.number, Arc::clone(&self.writers))
    }

    /// Ends the run in order: all that was written is on disk, and files are as short as their records.
    pub fn finish(mut self) -> Result<(), JournalError> {
        self.stop_thread();
        let mut result = Ok(());
        for writer in self.writers.iter() {
            result = result.and(writer.finish());
        }
        result
    }

    pub(super) fn stop_thread(&mut self) {
        self.shared.alarm.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.stop_thread();
        for writer in self.writers.iter() {
            writer.close();
        }
    }
}

/// The thread: sleeps until something is due for any of the writers.
fn tend(writers: &[Arc<Writer>], alarm: &Alarm) {
    while let Some(now) = alarm.wait() {
        for due in writers.iter().filter_map(|writer| writer.tend(now)) {
            alarm.set(due);
        }
    }
}
