//! How long `tollgate reconcile` and `tollgate replay` take over a large journal, and how much memory.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::process::BINARY;

/// How often the process is asked for its memory.
const POLL: Duration = Duration::from_millis(10);

/// Runs one command over a configuration; prints what it took.
pub(crate) fn measure(command: &str, config: &Path, calls: u64) {
    let begun = Instant::now();
    let arguments = [command, "--json", "--config"];
    let mut process = Command::new(BINARY).args(arguments).arg(config).stdout(Stdio::null()).spawn().unwrap();
    let mut peak_kib = 0;
    let status = loop {
        peak_kib = peak_kib.max(resident_kib(&process).unwrap_or_default());
        if let Some(status) = process.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(POLL);
    };
    let took = begun.elapsed();
    let a_second = u128::from(calls) * 1_000 / took.as_millis().max(1);
    println!("| {command} | {calls} | {} | {a_second} | {} | {status} |", took.as_millis(), peak_kib / 1024);
}

/// The most memory that a process has held so far.
fn resident_kib(process: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}
