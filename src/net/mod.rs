//! The io_uring shell around the pure core: one thread and ring per core, peers that live and die on one of them.
//!
//! The only user of tokio-uring. Reads top down: [`core`] runs peers, `peer` runs one connection, `scatter` tells
//! the kernel where its receives go, `uring` has the operations; [`shared`] is what all cores share.

pub mod close;
pub mod core;
mod peer;
mod scatter;
pub mod shared;
mod uring;
