//! Disks that fill up, fail, or change under a download: on ext4, xfs, btrfs, tmpfs and FUSE, mapped and written, from a
//! real seeder. Each ends with one clear line and exit code 5, and the same command completes the download once the
//! cause is gone.
//!
//! They take root, loop devices and FUSE, and fail without.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
mod faults;
mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::clients::{Client, Seeder};
use common::payload::{Layout, Payload};
use common::process::wait_for;
use common::record::real_client_test;
use common::relay::{Link, Relay, Way};
use common::workspace;
use faults::fuse::Faulty;
use faults::program::{with_limits, without_fallocate};
use faults::volume::{Kind, Volume, isolated};
use serde_json::Value;
use support::content::Content;
use support::peer::Peer;
use support::program::{Program, Run, Running, case, in_parallel, ringtide};
use tempfile::TempDir;

/// The exit code for an output that cannot be made or kept.
const BAD_OUTPUT: i32 = 5;

/// How long a download may take: many times what it should.
const LIMIT: Duration = Duration::from_secs(120);

const METHODS: [&str; 3] = ["mmap", "pwrite", "uncached"];

/// Bytes of the content, and of its pieces.
const LEN: u64 = (24 << 20) + 12_345;
const PIECE_LEN: u32 = 256 << 10;

/// Bytes that have come when a download is in its middle.
const MIDDLE: usize = 6 << 20;

/// A real seeder with its torrent.
struct Swarm {
    payload: Payload,
    torrent: PathBuf,
    seeder: Seeder,
    _home: TempDir,
}

impl Swarm {
    fn start(len: u64) -> Self {
        let payload = Payload::create("content.bin", Layout::Single(len), PIECE_LEN, 11);
        let home = workspace::temp_dir("swarm");
        // libtorrent wants a tracker in its torrent; this one refuses.
        let ip = Ipv4Addr::LOCALHOST.into();
        let dead = format!("http://{}/announce", SocketAddr::new(ip, workspace::free_port(ip)));
        let seeder = Seeder::start(Client::Libtorrent, &payload.torrent(home.path(), Some(&dead)), &payload);
        let torrent = payload.torrent(home.path(), None);
        Self { payload, torrent, seeder, _home: home }
    }

    /// A way to the seeder on which the content takes some seconds.
    fn slow_link(&self) -> Relay {
        let link = Link { down: Some(6_000_000), ..Link::default() };
        Relay::start(self.seeder.addr, link).unwrap()
    }

    fn args(&self, peer: SocketAddr, output: &Path, more: &[&str]) -> Vec<String> {
        let mut args: Vec<String> = ["download", "--quiet", "--peer"].map(str::to_owned).into();
        args.extend([peer.to_string(), "-o".to_owned(), output.display().to_string()]);
        args.extend(more.iter().map(|&arg| arg.to_owned()));
        args.push(self.torrent.display().to_string());
        args
    }

    /// `ringtide download -o OUTPUT MORE`, from this peer.
    fn download(&self, peer: SocketAddr, output: &Path, more: &[&str]) -> Program {
        ringtide(self.args(peer, output, more))
    }

    /// A download in its middle, and the slow link on which it goes on.
    #[track_caller]
    fn start_slowly(&self, output: &Path, more: &[&str]) -> (Running, Relay) {
        let relay = self.slow_link();
        let running = self.download(relay.addr, output, more).start();
        wait_for_bytes(&relay, MIDDLE);
        (running, relay)
    }

    /// Completes the download; how many bytes were kept of what was there.
    #[track_caller]
    fn complete(&self, output: &Path, more: &[&str]) -> u64 {
        let run = self.download(self.seeder.addr, output, &[&["--json"], more].concat()).run_within(LIMIT);
        let kept = summary(&run)["bytes_kept"].as_u64().unwrap();
        self.payload.assert_same(output);
        kept
    }
}

/// The JSON summary of a download that went well.
#[track_caller]
fn summary(run: &Run) -> Value {
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    serde_json::from_slice(&run.stdout).unwrap()
}

/// Waits until so many bytes have come through the relay.
#[track_caller]
fn wait_for_bytes(relay: &Relay, count: usize) {
    let came = || relay.passages().iter().filter(|it| it.way == Way::Down).map(|it| it.bytes).sum::<usize>();
    let enough = wait_for(LIMIT, || (came() >= count).then_some(()));
    assert!(enough.is_some(), "only {} bytes came", came());
}

/// The end of a download whose output failed, as the user sees it. Shows it too.
#[track_caller]
fn assert_fails(name: &str, running: Running, texts: &[&str]) {
    let run = running.wait(LIMIT);
    let line = run.assert_fails(BAD_OUTPUT, "");
    assert!(texts.iter().any(|text| line.contains(text)), "{name}: expected one of {texts:?} in:\n{line}");
    eprintln!("{name}: exit code {BAD_OUTPUT}, {line}");
}

/// Every kind of file system with every way to write it, each pair on a thread and with mounts of its own.
fn on_each(kinds: &[Kind], test: impl Fn(&str, Kind, &str) + Sync) {
    let test = &test;
    let pairs = kinds.iter().flat_map(|kind| METHODS.map(|io| (*kind, io)));
    let named: Vec<_> = pairs.map(|(kind, io)| (format!("{} with {io}", kind.name()), kind, io)).collect();
    let cases =
        named.iter().map(|(name, kind, io)| case(name, move || isolated(|| test(name, *kind, io)))).collect();
    in_parallel(cases);
}

#[test]
fn a_disk_that_fills_up_in_the_middle() {
    let _test = real_client_test!();
    let swarm = Swarm::start(LEN);
    on_each(&Kind::ALL, |name, kind, io| {
        let (volume, relay) = (Volume::new(kind), swarm.slow_link());
        let output = volume.path().join("out");
        let args = swarm.args(relay.addr, &output, &["--io", io]);
        let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
        // There is room for all of it when it starts, and nothing reserves it.
        let running = without_fallocate(&args).start();
        wait_for_bytes(&relay, MIDDLE);
        volume.fill(0);
        assert_fails(name, running, &["the disk is full: "]);
        volume.unfill();
        let kept = swarm.complete(&output, &["--io", io]);
        assert!(kept > 1 << 20, "{name}: only {kept} bytes were kept");
    });
}

#[test]
fn a_disk_that_is_full_at_the_start() {
    let _test = real_client_test!();
    let swarm = Swarm::start(LEN);
    on_each(&Kind::ALL, |name, kind, io| {
        let volume = Volume::new(kind);
        let output = volume.path().join("out");
        volume.fill(2 << 20);
        let before = volume.used();
        let text = format!("not enough room for {}: it needs ", output.display());
        assert_fails(name, swarm.download(swarm.seeder.addr, &output, &["--io", io]).start(), &[&text]);
        assert!(!output.exists(), "{name}: it left something behind");
        assert!(volume.used() <= before + (1 << 20), "{name}: it left something behind");
        volume.unfill();
        assert_eq!(swarm.complete(&output, &["--io", io]), 0);
    });
}

#[test]
fn an_output_that_is_cut_in_the_middle() {
    let _test = real_client_test!();
    let swarm = Swarm::start(LEN);
    on_each(&Kind::ALL, |name, kind, io| {
        let volume = Volume::new(kind);
        let output = volume.path().join("out");
        let (running, _relay) = swarm.start_slowly(&output, &["--io", io]);
        File::options().write(true).open(&output).unwrap().set_len(LEN / 3).unwrap();
        let text = format!(
            "{} was cut short (it has {} bytes, expected {LEN}) during the download",
            output.display(),
            LEN / 3
        );
        assert_fails(name, running, &[&text]);
        swarm.complete(&output, &["--io", io]);
    });
}

#[test]
fn an_output_that_is_emptied_and_one_that_is_removed_in_the_middle() {
    let _test = real_client_test!();
    let swarm = Swarm::start(LEN);
    on_each(&Kind::ALL, |name, kind, io| {
        let volume = Volume::new(kind);
        let output = volume.path().join("out");
        let (running, _relay) = swarm.start_slowly(&output, &["--io", io]);
        File::create(&output).unwrap();
        assert_fails(name, running, &["was cut short (it has 0 bytes"]);
        swarm.complete(&output, &["--io", io]);
        fs::remove_file(&output).unwrap();

        let (running, _relay) = swarm.start_slowly(&output, &["--io", io]);
        fs::remove_file(&output).unwrap();
        let text = format!("{} was removed during the download", output.display());
        assert_fails(name, running, &[&text]);
        assert_eq!(swarm.complete(&output, &["--io", io]), 0);
    });
}

/// A disk that has promised more than it has, as thin volumes and cloud disks do: what is written fails only on its way to
/// the disk, and only `--sync` waits for that.
#[test]
fn a_disk_that_takes_less_than_it_has_promised() {
    let _test = real_client_test!();
    let swarm = Swarm::start(LEN);
    on_each(&[Kind::Ext4, Kind::Xfs, Kind::Btrfs], |name, kind, io| {
        let lower = Volume::new(Kind::Tmpfs);
        lower.resize(512 << 20);
        let volume = Volume::on(kind, lower.path().join("image"));
        let output = volume.path().join("out");
        lower.resize(lower.used() + (8 << 20));
        let running = swarm.download(swarm.seeder.addr, &output, &["--sync", "--io", io]).start();
        // Which of them depends on who was told first: the file, or the file system's own books.
        let texts = ["the disk fails", "the disk has no room for ", "has become read-only"];
        assert_fails(name, running, &texts);
        // The disk is given what it had promised. What is still in memory must not pass for what is on it.
        lower.resize(512 << 20);
        if kind == Kind::Xfs {
            // It is sound: it has only lost some data, and goes on as it is.
            swarm.complete(&output, &["--sync", "--io", io]);
        } else {
            volume.unmount();
            volume.repair();
            volume.mount();
            swarm.complete(&output, &["--sync", "--io", io]);
        }
        volume.unmount();
        volume.repair();
        volume.mount();
        swarm.payload.assert_same(&output);
    });
}

/// What is on a disk that cannot be read is no part of a download, and no reason to crash.
#[test]
fn a_disk_that_cannot_be_read() {
    let _test = real_client_test!();
    let swarm = Swarm::start(LEN);
    on_each(&[Kind::Ext4, Kind::Xfs], |name, kind, io| {
        let lower = Faulty::mount();
        let volume = Volume::on(kind, lower.path().join("image"));
        let output = volume.path().join("out");
        swarm.complete(&output, &["--io", io]);
        // Nothing of the file is in memory afterwards but what its first page brings.
        volume.unmount();
        volume.mount();
        fs::metadata(&output).unwrap();
        lower.set_faults("read 0 EIO\n");
        let running = swarm.download(swarm.seeder.addr, &output, &["--io", io]).start();
        assert_fails(name, running, &["the disk fails (input/output error)"]);
        lower.set_faults("");
        assert_eq!(swarm.complete(&output, &["--io", io]), LEN, "{name}: everything is still there");
    });
}

/// A file system that does not say what it is shows by refusing a name that it follows other rules. The next run finds
/// the files under the same names.
#[test]
fn names_that_a_file_system_refuses_are_changed() {
    let _test = real_client_test!();
    let path = |parts: &[&'static str]| parts.iter().map(|part| part.as_bytes()).collect::<Vec<_>>();
    let files =
        [(path(&["1.txt"]), 20_000), (path(&["What?", "a:b.txt"]), 30_000), (path(&["What_", "A_B.txt"]), 5)];
    let content = Content::of_files(b"n", &files, 16_384);
    isolated(|| {
        let volume = Faulty::mount();
        volume.set_faults("name <>:?* EINVAL");
        let (dir, output) = (workspace::temp_dir("names"), volume.path().join("out"));
        let torrent = content.torrent(&dir.path().join("t"), &[]);
        let peer = Peer::honest(&content);
        let run = |more: &[&str], output: &Path| {
            let args = [output.to_str().unwrap(), torrent.to_str().unwrap()];
            ringtide([&["download", "-o"], &args[..], more].concat()).run_within(LIMIT)
        };
        let first = run(&["--peer", &peer.addr.to_string()], &output);
        assert_eq!(first.code, Some(0), "{}", first.stderr);
        assert!(first.stderr.contains("does not take all names of the torrent"), "{}", first.stderr);
        let read = |name: &str| fs::read(output.join(name)).unwrap();
        assert!([read("1.txt"), read("What_/a_b.txt"), read("What_/A_B.1.txt")].concat() == *content.bytes);
        let again = run(&[], &output);
        assert_eq!(again.code, Some(0), "all is there: {}", again.stderr);

        let single = Content::single("n", 20_000, 16_384);
        single.torrent(&torrent, &[]);
        let refused = volume.path().join("a:b?");
        let text =
            format!("the file system takes no file of the name {}: it has ':', '?'", refused.display());
        run(&["--peer", "127.0.0.1:1"], &refused).assert_fails(BAD_OUTPUT, &text);
    });
}

/// Where mapping is not right, the files are written, and the summary says so; and what such a file system answers is told.
#[test]
fn a_fuse_file_system_is_written_and_its_errors_are_told() {
    let _test = real_client_test!();
    let swarm = Swarm::start(LEN);
    isolated(|| {
        let volume = Faulty::mount();
        let run = |io| {
            let output = volume.path().join(format!("sound-{io}"));
            let run = swarm.download(swarm.seeder.addr, &output, &["--json", "--io", io]).run_within(LIMIT);
            swarm.payload.assert_same(&output);
            summary(&run)["io"].clone()
        };
        assert_eq!((run("auto"), run("pwrite")), ("pwrite".into(), "pwrite".into()));

        let cases = [
            ("write 9000000 EIO", "cannot write OUT: the disk fails (input/output error)"),
            ("write 9000000 ENOSPC", "the disk has no room for OUT, although "),
            ("write 9000000 EDQUOT", "your disk quota is used up: it has no room for "),
            ("write 9000000 EFBIG", "the file system of OUT cannot hold a file of "),
            ("write 9000000 EROFS", "the file system of OUT has become read-only"),
        ];
        for (fault, text) in cases {
            let output = volume.path().join("out");
            volume.set_faults(fault);
            let text = text.replace("OUT", output.to_str().unwrap());
            assert_fails(fault, swarm.download(swarm.seeder.addr, &output, &[]).start(), &[&text]);
            volume.set_faults("");
            swarm.complete(&output, &[]);
            fs::remove_file(&output).unwrap();
        }
        // What fails only when it is waited for.
        let output = volume.path().join("out");
        volume.set_faults("fsync 0 EIO");
        let text = format!("cannot write to the disk {}: the disk fails", output.display());
        assert_fails("fsync", swarm.download(swarm.seeder.addr, &output, &["--sync"]).start(), &[&text]);
        volume.set_faults("");
        swarm.complete(&output, &["--sync"]);
    });
}

#[test]
fn limits_of_the_process_are_told() {
    let _test = real_client_test!();
    let swarm = Swarm::start(LEN);
    let dir = workspace::temp_dir("limits");
    let limited = |limits: &[&str], args: &[String]| {
        with_limits(limits, &args.iter().map(OsStr::new).collect::<Vec<_>>()).start()
    };
    let text = "bytes, and this process may not make files longer than 9000000 (see ulimit -f)";
    for io in METHODS {
        let output = dir.path().join(io);
        let args = swarm.args(swarm.seeder.addr, &output, &["--io", io]);
        assert_fails(io, limited(&["--fsize=9000000"], &args), &[text]);
        assert!(!output.exists());
        assert_eq!(swarm.complete(&output, &["--io", io]), 0);
    }
    // Where the file has its length and its room already, only the writes behind the limit fail.
    let output = dir.path().join("long");
    File::create(&output).unwrap().set_len(LEN).unwrap();
    let args = swarm.args(swarm.seeder.addr, &output, &["--io", "pwrite"]);
    assert_fails("pwrite to a long file", limited(&["--fsize=9000000"], &args), &[text]);
    swarm.complete(&output, &["--io", "pwrite"]);
}

/// A piece that does not fit what memory the process may have goes to the file as it comes.
#[test]
fn a_piece_without_memory_is_written_as_it_comes() {
    let _test = real_client_test!();
    let content = Content::single("huge", 256 << 20, 256 << 20);
    let peer = Peer::honest(&content);
    let dir = workspace::temp_dir("memory");
    let (torrent, output) = (content.torrent(&dir.path().join("t"), &[]), dir.path().join("out"));
    let peer = peer.addr.to_string();
    let args = ["download", "-q", "--threads", "1", "--io", "pwrite", "--peer", &peer, "-o"].map(OsStr::new);
    let args: Vec<&OsStr> = args.into_iter().chain([output.as_os_str(), torrent.as_os_str()]).collect();
    let run = with_limits(&["--as=250000000"], &args).run_within(LIMIT);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(fs::read(&output).unwrap() == *content.bytes);
}
