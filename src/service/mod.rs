//! Use-cases: what the data plane and the admin listener ask for, in terms of the domain and the ports.

pub mod accounts;
pub mod attendance;
pub mod audit;
pub mod authenticate;
pub mod budgets;
pub mod commands;
pub mod desk;
pub mod dump;
pub mod failures;
#[cfg(all(test, feature = "shuttle"))]
mod interleavings;
pub mod ledger;
pub mod limits;
pub mod meter;
pub mod receipts;
pub mod recovery;
pub mod replay;
pub mod supply;
mod sync;
pub mod tally;
pub mod unbooked;

#[cfg(test)]
mod tests;
