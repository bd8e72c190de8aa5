//! Builds every part from a checked configuration, wires them, and stops them in order. The only place where tasks and
//! threads of the gateway are started.

mod certificates;
mod reload;
mod store;

use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

use self::certificates::Certificates;
use self::reload::{Reloader, reload_through};
use self::store::Opened;
use crate::adapter::clock::{SystemClock, SystemEntropy};
use crate::adapter::journal::{DataDir, OpenError as DataDirError, Retention, Run, RunOptions, Tidier};
use crate::adapter::redis::OpenError as RedisOpenError;
use crate::adapter::sqlite::OpenError as StoreOpenError;
use crate::admin::health::{Readiness, Unready};
use crate::admin::{self, AdminState, AdminToken, router};
use crate::config::{AccessLog as AccessTarget, Config, Problems, Receipts, Store};
use crate::ports::BoxFuture;
use crate::ports::clock::{Clock, Entropy};
use crate::ports::gateways::Notice;
use crate::ports::journal::{Journal, JournalError, Record};
use crate::ports::replay::ReplayCache;
use crate::protocol::api_key::SecretTooShort;
use crate::protocol::keyring::Keyring;
use crate::protocol::receipt::KeySet;
use crate::proxy::catalog::{Shelf, ShelfError};
use crate::proxy::request_body::Held;
use crate::proxy::server::{OwnParts, Server, Shared};
use crate::proxy::spool::Spool;
use crate::service::accounts::Accounts;
use crate::service::attendance::Attendance;
use crate::service::authenticate::Authenticator;
use crate::service::commands::CommandLog;
use crate::service::desk::Desk;
use crate::service::failures::Failures;
use crate::service::ledger::{self, Ledger, Nudges};
use crate::service::limits::Limiter;
use crate::service::meter::Meter;
use crate::service::receipts::ReceiptDesk;
use crate::service::recovery::{Recovered, RecoveryError, recover};
use crate::service::replay::ReplayGuard;
use crate::service::unbooked::Unbooked;
use crate::telemetry::access::{AccessLog, Sink};
use crate::telemetry::metrics::Metrics;
use crate::tls::TlsError;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1_024;
/// What the kernel takes of an answer before it can send it, in bytes: a client that reads slowly makes it hold this much
/// and not the megabytes of its largest buffer.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;
/// The store's file in the data directory.
pub const STORE_FILE: &str = "store.sqlite3";
/// The folder of the data directory for bodies that are too large to be held in memory.
const SPOOL_DIR: &str = "spool";
/// How long a start waits until what earlier runs sold is in the books; the rest follows while calls are served.
const START_BOOKS_FOR: Duration = Duration::from_secs(1);
/// How often the journal is looked through for what can be removed.
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// How long the end of the access log is waited for, when open calls have taken all the time that there was.
const ACCESS_LOG_LAST: Duration = Duration::from_millis(500);
/// How often the journal and the store are looked at, for readiness.
const WATCH_EVERY: Duration = Duration::from_millis(250);
/// For so long after its last failure the store is taken to be away: then calls may try it again.
const STORE_AWAY_FOR: Duration = Duration::from_secs(2);

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each text says what it is")]
pub enum StartError {
    #[error("{0}")]
    DataDir(#[from] DataDirError),
    #[error("{0}")]
    Store(#[from] StoreOpenError),
    #[error("{0}")]
    Redis(#[from] RedisOpenError),
    #[error("the books could not be brought up to date: {0}")]
    Recovery(#[from] RecoveryError),
    #[error("the journal could not be begun: {0}")]
    Journal(#[from] JournalError),
    #[error("listeners.{which}: {address} cannot be listened on: {error}; stop what uses it or choose another address")]
    Listener { which: &'static str, address: SocketAddr, error: io::Error },
    #[error(
        "log.access: {target} cannot be written: {error}; its directory must be there and writable for this program"
    )]
    AccessLog { target: String, error: io::Error },
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error("{0}")]
    Catalog(#[from] ShelfError),
    #[error("secrets: {0}")]
    Secret(SecretTooShort),
    #[error("{0}")]
    Os(#[from] io::Error),
    #[error("the journal has no writer for grants, which is a bug")]
    NoWriter,
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
    drain_timeout: Duration,
    run: Arc<Run>,
    server: Arc<Server>,
    ledger: Arc<Ledger>,
    access: Option<AccessLog>,
    reloader: Arc<Reloader>,
    readiness: Arc<Readiness>,
    /// Ends the listener.
    stop_listening: watch::Sender<bool>,
    listening: JoinHandle<()>,
    /// Ends the exchange with the store.
    stop_syncing: watch::Sender<bool>,
    syncing: JoinHandle<()>,
    /// Lets this gateway leave the others.
    stop_attending: watch::Sender<bool>,
    attending: JoinHandle<()>,
    /// End with the process: what they look after is gone by then.
    others: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Starts everything; returns once calls are served. Must run on the control runtime.
    pub async fn start(config: Config, load: LoadConfig) -> Result<Self, StartError> {
        let Ground { clock, metrics, desk, used, run, found, unbooked, keyring, listeners, certificates } =
            Ground::prepare(&config).await?;
        let (store, patience) = (Arc::clone(&desk.store), config.store.patience());
        let (data_listener, admin_listener) = listeners;
        let addresses = (data_listener.local_addr()?, admin_listener.local_addr()?);
        let Door { limiter, authenticator, shelf } = Door::new(&config, &desk, (&keyring, &metrics))?;
        let access = start_access(&config.log.access, &metrics)?;
        let mut writers = run.writers().into_iter();
        let grants = writers.next().ok_or(StartError::NoWriter)?;
        let Keepers { ledger, nudges, commands, attendance, tidying } =
            Keepers::new(&config, &desk, (grants, unbooked), (&run, &metrics));
        found.suspense.iter().for_each(|((account, product), units)| ledger.note_suspense(account, product, *units));
        let own = own_parts(writers, (&ledger, patience), access.as_ref());
        let replay =
            ReplayGuard::new(used, keyring.clone(), metrics.clone(), (patience, config.limits.used_signatures));
        let finders = (&authenticator, replay, &ledger, &limiter);
        let shared = shared(&config, finders, (&desk, &run, &metrics), (&clock, &certificates))?;
        let server = Arc::new(Server::start(&Arc::new(shared), own, &shelf)?);
        let readiness = Arc::new(Readiness::default());
        readiness.raise(Unready::CheckingIn); // until the ledger is seen to be open
        let (token, drain_timeout) = (AdminToken::new(&config.admin_token), config.drain_timeout);
        let kept = (certificates.clone(), metrics.clone(), limiter);
        let reloader = Arc::new(Reloader::new((load, config), Arc::clone(&server), kept));
        let state = AdminState {
            accounts: Accounts::new(desk, commands, keyring),
            catalog: Arc::clone(&reloader.catalog),
            readiness: Arc::clone(&readiness),
            registry: metrics.registry.clone(),
            token,
            reload: reload_through(&reloader),
        };

        let run = Arc::new(run);
        let [(stop_listening, stopped), (stop_syncing, synced), (stop_attending, attended)] =
            std::array::from_fn(|_| watch::channel(false));
        let gateway = Self {
            data_address: addresses.0,
            admin_address: addresses.1,
            drain_timeout,
            listening: tokio::spawn(listen_until(Arc::clone(&server), data_listener, stopped)),
            syncing: tokio::spawn(sync_until(Arc::clone(&ledger), nudges, synced)),
            attending: tokio::spawn(attend_until(attendance, attended)),
            others: vec![
                tokio::spawn(follow(authenticator, store.changes())),
                tokio::spawn(tidying),
                tokio::spawn(admin::serve(
                    admin_listener,
                    certificates.admin.clone(),
                    router(state),
                    std::future::pending(),
                )),
                tokio::spawn(certificates.watch()),
                tokio::spawn(watch_ledger(Arc::clone(&run), Arc::clone(&ledger), Arc::clone(&readiness), metrics)),
            ],
            run,
            server,
            ledger,
            access,
            reloader,
            readiness,
            stop_listening,
            stop_syncing,
            stop_attending,
        };
        gateway.announce();
        Ok(gateway)
    }

    fn announce(&self) {
        self.reloader.metrics.reload_success.set(1);
        self.readiness.clear(Unready::Starting);
        let (data, admin, run) = (self.data_address, self.admin_address, self.run.incarnation());
        tracing::info!(%data, %admin, %run, version = env!("CARGO_PKG_VERSION"), "listening");
    }

    /// Takes over the configuration as it is now, all or nothing; opens the access log anew.
    pub fn reload(&self) {
        self.reloader.certificates.reload();
        match self.reloader.reload() {
            Ok(()) => tracing::info!("the configuration was taken over"),
            Err(problems) => {
                tracing::error!(?problems, "the configuration was not taken over; the last good one stays")
            }
        }
        if let Some(access) = &self.access {
            match open_sink(&self.reloader.running.log.access) {
                Ok(Some(sink)) => access.reopen(sink),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "the access log could not be opened anew"),
            }
        }
    }

    /// Stops in order: no new connection, open calls end or are cut off when `hurry` resolves, everything is in the
    /// books, the journal is closed.
    pub async fn stop(self, hurry: impl Future<Output = ()>) -> Result<(), JournalError> {
        tracing::info!("stopping: waiting for open calls");
        self.readiness.raise(Unready::Draining);
        let _ = self.stop_listening.send(true); // fails only if the listener is gone already
        let _ = self.listening.await;
        let give_up = async {
            tokio::select! {
                () = hurry => {}
                () = tokio::time::sleep(self.drain_timeout) => {}
            }
        };
        let give_up = give_up.shared();
        if !self.server.drain(give_up.clone()).await {
            tracing::warn!("calls were cut off that had not ended in time");
        }
        let _ = self.stop_syncing.send(true); // as above
        let _ = self.syncing.await;
        self.ledger.finish().await;
        let _ = self.stop_attending.send(true); // as above
        let _ = self.attending.await;
        if let Some(access) = self.access {
            let give_up = async {
                tokio::join!(give_up, tokio::time::sleep(ACCESS_LOG_LAST));
            };
            if !access.stop(give_up).await {
                tracing::warn!("the access log was not written to its end: whoever reads it has stalled");
            }
        }
        for other in self.others {
            other.abort();
            let _ = other.await;
        }
        let closed = self.run.writers().first().map_or(Ok(()), |grants| grants.append(&Record::Close).map(|_| ()));
        // The task that watched it has ended above: this is the last reference.
        let finished = Arc::into_inner(self.run).map_or(Ok(()), Run::finish);
        tracing::info!("stopped");
        closed.and(finished)
    }
}

/// What calls meet first.
struct Door {
    limiter: Arc<Limiter>,
    authenticator: Arc<Authenticator>,
    shelf: Arc<Shelf>,
}

impl Door {
    fn new(config: &Config, desk: &Desk, (keyring, metrics): (&Keyring, &Metrics)) -> Result<Self, ShelfError> {
        let limiter = Arc::new(Limiter::new(Arc::clone(&desk.fleet)));
        let (store, known, patience) = (Arc::clone(&desk.store), Arc::clone(&limiter), config.store.patience());
        let failures = Failures::new(config.limits.failed_auth_per_minute);
        let authenticator = Arc::new(Authenticator::new(store, keyring.clone(), (known, failures), patience));
        let shelf = Arc::new(Shelf::new(&config.catalog, (metrics, &*limiter))?);
        Ok(Self { limiter, authenticator, shelf })
    }
}

/// Those who keep the books.
struct Keepers {
    ledger: Arc<Ledger>,
    nudges: Nudges,
    commands: Arc<CommandLog>,
    attendance: Attendance,
    /// Removes records that nobody needs any more.
    tidying: BoxFuture<'static, ()>,
}

impl Keepers {
    fn new(
        config: &Config,
        desk: &Desk,
        (grants, unbooked): (Arc<dyn Journal>, Arc<Unbooked>),
        (run, metrics): (&Run, &Metrics),
    ) -> Self {
        let commands = Arc::new(CommandLog::new(desk.clone(), Arc::clone(&grants), run.earlier()));
        let parts = ledger::Parts { desk: desk.clone(), grants, metrics: metrics.clone(), unbooked };
        let (ledger, nudges) = Ledger::new(parts);
        let ledger = Arc::new(ledger);
        let (held_ledger, held_commands) = (Arc::clone(&ledger), Arc::clone(&commands));
        let attendance = Attendance::new(desk.clone(), held_ledger, held_commands, run.earlier(), metrics.clone());
        let (tidier, for_tidying) = (run.tidier(), Arc::clone(&ledger));
        let tidying = tidy_journal(tidier, for_tidying, desk.clone(), retention(config), metrics.clone());
        Self { ledger, nudges, commands, attendance, tidying: Box::pin(tidying) }
    }
}

/// What everything else stands on.
struct Ground {
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    desk: Desk,
    /// Which signatures were used.
    used: Arc<dyn ReplayCache>,
    run: Run,
    /// What the journals of earlier runs held.
    found: Recovered,
    /// What they held and is not booked yet.
    unbooked: Arc<Unbooked>,
    keyring: Keyring,
    /// For buyers, and for operators.
    listeners: (TcpListener, TcpListener),
    certificates: Certificates,
}

impl Ground {
    /// Takes the data directory and the ports, opens the store, brings the books up to date.
    async fn prepare(config: &Config) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let metrics = Metrics::new()?;
        let seal_keys: Vec<&[u8]> = config.seal_keys.iter().map(|key| key.expose_secret().as_bytes()).collect();
        let keyring =
            Keyring::new(config.hash_key.expose_secret().as_bytes(), &seal_keys).map_err(StartError::Secret)?;
        let dir = open_data_dir(config, clock.now())?;
        let certificates = Certificates::read(config, &metrics.tls)?;
        let admin_listener = listen("admin", config.admin_listener.address)?;
        let admin = (admin_listener, certificates.admin.as_ref());
        let (Opened { store, used }, admin_listener) = store::open(config, &clock, &entropy, admin).await?;
        // Nobody is let in before calls can be served.
        let data_listener = listen("data", config.data_listener.address)?;
        let run = begin_run(dir, config)?;
        let desk = Desk::new(store, Arc::clone(&clock), entropy, run.incarnation().clone());
        let unbooked = Arc::new(Unbooked::default());
        let found = settle_earlier(&run, &desk, &unbooked, &metrics).await?;
        let listeners = (data_listener, admin_listener);
        Ok(Self { clock, metrics, desk, used, run, found, unbooked, keyring, listeners, certificates })
    }
}

/// Binds a listener; port 0 picks a free one.
fn listen(which: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let bind = || {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        // A restart must not wait for the last run's connections to be forgotten. A port in use is refused all the same.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?; // for the connections, too
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bind().map_err(|error| StartError::Listener { which, address, error })
}

/// Takes the data directory: alone if it holds the store, else beside a run that an upgrade has not ended yet.
fn open_data_dir(config: &Config, now: Timestamp) -> Result<DataDir, DataDirError> {
    match config.store {
        Store::Embedded => DataDir::open(&config.data_dir, &config.gateway, now),
        Store::Redis(_) => DataDir::open_shared(&config.data_dir, &config.gateway, now),
    }
}

/// Begins this run's journal.
fn begin_run(dir: DataDir, config: &Config) -> Result<Run, StartError> {
    let cores = u16::try_from(config.workers).unwrap_or(u16::MAX);
    let writers = cores.saturating_add(1); // one for grants
    Ok(dir.begin_run(RunOptions { writers, segment_bytes: config.journal.segment_bytes })?)
}

/// When records may be removed.
fn retention(config: &Config) -> Retention {
    let keep = SignedDuration::try_from(config.journal.keep).unwrap_or(SignedDuration::MAX);
    Retention { keep, remove: config.journal.remove }
}

/// Brings the earlier runs' journals into the books.
async fn settle_earlier(
    run: &Run,
    desk: &Desk,
    unbooked: &Unbooked,
    metrics: &Metrics,
) -> Result<Recovered, StartError> {
    let found = recover(&run.earlier(), desk, unbooked, Some(START_BOOKS_FOR)).await?;
    metrics.journal.damaged_bytes.set(i64::try_from(found.damaged_bytes).unwrap_or(i64::MAX));
    if found.damaged_bytes > 0 || found.missing_files > 0 {
        tracing::warn!(
            bytes = found.damaged_bytes,
            missing_files = found.missing_files,
            "journals of earlier runs are damaged; every valid record was read"
        );
    }
    Ok(found)
}

fn own_parts(
    writers: impl Iterator<Item = Arc<dyn Journal>>,
    (ledger, patience): (&Arc<Ledger>, Duration),
    access: Option<&AccessLog>,
) -> Vec<OwnParts> {
    let part = |(number, journal): (u16, Arc<dyn Journal>)| OwnParts {
        number,
        meter: Meter::new(Arc::clone(ledger), journal, patience),
        access: access.map(AccessLog::buffer),
    };
    (0..).zip(writers).map(part).collect()
}

/// What the cores share.
fn shared(
    config: &Config,
    (authenticator, replay, ledger, limiter): (&Arc<Authenticator>, ReplayGuard, &Arc<Ledger>, &Arc<Limiter>),
    (desk, run, metrics): (&Desk, &Run, &Metrics),
    (clock, certificates): (&Arc<dyn Clock>, &Certificates),
) -> Result<Shared, StartError> {
    Ok(Shared {
        authenticator: Arc::clone(authenticator),
        replay,
        ledger: Arc::clone(ledger),
        limiter: Arc::clone(limiter),
        clock: Arc::clone(clock),
        metrics: metrics.clone(),
        limits: config.limits.clone(),
        proxies: config.proxies.clone(),
        credentials: config.credentials.clone(),
        spool: Spool::new(config.data_dir.join(SPOOL_DIR), config.limits.spooled_bytes, config.limits.buffered_bytes)?,
        held: Arc::new(Held::new(config.limits.buffered_bytes)),
        tls: certificates.data.clone(),
        h2c: config.data_listener.h2c,
        run_id: random_id(&*desk.entropy),
        receipts: config.receipts.as_ref().map(|receipts| receipt_desk(receipts, run)).transpose()?,
    })
}

/// Receipts, out of an index of this gateway's calls that is kept from now on.
fn receipt_desk(receipts: &Receipts, run: &Run) -> io::Result<ReceiptDesk> {
    let signer = (receipts.key_id.clone(), receipts.key.clone());
    Ok(ReceiptDesk::new(Arc::new(run.index_calls()?), signer, key_set(receipts)))
}

/// All keys that receipts may have been signed with.
pub fn key_set(receipts: &Receipts) -> KeySet {
    let earlier = receipts.earlier.iter().map(|(id, key)| (id.as_str(), *key));
    KeySet::new([(receipts.key_id.as_str(), receipts.key.public())].into_iter().chain(earlier))
}

fn random_id(entropy: &dyn Entropy) -> u64 {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

fn start_access(target: &AccessTarget, metrics: &Metrics) -> Result<Option<AccessLog>, StartError> {
    let target_name = match target {
        AccessTarget::File(path) => path.display().to_string(),
        AccessTarget::Stdout | AccessTarget::Off => "standard output".to_owned(),
    };
    let named = |error| StartError::AccessLog { target: target_name.clone(), error };
    let sink = open_sink(target).map_err(named)?;
    sink.map(|sink| AccessLog::start(sink, metrics.access_dropped.clone())).transpose().map_err(named)
}

fn open_sink(target: &AccessTarget) -> io::Result<Option<Sink>> {
    Ok(match target {
        AccessTarget::Off => None,
        AccessTarget::Stdout => Some(Box::new(io::stdout())),
        AccessTarget::File(path) => Some(Box::new(OpenOptions::new().create(true).append(true).open(path)?)),
    })
}

async fn until(mut flag: watch::Receiver<bool>) {
    let _ = flag.wait_for(|flag| *flag).await; // a sender that is gone means the same
}

async fn listen_until(server: Arc<Server>, listener: TcpListener, stopped: watch::Receiver<bool>) {
    server.listen(listener, until(stopped)).await;
}

async fn sync_until(ledger: Arc<Ledger>, nudges: Nudges, stopped: watch::Receiver<bool>) {
    ledger.run(nudges, until(stopped)).await;
}

async fn attend_until(attendance: Attendance, stopped: watch::Receiver<bool>) {
    attendance.run(until(stopped)).await;
}

async fn follow(authenticator: Arc<Authenticator>, changes: broadcast::Receiver<Notice>) {
    authenticator.follow(changes).await;
}

/// Removes records that nobody needs any more, once a minute, and tells how much there are.
async fn tidy_journal(tidier: Tidier, ledger: Arc<Ledger>, desk: Desk, retention: Retention, metrics: Metrics) {
    let mut tick = tokio::time::interval(TIDY_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        // By two clocks, so that one that is wrong does not remove what the other knows to be young.
        let now = SystemClock.now().min(desk.now());
        let (tidier, held_since) = (tidier.clone(), ledger.held_since());
        let tidied = tokio::task::spawn_blocking(move || tidier.tidy(&retention, held_since, now)).await;
        match tidied {
            Ok(Ok(tidied)) => {
                metrics.journal.disk_bytes.set(i64::try_from(tidied.disk_bytes).unwrap_or(i64::MAX));
                metrics.journal.removed_files.inc_by(tidied.removed_files);
                if tidied.removed_files > 0 {
                    tracing::info!(files = tidied.removed_files, "old journal files were removed");
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "old journal files are not removed yet"),
            Err(error) => tracing::error!(%error, "looking after old journal files failed"),
        }
    }
}

/// Tells readiness and metrics whether calls can be written down and booked.
async fn watch_ledger(run: Arc<Run>, ledger: Arc<Ledger>, readiness: Arc<Readiness>, metrics: Metrics) {
    let note = |reason, stands: bool| if stands { readiness.raise(reason) } else { readiness.clear(reason) };
    let mut tick = tokio::time::interval(WATCH_EVERY);
    loop {
        tick.tick().await;
        let full = run.stats().full;
        metrics.journal.full.set(i64::from(full));
        note(Unready::JournalFull, full);
        note(Unready::StoreAway, ledger.store_failed_within(STORE_AWAY_FOR));
        note(Unready::CheckingIn, !ledger.is_open());
        note(Unready::Superseded, ledger.is_superseded());
    }
}
