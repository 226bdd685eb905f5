//! Nodes that have answered, kept for the next run, so that it need not ask the well-known ones.
//!
//! The file is one bencoded dictionary of compact node infos, `nodes` and `nodes6`. It is a convenience: one that is
//! missing, damaged, or somebody's trap is no nodes, and one that cannot be written is not written.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::krpc::{Node, push_node, read_nodes};
use crate::meta::bencode::{Limits, Value, Writer, parse};
use crate::os::{random, user};

/// Nodes in the file.
pub const NODES_MAX: usize = 256;

/// Bytes of the longest file that is read: a full one has about 10,000.
const FILE_LEN_MAX: u64 = 16 * 1024;

/// Where the file is by the XDG base directory specification: `ringtide/dht` in `$XDG_CACHE_HOME` or in `~/.cache`.
/// `None` where the environment names no such place.
pub fn default_path() -> Option<PathBuf> {
    path_in(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"))
}

fn path_in(cache: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |path: Option<OsString>| path.map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute(cache).or_else(|| absolute(home).map(|home| home.join(".cache")))?;
    Some(cache.join("ringtide/dht"))
}

/// The nodes in the file, at most [`NODES_MAX`]; none where there is anything wrong with it.
pub fn load(path: &Path) -> Vec<Node> {
    read(path).map(|bytes| decode(&bytes)).unwrap_or_default()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Nobody is waited for at the other end of a pipe.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > FILE_LEN_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Puts the first [`NODES_MAX`] nodes in the place of what is in the file, in one step.
///
/// # Errors
/// What the file system answers, and a folder that is another user's; the file is then as it was.
pub fn save(path: &Path, nodes: &[Node]) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // Whom this user talks to is nobody else's business.
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // In another user's folder a name is what that user makes of it.
    if fs::metadata(folder)?.uid() != user::effective() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    // A name that nobody can have taken before, and least of all with a link to another file.
    let mut draft_name = name.to_owned();
    draft_name.push(format!(".{:016x}.part", random::number()));
    let draft = folder.join(draft_name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = file.write_all(&encode(nodes)).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // What cannot be removed either is a few bytes in a cache.
        let _ = fs::remove_file(&draft);
    }
    written
}

fn encode(nodes: &[Node]) -> Vec<u8> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for node in nodes.iter().take(NODES_MAX) {
        match node.addr.ip() {
            IpAddr::V4(_) => push_node(&mut v4, node),
            IpAddr::V6(_) => push_node(&mut v6, node),
        }
    }
    let mut bytes = Vec::new();
    Writer::new(&mut bytes).dict(|root| {
        root.key("nodes").bytes(&v4);
        root.key("nodes6").bytes(&v6);
    });
    bytes
}

fn decode(bytes: &[u8]) -> Vec<Node> {
    let Ok(document) = parse(bytes, Limits::PEER_MESSAGE) else { return Vec::new() };
    let list = |key: &str| document.root().get(key).and_then(Value::as_bytes);
    let mut nodes = list("nodes").map(read_nodes::<6>).unwrap_or_default();
    nodes.extend(list("nodes6").map(read_nodes::<18>).unwrap_or_default());
    nodes.truncate(NODES_MAX);
    nodes
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;
    use tempfile::tempdir;

    use super::*;
    use crate::discovery::dht::id::{NodeId, usable};

    fn node(n: u16) -> Node {
        let ip: IpAddr = if n.is_multiple_of(3) {
            format!("2001:db8::{n}").parse().unwrap()
        } else {
            [10, 0, (n >> 8) as u8, n as u8].into()
        };
        Node { id: NodeId([n as u8; 20]), addr: SocketAddr::new(ip, n) }
    }

    #[test]
    fn nodes_come_back() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("a/b/dht");
        assert_eq!(load(&path), []);
        let nodes: Vec<Node> = (1..=300).map(node).collect();
        save(&path, &nodes).unwrap();
        save(&path, &nodes).unwrap();
        let mut expected = nodes[..NODES_MAX].to_vec();
        expected.sort_by_key(|node| node.addr.is_ipv6());
        assert_eq!(load(&path), expected);
        assert_eq!(fs::read_dir(dir.path().join("a/b")).unwrap().count(), 1, "the draft is gone");
    }

    #[test]
    fn what_is_no_cache_is_no_nodes() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("dht");
        for bytes in [
            &b""[..],
            b"d5:nodes26:cut",
            b"le",
            b"d5:nodesi1e6:nodes6lee",
            b"d5:nodes3:abc6:nodes63:abce",
            b"\0\0\0",
        ] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(load(&path), [], "{}", bytes.escape_ascii());
        }
        let mut huge = b"d5:nodes26000:".to_vec();
        huge.extend(vec![1; 26_000]);
        fs::write(&path, [&huge[..], b"e"].concat()).unwrap();
        assert_eq!(load(&path), []);
        for trap in ["/dev/zero", "/dev/tty", "/", "/proc/self/mem"] {
            fs::remove_file(&path).unwrap();
            symlink(trap, &path).unwrap();
            assert_eq!(load(&path), [], "{trap}");
        }
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("dht");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_eq!(load(&path), []);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error_and_stays_as_it_is() {
        let dir = tempdir().unwrap();
        fs::write(dir.path().join("file"), "x").unwrap();
        assert!(save(&dir.path().join("file/dht"), &[node(1)]).is_err());
        fs::create_dir(dir.path().join("dht")).unwrap();
        assert!(save(&dir.path().join("dht"), &[node(1)]).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_link_in_the_place_of_the_file_is_replaced_and_what_it_leads_to_is_not() {
        let dir = tempdir().unwrap();
        let (path, other) = (dir.path().join("dht"), dir.path().join("other"));
        fs::write(&other, "not ours").unwrap();
        symlink(&other, &path).unwrap();
        save(&path, &[node(1)]).unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"not ours");
        assert_eq!((load(&path), path.is_symlink()), (vec![node(1)], false));
    }

    #[test]
    fn drafts_have_names_that_nobody_can_take_before() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("dht");
        let planted = dir.path().join(format!("dht.{}.part", std::process::id()));
        let other = dir.path().join("other");
        fs::write(&other, "not ours").unwrap();
        symlink(&other, &planted).unwrap();
        save(&path, &[node(1)]).unwrap();
        assert_eq!((fs::read(&other).unwrap(), planted.is_symlink()), (b"not ours".to_vec(), true));
    }

    #[test]
    fn another_users_folder_is_left_alone() {
        if user::effective() != 0 {
            return;
        }
        let dir = tempdir().unwrap();
        std::os::unix::fs::chown(dir.path(), Some(65_534), None).unwrap();
        let refused = save(&dir.path().join("dht"), &[node(1)]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_place_is_that_of_the_specification() {
        let os = |text: &str| Some(OsString::from(text));
        for (cache, home, expected) in [
            (os("/c"), os("/h"), Some("/c/ringtide/dht")),
            (os(""), os("/h"), Some("/h/.cache/ringtide/dht")),
            (os("relative"), os("/h"), Some("/h/.cache/ringtide/dht")),
            (None, os("/h"), Some("/h/.cache/ringtide/dht")),
            (None, os("h"), None),
            (None, None, None),
        ] {
            assert_eq!(path_in(cache, home), expected.map(PathBuf::from));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_few_usable_nodes(v4: Vec<u8>, v6: Vec<u8>, cut: usize) {
            let mut bytes = Vec::new();
            Writer::new(&mut bytes).dict(|root| {
                root.key("nodes").bytes(&v4);
                root.key("nodes6").bytes(&v6);
            });
            prop_assert_eq!(decode(&bytes).len() <= NODES_MAX, true);
            prop_assert!(decode(&bytes).iter().all(|node| usable(node.addr) == Some(node.addr)));
            bytes.truncate(cut % bytes.len());
            prop_assert_eq!(decode(&bytes), []);
        }
    }
}
