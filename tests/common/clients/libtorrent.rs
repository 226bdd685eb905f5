//! arvidn's libtorrent, driven by a few lines of Python.

use std::process::{Command, Stdio};

use super::Job;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/clients/libtorrent_seeder.py");

pub fn command(job: &Job<'_>) -> Command {
    let mut command = Command::new(python());
    command.arg(SCRIPT).arg(job.torrent).arg(job.data).arg(job.addr.to_string());
    match job.friends {
        Some(friends) => {
            command.arg("--friends").args(friends.iter().map(ToString::to_string));
        }
        None if !job.complete => {
            command.arg("--partial");
        }
        None => {}
    }
    command
}

/// The first Python that has the binding, in the order in which `scripts/install_clients.sh` looks for it.
fn python() -> &'static str {
    let venv = concat!(env!("CARGO_MANIFEST_DIR"), "/target/clients/venv/bin/python3");
    let candidates = ["python3", "/usr/bin/python3", venv];
    let has_binding = |python: &&str| {
        let mut import = Command::new(python);
        import.args(["-c", "import libtorrent"]).stdout(Stdio::null()).stderr(Stdio::null());
        import.status().is_ok_and(|status| status.success())
    };
    let found = candidates.into_iter().find(has_binding);
    found.expect("a python3 that can import libtorrent; scripts/install_clients.sh installs it")
}
