//! Whom to ask next (BEP 12). Pure: `now` and a seed come in.
//!
//! [`Tiers`] keeps the order of the trackers of a torrent. A [`Round`] goes through all tiers at once and through each
//! in its order: a tracker that fails makes room for the next of its tier, and one that keeps silent for a while gets
//! company, since a download that starts should not wait for a dead tracker's timeout. The first answer that names a
//! peer wins the round.
//!
//! BEP 12 has a tier asked only when the ones before it have failed. Lists in the wild are tiers of one tracker each,
//! most of them dead, and trackers of different tiers know different peers.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ask::Tracker;
use super::mask::masked;
use super::url::{Url, UrlError};

/// Trackers taken from one torrent.
pub(super) const TRACKERS_MAX: usize = 100;

/// Trackers by their place in [`Tiers`], which never changes.
pub(super) type TrackerIndex = usize;

/// One tracker as the torrent names it.
pub(super) struct Named {
    /// As it stands in the torrent, but for secrets.
    pub(super) shown: String,
    /// What is asked.
    pub(super) tracker: Result<Arc<Tracker>, UrlError>,
}

/// The trackers of a torrent and the order in which they are asked.
pub(super) struct Tiers {
    trackers: Vec<Named>,
    /// Trackers that can be asked, each in one tier.
    order: Vec<Vec<TrackerIndex>>,
}

impl Tiers {
    /// Reads the URLs of an `announce-list` and shuffles them inside their tiers. A URL that comes twice counts once.
    pub(super) fn new(tiers: &[Vec<String>], seed: u64) -> Self {
        let mut trackers: Vec<Named> = Vec::new();
        let mut order = Vec::new();
        let mut known = HashSet::new();
        let mut random = Random(seed);
        for tier in tiers {
            let mut members = Vec::new();
            for text in tier {
                if trackers.len() == TRACKERS_MAX || !known.insert(text) {
                    continue;
                }
                let url = Url::parse(text);
                if url.is_ok() {
                    members.push(trackers.len());
                }
                let tracker = url.map(|url| Arc::new(Tracker::new(url)));
                trackers.push(Named { shown: masked(text), tracker });
            }
            random.shuffle(&mut members);
            order.push(members);
        }
        Self { trackers, order }
    }

    /// All trackers, by their index.
    pub(super) fn trackers(&self) -> &[Named] {
        &self.trackers
    }

    /// The trackers that can be asked, tier by tier, in each the most promising first.
    pub(super) fn tiers(&self) -> impl Iterator<Item = &[TrackerIndex]> {
        self.order.iter().map(Vec::as_slice)
    }

    /// All of these, the most promising first.
    pub(super) fn order(&self) -> impl Iterator<Item = TrackerIndex> {
        self.order.iter().flatten().copied()
    }

    /// Moves a tracker that works to the front of its tier.
    pub(super) fn promote(&mut self, tracker: TrackerIndex) {
        for tier in &mut self.order {
            if let Some(place) = tier.iter().position(|&member| member == tracker) {
                tier[..=place].rotate_right(1);
            }
        }
    }
}

/// One pass through the trackers, until one answers or all have failed.
#[derive(Debug)]
pub(super) struct Round {
    lanes: Vec<Lane>,
    patience: Duration,
}

/// The pass through one tier.
#[derive(Debug)]
struct Lane {
    to_ask: VecDeque<TrackerIndex>,
    silent: Vec<TrackerIndex>,
    /// When the silent ones get company.
    next_at: Instant,
}

impl Lane {
    fn is_due(&self, now: Instant) -> bool {
        !self.to_ask.is_empty() && (self.silent.is_empty() || now >= self.next_at)
    }
}

/// Silent trackers of one tier after which each gets half the patience, then a third, and so on: a list of dead ones is
/// not waited for in full.
const SILENT_STEP: usize = 4;

impl Round {
    /// A pass through these tiers that waits `patience` for one tracker before it asks the next of its tier as well.
    pub(super) fn new(
        tiers: impl Iterator<Item = Vec<TrackerIndex>>,
        patience: Duration,
        now: Instant,
    ) -> Self {
        let lane = |order: Vec<_>| Lane { to_ask: order.into(), silent: Vec::new(), next_at: now };
        Self { lanes: tiers.filter(|order| !order.is_empty()).map(lane).collect(), patience }
    }

    /// The tracker to ask now, if any; it counts as asked. Tiers that have nobody under way come first.
    pub(super) fn next(&mut self, now: Instant) -> Option<TrackerIndex> {
        let due = self.lanes.iter_mut().filter(|lane| lane.is_due(now));
        let lane = due.min_by_key(|lane| lane.silent.len())?;
        let tracker = lane.to_ask.pop_front()?;
        let steps = (lane.silent.len() / SILENT_STEP) as u32;
        lane.silent.push(tracker);
        lane.next_at = now + self.patience / (1 + steps);
        Some(tracker)
    }

    /// When [`Round::next`] has something to say again, unless a tracker fails before.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.lanes.iter().filter(|lane| !lane.to_ask.is_empty()).map(|lane| lane.next_at).min()
    }

    /// A tracker that was asked has failed, or has named nobody.
    pub(super) fn on_useless(&mut self, tracker: TrackerIndex) {
        for lane in &mut self.lanes {
            lane.silent.retain(|&silent| silent != tracker);
        }
    }

    /// Whether all were of no use.
    pub(super) fn is_lost(&self) -> bool {
        self.lanes.iter().all(|lane| lane.to_ask.is_empty() && lane.silent.is_empty())
    }

    /// The trackers that were asked and have not answered.
    pub(super) fn silent(&self) -> impl Iterator<Item = TrackerIndex> {
        self.lanes.iter().flat_map(|lane| &lane.silent).copied()
    }
}

/// SplitMix64: enough to spread clients over the trackers of a tier, and for numbers that only the tracker sees.
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn shuffle(&mut self, members: &mut [TrackerIndex]) {
        for last in (1..members.len()).rev() {
            let chosen = self.next() % (last as u64 + 1);
            members.swap(last, chosen as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn tiers(tiers: &[&[&str]], seed: u64) -> Tiers {
        let tiers: Vec<Vec<String>> =
            tiers.iter().map(|tier| tier.iter().map(|host| format!("http://{host}/")).collect()).collect();
        Tiers::new(&tiers, seed)
    }

    fn hosts(tiers: &Tiers) -> String {
        let host = |index: TrackerIndex| tiers.trackers()[index].shown[7..].trim_end_matches('/').to_owned();
        tiers.order().map(host).collect()
    }

    #[test]
    fn tiers_stay_in_order_and_are_shuffled_inside() {
        let orders: HashSet<String> =
            (0..200).map(|seed| hosts(&tiers(&[&["a", "b", "c"], &["d"], &["e", "f"]], seed))).collect();
        assert_eq!(orders.len(), 6 * 2, "{orders:?}");
        for order in orders {
            let mut sorted: Vec<char> = order.chars().collect();
            sorted[..3].sort_unstable();
            sorted[4..].sort_unstable();
            assert_eq!(sorted, ['a', 'b', 'c', 'd', 'e', 'f']);
        }
    }

    #[test]
    fn a_working_tracker_leads_its_tier() {
        let mut tiers = tiers(&[&["a"], &["b", "c", "d"]], 7);
        let before = hosts(&tiers);
        let last = tiers.order().last().unwrap();
        tiers.promote(last);
        let expected: String = [0, 3, 1, 2].iter().map(|&at| before.as_bytes()[at] as char).collect();
        assert_eq!(hosts(&tiers), expected);
    }

    #[test]
    fn what_cannot_be_asked_or_comes_twice_is_not_in_the_order() {
        let many: Vec<String> = (0..2 * TRACKERS_MAX).map(|n| format!("http://h{n}/")).collect();
        assert_eq!(Tiers::new(&[many], 1).order().count(), TRACKERS_MAX);
        let texts = ["wss://a/", "http://b/", "http://b/", "x"].map(str::to_owned);
        let tiers = Tiers::new(&[texts[..2].to_vec(), texts[2..].to_vec()], 1);
        assert_eq!(tiers.order().collect::<Vec<_>>(), [1]);
        assert_eq!(tiers.trackers().len(), 3);
    }

    fn round(tiers: &[&[TrackerIndex]], patience: Duration, now: Instant) -> Round {
        Round::new(tiers.iter().map(|tier| tier.to_vec()), patience, now)
    }

    #[test]
    fn a_silent_tracker_gets_company_and_a_failed_one_is_replaced() {
        let patience = Duration::from_secs(2);
        let start = Instant::now();
        let mut round = round(&[&[5, 6, 7]], patience, start);
        assert_eq!(round.next(start), Some(5));
        assert_eq!(round.next(start), None);
        assert_eq!(round.wake_at(), Some(start + patience));
        assert_eq!(round.next(start + patience), Some(6));
        round.on_useless(5);
        assert_eq!(round.next(start + patience), None, "6 has its time too");
        round.on_useless(6);
        assert_eq!(round.next(start + patience), Some(7));
        assert_eq!((round.wake_at(), round.is_lost()), (None, false));
        assert_eq!(round.silent().collect::<Vec<_>>(), [7]);
        round.on_useless(7);
        assert!(round.is_lost());
    }

    #[test]
    fn tiers_go_side_by_side() {
        let patience = Duration::from_secs(1);
        let start = Instant::now();
        let mut round = round(&[&[0, 1], &[], &[2], &[3, 4]], patience, start);
        let asked: Vec<_> = std::iter::from_fn(|| round.next(start)).collect();
        assert_eq!(asked, [0, 2, 3]);
        round.on_useless(3);
        assert_eq!(round.next(start), Some(4), "at once, in its own tier");
        round.on_useless(2);
        assert_eq!((round.next(start), round.wake_at()), (None, Some(start + patience)));
        assert_eq!(round.next(start + patience), Some(1));
    }

    #[test]
    fn a_tier_of_dead_trackers_is_left_faster_and_faster() {
        let start = Instant::now();
        let trackers: Vec<_> = (0..31).collect();
        let mut round = round(&[&trackers], Duration::from_millis(500), start);
        let mut now = start;
        while round.next(now) != Some(30) {
            now = round.wake_at().unwrap();
        }
        let took = now - start;
        assert!(took > Duration::from_secs(4) && took < Duration::from_secs(6), "{took:?}");
    }

    #[test]
    fn a_round_through_nobody_is_lost_at_once() {
        assert!(round(&[], Duration::ZERO, Instant::now()).is_lost());
        assert!(round(&[&[]], Duration::ZERO, Instant::now()).is_lost());
    }
}
