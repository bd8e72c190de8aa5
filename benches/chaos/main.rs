//! Long runs against the real binary, with a printed seed: gateways, servers and the links between them are killed,
//! halted, cut and rolled back under load, and every call is compared with the books. `docs/chaos.md` says what each
//! case does and how to read the table. Here is only the command line.
//!
//! `cargo bench --bench chaos -- fast`
//! `cargo bench --bench chaos -- case promote cut-log --rounds 20 --seed 7`
//! `cargo bench --bench chaos -- exhaust --gateways 4 --calls 1000 --rounds 10`
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a run stops at the first surprise")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a command-line tool")]

#[path = "../../tests/harness/mod.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod harness;

mod bank;
mod cases;
mod exhaust;
mod faults;
mod fleet;
mod link;
mod load;
#[cfg_attr(test, expect(dead_code, reason = "its tests run in tests/it"))]
mod oracle;
mod round;
mod single;
mod table;

use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bank::{Engine, Shape};
use cases::{CASES, Case, named};
use clap::{Args, Parser, Subcommand};
use table::{Row, Table};

#[derive(Parser)]
struct Flags {
    #[command(subcommand)]
    run: Run,
    /// Given by cargo to every benchmark.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Run {
    /// Every case that is short, once; at most three minutes.
    Fast(Tier),
    /// Every case, twenty rounds each, 200 kills, 200 races: for a release. About an hour and a half.
    Full(Tier),
    /// Some cases by name; see `list`.
    Case(Pick),
    /// Packages that racing clients buy out through several gateways: exactly what was bought must be sold.
    Exhaust(Exhaust),
    /// The cases, with what each does.
    List,
    /// One gateway with the embedded store: kill -9 at random moments under load; nothing may be lost or doubled.
    Crash(single::Crash),
    /// One gateway with the embedded store: racing clients buy out packages; exactly what was sold may come through.
    Race(single::Race),
}

#[derive(Args)]
struct Tier {
    /// Repeats a run's moments; by default the time.
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Args)]
struct Pick {
    /// Which cases.
    #[arg(required = true, value_parser = |name: &str| named(name).ok_or_else(|| format!("there is no case {name}; see `list`")))]
    names: Vec<&'static Case>,
    /// Rounds of each.
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// The first round's seed; each further round has the next. By default the time.
    #[arg(long)]
    seed: Option<u64>,
    /// The server's program. By default even seeds take Redis and odd ones Valkey, if it is there.
    #[arg(long)]
    engine: Option<Engine>,
    /// How many gateways; by default one to four, by the seed.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=8))]
    gateways: Option<u8>,
}

#[derive(Args)]
struct Exhaust {
    /// How many gateways.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    gateways: u8,
    /// Units of each package.
    #[arg(long, default_value_t = 1_000)]
    calls: u64,
    /// Packages to buy out.
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// By default the time.
    #[arg(long)]
    seed: Option<u64>,
    /// The server's program.
    #[arg(long)]
    engine: Option<Engine>,
}

/// How often each package size is raced for, at each number of gateways: size, fast tier, full tier.
const RACES: [(u64, u32, u32); 5] = [(1, 3, 24), (2, 3, 20), (10, 2, 14), (1_000, 1, 7), (100_000, 0, 2)];
/// With so many gateways each.
const RACING_GATEWAYS: [usize; 3] = [1, 2, 4];

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // `cargo test --all-targets` runs benchmarks without a command; the short runs are tests of their own.
    if std::env::args().skip(1).all(|argument| argument == "--bench") {
        println!("choose a run: fast, full, case, exhaust, crash or race; see --help");
        return ExitCode::SUCCESS;
    }
    open_files();
    let kept = match Flags::parse().run {
        Run::Crash(flags) => single::run_crash(&flags).await,
        Run::Race(flags) => single::run_race(&flags).await,
        Run::List => list(),
        Run::Fast(flags) => tier(flags.seed, false).await,
        Run::Full(flags) => tier(flags.seed, true).await,
        Run::Case(pick) => {
            let mut table = Table::default();
            let seed = pick.seed.unwrap_or_else(seed_of_now);
            for case in &pick.names {
                let how =
                    How { rounds: pick.rounds, seed, engine: pick.engine, gateways: pick.gateways.map(usize::from) };
                table.add(rounds(case, how).await);
            }
            table.end()
        }
        Run::Exhaust(flags) => {
            let mut table = Table::default();
            let packages = vec![flags.calls; usize::try_from(flags.rounds).unwrap()];
            let seed = flags.seed.unwrap_or_else(seed_of_now);
            table.add(races((usize::from(flags.gateways), packages), seed, flags.engine).await);
            table.end()
        }
    };
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Many clients are many open files: as many as this process may have.
fn open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }); // what is there must do
}

pub(crate) fn seed_of_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn list() -> bool {
    for case in CASES {
        println!("{:<20} {}", case.name, case.about);
    }
    true
}

/// The rounds of a case.
#[derive(Clone, Copy)]
struct How {
    rounds: u32,
    seed: u64,
    engine: Option<Engine>,
    gateways: Option<usize>,
}

async fn tier(seed: Option<u64>, full: bool) -> bool {
    let seed = seed.unwrap_or_else(seed_of_now);
    let began = Instant::now();
    if Engine::Valkey.binary().is_none() {
        println!("SKIPPED: all rounds on Valkey, since TOLLGATE_VALKEY_SERVER does not name its program");
    }
    let mut table = Table::default();
    table.add(single::crash_row(if full { 200 } else { 5 }, seed).await);
    for case in CASES {
        let many = if full { case.full } else { case.fast };
        if many == 0 {
            println!("SKIPPED: {}, which takes too long for this tier", case.name);
            continue;
        }
        table.add(rounds(case, How { rounds: many, seed, engine: None, gateways: None }).await);
    }
    for gateways in RACING_GATEWAYS {
        let times = |(size, fast, full_times): (u64, u32, u32)| {
            let times = if full { full_times } else { fast };
            std::iter::repeat_n(size, usize::try_from(times).unwrap())
        };
        table.add(races((gateways, RACES.into_iter().flat_map(times).collect()), seed, None).await);
    }
    println!("took {} s", began.elapsed().as_secs());
    table.end()
}

/// The program that a seed stands for.
fn engine_of(seed: u64, wanted: Option<Engine>) -> Engine {
    let by_seed = if seed.is_multiple_of(2) { Engine::Redis } else { Engine::Valkey };
    wanted.unwrap_or(if by_seed.binary().is_some() { by_seed } else { Engine::Redis })
}

async fn rounds(case: &'static Case, how: How) -> Row {
    let mut row = Row::new(case.name, case.about, how.seed);
    for seed in how.seed..how.seed + u64::from(how.rounds) {
        // Sentinels and Clusters are started from Redis's program alone.
        let wanted = matches!(case.shape, Shape::Sentinels | Shape::Cluster).then_some(Engine::Redis);
        let engine = engine_of(seed, wanted.or(how.engine));
        let plan = round::Plan { case, seed, engine, gateways: how.gateways };
        let outcome = table::guarded(round::run(plan)).await;
        let gateways = how.gateways.map_or_else(String::new, |count| format!(" --gateways {count}"));
        let replay = format!("case {} --rounds 1 --seed {seed} --engine {}{gateways}", case.name, table::word(engine));
        row.add(1, outcome, &replay);
    }
    row
}

async fn races((gateways, packages): (usize, Vec<u64>), seed: u64, engine: Option<Engine>) -> Row {
    let name = format!("exhaust-{gateways}");
    let about = format!("64 clients buy out packages through {gateways} gateways");
    let mut row = Row::new(&name, &about, seed);
    let engine = engine_of(seed, engine);
    let mut sizes = packages.clone();
    sizes.dedup();
    for size in sizes {
        let packages: Vec<u64> = packages.iter().copied().filter(|one| *one == size).collect();
        let many = packages.len();
        let outcome = table::guarded(exhaust::run(exhaust::Plan { gateways, packages, seed, engine })).await;
        let options = format!("--gateways {gateways} --calls {size} --rounds {many} --seed {seed}");
        row.add(many, outcome, &format!("exhaust {options} --engine {}", table::word(engine)));
    }
    row
}
