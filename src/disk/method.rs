//! How bytes get into the files: through a map, or by writing whole pieces.

use std::fmt;
use std::fs::File;
use std::str::FromStr;

use super::sys;

/// How the output is written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Io {
    /// The files are mapped, and what is received lands in them.
    Mmap,
    /// A piece is received into private memory and written to its files once it is verified.
    Pwrite,
    /// The map, except where a file system has none or a poor one.
    #[default]
    Auto,
}

impl Io {
    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mmap => "mmap",
            Self::Pwrite => "pwrite",
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
        [Self::Mmap, Self::Pwrite, Self::Auto]
            .into_iter()
            .find(|io| io.name() == name)
            .ok_or_else(|| format!("'{name}' is not mmap, pwrite or auto"))
    }
}

/// File systems (by the magic number that `statfs` gives) on which a shared map that is written to fails, is slow, or
/// leaves others with old data: FUSE, NFS, SMB in its three versions, ZFS.
const UNMAPPABLE: [u32; 6] = [0x6573_5546, 0x0000_6969, 0x0000_517B, 0xFF53_4D42, 0xFE53_4D42, 0x2FC1_2FC1];

/// Whether the file system that holds `file` is one to leave unmapped. One that does not say what it is may be mapped.
pub(super) fn is_unmappable(file: &File) -> bool {
    sys::file_system(file).is_ok_and(|magic| UNMAPPABLE.contains(&magic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_by_its_name() {
        for io in [Io::Mmap, Io::Pwrite, Io::Auto] {
            assert_eq!(io.to_string().parse(), Ok(io));
        }
        assert_eq!("Mmap".parse::<Io>(), Err("'Mmap' is not mmap, pwrite or auto".to_owned()));
    }

    #[test]
    fn local_file_systems_are_mapped() {
        assert!(!is_unmappable(&tempfile::tempfile().unwrap()));
    }
}
