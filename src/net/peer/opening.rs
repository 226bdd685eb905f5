//! The beginning of a connection: the encrypted handshake where one is wanted, then the handshake of the protocol.

use std::hash::{BuildHasher, RandomState};

use super::{BUFFER_LEN, Peer, Way};
use crate::net::close::CloseReason;
use crate::net::shared::Shared;
use crate::wire::handshake::{self, Handshake};
use crate::wire::mse;

/// A connection on which handshakes were exchanged.
pub(super) struct Opened {
    pub(super) theirs: Handshake,
    /// What came behind the peer's handshake.
    pub(super) rest: Vec<u8>,
    /// For all that comes later, if it is encrypted.
    pub(super) cipher: Option<mse::Cipher>,
}

/// Exchanges handshakes.
pub(super) async fn shake_hands(peer: &Peer, shared: &Shared) -> Result<Opened, CloseReason> {
    let ours = Handshake::new(shared.features(), shared.info_hash().0, shared.peer_id()).encode();
    let mut line = Incoming::new(peer);
    match peer.way {
        Way::Dialed(None) => peer.send(&ours),
        Way::Dialed(Some(offer)) => line.encrypt(offer, &shared.info_hash().0, ours).await?,
        Way::Called => {
            line.hear_caller(&shared.info_hash().0).await?;
            peer.send(&ours);
        }
    }
    while line.received.len() < handshake::LEN {
        line.receive().await?;
    }
    let (theirs, rest) = line.received.split_first_chunk().ok_or(CloseReason::Closed)?;
    let theirs = Handshake::decode(theirs).map_err(CloseReason::Handshake)?;
    if theirs.info_hash != shared.info_hash().0 {
        return Err(CloseReason::OtherTorrent);
    }
    if theirs.peer_id == shared.peer_id() {
        return Err(CloseReason::Ourselves);
    }
    Ok(Opened { theirs, rest: rest.to_vec(), cipher: line.cipher })
}

/// The receiving side of a peer up to its handshake.
struct Incoming<'a> {
    peer: &'a Peer,
    buffer: Vec<u8>,
    /// What came and was not used, decrypted where it was encrypted.
    received: Vec<u8>,
    has_answered: bool,
    cipher: Option<mse::Cipher>,
}

impl<'a> Incoming<'a> {
    fn new(peer: &'a Peer) -> Self {
        let (buffer, received) = (vec![0; BUFFER_LEN], Vec::with_capacity(BUFFER_LEN));
        // Who has dialed us was told nothing that it could have left unanswered.
        let has_answered = matches!(peer.way, Way::Called);
        Self { peer, buffer, received, has_answered, cipher: None }
    }

    async fn receive(&mut self) -> Result<(), CloseReason> {
        let (result, back) = self.peer.socket.recv(std::mem::take(&mut self.buffer)).await;
        self.buffer = back;
        self.peer.check_closing()?;
        let n = match result {
            Ok(0) if self.has_answered => return Err(CloseReason::Closed),
            Ok(0) => return Err(CloseReason::Unanswered(None)),
            Ok(n) => n,
            Err(error) if self.has_answered => return Err(CloseReason::Io(error)),
            Err(error) => return Err(CloseReason::Unanswered(Some(error))),
        };
        self.has_answered = true;
        let bytes = &mut self.buffer[..n];
        if let Some(cipher) = &mut self.cipher {
            cipher.apply(bytes);
        }
        self.received.extend_from_slice(bytes);
        Ok(())
    }

    /// Waits until a peer that has dialed us names our torrent. It hears nothing from us before.
    async fn hear_caller(&mut self, info_hash: &[u8; 20]) -> Result<(), CloseReason> {
        loop {
            self.receive().await?;
            match handshake::called(&self.received).map_err(CloseReason::Handshake)? {
                Some(named) if named == *info_hash => return Ok(()),
                Some(_) => return Err(CloseReason::OtherTorrent),
                None => {}
            }
        }
    }

    /// Begins the connection with an encrypted handshake that carries ours.
    async fn encrypt(
        &mut self,
        offer: mse::Offer,
        info_hash: &[u8; 20],
        ours: [u8; handshake::LEN],
    ) -> Result<(), CloseReason> {
        let mut out = Vec::new();
        let mut initiator = mse::Initiator::new(info_hash, offer, randomness(), ours, &mut out);
        let selected = loop {
            self.peer.send(&out);
            out.clear();
            self.receive().await?;
            let mut input = &self.received[..];
            let step = initiator.advance(&mut input, &mut out).map_err(CloseReason::Encryption)?;
            self.received = input.to_vec();
            match step {
                mse::Step::More(more) => initiator = more,
                mse::Step::Done(selected) => break selected,
            }
        };
        self.peer.send(&out);
        if let mse::Selected::Rc4(ciphers) = selected {
            let mse::Ciphers { send, mut receive } = *ciphers;
            receive.apply(&mut self.received);
            self.cipher = Some(receive);
            self.peer.seal(send);
        }
        Ok(())
    }
}

/// What nobody on the way can guess. The standard library's hasher is keyed by the kernel's random numbers, which does
/// for an encryption that hides the protocol and no secrets.
fn randomness() -> mse::Randomness {
    let mut private_key = [0; mse::PRIVATE_KEY_LEN];
    fill(&mut private_key);
    let padding = || {
        let mut bytes = vec![0; random() as usize % (mse::PAD_MAX + 1)];
        fill(&mut bytes);
        bytes
    };
    mse::Randomness { private_key, pad_a: padding(), pad_c: padding() }
}

fn fill(bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&random().to_le_bytes()[..chunk.len()]);
    }
}

/// Each state has keys of its own.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}
