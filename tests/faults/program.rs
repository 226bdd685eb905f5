//! `ringtide` in a narrower world.

use std::ffi::OsStr;

use crate::support::program::Program;

/// Runs its arguments where `fallocate` answers what file systems answer that cannot reserve space.
const WITHOUT_FALLOCATE: &str = r#"
import ctypes, os, struct, sys

libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 285, "aarch64": 47}[os.uname().machine]
EOPNOTSUPP, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 95, 22, 38
steps = [
    (0x20, 0, 0, 0),                        # the number of the call
    (0x15, 0, 1, number),                   # is it fallocate?
    (0x06, 0, 0, 0x00050000 | EOPNOTSUPP),  # yes: an error
    (0x06, 0, 0, 0x7FFF0000),               # no: as ever
]
code = b"".join(struct.pack("HBBI", *step) for step in steps)
code = ctypes.create_string_buffer(code, len(code))


class Filter(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("code", ctypes.c_void_p)]


program = Filter(len(steps), ctypes.cast(code, ctypes.c_void_p))
for call in [(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, 2, ctypes.byref(program), 0, 0)]:
    if libc.prctl(*call) != 0:
        sys.exit("prctl: " + os.strerror(ctypes.get_errno()))
os.execv(sys.argv[1], sys.argv[1:])
"#;

/// The program under test on a file system that cannot reserve space.
pub fn without_fallocate(args: &[&OsStr]) -> Program {
    let launcher = ["-c", WITHOUT_FALLOCATE, env!("CARGO_BIN_EXE_ringtide")].map(OsStr::new);
    Program::new("python3", launcher.iter().chain(args))
}

/// The program under test with limits, as `prlimit` takes them.
pub fn with_limits(limits: &[&str], args: &[&OsStr]) -> Program {
    let program = OsStr::new(env!("CARGO_BIN_EXE_ringtide"));
    let limits = limits.iter().map(OsStr::new);
    Program::new("prlimit", limits.chain([program]).chain(args.iter().copied()))
}
