//! The right to fetch one piece, and what has been fetched of it so far.
//!
//! A [`Claim`] is move-only: the peer that holds it is the only one that writes the piece, through the lease inside.
//! When its peer goes away the claim moves on, half-done, to the next one. [`Progress`] is the part others may look
//! at: in the endgame a second peer reads from it which blocks are missing, fetches them into private memory and
//! leaves them in the mailbox; only the holder of the claim copies them to their place.
//!
//! So that helpers do not fetch what comes anyway, the holder says how long it will take ([`Progress::lag`]), and each
//! block counts how many helpers were asked for it ([`Progress::ask`]).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha1::{Digest, Sha1};
use smallvec::SmallVec;

use super::trial::{Trial, Verdict};
use crate::meta::geometry::{Block, Geometry, PieceIndex};

/// Blocks in a mailbox, from which on helpers are asked for no more: they are held in memory until the holder of the
/// claim looks.
pub const MAIL_MAX: u32 = 256;

/// The same for all mailboxes of a download: 8 MiB.
pub const MAILROOM_MAX: u32 = 512;

/// In the count of helpers of a block: it lies in the mailbox.
const DONATED: u8 = u8::MAX;

/// The right to write one piece of the output. `disk` has the real one; tests write to plain memory.
pub trait PieceWriter {
    /// Writes `data` at byte `begin` of the piece.
    fn write(&mut self, begin: u32, data: &[u8]);

    /// Copies what is there at byte `begin` of the piece to `out`, until it is full.
    fn read(&self, begin: u32, out: &mut [u8]);

    /// The `len` bytes at `begin` are there, a whole block, and will not be written again.
    fn landed(&mut self, begin: u32, len: u32) {
        let _ = (begin, len);
    }

    /// Bytes came to the `len` bytes at `begin`, a whole block, that do not belong there and have been taken elsewhere.
    fn spoiled(&mut self, begin: u32, len: u32) {
        let _ = (begin, len);
    }
}

/// A set of blocks of one piece. Pieces of up to 4 MiB fit without an allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockSet {
    words: SmallVec<[u64; 4]>,
}

impl BlockSet {
    /// The empty set for a piece of `block_count` blocks.
    pub fn new(block_count: u32) -> Self {
        Self { words: SmallVec::from_elem(0, block_count.div_ceil(64) as usize) }
    }

    /// Whether the block of this index is in the set.
    pub fn contains(&self, block: u32) -> bool {
        self.words[(block / 64) as usize] & (1 << (block % 64)) != 0
    }

    /// Adds a block.
    pub fn insert(&mut self, block: u32) {
        self.words[(block / 64) as usize] |= 1 << (block % 64);
    }

    /// Takes a block out.
    pub fn remove(&mut self, block: u32) {
        self.words[(block / 64) as usize] &= !(1 << (block % 64));
    }
}

/// A block that a helper fetched in the endgame, on its way to the holder of the claim.
#[derive(Debug)]
pub struct Donation {
    /// Which block.
    pub block: Block,
    /// Its bytes, `block.len` of them.
    pub data: Box<[u8]>,
    /// Who sent it.
    pub from: SocketAddr,
}

/// What is there of one piece in flight. Written by the holder of the claim, read by helpers on any thread.
#[derive(Debug)]
pub struct Progress {
    piece: PieceIndex,
    block_count: u32,
    // Both are part of this allocation for pieces of common sizes, so a small piece costs few cache misses.
    received: SmallVec<[AtomicU64; 4]>,
    /// How many helpers each block was asked of, or [`DONATED`].
    asked: SmallVec<[AtomicU8; 16]>,
    /// Milliseconds.
    lag: AtomicU32,
    mail: Mutex<Vec<Donation>>,
    mail_len: AtomicU32,
    closed: AtomicBool,
    /// The holder is on trial, so nobody may help.
    on_trial: AtomicBool,
    /// Helpers are let in from this [`Progress::lag`] on.
    help_from: Duration,
    mailroom: Arc<Mailroom>,
}

/// What lies in all mailboxes of a download together. Where many holders have fallen silent, one helper fills a mailbox
/// after the other, quicker than they are looked into.
#[derive(Debug, Default)]
pub struct Mailroom {
    blocks: AtomicU32,
}

impl Mailroom {
    fn has_room(&self) -> bool {
        self.blocks.load(Ordering::Relaxed) < MAILROOM_MAX
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.take_mail();
    }
}

impl Progress {
    fn new(geometry: &Geometry, piece: PieceIndex, help_from: Duration, mailroom: Arc<Mailroom>) -> Self {
        let block_count = geometry.block_count(piece);
        let received = (0..block_count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let asked = (0..block_count).map(|_| AtomicU8::new(0)).collect();
        Self {
            piece,
            block_count,
            received,
            asked,
            lag: AtomicU32::new(0),
            mail: Mutex::default(),
            mail_len: AtomicU32::new(0),
            closed: AtomicBool::new(false),
            on_trial: AtomicBool::new(false),
            help_from,
            mailroom,
        }
    }

    /// The piece this is about.
    pub const fn piece(&self) -> PieceIndex {
        self.piece
    }

    /// How many blocks the piece has.
    pub const fn block_count(&self) -> u32 {
        self.block_count
    }

    /// Whether a block is at its place already.
    pub fn has(&self, block: u32) -> bool {
        self.received[(block / 64) as usize].load(Ordering::Relaxed) & (1 << (block % 64)) != 0
    }

    /// Whether nobody waits for blocks of this claim any more: it is complete, or was given up.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Lets helpers know that their blocks are of no use any more.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// How long the holder of the claim will take for the rest, as it last guessed; zero where it has not said, and
    /// while nobody holds the claim.
    pub fn lag(&self) -> Duration {
        Duration::from_millis(u64::from(self.lag.load(Ordering::Relaxed)))
    }

    /// Says how long the rest of the piece will take.
    pub fn set_lag(&self, lag: Duration) {
        self.lag.store(u32::try_from(lag.as_millis()).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Whether [`Progress::ask`] would find a block.
    pub fn can_ask(&self, helpers: u8) -> bool {
        self.takes_help() && self.last_askable(helpers, |_| false).is_some()
    }

    /// The last missing block that at most so many helpers were asked for: one more is now. Helpers go backward, so
    /// that they meet the holder, who goes forward, as late as possible. Those that `is_mine` names the caller was
    /// asked for before.
    pub fn ask(&self, helpers: u8, is_mine: impl Fn(u32) -> bool) -> Option<u32> {
        if !self.takes_help() {
            return None;
        }
        let block = self.last_askable(helpers, is_mine)?;
        // When another helper is quicker this one asks all the same: harmless, and rare.
        self.ask_too(block);
        Some(block)
    }

    /// One helper more may bring this block.
    pub fn ask_too(&self, block: u32) {
        self.change_asked(block, |asked| asked.saturating_add(1).min(DONATED - 1));
    }

    /// A helper that was asked for a block will not bring it, or nobody should wait for that.
    pub fn unask(&self, block: u32) {
        self.change_asked(block, |asked| asked.saturating_sub(1));
    }

    fn takes_help(&self) -> bool {
        self.lag() >= self.help_from
            && !self.is_closed()
            && !self.on_trial.load(Ordering::Relaxed)
            && self.mail_len() < MAIL_MAX
            && self.mailroom.has_room()
    }

    fn last_askable(&self, helpers: u8, is_mine: impl Fn(u32) -> bool) -> Option<u32> {
        let askable = |&block: &u32| {
            self.asked[block as usize].load(Ordering::Relaxed) <= helpers.min(DONATED - 1)
                && !self.has(block)
                && !is_mine(block)
        };
        (0..self.block_count).rev().find(askable)
    }

    /// Changes the count of a block that does not lie in the mailbox.
    fn change_asked(&self, block: u32, change: impl Fn(u8) -> u8) {
        let change = |asked| (asked != DONATED).then(|| change(asked));
        // It fails only where there is nothing to change.
        let _ = self.asked[block as usize].fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
    }

    /// Leaves a fetched block for the holder of the claim; false where that block is not needed any more.
    pub fn donate(&self, donation: Donation) -> bool {
        let index = donation.block.index();
        if self.is_closed() || self.has(index) {
            return false;
        }
        if self.asked[index as usize].swap(DONATED, Ordering::Relaxed) == DONATED {
            return false;
        }
        let mut mail = self.mail.lock().unwrap_or_else(PoisonError::into_inner);
        mail.push(donation);
        self.mailroom.blocks.fetch_add(1, Ordering::Relaxed);
        self.mail_len.store(mail.len() as u32, Ordering::Release);
        true
    }

    /// Whether [`Progress::donate`] left something. One load, so the holder can ask often.
    pub fn has_mail(&self) -> bool {
        self.mail_len() > 0
    }

    fn mail_len(&self) -> u32 {
        self.mail_len.load(Ordering::Acquire)
    }

    fn take_mail(&self) -> Vec<Donation> {
        let mut mail = self.mail.lock().unwrap_or_else(PoisonError::into_inner);
        self.mail_len.store(0, Ordering::Release);
        self.mailroom.blocks.fetch_sub(mail.len() as u32, Ordering::Relaxed);
        std::mem::take(&mut *mail)
    }

    /// Only the holder of the claim writes, so load and store need not be one operation.
    fn set(&self, block: u32) {
        let word = &self.received[(block / 64) as usize];
        word.store(word.load(Ordering::Relaxed) | (1 << (block % 64)), Ordering::Relaxed);
    }
}

/// The exclusive right to fetch one piece.
#[derive(Debug)]
pub struct Claim<L> {
    /// Where the piece's bytes go.
    pub lease: L,
    progress: Arc<Progress>,
    missing: u32,
    owner: SocketAddr,
    /// Who sent the blocks that `owner` did not; empty for nearly every piece.
    others: HashMap<u32, SocketAddr>,
    /// The piece was wrong before, and the owner is not known to be among the last that should have it.
    is_doubted: bool,
    /// Blocks that the owner has to send first.
    trial: Option<Trial>,
}

impl<L> Claim<L> {
    /// The claim of a piece nothing is there of yet, held by `owner`. With a `help_from` above zero it is *solo*: only
    /// when the owner will take that long for the rest it is helped with, and it is not handed over, so that one peer
    /// answers for the whole piece.
    pub fn new(
        geometry: &Geometry,
        piece: PieceIndex,
        lease: L,
        owner: SocketAddr,
        help_from: Duration,
        mailroom: &Arc<Mailroom>,
    ) -> Self {
        let progress = Progress::new(geometry, piece, help_from, Arc::clone(mailroom));
        Self {
            lease,
            missing: progress.block_count,
            progress: Arc::new(progress),
            owner,
            others: HashMap::new(),
            is_doubted: false,
            trial: None,
        }
    }

    /// The same, of a piece that was wrong before: its owner should be tried first.
    pub(super) fn doubted(mut self) -> Self {
        self.is_doubted = true;
        self
    }

    /// Whether the owner should be tried before it gets the piece.
    pub const fn is_doubted(&self) -> bool {
        self.is_doubted
    }

    /// Puts the owner on trial: it is asked for nothing else before that is over.
    pub fn begin_trial(&mut self, trial: Trial) {
        self.trial = Some(trial);
        self.progress.on_trial.store(true, Ordering::Relaxed);
    }

    /// The trial of the owner, unless it has passed it, or there was none.
    pub const fn trial(&self) -> Option<&Trial> {
        self.trial.as_ref()
    }

    /// Who holds it, or held it last.
    pub const fn owner(&self) -> SocketAddr {
        self.owner
    }

    /// Whether that block may be asked for.
    pub(super) fn may_ask(&self, block: u32) -> bool {
        self.trial.as_ref().is_none_or(|trial| trial.asks(block))
    }

    /// The part that helpers may see.
    pub const fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// The piece.
    pub fn piece(&self) -> PieceIndex {
        self.progress.piece
    }

    /// Whether nothing of the piece is there, so that nothing is lost with the claim.
    pub fn is_untouched(&self) -> bool {
        self.missing == self.progress.block_count && !self.progress.has_mail()
    }

    /// Whether the claim may go on with another peer, half-done.
    pub fn can_be_handed_over(&self) -> bool {
        self.progress.help_from.is_zero()
    }

    /// Whether the owner will take at least so long for the rest, and nobody may help with it.
    pub fn is_stuck(&self, least: Duration) -> bool {
        let lag = self.progress.lag();
        lag >= least && lag < self.progress.help_from
    }

    /// Whether all blocks are at their place.
    pub const fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// Notes that a block is at its place; false where it was there already.
    pub fn mark(&mut self, block: u32) -> bool {
        if self.progress.has(block) {
            return false;
        }
        self.progress.set(block);
        self.missing -= 1;
        if self.missing == 0 {
            self.progress.close();
        }
        true
    }

    /// Throws away what helpers left too late and returns how many bytes that was. For claims that are complete.
    pub fn discard_mail(&self) -> u64 {
        if !self.progress.has_mail() {
            return 0;
        }
        self.progress.take_mail().iter().map(|donation| donation.data.len() as u64).sum()
    }

    /// Hands the claim to another peer, remembering who sent what is there so far.
    pub fn hand_over(&mut self, to: SocketAddr) {
        if to == self.owner {
            return;
        }
        let owner = self.owner;
        for block in 0..self.progress.block_count {
            if self.progress.has(block) {
                self.others.entry(block).or_insert(owner);
            }
        }
        self.owner = to;
    }

    /// Who sent a block that is there.
    pub fn source(&self, block: u32) -> SocketAddr {
        self.others.get(&block).copied().unwrap_or(self.owner)
    }

    /// The blocks of the piece, by index.
    pub fn blocks(&self) -> std::ops::Range<u32> {
        0..self.progress.block_count
    }
}

impl<L: PieceWriter> Claim<L> {
    /// Notes that a block of a trial has come. Returns whether the owner has passed by that.
    pub(super) fn answer(&mut self, block: Block) -> bool {
        let Some(trial) = &mut self.trial else { return false };
        let mut bytes = vec![0; block.len as usize];
        self.lease.read(block.begin, &mut bytes);
        let has_passed = trial.answer(block.index(), Sha1::digest(&bytes).into()) == Some(Verdict::Passed);
        if has_passed {
            self.trial = None;
            self.progress.on_trial.store(false, Ordering::Relaxed);
        }
        has_passed
    }

    /// Copies what helpers left in the mailbox to its place and calls `used` for each block that was still missing.
    /// Returns the bytes that were no longer needed.
    pub fn open_mail(&mut self, mut used: impl FnMut(Block)) -> u64 {
        let mut wasted = 0;
        for Donation { block, data, from } in self.progress.take_mail() {
            debug_assert_eq!((block.piece, block.len as usize), (self.piece(), data.len()));
            let index = block.index();
            if self.progress.has(index) {
                wasted += data.len() as u64;
                continue;
            }
            self.lease.write(block.begin, &data);
            if from != self.owner {
                self.others.insert(index, from);
            }
            self.mark(index);
            self.lease.landed(block.begin, block.len);
            used(block);
        }
        wasted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::geometry::BLOCK_LEN;
    use crate::swarm::fixture::Memory;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn claim(blocks: u32) -> (Geometry, Claim<Memory>) {
        let geometry = Geometry::new(u64::from(blocks * BLOCK_LEN), blocks * BLOCK_LEN).unwrap();
        let piece = geometry.piece(0).unwrap();
        let memory = Memory(vec![0; (blocks * BLOCK_LEN) as usize]);
        (geometry, Claim::new(&geometry, piece, memory, peer(1), Duration::ZERO, &Arc::default()))
    }

    #[test]
    fn a_piece_is_complete_when_each_block_was_marked_once() {
        let (_, mut claim) = claim(130);
        assert!(claim.is_untouched());
        for block in claim.blocks() {
            assert!(!claim.is_complete());
            claim.mark(block);
            claim.mark(block);
        }
        assert!(claim.is_complete());
        assert!(claim.progress().is_closed());
        assert_eq!(claim.source(129), peer(1));
    }

    #[test]
    fn donations_fill_gaps_and_are_attributed() {
        let (geometry, mut claim) = claim(3);
        let piece = claim.piece();
        claim.mark(0);
        let progress = Arc::clone(claim.progress());
        let donate = |index| {
            let block = geometry.block(piece, index);
            let data = vec![7; block.len as usize].into();
            progress.donate(Donation { block, data, from: peer(2) })
        };
        assert_eq!([donate(0), donate(1), donate(2), donate(2)], [false, true, true, false]);
        assert!(progress.has_mail());
        claim.mark(1);
        let mut used = Vec::new();
        let wasted = claim.open_mail(|block| used.push(block.index()));
        assert_eq!((wasted, used), (u64::from(BLOCK_LEN), vec![2]));
        assert!(!progress.has_mail());
        assert_eq!(claim.source(0), peer(1));
        assert_eq!(claim.source(2), peer(2));
        assert_eq!(claim.lease.0[2 * BLOCK_LEN as usize], 7);
        assert!(claim.is_complete());
    }

    #[test]
    fn helpers_are_asked_for_different_blocks_from_the_back() {
        let (geometry, mut claim) = claim(4);
        claim.mark(0);
        let progress = Arc::clone(claim.progress());
        assert_eq!(
            [progress.ask(0, |_| false), progress.ask(0, |_| false), progress.ask(0, |_| false)],
            [Some(3), Some(2), Some(1)]
        );
        assert_eq!((progress.ask(0, |_| false), progress.can_ask(0)), (None, false));
        assert_eq!(progress.ask(1, |_| false), Some(3), "a second helper where one is allowed");
        assert_eq!(
            progress.ask(1, |block| block == 2),
            Some(1),
            "who owes a block is not asked for it again"
        );
        progress.unask(1);
        progress.unask(2);
        assert_eq!(progress.ask(0, |_| false), Some(2));
        let block = geometry.block(claim.piece(), 1);
        progress.donate(Donation { block, data: vec![0; block.len as usize].into(), from: peer(2) });
        claim.mark(2);
        claim.mark(3);
        progress.unask(1);
        assert_eq!(progress.ask(u8::MAX, |_| false), None, "what lies in the mailbox is not asked for");
        let (_, other) = self::claim(4);
        let progress = Arc::clone(other.progress());
        progress.close();
        assert_eq!(progress.ask(u8::MAX, |_| false), None);
    }

    #[test]
    fn a_full_mailbox_stops_the_helpers() {
        let (geometry, claim) = claim(MAIL_MAX + 1);
        let progress = claim.progress();
        for _ in 0..MAIL_MAX {
            let block = geometry.block(claim.piece(), progress.ask(0, |_| false).unwrap());
            assert!(progress.donate(Donation { block, data: vec![0; 16_384].into(), from: peer(2) }));
        }
        assert_eq!((progress.ask(0, |_| false), progress.can_ask(0)), (None, false));
        assert_eq!(claim.discard_mail(), u64::from(MAIL_MAX * BLOCK_LEN));
        assert_eq!(progress.ask(0, |_| false), Some(0));
    }

    #[test]
    fn all_mailboxes_together_are_bounded() {
        let geometry = Geometry::new(u64::from(10 * MAIL_MAX * BLOCK_LEN), MAIL_MAX * BLOCK_LEN).unwrap();
        let mailroom = Arc::default();
        let claims: Vec<_> = geometry
            .pieces()
            .map(|piece| {
                let memory = Memory(vec![0; (MAIL_MAX * BLOCK_LEN) as usize]);
                Claim::new(&geometry, piece, memory, peer(1), Duration::ZERO, &mailroom)
            })
            .collect();
        let fill = |claim: &Claim<Memory>| {
            let progress = claim.progress();
            std::iter::from_fn(|| {
                let block = geometry.block(claim.piece(), progress.ask(0, |_| false)?);
                progress.donate(Donation { block, data: [0].into(), from: peer(2) }).then_some(())
            })
            .count() as u32
        };
        assert_eq!(claims.iter().map(fill).sum::<u32>(), MAILROOM_MAX);
        claims[0].discard_mail();
        assert_eq!(fill(&claims[5]), MAIL_MAX);
        drop(claims);
        assert_eq!(mailroom.blocks.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_handed_over_claim_remembers_who_sent_what() {
        let (_, mut claim) = claim(3);
        claim.mark(1);
        claim.hand_over(peer(2));
        claim.mark(0);
        claim.hand_over(peer(3));
        claim.mark(2);
        assert_eq!([0, 1, 2].map(|block| claim.source(block)), [peer(2), peer(1), peer(3)]);
    }
}
