//! Long runs against the real binary, with a printed seed: gateways, servers and the links between them are killed,
//! halted, cut and rolled back under load, and every call is compared with the books. `docs/chaos.md` says what each
//! case does and how to read the table. Here is only the command line.
//!
//! `cargo bench --bench chaos -- fast`
//! `cargo bench --bench chaos -- full --skip pause-30s,exhaust-4`
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
mod jobs;
mod link;
mod load;
#[cfg_attr(test, expect(dead_code, reason = "its tests run in tests/it"))]
mod oracle;
mod round;
mod single;
mod table;
mod tiers;

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use bank::Engine;
use cases::{CASES, Case, named};
use clap::{Args, Parser, Subcommand};
use table::Table;
use tiers::{Choice, How, Races};

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
    /// Every case, twenty rounds each, 200 kills, 200 races: for a release. At most an hour on two quiet cores.
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
    /// Rounds at the same time.
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// Only these rows of the table, with commas between: cases, `crash`, `exhaust-1`, `-2`, `-4`.
    #[arg(long, value_delimiter = ',', value_parser = row_name)]
    only: Vec<String>,
    /// All rows but these.
    #[arg(long, value_delimiter = ',', value_parser = row_name)]
    skip: Vec<String>,
}

impl Tier {
    fn choice(self) -> Choice {
        let Self { seed, jobs, only, skip } = self;
        Choice { seed: seed.unwrap_or_else(seed_of_now), jobs, only, skip }
    }
}

fn row_name(name: &str) -> Result<String, String> {
    let known = tiers::row_names();
    let found = known.iter().find(|known| *known == name).cloned();
    found.ok_or_else(|| format!("the table has no row {name}, but these: {}", known.join(", ")))
}

#[derive(Args)]
struct Pick {
    /// Which cases.
    #[arg(required = true, value_parser = |name: &str| named(name).ok_or_else(|| format!("there is no case {name}; see `list`")))]
    names: Vec<&'static Case>,
    /// Rounds of each.
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// Rounds at the same time.
    #[arg(long, default_value = "1")]
    jobs: NonZeroUsize,
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
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    calls: u64,
    /// Packages to buy out.
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// Some packages at the same time, each lot at gateways of its own.
    #[arg(long, default_value = "1")]
    jobs: NonZeroUsize,
    /// By default the time.
    #[arg(long)]
    seed: Option<u64>,
    /// The server's program.
    #[arg(long)]
    engine: Option<Engine>,
}

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
        Run::Fast(flags) => tiers::run(tiers::FAST, &flags.choice()).await,
        Run::Full(flags) => tiers::run(tiers::FULL, &flags.choice()).await,
        Run::Case(pick) => some_cases(&pick).await,
        Run::Exhaust(flags) => {
            let (seed, sizes) = (flags.seed.unwrap_or_else(seed_of_now), vec![(flags.calls, flags.rounds)]);
            let races = Races { gateways: usize::from(flags.gateways), sizes, seed, engine: flags.engine };
            let mut table = Table::default();
            let row = races.row(&mut table);
            let whole = jobs::run_all(races.jobs(row, |_| true), flags.jobs.get(), &mut table).await;
            table.end() && whole
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

async fn some_cases(pick: &Pick) -> bool {
    let seed = pick.seed.unwrap_or_else(seed_of_now);
    let how = How { rounds: pick.rounds, seed, engine: pick.engine, gateways: pick.gateways.map(usize::from) };
    let mut table = Table::default();
    let mut rounds = Vec::new();
    for case in &pick.names {
        rounds.extend(tiers::rounds_of(case, how, &mut table));
    }
    let whole = jobs::run_all(rounds, pick.jobs.get(), &mut table).await;
    table.end() && whole
}
