//! Runs `ringtide` itself.
//!
//! `RINGTIDE_TEST_BACKEND` names the backend of all downloads. With `RINGTIDE_TEST_SECCOMP` io_uring is refused to them.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use super::confine;
use super::process::{Process, wait_for};
use super::workspace;

/// What a run of the program gave.
#[derive(Debug)]
pub struct Run {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Everything on stdout.
    pub stdout: String,
    /// Everything on stderr.
    pub stderr: String,
    /// From start to exit.
    pub elapsed: Duration,
}

impl Run {
    /// Asserts exit code 0 and exactly this text on stdout.
    #[track_caller]
    pub fn assert_prints(&self, stdout: &str) {
        assert!(
            self.code == Some(0) && self.stdout == stdout,
            "exit code {:?}, expected 0\nstdout:\n{}\nexpected:\n{stdout}\nstderr:\n{}",
            self.code,
            self.stdout,
            self.stderr
        );
    }
}

/// Runs the program with `args` to its end, which must come before `limit`.
#[track_caller]
pub fn ringtide<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>, limit: Duration) -> Run {
    ringtide_with(args, limit, |_| {})
}

/// The same, for a command that is `prepare`d further.
#[track_caller]
pub fn ringtide_with<S: AsRef<OsStr>>(
    args: impl IntoIterator<Item = S>,
    limit: Duration,
    prepare: impl FnOnce(&mut Command),
) -> Run {
    let dir = workspace::temp_dir("run");
    let (stdout, stderr) = (dir.path().join("stdout"), dir.path().join("stderr"));
    let args = confine::on_chosen_backend(args);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringtide"));
    command.args(&args).env_remove("RUST_LOG");
    confine::keep_to_this_machine(&mut command);
    prepare(&mut command);
    let is_refused = confine::refuse_where_asked(&mut command);
    let started = Instant::now();
    let mut process =
        Process::spawn_split("ringtide", &mut command, &stdout, &stderr).expect("ringtide starts");
    let status = wait_for(limit, || process.exited());
    let elapsed = started.elapsed();
    let Some(status) = status else { panic!("ringtide was still running after {limit:?}") };
    let text = |path| String::from_utf8_lossy(&fs::read(path).expect("the output is readable")).into_owned();
    let run = Run { code: status.code(), stdout: text(&stdout), stderr: text(&stderr), elapsed };
    if is_refused && confine::is_download(&args) && !args.contains(&"--backend".into()) {
        assert_eq!(run.stderr.matches("; using epoll instead\n").count(), 1, "stderr:\n{}", run.stderr);
    }
    run
}
