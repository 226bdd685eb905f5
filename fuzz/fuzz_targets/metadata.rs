//! The metadata exchange. First a message, whatever it is, against a plain reading of it; then what several peers do, of
//! whom one is honest: the right bytes come in the end.
#![no_main]

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use ringtide::meta::bencode::{Limits, parse_prefix};
use ringtide::meta::torrent::InfoHash;
use ringtide::swarm::metadata::{Action, Exchange};
use ringtide::wire::metadata::{METADATA_PIECE_LEN, MetadataMessage};

/// Two pieces, the second a short one.
const LEN: usize = METADATA_PIECE_LEN as usize + 3;

/// The peer that always answers, and rightly.
const HONEST: u16 = 3;

fuzz_target!(|bytes: &[u8]| {
    check_message(bytes);
    exchange(bytes);
});

fn check_message(payload: &[u8]) {
    let Ok(message) = MetadataMessage::parse(payload) else { return };
    let (document, rest) = parse_prefix(payload, Limits::PEER_MESSAGE).expect("it was parsed before");
    let number = |key| document.root().get(key).and_then(|value| value.as_u64());
    let kind = number("msg_type").expect("it was found before");
    let expected = match kind {
        0 => MetadataMessage::Request { piece: number("piece").expect("checked") as u32 },
        1 => MetadataMessage::Data {
            piece: number("piece").expect("checked") as u32,
            total_len: number("total_size"),
            data: rest,
        },
        2 => MetadataMessage::Reject { piece: number("piece").expect("checked") as u32 },
        _ => return assert_eq!(message, MetadataMessage::Unknown),
    };
    assert_eq!(message, expected);
    assert!(rest.len() <= METADATA_PIECE_LEN as usize || kind != 1);
    assert_eq!(MetadataMessage::parse(&message.encode()), Ok(message));
}

fn peer(number: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 1000 + number))
}

fn exchange(script: &[u8]) {
    let info: Vec<u8> = (0..LEN).map(|at| (at / 251) as u8).collect();
    let mut exchange = Exchange::new(InfoHash::of(&info));
    let mut now = Instant::now();
    let mut asked: HashSet<(SocketAddr, u32)> = HashSet::new();
    let mut complete = None;
    for step in script.chunks(3).take(200) {
        let [what, who, how] = [0, 1, 2].map(|at| step.get(at).copied().unwrap_or_default());
        // Of the honest one nothing is heard yet.
        let number = u16::from(who % 6);
        let liar = peer(if number == HONEST { 6 } else { number });
        let fault = match what % 5 {
            0 => exchange.offered(liar, (LEN + usize::from(how % 3)) as u64 - 1, now).err(),
            1 => {
                exchange.gone(liar);
                None
            }
            2 => exchange.heard(liar, MetadataMessage::Reject { piece: u32::from(how) }, now).err(),
            3 => {
                now += Duration::from_millis(100 * u64::from(how));
                None
            }
            _ => {
                let mut data = info
                    .chunks(METADATA_PIECE_LEN as usize)
                    .nth(usize::from(how & 1))
                    .unwrap_or_default()
                    .to_vec();
                data[0] ^= how & 2;
                let message =
                    MetadataMessage::Data { piece: u32::from(how & 1), total_len: None, data: &data };
                match exchange.heard(liar, message, now) {
                    Ok(bytes) => {
                        complete = complete.or(bytes);
                        None
                    }
                    Err(fault) => Some(fault),
                }
            }
        };
        if fault.is_some() {
            exchange.gone(liar);
        }
        note(&mut exchange, now, &mut asked);
    }
    exchange.offered(peer(HONEST), LEN as u64, now).expect("it is welcome");
    for _ in 0..10_000 {
        if complete.is_some() {
            break;
        }
        note(&mut exchange, now, &mut asked);
        let mine: Vec<u32> =
            asked.iter().filter(|(addr, _)| *addr == peer(HONEST)).map(|&(_, piece)| piece).collect();
        asked.clear();
        for piece in mine {
            let data =
                info.chunks(METADATA_PIECE_LEN as usize).nth(piece as usize).expect("a piece that there is");
            let message = MetadataMessage::Data { piece, total_len: Some(LEN as u64), data };
            complete = complete.or(exchange.heard(peer(HONEST), message, now).expect("it is honest"));
        }
        now += Duration::from_millis(250);
    }
    assert!(complete == Some(info), "the right bytes did not come");
}

/// Carries out what is to be done, which the honest one must survive.
fn note(exchange: &mut Exchange, now: Instant, asked: &mut HashSet<(SocketAddr, u32)>) {
    for action in exchange.actions(now) {
        match action {
            Action::Request { peer, piece } => {
                asked.insert((peer, piece));
            }
            Action::Ban(liar) => assert_ne!(liar, peer(HONEST)),
        }
    }
}
