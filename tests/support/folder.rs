//! What lies in a folder, to compare before with after.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Everything below a folder: the bytes of files, `None` for folders and what is neither.
pub type Listing = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// Lists `folder` with all that is below it, as paths relative to it.
pub fn list(folder: &Path) -> Listing {
    let mut listing = Listing::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let entries = fs::read_dir(&next).unwrap_or_else(|error| panic!("{}: {error}", next.display()));
        for entry in entries {
            let entry = entry.expect("the folder can be read");
            let kind = entry.file_type().expect("an entry has a type");
            let name = entry.path().strip_prefix(folder).expect("it lies below").to_owned();
            let bytes = kind.is_file().then(|| fs::read(entry.path()).expect("the file can be read"));
            listing.insert(name, bytes);
            if kind.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    listing
}

/// The paths of a listing, for messages: the bytes would fill the screen.
pub fn names(listing: &Listing) -> Vec<String> {
    listing
        .iter()
        .map(|(path, bytes)| match bytes {
            Some(bytes) => format!("{} ({} bytes)", path.display(), bytes.len()),
            None => format!("{}/", path.display()),
        })
        .collect()
}

/// Asserts that a folder holds exactly what it held before.
#[track_caller]
pub fn assert_unchanged(folder: &Path, before: &Listing) {
    let after = list(folder);
    assert!(
        after == *before,
        "{} has changed\nbefore: {:?}\nafter: {:?}",
        folder.display(),
        names(before),
        names(&after)
    );
}
