//! The most anonymous memory that a process has had, and the table of what hostile counterparts came to.
//!
//! Anonymous memory is what the process has allocated; the pages of mapped files belong to the page cache.

use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What no hostile counterpart may make of it.
pub const MEMORY_MAX_KIB: u64 = 64 * 1024;

/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(5);

/// The variable that names the file to which rows of the table are appended.
const TABLE: &str = "RINGTIDE_HOSTILE_TABLE";

/// The columns of the table.
const HEAD: &str = "| group | case | what became of it | wasted, KiB | private memory, MiB | resident, MiB | time, s |\n\
    |---|---|---|---:|---:|---:|---:|\n";

/// The most memory that a process had, in KiB.
#[derive(Clone, Copy, Default, Debug)]
pub struct Peak {
    /// Without the pages of files.
    pub anonymous_kib: u64,
    /// With them.
    pub resident_kib: u64,
}

/// A process that is being looked at.
pub struct Watch {
    is_over: Arc<AtomicBool>,
    peak: JoinHandle<Peak>,
}

impl Watch {
    /// Looks at that process, which runs the program under test, until it is gone or [`Watch::peak`] is called.
    pub fn start(pid: u32) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let peak = thread::spawn(move || {
            let mut peak = Peak::default();
            while let Some(now) = look(pid).filter(|_| !over.load(Ordering::Relaxed)) {
                peak.anonymous_kib = peak.anonymous_kib.max(now.anonymous_kib);
                peak.resident_kib = peak.resident_kib.max(now.resident_kib);
                thread::sleep(EVERY);
            }
            peak
        });
        Self { is_over, peak }
    }

    /// The most that was seen.
    pub fn peak(self) -> Peak {
        self.is_over.store(true, Ordering::Relaxed);
        self.peak.join().expect("looking does not panic")
    }
}

/// `None` where there is no such process, or only what is left of it before its parent has noticed.
fn look(pid: u32) -> Option<Peak> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    // A new process is let go of by its parent a moment before it gives up the parent's memory, and gets its name after.
    if !status.starts_with("Name:\tringtide\n") {
        return Some(Peak::default());
    }
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    Some(Peak { anonymous_kib: kib("RssAnon:")?, resident_kib: kib("VmHWM:")? })
}

/// What became of a case.
pub struct Row {
    /// What was done to the program.
    pub case: String,
    /// How that ended.
    pub outcome: String,
    /// Bytes that came and were not needed, where that was counted.
    pub wasted: Option<u64>,
    /// The most memory the process had.
    pub peak: Peak,
    /// From the start of the process to its end.
    pub elapsed: Duration,
}

/// Appends a row to the table, if one is asked for.
pub fn add(group: &str, row: &Row) {
    /// Held while the table is written, as its first row comes with the head.
    static WRITING: Mutex<()> = Mutex::new(());
    let Some(path) = std::env::var_os(TABLE) else { return };
    let Row { case, outcome, wasted, peak, elapsed } = row;
    let line = format!(
        "| {group} | {case} | {outcome} | {} | {:.1} | {:.1} | {:.2} |\n",
        wasted.map_or("-".to_owned(), |bytes| (bytes / 1024).to_string()),
        peak.anonymous_kib as f64 / 1024.0,
        peak.resident_kib as f64 / 1024.0,
        elapsed.as_secs_f64()
    );
    let _writing = WRITING.lock().expect("nobody panics with it");
    let mut file =
        fs::File::options().create(true).append(true).open(path).expect("the table can be written");
    let head = if file.metadata().is_ok_and(|it| it.len() == 0) { HEAD } else { "" };
    file.write_all((head.to_owned() + &line).as_bytes()).expect("the table can be written");
}

/// Appends a row in which waste was not counted.
pub fn row(group: &str, case: &str, outcome: &str, peak: Peak, elapsed: Duration) {
    add(group, &Row { case: case.to_owned(), outcome: outcome.to_owned(), wasted: None, peak, elapsed });
}
