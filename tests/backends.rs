//! Downloads on either backend, and on machines that refuse io_uring in one of the known ways.
//!
//! What the machine of the test itself refuses is found out by asking for io_uring, so that the tests say the same on
//! all machines: where io_uring is to be had it is used without a word, and elsewhere epoll is, with one warning.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(unused_macros, unused_imports, reason = "one of its parts is a macro for other tests")]
mod common;
mod support;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::confine::{IO_URING, Refused, as_ordinary_user, limit_locked_memory, refuse};
use common::process::wait_for;
use common::workspace::temp_dir;
use serde_json::Value;
use support::content::Content;
use support::peer::{Peer, Script};
use support::program::{FAILURE_LIMIT, Program, Run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ringtide");

/// The warning ends so where a ring is not to be had.
const FALLEN_BACK: &str = "; using epoll instead";

/// So many entries has the ring that shows whether there are rings; those of the cores have more.
const PROBED_ENTRIES: u32 = 16;

fn content() -> Content {
    Content::single("backends", (8 << 20) + 12_345, 256 << 10)
}

/// Downloads `content` into `out` below `dir` with these options besides.
fn download(program: &Path, dir: &Path, content: &Content, peer: &Peer, options: &[&str]) -> Program {
    content.torrent(&dir.join("t"), &[]);
    let peer = peer.addr.to_string();
    let args = ["download", "--json", "-o", "out", "--peer", &peer, "t"];
    Program::new(program, args.iter().chain(options)).within(dir)
}

/// Downloads on a machine made by `prepare`, looks at every byte, and tells the backend and the warnings.
#[track_caller]
fn succeed(options: &[&str], prepare: impl FnOnce(&mut Command)) -> (String, Vec<String>) {
    let (content, dir) = (content(), temp_dir("backends"));
    let peer = Peer::honest(&content);
    let run = download(Path::new(PROGRAM), dir.path(), &content, &peer, options).prepared(prepare).run();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(fs::read(dir.path().join("out")).unwrap() == *content.bytes, "the content differs");
    peer.assert_pleased();
    (backend(&run), warnings(&run))
}

/// Fails to download on a machine made by `prepare`, without a trace, and tells why.
#[track_caller]
fn fail(options: &[&str], prepare: impl FnOnce(&mut Command)) -> String {
    let (content, dir) = (content(), temp_dir("backends"));
    let peer = Peer::honest(&content);
    let run = download(Path::new(PROGRAM), dir.path(), &content, &peer, options).prepared(prepare).run();
    let text = run.assert_fails(6, "ringtide: io_uring is not available: ").to_owned();
    assert!(!dir.path().join("out").exists(), "it left an output");
    assert_eq!(peer.seen().connections, 0);
    text
}

fn backend(run: &Run) -> String {
    let summary: Value = serde_json::from_slice(&run.stdout).unwrap();
    summary["backend"].as_str().unwrap().to_owned()
}

fn warnings(run: &Run) -> Vec<String> {
    run.stderr.lines().filter(|line| line.starts_with("ringtide: ")).map(str::to_owned).collect()
}

/// Asserts that there is one warning, of which cause and fix contain this.
#[track_caller]
fn assert_fell_back((backend, warnings): &(String, Vec<String>), cause: &str) {
    assert_eq!(backend, "epoll");
    let [warning] = &warnings[..] else { panic!("expected one warning, got {warnings:?}") };
    assert!(warning.starts_with("ringtide: io_uring is not available: "), "{warning}");
    assert!(warning.ends_with(FALLEN_BACK) && warning.contains(cause), "expected {cause:?} in: {warning}");
    assert!(!warning.contains("os error"), "{warning}");
}

#[test]
fn where_io_uring_is_refused_a_download_warns_once_and_runs_on_epoll() {
    let [setup, enter, register] = IO_URING;
    let cases: [(&[Refused], i32, &str); 5] = [
        (&IO_URING, libc::EPERM, "(operation not permitted)"),
        (&IO_URING, libc::ENOSYS, "(function not implemented)"),
        (&[setup], libc::ENOMEM, "raise it with 'ulimit -l 8192'"),
        (&[enter], libc::EPERM, "(operation not permitted)"),
        // As a kernel answers that is too old for what is needed.
        (&[register], libc::EINVAL, "(function not implemented)"),
    ];
    for (calls, errno, cause) in cases {
        assert_fell_back(&succeed(&[], |command| refuse(command, calls, errno)), cause);
        let auto = ["--backend", "auto", "--threads", "1"];
        assert_fell_back(&succeed(&auto, |command| refuse(command, calls, errno)), cause);
    }
}

#[test]
fn a_filter_is_named_with_what_to_do_about_it() {
    let refuse = |command: &mut Command| refuse(command, &IO_URING, libc::EPERM);
    let sysctl = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let fix = match sysctl.trim() {
        "1" | "2" => "sysctl kernel.io_uring_disabled=0",
        _ => "--security-opt seccomp=unconfined",
    };
    assert_fell_back(&succeed(&[], refuse), fix);
    let text = fail(&["--backend", "uring"], refuse);
    assert!(text.contains(fix) && !text.contains("epoll"), "{text}");
}

#[test]
fn a_ring_that_is_refused_after_the_probe_leads_to_epoll_too() {
    let large = (libc::SYS_io_uring_setup, PROBED_ENTRIES + 1);
    let refuse = |command: &mut Command| refuse(command, &[large], libc::EPERM);
    assert_fell_back(&succeed(&[], refuse), "(operation not permitted)");
    fail(&["--backend", "uring"], refuse);
}

#[test]
fn epoll_that_is_asked_for_needs_neither_io_uring_nor_a_warning() {
    let epoll = ["--backend", "epoll"];
    let expected = ("epoll".to_owned(), Vec::new());
    assert_eq!(succeed(&epoll, |_| {}), expected);
    assert_eq!(succeed(&epoll, |command| refuse(command, &IO_URING, libc::EPERM)), expected);
    assert_eq!(succeed(&["--backend", "epoll", "--io", "pwrite"], |_| {}), expected);
}

#[test]
fn a_quiet_download_falls_back_without_a_word() {
    let (backend, warnings) = succeed(&["-q"], |command| refuse(command, &IO_URING, libc::EPERM));
    assert_eq!((&*backend, warnings.len()), ("epoll", 0));
}

#[test]
fn a_map_that_the_kernel_cannot_write_to_ends_the_download() {
    // A single piece, so that nothing is read before the end.
    let content = Content::single("cut", 16 << 20, 16 << 20);
    for backend in ["auto", "epoll"] {
        let dir = temp_dir("backends");
        let script = Script { block_after: Duration::from_millis(5), ..Script::default() };
        let peer = Peer::start(&content, script);
        let options = ["-q", "--io", "mmap", "--backend", backend];
        let running = download(Path::new(PROGRAM), dir.path(), &content, &peer, &options).start();
        let begun = || (peer.seen().blocks.len() > 20).then_some(());
        wait_for(FAILURE_LIMIT, begun).expect("the download begins");
        File::options().write(true).open(dir.path().join("out")).unwrap().set_len(0).unwrap();
        running.wait(FAILURE_LIMIT).assert_fails(5, "ringtide: ");
        assert!(peer.seen().blocks.len() < 1024, "all of it was fetched on {backend}");
    }
}

#[test]
fn a_single_piece_is_downloaded_on_epoll() {
    let (content, dir) = (content(), temp_dir("backends"));
    content.torrent(&dir.path().join("t"), &[]);
    for (backend, index) in [("epoll", 0), ("auto", content.piece_count() - 1)] {
        let peer = Peer::honest(&content);
        let (addr, number) = (peer.addr.to_string(), index.to_string());
        let args = [
            "download_piece",
            "--backend",
            backend,
            "--overwrite",
            "-o",
            "out",
            "--peer",
            &addr,
            "t",
            &number,
        ];
        let program = Program::new(PROGRAM, args).within(dir.path());
        let run = program.prepared(|command| refuse(command, &IO_URING, libc::EPERM)).run();
        run.assert_prints(format!("Piece {index} downloaded to out.\n"));
        assert!(fs::read(dir.path().join("out")).unwrap() == content.piece(index), "the piece differs");
        assert_eq!(warnings(&run).len(), usize::from(backend == "auto"), "{}", run.stderr);
    }
}

/// A folder that any user may use, with the program and a torrent.
struct Home {
    dir: tempfile::TempDir,
    content: Content,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        // Not by this process: a file that it has open for writing cannot be run, and a child that another test starts
        // meanwhile would have it open.
        let copied = Command::new("cp").arg(PROGRAM).arg(dir.path().join("ringtide")).status().unwrap();
        assert!(copied.success());
        Self { dir, content: content() }
    }

    /// Downloads as an ordinary user who may lock so many bytes.
    fn download(&self, locked_max: Option<u64>, backend: &str) -> Run {
        let (dir, peer) = (self.dir.path(), Peer::honest(&self.content));
        let options = ["--overwrite", "--threads", "2", "--backend", backend];
        let program = download(&dir.join("ringtide"), dir, &self.content, &peer, &options);
        let confine = |command: &mut Command| {
            as_ordinary_user(command);
            if let Some(bytes) = locked_max {
                limit_locked_memory(command, bytes);
            }
        };
        let run = program.prepared(confine).run();
        if run.code == Some(0) {
            assert!(fs::read(dir.join("out")).unwrap() == *self.content.bytes, "the content differs");
        }
        run
    }

    /// Downloads in the same way with and without a choice of the backend. Tells whether there was a ring.
    fn has_ring(&self, locked_max: Option<u64>, cause: &str) -> bool {
        let asked = self.download(locked_max, "uring");
        let run = self.download(locked_max, "auto");
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        if asked.code == Some(0) {
            assert_eq!((&*backend(&run), warnings(&run).len()), ("uring", 0), "{}", run.stderr);
            return true;
        }
        asked.assert_fails(6, cause);
        assert_fell_back(&(backend(&run), warnings(&run)), cause);
        false
    }
}

#[test]
fn an_ordinary_user_needs_to_lock_no_more_than_64_kib() {
    let home = Home::new();
    if home.has_ring(None, "io_uring is not available") {
        assert!(home.has_ring(Some(64 << 10), ""), "rings of that size are not to be had");
        // Some kernels charge a ring to the limit, some do not.
        home.has_ring(Some(0), "locked memory is too low, 0 KiB");
    }
}
