//! What Tollgate tells of itself: every metric, declared once, and the access log. Nothing here decides anything.

pub mod access;
pub mod log;
pub mod metrics;
