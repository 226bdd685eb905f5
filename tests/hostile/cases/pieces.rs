//! What a peer says it has.

use crate::hostile::attack::{Attack, End};
use crate::hostile::line::{FAST, Line, id, triple};

const WRONG_LENGTH: &str = "message of id 5 announces";
const TOO_OFTEN: &str = "it told all of its pieces anew, 17 times";
const NO_PIECE: &str = "it says it has piece";

pub fn attacks() -> Vec<Attack> {
    let mut attacks = vec![
        bitfield("a bitfield without a bit", WRONG_LENGTH, |_| Vec::new()),
        bitfield("a bitfield that is a byte short", WRONG_LENGTH, |bits| bits[1..].to_vec()),
        bitfield("a bitfield that is a byte long", WRONG_LENGTH, |bits| [bits, &[0]].concat()),
        bitfield("a bitfield of 64 KiB", WRONG_LENGTH, |_| vec![0xff; 1 << 16]),
        bitfield("a bitfield of a megabyte", WRONG_LENGTH, |_| vec![0xff; (1 << 20) - 1]),
        telling("a bitfield again and again", TOO_OFTEN, |line| {
            (0..17).try_for_each(|_| line.have_everything())
        }),
        telling("HAVE_ALL and HAVE_NONE in turn", TOO_OFTEN, |line| {
            (0..9).try_for_each(|_| {
                line.send(id::HAVE_ALL, &[])?;
                line.send(id::HAVE_NONE, &[])
            })
        }),
        telling("HAVE of the first piece there is not", NO_PIECE, |line| {
            line.send(id::HAVE, &33_u32.to_be_bytes())
        }),
        telling("HAVE of the last piece there can be", NO_PIECE, |line| {
            line.send(id::HAVE, &u32::MAX.to_be_bytes())
        }),
        telling("REJECT of a block that does not exist", "does not exist", |line| {
            line.send(id::REJECT, &[0xff; 12])
        }),
    ];
    attacks.extend(borne());
    attacks.extend(retold());
    attacks
}

/// What is wrong, or may be, and does no harm.
fn borne() -> Vec<Attack> {
    vec![
        Attack::new("SUGGEST and ALLOWED_FAST of pieces that do not exist").by(End::Kept, |line| {
            line.shake_hands(FAST)?;
            for id in [id::SUGGEST, id::ALLOWED_FAST] {
                line.send(id, &33_u32.to_be_bytes())?;
                line.send(id, &u32::MAX.to_be_bytes())?;
            }
            line.have_everything()?;
            line.send(id::UNCHOKE, &[])?;
            let ask = line.ask()?;
            line.turn_is_over();
            line.answer(ask)?;
            line.serve()
        }),
        Attack::new("no piece at all").by(End::Kept, |line| {
            line.shake_hands(FAST)?;
            line.send(id::HAVE_NONE, &[])?;
            line.send(id::UNCHOKE, &[])?;
            line.hold()
        }),
        Attack::new("everything, and REJECT for every request").by(End::Kept, |line| {
            line.shake_hands(FAST)?;
            line.send(id::HAVE_ALL, &[])?;
            line.send(id::UNCHOKE, &[])?;
            loop {
                let ask = line.ask()?;
                line.send(id::REJECT, &triple(ask))?;
                line.turn_is_over();
            }
        }),
        Attack::new("REJECT of what nobody asked for").by(End::Kept, |line| {
            line.shake_hands(FAST)?;
            line.send(id::HAVE_ALL, &[])?;
            for begin in 0..4_u32 {
                line.send(
                    id::REJECT,
                    &[[0; 4], (begin * 16_384).to_be_bytes(), 16_384_u32.to_be_bytes()].concat(),
                )?;
            }
            line.send(id::UNCHOKE, &[])?;
            let ask = line.ask()?;
            line.turn_is_over();
            line.answer(ask)?;
            line.serve()
        }),
    ]
}

/// Pieces that are told in a way that other clients take.
fn retold() -> Vec<Attack> {
    vec![
        served("a bitfield with its first spare bit set", |line| spare_bit(line, 0x40)),
        served("a bitfield with its last spare bit set", |line| spare_bit(line, 0x01)),
        served("a bitfield twice", |line| {
            line.have_everything()?;
            line.have_everything()
        }),
        served("a bitfield behind HAVE", |line| {
            line.send(id::HAVE, &0_u32.to_be_bytes())?;
            line.have_everything()
        }),
        served("a bitfield behind HAVE_ALL", |line| {
            line.send(id::HAVE_ALL, &[])?;
            line.have_everything()
        }),
        served("HAVE_ALL behind a bitfield", |line| {
            line.send(id::BITFIELD, &[0; 5])?;
            line.send(id::HAVE_ALL, &[])
        }),
        served("HAVE_ALL behind HAVE_NONE", |line| {
            line.send(id::HAVE_NONE, &[])?;
            line.send(id::HAVE_ALL, &[])
        }),
        served("HAVE_NONE, then HAVE of each piece", |line| {
            line.send(id::HAVE_NONE, &[])?;
            (0..33_u32).try_for_each(|piece| line.send(id::HAVE, &piece.to_be_bytes()))
        }),
        served("a bitfield behind UNCHOKE and messages of unknown ids", |line| {
            line.send(id::UNCHOKE, &[])?;
            line.send(99, b"anything")?;
            line.send(id::EXTENDED, &[77, 1, 2, 3])?;
            line.have_everything()
        }),
        taken_back("an empty bitfield that takes everything back", id::BITFIELD, &[0; 5]),
        taken_back("HAVE_NONE that takes everything back", id::HAVE_NONE, &[]),
    ]
}

/// A peer that serves after it has told of its pieces in this way.
fn served(
    name: &'static str,
    tell: impl Fn(&mut Line) -> std::io::Result<()> + Send + Sync + 'static,
) -> Attack {
    Attack::new(name).by(End::Kept, move |line| {
        line.shake_hands(FAST)?;
        tell(line)?;
        line.send(id::UNCHOKE, &[])?;
        let ask = line.ask()?;
        line.turn_is_over();
        line.answer(ask)?;
        line.serve()
    })
}

/// A peer that says to have nothing any more, once it was asked, and serves what it was asked for before.
fn taken_back(name: &'static str, id: u8, payload: &'static [u8]) -> Attack {
    Attack::new(name).by(End::Kept, move |line| {
        line.shake_hands(FAST)?;
        line.have_everything()?;
        line.send(id::UNCHOKE, &[])?;
        let ask = line.ask()?;
        line.send(id, payload)?;
        line.turn_is_over();
        line.answer(ask)?;
        line.serve()
    })
}

fn spare_bit(line: &mut Line, bit: u8) -> std::io::Result<()> {
    let mut bits = line.bitfield();
    bits[4] |= bit;
    line.send(id::BITFIELD, &bits)
}

/// A peer with this bitfield, made of the right one.
fn bitfield(
    name: &'static str,
    fault: &'static str,
    bits: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static,
) -> Attack {
    telling(name, fault, move |line| {
        let bits = bits(&line.bitfield());
        line.send(id::BITFIELD, &bits)
    })
}

/// A peer that tells something wrong and waits for what comes.
fn telling(
    name: &'static str,
    fault: &'static str,
    tell: impl Fn(&mut Line) -> std::io::Result<()> + Send + Sync + 'static,
) -> Attack {
    Attack::new(name).by(End::Closed(fault), move |line| {
        line.shake_hands(FAST)?;
        tell(line)?;
        line.listen()
    })
}
