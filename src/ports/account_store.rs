//! Where accounts are kept. A store only compares and swaps: every rule stays in `domain`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio::sync::broadcast;

use super::BoxFuture;
use crate::domain::account::Account;
use crate::domain::event::Event;
use crate::domain::id::{AccountId, ProductId};
use crate::domain::key::KeyHash;
use crate::domain::package::Package;
use crate::domain::pool::Pool;

/// From this size on a document is reported as large.
pub const DOCUMENT_BYTES_WARN: usize = 64 * 1024;
/// A document may not grow beyond this size.
pub const DOCUMENT_BYTES_MAX: usize = 256 * 1024;
/// Most accounts that one page of a listing holds.
pub const LIST_MAX: usize = 1_000;

/// Names one state of one document: a counter, and random bits made anew by each commit. Compared whole: a counter
/// that is reached twice, after a store lost its tail, never matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Grows by one with each commit of the document.
    pub counter: u64,
    /// Made anew by each commit.
    pub random: u64,
}

impl Stamp {
    /// The stamp that follows, or the first.
    pub fn next(before: Option<Self>, random: u64) -> Self {
        let counter = before.map_or(1, |stamp| stamp.counter.saturating_add(1));
        Self { counter, random }
    }
}

/// A document as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamped<T> {
    /// Its state's name.
    pub stamp: Stamp,
    /// The document.
    pub value: T,
}

/// All documents of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The head document.
    pub head: Stamped<Account>,
    /// The pools, by product.
    pub pools: BTreeMap<ProductId, Stamped<Pool>>,
    /// The store's time.
    pub now: Timestamp,
}

/// A document to be written if it still is what the writer has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write<T> {
    /// What the writer has seen; `None`: no such document.
    pub expected: Option<Stamp>,
    /// Made by the writer, so that it recognises its own commit when the reply was lost.
    pub stamp: Stamp,
    /// The new document.
    pub value: T,
}

/// One atomic change of one account's documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Whose documents.
    pub account: AccountId,
    /// The head document, if it changes. The store keeps its index of key hashes in step with it.
    pub head: Option<Write<Account>>,
    /// The pool document, if one changes.
    pub pool: Option<Write<Pool>>,
    /// Packages that left `pool`, for the history.
    pub ended: Vec<Package>,
    /// For the outbox. An event whose id is there already is not added again.
    pub events: Vec<Event>,
    /// True: on disk when this returns (commands, recovery). False: the journal can repeat it (settlements).
    pub durable: bool,
}

/// An entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountSummary {
    /// Its id.
    pub id: AccountId,
    /// Its name for people; empty if its document is damaged.
    pub name: String,
}

/// Why a store did not answer a question.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or cannot write; trying again may help.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// A document cannot be read: newer than this program, or damaged. Only this account is affected.
    #[error("document {document} of account {account} cannot be used: {reason}")]
    Broken {
        /// Whose.
        account: AccountId,
        /// Which.
        document: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why a commit did not happen.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Someone else was first. Holds what is there now; `None`: no such account.
    #[error("the documents have changed meanwhile")]
    Conflict(Option<Box<Loaded>>),
    /// The document would be larger than [`DOCUMENT_BYTES_MAX`].
    #[error("the document would have {bytes} bytes, more than {DOCUMENT_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// A key of the head document belongs to another account already.
    #[error("the key belongs to another account already; make a new one")]
    KeyTaken,
    /// The store failed; whether the commit happened is unknown.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Keeps accounts.
pub trait AccountStore: Send + Sync {
    /// All documents of an account; `None`: no such account.
    fn load<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<Option<Loaded>, StoreError>>;

    /// Writes all or nothing; returns the store's time.
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Timestamp, CommitError>>;

    /// Accounts in the order of their ids, after the given one; at most [`LIST_MAX`].
    fn list(&self, after: Option<AccountId>) -> BoxFuture<'_, Result<Vec<AccountSummary>, StoreError>>;

    /// The account to which a key with this hash belongs.
    fn account_of(&self, hash: KeyHash) -> BoxFuture<'_, Result<Option<AccountId>, StoreError>>;

    /// Packages of an account that have left its documents, latest first; at most [`LIST_MAX`].
    fn ended<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<Vec<(ProductId, Package)>, StoreError>>;

    /// Tells which accounts' head documents have changed, which every command does, for caches. A commit is told before
    /// it is answered. A receiver that lags must forget all it has cached.
    fn changes(&self) -> broadcast::Receiver<AccountId>;
}
