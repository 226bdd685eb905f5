//! Serves a torrent as fast as it is taken: all requests that have come are answered with one gathered write.

use std::io::{self, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use memmap2::Mmap;
use ringtide::meta::bencode::Writer;
use ringtide::meta::geometry::{BLOCK_LEN, Block, Geometry};
use ringtide::swarm::bitfield::Bitfield;
use ringtide::wire::decoder::{Decoder, Event, Limits};
use ringtide::wire::extension;
use ringtide::wire::handshake::{self, Handshake};
use ringtide::wire::message::{self, Message, PieceHeader};

/// What a client sends instead of a handshake to be sent all blocks in order.
pub(crate) const STREAM: &[u8] = b"STREAM\n";
/// Blocks written at a time: two slices each, below the kernel's limit of 1024.
const BLOCKS_PER_WRITE: usize = 64;

/// What is served.
pub(crate) enum Payload {
    /// A file.
    File(Mmap),
    /// A block of zeros, again and again.
    Zeros(Box<[u8]>),
}

impl Payload {
    /// A torrent of zero bytes.
    pub(crate) fn zeros() -> Self {
        Self::Zeros(vec![0; BLOCK_LEN as usize].into())
    }

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

/// What there is to know of it.
pub(crate) struct Torrent {
    pub(crate) info_hash: [u8; 20],
    pub(crate) geometry: Geometry,
    pub(crate) payload: Payload,
}

/// Serves whoever connects.
pub(crate) fn accept(listener: &TcpListener, torrent: &Arc<Torrent>) -> io::Result<()> {
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
