//! arvidn's libtorrent, driven by a few lines of Python.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Job;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/clients/libtorrent_seeder.py");

pub fn command(job: &Job<'_>) -> Command {
    let mut command = Command::new(python());
    command.arg(SCRIPT).arg(job.torrent).arg(job.data).arg(job.addr.to_string());
    if !job.complete {
        command.arg("--partial");
    }
    command
}

/// The first Python that has the binding, in the order in which `scripts/install_clients.sh` looks for it.
fn python() -> PathBuf {
    let venv = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .map(|cache| cache.join("ringtide/clients/bin/python3"));
    let candidates = [Some("python3".into()), Some("/usr/bin/python3".into()), venv];
    let has_binding = |python: &PathBuf| {
        let mut import = Command::new(python);
        import.args(["-c", "import libtorrent"]).stdout(Stdio::null()).stderr(Stdio::null());
        import.status().is_ok_and(|status| status.success())
    };
    let found = candidates.into_iter().flatten().find(has_binding);
    found.expect("a python3 that can import libtorrent; scripts/install_clients.sh installs it")
}
