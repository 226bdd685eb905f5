//! aria2c. It has no address filter, but as all the others have one, it finds nobody to complete from either.

use std::process::Command;

use super::{Crypto, Job};

pub fn command(job: &Job<'_>) -> Command {
    let mut command = Command::new("aria2c");
    command.arg("--no-conf").arg(format!("--dir={}", job.data.display()));
    // It listens on every address, but the tracker hears of it from this one.
    command.arg(format!("--interface={}", job.addr.ip()));
    command.arg(format!("--listen-port={}", job.addr.port()));
    command.arg(format!("--disable-ipv6={}", job.addr.is_ipv4()));
    command.args([
        "--enable-dht=false",
        "--enable-dht6=false",
        "--bt-enable-lpd=false",
        "--enable-peer-exchange=false",
        "--check-integrity=true",
        "--bt-hash-check-seed=true",
        "--seed-ratio=0.0",
        "--file-allocation=none",
        "--bt-max-peers=0",
        "--summary-interval=0",
        "--follow-torrent=false",
        "--console-log-level=notice",
        "--show-console-readout=false",
    ]);
    match job.crypto {
        Crypto::Any => {}
        Crypto::Handshake => drop(command.arg("--bt-require-crypto=true")),
        Crypto::Rc4 => drop(command.arg("--bt-force-encryption=true")),
    }
    command.arg("--torrent-file").arg(job.torrent);
    command
}
