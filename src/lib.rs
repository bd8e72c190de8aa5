//! Tollgate: a reverse proxy that sells API calls.
//!
//! ```text
//! domain/      the rules of metering: pure functions over an account's documents
//! protocol/    bytes in, values out: heads, bodies, event streams, keys
//! ports/       what the services need of the outside world, as traits
//! config/      a file becomes a checked Config, or a list of problems
//! telemetry/   every metric, the access log, the program's own messages
//! tls/         TLS of the listeners: certificates that are read anew when their files change, handshakes
//! service/     authenticate, meter, exchange with the store, recover, operators' use-cases
//! adapter/     SQLite, memory, the journal's files, the clock: one technology each
//! proxy/       the data plane: gate, routes, sellers, the life of a call (`proxy::phases`)
//! admin/       the admin listener: health, metrics, accounts, keys, packages
//! simulate/    random histories of gateways and a store against a reference model
//! app          builds every part from a Config, stops them in order
//! cli, demo    the command line; the tour that `tollgate demo` gives
//! ```
//!
//! Imports go downwards in this list's sense; the exact table is held by a test (`tests/it/tidy.rs`) and explained in
//! `docs/architecture.md`, which also tells a call's life in one page.

pub mod adapter;
pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod demo;

pub mod domain;
pub mod ports;
pub mod protocol;
pub mod proxy;
pub mod service;
pub mod simulate;
pub mod telemetry;
pub mod tls;
