//! The memory of a running process, as the kernel counts it.

use std::fs;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(2);

/// How the status of the program under test begins.
const NAME: &str = "Name:\tringtide\n";

/// The most memory that a process had, in KiB.
#[derive(Clone, Copy, Default, Debug)]
pub struct Peak {
    /// Private memory, that is without the pages of the output, which belong to the page cache.
    pub anon: u64,
    /// All pages, those of the mapped output among them.
    pub resident: u64,
}

/// Watches a process until it ends.
pub fn watch(pid: u32) -> JoinHandle<Peak> {
    thread::spawn(move || {
        let mut peak = Peak::default();
        // A process that has ended has no memory in its status, or no status.
        while let Some((anon, resident)) = look(pid) {
            peak.anon = peak.anon.max(anon);
            peak.resident = peak.resident.max(resident);
            thread::sleep(EVERY);
        }
        peak
    })
}

fn look(pid: u32) -> Option<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    // For a moment after the start it still has the memory of this process, and its name.
    if !status.starts_with(NAME) {
        return status.contains("RssAnon:").then_some((0, 0));
    }
    let kib = |key: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(key))?;
        value.split_whitespace().next()?.parse().ok()
    };
    Some((kib("RssAnon:")?, kib("VmHWM:")?))
}
