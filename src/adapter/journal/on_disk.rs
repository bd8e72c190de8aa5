//! All runs of a data directory, for whoever only reads: exports and audits, beside a running gateway too.

use std::path::{Path, PathBuf};

use super::data_dir::{self, Held, RunInfo};
use super::reader::{self, Place, Wanted};
use crate::domain::id::Incarnation;
use crate::ports::journal::{Damage, JournalError, Record};

/// The runs that a data directory holds. Nothing of them is removed while this is kept.
#[derive(Debug)]
pub struct RunsOnDisk {
    /// Oldest first.
    pub runs: Vec<RunOnDisk>,
    _reading: Option<Held>,
}

/// One of them.
#[derive(Debug)]
pub struct RunOnDisk {
    /// Which run.
    pub incarnation: Incarnation,
    /// Whether its gateway was writing when it was looked at. If not, all that it wrote is there.
    pub live: bool,
    /// Whether all that it knows is in the books.
    pub settled: bool,
    pub(super) dir: PathBuf,
}

impl RunsOnDisk {
    /// Looks which there are.
    ///
    /// # Errors
    /// When the directory cannot be read, or a run does not say whose it is.
    pub fn find(data_dir: &Path) -> Result<Self, JournalError> {
        let journal = data_dir::journal(data_dir);
        let named = |path: &Path, error| JournalError::Io(format!("{}: {error}", path.display()));
        let reading = data_dir::begin_reading(&journal);
        let mut runs = Vec::new();
        for (_, dir) in data_dir::runs(&journal).map_err(|error| named(&journal, error))? {
            let run = RunInfo::read(&dir).map_err(|fault| JournalError::Io(fault.to_string()))?;
            let incarnation = Incarnation { gateway: run.gateway, number: run.number };
            let live = data_dir::is_live(&dir).map_err(|error| named(&dir, error))?;
            runs.push(RunOnDisk { incarnation, live, settled: data_dir::is_settled(&dir), dir });
        }
        Ok(Self { runs, _reading: reading })
    }
}

impl RunOnDisk {
    /// Shows all records with the number of their writer; those of one writer in their order.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(&self, each: &mut dyn FnMut(u16, Record)) -> Result<Damage, JournalError> {
        self.read_places(Wanted::default(), &mut |at, record| each(at.file.writer, record))
    }

    /// Shows the records of the writer of grants and commands.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read_first(&self, each: &mut dyn FnMut(Record)) -> Result<Damage, JournalError> {
        let wanted = Wanted { only: Some(0), ..Wanted::default() };
        self.read_places(wanted, &mut |_, record| each(record))
    }

    pub(super) fn read_places(
        &self,
        wanted: Wanted<'_>,
        each: &mut dyn FnMut(Place, Record),
    ) -> Result<Damage, JournalError> {
        reader::read_run(&self.dir, Wanted { live: self.live, ..wanted }, each).map_err(JournalError::Io)
    }
}
