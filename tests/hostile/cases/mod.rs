//! The attacks, by what is wrong.

use std::io;

use super::line::{Ask, Line};

pub mod addresses;
pub mod blocks;
pub mod chatter;
pub mod chokes;
pub mod corrupt;
pub mod crowds;
pub mod framing;
pub mod gossip;
pub mod pieces;
pub mod resets;
pub mod silence;
pub mod strangers;

/// The requests of the first window, which come together.
fn asks(line: &mut Line) -> io::Result<Vec<Ask>> {
    let mut asks = vec![line.ask()?];
    while line.has_buffered() {
        asks.push(line.ask()?);
    }
    Ok(asks)
}
