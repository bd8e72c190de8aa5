//! `tollgate store`: backups, and the way from the embedded store to a Redis server. Works on the stores themselves, not
//! through a running gateway.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::StoreCommand;
use super::{EXIT_CONFIG, EXIT_UNAVAILABLE, EXIT_USAGE};
use crate::adapter::clock::{SystemClock, SystemEntropy};
use crate::adapter::redis::{OpenError as RedisOpenError, RedisStore, Refusal};
use crate::adapter::sqlite::{OpenError, SqliteStore};
use crate::app::STORE_FILE;
use crate::config::{self, Config, Store};
use crate::domain::id::{GatewayId, Incarnation};
use crate::ports::account_store::{AccountStore, StoreError};
use crate::ports::clock::Clock;
use crate::service::desk::Desk;
use crate::service::dump::{DumpError, Moved, check, read_in, write_out};

/// What the embedded store's file is called after its accounts have moved.
const MIGRATED: &str = "store.sqlite3.migrated";
/// What was moved, as a backup.
const MIGRATION: &str = "store-migration.jsonl";
/// In whose name accounts are written.
const WRITER: &str = "store-restore";

/// Why a command was not carried out, and the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// For the shell.
    pub code: u8,
    text: String,
}

impl Failure {
    pub(super) fn away(what: impl std::fmt::Display) -> Self {
        Self { code: EXIT_UNAVAILABLE, text: what.to_string() }
    }

    /// What the command line names is not there, or is not what it should be.
    pub(super) fn asked(what: impl std::fmt::Display) -> Self {
        Self { code: EXIT_USAGE, text: what.to_string() }
    }

    pub(super) fn wrong(what: impl std::fmt::Display) -> Self {
        Self { code: EXIT_CONFIG, text: what.to_string() }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::away(error)
    }
}

impl From<RedisOpenError> for Failure {
    fn from(error: RedisOpenError) -> Self {
        match error {
            RedisOpenError::Refused(Refusal::Login(_)) | RedisOpenError::Unusable(_) => Self::wrong(error),
            RedisOpenError::Refused(Refusal::Unfit(_)) | RedisOpenError::Thread(_) => Self::away(error),
        }
    }
}

impl From<DumpError> for Failure {
    fn from(error: DumpError) -> Self {
        Self::away(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::away(error)
    }
}

/// Carries a command out; what was done is written to `out`.
///
/// # Errors
/// See [`Failure`].
pub async fn run(command: StoreCommand, out: &mut dyn Write) -> Result<(), Failure> {
    let file = match &command {
        StoreCommand::Backup { config, .. } | StoreCommand::Restore { config, .. } | StoreCommand::Migrate(config) => {
            &config.config
        }
    };
    let config = config::load(file, &|name| std::env::var(name).ok()).map_err(Failure::wrong)?;
    let said = match command {
        StoreCommand::Backup { to, .. } => {
            let store = open(&config).await?;
            let moved = back_up(&*store, &to).await?;
            format!("{} accounts are in {}", moved.accounts, to.display())
        }
        StoreCommand::Restore { from, .. } => {
            // Before the store is opened: a server begins another life then.
            check(&from).map_err(|fault| Failure::asked(format!("{}: {fault}", from.display())))?;
            let store = open_to_restore(&config).await?;
            said(&read_in(&desk(store)?, &from).await?)
        }
        StoreCommand::Migrate(_) => said(&migrate(&config).await?),
    };
    writeln!(out, "{said}").map_err(Failure::away)
}

fn said(Moved { accounts, written, .. }: &Moved) -> String {
    let there = accounts.saturating_sub(*written);
    format!("{accounts} accounts: {written} written, {there} were there already; all were read again and compared")
}

async fn open(config: &Config) -> Result<Arc<dyn AccountStore>, Failure> {
    Ok(match &config.store {
        Store::Embedded => Arc::new(embedded(&config.data_dir.join(STORE_FILE))?),
        Store::Redis(settings) => Arc::new(RedisStore::open(settings, Arc::new(SystemEntropy)).await?),
    })
}

/// Opens a store for accounts that it may have forgotten: a server begins another life with them, so that every gateway
/// checks in before it gets a lease.
async fn open_to_restore(config: &Config) -> Result<Arc<dyn AccountStore>, Failure> {
    match &config.store {
        Store::Embedded => open(config).await,
        Store::Redis(settings) => {
            let store = RedisStore::open(settings, Arc::new(SystemEntropy)).await?;
            store.begin_another_life().await?;
            Ok(Arc::new(store))
        }
    }
}

/// Opens a store to read it: beside the gateways that use it, which are not disturbed.
///
/// # Errors
/// When it cannot be reached or read.
pub(super) async fn open_to_read(config: &Config) -> Result<Arc<dyn AccountStore>, Failure> {
    match &config.store {
        Store::Embedded => {
            let file = config.data_dir.join(STORE_FILE);
            Ok(Arc::new(SqliteStore::open_to_read(&file, Arc::new(SystemClock))?))
        }
        Store::Redis(_) => open(config).await,
    }
}

fn embedded(file: &Path) -> Result<SqliteStore, Failure> {
    Ok(SqliteStore::open(file, Arc::new(SystemClock))?)
}

fn desk(store: Arc<dyn AccountStore>) -> Result<Desk, Failure> {
    let by = Incarnation { gateway: GatewayId::new(WRITER).map_err(Failure::away)?, number: 1 };
    Ok(Desk::new(store, Arc::new(SystemClock), Arc::new(SystemEntropy), by))
}

/// Writes a backup whole or not at all.
async fn back_up(store: &dyn AccountStore, to: &Path) -> Result<Moved, Failure> {
    let named = |error: io::Error| Failure::away(format!("{}: {error}", to.display()));
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
    let mut file = BufWriter::new(open.map_err(named)?);
    let moved = write_out(store, SystemClock.now(), &mut file).await?;
    let file = file.into_inner().map_err(|error| named(error.into_error()))?;
    file.sync_all().map_err(named)?;
    fs::rename(&part, to).map_err(named)?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(named)?;
    if moved.broken.is_empty() {
        return Ok(moved);
    }
    let why = moved.broken.join("; ");
    Err(Failure::away(format!("{} accounts are in {}, but not all: {why}", moved.accounts, to.display())))
}

/// Moves the accounts of the embedded store to the configured server. The file is put aside at the end, so that nobody
/// sells from it again by mistake; a repeated run reads it there.
async fn migrate(config: &Config) -> Result<Moved, Failure> {
    let Store::Redis(settings) = &config.store else {
        return Err(Failure::wrong("the configuration has no `store.redis`: there is nowhere to move the accounts to"));
    };
    let (file, aside) = (config.data_dir.join(STORE_FILE), config.data_dir.join(MIGRATED));
    let from = if file.exists() { &file } else { &aside };
    if !from.exists() {
        return Err(Failure::wrong(format!("there is no embedded store: {} does not exist", file.display())));
    }
    let backup = config.data_dir.join(MIGRATION);
    let embedded = embedded(from)?;
    back_up(&embedded, &backup).await?;
    let server = RedisStore::open(settings, Arc::new(SystemEntropy)).await?;
    server.begin_another_life().await?;
    let moved = read_in(&desk(Arc::new(server))?, &backup).await?;
    drop(embedded);
    if from == &file {
        fs::rename(&file, &aside).map_err(Failure::away)?;
    }
    Ok(moved)
}
