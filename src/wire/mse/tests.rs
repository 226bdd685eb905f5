use std::fmt::Write as _;
use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;

/// The other side, which shares nothing with this one.
#[path = "../../../tests/support/mse.rs"]
#[allow(unreachable_pub, dead_code, reason = "other tests use it, and other parts of it")]
mod responder;

use responder::{Answers, Responder};

use super::responder::Responder as Answering;

const INFO_HASH: [u8; 20] = [0xaa; 20];
const INITIAL: [u8; handshake::LEN] = [0x42; handshake::LEN];
const PLAIN: u32 = PLAINTEXT;

/// 1, 2 .. 20.
fn private_key() -> [u8; 20] {
    std::array::from_fn(|at| at as u8 + 1)
}

fn randomness(pad_a: usize, pad_c: usize) -> Randomness {
    Randomness { private_key: private_key(), pad_key: vec![0xa1; pad_a], pad_sealed: vec![0xc1; pad_c] }
}

fn start(offer: Offer, out: &mut Vec<u8>) -> Initiator {
    Initiator::new(&INFO_HASH, offer, randomness(9, 5), INITIAL, out)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A whole handshake, in which both sides get their bytes in parts of that length at most.
fn shake_hands(
    offer: Offer,
    randomness: Randomness,
    answers: Answers,
    part: usize,
) -> Result<(Selected, Responder), String> {
    let mut ours = Vec::new();
    let mut initiator = Initiator::new(&INFO_HASH, offer, randomness, INITIAL, &mut ours);
    let mut responder = Responder::new(INFO_HASH, answers);
    loop {
        let mut theirs = Vec::new();
        for bytes in std::mem::take(&mut ours).chunks(part) {
            responder.receive(bytes, &mut theirs)?;
        }
        assert!(!theirs.is_empty(), "both wait");
        let mut parts = theirs.chunks(part);
        while let Some(mut bytes) = parts.next() {
            match initiator.advance(&mut bytes, &mut ours).map_err(|error| error.to_string())? {
                Step::More(more) => initiator = more,
                Step::Done(selected) => {
                    assert!(bytes.is_empty() && parts.next().is_none() && ours.is_empty());
                    return Ok((selected, responder));
                }
            }
            assert!(bytes.is_empty());
        }
    }
}

/// All that a responder answers to `start`, and the selection.
fn answer(answers: Answers) -> Vec<u8> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let initiator = start(Offer::Either, &mut ours);
    let mut responder = Responder::new(INFO_HASH, answers);
    responder.receive(&ours, &mut theirs).unwrap();
    let mut rest = Vec::new();
    drop(initiator.advance(&mut &theirs[..], &mut rest));
    responder.receive(&rest, &mut theirs).unwrap();
    theirs
}

#[test]
fn keys_and_secrets_are_the_known_ones() {
    let theirs: [u8; 20] = std::array::from_fn(|at| at as u8 + 101);
    let public = [
        "96e112dab29e8c5272accb9b17b26887ce54a144a4e3b697c7d159b7a817e556b0918db2b4c658e02a87f7e5fb14b18a\
         553e084cbf3dad2d30f16596ccb982d406258c61b30c5c1dae2ddc60bdbd48d79896312aad63238c39e1a633821eb693",
        "d32ae8cedd0de9ca4fe67e35626bb8c7cdb0966727d899f6a62fdb2b68817f9ddc4b684e3eb34030b8dba4e028b7cff3\
         264020340cb4eab61923cdc4e4216ba873368d83f0a38e497f1f6b4e3d2012eb91a3ee6056f966f9eae732089b6fa46e",
    ];
    let secret = "d05ed96a95215a89b44073afe5d0b1626289ac01cff7849392948b2470b346547e944d7562a897ae86976bc389999083\
                  ec09572dbdc8ed7f6a0a86a1aa42a3ca04209b72d8239890360435640643b76479ed7836f1857963fcc7cb72084c3ab4";
    let mut out = Vec::new();
    start(Offer::Rc4, &mut out);
    assert_eq!(hex(&out[..KEY_LEN]), public[0]);
    assert_eq!(out[KEY_LEN..], [0xa1; 9]);
    let key = responder::power(None, &theirs);
    assert_eq!(hex(&key), public[1]);
    assert_eq!(hex(&responder::power(Some(&key), &private_key())), secret);

    let mut wide = [0; 24];
    wide[4..].copy_from_slice(&private_key());
    let shared = power(&U768::from_be_slice(&key), &U192::from_be_bytes(wide));
    assert_eq!(hex(&shared), secret);
    let mut stream = [0; 16];
    Cipher::new(b"keyA", &shared, &INFO_HASH).apply(&mut stream);
    assert_eq!(hex(&stream), "e50e282022084479e72308e7a3a4e880");
}

/// The test vectors of RFC 6229 are for keys of other lengths, so they check the slow cipher, and that the fast one.
#[test]
fn the_cipher_is_rc4() {
    let key: [u8; 16] = std::array::from_fn(|at| at as u8 + 1);
    let mut stream = [0; 1040];
    responder::Rc4::new(&key).apply(&mut stream);
    assert_eq!(hex(&stream[..16]), "9ac7cc9a609d1ef7b2932899cde41b97");
    assert_eq!(hex(&stream[1024..]), "bdf0324e6083dcc6d3cedd3ca8c53c16");

    let secret = [0x77; KEY_LEN];
    let mut slow = responder::Rc4::of_handshake(b"keyB", &secret, &INFO_HASH);
    let mut fast = Cipher::new(b"keyB", &secret, &INFO_HASH);
    for len in [0, 1, 2, 3, 15, 16, 17, 255, 256, 257, 5000] {
        let (mut expected, mut got) = (vec![0x5a; len], vec![0x5a; len]);
        slow.apply(&mut expected);
        fast.apply(&mut got);
        assert_eq!(got, expected, "{len} bytes");
    }
}

#[test]
fn either_way_can_be_selected() {
    let cases = [(Offer::Either, 3, 1), (Offer::Either, 3, 2), (Offer::Rc4, 2, 2)];
    for (offer, provided, select) in cases {
        let answers = Answers { select, ..Answers::default() };
        let (selected, mut responder) = shake_hands(offer, randomness(0, 0), answers, 4096).unwrap();
        assert_eq!(responder.provided, Some(provided));
        assert_eq!(responder.payload, INITIAL);
        let (mut ours, mut theirs) = (*b"a request", *b"a block");
        responder.seal(&mut theirs);
        if let Selected::Rc4(mut ciphers) = selected {
            assert_eq!(select, 2);
            ciphers.send.apply(&mut ours);
            assert_ne!(&ours, b"a request");
            assert_ne!(&theirs, b"a block");
            ciphers.receive.apply(&mut theirs);
        } else {
            assert_eq!(select, 1);
        }
        responder.receive(&ours, &mut Vec::new()).unwrap();
        assert_eq!(responder.payload[INITIAL.len()..], *b"a request");
        assert_eq!(&theirs, b"a block");
    }
}

#[test]
fn the_stream_may_be_split_anywhere() {
    let answers = Answers { pad_b: vec![7; 130], pad_d: vec![0; 33], ..Answers::default() };
    let mut stream = answer(answers.clone());
    let end = stream.len();
    stream.extend_from_slice(b"behind");
    let mut ours = Vec::new();
    for split in 0..=stream.len() {
        let mut initiator = start(Offer::Either, &mut ours);
        let mut is_done = false;
        let (mut front, mut back) = stream.split_at(split);
        for input in [&mut front, &mut back] {
            match initiator.advance(input, &mut ours).unwrap() {
                Step::More(more) => {
                    assert!(input.is_empty());
                    initiator = more;
                }
                Step::Done(_) => {
                    let behind = if split < end { &stream[end..] } else { &stream[end..split] };
                    assert_eq!(*input, behind);
                    is_done = true;
                    break;
                }
            }
        }
        assert!(is_done, "split at {split}");
    }
    for part in [1, 2, 3, 7, 95, 97] {
        shake_hands(Offer::Either, randomness(3, 3), answers.clone(), part).unwrap();
    }
}

#[test]
fn paddings_may_be_of_any_length_up_to_the_limit() {
    let lens = [0, 1, 7, 8, 9, 255, 511, 512];
    for len in lens {
        for (pads, part) in [([len, 512 - len, len, 0], 4096), ([0, len, 0, len], 1), ([len; 4], 100)] {
            let [a, b, c, d] = pads;
            let answers = Answers { pad_b: vec![0; b], pad_d: vec![0; d], ..Answers::default() };
            let (_, responder) = shake_hands(Offer::Rc4, randomness(a, c), answers, part).unwrap();
            assert_eq!(responder.payload, INITIAL, "{pads:?}");
        }
    }
    let too_long = randomness(PAD_MAX + 1, PAD_MAX + 1);
    shake_hands(Offer::Rc4, too_long, Answers::default(), 4096).unwrap();
}

#[test]
fn a_peer_that_breaks_the_protocol_is_told_how() {
    let refused = |answers: Answers| shake_hands(Offer::Rc4, randomness(1, 1), answers, 4096).err();
    let selected = |got| Some(MseError::Selected { got, provided: 2 }.to_string());
    for select in [0, 1, 3, 4, 6, 0x8000_0002, u32::MAX] {
        assert_eq!(refused(Answers { select, ..Answers::default() }), selected(select));
    }
    for len in [513, 514, 65_535] {
        let answers = Answers { pad_d: vec![0; len.into()], ..Answers::default() };
        assert_eq!(refused(answers), Some(MseError::Padding { len }.to_string()));
    }
    let answers = Answers { pad_b: vec![0; 513], ..Answers::default() };
    assert_eq!(refused(answers), Some(MseError::Verification.to_string()));
}

#[test]
fn only_the_bits_that_were_provided_can_be_selected() {
    for select in [0, 3, 4, 5, 6, 7] {
        let answers = Answers { select, ..Answers::default() };
        let error = shake_hands(Offer::Either, randomness(0, 0), answers, 4096).err();
        assert_eq!(error, Some(MseError::Selected { got: select, provided: 3 }.to_string()));
    }
}

#[test]
fn a_peer_of_another_torrent_is_not_understood() {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let initiator = start(Offer::Either, &mut ours);
    let mut responder = Responder::new([0xbb; 20], Answers::default());
    responder.receive(&ours, &mut theirs).unwrap();
    let mut more = Vec::new();
    let step = initiator.advance(&mut &theirs[..], &mut more).unwrap();
    assert_eq!(responder.receive(&more, &mut Vec::new()), Err("another torrent".to_owned()));
    // One that goes on nevertheless has other ciphers.
    let Step::More(initiator) = step else { panic!("it is over") };
    let error = initiator.advance(&mut &[0x55; PAD_MAX + 8][..], &mut Vec::new()).err();
    assert_eq!(error, Some(MseError::Verification));
}

#[test]
fn trivial_public_keys_are_refused() {
    let prime: [u8; KEY_LEN] = Prime::MODULUS.get().to_be_bytes();
    let near = |last: u8| {
        let mut key = prime;
        key[KEY_LEN - 1] = last;
        key
    };
    let small = |last: u8| {
        let mut key = [0; KEY_LEN];
        key[KEY_LEN - 1] = last;
        key
    };
    let cases = [
        (small(0), true),
        (small(1), true),
        (small(2), false),
        (near(0x61), false),
        (near(0x62), true),
        (near(0x63), true),
        (near(0x64), true),
        ([0xff; KEY_LEN], true),
    ];
    for (key, is_refused) in cases {
        let error = start(Offer::Either, &mut Vec::new()).advance(&mut &key[..], &mut Vec::new()).err();
        assert_eq!(error, is_refused.then_some(MseError::Key), "{}", hex(&key));
    }
}

fn recorded() -> &'static [u8] {
    static RECORDED: OnceLock<Vec<u8>> = OnceLock::new();
    RECORDED.get_or_init(|| answer(Answers { select: PLAIN, ..Answers::default() }))
}

proptest! {
    /// Garbage ends the handshake or waits for more, and never goes behind its limits.
    #[test]
    fn garbage_is_taken_up_to_the_limits(bytes: Vec<u8>, len in 0usize..2000, cut in 1usize..300) {
        let stream: Vec<u8> = bytes.iter().copied().cycle().take(if bytes.is_empty() { 0 } else { len }).collect();
        let mut initiator = start(Offer::Either, &mut Vec::new());
        let mut taken = 0;
        for mut part in stream.chunks(cut) {
            taken += part.len();
            match initiator.advance(&mut part, &mut Vec::new()) {
                Ok(Step::More(more)) => initiator = more,
                Ok(Step::Done(_)) => panic!("that is nobody's guess"),
                Err(_) => return Ok(()),
            }
            prop_assert!(part.is_empty());
            prop_assert!(initiator.buffer.len() < PAD_MAX + VERIFICATION.len());
            prop_assert!(taken < KEY_LEN + PAD_MAX + VERIFICATION.len());
        }
    }

    /// A handshake with wrong bytes in it.
    #[test]
    fn damage_is_survived(at in 0usize..300, byte: u8, cut in 1usize..300) {
        let mut stream = recorded().to_vec();
        let at = at % stream.len();
        stream[at] ^= byte;
        let mut initiator = start(Offer::Either, &mut Vec::new());
        for mut part in stream.chunks(cut) {
            match initiator.advance(&mut part, &mut Vec::new()) {
                Ok(Step::More(more)) => initiator = more,
                Ok(Step::Done(_)) | Err(_) => break,
            }
        }
    }

}

proptest! {
    // The other side takes its time.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn handshakes_of_any_shape_work(
        keys: ([u8; 20], [u8; 20]),
        pads: [u16; 4],
        is_plain: bool,
        part in 1usize..1500,
    ) {
        let [a, b, c, d] = pads.map(|len| usize::from(len) % (PAD_MAX + 1));
        // Exponents so small that their powers are trivial are nobody's private keys.
        let [ours, theirs] = [keys.0, keys.1].map(|mut key| { key[0] |= 0x80; key });
        let randomness = Randomness { private_key: ours, pad_key: vec![1; a], pad_sealed: vec![2; c] };
        let select = if is_plain { 1 } else { 2 };
        let answers = Answers { private_key: theirs, pad_b: vec![3; b], select, pad_d: vec![4; d] };
        let (selected, responder) = shake_hands(Offer::Either, randomness, answers, part).unwrap();
        prop_assert_eq!(matches!(selected, Selected::Plaintext), is_plain);
        prop_assert_eq!(responder.payload, INITIAL);
    }
}

/// A handshake of both machines, in parts of that length: what was selected at both ends, and what was said in it.
fn meet(
    [offer, accepted]: [Offer; 2],
    pads: [usize; 4],
    part: usize,
) -> Result<(Selected, Selected, Vec<u8>), MseError> {
    let [a, b, c, d] = pads;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut initiator = Some(Initiator::new(&INFO_HASH, offer, randomness(a, c), INITIAL, &mut ours));
    let randomness = Randomness { private_key: [0x5b; 20], ..randomness(b, d) };
    let mut answering = Some(Answering::new(&INFO_HASH, accepted, randomness));
    let (mut ends, mut said) = ((None, None), Vec::new());
    while initiator.is_some() || answering.is_some() {
        assert!(!ours.is_empty() || !theirs.is_empty(), "both wait");
        for mut bytes in std::mem::take(&mut ours).chunks(part) {
            match answering.take().expect("it is over").advance(&mut bytes, &mut theirs)? {
                Answered::More(more) => answering = Some(more),
                Answered::Done { selected, initial } => (ends.1, said) = (Some(selected), initial),
            }
            assert!(bytes.is_empty());
        }
        for mut bytes in std::mem::take(&mut theirs).chunks(part) {
            match initiator.take().expect("it is over").advance(&mut bytes, &mut ours)? {
                Step::More(more) => initiator = Some(more),
                Step::Done(selected) => ends.0 = Some(selected),
            }
            assert!(bytes.is_empty());
        }
    }
    Ok((ends.0.unwrap(), ends.1.unwrap(), said))
}

#[test]
fn both_sides_of_this_module_understand_each_other() {
    let cases = [
        ([Offer::Either, Offer::Either], false),
        ([Offer::Either, Offer::Rc4], true),
        ([Offer::Rc4, Offer::Either], true),
        ([Offer::Rc4, Offer::Rc4], true),
    ];
    for (offers, is_sealed) in cases {
        for (pads, part) in [([0; 4], 1), ([512; 4], 4096), ([1, 511, 95, 96], 7), ([512, 0, 512, 0], 1)] {
            let (ours, theirs, said) = meet(offers, pads, part).unwrap();
            assert_eq!(said, INITIAL);
            match (ours, theirs) {
                (Selected::Rc4(mut ours), Selected::Rc4(mut theirs)) => {
                    assert!(is_sealed);
                    let (mut request, mut block) = (*b"a request", *b"a block");
                    ours.send.apply(&mut request);
                    theirs.receive.apply(&mut request);
                    theirs.send.apply(&mut block);
                    ours.receive.apply(&mut block);
                    assert_eq!((&request, &block), (b"a request", b"a block"));
                }
                (Selected::Plaintext, Selected::Plaintext) => assert!(!is_sealed),
                both => panic!("{both:?}"),
            }
        }
    }
}

/// What a caller that is free to say anything sends behind its key, and what comes of it.
fn answered(
    provide: u32,
    pad_c: u16,
    initial: &[u8],
    info_hash: [u8; 20],
    behind: &[u8],
) -> Result<(Selected, Vec<u8>, Vec<u8>), MseError> {
    let key = private_key();
    let mut said = Vec::new();
    let answering = Answering::new(&INFO_HASH, Offer::Either, randomness(3, 4));
    let first = responder::power(None, &key);
    let Answered::More(answering) = answering.advance(&mut &first[..], &mut said)? else { panic!() };
    let shared = responder::power(said.first_chunk::<96>(), &key);
    let mut bytes =
        [&[0x5a; 100][..], &sha1(&[b"req1", &shared]), &torrent_mark(&shared, &info_hash)].concat();
    let mut seal = responder::Rc4::of_handshake(b"keyA", &shared, &info_hash);
    let mut sealed = [&VERIFICATION[..], &provide.to_be_bytes(), &pad_c.to_be_bytes()].concat();
    sealed.extend(vec![0; usize::from(pad_c)]);
    sealed.extend((initial.len() as u16).to_be_bytes());
    sealed.extend(initial);
    seal.apply(&mut sealed);
    bytes.extend(sealed);
    bytes.extend(behind);
    let mut input = &bytes[..];
    match answering.advance(&mut input, &mut Vec::new())? {
        Answered::More(_) => panic!("it waits for more"),
        Answered::Done { selected, initial } => Ok((selected, initial, input.to_vec())),
    }
}

#[test]
fn what_a_caller_says_first_may_be_of_any_length() {
    for len in [0, 1, 68, 200, 65_535] {
        let initial = vec![0x77; len];
        let (_, said, rest) = answered(3, 512, &initial, INFO_HASH, b"behind").unwrap();
        assert_eq!((said == initial, &rest[..]), (true, &b"behind"[..]));
    }
}

#[test]
fn a_caller_that_breaks_the_protocol_is_told_how() {
    let refused = |provide, pad_c, info_hash| answered(provide, pad_c, &INITIAL, info_hash, &[]).err();
    assert_eq!(refused(3, 513, INFO_HASH), Some(MseError::Padding { len: 513 }));
    assert_eq!(refused(3, 65_535, INFO_HASH), Some(MseError::Padding { len: 65_535 }));
    for got in [0, 4, 0x8000_0000] {
        assert_eq!(refused(got, 0, INFO_HASH), Some(MseError::Provided { got, accepted: 3 }));
    }
    assert_eq!(refused(3, 0, [0xbb; 20]), Some(MseError::Torrent));
    // Bits that nobody knows do no harm.
    for (provide, is_plain) in [(0xffff_ffff, true), (0xffff_fffe, false), (1, true), (2, false)] {
        let (selected, ..) = answered(provide, 0, &INITIAL, INFO_HASH, &[]).unwrap();
        assert_eq!(matches!(selected, Selected::Plaintext), is_plain, "{provide:#x}");
    }
}

#[test]
fn a_caller_that_never_comes_to_the_point_is_given_up() {
    let mut answering = Answering::new(&INFO_HASH, Offer::Either, randomness(3, 4));
    let stream = [0x42; 2_000];
    let mut said = Vec::new();
    for (came, mut byte) in stream.chunks(1).enumerate() {
        match answering.advance(&mut byte, &mut said) {
            Ok(Answered::More(more)) => answering = more,
            Ok(Answered::Done { .. }) => panic!("that is nobody's guess"),
            Err(error) => {
                assert_eq!((error, came + 1), (MseError::Secret, KEY_LEN + PAD_MAX + 20));
                assert_eq!(said.len(), KEY_LEN + 3, "it heard a key, once");
                return;
            }
        }
        assert!(answering.buffer.len() < PAD_MAX + 20);
    }
    panic!("it was borne");
}
