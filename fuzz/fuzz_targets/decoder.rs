//! The streaming decoder: the same bytes give the same events however they are cut, and the naive decoder agrees.
//!
//! The first two bytes choose the limits and the cuts. At some cuts the decoder is left behind and a new one is set to
//! its place, as a receive does that takes blocks past it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringtide::wire::decoder::{Decoder, Event, Limits, MESSAGE_MAX, Position, WireError};
use ringtide::wire::message::{Message, PieceHeader};

#[derive(PartialEq, Eq, Debug)]
enum Heard {
    /// As it is written.
    Message(Vec<u8>),
    Block(PieceHeader, Vec<u8>),
}

fuzz_target!(|input: &[u8]| {
    let [pieces, seed, bytes @ ..] = input else { return };
    let limits = Limits { extended_max: 300, ..Limits::of_pieces(u32::from(*pieces)) };
    let expected = naive(bytes, limits);
    assert_eq!(decode(bytes, limits, &mut |left| left), expected);
    assert_eq!(decode(bytes, limits, &mut |_| 1), expected);
    let mut state = u32::from(*seed) + 1;
    let mut cut = |left: usize| {
        // xorshift32
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let most = if state.is_multiple_of(3) { left } else { left.min(40) };
        1 + (state >> 8) as usize % most
    };
    assert_eq!(decode(bytes, limits, &mut cut), expected);
});

fn decode(
    mut bytes: &[u8],
    limits: Limits,
    cut: &mut impl FnMut(usize) -> usize,
) -> (Vec<Heard>, Option<WireError>) {
    let mut decoder = Decoder::new(limits);
    let (mut heard, mut block) = (Vec::new(), None);
    while !bytes.is_empty() {
        let (input, rest) = bytes.split_at(cut(bytes.len()));
        bytes = rest;
        if let Err(error) = hear(&mut decoder, input, &mut heard, &mut block) {
            let again = hear(&mut decoder, rest, &mut heard, &mut block);
            assert_eq!(again, Err(error), "an error is final");
            return (heard, Some(error));
        }
        if input.len().is_multiple_of(2) {
            decoder = moved(&decoder, limits).unwrap_or(decoder);
        }
    }
    (heard, None)
}

fn hear(
    decoder: &mut Decoder,
    mut input: &[u8],
    heard: &mut Vec<Heard>,
    block: &mut Option<(PieceHeader, Vec<u8>)>,
) -> Result<(), WireError> {
    while let Some(event) = decoder.next(&mut input)? {
        match event {
            Event::Message(message) => {
                assert_eq!(*block, None);
                heard.push(Heard::message(message));
            }
            Event::BlockStart(header) => assert_eq!(block.replace((header, Vec::new())), None),
            Event::BlockData { header, at, data, last } => {
                let (started, mut body) = block.take().expect("a block has begun");
                assert_eq!((started, body.len()), (header, at as usize));
                assert!(!data.is_empty());
                body.extend_from_slice(data);
                assert_eq!(last, body.len() == header.len as usize);
                if last {
                    heard.push(Heard::Block(header, body));
                } else {
                    *block = Some((header, body));
                }
            }
        }
    }
    assert!(input.is_empty(), "no event, so nothing is left");
    Ok(())
}

/// Another decoder at the same place, where that can be. A prefix is one only if it begins a block.
fn moved(decoder: &Decoder, limits: Limits) -> Option<Decoder> {
    let mut other = Decoder::new(limits);
    match decoder.position() {
        Position::Control => return None,
        Position::Boundary { prefix: [] } => other.set_boundary(),
        Position::Boundary { prefix } if prefix.len() > 4 => other.set_prefix(prefix),
        Position::Boundary { .. } => return None,
        Position::Body { header, done } => other.set_body(header, done),
    }
    assert_eq!(other.position(), decoder.position());
    Some(other)
}

/// The slow obvious decoder: it has the whole stream in one slice. A block that is not complete is not heard.
fn naive(mut bytes: &[u8], limits: Limits) -> (Vec<Heard>, Option<WireError>) {
    let mut heard = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<4>() {
        let len = u32::from_be_bytes(*head);
        if len == 0 {
            heard.push(Heard::message(Message::KeepAlive));
            bytes = rest;
            continue;
        }
        // A length that no id allows is refused before the id is there.
        let longest = MESSAGE_MAX.max(limits.bitfield_len + 1).max(limits.extended_max);
        if len > longest {
            return (heard, Some(WireError::TooLong { len, max: longest }));
        }
        let Some(&id) = rest.first() else { break };
        let (min, max) = match id {
            0..=3 | 14 | 15 => (1, 1),
            4 | 13 | 17 => (5, 5),
            5 => (limits.bitfield_len + 1, limits.bitfield_len + 1),
            6 | 8 | 16 => (13, 13),
            7 => (10, 16_393),
            9 => (3, 3),
            20 => (2, limits.extended_max),
            _ => (1, MESSAGE_MAX),
        };
        if !(min..=max).contains(&len) {
            return (heard, Some(WireError::Length { id, len, min, max }));
        }
        let Some((message, behind)) = rest.split_at_checked(len as usize) else { break };
        if id == 7 {
            let header = bytes.first_chunk().and_then(PieceHeader::decode).expect("a header");
            assert_eq!(header.encode(), bytes[..PieceHeader::LEN]);
            heard.push(Heard::Block(header, message[9..].to_vec()));
        } else {
            let decoded = Message::decode(id, &message[1..]).expect("a message of the right length");
            let written = Heard::message(decoded);
            let is_known = !matches!(decoded, Message::Unknown { .. });
            let Heard::Message(again) = &written else { unreachable!("it is a message") };
            assert!(!is_known || again[..] == bytes[..4 + len as usize], "written as it was read");
            heard.push(written);
        }
        bytes = behind;
    }
    (heard, None)
}

impl Heard {
    fn message(message: Message<'_>) -> Self {
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        Self::Message(bytes)
    }
}
