//! Peers from the DHT (BEP 5, BEP 32), as a node that asks and answers nothing (BEP 43).
//!
//! * [`krpc`]: the messages. Pure.
//! * [`lookup`]: one search, on both families; its nodes are in `candidates`. Pure.
//! * [`id`], [`identity`]: ids, which fit addresses (BEP 42). Pure.
//! * `schedule`: when lookups happen. Pure.
//! * `node`: the sockets and the threads.
//! * [`cache`]: where the next run begins.
//!
//! Sockets are open during a lookup and at no other time, each time on another port. Since nothing is answered, nobody
//! can have this machine send anything to a third one.

pub mod cache;
mod candidates;
pub mod id;
pub mod identity;
pub mod krpc;
pub mod lookup;
mod node;
mod random;
mod schedule;

pub use node::{Dht, DhtConfig, DhtEvent, EventsFn};

/// Nodes that are always there, as `host:port`.
pub const BOOTSTRAP: &[&str] = &[
    "dht.libtorrent.org:25401",
    "router.bittorrent.com:6881",
    "dht.transmissionbt.com:6881",
    "router.utorrent.com:6881",
];
