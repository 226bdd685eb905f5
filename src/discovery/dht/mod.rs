//! Peers from the DHT (BEP 5, BEP 32), as a node that asks and answers nothing (BEP 43).
//!
//! * [`krpc`]: the messages. Pure.
//! * [`lookup`]: one search, on both families. Pure.
//! * `id`, `identity`: ids, which fit addresses (BEP 42).
//! * `node`: the sockets and the threads.
//! * [`cache`]: where the next run begins.
//!
//! Sockets are open during a lookup and at no other time, each time on another port. Since nothing is answered, nobody
//! can have this machine send anything to a third one.

mod candidates;
pub mod id;
pub mod identity;
pub mod krpc;
pub mod lookup;
mod random;
