//! The runs: which load each target gets, in which order, and what is read before and after it. Targets
//! take turns in every round, so that a disturbed machine disturbs all alike.

use crate::driver::{HeldStreams, Load, Pace, Plan, Tally};
use crate::machine::{self, CoreTimes, Cores};
use crate::target::{Kind, Place, SMALL_BYTES, Target};
use crate::{Result, SETTLE_POLL, stub, wire};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The open loop of small calls.
pub(crate) const RATE: Plan = Plan { rate: 2_000, total: 0, connections: 32 };
/// Short streams for the time to the first byte.
pub(crate) const SHORT: Plan = Plan { rate: 500, total: 0, connections: 64 };
pub(crate) const SHORT_EVENTS: u64 = 5;
const SHORT_INTERVAL_US: u64 = 2_400;
/// Streams at a steady 50 events a second, begun over one interval.
pub(crate) const STEADY: Plan = Plan { rate: 10_000, total: 200, connections: 200 };
pub(crate) const STEADY_EVENTS_PER_SECOND: u64 = 50;
const STEADY_INTERVAL_US: u64 = 20_000;
/// Held streams get an event a second until they are closed.
const HELD_INTERVAL_US: u64 = 1_000_000;
/// Time for a few events on every held stream before its memory is read.
const HELD: Duration = Duration::from_secs(3);
/// Calls, on one connection, before streams are held.
const HELD_WARM_CALLS: u64 = 2_000;
/// What a run may take beyond its planned time.
const OVERTIME_MAX: Duration = Duration::from_secs(30);
/// How long the stub may take to notice that all streams are closed.
const CLOSE_MAX: Duration = Duration::from_secs(15);
/// Time for closed connections to be cleaned up before memory is read.
const QUIET: Duration = Duration::from_millis(300);

/// A closed loop's targets take turns after this time: a neighbour on the host makes calls up to twice as dear for some
/// tenths of a second, and that must meet all alike. The more turns, the surer their median: of 60 pairs of 200 ms it
/// varied by 0.03 from run to run, of 240 pairs of 50 ms by 0.01.
const TURN: Duration = Duration::from_millis(50);
/// The same for streams.
const STREAM_TURN: Duration = Duration::from_secs(1);

/// Above this many cores of foreign CPU a run is not to be trusted.
pub(crate) const FOREIGN_MAX: f64 = 0.3;

/// How much of everything.
#[derive(Clone, Copy)]
pub(crate) struct Amount {
    pub(crate) duration: Duration,
    pub(crate) runs: usize,
    /// How often a run that others disturbed is made again.
    pub(crate) repeats: usize,
    pub(crate) held_streams: usize,
    pub(crate) warm_calls: u64,
}

/// What one run of one target gave.
pub(crate) struct Measure {
    pub(crate) tally: Tally,
    /// CPU time of the target's processes.
    cpu: Duration,
    pub(crate) turns: Vec<Turn>,
    /// 2xx answers that the stub gave and the driver did not get.
    pub(crate) lost: i64,
    /// CPU used by others than target, stub and driver, in cores.
    pub(crate) foreign: f64,
    /// CPU that the host gave to other guests, in cores.
    pub(crate) stolen: f64,
    pub(crate) pss_kib: u64,
}

/// What a turn is compared by with its neighbours in time, in µs.
#[derive(Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) cpu_per_call: f64,
    pub(crate) first_byte_p99: f64,
    pub(crate) delay_p99: f64,
}

impl Measure {
    /// The less disturbed of two runs. What went wrong in the other is not forgotten.
    fn or_quieter(self, other: Self) -> Self {
        let (mut kept, dropped) = if other.foreign < self.foreign { (other, self) } else { (self, other) };
        kept.tally.not_2xx += dropped.tally.not_2xx;
        kept.tally.broken += dropped.tally.broken;
        kept.lost += dropped.lost;
        kept
    }

    /// This and the next turn of one run.
    fn and(self, next: Self) -> Self {
        let (first, second) = (self.tally.elapsed.as_secs_f64(), next.tally.elapsed.as_secs_f64());
        let cores = |one: f64, other: f64| (one * first + other * second) / (first + second);
        Self {
            foreign: cores(self.foreign, next.foreign),
            stolen: cores(self.stolen, next.stolen),
            tally: self.tally.and(next.tally),
            cpu: self.cpu + next.cpu,
            turns: [self.turns, next.turns].concat(),
            lost: self.lost + next.lost,
            pss_kib: next.pss_kib,
        }
    }

    pub(crate) fn calls_per_second(&self) -> f64 {
        self.tally.ok as f64 / self.tally.elapsed.as_secs_f64()
    }

    pub(crate) fn cpu_us_per_call(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.tally.ok as f64
    }

    /// How many cores the target kept busy: well below one, it had to wait for the driver.
    pub(crate) fn cores(&self) -> f64 {
        self.cpu.as_secs_f64() / self.tally.elapsed.as_secs_f64()
    }

    pub(crate) fn cpu_us_per_event(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.tally.events as f64
    }
}

/// All runs of one target.
pub(crate) struct Row {
    pub(crate) kind: Kind,
    pub(crate) runs: Vec<Measure>,
}

/// What many open streams cost a target.
pub(crate) struct Held {
    pub(crate) kind: Kind,
    pub(crate) lost: u64,
    pub(crate) before_kib: u64,
    pub(crate) open_kib: u64,
    /// A closed loop after all streams were closed.
    pub(crate) afterwards: Row,
    /// The same of a fresh process, in turns with it.
    pub(crate) fresh: Row,
}

/// Memory of a target over the session.
pub(crate) struct Memory {
    pub(crate) kind: Kind,
    pub(crate) idle_kib: u64,
    pub(crate) warm_kib: u64,
    pub(crate) end_kib: u64,
}

async fn closed_load(target: &Target, clients: usize, bytes: usize, duration: Duration) -> Result<Load> {
    target.load(target.call(bytes)?, clients, Pace::Closed { duration, calls_max: u64::MAX }).await
}

async fn open(target: &Target, request: Arc<[u8]>, plan: Plan) -> Result<Load> {
    target.load(request, plan.connections, Pace::Open(plan)).await
}

/// A plan with as many calls as fall due in this time.
fn lasting(plan: Plan, duration: Duration) -> Plan {
    let total = plan.rate * duration.as_secs();
    Plan { total: usize::try_from(total).unwrap_or(usize::MAX), ..plan }
}

/// The stub that all proxies share, and where everything runs.
pub(crate) struct Session {
    pub(crate) cores: Cores,
    pub(crate) amount: Amount,
    upstream: SocketAddr,
    dir: TempDir,
}

impl Session {
    pub(crate) async fn start(cores: Cores, amount: Amount) -> Result<Self> {
        // Not in the system's temporary directory: that may be memory, and journals are written here.
        let dir = TempDir::with_prefix_in("load-", env!("CARGO_TARGET_TMPDIR"))?;
        let listener = stub::listen().await?;
        let upstream = listener.local_addr()?;
        tokio::spawn(stub::serve(listener));
        Ok(Self { cores, amount, upstream, dir })
    }

    /// Starts a target in a directory of its own. `None`: it is not installed.
    pub(crate) async fn start_target(&self, kind: Kind) -> Result<Option<Target>> {
        let dir = TempDir::with_prefix_in(kind.name(), self.dir.path())?.keep();
        let place = Place { cores: self.cores, upstream: self.upstream, dir: &dir };
        Target::start(kind, &place).await
    }

    /// Makes the first calls and streams, as many at a time as later, and reads the memory before and
    /// after them: what grows from here on grows with the number of calls.
    pub(crate) async fn warm_up(&self, target: &Target, connections: usize) -> Result<Memory> {
        let idle_kib = target.process.pss_kib()?;
        self.call_often(target, connections, self.amount.warm_calls).await?;
        if Kind::PROXIES.contains(&target.kind) {
            self.steady(target, STEADY_EVENTS_PER_SECOND).await?.run().await?;
        }
        tokio::time::sleep(QUIET).await;
        let warm_kib = target.process.pss_kib()?;
        Ok(Memory { kind: target.kind, idle_kib, warm_kib, end_kib: warm_kib })
    }

    /// Enters the memory at the end of the session.
    pub(crate) async fn read_memory_again(&self, targets: &[Target], memory: &mut [Memory]) -> Result<()> {
        tokio::time::sleep(QUIET).await;
        for (target, memory) in targets.iter().zip(memory) {
            memory.end_kib = target.process.pss_kib()?;
        }
        Ok(())
    }

    async fn call_often(&self, target: &Target, clients: usize, calls_max: u64) -> Result<Tally> {
        let pace = Pace::Closed { duration: OVERTIME_MAX, calls_max };
        target.load(target.call(SMALL_BYTES)?, clients, pace).await?.run().await
    }

    /// A closed loop of so many clients, with bodies of this size.
    pub(crate) async fn closed(&self, targets: &[&Target], clients: usize, bytes: usize) -> Result<Vec<Row>> {
        self.take_turns(targets, self.turns(TURN), async |target| closed_load(target, clients, bytes, TURN).await).await
    }

    pub(crate) async fn rate(&self, targets: &[&Target]) -> Result<Vec<Row>> {
        let plan = lasting(RATE, self.amount.duration);
        self.take_turns(targets, 1, async |target| open(target, target.call(SMALL_BYTES)?, plan).await).await
    }

    pub(crate) async fn short_streams(&self, targets: &[&Target]) -> Result<Vec<Row>> {
        let plan = lasting(SHORT, STREAM_TURN);
        let request = |target: &Target| target.stream(SHORT_EVENTS, SHORT_INTERVAL_US);
        self.take_turns(targets, self.turns(STREAM_TURN), async |target| open(target, request(target)?, plan).await)
            .await
    }

    pub(crate) async fn steady_streams(&self, targets: &[&Target]) -> Result<Vec<Row>> {
        let events = STEADY_EVENTS_PER_SECOND * STREAM_TURN.as_secs();
        self.take_turns(targets, self.turns(STREAM_TURN), async |target| self.steady(target, events).await).await
    }

    async fn steady(&self, target: &Target, events: u64) -> Result<Load> {
        open(target, target.stream(events, STEADY_INTERVAL_US)?, STEADY).await
    }

    /// How many turns of this length make a run.
    fn turns(&self, turn: Duration) -> usize {
        self.amount.duration.div_duration_f64(turn).ceil() as usize
    }

    /// Holds many streams open on a fresh process, and calls it again when they are closed.
    pub(crate) async fn hold(&self, kind: Kind, connections: usize) -> Result<Option<Held>> {
        let Some(target) = self.start_target(kind).await? else {
            return Ok(None);
        };
        self.call_often(&target, 1, HELD_WARM_CALLS).await?;
        tokio::time::sleep(QUIET).await;
        let before_kib = target.process.pss_kib()?;
        let request = target.stream(u64::from(u32::MAX), HELD_INTERVAL_US)?;
        let count = self.amount.held_streams;
        let streams = HeldStreams::open(target.endpoint.address, &request, count).await?;
        tokio::time::sleep(HELD).await;
        let open_kib = target.process.pss_kib()?;
        let lost = streams.lost();
        drop(streams);
        let deadline = Instant::now() + CLOSE_MAX;
        while self.ask(target.upstream, "/stub/streams").await? > 0 {
            if Instant::now() > deadline {
                let name = kind.name();
                return Err(format!("{name} keeps streams open whose buyers have left").into());
            }
            tokio::time::sleep(SETTLE_POLL).await;
        }
        let Some(other) = self.start_target(kind).await? else { return Ok(None) };
        self.call_often(&other, connections, HELD_WARM_CALLS).await?;
        let rows = self.closed(&[&target, &other], connections, SMALL_BYTES).await?;
        let Ok([afterwards, fresh]) = <[Row; 2]>::try_from(rows) else { return Ok(None) };
        Ok(Some(Held { kind, lost, before_kib, open_kib, afterwards, fresh }))
    }

    /// Rounds in which each target has so many turns; those of a round are one run of it, on one set of connections.
    async fn take_turns(
        &self,
        targets: &[&Target],
        turns: usize,
        load: impl AsyncFn(&Target) -> Result<Load>,
    ) -> Result<Vec<Row>> {
        let empty = |target: &&Target| Row { kind: target.kind, runs: Vec::new() };
        let mut rows: Vec<Row> = targets.iter().map(empty).collect();
        for _ in 0..self.amount.runs {
            let mut runs: Vec<(Option<Load>, Option<Measure>)> = targets.iter().map(|_| (None, None)).collect();
            for _ in 0..turns {
                for (target, (kept, run)) in targets.iter().zip(&mut runs) {
                    let load = match kept {
                        Some(load) => load,
                        None => kept.insert(load(target).await?),
                    };
                    let mut turn = self.measure(targets, target, load).await?;
                    for _ in 0..self.amount.repeats {
                        if turn.foreign > FOREIGN_MAX {
                            turn = turn.or_quieter(self.measure(targets, target, load).await?);
                        }
                    }
                    *run = Some(match run.take() {
                        Some(earlier) => earlier.and(turn),
                        None => turn,
                    });
                }
            }
            for (row, (_, run)) in rows.iter_mut().zip(runs) {
                row.runs.extend(run);
            }
        }
        Ok(rows)
    }

    /// `running` are all targets whose CPU is ours and not foreign.
    async fn measure(&self, running: &[&Target], target: &Target, load: &mut Load) -> Result<Measure> {
        let answered = self.ask(target.upstream, "/stub/count").await?;
        let cores = CoreTimes::read(self.cores)?;
        let (ours, cpu, start) = (self.own_cpu(running)?, target.process.cpu()?, Instant::now());
        let tally = tokio::time::timeout(self.amount.duration + OVERTIME_MAX, load.run())
            .await
            .map_err(|_| format!("{} does not end its answers", target.kind.name()))??;
        let elapsed = start.elapsed();
        let cpu = target.process.cpu()?.saturating_sub(cpu);
        let ours = self.own_cpu(running)?.saturating_sub(ours);
        let cores_after = CoreTimes::read(self.cores)?;
        let idle = cores_after.idle.saturating_sub(cores.idle);
        let stolen = cores_after.stolen.saturating_sub(cores.stolen);
        let others = (elapsed * cores.cores).saturating_sub(idle + stolen + ours);
        let answered = self.ask(target.upstream, "/stub/count").await? - answered;
        Ok(Measure {
            lost: answered - i64::try_from(tally.ok)?,
            turns: vec![Turn {
                cpu_per_call: cpu.as_secs_f64() * 1e6 / tally.ok as f64,
                first_byte_p99: tally.first_byte.quantile_us(0.99),
                delay_p99: tally.delay.quantile_us(0.99),
            }],
            tally,
            cpu,
            foreign: others.as_secs_f64() / elapsed.as_secs_f64(),
            stolen: stolen.as_secs_f64() / elapsed.as_secs_f64(),
            pss_kib: target.process.pss_kib()?,
        })
    }

    fn own_cpu(&self, running: &[&Target]) -> Result<Duration> {
        let mut sum = machine::process_cpu("self")?;
        for target in running {
            sum += target.process.cpu()?;
        }
        Ok(sum)
    }

    async fn ask(&self, stub: SocketAddr, path: &str) -> Result<i64> {
        let (_, body) = wire::fetch(stub, &wire::render("GET", path, stub, &[], "")).await?;
        Ok(std::str::from_utf8(&body)?.parse()?)
    }
}
