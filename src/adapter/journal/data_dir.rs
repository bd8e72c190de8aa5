//! The data directory: who may use it, which runs it holds, and what each run says of itself. Records are not read
//! here.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::id::GatewayId;

/// Version of the layout; grows when an older program must not touch the directory.
const LAYOUT_VERSION: u32 = 1;
const LOCK: &str = "lock";
const NUMBER: &str = "incarnation";
/// Held while a number is given out.
const NUMBER_LOCK: &str = "incarnation.lock";
const JOURNAL: &str = "journal";
const RUN: &str = "run.json";
const SETTLED: &str = "settled";
/// Held by those who read the journal of a data directory, and alone by whoever removes what is no longer needed.
const REMOVAL_LOCK: &str = "removal.lock";
/// A run's directory until it is complete.
const UNFINISHED: &str = "new";

/// Why a data directory cannot be used. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Something else has its name.
    #[error("{} is not a directory; name another place in `data_dir`, or move what is there away", .0.display())]
    NotADirectory(PathBuf),
    /// The system refuses.
    #[error("cannot use {}: {reason}; the data directory must be writable for this process and have room", .path.display())]
    Unusable {
        /// Which file or directory.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// Another process uses it.
    #[error("{} is in use by {holder}; stop that process, or give this one a data directory of its own", .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, by its own words.
        holder: String,
    },
    /// It holds another gateway's journal.
    #[error("{} belongs to gateway {found}, not {wanted}; set `gateway` to {found}, or use another data directory", .path.display())]
    OtherGateway {
        /// The data directory.
        path: PathBuf,
        /// Whose it is.
        found: GatewayId,
        /// Who wants it.
        wanted: GatewayId,
    },
    /// A later version of this program has written it.
    #[error("{} has version {version}, this program reads up to {LAYOUT_VERSION}; use the newer program again", .path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// A file that says which number comes next says nothing sensible.
    #[error("{} is no number; write the number of the last run into it, the highest under `journal`", .0.display())]
    NoNumber(PathBuf),
}

/// An error of the system, with the place where it happened.
pub(super) fn unusable(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |reason| OpenError::Unusable { path, reason }
}

/// A data directory that this gateway alone may write to, until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    gateway: GatewayId,
    now: Timestamp,
    _lock: Held,
}

/// A locked file.
#[derive(Debug)]
pub(super) struct Held(File);

impl Drop for Held {
    fn drop(&mut self) {
        // Closing is not enough: a child process that was just forked has the file open until it executes.
        let _ = self.0.unlock();
    }
}

impl DataDir {
    /// Makes what is missing, takes the lock, and looks whether the directory is this gateway's. `now` is for people
    /// who read the lock file, and the first run's number in a new directory.
    pub fn open(path: &Path, gateway: &GatewayId, now: Timestamp) -> Result<Self, OpenError> {
        Self::open_with(path, gateway, now, File::try_lock)
    }

    /// The same, beside other runs of the gateway that share the directory, each with a journal of its own: for an
    /// upgrade, where the new process begins before the old one has ended. Only where the books are elsewhere.
    pub fn open_shared(path: &Path, gateway: &GatewayId, now: Timestamp) -> Result<Self, OpenError> {
        Self::open_with(path, gateway, now, File::try_lock_shared)
    }

    fn open_with(path: &Path, gateway: &GatewayId, now: Timestamp, lock: TryLock) -> Result<Self, OpenError> {
        make_dir(path)?;
        let lock = take_lock(&path.join(LOCK), now, lock)?;
        let journal = path.join(JOURNAL);
        make_dir(&journal)?;
        for (_, dir) in runs(&journal).map_err(unusable(&journal))? {
            match RunInfo::read(&dir) {
                Ok(run) if run.gateway != *gateway => {
                    let (found, wanted) = (run.gateway, gateway.clone());
                    return Err(OpenError::OtherGateway { path: path.to_owned(), found, wanted });
                }
                Err(RunFault::Newer(version)) => return Err(OpenError::Newer { path: dir.join(RUN), version }),
                // A run that says nothing is reported when its records are needed.
                Ok(_) | Err(RunFault::Unreadable(_)) => {}
            }
        }
        Ok(Self { path: path.to_owned(), gateway: gateway.clone(), now, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    pub(super) fn gateway(&self) -> &GatewayId {
        &self.gateway
    }

    /// Where the runs are.
    pub(super) fn journal(&self) -> PathBuf {
        journal(&self.path)
    }

    /// Gives out the next run's number and makes its directory.
    pub(super) fn new_run(&self, boot_id: &str) -> Result<NewRun, OpenError> {
        let path = self.path.join(NUMBER_LOCK);
        let numbering = open_lock(&path).and_then(|file| file.lock().map(|()| Held(file))).map_err(unusable(&path))?;
        let number = self.next_number()?;
        let run = RunInfo {
            version: LAYOUT_VERSION,
            gateway: self.gateway.clone(),
            number,
            boot_id: boot_id.to_owned(),
            started: self.now,
        };
        let dir = self.journal().join(number.to_string());
        let alive = run.create(&self.journal(), &dir).map_err(unusable(&dir))?;
        drop(numbering);
        Ok(NewRun { number, dir, alive })
    }

    fn next_number(&self) -> Result<u64, OpenError> {
        let path = self.path.join(NUMBER);
        let written = match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| OpenError::NoNumber(path.clone()))?,
            // A number must never come again, or the books would take a new lease for a late repetition of an old one.
            // What a lost disk has counted is not known here. It counted starts, so it is behind the seconds since 1970.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                u64::try_from(self.now.as_second()).unwrap_or_default()
            }
            Err(reason) => return Err(OpenError::Unusable { path, reason }),
        };
        let journal = self.journal();
        let seen = runs(&journal).map_err(unusable(&journal))?.last().map_or(0, |(number, _)| *number);
        let number: u64 = written.max(seen) + 1;
        replace(&path, format!("{number}\n").as_bytes()).map_err(unusable(&path))?;
        Ok(number)
    }
}

/// A run that has just begun.
pub(super) struct NewRun {
    pub(super) number: u64,
    pub(super) dir: PathBuf,
    /// Held while the run lives.
    pub(super) alive: Held,
}

/// What a run says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RunInfo {
    version: u32,
    /// Whose run.
    pub(super) gateway: GatewayId,
    /// Which of its runs.
    pub(super) number: u64,
    /// On which boot of which host.
    pub(super) boot_id: String,
    started: Timestamp,
}

/// Why a run's own words cannot be used.
#[derive(Debug)]
pub(super) enum RunFault {
    /// A later program's.
    Newer(u32),
    /// Missing or damaged; the text names the file.
    Unreadable(String),
}

impl std::fmt::Display for RunFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Newer(version) => write!(f, "a run has version {version}, this program reads up to {LAYOUT_VERSION}"),
            Self::Unreadable(text) => f.write_str(text),
        }
    }
}

impl RunInfo {
    /// Reads what the run in a directory says of itself.
    pub(super) fn read(dir: &Path) -> Result<Self, RunFault> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let path = dir.join(RUN);
        let fault = |why: &dyn std::fmt::Display| {
            let advice = "restore it from a backup, or move its directory away and lose the run's usage";
            RunFault::Unreadable(format!("{} cannot be read: {why}; {advice}", path.display()))
        };
        let text = std::fs::read(&path).map_err(|error| fault(&error))?;
        let Version { version } = serde_json::from_slice(&text).map_err(|error| fault(&error))?;
        if version > LAYOUT_VERSION {
            return Err(RunFault::Newer(version));
        }
        serde_json::from_slice(&text).map_err(|error| fault(&error))
    }

    /// Makes the run's directory, complete from the moment it has its name. The file returned is locked.
    fn create(&self, journal: &Path, dir: &Path) -> io::Result<Held> {
        let unfinished = journal.join(UNFINISHED);
        match std::fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        DirBuilder::new().mode(0o700).create(&unfinished)?;
        let file = write_synced(&unfinished.join(RUN), &serde_json::to_vec(self)?)?;
        file.try_lock()?;
        sync_dir(&unfinished)?;
        std::fs::rename(&unfinished, dir)?;
        sync_dir(journal)?;
        Ok(Held(file))
    }
}

/// Whether a gateway is still writing a run. Needs no lock of its own for longer than this call.
pub(super) fn is_live(dir: &Path) -> io::Result<bool> {
    match File::open(dir.join(RUN))?.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether all of a run's use is in the books.
pub(super) fn is_settled(dir: &Path) -> bool {
    dir.join(SETTLED).exists()
}

/// Notes, for good, that all of a run's use is in the books.
pub(super) fn mark_settled(dir: &Path) -> io::Result<()> {
    write_synced(&dir.join(SETTLED), b"")?;
    sync_dir(dir)
}

/// Keeps runs from being removed while they are read. `None` where no lock can be had, as on a directory that is open for
/// reading only: then a removal shows as a file that cannot be read.
pub(super) fn begin_reading(journal: &Path) -> Option<Held> {
    let file = open_lock(&journal.join(REMOVAL_LOCK)).ok()?;
    file.lock_shared().ok()?;
    Some(Held(file))
}

/// Waits for nobody: `None` while someone reads, or another run of the gateway removes.
pub(super) fn begin_removal(journal: &Path) -> io::Result<Option<Held>> {
    let file = open_lock(&journal.join(REMOVAL_LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Held(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// When a file was last written. A time outside the calendar counts as later than any.
pub(super) fn modified(path: &Path) -> io::Result<Timestamp> {
    Ok(Timestamp::try_from(std::fs::metadata(path)?.modified()?).unwrap_or(Timestamp::MAX))
}

/// Where a data directory has its runs.
pub(super) fn journal(data_dir: &Path) -> PathBuf {
    data_dir.join(JOURNAL)
}

/// The runs under `journal`, in order.
pub(super) fn runs(journal: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut runs = Vec::new();
    for entry in std::fs::read_dir(journal)? {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            runs.push((number, entry.path()));
        }
    }
    runs.sort();
    Ok(runs)
}

fn make_dir(path: &Path) -> Result<(), OpenError> {
    let made = DirBuilder::new().mode(0o700).recursive(true).create(path);
    match made {
        Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory) => {
            Err(OpenError::NotADirectory(path.to_owned()))
        }
        other => other.map_err(unusable(path)),
    }
}

/// How a lock is taken without waiting: alone, or with others.
type TryLock = fn(&File) -> Result<(), TryLockError>;

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn take_lock(path: &Path, now: Timestamp, lock: TryLock) -> Result<Held, OpenError> {
    let mut file = open_lock(path).map_err(unusable(path))?;
    match lock(&file) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // Only the message gets poorer if this fails.
            let _ = file.read_to_string(&mut text);
            let holder = if text.trim().is_empty() { "another process" } else { text.trim() }.to_owned();
            return Err(OpenError::Locked { path: path.to_owned(), holder });
        }
        Err(TryLockError::Error(reason)) => return Err(OpenError::Unusable { path: path.to_owned(), reason }),
    }
    file.set_len(0).and_then(|()| writeln!(file, "pid {}, since {now}", std::process::id())).map_err(unusable(path))?;
    Ok(Held(file))
}

/// Replaces a file's contents, whole or not at all.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension(UNFINISHED);
    write_synced(&unfinished, bytes)?;
    std::fs::rename(&unfinished, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(file)
}

/// Makes the names in a directory survive the loss of power.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
