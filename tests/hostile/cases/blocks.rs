//! Blocks that are not what was asked for.

use std::io;

use super::asks;
use crate::hostile::attack::{Attack, End};
use crate::hostile::line::{Ask, BLOCK_LEN, Line, announcing, block, id};

/// No block of the torrent.
const NOT_A_BLOCK: &str = "are not one of its blocks";
/// A piece that there is not.
const NO_PIECE: &str = "does not exist, the torrent has 33";
/// Too much of what nobody asked for.
const UNREQUESTED: &str = "it keeps sending blocks that were not requested";

/// The kinds of messages that are not taken at all.
const WRONG_LENGTH: &str = "message of id 7 announces";

pub fn attacks() -> Vec<Attack> {
    let mut attacks = vec![
        answering("the right bytes a byte too late in the piece", NOT_A_BLOCK, |line, ask| {
            block(ask.piece, ask.begin + 1, line.body(ask))
        }),
        answering("the right bytes behind the end of the piece", NOT_A_BLOCK, |line, ask| {
            block(ask.piece, 4 * BLOCK_LEN, line.body(ask))
        }),
        answering("the right bytes at the last offset there can be", NOT_A_BLOCK, |line, ask| {
            block(ask.piece, u32::MAX as usize, line.body(ask))
        }),
        answering("the right bytes in a piece that does not exist", NO_PIECE, |line, ask| {
            block(33, ask.begin, line.body(ask))
        }),
        answering("the right bytes in the last piece there can be", NO_PIECE, |line, ask| {
            block(u32::MAX as usize, ask.begin, line.body(ask))
        }),
        answering("a block that is a byte short", NOT_A_BLOCK, |line, ask| {
            block(ask.piece, ask.begin, &line.body(ask)[1..])
        }),
        answering("a block of one byte", NOT_A_BLOCK, |line, ask| {
            block(ask.piece, ask.begin, &line.body(ask)[..1])
        }),
        answering("a block that is a byte long", WRONG_LENGTH, |line, ask| {
            block(ask.piece, ask.begin, &[line.body(ask), &[0]].concat())
        }),
        answering("a block of 32 KiB", WRONG_LENGTH, |line, ask| {
            block(ask.piece, ask.begin, &line.body(ask).repeat(2))
        }),
        answering("a block without bytes", WRONG_LENGTH, |_, ask| block(ask.piece, ask.begin, &[])),
        answering("a block without an offset", WRONG_LENGTH, |_, _| announcing(5, id::PIECE, &[0; 4])),
    ];
    attacks.extend(whole());
    attacks
}

/// Blocks that are wrong as a whole, or too many.
fn whole() -> Vec<Attack> {
    vec![
        Attack::new("a last block as long as the others").by(End::Closed(NOT_A_BLOCK), |line| {
            line.open()?;
            loop {
                let ask = line.ask()?;
                let mut body = line.body(ask).to_vec();
                body.resize(BLOCK_LEN, 0);
                line.raw(&block(ask.piece, ask.begin, &body))?;
            }
        }),
        // The start of the next message is taken for the rest of the block, which is wrong then, and what follows for a
        // message.
        Attack::new("a body shorter than its message").by(End::Banned, |line| {
            line.open()?;
            let asks = asks(line)?;
            let mut bytes = line.block(asks[0]);
            bytes.truncate(bytes.len() - 400);
            asks[1..].iter().for_each(|&ask| bytes.extend(line.block(ask)));
            line.raw(&bytes)?;
            line.listen()
        }),
        Attack::new("blocks that nobody asked for").by(End::Closed(UNREQUESTED), |line| {
            line.open()?;
            let asks = asks(line)?;
            send_others(line, &asks)
        }),
        Attack::new("blocks that nobody asked for, from one who chokes").by(
            End::Closed(UNREQUESTED),
            |line| {
                line.shake_hands(0)?;
                line.have_everything()?;
                send_others(line, &[])
            },
        ),
        Attack::new("blocks that nobody asked for, among those that were")
            .by(End::Closed(UNREQUESTED), interleave),
        Attack::new("the same block again and again").by(End::Closed(UNREQUESTED), |line| {
            line.open()?;
            let ask = line.ask()?;
            let block = line.block(ask);
            line.flood(&block, 64 << 20)?;
            line.listen()
        }),
        Attack::new("every block twice").by(End::Closed(UNREQUESTED), |line| {
            line.open()?;
            loop {
                let ask = line.ask()?;
                line.answer(ask)?;
                line.answer(ask)?;
            }
        }),
        Attack::new("all blocks in one go, asked for or not").by(End::Closed(UNREQUESTED), |line| {
            line.open()?;
            line.ask()?;
            send_others(line, &[])
        }),
    ]
}

/// A peer that answers its first request with that.
fn answering(
    name: &'static str,
    fault: &'static str,
    answer: impl Fn(&Line, Ask) -> Vec<u8> + Send + Sync + 'static,
) -> Attack {
    Attack::new(name).by(End::Closed(fault), move |line| {
        line.open()?;
        // The last piece has but one block, which is short.
        let ask = loop {
            let ask = line.ask()?;
            if ask.len == BLOCK_LEN {
                break ask;
            }
        };
        let answer = answer(line, ask);
        line.raw(&answer)?;
        line.listen()
    })
}

/// Answers each request, and sends a block that nobody asked for behind it.
fn interleave(line: &mut Line) -> io::Result<()> {
    line.open()?;
    let asks = asks(line)?;
    let mut others = others(line, &asks).into_iter().rev();
    for &ask in &asks {
        line.answer(ask)?;
        if let Some(other) = others.next() {
            line.answer(other)?;
        }
    }
    for other in others {
        line.answer(other)?;
    }
    line.listen()
}

/// All blocks of the torrent that are not among these.
fn others(line: &Line, asks: &[Ask]) -> Vec<Ask> {
    let pieces = 0..line.content.piece_count();
    let blocks = pieces.flat_map(|piece| {
        let len = line.content.piece(piece).len();
        (0..len).step_by(BLOCK_LEN).map(move |begin| Ask { piece, begin, len: BLOCK_LEN.min(len - begin) })
    });
    blocks.filter(|block| !asks.contains(block)).collect()
}

fn send_others(line: &mut Line, asks: &[Ask]) -> io::Result<()> {
    // Backward, as pieces are asked for forward.
    for other in others(line, asks).into_iter().rev() {
        line.answer(other)?;
    }
    line.listen()
}
