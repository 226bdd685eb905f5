//! Reproducible content on disk, the torrents that describe it, and the comparison with what was downloaded.
//!
//! Each piece is a function of the seed and its index alone, so a seeder can be given any part of the content
//! without reading the rest.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};
use tempfile::TempDir;

use super::tracker::hex;
use super::workspace;

/// One file of the content: its path below the torrent's folder (empty for a single-file torrent) and its size.
#[derive(Clone, Debug)]
pub struct FileEntry {
    /// The elements of the path.
    pub path: Vec<String>,
    /// Bytes.
    pub len: u64,
}

/// What a torrent contains: one file, or a folder of files.
#[derive(Clone, Debug)]
pub enum Layout {
    /// One file of this many bytes.
    Single(u64),
    /// A folder of files, in the order of the metainfo.
    Folder(Vec<FileEntry>),
}

impl Layout {
    fn files(&self) -> Vec<FileEntry> {
        match self {
            Self::Single(len) => vec![FileEntry { path: Vec::new(), len: *len }],
            Self::Folder(files) => files.clone(),
        }
    }
}

/// A complete copy of the content and all that is needed to describe it.
pub struct Payload {
    /// The name in the metainfo: the file or folder below [`Payload::dir`].
    pub name: String,
    /// Its files; a single-file torrent has one, with an empty path.
    pub files: Vec<FileEntry>,
    /// Bytes of all files.
    pub total_len: u64,
    /// Bytes of every piece but the last.
    pub piece_len: u32,
    /// The SHA-1 of the info dictionary.
    pub info_hash: [u8; 20],
    layout: Layout,
    seed: u64,
    digests: Vec<u8>,
    dir: TempDir,
}

impl Payload {
    /// Writes the content that `seed` gives and hashes it on the way.
    pub fn create(name: &str, layout: Layout, piece_len: u32, seed: u64) -> Self {
        let files = layout.files();
        let total_len = files.iter().map(|file| file.len).sum();
        let mut payload = Self {
            name: name.to_owned(),
            files,
            total_len,
            piece_len,
            info_hash: [0; 20],
            layout,
            seed,
            digests: Vec::new(),
            dir: workspace::temp_dir("payload"),
        };
        let mut digests = Vec::new();
        payload.write_pieces(payload.dir.path(), |_| true, |bytes| digests.extend(Sha1::digest(bytes)));
        payload.digests = digests;
        payload.info_hash = Sha1::digest(payload.info_dictionary()).into();
        payload
    }

    /// The directory that holds [`Payload::name`]: what clients call the download directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The file or folder itself.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join(&self.name)
    }

    /// How many pieces there are.
    pub fn piece_count(&self) -> u32 {
        u32::try_from(self.total_len.div_ceil(u64::from(self.piece_len))).expect("a small number of pieces")
    }

    /// The bytes of one piece.
    pub fn piece(&self, index: u32) -> Vec<u8> {
        let left = self.total_len - u64::from(index) * u64::from(self.piece_len);
        let len = left.min(u64::from(self.piece_len));
        pseudo_random(self.seed, index, usize::try_from(len).expect("a piece fits memory"))
    }

    /// A second copy of the content, in which only the pieces that `keep` picks are there and the rest are holes.
    pub fn partial_copy(&self, keep: impl Fn(u32) -> bool) -> TempDir {
        let dir = workspace::temp_dir("partial");
        self.write_pieces(dir.path(), keep, |_| ());
        dir
    }

    /// The magnet link with these parameters, each without its `&`.
    pub fn link(&self, parameters: &[String]) -> String {
        let hash = hex(&self.info_hash);
        parameters
            .iter()
            .fold(format!("magnet:?xt=urn:btih:{hash}"), |link, parameter| link + "&" + parameter)
    }

    /// Writes a metainfo file into `dir`, with this tracker or without any, and gives its path.
    pub fn torrent(&self, dir: &Path, announce: Option<&str>) -> PathBuf {
        let mut bytes = b"d".to_vec();
        if let Some(url) = announce {
            put_string(&mut bytes, b"announce");
            put_string(&mut bytes, url.as_bytes());
        }
        put_string(&mut bytes, b"info");
        bytes.extend(self.info_dictionary());
        bytes.push(b'e');
        let path = dir.join(format!("{}.torrent", self.name));
        fs::write(&path, bytes).expect("the metainfo file is written");
        path
    }

    /// Asserts that the file or folder at `output` has exactly this content: every byte, every file, no file more.
    #[track_caller]
    pub fn assert_same(&self, output: &Path) {
        let mut expected = BTreeSet::new();
        for file in &self.files {
            let below = file.path.iter().collect::<PathBuf>();
            assert_same_bytes(&join(&self.root(), &below), &join(output, &below));
            expected.insert(join(output, &below));
        }
        assert_eq!(files_below(output), expected, "the files at {}", output.display());
    }

    fn write_pieces(&self, dir: &Path, keep: impl Fn(u32) -> bool, mut seen: impl FnMut(&[u8])) {
        let root = dir.join(&self.name);
        let mut spans = Vec::new();
        let mut start = 0;
        for file in &self.files {
            let path = join(&root, &file.path.iter().collect::<PathBuf>());
            fs::create_dir_all(path.parent().expect("a file has a parent")).expect("the folder is made");
            let handle = File::create(&path).expect("the file is made");
            handle.set_len(file.len).expect("the file has its size");
            spans.push((start, file.len, path));
            start += file.len;
        }
        for index in (0..self.piece_count()).filter(|index| keep(*index)) {
            let bytes = self.piece(index);
            seen(&bytes);
            write_piece(&spans, u64::from(index) * u64::from(self.piece_len), &bytes);
        }
    }

    fn info_dictionary(&self) -> Vec<u8> {
        let mut bytes = b"d".to_vec();
        match &self.layout {
            Layout::Single(len) => {
                put_string(&mut bytes, b"length");
                put_integer(&mut bytes, *len);
            }
            Layout::Folder(files) => {
                put_string(&mut bytes, b"files");
                bytes.push(b'l');
                files.iter().for_each(|file| put_file(&mut bytes, file));
                bytes.push(b'e');
            }
        }
        put_string(&mut bytes, b"name");
        put_string(&mut bytes, self.name.as_bytes());
        put_string(&mut bytes, b"piece length");
        put_integer(&mut bytes, self.piece_len.into());
        put_string(&mut bytes, b"pieces");
        put_string(&mut bytes, &self.digests);
        bytes.push(b'e');
        bytes
    }
}

/// Writes `bytes`, which begin at `offset` of the content, into the files they belong to.
///
/// They are opened again for it: thousands at a time would be more than a process may have open.
fn write_piece(spans: &[(u64, u64, PathBuf)], offset: u64, bytes: &[u8]) {
    let end = offset + bytes.len() as u64;
    let first = spans.partition_point(|(start, len, _)| start + len <= offset);
    for (start, len, path) in spans[first..].iter().take_while(|(start, ..)| *start < end) {
        let file = File::options().write(true).open(path).expect("the file was made");
        let from = offset.max(*start);
        let to = end.min(start + len);
        let part = (from - offset) as usize..(to - offset) as usize;
        file.write_all_at(&bytes[part], from - start).expect("the content is written");
    }
}

/// xorshift64* from a state that the seed and the index give: fast, and no two pieces alike.
fn pseudo_random(seed: u64, index: u32, len: usize) -> Vec<u8> {
    let mut state = (seed ^ (u64::from(index) << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = vec![0; len.next_multiple_of(8)];
    for word in bytes.chunks_exact_mut(8) {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        word.copy_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn put_string(bytes: &mut Vec<u8>, string: &[u8]) {
    bytes.extend(format!("{}:", string.len()).as_bytes());
    bytes.extend(string);
}

fn put_integer(bytes: &mut Vec<u8>, value: u64) {
    bytes.extend(format!("i{value}e").as_bytes());
}

fn put_file(bytes: &mut Vec<u8>, file: &FileEntry) {
    bytes.push(b'd');
    put_string(bytes, b"length");
    put_integer(bytes, file.len);
    put_string(bytes, b"path");
    bytes.push(b'l');
    file.path.iter().for_each(|element| put_string(bytes, element.as_bytes()));
    bytes.extend(b"ee");
}

/// `base` itself when there is nothing below it: `Path::join` would add a slash, which names no file.
fn join(base: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { base.to_owned() } else { base.join(below) }
}

fn files_below(path: &Path) -> BTreeSet<PathBuf> {
    if !path.is_dir() {
        return BTreeSet::from([path.to_owned()]);
    }
    let entries = fs::read_dir(path).expect("the folder can be listed");
    entries.flat_map(|entry| files_below(&entry.expect("the folder can be listed").path())).collect()
}

#[track_caller]
fn assert_same_bytes(expected: &Path, actual: &Path) {
    const STEP: usize = 1 << 20;
    let open = |path: &Path| File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (expected_file, actual_file) = (open(expected), open(actual));
    let size = |file: &File| file.metadata().expect("an open file has a size").len();
    assert_eq!(size(&actual_file), size(&expected_file), "the size of {}", actual.display());
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for offset in (0..size(&expected_file)).step_by(STEP) {
        read_step(&expected_file, STEP, &mut left);
        read_step(&actual_file, STEP, &mut right);
        if left != right {
            let first =
                left.iter().zip(&right).position(|(left, right)| left != right).unwrap_or(right.len());
            panic!("{} differs from the original at byte {}", actual.display(), offset + first as u64);
        }
    }
}

fn read_step(file: &File, step: usize, bytes: &mut Vec<u8>) {
    bytes.clear();
    file.take(step as u64).read_to_end(bytes).expect("the file is readable");
}
