//! What reaches the user: one kind of error for each thing a user can do something about, each with its exit code.
//!
//! Peers never appear here one by one: what a peer does wrong closes that peer (`net::close`), and only "nobody is
//! left to ask" is an error.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::disk::DiskError;
use crate::meta::bencode::ParseError;
use crate::meta::magnet::MagnetError;
use crate::meta::torrent::TorrentError;
use crate::meta::units::Bytes;
use crate::net::close::CloseReason;

/// Trackers whose failures are told one by one.
const TRACKERS_TOLD_MAX: usize = 3;

/// Why a command failed.
#[derive(Debug)]
pub enum Error {
    /// The command line makes no sense.
    Usage(String),
    /// The input cannot be read.
    Read {
        /// The file, or `-` for standard input.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The torrent at a URL cannot be had.
    Fetch {
        /// The URL, fit to be shown.
        url: String,
        /// What went wrong.
        why: String,
    },
    /// The input is larger than any torrent may be.
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its limit in bytes.
        max: u64,
    },
    /// The value is no bencode.
    Bencode(ParseError),
    /// The file is no usable torrent.
    Torrent {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: TorrentError,
    },
    /// The text is no link to a torrent that can be downloaded.
    Magnet(MagnetError),
    /// What a link names is no usable torrent, though it came with the right hash.
    Metadata(TorrentError),
    /// No peer has given what a link stands for; the text says what they said.
    NoMetadata(String),
    /// The output cannot be written to standard output.
    Stdout(io::Error),
    /// No tracker answered, or the torrent names none; the text says which and why.
    Tracker(String),
    /// The one peer that was asked for failed.
    Peer {
        /// Which.
        addr: SocketAddr,
        /// How.
        reason: CloseReason,
    },
    /// Nobody is left to ask.
    NoPeers {
        /// Bytes verified so far, and of how many.
        progress: Progress,
        /// What the trackers and the last peer said.
        detail: String,
    },
    /// Peers are there, but nothing has come for so long.
    Stalled {
        /// Bytes verified so far, and of how many.
        progress: Progress,
        /// For how long.
        after: Duration,
    },
    /// The output cannot be made or kept.
    Disk(DiskError),
    /// A file of the output holds something else than this torrent.
    NotOurs {
        /// The first such file.
        path: PathBuf,
        /// How many more there are.
        others: usize,
    },
    /// The user's port is not to be had.
    Port {
        /// Which.
        port: u16,
        /// What the system says.
        error: io::Error,
    },
    /// The kernel gives no ring.
    Uring(io::Error),
    /// The system gives no thread.
    Thread(io::Error),
    /// A task panicked: a bug in ringtide.
    Panicked,
    /// The user ended the download.
    Interrupted {
        /// The number of the signal.
        signal: i32,
        /// Bytes verified so far, and of how many.
        progress: Progress,
    },
}

/// How far a download got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes verified.
    pub done: u64,
    /// Bytes wanted.
    pub total: u64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.total == 0 {
            return f.write_str("what to download is not known yet");
        }
        write!(f, "{} of {} are verified", Bytes(self.done), Bytes(self.total))?;
        if self.done > 0 { write!(f, "; run the same command again to go on") } else { Ok(()) }
    }
}

impl Error {
    /// No tracker has answered: the URL and the reason of each that was asked. The first few are told; without any, the
    /// torrent names no tracker.
    pub fn no_tracker(failures: &[(String, impl fmt::Display)]) -> Self {
        if failures.is_empty() {
            return Self::Tracker("the torrent names no tracker".to_owned());
        }
        let told = failures.iter().take(TRACKERS_TOLD_MAX);
        let mut text: Vec<String> = told.map(|(url, error)| format!("{url}: {error}")).collect();
        if failures.len() > TRACKERS_TOLD_MAX {
            text.push(format!("and {} more", failures.len() - TRACKERS_TOLD_MAX));
        }
        Self::Tracker(format!("no tracker answered: {}", text.join("; ")))
    }

    /// The exit code as a word, for scripts.
    pub const fn kind(&self) -> &'static str {
        match self.exit_code() {
            1 => "input",
            2 => "usage",
            3 => "tracker",
            4 => "peers",
            5 => "output",
            6 => "system",
            101 => "bug",
            _ => "interrupted",
        }
    }

    /// How far the download got, where one was under way.
    pub const fn progress(&self) -> Option<Progress> {
        match self {
            Self::NoPeers { progress, .. }
            | Self::Stalled { progress, .. }
            | Self::Interrupted { progress, .. } => Some(*progress),
            _ => None,
        }
    }

    /// The exit code of the process: see the table in the README.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Read { .. }
            | Self::Fetch { .. }
            | Self::TooLarge { .. }
            | Self::Bencode(_)
            | Self::Torrent { .. }
            | Self::Magnet(_)
            | Self::Metadata(_)
            | Self::Stdout(_) => 1,
            Self::Usage(_) | Self::Port { .. } => 2,
            Self::Tracker(_) => 3,
            Self::Peer { .. } | Self::NoPeers { .. } | Self::NoMetadata(_) | Self::Stalled { .. } => 4,
            Self::Disk(_) | Self::NotOurs { .. } => 5,
            Self::Uring(_) | Self::Thread(_) => 6,
            // As Rust has it for a panic that ends the process.
            Self::Panicked => 101,
            // As shells have it: 130 for Ctrl-C, 143 for SIGTERM.
            Self::Interrupted { signal, .. } => 128 + *signal as u8,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) => f.write_str(text),
            Self::Tracker(text) => f.write_str(&without_numbers(text)),
            Self::Read { path, error } => write!(f, "cannot read {}: {}", path.display(), plain(error)),
            Self::Fetch { url, why } => write!(f, "cannot fetch {url}: {}", without_numbers(why)),
            Self::TooLarge { path, max } => {
                write!(f, "{} is larger than the {max} bytes that a torrent may have", path.display())
            }
            Self::Bencode(error) => write!(f, "not bencode: {error}"),
            Self::Torrent { path, error } => write!(f, "{} is no usable torrent: {error}", path.display()),
            Self::Magnet(error) => write!(f, "no usable magnet link: {error}"),
            Self::Metadata(error) => write!(f, "the link names no usable torrent: {error}"),
            Self::NoMetadata(detail) => {
                write!(f, "no peer gave the torrent's metadata: {}", without_numbers(detail))
            }
            Self::Stdout(error) => write!(f, "cannot write to standard output: {}", plain(error)),
            Self::Peer { addr, reason } => {
                write!(f, "peer {addr}: {}", without_numbers(&reason.to_string()))
            }
            Self::NoPeers { progress, detail } => {
                write!(f, "no peers left to ask: {}; {progress}", without_numbers(detail))
            }
            Self::Stalled { progress, after } => {
                write!(f, "nothing came from any peer for {} s; {progress}", after.as_secs())
            }
            Self::Disk(error) => f.write_str(&without_numbers(&error.to_string())),
            Self::NotOurs { path, others } => {
                write!(f, "{} already holds something else", path.display())?;
                match others {
                    0 => {}
                    1 => f.write_str(" (and so does one more file)")?,
                    others => write!(f, " (and so do {others} more files)")?,
                }
                f.write_str(
                    ": no piece of it belongs to this torrent; give another -o, or --overwrite to replace it",
                )
            }
            Self::Port { port, error } => write!(
                f,
                "cannot listen on port {port}: {}; give another --port, or 0 to listen nowhere",
                plain(error)
            ),
            Self::Uring(error) => write!(f, "io_uring is not available: {}", uring_advice(error)),
            Self::Thread(error) => write!(f, "cannot start a thread: {}", plain(error)),
            Self::Panicked => write!(f, "internal error, see the panic message above; please report it"),
            Self::Interrupted { progress, .. } => write!(f, "interrupted; {progress}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<DiskError> for Error {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

/// The system's words, in the manner of ours.
fn plain(error: &io::Error) -> String {
    without_numbers(&error.to_string()).to_lowercase()
}

/// A text without what Rust adds to the system's words: `(os error 2)`.
fn without_numbers(text: &str) -> String {
    let mut parts = text.split(" (os error ");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once(')').map_or("", |(_, rest)| rest));
    }
    plain
}

/// Which of the known reasons it is that the kernel gives no ring, and what to do about it.
fn uring_advice(error: &io::Error) -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (status, limits) = (read("/proc/self/status"), read("/proc/self/limits"));
    let word = |text: &str, name| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name));
        rest.and_then(|rest| rest.split_whitespace().next()).map(str::to_owned)
    };
    let around = Surroundings {
        sysctl: read("/proc/sys/kernel/io_uring_disabled").trim().to_owned(),
        has_seccomp: word(&status, "Seccomp:").is_some_and(|mode| mode != "0"),
        locked_max: word(&limits, "Max locked memory").and_then(|bytes| bytes.parse().ok()),
    };
    around.advice(error)
}

/// What decides whether the kernel gives a ring.
struct Surroundings {
    /// The value of `kernel.io_uring_disabled`; empty on kernels that lack it.
    sysctl: String,
    /// Whether a seccomp filter is in place.
    has_seccomp: bool,
    /// The bytes of memory that the user may lock, where there is a limit.
    locked_max: Option<u64>,
}

impl Surroundings {
    fn advice(&self, error: &io::Error) -> String {
        let cause = match error.raw_os_error() {
            // Since the kernel has the sysctl it has rings too, and does not answer so by itself.
            Some(libc::ENOSYS) if !self.has_seccomp || self.sysctl.is_empty() => {
                "this kernel has none that is of use (Linux 5.19 or newer is needed)".to_owned()
            }
            Some(libc::EPERM) if matches!(&*self.sysctl, "1" | "2") => format!(
                "the sysctl kernel.io_uring_disabled is {}; as root, 'sysctl kernel.io_uring_disabled=0' allows it",
                self.sysctl
            ),
            Some(libc::EPERM | libc::EACCES | libc::ENOSYS) if self.has_seccomp => {
                "a seccomp filter forbids it, as the default profiles of Docker and containerd do; run the container \
                 with a profile that allows io_uring_setup, io_uring_enter and io_uring_register, for example \
                 --security-opt seccomp=unconfined"
                    .to_owned()
            }
            Some(libc::ENOMEM) => format!(
                "the limit on locked memory is too low{}; raise it with 'ulimit -l 8192', or as root in \
                 /etc/security/limits.conf",
                self.locked_max.map(|bytes| format!(", {} KiB", bytes / 1024)).unwrap_or_default()
            ),
            Some(libc::EMFILE | libc::ENFILE) => {
                "too many files are open; raise the limit with 'ulimit -n 1024'".to_owned()
            }
            _ => "the kernel refuses it; see kernel.io_uring_disabled, seccomp and ulimit -l".to_owned(),
        };
        format!("{cause} ({})", plain(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_known_cause_of_a_missing_ring_is_named() {
        let because = |errno, sysctl: &str, has_seccomp| {
            let around = Surroundings { sysctl: sysctl.to_owned(), has_seccomp, locked_max: Some(65_536) };
            around.advice(&io::Error::from_raw_os_error(errno))
        };
        assert!(because(libc::ENOSYS, "", false).contains("Linux 5.19"));
        assert!(because(libc::ENOSYS, "", true).contains("Linux 5.19"));
        assert!(because(libc::ENOSYS, "0", true).contains("seccomp=unconfined"));
        assert!(
            because(libc::ENOMEM, "0", false).contains("too low, 64 KiB; raise it with 'ulimit -l 8192'")
        );
        assert!(because(libc::EMFILE, "0", false).contains("ulimit -n"));
        assert!(
            because(libc::EPERM, "1", false).contains("io_uring_disabled is 1; as root, 'sysctl kernel.")
        );
        assert!(because(libc::EPERM, "2", true).contains("kernel.io_uring_disabled is 2"));
        assert!(because(libc::EPERM, "0", true).contains("seccomp=unconfined"));
        assert!(because(libc::EPERM, "", true).contains("seccomp=unconfined"));
        assert!(because(libc::EPERM, "0", false).contains("refuses"));
        assert!(because(libc::EPERM, "0", false).ends_with("(operation not permitted)"));
    }

    #[test]
    fn trackers_are_told_one_by_one_up_to_a_limit() {
        let told = |count| {
            let failures: Vec<_> = (0..count).map(|n| (format!("u{n}"), "no (os error 9), none")).collect();
            Error::no_tracker(&failures).to_string()
        };
        assert_eq!(told(0), "the torrent names no tracker");
        assert_eq!(told(1), "no tracker answered: u0: no, none");
        assert_eq!(told(3), "no tracker answered: u0: no, none; u1: no, none; u2: no, none");
        assert!(told(5).ends_with("u2: no, none; and 2 more"));
    }

    #[test]
    fn a_signal_is_told_by_the_exit_code() {
        let progress = Progress { done: 0, total: 1 };
        assert_eq!(Error::Interrupted { signal: 2, progress }.exit_code(), 130);
        let terminated = Error::Interrupted { signal: 15, progress };
        assert_eq!((terminated.exit_code(), terminated.kind()), (143, "interrupted"));
        assert_eq!(terminated.progress(), Some(progress));
    }
}
