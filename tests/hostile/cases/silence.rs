//! Peers that stop, or nearly: in a handshake, in a message, in a block, or with all that they were asked for. What they
//! hold has to be fetched from elsewhere long before they are closed for it.

use std::io;
use std::thread;
use std::time::Duration;

use super::asks;
use crate::hostile::attack::{Attack, End};
use crate::hostile::line::{BLOCK_LEN, Line, id};
use crate::hostile::peer::honest;

/// The pause of those who send a byte at a time.
const BYTE_EVERY: Duration = Duration::from_secs(1);

pub fn attacks() -> Vec<Attack> {
    let mut attacks = vec![
        Attack::new("not a word").by(End::Whatever, Line::hold),
        Attack::new("the handshake, a byte a second").by(End::Whatever, |line| {
            line.read_handshake()?;
            line.turn_is_over();
            let hello = line.handshake(0);
            drip(line, &hello)
        }),
        silent("the handshake and nothing more", |line| line.shake_hands(0)),
        silent("a bitfield that stops in the middle", |line| {
            line.shake_hands(0)?;
            line.raw(&[0, 0, 0, 6, id::BITFIELD, 0xff, 0xff])
        }),
        silent("all pieces, and never unchokes", |line| {
            line.shake_hands(0)?;
            line.have_everything()
        }),
        silent("takes requests and never answers", |line| {
            line.open()?;
            line.ask().map(drop)
        }),
        silent("answers one request of many", |line| {
            line.open()?;
            let asks = asks(line)?;
            line.answer(asks[0])
        }),
        silent("answers one request of each piece", |line| {
            line.open()?;
            let asks = asks(line)?;
            asks.iter().filter(|ask| ask.begin == 0).try_for_each(|&ask| line.answer(ask))
        }),
        silent("answers all but the first request", |line| {
            line.open()?;
            let asks = asks(line)?;
            asks[1..].iter().try_for_each(|&ask| line.answer(ask))
        }),
        stopping("stops in the length of a message", 3),
        stopping("stops in the head of a block", 9),
        stopping("stops between the head and the body of a block", 13),
        stopping("stops in the body of a block", 13 + BLOCK_LEN / 2),
        stopping("stops a byte before the end of a block", 13 + BLOCK_LEN - 1),
        stopping("stops in the head of the second block", 13 + BLOCK_LEN + 9),
        stopping("stops in the body of the third block", 3 * (13 + BLOCK_LEN) - 5),
    ];
    attacks.extend(slow());
    attacks
}

/// Those that are not quite silent, and many of them.
fn slow() -> Vec<Attack> {
    vec![
        Attack::new("blocks, a byte a second").by(End::Kept, |line| {
            line.open()?;
            let ask = line.ask()?;
            line.turn_is_over();
            let block = line.block(ask);
            drip(line, &block)
        }),
        Attack::new("a message of an unknown id, a byte a second").by(End::Kept, |line| {
            line.open()?;
            line.turn_is_over();
            let mut bytes = 1_000_000_u32.to_be_bytes().to_vec();
            bytes.resize(1_000_000, 99);
            drip(line, &bytes)
        }),
        Attack::new("keep-alives in the place of blocks").by(End::Kept, |line| {
            line.open()?;
            line.ask()?;
            line.turn_is_over();
            loop {
                line.raw(&[0; 4])?;
                thread::sleep(Duration::from_millis(5));
            }
        }),
        Attack::new("never reads").by(End::Kept, |line| {
            line.open()?;
            line.turn_is_over();
            thread::sleep(Duration::from_secs(20));
            line.listen()
        }),
        // All others hold pieces, of which the honest one gets none at first.
        (0..20)
            .fold(Attack::new("twenty that take requests and never answer"), |attack, _| {
                attack.by(End::Kept, |line| {
                    line.open()?;
                    line.ask()?;
                    line.hold()
                })
            })
            .beside(honest(Duration::from_millis(1))),
    ]
}

/// The same peers in a download that lasts until all of them have been closed for it.
pub fn patience() -> Vec<Attack> {
    let unanswered = End::Closed("requests unanswered for too long");
    let handshake = End::Closed("no handshake in time");
    let attack = Attack::new("silent peers, until they are closed")
        .by(handshake, Line::listen)
        .by(handshake, |line| {
            line.read_handshake()?;
            let hello = line.handshake(0);
            drip(line, &hello)
        })
        .by(unanswered, |line| {
            line.open()?;
            line.listen()
        })
        .by(unanswered, |line| {
            line.open()?;
            let ask = line.ask()?;
            let block = line.block(ask);
            drip(line, &block)
        })
        .by(unanswered, |line| {
            line.open()?;
            loop {
                line.raw(&[0; 4])?;
                thread::sleep(BYTE_EVERY);
            }
        });
    let stops = [3, 9, 13, 13 + BLOCK_LEN / 2, 13 + BLOCK_LEN - 1, 13 + BLOCK_LEN + 9];
    vec![stops.into_iter().fold(attack, |attack, after| {
        attack.by(unanswered, move |line| {
            answer_up_to(line, after)?;
            line.listen()
        })
    })]
}

/// A peer that does this and then nothing more.
fn silent(name: &'static str, begin: impl Fn(&mut Line) -> io::Result<()> + Send + Sync + 'static) -> Attack {
    Attack::new(name).by(End::Kept, move |line| {
        begin(line)?;
        line.hold()
    })
}

/// A peer that answers requests and stops after so many bytes.
fn stopping(name: &'static str, after: usize) -> Attack {
    silent(name, move |line| answer_up_to(line, after))
}

/// Sends the first so many bytes of the answers to what is asked.
fn answer_up_to(line: &mut Line, after: usize) -> io::Result<()> {
    line.open()?;
    let mut bytes = Vec::new();
    while bytes.len() < after {
        let ask = line.ask()?;
        bytes.extend(line.block(ask));
    }
    line.raw(&bytes[..after])
}

/// Sends bytes slowly, until the other side leaves.
fn drip(line: &mut Line, bytes: &[u8]) -> io::Result<()> {
    for byte in bytes {
        line.raw(&[*byte])?;
        thread::sleep(BYTE_EVERY);
    }
    line.listen()
}
