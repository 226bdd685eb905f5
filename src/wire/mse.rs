//! Message stream encryption (MSE, also called protocol encryption).
//!
//! Two peers agree on a secret and, by the info hash, on a torrent, without a byte that looks like BitTorrent:
//! ```text
//! A ─▶ B   Ya, PadA                                            Y = 2^X mod P, X is random; S = Y of the other ^ X
//! B ─▶ A   Yb, PadB
//! A ─▶ B   SHA1("req1", S), SHA1("req2", hash) ^ SHA1("req3", S), ENCRYPT(VC, crypto_provide, PadC, IA)
//! B ─▶ A   ENCRYPT(VC, crypto_select, PadD)
//! ```
//! VC is eight zeros, IA the first bytes of what A has to say, most often the BitTorrent handshake. From there on the
//! bytes of both are RC4 or plain, whichever B has selected of what A provides.
//!
//! It hides the protocol from machines on the way that look for it, and is no secret from one who knows the info hash
//! and interferes: the keys are short, RC4 is weak, and nobody proves who he is.
//!
//! [`Initiator`] is A and [`Responder`] is B. Both are state machines: bytes in, bytes out, and what must be random is
//! handed in. B does not know beforehand whether it hears A or a plain handshake; whoever feeds it has to tell.

use std::fmt;

use crypto_bigint::modular::{ConstMontyForm, ConstMontyParams};
use crypto_bigint::{Encoding, U192, U768, impl_modulus};
use rc4::consts::U20;
use rc4::{KeyInit, Rc4, StreamCipher};
use sha1::{Digest, Sha1};

use super::handshake;

mod responder;

pub use responder::{Answered, Responder};

/// The longest of each of the four paddings.
pub const PAD_MAX: usize = 512;

/// Bytes of a public key.
pub const KEY_LEN: usize = 96;

/// Bytes of a private key.
pub const PRIVATE_KEY_LEN: usize = 20;

/// Which ways to go on are provided (`crypto_provide`), or may be selected of what the other provides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offer {
    /// RC4 or, behind the handshake, plain bytes.
    Either,
    /// RC4.
    Rc4,
}

impl Offer {
    const fn bits(self) -> u32 {
        match self {
            Self::Either => PLAINTEXT | RC4,
            Self::Rc4 => RC4,
        }
    }
}

/// What has to be random.
#[derive(Clone, Debug)]
pub struct Randomness {
    /// The private key.
    pub private_key: [u8; PRIVATE_KEY_LEN],
    /// Follows the public key, PadA or PadB: any bytes, of which [`PAD_MAX`] are sent at most.
    pub pad_key: Vec<u8>,
    /// The same inside the encrypted part, PadC or PadD.
    pub pad_sealed: Vec<u8>,
}

impl Randomness {
    /// Appends the public key and what follows it to `out`. Returns the private key and the other padding.
    fn say_key(self, out: &mut Vec<u8>) -> (U192, Vec<u8>) {
        let Self { private_key, mut pad_key, mut pad_sealed } = self;
        pad_key.truncate(PAD_MAX);
        pad_sealed.truncate(PAD_MAX);
        let mut wide = [0; U192::BYTES];
        wide[U192::BYTES - PRIVATE_KEY_LEN..].copy_from_slice(&private_key);
        let private_key = U192::from_be_bytes(wide);
        out.extend_from_slice(&power(&GENERATOR, &private_key));
        out.extend_from_slice(&pad_key);
        (private_key, pad_sealed)
    }
}

/// How the connection goes on.
#[derive(Debug)]
pub enum Selected {
    /// As a plain one.
    Plaintext,
    /// Encrypted to its end.
    Rc4(Box<Ciphers>),
}

/// The ciphers of both directions.
#[derive(Debug)]
pub struct Ciphers {
    /// For all that is sent.
    pub send: Cipher,
    /// For all that is received.
    pub receive: Cipher,
}

/// RC4 of one direction, somewhere in its stream.
pub struct Cipher(Rc4<U20>);

impl Cipher {
    fn new(name: &[u8; 4], secret: &[u8; KEY_LEN], info_hash: &[u8; 20]) -> Self {
        let mut cipher = Self(Rc4::new(&sha1(&[name, secret, info_hash]).into()));
        // The first bytes tell too much of the key.
        cipher.apply(&mut [0; DROPPED]);
        cipher
    }

    /// Encrypts or decrypts the next bytes of the stream, in place.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        self.0.apply_keystream(bytes);
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cipher").finish_non_exhaustive()
    }
}

/// What a peer did that ends the handshake. It is at fault, or is no peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MseError {
    /// Its public key makes a secret that anybody knows, or is no number below the prime.
    Key,
    /// The verification constant is not where it should be: it knows another torrent, or no encryption.
    Verification,
    /// The hash of the secret is not where it should be: it knows no encryption.
    Secret,
    /// It dials for another torrent.
    Torrent,
    /// It provides no way that may be selected.
    Provided {
        /// The bits that came.
        got: u32,
        /// The bits that would do.
        accepted: u32,
    },
    /// It selected not exactly one of the ways that were provided.
    Selected {
        /// The bits that came.
        got: u32,
        /// The bits that were provided.
        provided: u32,
    },
    /// Its padding in the encrypted part is too long.
    Padding {
        /// The announced length.
        len: u16,
    },
}

impl fmt::Display for MseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "encrypted handshake: ")?;
        match *self {
            Self::Key => write!(f, "the public key is trivial"),
            Self::Verification => write!(f, "no verification constant within {PAD_MAX} bytes of padding"),
            Self::Secret => write!(f, "no hash of the secret within {PAD_MAX} bytes of padding"),
            Self::Torrent => write!(f, "it is for another torrent"),
            Self::Provided { got, accepted } => {
                write!(f, "provides {got:#x}, expected a bit of {accepted:#x}")
            }
            Self::Selected { got, provided } => {
                write!(f, "selects {got:#x}, expected one bit of {provided:#x}")
            }
            Self::Padding { len } => {
                write!(f, "announces {len} bytes of padding, expected {PAD_MAX} at most")
            }
        }
    }
}

impl std::error::Error for MseError {}

/// What a step of the handshake has led to.
#[derive(Debug)]
pub enum Step {
    /// It needs more bytes than there were.
    More(Initiator),
    /// It is over. What is left of the input is behind it, and encrypted if that was selected.
    Done(Selected),
}

/// The handshake of the peer that dials.
#[derive(Debug)]
pub struct Initiator {
    opening: Opening,
    state: State,
    /// What has come for `state`: [`PAD_MAX`] bytes and a verification constant at most.
    buffer: Vec<u8>,
}

/// What is said once the peer's key is here.
#[derive(Debug)]
struct Opening {
    info_hash: [u8; 20],
    offer: Offer,
    private_key: U192,
    pad_c: Vec<u8>,
    initial: [u8; handshake::LEN],
}

#[derive(Debug)]
enum State {
    /// Before the end of the public key.
    Key,
    /// Before the end of the verification constant, which looks like `mark`. The cipher is behind it already.
    Verification { ciphers: Box<Ciphers>, mark: [u8; VERIFICATION.len()] },
    /// Before the end of `crypto_select` and the length of the padding.
    Select { ciphers: Box<Ciphers> },
    /// Before the end of the padding.
    Padding { selected: Selected, len: usize },
}

impl Initiator {
    /// Begins a handshake for the torrent of that info hash, which carries our BitTorrent handshake `initial`. What is
    /// to be sent first is appended to `out`.
    pub fn new(
        info_hash: &[u8; 20],
        offer: Offer,
        randomness: Randomness,
        initial: [u8; handshake::LEN],
        out: &mut Vec<u8>,
    ) -> Self {
        let (private_key, pad_c) = randomness.say_key(out);
        let opening = Opening { info_hash: *info_hash, offer, private_key, pad_c, initial };
        Self { opening, state: State::Key, buffer: Vec::new() }
    }

    /// Takes what belongs to the handshake off the front of `input`, and appends what is to be sent to `out`.
    ///
    /// # Errors
    /// The peer does not keep to the protocol.
    pub fn advance(mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<Step, MseError> {
        while self.state.gather(&mut self.buffer, input)? {
            let mut bytes = std::mem::take(&mut self.buffer);
            self.state = match self.state {
                State::Key => self.opening.on_key(&bytes, out)?,
                State::Verification { ciphers, .. } => State::Select { ciphers },
                State::Select { ciphers } => self.opening.on_select(ciphers, &mut bytes)?,
                State::Padding { mut selected, .. } => {
                    if let Selected::Rc4(ciphers) = &mut selected {
                        ciphers.receive.apply(&mut bytes);
                    }
                    return Ok(Step::Done(selected));
                }
            };
        }
        Ok(Step::More(self))
    }
}

impl State {
    /// Moves bytes from the front of `input` to the buffer, until all that this state waits for is there.
    fn gather(&self, buffer: &mut Vec<u8>, input: &mut &[u8]) -> Result<bool, MseError> {
        match self {
            Self::Key => Ok(fill(KEY_LEN, buffer, input)),
            Self::Verification { mark, .. } => find(mark, MseError::Verification, buffer, input),
            Self::Select { .. } => Ok(fill(SELECT_LEN, buffer, input)),
            Self::Padding { len, .. } => Ok(fill(*len, buffer, input)),
        }
    }
}

/// Moves bytes to the buffer until there are so many.
fn fill(len: usize, buffer: &mut Vec<u8>, input: &mut &[u8]) -> bool {
    let (front, back) = input.split_at(input.len().min(len - buffer.len()));
    buffer.extend_from_slice(front);
    *input = back;
    buffer.len() == len
}

/// Moves bytes to the buffer until it ends with the mark, which may stand behind so much padding; where it does not,
/// that is the error.
fn find(mark: &[u8], error: MseError, buffer: &mut Vec<u8>, input: &mut &[u8]) -> Result<bool, MseError> {
    while let Some((&byte, rest)) = input.split_first() {
        *input = rest;
        buffer.push(byte);
        if buffer.ends_with(mark) {
            return Ok(true);
        }
        if buffer.len() == PAD_MAX + mark.len() {
            return Err(error);
        }
    }
    Ok(false)
}

/// The secret of both, by the other's public key.
fn secret(key: &[u8], private_key: &U192) -> Result<[u8; KEY_LEN], MseError> {
    let key = U768::from_be_slice(key);
    let max = Prime::MODULUS.get().wrapping_sub(&U768::from_u8(2));
    if key < GENERATOR || key > max { Err(MseError::Key) } else { Ok(power(&key, private_key)) }
}

/// What names a torrent to one who knows its info hash and the secret.
fn torrent_mark(secret: &[u8; KEY_LEN], info_hash: &[u8; 20]) -> [u8; 20] {
    let (torrent, mask) = (sha1(&[b"req2", info_hash]), sha1(&[b"req3", secret]));
    std::array::from_fn(|at| torrent[at] ^ mask[at])
}

fn bits_of(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |bits, &byte| bits << 8 | u32::from(byte))
}

fn pad_len_of(bytes: &[u8]) -> Result<usize, MseError> {
    let len = bytes.iter().fold(0, |len, &byte| len << 8 | u16::from(byte));
    if usize::from(len) > PAD_MAX { Err(MseError::Padding { len }) } else { Ok(len.into()) }
}

impl Opening {
    fn on_key(&self, key: &[u8], out: &mut Vec<u8>) -> Result<State, MseError> {
        let (secret, info_hash) = (secret(key, &self.private_key)?, &self.info_hash);
        let mut send = Cipher::new(b"keyA", &secret, info_hash);
        let mut receive = Cipher::new(b"keyB", &secret, info_hash);
        out.extend_from_slice(&sha1(&[b"req1", &secret]));
        out.extend_from_slice(&torrent_mark(&secret, info_hash));
        let plain = out.len();
        out.extend_from_slice(&VERIFICATION);
        out.extend_from_slice(&self.offer.bits().to_be_bytes());
        out.extend_from_slice(&(self.pad_c.len() as u16).to_be_bytes());
        out.extend_from_slice(&self.pad_c);
        out.extend_from_slice(&(self.initial.len() as u16).to_be_bytes());
        out.extend_from_slice(&self.initial);
        send.apply(&mut out[plain..]);
        let mut mark = VERIFICATION;
        receive.apply(&mut mark);
        Ok(State::Verification { ciphers: Box::new(Ciphers { send, receive }), mark })
    }

    fn on_select(&self, mut ciphers: Box<Ciphers>, bytes: &mut [u8]) -> Result<State, MseError> {
        ciphers.receive.apply(bytes);
        let (got, len) = bytes.split_at(4);
        let got = bits_of(got);
        let selected = match got {
            _ if got & self.offer.bits() == 0 => None,
            PLAINTEXT => Some(Selected::Plaintext),
            RC4 => Some(Selected::Rc4(ciphers)),
            _ => None,
        };
        let selected = selected.ok_or(MseError::Selected { got, provided: self.offer.bits() })?;
        Ok(State::Padding { selected, len: pad_len_of(len)? })
    }
}

impl_modulus!(
    Prime,
    U768,
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
     EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A63A36210000000000090563"
);

const GENERATOR: U768 = U768::from_u8(2);

fn power(base: &U768, exponent: &U192) -> [u8; KEY_LEN] {
    ConstMontyForm::<Prime, { U768::LIMBS }>::new(base).pow(exponent).retrieve().to_be_bytes()
}

fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let mut hash = Sha1::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// The verification constant (VC).
const VERIFICATION: [u8; 8] = [0; 8];

/// Bytes of `crypto_select` and the length of the padding behind it.
const SELECT_LEN: usize = 6;

/// The bits of `crypto_provide` and `crypto_select`.
const PLAINTEXT: u32 = 1;
const RC4: u32 = 2;

/// Bytes of the stream of a cipher that are not used.
const DROPPED: usize = 1024;

#[cfg(test)]
mod tests;
