//! A few blocks that a peer has to send before it gets a piece that was wrong.
//!
//! Whether a piece is right is known of the whole alone, so every peer that lies costs one: of 300 liars, a large piece
//! each. But most that lie lie alike, or never twice in the same way. So who wants such a piece is asked for the same
//! few of its blocks, twice. Who sends them otherwise the second time, or as somebody did whose whole piece was wrong,
//! has to wait until no other peer wants the piece. That proves nothing, and so nobody is banned for it.
//!
//! **The bound.** Of lies that change most blocks: one piece for each different lie, and [`TRIAL_BLOCKS`] twice for
//! each liar: for a piece of 1,000 blocks and 300 liars that lie alike, or never alike, some three pieces. Who spoils
//! one block of many passes for honest, as its answers are right, and so costs a piece; honest peers, who answer the
//! same from then on, are taken for such liars and wait for as many refusals as these before they get the piece.

use super::poison::BlockDigest;

/// Blocks of a trial.
pub const TRIAL_BLOCKS: usize = 4;

/// A piece of fewer blocks is given to everybody as a whole: the trials would cost as much.
pub const TRIAL_PIECE_BLOCKS_MIN: u32 = 32;

/// What a peer is asked for, and what is known of it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Question {
    block: u32,
    /// What the peer has sent for it before.
    before: Option<BlockDigest>,
    /// What each of the liars has sent for it, in one order for all questions.
    lies: Vec<BlockDigest>,
    answer: Option<BlockDigest>,
}

/// What has become of a trial.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The peer has not been asked for all before: there is nothing to compare.
    Noted,
    /// It gets the piece.
    Passed,
    /// It changes what it sends, or sends what a liar did.
    Suspect,
}

/// A trial of a peer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trial {
    questions: Vec<Question>,
}

impl Trial {
    /// Adds a block to be asked for: what the peer has sent for it before, and what each of the liars has.
    pub fn ask(&mut self, block: u32, before: Option<BlockDigest>, lies: Vec<BlockDigest>) {
        self.questions.push(Question { block, before, lies, answer: None });
    }

    /// Whether that block is asked for.
    pub fn asks(&self, block: u32) -> bool {
        self.questions.iter().any(|question| question.block == block)
    }

    /// Takes what the peer has sent for a block. Returns the verdict with the last of them.
    pub fn answer(&mut self, block: u32, digest: BlockDigest) -> Option<Verdict> {
        if let Some(question) = self.questions.iter_mut().find(|question| question.block == block) {
            question.answer = Some(digest);
        }
        self.verdict()
    }

    /// What became of it; `None` while answers are missing.
    pub fn verdict(&self) -> Option<Verdict> {
        let answers: Option<Vec<_>> = self.questions.iter().map(|question| question.answer).collect();
        let answers = answers?;
        let asked = || self.questions.iter().zip(&answers);
        let is_changed = asked().any(|(question, answer)| question.before.is_some_and(|was| was != *answer));
        let liars = self.questions.iter().map(|question| question.lies.len()).min().unwrap_or(0);
        let is_lie = (0..liars).any(|liar| asked().all(|(question, answer)| question.lies[liar] == *answer));
        if is_changed || is_lie {
            return Some(Verdict::Suspect);
        }
        let is_new = self.questions.iter().any(|question| question.before.is_none());
        Some(if is_new { Verdict::Noted } else { Verdict::Passed })
    }

    /// The answers that have come, by block.
    pub fn answers(&self) -> impl Iterator<Item = (u32, BlockDigest)> {
        self.questions.iter().filter_map(|question| Some((question.block, question.answer?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn digest(byte: u8) -> BlockDigest {
        [byte; 20]
    }

    #[test]
    fn who_lies_like_another_or_never_alike_is_suspect() {
        // What was sent before, the two lies, the answer.
        let verdict = |questions: &[(Option<u8>, [u8; 2], u8)]| {
            let mut trial = Trial::default();
            for (block, (before, lies, _)) in (0..).zip(questions) {
                trial.ask(block, before.map(digest), lies.map(digest).to_vec());
                assert!(trial.asks(block) && !trial.asks(block + 1));
            }
            assert_eq!(trial.verdict(), None);
            let answers =
                (0..).zip(questions).map(|(block, &(.., answer))| trial.answer(block, digest(answer)));
            let verdicts: Vec<_> = answers.collect();
            assert!(verdicts[..questions.len() - 1].iter().all(Option::is_none));
            assert_eq!(trial.answers().count(), questions.len());
            verdicts[questions.len() - 1]
        };
        assert_eq!(verdict(&[(Some(1), [7, 8], 1), (Some(2), [7, 8], 2)]), Some(Verdict::Passed));
        assert_eq!(verdict(&[(None, [7, 8], 1), (Some(2), [7, 8], 2)]), Some(Verdict::Noted));
        assert_eq!(
            verdict(&[(Some(1), [7, 8], 1), (Some(2), [7, 8], 3)]),
            Some(Verdict::Suspect),
            "it changed"
        );
        assert_eq!(
            verdict(&[(None, [7, 8], 8), (None, [7, 9], 9)]),
            Some(Verdict::Suspect),
            "the second lie"
        );
        // A liar may have sent some blocks as they are.
        assert_eq!(verdict(&[(Some(7), [7, 8], 7), (Some(9), [7, 9], 9)]), Some(Verdict::Passed));
    }
}
