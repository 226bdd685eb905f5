//! Peers that allow requests and forbid them again.

use std::thread;
use std::time::Duration;

use super::asks;
use crate::hostile::attack::{Attack, End};
use crate::hostile::line::{FAST, id, message};

pub fn attacks() -> Vec<Attack> {
    let flap = [message(id::CHOKE, &[]), message(id::UNCHOKE, &[])].concat();
    let flaps = flap.repeat(1_000);
    let mut attacks = vec![
        Attack::new("CHOKE and UNCHOKE a thousand times in one go").by(End::Kept, move |line| {
            line.open()?;
            line.ask()?;
            line.raw(&flaps)?;
            line.turn_is_over();
            line.serve()
        }),
        Attack::new("CHOKE and UNCHOKE a hundred times a second").by(End::Kept, move |line| {
            line.open()?;
            for times in 0.. {
                line.raw(&flap)?;
                thread::sleep(Duration::from_millis(10));
                if times == 30 {
                    line.turn_is_over();
                }
            }
            Ok(())
        }),
        Attack::new("CHOKE for every request").by(End::Kept, |line| {
            line.open()?;
            for times in 0.. {
                line.ask()?;
                line.send(id::CHOKE, &[])?;
                line.send(id::UNCHOKE, &[])?;
                if times == 2 {
                    line.turn_is_over();
                }
            }
            Ok(())
        }),
        Attack::new("CHOKE with requests in flight, for ever").by(End::Kept, |line| {
            line.open()?;
            let ask = line.ask()?;
            line.answer(ask)?;
            line.send(id::CHOKE, &[])?;
            line.hold()
        }),
    ];
    attacks.extend(with_answers());
    attacks
}

/// Chokes after which something comes all the same.
fn with_answers() -> Vec<Attack> {
    vec![
        Attack::new("CHOKE in the middle of a window, which is answered all the same").by(
            End::Kept,
            |line| {
                line.open()?;
                let asks = asks(line)?;
                let (before, after) = asks.split_at(asks.len() / 2);
                before.iter().try_for_each(|&ask| line.answer(ask))?;
                line.send(id::CHOKE, &[])?;
                after.iter().try_for_each(|&ask| line.answer(ask))?;
                line.turn_is_over();
                line.send(id::UNCHOKE, &[])?;
                line.serve()
            },
        ),
        Attack::new("CHOKE, and wrong bytes for what was asked for before").by(End::Kept, |line| {
            line.open()?;
            let asks = asks(line)?;
            line.send(id::CHOKE, &[])?;
            for ask in asks {
                let block = line.corrupt_block(ask);
                line.raw(&block)?;
            }
            line.hold()
        }),
        Attack::new("CHOKE and REJECT of all that was asked for, twice").by(End::Kept, |line| {
            line.shake_hands(FAST)?;
            line.send(id::HAVE_ALL, &[])?;
            line.send(id::UNCHOKE, &[])?;
            let asks = asks(line)?;
            line.send(id::CHOKE, &[])?;
            for ask in asks.iter().chain(&asks) {
                line.send(id::REJECT, &crate::hostile::line::triple(*ask))?;
            }
            line.send(id::UNCHOKE, &[])?;
            line.turn_is_over();
            line.serve()
        }),
        Attack::new("UNCHOKE before anything else").by(End::Kept, |line| {
            line.shake_hands(0)?;
            line.send(id::UNCHOKE, &[])?;
            line.have_everything()?;
            let ask = line.ask()?;
            line.turn_is_over();
            line.answer(ask)?;
            line.serve()
        }),
    ]
}
