//! When lookups happen. Pure.

use std::time::{Duration, Instant};

/// The shortest time between the first two lookups. Each time it doubles, until it is [`WAIT_MAX`].
pub(super) const WAIT_MIN: Duration = Duration::from_secs(30);

/// What the doubling ends at. Also, nodes forget who announced half an hour ago.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(15 * 60);

/// The shortest time between lookups when an address turns up while we knew too few.
const HINT_WAIT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(super) struct Schedule {
    next_at: Option<Instant>,
    /// When the latest lookup began.
    started: Instant,
    /// How long after that the next one may.
    wait: Duration,
    /// Whether the latest lookup met too few nodes to be any good.
    was_poor: bool,
    is_announced: bool,
}

impl Schedule {
    /// The first lookup is due at once.
    pub(super) const fn new(is_announced: bool, now: Instant) -> Self {
        Self { next_at: Some(now), started: now, wait: Duration::ZERO, was_poor: true, is_announced }
    }

    /// When the next lookup is due, if there is none under way.
    pub(super) const fn next_at(&self) -> Option<Instant> {
        self.next_at
    }

    pub(super) fn on_started(&mut self, now: Instant) {
        self.started = now;
        self.wait = self.wait.saturating_mul(2).clamp(WAIT_MIN, WAIT_MAX);
        self.next_at = None;
    }

    /// A lookup that met too few nodes is tried again; another one only when somebody asks, or to be announced.
    pub(super) fn on_over(&mut self, is_poor: bool) {
        self.was_poor = is_poor;
        self.next_at = if is_poor {
            Some(self.started + self.wait)
        } else {
            self.is_announced.then(|| self.started + WAIT_MAX)
        };
    }

    /// More peers are wanted than the latest lookup has found.
    pub(super) fn on_more(&mut self) {
        self.advance(self.started + self.wait);
    }

    /// An address has turned up at which there may be a node.
    pub(super) fn on_hint(&mut self) {
        if self.was_poor {
            self.advance(self.started + HINT_WAIT);
        }
    }

    fn advance(&mut self, at: Instant) {
        self.next_at = Some(self.next_at.map_or(at, |next| next.min(at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn lookups_are_asked_for_and_become_rarer() {
        let start = Instant::now();
        let mut schedule = Schedule::new(false, start);
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert!(schedule.next_at().unwrap() <= now);
            schedule.on_started(now);
            assert_eq!(schedule.next_at(), None);
            schedule.on_over(false);
            assert_eq!(schedule.next_at(), None);
            schedule.on_hint();
            assert_eq!(schedule.next_at(), None, "there are nodes enough");
            schedule.on_more();
            schedule.on_more();
            waits.push((schedule.next_at().unwrap() - now).as_secs());
            now = schedule.next_at().unwrap();
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 900, 900, 900]);
    }

    #[test]
    fn a_lookup_that_met_nobody_is_repeated() {
        let now = Instant::now();
        let mut schedule = Schedule::new(false, now);
        schedule.on_started(now);
        schedule.on_over(true);
        assert_eq!(schedule.next_at(), Some(now + WAIT_MIN));
        schedule.on_hint();
        assert_eq!(schedule.next_at(), Some(now + HINT_WAIT));
        schedule.on_more();
        assert_eq!(schedule.next_at(), Some(now + HINT_WAIT));
    }

    #[test]
    fn who_announces_does_so_again() {
        let now = Instant::now();
        let mut schedule = Schedule::new(true, now);
        schedule.on_started(now);
        schedule.on_over(false);
        assert_eq!(schedule.next_at(), Some(now + WAIT_MAX));
        schedule.on_more();
        assert_eq!(schedule.next_at(), Some(now + 30 * SECOND));
    }
}
