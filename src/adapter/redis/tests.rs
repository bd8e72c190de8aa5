//! What only this store does: its keys, its connections, what it refuses to work with. What every store does is in
//! `adapter/conformance.rs`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(in crate::adapter) use super::servers::{Cluster, Watched, redis_binary, valkey_binary};
use super::servers::{MASTER, Server, try_ask, wait_until};
use super::*;
use crate::adapter::clock::{SystemClock, SystemEntropy};
use crate::config::{HostPort, Login, RedisAddress, RedisServers};
use crate::ports::clock::Clock;

/// Where the servers of a test are.
#[derive(Clone)]
pub(in crate::adapter) enum Place {
    Alone(Arc<Server>),
    Watched(Arc<Mutex<Watched>>),
    Cluster(Arc<Mutex<Cluster>>),
}

fn local(port: u16) -> HostPort {
    HostPort { host: "127.0.0.1".to_owned(), port }
}

impl Place {
    /// One server, of a given program.
    pub(in crate::adapter) fn alone(binary: PathBuf) -> Self {
        Self::Alone(Arc::new(Server::of(binary, 0, &[])))
    }

    fn servers(&self) -> RedisServers {
        match self {
            Self::Alone(server) => RedisServers::One(RedisAddress::Socket(server.socket())),
            Self::Watched(watched) => RedisServers::Sentinel {
                master: MASTER.to_owned(),
                sentinels: watched.lock().unwrap().sentinels.iter().map(|sentinel| local(sentinel.port)).collect(),
                login: Login::default(),
            },
            Self::Cluster(cluster) => RedisServers::Cluster(
                cluster.lock().unwrap().addresses().into_iter().map(|(_, port)| local(port)).collect(),
            ),
        }
    }

    /// Carries out one command behind the store's back.
    fn ask(&self, command: &redis::Cmd) -> Value {
        match self {
            Self::Alone(server) => command.query(&mut server.connection()),
            Self::Watched(watched) => {
                let watched = watched.lock().unwrap();
                let primary = watched.pair.iter().find(|server| server.is_primary()).unwrap();
                command.query(&mut primary.connection())
            }
            Self::Cluster(cluster) => command.query(&mut cluster.lock().unwrap().connection()),
        }
        .unwrap()
    }
}

/// Settings for servers of a test, which may be slow because the machine is busy.
fn settings(servers: RedisServers, prefix: &str) -> Redis {
    Redis {
        servers,
        database: 0,
        prefix: prefix.to_owned(),
        tls: None,
        login: Login::default(),
        timeout: Duration::from_secs(5),
        volatile: true,
        durable: false,
    }
}

/// A store whose server's clock is the test's.
pub(in crate::adapter) struct World {
    pub(in crate::adapter) store: Arc<RedisStore>,
    place: Place,
}

impl World {
    pub(in crate::adapter) async fn open(place: Place, prefix: &str, clock: Arc<dyn Clock>) -> Self {
        let scripts = Scripts { clock: Some(clock), ..Scripts::new() };
        let settings = settings(place.servers(), prefix);
        let store = RedisStore::with(&settings, Arc::new(SystemEntropy), scripts).await.unwrap();
        Self { store: Arc::new(store), place }
    }

    fn keys(&self) -> &Keys {
        &self.store.shared.keys
    }

    /// The ids of an account's events.
    pub(in crate::adapter) fn outbox(&self, account: &AccountId) -> Vec<String> {
        let mut question = cmd("XRANGE");
        question.arg(self.keys().outbox(bucket_of(account))).arg("-").arg("+");
        let entries: Vec<(String, std::collections::HashMap<String, String>)> =
            redis::from_redis_value(self.place.ask(&question)).unwrap();
        let of_account = entries.into_iter().filter(|(_, fields)| fields["account"] == account.as_str());
        of_account.map(|(_, mut fields)| fields.remove("id").unwrap()).collect()
    }

    /// Replaces a document's text.
    pub(in crate::adapter) fn overwrite(&self, account: &AccountId, name: &str, body: &str) {
        let command = match name.strip_prefix("pool/") {
            Some(product) => cmd("HSET").arg(self.keys().pools(account)).arg(product).arg(body).to_owned(),
            None => cmd("SET").arg(self.keys().account(account)).arg(body).to_owned(),
        };
        self.place.ask(&command);
    }

    /// Makes every bucket that of another life.
    pub(in crate::adapter) fn forget_epochs(&self) {
        for bucket in keys::buckets() {
            self.place.ask(cmd("HDEL").arg(self.keys().server(bucket)).arg("epoch"));
        }
    }
}
