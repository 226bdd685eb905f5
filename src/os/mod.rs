//! What the system gives this process: random numbers, time, switches of the environment, signals and limits.
//!
//! - [`random`]: numbers that nobody can guess;
//! - [`clock`]: the time that the process ran;
//! - [`mod@env`]: variables that switch something;
//! - [`limits`]: how many descriptors and how much address space there are;
//! - [`spare`]: descriptors kept back for what must be opened;
//! - [`signals`]: which signals the caller of this process wants to be left alone;
//! - [`stop`]: the user's wish for the end, where long work is done;
//! - [`user`]: whose process this is.
//!
//! Knows nothing of torrents, and is below all other parts.

pub mod clock;
pub mod env;
pub mod limits;
pub mod random;
pub mod signals;
pub mod spare;
pub mod stop;
pub mod user;
