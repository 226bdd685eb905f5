//! Decisions: which piece to ask of whom, and how much at a time. Pure: events and `now` come in, answers go out.
//!
//! [`bitfield`] is who has what, [`picker`] which piece is next, [`pipeline`] how many blocks stand requested at one
//! peer. Nothing here knows a socket, a clock or a source of randomness: the time and a seed are arguments, so a whole
//! swarm runs again from its seed.

pub mod bitfield;
pub mod picker;
pub mod pipeline;

mod random;
mod rarity;
