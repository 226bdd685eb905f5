//! The turns of tests that download from real clients.

use std::sync::{Mutex, MutexGuard};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A real-client test that is running. There is one at a time in a process: the clients, the downloads and the
/// gigabytes they share would only measure each other.
pub struct RealClientTest {
    _turn: MutexGuard<'static, ()>,
}

impl RealClientTest {
    /// Waits for its turn.
    pub fn begin() -> Self {
        Self { _turn: ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) }
    }
}

/// Begins a real-client test.
macro_rules! real_client_test {
    () => {
        $crate::common::record::RealClientTest::begin()
    };
}
pub(crate) use real_client_test;
