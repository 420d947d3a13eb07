//! What server processes on this machine used: CPU time and memory, from `/proc`.

use std::fs;

use serde::Serialize;

use crate::client::ClientError;

/// Processes to look at.
#[derive(Debug)]
pub(super) struct Processes {
    pids: Vec<u32>,
}

/// The figures of each process at one moment.
#[derive(Debug, Default)]
pub(super) struct Sample {
    processes: Vec<Process>,
}

#[derive(Debug, PartialEq)]
struct Process {
    pid: u32,
    cpu_seconds: f64,
    rss_bytes: u64,
    rss_bytes_peak: u64,
}

/// What a process used between two samples.
#[derive(Debug, Serialize)]
pub(super) struct Usage {
    pub(super) pid: u32,
    pub(super) cpu_seconds: f64,
    /// Memory at the end.
    pub(super) rss_bytes: u64,
    /// Most memory since the process began.
    pub(super) rss_bytes_peak: u64,
}

impl Processes {
    /// The processes with these ids.
    ///
    /// # Errors
    /// [`ClientError::Usage`] when there is none with one of the ids.
    pub(super) fn new(pids: Vec<u32>) -> Result<Self, ClientError> {
        let processes = Self { pids };
        processes.sample()?;
        Ok(processes)
    }

    /// Looks at all of them.
    ///
    /// # Errors
    /// [`ClientError::Usage`] when one is gone.
    pub(super) fn sample(&self) -> Result<Sample, ClientError> {
        let processes = self.pids.iter().map(|pid| look(*pid)).collect::<Result<_, _>>();
        Ok(Sample { processes: processes.map_err(ClientError::Usage)? })
    }
}

impl Sample {
    /// What was used from this sample to a later one of the same processes.
    pub(super) fn until(&self, later: &Self) -> Vec<Usage> {
        let usage = |(before, after): (&Process, &Process)| Usage {
            pid: after.pid,
            cpu_seconds: after.cpu_seconds - before.cpu_seconds,
            rss_bytes: after.rss_bytes,
            rss_bytes_peak: after.rss_bytes_peak,
        };
        self.processes.iter().zip(&later.processes).map(usage).collect()
    }
}

fn look(pid: u32) -> Result<Process, String> {
    let read = |file: &str| {
        fs::read_to_string(format!("/proc/{pid}/{file}")).map_err(|error| format!("--pid {pid}: {error}"))
    };
    let unreadable = || format!("--pid {pid}: unexpected format of /proc");
    let ticks = cpu_ticks(&read("stat")?).ok_or_else(unreadable)?;
    let status = read("status")?;
    let ticks_per_second =
        u32::try_from(rustix::param::clock_ticks_per_second()).map_err(|_| unreadable())?;
    Ok(Process {
        pid,
        cpu_seconds: f64::from(ticks) / f64::from(ticks_per_second),
        rss_bytes: memory(&status, "VmRSS:").unwrap_or(0),
        rss_bytes_peak: memory(&status, "VmHWM:").unwrap_or(0),
    })
}

/// User and system time in clock ticks: fields 14 and 15 of `/proc/PID/stat`. The name in field 2 may hold spaces and
/// parentheses, so counting starts behind its last one.
fn cpu_ticks(stat: &str) -> Option<u32> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

/// A size in `/proc/PID/status`, which has them in KiB.
fn memory(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_found() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 100 0 0";
        assert_eq!(cpu_ticks(stat), Some(200));
        assert_eq!(cpu_ticks("7 (a) S 1"), None);
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!((memory(status, "VmRSS:"), memory(status, "VmHWM:")), (Some(1 << 20), Some(2 << 20)));
        assert_eq!(memory(status, "VmSwap:"), None);
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let processes = Processes::new(vec![std::process::id()]).unwrap();
        let usage = processes.sample().unwrap().until(&processes.sample().unwrap());
        assert!(usage[0].rss_bytes > 0 && usage[0].rss_bytes_peak >= usage[0].rss_bytes / 2);
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        // Process ids end at 2^22 on Linux.
        let error = Processes::new(vec![u32::MAX]).unwrap_err().to_string();
        assert!(error.starts_with("--pid 4294967295: "), "{error}");
    }
}
