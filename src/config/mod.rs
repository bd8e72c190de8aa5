//! The configuration. `raw` is what a file says, this is what the program runs on: checked, complete, and typed.
//!
//! A file becomes a [`Config`] in four steps, each of which notes its problems and goes on: `tree` (YAML into texts
//! that know their places), `interpolate` (`${…}`), `read` (the tree into the raw shape), `check` (the rules).

mod address;
mod bounds;
mod certificate;
mod check;
mod header_rule;
mod interpolate;
mod load;
mod pattern;
mod problem;
mod raw;
mod read;
mod scalar;
mod store;
mod suggest;
mod syntax;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method};
use secrecy::SecretString;

use crate::domain::credential::{Scheme, SignatureRule};
use crate::domain::id::{GatewayId, OfferId, ProductId};
use crate::domain::limit::{EachLimits, Limits as CallLimits};
use crate::domain::network::{Network, ProxyHeader};
use crate::domain::offer::Offer;
use crate::domain::signing::{PublicKey, SigningKey};

pub use address::host_name;
pub use bounds::KEEP_MIN;
pub use certificate::{CertificateFault, CertificateFiles, Pair, PairBytes};
pub use header_rule::HeaderRule;
pub use load::{FILE_BYTES_MAX, json_schema, load, load_again, parse};
pub use problem::{PROBLEMS_MAX, Problem, Problems};
pub use store::{ClientCertificate, HostPort, Login, Redis, RedisAddress, RedisServers, RedisTls, Store};

/// Everything the program runs on.
#[derive(Debug, Clone)]
pub struct Config {
    /// This process's name in records.
    pub gateway: GatewayId,
    /// Data-plane cores, at least 1.
    pub workers: usize,
    /// Holds the journal, and the store if it is embedded.
    pub data_dir: PathBuf,
    /// Where accounts are kept.
    pub store: Store,
    /// Where buyers call.
    pub data_listener: Listener,
    /// Where operators and Prometheus call.
    pub admin_listener: Listener,
    /// What stands before the data listener.
    pub proxies: Proxies,
    /// Opens the admin listener.
    pub admin_token: SecretString,
    /// Keys the hashes of API keys, at least 16 bytes.
    pub hash_key: SecretString,
    /// Encrypt the secrets of apps: the first one seals, all of them open. Empty: a key made of `hash_key` does.
    pub seal_keys: Vec<SecretString>,
    /// How callers prove who they are.
    pub credentials: Credentials,
    /// What is written where.
    pub log: Log,
    /// Bounds of the data plane.
    pub limits: Limits,
    /// The record of every metered call.
    pub journal: Journal,
    /// What signs receipts; `None`: there are none.
    pub receipts: Option<Receipts>,
    /// How long open streams may go on after SIGTERM.
    pub drain_timeout: Duration,
    /// What is sold.
    pub catalog: Arc<Catalog>,
}

/// Where one kind of clients calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Address and port; port 0 picks a free one.
    pub address: SocketAddr,
    /// What is shown to clients; `None`: TLS is not spoken.
    pub tls: Option<ServerTls>,
    /// Whether HTTP/2 is spoken without TLS, to clients that begin with it.
    pub h2c: bool,
}

/// What a listener shows to clients, and asks of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// At least one. Shown is the first that is made out to the name the client asks for, else the first.
    pub certificates: Vec<CertificateFiles>,
    /// PEM file with authorities: a client needs a certificate of one of them. `None`: none is asked for.
    pub client_ca_file: Option<PathBuf>,
}

/// What signs receipts.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipts {
    /// The key's name.
    pub key_id: String,
    /// The key.
    pub key: SigningKey,
    /// Those that have signed earlier, by name.
    pub earlier: Vec<(String, PublicKey)>,
}

/// What is written where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Least severe level of the program's own messages (standard error, JSON lines).
    pub level: LogLevel,
    /// One JSON line a call.
    pub access: AccessLog,
}

/// Severity of the program's own messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the field's")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// To standard output.
    Stdout,
    /// To a file, appended; opened anew on reload.
    File(PathBuf),
}

/// The record of every metered call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// Size of a file, in bytes.
    pub segment_bytes: u64,
    /// How long records are kept at least.
    pub keep: Duration,
    /// What must be done with older ones before they are removed.
    pub remove: Remove,
}

/// What must be done with old records before they are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remove {
    /// They are in the books, and their usage was exported.
    Exported,
    /// They are in the books.
    Settled,
    /// None is ever removed.
    Never,
}

/// Bounds of the data plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Open client connections; for one more the oldest without a call is closed.
    pub connections: usize,
    /// From a request head's first byte to its last.
    pub head_timeout: Duration,
    /// Between two requests of one connection, and for a client that reads nothing of its answer.
    pub idle_timeout: Duration,
    /// After that the client is asked to come back on a new connection.
    pub connection_age: Duration,
    /// Between two reads of a request body.
    pub body_timeout: Duration,
    /// Request bodies held in memory at one time, over all calls, in bytes.
    pub buffered_bytes: u64,
    /// A body that is read for its signature goes to a temporary file from this size on, in bytes.
    pub spool_above: u64,
    /// Request bodies in such files at one time, over all calls, in bytes.
    pub spooled_bytes: u64,
    /// Failed authentications in a minute that are heard from one address, and with one credential.
    pub failed_auth_per_minute: NonZeroU32,
    /// Used signatures that are remembered at one time, over all gateways that share a store.
    pub used_signatures: usize,
}

/// Proxies before the data listener that are trusted to say where calls come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxies {
    /// Their addresses.
    pub trusted: Vec<Network>,
    /// The header in which they say it.
    pub header: ProxyHeader,
    /// Whether their connections begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
}

/// How callers prove who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Whether AppCodes are accepted over connections without TLS.
    pub allow_app_code_without_tls: bool,
    /// Readings of a request besides the base rule under which a signature is accepted.
    pub signature_fallbacks: Vec<SignatureRule>,
}

/// What is sold.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// By id.
    pub products: BTreeMap<ProductId, Arc<Product>>,
    /// By id.
    pub offers: BTreeMap<OfferId, Arc<Offer>>,
}

/// One product: its route, its upstream, its meter.
#[derive(Debug, Clone)]
pub struct Product {
    /// Its name.
    pub id: ProductId,
    /// How calls find it.
    pub kind: ProductKind,
    /// Who may call.
    pub access: Access,
    /// How callers may prove who they are; none twice.
    pub accept: Vec<Scheme>,
    /// Whether a signature may leave the body out.
    pub unsigned_payload: bool,
    /// Whether a signature is accepted once.
    pub replay_protection: bool,
    /// Whether a refusal shows what was signed, without values.
    pub signature_debug: bool,
    /// The query parameter that may hold an AppCode.
    pub app_code_query: Option<String>,
    /// What is counted.
    pub meter: Meter,
    /// Where a buyer can get more; shown when a package is used up.
    pub buy_url: Option<String>,
    /// Where calls go.
    pub upstream: Arc<Upstream>,
    /// How long a seller may take.
    pub timeouts: Timeouts,
    /// Largest request body that is read whole, in bytes.
    pub body_max: u64,
    /// What a charge becomes when the seller breaks off; `None`: void for a plain answer shorter than its
    /// Content-Length, bill for a stream that had an event.
    pub on_seller_break: Option<BreakRule>,
    /// What a call waits for at its end.
    pub durability: Durability,
    /// How many calls it gets in all.
    pub limits: CallLimits,
    /// How many calls each of its callers may make that has no limits of its own.
    pub each: EachLimits,
    /// In which request header the buyer names its own user, if in any.
    pub end_user_header: Option<HeaderName>,
    /// Which of the seller's headers reach the buyer.
    pub response_headers: HeaderRule,
    /// Whose pages may call it.
    pub cors: CorsRule,
}

/// How calls find a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProductKind {
    /// OpenAI-compatible: under `/v1/infers/{deployment}/v1`, or under `/v1` by the body's `model`.
    Llm {
        /// The path segment under which the marketplace publishes it.
        deployment: String,
        /// The names that buyers use, each with the seller's own. Empty: every name passes as it is.
        models: BTreeMap<String, String>,
    },
    /// Any other HTTP API.
    Http {
        /// Only calls to this host (without port, lower case); `None`: any.
        host: Option<String>,
        /// Only paths under this prefix, segment by segment. Begins with a slash.
        path: String,
        /// Whether the prefix is taken off before forwarding.
        strip_path: bool,
    },
}

/// Who may call a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Those who prove who they are.
    Keys,
    /// Everybody.
    Open,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meter {
    /// One unit a billable call.
    Calls,
    /// Nothing.
    None,
}

/// What becomes of a charge when the seller breaks off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakRule {
    /// It stays.
    Bill,
    /// It is taken back.
    Void,
}

/// What a charge survives when the client has the whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The death of the process: nobody waits.
    Os,
    /// The loss of power: the answer's end waits for the disk.
    Disk,
}

/// Whose pages may call a product from a browser, and what they may read of its answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsRule {
    /// Whose.
    pub origins: Origins,
    /// With which methods.
    pub methods: Methods,
    /// The seller's headers that they may read, besides the gateway's own.
    pub exposed: Vec<HeaderName>,
    /// For how long browsers may remember it.
    pub max_age: Duration,
}

/// Origins of pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// All.
    Any,
    /// As browsers write them; none at all if it is empty.
    These(Vec<String>),
}

/// Methods that pages may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Methods {
    /// All.
    Any,
    /// These; none at all if it is empty.
    These(Vec<Method>),
}

/// A seller's address.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Whether TLS is spoken.
    pub tls: Option<UpstreamTls>,
    /// Host to connect to: a name or an address, without brackets.
    pub host: String,
    /// Port to connect to.
    pub port: u16,
    /// What the Host header says.
    pub authority: Authority,
    /// Prefix of every path, without a slash at its end; may be empty.
    pub base_path: String,
    /// Added to every request, over what the buyer sent: the seller's credential above all. Marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Idle connections kept per core.
    pub idle_connections: usize,
}

/// How an upstream's certificate is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// PEM file with the only authorities that are trusted; `None`: the public ones.
    pub ca_file: Option<PathBuf>,
}

/// How long a seller may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To accept a connection.
    pub connect: Duration,
    /// From the request's last byte to the answer's head.
    pub head: Duration,
    /// Between two parts of the answer's body.
    pub idle: Duration,
    /// From the request's arrival to the answer's last byte.
    pub total: Duration,
}
