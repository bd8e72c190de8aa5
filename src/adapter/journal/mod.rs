//! The journal on files, and the data directory that holds it.
//!
//! ```text
//! lock                                   held while a gateway runs; says who holds it
//! incarnation                            the number of the last run
//! incarnation.lock                       held while a number is given out
//! journal/<run>/run.json                 whose run, on which boot; locked while the run lives
//! journal/<run>/<writer>-<number>.journal  frames of records, then zeros
//! journal/<run>/<writer>.tail            the writer's last records, which may not be in its files yet
//! journal/<run>/<writer>-<number>.<part>.index  for receipts: where a journal file has which request id
//! journal/<run>/settled                  all of the run's use is in the books
//! journal/<run>/exported.json            how far its usage was exported
//! journal/<run>/removed.json             which of its files were removed because nobody needs them
//! journal/removal.lock                   held by those who read, and by whoever removes
//! journal/servers.json                   the servers of the store that the gateway has last checked in with
//! ```
//!
//! A core copies a call's records into a mapped file (`tail`), from where they go into a file that was allocated beforehand;
//! everything slow (writes, new files, syncs) is done by one thread for all writers. What a record means is decided
//! elsewhere: here it is bytes.

mod alarm;
mod data_dir;
mod disk;
mod earlier;
mod exported;
mod frame;
mod index;
mod on_disk;
mod payload;
mod reader;
mod retention;
mod run;
mod synced;
mod tail;
#[cfg(test)]
mod tests;
mod usage;
mod writer;

pub use data_dir::{DataDir, OpenError};
pub use exported::ExportMark;
pub use index::CallIndex;
pub use on_disk::{RunOnDisk, RunsOnDisk};
pub use retention::{Retention, Tidied, Tidier};
pub use run::{Run, RunOptions};
pub use usage::{UsageSummary, read_usage};
pub use writer::JournalStats;

/// The smallest journal file; a smaller wish is raised to it. Holds the largest record several times.
pub const SEGMENT_BYTES_MIN: u64 = 256 * 1024;
