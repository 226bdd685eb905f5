//! File names that are safe to create, whoever supplied them.
//!
//! Names come from strangers: a torrent, or a peer that sent the metadata of a magnet link. Nothing here is an
//! error. What could lead out of the output folder, confuse a terminal or be refused by a file system is repaired,
//! always in the same way, so that a second run finds the files of the first:
//!
//! 1. an element that is empty, `.` or `..` is dropped; a path of which nothing is left is `_`;
//! 2. separators, control and bidirectional formatting characters and invalid UTF-8 become `_`;
//! 3. an element longer than [`ELEMENT_LEN_MAX`] is cut before its extension;
//! 4. a path that another file or folder has already gets a number before its extension ([`Tree`]).

use std::collections::HashMap;
use std::path::PathBuf;

/// Bytes of one element of a path. File systems take 255; the rest is for whoever appends a suffix.
pub const ELEMENT_LEN_MAX: usize = 240;

/// Bytes of an extension, with its dot, that survive when an element is cut; a longer one is no extension.
const EXTENSION_LEN_MAX: usize = 16;

/// As long as the longest suffix of a name that was taken: a torrent has fewer paths than that has digits.
const LONGEST_NUMBER: &str = ".4294967295";

/// What the names of this program's own files in an output folder start with, such as the resume record. No file of
/// a torrent is given such a name.
pub const RESERVED_PREFIX: &str = ".ringtide";

/// The safe form of one element of a path; `None` for an element that names no file: empty, `.` or `..`.
pub fn element(bytes: &[u8]) -> Option<String> {
    if matches!(bytes, b"" | b"." | b"..") {
        return None;
    }
    let mut name = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        name.extend(chunk.valid().chars().map(|char| if is_unsafe(char) { '_' } else { char }));
        name.extend(chunk.invalid().iter().map(|_| '_'));
    }
    if name.starts_with(RESERVED_PREFIX) {
        name.replace_range(..1, "_");
    }
    Some(fit(&name, ""))
}

/// Whether a character is a separator on some system, or no part of a text that a stranger may have shown.
fn is_unsafe(char: char) -> bool {
    matches!(char, '/' | '\\') || acts_on_text(char)
}

/// Whether a character acts on a terminal or on the order of the text around it.
pub fn acts_on_text(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}')
        || matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A name with `suffix` before its extension, cut before both to [`ELEMENT_LEN_MAX`].
fn fit(name: &str, suffix: &str) -> String {
    let (stem, extension) = split_extension(name);
    let room = ELEMENT_LEN_MAX - extension.len() - suffix.len();
    let mut cut = stem.len().min(room);
    while !stem.is_char_boundary(cut) {
        cut -= 1;
    }
    [&stem[..cut], suffix, extension].concat()
}

/// A name as its stem, which is not empty, and its extension with the dot, which may be.
fn split_extension(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= EXTENSION_LEN_MAX => name.split_at(dot),
        _ => (name, ""),
    }
}

/// The paths of one torrent, each made safe and distinct from those before it. Letters of different case are
/// different, as they are on Linux.
///
/// Memory grows with the elements that were added, not with the length of the paths they make: folders are numbers.
#[derive(Debug, Default)]
pub struct Tree {
    /// What has which name in which folder. Folder 0 is the output folder.
    taken: HashMap<(u32, String), Entry>,
    /// The next number to try in a folder for a name that is taken, so that many of them stay cheap. Names stand here
    /// with [`LONGEST_NUMBER`]: long ones that differ only in what it cuts off compete for the same numbers.
    next: HashMap<(u32, String), u32>,
    folder_count: u32,
}

#[derive(Debug)]
struct Entry {
    /// Its number, if it is a folder.
    folder: Option<u32>,
    /// If it is a file, the folder that stands in for it where it was used as one.
    stand_in: Option<u32>,
    /// The name of `stand_in`.
    stand_in_name: String,
}

impl Entry {
    fn new(folder: Option<u32>) -> Self {
        Self { folder, stand_in: None, stand_in_name: String::new() }
    }
}

impl Tree {
    /// An output folder without files.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file and returns its path, which is relative and has only ordinary elements.
    pub fn add<'a>(&mut self, elements: impl IntoIterator<Item = &'a [u8]>) -> PathBuf {
        let mut elements: Vec<String> = elements.into_iter().filter_map(element).collect();
        let file = elements.pop().unwrap_or_else(|| "_".to_owned());
        let mut path = PathBuf::new();
        let mut parent = 0;
        for name in elements {
            let (folder, name) = self.folder(parent, name);
            parent = folder;
            path.push(name);
        }
        path.push(self.file(parent, file));
        path
    }

    /// The folder of that name, or the one that stands in for it where a file has the name.
    fn folder(&mut self, parent: u32, name: String) -> (u32, String) {
        match self.taken.get(&(parent, name.clone())) {
            None => {
                let folder = self.new_folder(parent, name.clone());
                (folder, name)
            }
            Some(Entry { folder: Some(folder), .. }) => (*folder, name),
            Some(Entry { stand_in: Some(folder), stand_in_name, .. }) => (*folder, stand_in_name.clone()),
            Some(_) => {
                let free = self.free_name(parent, &name);
                let folder = self.new_folder(parent, free.clone());
                if let Some(entry) = self.taken.get_mut(&(parent, name)) {
                    entry.stand_in = Some(folder);
                    entry.stand_in_name.clone_from(&free);
                }
                (folder, free)
            }
        }
    }

    fn new_folder(&mut self, parent: u32, name: String) -> u32 {
        self.folder_count += 1;
        self.taken.insert((parent, name), Entry::new(Some(self.folder_count)));
        self.folder_count
    }

    fn file(&mut self, parent: u32, name: String) -> String {
        let taken = self.taken.contains_key(&(parent, name.clone()));
        let name = if taken { self.free_name(parent, &name) } else { name };
        self.taken.insert((parent, name.clone()), Entry::new(None));
        name
    }

    /// The first free one of `name.1.ext`, `name.2.ext` and so on.
    fn free_name(&mut self, parent: u32, name: &str) -> String {
        let next = self.next.entry((parent, fit(name, LONGEST_NUMBER))).or_insert(1);
        loop {
            let candidate = fit(name, &format!(".{next}"));
            *next += 1;
            if !self.taken.contains_key(&(parent, candidate.clone())) {
                return candidate;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn paths(files: &[&[&str]]) -> Vec<String> {
        let mut tree = Tree::new();
        let add = |file: &&[&str]| tree.add(file.iter().map(|element| element.as_bytes()));
        files.iter().map(add).map(|path| path.into_os_string().into_string().unwrap()).collect()
    }

    #[test]
    fn no_element_leads_anywhere() {
        for (bytes, expected) in [
            (&b"plain.txt"[..], Some("plain.txt")),
            (b"", None),
            (b".", None),
            (b"..", None),
            (b"...", Some("...")),
            (b"/etc/passwd", Some("_etc_passwd")),
            (b"..\\..\\x", Some(".._.._x")),
            (b"a\0b\nc\x1b[31m\x7f", Some("a_b_c_[31m_")),
            ("evil\u{202e}gpj.exe\u{85}".as_bytes(), Some("evil_gpj.exe_")),
            (b"caf\xe9 \xff\xfe", Some("caf_ __")),
            ("café 日本".as_bytes(), Some("café 日本")),
            (b".ringtide-resume", Some("_ringtide-resume")),
        ] {
            assert_eq!(element(bytes).as_deref(), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn long_elements_are_cut_before_the_extension() {
        let cut = element(format!("{}.tar.gz", "日".repeat(100)).as_bytes()).unwrap();
        assert_eq!(cut, format!("{}.gz", "日".repeat(79)));
        assert!(cut.len() <= ELEMENT_LEN_MAX);
        let no_extension = element(format!("a.{}", "b".repeat(300)).as_bytes()).unwrap();
        assert_eq!(no_extension, format!("a.{}", "b".repeat(238)));
    }

    #[test]
    fn collisions_are_numbered() {
        assert_eq!(
            paths(&[&["a.txt"], &["A.txt"], &["a.txt"], &["a.1.txt"], &["a.txt"]]),
            ["a.txt", "A.txt", "a.1.txt", "a.1.1.txt", "a.2.txt"]
        );
        assert_eq!(paths(&[&["x"], &["x", "1"], &["x", "2"], &["x.1"]]), ["x", "x.1/1", "x.1/2", "x.1.1"]);
        assert_eq!(paths(&[&["d", "f"], &["d"], &["d", "f"]]), ["d/f", "d.1", "d/f.1"]);
        assert_eq!(paths(&[&[".."], &[], &["", "."]]), ["_", "_.1", "_.2"]);
        let long = "n".repeat(300);
        let cut = paths(&[&[&long], &[&long]]);
        assert_eq!(cut, ["n".repeat(240), format!("{}.1", "n".repeat(238))]);
    }

    #[test]
    fn many_collisions_stay_cheap() {
        let mut tree = Tree::new();
        for _ in 0..200_000 {
            tree.add([&b"same"[..]]);
        }
        assert_eq!(tree.add([&b"same"[..]]), PathBuf::from("same.200000"));
        // Names that differ only where the number cuts them off: each would try the numbers of all others.
        let mut tree = Tree::new();
        let add_all = |tree: &mut Tree| {
            let names = (0..100_000).map(|index| format!("{}{index:06}", "n".repeat(234)));
            names.map(|name| tree.add([name.as_bytes()])).last()
        };
        add_all(&mut tree);
        let expected = format!("{}.100000", "n".repeat(233));
        assert_eq!(add_all(&mut tree), Some(PathBuf::from(expected)));
    }

    proptest! {
        #[test]
        fn any_paths_become_ordinary_and_distinct(
            files in prop::collection::vec(
                prop::collection::vec("(\\.{0,3}|[ab/\\\\.]{0,3}|a|a\\.1|\\PC{0,90})", 0..4), 0..40)
        ) {
            let mut tree = Tree::new();
            let mut seen = std::collections::HashSet::new();
            let mut folders = std::collections::HashSet::new();
            for file in &files {
                let path = tree.add(file.iter().map(String::as_bytes));
                for part in path.components() {
                    let std::path::Component::Normal(part) = part else { panic!("{path:?}") };
                    prop_assert!(part.len() <= ELEMENT_LEN_MAX);
                }
                folders.extend(path.ancestors().skip(1).map(PathBuf::from));
                prop_assert!(seen.insert(path.clone()), "{:?} twice", path);
            }
            prop_assert!(seen.is_disjoint(&folders));
        }
    }
}
