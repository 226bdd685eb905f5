//! Runs a program as on a machine that is less generous: io_uring refused, an ordinary user, little memory to lock.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::raw::{c_int, c_long};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{env, fs};

/// A system call that is refused where its first argument is at least this.
pub type Refused = (c_long, u32);

/// What the default profiles of Docker and containerd refuse, with EPERM.
pub const IO_URING: [Refused; 3] =
    [(libc::SYS_io_uring_setup, 0), (libc::SYS_io_uring_enter, 0), (libc::SYS_io_uring_register, 0)];

/// Has the kernel answer these calls of the program with that error, by a seccomp filter.
pub fn refuse(command: &mut Command, calls: &[Refused], errno: c_int) {
    let mut filter = Vec::new();
    for &(call, from) in calls {
        let call = u32::try_from(call).expect("a system call has a small number");
        filter.extend([
            load(0),
            jump(libc::BPF_JEQ, call, 3),
            load(16 + if cfg!(target_endian = "big") { 4 } else { 0 }),
            jump(libc::BPF_JGE, from, 1),
            answer(libc::SECCOMP_RET_ERRNO | errno as u32),
        ]);
    }
    filter.push(answer(libc::SECCOMP_RET_ALLOW));
    before_exec(command, move || install(&mut filter));
}

/// Loads a word of the kernel's description of the call: its number is the first, its arguments begin 16 bytes behind.
const fn load(offset: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0)
}

/// Goes on behind so many statements, unless the comparison with the loaded word holds.
const fn jump(comparison: u32, with: u32, otherwise: u8) -> libc::sock_filter {
    statement(libc::BPF_JMP | comparison | libc::BPF_K, with, otherwise)
}

const fn answer(value: u32) -> libc::sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, value, 0)
}

const fn statement(code: u32, k: u32, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf, k }
}

#[expect(unsafe_code, reason = "no library in the tree installs filters")]
fn install(filter: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    let (one, zero): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: this option takes plain numbers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, one, zero, zero, zero) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: the program and its statements outlive the call, and their count is given.
    if unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program, zero, zero) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Runs the program as a user without privileges, of whom no other process is.
pub fn as_ordinary_user(command: &mut Command) {
    if is_root() {
        // What is locked counts for a user, over all processes.
        let id = 20_000 + std::process::id() % 40_000;
        command.uid(id).gid(id);
    }
}

/// Lets the program lock so many bytes of memory, of which rings are made. Privileged users may lock more.
pub fn limit_locked_memory(command: &mut Command, bytes: u64) {
    limit(command, libc::RLIMIT_MEMLOCK, bytes);
}

/// Lets the program have so many descriptors open.
pub fn limit_descriptors(command: &mut Command, count: u64) {
    limit(command, libc::RLIMIT_NOFILE, count);
}

/// Lets an ordinary user have so many threads, over all processes.
pub fn limit_threads(command: &mut Command, count: u64) {
    as_ordinary_user(command);
    limit(command, libc::RLIMIT_NPROC, count);
}

/// Lets the program have so many bytes of address space.
pub fn limit_address_space(command: &mut Command, bytes: u64) {
    limit(command, libc::RLIMIT_AS, bytes);
}

#[expect(unsafe_code, reason = "the standard library sets no limits")]
fn limit(command: &mut Command, resource: libc::__rlimit_resource_t, most: u64) {
    before_exec(command, move || {
        let limit = libc::rlimit { rlim_cur: most as _, rlim_max: most as _ };
        // SAFETY: the limit outlives the call.
        match unsafe { libc::setrlimit(resource, &raw const limit) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    });
}

#[expect(unsafe_code, reason = "what runs between fork and exec has to be chosen with care")]
fn before_exec(command: &mut Command, prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
    // SAFETY: all that is given here makes system calls and nothing else, allocations included.
    unsafe { command.pre_exec(prepare) };
}

/// Whether this process is the superuser.
pub fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("there is a /proc");
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("a process has a user");
    uid.split_whitespace().nth(1) == Some("0")
}

/// The arguments of the program, with the backend that `RINGTIDE_TEST_BACKEND` names where they are those of a download
/// and name none.
pub fn on_chosen_backend<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Vec<OsString> {
    let mut args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
    if let Some(name) = env::var_os("RINGTIDE_TEST_BACKEND")
        && is_download(&args)
        && !args.contains(&"--backend".into())
    {
        args.splice(1..1, ["--backend".into(), name]);
    }
    args
}

/// Whether these arguments start a download.
pub fn is_download(args: &[OsString]) -> bool {
    args.first().is_some_and(|command| command == "download" || command == "download_piece")
}

/// Refuses io_uring to the program where `RINGTIDE_TEST_SECCOMP` is set. Tells whether it is.
pub fn refuse_where_asked(command: &mut Command) -> bool {
    let is_asked = env::var_os("RINGTIDE_TEST_SECCOMP").is_some();
    if is_asked {
        refuse(command, &IO_URING, libc::EPERM);
    }
    is_asked
}

/// Has the program look for peers nowhere but at the addresses and trackers that it is given.
pub fn keep_to_this_machine(command: &mut Command) {
    command.env("RINGTIDE_NO_DHT", "1").env("RINGTIDE_NO_LSD", "1");
    for proxy in
        ["http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"]
    {
        command.env_remove(proxy);
    }
}
