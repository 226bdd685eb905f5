//! The output on real file systems: exclusive leases, the layout of files, and everything that can stand in the way.
//!
//! Tests that need a small or read-only file system mount a tmpfs of their own. That takes root; without it they say
//! so and end.

#![expect(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use proptest::prelude::*;
use ringtide::disk::{Change, DiskError, Existing, Io, Output, PieceLease, Plan, Refused, Target};
use ringtide::meta::geometry::{Geometry, PieceIndex};
use tempfile::TempDir;

fn geometry(total_len: u64, piece_len: u32) -> Geometry {
    Geometry::new(total_len, piece_len).unwrap()
}

fn piece(geometry: &Geometry, index: u32) -> PieceIndex {
    geometry.piece(index).unwrap()
}

fn file(path: &str, len: u64) -> (Target, u64) {
    (Target::File(path.into()), len)
}

/// A folder output with these files and pieces of `piece_len` bytes.
fn folder(root: impl Into<PathBuf>, piece_len: u32, targets: &[(Target, u64)]) -> Plan {
    let total_len = targets.iter().map(|(_, len)| len).sum();
    Plan::folder(root, geometry(total_len, piece_len), targets.to_vec()).unwrap()
}

fn read(lease: &PieceLease) -> Vec<u8> {
    lease.segments().concat()
}

/// Both ways to write an output.
const METHODS: [Io; 2] = [Io::Mmap, Io::Pwrite];

/// Every path below `root` with what it holds; `None` for folders.
fn tree(root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
            found.insert(path, None);
        } else {
            let data = fs::read(&path).unwrap();
            found.insert(path, Some(data));
        }
    }
    found
}

fn refusal(plan: Plan, existing: Existing) -> DiskError {
    Output::open(plan, existing).map(|_| ()).unwrap_err()
}

/// A tmpfs with these mount options, gone at the end; `None` where the user leaves out what takes root.
struct Tmpfs(TempDir);

impl Tmpfs {
    fn mount(options: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        Self::mount_on(folder.path(), options).then_some(Self(folder))
    }

    fn mount_on(folder: &Path, options: &str) -> bool {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(folder)
            .output()
            .is_ok_and(|output| output.status.success());
        let may_be_left_out = std::env::var_os("RINGTIDE_NO_ROOT").is_some();
        assert!(
            mounted || may_be_left_out,
            "no tmpfs: run as root, or leave the test out with RINGTIDE_NO_ROOT=1"
        );
        mounted
    }

    fn unmount(folder: &Path) {
        let _ = Command::new("umount").arg("-l").arg(folder).status();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        Self::unmount(self.0.path());
    }
}

#[test]
fn of_many_threads_one_has_the_lease() {
    METHODS.into_iter().for_each(one_has_the_lease);
}

fn one_has_the_lease(io: Io) {
    const THREADS: u32 = 4;
    const ROUNDS: u32 = 2_000;
    let temp = tempfile::tempdir().unwrap();
    let geometry = geometry(4 * 64, 64);
    let plan = Plan::file(temp.path().join("f"), geometry).with_io(io);
    let (output, _) = Output::open(plan, Existing::Keep).unwrap();
    let owners: Arc<[AtomicU32; 4]> = Arc::default();
    let start = Arc::new(Barrier::new(THREADS as usize));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (output, owners, start) = (Arc::clone(&output), Arc::clone(&owners), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                let mut won = 0;
                for round in 0..ROUNDS {
                    let index = (round + thread) % 4;
                    match output.lease(piece(&geometry, index)) {
                        Ok(mut lease) => {
                            assert_eq!(owners[index as usize].fetch_add(1, Ordering::SeqCst), 0);
                            lease.write(0, &[thread as u8; 64]);
                            thread::yield_now();
                            assert_eq!(read(&lease), [thread as u8; 64]);
                            assert_eq!(owners[index as usize].fetch_sub(1, Ordering::SeqCst), 1);
                            won += 1;
                        }
                        Err(refused) => assert_eq!(refused, Refused::Leased),
                    }
                }
                won
            })
        })
        .collect();
    let won: u32 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!(won > 0);
    for index in geometry.pieces() {
        assert!(output.lease(index).is_ok(), "every lease came back");
    }
}

#[test]
fn a_sealed_piece_is_never_leased_again() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("f");
    let geometry = geometry(100, 40);
    let (output, found) = Output::open(Plan::file(&path, geometry), Existing::Keep).unwrap();
    assert!(!found.holds_data());
    let last = piece(&geometry, 2);

    let mut lease = output.lease(last).unwrap();
    assert_eq!((lease.piece(), lease.size()), (last, 20));
    assert_eq!(output.lease(last).unwrap_err(), Refused::Leased);
    lease.write(0, b"0123456789");
    drop(lease);

    let mut lease = output.lease(last).unwrap();
    lease.write(10, b"abcdefghij");
    assert_eq!(read(&lease), b"0123456789abcdefghij", "what the lease before wrote is there");
    lease.seal().unwrap();
    assert_eq!(output.lease(last).unwrap_err(), Refused::Sealed);
    assert_eq!(&fs::read(&path).unwrap()[80..], b"0123456789abcdefghij");
    output.finish(true).unwrap();
}

#[test]
fn one_piece_may_span_many_files() {
    // In mapped files the piece has a segment in each, and its places are cut as they are.
    many_files_in_a_piece(Io::Mmap, 5, &[1, 5, 4, 1, 1]);
    many_files_in_a_piece(Io::Pwrite, 1, &[12]);
}

fn many_files_in_a_piece(io: Io, segments: usize, places: &[usize]) {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("out");
    let targets = [
        file("a", 3),
        file("d/empty", 0),
        file("d/é/b", 5),
        (Target::Pad, 4),
        file("c", 1),
        file("last", 0),
        file("d/e", 7),
    ];
    let geometry = geometry(20, 20);
    let (output, _) = Output::open(folder(&root, 20, &targets).with_io(io), Existing::Keep).unwrap();
    assert_eq!(output.io(), io);
    let only = piece(&geometry, 0);
    let mut lease = output.lease(only).unwrap();
    lease.write(0, b"aaabbbbb....ceee");
    lease.write(16, b"eeee");
    assert_eq!(lease.segments().len(), segments);
    let mut middle = [0; 9];
    lease.copy_out(2, &mut middle);
    assert_eq!(&middle, b"abbbbb...");
    let mut lens = Vec::new();
    assert!(lease.iovecs(2, 12, &mut |iovec| lens.push(iovec.iov_len)));
    assert_eq!(lens, places);
    lease.seal().unwrap();

    let expected = [
        ("a", Some("aaa")),
        ("c", Some("c")),
        ("d", None),
        ("d/e", Some("eeeeeee")),
        ("d/empty", Some("")),
        ("d/é", None),
        ("d/é/b", Some("bbbbb")),
        ("last", Some("")),
    ];
    let expected = expected.map(|(path, data)| (root.join(path), data.map(|data| data.as_bytes().to_vec())));
    assert_eq!(tree(&root), BTreeMap::from(expected));
    output.finish(true).unwrap();
}

#[test]
fn a_single_piece_is_a_file_of_its_own() {
    METHODS.into_iter().for_each(a_single_piece);
}

fn a_single_piece(io: Io) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("piece");
    let geometry = geometry(100, 40);
    let plan = Plan::piece(&path, geometry, piece(&geometry, 1)).with_io(io);
    let (output, _) = Output::open(plan, Existing::Keep).unwrap();
    assert_eq!(output.lease(piece(&geometry, 0)).unwrap_err(), Refused::Outside);
    assert_eq!(output.lease(piece(&geometry, 2)).unwrap_err(), Refused::Outside);
    let beyond = piece(&Geometry::new(1_000, 1).unwrap(), 999);
    assert_eq!(output.lease(beyond).unwrap_err(), Refused::Outside);
    let mut lease = output.lease(piece(&geometry, 1)).unwrap();
    lease.write(0, &[9; 40]);
    lease.seal().unwrap();
    assert_eq!(fs::read(&path).unwrap(), [9; 40]);
}

#[test]
#[should_panic(expected = "11 bytes at 30 leave piece 0 of 40 bytes")]
fn a_write_past_the_piece_is_a_bug() {
    let temp = tempfile::tempdir().unwrap();
    let geometry = geometry(100, 40);
    let (output, _) = Output::open(Plan::file(temp.path().join("f"), geometry), Existing::Keep).unwrap();
    output.lease(piece(&geometry, 0)).unwrap().write(30, &[0; 11]);
}

/// One step of the comparison with the naive content.
#[derive(Clone, Debug)]
enum Step {
    Write { piece: u32, begin: u32, data: Vec<u8> },
    Seal { piece: u32 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write = (any::<u32>(), any::<u32>(), proptest::collection::vec(any::<u8>(), 1..200))
        .prop_map(|(piece, begin, data)| Step::Write { piece, begin, data });
    let seal = any::<u32>().prop_map(|piece| Step::Seal { piece });
    proptest::collection::vec(prop_oneof![8 => write, 1 => seal], 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Files and pads of any lengths, pieces of any length: the output and a plain vector agree at every step, and so
    /// do the files at the end.
    #[test]
    fn any_layout_agrees_with_a_vector(
        lens in proptest::collection::vec((0u64..300, any::<bool>()), 1..12),
        piece_len in 1u32..400,
        io in prop_oneof![Just(Io::Mmap), Just(Io::Pwrite)],
        steps in steps(),
    ) {
        let total_len: u64 = lens.iter().map(|(len, _)| len).sum();
        prop_assume!(total_len > 0);
        let geometry = geometry(total_len, piece_len);
        let targets: Vec<_> = lens
            .iter()
            .enumerate()
            .map(|(index, &(len, pad))| match pad && index % 3 == 1 {
                true => (Target::Pad, len),
                false => file(&format!("d{}/f{index}", index % 2), len),
            })
            .collect();
        let temp = tempfile::tempdir().unwrap();
        let plan = folder(temp.path().join("out"), piece_len, &targets).with_io(io);
        let (output, _) = Output::open(plan, Existing::Keep).unwrap();
        let mut content = vec![0u8; total_len as usize];
        let mut sealed = vec![false; geometry.piece_count() as usize];
        // Pad bytes live as long as the lease, so each is held from its first write to the end.
        let mut leases: BTreeMap<u32, PieceLease> = BTreeMap::new();

        for step in steps {
            let (Step::Write { piece, .. } | Step::Seal { piece }) = step;
            let index = geometry.piece(piece % geometry.piece_count()).unwrap();
            if sealed[index.at()] {
                prop_assert_eq!(output.lease(index).unwrap_err(), Refused::Sealed);
                continue;
            }
            let lease = leases.entry(index.get()).or_insert_with(|| {
                let mut lease = output.lease(index).unwrap();
                assert_eq!(lease.load(), Ok(true));
                lease
            });
            let offset = geometry.piece_offset(index) as usize;
            let range = offset..offset + lease.size() as usize;
            match step {
                Step::Write { begin, data, .. } => {
                    let begin = begin % lease.size();
                    let data = &data[..data.len().min((lease.size() - begin) as usize)];
                    lease.write(begin, data);
                    let start = offset + begin as usize;
                    content[start..start + data.len()].copy_from_slice(data);
                    check_places(lease, begin, data);
                    prop_assert_eq!(read(lease), &content[range]);
                }
                Step::Seal { .. } => {
                    leases.remove(&index.get()).unwrap().seal().unwrap();
                    sealed[index.at()] = true;
                }
            }
        }
        for lease in leases.into_values() {
            if io == Io::Pwrite {
                // What is given back unverified is not in the files.
                let start = geometry.piece_offset(lease.piece()) as usize;
                content[start..start + lease.size() as usize].fill(0);
            }
        }
        output.finish(false).unwrap();
        let mut offset = 0;
        for (target, len) in &targets {
            if let Target::File(path) = target {
                let data = fs::read(temp.path().join("out").join(path)).unwrap();
                prop_assert_eq!(&data, &content[offset..offset + *len as usize]);
            }
            offset += *len as usize;
        }
    }
}

/// What `copy_out` gives and where `iovecs` points is the data just written.
fn check_places(lease: &mut PieceLease, begin: u32, data: &[u8]) {
    let mut out = vec![0; data.len()];
    lease.copy_out(begin, &mut out);
    assert_eq!(out, data);
    let mut places = Vec::new();
    let push = &mut |iovec: libc::iovec| places.push((iovec.iov_base.addr(), iovec.iov_len));
    assert!(lease.iovecs(begin, data.len() as u32, push));
    let addresses: Vec<usize> = lease
        .segments()
        .iter()
        .flat_map(|segment| (0..segment.len()).map(|at| segment.as_ptr().addr() + at))
        .collect();
    let pointed: Vec<usize> = places.iter().flat_map(|&(base, len)| base..base + len).collect();
    assert_eq!(pointed, addresses[begin as usize..][..data.len()]);
    assert!(places.iter().all(|&(_, len)| len > 0), "no empty place");
}

#[test]
fn undo_removes_what_was_made_and_nothing_else() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("out");
    fs::create_dir_all(root.join("mine")).unwrap();
    fs::write(root.join("mine/short"), "short").unwrap();
    fs::write(root.join("mine/empty"), "").unwrap();
    fs::write(root.join("other"), "not in the torrent").unwrap();
    let before = tree(temp.path());
    let targets = [
        file("mine/short", 50_000),
        file("mine/empty", 10),
        file("mine/new", 10),
        file("new/er/est", 30),
        file("n", 0),
    ];
    let (output, found) = Output::open(folder(&root, 1_000, &targets), Existing::Keep).unwrap();
    assert!(found.holds_data());
    assert_eq!(found.candidates().map(PieceIndex::get).collect::<Vec<_>>(), [0]);
    assert_eq!(fs::metadata(root.join("mine/short")).unwrap().len(), 50_000);

    let geometry = geometry(50_050, 1_000);
    let lease = output.lease(piece(&geometry, 50)).unwrap();
    output.undo().unwrap();
    assert_eq!(fs::metadata(root.join("mine/short")).unwrap().len(), 50_000, "not cut while leased");
    assert!(!root.join("mine/new").exists() && !root.join("new").exists() && !root.join("n").exists());
    drop(lease);
    output.undo().unwrap();
    assert_eq!(tree(temp.path()), before);
    assert_eq!(output.lease(piece(&geometry, 0)).unwrap_err(), Refused::Closed);
}

#[test]
fn undo_spares_what_others_put_there() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("out");
    let (output, _) =
        Output::open(folder(&root, 10, &[file("a/b", 10), file("c/d", 10), file("e", 1)]), Existing::Keep)
            .unwrap();
    fs::write(root.join("a/foreign"), "x").unwrap();
    if fs::metadata(root.join("c/d")).unwrap().created().is_ok() {
        // The new file mostly gets the old one's inode number.
        fs::remove_file(root.join("c/d")).unwrap();
    } else {
        fs::rename(root.join("c/d"), temp.path().join("moved")).unwrap();
    }
    fs::write(root.join("c/d"), "another file of that name").unwrap();
    output.undo().unwrap();
    let left: Vec<_> = tree(&root).into_keys().collect();
    assert_eq!(left, ["a", "a/foreign", "c", "c/d"].map(|path| root.join(path)));
}

#[test]
fn undo_of_a_single_file() {
    let temp = tempfile::tempdir().unwrap();
    let (new, old) = (temp.path().join("new"), temp.path().join("old"));
    fs::write(&old, "old").unwrap();
    for path in [&new, &old] {
        let (output, _) = Output::open(Plan::file(path, geometry(100, 40)), Existing::Keep).unwrap();
        output.undo().unwrap();
    }
    assert!(!new.exists());
    assert_eq!(fs::read(&old).unwrap(), b"old");
}

#[test]
fn a_longer_file_is_refused_and_overwritten_only_on_demand() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("out");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("b"), [7; 30]).unwrap();
    let before = tree(temp.path());
    let plan = folder(&root, 10, &[file("a", 20), file("b", 20)]);
    let err = refusal(plan.clone(), Existing::Keep);
    assert_eq!(err, DiskError::TooLong { path: root.join("b"), found: 30, expected: 20 });
    assert!(err.to_string().contains("--overwrite"), "{err}");
    assert_eq!(tree(temp.path()), before);

    let (output, found) = Output::open(plan, Existing::Overwrite).unwrap();
    assert!(found.holds_data());
    assert_eq!(fs::read(root.join("b")).unwrap(), [7; 30], "nothing has taken its place yet");
    output.finish(false).unwrap();
    assert_eq!(fs::read(root.join("b")).unwrap(), [7; 20]);
}

#[test]
fn an_interrupted_download_is_found_again() {
    for temp in [tempfile::tempdir(), tempfile::tempdir_in("/dev/shm")].into_iter().flatten() {
        let plan = Plan::file(temp.path().join("f"), geometry(64 << 20, 1 << 20));
        let geometry = geometry(64 << 20, 1 << 20);
        let (output, found) = Output::open(plan.clone(), Existing::Keep).unwrap();
        assert!(!found.holds_data());
        for index in [3, 40] {
            let mut lease = output.lease(piece(&geometry, index)).unwrap();
            lease.write(500_000, b"here");
            lease.seal().unwrap();
        }
        drop(output);
        let (output, found) = Output::open(plan, Existing::Keep).unwrap();
        assert!(found.holds_data());
        let candidates: Vec<_> = found.candidates().map(PieceIndex::get).collect();
        // What the page cache read around the two may count, but not what is far away.
        for (index, expected) in [(3, true), (20, false), (40, true), (60, false)] {
            assert_eq!(candidates.contains(&index), expected, "piece {index} in {temp:?}: {candidates:?}");
            assert_eq!(found.may_hold(piece(&geometry, index)), expected);
            assert_eq!(output.lease(piece(&geometry, index)).unwrap().is_zeroes(), Ok(!expected));
        }
    }
}

#[test]
fn planted_links_are_not_followed() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("out");
    let outside = temp.path().join("outside");
    fs::create_dir_all(&root).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "precious").unwrap();
    symlink(&outside, root.join("folder")).unwrap();
    symlink(outside.join("victim"), root.join("file")).unwrap();
    symlink(outside.join("nothing"), root.join("dangling")).unwrap();
    let before = tree(&outside);
    for existing in [Existing::Keep, Existing::Overwrite] {
        for (name, link) in [
            ("folder/victim", "folder"),
            ("folder/new/file", "folder"),
            ("file", "file"),
            ("dangling", "dangling"),
        ] {
            let err = refusal(folder(&root, 10, &[file("first/x", 10), file(name, 10)]), existing);
            assert_eq!(err, DiskError::Symlink { path: root.join(link) });
            assert!(!root.join("first").exists(), "what was made is gone again");
        }
    }
    assert_eq!(tree(&outside), before);
}

#[test]
fn the_users_own_link_is_followed() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("file"), "").unwrap();
    fs::create_dir(temp.path().join("folder")).unwrap();
    for name in ["file", "folder", "nothing"] {
        symlink(temp.path().join(name), temp.path().join(format!("to-{name}"))).unwrap();
    }
    let geometry = geometry(10, 10);
    let (output, _) =
        Output::open(Plan::file(temp.path().join("to-file"), geometry), Existing::Keep).unwrap();
    output.lease(piece(&geometry, 0)).unwrap().write(0, b"0123456789");
    output.finish(true).unwrap();
    assert_eq!(fs::read(temp.path().join("file")).unwrap(), b"0123456789");
    let plan = folder(temp.path().join("to-folder"), 10, &[file("a", 10)]);
    Output::open(plan, Existing::Keep).unwrap();
    assert!(temp.path().join("folder/a").exists());
    let path = temp.path().join("to-nothing");
    for plan in [Plan::file(&path, geometry), folder(&path, 10, &[file("a", 10)])] {
        assert_eq!(refusal(plan, Existing::Keep), DiskError::Symlink { path: path.clone() });
    }
}

#[test]
fn what_is_not_a_file_or_a_folder_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    fs::write(at("file"), "").unwrap();
    fs::create_dir(at("folder")).unwrap();
    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let single = |path: &Path| refusal(Plan::file(path, geometry(10, 10)), Existing::Overwrite);
    let below = |root: PathBuf, name: &str| refusal(folder(root, 10, &[file(name, 10)]), Existing::Overwrite);

    assert_eq!(single(&at("folder")), DiskError::IsAFolder { path: at("folder") });
    assert_eq!(single(&at("pipe")), DiskError::NotAFile { path: at("pipe") });
    assert_eq!(single(&at("socket")), DiskError::NotAFile { path: at("socket") });
    assert_eq!(single(Path::new("/dev/null")), DiskError::NotAFile { path: "/dev/null".into() });
    assert_eq!(single(&at("file/x")), DiskError::NotAFolder { path: at("file") });
    assert_eq!(single(Path::new("")), DiskError::BadName { path: "".into() });
    assert_eq!(below(at("file"), "x"), DiskError::NotAFolder { path: at("file") });
    assert_eq!(below(at("file/out"), "x"), DiskError::NotAFolder { path: at("file/out") });
    assert_eq!(below(temp.path().into(), "folder"), DiskError::IsAFolder { path: at("folder") });
    assert_eq!(below(temp.path().into(), "pipe"), DiskError::NotAFile { path: at("pipe") });
    assert_eq!(below(temp.path().into(), "file/x"), DiskError::NotAFolder { path: at("file") });
    let long = "n".repeat(300);
    assert_eq!(single(&at(&long)), DiskError::NameTooLong { path: at(&long) });
}

#[test]
fn a_missing_folder_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let missing = temp.path().join("no/such");
    let expected = DiskError::FolderMissing { folder: missing.clone() };
    assert_eq!(refusal(Plan::file(missing.join("f"), geometry(10, 10)), Existing::Keep), expected);
    assert_eq!(refusal(folder(missing.join("out"), 10, &[file("f", 10)]), Existing::Keep), expected);
    let text = expected.to_string();
    assert!(text.contains(missing.to_str().unwrap()) && text.contains("does not exist"), "{text}");
    assert!(!temp.path().join("no").exists());
}

#[test]
fn a_read_only_file_system_is_named() {
    let Some(tmpfs) = Tmpfs::mount("size=1m") else { return };
    fs::write(tmpfs.0.path().join("old"), "old").unwrap();
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(tmpfs.0.path()).status().unwrap();
    assert!(remounted.success());
    for name in ["old", "new"] {
        let path = tmpfs.0.path().join(name);
        let plan = Plan::file(&path, geometry(10, 10));
        assert_eq!(refusal(plan, Existing::Overwrite), DiskError::ReadOnly { path: path.clone() });
        let path = tmpfs.0.path().join("out");
        let plan = folder(&path, 10, &[file("x", 10)]);
        assert_eq!(refusal(plan, Existing::Overwrite), DiskError::ReadOnly { path });
    }
}

#[test]
fn a_folder_without_permission_is_named() {
    // The superuser may write anywhere but here: nobody can make files in /sys.
    let path = Path::new("/sys/ringtide-test");
    let err = refusal(Plan::file(path, geometry(10, 10)), Existing::Keep);
    let named = [DiskError::Denied { path: path.into() }, DiskError::ReadOnly { path: path.into() }];
    assert!(named.contains(&err), "{err:?}");
}

#[test]
fn a_full_disk_is_refused_before_it_is_filled() {
    let Some(tmpfs) = Tmpfs::mount("size=1m") else { return };
    let root = tmpfs.0.path().join("out");
    let plan = folder(&root, 1 << 16, &[file("a", 600_000), file("b/c", 600_000)]);
    let DiskError::NoSpace { path, needed, free } = refusal(plan, Existing::Keep) else {
        panic!("the disk is not full");
    };
    assert_eq!((path, needed), (root.clone(), 1_200_000));
    assert!((900_000..=1 << 20).contains(&free), "{free}");
    assert!(!root.exists(), "nothing is left behind");

    let path = tmpfs.0.path().join("single");
    fs::write(&path, [1; 100_000]).unwrap();
    let err = refusal(Plan::file(&path, geometry(2 << 20, 1 << 16)), Existing::Keep);
    assert!(matches!(err, DiskError::NoSpace { needed, .. } if needed < 2 << 20), "{err:?}");
    assert_eq!(fs::read(&path).unwrap(), [1; 100_000]);
    let text = err.to_string();
    assert!(text.contains("not enough room") && text.contains(path.to_str().unwrap()), "{text}");
}

#[test]
fn a_disk_that_fills_while_reserving_is_given_back() {
    // The small file system is below the root, so its room is only known by reserving.
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("out");
    fs::create_dir_all(root.join("small")).unwrap();
    if !Tmpfs::mount_on(&root.join("small"), "size=1m") {
        return;
    }
    let targets = [file("a", 600_000), file("small/b", 600_000), file("small/c", 600_000), file("z/d", 1)];
    let err = refusal(folder(&root, 1 << 16, &targets), Existing::Keep);
    let left = tree(&root);
    Tmpfs::unmount(&root.join("small"));
    assert!(
        matches!(&err, DiskError::NoSpace { path, needed: 1_800_001, free } if *path == root && *free > 0),
        "{err:?}"
    );
    assert_eq!(left, BTreeMap::from([(root.join("small"), None)]));
}

#[test]
fn a_second_output_of_the_same_files_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let single = Plan::file(temp.path().join("f"), geometry(10, 10));
    let many = folder(temp.path().join("out"), 10, &[file("a", 10)]);
    for (plan, path) in [(single, "f"), (many, "out")] {
        let (output, _) = Output::open(plan.clone(), Existing::Keep).unwrap();
        assert_eq!(
            refusal(plan.clone(), Existing::Overwrite),
            DiskError::Busy { path: temp.path().join(path) }
        );
        output.finish(false).unwrap();
        drop(output);
        Output::open(plan, Existing::Keep).unwrap();
    }
}

#[test]
fn two_names_of_one_file_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("out");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a"), "12345").unwrap();
    fs::hard_link(root.join("a"), root.join("b")).unwrap();
    let before = tree(&root);
    let linked = folder(&root, 10, &[file("a", 10), file("b", 10)]);
    assert_eq!(refusal(linked, Existing::Overwrite), DiskError::SameFile { path: root.join("b") });
    let twice = folder(&root, 10, &[file("n", 10), file("n", 10)]);
    assert_eq!(refusal(twice, Existing::Keep), DiskError::SameFile { path: root.join("n") });
    assert_eq!(tree(&root), before);
}

#[test]
fn files_that_change_meanwhile_are_noticed() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("out");
    let geometry = geometry(40, 10);
    let targets = [file("a", 10), file("b", 10), file("c", 10), file("d", 10)];
    let (output, _) = Output::open(folder(&root, 10, &targets), Existing::Keep).unwrap();
    let refused = |index, name, change| {
        let changed = DiskError::Changed { path: root.join(name), change };
        assert_eq!(output.lease(piece(&geometry, index)).unwrap_err(), Refused::Disk(changed.clone()));
        assert_eq!(
            output.lease(piece(&geometry, index)).unwrap_err(),
            Refused::Disk(changed.clone()),
            "again"
        );
        assert_eq!(output.finish(false), Err(changed));
    };
    fs::OpenOptions::new().write(true).open(root.join("d")).unwrap().set_len(5).unwrap();
    refused(3, "d", Change::Resized { found: 5, expected: 10 });
    fs::remove_file(root.join("c")).unwrap();
    refused(2, "c", Change::Removed);
    fs::remove_file(root.join("b")).unwrap();
    symlink("/etc/hostname", root.join("b")).unwrap();
    refused(1, "b", Change::Replaced);
    fs::rename(root.join("a"), root.join("moved")).unwrap();
    fs::write(root.join("a"), "0123456789").unwrap();
    refused(0, "a", Change::Replaced);
}

#[test]
fn many_files_take_no_descriptors() {
    METHODS.into_iter().for_each(descriptors_of_many_files);
}

fn descriptors_of_many_files(io: Io) {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let targets: Vec<_> = (0..5_000).map(|i| file(&format!("{}/{}/{i}", i % 7, i % 3), 100)).collect();
    let geometry = geometry(500_000, 1_000);
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    let plan = folder(temp.path().join("out"), 1_000, &targets).with_io(io);
    let (output, _) = Output::open(plan, Existing::Keep).unwrap();
    let leases: Vec<_> = geometry.pieces().map(|piece| output.lease(piece).unwrap()).collect();
    // Other tests run beside this one and have a few open.
    assert!(descriptors() < before + 500, "{before} before, {} after", descriptors());
    for mut lease in leases {
        lease.write(0, &[1; 1_000]);
        lease.seal().unwrap();
    }
    assert!(descriptors() < before + 500, "{before} before, {} after", descriptors());
    output.finish(true).unwrap();
}

/// Bytes of a mapped file that are in the memory of this process.
fn resident(path: &Path) -> u64 {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let of_file = maps.lines().skip_while(|line| !line.ends_with(path.to_str().unwrap()));
    let line = of_file.into_iter().find(|line| line.starts_with("Rss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_large_file_takes_little_memory() {
    const RESIDENT_MAX: u64 = 20 << 20;
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("f");
    let geometry = geometry(1 << 30, 1 << 20);
    let (output, _) = Output::open(Plan::file(&path, geometry), Existing::Keep).unwrap();
    assert!(fs::metadata(&path).unwrap().blocks() * 512 >= 1 << 30, "the blocks are reserved");
    let block: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 253) as u8).collect();
    for index in geometry.pieces().take(256) {
        let mut lease = output.lease(index).unwrap();
        lease.write(0, &block);
        assert!(resident(&path) >= 1 << 20);
        lease.seal().unwrap();
        assert!(resident(&path) < RESIDENT_MAX, "{} bytes after piece {index}", resident(&path));
    }
    let mut data = vec![0; 1 << 20];
    fs::File::open(&path).unwrap().read_exact_at(&mut data, 255 << 20).unwrap();
    assert_eq!(data, block);
}

#[test]
fn files_to_be_written_that_change_meanwhile_are_noticed() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("out");
    let geometry = geometry(30, 10);
    let plan = folder(&root, 10, &[file("a", 10), file("b", 10), file("c", 10)]).with_io(Io::Pwrite);
    let (output, _) = Output::open(plan, Existing::Keep).unwrap();
    let write = |index| {
        let mut lease = output.lease(piece(&geometry, index)).unwrap();
        lease.write(0, b"0123456789");
        lease.seal()
    };
    let refused = |index, name, change| {
        let changed = Err(DiskError::Changed { path: root.join(name), change });
        assert_eq!(write(index), changed);
        assert_eq!(write(index), changed, "the piece was not sealed");
        assert_eq!(output.lease(piece(&geometry, index)).unwrap().load().map(|_| ()), changed);
        assert_eq!(output.finish(false), changed);
    };
    fs::rename(root.join("c"), root.join("moved")).unwrap();
    fs::write(root.join("c"), "0123456789").unwrap();
    refused(2, "c", Change::Replaced);
    fs::remove_file(root.join("b")).unwrap();
    symlink("/etc/hostname", root.join("b")).unwrap();
    refused(1, "b", Change::Replaced);
    // The file is open by now.
    assert_eq!(output.lease(piece(&geometry, 0)).unwrap().load(), Ok(true));
    fs::OpenOptions::new().write(true).open(root.join("a")).unwrap().set_len(5).unwrap();
    refused(0, "a", Change::Resized { found: 5, expected: 10 });
    assert_eq!(fs::metadata(root.join("a")).unwrap().len(), 5, "it did not grow again");
}

#[test]
fn what_is_given_back_unverified_is_not_written() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("f");
    fs::write(&path, [3; 100]).unwrap();
    let geometry = geometry(100, 40);
    let (output, found) =
        Output::open(Plan::file(&path, geometry).with_io(Io::Pwrite), Existing::Keep).unwrap();
    assert!(found.holds_data());
    let mut lease = output.lease(piece(&geometry, 1)).unwrap();
    lease.write(0, &[7; 40]);
    lease.landed(0, 40);
    lease.park();
    drop(lease);
    assert_eq!(fs::read(&path).unwrap(), [3; 100]);
    let mut lease = output.lease(piece(&geometry, 1)).unwrap();
    assert_eq!(lease.load(), Ok(true));
    assert_eq!(read(&lease), [3; 40]);
    lease.seal().unwrap();
    assert_eq!(fs::read(&path).unwrap(), [3; 100]);
}

#[test]
fn a_local_file_system_is_mapped_unless_asked_otherwise() {
    let temp = tempfile::tempdir().unwrap();
    for (asked, given) in [(Io::Auto, Io::Mmap), (Io::Mmap, Io::Mmap), (Io::Pwrite, Io::Pwrite)] {
        let targets = [file("empty", 0), (Target::Pad, 7), file("a", 13)];
        let plan = folder(temp.path().join(asked.name()), 10, &targets).with_io(asked);
        assert_eq!(Output::open(plan, Existing::Keep).unwrap().0.io(), given);
    }
}

#[test]
fn a_disk_without_room_for_a_piece_is_told_and_the_piece_can_be_had_later() {
    let Some(tmpfs) = Tmpfs::mount("size=1m") else { return };
    let (path, filler) = (tmpfs.0.path().join("f"), tmpfs.0.path().join("filler"));
    let geometry = geometry(500_000, 100_000);
    let (output, _) = Output::open(Plan::file(&path, geometry).with_io(Io::Pwrite), Existing::Keep).unwrap();
    // Someone takes away what was reserved, and the rest of the disk.
    let punched =
        Command::new("fallocate").args(["--punch-hole", "-o", "0", "-l", "400000"]).arg(&path).status();
    assert!(punched.unwrap().success());
    let _ = fs::write(&filler, vec![1; 2 << 20]);
    let fetch = || {
        let mut lease = output.lease(piece(&geometry, 1)).unwrap();
        lease.write(0, &[7; 100_000]);
        lease.seal()
    };
    assert_eq!(fetch(), Err(DiskError::Full { path: path.clone(), free: 0 }));
    fs::remove_file(&filler).unwrap();
    fetch().unwrap();
    assert_eq!(fs::read(&path).unwrap()[100_000..200_000], [7; 100_000]);
}

/// The same where the files are mapped, which a store and a system call meet in different ways.
#[test]
fn a_mapped_file_without_room_behind_it_is_told_and_the_piece_can_be_had_later() {
    let Some(tmpfs) = Tmpfs::mount("size=2m") else { return };
    let (path, filler) = (tmpfs.0.path().join("f"), tmpfs.0.path().join("filler"));
    let geometry = geometry(500_000, 100_000);
    let (output, _) = Output::open(Plan::file(&path, geometry).with_io(Io::Mmap), Existing::Keep).unwrap();
    let punched =
        Command::new("fallocate").args(["--punch-hole", "-o", "0", "-l", "400000"]).arg(&path).status();
    assert!(punched.unwrap().success());
    let _ = fs::write(&filler, vec![1; 2 << 20]);
    let full = DiskError::Full { path: path.clone(), free: 0 };
    let mut lease = output.lease(piece(&geometry, 1)).unwrap();
    assert_eq!((lease.trouble(0, 100_000), output.damage()), (Some(full.clone()), None));
    lease.write(0, &[7; 100_000]);
    assert_eq!((lease.load(), output.damage()), (Err(full.clone()), Some(full.clone())));
    assert_eq!(lease.read(0, &mut [0]), Err(full.clone()));
    assert_eq!(lease.seal(), Err(full));
    fs::remove_file(&filler).unwrap();
    drop(output);
    let (output, _) = Output::open(Plan::file(&path, geometry).with_io(Io::Mmap), Existing::Keep).unwrap();
    let mut lease = output.lease(piece(&geometry, 1)).unwrap();
    assert_eq!(lease.trouble(0, 100_000), None);
    lease.write(0, &[7; 100_000]);
    lease.seal().unwrap();
    assert_eq!(fs::read(&path).unwrap()[100_000..200_000], [7; 100_000]);
}

/// A file that shrinks while a piece of it is looked at.
#[test]
fn a_mapped_file_that_is_cut_gives_no_piece() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("f");
    let geometry = geometry(1 << 20, 1 << 18);
    let (output, _) = Output::open(Plan::file(&path, geometry).with_io(Io::Mmap), Existing::Keep).unwrap();
    let leases: Vec<PieceLease> = geometry.pieces().map(|piece| output.lease(piece).unwrap()).collect();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(1 << 19).unwrap();
    let change = Change::Resized { found: 1 << 19, expected: 1 << 20 };
    let cut = DiskError::Changed { path, change };
    assert_eq!(leases[1].is_zeroes(), Ok(true), "it is all there");
    // Zeroes are what a load gives, and not what the file has.
    assert_eq!(leases[3].is_zeroes(), Err(cut.clone()));
    for lease in leases {
        assert_eq!(lease.seal(), Err(cut.clone()));
    }
}

/// Bytes of private memory of this process.
fn private_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn hundreds_of_half_done_pieces_take_bounded_memory() {
    const BLOCK: u32 = 16 * 1024;
    const PIECE: u32 = 4 << 20;
    const PIECES: u32 = 300;
    // What the pool allows, and room for the tests beside this one.
    const GROWTH_MAX: u64 = 96 << 20;
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("f");
    let geometry = geometry(u64::from(PIECES * (PIECE / 1024)) * 1024, PIECE);
    let (output, _) = Output::open(Plan::file(&path, geometry).with_io(Io::Pwrite), Existing::Keep).unwrap();
    let before = private_memory();
    let data = |index: u32, block: u32| [(index * 7 + block) as u8; BLOCK as usize];
    let mut leases: Vec<_> = geometry.pieces().map(|piece| output.lease(piece).unwrap()).collect();
    // A few pieces are done first, so that there are warm buffers to be had.
    let fill = |lease: &mut PieceLease, blocks: std::ops::Range<u32>| {
        for block in blocks {
            let data = data(lease.piece().get(), block);
            lease.write(block * BLOCK, &data);
            lease.landed(block * BLOCK, BLOCK);
        }
    };
    for mut lease in leases.drain(..20) {
        fill(&mut lease, 0..PIECE / BLOCK);
        lease.seal().unwrap();
    }
    for round in 0..4 {
        for lease in &mut leases {
            fill(lease, round * 16..(round + 1) * 16);
        }
        let grown = private_memory().saturating_sub(before);
        assert!(grown < GROWTH_MAX, "{grown} bytes more in round {round}");
    }
    // 280 MiB have landed; wherever they are, they are right.
    for mut lease in leases.into_iter().step_by(40) {
        let mut block = [0; BLOCK as usize];
        for index in 0..64 {
            lease.read(index * BLOCK, &mut block).unwrap();
            assert!(block == data(lease.piece().get(), index));
        }
        fill(&mut lease, 64..PIECE / BLOCK);
        let mut at = 0;
        lease
            .show(|bytes| {
                let expected = |at: u32, piece: PieceIndex| data(piece.get(), at / BLOCK)[0];
                let right = (at..).zip(bytes).all(|(at, &byte)| byte == expected(at, lease.piece()));
                at += bytes.len() as u32;
                right
            })
            .unwrap();
        assert_eq!(at, PIECE);
        let start = geometry.piece_offset(lease.piece());
        let index = lease.piece().get();
        lease.seal().unwrap();
        fs::File::open(&path).unwrap().read_exact_at(&mut block, start + u64::from(63 * BLOCK)).unwrap();
        assert!(block == data(index, 63));
    }
}
