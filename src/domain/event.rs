//! What happened to an account's books that someone may want to hear of. Events leave through the outbox of the
//! commit that made them; their ids make it harmless to deliver one twice.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::amount::Units;
use super::id::{PackageId, ProductId};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A package came into the pool.
    PackageAdded {
        /// Whose calls it pays.
        product: ProductId,
        /// Which one.
        package: PackageId,
    },
    /// The last unit of a package was used and counted.
    PackageUsedUp {
        /// Whose calls it paid.
        product: ProductId,
        /// Which one.
        package: PackageId,
    },
    /// A package's validity ended; what was free is forfeited.
    PackageExpired {
        /// Whose calls it paid.
        product: ProductId,
        /// Which one.
        package: PackageId,
        /// What nobody can use any more.
        forfeited: Units,
    },
    /// More was used than the package held: the trace of a double fault, for the operator to see.
    Overrun {
        /// Whose calls these were.
        product: ProductId,
        /// Which package.
        package: PackageId,
        /// By how much: in all, or, if the package is not there, as much as waited for it in vain.
        overrun: Units,
        /// Since when that waited: use of the same package may come and wait again, as much as before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        waited_since: Option<Timestamp>,
    },
    /// A lost journal may know of use that the books do not: these units are not for sale until an operator decides.
    Suspended {
        /// Whose units.
        product: ProductId,
        /// Which package.
        package: PackageId,
        /// How many, in all.
        suspense: Units,
    },
}

impl Event {
    /// Names this occurrence: the same for a repeated delivery, another for the next occurrence.
    pub fn id(&self) -> String {
        match self {
            Self::PackageAdded { package, .. } => format!("{package}/added"),
            Self::PackageUsedUp { package, .. } => format!("{package}/used_up"),
            Self::PackageExpired { package, .. } => format!("{package}/expired"),
            Self::Overrun { package, overrun, waited_since: None, .. } => format!("{package}/overrun/{overrun}"),
            Self::Overrun { package, overrun, waited_since: Some(since), .. } => {
                format!("{package}/overrun/{overrun}/{since}")
            }
            Self::Suspended { package, suspense, .. } => format!("{package}/suspended/{suspense}"),
        }
    }
}
