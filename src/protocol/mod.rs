//! Bytes in, values out: what a call's raw bytes say, and the few bytes we write ourselves.
//!
//! No I/O, no async, no clock and no rule of metering live here. Every parser meets hostile input:
//! it neither panics nor holds more than its named bounds, however the bytes are cut.

pub mod answer;
pub mod api_key;
pub mod app_text;
pub mod chat;
mod class;
pub mod credential;
pub mod forwarded;
pub mod frames;
pub mod framing;
pub mod head;
pub mod keyring;
pub mod language;
pub mod proxy_header;
pub mod receipt;
pub mod request_id;
pub mod signature;
pub mod sse;
pub mod target;
