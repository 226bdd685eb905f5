//! How many descriptors and how much address space this process may have.

#![expect(unsafe_code, reason = "libc is the only way to ask for limits")]

use std::fs;
use std::io;

use super::spare;

/// Descriptors that are asked for at most: enough for all connections, and no table of a million.
const DESCRIPTORS_WANTED: u64 = 16 * 1024;
/// Descriptors that are kept from connections where there are many: for the output, the rings, and those who look for
/// peers.
const DESCRIPTORS_RESERVED: usize = 96;
/// The same beside three quarters, where there are few: standard streams and the way signals come.
const DESCRIPTORS_BASE: usize = 4;
/// Maps that a process may have where the system does not say.
const MAPS_USUAL: usize = 65_530;

/// Raises the limit on descriptors as far as this process may, and keeps some back for what must be opened. The usual
/// limit is for programs that look at each possible descriptor, of which this is none.
pub fn raise_descriptors() {
    let Ok(mut limit) = get(libc::RLIMIT_NOFILE) else { return };
    let wanted = limit.rlim_max.min(DESCRIPTORS_WANTED);
    if limit.rlim_cur < wanted {
        limit.rlim_cur = wanted;
        // SAFETY: the structure is whole and outlives the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            tracing::debug!("the limit on descriptors stays: {}", io::Error::last_os_error());
        }
    }
    spare::refill();
}

/// Has all threads share one heap where the address space is limited: glibc reserves 64 MiB of it for each that has its
/// own, and then no thread more may be had.
pub fn share_heap() {
    #[cfg(target_env = "gnu")]
    if address_space().is_some() {
        // SAFETY: the call takes plain numbers, and no other thread is there yet to allocate meanwhile.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}

/// Connections to have at a time, of the `wanted` ones, so that descriptors are left for all else; at least one.
pub fn connections(wanted: usize) -> usize {
    connections_of(descriptors(), wanted)
}

fn connections_of(descriptors: usize, wanted: usize) -> usize {
    let reserved = DESCRIPTORS_RESERVED.min(descriptors / 4 * 3 + DESCRIPTORS_BASE);
    descriptors.saturating_sub(reserved).clamp(1, wanted)
}

/// Descriptors that this process may have.
pub fn descriptors() -> usize {
    get(libc::RLIMIT_NOFILE)
        .ok()
        .and_then(|limit| usize::try_from(limit.rlim_cur).ok())
        .unwrap_or(DESCRIPTORS_WANTED as usize)
}

/// The bytes that a file of this process may have at most; `None` for no limit.
pub fn file_size() -> Option<u64> {
    let limit = get(libc::RLIMIT_FSIZE).ok()?.rlim_cur;
    (limit != libc::RLIM_INFINITY).then_some(limit)
}

/// Bytes of address space that this process may still take; `None` for no limit but that of the machine.
pub fn address_space() -> Option<u64> {
    let limit = get(libc::RLIMIT_AS).ok().map(|limit| limit.rlim_cur)?;
    if limit == libc::RLIM_INFINITY {
        return None;
    }
    Some(limit.saturating_sub(address_space_in_use()))
}

/// Bytes of address space that this process has taken; 0 where the system does not say.
fn address_space_in_use() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let kibibytes = size.and_then(|size| size.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0).saturating_mul(1024)
}

/// Maps that a process may have.
pub fn maps() -> usize {
    let text = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    text.trim().parse().unwrap_or(MAPS_USUAL)
}

/// Whether an error says that the system has no more of something for now: descriptors, memory, or room for a socket.
/// Whoever meets it does better with less, or later.
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

fn get(resource: libc::__rlimit_resource_t) -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the target is the structure that the call fills.
    let got = unsafe { libc::getrlimit(resource, &raw mut limit) };
    if got == 0 { Ok(limit) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_all_else() {
        let few = [(0, 1), (8, 1), (16, 1), (32, 4), (64, 12), (128, 32), (256, 160), (416, 320)];
        for (descriptors, connections) in few.into_iter().chain([(1024, 320), (usize::MAX, 320)]) {
            assert_eq!(connections_of(descriptors, 320), connections, "of {descriptors}");
        }
    }

    #[test]
    fn the_limit_on_descriptors_is_that_of_the_system_or_enough() {
        raise_descriptors();
        let limit = get(libc::RLIMIT_NOFILE).unwrap();
        assert!(limit.rlim_cur >= limit.rlim_max.min(DESCRIPTORS_WANTED));
        assert_eq!(descriptors() as u64, limit.rlim_cur);
    }

    #[test]
    fn what_is_taken_is_known() {
        assert!(address_space_in_use() > 1 << 20);
        assert!(maps() > 0);
    }
}
