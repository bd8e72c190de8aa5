//! The journal: a gateway's own append-only record, the truth of usage. Each core writes its own; grants have one more.

mod stored;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::BoxFuture;
use super::gateways::Servers;
use crate::domain::id::{AccountId, CommandId, Incarnation, ProductId};
use crate::domain::lease::LeasePart;
use crate::domain::usage::{Charge, Ending, LentCharge, PackageTerms};
use stored::Stored;
pub use stored::form;

/// Bytes that one call may need in the journal, for its charge and its end.
pub const CALL_BYTES_MAX: usize = 2 * 1024;

/// A lease, written down before it is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Whose pool.
    pub account: AccountId,
    /// For which product.
    pub product: ProductId,
    /// The lease's number within pool and incarnation.
    pub number: u64,
    /// What was granted.
    pub parts: Vec<LeasePart>,
    /// Until when it admits calls.
    #[serde(with = "crate::domain::moment")]
    pub deadline: Timestamp,
    /// What the packages say that it draws on; an earlier version of this program did not write it.
    pub terms: Vec<PackageTerms>,
}

/// The end of a charged call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct CallEnd {
    /// The charge's `call`.
    pub call: u64,
    /// How it ended.
    pub ending: Ending,
    /// False when the charge was taken back.
    pub billed: bool,
    /// When.
    #[serde(with = "crate::domain::moment")]
    pub at: Timestamp,
}

/// Says that a lease may be asked for: written before the store is asked, so that a grant whose reply never came is
/// looked for after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Whose pool.
    pub account: AccountId,
    /// For which product.
    pub product: ProductId,
}

/// A command that this process is about to commit: on disk before that, so that a store that forgets it is told again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalledCommand {
    /// Whose account.
    pub account: AccountId,
    /// The command's id, which the account remembers.
    pub command: CommandId,
    /// When it was given.
    #[serde(with = "crate::domain::moment")]
    pub at: Timestamp,
    /// What is to be done, as JSON: it outlives versions of this program better than a position in a record.
    pub body: String,
}

/// A command of this run was refused after it had been written down: it must not be told again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRefused {
    /// Whose account.
    pub account: AccountId,
    /// The command's id.
    pub command: CommandId,
}

/// One record. How it stands in a file, and which older forms are read, is in `stored`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Stored")]
pub enum Record {
    /// Before a lease is used.
    Grant(Grant),
    /// Before a billable head goes to the client.
    Charge(Charge),
    /// When a charged call has ended. A charge without an end counts.
    End(CallEnd),
    /// The gateway stopped in order: nothing is missing from this run.
    Close,
    /// Before the first lease of a pool is asked for.
    Ask(Ask),
    /// Before a command is committed.
    Command(JournalledCommand),
    /// A command that was written down was not done.
    Refused(CommandRefused),
}

/// Where a record ends in its writer's file sequence; grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub u64);

/// Why a record was not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The disk has no room; calls are refused until it has.
    #[error("the journal's disk is full")]
    Full,
    /// The disk failed, or what is there cannot be read.
    #[error("the journal cannot be used: {0}")]
    Io(String),
}

/// One writer of the journal. Its methods take microseconds at most and may be called on a core that serves calls.
pub trait Journal: Send + Sync {
    /// Sets room aside for one call, [`CALL_BYTES_MAX`] bytes, so that its records cannot fail for want of space.
    fn reserve(&self) -> Result<(), JournalError>;

    /// Ends a reservation, when its call has written all its records or will write none.
    fn release(&self);

    /// Writes a record: it survives the death of this process when this returns.
    fn append(&self, record: &Record) -> Result<Position, JournalError>;

    /// Takes in a charge: it survives the death of this process when this returns, and is written within a tenth of a
    /// second. No call of the system. With the call's end, if that is known: then this ends the call's reservation.
    fn stage(&self, charge: LentCharge<'_>, end: Option<CallEnd>) -> Result<Position, JournalError>;

    /// Takes in the end of a call that counts anyway, like a charge, but may lose it: it only explains. Ends the call's
    /// reservation.
    fn end(&self, end: CallEnd);

    /// Waits until everything up to a position survives the loss of power.
    fn on_disk(&self, position: Position) -> BoxFuture<'_, Result<(), JournalError>>;
}

/// An earlier run of this gateway whose journal is not settled yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlierRun {
    /// Which run.
    pub incarnation: Incarnation,
    /// Whether the host has been up ever since: then the journal lacks nothing that was written.
    pub same_boot: bool,
}

/// What reading a run's journal showed besides its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Damage {
    /// Bytes that are no valid record, other than the unused end of a file.
    pub bytes: u64,
    /// Files that are missing from a writer's sequence.
    pub missing_files: u64,
    /// Files at the front of writers' sequences that were removed on purpose, see [`Damage::is_whole`].
    pub removed_files: u64,
}

impl Damage {
    /// Whether nothing is missing that could still be needed: what is removed on purpose is in the books.
    pub fn is_whole(&self) -> bool {
        self.bytes == 0 && self.missing_files == 0
    }

    /// Adds another run's.
    pub fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.missing_files = self.missing_files.saturating_add(other.missing_files);
        self.removed_files = self.removed_files.saturating_add(other.removed_files);
    }
}

/// The journals of this gateway's runs.
pub trait EarlierRuns: Send + Sync {
    /// Earlier runs that have ended and are not settled, oldest first.
    fn unsettled(&self) -> Result<Vec<EarlierRun>, JournalError>;

    /// Earlier runs that have ended and wrote something since a moment, settled or not, oldest first.
    fn written_since(&self, since: Timestamp) -> Result<Vec<EarlierRun>, JournalError>;

    /// Shows every valid record of a run, with the number of its writer, in the order of each writer. Can be asked of
    /// the current run too.
    fn read(&self, run: &Incarnation, each: &mut dyn FnMut(u16, Record)) -> Result<Damage, JournalError>;

    /// Shows the records of the run's first writer, which writes grants and commands.
    fn read_first(&self, run: &Incarnation, each: &mut dyn FnMut(Record)) -> Result<Damage, JournalError>;

    /// Notes that all of a run's use is in the books.
    fn mark_settled(&self, run: &EarlierRun) -> Result<(), JournalError>;

    /// The servers that this gateway has last checked in with; `None`: it never has.
    fn last_servers(&self) -> Result<Option<Servers>, JournalError>;

    /// Notes the servers that this gateway has checked in with.
    fn note_servers(&self, servers: &Servers) -> Result<(), JournalError>;
}
