//! The load: a closed loop (each client makes its next call when it has its answer) and an open loop
//! (calls fall due at a fixed rate whatever the answers do). What is not a 2xx answer read to its end is
//! counted apart and never among the latencies.

use crate::Result;
use crate::client::Client;
use crate::histogram::Histogram;
use crate::stub::{SENT_DIGITS, SENT_MARK, unix_nanos};
use crate::wire::Connection;
use memchr::memmem;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

/// How long streams may take to open or to end before a run is given up.
const STREAMS_SECONDS_MAX: u64 = 30;
/// Streams that are being opened at one time, so that no accept queue overflows.
const OPENING_MAX: usize = 64;

/// What one run saw.
#[derive(Default)]
pub(crate) struct Tally {
    /// 2xx answers read to their end.
    pub(crate) ok: u64,
    /// Whole answers with another status.
    pub(crate) not_2xx: u64,
    /// Calls whose connection failed or ended early.
    pub(crate) broken: u64,
    pub(crate) events: u64,
    pub(crate) elapsed: Duration,
    /// From the call's start (closed loop) or due time (open loop) to the end of its answer.
    pub(crate) latency: Histogram,
    /// From the same instant to the first byte of the body.
    pub(crate) first_byte: Histogram,
    /// From the stub's writing of an event to its arrival here.
    pub(crate) delay: Histogram,
}

impl Tally {
    /// This and another's.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.ok += other.ok;
        self.not_2xx += other.not_2xx;
        self.broken += other.broken;
        self.events += other.events;
        self.elapsed += other.elapsed;
        self.latency.add(&other.latency);
        self.first_byte.add(&other.first_byte);
        self.delay.add(&other.delay);
        self
    }
}

type Shared = Arc<Mutex<Tally>>;

/// An open loop: `total` calls at `rate` a second by so many clients.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rate: u64,
    pub(crate) total: usize,
    pub(crate) connections: usize,
}

impl Plan {
    /// When a call falls due, from the start: at any moment of its turn, those of the golden ratio, which lie evenly. On
    /// the beat, each call would meet the timers of stub and proxy at one phase, which is another in each run, and show
    /// the queue there instead of its own way.
    fn due(self, index: usize) -> Duration {
        let period = 1_000_000_000 / self.rate;
        let share = u64::from((index as u32).wrapping_mul(0x9e37_79b9));
        Duration::from_nanos(index as u64 * 1_000_000_000 / self.rate + ((period * share) >> 32))
    }
}

/// When calls are made.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// Each client's next call when it has its answer, for so long or so many calls in all.
    Closed {
        duration: Duration,
        calls_max: u64,
    },
    Open(Plan),
}

/// Clients that are open and have not begun: opening them is not measured.
pub(crate) struct Load {
    pub(crate) clients: Vec<Client>,
    pub(crate) pace: Pace,
}

/// Splits a stream into events and finds when each was sent.
#[derive(Default)]
struct Events {
    unread: Vec<u8>,
}

impl Events {
    /// Calls `on_event` for each whole event with its sending time, if it carries one.
    fn push(&mut self, data: &[u8], mut on_event: impl FnMut(Option<u64>)) {
        self.unread.extend_from_slice(data);
        let mut used = 0;
        while let Some(length) = memmem::find(&self.unread[used..], b"\n\n") {
            on_event(sent_nanos(&self.unread[used..used + length]));
            used += length + 2;
        }
        self.unread.drain(..used);
    }
}

fn sent_nanos(event: &[u8]) -> Option<u64> {
    let digits = memmem::find(event, SENT_MARK)? + SENT_MARK.len();
    let digits = event.get(digits..digits + SENT_DIGITS)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn lock(tally: &Shared) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes one call and enters it into the tally, timed from `start`.
async fn call(client: &mut Client, start: Instant, tally: &Shared) {
    let mut first = None;
    let mut events = Events::default();
    let mut streaming = false;
    let result = client
        .call(|data| {
            if first.is_none() {
                first = Some(start.elapsed());
                streaming = data.starts_with(b"data:");
            }
            if streaming {
                let now = unix_nanos();
                events.push(data, |sent| record_event(tally, now, sent));
            }
        })
        .await;
    let latency = start.elapsed();
    let broken = result.is_err();
    record_answer(tally, result, latency, first);
    client.settle(broken).await;
}

fn record_answer(tally: &Shared, result: Result<u16>, latency: Duration, first: Option<Duration>) {
    let mut tally = lock(tally);
    match result {
        Ok(200..=299) => {
            tally.ok += 1;
            tally.latency.record(latency);
            if let Some(first) = first {
                tally.first_byte.record(first);
            }
        }
        Ok(_) => tally.not_2xx += 1,
        Err(_) => tally.broken += 1,
    }
}

fn record_event(tally: &Shared, now: u64, sent: Option<u64>) {
    if let Some(sent) = sent {
        let mut tally = lock(tally);
        tally.events += 1;
        tally.delay.record(Duration::from_nanos(now.saturating_sub(sent)));
    }
}

/// Waits for all clients, and takes them back.
async fn finish(
    mut tasks: JoinSet<Client>,
    clients: &mut Vec<Client>,
    tally: &Shared,
    start: Instant,
) -> Result<Tally> {
    while let Some(client) = tasks.join_next().await {
        clients.push(client?);
    }
    let mut tally = std::mem::take(&mut *lock(tally));
    tally.elapsed = start.elapsed();
    Ok(tally)
}

impl Load {
    /// Runs it to its end; it can be run again, on the same connections.
    pub(crate) async fn run(&mut self) -> Result<Tally> {
        match self.pace {
            Pace::Closed { duration, calls_max } => closed_loop(&mut self.clients, duration, calls_max).await,
            Pace::Open(plan) => open_loop(&mut self.clients, plan).await,
        }
    }
}

/// Keeps this thread, which is driver and stub, from sleeping while it lives. Who writes to a sleeper on this machine pays
/// for waking it: 8 to 10 µs of a call's 60 on a busy host, the more of them the longer the sleeper had nothing to do,
/// that is, the slower the target. Peers on other machines cost nobody that.
struct Awake(JoinHandle<()>);

impl Awake {
    fn keep() -> Self {
        Self(tokio::spawn(async {
            loop {
                tokio::task::yield_now().await;
            }
        }))
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Every client calls, one call after the other, until the time is over or `calls_max` were begun.
/// Calls that were begun are finished, so that every answer the stub gave can be accounted for.
async fn closed_loop(clients: &mut Vec<Client>, duration: Duration, calls_max: u64) -> Result<Tally> {
    let tally = Shared::default();
    let begun = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    let _awake = Awake::keep();
    for mut client in clients.drain(..) {
        let (tally, begun) = (Arc::clone(&tally), Arc::clone(&begun));
        tasks.spawn(async move {
            let mut now = Instant::now();
            while now.duration_since(start) < duration && begun.fetch_add(1, Relaxed) < calls_max {
                call(&mut client, now, &tally).await;
                now = Instant::now();
            }
            client
        });
    }
    finish(tasks, clients, &tally, start).await
}

/// Makes each call when it falls due, or as soon afterwards as a client is free, and times it from
/// when it fell due: a target that stalls is charged for the calls that it kept waiting.
async fn open_loop(clients: &mut Vec<Client>, plan: Plan) -> Result<Tally> {
    let count = clients.len();
    let tally = Shared::default();
    let due = Arc::new(Semaphore::new(0));
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    let due_time = move |index: usize| start + plan.due(index);
    for mut client in clients.drain(..) {
        let tally = Arc::clone(&tally);
        let (due, next) = (Arc::clone(&due), Arc::clone(&next));
        tasks.spawn(async move {
            while let Ok(permit) = due.acquire().await {
                permit.forget();
                let index = next.fetch_add(1, Relaxed);
                if index >= plan.total {
                    break;
                }
                call(&mut client, due_time(index), &tally).await;
            }
            client
        });
    }
    // A thread of its own: the runtime's timers are exact to the millisecond only.
    let pacer = std::thread::spawn(move || {
        // Wake at the instant asked for, not up to 50 us later as is the default.
        let slack = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        for index in 0..plan.total {
            let mut wait = due_time(index).saturating_duration_since(Instant::now());
            while !wait.is_zero() {
                std::thread::park_timeout(wait);
                wait = due_time(index).saturating_duration_since(Instant::now());
            }
            due.add_permits(1);
        }
        // One more for each task: the one that tells it to stop.
        due.add_permits(count);
        slack
    });
    let tally = finish(tasks, clients, &tally, start).await?;
    pacer.join().map_err(|_| "the pacer panicked")??;
    Ok(tally)
}

/// Streams that are held open; dropping it closes them.
pub(crate) struct HeldStreams {
    _tasks: JoinSet<()>,
    tally: Shared,
}

impl HeldStreams {
    /// Opens this many streams, each on its own connection, and returns when all had their first event.
    pub(crate) async fn open(address: SocketAddr, request: &Arc<[u8]>, count: usize) -> Result<Self> {
        let mut tasks = JoinSet::new();
        let tally = Shared::default();
        let opening = Arc::new(Semaphore::new(OPENING_MAX));
        for _ in 0..count {
            let permit = Arc::clone(&opening).acquire_owned().await?;
            let (request, tally) = (Arc::clone(request), Arc::clone(&tally));
            tasks.spawn(async move {
                let mut permit = Some(permit);
                let result = async {
                    let mut connection = Connection::open(address).await?;
                    connection.call(&request, |_| drop(permit.take())).await
                };
                // A held stream has no end: that it ended at all is the failure.
                let status: Result<u16> = result.await;
                let mut tally = lock(&tally);
                match status {
                    Ok(200..=299) | Err(_) => tally.broken += 1,
                    Ok(_) => tally.not_2xx += 1,
                }
            });
        }
        // All permits are back when every stream had its first event or failed.
        let all = u32::try_from(OPENING_MAX)?;
        let wait = Duration::from_secs(STREAMS_SECONDS_MAX);
        let _permits = tokio::time::timeout(wait, opening.acquire_many(all)).await??;
        Ok(Self { _tasks: tasks, tally })
    }

    /// Streams that failed or ended so far.
    pub(crate) fn lost(&self) -> u64 {
        let tally = lock(&self.tally);
        tally.broken + tally.not_2xx
    }
}
