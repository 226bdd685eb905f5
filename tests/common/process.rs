//! Child processes that die with their owner.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::workspace;

/// How much of a log's end is printed when a test failed.
const LOG_TAIL_MAX: u64 = 8 * 1024;

/// How often a condition is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(10);

/// A child process with its output in a log file. Dropping it kills and reaps it; while a panic unwinds, the end of
/// the log is printed too.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with no input, its stdout and stderr in `log`.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> io::Result<Self> {
        let output = File::create(log)?;
        Self::spawn_with(name, command, output.try_clone()?, output, log)
    }

    /// Starts `command` with no input, its stdout and stderr in files of their own; the latter counts as its log.
    pub fn spawn_split(name: &str, command: &mut Command, stdout: &Path, stderr: &Path) -> io::Result<Self> {
        Self::spawn_with(name, command, File::create(stdout)?, File::create(stderr)?, stderr)
    }

    fn spawn_with(name: &str, command: &mut Command, out: File, err: File, log: &Path) -> io::Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn()?;
        workspace::child_started(child.id());
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), status: None })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("the child is ours to wait for");
            if self.status.is_some() {
                workspace::child_reaped(self.child.id());
            }
        }
        self.status
    }

    /// Kills it without asking and reaps it. Does nothing when it has ended.
    pub fn kill(&mut self) {
        if self.exited().is_none() {
            // It may end by itself in this moment: then there is nothing to kill.
            let _ = self.child.kill();
            self.status = self.child.wait().ok();
            workspace::child_reaped(self.child.id());
        }
    }

    /// The end of what it wrote so far.
    pub fn log_tail(&self) -> String {
        tail(&self.log).unwrap_or_else(|error| format!("(no log: {error})"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("---- end of the log of {} ----\n{}\n----", self.name, self.log_tail());
        }
    }
}

fn tail(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let len = fs::metadata(log)?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(LOG_TAIL_MAX)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Asks until `condition` gives a value or `limit` is over.
pub fn wait_for<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(POLL);
    }
}
