//! A seeder that is never the bottleneck: it answers requests from a mapped file with one gathered write for all that
//! have come, and does nothing else.
//!
//! ```text
//! cargo bench --bench seeder -- --listen 127.0.0.1:7000 FILE.torrent PAYLOAD     serve a file (several addresses: commas)
//! cargo bench --bench seeder -- --listen 127.0.0.1:7000 FILE.torrent --zeros     serve a torrent of zero bytes
//! cargo bench --bench seeder                                                     measure how fast it can be drained
//! ```
//!
//! A connection that opens with `STREAM\n` instead of a handshake gets every block of the torrent in order, headers
//! included: the byte stream that the floor (`benches/floor.rs`) and the sink receive.
#![expect(clippy::print_stdout, reason = "a benchmark tells its figures")]

use std::fs::File;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use memmap2::Mmap;
use ringtide::meta::geometry::{BLOCK_LEN, Geometry};
use ringtide::meta::torrent::Metainfo;
use ringtide::wire::message::PieceHeader;

use serving::{Payload, STREAM, Torrent, accept};

#[path = "common/serving.rs"]
mod serving;

/// Bytes served by the measurement without arguments.
const DRAIN_LEN: u64 = 1 << 30;
const DRAIN_LEN_SMOKE: u64 = 16 << 20;

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => drain(),
        ["--listen", addr, torrent, payload] => serve(addr, torrent, payload),
        _ => Err(io::Error::other("usage: seeder --listen IP:PORT FILE.torrent PAYLOAD|--zeros")),
    }
}

#[expect(unsafe_code, reason = "mapping a file")]
fn serve(addr: &str, torrent: &str, payload: &str) -> io::Result<()> {
    let metainfo = Metainfo::parse(&std::fs::read(torrent)?).map_err(io::Error::other)?;
    let payload = if payload == "--zeros" {
        Payload::zeros()
    } else {
        let file = File::open(PathBuf::from(payload))?;
        // SAFETY: nobody changes the payload while the benchmark runs.
        Payload::File(unsafe { Mmap::map(&file)? })
    };
    let torrent = Arc::new(Torrent { info_hash: metainfo.info_hash.0, geometry: metainfo.geometry, payload });
    let listeners = addr.split(',').map(TcpListener::bind).collect::<io::Result<Vec<_>>>()?;
    println!("listening on {addr}");
    thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(|| accept(listener, &torrent));
        }
    });
    Ok(())
}

/// Streams zeros to a thread that throws them away, and prints the rate.
fn drain() -> io::Result<()> {
    let len = if std::env::var_os("RINGTIDE_BENCH_SMOKE").is_some() { DRAIN_LEN_SMOKE } else { DRAIN_LEN };
    let geometry = Geometry::new(len, 256 << 10).ok_or_else(|| io::Error::other("no geometry"))?;
    let payload = Payload::zeros();
    let torrent = Arc::new(Torrent { info_hash: [0; 20], geometry, payload });
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    thread::spawn(move || accept(&listener, &torrent));
    let mut stream = TcpStream::connect(addr)?;
    stream.write_all(STREAM)?;
    let started = Instant::now();
    let received = io::copy(&mut stream, &mut io::sink())?;
    let seconds = started.elapsed().as_secs_f64();
    let expected = len + len / u64::from(BLOCK_LEN) * PieceHeader::LEN as u64;
    if received != expected {
        return Err(io::Error::other(format!("{received} bytes came, {expected} were to come")));
    }
    println!("seeder: a sink drains {:.0} MB/s", received as f64 / 1e6 / seconds);
    Ok(())
}
