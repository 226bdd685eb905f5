//! Peers that do one certain thing wrong, the download that has to survive them, and what it costs.
//!
//! * [`line`]: one connection of a scripted peer; a script is a function over it.
//! * [`peer`]: listeners that run a script for each connection, and the gate that lets the hostile ones go first.
//! * [`attack`]: a download from such peers with an honest one beside them, and all that is asserted of it.
//! * [`cases`]: the scripts, by what is wrong.

#![allow(unreachable_pub, reason = "as in the other trees of test support")]

pub mod attack;
pub mod cases;
pub mod line;
pub mod peer;
