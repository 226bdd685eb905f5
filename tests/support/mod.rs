//! Scripted counterparts for the built program: what a tracker or a peer says is written down in the test.
//!
//! * [`program`]: runs `ringtide`, whole or until a signal.
//! * [`tracker`]: an HTTP server that answers announces and remembers them.
//! * [`peer`]: a seeder as strict as those of the CodeCrafters course, or one that does a certain thing wrong.
//! * [`mse`]: the encrypted handshake, from the side that is dialed.
//! * [`encrypted`]: a front that makes an encrypted peer of any other.
//! * [`rumour`]: an UDP tracker, a node of the DHT and a neighbour, who all name the same peers for ever.
//! * [`capture`]: all that passes the network of the test.
//! * [`content`]: what is seeded, from `test_samples/` or made up.
//! * [`memory`]: the most memory that a process has had.
//!
//! None of it uses the crate under test. All traffic stays on the loopback interface.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary compiles this tree and uses its own part of it"
)]

pub mod capture;
pub mod content;
pub mod encrypted;
pub mod folder;
pub mod memory;
pub mod mse;
pub mod peer;
pub mod program;
pub mod rumour;
pub mod tracker;
