//! The beginning of a connection: the encrypted handshake where one is wanted or comes, then the handshake of the
//! protocol. Bytes come in and bytes go out; whoever has the socket drives it.

use std::time::Duration;

use super::close::CloseReason;
use super::listener::Welcome;
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
    /// The peer has dialed us, and so speaks first, encrypted or not.
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
    /// The peer has yet to name our torrent. It hears nothing from us before, or where it is encrypted only a key.
    Called(Welcome),
    /// The peer has begun an encrypted handshake.
    Answering(Box<mse::Responder>),
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
    /// Begins a connection. What we say first, if it is for us to begin, is appended to `out`. `welcome` is for those
    /// who have dialed us.
    pub(super) fn new(way: Way, ours: Handshake, welcome: Welcome, out: &mut Vec<u8>) -> Self {
        let stage = match way {
            Way::Dialed(None) => {
                out.extend_from_slice(&ours.encode());
                Stage::Spoken
            }
            Way::Dialed(Some(offer)) => {
                let hash = &ours.info_hash;
                Stage::Encrypting(mse::Initiator::new(hash, offer, randomness(), ours.encode(), out).into())
            }
            Way::Called => Stage::Called(welcome),
        };
        Self { ours, stage, received: Vec::new(), ciphers: None }
    }

    /// Takes what has come, which may be decrypted in place, and appends to `out` what is to be sent.
    pub(super) fn take(mut self, bytes: &mut [u8], out: &mut Vec<u8>) -> Result<Progress, CloseReason> {
        if let Some(ciphers) = &mut self.ciphers {
            ciphers.receive.apply(bytes);
        }
        self.received.extend_from_slice(bytes);
        self.hear_call(out)?;
        self.stage = match std::mem::replace(&mut self.stage, Stage::Spoken) {
            Stage::Encrypting(initiator) => {
                let mut input = &self.received[..];
                let step = initiator.advance(&mut input, out).map_err(CloseReason::Encryption)?;
                self.received = input.to_vec();
                match step {
                    mse::Step::More(more) => Stage::Encrypting(more.into()),
                    mse::Step::Done(selected) => {
                        self.go_on(selected);
                        Stage::Spoken
                    }
                }
            }
            Stage::Answering(responder) => {
                let mut input = &self.received[..];
                let step = responder.advance(&mut input, out).map_err(CloseReason::Encryption)?;
                self.received = input.to_vec();
                match step {
                    mse::Answered::More(more) => Stage::Answering(more.into()),
                    mse::Answered::Done { selected, initial } => {
                        self.go_on(selected);
                        self.received.splice(..0, initial);
                        // Its handshake need not be among what it has said. To say ours behind the last word of the
                        // encrypted one would do, but webtorrent does not understand the two in one segment.
                        Stage::Called(Welcome::Plain)
                    }
                }
            }
            stage @ (Stage::Called(_) | Stage::Spoken) => stage,
        };
        self.hear_call(out)?;
        match (&self.stage, self.received.split_first_chunk()) {
            (Stage::Spoken, Some((theirs, rest))) => {
                let theirs = check(&self.ours, theirs)?;
                Ok(Progress::Opened(Opened { theirs, rest: rest.to_vec(), ciphers: self.ciphers }))
            }
            _ => Ok(Progress::More(self)),
        }
    }

    fn hear_call(&mut self, out: &mut Vec<u8>) -> Result<(), CloseReason> {
        if let Stage::Called(welcome) = self.stage {
            self.stage = self.on_call(welcome, out)?;
        }
        Ok(())
    }

    /// Takes what one who has dialed us says first. The key that begins an encrypted handshake looks like anything but
    /// the protocol's name, so it is known by the first byte that is another.
    fn on_call(&mut self, welcome: Welcome, out: &mut Vec<u8>) -> Result<Stage, CloseReason> {
        match (handshake::called(&self.received), welcome.encryption()) {
            (Err(_), Some(offer)) => {
                let responder = mse::Responder::new(&self.ours.info_hash, offer, randomness());
                Ok(Stage::Answering(responder.into()))
            }
            (Err(error), None) => Err(CloseReason::Handshake(error)),
            (Ok(None), _) => Ok(Stage::Called(welcome)),
            (Ok(Some(named)), _) if named != self.ours.info_hash => Err(CloseReason::OtherTorrent),
            (Ok(Some(_)), _) if welcome == Welcome::Encrypted => Err(CloseReason::Unencrypted),
            (Ok(Some(_)), _) => {
                self.say_hello(out);
                Ok(Stage::Spoken)
            }
        }
    }

    /// Goes on as it was selected. What has come behind the encrypted handshake is decrypted.
    fn go_on(&mut self, selected: mse::Selected) {
        if let mse::Selected::Rc4(mut ciphers) = selected {
            ciphers.receive.apply(&mut self.received);
            self.ciphers = Some(ciphers);
        }
    }

    /// Says our handshake to one who has dialed us.
    fn say_hello(&mut self, out: &mut Vec<u8>) {
        let mut hello = self.ours.encode();
        if let Some(ciphers) = &mut self.ciphers {
            ciphers.send.apply(&mut hello);
        }
        out.extend_from_slice(&hello);
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
    mse::Randomness { private_key: random::bytes(), pad_key: padding(), pad_sealed: padding() }
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
        exchange_at(Welcome::Plain, way, bytes, part)
    }

    fn exchange_at(
        welcome: Welcome,
        way: Way,
        bytes: &[u8],
        part: usize,
    ) -> (Result<Opened, CloseReason>, Vec<Vec<u8>>) {
        let mut said = vec![Vec::new()];
        let mut opening = Opening::new(way, ours(), welcome, &mut said[0]);
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

    /// A caller with an offer and us, until both have the other's handshake; bytes travel in parts of that length. What
    /// each received behind it, and whether the connection is encrypted.
    fn call(
        welcome: Welcome,
        offer: mse::Offer,
        part: usize,
    ) -> Result<[(Handshake, Vec<u8>, bool); 2], CloseReason> {
        let (mut to_us, mut to_them) = (Vec::new(), Vec::new());
        let theirs = Handshake::new(handshake::FAST, HASH, [7; 20]);
        let caller = Opening::new(Way::Dialed(Some(offer)), theirs, Welcome::Plain, &mut to_us);
        let called = Opening::new(Way::Called, ours(), welcome, &mut to_them);
        let (mut caller, mut called) = (Progress::More(caller), Progress::More(called));
        loop {
            let mut parts = Vec::new();
            for part in std::mem::take(&mut to_us).chunks_mut(part) {
                let Progress::More(opening) = called else { panic!("it is over") };
                called = opening.take(part, &mut parts)?;
            }
            to_them.append(&mut parts);
            for part in std::mem::take(&mut to_them).chunks_mut(part) {
                let Progress::More(opening) = caller else { panic!("it is over") };
                caller = opening.take(part, &mut to_us)?;
            }
            (caller, called) = match (caller, called) {
                (Progress::Opened(caller), Progress::Opened(called)) => {
                    return Ok(
                        [called, caller].map(|opened| (opened.theirs, opened.rest, opened.ciphers.is_some()))
                    );
                }
                both => both,
            };
            assert!(!to_us.is_empty(), "both wait");
        }
    }

    #[test]
    fn who_calls_may_be_encrypted_where_that_is_welcome() {
        for part in [1, 7, 96, 5_000] {
            for (welcome, offer, is_sealed) in [
                (Welcome::Both, mse::Offer::Either, false),
                (Welcome::Both, mse::Offer::Rc4, true),
                (Welcome::Encrypted, mse::Offer::Either, true),
                (Welcome::Encrypted, mse::Offer::Rc4, true),
            ] {
                let [called, caller] = call(welcome, offer, part).unwrap();
                assert_eq!(called, (theirs(), Vec::new(), is_sealed), "{welcome:?} {offer:?}");
                assert_eq!(caller, (ours(), Vec::new(), is_sealed), "{welcome:?} {offer:?}");
            }
        }
        let refused = call(Welcome::Plain, mse::Offer::Either, 5_000);
        assert!(matches!(refused, Err(CloseReason::Handshake(_))), "{refused:?}");
    }

    #[test]
    fn who_calls_unencrypted_is_sent_away_where_that_is_not_welcome() {
        for part in [1, 48, 68] {
            let (result, said) = exchange_at(Welcome::Encrypted, Way::Called, &theirs().encode(), part);
            assert!(matches!(result, Err(CloseReason::Unencrypted)), "{result:?}");
            assert!(said.concat().is_empty());
            let (result, _) = exchange_at(Welcome::Both, Way::Called, &theirs().encode(), part);
            assert!(result.unwrap().ciphers.is_none());
        }
    }

    #[test]
    fn what_is_no_handshake_of_either_kind_is_given_up_after_what_one_may_be_long() {
        // One that begins like the protocol's name, and one that does not.
        for first in [0x13, 0xa5] {
            let bytes: Vec<u8> = std::iter::once(first).chain([0xa5; 2_000]).collect();
            let (result, said) = exchange_at(Welcome::Both, Way::Called, &bytes, 1);
            assert!(matches!(result, Err(CloseReason::Encryption(mse::MseError::Secret))), "{result:?}");
            assert_eq!(said.len() - 1, mse::KEY_LEN + mse::PAD_MAX + 20, "bytes until then");
            let key = said.concat();
            assert!((mse::KEY_LEN..=mse::KEY_LEN + mse::PAD_MAX).contains(&key.len()), "it heard a key");
        }
        let (result, said) = exchange_at(Welcome::Both, Way::Called, &[0; 96], 7);
        assert!(matches!(result, Err(CloseReason::Encryption(mse::MseError::Key))), "{result:?}");
        assert!(said.concat().is_empty());
    }

    #[test]
    fn an_encrypted_handshake_looks_like_nothing_and_is_never_the_same() {
        let first = || {
            let mut out = Vec::new();
            drop(Opening::new(Way::Dialed(Some(mse::Offer::Rc4)), ours(), Welcome::Plain, &mut out));
            assert!((mse::KEY_LEN..=mse::KEY_LEN + mse::PAD_MAX).contains(&out.len()));
            out
        };
        assert_ne!(first(), first());
        let (result, _) = exchange(Way::Dialed(Some(mse::Offer::Either)), &[0; 96], 7);
        assert!(matches!(result, Err(CloseReason::Encryption(mse::MseError::Key))), "{result:?}");
    }
}
