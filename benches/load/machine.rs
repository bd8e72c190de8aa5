//! What the machine is and does: its cores, who else used them, the limits of this process. Linux only,
//! as the figures come from /proc.

use crate::Result;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs;
use std::time::Duration;

/// /proc counts CPU time in hundredths of a second on every architecture that we build for (USER_HZ).
const TICK: Duration = Duration::from_millis(10);

/// Where things run: the target on one core, stub and driver on another.
#[derive(Clone, Copy)]
pub(crate) struct Cores {
    /// `None` when there is one core only and nothing is pinned.
    pub(crate) target: Option<usize>,
    pub(crate) driver: Option<usize>,
}

impl Cores {
    /// Takes the first two cores that this process may use.
    pub(crate) fn choose() -> Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        match (cores.next(), cores.next()) {
            (Some(target), Some(driver)) => Ok(Self { target: Some(target), driver: Some(driver) }),
            _ => Ok(Self { target: None, driver: None }),
        }
    }
}

/// Pins the calling thread, and with it the processes that it starts, to one core.
pub(crate) fn pin(core: Option<usize>) -> Result<()> {
    if let Some(core) = core {
        let mut set = CpuSet::new();
        set.set(core);
        sched_setaffinity(None, &set)?;
    }
    Ok(())
}

/// Raises the limit of open files as far as it goes and returns it; children inherit it.
pub(crate) fn raise_open_files() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised)?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// CPU time of the cores in use: what ran, and what the host took for other guests.
#[derive(Clone, Copy)]
pub(crate) struct CoreTimes {
    pub(crate) busy: Duration,
    pub(crate) stolen: Duration,
}

impl CoreTimes {
    pub(crate) fn read(cores: Cores) -> Result<Self> {
        let mut times = Self { busy: Duration::ZERO, stolen: Duration::ZERO };
        let wanted = [cores.target, cores.driver].map(|core| core.map(|core| format!("cpu{core}")));
        for line in fs::read_to_string("/proc/stat")?.lines() {
            let mut fields = line.split_whitespace();
            let name = fields.next().unwrap_or_default();
            // Unpinned there is one core, and the first line is the sum of all.
            let ours = name == "cpu" && cores.target.is_none() || wanted.iter().flatten().any(|core| core == name);
            if !ours {
                continue;
            }
            let ticks = fields.map(str::parse).collect::<std::result::Result<Vec<u32>, _>>()?;
            // user nice system idle iowait irq softirq steal
            if let [user, nice, system, _, _, irq, softirq, steal, ..] = ticks[..] {
                times.busy += TICK * (user + nice + system + irq + softirq);
                times.stolen += TICK * steal;
            }
        }
        Ok(times)
    }
}

/// User and system time of one process so far, all threads.
pub(crate) fn process_cpu(pid: &str) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = fields_after_name(&stat);
    let ticks = |index: usize| -> Result<u32> { Ok(fields.get(index).ok_or("a short /proc stat line")?.parse()?) };
    // utime and stime are fields 14 and 15; these begin with field 3.
    Ok(TICK * (ticks(11)? + ticks(12)?))
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
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let pinned = match (cores.target, cores.driver) {
        (Some(target), Some(driver)) => {
            format!("target pinned to core {target}, stub and driver to core {driver}")
        }
        _ => "ONE CORE ONLY: nothing is pinned, targets share it with stub and driver".to_owned(),
    };
    format!("{model}, {count} cores, Linux {}; {pinned}", kernel.trim())
}
