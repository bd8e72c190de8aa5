//! Builds every part from a checked configuration, wires them, and stops them in order. The only place where tasks and
//! threads of the gateway are started.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::adapter::clock::{SystemClock, SystemEntropy};
use crate::adapter::journal::{DataDir, OpenError as DataDirError, Run};
use crate::adapter::sqlite::{OpenError as StoreOpenError, SqliteStore};
use crate::admin::health::{Readiness, Unready};
use crate::admin::{AdminParts, Reload, router};
use crate::config::{AccessLog as AccessTarget, Catalog, Config, Problems};
use crate::ports::account_store::AccountStore;
use crate::ports::clock::{Clock, Entropy};
use crate::ports::journal::{Journal, JournalError, Record};
use crate::protocol::api_key::{KeyHasher, SecretTooShort};
use crate::proxy::catalog::{Shelf, ShelfError};
use crate::proxy::request_body::Held;
use crate::proxy::server::{OwnParts, Server, Shared};
use crate::service::accounts::Accounts;
use crate::service::authenticate::Authenticator;
use crate::service::ledger::{self, Ledger};
use crate::service::meter::Meter;
use crate::service::recovery::{RecoveryError, recover};
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics::Metrics;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1_024;
/// The store's file in the data directory.
pub const STORE_FILE: &str = "store.sqlite3";
/// How often the journal's state is looked at, for readiness.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each text says what it is")]
pub enum StartError {
    #[error("{0}")]
    DataDir(#[from] DataDirError),
    #[error("{0}")]
    Store(#[from] StoreOpenError),
    #[error("the books could not be brought up to date: {0}")]
    Recovery(#[from] RecoveryError),
    #[error("the journal could not be begun: {0}")]
    Journal(#[from] JournalError),
    #[error("listeners.{which}: {address} cannot be listened on: {error}; stop what uses it or choose another address")]
    Listener { which: &'static str, address: SocketAddr, error: io::Error },
    #[error("log.access: {path} cannot be written: {error}")]
    AccessLog { path: String, error: io::Error },
    #[error("{0}")]
    Catalog(#[from] ShelfError),
    #[error("secrets.hash_key: {0}")]
    HashKey(SecretTooShort),
    #[error("{0}")]
    Os(#[from] io::Error),
    #[error("a metric is declared wrongly, which is a bug: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Reads the configuration anew; given by whoever knows where it is.
pub type LoadConfig = Arc<dyn Fn() -> Result<Config, Problems> + Send + Sync>;

/// A running gateway.
pub struct Gateway {
    /// Where buyers call.
    pub data_address: SocketAddr,
    /// Where operators call.
    pub admin_address: SocketAddr,
    config: Config,
    run: Run,
    ledger: Arc<Ledger>,
    access: Option<AccessLog>,
    reloader: Arc<Reloader>,
    readiness: Arc<Readiness>,
    stop: watch::Sender<bool>,
    listening: JoinHandle<()>,
    syncing: JoinHandle<()>,
    others: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Starts everything; returns once calls are served.
    pub async fn start(config: Config, load: LoadConfig) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let metrics = Metrics::new()?;
        let dir = DataDir::open(&config.data_dir, &config.gateway)?;
        let data_listener = listen("data", config.data_listener)?;
        let admin_listener = listen("admin", config.admin_listener)?;
        let store: Arc<dyn AccountStore> =
            Arc::new(SqliteStore::open(&config.data_dir.join(STORE_FILE), Arc::clone(&clock))?);
        let run = begin_run(&dir, &config, &store, (&*clock, &*entropy), &metrics).await?;
        let shelf = Arc::new(Shelf::new(&config.catalog, &metrics)?);
        let access = open_access(&config)?;
        let hasher = KeyHasher::new(config.hash_key.expose_secret().as_bytes()).map_err(StartError::HashKey)?;

        let (ledger, nudges) = Ledger::new(ledger::Parts {
            store: Arc::clone(&store),
            grants: run.writer(0),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            incarnation: run.incarnation().clone(),
            metrics: metrics.clone(),
        });
        let ledger = Arc::new(ledger);
        let authenticator = Arc::new(Authenticator::new(Arc::clone(&store), hasher.clone()));
        let shared = Arc::new(Shared {
            authenticator: Arc::clone(&authenticator),
            ledger: Arc::clone(&ledger),
            clock: Arc::clone(&clock),
            metrics: metrics.clone(),
            limits: config.limits.clone(),
            held: Arc::new(Held::new(config.limits.buffered_bytes)),
            run_id: random_id(&*entropy),
        });
        let server = Arc::new(Server::start(&shared, cores(&config, &run, &ledger, access.as_ref(), &metrics), &shelf)?);
        let (stop, stopped) = watch::channel(false);
        let readiness = Arc::new(Readiness::default());
        let catalog = Arc::new(ArcSwap::new(Arc::clone(&config.catalog)));
        let reloader = Arc::new(Reloader {
            load,
            running: config.clone(),
            catalog: Arc::clone(&catalog),
            server: Arc::clone(&server),
            metrics: metrics.clone(),
        });
        metrics.reload_success.set(1);

        let (data_address, admin_address) = (data_listener.local_addr()?, admin_listener.local_addr()?);
        let listening = tokio::spawn({
            let (server, stopped) = (Arc::clone(&server), stopped.clone());
            async move { server.listen(data_listener, until(stopped)).await }
        });
        let syncing = tokio::spawn({
            let (ledger, ended) = (Arc::clone(&ledger), run.ended());
            async move { ledger.run(nudges, ended).await }
        });
        let reload: Reload = {
            let reloader = Arc::clone(&reloader);
            Arc::new(move || reloader.reload())
        };
        let admin = router(AdminParts {
            accounts: Arc::new(Accounts::new(store.clone(), clock, entropy, hasher)),
            catalog,
            readiness: Arc::clone(&readiness),
            registry: metrics.registry.clone(),
            reload,
            token: config.admin_token.clone(),
        });
        let others = vec![
            tokio::spawn({
                let changes = store.changes();
                async move { authenticator.follow(changes).await }
            }),
            tokio::spawn(crate::admin::serve(admin_listener, admin)),
            tokio::spawn(watch_journal(run.stats_reader(), Arc::clone(&readiness), metrics)),
        ];
        tracing::info!(
            data = %data_address,
            admin = %admin_address,
            run = %run.incarnation(),
            version = env!("CARGO_PKG_VERSION"),
            "listening"
        );
        todo!()
    }
}
