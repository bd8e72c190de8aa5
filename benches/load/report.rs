//! The figures as Markdown tables: medians of the runs, and the ratios that have goals. Ratios of CPU a call are taken
//! turn by turn, others within each round, and then their median, as neighbours in time share the machine's mood. The
//! last percent of a stream's times is that of a turn, and the lower quartile of them: of all turns together it would show
//! how long the machine stood still in its worst moments, whoever's turn it was, and that only ever adds to a time.

use crate::client::STREAMS;
use crate::scenario::{
    FOREIGN_MAX, Held, Measure, Memory, RATE, Row, SHORT, SHORT_EVENTS, STEADY, STEADY_EVENTS_PER_SECOND,
};
use crate::stub::ANSWER_BYTES;
use crate::target::{Kind, LARGER_BYTES, SMALL_BYTES};

/// All that was measured; what was left out is empty.
#[derive(Default)]
pub(crate) struct Results {
    /// Per number of clients.
    pub(crate) closed: Vec<(usize, Vec<Row>)>,
    pub(crate) credentials: Vec<(usize, Vec<Row>)>,
    pub(crate) transports: Vec<(usize, Vec<Row>)>,
    pub(crate) rate: Vec<Row>,
    pub(crate) short: Vec<Row>,
    pub(crate) steady: Vec<Row>,
    pub(crate) held: Vec<Held>,
    pub(crate) memory: Vec<Memory>,
}

/// One column of a table of runs.
type Column<'a> = (&'a str, &'a dyn Fn(&Measure) -> f64);

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

/// The lower quartile.
fn quiet(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 4).copied().unwrap_or(f64::NAN)
}

fn of(rows: &[Row], kind: Kind) -> Option<&Row> {
    rows.iter().find(|row| row.kind == kind)
}

fn figure(rows: &[Row], kind: Kind, read: impl Fn(&Measure) -> f64) -> Option<f64> {
    Some(median(of(rows, kind)?.runs.iter().map(read).collect()))
}

/// The median of one target's figures over another's, round by round.
fn ratio(rows: &[Row], kind: Kind, base: Kind, read: impl Fn(&Measure) -> f64) -> Option<f64> {
    let rounds = of(rows, kind)?.runs.iter().zip(&of(rows, base)?.runs);
    Some(median(rounds.map(|(run, base)| read(run) / read(base)).collect()))
}

/// The median of one target's CPU a call over another's, turn by turn. What is dear in few turns only shows in the columns
/// of the tables, which are of all turns.
fn cpu_ratio(rows: &[Row], kind: Kind, base: Kind) -> Option<f64> {
    Some(cpu_ratio_of(of(rows, kind)?, of(rows, base)?))
}

fn cpu_ratio_of(row: &Row, base: &Row) -> f64 {
    let [turns, base] = [row, base].map(|row| row.runs.iter().flat_map(|run| run.turns.iter()));
    median(turns.zip(base).map(|(turn, base)| turn.cpu_per_call / base.cpu_per_call).collect())
}

/// What a target adds over no proxy, relative to what another adds.
fn added(rows: &[Row], kind: Kind, base: Kind, read: impl Fn(&Measure) -> f64) -> Option<f64> {
    let direct = figure(rows, Kind::Direct, &read)?;
    Some((figure(rows, kind, &read)? - direct) / (figure(rows, base, &read)? - direct))
}

/// Prints a table of runs: the given columns are medians, then what went wrong and who disturbed.
fn print_rows(title: &str, rows: &[Row], columns: &[Column]) {
    if rows.is_empty() {
        return;
    }
    println!("\n### {title}\n");
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    println!("| target | {} | not 2xx | broken | lost | others' CPU, stolen (cores, worst) |", names.join(" | "));
    println!("|---|{}", "--:|".repeat(columns.len() + 4));
    for row in rows {
        let figures = columns.iter().map(|(_, read)| shown(median(row.runs.iter().map(read).collect())));
        let sum = |read: &dyn Fn(&Measure) -> i64| row.runs.iter().map(read).sum::<i64>();
        let worst = |read: fn(&Measure) -> f64| row.runs.iter().map(read).fold(0.0, f64::max);
        let foreign = worst(|run| run.foreign);
        println!(
            "| {} | {} | {} | {} | {} | {foreign:.2}, {:.2}{} |",
            row.kind.name(),
            figures.collect::<Vec<_>>().join(" | "),
            sum(&|run| run.tally.not_2xx.cast_signed()),
            sum(&|run| run.tally.broken.cast_signed()),
            sum(&|run| run.lost),
            worst(|run| run.stolen),
            if foreign > FOREIGN_MAX { " DISTURBED" } else { "" },
        );
    }
}

/// Whole numbers from 100 on, one digit below it.
fn shown(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

pub(crate) fn print_closed(clients: usize, rows: &[Row]) {
    print_calls(&format!("Closed loop, {clients} connections"), SMALL_BYTES, rows);
}

pub(crate) fn print_credentials(clients: usize, rows: &[Row]) {
    print_calls(&format!("Credentials, closed loop, {clients} connections"), LARGER_BYTES, rows);
}

pub(crate) fn print_transports(clients: usize, rows: &[Row]) {
    let title = format!(
        "Transports, closed loop, {clients} clients (tls-resumed: a new connection for each call; h2c, h2: {STREAMS} \
         clients on a connection)"
    );
    print_calls(&title, SMALL_BYTES, rows);
}

fn print_calls(title: &str, bytes: usize, rows: &[Row]) {
    print_rows(
        &format!("{title}, {bytes}-byte calls, {ANSWER_BYTES}-byte answers"),
        rows,
        &[
            ("calls/s", &Measure::calls_per_second),
            ("p50 µs", &p50),
            ("p99 µs", &p99),
            ("CPU µs a call", &Measure::cpu_us_per_call),
            ("cores busy", &Measure::cores),
            ("PSS MiB", &|run| mib(run.pss_kib)),
        ],
    );
}

fn p50(run: &Measure) -> f64 {
    run.tally.latency.quantile_us(0.5)
}

fn p99(run: &Measure) -> f64 {
    run.tally.latency.quantile_us(0.99)
}

fn first_p50(run: &Measure) -> f64 {
    run.tally.first_byte.quantile_us(0.5)
}

fn first_p99(run: &Measure) -> f64 {
    quiet(run.turns.iter().map(|turn| turn.first_byte_p99).collect())
}

fn delay_p99(run: &Measure) -> f64 {
    quiet(run.turns.iter().map(|turn| turn.delay_p99).collect())
}

pub(crate) fn print_rate(rows: &[Row]) {
    let (rate, connections) = (RATE.rate, RATE.connections);
    print_rows(
        &format!("Open loop, {rate} calls/s on {connections} connections, timed from when each fell due"),
        rows,
        &[("p50 µs", &p50), ("p99 µs", &p99), ("CPU µs a call", &Measure::cpu_us_per_call)],
    );
}

pub(crate) fn print_short(rows: &[Row]) {
    let rate = SHORT.rate;
    print_rows(
        &format!("Short streams, {rate}/s of {SHORT_EVENTS} events: time to the first byte of the body"),
        rows,
        &[
            ("p50 µs", &first_p50),
            ("p99 of a quiet second µs", &first_p99),
            ("CPU µs a stream", &Measure::cpu_us_per_call),
        ],
    );
}

pub(crate) fn print_steady(rows: &[Row]) {
    let streams = STEADY.total;
    print_rows(
        &format!("Steady streams, {streams} at {STEADY_EVENTS_PER_SECOND} events/s"),
        rows,
        &[
            ("events/s", &|run| run.tally.events as f64 / run.tally.elapsed.as_secs_f64()),
            ("event delay p50 µs", &|run| run.tally.delay.quantile_us(0.5)),
            ("event delay p99 of a quiet second µs", &delay_p99),
            ("CPU µs an event", &Measure::cpu_us_per_event),
            ("PSS MiB", &|run| mib(run.pss_kib)),
        ],
    );
}

impl Held {
    fn kib_per_stream(&self, streams: usize) -> f64 {
        (self.open_kib as f64 - self.before_kib as f64) / streams as f64
    }
}

pub(crate) fn print_held(streams: usize, held: &[Held]) {
    if held.is_empty() {
        return;
    }
    println!("\n### Held streams, {streams} on a fresh process, then called again\n");
    println!(
        "| target | KiB a stream | PSS before MiB | PSS open MiB | streams lost | CPU µs a call afterwards | of a fresh \
         process |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|");
    let cpu = |row: &Row| median(row.runs.iter().map(Measure::cpu_us_per_call).collect());
    for held in held {
        println!(
            "| {} | {:.1} | {:.1} | {:.1} | {} | {} | {} |",
            held.kind.name(),
            held.kib_per_stream(streams),
            mib(held.before_kib),
            mib(held.open_kib),
            held.lost,
            shown(cpu(&held.afterwards)),
            shown(cpu(&held.fresh)),
        );
    }
}

pub(crate) fn print_memory(memory: &[Memory]) {
    println!("\n### Memory (PSS, MiB)\n");
    println!("| target | idle | after warm-up | after all loads | end / warm-up |");
    println!("|---|--:|--:|--:|--:|");
    for memory in memory {
        println!(
            "| {} | {:.1} | {:.1} | {:.1} | {:.2} |",
            memory.kind.name(),
            mib(memory.idle_kib),
            mib(memory.warm_kib),
            mib(memory.end_kib),
            memory.growth(),
        );
    }
}

impl Memory {
    fn growth(&self) -> f64 {
        self.end_kib as f64 / self.warm_kib as f64
    }
}

/// Prints each ratio that could be taken beside its goal, and whether the goal was met.
pub(crate) fn print_goals(results: &Results, streams: usize) {
    println!("\n### Ratios and goals\n");
    println!("| ratio | measured | goal | |");
    println!("|---|--:|--:|---|");
    for (connections, rows) in &results.closed {
        let cpu = |kind, base| cpu_ratio(rows, kind, base);
        let at = format!("CPU a call at {connections}");
        print_goal(&format!("{at}: metered / plain"), cpu(Kind::Metered, Kind::Plain), Some(1.10));
        print_goal(&format!("{at}: redis / metered"), cpu(Kind::Redis, Kind::Metered), Some(1.05));
        print_goal(&format!("{at}: metered / bare"), cpu(Kind::Metered, Kind::Bare), Some(1.5));
        print_goal(&format!("{at}: plain / bare"), cpu(Kind::Plain, Kind::Bare), None);
        print_goal(&format!("{at}: bare / nginx"), cpu(Kind::Bare, Kind::Nginx), None);
    }
    print_variants(results);
    print_goal("p50 added at the fixed rate: bare / nginx", added(&results.rate, Kind::Bare, Kind::Nginx, p50), None);
    for kind in [Kind::Plain, Kind::Metered] {
        let name = kind.name();
        let rate = added(&results.rate, kind, Kind::Nginx, p50);
        print_goal(&format!("p50 added at the fixed rate: {name} / nginx"), rate, Some(1.2));
        let first = |read: fn(&Measure) -> f64| added(&results.short, kind, Kind::Bare, read);
        print_goal(&format!("first byte p50 added: {name} / bare"), first(first_p50), Some(1.25));
        print_goal(&format!("first byte p99 added: {name} / bare"), first(first_p99), Some(1.2));
        let event = ratio(&results.steady, kind, Kind::Bare, Measure::cpu_us_per_event);
        print_goal(&format!("CPU an event: {name} / bare"), event, Some(1.2));
        let delay = ratio(&results.steady, kind, Kind::Bare, delay_p99);
        print_goal(&format!("event delay p99: {name} / bare"), delay, Some(1.3));
        let held = results.held.iter().find(|held| held.kind == kind);
        let kib = held.map(|held| held.kib_per_stream(streams));
        print_goal(&format!("KiB a held stream: {name}"), kib, Some(32.0));
        let worn = held.map(|held| cpu_ratio_of(&held.afterwards, &held.fresh));
        print_goal(&format!("CPU a call after held streams / of a fresh process: {name}"), worn, Some(1.10));
        let memory = results.memory.iter().find(|memory| memory.kind == kind);
        let growth = memory.map(Memory::growth);
        print_goal(&format!("memory after all loads / after warm-up: {name}"), growth, Some(1.10));
    }
}

/// What one thing costs that differs from a metered call with a key over plain HTTP/1.1.
fn print_variants(results: &Results) {
    for (clients, rows) in &results.credentials {
        for (kind, goal) in [(Kind::Signed, 1.25), (Kind::AppCode, 1.05)] {
            let name = format!("CPU a call of {LARGER_BYTES} bytes at {clients}: {} / metered", kind.name());
            print_goal(&name, cpu_ratio(rows, kind, Kind::Metered), Some(goal));
        }
    }
    for (clients, rows) in &results.transports {
        for kind in Kind::TRANSPORTS.iter().copied().filter(|kind| *kind != Kind::Metered) {
            let name = format!("CPU a call at {clients}: {} / metered", kind.name());
            print_goal(&name, cpu_ratio(rows, kind, Kind::Metered), None);
        }
    }
}

/// A ratio whose parts were not all measured is left out; one without a goal is for orientation.
fn print_goal(name: &str, measured: Option<f64>, goal: Option<f64>) {
    match (measured, goal) {
        (Some(measured), Some(goal)) => {
            let verdict = if measured <= goal { "met" } else { "MISSED" };
            println!("| {name} | {measured:.2} | ≤ {goal:.2} | {verdict} |");
        }
        (Some(measured), None) => println!("| {name} | {measured:.2} | | |"),
        (None, _) => {}
    }
}
