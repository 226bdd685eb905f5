//! The shell around the pure core: one thread per core, with a ring or with epoll, and peers that live and die on one
//! of them.
//!
//! The only user of tokio-uring. Reads top down: [`core`] runs peers, `peer` runs one connection, `opening` begins it,
//! `sketch` is what a user may hear of it, `scatter` tells the kernel where its receives go, `socket` has the
//! operations, which `uring` and `epoll` do; [`backend`] says which of the two; [`listener`] takes the connections of
//! those who dial us; [`shared`] is what all cores share. Beside them, [`metadata`] fetches the info dictionary of a
//! magnet link, on a thread of its own.

pub mod backend;
pub mod close;
pub mod core;
mod epoll;
pub mod listener;
pub mod metadata;
mod opening;
mod peer;
mod scatter;
pub mod shared;
mod sketch;
mod socket;
mod uring;
