//! A swarm without sockets or clocks: the real `swarm` and `wire` code against scripted peers.
//!
//! * [`rng`]: all chance follows from one seed.
//! * [`content`]: what is downloaded, and the memory it is downloaded to, which sees to it that no two claims of a piece
//!   are ever out at a time.
//! * [`board`]: what all sessions share: ledger, suspects, verifier. It mirrors `net::shared`.
//! * [`ours`]: our end of a connection, which mirrors `net::peer` and `net::scatter`, bytes and all.
//! * [`script`]: what a host is like and what it does wrong; [`host`]: the host doing it.
//! * [`scenario`]: swarms made up from a seed.
//! * [`world`]: hosts, connections and time.

#![allow(unreachable_pub, reason = "the modules of one test binary")]

pub mod board;
pub mod content;
pub mod host;
pub mod ours;
pub mod rng;
pub mod scenario;
pub mod script;
pub mod world;
