//! The load runner: puts the same calls through no proxy, nginx, a bare hyper proxy, and Tollgate plain,
//! metered, and metered with its accounts on a Redis server, in one session on one machine, and prints their
//! figures side by side; then metered calls by credential (Bearer key, signature, AppCode, with bodies of 1 KiB)
//! and by transport (plain, over TLS kept and resumed, over HTTP/2 without TLS and with it).
//!
//! `cargo bench --bench load -- [--seconds 4] [--runs 3] [--repeats 1] [--connections 64]
//! [--only NAME,NAME] [--quick]`
//!
//! The target is a process of its own on a core of its own: this program starts itself again as the bare proxy, and as
//! a stub without a proxy before it. Driver and the proxies' stub are one thread on another core. Absolute figures are
//! worth little on a shared machine; compare ratios of one session. PSS counts shared pages in parts: driver and bare
//! proxy are one program, as are both Tollgates, so a few MiB of code are split between them.
#![expect(clippy::print_stdout, reason = "a command-line tool: its tables go to stdout")]
#![expect(
    clippy::indexing_slicing,
    clippy::float_arithmetic,
    reason = "a measuring tool on its own input: a panic ends it loudly, and its figures are no amounts"
)]

mod bare;
mod client;
mod driver;
mod histogram;
mod http2;
mod machine;
mod process;
mod report;
mod scenario;
mod stub;
mod target;
mod tls;
mod tollgate;
mod wire;

use clap::{Parser, Subcommand};
use machine::Cores;
use report::Results;
use rustix::process::{Signal, set_parent_process_death_signal};
use scenario::{Amount, Session};
use std::net::SocketAddr;
use std::time::Duration;
use target::{Kind, LARGER_BYTES, SMALL_BYTES, Target};
use tokio::signal::unix::{SignalKind, signal};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How often a state that must come about is looked at.
const SETTLE_POLL: Duration = Duration::from_millis(20);
/// Files that a process needs beside one or two for each stream.
const FILES_SPARE: u64 = 200;

/// The scenarios and the targets that take part in each.
const SCENARIOS: [(&str, &[Kind]); 7] = [
    ("closed", Kind::PROXIES),
    ("credentials", Kind::CREDENTIALS),
    ("transports", Kind::TRANSPORTS),
    ("rate", Kind::PROXIES),
    ("short", Kind::PROXIES),
    ("steady", Kind::PROXIES),
    ("hold", Kind::PROXIES),
];

/// Measures Tollgate beside nginx and a bare hyper proxy.
#[derive(Parser)]
struct Arguments {
    /// Length of each run.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Rounds; each target has one run in each, and medians are printed.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    runs: u16,
    /// How often a run that other processes disturbed is made again; the quieter one counts.
    #[arg(long, default_value_t = 1)]
    repeats: u8,
    /// Targets (direct, nginx, bare, plain, metered, redis, signed, app-code, tls, tls-resumed, h2c, h2) and
    /// scenarios (closed, credentials, transports, rate, short, steady, hold): of each sort the named ones, or all
    /// when none is named.
    #[arg(long, value_delimiter = ',', value_parser = known_name)]
    only: Vec<String>,
    /// Clients of the closed loops, a connection each but over HTTP/2; several make a table each.
    #[arg(long, value_delimiter = ',', default_value = "64")]
    connections: Vec<usize>,
    /// One short round, 200 held streams: shows that it runs, not how fast.
    #[arg(long)]
    quick: bool,
    /// Given by `cargo bench`; without it (`cargo test` starts benches too) nothing is measured.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program does when it starts itself.
#[derive(Subcommand)]
enum Role {
    #[command(hide = true)]
    Stub,
    #[command(hide = true)]
    Bare { upstream: SocketAddr },
}

fn known_name(name: &str) -> std::result::Result<String, String> {
    let known = Kind::ALL.map(Kind::name).contains(&name) || SCENARIOS.iter().any(|(scenario, _)| *scenario == name);
    known.then(|| name.to_owned()).ok_or("neither a target nor a scenario".to_owned())
}

impl Arguments {
    fn amount(&self) -> Amount {
        Amount {
            duration: Duration::from_secs(if self.quick { 1 } else { self.seconds }),
            runs: if self.quick { 1 } else { self.runs.into() },
            repeats: if self.quick { 0 } else { self.repeats.into() },
            held_streams: if self.quick { 200 } else { 2_000 },
            warm_calls: if self.quick { 2_000 } else { 50_000 },
        }
    }

    /// Whether `name` is among the named of its sort, or its sort has none.
    fn wants(&self, sort: &[&str], name: &str) -> bool {
        let mut named = self.only.iter().filter(|only| sort.contains(&only.as_str())).peekable();
        named.peek().is_none() || named.any(|only| only == name)
    }

    fn wants_scenario(&self, name: &str) -> bool {
        self.wants(&SCENARIOS.map(|(name, _)| name), name)
    }

    /// Whether it is wanted, and some scenario that is wanted needs it.
    fn wants_target(&self, kind: Kind) -> bool {
        let needed = |(scenario, kinds): &(&str, &[Kind])| kinds.contains(&kind) && self.wants_scenario(scenario);
        self.wants(&Kind::ALL.map(Kind::name), kind.name()) && SCENARIOS.iter().any(needed)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.role {
        Some(role) => {
            // Also when the parent is killed and cannot end its children.
            set_parent_process_death_signal(Some(Signal::KILL))?;
            match role {
                Role::Stub => {
                    let listener = stub::listen().await?;
                    println!("port {}", listener.local_addr()?.port());
                    stub::serve(listener).await
                }
                Role::Bare { upstream } => bare::serve(upstream).await,
            }
        }
        None if !arguments.bench => {
            println!("load: nothing is measured outside `cargo bench`");
            Ok(())
        }
        None => {
            let mut terminated = signal(SignalKind::terminate())?;
            tokio::select! {
                // Dropping the session ends the processes that it started.
                result = measure(&arguments) => result,
                _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
                _ = terminated.recv() => Err("terminated".into()),
            }
        }
    }
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let amount = arguments.amount();
    let files = machine::raise_open_files()?;
    let needed = 2 * amount.held_streams as u64 + FILES_SPARE;
    if files < needed {
        return Err(format!("{files} open files are allowed, {needed} are needed: raise ulimit -n").into());
    }
    process::adopt_orphans()?;
    let cores = Cores::choose()?;
    machine::pin(cores.driver)?;
    println!("## Load: {}", machine::describe(cores));
    println!("\nMedians of {} runs of {:?}.", amount.runs, amount.duration);
    let session = Session::start(cores, amount).await?;
    let (targets, failures) = start_targets(arguments, &session).await?;
    let results = run(arguments, &session, &targets).await?;
    report::print_goals(&results, amount.held_streams);
    match failures.is_empty() {
        true => Ok(()),
        false => Err(failures.join("; ").into()),
    }
}

/// Starts what is wanted. A target that does not start is skipped loudly and fails the session at its
/// end; nginx or redis-server that is not installed is skipped loudly only.
async fn start_targets(arguments: &Arguments, session: &Session) -> Result<(Vec<Target>, Vec<String>)> {
    let (mut targets, mut failures) = (Vec::new(), Vec::new());
    for kind in Kind::ALL {
        let name = kind.name();
        if !arguments.wants_target(kind) {
            continue;
        }
        match session.start_target(kind).await {
            Ok(Some(target)) => targets.push(target),
            Ok(None) => println!("\n**SKIPPED {name}: not installed.**"),
            Err(error) => {
                println!("\n**SKIPPED {name}: {error}**");
                failures.push(format!("{name} did not start"));
            }
        }
    }
    Ok((targets, failures))
}

async fn run(arguments: &Arguments, session: &Session, targets: &[Target]) -> Result<Results> {
    let mut results = Results::default();
    for target in targets {
        let connections = arguments.connections.iter().copied().max().unwrap_or_default();
        results.memory.push(session.warm_up(target, connections).await?);
    }
    run_calls(arguments, session, targets, &mut results).await?;
    let proxies = among(targets, Kind::PROXIES);
    if arguments.wants_scenario("rate") {
        results.rate = session.rate(&proxies).await?;
        report::print_rate(&results.rate);
    }
    if arguments.wants_scenario("short") {
        results.short = session.short_streams(&proxies).await?;
        report::print_short(&results.short);
    }
    if arguments.wants_scenario("steady") {
        results.steady = session.steady_streams(&proxies).await?;
        report::print_steady(&results.steady);
    }
    session.read_memory_again(targets, &mut results.memory).await?;
    report::print_memory(&results.memory);
    if arguments.wants_scenario("hold") {
        let connections = arguments.connections.first().copied().unwrap_or(64);
        // A direct stream costs no proxy anything.
        for target in proxies.iter().filter(|target| target.kind != Kind::Direct) {
            results.held.extend(session.hold(target.kind, connections).await?);
        }
        report::print_held(session.amount.held_streams, &results.held);
    }
    Ok(results)
}

/// The closed loops.
async fn run_calls(arguments: &Arguments, session: &Session, targets: &[Target], results: &mut Results) -> Result<()> {
    for clients in arguments.connections.iter().copied() {
        if arguments.wants_scenario("closed") {
            let rows = session.closed(&among(targets, Kind::PROXIES), clients, SMALL_BYTES).await?;
            report::print_closed(clients, &rows);
            results.closed.push((clients, rows));
        }
        if arguments.wants_scenario("credentials") {
            let rows = session.closed(&among(targets, Kind::CREDENTIALS), clients, LARGER_BYTES).await?;
            report::print_credentials(clients, &rows);
            results.credentials.push((clients, rows));
        }
        if arguments.wants_scenario("transports") {
            let rows = session.closed(&among(targets, Kind::TRANSPORTS), clients, SMALL_BYTES).await?;
            report::print_transports(clients, &rows);
            results.transports.push((clients, rows));
        }
    }
    Ok(())
}

fn among<'a>(targets: &'a [Target], kinds: &[Kind]) -> Vec<&'a Target> {
    targets.iter().filter(|target| kinds.contains(&target.kind)).collect()
}
