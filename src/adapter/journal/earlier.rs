//! The runs before this one, as the port shows them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::data_dir::{self, RunInfo, UNKNOWN_BOOT};
use super::disk::release_zeros;
use super::reader;
use crate::domain::id::{GatewayId, Incarnation};
use crate::ports::journal::{Damage, EarlierRun, EarlierRuns, JournalError, Record};

/// The runs under one data directory but the current one.
#[derive(Debug)]
pub(super) struct Earlier {
    /// Where the runs are.
    pub(super) journal: PathBuf,
    /// Whose.
    pub(super) gateway: GatewayId,
    /// Not an earlier one.
    pub(super) current: u64,
    /// The current boot.
    pub(super) boot_id: String,
    /// Damaged bytes seen so far.
    pub(super) damaged_bytes: AtomicU64,
}

impl Earlier {
    fn dir(&self, run: &EarlierRun) -> PathBuf {
        self.journal.join(run.incarnation.number.to_string())
    }
}

fn named(path: &Path, error: &dyn std::fmt::Display) -> JournalError {
    JournalError::Io(format!("{}: {error}", path.display()))
}

impl EarlierRuns for Earlier {
    fn unsettled(&self) -> Result<Vec<EarlierRun>, JournalError> {
        let mut unsettled = Vec::new();
        for (number, dir) in data_dir::runs(&self.journal).map_err(|error| named(&self.journal, &error))? {
            if number == self.current || data_dir::is_settled(&dir) {
                continue;
            }
            let run = RunInfo::read(&dir).map_err(|fault| JournalError::Io(fault.to_string()))?;
            unsettled.push(EarlierRun {
                incarnation: Incarnation { gateway: self.gateway.clone(), number },
                same_boot: run.boot_id == self.boot_id && run.boot_id != UNKNOWN_BOOT,
            });
        }
        Ok(unsettled)
    }

    fn read(&self, run: &EarlierRun, each: &mut dyn FnMut(u16, Record)) -> Result<Damage, JournalError> {
        let damage = reader::read_run(&self.dir(run), each).map_err(JournalError::Io)?;
        self.damaged_bytes.fetch_add(damage.bytes, Ordering::Relaxed);
        Ok(damage)
    }

    fn mark_settled(&self, run: &EarlierRun) -> Result<(), JournalError> {
        let dir = self.dir(run);
        data_dir::mark_settled(&dir).map_err(|error| named(&dir, &error))?;
        // A gateway that is killed again and again would fill the disk with the unused ends of its files. Where the
        // file system cannot give them back they stay until the run is removed.
        let _ =
            reader::files(&dir).and_then(|files| files.iter().try_for_each(|id| release_zeros(&dir.join(id.name()))));
        Ok(())
    }
}
