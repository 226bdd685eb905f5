//! Where a download goes: what `-o` means, or what is meant without it, and the folders that are missing on the way.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::disk::DiskError;
use crate::disk::record::RecordFile;
use crate::error::Error;
use crate::meta::geometry::PieceIndex;
use crate::meta::torrent::Metainfo;

/// The name of standard output among files.
const STDOUT: &str = "-";

/// Where the content goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Path(PathBuf),
    Stdout,
}

/// The destination that the user means:
/// - without a word, the torrent's own name in the current folder;
/// - `-` is standard output;
/// - for an existing folder, or a name that ends in a slash, the torrent's own name inside of it, except that a folder
///   that was the output before goes on to be it;
/// - all else is the name itself.
pub(super) fn choose(word: Option<&OsStr>, metainfo: &Metainfo, piece: Option<PieceIndex>) -> Destination {
    let own_name = || match piece {
        None => metainfo.name.clone(),
        Some(piece) => format!("{}.piece-{}", metainfo.name, piece.get()),
    };
    let Some(word) = word else { return Destination::Path(own_name().into()) };
    if is_stdout(Some(word)) {
        return Destination::Stdout;
    }
    let path = Path::new(word);
    let is_folder_of_the_torrent = piece.is_none() && !metainfo.is_single_file;
    if is_folder_of_the_torrent && is_output_of(metainfo, path) {
        return Destination::Path(path.to_owned());
    }
    let is_inside = word.as_bytes().ends_with(b"/") || path.is_dir();
    Destination::Path(if is_inside { path.join(own_name()) } else { path.to_owned() })
}

/// Whether the user means standard output.
pub(super) fn is_stdout(word: Option<&OsStr>) -> bool {
    word.is_some_and(|word| word == STDOUT)
}

/// The paths at which the output of a link may be, of which nothing is known but the name that it suggests.
pub(super) fn guesses(word: Option<&OsStr>, name: Option<&str>) -> Vec<PathBuf> {
    let Some(word) = word else { return name.map(PathBuf::from).into_iter().collect() };
    let path = Path::new(word);
    [Some(path.to_owned()), name.map(|name| path.join(name))].into_iter().flatten().collect()
}

/// Whether a folder is what an earlier run made of a torrent: its record is there, or one of its files.
fn is_output_of(metainfo: &Metainfo, folder: &Path) -> bool {
    let has_record = || RecordFile::beside(folder).is_some_and(|record| record.path().exists());
    let mut files = metainfo.files.iter().filter(|file| !file.pad);
    folder.is_dir() && (has_record() || files.any(|file| folder.join(&file.path).symlink_metadata().is_ok()))
}

/// Folders that were made for an output, the outermost first.
#[derive(Debug, Default)]
pub(super) struct Parents(Vec<PathBuf>);

impl Parents {
    /// Makes the folders that are missing above an output.
    pub(super) fn make(output: &Path) -> Result<Self, Error> {
        let mut made = Self::default();
        let above = output.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
        let missing: Vec<&Path> = above.take_while(|folder| !folder.exists()).collect();
        for folder in missing.into_iter().rev() {
            match fs::create_dir(folder) {
                Ok(()) => made.0.push(folder.to_owned()),
                // Somebody else was faster, or it is a link to nothing, which is refused later.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    made.remove();
                    return Err(DiskError::new("make", folder, &error).into());
                }
            }
        }
        Ok(made)
    }

    /// Removes those in which nothing is.
    pub(super) fn remove(&self) {
        for folder in self.0.iter().rev() {
            if fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;
    use crate::meta::bencode::Writer;

    fn torrent(files: &[&str]) -> Metainfo {
        let mut bytes = Vec::new();
        Writer::new(&mut bytes).dict(|root| {
            root.key("info").dict(|info| {
                if files.is_empty() {
                    info.key("length").integer(1);
                } else {
                    info.key("files").list(|list| {
                        for name in files {
                            list.dict(|file| {
                                file.key("length").integer(1);
                                file.key("path").list(|path| path.bytes(name));
                            });
                        }
                    });
                }
                info.key("name").bytes("own");
                info.key("piece length").integer(16384);
                info.key("pieces").bytes([0; 20]);
            });
        });
        Metainfo::parse(&bytes).unwrap()
    }

    #[test]
    fn a_folder_has_the_output_inside_unless_it_is_the_output() {
        let dir = tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("empty")).unwrap();
        fs::create_dir_all(at("begun")).unwrap();
        fs::create_dir_all(at("recorded")).unwrap();
        fs::write(at("begun/a"), b"").unwrap();
        fs::write(at("recorded.ringtide"), b"").unwrap();
        fs::write(at("file"), b"").unwrap();
        let (one, many) = (torrent(&[]), torrent(&["a", "b"]));
        let piece = many.geometry.piece(0);
        let chosen = |name: &str, metainfo, piece| {
            let word = at(name).into_os_string();
            match choose(Some(&word), metainfo, piece) {
                Destination::Path(path) => {
                    path.strip_prefix(dir.path()).unwrap().to_str().unwrap().to_owned()
                }
                Destination::Stdout => "-".to_owned(),
            }
        };
        for (name, metainfo, piece, expected) in [
            ("new", &one, None, "new"),
            ("file", &one, None, "file"),
            ("empty", &one, None, "empty/own"),
            ("begun", &one, None, "begun/own"),
            ("new/", &one, None, "new/own"),
            ("new", &many, None, "new"),
            ("new/", &many, None, "new/own"),
            ("empty", &many, None, "empty/own"),
            ("begun", &many, None, "begun"),
            ("begun/", &many, None, "begun"),
            ("recorded", &many, None, "recorded"),
            ("begun", &many, piece, "begun/own.piece-0"),
            ("new", &many, piece, "new"),
        ] {
            assert_eq!(chosen(name, metainfo, piece), expected, "{name}");
        }
        assert_eq!(choose(None, &many, None), Destination::Path("own".into()));
        assert_eq!(choose(None, &one, piece), Destination::Path("own.piece-0".into()));
        assert_eq!(choose(Some(OsStr::new("-")), &one, None), Destination::Stdout);
    }

    #[test]
    fn missing_folders_are_made_and_removed_where_nothing_came() {
        let dir = tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let parents = Parents::make(&at("a/b/c/out")).unwrap();
        assert!(at("a/b/c").is_dir() && !at("a/b/c/out").exists());
        fs::write(at("a/kept"), b"").unwrap();
        parents.remove();
        assert!(at("a/kept").exists() && !at("a/b").exists());
        Parents::make(&at("a/out")).unwrap().remove();
        assert!(at("a").is_dir(), "it was there before");
        fs::write(at("file"), b"").unwrap();
        assert!(Parents::make(&at("file/x/out")).is_err());
        assert!(Parents::make(Path::new("out")).unwrap().0.is_empty());
    }
}
