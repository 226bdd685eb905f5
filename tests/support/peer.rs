//! A seeder in the manner of the CodeCrafters course: it sends its bitfield, waits for INTERESTED, unchokes, serves
//! requests, and resets the connection on anything it does not like. A [`Script`] makes it late, slow or bad.

use std::collections::BTreeSet;
use std::io::{self, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::content::Content;

/// The peer id of every scripted peer.
pub const PEER_ID: &[u8; 20] = b"-XX0000-scripted\x00\xff\x7f\n";

/// The most that may be asked for at once.
const BLOCK_LEN: usize = 16 * 1024;

/// The bytes of a REQUEST.
const REQUEST_LEN: usize = 17;

/// The longest message that a downloader has reason to send: a bitfield of these small torrents, or an extension
/// handshake.
const MESSAGE_LEN_MAX: usize = 4096;

/// The pause between two bytes of a handshake that drips.
const DRIP_EVERY: Duration = Duration::from_secs(3);

/// The pause before a peer that dials does so again.
const CALL_AGAIN: Duration = Duration::from_millis(50);

/// How long a peer that has stopped answering keeps the connection: longer than any test waits.
const SILENCE: Duration = Duration::from_secs(120);

/// What is different from a prompt, honest seeder.
#[derive(Clone)]
pub struct Script {
    /// Where it listens.
    pub ip: IpAddr,
    /// What it does once it has read a handshake.
    pub hello: Hello,
    /// The wait before its bitfield.
    pub bitfield_after: Duration,
    /// The wait before it unchokes.
    pub unchoke_after: Duration,
    /// The wait before each block, during which it reads no further request.
    pub block_after: Duration,
    /// The blocks it answers before it falls silent, over all connections.
    pub blocks_max: usize,
    /// Whether every block has a wrong byte.
    pub corrupt: bool,
    /// In which order it answers, and what it says in between.
    pub manner: Manner,
    /// The requests it says it takes, in an extension handshake (BEP 10); without one it speaks no extension.
    pub reqq: Option<u32>,
    /// What it has beside content, which is told in an extension handshake, too.
    pub gossip: Option<Gossip>,
}

/// What a peer gives beside content: metadata (BEP 9), other peers (BEP 11), a node of the DHT (BEP 5).
#[derive(Clone, Default)]
pub struct Gossip {
    /// The peers it tells of, wanted or not, as soon as it has heard an extension handshake.
    pub peers: Vec<SocketAddr>,
    /// Where it says its node of the DHT is, right behind its handshake.
    pub dht_port: Option<u16>,
}

/// The numbers of its extensions.
const UT_PEX: u8 = 1;
const UT_METADATA: u8 = 3;

/// The number under which ringtide takes PEX, for when it does not say.
const THEIR_UT_PEX: u8 = 2;

/// The bytes of a piece of metadata.
const METADATA_PIECE_LEN: usize = 16 * 1024;

/// How a peer answers what it has been asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// Whether it picks a request at random out of all that have come, or takes the oldest.
    pub shuffled: bool,
    /// HAVE messages before each block.
    pub haves: usize,
}

/// How a peer begins.
#[derive(Clone, PartialEq, Eq)]
pub enum Hello {
    /// With its handshake.
    Proper,
    /// It closes the connection without a word.
    Close,
    /// It says nothing.
    Silent,
    /// With these bytes, whatever they are.
    Bytes(Vec<u8>),
    /// With its handshake, a byte every few seconds.
    Drip,
    /// With its handshake and then these bytes.
    ProperThen(Vec<u8>),
}

impl Default for Script {
    fn default() -> Self {
        Self {
            ip: Ipv4Addr::LOCALHOST.into(),
            hello: Hello::Proper,
            bitfield_after: Duration::ZERO,
            unchoke_after: Duration::ZERO,
            block_after: Duration::ZERO,
            blocks_max: usize::MAX,
            corrupt: false,
            manner: Manner { shuffled: false, haves: 0 },
            reqq: None,
            gossip: None,
        }
    }
}

/// What a peer has seen.
#[derive(Clone, Default)]
pub struct Seen {
    /// How often somebody connected.
    pub connections: usize,
    /// The reserved bytes and the peer id of each handshake.
    pub handshakes: Vec<([u8; 8], [u8; 20])>,
    /// The piece and the offset of each block served, in that order.
    pub blocks: Vec<(usize, usize)>,
    /// What made it reset a connection.
    pub faults: Vec<String>,
    /// The payload of each extended message, the number first.
    pub extended: Vec<Vec<u8>>,
    /// When somebody connected first.
    pub first_at: Option<Instant>,
    /// When the last piece of metadata was given.
    pub metadata_at: Option<Instant>,
    /// When the last block was served.
    pub block_at: Option<Instant>,
}

impl Seen {
    /// The pieces of which anything was served.
    pub fn pieces(&self) -> BTreeSet<usize> {
        self.blocks.iter().map(|&(piece, _)| piece).collect()
    }
}

/// A running peer, until the test program ends.
pub struct Peer {
    /// Where it listens.
    pub addr: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Peer {
    /// A prompt and honest seeder.
    pub fn honest(content: &Content) -> Self {
        Self::start(content, Script::default())
    }

    /// A peer on a free port.
    pub fn start(content: &Content, script: Script) -> Self {
        Self::try_start(content, script).expect("the loopback address can be bound")
    }

    /// The same, where the address may not exist.
    pub fn try_start(content: &Content, script: Script) -> io::Result<Self> {
        let listener = TcpListener::bind((script.ip, 0))?;
        let addr = listener.local_addr()?;
        let seen = Arc::<Mutex<Seen>>::default();
        let (content, log) = (content.clone(), Arc::clone(&seen));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let connection = Connection {
                    stream,
                    content: content.clone(),
                    script: script.clone(),
                    seen: Arc::clone(&log),
                    calls: false,
                };
                thread::spawn(move || connection.run());
            }
        });
        Ok(Self { addr, seen })
    }

    /// A seeder that listens nowhere: it dials `to` whenever `to` gives an address.
    pub fn calling(
        content: &Content,
        script: Script,
        to: impl Fn() -> Option<SocketAddr> + Send + 'static,
    ) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let (content, log) = (content.clone(), Arc::clone(&seen));
        thread::spawn(move || {
            loop {
                if let Some(stream) = to().and_then(|addr| TcpStream::connect(addr).ok()) {
                    let (content, script, seen) = (content.clone(), script.clone(), Arc::clone(&log));
                    Connection { stream, content, script, seen, calls: true }.run();
                }
                thread::sleep(CALL_AGAIN);
            }
        });
        Self { addr: SocketAddr::from(([0, 0, 0, 0], 0)), seen }
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().expect("no thread panics with it").clone()
    }

    /// What it has seen, which must be nothing to complain of.
    #[track_caller]
    pub fn assert_pleased(&self) -> Seen {
        let seen = self.seen();
        assert!(seen.faults.is_empty(), "the peer complains: {:?}", seen.faults);
        seen
    }
}

struct Connection {
    stream: TcpStream,
    content: Content,
    script: Script,
    seen: Arc<Mutex<Seen>>,
    /// It has dialed, and so speaks first.
    calls: bool,
}

impl Connection {
    fn run(mut self) {
        self.note(|seen| {
            seen.connections += 1;
            seen.first_at.get_or_insert_with(Instant::now);
        });
        // An error here means that the other side has left, which it may.
        if let Ok(Err(fault)) = self.talk() {
            self.note(|seen| seen.faults.push(fault));
            // With no time to linger, closing is a reset.
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }

    fn note(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut self.seen.lock().expect("no thread panics with it"));
    }

    /// Serves until the other side leaves (the outer error) or does something wrong (the inner one).
    fn talk(&mut self) -> io::Result<Result<(), String>> {
        let mut reader = BufReader::new(self.stream.try_clone()?);
        if self.calls {
            self.stream.write_all(&self.hello())?;
        }
        let mut theirs = [0; 68];
        reader.read_exact(&mut theirs)?;
        let (reserved, peer_id) = (theirs[20..28].try_into(), theirs[48..].try_into());
        self.note(|seen| seen.handshakes.push((reserved.expect("8 bytes"), peer_id.expect("20 bytes"))));
        match self.script.hello.clone() {
            Hello::Close => return Ok(Ok(())),
            Hello::Silent => {
                thread::sleep(SILENCE);
                return Ok(Ok(()));
            }
            Hello::Bytes(bytes) => {
                self.stream.write_all(&bytes)?;
                thread::sleep(SILENCE);
                return Ok(Ok(()));
            }
            Hello::Drip => {
                for byte in handshake(&self.content.info_hash) {
                    self.stream.write_all(&[byte])?;
                    thread::sleep(DRIP_EVERY);
                }
                return Ok(Ok(()));
            }
            _ => {}
        }
        if !self.calls {
            self.stream.write_all(&self.hello())?;
        }
        if let Hello::ProperThen(bytes) = self.script.hello.clone() {
            self.stream.write_all(&bytes)?;
            thread::sleep(SILENCE);
            return Ok(Ok(()));
        }
        if theirs[..20] != *b"\x13BitTorrent protocol" {
            return Ok(Err("this is another protocol".to_owned()));
        }
        if theirs[28..48] != self.content.info_hash {
            // As they do who serve another torrent.
            return Ok(Ok(()));
        }
        thread::sleep(self.script.bitfield_after);
        self.send(5, &bitfield(self.content.piece_count()))?;
        if let Some(reqq) = self.script.reqq {
            self.send(20, format!("\0d1:mde4:reqqi{reqq}ee").as_bytes())?;
        }
        if let Some(Gossip { dht_port, .. }) = self.script.gossip {
            let size = self.content.info().len();
            let offer = format!("11:ut_metadatai{UT_METADATA}e6:ut_pexi{UT_PEX}e");
            self.send(20, format!("\0d1:md{offer}e13:metadata_sizei{size}ee").as_bytes())?;
            if let Some(port) = dht_port {
                self.send(9, &port.to_be_bytes())?;
            }
        }
        self.serve(&mut reader)
    }

    fn hello(&self) -> Vec<u8> {
        let mut hello = handshake(&self.content.info_hash);
        if self.script.reqq.is_some() || self.script.gossip.is_some() {
            hello[25] |= 0x10;
        }
        if self.script.gossip.as_ref().is_some_and(|gossip| gossip.dht_port.is_some()) {
            hello[27] |= 1;
        }
        hello
    }

    fn serve(&mut self, reader: &mut BufReader<TcpStream>) -> io::Result<Result<(), String>> {
        let mut is_choked = true;
        let mut asked = Vec::new();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut their_metadata = 0;
        loop {
            while !asked.is_empty() && reader.buffer().len() < REQUEST_LEN {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let at = if self.script.manner.shuffled { random as usize % asked.len() } else { 0 };
                let (piece, begin, block) = asked.remove(at);
                self.answer(piece, begin, block)?;
            }
            let message = match read_message(reader)? {
                Ok(message) => message,
                Err(fault) => return Ok(Err(fault)),
            };
            match message.split_first() {
                Some((2, [])) if is_choked => {
                    thread::sleep(self.script.unchoke_after);
                    self.send(1, &[])?;
                    is_choked = false;
                }
                Some((6, _)) if is_choked => return Ok(Err("a request while choked".to_owned())),
                Some((6, request)) => match self.check(request) {
                    Ok(request) => asked.push(request),
                    Err(fault) => return Ok(Err(fault)),
                },
                Some((20, said)) => {
                    self.note(|seen| seen.extended.push(said.to_vec()));
                    if let Some(gossip) = self.script.gossip.clone() {
                        self.chat(&gossip, said, &mut their_metadata)?;
                    }
                }
                // Keep-alive, have, bitfield and cancel are heard and not answered.
                None | Some((2 | 3 | 4 | 5 | 8, _)) => {}
                Some((id, _)) => return Ok(Err(format!("a message of type {id}"))),
            }
        }
    }

    /// Answers an extended message: an extension handshake with peers, a request for metadata with metadata.
    fn chat(&mut self, gossip: &Gossip, said: &[u8], their_metadata: &mut u8) -> io::Result<()> {
        match said.split_first() {
            Some((0, offer)) => {
                *their_metadata = number_of(offer, "ut_metadata").unwrap_or(0) as u8;
                let number = number_of(offer, "ut_pex").map_or(THEIR_UT_PEX, |number| number as u8);
                if !gossip.peers.is_empty() {
                    self.send(20, &[&[number], &exchange(&gossip.peers)[..]].concat())?;
                    // Whoever has the metadata may have no time left to dial them.
                    thread::sleep(Duration::from_millis(300));
                }
            }
            Some((&UT_METADATA, request)) => {
                let content = self.content.clone();
                let Some(index) = number_of(request, "piece") else { return Ok(()) };
                let Some(data) = content.info().chunks(METADATA_PIECE_LEN).nth(index) else { return Ok(()) };
                let total = content.info().len();
                let head = format!("d8:msg_typei1e5:piecei{index}e10:total_sizei{total}ee");
                self.send(20, &[&[*their_metadata], head.as_bytes(), data].concat())?;
                if (index + 1) * METADATA_PIECE_LEN >= total {
                    self.note(|seen| seen.metadata_at = Some(Instant::now()));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The piece, the offset and the bytes of a request.
    fn check(&self, request: &[u8]) -> Result<(usize, usize, Vec<u8>), String> {
        if request.len() != 12 {
            return Err(format!("a request of {} bytes", request.len()));
        }
        let number = |at: usize| {
            let bytes = request[at..at + 4].try_into().expect("4 bytes");
            u32::from_be_bytes(bytes) as usize
        };
        let (piece, begin, len) = (number(0), number(4), number(8));
        if piece >= self.content.piece_count() {
            return Err(format!("a request for piece {piece}"));
        }
        let bytes = self.content.piece(piece);
        if !begin.is_multiple_of(BLOCK_LEN) || begin >= bytes.len() {
            return Err(format!("a request from {begin} of the {} bytes of piece {piece}", bytes.len()));
        }
        let expected = BLOCK_LEN.min(bytes.len() - begin);
        if len != expected {
            return Err(format!(
                "a request for {len} bytes at {begin} of piece {piece}, expected {expected}"
            ));
        }
        let mut block = bytes[begin..begin + len].to_vec();
        if self.script.corrupt {
            block[len / 2] ^= 1;
        }
        Ok((piece, begin, block))
    }

    fn answer(&mut self, piece: usize, begin: usize, block: Vec<u8>) -> io::Result<()> {
        if self.seen.lock().expect("no thread panics with it").blocks.len() >= self.script.blocks_max {
            return Ok(());
        }
        thread::sleep(self.script.block_after);
        for _ in 0..self.script.manner.haves {
            self.send(4, &(piece as u32).to_be_bytes())?;
        }
        let mut payload = Vec::with_capacity(8 + block.len());
        payload.extend((piece as u32).to_be_bytes());
        payload.extend((begin as u32).to_be_bytes());
        payload.extend(block);
        self.send(7, &payload)?;
        self.note(|seen| {
            seen.blocks.push((piece, begin));
            seen.block_at = Some(Instant::now());
        });
        Ok(())
    }

    fn send(&mut self, id: u8, payload: &[u8]) -> io::Result<()> {
        let mut message = (payload.len() as u32 + 1).to_be_bytes().to_vec();
        message.push(id);
        message.extend(payload);
        self.stream.write_all(&message)
    }
}

/// The handshake of a scripted peer, which speaks no extension.
pub fn handshake(info_hash: &[u8; 20]) -> Vec<u8> {
    let mut hello = b"\x13BitTorrent protocol".to_vec();
    hello.extend([0; 8]);
    hello.extend(info_hash);
    hello.extend(PEER_ID);
    hello
}

/// The number behind a key, however deep it stands.
pub fn number_of(bytes: &[u8], key: &str) -> Option<usize> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (_, rest) = text.split_once(&format!("{}:{key}i", key.len()))?;
    rest.split('e').next()?.parse().ok()
}

/// The body of a peer exchange that adds these peers.
fn exchange(peers: &[SocketAddr]) -> Vec<u8> {
    let compact: Vec<u8> = peers
        .iter()
        .flat_map(|peer| match peer.ip() {
            IpAddr::V4(ip) => [&ip.octets()[..], &peer.port().to_be_bytes()].concat(),
            IpAddr::V6(_) => panic!("only IPv4 peers are told of"),
        })
        .collect();
    let mut body = format!("d5:added{}:", compact.len()).into_bytes();
    body.extend(compact);
    body.extend(format!("7:added.f{}:", peers.len()).bytes());
    body.extend(vec![0; peers.len()]);
    body.push(b'e');
    body
}

fn bitfield(piece_count: usize) -> Vec<u8> {
    let mut bits = vec![0; piece_count.div_ceil(8)];
    for piece in 0..piece_count {
        bits[piece / 8] |= 0x80 >> (piece % 8);
    }
    bits
}

fn read_message(reader: &mut impl Read) -> io::Result<Result<Vec<u8>, String>> {
    let mut len = [0; 4];
    reader.read_exact(&mut len)?;
    let len = u32::from_be_bytes(len) as usize;
    if len > MESSAGE_LEN_MAX {
        return Ok(Err(format!("a message of {len} bytes")));
    }
    let mut message = vec![0; len];
    reader.read_exact(&mut message)?;
    Ok(Ok(message))
}
