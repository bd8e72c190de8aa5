//! Tollgate: a reverse proxy that sells API calls.
pub mod protocol;
