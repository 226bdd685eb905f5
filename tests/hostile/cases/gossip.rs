//! Peers that tell of other peers, whom there are not, too often or in no language, and that allow what they choke.

use std::io;
use std::thread;
use std::time::Duration;

use crate::hostile::attack::{Attack, End};
use crate::hostile::line::{EXTENSION, FAST, Line, id};

/// The number under which the program takes messages of the peer exchange.
const PEX: u8 = 2;

const TOO_OFTEN: &str = "told of other peers too often";

pub fn attacks() -> Vec<Attack> {
    let mut attacks = vec![
        Attack::new("messages of the peer exchange without end").by(End::Closed(TOO_OFTEN), |line| {
            greet(line)?;
            for count in 0..10_000_u32 {
                line.send(id::EXTENDED, &told(&nowhere(count * 100, 100)))?;
            }
            line.listen()
        }),
        Attack::new("empty messages of the peer exchange without end").by(End::Closed(TOO_OFTEN), |line| {
            greet(line)?;
            for _ in 0..10_000 {
                line.send(id::EXTENDED, &[PEX, b'd', b'e'])?;
            }
            line.listen()
        }),
        Attack::new("four messages of the peer exchange, with five thousand addresses each").by(
            End::Kept,
            |line| {
                greet(line)?;
                for count in 0..4 {
                    line.send(id::EXTENDED, &told(&nowhere(count * 5_000, 5_000)))?;
                }
                serve(line)
            },
        ),
        Attack::new("the peer exchange names the teller and nobody").by(End::Kept, |line| {
            greet(line)?;
            let mut list = nowhere(0, 1);
            list.extend([127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 224, 0, 0, 1, 0, 9]);
            line.send(id::EXTENDED, &told(&list))?;
            serve(line)
        }),
    ];
    attacks.extend(about_allowed_pieces());
    attacks.push(broken().into_iter().fold(
        Attack::new("broken messages of the peer exchange"),
        |attack, payload| {
            attack.by(End::Kept, move |line| {
                greet(line)?;
                line.send(id::EXTENDED, &[&[PEX], &payload[..]].concat())?;
                serve(line)
            })
        },
    ));
    attacks
}

/// What peers say of pieces that they serve while they choke.
fn about_allowed_pieces() -> Vec<Attack> {
    vec![
        Attack::new("ALLOWED_FAST of all pieces and of none there are, again and again").by(
            End::Kept,
            |line| {
                greet(line)?;
                for piece in (0..10_000_u32).chain([u32::MAX]) {
                    line.send(id::ALLOWED_FAST, &piece.to_be_bytes())?;
                    line.send(id::SUGGEST, &piece.to_be_bytes())?;
                }
                serve(line)
            },
        ),
        Attack::new("ALLOWED_FAST, and REJECT of what was asked for").by(End::Kept, |line| {
            line.shake_hands(FAST)?;
            line.send(id::HAVE_ALL, &[])?;
            for piece in 0..3_u32 {
                line.send(id::ALLOWED_FAST, &piece.to_be_bytes())?;
            }
            for times in 0.. {
                let ask = line.ask()?;
                line.send(id::REJECT, &crate::hostile::line::triple(ask))?;
                if times == 2 {
                    line.turn_is_over();
                }
            }
            Ok(())
        }),
        Attack::new("ALLOWED_FAST without the fast extension").by(
            End::Closed("has not announced that"),
            |line| {
                line.open()?;
                line.send(id::ALLOWED_FAST, &[0; 4])?;
                line.listen()
            },
        ),
        // The only one who has anything.
        Attack::new("chokes for ever and allows all pieces, a few at a time")
            .beside(std::sync::Arc::new(|line: &mut Line| {
                line.shake_hands(FAST)?;
                line.send(id::HAVE_ALL, &[])?;
                let count = line.content.piece_count() as u32;
                for piece in 0..count.min(32) {
                    line.send(id::ALLOWED_FAST, &piece.to_be_bytes())?;
                }
                line.serve()
            }))
            .of(crate::support::content::Content::single("content", 20 * 65_536 + 5_000, 65_536)),
    ]
}

fn greet(line: &mut Line) -> io::Result<()> {
    line.shake_hands(FAST | EXTENSION)?;
    line.have_everything()?;
    line.send(id::EXTENDED, b"\0d1:md6:ut_pexi1eee")
}

/// It answers one request, then lets the others go first.
fn serve(line: &mut Line) -> io::Result<()> {
    line.send(id::UNCHOKE, &[])?;
    let ask = line.ask()?;
    line.answer(ask)?;
    thread::sleep(Duration::from_millis(300));
    line.turn_is_over();
    line.serve()
}

/// Ports of this machine at which nobody listens, from 127.99.0.0 on: they refuse at once.
fn nowhere(from: u32, count: u32) -> Vec<u8> {
    let addr = |number: u32| [&(0x7f63_0000 + number).to_be_bytes()[..], &[0, 9]].concat();
    (from..from + count).flat_map(addr).collect()
}

/// The message that names these.
fn told(list: &[u8]) -> Vec<u8> {
    let mut message = vec![PEX];
    message.extend(format!("d5:added{}:", list.len()).bytes());
    message.extend(list);
    message.push(b'e');
    message
}

fn broken() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 9] = [
        b"",
        b"d",
        b"le",
        b"d5:addedi5ee",
        b"d5:added5:aaaaae",
        b"d5:added6:aaaaaa7:added.fi1ee",
        b"d5:added99999999999999999999:",
        b"d6:added617:aaaaaaaaaaaaaaaaae",
        b"d7:droppedlee",
    ];
    let mut broken: Vec<Vec<u8>> = texts.map(<[u8]>::to_vec).into();
    broken.extend([b"l".repeat(30_000), vec![0xff; 30_000]]);
    broken
}
