//! `tollgate reconcile`, `tollgate replay` and `tollgate commands export`: bring what an audit reads to it, and print what
//! it finds. They read files and the store themselves, beside running gateways too.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::args::{ConfigFile, ReconcileArgs, ReplayArgs, SourceArgs};
use super::store::{Failure, open_to_read};
use super::table::Table;
use crate::adapter::clock::SystemClock;
use crate::adapter::journal::RunsOnDisk;
use crate::config::{self, Config};
use crate::domain::id::{AccountId, CommandId};
use crate::ports::clock::Clock;
use crate::ports::journal::{JournalledCommand, Record};
use crate::service::audit::Audit;
use crate::service::audit::answers::Answer;
use crate::service::audit::books::Books;
use crate::service::audit::calls::{Item, RunState};
use crate::service::audit::replay::{Balance, Replay, effect};
use crate::service::audit::report::{Counts, Difference, Holding, Report};

/// Request ids that one line of text names, at most.
const IDS_SHOWN_MAX: usize = 5;

/// A line of the export of commands.
#[derive(Debug, Serialize, Deserialize)]
struct CommandLine {
    account: AccountId,
    command: CommandId,
    at: Timestamp,
    body: Box<RawValue>,
}

/// Where to read.
struct Sources<'a> {
    /// Data directories, this gateway's first.
    dirs: Vec<PathBuf>,
    args: &'a SourceArgs,
}

impl<'a> Sources<'a> {
    fn new(args: &'a SourceArgs, config: &Config) -> Self {
        let dirs = [config.data_dir.clone()].into_iter().chain(args.data_dirs.iter().cloned()).collect();
        Self { dirs, args }
    }

    /// Shows all journals, then all exports: a call that is in both is shown by its journal.
    fn read(&self, each: &mut dyn FnMut(Item)) -> Result<(), Failure> {
        for dir in &self.dirs {
            let found = RunsOnDisk::find(dir).map_err(Failure::away)?;
            for run in &found.runs {
                let state = if run.live { RunState::Live } else { RunState::Ended { settled: run.settled } };
                each(Item::Run(run.incarnation.clone(), state));
                let damage = run.read(&mut |writer, record| each(Item::Record(writer, record)));
                each(Item::RunEnd(damage.map_err(Failure::away)?));
            }
        }
        for path in &self.args.usage {
            lines(path, &mut |call, _| each(Item::Exported(Box::new(call))))?;
        }
        Ok(())
    }

    fn commands(&self, each: &mut dyn FnMut(CommandLine)) -> Result<(), Failure> {
        self.args.commands.iter().try_for_each(|path| lines(path, &mut |line, _| each(line)).map(drop))
    }
}

/// Shows the lines of a file, each with the offset of its end; returns where the last of them ends.
fn lines<T: DeserializeOwned>(path: &Path, each: &mut dyn FnMut(T, u64)) -> Result<u64, Failure> {
    let bad = |what: &dyn std::fmt::Display| Failure::asked(format!("{}: {what}", path.display()));
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).map_err(|error| bad(&error))?);
    let (mut line, mut number, mut end) = (Vec::new(), 0_u64, 0_u64);
    loop {
        line.clear();
        let read = file.read_until(b'\n', &mut line).map_err(|error| bad(&error))?;
        // A last line without its end is still being written.
        if read == 0 || !line.ends_with(b"\n") {
            return Ok(end);
        }
        number += 1;
        end += read as u64;
        if !line.trim_ascii().is_empty() {
            each(serde_json::from_slice(&line).map_err(|error| bad(&format!("line {number}: {error}")))?, end);
        }
    }
}

fn load(file: &ConfigFile) -> Result<Config, Failure> {
    config::load(&file.config, &|name| std::env::var(name).ok()).map_err(Failure::wrong)
}

async fn books(config: &Config) -> Result<Books, Failure> {
    let store = open_to_read(config).await?;
    Ok(Books::read(&*store).await?)
}

/// Joins everything and prints what differs; returns whether nothing does.
///
/// # Errors
/// When something cannot be read.
pub async fn reconcile(args: &ReconcileArgs, out: &mut dyn Write) -> Result<bool, Failure> {
    let config = load(&args.sources.config)?;
    let sources = Sources::new(&args.sources, &config);
    // The books before the journals: what is booked was charged before. The seller's log for the same reason.
    let mut audit = Audit::new(books(&config).await?, args.seller_log.is_some());
    let seen = match &args.seller_log {
        Some(path) => lines(path, &mut |answer: Answer, _| audit.answered(&answer))?,
        None => 0,
    };
    sources.read(&mut |item| audit.take(item))?;
    sources.commands(&mut |line| audit.command(line.account, line.command, line.body.get()))?;
    let mut second = audit.compare();
    if second.is_needed() {
        sources.read(&mut |item| second.take(item))?;
        if let Some(path) = &args.seller_log {
            lines(path, &mut |answer: Answer, end| second.answered(&answer, end <= seen))?;
        }
    }
    let report = second.report();
    print_report(&report, args.sources.json, out).map_err(Failure::away)?;
    Ok(report.differences.is_empty() && report.counts.left_out == 0)
}

fn print_report(report: &Report, json: bool, out: &mut dyn Write) -> std::io::Result<()> {
    if json {
        #[derive(Serialize)]
        #[serde(rename_all = "snake_case")]
        enum Line<'a> {
            Holding(&'a Holding),
            Summary(&'a Counts),
        }
        for difference in &report.differences {
            writeln!(out, "{}", serde_json::to_string(difference)?)?;
        }
        for holding in &report.holdings {
            writeln!(out, "{}", serde_json::to_string(&Line::Holding(holding))?)?;
        }
        writeln!(out, "{}", serde_json::to_string(&Line::Summary(&report.counts))?)?;
        return out.flush();
    }
    report.differences.iter().try_for_each(|difference| writeln!(out, "{}", told(difference)))?;
    for Holding { account, package, lease, units, suspense, journal } in &report.holdings {
        let by = lease.as_ref().map_or_else(
            || "by no lease: a journal has lost records".to_owned(),
            |lease| format!("by {} as lease {}", lease.run, lease.number),
        );
        let place = if *suspense { "in suspense" } else { "leased" };
        let missing = if *journal { "" } else { ", whose journal is not at hand" };
        writeln!(out, "open: {units} units of package {package} of {account} are {place}, held {by}{missing}")?;
    }
    let Counts { runs, calls, units, open, unreported, packages, answers, other_statuses, left_out, .. } =
        &report.counts;
    writeln!(
        out,
        "{calls} calls of {runs} runs charge {units} units, {open} calls are open, {unreported} units are charged and \
         yet to be reported; {packages} packages in the books"
    )?;
    if *answers > 0 {
        writeln!(out, "{answers} answers of the seller compared; {other_statuses} charges for other statuses are not")?;
    }
    if *left_out > 0 {
        writeln!(out, "at least {left_out} more differences, which are not listed")?;
    }
    writeln!(out, "{} differences", report.differences.len())?;
    out.flush()
}

/// A difference in words.
fn told(difference: &Difference) -> String {
    match difference {
        Difference::ChargedNotBooked { account, package, lease, units, request_ids } => {
            let lease =
                lease.as_ref().map_or(String::new(), |lease| format!(", lease {} of {}", lease.number, lease.run));
            format!("charged, not booked: {units} units of package {package} of {account}{lease}{}", ids(request_ids))
        }
        Difference::BookedNotCharged { account, package, units, leases, without_journal } => {
            let leases: Vec<_> = leases.iter().map(|lease| format!("{} of {}", lease.number, lease.run)).collect();
            let runs: Vec<_> = without_journal.iter().map(ToString::to_string).collect();
            let named = |what: &str, names: &[String]| match names {
                [] => String::new(),
                names => format!("; {what} {}", names.join(", ")),
            };
            let (leases, runs) = (named("leases", &leases), named("no journal at hand of", &runs));
            format!("booked, not charged: {units} units of package {package} of {account}{leases}{runs}")
        }
        Difference::UnknownPackage { account, package, units, request_ids } => {
            format!("not in the books: package {package} of {account}, which pays {units} units{}", ids(request_ids))
        }
        Difference::ChargedTwice { run, core, call, request_id } => {
            format!("charged twice: call {call} of core {core} of {run}, request {request_id}")
        }
        Difference::RunTwice { run } => {
            format!("{run} is in two data directories: one is a copy; the second was not counted")
        }
        Difference::JournalDamaged { run, bytes, missing_files } => {
            format!("the journal of {run} is damaged: {bytes} bytes are no record, {missing_files} files are missing")
        }
        Difference::Unbalanced { account, package } => {
            format!("the units of package {package} of {account} do not stand in one place each")
        }
        Difference::Overrun { account, package, units } => {
            format!("overrun: package {package} of {account} was used {units} units beyond what was bought")
        }
        Difference::AnsweredNotCharged { request_id, times } => {
            format!("answered by the seller, not charged: request {request_id}, {times} times")
        }
        Difference::ChargedNotAnswered { request_id, times } => {
            format!("charged, not answered by the seller: request {request_id}, {times} times")
        }
        Difference::BrokenAccount { reason } => reason.clone(),
    }
}

fn ids(request_ids: &[String]) -> String {
    let shown = request_ids.iter().take(IDS_SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match request_ids.len() {
        0 => String::new(),
        count if count > IDS_SHOWN_MAX => format!("; requests {shown} …"),
        _ => format!("; requests {shown}"),
    }
}

/// Recomputes every balance and prints it; returns whether nothing differs: the books, if they were asked, say the same,
/// and each package's purchase is known.
///
/// # Errors
/// When something cannot be read.
pub async fn replay(args: &ReplayArgs, out: &mut dyn Write) -> Result<bool, Failure> {
    let config = load(&args.sources.config)?;
    let sources = Sources::new(&args.sources, &config);
    let books = if args.without_books { None } else { Some(books(&config).await?) };
    let mut replay = Replay::default();
    sources.read(&mut |item| replay.take(item))?;
    sources.commands(&mut |line| replay.command(line.account, line.command, line.at, line.body.get()))?;
    let (open, damaged) = (replay.open, std::mem::take(&mut replay.damaged));
    let asked = books.is_some();
    let balances = replay.balances(books.as_ref(), SystemClock.now());
    let different: Vec<&Balance> = balances.iter().filter(|balance| balance.agrees(asked) == Some(false)).collect();
    print_balances(&balances, (args.sources.json, asked), out).map_err(Failure::away)?;
    let mut note = |text: String| if args.sources.json { Ok(()) } else { writeln!(out, "{text}") };
    let notes = damaged.iter().map(|run| format!("the journal of {run} is damaged: calls may be missing above"));
    let open = (open > 0).then(|| format!("{open} calls are open: they do not count yet"));
    let count = outcome(balances.len(), different.len(), asked);
    notes.chain(open).chain([count]).try_for_each(&mut note).map_err(Failure::away)?;
    out.flush().map_err(Failure::away)?;
    Ok(different.is_empty() && damaged.is_empty())
}

/// The last line: how many packages there are, and what came of comparing them.
fn outcome(packages: usize, different: usize, asked: bool) -> String {
    match (asked, different) {
        (true, _) => format!("{packages} packages, {different} differ"),
        (false, 0) => format!("{packages} packages; nothing was compared, since the books were not read"),
        (false, _) => format!(
            "{packages} packages; nothing was compared, since the books were not read; of {different} no purchase is known"
        ),
    }
}

fn print_balances(balances: &[Balance], (json, asked): (bool, bool), out: &mut dyn Write) -> std::io::Result<()> {
    if json {
        #[derive(Serialize)]
        struct Line<'a> {
            #[serde(flatten)]
            balance: &'a Balance,
            /// Absent: nothing was compared.
            #[serde(skip_serializing_if = "Option::is_none")]
            agrees: Option<bool>,
        }
        return balances.iter().try_for_each(|balance| {
            let line = Line { balance, agrees: balance.agrees(asked) };
            writeln!(out, "{}", serde_json::to_string(&line)?)
        });
    }
    let heading = ["account", "package", "bought", "used", "remaining", "booked used", "booked remaining", "agrees"];
    let mut table = Table::new(heading);
    for balance in balances {
        let booked = |of: fn(&crate::service::audit::replay::BookedBalance) -> u64| {
            balance.booked.as_ref().map_or(String::new(), |booked| of(booked).to_string())
        };
        table.row([
            balance.account.to_string(),
            balance.package.to_string(),
            balance.bought.to_string(),
            balance.used.to_string(),
            balance.remaining.to_string(),
            booked(|booked| booked.used),
            booked(|booked| booked.remaining),
            match balance.agrees(asked) {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "not compared",
            }
            .to_owned(),
        ]);
    }
    write!(out, "{}", table.text())
}

/// Prints the commands of this gateway's journal that changed a balance and were not refused.
///
/// # Errors
/// When the journal cannot be read, or the output not written.
pub fn commands(file: &ConfigFile, out: &mut dyn Write) -> Result<bool, Failure> {
    let config = load(file)?;
    for run in &RunsOnDisk::find(&config.data_dir).map_err(Failure::away)?.runs {
        let mut commands: Vec<JournalledCommand> = Vec::new();
        let read = run.read_first(&mut |record| match record {
            Record::Command(command) if effect(&command.body).is_some() => commands.push(command),
            Record::Refused(refused) => {
                commands.retain(|told| (&told.account, &told.command) != (&refused.account, &refused.command));
            }
            Record::Command(_)
            | Record::Grant(_)
            | Record::Charge(_)
            | Record::End(_)
            | Record::Close
            | Record::Ask(_) => {}
        });
        read.map_err(Failure::away)?;
        for JournalledCommand { account, command, at, body } in commands {
            let body = RawValue::from_string(body).map_err(Failure::away)?;
            let line = serde_json::to_string(&CommandLine { account, command, at, body }).map_err(Failure::away)?;
            writeln!(out, "{line}").map_err(Failure::away)?;
        }
    }
    out.flush().map_err(Failure::away)?;
    Ok(true)
}
