//! What is downloaded, and where it goes.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use ringtide::meta::geometry::{Block, Geometry, PieceIndex};
use ringtide::swarm::claim::PieceWriter;
use ringtide::swarm::receive::{Forecast, Part};
use sha1::{Digest, Sha1};

use super::rng::Rng;

/// The right bytes and their digests.
pub struct Content {
    pub geometry: Geometry,
    bytes: Vec<u8>,
    digests: Vec<[u8; 20]>,
}

impl Content {
    pub fn new(geometry: Geometry, seed: u64) -> Rc<Self> {
        let mut rng = Rng::new(seed);
        let mut bytes: Vec<u8> =
            (0..geometry.total_len().div_ceil(8)).flat_map(|_| rng.next().to_le_bytes()).collect();
        bytes.truncate(geometry.total_len() as usize);
        let digests =
            bytes.chunks(geometry.piece_len() as usize).map(|piece| Sha1::digest(piece).into()).collect();
        Rc::new(Self { geometry, bytes, digests })
    }

    pub fn block(&self, block: Block) -> &[u8] {
        let at = self.geometry.piece_offset(block.piece) as usize + block.begin as usize;
        &self.bytes[at..at + block.len as usize]
    }

    pub fn digest(&self, piece: PieceIndex) -> [u8; 20] {
        self.digests[piece.at()]
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Free,
    Leased,
    Sealed,
}

/// The output: memory in place of files.
pub struct Memory {
    geometry: Geometry,
    bytes: RefCell<Vec<u8>>,
    states: RefCell<Vec<State>>,
}

impl Memory {
    pub fn new(geometry: Geometry) -> Rc<Self> {
        Rc::new(Self {
            geometry,
            bytes: RefCell::new(vec![0; geometry.total_len() as usize]),
            states: RefCell::new(vec![State::Free; geometry.piece_count() as usize]),
        })
    }

    /// Panics unless the piece is free: the ledger gives out each once.
    pub fn lease(self: &Rc<Self>, piece: PieceIndex) -> MemoryLease {
        let state = &mut self.states.borrow_mut()[piece.at()];
        assert_eq!(*state, State::Free, "piece {piece} was given out twice");
        *state = State::Leased;
        MemoryLease { memory: Rc::clone(self), piece, next: State::Free }
    }

    pub fn is_sealed(&self, piece: PieceIndex) -> bool {
        self.states.borrow()[piece.at()] == State::Sealed
    }

    pub fn leases_out(&self) -> usize {
        self.states.borrow().iter().filter(|&&state| state == State::Leased).count()
    }

    /// Whether the download is what it should be, to the last byte.
    pub fn is(&self, content: &Content) -> bool {
        *self.bytes.borrow() == content.bytes
    }
}

impl fmt::Debug for MemoryLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease of {}", self.piece)
    }
}

/// The right to write one piece.
pub struct MemoryLease {
    memory: Rc<Memory>,
    piece: PieceIndex,
    next: State,
}

impl MemoryLease {
    pub const fn piece(&self) -> PieceIndex {
        self.piece
    }

    pub fn size(&self) -> u32 {
        self.memory.geometry.piece_size(self.piece)
    }

    pub fn with_bytes<T>(&self, begin: u32, len: u32, f: impl FnOnce(&[u8]) -> T) -> T {
        f(&self.memory.bytes.borrow()[self.range(begin, len as usize)])
    }

    /// The piece is right and is never written again.
    pub fn seal(mut self) {
        self.next = State::Sealed;
    }

    fn range(&self, begin: u32, len: usize) -> std::ops::Range<usize> {
        assert!(begin as usize + len <= self.size() as usize, "outside of piece {}", self.piece);
        let at = self.memory.geometry.piece_offset(self.piece) as usize + begin as usize;
        at..at + len
    }
}

impl PieceWriter for MemoryLease {
    fn write(&mut self, begin: u32, data: &[u8]) {
        let range = self.range(begin, data.len());
        self.memory.bytes.borrow_mut()[range].copy_from_slice(data);
    }

    fn read(&self, begin: u32, out: &mut [u8]) {
        out.copy_from_slice(&self.memory.bytes.borrow()[self.range(begin, out.len())]);
    }
}

impl Drop for MemoryLease {
    fn drop(&mut self) {
        self.memory.states.borrow_mut()[self.piece.at()] = self.next;
    }
}

/// What the kernel does with the bytes of an aimed receive: fills one place after the other.
pub fn land(forecast: &mut Forecast<MemoryLease>, mut bytes: &[u8]) {
    for at in 0.. {
        let Some(Part { header, lease, begin, len }) = forecast.part(at) else { break };
        let (now, later) = bytes.split_at(bytes.len().min(header.len()));
        header[..now.len()].copy_from_slice(now);
        let (now, later) = later.split_at(later.len().min(len as usize));
        lease.write(begin, now);
        bytes = later;
    }
    forecast.header_behind()[..bytes.len()].copy_from_slice(bytes);
}
