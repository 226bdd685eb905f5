//! One connection of a scripted peer, from the moment it is accepted.

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::peer::Turn;
use crate::support::content::Content;

/// Bytes of a full block.
pub const BLOCK_LEN: usize = 16 * 1024;

/// The ids of the messages that the scripts name.
pub mod id {
    pub const CHOKE: u8 = 0;
    pub const UNCHOKE: u8 = 1;
    pub const INTERESTED: u8 = 2;
    pub const HAVE: u8 = 4;
    pub const BITFIELD: u8 = 5;
    pub const REQUEST: u8 = 6;
    pub const PIECE: u8 = 7;
    pub const SUGGEST: u8 = 13;
    pub const HAVE_ALL: u8 = 14;
    pub const HAVE_NONE: u8 = 15;
    pub const REJECT: u8 = 16;
    pub const ALLOWED_FAST: u8 = 17;
    pub const EXTENDED: u8 = 20;
}

/// The reserved bit of the fast extension, in the last of the eight bytes.
pub const FAST: u64 = 0x04;
/// The reserved bit of the extension protocol.
pub const EXTENSION: u64 = 0x10_00_00;

/// The longest message that the other side has reason to send.
const MESSAGE_LEN_MAX: usize = 64 * 1024;

/// A script that waits for the other side to leave gives up after so long without a byte from it.
const PATIENCE: Duration = Duration::from_secs(90);

/// A connection. The other side is the program under test.
pub struct Line {
    /// What the peer pretends to have.
    pub content: Content,
    /// The handshake of the other side, once it was read.
    pub theirs: [u8; 68],
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    turn: Arc<Turn>,
}

/// A request that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    pub piece: usize,
    pub begin: usize,
    pub len: usize,
}

impl Line {
    pub fn new(stream: TcpStream, content: Content, turn: Arc<Turn>) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let reader = BufReader::new(stream.try_clone()?);
        Ok(Self { content, theirs: [0; 68], stream, reader, turn })
    }

    /// Tells the gate that this peer has done its thing: the honest ones may begin.
    pub fn turn_is_over(&self) {
        self.turn.end();
    }

    /// Waits until all hostile peers have done their thing.
    pub fn await_gate(&self) {
        self.turn.await_gate();
    }

    /// Reads the other side's handshake.
    pub fn read_handshake(&mut self) -> io::Result<()> {
        self.reader.read_exact(&mut self.theirs)
    }

    /// Exchanges handshakes; ours has these reserved bits.
    pub fn shake_hands(&mut self, reserved: u64) -> io::Result<()> {
        self.read_handshake()?;
        let hello = self.handshake(reserved);
        self.raw(&hello)
    }

    /// A proper handshake with these reserved bits.
    pub fn handshake(&self, reserved: u64) -> Vec<u8> {
        let mut hello = b"\x13BitTorrent protocol".to_vec();
        hello.extend(reserved.to_be_bytes());
        hello.extend(self.content.info_hash);
        hello.extend(b"-XX0000-");
        // Its port makes a peer id that no other has.
        let port = self.stream.local_addr().map_or(0, |addr| addr.port());
        hello.extend(format!("{port:012}").bytes());
        hello
    }

    /// Exchanges handshakes and tells that all pieces are there, and that requests are answered.
    pub fn open(&mut self) -> io::Result<()> {
        self.shake_hands(0)?;
        self.have_everything()?;
        self.send(id::UNCHOKE, &[])
    }

    /// Tells that all pieces are there.
    pub fn have_everything(&mut self) -> io::Result<()> {
        let bits = self.bitfield();
        self.send(id::BITFIELD, &bits)
    }

    /// The bits of a peer that has all pieces.
    pub fn bitfield(&self) -> Vec<u8> {
        let count = self.content.piece_count();
        let mut bits = vec![0; count.div_ceil(8)];
        (0..count).for_each(|piece| bits[piece / 8] |= 0x80 >> (piece % 8));
        bits
    }

    /// Sends bytes, whatever they are.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a message.
    pub fn send(&mut self, id: u8, payload: &[u8]) -> io::Result<()> {
        self.raw(&message(id, payload))
    }

    /// Sends the same bytes again and again, `total` of them at most, for as long as the other side is there.
    pub fn flood(&mut self, bytes: &[u8], total: usize) -> io::Result<()> {
        let chunk = bytes.repeat((64 * 1024_usize).div_ceil(bytes.len()));
        for _ in 0..total.div_ceil(chunk.len()) {
            self.raw(&chunk)?;
        }
        Ok(())
    }

    /// The next request; what comes before it is ignored.
    pub fn ask(&mut self) -> io::Result<Ask> {
        loop {
            if let Some((&id::REQUEST, rest)) = self.message()?.split_first()
                && let (words, []) = rest.as_chunks::<4>()
                && let &[piece, begin, len] = words
            {
                let [piece, begin, len] = [piece, begin, len].map(|word| u32::from_be_bytes(word) as usize);
                return Ok(Ask { piece, begin, len });
            }
        }
    }

    /// The next message, without its length.
    pub fn message(&mut self) -> io::Result<Vec<u8>> {
        let mut len = [0; 4];
        self.reader.read_exact(&mut len)?;
        let len = u32::from_be_bytes(len) as usize;
        assert!(len <= MESSAGE_LEN_MAX, "the program sends a message of {len} bytes");
        let mut message = vec![0; len];
        self.reader.read_exact(&mut message)?;
        Ok(message)
    }

    /// Whether more of what the other side has sent is here already.
    pub fn has_buffered(&self) -> bool {
        !self.reader.buffer().is_empty()
    }

    /// The bytes that were asked for.
    pub fn body(&self, ask: Ask) -> &[u8] {
        &self.content.piece(ask.piece)[ask.begin..ask.begin + ask.len]
    }

    /// The right answer to a request.
    pub fn block(&self, ask: Ask) -> Vec<u8> {
        block(ask.piece, ask.begin, self.body(ask))
    }

    /// An answer to a request with a wrong byte in the middle.
    pub fn corrupt_block(&self, ask: Ask) -> Vec<u8> {
        let mut body = self.body(ask).to_vec();
        body[ask.len / 2] ^= 0x40;
        block(ask.piece, ask.begin, &body)
    }

    /// Answers a request as it should be.
    pub fn answer(&mut self, ask: Ask) -> io::Result<()> {
        let block = self.block(ask);
        self.raw(&block)
    }

    /// Answers requests as it should be, until the other side leaves.
    pub fn serve(&mut self) -> io::Result<()> {
        loop {
            let ask = self.ask()?;
            self.answer(ask)?;
        }
    }

    /// Stays without a word until the other side leaves. What this peer had to do is done.
    pub fn hold(&mut self) -> io::Result<()> {
        self.turn_is_over();
        self.listen()
    }

    /// Stays without a word until the other side leaves, which is what the others wait for.
    pub fn listen(&mut self) -> io::Result<()> {
        io::copy(&mut self.reader, &mut io::sink()).map(drop)
    }

    /// Breaks the connection: the other side gets a reset.
    pub fn reset(&self) -> io::Result<()> {
        // With no time to linger, closing is a reset. The descriptors are closed when the script is over.
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))
    }

    /// Closes the connection in good order.
    pub fn close(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }
}

/// The bytes of a message.
pub fn message(id: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32 + 1).to_be_bytes().to_vec();
    bytes.push(id);
    bytes.extend(payload);
    bytes
}

/// The bytes of a message that announces another length than it has.
pub fn announcing(len: u32, id: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = len.to_be_bytes().to_vec();
    bytes.push(id);
    bytes.extend(payload);
    bytes
}

/// The bytes of a block with that head and that body.
pub fn block(piece: usize, begin: usize, body: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(8 + body.len());
    payload.extend((piece as u32).to_be_bytes());
    payload.extend((begin as u32).to_be_bytes());
    payload.extend(body);
    message(id::PIECE, &payload)
}

/// The payload of messages that name a block.
pub fn triple(ask: Ask) -> Vec<u8> {
    [ask.piece, ask.begin, ask.len].iter().flat_map(|&word| (word as u32).to_be_bytes()).collect()
}
