//! A network of a test's own: nothing but a loopback interface, so that multicast on it reaches nobody else.

use std::env;
use std::process::Command;

use super::confine::is_root;

/// Set in the process that runs in a network namespace of its own.
const INSIDE: &str = "RINGTIDE_TEST_NAMESPACE";

/// Brings up the loopback interface and becomes the program that the arguments name.
const RAISE_LOOPBACK: &str = "
import fcntl, os, socket, struct, sys
with socket.socket() as control:
    fcntl.ioctl(control, 0x8914, struct.pack('16sH22x', b'lo', 0x49))
os.execv(sys.argv[1], sys.argv[1:])
";

/// Does all of the test of that name in a network namespace, by running it again in a process there.
#[track_caller]
pub fn in_own_namespace(test: &str, inside: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        return inside();
    }
    let namespace = ["--user", "--map-root-user", "--net", "python3", "-c", RAISE_LOOPBACK];
    let status = Command::new("unshare")
        .args(if is_root() { &namespace[2..] } else { &namespace[..] })
        .arg(env::current_exe().expect("a test knows its program"))
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .env_remove("RINGTIDE_REAL_CLIENT_LOG")
        .status()
        .expect("there is unshare");
    assert!(status.success(), "it failed in the namespace");
}
