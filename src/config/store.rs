//! Where accounts are kept: in a file of this gateway, or on a Redis or Valkey server that several gateways share.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

/// Where accounts are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// In a file of the data directory, for one gateway.
    Embedded,
    /// On a server that several gateways share.
    Redis(Box<Redis>),
}

/// One command to the embedded store takes at most so long, in the eyes of a call: a disk of our own is slow at times,
/// and there is no other store to ask meanwhile.
const EMBEDDED_TIMEOUT: Duration = Duration::from_millis(800);
/// A call may wait for the store longer than one command does, since it needs more than one answer if its account is
/// cold, and a recall. What is left of the 250 ms that are promised is for all else that a call does here.
const PATIENCE_BEYOND_TIMEOUT: Duration = Duration::from_millis(200);

impl Store {
    /// The longest that one call waits for the store, everything it needs of it taken together.
    pub fn patience(&self) -> Duration {
        let timeout = match self {
            Self::Embedded => EMBEDDED_TIMEOUT,
            Self::Redis(redis) => redis.timeout,
        };
        timeout.saturating_add(PATIENCE_BEYOND_TIMEOUT)
    }
}

/// A Redis or Valkey server, and how it is used.
#[derive(Debug, Clone)]
pub struct Redis {
    /// Where it is.
    pub servers: RedisServers,
    /// Number of the database; 0 in a cluster.
    pub database: i64,
    /// What every key begins with: installations that share a server have different ones.
    pub prefix: String,
    /// Whether TLS is spoken, with every server.
    pub tls: Option<RedisTls>,
    /// Who we are; `None`: the server's default user, or nobody.
    pub login: Login,
    /// Longest wait for the answer to a command.
    pub timeout: Duration,
    /// The operator accepts a server without persistence.
    pub volatile: bool,
    /// The operator says that the server loses no write that it has answered.
    pub durable: bool,
}

impl PartialEq for Redis {
    fn eq(&self, other: &Self) -> bool {
        let Self { servers, database, prefix, tls, login, timeout, volatile, durable } = self;
        (servers, database, prefix, tls) == (&other.servers, &other.database, &other.prefix, &other.tls)
            && (login, timeout, volatile, durable) == (&other.login, &other.timeout, &other.volatile, &other.durable)
    }
}

impl Eq for Redis {}

/// Where a Redis or Valkey server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisServers {
    /// One server.
    One(RedisAddress),
    /// Whichever server the Sentinels name as the primary.
    Sentinel {
        /// The name under which the Sentinels watch it.
        master: String,
        /// The Sentinels; at least one.
        sentinels: Vec<HostPort>,
        /// Who we are to the Sentinels.
        login: Login,
    },
    /// A Cluster: some of its nodes, at least one, that name the others.
    Cluster(Vec<HostPort>),
}

/// Where one server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisAddress {
    /// On a network.
    Network(HostPort),
    /// On a socket of this machine.
    Socket(PathBuf),
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address, without brackets.
    pub host: String,
    /// From 1.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What a server is told about who connects.
#[derive(Debug, Clone, Default)]
pub struct Login {
    /// The ACL user; `None`: the server's default user.
    pub username: Option<String>,
    /// Its password; `None`: none is sent.
    pub password: Option<SecretString>,
}

impl PartialEq for Login {
    fn eq(&self, other: &Self) -> bool {
        fn secret(login: &Login) -> Option<&str> {
            login.password.as_ref().map(ExposeSecret::expose_secret)
        }
        self.username == other.username && secret(self) == secret(other)
    }
}

impl Eq for Login {}

/// How the server's certificate is checked, and which one it is shown. All are names of PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RedisTls {
    /// The only authorities that are trusted; `None`: the public ones.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate and its key; `None`: none is shown.
    pub client: Option<ClientCertificate>,
}

/// The certificate by which a server knows us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM file of the certificate and its chain.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
}
