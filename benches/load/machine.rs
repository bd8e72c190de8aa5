//! What the machine is and does: its cores, who else used them, the limits of this process. Linux only,
//! as the figures come from /proc.

use crate::Result;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs;
use std::time::Duration;

/// /proc counts CPU time in hundredths of a second on every architecture that we build for (USER_HZ).
const TICK: Duration = Duration::from_millis(10);

/// Where things run: the target on one core, stub and driver on another; the same one when there is one.
#[derive(Clone, Copy)]
pub(crate) struct Cores {
    pub(crate) target: usize,
    pub(crate) driver: usize,
}

impl Cores {
    /// Takes the first two cores that this process may use.
    pub(crate) fn choose() -> Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let target = cores.next().ok_or("no core is allowed")?;
        Ok(Self { target, driver: cores.next().unwrap_or(target) })
    }
}

/// Pins the calling thread, and with it the processes that it starts, to one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// Raises the limit of open files as far as it goes and returns it; children inherit it.
pub(crate) fn raise_open_files() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised)?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// CPU time of the cores in use, since the machine started.
#[derive(Clone, Copy)]
pub(crate) struct CoreTimes {
    /// Idle time and not busy time: it is measured, while busy time is sampled by a clock with which a
    /// load at a fixed rate runs in step.
    pub(crate) idle: Duration,
    /// Taken by the host for other guests.
    pub(crate) stolen: Duration,
    /// How many cores these are.
    pub(crate) cores: u32,
}

impl CoreTimes {
    pub(crate) fn read(cores: Cores) -> Result<Self> {
        let mut times = Self { idle: Duration::ZERO, stolen: Duration::ZERO, cores: 0 };
        let wanted = [cores.target, cores.driver].map(|core| format!("cpu{core}"));
        for line in fs::read_to_string("/proc/stat")?.lines() {
            let mut fields = line.split_whitespace();
            let name = fields.next().unwrap_or_default();
            if !wanted.iter().any(|core| core == name) {
                continue;
            }
            let ticks: std::result::Result<Vec<u32>, _> = fields.map(str::parse).collect();
            // user nice system idle iowait irq softirq steal
            if let [_, _, _, idle, iowait, _, _, steal, ..] = ticks?[..] {
                times.idle += TICK * (idle + iowait);
                times.stolen += TICK * steal;
                times.cores += 1;
            }
        }
        Ok(times)
    }
}

/// CPU time of one process so far: of its threads that go on, to the nanosecond. The ticks of /proc's `stat` are a tenth of
/// a turn.
pub(crate) fn process_cpu(pid: &str) -> Result<Duration> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the reading.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        nanos += text.split_whitespace().next().ok_or("an empty schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Proportional set size of one process in KiB: pages that it shares count in parts.
pub(crate) fn process_pss_kib(pid: &str) -> Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let figure = line.and_then(|line| line.split_whitespace().next());
    Ok(figure.ok_or("no Pss line")?.parse()?)
}

/// The processes of a process group: a server and its workers.
pub(crate) fn group_members(group: u32) -> Result<Vec<String>> {
    let mut members = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let pid = entry?.file_name().to_string_lossy().into_owned();
        // A process may end between the listing and the reading; then it is no member.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        if fields_after_name(&stat).get(2) == Some(&group.to_string().as_str()) {
            members.push(pid);
        }
    }
    Ok(members)
}

/// The fields from the third on; the second, a name in brackets, may hold anything.
fn fields_after_name(stat: &str) -> Vec<&str> {
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace().collect()
}

/// One line about the machine, for the head of a report.
pub(crate) fn describe(cores: Cores) -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown CPU", |model| model.trim_start_matches(['\t', ' ', ':']));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let count = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let Cores { target, driver } = cores;
    let pinned = if target == driver {
        "ONE CORE ONLY: targets share it with stub and driver, no ratio here means much".to_owned()
    } else {
        format!("target pinned to core {target}, stub and driver to core {driver}")
    };
    format!("{model}, {count} cores, Linux {}; {pinned}", kernel.trim())
}
