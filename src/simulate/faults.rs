//! What befalls gateways and the store. In an exact history a fault waits until the last one is mended, so that each
//! comes alone; in the others they may meet.

use super::check_in::Progress;
use super::run::{Run, Side, State};
use super::world::{Checked, World};
use crate::domain::id::Incarnation;
use crate::domain::settle::RunEnd;
use crate::ports::journal::Record;

/// A gateway's name and data directory.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: crate::domain::id::GatewayId,
    /// Runs so far.
    pub(super) runs: u64,
    /// The newest run, if it lives.
    pub(super) current: Option<usize>,
}

impl World {
    /// Whether everything that is to be mended is mended: the store is open and all who live have checked in.
    pub(super) fn calm(&self) -> bool {
        let mended = |run: &Run| run.connected(self.now) && run.checked_in == Some(self.store.server);
        self.store.open && self.runs.iter().filter(|run| run.lives()).all(mended)
    }

    /// The same, but for those who cannot reach the store.
    pub(super) fn calm_but_for_absent(&self) -> bool {
        let mended = |run: &Run| run.checked_in == Some(self.store.server);
        self.store.open && self.runs.iter().filter(|run| run.connected(self.now)).all(mended)
    }

    /// Whether another fault may come now.
    fn may_fail(&self) -> bool {
        !self.truth.exact || self.calm()
    }

    /// Starts a gateway, or its next run beside the one that is there, which takes no new calls from now on.
    pub(super) fn start(&mut self, host: usize) {
        if let Some(before) = self.hosts[host].current {
            self.runs[before].state = State::Draining;
        }
        let there = &mut self.hosts[host];
        there.runs += 1;
        there.current = Some(self.runs.len());
        let run = self.runs.len();
        self.runs.push(Run {
            incarnation: Incarnation { gateway: there.name.clone(), number: there.runs },
            host,
            state: State::Serving,
            sides: self.products.iter().map(|_| Side::default()).collect(),
            calls: Vec::new(),
            last_call: 0,
            records: Vec::new(),
            commands: Vec::new(),
            end: RunEnd::Whole,
            disk_lost: false,
            settled: false,
            gone_at: 0,
            server: self.store.server,
            checked_in: None,
            progress: Some(Progress::new()),
            offset: self.store.clock_off,
            clock_off: self.rng.between(-500, 500),
            cut_until: 0,
            frozen_until: 0,
            away_since: 0,
        });
        self.say(|| format!("run {run} of gateway {host} starts"));
        self.heartbeat(run);
    }

    /// kill -9.
    pub(super) fn kill(&mut self, run: usize) -> Checked {
        if !self.may_fail() {
            return Ok(());
        }
        self.say(|| format!("run {run} is killed"));
        self.counts.kills += 1;
        self.drop_calls(run)?;
        self.gone(run);
        Ok(())
    }

    fn gone(&mut self, run: usize) {
        let now = self.now;
        let this = &mut self.runs[run];
        (this.state, this.gone_at, this.progress) = (State::Gone, now, None);
        let host = &mut self.hosts[this.host];
        host.current = host.current.filter(|current| *current != run);
    }

    /// Stops in order, if nothing is open any more: everything is reported and given back.
    pub(super) fn stop(&mut self, run: usize) -> Checked {
        if !self.may_fail() || self.runs[run].progress.is_some() {
            return Ok(());
        }
        self.say(|| format!("run {run} is asked to stop"));
        while let Some(at) = self.runs[run].calls.len().checked_sub(1) {
            self.end(run, at, true)?;
        }
        self.runs[run].state = State::Draining;
        for product in 0..self.products.len() {
            self.runs[run].sides[product].leases.values_mut().for_each(|held| held.retired = true);
            for _ in 0..8 {
                self.give_up(run, product, 0);
                if self.exchange(run, product, None)? != super::exchange::Outcome::Open {
                    break;
                }
            }
        }
        self.runs[run].records.push(Record::Close);
        self.store.leave(run);
        self.gone(run);
        Ok(())
    }

    /// The host loses power: the end of the journal is gone. Or the disk is lost: all of it.
    pub(super) fn lose_journal(&mut self, run: usize, disk: bool) -> Checked {
        if !self.may_fail() || (disk && self.hosts[self.runs[run].host].current != Some(run)) {
            return Ok(());
        }
        self.say(|| format!("run {run} loses its journal's end; all of its disk: {disk}"));
        self.counts.losses += 1;
        self.drop_calls(run)?;
        self.gone(run);
        let host = self.runs[run].host;
        let struck: Vec<usize> = if disk {
            let there = |other: &usize| self.runs[*other].host == host && !self.runs[*other].lives();
            (0..self.runs.len()).filter(there).collect()
        } else {
            vec![run]
        };
        for run in struck {
            let keep = if disk { 0 } else { self.synced(run) };
            let lost = self.runs[run].records.split_off(keep);
            (self.runs[run].end, self.runs[run].disk_lost) = (RunEnd::Lost, disk);
            if disk {
                self.runs[run].commands.clear();
                self.truth.commands_lost = true;
            }
            for record in lost {
                let Record::Charge(charge) = record else { continue };
                for part in charge.parts {
                    self.truth.of(&part.package)?.lost += part.units.get();
                }
            }
        }
        (self.lost_at, self.truth.journal_lost) = (self.now, true);
        Ok(())
    }

    /// How many records of a run the power cannot take: a random share, and all up to the last charge taken back.
    fn synced(&mut self, run: usize) -> usize {
        let records = &self.runs[run].records;
        let void = records.iter().rposition(|record| matches!(record, Record::End(end) if !end.billed));
        let least = void.map_or(0, |at| at + 1);
        least + self.rng.index(records.len() - least + 1)
    }

    /// The store loses its last commits and comes back as another server.
    pub(super) fn roll_back(&mut self) {
        let since = if self.truth.exact { self.safe_since() } else { Some(i64::MIN) };
        let Some(since) = since else { return };
        let reach = self.store.reach(since);
        if reach == 0 {
            return;
        }
        let most = if self.rng.percent(80) { 6 } else { 40 };
        let back = 1 + self.rng.index(reach.min(most));
        let forgets_who_lives = self.rng.percent(50);
        let units = self.store.lose(back, forgets_who_lives);
        self.counts.rollbacks += 1;
        if !self.truth.exact {
            self.truth.at_risk += units;
        }
        if self.rng.percent(20) {
            self.store.clock_off += self.rng.between(-10_000, 10_000); // another machine has taken over
        }
        self.say(|| {
            format!("the store loses {back} commits with {units} units granted; who lives: {forgets_who_lives}")
        });
    }

    /// The earliest moment to which the store may go back with this being the only fault: none of the leases since may
    /// belong to somebody who cannot check in.
    fn safe_since(&self) -> Option<i64> {
        let away = self.runs.iter().filter(|run| run.lives() && !run.connected(self.now));
        let away = away.map(|run| run.away_since).max();
        let down = self.runs.iter().filter(|run| !run.lives() && self.hosts[run.host].current.is_none());
        let down = down.map(|run| run.gone_at).max();
        Some([Some(self.lost_at), down, away].into_iter().flatten().max().unwrap_or(i64::MIN))
    }

    /// A run cannot reach the store for a while, or is stopped by a signal and goes on later.
    pub(super) fn cut(&mut self, run: usize, frozen: bool) {
        if !self.may_fail() {
            return;
        }
        let long = if self.rng.percent(50) { 3_000 } else { 40_000 };
        let until = self.now + self.rng.between(500, long);
        self.say(|| format!("run {run} is away until {until}; stopped: {frozen}"));
        let this = &mut self.runs[run];
        this.away_since = self.now;
        if frozen {
            this.frozen_until = until;
        } else {
            this.cut_until = until;
        }
        self.counts.cuts += 1;
    }

    /// A clock steps: the store's, or a gateway's own.
    pub(super) fn step_clock(&mut self) {
        let by = match self.rng.below(4) {
            0 => self.rng.between(-3_600_000, -10_000),
            1 => self.rng.between(-10_000, 10_000),
            2 => self.rng.between(10_000, 100_000),
            _ => self.rng.between(100_000, 30_000_000),
        };
        self.counts.steps += 1;
        if self.may_fail() && self.rng.percent(50) {
            self.say(|| format!("the store's clock steps by {by} ms"));
            self.store.clock_off += by;
            self.store.now(self.now);
        } else {
            let run = self.rng.index(self.runs.len());
            self.say(|| format!("the clock of run {run} steps by {by} ms"));
            self.runs[run].clock_off += by;
        }
    }
}
