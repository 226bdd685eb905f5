//! ringtide: a BitTorrent downloader whose cost per byte is close to what the kernel and the hash function cost.

pub mod discovery;
pub mod disk;
pub mod hash;
pub mod meta;
pub mod swarm;
pub mod wire;
