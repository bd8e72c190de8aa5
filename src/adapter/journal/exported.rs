//! How far a run's usage was exported: kept beside its records, written by whoever exports, read by whoever removes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::data_dir;
use super::frame::FileId;
use super::reader::Place;

/// The file in a run's directory.
const EXPORTED: &str = "exported.json";

/// What was exported of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exported {
    /// The run had ended: nothing comes after this.
    pub(super) whole: bool,
    /// By writer.
    pub(super) writers: BTreeMap<u16, Mark>,
}

/// How far one writer's calls were exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mark {
    /// The number of the file.
    file: u32,
    /// The calls whose end lies before this offset in it, or in earlier files, were exported.
    offset: u64,
    /// Calls that were open then have their charge in this file or later ones.
    pub(super) from_file: u32,
}

impl Exported {
    /// What the mark of a run says; nothing if it has none.
    pub(super) fn read(dir: &Path) -> io::Result<Self> {
        match std::fs::read(dir.join(EXPORTED)) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Whether a record of a call's end lies before the mark.
    pub(super) fn covers(&self, at: Place) -> bool {
        let mark = self.writers.get(&at.file.writer);
        mark.is_some_and(|mark| (at.file.sequence, at.end) <= (mark.file, mark.offset))
    }

    /// Whether nothing of a file is needed for the exports to come.
    pub(super) fn is_past(&self, file: FileId) -> bool {
        self.whole || self.writers.get(&file.writer).is_some_and(|mark| file.sequence < mark.from_file)
    }

    /// Moves a writer's mark behind a record.
    pub(super) fn pass(&mut self, at: Place) {
        let mark = Mark { file: at.file.sequence, offset: at.end, from_file: at.file.sequence };
        self.writers.insert(at.file.writer, mark);
    }

    /// Notes that a charge in this file has no end yet.
    pub(super) fn keep(&mut self, file: FileId) {
        if let Some(mark) = self.writers.get_mut(&file.writer) {
            mark.from_file = mark.from_file.min(file.sequence);
        }
    }
}

/// How far an export came, run by run; to be noted once its output is safe.
#[derive(Debug, Default)]
pub struct ExportMark(pub(super) Vec<(PathBuf, Exported)>);

impl ExportMark {
    /// Notes it: the next export since the mark goes on from here, and files before it may be removed.
    ///
    /// # Errors
    /// When a mark cannot be written; those that were written stand.
    pub fn note(&self) -> io::Result<()> {
        for (dir, exported) in &self.0 {
            let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", dir.display()));
            let text = serde_json::to_vec(exported)?;
            data_dir::replace(&dir.join(EXPORTED), &text).map_err(named)?;
        }
        Ok(())
    }
}
