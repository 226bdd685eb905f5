//! What is printed of a torrent: the lines of the course, a summary for people, the files, or JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::progress::units::bytes;
use crate::meta::about::{About, date};
use crate::meta::hex;
use crate::meta::link::magnet_link;
use crate::meta::text::escape;
use crate::meta::torrent::{FileEntry, Metainfo};

/// The lines that the course prescribes, and the files where there are several.
pub(super) fn lines(metainfo: &Metainfo) -> String {
    let geometry = metainfo.geometry;
    let announce = metainfo.announce.as_deref().or_else(|| Some(metainfo.tiers.first()?.first()?.as_str()));
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "Tracker URL: {}", escape(announce.unwrap_or("none")));
    let _ = writeln!(text, "Length: {}", geometry.total_len());
    let _ = writeln!(text, "Info Hash: {}", metainfo.info_hash);
    let _ = writeln!(text, "Piece Length: {}", geometry.piece_len());
    text.push_str("Piece Hashes:\n");
    for piece in geometry.pieces() {
        let _ = writeln!(text, "{}", hex(metainfo.piece_hash(piece)));
    }
    if !metainfo.is_single_file {
        text.push_str("Files:\n");
        for (_, file) in numbered(metainfo) {
            let _ = writeln!(text, "{} {}", file.len, escape(&file.path.to_string_lossy()));
        }
    }
    text
}

/// The torrent at a glance.
pub(super) fn summary(metainfo: &Metainfo, about: &About) -> String {
    let geometry = metainfo.geometry;
    let mut text = String::new();
    let mut field = |name: &str, values: Vec<String>| {
        let mut label = format!("{name}:");
        for value in if values.is_empty() { vec!["none".to_owned()] } else { values } {
            let _ = writeln!(text, "{label:LABEL_WIDTH$}{}", escape(&value));
            label.clear();
        }
    };
    let size = |len: u64| match len {
        0..1024 => format!("{len} bytes"),
        _ => format!("{} ({len} bytes)", bytes(len as f64)),
    };
    let files = match numbered(metainfo).count() {
        1 => "1 file".to_owned(),
        count => format!("{count} files"),
    };
    let pieces = match geometry.piece_count() {
        1 => format!("1 of {}", size(u64::from(geometry.piece_len()))),
        count => format!("{count} of {}", size(u64::from(geometry.piece_len()))),
    };
    let tier = |(tier, urls): (usize, &Vec<String>)| format!("tier {}: {}", tier + 1, urls.join(", "));
    field("Name", vec![metainfo.name.clone()]);
    field("Size", vec![format!("{} in {files}", size(geometry.total_len()))]);
    field("Pieces", vec![pieces]);
    field("Info hash", vec![metainfo.info_hash.to_string()]);
    field("Private", vec![if metainfo.private { "yes" } else { "no" }.to_owned()]);
    field("Trackers", metainfo.tiers.iter().enumerate().map(tier).collect());
    field("Web seeds", metainfo.web_seeds.clone());
    field("DHT nodes", metainfo.nodes.iter().map(ToString::to_string).collect());
    for (name, value) in [
        ("Comment", about.comment.clone()),
        ("Created by", about.created_by.clone()),
        ("Created", about.created.map(date)),
    ] {
        if let Some(value) = value {
            field(name, vec![value]);
        }
    }
    field("Magnet link", vec![magnet_link(metainfo)]);
    text
}

/// Columns before the values of a summary.
const LABEL_WIDTH: usize = 13;

/// The files with their numbers, which count from 1, and their sizes.
pub(super) fn files(metainfo: &Metainfo) -> String {
    let digits = metainfo.files.len().to_string().len();
    let mut text = String::new();
    for (number, file) in numbered(metainfo) {
        let (len, path) = (bytes(file.len as f64), file.path.to_string_lossy());
        let _ = writeln!(text, "{number:>digits$}  {len:>SIZE_WIDTH$}  {}", escape(&path));
    }
    text
}

/// Columns of a size for people, such as `1023.9 KiB`.
const SIZE_WIDTH: usize = 10;

/// All that is known, for scripts.
pub(super) fn object(metainfo: &Metainfo, about: &About) -> Value {
    let geometry = metainfo.geometry;
    let file = |(number, file): (usize, &FileEntry)| {
        json!({
            "number": number,
            "path": file.path.to_string_lossy(),
            "bytes": file.len,
            "offset": file.offset,
        })
    };
    json!({
        "name": metainfo.name,
        "info_hash": metainfo.info_hash.to_string(),
        "bytes": geometry.total_len(),
        "piece_bytes": geometry.piece_len(),
        "piece_count": geometry.piece_count(),
        "piece_hashes": geometry.pieces().map(|piece| hex(metainfo.piece_hash(piece)).to_string()).collect::<Vec<_>>(),
        "is_single_file": metainfo.is_single_file,
        "files": numbered(metainfo).map(file).collect::<Vec<_>>(),
        "private": metainfo.private,
        "trackers": metainfo.tiers,
        "web_seeds": metainfo.web_seeds,
        "dht_nodes": metainfo.nodes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "comment": about.comment,
        "created_by": about.created_by,
        "created": about.created,
        "magnet": magnet_link(metainfo),
    })
}

/// The files by their places in the torrent, from 1, without pads.
fn numbered(metainfo: &Metainfo) -> impl Iterator<Item = (usize, &FileEntry)> {
    (1..).zip(&metainfo.files).filter(|(_, file)| !file.pad)
}
