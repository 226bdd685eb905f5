//! Real trackers and real BitTorrent clients for the tests that run the built program.
//!
//! * `workspace`: where everything lives, and the janitor that clears up even after `kill -9`.
//! * `process`: child processes that die with their owner and show their log when the test failed.
//! * `payload`: reproducible content, the torrents that describe it, and the comparison with a download.
//! * `tracker`: opentracker.
//! * `clients`: transmission, aria2, rtorrent and libtorrent as seeders, one file each.
//! * `probe`: a peer of a few lines, to see what a seeder really offers.
//! * `program`: runs `ringtide` itself.
//! * `confine`: refuses it what other machines may.
//! * `namespace`: a network of the test's own, with a world that is silent.
//! * `relay`: a long, fat link between two of them.
//! * `record`: the turns of real-client tests, one at a time in a process.
//!
//! All traffic stays on the loopback interface. Each client has its own address in 127.0.0.0/8, because some of them
//! accept one connection per address.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary compiles this tree and uses its own part of it"
)]

pub mod clients;
pub mod confine;
pub mod namespace;
pub mod payload;
pub mod probe;
pub mod process;
pub mod program;
pub mod record;
pub mod relay;
pub mod tracker;
pub mod workspace;
