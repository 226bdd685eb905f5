//! Whole swarms under a virtual clock: whatever peers do, the download completes with the right bytes, in time, with
//! little waste, and nobody is blamed for what another did.
//!
//! A failure names its seeds; `RINGTIDE_SIM_SEED=<seed>` runs one of them alone. `RINGTIDE_SIM_SWARMS=<number>` runs so
//! many random swarms, from a first seed that can be given by `RINGTIDE_SIM_FROM`.

#![expect(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]

mod sim;

use std::ops::Range;
use std::panic::{RefUnwindSafe, catch_unwind};

use ringtide::meta::geometry::{BLOCK_LEN, Geometry};
use ringtide::swarm::bitfield::Bitfield;
use sim::scenario::Scenario;
use sim::script::Script;
use sim::world::{MILLIS, Report, SECS, World};

fn run(scenario: Scenario) -> Report {
    World::new(scenario).run()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Runs a test for each seed, and says at the end which failed.
fn each(seeds: Range<u64>, test: impl Fn(u64) + RefUnwindSafe) {
    let seeds = number("RINGTIDE_SIM_SEED").map_or(seeds, |seed| seed..seed + 1);
    let failed: Vec<u64> = seeds.filter(|&seed| catch_unwind(|| test(seed)).is_err()).collect();
    assert!(failed.is_empty(), "to run one that failed alone, set RINGTIDE_SIM_SEED to one of {failed:?}");
}

#[test]
fn random_swarms_complete() {
    each(0..250, |seed| drop(run(Scenario::random(seed))));
}

#[test]
fn more_random_swarms_complete() {
    let from = number("RINGTIDE_SIM_FROM").unwrap_or(250);
    let count = number("RINGTIDE_SIM_SWARMS").unwrap_or(250);
    each(from..from + count, |seed| drop(run(Scenario::random(seed))));
}

#[test]
fn what_failed_once_completes() {
    let seeds = [1_247, 2_282, 2_569, 2_618, 3_621, 3_935, 6_877, 132_053, 207_946, 1_021_597];
    seeds.into_iter().for_each(|seed| drop(run(Scenario::random(seed))));
}

#[test]
fn a_seed_is_a_run() {
    for seed in 0..10 {
        let [one, other] = [(); 2].map(|()| format!("{:?}", run(Scenario::random(seed))));
        assert_eq!(one, other);
    }
}

#[test]
fn little_is_wasted_where_nobody_fails() {
    each(0..12, |seed| {
        let scenario = Scenario::peaceful(seed, 64 << 20);
        let (ideal, hosts) = (scenario.ideal(), scenario.scripts.len() as u64);
        let report = run(scenario);
        let wasted = report.received - (64 << 20);
        assert!(wasted * 100 <= 64 << 20, "{wasted} bytes wasted: {report:?}");
        assert!(
            report.took <= ideal + 3 * SECS,
            "{} ms, ideal {}: {report:?}",
            report.took / MILLIS,
            ideal / MILLIS
        );
        // What sessions say of it is true, but for what was in the mail or half received at the end.
        let untold = wasted.checked_sub(report.wasted).unwrap();
        assert!(untold <= 2 * hosts * u64::from(BLOCK_LEN), "{untold} bytes wasted and not told: {report:?}");
        assert_eq!(report.faults, 0);
    });
}

#[test]
fn slow_and_stalled_peers_do_not_hold_up_the_end() {
    let geometry = Geometry::new(8 << 20, 1 << 20).unwrap();
    let honest = |rate| Script::honest(Bitfield::full(geometry.piece_count()), rate, 30 * MILLIS);
    let slow = honest(20_000);
    let stalled = Script { stalls_after: Some(3), ..honest(500_000) };
    let dying = Script { dies_after: Some(100_000), ..honest(300_000) };
    let choking = Script { chokes: Some((2 * SECS, 60 * SECS)), ..honest(200_000) };
    let refusing = Script { rejects: 900, ..honest(1_000_000) };
    for (number, others) in [
        vec![slow.clone()],
        vec![stalled.clone()],
        vec![slow.clone(), stalled.clone(), slow.clone(), stalled.clone()],
        vec![dying.clone(), choking.clone(), refusing.clone()],
        vec![slow, stalled, dying, choking, refusing],
    ]
    .into_iter()
    .enumerate()
    {
        let seed = number as u64;
        let alone = run(Scenario::of(seed, geometry, vec![honest(5_000_000)]));
        let scripts = std::iter::once(honest(5_000_000)).chain(others).collect();
        let together = run(Scenario::of(seed, geometry, scripts));
        let (alone, together) = (alone.took / MILLIS, together.took / MILLIS);
        assert!(together <= alone + 2_000, "swarm {seed}: alone {alone} ms, together {together} ms");
    }
}

#[test]
fn liars_are_banned_and_the_download_goes_on() {
    each(0..20, |seed| {
        let geometry = Geometry::new(4 << 20, [16 << 10, 128 << 10, 1 << 20][seed as usize % 3]).unwrap();
        let honest = |rate| Script::honest(Bitfield::full(geometry.piece_count()), rate, 20 * MILLIS);
        let liar = |rate| Script { corrupts: 1_000, ..honest(rate) };
        let scripts = vec![honest(300_000), liar(5_000_000), liar(400_000), honest(100_000), liar(2_000_000)];
        let report = run(Scenario::of(seed, geometry, scripts));
        assert!(!report.banned.is_empty() && report.banned.len() <= 3);
        let honest_alone = (4 << 20) * SECS / 400_000;
        assert!(report.took <= 2 * honest_alone + 20 * SECS, "{} ms: {report:?}", report.took / MILLIS);
    });
}
