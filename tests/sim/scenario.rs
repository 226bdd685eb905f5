//! Swarms made up from a seed.

use ringtide::meta::geometry::Geometry;
use ringtide::swarm::bitfield::Bitfield;

use super::rng::Rng;
use super::script::{Lie, Script, Told, Violation};
use super::world::{MILLIS, SECS};

/// One way, in microseconds.
const LATENCY_MAX: u64 = 300 * MILLIS;

/// A swarm: what it shares and who is in it.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub geometry: Geometry,
    pub scripts: Vec<Script>,
    /// Microseconds by which all must be done.
    pub deadline: u64,
    /// When all connections are closed at once.
    pub aborts: Vec<u64>,
}

impl Scenario {
    /// A swarm in which anything happens, and some hosts (the first ones) are good enough for the whole.
    pub fn random(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let piece_len = [16_384, 32_768, 50_000, 65_536, 262_144, 700_001, 5_000][rng.below(7)];
        let total_len = rng.spread(50_000, 3_000_000);
        let geometry = Geometry::new(total_len, piece_len).unwrap();
        let mut scripts = anchors(geometry, &mut rng);
        for _ in 0..rng.range(0, 12) {
            scripts.push(anyone(geometry, &mut rng));
        }
        let slowest = scripts.iter().map(|script| script.rate).min().unwrap();
        // With one request at a time each block takes a round trip.
        let trips = geometry.pieces().map(|piece| u64::from(geometry.block_count(piece))).sum::<u64>();
        let aborts = if rng.chance(300) { vec![rng.range(0, 3 * SECS)] } else { Vec::new() };
        let deadline = 200 * SECS + 4 * SECS * total_len / slowest + trips * 2 * LATENCY_MAX;
        Self { seed, geometry, scripts, deadline, aborts }
    }

    /// A swarm in which nobody fails or chokes, with hosts of very different speeds.
    pub fn peaceful(seed: u64, total_len: u64) -> Self {
        let mut rng = Rng::new(seed);
        let piece_len = [65_536, 262_144, 1 << 20][rng.below(3)];
        let geometry = Geometry::new(total_len, piece_len).unwrap();
        let scripts = (0..rng.range(2, 8)).map(|_| {
            let pieces = Bitfield::full(geometry.piece_count());
            let rate = rng.spread(20_000, 10_000_000);
            let script = Script::honest(pieces, rate, rng.spread(100, 100 * MILLIS));
            Script {
                fast: rng.chance(500),
                shuffles: rng.chance(100),
                chats: [0, 50][rng.below(2)],
                ..script
            }
        });
        let scripts = scripts.collect();
        Self::of(seed, geometry, scripts)
    }

    /// How long it would take if every host sent at its rate all the time, in microseconds.
    pub fn ideal(&self) -> u64 {
        self.geometry.total_len() * SECS / self.scripts.iter().map(|script| script.rate).sum::<u64>()
    }

    /// These hosts, all of them good.
    pub fn of(seed: u64, geometry: Geometry, scripts: Vec<Script>) -> Self {
        Self { seed, geometry, scripts, deadline: 1_000 * SECS, aborts: Vec::new() }
    }
}

/// Honest hosts that have all pieces between them.
fn anchors(geometry: Geometry, rng: &mut Rng) -> Vec<Script> {
    let count = [1, 1, 2, 4][rng.below(4)];
    let mut parts = vec![Bitfield::new(geometry.piece_count()); count];
    for piece in geometry.pieces() {
        parts[rng.below(count)].set(piece);
        parts[rng.below(count)].set(piece);
    }
    parts
        .into_iter()
        .map(|pieces| temper(Script::honest(pieces, rng.spread(30_000, 20_000_000), 0), rng))
        .collect()
}

/// Gives a host its manners, all of them lawful.
fn temper(mut script: Script, rng: &mut Rng) -> Script {
    script.latency = rng.spread(50, LATENCY_MAX);
    script.backlog = rng.spread(1, 200_000) as usize;
    script.fast = rng.chance(500);
    script.told = match rng.below(6) {
        0 if script.fast => Told::Fast,
        1 => Told::Lazy,
        2 => Told::Haves,
        _ => Told::Bitfield,
    };
    script.reqq = [None, Some(1), Some(2), Some(50), Some(500), Some(5_000)][rng.below(6)];
    script.allows = [0, 0, 1, 10][(rng.next() % 4) as usize];
    script.unchoke_after = rng.spread(1, 3 * SECS);
    if rng.chance(300) {
        // Who chokes before its answers can arrive sends nothing but waste.
        script.chokes = Some((rng.spread(2 * SECS, 20 * SECS), rng.spread(MILLIS, 5 * SECS)));
        script.answers_choked = rng.chance(300);
    }
    script.shuffles = rng.chance(200);
    script.chats = [0, 0, 20, 300, 1_000][rng.below(5)];
    script
}

/// Any host, good or bad.
fn anyone(geometry: Geometry, rng: &mut Rng) -> Script {
    let piece_count = geometry.piece_count();
    let mut pieces = Bitfield::full(piece_count);
    if rng.chance(500) {
        let share = rng.range(0, 1_000);
        for piece in geometry.pieces().filter(|_| !rng.chance(share)).collect::<Vec<_>>() {
            pieces.clear(piece);
        }
    }
    let mut script = temper(Script::honest(pieces, rng.spread(10_000, 20_000_000), 0), rng);
    if rng.chance(300) {
        script.gains = Some(rng.spread(10 * MILLIS, 2 * SECS));
    }
    let faults = if rng.chance(600) { rng.range(1, 2) } else { 0 };
    for _ in 0..faults {
        spoil(&mut script, rng);
    }
    script
}

/// Gives a host a fault.
fn spoil(script: &mut Script, rng: &mut Rng) {
    match rng.below(11) {
        0 | 1 => script.corrupts = [10, 200, 1_000][rng.below(3)],
        2 => script.duplicates = [50, 1_000][rng.below(2)],
        3 => script.unrequested = [50, 1_000][rng.below(2)],
        4 => script.rejects = [50, 500, 1_000][rng.below(3)],
        5 => script.forgets = [50, 500, 1_000][rng.below(3)],
        6 | 7 => script.stalls_after = Some(rng.spread(1, 100) as u32 - 1),
        8 => script.dies_after = Some(rng.spread(1, 2_000_000)),
        9 => script.lies = Some([Lie::Ignore, Lie::Reject, Lie::Garbage][rng.below(3)]),
        _ => {
            let violation = [
                Violation::LongBitfield,
                Violation::SpareBits,
                Violation::SecondBitfield,
                Violation::HaveOutOfRange,
                Violation::ShortBlock,
                Violation::NoSuchPiece,
                Violation::RejectOfNothing,
                Violation::HugeMessage,
            ][rng.below(8)];
            script.violates = Some((violation, rng.spread(1, 50) as u32 - 1));
        }
    }
}
