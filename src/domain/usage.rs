//! The usage record: the immutable fact that one call was counted.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::amount::Units;
use super::id::{AccountId, Incarnation, KeyId, PackageId, ProductId};

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The seller's whole answer was handed on.
    Complete,
    /// The client hung up before the end.
    ClientGone,
    /// The seller broke off before the end.
    SellerBroke,
    /// The seller fell silent for longer than the product's idle time-out, or the call took too long in all.
    TimedOut,
    /// The gateway stopped or died during the answer; nobody knows how much of it arrived.
    Interrupted,
}

impl Ending {
    /// Every ending, for tables of metrics.
    pub const ALL: [Self; 5] = [Self::Complete, Self::ClientGone, Self::SellerBroke, Self::TimedOut, Self::Interrupted];

    /// The name in records, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client_gone",
            Self::SellerBroke => "seller_broke",
            Self::TimedOut => "timed_out",
            Self::Interrupted => "interrupted",
        }
    }
}

/// One package's share of a charge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChargePart {
    /// The lease it was admitted under, within the pool and the incarnation.
    pub lease: u64,
    /// Who pays.
    pub package: PackageId,
    /// How much.
    pub units: Units,
}

/// What is known of a call when its billable head is about to go to the client; written down before it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// Numbers the calls of one core of one incarnation.
    pub call: u64,
    /// The client's own id if it sent a valid one, else ours. Not necessarily unique: clients choose.
    pub request_id: String,
    /// When the call's head was read.
    #[serde(with = "super::moment")]
    pub arrived: Timestamp,
    /// Who pays.
    pub account: AccountId,
    /// With which key; `None` on a product with open access.
    pub key: Option<KeyId>,
    /// What was called.
    pub product: ProductId,
    /// Which packages pay.
    pub parts: Vec<ChargePart>,
    /// The seller's status.
    pub status: u16,
    /// Whether the answer is an event stream.
    pub streamed: bool,
    /// How many times the gateway sent the request to the seller.
    pub attempts: u8,
}

/// A charged call, with its end. Serialised, it is a line of the usage export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsageRecord {
    /// Which gateway, in which of its runs.
    pub incarnation: Incarnation,
    /// Which core of it; with `call` and `incarnation` unique for ever.
    pub core: u16,
    /// What was charged.
    #[serde(flatten)]
    pub charge: Charge,
    /// The sum over `parts`, or zero when the charge was taken back.
    pub units: Units,
    /// How the call ended.
    pub ending: Ending,
    /// When it ended; `None` if the gateway died before.
    pub ended: Option<Timestamp>,
}
