//! What the services need of the outside world, as traits. The adapters implement them, one technology each.

pub mod account_store;
pub mod call_records;
pub mod clock;
pub mod gateways;
pub mod journal;
pub mod replay;

use std::pin::Pin;

/// A future behind a trait object. Only used off the path of a warm call.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
