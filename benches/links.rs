//! Long, fat links: how much of a link of 100 MB/s one peer fills, at round trips up to 300 ms.
//!
//! ```text
//! cargo bench --bench links                    1 GiB at 1, 20, 100 and 300 ms
//! cargo bench --bench links -- 50 200          at other round trips, in milliseconds
//! ```
//!
//! The program downloads zeros from a seeder in this process through the relay of the tests, which delays and caps what
//! passes. The time goes from the first blocks to the last byte, both as they leave the link towards the program, so
//! the window's growth counts and the start of the program does not. The relay ends the TCP connections: what is seen
//! is the window of requests, not that of the kernel.
#![expect(clippy::print_stdout, reason = "a benchmark tells its figures")]

use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ringtide::hash::{Message, digest_batch};
use ringtide::meta::bencode::Writer;
use ringtide::meta::geometry::BLOCK_LEN;
use ringtide::meta::torrent::Metainfo;

use relay::{Link, Passage, Relay, Way};
use serving::{Payload, Torrent, accept};

#[path = "../tests/common/relay.rs"]
#[expect(unreachable_pub, reason = "it is a part of the tests")]
mod relay;
#[path = "common/serving.rs"]
#[expect(dead_code, reason = "a part of it serves files")]
mod serving;

/// Bytes a second of the link.
const RATE: u64 = 100_000_000;
const RTTS_MS: &[u64] = &[1, 20, 100, 300];
const RTTS_MS_SMOKE: &[u64] = &[20];
const LEN: u64 = 1 << 30;
const LEN_SMOKE: u64 = 16 << 20;
const PIECE_LEN: u64 = 256 << 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let chosen: Vec<u64> = args.map(|arg| arg.parse()).collect::<Result<_, _>>()?;
    let is_smoke = std::env::var_os("RINGTIDE_BENCH_SMOKE").is_some();
    let (len, usual) = if is_smoke { (LEN_SMOKE, RTTS_MS_SMOKE) } else { (LEN, RTTS_MS) };
    let rtts_ms = if chosen.is_empty() { usual } else { &chosen };

    let folder = std::env::var_os("TMPDIR").map_or_else(|| "/var/tmp".into(), PathBuf::from);
    let folder = tempfile::Builder::new().prefix("ringtide-links-").tempdir_in(folder)?;
    let torrent = folder.path().join("zeros.torrent");
    fs::write(&torrent, zeros(len))?;
    let seeder = seed(&fs::read(&torrent)?)?;
    if !is_smoke {
        // A virtual machine's memory can be slow to touch for the first time. This run pays for the page cache.
        download(&torrent, seeder, Link::default())?;
    }
    println!("links: {} MiB over {} MB/s, one peer", len >> 20, RATE / 1_000_000);
    println!("{:>8} {:>10} {:>8} {:>8}", "RTT", "seconds", "MB/s", "of link");
    for &rtt_ms in rtts_ms {
        let delay = Duration::from_micros(rtt_ms * 500);
        let passages = download(&torrent, seeder, Link { delay, up: Some(RATE), down: Some(RATE) })?;
        let seconds = transfer_time(&passages).ok_or("no block came")?.as_secs_f64();
        let rate = len as f64 / seconds;
        let share = 100.0 * rate / RATE as f64;
        println!("{rtt_ms:>5} ms {seconds:>8.2} s {:>8.1} {share:>6.1} %", rate / 1e6);
        io::stdout().flush()?;
    }
    Ok(())
}

/// Downloads the torrent from the seeder over such a link; what passed the link's near end.
fn download(torrent: &Path, seeder: SocketAddr, link: Link) -> io::Result<Vec<Passage>> {
    let relay = Relay::start(seeder, link)?;
    let output = torrent.with_extension("out");
    let status = Command::new(env!("CARGO_BIN_EXE_ringtide"))
        .args(["download", "-q", "--json", "--peer", &relay.addr.to_string(), "-o"])
        .args([&output, torrent])
        .stdout(std::process::Stdio::null())
        .status()?;
    if !status.success() {
        return Err(io::Error::other(format!("ringtide failed: {status}")));
    }
    fs::remove_file(&output)?;
    Ok(relay.passages())
}

/// From the first chunk that is large enough for blocks to the last one.
fn transfer_time(passages: &[Passage]) -> Option<Duration> {
    let mut down = passages.iter().filter(|passage| passage.way == Way::Down);
    let first = down.find(|passage| passage.bytes >= BLOCK_LEN as usize)?;
    let last = down.next_back().unwrap_or(first);
    Some(last.at - first.at)
}

/// A torrent of zeros, without a tracker.
fn zeros(len: u64) -> Vec<u8> {
    let piece = vec![0; PIECE_LEN as usize];
    let mut digest = [[0; 20]];
    digest_batch(&[Message::from(&piece[..])], &mut digest);
    let mut torrent = Vec::new();
    Writer::new(&mut torrent).dict(|dict| {
        dict.key("info").dict(|info| {
            info.key("length").integer(len);
            info.key("name").bytes("zeros");
            info.key("piece length").integer(PIECE_LEN);
            info.key("pieces").bytes(digest[0].repeat((len / PIECE_LEN) as usize));
        });
    });
    torrent
}

/// Seeds it from threads of this process.
fn seed(torrent: &[u8]) -> Result<SocketAddr, Box<dyn std::error::Error>> {
    let metainfo = Metainfo::parse(torrent)?;
    let torrent =
        Torrent { info_hash: metainfo.info_hash.0, geometry: metainfo.geometry, payload: Payload::zeros() };
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    thread::spawn(move || accept(&listener, &Arc::new(torrent)));
    Ok(addr)
}
