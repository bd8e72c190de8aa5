//! The data plane: from a client's bytes to a seller's and back. `phases` tells the life of a call; the others are its
//! steps. Quota and money are decided in `service`, statuses of refusals in `rejection`, nowhere else.

pub mod arrival;
pub mod body;
pub mod body_kind;
pub mod catalog;
pub mod client;
pub mod client_body;
pub mod conn;
pub mod connection;
pub mod context;
pub mod cors;
pub mod forward;
pub mod gate;
pub mod headers;
pub mod http2;
pub mod identify;
pub mod joined;
pub mod limits;
pub mod link;
pub mod models;
pub mod patience;
pub mod phases;
pub mod receipts;
pub mod rejection;
pub mod request_body;
pub mod route;
pub mod secrets;
pub mod seller;
pub mod sellers_head;
pub mod server;
pub mod socket;
pub mod spool;
pub mod whole_body;
pub mod words;
