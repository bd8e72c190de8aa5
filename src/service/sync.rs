//! What `supply` and `budgets` synchronise with: the standard library's, or shuttle's, which tries the interleavings of
//! threads (`cargo test --features shuttle --lib interleavings`).

#[cfg(feature = "shuttle")]
pub(super) use shuttle::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
#[cfg(feature = "shuttle")]
pub(super) use shuttle::sync::{Mutex, MutexGuard};
#[cfg(not(feature = "shuttle"))]
pub(super) use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
#[cfg(not(feature = "shuttle"))]
pub(super) use std::sync::{Mutex, MutexGuard};
