//! Downloads from peers that lie, break the protocol, flood, stall and vanish, always with an honest one beside them.
//! Whatever the others do, the content is right, memory is bounded, and the log says why each of them was closed.
//!
//! Set `RINGTIDE_HOSTILE_TABLE` to the name of a file to get all cases with their outcomes as a table.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(unused_macros, unused_imports, reason = "one of its parts is a macro for other tests")]
mod common;
mod hostile;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hostile::attack::run_all;
use hostile::cases;
use hostile::line::{Line, block};
use hostile::peer::{Gate, Peer, Script, honest};
use serde_json::Value;
use support::content::Content;
use support::program::ringtide;

#[test]
fn who_sends_wrong_bytes_is_found_and_banned() {
    run_all("wrong bytes", cases::corrupt::attacks());
}

/// One of many is honest, all say that they have all, and the piece is large.
#[test]
fn a_crowd_of_liars_costs_a_few_pieces() {
    const PIECE_LEN: usize = 8 << 20;
    let content = Content::single("content", PIECE_LEN, PIECE_LEN);
    // All lie alike, or each in its own way and never alike.
    for lie in [|_: usize| 0xff, |sent: usize| sent as u8 | 1] {
        let dir = common::workspace::temp_dir("liars");
        let torrent = content.torrent(&dir.path().join("t"), &[]);
        let gate = Arc::<Gate>::default();
        let liars: Vec<_> = (0..60).map(|_| Peer::start(&content, gate.no_turn(), liar(lie))).collect();
        let honest = Peer::start(&content, gate.no_turn(), honest(Duration::ZERO));
        let mut args: Vec<_> = ["download", "--json", "-q", "-o", "out"].map(str::to_owned).into();
        let addrs = liars.iter().chain([&honest]).map(|peer| peer.addr);
        args.extend(addrs.flat_map(|addr| ["--peer".to_owned(), addr.to_string()]));
        args.push(torrent.display().to_string());
        let run = ringtide(args).within(dir.path()).run();
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(std::fs::read(dir.path().join("out")).unwrap() == *content.bytes, "the content differs");
        let summary: Value = serde_json::from_slice(&run.stdout).unwrap();
        let wasted = summary["bytes_wasted"].as_u64().unwrap();
        assert!(wasted < 6 * PIECE_LEN as u64, "{} pieces were wasted", wasted / PIECE_LEN as u64);
    }
}

/// Serves everything, with a byte of each block changed by what `lie` makes of the number of blocks sent so far.
fn liar(lie: fn(usize) -> u8) -> Script {
    let sent = AtomicUsize::new(0);
    Arc::new(move |line: &mut Line| {
        line.open()?;
        loop {
            let ask = line.ask()?;
            let mut body = line.body(ask).to_vec();
            body[0] ^= lie(sent.fetch_add(1, Ordering::Relaxed));
            line.raw(&block(ask.piece, ask.begin, &body))?;
        }
    })
}

#[test]
fn blocks_that_were_not_asked_for_are_not_taken() {
    run_all("wrong blocks", cases::blocks::attacks());
}

#[test]
fn what_is_no_message_ends_the_connection() {
    run_all("no messages", cases::framing::attacks());
}

#[test]
fn pieces_are_told_as_they_are_and_not_without_end() {
    run_all("wrong pieces", cases::pieces::attacks());
}

#[test]
fn idle_talk_is_borne_but_no_floods_of_it() {
    run_all("idle talk", cases::chatter::attacks());
}

#[test]
fn gossip_is_bounded() {
    run_all("gossip", cases::gossip::attacks());
}

#[test]
fn choking_peers_hold_up_nothing() {
    run_all("choking", cases::chokes::attacks());
}

#[test]
fn silent_peers_hold_up_nothing() {
    run_all("silence", cases::silence::attacks());
}

#[test]
fn a_connection_may_end_anywhere() {
    run_all("ends", cases::resets::attacks());
}

#[test]
fn strangers_are_sent_away() {
    run_all("strangers", cases::strangers::attacks());
}

#[test]
fn dead_addresses_cost_little() {
    run_all("addresses", cases::addresses::attacks());
}

#[test]
fn idle_peers_make_room_for_others() {
    run_all("places", cases::addresses::squatters());
}

#[test]
fn silent_peers_are_closed_in_the_end() {
    run_all("patience", cases::silence::patience());
}

#[test]
fn crowds_cost_little() {
    run_all("crowds", cases::crowds::attacks());
}
