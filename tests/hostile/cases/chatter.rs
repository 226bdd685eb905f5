//! Messages that are in order and say nothing: few are borne, floods are not.

use std::io;

use crate::hostile::attack::{Attack, End};
use crate::hostile::line::{EXTENSION, FAST, Line, id, message};

const NOTHING: &str = "bytes of messages and no block";

/// More than any peer may send without a block.
const FLOOD: usize = 64 << 20;

pub fn attacks() -> Vec<Attack> {
    let mut attacks = vec![
        flood("keep-alives without end", vec![0; 4]),
        flood("HAVE of one piece without end", message(id::HAVE, &[0; 4])),
        flood(
            "HAVE of all pieces without end",
            (0..33_u32).flat_map(|piece| message(id::HAVE, &piece.to_be_bytes())).collect(),
        ),
        flood("CHOKE and UNCHOKE without end", [message(id::CHOKE, &[]), message(id::UNCHOKE, &[])].concat()),
        flood("INTERESTED without end", message(id::INTERESTED, &[])),
        flood("requests without end, to one who chokes", message(id::REQUEST, &[0; 12])),
        flood("CANCEL without end", message(8, &[0; 12])),
        flood("REJECT without end", message(id::REJECT, &[[0; 8], [0, 0, 64, 0, 0, 0, 0, 0]].concat()[..12])),
        flood(
            "SUGGEST and ALLOWED_FAST without end",
            [message(id::SUGGEST, &[0; 4]), message(id::ALLOWED_FAST, &[0; 4])].concat(),
        ),
        flood(
            "empty messages of unknown ids without end",
            (200..=255).flat_map(|id| message(id, &[])).collect(),
        ),
        flood(
            "messages of unknown ids, nearly a megabyte each, without end",
            message(99, &vec![7; 1_000_000]),
        ),
        flood("extension handshakes without end", message(id::EXTENDED, b"\0d1:md6:ut_pexi1eee")),
        flood(
            "broken extension handshakes without end",
            message(id::EXTENDED, &[&[0], &b"l".repeat(20_000)[..]].concat()),
        ),
        Attack::new("a message of an unknown id between all blocks").by(End::Kept, |line| {
            line.open()?;
            for id in (10..=12).chain([18, 19]).chain(21..=255).cycle() {
                let ask = line.ask()?;
                line.send(id, &vec![id; usize::from(id)])?;
                line.answer(ask)?;
                line.turn_is_over();
            }
            Ok(())
        }),
        Attack::new("all unknown ids before the first block").by(End::Kept, |line| {
            line.open()?;
            for id in (10..=12).chain([18, 19]).chain(21..=255) {
                line.send(id, &[0; 300])?;
            }
            serve(line)
        }),
        Attack::new("forty thousand HAVEs before the first block").by(End::Kept, |line| {
            line.open()?;
            line.flood(&message(id::HAVE, &[0; 4]), 400_000)?;
            serve(line)
        }),
    ];
    attacks.push(
        broken()
            .into_iter()
            .fold(Attack::new("extension handshakes of broken bencode"), |attack, payload| {
                attack.by(End::Kept, move |line| extended(line, 0, &payload))
            }),
    );
    attacks.push(
        broken()
            .into_iter()
            .fold(Attack::new("extended messages of ids that were not offered"), |attack, payload| {
                attack.by(End::Kept, move |line| extended(line, 7, &payload))
            }),
    );
    attacks
}

/// A peer that begins properly and then sends these bytes for ever.
fn flood(name: &'static str, bytes: Vec<u8>) -> Attack {
    Attack::new(name).by(End::Closed(NOTHING), move |line| {
        line.shake_hands(FAST | EXTENSION)?;
        line.have_everything()?;
        line.flood(&bytes, FLOOD)?;
        line.listen()
    })
}

/// A peer that says this first and is honest then.
fn extended(line: &mut Line, extension: u8, payload: &[u8]) -> io::Result<()> {
    line.shake_hands(EXTENSION)?;
    line.have_everything()?;
    line.send(id::EXTENDED, &[&[extension], payload].concat())?;
    line.send(id::UNCHOKE, &[])?;
    serve(line)
}

/// It answers one request, then lets the others go first.
fn serve(line: &mut Line) -> io::Result<()> {
    let ask = line.ask()?;
    line.answer(ask)?;
    line.turn_is_over();
    line.serve()
}

/// What is no dictionary of extensions.
fn broken() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 20] = [
        b"",
        b"d",
        b"de",
        b"le",
        b"i5e",
        b"i",
        b"d1:m",
        b"d1:mi5ee",
        b"d1:mlee",
        b"d4:reqqi0ee",
        b"d4:reqqi-1ee",
        b"d4:reqqi99999999999999999999999999ee",
        b"d4:reqqi-ee",
        b"d4:reqq3:abce",
        b"d4:reqqi5e",
        b"d4:reqqi05ee",
        b"99999999999999999999:",
        b"d4294967295:",
        b"d1:ai1e1:ai2ee",
        b"d1:md11:ut_metadatai3eee and more",
    ];
    let mut broken: Vec<Vec<u8>> = texts.map(<[u8]>::to_vec).into();
    broken.extend([b"l".repeat(30_000), b"d1:a".repeat(7_000), b"d0:".repeat(10_000), vec![0xff; 30_000]]);
    broken
}
