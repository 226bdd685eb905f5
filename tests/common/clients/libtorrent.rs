//! arvidn's libtorrent, driven by a few lines of Python.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{Crypto, Job};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/clients/libtorrent_seeder.py");

const DHT_SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/clients/libtorrent_dht.py");

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
    match job.crypto {
        Crypto::Any => {}
        Crypto::Handshake => drop(command.arg("--encrypted=both")),
        Crypto::Rc4 => drop(command.arg("--encrypted=rc4")),
    }
    command
}

/// A DHT of so many sessions, the last of which seeds.
pub fn dht_command(count: usize, torrent: &Path, data: &Path) -> Command {
    let mut command = Command::new(python());
    command.args(["-W", "ignore", DHT_SCRIPT, &count.to_string()]).arg(torrent).arg(data);
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
