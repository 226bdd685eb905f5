//! What the system gives this process: random numbers, switches of the environment, signals and limits.
//!
//! - [`random`]: numbers that nobody can guess;
//! - [`env`]: variables that switch something;
//! - [`limits`]: how many descriptors and how much address space there are;
//! - [`signals`]: which signals the caller of this process wants to be left alone;
//! - [`user`]: whose process this is.
//!
//! Knows nothing of torrents, and is below all other parts.

pub mod env;
pub mod limits;
pub mod random;
pub mod signals;
pub mod user;
