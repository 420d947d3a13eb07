//! Where it ran, and whether it ran alone.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// Busier than this between measurements, share of all cores: something else runs.
const BUSY_MAX: f64 = 0.10;

/// A pause between measurements.
const PAUSE: Duration = Duration::from_millis(250);

pub struct Machine {
    pub cores: usize,
    pub cpu: String,
    pub kernel: String,
    /// Of the directory that is written to.
    pub file_system: String,
    pub memory_gib: u64,
    pub load: String,
}

impl Machine {
    pub fn of(dir: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let unknown = || "unknown".to_owned();
        let uname = rustix::system::uname();
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let memory_kib: u64 =
            memory.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0);
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(unknown),
            kernel: format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
            file_system: file_system(&read("/proc/self/mounts"), dir).unwrap_or_else(unknown),
            memory_gib: memory_kib >> 20,
            load: read("/proc/loadavg").trim().to_owned(),
        }
    }

    /// One line, for a report.
    pub fn describe(&self) -> String {
        let Self { cores, cpu, kernel, file_system, memory_gib, .. } = self;
        format!("{cores} cores of {cpu}, {memory_gib} GiB; {kernel}; {file_system}")
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "cores": self.cores, "cpu": self.cpu, "kernel": self.kernel, "file_system": self.file_system,
            "memory_gib": self.memory_gib, "load_before": self.load,
        })
    }

    /// The load before the start, when it is more than an idle machine has.
    pub fn loaded(&self) -> bool {
        let one_minute = self.load.split_whitespace().next().and_then(|text| text.parse::<f64>().ok());
        one_minute.is_some_and(|load| 0.3 < load)
    }
}

/// Device, type and options of the mount that holds `dir`, and whether it has a journal.
fn file_system(mounts: &str, dir: &Path) -> Option<String> {
    let fields = |line: &str| line.split_whitespace().take(4).map(str::to_owned).collect::<Vec<_>>();
    let inside = |mount: &Vec<String>| mount.len() == 4 && dir.starts_with(&mount[1]);
    let mount = mounts.lines().map(fields).filter(inside).max_by_key(|mount| mount[1].len())?;
    let device = mount[0].trim_start_matches("/dev/");
    let journals = fs::read_dir("/proc/fs/jbd2").ok()?.flatten();
    let journal = journals
        .filter_map(|entry| entry.file_name().into_string().ok())
        .any(|name| name == device || name.starts_with(&format!("{device}-")));
    let journal = match mount[2].as_str() {
        "ext4" if journal => ", with a journal",
        "ext4" => ", without a journal",
        _ => "",
    };
    Some(format!("{} on {} ({}){journal}", mount[2], mount[0], mount[3]))
}

/// Watches the time between measurements, when nothing should run.
#[derive(Default)]
pub struct Quiet {
    pauses: usize,
    busy: usize,
    most: f64,
}

impl Quiet {
    /// Lets the disk come to rest after a measurement, and notes whether the machine does.
    pub fn settle(&mut self) {
        rustix::fs::sync();
        let before = ticks();
        std::thread::sleep(PAUSE);
        let after = ticks();
        let (all, idle) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
        let share = if all == 0 { 0.0 } else { 1.0 - idle as f64 / all as f64 };
        self.pauses += 1;
        self.busy += usize::from(BUSY_MAX < share);
        self.most = self.most.max(share);
    }

    /// In words; the second says whether figures are to be trusted.
    pub fn verdict(&self) -> (String, bool) {
        let percent = self.most * 100.0;
        let text = format!(
            "{} of {} pauses between measurements found the processors more than {:.0} % busy (most: {percent:.0} %)",
            self.busy,
            self.pauses,
            BUSY_MAX * 100.0
        );
        (text, self.busy * 10 <= self.pauses)
    }
}

/// Ticks of all processors since the start, and the idle ones among them (steal counts as busy).
fn ticks() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    let numbers: Vec<u64> = first.split_whitespace().skip(1).take(8).flat_map(str::parse).collect();
    (numbers.iter().sum(), numbers.iter().skip(3).take(2).sum())
}
