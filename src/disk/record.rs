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
//! Two sets, because a piece that was verified is in the page cache, not on the disk: *durable* pieces were synced before
//! the record was written, *verified* ones should be there as long as the machine has not gone down, which `boot` tells.
//! And two states: a *closed* record was written when nothing wrote to the files any more, so files with other times were
//! changed by somebody. An *open* one was left behind by a process that was killed, or by a machine that went down; the
//! times of its files say little.
//!
//! Everything in a record is checked, but it is a note of our own, not a proof: whoever can write it can write the files.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha1::{Digest, Sha1};

use super::tree::parent;
use crate::meta::geometry::Geometry;

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
        // The time of birth tells a file from a later one of the same inode number. Not the device: it may have another
        // number after the next start of the machine.
        let born = metadata.created().ok().and_then(|born| born.duration_since(SystemTime::UNIX_EPOCH).ok());
        self.files.update(metadata.ino().to_le_bytes());
        self.files.update(born.map_or(0, |born| born.as_nanos()).to_le_bytes());
        let changes = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
        changes.iter().for_each(|change| self.times.update(change.to_le_bytes()));
        self.times.update(metadata.len().to_le_bytes());
        self.written_at = self.written_at.max(metadata.mtime());
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
    /// Until when whoever wrote it may have gone on to write to the files, in Unix seconds. Says nothing once it is closed.
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
        if bytes.iter().all(|&byte| byte == 0) {
            // What some file systems leave of a file that was not synced, after the machine has gone down.
            return Err(Unreadable::Damaged);
        }
        if !bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())]) {
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
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits = text.trim().replace('-', "");
    u128::from_str_radix(&digits, 16).ok().map(u128::to_le_bytes)
}

/// The file of a record.
#[derive(Clone, Debug)]
pub struct RecordFile {
    path: PathBuf,
    /// The next one is written here and takes the place of the last when it is whole.
    draft: PathBuf,
}

impl RecordFile {
    /// The file beside the output at `root`; `None` where that has no name to put one beside.
    pub fn beside(root: &Path) -> Option<Self> {
        let whole = if root.file_name().is_some() { root.to_path_buf() } else { root.canonicalize().ok()? };
        let named = |suffix| {
            let mut name = whole.file_name()?.to_os_string();
            name.push(suffix);
            Some(whole.with_file_name(name))
        };
        Some(Self { path: named(".ringtide")?, draft: named(".ringtide.new")? })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes that are there, as far as a record of such a content may reach and one more; `None` where there is no file.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(&self, geometry: Geometry) -> io::Result<Option<Vec<u8>>> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&self.path) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(err),
        };
        let mut bytes = Vec::new();
        let len = HEAD_LEN + 2 * set_len(geometry) + DIGEST_LEN;
        file.take(len as u64 + 1).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Puts a record in the place of the one that is there: whatever ends this process, one of the two is there as a
    /// whole. With `sync` it is on the disk when this returns; without, a machine that goes down may leave a damaged one.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, record: &Record, sync: bool) -> io::Result<()> {
        let written = self.write_draft(&record.encode(), sync).and_then(|()| {
            std::fs::rename(&self.draft, &self.path)?;
            if sync { File::open(parent(&self.path))?.sync_all() } else { Ok(()) }
        });
        if written.is_err() {
            let _ = std::fs::remove_file(&self.draft);
        }
        written
    }

    fn write_draft(&self, bytes: &[u8], sync: bool) -> io::Result<()> {
        // What is left of a process that was killed meanwhile.
        match std::fs::remove_file(&self.draft) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).open(&self.draft)?;
        file.write_all(bytes)?;
        if sync { file.sync_all() } else { Ok(()) }
    }

    /// Removes the record.
    ///
    /// # Errors
    /// What the system says, but for its not being there.
    pub fn remove(&self) -> io::Result<()> {
        let _ = std::fs::remove_file(&self.draft);
        match std::fs::remove_file(&self.path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
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
            assert_eq!(Record::parse(&bytes[..len]), Err(Unreadable::Damaged), "{len} bytes");
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
    }

    #[test]
    fn a_record_takes_the_place_of_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let file = RecordFile::beside(&folder.path().join("out")).unwrap();
        let mut record = record();
        assert_eq!(file.read(record.geometry).unwrap(), None);
        std::fs::write(folder.path().join("out.ringtide.new"), "half").unwrap();
        file.write(&record, true).unwrap();
        record.is_closed = false;
        file.write(&record, false).unwrap();
        assert_eq!(Record::parse(&file.read(record.geometry).unwrap().unwrap()), Ok(record));
        file.remove().unwrap();
        file.remove().unwrap();
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn a_boot_has_a_name() {
        assert!(boot().is_some());
        assert_eq!(boot(), boot());
    }
}
