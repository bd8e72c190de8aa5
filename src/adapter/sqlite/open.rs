//! Opening the file: whose it is, whether it can be used, and its tables.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Row, TransactionBehavior};

use super::signatures;
use crate::ports::gateways::ServerId;

/// What this program writes and reads, in the file's `user_version`.
const SCHEMA_VERSION: i64 = 2;
/// The oldest that this program brings up to date.
const SCHEMA_VERSION_MIN: i64 = 1;
/// Marks the file as ours, in its `application_id`: "Toll".
const APPLICATION_ID: i64 = 0x546f_6c6c;
/// How long to wait while someone else, such as the `sqlite3` tool, holds the file.
const BUSY_WAIT: Duration = Duration::from_secs(2);
/// Up to this size the whole file is checked at start, which takes up to about 0.2 s. In a larger one, damage shows
/// when it is read.
const CHECKED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What the write-ahead log is cut back to after it had to grow.
const WAL_BYTES_KEPT: i64 = 16 * 1024 * 1024;

/// Documents are larger than a row of a table without rowid should be. `random` holds the 64 bits of the stamp, signed.
const SCHEMA: &str = "
    CREATE TABLE documents (
        account TEXT NOT NULL,
        name TEXT NOT NULL, -- 'account', or 'pool/' and the product
        counter INTEGER NOT NULL,
        random INTEGER NOT NULL,
        body TEXT NOT NULL, -- JSON
        PRIMARY KEY (account, name)
    ) STRICT;
    CREATE TABLE key_index (
        hash TEXT NOT NULL PRIMARY KEY,
        account TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX key_index_by_account ON key_index (account);
    CREATE TABLE history (
        place INTEGER PRIMARY KEY, -- grows in the order of ending
        account TEXT NOT NULL,
        product TEXT NOT NULL,
        package TEXT NOT NULL,
        ended_at TEXT NOT NULL,
        body TEXT NOT NULL, -- JSON
        UNIQUE (account, package)
    ) STRICT;
    CREATE INDEX history_by_account ON history (account);
    CREATE TABLE outbox (
        place INTEGER PRIMARY KEY, -- grows in the order of happening
        account TEXT NOT NULL,
        id TEXT NOT NULL,
        at TEXT NOT NULL,
        body TEXT NOT NULL, -- JSON
        UNIQUE (account, id)
    ) STRICT;
";

/// Came with version 2. The epoch names the life of the file's contents; a backup that is put back gets a new one.
const SCHEMA_META: &str = "
    CREATE TABLE meta (
        name TEXT NOT NULL PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO meta (name, value) VALUES ('epoch', lower(hex(randomblob(16))));
";

/// Why a store was not opened. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file or its directory refuses us.
    #[error("the store {path} cannot be written: {reason}; its directory must be there and writable for this program")]
    NotWritable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// Someone else has it.
    #[error("the store {path} is in use by another process; stop that one, or give this one a directory of its own")]
    Locked {
        /// Which file.
        path: PathBuf,
    },
    /// It is something else.
    #[error("{path} is not a Tollgate store; move it away, or name another file")]
    NotAStore {
        /// Which file.
        path: PathBuf,
    },
    /// A newer program has written it.
    #[error(
        "the store {path} has schema version {found}, this program reads {SCHEMA_VERSION}; run the newer program, or \
         restore a backup from before the upgrade"
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// It is damaged.
    #[error("the store {path} is damaged: {reason}; keep a copy of it and restore the last backup")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Anything else.
    #[error("the store {path} cannot be used: {reason}")]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
}

/// An open store.
pub(super) struct Opened {
    /// Keeps other processes away until it is closed.
    pub(super) lock: File,
    /// The only connection that writes.
    pub(super) writer: Connection,
    /// Sees every transaction that was committed before its question.
    pub(super) reader: Connection,
    /// The life of what the file contains.
    pub(super) server: ServerId,
}

/// Opens or makes the store.
pub(super) fn open(path: &Path) -> Result<Opened, OpenError> {
    // The lock comes first: a second store in this process that closed the file would end the first one's SQLite locks.
    let mut lock_path = OsString::from(path);
    lock_path.push(".lock");
    let not_writable = |error: io::Error| OpenError::NotWritable { path: path.to_owned(), reason: error.to_string() };
    let lock = open_file(Path::new(&lock_path)).map_err(not_writable)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => return Err(not_writable(error)),
    }
    let bytes = open_file(path).and_then(|file| file.metadata()).map_err(not_writable)?.len();
    let fault = |error| fault(path, &error);
    let mut writer = Connection::open_with_flags(path, flags(OpenFlags::SQLITE_OPEN_READ_WRITE)).map_err(fault)?;
    writer.busy_timeout(BUSY_WAIT).map_err(fault)?;
    check_identity(&writer, path)?;
    if bytes <= CHECKED_BYTES_MAX {
        let found: String = writer.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(fault)?;
        if found != "ok" {
            return Err(OpenError::Damaged { path: path.to_owned(), reason: found });
        }
    }
    prepare(&mut writer).map_err(fault)?;
    notice_loss(&mut writer, &lock, path).map_err(fault)?;
    let reader = Connection::open_with_flags(path, flags(OpenFlags::SQLITE_OPEN_READ_ONLY)).map_err(fault)?;
    reader.busy_timeout(BUSY_WAIT).map_err(fault)?;
    let server = epoch(&reader).map_err(fault)?;
    Ok(Opened { lock, writer, reader, server })
}

/// Whether the file has forgotten commits, as one does whose log was damaged or that was replaced by an older copy: SQLite
/// says nothing of that. Then it is another store than before, so that all journals are compared with it.
fn notice_loss(db: &mut Connection, lock: &File, path: &Path) -> rusqlite::Result<()> {
    let noted = noted_commits(lock);
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute("INSERT OR IGNORE INTO meta (name, value) VALUES ('commits', '0')", [])?;
    let known: i64 =
        transaction
            .query_row("SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'commits'", [], |row| row.get(0))?;
    if noted > known {
        tracing::warn!(store = %path.display(), forgotten = noted - known, "the store has forgotten its last commits: what the journals know is booked again");
        transaction.execute("UPDATE meta SET value = ?1 WHERE name = 'commits'", [noted.to_string()])?;
        transaction.execute("UPDATE meta SET value = lower(hex(randomblob(16))) WHERE name = 'epoch'", [])?;
    }
    transaction.commit()
}

/// How many commits the store had when that was noted last; 0 where it never was.
fn noted_commits(mut lock: &File) -> i64 {
    let mut text = String::new();
    // Whatever is no number says nothing.
    lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok()).unwrap_or(0)
}

/// Notes how many commits the store has, in the file of its lock. A wish: where it cannot be written, a later loss is not
/// noticed. Not synced: after a loss of power the store may have forgotten more.
pub(super) fn note_commits(lock: &File, commits: i64) {
    let _ = lock.write_all_at(format!("{commits:020}\n").as_bytes(), 0);
}

/// Opens a store that another process may be writing: takes no lock, and writes nothing.
pub(super) fn open_to_read(path: &Path) -> Result<(Connection, ServerId), OpenError> {
    if !path.exists() {
        let reason = "there is no such file".to_owned();
        return Err(OpenError::Unusable { path: path.to_owned(), reason });
    }
    let fault = |error| fault(path, &error);
    let reader = Connection::open_with_flags(path, flags(OpenFlags::SQLITE_OPEN_READ_ONLY)).map_err(fault)?;
    reader.busy_timeout(BUSY_WAIT).map_err(fault)?;
    check_identity(&reader, path)?;
    let server = epoch(&reader).map_err(fault)?;
    Ok((reader, server))
}

fn epoch(db: &Connection) -> rusqlite::Result<ServerId> {
    let epoch = |row: &Row<'_>| row.get::<_, String>(0);
    let epoch = db.query_row("SELECT value FROM meta WHERE name = 'epoch'", [], epoch)?;
    Ok(ServerId::new(&epoch))
}

/// Opens a file for writing, or makes it for the eyes of this program's user only. SQLite gives its own files beside
/// it the same rights.
fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Each connection stays with one thread.
fn flags(access: OpenFlags) -> OpenFlags {
    access | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// Refuses files that are not ours before anything is written to them. An empty file is about to become ours.
fn check_identity(db: &Connection, path: &Path) -> Result<(), OpenError> {
    let path = path.to_owned();
    let number = |question: &str| db.query_row(question, [], |row| row.get::<_, i64>(0));
    let numbers = || {
        let tables = number("SELECT count(*) FROM sqlite_schema")?;
        Ok((tables, number("PRAGMA application_id")?, number("PRAGMA user_version")?))
    };
    match numbers().map_err(|error| fault(&path, &error))? {
        (0, 0, 0) | (_, APPLICATION_ID, SCHEMA_VERSION_MIN..=SCHEMA_VERSION) => Ok(()),
        (_, APPLICATION_ID, found) if found > SCHEMA_VERSION => Err(OpenError::Newer { path, found }),
        _ => Err(OpenError::NotAStore { path }),
    }
}

/// Makes the tables that are missing, and sets how the file is written.
fn prepare(db: &mut Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    db.pragma_update(None, "synchronous", "FULL")?;
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version < SCHEMA_VERSION {
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if version < SCHEMA_VERSION_MIN {
            transaction.execute_batch(SCHEMA)?;
        }
        transaction.execute_batch(SCHEMA_META)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        transaction.commit()?;
    }
    db.execute_batch(signatures::SCHEMA)
}

pub(super) fn fault(path: &Path, error: &rusqlite::Error) -> OpenError {
    let (path, reason) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::NotAStore { path },
        Some(ErrorCode::DatabaseCorrupt) => OpenError::Damaged { path, reason },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::Locked { path },
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::DiskFull) => {
            OpenError::NotWritable { path, reason }
        }
        _ => OpenError::Unusable { path, reason },
    }
}
