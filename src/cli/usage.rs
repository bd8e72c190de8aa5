//! `tollgate usage`: the records of a data directory, one by one or added up. Needs no running gateway.

use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustix::io::Errno;

use super::args::{ExportArgs, GroupArg, PeriodArg, ReportArgs, UsageCommand};
use super::failure::{Failure, failure};
use super::{EXIT_CONFIG, EXIT_OK, EXIT_UNAVAILABLE, EXIT_USAGE};
use crate::adapter::journal::{ExportMark, UsageSummary, read_usage};
use crate::config;
use crate::domain::report::{Group, Period, Report, Row};
use crate::domain::usage::UsageRecord;
use crate::ports::journal::Damage;

/// Carries a command out.
pub fn run<O: Write + AsFd>(command: &UsageCommand, out: &mut O, notes: &mut dyn Write) -> ExitCode {
    let done = match command {
        UsageCommand::Export(args) => export(args, out),
        UsageCommand::Report(args) => report(args, out),
    };
    // Nobody listens: the exit code says enough.
    let (said, code) = match done {
        Ok(UsageSummary { damage: Damage { bytes, missing_files, .. }, .. }) if bytes > 0 || missing_files > 0 => {
            let lost = format!("{bytes} bytes of the journal are no valid record, {missing_files} files are missing");
            (Some(format!("{lost}; all other records are above")), EXIT_OK)
        }
        Ok(_) => (None, EXIT_OK),
        Err(Failure { code, text }) => (Some(text), code),
    };
    if let Some(said) = said {
        let _ = writeln!(notes, "tollgate: {said}");
    }
    ExitCode::from(code)
}

fn read(
    config: &Path,
    since_mark: bool,
    each: &mut dyn FnMut(UsageRecord),
) -> Result<(UsageSummary, ExportMark), Failure> {
    let config = config::load(config, &|name| std::env::var(name).ok());
    let config = config.map_err(|problems| failure(EXIT_CONFIG, problems))?;
    read_usage(&config.data_dir, since_mark, each).map_err(|error| failure(EXIT_UNAVAILABLE, error))
}

/// Prints the records, one JSON line each; then notes how far it came, if that is asked for.
fn export<O: Write + AsFd>(args: &ExportArgs, out: &mut O) -> Result<UsageSummary, Failure> {
    let mut lines = BufWriter::new(&mut *out);
    let mut failed: Option<io::Error> = None;
    let (summary, mark) = read(&args.config.config, args.since_mark, &mut |record| {
        let written =
            serde_json::to_writer(&mut lines, &record).map_err(io::Error::from).and_then(|()| lines.write_all(b"\n"));
        failed = failed.take().or(written.err());
    })?;
    if let Some(error) = failed.or(lines.flush().err()) {
        return Err(failure(EXIT_UNAVAILABLE, error));
    }
    drop(lines);
    if args.mark {
        let noted = synced(out).and_then(|()| mark.note());
        let unmarked =
            |error| failure(EXIT_UNAVAILABLE, format!("all is written, but not marked as exported: {error}"));
        noted.map_err(unmarked)?;
    }
    Ok(summary)
}

/// Waits until what was written survives the loss of power, if it went to a file. Who reads a pipe must see to that
/// himself.
fn synced(out: &impl AsFd) -> io::Result<()> {
    match rustix::fs::fsync(out) {
        Ok(()) | Err(Errno::INVAL | Errno::ROFS | Errno::NOTSUP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Prints the sums.
fn report(args: &ReportArgs, out: &mut dyn Write) -> Result<UsageSummary, Failure> {
    let zone = TimeZone::get(&args.time_zone).map_err(|error| failure(EXIT_USAGE, error))?;
    let period = match args.per {
        PeriodArg::Hour => Period::Hour,
        PeriodArg::Day => Period::Day,
    };
    let groups: Vec<Group> = args.by.iter().map(|by| group(*by)).collect();
    let mut report = Report::new(period, zone.clone(), &groups);
    let (since, until) = (args.since.unwrap_or(Timestamp::MIN), args.until.unwrap_or(Timestamp::MAX));
    let (summary, _) = read(&args.config.config, false, &mut |record| {
        if (since..until).contains(&record.charge.arrived) {
            report.add(&record);
        }
    })?;
    let rows: Vec<Row<'_>> = report.rows().collect();
    let text = if args.json {
        serde_json::to_string_pretty(&rows).map_err(|error| failure(EXIT_UNAVAILABLE, error))? + "\n"
    } else {
        table(&rows, &zone)
    };
    out.write_all(text.as_bytes()).map_err(|error| failure(EXIT_UNAVAILABLE, error))?;
    Ok(summary)
}

fn group(by: GroupArg) -> Group {
    match by {
        GroupArg::Account => Group::Account,
        GroupArg::Product => Group::Product,
        GroupArg::Key => Group::Key,
        GroupArg::App => Group::App,
        GroupArg::Project => Group::Project,
        GroupArg::Model => Group::Model,
    }
}

/// Columns as wide as their widest cell; those of groups only where asked for.
fn table(rows: &[Row<'_>], zone: &TimeZone) -> String {
    let mut lines: Vec<Vec<String>> = Vec::new();
    let named = rows.first().map(|row| row.groups.iter().map(|(group, _)| group.name().to_uppercase()));
    let sums = ["CALLS", "VOIDED", "UNITS", "ESTIMATED"].map(str::to_owned);
    lines.push([vec!["START".to_owned()], named.into_iter().flatten().collect(), sums.into()].concat());
    for row in rows {
        let start = row.start.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M%:z").to_string();
        let shown = |value: &str| if value.is_empty() { "-".to_owned() } else { value.to_owned() };
        let groups = row.groups.iter().map(|(_, value)| shown(value)).collect();
        let units: u64 = row.sums.units.values().map(|units| units.get()).sum();
        let sums = [row.sums.calls, row.sums.voided, units, row.sums.estimated.get()].map(|sum| sum.to_string());
        lines.push([vec![start], groups, sums.into()].concat());
    }
    let width = |at: usize| {
        lines.iter().filter_map(|line| line.get(at)).map(|cell: &String| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..lines.first().map_or(0, Vec::len)).map(width).collect();
    let text = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(text).collect()
}
