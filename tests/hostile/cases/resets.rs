//! Connections that end at each place where they can: by a reset and in good order.

use std::io;

use super::asks;
use crate::hostile::attack::{Attack, End};
use crate::hostile::line::{BLOCK_LEN, Line, id, message};
use crate::support::content::Content;

/// How an end looks from the other side: a reset may come before or after what was sent before it is read.
const ENDS: End = End::OneOf(&["it closed the connection", "connection lost", "cannot connect: "]);

/// Bytes of a piece, which is one block: few, so that there can be a connection for each place in it.
const PIECE_LEN: usize = 48;

pub fn attacks() -> Vec<Attack> {
    // The bitfield, UNCHOKE, and two blocks.
    let talk_len = message(id::BITFIELD, &[0; PIECES / 8]).len() + 5 + 2 * (13 + PIECE_LEN);
    let block_len = 13 + BLOCK_LEN;
    let places = [
        1,
        4,
        5,
        12,
        13,
        14,
        4_095,
        4_096,
        block_len - 1,
        block_len,
        block_len + 1,
        block_len + 13,
        block_len + 14,
    ];
    let places: Vec<usize> =
        places.into_iter().chain((1..20).map(|part| part * block_len * 4 / 20)).collect();
    let pairs = [
        both(
            ["a reset at each byte of the handshake", "an end at each byte of the handshake"],
            0..=68,
            shake_hands,
        ),
        both(
            [
                "a reset at each byte from the bitfield to the end of the second block",
                "an end at each byte from the bitfield to the end of the second block",
            ],
            0..=talk_len,
            talk,
        )
        .map(|attack| attack.of(small())),
        both(
            ["a reset at places in and between large blocks", "an end at places in and between large blocks"],
            places,
            large,
        ),
    ];
    let wordless = Attack::new("a reset before a word").by(ENDS, |line| line.reset());
    pairs.into_iter().flatten().chain([wordless]).collect()
}

/// Enough for many of those peers to be asked for some at the same time.
const PIECES: usize = 1_024;

fn small() -> Content {
    Content::single("small", PIECES * PIECE_LEN, PIECE_LEN)
}

/// Of one name with resets, of the other with ends in good order: a peer for each place in what it says.
fn both(
    [reset, end]: [&'static str; 2],
    places: impl IntoIterator<Item = usize> + Clone,
    say: fn(&mut Line, usize) -> io::Result<()>,
) -> [Attack; 2] {
    let each = |name, stop: fn(&Line) -> io::Result<()>| {
        places.clone().into_iter().fold(Attack::new(name), |attack, place| {
            attack.by(ENDS, move |line| {
                say(line, place)?;
                stop(line)
            })
        })
    };
    [each(reset, Line::reset), each(end, Line::close)]
}

/// Answers the handshake up to that place.
fn shake_hands(line: &mut Line, place: usize) -> io::Result<()> {
    line.read_handshake()?;
    let hello = line.handshake(0);
    line.raw(&hello[..place])
}

/// Says all up to that place: the bitfield, UNCHOKE, two blocks.
fn talk(line: &mut Line, place: usize) -> io::Result<()> {
    line.shake_hands(0)?;
    let mut bytes = message(id::BITFIELD, &line.bitfield());
    bytes.extend(message(id::UNCHOKE, &[]));
    if place <= bytes.len() {
        return line.raw(&bytes[..place]);
    }
    line.raw(&bytes)?;
    let mut place = place - bytes.len();
    while place > 0 {
        let ask = line.ask()?;
        let block = line.block(ask);
        line.raw(&block[..block.len().min(place)])?;
        place = place.saturating_sub(block.len());
    }
    Ok(())
}

/// Answers the first window up to that place.
fn large(line: &mut Line, place: usize) -> io::Result<()> {
    line.open()?;
    let asks = asks(line)?;
    let bytes: Vec<u8> = asks.iter().take(6).flat_map(|&ask| line.block(ask)).collect();
    line.raw(&bytes[..place.min(bytes.len())])
}
