//! Ways to the server: standalone, by Sentinels, a Cluster; plain or with TLS. What is done with a connection is
//! elsewhere.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, TlsMode, Value,
};
use secrecy::ExposeSecret;
use tokio::sync::Mutex;

use crate::config::{HostPort, Login, Redis, RedisAddress, RedisServers, RedisTls};

/// Longest wait for a connection, with its greetings.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a command is tried in a Cluster whose slots move, within its own time limit.
const CLUSTER_TRIES: u32 = 4;
/// Shortest and longest wait between these, in milliseconds.
const CLUSTER_WAIT_MS: (u64, u64) = (5, 50);

/// A way to the server.
pub(super) enum Dial {
    One(Box<Client>),
    Sentinel(Box<Mutex<SentinelClient>>),
    Cluster(Box<Nodes>),
}

/// A Cluster's nodes, as far as they are named.
pub(super) struct Nodes {
    all: ClusterClient,
    each: Vec<Client>,
    /// Whose turn it is to bring notices.
    next: AtomicUsize,
}

/// A connection, shared by all who ask.
#[derive(Clone)]
pub(super) enum Wire {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Wire {
    /// Sends a command and waits for its answer.
    pub(super) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::One(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }
}

/// Files of certificates, read.
fn certificates(tls: &RedisTls) -> RedisResult<TlsCertificates> {
    let root_cert = tls.ca_file.as_ref().map(std::fs::read).transpose()?;
    let client_tls = match &tls.client {
        Some(client) => Some(ClientTlsConfig {
            client_cert: std::fs::read(&client.certificate)?,
            client_key: std::fs::read(&client.key)?,
        }),
        None => None,
    };
    Ok(TlsCertificates { client_tls, root_cert })
}

fn address(node: &HostPort, tls: bool) -> ConnectionAddr {
    let HostPort { host, port } = node.clone();
    if tls {
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    }
}

fn settings(login: &Login, database: i64) -> RedisConnectionInfo {
    let mut settings = RedisConnectionInfo::default().set_db(database).set_skip_set_lib_name();
    if let Some(username) = &login.username {
        settings = settings.set_username(username);
    }
    if let Some(password) = &login.password {
        settings = settings.set_password(password.expose_secret());
    }
    settings
}

fn one(address: ConnectionAddr, login: &Login, database: i64) -> RedisResult<ConnectionInfo> {
    Ok(address.into_connection_info()?.set_redis_settings(settings(login, database)))
}

fn client(info: ConnectionInfo, certificates: Option<&TlsCertificates>) -> RedisResult<Client> {
    match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates.clone()),
        None => Client::open(info),
    }
}

impl Dial {
    /// Prepares a way; nothing is connected yet.
    pub(super) fn new(config: &Redis) -> RedisResult<Self> {
        let certificates = config.tls.as_ref().map(certificates).transpose()?;
        let (tls, login) = (certificates.is_some(), &config.login);
        match &config.servers {
            RedisServers::One(RedisAddress::Network(node)) => {
                let info = one(address(node, tls), login, config.database)?;
                Ok(Self::One(Box::new(client(info, certificates.as_ref())?)))
            }
            RedisServers::One(RedisAddress::Socket(path)) => {
                let info = one(ConnectionAddr::Unix(path.clone()), login, config.database)?;
                Ok(Self::One(Box::new(client(info, None)?)))
            }
            RedisServers::Sentinel { master, sentinels, login: to_sentinels } => {
                let builder = sentinel(master, sentinels, certificates)?;
                let builder = with_logins(builder, (login, config.database), to_sentinels);
                Ok(Self::Sentinel(Box::new(Mutex::new(builder.build()?))))
            }
            RedisServers::Cluster(nodes) => {
                let infos = nodes.iter().map(|node| one(address(node, tls), login, 0));
                let infos: Vec<ConnectionInfo> = infos.collect::<RedisResult<_>>()?;
                let each = infos.iter().map(|info| client(info.clone(), certificates.as_ref()));
                let each = each.collect::<RedisResult<_>>()?;
                let all = cluster(infos, config, certificates)?;
                Ok(Self::Cluster(Box::new(Nodes { all, each, next: AtomicUsize::new(0) })))
            }
        }
    }

    /// Connects for commands.
    pub(super) async fn wire(&self, timeout: Duration) -> RedisResult<Wire> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(timeout));
        Ok(match self {
            Self::One(client) => Wire::One(client.get_multiplexed_async_connection_with_config(&config).await?),
            Self::Sentinel(sentinels) => {
                Wire::One(sentinels.lock().await.get_async_connection_with_config(&config).await?)
            }
            Self::Cluster(nodes) => Wire::Cluster(nodes.all.get_async_connection().await?),
        })
    }

    /// Connects for notices. In a Cluster any node will do: each passes notices on to all others.
    pub(super) async fn pubsub(&self) -> RedisResult<PubSub> {
        match self {
            Self::One(client) => client.get_async_pubsub().await,
            Self::Sentinel(sentinels) => {
                let primary = sentinels.lock().await.async_get_client().await?;
                primary.get_async_pubsub().await
            }
            Self::Cluster(nodes) => nodes.pubsub().await,
        }
    }
}

impl Nodes {
    /// Another node each time, in case that one answers and yet hears nothing.
    async fn pubsub(&self) -> RedisResult<PubSub> {
        let number = self.each.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed).checked_rem(number).unwrap_or(0);
        let mut failure = RedisError::from(std::io::Error::other("no node of the Cluster is named"));
        for node in self.each.iter().cycle().skip(first).take(number) {
            match node.get_async_pubsub().await {
                Ok(feed) => return Ok(feed),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

fn sentinel(
    master: &str,
    sentinels: &[HostPort],
    certificates: Option<TlsCertificates>,
) -> RedisResult<SentinelClientBuilder> {
    let tls = certificates.is_some();
    let addresses = sentinels.iter().map(|node| address(node, tls));
    let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?;
    if let Some(certificates) = certificates {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_certificates(certificates);
    }
    Ok(builder)
}

fn with_logins(
    mut builder: SentinelClientBuilder,
    (to_server, database): (&Login, i64),
    to_sentinels: &Login,
) -> SentinelClientBuilder {
    builder = builder.set_client_to_redis_db(database);
    if let Some(username) = &to_server.username {
        builder = builder.set_client_to_redis_username(username);
    }
    if let Some(password) = &to_server.password {
        builder = builder.set_client_to_redis_password(password.expose_secret());
    }
    if let Some(username) = &to_sentinels.username {
        builder = builder.set_client_to_sentinel_username(username);
    }
    if let Some(password) = &to_sentinels.password {
        builder = builder.set_client_to_sentinel_password(password.expose_secret());
    }
    builder
}

fn cluster(
    nodes: Vec<ConnectionInfo>,
    config: &Redis,
    certificates: Option<TlsCertificates>,
) -> RedisResult<ClusterClient> {
    let mut builder = ClusterClient::builder(nodes)
        .connection_timeout(CONNECT_TIMEOUT)
        .response_timeout(config.timeout)
        .overall_response_timeout(Some(config.timeout))
        .retries(CLUSTER_TRIES)
        .min_retry_wait(CLUSTER_WAIT_MS.0)
        .max_retry_wait(CLUSTER_WAIT_MS.1);
    if let Some(username) = &config.login.username {
        builder = builder.username(username);
    }
    if let Some(password) = &config.login.password {
        builder = builder.password(password.expose_secret());
    }
    if let Some(certificates) = certificates {
        builder = builder.tls(TlsMode::Secure).certs(certificates);
    }
    builder.build()
}
