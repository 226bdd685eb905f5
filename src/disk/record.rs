//! The resume record beside an output: which pieces were verified, so that they need not be hashed again.
//!
//! A record is `OUT.ringtide`, a few hundred bytes and a bit or two a piece:
//!
//! ```text
//! magic (16) | version (4) | info hash (20) | total length (8) | piece length (4) | open until, Unix seconds (8)
//! boot (16) | state (1) | files (20) | times (20) | durable pieces (n/8) | verified pieces (n/8) | SHA-1 of all that (20)
//! ```
//!
//! Numbers are little-endian, pieces stand as in a BITFIELD. `files` is a digest of which files there are (inode and
//! birth), `times` one of their mtimes, ctimes and lengths.
//!
//! Two sets, because a piece that was verified is in the page cache, not on the disk: *durable* pieces were synced
//! before the record was written, *verified* ones should be there as long as the machine has not gone down, which
//! `boot` tells. And two states: a *closed* record was written when nothing wrote to the files any more, so files with
//! other times were changed by somebody. An *open* one was left behind by a process that was killed, or by a machine
//! that went down; the times of its files say little.
//!
//! Everything in a record is checked, but it is a note of our own, not a proof. So it is believed only where nobody
//! else can have written it ([`RecordFile::read`]). And what stands under its name, or under that of a draft, is
//! replaced or removed only where it begins with the magic, or holds nothing: anything else is the user's.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha1::{Digest, Sha1};

use super::opener::parent;
use super::sys;
use crate::meta::geometry::Geometry;
use crate::os::user;

/// How every record begins, of whatever version.
const MAGIC: &[u8; 16] = b"ringtide resume\n";
/// The version that is written and understood.
const VERSION: u32 = 1;
/// Bytes of a digest.
const DIGEST_LEN: usize = 20;
/// Bytes before the pieces.
const HEAD_LEN: usize = MAGIC.len() + 4 + DIGEST_LEN + 8 + 4 + 8 + 16 + 1 + 2 * DIGEST_LEN;

/// What the files of an output are, and when they were changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Which files there are.
    pub files: [u8; DIGEST_LEN],
    /// When each was changed.
    pub times: [u8; DIGEST_LEN],
    /// When the last of them was written to, in Unix seconds.
    pub written_at: i64,
}

/// Makes the stamp of files, one after the other.
#[derive(Default)]
pub(super) struct Stamper {
    files: Sha1,
    times: Sha1,
    written_at: i64,
}

impl Stamper {
    pub(super) fn add(&mut self, metadata: &Metadata) {
        self.identify(metadata.ino(), metadata.created().ok());
        let changes = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
        changes.iter().for_each(|change| self.times.update(change.to_le_bytes()));
        self.times.update(metadata.len().to_le_bytes());
        self.written_at = self.written_at.max(metadata.mtime());
    }

    /// Adds which file it is, and nothing of when it was changed. The time of birth tells a file from a later one of
    /// the same inode number. Not the device: it may have another number after the next start of the machine.
    pub(super) fn identify(&mut self, inode: u64, born: Option<SystemTime>) {
        let born = born.and_then(|born| born.duration_since(SystemTime::UNIX_EPOCH).ok());
        self.files.update(inode.to_le_bytes());
        self.files.update(born.map_or(0, |born| born.as_nanos()).to_le_bytes());
    }

    pub(super) fn finish(self) -> Stamp {
        let Self { files, times, written_at } = self;
        Stamp { files: files.finalize().into(), times: times.finalize().into(), written_at }
    }
}

/// What was written down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Of the torrent.
    pub info_hash: [u8; DIGEST_LEN],
    /// The cut of the content.
    pub geometry: Geometry,
    /// Until when whoever wrote it may have gone on to write to the files, in Unix seconds. Says nothing once it is
    /// closed.
    pub open_until: i64,
    /// Which run of the machine it was written in: see [`boot`].
    pub boot: [u8; 16],
    /// Whether nothing wrote to the files any more.
    pub is_closed: bool,
    /// A digest of which files there are.
    pub files: [u8; DIGEST_LEN],
    /// A digest of when they were changed.
    pub times: [u8; DIGEST_LEN],
    /// The pieces that were on the disk, as in a BITFIELD (BEP 3).
    pub durable: Vec<u8>,
    /// The pieces that were right, those among them; of the same length.
    pub verified: Vec<u8>,
}

/// Why bytes are no record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unreadable {
    /// They do not begin like one: somebody else's file.
    Foreign,
    /// They are of a version that is not known here.
    Version(u32),
    /// They are cut short, or some of them are others than were written.
    Damaged,
}

impl Record {
    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_LEN + 2 * self.durable.len() + DIGEST_LEN);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.info_hash);
        bytes.extend(self.geometry.total_len().to_le_bytes());
        bytes.extend(self.geometry.piece_len().to_le_bytes());
        bytes.extend(self.open_until.to_le_bytes());
        bytes.extend(self.boot);
        bytes.push(u8::from(self.is_closed));
        bytes.extend(self.files);
        bytes.extend(self.times);
        bytes.extend(&self.durable);
        bytes.extend(&self.verified);
        let digest = Sha1::digest(&bytes);
        bytes.extend(digest);
        bytes
    }

    /// Reads the bytes of a file. They may be anything.
    ///
    /// # Errors
    /// Why they are no record of this version.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        if bytes.is_empty() {
            // What some file systems leave of a file that was not synced, after the machine has gone down.
            return Err(Unreadable::Damaged);
        }
        if !bytes.starts_with(MAGIC) {
            return Err(Unreadable::Foreign);
        }
        let mut rest = Bytes(bytes);
        rest.take::<{ MAGIC.len() }>()?;
        let version = u32::from_le_bytes(rest.take()?);
        if version != VERSION {
            return Err(Unreadable::Version(version));
        }
        let (content, digest) = bytes.split_last_chunk::<DIGEST_LEN>().ok_or(Unreadable::Damaged)?;
        if Sha1::digest(content)[..] != digest[..] {
            return Err(Unreadable::Damaged);
        }
        let info_hash = rest.take()?;
        let (total_len, piece_len) = (u64::from_le_bytes(rest.take()?), u32::from_le_bytes(rest.take()?));
        let geometry = Geometry::new(total_len, piece_len).ok_or(Unreadable::Damaged)?;
        let record = Self {
            info_hash,
            geometry,
            open_until: i64::from_le_bytes(rest.take()?),
            boot: rest.take()?,
            is_closed: match rest.take::<1>()? {
                [0] => false,
                [1] => true,
                _ => return Err(Unreadable::Damaged),
            },
            files: rest.take()?,
            times: rest.take()?,
            durable: rest.take_slice(set_len(geometry))?.to_vec(),
            verified: rest.take_slice(set_len(geometry))?.to_vec(),
        };
        if rest.0.len() == DIGEST_LEN { Ok(record) } else { Err(Unreadable::Damaged) }
    }
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Unreadable::Damaged)?;
        self.0 = rest;
        Ok(*first)
    }

    fn take_slice(&mut self, len: usize) -> Result<&'a [u8], Unreadable> {
        let (first, rest) = self.0.split_at_checked(len).ok_or(Unreadable::Damaged)?;
        self.0 = rest;
        Ok(first)
    }
}

fn set_len(geometry: Geometry) -> usize {
    geometry.piece_count().div_ceil(8) as usize
}

/// Which run of the machine this is; another after each start. `None` where the system does not say.
pub fn boot() -> Option<[u8; 16]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits = text.trim().replace('-', "");
    u128::from_str_radix(&digits, 16).ok().map(u128::to_le_bytes)
}

/// Names that are tried for a draft: whoever has left so much lying about goes without records.
const DRAFTS_MAX: u32 = 16;
/// The permissions of a record: nobody else is to write one.
const MODE: u32 = 0o600;
/// Those bits of them that let others than the owner write.
const OTHERS_WRITE: u32 = 0o022;

/// The file of a record.
#[derive(Clone, Debug)]
pub struct RecordFile {
    path: PathBuf,
}

/// What stands where a record may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Nothing.
    Free,
    /// A file that nobody but us can have written. The bytes go as far as a record of that content may reach, and one
    /// further.
    Ours(Vec<u8>),
    /// A file that begins like a record, and that somebody else may have written.
    Doubtful,
}

impl RecordFile {
    /// The file beside the output at `root`; `None` where that has no name to put one beside.
    pub fn beside(root: &Path) -> Option<Self> {
        let whole = if root.file_name().is_some() { root.to_path_buf() } else { root.canonicalize().ok()? };
        let mut name = whole.file_name()?.to_os_string();
        name.push(".ringtide");
        Some(Self { path: whole.with_file_name(name) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is there, for a record of such a content.
    ///
    /// It is ours where it is a regular file of this user with one name, which others may not write. Where the file
    /// system knows no owners, whoever could write the record can write the files just as well, so that nothing is lost
    /// by it.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(&self, geometry: Geometry) -> io::Result<Standing> {
        let Some(file) = open_existing(&self.path)? else { return Ok(Standing::Free) };
        let metadata = file.metadata()?;
        let is_ours = metadata.is_file()
            && metadata.nlink() <= 1
            && (!sys::has_owners(&file)
                || metadata.uid() == user::effective() && metadata.permissions().mode() & OTHERS_WRITE == 0);
        let mut bytes = Vec::new();
        let len = HEAD_LEN + 2 * set_len(geometry) + DIGEST_LEN;
        (&file).take(len as u64 + 1).read_to_end(&mut bytes)?;
        // What is no record at all is told as such, whoever has written it.
        Ok(if is_ours || !bytes.starts_with(MAGIC) { Standing::Ours(bytes) } else { Standing::Doubtful })
    }

    /// Puts a record in the place of the one that is there: whatever ends this process, one of the two is there as a
    /// whole. With `sync` it is on the disk when this returns; without, a machine that goes down may leave a damaged
    /// one.
    ///
    /// # Errors
    /// What the system says, and that something else than a record stands there.
    pub fn write(&self, record: &Record, sync: bool) -> io::Result<()> {
        check_replaceable(&self.path)?;
        let (mut file, draft) = self.make_draft()?;
        let written = file.write_all(&record.encode()).and_then(|()| {
            if sync {
                file.sync_all()?
            }
            fs::rename(&draft, &self.path)?;
            if sync { File::open(parent(&self.path))?.sync_all() } else { Ok(()) }
        });
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
        written
    }

    /// A new file beside the record, with its path. The name is one that nobody has, or that only a draft has which was
    /// left by a process that was killed.
    fn make_draft(&self) -> io::Result<(File, PathBuf)> {
        let mut result = Err(io::ErrorKind::AlreadyExists.into());
        for number in 0..DRAFTS_MAX {
            let draft = self.draft(number);
            if remove_record(&draft).is_err() {
                continue;
            }
            result = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&draft);
            match result {
                Err(ref err) if err.kind() == io::ErrorKind::AlreadyExists => {}
                result => return Ok((result?, draft)),
            }
        }
        result.map(|file| (file, self.draft(0)))
    }

    fn draft(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(if number == 0 { ".new".to_owned() } else { format!(".new.{number}") });
        name.into()
    }

    /// Removes the record, and drafts that were left.
    ///
    /// # Errors
    /// What the system says, but for its not being there.
    pub fn remove(&self) -> io::Result<()> {
        for number in 0..DRAFTS_MAX {
            let _ = remove_record(&self.draft(number));
        }
        remove_record(&self.path)
    }
}

/// Opens what has a name to be read, unless it is a link; `None` where nothing has it.
fn open_existing(path: &Path) -> io::Result<Option<File>> {
    // Opening a pipe must not wait for its other end.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

/// Whether something has that name. It is an error where that is neither a record nor an empty file.
fn check_replaceable(path: &Path) -> io::Result<bool> {
    let Some(file) = open_existing(path)? else { return Ok(false) };
    let mut bytes = Vec::with_capacity(MAGIC.len());
    if file.metadata()?.is_file() {
        (&file).take(MAGIC.len() as u64).read_to_end(&mut bytes)?;
        if bytes.is_empty() || bytes == MAGIC {
            return Ok(true);
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else than a record has that name"))
}

/// Removes a record, or an empty file; nothing where nothing has that name.
fn remove_record(path: &Path) -> io::Result<()> {
    if !check_replaceable(path)? {
        return Ok(());
    }
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let geometry = Geometry::new(100_000, 16_384).unwrap();
        Record {
            info_hash: [1; 20],
            geometry,
            open_until: 1_700_000_000,
            boot: [2; 16],
            is_closed: true,
            files: [3; 20],
            times: [4; 20],
            durable: vec![0b0001_0000],
            verified: vec![0b0001_0010],
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let record = record();
        assert_eq!(Record::parse(&record.encode()), Ok(record));
    }

    #[test]
    fn every_changed_bit_and_every_missing_byte_is_noticed() {
        let bytes = record().encode();
        for len in 0..bytes.len() {
            let expected = if (1..16).contains(&len) { Unreadable::Foreign } else { Unreadable::Damaged };
            assert_eq!(Record::parse(&bytes[..len]), Err(expected), "{len} bytes");
        }
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                ..16 => Unreadable::Foreign,
                16..20 => Unreadable::Version(VERSION ^ (1 << (bit - 128))),
                _ => Unreadable::Damaged,
            };
            assert_eq!(Record::parse(&changed), Err(expected), "bit {bit}");
        }
        assert_eq!(Record::parse(&[&bytes[..], &[0]].concat()), Err(Unreadable::Damaged));
        assert_eq!(Record::parse(&vec![0; bytes.len()]), Err(Unreadable::Foreign), "an image may begin so");
    }

    #[test]
    fn a_record_takes_the_place_of_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let file = RecordFile::beside(&folder.path().join("out")).unwrap();
        let mut record = record();
        assert_eq!(file.read(record.geometry).unwrap(), Standing::Free);
        // The drafts of processes that were killed.
        fs::write(file.draft(0), &record.encode()[..40]).unwrap();
        file.write(&record, true).unwrap();
        record.is_closed = false;
        fs::write(file.draft(0), "").unwrap();
        file.write(&record, false).unwrap();
        let Standing::Ours(bytes) = file.read(record.geometry).unwrap() else { panic!("it is ours") };
        assert_eq!(Record::parse(&bytes), Ok(record));
        // They may have found other names taken.
        fs::write(file.draft(3), MAGIC).unwrap();
        fs::write(file.draft(DRAFTS_MAX - 1), "").unwrap();
        file.remove().unwrap();
        file.remove().unwrap();
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_record_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (outside, root) = (folder.path().join("outside"), folder.path().join("out"));
        fs::write(&outside, record().encode()).unwrap();
        let file = RecordFile::beside(&root).unwrap();
        let draft = file.draft(0);
        for mine in [&b"my own"[..], &[0; 300], &MAGIC[..15], &[&[0], &MAGIC[..]].concat()] {
            // Under the name of a draft it costs nothing but that name.
            fs::write(&draft, mine).unwrap();
            file.write(&record(), false).unwrap();
            file.remove().unwrap();
            assert_eq!(fs::read(&draft).unwrap(), mine);
            fs::write(file.path(), mine).unwrap();
            file.write(&record(), false).unwrap_err();
            file.remove().unwrap_err();
            assert_eq!(fs::read(file.path()).unwrap(), mine);
            fs::remove_file(file.path()).unwrap();
        }
        std::os::unix::fs::symlink(&outside, file.path()).unwrap();
        file.read(record().geometry).unwrap_err();
        file.write(&record(), false).unwrap_err();
        assert!(file.path().is_symlink());
        fs::remove_file(file.path()).unwrap();
        fs::create_dir(file.path()).unwrap();
        file.write(&record(), false).unwrap_err();
        assert_eq!(folder.path().read_dir().unwrap().count(), 3, "and nothing else is left");
    }

    #[test]
    fn only_what_nobody_else_can_have_written_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let file = RecordFile::beside(&folder.path().join("out")).unwrap();
        let record = record();
        let is_ours = || matches!(file.read(record.geometry).unwrap(), Standing::Ours(_));
        let allow = |mode| fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        file.write(&record, false).unwrap();
        assert!(is_ours());
        assert_eq!(fs::metadata(file.path()).unwrap().mode() & 0o777, MODE);
        for (mode, expected) in [(0o644, true), (0o664, false), (0o602, false), (0o600, true)] {
            allow(mode);
            assert_eq!(is_ours(), expected, "{mode:o}");
        }
        fs::hard_link(file.path(), folder.path().join("another name")).unwrap();
        assert_eq!(file.read(record.geometry).unwrap(), Standing::Doubtful);
        file.write(&record, false).unwrap();
        assert!(is_ours(), "a record of one name has taken its place");
        if user::effective() == 0 {
            std::os::unix::fs::chown(file.path(), Some(12_345), None).unwrap();
            assert_eq!(file.read(record.geometry).unwrap(), Standing::Doubtful);
        }
    }

    #[test]
    fn a_boot_has_a_name() {
        assert!(boot().is_some());
        assert_eq!(boot(), boot());
    }
}
