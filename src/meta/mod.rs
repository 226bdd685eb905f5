//! What is downloaded: bencode, metainfo and the arithmetic of pieces, blocks and files. Pure: bytes in, values out.

pub mod geometry;
