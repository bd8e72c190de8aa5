//! The store's side of a round: a server alone, a primary with a replica, one with Sentinels, a Cluster; with the
//! persistence that the case asks for. What blocks happens on a thread of its own, so that the load goes on.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::redis::{Cluster, MASTER, Server, Watched, redis_binary, valkey_binary, wait_until};

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Engine {
    Redis,
    /// Named by `$TOLLGATE_VALKEY_SERVER`.
    Valkey,
}

impl Engine {
    /// Where it is; `None`: it is not here.
    pub(crate) fn binary(self) -> Option<PathBuf> {
        match self {
            Self::Redis => Some(redis_binary()),
            Self::Valkey => valkey_binary(),
        }
    }
}

/// What a server writes to its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeping {
    Nothing,
    /// Snapshots when told to, so that a restart forgets everything since.
    Snapshots,
    /// AOF with this `appendfsync`.
    Log(&'static str),
}

/// How servers stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Alone(Keeping),
    Pair,
    Sentinels,
    Cluster,
}

enum Servers {
    Alone(Box<Server>),
    Pair(Box<[Server; 2]>),
    Watched(Box<Watched>),
    Cluster(Cluster),
}

/// The servers of one round.
#[derive(Clone)]
pub(crate) struct Bank {
    servers: Arc<Mutex<Servers>>,
    shape: Shape,
}

impl Bank {
    pub(crate) async fn open(shape: Shape, engine: Engine) -> Self {
        let binary = engine.binary().unwrap_or_else(|| panic!("{engine:?} is not here"));
        let opened = blocking(move || match shape {
            Shape::Alone(keeping) => Servers::Alone(Box::new(Server::of(binary, 0, &arguments(keeping)))),
            Shape::Pair => {
                let one = || Server::of(binary.clone(), crate::harness::redis::free_port(), LOG_EVERYSEC);
                let pair = [one(), one()];
                pair[1].ask(&format!("REPLICAOF 127.0.0.1 {}", pair[0].port));
                wait_until("the replica follows", || pair[1].info("master_link_status") == "up");
                Servers::Pair(Box::new(pair))
            }
            Shape::Sentinels => Servers::Watched(Box::new(Watched::start())),
            Shape::Cluster => Servers::Cluster(Cluster::start()),
        });
        Self { servers: Arc::new(Mutex::new(opened.await)), shape }
    }

    /// The socket that gateways are led to; `None`: they find their servers themselves.
    pub(crate) fn socket(&self) -> Option<PathBuf> {
        match &*self.servers.lock().unwrap() {
            Servers::Alone(server) => Some(server.socket()),
            Servers::Pair(pair) => Some(pair[0].socket()),
            Servers::Watched(_) | Servers::Cluster(_) => None,
        }
    }

    /// The `store` section of a gateway; `link` is the port before the server, if there is one.
    pub(crate) fn config(&self, link: Option<std::net::SocketAddr>) -> Value {
        let volatile = !matches!(self.shape, Shape::Pair | Shape::Alone(Keeping::Log(_) | Keeping::Snapshots));
        let url = |port: u16| format!("redis://127.0.0.1:{port}");
        let redis = match (&*self.servers.lock().unwrap(), link) {
            (Servers::Alone(_) | Servers::Pair(_), link) => json!({ "url": format!("redis://{}", link.unwrap()) }),
            (Servers::Watched(watched), _) => {
                let urls: Vec<_> = watched.sentinels.iter().map(|sentinel| url(sentinel.port)).collect();
                json!({ "urls": urls, "sentinel": { "master": MASTER } })
            }
            (Servers::Cluster(cluster), _) => {
                let urls: Vec<_> = cluster.addresses().into_iter().map(|(_, port)| url(port)).collect();
                json!({ "urls": urls, "cluster": true })
            }
        };
        match volatile {
            true => json!({ "volatile": true, "redis": redis }),
            false => json!({ "redis": redis }),
        }
    }

    /// Kill -9.
    pub(crate) async fn kill(&self) {
        self.on_server(Server::kill).await;
    }

    /// Starts the server again on what it has kept.
    pub(crate) async fn restart(&self) {
        self.on_server(Server::restart).await;
    }

    pub(crate) async fn signal(&self, signal: Signal) {
        self.on_server(move |server| server.signal(signal)).await;
    }

    /// Carries out one command.
    pub(crate) async fn ask(&self, command: &'static str) {
        self.on_server(move |server| _ = server.ask(command)).await;
    }

    /// Cuts so many hundredths off the end of the log; the server must be dead.
    pub(crate) async fn cut_log(&self, percent: u64) {
        let cut = move |server: &mut Server| {
            let folder = server.dir.path().join("appendonlydir");
            let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            let log = files.filter(|path| path.to_string_lossy().ends_with(".incr.aof")).max().unwrap();
            let file = OpenOptions::new().write(true).open(log).unwrap();
            let length = file.metadata().unwrap().len();
            file.set_len(length - length * percent / 100).unwrap();
        };
        self.on_server(cut).await;
    }

    /// The replica stops following: what is written from now on it never hears of.
    pub(crate) async fn part(&self) {
        self.on_servers(|servers| match servers {
            Servers::Pair(pair) => _ = pair[1].ask("REPLICAOF NO ONE"),
            Servers::Alone(_) | Servers::Watched(_) | Servers::Cluster(_) => unreachable!("only a pair is parted"),
        })
        .await;
    }

    /// Kills the primary; the replica is what gateways are to be led to.
    pub(crate) async fn promote(&self) -> PathBuf {
        self.on_servers(|servers| match servers {
            Servers::Pair(pair) => {
                pair[0].kill();
                pair[1].socket()
            }
            Servers::Alone(_) | Servers::Watched(_) | Servers::Cluster(_) => unreachable!("only a pair has a replica"),
        })
        .await
    }

    /// Kills a primary, and waits until the others have found another.
    pub(crate) async fn fail_over(&self) {
        self.on_servers(|servers| match servers {
            Servers::Watched(watched) => watched.fail_over(),
            Servers::Cluster(cluster) => cluster.fail_over(),
            Servers::Alone(_) | Servers::Pair(_) => unreachable!("nobody takes over"),
        })
        .await;
    }

    async fn on_server(&self, act: impl FnOnce(&mut Server) + Send + 'static) {
        self.on_servers(|servers| match servers {
            Servers::Alone(server) => act(server),
            Servers::Pair(_) | Servers::Watched(_) | Servers::Cluster(_) => {
                unreachable!("one that stands alone is meant")
            }
        })
        .await;
    }

    async fn on_servers<T: Send + 'static>(&self, act: impl FnOnce(&mut Servers) -> T + Send + 'static) -> T {
        let servers = Arc::clone(&self.servers);
        blocking(move || act(&mut servers.lock().unwrap())).await
    }
}

const LOG_EVERYSEC: &[&str] = &["--appendonly", "yes", "--appendfsync", "everysec", "--repl-diskless-sync-delay", "0"];

fn arguments(keeping: Keeping) -> Vec<&'static str> {
    match keeping {
        Keeping::Nothing => Vec::new(),
        Keeping::Snapshots => vec!["--save", "86400 1000000"],
        Keeping::Log(sync) => vec!["--appendonly", "yes", "--appendfsync", sync],
    }
}

/// Does what blocks on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(act).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
