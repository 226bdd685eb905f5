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
use std::io::{self, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use memmap2::Mmap;
use ringtide::meta::bencode::Writer;
use ringtide::meta::geometry::{BLOCK_LEN, Block, Geometry};
use ringtide::meta::torrent::Metainfo;
use ringtide::swarm::bitfield::Bitfield;
use ringtide::wire::decoder::{Decoder, Event, Limits};
use ringtide::wire::extension;
use ringtide::wire::handshake::{self, Handshake};
use ringtide::wire::message::{self, Message, PieceHeader};

/// What a client sends instead of a handshake to be sent all blocks in order.
const STREAM: &[u8] = b"STREAM\n";
/// Blocks written at a time: two slices each, below the kernel's limit of 1024.
const BLOCKS_PER_WRITE: usize = 64;
/// Bytes served by the measurement without arguments.
const DRAIN_LEN: u64 = 1 << 30;
const DRAIN_LEN_SMOKE: u64 = 16 << 20;

enum Payload {
    File(Mmap),
    Zeros(Box<[u8]>),
}

impl Payload {
    fn bytes(&self, geometry: &Geometry, block: Block) -> &[u8] {
        match self {
            Self::File(map) => {
                let start = geometry.piece_offset(block.piece) + u64::from(block.begin);
                &map[start as usize..][..block.len as usize]
            }
            Self::Zeros(zeros) => &zeros[..block.len as usize],
        }
    }
}

struct Torrent {
    info_hash: [u8; 20],
    geometry: Geometry,
    payload: Payload,
}

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
        Payload::Zeros(vec![0; BLOCK_LEN as usize].into())
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

fn accept(listener: &TcpListener, torrent: &Arc<Torrent>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        let torrent = Arc::clone(torrent);
        // A client that goes away in the middle is the normal end of a connection.
        thread::spawn(move || drop(talk(stream, &torrent)));
    }
}

fn talk(mut stream: TcpStream, torrent: &Torrent) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut opening = [0; handshake::LEN];
    stream.read_exact(&mut opening[..STREAM.len()])?;
    if opening.starts_with(STREAM) {
        let blocks = torrent.geometry.pieces().flat_map(|piece| {
            (0..torrent.geometry.block_count(piece)).map(move |index| torrent.geometry.block(piece, index))
        });
        let mut writer = BlockWriter::new();
        return blocks
            .into_iter()
            .try_for_each(|block| writer.push(&mut stream, torrent, block))
            .and_then(|()| writer.flush(&mut stream, torrent));
    }
    stream.read_exact(&mut opening[STREAM.len()..])?;
    let theirs = Handshake::decode(&opening).map_err(io::Error::other)?;
    if theirs.info_hash != torrent.info_hash {
        return Err(io::Error::other("another torrent"));
    }
    greet(&mut stream, torrent, theirs)?;
    answer(&mut stream, torrent)
}

/// Handshake, extension handshake with a large request limit, bitfield, unchoke.
fn greet(stream: &mut TcpStream, torrent: &Torrent, theirs: Handshake) -> io::Result<()> {
    let mut out =
        Handshake::new(handshake::EXTENSION, torrent.info_hash, *b"-BS0001-benchseeder!").encode().to_vec();
    Message::Bitfield(&Bitfield::full(torrent.geometry.piece_count()).to_wire()).write(&mut out);
    if theirs.has(handshake::EXTENSION) {
        let mut offer = Vec::new();
        Writer::new(&mut offer).dict(|dict| {
            dict.key("m").dict(|_| {});
            dict.key("reqq").integer(2000);
        });
        message::write_extended(&mut out, extension::HANDSHAKE_ID, &offer);
    }
    Message::Unchoke.write(&mut out);
    stream.write_all(&out)
}

fn answer(stream: &mut TcpStream, torrent: &Torrent) -> io::Result<()> {
    let mut decoder = Decoder::new(Limits::of_pieces(torrent.geometry.piece_count()));
    let mut buffer = vec![0; 64 << 10];
    let mut writer = BlockWriter::new();
    loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        let mut bytes = &buffer[..n];
        while let Some(event) = decoder.next(&mut bytes).map_err(io::Error::other)? {
            if let Event::Message(Message::Request(raw)) = event {
                let block = torrent.geometry.check_block(raw.index, raw.begin, raw.len);
                writer.push(stream, torrent, block.map_err(|error| io::Error::other(error.to_string()))?)?;
            }
        }
        writer.flush(stream, torrent)?;
    }
}

/// Blocks waiting to be written together.
struct BlockWriter {
    blocks: Vec<Block>,
    headers: Vec<[u8; PieceHeader::LEN]>,
}

impl BlockWriter {
    fn new() -> Self {
        Self { blocks: Vec::with_capacity(BLOCKS_PER_WRITE), headers: Vec::with_capacity(BLOCKS_PER_WRITE) }
    }

    fn push(&mut self, stream: &mut TcpStream, torrent: &Torrent, block: Block) -> io::Result<()> {
        self.blocks.push(block);
        self.headers.push(PieceHeader::of(block).encode());
        if self.blocks.len() == BLOCKS_PER_WRITE { self.flush(stream, torrent) } else { Ok(()) }
    }

    fn flush(&mut self, stream: &mut TcpStream, torrent: &Torrent) -> io::Result<()> {
        let mut slices = Vec::with_capacity(2 * self.blocks.len());
        for (block, header) in self.blocks.iter().zip(&self.headers) {
            slices.push(IoSlice::new(header));
            slices.push(IoSlice::new(torrent.payload.bytes(&torrent.geometry, *block)));
        }
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            let n = stream.write_vectored(rest)?;
            IoSlice::advance_slices(&mut rest, n);
        }
        self.blocks.clear();
        self.headers.clear();
        Ok(())
    }
}

/// Streams zeros to a thread that throws them away, and prints the rate.
fn drain() -> io::Result<()> {
    let len = if std::env::var_os("RINGTIDE_BENCH_SMOKE").is_some() { DRAIN_LEN_SMOKE } else { DRAIN_LEN };
    let geometry = Geometry::new(len, 256 << 10).ok_or_else(|| io::Error::other("no geometry"))?;
    let payload = Payload::Zeros(vec![0; BLOCK_LEN as usize].into());
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
