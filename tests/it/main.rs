//! Black-box tests: a real gateway process, a scripted seller, raw clients. Each test makes its own world and may run
//! beside any other.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]
#![expect(clippy::print_stderr, reason = "a failed test shows what its gateway said")]

#[path = "../harness/mod.rs"]
#[expect(dead_code, reason = "shared with the chaos runs, which use other parts of it")]
mod harness;

#[path = "../../benches/chaos/oracle.rs"]
mod chaos_oracle;

mod apps;
mod audit;
mod bounds;
mod canary;
mod client_address;
mod cors;
mod credentials;
mod demo;
mod forgeries;
mod front_door;
mod h2;
mod h2_malformed;
mod h2_slow;
mod hang_up;
mod http_api;
mod keys;
mod languages;
mod limits;
mod llm;
mod metering;
mod money;
mod networks;
mod operating;
mod redis;
mod replay;
mod rotation;
mod seller;
mod sellers_secrets;
mod signature;
mod sse;
mod stopping;
mod tidy;
mod tls;
mod usage;
