//! The gateways of one round: real processes that share a store, each with its own folder and its own link to the
//! server. What happens to them is noted with its time, because a call that meets it may end in more ways than others.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::bank::{Bank, blocking};
use super::link::Link;
use super::load::{Roads, Seen, ask};
use super::oracle::Disturbance;
use crate::harness::admin::{Admin, TOKEN};
use crate::harness::client::Request;
use crate::harness::process::{Gateway, run};
use crate::harness::world::base_config;

/// Longest wait for a gateway to be ready: beyond one lease period, after which grants resume whoever is silent.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(40);
/// A gateway that was halted has worked off by then what piled up meanwhile.
const BACKLOG_MAX: Duration = Duration::from_secs(3);
/// Pause between two looks at a gateway's readiness.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One gateway.
pub(crate) struct Member {
    folder: PathBuf,
    process: Option<Gateway>,
    pub(crate) admin: Admin,
    pub(crate) link: Option<Link>,
    /// What its earlier processes said.
    said: Vec<String>,
}

impl Member {
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join("tollgate.yaml")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }
}

/// A halted process whose place another has taken.
pub(crate) struct Zombie {
    process: Gateway,
    data: SocketAddr,
}

impl Zombie {
    pub(crate) fn wake(&self) {
        self.process.signal(Signal::CONT);
    }

    /// The status of one call to it.
    pub(crate) async fn call(&self, key: &str) -> Option<u16> {
        let request = Request::chat(key).field("Connection", "close");
        ask(self.data, &request).await.map(|(status, _)| status)
    }

    /// Stops it in order; what is wrong about that.
    pub(crate) async fn end(&mut self) -> Option<String> {
        self.process.signal(Signal::TERM);
        let exit = self.process.exit().await;
        let knew = exit.said.contains("another process has taken this run's place");
        (!knew).then(|| format!("the zombie does not say what it is (it ended with {:?})", exit.code))
    }
}

/// A time during which a gateway was not as it should be.
#[derive(Debug, Clone, Copy)]
struct Spell {
    gateway: usize,
    kind: Disturbance,
    from: Instant,
    /// `None`: it goes on.
    to: Option<Instant>,
}

/// All of them.
pub(crate) struct Fleet {
    pub(crate) members: Vec<Member>,
    pub(crate) roads: Arc<Roads>,
    spells: Mutex<Vec<Spell>>,
    /// Gateways that were halted, and when each was woken.
    woken: Mutex<Vec<(usize, Instant)>>,
    dir: TempDir,
}

impl Fleet {
    /// Starts them all, and waits until they are ready.
    pub(crate) async fn start(count: usize, seller: SocketAddr, bank: &Bank, (offers, seed): (&[u64], u64)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut members = Vec::new();
        for number in 0..count {
            let link = match bank.socket() {
                Some(socket) => Some(Link::to(&socket, seed.wrapping_add(number as u64)).await),
                None => None,
            };
            let folder = dir.path().join(format!("gw-{number}"));
            std::fs::create_dir(&folder).unwrap();
            let config = config(number, seller, bank.config(link.as_ref().map(|link| link.address)), offers);
            std::fs::write(folder.join("tollgate.yaml"), config.to_string()).unwrap();
            let nowhere = Admin { address: SocketAddr::from(([127, 0, 0, 1], 0)) };
            members.push(Member { folder, process: None, admin: nowhere, link, said: Vec::new() });
        }
        let mut fleet = Self {
            members,
            roads: Arc::new(Roads::new(count)),
            spells: Mutex::default(),
            woken: Mutex::default(),
            dir,
        };
        fleet.serve_all().await;
        fleet
    }

    /// Starts every gateway that does not run, and waits until all are ready.
    pub(crate) async fn serve_all(&mut self) {
        for member in self.members.iter_mut().filter(|member| member.process.is_none()) {
            member.process = Some(Gateway::serve(&member.config()));
        }
        for number in 0..self.members.len() {
            self.open_road(number).await;
        }
        for number in 0..self.members.len() {
            assert!(self.ready_by(number, Instant::now() + READY_WITHIN).await, "gateway {number} does not get ready");
        }
    }

    async fn open_road(&mut self, number: usize) {
        let member = &mut self.members[number];
        let Some(process) = &mut member.process else { return };
        let (data, admin) = process.listening().await;
        member.admin = Admin { address: admin };
        self.roads.open(number, data);
    }

    /// Whether a gateway says in time that it is ready.
    pub(crate) async fn ready_by(&self, number: usize, deadline: Instant) -> bool {
        let request = Request::get("/readyz").field("Connection", "close");
        loop {
            let answer = ask(self.members[number].admin.address, &request).await;
            if answer.is_some_and(|(status, _)| status == 200) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Notes that a gateway is not as it should be from now on.
    pub(crate) fn disturb(&self, gateway: usize, kind: Disturbance) {
        self.spells.lock().unwrap().push(Spell { gateway, kind, from: Instant::now(), to: None });
    }

    /// Notes that it is as it should be again.
    pub(crate) fn soothe(&self, gateway: usize) {
        let mut spells = self.spells.lock().unwrap();
        for spell in spells.iter_mut().filter(|spell| spell.gateway == gateway && spell.to.is_none()) {
            spell.to = Some(Instant::now());
        }
    }

    /// Halts a gateway.
    pub(crate) fn halt(&self, gateway: usize) {
        self.disturb(gateway, Disturbance::Violent);
        self.signal(gateway, Signal::STOP);
    }

    /// Lets a halted gateway go on.
    pub(crate) fn wake(&self, gateway: usize) {
        self.signal(gateway, Signal::CONT);
        self.soothe(gateway);
        self.woken.lock().unwrap().push((gateway, Instant::now()));
    }

    /// Notes how long gateways that were halted had to do with calls that began before they were woken: what came then
    /// was behind those.
    pub(crate) fn note_backlogs(&self, log: &[Seen]) {
        for (gateway, woken) in self.woken.lock().unwrap().drain(..) {
            let piled_up = log.iter().filter(|seen| seen.gateway == gateway && seen.began <= woken);
            let worked_off = piled_up.map(|seen| seen.ended).max().unwrap_or(woken).clamp(woken, woken + BACKLOG_MAX);
            let spell = Spell { gateway, kind: Disturbance::Behind, from: woken, to: Some(worked_off) };
            self.spells.lock().unwrap().push(spell);
        }
    }

    /// The worst that happened to a gateway during a call.
    pub(crate) fn disturbance(&self, gateway: usize, from: Instant, to: Instant) -> Disturbance {
        let spells = self.spells.lock().unwrap();
        let meets =
            |spell: &&Spell| spell.gateway == gateway && spell.from <= to && spell.to.is_none_or(|end| from <= end);
        spells.iter().filter(meets).map(|spell| spell.kind).max().unwrap_or(Disturbance::None)
    }

    /// Kill -9.
    pub(crate) async fn kill(&mut self, number: usize) {
        self.disturb(number, Disturbance::Violent);
        self.end(number, Signal::KILL).await;
    }

    /// SIGTERM, and the wait for the end; whether it ended with code 0.
    pub(crate) async fn stop(&mut self, number: usize) -> bool {
        self.disturb(number, Disturbance::Orderly);
        self.end(number, Signal::TERM).await == Some(0)
    }

    async fn end(&mut self, number: usize, signal: Signal) -> Option<i32> {
        let mut process = self.members[number].process.take().unwrap_or_else(|| panic!("gateway {number} runs"));
        if signal == Signal::KILL {
            self.roads.close(number);
        }
        process.signal(signal);
        let exit = process.exit().await;
        self.roads.close(number);
        let member = &mut self.members[number];
        member.said.push(format!("--- ended with {:?}", exit.code));
        member.said.extend(exit.said.lines().map(str::to_owned));
        exit.code
    }

    /// Starts a gateway again that has ended. It is as it should be once it listens.
    pub(crate) async fn restart(&mut self, number: usize) {
        self.members[number].process = Some(Gateway::serve(&self.members[number].config()));
        self.open_road(number).await;
        self.soothe(number);
    }

    /// A second process beside a running one, on its folder; it takes the first one's place if it serves.
    pub(crate) async fn overlap(&mut self, number: usize) -> bool {
        let mut second = Gateway::serve(&self.members[number].config());
        let serves = loop {
            if second.said().iter().any(|line| line.contains("\"listening\"")) {
                break true;
            }
            if let Some(code) = second.ended() {
                assert_eq!(code, Some(69), "a second process serves, or says that the folder is taken");
                break false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        if serves {
            let (data, admin) = second.listening().await;
            self.roads.open(number, data);
            self.members[number].admin = Admin { address: admin };
            if let Some(mut first) = self.members[number].process.replace(second) {
                first.signal(Signal::TERM);
                let exit = first.exit().await;
                self.members[number].said.extend(exit.said.lines().map(str::to_owned));
                assert_eq!(exit.code, Some(0), "the first process stops in order");
            }
        }
        serves
    }

    /// No new call comes to a gateway.
    pub(crate) fn silence(&self, number: usize) {
        self.disturb(number, Disturbance::Orderly);
        self.roads.close(number);
    }

    /// Halts a gateway that has no calls, and lets another process take its place with a copy of its folder.
    pub(crate) async fn halt_and_replace(&mut self, number: usize) -> Zombie {
        self.signal(number, Signal::STOP);
        let member = &mut self.members[number];
        let copy = member.folder.with_extension("copy");
        let (from, to) = (member.folder.clone(), copy.clone());
        blocking(move || copy_folder(&from, &to)).await;
        member.folder = copy;
        let successor = Gateway::serve(&member.config());
        let mut process = member.process.replace(successor).unwrap();
        let (data, _) = process.listening().await;
        self.open_road(number).await;
        self.soothe(number);
        Zombie { process, data }
    }

    /// `tollgate store backup` or `restore`, with one file for both; repeated as an operator would if the store does not
    /// answer in time.
    pub(crate) async fn store(&self, what: &'static str) {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let (config, file) = (self.members[0].config(), self.dir.path().join("backup.jsonl"));
            let (code, _, said) =
                blocking(move || run(&["store", what, "--config", config.to_str().unwrap(), file.to_str().unwrap()]))
                    .await;
            if code == Some(0) {
                return;
            }
            assert!(Instant::now() < deadline, "store {what} ends with {code:?}: {said}");
        }
    }

    fn signal(&self, number: usize, signal: Signal) {
        if let Some(process) = &self.members[number].process {
            process.signal(signal);
        }
    }

    /// The usage records of every journal that is left.
    pub(crate) fn usage(&self) -> Vec<Value> {
        let of_one = |member: &Member| {
            let (code, out, said) = run(&["usage", "export", "--config", member.config().to_str().unwrap()]);
            assert_eq!(code, Some(0), "{said}");
            let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            lines
        };
        self.members.iter().flat_map(of_one).collect()
    }

    /// Writes what every process said to files in a folder.
    pub(crate) fn keep_words(&self, folder: &Path) {
        for (number, member) in self.members.iter().enumerate() {
            let mut said = member.said.clone();
            said.extend(member.process.iter().flat_map(Gateway::said));
            std::fs::write(folder.join(format!("gw-{number}.log")), said.join("\n")).unwrap();
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_folder(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

fn config(number: usize, seller: SocketAddr, store: Value, offers: &[u64]) -> Value {
    let mut config = base_config(seller);
    config["gateway"] = json!(format!("gw-{number}"));
    config["workers"] = json!(1);
    config["store"] = store;
    config["admin"] = json!({ "token": TOKEN });
    let terms = |calls: &u64| json!({ "id": format!("chaos-{calls}"), "product": "chat", "kind": "per_call", "calls": calls, "validity": "1y" });
    config["offers"].as_array_mut().unwrap().extend(offers.iter().map(terms));
    config
}
