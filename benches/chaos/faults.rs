//! What goes wrong in a round, and how it is healed: each fault begins at a seeded moment, and has ended when its
//! function returns. Nothing here judges.

use std::time::Duration;

use rustix::process::Signal;

use super::bank::Bank;
use super::fleet::Fleet;
use super::link::{Link, Weather};
use super::oracle::Disturbance;
use crate::harness::rng::Rng;

/// Something that goes wrong. Times are in milliseconds; a range is drawn from by the seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Kill -9 of gateways, one after the other, each started again.
    KillGateways(u32),
    /// SIGSTOP, then SIGCONT.
    HaltGateway(u64, u64),
    /// SIGTERM under load, then a start.
    StopGateway,
    /// Kill -9, its folder is removed, then a start.
    LoseDisk,
    /// A second process of a gateway on the folder of the first.
    Overlap,
    /// Kill -9 of the server, started again.
    KillStore,
    /// A snapshot, later kill -9 of the server: it comes back as it was at the snapshot.
    RollBack,
    /// Kill -9 of the server, the end of its log is cut off.
    CutLog,
    /// `FLUSHALL`.
    Flush,
    /// A backup, later `FLUSHALL`; then what operators do: all gateways stop, the backup is restored, they start again.
    Restore,
    /// A gateway is halted beyond its leases, another goes on with a copy of its folder, then the first one wakes up.
    Zombie(u64, u64),
    /// `SCRIPT FLUSH`.
    FlushScripts,
    /// The replica stops hearing of writes, then the primary is killed and the replica takes over.
    Promote,
    /// `CLIENT PAUSE`.
    Pause(u64),
    /// SIGSTOP of the server, then SIGCONT.
    HaltStore(u64, u64),
    /// The link between gateways and server has this weather: for one gateway or for all, as the seed says.
    Link(Weather, u64),
    /// A primary is killed; Sentinels or the Cluster find another.
    FailOver,
}

/// Calls that the scripted seller answers have ended by then.
const CALLS_ENDED_MS: u64 = 1_500;
/// Calls to a process whose place was taken.
const ZOMBIE_CALLS: usize = 20;

/// Where faults happen.
pub(crate) struct Field<'a> {
    pub(crate) fleet: &'a mut Fleet,
    pub(crate) bank: &'a Bank,
    pub(crate) rng: &'a mut Rng,
    /// Of somebody who has calls left.
    pub(crate) key: &'a str,
}

/// What a fault came to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Struck {
    pub(crate) faults: u32,
    pub(crate) disk_lost: bool,
    /// Something worth telling.
    pub(crate) note: Option<String>,
    /// What was promised and did not happen, in words.
    pub(crate) breaches: Vec<String>,
}

impl Field<'_> {
    /// Lets the fault happen, and heals it.
    pub(crate) async fn strike(&mut self, fault: Fault) -> Struck {
        let mut struck = Struck { faults: 1, ..Struck::default() };
        self.pass(600, 1_600).await;
        match fault {
            Fault::KillGateways(times) => {
                struck.faults = times;
                for _ in 0..times {
                    self.kill_gateway(false).await;
                    self.pass(100, 1_300).await;
                }
            }
            Fault::LoseDisk => {
                struck.disk_lost = true;
                self.kill_gateway(true).await;
            }
            Fault::HaltGateway(least, most) => self.halt_gateway(least, most).await,
            Fault::StopGateway => {
                let gateway = self.any_gateway();
                assert!(self.fleet.stop(gateway).await, "gateway {gateway} stops in order");
                self.fleet.restart(gateway).await;
            }
            Fault::Overlap => {
                let gateway = self.any_gateway();
                self.fleet.disturb(gateway, Disturbance::Orderly);
                let serves = self.fleet.overlap(gateway).await;
                self.fleet.soothe(gateway);
                struck.note = (!serves).then(|| "a second process is refused".to_owned());
            }
            Fault::KillStore | Fault::RollBack | Fault::CutLog => self.kill_store(fault).await,
            Fault::Flush => self.bank.ask("FLUSHALL").await,
            Fault::Restore => self.flush_and_restore().await,
            Fault::Zombie(least, most) => struck.breaches = self.zombie(least, most).await,
            Fault::FlushScripts => self.bank.ask("SCRIPT FLUSH").await,
            Fault::Promote => self.promote().await,
            Fault::Pause(time) => {
                self.bank.ask(pause(time)).await;
                self.wait(time).await;
            }
            Fault::HaltStore(least, most) => {
                self.bank.signal(Signal::STOP).await;
                self.pass(least, most).await;
                self.bank.signal(Signal::CONT).await;
            }
            Fault::Link(weather, time) => self.weather(weather, time).await,
            Fault::FailOver => self.bank.fail_over().await,
        }
        struck
    }

    async fn wait(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await; // a moment of the schedule, not a wait for something
    }

    async fn pass(&mut self, least: u64, most: u64) {
        let ms = least + self.rng.below(most - least);
        self.wait(ms).await;
    }

    fn any_gateway(&mut self) -> usize {
        self.rng.below(self.fleet.members.len() as u64) as usize
    }

    async fn kill_gateway(&mut self, loses_disk: bool) {
        let gateway = self.any_gateway();
        self.fleet.kill(gateway).await;
        if loses_disk {
            std::fs::remove_dir_all(self.fleet.members[gateway].data_dir()).unwrap();
        }
        self.pass(0, 300).await;
        self.fleet.restart(gateway).await;
    }

    async fn halt_gateway(&mut self, least: u64, most: u64) {
        let gateway = self.any_gateway();
        self.fleet.halt(gateway);
        self.pass(least, most).await;
        self.fleet.wake(gateway);
    }

    async fn kill_store(&mut self, fault: Fault) {
        if fault == Fault::RollBack {
            self.bank.ask("SAVE").await;
            self.pass(300, 1_200).await;
        }
        self.bank.kill().await;
        if fault == Fault::CutLog {
            let percent = 2 + self.rng.below(30);
            self.bank.cut_log(percent).await;
        }
        self.pass(0, 800).await;
        self.bank.restart().await;
    }

    async fn flush_and_restore(&mut self) {
        self.fleet.store("backup").await;
        self.pass(300, 1_200).await;
        self.bank.ask("FLUSHALL").await;
        self.pass(0, 500).await;
        for gateway in 0..self.fleet.members.len() {
            assert!(self.fleet.stop(gateway).await, "gateway {gateway} stops in order");
        }
        // What gateways have told again by now is not what the backup says: it must go, or the restore is refused.
        self.bank.ask("FLUSHALL").await;
        self.fleet.store("restore").await;
        for gateway in 0..self.fleet.members.len() {
            self.fleet.restart(gateway).await;
        }
    }

    /// One that wakes up earlier may use what it holds, which is sold to others by then: that would be two faults.
    async fn zombie(&mut self, least: u64, most: u64) -> Vec<String> {
        let gateway = self.any_gateway();
        self.fleet.silence(gateway);
        self.wait(CALLS_ENDED_MS).await;
        let mut zombie = self.fleet.halt_and_replace(gateway).await;
        self.pass(least, most).await;
        zombie.wake();
        let mut breaches = Vec::new();
        for _ in 0..ZOMBIE_CALLS {
            match zombie.call(self.key).await {
                Some(status @ 200..300) => breaches.push(format!("the zombie answers a call with {status}")),
                Some(503) => {}
                other => breaches.push(format!("the zombie answers a call with {other:?}, not with 503")),
            }
        }
        breaches.extend(zombie.end().await);
        breaches
    }

    async fn promote(&mut self) {
        self.bank.part().await;
        self.pass(50, 600).await;
        let replica = self.bank.promote().await;
        self.pass(0, 500).await;
        for link in self.links() {
            link.lead_to(&replica);
        }
    }

    async fn weather(&mut self, weather: Weather, time: u64) {
        let (all, one) = (self.rng.percent(50), self.any_gateway());
        let chosen = |number: usize| all || number == one;
        for link in self.links().enumerate().filter_map(|(number, link)| chosen(number).then_some(link)) {
            link.weather(weather);
        }
        self.wait(time).await;
        self.links().for_each(|link| link.weather(Weather::Clear));
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        self.fleet.members.iter().filter_map(|member| member.link.as_ref())
    }
}

fn pause(ms: u64) -> &'static str {
    match ms {
        1_000 => "CLIENT PAUSE 1000 ALL",
        5_000 => "CLIENT PAUSE 5000 ALL",
        30_000 => "CLIENT PAUSE 30000 ALL",
        other => unreachable!("no case pauses for {other} ms"),
    }
}
