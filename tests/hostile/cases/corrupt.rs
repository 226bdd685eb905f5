//! Wrong bytes in blocks that look right. The hash tells of the piece; who it was must be found out.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::hostile::attack::{Attack, End};
use crate::hostile::line::{BLOCK_LEN, Line, block};
use crate::hostile::peer::{Script, honest};
use crate::support::content::Content;

pub fn attacks() -> Vec<Attack> {
    vec![
        Attack::new("every block is corrupt").by(End::Banned, |line| {
            line.open()?;
            lie(line, usize::MAX)
        }),
        Attack::new("one block of each piece is corrupt").by(End::Banned, |line| {
            line.open()?;
            loop {
                let ask = line.ask()?;
                let block = if ask.begin == 0 { line.corrupt_block(ask) } else { line.block(ask) };
                line.raw(&block)?;
            }
        }),
        Attack::new("only the short last block is corrupt").by(End::Banned, |line| {
            line.open()?;
            loop {
                let ask = line.ask()?;
                let block = if ask.len < BLOCK_LEN { line.corrupt_block(ask) } else { line.block(ask) };
                line.raw(&block)?;
            }
        }),
        among_many("one liar among six, who then falls silent", |line| {
            line.open()?;
            lie(line, 3)?;
            line.hold()
        }),
        among_many("one liar among six, who leaves in the middle of a piece", |line| {
            line.open()?;
            lie(line, 3)?;
            line.close()
        }),
        among_many("one liar among six, who chokes in the middle of a piece", |line| {
            line.open()?;
            lie(line, 3)?;
            line.send(crate::hostile::line::id::CHOKE, &[])?;
            line.hold()
        }),
        two_liars(),
        // Its only piece is being fetched by another, so it is asked to help with that.
        Attack::new("a liar who helps with another's piece")
            .of(Content::single("one", 64 * BLOCK_LEN, 64 * BLOCK_LEN))
            .by(End::Banned, |line| {
                thread::sleep(Duration::from_millis(100));
                line.open()?;
                line.turn_is_over();
                lie(line, usize::MAX)
            })
            .beside(slow(Duration::from_millis(25))),
        Attack::new("the bodies of two blocks are swapped").by(End::Banned, |line| {
            line.open()?;
            loop {
                let (one, other) = (line.ask()?, line.ask()?);
                let swapped = [
                    block(one.piece, one.begin, line.body(other)),
                    block(other.piece, other.begin, line.body(one)),
                ];
                line.raw(&swapped.concat())?;
            }
        }),
        Attack::new("the bodies are those of the next piece").by(End::Banned, |line| {
            line.open()?;
            loop {
                let ask = line.ask()?;
                let mut other = ask;
                // The last piece is shorter than the others.
                other.piece = (ask.piece + 1) % (line.content.piece_count() - 1);
                let bytes = block(ask.piece, ask.begin, line.body(other));
                line.raw(&bytes)?;
            }
        }),
    ]
}

/// Answers that many requests wrongly.
fn lie(line: &mut Line, count: usize) -> io::Result<()> {
    for _ in 0..count {
        let ask = line.ask()?;
        let block = line.corrupt_block(ask);
        line.raw(&block)?;
    }
    Ok(())
}

/// A liar among five honest peers, who have to finish what he began.
fn among_many(
    name: &'static str,
    liar: impl Fn(&mut Line) -> io::Result<()> + Send + Sync + 'static,
) -> Attack {
    (0..5).fold(Attack::new(name).by(End::Banned, liar), |attack, _| {
        attack.beside(honest(Duration::from_millis(1)))
    })
}

/// One begins a piece, another goes on with it, an honest one ends it.
fn two_liars() -> Attack {
    let first_is_done = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&first_is_done);
    Attack::new("two liars in one piece")
        .by(End::Banned, move |line| {
            line.open()?;
            lie(line, 1)?;
            done.store(true, Ordering::Relaxed);
            line.close()
        })
        .by(End::Banned, move |line| {
            while !first_is_done.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(1));
            }
            line.open()?;
            lie(line, 1)?;
            line.close()
        })
}

/// An honest peer that begins before the gate is open.
fn slow(pause: Duration) -> Script {
    Arc::new(move |line: &mut Line| {
        line.open()?;
        loop {
            let ask = line.ask()?;
            thread::sleep(pause);
            line.answer(ask)?;
        }
    })
}
