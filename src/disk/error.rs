//! Why the output cannot be made or kept: one variant for each thing a user can do something about.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use crate::meta::names::REFUSED_BY_WINDOWS;

/// A failure of the output. Every path is as the user can find it: the `-o` path with the file's own below it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskError {
    /// The folder in which the output was to be made does not exist.
    FolderMissing {
        /// That folder.
        folder: PathBuf,
    },
    /// Something that is not a folder stands where a folder is needed.
    NotAFolder {
        /// Where it stands.
        path: PathBuf,
    },
    /// A folder stands where a file is needed.
    IsAFolder {
        /// Where it stands.
        path: PathBuf,
    },
    /// A pipe, a device or a socket stands where a file is needed.
    NotAFile {
        /// Where it stands.
        path: PathBuf,
    },
    /// A symbolic link stands inside the output folder, or the output itself is a link to nothing.
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// The name is empty, leads out of the output folder, lies too deep in it or cannot be a file's.
    BadName {
        /// The name as asked for.
        path: PathBuf,
    },
    /// The file system takes no name of this length.
    NameTooLong {
        /// The name as asked for.
        path: PathBuf,
    },
    /// The file system takes no name with some character of this one.
    NameRefused {
        /// The name as asked for.
        path: PathBuf,
    },
    /// The system denies the right to write there.
    Denied {
        /// Where.
        path: PathBuf,
    },
    /// The system denies the right to read what is there.
    Unreadable {
        /// The file.
        path: PathBuf,
    },
    /// The file system is mounted read-only.
    ReadOnly {
        /// Where.
        path: PathBuf,
    },
    /// There is not enough room for the content.
    NoSpace {
        /// What did not fit: the `-o` path, or a file of it.
        path: PathBuf,
        /// Bytes that still have to be reserved or written.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// There is no room for one more name.
    FolderFull {
        /// What could not be made.
        path: PathBuf,
    },
    /// The disk had room when the download began and has none left. Where many bytes are free all the same, what the
    /// file system lies on (a thin volume, an image on another file system) is full.
    Full {
        /// The file that cannot be written.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
    },
    /// The user's quota is used up.
    Quota {
        /// The file that did not fit.
        path: PathBuf,
        /// The bytes that it was to get.
        len: u64,
    },
    /// The file system cannot hold a file of this length.
    FileTooBig {
        /// The file.
        path: PathBuf,
        /// The bytes it needs.
        len: u64,
    },
    /// This process may not make files so long (`RLIMIT_FSIZE`).
    FileLimit {
        /// The file.
        path: PathBuf,
        /// The bytes it needs.
        len: u64,
        /// The bytes that are allowed.
        limit: u64,
    },
    /// A file is there already and is longer than the torrent's.
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        found: u64,
        /// The bytes of the torrent's file.
        expected: u64,
    },
    /// Two files of the torrent are one file on the disk (a hard link, or a file system that folds case).
    SameFile {
        /// The second of them.
        path: PathBuf,
    },
    /// Another process is writing this output, or a file of it.
    Busy {
        /// The `-o` path, or the file.
        path: PathBuf,
    },
    /// A file of the output is the one that the torrent was read from.
    IsTheTorrent {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else has changed a file, or a folder, after it was opened.
    Changed {
        /// Which.
        path: PathBuf,
        /// How.
        change: Change,
    },
    /// The file system was writable when the download began. Many turn themselves read-only when the disk fails.
    TurnedReadOnly {
        /// What cannot be written any more.
        path: PathBuf,
    },
    /// The disk, or the way to it, fails (EIO).
    Failing {
        /// What was being done, to complete "cannot ...".
        action: &'static str,
        /// To what.
        path: PathBuf,
    },
    /// What came could not be written to the map, and nothing tells why.
    Unwritable {
        /// The file, or the `-o` path.
        path: PathBuf,
    },
    /// The file system does not let its files be mapped for writing.
    NotMappable {
        /// The file.
        path: PathBuf,
    },
    /// The user wishes for the end ([`crate::os::stop`]).
    Stopped,
    /// This process may have no further map, or no more address space.
    NoMaps {
        /// The file.
        path: PathBuf,
    },
    /// The files do not add up to the content.
    WrongTotal {
        /// The bytes of all files.
        files: u64,
        /// The bytes of the content.
        content: u64,
    },
    /// Anything else the system answered.
    Io {
        /// What was being done, to complete "cannot ...".
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's error number; 0 where there is none.
        errno: i32,
    },
}

/// What has become of a file or folder that was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Its name is gone.
    Removed,
    /// Something else has its name.
    Replaced,
    /// Others have written to it, and something of it is wrong since.
    Written,
    /// It has another length.
    Resized {
        /// Its bytes.
        found: u64,
        /// The bytes it had.
        expected: u64,
    },
}

/// What is being done when a name is refused.
const MAKING: [&str; 2] = ["make", "make the folder"];

impl DiskError {
    /// Bytes that are free on a disk which still counts as full: file systems keep some for themselves, and large pages
    /// take room as a whole.
    pub(super) const FULL_BELOW: u64 = 4 << 20;

    /// The variant for what the system answered to `action` on `path`. Callers who know more about a number (what
    /// ENOENT or ENOSPC means there) look at it first.
    pub fn new(action: &'static str, path: &Path, err: &io::Error) -> Self {
        let path = path.to_path_buf();
        match err.raw_os_error().unwrap_or(0) {
            libc::EACCES | libc::EPERM => Self::Denied { path },
            libc::EROFS => Self::ReadOnly { path },
            libc::EIO => Self::Failing { action, path },
            libc::ENOTDIR => Self::NotAFolder { path },
            libc::EISDIR => Self::IsAFolder { path },
            libc::ENXIO => Self::NotAFile { path },
            libc::ELOOP => Self::Symlink { path },
            libc::ENAMETOOLONG => Self::NameTooLong { path },
            libc::ENOSPC => Self::FolderFull { path },
            libc::EINVAL if path.as_os_str().as_encoded_bytes().contains(&0) => Self::BadName { path },
            libc::EINVAL | libc::EILSEQ if MAKING.contains(&action) => Self::NameRefused { path },
            libc::ECANCELED => Self::Stopped,
            errno => Self::Io { action, path, errno },
        }
    }

    /// Whether other names might be taken where these were not.
    pub const fn is_of_names(&self) -> bool {
        matches!(self, Self::NameTooLong { .. } | Self::NameRefused { .. } | Self::SameFile { .. })
    }

    /// What is told where there is no room.
    fn fmt_room(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSpace { path, needed, free } => {
                write!(
                    f,
                    "not enough room for {}: it needs {needed} more bytes, {free} are free",
                    path.display()
                )
            }
            Self::FolderFull { path } => {
                write!(f, "the file system has no room for one more name: {}", path.display())
            }
            Self::Full { path, free } if *free < Self::FULL_BELOW => write!(
                f,
                "the disk is full: {free} bytes are free, and {} needs more; make room and run the same command again",
                path.display()
            ),
            Self::Full { path, free } => write!(
                f,
                "the disk has no room for {}, although its file system counts {free} bytes as free; make room in what \
                 it lies on",
                path.display()
            ),
            Self::Quota { path, len } => {
                write!(f, "your disk quota is used up: it has no room for {len} bytes of {}", path.display())
            }
            Self::FileTooBig { path, len } => {
                write!(f, "the file system of {} cannot hold a file of {len} bytes", path.display())
            }
            Self::FileLimit { path, len, limit } => write!(
                f,
                "{} needs {len} bytes, and this process may not make files longer than {limit} (see ulimit -f)",
                path.display()
            ),
            Self::NoMaps { path } => write!(
                f,
                "cannot map {}: the process may take no more of its address space, or have no further map (see ulimit -v \
                 and the sysctl vm.max_map_count); --io pwrite needs neither",
                path.display()
            ),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FolderMissing { folder } => {
                write!(
                    f,
                    "the folder {} does not exist, make it first or choose another output",
                    folder.display()
                )
            }
            Self::NotAFolder { path } => write!(f, "{} is not a folder", path.display()),
            Self::IsAFolder { path } => write!(f, "{} is a folder, expected a file", path.display()),
            Self::NotAFile { path } => {
                write!(f, "{} is a pipe, device or socket, expected a file", path.display())
            }
            Self::Symlink { path } => {
                write!(f, "{} is a symbolic link, which is not followed", path.display())
            }
            Self::BadName { path } => write!(f, "{:?} cannot be the name of an output file", path.display()),
            Self::NameTooLong { path } => {
                write!(f, "the name {} is too long for the file system", path.display())
            }
            Self::NameRefused { path } => fmt_refused(path, f),
            Self::Denied { path } => write!(f, "no permission to write {}", path.display()),
            Self::Unreadable { path } => write!(f, "no permission to read {}", path.display()),
            Self::ReadOnly { path } => write!(f, "{} is on a read-only file system", path.display()),
            Self::NoSpace { .. }
            | Self::FolderFull { .. }
            | Self::Full { .. }
            | Self::Quota { .. }
            | Self::FileTooBig { .. }
            | Self::FileLimit { .. }
            | Self::NoMaps { .. } => self.fmt_room(f),
            Self::TooLong { path, found, expected } => write!(
                f,
                "{} exists and has {found} bytes where the torrent's file has {expected}, use --overwrite to replace it",
                path.display()
            ),
            Self::SameFile { path } => {
                write!(f, "{} is the same file on the disk as another one of the torrent", path.display())
            }
            Self::Busy { path } => write!(f, "another process is writing {}", path.display()),
            Self::IsTheTorrent { path } => {
                write!(f, "{} is the torrent file itself, choose another output", path.display())
            }
            Self::Changed { path, change } => write!(f, "{} {change} during the download", path.display()),
            Self::TurnedReadOnly { path } => write!(
                f,
                "the file system of {} has become read-only, as many do when the disk fails",
                path.display()
            ),
            Self::Failing { action, path } => {
                write!(f, "cannot {action} {}: the disk fails (input/output error)", path.display())
            }
            Self::Unwritable { path } => {
                write!(f, "{} can no longer be written, and the system does not say why", path.display())
            }
            Self::Stopped => f.write_str("interrupted"),
            Self::NotMappable { path } => write!(
                f,
                "the file system of {} does not support mapping files for writing, use --io pwrite",
                path.display()
            ),
            Self::WrongTotal { files, content } => {
                write!(f, "the files have {files} bytes, expected the content's {content}")
            }
            Self::Io { action, path, errno: 0 } => write!(f, "cannot {action} {}", path.display()),
            Self::Io { action, path, errno } => {
                write!(f, "cannot {action} {}: {}", path.display(), io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

/// What is told of a name that a file system refuses: the characters that it is known to be about.
fn fmt_refused(path: &Path, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let mut refused: Vec<char> = name.chars().filter(|char| REFUSED_BY_WINDOWS.contains(*char)).collect();
    refused.sort_unstable();
    refused.dedup();
    let refused: Vec<String> = refused.into_iter().map(|char| format!("'{char}'")).collect();
    if refused.is_empty() {
        return write!(f, "the file system refuses to make {}, perhaps for its name", path.display());
    }
    write!(f, "the file system takes no file of the name {}: it has {}", path.display(), refused.join(", "))
}

impl std::error::Error for DiskError {}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed => f.write_str("was removed"),
            Self::Replaced => f.write_str("was replaced by something else"),
            Self::Written => f.write_str("was written to by another program"),
            Self::Resized { found, expected } => {
                let how = if found < expected { "cut short" } else { "made longer" };
                write!(f, "was {how} (it has {found} bytes, expected {expected})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_name_is_told_with_what_is_known_of_it() {
        let refusal = |action, path: &str| {
            let invalid = io::Error::from_raw_os_error(libc::EINVAL);
            DiskError::new(action, Path::new(path), &invalid)
        };
        let told = |path| refusal("make", path).to_string();
        assert_eq!(told("o?/b:a?:"), "the file system takes no file of the name o?/b:a?:: it has ':', '?'");
        assert_eq!(told("o/con"), "the file system refuses to make o/con, perhaps for its name");
        assert!(refusal("make the folder", "a:").is_of_names() && !refusal("open", "a:").is_of_names());
    }
}
