//! What is downloaded: bencode, metainfo, magnet links and the arithmetic of pieces, blocks and files. Pure: bytes in,
//! values out.

pub mod about;
pub mod bencode;
pub mod charset;
pub mod geometry;
mod hex;
pub mod inflate;
pub mod link;
pub mod magnet;
pub mod names;
pub mod text;
pub mod torrent;
pub mod units;

pub use hex::{Hex, hex};
