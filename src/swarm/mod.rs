//! swarm

pub mod book;
