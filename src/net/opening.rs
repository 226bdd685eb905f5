//! The beginning of a connection: the encrypted handshake where one is wanted, then the handshake of the protocol. Bytes
//! come in and bytes go out; whoever has the socket drives it.

use std::time::Duration;

use super::close::CloseReason;
use crate::os::random;
use crate::wire::handshake::{self, Handshake};
use crate::wire::mse;

/// A peer that has not sent its handshake by then is given up, and one that is asked for metadata when its extension
/// handshake is not there as long afterwards.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes received at a time while nothing can be predicted.
pub(super) const BUFFER_LEN: usize = 16 * 1024;
/// The requests we say we hold (BEP 10). We serve none, but some clients take the number for what we will ask of them.
pub(super) const REQUESTS_HELD: u32 = 2000;
/// Our name in the extension handshake.
pub(super) const CLIENT: &str = concat!("ringtide ", env!("CARGO_PKG_VERSION"));

/// How a connection comes about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// We dial. With an offer the encrypted handshake comes first.
    Dialed(Option<mse::Offer>),
    /// The peer has dialed us, and so speaks first.
    Called,
}

/// A connection on which handshakes are being exchanged.
#[derive(Debug)]
pub(super) struct Opening {
    ours: Handshake,
    stage: Stage,
    /// What came and was not used, decrypted where it was encrypted.
    received: Vec<u8>,
    ciphers: Option<Box<mse::Ciphers>>,
}

#[derive(Debug)]
enum Stage {
    /// The encrypted handshake, which carries ours.
    Encrypting(Box<mse::Initiator>),
    /// The peer has yet to name our torrent. It hears nothing from us before.
    Called,
    /// Ours is on its way.
    Spoken,
}

/// What bytes of the peer have led to.
#[derive(Debug)]
pub(super) enum Progress {
    /// More are needed.
    More(Opening),
    /// Handshakes were exchanged.
    Opened(Opened),
}

/// A connection on which handshakes were exchanged.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) theirs: Handshake,
    /// What came behind the peer's handshake.
    pub(super) rest: Vec<u8>,
    /// For all that is sent and received from here on, if it is encrypted.
    pub(super) ciphers: Option<Box<mse::Ciphers>>,
}

impl Opening {
    /// Begins a connection. What we say first, if it is for us to begin, is appended to `out`.
    pub(super) fn new(way: Way, ours: Handshake, out: &mut Vec<u8>) -> Self {
        let stage = match way {
            Way::Dialed(None) => {
                out.extend_from_slice(&ours.encode());
                Stage::Spoken
            }
            Way::Dialed(Some(offer)) => {
                let hash = &ours.info_hash;
                Stage::Encrypting(mse::Initiator::new(hash, offer, randomness(), ours.encode(), out).into())
            }
            Way::Called => Stage::Called,
        };
        Self { ours, stage, received: Vec::new(), ciphers: None }
    }

    /// Takes what has come, which may be decrypted in place, and appends to `out` what is to be sent.
    pub(super) fn take(mut self, bytes: &mut [u8], out: &mut Vec<u8>) -> Result<Progress, CloseReason> {
        if let Some(ciphers) = &mut self.ciphers {
            ciphers.receive.apply(bytes);
        }
        self.received.extend_from_slice(bytes);
        self.stage = match self.stage {
            Stage::Encrypting(initiator) => {
                let mut input = &self.received[..];
                let step = initiator.advance(&mut input, out).map_err(CloseReason::Encryption)?;
                self.received = input.to_vec();
                match step {
                    mse::Step::More(more) => Stage::Encrypting(more.into()),
                    mse::Step::Done(selected) => {
                        if let mse::Selected::Rc4(mut ciphers) = selected {
                            ciphers.receive.apply(&mut self.received);
                            self.ciphers = Some(ciphers);
                        }
                        Stage::Spoken
                    }
                }
            }
            Stage::Called => match handshake::called(&self.received).map_err(CloseReason::Handshake)? {
                Some(named) if named == self.ours.info_hash => {
                    out.extend_from_slice(&self.ours.encode());
                    Stage::Spoken
                }
                Some(_) => return Err(CloseReason::OtherTorrent),
                None => Stage::Called,
            },
            Stage::Spoken => Stage::Spoken,
        };
        match (&self.stage, self.received.split_first_chunk()) {
            (Stage::Spoken, Some((theirs, rest))) => {
                let theirs = check(&self.ours, theirs)?;
                Ok(Progress::Opened(Opened { theirs, rest: rest.to_vec(), ciphers: self.ciphers }))
            }
            _ => Ok(Progress::More(self)),
        }
    }
}

/// The peer's handshake, if it is of our torrent and not of this process.
fn check(ours: &Handshake, theirs: &[u8; handshake::LEN]) -> Result<Handshake, CloseReason> {
    let theirs = Handshake::decode(theirs).map_err(CloseReason::Handshake)?;
    if theirs.info_hash != ours.info_hash {
        return Err(CloseReason::OtherTorrent);
    }
    if theirs.peer_id == ours.peer_id {
        return Err(CloseReason::Ourselves);
    }
    Ok(theirs)
}

/// What nobody on the way can guess.
fn randomness() -> mse::Randomness {
    let padding = || {
        let mut bytes = vec![0; random::number() as usize % (mse::PAD_MAX + 1)];
        random::fill(&mut bytes);
        bytes
    };
    mse::Randomness { private_key: random::bytes(), pad_a: padding(), pad_c: padding() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: [u8; 20] = [0xaa; 20];

    fn ours() -> Handshake {
        Handshake::new(handshake::EXTENSION, HASH, *b"-RT0001-............")
    }

    fn theirs() -> Handshake {
        Handshake::new(handshake::FAST, HASH, [7; 20])
    }

    /// Feeds the bytes in parts of that length, to the end of the handshakes. Gives what was said after each part, too.
    fn exchange(way: Way, bytes: &[u8], part: usize) -> (Result<Opened, CloseReason>, Vec<Vec<u8>>) {
        let mut said = vec![Vec::new()];
        let mut opening = Opening::new(way, ours(), &mut said[0]);
        for part in bytes.chunks(part) {
            let mut out = Vec::new();
            let progress = opening.take(&mut part.to_vec(), &mut out);
            said.push(out);
            opening = match progress {
                Ok(Progress::More(opening)) => opening,
                Ok(Progress::Opened(opened)) => return (Ok(opened), said),
                Err(reason) => return (Err(reason), said),
            };
        }
        panic!("the handshakes are not over");
    }

    #[test]
    fn who_is_dialed_hears_our_handshake_first() {
        for part in [1, 5, 67, 68] {
            let (opened, said) = exchange(Way::Dialed(None), &theirs().encode(), part);
            let opened = opened.unwrap();
            assert_eq!((opened.theirs, opened.rest.len(), opened.ciphers.is_none()), (theirs(), 0, true));
            assert_eq!(said[0], ours().encode());
            assert!(said[1..].iter().all(Vec::is_empty));
        }
        let (opened, _) = exchange(Way::Dialed(None), &[&theirs().encode()[..], &[1, 2, 3]].concat(), 100);
        assert_eq!(opened.unwrap().rest, [1, 2, 3]);
    }

    #[test]
    fn who_calls_hears_nothing_before_it_names_our_torrent() {
        let (opened, said) = exchange(Way::Called, &theirs().encode(), 1);
        assert_eq!(opened.unwrap().theirs, theirs());
        for (came, said) in said.iter().enumerate() {
            assert_eq!(!said.is_empty(), came == 48, "after {came} bytes");
        }
        let (opened, said) = exchange(Way::Called, &theirs().encode(), 68);
        assert!(opened.is_ok());
        assert_eq!(said, [Vec::new(), ours().encode().to_vec()]);
    }

    #[test]
    fn who_is_of_no_use_is_sent_away() {
        let other = Handshake::new(0, [0xab; 20], [7; 20]);
        let ourselves = Handshake::new(0, HASH, ours().peer_id);
        for way in [Way::Dialed(None), Way::Called] {
            let (result, said) = exchange(way, &other.encode(), 48);
            assert!(matches!(result, Err(CloseReason::OtherTorrent)), "{result:?}");
            assert_eq!(said.concat().is_empty(), way == Way::Called);
            let (result, _) = exchange(way, &ourselves.encode(), 68);
            assert!(matches!(result, Err(CloseReason::Ourselves)), "{result:?}");
            let (result, _) = exchange(way, &[b'x'; 68], 68);
            assert!(matches!(result, Err(CloseReason::Handshake(_))), "{result:?}");
        }
    }

    #[test]
    fn an_encrypted_handshake_looks_like_nothing_and_is_never_the_same() {
        let first = || {
            let mut out = Vec::new();
            drop(Opening::new(Way::Dialed(Some(mse::Offer::Rc4)), ours(), &mut out));
            assert!((mse::KEY_LEN..=mse::KEY_LEN + mse::PAD_MAX).contains(&out.len()));
            out
        };
        assert_ne!(first(), first());
        let (result, _) = exchange(Way::Dialed(Some(mse::Offer::Either)), &[0; 96], 7);
        assert!(matches!(result, Err(CloseReason::Encryption(mse::MseError::Key))), "{result:?}");
    }
}
