//! rtorrent without its screen. It refuses a torrent that names no tracker.

use std::fs;
use std::process::Command;

use super::{Crypto, Job};

pub fn command(job: &Job<'_>) -> Command {
    fs::create_dir_all(job.home.join("session")).expect("the session folder is made");
    let config = job.home.join("rtorrent.rc");
    fs::write(&config, settings(job)).expect("the configuration is written");
    let mut command = Command::new("rtorrent");
    command.arg("-n").arg("-o").arg(format!("import={}", config.display()));
    command.env("HOME", &job.home).env("TERM", "dumb");
    command
}

/// A torrent that is new to the session has the hashes of its files checked before it starts.
fn settings(job: &Job<'_>) -> String {
    let home = job.home.display();
    let mut settings = format!(
        "system.daemon.set = true\n\
         session.path.set = \"{home}/session\"\n\
         directory.default.set = \"{data}\"\n\
         network.bind_address.set = {ip}\n\
         network.port_range.set = {port}-{port}\n\
         network.port_random.set = no\n\
         dht.mode.set = disable\n\
         protocol.pex.set = no\n\
         protocol.encryption.set = {encryption}\n\
         trackers.use_udp.set = yes\n\
         pieces.hash.on_completion.set = no\n\
         pieces.preload.type.set = 0\n\
         throttle.global_up.max_rate.set_kb = 0\n\
         throttle.max_uploads.set = 100\n\
         throttle.max_uploads.global.set = 100\n\
         log.open_file = \"log\", /dev/stdout\n\
         log.add_output = \"info\", \"log\"\n\
         log.add_output = \"tracker_info\", \"log\"\n",
        data = job.data.display(),
        ip = job.addr.ip(),
        port = job.addr.port(),
        encryption = match job.crypto {
            Crypto::Any => "allow_incoming",
            Crypto::Handshake => "allow_incoming,require",
            Crypto::Rc4 => "allow_incoming,require,require_rc4",
        },
    );
    if !job.complete {
        settings += "ipv4_filter.add_address = 127.0.0.2/31, unwanted\n\
                     ipv4_filter.add_address = 127.0.0.4/31, unwanted\n";
    }
    settings + &format!("load.start = \"{}\"\n", job.torrent.display())
}
