//! The side of the encrypted handshake that is dialed.

use super::{
    Cipher, Ciphers, KEY_LEN, MseError, Offer, PLAINTEXT, RC4, Randomness, Selected, VERIFICATION, bits_of,
    fill, find, pad_len_of, secret, sha1, torrent_mark,
};

/// What a step of the handshake has led to.
#[derive(Debug)]
pub enum Answered {
    /// It needs more bytes than there were.
    More(Responder),
    /// It is over. What is left of the input is behind it, and encrypted if that was selected.
    Done {
        /// How the connection goes on.
        selected: Selected,
        /// What the other has said inside the handshake: the first bytes of the connection.
        initial: Vec<u8>,
    },
}

/// The handshake of the peer that is dialed. It answers to one torrent.
#[derive(Debug)]
pub struct Responder {
    info_hash: [u8; 20],
    offer: Offer,
    state: State,
    /// What has come for `state`: 64 KiB at most, which is what the length of the first bytes can say.
    pub(super) buffer: Vec<u8>,
}

#[derive(Debug)]
enum State {
    /// Before the end of the public key.
    Key(Randomness),
    /// Before the end of the hash of the secret, which looks like `mark`.
    Secret { secret: [u8; KEY_LEN], pad_d: Vec<u8>, mark: [u8; 20] },
    /// Before the end of what names the torrent and says what is provided.
    Provide { secret: [u8; KEY_LEN], pad_d: Vec<u8> },
    /// Before the end of so much padding and the length of the first bytes.
    Padding { ciphers: Box<Ciphers>, pad_d: Vec<u8>, select: u32, len: usize },
    /// Before the end of so many first bytes.
    Initial { ciphers: Box<Ciphers>, select: u32, len: usize },
}

impl Responder {
    /// Waits for a handshake for the torrent of that info hash, and goes on in plain bytes or RC4 as `offer` allows and
    /// the other provides: in plain bytes where there is a choice.
    pub const fn new(info_hash: &[u8; 20], offer: Offer, randomness: Randomness) -> Self {
        Self { info_hash: *info_hash, offer, state: State::Key(randomness), buffer: Vec::new() }
    }

    /// Takes what belongs to the handshake off the front of `input`, and appends what is to be sent to `out`.
    ///
    /// # Errors
    /// The peer does not keep to the protocol, or has dialed for something else.
    pub fn advance(mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<Answered, MseError> {
        while self.state.gather(&mut self.buffer, input)? {
            let mut bytes = std::mem::take(&mut self.buffer);
            self.state = match self.state {
                State::Key(randomness) => on_key(&bytes, randomness, out)?,
                State::Secret { secret, pad_d, .. } => State::Provide { secret, pad_d },
                State::Provide { secret, pad_d } => {
                    self.offer.on_provide(&self.info_hash, &secret, pad_d, &mut bytes)?
                }
                State::Padding { ciphers, pad_d, select, .. } => {
                    on_padding(ciphers, &pad_d, select, &mut bytes, out)
                }
                State::Initial { mut ciphers, select, .. } => {
                    ciphers.receive.apply(&mut bytes);
                    let selected = if select == RC4 { Selected::Rc4(ciphers) } else { Selected::Plaintext };
                    return Ok(Answered::Done { selected, initial: bytes });
                }
            };
        }
        Ok(Answered::More(self))
    }
}

impl State {
    /// Moves bytes from the front of `input` to the buffer, until all that this state waits for is there.
    fn gather(&self, buffer: &mut Vec<u8>, input: &mut &[u8]) -> Result<bool, MseError> {
        match self {
            Self::Key(_) => Ok(fill(KEY_LEN, buffer, input)),
            Self::Secret { mark, .. } => find(mark, MseError::Secret, buffer, input),
            Self::Provide { .. } => Ok(fill(PROVIDE_LEN, buffer, input)),
            Self::Padding { len, .. } => Ok(fill(len + 2, buffer, input)),
            Self::Initial { len, .. } => Ok(fill(*len, buffer, input)),
        }
    }
}

fn on_key(key: &[u8], randomness: Randomness, out: &mut Vec<u8>) -> Result<State, MseError> {
    let said = out.len();
    let (private_key, pad_d) = randomness.say_key(out);
    let secret = secret(key, &private_key).inspect_err(|_| out.truncate(said))?;
    Ok(State::Secret { secret, pad_d, mark: sha1(&[b"req1", &secret]) })
}

impl Offer {
    fn on_provide(
        self,
        info_hash: &[u8; 20],
        secret: &[u8; KEY_LEN],
        pad_d: Vec<u8>,
        bytes: &mut [u8],
    ) -> Result<State, MseError> {
        let (torrent, sealed) = bytes.split_at_mut(20);
        if *torrent != torrent_mark(secret, info_hash) {
            return Err(MseError::Torrent);
        }
        let send = Cipher::new(b"keyB", secret, info_hash);
        let mut receive = Cipher::new(b"keyA", secret, info_hash);
        receive.apply(sealed);
        let (verification, rest) = sealed.split_at(VERIFICATION.len());
        let (provided, len) = rest.split_at(4);
        if *verification != VERIFICATION {
            return Err(MseError::Verification);
        }
        let select = self.select(bits_of(provided))?;
        Ok(State::Padding {
            ciphers: Box::new(Ciphers { send, receive }),
            pad_d,
            select,
            len: pad_len_of(len)?,
        })
    }

    /// The bit of the way that is selected of those that the other provides. Bits that nobody knows are left alone.
    fn select(self, provided: u32) -> Result<u32, MseError> {
        match provided & self.bits() {
            0 => Err(MseError::Provided { got: provided, accepted: self.bits() }),
            both if both & PLAINTEXT != 0 => Ok(PLAINTEXT),
            _ => Ok(RC4),
        }
    }
}

/// Answers once all of the other's part is here but its first bytes, whose length is in `bytes`, behind the padding.
fn on_padding(
    mut ciphers: Box<Ciphers>,
    pad_d: &[u8],
    select: u32,
    bytes: &mut [u8],
    out: &mut Vec<u8>,
) -> State {
    ciphers.receive.apply(bytes);
    let len = bits_of(&bytes[bytes.len() - 2..]) as usize;
    let plain = out.len();
    out.extend_from_slice(&VERIFICATION);
    out.extend_from_slice(&select.to_be_bytes());
    out.extend_from_slice(&(pad_d.len() as u16).to_be_bytes());
    out.extend_from_slice(pad_d);
    ciphers.send.apply(&mut out[plain..]);
    State::Initial { ciphers, select, len }
}

/// Bytes of what names the torrent, the verification constant, `crypto_provide` and the length of the padding.
const PROVIDE_LEN: usize = 20 + VERIFICATION.len() + 4 + 2;
