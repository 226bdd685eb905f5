//! A network of the test's own: the test binary runs once more, for one test, in a network namespace.
//!
//! There is nothing but the loopback interface there. Its second address is [`ADDRESS`], and the route to everywhere leads
//! to it, where all that is not for this machine is lost without a word: the rest of the world is there and silent.

use std::env;
use std::net::Ipv4Addr;
use std::process::Command;

use super::confine;

/// The address of the machine, as far as the world is concerned.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Set in the process that runs in the namespace.
const INSIDE: &str = "RINGTIDE_TEST_NAMESPACE";

/// Brings up the interface, its address and its route, and becomes the program that the arguments name.
const RAISE: &str = "
import ctypes, fcntl, os, socket, struct, sys

def address(ip):
    return struct.pack('=H2x4s8x', socket.AF_INET, socket.inet_aton(ip))

UP, SIOCADDRT, SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x49, 0x890b, 0x8914, 0x8916, 0x891c
nowhere, device = address('0.0.0.0'), ctypes.create_string_buffer(b'lo')
route = (0, nowhere, nowhere, nowhere, 1, 0, 0, 0, 0, ctypes.addressof(device), 0, 0, 0)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack('16sH22x', b'lo', UP))
    if sys.argv[1] == 'world':
        fcntl.ioctl(control, SIOCSIFADDR, struct.pack('16s16s8x', b'lo:1', address('192.0.2.1')))
        fcntl.ioctl(control, SIOCSIFNETMASK, struct.pack('16s16s8x', b'lo:1', address('255.255.255.255')))
        fcntl.ioctl(control, SIOCADDRT, struct.pack('@L16s16s16sHhLPhPLLH', *route))
os.execv(sys.argv[2], sys.argv[2:])
";

/// Runs `inside` in a namespace, as the test of that name. `has_world` as against the loopback interface alone.
pub fn in_namespace(test: &str, has_world: bool, inside: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        return inside();
    }
    let namespace = ["--user", "--map-root-user", "--net", "python3", "-c", RAISE];
    let status = Command::new("unshare")
        .args(if confine::is_root() { &namespace[2..] } else { &namespace[..] })
        .arg(if has_world { "world" } else { "loopback" })
        .arg(env::current_exe().expect("the test binary is there"))
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .expect("there is unshare");
    assert!(status.success(), "{test} failed in the namespace");
}
