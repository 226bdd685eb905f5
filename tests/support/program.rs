//! Runs the built program and looks at all that it says.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::common::confine;
use crate::common::process::wait_for;
use crate::common::workspace;

/// Whatever goes wrong, the program says so within this time.
pub const FAILURE_LIMIT: Duration = Duration::from_secs(30);

/// A run of the program to be started.
pub struct Program {
    command: Command,
    input: Vec<u8>,
}

/// A run of the program under way; dropping it kills it.
pub struct Running {
    child: Child,
    reaped: bool,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    started: Instant,
}

/// A run that has ended.
#[derive(Debug)]
pub struct Run {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Everything on stdout.
    pub stdout: Vec<u8>,
    /// Everything on stderr.
    pub stderr: String,
    /// From start to exit.
    pub elapsed: Duration,
}

/// The program under test with these arguments, its downloads on the backend that `RINGTIDE_TEST_BACKEND` names.
pub fn ringtide<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Program {
    Program::new(env!("CARGO_BIN_EXE_ringtide"), confine::on_chosen_backend(args))
}

impl Program {
    /// Any program.
    pub fn new<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = S>) -> Self {
        let mut command = Command::new(program);
        command.args(args).env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
        confine::keep_to_this_machine(&mut command);
        Self { command, input: Vec::new() }
    }

    /// In this working folder.
    pub fn within(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// With this variable in its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// With whatever else its start needs.
    pub fn prepared(mut self, prepare: impl FnOnce(&mut Command)) -> Self {
        prepare(&mut self.command);
        self
    }

    /// With these bytes on stdin.
    pub fn input(mut self, bytes: &[u8]) -> Self {
        self.input = bytes.to_vec();
        self
    }

    /// Starts it.
    pub fn start(mut self) -> Running {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", self.command));
        workspace::child_started(child.id());
        let (mut stdin, input) = (child.stdin.take().expect("stdin is piped"), self.input);
        // It may end without having read everything.
        thread::spawn(move || drop(stdin.write_all(&input)));
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (stdout, stderr) = (Some(collect(stdout)), Some(collect(stderr)));
        Running { child, reaped: false, stdout, stderr, started }
    }

    /// Runs it to its end, which must come before `limit`.
    #[track_caller]
    pub fn run_within(self, limit: Duration) -> Run {
        self.start().wait(limit)
    }

    /// Runs it to its end, which must come before [`FAILURE_LIMIT`].
    #[track_caller]
    pub fn run(self) -> Run {
        self.run_within(FAILURE_LIMIT)
    }
}

impl Running {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal by name, such as `INT`.
    pub fn signal(&self, name: &str) {
        let script = format!("kill -{name} {}", self.child.id());
        let status = Command::new("/bin/sh").args(["-c", &script]).status().expect("there is a shell");
        assert!(status.success(), "{script}");
    }

    /// Waits for its end, which must come before `limit` from now.
    #[track_caller]
    pub fn wait(mut self, limit: Duration) -> Run {
        let status = wait_for(limit, || self.exited());
        let elapsed = self.started.elapsed();
        let Some(status) = status else {
            self.kill();
            let stderr = self.stderr.take().map(joined).unwrap_or_default();
            panic!("still running after {limit:?}; stderr:\n{}", String::from_utf8_lossy(&stderr));
        };
        let stdout = self.stdout.take().map(joined).unwrap_or_default();
        let stderr = self.stderr.take().map(joined).unwrap_or_default();
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        assert_eq!(status.signal(), None, "ended by a signal; stderr:\n{stderr}");
        Run { code: status.code(), stdout, stderr, elapsed }
    }

    fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("the child is ours to wait for");
        if status.is_some() && !self.reaped {
            self.reaped = true;
            workspace::child_reaped(self.child.id());
        }
        status
    }

    /// Kills it without asking.
    pub fn kill(&mut self) {
        if self.exited().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.reaped = true;
            workspace::child_reaped(self.child.id());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Run {
    /// Asserts exit code 0 and exactly this on stdout.
    #[track_caller]
    pub fn assert_prints(&self, stdout: impl AsRef<[u8]>) {
        let stdout = stdout.as_ref();
        assert!(self.code == Some(0) && self.stdout == stdout, "{}", self.compared(0, stdout));
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }

    /// Asserts the exit code, nothing on stdout but the failure as JSON, if anything, and on stderr one line that
    /// begins with `ringtide: ` and contains `text`, but for lines of progress. Gives that line.
    #[track_caller]
    pub fn assert_fails(&self, code: i32, text: &str) -> &str {
        let json = || serde_json::from_slice::<serde_json::Value>(&self.stdout).ok();
        let is_told = self.stdout.is_empty() || json().is_some_and(|told| told["error"]["code"] == code);
        assert!(self.code == Some(code) && is_told, "{}", self.compared(code, b""));
        let is_progress = |line: &&str| line.starts_with("downloading ") || line.starts_with("checking ");
        let lines: Vec<&str> = self.stderr.lines().filter(|line| !is_progress(line)).collect();
        let [line] = lines[..] else { panic!("expected one line on stderr, got:\n{}", self.stderr) };
        assert!(line.starts_with("ringtide: ") && line.contains(text), "expected {text:?} in:\n{line}");
        assert!(self.stderr.ends_with('\n'), "the line has no end");
        for unwanted in ["panicked", "os error", "Os {", "Some(", "\u{1b}"] {
            assert!(!line.contains(unwanted), "{unwanted:?} in:\n{line}");
        }
        assert!(line.len() < 500, "a line of {} characters:\n{line}", line.len());
        assert!(self.elapsed < FAILURE_LIMIT, "it took {:?}", self.elapsed);
        line
    }

    fn compared(&self, code: i32, stdout: &[u8]) -> String {
        let mut text = format!("exit code {:?}, expected {code}\n", self.code);
        let _ = write!(
            text,
            "---- stdout\n{}\n---- expected\n{}\n---- stderr\n{}\n----",
            String::from_utf8_lossy(&self.stdout),
            String::from_utf8_lossy(stdout),
            self.stderr
        );
        text
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe can be read");
        bytes
    })
}

fn joined(thread: JoinHandle<Vec<u8>>) -> Vec<u8> {
    thread.join().expect("the reader does not panic")
}

/// A pipe whose reading end is closed already.
pub fn broken_pipe() -> Stdio {
    let (reader, writer) = io::pipe().expect("there are pipes");
    drop(reader);
    writer.into()
}

/// One of several things that a test looks at: its name, and what to run.
pub type Case<'a> = (&'a str, Box<dyn FnOnce() + Send + 'a>);

/// A case.
pub fn case<'a>(name: &'a str, run: impl FnOnce() + Send + 'a) -> Case<'a> {
    (name, Box::new(run))
}

/// Runs every case on a thread of its own, as most of their time is waiting. The name of a case that panics is told.
pub fn in_parallel(cases: Vec<Case<'_>>) {
    let failed: Vec<&str> = thread::scope(|scope| {
        let running: Vec<_> = cases.into_iter().map(|(name, case)| (name, scope.spawn(case))).collect();
        running.into_iter().filter_map(|(name, case)| case.join().is_err().then_some(name)).collect()
    });
    assert!(failed.is_empty(), "failed: {failed:?}");
}
