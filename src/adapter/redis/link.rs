//! The connection for commands: kept up by a task of its own, shared by all who ask, every question with its deadline.
//! A connection is used only after the server behind it has been checked.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::checks::Checks;
use super::dial::{CONNECT_TIMEOUT, Dial, Wire};
use super::fault::{Down, Fault, Reaction, no_answer, reaction};
use crate::ports::clock::Entropy;

/// Wait after the first failure to connect; doubled with each further one, give or take half.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// The longest such wait, before it is given or taken from.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Complaints about a connection that may wait for its keeper; further ones say nothing new.
const COMPLAINTS_QUEUED_MAX: usize = 64;

#[derive(Clone)]
enum Status {
    /// Wait for it.
    Connecting,
    /// In use; the number tells connections apart.
    Up(u64, Wire),
    /// Tried in vain; tried again in a moment.
    Down(Down),
}

/// Someone was not content with a connection.
#[derive(Debug, Clone, Copy)]
struct Complaint {
    connection: u64,
    /// It cannot be used any more, not even until there is another.
    broken: bool,
}

/// How long an answer is waited for, and whether a command may be sent again meanwhile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) deadline: Instant,
    pub(super) once: bool,
}

/// Asks questions.
pub(super) struct Link {
    status: watch::Receiver<Status>,
    complaints: mpsc::Sender<Complaint>,
    timeout: Duration,
}

/// Keeps the connection up; see [`Keeper::keep`].
pub(super) struct Keeper {
    dial: Arc<Dial>,
    checks: Checks,
    entropy: Arc<dyn Entropy>,
    timeout: Duration,
    status: watch::Sender<Status>,
    complaints: mpsc::Receiver<Complaint>,
}

/// A link, and its keeper, which is to be run.
pub(super) fn new(dial: Arc<Dial>, checks: Checks, entropy: Arc<dyn Entropy>, timeout: Duration) -> (Link, Keeper) {
    let (status, seen) = watch::channel(Status::Connecting);
    let (complain, complaints) = mpsc::channel(COMPLAINTS_QUEUED_MAX);
    let keeper = Keeper { dial, checks, entropy, timeout, status, complaints };
    (Link { status: seen, complaints: complain, timeout }, keeper)
}

impl Link {
    /// The first outcome of connecting: `None` if it is up.
    pub(super) async fn first(&self) -> Option<Down> {
        let mut status = self.status.clone();
        let settled = status.wait_for(|status| !matches!(status, Status::Connecting)).await;
        match settled.ok()?.clone() {
            Status::Down(down) => Some(down),
            Status::Up(..) | Status::Connecting => None,
        }
    }

    /// Sends a command. If the connection turns out to be broken, once more on another: nearly every command here does
    /// no harm when it is carried out twice.
    pub(super) async fn ask(&self, command: &Cmd) -> Result<Value, Fault> {
        self.ask_by(command, Instant::now() + self.timeout).await
    }

    /// The same, for one of several commands that have one deadline.
    pub(super) async fn ask_by(&self, command: &Cmd, deadline: Instant) -> Result<Value, Fault> {
        self.ask_with(command, Patience { deadline, once: false }).await
    }

    /// The same; one of those that do harm twice is sent once.
    pub(super) async fn ask_with(&self, command: &Cmd, patience: Patience) -> Result<Value, Fault> {
        let Patience { deadline, once } = patience;
        let mut after = 0;
        loop {
            let (connection, mut wire) = self.wire(after, deadline).await?;
            let complain = |broken| {
                let _ = self.complaints.try_send(Complaint { connection, broken }); // full: they say the same
            };
            let error = match timeout_at(deadline, wire.send(command)).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(_) => {
                    complain(false);
                    return Err(Fault::Away(no_answer(self.timeout)));
                }
            };
            match reaction(&error) {
                Reaction::Keep => {}
                Reaction::Doubt => complain(false),
                Reaction::Replace => {
                    complain(true);
                    if after == 0 && !once {
                        after = connection;
                        continue;
                    }
                }
            }
            let fault = Fault::of(&error, self.timeout);
            // The client of a Cluster repeats commands by itself.
            let repeated = after > 0 || matches!(wire, Wire::Cluster(_));
            return Err(if repeated { fault.of_repeated() } else { fault });
        }
    }

    /// A connection later than one that was no good.
    async fn wire(&self, after: u64, deadline: Instant) -> Result<(u64, Wire), Fault> {
        let mut status = self.status.clone();
        let settled = status.wait_for(|status| match status {
            Status::Connecting => false,
            Status::Up(number, _) => *number > after,
            Status::Down(_) => true,
        });
        match timeout_at(deadline, settled).await {
            Err(_) => Err(Fault::Away("the server is being connected to".to_owned())),
            Ok(Err(_)) => Err(Fault::Away("the store has been closed".to_owned())),
            Ok(Ok(status)) => match &*status {
                Status::Up(number, wire) => Ok((*number, wire.clone())),
                Status::Down(Down::Away(why)) => Err(Fault::Away(why.clone())),
                Status::Down(Down::Refused(refusal)) => Err(Fault::Away(refusal.to_string())),
                Status::Connecting => Err(Fault::Away("the server is being connected to".to_owned())),
            },
        }
    }
}

impl Keeper {
    /// Connects, and again whenever the connection is complained about, until nobody asks any more.
    pub(super) async fn keep(mut self) {
        let (mut number, mut failures) = (0, 0);
        loop {
            match self.connect().await {
                Ok(wire) => {
                    if failures > 0 {
                        tracing::info!("the store is reached again");
                    }
                    (number, failures) = (number + 1, 0);
                    self.status.send_replace(Status::Up(number, wire));
                    let Some(complaint) = self.complaint(number).await else { return };
                    if complaint.broken {
                        self.status.send_replace(Status::Connecting);
                    }
                }
                Err(down) => {
                    if failures == 0 {
                        match &down {
                            Down::Refused(why) => tracing::error!(%why, "the store cannot be used"),
                            Down::Away(why) => tracing::warn!(%why, "the store is away; it is tried again"),
                        }
                    }
                    self.status.send_replace(Status::Down(down));
                    sleep(self.backoff(failures)).await;
                    failures += 1;
                    if self.status.is_closed() {
                        return;
                    }
                }
            }
        }
    }

    async fn connect(&self) -> Result<Wire, Down> {
        let attempt = async {
            let wire = self.dial.wire(self.timeout).await.map_err(|error| self.checks.unreachable(&error))?;
            self.checks.check(wire.clone()).await?;
            Ok(wire)
        };
        let longest = CONNECT_TIMEOUT + self.timeout;
        match timeout(longest, attempt).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Down::Away(format!("the server could not be connected to within {longest:?}"))),
        }
    }

    /// Waits for a complaint about the connection in use.
    async fn complaint(&mut self, number: u64) -> Option<Complaint> {
        loop {
            let complaint = self.complaints.recv().await?;
            if complaint.connection == number {
                return Some(complaint);
            }
        }
    }

    fn backoff(&self, failures: u32) -> Duration {
        jittered(BACKOFF_FIRST.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX), &*self.entropy)
    }
}

/// A time from half to one and a half of the given one, so that gateways that lost a server together do not come back
/// together.
pub(super) fn jittered(time: Duration, entropy: &dyn Entropy) -> Duration {
    let mut byte = [0];
    entropy.fill(&mut byte);
    let [byte] = byte;
    (time / 2).saturating_add(time.saturating_mul(u32::from(byte)) / 255)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Byte(u8);

    impl Entropy for Byte {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[test]
    fn waits_differ_by_half() {
        let second = Duration::from_secs(1);
        assert_eq!(jittered(second, &Byte(0)), second / 2);
        assert_eq!(jittered(second, &Byte(255)), second * 3 / 2);
    }
}
