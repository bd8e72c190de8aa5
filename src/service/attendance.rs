//! This gateway among the others: says every second that it lives, and after each restart of the store sends again what
//! the store may have forgotten, before any new lease is asked for. Also settles the journals of runs of this gateway
//! that end while this one goes on, as in an upgrade.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Notify, broadcast};

use super::commands::{CommandLog, TOLD_AGAIN_FOR, TellError};
use super::desk::Desk;
use super::ledger::{Ledger, Loss};
use super::recovery::{RecoveryError, own_leases, recover, recover_again};
use crate::domain::id::Incarnation;
use crate::ports::account_store::StoreError;
use crate::ports::gateways::{CheckIn, Heartbeat, Notice, Servers};
use crate::ports::journal::{EarlierRuns, JournalError};
use crate::telemetry::metrics::Metrics;

/// How often a gateway says that it lives.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);
/// How long to wait before checking in is tried again, at least; up to as much again is added by chance.
const RETRY_AFTER: Duration = Duration::from_millis(50);
/// How long a check-in waits for accounts that another gateway has to tell again.
const MISSING_WAIT: Duration = Duration::from_secs(3);
/// How long after a check-in accounts that were still missing are waited for.
const OWED_FOR: Duration = Duration::from_secs(600);
/// How often the data directory is looked at for runs that have ended, and whether what is owed can be reported.
const SETTLE_EVERY: Duration = Duration::from_secs(5);
/// How often it is tried again to settle a run one of whose accounts has a document that cannot be read.
const SETTLE_BROKEN_EVERY: Duration = Duration::from_secs(60);

/// How far the check-in has come.
#[derive(Debug, Default)]
struct Progress {
    /// Who lives, as far as this gateway has heard.
    live: BTreeSet<Incarnation>,
    /// The most that the store was found to have forgotten since everything was sent to it.
    loss: Loss,
    /// The servers to which everything was sent again, after it had been read that it is them.
    sent_to: Option<Servers>,
    /// The servers that give leases, as they have said.
    open_at: Option<Servers>,
    /// Until when accounts are waited for that had not come back at the check-in, though this gateway has sold from them.
    owed_until: Option<Instant>,
    /// An account has changed since that was last tried.
    changed: bool,
    /// Not before then are the journals of ended runs read again: an account of theirs has a document that is broken.
    settle_from: Option<Instant>,
}

impl Progress {
    /// Takes in a list of who lives. One that is kept by another server than those checked in with may lack gateways that
    /// live: it only adds. Returns whether that is a reason to check in.
    fn hear(&mut self, heard: Heartbeat) -> bool {
        let Some(open_at) = &self.open_at else {
            self.live.extend(heard.live);
            return false;
        };
        let same = open_at.0.contains(&heard.server);
        if same {
            self.live.clear();
        }
        self.live.extend(heard.live);
        !same
    }
}

/// Why a check-in did not succeed.
#[derive(Debug, thiserror::Error)]
enum AttendError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Commands(#[from] TellError),
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    #[error("the store did not take all reports")]
    NotReported,
}

/// Keeps this gateway's place among the others.
pub struct Attendance {
    desk: Desk,
    ledger: Arc<Ledger>,
    commands: Arc<CommandLog>,
    runs: Arc<dyn EarlierRuns>,
    metrics: Metrics,
    progress: Mutex<Progress>,
    /// The store may be another: look.
    doubt: Notify,
}

impl Attendance {
    /// Has not checked in yet.
    pub fn new(
        desk: Desk,
        ledger: Arc<Ledger>,
        commands: Arc<CommandLog>,
        runs: Arc<dyn EarlierRuns>,
        metrics: Metrics,
    ) -> Self {
        let (progress, doubt) = (Mutex::default(), Notify::new());
        Self { desk, ledger, commands, runs, metrics, progress, doubt }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner) // plain values
    }

    /// Attends until `stop` resolves, then leaves.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        tokio::select! {
            () = stop => {}
            () = self.beat_on() => {}
            () = self.stay_checked_in() => {}
            () = self.settle_on() => {}
        }
        if let Err(error) = self.desk.store.leave(&self.desk.by).await {
            tracing::debug!(%error, "the others will notice by themselves that this gateway is gone");
        }
    }

    /// Heartbeats go on whatever else is under way: whoever is silent is not waited for.
    async fn beat_on(&self) {
        let mut tick = tokio::time::interval(HEARTBEAT_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            match self.beat().await {
                Ok(false) => {
                    if let Err(error) = self.commands.retry().await {
                        tracing::warn!(%error, "commands whose outcome is unknown wait for the store");
                    }
                }
                Ok(true) => self.doubt.notify_one(),
                Err(error) => {
                    self.ledger.note_store_failure();
                    tracing::debug!(%error, "the store did not hear a heartbeat");
                }
            }
        }
    }

    /// One heartbeat; returns whether the server that keeps the list is another than before.
    async fn beat(&self) -> Result<bool, StoreError> {
        let asked = Instant::now();
        let heard = self.desk.store.heartbeat(&self.desk.by).await?;
        self.desk.time.note(asked, heard.now);
        self.ledger.note_store_answer();
        let mut progress = self.progress();
        let doubt = progress.hear(heard);
        self.desk.fleet.note(progress.live.len());
        self.metrics.ledger.gateways_live.set(self.desk.fleet.gateways().get().into());
        Ok(doubt)
    }

    async fn stay_checked_in(&self) {
        let mut notices = self.desk.store.changes();
        loop {
            match self.check_in().await {
                Ok(true) => self.wait_for_doubt(&mut notices).await,
                Ok(false) => tokio::time::sleep(self.retry_after()).await,
                Err(error) => {
                    tracing::warn!(%error, "checking in with the store is tried again");

                    tokio::time::sleep(self.retry_after()).await;
                }
            }
        }
    }

    /// Until there is reason to look whether the store is still the same.
    async fn wait_for_doubt(&self, notices: &mut broadcast::Receiver<Notice>) {
        loop {
            tokio::select! {
                () = self.ledger.alarmed() => {
                    self.progress().open_at = None; // it was refused a lease: ask again
                    return;
                }
                () = self.doubt.notified() => return,
                notice = notices.recv() => match notice {
                    Ok(Notice::CheckIn | Notice::Missed) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                    Ok(Notice::Changed(_)) => self.progress().changed = true,
                    Ok(Notice::Recall { .. } | Notice::Answered { .. }) => {}
                    // The store is gone, and with it all there is to do.
                    Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
                },
            }
        }
    }

    /// One attempt to check in; returns whether the store gives leases. First the servers are read, then everything is
    /// sent again, then they are told so: if one of them is another by then, it says so, and all begins anew.
    async fn check_in(&self) -> Result<bool, AttendError> {
        let servers = self.desk.store.servers().await?;
        if self.progress().open_at.as_ref() == Some(&servers) {
            self.ledger.set_open(true);
            return Ok(true);
        }
        self.ledger.set_open(false);
        self.beat().await?;
        if self.progress().sent_to.as_ref() != Some(&servers) {
            self.progress().owed_until = None;
            let all = self.send_again(&servers).await?;
            let mut progress = self.progress();
            progress.sent_to = Some(servers.clone());
            if all {
                progress.loss = Loss::None;
            } else {
                tracing::warn!(
                    "accounts that were sold from here are missing; their use is reported when they come back"
                );
                progress.owed_until = Some(Instant::now() + OWED_FOR);
            }
        }
        let live: Vec<Incarnation> = self.progress().live.iter().cloned().collect();
        match self.desk.store.check_in(&self.desk.by, &servers, &live).await? {
            CheckIn::Open => {
                self.runs.note_servers(&servers)?;
                self.progress().open_at = Some(servers);
                self.metrics.ledger.check_ins.inc();
                self.ledger.set_open(true);
                Ok(true)
            }
            CheckIn::Waiting => {
                // Whoever has not noticed yet is told.
                self.desk.store.notify(Notice::CheckIn).await?;
                self.commands.retry().await?;
                Ok(false)
            }
            CheckIn::Stranger => {
                self.progress().sent_to = None;
                Ok(false)
            }
        }
    }

    /// Sends again what these servers may have forgotten. Nothing, if this gateway's last run checked in with the same.
    /// Where another gateway must tell an account again first, it is waited for, but not for long; returns whether all came.
    async fn send_again(&self, servers: &Servers) -> Result<bool, AttendError> {
        let first = self.progress().sent_to.is_none();
        let known = self.runs.last_servers()?;
        if first && known.as_ref() == Some(servers) {
            return Ok(true);
        }
        if known.is_some() || !first {
            tracing::info!("the store is another than before, or has restarted: all is reported again");
        }
        let patience = Instant::now() + MISSING_WAIT;
        self.commands.tell_again().await?;
        while !self.report_again().await? {
            if Instant::now() >= patience {
                return Ok(false);
            }
            self.desk.store.notify(Notice::CheckIn).await?;
            tokio::time::sleep(self.retry_after()).await;
            self.commands.retry().await?;
        }
        Ok(true)
    }

    /// Reports what could not be reported at the check-in, if an account has come back since.
    async fn report_owed(&self) -> Result<(), AttendError> {
        {
            let mut progress = self.progress();
            progress.owed_until = progress.owed_until.filter(|until| Instant::now() < *until);
            if progress.owed_until.is_none() || !std::mem::take(&mut progress.changed) {
                return Ok(());
            }
        }
        let all = self.report_again().await?;
        let mut progress = self.progress();
        if all && progress.owed_until.take().is_some() {
            progress.loss = Loss::None;
        }
        Ok(())
    }

    /// Reports leases, and from the journals what is no longer at hand; returns whether the store had all the pools.
    async fn report_again(&self) -> Result<bool, AttendError> {
        let found = self.ledger.report_all().await.ok_or(AttendError::NotReported)?;
        let loss = self.progress().loss.max(found.loss);
        self.progress().loss = loss; // until all is sent: an attempt that fails half-way must not forget it
        if loss < Loss::Deep {
            return Ok(!found.missing);
        }
        let since = self.desk.now().checked_sub(TOLD_AGAIN_FOR).unwrap_or(Timestamp::MIN);
        let recovered = recover_again(&self.runs, &self.desk, self.ledger.unbooked(), since).await?;
        recovered.suspense.iter().for_each(|(pool, units)| self.ledger.note_suspense(&pool.0, &pool.1, *units));
        let own = own_leases(&self.runs, &self.desk.by).await?;
        if !self.ledger.report_journalled(own).await {
            return Err(AttendError::NotReported);
        }
        Ok(!found.missing && recovered.missing == 0)
    }

    /// Settles the journals of runs of this gateway that have ended since this one began, and what is owed.
    async fn settle_on(&self) {
        let mut tick = tokio::time::interval(SETTLE_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if let Err(error) = self.settle_ended().await {
                tracing::warn!(%error, "an ended run's journal is not settled yet");
            }
            if let Err(error) = self.report_owed().await {
                tracing::warn!(%error, "what is owed to accounts that have come back is not reported yet");
            }
        }
    }

    /// Settles runs that have ended. A store that has forgotten may have opened for this run alone, with nobody left to
    /// tell the commands of one that ended meanwhile: they are told here, before its journal counts as done with.
    async fn settle_ended(&self) -> Result<(), AttendError> {
        let too_soon = self.progress().settle_from.is_some_and(|from| Instant::now() < from);
        if too_soon || self.runs.unsettled()?.is_empty() {
            return Ok(());
        }
        self.commands.tell_again().await?;
        let found = recover(&self.runs, &self.desk, self.ledger.unbooked(), None).await?;
        found.suspense.iter().for_each(|(pool, units)| self.ledger.note_suspense(&pool.0, &pool.1, *units));
        self.progress().settle_from = (found.broken > 0).then(|| Instant::now() + SETTLE_BROKEN_EVERY);
        Ok(())
    }

    /// With some chance in it, so that not all gateways come at once.
    fn retry_after(&self) -> Duration {
        let mut random = [0];
        self.desk.entropy.fill(&mut random);
        let [random] = random;
        RETRY_AFTER + RETRY_AFTER * u32::from(random) / 256
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::gateways::ServerId;

    fn heard(server: &str, live: &[&str]) -> Heartbeat {
        let live = live.iter().map(|text| Incarnation::try_from((*text).to_owned()).unwrap()).collect();
        Heartbeat { now: Timestamp::UNIX_EPOCH, live, server: ServerId::new(server) }
    }

    #[test]
    fn a_list_kept_by_another_server_only_adds_until_the_check_in_is_done() {
        let mut progress = Progress::default();
        let mut check = |open_at: Option<&str>, server: &str, live: &[&str], doubt: bool, expected: &[&str]| {
            progress.open_at = open_at.map(|server| Servers(vec![ServerId::new("other part"), ServerId::new(server)]));
            assert_eq!(progress.hear(heard(server, live)), doubt, "{open_at:?} {server} {live:?}");
            let names: Vec<String> = progress.live.iter().map(ToString::to_string).collect();
            assert_eq!(names, expected);
        };
        check(None, "a", &["one#1"], false, &["one#1"]);
        check(None, "a", &["two#1"], false, &["one#1", "two#1"]);
        check(Some("a"), "a", &["one#1", "three#1"], false, &["one#1", "three#1"]);
        // Emptied: those who have not said since that they live are not listed, but may hold leases.
        check(Some("a"), "b", &["one#1"], true, &["one#1", "three#1"]);
        check(Some("a"), "b", &["one#1", "two#2"], true, &["one#1", "three#1", "two#2"]);
        check(Some("b"), "b", &["one#1", "two#2"], false, &["one#1", "two#2"]);
    }
}
