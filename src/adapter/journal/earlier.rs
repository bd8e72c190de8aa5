//! The runs before this one, as the port shows them.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;

use super::data_dir::{self, RunInfo};
use super::disk::release_zeros;
use super::reader::{self, Wanted};
use super::tail;
use crate::adapter::boot::UNKNOWN_BOOT;
use crate::domain::id::{GatewayId, Incarnation};
use crate::ports::gateways::Servers;
use crate::ports::journal::{Damage, EarlierRun, EarlierRuns, JournalError, Record};

/// The file that says which servers this gateway has last checked in with.
const SERVERS: &str = "servers.json";

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
    fn dir(&self, run: &Incarnation) -> PathBuf {
        self.journal.join(run.number.to_string())
    }

    /// Earlier runs that have ended, as far as wanted.
    fn ended(&self, wanted: impl Fn(&Path) -> io::Result<bool>) -> Result<Vec<EarlierRun>, JournalError> {
        let mut ended = Vec::new();
        for (number, dir) in data_dir::runs(&self.journal).map_err(|error| named(&self.journal, &error))? {
            let concerned = number != self.current && wanted(&dir).map_err(|error| named(&dir, &error))?;
            // During an upgrade two runs may live at once: the other's journal is read when it has ended.
            if !concerned || data_dir::is_live(&dir).unwrap_or(false) {
                continue;
            }
            let run = RunInfo::read(&dir).map_err(|fault| JournalError::Io(fault.to_string()))?;
            ended.push(EarlierRun {
                incarnation: Incarnation { gateway: self.gateway.clone(), number },
                same_boot: run.boot_id == self.boot_id && run.boot_id != UNKNOWN_BOOT,
            });
        }
        Ok(ended)
    }

    fn read_writers(
        &self,
        run: &Incarnation,
        only: Option<u16>,
        each: &mut dyn FnMut(u16, Record),
    ) -> Result<Damage, JournalError> {
        // Of the run that goes on in this process, only what is written: the rest of its files is for calls to come.
        let wanted = Wanted { only, live: run.number == self.current, ..Wanted::default() };
        let shown = reader::read_run(&self.dir(run), wanted, &mut |at, record| each(at.file.writer, record));
        let damage = shown.map_err(JournalError::Io)?;
        self.damaged_bytes.fetch_add(damage.bytes, Ordering::Relaxed);
        Ok(damage)
    }
}

fn save_space(dir: &Path) -> io::Result<()> {
    let files = reader::files(dir)?;
    let writers: BTreeSet<u16> = files.iter().map(|id| id.writer).collect();
    writers.into_iter().try_for_each(|writer| tail::fold(dir, writer))?;
    files.iter().try_for_each(|id| release_zeros(&dir.join(id.name())))
}

/// Whether a run wrote to any of its files since a moment.
fn written_since(dir: &Path, since: Timestamp) -> io::Result<bool> {
    for id in reader::files(dir)? {
        if data_dir::modified(&dir.join(id.name()))? >= since {
            return Ok(true);
        }
    }
    Ok(false)
}

fn named(path: &Path, error: &dyn std::fmt::Display) -> JournalError {
    JournalError::Io(format!("{}: {error}", path.display()))
}

impl EarlierRuns for Earlier {
    fn unsettled(&self) -> Result<Vec<EarlierRun>, JournalError> {
        self.ended(|dir| Ok(!data_dir::is_settled(dir)))
    }

    fn written_since(&self, since: Timestamp) -> Result<Vec<EarlierRun>, JournalError> {
        self.ended(|dir| written_since(dir, since))
    }

    fn read(&self, run: &Incarnation, each: &mut dyn FnMut(u16, Record)) -> Result<Damage, JournalError> {
        self.read_writers(run, None, each)
    }

    fn read_first(&self, run: &Incarnation, each: &mut dyn FnMut(Record)) -> Result<Damage, JournalError> {
        self.read_writers(run, Some(0), &mut |_, record| each(record))
    }

    fn mark_settled(&self, run: &EarlierRun) -> Result<(), JournalError> {
        let dir = self.dir(&run.incarnation);
        data_dir::mark_settled(&dir).map_err(|error| named(&dir, &error))?;
        // A gateway that is killed again and again would fill the disk with its tails and the unused ends of its files.
        // What cannot be given back stays until the run is removed.
        let _ = save_space(&dir);
        Ok(())
    }

    fn last_servers(&self) -> Result<Option<Servers>, JournalError> {
        let path = self.journal.join(SERVERS);
        match std::fs::read(&path) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()), // damaged is as good as unknown: all is sent again
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(named(&path, &error)),
        }
    }

    fn note_servers(&self, servers: &Servers) -> Result<(), JournalError> {
        let path = self.journal.join(SERVERS);
        let text = serde_json::to_vec(servers).map_err(|error| named(&path, &error))?;
        data_dir::replace(&path, &text).map_err(|error| named(&path, &error))
    }
}
