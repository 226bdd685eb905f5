//! Where bytes land: the files of a download, preallocated and memory-mapped, written in place.
//!
//! [`Output::open`] makes or finds the files of a [`Plan`]. [`Output::lease`] then hands out pieces: a [`PieceLease`]
//! is the only way to write one, nobody else has it meanwhile, and a piece that was sealed is never leased again.
//! `lease` says why that holds even for writes that the kernel is still doing. The rest:
//!
//! - `plan`: which bytes of the content go to which file;
//! - `tree`, `walker`: the files by name, made, found, checked and undone, no link followed below the output folder;
//! - `prealloc`: their blocks, taken before anything is written, so that a full disk is an error and not a signal;
//! - `found`: what they held before, told from their holes;
//! - `map`: mapped memory, and windows into it;
//! - `upkeep`: the pages of verified pieces, dropped from this process;
//! - `sys`: the system calls that `std` does not have.
//!
//! Knows nothing of peers, sockets or digests. Everything but [`PieceLease`] may wait for the disk, so it belongs at
//! the start or the end of a download, or on a thread that may wait; [`Output::lease`] only opens and maps.

mod error;
mod found;
mod lease;
mod map;
mod output;
mod plan;
mod prealloc;
mod sys;
mod tree;
mod upkeep;
mod walker;

pub use error::DiskError;
pub use found::Found;
pub use lease::{PieceLease, Refused};
pub use output::Output;
pub use plan::{FOLDERS_DEEP_MAX, Plan, Target};
pub use tree::Existing;
