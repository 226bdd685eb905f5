//! Keeps a load or a store from ending the process where mapped memory has nothing behind it.
//!
//! A page of a mapped file may be impossible to have: the file was cut short, the disk cannot read it, or no room is
//! left to write it. Who touches such a page is sent SIGBUS. The handler here looks whether the address lies in one of
//! our maps. If so it puts a page of zeroes in the place, notes that the map is damaged, and returns: the load or store
//! is repeated, on memory that belongs to no file. Nobody may trust what was read or written; so whoever has used the
//! bytes of a map asks for its [`Guard::damage`] before anything is made of them. A damaged map stays so.
//!
//! Any other address is a crash like any other: the handler steps aside for good, puts back the action that it found,
//! and has the signal come again.
//!
//! The handler may interrupt anything anywhere, so it takes no lock and no memory. The maps stand in a table of
//! fixed size, of atomics: a slot counts from the moment its start is stored until the start is 0 again.

#![expect(unsafe_code, reason = "a signal handler, and the page that it puts where there is none")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::{io, mem, ptr};

use super::sys;

/// Maps at a time: as many as the kernel lets a process have as a rule (`vm.max_map_count`).
const SLOTS_MAX: usize = 1 << 16;

/// The maps. It takes memory as far as it is used.
static SLOTS: [Slot; SLOTS_MAX] = [const { Slot::free() }; SLOTS_MAX];

/// How many slots from the first were ever used: the handler looks no further.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Slots below [`USED`] that are free.
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// Whether any map was ever damaged.
static ANY_DAMAGE: AtomicBool = AtomicBool::new(false);

/// What was done about SIGBUS before; `None` until the handler is there.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// A map as the handler sees it.
struct Slot {
    /// The address of its first byte; 0 for none.
    start: AtomicUsize,
    /// The address behind its last byte.
    end: AtomicUsize,
    /// The offset of the first page that was replaced, and 1; 0 as long as none was.
    damage: AtomicUsize,
}

impl Slot {
    const fn free() -> Self {
        Self { start: AtomicUsize::new(0), end: AtomicUsize::new(0), damage: AtomicUsize::new(0) }
    }

    /// The offset of an address in the map.
    fn offset(&self, address: usize) -> Option<usize> {
        let start = self.start.load(Ordering::Acquire);
        let end = self.end.load(Ordering::Acquire);
        // The same start once more, or the end may be that of another map which got the slot in between.
        let is_whole = start == self.start.load(Ordering::Relaxed);
        (start != 0 && is_whole && (start..end).contains(&address)).then(|| address - start)
    }
}

/// Guards one map for as long as it lives. It must go before the memory does.
pub(super) struct Guard {
    slot: usize,
}

impl Guard {
    /// Guards the `len` bytes from `start`, the first of a page. The first guard of the process brings the handler.
    pub(super) fn new(start: *const u8, len: usize) -> io::Result<Self> {
        install()?;
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let slot = match free {
            Some(slot) => slot,
            None => next_slot().ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?,
        };
        let Slot { start: first, end, damage } = &SLOTS[slot];
        damage.store(0, Ordering::Relaxed);
        end.store(start.addr() + len, Ordering::Release);
        first.store(start.addr(), Ordering::Release);
        Ok(Self { slot })
    }

    /// The offset of the first page that was not there when it was touched; `None` while all bytes are the file's.
    pub(super) fn damage(&self) -> Option<usize> {
        SLOTS[self.slot].damage.load(Ordering::Acquire).checked_sub(1)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        SLOTS[self.slot].start.store(0, Ordering::Release);
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(self.slot);
    }
}

/// Whether any map of this process was ever damaged: a quick look before a thorough one.
pub(super) fn is_any_damaged() -> bool {
    ANY_DAMAGE.load(Ordering::Acquire)
}

/// A slot that was never used.
fn next_slot() -> Option<usize> {
    USED.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| (used < SLOTS_MAX).then_some(used + 1)).ok()
}

/// Brings the handler, once.
fn install() -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if *installed {
        return Ok(());
    }
    // The handler must not be the first to ask.
    let _ = sys::page_len();
    // SAFETY: sigaction is a plain C structure for which all zeros is a value.
    let mut before: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: no new action is given, and the old one goes to a structure of its type.
    check(unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut before) })?;
    let _ = BEFORE.set(before);
    // SAFETY: as above; an empty mask is all zeros too.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = on_bus_error as *const () as usize;
    // On the thread's stack for signals, if it has one: what ran may have used up its own.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the action names a function of the type that SA_SIGINFO asks for, which takes no lock and no memory.
    check(unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) })?;
    *installed = true;
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What is done about SIGBUS. Nothing in it may lock, allocate or panic.
extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives a pointer to a whole structure to a handler with SA_SIGINFO.
    let info = unsafe { &*info };
    // All others were sent by somebody, or tell of an address that nobody has touched.
    let is_access = matches!(info.si_code, libc::BUS_ADRERR | libc::BUS_OBJERR | libc::BUS_MCEERR_AR);
    // SAFETY: the field is there for every SIGBUS that an access has raised, and a number for all others.
    let address = unsafe { info.si_addr() }.addr();
    // SAFETY: the C library's errno of this thread, always there. What was interrupted may be about to read it.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let errno_before = unsafe { errno.read() };
    if !(is_access && replace_page(address)) {
        step_aside(signal, is_access);
    }
    // SAFETY: as above.
    unsafe { errno.write(errno_before) };
}

/// Puts a page of zeroes at an address that lies in one of our maps; whether it is there.
fn replace_page(address: usize) -> bool {
    let used = USED.load(Ordering::Acquire).min(SLOTS_MAX);
    let found = SLOTS[..used].iter().find_map(|slot| Some((slot, slot.offset(address)?)));
    let Some((slot, offset)) = found else { return false };
    let page_len = sys::page_len();
    // Maps begin with a page, so the page lies in the map too.
    let (page, page_offset) = (address & !(page_len - 1), offset & !(page_len - 1));
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: the page belongs to a map that a thread is just using, so the map lives; what it held cannot be had by
    // anyone; and nobody trusts the bytes of a damaged map, so that they become others breaks no promise.
    let mapped =
        unsafe { libc::mmap(ptr::with_exposed_provenance_mut(page), page_len, protection, flags, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return false;
    }
    let _ = slot.damage.compare_exchange(0, page_offset + 1, Ordering::AcqRel, Ordering::Relaxed);
    ANY_DAMAGE.store(true, Ordering::Release);
    true
}

/// Puts back what was done about the signal before, and has it come again: an access will be repeated, and a signal
/// that was sent is sent once more.
fn step_aside(signal: libc::c_int, is_access: bool) {
    let Some(before) = BEFORE.get() else { return };
    // SAFETY: the action is one that the kernel gave.
    let restored = unsafe { libc::sigaction(signal, before, ptr::null_mut()) };
    if restored == 0 && !is_access {
        // SAFETY: a plain number; the signal waits until the handler has returned.
        unsafe { libc::raise(signal) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};
    use std::thread;

    use memmap2::{MmapOptions, MmapRaw};

    use super::*;

    /// A file of four pages and its map.
    fn mapped() -> (File, MmapRaw) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 * sys::page_len() as u64).unwrap();
        let map = MmapOptions::new().map_raw(&file).unwrap();
        (file, map)
    }

    fn load(map: &MmapRaw, at: usize) -> u8 {
        assert!(at < map.len());
        // SAFETY: inside the map; volatile, as what is behind it changes.
        unsafe { map.as_ptr().wrapping_add(at).read_volatile() }
    }

    fn store(map: &MmapRaw, at: usize, byte: u8) {
        assert!(at < map.len());
        // SAFETY: as in `load`, and the map may be written.
        unsafe { map.as_mut_ptr().wrapping_add(at).write_volatile(byte) }
    }

    #[test]
    fn what_cannot_be_had_is_zeroes_and_known() {
        let page = sys::page_len();
        let ((file, map), (_other_file, other)) = (mapped(), mapped());
        let guard = Guard::new(map.as_ptr(), map.len()).unwrap();
        let other_guard = Guard::new(other.as_ptr(), other.len()).unwrap();
        store(&map, 3 * page, 9);
        file.set_len(page as u64 + 5).unwrap();
        assert_eq!(
            (load(&map, page + 5), guard.damage()),
            (0, None),
            "a page that is there in part is there"
        );
        assert_eq!((load(&map, 3 * page), guard.damage()), (0, Some(3 * page)));
        store(&map, 2 * page + 7, 8);
        assert_eq!((load(&map, 2 * page + 7), guard.damage()), (8, Some(3 * page)));
        assert_eq!(file.metadata().unwrap().len(), page as u64 + 5, "nothing of it is in the file");
        assert_eq!(other_guard.damage(), None);
        assert!(is_any_damaged());
        // Its place in the table begins anew.
        drop(guard);
        assert_eq!(Guard::new(other.as_ptr(), other.len()).unwrap().damage(), None);
    }

    #[test]
    fn threads_that_meet_the_same_page_all_go_on() {
        let (file, map) = mapped();
        let guard = Guard::new(map.as_ptr(), map.len()).unwrap();
        file.set_len(0).unwrap();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..map.len()).step_by(64).for_each(|at| assert_eq!(load(&map, at), 0)));
            }
        });
        assert!(guard.damage().is_some());
    }

    /// A process that guards a map and then does what its name in the environment says, which must kill it.
    #[test]
    fn a_real_crash_stays_a_crash() {
        const VARIABLE: &str = "RINGTIDE_TEST_CRASH";
        if let Ok(crash) = std::env::var(VARIABLE) {
            let ((_file, map), (cut, unguarded)) = (mapped(), mapped());
            let _guard = Guard::new(map.as_ptr(), map.len()).unwrap();
            cut.set_len(0).unwrap();
            match &*crash {
                "elsewhere" => _ = load(&unguarded, 0),
                // The action of the Rust runtime lets the first one pass.
                // SAFETY: plain numbers.
                _ => (0..2).for_each(|_| _ = unsafe { libc::raise(libc::SIGBUS) }),
            }
            std::process::exit(0);
        }
        for crash in ["elsewhere", "sent"] {
            let name = "disk::guard::tests::a_real_crash_stays_a_crash";
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args([name, "--exact", "--nocapture"]).env(VARIABLE, crash);
            let status = child.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
            assert_eq!(status.signal(), Some(libc::SIGBUS), "{crash}: {status}");
        }
    }
}
