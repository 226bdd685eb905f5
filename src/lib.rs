//! ringtide: a BitTorrent downloader whose cost per byte is close to what the kernel and the hash function cost.

pub mod cli;
pub mod discovery;
pub mod disk;
pub mod download;
pub mod error;
pub mod hash;
pub mod meta;
pub mod net;
pub mod swarm;
pub mod wire;
