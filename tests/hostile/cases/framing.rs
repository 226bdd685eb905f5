//! Bytes that are no messages.

use crate::hostile::attack::{Attack, End};
use crate::hostile::line::{EXTENSION, FAST, announcing, id};

/// The length alone is too much for any message.
const TOO_LONG: &str = "a message announces";
/// The length is not one that its id may have.
const WRONG_LENGTH: &str = "message of id ";

/// Longer than anything, among them the numbers that are negative, and those that come to 0 with a header added.
const HUGE: [u32; 7] =
    [(1 << 20) + 1, i32::MAX as u32, 1 << 31, (1 << 31) + 9, u32::MAX - 12, u32::MAX - 3, u32::MAX];

/// The ids, and the shortest and the longest message of each.
const LENGTHS: [(u8, u32, u32); 15] = [
    (0, 1, 1),
    (1, 1, 1),
    (2, 1, 1),
    (3, 1, 1),
    (4, 5, 5),
    (5, 6, 6),
    (6, 13, 13),
    (7, 10, 16_393),
    (8, 13, 13),
    (9, 3, 3),
    (13, 5, 5),
    (14, 1, 1),
    (15, 1, 1),
    (16, 13, 13),
    (17, 5, 5),
];

pub fn attacks() -> Vec<Attack> {
    let huge = |name: &'static str, behind: &'static [u8]| {
        HUGE.iter().fold(Attack::new(name), |attack, len| {
            attack.by(End::Closed(TOO_LONG), move |line| {
                line.shake_hands(FAST | EXTENSION)?;
                line.raw(&[&len.to_be_bytes()[..], behind].concat())?;
                line.listen()
            })
        })
    };
    let mut attacks = vec![
        huge("length prefixes from 2^20 to 2^32-1 and nothing more", &[]),
        huge("the same for a block", &[id::PIECE, 0, 0, 0, 0, 0, 0, 0, 0]),
        huge("the same for a bitfield", &[id::BITFIELD, 0xff]),
        huge("the same for an extended message", &[id::EXTENDED, 0, b'd']),
        huge("the same for an unknown message", &[99, 0, 0, 0]),
        HUGE.iter().fold(Attack::new("the same where a block is expected"), |attack, len| {
            attack.by(End::Closed(TOO_LONG), move |line| {
                line.open()?;
                let ask = line.ask()?;
                line.answer(ask)?;
                line.raw(&announcing(*len, id::PIECE, &[0; 100]))?;
                line.listen()
            })
        }),
        Attack::new("an extended message without an id").by(
            End::Closed("message of id 20 announces 1 bytes"),
            |line| {
                line.shake_hands(EXTENSION)?;
                line.send(id::EXTENDED, &[])?;
                line.listen()
            },
        ),
        Attack::new("an extended message of a megabyte").by(
            End::Closed("message of id 20 announces 1000002 bytes"),
            |line| {
                line.shake_hands(EXTENSION)?;
                line.send(id::EXTENDED, &vec![0; 1_000_001])?;
                line.listen()
            },
        ),
        Attack::new("noise behind the handshake").by(End::Closed(TOO_LONG), |line| {
            line.shake_hands(0)?;
            let noise = line.content.bytes[..100_000].to_vec();
            line.raw(&noise)?;
            line.listen()
        }),
    ];
    // A message of no byte is a keep-alive, whatever its id would be.
    let short = LENGTHS.iter().filter(|(_, min, _)| *min > 1).map(|&(id, min, _)| (id, min - 1));
    attacks.push(announced("every id with a byte too few", short));
    let long = LENGTHS.iter().map(|&(id, _, max)| (id, max + 1));
    attacks.push(announced("every id with a byte too many", long));
    attacks
}

/// Peers that each send a message of such an id and length.
fn announced(name: &'static str, messages: impl Iterator<Item = (u8, u32)>) -> Attack {
    messages.fold(Attack::new(name), |attack, (id, len)| {
        attack.by(End::Closed(WRONG_LENGTH), move |line| {
            line.shake_hands(FAST | EXTENSION)?;
            line.raw(&announcing(len, id, &vec![0; len as usize - 1]))?;
            line.listen()
        })
    })
}
