//! Bytes to messages and back: what two peers say to each other. Pure: bytes in, values out.
//!
//! [`handshake`] opens a connection, [`message`] is everything said after it, [`decoder`] cuts a stream of bytes into
//! messages whatever way the socket split it, [`extension`] is the handshake of the extension protocol, [`metadata`]
//! are the messages in which peers give the info dictionary of a magnet link, [`pex`] those in which they tell of other
//! peers, [`mse`] is the handshake that comes before all of this where a connection is encrypted, [`client`] tells
//! programs by their ids. Nothing here knows a torrent: whether a piece exists or a block was asked for is decided in
//! `swarm`.

pub mod client;
pub mod decoder;
pub mod extension;
pub mod handshake;
pub mod message;
pub mod metadata;
pub mod mse;
pub mod pex;
