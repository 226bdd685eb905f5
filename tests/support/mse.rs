//! The side of an encrypted handshake that is dialed, for tests, and what the other needs too. It leans on nothing of the code under test: its numbers
//! and its cipher are the slow and obvious ones.

use sha1::{Digest, Sha1};

/// The prime, in limbs of 64 bits, the lowest last.
const PRIME: Number = [
    0xffff_ffff_ffff_ffff,
    0xc90f_daa2_2168_c234,
    0xc4c6_628b_80dc_1cd1,
    0x2902_4e08_8a67_cc74,
    0x020b_bea6_3b13_9b22,
    0x514a_0879_8e34_04dd,
    0xef95_19b3_cd3a_431b,
    0x302b_0a6d_f25f_1437,
    0x4fe1_356d_6d51_c245,
    0xe485_b576_625e_7ec6,
    0xf44c_42e9_a63a_3621,
    0x0000_0000_0009_0563,
];

type Number = [u64; 12];

/// `2 ^ exponent` for no base, else `base ^ exponent`, modulo the prime.
pub fn power(base: Option<&[u8; 96]>, exponent: &[u8]) -> [u8; 96] {
    let base = base.map_or_else(|| number(2), read);
    let mut result = number(1);
    for bit in bits(exponent) {
        result = times(&result, &result);
        if bit {
            result = times(&result, &base);
        }
    }
    write(&result)
}

const fn number(small: u64) -> Number {
    let mut number = [0; 12];
    number[11] = small;
    number
}

fn read(bytes: &[u8; 96]) -> Number {
    let (limbs, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|at| u64::from_be_bytes(limbs[at]))
}

fn write(number: &Number) -> [u8; 96] {
    let mut bytes = [0; 96];
    for (place, limb) in bytes.chunks_exact_mut(8).zip(number) {
        place.copy_from_slice(&limb.to_be_bytes());
    }
    bytes
}

fn bits(bytes: &[u8]) -> impl Iterator<Item = bool> {
    bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1))
}

fn times(a: &Number, b: &Number) -> Number {
    let mut result = number(0);
    for bit in bits(&write(b)) {
        result = plus(&result, &result);
        if bit {
            result = plus(&result, a);
        }
    }
    result
}

fn plus(a: &Number, b: &Number) -> Number {
    let mut sum = [0; 12];
    let mut carry = 0;
    for at in (0..12).rev() {
        let limb = u128::from(a[at]) + u128::from(b[at]) + carry;
        sum[at] = limb as u64;
        carry = limb >> 64;
    }
    if carry == 0 && sum < PRIME {
        return sum;
    }
    let mut rest = [0; 12];
    let mut borrow = false;
    for at in (0..12).rev() {
        let (limb, first) = sum[at].overflowing_sub(PRIME[at]);
        let (limb, second) = limb.overflowing_sub(u64::from(borrow));
        rest[at] = limb;
        borrow = first || second;
    }
    rest
}

/// RC4 as it is written down everywhere.
#[derive(Clone)]
pub struct Rc4 {
    state: [u8; 256],
    i: u8,
    j: u8,
}

impl Rc4 {
    pub fn new(key: &[u8]) -> Self {
        let mut state = std::array::from_fn(|at| at as u8);
        let mut j = 0_u8;
        for i in 0..256 {
            j = j.wrapping_add(state[i]).wrapping_add(key[i % key.len()]);
            state.swap(i, j.into());
        }
        Self { state, i: 0, j: 0 }
    }

    pub fn apply(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.i = self.i.wrapping_add(1);
            self.j = self.j.wrapping_add(self.state[usize::from(self.i)]);
            self.state.swap(self.i.into(), self.j.into());
            let at = self.state[usize::from(self.i)].wrapping_add(self.state[usize::from(self.j)]);
            *byte ^= self.state[usize::from(at)];
        }
    }

    /// A cipher of the handshake: its key is a digest, and its first 1024 bytes are dropped.
    pub fn of_handshake(name: &[u8], secret: &[u8; 96], info_hash: &[u8; 20]) -> Self {
        let mut cipher = Self::new(&sha1(&[name, secret, info_hash]));
        cipher.apply(&mut [0; 1024]);
        cipher
    }
}

/// What a responder is free to answer.
#[derive(Clone, Debug)]
pub struct Answers {
    pub private_key: [u8; 20],
    pub pad_b: Vec<u8>,
    /// `crypto_select`, whatever was provided.
    pub select: u32,
    pub pad_d: Vec<u8>,
}

impl Default for Answers {
    fn default() -> Self {
        Self { private_key: [0x5b; 20], pad_b: vec![0xb0; 77], select: 2, pad_d: vec![0; 3] }
    }
}

/// The handshake of a peer that is dialed.
pub struct Responder {
    info_hash: [u8; 20],
    answers: Answers,
    received: Vec<u8>,
    stage: Stage,
    /// `crypto_provide`, once it was read.
    pub provided: Option<u32>,
    /// What the other side has said inside the connection.
    pub payload: Vec<u8>,
}

enum Stage {
    Key,
    Hash { secret: [u8; 96] },
    Provide { secret: [u8; 96] },
    PadC { open: Rc4, seal: Rc4, len: usize },
    Initial { open: Rc4, seal: Rc4, len: usize },
    Rc4 { open: Rc4, seal: Rc4 },
    Plaintext,
}

impl Responder {
    pub fn new(info_hash: [u8; 20], answers: Answers) -> Self {
        let (received, payload) = (Vec::new(), Vec::new());
        Self { info_hash, answers, received, stage: Stage::Key, provided: None, payload }
    }

    /// Whether the handshake is over.
    pub fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Rc4 { .. } | Stage::Plaintext)
    }

    /// Takes bytes in and appends the answer to `out`. The error says what is wrong with the other side.
    pub fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        self.received.extend_from_slice(bytes);
        while self.step(out)? {}
        Ok(())
    }

    /// Encrypts what is to be said, if that was agreed upon.
    pub fn seal(&mut self, bytes: &mut [u8]) {
        if let Stage::Rc4 { seal, .. } = &mut self.stage {
            seal.apply(bytes);
        }
    }

    /// The second part of what it says, before it is encrypted.
    pub fn answer(answers: &Answers) -> Vec<u8> {
        let mut answer = vec![0; 8];
        answer.extend(answers.select.to_be_bytes());
        answer.extend((answers.pad_d.len() as u16).to_be_bytes());
        answer.extend(&answers.pad_d);
        answer
    }

    fn step(&mut self, out: &mut Vec<u8>) -> Result<bool, String> {
        match std::mem::replace(&mut self.stage, Stage::Key) {
            Stage::Key => {
                let Some(key) = self.received.first_chunk::<96>().copied() else { return Ok(false) };
                self.received.drain(..96);
                out.extend(power(None, &self.answers.private_key));
                out.extend(&self.answers.pad_b);
                self.stage = Stage::Hash { secret: power(Some(&key), &self.answers.private_key) };
            }
            Stage::Hash { secret } => {
                let mark = sha1(&[b"req1", &secret]);
                let Some(at) = self.received.windows(20).position(|window| window == mark) else {
                    self.stage = Stage::Hash { secret };
                    let is_over = self.received.len() >= 512 + 20;
                    return if is_over { Err("no hash of the secret".to_owned()) } else { Ok(false) };
                };
                if at > 512 {
                    return Err(format!("{at} bytes of padding"));
                }
                self.received.drain(..at + 20);
                self.stage = Stage::Provide { secret };
            }
            Stage::Provide { secret } => {
                if self.received.len() < 34 {
                    self.stage = Stage::Provide { secret };
                    return Ok(false);
                }
                self.stage = self.on_provide(&secret)?;
            }
            Stage::PadC { mut open, seal, len } => {
                if len > 512 {
                    return Err(format!("{len} bytes of padding"));
                }
                if self.received.len() < len + 2 {
                    self.stage = Stage::PadC { open, seal, len };
                    return Ok(false);
                }
                let bytes = self.take(len + 2, &mut open);
                let len = usize::from(bytes[len]) << 8 | usize::from(bytes[len + 1]);
                self.stage = Stage::Initial { open, seal, len };
            }
            Stage::Initial { mut open, mut seal, len } => {
                if self.received.len() < len {
                    self.stage = Stage::Initial { open, seal, len };
                    return Ok(false);
                }
                self.payload = self.take(len, &mut open);
                let mut answer = Self::answer(&self.answers);
                seal.apply(&mut answer);
                out.extend(answer);
                let is_plain = self.answers.select == 1;
                self.stage = if is_plain { Stage::Plaintext } else { Stage::Rc4 { open, seal } };
            }
            Stage::Rc4 { mut open, seal } => {
                let len = self.received.len();
                let bytes = self.take(len, &mut open);
                self.payload.extend(bytes);
                self.stage = Stage::Rc4 { open, seal };
                return Ok(false);
            }
            Stage::Plaintext => {
                self.payload.append(&mut self.received);
                self.stage = Stage::Plaintext;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Looks at the hash of the torrent and what is behind it, 34 bytes together.
    fn on_provide(&mut self, secret: &[u8; 96]) -> Result<Stage, String> {
        let (torrent, mask) = (sha1(&[b"req2", &self.info_hash]), sha1(&[b"req3", secret]));
        let hash: Vec<u8> = self.received.drain(..20).collect();
        if !(0..20).all(|at| hash[at] == torrent[at] ^ mask[at]) {
            return Err("another torrent".to_owned());
        }
        let mut open = Rc4::of_handshake(b"keyA", secret, &self.info_hash);
        let seal = Rc4::of_handshake(b"keyB", secret, &self.info_hash);
        let head = self.take(14, &mut open);
        if head[..8] != [0; 8] {
            return Err("no verification constant".to_owned());
        }
        let [.., p0, p1, p2, p3, l0, l1] = head[..] else { unreachable!() };
        self.provided = Some(u32::from_be_bytes([p0, p1, p2, p3]));
        Ok(Stage::PadC { open, seal, len: u16::from_be_bytes([l0, l1]).into() })
    }

    /// Takes and decrypts so many of the bytes that have come.
    fn take(&mut self, len: usize, open: &mut Rc4) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.received.drain(..len).collect();
        open.apply(&mut bytes);
        bytes
    }
}

pub fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let mut hash = Sha1::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}
