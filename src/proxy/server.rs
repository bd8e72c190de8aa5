//! The cores: one single-threaded runtime each, fed from one listening socket. Nothing is shared between them but
//! read-mostly snapshots and atomics.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http::HeaderValue;
use hyper::body::Incoming;
use prometheus::IntGauge;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::catalog::{Shelf, Sold};
use super::client_body;
use super::conn::{Conns, SWEEP_EVERY};
use super::connection;
use super::context::Call;
use super::rejection::Code;
use super::request_body::Held;
use super::request_ids::RequestIds;
use super::seller::Seller;
use super::spool::Spool;
use crate::config::{Credentials, Limits, Proxies};
use crate::domain::usage::Ending;
use crate::ports::clock::Clock;
use crate::service::authenticate::Authenticator;
use crate::service::ledger::Ledger;
use crate::service::limits::Limiter;
use crate::service::meter::Meter;
use crate::service::receipts::ReceiptDesk;
use crate::service::replay::ReplayGuard;
use crate::telemetry::access::AccessBuffer;
use crate::telemetry::metrics::Metrics;
use crate::tls::Acceptor;

/// After a failed `accept` (too many open files, above all) the listener rests this long.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// Where a connection waits for room, cores are asked this often to end one that is without a call.
const SHED_EVERY: Duration = Duration::from_millis(20);

/// What all cores share.
pub struct Shared {
    /// Finds callers.
    pub authenticator: Arc<Authenticator>,
    /// Enforces rate limits.
    pub limiter: Arc<Limiter>,
    /// Accepts signatures once.
    pub replay: ReplayGuard,
    /// Keeps pools supplied.
    pub ledger: Arc<Ledger>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Everything that is counted.
    pub metrics: Metrics,
    /// Bounds.
    pub limits: Limits,
    /// Who may say where calls come from.
    pub proxies: Proxies,
    /// How callers prove who they are.
    pub credentials: Credentials,
    /// Request bodies in files.
    pub spool: Spool,
    /// Request bodies in memory.
    pub held: Arc<Held>,
    /// TLS towards clients, if it is spoken.
    pub tls: Option<Arc<Acceptor>>,
    /// Whether clients may begin with HTTP/2 without TLS.
    pub h2c: bool,
    /// Makes receipts, if there are any.
    pub receipts: Option<ReceiptDesk>,
    /// The first half of every request id that we make: unique to this run.
    pub run_id: u64,
}

/// What one core has to itself.
pub struct OwnParts {
    /// Its number, from 0.
    pub number: u16,
    /// Meters its calls.
    pub meter: Meter,
    /// Its end of the access log.
    pub access: Option<AccessBuffer>,
}

/// One core of the data plane.
pub struct Core {
    /// Meters calls.
    pub meter: Meter,
    /// The access log, unless it is off.
    pub access: Option<AccessBuffer>,
    /// What all cores share.
    pub shared: Arc<Shared>,
    request_ids: RequestIds,
    shelf: RefCell<Arc<Shelf>>,
    sellers: RefCell<Vec<Rc<Seller>>>,
    /// Its connections.
    pub conns: Conns,
    /// The streams of HTTP/2 connections.
    streams: RefCell<JoinSet<()>>,
    /// Calls whose client hung up; bounded by the number of connections.
    #[expect(clippy::vec_box, reason = "they come boxed and leave boxed: unboxing would copy each call twice")]
    abandoned: RefCell<Vec<Box<Call>>>,
    abandoned_any: tokio::sync::Notify,
    /// What is left of bodies that nobody reads any more; bounded by the number of streams.
    unread: RefCell<Vec<Incoming>>,
    unread_any: tokio::sync::Notify,
}

impl Core {
    fn new(own: OwnParts, shared: Arc<Shared>, shelf: Arc<Shelf>) -> Rc<Self> {
        let core = Self {
            meter: own.meter,
            access: own.access,
            request_ids: RequestIds::new(shared.run_id, own.number),
            shared,
            shelf: RefCell::new(Arc::clone(&shelf)),
            sellers: RefCell::default(),
            conns: Conns::default(),
            streams: RefCell::default(),
            abandoned: RefCell::default(),
            abandoned_any: tokio::sync::Notify::new(),
            unread: RefCell::default(),
            unread_any: tokio::sync::Notify::new(),
        };
        core.stock(shelf);
        Rc::new(core)
    }

    /// Takes over a new catalogue. Calls that are under way keep the old one.
    fn stock(&self, shelf: Arc<Shelf>) {
        *self.sellers.borrow_mut() = shelf.sold.iter().map(|sold| Rc::new(Seller::new(Arc::clone(sold)))).collect();
        *self.shelf.borrow_mut() = shelf;
    }

    /// The catalogue of this moment.
    pub fn shelf(&self) -> Arc<Shelf> {
        Arc::clone(&self.shelf.borrow())
    }

    /// This core's side of a product's seller. A call that began before the catalogue changed gets its own: its
    /// product's place may be another's by now.
    pub fn seller(&self, sold: &Arc<Sold>) -> Rc<Seller> {
        let sellers = self.sellers.borrow();
        let kept = sellers.get(sold.index).filter(|seller| Arc::ptr_eq(&seller.sold, sold));
        kept.map_or_else(|| Rc::new(Seller::new(Arc::clone(sold))), Rc::clone)
    }

    /// An id that no other request of ours has.
    pub fn next_request_id(&self) -> HeaderValue {
        self.request_ids.next()
    }

    /// Serves one stream of an HTTP/2 connection, beside the others.
    pub fn serve_stream(&self, stream: impl Future<Output = ()> + 'static) {
        let mut streams = self.streams.borrow_mut();
        while streams.try_join_next().is_some() {}
        streams.spawn_local(stream);
    }

    /// Counts a refusal of ours.
    pub fn rejected(&self, code: Code) {
        self.shared.metrics.rejection(code.name()).inc();
    }

    /// Ends a connection for the sake of another.
    fn shed(&self) {
        if self.conns.shed() {
            self.shared.metrics.connections_shed.inc();
        }
    }

    /// A call whose client hung up; ended by the core's own task.
    pub fn abandon(&self, call: Box<Call>) {
        self.abandoned.borrow_mut().push(call);
        self.abandoned_any.notify_one();
    }

    async fn end_abandoned(&self) {
        loop {
            self.abandoned_any.notified().await;
            self.end_left();
        }
    }

    /// Ends the calls whose client has left.
    fn end_left(&self) {
        let calls = std::mem::take(&mut *self.abandoned.borrow_mut());
        calls.into_iter().for_each(|call| {
            let ending = call.left();
            call.finish(ending);
        });
    }

    /// What is left of a body that nobody reads any more; read by the core's own task.
    pub fn throw_away(&self, body: Incoming) {
        self.unread.borrow_mut().push(body);
        self.unread_any.notify_one();
    }

    async fn read_unread(&self) {
        let mut reading = JoinSet::new();
        loop {
            tokio::select! {
                () = self.unread_any.notified() => {
                    for body in std::mem::take(&mut *self.unread.borrow_mut()) {
                        reading.spawn_local(client_body::throw_away(body));
                    }
                }
                Some(_) = reading.join_next(), if !reading.is_empty() => {}
            }
        }
    }

    async fn sweep(&self) {
        let mut tick = tokio::time::interval(SWEEP_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.conns.sweep(Instant::now());
            while self.streams.borrow_mut().try_join_next().is_some() {}
            self.sellers.borrow().iter().for_each(|seller| seller.forget_closed());
            if let Some(access) = &self.access {
                access.flush();
            }
        }
    }
}

/// What the listener and the operator send to a core.
enum ToCore {
    Connection(std::net::TcpStream, SocketAddr, OwnedSemaphorePermit),
    Shelf(Arc<Shelf>),
    Shed,
    Drain,
}

/// The listener's view of a core.
struct Lane {
    to_core: mpsc::UnboundedSender<ToCore>,
    /// Connections that it serves.
    open: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

/// The data plane.
pub struct Server {
    /// Empty once it is drained.
    lanes: Mutex<Vec<Lane>>,
    permits: Arc<Semaphore>,
    /// Whose turn it is to end a connection for the sake of another.
    shed_turn: AtomicUsize,
    metrics: Metrics,
}

impl Server {
    /// Starts the cores.
    pub fn start(shared: &Arc<Shared>, own: Vec<OwnParts>, shelf: &Arc<Shelf>) -> io::Result<Self> {
        let mut lanes = Vec::new();
        for own in own {
            let (to_core, inbox) = mpsc::unbounded_channel(); // bounded by the connection limit
            let open = Arc::new(AtomicUsize::new(0));
            let (shared, shelf) = (Arc::clone(shared), Arc::clone(shelf));
            let count = Arc::clone(&open);
            let name = format!("core-{}", own.number);
            let (started, starts) = std::sync::mpsc::sync_channel(1);
            let thread = std::thread::Builder::new().name(name).spawn(move || {
                // Made by the thread that it stays on: it takes tasks that cannot move, without a `LocalSet` between.
                let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
                let runtime = match runtime {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(started.send(Err(error))),
                };
                drop(started.send(Ok(()))); // fails only if nobody waits for this core any more
                runtime.block_on(run_core(Core::new(own, shared, shelf), inbox, count));
            })?;
            starts.recv().map_err(io::Error::other)??;
            lanes.push(Lane { to_core, open, thread });
        }
        let permits = Arc::new(Semaphore::new(shared.limits.connections));
        let (metrics, shed_turn) = (shared.metrics.clone(), AtomicUsize::new(0));
        Ok(Self { lanes: Mutex::new(lanes), permits, shed_turn, metrics })
    }

    /// Deals connections to the cores until `stop` resolves. Above the connection limit one waits, and the others are
    /// not accepted, until there is room.
    pub async fn listen(&self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => return self.deal_last(listener),
                accepted = self.accept(&listener) => accepted,
            };
            match accepted {
                Ok((stream, peer, permit)) => self.deal(stream, peer, permit),
                Err(error) => {
                    tracing::warn!(%error, "no connection could be accepted");
                    if is_out_of_files(&error) {
                        self.shed();
                    }
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    /// Deals the connections that the kernel has made already: closing the listener would reset them, and what their
    /// clients have sent.
    fn deal_last(&self, listener: TcpListener) {
        let Ok(listener) = listener.into_std() else { return };
        while let Ok((stream, peer)) = listener.accept() {
            let ready = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true));
            let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else { return };
            if ready.is_ok() {
                self.deal(stream, peer, permit);
            }
        }
    }

    async fn accept(
        &self,
        listener: &TcpListener,
    ) -> io::Result<(std::net::TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let (stream, peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream.into_std()?, peer, self.room().await?))
    }

    /// Room for one more connection. Where the limit is reached, one that is without a call is ended for it; if all have
    /// one, the first that ends makes room.
    async fn room(&self) -> io::Result<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let mut permit = pin!(Arc::clone(&self.permits).acquire_owned());
        loop {
            self.shed();
            tokio::select! {
                permit = &mut permit => return permit.map_err(io::Error::other),
                () = tokio::time::sleep(SHED_EVERY) => {}
            }
        }
    }

    /// Asks one core after the other.
    fn shed(&self) {
        let (lanes, turn) = (self.lanes(), self.shed_turn.fetch_add(1, Ordering::Relaxed));
        if let Some(lane) = turn.checked_rem(lanes.len()).and_then(|at| lanes.get(at)) {
            let _ = lane.to_core.send(ToCore::Shed); // fails only if the core is gone
        }
    }

    /// To the core with the fewest open connections.
    fn deal(&self, stream: std::net::TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
        if let Some(lane) = self.lanes().iter().min_by_key(|lane| lane.open.load(Ordering::Relaxed)) {
            lane.open.fetch_add(1, Ordering::Relaxed);
            self.metrics.connections.inc();
            // Fails only if the core is gone, with all it served: then so is this connection.
            let _ = lane.to_core.send(ToCore::Connection(stream, peer, permit));
        }
    }

    /// Gives every core a new catalogue.
    pub fn stock(&self, shelf: &Arc<Shelf>) {
        for lane in self.lanes().iter() {
            let _ = lane.to_core.send(ToCore::Shelf(Arc::clone(shelf))); // as above
        }
    }

    /// Lets open calls end, until `give_up` resolves at most; then ends the cores. Returns whether every call had ended.
    pub async fn drain(&self, give_up: impl Future<Output = ()>) -> bool {
        let lanes = std::mem::take(&mut *self.lanes());
        for lane in &lanes {
            let _ = lane.to_core.send(ToCore::Drain); // as above
        }
        let all_closed = || lanes.iter().all(|lane| lane.open.load(Ordering::Acquire) == 0);
        let wait = async {
            while !all_closed() {
                tokio::time::sleep(SWEEP_EVERY).await;
            }
        };
        tokio::select! {
            () = wait => {}
            () = give_up => {}
        }
        let ended = all_closed();
        for lane in lanes {
            drop(lane.to_core); // the core's task ends, and with it whatever was still open
            let _ = lane.thread.join();
        }
        ended
    }

    fn lanes(&self) -> MutexGuard<'_, Vec<Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner) // the list is whole between any two of its operations
    }
}

/// Whether an error says that the process or the machine has no room for another open file.
fn is_out_of_files(error: &io::Error) -> bool {
    let known = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(known, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
}

async fn run_core(core: Rc<Core>, mut inbox: mpsc::UnboundedReceiver<ToCore>, open: Arc<AtomicUsize>) {
    let sweeping = tokio::task::spawn_local({
        let core = Rc::clone(&core);
        async move { core.sweep().await }
    });
    let ending = tokio::task::spawn_local({
        let core = Rc::clone(&core);
        async move { core.end_abandoned().await }
    });
    let reading = tokio::task::spawn_local({
        let core = Rc::clone(&core);
        async move { core.read_unread().await }
    });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            message = inbox.recv() => match message {
                None => break,
                Some(ToCore::Shelf(shelf)) => core.stock(shelf),
                Some(ToCore::Shed) => core.shed(),
                Some(ToCore::Drain) => core.conns.drain(),
                Some(ToCore::Connection(stream, peer, permit)) => {
                    let closed = Closed { open: Arc::clone(&open), gauge: core.shared.metrics.connections.clone(), _permit: permit };
                    connections.spawn_local(connection::serve(Rc::clone(&core), (stream, peer), closed));
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    // What is still open now is cut off: its client is not gone.
    ending.abort();
    core.end_left();
    connections.shutdown().await;
    let mut streams = core.streams.take();
    streams.shutdown().await;
    sweeping.abort();
    reading.abort();
    let cut_off = std::mem::take(&mut *core.abandoned.borrow_mut());
    cut_off.into_iter().for_each(|call| call.finish(Ending::Interrupted));
    if let Some(access) = &core.access {
        access.flush();
    }
}

/// Counts a connection out, however its task ends.
pub struct Closed {
    open: Arc<AtomicUsize>,
    gauge: IntGauge,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Release);
        self.gauge.dec();
    }
}
