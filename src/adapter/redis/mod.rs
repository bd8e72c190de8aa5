//! The store that several gateways share: a Redis or Valkey server, alone, watched by Sentinels, or a Cluster. Its keys
//! and what they hold are described in `docs/store.md`; the scripts that write them stand beside this file.
//!
//! A thread of its own keeps the connections, so that they do not depend on the core that asked first, and no core waits
//! for another's work.

mod checks;
mod dial;
mod fault;
mod feed;
mod index;
mod keys;
mod link;
mod listing;
mod peers;
mod reply;
mod script;
mod scripts;
#[cfg(test)]
#[path = "../../../tests/harness/redis.rs"]
mod servers;
mod signatures;
#[cfg(test)]
pub(super) mod tests;
mod write;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use redis::{Value, cmd};
use tokio::runtime::Handle;
use tokio::sync::{broadcast, oneshot};

use self::checks::Checks;
use self::dial::Dial;
pub use self::fault::Refusal;
use self::fault::{Down, Fault};
use self::feed::Ear;
use self::keys::{Keys, bucket_of};
use self::link::{Link, Patience};
use self::reply::Answer;
use self::script::Script;
use self::scripts::Scripts;
use crate::config::{Redis, RedisServers};
use crate::domain::credential::SignatureUse;
use crate::domain::id::{AccountId, Incarnation, ProductId};
use crate::domain::key::KeyHash;
use crate::domain::package::Package;
use crate::ports::BoxFuture;
use crate::ports::account_store::{AccountStore, AccountSummary, Commit, CommitError, Loaded, StoreError};
use crate::ports::clock::Entropy;
use crate::ports::gateways::{CheckIn, Heartbeat, Notice, Servers};
use crate::ports::replay::{ReplayCache, UsedSignature};

/// Why the store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The server was reached and cannot be used as it is.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// What the configuration names cannot be used: a file of certificates, an address.
    #[error("store.redis: {0}")]
    Unusable(String),
    /// The system has no thread for it.
    #[error("the store's thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// Keeps accounts on a Redis or Valkey server.
pub struct RedisStore {
    shared: Arc<Shared>,
    runtime: Handle,
    /// Ends the thread when it is dropped.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What all questions use.
struct Shared {
    link: Link,
    scripts: Scripts,
    keys: Keys,
    ear: Arc<Ear>,
    entropy: Arc<dyn Entropy>,
    /// Nothing that was answered is ever forgotten.
    durable: bool,
    /// Accounts and the keys that open them may lie on different servers: the store is a Cluster.
    divided: bool,
    timeout: Duration,
    index: index::Indexed,
}

impl RedisStore {
    /// Opens the store. A server that cannot be reached is tried again and again, meanwhile every question is answered
    /// with an error; one that was reached and is not what is needed is refused.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(config: &Redis, entropy: Arc<dyn Entropy>) -> Result<Self, OpenError> {
        Self::with(config, entropy, Scripts::new()).await
    }

    async fn with(config: &Redis, entropy: Arc<dyn Entropy>, scripts: Scripts) -> Result<Self, OpenError> {
        let dial = Dial::new(config).map_err(|error| OpenError::Unusable(error.to_string()))?;
        let (dial, keys) = (Arc::new(dial), Keys::new(&config.prefix));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let checks = Checks::new(config, keys.clone(), scripts.identify.clone());
        let (link, keeper) = link::new(Arc::clone(&dial), checks, Arc::clone(&entropy), config.timeout);
        let ear = Arc::new(Ear::new(keys.notices(), &*entropy));
        let handle = runtime.handle().clone();
        handle.spawn(keeper.keep());
        handle.spawn(feed::listen(dial, Arc::clone(&ear), Arc::clone(&entropy)));
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("store-redis".to_owned()).spawn(move || {
            let _ = runtime.block_on(stopped); // an error means that the store was dropped: the same
        })?;
        let (durable, timeout) = (config.durable, config.timeout);
        let divided = matches!(config.servers, RedisServers::Cluster(_));
        let index = index::Indexed::default();
        let shared = Arc::new(Shared { link, scripts, keys, ear, entropy, durable, divided, timeout, index });
        let store = Self { shared, runtime: handle, stop: Some(stop), thread: Some(thread) };
        match store.shared.link.first().await {
            Some(Down::Refused(refusal)) => Err(refusal.into()),
            Some(Down::Away(_)) => Ok(store), // the keeper has said so
            None => {
                store.shared.ear.first().await;
                Ok(store)
            }
        }
    }

    /// Lets every bucket be that of another server from now on: what it holds is about to be replaced.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn begin_another_life(&self) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        self.carry(async move { shared.forget_epochs().await }).await
    }

    /// Carries a question out on the store's thread. It goes on when the asker does not wait for the answer.
    fn carry<T, E>(&self, work: impl Future<Output = Result<T, E>> + Send + 'static) -> BoxFuture<'static, Result<T, E>>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let runtime = self.runtime.clone();
        Box::pin(async move { runtime.spawn(work).await.unwrap_or_else(|_| Err(E::from(ended()))) })
    }
}

fn ended() -> StoreError {
    StoreError::Unavailable("the store's thread has ended; restart the program".to_owned())
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic in it has been reported already
        }
    }
}

impl Shared {
    /// Until when an answer to what is asked now is waited for.
    fn deadline(&self) -> tokio::time::Instant {
        tokio::time::Instant::now() + self.timeout
    }

    /// An epoch for a bucket that has none.
    fn epoch(&self) -> String {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes);
        format!("{:016x}", u64::from_le_bytes(bytes))
    }

    /// Runs a script that names the server.
    async fn run(&self, script: &Script, keys: &[String], arguments: Vec<String>) -> Result<Answer, Fault> {
        let mut all = vec![self.epoch()];
        all.extend(arguments);
        Answer::read(self.scripts.run((&self.link, self.deadline()), script, keys, &all).await?)
    }

    /// The same for a script that does harm when it runs twice: a connection that breaks is the end of it.
    async fn run_once(&self, script: &Script, keys: &[String], arguments: Vec<String>) -> Result<Answer, Fault> {
        let mut all = vec![self.epoch()];
        all.extend(arguments);
        let patience = Patience { deadline: self.deadline(), once: true };
        Answer::read(self.scripts.run_by((&self.link, patience), script, keys, &all).await?)
    }

    async fn load(&self, account: &AccountId) -> Result<Option<Loaded>, StoreError> {
        let keys = &self.keys;
        let keys = [keys.server(bucket_of(account)), keys.stamps(account), keys.account(account), keys.pools(account)];
        let answer = self.run(&self.scripts.load, &keys, Vec::new()).await;
        answer.map_err(|fault| fault.about(account))?.account(account)
    }

    /// Tells the other gateways. Those of this process have been told already.
    async fn publish(&self, text: &str) -> Result<(), StoreError> {
        let mut command = cmd("PUBLISH");
        command.arg(self.keys.notices()).arg(self.ear.signed(text));
        let _: Value = self.link.ask(&command).await?;
        Ok(())
    }
}

impl ReplayCache for RedisStore {
    fn note_use(&self, used: UsedSignature, max: usize) -> BoxFuture<'_, Result<SignatureUse, StoreError>> {
        let shared = Arc::clone(&self.shared);
        self.carry(async move { shared.note_use(used, max).await })
    }

    fn take_back(&self, used: UsedSignature) -> BoxFuture<'_, Result<(), StoreError>> {
        let shared = Arc::clone(&self.shared);
        self.carry(async move { shared.take_back(used).await })
    }
}

impl AccountStore for RedisStore {
    fn load<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<Option<Loaded>, StoreError>> {
        let (shared, account) = (Arc::clone(&self.shared), account.clone());
        self.carry(async move { shared.load(&account).await })
    }

    /// Whether a commit survives the server's death is the server's business (`appendfsync`): [`Commit::durable`] makes
    /// no difference here. What a restarted server has forgotten is sent again by the gateways.
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Timestamp, CommitError>> {
        let shared = Arc::clone(&self.shared);
        self.carry(async move { shared.commit(commit).await })
    }

    fn list(&self, after: Option<AccountId>) -> BoxFuture<'_, Result<Vec<AccountSummary>, StoreError>> {
        let shared = Arc::clone(&self.shared);
        self.carry(async move { shared.list(after).await })
    }

    fn account_of(&self, hash: KeyHash) -> BoxFuture<'_, Result<Option<AccountId>, StoreError>> {
        let shared = Arc::clone(&self.shared);
        self.carry(async move { shared.account_of(&hash).await })
    }

    fn load_by_key(&self, hash: KeyHash) -> BoxFuture<'_, Result<Option<Loaded>, StoreError>> {
        let shared = Arc::clone(&self.shared);
        self.carry(async move { shared.load_by_key(&hash).await })
    }

    fn ended_before<'a>(
        &'a self,
        account: &'a AccountId,
        latest: usize,
    ) -> BoxFuture<'a, Result<Vec<(ProductId, Package)>, StoreError>> {
        let (shared, account) = (Arc::clone(&self.shared), account.clone());
        self.carry(async move { shared.ended(&account, latest).await })
    }

    fn changes(&self) -> broadcast::Receiver<Notice> {
        self.shared.ear.subscribe()
    }

    fn notify(&self, notice: Notice) -> BoxFuture<'_, Result<(), StoreError>> {
        let (shared, text) = (Arc::clone(&self.shared), feed::text_of(&notice));
        shared.ear.tell(notice);
        self.carry(async move { shared.publish(&text).await })
    }

    fn heard_at(&self) -> Option<Instant> {
        self.shared.ear.heard_at()
    }

    fn heartbeat<'a>(&'a self, by: &'a Incarnation) -> BoxFuture<'a, Result<Heartbeat, StoreError>> {
        let (shared, by) = (Arc::clone(&self.shared), by.clone());
        self.carry(async move { shared.heartbeat(&by).await })
    }

    fn leave<'a>(&'a self, by: &'a Incarnation) -> BoxFuture<'a, Result<(), StoreError>> {
        let (shared, by) = (Arc::clone(&self.shared), by.clone());
        self.carry(async move { shared.leave(&by).await })
    }

    fn servers(&self) -> BoxFuture<'_, Result<Servers, StoreError>> {
        let shared = Arc::clone(&self.shared);
        self.carry(async move { shared.servers().await })
    }

    fn check_in<'a>(
        &'a self,
        by: &'a Incarnation,
        servers: &'a Servers,
        live: &'a [Incarnation],
    ) -> BoxFuture<'a, Result<CheckIn, StoreError>> {
        let (shared, by) = (Arc::clone(&self.shared), by.clone());
        let (servers, live) = (servers.clone(), live.to_vec());
        self.carry(async move { shared.check_in(&by, &servers, &live).await })
    }
}
