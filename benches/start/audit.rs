//! How long `tollgate reconcile` and `tollgate replay` take over a large journal, and how much memory.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::process::BINARY;
use crate::prepare::request_id;

/// How often the process is asked for its memory.
const POLL: Duration = Duration::from_millis(10);

/// Runs both commands over a configuration, and one with a seller's log that agrees.
pub(crate) async fn measure_all(config: &Path, calls: u64) {
    println!("| command | calls | ms | calls a second | most memory MiB | ended |");
    println!("|---|--:|--:|--:|--:|---|");
    measure(&["reconcile"], config, calls).await;
    measure(&["replay"], config, calls).await;
    let log = config.with_file_name("seller.jsonl");
    let mut file = BufWriter::new(File::create(&log).unwrap());
    for call in 1..=calls {
        writeln!(file, "{{\"request_id\":\"{}\",\"status\":200}}", request_id(call)).unwrap();
    }
    file.flush().unwrap();
    measure(&["reconcile", "--seller-log", log.to_str().unwrap()], config, calls).await;
}

/// Runs one command; prints what it took.
async fn measure(arguments: &[&str], config: &Path, calls: u64) {
    let begun = Instant::now();
    let mut command = Command::new(BINARY);
    command.args(arguments).args(["--json", "--config"]).arg(config);
    let mut process = command.stdout(Stdio::null()).spawn().unwrap();
    let mut peak_kib = 0;
    let status = loop {
        peak_kib = peak_kib.max(resident_kib(&process).unwrap_or_default());
        if let Some(status) = process.try_wait().unwrap() {
            break status;
        }
        tokio::time::sleep(POLL).await;
    };
    let took = begun.elapsed();
    let a_second = u128::from(calls) * 1_000 / took.as_millis().max(1);
    let command = arguments.iter().take(2).copied().collect::<Vec<_>>().join(" ");
    println!("| {command} | {calls} | {} | {a_second} | {} | {status} |", took.as_millis(), peak_kib / 1024);
}

/// The most memory that a process has held so far.
fn resident_kib(process: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}
