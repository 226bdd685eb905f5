//! What an input says to do.

use arbitrary::Arbitrary;

#[derive(Arbitrary, Debug)]
pub struct Input {
    /// Which content.
    pub shape: u8,
    /// Decides the picker's random choices.
    pub seed: u8,
    pub ops: Vec<Op>,
}

#[derive(Arbitrary, Debug)]
pub enum Op {
    /// The peer puts a message on the wire.
    Say { peer: u8, what: Say },
    /// The peer answers one of its requests, rightly or wrongly.
    Answer { peer: u8, at: u8, forged: bool },
    /// The peer sends a block, asked for or not.
    Push { peer: u8, piece: u8, block: u8, forged: bool },
    /// The peer puts anything on the wire.
    Noise { peer: u8, bytes: Vec<u8> },
    /// So many bytes come in as one receive, or what it has room for; the next may be aimed.
    Deliver { peer: u8, len: u16, aims: bool },
    /// Everything on the wire comes in.
    DeliverAll { peer: u8, aims: bool },
    /// We tell of verified pieces.
    Haves { peer: u8, max: u8 },
    /// The connection ends.
    Leave { peer: u8 },
    /// Time passes.
    Wait { ticks: u8, seconds: bool },
    /// Complete pieces are hashed.
    Judge { count: u8 },
}

/// A message; numbers may be out of range.
#[derive(Arbitrary, Debug)]
pub enum Say {
    Choke,
    Unchoke,
    HaveAll,
    HaveNone,
    Have(u8),
    Bitfield(u32),
    /// Of the request at that place.
    Reject(u8),
    RejectAny {
        piece: u8,
        block: u8,
    },
    Reqq(u16),
    Extended {
        id: u8,
        payload: Vec<u8>,
    },
    KeepAlive,
    Request {
        piece: u8,
        block: u8,
    },
    Suggest(u8),
    AllowedFast(u8),
    Unknown(u8),
}
