//! How bytes get into the files: through a map, or by writing whole pieces.

use std::fmt;
use std::fs::File;
use std::str::FromStr;

use super::sys;
use crate::os::limits;

/// How the output is written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Io {
    /// The files are mapped, and what is received lands in them.
    Mmap,
    /// A piece is received into private memory and written to its files once it is verified.
    Pwrite,
    /// The same, and the pages leave the page cache as soon as the disk has them, for the next ones to use.
    Uncached,
    /// The map, except where a file system has none or a poor one, or where the files are too many or too long for what
    /// this process may take, or pages turn out to be dear; and where writing is dear, too, around the page cache.
    #[default]
    Auto,
}

impl Io {
    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mmap => "mmap",
            Self::Pwrite => "pwrite",
            Self::Uncached => "uncached",
            Self::Auto => "auto",
        }
    }
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Io {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Mmap, Self::Pwrite, Self::Uncached, Self::Auto]
            .into_iter()
            .find(|io| io.name() == name)
            .ok_or_else(|| format!("'{name}' is not mmap, pwrite, uncached or auto"))
    }
}

/// File systems (by the magic number that `statfs` gives) on which a shared map that is written to fails, is slow, or
/// leaves others with old data: FUSE, NFS, SMB in its three versions, ZFS.
const UNMAPPABLE: [u32; 6] = [0x6573_5546, 0x0000_6969, 0x0000_517B, 0xFF53_4D42, 0xFE53_4D42, 0x2FC1_2FC1];

/// Whether the file system that holds `file` is one to leave unmapped. One that does not say what it is may be mapped.
pub(super) fn is_unmappable(file: &File) -> bool {
    sys::file_system(file).is_ok_and(|magic| UNMAPPABLE.contains(&magic))
}

/// File systems whose files are memory and nothing else: tmpfs, ramfs.
const IN_MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58F6];

/// Whether the file system that holds `file` has no other place for it than the page cache.
pub(super) fn is_in_memory(file: &File) -> bool {
    sys::file_system(file).is_ok_and(|magic| IN_MEMORY.contains(&magic))
}

/// Which part of the maps that a process may have the files of an output take. Those of pieces in flight that lie
/// beyond what is kept, the stacks of threads and the libraries need theirs too.
const MAPS_SHARE: usize = 4;

/// Files of one piece, above which they are not mapped: to lease the piece, a thread of the rings opens and maps each.
const FILES_A_PIECE_MAX: usize = 512;

/// Which part of the address space that is left the maps take. The rest is for stacks and memory.
const ADDRESS_SPACE_SHARE: u64 = 2;

/// What an output takes when it is mapped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// Its files that are not empty.
    pub(super) files: usize,
    /// The most files that a piece has bytes of.
    pub(super) files_a_piece: usize,
    /// Their bytes.
    pub(super) bytes: u64,
}

/// What this process may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Maps.
    maps: usize,
    /// Bytes of address space that are left, where they are limited.
    address_space: Option<u64>,
}

impl Room {
    /// What is left now.
    pub(super) fn now() -> Self {
        Self { maps: limits::maps(), address_space: limits::address_space() }
    }

    /// Whether there is room to map an output without a thought for it afterwards.
    pub(super) fn has(&self, need: Need) -> bool {
        need.files <= self.maps / MAPS_SHARE
            && need.files_a_piece <= FILES_A_PIECE_MAX
            && self.address_space.is_none_or(|left| need.bytes <= left / ADDRESS_SPACE_SHARE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_take_too_much_is_not_mapped() {
        let room = Room { maps: 65_530, address_space: None };
        let need = Need { files: 16_000, files_a_piece: 512, bytes: u64::MAX };
        assert!(room.has(need));
        assert!(!room.has(Need { files: 17_000, ..need }));
        assert!(!room.has(Need { files_a_piece: 513, ..need }));
        assert!(!Room { maps: 1000, ..room }.has(need));
        let confined = Room { address_space: Some(600 << 20), ..room };
        assert!(confined.has(Need { bytes: 300 << 20, ..need }));
        assert!(!confined.has(Need { bytes: 301 << 20, ..need }));
        assert!(Room::now().has(Need { files: 1, files_a_piece: 1, bytes: 0 }));
    }

    #[test]
    fn every_method_is_found_by_its_name() {
        for io in [Io::Mmap, Io::Pwrite, Io::Uncached, Io::Auto] {
            assert_eq!(io.to_string().parse(), Ok(io));
        }
        assert_eq!("Mmap".parse::<Io>(), Err("'Mmap' is not mmap, pwrite, uncached or auto".to_owned()));
    }

    #[test]
    fn local_file_systems_are_mapped() {
        assert!(!is_unmappable(&tempfile::tempfile().unwrap()));
    }
}
