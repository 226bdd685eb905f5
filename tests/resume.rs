//! Downloads that end before they are done, and the runs that go on with them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(unused_macros, unused_imports, reason = "one of its parts is a macro for other tests")]
mod common;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use common::workspace::temp_dir;
use ringtide::disk::record::Record;
use ringtide::meta::geometry::Geometry;
use serde_json::Value;
use support::content::Content;
use support::folder;
use support::peer::{Peer, Script};
use support::program::{Running, ringtide};
use tempfile::TempDir;

/// How long a run may hang: far more than it takes.
const LIMIT: Duration = Duration::from_secs(60);

const BLOCK_LEN: usize = 16 << 10;
const PIECE_LEN: usize = 4 * BLOCK_LEN;

/// A download into a folder of its own.
struct Download {
    content: Content,
    dir: TempDir,
    torrent: PathBuf,
    /// How often the record is written.
    record_ms: u64,
}

/// A download to which nothing comes any more.
struct Stopped(Running);

impl Stopped {
    fn end(self, signal: &str) {
        let Self(mut running) = self;
        if signal == "KILL" {
            return running.kill();
        }
        running.signal(signal);
        let code = if signal == "INT" { 130 } else { 143 };
        running.wait(LIMIT).assert_fails(code, "run the same command again");
    }
}

/// What a run that ended well said.
struct Summary(Value, String);

impl Summary {
    fn bytes(&self, key: &str) -> u64 {
        self.0[key].as_u64().unwrap()
    }
}

impl Download {
    fn new(content: Content, record_ms: u64) -> Self {
        let dir = temp_dir("resume");
        let torrent = content.torrent(&dir.path().join("t.torrent"), &[]);
        Self { content, dir, torrent, record_ms }
    }

    fn single() -> Self {
        Self::new(Content::single("resumed", (6 << 20) + 12_345, PIECE_LEN), 50)
    }

    /// Many pieces lie in several files, and many files in one piece.
    fn folder() -> Self {
        let lens: Vec<usize> = (0..60).map(|at| [1, 300_000, 0, 40_000, 70_000][at % 5] + at).collect();
        Self::new(Content::folder("resumed", &lens, PIECE_LEN), 50)
    }

    fn output(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn record(&self) -> PathBuf {
        self.dir.path().join("out.ringtide")
    }

    /// A peer that brings `rate` blocks a second, each once.
    fn peer(&self, rate: u32) -> Peer {
        let block_after = Duration::from_secs(1) / rate;
        Peer::start(&self.content, Script { block_after, ..Script::default() })
    }

    fn start(&self, peer: &Peer, more: &[&str]) -> Running {
        let (output, peer) = (self.output(), peer.addr.to_string());
        let args = ["download", "--json", "-o", output.to_str().unwrap(), "--peer", &peer];
        let args = args.iter().chain(more).copied().chain([self.torrent.to_str().unwrap()]);
        ringtide(args).env("RINGTIDE_RECORD_MS", &self.record_ms.to_string()).start()
    }

    /// Goes on to the end, and looks at every byte.
    fn finish(&self, peer: &Peer) -> Summary {
        let run = self.start(peer, &[]).wait(LIMIT);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert_eq!(self.right_pieces().len(), self.content.piece_count(), "the content differs");
        let left = folder::names(&folder::list(self.dir.path()));
        assert!(!left.iter().any(|name| name.contains(".ringtide")), "{left:?}");
        Summary(serde_json::from_slice(&run.stdout).unwrap(), run.stderr)
    }

    /// Starts, and ends it by a signal once a record has so many durable pieces.
    fn stop_at(&self, pieces: usize, signal: &str) {
        self.run_to(pieces).end(signal);
    }

    /// Starts, and waits until a record has so many durable pieces. The peer falls silent before the end.
    fn run_to(&self, pieces: usize) -> Stopped {
        let blocks_max = self.content.bytes.len() / BLOCK_LEN * 9 / 10;
        let peer = Peer::start(&self.content, Script { blocks_max, ..Script::default() });
        let running = self.start(&peer, &[]);
        let deadline = Instant::now() + LIMIT;
        while self.read_record().is_none_or(|record| count(&record.durable) < pieces) {
            if Instant::now() > deadline {
                running.signal("INT");
                panic!("no record has {pieces} pieces; {:?}", running.wait(LIMIT));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Stopped(running)
    }

    fn read_record(&self) -> Option<Record> {
        fs::read(self.record()).ok().map(|bytes| Record::parse(&bytes).expect("a record is always whole"))
    }

    fn write_record(&self, change: impl FnOnce(&mut Record)) {
        let mut record = self.read_record().unwrap();
        change(&mut record);
        fs::write(self.record(), record.encode()).unwrap();
    }

    /// All bytes of the output, in the order of the torrent.
    fn bytes(&self) -> Vec<u8> {
        let output = self.output();
        if output.is_file() {
            return fs::read(output).unwrap();
        }
        // A folder that is not there has none.
        let mut files: Vec<_> =
            fs::read_dir(output.join("d")).into_iter().flatten().map(|file| file.unwrap().path()).collect();
        files.sort();
        files.iter().flat_map(|file| fs::read(file).unwrap()).collect()
    }

    fn right_pieces(&self) -> BTreeSet<usize> {
        let bytes = self.bytes();
        let pieces = bytes.chunks(PIECE_LEN).enumerate();
        pieces.filter(|(at, piece)| *piece == self.content.piece(*at)).map(|(at, _)| at).collect()
    }

    /// Changes a byte of a piece.
    fn spoil(&self, piece: usize) {
        let file = fs::OpenOptions::new().write(true).open(self.output()).unwrap();
        let byte = !self.content.piece(piece)[7];
        file.write_all_at(&[byte], (piece * PIECE_LEN + 7) as u64).unwrap();
    }
}

fn count(pieces: &[u8]) -> usize {
    pieces.iter().map(|byte| byte.count_ones() as usize).sum()
}

fn members(pieces: &[u8]) -> impl Iterator<Item = usize> + '_ {
    (0..pieces.len() * 8).filter(|at| pieces[at / 8] & (0x80 >> (at % 8)) != 0)
}

fn bytes_of(pieces: &[u8], content: &Content) -> u64 {
    members(pieces).map(|piece| content.piece(piece).len() as u64).sum()
}

#[test]
fn what_was_synced_before_an_interrupt_is_not_hashed_again() {
    for (download, signal) in [(Download::single(), "INT"), (Download::folder(), "TERM")] {
        download.stop_at(download.content.piece_count() * 3 / 5, signal);
        let record = download.read_record().unwrap();
        assert!(record.is_closed);
        let verified = bytes_of(&record.verified, &download.content);
        let peer = download.peer(100_000);
        let summary = download.finish(&peer);
        assert!(summary.bytes("bytes_kept") >= verified);
        // What is hashed are the pieces that were under way, or not on the disk yet.
        let hashed = summary.bytes("bytes_checked");
        let synced = bytes_of(&record.durable, &download.content);
        assert!(
            hashed <= download.content.bytes.len() as u64 - synced,
            "{hashed} bytes were hashed, {verified} {}",
            summary.1
        );
        let again =
            peer.seen().pieces().into_iter().find(|piece| members(&record.verified).any(|had| had == *piece));
        assert_eq!(again, None, "a verified piece was fetched again");
    }
}

#[test]
fn what_was_recorded_before_a_kill_is_hashed_at_the_end() {
    for download in [Download::single(), Download::folder()] {
        download.stop_at(10, "KILL");
        let record = download.read_record().unwrap();
        assert!(!record.is_closed);
        let right = download.right_pieces();
        let peer = download.peer(100_000);
        let summary = download.finish(&peer);
        assert!(summary.bytes("bytes_checked") >= bytes_of(&record.durable, &download.content));
        assert_eq!(peer.seen().pieces().intersection(&right).next(), None, "a right piece was fetched again");
    }
}

#[test]
fn a_kill_before_anything_was_verified_leaves_no_foreign_file() {
    let download = Download { record_ms: 60_000, ..Download::single() };
    // The first piece stays half done.
    let peer = Peer::start(&download.content, Script { blocks_max: 2, ..Script::default() });
    let mut running = download.start(&peer, &[]);
    let deadline = Instant::now() + LIMIT;
    while download.output().metadata().is_err() || download.bytes().iter().all(|&byte| byte == 0) {
        assert!(Instant::now() < deadline, "nothing comes");
        thread::sleep(Duration::from_millis(2));
    }
    running.kill();
    assert!(download.right_pieces().is_empty());
    download.finish(&download.peer(100_000));
}

#[test]
fn a_piece_that_was_changed_is_noticed() {
    // The times of the file tell of a change after an orderly end, and the hash of one after a kill.
    for signal in ["INT", "KILL"] {
        let download = Download::single();
        download.stop_at(10, signal);
        let record = download.read_record().unwrap();
        let spoiled = members(&record.durable).nth(3).unwrap();
        download.spoil(spoiled);
        let peer = download.peer(100_000);
        let summary = download.finish(&peer);
        assert!(peer.seen().pieces().contains(&spoiled));
        assert!(summary.bytes("bytes_checked") >= bytes_of(&record.durable, &download.content));
    }
}

#[test]
fn a_file_that_was_cut_meanwhile_is_noticed() {
    let download = Download::single();
    // Close to where the peer falls silent: one that still receives would notice at once.
    let stopped = download.run_to(download.content.piece_count() * 17 / 20);
    let file = fs::OpenOptions::new().write(true).open(download.output()).unwrap();
    file.set_len(PIECE_LEN as u64 * 2).unwrap();
    stopped.end("INT");
    assert!(!download.read_record().unwrap().is_closed);
    download.finish(&download.peer(100_000));
}

#[test]
fn after_the_machine_went_down_only_synced_pieces_are_believed() {
    let download = Download::single();
    download.stop_at(10, "INT");
    let mut fresh = 0;
    download.write_record(|record| {
        record.boot = [7; 16];
        // Two of the pieces never reached the disk.
        for piece in members(&record.durable.clone()).take(2) {
            record.durable[piece / 8] &= !(0x80 >> (piece % 8));
        }
        fresh = bytes_of(&record.verified, &download.content) - bytes_of(&record.durable, &download.content);
    });
    let summary = download.finish(&download.peer(100_000));
    assert!(fresh >= 2 * PIECE_LEN as u64);
    assert!(summary.bytes("bytes_checked") >= fresh);
}

#[test]
fn a_record_that_cannot_be_right_leads_to_a_full_check() {
    type Change = fn(&Download, Vec<u8>) -> Vec<u8>;
    let cases: [(&str, Change); 7] = [
        ("is damaged", |_, mut bytes| {
            bytes[100] ^= 1;
            bytes
        }),
        ("is damaged", |_, mut bytes| {
            bytes.truncate(100);
            bytes
        }),
        ("is damaged", |_, _| Vec::new()),
        ("is of version 513", |_, mut bytes| {
            bytes[17] = 2;
            bytes
        }),
        ("is of another torrent", |_, bytes| {
            Record { info_hash: [1; 20], ..Record::parse(&bytes).unwrap() }.encode()
        }),
        ("is damaged", |_, bytes| {
            // A cut with more pieces, for which the sets are longer than what is read.
            let geometry = Geometry::new(1 << 40, 16 << 10).unwrap();
            let sets = vec![0xff; geometry.piece_count().div_ceil(8) as usize];
            Record { geometry, durable: sets.clone(), verified: sets, ..Record::parse(&bytes).unwrap() }
                .encode()
        }),
        ("is about other files", |download, bytes| {
            let copy = download.dir.path().join("copy");
            fs::copy(download.output(), &copy).unwrap();
            fs::rename(copy, download.output()).unwrap();
            bytes
        }),
    ];
    for (why, change) in cases {
        let download = Download::single();
        download.stop_at(10, "INT");
        let right = download.right_pieces();
        let bytes = fs::read(download.record()).unwrap();
        fs::write(download.record(), change(&download, bytes)).unwrap();
        let peer = download.peer(100_000);
        let output = download.output();
        let args = ["download", "--json", "-o", output.to_str().unwrap(), "--peer", &peer.addr.to_string()];
        let run = ringtide(args.into_iter().chain([download.torrent.to_str().unwrap()])).run_within(LIMIT);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(
            run.stderr.contains(&format!("out.ringtide {why}: everything there is checked")),
            "{}",
            run.stderr
        );
        let summary = Summary(serde_json::from_slice(&run.stdout).unwrap(), run.stderr);
        let kept: usize = right.iter().map(|piece| download.content.piece(*piece).len()).sum();
        assert!(summary.bytes("bytes_checked") >= kept as u64);
        assert_eq!(summary.bytes("bytes_kept"), kept as u64);
        assert_eq!(peer.seen().pieces().intersection(&right).next(), None, "a right piece was fetched again");
        assert!(*download.bytes() == *download.content.bytes);
        assert!(!download.record().exists());
    }
}

#[test]
fn a_file_that_only_has_the_name_of_a_record_is_left_alone() {
    let download = Download::single();
    fs::write(download.record(), "my own notes").unwrap();
    let peer = download.peer(100_000);
    let run = download.start(&peer, &[]).wait(LIMIT);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(*download.bytes() == *download.content.bytes);
    assert_eq!(fs::read_to_string(download.record()).unwrap(), "my own notes");
}

#[test]
fn overwriting_keeps_what_is_right() {
    let download = Download::single();
    download.stop_at(10, "INT");
    let right = download.right_pieces();
    let peer = download.peer(100_000);
    let run = download.start(&peer, &["--overwrite"]).wait(LIMIT);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(*download.bytes() == *download.content.bytes);
    assert_eq!(peer.seen().pieces().intersection(&right).next(), None, "a right piece was fetched again");
    assert!(!download.record().exists());
}

#[test]
fn no_record_outlives_a_download_that_undid_everything() {
    let download = Download::single();
    let peer = Peer::start(&download.content, Script { blocks_max: 0, ..Script::default() });
    let running = download.start(&peer, &[]);
    thread::sleep(Duration::from_millis(300));
    running.signal("INT");
    running.wait(LIMIT).assert_fails(130, "0 B of");
    let left: Vec<_> =
        fs::read_dir(download.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["t.torrent"]);
}

/// Kills downloads again and again at random moments; a later run goes on each time.
fn kill_often(make: fn() -> Download, kills: usize, seed: u64) {
    let mut random = seed;
    let (mut killed, mut served, mut wanted) = (0, 0, 0);
    while killed < kills {
        let download = make();
        let peer = download.peer(3_000);
        let first = killed;
        loop {
            assert!(killed - first < 4 * kills, "it does not come to an end (seed {seed}, kill {killed})");
            let right = download.right_pieces();
            if let Some(record) = download.read_record() {
                let wrong = members(&record.verified).find(|piece| !right.contains(piece));
                assert_eq!(wrong, None, "recorded, and not there (seed {seed}, kill {killed})");
            }
            let before = peer.seen().blocks.len();
            let mut running = download.start(&peer, &[]);
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            thread::sleep(Duration::from_micros(20_000 + (random >> 33) % 130_000));
            running.kill();
            killed += 1;
            let again =
                peer.seen().blocks[before..].iter().map(|block| block.0).find(|piece| right.contains(piece));
            assert_eq!(again, None, "a right piece was fetched again (seed {seed}, kill {killed})");
            if download.right_pieces().len() == download.content.piece_count() {
                break;
            }
        }
        download.finish(&peer);
        served += peer.seen().blocks.len();
        wanted += download.content.bytes.len().div_ceil(BLOCK_LEN);
    }
    // What is fetched twice are pieces that were half done.
    assert!(served - wanted <= killed * 64, "{served} blocks were served for {wanted}, with {killed} kills");
}

#[test]
fn a_file_survives_a_hundred_kills() {
    kill_often(Download::single, 100, 1);
}

#[test]
fn a_folder_survives_a_hundred_kills() {
    kill_often(Download::folder, 100, 2);
}

/// The download works without a record as well.
#[test]
fn a_record_that_cannot_be_written_stops_nothing() {
    let download = Download::single();
    // Folders stand wherever the next record could be written.
    for number in 0..16 {
        let name = if number == 0 { "ringtide.new".to_owned() } else { format!("ringtide.new.{number}") };
        fs::create_dir(download.output().with_extension(name)).unwrap();
    }
    let running = download.start(&download.peer(2_000), &[]);
    let run = running.wait(LIMIT);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(*download.bytes() == *download.content.bytes);
}
