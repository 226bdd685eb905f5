//! Decisions: which piece to ask of whom, and how much at a time. Pure: events and `now` come in, answers go out.
//!
//! [`bitfield`] is who has what, [`picker`] which piece is next, [`claim`] the exclusive right to fetch one, [`ledger`]
//! who fetches what. [`session`] is one peer's state machine, with its [`claims`] and its window of requests
//! ([`pipeline`]); [`receive`] says where its next bytes belong and walks through them; [`fault`] is what a peer can do
//! wrong, [`poison`] who sent wrong data, [`trial`] who is not to be trusted with a piece that was wrong, [`book`]
//! which addresses to dial, with the [`priority`] that both ends agree on. [`metadata`] puts together the info
//! dictionary of a magnet link. Nothing here knows a socket, a clock or a source of randomness: the time and a seed are
//! arguments, so a whole swarm runs again from its seed.

pub mod bitfield;
pub mod book;
pub mod claim;
pub mod claims;
pub mod fault;
pub mod ledger;
pub mod metadata;
pub mod picker;
pub mod pipeline;
pub mod poison;
pub mod priority;
pub mod receive;
pub mod session;
pub mod trial;

#[cfg(test)]
mod fixture;
mod random;
mod rarity;
