//! The table of a run: a line for each round as it ends, a Markdown table at the end, and for each round that broke the
//! promise the command that repeats it.

use clap::ValueEnum;

use super::bank::Engine;
use super::oracle::Verdict;
use super::round::Outcome;

/// The rounds of one case, added up.
pub(crate) struct Row {
    name: String,
    about: String,
    first_seed: u64,
    rounds: usize,
    /// Commands that repeat the rounds that failed.
    failed: Vec<String>,
    sum: Outcome,
}

impl Row {
    pub(crate) fn new(name: &str, about: &str, first_seed: u64) -> Self {
        let (name, about) = (name.to_owned(), about.to_owned());
        Self { name, about, first_seed, rounds: 0, failed: Vec::new(), sum: Outcome::default() }
    }

    /// Adds so many rounds that were run together; `replay` repeats them.
    fn add(&mut self, rounds: usize, outcome: Outcome, replay: &str) {
        let kept = outcome.verdict.kept();
        let word = if kept { "kept" } else { "BROKEN" };
        let note = outcome.note.as_deref().map_or_else(String::new, |note| format!(", {note}"));
        let Outcome { verdict, gateways, served, ready, .. } = &outcome;
        println!(
            "{word:<6} {replay}: {gateways} gateways, {} calls, {} 2xx heads, longest wait {} of {} ms, served in {} ms, ready in {} ms, took {} s{note}",
            verdict.calls,
            verdict.received,
            verdict.longest.as_millis(),
            outcome.wait_max.as_millis(),
            served.as_millis(),
            ready.as_millis(),
            outcome.took.as_secs(),
        );
        if !kept {
            print!("{verdict}");
            if let Some(folder) = &outcome.kept_in {
                println!("  the evidence is in {}", folder.display());
            }
            self.failed.push(replay.to_owned());
        }
        self.rounds += rounds;
        self.sum.add(outcome);
    }

    fn line(&self) -> String {
        let Outcome { verdict, faults, served, ready, .. } = &self.sum;
        let seeds = match self.rounds {
            0 | 1 => self.first_seed.to_string(),
            _ => format!("{} …", self.first_seed),
        };
        let cells = [
            format!("`{}`: {}", self.name, self.about),
            self.rounds.to_string(),
            faults.to_string(),
            verdict.received.to_string(),
            verdict.lost.len().to_string(),
            verdict.doubled.len().to_string(),
            verdict.oversold.to_string(),
            verdict.unsold.to_string(),
            (verdict.hung.len() + verdict.broken.len()).to_string(),
            (verdict.invented.len() + verdict.undelivered.len() + verdict.faults.len()).to_string(),
            verdict.suspense.to_string(),
            verdict.longest.as_millis().to_string(),
            served.as_millis().to_string(),
            ready.as_millis().to_string(),
            seeds,
        ];
        format!("| {} |", cells.join(" | "))
    }
}

/// All rows.
#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    /// A row that is to be filled; returns its index.
    pub(crate) fn add(&mut self, row: Row) -> usize {
        self.0.push(row);
        self.0.len() - 1
    }

    /// Notes so many rounds that were run together; `replay` repeats them.
    pub(crate) fn note(&mut self, row: usize, rounds: usize, outcome: Outcome, replay: &str) {
        self.0[row].add(rounds, outcome, replay);
    }

    /// Prints the table, and how to repeat what failed. Whether every promise was kept.
    pub(crate) fn end(&self) -> bool {
        println!(
            "\n| case | rounds | faults | 2xx heads | lost | doubled | oversold | unsold | hung | other | in suspense \
             | longest wait (ms) | served in (ms) | ready in (ms) | seeds |"
        );
        println!("|---|{}---|", "---:|".repeat(13));
        for row in self.0.iter().filter(|row| row.rounds > 0) {
            println!("{}", row.line());
        }
        let failed: Vec<_> = self.0.iter().flat_map(|row| &row.failed).collect();
        for replay in &failed {
            println!("to repeat: cargo bench --bench chaos -- {replay}");
        }
        failed.is_empty() && self.0.iter().any(|row| row.rounds > 0)
    }
}

impl Outcome {
    /// Adds another round's.
    fn add(&mut self, other: Self) {
        self.verdict.add(other.verdict);
        self.gateways = self.gateways.max(other.gateways);
        self.faults += other.faults;
        self.served = self.served.max(other.served);
        self.ready = self.ready.max(other.ready);
    }
}

impl Verdict {
    fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.received += other.received;
        self.lost.extend(other.lost);
        self.doubled.extend(other.doubled);
        self.oversold += other.oversold;
        self.invented.extend(other.invented);
        self.undelivered.extend(other.undelivered);
        self.hung.extend(other.hung);
        self.broken.extend(other.broken);
        self.unsold += other.unsold;
        self.suspense += other.suspense;
        self.longest = self.longest.max(other.longest);
        self.faults.extend(other.faults);
    }
}

/// As the command line names it.
pub(crate) fn word(engine: Engine) -> String {
    engine.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
