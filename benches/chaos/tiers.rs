//! What a run consists of: the rows of its table, and the rounds that fill them.

use std::num::NonZeroUsize;
use std::time::Instant;

use super::bank::{Engine, Shape};
use super::cases::{CASES, Case};
use super::jobs::{Job, run_all};
use super::table::{Row, Table, word};
use super::{exhaust, round, single};

/// A tier.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tier {
    full: bool,
    /// Rounds at the same time, if nobody says otherwise.
    at_once: usize,
    /// Kills of the only gateway.
    kills: u32,
}

/// At most three minutes.
pub(crate) const FAST: Tier = Tier { full: false, at_once: 4, kills: 10 };
/// At most an hour.
pub(crate) const FULL: Tier = Tier { full: true, at_once: 5, kills: 200 };

/// Kills that are one round of the row `crash`, on one data directory.
const KILLS_TOGETHER: u32 = 20;
/// Races for so many units or more use up the machine: more of them at a time would only be slower.
const LARGE: u64 = 10_000;
const LARGE_AT_ONCE: usize = 2;
/// How often each package size is raced for, at each number of gateways: size, fast tier, full tier.
const RACES: [(u64, u32, u32); 5] = [(1, 3, 24), (2, 3, 20), (10, 2, 14), (1_000, 1, 7), (100_000, 0, 2)];
/// With so many gateways each.
const RACING_GATEWAYS: [usize; 3] = [1, 2, 4];
/// How far apart the seeds of two cases are: odd, so that each program has every other case, and far enough for the
/// seeds of a case's rounds. With the same seeds all cases would have the same number of gateways.
const SEEDS_APART: u64 = 1_001;
/// Units that are raced for on the same gateways, one package after the other.
const UNITS_TOGETHER: u64 = 1_000;

/// What of a tier is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(crate) seed: u64,
    pub(crate) jobs: Option<NonZeroUsize>,
    /// Names of rows; empty: all.
    pub(crate) only: Vec<String>,
    pub(crate) skip: Vec<String>,
}

impl Choice {
    fn wants(&self, row: &str) -> bool {
        let named = |names: &[String]| names.iter().any(|name| name == row);
        (self.only.is_empty() || named(&self.only)) && !named(&self.skip)
    }
}

/// The rounds of some cases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    pub(crate) rounds: u32,
    pub(crate) seed: u64,
    pub(crate) engine: Option<Engine>,
    pub(crate) gateways: Option<usize>,
}

/// The names of all rows.
pub(crate) fn row_names() -> Vec<String> {
    let cases = CASES.iter().map(|case| case.name.to_owned());
    let races = RACING_GATEWAYS.iter().map(|gateways| race_name(*gateways));
    std::iter::once("crash".to_owned()).chain(cases).chain(races).collect()
}

/// Runs a tier; whether every promise was kept and nothing left out.
pub(crate) async fn run(tier: Tier, choice: &Choice) -> bool {
    let began = Instant::now();
    if Engine::Valkey.binary().is_none() {
        println!("SKIPPED: all rounds on Valkey, since TOLLGATE_VALKEY_SERVER does not name its program");
    }
    let mut table = Table::default();
    let (mut long, mut short, mut racing, mut large) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    if choice.wants("crash") {
        short.extend(crashes(tier.kills, choice.seed, &mut table));
    }
    for (number, case) in (1..).zip(CASES).filter(|(_, case)| choice.wants(case.name)) {
        let rounds = if tier.full { case.full } else { case.fast };
        if rounds == 0 {
            println!("SKIPPED: {}, which takes too long for this tier", case.name);
            continue;
        }
        let seed = choice.seed.wrapping_add(number * SEEDS_APART);
        let jobs = rounds_of(case, How { rounds, seed, engine: None, gateways: None }, &mut table);
        if case.fast == 0 { long.extend(jobs) } else { short.extend(jobs) }
    }
    for gateways in RACING_GATEWAYS.into_iter().filter(|gateways| choice.wants(&race_name(*gateways))) {
        let times = |(size, fast, full)| (size, if tier.full { full } else { fast });
        let races = Races { gateways, sizes: RACES.map(times).into(), seed: choice.seed, engine: None };
        let row = races.row(&mut table);
        racing.extend(races.jobs(row, |size| size < LARGE));
        large.extend(races.jobs(row, |size| size >= LARGE));
    }
    // Long ones first: none of them is waited for alone in the end.
    long.append(&mut short);
    let at_once = choice.jobs.map_or(tier.at_once, NonZeroUsize::get);
    println!("seed {}, {at_once} rounds at a time", choice.seed);
    let whole = run_all(long, at_once, &mut table).await
        && run_all(racing, at_once, &mut table).await
        && run_all(large, at_once.min(LARGE_AT_ONCE), &mut table).await;
    println!("took {} s", began.elapsed().as_secs());
    table.end() && whole
}

/// The program that a seed stands for.
fn engine_of(seed: u64, wanted: Option<Engine>) -> Engine {
    let by_seed = if seed.is_multiple_of(2) { Engine::Redis } else { Engine::Valkey };
    wanted.unwrap_or(if by_seed.binary().is_some() { by_seed } else { Engine::Redis })
}

/// The rounds of a case; each has the next seed.
pub(crate) fn rounds_of(case: &'static Case, how: How, table: &mut Table) -> Vec<Job> {
    let row = table.add(Row::new(case.name, case.about, how.seed));
    let job = |seed: u64| {
        // Sentinels and Clusters are started from Redis's program alone.
        let wanted = matches!(case.shape, Shape::Sentinels | Shape::Cluster).then_some(Engine::Redis);
        let engine = engine_of(seed, wanted.or(how.engine));
        let plan = round::Plan { case, seed, engine, gateways: how.gateways };
        let gateways = how.gateways.map_or_else(String::new, |count| format!(" --gateways {count}"));
        let replay = format!("case {} --rounds 1 --seed {seed} --engine {}{gateways}", case.name, word(engine));
        Job { row, rounds: 1, replay, run: Box::new(move || Box::pin(round::run(plan))) }
    };
    (how.seed..how.seed + u64::from(how.rounds)).map(job).collect()
}

/// Kills of one gateway with the embedded store.
fn crashes(kills: u32, seed: u64, table: &mut Table) -> Vec<Job> {
    let row = table.add(Row::new("crash", "kill -9 of the only gateway, embedded store", seed));
    let job = |(seed, first): (u64, u32)| {
        let kills = KILLS_TOGETHER.min(kills - first);
        let replay = format!("crash --rounds {kills} --seed {seed}");
        let rounds = usize::try_from(kills).unwrap();
        Job { row, rounds, replay, run: Box::new(move || Box::pin(single::crash_outcome(kills, seed))) }
    };
    (seed..).zip((0..kills).step_by(usize::try_from(KILLS_TOGETHER).unwrap())).map(job).collect()
}

fn race_name(gateways: usize) -> String {
    format!("exhaust-{gateways}")
}

/// Packages that racing clients buy out.
pub(crate) struct Races {
    pub(crate) gateways: usize,
    /// Size, and how many packages of it.
    pub(crate) sizes: Vec<(u64, u32)>,
    pub(crate) seed: u64,
    pub(crate) engine: Option<Engine>,
}

impl Races {
    /// The row that the races fill.
    pub(crate) fn row(&self, table: &mut Table) -> usize {
        let about = format!("64 clients buy out packages through {} gateways", self.gateways);
        table.add(Row::new(&race_name(self.gateways), &about, self.seed))
    }

    /// The races for packages of some sizes. Some small packages are one job, on the same gateways; a large one is a job
    /// of its own.
    pub(crate) fn jobs(&self, row: usize, wanted: impl Fn(u64) -> bool) -> Vec<Job> {
        let mut jobs = Vec::new();
        for (size, packages) in self.sizes.iter().filter(|(size, _)| wanted(*size)) {
            let together = usize::try_from((UNITS_TOGETHER / size).clamp(1, 8)).unwrap();
            let packages = vec![*size; usize::try_from(*packages).unwrap()];
            for (seed, packages) in (self.seed..).zip(packages.chunks(together)) {
                jobs.push(self.job(row, seed, packages.to_vec()));
            }
        }
        jobs
    }

    fn job(&self, row: usize, seed: u64, packages: Vec<u64>) -> Job {
        let (gateways, engine, rounds) = (self.gateways, engine_of(seed, self.engine), packages.len());
        let size = packages[0];
        let options = format!("--gateways {gateways} --calls {size} --rounds {rounds} --seed {seed}");
        let replay = format!("exhaust {options} --engine {}", word(engine));
        let plan = exhaust::Plan { gateways, packages, seed, engine };
        Job { row, rounds, replay, run: Box::new(move || Box::pin(exhaust::run(plan))) }
    }
}
