//! Small file systems: made, mounted where nobody else sees it, filled up, and gone with the test.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::panic;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::run;
use crate::common::process::wait_for;
use crate::common::workspace::temp_dir;

/// Bytes of an image: what xfs takes at least, and some. It is sparse.
const IMAGE_LEN: u64 = 320 << 20;

/// How long a file system may be in use after the last process that used it.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(30);

/// Bytes of a tmpfs.
const TMPFS_LEN: u64 = 96 << 20;

/// A kind of file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Ext4,
    Xfs,
    Btrfs,
    Tmpfs,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ext4, Self::Xfs, Self::Btrfs, Self::Tmpfs];

    /// Its name for `mount`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Tmpfs => "tmpfs",
        }
    }
}

/// Runs `test` on a thread whose mounts only it and its children see. They go when it ends, however it ends.
pub fn isolated<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    // The folder of all tests, and what clears it up, belong to the outside.
    drop(temp_dir("outside"));
    let isolated = || {
        enter_namespace();
        test()
    };
    thread::scope(|scope| scope.spawn(isolated).join()).unwrap_or_else(|panic| panic::resume_unwind(panic))
}

#[expect(unsafe_code, reason = "unshare is in no library")]
fn enter_namespace() {
    // SAFETY: a plain number. The thread gets a working folder and mounts of its own; nobody relies on their being shared.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    assert!(result == 0, "no mount namespace: {}; these tests need root", io::Error::last_os_error());
    run("mount", ["--make-rprivate", "/"]);
}

/// A mounted file system. Dropping it unmounts it.
pub struct Volume {
    kind: Kind,
    image: PathBuf,
    place: TempDir,
    /// Of the image, unless that belongs to somebody else.
    _home: Option<TempDir>,
}

impl Volume {
    /// A new file system of that kind.
    pub fn new(kind: Kind) -> Self {
        let home = temp_dir("image");
        let mut volume = Self::on(kind, home.path().join("image"));
        volume._home = Some(home);
        volume
    }

    /// A new file system in this file, which is made. A tmpfs has none.
    pub fn on(kind: Kind, image: PathBuf) -> Self {
        if kind != Kind::Tmpfs {
            File::create(&image).unwrap().set_len(IMAGE_LEN).unwrap();
            // ext4 would keep some room for root, who we are.
            let options: &[&str] = if kind == Kind::Ext4 { &["-q", "-F", "-m", "0"] } else { &["-q", "-f"] };
            let options = options.iter().map(OsStr::new);
            run(&format!("mkfs.{}", kind.name()), options.chain([image.as_os_str()]));
        }
        let volume = Self { kind, image, place: temp_dir("volume"), _home: None };
        volume.mount();
        volume
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Mounts it again after [`Volume::unmount`].
    pub fn mount(&self) {
        let place = self.path().as_os_str();
        if self.kind == Kind::Tmpfs {
            let size = format!("size={TMPFS_LEN}");
            let args = ["-t", "tmpfs", "-o", &size, "tmpfs"].map(str::as_ref);
            run("mount", args.into_iter().chain([place]));
        } else {
            let args = ["-t", self.kind.name(), "-o", "loop"].map(str::as_ref);
            run("mount", args.into_iter().chain([self.image.as_os_str(), place]));
        }
    }

    /// Unmounts it, which writes what can be written and forgets what was in memory.
    pub fn unmount(&self) {
        let unmount = || Command::new("umount").arg(self.path()).output().unwrap();
        // What has just ended may still be letting go of its files.
        let unmounted = wait_for(UNMOUNT_LIMIT, || unmount().status.success().then_some(()));
        assert!(unmounted.is_some(), "{:?}", unmount());
    }

    /// Has ext4 put itself in order, as after a crash. The others do that when they are mounted.
    pub fn repair(&self) {
        if self.kind == Kind::Ext4 {
            // Its exit code tells what it has repaired.
            let _ = Command::new("e2fsck").args(["-fy"]).arg(&self.image).output().unwrap();
        }
    }

    /// Gives a tmpfs another size.
    pub fn resize(&self, len: u64) {
        let size = format!("remount,size={len}");
        run("mount", ["-o".as_ref(), size.as_ref(), self.path().as_os_str()]);
    }

    /// Bytes that are used.
    pub fn used(&self) -> u64 {
        let text = run("df", ["--output=used".as_ref(), "-B1".as_ref(), self.path().as_os_str()]);
        text.lines().nth(1).unwrap().trim().parse().unwrap()
    }

    /// Takes all the room there is, but for `left` bytes or so.
    pub fn fill(&self, left: u64) {
        let text = run("df", ["--output=avail".as_ref(), "-B1".as_ref(), self.path().as_os_str()]);
        let room: u64 = text.lines().nth(1).unwrap().trim().parse().unwrap();
        let fillers = ["filler-1", "filler-2"].map(|name| File::create(self.path().join(name)).unwrap());
        let most = room.saturating_sub(left + (8 << 20)).max(4096).to_string();
        let filler = self.path().join("filler-1");
        run("fallocate", ["-l".as_ref(), most.as_ref(), filler.as_os_str()]);
        drop(fillers);
        if left > 0 {
            return;
        }
        let mut rest = OpenOptions::new().append(true).open(self.path().join("filler-2")).unwrap();
        for len in [1 << 20, 4096] {
            while rest.write_all(&vec![1; len]).is_ok() {}
        }
    }

    /// Gives back what [`Volume::fill`] took.
    pub fn unfill(&self) {
        for name in ["filler-1", "filler-2"] {
            fs::remove_file(self.path().join(name)).unwrap();
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily, as somebody may still be there. What fails here ends with the namespace.
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}
