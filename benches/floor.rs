//! The floor: the least that receiving and verifying a torrent can cost on this machine.
//!
//! One thread receives exactly the bytes that a peer sends (13-byte headers and 16 KiB blocks, in order) by blocking
//! scatter receives into a preallocated, mapped file, and hashes the pieces with the fastest lanes. No protocol, no
//! picking, no runtime.
//!
//! ```text
//! cargo bench --bench floor -- IP:PORT FILE.torrent OUT [METHOD] from benches/seeder.rs
//! cargo bench --bench floor -- IP:PORT FILE.torrent --discard    the sink: receive and throw away
//! cargo bench --bench floor                                      from a thread of this process
//! ```
//!
//! METHOD is `mmap`, or a way to write what was received into the same few MiB and verified there: `pwrite:LEN`, with
//! so many KiB a call (`16K`), or `uncached:LEN`, the same with `RWF_DONTCACHE`. The least of them is the floor where
//! memory is cold.
#![expect(clippy::print_stdout, reason = "a benchmark tells its figures")]
#![expect(unsafe_code, reason = "recvmsg, getrusage and mapped memory")]

use std::fs::File;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::str::FromStr;
use std::thread;
use std::time::Instant;

use memmap2::{Advice, MmapMut};
use ringtide::hash::{Message, digest_batch};
use ringtide::meta::geometry::{Geometry, PieceIndex};
use ringtide::meta::torrent::Metainfo;
use ringtide::wire::message::PieceHeader;

/// Blocks received in one call.
const BLOCKS_PER_RECEIVE: usize = 32;
/// Pieces hashed in one call: one a lane.
const PIECES_PER_BATCH: usize = 16;
/// Bytes of the measurement without arguments.
const LEN: u64 = 1 << 30;
const LEN_SMOKE: u64 = 16 << 20;

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => alone(),
        [addr, torrent, out] | [addr, torrent, out, "mmap"] => download(addr, torrent, out, None),
        [addr, torrent, out, method] => download(addr, torrent, out, Some(method.parse()?)),
        _ => Err(io::Error::other("usage: floor IP:PORT FILE.torrent OUT|--discard [METHOD]")),
    }
}

fn download(addr: &str, torrent: &str, out: &str, method: Option<Method>) -> io::Result<()> {
    let metainfo = Metainfo::parse(&std::fs::read(torrent)?).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(addr)?;
    stream.write_all(b"STREAM\n")?;
    if out == "--discard" {
        return discard(&stream);
    }
    let expected = |piece| *metainfo.piece_hash(piece);
    let file = create(out.as_ref())?;
    match method {
        None => receive(&stream, metainfo.geometry, &file, expected),
        Some(method) => receive_and_write(&stream, metainfo.geometry, &file, method, expected),
    }
}

/// How what was received is written.
#[derive(Clone, Copy)]
struct Method {
    /// Bytes a call.
    len: usize,
    /// Of `pwritev2`.
    flags: libc::c_int,
}

impl FromStr for Method {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        let method = || {
            let (name, len) = text.split_once(':')?;
            let len = len.strip_suffix('K')?.parse::<usize>().ok()? << 10;
            let flags = match name {
                "pwrite" => 0,
                "uncached" => libc::RWF_DONTCACHE,
                _ => return None,
            };
            (len > 0).then_some(Self { len, flags })
        };
        method().ok_or_else(|| io::Error::other(format!("'{text}' is not mmap, pwrite:16K or uncached:16K")))
    }
}

/// A new file that can be mapped.
fn create(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create_new(true).open(path)
}

/// Receives everything into the file and verifies it.
fn receive(
    stream: &TcpStream,
    geometry: Geometry,
    file: &File,
    expected: impl Fn(PieceIndex) -> [u8; 20],
) -> io::Result<()> {
    // SAFETY: the descriptor is open; the call touches no memory of this process.
    if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, geometry.total_len() as i64) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the file was just made and nobody else knows it.
    let mut map = unsafe { MmapMut::map_mut(file)? };
    // Not every file system has large folios; without them this is refused or does nothing.
    let _ = map.advise(Advice::HugePage);
    let mut headers = [[0u8; PieceHeader::LEN]; BLOCKS_PER_RECEIVE];
    let mut batch = Vec::with_capacity(PIECES_PER_BATCH);
    for piece in geometry.pieces() {
        receive_piece(stream, &geometry, piece, &mut map, 0, &mut headers)?;
        batch.push(piece);
        if batch.len() == PIECES_PER_BATCH || piece.get() + 1 == geometry.piece_count() {
            verify(&map, &geometry, &batch, 0, &expected)?;
            batch.clear();
        }
    }
    Ok(())
}

/// The same through memory of a batch of pieces, which is written from there.
fn receive_and_write(
    stream: &TcpStream,
    geometry: Geometry,
    file: &File,
    method: Method,
    expected: impl Fn(PieceIndex) -> [u8; 20],
) -> io::Result<()> {
    // SAFETY: as above.
    if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, geometry.total_len() as i64) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut memory = vec![0; PIECES_PER_BATCH * geometry.piece_len() as usize];
    let mut headers = [[0u8; PieceHeader::LEN]; BLOCKS_PER_RECEIVE];
    let pieces: Vec<PieceIndex> = geometry.pieces().collect();
    for batch in pieces.chunks(PIECES_PER_BATCH) {
        let start = geometry.piece_offset(batch[0]);
        for &piece in batch {
            receive_piece(stream, &geometry, piece, &mut memory, start, &mut headers)?;
        }
        verify(&memory, &geometry, batch, start, &expected)?;
        let len: usize = batch.iter().map(|&piece| geometry.piece_size(piece) as usize).sum();
        for (number, part) in memory[..len].chunks(method.len).enumerate() {
            write(file, part, start + (number * method.len) as u64, method.flags)?;
        }
    }
    Ok(())
}

fn write(file: &File, mut data: &[u8], mut at: u64, flags: libc::c_int) -> io::Result<()> {
    while !data.is_empty() {
        let part = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
        // SAFETY: the one part is `data`, which is only read and outlives the call.
        let n = unsafe { libc::pwritev2(file.as_raw_fd(), &raw const part, 1, at as i64, flags) };
        match usize::try_from(n) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => (data, at) = (&data[n..], at + n as u64),
            Err(_) => return Err(io::Error::last_os_error()),
        }
    }
    Ok(())
}

/// Receives a piece to its place in `memory`, which has the content from `start` on.
fn receive_piece(
    stream: &TcpStream,
    geometry: &Geometry,
    piece: PieceIndex,
    memory: &mut [u8],
    start: u64,
    headers: &mut [[u8; PieceHeader::LEN]; BLOCKS_PER_RECEIVE],
) -> io::Result<()> {
    let mut next = 0;
    while next < geometry.block_count(piece) {
        let mut segments =
            [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; 2 * BLOCKS_PER_RECEIVE];
        let (mut count, mut len) = (0, 0);
        for header in headers.iter_mut().take((geometry.block_count(piece) - next) as usize) {
            let block = geometry.block(piece, next);
            let at = (geometry.piece_offset(piece) - start + u64::from(block.begin)) as usize;
            let body = &mut memory[at..][..block.len as usize];
            segments[count] = libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: header.len() };
            segments[count + 1] = libc::iovec { iov_base: body.as_mut_ptr().cast(), iov_len: body.len() };
            count += 2;
            len += header.len() + body.len();
            next += 1;
        }
        // SAFETY: a msghdr of zeros is valid.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = segments.as_mut_ptr();
        message.msg_iovlen = count as _;
        // SAFETY: every segment is writable memory that nobody else refers to during the call.
        let n = unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut message, libc::MSG_WAITALL) };
        match usize::try_from(n) {
            Ok(n) if n == len => {}
            Ok(_) => return Err(io::Error::other("the stream ended early")),
            Err(_) => return Err(io::Error::last_os_error()),
        }
    }
    Ok(())
}

fn verify(
    memory: &[u8],
    geometry: &Geometry,
    batch: &[PieceIndex],
    start: u64,
    expected: impl Fn(PieceIndex) -> [u8; 20],
) -> io::Result<()> {
    let bytes = |piece: PieceIndex| {
        let at = (geometry.piece_offset(piece) - start) as usize;
        Message::from(&memory[at..][..geometry.piece_size(piece) as usize])
    };
    let messages: Vec<Message<'_>> = batch.iter().map(|&piece| bytes(piece)).collect();
    let mut digests = vec![[0; 20]; batch.len()];
    digest_batch(&messages, &mut digests);
    let right = batch.iter().zip(&digests).all(|(&piece, digest)| *digest == expected(piece));
    if right { Ok(()) } else { Err(io::Error::other("a piece differs from the torrent")) }
}

fn discard(stream: &TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        // SAFETY: the buffer is writable for its whole length.
        let n = unsafe { libc::recv(stream.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        match n {
            0 => return Ok(()),
            1.. => {}
            _ => return Err(io::Error::last_os_error()),
        }
    }
}

/// The measurement without arguments: a thread of this process sends zeros.
fn alone() -> io::Result<()> {
    let len = if std::env::var_os("RINGTIDE_BENCH_SMOKE").is_some() { LEN_SMOKE } else { LEN };
    let geometry = Geometry::new(len, 256 << 10).ok_or_else(|| io::Error::other("no geometry"))?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let stream = TcpStream::connect(listener.local_addr()?)?;
    let (mut sender, _) = listener.accept()?;
    thread::spawn(move || {
        let block = vec![0; PieceHeader::LEN + (16 << 10)];
        (0..len / (16 << 10)).try_for_each(|_| sender.write_all(&block))
    });
    let zeros = vec![0; geometry.piece_len() as usize];
    let mut digest = [[0; 20]];
    digest_batch(&[Message::from(&zeros[..])], &mut digest);
    let path = std::env::temp_dir().join(format!("ringtide-floor-{}", std::process::id()));
    let file = create(&path)?;
    std::fs::remove_file(&path)?;
    let (started, cpu) = (Instant::now(), thread_cpu()?);
    receive(&stream, geometry, &file, |_| digest[0])?;
    let gib = len as f64 / (1u64 << 30) as f64;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), thread_cpu()? - cpu);
    println!("floor: {:.3} CPU s/GiB, {:.0} MB/s", cpu / gib, len as f64 / 1e6 / seconds);
    Ok(())
}

/// User and system seconds of this thread.
fn thread_cpu() -> io::Result<f64> {
    // SAFETY: an rusage of zeros is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is writable.
    if unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(seconds(usage.ru_utime) + seconds(usage.ru_stime))
}
