//! Metainfo: whatever is accepted must be what the code behind the parser relies on.
#![no_main]

use std::collections::HashSet;
use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use ringtide::meta::bencode::{Limits, parse_prefix};
use ringtide::meta::inflate::is_gzip;
use ringtide::meta::names::{self, Rules};
use ringtide::meta::torrent::{InfoHash, Metainfo, TRACKERS_MAX, URL_LEN_MAX};

fuzz_target!(|bytes: &[u8]| {
    let metainfo = match Metainfo::parse(bytes) {
        Ok(metainfo) => metainfo,
        Err(error) => {
            let line = error.to_string();
            assert!(!line.is_empty() && !line.contains(char::is_control), "{line:?}");
            return;
        }
    };
    check_pieces(&metainfo);
    check_files(&metainfo);
    check_trackers(&metainfo);
    for rules in [Rules::Windows, Rules::Ecryptfs] {
        let paths = metainfo.paths(rules);
        assert_eq!(paths.len(), metainfo.files.len());
        let written = paths.iter().zip(&metainfo.files).filter(|(_, file)| !file.pad).map(|(path, _)| path);
        let distinct: HashSet<_> = written.clone().map(|path| path.to_str().map(str::to_lowercase)).collect();
        assert!(distinct.len() == written.clone().count() || rules != Rules::Windows);
        assert!(written.clone().all(|path| is_safe(path)));
    }

    if is_gzip(bytes) {
        return;
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let (document, _) = parse_prefix(text, Limits::METAINFO).expect("it was parsed before");
    let root = document.root();
    let info = root.get("info").expect("it was found before").raw();
    assert_eq!(metainfo.info_hash, InfoHash::of(info));
    if root.get("encoding").is_some() || root.get("codepage").is_some() {
        return;
    }
    // As a peer would send it (BEP 9): the same but for what stands outside.
    let mut alone = Metainfo::from_info(info).expect("it was accepted before");
    alone.announce.clone_from(&metainfo.announce);
    alone.tiers.clone_from(&metainfo.tiers);
    alone.nodes.clone_from(&metainfo.nodes);
    alone.web_seeds.clone_from(&metainfo.web_seeds);
    assert_eq!(alone, metainfo);
});

fn check_pieces(metainfo: &Metainfo) {
    let geometry = metainfo.geometry;
    assert_eq!(metainfo.piece_hashes().len(), geometry.piece_count() as usize);
    let Some(last) = geometry.pieces().next_back() else {
        return assert_eq!(geometry.total_len(), 0);
    };
    let end = geometry.piece_offset(last) + u64::from(geometry.piece_size(last));
    assert_eq!(end, geometry.total_len());
    let block = geometry.block(last, geometry.block_count(last) - 1);
    assert_eq!(block.begin + block.len, geometry.piece_size(last));
}

fn check_files(metainfo: &Metainfo) {
    assert!(!metainfo.files.is_empty());
    assert!(is_safe(Path::new(&metainfo.name)));
    assert_eq!(Path::new(&metainfo.name).components().count(), 1);
    let (mut offset, mut paths) = (0u64, HashSet::new());
    for file in &metainfo.files {
        assert_eq!(file.offset, offset);
        offset = offset.checked_add(file.len).expect("the sum was checked");
        assert!(is_safe(&file.path), "{:?}", file.path);
        assert!(file.pad || paths.insert(&file.path), "{:?} twice", file.path);
    }
    assert_eq!(offset, metainfo.geometry.total_len());
    let mut folders = paths.iter().flat_map(|path| path.ancestors().skip(1));
    assert!(!folders.any(|folder| paths.contains(&folder.to_path_buf())), "a file is a folder, too");
}

/// Relative, of ordinary elements that stay as they are when they are made safe again.
fn is_safe(path: &Path) -> bool {
    let is_safe = |part: Component<'_>| match part {
        Component::Normal(name) => {
            let name = name.to_str().expect("a name is UTF-8");
            names::element(name.as_bytes()).as_deref() == Some(name)
        }
        _ => false,
    };
    path.components().next().is_some() && path.components().all(is_safe)
}

fn check_trackers(metainfo: &Metainfo) {
    let urls: Vec<&String> = metainfo.tiers.iter().flatten().chain(&metainfo.announce).collect();
    assert!(urls.len() <= TRACKERS_MAX + 1 && metainfo.tiers.iter().all(|tier| !tier.is_empty()));
    for url in urls {
        assert!(!url.is_empty() && url.len() <= URL_LEN_MAX && !url.contains(char::is_control), "{url:?}");
    }
}
