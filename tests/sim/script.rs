//! What a host is like, and what it does wrong.

use ringtide::swarm::bitfield::Bitfield;

/// How a host tells its pieces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// A BITFIELD.
    Bitfield,
    /// HAVE_ALL or HAVE_NONE where that is true, and else a BITFIELD (BEP 6).
    Fast,
    /// A BITFIELD without some, and HAVE for each of these.
    Lazy,
    /// HAVE for each, in between the blocks.
    Haves,
}

/// What a host does when it is asked for what it said it has and has not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    Ignore,
    Reject,
    Garbage,
}

/// What no client may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    LongBitfield,
    SpareBits,
    SecondBitfield,
    HaveOutOfRange,
    ShortBlock,
    NoSuchPiece,
    RejectOfNothing,
    HugeMessage,
}

/// A host. Times are in microseconds; faults happen so many times in a thousand blocks.
#[derive(Clone, Debug)]
pub struct Script {
    pub pieces: Bitfield,
    pub told: Told,
    /// Bytes a second to us.
    pub rate: u64,
    pub latency: u64,
    /// Bytes that it hands to its kernel before these are sent: they cannot be taken back.
    pub backlog: usize,
    /// Whether it speaks BEP 6.
    pub fast: bool,
    /// Pieces that it serves while it chokes, where it speaks BEP 6.
    pub allows: u32,
    pub reqq: Option<u32>,
    pub unchoke_after: u64,
    /// Chokes so long after an unchoke, and unchokes again after so long.
    pub chokes: Option<(u64, u64)>,
    /// Answers what it was asked before it choked.
    pub answers_choked: bool,
    /// Gets a piece that it had not, so often.
    pub gains: Option<u64>,
    pub shuffles: bool,
    /// Says other things between the blocks.
    pub chats: u64,
    pub corrupts: u64,
    pub duplicates: u64,
    pub unrequested: u64,
    pub rejects: u64,
    pub forgets: u64,
    /// Serves so many blocks a connection and then none.
    pub stalls_after: Option<u32>,
    /// Closes after so many bytes a connection.
    pub dies_after: Option<u64>,
    /// Says that it has all pieces, whatever it has.
    pub lies: Option<Lie>,
    /// Breaks the protocol after so many blocks.
    pub violates: Option<(Violation, u32)>,
}

impl Script {
    /// A host that has these pieces and does all it should.
    pub const fn honest(pieces: Bitfield, rate: u64, latency: u64) -> Self {
        Self {
            pieces,
            told: Told::Bitfield,
            rate,
            latency,
            backlog: 64 * 1024,
            fast: true,
            allows: 0,
            reqq: Some(500),
            unchoke_after: 10_000,
            chokes: None,
            answers_choked: false,
            gains: None,
            shuffles: false,
            chats: 0,
            corrupts: 0,
            duplicates: 0,
            unrequested: 0,
            rejects: 0,
            forgets: 0,
            stalls_after: None,
            dies_after: None,
            lies: None,
            violates: None,
        }
    }

    /// Whether every block is what it should be: then it is never banned.
    pub fn is_truthful(&self) -> bool {
        self.corrupts == 0 && self.lies != Some(Lie::Garbage)
    }

    /// Whether it keeps to the protocol: then it is never closed.
    pub const fn is_lawful(&self) -> bool {
        self.duplicates == 0
            && self.unrequested == 0
            && self.rejects == 0
            && self.forgets == 0
            && self.stalls_after.is_none()
            && self.lies.is_none()
            && self.violates.is_none()
    }

    /// How many requests it takes, as it told.
    pub fn reqq(&self) -> usize {
        self.reqq.map_or(250, |reqq| reqq as usize)
    }
}
