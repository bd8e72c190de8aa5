//! The data plane: from a client's bytes to a seller's and back. `phases` tells the life of a call; the others are its
//! steps. Quota and money are decided in `service`, statuses of refusals in `rejection`, nowhere else.

pub mod body;
pub mod catalog;
mod conn;
mod context;
mod cors;
mod forward;
mod gate;
mod headers;
mod models;
mod phases;
pub mod rejection;
mod request_body;
mod route;
mod seller;
pub mod server;
