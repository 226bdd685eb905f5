//! Which real-client tests ran: one line each in the file named by `RINGTIDE_REAL_CLIENT_LOG`.
//!
//! A test that cannot find its client fails. This record is for the other way to lose one: a filter, an attribute or
//! a typo that keeps it from running at all. `scripts/test.sh` compares the record with the list of tests.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::{Mutex, MutexGuard};
use std::{env, thread};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A real-client test that is running. There is one at a time in a process: the clients, the downloads and the
/// gigabytes they share would only measure each other.
pub struct RealClientTest {
    name: &'static str,
    _turn: MutexGuard<'static, ()>,
}

impl RealClientTest {
    /// Waits for its turn. `marker` is the type name of a function inside the test, see [`real_client_test!`].
    pub fn begin(marker: &'static str) -> Self {
        let name = marker.strip_suffix("::marker").unwrap_or(marker);
        let name = name.split_once("::").map_or(name, |(_crate_name, path)| path);
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Self { name, _turn: turn }
    }
}

impl Drop for RealClientTest {
    fn drop(&mut self) {
        let Some(log) = env::var_os("RINGTIDE_REAL_CLIENT_LOG") else { return };
        if thread::panicking() {
            return;
        }
        let mut file =
            OpenOptions::new().create(true).append(true).open(log).expect("the record can be opened");
        file.write_all(format!("{}\n", self.name).as_bytes()).expect("the record can be written");
    }
}

/// Begins a real-client test under the name of the function it stands in.
macro_rules! real_client_test {
    () => {{
        fn marker() {}
        $crate::common::record::RealClientTest::begin(std::any::type_name_of_val(&marker))
    }};
}
pub(crate) use real_client_test;
