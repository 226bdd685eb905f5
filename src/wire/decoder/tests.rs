use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::wire::message::RawBlock;

/// An event that owns its bytes; a block is one event.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Heard {
    Message(Vec<u8>),
    Block(PieceHeader, Vec<u8>),
}

type Outcome = (Vec<Heard>, Option<WireError>);

impl Heard {
    fn message(message: Message<'_>) -> Self {
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        Self::Message(bytes)
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Message(bytes) => out.extend_from_slice(bytes),
            Self::Block(header, body) => {
                out.extend_from_slice(&header.encode());
                out.extend_from_slice(body);
            }
        }
    }
}

const LIMITS: Limits = Limits { bitfield_len: 5, pieces_unknown: false, extended_max: 300 };

/// The slow obvious decoder: it has the whole stream in one slice. A block that is not complete is not heard.
fn oracle(mut bytes: &[u8]) -> Outcome {
    let mut heard = Vec::new();
    while bytes.len() >= 4 {
        let len = u32::from_be_bytes(bytes[..4].try_into().unwrap());
        if len == 0 {
            heard.push(Heard::message(Message::KeepAlive));
            bytes = &bytes[4..];
            continue;
        }
        if len > MESSAGE_MAX {
            return (heard, Some(WireError::TooLong { len, max: MESSAGE_MAX }));
        }
        let Some(&id) = bytes.get(4) else { break };
        let expected = match id {
            0..=3 | 14 | 15 => 1..=1,
            4 | 13 | 17 => 5..=5,
            5 => 6..=6,
            6 | 8 | 16 => 13..=13,
            7 => 10..=16_393,
            9 => 3..=3,
            20 => 2..=300,
            _ => 1..=1_048_576,
        };
        if !expected.contains(&len) {
            return (
                heard,
                Some(WireError::Length { id, len, min: *expected.start(), max: *expected.end() }),
            );
        }
        let end = 4 + len as usize;
        if bytes.len() < end {
            break;
        }
        if id == 7 {
            let header = PieceHeader::decode(bytes[..13].try_into().unwrap()).unwrap();
            heard.push(Heard::Block(header, bytes[13..end].to_vec()));
        } else {
            heard.push(Heard::message(Message::decode(id, &bytes[5..end]).unwrap()));
        }
        bytes = &bytes[end..];
    }
    (heard, None)
}

/// Puts the events of a decoder together again.
#[derive(Default)]
struct Listener {
    heard: Vec<Heard>,
    block: Option<(PieceHeader, Vec<u8>)>,
}

impl Listener {
    /// Pulls every event out of one piece of input.
    fn listen(&mut self, decoder: &mut Decoder, mut input: &[u8]) -> Result<(), WireError> {
        while let Some(event) = decoder.next(&mut input)? {
            match event {
                Event::Message(message) => {
                    assert_eq!(self.block, None);
                    self.heard.push(Heard::message(message));
                }
                Event::BlockStart(header) => {
                    assert_eq!(self.block, None);
                    self.block = Some((header, Vec::new()));
                }
                Event::BlockData { header, at, data, last } => {
                    let (started, body) = self.block.as_mut().unwrap();
                    assert_eq!((*started, body.len()), (header, at as usize));
                    assert!(!data.is_empty());
                    body.extend_from_slice(data);
                    assert_eq!(last, body.len() == header.len as usize);
                    if last {
                        let (header, body) = self.block.take().unwrap();
                        self.heard.push(Heard::Block(header, body));
                    }
                }
            }
        }
        assert!(input.is_empty(), "no event, so nothing is left");
        assert!(decoder.head_len < PieceHeader::LEN);
        Ok(())
    }
}

/// What a decoder says to a stream that is cut after each of `cuts`, again and again.
fn decode(mut bytes: &[u8], cuts: &[usize]) -> Outcome {
    let mut decoder = Decoder::new(LIMITS);
    let mut listener = Listener::default();
    for &cut in cuts.iter().cycle() {
        let (input, rest) = bytes.split_at(cut.min(bytes.len()));
        if let Err(error) = listener.listen(&mut decoder, input) {
            assert_eq!(listener.listen(&mut decoder, rest), Err(error), "an error is final");
            return (listener.heard, Some(error));
        }
        if rest.is_empty() {
            break;
        }
        bytes = rest;
    }
    (listener.heard, None)
}

fn raw_block() -> impl Strategy<Value = RawBlock> {
    any::<(u32, u32, u32)>().prop_map(|(index, begin, len)| RawBlock { index, begin, len })
}

fn block() -> impl Strategy<Value = Heard> {
    (any::<(u32, u32)>(), vec(any::<u8>(), 1..200)).prop_map(|((index, begin), body)| {
        Heard::Block(PieceHeader { index, begin, len: body.len() as u32 }, body)
    })
}

fn heard() -> impl Strategy<Value = Heard> {
    let fixed = prop_oneof![
        Just(Message::KeepAlive),
        Just(Message::Choke),
        Just(Message::Unchoke),
        Just(Message::Interested),
        Just(Message::NotInterested),
        Just(Message::HaveAll),
        Just(Message::HaveNone),
        any::<u32>().prop_map(Message::Have),
        any::<u32>().prop_map(Message::Suggest),
        any::<u32>().prop_map(Message::AllowedFast),
        any::<u16>().prop_map(Message::Port),
        raw_block().prop_map(Message::Request),
        raw_block().prop_map(Message::Cancel),
        raw_block().prop_map(Message::Reject),
        prop_oneof![10..=12u8, 18..=19u8, 21..=255u8].prop_map(|id| Message::Unknown { id }),
    ];
    prop_oneof![
        4 => fixed.prop_map(Heard::message),
        4 => block(),
        1 => any::<[u8; 5]>().prop_map(|bits| Heard::message(Message::Bitfield(&bits))),
        1 => (any::<u8>(), vec(any::<u8>(), 0..=298))
            .prop_map(|(id, payload)| Heard::message(Message::Extended { id, payload: &payload })),
    ]
}

fn bytes_of(messages: &[Heard]) -> Vec<u8> {
    let mut bytes = Vec::new();
    messages.iter().for_each(|message| message.write(&mut bytes));
    bytes
}

/// Bytes that are no messages, but often look like the start of one.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let headed = (0..20u32, 0..24u8, vec(any::<u8>(), 0..20)).prop_map(|(len, id, rest)| {
        let mut bytes = len.to_be_bytes().to_vec();
        bytes.push(id);
        bytes.extend(rest);
        bytes
    });
    vec(prop_oneof![headed, vec(any::<u8>(), 0..12)], 0..20).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_split_gives_the_same_events(messages in vec(heard(), 0..30), cuts in vec(1usize..60, 1..20)) {
        let bytes = bytes_of(&messages);
        prop_assert_eq!(&oracle(&bytes), &(messages, None));
        prop_assert_eq!(decode(&bytes, &cuts), oracle(&bytes));
        prop_assert_eq!(decode(&bytes, &[usize::MAX]), oracle(&bytes));
        prop_assert_eq!(decode(&bytes, &[1]), oracle(&bytes));
    }

    #[test]
    fn noise_gives_what_the_oracle_says(
        messages in vec(heard(), 0..4), noise in noise(), cuts in vec(1usize..20, 1..20),
    ) {
        let mut bytes = bytes_of(&messages);
        bytes.extend(noise);
        prop_assert_eq!(decode(&bytes, &cuts), oracle(&bytes));
    }

    #[test]
    fn bytes_may_pass_it_by_where_blocks_are(
        before in vec(heard(), 0..4), blocks in vec(block(), 1..6), after in vec(heard(), 0..4),
        from: prop::sample::Index, to: prop::sample::Index,
    ) {
        let start = bytes_of(&before).len();
        let middle = bytes_of(&blocks);
        let bytes = [bytes_of(&before), middle.clone(), bytes_of(&after)].concat();
        let (from, to) = (start + from.index(middle.len() + 1), start + to.index(middle.len() + 1));
        let (from, to) = (from.min(to), from.max(to));

        let mut whole = Decoder::new(LIMITS);
        let mut expected = Listener::default();
        expected.listen(&mut whole, &bytes[..to]).unwrap();

        let mut moved = Decoder::new(LIMITS);
        Listener::default().listen(&mut moved, &bytes[..from]).unwrap();
        prop_assert_ne!(moved.position(), Position::Control);
        match whole.position() {
            Position::Boundary { prefix: [] } => moved.set_boundary(),
            Position::Boundary { prefix } => moved.set_prefix(prefix),
            Position::Body { header, done } => moved.set_body(header, done),
            Position::Control => prop_assert!(false, "only blocks were seen"),
        }
        prop_assert_eq!(moved.position(), whole.position());

        let mut listener = Listener { heard: expected.heard.clone(), block: expected.block.clone() };
        listener.listen(&mut moved, &bytes[to..]).unwrap();
        expected.listen(&mut whole, &bytes[to..]).unwrap();
        prop_assert_eq!(listener.heard, expected.heard);
    }
}

#[test]
fn positions_tell_how_far_a_message_is() {
    let header = PieceHeader { index: 3, begin: 16_384, len: 2 };
    let mut bytes = header.encode().to_vec();
    bytes.extend([0xa, 0xb, 0, 0, 0, 5, 4, 0]);
    let mut decoder = Decoder::new(LIMITS);
    let mut listener = Listener::default();
    for (at, byte) in bytes.iter().enumerate() {
        match (at, decoder.position()) {
            (0..13, position) => assert_eq!(position, Position::Boundary { prefix: &bytes[..at] }),
            (13..15, position) => assert_eq!(position, Position::Body { header, done: at as u32 - 13 }),
            (15..20, position) => assert_eq!(position, Position::Boundary { prefix: &bytes[15..at] }),
            (_, position) => assert_eq!(position, Position::Control),
        }
        listener.listen(&mut decoder, &[*byte]).unwrap();
    }
}

#[test]
fn every_length_limit_is_exact() {
    let limits = Limits { bitfield_len: 7, pieces_unknown: false, extended_max: 64 };
    let fixed = [(0, 1), (1, 1), (2, 1), (3, 1), (4, 5), (5, 8), (6, 13), (8, 13), (9, 3)];
    let fast = [(13, 5), (14, 1), (15, 1), (16, 13), (17, 5)];
    let exact = fixed.into_iter().chain(fast).map(|(id, len)| (id, len, len));
    for (id, min, max) in exact.chain([(7, 10, 16_393), (20, 2, 64), (99, 1, 1 << 20)]) {
        let next = |len: u32| {
            let head = [&len.to_be_bytes()[..], &[id]].concat();
            Decoder::new(limits).next(&mut &head[..]).map(|_| ())
        };
        let error = |len| Err(WireError::Length { id, len, min, max });
        assert_eq!((next(min), next(max)), (Ok(()), Ok(())), "id {id}");
        if max < MESSAGE_MAX {
            assert_eq!(next(max + 1), error(max + 1), "id {id}");
            assert_eq!(next(MESSAGE_MAX), error(MESSAGE_MAX), "id {id}");
        }
        for len in [MESSAGE_MAX + 1, 1 << 31, u32::MAX] {
            assert_eq!(next(len), Err(WireError::TooLong { len, max: MESSAGE_MAX }), "id {id}");
        }
        if min > 1 {
            assert_eq!(next(min - 1), error(min - 1), "id {id}");
        }
    }
}

#[test]
fn a_length_that_no_message_has_is_refused_before_its_id_comes() {
    let limits = Limits::of_pieces(17);
    let next = |limits, len: u32| Decoder::new(limits).next(&mut &len.to_be_bytes()[..]).map(|_| ());
    assert_eq!(next(limits, MESSAGE_MAX), Ok(()));
    assert_eq!(
        next(limits, MESSAGE_MAX + 1),
        Err(WireError::TooLong { len: MESSAGE_MAX + 1, max: MESSAGE_MAX })
    );
    // A torrent of so many pieces that its bitfield is longer than anything else.
    let large = Limits::of_pieces(9 * MESSAGE_MAX);
    assert_eq!(next(large, large.bitfield_len + 1), Ok(()));
    assert!(next(large, large.bitfield_len + 2).is_err());
}

#[test]
fn a_bitfield_has_the_length_of_its_torrent() {
    let check = |len| Limits::of_pieces(17).check(5, len).is_ok();
    assert!(check(4) && !check(3) && !check(5));
}

#[test]
fn memory_follows_the_bytes_and_not_the_announcement() {
    let mut decoder = Decoder::new(Limits::of_pieces(17));
    let mut announced = EXTENDED_MAX.to_be_bytes().to_vec();
    announced.extend([20, 1]);
    announced.extend([0; 100]);
    assert_eq!(decoder.next(&mut &announced[..]), Ok(None));
    assert!(decoder.buffer.capacity() <= 1024);

    let rest = vec![0; EXTENDED_MAX as usize - 102];
    assert!(matches!(
        decoder.next(&mut &rest[..]),
        Ok(Some(Event::Message(Message::Extended { id: 1, .. })))
    ));
    assert_eq!(decoder.next(&mut &b"\0\0\0\x05\x04\0\0"[..]), Ok(None));
    assert!(decoder.buffer.capacity() <= BUFFER_KEPT_MAX, "a long message's memory is given back");

    let mut decoder = Decoder::new(Limits::of_pieces(17));
    let mut unknown = MESSAGE_MAX.to_be_bytes().to_vec();
    unknown.push(99);
    unknown.resize(MESSAGE_MAX as usize, 0);
    assert_eq!(decoder.next(&mut &unknown[..]), Ok(None));
    assert_eq!(decoder.buffer.capacity(), 0, "skipped, not gathered");
}

#[test]
fn messages_are_read_in_place_where_the_input_has_them() {
    let bytes = b"\0\0\0\x06\x05abcde\0\0\0\x05\x14\x01xyz";
    let mut decoder = Decoder::new(LIMITS);
    let mut input = &bytes[..];
    for expected in [Message::Bitfield(b"abcde"), Message::Extended { id: 1, payload: b"xyz" }] {
        assert_eq!(decoder.next(&mut input), Ok(Some(Event::Message(expected))));
    }
    assert_eq!(decoder.next(&mut input), Ok(None));
    assert_eq!(decoder.buffer.capacity(), 0);
}

#[test]
fn errors_say_what_was_expected() {
    let exact = WireError::Length { id: 4, len: 6, min: 5, max: 5 };
    assert_eq!(exact.to_string(), "message of id 4 announces 6 bytes, expected 5");
    let any = WireError::TooLong { len: 1 << 31, max: 1 << 20 };
    assert_eq!(any.to_string(), "a message announces 2147483648 bytes, expected 1048576 at most");
    let range = WireError::Length { id: 7, len: 9, min: 10, max: 16_393 };
    assert_eq!(range.to_string(), "message of id 7 announces 9 bytes, expected 10 to 16393");
}

#[test]
fn before_the_metadata_a_bitfield_of_any_length_is_skipped() {
    let limits = Limits::before_metadata();
    for len in [0, 1, 5, 100_000, limits.bitfield_len] {
        let mut bytes = (len + 1).to_be_bytes().to_vec();
        bytes.push(id::BITFIELD);
        bytes.resize(5 + len as usize, 0xff);
        crate::wire::message::write_have(&mut bytes, 7);
        for cut in [1, 4, 5, bytes.len() / 2, bytes.len()] {
            let mut decoder = Decoder::new(limits);
            let mut heard = Vec::new();
            for mut part in bytes.chunks(cut.max(bytes.len() / 64)) {
                while let Some(event) = decoder.next(&mut part).unwrap() {
                    let Event::Message(message) = event else { panic!("{event:?}") };
                    heard.push(match message {
                        Message::Have(piece) => ("have", piece),
                        Message::Unknown { id } => ("skipped", u32::from(id)),
                        _ => panic!("{message:?}"),
                    });
                }
            }
            assert_eq!(heard, [("skipped", 5), ("have", 7)], "{len} bytes, cut at {cut}");
            assert!(decoder.buffer.capacity() < 64, "nothing of a bitfield is kept");
        }
    }
    assert!(limits.check(id::BITFIELD, limits.bitfield_len + 2).is_err());
}
