//! Peers that are not the ones that were meant.

use crate::hostile::attack::{Attack, End};
use crate::hostile::line::Line;

pub fn attacks() -> Vec<Attack> {
    vec![
        Attack::new("another info hash").by(End::Closed("it serves another torrent"), |line| {
            line.read_handshake()?;
            line.content.info_hash[19] ^= 1;
            let hello = line.handshake(0);
            line.raw(&hello)?;
            line.listen()
        }),
        Attack::new("an info hash of zeros, and data").by(End::Closed("it serves another torrent"), |line| {
            line.content.info_hash = [0; 20];
            line.open()?;
            line.flood(&[0; 64], 1 << 20)?;
            line.listen()
        }),
        Attack::new("our own peer id").by(End::Closed("it is this process"), |line| {
            line.read_handshake()?;
            let hello = line.theirs;
            line.raw(&hello)?;
            line.listen()
        }),
        saying("a handshake of another protocol", "handshake names another protocol", |line| {
            let mut hello = line.handshake(0);
            hello[19] = b'L';
            hello
        }),
        saying("a handshake with another length", "handshake starts with byte 20", |line| {
            let mut hello = line.handshake(0);
            hello[0] = 20;
            hello
        }),
        saying("noise", "handshake starts with byte", |line| line.content.bytes[..200].to_vec()),
        saying("zeros without end", "handshake starts with byte 0", |_| vec![0; 8 << 20]),
        saying("a web page", "handshake starts with byte 72", |_| {
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n\r\n\r\n\r\n\r\n"
                .to_vec()
        }),
        // Each bit has a meaning to somebody; the two that we know are taken at their word.
        Attack::new("all reserved bits set").by(End::Kept, |line| {
            line.shake_hands(u64::MAX)?;
            line.have_everything()?;
            line.send(crate::hostile::line::id::UNCHOKE, &[])?;
            let ask = line.ask()?;
            line.turn_is_over();
            line.answer(ask)?;
            line.serve()
        }),
    ]
}

/// A peer that says that where a handshake is due.
fn saying(
    name: &'static str,
    fault: &'static str,
    hello: impl Fn(&mut Line) -> Vec<u8> + Send + Sync + 'static,
) -> Attack {
    Attack::new(name).by(End::Closed(fault), move |line| {
        let hello = hello(line);
        line.raw(&hello)?;
        line.listen()
    })
}
