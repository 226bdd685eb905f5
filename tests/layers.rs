//! The architecture as a test: which part of the crate may import which, what the pure parts may not touch, and where
//! `unsafe` may stand.
#![expect(clippy::unwrap_used, reason = "a test ends where its sources cannot be read")]

use std::fs;
use std::path::{Path, PathBuf};

/// Each part of the crate and the parts it may import.
const ARROWS: &[(&str, &[&str])] = &[
    ("os", &[]),
    ("meta", &[]),
    ("hash", &["os"]),
    ("wire", &["meta"]),
    ("disk", &["os", "meta"]),
    ("swarm", &["meta", "wire"]),
    ("discovery", &["os", "meta"]),
    ("net", &["os", "meta", "wire", "swarm", "hash", "disk"]),
    ("error", &["meta", "disk", "net"]),
    ("download", &["os", "meta", "wire", "swarm", "hash", "disk", "net", "discovery", "error"]),
    ("cli", &["os", "meta", "wire", "hash", "disk", "net", "discovery", "download", "error"]),
];

/// The parts that know no socket, file, clock, thread or random source.
const PURE: &[&str] = &["meta", "wire", "swarm"];

/// What only those know that are not pure.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::io",
    "std::thread",
    "std::env",
    "std::process",
    "Instant::now",
    "SystemTime",
    "TcpStream",
    "UdpSocket",
    "RandomState",
    "tokio",
    "io_uring",
    "libc",
    "socket2",
];

/// The files in which `unsafe` may stand.
const UNSAFE: &[&str] = &[
    "src/disk/guard.rs",
    "src/disk/map.rs",
    "src/disk/output.rs",
    "src/disk/sys.rs",
    "src/hash/x86/avx2.rs",
    "src/hash/x86/avx512.rs",
    "src/hash/x86/mod.rs",
    "src/hash/x86/shani.rs",
    "src/net/scatter.rs",
    "src/os/limits.rs",
    "src/os/signals.rs",
    "src/os/user.rs",
];

/// A source file: its path from the root of the crate, and its lines without comments and unit tests.
struct Source {
    path: String,
    lines: Vec<String>,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        // The unit tests end with the first brace at the start of a line; what is behind them counts again.
        let mut in_tests = false;
        let strip = |line: &str| {
            in_tests |= line == "mod tests {";
            let code = if in_tests { "" } else { line.split("//").next().unwrap_or_default() };
            in_tests &= line != "}";
            code.to_owned()
        };
        Self { path: path.to_owned(), lines: text.lines().map(strip).collect() }
    }

    /// The part of the crate it belongs to: `meta` for `src/meta/geometry.rs`, `error` for `src/error.rs`.
    fn part(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap();
        inside.split(['/', '.']).next().unwrap()
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src")];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                sources.push(Source::new(&name, &fs::read_to_string(path).unwrap()));
            }
        }
    }
    assert!(sources.len() > 20, "the sources were not found");
    sources
}

/// Unit tests of a folder may stand in files of their own; what they import is no part of the architecture.
fn is_test(source: &Source) -> bool {
    source.path.ends_with("/tests.rs") || source.path.contains("/tests/")
}

fn wrong_arrows(source: &Source) -> Vec<String> {
    let part = source.part();
    if matches!(part, "lib" | "main") || is_test(source) {
        return Vec::new();
    }
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == part) else {
        return vec![format!("{}: the part '{part}' has no entry in ARROWS", source.path)];
    };
    let mut wrong = Vec::new();
    for (number, line) in source.lines.iter().enumerate() {
        for rest in line.split("crate::").skip(1) {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let target = &rest[..end];
            if target != part && !allowed.contains(&target) {
                wrong.push(format!("{}:{}: '{part}' must not import '{target}'", source.path, number + 1));
            }
        }
    }
    wrong
}

fn impurities(source: &Source) -> Vec<String> {
    if !PURE.contains(&source.part()) || is_test(source) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (number, line) in source.lines.iter().enumerate() {
        for word in IMPURE.iter().filter(|word| line.contains(**word)) {
            found.push(format!("{}:{}: '{word}' in a pure part", source.path, number + 1));
        }
    }
    found
}

fn has_unsafe(source: &Source) -> bool {
    source.lines.iter().any(|line| {
        let words = |c: char| !c.is_alphanumeric() && c != '_';
        line.split(words).any(|word| word == "unsafe")
    })
}

#[test]
fn imports_follow_the_arrows() {
    let wrong: Vec<String> = sources().iter().flat_map(wrong_arrows).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_pure_parts_are_pure() {
    let found: Vec<String> = sources().iter().flat_map(impurities).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn unsafe_stands_only_where_it_may() {
    for source in sources() {
        let listed = UNSAFE.contains(&source.path.as_str());
        assert!(listed || !has_unsafe(&source), "{} has unsafe code and is not listed", source.path);
    }
}

#[test]
fn a_wrong_import_is_found() {
    let source = |path, text| Source::new(path, text);
    let wrong = wrong_arrows(&source("src/swarm/picker.rs", "use crate::meta::x;\nuse crate::net::core;\n"));
    assert_eq!(wrong, ["src/swarm/picker.rs:2: 'swarm' must not import 'net'"]);
    assert_eq!(wrong_arrows(&source("src/meta/x.rs", "fn f() { crate::disk::y() }")).len(), 1);
    assert_eq!(wrong_arrows(&source("src/new/x.rs", "")).len(), 1);
    let tests = "#[cfg(test)]\nmod tests {\n    use crate::net::x;\n}\n";
    assert_eq!(wrong_arrows(&source("src/meta/x.rs", tests)).len(), 0);
    let behind = format!("{tests}use crate::net::y;\n");
    assert_eq!(wrong_arrows(&source("src/meta/x.rs", &behind)).len(), 1);
    assert_eq!(wrong_arrows(&source("src/net/x.rs", "use crate::disk::Output;")).len(), 0);
    assert_eq!(impurities(&source("src/wire/x.rs", "use std::fs::File;")).len(), 1);
    assert_eq!(impurities(&source("src/wire/x.rs", "// std::fs is not for us")).len(), 0);
    assert!(has_unsafe(&source("src/x.rs", "unsafe { f() }")));
    assert!(!has_unsafe(&source("src/x.rs", "fn not_unsafe() {}")));
}
