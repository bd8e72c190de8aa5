//! Rounds at the same time. Each has a thread with a runtime of its own, so that none makes another's clients late but by
//! using up the machine, which each round measures for itself. What has been found is kept when the run is broken off.

use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

use super::round::{Outcome, ROUND_MAX};
use super::table::Table;

/// Longest wait for what a round that was broken off still does on other threads.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A round, or some that are run together.
pub(crate) struct Job {
    /// Where it is counted in the table.
    pub(crate) row: usize,
    /// As how many rounds.
    pub(crate) rounds: usize,
    /// What repeats it.
    pub(crate) replay: String,
    pub(crate) run: Box<dyn FnOnce() -> Running + Send>,
}

/// A round that is under way.
pub(crate) type Running = Pin<Box<dyn Future<Output = Outcome>>>;

/// Runs them, so many at a time, and notes each as it ends. False: it was broken off.
pub(crate) async fn run_all(jobs: Vec<Job>, at_once: usize, table: &mut Table) -> bool {
    let (stop, stopped) = watch::channel(false);
    let mut waiting = jobs.into_iter();
    let mut running = FuturesUnordered::new();
    let interrupted = interrupted();
    tokio::pin!(interrupted);
    loop {
        while running.len() < at_once {
            let Some(Job { row, rounds, replay, run }) = waiting.next() else { break };
            let outcome = on_its_thread(run, stopped.clone());
            running.push(async move { (row, rounds, replay, outcome.await) });
        }
        tokio::select! {
            biased;
            () = &mut interrupted => break,
            ended = running.next() => match ended {
                Some((row, rounds, replay, Some(outcome))) => table.note(row, rounds, outcome, &replay),
                Some((.., None)) => {} // only after a stop
                None => return true,
            },
        }
    }
    println!("broken off: {} rounds are under way and do not count, {} were to come", running.len(), waiting.len());
    stop.send_replace(true);
    while running.next().await.is_some() {} // their processes end with them
    false
}

/// Resolves when somebody breaks the run off.
async fn interrupted() {
    let [mut interrupt, mut terminate, mut hangup] =
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(|kind| signal(kind).unwrap());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// `None`: it was told to stop.
async fn on_its_thread(run: Box<dyn FnOnce() -> Running + Send>, stopped: watch::Receiver<bool>) -> Option<Outcome> {
    let began = Instant::now();
    let (tell, told) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        let _ = tell.send(on_this_thread(run, stopped)); // whoever waited is gone only when the program ends
    });
    let outcome = match told.await {
        Ok(outcome) => outcome,
        Err(_) => thread.join().err().map(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            failed(text.unwrap_or_default().lines().next().unwrap_or_default())
        }),
    };
    outcome.map(|outcome| Outcome { took: began.elapsed(), ..outcome })
}

fn on_this_thread(run: Box<dyn FnOnce() -> Running + Send>, mut stopped: watch::Receiver<bool>) -> Option<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = tokio::time::timeout(ROUND_MAX, run()) => {
                Some(outcome.unwrap_or_else(|_| failed(&format!("did not end within {ROUND_MAX:?}"))))
            }
            _ = stopped.wait_for(|stop| *stop) => None,
        }
    });
    runtime.shutdown_timeout(LAST_WORDS);
    outcome
}

fn failed(why: &str) -> Outcome {
    let mut outcome = Outcome::default();
    outcome.verdict.faults.push(why.to_owned());
    outcome
}
