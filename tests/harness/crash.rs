//! Kill -9 at seeded moments under open-loop load, a third of it event streams; then every call is compared with the
//! books. Used by a short test and by the long run in benches/chaos.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::books::{Differences, compare, units};
use super::client::Request;
use super::rng::Rng;
use super::seller::{LAST_CHUNK, Reply, SSE_HEAD, Seen, Seller, Step, chunk};
use super::wire::{Framing, Wire};
use super::world::World;
use super::{until, within};

/// A kill comes this many milliseconds after the gateway was ready, at the earliest and at the latest.
const KILL_AFTER_MS: std::ops::Range<u64> = 100..1_300;
/// One call in this many is answered 500 by the seller.
const FAILS_ONE_IN: u64 = 20;
/// More than any run uses: nothing here is about running out.
const OFFER: &str = "chat-1000000";

/// What to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rounds: u32,
    pub(crate) seed: u64,
    pub(crate) calls_per_second: u64,
}

/// One kill.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    /// When it came, after the gateway was ready.
    pub(crate) after: Duration,
    /// Calls that were under way.
    pub(crate) in_flight: usize,
    /// From the start of the process to readiness.
    pub(crate) ready: Duration,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) rounds: Vec<Round>,
    /// Calls that were begun.
    pub(crate) calls: usize,
    /// Calls whose client has a 2xx head.
    pub(crate) received: usize,
    /// Those of them that ended before their body did.
    pub(crate) cut: usize,
    /// Units charged by the usage records.
    pub(crate) charged: u64,
    /// Units booked as used on the package.
    pub(crate) settled: u64,
    pub(crate) differences: Differences,
}

impl Report {
    /// What breaks the promise; empty if it was kept.
    pub(crate) fn faults(&self) -> Vec<String> {
        let at_risk: usize = self.rounds.iter().map(|round| round.in_flight).sum();
        let Differences { lost, doubled, invented, undelivered } = &self.differences;
        let mut faults = Vec::new();
        for (what, ids) in [("lost", lost), ("doubled", doubled), ("invented", invented)] {
            if !ids.is_empty() {
                faults.push(format!("{what}: {ids:?}"));
            }
        }
        if undelivered.len() > at_risk {
            faults.push(format!("{} billed but undelivered, {at_risk} were in flight", undelivered.len()));
        }
        if self.settled != self.charged {
            faults.push(format!("{} units are booked, the usage records say {}", self.settled, self.charged));
        }
        if self.received == 0 {
            faults.push("no call came through: this run shows nothing".to_owned());
        }
        faults
    }
}

/// What became of one call.
#[derive(Debug, Clone)]
struct Outcome {
    id: String,
    /// `None`: no head came.
    status: Option<u16>,
    whole: bool,
}

/// Clients that share a gateway.
#[derive(Debug)]
struct Load {
    address: Mutex<SocketAddr>,
    key: String,
    seed: u64,
    numbers: AtomicU64,
    in_flight: AtomicUsize,
    stopping: AtomicBool,
    idle: Mutex<Vec<Wire>>,
    outcomes: Mutex<Vec<Outcome>>,
}

/// Runs the plan.
pub(crate) async fn run(plan: Plan) -> Report {
    let served = Arc::new(Mutex::new(BTreeSet::new()));
    let notes = Arc::clone(&served);
    let seller = Seller::answering(move |seen| answer(seen, &notes)).await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&[OFFER]).await;
    let load = Arc::new(Load {
        address: Mutex::new(world.data),
        key: buyer.key.clone(),
        seed: plan.seed,
        numbers: AtomicU64::new(0),
        in_flight: AtomicUsize::new(0),
        stopping: AtomicBool::new(false),
        idle: Mutex::default(),
        outcomes: Mutex::default(),
    });
    let driver = tokio::spawn(Arc::clone(&load).drive(plan.calls_per_second));
    let mut rng = Rng::new(plan.seed);
    let mut rounds = Vec::new();
    for _ in 0..plan.rounds {
        rounds.push(round(&mut world, &load, &mut rng).await);
    }
    load.stopping.store(true, Ordering::SeqCst);
    driver.await.unwrap();
    let idle = async || (load.in_flight.load(Ordering::SeqCst) == 0).then_some(());
    until("the last call ends", idle).await;
    assert_eq!(world.stop().await.code, Some(0), "a quiet gateway stops in order");
    let records = world.usage();
    world.restart().await;
    let charged = units(&records);
    let settled = booked(&world, &buyer.account, charged).await;
    let outcomes = load.outcomes.lock().unwrap().clone();
    let received: Vec<_> = outcomes.iter().filter(|call| matches!(call.status, Some(200..300))).collect();
    let ids = received.iter().map(|call| call.id.clone()).collect();
    let differences = compare(&ids, &served.lock().unwrap(), &records);
    Report {
        rounds,
        calls: outcomes.len(),
        received: received.len(),
        cut: received.iter().filter(|call| !call.whole).count(),
        charged,
        settled,
        differences,
    }
}

/// Units booked as used, once they reach what was charged or nothing is left to be booked.
async fn booked(world: &World, account: &str, charged: u64) -> u64 {
    until("all leases are settled", async || {
        let packages = world.admin.packages(account).await;
        let settled = packages.iter().map(|package| package.settled).sum::<u64>();
        let pending = packages.iter().map(|package| package.leased + package.suspense).sum::<u64>();
        (settled >= charged || pending == 0).then_some(settled)
    })
    .await
}

async fn round(world: &mut World, load: &Load, rng: &mut Rng) -> Round {
    let after = Duration::from_millis(KILL_AFTER_MS.start + rng.below(KILL_AFTER_MS.end - KILL_AFTER_MS.start));
    tokio::time::sleep(after).await; // the seeded moment, not a wait for something
    let in_flight = load.in_flight.load(Ordering::SeqCst);
    world.gateway.kill().await;
    load.idle.lock().unwrap().clear();
    let started = std::time::Instant::now();
    world.restart().await;
    *load.address.lock().unwrap() = world.data;
    Round { after, in_flight, ready: started.elapsed() }
}

/// The seller: plain or streamed as asked, with pauses that depend on the call, so that a kill meets every step.
pub(crate) fn answer(seen: &Seen, served: &Mutex<BTreeSet<String>>) -> Reply {
    let id = seen.head.get("x-request-id").unwrap_or_else(|| panic!("no x-request-id: {:?}", seen.head)).to_owned();
    let number = id.rsplit('-').next().and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut rng = Rng::new(number);
    let think = Step::Pause(Duration::from_millis(rng.below(30)));
    if rng.below(FAILS_ONE_IN) == 0 {
        return Reply::Steps(vec![think]).then(Step::Send(super::seller::plain(500, r#"{"error":"scripted"}"#)));
    }
    served.lock().unwrap().insert(id);
    if !seen.text().contains("\"stream\":true") {
        return Reply::Steps(vec![think]).then(Step::Send(super::seller::plain(200, r#"{"ok":true}"#)));
    }
    let mut reply = Reply::Steps(vec![think, Step::Send(SSE_HEAD.into())]);
    for event in 0..8 {
        let pause = Step::Pause(Duration::from_millis(rng.below(20)));
        reply = reply.then(Step::Send(chunk(format!("data: {{\"n\":{event}}}\n\n")))).then(pause);
    }
    reply.then(Step::Send(chunk("data: [DONE]\n\n"))).then(Step::Send(LAST_CHUNK.into()))
}

impl Load {
    /// Begins a call at each tick, whether or not the earlier ones have ended.
    async fn drive(self: Arc<Self>, calls_per_second: u64) {
        let mut ticks = tokio::time::interval(Duration::from_nanos(1_000_000_000 / calls_per_second));
        while !self.stopping.load(Ordering::SeqCst) {
            ticks.tick().await;
            self.in_flight.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(Arc::clone(&self).call());
        }
    }

    async fn call(self: Arc<Self>) {
        let number = self.numbers.fetch_add(1, Ordering::SeqCst);
        let id = format!("crash-{}-{number}", self.seed);
        let streamed = number.is_multiple_of(3);
        let request = if streamed { Request::stream(&self.key) } else { Request::chat(&self.key) };
        let request = request.field("X-Request-Id", &id);
        let (status, whole) = within("a call ends", self.exchange(&request)).await;
        self.outcomes.lock().unwrap().push(Outcome { id, status, whole });
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    /// The status, if a head came, and whether the whole body did.
    async fn exchange(&self, request: &Request) -> (Option<u16>, bool) {
        let address = *self.address.lock().unwrap();
        let idle = self.idle.lock().unwrap().pop();
        let wire = match idle {
            Some(wire) => Ok(wire),
            None => Wire::connect(address).await,
        };
        let Ok(mut wire) = wire else { return (None, false) };
        if wire.send(&request.bytes()).await.is_err() {
            return (None, false);
        }
        let Ok(head) = wire.head().await else { return (None, false) };
        let framing = head.answer_framing("POST");
        let whole = wire.body(framing).await.cut.is_none();
        let same_gateway = *self.address.lock().unwrap() == address;
        if whole && framing != Framing::UntilClose && head.get("connection") != Some("close") && same_gateway {
            self.idle.lock().unwrap().push(wire);
        }
        (Some(head.status()), whole)
    }
}
