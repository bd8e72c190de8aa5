//! The rules of metering: plain values and total functions.
//!
//! Nothing here does I/O, awaits, or asks for the time: whoever calls brings `now`. The types derive serde only
//! because the stored documents are these values.

pub mod account;
pub mod allocation;
pub mod amount;
pub mod app;
pub mod billable;
pub mod budget;
pub mod command;
pub mod credential;
pub mod event;
pub mod id;
pub mod key;
pub mod lease;
pub mod limit;
pub mod moment;
pub mod money;
pub mod network;
pub mod offer;
pub mod package;
pub mod pool;
pub mod report;
pub mod settle;
pub mod signing;
pub mod usage;
