//! Finds the records of single calls that this gateway has made, in any of its runs of the last days.

use super::BoxFuture;
use crate::domain::id::AccountId;
use crate::domain::usage::{Charge, UsageRecord};

/// Calls of one account with one request id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FoundCalls {
    /// Those that have ended, latest first.
    pub records: Vec<UsageRecord>,
    /// Those that are charged and go on.
    pub open: Vec<Charge>,
}

/// Why nobody can tell at the moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// What earlier runs wrote is still being looked through.
    #[error("the records of earlier calls are still being read")]
    NotReady,
    /// Too many ask at once.
    #[error("too many ask at once")]
    Busy,
    /// The disk failed.
    #[error("the journal cannot be read: {0}")]
    Io(String),
}

/// Records by request id. Clients choose these, so that one may stand for several calls.
pub trait CallRecords: Send + Sync {
    /// The latest calls of an account with a request id.
    fn find(&self, account: &AccountId, request_id: &str) -> BoxFuture<'static, Result<FoundCalls, FindError>>;
}
