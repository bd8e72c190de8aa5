//! Where accounts are kept. A store only compares and swaps: every rule stays in `domain`. What gateways tell each other
//! by way of the store is in `gateways`.

use std::collections::BTreeMap;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::broadcast;

use super::BoxFuture;
use super::gateways::{CheckIn, Heartbeat, Notice, ServerId, Servers};
use crate::domain::account::Account;
use crate::domain::event::Event;
use crate::domain::id::{AccountId, Incarnation, ProductId};
use crate::domain::key::KeyHash;
use crate::domain::package::Package;
use crate::domain::pool::Pool;

/// From this size on a document is reported as large.
pub const DOCUMENT_BYTES_WARN: usize = 64 * 1024;
/// A document may not grow beyond this size.
pub const DOCUMENT_BYTES_MAX: usize = 256 * 1024;
/// A purchase may not make a pool's document larger than this: the rest is for leases, without which nothing is sold.
pub const PURCHASE_BYTES_MAX: usize = DOCUMENT_BYTES_MAX / 4 * 3;
/// Most accounts that one page of a listing holds.
pub const LIST_MAX: usize = 1_000;
/// A commit whose writer's idea of the store's time is further off than this is refused.
pub const TIME_OFF_MAX: SignedDuration = SignedDuration::from_secs(2);
/// The longest time for which one gateway has the turn at a pool document, and the others are told to wait.
pub const TURN_MAX: SignedDuration = SignedDuration::from_millis(100);

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
    /// Who holds the account.
    pub server: ServerId,
}

/// What a writer believes of the store; if it is wrong, nothing is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Believed {
    /// Its time; may be [`TIME_OFF_MAX`] off.
    pub now: Timestamp,
    /// Who holds the account. `None`: the writer has read nothing of it, as when an account is opened; it may hold no
    /// new lease then.
    pub server: Option<ServerId>,
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
    /// The head document, if it changes. The store keeps its index of [`Account::hashes`] in step with it.
    pub head: Option<Write<Account>>,
    /// The pool document, if one changes.
    pub pool: Option<Write<Pool>>,
    /// Packages that left `pool`, for the history.
    pub ended: Vec<Package>,
    /// For the outbox. An event whose id is there already is not added again.
    pub events: Vec<Event>,
    /// True: on disk when this returns (commands, recovery). False: the journal can repeat it (settlements).
    pub durable: bool,
    /// What the writer believes of the store.
    pub believed: Believed,
    /// Whether `pool` holds a new lease. Such a commit is refused until every live gateway has checked in with the
    /// server, see [`AccountStore::check_in`].
    pub grants: bool,
    /// Who writes.
    pub by: Incarnation,
    /// Asks for the turn: if this commit meets a conflict, then for at most [`TURN_MAX`] others are told
    /// [`CommitError::Busy`] when they write the same pool document, until a commit of `by` on it succeeds. For whoever
    /// would otherwise always be late, being further away.
    pub turn: bool,
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
    /// It has no room: nothing was written, and nothing of it will be.
    #[error("the store has no room: {0}")]
    Full(String),
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
    /// A key, AppKey or AppCode of the head document belongs to another account already.
    #[error("the key belongs to another account already; make a new one")]
    KeyTaken,
    /// The account is held by another server than the writer believes, or the same one has restarted or forgotten: check
    /// in first. Nothing was written.
    #[error("the store has restarted or has been replaced: {0} holds the account now")]
    Stranger(ServerId),
    /// No lease is given before every live gateway has checked in. Nothing was written.
    #[error("the store gives no leases until all gateways have checked in")]
    Closed,
    /// Another gateway has the turn, for at most [`TURN_MAX`]. Nothing was written.
    #[error("another gateway has the turn")]
    Busy,
    /// The writer's time is more than [`TIME_OFF_MAX`] off; this is the store's. Nothing was written.
    #[error("this process's idea of the store's time is too far off: there it is {0}")]
    TimeOff(Timestamp),
    /// The store failed; whether the commit happened is unknown, unless it was [`StoreError::Full`].
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

    /// The account to which a key, AppKey or AppCode with this hash belongs.
    fn account_of(&self, hash: KeyHash) -> BoxFuture<'_, Result<Option<AccountId>, StoreError>>;

    /// All documents of the account to which a key with this hash belongs. What the documents say counts: an index that
    /// lies elsewhere may name an account that lacks the key. Stores that can tell both with one answer do.
    fn load_by_key(&self, hash: KeyHash) -> BoxFuture<'_, Result<Option<Loaded>, StoreError>> {
        Box::pin(async move {
            match self.account_of(hash).await? {
                Some(account) => self.load(&account).await,
                None => Ok(None),
            }
        })
    }

    /// Packages of an account that have left its documents, latest first; at most [`LIST_MAX`].
    fn ended<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<Vec<(ProductId, Package)>, StoreError>> {
        self.ended_before(account, 0)
    }

    /// The same, before the latest so many.
    fn ended_before<'a>(
        &'a self,
        account: &'a AccountId,
        latest: usize,
    ) -> BoxFuture<'a, Result<Vec<(ProductId, Package)>, StoreError>>;

    /// Tells what happens at the store, to every gateway. A commit of a head document is told before it is answered.
    /// Notices may be lost: then [`Notice::Missed`] comes when it is noticed, and a receiver that lags must take it for
    /// that.
    fn changes(&self) -> broadcast::Receiver<Notice>;

    /// Tells every gateway, this one too. May be lost.
    fn notify(&self, notice: Notice) -> BoxFuture<'_, Result<(), StoreError>>;

    /// When anything was last heard from the store by way of notices; each heartbeat of any gateway makes some. `None`:
    /// never. What is cached and kept fresh by notices is trusted while this is recent.
    fn heard_at(&self) -> Option<Instant>;

    /// Says that this gateway lives (once a second), and tells who else does.
    fn heartbeat<'a>(&'a self, by: &'a Incarnation) -> BoxFuture<'a, Result<Heartbeat, StoreError>>;

    /// Says in order that this gateway is gone.
    fn leave<'a>(&'a self, by: &'a Incarnation) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Who holds the accounts now.
    fn servers(&self) -> BoxFuture<'_, Result<Servers, StoreError>>;

    /// Says that `by` has sent all its leases and commands again, after it had read that these are the servers. A server
    /// that has restarted gives leases again (`Open`) once all of `live` have checked in with it, or
    /// [`LEASE_DURATION_MAX`](crate::domain::lease::LEASE_DURATION_MAX) of the store's time after it was first asked:
    /// every lease that it may have forgotten is over by then. Where nothing can be forgotten it is always `Open`.
    fn check_in<'a>(
        &'a self,
        by: &'a Incarnation,
        servers: &'a Servers,
        live: &'a [Incarnation],
    ) -> BoxFuture<'a, Result<CheckIn, StoreError>>;
}
