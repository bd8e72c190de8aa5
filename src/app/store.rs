//! Opens the store that is configured. A server that is away at start is waited for; meanwhile the admin listener tells
//! that the process lives and why it is not ready.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use super::{STORE_FILE, StartError};
use crate::adapter::redis::RedisStore;
use crate::adapter::sqlite::SqliteStore;
use crate::admin::health::{self, Readiness, Unready};
use crate::admin::serve;
use crate::config::{Config, Store};
use crate::ports::account_store::AccountStore;
use crate::ports::clock::{Clock, Entropy};
use crate::ports::replay::ReplayCache;
use crate::tls::Acceptor;

/// How often a server that is away is asked whether it is back.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// A server that is still away is mentioned in the log this often.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// One store, by what it is used for.
pub(super) struct Opened {
    pub(super) store: Arc<dyn AccountStore>,
    pub(super) used: Arc<dyn ReplayCache>,
}

impl Opened {
    fn new<S: AccountStore + ReplayCache + 'static>(store: S) -> Self {
        let store = Arc::new(store);
        Self { used: Arc::<S>::clone(&store), store }
    }
}

/// Opens the store, once it answers.
pub(super) async fn open(
    config: &Config,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
    (admin, tls): (TcpListener, Option<&Arc<Acceptor>>),
) -> Result<(Opened, TcpListener), StartError> {
    match &config.store {
        Store::Embedded => {
            let file = config.data_dir.join(STORE_FILE);
            Ok((Opened::new(SqliteStore::open(&file, Arc::clone(clock))?), admin))
        }
        Store::Redis(settings) => {
            let store = RedisStore::open(settings, Arc::clone(entropy)).await?;
            let admin = until_reached(&store, admin, tls).await?;
            Ok((Opened::new(store), admin))
        }
    }
}

/// Waits for the store's first answer.
async fn until_reached(
    store: &RedisStore,
    admin: TcpListener,
    tls: Option<&Arc<Acceptor>>,
) -> Result<TcpListener, StartError> {
    let Err(mut why) = store.servers().await else { return Ok(admin) };
    let readiness = Arc::new(Readiness::default());
    readiness.raise(Unready::StoreAway);
    let admin = admin.into_std()?;
    let meanwhile = TcpListener::from_std(admin.try_clone()?)?;
    let serving = tokio::spawn(serve(meanwhile, tls.cloned(), health::router(readiness), std::future::pending()));
    loop {
        tracing::warn!(%why, "the store does not answer: the gateway waits for it");
        let mut patience = tokio::time::interval(ASK_EVERY);
        let said = tokio::time::Instant::now();
        while said.elapsed() < SAY_EVERY {
            patience.tick().await;
            match store.servers().await {
                Ok(_) => {
                    serving.abort();
                    let _ = serving.await; // aborted: the listener is ours alone again
                    return Ok(TcpListener::from_std(admin)?);
                }
                Err(error) => why = error,
            }
        }
    }
}
