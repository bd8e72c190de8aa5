//! Which headers travel. Hop-by-hop headers end here, the buyer's credentials never reach a seller, and only what a
//! product's rule names comes back.

use std::collections::HashSet;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::catalog::Sold;
use crate::config::HeaderRule;

/// Headers of one hop (RFC 9110 section 7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
/// What a buyer proves itself with, and what it has no business to tell a seller.
const BUYERS_OWN: [HeaderName; 6] = [
    header::AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-apig-appcode"),
    HeaderName::from_static("x-real-ip"),
    header::FORWARDED,
    header::EXPECT,
];
/// Prefixes of headers that only a gateway may set.
const IDENTITY_PREFIXES: [&str; 4] = ["x-tollgate-", "x-consumer-", "x-app-", "x-forwarded-"];

/// Removes what ends at this hop, the headers that `Connection` names included.
fn end_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Makes a buyer's headers a request to a seller: the buyer's credentials out, the seller's in.
pub fn to_seller(headers: &mut HeaderMap, sold: &Sold, client: IpAddr, request_id: &HeaderValue) {
    end_hop(headers);
    headers.remove(header::CONTENT_LENGTH); // the engine writes it from the body that is sent
    for name in &BUYERS_OWN {
        headers.remove(name);
    }
    let forged = |name: &HeaderName| IDENTITY_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix));
    if headers.keys().any(forged) {
        let forged: Vec<HeaderName> = headers.keys().filter(|name| forged(name)).cloned().collect();
        for name in forged {
            headers.remove(name);
        }
    }
    headers.insert(header::HOST, sold.host.clone());
    headers.insert("x-request-id", request_id.clone());
    if let Ok(client) = HeaderValue::from_str(&client.to_string()) {
        headers.insert("x-forwarded-for", client);
    }
    if sold.llm {
        // The gateway must be able to read an event stream to know whether it began.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    for (name, value) in &sold.product.upstream.headers {
        headers.insert(name.clone(), value.clone());
    }
}

/// A product's rule for a seller's headers, ready for look-up.
#[derive(Debug)]
pub struct Filter {
    /// Those that are allowed by their full names: nearly all that sellers send.
    names: HashSet<HeaderName>,
    rule: HeaderRule,
}

impl Filter {
    /// Prepares a rule.
    pub fn new(rule: &HeaderRule) -> Self {
        let names = rule.allowed.iter().filter(|name| !name.contains('*'));
        Self { names: names.filter_map(|name| name.parse().ok()).collect(), rule: rule.clone() }
    }

    fn passes(&self, name: &HeaderName) -> bool {
        self.names.contains(name) || self.rule.allows(name.as_str())
    }

    /// Leaves of a seller's headers what may reach the buyer.
    pub fn to_buyer(&self, headers: &mut HeaderMap) {
        end_hop(headers);
        if headers.keys().all(|name| self.passes(name)) {
            return;
        }
        let stopped: Vec<HeaderName> = headers.keys().filter(|name| !self.passes(name)).cloned().collect();
        for name in stopped {
            headers.remove(name);
        }
    }
}
