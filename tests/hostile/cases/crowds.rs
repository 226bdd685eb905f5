//! Many at a time, for what they cost together.

use std::io;

use super::asks;
use crate::hostile::attack::{Attack, End};
use crate::hostile::line::{BLOCK_LEN, EXTENSION, FAST, Line, announcing, id, message};
use crate::support::content::Content;

/// Fewer than the connections that are made at a time, so that the honest one is among them.
const CROWD: usize = 250;

pub fn attacks() -> Vec<Attack> {
    vec![
        crowd("stop before the end of the longest extended message", |line| {
            line.shake_hands(EXTENSION)?;
            // As long as it may be, or the crowd is gone at once.
            line.raw(&announcing(EXTENDED_MAX, id::EXTENDED, &vec![b'l'; EXTENDED_MAX as usize - 2]))
        }),
        crowd("stop before the end of a message of an unknown id", |line| {
            line.shake_hands(0)?;
            line.raw(&announcing(1 << 20, 99, &vec![7; (1 << 20) - 2]))
        }),
        crowd("take requests and never answer", |line| {
            line.open()?;
            line.ask().map(drop)
        }),
        crowd("stop in the middle of a block", |line| {
            line.open()?;
            let ask = line.ask()?;
            let block = line.block(ask);
            line.raw(&block[..BLOCK_LEN / 2])
        }),
        crowd("send half of each piece in any order, with much between", half_of_each),
        crowd("send half of each piece in any order, where it is written and not mapped", half_of_each)
            .with(&["--io", "pwrite"]),
        crowd("send half of each piece, where the output is written and not mapped", |line| {
            line.open()?;
            let asks = asks(line)?;
            asks[..asks.len() / 2].iter().try_for_each(|&ask| line.answer(ask))
        })
        .with(&["--io", "pwrite"]),
        crowd("never read", |line| {
            line.open()?;
            line.turn_is_over();
            std::thread::sleep(std::time::Duration::from_secs(30));
            Ok(())
        }),
    ]
}

/// The longest extended message that is taken.
const EXTENDED_MAX: u32 = 32 * 1024;

fn crowd(
    name: &'static str,
    begin: impl Fn(&mut Line) -> io::Result<()> + Clone + Send + Sync + 'static,
) -> Attack {
    (0..CROWD)
        .fold(Attack::new(name), |attack, _| {
            let begin = begin.clone();
            attack.by(End::Kept, move |line| {
                begin(line)?;
                line.hold()
            })
        })
        .of(Content::single("large", 64 << 20, 256 << 10))
}

/// The last half of what was asked for, backward.
fn half_of_each(line: &mut Line) -> io::Result<()> {
    line.shake_hands(FAST)?;
    line.send(id::HAVE_ALL, &[])?;
    line.send(id::UNCHOKE, &[])?;
    let asks = asks(line)?;
    for &ask in asks[asks.len() / 2..].iter().rev() {
        line.raw(&message(id::HAVE, &[0; 4]).repeat(10))?;
        line.answer(ask)?;
    }
    Ok(())
}
