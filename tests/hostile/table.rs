//! Every case with its outcome, as a table for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use super::watch::Peak;

/// The file that the table is written to, if this variable names one.
const FILE: &str = "RINGTIDE_HOSTILE_TABLE";

/// One line of the table.
pub struct Row {
    /// What was done to the download.
    pub name: &'static str,
    /// How it ended for who did it.
    pub outcome: String,
    /// The most memory the process had.
    pub peak: Peak,
    /// Bytes that came and were not needed.
    pub wasted: u64,
    /// From the start of the process to its end.
    pub elapsed: Duration,
}

/// Adds a row, and writes what there is so far, sorted by group and place: groups run at the same time.
pub fn add(group: &'static str, place: usize, row: Row) {
    static ROWS: Mutex<BTreeMap<(&str, usize), Row>> = Mutex::new(BTreeMap::new());
    let mut rows = ROWS.lock().expect("no thread panics with it");
    rows.insert((group, place), row);
    if let Some(path) = std::env::var_os(FILE) {
        fs::write(path, render(&rows)).expect("the table can be written");
    }
}

fn render(rows: &BTreeMap<(&str, usize), Row>) -> String {
    let mut text = String::from(
        "| group | case | what became of it | wasted, KiB | private memory, MiB | resident, MiB | time, s |\n\
         |---|---|---|---:|---:|---:|---:|\n",
    );
    for ((group, _), row) in rows {
        let Row { name, outcome, peak, wasted, elapsed } = row;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {group} | {name} | {outcome} | {} | {:.1} | {:.1} | {:.2} |",
            wasted / 1024,
            peak.anon as f64 / 1024.0,
            peak.resident as f64 / 1024.0,
            elapsed.as_secs_f64()
        );
    }
    text
}
