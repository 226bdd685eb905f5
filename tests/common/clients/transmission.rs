//! transmission-daemon.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use super::{Crypto, Job};

pub fn command(job: &Job<'_>) -> Command {
    let watched = job.home.join("watched");
    fs::create_dir_all(&watched).expect("the watched folder is made");
    fs::copy(job.torrent, watched.join("job.torrent")).expect("the metainfo file is copied");
    let blocklists = job.home.join("blocklists");
    fs::create_dir_all(&blocklists).expect("the folder of blocklists is made");
    fs::write(blocklists.join("others"), "others:127.0.0.2-127.0.0.5\n").expect("the blocklist is written");
    fs::write(job.home.join("settings.json"), settings(job)).expect("the settings are written");
    let mut command = Command::new("transmission-daemon");
    command.args(["--foreground", "--log-info", "--config-dir"]).arg(&job.home);
    command.arg("--download-dir").arg(job.data);
    // A new torrent whose files exist is checked and then started.
    command.arg("--watch-dir").arg(&watched);
    command
}

/// Everything that would limit an upload or reach beyond the loopback is off.
fn settings(job: &Job<'_>) -> String {
    let (v4, v6) = match job.addr {
        SocketAddr::V4(addr) => (addr.ip().to_string(), "::1".to_owned()),
        SocketAddr::V6(addr) => ("127.0.0.1".to_owned(), addr.ip().to_string()),
    };
    format!(
        r#"{{
    "bind-address-ipv4": "{v4}",
    "bind-address-ipv6": "{v6}",
    "peer-port": {port},
    "peer-port-random-on-start": false,
    "port-forwarding-enabled": false,
    "rpc-enabled": false,
    "dht-enabled": false,
    "lpd-enabled": false,
    "pex-enabled": false,
    "utp-enabled": false,
    "encryption": {encryption},
    "upload-slots-per-torrent": 100,
    "peer-limit-per-torrent": 100,
    "speed-limit-up-enabled": false,
    "blocklist-enabled": {filtered},
    "ratio-limit-enabled": false,
    "idle-seeding-limit-enabled": false,
    "preallocation": 0,
    "rename-partial-files": false,
    "incomplete-dir-enabled": false,
    "watch-dir-enabled": true
}}
"#,
        port = job.addr.port(),
        filtered = !job.complete,
        // It has no way to insist on RC4, and takes it where it can.
        encryption = if job.crypto == Crypto::Any { 0 } else { 2 },
    )
}
