//! What is seeded: the bytes of a torrent, its info dictionary, and the samples that the crate ships.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha1::{Digest, Sha1};

/// A torrent and its content.
#[derive(Clone)]
pub struct Content {
    /// The SHA-1 of the info dictionary.
    pub info_hash: [u8; 20],
    /// Bytes of every piece but the last.
    pub piece_len: usize,
    /// All of it, pads included.
    pub bytes: Arc<[u8]>,
    info: Arc<[u8]>,
}

impl Content {
    /// A sample of `test_samples/`, whose content lies under `payload/`.
    pub fn sample(name: &str) -> Self {
        let path = samples().join(format!("{name}.torrent"));
        let torrent = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let info = raw_info(&torrent);
        let root = samples().join("payload");
        Self::new(info, |name, path| {
            let path = root.join(name).join(path.join("/"));
            // Joining nothing leaves a slash behind, which names no file.
            PathBuf::from(path.to_str().expect("the samples have UTF-8 names").trim_end_matches('/'))
        })
    }

    /// A single file of that many bytes, which look random and differ from piece to piece.
    pub fn single(name: &str, len: usize, piece_len: usize) -> Self {
        Self::of_bytes(name, noise(len), piece_len)
    }

    /// A single file with these bytes.
    pub fn of_bytes(name: &str, bytes: Vec<u8>, piece_len: usize) -> Self {
        let len = bytes.len();
        let hashes: Vec<u8> = bytes.chunks(piece_len).flat_map(Sha1::digest).collect();
        let mut info = format!("d6:lengthi{len}e4:name{}:{name}", name.len()).into_bytes();
        info.extend(format!("12:piece lengthi{piece_len}e6:pieces{}:", hashes.len()).bytes());
        info.extend(hashes);
        info.push(b'e');
        Self { info_hash: Sha1::digest(&info).into(), piece_len, bytes: bytes.into(), info: info.into() }
    }

    /// A folder with files of those lengths, named by their place.
    pub fn folder(name: &str, lens: &[usize], piece_len: usize) -> Self {
        let names: Vec<String> = (0..lens.len()).map(|place| format!("f{place:02}")).collect();
        let paths = names.iter().map(|name| vec![&b"d"[..], name.as_bytes()]).zip(lens.iter().copied());
        Self::of_files(name.as_bytes(), &paths.collect::<Vec<_>>(), piece_len)
    }

    /// A folder with files of those paths and lengths, as they stand in the torrent.
    pub fn of_files(name: &[u8], files: &[(Vec<&[u8]>, usize)], piece_len: usize) -> Self {
        let bytes: Vec<u8> = noise(files.iter().map(|(_, len)| len).sum());
        let hashes: Vec<u8> = bytes.chunks(piece_len).flat_map(Sha1::digest).collect();
        let mut info = b"d5:filesl".to_vec();
        for (path, len) in files {
            info.extend(format!("d6:lengthi{len}e4:pathl").bytes());
            for element in path {
                info.extend(format!("{}:", element.len()).bytes());
                info.extend(*element);
            }
            info.extend(b"ee");
        }
        info.extend(format!("e4:name{}:", name.len()).bytes());
        info.extend(name);
        info.extend(format!("12:piece lengthi{piece_len}e").bytes());
        info.extend(format!("6:pieces{}:", hashes.len()).bytes());
        info.extend(hashes);
        info.push(b'e');
        Self { info_hash: Sha1::digest(&info).into(), piece_len, bytes: bytes.into(), info: info.into() }
    }

    fn new(info: &[u8], place: impl Fn(&str, &[String]) -> PathBuf) -> Self {
        let (value, _) = Value::parse(info);
        let read = |path: &Path| fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = value.get("name.utf-8").or_else(|| value.get("name")).expect("it has a name").text();
        let mut bytes = Vec::new();
        for file in value.get("files").map_or(&[][..], Value::list) {
            if file.get("attr").is_some_and(|attr| attr.text().contains('p')) {
                let len = file.get("length").expect("a file has a length").integer();
                bytes.resize(bytes.len() + len as usize, 0);
                continue;
            }
            let path = file.get("path.utf-8").or_else(|| file.get("path")).expect("a file has a path");
            let path: Vec<String> = path.list().iter().map(Value::text).collect();
            bytes.extend(read(&place(&name, &path)));
        }
        if value.get("files").is_none() {
            bytes = read(&place(&name, &[]));
        }
        let piece_len = value.get("piece length").expect("it has a piece length").integer() as usize;
        Self { info_hash: Sha1::digest(info).into(), piece_len, bytes: bytes.into(), info: info.into() }
    }

    /// No content, under a name that stands for these bytes, which may be no info dictionary.
    pub fn of_info(info: &[u8]) -> Self {
        Self { info_hash: Sha1::digest(info).into(), piece_len: 1, bytes: [].into(), info: info.into() }
    }

    /// The same for a torrent whose peers come from its trackers alone (BEP 27).
    pub fn private(&self) -> Self {
        let (_, open) = self.info.split_last().expect("it is a dictionary");
        let info = [open, b"7:privatei1ee"].concat();
        Self { info_hash: Sha1::digest(&info).into(), info: info.into(), ..self.clone() }
    }

    /// The same content under an info dictionary in which this stands instead of that.
    pub fn reworded(&self, that: &str, this: &str) -> Self {
        let info = self.info.to_vec();
        let place = info.windows(that.len()).position(|part| part == that.as_bytes());
        let place = place.unwrap_or_else(|| panic!("{that} is not in the info dictionary"));
        let info = [&info[..place], this.as_bytes(), &info[place + that.len()..]].concat();
        Self { info_hash: Sha1::digest(&info).into(), info: info.into(), ..self.clone() }
    }

    /// The info dictionary.
    pub fn info(&self) -> &[u8] {
        &self.info
    }

    /// How many pieces there are.
    pub fn piece_count(&self) -> usize {
        self.bytes.len().div_ceil(self.piece_len)
    }

    /// The bytes of one piece.
    pub fn piece(&self, index: usize) -> &[u8] {
        let start = index * self.piece_len;
        &self.bytes[start..self.bytes.len().min(start + self.piece_len)]
    }

    /// Writes a torrent file with these trackers, each in a tier of its own, and gives its path.
    pub fn torrent(&self, path: &Path, trackers: &[&str]) -> PathBuf {
        self.torrent_of_tiers(path, &trackers.chunks(1).collect::<Vec<_>>())
    }

    /// The same with these tiers of trackers.
    pub fn torrent_of_tiers(&self, path: &Path, tiers: &[&[&str]]) -> PathBuf {
        let mut bytes = b"d".to_vec();
        if let [[tracker, ..], ..] = tiers {
            bytes.extend(format!("8:announce{}:{tracker}", tracker.len()).bytes());
        }
        if tiers.iter().map(|tier| tier.len()).sum::<usize>() > 1 {
            bytes.extend(b"13:announce-listl");
            for tier in tiers {
                bytes.push(b'l');
                tier.iter().for_each(|tracker| bytes.extend(format!("{}:{tracker}", tracker.len()).bytes()));
                bytes.push(b'e');
            }
            bytes.push(b'e');
        }
        bytes.extend(b"4:info");
        bytes.extend(&*self.info);
        bytes.push(b'e');
        fs::write(path, bytes).expect("the torrent is written");
        path.to_owned()
    }
}

/// The folder of the samples.
pub fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("test_samples")
}

/// The names of the torrents in a folder, sorted, without `.torrent`.
pub fn torrents_in(folder: &Path) -> Vec<String> {
    let names =
        fs::read_dir(folder).expect("the folder of samples is there").map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> =
        names.filter_map(|name| Some(name.to_str()?.strip_suffix(".torrent")?.to_owned())).collect();
    names.sort();
    names
}

/// xorshift64*, always the same.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The bytes of the value of `info`, as they stand in a well-formed torrent.
fn raw_info(torrent: &[u8]) -> &[u8] {
    let mut rest = &torrent[1..];
    loop {
        let (key, behind_key) = Value::parse(rest);
        let (_, behind_value) = Value::parse(behind_key);
        if key.text() == "info" {
            return &behind_key[..behind_key.len() - behind_value.len()];
        }
        rest = behind_value;
    }
}

/// A bencoded value. It panics on malformed input: the torrents it reads are ours.
enum Value {
    Integer(u64),
    Bytes(Vec<u8>),
    List(Vec<Self>),
    Dict(Vec<(Self, Self)>),
}

impl Value {
    fn parse(bytes: &[u8]) -> (Self, &[u8]) {
        match bytes[0] {
            b'i' => {
                let (number, rest) = number_before(&bytes[1..], b'e');
                (Self::Integer(number), rest)
            }
            b'l' => {
                let (mut items, mut rest) = (Vec::new(), &bytes[1..]);
                while rest[0] != b'e' {
                    let (item, behind) = Self::parse(rest);
                    items.push(item);
                    rest = behind;
                }
                (Self::List(items), &rest[1..])
            }
            b'd' => {
                let (mut entries, mut rest) = (Vec::new(), &bytes[1..]);
                while rest[0] != b'e' {
                    let (key, behind) = Self::parse(rest);
                    let (value, behind) = Self::parse(behind);
                    entries.push((key, value));
                    rest = behind;
                }
                (Self::Dict(entries), &rest[1..])
            }
            _ => {
                let (len, rest) = number_before(bytes, b':');
                let (string, rest) = rest.split_at(len as usize);
                (Self::Bytes(string.to_vec()), rest)
            }
        }
    }

    fn get(&self, key: &str) -> Option<&Self> {
        let Self::Dict(entries) = self else { return None };
        entries.iter().find(|(name, _)| name.text() == key).map(|(_, value)| value)
    }

    fn list(&self) -> &[Self] {
        if let Self::List(items) = self { items } else { &[] }
    }

    fn integer(&self) -> u64 {
        if let Self::Integer(number) = self { *number } else { panic!("expected an integer") }
    }

    fn text(&self) -> String {
        let Self::Bytes(bytes) = self else { panic!("expected a string") };
        String::from_utf8_lossy(bytes).into_owned()
    }
}

fn number_before(bytes: &[u8], end: u8) -> (u64, &[u8]) {
    let at = bytes.iter().position(|&byte| byte == end).expect("the number has an end");
    let digits = std::str::from_utf8(&bytes[..at]).expect("digits are text");
    (digits.parse().expect("a number"), &bytes[at + 1..])
}
