//! A FUSE file system that fails when it is told to.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::common::process::{Process, wait_for};
use crate::common::workspace::temp_dir;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/faulty_fs.py");

/// How long it may take to be mounted.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// The mounted file system. What is in it lies in a folder on the disk.
pub struct Faulty {
    process: Process,
    place: TempDir,
    lower: TempDir,
    _home: TempDir,
}

impl Faulty {
    /// Mounts one that is empty and sound.
    pub fn mount() -> Self {
        let (place, lower, home) = (temp_dir("fuse"), temp_dir("lower"), temp_dir("fuse-home"));
        let mut command = Command::new(python());
        command.arg(SCRIPT).arg(lower.path()).arg(place.path());
        let process =
            Process::spawn("the faulty file system", &mut command, &home.path().join("log")).unwrap();
        let mut faulty = Self { process, place, lower, _home: home };
        fs::write(faulty.lower.path().join("probe"), "").unwrap();
        let probe = faulty.path().join("probe");
        let mounted = wait_for(READY_LIMIT, || {
            let log = faulty.process.log_tail();
            assert!(faulty.process.exited().is_none(), "FUSE does not work here: {log}");
            fs::exists(&probe).unwrap_or(false).then_some(())
        });
        assert!(mounted.is_some(), "it is not mounted:\n{}", faulty.process.log_tail());
        fs::remove_file(probe).unwrap();
        faulty
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Lets operations fail: see the script. Without any it is sound again.
    pub fn set_faults(&self, faults: &str) {
        // At once: it may be read at any moment.
        let (draft, file) = (self.lower.path().join("faults.new"), self.lower.path().join("faults"));
        fs::write(&draft, faults).unwrap();
        fs::rename(draft, file).unwrap();
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

/// The first Python that has the binding, in the order in which `scripts/install_clients.sh` looks for it.
fn python() -> &'static str {
    let has_binding = |python: &&str| {
        let mut import = Command::new(python);
        import.args(["-c", "import fusepy"]).stdout(Stdio::null()).stderr(Stdio::null());
        import.status().is_ok_and(|status| status.success())
    };
    let found = ["python3", "/usr/bin/python3"].into_iter().find(has_binding);
    found.expect("a python3 that can import fusepy; scripts/install_clients.sh installs it")
}
