//! The processes under test: started on their core, read through /proc, ended with their workers when
//! dropped, also on an error.

use crate::machine::{self, Cores};
use crate::{Result, SETTLE_POLL};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process_group, set_child_subreaper, waitpgid};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a process may take until it serves.
pub(crate) const START_MAX: Duration = Duration::from_secs(20);

/// A running child in a process group of its own; what it prints goes to a file.
pub(crate) struct Process {
    name: String,
    child: Child,
    output: PathBuf,
}

/// Makes this process the parent of its children's orphans, so that none is left behind.
pub(crate) fn adopt_orphans() -> Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

impl Process {
    /// Starts the command on one core, its output in a file of `dir`.
    pub(crate) fn start(name: &str, command: &mut Command, core: usize, cores: Cores, dir: &Path) -> Result<Self> {
        let output = dir.join(format!("{name}.log"));
        let file = File::create(&output)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        // A child inherits the affinity of the thread that starts it.
        machine::pin(core)?;
        let child = command.spawn();
        machine::pin(cores.driver)?;
        let child = child.map_err(|error| format!("cannot start {name}: {error}"))?;
        Ok(Self { name: name.to_owned(), child, output })
    }

    /// Waits for a line of output of which `pick` makes something.
    pub(crate) async fn wait_line<T>(&mut self, pick: impl Fn(&str) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + START_MAX;
        loop {
            let output = fs::read_to_string(&self.output)?;
            let whole = output.rsplit_once('\n').map_or("", |(whole, _)| whole);
            if let Some(found) = whole.lines().find_map(&pick) {
                return Ok(found);
            }
            self.still_starting(deadline)?;
            tokio::time::sleep(SETTLE_POLL).await;
        }
    }

    /// An error when the process has ended or took too long to start.
    pub(crate) fn still_starting(&mut self, deadline: Instant) -> Result<()> {
        let name = &self.name;
        let output = fs::read_to_string(&self.output)?;
        if let Some(status) = self.child.try_wait()? {
            return Err(format!("{name} ended before it served ({status}): {output}").into());
        }
        if Instant::now() > deadline {
            return Err(format!("{name} did not serve within {START_MAX:?}: {output}").into());
        }
        Ok(())
    }

    /// CPU time so far, workers included.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut sum = Duration::ZERO;
        for pid in machine::group_members(self.child.id())? {
            sum += machine::process_cpu(&pid)?;
        }
        Ok(sum)
    }

    /// Proportional set size, workers included.
    pub(crate) fn pss_kib(&self) -> Result<u64> {
        let mut sum = 0;
        for pid in machine::group_members(self.child.id())? {
            sum += machine::process_pss_kib(&pid)?;
        }
        Ok(sum)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody to tell.
        kill_process_group(Pid::from_child(&self.child), Signal::KILL).ok();
        self.child.wait().ok();
        // Its workers are ours to bury, see `adopt_orphans`.
        while waitpgid(Pid::from_child(&self.child), WaitOptions::empty()).is_ok() {}
    }
}
