//! Downloads from peers that lie, break the protocol, flood, stall and vanish, always with an honest one beside them.
//! Whatever the others do, the content is right, memory is bounded, and the log says why each of them was closed.
//!
//! Set `RINGTIDE_HOSTILE_TABLE` to the name of a file to get all cases with their outcomes as a table.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(unused_macros, unused_imports, reason = "one of its parts is a macro for other tests")]
mod common;
mod hostile;
mod support;

use hostile::attack::run_all;
use hostile::cases;

#[test]
fn who_sends_wrong_bytes_is_found_and_banned() {
    run_all("wrong bytes", cases::corrupt::attacks());
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
