//! The torrent file of a magnet link beside its output, `OUT.ringtide.torrent`: what the link stands for, so that the
//! next run need not ask peers for it.
//!
//! It is a proper torrent file that any client takes. Nothing in it is believed for its place or its owner, but for the
//! hash of what it says, which whoever reads it compares with the link's. A file of that name that this program did not
//! make is neither replaced nor removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::sys;
use crate::meta::torrent::{METAINFO_LEN_MAX, is_our_torrent_file};

/// What is added to the name of the output.
const SUFFIX: &str = ".ringtide.torrent";
/// Names that are tried for the draft; each belongs to somebody only by an odd chance.
const DRAFTS_MAX: u32 = 16;

/// The place of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetaFile {
    path: PathBuf,
}

impl MetaFile {
    /// The file beside the output at `root`; `None` where that has no name to put one beside.
    pub fn beside(root: &Path) -> Option<Self> {
        let whole = if root.file_name().is_some() { root.to_path_buf() } else { root.canonicalize().ok()? };
        let mut name = whole.file_name()?.to_os_string();
        name.push(SUFFIX);
        Some(Self { path: whole.with_file_name(name) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes that are there; `None` where there is nothing. Links are not followed.
    ///
    /// # Errors
    /// Where what is there is no file, or longer than any torrent, and what the system says.
    pub fn read(&self) -> io::Result<Option<Vec<u8>>> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut bytes = Vec::new();
        file.take(METAINFO_LEN_MAX as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > METAINFO_LEN_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(Some(bytes))
    }

    /// Puts these bytes there, in the place of an older file of this program. Whatever ends this process, what is there
    /// is whole. `false` where they are there already.
    ///
    /// # Errors
    /// Where something else is there, and what the system says.
    pub fn write(&self, bytes: &[u8]) -> io::Result<bool> {
        match self.read()? {
            Some(found) if found == bytes => return Ok(false),
            Some(found) if is_our_torrent_file(&found) => fs::remove_file(&self.path)?,
            Some(_) => return Err(io::Error::other("it is not one of ours")),
            None => {}
        }
        let (draft, mut file) = self.draft()?;
        let written = file.write_all(bytes).and_then(|()| publish(&draft, &self.path));
        let _ = fs::remove_file(&draft);
        written.map(|()| true)
    }

    /// Removes the file, if it is one of this program.
    pub fn remove(&self) {
        if self.read().is_ok_and(|found| found.is_some_and(|bytes| is_our_torrent_file(&bytes)))
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }

    /// A new file under a name of its own.
    fn draft(&self) -> io::Result<(PathBuf, File)> {
        let mut taken = io::Error::from(io::ErrorKind::AlreadyExists);
        for number in 0..DRAFTS_MAX {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{}.{number}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&name) {
                Ok(file) => return Ok((name.into(), file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = error,
                Err(error) => return Err(error),
            }
        }
        Err(taken)
    }
}

/// Gives a draft its name, unless somebody has that meanwhile: at once, so that whatever ends this process, what has
/// the name is whole.
fn publish(draft: &Path, path: &Path) -> io::Result<()> {
    match sys::rename_to_free(draft, path) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
            publish_without(draft, path)
        }
        renamed => renamed,
    }
}

/// The same on file systems that cannot rename in this way.
fn publish_without(draft: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(draft, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            // Some have no second names for a file either. Between the look and the renaming lies a moment at most.
            match path.symlink_metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(draft, path),
                Err(error) => Err(error),
                Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            }
        }
        linked => linked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::torrent::torrent_file;

    #[test]
    fn only_files_of_our_own_are_replaced_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let file = MetaFile::beside(&folder.path().join("out")).unwrap();
        assert_eq!(file.path(), folder.path().join("out.ringtide.torrent"));
        let (one, other) = (torrent_file(b"de", &[]), torrent_file(b"d1:xi1ee", &[]));
        assert_eq!(file.read().unwrap(), None);
        assert!(file.write(&one).unwrap());
        assert!(!file.write(&one).unwrap());
        assert!(file.write(&other).unwrap());
        assert_eq!(file.read().unwrap(), Some(other));
        assert_eq!(folder.path().read_dir().unwrap().count(), 1, "no draft is left");
        file.remove();
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
        file.remove();

        for theirs in [&b""[..], b"d4:infodee", b"notes of the user"] {
            fs::write(file.path(), theirs).unwrap();
            assert!(file.write(&one).is_err());
            file.remove();
            assert_eq!(fs::read(file.path()).unwrap(), theirs);
        }
    }

    #[test]
    fn neither_links_nor_folders_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let file = MetaFile::beside(&folder.path().join("out")).unwrap();
        let (ours, elsewhere) = (torrent_file(b"de", &[]), folder.path().join("elsewhere"));
        fs::write(&elsewhere, &ours).unwrap();
        std::os::unix::fs::symlink(&elsewhere, file.path()).unwrap();
        assert!(file.read().is_err() && file.write(b"d4:infodee").is_err());
        file.remove();
        assert_eq!((fs::read(&elsewhere).unwrap(), file.path().is_symlink()), (ours.clone(), true));
        fs::remove_file(file.path()).unwrap();
        fs::create_dir(file.path()).unwrap();
        assert!(file.read().is_err() && file.write(&ours).is_err());
        file.remove();
        assert!(file.path().is_dir());
    }

    #[test]
    fn a_name_that_others_have_taken_meanwhile_is_left_to_them() {
        for publish in [publish, publish_without] {
            let folder = tempfile::tempdir().unwrap();
            let [draft, path, free] = ["draft", "path", "free"].map(|name| folder.path().join(name));
            fs::write(&draft, "ours").unwrap();
            fs::write(&path, "theirs").unwrap();
            assert_eq!(publish(&draft, &path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read(&path).unwrap(), b"theirs");
            publish(&draft, &free).unwrap();
            assert_eq!(fs::read(&free).unwrap(), b"ours");
        }
    }
}
