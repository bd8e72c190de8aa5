//! The open-loop driver: begins a call at each tick of its clock, whether or not the earlier ones have ended, spread
//! over gateways and accounts by a seed; and the log of what every client saw.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::harness::client::Request;
use crate::harness::rng::Rng;
use crate::harness::wire::{Framing, Wire};

/// A client hangs up on a call that takes longer than this. Far beyond every limit of the gateway's.
const PATIENCE: Duration = Duration::from_secs(6);
/// Longest wait for an operator's call.
const OPERATOR_PATIENCE: Duration = Duration::from_secs(3);
/// So many of a hundred calls want an event stream.
const STREAMED_PERCENT: u64 = 30;
/// So many of a hundred clients hang up early.
const HANGING_UP_PERCENT: u64 = 3;
/// Between two looks at how late clients are.
const CLOCK_LOOKED_AT: Duration = Duration::from_millis(3);
/// They do so within so many milliseconds.
const HANGING_UP_MS: u64 = 40;
/// So many of a hundred calls are made by the first account, which never runs out.
const RICH_PERCENT: u64 = 40;

/// Where each gateway listens now, and connections to it that wait for a call.
pub(crate) struct Roads(Vec<Road>);

#[derive(Default)]
struct Road {
    address: Mutex<Option<SocketAddr>>,
    idle: Mutex<Vec<Wire>>,
}

impl Roads {
    pub(crate) fn new(count: usize) -> Self {
        Self((0..count).map(|_| Road::default()).collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn open(&self, gateway: usize, address: SocketAddr) {
        *self.0[gateway].address.lock().unwrap() = Some(address);
        self.0[gateway].idle.lock().unwrap().clear();
    }

    pub(crate) fn close(&self, gateway: usize) {
        *self.0[gateway].address.lock().unwrap() = None;
        self.0[gateway].idle.lock().unwrap().clear();
    }

    /// Makes a call; `head` gets the status and its time as soon as they come. Returns whether the body came whole.
    async fn exchange(&self, gateway: usize, request: &Request, head: &Mutex<Option<(u16, Instant)>>) -> bool {
        let road = &self.0[gateway];
        let Some(address) = *road.address.lock().unwrap() else { return false };
        let idle = road.idle.lock().unwrap().pop();
        let wire = match idle {
            Some(wire) => Ok(wire),
            None => Wire::connect(address).await,
        };
        let Ok(mut wire) = wire else { return false };
        if wire.send(&request.bytes()).await.is_err() {
            return false;
        }
        let Ok(answer) = wire.head().await else { return false };
        *head.lock().unwrap() = Some((answer.status(), Instant::now()));
        let framing = answer.answer_framing("POST");
        let whole = wire.body(framing).await.cut.is_none();
        let reusable = framing != Framing::UntilClose && answer.get("connection") != Some("close");
        if whole && reusable && *road.address.lock().unwrap() == Some(address) {
            road.idle.lock().unwrap().push(wire);
        }
        whole
    }
}

/// One call on a connection of its own: status and body, if they came in time.
pub(crate) async fn ask(address: SocketAddr, request: &Request) -> Option<(u16, Vec<u8>)> {
    let asked = async {
        let mut wire = Wire::connect(address).await.ok()?;
        wire.send(&request.bytes()).await.ok()?;
        let head = wire.head().await.ok()?;
        let body = wire.body(head.answer_framing(request.method())).await;
        body.cut.is_none().then_some((head.status(), body.bytes))
    };
    tokio::time::timeout(OPERATOR_PATIENCE, asked).await.ok()?
}

/// Somebody who calls.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) account: String,
    pub(crate) key: String,
    /// Calls bought.
    pub(crate) bought: u64,
}

/// What a client saw of one call.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) id: String,
    pub(crate) gateway: usize,
    /// Index of the caller.
    pub(crate) caller: usize,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    /// Status, and when the head was there; `None`: none came.
    pub(crate) head: Option<(u16, Instant)>,
    /// The body came to its end.
    pub(crate) whole: bool,
    /// The client hung up by its own plan.
    pub(crate) hung_up: bool,
}

/// Calls of many clients, and their log.
pub(crate) struct Load {
    pub(crate) roads: Arc<Roads>,
    pub(crate) callers: Vec<Caller>,
    seed: u64,
    numbers: AtomicU64,
    in_flight: AtomicUsize,
    stopping: AtomicBool,
    log: Mutex<Vec<Seen>>,
    /// How late the driver itself was at worst: a measure of how busy the machine is.
    late: Mutex<Duration>,
}

/// One call's plan.
struct Plan {
    gateway: usize,
    caller: usize,
    streamed: bool,
    hangs_up_after: Option<Duration>,
}

impl Load {
    pub(crate) fn new(roads: Arc<Roads>, callers: Vec<Caller>, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            roads,
            callers,
            seed,
            numbers: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            log: Mutex::default(),
            late: Mutex::default(),
        })
    }

    pub(crate) fn log(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }

    /// The gateways that have answered 2xx to a call that began after a moment.
    pub(crate) fn served_since(&self, moment: Instant) -> BTreeSet<usize> {
        let log = self.log.lock().unwrap();
        let well = |seen: &&Seen| seen.began >= moment && matches!(seen.head, Some((200..300, _)));
        log.iter().filter(well).map(|seen| seen.gateway).collect()
    }

    pub(crate) fn late(&self) -> Duration {
        *self.late.lock().unwrap()
    }

    /// Waits for a moment, and notes how much later it has become.
    async fn wait_until(&self, due: Instant) {
        tokio::time::sleep_until(due.into()).await;
        let mut late = self.late.lock().unwrap();
        *late = due.elapsed().max(*late);
    }

    /// Notes how late clients are until it is dropped, where none of them keeps to a clock.
    pub(crate) async fn watch_the_clock(&self) {
        loop {
            self.wait_until(Instant::now() + CLOCK_LOOKED_AT).await;
        }
    }

    /// Begins calls until [`Load::stop`]. The first second finds how busy the machine is, too.
    pub(crate) async fn drive(self: Arc<Self>, calls_per_second: u64) {
        let gap = Duration::from_nanos(1_000_000_000 / calls_per_second);
        let mut due = Instant::now();
        while !self.stopping.load(Ordering::SeqCst) {
            self.wait_until(due).await;
            due += gap;
            let number = self.numbers.fetch_add(1, Ordering::SeqCst);
            self.in_flight.fetch_add(1, Ordering::SeqCst);
            let load = Arc::clone(&self);
            tokio::spawn(async move {
                load.call(number).await;
                load.in_flight.fetch_sub(1, Ordering::SeqCst);
            });
        }
    }

    /// Begins no more calls, and waits for those under way; clients hang up at the latest after their patience.
    pub(crate) async fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        while self.in_flight.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn plan(&self, number: u64) -> Plan {
        let mut rng = Rng::new(self.seed ^ number.rotate_left(32));
        let others = self.callers.len() as u64 - 1;
        let rich = others == 0 || rng.percent(RICH_PERCENT);
        Plan {
            gateway: rng.below(self.roads.len() as u64) as usize,
            caller: if rich { 0 } else { 1 + rng.below(others) as usize },
            streamed: rng.percent(STREAMED_PERCENT),
            hangs_up_after: rng.percent(HANGING_UP_PERCENT).then(|| Duration::from_millis(rng.below(HANGING_UP_MS))),
        }
    }

    async fn call(&self, number: u64) {
        let plan = self.plan(number);
        self.make(number, plan).await;
    }

    /// One plain call by one caller at one gateway; its status if a head came.
    pub(crate) async fn one(&self, caller: usize, gateway: usize) -> Option<u16> {
        let number = self.numbers.fetch_add(1, Ordering::SeqCst);
        self.make(number, Plan { gateway, caller, streamed: false, hangs_up_after: None }).await
    }

    /// The same, but now and then the client hangs up early.
    pub(crate) async fn one_or_none(&self, caller: usize, gateway: usize) -> Option<u16> {
        let number = self.numbers.fetch_add(1, Ordering::SeqCst);
        let plan = self.plan(number);
        self.make(number, Plan { gateway, caller, ..plan }).await
    }

    async fn make(&self, number: u64, plan: Plan) -> Option<u16> {
        let Plan { gateway, caller, streamed, hangs_up_after } = plan;
        let key = &self.callers[caller].key;
        let id = format!("chaos-{}-{number}", self.seed);
        let request = if streamed { Request::stream(key) } else { Request::chat(key) }.field("X-Request-Id", &id);
        let head = Mutex::new(None);
        let began = Instant::now();
        let longest = hangs_up_after.unwrap_or(PATIENCE);
        let ended = tokio::time::timeout(longest, self.roads.exchange(gateway, &request, &head)).await;
        let whole = ended == Ok(true);
        let seen = Seen {
            id,
            gateway,
            caller,
            began,
            ended: Instant::now(),
            head: *head.lock().unwrap(),
            whole,
            hung_up: ended.is_err() && hangs_up_after.is_some(),
        };
        let status = seen.head.map(|(status, _)| status);
        self.log.lock().unwrap().push(seen);
        status
    }
}
