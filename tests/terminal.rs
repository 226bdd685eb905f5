//! What is shown on a terminal while a download runs, looked at as a terminal would show it: on a pseudo terminal that
//! changes its size, and wraps and unwraps lines as it does. And what is said of peers on demand.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(unused_macros, unused_imports, reason = "one of its parts is a macro for other tests")]
mod common;
mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::confine::keep_to_this_machine;
use common::process::wait_for;
use common::workspace::{child_reaped, child_started, temp_dir};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};
use support::content::Content;
use support::peer::{Peer, Script};
use support::program::ringtide;

const LIMIT: Duration = Duration::from_secs(20);

/// What stands on a terminal: lines as they were printed, each of which takes as many rows as it needs.
struct Screen {
    lines: Vec<String>,
    /// The cursor: which line, and which character of it.
    line: usize,
    at: usize,
    width: usize,
    /// The widest line that was printed, in cells beyond the last but one.
    overflows: Vec<String>,
}

impl Screen {
    fn new(width: usize) -> Self {
        Self { lines: vec![String::new()], line: 0, at: 0, width, overflows: Vec::new() }
    }

    fn print(&mut self, text: &str) {
        let mut rest = text;
        while let Some(char) = rest.chars().next() {
            if let Some(behind) = rest.strip_prefix("\x1b[J") {
                self.lines.truncate(self.line + 1);
                self.lines[self.line].truncate(self.at);
                rest = behind;
                continue;
            }
            rest = &rest[char.len_utf8()..];
            match char {
                '\r' => self.at -= self.at % self.width,
                '\n' => {
                    (self.line, self.at) = (self.line + 1, 0);
                    self.lines.resize(self.lines.len().max(self.line + 1), String::new());
                }
                _ => {
                    assert!((' '..='~').contains(&char), "{char:?} in {text:?}");
                    let line = &mut self.lines[self.line];
                    line.replace_range(self.at..(self.at + 1).min(line.len()), char.encode_utf8(&mut [0; 4]));
                    self.at += 1;
                    if self.at >= self.width && line.contains("% ") {
                        self.overflows.push(line.clone());
                    }
                }
            }
        }
    }

    /// What stands there, line by line.
    fn text(&self) -> String {
        self.lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
    }
}

/// The program on a terminal.
struct Terminal {
    child: Child,
    screen: Arc<Mutex<Screen>>,
    controller: OwnedFd,
}

impl Terminal {
    /// Starts a program on a terminal of that width.
    fn start(mut command: Command, width: u16) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap();
        let terminal = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let screen = Arc::new(Mutex::new(Screen::new(width.into())));
        resize(&controller, width);
        keep_to_this_machine(&mut command);
        command.env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::null()).stderr(terminal);
        let child = command.spawn().unwrap();
        child_started(child.id());
        // The terminal must have no other end than the child's, or its end is not seen.
        drop(command);
        let (mut output, shown) = (File::from(controller.try_clone().unwrap()), Arc::clone(&screen));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = output.read(&mut buffer) {
                shown.lock().unwrap().print(std::str::from_utf8(&buffer[..len]).unwrap());
            }
        });
        Self { child, screen, controller }
    }

    fn resize(&self, width: u16) {
        let mut screen = self.screen.lock().unwrap();
        resize(&self.controller, width);
        screen.width = width.into();
        screen.overflows.clear();
    }

    /// What stands there once that is part of it.
    #[track_caller]
    fn shows(&self, part: &str) -> String {
        let text = || self.screen.lock().unwrap().text();
        let found = wait_for(LIMIT, || Some(text()).filter(|text| text.contains(part)));
        found.unwrap_or_else(|| panic!("no {part:?} in\n{}", text()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(terminal: &OwnedFd, columns: u16) {
    let size = Winsize { ws_col: columns, ws_row: 24, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).unwrap();
    assert_eq!(tcgetwinsize(terminal).unwrap().ws_col, columns);
}

#[test]
fn the_bar_fits_the_terminal_and_leaves_nothing_behind() {
    let content = Content::single("terminal", 1 << 20, 256 << 10);
    let dir = temp_dir("terminal");
    content.torrent(&dir.path().join("t"), &[]);
    // What is missing stays missing.
    let peer = Peer::start(&content, Script { blocks_max: 20, ..Script::default() });
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringtide"));
    let peer = peer.addr.to_string();
    command.args(["download", "-v", "-o", "out", "--timeout", "7", "--peer", &peer, "t"]);
    command.current_dir(dir.path());
    let terminal = Terminal::start(command, 80);
    terminal.shows("1 of 1 peer sending");
    for width in [40, 25, 120, 33, 80] {
        terminal.resize(width);
        let inside = usize::from(width) - 1;
        let is_redrawn = || {
            let screen = terminal.screen.lock().unwrap();
            let bar = screen.lines.last()?;
            (bar.contains("25%") && bar.trim_end().len() <= inside).then_some(())
        };
        let redrawn = wait_for(LIMIT, is_redrawn);
        let screen = terminal.screen.lock().unwrap();
        assert!(redrawn.is_some() && screen.overflows.is_empty(), "at {width}:\n{}", screen.text());
        let bars = screen.lines.iter().filter(|line| line.contains("% ")).count();
        assert_eq!(bars, 1, "at {width}:\n{}", screen.text());
    }
    terminal.shows("stalled");
    terminal.shows("giving up in");
    let end = terminal.shows("run the same command again");
    assert!(!end.contains('%') || end.lines().filter(|line| line.contains("% ")).count() == 0, "{end}");
    assert!(end.contains("connected") && end.contains("unchokes us"), "{end}");
    assert!(end.contains("peer  ") && end.contains("useful"), "{end}");
}

#[test]
fn peers_are_told_on_demand() {
    let content = Content::single("peers", 1 << 20, 256 << 10);
    let dir = temp_dir("peers");
    content.torrent(&dir.path().join("t"), &[]);
    let peer = Peer::start(&content, Script { blocks_max: 20, ..Script::default() });
    let dead = "127.0.0.1:1";
    let args =
        ["download", "-o", "out", "--timeout", "3", "--peer", &peer.addr.to_string(), "--peer", dead, "t"];
    let running = ringtide(args).within(dir.path()).start();
    assert!(wait_for(LIMIT, || (peer.seen().blocks.len() >= 20).then_some(())).is_some());
    running.signal("USR1");
    let run = running.wait(LIMIT);
    assert_eq!(run.code, Some(4), "{}", run.stderr);
    let row = |addr: &str| {
        let rows = run.stderr.lines().filter(|line| line.starts_with(addr)).collect::<Vec<_>>();
        assert_eq!(rows.len(), 1, "{}", run.stderr);
        rows[0].split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>()
    };
    let seeder = row(&peer.addr.to_string());
    assert_eq!((seeder[1], seeder[2], seeder[4]), ("-XX0000-", "sending", "320.0 KiB"), "{seeder:?}");
    let refused = row(dead);
    assert_eq!((refused[1], refused[2]), ("-", "closed"), "{refused:?}");
    assert!(refused.last().unwrap().contains("refused"), "{refused:?}");
}

#[test]
fn a_second_signal_ends_it_although_nobody_reads_what_it_says() {
    let dir = temp_dir("unread");
    let (mut stderr, _unread) = UnixStream::pair().unwrap();
    stderr.set_nonblocking(true).unwrap();
    while stderr.write(b"x").is_ok() {}
    stderr.set_nonblocking(false).unwrap();
    // There is something to say of such a link at once, after which this waits for a reader.
    let link = format!("magnet:?xt=urn:btih:{}&so=0", "ab".repeat(20));
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringtide"));
    keep_to_this_machine(&mut command);
    command.args(["magnet_download", "-o", "out", &link]).current_dir(dir.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(OwnedFd::from(stderr));
    let mut child = command.spawn().unwrap();
    let id = child.id();
    child_started(id);
    let is_ready = wait_for(LIMIT, || catches_interrupts(id).then_some(()));
    thread::sleep(Duration::from_millis(300));
    let interrupt = || Command::new("kill").args(["-INT", &id.to_string()]).status().unwrap();
    interrupt();
    thread::sleep(Duration::from_millis(400));
    let was_waiting = child.try_wait().unwrap().is_none();
    interrupt();
    let ended = wait_for(Duration::from_secs(5), || child.try_wait().unwrap());
    let _ = child.kill();
    let _ = child.wait();
    child_reaped(id);
    assert!(is_ready.is_some() && was_waiting);
    assert_eq!(ended.map(|status| status.code()), Some(Some(130)));
}

/// Whether a process has something to do when it is interrupted.
fn catches_interrupts(id: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & 0b10 != 0)
}

#[test]
fn a_dumb_terminal_gets_no_bar() {
    let content = Content::single("dumb", 1 << 20, 256 << 10);
    let dir = temp_dir("dumb");
    content.torrent(&dir.path().join("t"), &[]);
    let peer = Peer::honest(&content).addr.to_string();
    let command = format!("TERM=dumb {} download -o out --peer {peer} t", env!("CARGO_BIN_EXE_ringtide"));
    let mut shell = Command::new("sh");
    shell.args(["-c", &command]).current_dir(dir.path());
    let terminal = Terminal::start(shell, 80);
    let text = terminal.shows("all verified");
    assert_eq!(text.trim().lines().count(), 1, "{text}");
}

#[test]
fn a_misspelt_filter_is_said() {
    for (filter, is_said) in [("debgu", true), ("ringtide=loud", true), ("debug", false), ("", false)] {
        let run = ringtide(["decode", "i1e"]).env("RUST_LOG", filter).run();
        assert_eq!(run.code, Some(0));
        assert_eq!(run.stderr.contains("RUST_LOG is"), is_said, "{filter}: {}", run.stderr);
    }
}
