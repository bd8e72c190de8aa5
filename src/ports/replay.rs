//! The memory of used signatures, by which one that was accepted is not accepted again, at whichever gateway.

use jiff::Timestamp;

use super::BoxFuture;
use super::account_store::StoreError;
use crate::domain::credential::SignatureUse;
use crate::domain::key::KeyHash;

/// A signature that has been verified and is about to be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsedSignature {
    /// A keyed hash of it.
    pub name: KeyHash,
    /// When it says that it was made.
    pub dated: Timestamp,
    /// The first moment of the store's time at which it is too old: until then it is remembered.
    pub ends: Timestamp,
}

/// Remembers used signatures for all gateways that share it.
pub trait ReplayCache: Send + Sync {
    /// Notes that a signature is used now, unless that is refused. Of several who note the same one, exactly one is told
    /// [`SignatureUse::First`]. About `max` are remembered at one time: none is forgotten before its end to make room.
    fn note_use(&self, used: UsedSignature, max: usize) -> BoxFuture<'_, Result<SignatureUse, StoreError>>;

    /// Takes a use back that this caller noted, and was told [`SignatureUse::First`] of: nothing was served for it. Asked of
    /// the store at most once: a second time it could take back a later use.
    fn take_back(&self, used: UsedSignature) -> BoxFuture<'_, Result<(), StoreError>>;
}
