//! Tollgate: a reverse proxy that sells API calls.
pub mod adapter;
pub mod config;
pub mod domain;
pub mod ports;
pub mod protocol;
pub mod proxy;
pub mod service;
pub mod telemetry;
