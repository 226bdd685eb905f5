//! File names that are safe to create, whoever supplied them.
//!
//! Names come from strangers: a torrent, or a peer that sent the metadata of a magnet link. Nothing here is an
//! error. What could lead out of the output folder, confuse a terminal or be refused by a file system is repaired,
//! always in the same way, so that a second run finds the files of the first:
//!
//! 1. an element that is empty, `.` or `..` is dropped; a path of which nothing is left is `_`;
//! 2. separators, control and bidirectional formatting characters and invalid UTF-8 become `_`;
//! 3. an element longer than its file system takes is cut before its extension;
//! 4. a path that another file or folder has already gets a number before its extension ([`Tree`]).
//!
//! What a file system takes are its [`Rules`]. The names of a torrent follow those of Linux, and others only where the
//! output lies on such a file system.

use std::collections::HashMap;
use std::path::PathBuf;

/// Bytes of one element of a path: what Linux takes, and so what is complete under its true name.
pub const ELEMENT_LEN_MAX: usize = 255;

/// Bytes of one element on eCryptfs, which needs the rest for the encryption of the name.
const ECRYPTFS_LEN_MAX: usize = 143;

/// Bytes of an extension, with its dot, that survive when an element is cut; a longer one is no extension.
const EXTENSION_LEN_MAX: usize = 16;

/// As long as the longest suffix of a name that was taken: a torrent has fewer paths than that has digits.
const LONGEST_NUMBER: &str = ".4294967295";

/// What the names of this program's own files in an output folder start with, such as the resume record. No file of
/// a torrent is given such a name.
pub const RESERVED_PREFIX: &str = ".ringtide";

/// Which names a file system takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Rules {
    /// Any of [`ELEMENT_LEN_MAX`] bytes.
    #[default]
    Linux,
    /// Those of exFAT, FAT, NTFS and network shares of Windows: no `<>:"|?*`, no dot or space at the end, no name of
    /// a device, and letters of different case are the same.
    Windows,
    /// Those of eCryptfs, which are shorter.
    Ecryptfs,
}

impl Rules {
    /// The form of one element of a path that is safe and that the file system takes; `None` for an element that names
    /// no file: empty, `.` or `..`.
    pub fn element(self, bytes: &[u8]) -> Option<String> {
        if matches!(bytes, b"" | b"." | b"..") {
            return None;
        }
        let replaced = |char: char| if is_unsafe(char) || self.refuses(char) { '_' } else { char };
        let mut name = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            name.extend(chunk.valid().chars().map(replaced));
            name.extend(chunk.invalid().iter().map(|_| '_'));
        }
        if name.starts_with(RESERVED_PREFIX) {
            name.replace_range(..1, "_");
        }
        if self == Self::Windows && is_device(&name) {
            name.insert(0, '_');
        }
        Some(self.fit(&name, ""))
    }

    /// Whether a name cannot have a character that is safe.
    fn refuses(self, char: char) -> bool {
        self == Self::Windows && REFUSED_BY_WINDOWS.contains(char)
    }

    const fn len_max(self) -> usize {
        match self {
            Self::Linux | Self::Windows => ELEMENT_LEN_MAX,
            Self::Ecryptfs => ECRYPTFS_LEN_MAX,
        }
    }

    /// A name with `suffix` before its extension, cut before both to what the file system takes.
    fn fit(self, name: &str, suffix: &str) -> String {
        let (stem, extension) = split_extension(name);
        let room = self.len_max() - extension.len() - suffix.len();
        let mut cut = stem.len().min(room);
        while !stem.is_char_boundary(cut) {
            cut -= 1;
        }
        let mut fitting = [&stem[..cut], suffix, extension].concat();
        if self == Self::Windows && fitting.ends_with(['.', ' ']) {
            fitting.pop();
            fitting.push('_');
        }
        fitting
    }

    /// What two names have in common that the file system takes for the same.
    fn folded(self, name: &str) -> String {
        if self == Self::Windows { name.to_lowercase() } else { name.to_owned() }
    }
}

/// The characters that exFAT, FAT, NTFS and Windows' shares refuse, beside separators and control characters.
pub const REFUSED_BY_WINDOWS: &str = "<>:\"|?*";

/// Whether Windows takes a name for a device, whatever its extension.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT"));
    matches!(&*stem, "CON" | "PRN" | "AUX" | "NUL")
        || numbered.is_some_and(|number| matches!(number.as_bytes(), [b'1'..=b'9']))
}

/// The safe form of one element of a path on Linux: see [`Rules::element`].
pub fn element(bytes: &[u8]) -> Option<String> {
    Rules::Linux.element(bytes)
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

/// A name as its stem, which is not empty, and its extension with the dot, which may be.
fn split_extension(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= EXTENSION_LEN_MAX => name.split_at(dot),
        _ => (name, ""),
    }
}

/// The paths of one torrent, each made safe and distinct from those before it.
///
/// Memory grows with the elements that were added, not with the length of the paths they make: folders are numbers.
#[derive(Debug, Default)]
pub struct Tree {
    rules: Rules,
    /// What has which name, [`Rules::folded`], in which folder. Folder 0 is the output folder.
    taken: HashMap<(u32, String), Entry>,
    /// The next number to try in a folder for a name that is taken, so that many of them stay cheap. Names stand here
    /// with [`LONGEST_NUMBER`]: long ones that differ only in what it cuts off compete for the same numbers.
    next: HashMap<(u32, String), u32>,
    folder_count: u32,
}

#[derive(Debug, Default)]
struct Entry {
    /// Of a folder, its number and its name; of a file that was used as a folder, those of the folder that stands in
    /// for it.
    folder: Option<(u32, String)>,
}

impl Tree {
    /// An output folder without files.
    pub fn new() -> Self {
        Self::default()
    }

    /// An output folder without files, on a file system with these rules.
    pub fn with_rules(rules: Rules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Adds a file and returns its path, which is relative and has only ordinary elements.
    pub fn add<'a>(&mut self, elements: impl IntoIterator<Item = &'a [u8]>) -> PathBuf {
        let mut elements: Vec<String> =
            elements.into_iter().filter_map(|bytes| self.rules.element(bytes)).collect();
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
        match self.taken.get(&self.key(parent, &name)) {
            None => self.new_folder(parent, name),
            Some(Entry { folder: Some(folder) }) => folder.clone(),
            Some(_) => {
                let free = self.free_name(parent, &name);
                let folder = self.new_folder(parent, free);
                let entry = Entry { folder: Some(folder.clone()) };
                self.taken.insert(self.key(parent, &name), entry);
                folder
            }
        }
    }

    fn new_folder(&mut self, parent: u32, name: String) -> (u32, String) {
        self.folder_count += 1;
        let (key, folder) = (self.key(parent, &name), (self.folder_count, name));
        self.taken.insert(key, Entry { folder: Some(folder.clone()) });
        folder
    }

    fn file(&mut self, parent: u32, name: String) -> String {
        let taken = self.taken.contains_key(&self.key(parent, &name));
        let name = if taken { self.free_name(parent, &name) } else { name };
        self.taken.insert(self.key(parent, &name), Entry::default());
        name
    }

    /// The first free one of `name.1.ext`, `name.2.ext` and so on.
    fn free_name(&mut self, parent: u32, name: &str) -> String {
        let count = self.key(parent, &self.rules.fit(name, LONGEST_NUMBER));
        let mut number = self.next.get(&count).copied().unwrap_or(1);
        loop {
            let candidate = self.rules.fit(name, &format!(".{number}"));
            number += 1;
            if !self.taken.contains_key(&self.key(parent, &candidate)) {
                self.next.insert(count, number);
                return candidate;
            }
        }
    }

    fn key(&self, parent: u32, name: &str) -> (u32, String) {
        (parent, self.rules.folded(name))
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
        assert_eq!(cut, format!("{}.gz", "日".repeat(84)));
        assert!(cut.len() <= ELEMENT_LEN_MAX);
        let no_extension = element(format!("a.{}", "b".repeat(300)).as_bytes()).unwrap();
        assert_eq!(no_extension, format!("a.{}", "b".repeat(253)));
        for len in [1, 240, 241, 254, 255] {
            let whole = "n".repeat(len);
            assert_eq!(element(whole.as_bytes()), Some(whole), "{len} bytes fit");
        }
    }

    #[test]
    fn other_file_systems_take_fewer_names() {
        for (name, expected) in [
            ("plain.txt", "plain.txt"),
            ("What? 1<2: \"a|b\" *.txt", "What_ 1_2_ _a_b_ _.txt"),
            ("dots...", "dots.._"),
            ("space ", "space_"),
            ("con", "_con"),
            ("LPT9.tar.gz", "_LPT9.tar.gz"),
            ("COM0", "COM0"),
            ("console", "console"),
            ("aux .txt", "_aux .txt"),
        ] {
            assert_eq!(Rules::Windows.element(name.as_bytes()).as_deref(), Some(expected), "{name}");
            assert_eq!(element(name.as_bytes()).as_deref(), Some(name));
        }
        let cut = format!("{} {}", "n".repeat(254), "n".repeat(50));
        assert_eq!(Rules::Windows.element(cut.as_bytes()), Some(format!("{}_", "n".repeat(254))));
        let long = format!("{}.txt", "é".repeat(120));
        assert_eq!(Rules::Ecryptfs.element(long.as_bytes()), Some(format!("{}.txt", "é".repeat(69))));
    }

    #[test]
    fn names_that_a_file_system_takes_for_the_same_are_numbered() {
        let mut tree = Tree::with_rules(Rules::Windows);
        let files: [&[&str]; 7] =
            [&["a?.txt"], &["A:.txt"], &["a_.txt"], &["D", "x"], &["d", "X"], &["É"], &["é", "y"]];
        let paths = files.map(|file| tree.add(file.iter().map(|part| part.as_bytes())));
        let paths = paths.map(|path| path.into_os_string().into_string().unwrap());
        assert_eq!(paths, ["a_.txt", "A_.1.txt", "a_.2.txt", "D/x", "D/X.1", "É", "é.1/y"]);
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
        assert_eq!(cut, ["n".repeat(255), format!("{}.1", "n".repeat(253))]);
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
            let names = (0..100_000).map(|index| format!("{}{index:06}", "n".repeat(249)));
            names.map(|name| tree.add([name.as_bytes()])).last()
        };
        add_all(&mut tree);
        let expected = format!("{}.100000", "n".repeat(248));
        assert_eq!(add_all(&mut tree), Some(PathBuf::from(expected)));
    }

    proptest! {
        #[test]
        fn any_paths_become_ordinary_and_distinct(
            files in prop::collection::vec(
                prop::collection::vec("(\\.{0,3}|[abAB/\\\\.?]{0,3}|a|a\\.1|\\PC{0,90})", 0..4), 0..40),
            rules in prop::sample::select(&[Rules::Linux, Rules::Windows, Rules::Ecryptfs][..]),
        ) {
            let mut tree = Tree::with_rules(rules);
            let mut seen = std::collections::HashSet::new();
            let mut folders = std::collections::HashSet::new();
            for file in &files {
                let path = tree.add(file.iter().map(String::as_bytes));
                for part in path.components() {
                    let std::path::Component::Normal(part) = part else { panic!("{path:?}") };
                    prop_assert!(part.len() <= rules.len_max());
                    let part = part.to_str().unwrap();
                    let again = rules.element(part.as_bytes());
                    prop_assert_eq!(again.as_deref(), Some(part));
                }
                let path = PathBuf::from(rules.folded(path.to_str().unwrap()));
                folders.extend(path.ancestors().skip(1).map(PathBuf::from));
                prop_assert!(seen.insert(path.clone()), "{:?} twice", path);
            }
            prop_assert!(seen.is_disjoint(&folders));
        }
    }
}
