//! The most anonymous memory that a process has had, and the table of what hostile counterparts came to.
//!
//! Anonymous memory is what the process has allocated; the pages of mapped files belong to the page cache.

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What no hostile counterpart may make of it.
pub const MEMORY_MAX_KIB: u64 = 64 * 1024;

/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(5);

/// The variable that names the file to which rows of the table are appended.
const TABLE: &str = "RINGTIDE_HOSTILE_TABLE";

/// A process that is being looked at.
pub struct Watch {
    is_over: Arc<AtomicBool>,
    peak_kib: JoinHandle<u64>,
}

impl Watch {
    /// Looks at that process until it is gone or [`Watch::peak_kib`] is called.
    pub fn start(pid: u32) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let peak_kib = thread::spawn(move || {
            let mut peak = 0;
            while let Some(now) = anonymous_kib(pid).filter(|_| !over.load(Ordering::Relaxed)) {
                peak = peak.max(now);
                thread::sleep(EVERY);
            }
            peak
        });
        Self { is_over, peak_kib }
    }

    /// The most that was seen, in KiB.
    pub fn peak_kib(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.peak_kib.join().expect("looking does not panic")
    }
}

/// `None` where there is no such process, or only what is left of it before its parent has noticed.
fn anonymous_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Appends a row to the table, if one is asked for.
pub fn row(case: &str, outcome: &str, peak_kib: u64, took: Duration) {
    let Some(path) = std::env::var_os(TABLE) else { return };
    let peak_mib = peak_kib as f64 / 1024.0;
    let row = format!("| {case} | {outcome} | {peak_mib:.1} | {:.2} |\n", took.as_secs_f64());
    let mut file =
        fs::File::options().create(true).append(true).open(path).expect("the table can be written");
    file.write_all(row.as_bytes()).expect("the table can be written");
}
