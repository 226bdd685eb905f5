//! The system calls that neither `std` nor `memmap2` offers, each as a small safe function.
//!
//! Everything here takes borrowed descriptors and NUL-free names and gives owned values or [`io::Error`]; no pointer
//! leaves this file.

#![expect(unsafe_code, reason = "libc is the only way to openat, fallocate, SEEK_DATA and statfs")]

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;
use std::time::Duration;

use crate::os::{spare, stop};

/// Permission bits of new files, before the umask.
const FILE_MODE: libc::mode_t = 0o666;

/// Permission bits of new folders, before the umask.
const FOLDER_MODE: libc::mode_t = 0o777;

/// Bytes of a block that `stat` counts in, whatever the file system's own block size is.
pub(super) const STAT_BLOCK_LEN: u64 = 512;

/// Opens `name` inside `folder` (the working folder when `None`) with these flags and `O_CLOEXEC`.
pub(super) fn open_at(folder: Option<&File>, name: &OsStr, flags: libc::c_int) -> io::Result<File> {
    let name = c_name(name)?;
    if flags & libc::O_CREAT != 0 {
        stop::check()?;
    }
    let flags = flags | libc::O_CLOEXEC;
    let open = || {
        retry(|| {
            // SAFETY: `name` is a NUL-terminated string that outlives the call, and the descriptor is open or AT_FDCWD.
            unsafe { libc::openat(raw(folder), name.as_ptr(), flags, FILE_MODE) }
        })
    };
    let fd = spare::open(open)?;
    // SAFETY: the kernel has just given us this descriptor; nothing else knows it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Makes a folder inside `folder` (the working folder when `None`).
pub(super) fn make_folder_at(folder: Option<&File>, name: &OsStr) -> io::Result<()> {
    let name = c_name(name)?;
    retry(|| {
        // SAFETY: as in `open_at`.
        unsafe { libc::mkdirat(raw(folder), name.as_ptr(), FOLDER_MODE) }
    })?;
    Ok(())
}

/// Removes a file's name from `folder` (the working folder when `None`).
pub(super) fn remove_file_at(folder: Option<&File>, name: &OsStr) -> io::Result<()> {
    unlink_at(folder, name, 0)
}

/// Removes an empty folder from `folder` (the working folder when `None`).
pub(super) fn remove_folder_at(folder: Option<&File>, name: &OsStr) -> io::Result<()> {
    unlink_at(folder, name, libc::AT_REMOVEDIR)
}

/// Gives a file another name, which must be free; EINVAL where the file system cannot do both in one step.
pub(super) fn rename_to_free(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (c_name(from.as_os_str())?, c_name(to.as_os_str())?);
    retry(|| {
        // SAFETY: both names are NUL-terminated strings that outlive the call.
        unsafe {
            libc::renameat2(
                libc::AT_FDCWD,
                from.as_ptr(),
                libc::AT_FDCWD,
                to.as_ptr(),
                libc::RENAME_NOREPLACE,
            )
        }
    })?;
    Ok(())
}

fn unlink_at(folder: Option<&File>, name: &OsStr, flags: libc::c_int) -> io::Result<()> {
    let name = c_name(name)?;
    retry(|| {
        // SAFETY: as in `open_at`.
        unsafe { libc::unlinkat(raw(folder), name.as_ptr(), flags) }
    })?;
    Ok(())
}

/// Reserves blocks for the first `len` bytes and makes the file at least that long; its data stay as they are.
pub(super) fn allocate(file: &File, len: u64) -> io::Result<()> {
    let len = offset(len)?;
    let mut at = 0;
    while at < len {
        stop::check()?;
        let part = ALLOCATED_MAX.min(len - at);
        retry(|| {
            // SAFETY: plain numbers and an open descriptor.
            unsafe { libc::fallocate(file.as_raw_fd(), 0, at, part) }
        })?;
        at += part;
    }
    Ok(())
}

/// Bytes that are reserved by one call: some file systems take a second for a few of them, and cannot be interrupted.
const ALLOCATED_MAX: libc::off_t = 1 << 30;

/// Reserves blocks for a range of the file, whose length and data stay as they are.
pub(super) fn allocate_inside(file: &File, from: u64, len: u64) -> io::Result<()> {
    let (from, len) = (offset(from)?, offset(len)?);
    retry(|| {
        // SAFETY: plain numbers and an open descriptor.
        unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, from, len) }
    })?;
    Ok(())
}

/// Has the system forget what it keeps of a file in memory, but for what is mapped or still to be written.
pub(super) fn forget_cached(file: &File) {
    // SAFETY: plain numbers and an open descriptor. It is advice: nothing depends on it being taken.
    let _ = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

/// Has a write past the limit on file sizes fail with EFBIG instead of ending the process, unless someone handles the
/// signal.
pub(super) fn ignore_size_signal() {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: no new action is given, and the present one goes to a structure of its type.
    if unsafe { libc::sigaction(libc::SIGXFSZ, ptr::null(), action.as_mut_ptr()) } != 0 {
        return;
    }
    // SAFETY: the call above succeeded, so it has filled the structure.
    let action = unsafe { action.assume_init() };
    if action.sa_sigaction == libc::SIG_DFL {
        // SAFETY: a plain number and an action without code.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    }
}

/// A queue of events of files that tells which process they come from, which is read without waiting. It takes Linux
/// 5.13, or rights.
pub(super) fn watch_queue_by_process() -> io::Result<File> {
    let flags = libc::FAN_CLASS_NOTIF | libc::FAN_REPORT_FID | libc::FAN_NONBLOCK | libc::FAN_CLOEXEC;
    let fd = retry(|| {
        // SAFETY: plain numbers.
        unsafe { libc::fanotify_init(flags, libc::O_RDONLY as libc::c_uint) }
    })?;
    // SAFETY: the kernel has just given us this descriptor; nothing else knows it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Has every write to a file told in such a queue, and gives the handle under which it is told: its type and its bytes.
pub(super) fn watch_writes_by_process(queue: &File, file: &File) -> io::Result<Vec<u8>> {
    #[repr(C)]
    struct Handle {
        head: libc::file_handle,
        bytes: [u8; libc::MAX_HANDLE_SZ as usize],
    }
    let head =
        libc::file_handle { handle_bytes: libc::MAX_HANDLE_SZ as libc::c_uint, handle_type: 0, f_handle: [] };
    let mut handle = Handle { head, bytes: [0; libc::MAX_HANDLE_SZ as usize] };
    let mut mount = 0;
    retry(|| {
        let to = (&raw mut handle).cast::<libc::file_handle>();
        let flags = libc::AT_EMPTY_PATH;
        // SAFETY: the name is empty and NUL-terminated; the kernel writes the head and at most `handle_bytes` bytes
        // behind it, which is what `Handle` has there; the descriptor is open.
        unsafe { libc::name_to_handle_at(file.as_raw_fd(), c"".as_ptr(), to, &raw mut mount, flags) }
    })?;
    retry(|| {
        let (queue, file) = (queue.as_raw_fd(), file.as_raw_fd());
        // SAFETY: without a name it is the file of the descriptor, which is open, as that of the queue is.
        unsafe { libc::fanotify_mark(queue, libc::FAN_MARK_ADD, libc::FAN_MODIFY, file, ptr::null()) }
    })?;
    let len = (handle.head.handle_bytes as usize).min(handle.bytes.len());
    Ok([&handle.head.handle_type.to_ne_bytes(), &handle.bytes[..len]].concat())
}

/// A queue of events of files, whoever they come from, which is read without waiting.
pub(super) fn watch_queue() -> io::Result<File> {
    let fd = retry(|| {
        // SAFETY: plain numbers.
        unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) }
    })?;
    // SAFETY: the kernel has just given us this descriptor; nothing else knows it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Has every write to a file told in a queue, and gives the number of this watch there.
pub(super) fn watch_writes(queue: &File, file: &File) -> io::Result<libc::c_int> {
    // Only by name can a file be watched, and this one leads to the very file.
    let name = c_name(OsStr::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))?;
    retry(|| {
        // SAFETY: `name` is a NUL-terminated string that outlives the call, and the descriptor is open.
        unsafe { libc::inotify_add_watch(queue.as_raw_fd(), name.as_ptr(), libc::IN_MODIFY) }
    })
}

/// Has the disk begin to write what was changed in a range of the file. Waits for no write, but for room among those
/// that are under way. Of its errors none is told here: `fsync` tells them.
pub(super) fn start_writeback(file: &File, from: u64, len: u64) -> io::Result<()> {
    let (from, len) = (offset(from)?, offset(len)?);
    retry(|| {
        // SAFETY: plain numbers and an open descriptor.
        unsafe { libc::sync_file_range(file.as_raw_fd(), from, len, libc::SYNC_FILE_RANGE_WRITE) }
    })?;
    Ok(())
}

/// Has the system forget what it keeps in memory of a range of a file, but for what is mapped or still to be written.
pub(super) fn forget_range(file: &File, from: u64, len: u64) {
    let (Ok(from), Ok(len)) = (offset(from), offset(len)) else { return };
    // SAFETY: as in `forget_cached`.
    let _ = unsafe { libc::posix_fadvise(file.as_raw_fd(), from, len, libc::POSIX_FADV_DONTNEED) };
}

/// Writes some of `data` at `at` of a file, so that its pages leave the page cache once they are written back. Gives the
/// number of bytes that were written.
pub(super) fn write_uncached(file: &File, data: &[u8], at: u64) -> io::Result<usize> {
    let at = offset(at)?;
    let part = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    // SAFETY: the one part is `data`, which is only read and outlives the call; the descriptor is open.
    let n = unsafe { libc::pwritev2(file.as_raw_fd(), &raw const part, 1, at, libc::RWF_DONTCACHE) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Reads some bytes at `at` of a file, so that pages that were not in memory before leave it again. Gives the number of
/// bytes that were read.
pub(super) fn read_uncached(file: &File, out: &mut [u8], at: u64) -> io::Result<usize> {
    let at = offset(at)?;
    let part = libc::iovec { iov_base: out.as_mut_ptr().cast(), iov_len: out.len() };
    // SAFETY: the one part is `out`, which nobody else uses during the call; the descriptor is open.
    let n = unsafe { libc::preadv2(file.as_raw_fd(), &raw const part, 1, at, libc::RWF_DONTCACHE) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// The CPU time that this thread has taken; zero where the system does not tell.
pub(super) fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the target is the structure that the call fills.
    if unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } != 0 {
        return Duration::ZERO;
    }
    // Both are never negative.
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The next stretch of data at or behind `from`, as start and end; `None` when only a hole is left.
///
/// A file system that knows no holes reports the whole file as one stretch.
pub(super) fn next_data(file: &File, from: u64) -> io::Result<Option<(u64, u64)>> {
    let Some(start) = seek(file, from, libc::SEEK_DATA)? else { return Ok(None) };
    Ok(seek(file, start, libc::SEEK_HOLE)?.map(|end| (start, end)))
}

/// `None` stands for ENXIO: nothing of that kind up to the end of the file.
fn seek(file: &File, from: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
    let Ok(from) = offset(from) else { return Ok(None) };
    // SAFETY: plain numbers and an open descriptor.
    let at = unsafe { libc::lseek(file.as_raw_fd(), from, whence) };
    match u64::try_from(at) {
        Ok(at) => Ok(Some(at)),
        Err(_) => match io::Error::last_os_error() {
            err if err.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            err => Err(err),
        },
    }
}

/// The room on a file system, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    /// What this user may still write.
    pub(super) available: u64,
    /// What is free in all, with the part kept back for the superuser.
    pub(super) free: u64,
    /// All it can hold; 0 where the file system does not tell.
    pub(super) total: u64,
    /// Whether nothing can be written at all.
    pub(super) is_read_only: bool,
}

/// The room on the file system that holds `file`.
pub(super) fn space(file: &File) -> io::Result<Space> {
    let mut stat = MaybeUninit::<libc::statvfs>::uninit();
    retry(|| {
        // SAFETY: the target is large enough for one `statvfs`, which is all the call writes.
        unsafe { libc::fstatvfs(file.as_raw_fd(), stat.as_mut_ptr()) }
    })?;
    // SAFETY: the call above succeeded, so it has filled the structure.
    let stat = unsafe { stat.assume_init() };
    let bytes = |blocks: libc::fsblkcnt_t| blocks.saturating_mul(stat.f_frsize);
    Ok(Space {
        available: bytes(stat.f_bavail),
        free: bytes(stat.f_bfree),
        total: bytes(stat.f_blocks),
        is_read_only: stat.f_flag & libc::ST_RDONLY != 0,
    })
}

/// The magic number of the file system that holds `file`.
pub(super) fn file_system(file: &File) -> io::Result<u32> {
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    retry(|| {
        // SAFETY: the target is large enough for one `statfs`, which is all the call writes.
        unsafe { libc::fstatfs(file.as_raw_fd(), stat.as_mut_ptr()) }
    })?;
    // SAFETY: the call above succeeded, so it has filled the structure.
    let stat = unsafe { stat.assume_init() };
    // The numbers have 32 bits, in a type that differs from platform to platform.
    Ok(stat.f_type as u32)
}

/// File systems (by their magic number) whose files have the owner and the permissions that were given when it was
/// mounted: FAT, exFAT, NTFS.
const OWNERLESS: [u32; 4] = [0x4d44, 0x2011_BAB0, 0x5346_544E, 0x7366_746E];

/// Whether the file system that holds `file` knows who owns each of its files.
pub(super) fn has_owners(file: &File) -> bool {
    !file_system(file).is_ok_and(|magic| OWNERLESS.contains(&magic))
}

/// Bytes of a page of memory.
pub(super) fn page_len() -> usize {
    static PAGE_LEN: OnceLock<usize> = OnceLock::new();
    *PAGE_LEN.get_or_init(|| {
        // SAFETY: a question without arguments in memory.
        let len = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(len).ok().filter(|len| len.is_power_of_two()).unwrap_or(PAGE_LEN_USUAL)
    })
}

/// What a page is where the system does not say.
const PAGE_LEN_USUAL: usize = 4096;

fn raw(folder: Option<&File>) -> RawFd {
    folder.map_or(libc::AT_FDCWD, AsRawFd::as_raw_fd)
}

fn c_name(name: &OsStr) -> io::Result<CString> {
    CString::new(name.as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// A place in a file or a length as the kernel counts it; EFBIG for one that no file has.
fn offset(at: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(at).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
}

/// Calls until it is not a signal that ended the call.
fn retry(mut call: impl FnMut() -> libc::c_int) -> io::Result<libc::c_int> {
    loop {
        let result = call();
        if result >= 0 {
            return Ok(result);
        }
        let err = io::Error::last_os_error();
        if err.kind() != io::ErrorKind::Interrupted {
            return Err(err);
        }
    }
}
