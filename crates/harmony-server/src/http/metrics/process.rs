//! What the system knows of this process, from Linux's `/proc`.

use std::fs;

/// One look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ProcessStats {
    /// Memory in use, bytes.
    pub(crate) resident_bytes: u64,
    /// Address space in use, bytes.
    pub(crate) virtual_bytes: u64,
    /// Open file descriptors.
    pub(crate) open_files: u64,
    /// Most open file descriptors.
    pub(crate) max_files: u64,
    /// Start of the process, seconds since 1970.
    pub(crate) start_seconds: f64,
    /// CPU time used, seconds.
    pub(crate) cpu_seconds: f64,
}

impl ProcessStats {
    /// `None` where the system does not tell.
    pub(crate) fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let system = fs::read_to_string("/proc/stat").ok()?;
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let open_files = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        parse(
            &stat,
            &system,
            &limits,
            open_files,
            rustix::param::clock_ticks_per_second(),
            rustix::param::page_size(),
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "clock ticks of centuries fit")]
fn parse(
    stat: &str,
    system: &str,
    limits: &str,
    open_files: u64,
    ticks_per_second: u64,
    page_bytes: usize,
) -> Option<ProcessStats> {
    // The name, in parentheses, may hold anything; fields are counted from behind it, the state being field 3.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let boot: u64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let max_files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?
        .split_whitespace()
        .next()?
        .parse()
        .unwrap_or(u64::MAX);
    let ticks = ticks_per_second as f64;
    Some(ProcessStats {
        resident_bytes: field(24)? * page_bytes as u64,
        virtual_bytes: field(23)?,
        open_files,
        max_files,
        start_seconds: boot as f64 + field(22)? as f64 / ticks,
        cpu_seconds: (field(14)? + field(15)?) as f64 / ticks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let numbers: Vec<String> = (4..=52).map(|number| number.to_string()).collect();
        let stat = format!("1 (a ) b) S {}", numbers.join(" "));
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files   1024   4096   files\n";
        let stats = parse(&stat, "cpu 1\nbtime 1000\n", limits, 7, 100, 4096).unwrap();
        let expected = ProcessStats {
            resident_bytes: 24 * 4096,
            virtual_bytes: 23,
            open_files: 7,
            max_files: 1024,
            start_seconds: 1000.22,
            cpu_seconds: 0.29,
        };
        assert_eq!(stats, expected);
        assert_eq!(parse("1 (x) S 4", "btime 1", limits, 7, 100, 4096), None);
    }
}
