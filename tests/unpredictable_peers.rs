//! Downloads from peers whose answers cannot be foreseen.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(unused_macros, unused_imports, reason = "one of its parts is a macro for other tests")]
mod common;
mod support;

use std::fs;

use serde_json::Value;
use support::content::Content;
use support::peer::{Manner, Peer, Script};
use support::program::ringtide;

const BLOCK_LEN: usize = 16 << 10;

/// Downloads from such a peer, looks at every byte, and tells what share of the blocks was received straight into its
/// place.
fn direct_share(manner: Manner) -> f64 {
    let content = Content::single("unpredictable", (32 << 20) + 12_345, 256 << 10);
    let peer = Peer::start(&content, Script { manner, ..Script::default() });
    let dir = tempfile::tempdir().unwrap();
    let torrent = content.torrent(&dir.path().join("t"), &[]);
    let output = dir.path().join("out");
    let args = ["download", "--json", "-q", "-o", output.to_str().unwrap(), "--peer", &peer.addr.to_string()];
    let run = ringtide(args.into_iter().chain([torrent.to_str().unwrap()])).run();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(fs::read(&output).unwrap() == *content.bytes, "the content differs");
    peer.assert_pleased();
    let summary: Value = serde_json::from_slice(&run.stdout).unwrap();
    let count = |key: &str| summary[key].as_u64().unwrap();
    assert_eq!(count("bytes_wasted"), 0);
    let (direct, copied) = (count("blocks_direct"), count("blocks_copied"));
    assert_eq!((direct + copied) as usize, content.bytes.len().div_ceil(BLOCK_LEN));
    direct as f64 / (direct + copied) as f64
}

#[test]
fn blocks_of_an_orderly_peer_are_received_in_place() {
    let share = direct_share(Manner { shuffled: false, haves: 0 });
    assert!(share > 0.99, "{share} of the blocks were received in place");
}

#[test]
fn no_order_of_the_answers_costs_many_copies() {
    let share = direct_share(Manner { shuffled: true, haves: 0 });
    assert!(share > 0.5, "{share} of the blocks were received in place");
}

#[test]
fn a_peer_that_speaks_between_all_blocks_in_no_order_is_understood() {
    for haves in [2, 7] {
        let share = direct_share(Manner { shuffled: true, haves });
        assert!(share < 0.1, "{share} of the blocks were received in place with {haves} HAVEs between");
    }
}

#[test]
fn a_peer_that_says_one_thing_between_all_blocks_is_understood() {
    // One HAVE fits where the next header is looked for, so what is received in place is a matter of luck.
    for shuffled in [false, true] {
        direct_share(Manner { shuffled, haves: 1 });
    }
}
