//! Which names the file system of an output takes.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::sys;
use crate::meta::names::Rules;

/// File systems (by the magic number that `statfs` gives) that follow the rules of Windows: exFAT, FAT, NTFS by its two
/// drivers in the kernel, SMB in its three versions. NTFS over FUSE does not say what it is.
const OF_WINDOWS: [u32; 7] =
    [0x2011_BAB0, 0x0000_4D44, 0x5346_544E, 0x7366_746E, 0x0000_517B, 0xFF53_4D42, 0xFE53_4D42];

const ECRYPTFS: u32 = 0x0000_F15F;

/// The rules for names at a path, or in the nearest folder above it that exists. A file system that does not say what
/// it is counts as one of Linux.
pub fn rules(path: &Path) -> Rules {
    let absolute = std::path::absolute(path).unwrap_or_default();
    // Only to ask where it lies: opened for reading, a pipe would wait for a writer, and a device could act on it.
    let open = |path: &Path| OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path).ok();
    let nearest = absolute.ancestors().find_map(open);
    nearest.and_then(|file| sys::file_system(&file).ok()).map_or(Rules::Linux, of)
}

fn of(magic: u32) -> Rules {
    match magic {
        ECRYPTFS => Rules::Ecryptfs,
        magic if OF_WINDOWS.contains(&magic) => Rules::Windows,
        _ => Rules::Linux,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_are_told_by_their_number() {
        assert_eq!(
            [0x2011_BAB0, 0xF15F, 0xEF53, 0x6573_5546].map(of),
            [Rules::Windows, Rules::Ecryptfs, Rules::Linux, Rules::Linux]
        );
    }

    #[test]
    fn what_does_not_exist_lies_where_its_folder_does() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(rules(&dir.path().join("a/b/c")), rules(dir.path()));
        assert_eq!(rules(Path::new("")), Rules::Linux);
    }
}
