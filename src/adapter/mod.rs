//! One technology each, behind the traits of `ports`. Siblings never import each other.

mod boot;
pub mod clock;
#[cfg(test)]
mod conformance;
mod documents;
mod gateways;
pub mod journal;
pub mod memory;
pub mod memory_journal;
pub mod redis;
pub mod sqlite;
