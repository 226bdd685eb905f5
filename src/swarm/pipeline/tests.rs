use std::collections::VecDeque;

use super::*;

/// How often the owner of a pipeline ticks it.
const TICK: Duration = Duration::from_millis(100);

const MB: u64 = 1_000_000;

/// A peer behind a link, with a virtual clock: requests take half a round trip to it, it sends the blocks one after
/// another at `rate`, and they take half a round trip back.
struct Link {
    now: Instant,
    next_tick: Instant,
    pipeline: Pipeline,
    rtt: Duration,
    /// Bytes a second.
    rate: u64,
    /// When the peer has sent all that was asked of it.
    free_at: Instant,
    /// When the blocks on their way arrive, in order.
    arrivals: VecDeque<Instant>,
    /// How many more blocks we want.
    wanted: u64,
    received: u64,
}

impl Link {
    fn new(rtt_ms: u64, rate: u64) -> Self {
        let now = Instant::now();
        let mut pipeline = Pipeline::new(now);
        pipeline.set_reqq(WINDOW_MAX);
        Self {
            now,
            next_tick: now + TICK,
            pipeline,
            rtt: Duration::from_millis(rtt_ms),
            rate,
            free_at: now,
            arrivals: VecDeque::new(),
            wanted: u64::MAX,
            received: 0,
        }
    }

    fn request(&mut self) {
        while self.arrivals.len() < self.pipeline.window() && self.wanted > 0 {
            let start = self.free_at.max(self.now + self.rtt / 2);
            self.free_at = start + Duration::from_nanos(u64::from(BLOCK_LEN) * 1_000_000_000 / self.rate);
            self.arrivals.push_back(self.free_at + self.rtt / 2);
            self.wanted -= 1;
        }
    }

    /// Lets time pass; the bytes a second that came.
    fn run(&mut self, time: Duration) -> u64 {
        let end = self.now + time;
        let before = self.received;
        while self.now < end {
            self.request();
            match self.arrivals.front() {
                Some(&arrival) if arrival <= self.next_tick.min(end) => {
                    self.now = arrival;
                    self.arrivals.pop_front();
                    self.pipeline.on_block(self.now, BLOCK_LEN);
                    self.received += 1;
                }
                _ => {
                    self.now = self.next_tick.min(end);
                }
            }
            if self.now == self.next_tick {
                self.pipeline.tick(self.now, self.arrivals.len());
                self.next_tick += TICK;
            }
        }
        (self.received - before) * u64::from(BLOCK_LEN) * 1_000 / time.as_millis() as u64
    }

    /// The peer sends nothing for that long.
    fn stall(&mut self, time: Duration) {
        self.free_at += time;
        self.arrivals.iter_mut().for_each(|arrival| *arrival += time);
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn fast_links_are_full_within_seconds_and_stay_full() {
    for rtt_ms in [1, 20, 100, 300] {
        let mut link = Link::new(rtt_ms, 100 * MB);
        link.run(secs(4));
        for second in 4..60 {
            let rate = link.run(secs(1));
            assert!(rate > 98 * MB, "{rtt_ms} ms, second {second}: {rate} B/s");
        }
        let rate = link.pipeline.rate();
        assert!((98 * MB..=102 * MB).contains(&rate), "{rate} B/s");
    }
}

#[test]
fn the_window_doubles_each_round_trip_at_first() {
    let mut link = Link::new(200, 1_000 * MB);
    let windows: Vec<_> = (0..5)
        .map(|_| {
            link.run(Duration::from_millis(210));
            link.pipeline.window() as u32
        })
        .collect();
    assert!(windows[0] >= 2 * WINDOW_START, "{windows:?}");
    assert!(windows.windows(2).all(|pair| pair[1] * 10 >= pair[0] * 18), "{windows:?}");
}

#[test]
fn slow_peers_get_a_small_window() {
    for (rate, expected) in [(50_000, 7..=12), (500_000, 85..=105), (2_000, 5..=5)] {
        let mut link = Link::new(50, rate);
        link.run(secs(40));
        for _ in 0..60 {
            link.run(secs(1));
            let window = link.pipeline.window();
            assert!(expected.contains(&window), "{rate} B/s: window {window}");
        }
    }
}

#[test]
fn what_floods_the_socket_is_not_asked_for_more() {
    let mut link = Link::new(1, 100 * MB);
    link.run(Duration::from_millis(20));
    let window = link.pipeline.window();
    link.pipeline.set_flooded(true);
    for second in 0..10 {
        let rate = link.run(secs(1));
        assert_eq!(link.pipeline.window(), window, "second {second}: {rate} B/s");
    }
    link.pipeline.set_flooded(false);
    link.run(secs(3));
    assert!(link.pipeline.window() > 1_500, "a socket that runs dry has the window grow again");
    link.pipeline.set_flooded(true);
    link.rate = 2 * MB;
    link.run(secs(30));
    assert!(link.pipeline.window() < 500, "and a flooded one does not keep it from falling");
}

#[test]
fn a_stall_of_a_tick_does_not_end_the_growth() {
    for stall_at_ms in (100..3_000).step_by(100) {
        for stall_ms in [100, 400, 900] {
            let mut link = Link::new(100, 100 * MB);
            link.run(Duration::from_millis(stall_at_ms));
            link.stall(Duration::from_millis(stall_ms));
            link.run(Duration::from_millis(6_000 - stall_at_ms));
            let rate = link.run(secs(1));
            assert!(rate > 98 * MB, "{stall_ms} ms at {stall_at_ms}: {rate} B/s");
        }
    }
}

#[test]
fn a_peer_that_becomes_fast_is_followed() {
    let mut link = Link::new(300, 50_000);
    link.run(secs(40));
    assert!(link.pipeline.window() < 20);
    link.rate = 100 * MB;
    link.run(secs(8));
    assert!(link.run(secs(1)) > 98 * MB);

    link.rate = 50_000;
    link.run(secs(900));
    assert!(link.pipeline.window() < 20, "and one that becomes slow");
}

#[test]
fn a_pause_on_our_side_is_not_held_against_the_peer() {
    let mut link = Link::new(300, 100 * MB);
    link.run(secs(6));
    link.wanted = 0;
    link.run(secs(60));
    assert!(link.arrivals.is_empty() && !link.pipeline.is_snubbed());
    link.wanted = u64::MAX;
    link.run(secs(3));
    assert!(link.run(secs(1)) > 98 * MB);
}

#[test]
fn a_silent_peer_is_snubbed_and_forgiven() {
    let mut link = Link::new(20, MB);
    link.run(secs(5));
    let window = link.pipeline.window();
    link.stall(secs(30));
    link.run(secs(19));
    assert!(!link.pipeline.is_snubbed());
    link.run(secs(2));
    assert!(link.pipeline.is_snubbed());
    assert_eq!(link.pipeline.window(), 1);
    assert_eq!(link.pipeline.rate(), 0);
    link.run(secs(20));
    assert!(!link.pipeline.is_snubbed());
    assert!(link.pipeline.window() * 10 >= window * 8, "{} of {window}", link.pipeline.window());
}

#[test]
fn what_the_peer_takes_is_never_exceeded() {
    let now = Instant::now();
    let grown = |set_reqq: &dyn Fn(&mut Pipeline)| {
        let mut pipeline = Pipeline::new(now);
        set_reqq(&mut pipeline);
        (0..5_000).for_each(|_| pipeline.on_block(now, BLOCK_LEN));
        let growing = pipeline.window();
        (1..200).for_each(|tick| {
            (0..1_000).for_each(|_| pipeline.on_block(now + TICK * tick, BLOCK_LEN));
            pipeline.tick(now + TICK * tick, 1);
        });
        assert_eq!(pipeline.phase, Phase::Holding);
        (growing, pipeline.window())
    };
    assert_eq!(grown(&|_| ()), (250, 250));
    for (reqq, expected) in [(0, 1), (1, 1), (50, 50), (2_000, 2_000), (2_001, 2_000), (u32::MAX, 2_000)] {
        assert_eq!(grown(&|pipeline| pipeline.set_reqq(reqq)), (expected, expected), "reqq {reqq}");
    }
}

#[test]
fn a_reqq_takes_effect_when_it_comes_late() {
    let mut link = Link::new(100, 100 * MB);
    link.pipeline.set_reqq(REQQ_DEFAULT);
    link.run(secs(10));
    assert_eq!(link.pipeline.window(), 250);
    link.pipeline.set_reqq(2_000);
    link.run(secs(4));
    assert!(link.run(secs(1)) > 98 * MB);
    link.pipeline.set_reqq(100);
    assert_eq!(link.pipeline.window(), 100);
}

#[test]
fn a_burst_of_rejects_halves_once_and_is_grown_over_slowly() {
    let mut link = Link::new(20, 100 * MB);
    link.run(secs(5));
    assert_eq!(link.pipeline.window(), 2_000);
    let now = link.now;
    (0..500).for_each(|_| link.pipeline.on_reject(now));
    assert_eq!(link.pipeline.window(), 1_000);
    link.run(secs(3));
    assert!((1_000..1_300).contains(&link.pipeline.window()), "{}", link.pipeline.window());
    link.run(secs(30));
    assert_eq!(link.pipeline.window(), 2_000);

    let later = link.now;
    (0..30).for_each(|second| link.pipeline.on_reject(later + secs(second)));
    assert_eq!(link.pipeline.window(), 1);
    link.pipeline.set_reqq(500);
    assert_eq!(link.pipeline.window(), 1, "a handshake does not undo a reject");
}
