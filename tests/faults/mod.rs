//! File systems of a test's own, and what goes wrong with them.
//!
//! * [`volume`]: ext4, xfs and btrfs on loop devices, and tmpfs, in a mount namespace that ends with the test.
//! * [`fuse`]: a file system that passes everything on, and fails when it is told to.
//! * [`program`]: `ringtide` under limits and without `fallocate`.
//!
//! All of it takes root, loop devices and FUSE. Where these are missing the tests fail: what they show cannot be shown in
//! another way.

#![allow(unreachable_pub, reason = "as in the other folders of helpers")]

pub mod fuse;
pub mod program;
pub mod volume;

use std::ffi::OsStr;
use std::process::Command;

/// Runs a program, which must succeed, and gives what it prints.
#[track_caller]
pub fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> String {
    let mut command = Command::new(program);
    let output = command.args(args).output().unwrap_or_else(|error| {
        panic!("{program}: {error}; scripts/install_clients.sh installs what the tests need")
    });
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}\nThese tests need root, loop devices and FUSE.",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}
