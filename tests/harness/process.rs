//! The gateway's process: started, listened to, signalled, and never left behind.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{keep, until};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_tollgate");

/// A process of the gateway's binary. Killed when dropped; if a test has failed, what it said is shown.
#[derive(Debug)]
pub(crate) struct Gateway {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    printed: Arc<Mutex<Vec<String>>>,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exit {
    /// `None`: by a signal.
    pub(crate) code: Option<i32>,
    /// All of standard error.
    pub(crate) said: String,
}

impl Gateway {
    /// Starts `tollgate serve` on a configuration.
    pub(crate) fn serve(config: &Path) -> Self {
        let mut command = Command::new(BINARY);
        command.arg("serve").arg("--config").arg(config);
        Self::spawn(&mut command)
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = follow(child.stderr.take().unwrap());
        let printed = follow(child.stdout.take().unwrap());
        Self { child, said, printed }
    }

    /// The lines on standard error so far.
    pub(crate) fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// The lines on standard output so far.
    pub(crate) fn printed(&self) -> Vec<String> {
        self.printed.lock().unwrap().clone()
    }

    /// Waits until it says where it listens: for buyers, for operators.
    pub(crate) async fn listening(&mut self) -> (SocketAddr, SocketAddr) {
        until("the gateway says where it listens", async || {
            let found = self.said().iter().find_map(|line| addresses(line));
            let ended = self.child.try_wait().unwrap();
            assert!(found.is_some() || ended.is_none(), "ended ({ended:?}) instead of listening: {:?}", self.said());
            found
        })
        .await
    }

    /// Waits for a log line that holds a text.
    pub(crate) async fn says(&self, text: &str) -> String {
        let found = async || self.said().into_iter().find(|line| line.contains(text));
        until(&format!("the gateway says {text:?}"), found).await
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        let _ = kill_process(pid, signal); // it may have ended by itself
    }

    /// Waits for its end.
    pub(crate) async fn exit(&mut self) -> Exit {
        let status = until("the gateway ends", async || self.child.try_wait().unwrap()).await;
        // The pipe's reader holds one of the two references until it has read all.
        until("the gateway's last words", async || (Arc::strong_count(&self.said) == 1).then_some(())).await;
        Exit { code: status.code(), said: self.said().join("\n") }
    }

    /// Whether it has ended: its exit code, `None` inside if it was a signal.
    pub(crate) fn ended(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().unwrap().map(|status| status.code())
    }

    /// Ends it as a crash would.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.exit().await;
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Memory that it holds, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for (kind, lines) in [("stderr", &self.said), ("stdout", &self.printed)] {
            let lines = lines.lock().map(|lines| lines.clone()).unwrap_or_default();
            keep::append(&format!("{}.{kind}", self.child.id()), &lines);
        }
        if std::thread::panicking() {
            eprintln!(
                "--- the gateway said:\n{}\n---",
                self.said.lock().map(|said| said.join("\n")).unwrap_or_default()
            );
        }
    }
}

fn follow(pipe: impl Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            let Ok(line) = line else { break };
            to.lock().unwrap().push(line);
        }
    });
    lines
}

fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let field = |name: &str| line.get(name).or_else(|| line.get("fields")?.get(name))?.as_str();
    if field("message")? != "listening" {
        return None;
    }
    Some((field("data")?.parse().ok()?, field("admin")?.parse().ok()?))
}

/// Runs a command of the binary to its end: exit code, standard output, standard error.
pub(crate) fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(BINARY).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}
