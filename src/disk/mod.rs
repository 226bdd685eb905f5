//! Where bytes land: the files of a download, preallocated and memory-mapped, written in place.
//!
//! [`Site::find`] looks at what stands where the files of a [`Plan`] are to be, and [`Site::make`] makes an [`Output`]
//! of it. [`Output::lease`] then hands out pieces: a [`PieceLease`]
//! is the only way to write one, nobody else has it meanwhile, and a piece that was sealed is never leased again.
//! `lease` says why that holds even for writes that the kernel is still doing. Where a file system cannot map, or where
//! the user prefers it ([`Io`]), the bytes of a lease are private memory and are written when the piece is sealed. The
//! rest:
//!
//! - `plan`: which bytes of the content go to which file;
//! - `site`: the files as they are found, read and locked before anything is changed;
//! - `tree`, `opener`, `walker`: the files by name, made, opened, checked and undone, no link followed below the output
//!   folder;
//! - `prealloc`: their blocks, taken before anything is written, so that a full disk is an error and not a signal;
//! - `found`: what they held before, told from their holes;
//! - `method`: whether files are mapped or written; `naming`: which names a file system takes;
//! - `map`: mapped memory, and windows into it; `parts`: the windows of one piece; `guard`: what happens where mapped
//!   memory cannot be had;
//! - `upkeep`: the pages of mapped files, made ready ahead of the receives and dropped from this process afterwards;
//! - `draft`: a piece that will be written, in memory from `pool`; `content`: the writing and reading, through a few
//!   open files (`handles`); `blocks`: sets of a piece's blocks; `scratch`: where a piece waits that no memory is left
//!   for and that must not be written yet;
//! - `record`: what was verified, written down beside the output, so that it need not be hashed again; `durable`: what
//!   that needs of the files; `metafile`: what a magnet link stands for, kept there too;
//! - `price`: what pages cost; `uncached`: writes that go around the page cache where that is dear;
//! - `watch`: which files others have written to meanwhile;
//! - `cause`: what is wrong with a file that can no longer be written or read;
//! - `sys`: the system calls that `std` does not have.
//!
//! Knows nothing of peers, sockets or digests. Everything but [`PieceLease`] may wait for the disk, so it belongs at
//! the start or the end of a download, or on a thread that may wait; [`Output::lease`] only opens and maps. Of the
//! lease, [`PieceLease::seal`], [`PieceLease::load`] and the reading from files may wait too, and
//! [`PieceLease::landed`] and [`PieceLease::park`] write a block or two where memory is short.

mod blocks;
mod cause;
mod content;
mod draft;
mod durable;
mod error;
mod found;
mod guard;
mod handles;
mod lease;
mod map;
mod metafile;
mod method;
mod naming;
mod opener;
mod output;
mod parts;
mod plan;
mod pool;
mod prealloc;
mod price;
pub mod record;
mod scratch;
mod site;
mod sys;
mod tree;
mod uncached;
mod upkeep;
mod walker;
mod watch;

pub use error::{Change, DiskError};
pub use found::Found;
pub use lease::{PieceLease, Refused};
pub use metafile::MetaFile;
pub use method::Io;
pub use naming::rules;
pub use output::Output;
pub use plan::{FOLDERS_DEEP_MAX, Plan, Target};
pub use site::{Part, Site, Verdict};
pub use tree::Existing;
