//! What several gateways on one store tell each other by way of it: who lives, whose leases a restarted store has heard
//! of, who needs units that another holds.

use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::domain::id::{AccountId, Incarnation, ProductId};

/// A gateway is taken to live for so long after its last heartbeat, by the store's time.
pub const LIVE_FOR: SignedDuration = SignedDuration::from_secs(5);

/// Which life of which server holds an account. It changes when the server restarts, when another takes over, and when
/// its contents are replaced: each of these may have lost what was written last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServerId(Arc<str>);

impl ServerId {
    /// A name that no other life of any server has.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who holds the accounts: one server for each part that the store is divided into, in the order of the parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Servers(pub Vec<ServerId>);

/// What gateways are told. Every notice may be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// An account's head document has changed, which every command does: caches forget it.
    Changed(AccountId),
    /// `by` found nothing free while others hold units: idle holders give all back, busy ones half of what is left.
    Recall {
        /// Whose pool.
        account: AccountId,
        /// For which product.
        product: ProductId,
        /// Who needs units.
        by: Incarnation,
    },
    /// A holder has answered a recall: what it gives back is in the document, or it holds nothing that it could give.
    Answered {
        /// Whose pool.
        account: AccountId,
        /// For which product.
        product: ProductId,
        /// Which holder.
        by: Incarnation,
    },
    /// Someone has met a server that it does not know: everyone checks in.
    CheckIn,
    /// Notices may have been missed: forget what is cached, check in again.
    Missed,
}

/// The store's answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// The store's time.
    pub now: Timestamp,
    /// Gateways that live, this one too.
    pub live: Vec<Incarnation>,
    /// Who keeps this list. If it is another than before, the list may lack gateways that live.
    pub server: ServerId,
}

/// The store's answer to a check-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckIn {
    /// It gives leases.
    Open,
    /// Others have not checked in yet: ask again in a moment.
    Waiting,
    /// One of the servers is another by now: begin again.
    Stranger,
}
