//! The outside world, one technology each: implementations of the ports. No rule of the marketplace is decided here.

pub mod clock;
#[cfg(test)]
mod conformance;
mod documents;
pub mod memory;
pub mod sqlite;
