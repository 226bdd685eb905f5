//! The encrypted handshake: any bytes, and right ones with any paddings, selection and cuts.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use ringtide::wire::handshake;
use ringtide::wire::mse::{Initiator, KEY_LEN, MseError, Offer, PAD_MAX, Randomness, Selected, Step};

#[allow(dead_code, reason = "other tests use other parts of it")]
#[path = "../../tests/support/mse.rs"]
mod responder;

use responder::{Answers, Responder};

const INFO_HASH: [u8; 20] = [0xaa; 20];
const INITIAL: [u8; handshake::LEN] = [0x42; handshake::LEN];
/// What follows the handshake.
const BEHIND: &[u8] = b"behind";

/// Flags, the cut, and six bytes of the answer come before the bytes that are sent as they are.
const HEAD_LEN: usize = 8;

fuzz_target!(|bytes: &[u8]| {
    let Some((&[flags, cut, select, select_high, pad_b, pad_b_high, pad_d, pad_d_high], rest)) =
        bytes.split_first_chunk::<HEAD_LEN>()
    else {
        return;
    };
    let offer = if flags & 1 == 0 { Offer::Either } else { Offer::Rc4 };
    let cut = usize::from(cut) + 1;
    if flags & 2 == 0 {
        let stream = if flags & 4 == 0 { rest.to_vec() } else { [public_key(), rest].concat() };
        let Ended { selected, taken } = run(offer, &stream, cut);
        // A fuzzer that watches comparisons may find the constant, but nothing that makes it longer than it can be.
        assert!(selected.is_some() || taken == stream.len());
        assert!(taken <= KEY_LEN + PAD_MAX + 8 + 6 + PAD_MAX);
        return;
    }
    let [pad_b, pad_d] =
        [[pad_b, pad_b_high], [pad_d, pad_d_high]].map(|len| usize::from(u16::from_le_bytes(len)) % 600);
    let select = u32::from_be_bytes([select_high, 0, 0, select]);
    let answers =
        Answers { private_key: [0x5b; 20], pad_b: vec![flags; pad_b], select, pad_d: vec![cut as u8; pad_d] };
    let (before, answer) = answered(offer, &answers);
    let mut stream = before;
    stream.extend(&answer);
    let end = stream.len();
    stream.extend(BEHIND);
    let Ended { selected, taken } = run(offer, &stream, cut);
    let provided = if offer == Offer::Either { 3 } else { 2 };
    let expected = if pad_b > PAD_MAX {
        Err(MseError::Verification)
    } else if !matches!(select, 1 | 2) || select & provided == 0 {
        Err(MseError::Selected { got: select, provided })
    } else if pad_d > PAD_MAX {
        Err(MseError::Padding { len: pad_d as u16 })
    } else {
        Ok(select)
    };
    assert_eq!(selected, Some(expected));
    assert!(expected.is_err() || taken == end);
});

struct Ended {
    /// The bit that was selected; `None` where more bytes are needed.
    selected: Option<Result<u32, MseError>>,
    /// Bytes of the stream that were used.
    taken: usize,
}

fn initiator(offer: Offer, out: &mut Vec<u8>) -> Initiator {
    let randomness = Randomness { private_key: [7; 20], pad_key: vec![1; 3], pad_sealed: vec![2; 4] };
    Initiator::new(&INFO_HASH, offer, randomness, INITIAL, out)
}

/// Gives the stream to an initiator in parts of that length.
fn run(offer: Offer, stream: &[u8], cut: usize) -> Ended {
    let mut out = Vec::new();
    let mut initiator = initiator(offer, &mut out);
    let mut taken = 0;
    for part in stream.chunks(cut) {
        let mut input = part;
        let step = initiator.advance(&mut input, &mut out);
        taken += part.len() - input.len();
        assert!(out.len() < 1024, "it says no more than its two parts");
        let selected = match step {
            Ok(Step::More(more)) => {
                assert!(input.is_empty());
                initiator = more;
                continue;
            }
            Ok(Step::Done(Selected::Plaintext)) => Ok(1),
            Ok(Step::Done(Selected::Rc4(_))) => Ok(2),
            Err(error) => Err(error),
        };
        return Ended { selected: Some(selected), taken };
    }
    Ended { selected: None, taken }
}

/// What a responder with those answers says: its key with padding, and the encrypted part.
fn answered(offer: Offer, answers: &Answers) -> (Vec<u8>, Vec<u8>) {
    // The keys are always the same, and the slow arithmetic of the responder takes milliseconds for each.
    static SECRET: OnceLock<[u8; KEY_LEN]> = OnceLock::new();
    let secret = SECRET.get_or_init(|| {
        let mut out = Vec::new();
        initiator(offer, &mut out);
        let key = out.first_chunk().expect("a key");
        responder::power(Some(key), &answers.private_key)
    });
    let mut seal = responder::Rc4::of_handshake(b"keyB", secret, &INFO_HASH);
    let mut answer = Responder::answer(answers);
    seal.apply(&mut answer);
    ([public_key(), &answers.pad_b].concat(), answer)
}

/// The responder's.
fn public_key() -> &'static [u8] {
    static KEY: OnceLock<[u8; KEY_LEN]> = OnceLock::new();
    KEY.get_or_init(|| responder::power(None, &[0x5b; 20]))
}
