//! Whole swarms under a virtual clock: whatever peers do, the download completes with the right bytes, in time, with
//! little waste, and nobody is blamed for what another did.
//!
//! A failure prints its seed; `RINGTIDE_SIM_SEED=<seed>` runs that swarm alone.

#![expect(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]

mod sim;

use std::panic::{RefUnwindSafe, catch_unwind};

use ringtide::meta::geometry::Geometry;
use ringtide::swarm::bitfield::Bitfield;
use sim::scenario::Scenario;
use sim::script::Script;
use sim::world::{MILLIS, Report, SECS, World};

fn run(scenario: Scenario) -> Report {
    World::new(scenario).run()
}

fn seeds(range: std::ops::Range<u64>) -> Vec<u64> {
    match std::env::var("RINGTIDE_SIM_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => range.collect(),
    }
}

/// Runs all of these swarms, and says at the end which seeds failed.
fn each(range: std::ops::Range<u64>, test: impl Fn(u64) + RefUnwindSafe) {
    let failed = |&seed: &u64| catch_unwind(|| test(seed)).is_err();
    let failed: Vec<u64> = seeds(range).into_iter().filter(failed).collect();
    assert!(failed.is_empty(), "to run one that failed alone, set RINGTIDE_SIM_SEED to one of {failed:?}");
}

fn random_swarms(range: std::ops::Range<u64>) {
    each(range, |seed| {
        let sc = Scenario::random(seed);
        let ideal = sc.ideal();
        if std::env::var("SHOW").is_ok() {
            println!("{:?} {} aborts {:?}", sc.geometry, ideal, sc.aborts);
            for s in &sc.scripts {
                println!("SC {:?}", s);
            }
        }
        let r = run(sc);
        if std::env::var("STATS").is_ok() {
            println!(
                "STAT {seed} {} {} {} {} {}",
                r.took / 1000,
                r.received,
                r.wasted,
                r.faults,
                r.banned.len()
            );
        }
    });
}
#[test]
#[ignore]
fn peace() {
    each(0..100, |seed| {
        let sc = Scenario::peaceful(seed, 24 << 20);
        let ideal = sc.ideal();
        let rates: Vec<u64> = sc.scripts.iter().map(|s| s.rate / 1000).collect();
        let r = run(sc);
        let w = r.received - (24 << 20);
        println!(
            "PEACE {seed} waste {:.2}% {} told {} ideal {} took {} over {} {rates:?}",
            w as f64 * 100. / (24 << 20) as f64,
            w / 16384,
            r.wasted / 16384,
            ideal / 1000,
            r.took / 1000,
            (r.took - ideal) / 1000
        );
    });
}
#[test]
#[ignore]
fn soak() {
    let n: u64 = std::env::var("SOAK").unwrap().parse().unwrap();
    {
        let f: u64 = std::env::var("FROM").map_or(1000, |f| f.parse().unwrap());
        random_swarms(f..f + n)
    };
}

#[test]
fn random_swarms_complete() {
    random_swarms(0..200);
}

#[test]
fn more_random_swarms_complete() {
    random_swarms(200..400);
}

#[test]
fn little_is_wasted_where_nobody_fails() {
    each(0..6, |seed| {
        let geometry = Geometry::new(24 << 20, [256 << 10, 1 << 20][seed as usize % 2]).unwrap();
        let full = || Bitfield::full(geometry.piece_count());
        let rates: &[u64] = [
            &[10_000_000, 20_000][..],
            &[10_000_000, 20_000, 20_000, 100_000, 1_000_000],
            &[5_000_000, 5_000_000, 5_000_000, 5_000_000],
        ][seed as usize / 2 % 3];
        let scripts = rates.iter().map(|&rate| Script::honest(full(), rate, 20 * MILLIS)).collect();
        let report = run(Scenario::of(seed, geometry, scripts));
        let wasted = report.received - geometry.total_len();
        println!("{rates:?}: took {} ms, wasted {} blocks, {report:?}", report.took / MILLIS, wasted / 16384);
        assert!(wasted * 100 <= geometry.total_len(), "{wasted} bytes wasted: {report:?}");
    });
}

#[test]
fn a_slow_peer_does_not_hold_up_the_end() {
    each(0..4, |seed| {
        let geometry = Geometry::new(8 << 20, 1 << 20).unwrap();
        let full = || Bitfield::full(geometry.piece_count());
        let mut scripts = vec![Script::honest(full(), 5_000_000, 20 * MILLIS)];
        let alone = run(Scenario::of(seed, geometry, scripts.clone()));
        scripts.push(Script::honest(full(), 20_000, 50 * MILLIS));
        if seed % 2 == 1 {
            scripts.push(Script { stalls_after: Some(3), ..Script::honest(full(), 500_000, 50 * MILLIS) });
        }
        let together = run(Scenario::of(seed, geometry, scripts));
        println!("alone {} ms, together {} ms", alone.took / MILLIS, together.took / MILLIS);
        assert!(together.took < alone.took + 3 * SECS);
    });
}
